//! Removes the fields that belong to one connection and not to the message (RFC 9110 §7.6.1).
//!
//! A sender names further such fields in `Connection`. It does not get to name those that carry meaning end to end or
//! that we write ourselves: a client could otherwise make us drop `X-Forwarded-For` or `Authorization` after they were
//! checked. Such nominations are ignored.

use http::HeaderMap;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// `Proxy` is no field of HTTP, but CGI turns it into `HTTP_PROXY` (httpoxy, CVE-2016-5385).
const PROXY: HeaderName = HeaderName::from_static("proxy");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// What `Connection` can't nominate, beside everything that begins with `x-forwarded-`.
const PROTECTED: [&str; 14] = [
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "authorization",
    "cookie",
    "set-cookie",
    "cache-control",
    "forwarded",
    "via",
    "x-request-id",
    "x-real-ip",
    "traceparent",
];

/// Whether the exchange asks to switch protocols, so that `Upgrade` stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrading {
    /// It does not.
    No,
    /// It does.
    Yes,
}

/// Strips a request. `TE: trailers` stays, because gRPC and HTTP/2 need it (RFC 9113 §8.2.2).
pub fn strip_request(headers: &mut HeaderMap, upgrading: Upgrading) {
    strip_nominated(headers);
    let trailers = headers.get_all(TE).iter().any(|te| te.to_str().is_ok_and(names_trailers));
    for name in
        [KEEP_ALIVE, PROXY_CONNECTION, PROXY, PROXY_AUTHORIZATION, HTTP2_SETTINGS, TRANSFER_ENCODING, TE, TRAILER]
    {
        headers.remove(name);
    }
    if trailers {
        headers.insert(TE, http::HeaderValue::from_static("trailers"));
    }
    if upgrading == Upgrading::No {
        headers.remove(UPGRADE);
    }
}

/// Strips a response.
pub fn strip_response(headers: &mut HeaderMap, upgrading: Upgrading) {
    strip_nominated(headers);
    for name in [KEEP_ALIVE, PROXY_CONNECTION, PROXY_AUTHENTICATE, TRANSFER_ENCODING, TE] {
        headers.remove(name);
    }
    if upgrading == Upgrading::No {
        headers.remove(UPGRADE);
    }
}

fn strip_nominated(headers: &mut HeaderMap) {
    let Some(connection) = headers.remove(CONNECTION) else { return };
    // The commonest values name nothing else.
    if matches!(connection.as_bytes(), b"keep-alive" | b"close" | b"Keep-Alive" | b"upgrade" | b"Upgrade") {
        return;
    }
    let Ok(tokens) = connection.to_str() else { return };
    for token in tokens.split(',').map(str::trim) {
        let Ok(name) = HeaderName::try_from(token) else { continue };
        let kept = name == UPGRADE || name == TE || name == CONTENT_LENGTH;
        if !kept && !is_protected(name.as_str()) {
            headers.remove(name);
        }
    }
}

fn is_protected(name: &str) -> bool {
    name.starts_with("x-forwarded-") || PROTECTED.contains(&name)
}

fn names_trailers(te: &str) -> bool {
    te.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

/// Whether the request asks to switch protocols over HTTP/1.1: `Upgrade`, and `Connection` that names it
/// (RFC 9110 §7.8).
#[must_use]
pub fn asks_to_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
        && headers.get_all(CONNECTION).iter().any(|connection| {
            connection
                .to_str()
                .is_ok_and(|tokens| tokens.split(',').any(|token| token.trim().eq_ignore_ascii_case("upgrade")))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[track_caller]
    fn check(before: &[(&'static str, &'static str)], upgrading: Upgrading, after: &[(&'static str, &'static str)]) {
        let mut headers = map(before);
        strip_request(&mut headers, upgrading);
        assert_eq!(headers, map(after));
    }

    #[test]
    fn connection_fields_and_what_they_nominate_go() {
        check(&[("connection", "close, X-Once"), ("x-once", "1"), ("x-kept", "2")], Upgrading::No, &[("x-kept", "2")]);
        check(
            &[("keep-alive", "timeout=5"), ("proxy-connection", "close"), ("proxy", "http://evil")],
            Upgrading::No,
            &[],
        );
        check(&[("te", "gzip, trailers"), ("trailer", "x")], Upgrading::No, &[("te", "trailers")]);
        check(&[("te", "gzip")], Upgrading::No, &[]);
    }

    #[test]
    fn protected_fields_can_not_be_nominated() {
        let fields = [
            ("connection", "x-forwarded-for, authorization, host"),
            ("x-forwarded-for", "1.2.3.4"),
            ("authorization", "a"),
        ];
        check(&fields, Upgrading::No, &[("x-forwarded-for", "1.2.3.4"), ("authorization", "a")]);
    }

    #[test]
    fn upgrade_stays_only_for_an_upgrade() {
        check(&[("connection", "Upgrade"), ("upgrade", "websocket")], Upgrading::Yes, &[("upgrade", "websocket")]);
        check(&[("connection", "Upgrade"), ("upgrade", "h2c")], Upgrading::No, &[]);
        assert!(asks_to_upgrade(&map(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")])));
        assert!(!asks_to_upgrade(&map(&[("upgrade", "websocket")])));
    }
}
