//! What the places come to together: whether a chain, or the roads to the database, give what is wanted as a whole, and whether
//! the hosts agree about the time.

use std::time::Duration;

use stoa_core::Subject;
use stoa_module::{ModuleVersion, Separator, latest_of};
use stoa_upstream::examine::line;

use super::abroad::Member;
use super::database::Read;
use super::looked::{Looked, Outcome};
use super::report::{Finding, Place, State, Step};
use super::verdict::Verdict;

/// By which a clock may be wrong without doing harm.
const CLOCK: Duration = Duration::from_mins(5);

/// What was seen at all places so far, and what is concluded of each.
#[derive(Debug, Default)]
pub(super) struct All {
    pub(super) places: Vec<Place>,
    pub(super) findings: Vec<Finding>,
    pub(super) ruled_out: Vec<String>,
    /// By how many seconds each host's clock is ahead of ours.
    clocks: Vec<(String, i64)>,
}

impl All {
    pub(super) fn find(
        &mut self,
        verdict: Verdict,
        place: &str,
        evidence: impl Into<String>,
        stops: bool,
    ) {
        let (place, evidence) = (place.to_owned(), line(&evidence.into()));
        self.findings.push(Finding { verdict, place, evidence, stops });
    }

    /// Takes a place in, with what was found there.
    pub(super) fn take(&mut self, looked: Looked, stops: bool) {
        if let Some((theirs, ours)) = looked.clocks {
            let ahead = theirs.duration_since(ours).as_secs();
            // One host is one witness, also where it is several things.
            if self.clocks.iter().all(|(name, _)| *name != looked.place.name) {
                self.clocks.push((looked.place.name.clone(), ahead));
            }
        }
        for (verdict, evidence) in looked.signs {
            // What only costs time stops nothing by itself.
            let stops = stops && verdict.stops();
            self.find(verdict, &looked.place.name, evidence, stops);
        }
        self.places.push(looked.place);
    }
}

/// Whether the chain as a whole gives what was asked for, and which of its sources keep it from that. `is_named`: some setting
/// names the module.
pub(super) fn judge_chain(
    all: &mut All,
    results: Vec<Looked>,
    members: &[Member],
    subject: Option<&Subject>,
    is_named: bool,
) {
    let with = |outcome: Outcome| results.iter().find(|looked| looked.outcome == outcome);
    let has = with(Outcome::Has).map(|looked| looked.place.name.clone());
    let is_absent = has.is_none() && with(Outcome::Failed).is_none();
    if let Some(subject) = subject.filter(|_| is_absent && with(Outcome::Absent).is_some()) {
        note_absence(all, &results, subject, is_named);
    }
    if let Some(name) = &has {
        all.ruled_out.push(match subject {
            Some(subject) => format!("{name} has {subject}"),
            None => format!("{name} can be reached and answers"),
        });
    }
    for (looked, member) in results.into_iter().zip(members) {
        let ends_it = subject.is_none() && member.entry.separator == Separator::Comma;
        let stops = looked.outcome == Outcome::Failed && (has.is_none() || ends_it);
        all.take(looked, stops);
    }
}

/// Every source says that it is not there.
fn note_absence(all: &mut All, results: &[Looked], subject: &Subject, is_named: bool) {
    let place = "the chain of sources";
    let newest = results.iter().find_map(|looked| latest_of(&looked.versions));
    let asks_for_one = !matches!(subject, Subject::Module(_));
    if let (Some(newest), true) = (newest, asks_for_one) {
        let text = format!("its sources have other versions, the newest is {newest}");
        all.find(Verdict::VersionAbsent, place, text, true);
        return;
    }
    let path = subject.path();
    let host = path.as_str().split('/').next().unwrap_or_default();
    let goes_direct = results.iter().any(|looked| looked.place.name == "direct");
    // Its host is in this network, or wants to know who asks.
    let is_hidden = results.iter().any(|looked| {
        let of_git = looked.place.steps.iter().filter(|step| step.step == "git");
        looked.has_sign(Verdict::NoRoute)
            || of_git.map(|step| &step.seen).any(|seen| seen.contains("credential"))
    });
    let is_likely = !is_public_host(host) && (is_hidden || !goes_direct);
    if !is_named && path.impossible().is_none() && is_likely {
        let text = if is_hidden {
            format!(
                "{host} is in a private network or asks for a credential, and no setting names {path}"
            )
        } else {
            format!("no source has it, none of them is direct, and no setting names {path}")
        };
        all.find(Verdict::NoRoute, place, text, true);
        return;
    }
    let text = match path.impossible() {
        Some(why) => format!("{path} can be no module: {why}"),
        None => "each of them says that there is nothing under this path".to_owned(),
    };
    all.find(Verdict::ModuleAbsent, place, text, true);
}

/// Whether anybody may have modules there, so that a module that is not found is most likely a slip.
fn is_public_host(host: &str) -> bool {
    const PUBLIC: [&str; 9] = [
        "github.com",
        "gitlab.com",
        "bitbucket.org",
        "golang.org",
        "google.golang.org",
        "gopkg.in",
        "k8s.io",
        "go.uber.org",
        "codeberg.org",
    ];
    PUBLIC.contains(&host)
}

/// The database counts as a whole: one road is enough. `is_needed`: there is something that it is to vouch for.
pub(super) fn judge_database(
    all: &mut All,
    read: Vec<Read>,
    is_needed: bool,
    reached_any: bool,
    version: Option<&ModuleVersion>,
) {
    let works = read.iter().find(|read| read.looked.outcome == Outcome::Has);
    let works = works.map(|read| read.looked.place.name.clone());
    let no_record = read.iter().find(|read| read.no_record).filter(|_| works.is_none());
    let no_record = no_record.map(|read| read.looked.place.name.clone());
    if let Some(name) = &works {
        let text = "signed, proven, and one history with what is known here";
        all.ruled_out.push(format!("{name}: {text}"));
    } else if let Some(name) = &no_record {
        let what = version.map_or("it".to_owned(), ToString::to_string);
        all.find(Verdict::NoRecord, name, format!("no record of {what}"), true);
    }
    let is_forked = read.iter().any(|read| read.looked.has_sign(Verdict::TreeForked));
    let unproven = read.iter().any(|read| read.looked.has_sign(Verdict::DatabaseUnproven));
    let is_outage = is_needed && works.is_none() && no_record.is_none() && !is_forked && !unproven;
    if is_outage && reached_any {
        for read in &read {
            let why = read.looked.signs.first().map_or("it is not passed on", |(_, text)| text);
            let text = format!("{}: {why}", read.looked.place.name);
            all.find(Verdict::DatabaseBlocked, "the checksum database", text, true);
        }
    }
    for Read { mut looked, .. } in read {
        // What no other road makes good.
        let is_final = looked.has_sign(Verdict::TreeForked);
        if !is_final && !is_needed {
            looked.is_not_needed("there is nothing to verify");
        } else if !is_final && (works.is_some() || no_record.is_some()) {
            looked.is_not_needed("another road works");
        }
        let stops =
            is_final || looked.has_sign(Verdict::DatabaseUnproven) || (is_outage && !reached_any);
        all.take(looked, stops);
    }
}

/// Whether this machine's clock is right, by the words of hosts and of their certificates.
pub(super) fn judge_clock(all: &mut All, place: &mut Place) {
    let limit = i64::try_from(CLOCK.as_secs()).unwrap_or(i64::MAX);
    let (off, right): (Vec<_>, Vec<_>) =
        all.clocks.iter().cloned().partition(|(_, ahead)| ahead.abs() > limit);
    let told = |(name, ahead): &(String, i64)| {
        let word = if *ahead > 0 { "behind" } else { "ahead of" };
        format!("{} s {word} {name}", ahead.abs())
    };
    let certificates = [Verdict::CertificateExpired, Verdict::CertificateNotYetValid];
    let doubted = all.findings.iter().any(|finding| certificates.contains(&finding.verdict));
    let (step, verdict) = match (off.first(), right.first()) {
        (None, None) => (Step::new("clock", State::Skipped, "no host told the time"), None),
        (None, Some((name, ahead))) => {
            let text = format!("{} s from that of {name}", ahead.abs());
            all.ruled_out.push(format!("clock: {text}"));
            (Step::new("clock", State::Ok, text), None)
        }
        // One host alone may itself be wrong.
        (Some(first), None) if off.len() > 1 || doubted => {
            let all_of_them: Vec<String> = off.iter().map(told).collect();
            let text = if off.len() > 1 { all_of_them.join(", ") } else { told(first) };
            (Step::new("clock", State::Bad, text), Some(Verdict::ClockWrong))
        }
        (Some(first), _) => (
            Step::new("clock", State::Note, format!("{}; one of the two is wrong", told(first))),
            None,
        ),
    };
    if let Some(verdict) = verdict {
        all.find(verdict, &place.name, format!("clock: {}", step.seen), doubted);
        place.steps.push(step.of(verdict));
    } else {
        place.steps.push(step);
    }
}
