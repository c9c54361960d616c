//! Who may come in, and who is answered at once: the access list, rate limits, preflights, the declared length of the body and what
//! else the head tells; then the
//! policies that answer instead of an upstream.
//!
//! The stage can be left and entered again: a policy that needs an answer from outside asks for it, and the stage goes on
//! at that policy when the answer has come.

use super::exchange::Exchange;
use super::inquiry::{Inquiry, Reply};
use crate::model::answer::Answer;
use crate::model::clock::Now;
use crate::model::request::RequestView;
use crate::model::verdict::{Admission as Judged, Decision, PolicyName, Rejection, Verdict};
use crate::policy::auth::Ruling;
use crate::policy::cors;
use crate::policy::hygiene::hop_by_hop::asks_to_upgrade;
use crate::policy::rate_limit::Turn;
use crate::policy::validate::HeadJudgement;
use crate::policy::{Policies, Slot, access, auth, rate_limit, redirect, respond, validate};
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
    /// A policy needs an answer first: give it to [`Exchange::reply`] and ask [`admit`] again.
    Ask(Inquiry),
}

/// How far the stage has come with a request.
#[derive(Debug, Default)]
pub struct Progress {
    step: Step,
    /// The answer to what the policy at `step` asked, until it is taken.
    reply: Option<Reply>,
}

/// The policies in the order in which they are asked. A policy is asked again only while it is itself the one that asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Step {
    /// Before anything else: an address that may not come in learns nothing.
    #[default]
    Access,
    /// The limits that need no name of the caller: a flood of bad credentials is refused before they are looked at.
    AddressLimits,
    /// A preflight has no credentials (Fetch §3.3.5), so it is answered before they are asked for.
    Cors,
    /// Who it comes from, before anything is said of what the request is like.
    Auth,
    /// The limits by caller.
    CallerLimits,
    /// What the head says of the body, and what else `validate` asks of it.
    Head,
    /// What answers instead of an upstream, for those who may come in.
    Redirect,
    Respond,
}

impl Step {
    const fn next(self) -> Option<Self> {
        match self {
            Self::Access => Some(Self::AddressLimits),
            Self::AddressLimits => Some(Self::Cors),
            Self::Cors => Some(Self::Auth),
            Self::Auth => Some(Self::CallerLimits),
            Self::CallerLimits => Some(Self::Head),
            Self::Head => Some(Self::Redirect),
            Self::Redirect => Some(Self::Respond),
            Self::Respond => None,
        }
    }
}

impl Exchange {
    /// Takes the answer to what [`admit`] asked.
    pub fn reply(&mut self, reply: Reply) {
        self.admission.reply = Some(reply);
    }
}

/// Asks the policies of the route in their order, from the one that asked last time on.
pub fn admit(route: &Route, exchange: &mut Exchange, now: Now) -> Admission {
    loop {
        let step = exchange.admission.step;
        let reply = exchange.admission.reply.take();
        if let Some(end) = ask(step, route, exchange, reply, now) {
            return end;
        }
        match step.next() {
            Some(next) => exchange.admission.step = next,
            None => return Admission::Go,
        }
    }
}

/// Asks the policy of one step; `None` when the request goes on to the next.
fn ask(step: Step, route: &Route, exchange: &mut Exchange, reply: Option<Reply>, now: Now) -> Option<Admission> {
    let Policies {
        access,
        rate_limit,
        cors,
        auth,
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
    match step {
        Step::Access => address(access.as_ref()?, exchange),
        Step::AddressLimits => fit(rate_limit.as_ref()?, Turn::BeforeAuthentication, route, exchange, now),
        Step::CallerLimits => fit(rate_limit.as_ref()?, Turn::AfterAuthentication, route, exchange, now),
        Step::Cors => origin(cors.as_ref()?, exchange),
        Step::Auth => caller(auth.as_ref()?, exchange, reply, now),
        Step::Head => head(validate.as_ref()?, exchange),
        Step::Redirect => redirected(redirect.as_ref()?, auth.as_ref(), exchange),
        Step::Respond => Some(responded(respond.as_ref()?, exchange)),
    }
}

fn fit(
    rate_limit: &Slot<rate_limit::RateLimit>,
    turn: Turn,
    route: &Route,
    exchange: &mut Exchange,
    now: Now,
) -> Option<Admission> {
    let mut charged = std::mem::take(&mut exchange.charged);
    let judged = rate_limit.policy.decide(turn, &exchange.view_on(&route.name), &mut charged, now.monotonic);
    exchange.charged = charged;
    exchange.decisions.extend(judged.decisions);
    judged.rejection.map(Admission::Refuse)
}

fn address(access: &Slot<access::Access>, exchange: &mut Exchange) -> Option<Admission> {
    note(exchange, access.policy.decide(exchange.client))
}

fn origin(cors: &Slot<cors::Cors>, exchange: &mut Exchange) -> Option<Admission> {
    let (decision, ruling) = cors.policy.decide(&exchange.view());
    exchange.decisions.push(decision);
    match ruling {
        cors::Ruling::Answer(answer) => Some(Admission::Answer(answer)),
        cors::Ruling::GoOn(grant) => {
            exchange.cors = Some(grant);
            None
        }
    }
}

fn caller(auth: &Slot<auth::Auth>, exchange: &mut Exchange, reply: Option<Reply>, now: Now) -> Option<Admission> {
    if let Some(Reply::Auth(reply)) = reply {
        exchange.answers.add(reply);
    }
    let certificate = exchange.certificate.as_deref();
    match auth.policy.decide(&exchange.view(), certificate, &exchange.answers, now) {
        Ruling::Ask(question) => Some(Admission::Ask(Inquiry::Auth(question))),
        Ruling::Settled { admission, principal, copied } => {
            exchange.principal = principal;
            exchange.identity_fields = copied;
            note(exchange, admission)
        }
    }
}

fn head(validate: &Slot<validate::Validate>, exchange: &mut Exchange) -> Option<Admission> {
    let upgrade = asks_to_upgrade(&exchange.headers);
    exchange.body_limit = validate.policy.body_limit(&exchange.headers, upgrade);
    if let Some(limit) = exchange.body_limit
        && let Some(refused) = note(exchange, limit.judge_declared(exchange.declared_length()))
    {
        return Some(refused);
    }
    let target = exchange.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let HeadJudgement { admission, task, operation } = validate.policy.judge_head(&exchange.view(), target);
    (exchange.body_task, exchange.operation) = (task, operation);
    note(exchange, admission?)
}

fn redirected(
    redirect: &Slot<redirect::Redirect>,
    auth: Option<&Slot<auth::Auth>>,
    exchange: &mut Exchange,
) -> Option<Admission> {
    let view = exchange.view();
    // A key in the query is for this gateway, not for whoever the client is sent to.
    let query = view.query.zip(auth).and_then(|(query, auth)| auth.policy.edit_query(query));
    let view = RequestView { query: query.as_deref().or(view.query), ..view };
    let answer = redirect.policy.decide(&view, exchange.matched_prefix)?;
    exchange.decisions.push(answered(PolicyName::Redirect, "sent elsewhere"));
    Some(Admission::Answer(answer))
}

fn responded(respond: &Slot<respond::Respond>, exchange: &mut Exchange) -> Admission {
    exchange.decisions.push(answered(PolicyName::Respond, "a fixed response"));
    Admission::Answer(respond.policy.answer())
}

fn answered(policy: PolicyName, reason: &'static str) -> Decision {
    Decision { policy, verdict: Verdict::Answer, reason: reason.into() }
}

/// Records a judgement; the refusal, if that is what it comes to.
fn note(exchange: &mut Exchange, judged: Judged) -> Option<Admission> {
    exchange.decisions.push(judged.decision);
    judged.rejection.map(Admission::Refuse)
}
