//! The outgoing proxy's tunnel.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};
use url::Url;

use crate::client::words;
use crate::credentials::header;
use crate::examine::http::{read_head, status};
use crate::examine::tls::Wire;
use crate::examine::{Trouble, banner};
use crate::failure::span;
use crate::source::secret_of;

/// For the words of a refusal.
const WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// Asks a proxy for a tunnel to `target`, which is `host:port`. Answers what was seen, and what is wrong with it.
pub(super) async fn tunnel(
    stream: &mut impl Wire,
    proxy: &Url,
    target: &str,
    user_agent: &str,
    bound: Duration,
) -> (String, Option<Trouble>) {
    let until = Instant::now() + bound;
    let mut request =
        format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: {user_agent}\r\n");
    let secret = secret_of(proxy).ok().flatten();
    if let Some(secret) = secret.as_ref().and_then(header)
        && let Ok(secret) = secret.to_str()
    {
        _ = write!(request, "Proxy-Authorization: {secret}\r\n");
    }
    request += "\r\n";
    let asking = async {
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        read_head(stream).await
    };
    let head = match timeout_at(until, asking).await {
        Ok(Ok(head)) => head,
        Ok(Err(error)) => {
            return (format!("the proxy broke off: {error}"), Some(Trouble::ProxyRefuses));
        }
        Err(_) => {
            let seen = format!("no answer of the proxy to CONNECT {target} in {}", span(bound));
            return (seen, Some(Trouble::HeaderTimeout));
        }
    };
    if head.is_empty() {
        let seen = format!("the proxy closed the connection at CONNECT {target}");
        return (seen, Some(Trouble::ProxyRefuses));
    }
    let line = banner(&head);
    match status(&head) {
        None => (format!("the proxy does not speak http: {line}"), Some(Trouble::ProxyRefuses)),
        Some(200..=299) => (format!("tunnel to {target}: {line}"), None),
        Some(407) => {
            let whose = match &secret {
                Some(_) => "the one of its address is not accepted",
                None => "its address in the settings has none",
            };
            let seen = format!("the proxy wants a password, and {whose}: {line}");
            (seen, Some(Trouble::ProxyWantsPassword))
        }
        Some(_) => {
            let mut body = vec![0; words::MAX_BYTES];
            let until = until.min(Instant::now() + WORDS_TIMEOUT);
            let length = match timeout_at(until, stream.read(&mut body)).await {
                Ok(Ok(length)) => length,
                _ => 0,
            };
            body.truncate(length);
            let said = words::from_body(&body).map(|said| format!(": {said}")).unwrap_or_default();
            let seen = format!("the proxy refuses a tunnel to {target}: {line}{said}");
            (seen, Some(Trouble::ProxyRefuses))
        }
    }
}
