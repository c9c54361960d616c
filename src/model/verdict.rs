//! What a policy decided, and how a refusal is named. The table of codes is the contract of `config.md`.

use std::borrow::Cow;

use http::StatusCode;
use http::header::{HeaderName, HeaderValue};
use serde::Serialize;

use super::violation::Violation;

/// Why the gateway itself answered. The name is stable: it is the last part of the problem's `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// Malformed request or refused path.
    BadRequest,
    /// The request is not what `validate` asks for; the problem lists each violation.
    InvalidRequest,
    /// No credentials, or none that are accepted.
    Unauthenticated,
    /// Access list, or a group that the caller is not in.
    Forbidden,
    /// No route for this host and path.
    NoRoute,
    /// The path is known, the method is not.
    MethodNotAllowed,
    /// Request head or body came too slowly.
    RequestTimeout,
    /// Body over the limit.
    BodyTooLarge,
    /// A media type, character set or content coding that the route does not take.
    UnsupportedMediaType,
    /// A limit of `rate_limit` is used up.
    RateLimited,
    /// Request target longer than the head limit allows.
    HeadersTooLarge,
    /// A feature of HTTP that is not offered here, such as CONNECT.
    NotImplemented,
    /// The `Expect` field asks for something unknown (RFC 9110 §10.1.1).
    ExpectationFailed,
    /// The upstream refused the connection or could not be reached.
    UpstreamUnreachable,
    /// The upstream's answer was not HTTP.
    UpstreamInvalid,
    /// The upstream's own answer was a failure that `retry.on` names. Clients see that answer; this code only says what a
    /// fallback stood in for.
    UpstreamError,
    /// Whether the caller may come in could not be found out.
    AuthUnavailable,
    /// No endpoint to try: names not resolved, or none in the upstream.
    NoHealthyEndpoint,
    /// The upstream's circuit breaker is open.
    BreakerOpen,
    /// The upstream's concurrency limit and its queue are full, or the wait would be too long.
    Overloaded,
    /// `timeout.attempt` or `connect_timeout` was over.
    UpstreamTimeout,
    /// `timeout.request` was over.
    DeadlineExceeded,
    /// A defect of the gateway.
    Internal,
}

impl Code {
    /// Every code, for the reference and for metrics that start at zero.
    pub const ALL: [Self; 23] = [
        Self::BadRequest,
        Self::InvalidRequest,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NoRoute,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::RateLimited,
        Self::HeadersTooLarge,
        Self::NotImplemented,
        Self::ExpectationFailed,
        Self::UpstreamUnreachable,
        Self::UpstreamInvalid,
        Self::UpstreamError,
        Self::AuthUnavailable,
        Self::NoHealthyEndpoint,
        Self::BreakerOpen,
        Self::Overloaded,
        Self::UpstreamTimeout,
        Self::DeadlineExceeded,
        Self::Internal,
    ];

    /// The stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The status that the client sees.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.row().1
    }

    /// The problem's `title`: the same for every occurrence (RFC 9457 §3.1.3).
    #[must_use]
    pub const fn title(self) -> &'static str {
        self.row().2
    }

    /// The error type for `Proxy-Status` (RFC 9209 §2.3).
    #[must_use]
    pub const fn proxy_error(self) -> &'static str {
        self.row().3
    }

    /// Whether the connection is closed after this answer because its state can't be trusted.
    #[must_use]
    pub const fn closes_connection(self) -> bool {
        matches!(self, Self::BadRequest | Self::RequestTimeout | Self::HeadersTooLarge | Self::NotImplemented)
    }

    const fn row(self) -> (&'static str, StatusCode, &'static str, &'static str) {
        match self {
            Self::BadRequest => ("bad_request", StatusCode::BAD_REQUEST, "Malformed request", "http_request_error"),
            Self::InvalidRequest => {
                ("invalid_request", StatusCode::BAD_REQUEST, "Invalid request", "http_request_error")
            }
            Self::Unauthenticated => {
                ("unauthenticated", StatusCode::UNAUTHORIZED, "Not authenticated", "http_request_denied")
            }
            Self::Forbidden => ("forbidden", StatusCode::FORBIDDEN, "Not allowed", "http_request_denied"),
            Self::NoRoute => ("no_route", StatusCode::NOT_FOUND, "No route", "destination_not_found"),
            Self::MethodNotAllowed => {
                ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", "http_request_denied")
            }
            Self::RequestTimeout => {
                ("request_timeout", StatusCode::REQUEST_TIMEOUT, "Request too slow", "http_request_error")
            }
            Self::BodyTooLarge => {
                ("body_too_large", StatusCode::PAYLOAD_TOO_LARGE, "Body too large", "http_request_error")
            }
            Self::UnsupportedMediaType => (
                "unsupported_media_type",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "Unsupported media type",
                "http_request_error",
            ),
            Self::RateLimited => {
                ("rate_limited", StatusCode::TOO_MANY_REQUESTS, "Too many requests", "http_request_denied")
            }
            Self::HeadersTooLarge => (
                "headers_too_large",
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "Request head too large",
                "http_request_error",
            ),
            Self::NotImplemented => {
                ("not_implemented", StatusCode::NOT_IMPLEMENTED, "Not implemented", "http_request_error")
            }
            Self::ExpectationFailed => {
                ("expectation_failed", StatusCode::EXPECTATION_FAILED, "Expectation failed", "http_request_error")
            }
            Self::UpstreamUnreachable => {
                ("upstream_unreachable", StatusCode::BAD_GATEWAY, "Upstream unreachable", "connection_refused")
            }
            Self::UpstreamInvalid => {
                ("upstream_invalid", StatusCode::BAD_GATEWAY, "Upstream answered nonsense", "http_protocol_error")
            }
            Self::UpstreamError => {
                ("upstream_error", StatusCode::BAD_GATEWAY, "Upstream failed", "destination_unavailable")
            }
            Self::AuthUnavailable => (
                "auth_unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
                "Authentication unavailable",
                "destination_unavailable",
            ),
            Self::NoHealthyEndpoint => (
                "no_healthy_endpoint",
                StatusCode::SERVICE_UNAVAILABLE,
                "No healthy endpoint",
                "destination_unavailable",
            ),
            // "considers the next hop to be unavailable; e.g., recent attempts to communicate with it may have failed"
            Self::BreakerOpen => {
                ("breaker_open", StatusCode::SERVICE_UNAVAILABLE, "Circuit breaker open", "destination_unavailable")
            }
            // the type with the meaning nearest to a limit of requests (RFC 9209 §2.3.12)
            Self::Overloaded => {
                ("overloaded", StatusCode::SERVICE_UNAVAILABLE, "Upstream overloaded", "connection_limit_reached")
            }
            Self::UpstreamTimeout => {
                ("upstream_timeout", StatusCode::GATEWAY_TIMEOUT, "Upstream too slow", "http_response_timeout")
            }
            Self::DeadlineExceeded => {
                ("deadline_exceeded", StatusCode::GATEWAY_TIMEOUT, "Deadline exceeded", "http_response_timeout")
            }
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR, "Internal error", "proxy_internal_error"),
        }
    }
}

/// A refusal: everything that the client is told. `pipeline::fail` turns it into a response, nothing else does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// What kind.
    pub code: Code,
    /// This occurrence, for the person who reads the answer; never a secret, never internals of the upstream.
    pub detail: Cow<'static, str>,
    /// Fields beyond those that every refusal has: `Allow`, `Retry-After`, …
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What in the request has to be mended, where that can be said place by place.
    pub errors: Vec<Violation>,
}

impl Rejection {
    /// A refusal without further fields.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), headers: Vec::new(), errors: Vec::new() }
    }

    /// Adds a field to the answer.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// The names of the policies, and of what guards an upstream, as they stand in the configuration, in metrics, logs and
/// `explain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyName {
    /// `access`
    Access,
    /// `rate_limit`
    RateLimit,
    /// `cors`
    Cors,
    /// `auth`
    Auth,
    /// `validate`
    Validate,
    /// `redirect`
    Redirect,
    /// `respond`
    Respond,
    /// `rewrite`
    Rewrite,
    /// `headers`
    Headers,
    /// `compress`
    Compress,
    /// `timeout`
    Timeout,
    /// `retry`
    Retry,
    /// `hedge`
    Hedge,
    /// `fallback`
    Fallback,
    /// `breaker` of the upstream
    Breaker,
    /// `concurrency` of the upstream
    Concurrency,
    /// `health_check` and `outlier` of the upstream: which of its endpoints may be tried
    Health,
}

impl PolicyName {
    /// Every policy in the order of the stages that run them.
    pub const ALL: [Self; 17] = [
        Self::Access,
        Self::RateLimit,
        Self::Cors,
        Self::Auth,
        Self::Validate,
        Self::Redirect,
        Self::Respond,
        Self::Rewrite,
        Self::Headers,
        Self::Compress,
        Self::Timeout,
        Self::Retry,
        Self::Hedge,
        Self::Fallback,
        Self::Breaker,
        Self::Concurrency,
        Self::Health,
    ];

    /// The key in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::RateLimit => "rate_limit",
            Self::Cors => "cors",
            Self::Auth => "auth",
            Self::Validate => "validate",
            Self::Redirect => "redirect",
            Self::Respond => "respond",
            Self::Rewrite => "rewrite",
            Self::Headers => "headers",
            Self::Compress => "compress",
            Self::Timeout => "timeout",
            Self::Retry => "retry",
            Self::Hedge => "hedge",
            Self::Fallback => "fallback",
            Self::Breaker => "breaker",
            Self::Concurrency => "concurrency",
            Self::Health => "health",
        }
    }
}

/// How a policy judged a request, as a closed set for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The request goes on.
    Allow,
    /// The request is refused.
    Reject,
    /// The request would be refused, but the policy is in report mode.
    WouldReject,
    /// The policy answered the request itself (a redirect, a preflight, a fixed response).
    Answer,
    /// The policy changed the request or the response.
    Apply,
    /// It could not be judged (too long, coded), and went on.
    Unjudged,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 6] =
        [Self::Allow, Self::Reject, Self::WouldReject, Self::Answer, Self::Apply, Self::Unjudged];

    /// The label in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Reject => "reject",
            Self::WouldReject => "would_reject",
            Self::Answer => "answer",
            Self::Apply => "apply",
            Self::Unjudged => "unjudged",
        }
    }
}

/// One policy's judgement of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Who judged.
    pub policy: PolicyName,
    /// How.
    pub verdict: Verdict,
    /// Why, in words.
    pub reason: Cow<'static, str>,
}

/// What an admission policy says of a request: its judgement, and the refusal if that is what it comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// For metrics, logs and `explain`.
    pub decision: Decision,
    /// What the client is told; `None` when the request goes on.
    pub rejection: Option<Rejection>,
}

impl Admission {
    /// The request goes on. Does not allocate.
    #[must_use]
    pub const fn allow(policy: PolicyName, reason: &'static str) -> Self {
        let decision = Decision { policy, verdict: Verdict::Allow, reason: Cow::Borrowed(reason) };
        Self { decision, rejection: None }
    }

    /// The request, or its response, goes on without having been judged. Does not allocate.
    #[must_use]
    pub const fn unjudged(policy: PolicyName, reason: &'static str) -> Self {
        let decision = Decision { policy, verdict: Verdict::Unjudged, reason: Cow::Borrowed(reason) };
        Self { decision, rejection: None }
    }

    /// The request is refused for `reason`, or would be if `mode` were to enforce it.
    pub fn refuse(policy: PolicyName, mode: Mode, reason: impl Into<Cow<'static, str>>, rejection: Rejection) -> Self {
        let (verdict, rejection) = match mode {
            Mode::Enforce => (Verdict::Reject, Some(rejection)),
            Mode::Report => (Verdict::WouldReject, None),
        };
        Self { decision: Decision { policy, verdict, reason: reason.into() }, rejection }
    }
}

/// Whether an admission policy refuses or only reports what it would refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Refuse.
    #[default]
    Enforce,
    /// Count, log and audit the refusal as `would_reject`, and let the request go on.
    Report,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_distinct_names_and_error_statuses() {
        let names: std::collections::BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        assert!(Code::ALL.iter().all(|code| code.status().is_client_error() || code.status().is_server_error()));
    }
}
