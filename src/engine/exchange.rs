//! THE LOOP: what happens to a request, from top to bottom. Each step asks the pipeline what to do, and does it.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytes::Bytes;
use h2::Reason;
use http::request::Parts;

use super::Live;
use super::complete::complete;
use super::downstream::Downstream;
use super::respond;
use super::serve::Ground;
use super::timer::Timer;
use crate::model::clock::Instant;
use crate::model::outcome::Termination;
use crate::model::response::ResponseHead;
use crate::model::verdict::Rejection;
use crate::pipeline::admit::{Admission, admit};
use crate::pipeline::body;
use crate::pipeline::exchange::Exchange;
use crate::pipeline::receive::{Facts, receive};
use crate::pipeline::route::route;
use crate::pipeline::{fail, respond as dress};
use crate::snapshot::Route;

/// How an exchange left the client's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Whole response sent.
    Clean,
    /// Broken off: nothing more may be sent on this connection (HTTP/1) or stream (HTTP/2).
    Broken,
}

/// Runs one exchange, whose head `began` to come then, to its end.
pub async fn run(
    ground: &Ground,
    down: Downstream,
    head: Parts,
    fault: Option<Rejection>,
    began: Instant,
    timer: &mut Timer,
) -> (Downstream, Ended) {
    let live = ground.gateway.live.load_full();
    let facts = Facts {
        peer: ground.info.peer,
        peer_text: Arc::clone(&ground.peer_text),
        local: ground.info.local,
        tls: ground.info.tls.is_some(),
        now: began,
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
pub(super) struct Record<'a> {
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

/// An exchange on its way. What it does to be answered by an upstream is in `forward`.
pub(super) struct Run<'a> {
    pub(super) ground: &'a Ground,
    pub(super) live: &'a Arc<Live>,
    pub(super) down: Downstream,
    pub(super) timer: &'a mut Timer,
    pub(super) exchange: Record<'a>,
}

impl Run<'_> {
    async fn decide(&mut self) -> Ended {
        let snapshot = &self.live.snapshot;
        let route = match route(snapshot, &mut self.exchange) {
            Ok(route) => route,
            Err(rejection) => return self.refuse(rejection).await,
        };
        match admit(route, &mut self.exchange, self.ground.now()) {
            Admission::Go => self.forward(route).await,
            Admission::Answer(answer) => {
                let mut head = ResponseHead { status: answer.status, headers: answer.headers };
                dress::answer(route, &self.exchange, &mut head);
                self.answer(head, answer.body).await
            }
            Admission::Refuse(rejection) => self.refuse_on(Some(route), rejection).await,
        }
    }

    async fn refuse(&mut self, rejection: Rejection) -> Ended {
        self.refuse_on(None, rejection).await
    }

    pub(super) async fn refuse_on(&mut self, route: Option<&Route>, rejection: Rejection) -> Ended {
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
    pub(super) async fn answer(&mut self, head: ResponseHead, body: Bytes) -> Ended {
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

    pub(super) fn lost(&mut self) -> Ended {
        self.exchange.termination = Some(Termination::ClientGone);
        self.down.abort(Reason::CANCEL);
        Ended::Broken
    }
}
