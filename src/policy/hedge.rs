//! Whether a second attempt is started beside a slow first one, and when.
//!
//! Only for safe methods (RFC 9110 §9.2.1) without a body: the upstream may do the work twice. A hedge is paid out of
//! the same budget as a retry. Decides the delay; never starts anything.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use http::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::source::Spanned;
use crate::model::units::Period;

/// `hedge`: a second attempt beside one that takes long; the first answer is taken, the other attempt is cancelled.
/// For `GET`, `HEAD` and `OPTIONS` without a body. It counts against `retry.budget`, goes to another endpoint, and needs
/// an upstream with more than one. Interim responses (1xx) of hedged requests are not passed on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Config {
    /// How long the first attempt may take before the second one starts: a time (`"50ms"`), or a quantile of the
    /// upstream's recent times to a response head (`"p95"`; `"p50"` to `"p99"`). With a quantile nothing is hedged before
    /// 100 attempts have been measured.
    pub after: Spanned<After>,
}

/// When a hedge starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// After that long.
    Time(Period),
    /// After the upstream's recent quantile, in percent.
    Quantile(u8),
}

/// Why an [`After`] was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AfterError(String);

impl FromStr for After {
    type Err = AfterError;

    fn from_str(written: &str) -> Result<Self, AfterError> {
        let Some(percent) = written.strip_prefix('p') else {
            return written.parse().map(Self::Time).map_err(|error| AfterError(format!("{error}")));
        };
        match percent.parse::<u8>() {
            Ok(percent @ 50..=99) => Ok(Self::Quantile(percent)),
            _ => Err(AfterError(format!("not a quantile from \"p50\" to \"p99\": {written:?}"))),
        }
    }
}

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(period) => period.fmt(f),
            Self::Quantile(percent) => write!(f, "p{percent}"),
        }
    }
}

impl Serialize for After {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for After {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for After {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "After".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A length of time with its unit, or a quantile.",
            "examples": ["p95", "50ms"],
        })
    }
}

/// The compiled policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hedge {
    after: After,
}

/// Reads the settings.
pub fn compile(config: &Config, diagnostics: &mut Diagnostics) -> Option<Hedge> {
    if let After::Time(period) = config.after.value
        && period.0.is_zero()
    {
        let error = Diagnostic::error("bad_value", config.after.span, "a hedge after nothing doubles every request");
        diagnostics.push(error.help("write a time above the usual one, or a quantile such as \"p95\""));
        return None;
    }
    Some(Hedge { after: config.after.value })
}

impl Hedge {
    /// How long the first attempt of this request may take; `None` when it is not hedged. `quantile` tells the
    /// upstream's recent one, once it is known.
    #[must_use]
    pub fn delay(
        &self,
        method: &Method,
        has_body: bool,
        quantile: impl FnOnce(u8) -> Option<Duration>,
    ) -> Option<Duration> {
        if has_body || !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
            return None;
        }
        match self.after {
            After::Time(period) => Some(period.0),
            After::Quantile(percent) => quantile(percent),
        }
    }

    /// The setting.
    #[must_use]
    pub const fn after(&self) -> After {
        self.after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(written: &str, shown: Result<&str, &str>) {
        match (written.parse::<After>(), shown) {
            (Ok(after), Ok(expected)) => assert_eq!(after.to_string(), expected),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (parsed, expected) => panic!("{written}: {parsed:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn a_delay_is_a_time_or_a_quantile() {
        check("50ms", Ok("50ms"));
        check("p95", Ok("p95"));
        check("p49", Err("p50"));
        check("p100", Err("p50"));
        check("50", Err("needs a unit"));
        check("pears", Err("p50"));
    }

    #[test]
    fn only_safe_methods_without_a_body_are_hedged() {
        let hedge = Hedge { after: After::Quantile(95) };
        let known = |_| Some(Duration::from_millis(40));
        assert_eq!(hedge.delay(&Method::GET, false, known), Some(Duration::from_millis(40)));
        assert_eq!(hedge.delay(&Method::GET, true, known), None);
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::TRACE] {
            assert_eq!(hedge.delay(&method, false, known), None, "{method}");
        }
        assert_eq!(hedge.delay(&Method::GET, false, |_| None), None, "nothing is known yet");
    }
}
