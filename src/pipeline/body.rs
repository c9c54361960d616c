//! The body on its way through: how long it may be, whether its pace is watched, and what is judged before or while it goes.

use super::exchange::Exchange;
use crate::model::verdict::{Admission, Code, Decision, PolicyName, Rejection, Verdict};
use crate::policy::validate::BodyTask;
pub use crate::policy::validate::{Fault, Scanner};

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

/// How many bytes have to be here, or all of them, before any goes upstream; `None` when none has to.
#[must_use]
pub fn collects(exchange: &Exchange) -> Option<u64> {
    exchange.body_task.as_ref()?.collects()
}

/// Judges a body that has come: all of it, or as much as is held.
pub fn judge(exchange: &mut Exchange, body: &[u8], is_whole: bool) -> Option<Rejection> {
    let judged = exchange.body_task.as_ref()?.judge(body, is_whole);
    note(exchange, judged)
}

/// What scans a body that isn't judged whole, on its way.
#[must_use]
pub fn scanner(exchange: &Exchange) -> Option<Scanner> {
    exchange.body_task.as_ref()?.scanner()
}

/// Whether what the scanner finds ends the request.
#[must_use]
pub fn is_enforced(exchange: &Exchange) -> bool {
    exchange.body_task.as_ref().is_some_and(BodyTask::is_enforced)
}

/// The scanner has found something.
pub fn scanned(exchange: &mut Exchange, fault: Fault) -> Option<Rejection> {
    let judged = exchange.body_task.as_ref()?.fault(fault);
    note(exchange, judged)
}

fn note(exchange: &mut Exchange, judged: Admission) -> Option<Rejection> {
    exchange.decisions.push(judged.decision);
    judged.rejection
}
