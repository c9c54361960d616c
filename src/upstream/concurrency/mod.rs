//! How many requests are under way to an upstream at once, and which of the others wait for how long.
//!
//! It waits for nothing itself: a [`Ticket`] is polled by the task that waits, and its deadline is the caller's to watch.
//! Places are given in the order of arrival. A place that comes free goes to the first in the queue under the same
//! lock, so it can't be taken by a newcomer, nor be lost: a ticket that is dropped after it was granted passes the place
//! on. Memory is bounded by `queue`.
//!
//! The limit is shared by all workers; wakers wake across threads, after the lock is released.

mod adaptive;
mod config;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::header::RETRY_AFTER;
use parking_lot::Mutex;
use smallvec::SmallVec;

use self::adaptive::Adaptive;
pub use self::adaptive::Bounds;
pub use self::config::{Config, Limit, Rules};
use super::breaker::retry_after;
use crate::model::clock::Instant;
use crate::model::guard::{ConcurrencyReading, Shed};
use crate::model::verdict::{Code, Rejection};

/// How much a response moves the moving average of the service time, as one part of so many.
const SERVICE_WEIGHT: u64 = 16;

/// A concurrency limit with its queue. Kept over reloads while its rules are equal.
#[derive(Debug)]
pub struct Limiter {
    rules: Rules,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Places that are held; a place that is granted to a ticket is held from then on.
    in_flight: u32,
    waiting: VecDeque<Waiting>,
    next_ticket: u64,
    /// `None` for a fixed limit.
    adaptive: Option<Adaptive>,
    /// Moving average of the time to the response head, in nanoseconds; 0 before the first.
    service: u64,
}

/// A ticket in the queue. Tickets are numbered in order, so the queue is sorted; one that is not in it has its place.
#[derive(Debug)]
struct Waiting {
    ticket: u64,
    /// `None` until it is polled for the first time.
    waker: Option<Waker>,
}

type Woken = SmallVec<[Waker; 2]>;

/// What asking for a place comes to.
#[derive(Debug)]
pub enum Entry {
    /// There was one.
    Admitted(Permit),
    /// There may be one soon.
    Queued(Ticket),
    /// There is none, nor will there be in time.
    Full(Refusal),
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// For metrics and logs.
    pub reason: Shed,
    /// When to ask again.
    pub retry_after: Duration,
}

/// What the client is told: 503 `overloaded` with `Retry-After` in whole seconds, at least one (RFC 9110 §10.2.3).
#[must_use]
pub fn rejection(refusal: &Refusal) -> Rejection {
    let detail = match refusal.reason {
        Shed::QueueTimeout => "the request waited too long for its turn at the upstream",
        Shed::ExpectedWait => "the request would wait too long for its turn at the upstream",
        Shed::QueueFull | Shed::BreakerOpen => "the upstream has as many requests as it is to have",
    };
    Rejection::new(Code::Overloaded, detail).header(RETRY_AFTER, retry_after(refusal.retry_after))
}

impl Limiter {
    /// A limit that nothing is held of.
    #[must_use]
    pub fn new(rules: Rules) -> Arc<Self> {
        let adaptive = match rules.limit {
            Limit::Fixed(_) => None,
            Limit::Adaptive(bounds) => Some(Adaptive::new(bounds)),
        };
        let state = State { in_flight: 0, waiting: VecDeque::new(), next_ticket: 0, adaptive, service: 0 };
        Arc::new(Self { rules, state: Mutex::new(state) })
    }

    /// The rules it enforces.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Asks for a place for a request that has to be done by `deadline`, if there is one.
    #[must_use]
    pub fn enter(self: &Arc<Self>, now: Instant, deadline: Option<Instant>) -> Entry {
        let mut state = self.state.lock();
        let woken = match &mut state.adaptive {
            None => Woken::new(),
            Some(adaptive) => {
                adaptive.tick(now);
                state.grant(&self.rules)
            }
        };
        // grant has served the queue: a free place is nobody else's
        let entry = if state.in_flight < state.limit(&self.rules) {
            state.in_flight += 1;
            Entry::Admitted(Permit { limiter: Arc::clone(self), round: state.round() })
        } else {
            self.queue(&mut state, now, deadline)
        };
        drop(state);
        wake(woken);
        entry
    }

    fn queue(self: &Arc<Self>, state: &mut State, now: Instant, deadline: Option<Instant>) -> Entry {
        let expected = state.expected_wait(&self.rules);
        let refuse = |reason| Entry::Full(Refusal { reason, retry_after: expected });
        if state.waiting.len() >= usize::try_from(self.rules.queue).unwrap_or(usize::MAX) {
            return refuse(Shed::QueueFull);
        }
        let may_wait = deadline.map_or(Duration::MAX, |deadline| deadline.since(now)).min(self.rules.queue_timeout);
        if expected > may_wait || may_wait == Duration::ZERO {
            return refuse(Shed::ExpectedWait);
        }
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.waiting.push_back(Waiting { ticket, waker: None });
        let deadline = now.after(self.rules.queue_timeout);
        Entry::Queued(Ticket { limiter: Arc::clone(self), ticket, deadline, ended: false })
    }

    /// What the metrics show.
    #[must_use]
    pub fn reading(&self) -> ConcurrencyReading {
        let state = self.state.lock();
        ConcurrencyReading {
            limit: state.limit(&self.rules),
            in_flight: state.in_flight,
            queued: u32::try_from(state.waiting.len()).unwrap_or(u32::MAX),
        }
    }

    fn release(&self) {
        let mut state = self.state.lock();
        state.in_flight = state.in_flight.saturating_sub(1);
        let woken = state.grant(&self.rules);
        drop(state);
        wake(woken);
    }
}

impl State {
    fn limit(&self, rules: &Rules) -> u32 {
        match (&self.adaptive, &rules.limit) {
            (Some(adaptive), _) => adaptive.limit(),
            (None, Limit::Fixed(limit)) => *limit,
            (None, Limit::Adaptive(bounds)) => bounds.min,
        }
    }

    fn round(&self) -> u32 {
        self.adaptive.as_ref().map_or(0, Adaptive::round)
    }

    /// Gives free places to the first in the queue, and returns whom to wake once the lock is released.
    fn grant(&mut self, rules: &Rules) -> Woken {
        let mut woken = Woken::new();
        while self.in_flight < self.limit(rules)
            && let Some(first) = self.waiting.pop_front()
        {
            self.in_flight += 1;
            woken.extend(first.waker);
        }
        woken
    }

    /// How long a request that joins the queue now waits if the next ones take as long as those lately: its position
    /// times the service time, shared among the places. Too short while bodies go on for long after their heads.
    fn expected_wait(&self, rules: &Rules) -> Duration {
        let position = u64::try_from(self.waiting.len()).unwrap_or(u64::MAX).saturating_add(1);
        let all = self.service.saturating_mul(position);
        Duration::from_nanos(all / u64::from(self.limit(rules).max(1)))
    }

    fn position(&self, ticket: u64) -> Option<usize> {
        self.waiting.binary_search_by_key(&ticket, |waiting| waiting.ticket).ok()
    }
}

fn wake(woken: Woken) {
    woken.into_iter().for_each(Waker::wake);
}

/// A place among the requests under way; dropping it, at the end of the response's body, gives it to the next.
#[derive(Debug)]
#[must_use = "dropping it gives the place to the next"]
pub struct Permit {
    limiter: Arc<Limiter>,
    round: u32,
}

impl Permit {
    /// Tells how the attempt went, at the head of its response or when it failed: `took` is the time since it began.
    /// What an adaptive limit and the expected wait are learnt from. Not to be told when the outcome says nothing of
    /// the upstream, such as a client that went away.
    pub fn sample(&self, took: Duration, success: bool, now: Instant) {
        let limiter = &*self.limiter;
        let mut state = limiter.state.lock();
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
        state.service = match state.service {
            0 => nanos,
            service => service - service / SERVICE_WEIGHT + nanos / SERVICE_WEIGHT,
        };
        let in_flight = state.in_flight;
        let Some(adaptive) = &mut state.adaptive else { return };
        adaptive.sample(self.round, took, success, in_flight, now);
        let woken = state.grant(&limiter.rules);
        drop(state);
        wake(woken);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limiter.release();
    }
}

/// A turn in the queue. Dropping it leaves the queue.
#[derive(Debug)]
#[must_use = "dropping it leaves the queue"]
pub struct Ticket {
    limiter: Arc<Limiter>,
    ticket: u64,
    deadline: Instant,
    /// Its place was handed out as a permit.
    ended: bool,
}

impl Ticket {
    /// Until when it may wait by `queue_timeout`; the request's own deadline is the caller's to watch.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Ready when its turn has come. Not to be polled again after that: it stays pending.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Permit> {
        if self.ended {
            return Poll::Pending;
        }
        let mut state = self.limiter.state.lock();
        let position = state.position(self.ticket);
        match position.and_then(|position| state.waiting.get_mut(position)) {
            None => {
                self.ended = true;
                let round = state.round();
                drop(state);
                Poll::Ready(Permit { limiter: Arc::clone(&self.limiter), round })
            }
            Some(waiting) => {
                // a waker that was replaced is dropped after the lock: its drop is foreign code
                let replaced = match &mut waiting.waker {
                    Some(waker) if waker.will_wake(cx.waker()) => None,
                    waker => waker.replace(cx.waker().clone()),
                };
                drop(state);
                drop(replaced);
                Poll::Pending
            }
        }
    }

    /// Leaves the queue because [`Ticket::deadline`] is over, and says what the client is told.
    #[must_use]
    pub fn timed_out(self) -> Refusal {
        let retry_after = self.limiter.state.lock().expected_wait(&self.limiter.rules);
        Refusal { reason: Shed::QueueTimeout, retry_after }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut state = self.limiter.state.lock();
        let left = state.position(self.ticket).and_then(|position| state.waiting.remove(position));
        drop(state);
        // not in the queue: it was granted a place that it never used
        if left.is_none() {
            self.limiter.release();
        }
    }
}

#[cfg(test)]
mod tests;
