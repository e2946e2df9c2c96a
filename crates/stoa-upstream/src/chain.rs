//! The go command's comma and pipe rules (cmd/go's modfetch, `TryProxies`), as a walk without any I/O.

use stoa_module::{ErrorClass, ProxyList, Separator};

use crate::error::Error;
use crate::failure::Failure;
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
        let step = self.step(self.taken)?;
        self.taken += 1;
        Some(step)
    }
}

impl<'c> Walk<'c> {
    fn step(&self, index: usize) -> Option<Step<'c>> {
        let entry = self.entries.get(index)?;
        let behind = self.entries.get(index + 1);
        let has_alternative = entry.separator == Separator::Pipe
            && behind.is_some_and(|b| !matches!(b.source, Source::Off));
        Some(Step { source: &entry.source, has_alternative })
    }

    /// The step behind the present one, whatever becomes of that: over `|`. After a comma it must not be asked before the
    /// present one has said that it has nothing.
    pub fn beside(&self) -> Option<Step<'c>> {
        let present = self.entries.get(self.taken.checked_sub(1)?)?;
        if present.separator == Separator::Pipe { self.step(self.taken) } else { None }
    }

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
/// absence; among equals the last one. A source that was not asked at all (`off`, and `direct` where nothing is fetched
/// from repositories) weighs no more than an absence, so that it never hides an outage.
pub fn deciding(failures: &[Failure]) -> Option<&Failure> {
    failures.iter().max_by_key(|failure| match failure {
        Failure { tries: 0, class: ErrorClass::NotFound, .. } => 0,
        Failure { source, .. } if source == Source::Direct.host() => 2,
        failure if failure.class.is_absent() => 0,
        _ => 1,
    })
}

#[cfg(test)]
mod tests {
    use ErrorClass::{Corrupt, Denied, NotFound, Timeout, Unavailable};
    use url::Url;

    use super::*;
    use crate::failure::Stage;

    const CLASSES: [ErrorClass; 5] = [NotFound, Denied, Corrupt, Unavailable, Timeout];

    fn chain(list: &str) -> Chain {
        Chain::new(&ProxyList::parse(list).unwrap()).unwrap()
    }

    /// What a source of that kind says when it fails by that class.
    fn failure(source: &Source, class: ErrorClass) -> Failure {
        match source {
            Source::Direct => Failure::new(class, Stage::Git, source, "said"),
            Source::Off => {
                Failure { tries: 0, ..Failure::new(NotFound, Stage::Local, source, "off") }
            }
            _ => Failure::new(class, Stage::Http, source, "said"),
        }
    }

    /// Walks a chain whose sources answer by the outcomes, in order; `None` is a success. Returns how many were asked,
    /// and the position of the failure that decides, if none succeeded.
    fn walk(chain: &Chain, outcomes: &[Option<ErrorClass>]) -> (usize, Option<usize>) {
        let mut walk = chain.walk();
        let mut asked = 0;
        while let Some(step) = walk.next() {
            assert_eq!(step.source.to_string(), chain.entries[asked].source.to_string());
            asked += 1;
            match outcomes[asked - 1] {
                None => break,
                Some(class) => walk.failed(failure(step.source, class)),
            }
        }
        assert!(walk.next().is_none(), "the end is the end");
        let failures = walk.finish();
        if failures.len() < asked {
            return (asked, None);
        }
        let deciding = deciding(&failures).unwrap();
        (asked, failures.iter().position(|failure| std::ptr::eq(failure, deciding)))
    }

    /// The same by the go command's own loop.
    fn go(chain: &Chain, outcomes: &[Option<ErrorClass>]) -> (usize, Option<usize>) {
        let (mut best, mut best_rank) = (None, 0);
        let mut asked = 0;
        for (index, entry) in chain.entries.iter().enumerate() {
            asked += 1;
            let Some(class) = outcomes[index] else { return (asked, None) };
            let is_absent = class == NotFound || matches!(entry.source, Source::Off);
            if matches!(entry.source, Source::Direct) {
                (best, best_rank) = (Some(index), 2);
            } else if best_rank <= 1 && !is_absent {
                (best, best_rank) = (Some(index), 1);
            } else if best_rank == 0 {
                best = Some(index);
            }
            if entry.separator == Separator::Comma && !is_absent {
                break;
            }
        }
        (asked, best)
    }

    #[test]
    fn agrees_with_the_go_command() {
        let outcomes: Vec<Option<ErrorClass>> =
            std::iter::once(None).chain(CLASSES.map(Some)).collect();
        let last = ["https://c.test", "direct", "off"];
        let mut checked = 0;
        for separators in [",,", ",|", "|,", "||"] {
            let (first, second) = separators.split_at(1);
            for last in last {
                let two = chain(&format!("https://a.test{first}{last}"));
                let three = chain(&format!("https://a.test{first}https://b.test{second}{last}"));
                for a in &outcomes {
                    for b in &outcomes {
                        assert_eq!(
                            walk(&two, &[*a, *b]),
                            go(&two, &[*a, *b]),
                            "{two:?} {a:?} {b:?}"
                        );
                        for c in &outcomes {
                            let all = [*a, *b, *c];
                            assert_eq!(walk(&three, &all), go(&three, &all), "{three:?} {all:?}");
                            checked += 1;
                        }
                    }
                }
            }
        }
        assert_eq!(checked, 4 * 3 * 6 * 6 * 6);
    }

    #[test]
    fn comma_and_pipe() {
        let check = |list: &str, outcomes: &[ErrorClass], asked: usize, decides: usize| {
            let outcomes: Vec<_> = outcomes.iter().copied().map(Some).collect();
            assert_eq!(
                walk(&chain(list), &outcomes),
                (asked, Some(decides)),
                "{list} {outcomes:?}"
            );
        };
        check("https://a.test", &[Denied], 1, 0);
        check("https://a.test,https://b.test", &[NotFound, Denied], 2, 1);
        check("https://a.test,https://b.test", &[NotFound, NotFound], 2, 1);
        check("https://a.test,https://b.test", &[Denied], 1, 0);
        check("https://a.test,https://b.test", &[Timeout], 1, 0);
        check("https://a.test|https://b.test", &[Timeout, NotFound], 2, 0);
        check("https://a.test|https://b.test", &[Timeout, Denied], 2, 1);
        check("https://a.test|https://b.test,https://c.test", &[Denied, NotFound, NotFound], 3, 0);
        check("https://a.test|https://b.test,https://c.test", &[Denied, Corrupt], 2, 1);
        check("https://a.test|direct", &[Unavailable, NotFound], 2, 1);
        check("https://a.test,off", &[NotFound, NotFound], 2, 1);
        check("https://a.test|off", &[Unavailable, NotFound], 2, 0);
        check("off", &[NotFound], 1, 0);
    }

    #[test]
    fn what_was_not_asked_hides_no_outage() {
        let chain = chain("https://a.test|direct");
        let mut walk = chain.walk();
        let outage = failure(walk.next().unwrap().source, Unavailable);
        walk.failed(outage);
        let unasked = Failure { tries: 0, ..failure(walk.next().unwrap().source, NotFound) };
        walk.failed(unasked);
        assert_eq!(deciding(&walk.finish()).unwrap().class, Unavailable);

        // Nor is an outage less of one because it is known.
        let known =
            Chain::new(&ProxyList::parse("https://a.test|https://b.test").unwrap()).unwrap();
        let mut walk = known.walk();
        let open = Failure { tries: 0, ..failure(walk.next().unwrap().source, Unavailable) };
        walk.failed(open);
        let absent = failure(walk.next().unwrap().source, NotFound);
        walk.failed(absent);
        assert_eq!(deciding(&walk.finish()).unwrap().class, Unavailable);
        assert!(deciding(&[]).is_none());
    }

    #[test]
    fn alternatives() {
        let check = |list: &str, expected: &[bool]| {
            let chain = chain(list);
            let mut walk = chain.walk();
            let mut found = Vec::new();
            while let Some(step) = walk.next() {
                found.push(step.has_alternative);
                walk.failed(failure(step.source, NotFound));
            }
            assert_eq!(found, expected, "{list}");
        };
        check("https://a.test", &[false]);
        check("https://a.test,https://b.test", &[false, false]);
        check("https://a.test|https://b.test", &[true, false]);
        check("https://a.test|https://b.test,direct", &[true, false, false]);
        check("https://a.test,https://b.test|direct", &[false, true, false]);
        check("https://a.test|off", &[false, false]);
        check("https://a.test|", &[false]);
    }

    #[test]
    fn who_may_be_asked_beside_the_present_one() {
        let check = |list: &str, expected: &[Option<&str>]| {
            let chain = chain(list);
            let mut walk = chain.walk();
            assert!(walk.beside().is_none(), "nobody is asked yet");
            let mut found = Vec::new();
            while let Some(step) = walk.next() {
                found.push(walk.beside().map(|step| step.source.host().to_owned()));
                walk.failed(failure(step.source, NotFound));
            }
            let found: Vec<_> = found.iter().map(Option::as_deref).collect();
            assert_eq!(found, expected, "{list}");
        };
        check("https://a.test", &[None]);
        check("https://a.test|", &[None]);
        check("https://a.test,https://b.test", &[None, None]);
        check("https://a.test|https://b.test", &[Some("b.test"), None]);
        check("https://a.test|https://b.test,https://c.test", &[Some("b.test"), None, None]);
        check("https://a.test,https://b.test|direct", &[None, Some("direct"), None]);
    }

    #[test]
    fn an_unusable_address_is_refused() {
        let item = stoa_module::ProxyItem {
            source: stoa_module::ProxySource::Url(Url::parse("https://u:p@a.test/?x").unwrap()),
            separator: Separator::Comma,
        };
        let error = Chain::new(&ProxyList { items: vec![item] }).unwrap_err();
        let expected =
            "invalid upstream address https://a.test/?...: it must have no query and no fragment";
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.class(), ErrorClass::Internal);
    }
}
