//! How an attempt at an upstream ended, classified once, so that retries, breakers, health and logs agree.

use http::StatusCode;

use super::deadline::Limit;
use super::grpc::GrpcCode;

/// The end of one attempt, or its response head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A response head arrived.
    Status(StatusCode),
    /// No connection: refused, unreachable, TLS failure or an unresolved name.
    Connect,
    /// The connection ended before a response head.
    Reset,
    /// A limit was over before a response head.
    Timeout(Limit),
    /// What arrived was not HTTP.
    Invalid,
    /// The client went away first; says nothing of the upstream.
    ClientGone,
    /// Another attempt of the same exchange was answered first; says nothing of the upstream.
    Superseded,
}

impl Outcome {
    /// The label in metrics and logs: a closed set.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Status(status) => match status.as_u16() / 100 {
                1 => "1xx",
                2 => "2xx",
                3 => "3xx",
                4 => "4xx",
                5 => "5xx",
                _ => "other",
            },
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Timeout(_) => "timeout",
            Self::Invalid => "invalid",
            Self::ClientGone => "client_gone",
            Self::Superseded => "superseded",
        }
    }

    /// What is said of a further attempt after this one.
    #[must_use]
    pub const fn retried(self) -> &'static str {
        match self {
            Self::Status(_) => "made again after its status",
            Self::Connect => "made again: there was no connection",
            Self::Reset => "made again: the connection ended before an answer",
            Self::Timeout(_) => "made again: the attempt took too long",
            Self::Invalid => "made again: the answer was not HTTP",
            Self::ClientGone | Self::Superseded => "made again",
        }
    }

    /// Whether it speaks for the upstream or against it; `None` when it says nothing of the upstream. `grpc`: the gRPC
    /// status in the head of the response, where there is one; a status that comes in trailers is not seen here.
    ///
    /// Against it: no connection, a reset, what is not HTTP, a limit of the operator's that was over, the statuses 500,
    /// 502, 503 and 504, and the gRPC statuses `UNKNOWN`, `DEADLINE_EXCEEDED`, `INTERNAL` and `UNAVAILABLE`. Neither a
    /// 4xx, which is the client's, nor 501 and 505, which are what the upstream always answers to such a request, nor any
    /// other status. The client's own `grpc-timeout` says nothing: nobody must be able to have an upstream taken for a
    /// failing one.
    #[must_use]
    pub fn success(self, grpc: Option<GrpcCode>) -> Option<bool> {
        match self {
            Self::Status(status) => {
                let harmed = matches!(status.as_u16(), 500 | 502 | 503 | 504) || grpc.is_some_and(GrpcCode::is_failure);
                Some(!harmed)
            }
            Self::ClientGone | Self::Superseded | Self::Timeout(Limit::Grpc | Limit::Stream | Limit::Queue) => None,
            Self::Connect | Self::Reset | Self::Invalid | Self::Timeout(_) => Some(false),
        }
    }

    /// Every label.
    pub const LABELS: [&'static str; 12] = [
        "1xx",
        "2xx",
        "3xx",
        "4xx",
        "5xx",
        "other",
        "connect",
        "reset",
        "timeout",
        "invalid",
        "client_gone",
        "superseded",
    ];
}

/// What answered in place of a route's upstream: the value of `Portcullis-Fallback` and a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StandIn {
    /// Another upstream.
    Upstream,
    /// A fixed response.
    Status,
}

impl StandIn {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Upstream, Self::Status];

    /// The name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Status => "status",
        }
    }
}

/// Why an exchange ended before its response was complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Termination {
    /// The client closed its connection or reset its stream.
    ClientGone,
    /// The upstream broke off in the middle of its response.
    UpstreamReset,
    /// `timeout.idle`: neither side made progress.
    IdleTimeout,
    /// `timeout.request` was over.
    DeadlineExceeded,
    /// The gateway stopped: `grace_period` was over.
    Shutdown,
    /// A defect of the gateway.
    Internal,
}

impl Termination {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::ClientGone,
        Self::UpstreamReset,
        Self::IdleTimeout,
        Self::DeadlineExceeded,
        Self::Shutdown,
        Self::Internal,
    ];

    /// The label in the access log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientGone => "client_gone",
            Self::UpstreamReset => "upstream_reset",
            Self::IdleTimeout => "idle_timeout",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Shutdown => "shutdown",
            Self::Internal => "internal",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(outcome: Outcome, grpc: Option<GrpcCode>, success: Option<bool>) {
        assert_eq!(outcome.success(grpc), success, "{outcome:?} {grpc:?}");
    }

    #[test]
    fn each_outcome_speaks_for_the_upstream_against_it_or_not_at_all() {
        let status = |code| Outcome::Status(StatusCode::from_u16(code).expect("three digits"));
        for against in [500, 502, 503, 504] {
            check(status(against), None, Some(false));
        }
        for fine in [101, 200, 304, 400, 404, 429, 499, 501, 505, 599] {
            check(status(fine), None, Some(true));
        }
        for against in [Outcome::Connect, Outcome::Reset, Outcome::Invalid] {
            check(against, None, Some(false));
        }
        for limit in [Limit::Attempt, Limit::Idle, Limit::Connect, Limit::Request] {
            check(Outcome::Timeout(limit), None, Some(false));
        }
        for silent in [Outcome::ClientGone, Outcome::Superseded, Outcome::Timeout(Limit::Grpc)] {
            check(silent, None, None);
        }
        for against in [GrpcCode::Unknown, GrpcCode::DeadlineExceeded, GrpcCode::Internal, GrpcCode::Unavailable] {
            check(status(200), Some(against), Some(false));
        }
        for fine in [GrpcCode::Ok, GrpcCode::NotFound, GrpcCode::ResourceExhausted, GrpcCode::Cancelled] {
            check(status(200), Some(fine), Some(true));
        }
    }
}
