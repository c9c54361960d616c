//! The cells that the request path writes: relaxed atomic adds, no lock, no lookup, no allocation.
//!
//! They are not the cells of the `prometheus` crate, because those cost more per observation (its histogram does four
//! ordered updates, one of them a loop), hash label values without a separator, and let a held handle bring a removed
//! series back. Only the exposition goes through that crate.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `by`.
    pub fn add(&self, by: u64) {
        if by > 0 {
            self.0.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// The current value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds one.
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one away.
    pub fn dec(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Replaces the value.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The current value.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One counter for each value of a closed set.
#[derive(Debug)]
pub(super) struct Counters<const N: usize>([Counter; N]);

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl<const N: usize> Counters<N> {
    /// Adds one to the counter of that index; an index outside of the set counts nothing.
    pub(super) fn inc(&self, index: usize) {
        if let Some(counter) = self.0.get(index) {
            counter.inc();
        }
    }

    /// The values in the order of the set.
    pub(super) fn values(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().map(Counter::get)
    }
}

/// Upper bounds of the duration buckets, in microseconds: from a quarter of a millisecond, where a gateway in front of
/// a fast upstream lives, to the minute after which nobody waits.
const BOUNDS_MICROS: [u64; 17] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000, 60_000_000,
];

/// How long things took, in fixed buckets.
#[derive(Debug, Default)]
pub struct Durations {
    /// One per bound and one for everything longer; not cumulative.
    buckets: Counters<{ BOUNDS_MICROS.len() + 1 }>,
    /// Microseconds: in nanoseconds, ten thousand long connections would wrap the sum within a month.
    sum_micros: Counter,
}

/// What a [`Durations`] held at one moment.
#[derive(Debug, PartialEq)]
pub(super) struct DurationsRead {
    /// Upper bound in seconds and how many took at most that long.
    pub(super) buckets: Vec<(f64, u64)>,
    /// How many there were.
    pub(super) count: u64,
    /// How long they took together, in seconds.
    pub(super) sum: f64,
}

impl Durations {
    /// Counts one duration. A duration on a bound belongs to that bound's bucket.
    pub fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets.inc(BOUNDS_MICROS.partition_point(|bound| *bound * 1_000 < nanos));
        self.sum_micros.add(nanos.saturating_add(500) / 1_000);
    }

    /// The state for the exposition. The count is the sum of the buckets, so that they always agree.
    #[expect(clippy::cast_precision_loss, reason = "the exposition format has only floating point numbers")]
    pub(super) fn read(&self) -> DurationsRead {
        let mut count = 0;
        let mut buckets = Vec::with_capacity(BOUNDS_MICROS.len());
        let mut values = self.buckets.values();
        for (bound, value) in BOUNDS_MICROS.iter().zip(values.by_ref()) {
            count += value;
            buckets.push((*bound as f64 / 1e6, count));
        }
        count += values.sum::<u64>();
        DurationsRead { buckets, count, sum: self.sum_micros.get() as f64 / 1e6 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_on_a_bound_belongs_to_it() {
        let durations = Durations::default();
        durations.observe(Duration::from_micros(250));
        durations.observe(Duration::from_nanos(250_001));
        durations.observe(Duration::from_secs(61));
        let read = durations.read();
        assert_eq!(read.buckets[0], (0.00025, 1));
        assert_eq!(read.buckets[1], (0.0005, 2));
        assert_eq!(read.buckets[16], (60.0, 2));
        assert_eq!(read.count, 3);
        assert!((read.sum - 61.0005).abs() < 1e-9, "{}", read.sum);
    }

    #[test]
    fn an_index_outside_of_the_set_counts_nothing() {
        let counters = Counters::<2>::default();
        counters.inc(1);
        counters.inc(2);
        assert_eq!(counters.values().collect::<Vec<_>>(), [0, 1]);
    }
}
