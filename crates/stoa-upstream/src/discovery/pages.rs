//! `GET https://PATH?go-get=1`, with what a request to a host that a stranger chose needs: bounds, and an address filter
//! at every step.

use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, LOCATION};
use reqwest::Response;
use stoa_module::ErrorClass;
use url::Url;

use crate::client::budget::{Budget, Spent};
use crate::client::exchange::answer;
use crate::credentials::{Credentials, same_origin};
use crate::discovery::Ask;
use crate::discovery::guard::{About, Guard};
use crate::failure::{Fault, Stage, span};
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
    guard: Arc<Guard>,
    credentials: Arc<Credentials>,
    connect_timeout: Duration,
    max_redirects: usize,
}

impl Pages {
    pub(crate) fn new(
        settings: &Settings,
        guard: Arc<Guard>,
        credentials: Arc<Credentials>,
    ) -> Self {
        let Settings { connect_timeout, max_redirects, .. } = *settings;
        Self { guard, credentials, connect_timeout, max_redirects }
    }

    /// The page at an address, wherever it redirects.
    async fn get(&self, url: Url, about: About) -> Result<Page, Fault> {
        let mut waiting = Budget::new(patience(about));
        let (response, url) = self.follow(url, about, &mut waiting).await?;
        self.read(response, url, &mut waiting).await
    }

    /// Where the redirects of an address end.
    pub(crate) async fn end_of_redirects(&self, url: Url, about: About) -> Result<Url, Fault> {
        let (_, end) = self.follow(url, about, &mut Budget::new(patience(about))).await?;
        Ok(end)
    }

    async fn follow(
        &self,
        url: Url,
        about: About,
        waiting: &mut Budget,
    ) -> Result<(Response, Url), Fault> {
        let base = Base::new(&url)
            .map_err(|error| Fault::new(ErrorClass::Invalid, Stage::Local, error.to_string()))?;
        // It is in the base, and must be in no text.
        let mut url = without_credentials(&url);
        let mut passed = Vec::new();
        let mut is_home = true;
        loop {
            let client = self.guard.client(&url, about).await?;
            let with_secret = is_home && about.is_named;
            let response = self.send(client, &base, &url, with_secret, waiting).await?;
            if !response.status().is_redirection() {
                return Ok((response, url));
            }
            let next = redirect(&response, &url, about.insecure)?;
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
        with_secret: bool,
        waiting: &mut Budget,
    ) -> Result<Response, Fault> {
        let sending = async {
            let mut request = client.get(url.clone());
            if with_secret && let Some(secret) = self.credentials.find_for_git(base, url).await {
                request = request.header(AUTHORIZATION, secret);
            }
            request.send().await
        };
        let host = url.host_str().unwrap_or_default();
        let answered = answer(sending, waiting, self.connect_timeout, Some(host)).await;
        answered.map_err(|fault| fault.at_host(host))
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

fn patience(about: About) -> Duration {
    if about.insecure { INSECURE_PATIENCE } else { PATIENCE }
}

impl Ask for Pages {
    async fn ask(&self, path: &str, about: About) -> Result<Page, Fault> {
        let address = |scheme: &str| {
            let (host, rest) = path.split_once('/').unwrap_or((path, ""));
            let url = Url::parse(&format!("{scheme}://{host}/{rest}?go-get=1"));
            url.map_err(|error| {
                Fault::new(ErrorClass::NotFound, Stage::Local, format!("{path}: {error}"))
            })
        };
        match self.get(address("https")?, about).await {
            Err(_) if about.insecure => self.get(address("http")?, about).await,
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
