//! What `check` says of settings that are right one by one and mean nothing together.

#![expect(clippy::expect_used, reason = "a test fails where it can't go on")]
#![expect(clippy::disallowed_methods, reason = "the file that is checked")]

use std::fs;
use std::process::Command;

/// One route and its upstreams, and the findings, in order.
#[track_caller]
fn check(route: &str, expected: &[&str]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("gateway.toml");
    let text = format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n\n[[route]]\nmatch = \"/*\"\n{route}\n\n\
         [upstream.one]\nendpoints = [\"http://127.0.0.1:81\"]\n\n\
         [upstream.two]\nendpoints = [\"http://127.0.0.1:82\", \"http://127.0.0.1:83\"]\n\n\
         [upstream.named]\nendpoints = [\"http://api.test:84\"]\n"
    );
    fs::write(&path, text).expect("it is writable");
    let output = Command::new(env!("CARGO_BIN_EXE_portcullis")).arg("check").arg(&path).output().expect("it runs");
    let printed = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    let is_finding = |line: &&str| line.starts_with("error[") || line.starts_with("warning[");
    let found: Vec<&str> =
        printed.lines().filter(is_finding).filter(|line| !line.contains("used by no route")).collect();
    assert_eq!(found.len(), expected.len(), "{printed}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "{expected}: {printed}");
    }
    let has_error = found.iter().any(|line| line.starts_with("error["));
    assert_eq!(output.status.code(), Some(i32::from(has_error)), "{printed}");
}

#[test]
fn a_route_goes_somewhere_or_answers() {
    check("upstream = \"one\"", &[]);
    check("respond = { status = 204 }", &[]);
    check("", &["error[missing_key]: a route that goes nowhere"]);
    check("upstream = \"one\"\nrespond = { status = 204 }", &["error[bad_value]: an upstream that is never asked"]);
}

#[test]
fn what_needs_an_upstream_is_refused_beside_an_answer() {
    for (key, setting) in [
        ("retry", "retry = { attempts = 2 }"),
        ("rewrite", "rewrite = { path = \"/x\" }"),
        ("fallback", "fallback = [{ status = 503, body = \"later\" }]"),
        ("hedge", "hedge = { after = \"50ms\" }"),
    ] {
        check(
            &format!("respond = {{ status = 204 }}\n{setting}"),
            &[&format!("error[dead_setting]: `{key}` on a route that answers by itself")],
        );
    }
}

#[test]
fn a_hedge_needs_a_second_endpoint() {
    let hedged = |upstream: &str| format!("upstream = {upstream}\nhedge = {{ after = \"p95\" }}");
    let lone = "warning[dead_setting]: a hedge goes to another endpoint";
    check(&hedged("\"one\""), &[lone]);
    check(&hedged("\"http://127.0.0.1:85\""), &[lone]);
    check(&hedged("\"two\""), &[]);
    check(&hedged("\"named\""), &[]);
    check(&hedged("[{ upstream = \"one\", weight = 1 }, { upstream = \"two\", weight = 1 }]"), &[]);
}
