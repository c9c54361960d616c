//! Lower latency lately, times the requests under way.

use super::super::health::WHOLE;
use super::Weighed;
use crate::model::clock::Instant;

/// What an endpoint counts as while its first request is under way, in microseconds.
const UNMEASURED_MICROS: f32 = 30_000.0;

/// Whether a request would probably wait less at `one` than at `other`.
pub(super) fn prefers(one: Weighed<'_>, other: Weighed<'_>, now: Instant) -> bool {
    cost(one, now) < cost(other, now)
}

/// The latency that a request has to expect: that of each request before it in the queue and its own, where a greater
/// weight makes the queue move faster. An endpoint that was never measured costs nothing while it is idle, so that
/// one request measures it, and is taken for middling until that one has ended.
fn cost(Weighed { endpoint, weight }: Weighed<'_>, now: Instant) -> f32 {
    #[expect(clippy::cast_precision_loss, reason = "a load in the millions needs no last digit")]
    let (in_flight, weight) = (endpoint.state.in_flight() as f32, weight.max(1) as f32 / WHOLE as f32);
    let latency = match endpoint.state.latency().micros(now) {
        Some(micros) => micros,
        None if in_flight == 0.0 => 0.0,
        None => UNMEASURED_MICROS,
    };
    latency * (1.0 + in_flight / weight)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use std::sync::Arc;

    use super::super::super::endpoint::Endpoint;
    use super::super::super::endpoint::tests::endpoint;
    use super::*;

    fn prefers(one: &Arc<Endpoint>, other: &Arc<Endpoint>, now: Instant) -> bool {
        super::prefers(one.into(), other.into(), now)
    }

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn the_faster_and_the_less_loaded_is_preferred() {
        let (fast, slow) = (endpoint(1, 1), endpoint(2, 1));
        fast.state.latency().record(Duration::from_millis(10), at(0));
        slow.state.latency().record(Duration::from_millis(25), at(0));
        assert!(prefers(&fast, &slow, at(0)) && !prefers(&slow, &fast, at(0)));
        let load = [fast.begin(at(0)), fast.begin(at(0))];
        assert!(prefers(&slow, &fast, at(0)));
        drop(load);
    }

    #[test]
    fn an_unmeasured_endpoint_gets_one_request_to_measure_it() {
        let (known, new) = (endpoint(1, 1), endpoint(2, 1));
        known.state.latency().record(Duration::from_millis(5), at(0));
        assert!(prefers(&new, &known, at(0)));
        let first = new.begin(at(0));
        assert!(prefers(&known, &new, at(0)));
        first.judged(crate::model::outcome::Outcome::Status(http::StatusCode::OK), at(1));
        drop(first);
        assert!(prefers(&new, &known, at(1)));
    }

    #[test]
    fn weight_makes_a_queue_shorter() {
        let (light, heavy) = (endpoint(1, 1), endpoint(2, 4));
        let mut load = Vec::new();
        for endpoint in [&light, &heavy] {
            endpoint.state.latency().record(Duration::from_millis(5), at(0));
            load.extend([endpoint.begin(at(0)), endpoint.begin(at(0))]);
        }
        assert!(prefers(&heavy, &light, at(0)));
    }
}
