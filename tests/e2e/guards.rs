//! What stands before an upstream: the circuit breaker and the concurrency limit, with real requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::harness::upstream::{ok, response};
use crate::harness::{Client, Conn, Gate, Gateway, Upstream, eventually};

const ONE_ATTEMPT: &str = "[defaults]\nretry = false\n";

fn guarded(url: &str, guard: &str) -> String {
    format!(
        "{ONE_ATTEMPT}[upstream.api]\nendpoints = [\"{url}\"]\n{guard}\n\
         [[route]]\nname = \"all\"\nmatch = \"/*\"\nupstream = \"api\"\n"
    )
}

async fn breaker_state(gateway: &Gateway) -> String {
    let upstreams: serde_json::Value =
        serde_json::from_str(&gateway.admin_get("/api/v1/upstreams").await.text()).unwrap();
    let api = upstreams["upstreams"].as_array().unwrap().iter().find(|one| one["name"] == "api").unwrap();
    api["breaker"]["state"].as_str().unwrap_or_else(|| panic!("{api}")).to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_breaker_opens_refuses_at_once_tries_exactly_n_and_closes() {
    const TRIALS: usize = 3;
    let (well, held) = (Arc::new(AtomicBool::new(false)), Gate::new());
    let (is_well, gate) = (Arc::clone(&well), held.clone());
    let upstream = Upstream::start(move |mut conn: Conn| {
        let (is_well, gate) = (Arc::clone(&is_well), gate.clone());
        async move {
            loop {
                conn.request().await?;
                if is_well.load(Ordering::SeqCst) {
                    gate.passed().await;
                    conn.send(ok("well")).await?;
                } else {
                    conn.send(response("500 Internal Server Error", "", b"ill")).await?;
                }
            }
        }
    })
    .await;
    let breaker = format!(
        "breaker = {{ failure_ratio = \"50%\", min_requests = 10, window = \"10s\", open_for = \"1500ms\", half_open_requests = {TRIALS} }}"
    );
    let gateway = Gateway::start(&guarded(&upstream.url(), &breaker)).await;
    let mut client = gateway.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.status, 500, "the upstream's own answer");
    }
    let opened = Instant::now();
    let refused = client.get("/").await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "breaker_open"));
    let wait: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
    assert_eq!(upstream.requests().len(), 10, "no request reached it");
    assert_eq!(breaker_state(&gateway).await, "open");
    gateway.metric_becomes("portcullis_upstream_breaker_state", &[("upstream", "api")], 2.0).await;
    let shed = [("upstream", "api"), ("reason", "breaker_open")];
    gateway.metric_becomes("portcullis_upstream_shed_total", &shed, 1.0).await;

    // A reload that leaves the breaker as it is leaves it open.
    let before = gateway.generation().await;
    gateway.reload(&(guarded(&upstream.url(), &breaker) + "compress = true\n")).await;
    assert!(gateway.generation().await > before);
    if opened.elapsed() < Duration::from_millis(1200) {
        assert_eq!(client.get("/").await.code(), "breaker_open", "kept over the reload");
    }

    well.store(true, Ordering::SeqCst);
    eventually("the breaker lets trials pass", async || (breaker_state(&gateway).await == "half_open").then_some(()))
        .await;
    // 200 at once: exactly as many as there are trials get through.
    let address = gateway.public().await;
    let refused = Arc::new(AtomicUsize::new(0));
    let crowd: Vec<_> = (0..200)
        .map(|_| {
            let refused = Arc::clone(&refused);
            tokio::spawn(async move {
                let answer = Client::connect(address).await.get("/").await;
                if answer.status == 503 {
                    assert_eq!(answer.code(), "breaker_open");
                    refused.fetch_add(1, Ordering::SeqCst);
                }
                answer.status
            })
        })
        .collect();
    eventually("all but the trials are refused", async || {
        (refused.load(Ordering::SeqCst) == 200 - TRIALS).then_some(())
    })
    .await;
    assert_eq!(upstream.requests().len(), 10 + TRIALS);
    held.open();
    let mut answered = 0;
    for one in crowd {
        answered += usize::from(one.await.unwrap() == 200);
    }
    assert_eq!(answered, TRIALS);
    assert_eq!(breaker_state(&gateway).await, "closed");
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn neither_4xx_nor_a_client_that_leaves_opens_a_breaker() {
    let upstream = Upstream::start(|mut conn: Conn| async move {
        loop {
            if conn.request().await?.target == "/hang" {
                conn.closed().await;
                return Ok(());
            }
            conn.send(response("404 Not Found", "", b"")).await?;
        }
    })
    .await;
    let gateway =
        Gateway::start(&guarded(&upstream.url(), "breaker = { failure_ratio = \"10%\", min_requests = 5 }")).await;
    let mut client = gateway.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.status, 404);
    }
    for number in 0..10 {
        let mut leaving = gateway.client().await;
        leaving.send("GET /hang HTTP/1.1\r\nHost: a\r\n\r\n").await;
        upstream.request_head(10 + number).await;
        drop(leaving);
    }
    eventually("the departures are noticed", async || {
        let line = |line: &&str| line.contains("client_gone");
        (gateway.access_log().lines().filter(line).count() == 10).then_some(())
    })
    .await;
    assert_eq!(breaker_state(&gateway).await, "closed");
    assert_eq!(client.get("/").await.status, 404);
}

#[tokio::test]
async fn uploads_that_are_too_slow_do_not_open_a_breaker() {
    let upstream = Upstream::start(|mut conn: Conn| async move {
        loop {
            conn.request().await?;
            conn.send(ok("yes")).await?;
        }
    })
    .await;
    let breaker = "breaker = { failure_ratio = \"10%\", min_requests = 5 }";
    let config = guarded(&upstream.url(), breaker) + "timeout = { request = \"100ms\" }\n";
    let gateway = Gateway::start(&config).await;
    let address = gateway.public().await;
    let slow = (0..10).map(|_| {
        tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123").await;
            client.response().await.code()
        })
    });
    for one in slow.collect::<Vec<_>>() {
        assert_eq!(one.await.unwrap(), "deadline_exceeded");
    }
    assert_eq!(breaker_state(&gateway).await, "closed");
    assert_eq!(gateway.get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_concurrency_limit_holds_queues_and_sheds() {
    let held = Gate::new();
    let (gate, most, now) = (held.clone(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (seen, current) = (Arc::clone(&most), Arc::clone(&now));
    let upstream = Upstream::start(move |mut conn: Conn| {
        let (gate, seen, current) = (gate.clone(), Arc::clone(&seen), Arc::clone(&current));
        async move {
            loop {
                conn.request().await?;
                seen.fetch_max(current.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                gate.passed().await;
                current.fetch_sub(1, Ordering::SeqCst);
                conn.send(ok("yes")).await?;
            }
        }
    })
    .await;
    let guard = "concurrency = { limit = 4, queue = 3, queue_timeout = \"20s\" }";
    let gateway = Gateway::start(&guarded(&upstream.url(), guard)).await;
    let address = gateway.public().await;
    let ask = || tokio::spawn(async move { Client::connect(address).await.get("/").await });
    let crowd: Vec<_> = (0..7).map(|_| ask()).collect();
    gateway.metric_becomes("portcullis_upstream_concurrency_in_flight", &[("upstream", "api")], 4.0).await;
    gateway.metric_becomes("portcullis_upstream_queue_length", &[("upstream", "api")], 3.0).await;
    let shed = ask().await.unwrap();
    assert_eq!((shed.status, shed.code().as_str()), (503, "overloaded"));
    assert!(shed.fields.has("retry-after"), "{shed:?}");
    assert_eq!(upstream.requests().len(), 4);
    held.open();
    for one in crowd {
        assert_eq!(one.await.unwrap().status, 200);
    }
    assert_eq!(most.load(Ordering::SeqCst), 4);
    gateway.metric_becomes("portcullis_upstream_concurrency_in_flight", &[("upstream", "api")], 0.0).await;
    let full = [("upstream", "api"), ("reason", "queue_full")];
    gateway.metric_becomes("portcullis_upstream_shed_total", &full, 1.0).await;
}

#[tokio::test]
async fn a_turn_that_does_not_come_in_time_is_overloaded_and_a_client_that_leaves_loses_its_turn() {
    let held = Gate::new();
    let gate = held.clone();
    let upstream = Upstream::start(move |mut conn: Conn| {
        let gate = gate.clone();
        async move {
            loop {
                conn.request().await?;
                gate.passed().await;
                conn.send(ok("yes")).await?;
            }
        }
    })
    .await;
    let guard = "concurrency = { limit = 1, queue = 5, queue_timeout = \"150ms\" }";
    let gateway = Gateway::start(&guarded(&upstream.url(), guard)).await;
    let mut first = gateway.client().await;
    first.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    upstream.request(0).await;
    let mut leaving = gateway.client().await;
    leaving.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    gateway.metric_becomes("portcullis_upstream_queue_length", &[("upstream", "api")], 1.0).await;
    drop(leaving);
    gateway.metric_becomes("portcullis_upstream_queue_length", &[("upstream", "api")], 0.0).await;
    let late = gateway.get("/").await;
    assert_eq!((late.status, late.code().as_str()), (503, "overloaded"));
    held.open();
    assert_eq!(first.response().await.status, 200);
    assert_eq!(gateway.get("/").await.status, 200);
    assert_eq!(upstream.requests().len(), 2, "whoever left was never sent on");
}

#[tokio::test]
async fn the_time_in_the_queue_belongs_to_the_request() {
    let upstream = Upstream::start(|mut conn: Conn| async move {
        conn.request().await?;
        conn.closed().await;
        Ok(())
    })
    .await;
    let guard = "concurrency = { limit = 1, queue = 5, queue_timeout = \"20s\" }";
    let config = guarded(&upstream.url(), guard) + "timeout = { request = \"300ms\" }\n";
    let gateway = Gateway::start(&config).await;
    let mut first = gateway.client().await;
    first.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    upstream.request(0).await;
    let answer = gateway.get("/").await;
    assert_eq!((answer.status, answer.code().as_str()), (504, "deadline_exceeded"));
}
