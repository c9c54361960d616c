//! The address of an endpoint as an operator writes it: `http://host[:port]`, `https://host[:port]`, `unix:/path`.
//!
//! Strict on purpose: whatever an endpoint has no use for (a path, a query, a user) is refused and not ignored.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::model::request::Scheme;

/// A parsed address. Shows in its normal form: lower case, without the port that the scheme implies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EndpointUrl {
    /// In clear or over TLS; a unix socket is spoken to in clear.
    pub scheme: Scheme,
    /// Where that is.
    pub location: Location,
}

/// Where an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Location {
    /// An address that needs no resolving.
    Address(SocketAddr),
    /// A name in lower case that the resolver knows the addresses of. A dot at its end keeps it from being looked up
    /// in search domains.
    Name {
        /// The name as it is looked up.
        host: Arc<str>,
        /// The port on each of its addresses.
        port: u16,
    },
    /// A unix socket's absolute path.
    Unix(Arc<str>),
}

/// Why an address was refused, and the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlError {
    /// Lower case, ends with what was written.
    pub message: String,
    /// How to mend it.
    pub help: Option<&'static str>,
}

/// The longest path that fits in `sockaddr_un` (108 bytes with the final NUL, unix(7)).
const UNIX_PATH_MAX: usize = 107;
/// The longest name without a final dot (RFC 1035 §2.3.4, in its textual form).
const NAME_MAX: usize = 253;

impl EndpointUrl {
    /// Reads an address.
    pub fn parse(written: &str) -> Result<Self, UrlError> {
        if let Some(path) = written.strip_prefix("unix:") {
            return unix(written, path);
        }
        let Some((scheme, rest)) = written.split_once("://") else {
            let help = "write http://HOST:PORT, https://HOST:PORT or unix:/PATH";
            return refuse(format!("not the address of an endpoint: {written:?}"), help);
        };
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "h2c" | "grpc" => {
                let help = "write http:// and set protocol = \"h2\" in [upstream.NAME]";
                return refuse(format!("unknown scheme: {written:?}"), help);
            }
            _ => return refuse(format!("unknown scheme: {written:?}"), "the schemes are http, https and unix"),
        };
        // a lone slash is the empty path (RFC 3986 §6.2.3)
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            let help = "an endpoint is a scheme, a host and a port; change paths with `rewrite` on the route";
            return refuse(format!("an endpoint has no path, query or fragment: {written:?}"), help);
        }
        if authority.contains('@') {
            let help =
                "send credentials with `headers = { request = { set = { authorization = \"...\" } } }` on the route";
            return refuse("an endpoint's address has no user or password".into(), help);
        }
        let (host, port) = split_port(written, authority)?;
        let port = port.unwrap_or(scheme.default_port());
        Ok(Self { scheme, location: locate(written, host, port)? })
    }

    /// The host without brackets and without a final dot: what the server's certificate is checked against.
    /// `localhost` for a unix socket.
    #[must_use]
    pub fn host(&self) -> Arc<str> {
        match &self.location {
            Location::Address(address) => address.ip().to_string().into(),
            Location::Name { host, .. } => host.trim_end_matches('.').into(),
            Location::Unix(_) => "localhost".into(),
        }
    }

    /// Host and port as they stand in a `Host` field (RFC 9110 §7.2): without the port that the scheme implies.
    #[must_use]
    pub fn authority(&self) -> Arc<str> {
        let (host, port) = match &self.location {
            Location::Address(SocketAddr::V4(address)) => (address.ip().to_string().into(), address.port()),
            Location::Address(SocketAddr::V6(address)) => (format!("[{}]", address.ip()).into(), address.port()),
            Location::Name { port, .. } => (self.host(), *port),
            Location::Unix(_) => return "localhost".into(),
        };
        if port == self.scheme.default_port() { host } else { format!("{host}:{port}").into() }
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            Location::Unix(path) => write!(f, "unix:{path}"),
            _ => write!(f, "{}://{}", self.scheme.as_str(), self.authority()),
        }
    }
}

fn refuse<T>(message: String, help: &'static str) -> Result<T, UrlError> {
    Err(UrlError { message, help: Some(help) })
}

fn unix(written: &str, path: &str) -> Result<EndpointUrl, UrlError> {
    // unix:///path is the same place with an empty authority
    let path = path.strip_prefix("//").unwrap_or(path);
    if !path.starts_with('/') || path.len() == 1 {
        return refuse(format!("not the absolute path of a socket: {written:?}"), "write unix:/run/app.sock");
    }
    if path.len() > UNIX_PATH_MAX {
        return refuse(
            format!("longer than the {UNIX_PATH_MAX} bytes of a socket's path: {written:?}"),
            "use a shorter path",
        );
    }
    if path.contains('\0') {
        return refuse(format!("a path without NUL was expected: {written:?}"), "write unix:/run/app.sock");
    }
    Ok(EndpointUrl { scheme: Scheme::Http, location: Location::Unix(path.into()) })
}

fn split_port<'a>(written: &str, authority: &'a str) -> Result<(&'a str, Option<u16>), UrlError> {
    let host_end = authority.rfind(']').unwrap_or(0);
    let Some(colon) = authority.rfind(':').filter(|colon| *colon >= host_end) else { return Ok((authority, None)) };
    let (host, port) = authority.split_at_checked(colon).unwrap_or((authority, ""));
    let digits = port.strip_prefix(':').unwrap_or(port);
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u16>().ok()).flatten();
    match number {
        Some(port) if port > 0 => Ok((host, Some(port))),
        _ if host.contains(':') && !host.starts_with('[') => {
            refuse(format!("an IPv6 address stands in brackets: {written:?}"), "write http://[::1]:3000")
        }
        _ => refuse(format!("not a port: {written:?}"), "a port is a number from 1 to 65535"),
    }
}

fn locate(written: &str, host: &str, port: u16) -> Result<Location, UrlError> {
    let address = |ip: IpAddr| Location::Address(SocketAddr::new(ip, port));
    if let Some(inner) = host.strip_prefix('[') {
        return match inner.strip_suffix(']').and_then(|inner| inner.parse::<Ipv6Addr>().ok()) {
            Some(ip) => Ok(address(ip.into())),
            None => refuse(format!("not an IPv6 address: {written:?}"), "write http://[::1]:3000, without a zone"),
        };
    }
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Ok(address(ip.into()));
    }
    let host = host.to_ascii_lowercase();
    check_name(written, host.strip_suffix('.').unwrap_or(&host))?;
    Ok(Location::Name { host: host.into(), port })
}

fn check_name(written: &str, name: &str) -> Result<(), UrlError> {
    if name.is_empty() {
        return refuse(format!("an endpoint without a host: {written:?}"), "write http://HOST:PORT");
    }
    if name.contains(':') {
        return refuse(format!("an IPv6 address stands in brackets: {written:?}"), "write http://[::1]:3000");
    }
    if !name.is_ascii() {
        return refuse(format!("a host name outside ASCII: {written:?}"), "write its punycode form, xn--...");
    }
    // underscores are no part of host names (RFC 952), but Docker Compose and SRV-like names have them
    let label_fits = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > NAME_MAX || !name.split('.').all(label_fits) {
        return refuse(format!("not a host name: {written:?}"), "labels of letters, digits and `-`, separated by dots");
    }
    // what ends in a number was meant to be an IPv4 address: resolvers disagree on `10.1` and `0x7f.1`
    let last = name.rsplit('.').next().unwrap_or(name);
    let numeric = last.bytes().all(|byte| byte.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if numeric {
        return refuse(format!("not an IPv4 address: {written:?}"), "write all four numbers, as in 10.0.0.1");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(written: &str, expected: Result<(&str, &str, &str), &str>) {
        match (EndpointUrl::parse(written), expected) {
            (Ok(url), Ok(expected)) => {
                assert_eq!((url.to_string().as_str(), &*url.authority(), &*url.host()), expected);
            }
            (Err(error), Err(part)) => assert!(error.message.contains(part), "{written}: {error:?}"),
            (Ok(url), Err(part)) => panic!("{written} was read as {url}, expected an error with {part:?}"),
            (Err(error), Ok(_)) => panic!("{written} was refused: {error:?}"),
        }
    }

    #[test]
    fn an_address_is_a_scheme_a_host_and_a_port() {
        check("http://127.0.0.1:3000", Ok(("http://127.0.0.1:3000", "127.0.0.1:3000", "127.0.0.1")));
        check("HTTP://Api.Example.COM/", Ok(("http://api.example.com", "api.example.com", "api.example.com")));
        check("https://api.internal.:443", Ok(("https://api.internal", "api.internal", "api.internal")));
        check("https://[2001:DB8::1]", Ok(("https://[2001:db8::1]", "[2001:db8::1]", "2001:db8::1")));
        check("http://[::1]:8080", Ok(("http://[::1]:8080", "[::1]:8080", "::1")));
        check("http://my_service:80", Ok(("http://my_service", "my_service", "my_service")));
        check("unix:/run/app.sock", Ok(("unix:/run/app.sock", "localhost", "localhost")));
        check("unix:///run/app.sock", Ok(("unix:/run/app.sock", "localhost", "localhost")));
    }

    #[test]
    fn what_an_endpoint_has_no_use_for_is_refused() {
        check("http://a/v2", Err("no path"));
        check("http://a//", Err("no path"));
        check("http://a?x=1", Err("no path, query"));
        check("http://a#x", Err("fragment"));
        check("http://user:secret@a", Err("no user or password"));
    }

    #[test]
    fn a_secret_in_an_address_is_not_repeated() {
        let error = EndpointUrl::parse("http://user:secret@a").expect_err("credentials are refused");
        assert!(!format!("{error:?}").contains("secret"));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        check("127.0.0.1:3000", Err("not the address"));
        check("ftp://a", Err("unknown scheme"));
        check("h2c://a", Err("unknown scheme"));
        check("http://", Err("without a host"));
        check("http://:80", Err("without a host"));
        check("http://a:", Err("not a port"));
        check("http://a:0", Err("not a port"));
        check("http://a:65536", Err("not a port"));
        check("http://a:+80", Err("not a port"));
        check("http://::1", Err("brackets"));
        check("http://::1:x", Err("brackets"));
        check("http://[::1", Err("not an IPv6"));
        check("http://[::1]x", Err("not an IPv6"));
        check("http://[fe80::1%eth0]", Err("not an IPv6"));
        check("http://10.1", Err("not an IPv4"));
        check("http://0x7f.0x1", Err("not an IPv4"));
        check("http://256.1.1.1", Err("not an IPv4"));
        check("http://bücher.example", Err("outside ASCII"));
        check("http://a b", Err("not a host name"));
        check("http://a..b", Err("not a host name"));
        check("http://-a", Err("not a host name"));
        check(&format!("http://{}", "a.".repeat(150)), Err("not a host name"));
        check("unix:run/app.sock", Err("absolute path"));
        check("unix:/", Err("absolute path"));
        check(&format!("unix:/{}", "x".repeat(107)), Err("107 bytes"));
    }
}
