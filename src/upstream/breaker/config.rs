//! `breaker` of `[upstream.NAME]` as it is written, and the rules that are made of it.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::source::{SourceSpan, Spanned};
use crate::model::units::{Percent, Period};

/// Stops sending requests to an upstream that fails, until a few trial requests have succeeded.
///
/// While it is closed, calls are counted. When too many of them failed it opens: requests are refused at once with 503
/// `breaker_open` and `Retry-After` (or go to the route's fallback). After `open_for` it is half-open and lets exactly
/// `half_open_requests` pass: when all of them succeed it closes and counts afresh, at the first that does not it opens
/// again. Each attempt is a call of its own, judged at the head of its response.
///
/// A call fails when no connection is made, when it is reset before its head, when the answer is not HTTP, when
/// `connect_timeout`, `timeout.attempt`, `timeout.idle` or `timeout.request` is over before the head, and by the statuses
/// 500, 502, 503 and 504 and the gRPC statuses `UNKNOWN`, `DEADLINE_EXCEEDED`, `INTERNAL` and `UNAVAILABLE` of a response
/// without messages. No other status is a failure: not 4xx, not 501 or 505. A client that goes away, or whose own body is
/// waited for, counts as nothing, and so do `timeout.stream` and the client's `grpc-timeout`.
///
/// The state belongs to the upstream and to this process; it is kept over a reload while these settings stay the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// It opens when at least this share of the calls in `window` failed; above 0%.
    pub failure_ratio: Spanned<Percent>,
    /// How many calls `window` must hold before a share counts; 1 or more.
    pub min_requests: Spanned<u32>,
    /// How far back calls count. It moves in steps of a tenth.
    pub window: Spanned<Period>,
    /// How long it stays open before it tries again. The time does not grow when it opens again.
    pub open_for: Spanned<Period>,
    /// How many requests pass while it is half-open, and must all succeed; 1 or more.
    pub half_open_requests: Spanned<u32>,
    /// A call that takes at least this long to the head of its response is slow; default: none is. A slow trial request
    /// has not succeeded.
    pub slow_call: Option<Spanned<Period>>,
    /// It opens when at least this share of the calls in `window` was slow; default 50% once `slow_call` is set.
    pub slow_call_ratio: Option<Spanned<Percent>>,
    /// It opens after this many failures without a success between them, whatever the share; default: never.
    pub consecutive_failures: Option<Spanned<u32>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            failure_ratio: unwritten(Percent::whole(50)),
            min_requests: unwritten(20),
            window: unwritten(Period::from_secs(10)),
            open_for: unwritten(Period::from_secs(30)),
            half_open_requests: unwritten(3),
            slow_call: None,
            slow_call_ratio: None,
            consecutive_failures: None,
        }
    }
}

fn unwritten<T>(value: T) -> Spanned<T> {
    Spanned { value, span: SourceSpan::default() }
}

/// When a breaker opens and closes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// It opens at this share of failures.
    pub failure_ratio: Percent,
    /// A share of fewer calls than this says nothing.
    pub min_requests: u32,
    /// How far back calls count.
    pub window: Duration,
    /// How long it stays open.
    pub open_for: Duration,
    /// How many pass while it is half-open.
    pub half_open_requests: u32,
    /// From when a call is slow, and at which share of slow calls it opens.
    pub slow: Option<(Duration, Percent)>,
    /// At how many failures in a row it opens.
    pub consecutive_failures: Option<u32>,
}

impl Rules {
    /// The rules that `config` states. `None` when an error was reported.
    pub fn compile(config: &Config, diagnostics: &mut Diagnostics) -> Option<Self> {
        let errors = diagnostics.errors();
        share(&config.failure_ratio, "breaker.failure_ratio", diagnostics);
        count(&config.min_requests, "breaker.min_requests", diagnostics);
        count(&config.half_open_requests, "breaker.half_open_requests", diagnostics);
        period(&config.window, "breaker.window", diagnostics);
        period(&config.open_for, "breaker.open_for", diagnostics);
        if let Some(slow_call) = &config.slow_call {
            period(slow_call, "breaker.slow_call", diagnostics);
        }
        if let Some(failures) = &config.consecutive_failures {
            count(failures, "breaker.consecutive_failures", diagnostics);
        }
        if let Some(ratio) = &config.slow_call_ratio {
            share(ratio, "breaker.slow_call_ratio", diagnostics);
            if config.slow_call.is_none() {
                let message = "breaker.slow_call_ratio is set, but no call is slow without breaker.slow_call";
                let help = "say from when a call is slow, as in slow_call = \"2s\"";
                diagnostics.push(Diagnostic::error("dead_setting", ratio.span, message).help(help));
            }
        }
        let slow_ratio = config.slow_call_ratio.as_ref().map_or(Percent::whole(50), |ratio| ratio.value);
        (diagnostics.errors() == errors).then(|| Self {
            failure_ratio: config.failure_ratio.value,
            min_requests: config.min_requests.value,
            window: config.window.0,
            open_for: config.open_for.0,
            half_open_requests: config.half_open_requests.value,
            slow: config.slow_call.as_ref().map(|slow_call| (slow_call.0, slow_ratio)),
            consecutive_failures: config.consecutive_failures.as_ref().map(|failures| failures.value),
        })
    }
}

/// The shortest period: a tenth of it is still far above the resolution of clocks and of the network.
const SHORTEST: Duration = Duration::from_millis(10);

fn period(period: &Spanned<Period>, setting: &str, diagnostics: &mut Diagnostics) {
    if period.0 < SHORTEST {
        let message = format!("{setting} is 10ms or longer: \"{}\"", period.value);
        diagnostics.push(Diagnostic::error("bad_value", period.span, message));
    }
}

fn share(share: &Spanned<Percent>, setting: &str, diagnostics: &mut Diagnostics) {
    if share.value == Percent::default() {
        let message = format!("{setting} is above 0%: \"{}\"", share.value);
        let help = "at 0% it would open without a failure; breaker = false switches it off";
        diagnostics.push(Diagnostic::error("bad_value", share.span, message).help(help));
    }
}

fn count(count: &Spanned<u32>, setting: &str, diagnostics: &mut Diagnostics) {
    if count.value == 0 {
        let message = format!("{setting} is 1 or more: {}", count.value);
        diagnostics.push(Diagnostic::error("bad_value", count.span, message));
    }
}
