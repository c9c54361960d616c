//! Active checks: what is asked of an endpoint, and what follows from the answers.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::uri::PathAndQuery;

use super::Health;
use crate::model::clock::Instant;

/// `health_check`, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is asked.
    pub kind: Kind,
    /// Time from the end of one check to the next, to which up to a tenth is added at random.
    pub interval: Duration,
    /// How long one check may take, its connection included.
    pub timeout: Duration,
    /// Failed checks in a row after which an endpoint is unhealthy; at least 1.
    pub unhealthy_after: u32,
    /// Good checks in a row after which it is healthy again; at least 1.
    pub healthy_after: u32,
    /// Another port than that of requests.
    pub port: Option<u16>,
}

/// What a check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// GET.
    Http {
        /// Path and query.
        path: PathAndQuery,
        /// Another `Host` than the endpoint's.
        host: Option<Arc<str>>,
        /// Statuses that are good.
        statuses: Box<[RangeInclusive<u16>]>,
    },
    /// A connection; over TLS for an `https://` endpoint.
    Tcp,
    /// `grpc.health.v1.Health/Check`.
    Grpc {
        /// The service asked for; empty for the server as a whole.
        service: Arc<str>,
        /// Another `:authority` than the endpoint's.
        host: Option<Arc<str>>,
    },
}

/// How the latest check ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastCheck {
    /// When.
    pub at: Instant,
    /// Why it failed; `None` when it was good.
    pub failure: Option<String>,
}

/// What checks have found so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Checked {
    pub(super) last: Option<LastCheck>,
    good: u32,
    bad: u32,
    changed: Option<Instant>,
}

impl Check {
    /// The least time between two changes that checks make: a host that flaps changes its state no more often.
    #[must_use]
    pub fn window(&self) -> Duration {
        self.interval.saturating_mul(self.unhealthy_after.max(self.healthy_after))
    }

    /// Takes in how a check ended (`failure` says why it was no good one); true when the endpoint's state changed.
    pub fn take_in(&self, health: &Health, failure: Option<String>, now: Instant) -> bool {
        let mut checked = health.checked.lock();
        let good = failure.is_none();
        checked.last = Some(LastCheck { at: now, failure });
        if good {
            (checked.good, checked.bad) = (checked.good.saturating_add(1), 0);
        } else {
            (checked.good, checked.bad) = (0, checked.bad.saturating_add(1));
        }
        if checked.changed.is_some_and(|changed| now.since(changed) < self.window()) {
            return false;
        }
        let unhealthy = health.unhealthy.load(Ordering::Relaxed);
        let changes = if unhealthy { checked.good >= self.healthy_after } else { checked.bad >= self.unhealthy_after };
        if changes {
            checked.changed = Some(now);
            if unhealthy {
                health.warm(now);
            }
            health.unhealthy.store(!unhealthy, Ordering::Relaxed);
        }
        changes
    }
}
