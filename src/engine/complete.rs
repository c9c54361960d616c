//! The evidence of what ended: metrics and a line in the access log, also for what never became a request.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{HeaderValue, REFERER, USER_AGENT};
use smallvec::SmallVec;

use super::Live;
use super::serve::Ground;
use crate::model::ids::UpstreamName;
use crate::model::principal::Principal;
use crate::model::request::Scheme;
use crate::model::verdict::{Code, Rejection};
use crate::pipeline::exchange::{Exchange, UpstreamEvent};
use crate::telemetry::access_log::{AttemptEntry, Entry};
use crate::telemetry::metrics::{Finished, NonRequest};

/// Counts and logs an exchange that has ended.
pub fn complete(ground: &Ground, live: &Arc<Live>, exchange: &Exchange) {
    let duration = ground.now().since(exchange.started);
    let route = exchange.route.and_then(|index| live.metrics.routes.get(index));
    let metrics = route.unwrap_or_else(|| ground.gateway.telemetry.metrics.unrouted());
    metrics.finished(&Finished {
        method: &exchange.method,
        status: exchange.status,
        duration,
        request_body: exchange.body_in,
        response_body: exchange.body_out,
    });
    for decision in &exchange.decisions {
        metrics.decided(decision.policy, decision.verdict);
    }
    for (upstream, event) in &exchange.events {
        let Some(metrics) = live.metrics.upstreams.get(*upstream) else { continue };
        match event {
            UpstreamEvent::Shed(why) => metrics.shed(*why),
            UpstreamEvent::Retried => metrics.retried(),
            UpstreamEvent::RetryDenied => metrics.retry_denied(),
        }
    }
    if let Some((kind, _)) = exchange.fallback {
        metrics.fell_back(kind);
    }
    if ground.worker.access_log.is_on() {
        log(ground, exchange, route.map(|route| route.name().as_str()), duration);
    }
}

fn log(ground: &Ground, exchange: &Exchange, route: Option<&str>, duration: Duration) {
    let info = &ground.info;
    let attempts: SmallVec<[AttemptEntry<'_>; 4]> = exchange
        .attempts
        .iter()
        .map(|attempt| AttemptEntry { endpoint: &attempt.endpoint, outcome: attempt.outcome, duration: attempt.took })
        .collect();
    let header = |name| exchange.headers.get(name).map(http::HeaderValue::as_bytes);
    ground.worker.access_log.record(&Entry {
        request_id: exchange.request_id.to_str().unwrap_or_default(),
        client: exchange.client,
        route,
        upstream: exchange.upstream.as_ref().map(UpstreamName::as_str),
        endpoint: exchange.attempts.last().map(|attempt| &*attempt.endpoint),
        method: Some(&exchange.method),
        host: Some(exchange.authority.as_bytes()),
        target: exchange.uri.path_and_query().map(|target| target.as_str().as_bytes()),
        version: Some(exchange.version),
        status: exchange.status,
        code: exchange.rejection.or(exchange.fallback.map(|(_, cause)| cause)),
        fallback: exchange.fallback.map(|(kind, _)| kind),
        bytes_in: exchange.body_in,
        bytes_out: exchange.body_out,
        duration,
        attempts: &attempts,
        user_agent: header(USER_AGENT),
        referer: header(REFERER),
        tls_version: info.tls.as_ref().map(|tls| tls.version.as_str()),
        principal: exchange.principal.as_deref().map(Principal::name),
        trace_id: exchange.trace_id(),
        decisions: &exchange.decisions,
        termination: exchange.termination,
        ..Entry::new(wall_clock_nanos(duration), info.listener.name.as_str(), exchange.scheme, exchange.peer)
    });
}

/// Counts and logs what never became a request, and was refused with an answer.
pub fn refused(ground: &Ground, why: NonRequest, rejection: &Rejection, request_id: &HeaderValue) {
    ground.gateway.telemetry.metrics.rejected(rejection.code);
    let answer = Some((rejection.code, request_id.to_str().unwrap_or_default()));
    record(ground, why, answer);
}

/// Counts and logs what never became a request.
pub fn non_request(ground: &Ground, why: NonRequest) {
    record(ground, why, None);
}

fn record(ground: &Ground, why: NonRequest, answer: Option<(Code, &str)>) {
    let info = &ground.info;
    ground.gateway.telemetry.metrics.listener(&info.listener.name).non_request(why);
    // A connection that was merely idle says nothing that anybody would look for.
    if why != NonRequest::IdleClose && ground.worker.access_log.is_on() {
        let scheme = if info.tls.is_some() { Scheme::Https } else { Scheme::Http };
        ground.worker.access_log.record(&Entry {
            non_request: Some(why),
            request_id: answer.map_or("", |(_, request_id)| request_id),
            status: answer.map(|(code, _)| code.status()),
            code: answer.map(|(code, _)| code),
            tls_version: info.tls.as_ref().map(|tls| tls.version.as_str()),
            ..Entry::new(wall_clock_nanos(Duration::ZERO), info.listener.name.as_str(), scheme, info.peer)
        });
    }
}

fn wall_clock_nanos(ago: Duration) -> u64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.saturating_sub(ago).as_nanos()).unwrap_or(u64::MAX)
}
