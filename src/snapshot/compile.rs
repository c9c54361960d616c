//! From the document to a snapshot: everything that settings mean together is checked here, all mistakes at once.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::UnixTime;

use super::tls::{
    CaBundle, ClientAuth, ClientTlsInput, KeyPair, ServerTls, ServerTlsInput, compile_client, compile_server,
};
use super::{Listener, Route, Snapshot, UpstreamEntry};
pub use crate::config::assets::Assets;
use crate::config::document::{self, CertificateConfig, Document, ListenerConfig, RouteConfig};
use crate::model::diagnostic::{Diagnostic, Diagnostics, did_you_mean};
use crate::model::ids::RouteName;
use crate::model::listener::{ListenerSpec, Protocol, Protocols};
use crate::model::names::Names;
use crate::model::prefixes::PrefixSet;
use crate::model::source::{SourceSpan, Sources, Spanned};
use crate::policy::auth::{self, Consumers, ConsumersDocument, KeyRing, Rings};
use crate::policy::rate_limit::LedgerBuilder;
use crate::policy::validate::openapi::{self, Description};
use crate::policy::validate::{self, References};
use crate::policy::{Policies, RoutePolicies, Surroundings, fallback};
use crate::routing::Router;
use crate::upstream::url::Location;
use crate::upstream::{self, ClientCertificate, DEMO, Split, Upstream};

/// The most fields of a head that a listener may allow: a map of fields holds no more than 24,576.
const MAX_HEADER_COUNT: u32 = 16_384;

/// What a snapshot is made from.
pub struct Input<'a> {
    /// What the operator wrote.
    pub document: &'a Document,
    /// The texts that it was read from.
    pub sources: &'a Sources,
    /// The consumers file that it names, if there is one and its form is right.
    pub consumers: Option<&'a ConsumersDocument>,
    /// The contents of the files that it names ([`paths`]).
    pub assets: &'a Assets,
    /// The snapshot in force, whose state goes on.
    pub previous: Option<&'a Snapshot>,
    /// The authorities of the system.
    pub roots: &'a Arc<RootCertStore>,
    /// Random bits for the hashes of keys that clients choose.
    pub seed: u128,
    /// Where the demo app listens; `None` in `check` and `explain`.
    pub demo: Option<SocketAddr>,
    /// The time, for the validity of certificates.
    pub now: UnixTime,
}

/// The files that a document names, apart from `${file:…}`.
#[must_use]
pub fn paths(document: &Document) -> Vec<&Spanned<String>> {
    let mut paths = Vec::new();
    for tls in document.listener.iter().filter_map(|listener| listener.tls.as_ref()) {
        for certificate in &tls.certificates {
            paths.extend([&certificate.chain, &certificate.key]);
        }
        paths.extend(tls.client_ca.as_ref());
    }
    for tls in document.upstream.values().filter_map(|upstream| upstream.tls.as_ref()) {
        paths.extend(tls.ca.as_ref());
        if let Some(ClientCertificate { chain, key }) = &tls.client_certificate {
            paths.extend([chain, key]);
        }
    }
    paths.extend(fallback_steps(document).filter_map(|step| step.file.as_ref()));
    paths.extend(all_policies(document).filter_map(auth_of).flat_map(auth::Config::files));
    paths.extend(document.rate_limit_store.values().filter_map(|store| store.ca.as_ref()));
    paths
}

fn auth_of(policies: &RoutePolicies) -> Option<&auth::Config> {
    policies.auth.as_ref()?.as_set()
}

/// The descriptions of APIs and the schemas that a document names; they may refer to further files.
#[must_use]
pub fn spec_paths(document: &Document) -> Vec<&Spanned<String>> {
    let mut paths: Vec<_> = document.openapi.values().map(|config| &config.file).collect();
    for policies in all_policies(document) {
        let validate = policies.validate.as_ref().and_then(|written| written.as_set());
        paths.extend(validate.into_iter().flat_map(validate::Config::files));
    }
    paths
}

/// Compiles a document; `None` when an error was pushed.
pub fn compile(input: &Input<'_>, diagnostics: &mut Diagnostics) -> Option<Snapshot> {
    let errors = diagnostics.errors();
    let document = input.document;
    let trusted_proxies = PrefixSet::compile(&document.trusted_proxies, diagnostics);
    let listeners = listeners(input, diagnostics);
    let layered: Vec<RoutePolicies> =
        document.route.iter().map(|route| layered(document, route, diagnostics)).collect();
    let services: Vec<Spanned<String>> = layered.iter().filter_map(auth_of).flat_map(auth::Config::services).collect();
    let (upstreams, index) = upstreams(input, &services, diagnostics);
    let consumers = consumers(input, diagnostics);
    let previous: &[Arc<KeyRing>] = input.previous.map_or(&[], |previous| &previous.key_rings);
    let mut rings = Rings::after(previous);
    let mut context = auth::Context {
        consumers: consumers.as_ref(),
        has_consumers: document.consumers.is_some(),
        file: &|path| input.assets.get(path).map(|content| &**content).map_err(str::to_owned),
        upstream: &|origin| index.get(origin).copied(),
        asks_for_certificates: document
            .listener
            .iter()
            .any(|listener| listener.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some())),
        rings: &mut rings,
    };
    let before = input.previous.map(|previous| &previous.limits);
    let mut limits = LedgerBuilder::new(
        (&document.rate_limit, &document.rate_limit_store),
        before,
        input.seed,
        |path, diagnostics| input.assets.require(path, diagnostics).cloned(),
        diagnostics,
    );
    let descriptions = descriptions(input, diagnostics);
    let references = References::new(&input.assets.specs, &descriptions);
    let routes = routes(input, &layered, &index, (&mut limits, &mut context, &references), diagnostics);
    let limits = limits.finish(diagnostics);
    let names: Vec<RouteName> = document.route.iter().enumerate().map(|(at, route)| name_of(at, route)).collect();
    let matches = document.route.iter().zip(&names).enumerate();
    let matches = matches.map(|(at, (written, name))| (at, name, &written.first.r#match));
    let found = Router::build(matches, diagnostics);
    unused(document, diagnostics);
    lone_hedges(document, &routes, &upstreams, diagnostics);
    if diagnostics.errors() > errors {
        return None;
    }
    Some(Snapshot {
        generation: input.previous.map_or(1, |previous| previous.generation + 1),
        listeners,
        router: found?,
        identity_fields: identity_fields(&routes),
        routes,
        upstreams,
        consumers,
        key_rings: rings.into_current(),
        limits,
        descriptions: descriptions.into_iter().filter_map(|(name, compiled)| Some((name, compiled?))).collect(),
        trusted_proxies,
    })
}

fn consumers(input: &Input<'_>, diagnostics: &mut Diagnostics) -> Option<Arc<Consumers>> {
    let previous = input.previous.and_then(|previous| previous.consumers.as_ref());
    auth::compile_consumers(input.consumers?, previous, diagnostics)
}

fn descriptions(input: &Input<'_>, diagnostics: &mut Diagnostics) -> BTreeMap<String, Option<Arc<Description>>> {
    let compile = |(name, config): (&String, &Spanned<openapi::Config>)| {
        let previous = input.previous.and_then(|previous| previous.descriptions.get(name));
        (name.clone(), openapi::compile(name, config, &input.assets.specs, previous, diagnostics))
    };
    input.document.openapi.iter().map(compile).collect()
}

fn listeners(input: &Input<'_>, diagnostics: &mut Diagnostics) -> Vec<Listener> {
    let document = input.document;
    if document.listener.is_empty() {
        let missing = Diagnostic::global("missing_key", "no listener: nothing could ever connect");
        diagnostics.push(missing.help("add [[listener]] with address = \"127.0.0.1:8080\""));
    }
    let mut names: HashMap<&str, SourceSpan> = HashMap::new();
    let mut addresses: HashMap<SocketAddr, SourceSpan> = HashMap::new();
    let mut compiled = Vec::new();
    for listener in &document.listener {
        let name = listener.name.as_ref().unwrap_or(&listener.address);
        if let Some(first) = names.insert(&name.value, name.span) {
            let twice = format!("two listeners of one name: {:?}", name.value);
            diagnostics.push(
                Diagnostic::error("duplicate", name.span, twice)
                    .related(first, "first here")
                    .help("give each listener a name of its own"),
            );
            continue;
        }
        let Some(listener) = compile_listener(input, listener, name, diagnostics) else { continue };
        let (address, span) = (listener.spec.address, name.span);
        if address.port() != 0
            && let Some(first) = addresses.insert(address, span)
        {
            let twice = format!("two listeners on one address: {address}");
            diagnostics.push(Diagnostic::error("duplicate", span, twice).related(first, "first here"));
        }
        compiled.push(listener);
    }
    compiled
}

fn compile_listener(
    input: &Input<'_>,
    config: &Spanned<ListenerConfig>,
    name: &Spanned<String>,
    diagnostics: &mut Diagnostics,
) -> Option<Listener> {
    let address = address(&config.address, diagnostics);
    if config.limits.header_count > MAX_HEADER_COUNT {
        let message = format!("header_count is at most {MAX_HEADER_COUNT}: {}", config.limits.header_count);
        diagnostics.push(Diagnostic::error("bad_value", name.span, message));
    }
    let protocols = match &config.protocols {
        None if config.tls.is_some() => Protocols::BOTH,
        None => Protocols::H1,
        Some(protocols) if protocols.is_empty() => {
            diagnostics.push(Diagnostic::error("empty_list", protocols.span, "a listener without protocols"));
            return None;
        }
        Some(protocols) => protocols.value.iter().copied().collect(),
    };
    if let Some(span) = config.protocols.as_ref().map(|protocols| protocols.span)
        && config.tls.is_none()
        && protocols.contains(Protocol::H1)
        && protocols.contains(Protocol::H2)
    {
        let both = "both versions of HTTP on one port in clear: a client that speaks first can't be told apart in time";
        diagnostics.push(Diagnostic::error("bad_value", span, both).help(
            "use one listener for [\"h1\"] and another for [\"h2\"] (prior knowledge), or TLS, which negotiates",
        ));
        return None;
    }
    let previous = input
        .previous
        .and_then(|previous| previous.listeners.iter().find(|listener| listener.spec.name.as_str() == name.value));
    let tls = match &config.tls {
        None => None,
        Some(tls) => {
            let before = previous.and_then(|listener| listener.tls.as_ref());
            Some(server_tls(input, tls, protocols, before, diagnostics)?)
        }
    };
    let spec = ListenerSpec {
        name: name.value.as_str().into(),
        address: address?,
        protocols,
        limits: config.limits.clone(),
        tls: tls.as_ref().map(|tls| Arc::clone(&tls.config)),
    };
    Some(Listener { spec: Arc::new(spec), tls, origin: input.sources.origin(config.span) })
}

/// An address and port, or a diagnostic that says what is missing.
pub fn address(written: &Spanned<String>, diagnostics: &mut Diagnostics) -> Option<SocketAddr> {
    let parsed = written.value.strip_prefix("localhost:").map_or_else(
        || written.value.parse().ok(),
        |port| port.parse().ok().map(|port| SocketAddr::from(([127, 0, 0, 1], port))),
    );
    if parsed.is_none() {
        diagnostics.push(
            Diagnostic::error("bad_value", written.span, format!("not an address and port: {:?}", written.value))
                .help("as in \"0.0.0.0:8080\" for all IPv4 addresses, \"[::]:8080\" for IPv6, \"127.0.0.1:8080\" for this host"),
        );
    }
    parsed
}

fn server_tls(
    input: &Input<'_>,
    config: &Spanned<document::TlsConfig>,
    protocols: Protocols,
    previous: Option<&ServerTls>,
    diagnostics: &mut Diagnostics,
) -> Option<ServerTls> {
    let pair = |certificate: &Spanned<CertificateConfig>, diagnostics: &mut Diagnostics| {
        key_pair(input.assets, &certificate.chain, &certificate.key, diagnostics)
    };
    let pairs: Vec<_> = config.certificates.iter().map(|certificate| pair(certificate, diagnostics)).collect();
    let client_auth = match (&config.client_ca, &config.client_auth) {
        (None, None) => Some(ClientAuth::None),
        (None, Some(auth)) => {
            diagnostics.push(
                Diagnostic::error("missing_key", auth.span, "client_auth without client_ca")
                    .help("name the authorities whose certificates are believed: client_ca = \"clients.pem\""),
            );
            None
        }
        (Some(ca), auth) => input.assets.require(ca, diagnostics).map(|pem| {
            let bundle = CaBundle { pem, span: ca.span };
            match auth.as_ref().map(|auth| auth.value) {
                Some(document::ClientAuth::Optional) => ClientAuth::Optional(bundle),
                None | Some(document::ClientAuth::Required) => ClientAuth::Required(bundle),
            }
        }),
    };
    let tls = ServerTlsInput {
        certificates: pairs.into_iter().collect::<Option<_>>()?,
        min_version: config.min_version,
        client_auth: client_auth?,
        protocols,
        span: config.span,
    };
    compile_server(&tls, previous, input.now, diagnostics)
}

fn key_pair<'a>(
    assets: &'a Assets,
    chain: &Spanned<String>,
    key: &Spanned<String>,
    diagnostics: &mut Diagnostics,
) -> Option<KeyPair<'a>> {
    let (chain_pem, key_pem) = (assets.require(chain, diagnostics), assets.require(key, diagnostics));
    Some(KeyPair { chain: chain_pem?, key: key_pem?, span: chain.span })
}

/// The upstreams and where to find them: by name, or by the address that a route wrote.
/// `services` are the addresses that policies ask.
fn upstreams(
    input: &Input<'_>,
    services: &[Spanned<String>],
    diagnostics: &mut Diagnostics,
) -> (Vec<UpstreamEntry>, HashMap<String, usize>) {
    let mut entries = Vec::new();
    let mut index = HashMap::new();
    let previous = |name: &str| input.previous?.upstreams.iter().find(|entry| entry.upstream.name().as_str() == name);
    for (name, config) in &input.document.upstream {
        let before = previous(name);
        let spanned = Spanned::new(name.clone(), config.span);
        let state = before.map(|entry| &entry.upstream);
        let upstream = Upstream::compile(&spanned, config, state, input.sources, diagnostics);
        let tls = upstream_tls(input, config, diagnostics);
        index.insert(name.clone(), entries.len());
        if let (Some(upstream), Some((tls, tls_files))) = (upstream, tls) {
            let unchanged = before
                .filter(|before| before.tls_files == tls_files && before.upstream.settings() == upstream.settings());
            let tls = unchanged.and_then(|before| before.tls.clone()).unwrap_or(tls);
            entries.push(UpstreamEntry { upstream, tls: Some(tls), tls_files });
        } else {
            // Errors were pushed: the snapshot will not be, but references to the name are good.
            entries.push(UpstreamEntry { upstream: Upstream::demo(None, None), tls: None, tls_files: Vec::new() });
        }
    }
    // Some are defined by being written: addresses and the demo app.
    let inline = |one: &Spanned<String>| upstream::split::is_inline(one) || one.value == DEMO;
    for reference in references(input.document).into_iter().filter(inline).chain(services.iter().cloned()) {
        let whole = reference.value.as_str();
        if index.contains_key(whole) {
            continue;
        }
        let before = previous(whole);
        let state = before.map(|entry| &entry.upstream);
        let upstream = if whole == DEMO {
            Some(Upstream::demo(input.demo, state))
        } else {
            Upstream::compile_inline(&reference, state, input.sources, diagnostics)
        };
        let Some(upstream) = upstream else { continue };
        let tls = match before.and_then(|entry| entry.tls.clone()) {
            Some(tls) => Some(tls),
            None => default_tls(input, reference.span, diagnostics),
        };
        index.insert(whole.to_owned(), entries.len());
        entries.push(UpstreamEntry { upstream, tls, tls_files: Vec::new() });
    }
    (entries, index)
}

/// The TLS of an upstream, and the files that it was made from.
fn upstream_tls(
    input: &Input<'_>,
    config: &Spanned<upstream::Config>,
    diagnostics: &mut Diagnostics,
) -> Option<(Arc<ClientConfig>, Vec<Bytes>)> {
    let Some(tls) = &config.tls else {
        return default_tls(input, config.span, diagnostics).map(|tls| (tls, Vec::new()));
    };
    let mut files = Vec::new();
    let ca = match &tls.ca {
        Some(path) => {
            let pem = input.assets.require(path, diagnostics)?;
            files.push(pem.clone());
            Some(CaBundle { pem, span: path.span })
        }
        None => None,
    };
    let client_certificate = match &tls.client_certificate {
        Some(ClientCertificate { chain, key }) => {
            let pair = key_pair(input.assets, chain, key, diagnostics)?;
            files.extend([pair.chain, pair.key].map(Bytes::copy_from_slice));
            Some(pair)
        }
        None => None,
    };
    let protocols = upstream_protocols(config.protocol);
    let compiled = ClientTlsInput { ca, client_certificate, protocols, span: tls.span };
    let config = compile_client(&compiled, input.roots, input.now, diagnostics)?;
    Some((config, files))
}

fn default_tls(input: &Input<'_>, span: SourceSpan, diagnostics: &mut Diagnostics) -> Option<Arc<ClientConfig>> {
    let tls = ClientTlsInput { ca: None, client_certificate: None, protocols: Protocols::BOTH, span };
    compile_client(&tls, input.roots, input.now, diagnostics)
}

const fn upstream_protocols(protocol: upstream::Protocol) -> Protocols {
    match protocol {
        upstream::Protocol::Auto => Protocols::BOTH,
        upstream::Protocol::H1 => Protocols::H1,
        upstream::Protocol::H2 => Protocols::H2,
    }
}

fn routes(
    input: &Input<'_>,
    layered: &[RoutePolicies],
    index: &HashMap<String, usize>,
    (limits, context, references): (&mut LedgerBuilder<'_>, &mut auth::Context<'_>, &References<'_>),
    diagnostics: &mut Diagnostics,
) -> Vec<Route> {
    let document = input.document;
    if document.route.is_empty() {
        let missing = Diagnostic::global("missing_key", "no route: every request would be answered 404");
        diagnostics.push(missing.help("add [[route]] with match = \"/*\" and an upstream"));
    }
    let known = KnownNames { assets: input.assets, index };
    let mut names: HashMap<RouteName, SourceSpan> = HashMap::new();
    let mut compiled = Vec::new();
    for (at, (route, policies)) in document.route.iter().zip(layered).enumerate() {
        let name = name_of(at, route);
        let span = route.first.name.as_ref().map_or(route.first.r#match.span, |name| name.span);
        if let Some(first) = names.insert(name.clone(), span) {
            let twice = format!("two routes of one name: {:?}", name.as_str());
            diagnostics.push(
                Diagnostic::error("duplicate", span, twice)
                    .related(first, "first here")
                    .help("give one of them another name"),
            );
        }
        let around = Surroundings {
            route: &name,
            names: &known,
            sources: input.sources,
            limits: &mut *limits,
            identity: &mut *context,
            references,
        };
        let policies = Policies::compile(policies, around, diagnostics);
        let upstream = target(route, index, diagnostics);
        if let Some(policies) = policies {
            check_target(route, &policies, diagnostics);
            compiled.push(Route {
                name,
                origin: input.sources.origin(route.span),
                policies,
                upstream,
                raw_path: route.first.raw_path,
            });
        }
    }
    compiled
}

/// The fields by which upstreams are told of callers, whichever route says so: an upstream may be behind several.
fn identity_fields(routes: &[Route]) -> Vec<http::HeaderName> {
    let mut fields: Vec<http::HeaderName> = routes
        .iter()
        .filter_map(|route| route.policies.auth.as_ref())
        .flat_map(|auth| auth.policy.fields().cloned())
        .collect();
    fields.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    fields.dedup();
    fields
}

/// The name of a route: the written one, or what it matches.
fn name_of(at: usize, route: &RouteConfig) -> RouteName {
    if let Some(name) = &route.first.name {
        return name.value.as_str().into();
    }
    let shown = route.first.r#match.summary();
    if shown.is_empty() { format!("route-{}", at + 1).into() } else { shown.into() }
}

fn layered(document: &Document, route: &RouteConfig, diagnostics: &mut Diagnostics) -> RoutePolicies {
    let mut profiles = Vec::new();
    for name in &route.first.r#use {
        if let Some(profile) = document.profile.get(&name.value) {
            profiles.push(&profile.value);
            continue;
        }
        let unknown = format!("no such profile: {:?}", name.value);
        let diagnostic = Diagnostic::error("unknown_reference", name.span, unknown);
        diagnostics.push(match did_you_mean(&name.value, document.profile.keys().map(String::as_str)) {
            Some(near) => diagnostic.help(format!("did you mean \"{near}\"?")),
            None => diagnostic.help(format!("define [profile.{}]", name.value)),
        });
    }
    RoutePolicies::layer(&document.defaults, profiles, &route.second)
}

fn target(route: &RouteConfig, index: &HashMap<String, usize>, diagnostics: &mut Diagnostics) -> Option<Split<usize>> {
    let config = route.first.upstream.as_ref()?;
    Split::compile(config, |name| index.get(name).copied(), &upstream_names(index), diagnostics)
}

/// What an upstream may be called, apart from addresses.
fn upstream_names(index: &HashMap<String, usize>) -> Vec<&str> {
    let known = index.keys().map(String::as_str).filter(|name| !upstream::split::is_inline(name)).chain([DEMO]);
    let mut known: Vec<&str> = known.collect();
    known.sort_unstable();
    known.dedup();
    known
}

/// What settings of policies may name.
struct KnownNames<'a> {
    assets: &'a Assets,
    index: &'a HashMap<String, usize>,
}

impl Names for KnownNames<'_> {
    fn upstream(&self, written: &Spanned<String>, diagnostics: &mut Diagnostics) -> Option<usize> {
        let found = self.index.get(&written.value).copied();
        // An address that could not be read has been reported where upstreams are compiled.
        if found.is_none() && !upstream::split::is_inline(&written.value) {
            let known = upstream_names(self.index);
            let missing = format!("no such upstream: {:?}", written.value);
            let diagnostic = Diagnostic::error("unknown_reference", written.span, missing);
            diagnostics.push(match did_you_mean(&written.value, known) {
                Some(near) => diagnostic.help(format!("did you mean \"{near}\"?")),
                None => diagnostic.help(format!("define [upstream.{}]", written.value)),
            });
        }
        found
    }

    fn file(&self, written: &Spanned<String>, diagnostics: &mut Diagnostics) -> Option<Bytes> {
        self.assets.require(written, diagnostics).cloned()
    }
}

/// Every set of policies in the document.
fn all_policies(document: &Document) -> impl Iterator<Item = &RoutePolicies> {
    let profiles = document.profile.values().map(|profile| &profile.value);
    let routes = document.route.iter().map(|route| &route.second);
    [&document.defaults].into_iter().chain(profiles).chain(routes)
}

/// Every step of every fallback.
fn fallback_steps(document: &Document) -> impl Iterator<Item = &fallback::Step> {
    let written = all_policies(document).filter_map(|policies| policies.fallback.as_ref()?.as_set());
    written.flat_map(|steps| steps.iter().map(|step| &step.value))
}

/// References to upstreams, in routes and in fallbacks.
fn references(document: &Document) -> Vec<Spanned<String>> {
    let of_routes = document.route.iter().filter_map(|route| route.first.upstream.as_ref());
    let of_routes = of_routes.flat_map(upstream::split::Config::references);
    of_routes.chain(fallback_steps(document).filter_map(|step| step.upstream.clone())).collect()
}

/// A route goes somewhere, or answers itself. One may have an upstream and a redirect, which lets requests through that
/// are already where it points, but nothing comes past a fixed response.
fn check_target(route: &Spanned<RouteConfig>, policies: &Policies, diagnostics: &mut Diagnostics) {
    match &route.first.upstream {
        Some(upstream) if policies.respond.is_some() => diagnostics.push(
            Diagnostic::error("bad_value", upstream.span, "an upstream that is never asked: `respond` answers")
                .help("keep one of the two"),
        ),
        None if policies.answers().is_none() => diagnostics.push(
            Diagnostic::error("missing_key", route.span, "a route that goes nowhere")
                .help("add `upstream`, `redirect` or `respond`"),
        ),
        Some(_) | None => {}
    }
    if let Some(respond) = &policies.respond {
        let written = [
            (route.second.retry.as_ref().map(|key| key.span), "retry"),
            (route.second.hedge.as_ref().map(|key| key.span), "hedge"),
            (route.second.fallback.as_ref().map(|key| key.span), "fallback"),
            (route.second.rewrite.as_ref().map(|key| key.span), "rewrite"),
            (
                route
                    .second
                    .validate
                    .as_ref()
                    .map(|key| key.span)
                    .filter(|_| policies.validate.as_ref().is_some_and(|validate| validate.policy.judges_bodies())),
                "validate` of bodies, `openapi` or `responses",
            ),
        ];
        for (span, name) in written.into_iter().filter_map(|(span, name)| span.zip(Some(name))) {
            let message = format!("`{name}` on a route that answers by itself: no body is read and no upstream asked");
            let help = format!("remove it, or `respond` ({})", respond.origin);
            diagnostics.push(Diagnostic::error("dead_setting", span, message).help(help));
        }
    }
}

/// A hedge goes to another endpoint. A warning, not an error: an upstream may be scaled to one for a while.
fn lone_hedges(document: &Document, routes: &[Route], upstreams: &[UpstreamEntry], diagnostics: &mut Diagnostics) {
    if routes.len() != document.route.len() {
        return; // a route has mistakes of its own, which are told
    }
    let is_lone = |index: &usize| {
        upstreams.get(*index).is_some_and(|entry| {
            let mut declared = entry.upstream.roster().declared();
            let first = declared.next();
            first.is_some_and(|(url, _)| !matches!(url.location, Location::Name { .. })) && declared.next().is_none()
        })
    };
    for (written, route) in document.route.iter().zip(routes) {
        let Some(key) = written.second.hedge.as_ref().filter(|_| route.policies.hedge.is_some()) else { continue };
        if route.upstream.as_ref().is_some_and(|split| split.iter().all(|(index, _)| is_lone(index))) {
            let message = "a hedge goes to another endpoint, and there is one only: no request is hedged";
            diagnostics.push(Diagnostic::warning("dead_setting", key.span, message).help("give the upstream another"));
        }
    }
}

/// What is defined and never used is probably misspelt somewhere else.
fn unused(document: &Document, diagnostics: &mut Diagnostics) {
    let named = references(document);
    for (name, config) in &document.upstream {
        if !named.iter().any(|reference| reference.value == *name) {
            let message = format!("upstream {name:?} is used by no route");
            diagnostics.push(Diagnostic::warning("unused", config.span, message));
        }
    }
    for (name, config) in &document.openapi {
        let uses = |policies: &RoutePolicies| {
            let validate = policies.validate.as_ref().and_then(|written| written.as_set());
            validate.and_then(|validate| validate.openapi.as_ref()).is_some_and(|used| used.value == *name)
        };
        if !all_policies(document).any(uses) {
            let message = format!("description {name:?} is used by no route");
            diagnostics.push(Diagnostic::warning("unused", config.span, message));
        }
    }
    for (name, config) in &document.profile {
        if !document.route.iter().any(|route| route.first.r#use.iter().any(|used| used.value == *name)) {
            let message = format!("profile {name:?} is used by no route");
            diagnostics.push(Diagnostic::warning("unused", config.span, message));
        }
    }
}
