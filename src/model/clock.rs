//! Time as the decisions see it: an instant that somebody hands them.
//!
//! [`Clock`] is an enum and not a trait, so that a decision costs no dynamic call in production and a test turns the
//! hands itself. This is the one place of the pure modules that reads the system's monotonic clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A point on the gateway's monotonic clock, in nanoseconds since an arbitrary start. Ordered; never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The instant `nanos` nanoseconds after the clock's start.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this instant; zero when `earlier` is the later one.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This instant moved by `by` into the future; stops at the end of the clock (584 years) instead of wrapping.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// One reading of both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// For what lasts.
    pub monotonic: Instant,
    /// For what was dated by others: the time since the Unix epoch.
    pub unix: Duration,
}

/// Where "now" comes from.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The system's monotonic clock, counted from the moment this value was made.
    Monotonic(std::time::Instant),
    /// A clock that stands still until [`Clock::advance`] turns it: tests, `explain` and simulation.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The system's monotonic clock.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place where the pure modules meet the system's clock")]
    pub fn monotonic() -> Self {
        Self::Monotonic(std::time::Instant::now())
    }

    /// A manual clock that shows zero.
    #[must_use]
    pub fn manual() -> Self {
        Self::Manual(Arc::new(AtomicU64::new(0)))
    }

    /// The current instant.
    #[must_use]
    pub fn now(&self) -> Instant {
        match self {
            Self::Monotonic(start) => Instant(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)),
            Self::Manual(nanos) => Instant(nanos.load(Ordering::Acquire)),
        }
    }

    /// Turns a manual clock forward; the monotonic one takes no orders.
    pub fn advance(&self, by: Duration) {
        if let Self::Manual(nanos) = self {
            nanos.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_turned() {
        let clock = Clock::manual();
        let start = clock.now();
        assert_eq!(clock.now(), start);
        clock.advance(Duration::from_millis(250));
        assert_eq!(clock.now().since(start), Duration::from_millis(250));
    }

    #[test]
    fn instants_saturate_at_both_ends() {
        let early = Instant::from_nanos(5);
        assert_eq!(early.since(Instant::from_nanos(9)), Duration::ZERO);
        assert_eq!(early.after(Duration::MAX), Instant::from_nanos(u64::MAX));
    }
}
