//! Header fields: which ones belong to the connection and not to the message, and how lists in them are read and grown.
//!
//! Decides no request; policies and request hygiene share these words so that they agree.

use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE, VARY,
};

use super::diagnostic::{Diagnostic, Diagnostics};
use super::source::{SourceSpan, Spanned};

/// `Keep-Alive` (RFC 2068 §19.7.1.1).
pub const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// `Proxy-Connection`: never a standard, still sent.
pub const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// `HTTP2-Settings` (RFC 7540 §3.2.1), obsolete.
pub const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// The fields that mean one connection, or the framing of one message on it (RFC 9110 §7.6.1): the gateway writes its
/// own on either side.
pub const OF_THE_CONNECTION: [HeaderName; 11] = [
    CONNECTION,
    CONTENT_LENGTH,
    HTTP2_SETTINGS,
    KEEP_ALIVE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    PROXY_CONNECTION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Reads the name of a field that the configuration sets, adds or removes; one that means the connection is refused.
pub fn compile_name(written: &str, span: SourceSpan, diagnostics: &mut Diagnostics) -> Option<HeaderName> {
    let Ok(name) = written.parse::<HeaderName>() else {
        let help = "a field name has letters, digits and any of !#$%&'*+-.^_`|~";
        diagnostics.push(Diagnostic::error("bad_value", span, format!("not a field name: {written:?}")).help(help));
        return None;
    };
    if OF_THE_CONNECTION.contains(&name) {
        diagnostics.push(
            Diagnostic::error("reserved_field", span, format!("a field of the connection can't be changed: {name}"))
                .help("the gateway frames messages and keeps connections on either side by itself"),
        );
        return None;
    }
    Some(name)
}

/// Reads a field value that the configuration gives as it is.
pub fn compile_value(written: &Spanned<String>, diagnostics: &mut Diagnostics) -> Option<HeaderValue> {
    let value = HeaderValue::from_str(&written.value).ok();
    if value.is_none() {
        let message = format!("not a field value: {:?}", written.value);
        diagnostics.push(
            Diagnostic::error("bad_value", written.span, message)
                .help("a field value has no line break or control character"),
        );
    }
    value
}

/// The members of a comma-separated list over all lines of a field, without white space around them and without empty
/// ones (RFC 9110 §5.6.1.2). Lines that are not ASCII are left out. Does not know quoted strings.
pub fn members<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(|member| member.trim_matches([' ', '\t']))
        .filter(|member| !member.is_empty())
}

/// Names `field` in `Vary` (RFC 9110 §12.5.5), unless it or `*` stands there already.
pub fn add_vary(headers: &mut HeaderMap, field: &'static str) {
    let is_there = members(headers, &VARY).any(|member| member == "*" || member.eq_ignore_ascii_case(field));
    if !is_there {
        headers.append(VARY, HeaderValue::from_static(field));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn lists_go_on_over_several_lines() {
        let headers = headers(&[("vary", "a, ,b\t,"), ("vary", ""), ("vary", "c")]);
        assert_eq!(members(&headers, &VARY).collect::<Vec<_>>(), ["a", "b", "c"]);
    }

    #[test]
    fn vary_names_a_field_once() {
        #[track_caller]
        fn check(before: &[(&'static str, &'static str)], after: &[&str]) {
            let mut headers = headers(before);
            add_vary(&mut headers, "Origin");
            assert_eq!(headers.get_all(VARY).iter().collect::<Vec<_>>(), after);
        }
        check(&[], &["Origin"]);
        check(&[("vary", "Accept")], &["Accept", "Origin"]);
        check(&[("vary", "accept, ORIGIN")], &["accept, ORIGIN"]);
        check(&[("vary", "*")], &["*"]);
    }

    #[test]
    fn names_of_the_connection_are_refused() {
        let mut diagnostics = Diagnostics::default();
        let span = SourceSpan::default();
        for name in ["Connection", "content-length", "Upgrade", "a b", "", ":authority"] {
            assert!(compile_name(name, span, &mut diagnostics).is_none(), "{name}");
        }
        assert_eq!(diagnostics.errors(), 6);
        assert_eq!(compile_name("X-A", span, &mut diagnostics), Some(HeaderName::from_static("x-a")));
        assert!(compile_value(&Spanned::from("a\r\nb".to_owned()), &mut diagnostics).is_none());
    }
}
