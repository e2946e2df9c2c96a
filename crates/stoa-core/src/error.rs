//! The one error of this crate: a verdict a person can read.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use stoa_module::ErrorClass;
use stoa_upstream::{Failure, Stage};

use crate::flight::Grounded;

/// What was asked, what was concluded and why. Shared by everyone who waited for the same flight.
#[derive(Clone, Debug)]
pub struct Error {
    /// Decides the status code, and with it whether the go command asks its next proxy.
    pub class: ErrorClass,
    /// One line without secrets: what was asked, and what was concluded.
    pub message: String,
    /// What each source said, in the order they were asked.
    pub failures: Vec<Failure>,
    /// What the reader can do about it.
    pub hint: Option<String>,
    /// When asking again may help, if a source said so.
    pub retry_after: Option<Duration>,
}

impl Error {
    pub(crate) fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), failures: Vec::new(), hint: None, retry_after: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn because(mut self, failures: Vec<Failure>) -> Self {
        self.retry_after = failures.iter().filter_map(|failure| failure.retry_after).max();
        self.failures = failures;
        self
    }

    /// Every source of a chain failed: the class is that of the failure that decides.
    pub(crate) fn exhausted(asked: &str, failures: Vec<Failure>) -> Self {
        let deciding = stoa_upstream::deciding(&failures);
        let class = deciding.map_or(ErrorClass::NotFound, |failure| failure.class);
        let hint = deciding.and_then(|failure| failure.hint).map(str::to_owned);
        let conclusion = match class {
            ErrorClass::NotFound => "not found",
            ErrorClass::Denied => "a source denies it",
            ErrorClass::Mismatch => "refused, the content is not what was vouched for",
            ErrorClass::Corrupt => "what arrived is damaged or malformed",
            ErrorClass::Timeout => "no source answered in time",
            ErrorClass::Full => "no room to store it",
            _ => "no source could serve it",
        };
        let error = Self::new(class, format!("{asked}: {conclusion}")).because(failures);
        Self { hint, ..error }
    }

    /// The store could not do its part.
    pub(crate) fn store(asked: &str, error: &stoa_store::Error) -> Self {
        let class = error.class();
        match class {
            ErrorClass::Full => Self::new(class, format!("{asked}: no room to store it: {error}"))
                .hint("free some space on the server's disk or make it writable; what is stored is served all the while"),
            ErrorClass::Invalid => Self::new(class, format!("{asked}: {error}")),
            _ => Self::new(class, format!("{asked}: the store failed: {error}")),
        }
    }

    pub(crate) fn offline(asked: &str) -> Self {
        Self::new(ErrorClass::NotFound, format!("{asked}: offline, not stored"))
            .hint("the server runs with --offline; fetch this once through it while it is online")
    }

    pub(crate) fn unverified_offline(asked: &str) -> Self {
        Self::new(
            ErrorClass::NotFound,
            format!("{asked}: stored, but never compared with the checksum database, whose record is offline, not stored"),
        )
        .hint("start the server once with a network, or set sumdb.on-unreachable to serve")
    }

    pub(crate) fn unverified_unstored(asked: &str) -> Self {
        Self::new(
            ErrorClass::Full,
            format!("{asked}: no room to store it until the checksum database can be reached, so it is not handed out"),
        )
        .hint("free some space in the server's data directory, or make it writable")
    }

    /// A flight that brought no answer.
    pub(crate) fn grounded(asked: &str, grounded: Grounded) -> Arc<Self> {
        Arc::new(match grounded {
            Grounded::Lost => Self::lost(asked),
            Grounded::Full => Self {
                retry_after: Some(Duration::from_secs(5)),
                ..Self::new(
                    ErrorClass::Unavailable,
                    format!("{asked}: too many fetches wait for their sources"),
                )
            },
            Grounded::Limited => Self {
                retry_after: Some(Duration::from_secs(1)),
                ..Self::new(
                    ErrorClass::Limited,
                    format!("{asked}: not looked for: this client asks for too much at once that is not here"),
                )
                .hint("ask again in a moment, or have server.misses-per-client raised on the server; what is stored is served all the while")
            },
        })
    }

    /// A task of ours ended without an answer: a bug, since every fault has a class.
    pub(crate) fn lost(asked: &str) -> Self {
        Self::new(
            ErrorClass::Internal,
            format!("{asked}: the task that fetched this ended without an answer"),
        )
    }

    /// This error, an absence, where `outage` keeps it from being asked about again.
    pub(crate) fn as_of_before(&self, age: Duration, outage: &Self) -> Self {
        let message = format!("{}, {} ago; no source answers now", self.message, span(age));
        let error = Self::new(ErrorClass::NotFound, message).because(outage.failures.clone());
        let hint = self.hint.as_deref();
        error.hint(hint.unwrap_or("if it has come since, ask again when a source answers"))
    }

    /// Sources were asked and did not answer. That we ourselves were too busy to ask any says nothing about them.
    pub(crate) fn went_unanswered(&self) -> bool {
        self.is_outage() && self.failures.iter().any(|failure| failure.stage != Stage::Local)
    }

    /// No source answered, which says nothing about what was asked.
    pub(crate) fn is_outage(&self) -> bool {
        matches!(self.class, ErrorClass::Unavailable | ErrorClass::Timeout)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for failure in &self.failures {
            write!(f, "; {failure}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// For people: `40 s`, `12 min`, `5 h`.
fn span(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_coarsely() {
        let check = |seconds, expected: &str| {
            assert_eq!(span(Duration::from_secs(seconds)), expected);
        };
        check(0, "0 s");
        check(119, "119 s");
        check(120, "2 min");
        check(7199, "119 min");
        check(86_399, "23 h");
    }
}
