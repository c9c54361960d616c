//! W3C Trace Context: what is valid passes, what is not is replaced, what is missing is begun.
//!
//! We don't report spans yet, so a valid `traceparent` goes on unchanged, as the recommendation asks of those who do not
//! take part (<https://www.w3.org/TR/trace-context/#mutating-the-traceparent-field>).

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

/// `traceparent`
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Makes sure that the request has a valid context; `random` is used to begin one.
pub fn ensure(headers: &mut HeaderMap, random: u128) {
    let mut given = headers.get_all(TRACEPARENT).iter();
    let valid = match (given.next(), given.next()) {
        (Some(one), None) => one.to_str().is_ok_and(|text| trace_id(text).is_some()),
        _ => false,
    };
    if !valid {
        headers.remove(TRACESTATE);
        headers.insert(TRACEPARENT, begin(random));
    }
}

/// The trace id of a valid `traceparent`: 32 lower-case hex digits, not all zero.
#[must_use]
pub fn trace_id(traceparent: &str) -> Option<&str> {
    let (version, rest) = traceparent.split_at_checked(2)?;
    let (trace, rest) = rest.strip_prefix('-')?.split_at_checked(32)?;
    let (parent, rest) = rest.strip_prefix('-')?.split_at_checked(16)?;
    let (flags, rest) = rest.strip_prefix('-')?.split_at_checked(2)?;
    // A future version may append fields; this one has none.
    let ends = if version == "00" { rest.is_empty() } else { rest.is_empty() || rest.starts_with('-') };
    let hex = [version, trace, parent, flags]
        .iter()
        .all(|part| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
    let zero = |text: &str| text.bytes().all(|byte| byte == b'0');
    (ends && hex && version != "ff" && !zero(trace) && !zero(parent)).then_some(trace)
}

fn begin(random: u128) -> HeaderValue {
    // Both ids from one draw; neither may be zero.
    let trace = random | 1;
    let parent = u64::try_from((random >> 32) & u128::from(u64::MAX)).unwrap_or(1) | 1;
    HeaderValue::try_from(format!("00-{trace:032x}-{parent:016x}-00")).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[track_caller]
    fn check(traceparent: &str, valid: bool) {
        assert_eq!(trace_id(traceparent).is_some(), valid, "{traceparent}");
    }

    #[test]
    fn reads_the_recommendation_s_grammar() {
        check(VALID, true);
        check("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes", true);
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what", false);
        check("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false);
        check("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false);
        check("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false);
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false);
        check("", false);
        check("00-ä", false);
    }

    #[test]
    fn valid_passes_and_invalid_is_replaced_together_with_its_state() {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static(VALID));
        headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
        ensure(&mut headers, 5);
        assert_eq!(headers.get(TRACEPARENT).expect("kept"), VALID);
        assert!(headers.contains_key(TRACESTATE));
        headers.insert(TRACEPARENT, HeaderValue::from_static("nonsense"));
        ensure(&mut headers, 0);
        check(headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()).expect("set"), true);
        assert!(!headers.contains_key(TRACESTATE));
    }
}
