//! `concurrency` of `[upstream.NAME]` as it is written, and the rules that are made of it.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::adaptive::Bounds;
use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::source::{SourceSpan, Spanned};
use crate::model::units::Period;

/// The highest limit: more than one process can have under way.
const MAX_LIMIT: u32 = 100_000;
/// The longest queue: each place costs about 32 bytes.
const MAX_QUEUE: u32 = 100_000;

/// Limits how many requests are under way to the upstream, and how many wait for that.
///
/// `{ limit = 200 }` is a fixed limit. `{ adaptive = true }` finds the limit of an app whose capacity nobody knows: it
/// compares the time to the response head with that at a lower concurrency, which it measures every 30 seconds by
/// lowering the limit for a few responses, and gives room while the app is no slower. A request holds its place from
/// its attempt to the end of the response's body, so streams, WebSocket ones too, hold theirs for as long as they live.
///
/// What finds no place waits in the queue, first come, first served, or is refused with 503 `overloaded` and
/// `Retry-After` (or goes to the route's fallback): when the queue is full, when `queue_timeout` is over, and at once when
/// the wait that is to be expected is longer than `queue_timeout` or than the request may take.
///
/// The limit is that of one process, shared by all its workers: two gateways in front of an app give it twice as much.
/// It belongs to the upstream and is kept over a reload, with what it has learnt, while these settings stay the same.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// How many requests may be under way, 1 to 100,000. Either this or `adaptive`.
    pub limit: Option<Spanned<u32>>,
    /// Whether the limit is found by measuring.
    pub adaptive: Spanned<bool>,
    /// The adaptive limit never goes below this, where it also starts; 1 or more, default 4.
    pub min: Option<Spanned<u32>>,
    /// The adaptive limit never goes above this; at most 100,000, default 1000.
    pub max: Option<Spanned<u32>>,
    /// How many requests may wait, 0 to 100,000; 0 refuses what finds no place.
    pub queue: Spanned<u32>,
    /// How long a request may wait; default 500ms.
    pub queue_timeout: Option<Spanned<Period>>,
}

/// How many may be under way, and how many may wait for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The limit, or the bounds between which it is found.
    pub limit: Limit,
    /// How many may wait.
    pub queue: u32,
    /// How long each may wait.
    pub queue_timeout: Duration,
}

/// Where the limit comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Limit {
    /// It was written.
    Fixed(u32),
    /// It is found between these bounds.
    Adaptive(Bounds),
}

impl Rules {
    /// The rules that `config`, written at `span`, states. `None` when an error was reported.
    pub fn compile(config: &Config, span: SourceSpan, diagnostics: &mut Diagnostics) -> Option<Self> {
        let errors = diagnostics.errors();
        let limit = limit(config, span, diagnostics);
        if config.queue.value > MAX_QUEUE {
            let message = format!("concurrency.queue is at most {MAX_QUEUE}: {}", config.queue.value);
            diagnostics.push(Diagnostic::error("bad_value", config.queue.span, message));
        }
        let queue_timeout = match &config.queue_timeout {
            None => Duration::from_millis(500),
            Some(timeout) => {
                check_queue_timeout(timeout, config.queue.value, diagnostics);
                timeout.0
            }
        };
        let limit = limit.filter(|_| diagnostics.errors() == errors)?;
        Some(Self { limit, queue: config.queue.value, queue_timeout })
    }
}

fn limit(config: &Config, span: SourceSpan, diagnostics: &mut Diagnostics) -> Option<Limit> {
    match (&config.limit, config.adaptive.value) {
        (Some(limit), true) => {
            let message = "concurrency.limit is set, but adaptive = true finds the limit";
            let help = "leave one of them out; max bounds what adaptive finds";
            diagnostics.push(Diagnostic::error("dead_setting", limit.span, message).help(help));
            None
        }
        (None, false) => {
            let message = "concurrency has neither a limit nor adaptive = true";
            let help = "write { limit = 200 }, or { adaptive = true } when nobody knows the app's capacity";
            diagnostics.push(Diagnostic::error("missing_key", span, message).help(help));
            None
        }
        (Some(limit), false) => {
            within(limit, "concurrency.limit", diagnostics);
            for (name, bound) in [("min", &config.min), ("max", &config.max)] {
                let Some(bound) = bound else { continue };
                let message = format!("concurrency.{name} is set, but it bounds an adaptive limit only");
                let help = "leave it out, or write adaptive = true instead of a limit";
                diagnostics.push(Diagnostic::error("dead_setting", bound.span, message).help(help));
            }
            Some(Limit::Fixed(limit.value))
        }
        (None, true) => {
            let bounds = Bounds::default();
            for (name, bound) in [("concurrency.min", &config.min), ("concurrency.max", &config.max)] {
                if let Some(bound) = bound {
                    within(bound, name, diagnostics);
                }
            }
            let value = |bound: &Option<Spanned<u32>>, or| bound.as_ref().map_or(or, |bound| bound.value);
            let bounds = Bounds { min: value(&config.min, bounds.min), max: value(&config.max, bounds.max) };
            if bounds.min > bounds.max {
                let at = config.min.as_ref().or(config.max.as_ref()).map_or(span, |bound| bound.span);
                let message = format!("concurrency.min is above concurrency.max: {} > {}", bounds.min, bounds.max);
                diagnostics.push(Diagnostic::error("bad_value", at, message).help("min is 4 and max 1000 unless set"));
            }
            Some(Limit::Adaptive(bounds))
        }
    }
}

fn within(limit: &Spanned<u32>, setting: &str, diagnostics: &mut Diagnostics) {
    if !(1..=MAX_LIMIT).contains(&limit.value) {
        let message = format!("{setting} is a number from 1 to {MAX_LIMIT}: {}", limit.value);
        diagnostics.push(Diagnostic::error("bad_value", limit.span, message));
    }
}

fn check_queue_timeout(timeout: &Spanned<Period>, queue: u32, diagnostics: &mut Diagnostics) {
    if timeout.0 == Duration::ZERO {
        let message = format!("concurrency.queue_timeout must be longer than nothing: \"{}\"", timeout.value);
        diagnostics.push(Diagnostic::error("bad_value", timeout.span, message).help("without a wait: queue = 0"));
    }
    if queue == 0 {
        let message = "concurrency.queue_timeout is set, but there is no queue";
        let help = "say how many may wait, as in queue = 50";
        diagnostics.push(Diagnostic::error("dead_setting", timeout.span, message).help(help));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spanned<T>(value: T) -> Spanned<T> {
        Spanned::new(value, SourceSpan { file: 0, start: 1, end: 2 })
    }

    #[expect(clippy::unnecessary_wraps, reason = "as it stands in the settings")]
    fn number(value: u32) -> Option<Spanned<u32>> {
        Some(spanned(value))
    }

    #[track_caller]
    fn check(config: &Config, expected: &[(&str, &str)]) {
        let mut diagnostics = Diagnostics::default();
        let compiled = Rules::compile(config, SourceSpan::default(), &mut diagnostics);
        let seen: Vec<_> = diagnostics.as_slice().iter().map(|one| (one.code, one.message.as_str())).collect();
        assert_eq!(seen, expected);
        assert_eq!(compiled.is_none(), !expected.is_empty());
    }

    #[test]
    fn a_limit_is_written_or_found_but_not_both() {
        check(&Config::default(), &[("missing_key", "concurrency has neither a limit nor adaptive = true")]);
        let both = Config { limit: number(5), adaptive: spanned(true), ..Config::default() };
        check(&both, &[("dead_setting", "concurrency.limit is set, but adaptive = true finds the limit")]);
        let bounded = Config { limit: number(5), min: number(1), max: number(9), ..Config::default() };
        check(
            &bounded,
            &[
                ("dead_setting", "concurrency.min is set, but it bounds an adaptive limit only"),
                ("dead_setting", "concurrency.max is set, but it bounds an adaptive limit only"),
            ],
        );
        check(&Config { limit: number(5), ..Config::default() }, &[]);
        check(&Config { adaptive: spanned(true), ..Config::default() }, &[]);
    }

    #[test]
    fn numbers_are_within_their_bounds() {
        let zero = Config { limit: number(0), queue: spanned(100_001), ..Config::default() };
        check(
            &zero,
            &[
                ("bad_value", "concurrency.limit is a number from 1 to 100000: 0"),
                ("bad_value", "concurrency.queue is at most 100000: 100001"),
            ],
        );
        let adaptive = Config { adaptive: spanned(true), ..Config::default() };
        check(
            &Config { min: number(0), max: number(100_001), ..adaptive.clone() },
            &[
                ("bad_value", "concurrency.min is a number from 1 to 100000: 0"),
                ("bad_value", "concurrency.max is a number from 1 to 100000: 100001"),
            ],
        );
        let above = "concurrency.min is above concurrency.max: 50 > 20";
        check(&Config { min: number(50), max: number(20), ..adaptive.clone() }, &[("bad_value", above)]);
        let above = "concurrency.min is above concurrency.max: 4 > 3";
        check(&Config { max: number(3), ..adaptive }, &[("bad_value", above)]);
    }

    #[test]
    fn a_wait_needs_a_queue() {
        let config = Config { limit: number(5), queue_timeout: Some(spanned(Period::default())), ..Config::default() };
        check(
            &config,
            &[
                ("bad_value", "concurrency.queue_timeout must be longer than nothing: \"0s\""),
                ("dead_setting", "concurrency.queue_timeout is set, but there is no queue"),
            ],
        );
        let wait = Some(spanned(Period::from_millis(20)));
        check(&Config { limit: number(5), queue: spanned(1), queue_timeout: wait, ..Config::default() }, &[]);
    }
}
