//! The router against a naive one that checks every route and sorts by precedence.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::HashMap;

use proptest::prelude::*;
use proptest::sample::select;
use regex::Regex;
use serde_json::{Map, Value, json};

use super::{Request, Routes};

#[derive(Debug, Clone)]
struct Route {
    hosts: Vec<&'static str>,
    path: &'static str,
    methods: Vec<&'static str>,
    headers: Vec<(&'static str, &'static str)>,
    query: Vec<(&'static str, &'static str)>,
}

#[derive(Debug, Clone)]
struct Asked {
    method: &'static str,
    host: &'static str,
    path: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    query: Vec<(&'static str, &'static str)>,
}

const HOSTS: [&str; 8] = ["*", "*", "a", "*.a", "b.a", "*.b.a", "c.b.a", "1.1"];
const ASKED_HOSTS: [&str; 8] = ["a", "b.a", "c.b.a", "d.c.b.a", "x.a", "1.1", "z", "xa"];
const PATHS: [&str; 14] =
    ["/", "/*", "/a", "/a/", "/a/*", "/a/b", "/a/b/*", "/a//*", "/ab", "~/a.*", "~/a/b|/x", "~.*b", "~/.+", "/x/*"];
const ASKED_PATHS: [&str; 13] =
    ["/", "/a", "/a/", "/a/b", "/a/b/", "/a/b/c", "/a//", "/a//b", "/ab", "/x", "/x/y", "/a/x/b", "//"];

thread_local! {
    static EXPRESSIONS: RefCell<HashMap<&'static str, Regex>> = RefCell::default();
}

fn pairs() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    (select(vec![None, None, Some("1"), Some("2")]), select(vec![None, None, None, Some("1")]))
        .prop_map(|(p, q)| p.map(|value| ("p", value)).into_iter().chain(q.map(|value| ("q", value))).collect())
}

fn subset(of: &'static [&'static str], most: usize) -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::btree_set(select(of), 0..=most).prop_map(|set| set.into_iter().collect())
}

fn route() -> impl Strategy<Value = Route> {
    let hosts = subset(&HOSTS, 2).prop_map(|hosts| if hosts.is_empty() { vec!["*"] } else { hosts });
    let methods = subset(&["GET", "HEAD", "POST", "PURGE"], 2);
    (hosts, select(&PATHS[..]), methods, pairs(), pairs()).prop_map(|(hosts, path, methods, headers, query)| Route {
        hosts,
        path,
        methods,
        headers,
        query,
    })
}

fn asked() -> impl Strategy<Value = Asked> {
    let methods = select(vec!["GET", "GET", "HEAD", "POST", "PURGE", "PUT"]);
    (methods, select(&ASKED_HOSTS[..]), select(&ASKED_PATHS[..]), pairs(), pairs())
        .prop_map(|(method, host, path, headers, query)| Asked { method, host, path, headers, query })
}

impl Route {
    fn config(&self) -> Value {
        let object =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let mut table: Map<String, Value> = Map::new();
        table.insert("host".into(), json!(self.hosts));
        match self.path.strip_prefix('~') {
            Some(regex) => table.insert("path_regex".into(), json!(regex)),
            None => table.insert("path".into(), json!(self.path)),
        };
        if !self.methods.is_empty() {
            table.insert("method".into(), json!(self.methods));
        }
        table.insert("header".into(), Value::Object(object(&self.headers)));
        table.insert("query".into(), Value::Object(object(&self.query)));
        Value::Object(table)
    }

    /// Best rank among the hosts that fit: smaller is better.
    fn host_rank(&self, host: &str) -> Option<(u8, Reverse<usize>)> {
        let rank = |pattern: &&str| match pattern.strip_prefix("*.") {
            Some(suffix) => host.ends_with(&format!(".{suffix}")).then_some((1, Reverse(suffix.len()))),
            None if *pattern == "*" => Some((2, Reverse(0))),
            None => (*pattern == host).then_some((0, Reverse(0))),
        };
        self.hosts.iter().filter_map(rank).min()
    }

    fn path_rank(&self, path: &str) -> Option<(u8, Reverse<usize>)> {
        if let Some(regex) = self.path.strip_prefix('~') {
            let compile = || Regex::new(&format!("^(?:{regex})$")).expect("an expression");
            let found =
                EXPRESSIONS.with_borrow_mut(|known| known.entry(self.path).or_insert_with(compile).is_match(path));
            return found.then_some((2, Reverse(0)));
        }
        match self.path.strip_suffix("/*") {
            Some(prefix) => {
                (path == prefix || path.starts_with(&format!("{prefix}/"))).then_some((1, Reverse(prefix.len())))
            }
            None => (self.path == path).then_some((0, Reverse(0))),
        }
    }

    fn method_rank(&self, method: &str) -> Option<u8> {
        match method {
            _ if self.methods.is_empty() => Some(2),
            _ if self.methods.contains(&method) => Some(0),
            "HEAD" if self.methods.contains(&"GET") => Some(1),
            _ => None,
        }
    }

    fn conflicts_with(&self, other: &Self) -> bool {
        let methods = self.methods.iter().any(|method| other.methods.contains(method));
        self.path == other.path
            && self.headers == other.headers
            && self.query == other.query
            && self.hosts.iter().any(|host| other.hosts.contains(host))
            && (methods || (self.methods.is_empty() && other.methods.is_empty()))
    }
}

fn name(index: usize) -> String {
    format!("r{index:02}")
}

fn naive(routes: &[Route], asked: &Asked) -> String {
    let mut takers = Vec::new();
    let mut allowed = std::collections::BTreeSet::new();
    for (index, route) in routes.iter().enumerate() {
        let (Some(host), Some(path)) = (route.host_rank(asked.host), route.path_rank(asked.path)) else { continue };
        let holds = |wanted: &[(&str, &str)], got: &[(&str, &str)]| wanted.iter().all(|pair| got.contains(pair));
        if !holds(&route.headers, &asked.headers) || !holds(&route.query, &asked.query) {
            continue;
        }
        match route.method_rank(asked.method) {
            Some(method) => {
                takers.push((
                    host,
                    path,
                    method,
                    Reverse(route.headers.len()),
                    Reverse(route.query.len()),
                    name(index),
                ));
            }
            None => allowed.extend(route.methods.iter().flat_map(|method| match *method {
                "GET" => vec!["GET", "HEAD"],
                other => vec![other],
            })),
        }
    }
    takers.sort();
    match takers.as_slice() {
        [] if allowed.is_empty() => "404".to_owned(),
        [] => format!("405 {}", allowed.into_iter().collect::<Vec<_>>().join(", ")),
        [only] => only.5.clone(),
        [first, second, ..] => {
            let criterion = match () {
                () if first.0 != second.0 => "host",
                () if first.1 != second.1 => "path",
                () if first.2 != second.2 => "method",
                () if first.3 != second.3 => "header",
                () if first.4 != second.4 => "query",
                () => "name",
            };
            format!("{} over {} by {criterion}", first.5, second.5)
        }
    }
}

fn written(routes: &[Route]) -> Routes {
    Routes::new(&Value::Object(routes.iter().enumerate().map(|(index, route)| (name(index), route.config())).collect()))
}

impl Asked {
    fn request(&self) -> Request {
        let query: Vec<String> = self.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let headers: Vec<String> = self.headers.iter().map(|(name, value)| format!(" | {name}: {value}")).collect();
        Request::new(&format!("{} {}{}?{}{}", self.method, self.host, self.path, query.join("&"), headers.concat()))
    }
}

proptest! {
    #[test]
    fn the_router_agrees_with_one_that_checks_every_route(
        drawn in prop::collection::vec(route(), 0..24),
        asked in prop::collection::vec(asked(), 32),
    ) {
        let mut routes: Vec<Route> = Vec::new();
        for route in drawn {
            if !routes.iter().any(|other| other.conflicts_with(&route)) {
                routes.push(route);
            }
        }
        let written = written(&routes);
        let router = written.router();
        for asked in asked {
            prop_assert_eq!(written.answer(&router, &asked.request()), naive(&routes, &asked), "{:?}", asked);
        }
    }

    #[test]
    fn exactly_the_routes_that_only_their_names_tell_apart_conflict(one in route(), other in route()) {
        prop_assert_eq!(written(&[one.clone(), other.clone()]).build().is_err(), one.conflicts_with(&other));
        prop_assert!(written(&[one.clone(), one]).build().is_err());
    }

    #[test]
    fn any_text_as_host_path_and_query_is_answered(host in "\\PC{0,20}", path in "\\PC{0,30}", query in "\\PC{0,30}") {
        let routes = Routes::new(&json!({
            "a": { "host": "*.a", "path_regex": "/.*" },
            "b": { "path": "/a/*", "query": { "q": { "regex": ".*" } } },
            "c": "/*",
        }));
        let router = routes.router();
        let request = Request::new("GET h/");
        let mut view = request.view();
        (view.host, view.path, view.query) = (host.as_str(), path.as_str(), Some(query.as_str()));
        let _ = router.find(&view);
        let _ = router.explain(&view);
    }
}
