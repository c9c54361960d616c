//! How long an upstream lately took to answer, as quantiles: when an attempt counts as slow enough for a hedge.
//!
//! A histogram with four buckets for each power of two (so a quantile is right within 19 %), halved now and then so that it
//! follows the present. Never waits and takes no lock.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Up to 2^32 microseconds, more than an hour.
const BUCKETS: usize = 4 * 33;
/// After this many samples all counts are halved.
const HALVED_EVERY: u32 = 4096;
/// Below this many samples nothing is known.
const LEAST: u32 = 100;

/// The times of recent attempts to their response head.
#[derive(Debug)]
pub struct Quantiles {
    buckets: [AtomicU32; BUCKETS],
    samples: AtomicU32,
}

impl Default for Quantiles {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU32::new(0)), samples: AtomicU32::new(0) }
    }
}

impl Quantiles {
    /// Takes in how long an attempt took.
    pub fn record(&self, took: Duration) {
        if let Some(bucket) = self.buckets.get(bucket(took)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        let samples = self.samples.fetch_add(1, Ordering::Relaxed);
        if samples == HALVED_EVERY {
            for bucket in &self.buckets {
                let _ = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| Some(count / 2));
            }
            self.samples.fetch_sub(HALVED_EVERY / 2, Ordering::Relaxed);
        }
    }

    /// The time within which `percent` of the recent attempts were answered, rounded up to the bucket's end. `None`
    /// while fewer than a hundred are known.
    #[must_use]
    pub fn quantile(&self, percent: u8) -> Option<Duration> {
        let counts = self.buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed));
        let total: u32 = counts.iter().sum();
        if total < LEAST {
            return None;
        }
        let rank = (u64::from(total) * u64::from(percent)).div_ceil(100);
        let mut below = 0_u64;
        let index = counts.iter().position(|count| {
            below += u64::from(*count);
            below >= rank
        })?;
        Some(end_of(index))
    }
}

/// The bucket of a time: its power of two in microseconds, and the two bits below.
fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).clamp(4, u64::from(u32::MAX));
    let power = micros.ilog2();
    let quarter = micros >> (power - 2) & 3;
    usize::try_from(u64::from(power) * 4 + quarter).unwrap_or(BUCKETS - 1).min(BUCKETS - 1)
}

/// The least time that is above a bucket.
fn end_of(index: usize) -> Duration {
    let index = u32::try_from(index + 1).unwrap_or(u32::MAX);
    let (power, quarter) = (index / 4, index % 4);
    Duration::from_micros(u64::from(4 + quarter) << power.saturating_sub(2))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_is_known_before_a_hundred_samples() {
        let quantiles = Quantiles::default();
        (0..99).for_each(|_| quantiles.record(Duration::from_millis(10)));
        assert_eq!(quantiles.quantile(95), None);
        quantiles.record(Duration::from_millis(10));
        assert!(quantiles.quantile(95).is_some());
    }

    #[test]
    fn the_present_outweighs_the_past() {
        let quantiles = Quantiles::default();
        (0..4000).for_each(|_| quantiles.record(Duration::from_millis(1)));
        (0..40_000).for_each(|_| quantiles.record(Duration::from_millis(100)));
        let median = quantiles.quantile(50).expect("known");
        assert!(median >= Duration::from_millis(100) && median < Duration::from_millis(125), "{median:?}");
    }

    proptest! {
        #[test]
        fn a_quantile_is_at_most_a_quarter_too_long(
            times in proptest::collection::vec(10_u64..10_000_000, 100..1000), percent in 50_u8..=99
        ) {
            let quantiles = Quantiles::default();
            for micros in &times {
                quantiles.record(Duration::from_micros(*micros));
            }
            let mut sorted = times.clone();
            sorted.sort_unstable();
            let rank = (sorted.len() * usize::from(percent)).div_ceil(100);
            let exact = Duration::from_micros(sorted[rank - 1]);
            let seen = quantiles.quantile(percent).expect("known");
            prop_assert!(seen > exact && seen <= exact.mul_f64(1.26), "{exact:?} {seen:?}");
        }
    }
}
