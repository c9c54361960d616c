//! Fewer requests under way.

use super::Weighed;

/// Whether `one` has less to do for its weight than `other`. Of two idle ones neither is preferred, so the draw by
/// weight decides.
pub(super) fn prefers(one: Weighed<'_>, other: Weighed<'_>) -> bool {
    let load = |one: Weighed<'_>, by: Weighed<'_>| one.endpoint.state.in_flight().saturating_mul(by.weight);
    load(one, other) < load(other, one)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::super::endpoint::Endpoint;
    use super::super::super::endpoint::tests::endpoint;
    use super::*;
    use crate::model::clock::Instant;

    #[test]
    fn load_is_relative_to_weight() {
        let (light, heavy) = (endpoint(1, 1), endpoint(2, 3));
        let prefers = |one: &Arc<Endpoint>, other: &Arc<Endpoint>| prefers(one.into(), other.into());
        let begin = |endpoint: &Arc<Endpoint>| endpoint.begin(Instant::default());
        assert!(!prefers(&light, &heavy) && !prefers(&heavy, &light));
        let one = begin(&light);
        let two = begin(&heavy);
        assert!(prefers(&heavy, &light));
        let more = [begin(&heavy), begin(&heavy)];
        assert!(!prefers(&light, &heavy) && !prefers(&heavy, &light));
        drop(one);
        assert!(prefers(&light, &heavy));
        drop((two, more));
    }
}
