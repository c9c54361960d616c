//! Which endpoint the next attempt goes to: one file per way of choosing.
//!
//! A choice is a function of the endpoints, of random bits, of a hash and of the time, all of them arguments. It
//! never waits, and takes no lock. An endpoint that was tried already, or is drained, is never chosen, and one that is
//! unhealthy or ejected only in a panic; when none is left there is no choice. The shares of the others stay in
//! proportion to their weights, of which a slow start leaves a part.

mod ewma;
mod hash;
mod least_request;
mod round_robin;
mod weights;

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use self::hash::Rendezvous;
use self::round_robin::RoundRobin;
use self::weights::{Weights, remix};
use super::config::Balance;
use super::endpoint::{Endpoint, Tried};
use super::health::{self, State, WHOLE};
use crate::model::clock::Instant;
use crate::model::units::Percent;

pub use self::hash::hash;
pub use self::weights::Shares;

/// What a choice depends on beside the endpoints.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    /// Random bits, fresh for each attempt.
    pub random: u64,
    /// The hash of the request's key, for `balance = { hash = ... }`; `None` when the request has no such key.
    pub hash: Option<u64>,
    /// The time, for latencies.
    pub now: Instant,
    /// Endpoints to leave out.
    pub tried: &'a Tried,
}

/// Endpoints and all that was worked out about them for choosing. Immutable; a change of addresses makes a new one.
#[derive(Debug)]
pub struct EndpointSet {
    endpoints: Box<[Arc<Endpoint>]>,
    weights: Weights,
    algorithm: Algorithm,
    slow_start: Option<Duration>,
    panic_threshold: Percent,
}

#[derive(Debug)]
enum Algorithm {
    RoundRobin(RoundRobin),
    LeastRequest,
    Ewma,
    Random,
    Hash(Rendezvous),
}

impl EndpointSet {
    /// Works out what `balance` needs. `turn` is where round robin stands; it outlives the set.
    pub(super) fn new(
        endpoints: Vec<Arc<Endpoint>>,
        balance: &Balance,
        turn: &Arc<AtomicU64>,
        health: &health::Settings,
    ) -> Self {
        let weights = Weights::new(endpoints.iter().map(|endpoint| endpoint.weight));
        let algorithm = match balance {
            Balance::RoundRobin => Algorithm::RoundRobin(RoundRobin::new(&endpoints, turn)),
            Balance::LeastRequest => Algorithm::LeastRequest,
            Balance::Ewma => Algorithm::Ewma,
            Balance::Random => Algorithm::Random,
            Balance::Hash(_) => Algorithm::Hash(Rendezvous::new(&endpoints)),
        };
        let health::Settings { slow_start, panic_threshold, .. } = *health;
        Self { endpoints: endpoints.into(), weights, algorithm, slow_start, panic_threshold }
    }

    /// All endpoints.
    #[must_use]
    pub fn as_slice(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// The endpoint for the next attempt; `None` when there is none that may be chosen.
    #[must_use]
    pub fn choose(&self, choice: &Choice<'_>) -> Option<&Arc<Endpoint>> {
        let panics = Cell::new(None);
        let share = |index: usize| self.share(index, choice, &panics);
        let index = match (&self.algorithm, choice.hash) {
            (Algorithm::RoundRobin(turns), _) => turns.choose(choice.random, share),
            (Algorithm::LeastRequest, _) => self.better_of_two(choice, share, least_request::prefers),
            (Algorithm::Ewma, _) => {
                self.better_of_two(choice, share, |one, other| ewma::prefers(one, other, choice.now))
            }
            (Algorithm::Hash(table), Some(hash)) => table.choose(hash, self.slow_start.is_some(), share),
            (Algorithm::Random, _) | (Algorithm::Hash(_), None) => self.weights.draw(choice.random, share),
        };
        self.endpoints.get(index?)
    }

    /// The one place that says whether an endpoint may be chosen at all, and with what part of its weight: 0 to
    /// [`WHOLE`]. `panics` remembers whether health is to be ignored: only a choice that meets an endpoint which is not
    /// healthy has to count.
    fn share(&self, index: usize, choice: &Choice<'_>, panics: &Cell<Option<bool>>) -> u64 {
        let Some(endpoint) = self.endpoints.get(index) else { return 0 };
        if !choice.tried.is_empty() && choice.tried.contains(endpoint) {
            return 0;
        }
        match endpoint.health_state(choice.now) {
            State::Healthy => self.slow_start.map_or(WHOLE, |ramp| endpoint.health.share(choice.now, ramp)),
            State::Drained => 0,
            State::Unhealthy | State::Ejected => {
                let ignored = panics.get().unwrap_or_else(|| self.is_in_panic(choice.now));
                panics.set(Some(ignored));
                if ignored { WHOLE } else { 0 }
            }
        }
    }

    /// Whether so few endpoints are healthy that health is to be ignored. Drained ones don't count.
    #[must_use]
    pub fn is_in_panic(&self, now: Instant) -> bool {
        let (mut healthy, mut all) = (0, 0);
        for state in self.endpoints.iter().map(|endpoint| endpoint.health_state(now)) {
            healthy += u64::from(state == State::Healthy);
            all += u64::from(state != State::Drained);
        }
        !self.panic_threshold.is_reached(healthy, all)
    }

    /// What part of its weight the endpoint has while it starts slowly; `None` when it has its whole.
    #[must_use]
    pub fn slow_start(&self, endpoint: &Endpoint, now: Instant) -> Option<f64> {
        let share = endpoint.health.share(now, self.slow_start?);
        #[expect(clippy::cast_precision_loss, reason = "at most 1024")]
        (share < WHOLE && endpoint.health_state(now) == State::Healthy).then(|| share as f64 / WHOLE as f64)
    }

    /// The power of two choices: two different endpoints are drawn by weight, and the preferred one of them is taken
    /// (the first drawn unless the second is better). One look at two loads keeps the longest queue exponentially
    /// shorter than a random choice does (Mitzenmacher 2001), without the herd that runs after one global minimum.
    fn better_of_two(
        &self,
        choice: &Choice<'_>,
        share: impl Fn(usize) -> u64,
        prefers: impl Fn(Weighed<'_>, Weighed<'_>) -> bool,
    ) -> Option<usize> {
        let first = self.weights.draw(choice.random, &share)?;
        let other = |index: usize| if index == first { 0 } else { share(index) };
        let Some(second) = self.weights.draw(remix(choice.random), other) else { return Some(first) };
        let weighed = |index: usize| {
            let endpoint = self.endpoints.get(index)?;
            Some(Weighed { endpoint, weight: u64::from(endpoint.weight).saturating_mul(share(index)) })
        };
        match (weighed(first), weighed(second)) {
            (Some(one), Some(two)) if prefers(two, one) => Some(second),
            _ => Some(first),
        }
    }
}

/// An endpoint with its weight of the moment, in parts of [`WHOLE`].
#[derive(Clone, Copy)]
struct Weighed<'a> {
    endpoint: &'a Endpoint,
    weight: u64,
}

#[cfg(test)]
impl<'a> From<&'a Arc<Endpoint>> for Weighed<'a> {
    fn from(endpoint: &'a Arc<Endpoint>) -> Self {
        Self { endpoint, weight: u64::from(endpoint.weight) * WHOLE }
    }
}

#[cfg(test)]
mod tests;
