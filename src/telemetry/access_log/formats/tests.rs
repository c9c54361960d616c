use std::borrow::Cow;
use std::time::Duration;

use http::{Method, StatusCode};

use super::*;
use crate::model::outcome::Outcome;
use crate::model::outcome::Termination;
use crate::model::request::Scheme;
use crate::model::verdict::{Code, Decision, PolicyName, Verdict};
use crate::telemetry::access_log::entry::AttemptEntry;
use crate::telemetry::metrics::NonRequest;

fn line(format: Format, entry: &Entry<'_>) -> String {
    let mut out = Vec::new();
    format.write(entry, &mut TimeText::default(), &mut out);
    let line = String::from_utf8(out).expect("a line is UTF-8");
    assert_eq!(line.matches('\n').count(), 1, "one line: {line:?}");
    line.strip_suffix('\n').expect("the end of the line comes last").to_owned()
}

#[track_caller]
fn check(format: Format, entry: &Entry<'_>, expected: &str) {
    assert_eq!(line(format, entry), expected);
}

fn json(entry: &Entry<'_>) -> serde_json::Value {
    serde_json::from_str(&line(Format::Json, entry)).expect("valid JSON")
}

fn bare() -> Entry<'static> {
    let peer = "192.0.2.7:4711".parse().expect("an address");
    Entry::new(1_700_000_000_123_456_789, "public", Scheme::Https, peer)
}

fn request() -> Entry<'static> {
    Entry {
        request_id: "7f3c",
        method: Some(&Method::GET),
        host: Some(b"api.example.com"),
        target: Some(b"/orders/7?page=2&token=abc"),
        version: Some(Version::HTTP_11),
        status: Some(StatusCode::OK),
        route: Some("orders"),
        bytes_out: 1024,
        duration: Duration::from_micros(12_345),
        referer: Some(b"https://www.example.com/?sig=1"),
        user_agent: Some(b"curl/8.5"),
        ..bare()
    }
}

#[test]
fn common_shows_the_request_line() {
    check(
        Format::Common,
        &request(),
        r#"192.0.2.7 - - [14/Nov/2023:22:13:20 +0000] "GET /orders/7?page=2&token=[redacted] HTTP/1.1" 200 1024"#,
    );
}

#[test]
fn combined_adds_referer_and_user_agent() {
    check(
        Format::Combined,
        &request(),
        r#"192.0.2.7 - - [14/Nov/2023:22:13:20 +0000] "GET /orders/7?page=2&token=[redacted] HTTP/1.1" 200 1024 "https://www.example.com/?sig=[redacted]" "curl/8.5""#,
    );
}

#[test]
fn json_shows_everything_that_is_known() {
    let decision = |policy, verdict| Decision { policy, verdict, reason: Cow::Borrowed("because") };
    let decisions = [
        decision(PolicyName::Access, Verdict::Allow),
        decision(PolicyName::Access, Verdict::WouldReject),
        decision(PolicyName::Rewrite, Verdict::Apply),
    ];
    let attempts = [
        AttemptEntry { endpoint: "10.0.0.1:3001", outcome: Outcome::Connect, duration: Duration::from_millis(2) },
        AttemptEntry {
            endpoint: "10.0.0.2:3001",
            outcome: Outcome::Status(StatusCode::OK),
            duration: Duration::from_millis(9),
        },
    ];
    let entry = Entry {
        upstream: Some("api"),
        endpoint: Some("10.0.0.2:3001"),
        bytes_in: 5,
        attempts: &attempts,
        principal: Some("ann \"the\nroot\""),
        tls_version: Some("1.3"),
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736"),
        decisions: &decisions,
        termination: Some(Termination::ClientGone),
        code: Some(Code::DeadlineExceeded),
        ..request()
    };
    check(
        Format::Json,
        &entry,
        concat!(
            r#"{"time":"2023-11-14T22:13:20.123Z","request_id":"7f3c","client":"192.0.2.7","peer":"192.0.2.7:4711","#,
            r#""listener":"public","tls_version":"1.3","method":"GET","scheme":"https","host":"api.example.com","#,
            r#""path":"/orders/7","query":"page=2&token=[redacted]","version":"HTTP/1.1","#,
            r#""principal":"ann \"the\nroot\"","route":"orders","#,
            r#""upstream":"api","endpoint":"10.0.0.2:3001","status":200,"code":"deadline_exceeded","#,
            r#""termination":"client_gone","bytes_in":5,"bytes_out":1024,"duration_ms":12.345,"#,
            r#""attempts":[{"endpoint":"10.0.0.1:3001","outcome":"connect","duration_ms":2.000},"#,
            r#"{"endpoint":"10.0.0.2:3001","outcome":"2xx","duration_ms":9.000}],"#,
            r#""referer":"https://www.example.com/?sig=[redacted]","user_agent":"curl/8.5","#,
            r#""trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","#,
            r#""decisions":[{"policy":"access","verdict":"would_reject","reason":"because"}]}"#,
        ),
    );
    json(&entry);
}

#[test]
fn what_never_became_a_request_has_a_line_too() {
    let entry = Entry { non_request: Some(NonRequest::TlsFailure), ..bare() };
    check(Format::Common, &entry, r#"192.0.2.7 - - [14/Nov/2023:22:13:20 +0000] "-" - -"#);
    check(Format::Combined, &entry, r#"192.0.2.7 - - [14/Nov/2023:22:13:20 +0000] "-" - - "-" "-""#);
    check(
        Format::Json,
        &entry,
        concat!(
            r#"{"time":"2023-11-14T22:13:20.123Z","client":"192.0.2.7","peer":"192.0.2.7:4711","listener":"public","#,
            r#""non_request":"tls_failure","scheme":"https","bytes_in":0,"bytes_out":0,"duration_ms":0.000}"#,
        ),
    );
}

#[test]
fn hostile_bytes_forge_neither_line_nor_field() {
    let hostile = b"/\" 200 1\n{\"status\":200}\r\n\x1b[2J\\\xff?q=\"\n&token=\"\n\x00";
    let entry = Entry {
        target: Some(hostile),
        host: Some(hostile),
        user_agent: Some(hostile),
        referer: Some(hostile),
        request_id: "a\"\n",
        ..request()
    };
    for format in [Format::Json, Format::Common, Format::Combined] {
        let line = line(format, &entry);
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
    let json = json(&entry);
    assert_eq!(json["status"], 200);
    assert_eq!(json["path"], "/\" 200 1\n{\"status\":200}\r\n\u{1b}[2J\\\u{fffd}");
    assert_eq!(json["query"], "q=\"\n&token=[redacted]");
    assert_eq!(line(Format::Combined, &entry).matches('"').count(), 6, "three quoted fields");
}

#[test]
fn endless_fields_are_cut_with_a_mark() {
    let endless = vec![b'a'; 100_000];
    let mut endless_path = b"/".to_vec();
    endless_path.extend_from_slice(&endless);
    let entry = Entry {
        target: Some(&endless_path),
        host: Some(&endless),
        user_agent: Some(&endless),
        referer: Some(&endless),
        ..request()
    };
    for format in [Format::Json, Format::Common, Format::Combined] {
        let line = line(format, &entry);
        assert!(line.len() < 16 * 1024, "{}", line.len());
        assert!(line.contains("aaa...(+91809 bytes)"), "{line}");
    }
    json(&entry);
    let worst = vec![0; 100_000];
    let entry = Entry { target: Some(&worst), user_agent: Some(&worst), ..entry };
    assert!(line(Format::Json, &entry).len() < super::super::LONGEST_LINE);
}

#[test]
fn addresses_of_both_families_are_shown_with_their_port() {
    let entry = Entry { peer: "[2001:db8::1]:443".parse().expect("an address"), ..bare() };
    assert_eq!(json(&entry)["peer"], "[2001:db8::1]:443");
}
