//! What runs beside the rate limits: it forgets buckets that have refilled, tells stores what was taken and hears from
//! them how empty buckets are for all gateways, and tells the metrics.
//!
//! Never decides about a request, and no request waits for it. A store that fails, or is slow, counts as down at once; it
//! is tried again until it answers.

mod link;

use std::sync::{Arc, Weak};
use std::time::Duration;

use self::link::{Link, LinkError};
use crate::engine::{Gateway, Live};
use crate::model::clock::Instant;
use crate::policy::rate_limit::{Buckets, Ledger, Store};

/// How often one shard of each limit is swept.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How long after a report the next one follows when there is something to say, and when there was nothing.
const BUSY: Duration = Duration::from_millis(5);
const QUIET: Duration = Duration::from_millis(20);
/// How often a gateway says that it is alive.
const BEAT_EVERY: Duration = Duration::from_millis(500);
/// How long a store that failed is left alone.
const RETRY_AFTER: Duration = Duration::from_millis(250);
/// Buckets of one limit that are reported at once.
const MOST_REPORTS: usize = 512;

/// Sweeps the limits in force until the gateway is gone.
pub async fn sweep(gateway: Weak<Gateway>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let Some(gateway) = gateway.upgrade() else { return };
        let (live, now) = (gateway.live.load_full(), gateway.clock.now());
        live.snapshot.limits.iter().for_each(|limit| limit.sweep_next(now));
    }
}

/// Tells the metrics how the limits in force stand.
pub fn observe(live: &Arc<Live>) {
    // both are in the order of the snapshot
    for (limit, metrics) in live.snapshot.limits.iter().zip(&live.metrics.limits) {
        metrics.observe(limit.tracked(), limit.keyless(), limit.overflowed());
    }
    for (store, metrics) in live.snapshot.limits.stores().zip(&live.metrics.limit_stores) {
        metrics.observe(store.is_up(), store.errors());
    }
}

/// Begins to speak to the stores of `ledger` that nobody speaks to yet. `node` names this gateway among the others.
pub fn attend(gateway: &Arc<Gateway>, ledger: &Ledger, node: &Arc<str>) {
    for store in ledger.stores().filter(|store| store.attend()) {
        tokio::spawn(speak(Arc::downgrade(gateway), Arc::clone(store), Arc::clone(node)));
    }
}

/// Speaks to one store until it is not configured any more.
async fn speak(gateway: Weak<Gateway>, store: Arc<Store>, node: Arc<str>) {
    let mut link: Option<Link> = None;
    let mut next_beat = None;
    let mut is_said = false;
    loop {
        let Some(gateway) = gateway.upgrade() else { return };
        let live = gateway.live.load_full();
        if !live.snapshot.limits.stores().any(|live| Arc::ptr_eq(live, &store)) {
            return;
        }
        match turn(&gateway, &live, &store, &node, &mut link, &mut next_beat).await {
            Ok(pause) => {
                is_said = false;
                drop((gateway, live));
                tokio::time::sleep(pause).await;
            }
            Err(error) => {
                drop((gateway, live));
                link = None;
                next_beat = None;
                store.fails();
                if is_said {
                    tracing::debug!(store = %store.name(), %error, "rate limit store still down");
                } else {
                    is_said = true;
                    let on_error = store.settings().on_error.as_str();
                    tracing::warn!(store = %store.name(), %error, on_error, "rate limit store down");
                }
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }
}

/// One exchange with the store; how long until the next.
async fn turn(
    gateway: &Gateway,
    live: &Live,
    store: &Arc<Store>,
    node: &str,
    link: &mut Option<Link>,
    next_beat: &mut Option<Instant>,
) -> Result<Duration, LinkError> {
    let link = match link {
        Some(link) => link,
        None => link.insert(Link::open(store.settings()).await?),
    };
    if next_beat.is_none_or(|due| due <= gateway.clock.now()) {
        store.count(link.beat(node).await?);
        *next_beat = Some(gateway.clock.now().after(BEAT_EVERY));
    }
    let counts_here = |limit: &&Arc<Buckets>| limit.store().is_some_and(|other| Arc::ptr_eq(other, store));
    if !store.is_up() {
        live.snapshot.limits.iter().filter(counts_here).for_each(|limit| limit.tell_levels(gateway.clock.now()));
        if store.answers() {
            tracing::info!(store = %store.name(), gateways = store.nodes(), "rate limit store up");
        }
    }
    let mut told = 0;
    for limit in live.snapshot.limits.iter().filter(counts_here) {
        told += exchange(gateway, link, limit).await?;
    }
    Ok(if told > 0 { BUSY } else { QUIET })
}

/// Reports what was taken from a limit's buckets and takes over how empty they are.
async fn exchange(gateway: &Gateway, link: &mut Link, limit: &Buckets) -> Result<usize, LinkError> {
    let reports = limit.reports(gateway.clock.now(), MOST_REPORTS);
    if reports.is_empty() {
        return Ok(0);
    }
    let backlogs = link.report(limit.id().as_str(), limit.longest_debt(), &reports).await?;
    let now = gateway.clock.now();
    for (report, backlog) in reports.iter().zip(backlogs) {
        limit.adopt(report.key, backlog, now);
    }
    Ok(reports.len())
}
