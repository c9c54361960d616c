//! Judges a failed attempt: again, elsewhere, or what the client is told.
//!
//! Without a retry policy only that is repeated which can't have been processed (RFC 9110 §9.2.2): no connection was
//! made, the peer said so, or a pooled connection turned out to be closed and the method is idempotent.

use http::Method;

use crate::model::deadline::Limit;
use crate::model::outcome::Outcome;
use crate::model::verdict::{Code, Rejection};

/// Attempts of one exchange, at most.
const MAX_ATTEMPTS: usize = 3;

/// What follows a failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// The same endpoint may be tried again, on a new connection.
    Again,
    /// Another endpoint may be tried.
    Elsewhere,
    /// The client is told.
    GiveUp(Rejection),
}

/// What is known of a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// How it ended.
    pub outcome: Outcome,
    /// The upstream has certainly not processed the request.
    pub unprocessed: bool,
    /// It was a pooled connection, which its peer may have closed before it saw the request.
    pub stale: bool,
    /// Body bytes have left that can't be sent again.
    pub body_spent: bool,
    /// Attempts so far, this one included.
    pub attempts: usize,
}

/// What follows `failure` of a request of `method`.
#[must_use]
pub fn judge(method: &Method, failure: Failure) -> Judgement {
    let repeatable = failure.unprocessed || (failure.stale && is_idempotent(method));
    if failure.body_spent || !repeatable || failure.attempts >= MAX_ATTEMPTS {
        return Judgement::GiveUp(rejection(failure.outcome));
    }
    if failure.stale { Judgement::Again } else { Judgement::Elsewhere }
}

/// Whether doing it twice is like doing it once (RFC 9110 §9.2.2).
#[must_use]
pub fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
}

/// What the client is told of an attempt that failed in that way.
#[must_use]
pub fn rejection(outcome: Outcome) -> Rejection {
    let (code, detail) = match outcome {
        Outcome::Connect => (Code::UpstreamUnreachable, "no connection to the upstream"),
        Outcome::Reset | Outcome::ClientGone => {
            (Code::UpstreamUnreachable, "the upstream closed the connection before it answered")
        }
        Outcome::Invalid | Outcome::Status(_) => (Code::UpstreamInvalid, "the upstream's answer is not valid HTTP"),
        Outcome::Timeout(Limit::Request) => (Code::DeadlineExceeded, "timeout.request was over"),
        Outcome::Timeout(Limit::Attempt) => (Code::UpstreamTimeout, "timeout.attempt was over"),
        Outcome::Timeout(Limit::Idle) => (Code::UpstreamTimeout, "timeout.idle was over"),
        Outcome::Timeout(Limit::Connect) => (Code::UpstreamTimeout, "connect_timeout was over"),
    };
    Rejection::new(code, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILURE: Failure =
        Failure { outcome: Outcome::Reset, unprocessed: false, stale: false, body_spent: false, attempts: 1 };

    #[track_caller]
    fn check(method: &Method, failure: Failure, again: Option<Judgement>) {
        let expected = again.unwrap_or_else(|| Judgement::GiveUp(rejection(failure.outcome)));
        assert_eq!(judge(method, failure), expected, "{method} {failure:?}");
    }

    #[test]
    fn only_what_was_not_processed_is_repeated() {
        check(&Method::GET, FAILURE, None);
        check(&Method::GET, Failure { stale: true, ..FAILURE }, Some(Judgement::Again));
        check(&Method::POST, Failure { stale: true, ..FAILURE }, None);
        let connect = Failure { outcome: Outcome::Connect, unprocessed: true, ..FAILURE };
        check(&Method::POST, connect, Some(Judgement::Elsewhere));
        check(&Method::GET, Failure { body_spent: true, ..connect }, None);
        check(&Method::GET, Failure { attempts: MAX_ATTEMPTS, ..connect }, None);
    }

    #[test]
    fn timeouts_are_504_and_never_502() {
        for limit in [Limit::Request, Limit::Attempt, Limit::Idle, Limit::Connect] {
            assert_eq!(rejection(Outcome::Timeout(limit)).code.status(), 504);
        }
    }
}
