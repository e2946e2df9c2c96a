use tokio::sync::watch;

use crate::PATIENCE;

/// Holds answers back until the test opens it; once open it stays open. Clones are the same gate.
///
/// With it a test waits for events instead of for time: a request was seen, something else happened
/// meanwhile, now the answer may go.
#[derive(Debug, Clone)]
pub struct Gate {
    open: watch::Sender<bool>,
    held: watch::Sender<usize>,
}

impl Gate {
    #[expect(clippy::new_without_default, reason = "a default gate could be either open or shut")]
    pub fn new() -> Gate {
        Gate { open: watch::Sender::new(false), held: watch::Sender::new(0) }
    }

    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Waits until `count` answers have come to the gate since it was made; panics when it takes too long.
    pub async fn wait_for_held(&self, count: usize) {
        let mut held = self.held.subscribe();
        let reached = held.wait_for(|&held| held >= count);
        assert!(
            tokio::time::timeout(PATIENCE, reached).await.is_ok(),
            "{} instead of {count} answers came to the gate in {PATIENCE:?}",
            *self.held.borrow()
        );
    }

    /// Passes the gate, when it is open.
    pub(crate) async fn pass(&self) {
        self.held.send_modify(|held| *held += 1);
        let mut open = self.open.subscribe();
        // The sender is alive: it is ours.
        _ = open.wait_for(|&open| open).await;
    }
}
