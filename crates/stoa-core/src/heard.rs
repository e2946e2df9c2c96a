//! What the sources said when they were last asked, for whoever wants to know why something is as it is.
//!
//! Only in memory, and bounded by bytes. Nothing is decided by it.

use std::sync::Arc;

use moka::sync::Cache;
use stoa_upstream::journey::{self, Said};

use crate::absent::Asked;

/// What one takes besides its texts.
const COST: usize = 160;
/// What one source's word takes besides its texts: mostly the times.
const SAID_COST: usize = size_of::<Said>() + 32;

/// What was said of each question.
#[derive(Debug)]
pub(crate) struct Heard(Cache<Asked, Arc<[Said]>>);

impl Heard {
    /// At most this many bytes: a thousand questions for each quarter of a mebibyte, about.
    pub(crate) fn new(bytes: u64) -> Self {
        let weigh = |asked: &Asked, said: &Arc<[Said]>| {
            let of = |said: &Said| {
                let words = said.outcome.as_ref().err().map_or(0, String::len);
                SAID_COST + said.source.len() + words
            };
            let bytes = COST + asked.bytes() + said.iter().map(of).sum::<usize>();
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        Self(Cache::builder().max_capacity(bytes).weigher(weigh).build())
    }

    /// The present journey has come to its end: what it heard is what was said of this. Nothing, if nobody was asked.
    pub(crate) fn note(&self, asked: &Asked) {
        let said = journey::current().map(|journey| journey.said()).unwrap_or_default();
        if !said.is_empty() {
            self.0.insert(asked.clone(), said.into());
        }
    }

    pub(crate) fn of(&self, asked: &Asked) -> Option<Arc<[Said]>> {
        self.0.get(asked)
    }
}

#[cfg(test)]
mod tests {
    use stoa_module::{Artifact, ModuleVersion};
    use stoa_upstream::journey::Journey;

    use super::*;

    const BYTES: u64 = 512 << 10;

    #[tokio::test]
    async fn the_last_word_of_each_source_is_remembered_within_bounds() {
        let heard = Heard::new(BYTES);
        let asked = |n: usize| {
            let module = ModuleVersion::parse(&format!("example.com/m{n}@v1.0.0")).unwrap();
            Asked::Artifact(module, Artifact::Zip)
        };
        let ask = async |n: usize, words: &str| {
            let work = async {
                if !words.is_empty() {
                    Journey::visit("proxy.example.com").ended(&Err::<(), _>(words));
                }
                heard.note(&asked(n));
            };
            Journey::begin().scope(work).await;
        };
        ask(1, "http 404").await;
        ask(1, "http 503").await;
        // Nobody was asked, since somebody else had landed meanwhile.
        ask(1, "").await;
        let said = heard.of(&asked(1)).unwrap();
        assert_eq!((said.len(), said[0].outcome.clone()), (1, Err("http 503".to_owned())));
        for n in 0..10_000 {
            ask(n, "http 404").await;
        }
        heard.0.run_pending_tasks();
        assert!(heard.0.weighted_size() <= BYTES && heard.0.entry_count() > 1000);
    }
}
