//! Who may come in: the access list, preflights, what the head says of the body; then policies that answer themselves.

use bytes::Bytes;

use super::exchange::Exchange;
use crate::model::response::ResponseHead;
use crate::model::verdict::{Decision, PolicyName, Rejection, Verdict};
use crate::policy::Policies;
use crate::snapshot::Route;

/// What becomes of a request that has a route.
#[derive(Debug)]
pub enum Admission {
    /// It goes to an upstream.
    Go,
    /// A policy answers it.
    Answer(ResponseHead, Bytes),
    /// It is refused.
    Refuse(Rejection),
}

/// Asks the admission policies of the route in their order.
pub fn admit(route: &Route, exchange: &mut Exchange) -> Admission {
    let Policies { access, respond, timeout: _ } = &route.policies;
    if let Some(access) = access {
        let admission = access.policy.decide(exchange.client);
        exchange.decisions.push(admission.decision);
        if let Some(rejection) = admission.rejection {
            return Admission::Refuse(rejection);
        }
    }
    if let Some(respond) = respond {
        let answer = respond.policy.answer().clone();
        exchange.decisions.push(Decision {
            policy: PolicyName::Respond,
            verdict: Verdict::Answer,
            reason: "a fixed response".into(),
        });
        return Admission::Answer(ResponseHead { status: answer.status, headers: answer.headers }, answer.body);
    }
    Admission::Go
}
