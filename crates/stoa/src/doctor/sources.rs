//! One source of the chain: whether it can be reached, and what it answers to the questions of the protocol.

use std::fmt;
use std::io::Seek as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use stoa_core::Subject;
use stoa_module::{
    Artifact, ErrorClass, H1, Info, ModulePath, ModuleVersion, Version, ZipLimits, check_zip,
    latest_of, module_line, parse_list,
};
use stoa_upstream::examine::{Examined, Limits, Trouble};
use stoa_upstream::{Bounds, Client, Destination, Failure, Source, Use, Watch};
use url::Url;

use super::local::{per_second, size};
use super::report::{Place, State, Step};
use super::signs;
use super::verdict::Verdict;

/// Answers that are looked at; a zip goes to a file and has the server's own bound.
const MAX_ANSWER: u64 = 16 << 20;
/// Slower than this is worth telling.
const SLOW_RATE: u64 = 64 << 10;
/// Less than this says nothing of a rate.
const ENOUGH_FOR_A_RATE: u64 = 256 << 10;
/// What takes moments elsewhere.
const SLOW_STEP: Duration = Duration::from_secs(3);

/// With what a place is examined.
#[derive(Clone, Debug)]
pub(crate) struct Means {
    pub(crate) client: Client,
    pub(crate) limits: Limits,
    pub(crate) max_zip_bytes: u64,
}

impl Means {
    /// What the next step may take.
    pub(crate) fn left(&self) -> Duration {
        let left = self.limits.deadline.saturating_duration_since(tokio::time::Instant::now());
        left.min(self.limits.step)
    }

    /// None when the step's time, or that of the whole, was over.
    async fn within<T>(&self, step: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(self.left(), step).await.ok()
    }

    pub(crate) async fn get(
        &self,
        source: &Source,
        used_for: Use,
        path: &str,
    ) -> Result<Bytes, Failure> {
        let header = self.left();
        let bounds = Bounds { header, max_bytes: MAX_ANSWER };
        let asked = self.within(self.client.get(source, used_for, path, &bounds, ""));
        asked.await.unwrap_or_else(|| Err(late(source, header)))
    }
}

fn late(source: &Source, bound: Duration) -> Failure {
    let detail = format!("no whole answer within {} s", bound.as_secs().max(1));
    Failure::new(ErrorClass::Timeout, stoa_upstream::Stage::Http, source, detail)
}

/// What a source came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// It has what was asked for, or, where nothing was, it answers.
    Has,
    /// It says that it does not.
    Absent,
    Failed,
}

/// What was seen at one place.
#[derive(Debug)]
pub(crate) struct Looked {
    pub(crate) place: Place,
    /// What each step alone points to, with its evidence.
    pub(crate) signs: Vec<(Verdict, String)>,
    pub(crate) outcome: Outcome,
    pub(crate) versions: Vec<Version>,
    /// The version that its files are of.
    pub(crate) version: Option<ModuleVersion>,
    pub(crate) go_mod: Option<H1>,
    pub(crate) zip: Option<H1>,
    /// What the host's clock and ours said at the same time.
    pub(crate) clocks: Option<(Timestamp, Timestamp)>,
}

impl Looked {
    pub(crate) fn new(name: String, role: String) -> Self {
        Self {
            place: Place { name, role, steps: Vec::new() },
            signs: Vec::new(),
            outcome: Outcome::Has,
            versions: Vec::new(),
            version: None,
            go_mod: None,
            zip: None,
            clocks: None,
        }
    }

    pub(crate) fn ok(&mut self, step: &str, seen: impl Into<String>, took: Duration) {
        self.place.steps.push(Step::new(step, State::Ok, seen).took(took));
    }

    pub(crate) fn skip(&mut self, step: &str, why: impl Into<String>) {
        self.place.steps.push(Step::new(step, State::Skipped, why));
    }

    pub(crate) fn note(&mut self, step: &str, seen: impl Into<String>, took: Duration) {
        self.place.steps.push(Step::new(step, State::Note, seen).took(took));
    }

    pub(crate) fn sign(&mut self, step: &str, verdict: Verdict, seen: String, took: Duration) {
        let costs = matches!(verdict, Verdict::Slow | Verdict::BlackHoledIpv6);
        let state = if costs { State::Note } else { State::Bad };
        self.signs.push((verdict, format!("{step}: {seen}")));
        self.place.steps.push(Step::new(step, state, seen).took(took).of(verdict));
    }

    pub(crate) fn failed(&mut self, step: &str, failure: &Failure, took: Duration) {
        let text = described(failure);
        match signs::of_failure(failure) {
            Some(verdict) => self.sign(step, verdict, text, took),
            None => self.note(step, text, took),
        }
    }

    /// Takes in what was seen on the way to a host. Answers whether anything can be asked there.
    pub(crate) fn reached(&mut self, examined: Examined) -> bool {
        let mut usable = true;
        for observed in examined.steps {
            let step = observed.stage.as_str();
            let took = Duration::from_millis(observed.took_ms);
            match observed.trouble.and_then(signs::of_trouble) {
                Some(verdict) => {
                    usable &= !signs::ends_it(verdict);
                    self.sign(step, verdict, observed.seen, took);
                }
                None if observed.trouble == Some(Trouble::NotFound) => {
                    self.note(step, observed.seen, took);
                }
                None if took > SLOW_STEP => self.sign(step, Verdict::Slow, observed.seen, took),
                None => self.ok(step, observed.seen, took),
            }
        }
        self.clocks = examined.date.zip(examined.date_at);
        usable
    }

    /// What was found here is nobody's trouble.
    pub(crate) fn is_not_needed(&mut self, why: &str) {
        self.signs.clear();
        for step in self.place.steps.iter_mut().filter(|step| step.state == State::Bad) {
            (step.state, step.verdict) = (State::Note, None);
            step.seen = format!("{} (no matter: {why})", step.seen);
        }
    }

    pub(crate) fn has_sign(&self, wanted: Verdict) -> bool {
        self.signs.iter().any(|(verdict, _)| *verdict == wanted)
    }
}

/// Without the source's name, which stands above it.
fn described(failure: &Failure) -> String {
    let text = failure.text.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
    format!("{}{text}", failure.detail)
}

/// The address that is asked first: it tells no module's name.
fn neutral(base: &Url, database: Option<&str>) -> Url {
    let mut url = base.clone();
    let path = base.path().trim_end_matches('/');
    url.set_path(&match database {
        Some(name) => format!("{path}/sumdb/{name}/supported"),
        None => format!("{path}/"),
    });
    url
}

/// Looks at one source, and asks it what a client would: nothing but its state, where no module is named.
pub(crate) async fn look(
    means: &Means,
    source: &Source,
    role: String,
    subject: Option<&Subject>,
    database: Option<&str>,
) -> Looked {
    let mut looked = Looked::new(source.name(), role);
    let usable = match source {
        Source::Http(base) => {
            let url = neutral(base.url(), database);
            let examined = means.client.examine(&url, &means.limits).await;
            looked.reached(examined)
        }
        Source::Direct => {
            let Some(subject) = subject else {
                looked.skip("git", "which repository is asked depends on the module: name one");
                return looked;
            };
            let examined = means.client.examine_direct(subject.path(), &means.limits).await;
            let absent = examined.troubles().any(|trouble| trouble == Trouble::NotFound);
            let usable = looked.reached(examined);
            if usable && absent {
                looked.outcome = Outcome::Absent;
                return looked;
            }
            usable
        }
        Source::File(directory) => {
            let began = Instant::now();
            if directory.is_dir() {
                looked.ok("local", "it is there", began.elapsed());
                true
            } else {
                let text = "no such directory".to_owned();
                looked.sign("local", Verdict::ServerError, text, began.elapsed());
                false
            }
        }
        Source::Off => {
            looked.skip("local", "ends the chain: nothing behind it is asked");
            looked.outcome = Outcome::Absent;
            return looked;
        }
    };
    if !usable {
        looked.outcome = Outcome::Failed;
        if subject.is_some() {
            looked.skip("list", "not asked");
        }
        return looked;
    }
    if let Some(subject) = subject {
        ask(means, source, subject, &mut looked).await;
    } else if looked.signs.iter().any(|(verdict, _)| verdict.stops()) {
        looked.outcome = Outcome::Failed;
    }
    looked
}

/// The questions of a client: list, info, mod, zip.
async fn ask(means: &Means, source: &Source, subject: &Subject, looked: &mut Looked) {
    let reached_with = looked.signs.len();
    looked.outcome = asked(means, source, subject, looked).await;
    if looked.outcome != Outcome::Failed {
        // What it said to the first question was about that address alone: it does answer for the module.
        let about_address = |verdict: &Verdict| {
            matches!(
                verdict,
                Verdict::Unauthorized
                    | Verdict::Forbidden
                    | Verdict::RateLimited
                    | Verdict::ServerError
            )
        };
        let mut index = 0;
        looked.signs.retain(|(verdict, _)| {
            index += 1;
            index > reached_with || !about_address(verdict)
        });
        for step in looked.place.steps.iter_mut().filter(|step| step.step == "http") {
            if step.state == State::Bad {
                (step.state, step.verdict) = (State::Note, None);
            }
        }
    }
}

async fn asked(means: &Means, source: &Source, subject: &Subject, looked: &mut Looked) -> Outcome {
    let path = subject.path();
    let began = Instant::now();
    match means.get(source, Use::Modules, &format!("{}/@v/list", path.escaped())).await {
        Ok(body) => {
            looked.versions = parse_list(&body, path).into_iter().map(|it| it.version).collect();
            if looked.versions.is_empty() && !body.trim_ascii().is_empty() {
                let text = format!("no list of versions: {}", beginning(&body));
                looked.sign("list", Verdict::Malformed, text, began.elapsed());
                return Outcome::Failed;
            }
            let text = match latest_of(&looked.versions) {
                Some(latest) => format!("{} versions, newest {latest}", looked.versions.len()),
                None => "no tagged version".to_owned(),
            };
            looked.ok("list", text, began.elapsed());
        }
        Err(failure) => {
            looked.failed("list", &failure, began.elapsed());
            if failure.class != ErrorClass::NotFound {
                return Outcome::Failed;
            }
        }
    }
    if matches!(source, Source::Direct) {
        return of_repository(subject, looked);
    }
    let module = match wanted(means, source, subject, looked).await {
        Ok(module) => module,
        Err(outcome) => return outcome,
    };
    looked.version = Some(module.clone());
    let began = Instant::now();
    match means.get(source, Use::Modules, &module.escaped_file(Artifact::Mod)).await {
        Ok(body) => {
            let line = module_line(&body);
            let is_text = std::str::from_utf8(&body).is_ok() && !body.starts_with(b"<");
            if is_text {
                looked.go_mod = Some(H1::of_go_mod(&body));
                let text =
                    line.map_or("no module line".to_owned(), |line| format!("module {line}"));
                looked.ok("mod", printable(&text), began.elapsed());
            } else {
                let text = format!("no go.mod: {}", beginning(&body));
                looked.sign("mod", Verdict::Malformed, text, began.elapsed());
                return Outcome::Failed;
            }
        }
        Err(failure) => {
            looked.failed("mod", &failure, began.elapsed());
            return outcome_of(&failure);
        }
    }
    zip(means, source, &module, looked).await
}

/// Of a repository only what its tags say: files would be fetched for minutes.
fn of_repository(subject: &Subject, looked: &Looked) -> Outcome {
    match subject {
        Subject::Version(module)
            if !module.version().is_pseudo() && !looked.versions.contains(module.version()) =>
        {
            Outcome::Absent
        }
        _ => Outcome::Has,
    }
}

/// The version to ask for, and its `.info`.
async fn wanted(
    means: &Means,
    source: &Source,
    subject: &Subject,
    looked: &mut Looked,
) -> Result<ModuleVersion, Outcome> {
    let path = subject.path();
    let (step, file) = match subject {
        Subject::Version(module) => ("info", module.escaped_file(Artifact::Info)),
        Subject::Query(_, query) => {
            ("info", format!("{}/@v/{}.info", path.escaped(), query.escaped()))
        }
        Subject::Module(_) => match latest_of(&looked.versions).and_then(|it| of(path, it)) {
            Some(module) => ("info", module.escaped_file(Artifact::Info)),
            None => ("latest", format!("{}/@latest", path.escaped())),
        },
    };
    let began = Instant::now();
    let body = match means.get(source, Use::Modules, &file).await {
        Ok(body) => body,
        Err(failure) => {
            looked.failed(step, &failure, began.elapsed());
            return Err(outcome_of(&failure));
        }
    };
    match Info::parse(&body).map(|info| (of(path, &info.version), info)) {
        Ok((Some(module), info)) => {
            let time =
                info.time.map_or(String::new(), |time| format!(", of {}", time.strftime("%F")));
            looked.ok(step, format!("{}{time}", info.version), began.elapsed());
            Ok(module)
        }
        Ok((None, info)) => {
            let text = format!("{} is no version of this module", info.version);
            looked.sign(step, Verdict::Malformed, text, began.elapsed());
            Err(Outcome::Failed)
        }
        Err(error) => {
            let text = format!("{error}: {}", beginning(&body));
            looked.sign(step, Verdict::Malformed, text, began.elapsed());
            Err(Outcome::Failed)
        }
    }
}

fn of(path: &ModulePath, version: &Version) -> Option<ModuleVersion> {
    ModuleVersion::new(path.clone(), version.clone()).ok()
}

fn outcome_of(failure: &Failure) -> Outcome {
    if failure.class == ErrorClass::NotFound { Outcome::Absent } else { Outcome::Failed }
}

/// Bytes that have come so far.
#[derive(Debug, Default)]
struct Counted {
    length: AtomicU64,
    bytes: AtomicU64,
}

impl Watch for Counted {
    fn begins(&self, length: Option<u64>) -> bool {
        self.length.store(length.unwrap_or(0), Ordering::Relaxed);
        // Bytes are to be seen as they come.
        true
    }

    fn grows(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    fn begins_again(&self) -> bool {
        true
    }
}

async fn zip(
    means: &Means,
    source: &Source,
    module: &ModuleVersion,
    looked: &mut Looked,
) -> Outcome {
    let file = match tempfile::tempfile() {
        Ok(file) => fs_err::File::from_parts(file, "a temporary file"),
        Err(error) => {
            looked.skip("zip", format!("not asked: no temporary file: {error}"));
            return Outcome::Has;
        }
    };
    let mut reading = match file.try_clone() {
        Ok(reading) => reading,
        Err(error) => {
            looked.skip("zip", format!("not asked: {error}"));
            return Outcome::Has;
        }
    };
    let file = fs_err::tokio::File::from_std(file);
    let counted = Arc::new(Counted::default());
    let into = Destination {
        watch: Some(Arc::clone(&counted) as Arc<dyn Watch>),
        ..Destination::from(&file)
    };
    let began = Instant::now();
    let patience = means.left();
    let bounds = Bounds { header: patience, max_bytes: means.max_zip_bytes };
    let path = module.escaped_file(Artifact::Zip);
    let asking = means.client.download(source, Use::Modules, &path, &bounds, "", into);
    let downloaded = means.within(asking).await;
    let took = began.elapsed();
    let bytes = counted.bytes.load(Ordering::Relaxed);
    let rate = per_second(bytes, took);
    let is_slow = rate < SLOW_RATE && (bytes >= ENOUGH_FOR_A_RATE || downloaded.is_none());
    let at = |bytes: u64| format!("{} at {}/s", size(bytes), size(rate));
    match downloaded {
        None if bytes == 0 => {
            let text = format!("not a byte within {} s", patience.as_secs().max(1));
            looked.sign("zip", Verdict::HeaderTimeout, text, took);
            return Outcome::Failed;
        }
        None => {
            let of = match counted.length.load(Ordering::Relaxed) {
                0 => String::new(),
                length => format!(" of {}", size(length)),
            };
            let text = format!("{}{of}, and not waited for longer", at(bytes));
            if is_slow {
                looked.sign("zip", Verdict::Slow, text, took);
            } else {
                looked.note("zip", text, took);
            }
            return Outcome::Has;
        }
        Some(Err(failure)) => {
            looked.failed("zip", &failure, took);
            return outcome_of(&failure);
        }
        Some(Ok(_)) => {}
    }
    let wanted = module.clone();
    let checked = tokio::task::spawn_blocking(move || {
        reading.rewind().map_err(|error| error.to_string())?;
        check_zip(reading, &wanted, &ZipLimits::default()).map_err(|error| error.to_string())
    });
    match means.within(checked).await {
        Some(Ok(Ok(checked))) => {
            looked.zip = Some(checked.h1);
            let text = format!("{}, {} files, well formed", at(bytes), checked.files);
            if is_slow {
                looked.sign("zip", Verdict::Slow, text, took);
            } else {
                looked.ok("zip", text, took);
            }
            Outcome::Has
        }
        Some(Ok(Err(error))) => {
            let text = printable(&format!("not a module zip: {error}"));
            looked.sign("zip", Verdict::Malformed, text, took);
            Outcome::Failed
        }
        Some(Err(_)) | None => {
            looked.note("zip", format!("{}; not read through within the bound", at(bytes)), took);
            Outcome::Has
        }
    }
}

/// The first bytes of what is no answer, for people.
pub(crate) fn beginning(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(120)]);
    format!("{:?}", printable(&text))
}

/// One line without control characters.
pub(crate) fn printable(text: &str) -> String {
    let line: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Has => "has it",
            Self::Absent => "does not have it",
            Self::Failed => "failed",
        })
    }
}
