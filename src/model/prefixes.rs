//! Sets of IP addresses, as access lists and trusted proxies write them: `"10.0.0.0/8"`, `"2001:db8::/32"`, `"10.6.6.6"`.
//!
//! Decides whether an address is in a set, in logarithmic time and without allocating. An IPv4-mapped IPv6 address
//! (`::ffff:10.0.0.1`) is its IPv4 address, in the set and in the question: a socket that serves both families must not
//! slip past a list. Never resolves a name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::diagnostic::{Diagnostic, Diagnostics};
use super::source::Spanned;

/// A set of prefixes. Two prefixes are nested or disjoint, so the widest ones, sorted, answer by binary search.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PrefixSet {
    v4: Box<[Ipv4Net]>,
    v6: Box<[Ipv6Net]>,
}

impl PrefixSet {
    /// Reads a list as an operator wrote it; every entry that is neither a prefix nor an address is an error, and one
    /// with address bits behind the prefix length is a warning.
    #[must_use]
    pub fn compile(written: &[Spanned<String>], diagnostics: &mut Diagnostics) -> Self {
        written.iter().filter_map(|entry| read(entry, diagnostics)).collect()
    }

    /// The widest prefix of the set that holds `address`.
    #[must_use]
    pub fn find(&self, address: IpAddr) -> Option<IpNet> {
        match address.to_canonical() {
            IpAddr::V4(address) => find_v4(&self.v4, address).map(IpNet::V4),
            IpAddr::V6(address) => find_v6(&self.v6, address).map(IpNet::V6),
        }
    }

    /// Whether the set holds `address`.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.find(address).is_some()
    }

    /// The prefix of the set that holds all of `other`.
    #[must_use]
    pub fn covering(&self, other: IpNet) -> Option<IpNet> {
        let other = canonical(other);
        self.find(other.network()).filter(|wide| wide.prefix_len() <= other.prefix_len())
    }

    /// Whether it holds no address at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

impl FromIterator<IpNet> for PrefixSet {
    fn from_iter<I: IntoIterator<Item = IpNet>>(prefixes: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for prefix in prefixes {
            match canonical(prefix) {
                IpNet::V4(prefix) => v4.push(prefix),
                IpNet::V6(prefix) => v6.push(prefix),
            }
        }
        // The wider of two prefixes with one network address comes first, and swallows all that follow inside it.
        v4.sort_unstable_by_key(|prefix| (prefix.network(), prefix.prefix_len()));
        v4.dedup_by(|later, kept| kept.contains(&*later));
        v6.sort_unstable_by_key(|prefix| (prefix.network(), prefix.prefix_len()));
        v6.dedup_by(|later, kept| kept.contains(&*later));
        Self { v4: v4.into(), v6: v6.into() }
    }
}

/// A prefix, or an address as the prefix that holds it alone.
#[must_use]
pub fn parse(written: &str) -> Option<IpNet> {
    let written = written.trim();
    written.parse::<IpNet>().ok().or_else(|| written.parse::<IpAddr>().ok().map(IpNet::from))
}

fn read(entry: &Spanned<String>, diagnostics: &mut Diagnostics) -> Option<IpNet> {
    let Some(prefix) = parse(entry) else {
        diagnostics.push(
            Diagnostic::error("bad_value", entry.span, format!("not an address or a prefix: {:?}", entry.value))
                .help("write \"10.0.0.0/8\", \"2001:db8::/32\" or a single address such as \"192.0.2.7\""),
        );
        return None;
    };
    if prefix.addr() != prefix.network() {
        diagnostics.push(
            Diagnostic::warning(
                "loose_prefix",
                entry.span,
                format!("bits behind the prefix length: {:?}", entry.value),
            )
            .help(format!("it means \"{}\"", prefix.trunc())),
        );
    }
    Some(prefix)
}

/// The prefix without bits behind its length; one below `::ffff:0:0/96` as the IPv4 prefix that it is.
fn canonical(prefix: IpNet) -> IpNet {
    const MAPPED_BITS: u8 = 96;
    if let IpNet::V6(v6) = prefix
        && let Some(length) = v6.prefix_len().checked_sub(MAPPED_BITS)
        && let Some(address) = v6.addr().to_ipv4_mapped()
        && let Ok(v4) = Ipv4Net::new(address, length)
    {
        return IpNet::V4(v4.trunc());
    }
    prefix.trunc()
}

fn find_v4(sorted: &[Ipv4Net], address: Ipv4Addr) -> Option<Ipv4Net> {
    let after = sorted.partition_point(|prefix| prefix.network() <= address);
    sorted.get(after.checked_sub(1)?).copied().filter(|prefix| prefix.contains(&address))
}

fn find_v6(sorted: &[Ipv6Net], address: Ipv6Addr) -> Option<Ipv6Net> {
    let after = sorted.partition_point(|prefix| prefix.network() <= address);
    sorted.get(after.checked_sub(1)?).copied().filter(|prefix| prefix.contains(&address))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(written: &[&str]) -> PrefixSet {
        written.iter().map(|prefix| parse(prefix).expect("a prefix")).collect()
    }

    #[track_caller]
    fn check(written: &[&str], address: &str, found: Option<&str>) {
        let found = found.map(|prefix| prefix.parse::<IpNet>().expect("a prefix"));
        assert_eq!(set(written).find(address.parse().expect("an address")), found, "{address} in {written:?}");
    }

    #[test]
    fn finds_the_widest_prefix() {
        let list = ["10.1.0.0/16", "10.0.0.0/8", "10.1.2.3", "192.0.2.0/24", "2001:db8::/32"];
        check(&list, "10.1.2.3", Some("10.0.0.0/8"));
        check(&list, "192.0.2.255", Some("192.0.2.0/24"));
        check(&list, "192.0.3.0", None);
        check(&list, "9.255.255.255", None);
        check(&list, "2001:db8:1::1", Some("2001:db8::/32"));
        check(&list, "2001:db9::", None);
        check(&[], "10.0.0.1", None);
        check(&["0.0.0.0/0"], "255.255.255.255", Some("0.0.0.0/0"));
    }

    #[test]
    fn a_mapped_address_is_its_ipv4_address() {
        check(&["10.0.0.0/8"], "::ffff:10.0.0.1", Some("10.0.0.0/8"));
        check(&["::ffff:10.0.0.0/104"], "10.2.0.1", Some("10.0.0.0/8"));
        check(&["::ffff:10.0.0.1"], "10.0.0.1", Some("10.0.0.1/32"));
        check(&["::/0"], "10.0.0.1", None);
        check(&["::/0"], "::1", Some("::/0"));
    }

    #[test]
    fn says_what_covers_a_prefix() {
        let list = set(&["10.0.0.0/8"]);
        let covering = |prefix: &str| list.covering(parse(prefix).expect("a prefix")).is_some();
        assert!(covering("10.3.0.0/16") && covering("10.0.0.0/8"));
        assert!(!covering("10.0.0.0/7") && !covering("11.0.0.1") && !covering("::/0"));
    }

    #[test]
    fn mistakes_are_reported_at_their_place() {
        let mut diagnostics = Diagnostics::default();
        let written = ["10.0.0.0/33", "example.com", "10.0.0.1/8", "::1"].map(|entry| Spanned::from(entry.to_owned()));
        let set = PrefixSet::compile(&written, &mut diagnostics);
        assert_eq!((diagnostics.errors(), diagnostics.as_slice().len()), (2, 3));
        assert!(set.contains("10.9.9.9".parse().expect("an address")));
    }

    proptest! {
        #[test]
        fn agrees_with_a_linear_search(
            prefixes in prop::collection::vec((any::<u32>(), 0_u8..=32), 0..40),
            v6 in prop::collection::vec((any::<u128>(), 0_u8..=128), 0..20),
            near in prop::collection::vec(any::<prop::sample::Index>(), 8),
            far in any::<u32>(),
        ) {
            let nets: Vec<IpNet> = prefixes.iter()
                .filter_map(|(bits, length)| Ipv4Net::new(Ipv4Addr::from(*bits), *length).ok().map(IpNet::V4))
                .chain(v6.iter().filter_map(|(bits, length)| Ipv6Net::new(Ipv6Addr::from(*bits), *length).ok().map(IpNet::V6)))
                .collect();
            let set: PrefixSet = nets.iter().copied().collect();
            let edges = near.iter().filter(|_| !nets.is_empty()).flat_map(|index| {
                let net = index.get(&nets);
                [net.network(), net.broadcast()]
            });
            for address in edges.chain([IpAddr::V4(Ipv4Addr::from(far)), IpAddr::V6(Ipv6Addr::from(u128::from(far) << 96))]) {
                let linear = nets.iter().any(|net| canonical(*net).contains(&address.to_canonical()));
                prop_assert_eq!(set.contains(address), linear);
            }
        }
    }
}
