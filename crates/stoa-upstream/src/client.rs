//! Asking a source for a file, with the bounds, and again where that may help.

use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use bytes::Bytes;
use fs_err::tokio::File;
use reqwest::dns::Resolve;
use stoa_module::{ErrorClass, Sha256};

use crate::client::body::{FileSink, MemorySink, Sink};
use crate::client::budget::Budget;
use crate::client::exchange::Http;
use crate::client::resolver::SystemResolver;
use crate::credentials::Credentials;
use crate::error::Error;
use crate::failure::{Failure, Fault, Stage, span};
use crate::netrc::Netrc;
use crate::proxy::Proxies;
use crate::settings::Settings;
use crate::source::{Base, Source};
use crate::via;

mod body;
mod budget;
mod directory;
mod exchange;
mod fault;
mod resolver;
mod tls;
mod words;

/// A `Retry-After` beyond this is told to the client instead of waited for.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long, and how much. The whole of a large body has no bound but [`Settings::stall_timeout`].
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// To the first byte of the answer. All tries, and the pauses between them, together; the time in which a body
    /// that later broke was being received is not counted.
    pub header: Duration,
    /// Of the decoded body. One byte more is a failure.
    pub max_bytes: u64,
}

/// What [`Client::download`] has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Downloaded {
    pub bytes: u64,
    pub sha256: Sha256,
}

/// Asks sources for files. Cheap to clone; all clones share one pool of connections.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    http: Http,
    tries: u32,
    backoff: Duration,
    stall_timeout: Duration,
}

/// Whether an answer may come compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Gzip,
    Identity,
}

/// Where one request goes.
enum Target<'s> {
    Http { base: &'s Base, url: url::Url, encoding: Encoding, via: http::HeaderValue },
    File(PathBuf),
}

impl Client {
    /// Reads the authorities' files, the system's authorities and the netrc file, and blocks while it does. A system
    /// without any authorities is a failure of the first `https:` request, not one here.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        Self::with_resolver(settings, Arc::new(SystemResolver::default()))
    }

    /// A client that looks names up by other means than the system's resolver.
    pub fn with_resolver(settings: Settings, resolver: Arc<dyn Resolve>) -> Result<Self, Error> {
        let id = &settings.instance_id;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if id.is_empty() || !id.chars().all(is_plain) {
            return Err(Error::InvalidInstanceId(id.clone()));
        }
        let netrc = Netrc::open(settings.netrc.clone())?;
        let credentials = Credentials::new(settings.credentials.clone(), netrc)?;
        let proxies = Arc::new(Proxies::new(&settings.proxy)?);
        let http = Http::new(&settings, credentials, proxies, resolver)?;
        let Settings { retries, backoff, stall_timeout, .. } = settings;
        let inner = Inner { http, tries: retries.max(1), backoff, stall_timeout };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Reads a small file into memory, within twice the bound on its first byte.
    ///
    /// `path` is relative and case-escaped: `rsc.io/quote/@v/list`, `sumdb/sum.golang.org/latest`. `via` is the
    /// inbound request's `Via`, empty if there was none.
    pub async fn get(
        &self,
        source: &Source,
        path: &str,
        bounds: &Bounds,
        via: &str,
    ) -> Result<Bytes, Failure> {
        let mut sink = MemorySink::default();
        // A small body has no excuse for taking longer than the wait for it.
        let whole = bounds.header * 2;
        let fetch = self.fetch(source, path, bounds, via, Encoding::Gzip, &mut sink);
        if let Ok(fetched) = tokio::time::timeout(whole, fetch).await {
            fetched?;
        } else {
            let detail = format!("timeout after {}", span(whole));
            return Err(Failure::new(ErrorClass::Timeout, Stage::Body, source, detail));
        }
        Ok(sink.into_bytes())
    }

    /// Writes a file of any size to `into`, from its start, hashing it on the way; what was in `into` is cut off, at a
    /// second try too. The body is never in memory as a whole. When this returns, everything has been handed to the
    /// operating system, and nothing is synced; after a failure the content of `into` is unspecified.
    ///
    /// `into` is written through a duplicate of its descriptor, on the blocking pool and in large pieces; its offset is
    /// left at the end.
    pub async fn download(
        &self,
        source: &Source,
        path: &str,
        bounds: &Bounds,
        via: &str,
        into: &File,
    ) -> Result<Downloaded, Failure> {
        let mut sink = match into.file().as_fd().try_clone_to_owned() {
            Ok(descriptor) => FileSink::new(descriptor.into()),
            Err(error) => return Err(fault::of_write(&error).at(source, 0)),
        };
        self.fetch(source, path, bounds, via, Encoding::Identity, &mut sink).await?;
        Ok(sink.into_downloaded())
    }

    /// The one place where anything is tried again.
    async fn fetch(
        &self,
        source: &Source,
        path: &str,
        bounds: &Bounds,
        via: &str,
        encoding: Encoding,
        sink: &mut impl Sink,
    ) -> Result<(), Failure> {
        let target = match self.target(source, path, via, encoding) {
            Ok(target) => target,
            Err(fault) => return Err(fault.at(source, 0)),
        };
        let mut waiting = Budget::new(bounds.header);
        let mut pauses = ExponentialBuilder::new()
            .with_min_delay(self.inner.backoff)
            .with_max_delay(self.inner.backoff * 8)
            .with_max_times(self.inner.tries as usize - 1)
            .with_jitter()
            .build();
        let mut tries = 0;
        loop {
            tries += 1;
            let fault = match self.once(&target, &mut waiting, bounds.max_bytes, sink).await {
                Ok(()) => return Ok(()),
                Err(fault) => fault,
            };
            let pause = if fault.passing { pauses.next() } else { None };
            let Some(pause) = pause.map(|pause| pause.max(fault.retry_after.unwrap_or_default()))
            else {
                return Err(fault.at(source, tries));
            };
            if pause > LONGEST_PAUSE || !waiting.affords(pause) {
                return Err(fault.at(source, tries));
            }
            tracing::debug!(
                upstream.host = source.host(),
                detail = fault.detail,
                tries,
                "the upstream is tried again"
            );
            waiting.pause(pause).await;
        }
    }

    fn target<'s>(
        &self,
        source: &'s Source,
        path: &str,
        via: &str,
        encoding: Encoding,
    ) -> Result<Target<'s>, Fault> {
        let absent = |stage, detail| Err(Fault::new(ErrorClass::NotFound, stage, detail));
        match source {
            Source::Http(base) => {
                let via = via::forward(via, self.inner.http.via());
                Ok(Target::Http { base, url: base.join(path)?, encoding, via })
            }
            Source::File(directory) => directory::locate(directory, path).map(Target::File),
            Source::Direct => absent(Stage::Git, "direct fetching is not available yet"),
            Source::Off => absent(Stage::Local, "GOPROXY=off ends the list of sources here"),
        }
    }

    async fn once(
        &self,
        target: &Target<'_>,
        waiting: &mut Budget,
        max_bytes: u64,
        sink: &mut impl Sink,
    ) -> Result<(), Fault> {
        sink.restart().await?;
        let stall = self.inner.stall_timeout;
        match target {
            Target::Http { base, url, encoding, via } => {
                let answer = self.inner.http.ask(base, url, *encoding, via, waiting).await?;
                body::copy(answer, max_bytes, stall, sink).await
            }
            Target::File(path) => {
                let file = directory::open(path, waiting).await?;
                body::copy(file, max_bytes, stall, sink).await
            }
        }
    }
}
