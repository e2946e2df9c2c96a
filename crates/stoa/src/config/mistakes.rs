//! Where a value came from, and everything that is wrong, all at once.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

/// Where the value of a setting came from. Sorted strongest first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// `--listen`
    Flag(&'static str),
    /// `STOA_LISTEN`
    Environment(String),
    /// The path as it was named; lines count from 1.
    File {
        path: PathBuf,
        line: usize,
    },
    /// It was not set and follows this other setting.
    Setting(&'static str),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => f.write_str(name),
            Self::Environment(name) => f.write_str(name),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Setting(key) => f.write_str(key),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One thing that is wrong. Displayed as `origin: key: problem`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    pub origin: Origin,
    /// `server.listen`; empty when the mistake is not about one setting.
    pub key: String,
    /// What is wrong and what would be right. Never holds a secret.
    pub problem: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)
    }
}

/// Everything that is wrong with the settings: at least one mistake. Displayed a line for each,
/// strongest origin first and a file's in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    pub(super) fn new(mut mistakes: Vec<Mistake>) -> Self {
        mistakes.sort();
        mistakes.dedup();
        Self(mistakes)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.0.iter()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mistake) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

impl Error for Mistakes {}

/// Where mistakes are put while the settings are read.
#[derive(Debug, Default)]
pub(super) struct Collector {
    pub(super) mistakes: Vec<Mistake>,
    pub(super) warnings: Vec<String>,
}

impl Collector {
    pub(super) fn mistake(
        &mut self,
        origin: Origin,
        key: impl Into<String>,
        problem: impl Into<String>,
    ) {
        self.mistakes.push(Mistake { origin, key: key.into(), problem: problem.into() });
    }

    pub(super) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }
}
