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
use std::sync::Arc;

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
    hosts: Tree<Box<Host>>,
    methods: MethodTable,
    /// What the routes are called and ask for, for explanations alone.
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

/// The routes of one host pattern.
#[derive(Debug)]
struct Host {
    pattern: HostPattern,
    paths: Tree<Vec<Entry>>,
    expressions: Expressions,
}

/// The routes of one host pattern that match paths by expression.
#[derive(Debug, Default)]
struct Expressions {
    set: RegexSet,
    /// In order of precedence, each with the index of its expression in the set.
    entries: Vec<(usize, Entry)>,
}

/// One route at one host and path pattern. A route that names `GET` and not `HEAD` stands there twice.
#[derive(Debug, Clone)]
struct Entry {
    /// Index in [`Router::rules`].
    rule: usize,
    route: usize,
    prefix_len: usize,
    methods: MethodSet,
    standing: Standing,
    conditions: Option<Arc<Conditions>>,
}

/// How an entry came by its methods; the order is the order of precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Named,
    /// `HEAD`, because the route names `GET`.
    HeadOfGet,
    Any,
}

#[derive(Debug)]
struct Rule {
    name: RouteName,
    route: usize,
    path: PathPattern,
    conditions: Arc<Conditions>,
}

/// An entry whose host and path patterns fit the request.
#[derive(Debug, Clone, Copy)]
struct Candidate<'r> {
    host: &'r Host,
    entry: &'r Entry,
}

impl Router {
    /// The most specific route that takes the request.
    #[must_use]
    pub fn find(&self, request: &RequestView<'_>) -> Found<'_> {
        let method = self.methods.of(request.method);
        let mut allow = MethodSet::default();
        let found = self.candidates(request, |Candidate { entry, .. }| {
            if !entry.conditions.as_ref().is_none_or(|conditions| conditions.hold(request)) {
                return ControlFlow::Continue(());
            }
            if entry.methods.has(method) {
                return ControlFlow::Break(Match { route: entry.route, prefix_len: entry.prefix_len });
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
        self.hosts_of(request.host).try_for_each(|host| host.candidates(request.path, &mut see))
    }

    /// The host patterns that `host` fits, the most specific first.
    fn hosts_of(&self, host: &str) -> impl Iterator<Item = &Host> {
        let landing = self.hosts.walk(HostPattern::labels(host));
        landing.here().into_iter().chain(landing.proper_prefixes()).map(|host| &**host)
    }
}

impl Host {
    fn candidates<'r, B>(
        &'r self,
        path: &str,
        see: &mut impl FnMut(Candidate<'r>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if !path.starts_with('/') {
            return ControlFlow::Continue(()); // `OPTIONS *` is about the server, not about a resource of a route
        }
        let landing = self.paths.walk(PathPattern::segments(path));
        for entry in landing.here().into_iter().chain(landing.prefixes()).flatten() {
            see(Candidate { host: self, entry })?;
        }
        self.expressions.candidates(path, |entry| see(Candidate { host: self, entry }))
    }
}

impl Expressions {
    fn candidates<'r, B>(&'r self, path: &str, mut see: impl FnMut(&'r Entry) -> ControlFlow<B>) -> ControlFlow<B> {
        if self.entries.is_empty() {
            return ControlFlow::Continue(());
        }
        let matched = self.set.matches(path);
        let entries = self.entries.iter().filter(|(expression, _)| matched.matched(*expression));
        entries.map(|(_, entry)| entry).try_for_each(&mut see)
    }
}
