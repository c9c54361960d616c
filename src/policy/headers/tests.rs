//! Heads before and after their edits.

use proptest::prelude::*;

use super::*;

fn table(entries: &[(&str, &str)]) -> BTreeMap<String, Spanned<String>> {
    entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned().into())).collect()
}

fn edits(set: &[(&str, &str)], add: &[(&str, &str)], remove: &[&str]) -> Edits {
    let remove = remove.iter().map(|name| (*name).to_owned().into()).collect();
    Edits { set: table(set), add: table(add), remove }
}

fn map(lines: &[(&'static str, &str)]) -> HeaderMap {
    let line = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
    };
    lines.iter().map(line).collect()
}

fn lines(headers: &HeaderMap) -> Vec<String> {
    let mut lines: Vec<String> =
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("visible"))).collect();
    lines.sort();
    lines
}

const ID: HeaderValue = HeaderValue::from_static("id-1");

fn values<'a>(id: &'a HeaderValue, route: &'a str) -> Values<'a> {
    Values { client_ip: "192.0.2.1", request_id: id, host: "a.example", route }
}

fn edited(edits: Edits, route: &str, mut headers: HeaderMap) -> HeaderMap {
    let config = Config { request: Some(edits), response: None };
    let compiled = compile(&config.into(), &mut Diagnostics::default()).expect("valid edits");
    compiled.edit_request(&values(&ID, route), &mut headers);
    headers
}

#[track_caller]
fn check(edits: Edits, before: &[(&'static str, &str)], after: &[&str]) {
    assert_eq!(lines(&edited(edits, "orders", map(before))), after);
}

#[test]
fn removes_then_sets_then_adds() {
    let before = [("x-a", "1"), ("x-b", "1"), ("x-c", "1"), ("x-c", "2")];
    check(edits(&[("X-A", "9")], &[("x-b", "2")], &["x-c"]), &before, &["x-a: 9", "x-b: 1", "x-b: 2"]);
    check(edits(&[], &[("x-c", "3")], &["x-c"]), &before, &["x-a: 1", "x-b: 1", "x-c: 3"]);
    check(edits(&[("x-empty", "")], &[], &[]), &[], &["x-empty: "]);
}

#[test]
fn placeholders_stand_for_the_request() {
    let set = [
        ("x-all", "{client.ip}/{request.id}/{host}/{route}/{header.x-a}"),
        ("x-brace", "{{\"a\":1}}"),
        ("x-copy", "{header.X-A}"),
        ("x-id", "{request.id}"),
    ];
    check(
        edits(&set, &[], &[]),
        &[("x-a", "1")],
        &["x-a: 1", "x-all: 192.0.2.1/id-1/a.example/orders/1", "x-brace: {\"a\":1}", "x-copy: 1", "x-id: id-1"],
    );
}

#[test]
fn an_edit_does_not_see_another() {
    check(
        edits(&[("x-a", "{header.x-b}"), ("x-b", "{header.x-a}")], &[], &[]),
        &[("x-a", "1"), ("x-b", "2")],
        &["x-a: 2", "x-b: 1"],
    );
    check(edits(&[("x-was", "{header.x-a}")], &[], &["x-a"]), &[("x-a", "1")], &["x-was: 1"]);
}

#[test]
fn a_value_that_comes_out_empty_leaves_the_field_out() {
    check(edits(&[("x-a", "{header.x-none}")], &[("x-b", "{header.x-none}")], &[]), &[("x-a", "forged")], &[]);
}

#[test]
fn a_response_may_tell_of_its_request() {
    let config = Config { request: None, response: Some(edits(&[("x-echo", "{header.x-a}")], &[], &["server"])) };
    let compiled = compile(&config.into(), &mut Diagnostics::default()).expect("valid edits");
    assert!(compiled.edits_responses() && !compiled.edits_requests());
    let mut headers = map(&[("server", "x"), ("x-a", "of the response")]);
    compiled.edit_response(&values(&ID, "orders"), &map(&[("x-a", "of the request")]), &mut headers);
    assert_eq!(lines(&headers), ["x-a: of the response", "x-echo: of the request"]);
}

#[test]
fn a_line_break_in_a_route_s_name_stays_in_its_value() {
    let after = edited(edits(&[("x-route", "{route}!")], &[], &[]), "a\r\nx-evil: 1\0", HeaderMap::new());
    assert_eq!(lines(&after), ["x-route: a??x-evil: 1?!"]);
}

#[test]
fn mistakes_come_with_a_way_out() {
    #[track_caller]
    fn check(edits: Edits, told: &str) {
        let config = Config { request: Some(edits), response: None };
        let mut diagnostics = Diagnostics::default();
        assert!(compile(&config.into(), &mut diagnostics).is_none());
        let found = diagnostics.as_slice().first().expect("an error");
        let text = format!("{} {}", found.message, found.help.as_deref().unwrap_or_default());
        assert!(text.contains(told), "{text}");
    }
    check(Edits::default(), "no field is set");
    check(edits(&[("host", "a")], &[], &[]), "rewrite = { host");
    for name in [
        "Connection",
        "transfer-encoding",
        "content-length",
        "upgrade",
        "te",
        "trailer",
        "keep-alive",
        "proxy-connection",
    ] {
        check(edits(&[(name, "a")], &[], &[]), "can't be changed");
        check(edits(&[], &[], &[name]), "can't be changed");
    }
    check(edits(&[("a b", "1")], &[], &[]), "not a field name");
    check(edits(&[("x-a", "1\n2")], &[], &[]), "not a field value");
    check(edits(&[("x-a", "1\n{host}")], &[], &[]), "not a field value");
    check(edits(&[("x-a", "{client.op}")], &[], &[]), "did you mean `{client.ip}`?");
    check(edits(&[("x-a", "{header.a b}")], &[], &[]), "unknown placeholder");
    check(edits(&[("X-A", "1"), ("x-a", "2")], &[], &[]), "edited twice");
    check(edits(&[("x-a", "1")], &[], &["X-A"]), "no need to remove it");
}

proptest! {
    #[test]
    fn a_value_never_breaks_its_line(route in any::<String>(), field in prop::collection::vec(any::<u8>(), 0..20)) {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(&field) {
            headers.insert("x-a", value);
        }
        let after = edited(edits(&[("x-out", "<{route}{header.x-a}>")], &[], &[]), &route, headers);
        let out = after.get("x-out").expect("never empty").as_bytes();
        prop_assert!(!out.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
        prop_assert!(out.starts_with(b"<") && out.ends_with(b">"));
    }
}
