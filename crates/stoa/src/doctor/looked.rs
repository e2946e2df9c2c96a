//! What was seen at one place, and with what it is examined.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use stoa_module::{ErrorClass, H1, ModulePath, ModuleVersion, Version, latest_of, parse_list};
use stoa_upstream::examine::{Examined, Limits, Trouble, line};
use stoa_upstream::{Bounds, Client, Failure, Source, Stage, Use};

use super::report::{Place, State, Step};
use super::signs;
use super::verdict::Verdict;

/// Answers that are looked at; a zip goes to a file and has the server's own bound.
const MAX_ANSWER: u64 = 16 << 20;
/// Less time than this proves nothing about anybody.
pub(super) const LEAST: Duration = Duration::from_secs(1);
/// What takes moments elsewhere.
const SLOW_STEP: Duration = Duration::from_secs(3);

/// With what a place is examined.
#[derive(Clone, Debug)]
pub(super) struct Means {
    pub(super) client: Client,
    pub(super) limits: Limits,
    pub(super) max_zip_bytes: u64,
    /// Where a zip is written that is looked at; removed at once.
    pub(super) scratch: PathBuf,
}

impl Means {
    /// What the next step may take.
    pub(super) fn left(&self) -> Duration {
        let left = self.limits.deadline.saturating_duration_since(tokio::time::Instant::now());
        left.min(self.limits.step)
    }

    /// None when the step's time, or that of the whole, was over.
    pub(super) async fn within<T>(&self, step: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(self.left(), step).await.ok()
    }

    pub(super) async fn get(
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
pub(super) fn unasked(source: &Source) -> Failure {
    let detail = "not asked: the minute of this examination was over";
    let failure = Failure::new(ErrorClass::Timeout, Stage::Local, source, detail);
    Failure { tries: 0, ..failure }
}

fn late(source: &Source, bound: Duration) -> Failure {
    let detail = format!("no whole answer within {} s", bound.as_secs().max(1));
    Failure::new(ErrorClass::Timeout, Stage::Http, source, detail)
}

/// What a source came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
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
pub(super) struct Looked {
    pub(super) place: Place,
    /// What each step alone points to, with its evidence.
    pub(super) signs: Vec<(Verdict, String)>,
    pub(super) outcome: Outcome,
    pub(super) versions: Vec<Version>,
    /// The version that its files are of.
    pub(super) version: Option<ModuleVersion>,
    pub(super) go_mod: Option<H1>,
    pub(super) zip: Option<H1>,
    /// What the host's clock and ours said at the same time.
    pub(super) clocks: Option<(Timestamp, Timestamp)>,
}

impl Looked {
    pub(super) fn new(name: String, role: String) -> Self {
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

    pub(super) fn ok(&mut self, step: &str, seen: impl Into<String>, took: Duration) {
        self.place.steps.push(Step::new(step, State::Ok, seen).took(took));
    }

    pub(super) fn skip(&mut self, step: &str, why: impl Into<String>) {
        self.place.steps.push(Step::new(step, State::Skipped, why));
    }

    pub(super) fn note(&mut self, step: &str, seen: impl Into<String>, took: Duration) {
        self.place.steps.push(Step::new(step, State::Note, seen).took(took));
    }

    pub(super) fn sign(&mut self, step: &str, verdict: Verdict, seen: String, took: Duration) {
        let state = if verdict.stops() { State::Bad } else { State::Note };
        self.signs.push((verdict, format!("{step}: {seen}")));
        self.place.steps.push(Step::new(step, state, seen).took(took).of(verdict));
    }

    pub(super) fn failed(&mut self, step: &str, failure: &Failure, took: Duration) {
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
    pub(super) fn reached(&mut self, examined: Examined) -> bool {
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
    pub(super) fn is_not_needed(&mut self, why: &str) {
        self.signs.clear();
        for step in self.place.steps.iter_mut().filter(|step| step.state == State::Bad) {
            (step.state, step.verdict) = (State::Note, None);
            step.seen = format!("{} (no matter: {why})", step.seen);
        }
    }

    /// Takes in a list of versions. Answers whether it is one.
    pub(super) fn take_list(&mut self, body: &[u8], path: &ModulePath, took: Duration) -> bool {
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
    pub(super) fn demote(&mut self, verdicts: &[Verdict], step: &str) {
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

    pub(super) fn has_sign(&self, wanted: Verdict) -> bool {
        self.signs.iter().any(|(verdict, _)| *verdict == wanted)
    }
}

/// Without the source's name, which stands above it.
pub(super) fn described(failure: &Failure) -> String {
    let text = failure.text.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
    format!("{}{text}", failure.detail)
}

/// The first bytes of what is no answer, for people.
pub(super) fn beginning(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(120)]);
    format!("{:?}", line(&text))
}
