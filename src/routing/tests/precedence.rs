//! The rules of precedence, one table each.

use serde_json::json;

use super::super::{Found, Match};
use super::{Request, Routes, check};

#[test]
fn an_exact_host_beats_the_longest_wildcard_beats_any_host() {
    let routes = json!({
        "any": "/*",
        "deep": "*.b.test/*",
        "exact": "a.b.test/*",
        "wide": "*.test/*",
    });
    check(
        &routes,
        &[
            ("GET a.b.test/x", "exact over deep by host"),
            ("GET c.b.test/x", "deep over wide by host"),
            ("GET d.c.b.test/x", "deep over wide by host"),
            ("GET b.test/x", "wide over any by host"),
            ("GET x.a.b.test/x", "deep over wide by host"),
            ("GET test/x", "any"),
            ("GET other/x", "any"),
            ("GET 127.0.0.1/x", "any"),
            ("GET [::1]/x", "any"),
        ],
    );
}

#[test]
fn a_wildcard_takes_one_or_more_labels_and_not_the_bare_domain() {
    let routes = json!({ "wild": "*.example.com/*" });
    check(
        &routes,
        &[
            ("GET a.example.com/", "wild"),
            ("GET a.b.example.com/", "wild"),
            ("GET example.com/", "404"),
            ("GET aexample.com/", "404"),
            ("GET example.com.evil.test/", "404"),
        ],
    );
}

#[test]
fn a_less_specific_host_is_asked_when_the_most_specific_has_no_route() {
    let routes = json!({
        "admin": { "host": "api.test", "path": "/admin", "method": "GET" },
        "health": "/healthz",
        "orders": "api.test/orders/*",
        "site": "*.test/*",
    });
    check(
        &routes,
        &[
            ("GET api.test/orders/1", "orders over site by host"),
            ("GET api.test/else", "site"),
            ("GET api.test/healthz", "site over health by host"),
            ("GET elsewhere/healthz", "health"),
            ("POST api.test/admin", "site"),
            ("GET elsewhere/orders", "404"),
        ],
    );
}

#[test]
fn addresses_are_hosts_like_others() {
    let routes = json!({ "four": "127.0.0.1/*", "mapped": "[::ffff:1.2.3.4]/*", "six": "[::1]/*" });
    check(
        &routes,
        &[
            ("GET 127.0.0.1/", "four"),
            ("GET [::1]/", "six"),
            ("GET [::ffff:1.2.3.4]/", "mapped"),
            ("GET 1.2.3.4/", "404"),
            ("GET 1.127.0.0.1/", "404"),
        ],
    );
}

#[test]
fn an_exact_path_beats_the_longest_prefix_beats_an_expression() {
    let routes = json!({
        "all": "/*",
        "exact": "/a/b",
        "long": "/a/b/*",
        "regex": { "path_regex": "/a/.*" },
        "short": "/a/*",
    });
    check(
        &routes,
        &[
            ("GET h/a/b", "exact over long by path"),
            ("GET h/a/b/", "long over short by path"),
            ("GET h/a/b/c/d", "long over short by path"),
            ("GET h/a", "short over all by path"),
            ("GET h/a/", "short over all by path"),
            ("GET h/ab", "all"),
            ("GET h/", "all"),
        ],
    );
    let routes = json!({ "other": "/b/*", "regex": { "path_regex": "/a/.*" } });
    check(&routes, &[("GET h/a/b", "regex"), ("GET h/a", "404"), ("GET h/b", "other")]);
}

#[test]
fn a_prefix_takes_whole_segments() {
    let routes = json!({ "double": "/a//b/*", "orders": "/orders/*", "slash": "/exact/" });
    check(
        &routes,
        &[
            ("GET h/orders", "orders"),
            ("GET h/orders/", "orders"),
            ("GET h/orders/7", "orders"),
            ("GET h/orders//7", "orders"),
            ("GET h/ordersX", "404"),
            ("GET h/orders%2F7", "404"),
            ("GET h//orders", "404"),
            ("GET h/exact/", "slash"),
            ("GET h/exact", "404"),
            ("GET h/exact/x", "404"),
            ("GET h/a//b/c", "double"),
            ("GET h/a/b/c", "404"),
        ],
    );
}

#[test]
fn expressions_match_the_whole_path() {
    let routes = json!({
        "alternation": { "path_regex": "/a|/b" },
        "anchored": { "path_regex": "^/c/[0-9]+$" },
        "host": { "host": "x.test", "path_regex": "/.*" },
    });
    check(
        &routes,
        &[
            ("GET h/a", "alternation"),
            ("GET h/b", "alternation"),
            ("GET h/ab", "404"),
            ("GET h/x/a", "404"),
            ("GET h/c/42", "anchored"),
            ("GET h/c/42/", "404"),
            ("GET x.test/a", "host over alternation by host"),
        ],
    );
}

#[test]
fn among_expressions_method_conditions_and_name_decide() {
    let routes = json!({
        "a": { "path_regex": "/x.*" },
        "b": { "path_regex": "/.*x" },
        "c": { "path_regex": "/.*", "method": "POST" },
        "d": { "path_regex": "/x+", "query": { "q": "1" } },
    });
    check(
        &routes,
        &[
            ("GET h/x", "a over b by name"),
            ("GET h/x?q=1", "d over a by query"),
            ("POST h/x?q=1", "c over d by method"),
            ("GET h/yx", "b"),
            ("GET h/y", "405 POST"),
        ],
    );
}

#[test]
fn a_named_method_beats_head_of_get_beats_any_method() {
    let routes = json!({
        "any": "/*",
        "get": { "path": "/*", "method": ["GET", "POST"] },
        "head": { "path": "/own/*", "method": "HEAD" },
        "own": { "path": "/own/*", "method": "GET" },
    });
    check(
        &routes,
        &[
            ("GET h/x", "get over any by method"),
            ("HEAD h/x", "get over any by method"),
            ("PUT h/x", "any"),
            ("PURGE h/x", "any"),
            ("HEAD h/own/x", "head over own by method"),
            ("GET h/own/x", "own over get by path"),
        ],
    );
}

#[test]
fn a_path_decides_before_a_method_and_a_method_before_headers() {
    let routes = json!({
        "header": { "path": "/a/*", "header": { "x": "1", "y": "1" } },
        "method": { "path": "/a/*", "method": "GET" },
        "path": "/a/b",
    });
    check(
        &routes,
        &[
            ("GET h/a/b | x: 1 | y: 1", "path over method by path"),
            ("GET h/a/c | x: 1 | y: 1", "method over header by method"),
            ("POST h/a/c | x: 1 | y: 1", "header"),
        ],
    );
}

#[test]
fn more_headers_win_then_more_query_parameters_then_the_name() {
    let routes = json!({
        "h1": { "path": "/", "header": { "a": "1" } },
        "h1q1": { "path": "/", "header": { "a": "1" }, "query": { "q": "1" } },
        "h2": { "path": "/", "header": { "a": "1", "b": "1" } },
        "other": { "path": "/", "header": { "b": "1" } },
        "plain": "/",
        "q2": { "path": "/", "query": { "q": "1", "r": "1" } },
    });
    check(
        &routes,
        &[
            ("GET h/", "plain"),
            ("GET h/ | a: 1", "h1 over plain by header"),
            ("GET h/ | a: 1 | b: 1", "h2 over h1 by header"),
            ("GET h/?q=1&r=1 | a: 1", "h1q1 over h1 by query"),
            ("GET h/?q=1&r=1", "q2 over plain by query"),
            ("GET h/ | a: 2 | b: 1", "other over plain by header"),
        ],
    );
    let routes = json!({
        "aa": { "path": "/", "header": { "y": "1" } },
        "ab": { "path": "/", "header": { "x": "1" } },
    });
    check(&routes, &[("GET h/ | x: 1 | y: 1", "aa over ab by name")]);
}

#[test]
fn a_value_condition_is_exact_an_expression_or_presence() {
    let routes = json!({
        "absent": { "path": "/absent", "header": { "x": { "present": false } }, "query": { "q": { "present": false } } },
        "exact": { "path": "/exact", "header": { "X-Beta": "1" } },
        "present": { "path": "/present", "header": { "x": { "present": true } }, "query": { "q": { "present": true } } },
        "regex": { "path": "/regex", "header": { "x": { "regex": "v[0-9]+|w" } }, "query": { "q": { "regex": "a b|ü+" } } },
        "text": { "path": "/text", "query": { "full name": "a b" } },
    });
    check(
        &routes,
        &[
            ("GET h/exact | x-beta: 1", "exact"),
            ("GET h/exact | x-beta: 2 | x-beta: 1", "exact"),
            ("GET h/exact | x-beta: 2, 1", "404"),
            ("GET h/exact | x-beta: 10", "404"),
            ("GET h/exact", "404"),
            ("GET h/present?q | x: ", "present"),
            ("GET h/present?q=1 | x: a", "present"),
            ("GET h/present?Q=1 | x: a", "404"),
            ("GET h/absent", "absent"),
            ("GET h/absent?r", "absent"),
            ("GET h/absent?q", "404"),
            ("GET h/absent | x: a", "404"),
            ("GET h/regex?q=a+b | x: v12", "regex"),
            ("GET h/regex?r=1&&q=%C3%BC%c3%bc | x: w", "regex"),
            ("GET h/regex?q=aab | x: w", "404"),
            ("GET h/regex?q=%C3 | x: w", "404"),
            ("GET h/regex?q=a+b | x: v12x", "404"),
            ("GET h/text?full+name=a%20b", "text"),
            ("GET h/text?full%20name=a+b&x", "text"),
            ("GET h/text?full name=a", "404"),
        ],
    );
}

#[test]
fn a_405_needs_a_route_that_only_the_method_keeps_away() {
    let routes = json!({
        "beta": { "path": "/a", "method": "PUT", "header": { "x-beta": "1" } },
        "get": { "path": "/a", "method": "GET" },
        "host": { "host": "h.test", "path": "/a", "method": "PATCH" },
        "post": { "path": "/a", "method": ["POST", "PURGE"] },
        "prefix": { "path": "/a/*", "method": "DELETE" },
    });
    check(
        &routes,
        &[
            ("GET h/a", "get"),
            ("DELETE h/a", "prefix"),
            ("PUT h/a", "405 DELETE, GET, HEAD, POST, PURGE"),
            ("PUT h/a | x-beta: 1", "beta"),
            ("OPTIONS h/a | x-beta: 1", "405 DELETE, GET, HEAD, POST, PURGE, PUT"),
            ("PUT h.test/a", "405 DELETE, GET, HEAD, PATCH, POST, PURGE"),
            ("get h/a", "405 DELETE, GET, HEAD, POST, PURGE"),
            ("GET h/a/b", "405 DELETE"),
            ("GET h/b", "404"),
        ],
    );
}

#[test]
fn a_route_may_have_several_hosts() {
    let routes = json!({
        "rest": "/*",
        "several": { "host": ["a.test", "*.b.test"], "path": "/x/*" },
    });
    check(
        &routes,
        &[
            ("GET a.test/x", "several over rest by host"),
            ("GET c.b.test/x/1", "several over rest by host"),
            ("GET b.test/x", "rest"),
            ("GET a.test/y", "rest"),
        ],
    );
}

#[test]
fn a_table_without_host_and_path_takes_everything_but_the_asterisk_form() {
    let routes = json!({ "all": {}, "star": { "host": "*", "path": "/x" } });
    check(
        &routes,
        &[("GET h/anything", "all"), ("GET h/x", "star over all by path"), ("OPTIONS h*", "404"), ("GET h//", "all")],
    );
}

#[test]
fn a_match_says_how_much_of_the_path_its_literal_took() {
    let routes = Routes::new(&serde_json::json!({
        "all": "/*",
        "exact": "/exact/path",
        "prefix": "/prefix/*",
        "regex": { "host": "r.test", "path_regex": "/.*" },
    }));
    let router = routes.router();
    let check = |line: &str, expected: Match| {
        let request = Request::new(line);
        let found = router.find(&request.view());
        assert!(matches!(found, Found::Match(found) if found == expected), "{line}: {found:?}");
    };
    check("GET h/any", Match { route: 0, prefix_len: 0 });
    check("GET h/exact/path", Match { route: 1, prefix_len: 11 });
    check("GET h/prefix", Match { route: 2, prefix_len: 7 });
    check("GET h/prefix/x", Match { route: 2, prefix_len: 7 });
    check("GET r.test/x", Match { route: 3, prefix_len: 0 });
}

#[test]
fn a_router_without_routes_finds_nothing() {
    check(&json!({}), &[("GET h/", "404")]);
}
