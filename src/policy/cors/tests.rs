//! Requests of browsers and what they are told.

use proptest::prelude::*;

use super::*;
use crate::model::request::Scheme;

fn strings(entries: &[&str]) -> Vec<Spanned<String>> {
    entries.iter().map(|entry| (*entry).to_owned().into()).collect()
}

fn config(origins: &[&str]) -> Config {
    Config {
        origins: strings(origins).into(),
        methods: strings(&["GET", "PUT"]),
        headers: strings(&["authorization", "x-tenant"]),
        expose_headers: strings(&["x-total"]),
        credentials: true.into(),
        max_age: Some(Period::from_secs(3600).into()),
    }
}

fn public() -> Config {
    Config { origins: strings(&["*"]).into(), ..Config::default() }
}

fn map(lines: &[(&'static str, &str)]) -> HeaderMap {
    let line = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).expect("visible"))
    };
    lines.iter().map(line).collect()
}

fn lines(headers: &HeaderMap) -> Vec<String> {
    let mut lines: Vec<String> =
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("visible"))).collect();
    lines.sort();
    lines
}

fn decide(config: &Config, method: &Method, headers: &HeaderMap) -> (Cors, Decision, Ruling) {
    let cors = compile(config, &mut Diagnostics::default()).expect("valid settings");
    let request = RequestView {
        method,
        scheme: Scheme::Https,
        host: "api.example.com",
        port: None,
        path: "/",
        query: None,
        headers,
        version: http::Version::HTTP_11,
        client: std::net::IpAddr::from([192, 0, 2, 1]),
        peer: std::net::SocketAddr::from(([192, 0, 2, 1], 5000)),
        principal: None,
        route: None,
    };
    let (decision, ruling) = cors.decide(&request);
    (cors, decision, ruling)
}

#[track_caller]
fn check_preflight(config: &Config, request: &[(&'static str, &str)], answer: &[&str]) {
    let (_, decision, ruling) = decide(config, &Method::OPTIONS, &map(request));
    let Ruling::Answer(given) = ruling else { panic!("no preflight: {decision:?}") };
    assert_eq!((decision.verdict, given.status), (Verdict::Answer, StatusCode::NO_CONTENT));
    assert_eq!(lines(&given.headers), answer);
}

#[test]
fn a_preflight_is_answered_with_the_lists() {
    let ask = [("origin", "https://a.example"), ("access-control-request-method", "PUT")];
    check_preflight(
        &config(&["https://a.example"]),
        &ask,
        &[
            "access-control-allow-credentials: true",
            "access-control-allow-headers: authorization, x-tenant",
            "access-control-allow-methods: GET, PUT",
            "access-control-allow-origin: https://a.example",
            "access-control-max-age: 3600",
            "vary: Origin",
        ],
    );
    check_preflight(
        &public(),
        &ask,
        &["access-control-allow-methods: GET, HEAD, POST", "access-control-allow-origin: *"],
    );
}

#[test]
fn a_preflight_of_another_origin_gets_no_cors_fields() {
    let ask = [("origin", "https://b.example"), ("access-control-request-method", "PUT")];
    check_preflight(&config(&["https://a.example"]), &ask, &["vary: Origin"]);
}

#[track_caller]
fn check_response(config: &Config, request: &[(&'static str, &str)], upstream: &[(&'static str, &str)], sent: &[&str]) {
    let (cors, decision, ruling) = decide(config, &Method::GET, &map(request));
    let Ruling::GoOn(grant) = ruling else { panic!("answered: {decision:?}") };
    let mut headers = map(upstream);
    cors.apply(&grant, &mut headers);
    assert_eq!((decision.verdict, lines(&headers)), (Verdict::Allow, sent.iter().map(ToString::to_string).collect()));
}

#[test]
fn a_listed_origin_may_read_the_response() {
    check_response(
        &config(&["https://a.example"]),
        &[("origin", "https://a.example")],
        &[("vary", "Accept")],
        &[
            "access-control-allow-credentials: true",
            "access-control-allow-origin: https://a.example",
            "access-control-expose-headers: x-total",
            "vary: Accept",
            "vary: Origin",
        ],
    );
}

#[test]
fn the_upstream_s_own_fields_give_way() {
    let upstream = [("access-control-allow-origin", "*"), ("access-control-max-age", "1"), ("etag", "\"x\"")];
    check_response(
        &config(&["https://a.example"]),
        &[("origin", "https://b.example")],
        &upstream,
        &["etag: \"x\"", "vary: Origin"],
    );
    check_response(&config(&["https://a.example"]), &[], &upstream, &["etag: \"x\"", "vary: Origin"]);
}

#[test]
fn every_origin_shares_one_response() {
    check_response(&public(), &[], &[], &["access-control-allow-origin: *"]);
    check_response(&public(), &[("origin", "https://b.example")], &[], &["access-control-allow-origin: *"]);
}

#[test]
fn two_origins_are_none() {
    let twice = [("origin", "https://a.example"), ("origin", "https://a.example")];
    check_response(&config(&["https://a.example"]), &twice, &[], &["vary: Origin"]);
}

#[test]
fn options_is_a_preflight_only_with_both_fields() {
    let (origin, method) = (("origin", "https://a.example"), ("access-control-request-method", "PUT"));
    let is_preflight = |verb: &Method, lines: &[(&'static str, &str)]| requested_method(verb, &map(lines)).is_some();
    assert!(is_preflight(&Method::OPTIONS, &[origin, method]));
    assert!(!is_preflight(&Method::OPTIONS, &[origin]));
    assert!(!is_preflight(&Method::OPTIONS, &[method]));
    assert!(!is_preflight(&Method::GET, &[origin, method]));
}

#[test]
fn mistakes_are_all_reported() {
    #[track_caller]
    fn check(config: &Config, codes: &[&str]) {
        let mut diagnostics = Diagnostics::default();
        assert!(compile(config, &mut diagnostics).is_none());
        assert_eq!(diagnostics.as_slice().iter().map(|found| found.code).collect::<Vec<_>>(), codes);
    }
    check(&Config::default(), &["empty_list"]);
    check(&Config { credentials: true.into(), ..public() }, &["bad_value"]);
    let stars = Config { headers: strings(&["*"]), methods: strings(&["*"]), ..config(&["https://a.example"]) };
    check(&stars, &["bad_value"; 2]);
    check(&Config { methods: strings(&["get", "P T"]), headers: strings(&["a b"]), ..public() }, &["bad_value"; 3]);
}

proptest! {
    #[test]
    fn credentials_go_to_listed_origins_only(origin in "(https?://)?[a-c]{1,2}(\\.example)?(:[0-9]{1,3})?") {
        let request = map(&[("origin", &origin)]);
        let (cors, _, ruling) = decide(&config(&["https://a.example", "https://*.b.example"]), &Method::GET, &request);
        let Ruling::GoOn(grant) = ruling else { return Err(TestCaseError::fail("answered")) };
        let mut headers = HeaderMap::new();
        cors.apply(&grant, &mut headers);
        let is_listed = origin == "https://a.example";
        prop_assert_eq!(headers.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS), is_listed);
        prop_assert_eq!(headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN), is_listed);
        prop_assert!(headers.contains_key(http::header::VARY));
    }
}
