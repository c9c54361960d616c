//! Which failed attempts are made again, how often and after how long.
//!
//! Decides from the outcome of an attempt, the method and what has been tried; the budget is the upstream's
//! (`upstream::budget`), and whether body bytes have left for good is told by whoever moved them. Never waits: a
//! backoff goes out as a duration.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use http::{Method, StatusCode};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::diagnostic::{Diagnostic, Diagnostics, did_you_mean};
use crate::model::grpc::GrpcCode;
use crate::model::outcome::Outcome;
use crate::model::source::Spanned;
use crate::model::units::{ByteSize, Percent, Period};

/// The most attempts of a request.
const MAX_ATTEMPTS: u32 = 10;
/// The largest body that may be kept for another attempt.
const MAX_BUFFER: ByteSize = ByteSize::mib(64);

/// `retry`: failed attempts are made again, on another endpoint where there is one. A route that says nothing has the
/// defaults below. `retry = false` leaves one attempt; a connection from the pool that turns out to be closed is
/// replaced all the same, once, when the method is idempotent or nothing can have been processed.
///
/// What may be sent twice: a request that the upstream certainly has not processed (no connection was made, an HTTP/2
/// stream was refused) whatever its method; any other only with one of `methods`, and never one with body bytes that
/// have left and are not kept. When retries end, the client gets the last real answer of the upstream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// Attempts in all, the first one included: 2 to 10.
    #[schemars(range(min = 2, max = 10))]
    pub attempts: Spanned<u32>,
    /// How much of a request body is kept to be sent again, at most 64MiB. A request with a longer body is not made again
    /// once bytes of it have left.
    pub buffer: Spanned<ByteSize>,
    /// What is made again: `"connect"` (no connection, or not in time), `"reset"` (the connection ended before a head),
    /// `"timeout"` (`timeout.attempt` was over), `"invalid"` (the answer was not HTTP), a status such as `"503"`, all of
    /// a kind as `"5xx"`, or a gRPC status in the response's head as `"grpc:unavailable"`.
    pub on: Vec<Spanned<Condition>>,
    /// How long to wait before another attempt. A `Retry-After` of the upstream is honoured when it is longer; one
    /// that reaches past the request's deadline ends the retries.
    pub backoff: Backoff,
    /// Retries of all routes to the upstream, as a share of the requests that it got in the last 10 seconds. A retry
    /// counts from the moment it is decided, while it waits as well.
    pub budget: Spanned<Percent>,
    /// Retries per second that the budget allows whatever the share, so that a quiet upstream gets some.
    pub min_retries_per_second: u32,
    /// Methods that may be sent twice: `"idempotent"` (`GET`, `HEAD`, `OPTIONS`, `TRACE`, `PUT`, `DELETE`; RFC 9110
    /// §9.2.2), `"any"`, or a method's name.
    pub methods: Vec<Spanned<String>>,
}

impl Default for Config {
    fn default() -> Self {
        let on = [
            Condition::Connect,
            Condition::Reset,
            Condition::Timeout,
            Condition::Status(502),
            Condition::Status(503),
            Condition::Status(504),
        ];
        Self {
            attempts: 3.into(),
            buffer: ByteSize::kib(64).into(),
            on: on.into_iter().map(Spanned::from).collect(),
            backoff: Backoff::default(),
            budget: Percent::whole(20).into(),
            min_retries_per_second: 3,
            methods: vec!["idempotent".to_owned().into()],
        }
    }
}

/// Waiting before another attempt: `base` before the second, twice that before each further one, at most `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Backoff {
    /// The wait before the second attempt.
    pub base: Spanned<Period>,
    /// The longest wait.
    pub max: Spanned<Period>,
    /// Whether waits are spread.
    pub jitter: Jitter,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Period::from_millis(25).into(), max: Period::from_secs(1).into(), jitter: Jitter::Full }
    }
}

/// How waits are spread, so that callers that failed together do not come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Jitter {
    /// Anywhere between nothing and the wait.
    #[default]
    Full,
    /// Exactly the wait.
    None,
}

/// One thing that is made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// No connection.
    Connect,
    /// The connection ended before a head.
    Reset,
    /// `timeout.attempt` or, while the head was awaited, `timeout.idle` was over.
    Timeout,
    /// What came was not HTTP.
    Invalid,
    /// That status.
    Status(u16),
    /// Every status of that hundred: 4 or 5.
    Class(u16),
    /// That gRPC status in the response's head.
    Grpc(GrpcCode),
}

/// Why a [`Condition`] was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConditionError(String);

impl FromStr for Condition {
    type Err = ConditionError;

    fn from_str(written: &str) -> Result<Self, ConditionError> {
        const WORDS: [&str; 4] = ["connect", "reset", "timeout", "invalid"];
        let unknown = || {
            let help = match did_you_mean(written, WORDS) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => {
                    "as in \"connect\", \"reset\", \"timeout\", \"invalid\", \"503\", \"5xx\", \"grpc:unavailable\""
                        .to_owned()
                }
            };
            ConditionError(format!("not something that can be made again: {written:?}; {help}"))
        };
        match written {
            "connect" => Ok(Self::Connect),
            "reset" => Ok(Self::Reset),
            "timeout" => Ok(Self::Timeout),
            "invalid" => Ok(Self::Invalid),
            "4xx" => Ok(Self::Class(4)),
            "5xx" => Ok(Self::Class(5)),
            _ => {
                if let Some(code) = written.strip_prefix("grpc:") {
                    let code: Option<GrpcCode> = code.parse().ok().filter(|code| *code != GrpcCode::Ok);
                    return code.map(Self::Grpc).ok_or_else(|| {
                        ConditionError(format!(
                            "not the name of a gRPC failure, as in \"grpc:unavailable\": {written:?}"
                        ))
                    });
                }
                let status = written.parse().ok().filter(|status| (400..600).contains(status));
                status.map(Self::Status).ok_or_else(unknown)
            }
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("connect"),
            Self::Reset => f.write_str("reset"),
            Self::Timeout => f.write_str("timeout"),
            Self::Invalid => f.write_str("invalid"),
            Self::Status(status) => status.fmt(f),
            Self::Class(class) => write!(f, "{class}xx"),
            Self::Grpc(code) => write!(f, "grpc:{code}"),
        }
    }
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Condition {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "RetryCondition".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "`connect`, `reset`, `timeout`, `invalid`, a status, `5xx`, `grpc:CODE`.",
            "examples": ["connect", "503", "5xx", "grpc:unavailable"],
        })
    }
}

/// The compiled policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    attempts: u32,
    buffer: u64,
    on: Box<[Condition]>,
    base: Duration,
    max: Duration,
    jitter: Jitter,
    share: f64,
    floor: u32,
    methods: Methods,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Methods {
    any: bool,
    idempotent: bool,
    named: Box<[Method]>,
}

/// Reads the settings.
pub fn compile(config: &Config, diagnostics: &mut Diagnostics) -> Option<Retry> {
    let errors = diagnostics.errors();
    if !(2..=MAX_ATTEMPTS).contains(&config.attempts.value) {
        let message =
            format!("attempts are counted with the first one, from 2 to {MAX_ATTEMPTS}: {}", config.attempts.value);
        diagnostics.push(
            Diagnostic::error("bad_value", config.attempts.span, message)
                .help("for one attempt, write `retry = false`"),
        );
    }
    if config.buffer.value > MAX_BUFFER {
        let message = format!("more than {MAX_BUFFER} for each request: {}", config.buffer.value);
        diagnostics.push(Diagnostic::error("bad_value", config.buffer.span, message));
    }
    let Backoff { base, max, jitter } = config.backoff;
    if max.0 < base.0 {
        let message = format!("the longest wait is shorter than the first: {} < {}", max.value, base.value);
        diagnostics.push(Diagnostic::error("bad_value", max.span, message).related(base.span, "the first wait"));
    }
    let methods = methods(&config.methods, diagnostics);
    let is_grpc = |condition: &&Spanned<Condition>| matches!(condition.value, Condition::Grpc(_));
    if let Some(grpc) = config.on.iter().find(is_grpc)
        && !methods.allows(&Method::POST)
    {
        let error = Diagnostic::error("dead_setting", grpc.span, "gRPC calls are POST, which `methods` does not name");
        diagnostics.push(error.help("add \"POST\" to `methods` where calls may be processed twice"));
    }
    Some(Retry {
        attempts: config.attempts.value,
        buffer: config.buffer.0,
        on: config.on.iter().map(|condition| condition.value).collect(),
        base: base.0,
        max: max.0,
        jitter,
        share: config.budget.ratio(),
        floor: config.min_retries_per_second,
        methods,
    })
    .filter(|_| diagnostics.errors() == errors)
}

fn methods(written: &[Spanned<String>], diagnostics: &mut Diagnostics) -> Methods {
    let mut named = Vec::new();
    let (mut any, mut idempotent) = (false, false);
    for word in written {
        match word.value.as_str() {
            "any" => any = true,
            "idempotent" => idempotent = true,
            name if name.bytes().all(|byte| byte.is_ascii_uppercase()) && !name.is_empty() => {
                named.extend(Method::from_bytes(name.as_bytes()));
            }
            name => {
                let message = format!("neither \"idempotent\", \"any\" nor a method in capitals: {name:?}");
                let mut error = Diagnostic::error("bad_value", word.span, message);
                if let Some(near) = did_you_mean(name, ["idempotent", "any"]) {
                    error = error.help(format!("did you mean \"{near}\"?"));
                }
                diagnostics.push(error);
            }
        }
    }
    Methods { any, idempotent, named: named.into() }
}

impl Methods {
    fn allows(&self, method: &Method) -> bool {
        self.any || self.idempotent && is_idempotent(method) || self.named.contains(method)
    }
}

/// Whether doing it twice is like doing it once (RFC 9110 §9.2.2).
#[must_use]
pub fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
}

impl Retry {
    /// Attempts in all.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Bytes of a body that are kept for another attempt.
    #[must_use]
    pub const fn buffer(&self) -> u64 {
        self.buffer
    }

    /// Retries as a share of requests, and how many a second whatever the share.
    #[must_use]
    pub const fn budget(&self) -> (f64, u32) {
        (self.share, self.floor)
    }

    /// What is made again, as it was written.
    pub fn conditions(&self) -> impl Iterator<Item = Condition> + '_ {
        self.on.iter().copied()
    }

    /// Whether a request of that method may be sent twice.
    #[must_use]
    pub fn allows(&self, method: &Method) -> bool {
        self.methods.allows(method)
    }

    /// Whether an attempt that ended so is made again. `grpc`: the gRPC status in the response's head.
    #[must_use]
    pub fn covers(&self, outcome: Outcome, grpc: Option<GrpcCode>) -> bool {
        self.on.iter().any(|condition| condition.covers(outcome, grpc))
    }

    /// How long to wait before the attempt after `failed` failed ones. `random` spreads it.
    #[must_use]
    pub fn wait(&self, failed: u32, random: u64) -> Duration {
        let doublings = failed.saturating_sub(1).min(31);
        let wait = self.base.saturating_mul(1 << doublings).min(self.max);
        match self.jitter {
            Jitter::None => wait,
            Jitter::Full => {
                let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
                // The high half of the product is uniform in 0..=nanos.
                let spread = (u128::from(random) * (u128::from(nanos) + 1)) >> 64;
                Duration::from_nanos(u64::try_from(spread).unwrap_or(nanos))
            }
        }
    }
}

impl Condition {
    fn covers(self, outcome: Outcome, grpc: Option<GrpcCode>) -> bool {
        use crate::model::deadline::Limit;
        match self {
            Self::Connect => matches!(outcome, Outcome::Connect | Outcome::Timeout(Limit::Connect)),
            Self::Reset => outcome == Outcome::Reset,
            Self::Timeout => matches!(outcome, Outcome::Timeout(Limit::Attempt | Limit::Idle)),
            Self::Invalid => outcome == Outcome::Invalid,
            Self::Status(code) => is_status(outcome, |status| status.as_u16() == code),
            Self::Class(hundred) => is_status(outcome, |status| status.as_u16() / 100 == hundred),
            Self::Grpc(code) => is_status(outcome, |_| grpc == Some(code)),
        }
    }
}

fn is_status(outcome: Outcome, fits: impl FnOnce(StatusCode) -> bool) -> bool {
    matches!(outcome, Outcome::Status(status) if fits(status))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::deadline::Limit;

    fn retry(change: impl FnOnce(&mut Config)) -> Option<Retry> {
        let mut config = Config::default();
        change(&mut config);
        compile(&config, &mut Diagnostics::default())
    }

    #[track_caller]
    fn check(written: &str, shown: Result<&str, &str>) {
        match (written.parse::<Condition>(), shown) {
            (Ok(condition), Ok(expected)) => assert_eq!(condition.to_string(), expected),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (parsed, expected) => panic!("{written}: {parsed:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn a_condition_is_a_word_a_status_or_a_grpc_code() {
        for good in ["connect", "reset", "timeout", "invalid", "503", "429", "5xx", "4xx", "grpc:unavailable"] {
            check(good, Ok(good));
        }
        check("conect", Err("did you mean \"connect\"?"));
        check("200", Err("not something"));
        check("999", Err("not something"));
        check("grpc:ok", Err("gRPC failure"));
        check("grpc:14", Err("gRPC failure"));
    }

    #[track_caller]
    fn covers(on: &[&str], outcome: Outcome, grpc: Option<GrpcCode>) -> bool {
        let on: Vec<Spanned<Condition>> =
            on.iter().map(|written| written.parse::<Condition>().expect("a condition").into()).collect();
        let methods = vec!["any".to_owned().into()];
        retry(|config| (config.on, config.methods) = (on, methods)).expect("compiles").covers(outcome, grpc)
    }

    #[test]
    fn each_condition_covers_its_own_outcomes() {
        let status = |code| Outcome::Status(StatusCode::from_u16(code).expect("a status"));
        let unavailable = Some(GrpcCode::Unavailable);
        assert!(covers(&["connect"], Outcome::Connect, None));
        assert!(covers(&["connect"], Outcome::Timeout(Limit::Connect), None));
        assert!(!covers(&["connect"], Outcome::Reset, None));
        assert!(covers(&["reset"], Outcome::Reset, None));
        assert!(covers(&["timeout"], Outcome::Timeout(Limit::Attempt), None));
        assert!(!covers(&["timeout"], Outcome::Timeout(Limit::Connect), None));
        assert!(!covers(&["timeout"], Outcome::Timeout(Limit::Request), None), "the request's own time is over");
        assert!(covers(&["invalid"], Outcome::Invalid, None));
        assert!(covers(&["503"], status(503), None) && !covers(&["503"], status(502), None));
        assert!(covers(&["5xx"], status(599), None) && !covers(&["5xx"], status(499), None));
        assert!(covers(&["grpc:unavailable"], status(200), unavailable));
        assert!(!covers(&["grpc:unavailable"], status(200), Some(GrpcCode::Internal)));
        assert!(!covers(&["grpc:unavailable"], status(200), None));
        assert!(!covers(&["5xx", "connect", "reset", "timeout"], Outcome::ClientGone, None));
    }

    #[test]
    fn methods_are_idempotent_ones_unless_opted_in() {
        let by_default = retry(|_| {}).expect("compiles");
        assert!(by_default.allows(&Method::PUT) && !by_default.allows(&Method::POST));
        let opted = retry(|config| config.methods = vec!["POST".to_owned().into()]).expect("compiles");
        assert!(opted.allows(&Method::POST) && !opted.allows(&Method::GET));
        let any = retry(|config| config.methods = vec!["any".to_owned().into()]).expect("compiles");
        assert!(any.allows(&Method::PATCH));
        assert!(retry(|config| config.methods = vec!["post".to_owned().into()]).is_none());
    }

    #[test]
    fn dead_and_senseless_settings_are_refused() {
        assert!(retry(|config| config.attempts = 1.into()).is_none());
        assert!(retry(|config| config.attempts = 11.into()).is_none());
        assert!(retry(|config| config.buffer = ByteSize::mib(65).into()).is_none());
        assert!(retry(|config| config.backoff.base = Period::from_secs(2).into()).is_none());
        let grpc = Condition::Grpc(GrpcCode::Unavailable);
        assert!(retry(|config| config.on.push(grpc.into())).is_none(), "POST is not among the methods");
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let plain = retry(|config| config.backoff.jitter = Jitter::None).expect("compiles");
        let waits: Vec<u128> = (1..=8).map(|failed| plain.wait(failed, 7).as_millis()).collect();
        assert_eq!(waits, [25, 50, 100, 200, 400, 800, 1000, 1000]);
    }

    proptest! {
        #[test]
        fn jitter_is_anywhere_up_to_the_wait(failed in 0_u32..200, random in any::<u64>()) {
            let spread = retry(|_| {}).expect("compiles").wait(failed, random);
            let whole = retry(|config| config.backoff.jitter = Jitter::None).expect("compiles").wait(failed, random);
            prop_assert!(spread <= whole);
            prop_assert!(whole <= Duration::from_secs(1));
        }
    }

    #[test]
    fn the_ends_of_the_jitter_are_reached() {
        let spread = retry(|_| {}).expect("compiles");
        assert_eq!(spread.wait(1, 0), Duration::ZERO);
        assert_eq!(spread.wait(1, u64::MAX), Duration::from_millis(25));
    }
}
