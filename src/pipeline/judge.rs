//! Judges an attempt: its answer stands, it is made again, or it has failed for good.
//!
//! What can't have been processed may be sent again whatever the method (RFC 9110 §9.2.2): no connection was made, or
//! the peer refused the stream. Anything else is the route's `retry` to allow, the upstream's budget to pay for, and the
//! deadline's to leave time for. Decides; the engine waits and sends.

use std::time::Duration;

use http::header::{DATE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method};

use crate::model::clock::Instant;
use crate::model::deadline::{Deadline, Limit};
use crate::model::grpc::GrpcCode;
use crate::model::outcome::Outcome;
use crate::model::verdict::{Code, Rejection};
use crate::policy::retry::Retry;
pub use crate::policy::retry::is_idempotent;
use crate::upstream::{Allowance, RetryBudget};

/// What follows an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// The answer goes to the client.
    Accept,
    /// A connection from the pool was closed already: the same again at once, on a new one.
    Replace,
    /// Another attempt after that long, on another endpoint where there is one.
    Again(Duration),
    /// It has failed for good: a fallback, the answer that there is, or a refusal.
    GiveUp(Reason),
}

/// Why a failed attempt is not made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// `retry = false`, or `retry.on` does not name it.
    NotCovered,
    /// The upstream may have processed it, and `retry.methods` does not name the method.
    Method,
    /// Body bytes have left that are not kept.
    BodySpent,
    /// `retry.attempts` have been made.
    Attempts,
    /// No time is left for the wait.
    Deadline,
    /// `retry.budget` is spent.
    Budget,
}

impl Reason {
    /// In words, for decisions.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotCovered => "retry.on does not name this failure",
            Self::Method => "it may have been processed, and retry.methods does not name the method",
            Self::BodySpent => "body bytes have left that are not kept",
            Self::Attempts => "retry.attempts have been made",
            Self::Deadline => "the wait would reach past the deadline",
            Self::Budget => "retry.budget is spent",
        }
    }
}

/// What is known of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempted {
    /// How it ended.
    pub outcome: Outcome,
    /// The gRPC status in the response's head.
    pub grpc: Option<GrpcCode>,
    /// The upstream has certainly not processed the request.
    pub unprocessed: bool,
    /// It was a pooled connection, which its peer may have closed before it saw the request.
    pub stale: bool,
    /// How long the upstream asks to be left alone.
    pub retry_after: Option<Duration>,
}

impl Attempted {
    /// An attempt without an answer, which the upstream may have processed.
    #[must_use]
    pub const fn failed(outcome: Outcome) -> Self {
        Self { outcome, grpc: None, unprocessed: false, stale: false, retry_after: None }
    }

    /// An attempt that was answered.
    #[must_use]
    pub fn answered(outcome: Outcome, headers: &HeaderMap) -> Self {
        Self { grpc: GrpcCode::of_head(headers), retry_after: retry_after(headers), ..Self::failed(outcome) }
    }
}

/// What came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// Attempts so far, this one included, replaced ones not.
    pub attempts: u32,
    /// A pooled connection was replaced already.
    pub replaced: bool,
    /// The whole body can be sent again.
    pub can_restart: bool,
}

/// What a further attempt costs and may cost.
#[derive(Debug, Clone, Copy)]
pub struct Means<'a> {
    /// The route's policy; `None` where it is switched off.
    pub retry: Option<&'a Retry>,
    /// Something may stand in for an answer that is a failure.
    pub has_fallback: bool,
    /// The upstream's budget.
    pub budget: &'a RetryBudget,
    /// When the request's time is over.
    pub deadline: Option<Deadline>,
    /// Now.
    pub now: Instant,
    /// Spreads the wait.
    pub random: u64,
}

/// What follows `attempted` of a request of `method`. A retry that it grants is taken out of the budget.
#[must_use]
pub fn judge(method: &Method, attempted: Attempted, history: History, means: &Means<'_>) -> Judgement {
    let repeatable = attempted.unprocessed || is_idempotent(method);
    if attempted.stale && repeatable && history.can_restart && !history.replaced {
        return Judgement::Replace;
    }
    let stood_in = means.retry.is_none() && means.has_fallback && is_unavailable(attempted.outcome);
    if !stood_in && !has_failed(attempted, means.retry) {
        return Judgement::Accept;
    }
    match again(method, attempted, history, means) {
        Ok(wait) => Judgement::Again(wait),
        Err(reason) => Judgement::GiveUp(reason),
    }
}

/// Whether it is a failure by default, for a route that says nothing of which answers are: 502, 503 or 504.
const fn is_unavailable(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Status(status) if matches!(status.as_u16(), 502..=504))
}

/// Whether the outcome is a failure: there is no answer, or one that `retry.on` names.
#[must_use]
pub fn has_failed(attempted: Attempted, retry: Option<&Retry>) -> bool {
    match attempted.outcome {
        Outcome::Status(_) => retry.is_some_and(|retry| retry.covers(attempted.outcome, attempted.grpc)),
        _ => true,
    }
}

/// Whether a request of `method` may go to another upstream after `attempted`, which is a further sending like any other.
#[must_use]
pub fn may_go_elsewhere(
    method: &Method,
    attempted: Option<Attempted>,
    retry: Option<&Retry>,
    can_restart: bool,
) -> bool {
    let Some(attempted) = attempted else { return can_restart };
    let allowed = retry.map_or_else(|| is_idempotent(method), |retry| retry.allows(method));
    can_restart && (attempted.unprocessed || allowed)
}

fn again(method: &Method, attempted: Attempted, history: History, means: &Means<'_>) -> Result<Duration, Reason> {
    let retry = means.retry.ok_or(Reason::NotCovered)?;
    let unprocessed = attempted.unprocessed && retry.covers(Outcome::Connect, None);
    if !unprocessed && !retry.covers(attempted.outcome, attempted.grpc) {
        return Err(Reason::NotCovered);
    }
    if !attempted.unprocessed && !retry.allows(method) {
        return Err(Reason::Method);
    }
    if !history.can_restart {
        return Err(Reason::BodySpent);
    }
    if history.attempts >= retry.attempts() {
        return Err(Reason::Attempts);
    }
    let wait = retry.wait(history.attempts, means.random).max(attempted.retry_after.unwrap_or_default());
    if means.deadline.is_some_and(|deadline| deadline.left(means.now) <= wait) {
        return Err(Reason::Deadline);
    }
    let (share, floor) = retry.budget();
    if !means.budget.withdraw(Allowance { share, floor }, means.now) {
        return Err(Reason::Budget);
    }
    Ok(wait)
}

/// How long `Retry-After` asks to wait (RFC 9110 §10.2.3). A date counts from the response's own `Date`, so that nobody's
/// clock has to agree with ours; without one it says nothing.
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse::<u32>() {
        return Some(Duration::from_secs(u64::from(seconds)));
    }
    let date = |value: &HeaderValue| httpdate::parse_http_date(value.to_str().ok()?).ok();
    let (until, from) = (httpdate::parse_http_date(value).ok()?, date(headers.get(DATE)?)?);
    Some(until.duration_since(from).unwrap_or_default())
}

/// What the client is told of an attempt that failed in that way.
#[must_use]
pub fn rejection(outcome: Outcome) -> Rejection {
    let (code, detail) = match outcome {
        Outcome::Connect => (Code::UpstreamUnreachable, "no connection to the upstream"),
        Outcome::Reset | Outcome::ClientGone | Outcome::Superseded => {
            (Code::UpstreamUnreachable, "the upstream closed the connection before it answered")
        }
        Outcome::Invalid => (Code::UpstreamInvalid, "the upstream's answer is not valid HTTP"),
        Outcome::Status(_) => (Code::UpstreamError, "the upstream answered with a failure"),
        Outcome::Timeout(limit) => return timeout(limit),
    };
    Rejection::new(code, detail)
}

/// What the client is told when a limit was over before there was a response head.
#[must_use]
pub fn timeout(limit: Limit) -> Rejection {
    let (code, detail) = match limit {
        Limit::Request => (Code::DeadlineExceeded, "timeout.request was over"),
        Limit::Stream => (Code::DeadlineExceeded, "timeout.stream was over"),
        Limit::Grpc => (Code::DeadlineExceeded, "the client's grpc-timeout was over"),
        Limit::Attempt => (Code::UpstreamTimeout, "timeout.attempt was over"),
        Limit::Idle => (Code::UpstreamTimeout, "timeout.idle was over"),
        Limit::Connect => (Code::UpstreamTimeout, "connect_timeout was over"),
        Limit::Queue => (Code::Overloaded, "the request waited too long for its turn at the upstream"),
    };
    Rejection::new(code, detail)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::model::diagnostic::Diagnostics;
    use crate::policy::retry;

    const RESET: Attempted = Attempted::failed(Outcome::Reset);
    const CONNECT: Attempted = Attempted { outcome: Outcome::Connect, unprocessed: true, ..RESET };
    const STALE: Attempted = Attempted { stale: true, ..RESET };
    const FIRST: History = History { attempts: 1, replaced: false, can_restart: true };
    const AT_ONCE: Judgement = Judgement::Again(Duration::ZERO);

    fn status(code: u16) -> Attempted {
        Attempted { outcome: Outcome::Status(StatusCode::from_u16(code).expect("a status")), ..RESET }
    }

    fn policy() -> Retry {
        retry::compile(&retry::Config::default(), &mut Diagnostics::default()).expect("the defaults compile")
    }

    #[track_caller]
    fn check(method: &Method, attempted: Attempted, history: History, expected: Judgement) {
        let (retry, budget) = (policy(), RetryBudget::default());
        let means = Means {
            retry: Some(&retry),
            has_fallback: false,
            budget: &budget,
            deadline: None,
            now: Instant::default(),
            random: 0,
        };
        assert_eq!(judge(method, attempted, history, &means), expected, "{method} {attempted:?} {history:?}");
    }

    #[test]
    fn an_idempotent_request_is_made_again() {
        for attempted in [RESET, CONNECT, status(502), status(503), status(504)] {
            check(&Method::GET, attempted, FIRST, AT_ONCE);
        }
        let timeout = Attempted { outcome: Outcome::Timeout(Limit::Attempt), ..RESET };
        check(&Method::PUT, timeout, FIRST, AT_ONCE);
        check(
            &Method::GET,
            Attempted { outcome: Outcome::Invalid, ..RESET },
            FIRST,
            Judgement::GiveUp(Reason::NotCovered),
        );
        check(&Method::GET, status(200), FIRST, Judgement::Accept);
        check(&Method::GET, status(500), FIRST, Judgement::Accept);
    }

    #[test]
    fn a_post_is_sent_again_only_if_it_was_not_processed() {
        check(&Method::POST, CONNECT, FIRST, AT_ONCE);
        check(&Method::POST, Attempted { unprocessed: true, ..RESET }, FIRST, AT_ONCE);
        for attempted in [RESET, status(503)] {
            check(&Method::POST, attempted, FIRST, Judgement::GiveUp(Reason::Method));
        }
    }

    #[test]
    fn a_body_that_is_not_kept_is_not_sent_again() {
        let spent = History { can_restart: false, ..FIRST };
        check(&Method::PUT, RESET, spent, Judgement::GiveUp(Reason::BodySpent));
        check(&Method::POST, CONNECT, spent, Judgement::GiveUp(Reason::BodySpent));
        check(&Method::PUT, STALE, spent, Judgement::GiveUp(Reason::BodySpent));
    }

    #[test]
    fn a_stale_connection_is_replaced_once_without_counting() {
        check(&Method::GET, STALE, FIRST, Judgement::Replace);
        check(&Method::GET, STALE, History { replaced: true, ..FIRST }, AT_ONCE);
        check(&Method::POST, STALE, FIRST, Judgement::GiveUp(Reason::Method));
        check(&Method::POST, Attempted { unprocessed: true, ..STALE }, FIRST, Judgement::Replace);
    }

    #[test]
    fn attempts_end_and_the_last_answer_stands() {
        check(&Method::GET, RESET, History { attempts: 2, ..FIRST }, AT_ONCE);
        check(&Method::GET, RESET, History { attempts: 3, ..FIRST }, Judgement::GiveUp(Reason::Attempts));
    }

    #[test]
    fn without_a_policy_only_a_stale_connection_is_replaced() {
        let budget = RetryBudget::default();
        let means = Means {
            retry: None,
            has_fallback: false,
            budget: &budget,
            deadline: None,
            now: Instant::default(),
            random: 0,
        };
        assert_eq!(judge(&Method::GET, STALE, FIRST, &means), Judgement::Replace);
        for attempted in [RESET, CONNECT] {
            assert_eq!(judge(&Method::GET, attempted, FIRST, &means), Judgement::GiveUp(Reason::NotCovered));
        }
        assert_eq!(judge(&Method::GET, status(503), FIRST, &means), Judgement::Accept);
    }

    #[test]
    fn the_upstream_s_wait_is_kept_unless_it_reaches_past_the_deadline() {
        let (retry, budget, now) = (policy(), RetryBudget::default(), Instant::default());
        let deadline = |seconds| Some(Deadline::new(now, Duration::from_secs(seconds), Limit::Request));
        let asked = Attempted { retry_after: Some(Duration::from_secs(2)), ..status(503) };
        let judged = |deadline| {
            let means =
                Means { retry: Some(&retry), has_fallback: false, budget: &budget, deadline, now, random: u64::MAX };
            judge(&Method::GET, asked, FIRST, &means)
        };
        assert_eq!(judged(deadline(3)), Judgement::Again(Duration::from_secs(2)));
        assert_eq!(judged(deadline(2)), Judgement::GiveUp(Reason::Deadline));
    }

    #[test]
    fn a_spent_budget_ends_retries() {
        let (retry, budget) = (policy(), RetryBudget::default());
        let means = Means {
            retry: Some(&retry),
            has_fallback: false,
            budget: &budget,
            deadline: None,
            now: Instant::default(),
            random: 0,
        };
        let granted = (0..100).filter(|_| judge(&Method::GET, RESET, FIRST, &means) == AT_ONCE).count();
        assert_eq!(granted, 30, "3 a second for 10 seconds");
        assert_eq!(judge(&Method::GET, RESET, FIRST, &means), Judgement::GiveUp(Reason::Budget));
    }

    #[track_caller]
    fn check_retry_after(fields: &[(http::HeaderName, &'static str)], seconds: Option<u64>) {
        let headers = fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        assert_eq!(retry_after(&headers), seconds.map(Duration::from_secs), "{fields:?}");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_by_the_response_s_own_clock() {
        const LATER: &str = "Sun, 06 Nov 1994 08:49:47 GMT";
        check_retry_after(&[(RETRY_AFTER, "120")], Some(120));
        check_retry_after(&[(RETRY_AFTER, LATER), (DATE, "Sun, 06 Nov 1994 08:49:37 GMT")], Some(10));
        check_retry_after(&[(RETRY_AFTER, LATER), (DATE, "Sun, 06 Nov 1994 08:50:37 GMT")], Some(0));
        check_retry_after(&[(RETRY_AFTER, LATER)], None);
        check_retry_after(&[(RETRY_AFTER, "-1")], None);
        check_retry_after(&[(RETRY_AFTER, "soon")], None);
        check_retry_after(&[], None);
    }

    #[test]
    fn another_upstream_is_a_further_sending() {
        let retry = policy();
        assert!(may_go_elsewhere(&Method::POST, None, Some(&retry), true), "it was never sent");
        assert!(may_go_elsewhere(&Method::POST, Some(CONNECT), Some(&retry), true));
        assert!(!may_go_elsewhere(&Method::POST, Some(RESET), Some(&retry), true));
        assert!(may_go_elsewhere(&Method::GET, Some(RESET), None, true));
        assert!(!may_go_elsewhere(&Method::GET, Some(RESET), Some(&retry), false));
    }

    #[test]
    fn timeouts_are_504_and_never_502() {
        for limit in [Limit::Request, Limit::Attempt, Limit::Idle, Limit::Connect, Limit::Grpc, Limit::Stream] {
            assert_eq!(rejection(Outcome::Timeout(limit)).code.status(), 504);
        }
    }
}
