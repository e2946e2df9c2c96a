//! What was seen, what it means together, and the verdict.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use stoa_upstream::examine::line;

use super::verdict::Verdict;

/// The version of the JSON form; fields are added and never change their meaning.
pub const FORM: u32 = 1;

/// Everything that `stoa doctor` has to say. In JSON:
///
/// ```json
/// {"stoa_doctor": 1, "version": "0.1.0", "subject": "example.com/m@v1.0.0", "seen_by": "server", "pid": 1, "began": "…",
///  "took_ms": 120, "places": [{"name": "…", "role": "…", "steps": [{"step": "tcp", "state": "ok", "seen": "…", "took_ms": 3,
///  "verdict": null}]}], "verdict": {"code": "healthy", "exit": 0, "place": null, "stops": false, "cause": "…",
///  "evidence": ["…"], "to_do": "…"}, "others": [], "ruled_out": ["…"]}
/// ```
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Report {
    pub stoa_doctor: u32,
    pub version: String,
    /// `MODULE`, `MODULE@VERSION`, or none: all that the settings name.
    pub subject: Option<String>,
    pub seen_by: SeenBy,
    /// The server's, where it is seen by one.
    pub pid: u32,
    pub began: Timestamp,
    pub took_ms: u64,
    /// One line about how the module is routed.
    pub routed: Option<String>,
    pub places: Vec<Place>,
    pub verdict: Told,
    /// What else was found, most important first.
    pub others: Vec<Told>,
    /// What was looked at and is as it should be.
    pub ruled_out: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SeenBy {
    /// The running server.
    Server,
    /// This command, with the settings that a server would have.
    Command,
}

/// A source, a database, a git host, or this machine.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Place {
    pub name: String,
    /// `source 1 of 2 (upstream.goproxy)`.
    pub role: String,
    pub steps: Vec<Step>,
}

/// One stage at one place.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Step {
    /// `name`, `tcp`, `tls`, `http`, `credential`, `list`, `lookup`, …
    pub step: String,
    pub state: State,
    /// One line.
    pub seen: String,
    pub took_ms: Option<u64>,
    /// The verdict that it alone would lead to.
    pub verdict: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    /// It works, and costs something; or it is nobody's fault, like a version that is not there.
    Note,
    Bad,
    /// Nothing was asked.
    Skipped,
}

/// A verdict with what proves it here.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Told {
    pub code: String,
    pub exit: u8,
    /// Where, by the name of the place.
    pub place: Option<String>,
    /// What was asked for cannot be had; else it only costs time, since another source is behind it.
    pub stops: bool,
    pub cause: String,
    pub evidence: Vec<String>,
    pub to_do: String,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) verdict: Verdict,
    pub(crate) place: String,
    pub(crate) evidence: String,
    pub(crate) stops: bool,
}

/// What the places' findings come to: the verdict, and the others.
pub(crate) fn conclude(mut findings: Vec<Finding>) -> (Told, Vec<Told>) {
    findings.sort_by_key(|finding| (!finding.stops, finding.verdict.rank()));
    let mut told: Vec<Told> = Vec::new();
    for Finding { verdict, place, evidence, stops } in findings {
        let row = verdict.row();
        let is_same = |it: &&mut Told| {
            it.code == row.code && it.stops == stops && it.place.as_ref() == Some(&place)
        };
        match told.iter_mut().find(is_same) {
            Some(same) if same.evidence.contains(&evidence) => {}
            Some(same) => same.evidence.push(evidence),
            None => told.push(Told {
                place: Some(place),
                stops,
                evidence: vec![evidence],
                ..Told::of(verdict)
            }),
        }
    }
    let mut told = told.into_iter();
    let first = told.next().unwrap_or_else(|| Told::of(Verdict::Healthy));
    (first, told.collect())
}

impl Told {
    /// Of nowhere, and without evidence.
    fn of(verdict: Verdict) -> Self {
        let row = verdict.row();
        Self {
            code: row.code.to_owned(),
            exit: row.exit,
            place: None,
            stops: false,
            cause: row.cause.to_owned(),
            evidence: Vec::new(),
            to_do: row.to_do.to_owned(),
        }
    }
}

impl Step {
    pub(crate) fn new(step: &str, state: State, seen: impl Into<String>) -> Self {
        // It may hold what others say.
        let seen = line(&seen.into());
        Self { step: step.to_owned(), state, seen, took_ms: None, verdict: None }
    }

    pub(crate) fn took(self, took: std::time::Duration) -> Self {
        Self { took_ms: Some(u64::try_from(took.as_millis()).unwrap_or(u64::MAX)), ..self }
    }

    pub(crate) fn of(self, verdict: Verdict) -> Self {
        Self { verdict: Some(verdict.row().code.to_owned()), ..self }
    }
}
