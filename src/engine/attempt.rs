//! One attempt: a connection from the pool or a new one, the head out, the upload alongside, the response head in.
//!
//! Retries are a loop around this function; it decides nothing about them.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustls::ClientConfig;

use super::connect::{Address, Connected, Speak, connect};
use super::downstream::Downstream;
use super::pool::{Idle, IdleLimits, Owner};
use super::relay::{Interruption, MAX_INTERIM, Relay};
use super::serve::Ground;
use super::timer::Timer;
use super::upload::Upload;
use super::upstream_session::{Received, UpstreamError, UpstreamHead, UpstreamSession};
use crate::model::deadline::{Deadline, Limit};
use crate::model::outcome::Outcome;
use crate::model::request::Scheme;
use crate::model::response::ResponseHead;
use crate::pipeline::attempt::Plan;
use crate::pipeline::judge::Attempted;
use crate::snapshot::UpstreamEntry;
use crate::telemetry::metrics::UpstreamMetrics;
use crate::upstream::{Endpoint, Protocol, Target};

/// What an attempt needs to know of where it goes.
pub struct Way<'a> {
    /// The chosen endpoint.
    pub endpoint: Arc<Endpoint>,
    /// TLS, for `https://` endpoints.
    pub tls: Option<&'a Arc<ClientConfig>>,
    /// The version of HTTP.
    pub speak: Speak,
    /// `connect_timeout`.
    pub connect_timeout: Duration,
    /// `pool`.
    pub idle: IdleLimits,
    /// Counts connections.
    pub metrics: &'a Arc<UpstreamMetrics>,
    /// Not by a connection from the pool: one of those was closed already.
    fresh: bool,
}

impl<'a> Way<'a> {
    /// Whose connections the pool keeps for this way.
    #[must_use]
    pub fn owner(&self) -> Owner<'_> {
        Owner { endpoint: &self.endpoint, tls: self.tls, metrics: self.metrics }
    }

    /// The way to `endpoint`, one of `entry`'s; with `fresh` on a new connection.
    #[must_use]
    pub fn new(
        entry: &'a UpstreamEntry,
        endpoint: Arc<Endpoint>,
        metrics: &'a Arc<UpstreamMetrics>,
        fresh: bool,
    ) -> Self {
        let settings = entry.upstream.settings();
        Self {
            tls: entry.tls.as_ref().filter(|_| endpoint.scheme == Scheme::Https),
            endpoint,
            speak: match settings.protocol {
                Protocol::H1 => Speak::H1,
                Protocol::H2 => Speak::H2,
                Protocol::Auto => Speak::Negotiate,
            },
            connect_timeout: settings.connect_timeout,
            idle: IdleLimits { idle: settings.idle, idle_timeout: settings.idle_timeout },
            metrics,
            fresh,
        }
    }
}

/// The limits of an attempt.
#[derive(Debug, Clone, Copy)]
pub struct AttemptLimits {
    /// When the exchange ends at the latest.
    pub exchange: Option<Deadline>,
    /// `timeout.attempt`.
    pub attempt: Duration,
    /// `timeout.idle`.
    pub idle: Duration,
}

impl AttemptLimits {
    /// Those of a plan.
    #[must_use]
    pub fn of(plan: &Plan<'_>) -> Self {
        Self { exchange: plan.deadline, attempt: plan.timeouts.attempt, idle: plan.timeouts.idle }
    }
}

/// How an attempt ended.
#[expect(clippy::large_enum_variant, reason = "one value per attempt, and the large variant is the common one")]
pub enum AttemptEnd {
    /// A final head, or an upgrade; the body is still to be relayed.
    Answered(UpstreamSession, Received),
    /// The upstream failed before a head.
    Failed(Attempted),
    /// The client is to blame, or has left, or the request's own time is over.
    Interrupted(Interruption),
}

/// Makes one attempt. `interim` prepares an interim head for the client.
pub async fn attempt(
    ground: &Ground,
    way: &Way<'_>,
    head: &UpstreamHead<'_>,
    limits: AttemptLimits,
    (down, upload, timer): (&mut Downstream, &mut Upload, &mut Timer),
    interim: impl FnMut(&mut ResponseHead),
) -> AttemptEnd {
    let (mut session, reused) = match begin(ground, way, head, limits.exchange, (Some(&mut *down), timer)).await {
        Ok(begun) => begun,
        Err(end) => return end,
    };
    let result = Relay {
        down,
        up: &mut session,
        upload,
        timer,
        clock: &ground.gateway.clock,
        deadline: limits.exchange,
        idle: limits.idle,
    }
    .head(limits.attempt, interim)
    .await;
    ended(session, reused, result)
}

/// Makes one attempt that has no body and no client to itself: interim heads are passed over.
pub async fn attempt_alone(
    ground: &Ground,
    way: &Way<'_>,
    head: &UpstreamHead<'_>,
    limits: AttemptLimits,
    timer: &mut Timer,
) -> AttemptEnd {
    let clock = &ground.gateway.clock;
    let (mut session, reused) = match begin(ground, way, head, limits.exchange, (None, timer)).await {
        Ok(begun) => begun,
        Err(end) => return end,
    };
    let mut deadline = Deadline::new(clock.now(), limits.attempt, Limit::Attempt);
    if let Some(exchange) = limits.exchange {
        deadline = deadline.min(exchange);
    }
    let mut interims = 0;
    let result = std::future::poll_fn(|cx| {
        while let Poll::Ready(head) = session.poll_head(cx) {
            match head {
                Ok(Received::Interim(_)) if interims < MAX_INTERIM => interims += 1,
                Ok(Received::Interim(_)) => {
                    let flood = UpstreamError::Invalid("too many interim responses");
                    return Poll::Ready(Err(Interruption::Upstream(flood)));
                }
                Ok(head) => return Poll::Ready(Ok(head)),
                Err(error) => return Poll::Ready(Err(Interruption::Upstream(error))),
            }
        }
        if let Poll::Ready(Err(error)) = session.poll_flush(cx) {
            return Poll::Ready(Err(Interruption::Upstream(error)));
        }
        timer.poll_until(cx, clock, deadline.at).map(|()| Err(Interruption::Timeout(deadline.limit)))
    })
    .await;
    ended(session, reused, result)
}

/// A connection with the head on its way, and whether the connection has been used before.
async fn begin(
    ground: &Ground,
    way: &Way<'_>,
    head: &UpstreamHead<'_>,
    deadline: Option<Deadline>,
    sides: (Option<&mut Downstream>, &mut Timer),
) -> Result<(UpstreamSession, bool), AttemptEnd> {
    let (connected, reused) = connection(ground, way, deadline, sides).await?;
    start(connected, head).map(|session| (session, reused)).map_err(|error| failed(&error, reused))
}

fn ended(session: UpstreamSession, reused: bool, result: Result<Received, Interruption>) -> AttemptEnd {
    match result {
        Ok(received) => AttemptEnd::Answered(session, received),
        Err(Interruption::Upstream(error)) => failed(&error, reused),
        Err(Interruption::Timeout(limit @ (Limit::Attempt | Limit::Idle))) => {
            session.cancel();
            AttemptEnd::Failed(Attempted::failed(Outcome::Timeout(limit)))
        }
        Err(interruption) => {
            session.cancel();
            AttemptEnd::Interrupted(interruption)
        }
    }
}

fn start(connected: Connected, head: &UpstreamHead<'_>) -> Result<UpstreamSession, UpstreamError> {
    match connected {
        Connected::H1(transport) => Ok(UpstreamSession::start_h1(transport, head)),
        Connected::H2(mut connection) => UpstreamSession::start_h2(&mut connection, head),
    }
}

fn failed(error: &UpstreamError, reused: bool) -> AttemptEnd {
    let outcome = match error {
        UpstreamError::Reset | UpstreamError::Refused => Outcome::Reset,
        UpstreamError::Invalid(_) => Outcome::Invalid,
    };
    AttemptEnd::Failed(Attempted {
        unprocessed: *error == UpstreamError::Refused,
        stale: reused && matches!(error, UpstreamError::Reset | UpstreamError::Refused),
        ..Attempted::failed(outcome)
    })
}

/// A connection and whether it has been used before.
async fn connection(
    ground: &Ground,
    way: &Way<'_>,
    exchange: Option<Deadline>,
    (mut down, timer): (Option<&mut Downstream>, &mut Timer),
) -> Result<(Connected, bool), AttemptEnd> {
    let clock = &ground.gateway.clock;
    let pooled = if way.fresh { None } else { ground.worker.pool.take(way.owner(), clock.now()) };
    match pooled {
        Some(Idle::H1(transport)) => {
            way.metrics.connections_reused.inc();
            return Ok((Connected::H1(transport), true));
        }
        Some(Idle::H2(connection)) => {
            way.metrics.connections_reused.inc();
            return Ok((Connected::H2(connection), true));
        }
        None => {}
    }
    let mut deadline = Deadline::new(clock.now(), way.connect_timeout, Limit::Connect);
    if let Some(exchange) = exchange {
        deadline = deadline.min(exchange);
    }
    let address = match &way.endpoint.target {
        Target::Tcp(address) => Address::Tcp(*address),
        Target::Unix(path) => Address::Unix(path.as_ref().as_ref()),
    };
    let mut connecting =
        std::pin::pin!(connect(address, way.tls.map(|tls| (tls, &*way.endpoint.server_name)), way.speak));
    let connected = std::future::poll_fn(|cx| {
        if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
            return Poll::Ready(Ok(connected));
        }
        if let Some(down) = down.as_deref_mut()
            && down.body_done()
            && down.poll_gone(cx).is_ready()
        {
            return Poll::Ready(Err(Interruption::ClientGone));
        }
        timer.poll_until(cx, clock, deadline.at).map(|()| Err(Interruption::Timeout(deadline.limit)))
    })
    .await;
    match connected {
        Ok(Ok(connected)) => {
            way.metrics.connections_opened.inc();
            if let Connected::H2(connection) = &connected {
                ground.worker.pool.share_h2(way.owner(), way.idle, clock.now(), connection.clone());
            }
            Ok((connected, false))
        }
        Ok(Err(error)) => {
            tracing::debug!(endpoint = %way.endpoint.address, %error, "no connection to the upstream");
            Err(AttemptEnd::Failed(Attempted { unprocessed: true, ..Attempted::failed(Outcome::Connect) }))
        }
        Err(Interruption::Timeout(limit @ Limit::Connect)) => {
            Err(AttemptEnd::Failed(Attempted { unprocessed: true, ..Attempted::failed(Outcome::Timeout(limit)) }))
        }
        Err(interruption) => Err(AttemptEnd::Interrupted(interruption)),
    }
}
