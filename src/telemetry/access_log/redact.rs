//! Hides the values of query parameters that look like credentials. Their names are written.

use super::text::{Escape, bounded, push_cut};
use crate::model::credential::is_credential;

/// What stands in the place of a value.
const REDACTED: &[u8] = b"[redacted]";

/// Writes at most `most` bytes of a path and query or of a URL, with the values of credentials hidden.
pub(super) fn push_target(out: &mut Vec<u8>, target: &[u8], most: usize, escape: Escape) {
    let (head, cut) = bounded(target, most);
    let (path, query) = split_query(head);
    escape.push(out, path);
    if let Some(query) = query {
        out.push(b'?');
        push_query(out, query, escape);
    }
    push_cut(out, cut);
}

/// Path and query, which begins after the first `?`.
pub(super) fn split_query(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut parts = target.splitn(2, |byte| *byte == b'?');
    (parts.next().unwrap_or_default(), parts.next())
}

/// Writes a query with the values of credentials hidden.
pub(super) fn push_query(out: &mut Vec<u8>, query: &[u8], escape: Escape) {
    for parameter in query.split_inclusive(|byte| matches!(byte, b'&' | b';')) {
        let mut parts = parameter.splitn(2, |byte| *byte == b'=');
        let name = parts.next().unwrap_or_default();
        match parts.next() {
            Some(value) if is_credential(name) => {
                escape.push(out, name);
                out.push(b'=');
                let end = value.last().filter(|last| matches!(last, b'&' | b';'));
                if value.len() > usize::from(end.is_some()) {
                    out.extend_from_slice(REDACTED);
                }
                out.extend(end);
            }
            _ => escape.push(out, parameter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(target: &str, shown: &str) {
        let mut out = Vec::new();
        push_target(&mut out, target.as_bytes(), 64, Escape::Hex);
        assert_eq!(String::from_utf8_lossy(&out), shown);
    }

    #[test]
    fn hides_what_looks_like_a_credential() {
        check("/x?token=abc", "/x?token=[redacted]");
        check("/x?a=1&access_token=abc&b=2", "/x?a=1&access_token=[redacted]&b=2");
        check("/x?API-Key=1;password=2;q=3", "/x?API-Key=[redacted];password=[redacted];q=3");
        check("/x?X-Amz-Signature=00&sig=1", "/x?X-Amz-Signature=[redacted]&sig=[redacted]");
        check("/x?%74oke%6e=abc", "/x?%74oke%6e=[redacted]");
        check("/x?user[client.secret]=s=t", "/x?user[client.secret]=[redacted]");
        check("/cb?code=4%2F0A&state=x", "/cb?code=[redacted]&state=x");
    }

    #[test]
    fn shows_everything_else_as_it_came() {
        check("/token/secret", "/token/secret");
        check("/x?", "/x?");
        check("/x?q=keyboard&monkey=1&author=me&&=", "/x?q=keyboard&monkey=1&author=me&&=");
        check("/x?token", "/x?token");
        check("/x?token=&a=b", "/x?token=&a=b");
        check("/x?a=1?token=2", "/x?a=1?token=2");
        check("/x?%=1&%zz=2", "/x?%=1&%zz=2");
    }

    #[test]
    fn a_cut_value_stays_hidden_and_an_endless_name_is_hidden() {
        check(&format!("/x?token={}", "s".repeat(100)), "/x?token=[redacted]...(+45 bytes)");
        let mut out = Vec::new();
        push_query(&mut out, format!("{}=v", "n".repeat(65)).as_bytes(), Escape::Json);
        assert!(out.ends_with(REDACTED));
    }
}
