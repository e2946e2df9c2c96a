//! The go command's comma and pipe rules (cmd/go's modfetch, `TryProxies`), as a walk without any I/O.

use stoa_module::{ErrorClass, ProxyList, Separator};

use crate::error::Error;
use crate::failure::{Failure, Stage};
use crate::source::Source;

/// A GOPROXY list, ready to be asked.
#[derive(Clone, Debug)]
pub struct Chain {
    pub entries: Vec<Entry>,
}

/// A source, and the separator that follows it.
#[derive(Clone, Debug)]
pub struct Entry {
    pub source: Source,
    pub separator: Separator,
}

impl Chain {
    pub fn new(list: &ProxyList) -> Result<Self, Error> {
        let entries = list.items.iter().map(|item| {
            Ok(Entry { source: Source::try_from(&item.source)?, separator: item.separator })
        });
        Ok(Self { entries: entries.collect::<Result<_, Error>>()? })
    }

    /// Walks the chain once: take a step, ask its source, and either stop with the answer or report the failure.
    ///
    /// ```
    /// # use stoa_upstream::{Chain, Entry, Failure, Source};
    /// # use stoa_module::{ErrorClass, Separator};
    /// # let chain = Chain { entries: vec![Entry { source: Source::Off, separator: Separator::Comma }] };
    /// # let ask = |source: &Source| -> Result<(), Failure> {
    /// #     Err(Failure::new(ErrorClass::NotFound, stoa_upstream::Stage::Local, source, "off"))
    /// # };
    /// let mut walk = chain.walk();
    /// while let Some(step) = walk.next() {
    ///     match ask(step.source) {
    ///         Ok(answer) => return,
    ///         Err(failure) => walk.failed(failure),
    ///     }
    /// }
    /// let failures = walk.finish();
    /// ```
    pub fn walk(&self) -> Walk<'_> {
        Walk { entries: &self.entries, taken: 0, failures: Vec::new() }
    }
}

/// A walk along a chain. As an iterator it yields a step only while the failures reported so far let the go command
/// go on: after a plain absence, or over `|`. A step whose failure was not reported ends the walk.
#[derive(Debug)]
pub struct Walk<'c> {
    entries: &'c [Entry],
    /// How many steps were taken.
    taken: usize,
    /// One for each step that failed.
    failures: Vec<Failure>,
}

/// A source to ask.
#[derive(Clone, Copy, Debug)]
pub struct Step<'c> {
    pub source: &'c Source,
    /// Another source stands behind this one over `|`, so that there is something better to do than wait.
    pub has_alternative: bool,
}

impl<'c> Iterator for Walk<'c> {
    type Item = Step<'c>;

    fn next(&mut self) -> Option<Step<'c>> {
        if self.failures.len() != self.taken {
            return None;
        }
        if let Some(failure) = self.failures.last() {
            let passed = &self.entries[self.taken - 1];
            if !failure.class.is_absent() && passed.separator == Separator::Comma {
                return None;
            }
        }
        let entry = self.entries.get(self.taken)?;
        let behind = self.entries.get(self.taken + 1);
        let has_alternative = entry.separator == Separator::Pipe
            && behind.is_some_and(|behind| !matches!(behind.source, Source::Off));
        self.taken += 1;
        Some(Step { source: &entry.source, has_alternative })
    }
}

impl Walk<'_> {
    /// Reports that the source of the last step failed.
    pub fn failed(&mut self, failure: Failure) {
        self.failures.push(failure);
    }

    /// What went wrong, in the order of the chain.
    pub fn finish(self) -> Vec<Failure> {
        self.failures
    }
}

/// The failure whose class is the chain's: the repository's own word weighs most, then a proxy's failure, then an
/// absence; among equals the last one. A source that was not asked at all (`off`, and `direct` while it is not
/// available) weighs no more than an absence, so that it never hides an outage.
pub fn deciding(failures: &[Failure]) -> Option<&Failure> {
    failures.iter().max_by_key(|failure| match failure {
        Failure { tries: 0, class: ErrorClass::NotFound, .. } => 0,
        Failure { stage: Stage::Git, .. } => 2,
        failure if failure.class.is_absent() => 0,
        _ => 1,
    })
}
