//! A file that is read while it is being downloaded: all but its end, which waits until the whole of it is vouched for.
//!
//! What was never verified can so be in the hands of a client, and is never a whole answer there: the last bytes are given
//! only after the commit, and a client that got fewer than were announced has got nothing. So those who wait for a large
//! zip get its first byte when the upstream's is here.
//!
//! Readers have a place of their own in the file and hold up nobody. The file is the one that is committed (a rename does
//! not touch an open one), so a slow reader reads on after that.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use stoa_module::ErrorClass;
use stoa_store::OpenFile;
use tokio::sync::watch;

/// How much is held back, in bytes. The directory of a zip is at its end, behind which there may be a comment of 64 KiB:
/// without this much, what is left has not even that of the zip that is being sent. At ten megabytes a second it is here
/// in 26 ms.
pub(crate) const TAIL: u64 = 256 << 10;

/// One download, for all who read it.
#[derive(Debug)]
pub(crate) struct Growing {
    file: Arc<OpenFile>,
    length: u64,
    /// Where it comes from, for the log.
    pub source: String,
    claim: Mutex<Claim>,
    phase: watch::Receiver<Phase>,
}

/// The side that writes. Dropped without a word, it breaks off what is being read.
#[derive(Debug)]
pub(crate) struct Grower {
    phase: watch::Sender<Phase>,
    pub growing: Arc<Growing>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Claim {
    Free,
    /// Somebody reads it: not a byte of it may change any more.
    Read,
    /// Nobody reads it, and nobody will.
    Withdrawn,
}

#[derive(Clone, Debug)]
enum Phase {
    /// So many bytes are in the file.
    Arriving(u64),
    /// It was vouched for, and is in the store; or it is in another file, because the disk did not take it.
    Whole(Option<Arc<OpenFile>>),
    BrokenOff(ErrorClass),
}

/// One who reads a growing file.
#[derive(Clone, Debug)]
pub struct Reader {
    file: Arc<OpenFile>,
    length: u64,
    phase: watch::Receiver<Phase>,
}

/// The rest of what was being sent is not given. The class is that of the download's failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BrokenOff(pub ErrorClass);

impl Grower {
    /// `bytes` are in the file already, of `length` that were announced.
    pub(crate) fn new(file: Arc<OpenFile>, length: u64, bytes: u64, source: String) -> Self {
        let (phase, seen) = watch::channel(Phase::Arriving(bytes));
        let claim = Mutex::new(Claim::Free);
        Self { phase, growing: Arc::new(Growing { file, length, source, claim, phase: seen }) }
    }

    pub(crate) fn grow(&self, bytes: u64) {
        self.phase.send_replace(Phase::Arriving(bytes));
    }

    /// The end may be given: it was compared with its record and committed. `instead`: another file with the same bytes.
    pub(crate) fn release(self, instead: Option<Arc<OpenFile>>) {
        self.phase.send_replace(Phase::Whole(instead));
    }

    /// Answers whether that is the end of an answer for anybody.
    pub(crate) fn break_off(self, class: ErrorClass) -> bool {
        let is_read = !self.withdraw();
        self.phase.send_replace(Phase::BrokenOff(class));
        is_read
    }

    /// Nobody gets to read it any more, if nobody does now; else false.
    pub(crate) fn withdraw(&self) -> bool {
        let mut claim = self.growing.claim.lock().unwrap_or_else(PoisonError::into_inner);
        if *claim == Claim::Free {
            *claim = Claim::Withdrawn;
        }
        *claim == Claim::Withdrawn
    }
}

impl Growing {
    /// None if it is not to be read any more.
    pub(crate) fn reader(&self) -> Option<Reader> {
        let mut claim = self.claim.lock().unwrap_or_else(PoisonError::into_inner);
        if *claim == Claim::Withdrawn || matches!(*self.phase.borrow(), Phase::BrokenOff(_)) {
            return None;
        }
        *claim = Claim::Read;
        Some(Reader {
            file: Arc::clone(&self.file),
            length: self.length,
            phase: self.phase.clone(),
        })
    }
}

impl Phase {
    /// The end of what may be given, of so many bytes in all.
    fn readable(&self, length: u64) -> u64 {
        match self {
            Self::Arriving(bytes) => length.saturating_sub(TAIL).min(*bytes),
            Self::Whole(_) => length,
            Self::BrokenOff(_) => 0,
        }
    }
}

impl Reader {
    /// Of the whole file, as it was announced.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether no more of it is to be given, not even what is here.
    pub fn broken_off(&self) -> Option<BrokenOff> {
        match *self.phase.borrow() {
            Phase::BrokenOff(class) => Some(BrokenOff(class)),
            Phase::Arriving(_) | Phase::Whole(_) => None,
        }
    }

    /// Waits for bytes behind `from`, and tells in which file, and up to where.
    pub async fn readable(&mut self, from: u64) -> Result<(Arc<OpenFile>, u64), BrokenOff> {
        let length = self.length;
        let has_more =
            |phase: &Phase| matches!(phase, Phase::BrokenOff(_)) || phase.readable(length) > from;
        // Whoever wrote it ended without a word.
        let lost = BrokenOff(ErrorClass::Internal);
        let phase = self.phase.wait_for(has_more).await.map_err(|_| lost)?.clone();
        let file = match &phase {
            Phase::BrokenOff(class) => return Err(BrokenOff(*class)),
            Phase::Whole(Some(other)) => other,
            Phase::Whole(None) | Phase::Arriving(_) => &self.file,
        };
        Ok((Arc::clone(file), phase.readable(length)))
    }
}

impl fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the rest of it is not given: {}", self.0.as_str())
    }
}

impl std::error::Error for BrokenOff {}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: u64 = TAIL + 50_000;

    /// Nothing is read of it here.
    fn file() -> Arc<OpenFile> {
        let (file, _) = fs_err::File::open("/dev/null").unwrap().into_parts();
        Arc::new(file.into())
    }

    fn growing() -> (Grower, Reader) {
        let grower = Grower::new(file(), LENGTH, 0, "here".to_owned());
        let reader = grower.growing.reader().unwrap();
        (grower, reader)
    }

    /// What a reader that has `from` bytes is given now; none if it waits.
    fn now(reader: &Reader, from: u64) -> Option<Result<u64, BrokenOff>> {
        use futures_util::FutureExt as _;

        let readable = reader.clone().readable(from).now_or_never();
        readable.map(|readable| readable.map(|(_, end)| end))
    }

    #[test]
    fn not_a_byte_of_the_end_before_the_verdict() {
        let (grower, reader) = growing();
        let most = LENGTH - TAIL;
        // Every place at which a download can be, of which a reader has had all it may have.
        for bytes in 0..=LENGTH {
            grower.grow(bytes);
            let may = bytes.min(most);
            assert_eq!(reader.phase.borrow().readable(LENGTH), may, "{bytes}");
            if bytes >= most || bytes.is_multiple_of(10_007) {
                assert_eq!(now(&reader, may), None, "{bytes}");
                assert_eq!(now(&reader, may.saturating_sub(1)), (may > 0).then_some(Ok(may)));
            }
        }
        let late = grower.growing.reader().unwrap();
        assert_eq!(now(&late, most), None);
        grower.release(None);
        for reader in [reader, late] {
            assert_eq!(now(&reader, 0), Some(Ok(LENGTH)));
            assert_eq!(now(&reader, most), Some(Ok(LENGTH)));
            assert_eq!(now(&reader, LENGTH - 1), Some(Ok(LENGTH)));
        }
    }

    #[test]
    fn after_a_refusal_nothing_is_given() {
        for bytes in [0, 1, LENGTH - TAIL - 1, LENGTH - TAIL, LENGTH - 1, LENGTH] {
            let (grower, reader) = growing();
            let growing = Arc::clone(&grower.growing);
            grower.grow(bytes);
            assert!(grower.break_off(ErrorClass::Mismatch), "somebody reads it");
            for from in [0, bytes.min(LENGTH - TAIL), LENGTH - TAIL, LENGTH - 1] {
                assert_eq!(now(&reader, from), Some(Err(BrokenOff(ErrorClass::Mismatch))));
            }
            assert!(growing.reader().is_none(), "nobody else is given it");
        }
        // The leader is gone without a word.
        let (grower, reader) = growing();
        grower.grow(LENGTH);
        drop(grower);
        assert_eq!(now(&reader, LENGTH - TAIL), Some(Err(BrokenOff(ErrorClass::Internal))));
    }

    #[test]
    fn what_is_shorter_than_the_end_is_held_back_as_a_whole() {
        for length in [1, TAIL - 1, TAIL, TAIL + 1] {
            let grower = Grower::new(file(), length, length, String::new());
            let reader = grower.growing.reader().unwrap();
            let may = length.saturating_sub(TAIL);
            assert_eq!(now(&reader, may), None);
            grower.release(None);
            assert_eq!(now(&reader, may), Some(Ok(length)));
        }
    }

    #[test]
    fn it_is_withdrawn_only_before_anybody_reads_it() {
        let (grower, _reader) = growing();
        assert!(!grower.withdraw());
        assert!(grower.growing.reader().is_some());
        let grower = Grower::new(file(), LENGTH, 0, String::new());
        assert!(grower.withdraw() && grower.withdraw());
        assert!(grower.growing.reader().is_none());
        assert!(!grower.break_off(ErrorClass::Corrupt), "nobody noticed");
    }
}
