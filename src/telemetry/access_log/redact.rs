//! Which parameters of a query look like credentials. Their values are not written; their names are.
//!
//! Wide on purpose: a value that is hidden for nothing costs a look elsewhere, a token in a log costs a rotation.

use super::text::{Escape, bounded, push_cut};

/// What stands in the place of a value.
const REDACTED: &[u8] = b"[redacted]";

/// A parameter whose name, in lower case without `_`, `-` and `.`, contains one of these is hidden.
const CONTAINED: [&[u8]; 15] = [
    b"token",
    b"secret",
    b"passw",
    b"passphrase",
    b"pwd",
    b"signature",
    b"apikey",
    b"accesskey",
    b"privatekey",
    b"credential",
    b"assertion",
    b"authorization",
    b"samlresponse",
    b"sessionid",
    b"jwt",
];

/// … and one whose name is one of these. `code` is the authorization code of OAuth 2.0 (RFC 6749 §4.1.2).
const WHOLE: [&[u8]; 9] = [b"key", b"sig", b"pass", b"auth", b"code", b"sid", b"session", b"otp", b"pin"];

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

/// Whether the name of a parameter says that its value is a credential. Percent-encoded letters count as what they
/// stand for; a name too long to be judged is taken for one.
fn is_credential(name: &[u8]) -> bool {
    let mut buffer = [0; 64];
    let Some(normal) = normalised(name, &mut buffer) else { return true };
    WHOLE.contains(&normal) || CONTAINED.iter().any(|word| contains(normal, word))
}

fn contains(name: &[u8], word: &[u8]) -> bool {
    name.windows(word.len()).any(|window| window == word)
}

/// `name` in lower case, without percent-encoding and the characters that join words; `None` when it does not fit.
fn normalised<'a>(name: &[u8], buffer: &'a mut [u8; 64]) -> Option<&'a [u8]> {
    let mut length = 0;
    let mut bytes = name.iter().copied();
    while let Some(byte) = bytes.next() {
        let byte = if byte == b'%' { decoded(&mut bytes) } else { byte };
        if !matches!(byte, b'_' | b'-' | b'.') {
            *buffer.get_mut(length)? = byte.to_ascii_lowercase();
            length += 1;
        }
    }
    buffer.get(..length)
}

/// The byte that two hexadecimal digits stand for; `%` when they are none.
fn decoded(after_percent: &mut (impl Iterator<Item = u8> + Clone)) -> u8 {
    let mut ahead = after_percent.clone();
    let mut digit = || char::from(ahead.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (Some(high), Some(low)) = (digit(), digit()) else { return b'%' };
    *after_percent = ahead;
    high << 4 | low
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
