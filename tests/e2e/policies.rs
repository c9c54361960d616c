//! Each policy of a route from end to end, once or twice; its every corner is the business of its own tests.

use std::io::Read as _;

use super::harness::client::ask;
use super::harness::upstream::{ok, response};
use super::harness::{Conn, Gateway, Response, Upstream, all_to};

/// A gateway whose only route has these further lines, and its upstream, which answers with the target it was sent.
async fn with(lines: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::with(|request| ok(&request.target)).await;
    let gateway = Gateway::start(&(all_to(&upstream.url()) + lines)).await;
    (gateway, upstream)
}

async fn get_with(gateway: &Gateway, lines: &str) -> Response {
    ask(gateway.public().await, &format!("GET / HTTP/1.1\r\nHost: example.com\r\n{lines}\r\n")).await
}

#[tokio::test]
async fn access_refuses_whom_it_denies() {
    let (gateway, upstream) = with("access = { deny = [\"127.0.0.0/8\"] }\n").await;
    let answer = gateway.get("/").await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"));
    assert_eq!(upstream.requests().len(), 0);
    gateway
        .metric_reaches("portcullis_policy_decisions_total", &[("policy", "access"), ("verdict", "reject")], 1.0)
        .await;
}

#[tokio::test]
async fn access_refuses_whom_it_does_not_allow() {
    let (gateway, _upstream) = with("access = { allow = [\"10.0.0.0/8\"] }\n").await;
    assert_eq!(gateway.get("/").await.status, 403);
    let (gateway, _upstream) = with("access = { allow = [\"127.0.0.1\"] }\n").await;
    assert_eq!(gateway.get("/").await.status, 200);
}

#[tokio::test]
async fn in_report_mode_access_only_counts() {
    let (gateway, _upstream) = with("access = { deny = [\"127.0.0.1\"], mode = \"report\" }\n").await;
    assert_eq!(gateway.get("/").await.status, 200);
    let labels = [("policy", "access"), ("verdict", "would_reject")];
    gateway.metric_reaches("portcullis_policy_decisions_total", &labels, 1.0).await;
    gateway.logged("the decision", |line| line["decisions"][0]["verdict"] == "would_reject").await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_413() {
    let (gateway, upstream) = with("validate = { max_body = \"1KiB\" }\n").await;
    let address = gateway.public().await;
    let body = "x".repeat(1024);
    let request = format!("POST /just HTTP/1.1\r\nHost: example.com\r\nContent-Length: 1024\r\n\r\n{body}");
    assert_eq!(ask(address, &request).await.status, 200);
    let request = format!("POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 1025\r\n\r\n{body}x");
    let answer = ask(address, &request).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    let request = format!(
        "POST / HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n{body}\r\n1\r\nx\r\n0\r\n\r\n"
    );
    let answer = ask(address, &request).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    for request in upstream.requests() {
        assert!(request.target == "/just" || request.body.is_none(), "the upstream has it whole: {request:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_announced_too_large_is_not_asked_for() {
    let (gateway, upstream) = with("validate = { max_body = \"1KiB\" }\n").await;
    let request = "POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5000\r\nExpect: 100-continue\r\n\r\n";
    let answer = ask(gateway.public().await, request).await;
    assert_eq!((answer.status, answer.interim.len()), (413, 0));
    assert_eq!(upstream.requests().len(), 0);
}

#[tokio::test]
async fn an_endless_body_is_413_while_it_comes() {
    let upstream = Upstream::start(|mut conn: Conn| async move {
        conn.head().await?;
        conn.closed().await;
        Ok(())
    })
    .await;
    let gateway = Gateway::start(&(all_to(&upstream.url()) + "validate = { max_body = \"64KiB\" }\n")).await;
    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let chunk = [b"8000\r\n".to_vec(), vec![b'x'; 0x8000], b"\r\n".to_vec()].concat();
    for _ in 0..4 {
        client.send_or_lose(&chunk).await;
    }
    let answer = client.response().await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    client.closed().await;
}

#[tokio::test]
async fn cors_answers_a_preflight_itself() {
    let cors = "cors = { origins = [\"https://app.example.com\"], methods = [\"GET\", \"PUT\"], headers = [\"authorization\"], credentials = true, max_age = \"1h\" }\n";
    let (gateway, upstream) = with(cors).await;
    let preflight = "OPTIONS / HTTP/1.1\r\nHost: example.com\r\nOrigin: https://app.example.com\r\nAccess-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: authorization\r\n\r\n";
    let answer = ask(gateway.public().await, preflight).await;
    assert!([200, 204].contains(&answer.status), "{answer:?}");
    assert_eq!(answer.field("access-control-allow-origin"), Some("https://app.example.com"));
    assert_eq!(answer.field("access-control-allow-credentials"), Some("true"));
    assert_eq!(answer.field("access-control-max-age"), Some("3600"));
    assert!(answer.fields.has_token("access-control-allow-methods", "PUT"), "{answer:?}");
    assert!(answer.fields.has_token("access-control-allow-headers", "authorization"), "{answer:?}");
    assert!(answer.fields.has_token("vary", "origin"), "{answer:?}");
    assert_eq!(upstream.requests().len(), 0);
}

#[tokio::test]
async fn cors_marks_responses_for_its_origins_only() {
    let (gateway, _upstream) = with("cors = { origins = [\"https://app.example.com\"] }\n").await;
    let answer = get_with(&gateway, "Origin: https://app.example.com\r\n").await;
    assert_eq!(answer.field("access-control-allow-origin"), Some("https://app.example.com"));
    assert!(answer.fields.has_token("vary", "origin"), "{answer:?}");
    let answer = get_with(&gateway, "Origin: https://evil.example\r\n").await;
    assert!(!answer.fields.has("access-control-allow-origin"), "{answer:?}");
    let preflight = "OPTIONS / HTTP/1.1\r\nHost: example.com\r\nOrigin: https://evil.example\r\nAccess-Control-Request-Method: GET\r\n\r\n";
    let answer = ask(gateway.public().await, preflight).await;
    assert!(!answer.fields.has("access-control-allow-origin"), "{answer:?}");
}

#[tokio::test]
async fn headers_are_set_and_removed_in_both_directions() {
    let upstream = Upstream::answering(response("200 OK", "X-Secret: 1\r\nX-Old: 2\r\n", b"hello")).await;
    let headers = "headers = { request = { set = { \"x-env\" = \"prod\" }, remove = [\"x-debug\"] }, response = { set = { \"x-old\" = \"new\" }, remove = [\"x-secret\"] } }\n";
    let gateway = Gateway::start(&(all_to(&upstream.url()) + headers)).await;
    let answer = get_with(&gateway, "X-Debug: 1\r\nX-Env: dev\r\n").await;
    assert_eq!((answer.field("x-old"), answer.field("x-secret")), (Some("new"), None));
    let request = upstream.request(0).await;
    assert_eq!((request.field("x-env"), request.field("x-debug")), (Some("prod"), None));
}

#[tokio::test]
async fn rewrite_replaces_the_prefix_and_the_host() {
    let upstream = Upstream::with(|request| ok(&request.target)).await;
    let config = format!(
        "[[route]]\nmatch = \"/orders/*\"\nupstream = \"{}\"\nrewrite = {{ path_prefix = \"/v2/orders\", host = \"orders.internal\" }}\n",
        upstream.url()
    );
    let gateway = Gateway::start(&config).await;
    assert_eq!(gateway.get("/orders/7?a=b").await.text(), "/v2/orders/7?a=b");
    assert_eq!(gateway.get("/orders").await.text(), "/v2/orders");
    let request = upstream.request(0).await;
    assert_eq!(request.field("host"), Some("orders.internal"));
    assert_eq!(request.field("x-forwarded-host"), Some("example.com"), "the name that the client used");
}

#[tokio::test]
async fn redirect_answers_instead_of_the_upstream() {
    let config =
        "[[route]]\nmatch = \"/old/*\"\nredirect = { to = \"https://www.example.com{path}{query}\", status = 301 }\n";
    let gateway = Gateway::start(config).await;
    let answer = gateway.get("/old/page?a=b").await;
    assert_eq!((answer.status, answer.field("location")), (301, Some("https://www.example.com/old/page?a=b")));
}

#[tokio::test]
async fn redirect_to_https_keeps_the_rest() {
    let gateway = Gateway::start("[[route]]\nmatch = \"/*\"\nredirect = { scheme = \"https\" }\n").await;
    let answer = gateway.get("/page?a=b").await;
    assert_eq!((answer.status, answer.field("location")), (308, Some("https://example.com/page?a=b")));
}

#[tokio::test]
async fn respond_answers_instead_of_the_upstream() {
    let gateway =
        Gateway::start("[[route]]\nmatch = \"/*\"\nrespond = { status = 418, body = \"short and stout\" }\n").await;
    let mut client = gateway.client().await;
    let answer = client.get("/").await;
    assert_eq!((answer.status, answer.text().as_str()), (418, "short and stout"));
    assert!(answer.field("x-request-id").is_some(), "{answer:?}");
    let head = client.request("HEAD / HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
    assert_eq!((head.status, head.body.len()), (418, 0));
    let post = "POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(client.request(post).await.status, 418);
    assert_eq!(client.get("/").await.status, 418, "the body was not taken for a request");
}

/// A text that is worth compressing.
fn text() -> String {
    "all work and no play makes jack a dull boy\n".repeat(200)
}

async fn compressing(fields: &'static str) -> (Gateway, Upstream) {
    let upstream = Upstream::with(move |_| response("200 OK", fields, text().as_bytes())).await;
    let gateway = Gateway::start(&(all_to(&upstream.url()) + "compress = true\n")).await;
    (gateway, upstream)
}

fn decoded(answer: &Response) -> String {
    let mut decoded = Vec::new();
    match answer.field("content-encoding") {
        None => return answer.text(),
        Some("gzip") => drop(flate2::read::GzDecoder::new(&answer.body[..]).read_to_end(&mut decoded).unwrap()),
        Some("zstd") => decoded = zstd::decode_all(&answer.body[..]).unwrap(),
        Some("br") => drop(brotli::Decompressor::new(&answer.body[..], 4096).read_to_end(&mut decoded).unwrap()),
        Some(other) => panic!("{other}"),
    }
    String::from_utf8(decoded).unwrap()
}

#[tokio::test]
async fn compress_offers_what_the_client_accepts_by_its_weights() {
    let (gateway, _upstream) = compressing("Content-Type: text/plain\r\nETag: \"x\"\r\n").await;
    for (accept, expected) in [
        ("gzip", Some("gzip")),
        ("br", Some("br")),
        ("zstd", Some("zstd")),
        ("gzip;q=1, br;q=0.1, zstd;q=0.2", Some("gzip")),
        ("br;q=0, gzip;q=0.5", Some("gzip")),
        ("gzip;q=0", None),
        ("identity", None),
        ("", None),
        ("*;q=0", None),
    ] {
        let answer = get_with(&gateway, &format!("Accept-Encoding: {accept}\r\n")).await;
        // what no response can satisfy is served as it is (RFC 9110 §12.5.3)
        assert_eq!(answer.status, 200, "{accept}");
        assert_eq!(answer.field("content-encoding"), expected, "{accept}");
        assert!(answer.fields.has_token("vary", "accept-encoding"), "{accept}: {answer:?}");
        assert!(answer.whole && decoded(&answer) == text(), "{accept}");
        if expected.is_some() {
            assert!(answer.body.len() < text().len() / 4, "{accept}");
            assert_ne!(answer.field("etag"), Some("\"x\""), "a strong one is for other bytes: {accept}");
        }
    }
}

#[tokio::test]
async fn compress_leaves_alone_what_is_compressed_or_not_worth_it() {
    for fields in [
        "Content-Type: text/plain\r\nContent-Encoding: br\r\n",
        "Content-Type: image/jpeg\r\n",
        "Content-Type: text/plain\r\nCache-Control: no-transform\r\n",
    ] {
        let (gateway, _upstream) = compressing(fields).await;
        let answer = get_with(&gateway, "Accept-Encoding: gzip\r\n").await;
        assert_eq!(answer.body, text().as_bytes(), "{fields}");
        assert_eq!(answer.field("content-length"), Some(text().len().to_string().as_str()), "{fields}");
    }
}

#[tokio::test]
async fn compressed_pieces_leave_as_they_come() {
    let gate = super::harness::Gate::new();
    let door = gate.clone();
    let upstream = Upstream::start(move |mut conn: Conn| {
        let door = door.clone();
        async move {
            conn.request().await?;
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            conn.send(format!("{head}c\r\ndata: first\n\r\n")).await?;
            door.passed().await;
            conn.send("d\r\ndata: second\n\r\n0\r\n\r\n").await
        }
    })
    .await;
    let gateway = Gateway::start(&(all_to(&upstream.url()) + "compress = true\n")).await;
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: example.com\r\nAccept-Encoding: gzip\r\n\r\n").await;
    let head = client.head().await;
    // whatever the first piece looks like, it comes before the second exists
    assert!(!super::harness::within("the first piece", client.wire.some()).await.unwrap().is_empty());
    assert_eq!(head.status, 200);
    gate.open();
    let rest = super::harness::within("the rest", async {
        let mut rest = Vec::new();
        while !rest.ends_with(b"0\r\n\r\n") {
            rest.extend(client.wire.some().await.unwrap());
        }
        rest
    });
    rest.await;
}

#[tokio::test]
async fn defaults_profiles_and_routes_are_layers() {
    let upstream = Upstream::saying("hello").await;
    let url = upstream.url();
    let config = format!(
        r#"
[defaults]
headers = {{ response = {{ set = {{ "x-layer" = "defaults" }} }} }}
[profile.special]
headers = {{ response = {{ set = {{ "x-layer" = "profile" }} }} }}
[[route]]
match = "/defaults"
upstream = "{url}"
[[route]]
match = "/profile"
upstream = "{url}"
use = ["special"]
[[route]]
match = "/route"
upstream = "{url}"
use = ["special"]
headers = {{ response = {{ set = {{ "x-layer" = "route" }} }} }}
[[route]]
match = "/off"
upstream = "{url}"
use = ["special"]
headers = false
"#
    );
    let gateway = Gateway::start(&config).await;
    for (target, layer) in
        [("/defaults", Some("defaults")), ("/profile", Some("profile")), ("/route", Some("route")), ("/off", None)]
    {
        assert_eq!(gateway.get(target).await.field("x-layer"), layer, "{target}");
    }
}
