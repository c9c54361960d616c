//! What it takes to judge a request: a body of 1 KiB by its schema, and finding an operation among a thousand; and to compile
//! a description of a thousand operations.

#![expect(
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a benchmark that can't be set up stops; it writes the files that it reads"
)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use criterion::Criterion;
use http::{HeaderMap, HeaderValue, Method, Version, header};
use portcullis::control::configuration::{self, Surroundings};
use portcullis::model::request::{RequestView, Scheme};
use portcullis::policy::validate::{HeadJudgement, Validate};
use portcullis::snapshot::Snapshot;
use portcullis::snapshot::tls::bundled_roots;
use serde_json::{Value, json};

const OPERATIONS: usize = 1_000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let folder = tempfile::tempdir().expect("a folder");
    let spec = folder.path().join("spec.json");
    std::fs::write(&spec, description().to_string()).expect("written");
    let file = folder.path().join("portcullis.toml");
    let text = "[[listener]]\naddress = \"127.0.0.1:0\"\n[openapi.api]\nfile = \"spec.json\"\n[[route]]\nmatch = \"/*\"\n\
                upstream = \"http://127.0.0.1:1\"\nvalidate = { openapi = \"api\" }\n";
    std::fs::write(&file, text).expect("written");
    criterion.bench_function("read and compile 1000 operations", |bencher| {
        bencher.iter(|| black_box(compiled(&file)));
    });
    let snapshot = compiled(&file);
    let validate = snapshot.routes.first().and_then(|route| route.policies.validate.as_ref()).expect("it validates");
    let body = order();
    let headers = HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CONTENT_LENGTH, HeaderValue::from(body.len())),
    ]);
    criterion.bench_function("match one of 1000 operations and judge its head", |bencher| {
        bencher.iter(|| black_box(head(&validate.policy, &headers)));
    });
    let task = head(&validate.policy, &headers).task.expect("a body to judge");
    assert!(task.judge(body.as_bytes(), true).rejection.is_none(), "the body fits");
    criterion.bench_function("judge a JSON body of 1 KiB", |bencher| {
        bencher.iter(|| black_box(task.judge(black_box(body.as_bytes()), true)));
    });
    criterion.final_summary();
}

fn compiled(file: &Path) -> Snapshot {
    let mut read = configuration::read(file);
    let surroundings = Surroundings { previous: None, roots: &bundled_roots(), demo: None };
    let snapshot = read.compile(&surroundings);
    snapshot.unwrap_or_else(|| unreachable!("{}", read.text(false)))
}

fn head(validate: &Validate, headers: &HeaderMap) -> HeadJudgement {
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 50_000));
    let request = RequestView {
        method: &Method::POST,
        scheme: Scheme::Http,
        host: "a",
        port: None,
        path: "/area/37/things537/12345/orders",
        query: Some("page=7&tag=a&tag=b"),
        headers,
        version: Version::HTTP_11,
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        peer,
        principal: None,
        route: None,
    };
    validate.judge_head(&request, 50)
}

/// An order of about 1 KiB.
fn order() -> String {
    let lines: Vec<Value> = (0..14)
        .map(|line| json!({ "sku": format!("ABC-{line:04}"), "count": line + 1, "note": "wrapped as a present", "price": 12.5 }))
        .collect();
    json!({ "customer": "0b8c5a1e-6f1a-4c57-9f0d-2d4b2c1f9d10", "lines": lines }).to_string()
}

fn description() -> Value {
    let mut paths = serde_json::Map::new();
    let mut schemas = serde_json::Map::new();
    for number in 0..OPERATIONS {
        let reference = format!("#/components/schemas/Order{number}");
        let operation = json!({
            "parameters": [
                { "name": "id", "in": "path", "required": true, "schema": { "type": "integer" } },
                { "name": "page", "in": "query", "schema": { "type": "integer", "minimum": 1 } },
                { "name": "tag", "in": "query", "schema": { "type": "array", "items": { "type": "string" } } },
            ],
            "requestBody": { "required": true, "content": { "application/json": { "schema": { "$ref": reference } } } },
            "responses": { "200": { "description": "d", "content": { "application/json": { "schema": { "$ref": reference } } } } },
        });
        paths.insert(format!("/area/{}/things{number}/{{id}}/orders", number % 50), json!({ "post": operation }));
        let next = format!("#/components/schemas/Order{}", (number + 1) % OPERATIONS);
        let line = json!({
            "type": "object", "required": ["sku", "count"], "additionalProperties": false,
            "properties": {
                "sku": { "type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$" }, "count": { "type": "integer", "minimum": 1 },
                "note": { "type": "string", "maxLength": 100 }, "price": { "type": "number", "minimum": 0 },
                "bundle": { "$ref": next },
            },
        });
        let order = json!({
            "type": "object", "required": ["customer", "lines"],
            "properties": {
                "id": { "type": "integer", "readOnly": true }, "customer": { "type": "string", "format": "uuid" },
                "lines": { "type": "array", "maxItems": 100, "items": line },
            },
        });
        schemas.insert(format!("Order{number}"), order);
    }
    json!({ "openapi": "3.1.0", "info": { "title": "t", "version": "1" }, "paths": paths, "components": { "schemas": schemas } })
}
