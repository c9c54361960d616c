//! The endpoints that answer in one piece: what arrived, a chosen status, a delay, a pattern of failures, a response
//! made for caches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State as Shared};
use axum::http::{HeaderMap, Method, StatusCode, Uri, Version, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Refused, State};

/// The longest `/delay`.
const MAX_DELAY: Duration = Duration::from_secs(30);
/// How much of a body `/echo` gives back as text.
const MAX_ECHOED_TEXT: usize = 64 << 10;
/// The longest freshness that `/cacheable` can be asked for, in seconds.
const MAX_MAX_AGE: u32 = 86_400;

/// `GET /`: what there is.
pub(super) async fn index() -> Json<Value> {
    Json(json!({
        "app": "portcullis demo",
        "endpoints": {
            "/": "this list",
            "/echo": "any method: what arrived, as JSON",
            "/status/{code}": "answers with that status, 200 to 599",
            "/delay/{ms}": "answers after that time, at most 30000",
            "/drip?bytes=10&interval=100ms": "one byte per interval",
            "/flaky?fail=50%": "fails with 503 in an even, repeatable pattern",
            "/cacheable?max_age=60": "ETag, Cache-Control, Last-Modified; 304 on If-None-Match",
            "/openapi.json": "what the orders are like, in OpenAPI 3.1",
            "/orders": "GET lists, POST {\"item\": \"tea\", \"quantity\": 2} creates",
            "/orders/{id}": "GET one order",
            "/bytes/{count}": "a body of that length, at most 16777216",
            "/sse?events=5&interval=1s": "server-sent events",
            "/healthz": "ok",
        },
    }))
}

/// `GET /openapi.json`: the description of `/orders`; the same file guards it in `conf/portcullis.toml`.
pub(super) async fn openapi() -> impl IntoResponse {
    const DESCRIPTION: &str = include_str!("../../conf/openapi/orders.json");
    ([(header::CONTENT_TYPE, "application/json")], DESCRIPTION)
}

pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

pub(super) async fn not_found(uri: Uri) -> Refused {
    Refused { status: StatusCode::NOT_FOUND, why: format!("no such endpoint; GET / lists them: {}", uri.path()) }
}

/// `/echo`: method, target, headers and body as they reached the origin, so one sees what the gateway changed.
pub(super) async fn echo(method: Method, version: Version, uri: Uri, headers: HeaderMap, body: Bytes) -> Json<Value> {
    let mut seen: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, value) in &headers {
        seen.entry(name.as_str()).or_default().push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    let text = String::from_utf8_lossy(body.get(..MAX_ECHOED_TEXT).unwrap_or(&body));
    Json(json!({
        "method": method.as_str(),
        "version": format!("{version:?}"),
        "path": uri.path(),
        "query": uri.query(),
        "headers": seen,
        "body": { "length": body.len(), "text": text },
    }))
}

/// `/status/{code}`: final statuses only, since 1xx would leave the client waiting for another.
pub(super) async fn status(Path(code): Path<String>) -> Result<Response, Refused> {
    let status = code
        .parse::<u16>()
        .ok()
        .filter(|code| (200..600).contains(code))
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or_else(|| Refused::bad_request(format!("not a status from 200 to 599: {code}")))?;
    // RFC 9110 §15: 204, 205 and 304 carry no content
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED) {
        return Ok(status.into_response());
    }
    Ok((status, Json(json!({ "status": status.as_u16(), "reason": status.canonical_reason() }))).into_response())
}

/// `/delay/{ms}`: answers after that many milliseconds.
pub(super) async fn delay(Path(ms): Path<String>) -> Result<Json<Value>, Refused> {
    let wait = ms
        .parse()
        .ok()
        .map(Duration::from_millis)
        .filter(|wait| *wait <= MAX_DELAY)
        .ok_or_else(|| Refused::bad_request(format!("not a number of milliseconds up to 30000: {ms}")))?;
    tokio::time::sleep(wait).await;
    Ok(Json(json!({ "delayed_ms": wait.as_millis() })))
}

#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct Flaky {
    fail: String,
}

impl Default for Flaky {
    fn default() -> Self {
        Self { fail: "50%".to_owned() }
    }
}

/// `/flaky`: which requests fail is counted, not drawn, so a test can say which attempt must succeed.
pub(super) async fn flaky(
    Shared(state): Shared<Arc<State>>,
    Query(Flaky { fail }): Query<Flaky>,
) -> Result<Response, Refused> {
    let percent = fail
        .trim_end_matches('%')
        .parse()
        .ok()
        .filter(|percent| *percent <= 100)
        .ok_or_else(|| Refused::bad_request(format!("not a percentage from 0% to 100%: {fail}")))?;
    let number = state.flaky_requests.fetch_add(1, Ordering::Relaxed).saturating_add(1);
    let status = if fails(number, percent) { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    Ok((status, Json(json!({ "request": number, "failed": status != StatusCode::OK }))).into_response())
}

/// Whether the request with this number (the first is 1) is one of the `percent` of every hundred that fail, spread evenly.
pub(super) fn fails(number: u64, percent: u64) -> bool {
    let failed_up_to = |number: u64| number.saturating_mul(percent) / 100;
    failed_up_to(number) > failed_up_to(number.saturating_sub(1))
}

#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct Cacheable {
    max_age: u32,
}

impl Default for Cacheable {
    fn default() -> Self {
        Self { max_age: 60 }
    }
}

const ETAG: &str = "\"portcullis-demo-1\"";
const LAST_MODIFIED: &str = "Mon, 01 Sep 2025 00:00:00 GMT";

/// `/cacheable`: a representation that never changes. `X-Demo-Answers` counts the times that the origin was asked, so a
/// cached response shows an old number.
pub(super) async fn cacheable(
    Shared(state): Shared<Arc<State>>,
    Query(Cacheable { max_age }): Query<Cacheable>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    if max_age > MAX_MAX_AGE {
        return Err(Refused::bad_request(format!("at most {MAX_MAX_AGE} seconds: {max_age}")));
    }
    let answers = state.cacheable_answers.fetch_add(1, Ordering::Relaxed).saturating_add(1);
    let validators = [
        (header::ETAG, ETAG.to_owned()),
        (header::LAST_MODIFIED, LAST_MODIFIED.to_owned()),
        (header::CACHE_CONTROL, format!("public, max-age={max_age}")),
        (header::HeaderName::from_static("x-demo-answers"), answers.to_string()),
    ];
    if is_current(&headers) {
        return Ok((StatusCode::NOT_MODIFIED, validators).into_response());
    }
    Ok((validators, Json(json!({ "cacheable": true, "max_age": max_age }))).into_response())
}

/// Whether `If-None-Match` names our entity tag, by weak comparison (RFC 9110 §13.1.2).
fn is_current(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == ETAG)
}
