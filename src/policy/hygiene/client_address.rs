//! Who the client is: the peer, or the address that trusted proxies vouch for.
//!
//! The list of hops is read from its end, where the nearest proxy wrote, for as long as the hops are trusted; what a
//! client wrote in front of that is its own word and is not believed. A hop that is no address ends the walk there.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};

use crate::model::prefixes::PrefixSet;
use crate::model::request::Scheme;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Hops that are looked at; a longer chain is not a deployment but an attack.
const MAX_HOPS: usize = 32;

/// What trusted proxies say of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The first address from the end that is not a trusted proxy's; IPv4-mapped IPv6 addresses are IPv4.
    pub address: IpAddr,
    /// The scheme that the outermost trusted proxy was spoken to in, where it says.
    pub scheme: Option<Scheme>,
    /// Whether the peer is a trusted proxy.
    pub peer_trusted: bool,
}

/// Finds the client. `Forwarded` (RFC 7239) is preferred when both are there, because it is the standard.
#[must_use]
pub fn find(peer: IpAddr, headers: &HeaderMap, trusted: &PrefixSet) -> Client {
    let peer = peer.to_canonical();
    if !trusted.contains(peer) {
        return Client { address: peer, scheme: None, peer_trusted: false };
    }
    let standard = headers.contains_key(FORWARDED);
    let (address, scheme) =
        if standard { by_forwarded(peer, headers, trusted) } else { by_list(peer, headers, trusted) };
    Client { address, scheme, peer_trusted: true }
}

fn by_list(peer: IpAddr, headers: &HeaderMap, trusted: &PrefixSet) -> (IpAddr, Option<Scheme>) {
    let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let hops = lines.flat_map(|line| line.to_str().unwrap_or("?").rsplit(',')).map(|hop| parse_node(hop.trim()));
    let address = walk(peer, hops, trusted);
    let scheme = headers.get(X_FORWARDED_PROTO).and_then(|scheme| parse_scheme(scheme.to_str().ok()?));
    (address, scheme)
}

fn by_forwarded(peer: IpAddr, headers: &HeaderMap, trusted: &PrefixSet) -> (IpAddr, Option<Scheme>) {
    let lines = || headers.get_all(FORWARDED).iter().rev();
    let elements = || lines().flat_map(|line| line.to_str().unwrap_or("?").rsplit(','));
    let address = walk(peer, elements().map(|element| parse_node(parameter(element, "for").unwrap_or("?"))), trusted);
    let scheme = elements().next().and_then(|element| parse_scheme(parameter(element, "proto")?));
    (address, scheme)
}

fn walk(peer: IpAddr, hops: impl Iterator<Item = Option<IpAddr>>, trusted: &PrefixSet) -> IpAddr {
    let mut address = peer;
    for hop in hops.take(MAX_HOPS) {
        let Some(hop) = hop else { break };
        address = hop.to_canonical();
        if !trusted.contains(address) {
            break;
        }
    }
    address
}

/// The value of a parameter of one `Forwarded` element, without its quotes. Commas inside quotes do not occur in the
/// values that are asked for here.
fn parameter<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    element.split(';').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
    })
}

/// An address with or without port, IPv6 with or without brackets.
fn parse_node(node: &str) -> Option<IpAddr> {
    let node = node.trim_matches('"');
    if let Ok(address) = node.parse::<IpAddr>() {
        return Some(address);
    }
    if let Ok(address) = node.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    node.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

fn parse_scheme(scheme: &str) -> Option<Scheme> {
    match scheme.trim() {
        scheme if scheme.eq_ignore_ascii_case("https") => Some(Scheme::Https),
        scheme if scheme.eq_ignore_ascii_case("http") => Some(Scheme::Http),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::prefixes;
    use http::HeaderValue;

    #[track_caller]
    fn check(peer: &str, fields: &[(&'static str, &'static str)], client: &str) {
        let trusted: PrefixSet =
            ["10.0.0.0/8", "fd00::/8"].iter().filter_map(|prefix| prefixes::parse(prefix)).collect();
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let found = find(peer.parse().expect("address"), &headers, &trusted);
        assert_eq!(found.address, client.parse::<IpAddr>().expect("address"), "{fields:?}");
    }

    #[test]
    fn nobody_is_believed_unless_trusted() {
        check("192.0.2.1", &[("x-forwarded-for", "203.0.113.9")], "192.0.2.1");
        check("192.0.2.1", &[("forwarded", "for=203.0.113.9")], "192.0.2.1");
    }

    #[test]
    fn the_walk_ends_at_the_first_untrusted_hop_from_the_end() {
        check("10.0.0.1", &[("x-forwarded-for", "1.1.1.1, 203.0.113.9, 10.0.0.2")], "203.0.113.9");
        check(
            "10.0.0.1",
            &[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "203.0.113.9, 10.0.0.2")],
            "203.0.113.9",
        );
        check("10.0.0.1", &[("x-forwarded-for", "10.0.0.3, 10.0.0.2")], "10.0.0.3");
        check("10.0.0.1", &[], "10.0.0.1");
        check("::ffff:10.0.0.1", &[("x-forwarded-for", "203.0.113.9:4711")], "203.0.113.9");
    }

    #[test]
    fn what_is_no_address_ends_the_walk() {
        check("10.0.0.1", &[("x-forwarded-for", "203.0.113.9, evil, 10.0.0.2")], "10.0.0.2");
        check("10.0.0.1", &[("x-forwarded-for", "203.0.113.9,,")], "10.0.0.1");
        check("10.0.0.1", &[("forwarded", "for=_hidden")], "10.0.0.1");
    }

    #[test]
    fn forwarded_is_preferred_and_read_with_its_quotes() {
        let both =
            [("forwarded", "for=\"[2001:db8::7]:4711\";proto=https, for=10.0.0.9"), ("x-forwarded-for", "1.1.1.1")];
        check("10.0.0.1", &both, "2001:db8::7");
    }
}
