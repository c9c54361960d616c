//! What routing costs a request: `Router::find` with 10, 1,000 and 10,000 routes, and paths made canonical.
//!
//! Each size is asked the same mix (exact paths, prefixes, wildcard hosts, any host, and one request in ten that no
//! route takes), drawn from all of its routes, so that the larger tables pay for their cache misses.

#![expect(clippy::print_stdout, clippy::disallowed_methods, clippy::expect_used, reason = "a program that measures")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use http::{HeaderMap, Method, Version};
use portcullis::model::diagnostic::Diagnostics;
use portcullis::model::ids::RouteName;
use portcullis::model::request::{RequestView, Scheme};
use portcullis::model::source::{SourceSpan, Spanned};
use portcullis::routing::path::canonical;
use portcullis::routing::{Found, MatchConfig, Router};

const SIZES: [usize; 3] = [10, 1_000, 10_000];
const REQUESTS: usize = 4096;
const BATCH: usize = 256;

/// The match of the n-th route, and a request that it takes.
fn route(n: usize) -> (String, (String, String)) {
    let host = n / 20;
    match n % 10 {
        0..4 => {
            let (host, path) = (format!("api{host}.example.com"), format!("/v1/resource{n}/items"));
            (format!("{host}{path}"), (host, path))
        }
        4..8 => {
            let (host, path) = (format!("api{host}.example.com"), format!("/v1/resource{n}"));
            (format!("{host}{path}/*"), (host, format!("{path}/items")))
        }
        8 => (
            format!("*.tenant{n}.example.net/v1/*"),
            (format!("eu.tenant{n}.example.net"), format!("/v1/resource{n}/items")),
        ),
        _ => (format!("/shared{n}/*"), (format!("api{host}.example.com"), format!("/shared{n}/items"))),
    }
}

fn router(size: usize) -> Router {
    let config = |n| Spanned::new(MatchConfig::Short(route(n).0), SourceSpan::default());
    let routes: Vec<_> = (0..size).map(|n| (RouteName::from(format!("route-{n}")), config(n))).collect();
    let routes = routes.iter().enumerate().map(|(n, (name, config))| (n, name, config));
    Router::build(routes, &mut Diagnostics::default()).expect("sound routes")
}

fn requests(size: usize) -> Vec<(String, String)> {
    let mut random = fastrand::Rng::with_seed(7);
    let requests = std::iter::repeat_with(|| (random.usize(..size), random.u8(..10)));
    requests
        .take(REQUESTS)
        .map(|(n, kind)| match (route(n).1, kind) {
            ((host, path), 0) => (host, format!("/none{path}")),
            (taken, _) => taken,
        })
        .collect()
}

fn view<'a>((host, path): &'a (String, String), headers: &'a HeaderMap) -> RequestView<'a> {
    RequestView {
        method: &Method::GET,
        scheme: Scheme::Https,
        host,
        port: None,
        path,
        query: None,
        headers,
        version: Version::HTTP_11,
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        peer: SocketAddr::from(([127, 0, 0, 1], 1)),
        principal: None,
        route: None,
    }
}

fn find_all(router: &Router, requests: &[(String, String)], headers: &HeaderMap) -> usize {
    requests.iter().filter(|request| matches!(black_box(router.find(&view(request, headers))), Found::Match(_))).count()
}

fn find(criterion: &mut Criterion) {
    let headers = HeaderMap::new();
    let mut group = criterion.benchmark_group("find");
    group.throughput(Throughput::Elements(REQUESTS as u64));
    for size in SIZES {
        let (router, requests) = (router(size), requests(size));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| find_all(&router, &requests, &headers));
        });
    }
    group.finish();
}

fn paths(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("canonical");
    for (name, path) in [
        ("plain", "/api/v1/tenants/42/orders/2026-07/items"),
        ("encoded", "/api/v1/tenants/caf%C3%A9/orders/2026%2D07"),
        ("dots", "/api/v1/../v2/./tenants/%2e%2e/orders"),
    ] {
        group.bench_function(name, |bencher| bencher.iter(|| canonical(black_box(path.as_bytes()))));
    }
    group.finish();
}

fn build(criterion: &mut Criterion) {
    criterion.bench_function("build/10000", |bencher| bencher.iter(|| router(10_000)));
}

/// For the report: the cost of one `find` at each size, and the largest against the smallest. The sizes take turns, and
/// of each batch of requests the best turn counts, so that a busy machine disturbs all sizes alike and little.
fn print_ratio() {
    let headers = HeaderMap::new();
    let tables = SIZES.map(|size| (router(size), requests(size)));
    let mut best = [[Duration::MAX; REQUESTS / BATCH]; SIZES.len()];
    for _ in 0..200 {
        for ((router, requests), best) in tables.iter().zip(&mut best) {
            for (batch, best) in requests.chunks(BATCH).zip(best) {
                let start = Instant::now();
                black_box(find_all(router, batch, &headers));
                *best = start.elapsed().min(*best);
            }
        }
    }
    let picos = best.map(|batches| batches.iter().sum::<Duration>().as_nanos() * 1000 / REQUESTS as u128);
    for (size, picos) in SIZES.iter().zip(picos) {
        println!("find with {size:>6} routes: {:>4}.{} ns", picos / 1000, picos % 1000 / 100);
    }
    let [small, _, large] = picos;
    println!("10,000 routes cost {} % of 10", large * 100 / small.max(1));
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
        .configure_from_args();
    find(&mut criterion);
    paths(&mut criterion);
    build(&mut criterion);
    criterion.final_summary();
    print_ratio();
}
