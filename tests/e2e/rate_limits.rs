//! How many requests get through: what a client is told, what is shared, what a reload keeps.

use super::harness::client::ask;
use super::harness::upstream::{ok, response};
use super::harness::{Gateway, Response, Upstream, all_to};

async fn with(root: &str, lines: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::with(|request| ok(&request.target)).await;
    let gateway = Gateway::start(&(root.to_owned() + &all_to(&upstream.url()) + lines)).await;
    (gateway, upstream)
}

async fn get_with(gateway: &Gateway, lines: &str) -> Response {
    ask(gateway.public().await, &format!("GET / HTTP/1.1\r\nHost: example.com\r\n{lines}\r\n")).await
}

const ONE_AN_HOUR: &str = "rate_limit = { key = \"client.ip\", rate = \"1/h\", burst = 2 }\n";

#[tokio::test]
async fn what_is_too_much_is_429_and_every_response_tells_how_it_stands() {
    let (gateway, upstream) = with("", ONE_AN_HOUR).await;
    for left in ["1;t=3600", "0;t=3600"] {
        let answer = gateway.get("/").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.field("ratelimit-policy"), Some("\"client.ip\";q=2;w=7200"));
        assert_eq!(answer.field("ratelimit"), Some(format!("\"client.ip\";r={left}").as_str()));
        assert_eq!(answer.field("retry-after"), None);
    }
    let answer = gateway.get("/").await;
    assert_eq!((answer.status, answer.code().as_str()), (429, "rate_limited"));
    assert_eq!(answer.field("ratelimit-policy"), Some("\"client.ip\";q=2;w=7200"));
    assert_eq!(answer.field("ratelimit"), Some("\"client.ip\";r=0;t=3600"));
    assert_eq!(answer.field("retry-after"), Some("3600"));
    assert!(answer.field("proxy-status").is_some(), "{answer:?}");
    assert_eq!(upstream.requests().len(), 2);
    let labels = [("policy", "rate_limit"), ("verdict", "reject")];
    gateway.metric_reaches("portcullis_policy_decisions_total", &labels, 1.0).await;
    gateway.logged("the refusal", |line| line["code"] == "rate_limited" && line["status"] == 429).await;
}

#[tokio::test]
async fn a_connection_goes_on_after_429() {
    let (gateway, _upstream) = with("", ONE_AN_HOUR).await;
    let mut client = gateway.client().await;
    let statuses = [client.get("/").await.status, client.get("/").await.status, client.get("/").await.status];
    assert_eq!(statuses, [200, 200, 429]);
    assert_eq!(client.get("/").await.status, 429);
}

#[tokio::test]
async fn in_report_mode_a_limit_only_counts() {
    let limit = "rate_limit = { key = \"client.ip\", rate = \"1/h\", burst = 1, mode = \"report\" }\n";
    let (gateway, _upstream) = with("", limit).await;
    for _ in 0..3 {
        let answer = gateway.get("/").await;
        assert_eq!((answer.status, answer.field("ratelimit")), (200, None));
    }
    let labels = [("policy", "rate_limit"), ("verdict", "would_reject")];
    gateway.metric_reaches("portcullis_policy_decisions_total", &labels, 2.0).await;
    gateway.logged("what would be refused", |line| line["decisions"][0]["verdict"] == "would_reject").await;
}

#[tokio::test]
async fn routes_share_a_named_limit_and_a_request_that_one_limit_refuses_takes_from_none() {
    let config = "\
[rate_limit.both]
key = \"client.ip\"
rate = \"1/h\"
burst = 3
[[route]]
match = \"/a\"
respond = { body = \"a\" }
rate_limit = [\"both\", { key = \"header:x-tenant\", rate = \"1/h\", burst = 1 }]
[[route]]
match = \"/b\"
respond = { body = \"b\" }
rate_limit = { limit = \"both\", headers = false }
";
    let gateway = Gateway::start(config).await;
    let address = gateway.public().await;
    let tenant = "GET /a HTTP/1.1\r\nHost: example.com\r\nX-Tenant: 1\r\n\r\n";
    assert_eq!(ask(address, tenant).await.status, 200);
    for _ in 0..3 {
        let answer = ask(address, tenant).await;
        assert_eq!(answer.status, 429);
        assert_eq!(answer.field("ratelimit"), Some("\"both\";r=2;t=3600, \"header:x-tenant\";r=0;t=3600"));
    }
    let statuses = [gateway.get("/b").await, gateway.get("/b").await, gateway.get("/b").await];
    assert_eq!(statuses.each_ref().map(|answer| answer.status), [200, 200, 429]);
    assert!(statuses.iter().all(|answer| !answer.fields.has("ratelimit")), "{statuses:?}");
    assert_eq!(gateway.get("/a").await.status, 429);
    let limits = gateway.admin_get("/api/v1/limits").await.json();
    assert_eq!(limits["limits"][0]["limit"], "both", "{limits}");
    assert_eq!(limits["limits"][0]["keys"], 1, "{limits}");
    assert_eq!(limits["limits"][1]["limit"], "header:x-tenant@/a", "{limits}");
    assert_eq!(limits["limits"][1]["max_keys"], 250_000, "{limits}");
    assert_eq!(limits["limits"][1]["shared_bucket"]["no_key"], 1, "{limits}");
    gateway.metric_becomes("portcullis_rate_limit_keys", &[("limit", "both")], 1.0).await;
    let shared = [("limit", "header:x-tenant@/a"), ("reason", "no_key")];
    gateway.metric_becomes("portcullis_rate_limit_shared_bucket_total", &shared, 1.0).await;
}

#[tokio::test]
async fn a_reload_that_leaves_a_limit_as_it_is_gives_nobody_a_new_burst() {
    let upstream = Upstream::with(|request| ok(&request.target)).await;
    let config = |lines: &str| all_to(&upstream.url()) + lines;
    let gateway = Gateway::start(&config(ONE_AN_HOUR)).await;
    assert_eq!([gateway.get("/").await.status, gateway.get("/").await.status], [200, 200]);
    gateway.reload(&config(&format!("timeout = {{ attempt = \"2s\" }}\n{ONE_AN_HOUR}"))).await;
    assert_eq!(gateway.get("/").await.status, 429, "the limit is as it was");
    gateway.reload(&config("rate_limit = { key = \"client.ip\", rate = \"1/h\", burst = 4 }\n")).await;
    assert_eq!(gateway.get("/").await.status, 200, "another limit begins anew");
}

#[tokio::test]
async fn an_ipv6_client_is_its_64_and_networks_may_be_exempt() {
    let limit =
        "rate_limit = { key = \"client.ip\", rate = \"1/h\", burst = 1, exempt = { client = [\"10.0.0.0/8\"] } }\n";
    let (gateway, _upstream) = with("trusted_proxies = [\"127.0.0.1\"]\n", limit).await;
    let mut statuses = Vec::new();
    for client in ["2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1", "10.1.2.3", "10.1.2.3"] {
        statuses.push(get_with(&gateway, &format!("X-Forwarded-For: {client}\r\n")).await.status);
    }
    assert_eq!(statuses, [200, 429, 200, 200, 200]);
}

#[tokio::test]
async fn the_upstream_may_say_what_a_request_cost() {
    let upstream = Upstream::answering(response("200 OK", "X-Cost: 7\r\nRateLimit: \"own\";r=3\r\n", b"hello")).await;
    let limit =
        "rate_limit = { key = \"client.ip\", rate = \"1/h\", burst = 10, cost = { response_header = \"x-cost\" } }\n";
    let gateway = Gateway::start(&(all_to(&upstream.url()) + limit)).await;
    let answer = gateway.get("/").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.fields.all("ratelimit"), ["\"own\";r=3", "\"client.ip\";r=3;t=3600"]);
    assert_eq!(gateway.get("/").await.status, 200, "three are left, and it may cost more than that");
    let answer = gateway.get("/").await;
    assert_eq!(answer.status, 429);
    // ten were there, fourteen were taken, one is asked for
    assert_eq!(answer.field("retry-after"), Some("18000"));
}

#[tokio::test]
async fn when_too_many_keys_are_in_use_the_others_share_a_bucket() {
    let limit = "rate_limit = { key = \"header:x-key\", rate = \"1/h\", burst = 2, max_keys = 3 }\n";
    let (gateway, _upstream) = with("", limit).await;
    let mut statuses = Vec::new();
    for key in 0..6 {
        statuses.push(get_with(&gateway, &format!("X-Key: {key}\r\n")).await.status);
    }
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429]);
    assert_eq!(get_with(&gateway, "X-Key: 0\r\n").await.status, 200, "whoever had a bucket keeps it");
    let shared = [("limit", "header:x-key@all"), ("reason", "no_room")];
    gateway.metric_becomes("portcullis_rate_limit_shared_bucket_total", &shared, 3.0).await;
    gateway.metric_becomes("portcullis_rate_limit_keys", &[("limit", "header:x-key@all")], 3.0).await;
}
