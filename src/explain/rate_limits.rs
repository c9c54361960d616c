//! How the rate limits of a route stand after a request, and what of it they went by.

use super::report::RateLimit;
use crate::model::credential::is_credential;
use crate::model::key::Key;
use crate::model::request::RequestView;
use crate::model::verdict::{Mode, Verdict};
use crate::pipeline::exchange::Exchange;
use crate::snapshot::Route;

/// The limits of `route` in their order. `is_refused`: admission has refused the request, by whichever policy.
pub(super) fn rate_limits(route: &Route, exchange: &Exchange, is_refused: bool) -> Vec<RateLimit> {
    let Some(slot) = &route.policies.rate_limit else { return Vec::new() };
    let request = exchange.view_on(&route.name);
    let shown = slot.policy.show(&exchange.charged).map(|shown| RateLimit {
        name: shown.name.to_owned(),
        key: shown.counting.keys.as_slice().iter().map(|key| part(key, &request)).collect(),
        rate: shown.counting.rate.to_string(),
        burst: shown.counting.burst,
        cost: shown.cost,
        verdict: match (shown.left, shown.wait, shown.mode) {
            (None, ..) if is_refused => "not_asked",
            (None, ..) => "exempt",
            (Some(_), None, _) => Verdict::Allow.as_str(),
            (Some(_), Some(_), Mode::Enforce) => Verdict::Reject.as_str(),
            (Some(_), Some(_), Mode::Report) => Verdict::WouldReject.as_str(),
        },
        left: shown.left,
    });
    shown.collect()
}

/// What of the request a key goes by: `client.ip=192.0.2.7`.
fn part(key: &Key, request: &RequestView<'_>) -> String {
    let is_hidden = match key {
        Key::Header(name) => is_credential(name.as_str().as_bytes()),
        Key::Query(name) => is_credential(name.as_bytes()),
        Key::Cookie(_) => true,
        _ => false,
    };
    match key.value(request) {
        None => format!("{key}=-"),
        Some(_) if is_hidden => format!("{key}=[redacted]"),
        Some(value) => format!("{key}={value}"),
    }
}
