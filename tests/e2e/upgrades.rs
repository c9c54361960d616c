//! `101 Switching Protocols` on HTTP/1.1: what is asked for, what is answered, and bytes in both directions after it.

use super::harness::client::ask;
use super::harness::upstream::ok;
use super::harness::wire::End;
use super::harness::{Conn, Gateway, Upstream, all_to, checksum, noise, within};

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Switches, then sends back what comes.
async fn echo(mut conn: Conn) -> std::io::Result<()> {
    conn.request().await?;
    conn.send(SWITCH).await?;
    loop {
        let bytes = conn.some().await?;
        if bytes.is_empty() {
            conn.closed().await;
            return Ok(());
        }
        conn.send(bytes).await?;
    }
}

#[tokio::test]
async fn after_an_upgrade_bytes_pass_both_ways() {
    let upstream = Upstream::start(echo).await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let mut client = gateway.client().await;
    client.send(ASK).await;
    let head = client.head().await;
    assert_eq!((head.status, head.field("upgrade")), (101, Some("websocket")));
    assert!(head.fields.has_token("connection", "upgrade"), "{head:?}");
    assert_eq!(head.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert!(!head.fields.has("transfer-encoding") && !head.fields.has("content-length"), "{head:?}");
    for message in ["one", "two\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"] {
        client.send(message).await;
        assert_eq!(client.exactly(message.len()).await, message.as_bytes());
    }
    let request = upstream.request(0).await;
    assert!(request.fields.has_token("connection", "upgrade"), "{request:?}");
    assert_eq!(request.field("upgrade"), Some("websocket"));
    assert_eq!(request.field("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    drop(client);
    upstream.ended(0).await;
}

#[tokio::test]
async fn bytes_that_follow_the_head_at_once_are_not_lost() {
    let upstream = Upstream::start(|mut conn: Conn| async move {
        conn.request().await?;
        conn.send(format!("{SWITCH}greeting")).await?;
        let early = conn.at_most(5).await;
        conn.send(early).await?;
        conn.closed().await;
        Ok(())
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let mut client = gateway.client().await;
    client.send(format!("{ASK}early")).await;
    assert_eq!(client.head().await.status, 101);
    assert_eq!(client.exactly(8).await, b"greeting");
    assert_eq!(client.exactly(5).await, b"early");
}

#[tokio::test]
async fn a_megabyte_passes_through_an_upgraded_connection() {
    let upstream = Upstream::start(echo).await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let mut client = gateway.client().await;
    client.send(ASK).await;
    assert_eq!(client.head().await.status, 101);
    let bytes = noise(1024 * 1024, 5);
    let mut writer = client.wire.take_writer();
    let sent = bytes.clone();
    let writing = tokio::spawn(async move {
        tokio::io::AsyncWriteExt::write_all(&mut writer, &sent).await.unwrap();
        writer
    });
    let back = client.exactly(bytes.len()).await;
    within("the writer", writing).await.unwrap();
    assert_eq!(checksum(&back), checksum(&bytes));
}

#[tokio::test]
async fn the_upstreams_end_reaches_an_upgraded_client() {
    let upstream = Upstream::start(|mut conn: Conn| async move {
        conn.request().await?;
        conn.send(format!("{SWITCH}bye")).await
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let mut client = gateway.client().await;
    client.send(ASK).await;
    assert_eq!(client.head().await.status, 101);
    assert_eq!(client.exactly(3).await, b"bye");
    assert_eq!(client.closed().await, End::Closed);
}

#[tokio::test]
async fn an_upgrade_that_the_upstream_declines_is_an_ordinary_response() {
    let upstream = Upstream::saying("no websockets here").await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let mut client = gateway.client().await;
    client.send(ASK).await;
    let answer = client.response().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "no websockets here"));
    assert!(client.is_alive().await, "the connection still speaks HTTP");
}

#[tokio::test]
async fn a_switch_that_nobody_asked_for_is_not_passed_on() {
    let upstream = Upstream::answering(SWITCH).await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let answer = gateway.get("/").await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_invalid"));
}

#[tokio::test]
async fn http_2_in_clear_is_not_negotiated_behind_the_gateway() {
    // an upstream that agreed would be a tunnel around every check (RFC 9113 §3.1 has withdrawn this upgrade)
    let upstream = Upstream::with(|request| ok(request.field("upgrade").unwrap_or("none"))).await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let request = "GET / HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
    let answer = ask(gateway.public().await, request).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "none"));
    assert!(!upstream.request(0).await.fields.has("http2-settings"));
}
