//! Limits that several gateways share over Redis: what they admit between them, and what holds when it is gone.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::Value;

use super::harness::redis::{Redis, free_port};
use super::harness::{Authority, Client, Gateway, Refusing, eventually};

const RATE: f64 = 150.0;
const BURST: f64 = 60.0;

fn config(store: &str) -> String {
    format!(
        "[rate_limit_store.shared]\n{store}\n\
         [[route]]\nname = \"all\"\nmatch = \"/*\"\nrespond = {{ body = \"hello\" }}\n\
         rate_limit = {{ name = \"all\", key = \"host\", rate = \"{RATE}/s\", burst = {BURST}, store = \"shared\" }}\n"
    )
}

async fn store(gateway: &Gateway) -> Value {
    gateway.admin_get("/api/v1/limits").await.json()["stores"][0].clone()
}

/// Waits until the store answers and as many gateways know of each other.
async fn share(gateways: &[Gateway], count: u64) {
    for gateway in gateways {
        eventually("the gateways share", async || {
            let store = store(gateway).await;
            (store["up"] == true && store["gateways"] == count).then_some(())
        })
        .await;
    }
}

#[derive(Debug, Default)]
struct Counts {
    admitted: f64,
    refused: u32,
    others: Vec<u16>,
}

/// Asks as fast as one connection allows until `enough` says so.
async fn press(gateway: &Gateway, enough: impl Fn() -> bool) -> Counts {
    let mut client = gateway.client().await;
    let mut counts = Counts::default();
    while !enough() {
        match client.get("/").await.status {
            200 => counts.admitted += 1.0,
            429 => counts.refused += 1,
            other => counts.others.push(other),
        }
    }
    counts
}

/// Presses all gateways for so long; what each counted, and the seconds that it took.
async fn press_all(gateways: &[Gateway], time: Duration) -> (Vec<Counts>, f64) {
    let since = Instant::now();
    let counts = join_all(gateways.iter().map(|gateway| press(gateway, move || since.elapsed() >= time))).await;
    for counts in &counts {
        assert!(counts.others.is_empty(), "{counts:?}");
        assert!(counts.refused > 0, "they are pressed: {counts:?}");
    }
    (counts, since.elapsed().as_secs_f64())
}

fn sum(counts: &[Counts]) -> f64 {
    counts.iter().map(|counts| counts.admitted).sum()
}

#[tokio::test]
async fn three_gateways_admit_the_limit_between_them_and_their_shares_while_redis_is_dead() {
    let mut redis = Redis::start(&[]).await;
    let config = config(&format!("redis = \"{}\"", redis.url()));
    let gateways = [Gateway::start(&config).await, Gateway::start(&config).await, Gateway::start(&config).await];
    share(&gateways, 3).await;

    let (counts, seconds) = press_all(&gateways, Duration::from_secs(3)).await;
    let most = BURST + RATE * seconds;
    assert!(sum(&counts) <= most * 1.02, "{counts:?} of {most}");
    assert!(sum(&counts) >= most * 0.9, "{counts:?} of {most}");

    // killed under load: nobody sees more of it than the limit
    let killed = Instant::now();
    let pressed = press_all(&gateways, Duration::from_secs(1));
    let ((), (counts, _)) = futures_util::join!(redis.kill(), pressed);
    assert!(sum(&counts) <= (BURST + RATE * killed.elapsed().as_secs_f64()) * 1.02, "{counts:?}");
    for gateway in &gateways {
        // the second is over: each has noticed
        let store = store(gateway).await;
        assert_eq!((&store["up"], &store["gateways"]), (&false.into(), &3.into()), "{store}");
        gateway.metric_becomes("portcullis_rate_limit_store_up", &[("store", "shared")], 0.0).await;
        assert!(gateway.metric("portcullis_rate_limit_store_errors_total", &[("store", "shared")]).await >= 1.0);
    }
    let (counts, seconds) = press_all(&gateways, Duration::from_secs(2)).await;
    let share_of_each = (BURST + RATE * seconds) / 3.0;
    for counts in &counts {
        assert!(counts.admitted <= share_of_each * 1.02 + 1.0, "{counts:?} of {share_of_each}");
        assert!(counts.admitted >= RATE * seconds / 3.0 * 0.9, "{counts:?} of {share_of_each}");
    }

    redis.start_again().await;
    share(&gateways, 3).await;
    // one alone now has what the others don't use
    let (counts, seconds) = press_all(gateways.get(..1).unwrap(), Duration::from_secs(2)).await;
    let most = BURST + RATE * seconds;
    assert!(sum(&counts) <= most * 1.02, "{counts:?} of {most}");
    assert!(sum(&counts) >= RATE * seconds * 0.9, "{counts:?} of {most}");
}

#[tokio::test]
async fn a_store_that_was_never_there_makes_nobody_wait() {
    let refusing = Refusing::new();
    let url = refusing.url().replace("http", "redis");
    for (on_error, statuses) in [("open", [200, 200]), ("closed", [429, 429]), ("local", [200, 429])] {
        let limit = "rate_limit = { key = \"host\", rate = \"1/h\", burst = 3, store = \"shared\", cost = 3 }\n";
        let config = format!(
            "[rate_limit_store.shared]\nredis = \"{url}\"\nnodes = 3\non_error = \"{on_error}\"\n\
             [[route]]\nmatch = \"/*\"\nrespond = {{ body = \"hello\" }}\n{limit}"
        );
        let gateway = Gateway::start(&config).await;
        let since = Instant::now();
        assert_eq!([gateway.get("/").await.status, gateway.get("/").await.status], statuses, "{on_error}");
        assert!(since.elapsed() < Duration::from_secs(5), "a store that refuses is not waited for");
        gateway.event("the store is down", |event| event.message() == "rate limit store down").await;
    }
}

/// One gateway whose store is written like that: it counts in `redis`.
async fn counts_in(redis: &Redis, store: &str, log_in: &str) {
    let gateway = Gateway::start(&config(store)).await;
    share(std::slice::from_ref(&gateway), 1).await;
    assert_eq!(Client::connect(gateway.public().await).await.get("/").await.status, 200);
    eventually("a bucket and the gateways stand in Redis", async || {
        // the answers to AUTH and to the question come together or one after the other
        let said = if log_in.is_empty() { redis.ask("DBSIZE").await } else { redis.ask_as(log_in, "DBSIZE").await };
        said.contains(":2").then_some(())
    })
    .await;
    assert!(!gateway.log.text().contains("hush"), "the password is nobody's business");
}

#[tokio::test]
async fn a_store_may_want_a_password_and_tls() {
    let authority = Authority::new();
    let issued = authority.issue("127.0.0.1");
    let port = free_port();
    let redis = Redis::start(&[
        "--requirepass",
        "hush-hush",
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        issued.chain.to_str().unwrap(),
        "--tls-key-file",
        issued.key.to_str().unwrap(),
        "--tls-ca-cert-file",
        authority.ca().to_str().unwrap(),
        "--tls-auth-clients",
        "no",
    ])
    .await;
    let store = format!(
        "redis = \"rediss://127.0.0.1:{port}\"\npassword = \"hush-hush\"\ntimeout = \"500ms\"\nca = \"{}\"",
        authority.ca().display()
    );
    counts_in(&redis, &store, "AUTH hush-hush").await;
}

#[tokio::test]
async fn a_store_may_be_a_cluster() {
    let redis = Redis::start(&["--cluster-enabled", "yes"]).await;
    assert_eq!(redis.ask("CLUSTER ADDSLOTSRANGE 0 16383").await, "+OK");
    eventually("the cluster is ready", async || {
        redis.ask("CLUSTER INFO").await.contains("cluster_state:ok").then_some(())
    })
    .await;
    counts_in(&redis, &format!("redis = [\"{}\"]\ncluster = true\ntimeout = \"500ms\"", redis.url()), "").await;
}

#[tokio::test]
async fn sentinels_may_know_the_store() {
    let redis = Redis::start(&[]).await;
    let sentinel = Redis::sentinel("limits", &redis).await;
    let store = format!("redis = [\"{}\"]\nsentinel = \"limits\"\ntimeout = \"500ms\"", sentinel.url());
    counts_in(&redis, &store, "").await;
}
