//! Sends a request upstream until it is answered: attempts, the waits between them, and what stands in when all fail.
//!
//! Each step asks the pipeline what to do, and does it. What is decided is decided in `pipeline::judge`; here are the
//! connections, the waiting and the order of things.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use h2::Reason;

use super::attempt::{AttemptEnd, AttemptLimits, Way};
use super::downstream::{ClientError, Downstream};
use super::exchange::{Ended, Run};
use super::hedge::Race;
use super::inspect::Stop;
use super::relay::{Interruption, Relay, Relayed};
use super::respond;
use super::upload::{BodyPace, Upload, UploadError};
use super::upstream_session::{Received, UpstreamHead, UpstreamSession};
use crate::model::clock::Instant;
use crate::model::deadline::{Deadline, Limit};
use crate::model::outcome::{Outcome, StandIn, Termination};
use crate::model::response::{BodyLength, ResponseHead};
use crate::model::verdict::{Code, Decision, PolicyName, Rejection, Verdict};
use crate::pipeline::attempt::{Plan, plan};
use crate::pipeline::body::{self, BodyRules};
use crate::pipeline::exchange::AttemptRecord;
use crate::pipeline::fail;
use crate::pipeline::judge::{self, Attempted};
use crate::pipeline::pursuit::{Attempt, Cue, Guard, Move, Pursuit, Queued, Sequel};
use crate::pipeline::respond::{self as dress, Upgrading};
use crate::snapshot::Route;
use crate::upstream::InFlight;

/// An attempt that has ended, and where it went.
pub(super) struct Tryout<'a> {
    pub(super) way: Way<'a>,
    pub(super) in_flight: InFlight,
    pub(super) guard: Guard,
    pub(super) end: AttemptEnd,
    pub(super) began: Instant,
}

/// An answer whose body has not been read yet.
struct Answer<'a> {
    way: Way<'a>,
    session: UpstreamSession,
    received: Received,
    /// What it stands in for.
    fallback: Option<(StandIn, Code)>,
}

impl<'a> Run<'a> {
    /// Pursues an answer of the route's upstream, or of what stands in for it.
    pub(super) async fn forward(&mut self, route: &'a Route) -> Ended {
        let body_done = self.down.body_done();
        let random = self.ground.worker.random_word();
        let snapshot = &self.live.snapshot;
        let mut plan = match plan(snapshot, route, &mut self.exchange, body_done, random) {
            Ok(plan) => plan,
            Err(rejection) => return self.refuse_on(Some(route), rejection).await,
        };
        let mut upload = self.upload(&plan, body_done);
        match self.judge_body(&plan, &mut upload).await {
            Ok(()) => {}
            Err(Stop::Refused(rejection)) => return self.refuse_on(Some(route), rejection).await,
            Err(Stop::Interrupted(interruption)) => return self.interrupted(route, interruption).await,
        }
        let mut pursuit = Pursuit::default();
        // The last real answer of an upstream: better than a refusal of ours.
        let mut held: Option<Answer<'a>> = None;
        loop {
            let cue = self.cue(&upload);
            let mut next = pursuit.next(&mut plan, snapshot, &mut self.exchange, cue);
            if let Move::Queue(queued) = next {
                match self.turn(&mut pursuit, &plan, queued, &upload).await {
                    Ok(Some(entered)) => next = entered,
                    Ok(None) => continue,
                    Err(interruption) => return self.interrupted(route, interruption).await,
                }
            }
            let attempt = match next {
                Move::Attempt(attempt) => attempt,
                Move::Queue(_) => continue,
                Move::Answer(answer) => {
                    let mut response = ResponseHead { status: answer.status, headers: answer.headers.clone() };
                    dress::answer(route, &self.exchange, &mut response);
                    return self.answer(response, answer.body.clone()).await;
                }
                Move::End(rejection) => {
                    return match held {
                        Some(answer) => {
                            // How far the body has come is said of a later attempt than the one that answered.
                            upload.give_up();
                            self.relay(route, &plan, answer, upload).await
                        }
                        None => self.refuse_on(Some(route), rejection).await,
                    };
                }
            };
            let tryout = match self.attempt(&mut plan, attempt, &mut pursuit, &mut upload).await {
                Ok(tryout) => tryout,
                Err(interruption) => return self.interrupted(route, interruption).await,
            };
            let (attempted, way, in_flight, guard, end) = self.observe(&plan, tryout, &mut upload);
            let answer = match end {
                AttemptEnd::Answered(session, received) => {
                    Some(Answer { way, session, received, fallback: self.exchange.fallback })
                }
                AttemptEnd::Failed(_) => None,
                AttemptEnd::Interrupted(interruption) => return self.interrupted(route, interruption).await,
            };
            let cue = self.cue(&upload);
            match (pursuit.judge(&plan, &mut self.exchange, in_flight.endpoint(), attempted, cue), answer) {
                (Sequel::Accept, Some(answer)) => return self.relay(route, &plan, answer, upload).await,
                (Sequel::Accept, None) => {
                    return self.refuse_on(Some(route), judge::rejection(attempted.outcome)).await;
                }
                (Sequel::Next(wait), answer) => {
                    // Nothing is taken of the upstream while nothing is asked of it.
                    drop((guard, in_flight));
                    self.hold(&mut held, answer);
                    if let Err(interruption) = self.pause(wait, &plan).await {
                        return self.interrupted(route, interruption).await;
                    }
                }
            }
        }
    }

    fn cue(&self, upload: &Upload) -> Cue {
        Cue { now: self.ground.now(), random: self.ground.worker.random_word(), can_restart: upload.can_restart() }
    }

    /// Waits in the queue of an upstream, as long as the client is there and its time is not over. `None`: the turn did
    /// not come, and the pursuit knows what is next.
    async fn turn(
        &mut self,
        pursuit: &mut Pursuit,
        plan: &Plan<'a>,
        mut queued: Queued,
        upload: &Upload,
    ) -> Result<Option<Move<'a>>, Interruption> {
        let clock = &self.ground.gateway.clock;
        let mut deadline = Deadline { at: queued.ticket.deadline(), limit: Limit::Queue };
        if let Some(exchange) = plan.deadline {
            deadline = exchange.min(deadline);
        }
        let (down, timer) = (&mut self.down, &mut *self.timer);
        let turn = poll_fn(|cx| {
            if let Poll::Ready(permit) = queued.ticket.poll(cx) {
                return Poll::Ready(Ok(permit));
            }
            if down.body_done() && down.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Interruption::ClientGone));
            }
            timer.poll_until(cx, clock, deadline.at).map(|()| Err(Interruption::Timeout(deadline.limit)))
        })
        .await;
        match turn {
            Ok(permit) => {
                let cue = self.cue(upload);
                Ok(pursuit.entered(plan, &mut self.exchange, permit, cue))
            }
            Err(Interruption::Timeout(Limit::Queue)) => {
                pursuit.turned_away(&mut self.exchange, plan, queued);
                Ok(None)
            }
            Err(interruption) => Err(interruption),
        }
    }

    /// One attempt, or two beside each other.
    async fn attempt(
        &mut self,
        plan: &mut Plan<'a>,
        attempt: Attempt,
        pursuit: &mut Pursuit,
        upload: &mut Upload,
    ) -> Result<Tryout<'a>, Interruption> {
        let Some(metrics) = self.live.metrics.upstreams.get(plan.upstream_index) else {
            // The handles are made from the same snapshot as the upstreams.
            return Err(Interruption::Encoder);
        };
        upload.restart();
        plan.tell_time_left(self.ground.now());
        let quantiles = &plan.upstream.upstream.demand().quantiles;
        let delay = plan.hedge.filter(|_| attempt.number == 0 && !attempt.fresh && !plan.upgrade).and_then(|hedge| {
            let has_body = !upload.is_complete();
            hedge.delay(&self.exchange.method, has_body, |percent| quantiles.quantile(percent))
        });
        let tryout = if let Some(delay) = delay {
            let target = plan.target(&self.exchange);
            let race = Race { ground: self.ground, plan, metrics, target, delay };
            let raced = race.run(attempt, &mut self.down).await?;
            if let Some(second_won) = raced.hedged {
                metrics.hedged(second_won);
                let reason = "a second attempt started beside the first".into();
                self.exchange.decisions.push(Decision { policy: PolicyName::Hedge, verdict: Verdict::Apply, reason });
            }
            for (endpoint, outcome, took) in raced.others {
                metrics.attempted(outcome, took);
                pursuit.leave_out(&endpoint);
                let endpoint = Arc::clone(&endpoint.address);
                self.exchange.attempts.push(AttemptRecord { endpoint, outcome, took });
            }
            raced.winner
        } else {
            let Attempt { endpoint, fresh, guard, .. } = attempt;
            let began = self.ground.now();
            let in_flight = endpoint.begin(began);
            let way = Way::new(plan.upstream, endpoint, metrics, fresh);
            let head = UpstreamHead::of(plan, plan.target(&self.exchange), way.endpoint.scheme);
            let sides = (&mut self.down, upload, &mut *self.timer);
            let limits = AttemptLimits::of(plan);
            let end = super::attempt::attempt(self.ground, &way, &head, limits, sides, dress::interim).await;
            Tryout { way, in_flight, guard, end, began }
        };
        if plan.hedge.is_some() && matches!(tryout.end, AttemptEnd::Answered(..)) {
            quantiles.record(self.ground.now().since(tryout.began));
        }
        Ok(tryout)
    }

    /// Takes down how an attempt ended, and tells everybody who learns from it.
    fn observe(
        &mut self,
        plan: &Plan<'a>,
        tryout: Tryout<'a>,
        upload: &mut Upload,
    ) -> (Attempted, Way<'a>, InFlight, Guard, AttemptEnd) {
        let Tryout { way, in_flight, mut guard, end, began } = tryout;
        let client_s = upload.awaits_client();
        upload.stop_waiting(&self.ground.gateway.clock);
        self.exchange.body_in = upload.received();
        self.take_found(upload);
        let attempted = attempted(&end, client_s);
        let now = self.ground.now();
        let took = now.since(began);
        plan.upstream.upstream.judged(&in_flight, attempted.outcome, now);
        if let Some(phase) = guard.judged(attempted, took, now) {
            let upstream = plan.upstream.upstream.name();
            tracing::warn!(%upstream, state = phase.as_str(), "the circuit breaker changed its state");
        }
        way.metrics.attempted(attempted.outcome, took);
        let endpoint = Arc::clone(&way.endpoint.address);
        self.exchange.attempts.push(AttemptRecord { endpoint, outcome: attempted.outcome, took });
        (attempted, way, in_flight, guard, end)
    }

    /// Keeps an answer that may be the last one; the connection of the one before goes back to the pool, if its body
    /// has come meanwhile.
    fn hold(&self, held: &mut Option<Answer<'a>>, answer: Option<Answer<'a>>) {
        let Some(answer) = answer else { return };
        if let Some(Answer { way, session, .. }) = held.replace(answer)
            && let Some(transport) = session.finish_if_whole()
        {
            self.ground.worker.pool.keep_h1(way.owner(), way.idle, self.ground.now(), transport);
        }
    }

    /// Waits between two attempts, as long as the client is there and its time is not over.
    async fn pause(&mut self, wait: Duration, plan: &Plan<'a>) -> Result<(), Interruption> {
        if wait.is_zero() {
            return Ok(());
        }
        let clock = &self.ground.gateway.clock;
        let until = clock.now().after(wait);
        let (down, timer) = (&mut self.down, &mut *self.timer);
        poll_fn(|cx| {
            if down.body_done() && down.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Interruption::ClientGone));
            }
            match plan.deadline.filter(|deadline| deadline.at < until) {
                Some(deadline) => {
                    timer.poll_until(cx, clock, deadline.at).map(|()| Err(Interruption::Timeout(deadline.limit)))
                }
                None => timer.poll_until(cx, clock, until).map(Ok),
            }
        })
        .await
    }

    fn upload(&self, plan: &Plan<'_>, body_done: bool) -> Upload {
        let BodyRules { max, paced } = plan.body;
        let limits = &self.ground.info.listener.limits;
        let pace = paced.then_some(BodyPace { rate: limits.min_body_rate.0.0, grace: limits.header_timeout.0 });
        Upload::new(body_done, plan.expects_continue, max, pace, plan.keep)
    }

    /// An upstream has answered: its head and body go to the client.
    async fn relay(&mut self, route: &'a Route, plan: &Plan<'a>, answer: Answer<'a>, mut upload: Upload) -> Ended {
        let Answer { way, mut session, received, fallback } = answer;
        self.exchange.fallback = fallback;
        let (mut head, length, upgraded) = match received {
            Received::Final(head, length) => (head, length, false),
            Received::Upgraded(head) | Received::Interim(head) => (head, BodyLength::Unknown, true),
        };
        let task = if upgraded { Ok(None) } else { dress::judge_head(route, &mut self.exchange, &head, length) };
        let judged = match &task {
            Ok(task) => self.judge_response(task.as_ref(), plan, &mut session, &mut upload).await,
            Err(rejection) => Err(Stop::Refused(rejection.clone())),
        };
        let mut source = match judged {
            Ok(source) => source,
            Err(stop) => {
                session.cancel();
                (self.exchange.body_in, self.exchange.fallback) = (upload.received(), None);
                return match stop {
                    Stop::Refused(rejection) => self.refuse_on(Some(route), rejection).await,
                    Stop::Interrupted(interruption) => self.interrupted(route, interruption).await,
                };
            }
        };
        let upgrading = if upgraded { Upgrading::Yes } else { Upgrading::No };
        let encoder = match dress::finish(route, &mut self.exchange, &mut head, length, upgrading, self.ground.now()) {
            Ok(encoder) => encoder,
            Err(rejection) => {
                session.cancel();
                return self.refuse_on(Some(route), rejection).await;
            }
        };
        respond::stamp(&mut head);
        let status = head.status;
        let deadline = plan.deadline_of_response(&head);
        let length = if encoder.is_some() { BodyLength::Unknown } else { length };
        let sent = if upgraded { self.down.send_upgrade(&head) } else { self.down.send_head(head, length) };
        if sent.is_err() {
            session.cancel();
            return self.lost();
        }
        self.exchange.status = Some(status);
        let exchange = &mut self.exchange;
        let mut relay = Relay {
            down: &mut self.down,
            up: &mut session,
            upload: &mut upload,
            timer: self.timer,
            clock: &self.ground.gateway.clock,
            deadline,
            idle: plan.timeouts.idle,
        };
        let count = |relayed: Relayed| exchange.body_out = relayed.to_client;
        let result = if upgraded {
            relay.upgraded(count).await
        } else {
            relay.body(encoder.filter(|_| !length.is_empty()), &mut source, count).await
        };
        self.exchange.body_in = upload.received();
        self.take_found(&mut upload);
        match result {
            Ok(_) => {
                if let (Ok(Some(task)), Some(copy)) = (&task, &source.copy) {
                    dress::judge_body(&mut self.exchange, task, &copy.bytes, copy.is_whole);
                }
                if !upgraded
                    && upload.is_complete()
                    && let Some(transport) = session.finish()
                {
                    self.ground.worker.pool.keep_h1(way.owner(), way.idle, self.ground.now(), transport);
                }
                if upgraded { Ended::Broken } else { Ended::Clean }
            }
            Err(interruption) => {
                session.cancel();
                let limit = match &interruption {
                    Interruption::Timeout(limit) => Some(*limit),
                    _ => None,
                };
                let trailers = limit.and_then(|limit| fail::trailers(&judge::timeout(limit), &self.exchange.headers));
                match (trailers, &mut self.down) {
                    // A gRPC client whose call took too long is told so in its own words.
                    (Some(trailers), down @ Downstream::H2(_)) => drop(down.end_body(Some(trailers))),
                    (_, down) => down.abort(Reason::INTERNAL_ERROR),
                }
                self.exchange.termination = Some(match interruption {
                    Interruption::ClientGone | Interruption::Upload(_) => Termination::ClientGone,
                    Interruption::Upstream(_) => Termination::UpstreamReset,
                    Interruption::Timeout(limit) if limit.ends_exchange() => Termination::DeadlineExceeded,
                    Interruption::Timeout(_) => Termination::IdleTimeout,
                    Interruption::Encoder => Termination::Internal,
                });
                Ended::Broken
            }
        }
    }

    /// The client, or the exchange's own time, ended the attempt before a head.
    pub(super) async fn interrupted(&mut self, route: &'a Route, interruption: Interruption) -> Ended {
        let rejection = match interruption {
            Interruption::ClientGone | Interruption::Upload(UploadError::Client(ClientError::Gone)) => {
                return self.lost();
            }
            Interruption::Upload(UploadError::TooLarge) => {
                let received = self.exchange.body_in;
                body::too_long(&mut self.exchange, received)
            }
            Interruption::Upload(UploadError::Malformed(fault)) => body::scanned(&mut self.exchange, fault)
                .unwrap_or_else(|| Rejection::new(Code::InvalidRequest, "the body is not as this route asks for")),
            Interruption::Upload(UploadError::TooSlow) => {
                Rejection::new(Code::RequestTimeout, "the request body arrived too slowly")
            }
            Interruption::Upload(UploadError::Client(ClientError::BadBody)) => {
                Rejection::new(Code::BadRequest, "the framing of the request body is broken")
            }
            Interruption::Timeout(limit) => judge::timeout(limit),
            Interruption::Upstream(_) => Rejection::new(Code::UpstreamInvalid, "the upstream's answer is not valid"),
            Interruption::Encoder => Rejection::new(Code::Internal, "the response could not be encoded"),
        };
        self.exchange.fallback = None;
        self.refuse_on(Some(route), rejection).await
    }
}

/// What an attempt's end says of the upstream. `client_s`: it was the client that was waited for.
pub(super) fn attempted(end: &AttemptEnd, client_s: bool) -> Attempted {
    match end {
        AttemptEnd::Answered(_, received) => {
            Attempted::answered(Outcome::Status(received.status()), received.headers())
        }
        AttemptEnd::Failed(attempted) => *attempted,
        // Time that ran out while the upstream was waited for is the upstream's as well.
        AttemptEnd::Interrupted(Interruption::Timeout(limit)) if !client_s => {
            Attempted::failed(Outcome::Timeout(*limit))
        }
        AttemptEnd::Interrupted(_) => Attempted::failed(Outcome::ClientGone),
    }
}
