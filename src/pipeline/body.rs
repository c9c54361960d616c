//! The body on its way through: how long it may be, and whether its pace is watched.

use super::exchange::Exchange;
use crate::model::verdict::{Code, Decision, PolicyName, Rejection, Verdict};

/// What bounds a body while it streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyRules {
    /// Most bytes; `None` is no bound.
    pub max: Option<u64>,
    /// Whether the client must keep `min_body_rate`; streams that live on silence are exempt.
    pub paced: bool,
}

/// More bytes came than the body may have: the refusal, and the decision for the record.
pub fn too_long(exchange: &mut Exchange, received: u64) -> Rejection {
    let judged = exchange.body_limit.and_then(|limit| limit.judge_received(received));
    let rejection = judged.and_then(|judged| {
        exchange.decisions.push(judged.decision);
        judged.rejection
    });
    rejection.unwrap_or_else(|| Rejection::new(Code::BodyTooLarge, "the body is longer than this route accepts"))
}

/// The whole body has come: in report mode, what would have been said of it.
pub fn received(exchange: &mut Exchange) {
    let judged = |decision: &Decision| decision.policy == PolicyName::Validate && decision.verdict != Verdict::Allow;
    if !exchange.decisions.iter().any(judged)
        && let Some(judged) = exchange.body_limit.and_then(|limit| limit.judge_received(exchange.body_in))
    {
        exchange.decisions.push(judged.decision);
    }
}
