//! `GET https://PATH?go-get=1`, with what a request to a host that a stranger chose needs: bounds, and an address filter
//! at every step.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, LOCATION};
use reqwest::Response;
use reqwest::dns::Resolve;
use stoa_module::{ErrorClass, ModulePath};
use url::{Host, Url};

use crate::client::budget::{Budget, Spent};
use crate::client::fault;
use crate::client::requests::Builder;
use crate::client::resolver::{PROGRESS, Progress};
use crate::credentials::{Credentials, same_origin};
use crate::discovery::address::{NotPublic, PublicOnly, is_public};
use crate::discovery::{Ask, Rules};
use crate::error::Error;
use crate::failure::{Fault, Stage, span};
use crate::proxy::Proxies;
use crate::settings::Settings;
use crate::source::{Base, without_credentials};

/// Of a page; the entries stand in its head.
const MAX_PAGE: usize = 1 << 20;
/// For the whole of one question, redirects and page included.
const PATIENCE: Duration = Duration::from_secs(15);
/// For a host without TLS, as in the go command.
const INSECURE_PATIENCE: Duration = Duration::from_secs(5);

/// What a host answered.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    /// Where it came from in the end.
    pub(crate) url: Url,
    pub(crate) status: u16,
    /// As much as is looked at.
    pub(crate) body: Vec<u8>,
}

/// Asks hosts for pages.
#[derive(Debug)]
pub(crate) struct Pages {
    /// For hosts that no setting names.
    public: reqwest::Client,
    /// For hosts that a setting names, wherever they are.
    named: reqwest::Client,
    /// For modules of GOINSECURE: certificates are not looked at.
    insecure: reqwest::Client,
    rules: Arc<Rules>,
    credentials: Arc<Credentials>,
    proxies: Arc<Proxies>,
    connect_timeout: Duration,
    max_redirects: usize,
    patience: Duration,
}

impl Pages {
    pub(crate) fn new(
        settings: &Settings,
        rules: Arc<Rules>,
        credentials: Arc<Credentials>,
        proxies: Arc<Proxies>,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Self, Error> {
        let with = |resolver| Builder::new(settings, Arc::clone(&proxies), resolver);
        let (named, _) = with(Arc::clone(&resolver))?.build(|client| client)?;
        let (insecure, _) = with(Arc::clone(&resolver))?
            .build(|client| client.tls_danger_accept_invalid_certs(true))?;
        let (public, _) = with(Arc::new(PublicOnly(resolver)))?.build(|client| client)?;
        Ok(Self {
            public,
            named,
            insecure,
            rules,
            credentials,
            proxies,
            connect_timeout: settings.connect_timeout,
            max_redirects: settings.max_redirects,
            patience: PATIENCE,
        })
    }

    /// Whether the host may be asked about the module, and by whom.
    fn client(
        &self,
        url: &Url,
        module: &ModulePath,
        insecure: bool,
    ) -> Result<&reqwest::Client, Fault> {
        let denied = |stage, detail| Err(Fault::new(ErrorClass::Denied, stage, detail));
        let name = url.host_str().unwrap_or_default();
        if self.rules.names_host(name) {
            return Ok(if insecure { &self.insecure } else { &self.named });
        }
        if self.rules.is_private(module) {
            return denied(
                Stage::Http,
                format!("redirect of a private module to another host ({name})"),
            );
        }
        // The resolver is not asked about these.
        let address = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            _ => None,
        };
        if let Some(address) = address.filter(|&address| !is_public(address)) {
            return denied(Stage::Dns, format!("{name}: {}", NotPublic(address)));
        }
        // Through an outgoing proxy it is the proxy that looks names up, and its own address may well be a private one.
        if insecure {
            Ok(&self.insecure)
        } else if self.proxies.find(url).is_some() {
            Ok(&self.named)
        } else {
            Ok(&self.public)
        }
    }

    async fn get(&self, url: Url, module: &ModulePath, insecure: bool) -> Result<Page, Fault> {
        let patience = if insecure { self.patience.min(INSECURE_PATIENCE) } else { self.patience };
        let mut waiting = Budget::new(patience);
        let base = Base::new(&url)
            .map_err(|error| Fault::new(ErrorClass::Invalid, Stage::Local, error.to_string()))?;
        let mut url = url;
        let mut passed = Vec::new();
        let mut is_home = true;
        loop {
            let client = self.client(&url, module, insecure)?;
            let response = self.send(client, &base, &url, is_home, &mut waiting).await?;
            if !response.status().is_redirection() {
                return self.read(response, url, &mut waiting).await;
            }
            let next = redirect(&response, &url, insecure)?;
            is_home = is_home && same_origin(&url, &next);
            passed.push(url);
            if passed.contains(&next) || passed.len() > self.max_redirects {
                let detail = format!("{}: too many redirects", passed[0]);
                return Err(Fault::new(ErrorClass::Corrupt, Stage::Http, detail));
            }
            url = next;
        }
    }

    async fn send(
        &self,
        client: &reqwest::Client,
        base: &Base,
        url: &Url,
        is_home: bool,
        waiting: &mut Budget,
    ) -> Result<Response, Fault> {
        let host = url.host_str().unwrap_or_default();
        let progress = Arc::new(Progress::default());
        let sending = async {
            let mut request = client.get(url.clone());
            if is_home && let Some(secret) = self.credentials.find(base, url).await {
                request = request.header(AUTHORIZATION, secret);
            }
            request.send().await
        };
        match waiting.spend(PROGRESS.scope(Arc::clone(&progress), sending)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                let fault = fault::of_send(&error, progress.is_resolving(), self.connect_timeout);
                Err(Fault { detail: format!("{host}: {}", fault.detail), ..fault })
            }
            Err(Spent) => {
                let stage = if progress.is_resolving() { Stage::Dns } else { Stage::Http };
                let detail = format!("{host}: timeout after {}", span(waiting.whole()));
                Err(Fault::new(ErrorClass::Timeout, stage, detail))
            }
        }
    }

    /// Reads as much of the page as is looked at. One that breaks off is what came of it.
    async fn read(
        &self,
        mut response: Response,
        url: Url,
        waiting: &mut Budget,
    ) -> Result<Page, Fault> {
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while body.len() < MAX_PAGE {
            match waiting.spend(response.chunk()).await {
                Ok(Ok(Some(chunk))) => {
                    let room = MAX_PAGE - body.len();
                    body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                }
                Ok(Ok(None) | Err(_)) => break,
                Err(Spent) => {
                    let detail = format!("{url}: timeout after {}", span(waiting.whole()));
                    return Err(Fault::new(ErrorClass::Timeout, Stage::Body, detail));
                }
            }
        }
        Ok(Page { url, status, body })
    }
}

impl Ask for Pages {
    async fn ask(&self, path: &str, module: &ModulePath, insecure: bool) -> Result<Page, Fault> {
        let address = |scheme: &str| {
            let (host, rest) = path.split_once('/').unwrap_or((path, ""));
            let url = Url::parse(&format!("{scheme}://{host}/{rest}?go-get=1"));
            url.map_err(|error| {
                Fault::new(ErrorClass::NotFound, Stage::Local, format!("{path}: {error}"))
            })
        };
        let secure = self.get(address("https")?, module, insecure).await;
        match secure {
            Err(_) if insecure => self.get(address("http")?, module, insecure).await,
            outcome => outcome,
        }
    }
}

/// Where a redirect leads.
fn redirect(response: &Response, from: &Url, insecure: bool) -> Result<Url, Fault> {
    let bad =
        |detail: &str| Fault::new(ErrorClass::Corrupt, Stage::Http, format!("{from}: {detail}"));
    let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
    let next = location.and_then(|location| from.join(location).ok());
    let Some(mut next) = next.filter(|next| matches!(next.scheme(), "http" | "https")) else {
        return Err(bad("a redirect to nowhere"));
    };
    if from.scheme() == "https" && next.scheme() == "http" && !insecure {
        return Err(bad("a redirect from https to http"));
    }
    next.set_fragment(None);
    Ok(without_credentials(&next))
}
