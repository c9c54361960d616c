//! How slow an endpoint was lately: a moving average that follows a peak at once and forgets it slowly.
//!
//! This is the peak-EWMA of Finagle and Linkerd. It says nothing about which endpoint to take; that is
//! [`super::selection`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::model::clock::Instant;

/// Time constant: after this long a sample has lost all but 1/e of its weight.
const DECAY_MS: f32 = 10_000.0;

/// A latency in microseconds (`f32`, high half) and when it was last set in milliseconds (wrapping, low half), in one
/// word, so that both change together.
#[derive(Debug)]
pub struct PeakEwma(AtomicU64);

/// No sample yet. As a latency this would be a NaN, which no sample produces.
const UNMEASURED: u64 = u64::MAX;

impl Default for PeakEwma {
    fn default() -> Self {
        Self(AtomicU64::new(UNMEASURED))
    }
}

impl PeakEwma {
    /// Takes in a sample that ended at `now`.
    pub fn record(&self, sample: Duration, now: Instant) {
        let sample = sample.as_secs_f32() * 1e6;
        let next = |word: u64| {
            let estimate = match unpack(word) {
                Some((estimate, set_at)) if sample < estimate => {
                    let kept = kept(set_at, now);
                    estimate * kept + sample * (1.0 - kept)
                }
                _ => sample,
            };
            Some(pack(estimate, now))
        };
        // the closure never says no
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// The estimate at `now` in microseconds. It sinks towards zero while no sample comes in, so that an endpoint that
    /// was slow once is tried again. `None` before the first sample.
    #[must_use]
    pub fn micros(&self, now: Instant) -> Option<f32> {
        unpack(self.0.load(Ordering::Relaxed)).map(|(estimate, set_at)| estimate * kept(set_at, now))
    }

    /// The estimate as it was when the last sample came in. `None` before the first one.
    #[must_use]
    pub fn last(&self) -> Option<Duration> {
        unpack(self.0.load(Ordering::Relaxed)).map(|(estimate, _)| Duration::from_secs_f32(estimate / 1e6))
    }
}

/// The share of an estimate's weight that is left at `now`.
fn kept(set_at: u32, now: Instant) -> f32 {
    let elapsed = millis(now).wrapping_sub(set_at);
    // more than half the range is a sample of another thread that is newer than this `now`
    if elapsed > u32::MAX / 2 {
        return 1.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "e^-x is 0 long before the precision of milliseconds is lost")]
    (-(elapsed as f32) / DECAY_MS).exp()
}

#[expect(clippy::cast_possible_truncation, reason = "wraps on purpose; differences are taken with wrapping_sub")]
fn millis(now: Instant) -> u32 {
    (now.as_nanos() / 1_000_000) as u32
}

fn pack(estimate: f32, now: Instant) -> u64 {
    u64::from(estimate.to_bits()) << 32 | u64::from(millis(now))
}

#[expect(clippy::cast_possible_truncation, reason = "takes the word apart")]
fn unpack(word: u64) -> Option<(f32, u32)> {
    (word != UNMEASURED).then(|| (f32::from_bits((word >> 32) as u32), word as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[track_caller]
    fn check(ewma: &PeakEwma, now: Instant, millis: f32) {
        let seen = ewma.micros(now).expect("a sample") / 1000.0;
        assert!((seen - millis).abs() < millis * 0.02 + 0.001, "{seen} ms, expected {millis} ms");
    }

    #[test]
    fn nothing_is_known_before_the_first_sample() {
        assert_eq!(PeakEwma::default().micros(at(0)), None);
        assert_eq!(PeakEwma::default().last(), None);
    }

    #[test]
    fn a_peak_counts_at_once_and_is_forgotten_slowly() {
        let ewma = PeakEwma::default();
        ewma.record(Duration::from_millis(10), at(0));
        ewma.record(Duration::from_millis(500), at(1));
        check(&ewma, at(1), 500.0);
        ewma.record(Duration::from_millis(10), at(10_001));
        check(&ewma, at(10_001), 500.0 * 0.3679 + 10.0 * 0.6321);
        assert!(ewma.last().is_some_and(|last| last > Duration::from_millis(180)));
    }

    #[test]
    fn an_idle_estimate_sinks_so_that_it_is_tried_again() {
        let ewma = PeakEwma::default();
        ewma.record(Duration::from_secs(1), at(0));
        check(&ewma, at(10_000), 367.9);
        check(&ewma, at(100_000), 0.045);
    }

    #[test]
    fn a_clock_read_a_moment_earlier_changes_nothing() {
        let ewma = PeakEwma::default();
        ewma.record(Duration::from_millis(100), at(1000));
        check(&ewma, at(990), 100.0);
    }

    #[test]
    fn the_wrap_of_the_time_stamp_goes_unnoticed() {
        let wrap = 1_u64 << 32;
        let ewma = PeakEwma::default();
        ewma.record(Duration::from_millis(100), at(wrap - 5000));
        check(&ewma, at(wrap + 5000), 36.79);
    }

    #[test]
    fn the_longest_sample_is_still_a_number() {
        let ewma = PeakEwma::default();
        ewma.record(Duration::MAX, at(0));
        assert!(ewma.micros(at(0)).is_some_and(f32::is_finite));
    }
}
