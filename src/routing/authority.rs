//! The authority of a request: `Host`, `:authority` or the one of an absolute-form target (RFC 9110 §7.2).
//!
//! Decides the host in the one spelling that routes are matched by, and the port; refuses what two parsers could read
//! differently. It is stricter than RFC 3986's `reg-name`: letters, digits, `-`, `_` and dots, no percent-encoding.
//! It never resolves a name and never compares one authority with another.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::net::Ipv6Addr;

/// Longest host name (RFC 1035 §2.3.4, without the trailing dot).
pub const MAX_HOST: usize = 253;
/// Longest label of a host name.
pub const MAX_LABEL: usize = 63;

/// Host and port, apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority<'a> {
    /// Lower case, without a trailing dot; IPv6 in brackets and in the form of RFC 5952. Never empty. Borrowed when
    /// that is how it was written.
    pub host: Cow<'a, str>,
    /// The port, where one was written.
    pub port: Option<u16>,
}

/// Why an authority is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthorityRefusal {
    /// No host.
    Empty,
    /// `user@`: deprecated, and a favourite of phishing (RFC 9110 §4.2.4).
    UserInfo,
    /// A character that no host name has.
    BadCharacter,
    /// An empty label, or one longer than [`MAX_LABEL`].
    BadLabel,
    /// Longer than [`MAX_HOST`].
    TooLong,
    /// Brackets without an IPv6 address in them; zone identifiers are refused too.
    BadIpv6,
    /// Not a number from 1 to 65535.
    BadPort,
}

impl AuthorityRefusal {
    /// Why it is refused: lower case, no full stop.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "the host is empty",
            Self::UserInfo => "the authority has user information",
            Self::BadCharacter => "the host has a character that no host name has",
            Self::BadLabel => "the host has a label that is empty or longer than 63 characters",
            Self::TooLong => "the host is longer than 253 characters",
            Self::BadIpv6 => "the host is not an IPv6 address in brackets",
            Self::BadPort => "the port is not a number from 1 to 65535",
        }
    }
}

/// Takes `raw` apart.
pub fn parse(raw: &[u8]) -> Result<Authority<'_>, AuthorityRefusal> {
    let text = std::str::from_utf8(raw).map_err(|_| AuthorityRefusal::BadCharacter)?;
    if text.contains('@') {
        return Err(AuthorityRefusal::UserInfo);
    }
    if let Some(inner) = text.strip_prefix('[') {
        let (address, after) = inner.split_once(']').ok_or(AuthorityRefusal::BadIpv6)?;
        let bracketed = text.strip_suffix(after).ok_or(AuthorityRefusal::BadIpv6)?;
        let port = match after.strip_prefix(':') {
            Some(digits) => port(digits)?,
            None if after.is_empty() => None,
            None => return Err(AuthorityRefusal::BadPort),
        };
        return Ok(Authority { host: ipv6(bracketed, address)?, port });
    }
    let (host, port) = match text.split_once(':') {
        Some((host, digits)) => (host, port(digits)?),
        None => (text, None),
    };
    Ok(Authority { host: name(host)?, port })
}

fn name(written: &str) -> Result<Cow<'_, str>, AuthorityRefusal> {
    if written.is_empty() {
        return Err(AuthorityRefusal::Empty);
    }
    let name = written.strip_suffix('.').unwrap_or(written);
    if name.len() > MAX_HOST {
        return Err(AuthorityRefusal::TooLong);
    }
    let mut upper = false;
    let mut label = 0_usize;
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => label += 1,
            b'A'..=b'Z' => {
                upper = true;
                label += 1;
            }
            b'.' if (1..=MAX_LABEL).contains(&label) => label = 0,
            b'.' => return Err(AuthorityRefusal::BadLabel),
            _ => return Err(AuthorityRefusal::BadCharacter),
        }
    }
    if !(1..=MAX_LABEL).contains(&label) {
        return Err(AuthorityRefusal::BadLabel);
    }
    Ok(if upper { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) })
}

fn ipv6<'a>(bracketed: &'a str, address: &str) -> Result<Cow<'a, str>, AuthorityRefusal> {
    let address: Ipv6Addr = address.parse().map_err(|_| AuthorityRefusal::BadIpv6)?;
    let mut unread = Expect(bracketed);
    if write!(unread, "[{address}]").is_ok() && unread.0.is_empty() {
        return Ok(Cow::Borrowed(bracketed));
    }
    Ok(Cow::Owned(format!("[{address}]")))
}

/// Compares what is written into it with a text, so that a canonical address costs no allocation.
struct Expect<'a>(&'a str);

impl fmt::Write for Expect<'_> {
    fn write_str(&mut self, written: &str) -> fmt::Result {
        self.0 = self.0.strip_prefix(written).ok_or(fmt::Error)?;
        Ok(())
    }
}

/// `host:` without digits is the same as no port (RFC 3986 §6.2.3).
fn port(digits: &str) -> Result<Option<u16>, AuthorityRefusal> {
    if digits.is_empty() {
        return Ok(None);
    }
    if digits.len() > 5 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(AuthorityRefusal::BadPort);
    }
    match digits.parse() {
        Ok(0) | Err(_) => Err(AuthorityRefusal::BadPort),
        Ok(port) => Ok(Some(port)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(raw: &str, expected: Result<(&str, Option<u16>), AuthorityRefusal>) {
        let parsed = parse(raw.as_bytes());
        assert_eq!(
            parsed.as_ref().map(|authority| (authority.host.as_ref(), authority.port)).map_err(|refusal| *refusal),
            expected
        );
        if let Ok(authority) = &parsed {
            assert_eq!(
                matches!(authority.host, Cow::Borrowed(_)),
                raw.starts_with(authority.host.as_ref()),
                "borrowed: {raw}"
            );
        }
    }

    #[test]
    fn host_names_are_lower_case_without_a_trailing_dot() {
        check("api.example.com", Ok(("api.example.com", None)));
        check("API.Example.com", Ok(("api.example.com", None)));
        check("api.example.com.", Ok(("api.example.com", None)));
        check("API.example.com.:8080", Ok(("api.example.com", Some(8080))));
        check("localhost:80", Ok(("localhost", Some(80))));
        check("my_service", Ok(("my_service", None)));
        check("127.0.0.1:1", Ok(("127.0.0.1", Some(1))));
        check("a:", Ok(("a", None)));
    }

    #[test]
    fn ipv6_is_in_brackets_and_in_its_shortest_form() {
        check("[::1]", Ok(("[::1]", None)));
        check("[::1]:8080", Ok(("[::1]", Some(8080))));
        check("[0:0:0:0:0:0:0:1]:80", Ok(("[::1]", Some(80))));
        check("[2001:DB8::A]", Ok(("[2001:db8::a]", None)));
        check("[::ffff:1.2.3.4]", Ok(("[::ffff:1.2.3.4]", None)));
        check("::1", Err(AuthorityRefusal::BadPort));
        check("[::1", Err(AuthorityRefusal::BadIpv6));
        check("[]", Err(AuthorityRefusal::BadIpv6));
        check("[1.2.3.4]", Err(AuthorityRefusal::BadIpv6));
        check("[fe80::1%25eth0]", Err(AuthorityRefusal::BadIpv6));
        check("[v1.a]", Err(AuthorityRefusal::BadIpv6));
        check("[::1]x", Err(AuthorityRefusal::BadPort));
        check("[::1]]", Err(AuthorityRefusal::BadPort));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        check("", Err(AuthorityRefusal::Empty));
        check(":80", Err(AuthorityRefusal::Empty));
        check(".", Err(AuthorityRefusal::BadLabel));
        check("a..b", Err(AuthorityRefusal::BadLabel));
        check(".a", Err(AuthorityRefusal::BadLabel));
        check("a..", Err(AuthorityRefusal::BadLabel));
        check(&"a".repeat(64), Err(AuthorityRefusal::BadLabel));
        check(&"ab.".repeat(85), Err(AuthorityRefusal::TooLong));
        check("user@host", Err(AuthorityRefusal::UserInfo));
        check("a b", Err(AuthorityRefusal::BadCharacter));
        check("a/b", Err(AuthorityRefusal::BadCharacter));
        check("a,b", Err(AuthorityRefusal::BadCharacter));
        check("%61", Err(AuthorityRefusal::BadCharacter));
        check("é", Err(AuthorityRefusal::BadCharacter));
        check("a:0", Err(AuthorityRefusal::BadPort));
        check("a:65536", Err(AuthorityRefusal::BadPort));
        check("a:+80", Err(AuthorityRefusal::BadPort));
        check("a:80:80", Err(AuthorityRefusal::BadPort));
        check("a:000080", Err(AuthorityRefusal::BadPort));
    }

    proptest! {
        #[test]
        fn the_canonical_host_is_a_fixed_point(raw in "[a-zA-Z0-9._:\\[\\]@-]{0,40}") {
            if let Ok(authority) = parse(raw.as_bytes()) {
                prop_assert!(!authority.host.is_empty() && authority.host.is_ascii());
                let again = parse(authority.host.as_bytes()).expect("a canonical host is accepted");
                prop_assert_eq!(again, Authority { host: Cow::Borrowed(authority.host.as_ref()), port: None });
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(raw in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&raw);
        }
    }
}
