//! The task that makes durable in the background what was committed.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::timeout;

use super::{Inner, Store};
use crate::{batches::Wakes, error::Error, files::Files};

/// Flushes `pause` after something was committed, or as soon as there is much. It is half of what is promised, since a flush
/// takes its time. Ends with the store.
pub(super) async fn flush_behind(inner: Weak<Inner>, wakes: Arc<Wakes>, pause: Duration) {
    loop {
        wakes.some.notified().await;
        // Either is time to flush.
        let _: Result<(), _> = timeout(pause, wakes.many.notified()).await;
        let Some(inner) = inner.upgrade() else { return };
        let store = Store { inner };
        // What failed is in the log, is trouble, and is tried again.
        if let Err(Error::Closed) = store.write(Files::flush).await {
            return;
        }
    }
}
