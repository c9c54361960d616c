//! From `[upstream.NAME]` as written to an [`Upstream`], with every mistake reported.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;

use super::config::{Config, EndpointConfig, PoolConfig, TlsConfig};
use super::roster::Declared;
use super::url::EndpointUrl;
use super::{DEMO, GuardRules, Parts, Settings, Upstream, breaker, concurrency, health};
use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::ids::UpstreamName;
use crate::model::source::{Origin, SourceSpan, Sources, Spanned};
use crate::model::units::Period;

/// More endpoints than this are refused.
const MAX_ENDPOINTS: usize = 1024;
/// The greatest weight of an endpoint.
const MAX_WEIGHT: u32 = 1000;

impl Upstream {
    /// Compiles `[upstream.NAME]`. What `previous` (the upstream of that name before a reload) knows of the endpoints
    /// that stay lives on. `None` when an error was reported.
    pub fn compile(
        name: &Spanned<String>,
        config: &Config,
        previous: Option<&Self>,
        sources: &Sources,
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        let errors = diagnostics.errors();
        check_name(name, diagnostics);
        let compiled = Self::compile_parts(name, config, previous, sources, diagnostics);
        compiled.filter(|_| diagnostics.errors() == errors)
    }

    /// Compiles an address on a route into an upstream of that name, with the defaults.
    pub fn compile_inline(
        url: &Spanned<String>,
        previous: Option<&Self>,
        sources: &Sources,
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        Self::compile_parts(url, &Config::inline(url), previous, sources, diagnostics)
    }

    fn compile_parts(
        name: &Spanned<String>,
        config: &Config,
        previous: Option<&Self>,
        sources: &Sources,
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        let errors = diagnostics.errors();
        let declared = declared(name.span, config, diagnostics);
        let settings = settings(config, diagnostics);
        let guards = guards(config, diagnostics);
        let (health, health_origins) = health::compile(config, sources, diagnostics);
        if diagnostics.errors() > errors {
            return None;
        }
        let parts = Parts {
            origin: sources.origin(name.span),
            balance_origin: written_at(config.balance.span, sources),
            health_origins,
            settings,
            declared,
            balance: config.balance.value.clone(),
            health,
            guards,
        };
        Some(Self::assemble(UpstreamName::from(name.value.as_str()), parts, previous))
    }
}

/// The place of a setting that may be a default, which nobody wrote.
fn written_at(span: SourceSpan, sources: &Sources) -> Origin {
    if span == SourceSpan::default() { Origin::default() } else { sources.origin(span) }
}

fn check_name(name: &Spanned<String>, diagnostics: &mut Diagnostics) {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.value == DEMO {
        let message = format!("the name of the built-in demo application: {DEMO:?}");
        diagnostics.push(Diagnostic::error("reserved_name", name.span, message).help("choose another name"));
    } else if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
        let message = format!("not a name for an upstream: {:?}", name.value);
        let help = "a name has 1 to 64 letters, digits, `-`, `_` and `.`";
        diagnostics.push(Diagnostic::error("bad_value", name.span, message).help(help));
    }
}

fn declared(name: SourceSpan, config: &Config, diagnostics: &mut Diagnostics) -> Vec<Declared> {
    if config.endpoints.is_empty() {
        let help = "add an address, as in endpoints = [\"http://10.0.0.1:3000\"]";
        diagnostics.push(Diagnostic::error("bad_value", name, "an upstream without endpoints").help(help));
    }
    if config.endpoints.len() > MAX_ENDPOINTS {
        let message = format!("more than {MAX_ENDPOINTS} endpoints: {}", config.endpoints.len());
        let help = "use a name that resolves to them, or several upstreams and a split";
        diagnostics.push(Diagnostic::error("bad_value", name, message).help(help));
        return Vec::new();
    }
    let server_name = config.tls.as_ref().and_then(|tls| tls.server_name.as_ref());
    let mut seen: HashMap<EndpointUrl, SourceSpan> = HashMap::new();
    let mut declared = Vec::with_capacity(config.endpoints.len());
    for endpoint in &config.endpoints {
        let Some(url) = endpoint_url(endpoint, diagnostics) else { continue };
        if let Some(first) = seen.insert(url.clone(), endpoint.span) {
            let message = format!("an endpoint that is there already: {url}");
            let diagnostic =
                Diagnostic::error("duplicate", endpoint.span, message).related(first, "first written here");
            diagnostics.push(diagnostic.help("give one of them a weight instead: { url = \"...\", weight = 2 }"));
            continue;
        }
        let server_name = server_name.map_or_else(|| url.host(), |name| Arc::from(name.value.as_str()));
        declared.push(Declared { url, server_name, weight: endpoint.weight });
    }
    declared
}

fn endpoint_url(endpoint: &Spanned<EndpointConfig>, diagnostics: &mut Diagnostics) -> Option<EndpointUrl> {
    if !(1..=MAX_WEIGHT).contains(&endpoint.weight) {
        let message = format!("a weight is a number from 1 to {MAX_WEIGHT}: {}", endpoint.weight);
        let help = "leave an endpoint out that is to get no requests";
        diagnostics.push(Diagnostic::error("bad_value", endpoint.span, message).help(help));
    }
    match EndpointUrl::parse(&endpoint.url) {
        Ok(url) => Some(url),
        Err(error) => {
            let mut diagnostic = Diagnostic::error("bad_value", endpoint.span, error.message);
            diagnostic.help = error.help.map(str::to_owned);
            diagnostics.push(diagnostic);
            None
        }
    }
}

fn settings(config: &Config, diagnostics: &mut Diagnostics) -> Settings {
    positive(&config.connect_timeout, "connect_timeout", diagnostics);
    positive(&config.pool.idle_timeout, "pool.idle_timeout", diagnostics);
    if let Some(tls) = &config.tls {
        check_tls(tls, &config.endpoints, diagnostics);
    }
    Settings {
        connect_timeout: config.connect_timeout.0,
        idle: usize::try_from(config.pool.idle.value).unwrap_or(usize::MAX),
        idle_timeout: config.pool.idle_timeout.0,
        protocol: config.protocol,
        tls: config.tls.as_ref().map(|tls| tls.value.clone()).unwrap_or_default(),
    }
}

fn guards(config: &Config, diagnostics: &mut Diagnostics) -> GuardRules {
    let breaker = config.breaker.resolved().and_then(|config| breaker::Rules::compile(&config, diagnostics));
    let concurrency = config.concurrency.as_set();
    let concurrency =
        concurrency.and_then(|set| concurrency::Rules::compile(set, config.concurrency.span, diagnostics));
    GuardRules { breaker, concurrency }
}

fn positive(period: &Spanned<Period>, setting: &str, diagnostics: &mut Diagnostics) {
    if period.0 == Duration::ZERO {
        let message = format!("{setting} must be longer than nothing: \"{}\"", period.value);
        diagnostics.push(Diagnostic::error("bad_value", period.span, message));
    }
}

fn check_tls(tls: &Spanned<TlsConfig>, endpoints: &[Spanned<EndpointConfig>], diagnostics: &mut Diagnostics) {
    if let Some(name) = &tls.server_name
        && ServerName::try_from(name.as_str()).is_err()
    {
        let message = format!("not a name or address that a certificate can be for: {:?}", name.value);
        let help = "write a host name without scheme and port, as in \"api.internal\"";
        diagnostics.push(Diagnostic::error("bad_value", name.span, message).help(help));
    }
    // what was written counts, not what could be read: a mistake in the one https:// address makes no second one
    let written_as = |scheme: &str| {
        let mut urls = endpoints.iter().map(|endpoint| endpoint.url.get(..scheme.len()).unwrap_or_default());
        urls.any(|start| start.eq_ignore_ascii_case(scheme))
    };
    if !written_as("https:") {
        let unix = written_as("unix:");
        let help =
            if unix { "a unix socket is spoken to in clear" } else { "write https:// where endpoints speak TLS" };
        let message = "tls is set, but no endpoint is reached over TLS";
        diagnostics.push(Diagnostic::error("dead_setting", tls.span, message).help(help));
    }
}

impl Default for Settings {
    fn default() -> Self {
        let PoolConfig { idle, idle_timeout } = PoolConfig::default();
        Self {
            connect_timeout: super::config::default_connect_timeout().0,
            idle: usize::try_from(idle.value).unwrap_or(usize::MAX),
            idle_timeout: idle_timeout.0,
            protocol: super::Protocol::default(),
            tls: TlsConfig::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::config::ClientCertificate;
    use crate::upstream::{Balance, Protocol};

    fn spanned<T>(value: T) -> Spanned<T> {
        Spanned::new(value, SourceSpan { file: 0, start: 1, end: 2 })
    }

    fn name(name: &str) -> Spanned<String> {
        spanned(name.to_owned())
    }

    fn config(endpoints: &[(&str, u32)]) -> Config {
        let endpoint =
            |(url, weight): &(&str, u32)| spanned(EndpointConfig { url: (*url).to_owned(), weight: *weight });
        Config { endpoints: endpoints.iter().map(endpoint).collect(), ..Config::inline(&name("http://unused")) }
    }

    #[track_caller]
    fn compile(config: &Config, previous: Option<&Upstream>) -> Upstream {
        let mut diagnostics = Diagnostics::default();
        let compiled = Upstream::compile(&name("api"), config, previous, &Sources::default(), &mut diagnostics);
        compiled.unwrap_or_else(|| panic!("refused: {diagnostics:?}"))
    }

    #[track_caller]
    fn check(upstream: &str, config: &Config, expected: &[(&str, &str)]) {
        let mut diagnostics = Diagnostics::default();
        let compiled = Upstream::compile(&name(upstream), config, None, &Sources::default(), &mut diagnostics);
        let seen: Vec<_> = diagnostics.as_slice().iter().map(|one| (one.code, one.message.as_str())).collect();
        assert_eq!(seen, expected);
        assert!(compiled.is_none());
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let mut bad = config(&[("http://a/x", 1), ("http://b", 0), ("http://c", 1), ("http://C:80/", 1)]);
        bad.connect_timeout = spanned(Period::from_secs(0));
        bad.pool.idle_timeout = spanned(Period::from_secs(0));
        bad.tls = Some(spanned(TlsConfig { server_name: Some(name("https://a")), ..TlsConfig::default() }));
        let expected = [
            ("reserved_name", "the name of the built-in demo application: \"demo\""),
            ("bad_value", "an endpoint has no path, query or fragment: \"http://a/x\""),
            ("bad_value", "a weight is a number from 1 to 1000: 0"),
            ("duplicate", "an endpoint that is there already: http://c"),
            ("bad_value", "connect_timeout must be longer than nothing: \"0s\""),
            ("bad_value", "pool.idle_timeout must be longer than nothing: \"0s\""),
            ("bad_value", "not a name or address that a certificate can be for: \"https://a\""),
            ("dead_setting", "tls is set, but no endpoint is reached over TLS"),
        ];
        check("demo", &bad, &expected);
    }

    #[test]
    fn an_upstream_has_a_name_and_endpoints() {
        check("api", &config(&[]), &[("bad_value", "an upstream without endpoints")]);
        check("a:b", &config(&[("http://a", 1)]), &[("bad_value", "not a name for an upstream: \"a:b\"")]);
        let many: Vec<(String, u32)> = (0..=MAX_ENDPOINTS).map(|n| (format!("http://a{n}"), 1)).collect();
        let many: Vec<(&str, u32)> = many.iter().map(|(url, weight)| (url.as_str(), *weight)).collect();
        check("api", &config(&many), &[("bad_value", "more than 1024 endpoints: 1025")]);
    }

    #[test]
    fn the_name_to_verify_is_never_empty() {
        let mut config = config(&[("https://a.test", 1), ("https://10.0.0.1:8443", 1), ("https://[::1]", 1)]);
        let verified = |upstream: &Upstream| {
            upstream.roster().publish("a.test", &[[10, 0, 0, 7].into()]);
            let set = upstream.roster().endpoints();
            set.as_slice().iter().map(|endpoint| endpoint.server_name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(verified(&compile(&config, None)), ["a.test", "10.0.0.1", "::1"]);
        config.tls = Some(spanned(TlsConfig { server_name: Some(name("api.internal")), ..TlsConfig::default() }));
        assert_eq!(verified(&compile(&config, None)), ["api.internal"; 3]);
    }

    #[test]
    fn the_defaults_of_an_inline_upstream_are_those_of_a_named_one() {
        let mut diagnostics = Diagnostics::default();
        let inline =
            Upstream::compile_inline(&name("http://127.0.0.1:3000"), None, &Sources::default(), &mut diagnostics);
        let inline = inline.expect("an address");
        assert_eq!(inline.name().as_str(), "http://127.0.0.1:3000");
        assert_eq!(*inline.settings(), Settings::default());
        assert_eq!(inline.settings().connect_timeout, Duration::from_secs(2));
        assert_eq!((inline.settings().idle, inline.settings().idle_timeout), (64, Duration::from_mins(1)));
        assert_eq!(inline.roster().endpoints().as_slice().len(), 1);
    }

    /// Compiles `before`, then `after` with it as the previous one: the states of `http://a` and whether it kept it.
    #[track_caller]
    fn check_reload(before: &Config, after: &Config, state_kept: bool, roster_kept: bool) {
        let before = compile(before, None);
        before.roster().publish("n.test", &[[10, 0, 0, 9].into()]);
        let after = compile(after, Some(&before));
        let key = |upstream: &Upstream| {
            let set = upstream.roster().endpoints();
            set.as_slice().iter().find(|endpoint| &*endpoint.address == "10.0.0.1:80").map(|endpoint| endpoint.key())
        };
        assert_eq!(key(&before) == key(&after), state_kept);
        assert_eq!(Arc::ptr_eq(before.roster(), after.roster()), roster_kept);
        let set = after.roster().endpoints();
        assert!(set.as_slice().iter().any(|endpoint| &*endpoint.address == "10.0.0.9:80"), "addresses stay known");
    }

    #[test]
    fn state_lives_on_while_the_settings_of_connections_are_equal() {
        let before = config(&[("http://10.0.0.1", 1), ("http://n.test", 1)]);
        check_reload(&before, &before, true, true);
        check_reload(&before, &config(&[("http://n.test", 1), ("http://10.0.0.1:80", 5)]), true, false);
        check_reload(&before, &Config { balance: spanned(Balance::Ewma), ..before.clone() }, true, false);
        check_reload(&before, &Config { protocol: Protocol::H2, ..before.clone() }, false, false);
        check_reload(
            &before,
            &Config { connect_timeout: spanned(Period::from_secs(9)), ..before.clone() },
            false,
            false,
        );
        let pem = ClientCertificate { chain: name("a.pem"), key: name("a.key") };
        let tls = Some(spanned(TlsConfig { client_certificate: Some(pem), ..TlsConfig::default() }));
        let mut after = Config { tls, ..before.clone() };
        after.endpoints.extend(config(&[("https://10.0.0.2", 1)]).endpoints);
        check_reload(&before, &after, false, false);
    }

    /// `before` with the guards that `breaker` and `concurrency` say.
    fn guarded(before: &Config, breaker: &str, concurrency: &str) -> Config {
        let read = "written as it should be";
        Config {
            breaker: spanned(serde_json::from_str(breaker).expect(read)),
            concurrency: spanned(serde_json::from_str(concurrency).expect(read)),
            ..before.clone()
        }
    }

    /// Whether `after` has the breaker and the concurrency limit of `before`.
    #[track_caller]
    fn check_guards(before: &Upstream, after: &Config, kept: (bool, bool)) {
        let after = compile(after, Some(before));
        let same_breaker = before.breaker().zip(after.breaker()).is_some_and(|(old, new)| Arc::ptr_eq(old, new));
        let same_limit = before.concurrency().zip(after.concurrency()).is_some_and(|(old, new)| Arc::ptr_eq(old, new));
        assert_eq!((same_breaker, same_limit), kept);
    }

    #[test]
    fn guards_live_on_while_their_own_settings_are_equal() {
        let plain = config(&[("http://10.0.0.1", 1)]);
        let limit = r#"{"limit":5,"queue":2}"#;
        let written = guarded(&plain, "true", limit);
        let before = compile(&written, None);
        check_guards(&before, &written, (true, true));
        check_guards(&before, &guarded(&plain, r#"{"window":"10s"}"#, limit), (true, true));
        check_guards(&before, &guarded(&plain, r#"{"window":"9s"}"#, limit), (false, true));
        check_guards(&before, &guarded(&plain, "true", r#"{"limit":5,"queue":3}"#), (true, false));
        check_guards(&before, &guarded(&plain, "true", r#"{"adaptive":true,"queue":2}"#), (true, false));
        check_guards(&before, &plain, (false, false));
        let elsewhere = guarded(&config(&[("http://10.0.0.2", 1), ("http://10.0.0.1", 9)]), "true", limit);
        check_guards(&before, &elsewhere, (true, true));
        check_guards(&before, &Config { protocol: Protocol::H2, ..written.clone() }, (true, true));

        let now = crate::model::clock::Instant::default();
        for _ in 0..20 {
            before.breaker().expect("a breaker").try_pass(now).expect("closed").judged(false, Duration::ZERO, now);
        }
        let after = compile(&elsewhere, Some(&before));
        assert!(after.breaker().expect("a breaker").try_pass(now).is_err(), "it stays open over the reload");

        let mut diagnostics = Diagnostics::default();
        let other = Upstream::compile(&name("b"), &written, Some(&before), &Sources::default(), &mut diagnostics);
        assert!(!Arc::ptr_eq(other.expect("compiles").breaker().expect("a breaker"), before.breaker().expect("one")));
    }

    #[test]
    fn nothing_stands_before_an_upstream_unless_it_is_written() {
        let plain = compile(&config(&[("http://10.0.0.1", 1)]), None);
        assert!(plain.breaker().is_none() && plain.concurrency().is_none());
        let off = compile(&guarded(&config(&[("http://10.0.0.1", 1)]), "false", "false"), None);
        assert!(off.breaker().is_none() && off.concurrency().is_none());
    }

    #[test]
    fn mistakes_of_guards_are_reported_with_the_others() {
        let bad = guarded(&config(&[("http://a/x", 1)]), r#"{"min_requests":0}"#, r#"{"limit":0}"#);
        let expected = [
            ("bad_value", "an endpoint has no path, query or fragment: \"http://a/x\""),
            ("bad_value", "breaker.min_requests is 1 or more: 0"),
            ("bad_value", "concurrency.limit is a number from 1 to 100000: 0"),
        ];
        check("api", &bad, &expected);
    }

    #[test]
    fn another_upstream_shares_no_state() {
        let before = compile(&config(&[("http://10.0.0.1", 1)]), None);
        let mut diagnostics = Diagnostics::default();
        let config = config(&[("http://10.0.0.1", 1)]);
        let other = Upstream::compile(&name("b"), &config, Some(&before), &Sources::default(), &mut diagnostics);
        let key = |upstream: &Upstream| upstream.roster().endpoints().as_slice()[0].key();
        assert_ne!(key(&before), key(&other.expect("compiles")));
    }

    #[test]
    fn the_demo_has_the_address_it_was_given() {
        let address = ([127, 0, 0, 1], 4000).into();
        let demo = Upstream::demo(Some(address), None);
        assert_eq!(&*demo.roster().endpoints().as_slice()[0].address, "127.0.0.1:4000");
        assert!(Arc::ptr_eq(Upstream::demo(Some(address), Some(&demo)).roster(), demo.roster()));
        assert!(Upstream::demo(None, Some(&demo)).roster().endpoints().as_slice().is_empty());
    }
}
