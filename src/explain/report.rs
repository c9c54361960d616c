//! What an explanation says, as values. Their serialised names are the contract of `explain --format json`.

use serde::Serialize;

use crate::model::violation::Violation;

/// The whole explanation of one request.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The request as the decisions saw it.
    pub request: Request,
    /// The route that it got.
    pub route: Option<Route>,
    /// Routes that almost took it, the most specific first.
    pub near_misses: Vec<Missed>,
    /// What was decided, in order.
    pub decisions: Vec<Decided>,
    /// The limits in force.
    pub limits: Vec<Limit>,
    /// The rate limits of the route, after this request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rate_limits: Vec<RateLimit>,
    /// Where it goes; `None` when it does not leave the gateway.
    pub upstream: Option<Upstream>,
    /// What goes there.
    pub upstream_request: Option<UpstreamRequest>,
    /// The attempts, with the ends that are supposed of them.
    pub attempts: Vec<AttemptShown>,
    /// Why it was refused.
    pub refusal: Option<Refusal>,
    /// What the client gets.
    pub response: Response,
    /// What this explanation can't know, or supposes.
    pub notes: Vec<String>,
}

/// The request in canonical form.
#[derive(Debug, Clone, Serialize)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Scheme towards the client.
    pub scheme: &'static str,
    /// Host without port, in canonical form unless it was refused before it was read.
    pub host: String,
    /// Port, where the client names one.
    pub port: Option<u16>,
    /// Path after normalisation, or as received when it was refused.
    pub path: String,
    /// Path as received, where normalisation changed it.
    pub path_as_received: Option<String>,
    /// Query as received; credentials hidden.
    pub query: Option<String>,
    /// The address that the decisions go by.
    pub client: String,
    /// The connection's other end, where that is a trusted proxy.
    pub trusted_proxy: Option<String>,
    /// The id that it gets; random bits are fixed here.
    pub request_id: String,
    /// Who it comes from, where `auth` knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<Principal>,
    /// Where it is supposed to have come in.
    pub listener: Option<Listener>,
}

/// An authenticated caller.
#[derive(Debug, Clone, Serialize)]
pub struct Principal {
    /// Name.
    pub name: String,
    /// The method that knows it.
    pub method: &'static str,
    /// Its groups.
    pub groups: Vec<String>,
}

/// A listener.
#[derive(Debug, Clone, Serialize)]
pub struct Listener {
    /// Name.
    pub name: String,
    /// Address.
    pub address: String,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Where it is written.
    pub origin: String,
}

/// A route and why it won.
#[derive(Debug, Clone, Serialize)]
pub struct Route {
    /// Name.
    pub name: String,
    /// Where it is written.
    pub origin: String,
    /// The host pattern that fits.
    pub host: String,
    /// The path pattern that fits.
    pub path: String,
    /// The method that a preflight asked for, when the route was found by it.
    pub preflight_for: Option<String>,
    /// The next most specific route that takes the request too.
    pub runner_up: Option<RunnerUp>,
}

/// The route that would have got the request but for a more specific one.
#[derive(Debug, Clone, Serialize)]
pub struct RunnerUp {
    /// Name.
    pub name: String,
    /// Where it is written.
    pub origin: String,
    /// The first criterion by which the two differ.
    pub decided_by: &'static str,
}

/// A route that almost took the request.
#[derive(Debug, Clone, Serialize)]
pub struct Missed {
    /// Name.
    pub name: String,
    /// Where it is written.
    pub origin: String,
    /// What was missing.
    pub missing: Vec<Criterion>,
}

/// A condition that was not met.
pub type Criterion = crate::routing::Missing;

/// The stages of the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Into canonical form.
    Receive,
    /// Which route.
    Route,
    /// Who may come in, and who is answered at once.
    Admit,
    /// Where it goes, and with what.
    Attempt,
    /// Whether the upstream may be asked now.
    Shed,
    /// What follows an attempt.
    Judge,
    /// What stands in, and what the client is told.
    Fail,
    /// The body on its way.
    Body,
    /// What of the response reaches the client.
    Respond,
}

impl Stage {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Route => "route",
            Self::Admit => "admit",
            Self::Attempt => "attempt",
            Self::Shed => "shed",
            Self::Judge => "judge",
            Self::Fail => "fail",
            Self::Body => "body",
            Self::Respond => "respond",
        }
    }
}

/// One decision.
#[derive(Debug, Clone, Serialize)]
pub struct Decided {
    /// Where in the pipeline.
    pub stage: Stage,
    /// Which policy; `None` for what every request undergoes.
    pub policy: Option<&'static str>,
    /// How.
    pub verdict: &'static str,
    /// Why.
    pub reason: String,
    /// The setting that caused it; `None` where no setting did.
    pub origin: Option<String>,
}

/// A limit in force.
#[derive(Debug, Clone, Serialize)]
pub struct Limit {
    /// The setting.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// Where it is written.
    pub origin: String,
}

/// One attempt, as it is supposed to go.
#[derive(Debug, Clone, Serialize)]
pub struct AttemptShown {
    /// The upstream.
    pub upstream: String,
    /// How it ends: a status, or `connect`, `reset`, `timeout`, `invalid`.
    pub outcome: String,
    /// What follows.
    pub then: String,
}

/// A rate limit, and how it stands.
#[derive(Debug, Clone, Serialize)]
pub struct RateLimit {
    /// Its name.
    pub name: String,
    /// The parts of the request that it goes by; credentials hidden, `-` for what the request does not have.
    pub key: Vec<String>,
    /// How fast a bucket refills.
    pub rate: String,
    /// Units that a full bucket holds.
    pub burst: u32,
    /// What the request takes, before there is a response.
    pub cost: u32,
    /// `allow`, `reject`, `would_reject`, `exempt`; `not_asked` when the request was refused before.
    pub verdict: &'static str,
    /// What is left.
    pub left: Option<u64>,
}

/// Where a request goes.
#[derive(Debug, Clone, Serialize)]
pub struct Upstream {
    /// Name.
    pub name: String,
    /// Where it is written.
    pub origin: String,
    /// The shares of the route's upstreams.
    pub shares: Vec<Share>,
    /// How one of the endpoints is chosen.
    pub balance: Choice,
    /// The endpoints.
    pub endpoints: Vec<Candidate>,
}

/// The share of one upstream.
#[derive(Debug, Clone, Serialize)]
pub struct Share {
    /// Name.
    pub upstream: String,
    /// Its weight.
    pub weight: u64,
    /// What that is of all weights, in percent.
    pub percent: f64,
}

/// A way to choose.
#[derive(Debug, Clone, Serialize)]
pub struct Choice {
    /// Name of the algorithm.
    pub algorithm: String,
    /// Where it is written.
    pub origin: String,
    /// For a hash: whether the request has the key.
    pub has_key: Option<bool>,
}

/// An endpoint that may be chosen.
#[derive(Debug, Clone, Serialize)]
pub struct Candidate {
    /// As declared.
    pub url: String,
    /// Its weight.
    pub weight: u32,
    /// The address that is connected to; `None` for a name, which is resolved while the gateway runs.
    pub address: Option<String>,
    /// Its health, where anything watches it: always `unknown` here, since an explanation asks nobody; it is taken for
    /// healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<&'static str>,
    /// Whether it is the one here, with bits that are not random and endpoints that nobody uses.
    pub chosen: bool,
}

/// The head that goes upstream.
#[derive(Debug, Clone, Serialize)]
pub struct UpstreamRequest {
    /// Method.
    pub method: String,
    /// Path and query; credentials hidden.
    pub target: String,
    /// `Host` or `:authority`.
    pub host: String,
    /// Fields, and how they differ from the client's.
    pub fields: Compared,
    /// How much body.
    pub body: Body,
    /// Whether the connection is to leave HTTP.
    pub upgrade: bool,
}

/// How much body there is.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// None.
    Absent,
    /// This many bytes.
    Bytes(u64),
    /// Until its sender ends it.
    Streamed,
}

/// Fields after a stage, compared with those before it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Compared {
    /// Those that go out, by name.
    pub sent: Vec<Field>,
    /// Names of those that don't.
    pub removed: Vec<String>,
}

/// A field.
#[derive(Debug, Clone, Serialize)]
pub struct Field {
    /// Name in lower case.
    pub name: String,
    /// Value; hidden when the name says that it is a credential.
    pub value: String,
    /// What the gateway did to it.
    pub change: Change,
}

/// What became of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Passed on as it came.
    Kept,
    /// Its values are others than before.
    Changed,
    /// It was not there.
    Added,
}

/// A refusal.
#[derive(Debug, Clone, Serialize)]
pub struct Refusal {
    /// By which stage.
    pub stage: Stage,
    /// By which policy, if one.
    pub policy: Option<&'static str>,
    /// The stable code.
    pub code: &'static str,
    /// What the client is told.
    pub detail: String,
    /// What in the request has to be mended, place by place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Violation>,
}

/// Who makes the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The upstream's (supposed) response, prepared for the client.
    Forwarded,
    /// A policy's answer.
    Answered,
    /// A refusal.
    Refused,
}

/// What the client gets.
#[derive(Debug, Clone, Serialize)]
pub struct Response {
    /// Who made it.
    pub ending: Ending,
    /// Status.
    pub status: u16,
    /// Fields; those of a forwarded response compared with the upstream's.
    pub fields: Compared,
    /// How much body.
    pub body: Body,
    /// The body's text, when the gateway made it.
    pub text: Option<String>,
}
