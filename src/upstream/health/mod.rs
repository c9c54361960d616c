//! Whether an endpoint gets requests: what checks, its own answers and the operator say of it.
//!
//! Three judges, each for itself: active checks (`check`), the ends of real attempts (`outlier`), and drain by the admin
//! API. `selection` asks here and nowhere else. The state is atomics, so that a choice never waits; a lock is taken only
//! where a verdict is written down, which is per check and per ejection, never per request. Nothing here opens a
//! connection or reads a clock: `control::probes` makes the checks and says how they ended.

mod check;
mod config;
mod outlier;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

pub use self::check::{Check, Kind, LastCheck};
pub(super) use self::config::compile;
pub use self::config::{HealthCheckConfig, OutlierConfig, SuccessRateConfig};
pub(super) use self::outlier::Referee;
pub use self::outlier::{EjectionReason, Outlier, SuccessRate};
use crate::model::clock::Instant;
use crate::model::source::Origin;
use crate::model::units::Percent;

/// How an upstream's endpoints are kept healthy, compiled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// `health_check`.
    pub check: Option<Check>,
    /// `outlier`.
    pub outlier: Option<Outlier>,
    /// `slow_start`.
    pub slow_start: Option<Duration>,
    /// `panic_threshold`; zero never panics.
    pub panic_threshold: Percent,
}

/// Where each of the settings is written; `None` where it is not.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    /// `health_check`.
    pub check: Option<Origin>,
    /// `outlier`.
    pub outlier: Option<Origin>,
    /// `slow_start`.
    pub slow_start: Option<Origin>,
    /// `panic_threshold`.
    pub panic_threshold: Option<Origin>,
}

/// What an endpoint is just now: a label in metrics, logs and the admin API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It gets requests. So does one that has never been checked.
    Healthy,
    /// Its checks fail.
    Unhealthy,
    /// Its answers failed, and its time out is not over.
    Ejected,
    /// The operator has taken it out.
    Drained,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Healthy, Self::Unhealthy, Self::Ejected, Self::Drained];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Ejected => "ejected",
            Self::Drained => "drained",
        }
    }
}

/// The whole share of an endpoint: one that does not start slowly.
pub(super) const WHOLE: u64 = 1024;
/// The share that a slow start begins with: a tenth, so that there is something to warm up with.
const FIRST_SHARE: u64 = WHOLE / 10;
/// Stands for the moment of the first choice, which is not known yet.
const AT_FIRST_CHOICE: u64 = u64::MAX;

/// What is known of one endpoint's health. Moments are nanoseconds plus one; 0 is never.
#[derive(Debug, Default)]
pub struct Health {
    unhealthy: AtomicBool,
    /// The end of the latest ejection; past when it is over.
    ejected_until: AtomicU64,
    /// When the latest slow start began, but for one after an ejection.
    warm_since: AtomicU64,
    /// Failed attempts since the last good one.
    failures_in_a_row: AtomicU32,
    /// Ejections that have not been forgiven.
    ejections: AtomicU32,
    ejected_for: AtomicU8,
    /// Good and all attempts in the current window of `success_rate`.
    good: AtomicU64,
    all: AtomicU64,
    checked: Mutex<check::Checked>,
}

impl Health {
    /// That of an endpoint which joins others that serve already: it starts slowly.
    pub(super) fn joining() -> Self {
        Self { warm_since: AtomicU64::new(AT_FIRST_CHOICE), ..Self::default() }
    }

    /// What stays known under other settings: of each judge, if its own settings stayed.
    pub(super) fn carried(&self, check: bool, outlier: bool) -> Self {
        let carried = Self::default();
        carried.warm_since.store(self.warm_since.load(Ordering::Relaxed), Ordering::Relaxed);
        if check {
            carried.unhealthy.store(self.unhealthy.load(Ordering::Relaxed), Ordering::Relaxed);
            *carried.checked.lock() = self.checked.lock().clone();
        }
        if outlier {
            let copy = |to: &AtomicU64, from: &AtomicU64| to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
            copy(&carried.ejected_until, &self.ejected_until);
            copy(&carried.good, &self.good);
            copy(&carried.all, &self.all);
            carried.failures_in_a_row.store(self.failures_in_a_row.load(Ordering::Relaxed), Ordering::Relaxed);
            carried.ejections.store(self.ejections.load(Ordering::Relaxed), Ordering::Relaxed);
            carried.ejected_for.store(self.ejected_for.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        carried
    }

    /// What the endpoint is at `now`; the operator's word counts before a check's, and that before an ejection.
    pub(super) fn state(&self, drained: bool, now: Instant) -> State {
        if drained {
            State::Drained
        } else if self.unhealthy.load(Ordering::Relaxed) {
            State::Unhealthy
        } else if self.is_ejected(now) {
            State::Ejected
        } else {
            State::Healthy
        }
    }

    fn is_ejected(&self, now: Instant) -> bool {
        moment(self.ejected_until.load(Ordering::Relaxed)).is_some_and(|until| now < until)
    }

    /// The end of the ejection under way.
    #[must_use]
    pub fn ejected_until(&self, now: Instant) -> Option<Instant> {
        moment(self.ejected_until.load(Ordering::Relaxed)).filter(|until| now < *until)
    }

    /// Why the latest ejection was.
    #[must_use]
    pub fn ejected_for(&self) -> EjectionReason {
        EjectionReason::of(self.ejected_for.load(Ordering::Relaxed))
    }

    /// The latest check; `None` before the first.
    #[must_use]
    pub fn last_check(&self) -> Option<LastCheck> {
        self.checked.lock().last.clone()
    }

    /// A slow start begins: the endpoint gets requests again.
    pub(super) fn warm(&self, now: Instant) {
        self.warm_since.store(stamp(now), Ordering::Relaxed);
    }

    /// What part of its weight an endpoint that gets requests counts with, of [`WHOLE`]: a tenth at first, then growing
    /// evenly until `slow_start` is over.
    pub(super) fn share(&self, now: Instant, slow_start: Duration) -> u64 {
        let mut since = self.warm_since.load(Ordering::Relaxed);
        if since == AT_FIRST_CHOICE {
            let first = self.warm_since.compare_exchange(since, stamp(now), Ordering::Relaxed, Ordering::Relaxed);
            since = first.map_or_else(|other| other, |_| stamp(now));
        }
        // an ejection that is over ended at its time: nobody has to notice
        let Some(since) = moment(since.max(self.ejected_until.load(Ordering::Relaxed))) else { return WHOLE };
        let elapsed = now.since(since);
        if elapsed >= slow_start {
            return WHOLE;
        }
        let grown = elapsed.as_nanos() * u128::from(WHOLE) / slow_start.as_nanos().max(1);
        u64::try_from(grown).unwrap_or(WHOLE).clamp(FIRST_SHARE, WHOLE)
    }
}

fn stamp(at: Instant) -> u64 {
    // one below the mark of a first choice
    at.as_nanos().saturating_add(1).min(AT_FIRST_CHOICE - 1)
}

fn moment(stamp: u64) -> Option<Instant> {
    stamp.checked_sub(1).map(Instant::from_nanos)
}

#[cfg(test)]
mod tests;
