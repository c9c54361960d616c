//! Which names of fields and parameters say that their values are credentials, for everything that shows requests.
//!
//! Wide on purpose: a value that is hidden for nothing costs a look elsewhere, a token in a log costs a rotation.

/// A value whose name, in lower case without `_`, `-` and `.`, contains one of these is hidden.
const CONTAINED: [&[u8]; 16] = [
    b"token",
    b"cookie",
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

/// Whether a name says that its value is a credential. Percent-encoded letters count as what they stand for; a name too
/// long to be judged is taken for one.
#[must_use]
pub fn is_credential(name: &[u8]) -> bool {
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
    fn check(name: &str, hidden: bool) {
        assert_eq!(is_credential(name.as_bytes()), hidden, "{name}");
    }

    #[test]
    fn names_of_credentials_are_known_however_they_are_joined() {
        for name in ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "X_Auth_Token", "sid"]
        {
            check(name, true);
        }
        for name in ["accept", "www-authenticate", "x-request-id", "author", "keyboard", "traceparent"] {
            check(name, false);
        }
    }
}
