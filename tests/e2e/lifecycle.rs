//! From the start to the end of the process: readiness, drain, signals, exit codes.

use std::time::{Duration, Instant};

use super::harness::upstream::ok;
use super::harness::wire::{End, Wire};
use super::harness::{Client, Conn, Gate, Gateway, Upstream, all_to, eventually, within};

/// Far below every `grace_period` here but the short ones.
const AT_ONCE: Duration = Duration::from_secs(5);

const HELLO: &str = "[[route]]\nmatch = \"/*\"\nrespond = { body = \"hello\" }\n";

/// An upstream that answers when the gate opens.
async fn holding(gate: &Gate) -> Upstream {
    let held = gate.clone();
    Upstream::start(move |mut conn: Conn| {
        let held = held.clone();
        async move {
            loop {
                conn.request().await?;
                held.passed().await;
                conn.send(ok("finished")).await?;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_gateway_that_is_ready_says_so() {
    let gateway = Gateway::start(HELLO).await;
    assert_eq!(gateway.admin_get("/livez").await.status, 200);
    assert_eq!(gateway.admin_get("/readyz").await.status, 200);
    assert_eq!(gateway.generation().await, 1);
    assert_eq!(gateway.get("/").await.text(), "hello");
}

#[tokio::test]
async fn an_idle_gateway_ends_at_once() {
    let mut gateway = Gateway::start(HELLO).await;
    let ended = gateway.terminate().await;
    assert_eq!(ended.status.code(), Some(0));
    assert!(ended.took < AT_ONCE, "{:?}", ended.took);
}

#[tokio::test]
async fn idle_connections_are_closed_and_do_not_delay_the_end() {
    let mut gateway = Gateway::start(HELLO).await;
    let mut kept = gateway.client().await;
    assert_eq!(kept.get("/").await.text(), "hello");
    let ended = gateway.terminate().await;
    assert_eq!((ended.status.code(), kept.closed().await), (Some(0), End::Closed));
    assert!(ended.took < AT_ONCE, "{:?}", ended.took);
}

#[tokio::test]
async fn a_request_in_flight_is_finished_after_readiness_has_failed() {
    let gate = Gate::new();
    let upstream = holding(&gate).await;
    let mut gateway = Gateway::start(&all_to(&upstream.url())).await;
    let address = gateway.public().await;
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
    upstream.request(0).await;
    gateway.signal("TERM").await;
    eventually("readiness fails", async || (gateway.admin_get("/readyz").await.status == 503).then_some(())).await;
    assert_eq!(gateway.admin_get("/livez").await.status, 200, "it is well, and on its way out");
    eventually("nobody is let in", async || Wire::connect(address).await.err()).await;

    gate.open();
    let since = Instant::now();
    let answer = client.response().await;
    assert_eq!(answer.text(), "finished");
    client.closed().await;
    assert_eq!(gateway.exit().await.code(), Some(0));
    assert!(since.elapsed() < AT_ONCE, "after the last request: {:?}", since.elapsed());
}

#[tokio::test]
async fn a_response_under_way_is_finished() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::start(move |mut conn: Conn| {
        let held = held.clone();
        async move {
            conn.request().await?;
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst").await?;
            held.passed().await;
            conn.send("after").await
        }
    })
    .await;
    let mut gateway = Gateway::start(&all_to(&upstream.url())).await;
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
    client.head().await;
    assert_eq!(client.exactly(5).await, b"first");
    gateway.signal("TERM").await;
    gateway.event("the drain", |event| event.message() == "draining").await;
    gate.open();
    assert_eq!(client.exactly(5).await, b"after");
    assert!(gateway.exit().await.success());
}

#[tokio::test]
async fn a_request_that_hangs_is_cut_when_the_grace_period_is_over() {
    let never = Gate::new();
    let upstream = holding(&never).await;
    let mut gateway = Gateway::start(&format!("grace_period = \"500ms\"\n{}", all_to(&upstream.url()))).await;
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
    upstream.request(0).await;
    let ended = gateway.terminate().await;
    assert_eq!(ended.status.code(), Some(0));
    assert!((Duration::from_millis(400)..AT_ONCE).contains(&ended.took), "{:?}", ended.took);
}

#[tokio::test]
async fn an_upgraded_connection_is_cut_when_the_grace_period_is_over() {
    let upstream = Upstream::start(|mut conn: Conn| async move {
        conn.request().await?;
        conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await?;
        conn.closed().await;
        Ok(())
    })
    .await;
    let mut gateway = Gateway::start(&format!("grace_period = \"500ms\"\n{}", all_to(&upstream.url()))).await;
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").await;
    assert_eq!(client.head().await.status, 101);
    let ended = gateway.terminate().await;
    assert_eq!(ended.status.code(), Some(0));
    assert!(ended.took < AT_ONCE, "{:?}", ended.took);
}

#[tokio::test]
async fn sigint_drains_and_a_second_one_ends_at_once() {
    let never = Gate::new();
    let upstream = holding(&never).await;
    let mut gateway = Gateway::start(&format!("grace_period = \"10m\"\n{}", all_to(&upstream.url()))).await;
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
    upstream.request(0).await;
    gateway.signal("INT").await;
    eventually("readiness fails", async || (gateway.admin_get("/readyz").await.status == 503).then_some(())).await;
    let since = Instant::now();
    gateway.signal("INT").await;
    gateway.exit().await;
    assert!(since.elapsed() < AT_ONCE, "{:?}", since.elapsed());
}

#[tokio::test]
async fn sigint_alone_ends_like_sigterm() {
    let mut gateway = Gateway::start(HELLO).await;
    gateway.signal("INT").await;
    assert_eq!(gateway.exit().await.code(), Some(0));
}

#[tokio::test]
async fn sigterm_under_load_fails_no_request() {
    let upstream = Upstream::saying("hello").await;
    let mut gateway = Gateway::start(&all_to(&upstream.url())).await;
    let address = gateway.public().await;
    let (told, mut served) = tokio::sync::mpsc::unbounded_channel();
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let told = told.clone();
        load.spawn(async move {
            // whoever is let in is served; the end of the loop is a refused connection
            while let Ok(wire) = Wire::connect(address).await {
                let mut client = Client { wire };
                assert_eq!(client.get("/").await.text(), "hello");
                told.send(()).unwrap();
            }
        });
    }
    for _ in 0..100 {
        within("requests are served", served.recv()).await.unwrap();
    }
    let ended = gateway.terminate().await;
    assert_eq!(ended.status.code(), Some(0));
    assert!(ended.took < AT_ONCE, "{:?}", ended.took);
    while let Some(result) = within("the load ends", load.join_next()).await {
        result.unwrap();
    }
}

#[tokio::test]
async fn a_bad_configuration_is_refused_with_every_error_and_exit_code_1() {
    let config =
        "[[route]]\nmatch = \"/*\"\nupstraem = \"http://127.0.0.1:1\"\n[defaults]\ntimeout = { request = \"10\" }\n";
    let mut gateway = Gateway::spawn(config);
    assert_eq!(gateway.exit().await.code(), Some(1));
    eventually("the diagnostics are on stderr", async || {
        let text = gateway.log.text();
        // the harness writes a line before the first one
        let all = ["upstraem", "portcullis.toml:4:1", "did you mean", "upstream", "portcullis.toml:6:"];
        all.iter().all(|part| text.contains(part)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_its_file_the_gateway_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("absent.toml");
    let mut gateway = Gateway::spawn_in(folder, file);
    assert!([1, 2].contains(&gateway.exit().await.code().expect("an exit code")));
    eventually("the file is named", async || gateway.log.text().contains("absent.toml").then_some(())).await;
}

#[tokio::test]
async fn a_taken_address_is_named_and_the_exit_code_is_2() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut gateway = Gateway::spawn(&format!("[[listener]]\naddress = \"{address}\"\n{HELLO}"));
    assert_eq!(gateway.exit().await.code(), Some(2));
    eventually("the address is named", async || gateway.log.text().contains(&address).then_some(())).await;
}

#[tokio::test]
async fn every_line_of_the_program_log_is_json() {
    let mut gateway = Gateway::start(HELLO).await;
    assert_eq!(gateway.get("/").await.status, 200);
    gateway.reload(&HELLO.replace("hello", "again")).await;
    gateway.write("nonsense");
    gateway.admin_post("/api/v1/reload").await;
    gateway.terminate().await;
    let text = gateway.log.text();
    assert!(text.lines().count() > 3, "{text}");
    for line in text.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(event.is_object(), "{line}");
    }
}
