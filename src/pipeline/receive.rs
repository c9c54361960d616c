//! The first stage: what arrived becomes an exchange in canonical form, or is refused as malformed.
//!
//! What a request means must not depend on who reads it: host, path and framing have one reading after this stage, and
//! everything that has two is refused (RFC 9112 §3.2, §6; RFC 9110 §4.2, §7.2).

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{EXPECT, HOST, HeaderValue};
use http::request::Parts;
use http::{Method, Version};
use smallvec::SmallVec;

use super::admit::Progress;
use super::exchange::{ClientCertificate, Exchange, Peer, Spelling};
use super::fail::X_REQUEST_ID;
use crate::model::clock::Instant;
use crate::model::request::Scheme;
use crate::model::verdict::{Code, Rejection};
use crate::policy::auth::Answers;
use crate::policy::hygiene::{client_address, request_id};
use crate::policy::rate_limit::Charged;
use crate::routing::{authority, path};
use crate::snapshot::Snapshot;

/// What is known of a request apart from its head.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The connection's peer.
    pub peer: SocketAddr,
    /// The peer's address as it stands in forwarding fields; made once for the connection.
    pub peer_text: Arc<Peer>,
    /// Our end of the connection.
    pub local: SocketAddr,
    /// Whether the connection is TLS.
    pub tls: bool,
    /// What the client's verified certificate says; made once for the connection.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// When the head was complete.
    pub now: Instant,
    /// Randomness for the request's ids.
    pub random: u128,
}

/// The id for something that never became a request.
#[must_use]
pub fn fresh_id(random: u128) -> HeaderValue {
    request_id::choose(None, false, random)
}

/// Makes the exchange of a head, and says whether it is refused. `fault` is what the engine found in the framing.
#[must_use]
pub fn receive(
    snapshot: &Snapshot,
    facts: &Facts,
    head: Parts,
    fault: Option<Rejection>,
) -> (Exchange, Option<Rejection>) {
    let client = client_address::find(facts.peer.ip(), &head.headers, &snapshot.trusted_proxies);
    let request_id = request_id::choose(head.headers.get(X_REQUEST_ID), client.peer_trusted, facts.random);
    let scheme = client.scheme.unwrap_or(if facts.tls { Scheme::Https } else { Scheme::Http });
    let mut exchange = Exchange {
        started: facts.now,
        request_id,
        method: head.method,
        uri: head.uri,
        version: head.version,
        headers: head.headers,
        authority: HeaderValue::from_static(""),
        scheme,
        peer: facts.peer,
        peer_text: Arc::clone(&facts.peer_text),
        local: facts.local,
        client: client.address,
        peer_trusted: client.peer_trusted,
        random: facts.random,
        host: Spelling::AsReceived(0),
        port: None,
        path: None,
        evasion: None,
        route: None,
        matched_prefix: 0,
        principal: None,
        certificate: facts.certificate.clone(),
        answers: Answers::default(),
        identity_fields: None,
        admission: Progress::default(),
        cors: None,
        charged: Charged::default(),
        body_limit: None,
        body_task: None,
        operation: None,
        decisions: SmallVec::new(),
        rejection: None,
        attempts: SmallVec::new(),
        upstream: None,
        events: SmallVec::new(),
        fallback: None,
        status: None,
        body_in: 0,
        body_out: 0,
        termination: None,
    };
    let refusal = fault.or_else(|| canonicalise(&mut exchange).err());
    (exchange, refusal)
}

fn canonicalise(exchange: &mut Exchange) -> Result<(), Rejection> {
    refuse_method(&exchange.method)?;
    set_authority(exchange)?;
    set_path(exchange)?;
    expectation(exchange)
}

fn refuse_method(method: &Method) -> Result<(), Rejection> {
    let detail = match *method {
        // A reverse proxy has nowhere to tunnel to (RFC 9110 §9.3.6).
        Method::CONNECT => "CONNECT is not offered here",
        // It would show a client what we and other proxies add (RFC 9110 §9.3.8).
        Method::TRACE => "TRACE is not offered here",
        _ => return Ok(()),
    };
    Err(Rejection::new(Code::NotImplemented, detail))
}

fn set_authority(exchange: &mut Exchange) -> Result<(), Rejection> {
    let bad = |detail: &'static str| Err(Rejection::new(Code::BadRequest, detail));
    let mut hosts = exchange.headers.get_all(HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return bad("more than one Host");
    }
    let received = match (exchange.uri.authority(), first) {
        // RFC 9112 §3.2: in every request of HTTP/1.1, whatever its target says
        (Some(_), None) if exchange.version == Version::HTTP_11 => return bad("no Host"),
        (Some(authority), host) => {
            if host.is_some_and(|host| !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())) {
                return bad("Host and the target's authority differ");
            }
            HeaderValue::from_str(authority.as_str()).unwrap_or(HeaderValue::from_static(""))
        }
        (None, Some(host)) => host.clone(),
        (None, None) => return bad("no Host"),
    };
    let parsed =
        authority::parse(received.as_bytes()).map_err(|refusal| Rejection::new(Code::BadRequest, refusal.as_str()))?;
    exchange.port = parsed.port;
    exchange.host = match parsed.host {
        Cow::Borrowed(host) => Spelling::AsReceived(host.len()),
        Cow::Owned(host) => Spelling::Anew(host),
    };
    exchange.authority = received;
    Ok(())
}

fn set_path(exchange: &mut Exchange) -> Result<(), Rejection> {
    if exchange.uri.path() == "*" {
        return match exchange.method {
            Method::OPTIONS => Ok(()),
            // The asterisk form is for OPTIONS alone (RFC 9112 §3.2.4).
            _ => Err(Rejection::new(Code::BadRequest, "the target * with another method than OPTIONS")),
        };
    }
    let canonical = path::canonical(exchange.uri.path().as_bytes())
        .map_err(|refusal| Rejection::new(Code::BadRequest, refusal.as_str()))?;
    let query = exchange.uri.query().unwrap_or_default();
    if !query.bytes().all(|byte| (0x21..0x7f).contains(&byte) && byte != b'#') {
        return Err(Rejection::new(Code::BadRequest, "the query has a forbidden byte"));
    }
    exchange.evasion = canonical.evasion;
    exchange.path = match canonical.path {
        Cow::Borrowed(path) if path == exchange.uri.path() => None,
        path => Some(path.into_owned()),
    };
    Ok(())
}

/// `100-continue` is the only expectation there is (RFC 9110 §10.1.1); HTTP/1.0 has none.
fn expectation(exchange: &Exchange) -> Result<(), Rejection> {
    let mut expected = exchange.headers.get_all(EXPECT).iter();
    if exchange.version != Version::HTTP_10
        && !expected.all(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        return Err(Rejection::new(Code::ExpectationFailed, "an expectation other than 100-continue"));
    }
    Ok(())
}
