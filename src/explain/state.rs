//! Supposed states of upstreams, as `--state` writes them: `breaker=open,attempt=503,standby/endpoints=none`.

use std::str::FromStr;

use http::StatusCode;

use crate::model::clock::Instant;
use crate::model::deadline::Limit;
use crate::model::outcome::Outcome;
use crate::snapshot::Snapshot;
use crate::upstream::breaker::BreakerState;
use crate::upstream::concurrency::{Entry, Permit, Ticket};
use crate::upstream::{Allowance, Upstream};

/// One supposed state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Of which upstream; `None` for every one that a route names as its own, which leaves those out that are only named
    /// in a `fallback`.
    pub upstream: Option<String>,
    /// What it is like.
    pub condition: Condition,
}

/// What an upstream is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// `breaker=closed|open|half_open`
    Breaker(Phase),
    /// `concurrency=full`: every place and the whole queue are taken.
    ConcurrencyFull,
    /// `endpoints=none`: none may be tried.
    NoEndpoints,
    /// `budget=spent`: no retry is left.
    BudgetSpent,
    /// `attempt=connect|reset|timeout|invalid|STATUS`: how every attempt ends.
    Attempt(Outcome),
}

/// A phase of the breaker.
pub type Phase = crate::model::guard::Phase;

impl FromStr for State {
    type Err = String;

    fn from_str(written: &str) -> Result<Self, String> {
        let (upstream, rest) = match written.split_once('/') {
            Some((name, rest)) => (Some(name.to_owned()), rest),
            None => (None, written),
        };
        let unknown = || {
            format!(
                "not a state: {written:?}; write breaker=open, concurrency=full, endpoints=none, budget=spent or \
                 attempt=connect|reset|timeout|invalid|STATUS, each with UPSTREAM/ before it if need be"
            )
        };
        let (what, value) = rest.split_once('=').ok_or_else(unknown)?;
        let condition = match (what, value) {
            ("breaker", "closed") => Condition::Breaker(Phase::Closed),
            ("breaker", "open") => Condition::Breaker(Phase::Open),
            ("breaker", "half_open" | "half-open") => Condition::Breaker(Phase::HalfOpen),
            ("concurrency", "full") => Condition::ConcurrencyFull,
            ("endpoints", "none") => Condition::NoEndpoints,
            ("budget", "spent") => Condition::BudgetSpent,
            ("attempt", "connect") => Condition::Attempt(Outcome::Connect),
            ("attempt", "reset") => Condition::Attempt(Outcome::Reset),
            ("attempt", "timeout") => Condition::Attempt(Outcome::Timeout(Limit::Attempt)),
            ("attempt", "invalid") => Condition::Attempt(Outcome::Invalid),
            ("attempt", status) => {
                let status = status.parse().ok().and_then(|code| StatusCode::from_u16(code).ok());
                Condition::Attempt(Outcome::Status(status.filter(|status| status.as_u16() >= 200).ok_or_else(unknown)?))
            }
            _ => return Err(unknown()),
        };
        Ok(Self { upstream, condition })
    }
}

/// What is held while a state is supposed.
#[derive(Debug, Default)]
pub(super) struct Held {
    permits: Vec<Permit>,
    tickets: Vec<Ticket>,
}

/// Puts the upstreams into the supposed states; what can't be supposed, in words.
pub(super) fn suppose(snapshot: &mut Snapshot, states: &[State], now: Instant) -> (Held, Vec<String>) {
    let mut held = Held::default();
    let mut notes = Vec::new();
    let own: Vec<usize> = snapshot
        .routes
        .iter()
        .filter_map(|route| route.upstream.as_ref())
        .flat_map(|split| split.iter().map(|(index, _)| *index))
        .collect();
    for state in states {
        let mut found = false;
        for (index, entry) in snapshot.upstreams.iter_mut().enumerate() {
            let upstream = &mut entry.upstream;
            let concerned = match &state.upstream {
                Some(name) => upstream.name().as_str() == name,
                None => own.contains(&index),
            };
            if concerned {
                found = true;
                notes.extend(impose(upstream, state.condition, now, &mut held));
            }
        }
        if let (false, Some(name)) = (found, &state.upstream) {
            notes.push(format!("no upstream {name:?}: its supposed state says nothing"));
        }
    }
    (held, notes)
}

fn impose(upstream: &mut Upstream, condition: Condition, now: Instant, held: &mut Held) -> Option<String> {
    let lacks =
        |what: &str| Some(format!("upstream {} has no {what}: its supposed state says nothing", upstream.name()));
    match condition {
        Condition::Breaker(phase) => {
            let Some(rules) = upstream.breaker().map(|breaker| breaker.rules().clone()) else {
                return lacks("breaker");
            };
            let state = match phase {
                Phase::Closed => BreakerState::Closed,
                Phase::HalfOpen => BreakerState::HalfOpen,
                Phase::Open => BreakerState::Open { until: now.after(rules.open_for) },
            };
            upstream.force_breaker(state);
        }
        Condition::ConcurrencyFull => {
            let Some(limiter) = upstream.concurrency() else { return lacks("concurrency limit") };
            loop {
                match limiter.enter(now, None) {
                    Entry::Admitted(permit) => held.permits.push(permit),
                    Entry::Queued(ticket) => held.tickets.push(ticket),
                    Entry::Full(_) => break,
                }
            }
        }
        Condition::NoEndpoints => upstream.suppose_no_endpoint(),
        Condition::BudgetSpent => {
            // More than any window holds is never granted again.
            while upstream.demand().budget.withdraw(Allowance { share: 0.0, floor: 1000 }, now) {}
        }
        Condition::Attempt(_) => {}
    }
    None
}

/// How every attempt at that upstream is supposed to end; `None` where nothing is supposed.
pub(super) fn supposed_outcome(states: &[State], upstream: &str, is_own: bool) -> Option<Outcome> {
    states.iter().rev().find_map(|state| {
        let concerned = state.upstream.as_deref().map_or(is_own, |name| name == upstream);
        match state.condition {
            Condition::Attempt(outcome) if concerned => Some(outcome),
            _ => None,
        }
    })
}

/// Whether that upstream is supposed to have no endpoint.
pub(super) fn has_no_endpoint(states: &[State], upstream: &str, is_own: bool) -> bool {
    states.iter().any(|state| {
        let concerned = state.upstream.as_deref().map_or(is_own, |name| name == upstream);
        concerned && state.condition == Condition::NoEndpoints
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(written: &str, expected: Option<(Option<&str>, Condition)>) {
        let seen = written.parse::<State>().ok();
        let expected = expected.map(|(upstream, condition)| State { upstream: upstream.map(str::to_owned), condition });
        assert_eq!(seen, expected, "{written}");
    }

    #[test]
    fn a_state_is_a_word_and_a_value() {
        check("breaker=open", Some((None, Condition::Breaker(Phase::Open))));
        check("api/breaker=half_open", Some((Some("api"), Condition::Breaker(Phase::HalfOpen))));
        check("concurrency=full", Some((None, Condition::ConcurrencyFull)));
        check("endpoints=none", Some((None, Condition::NoEndpoints)));
        check("budget=spent", Some((None, Condition::BudgetSpent)));
        check("attempt=503", Some((None, Condition::Attempt(Outcome::Status(StatusCode::SERVICE_UNAVAILABLE)))));
        check("attempt=timeout", Some((None, Condition::Attempt(Outcome::Timeout(Limit::Attempt)))));
        for wrong in ["", "breaker", "breaker=ajar", "attempt=soon", "attempt=100", "weather=fine"] {
            check(wrong, None);
        }
    }
}
