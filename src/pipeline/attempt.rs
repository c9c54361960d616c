//! What goes upstream: which upstream, by which name, under which limits, with which head.

use std::time::Duration;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST, HeaderValue, UPGRADE};
use http::{HeaderMap, Method, Version};

use super::body::BodyRules;
use super::exchange::Exchange;
use super::fail::X_REQUEST_ID;
use super::respond::applied;
use crate::model::clock::Instant;
use crate::model::deadline::{Deadline, Limit};
use crate::model::grpc::{self, is_grpc};
use crate::model::response::{BodyLength, ResponseHead};
use crate::model::verdict::{Code, PolicyName, Rejection};
use crate::policy::auth::Auth;
use crate::policy::auth::identity;
pub use crate::policy::fallback::Compiled as Step;
use crate::policy::hedge::Hedge;
use crate::policy::hygiene::forwarding::{self, Hop};
use crate::policy::hygiene::hop_by_hop::{Upgrading, asks_to_upgrade, strip_request};
use crate::policy::hygiene::trace_context::{self, Sampled};
use crate::policy::retry::Retry;
use crate::policy::rewrite::Rewrite;
use crate::policy::timeout::Timeout;
use crate::policy::validate::BodyLimit;
use crate::policy::{Policies, Slot};
use crate::snapshot::{Route, Snapshot, UpstreamEntry};

/// The plan of all attempts of an exchange.
#[derive(Debug)]
pub struct Plan<'s> {
    /// Index of the upstream in the snapshot.
    pub upstream_index: usize,
    /// The upstream.
    pub upstream: &'s UpstreamEntry,
    /// The key's hash, when endpoints are chosen by it.
    pub hash: Option<u64>,
    /// The limits of the route.
    pub timeouts: Timeout,
    /// When the exchange ends at the latest: `timeout.request`; for long-lived streams `timeout.stream`, if there is
    /// one, and the client's `grpc-timeout`.
    pub deadline: Option<Deadline>,
    /// `timeout.stream` as a deadline, for a response that turns out to be a long-lived stream.
    stream_deadline: Option<Deadline>,
    /// Which failed attempts are made again.
    pub retry: Option<&'s Retry>,
    /// When a second attempt starts beside a slow one.
    pub hedge: Option<&'s Hedge>,
    /// What answers when the upstream can't.
    pub fallback: &'s [Step],
    /// Bytes of the request's body that are kept for another attempt.
    pub keep: usize,
    /// What bounds the request's body.
    pub body: BodyRules,
    /// How much of it there is.
    pub length: BodyLength,
    /// Whether the request asks to switch protocols.
    pub upgrade: bool,
    /// Whether the client waits for `100 Continue`.
    pub expects_continue: bool,
    /// Method that goes upstream.
    pub method: Method,
    /// `Host` that goes upstream.
    pub authority: HeaderValue,
    /// Path and query that go upstream.
    pub target: Target,
    /// Fields that go upstream.
    pub headers: HeaderMap,
}

/// Path and query of the request that goes upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// As the client sent it.
    AsReceived,
    /// Canonical or rewritten.
    Anew(String),
}

/// Makes the plan. `random` chooses among the route's upstreams.
pub fn plan<'s>(
    snapshot: &'s Snapshot,
    route: &'s Route,
    exchange: &mut Exchange,
    body_done: bool,
    random: u64,
) -> Result<Plan<'s>, Rejection> {
    // A route that only redirects has nothing to serve for a request that is already where it points.
    let nothing = || Rejection::new(Code::NoRoute, "the redirect of this route leads here, and nothing serves it");
    let split = route.upstream.as_ref().ok_or_else(nothing)?;
    let upstream_index = *split.choose(random).ok_or_else(|| Rejection::new(Code::Internal, "no share is positive"))?;
    let upstream = entry(snapshot, upstream_index)?;
    exchange.upstream = Some(upstream.upstream.name().clone());
    let upgrade = body_done && upgrades(exchange);
    let Policies {
        access: _,
        rate_limit: _,
        cors: _,
        auth,
        validate: _,
        redirect: _,
        respond: _,
        rewrite,
        headers: edits,
        compress: _,
        timeout,
        retry,
        hedge,
        fallback,
    } = &route.policies;
    let timeouts = timeout.policy;
    let streams = upgrade || is_grpc(&exchange.headers);
    let stream_deadline = timeouts.stream.map(|stream| Deadline::new(exchange.started, stream, Limit::Stream));
    let deadline = if streams {
        let grpc = grpc_timeout(exchange).map(|after| Deadline::new(exchange.started, after, Limit::Grpc));
        earlier(grpc, stream_deadline)
    } else {
        Some(Deadline::new(exchange.started, timeouts.request, Limit::Request))
    };
    let retry = retry.as_ref().map(|slot| &slot.policy);
    let mut headers = copy_end_to_end(&exchange.headers);
    let expects_continue = exchange.headers.contains_key(EXPECT) && exchange.version != Version::HTTP_10;
    let length = length(&exchange.headers, body_done, upgrade);
    strip_request(&mut headers, if upgrade { Upgrading::Yes } else { Upgrading::No });
    join_cookies(&mut headers);
    forwarding::write(
        &mut headers,
        &Hop {
            peer: &exchange.peer_text,
            peer_trusted: exchange.peer_trusted,
            client: exchange.client,
            scheme: exchange.scheme,
            host: &exchange.authority,
            port: exchange.local.port(),
            version: exchange.version,
        },
    );
    for name in &snapshot.identity_fields {
        identity::remove(&mut headers, name);
    }
    if let Some(auth) = auth {
        auth.policy.edit_request(exchange.principal.as_deref(), exchange.identity_fields.as_ref(), &mut headers);
    }
    headers.insert(X_REQUEST_ID, exchange.request_id.clone());
    // A trace that nobody began is sampled: a parent that says no would switch the upstream's own tracing off.
    trace_context::ensure(&mut headers, exchange.random.rotate_left(64), Sampled::Yes);
    if let Some(edits) = edits.as_ref().filter(|edits| edits.policy.edits_requests()) {
        let client = exchange.client_text();
        edits.policy.edit_request(&exchange.values(&client, &route.name), &mut headers);
        applied(exchange, PolicyName::Headers, "fields of the request were edited");
    }
    let (target, authority) = destination(rewrite.as_ref(), auth.as_ref(), route, exchange)?;
    Ok(Plan {
        upstream_index,
        upstream,
        hash: upstream.upstream.hash(&exchange.view_on(&route.name)),
        timeouts,
        deadline,
        stream_deadline,
        retry,
        hedge: hedge.as_ref().map(|slot| &slot.policy),
        fallback: fallback.as_ref().map_or(&[], |slot| slot.policy.steps()),
        keep: kept(retry, length),
        body: BodyRules { max: exchange.body_limit.and_then(BodyLimit::enforced), paced: !streams },
        length,
        upgrade,
        expects_continue,
        method: exchange.method.clone(),
        authority,
        target,
        headers,
    })
}

/// Path, query and host for the upstream.
fn destination(
    rewrite: Option<&Slot<Rewrite>>,
    auth: Option<&Slot<Auth>>,
    route: &Route,
    exchange: &mut Exchange,
) -> Result<(Target, HeaderValue), Rejection> {
    let received = exchange.uri.query();
    // An API key in the query stays here.
    let edited = received.and_then(|query| auth?.policy.edit_query(query));
    let query = edited.as_deref().or(received).filter(|query| !(edited.is_some() && query.is_empty()));
    let Some(rewrite) = rewrite else {
        let target = match &exchange.path {
            Some(path) if !route.raw_path => Target::Anew(with_query(path, query)),
            _ if edited.is_some() => Target::Anew(with_query(exchange.uri.path(), query)),
            _ => Target::AsReceived,
        };
        return Ok((target, exchange.authority.clone()));
    };
    let path = rewrite.policy.path(exchange.path(), exchange.matched_prefix)?;
    let is_as_received = edited.is_none() && path == exchange.uri.path();
    let target = if is_as_received { Target::AsReceived } else { Target::Anew(with_query(&path, query)) };
    let authority = rewrite.policy.host().unwrap_or(&exchange.authority).clone();
    applied(exchange, PolicyName::Rewrite, "the upstream sees another path or host");
    Ok((target, authority))
}

impl<'s> Plan<'s> {
    /// The target in origin form.
    #[must_use]
    pub fn target<'a>(&'a self, exchange: &'a Exchange) -> &'a str {
        match &self.target {
            Target::AsReceived => exchange.uri.path_and_query().map_or("/", |target| target.as_str()),
            Target::Anew(target) => target,
        }
    }

    /// The deadline for the rest of the exchange, now that the response is known: an event stream lives on.
    #[must_use]
    pub fn deadline_of_response(&self, head: &ResponseHead) -> Option<Deadline> {
        let endless = has_type(&head.headers, "text/event-stream");
        if endless { self.stream_deadline } else { self.deadline }
    }

    /// Tells the next attempt how much is left of the client's `grpc-timeout` (gRPC over HTTP/2, "Requests").
    pub fn tell_time_left(&mut self, now: Instant) {
        if let Some(deadline) = self.deadline.filter(|deadline| deadline.limit == Limit::Grpc) {
            self.headers.insert(grpc::GRPC_TIMEOUT, grpc::timeout_value(deadline.left(now)));
        }
    }

    /// Turns to another upstream, which gets the same request.
    pub fn turn_to(&mut self, snapshot: &'s Snapshot, exchange: &mut Exchange, index: usize) -> Result<(), Rejection> {
        (self.upstream_index, self.upstream) = (index, entry(snapshot, index)?);
        let route = exchange.route.and_then(|index| snapshot.routes.get(index));
        let view = route.map_or_else(|| exchange.view(), |route| exchange.view_on(&route.name));
        self.hash = self.upstream.upstream.hash(&view);
        exchange.upstream = Some(self.upstream.upstream.name().clone());
        Ok(())
    }
}

fn entry(snapshot: &Snapshot, index: usize) -> Result<&UpstreamEntry, Rejection> {
    snapshot.upstreams.get(index).ok_or_else(|| Rejection::new(Code::Internal, "no such upstream"))
}

/// The time that the client gives a call. A shorter `timeout.stream` counts all the same.
fn grpc_timeout(exchange: &Exchange) -> Option<Duration> {
    is_grpc(&exchange.headers).then(|| grpc::timeout(exchange.headers.get(grpc::GRPC_TIMEOUT)?)).flatten()
}

fn earlier(one: Option<Deadline>, other: Option<Deadline>) -> Option<Deadline> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// How much of the body is kept: none where there is nothing to send it again for, or where it is known not to fit.
fn kept(retry: Option<&Retry>, length: BodyLength) -> usize {
    let Some(retry) = retry else { return 0 };
    let fits = match length {
        BodyLength::Known(length) => length <= retry.buffer(),
        BodyLength::Absent | BodyLength::Unknown => true,
    };
    if fits { usize::try_from(retry.buffer()).unwrap_or(usize::MAX) } else { 0 }
}

/// HTTP/2 may split `Cookie`; whoever passes it on in HTTP/1.1 has to join it (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

/// A copy of the fields but for those that are written anew or answered here; with room for those that are added on the
/// way, so that the map does not grow in between.
fn copy_end_to_end(headers: &HeaderMap) -> HeaderMap {
    const ADDED: usize = 12;
    let mut copy = HeaderMap::with_capacity(headers.len() + ADDED);
    for (name, value) in headers {
        if *name != HOST && *name != CONTENT_LENGTH && *name != EXPECT {
            copy.append(name.clone(), value.clone());
        }
    }
    copy
}

/// Whether the exchange may leave HTTP: a WebSocket handshake (RFC 6455 §4.1), and nothing else. Any other protocol,
/// h2c above all, would be a tunnel past the routes; its `Upgrade` is dropped, which a server may always do
/// (RFC 9110 §7.8).
fn upgrades(exchange: &Exchange) -> bool {
    let websocket = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"websocket");
    exchange.version == Version::HTTP_11
        && exchange.method == Method::GET
        && asks_to_upgrade(&exchange.headers)
        && exchange.headers.get_all(UPGRADE).iter().all(websocket)
}

fn length(headers: &HeaderMap, body_done: bool, upgrade: bool) -> BodyLength {
    if upgrade {
        return BodyLength::Absent;
    }
    let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    match declared {
        Some(length) => BodyLength::Known(length),
        None if body_done => BodyLength::Absent,
        None => BodyLength::Unknown,
    }
}

fn has_type(headers: &HeaderMap, prefix: &str) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.as_bytes().get(..prefix.len()))
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

fn with_query(path: &str, query: Option<&str>) -> String {
    match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}
