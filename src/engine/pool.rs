//! Idle connections to upstreams, kept per worker: the connection that a worker opened never leaves its runtime.
//!
//! Newest first, so that a quiet upstream's surplus grows old and is closed. Bounded per endpoint by `pool.idle`.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use super::connect::H2Connection;
use super::transport::Transport;
use crate::model::clock::Instant;

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

#[derive(Debug, Default)]
struct Kept {
    h1: Vec<(Instant, Transport)>,
    h2: Vec<(Instant, H2Connection)>,
    idle_timeout: Duration,
}

/// The idle connections of one worker, by endpoint.
#[derive(Debug, Default)]
pub struct Pool {
    kept: Mutex<HashMap<usize, Kept>>,
}

impl Pool {
    /// A connection to the endpoint `key`, if one is at hand.
    pub fn take(&self, key: usize, now: Instant) -> Option<Idle> {
        let mut all = self.kept.lock();
        let kept = all.get_mut(&key)?;
        kept.h2.retain(|(_, connection)| !connection.is_closed());
        if let Some((last_used, connection)) = kept.h2.iter_mut().find(|(_, connection)| connection.has_room()) {
            *last_used = now;
            return Some(Idle::H2(connection.clone()));
        }
        while let Some((since, transport)) = kept.h1.pop() {
            if now.since(since) < kept.idle_timeout && transport.is_reusable() {
                return Some(Idle::H1(transport));
            }
        }
        None
    }

    /// Keeps an HTTP/1.1 connection for later; closes it when there are enough.
    pub fn keep_h1(&self, key: usize, limits: IdleLimits, now: Instant, transport: Transport) {
        if limits.idle == 0 || limits.idle_timeout.is_zero() {
            return;
        }
        let mut all = self.kept.lock();
        let kept = all.entry(key).or_default();
        kept.idle_timeout = limits.idle_timeout;
        if kept.h1.len() >= limits.idle {
            kept.h1.remove(0);
        }
        kept.h1.push((now, transport));
    }

    /// Shares an HTTP/2 connection with the attempts to come.
    pub fn share_h2(&self, key: usize, limits: IdleLimits, now: Instant, connection: H2Connection) {
        let mut all = self.kept.lock();
        let kept = all.entry(key).or_default();
        kept.idle_timeout = limits.idle_timeout;
        kept.h2.push((now, connection));
    }

    /// Closes what is too old or was closed by its peer; forgets endpoints without connections.
    pub fn sweep(&self, now: Instant) {
        self.kept.lock().retain(|_, kept| {
            let timeout = kept.idle_timeout;
            kept.h1.retain(|(since, transport)| now.since(*since) < timeout && transport.is_reusable());
            kept.h2.retain_mut(|(last_used, connection)| {
                if !connection.is_idle() {
                    *last_used = now;
                }
                !connection.is_closed() && now.since(*last_used) < timeout
            });
            !(kept.h1.is_empty() && kept.h2.is_empty())
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
