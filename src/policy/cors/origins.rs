//! The origins that a CORS policy lists: exact ones, all names below a domain, `null`, or every one.
//!
//! Decides by comparing bytes, as the Fetch standard's CORS check does: browsers send an origin in one spelling only
//! (lower case, no default port, no path), so the configuration is brought into that spelling and a request is not.

use http::HeaderValue;

use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::source::Spanned;

/// A compiled list of origins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Origins {
    any: bool,
    /// Sorted.
    exact: Vec<Box<str>>,
    /// Sorted.
    below: Vec<Below>,
}

/// `scheme://*.domain:port`
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Below {
    domain: Box<str>,
    scheme: Box<str>,
    /// With the colon; empty for the scheme's default.
    port: Box<str>,
}

impl Origins {
    pub(super) fn compile(written: &Spanned<Vec<Spanned<String>>>, diagnostics: &mut Diagnostics) -> Self {
        let mut origins = Self::default();
        if written.is_empty() {
            diagnostics.push(
                Diagnostic::error("empty_list", written.span, "a CORS policy without an origin")
                    .help("to switch an inherited policy off, write `cors = false`"),
            );
        }
        for entry in &written.value {
            if let Err(help) = origins.add(entry) {
                let message = format!("not an origin: {:?}", entry.value);
                diagnostics.push(Diagnostic::error("bad_value", entry.span, message).help(help));
            }
        }
        origins.exact.sort_unstable();
        origins.below.sort_unstable();
        origins
    }

    /// Whether the answer is the same for every origin.
    pub(super) const fn is_any(&self) -> bool {
        self.any
    }

    /// The value of `Access-Control-Allow-Origin` for a request that names `origin`; `None` when it is not listed. Does
    /// not allocate. With `*` the answer never depends on the request, so that caches may share it.
    pub(super) fn grant(&self, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
        if self.any {
            return Some(HeaderValue::from_static("*"));
        }
        origin.filter(|origin| origin.to_str().is_ok_and(|origin| self.holds(origin))).cloned()
    }

    fn holds(&self, origin: &str) -> bool {
        let is_exact = self.exact.binary_search_by(|listed| (**listed).cmp(origin)).is_ok();
        is_exact || (!self.below.is_empty() && self.holds_above(origin))
    }

    /// Looks for each domain above the origin's host, from the longest on.
    fn holds_above(&self, origin: &str) -> bool {
        let Some((scheme, authority)) = origin.split_once("://") else { return false };
        let (host, port) = match authority.find(':') {
            Some(colon) => authority.split_at(colon),
            None => (authority, ""),
        };
        if !host.bytes().all(is_host_byte) || host.starts_with('.') {
            return false;
        }
        let mut rest = host;
        while let Some((_, domain)) = rest.split_once('.') {
            let key = (domain, scheme, port);
            if self.below.binary_search_by(|listed| listed.key().cmp(&key)).is_ok() {
                return true;
            }
            rest = domain;
        }
        false
    }

    fn add(&mut self, written: &str) -> Result<(), &'static str> {
        match written {
            "*" => self.any = true,
            "null" => self.exact.push("null".into()),
            _ => {
                let (scheme, authority) = written.split_once("://").ok_or("write it as \"https://app.example.com\"")?;
                self.add_tuple(&scheme.to_ascii_lowercase(), &authority.to_ascii_lowercase())?;
            }
        }
        Ok(())
    }

    fn add_tuple(&mut self, scheme: &str, authority: &str) -> Result<(), &'static str> {
        if authority.contains(['/', '?', '#', '@']) {
            return Err("an origin ends with its host or port: no path, no trailing slash, no user");
        }
        let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        if !is_scheme {
            return Err("write it as \"https://app.example.com\"");
        }
        let (host, port) = split_port(authority)?;
        let port = match (scheme, port) {
            (_, None) | ("http", Some(80)) | ("https", Some(443)) => String::new(),
            (_, Some(port)) => format!(":{port}"),
        };
        if let Some(domain) = host.strip_prefix("*.") {
            check_name(domain)?;
            self.below.push(Below { domain: domain.into(), scheme: scheme.into(), port: port.into() });
        } else {
            check_host(host)?;
            self.exact.push(format!("{scheme}://{host}{port}").into());
        }
        Ok(())
    }
}

impl Below {
    fn key(&self) -> (&str, &str, &str) {
        (&self.domain, &self.scheme, &self.port)
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), &'static str> {
    let after_address = authority.rfind(']').unwrap_or(0);
    match authority.rfind(':').filter(|colon| *colon >= after_address) {
        None => Ok((authority, None)),
        Some(colon) => {
            let (host, port) = authority.split_at(colon);
            let port = port.trim_start_matches(':').parse().ok().filter(|port| *port > 0);
            port.map(|port| (host, Some(port))).ok_or("a port is a number from 1 to 65535")
        }
    }
}

fn check_host(host: &str) -> Result<(), &'static str> {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) if address.parse::<std::net::Ipv6Addr>().is_ok() => Ok(()),
        Some(_) => Err("not an IPv6 address in the brackets"),
        None => check_name(host),
    }
}

fn check_name(name: &str) -> Result<(), &'static str> {
    if name.contains('*') {
        return Err("a wildcard stands for the first labels only: \"https://*.example.com\"");
    }
    if !name.is_ascii() {
        return Err("write an international name as browsers send it: \"https://xn--...\"");
    }
    let is_name = name.bytes().all(is_host_byte) && name.split('.').all(|label| !label.is_empty());
    is_name.then_some(()).ok_or("write it as \"https://app.example.com\"")
}

const fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compiled(list: &[&str], diagnostics: &mut Diagnostics) -> Origins {
        let list: Vec<Spanned<String>> = list.iter().map(|entry| (*entry).to_owned().into()).collect();
        Origins::compile(&list.into(), diagnostics)
    }

    #[track_caller]
    fn check(list: &[&str], origin: &str, granted: Option<&str>) {
        let mut diagnostics = Diagnostics::default();
        let origins = compiled(list, &mut diagnostics);
        assert_eq!(diagnostics.as_slice(), []);
        let origin = HeaderValue::from_str(origin).expect("visible");
        assert_eq!(origins.grant(Some(&origin)).as_ref().map(|value| value.to_str().expect("visible")), granted);
    }

    #[test]
    fn an_origin_is_compared_as_a_whole() {
        let list = ["https://app.example.com", "HTTP://Dev.example.com:80", "https://a.example:8443", "https://[::1]"];
        check(&list, "https://app.example.com", Some("https://app.example.com"));
        check(&list, "http://dev.example.com", Some("http://dev.example.com"));
        check(&list, "https://a.example:8443", Some("https://a.example:8443"));
        check(&list, "https://[::1]", Some("https://[::1]"));
        for other in [
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://app.example.com.evil.example",
            "https://a.example",
            "https://xapp.example.com",
            "null",
            "",
        ] {
            check(&list, other, None);
        }
    }

    #[test]
    fn a_wildcard_is_every_name_below_and_not_the_name() {
        let list = ["https://*.example.com", "https://*.example.org:444"];
        check(&list, "https://a.example.com", Some("https://a.example.com"));
        check(&list, "https://a.b.example.com", Some("https://a.b.example.com"));
        check(&list, "https://a.example.org:444", Some("https://a.example.org:444"));
        for other in [
            "https://example.com",
            "https://.example.com",
            "https://evilexample.com",
            "http://a.example.com",
            "https://a.example.com:444",
            "https://a.example.org",
            "https://evil.example/.example.com",
            "https://evil.example?.example.com",
            "https://user@a.example.com",
        ] {
            check(&list, other, None);
        }
    }

    #[test]
    fn null_and_any_are_only_what_is_listed() {
        check(&["null"], "null", Some("null"));
        check(&["*"], "null", Some("*"));
        check(&["*", "https://a.example"], "https://b.example", Some("*"));
    }

    #[test]
    fn what_is_no_origin_is_refused_with_a_way_out() {
        #[track_caller]
        fn check(origin: &str, help: &str) {
            let mut diagnostics = Diagnostics::default();
            compiled(&[origin], &mut diagnostics);
            let found = diagnostics.as_slice().first().and_then(|found| found.help.clone()).expect("a way out");
            assert!(found.contains(help), "{origin}: {found}");
        }
        check("app.example.com", "https://app.example.com");
        check("https://app.example.com/", "no trailing slash");
        check("https://a.*.example.com", "first labels only");
        check("https://*", "first labels only");
        check("https://bücher.example", "xn--");
        check("https://a.example:99999", "65535");
        check("https://", "https://app.example.com");
        check("https://[::x]", "IPv6");
    }

    proptest! {
        #[test]
        fn only_names_below_the_domain_are_held(scheme in "https?", host in "[a-z.]{0,12}", tail in "(\\.?example\\.com)?", end in "[a-z:/.]{0,4}") {
            let origin = format!("{scheme}://{host}{tail}{end}");
            let origins = compiled(&["https://*.example.com"], &mut Diagnostics::default());
            let value = HeaderValue::from_str(&origin).expect("visible");
            let held = origins.grant(Some(&value)).is_some();
            let label = origin.strip_prefix("https://").and_then(|rest| rest.strip_suffix(".example.com"));
            prop_assert_eq!(held, label.is_some_and(|l| !l.is_empty() && !l.starts_with('.') && l.bytes().all(is_host_byte)));
        }
    }
}
