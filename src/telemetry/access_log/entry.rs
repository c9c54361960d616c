//! What is known of a request, or of what never became one, when it has ended: borrowed, so that a line costs no copy.
//!
//! There is no field for credentials: `Authorization`, `Cookie` and their kin never reach the log.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{Method, StatusCode, Version};

use crate::model::outcome::{Outcome, StandIn, Termination};
use crate::model::request::Scheme;
use crate::model::verdict::{Code, Decision, Verdict};
use crate::telemetry::metrics::NonRequest;

/// One attempt, as the line shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptEntry<'a> {
    /// Address of the endpoint, as configured.
    pub endpoint: &'a str,
    /// How the attempt ended.
    pub outcome: Outcome,
    /// From its start to its response head or its failure.
    pub duration: Duration,
}

/// Everything that a line may show. What is absent is left out (`json`) or a dash (`common`, `combined`).
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// When the first byte arrived, in nanoseconds since the Unix epoch.
    pub unix_nanos: u64,
    /// The request's id.
    pub request_id: &'a str,
    /// The client's address: the peer's, or the one that trusted proxies vouch for.
    pub client: IpAddr,
    /// The connection's peer.
    pub peer: SocketAddr,
    /// Name of the listener.
    pub listener: &'a str,
    /// Name of the route.
    pub route: Option<&'a str>,
    /// Name of the upstream that was asked.
    pub upstream: Option<&'a str>,
    /// Endpoint of the last attempt.
    pub endpoint: Option<&'a str>,
    /// Method as received.
    pub method: Option<&'a Method>,
    /// Scheme towards the client.
    pub scheme: Scheme,
    /// Host as received.
    pub host: Option<&'a [u8]>,
    /// Path and query as received. Values of parameters that look like credentials are not shown.
    pub target: Option<&'a [u8]>,
    /// Version that the client spoke.
    pub version: Option<Version>,
    /// Status that the client was sent.
    pub status: Option<StatusCode>,
    /// Why the gateway itself refused, or would have without a fallback.
    pub code: Option<Code>,
    /// What answered in place of the route's upstream.
    pub fallback: Option<StandIn>,
    /// Bytes of the request's content.
    pub bytes_in: u64,
    /// Bytes of the response's content.
    pub bytes_out: u64,
    /// From the first byte of the request to the last of the response.
    pub duration: Duration,
    /// The attempts in order.
    pub attempts: &'a [AttemptEntry<'a>],
    /// `User-Agent` as received.
    pub user_agent: Option<&'a [u8]>,
    /// `Referer` as received; its query is treated like the target's.
    pub referer: Option<&'a [u8]>,
    /// Name of the caller that was authenticated.
    pub principal: Option<&'a str>,
    /// Version of TLS towards the client, such as `1.3`.
    pub tls_version: Option<&'a str>,
    /// Trace id of `traceparent`, in hexadecimal.
    pub trace_id: Option<&'a str>,
    /// Decisions of policies; those that let the request pass are not shown.
    pub decisions: &'a [Decision],
    /// Why the response is not complete.
    pub termination: Option<Termination>,
    /// What it was, when it never became a request.
    pub non_request: Option<NonRequest>,
}

impl<'a> Entry<'a> {
    /// An entry of which only the connection is known; the other fields are absent or zero.
    #[must_use]
    pub fn new(unix_nanos: u64, listener: &'a str, scheme: Scheme, peer: SocketAddr) -> Self {
        Self {
            unix_nanos,
            request_id: "",
            client: peer.ip(),
            peer,
            listener,
            route: None,
            upstream: None,
            endpoint: None,
            method: None,
            scheme,
            host: None,
            target: None,
            version: None,
            status: None,
            code: None,
            fallback: None,
            bytes_in: 0,
            bytes_out: 0,
            duration: Duration::ZERO,
            attempts: &[],
            user_agent: None,
            referer: None,
            principal: None,
            tls_version: None,
            trace_id: None,
            decisions: &[],
            termination: None,
            non_request: None,
        }
    }

    /// The decisions that a reader wants to see: refusals, real or only reported, and answers of policies.
    pub(super) fn notable_decisions(&self) -> impl Iterator<Item = &'a Decision> {
        const MOST: usize = 32;
        let notable = |decision: &&Decision| !matches!(decision.verdict, Verdict::Allow | Verdict::Apply);
        self.decisions.iter().filter(notable).take(MOST)
    }
}

/// Most bytes of a field that a line shows; what is cut is marked with its length.
pub(super) mod most {
    /// Path and query: what most servers accept at all.
    pub(in super::super) const TARGET: usize = 8 * 1024;
    /// `Referer`.
    pub(in super::super) const REFERER: usize = 2 * 1024;
    /// `User-Agent`.
    pub(in super::super) const USER_AGENT: usize = 512;
    /// Host, names, ids, reasons.
    pub(in super::super) const SHORT: usize = 256;
    /// Attempts.
    pub(in super::super) const ATTEMPTS: usize = 16;
}
