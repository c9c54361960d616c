//! How an attempt at an upstream ended, classified once, so that retries, breakers, health and logs agree.

use http::StatusCode;

use super::deadline::Limit;

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
