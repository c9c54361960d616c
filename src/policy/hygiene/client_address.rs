//! Who the client is: the peer, or the address that trusted proxies vouch for.
//!
//! The list of hops is read from its end, where the nearest proxy wrote, for as long as the hops are trusted; what stands
//! in front of that is the client's own word. Everything is read from the end and as bytes: whatever a client puts in
//! front (a byte beyond ASCII, an open quote) must not spoil what a proxy appended, for then the proxy's address would
//! count, and that one is often on an access list. A hop that is no address ends the walk.
//!
//! `X-Forwarded-For` counts when it is there, else `Forwarded` (RFC 7239): nearly every proxy writes the former, and one
//! that does passes a client's `Forwarded` on as it came. A proxy that writes only `Forwarded` has to remove the other.

use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, HeaderMap, HeaderName};

use crate::model::prefixes::PrefixSet;
use crate::model::request::Scheme;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Hops that are looked at. A longer chain of trusted proxies is no deployment; the client is then the last one seen.
pub const MAX_HOPS: usize = 32;

/// What trusted proxies say of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The first address from the end that is not a trusted proxy's; an IPv4-mapped IPv6 address is IPv4.
    pub address: IpAddr,
    /// The scheme that the client spoke to the proxy that vouches for it, where that says so.
    pub scheme: Option<Scheme>,
    /// Whether the peer is a trusted proxy.
    pub peer_trusted: bool,
    list: List,
    /// Which member of the list from the end (from 0) names the client.
    hop: usize,
}

/// Where the hops were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    Untrusted,
    XForwarded,
    Forwarded,
}

/// Finds the client of a request that came from `peer`. Does not allocate.
#[must_use]
pub fn find(peer: IpAddr, headers: &HeaderMap, trusted: &PrefixSet) -> Client {
    let peer = peer.to_canonical();
    if !trusted.contains(peer) {
        return Client { address: peer, scheme: None, peer_trusted: false, list: List::Untrusted, hop: 0 };
    }
    if headers.contains_key(FORWARDED) && !headers.contains_key(X_FORWARDED_FOR) {
        let hops = members_from_end(headers, &FORWARDED).map(|element| parse_node(parameter(element, "for")?));
        let (address, hop) = walk(peer, hops, trusted);
        let scheme = forwarded_at(headers, hop, "proto").and_then(parse_scheme);
        return Client { address, scheme, peer_trusted: true, list: List::Forwarded, hop };
    }
    let hops = members_from_end(headers, &X_FORWARDED_FOR).map(parse_node);
    let (address, hop) = walk(peer, hops, trusted);
    let scheme = written_at(headers, &X_FORWARDED_PROTO, hop).and_then(parse_scheme);
    Client { address, scheme, peer_trusted: true, list: List::XForwarded, hop }
}

impl Client {
    /// The host that the client asked the proxy for that vouches for it, as written, where that says so. `headers` are
    /// those that the client was found in.
    #[must_use]
    pub fn host(self, headers: &HeaderMap) -> Option<&str> {
        let written = match self.list {
            List::Untrusted => None,
            List::XForwarded => written_at(headers, &X_FORWARDED_HOST, self.hop),
            List::Forwarded => forwarded_at(headers, self.hop, "host"),
        };
        std::str::from_utf8(written?).ok().filter(|host| !host.is_empty())
    }
}

/// The client, and which member from the end (from 0) names it.
fn walk(peer: IpAddr, hops: impl Iterator<Item = Option<IpAddr>>, trusted: &PrefixSet) -> (IpAddr, usize) {
    let mut found = (peer, 0);
    for (index, hop) in hops.take(MAX_HOPS).enumerate() {
        let Some(hop) = hop else { break };
        found = (hop.to_canonical(), index);
        if !trusted.contains(found.0) {
            break;
        }
    }
    found
}

/// The member that the proxy wrote which named the client, when each hop appended one; the first one when fewer did.
fn written_at<'h>(headers: &'h HeaderMap, name: &HeaderName, hop: usize) -> Option<&'h [u8]> {
    members_from_end(headers, name).take(hop + 1).last()
}

fn forwarded_at<'h>(headers: &'h HeaderMap, hop: usize, name: &str) -> Option<&'h [u8]> {
    parameter(members_from_end(headers, &FORWARDED).nth(hop)?, name)
}

/// The members of a list, the last line's last one first, without empty ones. Commas in quoted strings do not separate.
fn members_from_end<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> + use<'h> {
    let lines = headers.get_all(name).iter().rev();
    lines.flat_map(|line| FromEnd { rest: Some(line.as_bytes()), separator: b',' }).filter(|member| !member.is_empty())
}

/// The value of a parameter of one `Forwarded` element (RFC 7239 §4), without its quotes.
fn parameter<'a>(element: &'a [u8], name: &str) -> Option<&'a [u8]> {
    FromEnd { rest: Some(element), separator: b';' }.find_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (key, value) = pair.split_at_checked(at)?;
        key.trim_ascii().eq_ignore_ascii_case(name.as_bytes()).then(|| unquote(value.get(1..).unwrap_or_default()))
    })
}

/// Splits at a separator outside of quoted strings, from the end, so that an open quote at the beginning does no harm.
struct FromEnd<'a> {
    rest: Option<&'a [u8]>,
    separator: u8,
}

impl<'a> Iterator for FromEnd<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        let mut is_quoted = false;
        for (at, byte) in rest.iter().enumerate().rev() {
            if *byte == b'"' && !is_escaped(rest, at) {
                is_quoted = !is_quoted;
            } else if *byte == self.separator && !is_quoted {
                self.rest = rest.get(..at);
                return rest.get(at + 1..).map(<[u8]>::trim_ascii);
            }
        }
        self.rest = None;
        Some(rest.trim_ascii())
    }
}

fn is_escaped(text: &[u8], at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default();
    before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

fn unquote(value: &[u8]) -> &[u8] {
    let value = value.trim_ascii();
    value.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\"")).unwrap_or(value)
}

/// An address with or without a port, IPv6 with or without brackets.
fn parse_node(node: &[u8]) -> Option<IpAddr> {
    let node = std::str::from_utf8(unquote(node)).ok()?;
    if let Ok(address) = node.parse::<IpAddr>() {
        return Some(address);
    }
    if let Ok(address) = node.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    node.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

fn parse_scheme(scheme: &[u8]) -> Option<Scheme> {
    if scheme.eq_ignore_ascii_case(b"https") {
        Some(Scheme::Https)
    } else if scheme.eq_ignore_ascii_case(b"http") {
        Some(Scheme::Http)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::model::prefixes;

    fn trusted() -> PrefixSet {
        ["10.0.0.0/8", "fd00::/8"].iter().filter_map(|prefix| prefixes::parse(prefix)).collect()
    }

    fn map(lines: &[(&'static str, &[u8])]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &[u8])| {
            (HeaderName::from_static(name), HeaderValue::from_bytes(value).expect("a value"))
        };
        lines.iter().map(line).collect()
    }

    fn address(written: &str) -> IpAddr {
        written.parse().expect("an address")
    }

    #[track_caller]
    fn check(peer: &str, lines: &[(&'static str, &[u8])], client: &str) {
        assert_eq!(find(address(peer), &map(lines), &trusted()).address, address(client));
    }

    const XFF: &str = "x-forwarded-for";

    #[test]
    fn nobody_is_believed_who_is_not_trusted() {
        let headers =
            map(&[(XFF, b"203.0.113.9"), ("x-forwarded-proto", b"https"), ("x-forwarded-host", b"evil.example")]);
        let client = find(address("192.0.2.1"), &headers, &trusted());
        let told = (client.address, client.scheme, client.host(&headers), client.peer_trusted);
        assert_eq!(told, (address("192.0.2.1"), None, None, false));
        check("192.0.2.1", &[("forwarded", b"for=203.0.113.9")], "192.0.2.1");
    }

    #[test]
    fn the_walk_ends_at_the_first_hop_that_is_not_trusted() {
        check("10.0.0.1", &[(XFF, b"1.1.1.1, 203.0.113.9, 10.0.0.2")], "203.0.113.9");
        check("10.0.0.1", &[(XFF, b"1.1.1.1"), (XFF, b"203.0.113.9,10.0.0.2")], "203.0.113.9");
        check("10.0.0.1", &[(XFF, b"10.0.0.3, 10.0.0.2")], "10.0.0.3");
        check("10.0.0.1", &[], "10.0.0.1");
        check("::ffff:10.0.0.1", &[(XFF, b"::ffff:10.0.0.2, ::ffff:10.0.0.3")], "10.0.0.2");
        check("fd00::1", &[(XFF, b"2001:db8::9, fd00::2")], "2001:db8::9");
        check("10.0.0.1", &[(XFF, b"203.0.113.9, ,")], "203.0.113.9");
    }

    #[test]
    fn nodes_may_have_ports_brackets_and_quotes() {
        for node in ["2001:db8::9", "[2001:db8::9]", "[2001:db8::9]:4711", "\"[2001:db8::9]\""] {
            check("10.0.0.1", &[(XFF, node.as_bytes())], "2001:db8::9");
        }
        check("10.0.0.1", &[(XFF, b"203.0.113.9:4711")], "203.0.113.9");
    }

    #[test]
    fn what_is_no_address_ends_the_walk() {
        check("10.0.0.1", &[(XFF, b"203.0.113.9, unknown, 10.0.0.2")], "10.0.0.2");
        check("10.0.0.1", &[("forwarded", b"for=_hidden")], "10.0.0.1");
        check("10.0.0.1", &[("forwarded", b"proto=https")], "10.0.0.1");
    }

    #[test]
    fn nothing_that_a_client_sends_spoils_what_a_proxy_appends() {
        for garbage in [&b"\xff"[..], b"\xc3\xa9, \"", b"\"", b"for=\"", b"a\\", b"\"\\\""] {
            let line = [garbage, b", 203.0.113.9, 10.0.0.2"].concat();
            check("10.0.0.1", &[(XFF, &line)], "203.0.113.9");
            let line = [garbage, b", for=\"[2001:db8::9]\", for=10.0.0.2"].concat();
            check("10.0.0.1", &[("forwarded", &line)], "2001:db8::9");
        }
    }

    #[test]
    fn a_client_s_forwarded_does_not_outdo_a_proxy_s_x_forwarded_for() {
        check("10.0.0.1", &[("forwarded", b"for=10.0.0.66"), (XFF, b"203.0.113.9")], "203.0.113.9");
    }

    #[test]
    fn forwarded_is_read_with_its_quotes() {
        let line = b"for=1.1.1.1, For=\"[2001:db8::7]:47\";host=\"a,b\";proto=HTTPS, for=10.0.0.9;proto=http";
        let headers = map(&[("forwarded", line)]);
        let client = find(address("10.0.0.1"), &headers, &trusted());
        assert_eq!(
            (client.address, client.scheme, client.host(&headers)),
            (address("2001:db8::7"), Some(Scheme::Https), Some("a,b"))
        );
    }

    #[test]
    fn scheme_and_host_are_those_of_the_proxy_that_names_the_client() {
        #[track_caller]
        fn check(proto: &[u8], host: &[u8], expected: (Option<Scheme>, Option<&str>)) {
            let headers =
                map(&[(XFF, b"203.0.113.9, 10.0.0.2"), ("x-forwarded-proto", proto), ("x-forwarded-host", host)]);
            let client = find(address("10.0.0.1"), &headers, &trusted());
            assert_eq!((client.scheme, client.host(&headers)), expected);
        }
        check(b"https", b"a.example", (Some(Scheme::Https), Some("a.example")));
        check(b"https, http", b"a.example, inner", (Some(Scheme::Https), Some("a.example")));
        check(b"http, https, http", b"evil, a.example, inner", (Some(Scheme::Https), Some("a.example")));
        check(b"gopher", b"", (None, None));
    }

    #[test]
    fn a_chain_is_followed_for_so_many_hops() {
        let chain = (0..100).map(|n| format!("10.0.1.{n}")).collect::<Vec<_>>().join(", ");
        check("10.0.0.1", &[(XFF, chain.as_bytes())], &format!("10.0.1.{}", 100 - MAX_HOPS));
    }

    proptest! {
        #[test]
        fn a_client_can_not_choose_its_address(sent in prop::collection::vec(any::<u8>(), 0..60), proxies in 0_usize..4) {
            let mut line: Vec<u8> = sent.into_iter().filter(|byte| *byte >= 32 && *byte != 127).collect();
            line.extend_from_slice(b", 203.0.113.9");
            for _ in 0..proxies {
                line.extend_from_slice(b", 10.0.0.2");
            }
            let headers = map(&[(XFF, &line)]);
            prop_assert_eq!(find(address("10.0.0.1"), &headers, &trusted()).address, address("203.0.113.9"));
        }
    }
}
