//! One address that requests are sent to, and what is known of it while they are under way.
//!
//! The state is atomics only: it is read and written from every worker and never waits.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;

use super::health::{self, Health};
use super::latency::PeakEwma;
use crate::model::clock::Instant;
use crate::model::outcome::Outcome;
use crate::model::request::Scheme;

/// Where a connection to an endpoint is made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// TCP to an address; names were resolved before.
    Tcp(SocketAddr),
    /// A unix socket's absolute path.
    Unix(Arc<str>),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// One address of an upstream. A name that resolves to three addresses makes three endpoints.
#[derive(Debug)]
pub struct Endpoint {
    /// Its address in the configuration, in normal form.
    pub url: Arc<str>,
    /// [`Endpoint::target`] as it shows in logs and in the admin API: `10.0.0.1:3001` or `unix:/run/app.sock`.
    pub address: Arc<str>,
    /// Where connections are made.
    pub target: Target,
    /// In clear or over TLS.
    pub scheme: Scheme,
    /// Host and port for the `Host` field, as the configuration names them.
    pub authority: Arc<str>,
    /// The name (or IP address) that a certificate must be for; never empty.
    pub server_name: Arc<str>,
    /// Share relative to the other endpoints, at least 1.
    pub weight: u32,
    /// Its identity, kept over reloads while the upstream's name, this URL, this address and the settings of the
    /// upstream's connections stay the same. Connections may be pooled under it: see [`Endpoint::key`].
    pub state: Arc<EndpointState>,
    /// Whether it gets requests, as far as checks and its answers say.
    pub health: Arc<Health>,
}

impl Endpoint {
    /// What it is at `now`.
    #[must_use]
    pub fn health_state(&self, now: Instant) -> health::State {
        self.health.state(self.state.is_drained(), now)
    }

    /// A number that no other endpoint has while [`Endpoint::state`] (or a `Weak` of it) is held: the key for whatever
    /// is kept per endpoint, such as idle connections.
    #[must_use]
    pub fn key(&self) -> usize {
        Arc::as_ptr(&self.state).addr()
    }

    /// Begins an attempt: it counts as under way until the guard is dropped, at the end of the response's body.
    #[must_use]
    pub fn begin(self: &Arc<Self>, now: Instant) -> InFlight {
        self.state.in_flight.fetch_add(1, Ordering::Relaxed);
        self.state.attempts.fetch_add(1, Ordering::Relaxed);
        InFlight { endpoint: Arc::clone(self), began: now }
    }
}

/// What is known of an endpoint.
#[derive(Debug, Default)]
pub struct EndpointState {
    in_flight: AtomicU64,
    attempts: AtomicU64,
    failures: AtomicU64,
    latency: PeakEwma,
    drained: AtomicBool,
    /// The health that was told last, as an index.
    told: AtomicU8,
}

impl EndpointState {
    /// Attempts under way.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Attempts begun since the endpoint is known.
    #[must_use]
    pub fn attempts(&self) -> u64 {
        self.attempts.load(Ordering::Relaxed)
    }

    /// Attempts that failed: without a response head, or with 502, 503 or 504.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Another one that knows only what the operator said of this.
    pub(super) fn renewed(&self) -> Self {
        Self { drained: AtomicBool::new(self.is_drained()), ..Self::default() }
    }

    /// Whether the operator has taken it out.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Relaxed)
    }

    /// Takes it out, or lets it in again; true when that is a change.
    pub(super) fn drain(&self, drained: bool) -> bool {
        self.drained.swap(drained, Ordering::Relaxed) != drained
    }

    /// Notes that `state` is told; gives the one that was told before when that was another.
    #[must_use]
    pub fn tell(&self, state: health::State) -> Option<health::State> {
        let before = self.told.swap(state as u8, Ordering::Relaxed);
        health::State::ALL.get(usize::from(before)).copied().filter(|before| *before != state)
    }

    /// Moving average of the time to the response head.
    #[must_use]
    pub fn latency(&self) -> &PeakEwma {
        &self.latency
    }
}

/// The least that a failed attempt counts as in the latency: an endpoint that refuses quickly is not a fast one.
const FAILURE_LATENCY: Duration = Duration::from_secs(1);

/// An attempt under way; dropping it ends the count.
#[derive(Debug)]
pub struct InFlight {
    endpoint: Arc<Endpoint>,
    began: Instant,
}

impl InFlight {
    /// Where the attempt goes.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Takes in how the attempt ended, or the head of its response; to be told once.
    pub fn judged(&self, outcome: Outcome, now: Instant) {
        let state = &self.endpoint.state;
        let took = now.since(self.began);
        match has_failed(outcome) {
            None => {}
            Some(true) => {
                state.failures.fetch_add(1, Ordering::Relaxed);
                state.latency.record(took.max(FAILURE_LATENCY), now);
            }
            Some(false) => state.latency.record(took, now),
        }
    }
}

/// Whether an attempt that ended so speaks against its endpoint; `None` when it says nothing of it.
pub(super) fn has_failed(outcome: Outcome) -> Option<bool> {
    match outcome {
        Outcome::ClientGone | Outcome::Superseded => None,
        Outcome::Status(StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
        | Outcome::Connect
        | Outcome::Reset
        | Outcome::Timeout(_)
        | Outcome::Invalid => Some(true),
        Outcome::Status(_) => Some(false),
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.state.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The endpoints that an exchange has tried already. An attempt that failed adds its own; the next choice leaves them
/// out. Endpoints are told apart by their state, so the answer stays right when DNS changes between two attempts.
#[derive(Debug, Clone, Default)]
pub struct Tried(smallvec::SmallVec<[Arc<Endpoint>; 2]>);

impl Tried {
    /// Leaves `endpoint` out from now on.
    pub fn add(&mut self, endpoint: &Arc<Endpoint>) {
        if !self.contains(endpoint) {
            self.0.push(Arc::clone(endpoint));
        }
    }

    /// Whether it was tried.
    #[must_use]
    pub fn contains(&self, endpoint: &Endpoint) -> bool {
        self.0.iter().any(|tried| Arc::ptr_eq(&tried.state, &endpoint.state))
    }

    /// How many were tried.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Begins again: for a retry that may go to any endpoint once each had its turn.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An endpoint on a made-up address, told apart by `index`.
    pub(crate) fn endpoint(index: u16, weight: u32) -> Arc<Endpoint> {
        let target = Target::Tcp(SocketAddr::from(([10, 0, 0, 1], index)));
        let address: Arc<str> = target.to_string().into();
        Arc::new(Endpoint {
            url: format!("http://{address}").into(),
            authority: Arc::clone(&address),
            server_name: Arc::clone(&address),
            address,
            target,
            scheme: Scheme::Http,
            weight,
            state: Arc::default(),
            health: Arc::default(),
        })
    }

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn an_attempt_counts_until_its_guard_is_dropped() {
        let endpoint = endpoint(1, 1);
        let first = endpoint.begin(at(0));
        let second = endpoint.begin(at(0));
        assert_eq!(endpoint.state.in_flight(), 2);
        drop(first);
        assert_eq!((endpoint.state.in_flight(), endpoint.state.attempts()), (1, 2));
        drop(second);
        assert_eq!(endpoint.state.in_flight(), 0);
    }

    #[track_caller]
    fn check(outcome: Outcome, failures: u64, latency: Option<Duration>) {
        let endpoint = endpoint(1, 1);
        endpoint.begin(at(0)).judged(outcome, at(20));
        let seen = endpoint.state.latency().last().map(|last| last.as_millis());
        let expected = latency.map(|latency| latency.as_millis());
        assert_eq!((endpoint.state.failures(), seen), (failures, expected), "{outcome:?}");
    }

    #[test]
    fn a_quick_failure_is_no_low_latency() {
        check(Outcome::Status(StatusCode::OK), 0, Some(Duration::from_millis(20)));
        check(Outcome::Status(StatusCode::INTERNAL_SERVER_ERROR), 0, Some(Duration::from_millis(20)));
        check(Outcome::Status(StatusCode::SERVICE_UNAVAILABLE), 1, Some(FAILURE_LATENCY));
        check(Outcome::Connect, 1, Some(FAILURE_LATENCY));
        check(Outcome::Reset, 1, Some(FAILURE_LATENCY));
        check(Outcome::Invalid, 1, Some(FAILURE_LATENCY));
        check(Outcome::ClientGone, 0, None);
    }

    #[test]
    fn a_tried_endpoint_is_known_by_its_state() {
        let first = endpoint(1, 1);
        let same = Arc::new(Endpoint {
            url: Arc::clone(&first.url),
            address: Arc::clone(&first.address),
            target: first.target.clone(),
            scheme: first.scheme,
            authority: Arc::clone(&first.authority),
            server_name: Arc::clone(&first.server_name),
            weight: 9,
            state: Arc::clone(&first.state),
            health: Arc::clone(&first.health),
        });
        let mut tried = Tried::default();
        tried.add(&first);
        tried.add(&same);
        assert!(tried.contains(&same) && !tried.contains(&endpoint(1, 1)));
        assert_eq!(tried.len(), 1);
        tried.clear();
        assert!(tried.is_empty());
    }
}
