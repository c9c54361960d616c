//! Who may come in, and who is answered at once: the access list, rate limits, preflights, the declared length of the body; then the
//! policies that answer instead of an upstream.

use super::exchange::Exchange;
use crate::model::answer::Answer;
use crate::model::clock::Instant;
use crate::model::verdict::{Admission as Judged, Decision, PolicyName, Rejection, Verdict};
use crate::policy::cors::Ruling;
use crate::policy::hygiene::hop_by_hop::asks_to_upgrade;
use crate::policy::rate_limit::Turn;
use crate::policy::{Policies, Slot, access, cors, rate_limit, redirect, respond, validate};
use crate::snapshot::Route;

/// What becomes of a request that has a route.
#[derive(Debug)]
pub enum Admission {
    /// It goes to an upstream.
    Go,
    /// A policy answers it.
    Answer(Answer),
    /// It is refused.
    Refuse(Rejection),
}

/// Asks the policies of the route in their order.
pub fn admit(route: &Route, exchange: &mut Exchange, now: Instant) -> Admission {
    let Policies {
        access,
        rate_limit,
        cors,
        validate,
        redirect,
        respond,
        rewrite: _,
        headers: _,
        compress: _,
        timeout: _,
        retry: _,
        hedge: _,
        fallback: _,
    } = &route.policies;
    let judged = come_in(access.as_ref(), exchange)
        .or_else(|| fit(rate_limit.as_ref(), Turn::BeforeAuthentication, route, exchange, now))
        .or_else(|| preflight(cors.as_ref(), exchange))
        .or_else(|| fit(rate_limit.as_ref(), Turn::AfterAuthentication, route, exchange, now))
        .or_else(|| measure(validate.as_ref(), exchange));
    judged.unwrap_or_else(|| answer(redirect.as_ref(), respond.as_ref(), exchange))
}

fn come_in(access: Option<&Slot<access::Access>>, exchange: &mut Exchange) -> Option<Admission> {
    let judged = access?.policy.decide(exchange.client);
    note(exchange, judged).map(Admission::Refuse)
}

fn fit(
    rate_limit: Option<&Slot<rate_limit::RateLimit>>,
    turn: Turn,
    route: &Route,
    exchange: &mut Exchange,
    now: Instant,
) -> Option<Admission> {
    let limits = &rate_limit?.policy;
    let mut charged = std::mem::take(&mut exchange.charged);
    let judged = limits.decide(turn, &exchange.view_on(&route.name), &mut charged, now);
    exchange.charged = charged;
    exchange.decisions.extend(judged.decisions);
    judged.rejection.map(Admission::Refuse)
}

fn preflight(cors: Option<&Slot<cors::Cors>>, exchange: &mut Exchange) -> Option<Admission> {
    let (decision, ruling) = cors?.policy.decide(&exchange.view());
    exchange.decisions.push(decision);
    match ruling {
        Ruling::Answer(answer) => Some(Admission::Answer(answer)),
        Ruling::GoOn(grant) => {
            exchange.cors = Some(grant);
            None
        }
    }
}

fn measure(validate: Option<&Slot<validate::Validate>>, exchange: &mut Exchange) -> Option<Admission> {
    let upgrade = asks_to_upgrade(&exchange.headers);
    exchange.body_limit = validate?.policy.body_limit(&exchange.headers, upgrade);
    let judged = exchange.body_limit?.judge_declared(exchange.declared_length());
    note(exchange, judged).map(Admission::Refuse)
}

fn answer(
    redirect: Option<&Slot<redirect::Redirect>>,
    respond: Option<&Slot<respond::Respond>>,
    exchange: &mut Exchange,
) -> Admission {
    let answered = |policy, reason: &'static str| Decision { policy, verdict: Verdict::Answer, reason: reason.into() };
    if let Some(redirect) = redirect
        && let Some(answer) = redirect.policy.decide(&exchange.view(), exchange.matched_prefix)
    {
        exchange.decisions.push(answered(PolicyName::Redirect, "sent elsewhere"));
        return Admission::Answer(answer);
    }
    if let Some(respond) = respond {
        exchange.decisions.push(answered(PolicyName::Respond, "a fixed response"));
        return Admission::Answer(respond.policy.answer());
    }
    Admission::Go
}

/// Records a judgement; the refusal, if that is what it comes to.
fn note(exchange: &mut Exchange, judged: Judged) -> Option<Rejection> {
    exchange.decisions.push(judged.decision);
    judged.rejection
}
