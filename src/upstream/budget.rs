//! How many retries an upstream may get: a share of the requests it got lately, and a floor.
//!
//! Retries are what turns a slow upstream into a dead one, so they are bounded where they arrive: all routes to an
//! upstream draw on one budget. A retry counts from the moment it is decided, so those that wait out a backoff count
//! as well. Counts only; which share and floor hold is the route's to say.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::model::clock::Instant;

/// Time that counts as lately.
pub const WINDOW: Duration = Duration::from_secs(10);
/// Ticks of the window, and one that is being overwritten.
const SLOTS: usize = 11;
const TICK_NANOS: u64 = 1_000_000_000;

/// What was asked of an upstream lately. Never waits and takes no lock.
#[derive(Debug, Default)]
pub struct RetryBudget {
    requests: Recent,
    retries: Recent,
}

/// The bounds that a route sets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Allowance {
    /// Retries per request, 0 to 1.
    pub share: f64,
    /// Retries per second that are always allowed.
    pub floor: u32,
}

impl RetryBudget {
    /// A request has come; its own attempts beyond the first are retries.
    pub fn request(&self, now: Instant) {
        self.requests.add(now);
    }

    /// Takes a retry (or a hedge) out of the budget; `false` when it is spent.
    #[must_use]
    pub fn withdraw(&self, allowance: Allowance, now: Instant) -> bool {
        // Counted first and taken back when it was too much: two at once may both be refused, but never both pass.
        let retries = self.retries.add(now);
        if f64::from(retries) <= self.allowed(allowance, now) {
            return true;
        }
        self.retries.take_back(now);
        false
    }

    /// Retries of the last [`WINDOW`] and how many `allowance` would allow.
    #[must_use]
    pub fn spent(&self, allowance: Allowance, now: Instant) -> (u32, f64) {
        (self.retries.sum(now), self.allowed(allowance, now))
    }

    fn allowed(&self, allowance: Allowance, now: Instant) -> f64 {
        let floor = f64::from(allowance.floor) * WINDOW.as_secs_f64();
        f64::from(self.requests.sum(now)) * allowance.share + floor
    }
}

/// A count over the last [`WINDOW`], in ticks of a second. Each slot is the tick (high half) and its count (low half)
/// in one word, so that both change together.
#[derive(Debug, Default)]
struct Recent([AtomicU64; SLOTS]);

impl Recent {
    /// Adds one; what the sum is then.
    fn add(&self, now: Instant) -> u32 {
        let tick = tick(now);
        if let Some(slot) = self.slot(tick) {
            // The closure never says no.
            let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                Some(if tick_of(word) == tick { word + 1 } else { u64::from(tick) << 32 | 1 })
            });
        }
        self.sum(now)
    }

    fn take_back(&self, now: Instant) {
        let tick = tick(now);
        if let Some(slot) = self.slot(tick) {
            let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                (tick_of(word) == tick && count_of(word) > 0).then(|| word - 1)
            });
        }
    }

    fn sum(&self, now: Instant) -> u32 {
        let tick = tick(now);
        let ticks = u32::try_from(WINDOW.as_secs()).unwrap_or(u32::MAX);
        let recent = |word: &u64| tick.wrapping_sub(tick_of(*word)) < ticks;
        self.0.iter().map(|slot| slot.load(Ordering::Relaxed)).filter(recent).map(count_of).sum()
    }

    fn slot(&self, tick: u32) -> Option<&AtomicU64> {
        self.0.get(usize::try_from(tick).unwrap_or(0) % SLOTS)
    }
}

/// Seconds of the clock, from 1 on: an empty slot says 0 and belongs to no tick.
fn tick(now: Instant) -> u32 {
    u32::try_from(now.as_nanos() / TICK_NANOS + u64::from(FIRST_TICK)).unwrap_or(u32::MAX)
}

/// Later than the window, so that empty slots lie before it.
const FIRST_TICK: u32 = 16;

const fn tick_of(word: u64) -> u32 {
    (word >> 32) as u32
}

#[expect(clippy::cast_possible_truncation, reason = "takes the word apart")]
const fn count_of(word: u64) -> u32 {
    word as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TENTH: Allowance = Allowance { share: 0.1, floor: 0 };

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn granted(budget: &RetryBudget, allowance: Allowance, asked: usize, now: Instant) -> usize {
        (0..asked).filter(|_| budget.withdraw(allowance, now)).count()
    }

    #[test]
    fn retries_are_a_share_of_recent_requests() {
        let budget = RetryBudget::default();
        (0..50).for_each(|_| budget.request(at(100)));
        assert_eq!(granted(&budget, TENTH, 20, at(200)), 5);
        assert_eq!(granted(&budget, TENTH, 20, at(9_000)), 0, "the window remembers");
        (0..20).for_each(|_| budget.request(at(9_500)));
        assert_eq!(granted(&budget, TENTH, 20, at(9_900)), 2);
        assert_eq!(granted(&budget, TENTH, 20, at(19_000)), 0, "its requests are of another window, its retries not");
    }

    #[test]
    fn the_floor_needs_no_requests() {
        let budget = RetryBudget::default();
        let floor = Allowance { share: 0.0, floor: 3 };
        assert_eq!(granted(&budget, floor, 100, at(0)), 30);
        assert_eq!(granted(&budget, floor, 100, at(9_999)), 0);
        assert_eq!(granted(&budget, floor, 100, at(10_000)), 30);
    }

    #[test]
    fn threads_never_overdraw() {
        let budget = RetryBudget::default();
        (0..1000).for_each(|_| budget.request(at(0)));
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| granted(&budget, TENTH, 500, at(1)))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert!((1..=100).contains(&taken), "{taken}");
    }

    proptest! {
        /// Whatever the pattern: in every window, retries stay within the share of the requests of that window's reach.
        #[test]
        fn no_window_is_overdrawn(steps in proptest::collection::vec((0_u64..3_000, any::<bool>()), 1..400)) {
            let allowance = Allowance { share: 0.2, floor: 1 };
            let budget = RetryBudget::default();
            let mut now = 0;
            let (mut requests, mut retries) = (Vec::new(), Vec::new());
            for (wait, retry) in steps {
                now += wait;
                if !retry {
                    budget.request(at(now));
                    requests.push(now);
                } else if budget.withdraw(allowance, at(now)) {
                    retries.push(now);
                    let since = now.saturating_sub(10_000);
                    let count = |times: usize| f64::from(u32::try_from(times).expect("few"));
                    let within = |times: &[u64]| count(times.iter().filter(|time| **time > since).count());
                    // Ticks are seconds: a window reaches at most 10 s back, and at least 9.
                    let most = within(&requests) * 0.2 + 10.0;
                    let recent = retries.iter().filter(|time| now / 1000 - **time / 1000 < 10).count();
                    prop_assert!(count(recent) <= most + 1e-9, "{recent} > {most}");
                }
            }
        }
    }
}
