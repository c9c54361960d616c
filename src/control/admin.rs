//! The admin API: health, metrics, what is in force, and the few writes there are.
//!
//! It listens on an address of its own, on a loopback one unless the operator says otherwise. Writes need a bearer token
//! unless the address is a loopback one; a loopback address also refuses requests that a web page in a browser on the
//! same machine could make (foreign `Host` or `Origin`).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Path, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpListener;

use super::limits;
use super::supervisor::{Supervisor, Trigger};
use crate::engine::Gateway;
use crate::model::clock::Instant;
use crate::policy::auth::{KeyRing, KeySource};
use crate::telemetry::metrics;
use crate::upstream::breaker::BreakerState;
use crate::upstream::concurrency::Limit;
use crate::upstream::health::{EjectionReason, State as HealthState};
use crate::upstream::{Endpoint, EndpointSet, Split, Upstream};

/// Who may do what.
#[derive(Debug, Clone)]
pub struct Access {
    /// What writes must carry; `None` on a loopback address means that none is needed.
    pub token: Option<String>,
    /// The address that it listens on.
    pub address: SocketAddr,
}

#[derive(Clone)]
struct Shared {
    supervisor: Arc<Supervisor>,
    access: Arc<Access>,
}

/// Serves the API until `stop` resolves.
pub async fn serve(
    listener: TcpListener,
    supervisor: Arc<Supervisor>,
    access: Access,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let shared = Shared { supervisor, access: Arc::new(access) };
    let writes = Router::new()
        .route("/api/v1/reload", post(reload))
        .route("/api/v1/upstreams/{name}/endpoints/{address}/drain", post(drain))
        .route("/api/v1/upstreams/{name}/endpoints/{address}/enable", post(enable))
        .route_layer(middleware::from_fn_with_state(shared.clone(), authorise));
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render_metrics))
        .route("/api/v1/config", get(config))
        .route("/api/v1/routes", get(routes))
        .route("/api/v1/upstreams", get(upstreams))
        .route("/api/v1/keys", get(keys))
        .route("/api/v1/limits", get(rate_limits))
        .merge(writes)
        .layer(middleware::from_fn_with_state(shared.clone(), refuse_foreign))
        .with_state(shared);
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop).await {
        tracing::error!(%error, "the admin API ended");
    }
}

fn problem(status: StatusCode, code: &str, detail: &str) -> Response {
    let body = json!({
        "type": format!("https://portcullis.dev/errors/{code}"),
        "title": status.canonical_reason().unwrap_or_default(),
        "status": status.as_u16(),
        "detail": detail,
    });
    (status, [(CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}

/// A page in a browser may reach a loopback address under a name of its own (DNS rebinding) or by a form; neither
/// carries our `Host` and no `Origin`.
async fn refuse_foreign(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    if shared.access.address.ip().is_loopback() {
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
        let known = name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok();
        if !known || request.headers().contains_key(ORIGIN) {
            return problem(StatusCode::FORBIDDEN, "forbidden", "not by a web page or under a foreign name");
        }
    }
    next.run(request).await
}

async fn authorise(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    match &shared.access.token {
        Some(token) if bears(request.headers(), token) => next.run(request).await,
        None if shared.access.address.ip().is_loopback() => next.run(request).await,
        _ => {
            let mut response = problem(StatusCode::UNAUTHORIZED, "unauthenticated", "writes need the admin token");
            response.headers_mut().insert("www-authenticate", axum::http::HeaderValue::from_static("Bearer"));
            response
        }
    }
}

/// Compares in a time that depends on the lengths alone.
fn bears(headers: &HeaderMap, token: &str) -> bool {
    let given = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    given.is_some_and(|given| {
        given.len() == token.len() && given.iter().zip(token.bytes()).fold(0, |all, (a, b)| all | (a ^ b)) == 0
    })
}

async fn readyz(State(shared): State<Shared>) -> Response {
    match shared.supervisor.not_ready() {
        None => "ready\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn render_metrics(State(shared): State<Shared>) -> Response {
    let supervisor = &shared.supervisor;
    note_health(supervisor.gateway());
    limits::observe(&supervisor.gateway().live.load_full());
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], supervisor.gateway().telemetry.metrics.render()).into_response()
}

/// Tells the metrics what the upstreams keep.
fn note_health(gateway: &Gateway) {
    let (live, now) = (gateway.live.load(), gateway.clock.now());
    for (entry, metrics) in live.snapshot.upstreams.iter().zip(&live.metrics.upstreams) {
        let roster = entry.upstream.roster();
        let (census, ejections) = (roster.census(now), roster.ejections());
        metrics.note_health(
            std::array::from_fn::<_, { HealthState::ALL.len() }, _>(|index| {
                let state = HealthState::ALL.get(index).map_or("", |state| state.as_str());
                (state, census.get(index).copied().unwrap_or_default())
            }),
            std::array::from_fn::<_, { EjectionReason::ALL.len() }, _>(|index| {
                let reason = EjectionReason::ALL.get(index).map_or("", |reason| reason.as_str());
                (reason, ejections.get(index).copied().unwrap_or_default())
            }),
        );
    }
}

async fn config(State(shared): State<Shared>) -> Response {
    Json(shared.supervisor.status()).into_response()
}

async fn reload(State(shared): State<Shared>) -> Response {
    match shared.supervisor.reload(Trigger::Admin).await {
        Ok(generation) => Json(json!({ "generation": generation })).into_response(),
        Err(refused) => {
            let body = json!({
                "type": "https://portcullis.dev/errors/invalid_configuration",
                "title": "The configuration was refused",
                "status": 422,
                "detail": refused.summary,
                "diagnostics": refused.diagnostics,
            });
            let headers = [(CONTENT_TYPE, "application/problem+json")];
            (StatusCode::UNPROCESSABLE_ENTITY, headers, body.to_string()).into_response()
        }
    }
}

#[derive(Serialize)]
struct RouteRow<'a> {
    name: &'a str,
    origin: String,
    upstreams: Vec<Share<'a>>,
    policies: Vec<PolicyRow>,
}

#[derive(Serialize)]
struct Share<'a> {
    upstream: &'a str,
    weight: u64,
}

#[derive(Serialize)]
struct PolicyRow {
    policy: &'static str,
    origin: String,
}

async fn routes(State(shared): State<Shared>) -> Response {
    let live = shared.supervisor.gateway().live.load_full();
    let snapshot = &live.snapshot;
    let upstream_name = |index: usize| snapshot.upstreams.get(index).map_or("", |entry| entry.upstream.name().as_str());
    let rows: Vec<RouteRow<'_>> = snapshot
        .routes
        .iter()
        .map(|route| RouteRow {
            name: route.name.as_str(),
            origin: route.origin.to_string(),
            upstreams: route
                .upstream
                .iter()
                .flat_map(Split::iter)
                .map(|(index, weight)| Share { upstream: upstream_name(*index), weight })
                .collect(),
            policies: route
                .policies
                .origins()
                .map(|(policy, origin)| PolicyRow { policy: policy.as_str(), origin: origin.to_string() })
                .collect(),
        })
        .collect();
    Json(json!({ "generation": snapshot.generation, "routes": rows })).into_response()
}

async fn drain(State(shared): State<Shared>, Path(place): Path<(String, String)>) -> Response {
    set_drained(&shared, &place, true)
}

async fn enable(State(shared): State<Shared>, Path(place): Path<(String, String)>) -> Response {
    set_drained(&shared, &place, false)
}

fn set_drained(shared: &Shared, (name, address): &(String, String), drained: bool) -> Response {
    let gateway = shared.supervisor.gateway();
    let live = gateway.live.load();
    let entry = live.snapshot.upstreams.iter().find(|entry| entry.upstream.name().as_str() == name);
    let Some(entry) = entry else { return problem(StatusCode::NOT_FOUND, "not_found", "no upstream of that name") };
    if !entry.upstream.roster().drain(address, drained, gateway.clock.now()) {
        return problem(StatusCode::NOT_FOUND, "not_found", "the upstream has no endpoint at that address");
    }
    Json(json!({ "upstream": name, "address": address, "drained": drained })).into_response()
}

/// An endpoint as `/api/v1/upstreams` shows it.
fn endpoint_row(set: &EndpointSet, endpoint: &Endpoint, now: Instant) -> serde_json::Value {
    let (state, health) = (&endpoint.state, &endpoint.health);
    let unix_seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let ejected_until = health.ejected_until(now);
    json!({
        "url": &*endpoint.url,
        "address": &*endpoint.address,
        "weight": endpoint.weight,
        "health": endpoint.health_state(now).as_str(),
        "drained": state.is_drained(),
        "ejected_until": ejected_until.map(|until| unix_seconds + until.since(now).as_secs_f64()),
        "ejected_for": ejected_until.map(|_| health.ejected_for().as_str()),
        "slow_start": set.slow_start(endpoint, now),
        "last_check": health.last_check().map(|check| json!({
            "passed": check.failure.is_none(),
            "reason": check.failure,
            "at": unix_seconds - now.since(check.at).as_secs_f64(),
        })),
        "in_flight": state.in_flight(),
        "attempts": state.attempts(),
        "failures": state.failures(),
        "latency_ewma_seconds": state.latency().last().map(|last| last.as_secs_f64()),
    })
}

async fn upstreams(State(shared): State<Shared>) -> Response {
    let gateway = shared.supervisor.gateway();
    let live = gateway.live.load_full();
    let now = gateway.clock.now();
    let rows: Vec<_> = live
        .snapshot
        .upstreams
        .iter()
        .map(|entry| {
            let set = entry.upstream.roster().endpoints();
            let endpoints: Vec<_> = set.as_slice().iter().map(|endpoint| endpoint_row(&set, endpoint, now)).collect();
            json!({
                "name": entry.upstream.name().as_str(),
                "origin": entry.upstream.origin().to_string(),
                "breaker": breaker(&entry.upstream, now),
                "concurrency": concurrency(&entry.upstream),
                "panic": set.is_in_panic(now),
                "endpoints": endpoints,
            })
        })
        .collect();
    Json(json!({ "generation": live.snapshot.generation, "upstreams": rows })).into_response()
}

/// The state of its circuit breaker; `null` without one.
fn breaker(upstream: &Upstream, now: Instant) -> serde_json::Value {
    let Some(breaker) = upstream.breaker() else { return json!(null) };
    let state = breaker.state(now);
    let half_open_in = match state {
        BreakerState::Open { until } => Some(until.since(now).as_secs_f64()),
        BreakerState::Closed | BreakerState::HalfOpen => None,
    };
    let counted = breaker.counted(now);
    json!({
        "state": state.phase().as_str(),
        "half_open_in_seconds": half_open_in,
        "calls": counted.calls,
        "failures": counted.failures,
        "slow_calls": counted.slow,
    })
}

/// The state of its concurrency limit; `null` without one.
fn concurrency(upstream: &Upstream) -> serde_json::Value {
    let Some(limiter) = upstream.concurrency() else { return json!(null) };
    let reading = limiter.reading();
    json!({
        "limit": reading.limit,
        "adaptive": matches!(limiter.rules().limit, Limit::Adaptive(_)),
        "in_flight": reading.in_flight,
        "queued": reading.queued,
        "queue": limiter.rules().queue,
    })
}

/// The keys of token issuers: how many, how old, and whether fetching them fails.
async fn keys(State(shared): State<Shared>) -> Response {
    let gateway = shared.supervisor.gateway();
    let live = gateway.live.load_full();
    let now = gateway.clock.now();
    let row = |ring: &Arc<KeyRing>| {
        let status = ring.status(now);
        let source = match ring.source() {
            KeySource::File(_) => "file".to_owned(),
            // A query may hold what came from a secret.
            KeySource::Url { origin, target } => format!("{origin}{}", target.split('?').next().unwrap_or_default()),
        };
        json!({
            "source": source,
            "keys": status.keys,
            "age_seconds": status.age.map(|age| age.as_secs_f64()),
            "failures": status.failures,
        })
    };
    let rows: Vec<_> = live.snapshot.key_rings.iter().map(row).collect();
    Json(json!({ "generation": live.snapshot.generation, "key_rings": rows })).into_response()
}

async fn rate_limits(State(shared): State<Shared>) -> Response {
    let live = shared.supervisor.gateway().live.load_full();
    let rows: Vec<_> = live
        .snapshot
        .limits
        .iter()
        .map(|limit| {
            let counting = limit.counting();
            json!({
                "limit": limit.id().as_str(),
                "key": counting.keys,
                "rate": counting.rate,
                "burst": counting.burst,
                "keys": limit.tracked(),
                "max_keys": counting.max_keys,
                "store": limit.store().map(|store| &**store.name()),
                "shared_bucket": { "no_key": limit.keyless(), "no_room": limit.overflowed() },
            })
        })
        .collect();
    let stores: Vec<_> = live
        .snapshot
        .limits
        .stores()
        .map(|store| {
            let on_error = store.settings().on_error.as_str();
            let (up, gateways, errors) = (store.is_up(), store.nodes(), store.errors());
            json!({ "store": &**store.name(), "up": up, "gateways": gateways, "errors": errors, "on_error": on_error })
        })
        .collect();
    Json(json!({ "generation": live.snapshot.generation, "limits": rows, "stores": stores })).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn upstream(breaker: &str, concurrency: &str) -> Upstream {
        use crate::model::source::{SourceSpan, Spanned};
        let spanned = |text: &str| Spanned::new(text.to_owned(), SourceSpan::default());
        let mut config = crate::upstream::Config::inline(&spanned("http://127.0.0.1:1"));
        config.breaker.value = serde_json::from_str(breaker).expect("a breaker");
        config.concurrency.value = serde_json::from_str(concurrency).expect("a limit");
        let (sources, mut diagnostics) = Default::default();
        Upstream::compile(&spanned("api"), &config, None, &sources, &mut diagnostics).expect("it compiles")
    }

    #[test]
    fn the_guards_of_an_upstream_show_their_state() {
        let plain = upstream("false", "false");
        assert_eq!((breaker(&plain, Instant::default()), concurrency(&plain)), (json!(null), json!(null)));

        let guarded = upstream(r#"{"consecutive_failures":2,"open_for":"30s"}"#, r#"{"limit":1,"queue":5}"#);
        let now = Instant::from_nanos(1_000_000_000);
        let fail = || {
            let pass = guarded.breaker().expect("a breaker").try_pass(now).expect("closed");
            pass.judged(false, std::time::Duration::ZERO, now);
        };
        fail();
        let closed =
            json!({ "state": "closed", "half_open_in_seconds": null, "calls": 1, "failures": 1, "slow_calls": 0 });
        assert_eq!(breaker(&guarded, now), closed);
        fail();
        let later = Instant::from_nanos(11_000_000_000);
        assert_eq!(breaker(&guarded, later)["state"], "open");
        assert_eq!(breaker(&guarded, later)["half_open_in_seconds"], 20.0);

        let limiter = guarded.concurrency().expect("a limit");
        let _held = [limiter.enter(now, None), limiter.enter(now, None)];
        let full = json!({ "limit": 1, "adaptive": false, "in_flight": 1, "queued": 1, "queue": 5 });
        assert_eq!(concurrency(&guarded), full);
    }

    #[test]
    fn only_the_whole_token_opens() {
        let headers = |value| HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))]);
        assert!(bears(&headers("Bearer s3cret"), "s3cret"));
        assert!(!bears(&headers("Bearer s3cre"), "s3cret"));
        assert!(!bears(&headers("Basic s3cret"), "s3cret"));
        assert!(!bears(&HeaderMap::new(), "s3cret"));
    }
}
