//! The id of a request: a trusted proxy's, or one of ours.
//!
//! Decides whether an id that came along may be shown wherever ids are shown: logs, error pages, fields. Never draws
//! randomness itself.

use http::HeaderValue;

/// The longest id that is taken over, in bytes.
pub const MAX_LENGTH: usize = 128;

/// The id for a request. `given` is `X-Request-Id` as received; only a trusted peer's is taken over, and only when it is
/// safe. Otherwise `random` becomes a version 4 UUID (RFC 9562 §5.4) of 36 characters.
#[must_use]
pub fn choose(given: Option<&HeaderValue>, peer_trusted: bool, random: u128) -> HeaderValue {
    match given {
        Some(given) if peer_trusted && is_safe(given.as_bytes()) => given.clone(),
        _ => uuid(random),
    }
}

/// No white space, quote, comma, angle bracket or control character: nothing that a log, a page or a list reads as more.
fn is_safe(id: &[u8]) -> bool {
    let is_safe = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:+/=@".contains(byte);
    (1..=MAX_LENGTH).contains(&id.len()) && id.iter().all(is_safe)
}

fn uuid(random: u128) -> HeaderValue {
    const HEX: [u8; 16] = *b"0123456789abcdef";
    const VERSION: u128 = 0xf << 76;
    const VARIANT: u128 = 0x3 << 62;
    let bits = (random & !VERSION & !VARIANT) | (0x4 << 76) | (0x2 << 62);
    let mut bytes = bits.to_be_bytes().into_iter();
    let mut text = [b'-'; 36];
    for group in [0..8, 9..13, 14..18, 19..23, 24..36] {
        let pairs = text.get_mut(group).unwrap_or_default().chunks_exact_mut(2);
        for (pair, byte) in pairs.zip(&mut bytes) {
            if let [high, low] = pair {
                *high = HEX.get(usize::from(byte >> 4)).copied().unwrap_or(b'0');
                *low = HEX.get(usize::from(byte & 0xf)).copied().unwrap_or(b'0');
            }
        }
    }
    // hex digits and dashes are always a value
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(given: &[u8], peer_trusted: bool, is_kept: bool) {
        let given = HeaderValue::from_bytes(given).expect("a value");
        assert_eq!(choose(Some(&given), peer_trusted, 7) == given, is_kept, "{given:?}");
    }

    #[test]
    fn only_a_trusted_and_safe_id_is_taken_over() {
        check(b"abc-123", true, true);
        check(b"Root=1-67891233-abcdef012345678912345678", true, true);
        check(&[b'a'; MAX_LENGTH], true, true);
        check(b"abc-123", false, false);
        check(&[b'a'; MAX_LENGTH + 1], true, false);
        for id in [&b""[..], b"a b", b"a,b", b"<script>", b"\"a\"", b"a\tb", b"\xe9"] {
            check(id, true, false);
        }
    }

    #[test]
    fn ours_is_a_version_4_uuid() {
        assert_eq!(choose(None, true, 0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(choose(None, true, u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(
            choose(None, false, 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
            "01234567-89ab-4def-8123-456789abcdef"
        );
    }

    proptest! {
        #[test]
        fn ours_is_safe_by_our_own_measure(random in any::<u128>()) {
            let id = choose(None, false, random);
            prop_assert_eq!(id.len(), 36);
            prop_assert!(is_safe(id.as_bytes()));
        }
    }
}
