//! `rate_limit` and `[rate_limit.NAME]` as they are written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::key::Keys;
use crate::model::shape::{OneOrMany, deserialize_by_kind};
use crate::model::source::Spanned;
use crate::model::units::Rate;
use crate::model::verdict::Mode;

/// `rate_limit`: how many requests get through. One limit or a list of at most 16; a request has to fit into all of
/// them, and one that does not fit takes nothing from any. Each route counts by itself, also when the limits stand in
/// `[defaults]` or a profile; to count together, name a limit of `[rate_limit.NAME]`.
pub type Config = OneOrMany<Entry>;

/// One limit of a route: its settings, or the name of a limit that routes share.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "RateLimitEntry")]
pub enum Entry {
    /// The name of a `[rate_limit.NAME]`.
    Name(Spanned<String>),
    /// Its settings.
    Limit(Box<Spanned<LimitConfig>>),
}

deserialize_by_kind!(Entry, "the name of a limit or its settings" { String => Name, Table => Limit });

/// A limit of a route: `key` and `rate`, or `limit`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "RateLimit")]
pub struct LimitConfig {
    /// The `[rate_limit.NAME]` to count in, instead of `key`, `rate`, `burst`, `max_keys`, `store` and
    /// `name`. The other keys, where
    /// they are written, hold instead of those of the named limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Spanned<String>>,
    /// Names the limit in fields of responses, reasons and metrics: at most 64 visible ASCII
    /// characters without `"`, `\` and `@`. Default: its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Spanned<String>>,
    /// What is counted apart: a key, or a list of keys that count together. Requests that have no value for any of the keys
    /// share one bucket. A limit by `principal` or `jwt:CLAIM` is asked after authentication, any other before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Spanned<Keys>>,
    /// How fast a used bucket refills: `"100/s"`, `"1000/m"`, `"5000/h"`, `"10/d"` or `"20/10s"`, at most a million a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Spanned<Rate>>,
    /// How much a bucket holds, and so how many requests may come at once. Default: the number in `rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<Spanned<u32>>,
    /// How many keys have a bucket of their own, at most, 1 to 16777216; a million take about 55 MB. When all of them are
    /// in use, further keys share one bucket. Default: 250000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_keys: Option<Spanned<u32>>,
    /// The `[rate_limit_store.NAME]` in which all gateways count together. Default: each gateway counts by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<Spanned<String>>,
    /// What a request takes from its bucket: a number, or `{ response_header = "x-cost" }` for what the upstream says that
    /// it took. Default: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Spanned<Cost>>,
    /// `"enforce"` refuses with 429 `rate_limited`; `"report"` lets the request go on and counts `would_reject`. Default:
    /// `"enforce"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Requests that the limit does not hold for, and does not count. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exempt: Option<Spanned<Exempt>>,
    /// Whether responses tell the client how the limit stands, in `RateLimit` and `RateLimit-Policy`. A limit that only
    /// reports never does. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<bool>,
}

/// `[rate_limit.NAME]`: a limit that several routes count in. A route takes part by `rate_limit = "NAME"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "NamedRateLimit")]
pub struct NamedConfig {
    /// What is counted apart: a key, or a list of keys that count together. Requests that have no value for any of the keys
    /// share one bucket.
    pub key: Spanned<Keys>,
    /// How fast a used bucket refills: `"100/s"`, `"1000/m"`, `"5000/h"`, `"10/d"` or `"20/10s"`, at most a million a second.
    pub rate: Spanned<Rate>,
    /// How much a bucket holds, and so how many requests may come at once. Default: the number in `rate`.
    pub burst: Option<Spanned<u32>>,
    /// How many keys have a bucket of their own, at most, 1 to 16777216. Default: 250000.
    pub max_keys: Option<Spanned<u32>>,
    /// The `[rate_limit_store.NAME]` in which all gateways count together. Default: each gateway counts by itself.
    pub store: Option<Spanned<String>>,
    /// What a request takes from its bucket. Default: 1.
    pub cost: Option<Spanned<Cost>>,
    /// `"enforce"` or `"report"`. Default: `"enforce"`.
    pub mode: Option<Mode>,
    /// Requests that the limit does not hold for, and does not count. Default: none.
    pub exempt: Option<Spanned<Exempt>>,
    /// Whether responses tell the client how the limit stands. Default: true.
    pub headers: Option<bool>,
}

/// What a request takes from its bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "RateLimitCost")]
pub enum Cost {
    /// So many, from 1 to the burst.
    Units(u32),
    /// The same in quotes.
    Text(String),
    /// What the response says.
    Response(PostPaid),
}

deserialize_by_kind!(Cost, "a number or { response_header = \"...\" }" { Number => Units, String => Text, Table => Response });

/// A cost that is known only when the upstream has answered. The response may overdraw the bucket, by ten bursts at most;
/// further requests then wait until it has refilled that far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "PostPaidCost")]
pub struct PostPaid {
    /// The field of the upstream's response that says what the request took: a whole number, 0 included.
    pub response_header: Spanned<String>,
    /// What a request takes when it is admitted, and in the end when no response says otherwise. The difference is taken or
    /// put back when the response comes.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub default: u32,
}

const fn one() -> u32 {
    1
}

/// Requests that a limit does not hold for: any of these.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "RateLimitExemption")]
pub struct Exempt {
    /// Client addresses and prefixes, such as `"10.0.0.0/8"`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub client: Vec<Spanned<String>>,
    /// Groups of the authenticated caller. A limit that names groups is asked after authentication.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Spanned<String>>,
}
