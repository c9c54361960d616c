//! `validate` from end to end: what hostile and mistaken requests cost, what their senders are told, and that nothing of
//! them reaches the upstream.

use std::path::Path;

use http::Request;
use serde_json::{Value, json};

use super::harness::client::ask;
use super::harness::gateway::whole;
use super::harness::python::run;
use super::harness::upstream::{ok, response};
use super::harness::{Gateway, H2Client, Refusing, Response, Upstream, all_to};

/// A gateway with this configuration and these files beside it.
async fn start(config: &str, files: &[(&str, Value)]) -> Gateway {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in files {
        std::fs::write(folder.path().join(name), value.to_string()).unwrap();
    }
    let file = folder.path().join("portcullis.toml");
    std::fs::write(&file, whole(config, folder.path())).unwrap();
    let gateway = Gateway::spawn_in(folder, file);
    gateway.event("it is ready", |event| event.message() == "ready").await;
    gateway
}

/// A gateway whose only route has this `validate`, with these files beside its configuration, and its upstream.
async fn with(validate: &str, files: &[(&str, Value)]) -> (Gateway, Upstream) {
    let upstream = Upstream::with(|request| ok(&request.body().len().to_string())).await;
    let gateway = start(&(all_to(&upstream.url()) + validate), files).await;
    (gateway, upstream)
}

const SCHEMA: &str = "validate = { body = { schema = \"a.json\" }, max_depth = 20 }\n";

fn post(content_type: &str, body: &str) -> String {
    format!(
        "POST / HTTP/1.1\r\nHost: example.com\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn places(answer: &Response) -> Vec<String> {
    let problem = answer.json();
    let errors = problem["errors"].as_array().cloned().unwrap_or_default();
    let text = |error: &Value, key: &str| error[key].as_str().unwrap_or_default().to_owned();
    errors.iter().map(|error| format!("{} {}", text(error, "in"), text(error, "pointer"))).collect()
}

#[tokio::test]
async fn what_a_schema_refuses_is_told_place_by_place_and_never_forwarded() {
    let schema = json!({ "type": "object", "required": ["a"], "properties": { "a": { "type": "integer" }, "b": { "maxLength": 2 } } });
    let (gateway, upstream) = with(SCHEMA, &[("a.json", schema)]).await;
    let address = gateway.public().await;
    assert_eq!(ask(address, &post("application/json", r#"{"a":1}"#)).await.status, 200);
    let answer = ask(address, &post("application/json", r#"{"a":"hush-hush","b":"hush-hush"}"#)).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"));
    let mut found = places(&answer);
    found.sort_unstable();
    assert_eq!(found, ["body /a", "body /b"]);
    assert!(!answer.text().contains("hush"), "values are not echoed: {}", answer.text());
    let required = ask(address, "POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!((required.status, places(&required)), (400, vec!["body ".to_owned()]));
    assert_eq!(gateway.get("/").await.status, 200, "a GET needs no body");
    assert_eq!(upstream.requests().len(), 2);
    gateway
        .metric_reaches("portcullis_policy_decisions_total", &[("policy", "validate"), ("verdict", "reject")], 2.0)
        .await;
    gateway.logged("the decision", |line| line.to_string().contains("/a")).await;
    assert!(!gateway.access_log().contains("hush"), "nor are they logged");
}

#[tokio::test]
async fn hostile_bodies_cost_no_more_than_their_limit() {
    let limits = "validate = { body = { schema = \"a.json\" }, max_depth = 20, max_keys = 100, max_string = \"1KiB\", buffer = \"64KiB\" }\n";
    let (gateway, upstream) = with(limits, &[("a.json", json!({}))]).await;
    let address = gateway.public().await;
    let many = format!("{{{}}}", (0..101).map(|key| format!("\"{key}\":1")).collect::<Vec<_>>().join(","));
    let long = format!("\"{}\"", "x".repeat(1025));
    let deep = "[".repeat(50_000);
    let cases = [
        ("deep", deep.as_str()),
        ("many keys", &many),
        ("a long string", &long),
        ("a name twice", r#"{"a":1,"b":2,"\u0061":3}"#),
        ("a byte order mark", "\u{feff}{}"),
        ("trailing garbage", "{} x"),
        ("two values", "{}{}"),
        ("cut short", "{\"a\":"),
        ("a lone surrogate", "\"\\ud800\""),
        ("a number beyond a double", "1e400"),
        ("not JSON", "<a/>"),
    ];
    for (name, body) in cases {
        let answer = ask(address, &post("application/json", body)).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"), "{name}");
    }
    let mut client = gateway.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: example.com\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\n")
        .await;
    client.send(b"\"\xff\xfe\"").await;
    assert_eq!(client.response().await.status, 400, "not UTF-8");
    let declared =
        "POST / HTTP/1.1\r\nHost: example.com\r\nContent-Type: application/json\r\nContent-Length: 10000000000\r\n\r\n";
    let answer = ask(address, declared).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"), "10 GB are refused by their length");
    assert_eq!(upstream.requests().len(), 0, "no byte of any reached the upstream");
}

#[tokio::test]
async fn a_body_longer_than_the_buffer_is_413_while_it_comes() {
    let (gateway, upstream) =
        with("validate = { body = { schema = \"a.json\" }, buffer = \"64KiB\" }\n", &[("a.json", json!({}))]).await;
    let mut client = gateway.client().await;
    let head =
        "POST / HTTP/1.1\r\nHost: example.com\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(head).await;
    let chunk = [b"8000\r\n".to_vec(), vec![b'1'; 0x8000], b"\r\n".to_vec()].concat();
    for _ in 0..4 {
        client.send_or_lose(&chunk).await;
    }
    let answer = client.response().await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    assert_eq!(upstream.requests().len(), 0);
}

#[tokio::test]
async fn over_the_buffer_a_body_may_stream_under_the_limits_alone() {
    let validate =
        "validate = { body = { schema = \"a.json\" }, buffer = \"1KiB\", over_buffer = \"stream\", max_depth = 3 }\n";
    let (gateway, upstream) = with(validate, &[("a.json", json!({ "type": "string" }))]).await;
    let address = gateway.public().await;
    assert_eq!(ask(address, &post("application/json", "[]")).await.status, 400, "what fits is judged");
    let long = format!("[{}]", vec!["1"; 4000].join(","));
    let answer = ask(address, &post("application/json", &long)).await;
    assert_eq!((answer.status, answer.text()), (200, long.len().to_string()), "what does not fit is not");
    let deep = format!("[{},[[[[]]]]]", vec!["1"; 4000].join(","));
    let answer = ask(address, &post("application/json", &deep)).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"), "but its limits hold");
    assert!(
        upstream
            .requests()
            .iter()
            .all(|request| request.body.as_ref().is_none_or(|body| body.bytes.len() == long.len()))
    );
}

#[tokio::test]
async fn limits_of_json_hold_without_a_schema_and_without_holding_the_body() {
    let (gateway, _upstream) = with("validate = { max_depth = 3 }\n", &[]).await;
    let address = gateway.public().await;
    assert_eq!(ask(address, &post("application/json", "[[[]]]")).await.status, 200);
    assert_eq!(ask(address, &post("text/plain", "[[[[]]]]")).await.status, 200, "other types are not JSON");
    let answer = ask(address, &post("application/json", "[[[[]]]]")).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"));
    let answer = ask(address, &post("application/problem+json; charset=utf-8", "{\"a\":1,\"a\":2}")).await;
    assert_eq!(answer.status, 400);
    let coded = "POST / HTTP/1.1\r\nHost: example.com\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n[]";
    let answer = ask(address, coded).await;
    assert_eq!((answer.status, answer.field("accept-encoding")), (415, Some("identity")));
}

#[tokio::test]
async fn a_type_or_character_set_that_is_not_taken_is_415() {
    let (gateway, upstream) = with(SCHEMA, &[("a.json", json!({}))]).await;
    let address = gateway.public().await;
    for content_type in ["application/xml", "application/json; charset=iso-8859-1", "nonsense"] {
        let answer = ask(address, &post(content_type, "{}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (415, "unsupported_media_type"), "{content_type}");
        assert_eq!(answer.field("accept"), Some("application/json"));
    }
    let none = "POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(ask(address, none).await.status, 415);
    let coded = "POST / HTTP/1.1\r\nHost: example.com\r\nContent-Type: application/json\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(ask(address, coded).await.status, 415);
    assert_eq!(upstream.requests().len(), 0);
    let (gateway, _upstream) = with("validate = { content_type = [\"text/*\"] }\n", &[]).await;
    let address = gateway.public().await;
    assert_eq!(ask(address, &post("text/csv", "a,b")).await.status, 200);
    let answer = ask(address, &post("application/json", "{}")).await;
    assert_eq!((answer.status, answer.field("accept")), (415, Some("text/*")));
    assert_eq!(gateway.get("/").await.status, 200, "no body, no type");
}

#[tokio::test]
async fn the_head_has_limits_of_its_own() {
    let (gateway, upstream) = with("validate = { max_url = \"32B\", max_headers = 3 }\n", &[]).await;
    assert_eq!(gateway.get(&format!("/{}", "a".repeat(31))).await.status, 200);
    let answer = gateway.get(&format!("/{}?b=1", "a".repeat(28))).await;
    assert_eq!((answer.status, answer.code().as_str()), (431, "headers_too_large"));
    let address = gateway.public().await;
    assert_eq!(ask(address, "GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\n\r\n").await.status, 200);
    assert_eq!(ask(address, "GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n").await.status, 431);
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn in_report_mode_everything_goes_on_and_is_counted() {
    let validate =
        "validate = { body = { schema = \"a.json\" }, buffer = \"1KiB\", max_depth = 3, mode = \"report\" }\n";
    let (gateway, _upstream) = with(validate, &[("a.json", json!({ "type": "string" }))]).await;
    let address = gateway.public().await;
    let labels = [("policy", "validate"), ("verdict", "would_reject")];
    let deep = format!("[{},[[[[]]]]]", vec!["1"; 4000].join(","));
    for (number, body) in [(1.0, "[]"), (2.0, deep.as_str())] {
        let answer = ask(address, &post("application/json", body)).await;
        assert_eq!((answer.status, answer.text()), (200, body.len().to_string()));
        gateway.metric_reaches("portcullis_policy_decisions_total", &labels, number).await;
    }
}

#[tokio::test]
async fn numbers_beyond_2_to_the_53_characters_and_references_survive() {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "properties": {
            "int": { "type": "integer", "maximum": 9_007_199_254_740_992_u64 },
            "even": { "multipleOf": 2 },
            "exact": { "const": 9_007_199_254_740_993_u64 },
            "unsigned": { "maximum": u64::MAX },
            "poo": { "maxLength": 1, "pattern": "^\\p{Emoji}$" },
            "tree": { "$ref": "node.json" },
            "other": { "$ref": "node.json#/$defs/leaf" },
        },
    });
    let node = json!({
        "type": "object",
        "properties": { "children": { "type": "array", "items": { "$ref": "#" } } },
        "unevaluatedProperties": false,
        "$defs": { "leaf": { "type": "integer" } },
    });
    let (gateway, upstream) = with(SCHEMA, &[("a.json", schema), ("node.json", node)]).await;
    let address = gateway.public().await;
    let good = [
        r#"{"int":9007199254740992}"#,
        r#"{"even":9007199254740994}"#,
        r#"{"exact":9007199254740993}"#,
        r#"{"unsigned":18446744073709551615}"#,
        r#"{"poo":"\ud83d\ude00"}"#,
        r#"{"tree":{"children":[{"children":[]}]}}"#,
        r#"{"other":1}"#,
    ];
    for body in good {
        assert_eq!(ask(address, &post("application/json", body)).await.status, 200, "{body}");
    }
    let bad = [
        r#"{"int":9007199254740993}"#,
        r#"{"even":9007199254740993}"#,
        r#"{"exact":9007199254740992}"#,
        r#"{"unsigned":18446744073709551617}"#,
        r#"{"poo":"\ud83d\ude00\ud83d\ude00"}"#,
        r#"{"tree":{"children":[{"x":1}]}}"#,
        r#"{"other":"1"}"#,
    ];
    for body in bad {
        assert_eq!(ask(address, &post("application/json", body)).await.status, 400, "{body}");
    }
    let sent: Vec<String> =
        upstream.requests().iter().map(|request| String::from_utf8_lossy(request.body()).into_owned()).collect();
    assert_eq!(sent, good, "and the upstream has them byte by byte");
}

#[tokio::test]
async fn draft_07_is_read_as_what_it_is() {
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "items": [{ "type": "integer" }], "additionalItems": false,
        "definitions": { "a": {} },
    });
    let (gateway, _upstream) = with(SCHEMA, &[("a.json", schema)]).await;
    let address = gateway.public().await;
    assert_eq!(ask(address, &post("application/json", "[1]")).await.status, 200);
    assert_eq!(ask(address, &post("application/json", "[1,2]")).await.status, 400);
    assert_eq!(ask(address, &post("application/json", "[\"1\"]")).await.status, 400);
}

#[tokio::test]
async fn query_and_head_have_schemas() {
    let query = json!({ "properties": { "page": { "type": "integer", "minimum": 1 }, "tag": { "type": "array", "items": { "type": "string" } } },
        "additionalProperties": false });
    let header = json!({ "required": ["x-tenant"], "properties": { "x-tenant": { "type": "integer" } } });
    let validate = "validate = { query = { schema = \"q.json\" }, header = { schema = \"h.json\" } }\n";
    let (gateway, _upstream) = with(validate, &[("q.json", query), ("h.json", header)]).await;
    let address = gateway.public().await;
    let get = async |target: &str, field: &str| {
        ask(address, &format!("GET {target} HTTP/1.1\r\nHost: a\r\n{field}\r\n")).await
    };
    assert_eq!(get("/?page=2&tag=a&tag=b", "X-Tenant: 7\r\n").await.status, 200);
    assert_eq!(places(&get("/?page=0", "X-Tenant: 7\r\n").await), ["query /page"]);
    assert_eq!(places(&get("/?page=1&x=1", "X-Tenant: 7\r\n").await), ["query "]);
    assert_eq!(places(&get("/", "").await), ["header "]);
    assert_eq!(places(&get("/", "X-Tenant: x\r\n").await), ["header /x-tenant"]);
}

fn description() -> Value {
    let id = json!({ "name": "id", "in": "path", "required": true, "schema": { "type": "integer" } });
    json!({
        "openapi": "3.1.0", "info": { "title": "t", "version": "1" },
        "paths": { "/things/{id}": { "parameters": [id], "get": {}, "put": { "requestBody": {
            "required": true, "content": { "application/json": { "schema": { "$ref": "b.json#/Thing" } } },
        } } } },
    })
}

const OPENAPI: &str = "validate = { openapi = \"things\" }\n[openapi.things]\nfile = \"a.json\"\n";

#[tokio::test]
async fn a_description_guards_paths_methods_parameters_and_bodies() {
    let thing =
        json!({ "Thing": { "type": "object", "required": ["name"], "properties": { "name": { "type": "string" } } } });
    let (gateway, upstream) = with(OPENAPI, &[("a.json", description()), ("b.json", thing)]).await;
    let address = gateway.public().await;
    assert_eq!(gateway.get("/things/7").await.status, 200);
    let answer = gateway.get("/things/seven").await;
    assert_eq!((answer.status, places(&answer)), (400, vec!["path /id".to_owned()]));
    let answer = gateway.get("/nothing").await;
    assert_eq!((answer.status, answer.code().as_str()), (404, "no_route"));
    let answer = ask(address, "DELETE /things/7 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!((answer.status, answer.field("allow")), (405, Some("GET, HEAD, PUT")));
    let put = |body: &str| post("application/json", body).replace("POST /", "PUT /things/7");
    assert_eq!(ask(address, &put("{\"name\":\"a\"}")).await.status, 200);
    assert_eq!(places(&ask(address, &put("{}")).await), ["body "]);
    assert_eq!(upstream.requests().len(), 2);
}

/// An upstream that answers `/wrong` not as described, `/long` at length, and anything else well.
async fn answering(responses: &str) -> (Gateway, Upstream) {
    let ok = json!({ "description": "d", "content": { "application/json": { "schema": { "type": "object", "required": ["id"] } } } });
    let described = json!({
        "openapi": "3.1.0", "info": { "title": "t", "version": "1" },
        "paths": { "/{which}": { "get": { "responses": { "200": ok } } } },
    });
    let upstream = Upstream::with(|request| match request.target.as_str() {
        "/wrong" => response("200 OK", "Content-Type: application/json\r\n", b"{\"secret\":1}"),
        "/long" => {
            let body = format!("{{\"x\":\"{}\"}}", "x".repeat(5000));
            response("200 OK", "Content-Type: application/json\r\n", body.as_bytes())
        }
        "/status" => response("201 Created", "Content-Type: application/json\r\n", b"{}"),
        _ => response("200 OK", "Content-Type: application/json\r\n", b"{\"id\":1}"),
    })
    .await;
    let validate = format!(
        "validate = {{ openapi = \"things\", buffer = \"4KiB\", responses = \"{responses}\" }}\n[openapi.things]\nfile = \"a.json\"\n"
    );
    let gateway = start(&(all_to(&upstream.url()) + &validate), &[("a.json", described)]).await;
    (gateway, upstream)
}

#[tokio::test]
async fn a_response_that_is_not_as_described_does_not_reach_the_client() {
    let (gateway, upstream) = answering("enforce").await;
    let mut client = gateway.client().await;
    assert_eq!(client.get("/good").await.text(), "{\"id\":1}");
    let answer = client.get("/wrong").await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_invalid"));
    assert!(!answer.text().contains("secret"), "{}", answer.text());
    assert_eq!(client.get("/status").await.status, 502);
    let long = client.get("/long").await;
    assert_eq!((long.status, long.body.len()), (200, 5008), "what is too long to be judged passes whole");
    let labels = |verdict| [("policy", "validate"), ("verdict", verdict)];
    gateway.metric_reaches("portcullis_policy_decisions_total", &labels("unjudged"), 1.0).await;
    gateway.metric_reaches("portcullis_policy_decisions_total", &labels("reject"), 2.0).await;
    assert_eq!(upstream.requests().len(), 4);
}

#[tokio::test]
async fn in_report_mode_responses_pass_and_are_counted() {
    let (gateway, _upstream) = answering("report").await;
    let mut client = gateway.client().await;
    assert_eq!(client.get("/good").await.text(), "{\"id\":1}");
    assert_eq!(client.get("/wrong").await.text(), "{\"secret\":1}");
    assert_eq!(client.get("/status").await.status, 201);
    assert_eq!(client.get("/long").await.body.len(), 5008);
    let labels = |verdict| [("policy", "validate"), ("verdict", verdict)];
    gateway.metric_reaches("portcullis_policy_decisions_total", &labels("would_reject"), 2.0).await;
    gateway.metric_reaches("portcullis_policy_decisions_total", &labels("unjudged"), 1.0).await;
}

#[tokio::test]
async fn schemathesis_finds_nothing_between_the_description_and_the_gateway() {
    let upstream = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/openapi/orders.json");
    let config = format!(
        "[openapi.orders]\nfile = \"{}\"\nbase_path = \"/\"\n[[route]]\nname = \"description\"\nmatch = \"/openapi.json\"\nupstream = \"demo\"\n{}{}",
        upstream.display(),
        all_to("demo"),
        "validate = { openapi = \"orders\", undeclared_query = \"reject\", responses = \"enforce\" }\n"
    );
    let gateway = Gateway::start(&config).await;
    let base = format!("http://{}", gateway.public().await);
    run("openapi_client.py", &[&format!("{base}/openapi.json"), &base, "30"]).await;
}

#[tokio::test]
async fn a_body_that_is_judged_is_asked_for_first() {
    let (gateway, upstream) = with(SCHEMA, &[("a.json", json!({ "type": "object" }))]).await;
    let mut client = gateway.client().await;
    let head = "POST / HTTP/1.1\r\nHost: example.com\r\nContent-Type: application/json\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    client.send(head).await;
    let interim = client.head().await;
    assert_eq!(interim.status, 100);
    assert_eq!(upstream.connections(), 0, "the upstream is not asked before the body is judged");
    client.send("[]").await;
    assert_eq!(client.response().await.status, 400);
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_slow_body_is_408_while_it_is_collected() {
    let upstream = Upstream::saying("x").await;
    let listener = "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\nlimits = { header_timeout = \"200ms\", min_body_rate = \"1MiB/s\" }\n";
    let gateway = start(&(listener.to_owned() + &all_to(&upstream.url()) + SCHEMA), &[("a.json", json!({}))]).await;
    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n[").await;
    let answer = client.response().await;
    assert_eq!((answer.status, answer.code().as_str()), (408, "request_timeout"));
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_client_that_leaves_while_its_body_is_collected_leaves_nothing_behind() {
    let (gateway, upstream) = with(SCHEMA, &[("a.json", json!({}))]).await;
    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n[").await;
    drop(client);
    gateway.logged("the client left", |line| line.to_string().contains("client_gone")).await;
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn over_http_2_the_end_of_the_stream_tells_whether_there_is_a_body() {
    let upstream = Upstream::with(|request| ok(&request.body().len().to_string())).await;
    let listener = "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\nprotocols = [\"h2\"]\n";
    let config = listener.to_owned() + &all_to(&upstream.url()) + SCHEMA;
    let gateway = start(&config, &[("a.json", json!({ "type": "object" }))]).await;
    let mut client = H2Client::connect(gateway.public().await).await;
    assert_eq!(client.get("http://example.com/").await.status, 200);
    let request = |kind: &str| Request::post("http://example.com/").header("content-type", kind).body(()).unwrap();
    assert_eq!(client.request(request("application/json"), b"{}").await.status, 200);
    assert_eq!(client.request(request("application/json"), b"[]").await.status, 400);
    assert_eq!(client.request(request("application/json"), b"").await.status, 400, "POST needs a body");
    let untyped = Request::post("http://example.com/").body(()).unwrap();
    assert_eq!(client.request(untyped, b"{}").await.status, 415);
}

#[tokio::test]
async fn a_body_that_was_judged_is_sent_again_to_the_next_endpoint() {
    let upstream = Upstream::with(|request| ok(&request.body().len().to_string())).await;
    let refusing = Refusing::new();
    let endpoints = format!(
        "[upstream.api]\nendpoints = [\"{}\", \"{}\"]\nbalance = \"round_robin\"\n",
        refusing.url(),
        upstream.url()
    );
    let config = endpoints + &all_to("api") + SCHEMA + "retry = { attempts = 3 }\n";
    let gateway = start(&config, &[("a.json", json!({}))]).await;
    for number in 0..4 {
        let answer = ask(gateway.public().await, &post("application/json", "{\"a\":1}")).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "7"));
        assert_eq!(upstream.request(number).await.body(), b"{\"a\":1}");
    }
}

#[tokio::test]
async fn a_broken_description_is_refused_at_its_own_place_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("spec.yaml");
    let good = "openapi: 3.1.0\ninfo: {title: t, version: '1'}\npaths:\n  /a:\n    get:\n      parameters:\n        - {name: q, in: query, schema: {type: integer}}\n";
    std::fs::write(&file, good).unwrap();
    let upstream = Upstream::saying("x").await;
    let config = all_to(&upstream.url())
        + &format!("validate = {{ openapi = \"a\" }}\n[openapi.a]\nfile = \"{}\"\n", file.display());
    let gateway = Gateway::start(&config).await;
    assert_eq!(gateway.get("/a?q=1").await.status, 200);
    let replace = |text: &str| super::harness::tls::replace(Path::new(&file), text);
    replace(&good.replace("integer", "intger"));
    let finding = gateway.event("the finding", |event| event.field("code") == Some("bad_schema")).await;
    assert!(finding.field("at").is_some_and(|at| at.ends_with("spec.yaml:7:47")), "{finding:?}");
    assert_eq!(gateway.get("/a?q=1").await.status, 200, "the one before stays in force");
    let before = gateway.generation().await;
    replace(&good.replace("integer", "boolean"));
    super::harness::eventually("the next generation", async || (gateway.generation().await > before).then_some(()))
        .await;
    assert_eq!(gateway.get("/a?q=1").await.status, 400, "files of descriptions are watched");
    assert_eq!(gateway.get("/a?q=true").await.status, 200);
}
