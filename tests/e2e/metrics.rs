//! What `/metrics` says moves with what happens, and does not grow with what clients send.

use std::collections::BTreeMap;

use super::harness::client::ask;
use super::harness::wire::Wire;
use super::harness::{Gateway, Refusing, Upstream, all_to, eventually};

#[tokio::test]
async fn requests_are_counted_by_route_method_and_code() {
    let upstream = Upstream::saying("hello").await;
    let config = format!("[upstream.api]\nendpoints = [\"{}\"]\n{}", upstream.url(), all_to("api"));
    let gateway = Gateway::start(&config).await;
    let mut client = gateway.client().await;
    for _ in 0..3 {
        assert_eq!(client.get("/").await.status, 200);
    }
    client.request("POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 4\r\n\r\nbody").await;
    let requests = "portcullis_requests_total";
    gateway.metric_becomes(requests, &[("route", "all"), ("method", "GET"), ("code", "200")], 3.0).await;
    gateway.metric_becomes(requests, &[("route", "all"), ("method", "POST")], 1.0).await;
    gateway.metric_becomes("portcullis_request_duration_seconds_count", &[("route", "all")], 4.0).await;
    gateway.metric_becomes("portcullis_request_body_bytes_total", &[("route", "all")], 4.0).await;
    gateway.metric_becomes("portcullis_response_body_bytes_total", &[("route", "all")], 20.0).await;
    gateway.metric_becomes("portcullis_upstream_attempts_total", &[("upstream", "api")], 4.0).await;
    gateway.metric_becomes("portcullis_upstream_connections_opened_total", &[("upstream", "api")], 1.0).await;
    gateway.metric_becomes("portcullis_upstream_connections_reused_total", &[("upstream", "api")], 3.0).await;
    gateway.metric_becomes("portcullis_upstream_connections_idle", &[("upstream", "api")], 1.0).await;
    gateway.metric_becomes("portcullis_connections_active", &[("listener", "public")], 1.0).await;
    drop(client);
    gateway.metric_becomes("portcullis_connections_active", &[("listener", "public")], 0.0).await;
    gateway.metric_becomes("portcullis_connections_total", &[("listener", "public")], 1.0).await;
    gateway.metric_becomes("portcullis_access_log_lines_total", &[], 4.0).await;
}

#[tokio::test]
async fn refusals_are_counted_by_code() {
    let refusing = Refusing::new();
    let gateway =
        Gateway::start(&format!("[[route]]\nname = \"gone\"\nmatch = \"/gone\"\nupstream = \"{}\"\n", refusing.url()))
            .await;
    gateway.get("/gone").await;
    gateway.get("/nowhere").await;
    ask(gateway.public().await, "GET /a\\b HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
    for code in ["upstream_unreachable", "no_route", "bad_request"] {
        gateway.metric_becomes("portcullis_rejections_total", &[("code", code)], 1.0).await;
    }
}

#[tokio::test]
async fn what_never_became_a_request_is_counted() {
    let gateway = Gateway::start("[[route]]\nmatch = \"/*\"\nrespond = { body = \"hello\" }\n").await;
    ask(gateway.public().await, "nonsense\r\n\r\n").await;
    let mut half = Wire::connect(gateway.public().await).await.unwrap();
    half.send("GET /").await.unwrap();
    drop(half);
    for reason in ["parse_error", "client_gone"] {
        let labels = [("listener", "public"), ("reason", reason)];
        gateway.metric_becomes("portcullis_non_requests_total", &labels, 1.0).await;
    }
}

/// The samples of an exposition with their values, after looking at its form.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut kind = None;
    let mut samples = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            kind = rest.split_once(' ').map(|(name, kind)| (name.to_owned(), kind.to_owned()));
        } else if !line.starts_with('#') {
            let (sample, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            let (family, kind) = kind.as_ref().unwrap_or_else(|| panic!("no type before {line}"));
            let name = sample.split('{').next().unwrap_or_default();
            let base = if kind == "histogram" {
                ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
            } else {
                name
            };
            assert_eq!(base, family, "{line}");
            let value = value.parse().unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(samples.insert(sample.to_owned(), value).is_none(), "twice: {line}");
        }
    }
    samples
}

#[tokio::test]
async fn clients_cannot_make_series() {
    let gateway = Gateway::start("[[route]]\nname = \"all\"\nmatch = \"/*\"\nrespond = { body = \"hello\" }\n").await;
    let storm = async |from: usize, to: usize| {
        let mut client = gateway.client().await;
        for number in from..to {
            let request = format!(
                "M{number} /path-{number}?q={number} HTTP/1.1\r\nHost: host-{number}.evil\r\nUser-Agent: agent-{number}\r\nX-Request-Id: id-{number}\r\n\r\n"
            );
            assert_eq!(client.request(&request).await.status, 200);
        }
    };
    let names = async |requests: usize| {
        eventually("all are counted", async || {
            let text = gateway.admin_get("/metrics").await.text();
            let counted = super::harness::gateway::sum(&text, "portcullis_requests_total", &[]);
            #[expect(clippy::cast_precision_loss, reason = "a small number")]
            (counted >= requests as f64).then(|| samples(&text).into_keys().collect::<Vec<_>>())
        })
        .await
    };
    storm(0, 5).await;
    let few = names(5).await;
    storm(5, 300).await;
    let many = names(300).await;
    assert_eq!(few, many);
    let text = many.join("\n");
    for part in ["path-", "evil", "M7", "agent-", "id-7"] {
        assert!(!text.contains(part), "{part}");
    }
}

#[tokio::test]
async fn the_exposition_is_one_that_prometheus_reads() {
    let upstream = Upstream::saying("hello").await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    assert_eq!(gateway.get("/").await.status, 200);
    let answer = gateway.admin_get("/metrics").await;
    assert!(answer.field("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{answer:?}");
    let samples = samples(&answer.text());
    assert!(samples.keys().any(|name| name.starts_with("portcullis_build_info{version=")), "{samples:?}");
    for name in ["portcullis_config_generation", "portcullis_draining", "process_open_fds"] {
        assert!(samples.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn a_histogram_is_cumulative() {
    let gateway = Gateway::start("[[route]]\nname = \"all\"\nmatch = \"/*\"\nrespond = { body = \"hello\" }\n").await;
    for _ in 0..5 {
        gateway.get("/").await;
    }
    let family = "portcullis_request_duration_seconds";
    gateway.metric_becomes(&format!("{family}_count"), &[("route", "all")], 5.0).await;
    let text = gateway.admin_get("/metrics").await.text();
    let wanted = |line: &&str| line.starts_with(&format!("{family}_bucket")) && line.contains("route=\"all\"");
    let values: Vec<f64> =
        text.lines().filter(wanted).map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert!(values.len() > 3 && values.is_sorted(), "{values:?}");
    assert!(values.last().is_some_and(|last| (last - 5.0).abs() < 1e-9), "the last bucket holds all: {values:?}");
}
