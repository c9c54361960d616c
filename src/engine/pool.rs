//! Idle connections to upstreams, kept per worker: the connection that a worker opened never leaves its runtime.
//!
//! Connections are kept under the endpoint's state and the TLS configuration they were made with, and hold both weakly: an
//! address in memory is not given to another endpoint while connections are kept under it, and connections of an endpoint
//! that is gone are closed by the next sweep.
//!
//! Newest first, so that a quiet upstream's surplus grows old and is closed. Bounded per endpoint by `pool.idle`.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ClientConfig;

use super::connect::H2Connection;
use super::transport::Transport;
use crate::model::clock::Instant;
use crate::telemetry::metrics::UpstreamMetrics;
use crate::upstream::{Endpoint, EndpointState};

/// How the pool bounds what it keeps of one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleLimits {
    /// Idle HTTP/1.1 connections kept.
    pub idle: usize,
    /// How long each is kept.
    pub idle_timeout: Duration,
}

/// What to use for an attempt.
#[derive(Debug)]
pub enum Idle {
    /// An HTTP/1.1 connection that was silent and open a moment ago.
    H1(Transport),
    /// An HTTP/2 connection with room for a stream.
    H2(H2Connection),
}

/// Whose connections they are: an endpoint, and the TLS that it was spoken to with.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// The endpoint.
    pub endpoint: &'a Endpoint,
    /// TLS, where there is TLS.
    pub tls: Option<&'a Arc<ClientConfig>>,
    /// Counts the idle ones.
    pub metrics: &'a Arc<UpstreamMetrics>,
}

impl Owner<'_> {
    fn key(&self) -> Key {
        (self.endpoint.key(), self.tls.map_or(0, |tls| Arc::as_ptr(tls).addr()))
    }

    fn kept(&self) -> Kept {
        Kept {
            h1: Vec::new(),
            h2: Vec::new(),
            idle_timeout: Duration::ZERO,
            state: Arc::downgrade(&self.endpoint.state),
            _tls: self.tls.map(Arc::downgrade),
        }
    }
}

/// Addresses of ours, which nobody outside can choose.
type Key = (usize, usize);

/// Mixes the words of a key.
#[derive(Debug, Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }

    fn write_usize(&mut self, word: usize) {
        // the odd constant of Fibonacci hashing: the high bits depend on all
        self.0 = (self.0.rotate_left(26) ^ word as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}

#[derive(Debug)]
struct Kept {
    h1: Vec<IdleConnection>,
    h2: Vec<(Instant, H2Connection)>,
    idle_timeout: Duration,
    /// Held so that the key stays this endpoint's.
    state: Weak<EndpointState>,
    /// Held so that the key stays this configuration's.
    _tls: Option<Weak<ClientConfig>>,
}

/// An idle HTTP/1.1 connection; it is counted for as long as it is kept.
#[derive(Debug)]
struct IdleConnection {
    since: Instant,
    transport: Transport,
    _counted: Counted,
}

impl IdleConnection {
    fn new(since: Instant, mut transport: Transport, metrics: &Arc<UpstreamMetrics>) -> Self {
        transport.rest();
        metrics.connections_idle.inc();
        Self { since, transport, _counted: Counted(Arc::clone(metrics)) }
    }
}

/// A place in the count of idle connections.
#[derive(Debug)]
struct Counted(Arc<UpstreamMetrics>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections_idle.dec();
    }
}

/// The idle connections of one worker, by endpoint.
#[derive(Debug, Default)]
pub struct Pool {
    kept: Mutex<HashMap<Key, Kept, BuildHasherDefault<Mixed>>>,
}

impl Pool {
    /// A connection of `owner`'s, if one is at hand.
    pub fn take(&self, owner: Owner<'_>, now: Instant) -> Option<Idle> {
        let mut all = self.kept.lock();
        let kept = all.get_mut(&owner.key())?;
        kept.h2.retain(|(_, connection)| !connection.is_closed());
        if let Some((last_used, connection)) = kept.h2.iter_mut().find(|(_, connection)| connection.has_room()) {
            *last_used = now;
            return Some(Idle::H2(connection.clone()));
        }
        while let Some(mut idle) = kept.h1.pop() {
            if now.since(idle.since) < kept.idle_timeout && idle.transport.is_reusable() {
                return Some(Idle::H1(idle.transport));
            }
        }
        None
    }

    /// Keeps an HTTP/1.1 connection for later; closes it when there are enough.
    pub fn keep_h1(&self, owner: Owner<'_>, limits: IdleLimits, now: Instant, transport: Transport) {
        if limits.idle == 0 || limits.idle_timeout.is_zero() {
            return;
        }
        let mut all = self.kept.lock();
        let kept = all.entry(owner.key()).or_insert_with(|| owner.kept());
        kept.idle_timeout = limits.idle_timeout;
        if kept.h1.len() >= limits.idle {
            kept.h1.remove(0);
        }
        kept.h1.push(IdleConnection::new(now, transport, owner.metrics));
    }

    /// Shares an HTTP/2 connection with the attempts to come.
    pub fn share_h2(&self, owner: Owner<'_>, limits: IdleLimits, now: Instant, connection: H2Connection) {
        let mut all = self.kept.lock();
        let kept = all.entry(owner.key()).or_insert_with(|| owner.kept());
        kept.idle_timeout = limits.idle_timeout;
        kept.h2.push((now, connection));
    }

    /// Closes what is too old or was closed by its peer; forgets endpoints without connections.
    pub fn sweep(&self, now: Instant) {
        self.kept.lock().retain(|_, kept| {
            let timeout = kept.idle_timeout;
            kept.h1.retain_mut(|idle| now.since(idle.since) < timeout && idle.transport.is_reusable());
            kept.h2.retain_mut(|(last_used, connection)| {
                if !connection.is_idle() {
                    *last_used = now;
                }
                !connection.is_closed() && now.since(*last_used) < timeout
            });
            kept.state.strong_count() > 0 && !(kept.h1.is_empty() && kept.h2.is_empty())
        });
    }

    /// Idle connections now, HTTP/1.1 and HTTP/2 together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept.lock().values().map(|kept| kept.h1.len() + kept.h2.len()).sum()
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes everything that is idle: the worker ends.
    pub fn clear(&self) {
        self.kept.lock().clear();
    }
}
