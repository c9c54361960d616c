//! Who may come in, and who is answered at once: the access list, preflights, the declared length of the body and what
//! else the head tells; then the policies that answer instead of an upstream.

use super::exchange::Exchange;
use crate::model::answer::Answer;
use crate::model::verdict::{Admission as Judged, Decision, PolicyName, Rejection, Verdict};
use crate::policy::cors::Ruling;
use crate::policy::hygiene::hop_by_hop::asks_to_upgrade;
use crate::policy::validate::HeadJudgement;
use crate::policy::{Policies, Slot, access, cors, redirect, respond, validate};
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
pub fn admit(route: &Route, exchange: &mut Exchange) -> Admission {
    let Policies {
        access,
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
    match judge(access.as_ref(), cors.as_ref(), validate.as_ref(), exchange) {
        Admission::Go => answer(redirect.as_ref(), respond.as_ref(), exchange),
        other => other,
    }
}

fn judge(
    access: Option<&Slot<access::Access>>,
    cors: Option<&Slot<cors::Cors>>,
    validate: Option<&Slot<validate::Validate>>,
    exchange: &mut Exchange,
) -> Admission {
    if let Some(access) = access
        && let Some(rejection) = note(exchange, access.policy.decide(exchange.client))
    {
        return Admission::Refuse(rejection);
    }
    if let Some(cors) = cors {
        let (decision, ruling) = cors.policy.decide(&exchange.view());
        exchange.decisions.push(decision);
        match ruling {
            Ruling::Answer(answer) => return Admission::Answer(answer),
            Ruling::GoOn(grant) => exchange.cors = Some(grant),
        }
    }
    if let Some(validate) = validate {
        let upgrade = asks_to_upgrade(&exchange.headers);
        exchange.body_limit = validate.policy.body_limit(&exchange.headers, upgrade);
        if let Some(limit) = exchange.body_limit
            && let Some(rejection) = note(exchange, limit.judge_declared(exchange.declared_length()))
        {
            return Admission::Refuse(rejection);
        }
        let target = exchange.uri.path_and_query().map_or(0, |target| target.as_str().len());
        let HeadJudgement { admission, task, operation } = validate.policy.judge_head(&exchange.view(), target);
        (exchange.body_task, exchange.operation) = (task, operation);
        if let Some(rejection) = admission.and_then(|admission| note(exchange, admission)) {
            return Admission::Refuse(rejection);
        }
    }
    Admission::Go
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
