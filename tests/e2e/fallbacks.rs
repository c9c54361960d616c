//! What answers when the upstream can't: each stage is broken in its turn, and the next one answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::upstream::{ok, response};
use crate::harness::{Gateway, Refusing, Upstream};

fn config(primary: &str, standby: &str) -> String {
    format!(
        r#"
[upstream.api]
endpoints = ["{primary}"]
[upstream.standby]
endpoints = ["{standby}"]
[[route]]
name = "all"
match = "/*"
upstream = "api"
retry = {{ attempts = 2, backoff = {{ base = "1ms", max = "1ms" }}, min_retries_per_second = 1000 }}
fallback = [
  {{ upstream = "standby" }},
  {{ status = 503, body = '{{"error":"try later"}}', content_type = "application/json", headers = {{ "x-last" = "resort" }} }},
]
"#
    )
}

/// Answers 200 with its name while it is well, 503 otherwise.
async fn switched(name: &'static str) -> (Upstream, Arc<AtomicBool>) {
    let well = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&well);
    let upstream = Upstream::with(move |_| {
        if state.load(Ordering::SeqCst) { ok(name) } else { response("503 Service Unavailable", "", b"its own words") }
    })
    .await;
    (upstream, well)
}

async fn counted(gateway: &Gateway, kind: &str, times: f64) {
    gateway.metric_becomes("portcullis_fallbacks_total", &[("route", "all"), ("kind", kind)], times).await;
}

#[tokio::test]
async fn each_stage_stands_in_for_the_one_before() {
    let (primary, primary_well) = switched("primary").await;
    let (standby, standby_well) = switched("standby").await;
    let gateway = Gateway::start(&config(&primary.url(), &standby.url())).await;
    let mut client = gateway.client().await;

    let answer = client.get("/").await;
    assert_eq!((answer.status, answer.text(), answer.field("portcullis-fallback")), (200, "primary".to_owned(), None));

    primary_well.store(false, Ordering::SeqCst);
    let answer = client.get("/").await;
    assert_eq!((answer.status, answer.text()), (200, "standby".to_owned()));
    assert_eq!(answer.field("portcullis-fallback"), Some("upstream"));
    let status = answer.field("proxy-status").unwrap();
    assert!(status.starts_with("portcullis; error="), "{status}");
    assert!(status.ends_with("fallback=upstream\""), "{status}");
    counted(&gateway, "upstream", 1.0).await;
    counted(&gateway, "status", 0.0).await;

    standby_well.store(false, Ordering::SeqCst);
    let answer = client.get("/").await;
    assert_eq!((answer.status, answer.text()), (503, "{\"error\":\"try later\"}".to_owned()));
    assert_eq!(answer.field("portcullis-fallback"), Some("status"));
    assert_eq!((answer.field("content-type"), answer.field("x-last")), (Some("application/json"), Some("resort")));
    counted(&gateway, "upstream", 1.0).await;
    counted(&gateway, "status", 1.0).await;
    let line = gateway.logged("the fallback", |line| line["fallback"] == "status").await;
    assert_eq!(line["attempts"].as_array().unwrap().len(), 4, "two of each: {line}");
    assert_eq!(line["upstream"], "standby");
}

#[tokio::test]
async fn a_dead_upstream_is_stood_in_for() {
    let refusing = Refusing::new();
    let (standby, _) = switched("standby").await;
    let gateway = Gateway::start(&config(&refusing.url(), &standby.url())).await;
    let answer = gateway.get("/").await;
    assert_eq!((answer.status, answer.text()), (200, "standby".to_owned()));
    let posted = gateway.client().await.request("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab").await;
    assert_eq!((posted.status, posted.text()), (200, "standby".to_owned()), "it was never sent, so it may be now");
    assert_eq!(standby.request(1).await.body.unwrap().bytes, b"ab");
}

#[tokio::test]
async fn a_post_that_may_have_been_processed_goes_to_no_other_upstream() {
    let (primary, primary_well) = switched("primary").await;
    let (standby, _) = switched("standby").await;
    primary_well.store(false, Ordering::SeqCst);
    let gateway = Gateway::start(&config(&primary.url(), &standby.url())).await;
    let answer = gateway.client().await.request("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab").await;
    assert_eq!((answer.status, answer.field("portcullis-fallback")), (503, Some("status")));
    assert_eq!((primary.requests().len(), standby.requests().len()), (1, 0));
}

#[tokio::test]
async fn without_a_last_resort_the_last_real_answer_counts() {
    let (primary, primary_well) = switched("primary").await;
    primary_well.store(false, Ordering::SeqCst);
    let refusing = Refusing::new();
    let config = config(&primary.url(), &refusing.url());
    let without_last: Vec<&str> = config.lines().filter(|line| !line.contains("status = 503")).collect();
    let config = without_last.join("\n");
    let gateway = Gateway::start(&config).await;
    let answer = gateway.get("/").await;
    assert_eq!((answer.status, answer.text()), (503, "its own words".to_owned()));
    assert_eq!(answer.field("portcullis-fallback"), None, "nothing stood in");
}

#[tokio::test]
async fn a_refusal_of_the_client_s_own_doing_is_no_case_for_a_fallback() {
    let (primary, _) = switched("primary").await;
    let config = config(&primary.url(), &primary.url()) + "validate = { max_body = \"1B\" }\n";
    let gateway = Gateway::start(&config).await;
    let answer = gateway.client().await.request("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab").await;
    assert_eq!((answer.status, answer.field("portcullis-fallback")), (413, None));
}

#[tokio::test]
async fn without_retry_a_failing_answer_is_stood_in_for_all_the_same() {
    let (primary, primary_well) = switched("primary").await;
    primary_well.store(false, Ordering::SeqCst);
    let (standby, _) = switched("standby").await;
    let config = config(&primary.url(), &standby.url());
    let without: Vec<&str> = config.lines().filter(|line| !line.starts_with("retry")).collect();
    let gateway = Gateway::start(&(without.join("\n") + "\nretry = false\n")).await;
    let answer = gateway.get("/").await;
    assert_eq!(
        (answer.status, answer.text(), answer.field("portcullis-fallback")),
        (200, "standby".to_owned(), Some("upstream"))
    );
    assert_eq!(primary.requests().len(), 1);
}
