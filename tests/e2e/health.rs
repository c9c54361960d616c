//! Endpoints that are dead, failing or drained get no requests, and return when they may.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use serde_json::Value;

use super::harness::h2_upstream::Exchange;
use super::harness::upstream::{ok, response};
use super::harness::{Authority, Conn, Gateway, H2Upstream, Refusing, Response, Upstream, all_to, eventually};

/// What the admin API says of an endpoint of `api`.
async fn endpoint(gateway: &Gateway, address: SocketAddr) -> Value {
    let shown = gateway.admin_get("/api/v1/upstreams").await.json();
    let upstreams = shown["upstreams"].as_array().cloned().unwrap_or_default();
    let upstream = upstreams.into_iter().find(|upstream| upstream["name"] == "api").expect("the upstream");
    let address = address.to_string();
    let endpoints = upstream["endpoints"].as_array().cloned().unwrap_or_default();
    endpoints.into_iter().find(|endpoint| endpoint["address"] == address.as_str()).expect("the endpoint")
}

/// Waits until the endpoint is in that state.
async fn becomes(gateway: &Gateway, address: SocketAddr, health: &str) -> Value {
    eventually(&format!("{address} becomes {health}"), async || {
        let shown = endpoint(gateway, address).await;
        (shown["health"] == health).then_some(shown)
    })
    .await
}

async fn change(gateway: &Gateway, address: SocketAddr, change: &str) -> Response {
    gateway.admin_post(&format!("/api/v1/upstreams/api/endpoints/{address}/{change}")).await
}

fn api(endpoints: &[String], settings: &str) -> String {
    format!("[upstream.api]\nendpoints = {endpoints:?}\n{settings}\n{}", all_to("api"))
}

/// An upstream whose `/healthz` answers with a status that the test changes; everything else is answered with `text`.
async fn checked(text: &'static str) -> (Upstream, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(200));
    let answered = Arc::clone(&status);
    let upstream = Upstream::with(move |request| match request.target.as_str() {
        "/healthz" => response(&format!("{} Health", answered.load(Ordering::Acquire)), "", b""),
        _ => ok(text),
    })
    .await;
    (upstream, status)
}

async fn answers(gateway: &Gateway, count: usize) -> BTreeMap<String, usize> {
    let mut client = gateway.client().await;
    let mut seen = BTreeMap::new();
    for _ in 0..count {
        let answer = client.get("/").await;
        let said = if answer.status == 200 { answer.text() } else { answer.status.to_string() };
        *seen.entry(said).or_insert(0) += 1;
    }
    seen
}

#[tokio::test]
async fn an_endpoint_whose_checks_fail_gets_no_requests_until_they_succeed() {
    let ((a, status), (b, _)) = (checked("a").await, checked("b").await);
    let check = "health_check = { path = \"/healthz\", interval = \"20ms\", unhealthy_after = 2, healthy_after = 2 }";
    let gateway = Gateway::start(&api(&[a.url(), b.url()], check)).await;
    assert_eq!(answers(&gateway, 10).await, [("a".into(), 5), ("b".into(), 5)].into());
    status.store(503, Ordering::Release);
    let shown = becomes(&gateway, a.address(), "unhealthy").await;
    assert_eq!((&shown["last_check"]["passed"], &shown["last_check"]["reason"]), (&false.into(), &"status 503".into()));
    assert_eq!(answers(&gateway, 10).await, [("b".into(), 10)].into());
    gateway.metric_becomes("portcullis_upstream_endpoints", &[("upstream", "api"), ("state", "unhealthy")], 1.0).await;
    status.store(204, Ordering::Release);
    becomes(&gateway, a.address(), "healthy").await;
    assert_eq!(answers(&gateway, 10).await, [("a".into(), 5), ("b".into(), 5)].into());
    let gone = gateway.event("it is told", |event| event.message() == "an endpoint gets no more requests").await;
    assert_eq!((gone.field("reason"), gone.level().as_str()), (Some("status 503"), "warn"));
    gateway.event("its return is told", |event| event.message() == "an endpoint gets requests again").await;
    let told = gateway.log.events();
    let count = |message: &str| told.iter().filter(|event| event.message() == message).count();
    assert_eq!(count("an endpoint gets no more requests"), 1);
    for result in ["passed", "failed"] {
        let labels = [("upstream", "api"), ("result", result)];
        gateway.metric_reaches("portcullis_upstream_health_checks_total", &labels, 2.0).await;
    }
    let asked = a.requests().into_iter().find(|request| request.target == "/healthz").expect("a check");
    assert_eq!(asked.field("host"), Some(a.address().to_string().as_str()));
    assert!(asked.field("user-agent").is_some_and(|agent| agent.contains("health check")));
}

#[tokio::test]
async fn an_upstream_without_a_healthy_endpoint_is_503_unless_it_panics() {
    let (a, status) = checked("a").await;
    status.store(500, Ordering::Release);
    let check = "health_check = { path = \"/healthz\", interval = \"20ms\", unhealthy_after = 1 }";
    let config = api(&[a.url()], check);
    let gateway = Gateway::start(&config).await;
    becomes(&gateway, a.address(), "unhealthy").await;
    let answer = gateway.get("/").await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "no_healthy_endpoint"));
    gateway.reload(&api(&[a.url()], &format!("{check}\npanic_threshold = \"50%\""))).await;
    assert_eq!(endpoint(&gateway, a.address()).await["health"], "unhealthy", "known over the reload");
    assert_eq!(gateway.get("/").await.text(), "a");
    assert_eq!(change(&gateway, a.address(), "drain").await.status, 200);
    assert_eq!(gateway.get("/").await.status, 503, "a drained one stays out");
}

#[tokio::test]
async fn a_check_asks_for_another_host_port_and_status() {
    let (a, checks) = (Upstream::saying("a").await, Upstream::answering(response("302 Found", "", b"")).await);
    let check = |status: &str| {
        let port = checks.address().port();
        let settings = format!("path = \"/live?x=1\", interval = \"20ms\", unhealthy_after = 1, port = {port}");
        api(&[a.url()], &format!("health_check = {{ {settings}, host = \"app.internal\", status = [\"{status}\"] }}"))
    };
    let gateway = Gateway::start(&check("300-302")).await;
    let asked = checks.request(0).await;
    assert_eq!((asked.target.as_str(), asked.field("host")), ("/live?x=1", Some("app.internal")));
    assert_eq!(endpoint(&gateway, a.address()).await["health"], "healthy");
    gateway.reload(&check("2xx")).await;
    becomes(&gateway, a.address(), "unhealthy").await;
    assert_eq!(a.connections(), 0);
}

#[tokio::test]
async fn a_check_that_takes_too_long_has_failed() {
    let a = Upstream::start(|mut conn: Conn| async move {
        conn.request().await?;
        conn.closed().await;
        Ok(())
    })
    .await;
    let check = "health_check = { path = \"/healthz\", interval = \"20ms\", timeout = \"50ms\", unhealthy_after = 1 }";
    let gateway = Gateway::start(&api(&[a.url()], check)).await;
    let shown = becomes(&gateway, a.address(), "unhealthy").await;
    assert_eq!(shown["last_check"]["reason"], "no answer in time");
    a.ended(0).await;
}

#[tokio::test]
async fn a_connection_is_enough_for_a_tcp_check() {
    let (silent, refusing) = (
        Upstream::start(|mut conn: Conn| async move {
            conn.closed().await;
            Ok(())
        })
        .await,
        Refusing::new(),
    );
    let check = "health_check = { tcp = true, interval = \"20ms\", unhealthy_after = 1 }";
    let gateway = Gateway::start(&api(&[silent.url(), refusing.url()], check)).await;
    let refused = refusing.url().trim_start_matches("http://").parse().unwrap();
    becomes(&gateway, refused, "unhealthy").await;
    let passed = eventually("a check has passed", async || {
        let shown = endpoint(&gateway, silent.address()).await;
        shown["last_check"].is_object().then_some(shown)
    })
    .await;
    assert_eq!((&passed["health"], &passed["last_check"]["passed"]), (&"healthy".into(), &true.into()));
}

#[tokio::test]
async fn checks_go_over_tls_as_requests_do() {
    for (kind, trusted) in
        [("path = \"/healthz\"", true), ("path = \"/healthz\"", false), ("tcp = true", true), ("tcp = true", false)]
    {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let issuer = if trusted { &authority } else { &stranger };
        let upstream = Upstream::with_tls(issuer.issue("127.0.0.1").acceptor(&["http/1.1"]), |_| ok("private")).await;
        let settings = format!(
            "tls = {{ ca = \"{}\" }}\nhealth_check = {{ {kind}, interval = \"20ms\", unhealthy_after = 1 }}",
            authority.ca().display()
        );
        let gateway = Gateway::start(&api(&[format!("https://{}", upstream.address())], &settings)).await;
        let shown = eventually("a check has ended", async || {
            let shown = endpoint(&gateway, upstream.address()).await;
            shown["last_check"].is_object().then_some(shown)
        })
        .await;
        let health = if trusted { "healthy" } else { "unhealthy" };
        assert_eq!((&shown["health"], &shown["last_check"]["passed"]), (&health.into(), &trusted.into()), "{shown}");
    }
}

#[tokio::test]
async fn a_path_is_checked_over_http2_where_requests_are_sent_so() {
    let status = Arc::new(AtomicU16::new(200));
    let answered = Arc::clone(&status);
    let upstream = H2Upstream::start(move |mut exchange: Exchange| {
        let status = answered.load(Ordering::Acquire);
        async move {
            let head = http::Response::builder().status(status).body(()).unwrap();
            exchange.answer(head, Bytes::new(), None).await
        }
    })
    .await;
    let check =
        "health_check = { path = \"/healthz\", interval = \"20ms\", unhealthy_after = 1, host = \"app.internal\" }";
    let gateway = Gateway::start(&(upstream.toml("api") + check + "\n" + &all_to("api"))).await;
    eventually("a check has passed", async || {
        (endpoint(&gateway, upstream.address).await["last_check"]["passed"] == true).then_some(())
    })
    .await;
    let asked = upstream.requests().first().cloned().expect("a check");
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("GET", "/healthz"));
    assert_eq!(asked.authority.as_deref(), Some("app.internal"));
    status.store(503, Ordering::Release);
    assert_eq!(becomes(&gateway, upstream.address, "unhealthy").await["last_check"]["reason"], "status 503");
}

#[tokio::test]
async fn a_grpc_service_says_itself_whether_it_serves() {
    let serves = Arc::new(AtomicBool::new(true));
    let says = Arc::clone(&serves);
    let asked = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let upstream = H2Upstream::start(move |mut exchange: Exchange| {
        let (says, seen) = (Arc::clone(&says), Arc::clone(&seen));
        async move {
            let (body, _) = exchange.read().await?;
            seen.lock().push((exchange.request.path.clone(), body));
            let status = if says.load(Ordering::Acquire) { 1 } else { 2 };
            let head = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            let trailers =
                HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
            exchange.answer(head, Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, status]), Some(trailers)).await
        }
    })
    .await;
    let check =
        "health_check = { grpc = \"orders.Orders\", interval = \"20ms\", unhealthy_after = 1, healthy_after = 1 }";
    let gateway = Gateway::start(&(upstream.toml("api") + check + "\n" + &all_to("api"))).await;
    eventually("a check has passed", async || {
        (endpoint(&gateway, upstream.address).await["last_check"]["passed"] == true).then_some(())
    })
    .await;
    serves.store(false, Ordering::Release);
    let shown = becomes(&gateway, upstream.address, "unhealthy").await;
    assert_eq!(shown["last_check"]["reason"], "NOT_SERVING");
    serves.store(true, Ordering::Release);
    becomes(&gateway, upstream.address, "healthy").await;
    let (path, body) = asked.lock().first().cloned().expect("a check");
    assert_eq!(path, "/grpc.health.v1.Health/Check");
    assert_eq!(body, [&[0, 0, 0, 0, 15, 0x0a, 13][..], b"orders.Orders"].concat());
}

#[tokio::test]
async fn one_dead_endpoint_of_three_costs_as_many_errors_as_eject_it_and_then_none() {
    let (a, b, dead) = (Upstream::saying("a").await, Upstream::saying("b").await, Refusing::new());
    let endpoints = [a.url(), b.url(), dead.url()];
    let outlier = "outlier = { consecutive_failures = 3, eject_for = \"1h\" }";
    // no request is made again, so that each failure shows
    let gateway = Gateway::start(&(api(&endpoints, outlier) + "retry = false\n")).await;
    let seen = answers(&gateway, 30).await;
    assert_eq!(seen.get("502"), Some(&3), "{seen:?}");
    let seen = answers(&gateway, 60).await;
    assert_eq!(seen, [("a".into(), 30), ("b".into(), 30)].into());
    let shown = becomes(&gateway, dead.url().trim_start_matches("http://").parse().unwrap(), "ejected").await;
    assert_eq!(shown["ejected_for"], "consecutive_failures");
    assert!(shown["ejected_until"].as_f64().is_some_and(|until| until > 1e9), "{shown}");
    let labels = [("upstream", "api"), ("reason", "consecutive_failures")];
    gateway.metric_becomes("portcullis_upstream_ejections_total", &labels, 1.0).await;
    gateway.metric_becomes("portcullis_upstream_endpoints", &[("state", "ejected")], 1.0).await;
    gateway.metric_becomes("portcullis_upstream_endpoints", &[("state", "healthy")], 2.0).await;
    let told = gateway.event("it is told", |event| event.message() == "an endpoint gets no more requests").await;
    assert_eq!((told.field("state"), told.field("reason")), (Some("ejected"), Some("consecutive_failures")));
}

#[tokio::test]
async fn an_endpoint_that_fails_more_often_than_its_peers_is_ejected() {
    let turn = Arc::new(AtomicU16::new(0));
    let flaky = Upstream::with(move |_| {
        let fails = turn.fetch_add(1, Ordering::AcqRel).is_multiple_of(2);
        if fails { response("503 Busy", "", b"") } else { ok("flaky") }
    })
    .await;
    let (a, b) = (Upstream::saying("a").await, Upstream::saying("b").await);
    let rate = "success_rate = { min_requests = 10, window = \"100ms\" }";
    let outlier = format!("outlier = {{ consecutive_failures = 100, eject_for = \"1h\", {rate} }}");
    let gateway = Gateway::start(&(api(&[a.url(), b.url(), flaky.url()], &outlier) + "retry = false\n")).await;
    let mut client = gateway.client().await;
    let shown = eventually("it is ejected", async || {
        for _ in 0..30 {
            client.get("/").await;
        }
        let shown = endpoint(&gateway, flaky.address()).await;
        (shown["health"] == "ejected").then_some(shown)
    })
    .await;
    assert_eq!(shown["ejected_for"], "success_rate");
    assert_eq!(answers(&gateway, 20).await, [("a".into(), 10), ("b".into(), 10)].into());
}

#[tokio::test]
async fn an_endpoint_that_was_killed_and_restarted_under_load_returns_slowly() {
    let alive = Arc::new(AtomicBool::new(true));
    let lives = Arc::clone(&alive);
    // as good as a process that is gone: each connection is reset before an answer
    let a = Upstream::start(move |mut conn: Conn| {
        let lives = Arc::clone(&lives);
        async move {
            loop {
                conn.request().await?;
                if !lives.load(Ordering::Acquire) {
                    conn.reset();
                    return Ok(());
                }
                conn.send(ok("a")).await?;
            }
        }
    })
    .await;
    let b = Upstream::saying("b").await;
    let settings =
        "balance = \"random\"\nslow_start = \"1h\"\noutlier = { consecutive_failures = 3, eject_for = \"1s\" }
health_check = { path = \"/healthz\", interval = \"20ms\", unhealthy_after = 2, healthy_after = 2 }";
    let gateway = Gateway::start(&api(&[a.url(), b.url()], settings)).await;
    let before = answers(&gateway, 200).await;
    assert!(before["a"] > 50, "{before:?}");
    alive.store(false, Ordering::Release);
    let mut client = gateway.client().await;
    let mut under_load = async |until: &str| {
        eventually(&format!("it is {until}"), async || {
            for _ in 0..20 {
                let answer = client.get("/").await;
                assert_eq!(answer.status, 200, "another endpoint answers in its place");
            }
            (endpoint(&gateway, a.address()).await["health"] == until).then_some(())
        })
        .await;
    };
    under_load("unhealthy").await;
    alive.store(true, Ordering::Release);
    under_load("healthy").await;
    let shown = endpoint(&gateway, a.address()).await;
    assert!(shown["slow_start"].as_f64().is_some_and(|share| share < 0.11), "{shown}");
    // a tenth of a weight beside a whole one: 18 of 200 are expected, 60 do not happen by chance
    let after = answers(&gateway, 200).await;
    assert!(after.get("a").is_none_or(|count| *count < 60), "{after:?}");
}

#[tokio::test]
async fn the_operator_drains_an_endpoint_and_lets_it_in_again() {
    let (a, b) = (Upstream::saying("a").await, Upstream::saying("b").await);
    let config = api(&[a.url(), b.url()], "");
    let gateway = Gateway::start(&config).await;
    assert_eq!(change(&gateway, a.address(), "drain").await.json()["drained"], true);
    assert_eq!(answers(&gateway, 10).await, [("b".into(), 10)].into());
    let shown = endpoint(&gateway, a.address()).await;
    assert_eq!((&shown["health"], &shown["drained"]), (&"drained".into(), &true.into()));
    gateway.event("it is told", |event| event.message() == "an endpoint is drained").await;
    // other endpoints, another balance, other connections: the operator's word holds
    let c = Upstream::saying("c").await;
    let settings = "balance = \"random\"\nconnect_timeout = \"3s\"";
    gateway.reload(&api(&[a.url(), b.url(), c.url()], settings)).await;
    assert!(!answers(&gateway, 50).await.contains_key("a"));
    gateway.reload(&config).await;
    assert_eq!(change(&gateway, a.address(), "enable").await.json()["drained"], false);
    assert_eq!(answers(&gateway, 10).await, [("a".into(), 5), ("b".into(), 5)].into());
    for path in [
        format!("/api/v1/upstreams/none/endpoints/{}/drain", a.address()),
        "/api/v1/upstreams/api/endpoints/127.0.0.1:1/drain".to_owned(),
    ] {
        let answer = gateway.admin_post(&path).await;
        assert_eq!((answer.status, answer.field("content-type")), (404, Some("application/problem+json")), "{path}");
    }
}

#[tokio::test]
async fn draining_needs_the_admin_token() {
    let a = Upstream::saying("a").await;
    let admin = "[admin]\naddress = \"127.0.0.1:0\"\ntoken = \"sesame\"\n";
    let gateway = Gateway::start(&(api(&[a.url()], "") + admin)).await;
    assert_eq!(change(&gateway, a.address(), "drain").await.status, 401);
    assert_eq!(gateway.get("/").await.text(), "a");
}

#[tokio::test]
async fn a_unix_socket_and_an_inline_upstream_are_drained_by_their_encoded_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let upstream = Upstream::with_unix(&path, |_| ok("unix"));
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    assert_eq!(gateway.get("/").await.text(), "unix");
    let encoded = upstream.url().replace('/', "%2F");
    let answer = gateway.admin_post(&format!("/api/v1/upstreams/{encoded}/endpoints/{encoded}/drain")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(gateway.get("/").await.status, 503);
}

#[tokio::test]
async fn health_is_kept_over_a_reload_and_checks_of_what_is_gone_end() {
    let ((a, status), (b, _)) = (checked("a").await, checked("b").await);
    let check = "health_check = { path = \"/healthz\", interval = \"50ms\", unhealthy_after = 1, healthy_after = 100 }";
    let gateway = Gateway::start(&api(&[a.url(), b.url()], check)).await;
    status.store(500, Ordering::Release);
    becomes(&gateway, a.address(), "unhealthy").await;
    status.store(200, Ordering::Release);
    gateway.reload(&api(&[a.url(), b.url()], &format!("balance = \"random\"\n{check}"))).await;
    assert_eq!(answers(&gateway, 20).await, [("b".into(), 20)].into());
    gateway.reload(&api(&[b.url()], check)).await;
    // checks of `b` go on; when twenty more have come, those of `a` have had their time
    let (seen_a, seen_b) = (a.requests().len(), b.requests().len());
    eventually("b is checked on", async || (b.requests().len() > seen_b + 20).then_some(())).await;
    assert!(a.requests().len() <= seen_a + 1, "one may have been under way");
}
