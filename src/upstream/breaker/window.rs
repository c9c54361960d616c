//! Counts calls over the last while: a ring of ten buckets, each a tenth of the window.

use std::time::Duration;

use crate::model::clock::Instant;

const BUCKETS: usize = 10;

/// How many calls there were in a stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// All of them.
    pub calls: u64,
    /// Those that failed.
    pub failures: u64,
    /// Those that were slow, failed or not.
    pub slow: u64,
}

/// The calls of the last while.
#[derive(Debug)]
pub(super) struct Window {
    /// Nanoseconds of a bucket, at least 1.
    width: u64,
    /// Each with the number of its stretch, counted from the clock's start.
    buckets: [(u64, Counts); BUCKETS],
}

impl Window {
    pub(super) fn new(length: Duration) -> Self {
        let width = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX) / BUCKETS as u64;
        Self { width: width.max(1), buckets: Default::default() }
    }

    pub(super) fn clear(&mut self) {
        self.buckets = Default::default();
    }

    /// Counts a call and returns what the window holds.
    pub(super) fn record(&mut self, now: Instant, failed: bool, slow: bool) -> Counts {
        let stretch = now.as_nanos() / self.width;
        let place = usize::try_from(stretch % BUCKETS as u64).unwrap_or_default();
        if let Some((of, bucket)) = self.buckets.get_mut(place) {
            if *of < stretch {
                (*of, *bucket) = (stretch, Counts::default());
            }
            // a `now` that another thread read a whole window ago is told by nobody any more
            if *of == stretch {
                bucket.calls += 1;
                bucket.failures += u64::from(failed);
                bucket.slow += u64::from(slow);
            }
        }
        self.sum(now)
    }

    /// What the window holds at `now`.
    pub(super) fn sum(&self, now: Instant) -> Counts {
        let stretch = now.as_nanos() / self.width;
        let mut sum = Counts::default();
        for (_, counts) in self.buckets.iter().filter(|(of, _)| stretch.saturating_sub(*of) < BUCKETS as u64) {
            sum.calls += counts.calls;
            sum.failures += counts.failures;
            sum.slow += counts.slow;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn counts(calls: u64, failures: u64, slow: u64) -> Counts {
        Counts { calls, failures, slow }
    }

    #[test]
    fn a_call_leaves_the_window_when_its_bucket_does() {
        let mut window = Window::new(Duration::from_secs(1));
        assert_eq!(window.record(at(5), true, false), counts(1, 1, 0));
        assert_eq!(window.record(at(950), false, true), counts(2, 1, 1));
        assert_eq!(window.sum(at(999)), counts(2, 1, 1));
        assert_eq!(window.sum(at(1000)), counts(1, 0, 1));
        assert_eq!(window.record(at(1001), false, false), counts(2, 0, 1));
        assert_eq!(window.sum(at(60_000)), counts(0, 0, 0));
    }

    #[test]
    fn a_clock_read_a_moment_earlier_still_counts() {
        let mut window = Window::new(Duration::from_secs(1));
        window.record(at(2000), false, false);
        assert_eq!(window.record(at(1999), true, false), counts(2, 1, 0));
        // a whole window late: its bucket has been given to another stretch
        assert_eq!(window.record(at(1000), true, false), counts(2, 1, 0));
    }

    #[test]
    fn the_ends_of_the_clock_are_survived() {
        let mut window = Window::new(Duration::ZERO);
        assert_eq!(window.record(Instant::from_nanos(u64::MAX), true, true), counts(1, 1, 1));
        let mut window = Window::new(Duration::MAX);
        assert_eq!(window.record(Instant::from_nanos(u64::MAX), true, true), counts(1, 1, 1));
        window.clear();
        assert_eq!(window.sum(at(0)), counts(0, 0, 0));
    }
}
