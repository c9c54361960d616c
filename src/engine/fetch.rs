//! One request of the gateway's own, for a small answer: keys of an issuer, the word of a service. Bounded in size here and in
//! time by the caller; dropping it gives it up.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method};

use super::Live;
use super::attempt::Way;
use super::connect::{Address, Connected, connect};
use super::pool::{Idle, Pool};
use super::upstream_session::{Received, UpstreamError, UpstreamHead, UpstreamSession};
use crate::model::clock::Clock;
use crate::model::outcome::Outcome;
use crate::model::response::{BodyLength, ResponseHead};
use crate::upstream::{Choice, Target, Tried};

/// Interim responses that are taken before the final one.
const MAX_INTERIM: usize = 16;

/// What is asked for; it has no body.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Method.
    pub method: &'a Method,
    /// `Host`.
    pub authority: &'a HeaderValue,
    /// Path and query.
    pub target: &'a str,
    /// Fields.
    pub headers: &'a HeaderMap,
    /// The longest body.
    pub most: usize,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No endpoint has an address.
    #[error("no address to connect to")]
    NoEndpoint,
    /// No connection.
    #[error("no connection: {0}")]
    Connect(#[from] io::Error),
    /// The connection broke, or what came is not HTTP.
    #[error("{0}")]
    Upstream(#[from] UpstreamError),
    /// The body is longer than it may be.
    #[error("the answer is too long")]
    TooLong,
}

/// Asks one of the upstream's endpoints; a pooled connection that turns out to be closed is replaced once.
pub async fn fetch(
    live: &Live,
    upstream: usize,
    request: &Request<'_>,
    pool: Option<&Pool>,
    clock: &Clock,
    random: u64,
) -> Result<(ResponseHead, Bytes), FetchError> {
    let entry = live.snapshot.upstreams.get(upstream).ok_or(FetchError::NoEndpoint)?;
    let metrics = live.metrics.upstreams.get(upstream).ok_or(FetchError::NoEndpoint)?;
    let tried = Tried::default();
    let choice = Choice { random, hash: None, now: clock.now(), tried: &tried };
    let endpoint = entry.upstream.choose(&choice).ok_or(FetchError::NoEndpoint)?;
    let way = Way::new(entry, endpoint, metrics, false);
    let head = UpstreamHead {
        method: request.method,
        scheme: way.endpoint.scheme,
        authority: request.authority,
        target: request.target,
        headers: request.headers,
        length: BodyLength::Absent,
        upgrade: false,
    };
    let began = clock.now();
    let in_flight = way.endpoint.begin(began);
    let pooled = pool.and_then(|pool| pool.take(way.owner(), began));
    let mut result = Err(FetchError::Upstream(UpstreamError::Reset));
    if let Some(idle) = pooled {
        metrics.connections_reused.inc();
        let connected = match idle {
            Idle::H1(transport) => Connected::H1(transport),
            Idle::H2(connection) => Connected::H2(connection),
        };
        result = exchange(connected, &head, request.most, &way, pool, clock).await;
    }
    if matches!(result, Err(FetchError::Upstream(UpstreamError::Reset | UpstreamError::Refused))) {
        result = anew(&head, request.most, &way, pool, clock).await;
    }
    let outcome = match &result {
        Ok((head, _)) => Outcome::Status(head.status),
        Err(FetchError::Connect(_) | FetchError::NoEndpoint) => Outcome::Connect,
        Err(FetchError::Upstream(UpstreamError::Reset | UpstreamError::Refused)) => Outcome::Reset,
        Err(FetchError::Upstream(UpstreamError::Invalid(_)) | FetchError::TooLong) => Outcome::Invalid,
    };
    let now = clock.now();
    in_flight.judged(outcome, now);
    metrics.attempted(outcome, now.since(began));
    result
}

/// Over a new connection.
async fn anew(
    head: &UpstreamHead<'_>,
    most: usize,
    way: &Way<'_>,
    pool: Option<&Pool>,
    clock: &Clock,
) -> Result<(ResponseHead, Bytes), FetchError> {
    let address = match &way.endpoint.target {
        Target::Tcp(address) => Address::Tcp(*address),
        Target::Unix(path) => Address::Unix(path.as_ref().as_ref()),
    };
    let tls = way.tls.map(|tls| (tls, &*way.endpoint.server_name));
    let connecting = tokio::time::timeout(way.connect_timeout, connect(address, tls, way.speak));
    let connected = connecting.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    way.metrics.connections_opened.inc();
    if let (Connected::H2(connection), Some(pool)) = (&connected, pool) {
        pool.share_h2(way.owner(), way.idle, clock.now(), connection.clone());
    }
    exchange(connected, head, most, way, pool, clock).await
}

async fn exchange(
    connected: Connected,
    head: &UpstreamHead<'_>,
    most: usize,
    way: &Way<'_>,
    pool: Option<&Pool>,
    clock: &Clock,
) -> Result<(ResponseHead, Bytes), FetchError> {
    let mut session = match connected {
        Connected::H1(transport) => UpstreamSession::start_h1(transport, head)?,
        Connected::H2(mut connection) => UpstreamSession::start_h2(&mut connection, head)?,
    };
    match answer(&mut session, most).await {
        Ok(answer) => {
            if let (Some(transport), Some(pool)) = (session.finish(), pool) {
                pool.keep_h1(way.owner(), way.idle, clock.now(), transport);
            }
            Ok(answer)
        }
        Err(error) => {
            session.cancel();
            Err(error)
        }
    }
}

async fn answer(session: &mut UpstreamSession, most: usize) -> Result<(ResponseHead, Bytes), FetchError> {
    let mut interims = 0;
    let (head, length) = loop {
        let received = poll_fn(|cx| match session.poll_head(cx) {
            Poll::Pending => match session.poll_flush(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                _ => Poll::Pending,
            },
            ready @ Poll::Ready(_) => ready,
        })
        .await?;
        match received {
            Received::Final(head, length) => break (head, length),
            Received::Interim(_) if interims < MAX_INTERIM => interims += 1,
            Received::Interim(_) => return Err(UpstreamError::Invalid("too many interim responses").into()),
            Received::Upgraded(_) => return Err(UpstreamError::Invalid("an upgrade that nobody asked for").into()),
        }
    };
    let mut body = BytesMut::new();
    while !length.is_empty() {
        let piece = poll_fn(|cx| {
            let polled = session.poll_body(cx);
            polled.map_ok(|piece| piece.map(|piece| add(&mut body, piece.as_slice(), most)))
        })
        .await?;
        match piece {
            None => break,
            Some(true) => {}
            Some(false) => return Err(FetchError::TooLong),
        }
    }
    Ok((head, body.freeze()))
}

/// Adds a piece; `false` when that is too much.
fn add(body: &mut BytesMut, piece: &[u8], most: usize) -> bool {
    let fits = body.len() + piece.len() <= most;
    if fits {
        body.extend_from_slice(piece);
    }
    fits
}
