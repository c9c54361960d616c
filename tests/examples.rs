//! The examples in `conf/examples/` hold: each compiles without a finding, and does what it is an example of.

#![expect(clippy::expect_used, reason = "a test fails where it can't go on")]

use std::path::Path;
use std::process::{Command, Output};

/// Each example, with questions as `explain` takes them and the answer as `status route upstream`.
const EXAMPLES: &[(&str, &[(&str, &str)])] = &[
    (
        "edge.toml",
        &[
            ("https://api.example.com/orders", "200 api api"),
            ("http://api.example.com/orders", "308 api -"),
            ("--client 192.0.2.1 https://api.example.com/internal/x", "403 reports -"),
        ],
    ),
    (
        "local-development.toml",
        &[
            ("http://localhost:8080/api/users", "200 api http://127.0.0.1:3000"),
            ("http://localhost:8080/app.js", "200 frontend http://127.0.0.1:5173"),
        ],
    ),
    (
        "kubernetes-ingress.toml",
        &[
            ("https://shop.example.com/api/carts", "200 shop-api shop-api"),
            ("https://www.shop.example.com/api/carts", "200 shop shop"),
            ("https://a.tenants.example.com/", "200 tenants tenants"),
            ("https://tenants.example.com/", "404 - -"),
            ("http://shop.example.com/", "308 shop -"),
            ("http://10.0.0.9/healthz", "200 health -"),
        ],
    ),
    ("resilient-upstream.toml", &[("http://shop.example.com/", "200 shop shop")]),
    (
        "canary.toml",
        &[
            ("http://shop.example.com/", "200 shop stable"),
            ("-H x-version:canary http://shop.example.com/", "200 shop-testers canary"),
        ],
    ),
    (
        "static-responses.toml",
        &[
            ("http://any.example.com/robots.txt", "200 robots -"),
            ("http://www.example.com/blog/7", "308 moved -"),
            ("http://www.example.com/go?a=1", "302 short-link -"),
            ("http://www.example.com/x", "503 maintenance -"),
            ("-H x-preview:1 --client 10.0.0.1 http://www.example.com/x", "200 maintenance-preview demo"),
        ],
    ),
    (
        "public-site.toml",
        &[
            ("http://www.example.com/", "200 site site"),
            ("--repeat 200 http://www.example.com/", "200 site site"),
            ("--repeat 201 http://www.example.com/", "429 site -"),
            ("--repeat 201 --client 192.0.2.7 http://www.example.com/", "200 site site"),
            ("--repeat 41 http://www.example.com/search", "429 search -"),
            ("--repeat 11 -X POST http://www.example.com/login?account=ann", "429 log-in -"),
            ("--repeat 9 http://www.example.com/feeds/news", "200 feeds site"),
        ],
    ),
    (
        "tiered-api.toml",
        &[
            ("http://api.example.com/things", "401 api -"),
            ("-H x-api-key:nobody-s-key http://api.example.com/things", "401 api -"),
            ("-H x-api-key:free-key-of-the-example http://api.example.com/things", "200 api api"),
            ("-H x-api-key:free-key-of-the-example --repeat 21 http://api.example.com/things", "429 api -"),
            ("-H x-api-key:premium-key-of-the-example --repeat 90 http://api.example.com/things", "200 api api"),
            ("-H x-api-key:premium-key-of-the-example --repeat 101 http://api.example.com/things", "429 api -"),
            ("-H x-api-key:free-key-of-the-example http://api.example.com/reports/7", "403 reports -"),
            ("-H x-api-key:premium-key-of-the-example http://api.example.com/reports/7", "200 reports api"),
        ],
    ),
    (
        "websocket-and-grpc.toml",
        &[
            ("-H upgrade:websocket -H connection:upgrade http://app.example.com:8080/live", "101 live live"),
            (
                "-X POST -H content-type:application/grpc http://grpc.example.com:8081/orders.v1.Orders/Get",
                "200 orders orders",
            ),
        ],
    ),
    (
        "openapi-guarded.toml",
        &[
            (
                "http://shop.example.com/v1/carts/0b8c5a1e-6f1a-4c57-9f0d-2d4b2c1f9d10?fields=lines,total",
                "200 shop shop",
            ),
            ("http://shop.example.com/v1/carts/7", "400 shop -"),
            ("http://shop.example.com/v1/nothing", "404 shop -"),
            ("-X DELETE http://shop.example.com/v1/carts/0b8c5a1e-6f1a-4c57-9f0d-2d4b2c1f9d10", "405 shop -"),
            (
                "-X PUT -H content-type:application/json --body-text {\"lines\":[{\"sku\":\"TEA-0001\",\"count\":2}],\"note\":null} \
                 http://shop.example.com/v1/carts/0b8c5a1e-6f1a-4c57-9f0d-2d4b2c1f9d10",
                "200 shop shop",
            ),
            (
                "-X PUT -H content-type:application/json --body-text {\"lines\":[{\"sku\":\"tea\",\"count\":2}]} \
                 http://shop.example.com/v1/carts/0b8c5a1e-6f1a-4c57-9f0d-2d4b2c1f9d10",
                "400 shop -",
            ),
            (
                "-H content-type:application/json --body-text {\"event\":\"paid\",\"amount\":1} \
                 http://hooks.example.com/payments?attempt=1",
                "200 hook shop",
            ),
            ("-X POST http://hooks.example.com/payments?attempt=1", "400 hook -"),
            ("http://next.example.com/v1/carts/7", "200 next shop"),
        ],
    ),
    (
        "yaml.yaml",
        &[
            ("http://api.example.com/x", "200 api api"),
            ("--client 192.0.2.1 http://api.example.com/metrics", "403 metrics -"),
        ],
    ),
];

fn portcullis(certificates: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("CERTIFICATES", certificates)
        .args(arguments)
        .output()
        .expect("the program starts")
}

/// A folder with the certificates that the examples name.
fn certificates() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let made = rcgen::generate_simple_self_signed(["api.example.com".to_owned()]).expect("a certificate");
    for (chain, key) in [("api.pem", "api.key"), ("tls.crt", "tls.key")] {
        write(&folder.path().join(chain), &made.cert.pem());
        write(&folder.path().join(key), &made.signing_key.serialize_pem());
    }
    folder
}

#[expect(clippy::disallowed_methods, reason = "certificates are files")]
fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("it is writable");
}

#[test]
fn every_example_is_asked() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/examples");
    let files = std::fs::read_dir(folder).expect("the folder is there");
    // A folder holds what an example names.
    let files = files.map(|file| file.expect("readable")).filter(|file| file.path().is_file());
    let mut names: Vec<String> = files.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    let mut asked: Vec<&str> = EXAMPLES.iter().map(|(name, _)| *name).collect();
    asked.sort_unstable();
    assert_eq!(names, asked);
}

#[test]
fn every_example_compiles_without_a_finding() {
    let certificates = certificates();
    for (name, _) in EXAMPLES {
        let path = format!("conf/examples/{name}");
        let output = portcullis(certificates.path(), &["check", "--format", "json", &path]);
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(output.status.code(), Some(0), "{said:#}");
        let findings = &said[0]["diagnostics"];
        assert!(findings.as_array().is_some_and(Vec::is_empty), "{findings:#}");
    }
}

#[test]
fn every_example_does_what_it_is_an_example_of() {
    let certificates = certificates();
    for (name, questions) in EXAMPLES {
        let path = format!("conf/examples/{name}");
        for (question, answer) in *questions {
            let mut arguments = vec!["explain", "-c", &path, "--format", "json"];
            arguments.extend(question.split_whitespace());
            let output = portcullis(certificates.path(), &arguments);
            assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
            let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
            let part = |what: &str| said[what]["name"].as_str().unwrap_or("-").to_owned();
            let seen = format!("{} {} {}", said["response"]["status"], part("route"), part("upstream"));
            assert_eq!(seen, *answer, "{name}: {question}");
        }
    }
}
