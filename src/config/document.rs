//! What an operator may write: the root of the configuration, as serde types. Their documentation is the reference.
//!
//! Unknown keys, wrong types and missing units are found before this is read (`config::walk`), all at once and with
//! their places; what settings mean together is checked by `snapshot::compile`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::listener::{Limits, Protocol, TlsVersion};
use crate::model::shape::Both;
use crate::model::source::Spanned;
use crate::model::toggle::Toggle;
use crate::model::units::Period;
use crate::policy::validate::openapi;
use crate::policy::{RoutePolicies, rate_limit};
use crate::routing::MatchConfig;
use crate::telemetry;
use crate::upstream;

/// A whole configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Document {
    /// Worker threads, each with its own connections. Default: one for each processor. Read at start only.
    pub workers: Option<Spanned<u16>>,
    /// How long requests in flight may take to end after SIGTERM.
    pub grace_period: Option<Period>,
    /// Whose `X-Forwarded-*` and `Forwarded` fields are believed: addresses or prefixes. Default: nobody's.
    pub trusted_proxies: Vec<Spanned<String>>,
    /// Metrics, health and the admin API. `false` switches them off. Default: on `127.0.0.1:9901`.
    pub admin: Option<Spanned<Toggle<AdminConfig>>>,
    /// Logs.
    pub telemetry: telemetry::Config,
    /// Where clients connect.
    pub listener: Vec<Spanned<ListenerConfig>>,
    /// Where requests go, by name.
    pub upstream: BTreeMap<String, Spanned<upstream::Config>>,
    /// Who callers are. Default: nobody is known by name.
    pub consumers: Option<Spanned<ConsumersConfig>>,
    /// Rate limits that routes share, by name. A route counts in one by `rate_limit = "NAME"`, beside limits of its own if
    /// it likes.
    pub rate_limit: BTreeMap<String, Spanned<rate_limit::NamedConfig>>,
    /// Where gateways add up what they let through, by name.
    pub rate_limit_store: BTreeMap<String, Spanned<rate_limit::StoreConfig>>,
    /// Descriptions of APIs, by name; routes judge requests by them (`validate.openapi`).
    pub openapi: BTreeMap<String, Spanned<openapi::Config>>,
    /// Policies that every route inherits, key by key.
    pub defaults: RoutePolicies,
    /// Named sets of policies for `use`; they lie between the defaults and the route.
    pub profile: BTreeMap<String, Spanned<RoutePolicies>>,
    /// What is served.
    pub route: Vec<Spanned<RouteConfig>>,
}

/// `[admin]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AdminConfig {
    /// Address and port. Port 0 lets the system choose.
    pub address: Spanned<String>,
    /// What writes must carry as `Authorization: Bearer TOKEN`. Needed when the address is not a loopback one.
    pub token: Option<String>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { address: Spanned { value: "127.0.0.1:9901".into(), ..Spanned::default() }, token: None }
    }
}

/// `[consumers]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConsumersConfig {
    /// The file with a `[consumer.NAME]` for each: TOML, YAML or JSON by its extension, beside this one, and watched as this
    /// one is. It is a file of its own because others may keep it, and because it changes more often.
    pub file: Spanned<String>,
}

/// `[[listener]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListenerConfig {
    /// Names it in logs and metrics. Default: its address.
    pub name: Option<Spanned<String>>,
    /// Address and port, as in `"0.0.0.0:8080"` or `"[::]:8080"`. Port 0 lets the system choose.
    pub address: Spanned<String>,
    /// HTTP versions. Default: HTTP/1 in clear, both over TLS.
    pub protocols: Option<Spanned<Vec<Protocol>>>,
    /// What a client may cost.
    #[serde(default)]
    pub limits: Limits,
    /// Serves HTTPS.
    pub tls: Option<Spanned<TlsConfig>>,
}

/// `[listener.tls]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TlsConfig {
    /// Certificates, chosen by the name that the client asks for (SNI); the first one serves all others. The files are
    /// watched and read again when they change.
    #[schemars(length(min = 1))]
    pub certificates: Vec<Spanned<CertificateConfig>>,
    /// The lowest version of TLS.
    #[serde(default)]
    pub min_version: TlsVersion,
    /// Certificate authorities for clients, PEM.
    pub client_ca: Option<Spanned<String>>,
    /// Whether clients must show a certificate. Default: `required` when `client_ca` is set.
    pub client_auth: Option<Spanned<ClientAuth>>,
}

/// A certificate chain and its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CertificateConfig {
    /// PEM file: the certificate first, then intermediates.
    pub chain: Spanned<String>,
    /// PEM file of the private key.
    pub key: Spanned<String>,
}

/// Whether clients show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// No handshake without a certificate that `client_ca` vouches for.
    Required,
    /// A certificate is verified when the client shows one.
    Optional,
}

/// `[[route]]`: what it is, and its policies.
pub type RouteConfig = Both<RouteHead, RoutePolicies>;

/// What a route is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RouteHead {
    /// Names it in logs and metrics. Default: what it matches.
    pub name: Option<Spanned<String>>,
    /// Which requests it takes.
    pub r#match: Spanned<MatchConfig>,
    /// Where they go: a name, a URL, or a weighted split. `"demo"` is the built-in demo app.
    pub upstream: Option<Spanned<upstream::split::Config>>,
    /// Profiles, the later ones over the earlier.
    #[serde(default)]
    pub r#use: Vec<Spanned<String>>,
    /// Leaves the path as it was received, also when it hides delimiters behind percent-encoding.
    #[serde(default)]
    pub raw_path: bool,
}
