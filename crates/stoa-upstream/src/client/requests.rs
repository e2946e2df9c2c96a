//! How every HTTP client of this room is built.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use reqwest::dns::Resolve;
use reqwest::redirect::Policy;
use reqwest::{ClientBuilder, Proxy, retry};

use crate::client::progress::{Connections, Watched};
use crate::client::tls;
use crate::error::Error;
use crate::proxy::Proxies;
use crate::settings::Settings;

/// Connections that are kept for a host while nothing is asked of it: as many as a busy office uses at once, since between two
/// requests each is idle. `https:` hosts mostly need one (HTTP/2).
const IDLE_CONNECTIONS: usize = 32;
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// An HTTP/2 connection that is in use and silent is asked for a sign of life, so that a dead one is noticed before
/// every request on it has waited for its whole bound.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What all clients share; they differ in their resolver and in whom they trust.
pub(crate) struct Builder {
    user_agent: HeaderValue,
    connect_timeout: Duration,
    ca_files: Vec<PathBuf>,
    proxies: Arc<Proxies>,
    resolver: Arc<Watched>,
}

impl Builder {
    pub(crate) fn new(
        settings: &Settings,
        proxies: Arc<Proxies>,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Self, Error> {
        let user_agent = HeaderValue::from_str(&settings.user_agent)
            .map_err(|_| Error::InvalidUserAgent(settings.user_agent.clone()))?;
        Ok(Self {
            user_agent,
            connect_timeout: settings.connect_timeout,
            ca_files: settings.ca_files.clone(),
            proxies,
            resolver: Arc::new(Watched(resolver)),
        })
    }

    /// Builds the client, and tells whether it has any authority to trust.
    pub(crate) fn build(
        &self,
        change: impl Fn(ClientBuilder) -> ClientBuilder,
    ) -> Result<(reqwest::Client, bool), Error> {
        let builder = || {
            let proxies = Arc::clone(&self.proxies);
            let client = reqwest::Client::builder()
                .user_agent(self.user_agent.clone())
                .connect_timeout(self.connect_timeout)
                // Redirects, tries and the choice of the outgoing proxy are all our own.
                .redirect(Policy::none())
                .referer(false)
                .retry(retry::never())
                .no_proxy()
                .proxy(Proxy::custom(move |url| proxies.find(url).cloned()))
                .dns_resolver(Arc::clone(&self.resolver))
                .connector_layer(Connections)
                .pool_max_idle_per_host(IDLE_CONNECTIONS)
                .pool_idle_timeout(IDLE_TIMEOUT)
                .http2_keep_alive_interval(PING_INTERVAL)
                .http2_keep_alive_timeout(PING_TIMEOUT);
            change(client)
        };
        tls::build(builder, tls::read(&self.ca_files)?)
    }
}
