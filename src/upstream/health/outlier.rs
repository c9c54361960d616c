//! Passive ejection: endpoints whose real answers fail are left out for a while.
//!
//! What counts as a failure is said once, in `endpoint`: no response head, or 502, 503 or 504. What the client did, and
//! every other status, never counts. The share of ejected endpoints is judged under one lock, which is taken when a
//! threshold has been reached and once per window, and never for a success.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::super::endpoint::Endpoint;
use super::{Health, moment, stamp};
use crate::model::clock::Instant;
use crate::model::units::Percent;

/// `outlier`, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlier {
    /// Failures in a row that eject; at least 1.
    pub consecutive_failures: u32,
    /// How long the first ejection lasts; each further one as much longer.
    pub eject_for: Duration,
    /// The longest ejection.
    pub max_eject_for: Duration,
    /// At most this share of the endpoints is ejected at the same time, rounded down.
    pub max_ejected: Percent,
    /// `success_rate`.
    pub success_rate: Option<SuccessRate>,
}

/// `outlier.success_rate`, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuccessRate {
    /// How far below its peers' an endpoint's share of successes may be.
    pub margin: Percent,
    /// Attempts in a window without which an endpoint is neither judged nor a peer.
    pub min_requests: u64,
    /// Endpoints with enough attempts without which nobody is judged.
    pub min_endpoints: usize,
    /// How long attempts are counted.
    pub window: Duration,
}

/// Why an endpoint was ejected: a closed set of labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EjectionReason {
    /// `consecutive_failures`.
    ConsecutiveFailures,
    /// `success_rate`.
    SuccessRate,
}

impl EjectionReason {
    /// Every reason.
    pub const ALL: [Self; 2] = [Self::ConsecutiveFailures, Self::SuccessRate];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::SuccessRate => "success_rate",
        }
    }

    pub(super) fn of(number: u8) -> Self {
        if number == Self::SuccessRate as u8 { Self::SuccessRate } else { Self::ConsecutiveFailures }
    }
}

/// Sees to it that ejections of one upstream are decided one after the other, and counts them. Lives as long as the
/// upstream has its name.
#[derive(Debug, Default)]
pub(in super::super) struct Referee {
    turn: Mutex<()>,
    /// The end of the current window of `success_rate`.
    window_ends: AtomicU64,
    by_reason: [AtomicU64; EjectionReason::ALL.len()],
}

impl Referee {
    /// Ejections so far, in the order of [`EjectionReason::ALL`].
    pub(in super::super) fn ejections(&self) -> [u64; EjectionReason::ALL.len()] {
        std::array::from_fn(|index| self.by_reason.get(index).map_or(0, |count| count.load(Ordering::Relaxed)))
    }
}

impl Outlier {
    /// Takes in how an attempt at `endpoint`, one of `peers`, ended; true when somebody was ejected.
    pub(in super::super) fn judged(
        &self,
        peers: &[Arc<Endpoint>],
        referee: &Referee,
        endpoint: &Endpoint,
        failed: bool,
        now: Instant,
    ) -> bool {
        let health = &endpoint.health;
        let mut ejected = false;
        if failed {
            let in_a_row = health.failures_in_a_row.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            if in_a_row >= self.consecutive_failures {
                let _turn = referee.turn.lock();
                ejected = self.eject(peers, referee, health, EjectionReason::ConsecutiveFailures, now);
            }
        } else if health.failures_in_a_row.load(Ordering::Relaxed) != 0 {
            health.failures_in_a_row.store(0, Ordering::Relaxed);
        }
        if let Some(rate) = &self.success_rate {
            health.all.fetch_add(1, Ordering::Relaxed);
            health.good.fetch_add(u64::from(!failed), Ordering::Relaxed);
            if stamp(now) >= referee.window_ends.load(Ordering::Relaxed) {
                ejected |= self.compare(rate, peers, referee, now);
            }
        }
        ejected
    }

    /// Compares the endpoints when a window is over, and begins the next.
    fn compare(&self, rate: &SuccessRate, peers: &[Arc<Endpoint>], referee: &Referee, now: Instant) -> bool {
        let _turn = referee.turn.lock();
        if stamp(now) < referee.window_ends.load(Ordering::Relaxed) {
            return false;
        }
        referee.window_ends.store(stamp(now.after(rate.window)), Ordering::Relaxed);
        let mut judged: SmallVec<[(u64, u64, &Health); 16]> = SmallVec::new();
        for peer in peers {
            let (good, all) = (peer.health.good.swap(0, Ordering::Relaxed), peer.health.all.swap(0, Ordering::Relaxed));
            if all >= rate.min_requests.max(1) {
                // counted by other threads meanwhile, the two may differ by the last few
                judged.push((good.min(all), all, &peer.health));
            }
        }
        if judged.len() < rate.min_endpoints.max(2) {
            return false;
        }
        // the worst first: there may not be room for all
        judged.sort_by(|(good, all, _), (other_good, other_all, _)| {
            (u128::from(*good) * u128::from(*other_all)).cmp(&(u128::from(*other_good) * u128::from(*all)))
        });
        let (all_good, all_all) =
            judged.iter().fold((0_u64, 0_u64), |(good, all), (own_good, own_all, _)| (good + own_good, all + own_all));
        let mut ejected = false;
        for (good, all, health) in judged {
            if share(all_good - good, all_all - all) - share(good, all) > rate.margin.ratio() {
                ejected |= self.eject(peers, referee, health, EjectionReason::SuccessRate, now);
            }
        }
        ejected
    }

    /// Ejects, unless too many are; the caller holds the referee's turn.
    fn eject(
        &self,
        peers: &[Arc<Endpoint>],
        referee: &Referee,
        health: &Health,
        reason: EjectionReason,
        now: Instant,
    ) -> bool {
        if health.is_ejected(now) || !peers.iter().any(|peer| std::ptr::eq(Arc::as_ptr(&peer.health), health)) {
            return false;
        }
        // One that returns is on probation: its first failure ejects it again, a good answer clears it. One for which
        // there is no room is looked at again after as many failures.
        let ejected = peers.iter().filter(|peer| peer.health.is_ejected(now)).count();
        if !self.has_room(ejected, peers.len()) {
            health.failures_in_a_row.store(0, Ordering::Relaxed);
            return false;
        }
        health.failures_in_a_row.store(self.consecutive_failures.saturating_sub(1), Ordering::Relaxed);
        let ended = moment(health.ejected_until.load(Ordering::Relaxed));
        let rested = ended.map_or(Duration::ZERO, |ended| now.since(ended));
        let forgiven = rested.as_nanos() / self.eject_for.as_nanos().max(1);
        let before = health.ejections.load(Ordering::Relaxed);
        let times = before.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX)).saturating_add(1);
        health.ejections.store(times, Ordering::Relaxed);
        health.ejected_for.store(reason as u8, Ordering::Relaxed);
        let lasts = self.eject_for.saturating_mul(times).min(self.max_eject_for);
        health.ejected_until.store(stamp(now.after(lasts)), Ordering::Relaxed);
        if let Some(count) = referee.by_reason.get(reason as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    /// Whether one more of `endpoints` may be ejected beside those that are.
    pub(super) fn has_room(&self, ejected: usize, endpoints: usize) -> bool {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        self.max_ejected.covers(count(ejected).saturating_add(1), count(endpoints))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share of attempts needs no last digit")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}
