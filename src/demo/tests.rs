//! The demo app over a real socket. Time is paused, so delays cost the tests nothing.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::answers::fails;
use super::orders::MAX_ORDERS;
use super::streams::MAX_BYTES;
use super::{DemoApp, start};

/// Sends one request on a connection of its own; returns the status, the head in lower case, and the body.
async fn send(demo: &DemoApp, request_line: &str, headers: &str, body: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(demo.address).await.unwrap();
    let length = body.len();
    let request = format!(
        "{request_line} HTTP/1.1\r\nHost: demo\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.unwrap();
    let response = String::from_utf8(response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

async fn get(demo: &DemoApp, target: &str) -> (u16, String, String) {
    send(demo, &format!("GET {target}"), "", "").await
}

#[tokio::test]
async fn the_index_lists_every_endpoint() {
    let demo = start().await.unwrap();
    let (status, _, body) = get(&demo, "/").await;
    assert_eq!(status, 200);
    for endpoint in ["/echo", "/status/", "/delay/", "/drip", "/flaky", "/cacheable", "/orders", "/bytes/", "/sse"] {
        assert!(body.contains(endpoint), "{endpoint} is missing in {body}");
    }
}

#[tokio::test]
async fn every_path_answers_with_its_status() {
    let demo = start().await.unwrap();
    for (target, status) in [
        ("/healthz", 200),
        ("/nowhere", 404),
        ("/status/200", 200),
        ("/status/204", 204),
        ("/status/418", 418),
        ("/status/599", 599),
        ("/status/100", 400),
        ("/status/600", 400),
        ("/status/teapot", 400),
        ("/delay/30001", 400),
        ("/delay/-1", 400),
        ("/drip?bytes=10001", 400),
        ("/drip?bytes=10&interval=11s", 400),
        ("/drip?bytes=100&interval=10s", 400),
        ("/drip?interval=100", 400),
        ("/sse?events=101", 400),
        ("/flaky?fail=101%", 400),
        ("/flaky?fail=often", 400),
        ("/cacheable?max_age=86401", 400),
        ("/bytes/16777217", 400),
        ("/bytes/-1", 400),
        ("/orders/1", 404),
        ("/orders/one", 404),
    ] {
        assert_eq!(get(&demo, target).await.0, status, "{target}");
    }
}

#[tokio::test]
async fn echo_tells_what_arrived() {
    let demo = start().await.unwrap();
    let (status, _, body) = send(&demo, "PATCH /echo?q=1", "X-Twice: a\r\nX-Twice: b\r\n", "hello").await;
    assert_eq!(status, 200);
    let echoed: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(echoed["method"], "PATCH");
    assert_eq!(echoed["version"], "HTTP/1.1");
    assert_eq!(echoed["path"], "/echo");
    assert_eq!(echoed["query"], "q=1");
    assert_eq!(echoed["headers"]["x-twice"], serde_json::json!(["a", "b"]));
    assert_eq!(echoed["body"], serde_json::json!({ "length": 5, "text": "hello" }));
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_as_long_as_asked() {
    let demo = start().await.unwrap();
    let began = Instant::now();
    let (status, _, body) = get(&demo, "/delay/30000").await;
    assert_eq!((status, body.as_str()), (200, r#"{"delayed_ms":30000}"#));
    assert!(began.elapsed() >= Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn a_drip_sends_a_byte_per_interval() {
    let demo = start().await.unwrap();
    let began = Instant::now();
    let (status, head, body) = get(&demo, "/drip?bytes=3&interval=5s").await;
    assert_eq!(status, 200);
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    assert_eq!(body, "1\r\n.\r\n1\r\n.\r\n1\r\n.\r\n0\r\n\r\n");
    assert!(began.elapsed() >= Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn events_are_numbered() {
    let demo = start().await.unwrap();
    let (_, head, body) = get(&demo, "/sse?events=2").await;
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    assert!(body.contains("id: 1\nevent: tick\n") && body.contains("id: 2\n") && !body.contains("id: 3\n"), "{body}");
}

#[tokio::test]
async fn a_flaky_endpoint_fails_in_a_repeatable_pattern() {
    let demo = start().await.unwrap();
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(get(&demo, "/flaky?fail=50%25").await.0);
    }
    assert_eq!(statuses, [200, 503, 200, 503]);
}

#[test]
fn of_a_hundred_requests_exactly_the_asked_share_fails() {
    for percent in 0..=100 {
        let failed = (1..=100).filter(|number| fails(*number, percent)).count() as u64;
        assert_eq!(failed, percent);
    }
}

#[tokio::test]
async fn a_cacheable_response_is_not_sent_again_to_who_has_it() {
    let demo = start().await.unwrap();
    let (status, head, _) = get(&demo, "/cacheable?max_age=7").await;
    assert_eq!(status, 200);
    for line in [
        "cache-control: public, max-age=7",
        "etag: \"portcullis-demo-1\"",
        "last-modified: mon, 01 sep 2025 00:00:00 gmt",
        "x-demo-answers: 1",
    ] {
        assert!(head.contains(line), "{line} is missing in {head}");
    }
    for (tags, status) in
        [("\"portcullis-demo-1\"", 304), ("\"other\", W/\"portcullis-demo-1\"", 304), ("*", 304), ("\"other\"", 200)]
    {
        let (got, _, body) = send(&demo, "GET /cacheable", &format!("If-None-Match: {tags}\r\n"), "").await;
        assert_eq!(got, status, "{tags}");
        assert_eq!(body.is_empty(), status == 304, "{tags}");
    }
}

#[tokio::test]
async fn an_order_is_created_listed_and_read() {
    let demo = start().await.unwrap();
    let json = "Content-Type: application/json\r\n";
    let (status, head, body) = send(&demo, "POST /orders", json, r#"{"item":"tea","quantity":2}"#).await;
    assert_eq!((status, body.as_str()), (201, r#"{"id":1,"item":"tea","quantity":2}"#));
    assert!(head.contains("location: /orders/1"), "{head}");
    assert_eq!(get(&demo, "/orders/1").await.2, body);
    assert_eq!(get(&demo, "/orders").await.2, format!(r#"{{"orders":[{body}]}}"#));
}

#[tokio::test]
async fn an_order_that_makes_no_sense_is_refused() {
    let demo = start().await.unwrap();
    let json = "Content-Type: application/json\r\n";
    for (headers, body, status) in [
        (json, "{", 400),
        (json, "{}", 422),
        (json, r#"{"item":""}"#, 422),
        (json, r#"{"item":"tea","quantity":0}"#, 422),
        (json, r#"{"item":"tea","quantity":1001}"#, 422),
        (json, r#"{"item":"tea","colour":"green"}"#, 422),
        ("", r#"{"item":"tea"}"#, 415),
    ] {
        assert_eq!(send(&demo, "POST /orders", headers, body).await.0, status, "{body}");
    }
    assert_eq!(get(&demo, "/orders").await.2, r#"{"orders":[]}"#);
}

#[tokio::test]
async fn the_oldest_order_is_forgotten_when_too_many_are_kept() {
    let demo = start().await.unwrap();
    let json = "Content-Type: application/json\r\n";
    for _ in 0..=MAX_ORDERS {
        assert_eq!(send(&demo, "POST /orders", json, r#"{"item":"tea"}"#).await.0, 201);
    }
    assert_eq!(get(&demo, "/orders/1").await.0, 404);
    assert_eq!(get(&demo, "/orders/2").await.0, 200);
}

#[tokio::test]
async fn a_body_has_the_length_that_was_asked_for() {
    let demo = start().await.unwrap();
    for count in [0, 1, 16 << 10, (64 << 10) + 1, MAX_BYTES] {
        let (status, head, body) = get(&demo, &format!("/bytes/{count}")).await;
        assert_eq!((status, body.len()), (200, count));
        assert!(head.contains(&format!("content-length: {count}")), "{head}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let demo = start().await.unwrap();
    let body = "p".repeat((1 << 20) + 1);
    assert_eq!(send(&demo, "POST /echo", "", &body).await.0, 413);
}

#[tokio::test]
async fn it_speaks_clear_text_http_2_by_prior_knowledge() {
    let demo = start().await.unwrap();
    let stream = TcpStream::connect(demo.address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("http://demo/status/201").body(()).unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    assert_eq!(response.await.unwrap().status(), 201);
}

#[tokio::test]
async fn two_apps_share_nothing_and_a_dropped_one_stops() {
    let (first, second) = (start().await.unwrap(), start().await.unwrap());
    assert_ne!(first.address, second.address);
    let address = first.address;
    drop(first);
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert_eq!(get(&second, "/healthz").await.0, 200);
}
