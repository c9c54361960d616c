//! The circuit breaker of an upstream: decides whether an attempt may begin, from how the attempts before it went.
//!
//! It sends nothing and waits for nothing. A [`Pass`] is taken before an attempt and judged at the head of its response
//! (or at its failure), so a stream that lives for hours holds no place among the trial requests; what bounds the time to
//! the head (`timeout.attempt`, `timeout.idle`) bounds how long a place is held. A pass that is dropped without a
//! judgement gives its place back and counts nothing. A judgement counts only in the phase in which its pass was taken:
//! a late failure from before the breaker opened neither opens it again nor ends a trial.
//!
//! While it is closed, letting an attempt begin is one atomic load; a judgement takes a lock for the length of a few
//! additions. Memory is constant.

mod config;
mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderValue;
use http::header::RETRY_AFTER;
use parking_lot::Mutex;

pub use self::config::{Config, Rules};
pub use self::window::Counts;
use self::window::Window;
use crate::model::clock::Instant;
use crate::model::guard::{BreakerReading, Phase, Shed};
use crate::model::verdict::{Code, Rejection};

/// What a client is told to wait while the trial requests are under way: their results come any moment.
const RETRY_WHILE_HALF_OPEN: Duration = Duration::from_secs(1);

/// A circuit breaker. Shared by all workers; kept over reloads while its rules are equal.
#[derive(Debug)]
pub struct Breaker {
    rules: Rules,
    /// The generation of the phase, shifted left by one; the lowest bit says that it is [`Current::Closed`]. Written
    /// under the lock, read without it.
    gate: AtomicU64,
    state: Mutex<State>,
    transitions: [AtomicU64; Phase::ALL.len()],
}

#[derive(Debug)]
struct State {
    /// Counts the changes of phase, so that a pass is known to be of this one.
    generation: u64,
    current: Current,
    window: Window,
    /// Failures since the last success.
    consecutive: u32,
}

#[derive(Debug, Clone, Copy)]
enum Current {
    Closed,
    Open { until: Instant },
    HalfOpen { taken: u32, succeeded: u32 },
}

/// The state of a breaker for those who look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Requests pass.
    Closed,
    /// No request passes before `until`.
    Open {
        /// When trial requests begin.
        until: Instant,
    },
    /// Trial requests pass.
    HalfOpen,
}

impl BreakerState {
    /// Its phase, without the time.
    #[must_use]
    pub const fn phase(self) -> Phase {
        match self {
            Self::Closed => Phase::Closed,
            Self::Open { .. } => Phase::Open,
            Self::HalfOpen => Phase::HalfOpen,
        }
    }
}

/// The breaker lets no attempt begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tripped {
    /// When to ask again.
    pub retry_after: Duration,
}

impl Tripped {
    /// The reason in metrics and logs.
    pub const SHED: Shed = Shed::BreakerOpen;
}

/// What the client is told: 503 `breaker_open` with `Retry-After` in whole seconds, at least one (RFC 9110 §10.2.3).
#[must_use]
pub fn rejection(tripped: &Tripped) -> Rejection {
    Rejection::new(Code::BreakerOpen, "the upstream failed too often lately; it gets no requests for now")
        .header(RETRY_AFTER, retry_after(tripped.retry_after))
}

/// `Retry-After` in whole seconds, rounded up, at least one.
pub(super) fn retry_after(wait: Duration) -> HeaderValue {
    let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
    HeaderValue::from(seconds.max(1))
}

impl Breaker {
    /// A closed breaker that has counted nothing.
    #[must_use]
    pub fn new(rules: Rules) -> Arc<Self> {
        Self::forced(rules, BreakerState::Closed)
    }

    /// A breaker that is in `state` and has counted nothing: for `explain`, which shows what happens then.
    #[must_use]
    pub fn forced(rules: Rules, state: BreakerState) -> Arc<Self> {
        let current = match state {
            BreakerState::Closed => Current::Closed,
            BreakerState::Open { until } => Current::Open { until },
            BreakerState::HalfOpen => Current::HalfOpen { taken: 0, succeeded: 0 },
        };
        let window = Window::new(rules.window);
        Arc::new(Self {
            rules,
            gate: AtomicU64::new(gate(0, current)),
            state: Mutex::new(State { generation: 0, current, window, consecutive: 0 }),
            transitions: Default::default(),
        })
    }

    /// When it opens and closes.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Asks for an attempt.
    ///
    /// # Errors
    /// [`Tripped`] while it is open, and while it is half-open and all places are taken.
    pub fn try_pass(self: &Arc<Self>, now: Instant) -> Result<Pass, Tripped> {
        let word = self.gate.load(Ordering::Acquire);
        if word & CLOSED == CLOSED {
            return Ok(Pass { breaker: Arc::clone(self), generation: word >> 1, holds_place: false });
        }
        let mut state = self.state.lock();
        if let Current::Open { until } = state.current {
            if now < until {
                return Err(Tripped { retry_after: until.since(now) });
            }
            self.change(&mut state, Current::HalfOpen { taken: 0, succeeded: 0 });
        }
        let holds_place = match &mut state.current {
            // closed since the gate was read
            Current::Closed | Current::Open { .. } => false,
            Current::HalfOpen { taken, .. } if *taken < self.rules.half_open_requests => {
                *taken += 1;
                true
            }
            Current::HalfOpen { .. } => return Err(Tripped { retry_after: RETRY_WHILE_HALF_OPEN }),
        };
        Ok(Pass { breaker: Arc::clone(self), generation: state.generation, holds_place })
    }

    /// The state that the next request meets at `now`.
    #[must_use]
    pub fn state(&self, now: Instant) -> BreakerState {
        match self.state.lock().current {
            Current::Closed => BreakerState::Closed,
            Current::Open { until } if now < until => BreakerState::Open { until },
            Current::Open { .. } | Current::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// What the metrics show at `now`.
    #[must_use]
    pub fn reading(&self, now: Instant) -> BreakerReading {
        let transitions = self.transitions.each_ref().map(|count| count.load(Ordering::Relaxed));
        BreakerReading { phase: self.state(now).phase(), transitions }
    }

    /// What it counted within its window. All zero unless it is closed.
    #[must_use]
    pub fn counted(&self, now: Instant) -> Counts {
        self.state.lock().window.sum(now)
    }

    fn judge(&self, generation: u64, success: bool, took: Duration, now: Instant) -> Option<Phase> {
        let slow = self.rules.slow.is_some_and(|(slow_call, _)| took >= slow_call);
        let mut state = self.state.lock();
        if state.generation != generation {
            return None;
        }
        let next = match state.current {
            Current::Closed => self.counts_too_much(&mut state, success, slow, now).then(|| self.open(now)),
            Current::HalfOpen { .. } if !success || slow => Some(self.open(now)),
            Current::HalfOpen { taken, succeeded } => {
                let succeeded = succeeded.saturating_add(1);
                if succeeded >= self.rules.half_open_requests {
                    Some(Current::Closed)
                } else {
                    state.current = Current::HalfOpen { taken, succeeded };
                    None
                }
            }
            // no pass is of this generation
            Current::Open { .. } => None,
        };
        next.map(|next| self.change(&mut state, next))
    }

    /// Counts a call of the closed phase; true when that is the end of it.
    fn counts_too_much(&self, state: &mut State, success: bool, slow: bool, now: Instant) -> bool {
        state.consecutive = if success { 0 } else { state.consecutive.saturating_add(1) };
        let counts = state.window.record(now, !success, slow);
        let enough = counts.calls >= u64::from(self.rules.min_requests);
        let failing = enough && self.rules.failure_ratio.is_reached(counts.failures, counts.calls);
        let slowing = enough && self.rules.slow.is_some_and(|(_, ratio)| ratio.is_reached(counts.slow, counts.calls));
        let in_a_row = self.rules.consecutive_failures.is_some_and(|most| state.consecutive >= most);
        failing || slowing || in_a_row
    }

    fn open(&self, now: Instant) -> Current {
        Current::Open { until: now.after(self.rules.open_for) }
    }

    fn change(&self, state: &mut State, next: Current) -> Phase {
        state.current = next;
        state.generation += 1;
        state.window.clear();
        state.consecutive = 0;
        self.gate.store(gate(state.generation, next), Ordering::Release);
        let phase = match next {
            Current::Closed => Phase::Closed,
            Current::Open { .. } => Phase::Open,
            Current::HalfOpen { .. } => Phase::HalfOpen,
        };
        if let Some(count) = self.transitions.get(phase as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        phase
    }

    fn give_back(&self, generation: u64) {
        let mut state = self.state.lock();
        if state.generation == generation
            && let Current::HalfOpen { taken, .. } = &mut state.current
        {
            *taken = taken.saturating_sub(1);
        }
    }
}

const CLOSED: u64 = 1;

fn gate(generation: u64, current: Current) -> u64 {
    generation << 1 | if matches!(current, Current::Closed) { CLOSED } else { 0 }
}

/// The permission for one attempt.
#[derive(Debug)]
#[must_use = "dropping it tells the breaker nothing of the attempt"]
pub struct Pass {
    breaker: Arc<Breaker>,
    generation: u64,
    /// A place among the trial requests is given back when this is dropped.
    holds_place: bool,
}

impl Pass {
    /// Tells how the attempt went: at the head of its response, or when it failed. `took` is the time since it began.
    /// Returns the phase that the breaker changed to by it, for the log.
    #[expect(clippy::must_use_candidate, reason = "who writes no log does not ask for the phase")]
    pub fn judged(mut self, success: bool, took: Duration, now: Instant) -> Option<Phase> {
        self.holds_place = false;
        self.breaker.judge(self.generation, success, took, now)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.holds_place {
            self.breaker.give_back(self.generation);
        }
    }
}

#[cfg(test)]
mod tests;
