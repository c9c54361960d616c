//! Quantities that carry their unit in the configuration: `"250ms"`, `"64KiB"`, `"100/s"`, `"20%"`.
//!
//! A bare number is refused everywhere: whether `30` meant seconds or milliseconds is the commonest misreading of
//! a configuration file.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a quantity was refused: lower case, ends with what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnitError(String);

/// A length of time, as in `"250ms"`, `"30s"`, `"5m"`, `"1h 30m"`. At most ten years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Period(pub Duration);

impl Period {
    const MAX: Duration = Duration::from_hours(10 * 366 * 24);

    /// A period of whole milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// A period of whole seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }
}

impl FromStr for Period {
    type Err = UnitError;

    fn from_str(written: &str) -> Result<Self, UnitError> {
        if written.trim().parse::<f64>().is_ok() {
            return Err(UnitError(format!(
                "a duration needs a unit, as in \"{}s\" or \"{}ms\"",
                written.trim(),
                written.trim()
            )));
        }
        let duration = humantime::parse_duration(written.trim())
            .map_err(|_| UnitError(format!("not a duration such as \"250ms\", \"30s\" or \"5m\": {written:?}")))?;
        if duration > Self::MAX {
            return Err(UnitError(format!("longer than ten years: {written:?}")));
        }
        Ok(Self(duration))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = humantime::format_duration(self.0).to_string();
        f.write_str(&text.replace(' ', ""))
    }
}

/// A number of bytes, as in `"64KiB"` (1024) or `"10MB"` (1000).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// A size of whole kibibytes.
    #[must_use]
    pub const fn kib(kib: u64) -> Self {
        Self(kib * 1024)
    }

    /// A size of whole mebibytes.
    #[must_use]
    pub const fn mib(mib: u64) -> Self {
        Self(mib * 1024 * 1024)
    }

    /// The size as a length in memory; the largest there is when it does not fit.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(written: &str) -> Result<Self, UnitError> {
        let trimmed = written.trim();
        if trimmed.parse::<f64>().is_ok() {
            return Err(UnitError(format!("a size needs a unit, as in \"{trimmed}KiB\" or \"{trimmed}B\"")));
        }
        let size = trimmed
            .parse::<bytesize::ByteSize>()
            .map_err(|_| UnitError(format!("not a size such as \"64KiB\" or \"10MB\": {written:?}")))?;
        Ok(Self(size.as_u64()))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        for (factor, unit) in UNITS {
            if self.0 >= factor && self.0.is_multiple_of(factor) {
                return write!(f, "{}{unit}", self.0 / factor);
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// Bytes per second, as in `"1KiB/s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteRate(pub ByteSize);

impl FromStr for ByteRate {
    type Err = UnitError;

    fn from_str(written: &str) -> Result<Self, UnitError> {
        let size = written
            .trim()
            .strip_suffix("/s")
            .ok_or_else(|| UnitError(format!("not a byte rate such as \"1KiB/s\": {written:?}")))?;
        Ok(Self(size.parse()?))
    }
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

/// So many in so much time, as in `"100/s"`, `"5000/h"` or `"20/10s"`: at least 1 and at most 1,000,000 a second, in a time
/// of at most 366 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    amount: u32,
    per: Duration,
}

impl Rate {
    const MAX_PER: Duration = Duration::from_hours(366 * 24);

    /// How many.
    #[must_use]
    pub const fn amount(self) -> u32 {
        self.amount
    }

    /// In how much time.
    #[must_use]
    pub const fn per(self) -> Duration {
        self.per
    }
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(written: &str) -> Result<Self, UnitError> {
        let unknown = || UnitError(format!("not a rate such as \"100/s\", \"5000/h\" or \"20/10s\": {written:?}"));
        let (amount, per) = written.trim().split_once('/').ok_or_else(unknown)?;
        let (amount, per) = (amount.trim(), per.trim());
        // `s` is short for `1s`
        let period = if per.starts_with(|first: char| first.is_ascii_digit()) {
            humantime::parse_duration(per)
        } else {
            humantime::parse_duration(&format!("1{per}"))
        };
        let per = period.map_err(|_| unknown())?;
        let amount: u64 = amount.parse().map_err(|_| unknown())?;
        if per.is_zero() || per > Self::MAX_PER {
            return Err(UnitError(format!("a rate is per time of at most 366 days, and not of none: {written:?}")));
        }
        let fastest = per.as_micros();
        match u32::try_from(amount) {
            Ok(amount) if amount > 0 && u128::from(amount) <= fastest => Ok(Self { amount, per }),
            _ => Err(UnitError(format!("a rate is at least 1 and at most 1000000 a second: {written:?}"))),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Period(self.per).to_string();
        let unit = ["1s", "1m", "1h", "1day"].into_iter().find(|unit| *unit == text);
        write!(f, "{}/{}", self.amount, unit.map_or(text.as_str(), |unit| unit.get(1..2).unwrap_or_default()))
    }
}

/// A share of a whole, as in `"20%"` or `"0.5%"`; 0 to 100. Held in millionths, so that it stays `Eq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Percent(u32);

impl Percent {
    /// A share in whole hundredths, at most all.
    #[must_use]
    pub const fn whole(hundredths: u8) -> Self {
        let hundredths = if hundredths > 100 { 100 } else { hundredths };
        Self(hundredths as u32 * 10_000)
    }

    /// The share from 0 to 1.
    #[must_use]
    pub fn ratio(self) -> f64 {
        f64::from(self.0) / 1_000_000.0
    }

    /// Whether `part` is at least this share of `whole`; decided in whole numbers, so that 1 of 3 is never a rounding
    /// away from what was written.
    #[must_use]
    pub fn is_reached(self, part: u64, whole: u64) -> bool {
        u128::from(part) * 1_000_000 >= u128::from(whole) * u128::from(self.0)
    }

    /// Whether `part` is at most this share of `whole`; as exact as [`Percent::is_reached`].
    #[must_use]
    pub fn covers(self, part: u64, whole: u64) -> bool {
        u128::from(part) * 1_000_000 <= u128::from(whole) * u128::from(self.0)
    }
}

impl FromStr for Percent {
    type Err = UnitError;

    fn from_str(written: &str) -> Result<Self, UnitError> {
        let share = written
            .trim()
            .strip_suffix('%')
            .and_then(|number| number.trim().parse::<f64>().ok())
            .ok_or_else(|| UnitError(format!("not a share such as \"20%\": {written:?}")))?;
        if !(0.0..=100.0).contains(&share) {
            return Err(UnitError(format!("a share is between 0% and 100%: {written:?}")));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked to be within 0..=100 above"
        )]
        Ok(Self((share * 10_000.0).round() as u32))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.0) / 10_000.0)
    }
}

macro_rules! string_unit {
    ($name:ident, $format:literal, $description:literal, $example:literal) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": $format, "description": $description, "examples": [$example] })
            }
        }
    };
}

string_unit!(Period, "period", "A length of time with its unit.", "30s");
string_unit!(ByteSize, "byte-size", "A number of bytes with its unit.", "64KiB");
string_unit!(ByteRate, "byte-rate", "Bytes per second with their unit.", "1KiB/s");
string_unit!(Rate, "rate", "So many in so much time.", "100/s");
string_unit!(Percent, "percent", "A share of a whole.", "20%");

/// Checks `written` against the unit that a schema's `format` names; `None` when the format is not one of ours.
#[must_use]
pub fn check_format(format: &str, written: &str) -> Option<Result<(), UnitError>> {
    match format {
        "period" => Some(written.parse::<Period>().map(drop)),
        "byte-size" => Some(written.parse::<ByteSize>().map(drop)),
        "byte-rate" => Some(written.parse::<ByteRate>().map(drop)),
        "rate" => Some(written.parse::<Rate>().map(drop)),
        "percent" => Some(written.parse::<Percent>().map(drop)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<T: FromStr<Err = UnitError> + fmt::Display>(written: &str, shown: Result<&str, &str>) {
        match (written.parse::<T>(), shown) {
            (Ok(value), Ok(expected)) => assert_eq!(value.to_string(), expected),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (Ok(value), Err(part)) => panic!("{written} was read as {value}, expected an error with {part:?}"),
            (Err(error), Ok(_)) => panic!("{written} was refused: {error}"),
        }
    }

    #[test]
    fn durations_need_a_unit() {
        check::<Period>("250ms", Ok("250ms"));
        check::<Period>("5m", Ok("5m"));
        check::<Period>("1h 30m", Ok("1h30m"));
        check::<Period>("30", Err("needs a unit"));
        check::<Period>("-3s", Err("not a duration"));
        check::<Period>("9999999h", Err("ten years"));
    }

    #[test]
    fn sizes_need_a_unit() {
        check::<ByteSize>("64KiB", Ok("64KiB"));
        check::<ByteSize>("10MB", Ok("10000000B"));
        check::<ByteSize>("1024", Err("needs a unit"));
        check::<ByteSize>("x", Err("not a size"));
        check::<ByteRate>("1KiB/s", Ok("1KiB/s"));
        check::<ByteRate>("1KiB", Err("byte rate"));
    }

    #[test]
    fn rates_are_so_many_in_so_much_time() {
        check::<Rate>("100/s", Ok("100/s"));
        check::<Rate>("1000 / m", Ok("1000/m"));
        check::<Rate>("60/min", Ok("60/m"));
        check::<Rate>("5000/h", Ok("5000/h"));
        check::<Rate>("10/d", Ok("10/d"));
        check::<Rate>("20/10s", Ok("20/10s"));
        check::<Rate>("1000000/s", Ok("1000000/s"));
        check::<Rate>("1000001/s", Err("at most 1000000 a second"));
        check::<Rate>("0/s", Err("at least 1"));
        check::<Rate>("1/0s", Err("not of none"));
        check::<Rate>("1/400d", Err("366 days"));
        check::<Rate>("100", Err("not a rate"));
        check::<Rate>("1.5/s", Err("not a rate"));
        check::<Rate>("1/x", Err("not a rate"));
    }

    #[test]
    fn shares_are_between_none_and_all() {
        check::<Percent>("20%", Ok("20%"));
        check::<Percent>("0.5%", Ok("0.5%"));
        check::<Percent>("101%", Err("between"));
        check::<Percent>("0.2", Err("not a share"));
        check::<Percent>("NaN%", Err("between"));
        assert_eq!((Percent::whole(20), Percent::whole(101)), ("20%".parse().unwrap(), "100%".parse().unwrap()));
    }

    #[test]
    fn a_share_is_reached_by_exactly_that_part() {
        let half = Percent::whole(50);
        assert!(half.is_reached(10, 20) && !half.is_reached(9, 20) && half.is_reached(11, 20));
        let third: Percent = "33.3333%".parse().unwrap();
        assert!(third.is_reached(1, 3) && !third.is_reached(0, 1));
        assert!(half.covers(1, 2) && half.covers(1, 3) && !half.covers(2, 3) && half.covers(0, 0));
        assert!(Percent::default().is_reached(0, 0) && half.is_reached(u64::MAX, u64::MAX));
    }
}
