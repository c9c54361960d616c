//! The upstream's side: how its failures look to a client, where requests go among several endpoints, and the ways to
//! reach one (TLS, unix socket, name).

use std::time::Duration;

use super::harness::client::ask;
use super::harness::upstream::{ok, response};
use super::harness::{Authority, Client, Conn, Gateway, Refusing, Response, Upstream, all_to, eventually};

async fn answer_of(response: &'static [u8]) -> Response {
    let upstream = Upstream::start(move |mut conn: Conn| async move {
        conn.request().await?;
        conn.send(response).await
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    gateway.get("/").await
}

#[tokio::test]
async fn nonsense_from_the_upstream_is_502_upstream_invalid() {
    let nonsense: [&'static [u8]; 11] = [
        b"garbage\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nno colon here\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok",
        b"\x15\x03\x03\x00\x02\x02\x16\r\n\r\n",
    ];
    for bytes in nonsense {
        let answer = answer_of(bytes).await;
        let shown = String::from_utf8_lossy(bytes).into_owned();
        assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_invalid"), "{shown:?}");
    }
}

#[tokio::test]
async fn white_space_before_the_colon_of_an_upstreams_field_is_removed() {
    // RFC 9112 §5.1: refused in a request, removed from a response
    let answer = answer_of(b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!((answer.status, answer.field("x"), answer.text().as_str()), (200, Some("a"), "ok"));
}

#[tokio::test]
async fn an_upstream_that_ends_before_its_head_is_502() {
    for bytes in [b"".as_slice(), b"HTTP/1.1 200 OK\r\nContent-", b"HTTP/1.1 100 Continue\r\n\r\n"] {
        let answer = answer_of(bytes).await;
        assert_eq!(answer.status, 502, "{:?}", String::from_utf8_lossy(bytes));
        assert!(["upstream_unreachable", "upstream_invalid"].contains(&answer.code().as_str()), "{answer:?}");
    }
}

#[tokio::test]
async fn a_refused_connection_is_502_upstream_unreachable() {
    let refusing = Refusing::new();
    let gateway = Gateway::start(&all_to(&refusing.url())).await;
    let mut client = gateway.client().await;
    let answer = client.get("/").await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_unreachable"));
    assert_eq!(client.get("/").await.status, 502, "the client's connection goes on");
}

#[tokio::test]
async fn a_reset_before_the_head_is_502() {
    let upstream = Upstream::start(|mut conn: Conn| async move {
        conn.request().await?;
        conn.reset();
        Ok(())
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let answer = gateway.client().await.request("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").await;
    assert_eq!(answer.status, 502);
    assert_eq!(upstream.requests().len(), 1, "it may have been processed, so it is not repeated");
}

#[tokio::test]
async fn a_silent_upstream_is_504_upstream_timeout_at_the_attempts_limit() {
    let upstream = Upstream::start(|mut conn: Conn| async move {
        conn.request().await?;
        conn.closed().await;
        Ok(())
    })
    .await;
    let limits = "timeout = { request = \"20s\", attempt = \"200ms\" }\n";
    let gateway = Gateway::start(&(all_to(&upstream.url()) + limits)).await;
    let answer = gateway.get("/").await;
    assert_eq!((answer.status, answer.code().as_str()), (504, "upstream_timeout"));
    upstream.ended(0).await;
}

#[tokio::test]
async fn a_head_that_drips_is_504_at_the_attempts_limit() {
    let upstream = Upstream::start(|mut conn: Conn| async move {
        conn.request().await?;
        conn.send("HTTP/1.1 200 OK\r\n").await?;
        loop {
            conn.send("X: y\r\n").await?;
            tokio::time::sleep(Duration::from_millis(20)).await; // the pace of the drip
        }
    })
    .await;
    let limits = "timeout = { request = \"20s\", attempt = \"200ms\" }\n";
    let gateway = Gateway::start(&(all_to(&upstream.url()) + limits)).await;
    let answer = gateway.get("/").await;
    assert_eq!((answer.status, answer.code().as_str()), (504, "upstream_timeout"));
}

#[tokio::test]
async fn a_request_that_outlives_its_time_before_the_head_is_504_deadline_exceeded() {
    let upstream = Upstream::start(|mut conn: Conn| async move {
        conn.request().await?;
        conn.closed().await;
        Ok(())
    })
    .await;
    let limits = "timeout = { request = \"200ms\", attempt = \"200ms\" }\n";
    let gateway = Gateway::start(&(all_to(&upstream.url()) + limits)).await;
    let answer = gateway.get("/").await;
    // both are over at the same moment, so either is the truth
    assert_eq!(answer.status, 504);
    assert!(["deadline_exceeded", "upstream_timeout"].contains(&answer.code().as_str()), "{answer:?}");
}

#[tokio::test]
async fn the_time_of_a_request_begins_with_its_first_byte() {
    let upstream = Upstream::start(|mut conn: Conn| async move {
        loop {
            let request = conn.request().await?;
            if request.target == "/slow" {
                conn.closed().await;
                return Ok(());
            }
            conn.send(ok("yes")).await?;
        }
    })
    .await;
    let limits = "timeout = { request = \"300ms\" }\n";
    let gateway = Gateway::start(&(all_to(&upstream.url()) + limits)).await;
    let (mut client, mut other) = (gateway.client().await, gateway.client().await);
    client.send("GET /slow HTTP/1.1\r\n").await;
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_millis(200) {
        assert_eq!(other.get("/").await.status, 200);
    }
    client.send("Host: a\r\n\r\n").await;
    let rest = std::time::Instant::now();
    assert_eq!(client.response().await.code(), "deadline_exceeded");
    assert!(rest.elapsed() < Duration::from_millis(290), "the head's own time counts");
}

#[tokio::test]
async fn a_body_that_drips_is_cut_at_the_requests_limit() {
    let upstream = Upstream::start(|mut conn: Conn| async move {
        conn.request().await?;
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n").await?;
        loop {
            conn.send("x").await?;
            tokio::time::sleep(Duration::from_millis(20)).await; // the pace of the drip
        }
    })
    .await;
    let limits = "timeout = { request = \"300ms\", attempt = \"200ms\" }\n";
    let gateway = Gateway::start(&(all_to(&upstream.url()) + limits)).await;
    let answer = gateway.get("/").await;
    assert_eq!((answer.status, answer.whole), (200, false), "the cut shows");
}

#[tokio::test]
async fn a_body_that_stops_is_cut_at_the_idle_limit() {
    let upstream = Upstream::start(|mut conn: Conn| async move {
        conn.request().await?;
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await?;
        conn.closed().await;
        Ok(())
    })
    .await;
    let limits = "timeout = { request = \"20s\", attempt = \"20s\", idle = \"200ms\" }\n";
    let gateway = Gateway::start(&(all_to(&upstream.url()) + limits)).await;
    let answer = gateway.get("/").await;
    assert_eq!((answer.status, answer.text().as_str(), answer.whole), (200, "hello", false));
    upstream.ended(0).await;
}

#[tokio::test]
async fn a_body_that_the_upstream_cuts_short_is_cut_short_for_the_client() {
    let cut: [&'static [u8]; 4] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfour",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nfour",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\nnonsense\r\n",
    ];
    for bytes in cut {
        let answer = answer_of(bytes).await;
        let shown = String::from_utf8_lossy(bytes).into_owned();
        // what has not left the gateway yet can still become a refusal
        if answer.status != 502 {
            assert_eq!((answer.status, answer.whole), (200, false), "{shown:?}");
            assert!("four".starts_with(&answer.text()), "{shown:?}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn an_upstreams_error_is_its_own() {
    for status in ["500 Oh No", "502 Bad Gateway", "503 Busy", "404 Not Found", "431 Too Large"] {
        let upstream = Upstream::answering(response(status, "", b"from the origin")).await;
        let gateway = Gateway::start(&all_to(&upstream.url())).await;
        let answer = gateway.get("/").await;
        assert!(status.starts_with(&answer.status.to_string()), "{status}: {answer:?}");
        assert_eq!((answer.text().as_str(), answer.field("proxy-status")), ("from the origin", None));
    }
}

/// Two upstreams that say their names.
async fn pair() -> (Upstream, Upstream) {
    (Upstream::saying("a").await, Upstream::saying("b").await)
}

async fn said(client: &mut Client, count: usize) -> String {
    let mut said = String::new();
    for _ in 0..count {
        said += &client.get("/").await.text();
    }
    said
}

#[tokio::test]
async fn round_robin_gives_each_endpoint_its_turn() {
    let (a, b) = pair().await;
    let config = format!(
        "[upstream.pair]\nendpoints = [\"{}\", {{ url = \"{}\", weight = 3 }}]\nbalance = \"round_robin\"\n{}",
        a.url(),
        b.url(),
        all_to("pair")
    );
    let gateway = Gateway::start(&config).await;
    let said = said(&mut gateway.client().await, 40).await;
    assert_eq!((said.matches('a').count(), said.matches('b').count()), (10, 30), "{said}");
}

#[tokio::test]
async fn every_balance_uses_every_endpoint() {
    for balance in ["least_request", "ewma", "random"] {
        let (a, b) = pair().await;
        let endpoints = format!("endpoints = [\"{}\", \"{}\"]", a.url(), b.url());
        let config = format!("[upstream.pair]\n{endpoints}\nbalance = \"{balance}\"\n{}", all_to("pair"));
        let gateway = Gateway::start(&config).await;
        // by chance one endpoint gets all of them once in 2^99 runs
        let said = said(&mut gateway.client().await, 100).await;
        assert!(said.contains('a') && said.contains('b'), "{balance}: {said}");
    }
}

#[tokio::test]
async fn a_hash_keeps_a_key_on_its_endpoint() {
    let (a, b) = pair().await;
    let config = format!(
        "[upstream.pair]\nendpoints = [\"{}\", \"{}\"]\nbalance = {{ hash = \"header:X-Tenant\" }}\n{}",
        a.url(),
        b.url(),
        all_to("pair")
    );
    let gateway = Gateway::start(&config).await;
    let mut seen = String::new();
    for tenant in 0..64 {
        let request = format!("GET / HTTP/1.1\r\nHost: example.com\r\nX-Tenant: tenant-{tenant}\r\n\r\n");
        // on two connections, so that no worker has a mind of its own
        let first = ask(gateway.public().await, &request).await.text();
        assert_eq!(ask(gateway.public().await, &request).await.text(), first, "tenant {tenant}");
        seen += &first;
    }
    assert!(seen.contains('a') && seen.contains('b'), "{seen}");
}

#[tokio::test]
async fn a_weighted_split_sends_to_both_upstreams() {
    let (a, b) = pair().await;
    let config = format!(
        "[upstream.stable]\nendpoints = [\"{}\"]\n[upstream.canary]\nendpoints = [\"{}\"]\n[[route]]\nmatch = \"/*\"\nupstream = [{{ upstream = \"stable\", weight = 3 }}, {{ upstream = \"canary\", weight = 1 }}]\n",
        a.url(),
        b.url()
    );
    let gateway = Gateway::start(&config).await;
    let said = said(&mut gateway.client().await, 200).await;
    // 50 are expected of the canary; less than 10 or more than 110 do not happen by chance
    assert!((10..110).contains(&said.matches('b').count()), "{said}");
}

#[tokio::test]
async fn a_name_is_resolved() {
    let upstream = Upstream::saying("resolved").await;
    let gateway = Gateway::start(&all_to(&format!("http://localhost:{}", upstream.address().port()))).await;
    // the first resolution may still be under way when the gateway is ready
    let answer = eventually("the name resolves", async || {
        let answer = gateway.get("/").await;
        (answer.status != 503).then_some(answer)
    })
    .await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "resolved"));
}

#[tokio::test]
async fn a_name_without_an_address_is_503_no_healthy_endpoint() {
    let gateway = Gateway::start(&all_to("http://no-such-name.invalid:80")).await;
    let answer = gateway.get("/").await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "no_healthy_endpoint"));
}

#[tokio::test]
async fn a_unix_socket_is_an_upstream() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let upstream = Upstream::with_unix(&path, |request| ok(&request.target));
    let config = format!("[upstream.app]\nendpoints = [\"{}\"]\n{}", upstream.url(), all_to("app"));
    let gateway = Gateway::start(&config).await;
    let mut client = gateway.client().await;
    assert_eq!(client.get("/one").await.text(), "/one");
    assert_eq!(client.get("/two").await.text(), "/two");
    assert_eq!(upstream.connections(), 1);
}

fn over_tls(upstream: &Upstream, tls: &str) -> String {
    let url = format!("https://localhost:{}", upstream.address().port());
    format!("[upstream.api]\nendpoints = [\"{url}\"]\ntls = {{ {tls} }}\n{}", all_to("api"))
}

/// One GET, once the name of the endpoint has been resolved.
async fn get_resolved(gateway: &Gateway) -> Response {
    eventually("the name resolves", async || {
        let answer = gateway.get("/").await;
        (answer.status != 503).then_some(answer)
    })
    .await
}

#[tokio::test]
async fn an_upstream_over_tls_is_verified_by_its_own_authority() {
    let authority = Authority::new();
    let acceptor = authority.issue("localhost").acceptor(&["http/1.1"]);
    let upstream = Upstream::with_tls(acceptor, |_| ok("private")).await;
    let ca = format!("ca = \"{}\"", authority.ca().display());
    let gateway = Gateway::start(&over_tls(&upstream, &ca)).await;
    assert_eq!(get_resolved(&gateway).await.text(), "private");
    assert_eq!(upstream.request(0).await.field("host"), Some("example.com"));
}

#[tokio::test]
async fn an_upstream_that_nobody_vouches_for_is_502() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let acceptor = stranger.issue("localhost").acceptor(&[]);
    let upstream = Upstream::with_tls(acceptor, |_| ok("private")).await;
    let ca = format!("ca = \"{}\"", authority.ca().display());
    let gateway = Gateway::start(&over_tls(&upstream, &ca)).await;
    let answer = get_resolved(&gateway).await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_unreachable"));
    assert_eq!(upstream.requests().len(), 0);
}

#[tokio::test]
async fn an_upstream_of_another_name_is_502() {
    let authority = Authority::new();
    let acceptor = authority.issue("other.example").acceptor(&[]);
    let upstream = Upstream::with_tls(acceptor, |_| ok("private")).await;
    let ca = format!("ca = \"{}\"", authority.ca().display());
    let gateway = Gateway::start(&over_tls(&upstream, &ca)).await;
    assert_eq!(get_resolved(&gateway).await.status, 502);
    let named = format!("{ca}, server_name = \"other.example\"");
    let gateway = Gateway::start(&over_tls(&upstream, &named)).await;
    assert_eq!(get_resolved(&gateway).await.text(), "private");
}

#[tokio::test]
async fn the_gateway_shows_its_certificate_to_an_upstream_that_asks() {
    let authority = Authority::new();
    let acceptor = authority.acceptor_asking(&authority.issue("localhost"), &[]);
    let upstream = Upstream::with_tls(acceptor, |_| ok("welcome")).await;
    let ca = format!("ca = \"{}\"", authority.ca().display());
    let gateway = Gateway::start(&over_tls(&upstream, &ca)).await;
    assert_eq!(get_resolved(&gateway).await.status, 502, "without a certificate");
    let shown = format!("{ca}, client_certificate = {}", authority.issue("gateway").toml());
    let gateway = Gateway::start(&over_tls(&upstream, &shown)).await;
    assert_eq!(get_resolved(&gateway).await.text(), "welcome");
}

#[tokio::test]
async fn the_demo_upstream_is_built_in() {
    let gateway = Gateway::start(&all_to("demo")).await;
    assert_eq!(gateway.get("/echo").await.status, 200);
}

#[tokio::test]
async fn a_pool_without_room_keeps_no_connection() {
    let upstream = Upstream::saying("hello").await;
    let config =
        format!("[upstream.api]\nendpoints = [\"{}\"]\npool = {{ idle = 0 }}\n{}", upstream.url(), all_to("api"));
    let gateway = Gateway::start(&config).await;
    let mut client = gateway.client().await;
    for _ in 0..3 {
        assert_eq!(client.get("/").await.text(), "hello");
    }
    assert_eq!(upstream.connections(), 3);
    upstream.ended(2).await;
}

#[tokio::test]
async fn an_idle_upstream_connection_is_closed_at_its_limit() {
    let upstream = Upstream::saying("hello").await;
    let pool = "pool = { idle_timeout = \"200ms\" }";
    let config = format!("[upstream.api]\nendpoints = [\"{}\"]\n{pool}\n{}", upstream.url(), all_to("api"));
    let gateway = Gateway::start(&config).await;
    assert_eq!(gateway.get("/").await.text(), "hello");
    upstream.ended(0).await;
}
