//! What is refused at build time, and what is said about it.

use serde_json::{Value, json};

use super::super::MatchConfig;
use super::{Routes, placed};
use crate::model::diagnostic::{Diagnostic, Diagnostics, Severity};

#[track_caller]
fn findings(routes: &Value) -> Vec<Diagnostic> {
    let mut diagnostics = Diagnostics::default();
    let routes = Routes::new(routes);
    let router = super::Router::build(
        routes.0.iter().enumerate().map(|(index, (name, config))| (index, name, config)),
        &mut diagnostics,
    );
    assert_eq!(router.is_none(), diagnostics.has_errors());
    diagnostics.as_slice().to_vec()
}

/// One finding for `config`, whose message and help contain these.
#[expect(clippy::needless_pass_by_value, reason = "literals read better without a `&` each")]
#[track_caller]
fn check(config: Value, message: &str, help: &str) {
    let found = findings(&json!({ "r": config }));
    let [diagnostic] = found.as_slice() else { panic!("{config}: {found:#?}") };
    assert_eq!((diagnostic.code, diagnostic.severity), ("bad_value", Severity::Error));
    assert!(diagnostic.message.contains(message), "{}", diagnostic.message);
    assert!(diagnostic.help.as_deref().unwrap_or_default().contains(help), "{:?}", diagnostic.help);
    assert!(help.is_empty() != diagnostic.help.is_some(), "{:?}", diagnostic.help);
}

#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "literals read better without a `&` each")]
fn check_conflict(one: Value, other: Value, shown: Option<&str>) {
    let found = findings(&json!({ "a": one, "b": other }));
    match (found.as_slice(), shown) {
        ([], None) => {}
        ([conflict], Some(shown)) => {
            assert_eq!((conflict.code, conflict.severity), ("route_conflict", Severity::Error));
            assert!(conflict.message.contains("\"a\" and \"b\""), "{}", conflict.message);
            assert!(conflict.message.ends_with(shown), "{}", conflict.message);
            assert_eq!((conflict.related.len(), conflict.span.is_some(), conflict.help.is_some()), (1, true, true));
        }
        _ => panic!("{one} and {other}: {found:#?}"),
    }
}

#[test]
fn routes_that_only_their_names_tell_apart_conflict() {
    check_conflict(json!("/a"), json!("/a"), Some("any method /a"));
    check_conflict(json!("h.test/a/*"), json!({ "host": "h.test", "path": "/a/*" }), Some("any method h.test/a/*"));
    check_conflict(json!("/*"), json!({}), Some("any method /*"));
    check_conflict(json!({ "host": ["x", "y"] }), json!({ "host": ["y", "z"] }), Some("any method y/*"));
    check_conflict(json!({ "method": ["GET", "POST"] }), json!({ "method": ["DELETE", "POST"] }), Some("POST /*"));
    check_conflict(
        json!({ "header": { "X-A": "1", "b": { "present": true } } }),
        json!({ "header": { "B": { "present": true }, "x-a": "1" } }),
        Some("any method /* header \"b\" is present header \"x-a\" = \"1\""),
    );
    check_conflict(
        json!({ "path_regex": "/a.*" }),
        json!({ "path_regex": "/a.*" }),
        Some("any method on host *, path_regex /a.*"),
    );
}

#[test]
fn routes_that_differ_in_any_condition_do_not_conflict() {
    check_conflict(json!("/a"), json!("/a/"), None);
    check_conflict(json!("/a"), json!("/a/*"), None);
    check_conflict(json!("h/a"), json!("*.h/a"), None);
    check_conflict(json!({ "method": "GET" }), json!({}), None);
    check_conflict(json!({ "method": "GET" }), json!({ "method": "HEAD" }), None);
    check_conflict(json!({ "method": "GET" }), json!({ "method": ["POST", "PUT"] }), None);
    check_conflict(json!({ "header": { "a": "1" } }), json!({ "header": { "a": "2" } }), None);
    check_conflict(json!({ "header": { "a": "1" } }), json!({ "query": { "a": "1" } }), None);
    check_conflict(json!({ "header": { "a": "1" } }), json!({ "header": { "a": { "regex": "1" } } }), None);
    check_conflict(json!({ "path_regex": "/a.*" }), json!({ "path_regex": "/a.+" }), None);
}

#[test]
fn each_pair_of_conflicting_routes_is_told_once() {
    let same = json!({ "host": ["x", "y"], "method": ["GET", "POST"] });
    assert_eq!(findings(&json!({ "a": same, "b": same, "c": same })).len(), 2);
}

#[test]
fn hosts_are_refused_with_the_spelling_that_was_meant() {
    check(json!("API.example.com/"), "not in the form", "write \"api.example.com\"");
    check(json!("example.com./"), "not in the form", "write \"example.com\"");
    check(json!("*.Example.com/"), "not in the form", "write \"*.example.com\"");
    check(json!("[0::1]/"), "not in the form", "write \"[::1]\"");
    check(json!("example.com:8080/"), "without their port", "write \"example.com\"");
    check(json!("example.com:/"), "without their port", "write \"example.com\"");
    check(json!("exam*.com/"), "`*` stands only", "*.example.com");
    check(json!("a.*.com/"), "`*` stands only", "*.example.com");
    check(json!("*.*.com/"), "`*` stands only", "*.example.com");
    check(json!("*.0.0.1/"), "an IP address", "");
    check(json!("*.[::1]/"), "an IP address", "");
    check(json!({ "host": "http://a.test" }), "no scheme", "the host alone");
    check(json!({ "host": "::1" }), "in brackets", "write \"[::1]\"");
    check(json!({ "host": "müller.test" }), "no host name has", "xn--");
    check(json!({ "host": "" }), "empty", "");
    check(json!({ "host": "a..b" }), "label", "");
    check(json!({ "host": [] }), "an empty list of hosts", "");
    check(json!({ "host": ["a", "b", "a"] }), "in the list twice: \"a\"", "");
}

#[test]
fn paths_are_refused_with_the_spelling_that_was_meant() {
    check(json!("example.com"), "neither", "\"example.com/*\"");
    check(json!({ "path": "orders" }), "begins with `/`", "write \"/orders\"");
    check(json!({ "path": "" }), "begins with `/`", "write \"/\"");
    check(json!("/a*"), "`*` stands only at the end", "path_regex");
    check(json!("/a/*/b"), "`*` stands only at the end", "path_regex");
    check(json!("/a/*/*"), "`*` stands only at the end", "path_regex");
    check(json!("/orders/{id}"), "path templates", "path_regex");
    check(json!("/a?b=1"), "no query", "query = ");
    check(json!("/a#b"), "fragment", "");
    check(json!("/a b"), "space", "");
    check(json!("/é"), "not ASCII", "");
    check(json!("/%zz"), "percent sign", "");
    check(json!("/%7euser/*"), "not in the form", "write \"/~user/*\"");
    check(json!("/caf%c3%a9"), "not in the form", "write \"/caf%C3%A9\"");
    check(json!("/a/../b/*"), "not in the form", "write \"/b/*\"");
    check(json!("/a/.."), "not in the form", "write \"/\"");
    check(json!("/../a"), "climbs", "raw_path");
    check(json!("/a%2Fb"), "hides a slash", "raw_path");
    check(json!({ "path": "/a", "path_regex": "/b" }), "not both", "");
}

#[test]
fn expressions_methods_and_conditions_are_checked() {
    check(json!({ "path_regex": "/(" }), "unclosed group: \"/(\"", "");
    check(json!({ "path_regex": "/a)(b" }), "unopened group", "");
    check(json!({ "path_regex": "/(\\w{200}){200}" }), "too large", "(?-u");
    check(json!({ "method": "get" }), "case-sensitive", "write \"GET\"");
    check(json!({ "method": "GET,POST" }), "not a method", "");
    check(json!({ "method": "" }), "not a method", "");
    check(json!({ "method": ["GET", "TRACE"] }), "refused before any route", "leave");
    check(json!({ "method": [] }), "an empty list of methods", "");
    check(json!({ "method": ["GET", "GET"] }), "in the list twice: \"GET\"", "");
    check(json!({ "header": { "a b": "1" } }), "not a header name: \"a b\"", "");
    check(json!({ "header": { "Host": "a" } }), "not matched as a header", "host = ");
    check(json!({ "header": { "a": " 1" } }), "no header field has this value", "");
    check(json!({ "header": { "a": "1\n" } }), "no header field has this value", "");
    check(json!({ "header": { "a": "1", "A": "1" } }), "written twice", "");
    check(json!({ "header": { "a": {} } }), "one of `regex` and `present`", "present = true");
    check(
        json!({ "query": { "a": { "regex": "x", "present": true } } }),
        "one of `regex` and `present`",
        "present = true",
    );
    check(json!({ "query": { "a": { "regex": "[" } } }), "unclosed character class", "");
}

#[test]
fn what_is_probably_a_mistake_is_a_warning() {
    let check = |config: Value, code: &str| {
        let found = findings(&json!({ "r": config }));
        let found: Vec<_> = found.iter().map(|diagnostic| (diagnostic.code, diagnostic.severity)).collect();
        assert_eq!(found, [(code, Severity::Warning)]);
    };
    check(json!({ "path_regex": "orders/.*" }), "dead_pattern");
    check(json!({ "method": "purge" }), "lower_case_method");
}

#[test]
fn all_mistakes_are_told_at_once_each_at_its_own_place() {
    let found = findings(&json!({
        "a": { "host": ["ok.test", "BAD.test", "ok..test"], "method": "get", "path": "x", "query": { "q": { "regex": "(" } } },
        "b": "also bad",
    }));
    // places count from 0: match, host, its three, method, path, query's value, its expression
    let places: Vec<_> = found.iter().filter_map(|diagnostic| Some(diagnostic.span?.start)).collect();
    assert_eq!(places, [3, 6, 5, 8, 0], "{found:#?}");
}

#[test]
fn more_methods_than_the_table_holds_are_refused() {
    let methods: Vec<String> = (0..64).map(|n| format!("M{n}")).collect();
    let found = findings(&json!({ "r": { "method": methods } }));
    assert!(found.iter().all(|diagnostic| diagnostic.message.contains("more than 63 different methods")), "{found:?}");
    assert_eq!(found.len(), 8);
}

#[test]
fn the_shapes_of_the_configuration_are_read_and_written_back() {
    for config in [
        json!("a.test/*"),
        json!({ "host": "a.test", "path": "/x", "method": "GET", "header": { "x": "1" } }),
        json!({ "host": ["a", "b"], "method": ["GET"], "path_regex": "/.*", "query": { "q": { "regex": "x" }, "r": { "present": false } } }),
    ] {
        let read: MatchConfig = placed::read(config.clone()).expect("a match");
        assert_eq!(serde_json::to_value(&read).expect("JSON"), config);
    }
    for config in [json!(7), json!(["a"]), json!({ "host": 1 }), json!({ "header": { "x": true } })] {
        assert!(placed::read::<MatchConfig>(config.clone()).is_err(), "{config}");
    }
}

#[test]
fn the_schema_names_every_condition() {
    let schema = schemars::schema_for!(MatchConfig).to_value().to_string();
    for key in ["host", "path", "path_regex", "method", "header", "query", "regex", "present"] {
        assert!(schema.contains(&format!("\"{key}\":{{")), "{key}: {schema}");
    }
}
