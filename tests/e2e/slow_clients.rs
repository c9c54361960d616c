//! Clients that take their time, each cut at its own limit, while a quick client on the same listener notices nothing.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::harness::upstream::ok;
use super::harness::wire::{End, Wire};
use super::harness::{Authority, Client, Conn, Gateway, H2Client, Upstream, all_to, checksum, noise, within};

/// Each limit on its own is short, and all others are long, so that a cut tells which one it was.
fn listener(limit: &str) -> String {
    let mut limits = vec![limit.to_owned()];
    for (name, value) in [("header_timeout", "20s"), ("idle_timeout", "20s"), ("handshake_timeout", "20s")] {
        if !limit.contains(name) {
            limits.push(format!("{name} = \"{value}\""));
        }
    }
    format!("[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\nlimits = {{ {} }}\n", limits.join(", "))
}

/// Far above every limit here, far below what an unlimited connection would take.
const SOON: Duration = Duration::from_secs(10);

/// Runs a slow client to its end while quick ones come and go; fails when the cut takes too long.
async fn check_cut<T>(address: SocketAddr, at_least: Duration, slow: impl Future<Output = T>) -> T {
    let since = Instant::now();
    let quick = async {
        let mut client = Client::connect(address).await;
        for _ in 0..10 {
            assert_eq!(client.get("/quick").await.status, 200);
            assert_eq!(super::harness::client::get(address, "/quick").await.status, 200);
        }
    };
    let (result, ()) = tokio::join!(within("the slow client is cut", slow), quick);
    let took = since.elapsed();
    assert!(took >= at_least, "cut after {took:?}, before its limit");
    assert!(took < SOON, "cut after {took:?}");
    result
}

/// Sends a byte each 20 ms until the gateway has had enough.
async fn drip(client: &mut Client, bytes: &[u8]) {
    for byte in bytes.iter().cycle() {
        if client.wire.send([*byte]).await.is_err() {
            return;
        }
        // the pace of the drip; what the gateway says meanwhile ends it
        let pace = Duration::from_millis(20);
        if let Ok(head) = tokio::time::timeout(pace, client.wire.head()).await {
            if let Ok(Some(head)) = head {
                assert!(head.starts_with(b"HTTP/1.1 408 "), "{:?}", String::from_utf8_lossy(&head));
            }
            return;
        }
    }
}

#[tokio::test]
async fn a_head_that_drips_is_408_at_its_limit() {
    let upstream = Upstream::saying("hello").await;
    let gateway = Gateway::start(&(listener("header_timeout = \"300ms\"") + &all_to(&upstream.url()))).await;
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: example.com\r\n").await;
    let slow = drip(&mut client, b"X: y\r\n");
    check_cut(gateway.public().await, Duration::from_millis(200), slow).await;
    assert!(upstream.requests().iter().all(|request| request.target == "/quick"));
}

#[tokio::test]
async fn a_head_that_stops_is_408_and_the_end() {
    let upstream = Upstream::saying("hello").await;
    let gateway = Gateway::start(&(listener("header_timeout = \"300ms\"") + &all_to(&upstream.url()))).await;
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: exam").await;
    let slow = client.response();
    let answer = check_cut(gateway.public().await, Duration::from_millis(200), slow).await;
    assert_eq!((answer.status, answer.code().as_str()), (408, "request_timeout"));
    assert!(answer.says_close(), "{answer:?}");
    client.closed().await;
}

#[tokio::test]
async fn the_second_head_of_a_connection_has_the_same_limit() {
    let upstream = Upstream::saying("hello").await;
    let gateway = Gateway::start(&(listener("header_timeout = \"300ms\"") + &all_to(&upstream.url()))).await;
    let mut client = gateway.client().await;
    assert_eq!(client.get("/quick").await.status, 200);
    client.send("GET / HTTP/1.1\r\nHost: exam").await;
    let slow = client.response();
    let answer = check_cut(gateway.public().await, Duration::from_millis(200), slow).await;
    assert_eq!(answer.status, 408);
    client.closed().await;
}

#[tokio::test]
async fn a_connection_that_never_speaks_is_closed() {
    let upstream = Upstream::saying("hello").await;
    let limits = "header_timeout = \"300ms\", idle_timeout = \"300ms\"";
    let gateway = Gateway::start(&(listener(limits) + &all_to(&upstream.url()))).await;
    let mut client = gateway.client().await;
    let slow = client.try_response_to("GET");
    let answer = check_cut(gateway.public().await, Duration::from_millis(200), slow).await;
    assert!(answer.is_none_or(|answer| answer.status == 408));
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let upstream = Upstream::saying("hello").await;
    let gateway = Gateway::start(&(listener("idle_timeout = \"300ms\"") + &all_to(&upstream.url()))).await;
    let mut client = gateway.client().await;
    assert_eq!(client.get("/quick").await.status, 200);
    let slow = client.closed();
    let end = check_cut(gateway.public().await, Duration::from_millis(200), slow).await;
    assert_eq!(end, End::Closed);
}

#[tokio::test]
async fn a_body_below_the_rate_is_408() {
    let upstream = Upstream::saying("hello").await;
    let limits = "header_timeout = \"300ms\", min_body_rate = \"10KiB/s\"";
    for framing in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
        let gateway = Gateway::start(&(listener(limits) + &all_to(&upstream.url()))).await;
        let mut client = gateway.client().await;
        client.send(format!("POST /slow HTTP/1.1\r\nHost: example.com\r\n{framing}\r\n\r\n")).await;
        let slow = drip(&mut client, b"1\r\nx\r\n");
        check_cut(gateway.public().await, Duration::ZERO, slow).await;
    }
    for request in upstream.requests() {
        assert!(request.target == "/quick" || request.body.is_none(), "{request:?}");
    }
}

#[tokio::test]
async fn a_body_that_stops_is_408() {
    let upstream = Upstream::saying("hello").await;
    let limits = "header_timeout = \"300ms\", min_body_rate = \"10KiB/s\"";
    let gateway = Gateway::start(&(listener(limits) + &all_to(&upstream.url()))).await;
    let mut client = gateway.client().await;
    client.send("POST /slow HTTP/1.1\r\nHost: example.com\r\nContent-Length: 10\r\n\r\nhello").await;
    let slow = client.response();
    let answer = check_cut(gateway.public().await, Duration::ZERO, slow).await;
    assert_eq!((answer.status, answer.code().as_str()), (408, "request_timeout"));
    client.closed().await;
}

#[tokio::test]
async fn a_client_is_not_blamed_for_a_slow_upstream() {
    const LENGTH: usize = 8 * 1024 * 1024;
    let upstream = Upstream::start(|mut conn: Conn| async move {
        conn.head().await?;
        // the stimulus: for so long the upstream takes nothing, and the client can send nothing
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        conn.body().await;
        conn.send(ok("patient")).await
    })
    .await;
    let limits = "header_timeout = \"300ms\", min_body_rate = \"8MiB/s\"";
    let gateway = Gateway::start(&(listener(limits) + &all_to(&upstream.url()))).await;
    let body = noise(LENGTH, 6);
    let mut client = gateway.client().await;
    client.send(format!("POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: {LENGTH}\r\n\r\n")).await;
    client.send(&body).await;
    assert_eq!(client.response().await.text(), "patient");
    assert_eq!(checksum(upstream.request(0).await.body()), checksum(&body));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_when_nothing_moves() {
    const ENDLESS: usize = 256 * 1024 * 1024;
    let upstream = Upstream::start(|mut conn: Conn| async move {
        conn.request().await?;
        conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {ENDLESS}\r\n\r\n")).await?;
        let piece = vec![b'x'; 64 * 1024];
        while conn.send(&piece).await.is_ok() {}
        conn.closed().await;
        Ok(())
    })
    .await;
    let limits = "timeout = { request = \"20s\", idle = \"300ms\" }\n";
    let gateway = Gateway::start(&(all_to(&upstream.url()) + limits)).await;
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
    let since = Instant::now();
    upstream.ended(0).await;
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
}

async fn tls_gateway(limit: &str, upstream: &Upstream) -> (Gateway, Authority) {
    let authority = Authority::new();
    let certificate = authority.issue("localhost").toml();
    let config = format!("{}tls = {{ certificates = [{certificate}] }}\n{}", listener(limit), all_to(&upstream.url()));
    (Gateway::start(&config).await, authority)
}

#[tokio::test]
async fn a_silent_tls_handshake_is_cut_at_its_limit() {
    let upstream = Upstream::saying("hello").await;
    let (gateway, authority) = tls_gateway("handshake_timeout = \"300ms\"", &upstream).await;
    let address = gateway.public().await;
    let hello = authority.client(&["http/1.1"]);
    for sent in [b"".as_slice(), b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        let mut wire = Wire::connect(address).await.unwrap();
        wire.send(sent).await.unwrap();
        let since = Instant::now();
        // a quick client handshakes meanwhile
        let quick = async { Client::connect_tls(address, &hello, "localhost").await.get("/").await };
        let ((_, alert), quick) = tokio::join!(within("the handshake is cut", wire.end()), quick);
        assert_eq!(quick.status, 200);
        assert!(!alert.starts_with(b"HTTP"), "{alert:?}");
        let took = since.elapsed();
        assert!((Duration::from_millis(200)..SOON).contains(&took), "{took:?}");
    }
}

const H2: &str = "protocols = [\"h2\"]\n";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[tokio::test]
async fn an_http_2_connection_that_never_speaks_is_closed() {
    let upstream = Upstream::saying("hello").await;
    let limits = "header_timeout = \"300ms\", idle_timeout = \"300ms\"";
    let gateway = Gateway::start(&(listener(limits) + H2 + &all_to(&upstream.url()))).await;
    for sent in [b"".as_slice(), &PREFACE[..10], &PREFACE[..24]] {
        let mut wire = Wire::connect(gateway.public().await).await.unwrap();
        wire.send(sent).await.unwrap();
        let since = Instant::now();
        within("the connection is closed", wire.end()).await;
        assert!(since.elapsed() < SOON);
    }
}

#[tokio::test]
async fn an_http_2_head_that_never_ends_is_cut() {
    let upstream = Upstream::saying("hello").await;
    let limits = "header_timeout = \"300ms\", idle_timeout = \"300ms\"";
    let gateway = Gateway::start(&(listener(limits) + H2 + &all_to(&upstream.url()))).await;
    let mut wire = Wire::connect(gateway.public().await).await.unwrap();
    // HEADERS of stream 1 with a part of a block and without END_HEADERS
    wire.send([PREFACE, b"\0\0\x01\x01\x01\0\0\0\x01\x82"].concat()).await.unwrap();
    let since = Instant::now();
    within("the connection is closed", wire.end()).await;
    assert!(since.elapsed() < SOON);
}

#[tokio::test]
async fn an_idle_http_2_connection_is_closed() {
    let upstream = Upstream::saying("hello").await;
    let gateway = Gateway::start(&(listener("idle_timeout = \"300ms\"") + H2 + &all_to(&upstream.url()))).await;
    let mut client = H2Client::connect(gateway.public().await).await;
    assert_eq!(client.get("http://example.com/").await.status, 200);
    let since = Instant::now();
    let end = within("the connection is closed", client.connection).await.unwrap();
    assert!(since.elapsed() < SOON);
    assert!(end.is_ok() || end.is_err_and(|error| error.is_go_away() || error.is_io()));
}

#[tokio::test]
async fn an_http_2_body_that_stops_is_refused() {
    let upstream = Upstream::saying("hello").await;
    let limits = "header_timeout = \"300ms\", min_body_rate = \"10KiB/s\"";
    let gateway = Gateway::start(&(listener(limits) + H2 + &all_to(&upstream.url()))).await;
    let mut client = H2Client::connect(gateway.public().await).await;
    let request = http::Request::post("http://example.com/slow").body(()).unwrap();
    let mut stream = client.begin(request, false).await;
    stream.send.send_data("hello".into(), false).unwrap();
    let since = Instant::now();
    match stream.result().await {
        Ok(answer) => assert_eq!(answer.status, 408),
        Err(error) => assert!(error.is_reset(), "{error}"),
    }
    assert!(since.elapsed() < SOON);
    assert_eq!(client.get("http://example.com/quick").await.status, 200, "the other streams go on");
}

#[tokio::test]
async fn one_connection_over_the_cap_is_turned_away() {
    let upstream = Upstream::saying("hello").await;
    let gateway = Gateway::start(&(listener("connections = 2") + &all_to(&upstream.url()))).await;
    let (mut first, mut second) = (gateway.client().await, gateway.client().await);
    assert_eq!((first.get("/").await.status, second.get("/").await.status), (200, 200));
    let mut third = gateway.client().await;
    let answer = third.try_response_to("GET").await;
    assert!(answer.is_none_or(|answer| answer.status == 503));
    gateway.metric_reaches("portcullis_connections_refused_total", &[("reason", "connection_limit")], 1.0).await;
    drop(first);
    gateway.metric_becomes("portcullis_connections_active", &[("listener", "public")], 1.0).await;
    assert_eq!(gateway.get("/").await.status, 200, "a place that is free again is given again");
}
