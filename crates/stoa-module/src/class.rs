//! The classes every failure falls into.

use std::fmt;

/// What a failure means to the one who asked, and whether the next source of a chain may be asked instead.
///
/// Every error of every room maps to exactly one class, and the HTTP layer maps each class to exactly one status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorClass {
    /// The path, version, escape or extension can never name anything: no source is asked.
    Invalid,
    /// Every source that was asked says that it is not there.
    NotFound,
    /// A policy of ours, or an upstream's 401 or 403.
    Denied,
    /// The content contradicts a checksum record or the first bytes that were seen.
    Mismatch,
    /// Torn, malformed, against the rules of a module zip, or of another version than asked.
    Corrupt,
    /// A name, connection, TLS or server failure elsewhere.
    Unavailable,
    /// A bound on waiting was reached.
    Timeout,
    /// There is no room to store it.
    Full,
    /// The one who asks has asked for too much.
    Limited,
    /// A fault of ours.
    Internal,
}

impl ErrorClass {
    /// One lower-case word, for logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::Denied => "denied",
            Self::Mismatch => "mismatch",
            Self::Corrupt => "corrupt",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Full => "full",
            Self::Limited => "limited",
            Self::Internal => "internal",
        }
    }

    /// Whether a chain goes on after a comma: only when the source answered that it does not have it.
    pub fn is_absent(self) -> bool {
        self == Self::NotFound
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
