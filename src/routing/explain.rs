//! Why a request got the route it got, or none.
//!
//! Walks the same candidates as [`Router::find`], in the same order, to their end instead of to the first that fits.

use std::fmt;
use std::ops::ControlFlow;

use serde::Serialize;

use super::pattern::PathPattern;
use super::{Allow, Candidate, Found, Host, MethodSet, Router, Rule};
use crate::model::diagnostic::did_you_mean;
use crate::model::ids::RouteName;
use crate::model::request::RequestView;

/// What decides between routes, in order of precedence; also what a near miss missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Criterion {
    /// Exact host, longest wildcard, any host.
    Host,
    /// Exact path, longest prefix, expression.
    Path,
    /// Named method, `HEAD` of a named `GET`, any method.
    Method,
    /// More header conditions.
    Header,
    /// More query conditions.
    Query,
    /// Alphabetical order of the names.
    Name,
}

impl Criterion {
    /// Its name, as in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Path => "path",
            Self::Method => "method",
            Self::Header => "header",
            Self::Query => "query",
            Self::Name => "name",
        }
    }
}

/// What [`Router::explain`] says.
#[derive(Debug, Clone)]
pub struct Explanation<'r> {
    /// What [`Router::find`] returns.
    pub found: Found<'r>,
    /// The route, and against which other one it had to stand; `None` when no route takes the request.
    pub choice: Option<Choice<'r>>,
    /// Routes that almost took the request, the most specific first; at most [`Explanation::MAX_MISSES`].
    pub misses: Vec<Miss<'r>>,
}

/// The route that takes the request.
#[derive(Debug, Clone)]
pub struct Choice<'r> {
    /// Its name.
    pub name: &'r RouteName,
    /// The one of its host patterns that fits.
    pub host: String,
    /// Its path pattern.
    pub path: String,
    /// The next most specific route that takes the request too, and what decided between the two.
    pub runner_up: Option<(&'r RouteName, Criterion)>,
}

/// A route that would have taken the request but for these.
#[derive(Debug, Clone)]
pub struct Miss<'r> {
    /// The route's name.
    pub name: &'r RouteName,
    /// The index that the route was built with.
    pub route: usize,
    /// All that was missing.
    pub missing: Vec<Missing>,
}

/// A condition that the request does not meet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Of what kind.
    pub criterion: Criterion,
    /// What the route asks for.
    pub wanted: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.criterion.as_str(), self.wanted)
    }
}

impl Explanation<'_> {
    /// More near misses than anybody reads.
    pub const MAX_MISSES: usize = 16;
}

impl Router {
    /// Why [`Router::find`] returns what it returns. For people: it allocates and looks at routes of other hosts.
    #[must_use]
    pub fn explain(&self, request: &RequestView<'_>) -> Explanation<'_> {
        let mut takers: Vec<Candidate<'_>> = Vec::new();
        let mut misses: Vec<Miss<'_>> = Vec::new();
        let _ = self.candidates(request, |candidate| {
            let missing = self.missing(candidate, request);
            if !missing.is_empty() {
                self.record(&mut misses, candidate, missing);
            } else if takers.iter().all(|taker| taker.entry.rule != candidate.entry.rule) {
                takers.push(candidate);
            }
            ControlFlow::<()>::Continue(())
        });
        misses.retain(|miss| takers.iter().all(|taker| taker.entry.route as usize != miss.route));
        if takers.is_empty() {
            self.look_at_other_hosts(request, &mut misses);
        }
        if takers.is_empty() && misses.is_empty() {
            misses.extend(self.nearest_path(request));
        }
        Explanation { found: self.find(request), choice: self.choice(&takers), misses }
    }

    fn choice(&self, takers: &[Candidate<'_>]) -> Option<Choice<'_>> {
        let winner = takers.first()?;
        let rule = self.rule(winner.entry)?;
        let runner_up =
            takers.get(1).and_then(|second| Some((&self.rule(second.entry)?.name, self.deciding(*winner, *second))));
        Some(Choice { name: &rule.name, host: self.show_host(winner.host), path: rule.path.to_string(), runner_up })
    }

    /// The first criterion by which the two differ.
    fn deciding(&self, winner: Candidate<'_>, second: Candidate<'_>) -> Criterion {
        let facets = |candidate: Candidate<'_>| {
            let rule = self.rule(candidate.entry);
            let path = rule.map(|rule| match &rule.path {
                PathPattern::Exact(_) => (0, 0),
                PathPattern::Prefix(prefix) => (1, prefix.len()),
                PathPattern::Regex(_) => (2, 0),
            });
            let counts = rule.map(|rule| (rule.conditions.headers.len(), rule.conditions.query.len()));
            (path, candidate.entry.standing, counts.unzip())
        };
        let (won, lost) = (facets(winner), facets(second));
        match () {
            () if winner.host != second.host => Criterion::Host,
            () if won.0 != lost.0 => Criterion::Path,
            () if won.1 != lost.1 => Criterion::Method,
            () if won.2.0 != lost.2.0 => Criterion::Header,
            () if won.2.1 != lost.2.1 => Criterion::Query,
            () => Criterion::Name,
        }
    }

    /// What keeps the request from a candidate; nothing when the candidate takes it.
    fn missing(&self, Candidate { entry, .. }: Candidate<'_>, request: &RequestView<'_>) -> Vec<Missing> {
        let mut missing = Vec::new();
        if !entry.methods.has(self.methods.of(request.method)) {
            missing.push(Missing { criterion: Criterion::Method, wanted: self.show_methods(entry.methods) });
        }
        let Some(Rule { conditions, .. }) = self.rule(entry) else { return missing };
        let lacking = |criterion, wanted: String| Missing { criterion, wanted };
        let headers = conditions.headers.iter().filter(|condition| !condition.holds(request));
        missing.extend(headers.map(|condition| lacking(Criterion::Header, condition.to_string())));
        let query = conditions.query.iter().filter(|condition| !condition.holds(request));
        missing.extend(query.map(|condition| lacking(Criterion::Query, condition.to_string())));
        missing
    }

    fn show_host(&self, host: u32) -> String {
        self.hosts.get(host as usize).map(|host| host.pattern.to_string()).unwrap_or_default()
    }

    fn show_methods(&self, set: MethodSet) -> String {
        Allow { table: &self.methods, set }.iter().map(http::Method::as_str).collect::<Vec<_>>().join(" or ")
    }

    /// Adds a near miss. A route that stands twice (`HEAD` of a named `GET`) is told by the entry that missed least.
    fn record<'r>(&'r self, misses: &mut Vec<Miss<'r>>, candidate: Candidate<'r>, missing: Vec<Missing>) {
        let Some(rule) = self.rule(candidate.entry) else { return };
        match misses.iter().position(|miss| miss.route == rule.route) {
            Some(at) => {
                if let Some(known) = misses.get_mut(at).filter(|known| missing.len() < known.missing.len()) {
                    known.missing = missing;
                }
            }
            None if misses.len() < Explanation::MAX_MISSES => {
                misses.push(Miss { name: &rule.name, route: rule.route, missing });
            }
            None => {}
        }
    }

    /// Routes that miss the host alone.
    fn look_at_other_hosts<'r>(&'r self, request: &RequestView<'_>, misses: &mut Vec<Miss<'r>>) {
        let asked: Vec<u32> = self.hosts_of(request.host).collect();
        let mut others: Vec<(u32, &Host)> = (0..).zip(&self.hosts).filter(|(host, _)| !asked.contains(host)).collect();
        others.sort_by_key(|(_, host)| &host.pattern);
        for (host, _) in others {
            let _ = self.candidates_of(host, request.path, |candidate| {
                if self.missing(candidate, request).is_empty() {
                    let wanted = self.show_host(host);
                    self.record(misses, candidate, vec![Missing { criterion: Criterion::Host, wanted }]);
                }
                ControlFlow::<()>::Continue(())
            });
        }
    }

    /// The route of a fitting host whose path is spelt most like the request's.
    fn nearest_path(&self, request: &RequestView<'_>) -> Option<Miss<'_>> {
        let literal = |rule: &&Rule| !matches!(rule.path, PathPattern::Regex(_));
        let rules: Vec<(String, &Rule)> = self
            .hosts_of(request.host)
            .flat_map(|host| self.rules.iter().filter(move |rule| rule.hosts.contains(&host)))
            .filter(literal)
            .map(|rule| (rule.path.to_string(), rule))
            .collect();
        let nearest = did_you_mean(request.path, rules.iter().map(|(path, _)| path.as_str()))?;
        let (path, rule) = rules.iter().find(|(path, _)| path == nearest)?;
        let missing = vec![Missing { criterion: Criterion::Path, wanted: path.clone() }];
        Some(Miss { name: &rule.name, route: rule.route, missing })
    }
}
