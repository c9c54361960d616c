//! Fetches the keys of issuers: when they are due, and at once when a request needs one that is not known.
//!
//! One task does all of it, so a fetch of a ring never runs twice at once. A request that waits is told after a fetch that
//! began after it had asked, because an earlier one may have been answered just before the issuer began to use a new key. There
//! is at most one fetch per ring and second, however many requests ask; their number is bounded by the desk's queue.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, StatusCode};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::engine::Gateway;
use crate::engine::ask::KeyWish;
use crate::engine::fetch::{Request, fetch};
use crate::model::clock::Instant;
use crate::policy::auth::{KeyRing, KeySource};
use crate::telemetry::metrics::KeyRefresh;

/// The least time between two fetches of one ring.
const PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked whether keys are due.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The longest set of keys.
const MAX_KEYS: usize = 1 << 20;

/// What is going on with one ring.
#[derive(Default)]
struct Flight {
    /// Told when the fetch under way ends.
    aboard: Vec<(Box<str>, oneshot::Sender<()>)>,
    /// They came after it began, and wait for the next one.
    waiting: Vec<(Box<str>, oneshot::Sender<()>)>,
    flying: bool,
    began: Option<Instant>,
}

/// Fetches until the gateway is gone.
pub async fn run(gateway: Arc<Gateway>, mut wishes: mpsc::Receiver<KeyWish>) {
    let mut flights: HashMap<usize, (Arc<KeyRing>, Flight)> = HashMap::new();
    let mut under_way: JoinSet<usize> = JoinSet::new();
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            wish = wishes.recv() => {
                let Some(KeyWish { ring, kid, done }) = wish else { return };
                let (_, flight) = flights.entry(key(&ring)).or_insert_with(|| (ring, Flight::default()));
                flight.waiting.push((kid, done));
            }
            Some(landed) = under_way.join_next() => {
                if let Ok(landed) = landed
                    && let Some((ring, flight)) = flights.get_mut(&landed)
                {
                    flight.flying = false;
                    for (_, done) in flight.aboard.drain(..) {
                        let _ = done.send(());
                    }
                    // who came later may have been served all the same
                    for (kid, done) in std::mem::take(&mut flight.waiting) {
                        if ring.has(&kid) { let _ = done.send(()); } else { flight.waiting.push((kid, done)); }
                    }
                }
            }
            _ = look.tick() => {
                let live = gateway.live.load();
                for ring in &live.snapshot.key_rings {
                    flights.entry(key(ring)).or_insert_with(|| (Arc::clone(ring), Flight::default()));
                }
                // rings that no configuration has any more, and nobody waits for
                flights.retain(|_, (ring, flight)| {
                    flight.flying || !flight.waiting.is_empty()
                        || live.snapshot.key_rings.iter().any(|known| Arc::ptr_eq(known, ring))
                });
            }
        }
        let now = gateway.clock.now();
        for (id, (ring, flight)) in &mut flights {
            let is_due = ring.due().is_some_and(|due| now >= due) || !flight.waiting.is_empty();
            let has_paused = flight.began.is_none_or(|began| now.since(began) >= PAUSE);
            if is_due && has_paused && !flight.flying {
                flight.flying = true;
                flight.began = Some(now);
                flight.aboard.append(&mut flight.waiting);
                let (gateway, ring, id) = (Arc::clone(&gateway), Arc::clone(ring), *id);
                under_way.spawn(async move {
                    refresh(&gateway, &ring).await;
                    id
                });
            }
        }
    }
}

fn key(ring: &Arc<KeyRing>) -> usize {
    Arc::as_ptr(ring).addr()
}

async fn refresh(gateway: &Gateway, ring: &KeyRing) {
    let KeySource::Url { origin, target } = ring.source() else { return };
    let fetched = tokio::time::timeout(ring.freshness().timeout, get(gateway, origin, target)).await;
    let text = fetched.unwrap_or_else(|_| Err("no answer in time".to_owned()));
    let why = text.as_ref().err().cloned();
    let result = ring.fetched(text.ok().as_deref(), gateway.clock.now());
    let outcome = if result.is_ok() { KeyRefresh::Fetched } else { KeyRefresh::Failed };
    gateway.telemetry.metrics.keys_refreshed(outcome);
    if let Err(reason) = result {
        let error = why.as_deref().unwrap_or(reason);
        tracing::warn!(issuer = %origin, error, "keys were not fetched, those at hand go on");
    }
}

async fn get(gateway: &Gateway, origin: &str, target: &str) -> Result<bytes::Bytes, String> {
    let live = gateway.live.load_full();
    let is_it = |entry: &crate::snapshot::UpstreamEntry| entry.upstream.name().as_str() == origin;
    let upstream = live.snapshot.upstreams.iter().position(is_it).ok_or("no longer in the configuration")?;
    let authority = origin.split_once("://").map_or(origin, |(_, authority)| authority);
    let authority = HeaderValue::from_str(authority).map_err(|error| error.to_string())?;
    let headers = HeaderMap::from_iter([
        (ACCEPT, HeaderValue::from_static("application/jwk-set+json, application/json")),
        (USER_AGENT, HeaderValue::from_static("portcullis")),
    ]);
    let request = Request { method: &Method::GET, authority: &authority, target, headers: &headers, most: MAX_KEYS };
    let fetched = fetch(&live, upstream, &request, None, &gateway.clock, fastrand::u64(..)).await;
    let (head, body) = fetched.map_err(|error| error.to_string())?;
    if head.status == StatusCode::OK { Ok(body) } else { Err(format!("status {}", head.status.as_u16())) }
}
