//! The way of a request from its plan to an answer: when the upstream may be asked, which endpoint is, whether a failed
//! attempt is made again and after how long, and what stands in when all is tried.
//!
//! A state machine without I/O. The engine makes the attempts and waits, `explain` supposes them, the simulation makes
//! them up; the order of things is the same for all three because it is here.

use std::sync::Arc;
use std::time::Duration;

use super::attempt::{Plan, Step};
use super::exchange::{Exchange, UpstreamEvent};
use super::judge::{self, Attempted, History, Judgement, Means, Reason, judge};
use crate::model::answer::Answer;
use crate::model::clock::Instant;
use crate::model::guard::{Phase, Shed};
use crate::model::outcome::StandIn;
use crate::model::verdict::{Code, Decision, PolicyName, Rejection, Verdict};
use crate::snapshot::Snapshot;
use crate::upstream::breaker::{self, Pass};
use crate::upstream::concurrency::{self, Entry, Permit, Refusal, Ticket};
use crate::upstream::{Allowance, Choice, Endpoint, Tried, Upstream};

/// What is known at the moment of a decision.
#[derive(Debug, Clone, Copy)]
pub struct Cue {
    /// Now.
    pub now: Instant,
    /// Fresh random bits.
    pub random: u64,
    /// The whole body can be sent to another attempt.
    pub can_restart: bool,
}

/// What is to be done next.
#[derive(Debug)]
pub enum Move<'s> {
    /// Wait for a turn at the upstream; then [`Pursuit::entered`] or [`Pursuit::turned_away`].
    Queue(Queued),
    /// Make an attempt; then [`Pursuit::judge`].
    Attempt(Attempt),
    /// A fixed response stands in.
    Answer(&'s Answer),
    /// All has failed: the last real answer of an upstream, if there was one, else this refusal.
    End(Rejection),
}

/// A turn at the upstream that has not come yet.
#[derive(Debug)]
pub struct Queued {
    /// The place in the queue.
    pub ticket: Ticket,
}

/// An attempt to be made.
#[derive(Debug)]
pub struct Attempt {
    /// Where.
    pub endpoint: Arc<Endpoint>,
    /// On a new connection: one from the pool was closed already.
    pub fresh: bool,
    /// Which of the attempts at this upstream, from 0; a replaced connection does not count.
    pub number: u32,
    /// What was taken for it.
    pub guard: Guard,
}

/// What an attempt holds of its upstream's breaker and concurrency limit.
#[derive(Debug, Default)]
pub struct Guard {
    pass: Option<Pass>,
    permit: Option<Permit>,
}

impl Guard {
    /// Tells breaker and limit how the attempt went, at the head of its response; what the breaker changed to by it. An
    /// outcome that says nothing of the upstream is not told.
    pub fn judged(&mut self, attempted: Attempted, took: Duration, now: Instant) -> Option<Phase> {
        let success = attempted.outcome.success(attempted.grpc)?;
        if let Some(permit) = &self.permit {
            permit.sample(took, success, now);
        }
        self.pass.take().and_then(|pass| pass.judged(success, took, now))
    }
}

/// What follows an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sequel {
    /// Its answer goes to the client.
    Accept,
    /// After that long, ask for the next move. An answer, if there was one, is kept as the last real one.
    Next(Duration),
}

/// The pursuit of an answer.
#[derive(Debug)]
pub struct Pursuit {
    phase: Stage,
    /// The next step of the fallback.
    step: usize,
    tried: Tried,
    history: History,
    /// What the client is told of the upstream that is being asked, unless something stands in.
    failure: Option<Rejection>,
    /// The last attempt at any upstream; `None` while none was made.
    attempted: Option<Attempted>,
    /// The code that the client would have got without the fallback.
    cause: Option<Code>,
}

#[derive(Debug)]
enum Stage {
    /// An upstream is to be asked for the first time.
    Begin,
    /// It is being asked.
    Ask,
    /// It has failed for good.
    StandIn(Rejection),
}

const NO_HISTORY: History = History { attempts: 0, replaced: false, can_restart: true };

impl Default for Pursuit {
    fn default() -> Self {
        Self {
            phase: Stage::Begin,
            step: 0,
            tried: Tried::default(),
            history: NO_HISTORY,
            failure: None,
            attempted: None,
            cause: None,
        }
    }
}

impl Pursuit {
    /// What is to be done next.
    pub fn next<'s>(
        &mut self,
        plan: &mut Plan<'s>,
        snapshot: &'s Snapshot,
        exchange: &mut Exchange,
        cue: Cue,
    ) -> Move<'s> {
        loop {
            match std::mem::replace(&mut self.phase, Stage::Ask) {
                Stage::Begin => plan.upstream.upstream.demand().budget.request(cue.now),
                Stage::Ask => match self.ask(plan, exchange, cue) {
                    Ok(next) => return next,
                    Err(rejection) => self.give_up(rejection),
                },
                Stage::StandIn(rejection) => {
                    self.cause.get_or_insert(rejection.code);
                    let Some(next) = self.stand_in(rejection, plan, snapshot, exchange, cue) else { continue };
                    return next;
                }
            }
        }
    }

    /// The turn at the upstream has come.
    pub fn entered<'s>(
        &mut self,
        plan: &Plan<'s>,
        exchange: &mut Exchange,
        permit: Permit,
        cue: Cue,
    ) -> Option<Move<'s>> {
        // The breaker may have opened meanwhile.
        let guard = pass(plan, exchange, cue).map(|pass| Guard { pass, permit: Some(permit) });
        match guard.and_then(|guard| self.choose(plan, exchange, guard, cue)) {
            Ok(next) => Some(next),
            Err(rejection) => {
                self.give_up(rejection);
                None
            }
        }
    }

    /// The turn has not come in time.
    pub fn turned_away(&mut self, exchange: &mut Exchange, plan: &Plan<'_>, queued: Queued) {
        let refusal = queued.ticket.timed_out();
        let rejection = refused(exchange, plan, refusal);
        self.give_up(rejection);
    }

    /// What follows an attempt at `endpoint`.
    pub fn judge(
        &mut self,
        plan: &Plan<'_>,
        exchange: &mut Exchange,
        endpoint: &Arc<Endpoint>,
        attempted: Attempted,
        cue: Cue,
    ) -> Sequel {
        self.attempted = Some(attempted);
        self.history.attempts += 1;
        self.history.can_restart = cue.can_restart;
        let means = Means {
            retry: plan.retry,
            has_fallback: !plan.fallback.is_empty(),
            budget: &plan.upstream.upstream.demand().budget,
            deadline: plan.deadline,
            now: cue.now,
            random: cue.random,
        };
        let mut decided = |verdict, reason: &'static str| {
            exchange.decisions.push(Decision { policy: PolicyName::Retry, verdict, reason: reason.into() });
        };
        match judge(&exchange.method, attempted, self.history, &means) {
            Judgement::Accept => Sequel::Accept,
            Judgement::Replace => {
                self.history.attempts -= 1;
                self.history.replaced = true;
                Sequel::Next(Duration::ZERO)
            }
            Judgement::Again(wait) => {
                decided(Verdict::Apply, attempted.outcome.retried());
                exchange.events.push((plan.upstream_index, UpstreamEvent::Retried));
                self.tried.add(endpoint);
                self.failure = Some(judge::rejection(attempted.outcome));
                Sequel::Next(wait)
            }
            Judgement::GiveUp(reason) => {
                if plan.retry.is_some() && reason != Reason::NotCovered {
                    decided(Verdict::Allow, reason.as_str());
                }
                if reason == Reason::Budget {
                    exchange.events.push((plan.upstream_index, UpstreamEvent::RetryDenied));
                }
                self.phase = Stage::StandIn(judge::rejection(attempted.outcome));
                Sequel::Next(Duration::ZERO)
            }
        }
    }

    /// Leaves an endpoint out from now on: a hedge has tried it.
    pub fn leave_out(&mut self, endpoint: &Arc<Endpoint>) {
        self.tried.add(endpoint);
    }

    /// The upstream that is asked has failed for good; what an attempt came to says more than a refusal after it.
    fn give_up(&mut self, rejection: Rejection) {
        self.phase = Stage::StandIn(self.failure.take().unwrap_or(rejection));
    }

    /// Breaker, concurrency limit, then an endpoint: what refuses at once does so before anything is waited for.
    fn ask<'s>(&mut self, plan: &Plan<'s>, exchange: &mut Exchange, cue: Cue) -> Result<Move<'s>, Rejection> {
        let upstream = &plan.upstream.upstream;
        let pass = pass(plan, exchange, cue)?;
        let deadline = plan.deadline.map(|deadline| deadline.at);
        let permit = match upstream.concurrency().map(|limiter| limiter.enter(cue.now, deadline)) {
            None => None,
            Some(Entry::Admitted(permit)) => Some(permit),
            // Whoever waits holds no place among a breaker's trial requests.
            Some(Entry::Queued(ticket)) => return Ok(Move::Queue(Queued { ticket })),
            Some(Entry::Full(refusal)) => return Err(refused(exchange, plan, refusal)),
        };
        self.choose(plan, exchange, Guard { pass, permit }, cue)
    }

    /// An endpoint that was not tried; once each had its turn, any.
    fn choose<'s>(
        &mut self,
        plan: &Plan<'s>,
        exchange: &mut Exchange,
        guard: Guard,
        cue: Cue,
    ) -> Result<Move<'s>, Rejection> {
        let upstream = &plan.upstream.upstream;
        let choose =
            |tried: &Tried| upstream.choose(&Choice { random: cue.random, hash: plan.hash, now: cue.now, tried });
        let mut endpoint = choose(&self.tried);
        if endpoint.is_none() && !self.tried.is_empty() {
            self.tried.clear();
            endpoint = choose(&self.tried);
        }
        let Some(endpoint) = endpoint else {
            let reason = "no endpoint may be tried";
            exchange.decisions.push(Decision {
                policy: PolicyName::Health,
                verdict: Verdict::Reject,
                reason: reason.into(),
            });
            return Err(Rejection::new(Code::NoHealthyEndpoint, "the upstream has no endpoint to try"));
        };
        let History { attempts: number, replaced: fresh, .. } = self.history;
        Ok(Move::Attempt(Attempt { endpoint, fresh, number, guard }))
    }

    /// The next step of the fallback; `None` when another upstream is to be asked now.
    fn stand_in<'s>(
        &mut self,
        rejection: Rejection,
        plan: &mut Plan<'s>,
        snapshot: &'s Snapshot,
        exchange: &mut Exchange,
        cue: Cue,
    ) -> Option<Move<'s>> {
        let decided = |exchange: &mut Exchange, verdict, reason: &'static str| {
            exchange.decisions.push(Decision { policy: PolicyName::Fallback, verdict, reason: reason.into() });
        };
        let cause = self.cause.unwrap_or(rejection.code);
        while let Some(step) = plan.fallback.get(self.step) {
            self.step += 1;
            match step {
                Step::Upstream(index) => {
                    let (retry, can_restart) = (plan.retry, cue.can_restart);
                    if !judge::may_go_elsewhere(&exchange.method, self.attempted, retry, can_restart) {
                        decided(exchange, Verdict::Allow, "no other upstream: it may have been processed");
                        continue;
                    }
                    if let Err(rejection) = plan.turn_to(snapshot, exchange, *index) {
                        return Some(Move::End(rejection));
                    }
                    exchange.fallback = Some((StandIn::Upstream, cause));
                    decided(exchange, Verdict::Apply, "another upstream is asked");
                    (self.phase, self.history) = (Stage::Begin, NO_HISTORY);
                    self.tried.clear();
                    self.failure = None;
                    return None;
                }
                Step::Status(answer) => {
                    exchange.fallback = Some((StandIn::Status, cause));
                    decided(exchange, Verdict::Answer, "a fixed response stands in");
                    return Some(Move::Answer(answer));
                }
            }
        }
        exchange.fallback = None;
        Some(Move::End(rejection))
    }
}

/// The breaker's permission for an attempt now.
fn pass(plan: &Plan<'_>, exchange: &mut Exchange, cue: Cue) -> Result<Option<Pass>, Rejection> {
    let pass = plan.upstream.upstream.breaker().map(|breaker| breaker.try_pass(cue.now)).transpose();
    pass.map_err(|tripped| {
        shed(exchange, plan, PolicyName::Breaker, Shed::BreakerOpen);
        breaker::rejection(&tripped)
    })
}

/// The concurrency limit has no place for an attempt.
fn refused(exchange: &mut Exchange, plan: &Plan<'_>, refusal: Refusal) -> Rejection {
    shed(exchange, plan, PolicyName::Concurrency, refusal.reason);
    concurrency::rejection(&refusal)
}

/// Notes that an upstream's own guard refused.
fn shed(exchange: &mut Exchange, plan: &Plan<'_>, policy: PolicyName, why: Shed) {
    exchange.decisions.push(Decision { policy, verdict: Verdict::Reject, reason: why.in_words().into() });
    exchange.events.push((plan.upstream_index, UpstreamEvent::Shed(why)));
}

/// Takes what a hedge needs, or nothing: it never waits, and is paid out of the budget of retries.
pub fn hedge(plan: &Plan<'_>, exclude: &Tried, cue: Cue) -> Result<(Arc<Endpoint>, Guard), NoHedge> {
    let upstream: &Upstream = &plan.upstream.upstream;
    let choice = Choice { random: cue.random, hash: plan.hash, now: cue.now, tried: exclude };
    let endpoint = upstream.choose(&choice).ok_or(NoHedge::Unavailable)?;
    let pass = upstream.breaker().map(|breaker| breaker.try_pass(cue.now)).transpose();
    let pass = pass.map_err(|_| NoHedge::Unavailable)?;
    let permit = match upstream.concurrency().map(|limiter| limiter.enter(cue.now, Some(cue.now))) {
        None => None,
        Some(Entry::Admitted(permit)) => Some(permit),
        Some(Entry::Queued(_) | Entry::Full(_)) => return Err(NoHedge::Unavailable),
    };
    let (share, floor) = plan.retry.ok_or(NoHedge::Unavailable)?.budget();
    if !upstream.demand().budget.withdraw(Allowance { share, floor }, cue.now) {
        return Err(NoHedge::Budget);
    }
    Ok((endpoint, Guard { pass, permit }))
}

/// Why a second attempt is not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoHedge {
    /// No other endpoint, no place, or a breaker that is not closed.
    Unavailable,
    /// The budget is spent.
    Budget,
}
