//! Two attempts beside each other: the second starts when the first takes long, the first good answer is taken and the
//! other attempt is cancelled. Whether and when is the policy's to say; here are only the two of them.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use smallvec::SmallVec;

use super::attempt::{AttemptEnd, AttemptLimits, Way, attempt_alone};
use super::downstream::Downstream;
use super::forward::{Tryout, attempted};
use super::relay::Interruption;
use super::serve::Ground;
use super::timer::Timer;
use super::upstream_session::UpstreamHead;
use crate::model::outcome::Outcome;
use crate::pipeline::attempt::Plan;
use crate::pipeline::judge::has_failed;
use crate::pipeline::pursuit::{Attempt, Cue, Guard, NoHedge, hedge};
use crate::telemetry::metrics::UpstreamMetrics;
use crate::upstream::{Endpoint, Tried};

/// What both attempts share.
pub(super) struct Race<'r, 'a> {
    pub(super) ground: &'r Ground,
    pub(super) plan: &'r Plan<'a>,
    pub(super) metrics: &'a Arc<UpstreamMetrics>,
    /// Path and query.
    pub(super) target: &'r str,
    /// How long the first may take before the second starts.
    pub(super) delay: Duration,
}

/// How it ended.
pub(super) struct Raced<'a> {
    /// The attempt to go on with: the first good one, else the last failed one.
    pub(super) winner: Tryout<'a>,
    /// Whether the second one won; `None` when none was started.
    pub(super) hedged: Option<bool>,
    /// The attempts beside it: where they went, how they ended, how long they took.
    pub(super) others: SmallVec<[(Arc<Endpoint>, Outcome, Duration); 1]>,
}

impl<'a> Race<'_, 'a> {
    /// Runs both to the first good answer. Ends early when the client goes away.
    pub(super) async fn run(&self, attempt: Attempt, down: &mut Downstream) -> Result<Raced<'a>, Interruption> {
        let began = self.ground.now();
        let started = OnceLock::new();
        let Attempt { endpoint, guard, .. } = attempt;
        let first_endpoint = Arc::clone(&endpoint);
        let mut first = pin!(self.one(endpoint, guard));
        let mut second = pin!(self.second(Arc::clone(&first_endpoint), &started));
        let (mut first_done, mut second_done) = (false, false);
        let mut failed: Option<Tryout<'a>> = None;
        let (winner, second_won) = poll_fn(|cx| {
            if down.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Interruption::ClientGone));
            }
            if !first_done && let Poll::Ready(tryout) = first.as_mut().poll(cx) {
                first_done = true;
                if self.is_good(&tryout) || second_done || started.get().is_none() {
                    return Poll::Ready(Ok((tryout, false)));
                }
                failed = Some(tryout);
            }
            if !second_done && let Poll::Ready(ended) = second.as_mut().poll(cx) {
                second_done = true;
                match ended {
                    Some(tryout) if self.is_good(&tryout) || first_done => return Poll::Ready(Ok((tryout, true))),
                    Some(tryout) => failed = Some(tryout),
                    None => {}
                }
            }
            Poll::Pending
        })
        .await?;
        let mut others = SmallVec::new();
        let second_endpoint = started.get().cloned();
        let hedged = second_endpoint.is_some().then_some(second_won);
        if let Some(Tryout { way, in_flight, mut guard, end, began }) = failed {
            let attempted = attempted(&end, false);
            let now = self.ground.now();
            let took = now.since(began);
            self.plan.upstream.upstream.judged(&in_flight, attempted.outcome, now);
            guard.judged(attempted, took, now);
            others.push((way.endpoint, attempted.outcome, took));
        } else {
            let other = if second_won { Some(first_endpoint) } else { second_endpoint };
            let took = self.ground.now().since(began);
            others.extend(other.map(|endpoint| (endpoint, Outcome::Superseded, took)));
        }
        Ok(Raced { winner, hedged, others })
    }

    async fn one(&self, endpoint: Arc<Endpoint>, guard: Guard) -> Tryout<'a> {
        let mut timer = Timer::default();
        let began = self.ground.now();
        let in_flight = endpoint.begin(began);
        let way = Way::new(self.plan.upstream, endpoint, self.metrics, false);
        let head = UpstreamHead::of(self.plan, self.target, way.endpoint.scheme);
        let end = attempt_alone(self.ground, &way, &head, AttemptLimits::of(self.plan), &mut timer).await;
        Tryout { way, in_flight, guard, end, began }
    }

    /// The second attempt, once the first has taken long: on another endpoint, paid out of the budget of retries.
    async fn second(&self, first: Arc<Endpoint>, started: &OnceLock<Arc<Endpoint>>) -> Option<Tryout<'a>> {
        let clock = &self.ground.gateway.clock;
        let mut timer = Timer::default();
        let until = clock.now().after(self.delay);
        poll_fn(|cx: &mut Context<'_>| timer.poll_until(cx, clock, until)).await;
        let mut tried = Tried::default();
        tried.add(&first);
        let cue = Cue { now: clock.now(), random: self.ground.worker.random_word(), can_restart: true };
        match hedge(self.plan, &tried, cue) {
            Ok((endpoint, guard)) => {
                let _ = started.set(Arc::clone(&endpoint));
                Some(self.one(endpoint, guard).await)
            }
            Err(NoHedge::Budget) => {
                self.metrics.retry_denied();
                None
            }
            Err(NoHedge::Unavailable) => None,
        }
    }

    fn is_good(&self, tryout: &Tryout<'_>) -> bool {
        match &tryout.end {
            AttemptEnd::Answered(..) => !has_failed(attempted(&tryout.end, false), self.plan.retry),
            AttemptEnd::Failed(_) => false,
            // The exchange's own time is over: nothing that may still come is of use.
            AttemptEnd::Interrupted(_) => true,
        }
    }
}
