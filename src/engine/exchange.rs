//! THE LOOP: what happens to a request, from top to bottom. Each step asks the pipeline what to do, and does it.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytes::Bytes;
use h2::Reason;
use http::request::Parts;

use super::Live;
use super::attempt::{AttemptEnd, AttemptLimits, Route as Way, attempt};
use super::complete::complete;
use super::downstream::{ClientError, Downstream};
use super::relay::{Interruption, Relay};
use super::respond;
use super::serve::Ground;
use super::timer::Timer;
use super::upload::{BodyPace, Upload, UploadError};
use super::upstream_session::{Received, UpstreamHead, UpstreamSession};
use crate::model::deadline::Limit;
use crate::model::outcome::{Outcome, Termination};
use crate::model::response::{BodyLength, ResponseHead};
use crate::model::verdict::{Code, Rejection};
use crate::pipeline::admit::{Admission, admit};
use crate::pipeline::attempt::{Plan, plan};
use crate::pipeline::body::{self, BodyRules};
use crate::pipeline::exchange::{AttemptRecord, Exchange};
use crate::pipeline::judge::{Failure, Judgement, judge, rejection};
use crate::pipeline::receive::{Facts, receive};
use crate::pipeline::respond::Upgrading;
use crate::pipeline::route::route;
use crate::pipeline::{fail, respond as dress};
use crate::snapshot::Route;
use crate::upstream::{Choice, Tried};

/// How an exchange left the client's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Whole response sent.
    Clean,
    /// Broken off: nothing more may be sent on this connection (HTTP/1) or stream (HTTP/2).
    Broken,
}

/// Runs one exchange to its end.
pub async fn run(
    ground: &Ground,
    down: Downstream,
    head: Parts,
    fault: Option<Rejection>,
    timer: &mut Timer,
) -> (Downstream, Ended) {
    let live = ground.gateway.live.load_full();
    let facts = Facts {
        peer: ground.info.peer,
        peer_text: Arc::clone(&ground.peer_text),
        local: ground.info.local,
        tls: ground.info.tls.is_some(),
        now: ground.now(),
        random: ground.worker.random_bits(),
    };
    let (exchange, refusal) = receive(&live.snapshot, &facts, head, fault);
    let record = Record { ground, live: &live, exchange, ended: false };
    let mut run = Run { ground, live: &live, down, timer, exchange: record };
    let ended = match refusal {
        Some(rejection) => run.refuse(rejection).await,
        None => run.decide().await,
    };
    run.exchange.ended = true;
    (run.down, ended)
}

/// The record of the exchange. However it ends, also when its task is dropped by a drain that ran out of time, it is
/// counted and logged.
struct Record<'a> {
    ground: &'a Ground,
    live: &'a Arc<Live>,
    exchange: Exchange,
    ended: bool,
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let cut = if std::thread::panicking() { Termination::Internal } else { Termination::Shutdown };
            self.exchange.termination.get_or_insert(cut);
        }
        body::received(&mut self.exchange);
        complete(self.ground, self.live, &self.exchange);
    }
}

impl Deref for Record<'_> {
    type Target = Exchange;
    fn deref(&self) -> &Exchange {
        &self.exchange
    }
}

impl DerefMut for Record<'_> {
    fn deref_mut(&mut self) -> &mut Exchange {
        &mut self.exchange
    }
}

struct Run<'a> {
    ground: &'a Ground,
    live: &'a Arc<Live>,
    down: Downstream,
    timer: &'a mut Timer,
    exchange: Record<'a>,
}

impl<'a> Run<'a> {
    async fn decide(&mut self) -> Ended {
        let snapshot = &self.live.snapshot;
        let route = match route(snapshot, &mut self.exchange) {
            Ok(route) => route,
            Err(rejection) => return self.refuse(rejection).await,
        };
        match admit(route, &mut self.exchange) {
            Admission::Go => self.forward(route).await,
            Admission::Answer(answer) => {
                let mut head = ResponseHead { status: answer.status, headers: answer.headers };
                dress::answer(route, &self.exchange, &mut head);
                self.answer(head, answer.body).await
            }
            Admission::Refuse(rejection) => self.refuse_on(Some(route), rejection).await,
        }
    }

    /// Attempts until one answers or the judge gives up.
    async fn forward(&mut self, route: &'a Route) -> Ended {
        let body_done = self.down.body_done();
        let random = self.ground.worker.random_word();
        let plan = match plan(&self.live.snapshot, route, &mut self.exchange, body_done, random) {
            Ok(plan) => plan,
            Err(rejection) => return self.refuse_on(Some(route), rejection).await,
        };
        let Some(metrics) = self.live.metrics.upstreams.get(plan.upstream_index) else {
            return self.refuse_on(Some(route), Rejection::new(Code::Internal, "no such upstream")).await;
        };
        let mut upload = self.upload(&plan, body_done);
        let limits =
            AttemptLimits { request: plan.request_deadline, attempt: plan.timeouts.attempt, idle: plan.timeouts.idle };
        let mut tried = Tried::default();
        loop {
            let now = self.ground.now();
            let choice = Choice { random: self.ground.worker.random_word(), hash: plan.hash, now, tried: &tried };
            let Some(endpoint) = plan.upstream.upstream.choose(&choice) else {
                let none = || Rejection::new(Code::NoHealthyEndpoint, "the upstream has no endpoint to try");
                let rejection = self.exchange.attempts.last().map_or_else(none, |last| rejection(last.outcome));
                return self.refuse_on(Some(route), rejection).await;
            };
            let in_flight = endpoint.begin(now);
            let way = Way::new(plan.upstream, &endpoint, metrics);
            let head = UpstreamHead {
                method: &plan.method,
                scheme: endpoint.scheme,
                authority: &plan.authority,
                target: plan.target(&self.exchange),
                headers: &plan.headers,
                length: plan.length,
                upgrade: plan.upgrade,
            };
            let sides = (&mut self.down, &mut upload, &mut *self.timer);
            let end = attempt(self.ground, &way, &head, limits, sides, dress::interim).await;
            self.exchange.body_in = upload.received();
            let outcome = match &end {
                AttemptEnd::Answered(_, received) => Outcome::Status(received.status()),
                AttemptEnd::Failed { outcome, .. } => *outcome,
                AttemptEnd::Interrupted(_) => Outcome::ClientGone,
            };
            let took = self.ground.now().since(now);
            in_flight.judged(outcome, self.ground.now());
            metrics.attempted(outcome, took);
            self.exchange.attempts.push(AttemptRecord { endpoint: Arc::clone(&endpoint.address), outcome, took });
            match end {
                AttemptEnd::Answered(session, received) => {
                    return self.relay(route, &plan, &way, session, received, upload).await;
                }
                AttemptEnd::Interrupted(interruption) => return self.interrupted(route, interruption).await,
                AttemptEnd::Failed { outcome, unprocessed, stale } => {
                    let attempts = self.exchange.attempts.len();
                    let failure = Failure { outcome, unprocessed, stale, body_spent: upload.spent, attempts };
                    match judge(&self.exchange.method, failure) {
                        Judgement::Again => {}
                        Judgement::Elsewhere => tried.add(&endpoint),
                        Judgement::GiveUp(rejection) => return self.refuse_on(Some(route), rejection).await,
                    }
                }
            }
        }
    }

    fn upload(&self, plan: &Plan<'_>, body_done: bool) -> Upload {
        let BodyRules { max, paced } = plan.body;
        let limits = &self.ground.info.listener.limits;
        let pace = paced.then_some(BodyPace { rate: limits.min_body_rate.0.0, grace: limits.header_timeout.0 });
        Upload::new(body_done, plan.expects_continue, max, pace)
    }

    /// The upstream has answered: its head and body go to the client.
    async fn relay(
        &mut self,
        route: &'a Route,
        plan: &Plan<'_>,
        way: &Way<'_>,
        mut session: UpstreamSession,
        received: Received,
        mut upload: Upload,
    ) -> Ended {
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
        let request_deadline = plan.deadline_of_response(&head, upgraded);
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
            request_deadline,
            idle: plan.timeouts.idle,
        };
        let count = |relayed: super::relay::Relayed| exchange.body_out = relayed.to_client;
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
                self.down.abort(Reason::INTERNAL_ERROR);
                self.exchange.termination = Some(match interruption {
                    Interruption::ClientGone | Interruption::Upload(_) => Termination::ClientGone,
                    Interruption::Upstream(_) => Termination::UpstreamReset,
                    Interruption::Timeout(Limit::Request) => Termination::DeadlineExceeded,
                    Interruption::Timeout(_) => Termination::IdleTimeout,
                    Interruption::Encoder => Termination::Internal,
                });
                Ended::Broken
            }
        }
    }

    /// The client, or the request's own time, ended the attempt before a head.
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
            Interruption::Timeout(limit) => rejection(Outcome::Timeout(limit)),
            Interruption::Upstream(_) => Rejection::new(Code::UpstreamInvalid, "the upstream's answer is not valid"),
            Interruption::Encoder => Rejection::new(Code::Internal, "the response could not be encoded"),
        };
        self.refuse_on(Some(route), rejection).await
    }

    async fn refuse(&mut self, rejection: Rejection) -> Ended {
        self.refuse_on(None, rejection).await
    }

    async fn refuse_on(&mut self, route: Option<&Route>, rejection: Rejection) -> Ended {
        self.exchange.rejection = Some(rejection.code);
        self.ground.gateway.telemetry.metrics.rejected(rejection.code);
        let (mut head, body) =
            fail::response(&rejection, Some(&self.exchange.headers), Some(&self.exchange.request_id));
        dress::own(route, &self.exchange, &mut head);
        if rejection.code.closes_connection()
            && let Downstream::H1(h1) = &mut self.down
        {
            h1.close_after();
        }
        self.answer(head, body).await
    }

    /// Sends a response of our own.
    async fn answer(&mut self, head: ResponseHead, body: Bytes) -> Ended {
        self.take_leftovers();
        let status = head.status;
        let idle = self.ground.info.listener.limits.idle_timeout.0;
        let timing = (&mut *self.timer, &self.ground.gateway.clock, idle);
        match respond::whole(&mut self.down, &self.exchange.method, head, body, timing).await {
            Ok(sent) => {
                self.exchange.status = Some(status);
                self.exchange.body_out = sent;
                Ended::Clean
            }
            Err(_) => self.lost(),
        }
    }

    /// A body that has arrived already is taken, so that the connection can go on; for one that has not, it ends.
    fn take_leftovers(&mut self) {
        const AT_HAND: usize = 64 * 1024;
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let mut taken = 0;
        while taken <= AT_HAND && !self.down.body_done() {
            match self.down.poll_body(&mut cx) {
                std::task::Poll::Ready(Ok(Some(piece))) => taken += piece.len(),
                _ => break,
            }
        }
        self.exchange.body_in += taken as u64;
        if !self.down.body_done()
            && let Downstream::H1(h1) = &mut self.down
        {
            h1.close_after();
        }
    }

    fn lost(&mut self) -> Ended {
        self.exchange.termination = Some(Termination::ClientGone);
        self.down.abort(Reason::CANCEL);
        Ended::Broken
    }
}
