//! From what the operators wrote to a [`Router`]: compiles every route, finds those that conflict, plants the rest.
//!
//! Two routes conflict when some request would be left to their names: the same host pattern, path pattern, method and
//! conditions. Routes that overlap without being alike (`x = "1"` and `y = "1"`, two expressions) do not: which of
//! them is meant can't be told apart from a mistake, and `explain` says that the name decided.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;

use http::Method;
use regex::RegexSetBuilder;

use super::condition::Conditions;
use super::config::{MatchConfig, MatchTable};
use super::method::{MethodSet, MethodTable};
use super::pattern::{HostPattern, PathPattern, anchored};
use super::tree::{self, Seedlings, narrow};
use super::{Entry, Expressions, Host, Router, Rule, Standing};
use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::ids::RouteName;
use crate::model::source::{SourceSpan, Spanned};

/// How large the expressions of one host may be together when compiled, in bytes.
const MAX_EXPRESSIONS: usize = 64 << 20;

/// A route, read and found sound.
struct Sound<'c> {
    route: usize,
    name: &'c RouteName,
    span: SourceSpan,
    hosts: Vec<HostPattern>,
    path: PathPattern,
    /// None: any method.
    methods: Vec<Method>,
    conditions: Conditions,
}

impl Router {
    /// Compiles the routes, each with the index by which [`Router::find`] will name it. Pushes everything that is
    /// wrong with them; `None` when that includes an error.
    pub fn build<'c>(
        configs: impl Iterator<Item = (usize, &'c RouteName, &'c Spanned<MatchConfig>)>,
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        let errors = diagnostics.errors();
        let sound: Vec<Sound<'_>> =
            configs.filter_map(|(route, name, config)| Sound::compile(route, name, config, diagnostics)).collect();
        find_conflicts(&sound, diagnostics);
        let mut bed = Bed::default();
        for route in sound {
            bed.sow(route, diagnostics);
        }
        let router = bed.plant(diagnostics);
        (errors == diagnostics.errors()).then_some(router)
    }
}

impl<'c> Sound<'c> {
    fn compile(
        route: usize,
        name: &'c RouteName,
        config: &'c Spanned<MatchConfig>,
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        let (hosts, path, methods, conditions) = match &config.value {
            MatchConfig::Short(short) => {
                let (host, path) = split_short(&Spanned::new(short.as_str(), config.span), diagnostics)?;
                (Some(host), Some(path), Some(Vec::new()), Some(Conditions::default()))
            }
            MatchConfig::Table(table) => (
                table_hosts(table, diagnostics),
                table_path(table, diagnostics),
                table_methods(table, diagnostics),
                Conditions::compile(table, diagnostics),
            ),
        };
        Some(Self {
            route,
            name,
            span: config.span,
            hosts: hosts?,
            path: path?,
            methods: methods?,
            conditions: conditions?,
        })
    }
}

/// `"host/path"`; the host may be missing, the slash may not.
fn split_short(short: &Spanned<&str>, diagnostics: &mut Diagnostics) -> Option<(Vec<HostPattern>, PathPattern)> {
    let Some(slash) = short.value.find('/') else {
        let message = format!("neither \"host/path\" nor \"/path\": {:?}", short.value);
        let help = format!(
            "write \"{}/*\" for every path of a host, or \"/{}\" for a path of any host",
            short.value, short.value
        );
        diagnostics.push(Diagnostic::error("bad_value", short.span, message).help(help));
        return None;
    };
    let (host, path) = short.value.split_at_checked(slash)?;
    let host = match host {
        "" => Some(HostPattern::Any),
        host => HostPattern::compile(&Spanned::new(host, short.span), diagnostics),
    };
    let path = PathPattern::compile(&Spanned::new(path, short.span), diagnostics);
    Some((vec![host?], path?))
}

fn table_hosts(table: &MatchTable, diagnostics: &mut Diagnostics) -> Option<Vec<HostPattern>> {
    let Some(host) = &table.host else { return Some(vec![HostPattern::Any]) };
    let written = host.value.each(host.span);
    let hosts = written.iter().map(|one| HostPattern::compile(one, diagnostics)).collect();
    each_once(hosts, host.span, "host", diagnostics)
}

fn table_path(table: &MatchTable, diagnostics: &mut Diagnostics) -> Option<PathPattern> {
    match (&table.path, &table.path_regex) {
        (None, None) => Some(PathPattern::any()),
        (Some(path), None) => PathPattern::compile(&Spanned::new(path.as_str(), path.span), diagnostics),
        (None, Some(regex)) => PathPattern::compile_regex(regex, diagnostics),
        (Some(path), Some(regex)) => {
            diagnostics.push(
                Diagnostic::error("bad_value", regex.span, "a route has `path` or `path_regex`, not both")
                    .related(path.span, "`path` is written here"),
            );
            None
        }
    }
}

fn table_methods(table: &MatchTable, diagnostics: &mut Diagnostics) -> Option<Vec<Method>> {
    let Some(method) = &table.method else { return Some(Vec::new()) };
    let methods = method.value.each(method.span).iter().map(|one| parse_method(one, diagnostics)).collect();
    each_once(methods, method.span, "method", diagnostics)
}

fn parse_method(written: &Spanned<&str>, diagnostics: &mut Diagnostics) -> Option<Method> {
    let flaw = |message: &str| Diagnostic::error("bad_value", written.span, format!("{message}: {:?}", written.value));
    let upper = written.value.to_ascii_uppercase();
    let refused = match (Method::from_bytes(written.value.as_bytes()), upper.as_str()) {
        (Err(_), _) => flaw("not a method"),
        (Ok(_), "CONNECT" | "TRACE") => flaw("refused before any route is asked").help("leave this method out"),
        (Ok(method), _) if upper == written.value => return Some(method),
        (Ok(_), "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "PATCH" | "OPTIONS") => {
            flaw("methods are case-sensitive").help(format!("write \"{upper}\""))
        }
        (Ok(method), _) => {
            let message = format!("methods are case-sensitive and commonly upper case: {:?}", written.value);
            diagnostics.push(Diagnostic::warning("lower_case_method", written.span, message));
            return Some(method);
        }
    };
    diagnostics.push(refused);
    None
}

/// The list, unless one of it was unsound, it is empty, or something is in it twice.
fn each_once<T: PartialEq + std::fmt::Display>(
    list: Option<Vec<T>>,
    span: SourceSpan,
    what: &str,
    diagnostics: &mut Diagnostics,
) -> Option<Vec<T>> {
    let list = list?;
    let twice = list.iter().enumerate().find(|(at, one)| list.iter().take(*at).any(|earlier| earlier == *one));
    let message = match twice {
        Some((_, one)) => format!("this {what} is in the list twice: \"{one}\""),
        None if list.is_empty() => format!("an empty list of {what}s matches nothing"),
        None => return Some(list),
    };
    diagnostics.push(Diagnostic::error("bad_value", span, message));
    None
}

fn find_conflicts(routes: &[Sound<'_>], diagnostics: &mut Diagnostics) {
    let mut taken: HashMap<(&HostPattern, &PathPattern, Option<&Method>, String), &Sound<'_>> = HashMap::new();
    for route in routes {
        let conditions = route.conditions.to_string();
        let mut told: Vec<usize> = Vec::new();
        for host in &route.hosts {
            let methods = route.methods.iter().map(Some).chain(route.methods.is_empty().then_some(None));
            for method in methods {
                let first = match taken.entry((host, &route.path, method, conditions.clone())) {
                    Slot::Vacant(slot) => {
                        slot.insert(route);
                        continue;
                    }
                    Slot::Occupied(slot) => *slot.get(),
                };
                if !told.contains(&first.route) {
                    told.push(first.route);
                    diagnostics.push(conflict(first, route, host, method));
                }
            }
        }
    }
}

fn conflict(first: &Sound<'_>, second: &Sound<'_>, host: &HostPattern, method: Option<&Method>) -> Diagnostic {
    let method = method.map_or("any method", Method::as_str);
    let path = &second.path;
    let shown = match (host, path) {
        (_, PathPattern::Regex(_)) => format!("{method} on host {host}, path_regex {path}"),
        (HostPattern::Any, _) => format!("{method} {path}"),
        _ => format!("{method} {host}{path}"),
    };
    let message = format!(
        "routes \"{}\" and \"{}\" match the same requests with the same rank: {shown}{}",
        first.name, second.name, second.conditions
    );
    Diagnostic::error("route_conflict", second.span, message)
        .related(first.span, format!("route \"{}\" matches them here", first.name))
        .help("remove one of the routes, or add a method, header or query condition to one of them")
}

/// A router whose routes are still being added.
struct Bed {
    labels: Seedlings<tree::Hosts, u32>,
    hosts: Vec<Host>,
    indices: HashMap<HostPattern, u32>,
    paths: Seedlings<tree::Paths, Entry>,
    methods: MethodTable,
    rules: Vec<Rule>,
}

impl Default for Bed {
    fn default() -> Self {
        Self {
            labels: Seedlings::new(),
            hosts: Vec::new(),
            indices: HashMap::new(),
            paths: Seedlings::new(),
            methods: MethodTable::new(),
            rules: Vec::new(),
        }
    }
}

impl Bed {
    fn sow(&mut self, route: Sound<'_>, diagnostics: &mut Diagnostics) {
        let entries = self.entries(&route, diagnostics);
        let hosts: Vec<u32> = route.hosts.into_iter().map(|pattern| self.host(pattern)).collect();
        for host in &hosts {
            let list = match &route.path {
                PathPattern::Exact(path) => &mut self.paths.at(*host, path).here,
                PathPattern::Prefix(path) => &mut self.paths.at(*host, path).below,
                PathPattern::Regex(_) => match self.hosts.get_mut(*host as usize) {
                    Some(host) => &mut host.expressions.entries,
                    None => continue,
                },
            };
            list.extend_from_slice(&entries);
        }
        let Sound { name, route, path, conditions, .. } = route;
        self.rules.push(Rule { name: name.clone(), route, hosts, path, conditions });
    }

    /// The entries of a route that is about to become the last rule.
    fn entries(&mut self, route: &Sound<'_>, diagnostics: &mut Diagnostics) -> Vec<Entry> {
        let prefix_len = match &route.path {
            PathPattern::Exact(literal) | PathPattern::Prefix(literal) => literal.len(),
            PathPattern::Regex(_) => 0,
        };
        let entry = Entry {
            methods: MethodSet::ALL,
            rule: narrow(self.rules.len()),
            route: narrow(route.route),
            prefix_len: narrow(prefix_len),
            standing: Standing::Any,
            conditional: !route.conditions.is_empty(),
        };
        if route.methods.is_empty() {
            return vec![entry];
        }
        let mut methods = MethodSet::default();
        for method in &route.methods {
            let Some(bit) = self.methods.insert(method) else {
                let message = format!("more than {} different methods in all routes: \"{method}\"", MethodTable::MAX);
                diagnostics.push(Diagnostic::error("bad_value", route.span, message));
                continue;
            };
            methods = methods.with(bit);
        }
        let head = self.methods.of(&Method::HEAD);
        let mut entries = vec![Entry { methods, standing: Standing::Named, ..entry.clone() }];
        if methods.has(self.methods.of(&Method::GET)) && !methods.has(head) {
            entries.push(Entry { methods: head, standing: Standing::HeadOfGet, ..entry });
        }
        entries
    }

    /// The index of a host pattern, new or known.
    fn host(&mut self, pattern: HostPattern) -> u32 {
        let next = narrow(self.hosts.len());
        let slot = match self.indices.entry(pattern.clone()) {
            Slot::Occupied(known) => return *known.get(),
            Slot::Vacant(slot) => slot,
        };
        slot.insert(next);
        match &pattern {
            HostPattern::Exact(host) => self.labels.at(0, host).here.push(next),
            HostPattern::Wildcard(suffix) => self.labels.at(0, suffix).below.push(next),
            HostPattern::Any => self.labels.at(0, "").below.push(next),
        }
        self.hosts.push(Host { pattern, expressions: Expressions::default() });
        next
    }

    /// Brings everything into its order of precedence.
    fn plant(mut self, diagnostics: &mut Diagnostics) -> Router {
        let rules = &self.rules;
        let rank = |entry: &Entry| {
            let rule = rules.get(entry.rule as usize);
            let counts = rule.map(|rule| (rule.conditions.headers.len(), rule.conditions.query.len()));
            (entry.standing, Reverse(counts), rule.map(|rule| rule.name.clone()), entry.route)
        };
        self.paths.lists_mut().filter(|list| list.len() > 1).for_each(|list| list.sort_by_cached_key(rank));
        for Host { pattern, expressions } in &mut self.hosts {
            expressions.entries.sort_by_cached_key(rank);
            expressions.compile(rules, pattern, diagnostics);
        }
        Router {
            labels: self.labels.plant(),
            hosts: self.hosts,
            paths: self.paths.plant(),
            methods: self.methods,
            rules: self.rules,
        }
    }
}

impl Expressions {
    fn compile(&mut self, rules: &[Rule], host: &HostPattern, diagnostics: &mut Diagnostics) {
        if self.entries.is_empty() {
            return;
        }
        let mut indices: HashMap<&PathPattern, usize> = HashMap::new();
        let mut sources = Vec::new();
        for rule in self.entries.iter().filter_map(|entry| rules.get(entry.rule as usize)) {
            self.indices.push(*indices.entry(&rule.path).or_insert_with(|| {
                sources.push(anchored(&rule.path.to_string()));
                sources.len() - 1
            }));
        }
        let Ok(set) = RegexSetBuilder::new(&sources).size_limit(MAX_EXPRESSIONS).build() else {
            let message = format!("the {} expressions of one host are too large together: \"{host}\"", sources.len());
            diagnostics.push(Diagnostic::global("bad_value", message));
            return;
        };
        self.set = Some(set);
    }
}
