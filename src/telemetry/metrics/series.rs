//! The handles through which a route, an upstream and a listener are counted.
//!
//! A handle owns its cells; the exposition walks the handles that are exposed at the moment. So a request that was
//! pinned to a removed route goes on counting into a handle that nobody reads, and brings nothing back.

use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use http::{Method, StatusCode};
use parking_lot::Mutex;

use super::cells::{Counter, Counters, Durations, Gauge};
use super::exposition::Samples;
use super::families;
use super::labels::{CODES, Handshake, MethodLabel, NonRequest, Refused, code_label, outcome_label};
use crate::model::guard::{GuardReading, Phase, Shed};
use crate::model::ids::{LimitName, ListenerName, RouteName, UpstreamName};
use crate::model::outcome::{Outcome, StandIn};
use crate::model::verdict::{PolicyName, Verdict};

/// What is counted of one request when it has ended.
#[derive(Debug, Clone, Copy)]
pub struct Finished<'a> {
    /// Method as received.
    pub method: &'a Method,
    /// Status that the client was sent; `None` when there was no response.
    pub status: Option<StatusCode>,
    /// From the first byte of the request to the last of the response.
    pub duration: Duration,
    /// Bytes of the request's content.
    pub request_body: u64,
    /// Bytes of the response's content.
    pub response_body: u64,
}

type ByCode = Counters<{ CODES.len() }>;
type ByVerdict = Counters<{ Verdict::ALL.len() }>;

/// What is counted for one route.
#[derive(Debug)]
pub struct RouteMetrics {
    name: RouteName,
    /// Made at the first request with that method: most routes see one or two.
    requests: [OnceLock<Box<ByCode>>; MethodLabel::ALL.len()],
    duration: Durations,
    request_body_bytes: Counter,
    response_body_bytes: Counter,
    decisions: [ByVerdict; PolicyName::ALL.len()],
    fallbacks: Counters<{ StandIn::ALL.len() }>,
}

impl RouteMetrics {
    pub(super) fn new(name: RouteName) -> Self {
        Self {
            name,
            requests: std::array::from_fn(|_| OnceLock::new()),
            duration: Durations::default(),
            request_body_bytes: Counter::default(),
            response_body_bytes: Counter::default(),
            decisions: std::array::from_fn(|_| ByVerdict::default()),
            fallbacks: Counters::default(),
        }
    }

    /// The route's name.
    #[must_use]
    pub fn name(&self) -> &RouteName {
        &self.name
    }

    /// Counts a request that has ended: at most five atomic additions.
    pub fn finished(&self, request: &Finished<'_>) {
        if let Some(codes) = self.requests.get(MethodLabel::from(request.method) as usize) {
            codes.get_or_init(Box::default).inc(code_label(request.status));
        }
        self.duration.observe(request.duration);
        self.request_body_bytes.add(request.request_body);
        self.response_body_bytes.add(request.response_body);
    }

    /// Counts a policy's decision.
    pub fn decided(&self, policy: PolicyName, verdict: Verdict) {
        if let Some(verdicts) = self.decisions.get(policy as usize) {
            verdicts.inc(verdict as usize);
        }
    }

    /// Counts a response that a fallback gave.
    pub fn fell_back(&self, kind: StandIn) {
        self.fallbacks.inc(kind as usize);
    }

    pub(super) fn read(&self, out: &mut Samples) {
        let route = self.name.as_str();
        for (method, codes) in MethodLabel::ALL.iter().zip(&self.requests) {
            let Some(codes) = codes.get() else { continue };
            for (code, value) in CODES.iter().zip(codes.values()).filter(|(_, value)| *value > 0) {
                out.counter(&families::REQUESTS, &[route, method.as_str(), code], value);
            }
        }
        out.histogram(&families::REQUEST_DURATION, &[route], self.duration.read());
        out.counter(&families::REQUEST_BODY, &[route], self.request_body_bytes.get());
        out.counter(&families::RESPONSE_BODY, &[route], self.response_body_bytes.get());
        for (policy, verdicts) in PolicyName::ALL.iter().zip(&self.decisions) {
            for (verdict, value) in Verdict::ALL.iter().zip(verdicts.values()).filter(|(_, value)| *value > 0) {
                out.counter(&families::DECISIONS, &[route, policy.as_str(), verdict.as_str()], value);
            }
        }
        for (kind, value) in StandIn::ALL.iter().zip(self.fallbacks.values()).filter(|(_, value)| *value > 0) {
            out.counter(&families::FALLBACKS, &[route, kind.as_str()], value);
        }
    }
}

/// Endpoints by state and ejections by reason, as they were noted last.
type NotedHealth = (Vec<(&'static str, usize)>, Vec<(&'static str, u64)>);

/// What is counted for one upstream.
#[derive(Debug)]
pub struct UpstreamMetrics {
    name: UpstreamName,
    attempts: Counters<{ Outcome::LABELS.len() }>,
    attempt_duration: Durations,
    /// Connections that were opened and are ready for requests.
    pub connections_opened: Counter,
    /// Attempts that went out on a connection that had been used before.
    pub connections_reused: Counter,
    /// Connections in the pool that nobody uses.
    pub connections_idle: Gauge,
    retries: Counter,
    retries_denied: Counter,
    hedges_won: Counter,
    hedges_lost: Counter,
    shed: Counters<{ Shed::ALL.len() }>,
    checks_passed: Counter,
    checks_failed: Counter,
    health: Mutex<NotedHealth>,
}

impl UpstreamMetrics {
    pub(super) fn new(name: UpstreamName) -> Self {
        Self {
            name,
            attempts: Counters::default(),
            attempt_duration: Durations::default(),
            connections_opened: Counter::default(),
            connections_reused: Counter::default(),
            connections_idle: Gauge::default(),
            retries: Counter::default(),
            retries_denied: Counter::default(),
            hedges_won: Counter::default(),
            hedges_lost: Counter::default(),
            shed: Counters::default(),
            checks_passed: Counter::default(),
            checks_failed: Counter::default(),
            health: Mutex::default(),
        }
    }

    /// The upstream's name.
    #[must_use]
    pub fn name(&self) -> &UpstreamName {
        &self.name
    }

    /// Counts an attempt; `duration` is the time to its response head, or to its failure.
    pub fn attempted(&self, outcome: Outcome, duration: Duration) {
        self.attempts.inc(outcome_label(outcome));
        self.attempt_duration.observe(duration);
    }

    /// Counts a health check.
    pub fn health_checked(&self, passed: bool) {
        if passed { &self.checks_passed } else { &self.checks_failed }.inc();
    }

    /// Notes what is kept elsewhere, for the next exposition: endpoints by state, and ejections so far by reason.
    pub fn note_health<const S: usize, const R: usize>(
        &self,
        endpoints: [(&'static str, usize); S],
        ejections: [(&'static str, u64); R],
    ) {
        *self.health.lock() = (endpoints.into(), ejections.into());
    }

    /// Counts a failed attempt that is made again.
    pub fn retried(&self) {
        self.retries.inc();
    }

    /// Counts a retry or a hedge that the budget did not allow.
    pub fn retry_denied(&self) {
        self.retries_denied.inc();
    }

    /// Counts a second attempt that was started beside a slow first one.
    pub fn hedged(&self, won: bool) {
        if won { &self.hedges_won } else { &self.hedges_lost }.inc();
    }

    /// Counts an attempt that was not begun.
    pub fn shed(&self, reason: Shed) {
        self.shed.inc(reason as usize);
    }

    pub(super) fn read(&self, out: &mut Samples) {
        let upstream = self.name.as_str();
        for (outcome, value) in Outcome::LABELS.iter().zip(self.attempts.values()).filter(|(_, value)| *value > 0) {
            out.counter(&families::ATTEMPTS, &[upstream, outcome], value);
        }
        {
            let health = self.health.lock();
            for (state, count) in &health.0 {
                out.gauge(&families::ENDPOINTS, &[upstream, state], i64::try_from(*count).unwrap_or(i64::MAX));
            }
            for (reason, count) in health.1.iter().filter(|(_, count)| *count > 0) {
                out.counter(&families::EJECTIONS, &[upstream, reason], *count);
            }
        }
        for (result, checks) in [("passed", &self.checks_passed), ("failed", &self.checks_failed)] {
            if checks.get() > 0 {
                out.counter(&families::HEALTH_CHECKS, &[upstream, result], checks.get());
            }
        }
        out.histogram(&families::ATTEMPT_DURATION, &[upstream], self.attempt_duration.read());
        out.counter(&families::UPSTREAM_OPENED, &[upstream], self.connections_opened.get());
        out.counter(&families::UPSTREAM_REUSED, &[upstream], self.connections_reused.get());
        out.gauge(&families::UPSTREAM_IDLE, &[upstream], self.connections_idle.get());
        out.counter(&families::RETRIES, &[upstream], self.retries.get());
        out.counter(&families::RETRIES_DENIED, &[upstream], self.retries_denied.get());
        for (result, hedges) in [("won", &self.hedges_won), ("lost", &self.hedges_lost)] {
            if hedges.get() > 0 {
                out.counter(&families::HEDGES, &[upstream, result], hedges.get());
            }
        }
        for (reason, value) in Shed::ALL.iter().zip(self.shed.values()).filter(|(_, value)| *value > 0) {
            out.counter(&families::SHED, &[upstream, reason.as_str()], value);
        }
    }
}

/// Where the state of what stands before an upstream is read at an exposition.
#[derive(Clone)]
pub struct GuardSource {
    upstream: UpstreamName,
    read: Arc<dyn Fn() -> GuardReading + Send + Sync>,
}

impl GuardSource {
    /// The source of that upstream; `read` is called at each exposition and must not wait.
    pub fn new(upstream: UpstreamName, read: impl Fn() -> GuardReading + Send + Sync + 'static) -> Self {
        Self { upstream, read: Arc::new(read) }
    }

    pub(super) fn upstream(&self) -> &UpstreamName {
        &self.upstream
    }

    pub(super) fn read(&self, out: &mut Samples) {
        let upstream = self.upstream.as_str();
        let GuardReading { breaker, concurrency } = (self.read)();
        if let Some(breaker) = breaker {
            out.gauge(&families::BREAKER_STATE, &[upstream], breaker.phase as i64);
            for (to, count) in Phase::ALL.iter().zip(breaker.transitions) {
                out.counter(&families::BREAKER_TRANSITIONS, &[upstream, to.as_str()], count);
            }
        }
        if let Some(concurrency) = concurrency {
            out.gauge(&families::CONCURRENCY_LIMIT, &[upstream], i64::from(concurrency.limit));
            out.gauge(&families::CONCURRENCY_IN_FLIGHT, &[upstream], i64::from(concurrency.in_flight));
            out.gauge(&families::QUEUE_LENGTH, &[upstream], i64::from(concurrency.queued));
        }
    }
}

impl fmt::Debug for GuardSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GuardSource").field(&self.upstream).finish()
    }
}

/// What is counted for one listener.
#[derive(Debug)]
pub struct ListenerMetrics {
    name: ListenerName,
    connections: Counter,
    active: Gauge,
    refused: Counters<{ Refused::ALL.len() }>,
    non_requests: Counters<{ NonRequest::ALL.len() }>,
    handshakes: Counters<{ Handshake::ALL.len() }>,
}

impl ListenerMetrics {
    pub(super) fn new(name: ListenerName) -> Self {
        Self {
            name,
            connections: Counter::default(),
            active: Gauge::default(),
            refused: Counters::default(),
            non_requests: Counters::default(),
            handshakes: Counters::default(),
        }
    }

    /// The listener's name.
    #[must_use]
    pub fn name(&self) -> &ListenerName {
        &self.name
    }

    /// Counts an accepted connection, which is active until the value is dropped.
    #[must_use]
    pub fn connected(self: &Arc<Self>) -> ActiveConnection {
        self.connections.inc();
        self.active.inc();
        ActiveConnection(Arc::clone(self))
    }

    /// Counts a connection that was turned away.
    pub fn refused(&self, why: Refused) {
        self.refused.inc(why as usize);
    }

    /// Counts what never became a request.
    pub fn non_request(&self, what: NonRequest) {
        self.non_requests.inc(what as usize);
    }

    /// Counts a TLS handshake.
    pub fn handshake(&self, result: Handshake) {
        self.handshakes.inc(result as usize);
    }

    /// Connections that are open now.
    #[must_use]
    pub fn active(&self) -> i64 {
        self.active.get()
    }

    pub(super) fn read(&self, out: &mut Samples) {
        let listener = self.name.as_str();
        out.counter(&families::CONNECTIONS, &[listener], self.connections.get());
        out.gauge(&families::CONNECTIONS_ACTIVE, &[listener], self.active.get());
        for (why, value) in Refused::ALL.iter().zip(self.refused.values()) {
            out.counter(&families::CONNECTIONS_REFUSED, &[listener, why.as_str()], value);
        }
        for (what, value) in NonRequest::ALL.iter().zip(self.non_requests.values()) {
            out.counter(&families::NON_REQUESTS, &[listener, what.as_str()], value);
        }
        for (result, value) in Handshake::ALL.iter().zip(self.handshakes.values()).filter(|(_, value)| *value > 0) {
            out.counter(&families::HANDSHAKES, &[listener, result.as_str()], value);
        }
    }
}

/// What is known of one rate limit. It counts itself, and is read before each exposition.
#[derive(Debug)]
pub struct LimitMetrics {
    name: LimitName,
    keys: Gauge,
    no_key: Gauge,
    no_room: Gauge,
}

impl LimitMetrics {
    pub(super) fn new(name: LimitName) -> Self {
        Self { name, keys: Gauge::default(), no_key: Gauge::default(), no_room: Gauge::default() }
    }

    /// The limit's name.
    #[must_use]
    pub fn name(&self) -> &LimitName {
        &self.name
    }

    /// Keys that have a bucket now, and how many requests have counted in a shared one: for want of the key, and for want of
    /// room.
    pub fn observe(&self, keys: usize, no_key: u64, no_room: u64) {
        self.keys.set(i64::try_from(keys).unwrap_or(i64::MAX));
        self.no_key.set(i64::try_from(no_key).unwrap_or(i64::MAX));
        self.no_room.set(i64::try_from(no_room).unwrap_or(i64::MAX));
    }

    pub(super) fn read(&self, out: &mut Samples) {
        let limit = self.name.as_str();
        out.gauge(&families::LIMIT_KEYS, &[limit], self.keys.get());
        for (reason, count) in [("no_key", &self.no_key), ("no_room", &self.no_room)] {
            out.counter(&families::LIMIT_SHARED, &[limit, reason], count.get().unsigned_abs());
        }
    }
}

/// What is known of one store of rate limits, read before each exposition.
#[derive(Debug)]
pub struct LimitStoreMetrics {
    name: Arc<str>,
    up: Gauge,
    errors: Gauge,
}

impl LimitStoreMetrics {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self { name, up: Gauge::default(), errors: Gauge::default() }
    }

    /// The store's name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether it answers, and how often it has failed.
    pub fn observe(&self, up: bool, errors: u64) {
        self.up.set(i64::from(up));
        self.errors.set(i64::try_from(errors).unwrap_or(i64::MAX));
    }

    pub(super) fn read(&self, out: &mut Samples) {
        out.gauge(&families::LIMIT_STORE_UP, &[&self.name], self.up.get());
        out.counter(&families::LIMIT_STORE_ERRORS, &[&self.name], self.errors.get().unsigned_abs());
    }
}

/// A connection that counts as active as long as this value lives.
#[derive(Debug)]
pub struct ActiveConnection(Arc<ListenerMetrics>);

impl Drop for ActiveConnection {
    fn drop(&mut self) {
        self.0.active.dec();
    }
}
