//! Removes the fields that belong to one connection and not to the message (RFC 9110 §7.6.1).
//!
//! A sender names further such fields in `Connection`. It does not get to name those that mean something end to end or
//! that the gateway writes: a client could otherwise have `Authorization` or `X-Forwarded-For` dropped after they were
//! checked. Such nominations are ignored and not refused, because old clients send `Connection: Host` and worse in good
//! faith, and a field that stays does no harm. `Content-Length` is left to the engine, which frames messages.

use http::header::{CONNECTION, Entry, HeaderMap, HeaderName, HeaderValue, TE, UPGRADE};
use smallvec::SmallVec;

use crate::model::fields;

/// Whether the exchange asks to switch protocols, so that `Upgrade` stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrading {
    /// It does not.
    No,
    /// It does.
    Yes,
}

/// Strips a request. `TE: trailers` stays, because gRPC needs it and HTTP/2 allows it (RFC 9113 §8.2.2).
pub fn strip_request(headers: &mut HeaderMap, upgrading: Upgrading) {
    let takes_trailers = fields::members(headers, &TE).any(|coding| coding.eq_ignore_ascii_case("trailers"));
    strip(headers, upgrading, |name| {
        // `Proxy` is no field of HTTP, but CGI makes `HTTP_PROXY` of it (httpoxy, CVE-2016-5385)
        matches!(name, "proxy-authorization" | "http2-settings" | "proxy")
    });
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Strips a response.
pub fn strip_response(headers: &mut HeaderMap, upgrading: Upgrading) {
    strip(headers, upgrading, |name| matches!(name, "proxy-authenticate" | "proxy-authentication-info"));
}

/// Whether a request asks to switch protocols over HTTP/1.1: `Upgrade`, and a `Connection` that names it (RFC 9110 §7.8).
#[must_use]
pub fn asks_to_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
        && fields::members(headers, &CONNECTION).any(|option| option.eq_ignore_ascii_case("upgrade"))
}

fn strip(headers: &mut HeaderMap, upgrading: Upgrading, also: impl Fn(&str) -> bool) {
    let goes = |name: &HeaderName| {
        let name = name.as_str();
        is_of_the_connection(name) || also(name) || (name == "upgrade" && upgrading == Upgrading::No)
    };
    match headers.get(CONNECTION) {
        None => {}
        // the commonest, and it nominates nothing
        Some(only) if only == "keep-alive" && headers.get_all(CONNECTION).iter().nth(1).is_none() => {
            headers.remove(CONNECTION);
        }
        Some(_) => strip_nominated(headers),
    }
    let gone: SmallVec<[HeaderName; 8]> = headers.keys().filter(|name| goes(name)).cloned().collect();
    for name in gone {
        headers.remove(name);
    }
}

fn strip_nominated(headers: &mut HeaderMap) {
    let Entry::Occupied(connection) = headers.entry(CONNECTION) else { return };
    let lines: SmallVec<[HeaderValue; 2]> = connection.remove_entry_mult().1.collect();
    let options = lines.iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    for option in options {
        let Ok(option) = std::str::from_utf8(option.trim_ascii()) else { continue };
        if !is_protected(option) {
            // what is no field name is in no map
            headers.remove(option);
        }
    }
}

fn is_of_the_connection(name: &str) -> bool {
    matches!(name, "keep-alive" | "proxy-connection" | "te" | "trailer" | "transfer-encoding")
}

/// What `Connection` can't nominate. `upgrade` and `te` are looked after by themselves.
fn is_protected(option: &str) -> bool {
    const PREFIX: &str = "x-forwarded-";
    const NAMES: [&str; 35] = [
        // connection options that are not fields, and the commonest
        "close",
        "keep-alive",
        "upgrade",
        "te",
        // framing and routing
        "content-length",
        "transfer-encoding",
        "host",
        // what says who asks
        "authorization",
        "cookie",
        "forwarded",
        "origin",
        "via",
        "x-real-ip",
        "x-request-id",
        "traceparent",
        "tracestate",
        // what says what a message is, and who may keep it
        "age",
        "cache-control",
        "content-encoding",
        "content-range",
        "content-type",
        "date",
        "etag",
        "expires",
        "last-modified",
        "location",
        "range",
        "set-cookie",
        "strict-transport-security",
        "vary",
        "www-authenticate",
        "access-control-allow-credentials",
        "access-control-allow-origin",
        "content-security-policy",
        "x-frame-options",
    ];
    let is_forwarded = option.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
    is_forwarded || NAMES.iter().any(|name| name.eq_ignore_ascii_case(option))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(lines: &[(&'static str, &str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).expect("a value"))
        };
        lines.iter().map(line).collect()
    }

    #[track_caller]
    fn check(upgrading: Upgrading, before: &[(&'static str, &str)], after: &[(&'static str, &str)]) {
        let mut headers = map(before);
        strip_request(&mut headers, upgrading);
        assert_eq!(headers, map(after));
    }

    #[test]
    fn fields_of_the_connection_go() {
        let fields = [
            ("connection", "keep-alive"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("proxy-authorization", "Basic eDp5"),
            ("proxy", "http://evil.example"),
            ("http2-settings", "AAMAAABk"),
            ("transfer-encoding", "chunked"),
            ("trailer", "x-sum"),
            ("accept", "*/*"),
            ("content-length", "5"),
        ];
        check(Upgrading::No, &fields, &[("accept", "*/*"), ("content-length", "5")]);
    }

    #[test]
    fn what_connection_names_goes_on_every_line_of_it() {
        let fields = [
            ("connection", "close, X-Once"),
            ("connection", "\u{e9}, x-twice"),
            ("x-once", "1"),
            ("x-twice", "2"),
            ("x-kept", "3"),
        ];
        check(Upgrading::No, &fields, &[("x-kept", "3")]);
    }

    #[test]
    fn protected_fields_can_not_be_named() {
        let kept = [
            ("host", "a.example"),
            ("content-length", "5"),
            ("authorization", "x"),
            ("cookie", "a=b"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-anything", "1"),
            ("forwarded", "for=192.0.2.1"),
            ("x-request-id", "1"),
        ];
        let names = "Host, Content-Length, Authorization, cookie, X-Forwarded-For, x-forwarded-anything, forwarded, x-request-id";
        let fields: Vec<_> = kept.into_iter().chain([("connection", names)]).collect();
        check(Upgrading::No, &fields, &kept);
    }

    #[test]
    fn only_trailers_stays_of_te() {
        check(Upgrading::No, &[("te", "gzip, Trailers"), ("connection", "TE")], &[("te", "trailers")]);
        check(Upgrading::No, &[("te", "trailers;q=0.5")], &[]);
        check(Upgrading::No, &[("te", "gzip")], &[]);
    }

    #[test]
    fn upgrade_stays_for_an_upgrade() {
        let asks = [("connection", "Upgrade"), ("upgrade", "websocket")];
        check(Upgrading::Yes, &asks, &[("upgrade", "websocket")]);
        check(Upgrading::No, &asks, &[]);
        assert!(asks_to_upgrade(&map(&[("connection", "keep-alive, upgrade"), ("upgrade", "websocket")])));
        assert!(!asks_to_upgrade(&map(&[("upgrade", "websocket")])));
        assert!(!asks_to_upgrade(&map(&[("connection", "upgrade")])));
    }

    #[test]
    fn a_response_loses_its_own() {
        let mut headers = map(&[
            ("connection", "x-once"),
            ("x-once", "1"),
            ("keep-alive", "timeout=5"),
            ("upgrade", "h2c"),
            ("proxy-authenticate", "Basic"),
            ("trailer", "x-sum"),
            ("transfer-encoding", "chunked"),
            ("etag", "\"x\""),
        ]);
        strip_response(&mut headers, Upgrading::No);
        assert_eq!(headers, map(&[("etag", "\"x\"")]));
    }

    proptest! {
        #[test]
        fn no_nomination_removes_what_says_who_asks(connection in "[ -~]{0,10}(authorization|x-forwarded-for|COOKIE|host)[ -~]{0,10}") {
            let who = [("authorization", "a"), ("x-forwarded-for", "b"), ("cookie", "c"), ("host", "d")];
            let mut headers = map(&who);
            headers.insert(CONNECTION, HeaderValue::from_str(&connection).expect("visible"));
            strip_request(&mut headers, Upgrading::No);
            prop_assert_eq!(headers, map(&who));
        }
    }
}
