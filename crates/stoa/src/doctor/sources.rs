//! One source of the chain: whether it can be reached, and what it answers to the questions of the protocol.

use std::io::Seek as _;
use std::path::PathBuf;
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
use stoa_upstream::examine::{Examined, Limits, Trouble, line};
use stoa_upstream::{Bounds, Client, Destination, Failure, Source, Use, Watch};

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
/// Less time than this proves nothing about anybody.
const LEAST: Duration = Duration::from_secs(1);
/// What takes moments elsewhere.
const SLOW_STEP: Duration = Duration::from_secs(3);

/// With what a place is examined.
#[derive(Clone, Debug)]
pub(crate) struct Means {
    pub(crate) client: Client,
    pub(crate) limits: Limits,
    pub(crate) max_zip_bytes: u64,
    /// Where a zip is written that is looked at; removed at once.
    pub(crate) scratch: PathBuf,
}

impl Means {
    /// What the next step may take.
    pub(crate) fn left(&self) -> Duration {
        let left = self.limits.deadline.saturating_duration_since(tokio::time::Instant::now());
        left.min(self.limits.step)
    }

    /// None when the step's time, or that of the whole, was over.
    pub(crate) async fn within<T>(&self, step: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(self.left(), step).await.ok()
    }

    pub(crate) async fn get(
        &self,
        source: &Source,
        used_for: Use,
        path: &str,
    ) -> Result<Bytes, Failure> {
        let header = self.left();
        if header < LEAST {
            return Err(unasked(source));
        }
        let bounds = Bounds { header, max_bytes: MAX_ANSWER };
        let asked = self.within(Box::pin(self.client.get(source, used_for, path, &bounds, "")));
        asked.await.unwrap_or_else(|| Err(late(source, header)))
    }
}

/// There was no time left, which says nothing about anybody.
fn unasked(source: &Source) -> Failure {
    let detail = "not asked: the minute of this examination was over";
    let failure = Failure::new(ErrorClass::Timeout, stoa_upstream::Stage::Local, source, detail);
    Failure { tries: 0, ..failure }
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
    /// Another before it decides.
    Unasked,
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
        if failure.tries == 0 {
            return self.skip(step, text);
        }
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

    /// Takes in a list of versions. Answers whether it is one.
    fn take_list(&mut self, body: &[u8], path: &ModulePath, took: Duration) -> bool {
        self.versions = parse_list(body, path).into_iter().map(|it| it.version).collect();
        if self.versions.is_empty() && !body.trim_ascii().is_empty() {
            let text = format!("no list of versions: {}", beginning(body));
            self.sign("list", Verdict::Malformed, text, took);
            return false;
        }
        let text = match latest_of(&self.versions) {
            Some(latest) => format!("{} versions, newest {latest}", self.versions.len()),
            None => "no tagged version".to_owned(),
        };
        self.ok("list", text, took);
        true
    }

    /// These signs at this step turned out to mean nothing.
    fn demote(&mut self, verdicts: &[Verdict], step: &str) {
        let codes: Vec<&str> = verdicts.iter().map(|verdict| verdict.row().code).collect();
        let is_meant = |verdict: &Verdict, evidence: &str| {
            verdicts.contains(verdict) && evidence.starts_with(&format!("{step}: "))
        };
        self.signs.retain(|(verdict, evidence)| !is_meant(verdict, evidence));
        for one in self.place.steps.iter_mut().filter(|one| one.step == step) {
            if one.verdict.as_deref().is_some_and(|code| codes.contains(&code)) {
                (one.state, one.verdict) = (State::Note, None);
            }
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

/// Looks at the way to one source, which is told no module's name. Answers whether anything can be asked there.
pub(crate) async fn reach(
    means: &Means,
    source: &Source,
    role: String,
    database: Option<&str>,
) -> (Looked, bool) {
    let mut looked = Looked::new(source.name(), role);
    let usable = match source {
        Source::Http(base) => {
            // What is asked first tells no module's name.
            let path = database.map_or(String::new(), |name| format!("sumdb/{name}/supported"));
            let examined = means.client.examine_source(base, &path, &means.limits).await;
            looked.reached(examined)
        }
        Source::File(directory) => {
            let began = Instant::now();
            let found = means.within(fs_err::tokio::metadata(directory)).await;
            match found {
                Some(Ok(found)) if found.is_dir() => {
                    looked.ok("local", "it is there", began.elapsed());
                    true
                }
                found => {
                    let text = match found {
                        Some(Err(error)) => error.to_string(),
                        Some(Ok(_)) => "no directory".to_owned(),
                        None => "the disk does not answer".to_owned(),
                    };
                    looked.sign("local", Verdict::NotAProxy, text, began.elapsed());
                    false
                }
            }
        }
        Source::Direct | Source::Off => true,
    };
    if !usable {
        looked.outcome = Outcome::Failed;
    }
    (looked, usable)
}

/// What a source that was reached comes to where no module is named.
pub(crate) fn without_module(source: &Source, looked: &mut Looked) {
    match source {
        Source::Direct => {
            looked.skip("git", "which repository is asked depends on the module: name one");
        }
        Source::Off => looked.skip("local", "ends the chain: nothing behind it is asked"),
        Source::Http(_) | Source::File(_) => {
            // It may answer nothing but modules.
            looked.demote(&[Verdict::Forbidden], "http");
            if looked.signs.iter().any(|(verdict, _)| verdict.stops()) {
                looked.outcome = Outcome::Failed;
            }
        }
    }
}

/// Asks a source that was reached what a client would.
pub(crate) async fn ask(means: &Means, source: &Source, subject: &Subject, looked: &mut Looked) {
    match source {
        Source::Off => {
            looked.skip("local", "ends the chain: nothing behind it is asked");
            looked.outcome = Outcome::Absent;
        }
        Source::Direct => {
            let examined = means.client.examine_direct(subject.path(), &means.limits).await;
            let absent = examined.troubles().any(|trouble| trouble == Trouble::NotFound);
            looked.outcome = match looked.reached(examined) {
                false => Outcome::Failed,
                true if absent => Outcome::Absent,
                true => of_repository(means, subject, looked).await,
            };
        }
        Source::Http(_) | Source::File(_) => {
            looked.outcome = asked(means, source, subject, looked).await;
            if looked.outcome != Outcome::Failed {
                // What it said to the first question was about that address alone: it does answer for the module.
                let about_address = [
                    Verdict::Unauthorized,
                    Verdict::Forbidden,
                    Verdict::RateLimited,
                    Verdict::ServerError,
                ];
                looked.demote(&about_address, "http");
            }
        }
    }
}

/// The questions of a client: list, info, mod, zip.
async fn asked(means: &Means, source: &Source, subject: &Subject, looked: &mut Looked) -> Outcome {
    let path = subject.path();
    let began = Instant::now();
    match means.get(source, Use::Modules, &format!("{}/@v/list", path.escaped())).await {
        Ok(body) => {
            if !looked.take_list(&body, path, began.elapsed()) {
                return Outcome::Failed;
            }
        }
        // A version is fetched without a list.
        Err(failure) if !matches!(subject, Subject::Module(_)) => {
            looked.note("list", described(&failure), began.elapsed());
        }
        Err(failure) => {
            looked.failed("list", &failure, began.elapsed());
            if failure.class != ErrorClass::NotFound {
                return Outcome::Failed;
            }
        }
    }
    let module = match wanted(means, source, subject, looked).await {
        Ok(module) => module,
        Err(outcome) => return outcome,
    };
    looked.version = Some(module.clone());
    let began = Instant::now();
    match means.get(source, Use::Modules, &module.escaped_file(Artifact::Mod)).await {
        Ok(body) => {
            let named = module_line(&body);
            let is_text = std::str::from_utf8(&body).is_ok() && !body.starts_with(b"<");
            if is_text {
                looked.go_mod = Some(H1::of_go_mod(&body));
                let text =
                    named.map_or("no module line".to_owned(), |named| format!("module {named}"));
                looked.ok("mod", line(&text), began.elapsed());
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
async fn of_repository(means: &Means, subject: &Subject, looked: &mut Looked) -> Outcome {
    let began = Instant::now();
    let path = format!("{}/@v/list", subject.path().escaped());
    match means.get(&Source::Direct, Use::Modules, &path).await {
        Ok(body) => {
            looked.take_list(&body, subject.path(), began.elapsed());
            let version = match subject {
                Subject::Version(module) if !module.version().is_pseudo() => module.version(),
                Subject::Module(_) => return Outcome::Has,
                Subject::Version(_) | Subject::Query(..) => {
                    looked.skip("info", "a commit is looked for only when it is fetched");
                    return Outcome::Has;
                }
            };
            if looked.versions.contains(version) { Outcome::Has } else { Outcome::Absent }
        }
        Err(failure) => {
            looked.failed("list", &failure, began.elapsed());
            outcome_of(&failure)
        }
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
    let newest = || latest_of(&looked.versions).and_then(|version| of(path, version));
    let (step, file, wanted) = match subject {
        Subject::Version(module) => {
            ("info", module.escaped_file(Artifact::Info), Some(module.clone()))
        }
        Subject::Query(_, query) => {
            ("info", format!("{}/@v/{}.info", path.escaped(), query.escaped()), None)
        }
        Subject::Module(_) => match newest() {
            Some(module) => ("info", module.escaped_file(Artifact::Info), Some(module)),
            None => ("latest", format!("{}/@latest", path.escaped()), None),
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
    let malformed = |looked: &mut Looked, why: String| {
        let text = format!("{}: {}", line(&why), beginning(&body));
        looked.sign(step, Verdict::Malformed, text, began.elapsed());
        Err(Outcome::Failed)
    };
    let info = match Info::parse(&body) {
        Ok(info) => info,
        Err(error) => return malformed(looked, error.to_string()),
    };
    match of(path, &info.version) {
        Some(module) if wanted.as_ref().is_none_or(|wanted| *wanted == module) => {
            let time = info.time.map_or(String::new(), |it| format!(", of {}", it.strftime("%F")));
            looked.ok(step, format!("{}{time}", info.version), began.elapsed());
            Ok(module)
        }
        _ => malformed(looked, format!("it is of {}", info.version)),
    }
}

fn of(path: &ModulePath, version: &Version) -> Option<ModuleVersion> {
    ModuleVersion::new(path.clone(), version.clone()).ok()
}

fn outcome_of(failure: &Failure) -> Outcome {
    match failure.class {
        ErrorClass::NotFound => Outcome::Absent,
        _ if failure.tries == 0 => Outcome::Unasked,
        _ => Outcome::Failed,
    }
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
    let file = match tempfile::tempfile_in(&means.scratch) {
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
    if patience < LEAST {
        looked.failed("zip", &unasked(source), Duration::ZERO);
        return Outcome::Has;
    }
    let bounds = Bounds { header: patience, max_bytes: means.max_zip_bytes };
    let path = module.escaped_file(Artifact::Zip);
    let asking = means.client.download(source, Use::Modules, &path, &bounds, "", into);
    let downloaded = means.within(Box::pin(asking)).await;
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
        // The disk is looked at by itself.
        Some(Err(failure)) if failure.class == ErrorClass::Full => {
            looked.skip("zip", described(&failure));
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
            let text = line(&format!("not a module zip: {error}"));
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
    format!("{:?}", line(&text))
}
