//! All or nothing: a request takes what it costs from every limit that holds for it, or nothing from any.
//!
//! The buckets of all of them are held together while that is decided, so no other request comes between the question and
//! the taking, and nothing has to be given back.

use std::time::Duration;

use smallvec::SmallVec;

use super::buckets::{Buckets, KeyHash, Open};
use crate::model::clock::Instant;

/// What a request takes from one limit.
pub(super) struct Demand<'a> {
    pub(super) buckets: &'a Buckets,
    pub(super) key: KeyHash,
    pub(super) cost: u64,
    /// Whether the request is refused when it does not fit.
    pub(super) binding: bool,
}

/// How a limit stands after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// The bucket after it.
    pub(super) bucket: Instant,
    /// The time until the request would have fitted, when it did not.
    pub(super) wait: Option<Duration>,
    /// Whether it took what it costs.
    pub(super) charged: bool,
    /// Whether it counted in the bucket of keys for which there is no room.
    pub(super) overflow: bool,
}

/// Which demand, its bucket, and what becomes of that.
type Opened<'a> = (usize, Open<'a>, Result<Instant, Duration>);

/// Takes from all limits, or, when one that is binding has not enough, from none. A limit that is not binding and has not
/// enough gives nothing and holds nothing up. No two demands are of one limit.
pub(super) fn take(demands: &[Demand<'_>], now: Instant) -> SmallVec<[Standing; 2]> {
    // every request locks in the same order, so no two wait for each other
    let mut order: SmallVec<[usize; 4]> = (0..demands.len()).collect();
    let address = |index: &usize| demands.get(*index).map(|demand| std::ptr::from_ref(demand.buckets) as usize);
    order.sort_unstable_by_key(address);
    let mut opened: SmallVec<[Opened<'_>; 2]> = SmallVec::new();
    for index in order {
        let Some(demand) = demands.get(index) else { continue };
        let open = demand.buckets.open(demand.key, now);
        let taken = demand.buckets.judge(open.bucket(), now, demand.cost);
        opened.push((index, open, taken));
    }
    let is_refusal =
        |(index, _, taken): &Opened<'_>| taken.is_err() && demands.get(*index).is_some_and(|demand| demand.binding);
    let admitted = !opened.iter().any(is_refusal);
    let none = Standing { bucket: Instant::default(), wait: None, charged: false, overflow: false };
    let mut standings: SmallVec<[Standing; 2]> = SmallVec::from_elem(none, demands.len());
    for (index, open, taken) in opened {
        let Some(standing) = standings.get_mut(index) else { continue };
        standing.overflow = open.is_overflow();
        standing.bucket = open.bucket();
        match taken {
            Ok(bucket) if admitted => {
                standing.bucket = bucket;
                standing.charged = true;
                let cost = demands.get(index).map_or(0, |demand| demand.cost);
                open.set(bucket, i64::try_from(cost).unwrap_or(i64::MAX));
            }
            Ok(_) => {}
            Err(wait) => standing.wait = Some(wait),
        }
    }
    standings
}
