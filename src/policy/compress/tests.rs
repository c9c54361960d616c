//! Heads of responses, what becomes of them and what they look like afterwards.

use http::header::{ACCEPT_ENCODING, VARY};
use proptest::prelude::*;

use super::*;

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

fn compiled() -> Compress {
    compile(&Config::default(), &mut Diagnostics::default()).expect("the defaults are valid")
}

fn plan(accepts: &str, method: &Method, status: u16, response: &[(&'static str, &str)], length: Option<u64>) -> Plan {
    let compress = compiled();
    let request = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_str(accepts).expect("visible"))]);
    let status = StatusCode::from_u16(status).expect("a status");
    compress.decide(compress.wanted(&request), method, status, &map(response), length)
}

const HTML: (&str, &str) = ("content-type", "Text/HTML; charset=utf-8");

#[track_caller]
fn check(status: u16, response: &[(&'static str, &str)], length: Option<u64>, expected: Result<Algorithm, &str>) {
    match (plan("gzip, br", &Method::GET, status, response, length), expected) {
        (Plan::Encode(chosen), Ok(algorithm)) => assert_eq!(chosen, algorithm),
        (Plan::Leave { reason, .. }, Err(part)) => assert!(reason.contains(part), "{reason}"),
        (plan, expected) => panic!("{plan:?}, expected {expected:?}"),
    }
}

#[test]
fn text_is_compressed_and_pictures_are_not() {
    check(200, &[HTML], None, Ok(Algorithm::Br));
    check(404, &[HTML], Some(5000), Ok(Algorithm::Br));
    for kind in ["application/json", "application/problem+json", "image/svg+xml", "text/event-stream"] {
        check(200, &[("content-type", kind)], None, Ok(Algorithm::Br));
    }
    for kind in ["image/png", "application/octet-stream", "textual/x", "", "+json"] {
        let expected = if kind == "+json" { Ok(Algorithm::Br) } else { Err("content type") };
        check(200, &[("content-type", kind)], None, expected);
    }
    check(200, &[], None, Err("content type"));
    check(200, &[("content-type", "text/html; name=\"\u{e9}\"")], None, Ok(Algorithm::Br));
}

#[test]
fn grpc_is_never_compressed() {
    for kind in ["application/grpc", "application/grpc+json", "Application/gRPC-web+proto; x=y"] {
        check(200, &[("content-type", kind)], None, Err("gRPC"));
    }
    let written = |kind: &str| vec![Spanned::from(kind.to_owned())].into();
    let config = Config { types: written("application/grpc+json"), ..Config::default() };
    assert!(compile(&config, &mut Diagnostics::default()).is_none());
    let config = Config { types: written("application/*"), ..Config::default() };
    let every = compile(&config, &mut Diagnostics::default()).expect("valid");
    let wanted = Wanted { algorithm: Some(Algorithm::Br), holds_weak_tag: false };
    let plan = every.decide(wanted, &Method::POST, StatusCode::OK, &map(&[("content-type", "application/grpc")]), None);
    assert!(matches!(plan, Plan::Leave { depends: false, .. }));
}

#[test]
fn what_must_not_be_changed_is_left_alone() {
    check(200, &[HTML, ("content-encoding", "gzip")], None, Err("encoded already"));
    check(200, &[HTML, ("content-encoding", "identity")], None, Ok(Algorithm::Br));
    check(200, &[HTML, ("cache-control", "public, no-transform")], None, Err("no-transform"));
    check(200, &[HTML, ("content-encoding", "Identity, ,")], None, Ok(Algorithm::Br));
    check(200, &[HTML, ("content-encoding", "\u{e9}")], None, Err("encoded already"));
    check(200, &[HTML, ("cache-control", "x=\"\u{e9}\",NO-TRANSFORM")], None, Err("no-transform"));
    check(206, &[HTML], None, Err("a part"));
    check(200, &[HTML, ("content-range", "bytes 0-1/2")], None, Err("a part"));
    for status in [101, 204, 205, 304] {
        check(status, &[HTML], None, Err("no body"));
    }
    check(200, &[HTML], Some(1023), Err("short"));
    check(200, &[HTML], Some(1024), Ok(Algorithm::Br));
}

#[test]
fn vary_is_owed_whenever_another_client_would_get_another_answer() {
    #[track_caller]
    fn check(accepts: &str, method: &Method, status: u16, length: Option<u64>, depends: bool) {
        let plan = plan(accepts, method, status, &[HTML], length);
        assert!(matches!(plan, Plan::Leave { depends: found, .. } if found == depends), "{plan:?}");
        let mut headers = map(&[HTML]);
        assert!(compiled().apply(plan, &mut headers).expect("nothing to make").is_none());
        assert_eq!(headers.contains_key(VARY), depends);
    }
    check("identity", &Method::GET, 200, None, true);
    check("gzip", &Method::GET, 304, None, true);
    check("gzip", &Method::GET, 200, Some(3), false);
    check("gzip", &Method::GET, 204, None, false);
}

#[test]
fn the_head_tells_of_the_compressed_bytes() {
    let compress = compiled();
    let mut headers = map(&[
        HTML,
        ("content-length", "5000"),
        ("accept-ranges", "bytes"),
        ("etag", "\"x\""),
        ("content-digest", "sha-256=:x:"),
        ("vary", "Origin"),
    ]);
    let encoder = compress.apply(Plan::Encode(Algorithm::Zstd), &mut headers).expect("an encoder");
    assert!(encoder.is_some());
    assert_eq!(
        lines(&headers),
        [
            "content-encoding: zstd",
            "content-type: Text/HTML; charset=utf-8",
            "etag: W/\"x\"",
            "vary: Accept-Encoding",
            "vary: Origin",
        ]
    );
}

#[test]
fn a_head_request_gets_the_head_that_get_would_get() {
    let upstream = [HTML, ("content-length", "5000"), ("etag", "\"x\"")];
    let of = |method: &Method, length| {
        let mut headers = map(&upstream);
        let encoder = compiled().apply(plan("gzip", method, 200, &upstream, length), &mut headers).expect("an encoder");
        assert_eq!(encoder.is_some(), method == Method::GET);
        lines(&headers)
    };
    assert_eq!(of(&Method::HEAD, None), of(&Method::GET, Some(5000)));
    assert_eq!(plan("gzip", &Method::HEAD, 200, &upstream, Some(5000)), Plan::Describe(Algorithm::Gzip));
    let short = [HTML, ("content-length", "5")];
    assert!(matches!(plan("gzip", &Method::HEAD, 200, &short, None), Plan::Leave { depends: false, .. }));
}

#[test]
fn a_304_names_the_tag_under_which_the_client_holds_its_copy() {
    #[track_caller]
    fn check(if_none_match: &str, upstream: &str, expected: &str) {
        let compress = compiled();
        let wanted = compress.wanted(&map(&[("if-none-match", if_none_match), ("accept-encoding", "gzip")]));
        let mut headers = map(&[("etag", upstream), ("repr-digest", "x"), ("content-length", "9")]);
        let plan = compress.decide(wanted, &Method::GET, StatusCode::NOT_MODIFIED, &headers, None);
        assert!(compress.apply(plan, &mut headers).expect("nothing to make").is_none());
        assert_eq!(headers.get(ETAG).expect("a tag"), expected);
        assert_eq!(headers.contains_key("repr-digest"), !expected.starts_with("W/"));
        assert!(headers.contains_key(VARY) && !headers.contains_key(CONTENT_ENCODING));
    }
    check("W/\"x\"", "\"x\"", "W/\"x\"");
    check("\"a\", W/\"x\"", "\"x\"", "W/\"x\"");
    check("W/\"x\"", "W/\"x\"", "W/\"x\"");
    check("\"x\"", "\"x\"", "\"x\"");
}

#[test]
fn a_strong_tag_becomes_weak() {
    #[track_caller]
    fn check(before: &str, after: Option<&str>) {
        let mut headers = map(&[("etag", before)]);
        weaken_tag(&mut headers);
        assert_eq!(headers.get(ETAG).map(|tag| tag.to_str().expect("visible")), after, "{before:?}");
    }
    check("\"x\"", Some("W/\"x\""));
    check("\"\"", Some("W/\"\""));
    check("\"a,b W/\"", Some("W/\"a,b W/\""));
    check("W/\"x\"", Some("W/\"x\""));
    check("W/\"\"", Some("W/\"\""));
    check("unquoted", None);
    check("w/\"x\"", None);
    check("", None);
}

#[test]
fn vary_names_accept_encoding_once() {
    #[track_caller]
    fn check(before: &[(&'static str, &str)], after: &[&str]) {
        for plan in [Plan::Encode(Algorithm::Br), Plan::Confirm, Plan::Leave { depends: true, reason: "" }] {
            let mut headers = map(before);
            assert!(compiled().apply(plan, &mut headers).is_ok());
            let found: Vec<_> = headers.get_all(VARY).iter().collect();
            assert_eq!(found, after, "{plan:?}");
        }
    }
    check(&[], &["Accept-Encoding"]);
    check(&[("vary", "Origin")], &["Origin", "Accept-Encoding"]);
    check(&[("vary", "origin, accept-encoding")], &["origin, accept-encoding"]);
    check(&[("vary", "Origin"), ("vary", "ACCEPT-ENCODING")], &["Origin", "ACCEPT-ENCODING"]);
    check(&[("vary", "*")], &["*"]);
}

#[test]
fn mistakes_are_all_reported() {
    let config = Config {
        algorithms: vec![Algorithm::Gzip.into(), Algorithm::Gzip.into()].into(),
        types: ["text", "text/html; charset=utf-8", "*/*", "*"].map(|kind| kind.to_owned().into()).to_vec().into(),
        ..Config::default()
    };
    let mut diagnostics = Diagnostics::default();
    assert!(compile(&config, &mut diagnostics).is_none());
    assert_eq!(diagnostics.errors(), 5);
    let empty = Config { algorithms: Vec::new().into(), types: Vec::new().into(), ..Config::default() };
    let mut diagnostics = Diagnostics::default();
    assert!(compile(&empty, &mut diagnostics).is_none());
    assert_eq!(diagnostics.errors(), 2);
}

proptest! {
    #[test]
    fn nothing_is_compressed_twice(coding in "(gzip|br|zstd|identity|x-own)?(, gzip)?", status in 100_u16..600) {
        let plan = plan("*", &Method::GET, status, &[HTML, ("content-encoding", &coding)], None);
        let is_encoded = !coding.is_empty() && coding != "identity";
        prop_assert!(!(is_encoded && matches!(plan, Plan::Encode(_))));
    }
}
