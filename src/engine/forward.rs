//! Sends a request upstream until it is answered: attempts, the waits between them, and what stands in when all fail.
//!
//! Each step asks the pipeline what to do, and does it. What is decided is decided in `pipeline::judge`; here are the
//! connections, the waiting and the order of things.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use h2::Reason;

use super::attempt::{AttemptEnd, AttemptLimits, Way, attempt};
use super::downstream::{ClientError, Downstream};
use super::exchange::{Ended, Run};
use super::hedge::Race;
use super::relay::{Interruption, Relay, Relayed};
use super::respond;
use super::upload::{BodyPace, Upload, UploadError};
use super::upstream_session::{Received, UpstreamHead, UpstreamSession};
use crate::model::clock::Instant;
use crate::model::outcome::{Outcome, StandIn, Termination};
use crate::model::response::{BodyLength, ResponseHead};
use crate::model::verdict::{Code, Decision, PolicyName, Rejection, Verdict};
use crate::pipeline::attempt::{Plan, Step, plan};
use crate::pipeline::body::{self, BodyRules};
use crate::pipeline::exchange::AttemptRecord;
use crate::pipeline::fail;
use crate::pipeline::judge::{self, Attempted, History, Judgement, Means, judge};
use crate::pipeline::respond::{self as dress, Upgrading};
use crate::snapshot::Route;
use crate::telemetry::metrics::UpstreamMetrics;
use crate::upstream::{Choice, Endpoint, InFlight, Tried};

/// An attempt that has ended, and where it went.
pub(super) struct Tryout<'a> {
    pub(super) way: Way<'a>,
    pub(super) in_flight: InFlight,
    pub(super) end: AttemptEnd,
    pub(super) began: Instant,
}

/// What became of asking one upstream.
enum Asked<'a> {
    /// An answer for the client, and the attempt that counts as under way until it is relayed.
    Answered(Answer<'a>, InFlight),
    /// All that may be tried has failed.
    Failed(Failure),
    /// The client, or the exchange's own time, ended it.
    Over(Interruption),
}

/// An answer whose body has not been read yet.
pub(super) struct Answer<'a> {
    pub(super) way: Way<'a>,
    pub(super) session: UpstreamSession,
    pub(super) received: Received,
    /// What it stands in for.
    fallback: Option<(StandIn, Code)>,
}

/// Why an upstream gave no answer that counts as one.
struct Failure {
    /// What the client is told, unless something stands in.
    rejection: Rejection,
    /// The last attempt; `None` when none was made.
    attempted: Option<Attempted>,
}

impl<'a> Run<'a> {
    /// Asks the route's upstream, then what stands in for it, in its order.
    pub(super) async fn forward(&mut self, route: &'a Route) -> Ended {
        let body_done = self.down.body_done();
        let random = self.ground.worker.random_word();
        let mut plan = match plan(&self.live.snapshot, route, &mut self.exchange, body_done, random) {
            Ok(plan) => plan,
            Err(rejection) => return self.refuse_on(Some(route), rejection).await,
        };
        let mut upload = self.upload(&plan, body_done);
        // The last real answer of an upstream: better than a refusal of ours.
        let mut held = None;
        let mut failure = match self.ask(&mut plan, &mut upload, &mut held).await {
            Asked::Failed(failure) => failure,
            ended => return self.conclude(route, &plan, ended, upload).await,
        };
        let cause = failure.rejection.code;
        for step in plan.fallback {
            match step {
                Step::Upstream(index) => {
                    let (retry, can_restart) = (plan.retry, upload.can_restart());
                    if !judge::may_go_elsewhere(&self.exchange.method, failure.attempted, retry, can_restart) {
                        self.decided(
                            PolicyName::Fallback,
                            Verdict::Allow,
                            "no other upstream: this one may have processed it",
                        );
                        continue;
                    }
                    if let Err(rejection) = plan.turn_to(&self.live.snapshot, &mut self.exchange, *index) {
                        return self.refuse_on(Some(route), rejection).await;
                    }
                    self.exchange.fallback = Some((StandIn::Upstream, cause));
                    self.decided(PolicyName::Fallback, Verdict::Apply, "another upstream was asked");
                    failure = match self.ask(&mut plan, &mut upload, &mut held).await {
                        Asked::Failed(Failure { rejection, attempted }) => {
                            Failure { rejection, attempted: attempted.or(failure.attempted) }
                        }
                        ended => return self.conclude(route, &plan, ended, upload).await,
                    };
                }
                Step::Status(answer) => {
                    self.exchange.fallback = Some((StandIn::Status, cause));
                    self.decided(PolicyName::Fallback, Verdict::Answer, "a fixed response stood in");
                    let mut head = ResponseHead { status: answer.status, headers: answer.headers.clone() };
                    dress::answer(route, &self.exchange, &mut head);
                    return self.answer(head, answer.body.clone()).await;
                }
            }
        }
        self.exchange.fallback = None;
        match held {
            Some(answer) => self.relay(route, &plan, answer, upload).await,
            None => self.refuse_on(Some(route), failure.rejection).await,
        }
    }

    async fn conclude(&mut self, route: &'a Route, plan: &Plan<'a>, ended: Asked<'a>, upload: Upload) -> Ended {
        match ended {
            Asked::Answered(answer, _under_way) => self.relay(route, plan, answer, upload).await,
            Asked::Over(interruption) => self.interrupted(route, interruption).await,
            Asked::Failed(failure) => self.refuse_on(Some(route), failure.rejection).await,
        }
    }

    /// Attempts at the plan's upstream until one answers or the judge gives up. `held` gets the last answer that was not
    /// good enough.
    async fn ask(&mut self, plan: &mut Plan<'a>, upload: &mut Upload, held: &mut Option<Answer<'a>>) -> Asked<'a> {
        let upstream = &plan.upstream.upstream;
        let Some(metrics) = self.live.metrics.upstreams.get(plan.upstream_index) else {
            let rejection = Rejection::new(Code::Internal, "no such upstream");
            return Asked::Failed(Failure { rejection, attempted: None });
        };
        upstream.demand().budget.request(self.ground.now());
        let mut tried = Tried::default();
        let mut history = History { attempts: 0, replaced: false, can_restart: true };
        let mut failure: Option<Failure> = None;
        loop {
            let Some(endpoint) = self.choose(plan, &mut tried) else {
                let rejection = Rejection::new(Code::NoHealthyEndpoint, "the upstream has no endpoint to try");
                return Asked::Failed(failure.unwrap_or(Failure { rejection, attempted: None }));
            };
            upload.restart();
            plan.tell_time_left(self.ground.now());
            let Tryout { way, in_flight, end, began } =
                match self.attempt(plan, metrics, endpoint, &mut tried, upload, history).await {
                    Ok(tryout) => tryout,
                    Err(interruption) => return Asked::Over(interruption),
                };
            upload.stop_waiting(&self.ground.gateway.clock);
            self.exchange.body_in = upload.received();
            let attempted = match &end {
                AttemptEnd::Answered(_, received) => {
                    Attempted::answered(Outcome::Status(received.status()), received.headers())
                }
                AttemptEnd::Failed(attempted) => *attempted,
                AttemptEnd::Interrupted(_) => Attempted::failed(Outcome::ClientGone),
            };
            self.record(metrics, &way, &in_flight, attempted.outcome, began);
            let answer = match end {
                AttemptEnd::Answered(session, received) => {
                    Some(Answer { way, session, received, fallback: self.exchange.fallback })
                }
                AttemptEnd::Failed(_) => None,
                AttemptEnd::Interrupted(interruption) => return Asked::Over(interruption),
            };
            history.attempts += 1;
            history.can_restart = upload.can_restart();
            let means = Means {
                retry: plan.retry,
                budget: &upstream.demand().budget,
                deadline: plan.deadline,
                now: self.ground.now(),
                random: self.ground.worker.random_word(),
            };
            match (judge(&self.exchange.method, attempted, history, &means), answer) {
                (Judgement::Accept, Some(answer)) => return Asked::Answered(answer, in_flight),
                (Judgement::Replace, _) => {
                    history.attempts -= 1;
                    history.replaced = true;
                }
                (Judgement::Again(wait), answer) => {
                    metrics.retried();
                    self.decided(PolicyName::Retry, Verdict::Apply, attempted.outcome.retried());
                    tried.add(in_flight.endpoint());
                    drop(in_flight);
                    self.hold(held, answer);
                    failure =
                        Some(Failure { rejection: judge::rejection(attempted.outcome), attempted: Some(attempted) });
                    if let Err(interruption) = self.pause(wait, plan).await {
                        return Asked::Over(interruption);
                    }
                }
                (Judgement::GiveUp(reason), answer) => {
                    if reason == judge::Reason::Budget {
                        metrics.retry_denied();
                    }
                    if plan.retry.is_some() && reason != judge::Reason::NotCovered {
                        self.decided(PolicyName::Retry, Verdict::Allow, reason.as_str());
                    }
                    self.hold(held, answer);
                    let rejection = judge::rejection(attempted.outcome);
                    return Asked::Failed(Failure { rejection, attempted: Some(attempted) });
                }
                (Judgement::Accept, None) => {
                    let rejection = judge::rejection(attempted.outcome);
                    return Asked::Failed(Failure { rejection, attempted: Some(attempted) });
                }
            }
        }
    }

    /// An endpoint that was not tried; once each had its turn, any.
    fn choose(&self, plan: &Plan<'a>, tried: &mut Tried) -> Option<Arc<Endpoint>> {
        let (random, now) = (self.ground.worker.random_word(), self.ground.now());
        let upstream = &plan.upstream.upstream;
        let untried = upstream.choose(&Choice { random, hash: plan.hash, now, tried });
        if untried.is_none() && !tried.is_empty() {
            tried.clear();
            return upstream.choose(&Choice { random, hash: plan.hash, now, tried });
        }
        untried
    }

    /// One attempt, or two beside each other.
    async fn attempt(
        &mut self,
        plan: &Plan<'a>,
        metrics: &'a Arc<UpstreamMetrics>,
        endpoint: Arc<Endpoint>,
        tried: &mut Tried,
        upload: &mut Upload,
        history: History,
    ) -> Result<Tryout<'a>, Interruption> {
        let quantiles = &plan.upstream.upstream.demand().quantiles;
        let has_body = !upload.is_complete();
        let delay = plan.hedge.filter(|_| history.attempts == 0 && !history.replaced && !plan.upgrade);
        let delay =
            delay.and_then(|hedge| hedge.delay(&self.exchange.method, has_body, |percent| quantiles.quantile(percent)));
        let tryout = match delay {
            Some(delay) => {
                let target = plan.target(&self.exchange);
                let race = Race { ground: self.ground, plan, metrics, target, delay };
                let raced = race.run(endpoint, &mut self.down).await?;
                if raced.hedged {
                    metrics.hedged(raced.second_won);
                    self.decided(PolicyName::Hedge, Verdict::Apply, "a second attempt started beside the first");
                }
                for (endpoint, outcome, took) in raced.others {
                    metrics.attempted(outcome, took);
                    tried.add(&endpoint);
                    let endpoint = Arc::clone(&endpoint.address);
                    self.exchange.attempts.push(AttemptRecord { endpoint, outcome, took });
                }
                raced.winner
            }
            None => {
                let began = self.ground.now();
                let in_flight = endpoint.begin(began);
                let way = Way::new(plan.upstream, endpoint, metrics, history.replaced);
                let head = UpstreamHead::of(plan, plan.target(&self.exchange), way.endpoint.scheme);
                let limits = AttemptLimits::of(plan);
                let sides = (&mut self.down, upload, &mut *self.timer);
                let end = attempt(self.ground, &way, &head, limits, sides, dress::interim).await;
                Tryout { way, in_flight, end, began }
            }
        };
        if plan.hedge.is_some() && matches!(tryout.end, AttemptEnd::Answered(..)) {
            quantiles.record(self.ground.now().since(tryout.began));
        }
        Ok(tryout)
    }

    fn record(
        &mut self,
        metrics: &UpstreamMetrics,
        way: &Way<'_>,
        in_flight: &InFlight,
        outcome: Outcome,
        began: Instant,
    ) {
        let now = self.ground.now();
        let took = now.since(began);
        in_flight.judged(outcome, now);
        metrics.attempted(outcome, took);
        let endpoint = Arc::clone(&way.endpoint.address);
        self.exchange.attempts.push(AttemptRecord { endpoint, outcome, took });
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

    fn decided(&mut self, policy: PolicyName, verdict: Verdict, reason: &'static str) {
        self.exchange.decisions.push(Decision { policy, verdict, reason: reason.into() });
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
        let upgrading = if upgraded { Upgrading::Yes } else { Upgrading::No };
        let encoder = match dress::finish(route, &mut self.exchange, &mut head, length, upgrading) {
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
        self.down.hold(true);
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
            relay.body(encoder.filter(|_| !length.is_empty()), count).await
        };
        self.exchange.body_in = upload.received();
        match result {
            Ok(_) => {
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
    async fn interrupted(&mut self, route: &'a Route, interruption: Interruption) -> Ended {
        let rejection = match interruption {
            Interruption::ClientGone | Interruption::Upload(UploadError::Client(ClientError::Gone)) => {
                return self.lost();
            }
            Interruption::Upload(UploadError::TooLarge) => {
                let received = self.exchange.body_in;
                body::too_long(&mut self.exchange, received)
            }
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
