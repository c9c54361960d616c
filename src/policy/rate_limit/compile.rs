//! From the settings of limits to limits with buckets, new ones or those of the snapshot before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;

use super::buckets::{Buckets, Counting};
use super::config::{Config, Cost as CostConfig, Entry, Exempt as ExemptConfig, LimitConfig, NamedConfig};
use super::gcra::Quota;
use super::store::{MOST_NODES, Store, StoreConfig, StoreSettings};
use super::{Cost, Exempt, Limit, RateLimit, fields};
use crate::model::diagnostic::{Diagnostic, Diagnostics, did_you_mean};
use crate::model::ids::{LimitName, RouteName};
use crate::model::key::Keys;
use crate::model::prefixes::PrefixSet;
use crate::model::source::{SourceSpan, Spanned};
use crate::model::units::Rate;
use crate::model::verdict::Mode;

const DEFAULT_MAX_KEYS: u32 = 250_000;
const MOST_KEYS: u32 = 1 << 24;
const MOST_LIMITS: usize = 16;
const LONGEST_NAME: usize = 64;
/// A store that is slower counts as down within a second of becoming so.
const LONGEST_TIMEOUT: Duration = Duration::from_millis(500);

/// The buckets of all limits of a snapshot: what a reload hands over.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    buckets: BTreeMap<LimitName, Arc<Buckets>>,
    stores: BTreeMap<Arc<str>, Arc<Store>>,
}

impl Ledger {
    /// All limits, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Buckets>> {
        self.buckets.values()
    }

    /// The stores that limits share, by name.
    pub fn stores(&self) -> impl Iterator<Item = &Arc<Store>> {
        self.stores.values()
    }
}

/// Makes the limits of a snapshot.
pub struct LedgerBuilder<'a> {
    previous: Option<&'a Ledger>,
    seed: u128,
    named: BTreeMap<&'a str, Named<'a>>,
    /// Names of stores whose settings are wrong, which has been said.
    broken_stores: Vec<&'a str>,
    written_stores: &'a BTreeMap<String, Spanned<StoreConfig>>,
    /// Stores that a limit counts in.
    used_stores: BTreeSet<Arc<str>>,
    ledger: Ledger,
}

/// `[rate_limit.NAME]` and `[rate_limit_store.NAME]`.
pub type Written<'a> = (&'a BTreeMap<String, Spanned<NamedConfig>>, &'a BTreeMap<String, Spanned<StoreConfig>>);

/// A `[rate_limit.NAME]`.
struct Named<'a> {
    config: &'a Spanned<NamedConfig>,
    /// `None` when its settings are wrong, which has been said.
    buckets: Option<Arc<Buckets>>,
    used: bool,
}

impl<'a> LedgerBuilder<'a> {
    /// Makes the stores and the named limits; `pem` finds the files of authorities. Limits whose name and counting are those of `previous` take its buckets over; the others
    /// hash their keys with `seed`.
    pub fn new(
        (named, stores): Written<'a>,
        previous: Option<&'a Ledger>,
        seed: u128,
        pem: impl Fn(&Spanned<String>, &mut Diagnostics) -> Option<Bytes>,
        diagnostics: &mut Diagnostics,
    ) -> Self {
        let (broken_stores, used_stores) = (Vec::new(), BTreeSet::new());
        let mut builder = Self {
            previous,
            seed,
            named: BTreeMap::new(),
            broken_stores,
            written_stores: stores,
            used_stores,
            ledger: Ledger::default(),
        };
        for (name, config) in stores {
            match compile_store(name, config, &pem, diagnostics) {
                Some(settings) => builder.store(name, settings),
                None => builder.broken_stores.push(name),
            }
        }
        for (name, config) in named {
            check_name(&Spanned::new(name.clone(), config.span), diagnostics);
            let NamedConfig { key, rate, burst, max_keys, store, cost: _, mode: _, exempt: _, headers: _ } =
                &config.value;
            let written =
                Counted { key: key.clone(), rate: *rate, burst: *burst, max_keys: *max_keys, store: store.clone() };
            let buckets = builder.buckets(name.as_str().into(), written, diagnostics);
            builder.named.insert(name, Named { config, buckets, used: false });
        }
        builder
    }

    /// Everything that was made; a named limit that no route counts in is probably misspelt somewhere else.
    pub fn finish(self, diagnostics: &mut Diagnostics) -> Ledger {
        for (name, named) in self.named.iter().filter(|(_, named)| !named.used) {
            let message = format!("rate limit {name:?} is used by no route");
            diagnostics.push(Diagnostic::warning("unused", named.config.span, message));
        }
        for (name, config) in self.written_stores {
            if !self.used_stores.contains(name.as_str()) {
                let message = format!("rate limit store {name:?} is used by no limit");
                diagnostics.push(Diagnostic::warning("unused", config.span, message));
            }
        }
        self.ledger
    }

    /// Reads the limits of a route.
    pub fn compile(
        &mut self,
        config: &Spanned<Config>,
        route: &RouteName,
        diagnostics: &mut Diagnostics,
    ) -> Option<RateLimit> {
        let errors = diagnostics.errors();
        if config.is_empty() {
            let error = Diagnostic::error("empty_list", config.span, "an empty list of rate limits");
            diagnostics.push(error.help("to switch inherited limits off, write `rate_limit = false`"));
        }
        if config.len() > MOST_LIMITS {
            let message = format!("more than {MOST_LIMITS} limits on a route: {}", config.len());
            diagnostics.push(Diagnostic::error("too_many", config.span, message));
            return None;
        }
        let mut limits: Vec<(Limit, SourceSpan)> = Vec::new();
        for entry in config.iter() {
            let (limit, span) = match entry {
                Entry::Name(name) => (self.shared(name, None, diagnostics), name.span),
                Entry::Limit(config) => match &config.limit {
                    Some(name) => (self.shared(name, Some(config), diagnostics), config.span),
                    None => (self.own(config, route, diagnostics), config.span),
                },
            };
            let Some(limit) = limit else { continue };
            if let Some((_, first)) = limits.iter().find(|(other, _)| other.name == limit.name) {
                let twice = format!("two limits of one name on a route: {:?}", &*limit.name);
                diagnostics.push(
                    Diagnostic::error("duplicate", span, twice)
                        .related(*first, "first here")
                        .help("give one of them a name of its own: name = \"...\""),
                );
                continue;
            }
            limits.push((limit, span));
        }
        let limits: Box<[Limit]> = limits.into_iter().map(|(limit, _)| limit).collect();
        let policies = fields::policies(limits.iter());
        (diagnostics.errors() == errors).then_some(RateLimit { limits, policies })
    }

    /// A limit of the route's own.
    fn own(
        &mut self,
        config: &Spanned<LimitConfig>,
        route: &RouteName,
        diagnostics: &mut Diagnostics,
    ) -> Option<Limit> {
        let LimitConfig { limit: _, name, key, rate, burst, max_keys, store, cost, mode, exempt, headers } =
            &config.value;
        for (setting, is_missing) in [("key", key.is_none()), ("rate", rate.is_none())] {
            if is_missing {
                let message = format!("a rate limit without `{setting}`");
                diagnostics.push(Diagnostic::error("missing_key", config.span, message).help(
                    "as in { key = \"client.ip\", rate = \"100/s\" }, or { limit = \"NAME\" } for a [rate_limit.NAME]",
                ));
            }
        }
        let (key, rate) = (key.clone()?, (*rate)?);
        let name = name.clone().unwrap_or_else(|| Spanned::new(key.to_string(), key.span));
        check_name(&name, diagnostics);
        let id = LimitName::from(format!("{}@{route}", name.value));
        let name: Arc<str> = name.value.into();
        let buckets = self.buckets(
            id,
            Counted { key, rate, burst: *burst, max_keys: *max_keys, store: store.clone() },
            diagnostics,
        )?;
        Some(Limit {
            name,
            cost: compile_cost(cost.as_ref(), &buckets, diagnostics)?,
            mode: mode.unwrap_or_default(),
            exempt: compile_exempt(exempt.as_ref(), diagnostics),
            headers: headers.unwrap_or(true),
            buckets,
        })
    }

    /// A limit that routes share, with what the route says instead.
    fn shared(
        &mut self,
        name: &Spanned<String>,
        over: Option<&Spanned<LimitConfig>>,
        diagnostics: &mut Diagnostics,
    ) -> Option<Limit> {
        if let Some(over) = over {
            let LimitConfig {
                limit: _,
                name,
                key,
                rate,
                burst,
                max_keys,
                store,
                cost: _,
                mode: _,
                exempt: _,
                headers: _,
            } = &over.value;
            for (setting, span) in [
                ("name", name.as_ref().map(|it| it.span)),
                ("key", key.as_ref().map(|it| it.span)),
                ("rate", rate.map(|it| it.span)),
                ("burst", burst.map(|it| it.span)),
                ("max_keys", max_keys.map(|it| it.span)),
                ("store", store.as_ref().map(|it| it.span)),
            ] {
                if let Some(span) = span {
                    let message = format!("`{setting}` beside `limit`: that is the named limit's");
                    diagnostics.push(
                        Diagnostic::error("conflict", span, message)
                            .help("set it in the [rate_limit.NAME], or leave `limit` out"),
                    );
                }
            }
        }
        let Some(named) = self.named.get_mut(name.as_str()) else {
            let unknown = format!("no such rate limit: {:?}", name.value);
            let diagnostic = Diagnostic::error("unknown_reference", name.span, unknown);
            diagnostics.push(match did_you_mean(&name.value, self.named.keys().copied()) {
                Some(near) => diagnostic.help(format!("did you mean \"{near}\"?")),
                None => diagnostic.help(format!("define [rate_limit.{}]", name.value)),
            });
            return None;
        };
        named.used = true;
        let buckets = Arc::clone(named.buckets.as_ref()?);
        let NamedConfig { key: _, rate: _, burst: _, max_keys: _, store: _, cost, mode, exempt, headers } =
            &named.config.value;
        let cost = over.and_then(|over| over.cost.as_ref()).or(cost.as_ref());
        let exempt = over.and_then(|over| over.exempt.as_ref()).or(exempt.as_ref());
        Some(Limit {
            name: name.value.as_str().into(),
            cost: compile_cost(cost, &buckets, diagnostics)?,
            mode: over.and_then(|over| over.mode).or(*mode).unwrap_or_default(),
            exempt: compile_exempt(exempt, diagnostics),
            headers: over.and_then(|over| over.headers).or(*headers).unwrap_or(true),
            buckets,
        })
    }

    /// The buckets of the limit `id`: those of the previous snapshot when they count the same.
    fn buckets(&mut self, id: LimitName, written: Counted, diagnostics: &mut Diagnostics) -> Option<Arc<Buckets>> {
        let store = written.store.clone();
        let store = match &store {
            Some(name) => self.find_store(name, diagnostics).map(Some),
            None => Some(None),
        };
        let (counting, quota) = written.compile(diagnostics)?;
        let store = store?;
        let before = self.previous.and_then(|previous| previous.buckets.get(&id));
        let counts_there = |before: &Buckets| match (before.store(), &store) {
            (Some(before), Some(store)) => Arc::ptr_eq(before, store),
            (None, None) => true,
            _ => false,
        };
        let buckets = match before.filter(|before| *before.counting() == counting && counts_there(before)) {
            Some(before) => Arc::clone(before),
            None => Arc::new(Buckets::new(id.clone(), counting, quota, self.seed, store)),
        };
        self.ledger.buckets.insert(id, Arc::clone(&buckets));
        Some(buckets)
    }
}

impl LedgerBuilder<'_> {
    /// A store: that of the previous snapshot when it is reached in the same way.
    fn store(&mut self, name: &str, settings: StoreSettings) {
        let before = self.previous.and_then(|previous| previous.stores.get(name));
        let store = match before.filter(|before| *before.settings() == settings) {
            Some(before) => Arc::clone(before),
            None => Arc::new(Store::new(name.into(), settings)),
        };
        self.ledger.stores.insert(Arc::clone(store.name()), store);
    }

    fn find_store(&mut self, name: &Spanned<String>, diagnostics: &mut Diagnostics) -> Option<Arc<Store>> {
        self.used_stores.insert(name.as_str().into());
        let store = self.ledger.stores.get(name.as_str());
        if store.is_none() && !self.broken_stores.contains(&name.as_str()) {
            let unknown = format!("no such rate limit store: {:?}", name.value);
            let diagnostic = Diagnostic::error("unknown_reference", name.span, unknown);
            diagnostics.push(match did_you_mean(&name.value, self.ledger.stores.keys().map(|name| &**name)) {
                Some(near) => diagnostic.help(format!("did you mean \"{near}\"?")),
                None => diagnostic.help(format!("define [rate_limit_store.{}]", name.value)),
            });
        }
        store.map(Arc::clone)
    }
}

fn compile_store(
    name: &str,
    config: &Spanned<StoreConfig>,
    pem: &impl Fn(&Spanned<String>, &mut Diagnostics) -> Option<Bytes>,
    diagnostics: &mut Diagnostics,
) -> Option<StoreSettings> {
    let errors = diagnostics.errors();
    let StoreConfig { redis: addresses, cluster, sentinel, username, password, ca, timeout, on_error, nodes, prefix } =
        &config.value;
    check_name(&Spanned::new(name.to_owned(), config.span), diagnostics);
    let mut bad = |span, message: String, help: &'static str| {
        diagnostics.push(Diagnostic::error("bad_value", span, message).help(help));
    };
    let has_scheme =
        |url: &str, scheme: &str| url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    for url in addresses.iter() {
        // a URL may hold a password: it is not shown
        if !(has_scheme(url, "redis://") || has_scheme(url, "rediss://")) {
            bad(
                url.span,
                "not the address of a Redis server".to_owned(),
                "as in \"redis://HOST:PORT\" or \"rediss://HOST:PORT\"",
            );
        }
    }
    let is_one = !*cluster && sentinel.is_none();
    if addresses.is_empty() || (is_one && addresses.len() > 1) {
        bad(
            addresses.span,
            format!("{} addresses of one server", addresses.len()),
            "one address; several only with `cluster = true` or `sentinel = \"NAME\"`",
        );
    }
    if let Some(sentinel) = sentinel.as_ref().filter(|_| *cluster) {
        bad(
            sentinel.span,
            "`sentinel` beside `cluster`".to_owned(),
            "a cluster fails over by itself: keep one of the two",
        );
    }
    if timeout.0.is_zero() || timeout.0 > LONGEST_TIMEOUT {
        bad(timeout.span, format!("a timeout of {}", timeout.value), "more than nothing, and at most 500ms");
    }
    if !(1..=MOST_NODES).contains(&nodes.value) {
        bad(
            nodes.span,
            format!("nodes is a number from 1 to {MOST_NODES}: {}", nodes.value),
            "how many gateways there are",
        );
    }
    let tls = addresses.iter().any(|url| has_scheme(url, "rediss://"));
    if let Some(ca) = ca.as_ref().filter(|_| !tls) {
        diagnostics.push(Diagnostic::error(
            "dead_setting",
            ca.span,
            "`ca` is set, but the server is not reached over TLS",
        ));
    }
    let text = |text: &Option<String>| text.as_deref().map(Box::from);
    let settings = StoreSettings {
        urls: addresses.iter().map(|url| url.as_str().into()).collect(),
        cluster: *cluster,
        sentinel: sentinel.as_ref().map(|name| name.as_str().into()),
        username: text(username),
        password: text(password),
        ca: ca.as_ref().and_then(|ca| pem(ca, diagnostics)),
        timeout: timeout.0,
        on_error: *on_error,
        nodes: nodes.value,
        prefix: prefix.as_str().into(),
    };
    (diagnostics.errors() == errors).then_some(settings)
}

/// What a limit counts, as written.
struct Counted {
    key: Spanned<Keys>,
    rate: Spanned<Rate>,
    burst: Option<Spanned<u32>>,
    max_keys: Option<Spanned<u32>>,
    store: Option<Spanned<String>>,
}

impl Counted {
    fn compile(self, diagnostics: &mut Diagnostics) -> Option<(Counting, Quota)> {
        let errors = diagnostics.errors();
        let Self { key, rate, burst, max_keys, store: _ } = self;
        if let Some(written) = burst.filter(|burst| burst.value == 0) {
            let error = Diagnostic::error("bad_value", written.span, "a burst of 0: no request would ever get through");
            diagnostics.push(error.help("at least 1; to refuse everybody use `access`"));
        }
        if let Some(written) = max_keys.filter(|keys| !(1..=MOST_KEYS).contains(&keys.value)) {
            let message = format!("max_keys is a number from 1 to {MOST_KEYS}: {}", written.value);
            diagnostics.push(Diagnostic::error("bad_value", written.span, message));
        }
        let units = burst.map_or(rate.value.amount(), |burst| burst.value);
        let quota = Quota::new(rate.value, units);
        if quota.is_none() && units > 0 {
            let span = burst.map_or(rate.span, |burst| burst.span);
            let message = format!("a burst of {units} at {} takes more than a year to refill", rate.value);
            diagnostics
                .push(Diagnostic::error("bad_value", span, message).help("a smaller `burst`, or a higher `rate`"));
        }
        let max_keys = max_keys.map_or(DEFAULT_MAX_KEYS, |keys| keys.value);
        let counting = Counting { keys: key.value, rate: rate.value, burst: units, max_keys };
        (diagnostics.errors() == errors).then_some((counting, quota?))
    }
}

/// A name stands in a field of responses, as a string of structured fields (RFC 9651 §3.3.3), and in metrics, where `@`
/// sets the route's name off.
fn check_name(name: &Spanned<String>, diagnostics: &mut Diagnostics) {
    let is_good = (1..=LONGEST_NAME).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b' '..=b'~') && !b"\"\\@".contains(&byte));
    if !is_good {
        let message = format!("not a name for a rate limit: {:?}", name.value);
        let help = format!("at most {LONGEST_NAME} visible ASCII characters without \", \\ and @");
        diagnostics.push(Diagnostic::error("bad_value", name.span, message).help(help));
    }
}

fn compile_cost(cost: Option<&Spanned<CostConfig>>, buckets: &Buckets, diagnostics: &mut Diagnostics) -> Option<Cost> {
    let Some(written) = cost else { return Some(Cost::Units(1)) };
    let burst = buckets.counting().burst;
    let mut check = |units: Option<u32>| {
        let fits = units.filter(|units| (1..=burst).contains(units));
        if fits.is_none() {
            let message = format!("a cost is a number from 1 to the burst, which is {burst}");
            diagnostics.push(
                Diagnostic::error("bad_value", written.span, message)
                    .help("a request that costs more than a full bucket holds would never get through"),
            );
        }
        fits
    };
    match &written.value {
        CostConfig::Units(units) => check(Some(*units)).map(Cost::Units),
        CostConfig::Text(text) => check(text.trim().parse().ok()).map(Cost::Units),
        CostConfig::Response(post_paid) => {
            let default = check(Some(post_paid.default));
            let field = HeaderName::from_bytes(post_paid.response_header.as_bytes());
            if field.is_err() {
                let message = format!("not a name that a field can have: {:?}", post_paid.response_header.value);
                diagnostics.push(Diagnostic::error("bad_value", post_paid.response_header.span, message));
            }
            Some(Cost::Response { field: field.ok()?, default: default? })
        }
    }
}

fn compile_exempt(exempt: Option<&Spanned<ExemptConfig>>, diagnostics: &mut Diagnostics) -> Exempt {
    let Some(exempt) = exempt else { return Exempt::default() };
    let ExemptConfig { client, groups } = &exempt.value;
    if client.is_empty() && groups.is_empty() {
        let error = Diagnostic::error("missing_key", exempt.span, "an exemption that names nobody");
        diagnostics.push(error.help("as in exempt = { client = [\"10.0.0.0/8\"] }"));
    }
    for group in groups.iter().filter(|group| group.is_empty()) {
        diagnostics.push(Diagnostic::error("bad_value", group.span, "a group without a name"));
    }
    let groups = groups.iter().map(|group| group.as_str().into()).collect();
    Exempt { client: PrefixSet::compile(client, diagnostics), groups }
}

/// Whether a limit of this mode refuses anybody.
pub(super) const fn is_binding(mode: Mode) -> bool {
    matches!(mode, Mode::Enforce)
}
