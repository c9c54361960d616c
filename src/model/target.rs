//! Paths and queries that the gateway itself writes, into a request line or a `Location`.
//!
//! Whatever the pieces came from (a client's path, a capture of a regular expression, the configuration), what is
//! written is a valid origin form (RFC 9112 §3.2.1): it begins with exactly one `/`, so that nobody reads it as
//! `//authority`; a byte that has no place in a path or query is percent-encoded, `\` included, which browsers take for
//! `/`. Never decodes anything and never resolves a dot segment: it only says whether there is one.

/// Replaces the first `matched` bytes of `path`, whole segments of it, by `prefix`.
///
/// The results are those of the Gateway API's table: a trailing slash of either prefix makes no difference, and the
/// result is never empty. A `matched` that is no boundary of `path` counts as its whole length.
#[must_use]
pub fn replace_prefix(path: &str, matched: usize, prefix: &str) -> String {
    let rest = path.get(matched..).unwrap_or_default();
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    let mut target = String::with_capacity(prefix.len() + rest.len() + 1);
    push_path(&mut target, prefix);
    if !rest.is_empty() && !rest.starts_with('/') {
        push_path(&mut target, "/");
    }
    push_path(&mut target, rest);
    if target.is_empty() {
        target.push('/');
    }
    target
}

/// Appends a piece of a path. At the beginning of `target` it makes sure of the one slash.
pub fn push_path(target: &mut String, piece: &str) {
    let at_start = target.is_empty() || target == "/";
    if at_start && !piece.is_empty() {
        target.clear();
        target.push('/');
    }
    let piece = if at_start { piece.trim_start_matches(['/', '\\']) } else { piece };
    push_encoded(target, piece, is_path_byte);
}

/// Appends a query without its `?` (RFC 3986 §3.4).
pub fn push_query(target: &mut String, query: &str) {
    push_encoded(target, query, |byte| is_path_byte(byte) || byte == b'?');
}

/// Whether a segment of `path` is `.` or `..`, also with percent-encoded dots.
#[must_use]
pub fn has_dot_segment(path: &str) -> bool {
    path.split('/').any(|segment| {
        let mut dots = 0;
        let mut rest = segment;
        while let Some(after) = rest.strip_prefix('.').or_else(|| strip_encoded_dot(rest)) {
            dots += 1;
            rest = after;
        }
        rest.is_empty() && (dots == 1 || dots == 2)
    })
}

fn strip_encoded_dot(text: &str) -> Option<&str> {
    text.strip_prefix("%2e").or_else(|| text.strip_prefix("%2E"))
}

fn push_encoded(target: &mut String, piece: &str, is_allowed: impl Fn(u8) -> bool) {
    const HEX: [u8; 16] = *b"0123456789ABCDEF";
    let mut rest = piece.as_bytes();
    while let [byte, after @ ..] = rest {
        let is_triplet = matches!(rest, [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit());
        if is_triplet || is_allowed(*byte) {
            target.push(char::from(*byte));
        } else {
            target.push('%');
            for nibble in [byte >> 4, byte & 0xf] {
                target.push(char::from(HEX.get(usize::from(nibble)).copied().unwrap_or(b'0')));
            }
        }
        rest = after;
    }
}

/// `pchar` and `/` of RFC 3986 §3.3, without `%`.
const fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
                | b':'
                | b'@'
                | b'/'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(path: &str, matched: &str, prefix: &str, target: &str) {
        assert_eq!(replace_prefix(path, matched.len(), prefix), target, "{path} with {matched} as {prefix}");
    }

    #[test]
    fn replaces_prefixes_as_the_gateway_api_does() {
        check("/foo/bar", "/foo", "/xyz", "/xyz/bar");
        check("/foo/bar", "/foo", "/xyz/", "/xyz/bar");
        check("/foo/bar", "/foo/", "/xyz", "/xyz/bar");
        check("/foo/bar", "/foo/", "/xyz/", "/xyz/bar");
        check("/foo", "/foo", "/xyz", "/xyz");
        check("/foo/", "/foo", "/xyz", "/xyz/");
        check("/foo/bar", "/foo", "", "/bar");
        check("/foo/", "/foo", "", "/");
        check("/foo", "/foo", "", "/");
        check("/foo/", "/foo", "/", "/");
        check("/foo", "/foo", "/", "/");
        check("/orders/7", "", "/v2", "/v2/orders/7");
    }

    #[test]
    fn never_writes_two_slashes_at_the_beginning() {
        check("/a//evil.example", "/a", "/", "/evil.example");
        check("/a/\\evil.example", "/a", "", "/evil.example");
        check("/a//b", "/a", "/x", "/x//b");
        check("//evil.example", "", "", "/evil.example");
    }

    #[test]
    fn encodes_what_a_path_can_not_hold() {
        let mut target = String::new();
        push_path(&mut target, "/a b\r\n\\é%41%4x#?");
        assert_eq!(target, "/a%20b%0D%0A%5C%C3%A9%41%254x%23%3F");
        target.push('?');
        push_query(&mut target, "q=a b?#\"");
        assert!(target.ends_with("?q=a%20b?%23%22"), "{target}");
    }

    #[test]
    fn knows_a_dot_segment() {
        for path in ["/a/..", "/./a", "/a/%2E./b", "/%2e%2e"] {
            assert!(has_dot_segment(path), "{path}");
        }
        for path in ["/a/...", "/.a", "/a..", "/..b/", "/%2e%2e%2e", "/"] {
            assert!(!has_dot_segment(path), "{path}");
        }
    }

    proptest! {
        #[test]
        fn the_result_is_always_an_origin_form(path in ".{0,40}", matched in 0_usize..12, prefix in ".{0,20}", query in ".{0,20}") {
            let mut target = replace_prefix(&format!("/{path}"), matched, &prefix);
            prop_assert!(target.starts_with('/') && !target.starts_with("//"), "{}", target);
            target.push('?');
            push_query(&mut target, &query);
            prop_assert!(target.parse::<http::uri::PathAndQuery>().is_ok(), "{}", target);
            prop_assert!(target.bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }
}
