//! What a rate limit costs a request and a key: two threads on one limit that has a million keys in use.
//!
//! `cargo bench --bench rate_limit` first prints the resident memory for each of 1,000,000 keys, then the time of a check:
//! of keys that have a bucket, of new keys when the table is full, and of two limits at once.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::cast_precision_loss,
    reason = "a program that measures"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant as Wall};

use criterion::Criterion;
use http::{HeaderMap, Method, Version};
use portcullis::model::clock::Instant;
use portcullis::model::diagnostic::Diagnostics;
use portcullis::model::ids::RouteName;
use portcullis::model::request::{RequestView, Scheme};
use portcullis::policy::rate_limit::{Charged, LedgerBuilder, RateLimit, Turn};

const KEYS: u32 = 1_000_000;
const THREADS: u64 = 2;

fn limits(written: &str) -> RateLimit {
    let config = serde_json::from_str(written).expect("limits");
    let (named, stores, mut diagnostics) = (BTreeMap::new(), BTreeMap::new(), Diagnostics::default());
    let seed = fastrand::u128(..);
    let mut builder = LedgerBuilder::new((&named, &stores), None, seed, |_, _| None, &mut diagnostics);
    let route = RouteName::from("bench");
    builder.compile(&config, &route, &mut diagnostics).expect("sound settings")
}

fn ask(limits: &RateLimit, client: u32, headers: &HeaderMap, now: Instant) -> bool {
    let client = IpAddr::V4(Ipv4Addr::from_bits(client));
    let request = RequestView {
        method: &Method::GET,
        scheme: Scheme::Http,
        host: "example.com",
        port: None,
        path: "/",
        query: None,
        headers,
        version: Version::HTTP_11,
        client,
        peer: SocketAddr::new(client, 1),
        route: Some("bench"),
        principal: None,
    };
    let mut charged = Charged::default();
    limits.decide(Turn::BeforeAuthentication, &request, &mut charged, now).rejection.is_none()
}

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    pages * 4096
}

/// A million keys that refill in an hour.
fn full(limits: &RateLimit) {
    let headers = HeaderMap::new();
    for client in 0..KEYS {
        ask(limits, client, &headers, Instant::from_nanos(1));
    }
}

/// The time that `checks` checks of each thread take.
fn threads(limits: &RateLimit, checks: u64, first: u32) -> Duration {
    let headers = HeaderMap::new();
    let started = Wall::now();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let headers = &headers;
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(thread);
                for _ in 0..checks {
                    let client = first + random.u32(..KEYS);
                    black_box(ask(limits, client, headers, Instant::from_nanos(2)));
                }
            });
        }
    });
    started.elapsed()
}

fn main() {
    let before = resident();
    let one = limits(r#"{ "key": "client.ip", "rate": "1/h", "burst": 1000, "max_keys": 1000000 }"#);
    full(&one);
    let taken = resident().saturating_sub(before);
    println!("memory: {:.1} bytes of resident memory per key, {KEYS} keys", taken as f64 / f64::from(KEYS));

    let two = limits(
        r#"[{ "key": "client.ip", "rate": "1/h", "burst": 1000, "max_keys": 1000000 },
            { "key": ["client.ip", "host"], "rate": "1/h", "burst": 1000, "max_keys": 1000000 }]"#,
    );
    full(&two);
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("rate_limit");
    group.bench_function("one limit, key in use", |bencher| bencher.iter_custom(|checks| threads(&one, checks, 0)));
    group.bench_function("one limit, full table", |bencher| bencher.iter_custom(|checks| threads(&one, checks, KEYS)));
    group.bench_function("two limits, keys in use", |bencher| bencher.iter_custom(|checks| threads(&two, checks, 0)));
    group.finish();
    criterion.final_summary();
}
