//! What stands before an upstream, as a word for everybody: the phases of its breaker, why a request was turned away
//! before an attempt, and what can be read of both at a moment.

use serde::Serialize;

/// In which phase a circuit breaker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Requests pass and are counted.
    Closed,
    /// A few requests pass, whose results decide.
    HalfOpen,
    /// No request passes.
    Open,
}

impl Phase {
    /// Every phase, in the order of the metric's value: 0, 1, 2.
    pub const ALL: [Self; 3] = [Self::Closed, Self::HalfOpen, Self::Open];

    /// The label in metrics, logs and the admin API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

/// Why a request was turned away before an attempt: a closed set for metrics and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shed {
    /// The circuit breaker is open, or half-open with all its places taken.
    BreakerOpen,
    /// The concurrency limit is reached, and so is the bound of its queue (which may be 0).
    QueueFull,
    /// The expected wait in the queue is longer than the request may wait.
    ExpectedWait,
    /// It waited in the queue for `queue_timeout`.
    QueueTimeout,
}

impl Shed {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::BreakerOpen, Self::QueueFull, Self::ExpectedWait, Self::QueueTimeout];

    /// In words, for decisions.
    #[must_use]
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::BreakerOpen => "the breaker lets nothing pass now",
            Self::QueueFull => "the limit is reached, and so is the bound of its queue",
            Self::ExpectedWait => "the wait in the queue would be longer than the request may wait",
            Self::QueueTimeout => "its turn did not come within queue_timeout",
        }
    }

    /// The label in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BreakerOpen => "breaker_open",
            Self::QueueFull => "queue_full",
            Self::ExpectedWait => "expected_wait",
            Self::QueueTimeout => "queue_timeout",
        }
    }
}

/// What is read of a breaker at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerReading {
    /// Its phase.
    pub phase: Phase,
    /// How often it came into each phase, in the order of [`Phase::ALL`].
    pub transitions: [u64; Phase::ALL.len()],
}

/// What is read of a concurrency limit at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConcurrencyReading {
    /// How many requests may be under way.
    pub limit: u32,
    /// How many are.
    pub in_flight: u32,
    /// How many wait for a place.
    pub queued: u32,
}

/// What is read of an upstream at a moment; `None` where nothing is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GuardReading {
    /// Of its circuit breaker.
    pub breaker: Option<BreakerReading>,
    /// Of its concurrency limit.
    pub concurrency: Option<ConcurrencyReading>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sets_list_their_values_in_order() {
        assert!(Phase::ALL.iter().enumerate().all(|(index, phase)| *phase as usize == index));
        assert!(Shed::ALL.iter().enumerate().all(|(index, reason)| *reason as usize == index));
    }
}
