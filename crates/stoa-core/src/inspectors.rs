//! Threads of their own for the inspection of zips: heavy, bounded, and never in the way of a hit.
//!
//! They are few and stay, because each keeps the buffers it inflates into; on a shared pool every thread would in time.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

/// While nothing at all was read for so long, the disk hangs, and who waits for an inspection need not wait any longer.
const STANDSTILL: Duration = Duration::from_mins(1);

type Job = Box<dyn FnOnce() + Send>;

/// A fixed number of threads; jobs wait in order. They end when this is dropped and their work is done.
pub(crate) struct Inspectors {
    jobs: Sender<Job>,
    /// Reads of all jobs together: one that waits for its thread gets on when another does.
    reads: Arc<AtomicU64>,
    standstill: Duration,
}

/// Why there is no outcome.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Unfinished {
    Panicked,
    StandsStill,
}

/// A file whose reads are progress.
#[derive(Debug)]
pub(crate) struct Watched<R> {
    reader: R,
    reads: Arc<AtomicU64>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.reader.read(buffer)
    }
}

impl<R: Seek> Seek for Watched<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.reader.seek(to)
    }
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
        Ok(Self { jobs, reads: Arc::default(), standstill: STANDSTILL })
    }

    /// What a job is to read its file through.
    pub(crate) fn watched<R>(&self, reader: R) -> Watched<R> {
        Watched { reader, reads: Arc::clone(&self.reads) }
    }

    /// Runs `job` on one of the threads. It is not waited for any longer when nothing was read for a minute.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unfinished> {
        let (tell, mut told) = oneshot::channel();
        let job = Box::new(move || {
            let _ = tell.send(job());
        });
        self.jobs.send(job).map_err(|_| Unfinished::Panicked)?;
        let mut reads = self.reads.load(Ordering::Relaxed);
        loop {
            if let Ok(told) = timeout(self.standstill, &mut told).await {
                return told.map_err(|_| Unfinished::Panicked);
            }
            let now = self.reads.load(Ordering::Relaxed);
            if now == reads {
                return Err(Unfinished::StandsStill);
            }
            reads = now;
        }
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
            assert_eq!(one.await.unwrap(), Ok(n * 2));
        }
        for _ in 0..3 {
            let panicked = inspectors.run(|| -> u8 { panic!("on purpose") }).await;
            assert_eq!(panicked, Err(Unfinished::Panicked));
        }
        assert_eq!(inspectors.run(|| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn those_that_read_are_waited_for_and_a_dead_disk_is_not() {
        let standstill = Duration::from_millis(200);
        let inspectors = Inspectors { standstill, ..Inspectors::new(1).unwrap() };
        let mut reader = inspectors.watched(io::repeat(0));
        let reads = inspectors.run(move || {
            let began = std::time::Instant::now();
            while began.elapsed() < standstill * 4 {
                reader.read_exact(&mut [0; 10]).unwrap();
                thread::yield_now();
            }
        });
        assert_eq!(reads.await, Ok(()));
        let (go_on, wait) = channel::<()>();
        let hangs = inspectors.run(move || wait.recv());
        // Nor is one that waits for the same thread.
        let waits = inspectors.run(|| ());
        let (hangs, waits) = tokio::join!(hangs, waits);
        assert_eq!((hangs, waits), (Err(Unfinished::StandsStill), Err(Unfinished::StandsStill)));
        drop(go_on);
        assert_eq!(inspectors.run(|| 7).await, Ok(7));
    }
}
