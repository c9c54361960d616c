//! Tells the upstream where a request came from: `X-Forwarded-*`, `X-Real-IP`, `Forwarded` (RFC 7239) and `Via`
//! (RFC 9110 §7.6.3).
//!
//! A trusted peer's words stand and its lists go on; from anybody else all of them are removed and begin anew with the
//! peer, so that what an upstream reads was written by us or by someone whom the operator named. Spellings with
//! underscores, which some servers take for the same field (CGI makes `HTTP_X_FORWARDED_FOR` of both), are removed from
//! everybody. Never decides who is trusted: [`super::client_address`] does.

use std::fmt::{Arguments, Write as _};
use std::net::IpAddr;

use bytes::{Bytes, BytesMut};
use http::Version;
use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue, VIA};
use smallvec::SmallVec;

use crate::model::request::Scheme;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// A connection's peer as these fields write it: made once per connection.
#[derive(Debug, Clone)]
pub struct Peer {
    address: IpAddr,
    /// The address alone.
    plain: HeaderValue,
    /// `for=` with the node of RFC 7239 §6: IPv6 in brackets and quotes.
    node: Box<str>,
}

impl Peer {
    /// The texts for an address.
    #[must_use]
    pub fn new(address: IpAddr) -> Self {
        let address = address.to_canonical();
        let node = match address {
            IpAddr::V4(address) => format!("for={address}"),
            IpAddr::V6(address) => format!("for=\"[{address}]\""),
        };
        Self { address, plain: value(format_args!("{address}")), node: node.into() }
    }
}

/// What is known of a request's way so far.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    /// The connection's peer.
    pub peer: &'a Peer,
    /// Whether the peer's own words stand.
    pub peer_trusted: bool,
    /// The client, by [`super::client_address::find`].
    pub client: IpAddr,
    /// The scheme that the client spoke.
    pub scheme: Scheme,
    /// `Host` or `:authority` as received.
    pub host: &'a HeaderValue,
    /// The port of the listener.
    pub port: u16,
    /// The version that the peer spoke.
    pub version: Version,
}

/// Writes the fields into a request that goes upstream.
pub fn write(headers: &mut HeaderMap, hop: &Hop<'_>) {
    strip_claims(headers, hop.peer_trusted);
    let Peer { address, plain, node } = hop.peer;
    append(headers, &X_FORWARDED_FOR, || plain.clone());
    let real_ip = if hop.client == *address { plain.clone() } else { value(format_args!("{}", hop.client)) };
    headers.insert(X_REAL_IP, real_ip);
    // A trusted peer that ended TLS has a port of its own: ours says nothing of it.
    let is_port_ours = !hop.peer_trusted || !headers.contains_key(X_FORWARDED_PROTO);
    keep_or_insert(headers, X_FORWARDED_PROTO, || HeaderValue::from_static(hop.scheme.as_str()));
    keep_or_insert(headers, X_FORWARDED_HOST, || hop.host.clone());
    if is_port_ours {
        keep_or_insert(headers, X_FORWARDED_PORT, || HeaderValue::from(hop.port));
    }
    append(headers, &FORWARDED, || element(node, hop));
    via(headers, hop.version);
}

/// Adds ourselves to `Via`, as the recipient of a message in `version`, by a pseudonym, which RFC 9110 §7.6.3 allows. A
/// line of its own is a member like any other.
pub fn via(headers: &mut HeaderMap, version: Version) {
    let member = match version {
        Version::HTTP_09 | Version::HTTP_10 => "1.0 portcullis",
        Version::HTTP_2 => "2 portcullis",
        Version::HTTP_3 => "3 portcullis",
        _ => "1.1 portcullis",
    };
    headers.append(VIA, HeaderValue::from_static(member));
}

/// The element of `Forwarded`: who asked us, by which host and scheme.
fn element(node: &str, hop: &Hop<'_>) -> HeaderValue {
    let host = hop.host.to_str().unwrap_or_default();
    // a host with a colon or bracket is no token; one with a quote is no host
    let [before, host, behind] = match host {
        "" => ["", "", ""],
        host if host.bytes().all(is_token_byte) => [";host=", host, ""],
        host if !host.contains(['"', '\\']) => [";host=\"", host, "\""],
        _ => ["", "", ""],
    };
    let parts = [node, before, host, behind, ";proto=", hop.scheme.as_str()];
    let mut text = String::with_capacity(parts.iter().map(|part| part.len()).sum());
    for part in parts {
        text.push_str(part);
    }
    shared(text)
}

/// Of `tchar` (RFC 9110 §5.6.2) what a host name has.
const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

/// Removes what nobody may say, and what only a trusted peer may.
fn strip_claims(headers: &mut HeaderMap, peer_trusted: bool) {
    let goes = |name: &&HeaderName| {
        let name = name.as_str();
        is_alias(name) || (!peer_trusted && (is_claim(name.as_bytes()) || name == "forwarded"))
    };
    let gone: SmallVec<[HeaderName; 8]> = headers.keys().filter(goes).cloned().collect();
    for name in gone {
        headers.remove(name);
    }
}

/// Whether a name differs from a field that somebody trusts in nothing but underscores.
fn is_alias(name: &str) -> bool {
    if !name.contains('_') {
        return false;
    }
    let dashed: SmallVec<[u8; 32]> = name.bytes().map(|byte| if byte == b'_' { b'-' } else { byte }).collect();
    is_claim(&dashed)
        || matches!(
            &*dashed,
            b"x-request-id" | b"content-length" | b"content-type" | b"transfer-encoding" | b"proxy-authorization"
        )
}

fn is_claim(name: &[u8]) -> bool {
    name.starts_with(b"x-forwarded-") || name == b"x-real-ip"
}

/// Appends to the list in one line: several lines are one list (RFC 9110 §5.3), but some servers read one line only.
fn append(headers: &mut HeaderMap, name: &HeaderName, element: impl FnOnce() -> HeaderValue) {
    let element = element();
    if !headers.contains_key(name) {
        headers.insert(name, element);
        return;
    }
    let list = {
        let lines = || headers.get_all(name).iter().filter(|line| !line.is_empty());
        let length: usize = lines().map(|line| line.len() + 2).sum();
        let mut list = BytesMut::with_capacity(length + element.len());
        for line in lines() {
            list.extend_from_slice(line.as_bytes());
            list.extend_from_slice(b", ");
        }
        list.extend_from_slice(element.as_bytes());
        // valid pieces make a valid value
        HeaderValue::from_maybe_shared(list.freeze()).unwrap_or(element)
    };
    headers.insert(name, list);
}

fn keep_or_insert(headers: &mut HeaderMap, name: HeaderName, value: impl FnOnce() -> HeaderValue) {
    headers.entry(name).or_insert_with(value);
}

/// The value that holds a text of visible characters.
fn value(text: Arguments<'_>) -> HeaderValue {
    let mut written = String::with_capacity(64);
    // writing into a string can't fail
    let _ = written.write_fmt(text);
    shared(written)
}

fn shared(text: String) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
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

    fn written(peer: &str, peer_trusted: bool, host: &str, lines: &[(&'static str, &str)]) -> HeaderMap {
        let peer = Peer::new(peer.parse().expect("an address"));
        let client = if peer_trusted { IpAddr::from([203, 0, 113, 9]) } else { peer.address };
        let host = HeaderValue::from_str(host).expect("visible");
        let (scheme, version) = (Scheme::Https, Version::HTTP_2);
        let mut headers = map(lines);
        write(&mut headers, &Hop { peer: &peer, peer_trusted, client, scheme, host: &host, port: 8443, version });
        headers
    }

    const CLAIMS: [(&str, &str); 8] = [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "front.example"),
        ("x-forwarded-port", "80"),
        ("x-forwarded-prefix", "/api"),
        ("x-real-ip", "198.51.100.1"),
        ("forwarded", "for=203.0.113.9"),
        ("via", "1.1 front"),
    ];

    #[test]
    fn an_untrusted_peer_begins_anew() {
        assert_eq!(
            written("::ffff:192.0.2.1", false, "a.example:8443", &CLAIMS),
            map(&[
                ("x-forwarded-for", "192.0.2.1"),
                ("x-real-ip", "192.0.2.1"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "a.example:8443"),
                ("x-forwarded-port", "8443"),
                ("forwarded", "for=192.0.2.1;host=\"a.example:8443\";proto=https"),
                ("via", "1.1 front"),
                ("via", "2 portcullis"),
            ])
        );
    }

    #[test]
    fn a_trusted_peer_s_words_stand_and_its_lists_go_on() {
        assert_eq!(
            written("2001:db8::1", true, "a.example", &CLAIMS),
            map(&[
                ("x-forwarded-for", "203.0.113.9, 2001:db8::1"),
                ("x-forwarded-proto", "http"),
                ("x-forwarded-host", "front.example"),
                ("x-forwarded-port", "80"),
                ("x-forwarded-prefix", "/api"),
                ("x-real-ip", "203.0.113.9"),
                ("forwarded", "for=203.0.113.9, for=\"[2001:db8::1]\";host=a.example;proto=https"),
                ("via", "1.1 front"),
                ("via", "2 portcullis"),
            ])
        );
    }

    #[test]
    fn lines_of_a_list_become_one() {
        let lines = [("x-forwarded-for", "203.0.113.9"), ("x-forwarded-for", ""), ("x-forwarded-for", "10.0.0.2")];
        let headers = written("10.0.0.1", true, "a", &lines);
        assert_eq!(headers.get_all(X_FORWARDED_FOR).iter().collect::<Vec<_>>(), ["203.0.113.9, 10.0.0.2, 10.0.0.1"]);
    }

    #[test]
    fn our_port_says_nothing_of_a_proxy_that_ended_tls() {
        assert!(!written("10.0.0.1", true, "a", &[("x-forwarded-proto", "https")]).contains_key(X_FORWARDED_PORT));
        assert!(written("10.0.0.1", true, "a", &[]).contains_key(X_FORWARDED_PORT));
    }

    #[test]
    fn spellings_with_underscores_are_removed_from_everybody() {
        let lines = [
            ("x_forwarded_for", "evil"),
            ("x-forwarded_host", "evil"),
            ("x_real-ip", "evil"),
            ("x_request_id", "evil"),
            ("content_length", "5"),
            ("my_own", "kept"),
        ];
        for trusted in [true, false] {
            let headers = written("10.0.0.1", trusted, "a", &lines);
            let left: Vec<&str> = headers.keys().map(HeaderName::as_str).filter(|name| name.contains('_')).collect();
            assert_eq!(left, ["my_own"]);
        }
    }

    #[test]
    fn a_host_is_quoted_where_it_has_to_be() {
        #[track_caller]
        fn check(host: &str, element: &str) {
            assert_eq!(written("192.0.2.1", false, host, &[]).get(FORWARDED).expect("written"), element);
        }
        check("[::1]:80", "for=192.0.2.1;host=\"[::1]:80\";proto=https");
        check("a\"b", "for=192.0.2.1;proto=https");
        check("", "for=192.0.2.1;proto=https");
    }

    proptest! {
        #[test]
        fn no_claim_of_an_untrusted_peer_gets_through(name in "(x[-_](forwarded[-_](for|host|proto|by)|real[-_]ip)|forwarded)", said in "[!-~]{1,20}") {
            let mut headers = HeaderMap::new();
            let claim = format!("claim-{said}");
            headers.insert(name.parse::<HeaderName>().expect("a name"), HeaderValue::from_str(&claim).expect("visible"));
            let peer = Peer::new(IpAddr::from([192, 0, 2, 1]));
            let host = HeaderValue::from_static("a.example");
            let (scheme, version) = (Scheme::Http, Version::HTTP_11);
            let client = peer.address;
            write(&mut headers, &Hop { peer: &peer, peer_trusted: false, client, scheme, host: &host, port: 80, version });
            prop_assert!(headers.values().all(|value| !value.to_str().unwrap_or_default().contains("claim-")));
        }
    }
}
