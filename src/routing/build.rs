//! From what the operators wrote to a [`Router`]: compiles every route, finds those that conflict, plants the rest.
//!
//! Two routes conflict when some request would be left to their names: the same host pattern, path pattern, method and
//! conditions. Routes that overlap without being alike (`x = "1"` and `y = "1"`, two expressions) do not: which of
//! them is meant can't be told apart from a mistake, and `explain` says that the name decided.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;

use http::Method;
use regex::RegexSetBuilder;

use super::condition::Conditions;
use super::config::{MatchConfig, MatchTable};
use super::method::{MethodSet, MethodTable};
use super::pattern::{HostPattern, PathPattern, anchored};
use super::tree::Tree;
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
    conditions: Arc<Conditions>,
}

impl Router {
    /// Compiles the routes, each with the index by which [`Router::find`] will name it. Pushes everything that is
    /// wrong with them; `None` when that includes an error.
    pub fn build<'c>(
        routes: impl Iterator<Item = (usize, &'c RouteName, &'c Spanned<MatchConfig>)>,
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        let errors = diagnostics.errors();
        let sound: Vec<Sound<'_>> =
            routes.filter_map(|(route, name, config)| Sound::compile(route, name, config, diagnostics)).collect();
        find_conflicts(&sound, diagnostics);
        let router = plant(sound, diagnostics);
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
        let conditions = Arc::new(conditions?);
        Some(Self { route, name, span: config.span, hosts: hosts?, path: path?, methods: methods?, conditions })
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

fn plant(routes: Vec<Sound<'_>>, diagnostics: &mut Diagnostics) -> Router {
    let mut router =
        Router { hosts: Tree::new(), methods: MethodTable::new(), rules: Vec::with_capacity(routes.len()) };
    for route in routes {
        let entries = router.entries(&route, diagnostics);
        for pattern in route.hosts {
            let Some(host) = router.host_mut(pattern) else { continue };
            match &route.path {
                PathPattern::Exact(path) => host
                    .paths
                    .here_mut(PathPattern::segments(path), Vec::new)
                    .map(|list| list.extend_from_slice(&entries)),
                PathPattern::Prefix(prefix) => host
                    .paths
                    .below_mut(PathPattern::segments(prefix), Vec::new)
                    .map(|list| list.extend_from_slice(&entries)),
                PathPattern::Regex(_) => {
                    host.expressions.entries.extend(entries.iter().map(|entry| (0, entry.clone())));
                    None
                }
            };
        }
        let Sound { name, route, path, conditions, .. } = route;
        router.rules.push(Rule { name: name.clone(), route, path, conditions });
    }
    router.settle(diagnostics);
    router
}

impl Router {
    /// The entries of a route that is about to become the last rule.
    fn entries(&mut self, route: &Sound<'_>, diagnostics: &mut Diagnostics) -> Vec<Entry> {
        let prefix_len = match &route.path {
            PathPattern::Exact(literal) | PathPattern::Prefix(literal) => literal.len(),
            PathPattern::Regex(_) => 0,
        };
        let conditions = (!route.conditions.is_empty()).then(|| Arc::clone(&route.conditions));
        let entry = Entry {
            rule: self.rules.len(),
            route: route.route,
            prefix_len,
            methods: MethodSet::ALL,
            standing: Standing::Any,
            conditions,
        };
        if route.methods.is_empty() {
            return vec![entry];
        }
        let mut methods = MethodSet::default();
        for method in &route.methods {
            match self.methods.insert(method) {
                Some(bit) => methods = methods.with(bit),
                None => {
                    let message =
                        format!("more than {} different methods in all routes: \"{method}\"", MethodTable::MAX);
                    diagnostics.push(Diagnostic::error("bad_value", route.span, message));
                }
            }
        }
        let head = self.methods.of(&Method::HEAD);
        let mut entries = vec![Entry { methods, standing: Standing::Named, ..entry.clone() }];
        if methods.has(self.methods.of(&Method::GET)) && !methods.has(head) {
            entries.push(Entry { methods: head, standing: Standing::HeadOfGet, ..entry });
        }
        entries
    }

    fn host_mut(&mut self, pattern: HostPattern) -> Option<&mut Host> {
        let new =
            || Box::new(Host { pattern: pattern.clone(), paths: Tree::new(), expressions: Expressions::default() });
        let host = match &pattern {
            HostPattern::Exact(host) => self.hosts.here_mut(HostPattern::labels(host), new),
            HostPattern::Wildcard(suffix) => self.hosts.below_mut(HostPattern::labels(suffix), new),
            HostPattern::Any => self.hosts.below_mut(std::iter::empty(), new),
        };
        host.map(|host| &mut **host)
    }

    /// Brings everything into its order of precedence, once all routes are there.
    fn settle(&mut self, diagnostics: &mut Diagnostics) {
        let rules = &self.rules;
        let rank = |entry: &Entry| {
            let rule = rules.get(entry.rule);
            let counts = rule.map(|rule| (rule.conditions.headers.len(), rule.conditions.query.len()));
            (entry.standing, Reverse(counts), rule.map(|rule| rule.name.clone()), entry.route)
        };
        self.hosts.link();
        for host in self.hosts.values_mut() {
            host.paths.link();
            host.paths.values_mut().for_each(|list| list.sort_by_cached_key(rank));
            host.expressions.entries.sort_by_cached_key(|(_, entry)| rank(entry));
            host.expressions.compile(rules, &host.pattern, diagnostics);
        }
    }
}

impl Expressions {
    fn compile(&mut self, rules: &[Rule], host: &HostPattern, diagnostics: &mut Diagnostics) {
        let mut indices: HashMap<&PathPattern, usize> = HashMap::new();
        let mut sources = Vec::new();
        for (index, entry) in &mut self.entries {
            let Some(rule) = rules.get(entry.rule) else { continue };
            *index = *indices.entry(&rule.path).or_insert_with(|| {
                sources.push(anchored(&rule.path.to_string()));
                sources.len() - 1
            });
        }
        match RegexSetBuilder::new(&sources).size_limit(MAX_EXPRESSIONS).build() {
            Ok(set) => self.set = set,
            Err(_) => {
                let message =
                    format!("the {} expressions of one host are too large together: \"{host}\"", sources.len());
                diagnostics.push(Diagnostic::global("bad_value", message));
            }
        }
    }
}
