//! How long a request, an attempt and silence may last.
//!
//! Decides nothing while a request is served: it holds the three limits that the engine turns into
//! [`Deadline`](crate::model::deadline::Deadline)s. Never waits and never reads a clock. The limits on a slow client
//! (header and handshake time, body rate) belong to the listener, the one on a slow connect to the upstream.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::source::{SourceSpan, Spanned};
use crate::model::units::Period;

/// `timeout`: how long things may last. `timeout = false` goes back from inherited limits to the defaults below; there
/// is no route without limits, but a limit may be as long as ten years.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// From the first byte of the request to the last of the response, all attempts included. Past it the client
    /// gets 504 `deadline_exceeded`. Default: `"30s"`.
    pub request: Spanned<Period>,
    /// From the last byte of the request to the head of the response, for each attempt; while the body is on its way, `idle`
    /// counts instead. Past it the attempt has failed; the client gets 504
    /// `upstream_timeout` when no further attempt is made. Default: `"10s"`.
    pub attempt: Spanned<Period>,
    /// Between two reads or writes of a body that make progress, on either side. Default: `"60s"`.
    pub idle: Spanned<Period>,
    /// From the first byte of the request to the end, for long-lived streams, for which `request` does not count: WebSocket and
    /// other upgrades, gRPC, and responses of type `text/event-stream`. A `grpc-timeout` of the client counts as well.
    /// Default: only `idle` ends them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<Spanned<Period>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            request: Period::from_secs(30).into(),
            attempt: Period::from_secs(10).into(),
            idle: Period::from_secs(60).into(),
            stream: None,
        }
    }
}

/// The compiled limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeout {
    /// `timeout.request`.
    pub request: Duration,
    /// `timeout.attempt`; at most [`Timeout::request`].
    pub attempt: Duration,
    /// `timeout.idle`.
    pub idle: Duration,
    /// `timeout.stream`.
    pub stream: Option<Duration>,
}

/// Reads the settings. A limit of zero is an error; an attempt that may last longer than its request is a warning,
/// unless nobody wrote it, and ends with the request.
pub fn compile(config: &Config, diagnostics: &mut Diagnostics) -> Option<Timeout> {
    let Config { request, attempt, idle, stream } = config;
    let errors = diagnostics.errors();
    for (name, period) in [("request", request), ("attempt", attempt), ("idle", idle)]
        .into_iter()
        .chain(stream.iter().map(|stream| ("stream", stream)))
    {
        if period.0.is_zero() {
            diagnostics.push(
                Diagnostic::error("bad_value", period.span, format!("`{name}` of zero: nothing would ever succeed"))
                    .help("leave the key out for the default"),
            );
        }
    }
    if attempt.0 > request.0 && attempt.span != SourceSpan::default() {
        diagnostics.push(
            Diagnostic::warning(
                "never_reached",
                attempt.span,
                format!("`attempt` is longer than `request`: {} > {}", attempt.value, request.value),
            )
            .related(request.span, "the request ends here")
            .help("an attempt ends with its request"),
        );
    }
    let limits = Timeout {
        request: request.0,
        attempt: attempt.0.min(request.0),
        idle: idle.0,
        stream: stream.map(|stream| stream.0),
    };
    (diagnostics.errors() == errors).then_some(limits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(request: &str, attempt: &str, idle: &str) -> Config {
        let span = SourceSpan { file: 0, start: 1, end: 2 };
        let period = |written: &str| Spanned::new(written.parse::<Period>().expect("a period"), span);
        Config { request: period(request), attempt: period(attempt), idle: period(idle), stream: None }
    }

    #[track_caller]
    fn check(config: &Config, limits: Option<(u64, u64, u64)>, findings: &[&str]) {
        let mut diagnostics = Diagnostics::default();
        let timeout = compile(config, &mut diagnostics);
        let seconds = timeout.map(|t| (t.request.as_secs(), t.attempt.as_secs(), t.idle.as_secs()));
        assert_eq!(seconds, limits);
        assert_eq!(diagnostics.as_slice().iter().map(|found| found.code).collect::<Vec<_>>(), findings);
    }

    #[test]
    fn the_defaults_are_those_of_the_reference() {
        check(&Config::default(), Some((30, 10, 60)), &[]);
    }

    #[test]
    fn an_attempt_ends_with_its_request() {
        check(&limits("10s", "20s", "5s"), Some((10, 10, 5)), &["never_reached"]);
        let nobody_wrote_the_attempt = Config { attempt: Config::default().attempt, ..limits("5s", "1s", "60s") };
        check(&nobody_wrote_the_attempt, Some((5, 5, 60)), &[]);
    }

    #[test]
    fn zero_is_refused() {
        check(&limits("0s", "0s", "0s"), None, &["bad_value"; 3]);
    }

    proptest! {
        #[test]
        fn an_attempt_is_never_longer_than_its_request(request in 1_u64..1_000_000, attempt in 1_u64..1_000_000) {
            let period = |millis| Spanned::from(Period::from_millis(millis));
            let config = Config { request: period(request), attempt: period(attempt), ..Config::default() };
            let timeout = compile(&config, &mut Diagnostics::default()).expect("no limit is zero");
            prop_assert!(timeout.attempt <= timeout.request);
        }
    }
}
