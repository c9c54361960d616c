//! The generic cell rate algorithm: a bucket as one instant, the one at which it will have refilled.
//!
//! A bucket that refills at `now` or earlier is full; each unit that is taken moves the instant by one interval, and a
//! request fits while the instant stays within a burst's worth of intervals from now. Nothing has to run for a bucket to
//! refill, and a bucket that has refilled need not be remembered. (ITU-T I.371, as the virtual scheduling algorithm.)

use std::time::Duration;

use crate::model::clock::Instant;
use crate::model::units::Rate;

/// A bucket that post-paid costs have overdrawn owes at most this many bursts.
const MAX_DEBT: u64 = 10;

/// A rate and a burst, as nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quota {
    /// In which one unit refills, rounded up: never more than the rate.
    interval: u64,
    burst: u32,
}

impl Quota {
    /// The longest time in which a bucket may refill.
    pub(super) const LONGEST: Duration = Duration::from_hours(366 * 24);

    /// `None` when an empty bucket would take longer than [`Self::LONGEST`] to refill.
    pub(super) fn new(rate: Rate, burst: u32) -> Option<Self> {
        let interval = u64::try_from(rate.per().as_nanos().div_ceil(u128::from(rate.amount()))).ok()?;
        let quota = Self { interval, burst };
        (burst > 0 && quota.window() <= Self::LONGEST).then_some(quota)
    }

    pub(super) const fn burst(self) -> u32 {
        self.burst
    }

    /// In which an empty bucket refills.
    pub(super) const fn window(self) -> Duration {
        Duration::from_nanos(self.tolerance())
    }

    const fn tolerance(self) -> u64 {
        self.span(self.burst as u64)
    }

    const fn span(self, units: u64) -> u64 {
        self.interval.saturating_mul(units)
    }

    /// The bucket after `cost` units were taken, or the time until they could be.
    pub(super) fn take(self, bucket: Instant, now: Instant, cost: u64) -> Result<Instant, Duration> {
        let after = bucket.max(now).after(Duration::from_nanos(self.span(cost)));
        match after.since(now).checked_sub(self.window()) {
            None | Some(Duration::ZERO) => Ok(after),
            Some(wait) => Err(wait),
        }
    }

    /// As [`Self::take`], of a share of the limit: of the buckets of `nodes` gateways together. A gateway whose share would
    /// be less than the request still lets it through when the bucket is full.
    pub(super) fn take_share(self, bucket: Instant, now: Instant, cost: u64, nodes: u32) -> Result<Instant, Duration> {
        let cost = cost.saturating_mul(u64::from(nodes));
        match self.take(bucket, now, cost) {
            Err(_) if bucket <= now => Ok(now.after(Duration::from_nanos(self.span(cost)))),
            taken => taken,
        }
    }

    /// The time in which `units` refill.
    pub(super) fn time_for(self, units: i64) -> i64 {
        i64::try_from(self.interval).unwrap_or(i64::MAX).saturating_mul(units)
    }

    /// How long an overdrawn bucket takes to refill, at most.
    pub(super) const fn longest_debt(self) -> Duration {
        Duration::from_nanos(self.tolerance().saturating_mul(1 + MAX_DEBT))
    }

    /// The bucket after `units` were taken whether it has them or not.
    pub(super) fn overdraw(self, bucket: Instant, now: Instant, units: u64) -> Instant {
        let after = bucket.max(now).after(Duration::from_nanos(self.span(units)));
        let deepest = now.after(self.longest_debt());
        after.min(deepest.max(bucket))
    }

    /// The bucket with `units` put back that were taken while it has not refilled since.
    pub(super) const fn put_back(self, bucket: Instant, units: u64) -> Instant {
        Instant::from_nanos(bucket.as_nanos().saturating_sub(self.span(units)))
    }

    /// Whole units that are left.
    pub(super) fn left(self, bucket: Instant, now: Instant) -> u64 {
        let backlog = u64::try_from(bucket.since(now).as_nanos()).unwrap_or(u64::MAX);
        self.tolerance().saturating_sub(backlog) / self.interval.max(1)
    }

    /// The time until one more whole unit is left; the whole window for a bucket that has all of them.
    pub(super) fn until_more(self, bucket: Instant, now: Instant) -> Duration {
        let next = self.left(bucket, now).saturating_add(1);
        if next > u64::from(self.burst) {
            return self.window();
        }
        let allowed = Duration::from_nanos(self.tolerance() - self.span(next));
        bucket.since(now).saturating_sub(allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(rate: &str, burst: u32) -> Quota {
        Quota::new(rate.parse().expect("a rate"), burst).expect("short enough")
    }

    const fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_the_rate() {
        let quota = quota("10/s", 3);
        let mut bucket = Instant::default();
        for left in [2, 1, 0] {
            bucket = quota.take(bucket, at(1_000), 1).expect("it fits");
            assert_eq!(quota.left(bucket, at(1_000)), left);
        }
        assert_eq!(quota.take(bucket, at(1_000), 1), Err(Duration::from_millis(100)));
        assert_eq!(quota.take(bucket, at(1_040), 2), Err(Duration::from_millis(160)));
        assert_eq!(quota.until_more(bucket, at(1_040)), Duration::from_millis(60));
        bucket = quota.take(bucket, at(1_100), 1).expect("one has refilled");
        assert!(quota.take(bucket, at(1_199), 1).is_err());
        assert_eq!(quota.left(bucket, at(1_400)), 3, "it is full");
        assert_eq!(quota.until_more(bucket, at(1_400)), Duration::from_millis(300));
        assert_eq!(quota.left(bucket, at(9_000)), 3, "and never more than that");
    }

    #[test]
    fn a_rate_that_divides_badly_is_rounded_towards_less() {
        let quota = quota("3/s", 1);
        let bucket = quota.take(Instant::default(), at(0), 1).expect("it fits");
        assert_eq!(quota.take(bucket, Instant::from_nanos(333_333_333), 1), Err(Duration::from_nanos(1)));
    }

    #[test]
    fn a_debt_is_bounded() {
        let quota = quota("10/s", 3);
        let bucket = quota.overdraw(Instant::default(), at(0), 5);
        assert_eq!(bucket, at(500));
        assert_eq!((quota.left(bucket, at(0)), quota.left(bucket, at(300))), (0, 1));
        assert_eq!(quota.overdraw(bucket, at(0), u64::MAX), at(3_300));
    }

    #[test]
    fn too_slow_a_limit_is_none() {
        let yearly: Rate = "1/365d".parse().expect("a rate");
        assert!(Quota::new(yearly, 1).is_some());
        assert!(Quota::new(yearly, 2).is_none());
        assert!(Quota::new("1/s".parse().expect("a rate"), 0).is_none());
    }
}
