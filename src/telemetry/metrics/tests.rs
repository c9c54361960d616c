use std::collections::BTreeSet;

use http::{Method, StatusCode};

use super::*;
use crate::model::guard::{BreakerReading, ConcurrencyReading, GuardReading, Phase, Shed};
use crate::model::outcome::{Outcome, StandIn};
use crate::model::verdict::{PolicyName, Verdict};

fn text(metrics: &Metrics) -> String {
    String::from_utf8(metrics.render()).expect("the exposition is UTF-8")
}

fn series(metrics: &Metrics) -> usize {
    text(metrics).lines().filter(|line| !line.starts_with('#')).count()
}

fn request(method: &Method, status: u16) -> Finished<'_> {
    Finished {
        method,
        status: StatusCode::from_u16(status).ok(),
        duration: Duration::from_millis(3),
        request_body: 7,
        response_body: 1024,
    }
}

const GUARDED: GuardReading = GuardReading {
    breaker: Some(BreakerReading { phase: Phase::Open, transitions: [1, 2, 3] }),
    concurrency: Some(ConcurrencyReading { limit: 20, in_flight: 7, queued: 2 }),
};

/// Metrics with one route, upstream and listener of the name `a`, all exposed.
fn with_one_of_each() -> (Arc<Metrics>, Exposed) {
    let metrics = Metrics::new();
    let live = Exposed {
        routes: metrics.for_routes(&["a".into()]),
        upstreams: metrics.for_upstreams(&["a".into()]),
        listeners: metrics.for_listeners(&["a".into()]),
        guards: vec![GuardSource::new("a".into(), || GUARDED)],
        limits: metrics.for_limits(&["a".into()]),
        limit_stores: metrics.for_limit_stores(&["a".into()]),
    };
    metrics.expose(&live);
    (metrics, live)
}

#[track_caller]
fn check(metrics: &Metrics, line: &str) {
    let text = text(metrics);
    assert!(text.lines().any(|it| it == line), "no line {line:?} in\n{text}");
}

#[test]
fn counts_what_it_is_told() {
    let (metrics, live) = with_one_of_each();
    live.routes[0].finished(&request(&Method::GET, 200));
    live.routes[0].decided(PolicyName::Access, Verdict::WouldReject);
    live.upstreams[0].attempted(Outcome::Connect, Duration::from_secs(2));
    live.upstreams[0].connections_opened.inc();
    live.upstreams[0].connections_idle.inc();
    live.upstreams[0].shed(Shed::BreakerOpen);
    live.listeners[0].non_request(NonRequest::TlsFailure);
    live.listeners[0].handshake(Handshake::Failed);
    live.listeners[0].refused(Refused::ConnectionLimit);
    live.limits[0].observe(3, 2, 1);
    live.limit_stores[0].observe(true, 4);
    metrics.rejected(Code::NoRoute);
    metrics.resolved(Resolution::Resolved);
    metrics.config_applied(3, Duration::from_secs(1_700_000_000));
    metrics.config_refused();
    for line in [
        r#"portcullis_requests_total{route="a",method="GET",code="200"} 1"#,
        r#"portcullis_request_duration_seconds_bucket{route="a",le="0.0025"} 0"#,
        r#"portcullis_request_duration_seconds_bucket{route="a",le="0.005"} 1"#,
        r#"portcullis_request_duration_seconds_bucket{route="a",le="+Inf"} 1"#,
        r#"portcullis_request_duration_seconds_sum{route="a"} 0.003"#,
        r#"portcullis_request_duration_seconds_count{route="a"} 1"#,
        r#"portcullis_request_body_bytes_total{route="a"} 7"#,
        r#"portcullis_response_body_bytes_total{route="a"} 1024"#,
        r#"portcullis_policy_decisions_total{route="a",policy="access",verdict="would_reject"} 1"#,
        r#"portcullis_upstream_attempts_total{upstream="a",outcome="connect"} 1"#,
        r#"portcullis_upstream_attempt_duration_seconds_sum{upstream="a"} 2"#,
        r#"portcullis_upstream_connections_opened_total{upstream="a"} 1"#,
        r#"portcullis_upstream_connections_idle{upstream="a"} 1"#,
        r#"portcullis_upstream_breaker_state{upstream="a"} 2"#,
        r#"portcullis_upstream_breaker_transitions_total{upstream="a",to="closed"} 1"#,
        r#"portcullis_upstream_breaker_transitions_total{upstream="a",to="half_open"} 2"#,
        r#"portcullis_upstream_breaker_transitions_total{upstream="a",to="open"} 3"#,
        r#"portcullis_upstream_concurrency_limit{upstream="a"} 20"#,
        r#"portcullis_upstream_concurrency_in_flight{upstream="a"} 7"#,
        r#"portcullis_upstream_queue_length{upstream="a"} 2"#,
        r#"portcullis_upstream_shed_total{upstream="a",reason="breaker_open"} 1"#,
        r#"portcullis_non_requests_total{listener="a",reason="tls_failure"} 1"#,
        r#"portcullis_tls_handshakes_total{listener="a",result="failed"} 1"#,
        r#"portcullis_connections_refused_total{listener="a",reason="connection_limit"} 1"#,
        r#"portcullis_rate_limit_keys{limit="a"} 3"#,
        r#"portcullis_rate_limit_shared_bucket_total{limit="a",reason="no_key"} 2"#,
        r#"portcullis_rate_limit_shared_bucket_total{limit="a",reason="no_room"} 1"#,
        r#"portcullis_rate_limit_store_up{store="a"} 1"#,
        r#"portcullis_rate_limit_store_errors_total{store="a"} 4"#,
        r#"portcullis_rejections_total{code="no_route"} 1"#,
        r#"portcullis_dns_resolutions_total{result="resolved"} 1"#,
        "portcullis_config_generation 3",
        "portcullis_config_last_reload_successful 0",
        "portcullis_config_last_success_timestamp_seconds 1700000000",
        r#"portcullis_config_reloads_total{result="refused"} 1"#,
    ] {
        check(&metrics, line);
    }
}

#[test]
fn a_connection_is_active_until_it_is_dropped() {
    let (metrics, live) = with_one_of_each();
    let connection = live.listeners[0].connected();
    check(&metrics, r#"portcullis_connections_active{listener="a"} 1"#);
    drop(connection);
    check(&metrics, r#"portcullis_connections_active{listener="a"} 0"#);
    check(&metrics, r#"portcullis_connections_total{listener="a"} 1"#);
}

#[test]
#[cfg(target_os = "linux")]
fn the_table_equals_the_exposition() {
    let (metrics, live) = with_one_of_each();
    let shown: Vec<String> = text(&metrics).lines().filter(|line| line.starts_with('#')).map(str::to_owned).collect();
    let documented: Vec<String> = families()
        .iter()
        .flat_map(|family| {
            [format!("# HELP {} {}", family.name, family.help), format!("# TYPE {} {}", family.name, family.kind)]
        })
        .collect();
    assert_eq!(shown, documented, "before the first event");

    live.routes[0].finished(&request(&Method::GET, 200));
    live.routes[0].decided(PolicyName::Access, Verdict::Allow);
    live.routes[0].fell_back(StandIn::Status);
    live.upstreams[0].attempted(Outcome::Reset, Duration::ZERO);
    live.upstreams[0].hedged(true);
    live.upstreams[0].shed(Shed::QueueFull);
    live.upstreams[0].health_checked(true);
    live.upstreams[0].note_health([("healthy", 1)], [("success_rate", 1)]);
    live.listeners[0].handshake(Handshake::Full);
    let text = text(&metrics);
    for family in families() {
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let rest = line.strip_prefix(family.name)?;
            let rest =
                ["_bucket", "_sum", "_count"].iter().find_map(|suffix| rest.strip_prefix(suffix)).unwrap_or(rest);
            rest.starts_with(['{', ' ']).then_some(rest)
        });
        let labels: BTreeSet<Vec<&str>> = samples
            .map(|rest| {
                let labels = rest.trim_start_matches('{').split(['{', '}']).next().unwrap_or_default();
                let names = labels.split(',').filter_map(|pair| Some(pair.split_once('=')?.0));
                names.filter(|name| *name != "le").collect()
            })
            .collect();
        assert_eq!(labels, BTreeSet::from([family.labels.to_vec()]), "{}", family.name);
    }
    let documented = families().iter().map(|family| format!("# TYPE {} {}", family.name, family.kind));
    let shown = text.lines().filter(|line| line.starts_with("# TYPE")).map(str::to_owned);
    assert_eq!(shown.collect::<Vec<_>>(), documented.collect::<Vec<_>>(), "after events");
}

#[test]
fn what_clients_send_adds_no_series() {
    let (metrics, live) = with_one_of_each();
    let odd = Method::from_bytes(b"BREW").expect("a token");
    live.routes[0].finished(&request(&odd, 200));
    metrics.unrouted().finished(&request(&odd, 404));
    let before = series(&metrics);
    for number in 0..100_000 {
        let method = Method::from_bytes(format!("BREW{number}").as_bytes()).expect("a token");
        live.routes[0].finished(&request(&method, 200));
        metrics.unrouted().finished(&request(&method, 404));
    }
    assert_eq!(series(&metrics), before);
    check(&metrics, r#"portcullis_requests_total{route="a",method="other",code="200"} 100001"#);
}

#[test]
fn what_an_upstream_answers_adds_at_most_one_series_for_each_known_code() {
    let (metrics, live) = with_one_of_each();
    for status in 100..=999 {
        live.routes[0].finished(&request(&Method::GET, status));
    }
    let text = text(&metrics);
    let shown = text.lines().filter(|line| line.starts_with(r#"portcullis_requests_total{route="a""#)).count();
    assert!(shown <= labels::CODES.len(), "{shown}");
}

#[test]
fn an_upstream_without_guards_shows_none() {
    let metrics = Metrics::new();
    let source = || GuardSource::new("plain".into(), GuardReading::default);
    let before = series(&metrics);
    metrics.expose(&Exposed { guards: vec![source(), source()], ..Exposed::default() });
    assert_eq!(series(&metrics), before);
}

#[test]
fn a_removed_owner_drops_its_series_and_stays_gone() {
    let (metrics, pinned) = with_one_of_each();
    let live = Exposed { routes: metrics.for_routes(&["b".into()]), ..Exposed::default() };
    metrics.expose(&live);
    pinned.routes[0].finished(&request(&Method::PUT, 500));
    pinned.upstreams[0].attempted(Outcome::Reset, Duration::ZERO);
    let connection = pinned.listeners[0].connected();
    drop(connection);
    let text = text(&metrics);
    assert!(!text.contains(r#"="a""#), "{text}");
    assert!(text.contains(r#"portcullis_request_body_bytes_total{route="b"} 0"#), "{text}");
}

#[test]
fn an_owner_that_survives_a_reload_keeps_its_counts() {
    let (metrics, first) = with_one_of_each();
    first.routes[0].finished(&request(&Method::GET, 200));
    let second = metrics.for_routes(&["b".into(), "a".into()]);
    assert!(Arc::ptr_eq(&first.routes[0], &second[1]));
    assert_eq!(second[0].name().as_str(), "b");
}

#[test]
fn handles_of_a_refused_configuration_are_not_exposed() {
    let metrics = Metrics::new();
    let before = series(&metrics);
    let refused = metrics.for_routes(&["never".into()]);
    refused[0].finished(&request(&Method::GET, 200));
    assert_eq!(series(&metrics), before);
}

#[test]
fn no_two_series_have_the_same_labels() {
    let metrics = Metrics::new();
    let routes = metrics.for_routes(&[NO_ROUTE.into(), "a".into(), "a".into()]);
    assert!(Arc::ptr_eq(&routes[0], metrics.unrouted()));
    assert!(Arc::ptr_eq(&routes[1], &routes[2]));
    metrics.expose(&Exposed { routes, ..Exposed::default() });
    let text = text(&metrics);
    let names = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    let mut seen = BTreeSet::new();
    assert!(names.map(|(name, _)| name).all(|name| seen.insert(name)), "{text}");
}

#[test]
fn names_that_need_escaping_stay_inside_their_label() {
    let metrics = Metrics::new();
    let routes = metrics.for_routes(&["a\"} 1\nfake_total 7".into()]);
    metrics.expose(&Exposed { routes, ..Exposed::default() });
    assert!(!text(&metrics).lines().any(|line| line.starts_with("fake_total")));
}
