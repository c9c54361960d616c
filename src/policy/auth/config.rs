//! The settings of `auth`, and what is made of them when the configuration is read. Decides nothing about requests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::certificate::CertificateName;
use super::consumers::Consumers;
use super::forward::{Forward, OnError};
use super::identity::{self, Identity};
use super::keys::{Algorithm, Freshness, KeyRing, KeySource};
use super::token::{Place, Rules};
use super::{ApiKey, Auth, Basic};
use crate::model::credential::is_credential;
use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::fields;
use crate::model::shape::OneOrMany;
use crate::model::source::{SourceSpan, Spanned};
use crate::model::toggle::Toggle;
use crate::model::units::Period;
use crate::model::verdict::Mode;

/// `auth`: who may use the route. Any one of the methods is enough. A request that none of them accepts gets 401
/// `unauthenticated` with a challenge for each; one that is known but not in `groups` gets 403 `forbidden`; where the answer
/// can't be found out (no keys of an issuer, no answer of a service), 503 `auth_unavailable`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// API keys of the consumers file. Default: none are taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key: Option<Spanned<ApiKeyConfig>>,
    /// JSON Web Tokens (RFC 7519) of one issuer. Default: none are taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Spanned<JwtConfig>>,
    /// Names and passwords of the consumers file (RFC 7617): `true`, or how long an outcome is remembered. The user name is
    /// the consumer's. Passwords are checked off the worker threads, a few at a time. Default: none are taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic: Option<Spanned<Toggle<BasicConfig>>>,
    /// Certificates that a listener's `client_ca` vouches for: `true`, or which of their names counts. A consumer of that name
    /// gives its groups. Default: none are taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<Spanned<Toggle<CertificateConfig>>>,
    /// A service that is asked about each request that no other method settles. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward: Option<Spanned<ForwardConfig>>,
    /// Whether a request must say who it comes from. With `false` one without credentials goes on as nobody's; bad ones are
    /// refused all the same. Default: `true`.
    pub required: Spanned<bool>,
    /// Groups of which the caller must be in one, else 403. Default: everybody who is known may.
    pub groups: Vec<Spanned<String>>,
    /// What upstreams are told of the caller, by field: `"principal"` (the name), `"groups"` (joined by commas), `"method"` or
    /// `"claim:NAME"` of a token. What clients send in these fields is always removed, also spelled with `_`. Default:
    /// `{ x-portcullis-principal = "principal", x-portcullis-groups = "groups" }`.
    pub headers: BTreeMap<String, Spanned<String>>,
    /// The realm in challenges. Default: `"portcullis"`.
    pub realm: Spanned<String>,
    /// `"enforce"` refuses; `"report"` lets the request go on, as nobody's, and counts `would_reject`.
    pub mode: Mode,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            api_key: None,
            jwt: None,
            basic: None,
            client_certificate: None,
            forward: None,
            required: true.into(),
            groups: Vec::new(),
            headers: identity::default_headers(),
            realm: "portcullis".to_owned().into(),
            mode: Mode::Enforce,
        }
    }
}

/// `auth.api_key`: where a request has its key. The key does not go upstream.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ApiKeyConfig {
    /// A header field that is the key. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<Spanned<String>>,
    /// A parameter of the query. Its name must be one that logs hide, such as `api_key`, `key` or `token`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<Spanned<String>>,
}

/// `auth.jwt`: what a token must be like. Tokens are signed (RS, PS, ES or Ed25519; never `none` or HMAC), have an `exp`, and
/// are at most 16 KiB long; they go upstream as they came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JwtConfig {
    /// What `iss` must be, exactly.
    pub issuer: Spanned<String>,
    /// What `aud` must be or contain: one, or a list of which one is enough.
    pub audience: Spanned<OneOrMany<String>>,
    /// The issuer's keys as a JSON Web Key Set: a URL, or a file beside this one, which is watched.
    pub jwks: Spanned<String>,
    /// Algorithms that are accepted. Default: those that each key is made for. It is never the token that chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithms: Option<Spanned<Vec<Algorithm>>>,
    /// How far clocks may differ when `exp`, `nbf` and `iat` are judged; at most 5 minutes. Default: `"30s"`.
    #[serde(default = "leeway")]
    pub leeway: Spanned<Period>,
    /// Claims that must be there, each with the values of which it has to be, hold (in a list) or say (as a word of a text,
    /// as in `scope`) one; an empty list takes any value. Dots lead into nested claims. Default: none.
    #[serde(default)]
    pub claims: BTreeMap<String, Spanned<OneOrMany<String>>>,
    /// The claim that names the caller. Default: `"sub"`.
    #[serde(default = "subject")]
    pub principal_claim: Spanned<String>,
    /// The claim that names the caller's groups: a list, or words. Default: `"groups"`.
    #[serde(default = "groups_claim")]
    pub groups_claim: Spanned<String>,
    /// A field that has the token, with or without `Bearer`, instead of `Authorization`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<Spanned<String>>,
    /// A cookie that has the token, instead of `Authorization`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<Spanned<String>>,
    /// How often keys are fetched from a URL; a token with an unknown key id has them fetched at once, at most once a second.
    /// At least 1 s. Default: `"5m"`.
    #[serde(default = "refresh")]
    pub refresh: Spanned<Period>,
    /// How old keys may become while the issuer does not answer. Default: `"1h"`.
    #[serde(default = "max_stale")]
    pub max_stale: Spanned<Period>,
    /// How long a fetch may take, and a request wait for one. Default: `"3s"`.
    #[serde(default = "fetch_timeout")]
    pub timeout: Spanned<Period>,
}

fn leeway() -> Spanned<Period> {
    Period::from_secs(30).into()
}
fn subject() -> Spanned<String> {
    "sub".to_owned().into()
}
fn groups_claim() -> Spanned<String> {
    "groups".to_owned().into()
}
fn refresh() -> Spanned<Period> {
    Period::from_secs(300).into()
}
fn max_stale() -> Spanned<Period> {
    Period::from_secs(3600).into()
}
fn fetch_timeout() -> Spanned<Period> {
    Period::from_secs(3).into()
}

/// `auth.basic`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct BasicConfig {
    /// How long a right password is remembered, under a keyed hash; a wrong one at most 30 s. Default: `"5m"`.
    pub remember: Spanned<Period>,
    /// How long a request may wait for its password to be checked. Default: `"5s"`.
    pub timeout: Spanned<Period>,
}

impl Default for BasicConfig {
    fn default() -> Self {
        Self { remember: Period::from_secs(300).into(), timeout: Period::from_secs(5).into() }
    }
}

/// `auth.client_certificate`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CertificateConfig {
    /// The name that counts: `"common_name"`, or the first `"dns"`, `"email"` or `"uri"` of the alternative names. Default:
    /// `"common_name"`.
    pub name: CertificateName,
}

/// `auth.forward`: a service that is sent a `GET` without a body, with `X-Forwarded-Method`, `-Uri`, `-Host`, `-Proto` and `-For`.
/// 2xx lets the request in; 401 and 403 refuse it, with the service's `WWW-Authenticate`; anything else is no answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ForwardConfig {
    /// Its URL.
    pub url: Spanned<String>,
    /// How long its answer may take. Default: `"2s"`.
    #[serde(default = "forward_timeout")]
    pub timeout: Spanned<Period>,
    /// Fields of the request that it is told. Default: `["authorization", "cookie"]`.
    #[serde(default = "forward_request_headers")]
    pub request_headers: Vec<Spanned<String>>,
    /// Fields of its answer that go upstream; what clients send in them is removed. Default: none.
    #[serde(default)]
    pub copy_headers: Vec<Spanned<String>>,
    /// The field of its answer that names the caller. Default: none, and the caller has no name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<Spanned<String>>,
    /// The field of its answer that has the caller's groups, separated by commas. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Spanned<String>>,
    /// What follows when it gives no answer: `"deny"` refuses with 503, `"allow"` lets the request in as nobody's. Default:
    /// `"deny"`.
    #[serde(default)]
    pub on_error: OnError,
}

fn forward_timeout() -> Spanned<Period> {
    Period::from_secs(2).into()
}
fn forward_request_headers() -> Vec<Spanned<String>> {
    ["authorization", "cookie"].map(|name| name.to_owned().into()).into()
}

/// Finds the content of a file that a setting names.
pub type FileOf<'a> = dyn Fn(&Spanned<String>) -> Result<&'a [u8], String> + 'a;

/// What the settings refer to, apart from themselves.
pub struct Context<'a> {
    /// The consumers file, compiled.
    pub consumers: Option<&'a Arc<Consumers>>,
    /// Whether there is a consumers file at all: if so and it is not here, its own mistakes have been reported.
    pub has_consumers: bool,
    /// The content of a file that a setting names, or why there is none.
    pub file: &'a FileOf<'a>,
    /// The upstream that stands for an address (scheme, host and port) as it was written.
    pub upstream: &'a dyn Fn(&str) -> Option<usize>,
    /// Whether any listener asks clients for certificates.
    pub asks_for_certificates: bool,
    /// Rings of before and those made so far.
    pub rings: &'a mut Rings,
}

/// The key rings of a configuration.
#[derive(Debug, Default)]
pub struct Rings {
    previous: Vec<Arc<KeyRing>>,
    current: Vec<Arc<KeyRing>>,
}

impl Rings {
    /// No ring yet, and those of before to be taken over.
    #[must_use]
    pub fn after(previous: &[Arc<KeyRing>]) -> Self {
        Self { previous: previous.to_vec(), current: Vec::new() }
    }

    /// The rings that are in use.
    #[must_use]
    pub fn into_current(self) -> Vec<Arc<KeyRing>> {
        self.current
    }

    /// The ring of that source and these settings.
    pub(super) fn ring(&mut self, source: &KeySource, freshness: Freshness) -> Result<Arc<KeyRing>, &'static str> {
        let is_it = |ring: &&Arc<KeyRing>| ring.source() == source && ring.freshness() == freshness;
        if let Some(ring) = self.current.iter().find(is_it) {
            return Ok(Arc::clone(ring));
        }
        let ring = match (self.previous.iter().find(is_it), source) {
            (Some(ring), _) => Arc::clone(ring),
            (None, KeySource::Url { origin, target }) => Arc::new(KeyRing::of_url(origin, target, freshness)),
            (None, KeySource::File(content)) => Arc::new(KeyRing::of_file(content, freshness)?),
        };
        self.current.push(Arc::clone(&ring));
        Ok(ring)
    }
}

impl Config {
    /// The files that the settings name.
    pub fn files(&self) -> impl Iterator<Item = &Spanned<String>> {
        self.jwt.iter().map(|jwt| &jwt.jwks).filter(|jwks| split_url(jwks).is_none())
    }

    /// The addresses (scheme, host and port) of the services that are asked.
    pub fn services(&self) -> impl Iterator<Item = Spanned<String>> {
        let urls = self.jwt.iter().map(|jwt| &jwt.jwks).chain(self.forward.iter().map(|forward| &forward.url));
        urls.filter_map(|url| split_url(url).map(|(origin, _)| Spanned::new(origin.to_owned(), url.span)))
    }
}

/// Scheme, host and port, and then path and query, of a URL; `None` for what is none.
fn split_url(written: &str) -> Option<(&str, &str)> {
    let scheme = ["http://", "https://"]
        .iter()
        .find(|scheme| written.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))?;
    let rest = written.get(scheme.len()..)?;
    let end = rest.find(['/', '?', '#']).map_or(written.len(), |end| scheme.len() + end);
    written.split_at_checked(end)
}

/// Path and query as they are sent.
fn target(written: &Spanned<String>, diagnostics: &mut Diagnostics) -> Option<(Box<str>, Box<str>, HeaderValue)> {
    let Some((origin, rest)) = split_url(written) else {
        let message = format!("not a URL: {:?}", written.value);
        diagnostics.push(
            Diagnostic::error("bad_value", written.span, message).help("write http://HOST/PATH or https://HOST/PATH"),
        );
        return None;
    };
    let target = match rest {
        "" => "/".to_owned(),
        query if query.starts_with('?') => format!("/{query}"),
        path => path.to_owned(),
    };
    let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
    let is_sent = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    let authority = HeaderValue::from_str(authority).ok().filter(|_| target.bytes().all(is_sent));
    let Some(authority) = authority else {
        let message = format!("not a URL that can be asked: {:?}", written.value);
        let help = "it has no fragment, and what is not ASCII is percent-encoded";
        diagnostics.push(Diagnostic::error("bad_value", written.span, message).help(help));
        return None;
    };
    Some((origin.into(), target.into(), authority))
}

/// Reads the settings.
pub fn compile(config: &Spanned<Config>, context: &mut Context<'_>, diagnostics: &mut Diagnostics) -> Option<Auth> {
    let errors = diagnostics.errors();
    let certificate = config.client_certificate.as_ref().and_then(|written| {
        let settings = written.resolved()?;
        if !context.asks_for_certificates {
            diagnostics.push(
                Diagnostic::error("missing_key", written.span, "no listener asks clients for a certificate")
                    .help("set `client_ca` and `client_auth` in [listener.tls]"),
            );
        }
        Some(settings.name)
    });
    let api_key = config.api_key.as_ref().and_then(|written| {
        need_consumers(written.span, "api_key", context, diagnostics);
        compile_api_key(written, diagnostics)
    });
    let basic = config.basic.as_ref().and_then(|written| {
        let settings = written.resolved()?;
        need_consumers(written.span, "basic", context, diagnostics);
        Some(Basic { remember: settings.remember.0, timeout: settings.timeout.0 })
    });
    let jwt = config.jwt.as_ref().and_then(|written| compile_jwt(written, context, diagnostics));
    let forward = config.forward.as_ref().and_then(|written| compile_forward(written, context, diagnostics));
    let has_method = config.api_key.is_some() || config.jwt.is_some() || config.forward.is_some();
    if !has_method && certificate.is_none() && basic.is_none() {
        diagnostics.push(
            Diagnostic::error("missing_key", config.span, "authentication without a method")
                .help("give `api_key`, `jwt`, `basic`, `client_certificate` or `forward`; `auth = false` switches inherited settings off"),
        );
    }
    if let Some(group) = config.groups.first().filter(|_| !config.required.value) {
        diagnostics.push(
            Diagnostic::error("conflict", group.span, "`groups` where nobody has to say who they are")
                .related(config.required.span, "not required here")
                .help("nobody's request is in no group: leave `required` or `groups` out"),
        );
    }
    if config.realm.contains(|letter: char| matches!(letter, '"' | '\\') || !(' '..='~').contains(&letter)) {
        let message = format!("not a realm: {:?}", config.realm.value);
        let help = "a realm has visible ASCII characters without `\"` and `\\`";
        diagnostics.push(Diagnostic::error("bad_value", config.realm.span, message).help(help));
    }
    let identity = Identity::compile(&config.headers, diagnostics);
    (diagnostics.errors() == errors).then(|| Auth {
        certificate,
        api_key,
        jwt,
        basic,
        forward,
        consumers: context.consumers.cloned(),
        required: config.required.value,
        groups: config.groups.iter().map(|group| group.value.as_str().into()).collect(),
        identity,
        realm: config.realm.as_str().into(),
        mode: config.mode,
    })
}

fn need_consumers(span: SourceSpan, method: &str, context: &Context<'_>, diagnostics: &mut Diagnostics) {
    if !context.has_consumers {
        diagnostics.push(
            Diagnostic::error("missing_key", span, format!("`{method}` without consumers"))
                .help("name the file that knows them: [consumers] file = \"consumers.toml\""),
        );
    }
}

pub(super) fn compile_api_key(config: &Spanned<ApiKeyConfig>, diagnostics: &mut Diagnostics) -> Option<ApiKey> {
    if config.header.is_none() && config.query.is_none() {
        let missing = Diagnostic::error("missing_key", config.span, "an API key that stands nowhere");
        diagnostics.push(missing.help("write `header = \"x-api-key\"` or `query = \"api_key\"`"));
        return None;
    }
    let header = match &config.header {
        Some(name) => Some(fields::compile_name(name, name.span, diagnostics)?),
        None => None,
    };
    if let Some(query) = &config.query
        && (query.is_empty() || !is_credential(query.as_bytes()))
    {
        let message = format!("a name that logs would show with its value: {:?}", query.value);
        let help = "name the parameter as a credential, such as `api_key`, `key` or `token`: logs hide these, also other programs'";
        diagnostics.push(Diagnostic::error("bad_value", query.span, message).help(help));
        return None;
    }
    Some(ApiKey { header, query: config.query.as_ref().map(|name| name.as_str().into()) })
}

fn compile_jwt(config: &Spanned<JwtConfig>, context: &mut Context<'_>, diagnostics: &mut Diagnostics) -> Option<Rules> {
    let errors = diagnostics.errors();
    if config.audience.is_empty() {
        diagnostics.push(Diagnostic::error(
            "empty_list",
            config.audience.span,
            "no audience: no token could be for us",
        ));
    }
    if let Some(algorithms) = config.algorithms.as_ref().filter(|list| list.is_empty()) {
        diagnostics.push(Diagnostic::error("empty_list", algorithms.span, "no algorithm: no token could be accepted"));
    }
    if config.leeway.0 > Duration::from_mins(5) {
        let long = Diagnostic::error(
            "bad_value",
            config.leeway.span,
            format!("longer than 5 minutes: {}", config.leeway.value),
        );
        diagnostics.push(long.help("tokens would hold long after their end; set the clocks"));
    }
    if config.refresh.0 < Duration::from_secs(1) {
        let short =
            Diagnostic::error("bad_value", config.refresh.span, format!("shorter than 1s: {}", config.refresh.value));
        diagnostics.push(short.help("unknown key ids have the keys fetched anyway"));
    }
    let place = match (&config.header, &config.cookie) {
        (None, None) => Some(Place::Authorization),
        (Some(header), None) => fields::compile_name(header, header.span, diagnostics)
            .map(|name| if name == AUTHORIZATION { Place::Authorization } else { Place::Header(name) }),
        (None, Some(cookie)) => Some(Place::Cookie(cookie.as_str().into())),
        (Some(header), Some(cookie)) => {
            let both = Diagnostic::error("conflict", cookie.span, "the token stands in one place");
            diagnostics.push(both.related(header.span, "and here is another").help("keep one of them"));
            None
        }
    };
    let freshness = Freshness { refresh: config.refresh.0, max_stale: config.max_stale.0, timeout: config.timeout.0 };
    let source = key_source(&config.jwks, context, diagnostics);
    let ring = source.and_then(|source| {
        let ring = context.rings.ring(&source, freshness);
        ring.map_err(|why| {
            let help =
                "it is a JSON object with `keys`, of which one at least is an RSA, EC or Ed25519 key for signatures";
            diagnostics.push(
                Diagnostic::error("bad_keys", config.jwks.span, format!("{why}: {:?}", config.jwks.value)).help(help),
            );
        })
        .ok()
    });
    let (ring, place) = (ring?, place?);
    let boxed = |list: &OneOrMany<String>| list.iter().map(|text| text.as_str().into()).collect::<Vec<Box<str>>>();
    (diagnostics.errors() == errors).then(|| Rules {
        ring,
        issuer: config.issuer.as_str().into(),
        audiences: boxed(&config.audience),
        algorithms: config.algorithms.as_ref().map(|list| list.value.clone()),
        leeway: config.leeway.0,
        claims: config.claims.iter().map(|(name, allowed)| (name.as_str().into(), boxed(allowed))).collect(),
        principal_claim: config.principal_claim.as_str().into(),
        groups_claim: config.groups_claim.as_str().into(),
        place,
    })
}

fn key_source(jwks: &Spanned<String>, context: &Context<'_>, diagnostics: &mut Diagnostics) -> Option<KeySource> {
    if split_url(jwks).is_some() {
        let (origin, target, _) = target(jwks, diagnostics)?;
        // An address that is none was reported when its upstream was compiled.
        (context.upstream)(&origin)?;
        return Some(KeySource::Url { origin, target });
    }
    match (context.file)(jwks) {
        Ok(text) => Some(KeySource::File(text.into())),
        Err(why) => {
            diagnostics.push(Diagnostic::error("unreadable_file", jwks.span, why));
            None
        }
    }
}

fn compile_forward(
    config: &Spanned<ForwardConfig>,
    context: &Context<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Forward> {
    let errors = diagnostics.errors();
    let name = |written: &Spanned<String>, diagnostics: &mut Diagnostics| {
        fields::compile_name(written, written.span, diagnostics)
    };
    let request_headers: Vec<HeaderName> =
        config.request_headers.iter().filter_map(|written| name(written, diagnostics)).collect();
    let copied = |written: &Spanned<String>| identity::compile_name(written, written.span, diagnostics);
    let copy_headers: Vec<HeaderName> = config.copy_headers.iter().filter_map(copied).collect();
    if let (Some(groups), None) = (&config.groups, &config.principal) {
        let nobody = Diagnostic::error("missing_key", groups.span, "groups of a caller without a name are not kept");
        diagnostics.push(nobody.help("give `principal`, the field of the answer that names the caller"));
    }
    let principal = config.principal.as_ref().and_then(|written| name(written, diagnostics));
    let groups = config.groups.as_ref().and_then(|written| name(written, diagnostics));
    let (origin, target, authority) = target(&config.url, diagnostics)?;
    let upstream = (context.upstream)(&origin)?;
    (diagnostics.errors() == errors).then(|| Forward {
        upstream,
        authority,
        target: target.into(),
        timeout: config.timeout.0,
        request_headers,
        copy_headers,
        principal,
        groups,
        on_error: config.on_error,
    })
}
