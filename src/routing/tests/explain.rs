//! What `explain` says of near misses.

use serde_json::{Value, json};

use super::{Request, Routes};

/// `expected`: each near miss as `route: missing, missing`.
#[track_caller]
fn check(routes: &Value, line: &str, expected: &[&str]) {
    let router = Routes::new(routes).router();
    let request = Request::new(line);
    let misses: Vec<String> = router
        .explain(&request.view())
        .misses
        .iter()
        .map(|miss| {
            let missing: Vec<String> = miss.missing.iter().map(ToString::to_string).collect();
            format!("{}: {}", miss.name, missing.join(", "))
        })
        .collect();
    assert_eq!(misses, expected, "{line}");
}

#[test]
fn a_near_miss_names_all_that_was_missing() {
    let routes = json!({
        "beta": { "path": "/a", "method": ["POST", "GET"], "header": { "x-beta": "1" }, "query": { "v": { "regex": "[0-9]+" } } },
        "rest": { "path": "/*", "header": { "x-any": { "present": true } } },
    });
    check(
        &routes,
        "PUT h/a",
        &[
            "beta: method GET or POST, header \"x-beta\" = \"1\", query \"v\" matches \"[0-9]+\"",
            "rest: header \"x-any\" is present",
        ],
    );
    check(&routes, "HEAD h/a?v=1 | x-any: 1", &["beta: header \"x-beta\" = \"1\""]);
    check(&routes, "GET h/a?v=1 | x-beta: 1", &["rest: header \"x-any\" is present"]);
}

#[test]
fn routes_of_other_hosts_are_near_misses_when_nothing_else_takes_the_request() {
    let routes = json!({ "a": "a.test/x", "b": "*.b.test/x", "c": "c.test/y" });
    check(&routes, "GET test/x", &["a: host a.test", "b: host *.b.test"]);
    check(&routes, "GET a.test/x", &[]);
}

#[test]
fn the_nearest_path_is_named_when_nothing_else_comes_near() {
    let routes = json!({ "orders": "a.test/orders", "users": "/users/*" });
    check(&routes, "GET a.test/orders/", &["orders: path /orders"]);
    check(&routes, "GET a.test/user/7", &["users: path /users/*"]);
    check(&routes, "GET a.test/!", &[]);
}

#[test]
fn the_choice_names_the_patterns_that_fit() {
    let router = Routes::new(&json!({ "r": { "host": ["a.test", "*.b.test"], "path": "/x/*" } })).router();
    let request = Request::new("GET c.b.test/x/y");
    let choice = router.explain(&request.view()).choice.expect("a route");
    assert_eq!((choice.name.as_str(), choice.host.as_str(), choice.path.as_str()), ("r", "*.b.test", "/x/*"));
    assert!(choice.runner_up.is_none());
}

#[test]
fn near_misses_are_bounded() {
    let routes: serde_json::Map<_, _> =
        (0..40).map(|n| (format!("r{n}"), json!({ "header": { "x": n.to_string() } }))).collect();
    let router = Routes::new(&Value::Object(routes)).router();
    assert_eq!(router.explain(&Request::new("GET h/").view()).misses.len(), super::super::Explanation::MAX_MISSES);
}
