//! What the gateway would do with a request, and which setting causes it, without serving it.
//!
//! Runs the very functions of `pipeline` that serve requests, in the engine's order and over the same compiled snapshot,
//! with a clock that stands still and bits that are not random, and writes down what each of them said. It decides
//! nothing itself and reaches nobody: no upstream is connected to, no name is resolved, and the response of the upstream
//! is a supposed one. What the engine refuses before there is a request (a malformed or too large head) is not seen here.

mod attempts;
mod answers;
mod fields;
mod rate_limits;
mod report;
mod state;
mod text;
mod walk;

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};

pub use self::report::{
    AttemptShown, Body, Candidate, Change, Choice, Compared, Decided, Ending, Field, Limit, Listener, Missed,
    Principal, RateLimit, Refusal, Report, Request, Response, Route, RunnerUp, Share, Stage, Upstream, UpstreamRequest,
};
pub use self::state::{Condition, State};
use crate::model::clock::{Instant, Now};
use crate::snapshot::Snapshot;

/// A request, and what its upstream would answer.
#[derive(Debug, Clone)]
pub struct Question {
    /// Method.
    pub method: Method,
    /// Absolute URL, `http` or `https`.
    pub url: Uri,
    /// Fields. `Host` is the URL's unless it is among them.
    pub headers: HeaderMap,
    /// Bytes of body. They are declared by `Content-Length` unless the fields name a `Transfer-Encoding`.
    pub body: Option<u64>,
    /// The bytes themselves, where they are known: without them what judges a body can't be asked.
    pub content: Option<Bytes>,
    /// The address that connects.
    pub client: IpAddr,
    /// Whether it connects over TLS; always for an `https` URL.
    pub tls: bool,
    /// When it comes.
    pub now: Now,
    /// What the upstream would answer.
    pub response: Supposed,
    /// How often it is asked; what is said is said of the last time.
    pub repeat: u32,
    /// States that upstreams are supposed to be in.
    pub states: Vec<State>,
}

/// What an upstream is supposed to answer.
#[derive(Debug, Clone, Default)]
pub struct Supposed {
    /// Status; by default 200, and 101 where the request asks to leave HTTP.
    pub status: Option<StatusCode>,
    /// Fields; `Content-Type: application/json` unless it is among them.
    pub headers: HeaderMap,
    /// Bytes of body; `None` is a body that streams.
    pub length: Option<u64>,
}

/// Says what `snapshot` does with a request. The snapshot is put into the supposed states, so it is of no use after it.
#[must_use]
pub fn explain(mut snapshot: Snapshot, question: &Question) -> Report {
    let (held, notes) = state::suppose(&mut snapshot, &question.states, Instant::default());
    for _ in 1..question.repeat {
        // what is remembered of a request, such as what it took from rate limits, holds for the next
        let _ = walk::walk(&snapshot, question, Vec::new());
    }
    let report = walk::walk(&snapshot, question, notes);
    drop(held);
    report
}
