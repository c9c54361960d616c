//! Which route a request belongs to, and why.
//!
//! **The rule.** Of all routes whose every condition the request meets, the most specific one gets it, whatever their
//! order in the file. Specific means, each word only deciding where those before it leave a tie:
//!
//! 1. *host*: exact, then the longest wildcard, then any host;
//! 2. *path*: exact, then the longest prefix, then an expression;
//! 3. *method*: the route that names the method, then the one that takes `HEAD` because it names `GET`, then any method;
//! 4. more *header* conditions; 5. more *query* conditions; 6. the route's *name*, in alphabetical order.
//!
//! **Less specific hosts are asked too.** When no route of the most specific host takes the request, those of the next
//! one are tried: a `/healthz` for any host answers on every host that has no such path of its own. This is the
//! precedence of Gateway API's `HTTPRoute` hostnames (and Traefik's way) and not nginx's, which enters one `server`
//! block and never leaves it. An operator who wants nginx's gives the host a route of its own for `/*`.
//!
//! **405.** Only when no route takes the request at all, and at least one would take it but for its method; `Allow` lists
//! the methods of all of these. A route that names `GET` takes `HEAD` as well (RFC 9110 §9.3.2; so do Go's and axum's
//! routers, and nginx's `limit_except`); `OPTIONS` is nothing special here. A preflight for a route that does not name
//! `OPTIONS` is found by asking again with the method of `Access-Control-Request-Method`.
//!
//! **Cost.** A walk over the labels of the host and one over the segments of the path for each host pattern that fits,
//! however many routes there are. Routes of the very same host and path pattern are tried one after the other. `find`
//! allocates nothing, with one exception: a host that has expressions, when none of its literal paths took the request.
//!
//! It never decides whether a path is refused (`path` says what is wrong with one), never rewrites, and knows no policy.

pub mod authority;
mod build;
mod condition;
pub mod config;
mod explain;
mod method;
pub mod path;
mod pattern;
#[cfg(test)]
mod tests;
mod tree;

use std::ops::ControlFlow;

use regex::RegexSet;

pub use self::config::MatchConfig;
pub use self::explain::{Choice, Criterion, Explanation, Miss, Missing};
pub use self::method::Allow;

use self::condition::Conditions;
use self::method::{MethodSet, MethodTable};
use self::pattern::{HostPattern, PathPattern};
use self::tree::Tree;
use crate::model::ids::RouteName;
use crate::model::request::RequestView;

/// All routes, compiled for looking up. Made by [`Router::build`]; never changes.
#[derive(Debug)]
pub struct Router {
    /// Indices in `hosts` by the labels of host patterns, from the right.
    labels: Tree<tree::Hosts, u32>,
    hosts: Vec<Host>,
    /// Each root holds the literal paths of the host with its index.
    paths: Tree<tree::Paths, Entry>,
    methods: MethodTable,
    rules: Vec<Rule>,
}

/// What the router found.
#[derive(Debug, Clone, Copy)]
pub enum Found<'r> {
    /// The route.
    Match(Match),
    /// No route takes requests like this one.
    NotFound,
    /// The method alone keeps the request from the routes that take [`Allow`]'s methods.
    MethodNotAllowed(Allow<'r>),
}

/// A route and how much of the path it named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// The index that the route was built with.
    pub route: usize,
    /// How many bytes of the canonical path the route's literal took: the prefix without its `/*`, all of an exact
    /// path, nothing of an expression.
    pub prefix_len: usize,
}

/// A host pattern that routes name.
#[derive(Debug)]
struct Host {
    pattern: HostPattern,
    expressions: Expressions,
}

/// The routes of one host pattern that match paths by expression.
#[derive(Debug, Default)]
struct Expressions {
    /// None while there is no entry: even an empty set has a size.
    set: Option<RegexSet>,
    /// In order of precedence.
    entries: Vec<Entry>,
    /// For each entry the index of its expression in the set; several may ask for the same one.
    indices: Vec<usize>,
}

/// One route at one host and path pattern. A route that names `GET` and not `HEAD` stands there twice. Narrow, so that
/// two fit in a cache line with their links.
#[derive(Debug, Clone)]
struct Entry {
    methods: MethodSet,
    /// Index in [`Router::rules`].
    rule: u32,
    route: u32,
    prefix_len: u32,
    standing: Standing,
    /// Whether the rule has conditions on header or query.
    conditional: bool,
}

/// How an entry came by its methods; the order is the order of precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Named,
    /// `HEAD`, because the route names `GET`.
    HeadOfGet,
    Any,
}

/// What a route asks for.
#[derive(Debug)]
struct Rule {
    name: RouteName,
    route: usize,
    hosts: Vec<u32>,
    path: PathPattern,
    conditions: Conditions,
}

/// An entry whose host and path patterns fit the request.
#[derive(Debug, Clone, Copy)]
struct Candidate<'r> {
    host: u32,
    entry: &'r Entry,
}

impl Router {
    /// The most specific route that takes the request.
    #[must_use]
    pub fn find(&self, request: &RequestView<'_>) -> Found<'_> {
        let method = self.methods.of(request.method);
        let mut allow = MethodSet::default();
        let found = self.candidates(request, |Candidate { entry, .. }| {
            if entry.conditional && !self.rule(entry).is_some_and(|rule| rule.conditions.hold(request)) {
                return ControlFlow::Continue(());
            }
            if entry.methods.has(method) {
                return ControlFlow::Break(Match {
                    route: entry.route as usize,
                    prefix_len: entry.prefix_len as usize,
                });
            }
            allow = allow.with(entry.methods);
            ControlFlow::Continue(())
        });
        match found {
            ControlFlow::Break(found) => Found::Match(found),
            ControlFlow::Continue(()) if allow.is_empty() => Found::NotFound,
            ControlFlow::Continue(()) => Found::MethodNotAllowed(Allow { table: &self.methods, set: allow }),
        }
    }

    /// Shows `see` the entries whose host and path fit, the most specific first, until it breaks.
    fn candidates<'r, B>(
        &'r self,
        request: &RequestView<'_>,
        mut see: impl FnMut(Candidate<'r>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        self.hosts_of(request.host).try_for_each(|host| self.candidates_of(host, request.path, &mut see))
    }

    /// The host patterns that `host` fits, the most specific first.
    fn hosts_of(&self, host: &str) -> impl Iterator<Item = u32> {
        self.labels.walk(0, host).copied()
    }

    fn candidates_of<'r, B>(
        &'r self,
        host: u32,
        path: &str,
        mut see: impl FnMut(Candidate<'r>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if !path.starts_with('/') {
            return ControlFlow::Continue(()); // `OPTIONS *` is about the server, not about a resource of a route
        }
        for entry in self.paths.walk(host, path) {
            see(Candidate { host, entry })?;
        }
        match self.hosts.get(host as usize) {
            Some(pattern) => pattern.expressions.candidates(path, |entry| see(Candidate { host, entry })),
            None => ControlFlow::Continue(()),
        }
    }

    fn rule(&self, entry: &Entry) -> Option<&Rule> {
        self.rules.get(entry.rule as usize)
    }
}

impl Expressions {
    fn candidates<'r, B>(&'r self, path: &str, mut see: impl FnMut(&'r Entry) -> ControlFlow<B>) -> ControlFlow<B> {
        let Some(set) = &self.set else { return ControlFlow::Continue(()) };
        let matched = set.matches(path);
        let entries = self.entries.iter().zip(&self.indices);
        entries.filter(|(_, index)| matched.matched(**index)).map(|(entry, _)| entry).try_for_each(&mut see)
    }
}
