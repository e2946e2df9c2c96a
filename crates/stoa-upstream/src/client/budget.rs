use std::time::{Duration, Instant};

/// Time that may be spent on waiting for somebody else, in pieces.
#[derive(Debug)]
pub(crate) struct Budget {
    whole: Duration,
    left: Duration,
}

/// The budget is spent.
#[derive(Debug)]
pub(crate) struct Spent;

impl Budget {
    pub(crate) fn new(whole: Duration) -> Self {
        Self { whole, left: whole }
    }

    /// The time that was given at the start.
    pub(crate) fn whole(&self) -> Duration {
        self.whole
    }

    pub(crate) fn left(&self) -> Duration {
        self.left
    }

    /// Waits for something for as long as the budget lasts, and takes off what it took.
    pub(crate) async fn spend<F: Future>(&mut self, awaited: F) -> Result<F::Output, Spent> {
        let began = Instant::now();
        let outcome = tokio::time::timeout(self.left, awaited).await;
        self.left = self.left.saturating_sub(began.elapsed());
        outcome.map_err(|_| Spent)
    }

    pub(crate) fn refill(&mut self) {
        self.left = self.whole;
    }

    /// Whether something is left after a pause.
    pub(crate) fn affords(&self, pause: Duration) -> bool {
        pause < self.left
    }

    pub(crate) async fn pause(&mut self, pause: Duration) {
        // A pause that outlasts the budget ends with it.
        let _ = self.spend(tokio::time::sleep(pause)).await;
    }
}
