//! W3C Trace Context: what is valid passes, what is not is replaced, what is missing is begun.
//!
//! Decides by the recommendation's grammar alone. A valid `traceparent` goes on unchanged, also one of a future version:
//! the gateway reports no span that it could name as the parent. `tracestate` goes with the `traceparent` that it belongs
//! to, and alone when it is malformed itself. Never draws randomness.

use std::ops::Range;

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// `traceparent`
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// `tracestate`
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Members of `tracestate` that the recommendation allows (§3.3.1.1).
const MAX_MEMBERS: usize = 32;

/// What a trace that begins here says of sampling. Most tracing libraries follow it: after [`Sampled::No`] an upstream
/// records nothing, after [`Sampled::Yes`] it records everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampled {
    /// Flags `00`.
    No,
    /// Flags `01`.
    Yes,
}

/// Makes sure that a request has a valid context. `random` begins one, if need be.
pub fn ensure(headers: &mut HeaderMap, random: u128, sampled: Sampled) {
    let mut given = headers.get_all(TRACEPARENT).iter();
    let is_valid = match (given.next(), given.next()) {
        (Some(one), None) => one.to_str().is_ok_and(|text| trace_id(text).is_some()),
        _ => false,
    };
    if !is_valid {
        headers.remove(TRACESTATE);
        headers.insert(TRACEPARENT, begin(random, sampled));
    } else if !is_state(headers) {
        headers.remove(TRACESTATE);
    }
}

/// The trace id of a valid `traceparent` (§3.2): 32 lower-case hex digits, not all zero.
#[must_use]
pub fn trace_id(traceparent: &str) -> Option<&str> {
    let (version, rest) = traceparent.split_at_checked(2)?;
    let (trace, rest) = rest.strip_prefix('-')?.split_at_checked(32)?;
    let (parent, rest) = rest.strip_prefix('-')?.split_at_checked(16)?;
    let (flags, rest) = rest.strip_prefix('-')?.split_at_checked(2)?;
    // a future version may go on after a dash; this one ends here
    let is_end = rest.is_empty() || (version != "00" && rest.starts_with('-'));
    let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_zero = |text: &str| text.bytes().all(|byte| byte == b'0');
    let is_valid = is_end
        && [version, trace, parent, flags].into_iter().all(is_hex)
        && version != "ff"
        && !is_zero(trace)
        && !is_zero(parent);
    is_valid.then_some(trace)
}

fn begin(random: u128, sampled: Sampled) -> HeaderValue {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    write_hex(&mut text, 3..35, &random.max(1).to_be_bytes());
    write_hex(&mut text, 36..52, &mix(random).max(1).to_be_bytes());
    write_hex(&mut text, 53..55, &[u8::from(sampled == Sampled::Yes)]);
    // hex digits and dashes are always a value
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

fn write_hex(text: &mut [u8], digits: Range<usize>, bytes: &[u8]) {
    const HEX: [u8; 16] = *b"0123456789abcdef";
    let pairs = text.get_mut(digits).unwrap_or_default().chunks_exact_mut(2);
    for (pair, byte) in pairs.zip(bytes) {
        if let [high, low] = pair {
            *high = HEX.get(usize::from(byte >> 4)).copied().unwrap_or(b'0');
            *low = HEX.get(usize::from(byte & 0xf)).copied().unwrap_or(b'0');
        }
    }
}

/// Both ids come from one draw; this keeps one from being a part of the other (the finaliser of splitmix64).
fn mix(random: u128) -> u64 {
    let low = u64::try_from(random & u128::from(u64::MAX)).unwrap_or_default();
    let high = u64::try_from(random >> 64).unwrap_or_default();
    let mut mixed = low ^ high.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Whether `tracestate`, over all its lines, is a list of at most [`MAX_MEMBERS`] members; none at all is one, too.
fn is_state(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(TRACESTATE).iter();
    let mut members = 0;
    for member in lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')) {
        let member = member.trim_ascii();
        if member.is_empty() {
            continue;
        }
        members += 1;
        if members > MAX_MEMBERS || !is_member(member) {
            return false;
        }
    }
    true
}

/// `key=value` (§3.3.1.3)
fn is_member(member: &[u8]) -> bool {
    let mut halves = member.splitn(2, |byte| *byte == b'=');
    let (Some([first, key @ ..]), Some(value)) = (halves.next(), halves.next()) else { return false };
    let starts = first.is_ascii_lowercase() || first.is_ascii_digit();
    let is_key_byte = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(byte);
    let is_value_byte = |byte: &u8| matches!(byte, 0x20..=0x7e) && !b",=".contains(byte);
    starts
        && key.len() < 256
        && key.iter().all(is_key_byte)
        && (1..=256).contains(&value.len())
        && value.iter().all(is_value_byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[track_caller]
    fn check(traceparent: &str, is_valid: bool) {
        assert_eq!(trace_id(traceparent).is_some(), is_valid, "{traceparent}");
    }

    #[test]
    fn reads_the_recommendation_s_grammar() {
        check(VALID, true);
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff", true);
        check("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true);
        check("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes", true);
        check("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.what", false);
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what", false);
        check("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false);
        check("0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false);
        check("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false);
        check("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false);
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false);
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x", false);
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0", false);
        check("", false);
        check("00-ä", false);
    }

    fn ensured(lines: &[(HeaderName, &str)]) -> (Vec<String>, bool) {
        let line = |(name, value): &(HeaderName, &str)| (name.clone(), HeaderValue::from_str(value).expect("visible"));
        let mut headers: HeaderMap = lines.iter().map(line).collect();
        ensure(&mut headers, 5, Sampled::No);
        let parents = headers.get_all(TRACEPARENT).iter().map(|value| value.to_str().expect("visible").to_owned());
        (parents.collect(), headers.contains_key(TRACESTATE))
    }

    #[test]
    fn valid_passes_and_anything_else_is_replaced_with_its_state() {
        assert_eq!(ensured(&[(TRACEPARENT, VALID), (TRACESTATE, "a=b")]), (vec![VALID.to_owned()], true));
        for lines in [
            vec![(TRACEPARENT, "nonsense"), (TRACESTATE, "a=b")],
            vec![(TRACEPARENT, VALID), (TRACEPARENT, VALID), (TRACESTATE, "a=b")],
            vec![(TRACESTATE, "a=b")],
        ] {
            let (parents, has_state) = ensured(&lines);
            assert!(matches!(&*parents, [one] if one != VALID && trace_id(one).is_some()), "{parents:?}");
            assert!(!has_state);
        }
    }

    #[test]
    fn a_malformed_state_goes_alone() {
        #[track_caller]
        fn check(state: &str, is_kept: bool) {
            assert_eq!(
                ensured(&[(TRACEPARENT, VALID), (TRACESTATE, state)]),
                (vec![VALID.to_owned()], is_kept),
                "{state}"
            );
        }
        check("rojo=00f067aa0ba902b7, congo=t61rcWkgMzE", true);
        check("fw529a3039@dt=FfAAA,,1a=b c", true);
        check("", true);
        check("Upper=1", false);
        check("a", false);
        check("a=", false);
        check("a=b=c", false);
        check("=b", false);
        check(&vec!["a=b"; MAX_MEMBERS].join(","), true);
        check(&vec!["a=b"; MAX_MEMBERS + 1].join(","), false);
    }

    #[test]
    fn what_begins_here_says_what_it_is_told_of_sampling() {
        assert!(begin(7, Sampled::Yes).to_str().expect("visible").ends_with("-01"));
        assert!(begin(7, Sampled::No).to_str().expect("visible").ends_with("-00"));
    }

    proptest! {
        #[test]
        fn what_begins_here_is_valid(random in prop_oneof![any::<u128>(), 0_u128..4]) {
            let begun = begin(random, Sampled::Yes);
            let text = begun.to_str().expect("visible");
            prop_assert_eq!(trace_id(text), Some(&*format!("{:032x}", random.max(1))));
        }

        #[test]
        fn any_text_is_read_without_harm(text in ".{0,70}") {
            let _ = trace_id(&text);
        }
    }
}
