//! The walk through the pipeline: the engine's order of stages, each asked for real and written down.

mod limits;

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, StatusCode, Uri, Version};

use super::fields::{compare, without_credentials};
use super::rate_limits::rate_limits;
use super::report::{
    AttemptShown, Body, Candidate, Choice, Decided, Ending, Limit, Missed, Principal, RateLimit, Refusal, Report,
    Request, Response, Route as RouteShown, RunnerUp, Share, Stage, Upstream as UpstreamShown, UpstreamRequest,
};
use super::{Question, answers};
use crate::model::answer::Answer;
use crate::model::clock::Instant;
use crate::model::ids::RouteName;
use crate::model::listener::Protocol;
use crate::model::request::RequestView;
use crate::model::response::{BodyLength, ResponseHead};
use crate::model::source::Origin;
use crate::model::verdict::{PolicyName, Rejection, Verdict};
use crate::pipeline::admit::{Admission, admit};
use crate::pipeline::attempt::{Plan, plan};
use crate::pipeline::exchange::{Exchange, Peer};
use crate::pipeline::receive::{Facts, receive};
use crate::pipeline::route::{asked_for, route};
use crate::pipeline::{body, fail, respond};
use crate::policy::hygiene::hop_by_hop::Upgrading;
use crate::snapshot::{Listener, Route, Snapshot};
use crate::upstream::{self, Balance, DEMO, Tried};

/// Bits where the engine takes random ones: the same question gets the same answer.
const NOT_RANDOM: u64 = 0;

/// Asks every stage in its turn.
pub(super) fn walk(snapshot: &Snapshot, question: &Question, notes: Vec<String>) -> Report {
    let listener = listener(snapshot, question);
    let peer = SocketAddr::new(question.client, 50_000);
    let facts = Facts {
        peer,
        peer_text: Arc::new(Peer::new(question.client)),
        local: listener.map_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0), |listener| listener.spec.address),
        tls: is_tls(question),
        certificate: None,
        now: Instant::default(),
        random: 0,
    };
    let (exchange, refusal) = receive(snapshot, &facts, head(question, listener), None);
    let written = Written { notes, ..Written::default() };
    let mut walk = Walk { snapshot, question, exchange, seen: 0, listener, written };
    walk.limits_of_listener();
    let response = match refusal {
        Some(rejection) => walk.refuse(Stage::Receive, None, &rejection),
        None => walk.decide(),
    };
    walk.into_report(response)
}

fn is_tls(question: &Question) -> bool {
    question.tls || question.url.scheme_str() == Some("https")
}

/// The listener that the request would come in by: of its kind, and if possible of its port.
fn listener<'s>(snapshot: &'s Snapshot, question: &Question) -> Option<&'s Listener> {
    let of_kind = || snapshot.listeners.iter().filter(|listener| listener.spec.tls.is_some() == is_tls(question));
    let port = question.url.port_u16().unwrap_or(if is_tls(question) { 443 } else { 80 });
    of_kind().find(|listener| listener.spec.address.port() == port).or_else(|| of_kind().next())
}

/// The head as the engine would hand it over.
fn head(question: &Question, listener: Option<&Listener>) -> Parts {
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = question.method.clone();
    let target = question.url.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    parts.uri = Uri::from(target);
    let speaks_h1 = listener.is_none_or(|listener| listener.spec.protocols.contains(Protocol::H1));
    parts.version = if speaks_h1 { Version::HTTP_11 } else { Version::HTTP_2 };
    parts.headers = question.headers.clone();
    if !parts.headers.contains_key(HOST)
        && let Some(host) = question.url.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok())
    {
        parts.headers.insert(HOST, host);
    }
    if let Some(length) = question.body
        && !parts.headers.contains_key(TRANSFER_ENCODING)
        && !parts.headers.contains_key(CONTENT_LENGTH)
    {
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    parts
}

pub(super) struct Walk<'s> {
    pub(super) snapshot: &'s Snapshot,
    pub(super) question: &'s Question,
    pub(super) exchange: Exchange,
    /// How many of the exchange's decisions are written down.
    seen: usize,
    listener: Option<&'s Listener>,
    pub(super) written: Written,
}

/// What is written down on the way.
#[derive(Default)]
pub(super) struct Written {
    route: Option<RouteShown>,
    near_misses: Vec<Missed>,
    decisions: Vec<Decided>,
    limits: Vec<Limit>,
    rate_limits: Vec<RateLimit>,
    upstream: Option<UpstreamShown>,
    upstream_request: Option<UpstreamRequest>,
    pub(super) attempts: Vec<AttemptShown>,
    refusal: Option<Refusal>,
    notes: Vec<String>,
}

impl<'s> Walk<'s> {
    fn decide(&mut self) -> Response {
        let snapshot = self.snapshot;
        self.say(Stage::Receive, None, "allow", "host and path have one reading", None);
        let routed = route(snapshot, &mut self.exchange);
        self.show_routing();
        let route = match routed {
            Ok(route) => route,
            Err(rejection) => return self.refuse(Stage::Route, None, &rejection),
        };
        self.say(Stage::Route, None, "allow", "the most specific route that takes it", Some(&route.origin));
        loop {
            let admission = admit(route, &mut self.exchange, self.question.now);
            if let Admission::Ask(inquiry) = admission {
                let (reply, note) = answers::to(inquiry);
                self.written.notes.extend(note.map(str::to_owned));
                self.exchange.reply(reply);
                continue;
            }
            self.record(Stage::Admit, Some(route));
            let is_refused = matches!(admission, Admission::Refuse(_));
            self.written.rate_limits = rate_limits(route, &self.exchange, is_refused);
            if self.exchange.body_limit.is_some() || matches!(admission, Admission::Go) {
                self.limit_of_body(route);
                self.limits_of_validate(route);
            }
            match admission {
                Admission::Go => return self.forward(route),
                Admission::Answer(answer) => return self.answer(route, answer),
                Admission::Refuse(rejection) => return self.refuse(Stage::Admit, Some(route), &rejection),
                Admission::Ask(_) => {}
            }
        }
    }

    fn forward(&mut self, route: &'s Route) -> Response {
        let has_body = self.exchange.headers.contains_key(TRANSFER_ENCODING)
            || self.exchange.declared_length().is_some_and(|length| length > 0);
        let planned = plan(self.snapshot, route, &mut self.exchange, !has_body, NOT_RANDOM);
        self.record(Stage::Attempt, Some(route));
        let plan = match planned {
            Ok(plan) => plan,
            Err(rejection) => return self.refuse(Stage::Attempt, Some(route), &rejection),
        };
        self.limits_of_plan(route, &plan);
        if let Some(rejection) = self.judge_body() {
            self.record(Stage::Body, Some(route));
            return self.refuse(Stage::Body, Some(route), &rejection);
        }
        self.record(Stage::Body, Some(route));
        self.show_upstream(route, &plan);
        self.show_upstream_request(&plan);
        let sent = self.question.body.or(self.exchange.declared_length()).unwrap_or(0);
        self.exchange.body_in = sent;
        if plan.body.max.is_some_and(|max| sent > max) {
            let rejection = body::too_long(&mut self.exchange, sent);
            self.record(Stage::Body, Some(route));
            return self.refuse(Stage::Body, Some(route), &rejection);
        }
        let response = self.pursue(route, plan);
        body::received(&mut self.exchange);
        self.record(Stage::Body, Some(route));
        response
    }

    /// The upstream's supposed response on its way to the client.
    pub(super) fn respond(&mut self, route: &Route, plan: &Plan<'_>, answered: Option<StatusCode>) -> Response {
        let upgraded_by_default = if plan.upgrade { StatusCode::SWITCHING_PROTOCOLS } else { StatusCode::OK };
        let supposed = &self.question.response;
        let status = answered.or(supposed.status).unwrap_or(upgraded_by_default);
        let mut before = supposed.headers.clone();
        let upgraded = status == StatusCode::SWITCHING_PROTOCOLS;
        if !upgraded && !before.contains_key(CONTENT_TYPE) {
            before.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let length = BodyLength::of_response(&self.exchange.method, status, supposed.length);
        let upgrading = if upgraded { Upgrading::Yes } else { Upgrading::No };
        let mut head = ResponseHead { status, headers: before.clone() };
        if !upgraded {
            let judged = respond::judge_head(route, &mut self.exchange, &head, length);
            self.record(Stage::Respond, Some(route));
            match judged {
                Ok(Some(_)) => self.note("the response's body is not judged here: it is a supposed one"),
                Ok(None) => {}
                Err(rejection) => return self.refuse(Stage::Respond, Some(route), &rejection),
            }
        }
        let now = self.exchange.started;
        let finished = respond::finish(route, &mut self.exchange, &mut head, length, upgrading, now);
        self.show_edits_of_response(route);
        self.record(Stage::Respond, Some(route));
        let encoder = match finished {
            Ok(encoder) => encoder,
            Err(rejection) => return self.refuse(Stage::Respond, Some(route), &rejection),
        };
        if plan.deadline.is_some() && plan.deadline_of_response(&head).is_none() {
            self.note("timeout.request ends with the head of this response: it is an endless stream");
        }
        let body = if upgraded || encoder.is_some() { Body::Streamed } else { body_of(length) };
        let fields = compare(&before, &head.headers);
        Response { ending: Ending::Forwarded, status: head.status.as_u16(), fields, body, text: None }
    }

    pub(super) fn answer(&mut self, route: &Route, answer: Answer) -> Response {
        let mut head = ResponseHead { status: answer.status, headers: answer.headers };
        respond::answer(route, &self.exchange, &mut head);
        self.own_response(Ending::Answered, &head, &answer.body)
    }

    pub(super) fn refuse(&mut self, stage: Stage, route: Option<&Route>, rejection: &Rejection) -> Response {
        self.exchange.rejection = Some(rejection.code);
        let rejects = |decided: &&Decided| decided.stage == stage && decided.verdict == Verdict::Reject.as_str();
        let policy = self.written.decisions.iter().rev().find(rejects).and_then(|decided| decided.policy);
        if policy.is_none() {
            let detail = rejection.detail.clone();
            self.say(stage, None, Verdict::Reject.as_str(), &detail, None);
        }
        let code = rejection.code.as_str();
        self.written.refusal = Some(Refusal {
            stage,
            policy,
            code,
            detail: rejection.detail.to_string(),
            errors: rejection.errors.clone(),
        });
        let (mut head, body) = fail::response(rejection, Some(&self.exchange.headers), Some(&self.exchange.request_id));
        respond::own(route, &self.exchange, &mut head);
        self.own_response(Ending::Refused, &head, &body)
    }

    fn own_response(&self, ending: Ending, head: &ResponseHead, text: &[u8]) -> Response {
        let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
        let body = body_of(BodyLength::of_response(&self.exchange.method, head.status, Some(length)));
        let has_text = matches!(body, Body::Bytes(1..));
        Response {
            ending,
            status: head.status.as_u16(),
            fields: compare(&HeaderMap::new(), &head.headers),
            body,
            text: has_text.then(|| String::from_utf8_lossy(text).into_owned()),
        }
    }
}

/// What is written down.
impl Walk<'_> {
    fn say(
        &mut self,
        stage: Stage,
        policy: Option<&'static str>,
        verdict: &'static str,
        reason: &str,
        origin: Option<&Origin>,
    ) {
        let origin = origin.map(ToString::to_string);
        self.written.decisions.push(Decided { stage, policy, verdict, reason: reason.to_owned(), origin });
    }

    /// Writes down what policies have decided since the last time.
    pub(super) fn record(&mut self, stage: Stage, route: Option<&Route>) {
        let new = self.exchange.decisions.iter().skip(self.seen);
        let asked = self.exchange.upstream.as_ref();
        let mut upstreams = self.snapshot.upstreams.iter().map(|entry| &entry.upstream);
        let upstream = upstreams.find(|upstream| Some(upstream.name()) == asked);
        let upstream = upstream.map(|upstream| upstream.origin().to_string());
        for decision in new {
            let mut origins = route.into_iter().flat_map(|route| route.policies.origins());
            let origin = origins.find(|(policy, _)| *policy == decision.policy).map(|(_, origin)| origin.to_string());
            let (stage, origin) = match decision.policy {
                // Settings of the upstream, not of the route.
                PolicyName::Breaker | PolicyName::Concurrency | PolicyName::Health => (Stage::Shed, upstream.clone()),
                PolicyName::Retry => (Stage::Judge, origin),
                PolicyName::Fallback => (Stage::Fail, origin),
                _ => (stage, origin),
            };
            self.written.decisions.push(Decided {
                stage,
                policy: Some(decision.policy.as_str()),
                verdict: decision.verdict.as_str(),
                reason: decision.reason.to_string(),
                origin,
            });
        }
        self.seen = self.exchange.decisions.len();
    }

    fn note(&mut self, note: &str) {
        self.written.notes.push(note.to_owned());
    }

    fn limit(&mut self, name: &'static str, value: impl Display, origin: &Origin) {
        self.written.limits.push(Limit { name, value: value.to_string(), origin: origin.to_string() });
    }

    fn show_routing(&mut self) {
        let request = self.exchange.view();
        let method = asked_for(&request).filter(|_| self.exchange.route.is_some());
        let mut explanation = self.snapshot.router.explain(&request);
        let mut preflight_for = None;
        if explanation.choice.is_none()
            && let Some(method) = &method
        {
            explanation = self.snapshot.router.explain(&RequestView { method, ..request });
            preflight_for = Some(method.to_string());
        }
        let route = explanation.choice.map(|choice| RouteShown {
            name: choice.name.to_string(),
            origin: self.origin_of(choice.name),
            host: choice.host,
            path: choice.path,
            preflight_for,
            runner_up: choice.runner_up.map(|(name, decided_by)| RunnerUp {
                name: name.to_string(),
                origin: self.origin_of(name),
                decided_by: decided_by.as_str(),
            }),
        });
        let misses = explanation.misses.into_iter().map(|miss| Missed {
            name: miss.name.to_string(),
            origin: self.origin_of(miss.name),
            missing: miss.missing,
        });
        let near_misses = misses.collect();
        self.written.route = route;
        self.written.near_misses = near_misses;
    }

    fn origin_of(&self, name: &RouteName) -> String {
        self.snapshot
            .routes
            .iter()
            .find(|route| route.name == *name)
            .map(|route| &route.origin)
            .map_or_else(String::new, ToString::to_string)
    }

    fn show_upstream(&mut self, route: &Route, plan: &Plan<'_>) {
        let upstream = &plan.upstream.upstream;
        let tried = Tried::default();
        let chosen = upstream.choose(&upstream::Choice {
            random: NOT_RANDOM,
            hash: plan.hash,
            now: self.exchange.started,
            tried: &tried,
        });
        let known = upstream.roster().endpoints();
        let (settings, _) = upstream.health();
        let health = (settings.check.is_some() || settings.outlier.is_some()).then_some("unknown");
        let endpoints = upstream.roster().declared().map(|(url, weight)| {
            let url = url.to_string();
            let endpoint = known.as_slice().iter().find(|endpoint| *endpoint.url == *url);
            let is_chosen =
                |endpoint: &upstream::Endpoint| chosen.as_ref().is_some_and(|chosen| chosen.key() == endpoint.key());
            Candidate {
                weight,
                address: endpoint.map(|endpoint| endpoint.address.to_string()),
                health,
                chosen: endpoint.is_some_and(|endpoint| is_chosen(endpoint)),
                url,
            }
        });
        let endpoints: Vec<Candidate> = endpoints.collect();
        if upstream.name().as_str() == DEMO {
            self.note("the demo app has an address only while the gateway runs");
        } else if chosen.is_none() {
            self.note("no endpoint is chosen: names are resolved while the gateway runs");
        }
        self.written.upstream = Some(UpstreamShown {
            name: upstream.name().to_string(),
            origin: upstream.origin().to_string(),
            shares: self.shares(route),
            balance: balance(upstream, plan.hash),
            endpoints,
        });
    }

    fn shares(&self, route: &Route) -> Vec<Share> {
        let shares: Vec<(String, u64)> = route
            .upstream
            .iter()
            .flat_map(upstream::Split::iter)
            .map(|(index, weight)| {
                let entry = self.snapshot.upstreams.get(*index);
                (entry.map_or_else(String::new, |entry| entry.upstream.name().to_string()), weight)
            })
            .collect();
        let total: u64 = shares.iter().map(|(_, weight)| weight).sum();
        let percent = |weight: u64| f64::from(u32::try_from(weight * 10_000 / total.max(1)).unwrap_or(0)) / 100.0;
        shares.into_iter().map(|(upstream, weight)| Share { upstream, weight, percent: percent(weight) }).collect()
    }

    fn show_upstream_request(&mut self, plan: &Plan<'_>) {
        self.written.upstream_request = Some(UpstreamRequest {
            method: plan.method.to_string(),
            target: without_credentials(plan.target(&self.exchange)),
            host: String::from_utf8_lossy(plan.authority.as_bytes()).into_owned(),
            fields: compare(&self.exchange.headers, &plan.headers),
            body: body_of(plan.length),
            upgrade: plan.upgrade,
        });
    }

    /// `finish` applies these without a word.
    fn show_edits_of_response(&mut self, route: &Route) {
        if let Some(slot) = route.policies.headers.as_ref().filter(|slot| slot.policy.edits_responses()) {
            self.say(
                Stage::Respond,
                Some("headers"),
                "apply",
                "fields of the response were edited",
                Some(&slot.origin),
            );
        }
        if let (Some(slot), Some(_)) = (&route.policies.cors, &self.exchange.cors) {
            let reason = "the CORS fields of the response are the gateway's";
            self.say(Stage::Respond, Some("cors"), "apply", reason, Some(&slot.origin));
        }
    }

    fn into_report(self, response: Response) -> Report {
        let Self { exchange, listener, written, question, .. } = self;
        let Written {
            route,
            near_misses,
            decisions,
            limits,
            rate_limits,
            upstream,
            upstream_request,
            attempts,
            refusal,
            notes,
        } = written;
        let as_received = exchange.uri.path();
        let request = Request {
            method: exchange.method.to_string(),
            scheme: exchange.scheme.as_str(),
            host: Some(exchange.host())
                .filter(|host| !host.is_empty())
                .or(question.url.host())
                .unwrap_or_default()
                .to_owned(),
            port: exchange.port,
            path: exchange.path().to_owned(),
            path_as_received: (as_received != exchange.path()).then(|| as_received.to_owned()),
            query: exchange.uri.query().map(without_credentials),
            client: exchange.client.to_string(),
            trusted_proxy: exchange.peer_trusted.then(|| exchange.peer.ip().to_string()),
            request_id: String::from_utf8_lossy(exchange.request_id.as_bytes()).into_owned(),
            principal: exchange.principal.as_deref().map(|principal| Principal {
                name: principal.name().to_owned(),
                method: principal.method().as_str(),
                groups: principal.groups().iter().map(ToString::to_string).collect(),
            }),
            listener: listener.map(|Listener { spec, origin, .. }| super::Listener {
                name: spec.name.to_string(),
                address: spec.address.to_string(),
                tls: spec.tls.is_some(),
                origin: origin.to_string(),
            }),
        };
        Report {
            request,
            route,
            near_misses,
            decisions,
            limits,
            rate_limits,
            upstream,
            upstream_request,
            attempts,
            refusal,
            response,
            notes,
        }
    }
}

fn balance(upstream: &upstream::Upstream, hash: Option<u64>) -> Choice {
    let (balance, origin) = upstream.balance();
    let algorithm = match balance {
        Balance::RoundRobin => "round_robin".to_owned(),
        Balance::LeastRequest => "least_request".to_owned(),
        Balance::Ewma => "ewma".to_owned(),
        Balance::Random => "random".to_owned(),
        Balance::Hash(keys) => format!("hash of {keys}"),
    };
    let has_key = matches!(balance, Balance::Hash(_)).then_some(hash.is_some());
    Choice { algorithm, origin: origin.to_string(), has_key }
}

const fn body_of(length: BodyLength) -> Body {
    match length {
        BodyLength::Absent => Body::Absent,
        BodyLength::Known(length) => Body::Bytes(length),
        BodyLength::Unknown => Body::Streamed,
    }
}
