//! One question and its answer over HTTP, redirects included.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, IF_RANGE, LOCATION, RANGE,
    RETRY_AFTER, VIA,
};
use http::{HeaderMap, HeaderValue, StatusCode, Version};
use jiff::Timestamp;
use reqwest::Response;
use stoa_module::ErrorClass;
use url::Url;

use crate::client::Encoding;
use crate::client::body::Answer;
use crate::client::budget::{Budget, Spent};
use crate::client::fault;
use crate::client::names::Names;
use crate::client::progress::Progress;
use crate::client::requests::Builder;
use crate::client::rest::{Rest, Strong, part};
use crate::client::words;
use crate::credentials::{Credentials, same_origin};
use crate::discovery::Guard;
use crate::error::Error;
use crate::examine::Trouble;
use crate::failure::{Fault, Stage, span};
use crate::proxy::Proxies;
use crate::settings::Settings;
use crate::source::{Base, without_credentials};
use crate::via;

/// For the words of a refusal, which nobody should have to wait for.
const WORDS_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Http {
    client: reqwest::Client,
    /// Makes a connection for each request. One of the pool may have been cut off silently by something in between, and
    /// must not pass for a dead host.
    prober: reqwest::Client,
    /// Whether there is any authority to trust.
    is_trusting: bool,
    credentials: Arc<Credentials>,
    proxies: Arc<Proxies>,
    /// For proxies that nobody here has named.
    guard: Option<Arc<Guard>>,
    connect_timeout: Duration,
    max_redirects: usize,
    via: String,
    names: Arc<Names>,
}

impl Http {
    pub(crate) fn new(
        settings: &Settings,
        credentials: Arc<Credentials>,
        proxies: Arc<Proxies>,
        guard: Option<Arc<Guard>>,
        names: Arc<Names>,
    ) -> Result<Self, Error> {
        let builder = Builder::new(settings, Arc::clone(&proxies), names.clone())?;
        let (client, is_trusting) = builder.build(|client| client)?;
        let (prober, _) = builder.build(|client| client.pool_max_idle_per_host(0))?;
        Ok(Self {
            client,
            prober,
            is_trusting,
            credentials,
            proxies,
            guard,
            connect_timeout: settings.connect_timeout,
            max_redirects: settings.max_redirects,
            via: via::entry(&settings.instance_id),
            names,
        })
    }

    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// Our own entry of `Via`.
    pub(crate) fn via(&self) -> &str {
        &self.via
    }

    /// Asks, follows redirects, and hands over an answer whose body is still to come: a 200, or, where only the rest of a
    /// body is wanted, perhaps a 206 with it.
    pub(super) async fn ask(
        &self,
        base: &Base,
        url: &Url,
        encoding: Encoding,
        via: &HeaderValue,
        rest: Option<&Rest>,
        waiting: &mut Budget,
    ) -> Result<Received, Fault> {
        let mut headers = HeaderMap::new();
        headers.insert(VIA, via.clone());
        if let Some(rest) = rest {
            headers.insert(RANGE, rest.range());
            headers.insert(IF_RANGE, rest.of.etag.clone());
        }
        if encoding == Encoding::Identity {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        let mut url = url.clone();
        let mut passed: Vec<Url> = Vec::new();
        // Once a redirect has left the host that was named, no credential is sent any more, not even back to it.
        let mut is_home = true;
        loop {
            let astray = |fault| at_hop(fault, base, &url);
            let client = match (base.guard(), &self.guard) {
                (Some(about), Some(guard)) => guard.client(&url, about).await?,
                _ => &self.client,
            };
            let sent = self.send(client, base, &url, is_home, headers.clone(), waiting).await;
            let response = sent.map_err(astray)?;
            if !response.status().is_redirection() {
                return Received::new(response, rest).await.map_err(astray);
            }
            let next = target(&response, &url).map_err(astray)?;
            discard(response).await;
            is_home = is_home && same_origin(&url, &next);
            if base.is_confined() && !same_origin(base.url(), &next) {
                let detail = format!(
                    "redirect of a private module to another host ({})",
                    next.host_str().unwrap_or_default()
                );
                return Err(Fault::new(ErrorClass::Denied, Stage::Http, detail));
            }
            passed.push(url);
            if passed.contains(&next) {
                return Err(bad_redirect("a redirect loop"));
            }
            if passed.len() > self.max_redirects {
                return Err(bad_redirect(&format!("more than {} redirects", self.max_redirects)));
            }
            url = next;
        }
    }

    /// The next connection for this address is to what the resolver says then.
    pub(crate) fn doubt(&self, url: &Url) {
        let connected_to = self.proxies.find(url).unwrap_or(url);
        self.names.doubt(connected_to.host_str().unwrap_or_default());
    }

    /// Asks once over a connection of its own, and hands over whatever is answered. No redirect is followed.
    pub(crate) async fn ask_once(
        &self,
        base: &Base,
        url: &Url,
        waiting: &mut Budget,
    ) -> Result<Response, Fault> {
        let mut headers = HeaderMap::new();
        headers.insert(VIA, via::forward("", &self.via));
        self.send(&self.prober, base, url, true, headers, waiting).await
    }

    async fn send(
        &self,
        client: &reqwest::Client,
        base: &Base,
        url: &Url,
        is_home: bool,
        mut headers: HeaderMap,
        waiting: &mut Budget,
    ) -> Result<Response, Fault> {
        if url.scheme() == "https" && !self.is_trusting {
            let detail = "tls: this system has no certificates of authorities (install \
                          ca-certificates, or name a file of them in the settings)";
            return Err(Fault::new(ErrorClass::Unavailable, Stage::Tls, detail));
        }
        let sending = async {
            // A proxy that a module's host has named gets what is meant for it if the module is one of ours.
            let is_meant = base.guard().is_none_or(|about| about.is_named);
            if is_home
                && is_meant
                && let Some(secret) = self.credentials.find(base, url).await
            {
                headers.insert(AUTHORIZATION, secret);
            }
            client.get(url.clone()).headers(headers).send().await
        };
        let connected_to = self.proxies.find(url).unwrap_or(url).host_str().unwrap_or_default();
        let strange = (!same_origin(base.url(), url)).then(|| url.host_str().unwrap_or_default());
        let mut fault = match answer(sending, waiting, self.connect_timeout, strange).await {
            Ok(response) => {
                if let Some(address) = response.remote_addr() {
                    self.names.answered(connected_to, address.ip());
                }
                return Ok(response);
            }
            Err(fault) => fault,
        };
        if fault.stage == Stage::Connect {
            self.names.doubt(connected_to);
        }
        if let Some(proxy) = self.proxies.find(url) {
            let host = proxy.host_str().unwrap_or_default();
            let port = proxy.port_or_known_default().unwrap_or_default();
            fault.detail = format!("{} (through the proxy {host}:{port})", fault.detail);
        }
        Err(fault)
    }
}

/// Waits for the header of an answer, and tells how far it came if there is none. `host`: who is asked, where that is not
/// the source itself.
pub(crate) async fn answer(
    sending: impl Future<Output = reqwest::Result<Response>>,
    waiting: &mut Budget,
    connect_timeout: Duration,
    host: Option<&str>,
) -> Result<Response, Fault> {
    let progress = Progress::begin(host);
    match waiting.spend(progress.scope(sending)).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => Err(fault::of_send(&error, progress.stage(), connect_timeout)),
        Err(Spent) => {
            let stage = progress.stage();
            let detail = format!("{stage}: timeout after {}", span(waiting.whole()));
            Err(Fault::new(ErrorClass::Timeout, stage, detail).proves(match stage {
                Stage::Dns => Trouble::ResolverSilent,
                // Also where a proxy has been connected to, and does not say whether it reaches the host.
                _ => Trouble::HeaderTimeout,
            }))
        }
    }
}

/// Says at which host something failed, if a redirect has led to another than the source's.
fn at_hop(mut fault: Fault, base: &Base, url: &Url) -> Fault {
    if !same_origin(base.url(), url) {
        fault.elsewhere = true;
        let host = url.host_str().unwrap_or_default();
        fault.detail = format!("{} (redirected to {host})", fault.detail);
    }
    fault
}

/// Where a redirect leads.
fn target(response: &Response, from: &Url) -> Result<Url, Fault> {
    let status = response.status();
    let followed = [
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::FOUND,
        StatusCode::SEE_OTHER,
        StatusCode::TEMPORARY_REDIRECT,
        StatusCode::PERMANENT_REDIRECT,
    ];
    let location = response.headers().get(LOCATION);
    let Some(location) = location.filter(|_| followed.contains(&status)) else {
        return Err(fault::of_status(status, None));
    };
    let location = location.to_str().ok().and_then(|location| from.join(location).ok());
    let Some(mut next) = location.filter(|next| matches!(next.scheme(), "http" | "https")) else {
        return Err(bad_redirect("a redirect to something that is no http address"));
    };
    if from.scheme() == "https" && next.scheme() == "http" {
        return Err(bad_redirect("a redirect from https to http"));
    }
    next.set_fragment(None);
    // Whatever secret an upstream puts there, it is not ours to send.
    Ok(without_credentials(&next))
}

fn bad_redirect(detail: &str) -> Fault {
    Fault::new(ErrorClass::Corrupt, Stage::Http, detail)
}

/// Reads the small body that often comes with a redirect or an absence, so that the connection can be used again. Over
/// HTTP/2 it can anyway.
async fn discard(response: Response) {
    let length = response.content_length();
    let small = length.is_none_or(|length| length <= words::MAX_BYTES as u64);
    if small && response.version() < Version::HTTP_2 {
        let _ = first_bytes(response).await;
    }
}

/// The first bytes of a body, as many as are looked at, or less if they do not come at once.
async fn first_bytes(mut response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    let mut patience = Budget::new(WORDS_TIMEOUT);
    while body.len() < words::MAX_BYTES {
        match patience.spend(response.chunk()).await {
            Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk),
            Ok(Ok(None) | Err(_)) | Err(Spent) => break,
        }
    }
    body
}

/// A body that is still to come, or the rest of one.
#[derive(Debug)]
pub(crate) struct Received {
    response: Response,
    /// Of the whole body.
    length: Option<u64>,
    from: u64,
}

impl Received {
    async fn new(response: Response, rest: Option<&Rest>) -> Result<Self, Fault> {
        let headers = response.headers();
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let status = response.status();
        let is_part = status == StatusCode::PARTIAL_CONTENT && rest.is_some();
        if status != StatusCode::OK && !is_part {
            let wait =
                text(RETRY_AFTER).and_then(|wait| fault::retry_after(wait, Timestamp::now()));
            let mut fault = fault::of_status(status, wait);
            if words::are_plain(headers) {
                fault.text = words::from_body(&first_bytes(response).await);
            } else {
                discard(response).await;
            }
            return Err(fault);
        }
        // Gzip has been taken off by now, with its length; nothing else was asked for.
        if text(CONTENT_ENCODING).is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
            let detail = "an answer in a content encoding that was not asked for";
            return Err(Fault::new(ErrorClass::Corrupt, Stage::Http, detail));
        }
        let length = text(CONTENT_LENGTH).and_then(|length| length.parse().ok());
        let Some(rest) = rest.filter(|_| is_part) else {
            return Ok(Self { response, length, from: 0 });
        };
        part(&response, length, rest)?;
        Ok(Self { length: Some(rest.of.total), from: rest.from, response })
    }

    /// What the rest of this body may be asked for under, if it breaks off.
    pub(super) fn strong(&self) -> Option<Strong> {
        Strong::of(&self.response, self.length?)
    }
}

impl Answer for Received {
    fn length(&self) -> Option<u64> {
        self.length
    }

    fn from(&self) -> u64 {
        self.from
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, Fault> {
        self.response.chunk().await.map_err(|error| fault::of_body(&error))
    }
}
