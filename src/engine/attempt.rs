//! One attempt: a connection from the pool or a new one, the head out, the upload alongside, the response head in.
//!
//! Retries are a loop around this function; it decides nothing about them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use super::connect::{Address, Connected, Speak, connect};
use super::downstream::Downstream;
use super::pool::{Idle, IdleLimits, Owner};
use super::relay::{Interruption, Relay};
use super::serve::Ground;
use super::timer::Timer;
use super::upload::Upload;
use super::upstream_session::{Received, UpstreamError, UpstreamHead, UpstreamSession};
use crate::model::deadline::{Deadline, Limit};
use crate::model::outcome::Outcome;
use crate::model::request::Scheme;
use crate::model::response::ResponseHead;
use crate::snapshot::UpstreamEntry;
use crate::telemetry::metrics::UpstreamMetrics;
use crate::upstream::{Endpoint, Protocol, Target};

/// What an attempt needs to know of where it goes.
pub struct Route<'a> {
    /// The chosen endpoint.
    pub endpoint: &'a Arc<Endpoint>,
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
}

impl<'a> Route<'a> {
    /// Whose connections the pool keeps for this way.
    #[must_use]
    pub fn owner(&self) -> Owner<'a> {
        Owner { endpoint: self.endpoint, tls: self.tls, metrics: self.metrics }
    }

    /// The way to `endpoint`, one of `entry`'s.
    #[must_use]
    pub fn new(entry: &'a UpstreamEntry, endpoint: &'a Arc<Endpoint>, metrics: &'a Arc<UpstreamMetrics>) -> Self {
        let settings = entry.upstream.settings();
        Self {
            endpoint,
            tls: entry.tls.as_ref().filter(|_| endpoint.scheme == Scheme::Https),
            speak: match settings.protocol {
                Protocol::H1 => Speak::H1,
                Protocol::H2 => Speak::H2,
                Protocol::Auto => Speak::Negotiate,
            },
            connect_timeout: settings.connect_timeout,
            idle: IdleLimits { idle: settings.idle, idle_timeout: settings.idle_timeout },
            metrics,
        }
    }
}

/// The limits of an attempt.
#[derive(Debug, Clone, Copy)]
pub struct AttemptLimits {
    /// `timeout.request`, unless the exchange is exempt.
    pub request: Option<Deadline>,
    /// `timeout.attempt`.
    pub attempt: Duration,
    /// `timeout.idle`.
    pub idle: Duration,
}

/// How an attempt ended.
#[expect(clippy::large_enum_variant, reason = "one value per attempt, and the large variant is the common one")]
pub enum AttemptEnd {
    /// A final head, or an upgrade; the body is still to be relayed.
    Answered(UpstreamSession, Received),
    /// The upstream failed before a head.
    Failed {
        /// How, for everybody who judges it.
        outcome: Outcome,
        /// The upstream has certainly not processed the request.
        unprocessed: bool,
        /// It was a pooled connection, which its peer may have closed before it saw the request.
        stale: bool,
    },
    /// The client is to blame, or has left, or the request's own time is over.
    Interrupted(Interruption),
}

/// Makes one attempt. `interim` prepares an interim head for the client.
pub async fn attempt(
    ground: &Ground,
    route: &Route<'_>,
    head: &UpstreamHead<'_>,
    limits: AttemptLimits,
    (down, upload, timer): (&mut Downstream, &mut Upload, &mut Timer),
    interim: impl FnMut(&mut ResponseHead),
) -> AttemptEnd {
    let (connected, reused) = match connection(ground, route, limits.request, (down, timer)).await {
        Ok(connected) => connected,
        Err(end) => return end,
    };
    let mut session = match start(connected, head) {
        Ok(session) => session,
        Err(error) => return failed(&error, reused),
    };
    let result = Relay {
        down,
        up: &mut session,
        upload,
        timer,
        clock: &ground.gateway.clock,
        request_deadline: limits.request,
        idle: limits.idle,
    }
    .head(limits.attempt, interim)
    .await;
    match result {
        Ok(received) => AttemptEnd::Answered(session, received),
        Err(Interruption::Upstream(error)) => failed(&error, reused),
        Err(Interruption::Timeout(limit @ (Limit::Attempt | Limit::Idle))) => {
            session.cancel();
            AttemptEnd::Failed { outcome: Outcome::Timeout(limit), unprocessed: false, stale: false }
        }
        Err(interruption) => {
            session.cancel();
            AttemptEnd::Interrupted(interruption)
        }
    }
}

fn start(connected: Connected, head: &UpstreamHead<'_>) -> Result<UpstreamSession, UpstreamError> {
    match connected {
        Connected::H1(transport) => UpstreamSession::start_h1(transport, head),
        Connected::H2(mut connection) => UpstreamSession::start_h2(&mut connection, head),
    }
}

fn failed(error: &UpstreamError, reused: bool) -> AttemptEnd {
    let outcome = match error {
        UpstreamError::Reset | UpstreamError::Refused => Outcome::Reset,
        UpstreamError::Invalid(_) => Outcome::Invalid,
    };
    AttemptEnd::Failed {
        outcome,
        unprocessed: *error == UpstreamError::Refused,
        stale: reused && matches!(error, UpstreamError::Reset | UpstreamError::Refused),
    }
}

/// A connection and whether it has been used before.
async fn connection(
    ground: &Ground,
    route: &Route<'_>,
    request: Option<Deadline>,
    (down, timer): (&mut Downstream, &mut Timer),
) -> Result<(Connected, bool), AttemptEnd> {
    let clock = &ground.gateway.clock;
    match ground.worker.pool.take(route.owner(), clock.now()) {
        Some(Idle::H1(transport)) => {
            route.metrics.connections_reused.inc();
            return Ok((Connected::H1(transport), true));
        }
        Some(Idle::H2(connection)) => {
            route.metrics.connections_reused.inc();
            return Ok((Connected::H2(connection), true));
        }
        None => {}
    }
    let mut deadline = Deadline::new(clock.now(), route.connect_timeout, Limit::Connect);
    if let Some(request) = request {
        deadline = deadline.min(request);
    }
    let address = match &route.endpoint.target {
        Target::Tcp(address) => Address::Tcp(*address),
        Target::Unix(path) => Address::Unix(path.as_ref().as_ref()),
    };
    let mut connecting =
        std::pin::pin!(connect(address, route.tls.map(|tls| (tls, &*route.endpoint.server_name)), route.speak));
    let connected = std::future::poll_fn(|cx| {
        use std::task::Poll;
        if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
            return Poll::Ready(Ok(connected));
        }
        if down.body_done() && down.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(Interruption::ClientGone));
        }
        timer.poll_until(cx, clock, deadline.at).map(|()| Err(Interruption::Timeout(deadline.limit)))
    })
    .await;
    match connected {
        Ok(Ok(connected)) => {
            route.metrics.connections_opened.inc();
            if let Connected::H2(connection) = &connected {
                ground.worker.pool.share_h2(route.owner(), route.idle, clock.now(), connection.clone());
            }
            Ok((connected, false))
        }
        Ok(Err(error)) => Err(unconnected(route, &error)),
        Err(Interruption::Timeout(Limit::Connect)) => {
            Err(AttemptEnd::Failed { outcome: Outcome::Timeout(Limit::Connect), unprocessed: true, stale: false })
        }
        Err(interruption) => Err(AttemptEnd::Interrupted(interruption)),
    }
}

fn unconnected(route: &Route<'_>, error: &io::Error) -> AttemptEnd {
    tracing::debug!(endpoint = %route.endpoint.address, %error, "no connection to the upstream");
    AttemptEnd::Failed { outcome: Outcome::Connect, unprocessed: true, stale: false }
}
