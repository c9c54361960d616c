//! What of a response reaches the client: whether it is as described, its fields, and the encoding of its body.

use http::{HeaderValue, Version};

use super::exchange::Exchange;
use super::fail::{PROXY_STATUS, X_REQUEST_ID, proxy_status};
use crate::model::clock::Instant;
use crate::model::response::{BodyLength, ResponseHead};
use crate::model::verdict::{Admission, Code, Decision, PolicyName, Rejection, Verdict};
use crate::policy::Policies;
use crate::policy::Slot;
pub use crate::policy::compress::{Encoder, EncoderError};
use crate::policy::cors::{Cors, Ruling};
use crate::policy::fallback::PORTCULLIS_FALLBACK;
use crate::policy::hygiene::forwarding;
pub use crate::policy::hygiene::hop_by_hop::Upgrading;
use crate::policy::hygiene::hop_by_hop::strip_response;
use crate::policy::rate_limit::RateLimit;
pub use crate::policy::validate::ResponseTask;
use crate::snapshot::Route;

/// Prepares an interim head for the client.
pub fn interim(head: &mut ResponseHead) {
    strip_response(&mut head.headers, Upgrading::No);
}

/// Judges the head of an upstream's response as it came. What is still to be judged of its body, if anything.
pub fn judge_head(
    route: &Route,
    exchange: &mut Exchange,
    head: &ResponseHead,
    length: BodyLength,
) -> Result<Option<ResponseTask>, Rejection> {
    let Policies {
        access: _,
        rate_limit: _,
        cors: _,
        auth: _,
        validate,
        redirect: _,
        respond: _,
        rewrite: _,
        headers: _,
        compress: _,
        timeout: _,
        retry: _,
        hedge: _,
        fallback: _,
    } = &route.policies;
    let (Some(validate), Some(operation)) = (validate, exchange.operation) else { return Ok(None) };
    let judged = validate.policy.judge_response(operation, head.status, &head.headers, length.is_empty());
    let Some((admission, task)) = judged else { return Ok(None) };
    match admission.and_then(|admission| note(exchange, admission)) {
        Some(rejection) => Err(rejection),
        None => Ok(task),
    }
}

/// Judges the body of a response that has come whole, or is longer than what is held of it.
pub fn judge_body(exchange: &mut Exchange, task: &ResponseTask, body: &[u8], is_whole: bool) -> Option<Rejection> {
    note(exchange, task.judge(body, is_whole))
}

fn note(exchange: &mut Exchange, judged: Admission) -> Option<Rejection> {
    exchange.decisions.push(judged.decision);
    judged.rejection
}

/// Prepares the final head of an upstream's response; an encoder, when the body is compressed on its way.
pub fn finish(
    route: &Route,
    exchange: &mut Exchange,
    head: &mut ResponseHead,
    length: BodyLength,
    upgrading: Upgrading,
    now: Instant,
) -> Result<Option<Encoder>, Rejection> {
    let Policies {
        access: _,
        rate_limit,
        cors,
        auth: _,
        validate: _,
        redirect: _,
        respond: _,
        rewrite: _,
        headers: _,
        compress,
        timeout: _,
        retry: _,
        hedge: _,
        fallback: _,
    } = &route.policies;
    if let Some(limits) = rate_limit {
        limits.policy.settle(&mut exchange.charged, &head.headers, now);
    }
    strip_response(&mut head.headers, upgrading);
    forwarding::via(&mut head.headers, Version::HTTP_11);
    head.headers.insert(X_REQUEST_ID, exchange.request_id.clone());
    tell_fallback(exchange, head);
    edit(route, exchange, head);
    tell(rate_limit.as_ref(), exchange, head);
    grant(cors.as_ref(), exchange, head);
    let Some(compress) = compress.as_ref().filter(|_| upgrading == Upgrading::No) else { return Ok(None) };
    let known = match length {
        BodyLength::Known(length) => Some(length),
        BodyLength::Absent | BodyLength::Unknown => None,
    };
    let wanted = compress.policy.wanted(&exchange.headers);
    let plan = compress.policy.decide(wanted, &exchange.method, head.status, &head.headers, known);
    exchange.decisions.push(plan.decision());
    let failed = |error: EncoderError| Rejection::new(Code::Internal, format!("no encoder: {error}"));
    compress.policy.apply(plan, &mut head.headers).map_err(failed)
}

/// Prepares the answer of a policy: it is a response of the route, so the route's edits hold for it.
pub fn answer(route: &Route, exchange: &Exchange, head: &mut ResponseHead) {
    tell_fallback(exchange, head);
    edit(route, exchange, head);
    own(Some(route), exchange, head);
}

/// Says that something stood in for the route's upstream, and why.
fn tell_fallback(exchange: &Exchange, head: &mut ResponseHead) {
    if let Some((kind, cause)) = exchange.fallback {
        head.headers.insert(PORTCULLIS_FALLBACK, HeaderValue::from_static(kind.as_str()));
        head.headers.append(PROXY_STATUS, proxy_status(cause, Some(kind)));
    }
}

fn edit(route: &Route, exchange: &Exchange, head: &mut ResponseHead) {
    let Policies {
        access: _,
        rate_limit: _,
        cors: _,
        auth: _,
        validate: _,
        redirect: _,
        respond: _,
        rewrite: _,
        headers,
        compress: _,
        timeout: _,
        retry: _,
        hedge: _,
        fallback: _,
    } = &route.policies;
    let Some(headers) = headers.as_ref().filter(|headers| headers.policy.edits_responses()) else { return };
    let client = exchange.client_text();
    let values = exchange.values(&client, &route.name);
    headers.policy.edit_response(&values, &exchange.headers, &mut head.headers);
}

/// Prepares a refusal, or what a policy answered. A page that may read the upstream's responses may read these as well.
pub fn own(route: Option<&Route>, exchange: &Exchange, head: &mut ResponseHead) {
    head.headers.insert(X_REQUEST_ID, exchange.request_id.clone());
    let Some(route) = route else { return };
    let Policies {
        access: _,
        rate_limit,
        cors,
        auth: _,
        validate: _,
        redirect: _,
        respond: _,
        rewrite: _,
        headers: _,
        compress: _,
        timeout: _,
        retry: _,
        hedge: _,
        fallback: _,
    } = &route.policies;
    tell(rate_limit.as_ref(), exchange, head);
    grant(cors.as_ref(), exchange, head);
}

fn tell(limits: Option<&Slot<RateLimit>>, exchange: &Exchange, head: &mut ResponseHead) {
    if let Some(limits) = limits {
        limits.policy.tell(&exchange.charged, &mut head.headers);
    }
}

fn grant(cors: Option<&Slot<Cors>>, exchange: &Exchange, head: &mut ResponseHead) {
    let Some(cors) = cors else { return };
    match &exchange.cors {
        Some(grant) => cors.policy.apply(grant, &mut head.headers),
        // Refused before `cors` was asked, by a limit of addresses: the page may read why all the same.
        None => {
            if let (_, Ruling::GoOn(grant)) = cors.policy.decide(&exchange.view()) {
                cors.policy.apply(&grant, &mut head.headers);
            }
        }
    }
}

/// Records that a policy changed something.
pub(super) fn applied(exchange: &mut Exchange, policy: PolicyName, reason: &'static str) {
    exchange.decisions.push(Decision { policy, verdict: Verdict::Apply, reason: reason.into() });
}
