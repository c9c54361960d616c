//! The exchange loop and everything that speaks HTTP: the only user of pingora.
//!
//! `serve` runs a connection, `exchange` a request: it views, asks the pipeline, and applies. What is decided is
//! decided in `pipeline`; here are only bytes, waiting and the order of things.

pub mod ask;
mod attempt;
mod complete;
pub mod connect;
pub mod downstream;
mod exchange;
pub mod fetch;
mod forward;
mod h1;
pub mod head_guard;
mod head_wire;
mod hedge;
mod inspect;
pub mod pool;
mod relay;
mod respond;
pub mod serve;
mod timer;
pub mod transport;
mod upload;
pub mod upstream_session;

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use self::ask::Desk;
use self::pool::Pool;
use crate::model::clock::Clock;
use crate::snapshot::Snapshot;
use crate::telemetry::Telemetry;
use crate::telemetry::access_log::Lane;
use crate::telemetry::metrics::Exposed;

/// What all workers share.
pub struct Gateway {
    /// The configuration in force, with its metric handles.
    pub live: ArcSwap<Live>,
    /// The gateway's clock.
    pub clock: Clock,
    /// Metrics and logs.
    pub telemetry: Arc<Telemetry>,
    /// Where decisions get answers from outside.
    pub desk: Desk,
}

/// One snapshot and what was resolved for it. An exchange keeps it to its end.
pub struct Live {
    /// The compiled configuration.
    pub snapshot: Arc<Snapshot>,
    /// Metric handles in the order of the snapshot's routes, upstreams and listeners.
    pub metrics: Exposed,
}

/// What one worker owns; nothing of it is shared with other workers.
pub struct Worker {
    /// Idle connections to upstreams.
    pub pool: Pool,
    /// The worker's way into the access log.
    pub access_log: Lane,
    /// Randomness for ids and balancing; not for secrets.
    pub random: Mutex<fastrand::Rng>,
}

impl Worker {
    /// A worker that has no connection yet.
    #[must_use]
    pub fn new(access_log: Lane) -> Self {
        Self { pool: Pool::default(), access_log, random: Mutex::default() }
    }

    /// 128 random bits.
    #[must_use]
    pub fn random_bits(&self) -> u128 {
        self.random.lock().u128(..)
    }

    /// 64 random bits.
    #[must_use]
    pub fn random_word(&self) -> u64 {
        self.random.lock().u64(..)
    }
}
