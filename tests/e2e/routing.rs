//! Which route takes a request, as a client sees it: precedence, hosts, methods, conditions, and what no route takes.

use super::harness::Gateway;
use super::harness::client::ask;

/// Routes that answer with their own names.
fn routes(matches: &[(&str, &str)]) -> String {
    let route = |(name, matches): &(&str, &str)| {
        format!("[[route]]\nname = \"{name}\"\nmatch = {matches}\nrespond = {{ body = \"{name}\" }}\n")
    };
    matches.iter().map(route).collect()
}

/// The name of the route that takes `method host/target`, or the status of the refusal.
async fn taken(gateway: &Gateway, request: &str) -> String {
    let (method, rest) = request.split_once(' ').unwrap();
    let (rest, lines) = rest.split_once(" with ").unwrap_or((rest, ""));
    let (host, target) = rest.split_once('/').unwrap();
    let lines = lines.replace("; ", "\r\n");
    let end = if lines.is_empty() { "" } else { "\r\n" };
    let request = format!("{method} /{target} HTTP/1.1\r\nHost: {host}\r\n{lines}{end}\r\n");
    let answer = ask(gateway.public().await, &request).await;
    if answer.status == 200 { answer.text() } else { answer.status.to_string() }
}

#[track_caller]
fn check(gateway: &Gateway, cases: &[(&str, &str)]) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        for (request, expected) in cases {
            assert_eq!(&taken(gateway, request).await, expected, "{request}, at {caller}");
        }
    }
}

#[tokio::test]
async fn the_most_specific_route_wins_whatever_the_order() {
    let table = [
        ("any", "\"/*\""),
        ("expression", "{ path_regex = \"/orders/[0-9]+\" }"),
        ("prefix", "\"/orders/*\""),
        ("long prefix", "\"/orders/new/*\""),
        ("exact", "\"/orders/new\""),
        ("get", "{ path = \"/orders/*\", method = \"GET\" }"),
        ("get with one", "{ path = \"/orders/*\", method = \"GET\", header = { \"x-a\" = \"1\" } }"),
        ("get with two", "{ path = \"/orders/*\", method = \"GET\", header = { \"x-a\" = \"1\", \"x-b\" = \"1\" } }"),
        ("get with query", "{ path = \"/orders/*\", method = \"GET\", query = { page = \"2\" } }"),
        ("wildcard", "\"*.example.com/*\""),
        ("long wildcard", "\"*.api.example.com/*\""),
        ("host", "\"api.example.com/*\""),
    ];
    let cases = [
        ("GET other.org/", "any"),
        ("POST other.org/orders", "prefix"),
        ("POST other.org/orders/7", "prefix"),
        ("POST other.org/ordersX", "any"),
        ("POST other.org/orders/new", "exact"),
        ("POST other.org/orders/new/7", "long prefix"),
        ("GET other.org/orders/7", "get"),
        ("GET other.org/orders/7 with x-a: 1", "get with one"),
        ("GET other.org/orders/7 with x-a: 1; x-b: 1", "get with two"),
        ("GET other.org/orders/7 with x-b: 1", "get"),
        ("GET other.org/orders/7?page=2", "get with query"),
        ("GET api.example.com/orders/new", "host"),
        ("GET www.example.com/orders/new", "wildcard"),
        ("GET v1.api.example.com/orders/new", "long wildcard"),
        ("GET a.b.example.com/", "wildcard"),
        ("GET example.com/orders/new", "exact"),
    ];
    let mut reversed = table;
    reversed.reverse();
    for table in [table, reversed] {
        let gateway = Gateway::start(&routes(&table)).await;
        check(&gateway, &cases).await;
    }
}

#[tokio::test]
async fn an_expression_takes_the_whole_path() {
    let gateway = Gateway::start(&routes(&[("number", "{ path_regex = \"/n/[0-9]+\" }")])).await;
    check(&gateway, &[("GET a.b/n/12", "number"), ("GET a.b/n/12x", "404"), ("GET a.b/x/n/12", "404")]).await;
}

#[tokio::test]
async fn a_host_is_compared_without_case_port_and_trailing_dot() {
    let gateway = Gateway::start(&routes(&[("host", "\"api.example.com/*\"")])).await;
    check(
        &gateway,
        &[
            ("GET api.example.com/", "host"),
            ("GET API.Example.COM/", "host"),
            ("GET api.example.com:8443/", "host"),
            ("GET api.example.com./", "host"),
            ("GET xapi.example.com/", "404"),
            ("GET example.com/", "404"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_path_is_compared_after_normalisation() {
    let gateway = Gateway::start(&routes(&[("admin", "\"/admin/*\""), ("public", "\"/public/*\"")])).await;
    check(
        &gateway,
        &[
            ("GET a.b/public/../admin/x", "admin"),
            ("GET a.b/public/%2e%2e/admin/x", "admin"),
            ("GET a.b/%61dmin", "admin"),
            ("GET a.b/./admin", "admin"),
            ("GET a.b//admin", "404"),
            ("GET a.b/ADMIN", "404"),
        ],
    )
    .await;
}

#[tokio::test]
async fn no_route_is_404() {
    let gateway = Gateway::start(&routes(&[("known", "\"example.com/known\"")])).await;
    let answer = gateway.get("/unknown").await;
    assert_eq!((answer.status, answer.code().as_str()), (404, "no_route"));
    check(&gateway, &[("GET other.com/known", "404"), ("GET example.com/known/", "404")]).await;
}

#[tokio::test]
async fn another_method_on_a_known_path_is_405_with_those_that_are_allowed() {
    let table = [
        ("read", "{ path = \"/orders/*\", method = \"GET\" }"),
        ("write", "{ path = \"/orders/*\", method = [\"POST\", \"PUT\"] }"),
    ];
    let gateway = Gateway::start(&routes(&table)).await;
    let mut client = gateway.client().await;
    let answer = client.request("DELETE /orders/1 HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
    assert_eq!((answer.status, answer.code().as_str()), (405, "method_not_allowed"));
    for method in ["GET", "HEAD", "POST", "PUT"] {
        assert!(answer.fields.has_token("allow", method), "{method}: {answer:?}");
    }
    assert!(!answer.fields.has_token("allow", "DELETE"), "{answer:?}");
    assert_eq!(client.get("/orders/1").await.text(), "read", "the connection goes on");
    let head = client.request("HEAD /orders/1 HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
    assert_eq!(head.status, 200, "GET also takes HEAD");
}

#[tokio::test]
async fn a_route_takes_any_of_its_hosts() {
    let table = [("both", "{ host = [\"a.example\", \"*.b.example\"], path = \"/*\" }")];
    let gateway = Gateway::start(&routes(&table)).await;
    check(&gateway, &[("GET a.example/", "both"), ("GET x.b.example/", "both"), ("GET c.example/", "404")]).await;
}
