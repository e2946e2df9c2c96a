//! Which writes are on disk: those of a *batch*, and of all before it.
//!
//! What a commit writes is given its name at once, and made durable a moment later, many commits together. Each commit
//! belongs to the batch that is open when it begins, and writes the batch's number into the sidecar. A flush closes the
//! batch, waits for the commits in it, syncs every file and directory that they wrote, and says so in a small file, the
//! *mark* (`stoa.flushed`), which is itself always synced before it gets its name. So the mark says: whatever names a batch
//! up to this one is on disk, whole.
//!
//! # After a stop that was not clean
//!
//! Nobody knows what became of the batches above the mark. Their numbers are *in doubt* from then on: a sidecar that names
//! one is settled (see `settle`) before anything of it is used. Closing a batch opens the next one, and only one is flushed
//! at a time, so at most two numbers above the mark are in use; the next process goes on above these, and no number means
//! two things. Before the first commit of a process the mark says which numbers are in doubt, so that a second unclean stop
//! cannot forget it; they stay so until the pass over all sidecars has settled every one.
//!
//! A number is also no smaller than the clock's milliseconds. That counts only where the mark was lost, or is an old one
//! out of a backup: then sidecars may name any batch so far, and with a clock that is right all of those are in doubt. A
//! clock that goes backwards changes nothing as long as the mark is there.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// Files and directories that may wait for a flush, about 100 bytes each. Who finds no place syncs for itself.
pub(crate) const MOST: usize = 16 << 10;
/// With so many a flush begins early.
const MANY: usize = MOST / 2;
/// Numbers above the mark that an unclean stop may leave in use.
const OPEN: u64 = 2;
const FORM: u32 = 1;

/// What the mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    stoa: u32,
    /// Up to this batch everything is on disk.
    flushed: u64,
    /// The first and the last batch of which that is not known all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    doubt: Option<(u64, u64)>,
    /// Nothing was written after it.
    #[serde(default)]
    closed: bool,
}

/// What waits for a flush.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    pub(crate) files: HashSet<PathBuf>,
    pub(crate) directories: HashSet<PathBuf>,
    /// Directories that are known to be on disk then, as hashes.
    pub(crate) made: HashSet<u64>,
    /// Files that the disk has lost, and nothing could be done about it yet.
    pub(crate) lost: HashSet<PathBuf>,
}

impl Pool {
    fn len(&self) -> usize {
        self.files.len() + self.directories.len() + self.lost.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn take_in(&mut self, other: Self) {
        self.files.extend(other.files);
        self.directories.extend(other.directories);
        self.made.extend(other.made);
        self.lost.extend(other.lost);
    }
}

/// A batch that is being flushed.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) batch: u64,
    pub(crate) pool: Pool,
    /// The doubt had ended when it was closed.
    ends_doubt: bool,
}

#[derive(Debug)]
pub(crate) struct Batches {
    /// False: whoever commits syncs for itself, and its sidecar names no batch.
    batched: bool,
    /// Commits that begin now belong to it. Changed under the lock of `state` alone.
    current: AtomicU64,
    flushed: AtomicU64,
    /// The numbers in doubt; nothing is below 1.
    doubt: (AtomicU64, AtomicU64),
    /// The mark on disk names the doubt.
    ready: AtomicBool,
    state: Mutex<State>,
    /// Somebody left a batch.
    left: Condvar,
    wakes: Arc<Wakes>,
}

/// What the flusher waits for.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    /// Something waits for a flush.
    pub(crate) some: Notify,
    /// Much does.
    pub(crate) many: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Of the current batch and of the one before it, by the number's last bit.
    pools: [Pool; 2],
    commits: [usize; 2],
    /// As the mark on disk must have it.
    doubt: Option<(u64, u64)>,
    ends_doubt: bool,
    /// The mark must be written although nothing waits.
    mark_due: bool,
}

impl Batches {
    /// `mark` is what the file holds, `clean` whether the last stop was; `now` in milliseconds since 1970.
    pub(crate) fn open(batched: bool, mark: Option<&[u8]>, clean: bool, now: u64) -> Self {
        let mark: Option<Mark> = mark
            .and_then(|text| serde_json::from_slice(text).ok())
            .filter(|mark: &Mark| mark.stoa == FORM);
        let (flushed, had, closed) =
            mark.map_or((0, None, clean), |mark| (mark.flushed, mark.doubt, mark.closed));
        let current = flushed.saturating_add(OPEN + 1).max(now);
        let unknown = (!closed).then_some((flushed + 1, current - 1));
        let doubt = match (had, unknown) {
            // One range is enough: what is between them is only settled once more.
            (Some((first, _)), Some((_, last))) => Some((first, last)),
            (had, unknown) => had.or(unknown),
        };
        let (first, last) = doubt.unwrap_or((1, 0));
        Self {
            batched,
            current: AtomicU64::new(current),
            flushed: AtomicU64::new(current - 1),
            doubt: (AtomicU64::new(first), AtomicU64::new(last)),
            ready: AtomicBool::new(false),
            state: Mutex::new(State { doubt, ..State::default() }),
            left: Condvar::new(),
            wakes: Arc::default(),
        }
    }

    pub(crate) fn is_batched(&self) -> bool {
        self.batched
    }

    pub(crate) fn wakes(&self) -> Arc<Wakes> {
        Arc::clone(&self.wakes)
    }

    /// Whether what names this batch may be torn. Never waits.
    pub(crate) fn is_doubtful(&self, batch: u64) -> bool {
        let doubt = self.doubt.0.load(Ordering::SeqCst)..=self.doubt.1.load(Ordering::SeqCst);
        doubt.contains(&batch) || batch > self.current.load(Ordering::SeqCst)
    }

    /// Whether anything may be torn.
    pub(crate) fn has_doubt(&self) -> bool {
        self.doubt.0.load(Ordering::SeqCst) <= self.doubt.1.load(Ordering::SeqCst)
    }

    /// Whether what first named this batch is on disk, as far as is known.
    pub(crate) fn is_flushed(&self, batch: u64) -> bool {
        batch <= self.flushed.load(Ordering::SeqCst)
    }

    /// Every sidecar that named a batch in doubt was settled.
    pub(crate) fn end_doubt(&self) {
        let mut state = self.locked();
        self.doubt.0.store(1, Ordering::SeqCst);
        self.doubt.1.store(0, Ordering::SeqCst);
        if state.doubt.is_some() {
            state.ends_doubt = true;
            state.mark_due = true;
            self.wakes.some.notify_one();
        }
    }

    /// A commit begins. Gives its batch; 0 when it is to sync for itself.
    pub(crate) fn join(&self) -> u64 {
        if !self.batched {
            return 0;
        }
        let mut state = self.locked();
        let batch = self.current.load(Ordering::SeqCst);
        state.commits[side(batch)] += 1;
        batch
    }

    /// Whether a commit finds no place for what it wrote.
    pub(crate) fn is_full(&self) -> bool {
        self.locked().pools.iter().map(Pool::len).sum::<usize>() >= MOST
    }

    /// The commit ends, with what it wrote.
    pub(crate) fn leave(&self, batch: u64, wrote: Pool) {
        let mut state = self.locked();
        self.put(&mut state, batch, wrote);
        state.commits[side(batch)] -= 1;
        if state.commits[side(batch)] == 0 {
            self.left.notify_all();
        }
    }

    /// Something that no sidecar vouches for.
    pub(crate) fn add(&self, wrote: Pool) {
        let mut state = self.locked();
        let current = self.current.load(Ordering::SeqCst);
        self.put(&mut state, current, wrote);
    }

    /// Those that wait for a flush and are inside of this one.
    pub(crate) fn directories_below(&self, root: &Path) -> Vec<PathBuf> {
        let state = self.locked();
        let all = state.pools.iter().flat_map(|pool| &pool.directories);
        all.filter(|dir| dir.starts_with(root)).cloned().collect()
    }

    fn put(&self, state: &mut State, batch: u64, wrote: Pool) {
        if wrote.is_empty() {
            return;
        }
        state.pools[side(batch)].take_in(wrote);
        self.wakes.some.notify_one();
        if state.pools.iter().map(Pool::len).sum::<usize>() >= MANY {
            self.wakes.many.notify_one();
        }
    }

    /// Closes the current batch and waits for the commits in it. Nothing when there is nothing to flush. Only one round at a
    /// time.
    pub(crate) fn begin_round(&self) -> Option<Round> {
        let mut state = self.locked();
        let batch = self.current.load(Ordering::SeqCst);
        if state.pools.iter().all(Pool::is_empty) && !state.mark_due {
            return None;
        }
        self.current.store(batch + 1, Ordering::SeqCst);
        let ends_doubt = state.ends_doubt;
        while state.commits[side(batch)] > 0 {
            state = self.left.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let pool = std::mem::take(&mut state.pools[side(batch)]);
        Some(Round { batch, pool, ends_doubt })
    }

    /// What the mark has to say when everything of the round is on disk.
    pub(crate) fn mark_after(&self, round: &Round) -> Mark {
        let doubt = self.locked().doubt.filter(|_| !round.ends_doubt);
        Mark { stoa: FORM, flushed: round.batch, doubt, closed: false }
    }

    /// Everything of the round is on disk, and `marked` whether the mark says so.
    pub(crate) fn end_round(&self, round: &Round, marked: bool) {
        let mut state = self.locked();
        self.flushed.store(round.batch, Ordering::SeqCst);
        if !marked {
            state.mark_due = true;
            self.wakes.some.notify_one();
            return;
        }
        state.mark_due = state.ends_doubt && !round.ends_doubt;
        if round.ends_doubt {
            (state.doubt, state.ends_doubt) = (None, false);
        }
    }

    /// The mark with which commits may begin.
    pub(crate) fn first_mark(&self) -> Mark {
        let flushed = self.current.load(Ordering::SeqCst) - 1;
        Mark { stoa: FORM, flushed, doubt: self.locked().doubt, closed: false }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::SeqCst)
    }

    pub(crate) fn set_ready(&self) {
        self.ready.store(true, Ordering::SeqCst);
    }

    /// The mark of a clean stop: nothing waits any more.
    pub(crate) fn last_mark(&self) -> Option<Mark> {
        let state = self.locked();
        let waits = state.mark_due || !state.pools.iter().all(Pool::is_empty);
        let flushed = self.current.load(Ordering::SeqCst);
        (!waits).then_some(Mark { stoa: FORM, flushed, doubt: state.doubt, closed: true })
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        // The flusher finds nobody, and ends.
        self.wakes.some.notify_one();
        self.wakes.many.notify_one();
    }
}

fn side(batch: u64) -> usize {
    (batch & 1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(flushed: u64, doubt: Option<(u64, u64)>, closed: bool) -> Vec<u8> {
        serde_json::to_vec(&Mark { stoa: FORM, flushed, doubt, closed }).unwrap()
    }

    fn one(path: &str) -> Pool {
        Pool { files: HashSet::from([PathBuf::from(path)]), ..Pool::default() }
    }

    /// The doubt and the current batch after an open.
    #[test]
    fn what_is_in_doubt_after_a_stop() {
        #[track_caller]
        fn check(mark: Option<&[u8]>, clean: bool, now: u64, expected: (Option<(u64, u64)>, u64)) {
            let batches = Batches::open(true, mark, clean, now);
            let doubt = batches.locked().doubt;
            assert_eq!((doubt, batches.current.load(Ordering::SeqCst)), expected);
            assert_eq!(batches.has_doubt(), doubt.is_some());
            assert!(!batches.is_doubtful(0) && !batches.is_doubtful(expected.1));
            if let Some((first, last)) = doubt {
                assert!(batches.is_doubtful(first) && batches.is_doubtful(last));
                assert!(!batches.is_doubtful(first - 1));
            }
            // Out of a later backup, say.
            assert!(batches.is_doubtful(expected.1 + 1));
        }
        check(None, false, 1000, (Some((1, 999)), 1000));
        check(Some(b"\0\0\0"), false, 1000, (Some((1, 999)), 1000));
        check(Some(br#"{"stoa":2,"flushed":5}"#), false, 1000, (Some((1, 999)), 1000));
        // It was taken away by a person, and the stop was clean.
        check(None, true, 1000, (None, 1000));
        check(Some(&mark(500, None, true)), true, 1000, (None, 1000));
        // The index has its own mark, which says nothing here.
        check(Some(&mark(500, None, true)), false, 1000, (None, 1000));
        check(Some(&mark(500, None, false)), true, 1000, (Some((501, 999)), 1000));
        check(Some(&mark(500, Some((40, 60)), false)), false, 1000, (Some((40, 999)), 1000));
        check(Some(&mark(500, Some((40, 60)), true)), true, 1000, (Some((40, 60)), 1000));
        // The clock went backwards, far and a little.
        check(Some(&mark(500, None, false)), false, 7, (Some((501, 502)), 503));
        check(Some(&mark(500, None, false)), false, 502, (Some((501, 502)), 503));
        check(Some(&mark(500, None, true)), false, 0, (None, 503));
    }

    #[test]
    fn a_number_means_one_thing_for_ever() {
        // Killed at any moment, with a clock that only goes backwards, no number is used by two processes.
        let mut used = HashSet::new();
        let mut file: Option<Vec<u8>> = None;
        for process in 0..50_u64 {
            let batches = Batches::open(true, file.as_deref(), false, 100 - process.min(100));
            file = Some(serde_json::to_vec(&batches.first_mark()).unwrap());
            let mut mine = HashSet::new();
            for round in 0..process % 4 {
                mine.insert(batches.join());
                batches.leave(*mine.iter().max().unwrap(), one("a"));
                let flushed = batches.begin_round().unwrap();
                // Killed before the mark is written, now and then.
                if round == process % 3 {
                    break;
                }
                file = Some(serde_json::to_vec(&batches.mark_after(&flushed)).unwrap());
                batches.end_round(&flushed, true);
            }
            mine.insert(batches.join());
            assert!(used.is_disjoint(&mine), "process {process}");
            used.extend(mine);
        }
    }

    #[test]
    fn a_round_waits_for_its_commits_and_not_for_later_ones() {
        let batches = Batches::open(true, None, true, 100);
        assert!(batches.begin_round().is_none());
        let first = batches.join();
        batches.add(one("list"));
        std::thread::scope(|scope| {
            let round = scope.spawn(|| batches.begin_round().unwrap());
            while batches.join() == first {
                batches.leave(first, Pool::default());
                std::thread::yield_now();
            }
            // That one was of the next batch.
            assert!(!round.is_finished());
            batches.leave(first, one("first"));
            let round = round.join().unwrap();
            assert_eq!((round.batch, round.pool.files.len()), (100, 2));
            assert!(!batches.is_flushed(100));
            batches.end_round(&round, true);
            assert!(batches.is_flushed(100) && !batches.is_flushed(101));
        });
        batches.leave(101, one("second"));
        assert!(batches.last_mark().is_none(), "something waits");
        let round = batches.begin_round().unwrap();
        assert_eq!((round.batch, round.pool.files.len()), (101, 1));
        batches.end_round(&round, true);
        assert_eq!(
            batches.last_mark().unwrap(),
            Mark { stoa: 1, flushed: 102, doubt: None, closed: true }
        );
    }

    #[test]
    fn the_mark_drops_the_doubt_with_what_was_settled() {
        let batches = Batches::open(true, Some(&mark(5, None, false)), false, 0);
        let doubt = Some((6, 7));
        assert_eq!(batches.first_mark().doubt, doubt);
        batches.leave(batches.join(), one("settled"));
        let round = batches.begin_round().unwrap();
        batches.end_doubt();
        assert!(!batches.has_doubt());
        // What was settled meanwhile is of the next batch.
        assert_eq!(batches.mark_after(&round).doubt, doubt);
        batches.end_round(&round, true);
        let round = batches.begin_round().expect("the mark is due");
        assert_eq!(batches.mark_after(&round).doubt, None);
        // It could not be written.
        batches.end_round(&round, false);
        assert!(batches.last_mark().is_none());
        let round = batches.begin_round().expect("still");
        batches.end_round(&round, true);
        assert!(batches.begin_round().is_none());
        assert_eq!(batches.last_mark().unwrap().doubt, None);
    }
}
