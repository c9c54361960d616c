//! The attempts of an explanation: the same pursuit as the engine's, with supposed ends.

use std::net::Ipv4Addr;
use std::time::Duration;

use http::StatusCode;

use super::report::{AttemptShown, Response, Stage};
use super::state;
use super::walk::Walk;
use crate::model::outcome::Outcome;
use crate::model::units::Period;
use crate::pipeline::attempt::Plan;
use crate::pipeline::judge::Attempted;
use crate::pipeline::pursuit::{Attempt, Cue, Move, Pursuit, Sequel};
use crate::snapshot::Route;
use crate::upstream;

impl<'s> Walk<'s> {
    /// The attempts, with the ends that are supposed of them. Waits pass at once on the clock of the explanation.
    pub(super) fn pursue(&mut self, route: &'s Route, mut plan: Plan<'s>) -> Response {
        let mut now = self.exchange.started;
        let mut pursuit = Pursuit::default();
        let mut last_answer = None;
        loop {
            let upstream = &plan.upstream.upstream;
            let (name, is_own) = (upstream.name().as_str(), self.exchange.fallback.is_none());
            let none = state::has_no_endpoint(&self.question.states, name, is_own);
            if !none {
                suppose_resolved(upstream);
            }
            if !none && upstream.roster().endpoints().as_slice().is_empty() {
                // The demo app, which has an address only while the gateway runs.
                return self.respond(route, &plan, None);
            }
            let cue = Cue { now, random: u64::MAX, can_restart: self.can_restart(&plan) };
            let attempt = match pursuit.next(&mut plan, self.snapshot, &mut self.exchange, cue) {
                Move::Attempt(attempt) => attempt,
                Move::Queue(queued) => {
                    now = queued.ticket.deadline();
                    self.record(Stage::Shed, Some(route));
                    pursuit.turned_away(&mut self.exchange, &plan, queued);
                    continue;
                }
                Move::Answer(answer) => {
                    self.record(Stage::Judge, Some(route));
                    return self.answer(route, answer.clone());
                }
                Move::End(rejection) => {
                    self.record(Stage::Judge, Some(route));
                    return match last_answer {
                        Some(status) => self.respond(route, &plan, Some(status)),
                        None => self.refuse(Stage::Fail, Some(route), &rejection),
                    };
                }
            };
            self.record(Stage::Shed, Some(route));
            let Attempt { endpoint, mut guard, .. } = attempt;
            let attempted = self.supposed_attempt(&plan);
            guard.judged(attempted, Duration::ZERO, now);
            let sequel = pursuit.judge(&plan, &mut self.exchange, &endpoint, attempted, cue);
            self.record(Stage::Judge, Some(route));
            let again = match sequel {
                Sequel::Accept => None,
                Sequel::Next(wait) => Some(wait),
            };
            self.written.attempts.push(AttemptShown {
                upstream: plan.upstream.upstream.name().to_string(),
                outcome: outcome_text(attempted.outcome),
                then: match again {
                    None => "its answer is taken".to_owned(),
                    Some(wait) if wait.is_zero() => "it has failed for good".to_owned(),
                    Some(wait) => format!("again after at most {}", Period(wait)),
                },
            });
            if let Outcome::Status(status) = attempted.outcome {
                last_answer = Some(status);
            }
            match again {
                None => return self.respond(route, &plan, last_answer),
                Some(wait) => now = now.after(wait),
            }
        }
    }

    fn can_restart(&self, plan: &Plan<'_>) -> bool {
        let length = self.question.body.or(self.exchange.declared_length()).unwrap_or(0);
        length <= u64::try_from(plan.keep).unwrap_or(u64::MAX)
    }

    fn supposed_attempt(&self, plan: &Plan<'_>) -> Attempted {
        let name = plan.upstream.upstream.name().as_str();
        let is_own = self.exchange.fallback.is_none();
        let default = self.question.response.status.unwrap_or(if plan.upgrade {
            StatusCode::SWITCHING_PROTOCOLS
        } else {
            StatusCode::OK
        });
        match state::supposed_outcome(&self.question.states, name, is_own) {
            None => Attempted::answered(Outcome::Status(default), &self.question.response.headers),
            Some(Outcome::Connect) => Attempted { unprocessed: true, ..Attempted::failed(Outcome::Connect) },
            Some(outcome) => Attempted::answered(outcome, &self.question.response.headers),
        }
    }
}

/// Names that only a resolver can tell the address of get one that nobody has (RFC 5737), so that attempts can be
/// supposed.
fn suppose_resolved(upstream: &upstream::Upstream) {
    let roster = upstream.roster();
    if roster.endpoints().as_slice().is_empty() {
        let names: Vec<_> = roster.names().cloned().collect();
        for name in names {
            roster.publish(&name, &[Ipv4Addr::new(192, 0, 2, 1).into()]);
        }
    }
}

fn outcome_text(outcome: Outcome) -> String {
    match outcome {
        Outcome::Status(status) => status.as_u16().to_string(),
        other => other.as_str().to_owned(),
    }
}
