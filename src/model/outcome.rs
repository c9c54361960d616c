//! How an attempt at an upstream ended, classified once, so that retries, breakers, health and logs agree.

use http::{HeaderMap, StatusCode};

use super::deadline::Limit;
use super::grpc::{self, GrpcCode};

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

    /// Whether it speaks for the upstream or against it; `None` when it says nothing of the upstream.
    ///
    /// Against it: no connection, a reset, what is not HTTP, a limit that was over, and the statuses 500, 502, 503 and
    /// 504. Neither a 4xx, which is the client's, nor 501 and 505, which are what the upstream always answers to such a
    /// request, nor any other status. A limit of the whole exchange says nothing: it also measures the client, who may
    /// upload slowly or ask for next to no time (`grpc-timeout`), and must not have an upstream taken for a failing one.
    #[must_use]
    pub fn success(self) -> Option<bool> {
        match self {
            Self::Status(status) => Some(!matches!(status.as_u16(), 500 | 502 | 503 | 504)),
            Self::Timeout(limit) if limit.ends_exchange() => None,
            Self::ClientGone | Self::Superseded => None,
            Self::Connect | Self::Reset | Self::Invalid | Self::Timeout(_) => Some(false),
        }
    }

    /// Like [`Outcome::success`] of a response with these fields: a gRPC response without messages, which carries its
    /// status in the head, counts against the upstream by UNKNOWN, DEADLINE_EXCEEDED, INTERNAL and UNAVAILABLE. A
    /// status that comes in trailers is not seen here.
    #[must_use]
    pub fn success_with(self, headers: &HeaderMap) -> Option<bool> {
        self.success().map(|success| success && !is_grpc_failure(headers))
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

fn is_grpc_failure(headers: &HeaderMap) -> bool {
    use GrpcCode::{DeadlineExceeded, Internal, Unavailable, Unknown};
    let code = GrpcCode::of_head(headers).filter(|_| grpc::is_grpc(headers));
    matches!(code, Some(Unknown | DeadlineExceeded | Internal | Unavailable))
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

    #[test]
    fn only_what_is_the_upstreams_fault_counts_against_it() {
        for status in [100, 200, 302, 400, 404, 408, 429, 499, 501, 505, 507, 599] {
            let status = StatusCode::from_u16(status).expect("three digits");
            assert_eq!(Outcome::Status(status).success(), Some(true), "{status}");
        }
        for status in [500, 502, 503, 504] {
            let status = StatusCode::from_u16(status).expect("three digits");
            assert_eq!(Outcome::Status(status).success(), Some(false), "{status}");
        }
        for outcome in [Outcome::Connect, Outcome::Reset, Outcome::Invalid] {
            assert_eq!(outcome.success(), Some(false), "{outcome:?}");
        }
        for limit in [Limit::Attempt, Limit::Idle, Limit::Connect] {
            assert_eq!(Outcome::Timeout(limit).success(), Some(false), "{limit:?}");
        }
        for limit in [Limit::Request, Limit::Stream, Limit::Grpc] {
            assert_eq!(Outcome::Timeout(limit).success(), None, "{limit:?}");
        }
        assert_eq!((Outcome::ClientGone.success(), Outcome::Superseded.success()), (None, None));
    }

    #[track_caller]
    fn check(content_type: &'static str, grpc_status: &'static str, success: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
        headers.insert("grpc-status", http::HeaderValue::from_static(grpc_status));
        assert_eq!(Outcome::Status(StatusCode::OK).success_with(&headers), Some(success), "{grpc_status}");
        assert_eq!(Outcome::Status(StatusCode::BAD_GATEWAY).success_with(&headers), Some(false));
        assert_eq!(Outcome::ClientGone.success_with(&headers), None);
    }

    #[test]
    fn a_grpc_status_in_the_head_counts() {
        for status in ["2", "4", "13", "14"] {
            check("application/grpc+proto", status, false);
        }
        for status in ["0", "1", "3", "5", "7", "8", "12", "16", "99", "x"] {
            check("application/grpc", status, true);
        }
        check("text/plain", "14", true);
    }
}
