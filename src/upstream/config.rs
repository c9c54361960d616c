//! `[upstream.NAME]` as it is written. What is made of it is decided in `compile`.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::health::{HealthCheckConfig, OutlierConfig};
use super::{breaker, concurrency};
use crate::model::key::Keys;
use crate::model::source::{SourceSpan, Spanned};
use crate::model::toggle::{False, OrOff, Toggle};
use crate::model::units::{Percent, Period};

/// A group of endpoints that serve the same thing.
///
/// A route names it (`upstream = "api"`), or writes an address instead (`upstream = "http://127.0.0.1:3000"`), which
/// is an upstream of one endpoint with the defaults. `upstream = "demo"` is the built-in demo application; no
/// `[upstream.demo]` can be defined.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Config {
    /// Where the endpoints are, 1 to 1024 of them: `"http://HOST:PORT"`, `"https://HOST:PORT"` or `"unix:/PATH"`, or
    /// `{ url = "...", weight = 2 }`. Each address that a name resolves to counts as an endpoint with the whole
    /// weight. Names are resolved in the background, again whenever their TTL (held between 1 second and 5 minutes) is
    /// over; while a name can't be resolved its last known addresses stay.
    pub endpoints: Vec<Spanned<EndpointConfig>>,
    /// Which endpoint the next request goes to: `"round_robin"`, `"least_request"`, `"ewma"`, `"random"` or
    /// `{ hash = KEY }`.
    #[serde(default)]
    pub balance: Spanned<Balance>,
    /// How long a connection may take to be usable: TCP, TLS and HTTP/2 handshakes together.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout: Spanned<Period>,
    /// Which idle connections are kept for the next request.
    #[serde(default)]
    pub pool: PoolConfig,
    /// Which version of HTTP the endpoints speak.
    #[serde(default)]
    pub protocol: Protocol,
    /// How `https://` endpoints are verified, and how the gateway shows who it is. Verification can't be switched off.
    #[serde(default)]
    pub tls: Option<Spanned<TlsConfig>>,
    /// Whether requests are held back while the upstream fails: `true` for the defaults, or a table. Off unless it is
    /// written: a breaker refuses requests that might have succeeded, and how many failures are normal only the
    /// operator knows.
    #[serde(default = "no_breaker")]
    pub breaker: Spanned<Toggle<breaker::Config>>,
    /// How many requests may be under way at once, and how many wait for a place; `false` for no limit.
    #[serde(default = "no_concurrency")]
    pub concurrency: Spanned<OrOff<concurrency::Config>>,
    /// Checks by which endpoints are found healthy or not before requests meet them: `{ path = "/healthz" }`,
    /// `{ tcp = true }` or `{ grpc = "SERVICE" }`. Default: none.
    #[serde(default)]
    pub health_check: Option<Spanned<HealthCheckConfig>>,
    /// Endpoints whose answers fail are left out for a while. Default: none is.
    #[serde(default)]
    pub outlier: Option<Spanned<OutlierConfig>>,
    /// How long an endpoint that gets requests again (healthy, no longer ejected, enabled, or new beside others) takes
    /// to its whole share: its weight grows evenly from a tenth. With `balance = { hash = ... }` its keys come back one
    /// after the other; with `"least_request"` and `"ewma"` it may get up to twice that share while it is idle. When all
    /// endpoints start at once their shares are what they always are. Default: at once.
    #[serde(default)]
    pub slow_start: Option<Spanned<Period>>,
    /// When less than this share of the endpoints is healthy, requests go to unhealthy and ejected ones too: what is
    /// left would be overrun, and a check may err. Drained endpoints neither count nor get any. Default: 0%, where requests
    /// are refused (503 `no_healthy_endpoint`) or answered by a fallback once no endpoint is healthy.
    #[serde(default)]
    pub panic_threshold: Option<Spanned<Percent>>,
}

impl Config {
    /// What an address on a route stands for: one endpoint, everything else by default.
    #[must_use]
    pub fn inline(url: &Spanned<String>) -> Self {
        let endpoint = EndpointConfig { url: url.value.clone(), weight: 1 };
        Self {
            endpoints: vec![Spanned::new(endpoint, url.span)],
            balance: Spanned::default(),
            connect_timeout: default_connect_timeout(),
            pool: PoolConfig::default(),
            protocol: Protocol::default(),
            tls: None,
            breaker: no_breaker(),
            concurrency: no_concurrency(),
            health_check: None,
            outlier: None,
            slow_start: None,
            panic_threshold: None,
        }
    }
}

fn no_breaker() -> Spanned<Toggle<breaker::Config>> {
    Spanned { value: Toggle::Switch(false), span: SourceSpan::default() }
}

fn no_concurrency() -> Spanned<OrOff<concurrency::Config>> {
    Spanned { value: OrOff::Off(False), span: SourceSpan::default() }
}

pub(super) fn default_connect_timeout() -> Spanned<Period> {
    Spanned { value: Period::from_secs(2), ..Spanned::default() }
}

/// One endpoint: its address alone, or a table with a weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointConfig {
    /// `http://HOST:PORT`, `https://HOST:PORT` or `unix:/PATH`.
    pub url: String,
    /// Its share relative to the other endpoints, 1 to 1000; default 1.
    pub weight: u32,
}

/// The table form of [`EndpointConfig`].
#[derive(Deserialize, JsonSchema)]
struct EndpointTable {
    /// `http://HOST:PORT`, `https://HOST:PORT` or `unix:/PATH`.
    url: String,
    /// The share of this endpoint relative to the others, 1 to 1000.
    #[serde(default = "default_weight")]
    #[schemars(range(min = 1, max = 1000))]
    weight: u32,
}

const fn default_weight() -> u32 {
    1
}

impl<'de> Deserialize<'de> for EndpointConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EndpointVisitor;

        impl<'de> Visitor<'de> for EndpointVisitor {
            type Value = EndpointConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address such as \"http://10.0.0.1:3000\", or { url = \"...\", weight = 2 }")
            }

            fn visit_str<E: de::Error>(self, url: &str) -> Result<EndpointConfig, E> {
                Ok(EndpointConfig { url: url.to_owned(), weight: default_weight() })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<EndpointConfig, A::Error> {
                let EndpointTable { url, weight } = Deserialize::deserialize(MapAccessDeserializer::new(map))?;
                Ok(EndpointConfig { url, weight })
            }
        }

        deserializer.deserialize_any(EndpointVisitor)
    }
}

impl Serialize for EndpointConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.weight == default_weight() {
            return serializer.serialize_str(&self.url);
        }
        let mut table = serializer.serialize_map(Some(2))?;
        table.serialize_entry("url", &self.url)?;
        table.serialize_entry("weight", &self.weight)?;
        table.end()
    }
}

impl JsonSchema for EndpointConfig {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Endpoint".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string", "examples": ["http://10.0.0.1:3000"] },
                generator.subschema_for::<EndpointTable>(),
            ],
        })
    }
}

/// Which endpoint the next request goes to. A weight is honoured by every choice.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// Each in its turn, those of greater weight more often and evenly spread.
    #[default]
    RoundRobin,
    /// The one with fewer requests under way, of two drawn at random.
    LeastRequest,
    /// The one with the lower latency lately (a moving average that follows peaks at once) times its requests under
    /// way, of two drawn at random.
    Ewma,
    /// One drawn at random.
    Random,
    /// The same one for the same key, as long as it is there: when an endpoint comes or goes, only the requests move
    /// that it gains or loses. A request without any of the keys goes to one drawn at random.
    Hash(Keys),
}

/// Idle connections that are kept for the next request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PoolConfig {
    /// How many idle connections are kept per endpoint and worker thread, at most; 0 keeps none.
    pub idle: Spanned<u32>,
    /// How long an idle connection is kept. Below the idle timeout of the endpoint, few requests meet a connection
    /// that is just being closed.
    pub idle_timeout: Spanned<Period>,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            idle: Spanned { value: 64, ..Spanned::default() },
            idle_timeout: Spanned { value: Period::from_secs(60), ..Spanned::default() },
        }
    }
}

/// Which version of HTTP the endpoints speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Over TLS what the endpoint chooses by ALPN, HTTP/2 first; HTTP/1.1 in clear.
    #[default]
    Auto,
    /// HTTP/1.1.
    H1,
    /// HTTP/2; in clear with prior knowledge (RFC 9113 §3.3).
    H2,
}

/// TLS towards the endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TlsConfig {
    /// PEM file with the authorities that the endpoints' certificates are checked against; default: those of the
    /// system.
    pub ca: Option<Spanned<String>>,
    /// The name (or IP address) that the certificates must be for, also sent as SNI; default: each endpoint's host.
    pub server_name: Option<Spanned<String>>,
    /// What the gateway shows to endpoints that ask who it is.
    pub client_certificate: Option<ClientCertificate>,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClientCertificate {
    /// PEM file with the certificate and those between it and its authority.
    pub chain: Spanned<String>,
    /// PEM file with the private key.
    pub key: Spanned<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<T: for<'de> Deserialize<'de> + Serialize>(written: &str, shown: Option<&str>) {
        let read = serde_json::from_str::<T>(written);
        let again = read.as_ref().ok().map(|value| serde_json::to_string(value).expect("text"));
        assert_eq!(again.as_deref(), shown, "{written}");
    }

    #[test]
    fn an_endpoint_is_an_address_or_a_table() {
        check::<EndpointConfig>(r#""http://a""#, Some(r#""http://a""#));
        check::<EndpointConfig>(r#"{"url":"http://a"}"#, Some(r#""http://a""#));
        check::<EndpointConfig>(r#"{"url":"http://a","weight":2}"#, Some(r#"{"url":"http://a","weight":2}"#));
        check::<EndpointConfig>(r#"{"weight":2}"#, None);
        check::<EndpointConfig>("7", None);
    }

    #[test]
    fn balance_is_a_word_or_a_hash_with_its_key() {
        for word in ["round_robin", "least_request", "ewma", "random"] {
            check::<Balance>(&format!("\"{word}\""), Some(&format!("\"{word}\"")));
        }
        check::<Balance>(r#"{"hash":"header:X-Tenant"}"#, Some(r#"{"hash":"header:x-tenant"}"#));
        check::<Balance>(r#"{"hash":["host","path"]}"#, Some(r#"{"hash":["host","path"]}"#));
        check::<Balance>(r#""hash""#, None);
        check::<Balance>(r#"{"hash":"tenant"}"#, None);
        check::<Balance>(r#""fastest""#, None);
    }

    #[test]
    fn a_misread_endpoint_says_what_was_expected() {
        let error = serde_json::from_str::<EndpointConfig>("7").expect_err("a number is no endpoint").to_string();
        assert!(error.contains("an address such as"), "{error}");
    }

    #[test]
    fn the_schema_states_the_defaults() {
        let schema = serde_json::to_value(schemars::schema_for!(Config)).expect("a schema");
        for (setting, default) in [
            ("balance", serde_json::json!("round_robin")),
            ("connect_timeout", serde_json::json!("2s")),
            ("pool", serde_json::json!({ "idle": 64, "idle_timeout": "1m" })),
            ("protocol", serde_json::json!("auto")),
            ("breaker", serde_json::json!(false)),
            ("concurrency", serde_json::json!(false)),
        ] {
            assert_eq!(schema["properties"][setting]["default"], default, "{setting}: {schema:#}");
        }
        assert_eq!(schema["required"], serde_json::json!(["endpoints"]));
    }
}
