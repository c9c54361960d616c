//! The id of a request: a trusted proxy's, or one of ours.

use http::HeaderValue;

/// The longest id that is taken over.
const MAX_LENGTH: usize = 128;

/// The id for a request. `given` is `X-Request-Id` as received; only a trusted peer's is taken over, and only when it is
/// safe wherever it may be shown. Otherwise `random` becomes a version 4 UUID (RFC 9562 §5.4).
#[must_use]
pub fn choose(given: Option<&HeaderValue>, peer_trusted: bool, random: u128) -> HeaderValue {
    match given {
        Some(given) if peer_trusted && is_safe(given.as_bytes()) => given.clone(),
        _ => uuid(random),
    }
}

fn is_safe(id: &[u8]) -> bool {
    (1..=MAX_LENGTH).contains(&id.len())
        && id
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'+' | b'/' | b'='))
}

fn uuid(random: u128) -> HeaderValue {
    const VERSION: u128 = 0xf << 76;
    const VARIANT: u128 = 0x3 << 62;
    let bits = (random & !VERSION & !VARIANT) | (0x4 << 76) | (0x2 << 62);
    let mut text = [b'-'; 36];
    let digits = text.iter_mut().enumerate().filter(|(at, _)| !matches!(at, 8 | 13 | 18 | 23)).map(|(_, byte)| byte);
    for (index, byte) in digits.enumerate() {
        let nibble = (bits >> (124 - 4 * index)) & 0xf;
        *byte = b"0123456789abcdef".get(usize::try_from(nibble).unwrap_or_default()).copied().unwrap_or(b'0');
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_ids_are_version_4_uuids() {
        assert_eq!(uuid(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[track_caller]
    fn check(given: &str, trusted: bool, kept: bool) {
        let given = HeaderValue::from_str(given).expect("visible");
        assert_eq!(choose(Some(&given), trusted, 7) == given, kept, "{given:?}");
    }

    #[test]
    fn only_a_trusted_and_safe_id_is_taken_over() {
        check("abc-123", true, true);
        check("abc-123", false, false);
        check("a b", true, false);
        check("<script>", true, false);
        check(&"a".repeat(129), true, false);
        check("", true, false);
    }
}
