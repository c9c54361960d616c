//! Failed attempts: which are made again, how often, with which body, and what the client gets in the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::upstream::{ok, response};
use crate::harness::{Client, Conn, Gate, Gateway, Refusing, Upstream, all_to, noise};

/// No waits, and more budget than a test uses.
const AT_ONCE: &str = "retry = { backoff = { base = \"1ms\", max = \"1ms\" }, min_retries_per_second = 1000 }\n";

/// Answers the first `failures` requests with `status`, the others with 200.
async fn failing(failures: usize, status: &'static str) -> Upstream {
    let seen = Arc::new(AtomicUsize::new(0));
    Upstream::with(move |_| {
        if seen.fetch_add(1, Ordering::SeqCst) < failures {
            response(status, "X-Try: failed\r\n", b"no")
        } else {
            ok("yes")
        }
    })
    .await
}

#[tokio::test]
async fn a_failed_get_is_made_again_until_it_is_answered() {
    let upstream = failing(2, "503 Service Unavailable").await;
    let gateway = Gateway::start(&(all_to(&upstream.url()) + AT_ONCE)).await;
    let answer = gateway.get("/").await;
    assert_eq!((answer.status, answer.text()), (200, "yes".to_owned()));
    assert_eq!(upstream.requests().len(), 3);
    let decisions = [("route", "all"), ("policy", "retry"), ("verdict", "apply")];
    gateway.metric_becomes("portcullis_policy_decisions_total", &decisions, 2.0).await;
    gateway.metric_becomes("portcullis_upstream_retries_total", &[], 2.0).await;
}

#[tokio::test]
async fn the_last_real_answer_reaches_the_client() {
    let upstream = failing(99, "503 Service Unavailable").await;
    let gateway = Gateway::start(&(all_to(&upstream.url()) + AT_ONCE)).await;
    let answer = gateway.get("/").await;
    assert_eq!((answer.status, answer.text()), (503, "no".to_owned()));
    assert_eq!(answer.field("x-try"), Some("failed"), "it is the upstream's own");
    assert_eq!(upstream.requests().len(), 3);
}

#[tokio::test]
async fn an_answer_counts_more_than_a_connection_that_fails_after_it() {
    // Answers once, then is gone.
    let upstream = Upstream::start(|mut conn: Conn| async move {
        conn.request().await?;
        if conn.number > 0 {
            conn.reset();
            return Ok(());
        }
        conn.send(response("502 Bad Gateway", "Connection: close\r\n", b"its own words")).await
    })
    .await;
    let gateway = Gateway::start(&(all_to(&upstream.url()) + AT_ONCE)).await;
    let answer = gateway.get("/").await;
    assert_eq!((answer.status, answer.text()), (502, "its own words".to_owned()));
    assert_eq!(upstream.requests().len(), 3);
}

#[tokio::test]
async fn a_post_is_never_sent_twice_unless_opted_in() {
    const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    let upstream = failing(1, "503 Service Unavailable").await;
    let gateway = Gateway::start(&(all_to(&upstream.url()) + AT_ONCE)).await;
    assert_eq!(gateway.client().await.request(POST).await.status, 503);
    assert_eq!(upstream.requests().len(), 1);

    let upstream = failing(1, "503 Service Unavailable").await;
    let opted = "retry = { methods = [\"idempotent\", \"POST\"], backoff = { base = \"1ms\" } }\n";
    let gateway = Gateway::start(&(all_to(&upstream.url()) + opted)).await;
    assert_eq!(gateway.client().await.request(POST).await.status, 200);
    assert_eq!(upstream.request(1).await.body.unwrap().bytes, b"abc", "the whole body again");
}

#[tokio::test]
async fn a_post_that_no_connection_took_goes_elsewhere() {
    let (refusing, upstream) = (Refusing::new(), Upstream::saying("yes").await);
    let config = format!(
        "[upstream.pair]\nendpoints = [\"{}\", \"{}\"]\n{}{AT_ONCE}",
        refusing.url(),
        upstream.url(),
        all_to("pair")
    );
    let gateway = Gateway::start(&config).await;
    let mut client = gateway.client().await;
    for _ in 0..4 {
        let answer = client.request("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").await;
        assert_eq!(answer.status, 200);
    }
    assert_eq!(upstream.requests().len(), 4);
}

#[tokio::test]
async fn a_body_within_the_buffer_is_sent_again_and_a_longer_one_is_not() {
    let upstream = failing(1, "503 Service Unavailable").await;
    let gateway = Gateway::start(&(all_to(&upstream.url()) + AT_ONCE)).await;
    let body = noise(64 * 1024, 7);
    let head = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut client = gateway.client().await;
    client.send([head.as_bytes(), &body].concat()).await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(upstream.request(1).await.body.unwrap().bytes, body);

    // One byte more, without and with a declared length.
    for chunked in [false, true] {
        let upstream = failing(1, "503 Service Unavailable").await;
        let gateway = Gateway::start(&(all_to(&upstream.url()) + AT_ONCE)).await;
        let body = noise(64 * 1024 + 1, 7);
        let mut client = gateway.client().await;
        if chunked {
            client.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            client.send([format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat()).await;
        } else {
            let head = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
            client.send([head.as_bytes(), &body].concat()).await;
        }
        assert_eq!(client.response().await.status, 503, "chunked: {chunked}");
        assert_eq!(upstream.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_body_that_was_half_sent_is_begun_again() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::start(move |mut conn: Conn| {
        let gate = held.clone();
        async move {
            if conn.number == 0 {
                // Takes the first half, and is gone before the second one comes.
                conn.head().await?;
                assert_eq!(conn.at_most(5).await.len(), 5);
                gate.open();
                conn.reset();
                return Ok(());
            }
            conn.request().await?;
            conn.send(ok("yes")).await
        }
    })
    .await;
    let gateway = Gateway::start(&(all_to(&upstream.url()) + AT_ONCE)).await;
    let mut client = gateway.client().await;
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234").await;
    gate.passed().await;
    // The second half goes out only when the second attempt is there to take it.
    upstream.request_head(1).await;
    client.send("56789").await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(upstream.request(1).await.body.unwrap().bytes, b"0123456789");
}

#[tokio::test]
async fn without_retry_there_is_one_attempt() {
    let upstream = failing(1, "503 Service Unavailable").await;
    let gateway = Gateway::start(&(all_to(&upstream.url()) + "retry = false\n")).await;
    assert_eq!(gateway.get("/").await.status, 503);
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn retries_of_a_failing_upstream_stay_within_the_budget() {
    const REQUESTS: usize = 300;
    let upstream = failing(usize::MAX, "503 Service Unavailable").await;
    let retry = "retry = { attempts = 10, budget = \"20%\", min_retries_per_second = 1, backoff = { base = \"1ms\", max = \"2ms\" } }\n";
    let gateway = Gateway::start(&(all_to(&upstream.url()) + retry)).await;
    let address = gateway.public().await;
    let clients = (0..6).map(|_| {
        tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            for _ in 0..REQUESTS / 6 {
                assert_eq!(client.get("/").await.status, 503);
            }
        })
    });
    let started = std::time::Instant::now();
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    // One a second, for the time that it took and for the window of ten seconds that is there from the start.
    let floor = 10 + usize::try_from(started.elapsed().as_secs()).unwrap() + 1;
    let sent = upstream.requests().len();
    assert!(sent > REQUESTS, "some were made again");
    assert!(sent <= REQUESTS * 12 / 10 + floor, "{sent} for {REQUESTS}, {floor} of them by the floor");
    gateway.metric_reaches("portcullis_upstream_retries_denied_total", &[], 1.0).await;
}

#[tokio::test]
async fn retry_after_is_waited_for_and_ends_retries_when_it_is_too_long() {
    let seen = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::with(move |_| match seen.fetch_add(1, Ordering::SeqCst) {
        0 => response("503 Service Unavailable", "Retry-After: 1\r\n", b""),
        1 => ok("yes"),
        _ => response("503 Service Unavailable", "Retry-After: 60\r\n", b"come later"),
    })
    .await;
    let gateway = Gateway::start(&(all_to(&upstream.url()) + AT_ONCE)).await;
    let started = std::time::Instant::now();
    assert_eq!(gateway.get("/").await.status, 200);
    assert!(started.elapsed() >= std::time::Duration::from_secs(1));
    let answer = gateway.get("/").await;
    assert_eq!((answer.status, answer.text()), (503, "come later".to_owned()));
    assert_eq!(upstream.requests().len(), 3, "the last one was not made again");
}

#[tokio::test]
async fn an_attempt_that_is_silent_is_made_again_within_the_request_s_time() {
    let upstream = Upstream::start(|mut conn: Conn| async move {
        conn.request().await?;
        if conn.number == 0 {
            conn.closed().await;
            return Ok(());
        }
        conn.send(ok("yes")).await
    })
    .await;
    let config = all_to(&upstream.url()) + AT_ONCE + "timeout = { attempt = \"100ms\" }\n";
    let gateway = Gateway::start(&config).await;
    assert_eq!(gateway.get("/").await.status, 200);

    let silent = Upstream::start(|mut conn: Conn| async move {
        conn.request().await?;
        conn.closed().await;
        Ok(())
    })
    .await;
    let config = all_to(&silent.url()) + AT_ONCE + "timeout = { attempt = \"100ms\", request = \"250ms\" }\n";
    let gateway = Gateway::start(&config).await;
    let answer = gateway.get("/").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (504, "deadline_exceeded"),
        "the third attempt ran out of time"
    );
}

#[tokio::test]
async fn the_client_s_departure_ends_a_backoff() {
    let upstream = failing(usize::MAX, "503 Service Unavailable").await;
    let slow = "retry = { backoff = { base = \"20s\", max = \"20s\", jitter = \"none\" } }\n";
    let gateway = Gateway::start(&(all_to(&upstream.url()) + slow)).await;
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    upstream.request(0).await;
    drop(client);
    let line = gateway.logged("the departure", |line| line["termination"] == "client_gone").await;
    assert_eq!(line["attempts"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_grpc_status_is_made_again_when_it_is_listed() {
    let seen = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::with(move |_| {
        let status = if seen.fetch_add(1, Ordering::SeqCst) == 0 { "14" } else { "0" };
        response("200 OK", &format!("Content-Type: application/grpc\r\ngrpc-status: {status}\r\n"), b"")
    })
    .await;
    let retry = "retry = { on = [\"grpc:unavailable\"], methods = [\"POST\"], backoff = { base = \"1ms\" } }\n";
    let gateway = Gateway::start(&(all_to(&upstream.url()) + retry)).await;
    let call = "POST /s/M HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nContent-Length: 5\r\n\r\n\0\0\0\0\0";
    let answer = gateway.client().await.request(call).await;
    assert_eq!(answer.field("grpc-status"), Some("0"));
    assert_eq!(upstream.request(1).await.body.unwrap().bytes, b"\0\0\0\0\0");
}

#[tokio::test]
async fn a_slow_get_is_hedged_and_the_loser_is_cancelled() {
    let slow = Upstream::start(|mut conn: Conn| async move {
        conn.request().await?;
        conn.closed().await;
        Ok(())
    })
    .await;
    let fast = Upstream::saying("fast").await;
    let config = format!(
        "[upstream.pair]\nendpoints = [\"{}\", \"{}\"]\n{}hedge = {{ after = \"30ms\" }}\n",
        slow.url(),
        fast.url(),
        all_to("pair")
    );
    let gateway = Gateway::start(&config).await;
    let mut client = gateway.client().await;
    // Whoever round robin begins with: of two requests, at least one meets the slow one first.
    for _ in 0..2 {
        let answer = client.get("/").await;
        assert_eq!((answer.status, answer.text()), (200, "fast".to_owned()));
    }
    slow.ended(0).await;
    assert_eq!(fast.requests().len(), 2);
    let hedged = f64::from(u32::try_from(slow.requests().len()).unwrap());
    gateway
        .metric_becomes("portcullis_upstream_hedges_total", &[("upstream", "pair"), ("result", "won")], hedged)
        .await;
    let superseded = [("upstream", "pair"), ("outcome", "superseded")];
    gateway.metric_becomes("portcullis_upstream_attempts_total", &superseded, hedged).await;
}

#[tokio::test]
async fn grpc_timeout_is_passed_on_shrunk_and_ends_the_call() {
    let upstream = Upstream::start(|mut conn: Conn| async move {
        conn.request().await?;
        conn.closed().await;
        Ok(())
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let call = "POST /s/M HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\ngrpc-timeout: 300m\r\nContent-Length: 5\r\n\r\n\0\0\0\0\0";
    let answer = gateway.client().await.request(call).await;
    assert_eq!((answer.status, answer.field("grpc-status")), (200, Some("4")), "{answer:?}");
    let told = upstream.request_head(0).await.field("grpc-timeout").unwrap().to_owned();
    let (digits, unit) = told.split_at(told.len() - 1);
    let micros: u64 = digits.parse().unwrap();
    assert_eq!(unit, "u", "{told}");
    assert!(micros > 0 && micros < 300_000, "{told}");
}

#[tokio::test]
async fn an_answer_that_was_held_gets_no_byte_of_a_later_attempt_s_body() {
    let gate = Gate::new();
    let held = gate.clone();
    // Answers early, takes what comes, and lets its answer end when told.
    let alive = Upstream::start(move |mut conn: Conn| {
        let gate = held.clone();
        async move {
            conn.head().await?;
            assert_eq!(conn.at_most(5).await, b"AAAAA");
            conn.send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\nConnection: close\r\n\r\nab").await?;
            gate.passed().await;
            conn.send("cd").await?;
            let rest = conn.some().await?;
            assert!(rest.is_empty(), "nothing more came: {:?}", String::from_utf8_lossy(&rest));
            Ok(())
        }
    })
    .await;
    let refusing = Refusing::new();
    let config = format!(
        "[upstream.pair]\nendpoints = [\"{}\", \"{}\"]\n{}retry = {{ attempts = 2, on = [\"503\", \"connect\"], backoff = {{ base = \"1ms\" }} }}\n",
        alive.url(),
        refusing.url(),
        all_to("pair")
    );
    let gateway = Gateway::start(&config).await;
    let mut client = gateway.client().await;
    // Whoever round robin begins with: one of two requests meets the living one first.
    for _ in 0..2 {
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 15\r\n\r\nAAAAA").await;
        let answer = client.head().await;
        if answer.status == 503 {
            client.send("BBBBB").await;
            gate.open();
            let body = client.body_of(&answer, "PUT").await;
            assert_eq!((body.bytes.as_slice(), body.whole), (&b"abcd"[..], true));
            assert_eq!(alive.requests().len(), 1);
            return;
        }
        client = gateway.client().await;
    }
    panic!("the living one was never first");
}
