//! What evidence costs a request: one line of the access log, and what is counted of one proxied request.
//!
//! Lines are written to `/dev/null` by the writer thread, so that the whole way is measured and not the disk.
#![expect(clippy::expect_used, reason = "a benchmark that can't be set up stops")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput};
use http::{Method, StatusCode, Version};
use portcullis::model::outcome::Outcome;
use portcullis::model::request::Scheme;
use portcullis::model::verdict::{PolicyName, Verdict};
use portcullis::telemetry::access_log::{AccessLog, AttemptEntry, Config, Entry, Format, Lane};
use portcullis::telemetry::metrics::{Finished, Metrics};

const AGENT: &[u8] =
    b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36";

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    lines(&mut criterion);
    counts(&mut criterion);
    criterion.final_summary();
}

fn lines(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("access_log");
    group.throughput(Throughput::Elements(1));
    for (name, format) in [("json", Format::Json), ("common", Format::Common), ("combined", Format::Combined)] {
        let log = AccessLog::start(1, Metrics::new()).expect("a thread");
        let config = Config { path: "/dev/null".to_owned(), format };
        log.apply(log.prepare(Some(&config)).expect("it opens"));
        let lane = log.lane(0);
        let mut nanos = 1_700_000_000_000_000_000;
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || {
                    nanos += 1_000_000;
                    nanos
                },
                |nanos| record(&lane, nanos),
                BatchSize::SmallInput,
            );
        });
        assert!(log.flush_and_close(Duration::from_secs(5)));
    }
    group.finish();
}

fn record(lane: &Lane, unix_nanos: u64) {
    let attempts = [AttemptEntry {
        endpoint: "10.0.0.1:3001",
        outcome: Outcome::Status(StatusCode::OK),
        duration: Duration::from_micros(830),
    }];
    let peer = ([192, 0, 2, 7], 51_234).into();
    lane.record(black_box(&Entry {
        request_id: "0197f3b2-7c1e-7d4a-9f63-5a2d8e1b4c70",
        method: Some(&Method::GET),
        host: Some(b"api.example.com"),
        target: Some(b"/orders/1234567?page=2&fields=id,status,total"),
        version: Some(Version::HTTP_11),
        status: Some(StatusCode::OK),
        route: Some("orders"),
        upstream: Some("api"),
        endpoint: Some("10.0.0.1:3001"),
        bytes_out: 1024,
        duration: Duration::from_micros(912),
        attempts: &attempts,
        user_agent: Some(AGENT),
        ..Entry::new(unix_nanos, "public", Scheme::Http, peer)
    }));
}

fn counts(criterion: &mut Criterion) {
    let metrics = Metrics::new();
    let route = metrics.for_routes(&["orders".into()]).remove(0);
    let upstream = metrics.for_upstreams(&["api".into()]).remove(0);
    criterion.bench_function("metrics/request", |bencher| {
        bencher.iter(|| {
            route.decided(PolicyName::Access, Verdict::Allow);
            upstream.connections_reused.inc();
            upstream.attempted(Outcome::Status(StatusCode::OK), black_box(Duration::from_micros(830)));
            route.finished(black_box(&Finished {
                method: &Method::GET,
                status: Some(StatusCode::OK),
                duration: Duration::from_micros(912),
                request_body: 0,
                response_body: 1024,
            }));
        });
    });
}
