//! Tells the upstream where the request came from: `X-Forwarded-*`, `Forwarded` (RFC 7239) and `Via` (RFC 9110 §7.6.3).
//!
//! A trusted peer's list goes on; from anybody else it begins anew with the peer, so that what an upstream reads was
//! written by us or by someone whom the operator named. Spellings with underscores, which some servers take for the
//! same field (CGI turns both into `HTTP_X_FORWARDED_FOR`), are removed.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, HeaderName, HeaderValue, VIA};
use http::{HeaderMap, Version};

use crate::model::request::Scheme;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Our name in `Via`: a pseudonym, as RFC 9110 §7.6.3 allows.
const PSEUDONYM: &str = "portcullis";

/// What is known of the request's way so far.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    /// The connection's peer.
    pub peer: SocketAddr,
    /// Whether its lists go on.
    pub peer_trusted: bool,
    /// The client.
    pub client: IpAddr,
    /// The scheme that the client spoke.
    pub scheme: Scheme,
    /// `Host` as received.
    pub host: &'a HeaderValue,
    /// The port that the client connected to, as far as is known.
    pub port: u16,
    /// The version that the client spoke.
    pub version: Version,
}

/// Writes the fields into a request that goes upstream.
pub fn write(headers: &mut HeaderMap, hop: &Hop<'_>) {
    strip_aliases(headers);
    if !hop.peer_trusted {
        for name in [FORWARDED, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, X_FORWARDED_PORT] {
            headers.remove(name);
        }
    }
    let mut text = Text::default();
    let peer = hop.peer.ip().to_canonical();
    text.set(|text| write!(text, "{peer}"));
    append(headers, &X_FORWARDED_FOR, text.as_str());
    text.set(|text| write!(text, "{}", hop.client));
    insert(headers, X_REAL_IP, text.as_str());
    keep_or_insert(headers, X_FORWARDED_PROTO, || HeaderValue::from_static(hop.scheme.as_str()));
    keep_or_insert(headers, X_FORWARDED_HOST, || hop.host.clone());
    keep_or_insert(headers, X_FORWARDED_PORT, || HeaderValue::from(hop.port));
    text.set(|text| forwarded(text, peer, hop));
    append(headers, &FORWARDED, text.as_str());
    via(headers, hop.version);
}

/// Adds ourselves to `Via`.
pub fn via(headers: &mut HeaderMap, version: Version) {
    let (protocol, alone) = match version {
        Version::HTTP_10 => ("1.0", HeaderValue::from_static("1.0 portcullis")),
        Version::HTTP_2 => ("2", HeaderValue::from_static("2 portcullis")),
        _ => ("1.1", HeaderValue::from_static("1.1 portcullis")),
    };
    if headers.contains_key(VIA) {
        append(headers, &VIA, &format!("{protocol} {PSEUDONYM}"));
    } else {
        headers.insert(VIA, alone);
    }
}

/// One element of RFC 7239 §4: IPv6 addresses and values with a colon are quoted.
fn forwarded(text: &mut String, peer: IpAddr, hop: &Hop<'_>) -> std::fmt::Result {
    match peer {
        IpAddr::V4(peer) => write!(text, "for={peer}")?,
        IpAddr::V6(peer) => write!(text, "for=\"[{peer}]\"")?,
    }
    let host = hop.host.to_str().unwrap_or_default();
    if host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')) {
        write!(text, ";host={host}")?;
    } else if !host.contains(['"', '\\']) {
        write!(text, ";host=\"{host}\"")?;
    }
    write!(text, ";proto={}", hop.scheme.as_str())
}

/// Removes fields that differ from a trusted one only in underscores.
fn strip_aliases(headers: &mut HeaderMap) {
    if !headers.keys().any(|name| name.as_str().contains('_')) {
        return;
    }
    let aliases: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().contains('_') && is_ours(&name.as_str().replace('_', "-")))
        .cloned()
        .collect();
    for alias in aliases {
        headers.remove(alias);
    }
}

fn is_ours(name: &str) -> bool {
    name.starts_with("x-forwarded-")
        || matches!(name, "x-real-ip" | "x-request-id" | "content-length" | "transfer-encoding")
}

/// Appends to the list in one field line: several lines are one list (RFC 9110 §5.3), and some servers read one only.
fn append(headers: &mut HeaderMap, name: &HeaderName, element: &str) {
    let mut list = String::new();
    for line in headers.get_all(name).iter().filter_map(|line| line.to_str().ok()) {
        if !list.is_empty() {
            list.push_str(", ");
        }
        list.push_str(line);
    }
    if list.is_empty() {
        insert(headers, name.clone(), element);
    } else {
        list.push_str(", ");
        list.push_str(element);
        insert(headers, name.clone(), &list);
    }
}

fn keep_or_insert(headers: &mut HeaderMap, name: HeaderName, value: impl FnOnce() -> HeaderValue) {
    if !headers.contains_key(&name) {
        headers.insert(name, value());
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// A string that is written again and again.
#[derive(Default)]
struct Text(String);

impl Text {
    fn set(&mut self, fill: impl FnOnce(&mut String) -> std::fmt::Result) {
        self.0.clear();
        // Writing into a String can't fail.
        let _ = fill(&mut self.0);
    }

    fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(host: &HeaderValue, peer: &'static str, peer_trusted: bool) -> (HeaderMap, SocketAddr) {
        let peer: SocketAddr = peer.parse().expect("address");
        let mut headers = HeaderMap::new();
        headers.insert(X_FORWARDED_FOR, HeaderValue::from_static("203.0.113.9"));
        headers.insert(FORWARDED, HeaderValue::from_static("for=203.0.113.9"));
        headers.insert("x_forwarded_for", HeaderValue::from_static("evil"));
        headers.insert("x-forwarded_host", HeaderValue::from_static("evil"));
        let client = peer.ip();
        write(
            &mut headers,
            &Hop { peer, peer_trusted, client, scheme: Scheme::Https, host, port: 443, version: Version::HTTP_11 },
        );
        (headers, peer)
    }

    #[track_caller]
    fn check(headers: &HeaderMap, name: &str, value: &str) {
        assert_eq!(headers.get(name).map(|value| value.to_str().expect("ascii")), Some(value), "{name}");
    }

    #[test]
    fn an_untrusted_peer_begins_the_list_anew() {
        let host = HeaderValue::from_static("api.example.com:8443");
        let (headers, _) = hop(&host, "192.0.2.1:1", false);
        check(&headers, "x-forwarded-for", "192.0.2.1");
        check(&headers, "x-real-ip", "192.0.2.1");
        check(&headers, "x-forwarded-proto", "https");
        check(&headers, "x-forwarded-host", "api.example.com:8443");
        check(&headers, "x-forwarded-port", "443");
        check(&headers, "forwarded", "for=192.0.2.1;host=\"api.example.com:8443\";proto=https");
        check(&headers, "via", "1.1 portcullis");
        assert!(!headers.contains_key("x_forwarded_for") && !headers.contains_key("x-forwarded_host"));
    }

    #[test]
    fn a_trusted_peer_s_list_goes_on() {
        let host = HeaderValue::from_static("h");
        let (headers, _) = hop(&host, "[2001:db8::1]:1", true);
        check(&headers, "x-forwarded-for", "203.0.113.9, 2001:db8::1");
        check(&headers, "forwarded", "for=203.0.113.9, for=\"[2001:db8::1]\";host=h;proto=https");
    }

    #[test]
    fn via_grows() {
        let mut headers = HeaderMap::from_iter([(VIA, HeaderValue::from_static("1.1 edge"))]);
        via(&mut headers, Version::HTTP_2);
        check(&headers, "via", "1.1 edge, 2 portcullis");
    }
}
