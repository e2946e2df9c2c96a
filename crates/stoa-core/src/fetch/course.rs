//! How one download gets on, and whether those who wait may have it before it is whole.

use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use stoa_module::ErrorClass;
use stoa_store::OpenFile;
use stoa_upstream::Watch;
use tokio::sync::Notify;

use crate::flight::Announcer;
use crate::growing::{Grower, Growing};
use crate::mirror::{Arrived, Landed};

pub(crate) type ArtifactAnnouncer = Announcer<Landed<Arrived>, Arc<Growing>>;

/// How every zip begins that has no other bytes in front of it: with the header of its first file. A login page is held
/// back by that until somebody can be told what it is.
const FIRST_BYTES: [u8; 4] = *b"PK\x03\x04";

/// What an attempt at one source may do for those who wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streaming<'a> {
    pub announcer: &'a Arc<ArtifactAnnouncer>,
    /// A file of at most this many bytes is held back as a whole.
    pub hold: u64,
}

/// One download.
#[derive(Debug)]
pub(super) struct Course {
    state: Mutex<State>,
    begun: Notify,
}

#[derive(Debug)]
struct State {
    /// None where nothing is given before it is whole.
    announcer: Option<Arc<ArtifactAnnouncer>>,
    hold: u64,
    source: String,
    /// The file that is written, while it is one on the disk.
    file: Option<Arc<OpenFile>>,
    asked: Instant,
    /// From then to the beginning of the first answer.
    took: Option<Duration>,
    length: Option<u64>,
    bytes: u64,
    /// There is something to compare it with, or nothing that it must be compared with.
    may_be_judged: bool,
    grower: Option<Grower>,
}

impl Course {
    pub(super) fn new(streaming: Option<Streaming<'_>>, source: String) -> Arc<Self> {
        let state = Mutex::new(State {
            announcer: streaming.map(|streaming| Arc::clone(streaming.announcer)),
            hold: streaming.map_or(u64::MAX, |streaming| streaming.hold),
            source,
            file: None,
            asked: Instant::now(),
            took: None,
            length: None,
            bytes: 0,
            may_be_judged: false,
            grower: None,
        });
        Arc::new(Self { state, begun: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its source is asked now.
    pub(super) fn asks(&self) {
        self.state().asked = Instant::now();
    }

    /// How long the source took to begin its answer, if it did.
    pub(super) fn took(&self) -> Option<Duration> {
        self.state().took
    }

    /// Completes when the source has begun its answer; for one who waits.
    pub(super) async fn begun(&self) {
        self.begun.notified().await;
    }

    /// The body goes into this file from now on; none is not to be read before it is whole.
    pub(super) fn goes_into(&self, file: Option<Arc<OpenFile>>) {
        self.state().file = file;
    }

    pub(super) fn may_be_judged(&self) {
        let mut state = self.state();
        state.may_be_judged = true;
        state.announce_if_due();
    }

    /// Those who read it get the rest. But not of what nobody vouches for and nothing records as the first that was seen:
    /// they were told that it never changes.
    pub(super) fn release(&self, arrived: &Arrived) {
        let instead = match arrived {
            Arrived::Stored => None,
            Arrived::Passed(file, record) if record.state.is_verified() => Some(Arc::clone(file)),
            Arrived::Passed(..) => {
                self.break_off(ErrorClass::Full);
                return;
            }
        };
        let mut state = self.state();
        // A write that was given up may still end.
        state.file = None;
        if let Some(grower) = state.grower.take() {
            grower.release(instead);
        }
    }

    /// Those who read it get no more; whoever else waits, waits on. Answers whether anybody was reading.
    pub(super) fn break_off(&self, class: ErrorClass) -> bool {
        let mut state = self.state();
        state.file = None;
        let Some(grower) = state.grower.take() else { return false };
        if let Some(announcer) = &state.announcer {
            announcer.announce(None);
        }
        grower.break_off(class)
    }
}

impl State {
    fn announce_if_due(&mut self) {
        let (Some(announcer), Some(file), Some(length)) =
            (&self.announcer, &self.file, self.length)
        else {
            return;
        };
        if self.grower.is_some() || !self.may_be_judged || length <= self.hold {
            return;
        }
        let mut first = [0; FIRST_BYTES.len()];
        if self.bytes < first.len() as u64
            || file.read_exact_at(&mut first, 0).is_err()
            || first != FIRST_BYTES
        {
            return;
        }
        let grower = Grower::new(Arc::clone(file), length, self.bytes, self.source.clone());
        announcer.announce(Some(Arc::clone(&grower.growing)));
        self.grower = Some(grower);
    }
}

impl Watch for Course {
    fn begins(&self, length: Option<u64>) -> bool {
        self.begun.notify_one();
        let mut state = self.state();
        state.took = state.took.or(Some(state.asked.elapsed()));
        (state.length, state.bytes) = (length, 0);
        state.announcer.is_some()
            && state.file.is_some()
            && length.is_some_and(|length| length > state.hold)
    }

    fn grows(&self, bytes: u64) {
        let mut state = self.state();
        state.bytes = bytes;
        match &state.grower {
            Some(grower) => grower.grow(bytes),
            None => state.announce_if_due(),
        }
    }

    fn begins_again(&self) -> bool {
        let mut state = self.state();
        if state.grower.as_ref().is_some_and(|grower| !grower.withdraw()) {
            return false;
        }
        if state.grower.take().is_some()
            && let Some(announcer) = &state.announcer
        {
            announcer.announce(None);
        }
        (state.length, state.bytes) = (None, 0);
        true
    }
}

impl Drop for Course {
    fn drop(&mut self) {
        self.break_off(ErrorClass::Internal);
    }
}
