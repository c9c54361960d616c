//! What responses say of limits: `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11).
//!
//! A policy is the burst (`q`) and the time in which it refills (`w`): whoever keeps to it is never refused. The state is
//! what is left (`r`) and the time for which that has to do (`t`): until one more unit has refilled. Both are lists of
//! structured fields (RFC 9651), one member for each limit that holds for the request.

use std::fmt::Write as _;
use std::time::Duration;

use http::header::{HeaderName, HeaderValue};

use super::Limit;

pub(super) const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(super) const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// `RateLimit-Policy`; `None` when no limit is to be shown.
pub(super) fn policies<'a>(limits: impl Iterator<Item = &'a Limit>) -> Option<HeaderValue> {
    let mut text = String::new();
    for limit in limits.filter(|limit| limit.is_shown()) {
        let quota = limit.buckets.quota();
        member(&mut text, limit, format_args!("q={};w={}", quota.burst(), whole_seconds(quota.window()).max(1)));
    }
    value(&text)
}

/// `RateLimit`: what is left of each limit, and for how long.
pub(super) fn state<'a>(limits: impl Iterator<Item = (&'a Limit, u64, Duration)>) -> Option<HeaderValue> {
    let mut text = String::new();
    for (limit, left, until_more) in limits.filter(|(limit, ..)| limit.is_shown()) {
        member(&mut text, limit, format_args!("r={left};t={}", whole_seconds(until_more)));
    }
    value(&text)
}

fn member(text: &mut String, limit: &Limit, parameters: std::fmt::Arguments<'_>) {
    let separator = if text.is_empty() { "" } else { ", " };
    // writing to a string can't fail; names need no escape, which `compile` has seen to
    let _ = write!(text, "{separator}\"{}\";{parameters}", limit.name);
}

fn value(text: &str) -> Option<HeaderValue> {
    (!text.is_empty()).then(|| HeaderValue::from_str(text).ok()).flatten()
}

/// Rounded up: whoever comes back after so many seconds has not come too early.
pub(super) const fn whole_seconds(time: Duration) -> u64 {
    if time.subsec_nanos() == 0 { time.as_secs() } else { time.as_secs() + 1 }
}
