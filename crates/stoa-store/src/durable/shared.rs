//! One sync of a directory for all who need it.

use std::{
    io,
    sync::{Condvar, Mutex, PoisonError},
};

/// Lets callers share one sync: who arrives while one runs needs the next one, as the running one may have begun before
/// the caller's rename; all who wait by then share that next one.
#[derive(Debug, Default)]
pub(super) struct DirectorySync {
    rounds: Mutex<Rounds>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Rounds {
    begun: u64,
    done: u64,
    running: bool,
    /// The last round that failed, and how. A later success does not undo it: the system reports a lost write once.
    failed: Option<(u64, io::ErrorKind, String)>,
}

impl DirectorySync {
    pub(super) fn sync(&self, run: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = rounds.begun + 1;
        while rounds.done < wanted {
            if rounds.running {
                rounds = self.ended.wait(rounds).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            rounds.running = true;
            rounds.begun += 1;
            let round = rounds.begun;
            drop(rounds);
            let result = run();
            let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
            rounds.running = false;
            rounds.done = round;
            if let Err(error) = &result {
                rounds.failed = Some((round, error.kind(), error.to_string()));
            }
            self.ended.notify_all();
            return result;
        }
        match &rounds.failed {
            Some((round, kind, text)) if *round >= wanted => {
                Err(io::Error::new(*kind, text.clone()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Barrier,
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
        thread,
    };

    use super::*;

    /// Waits until `count` callers wait for a round of `shared`, so that the test needs no sleep.
    fn arrive(shared: &DirectorySync, arrived: &AtomicUsize, count: usize) {
        while arrived.load(Ordering::SeqCst) < count {
            thread::yield_now();
        }
        // All have counted themselves in; those that hold no turn block on the mutex or the condition below it.
        drop(shared.rounds.lock().unwrap());
    }

    #[test]
    fn waiting_syncs_share_one_round() {
        let shared = DirectorySync::default();
        let runs = AtomicUsize::new(0);
        let (release, held) = mpsc::channel::<()>();
        let begun = Barrier::new(2);
        let arrived = AtomicUsize::new(0);
        thread::scope(|scope| {
            let (shared, runs, begun, arrived) = (&shared, &runs, &begun, &arrived);
            scope.spawn(move || {
                shared
                    .sync(|| {
                        begun.wait();
                        runs.fetch_add(1, Ordering::SeqCst);
                        held.recv().map_err(io::Error::other)
                    })
                    .unwrap();
            });
            begun.wait();
            for _ in 0..8 {
                scope.spawn(move || {
                    arrived.fetch_add(1, Ordering::SeqCst);
                    shared
                        .sync(|| {
                            runs.fetch_add(1, Ordering::SeqCst);
                            Ok(())
                        })
                        .unwrap();
                });
            }
            arrive(shared, arrived, 8);
            release.send(()).unwrap();
        });
        let runs = runs.load(Ordering::SeqCst);
        assert!((2..=9).contains(&runs), "{runs} rounds");
        assert!(shared.rounds.lock().unwrap().done >= 2, "who arrived late had a round of its own");
    }

    #[test]
    fn a_failed_round_fails_its_callers_and_no_later_one() {
        let shared = DirectorySync::default();
        assert!(shared.sync(|| Err(io::Error::other("disk"))).is_err());
        assert!(shared.sync(|| Ok(())).is_ok());
    }
}
