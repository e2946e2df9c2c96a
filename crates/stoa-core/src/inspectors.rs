//! Threads of their own for the inspection of zips: heavy, bounded, and never in the way of a hit.
//!
//! They are few and stay, because each keeps the buffers it inflates into; on a shared pool every thread would in time.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// A fixed number of threads; jobs wait in order. They end when this is dropped and their work is done.
pub(crate) struct Inspectors {
    jobs: Sender<Job>,
}

impl Inspectors {
    /// At least one thread is made.
    pub(crate) fn new(threads: usize) -> std::io::Result<Self> {
        let (jobs, waiting) = channel::<Job>();
        let waiting = Arc::new(Mutex::new(waiting));
        for n in 0..threads.max(1) {
            let waiting = Arc::clone(&waiting);
            thread::Builder::new().name(format!("inspect-{n}")).spawn(move || work(&waiting))?;
        }
        Ok(Self { jobs })
    }

    /// Runs `job` on one of the threads; none if it panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (tell, told) = oneshot::channel();
        let job = Box::new(move || {
            let _ = tell.send(job());
        });
        self.jobs.send(job).ok()?;
        told.await.ok()
    }
}

fn work(waiting: &Mutex<Receiver<Job>>) {
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // A job that panics drops its sender, which is its answer; the thread goes on with the next.
        let _ = catch_unwind(AssertUnwindSafe(job));
    }
}

impl fmt::Debug for Inspectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspectors").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn jobs_run_and_a_panic_costs_only_itself() {
        let inspectors = Arc::new(Inspectors::new(2).unwrap());
        let many = (0..50).map(|n| {
            let inspectors = Arc::clone(&inspectors);
            tokio::spawn(async move { inspectors.run(move || n * 2).await })
        });
        for (n, one) in many.enumerate() {
            assert_eq!(one.await.unwrap(), Some(n * 2));
        }
        for _ in 0..3 {
            assert_eq!(inspectors.run(|| -> u8 { panic!("on purpose") }).await, None);
        }
        assert_eq!(inspectors.run(|| 7).await, Some(7));
    }
}
