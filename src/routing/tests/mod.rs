//! Routes as JSON, requests as one line of text.
#![expect(clippy::similar_names, reason = "a router is made of routes")]

mod explain;
mod faults;
mod placed;
mod precedence;
mod reference;

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, Version};
use serde_json::Value;

use super::{Found, MatchConfig, Router};
use crate::model::diagnostic::Diagnostics;
use crate::model::ids::RouteName;
use crate::model::request::{RequestView, Scheme};
use crate::model::source::Spanned;

/// A request written as `GET host/path?query | name: value | name: value`.
pub(super) struct Request {
    method: Method,
    host: String,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
}

impl Request {
    pub(super) fn new(line: &str) -> Self {
        let mut parts = line.split(" | ");
        let (method, target) = parts.next().and_then(|line| line.split_once(' ')).expect("method and target");
        let (url, query) = target.split_once('?').map_or((target, None), |(url, query)| (url, Some(query)));
        let (host, path) = url.find(['/', '*']).and_then(|start| url.split_at_checked(start)).expect("host and path");
        let mut headers = HeaderMap::new();
        for field in parts {
            let (name, value) = field.split_once(": ").expect("a field");
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).expect("a name"),
                HeaderValue::from_bytes(value.as_bytes()).expect("a value"),
            );
        }
        Self {
            method: method.parse().expect("a method"),
            host: host.to_owned(),
            path: path.to_owned(),
            query: query.map(str::to_owned),
            headers,
        }
    }

    pub(super) fn view(&self) -> RequestView<'_> {
        RequestView {
            method: &self.method,
            scheme: Scheme::Https,
            host: &self.host,
            port: None,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
            version: Version::HTTP_11,
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            peer: SocketAddr::from(([127, 0, 0, 1], 1)),
            principal: None,
            route: None,
        }
    }
}

/// Routes in the order of the file.
pub(super) struct Routes(Vec<(RouteName, Spanned<MatchConfig>)>);

impl Routes {
    /// `{ name: match, … }`; names sort as they are written, which is also the order of the file.
    #[track_caller]
    pub(super) fn new(routes: &Value) -> Self {
        let routes = routes.as_object().expect("an object of routes").iter();
        Self(routes.map(|(name, config)| (RouteName::from(name.as_str()), read(config))).collect())
    }

    pub(super) fn build(&self) -> Result<Router, Diagnostics> {
        let mut diagnostics = Diagnostics::default();
        let routes = self.0.iter().enumerate().map(|(index, (name, config))| (index, name, config));
        Router::build(routes, &mut diagnostics).ok_or(diagnostics)
    }

    #[track_caller]
    pub(super) fn router(&self) -> Router {
        self.build().unwrap_or_else(|diagnostics| panic!("{:#?}", diagnostics.as_slice()))
    }

    /// What is found, and over whom: see [`check`]. `explain` must say the same as `find`.
    #[track_caller]
    pub(super) fn answer(&self, router: &Router, request: &Request) -> String {
        let explanation = router.explain(&request.view());
        let mut shown = self.show(router.find(&request.view()));
        assert_eq!(self.show(explanation.found), shown);
        assert_eq!(explanation.choice.is_some(), matches!(explanation.found, Found::Match(_)));
        if let Some(choice) = explanation.choice {
            assert_eq!(choice.name.as_str(), shown);
            if let Some((other, criterion)) = choice.runner_up {
                let _ = write!(shown, " over {other} by {}", criterion.as_str());
            }
        }
        shown
    }

    /// The route's name, `404`, or `405` with the methods that are allowed.
    pub(super) fn show(&self, found: Found<'_>) -> String {
        match found {
            Found::Match(found) => self.0[found.route].0.to_string(),
            Found::NotFound => "404".to_owned(),
            Found::MethodNotAllowed(allow) => format!("405 {}", allow.header_value().to_str().expect("ASCII")),
        }
    }
}

#[track_caller]
pub(super) fn read(config: &Value) -> Spanned<MatchConfig> {
    placed::read(config.clone()).unwrap_or_else(|error| panic!("{config}: {error}"))
}

/// `expected`: the route's name, `404` or `405 ALLOW`; then, if another route would take it too, ` over OTHER by CRITERION`.
#[track_caller]
pub(super) fn check(routes: &Value, cases: &[(&str, &str)]) {
    let routes = Routes::new(routes);
    let router = routes.router();
    for (line, expected) in cases {
        assert_eq!(routes.answer(&router, &Request::new(line)), *expected, "{line}");
    }
}
