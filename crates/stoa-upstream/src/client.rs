//! Asking a source for a file, with the bounds, and again where that may help.

use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use bytes::Bytes;
use fs_err::tokio::File;
use reqwest::dns::Resolve;
use stoa_module::{Artifact, ErrorClass, ModulePath, Request, Sha256};

use crate::breaker::{BreakerStatus, Circuits, HostCounters, Use};
use crate::client::body::{Answer as _, Counted, FileSink, MemorySink, Sink, Watch};
use crate::client::budget::Budget;
use crate::client::exchange::Http;
use crate::client::names::{NameCounts, Names};
use crate::client::passage::Passage;
use crate::client::resolver::SystemResolver;
use crate::client::rest::{Rest, Strong};
use crate::credentials::Credentials;
use crate::direct::{CodeModule, DirectModules, GitStatus, Origin, impossible};
use crate::error::Error;
use crate::examine::Means;
use crate::failure::{Failure, Fault, Stage, span};
use crate::journey::{self, Leg};
use crate::netrc::Netrc;
use crate::proxy::Proxies;
use crate::settings::Settings;
use crate::source::{Base, Source};
use crate::via;

pub(crate) mod body;
pub(crate) mod budget;
pub(crate) mod directory;
pub(crate) mod exchange;
pub(crate) mod fault;
pub(crate) mod names;
mod passage;
mod probe;
pub(crate) mod progress;
pub(crate) mod requests;
pub(crate) mod resolver;
mod rest;
pub(crate) mod tls;
pub(crate) mod words;

/// A `Retry-After` beyond this is told to the client instead of waited for.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// As faults have it.
const RANGE_NOT_SATISFIABLE: u16 = 416;

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
pub(crate) struct Inner {
    http: Http,
    direct: Option<DirectModules>,
    means: Means,
    circuits: Circuits,
    connect_timeout: Duration,
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

/// What is asked of whom.
struct Question<'s> {
    source: &'s Source,
    used_for: Use,
    path: &'s str,
    via: &'s str,
    encoding: Encoding,
}

/// What a download is written to.
#[derive(Clone, Debug)]
pub struct Destination<'f> {
    pub file: &'f File,
    /// The most bytes it takes: a longer body is a failure of the class Full.
    pub room: u64,
    /// Who wants to know how it gets on.
    pub watch: Option<Arc<dyn Watch>>,
}

impl<'f> From<&'f File> for Destination<'f> {
    /// A file with room for any body.
    fn from(file: &'f File) -> Self {
        Self { file, room: u64::MAX, watch: None }
    }
}

/// Where one request goes.
enum Target<'s> {
    Http { base: &'s Base, url: url::Url, encoding: Encoding, via: http::HeaderValue },
    File(PathBuf),
    Module { module: CodeModule, request: Request },
}

/// What a relative, escaped path asks for.
fn request(path: &str) -> Result<Request, Fault> {
    Request::parse(&format!("/{}", path.replace('%', "%25"))).map_err(|_| impossible())
}

impl Client {
    /// Reads the authorities' files, the system's authorities and the netrc file, and blocks while it does. A system
    /// without any authorities is a failure of the first `https:` request, not one here.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        // Examinations have one of their own, so that a resolver that is silent has places for both.
        let resolvers = [SystemResolver::default(), SystemResolver::default()];
        Self::build(settings, resolvers.map(|it| Arc::new(it) as Arc<dyn Resolve>), true)
    }

    /// A client that looks names up by other means than the system's resolver.
    pub fn with_resolver(settings: Settings, resolver: Arc<dyn Resolve>) -> Result<Self, Error> {
        Self::build(settings, [Arc::clone(&resolver), resolver], false)
    }

    fn build(
        settings: Settings,
        [resolver, for_examinations]: [Arc<dyn Resolve>; 2],
        is_system: bool,
    ) -> Result<Self, Error> {
        let id = &settings.instance_id;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if id.is_empty() || !id.chars().all(is_plain) {
            return Err(Error::InvalidInstanceId(id.clone()));
        }
        let netrc = Netrc::open(settings.netrc.clone())?;
        let credentials = Arc::new(Credentials::new(settings.credentials.clone(), netrc)?);
        let proxies = Arc::new(Proxies::new(&settings.proxy)?);
        let names = Arc::new(Names::new(resolver, settings.name_ttl));
        let direct = DirectModules::new(
            &settings,
            Arc::clone(&credentials),
            Arc::clone(&proxies),
            Arc::clone(&names),
        )?;
        let guard = direct.as_ref().map(|direct| Arc::clone(direct.guard()));
        let http =
            Http::new(&settings, Arc::clone(&credentials), Arc::clone(&proxies), guard, names)?;
        let circuits = Circuits::new(settings.breakers, settings.probe_pause);
        let Settings { connect_timeout, retries, backoff, stall_timeout, .. } = settings;
        let tries = retries.max(1);
        let means = Means::new(for_examinations, is_system, settings, credentials, proxies);
        let inner =
            Inner { http, direct, means, circuits, connect_timeout, tries, backoff, stall_timeout };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(crate) fn http(&self) -> &Http {
        &self.inner.http
    }

    /// For examinations.
    pub(crate) fn means(&self) -> &Means {
        &self.inner.means
    }

    /// The breaker of every host and use that was asked so far, in a steady order.
    pub fn breakers(&self) -> Vec<BreakerStatus> {
        self.inner.circuits.all().iter().map(|circuit| circuit.status()).collect()
    }

    /// The breaker of a source, if that was asked so far.
    pub fn breaker(&self, source: &Source, used_for: Use) -> Option<BreakerStatus> {
        Some(self.inner.circuits.known(source, used_for)?.status())
    }

    /// What was asked of every host so far, for each use, in a steady order.
    pub fn counters(&self) -> Vec<HostCounters> {
        self.inner.circuits.all().iter().map(|circuit| circuit.counted()).collect()
    }

    /// What was asked of the resolver.
    pub fn names(&self) -> NameCounts {
        self.inner.http.names().counts()
    }

    /// What git was run for; nothing if nothing is fetched from repositories.
    pub fn git(&self) -> GitStatus {
        self.inner.direct.as_ref().map(DirectModules::status).unwrap_or_default()
    }

    /// Somebody wants to know what is so now: what repositories said before does not count for the next question about
    /// the module.
    pub async fn look_anew(&self, path: &ModulePath) {
        if let Some(direct) = &self.inner.direct {
            direct.look_anew(path).await;
        }
    }

    /// Completes with the failure that a request would meet, as soon as the source's breaker is open: for those who wait
    /// for something else before they ask. It counts as that request.
    pub async fn refusing(&self, source: &Source, used_for: Use, path: &str) -> Failure {
        let circuit = self.inner.circuits.of(source, used_for);
        let (Some(circuit), Source::Http(base)) = (circuit, source) else {
            return std::future::pending().await;
        };
        circuit.refusing().await;
        let failure = circuit.refused(base, path).at(source);
        circuit.counters.ended(&Err::<(), _>(failure.clone()));
        failure
    }

    /// Reads a small file into memory, within twice the bound on its first byte.
    ///
    /// `used_for` decides which breaker of the host is meant, and so what else a failure stands for. `path` is relative and case-escaped: `rsc.io/quote/@v/list`, `sumdb/sum.golang.org/latest`. `via` is the
    /// inbound request's `Via`, empty if there was none.
    pub async fn get(
        &self,
        source: &Source,
        used_for: Use,
        path: &str,
        bounds: &Bounds,
        via: &str,
    ) -> Result<Bytes, Failure> {
        let mut sink = MemorySink::default();
        // A small body has no excuse for taking longer than the wait for it.
        let whole = bounds.header * 2;
        let question = Question { source, used_for, path, via, encoding: Encoding::Gzip };
        let fetch = self.fetch(&question, bounds, &mut sink);
        if matches!(source, Source::Direct) {
            return fetch.await.map(|()| sink.into_bytes());
        }
        let fetched = tokio::time::timeout(whole, fetch).await.unwrap_or_else(|_| {
            let detail = format!("body: timeout after {}", span(whole));
            Err(Failure::new(ErrorClass::Timeout, Stage::Body, source, detail))
        });
        self.count(source, used_for, &fetched);
        fetched.map(|()| sink.into_bytes())
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
        used_for: Use,
        path: &str,
        bounds: &Bounds,
        via: &str,
        into: impl Into<Destination<'_>>,
    ) -> Result<Downloaded, Failure> {
        let Destination { file, room, watch } = into.into();
        let mut sink = match file.file().as_fd().try_clone_to_owned() {
            Ok(descriptor) => FileSink::new(descriptor.into(), room, watch),
            Err(error) => return Err(fault::of_write(&error).at(source, 0)),
        };
        let question = Question { source, used_for, path, via, encoding: Encoding::Identity };
        let fetched = self.fetch(&question, bounds, &mut sink).await;
        self.count(source, used_for, &fetched);
        fetched.map(|()| sink.into_downloaded())
    }

    fn count(&self, source: &Source, used_for: Use, outcome: &Result<(), Failure>) {
        if let Some(circuit) = self.inner.circuits.of(source, used_for) {
            circuit.counters.ended(outcome);
        }
    }

    async fn fetch(
        &self,
        question: &Question<'_>,
        bounds: &Bounds,
        sink: &mut impl Sink,
    ) -> Result<(), Failure> {
        let source = question.source;
        let (Source::Direct, Some(direct)) = (source, &self.inner.direct) else {
            let target = self.target(question).map_err(|fault| fault.at(source, 0))?;
            return self.fetch_target(question, &target, bounds, sink).await;
        };
        let request = request(question.path).map_err(|fault| fault.at(source, 0))?;
        let is_zip = matches!(request, Request::Artifact { artifact: Artifact::Zip, .. });
        let origin = match request.path() {
            Some(path) => direct.origin(path).await,
            None => Err(impossible()),
        };
        match origin.map_err(|fault| fault.at(source, 1))? {
            Origin::Repository(module) => {
                let target = Target::Module { module, request };
                self.fetch_target(question, &target, bounds, sink).await
            }
            Origin::Proxy(proxy) => {
                let question = Question { source: &proxy, ..*question };
                let target = self.target(&question).map_err(|fault| fault.at(source, 0))?;
                let fetching = self.fetch_target(&question, &target, bounds, sink);
                if is_zip {
                    return fetching.await;
                }
                let whole = bounds.header * 2;
                tokio::time::timeout(whole, fetching).await.unwrap_or_else(|_| {
                    let detail = format!("body: timeout after {}", span(whole));
                    Err(Failure::new(ErrorClass::Timeout, Stage::Body, &proxy, detail))
                })
            }
        }
    }

    /// The one place where anything is tried again.
    async fn fetch_target(
        &self,
        question: &Question<'_>,
        target: &Target<'_>,
        bounds: &Bounds,
        sink: &mut impl Sink,
    ) -> Result<(), Failure> {
        let &Question { source, used_for, path, .. } = question;
        let mut waiting = Budget::new(bounds.header);
        let entered = Passage::enter(&self.inner, source, used_for, path, &mut waiting).await;
        let mut passage = entered?;
        let mut pauses = ExponentialBuilder::new()
            .with_min_delay(self.inner.backoff)
            .with_max_delay(self.inner.backoff * 8)
            .with_max_times(self.inner.tries as usize - 1)
            .with_jitter()
            .build();
        let mut tries = 0;
        let mut begun = None;
        loop {
            tries += 1;
            let (passage_now, most) = (passage.as_mut(), bounds.max_bytes);
            let once = self.once(target, passage_now, &mut waiting, most, sink, &mut begun);
            let fault = match once.await {
                Ok(()) => return Ok(()),
                Err(fault) => fault,
            };
            // A body that stands still is given up only where it cannot be continued: what was waited for is here.
            let continues = rest_of(begun.as_ref(), sink).is_some();
            let may_pass = fault.passing || (continues && fault.is_stall());
            let pause = if may_pass { pauses.next() } else { None };
            let pause = pause
                .map(|pause| pause.max(fault.retry_after.unwrap_or_default()))
                .filter(|&pause| pause <= LONGEST_PAUSE && waiting.affords(pause));
            let Some(pause) = pause else {
                return Err(ended(fault, passage.as_ref(), source, tries));
            };
            if !continues && !sink.may_restart() {
                return Err(ended(fault, passage.as_ref(), source, tries));
            }
            tracing::debug!(
                upstream.host = source.host(),
                detail = fault.detail,
                tries,
                continues,
                "the upstream is tried again"
            );
            journey::enter(Leg::Pause);
            match &passage {
                None => waiting.pause(pause).await,
                // Others may find out meanwhile that asking again is in vain.
                Some(passage) => tokio::select! {
                    () = waiting.pause(pause) => passage.circuit().counters.retried(),
                    _ = passage.refusing() => return Err(fault.at(source, tries)),
                },
            }
        }
    }

    fn target<'s>(&self, question: &Question<'s>) -> Result<Target<'s>, Fault> {
        let &Question { source, path, via, encoding, .. } = question;
        let absent = |stage, detail| Err(Fault::new(ErrorClass::NotFound, stage, detail));
        match source {
            Source::Http(base) => {
                let via = via::forward(via, self.inner.http.via());
                Ok(Target::Http { base, url: base.join(path)?, encoding, via })
            }
            Source::File(directory) => directory::locate(directory, path).map(Target::File),
            // Only where nothing may be fetched from repositories: see `fetch_direct`.
            Source::Direct => absent(Stage::Git, "nothing is fetched from repositories here"),
            Source::Off => absent(Stage::Local, "GOPROXY=off ends the list of sources here"),
        }
    }

    /// `begun`: what the body was whose beginning is in the sink, if it can be continued. It is then, and if that is
    /// refused it begins again.
    async fn once(
        &self,
        target: &Target<'_>,
        passage: Option<&mut Passage<'_>>,
        waiting: &mut Budget,
        max_bytes: u64,
        sink: &mut impl Sink,
        begun: &mut Option<Strong>,
    ) -> Result<(), Fault> {
        let rest = rest_of(begun.as_ref(), sink);
        // Whatever comes of it, the same is not asked for again before there is more.
        *begun = None;
        if rest.is_none() {
            sink.restart().await?;
        }
        let stall = self.inner.stall_timeout;
        match target {
            Target::Http { base, url, encoding, via } => {
                let (patience, whole) = (waiting.left(), waiting.whole());
                let ask = self.inner.http.ask(base, url, *encoding, via, rest.as_ref(), waiting);
                let (answer, counters) = match passage {
                    None => (ask.await, None),
                    Some(passage) => {
                        let answer = passage.header(patience, whole, ask).await;
                        (answer, Some(&passage.circuit().counters))
                    }
                };
                let answer = answer.map_err(|fault| match &rest {
                    // What it was is gone.
                    Some(_) if fault.status == Some(RANGE_NOT_SATISFIABLE) => fault.passing(),
                    Some(rest) if !fault.is_body() => {
                        *begun = Some(rest.of.clone());
                        fault
                    }
                    _ => fault,
                })?;
                if rest.is_some() && answer.from() == 0 {
                    if !sink.may_restart() {
                        let detail = "body: it broke off, and can only come again as a whole";
                        return Err(Fault::new(ErrorClass::Corrupt, Stage::Body, detail));
                    }
                    sink.restart().await?;
                }
                *begun = match rest {
                    Some(rest) if answer.from() > 0 => Some(rest.of),
                    _ => answer.strong(),
                };
                journey::enter(Leg::Body);
                match counters {
                    None => body::copy(answer, max_bytes, stall, sink).await,
                    Some(counters) => {
                        body::copy(Counted { answer, counters }, max_bytes, stall, sink).await
                    }
                }
            }
            Target::File(path) => {
                journey::enter(Leg::Disk);
                let file = directory::open(path, waiting).await?;
                body::copy(file, max_bytes, stall, sink).await
            }
            // git has bounds of its own, which look at progress: a clone takes what it takes.
            Target::Module { module, request } => {
                let made = module.answer(request, max_bytes).await?;
                journey::enter(Leg::Body);
                body::copy(made, max_bytes, stall, sink).await
            }
        }
    }
}

/// What is missing of a body whose beginning is in the sink; none if it cannot be continued.
fn rest_of(begun: Option<&Strong>, sink: &impl Sink) -> Option<Rest> {
    begun?.behind(sink.position())
}

/// The end of a request that failed, reported to its host's breaker.
fn ended(fault: Fault, passage: Option<&Passage<'_>>, source: &Source, tries: u32) -> Failure {
    if let Some(passage) = passage {
        passage.failed(&fault);
    }
    fault.at(source, tries)
}
