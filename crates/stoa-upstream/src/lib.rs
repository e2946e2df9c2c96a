//! Getting bytes from elsewhere: upstream proxies over HTTP, credentials, retries.
