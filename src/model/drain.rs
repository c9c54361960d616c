//! The word by which a connection learns that it should end: finish what runs, take no further request.
//!
//! Edge holds the [`Drain`], everything that serves connections holds [`DrainWatch`]es. Level-triggered: who looks late
//! still sees it. It never goes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

#[derive(Debug, Default)]
struct State {
    begun: AtomicBool,
    told: Notify,
}

/// The side that decides. Dropping it begins nothing.
#[derive(Debug, Default)]
pub struct Drain(Arc<State>);

impl Drain {
    /// Tells every watch, now and later ones.
    pub fn begin(&self) {
        self.0.begun.store(true, Ordering::Release);
        self.0.told.notify_waiters();
    }

    /// A watch on this side.
    #[must_use]
    pub fn watch(&self) -> DrainWatch {
        DrainWatch(Arc::clone(&self.0))
    }
}

/// The side that obeys. Cloning is cheap; [`DrainWatch::is_draining`] is one atomic load.
#[derive(Debug, Clone)]
pub struct DrainWatch(Arc<State>);

impl DrainWatch {
    /// Whether the connection should end after what it is doing now.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.begun.load(Ordering::Acquire)
    }

    /// Returns when it should; at once when that is already so. Safe to drop and to ask again.
    pub async fn draining(&self) {
        // registered before the look, so that a `begin` in between is not missed
        let told = self.0.told.notified();
        if !self.is_draining() {
            told.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn early_and_late_watchers_are_told() {
        let drain = Drain::default();
        let early = drain.watch();
        assert!(!early.is_draining());
        let mut waiting = tokio_test::task::spawn(early.draining());
        assert!(waiting.poll().is_pending());
        drain.begin();
        assert!(waiting.poll().is_ready());
        drain.watch().draining().await;
        assert!(early.is_draining());
    }
}
