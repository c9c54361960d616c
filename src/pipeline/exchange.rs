//! The record of one request and its response: what every stage reads and writes, and what the evidence is made of.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{HeaderMap, Method, StatusCode, Uri, Version};
use smallvec::SmallVec;

use super::admit::Progress;
use crate::model::clock::Instant;
use crate::model::guard::Shed;
use crate::model::ids::{RouteName, UpstreamName};
use crate::model::outcome::{Outcome, StandIn, Termination};
use crate::model::principal::Principal;
use crate::model::request::{RequestView, Scheme};
use crate::model::verdict::{Code, Decision};
use crate::policy::auth::Answers;
pub use crate::policy::auth::ClientCertificate;
use crate::policy::cors::Grant;
use crate::policy::headers::Values;
pub use crate::policy::hygiene::forwarding::Peer;
use crate::policy::hygiene::trace_context;
use crate::policy::rate_limit::Charged;
use crate::policy::validate::{BodyLimit, BodyTask};
use crate::routing::path::Evasion;

/// One request on its way.
#[derive(Debug)]
pub struct Exchange {
    /// When the first byte of its head came.
    pub started: Instant,
    /// Its id, ours or a trusted proxy's.
    pub request_id: HeaderValue,
    /// Method as received.
    pub method: Method,
    /// Target as received, in origin form.
    pub uri: Uri,
    /// Version that the client speaks.
    pub version: Version,
    /// Fields as received.
    pub headers: HeaderMap,
    /// `Host` or `:authority` as received.
    pub authority: HeaderValue,
    /// Scheme by which the client reached the outermost trusted proxy.
    pub scheme: Scheme,
    /// The connection's peer.
    pub peer: SocketAddr,
    /// The peer's address as it stands in forwarding fields.
    pub peer_text: Arc<Peer>,
    /// Our end of the connection.
    pub local: SocketAddr,
    /// The client, as trusted proxies vouch for it.
    pub client: IpAddr,
    /// Whether the peer is a trusted proxy.
    pub peer_trusted: bool,
    /// Randomness of this request, for its ids.
    pub random: u128,
    /// Host in canonical form, where it differs from the beginning of `authority`.
    pub(super) host: Spelling,
    /// Port of the authority.
    pub port: Option<u16>,
    /// Path in canonical form, where it differs from the target's.
    pub(super) path: Option<String>,
    /// What the path tried; the route decides whether that is allowed.
    pub evasion: Option<Evasion>,
    /// Index of the route.
    pub route: Option<usize>,
    /// How many bytes of the canonical path the route's prefix covers.
    pub matched_prefix: usize,
    /// Who it comes from, once that is known.
    pub principal: Option<Arc<Principal>>,
    /// What its client's certificate says; made once for the connection.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// What `auth` has asked and been told.
    pub(super) answers: Answers,
    /// Fields that a service wants the upstream to have.
    pub(super) identity_fields: Option<HeaderMap>,
    /// How far admission has come.
    pub(super) admission: Progress,
    /// What the response tells the page that asked, when the route has `cors`.
    pub cors: Option<Grant>,
    /// What its limits have charged.
    pub charged: Charged,
    /// How long the request's body may be.
    pub body_limit: Option<BodyLimit>,
    /// What is still to be judged of it.
    pub body_task: Option<BodyTask>,
    /// The operation of the API's description that is asked for.
    pub operation: Option<usize>,
    /// What policies decided.
    pub decisions: SmallVec<[Decision; 4]>,
    /// Why the gateway refused, if it did.
    pub rejection: Option<Code>,
    /// Attempts at upstreams.
    pub attempts: SmallVec<[AttemptRecord; 2]>,
    /// The upstream that answered, or was tried last.
    pub upstream: Option<UpstreamName>,
    /// What was decided at upstreams beside their attempts, each with the upstream's index.
    pub events: SmallVec<[(usize, UpstreamEvent); 2]>,
    /// What stood in for the upstream, and the code that the client would have got without it.
    pub fallback: Option<(StandIn, Code)>,
    /// The status that the client saw; `None` when it saw none.
    pub status: Option<StatusCode>,
    /// Bytes of body from the client.
    pub body_in: u64,
    /// Bytes of body to the client.
    pub body_out: u64,
    /// How it ended, when not by its own end.
    pub termination: Option<Termination>,
}

/// What is counted of an upstream beside its attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamEvent {
    /// Its breaker or its concurrency limit refused.
    Shed(Shed),
    /// A failed attempt is made again.
    Retried,
    /// A retry was left out because the budget was spent.
    RetryDenied,
}

/// A string in canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Spelling {
    /// This many bytes from the beginning of what was received.
    AsReceived(usize),
    /// Spelled anew.
    Anew(String),
}

/// One attempt, for logs.
#[derive(Debug, Clone)]
pub struct AttemptRecord {
    /// Where it went.
    pub endpoint: Arc<str>,
    /// How it ended.
    pub outcome: Outcome,
    /// From its beginning to the response head or its failure.
    pub took: Duration,
}

impl Exchange {
    /// The host in canonical form.
    #[must_use]
    pub fn host(&self) -> &str {
        match &self.host {
            Spelling::AsReceived(length) => {
                let received = std::str::from_utf8(self.authority.as_bytes()).unwrap_or_default();
                received.get(..*length).unwrap_or_default()
            }
            Spelling::Anew(host) => host,
        }
    }

    /// The path in canonical form.
    #[must_use]
    pub fn path(&self) -> &str {
        self.path.as_deref().unwrap_or_else(|| self.uri.path())
    }

    /// The length that the head declares.
    #[must_use]
    pub fn declared_length(&self) -> Option<u64> {
        self.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    /// The client's address as text.
    #[must_use]
    pub fn client_text(&self) -> String {
        self.client.to_string()
    }

    /// What placeholders in `headers` stand for.
    #[must_use]
    pub fn values<'a>(&'a self, client: &'a str, route: &'a RouteName) -> Values<'a> {
        Values { client_ip: client, request_id: &self.request_id, host: self.host(), route: route.as_str() }
    }

    /// The trace that the request belongs to, if its client said so.
    #[must_use]
    pub fn trace_id(&self) -> Option<&str> {
        trace_context::trace_id(self.headers.get(trace_context::TRACEPARENT)?.to_str().ok()?)
    }

    /// What the decisions see.
    #[must_use]
    pub fn view(&self) -> RequestView<'_> {
        RequestView {
            method: &self.method,
            scheme: self.scheme,
            host: self.host(),
            port: self.port,
            path: self.path(),
            query: self.uri.query(),
            headers: &self.headers,
            version: self.version,
            client: self.client,
            peer: self.peer,
            principal: self.principal.as_deref(),
            route: None,
        }
    }

    /// What the decisions of `route` see.
    #[must_use]
    pub fn view_on<'a>(&'a self, route: &'a RouteName) -> RequestView<'a> {
        RequestView { route: Some(route.as_str()), ..self.view() }
    }
}
