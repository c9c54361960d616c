//! Which endpoint the next attempt goes to: one file per way of choosing.
//!
//! A choice is a function of the endpoints, of random bits, of a hash and of the time, all of them arguments. It
//! never waits, and takes no lock. An endpoint that was tried already is never chosen; when every one was, there is
//! no choice. The shares of the others then stay in proportion to their weights.

mod ewma;
mod hash;
mod least_request;
mod round_robin;
mod weights;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use self::hash::Rendezvous;
use self::round_robin::RoundRobin;
use self::weights::{Weights, remix};
use super::config::Balance;
use super::endpoint::{Endpoint, Tried};
use crate::model::clock::Instant;

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
    pub(super) fn new(endpoints: Vec<Arc<Endpoint>>, balance: &Balance, turn: &Arc<AtomicU64>) -> Self {
        let weights = Weights::new(endpoints.iter().map(|endpoint| endpoint.weight));
        let algorithm = match balance {
            Balance::RoundRobin => Algorithm::RoundRobin(RoundRobin::new(&endpoints, turn)),
            Balance::LeastRequest => Algorithm::LeastRequest,
            Balance::Ewma => Algorithm::Ewma,
            Balance::Random => Algorithm::Random,
            Balance::Hash(_) => Algorithm::Hash(Rendezvous::new(&endpoints)),
        };
        Self { endpoints: endpoints.into(), weights, algorithm }
    }

    /// All endpoints.
    #[must_use]
    pub fn as_slice(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// The endpoint for the next attempt; `None` when there is none that was not tried.
    #[must_use]
    pub fn choose(&self, choice: &Choice<'_>) -> Option<&Arc<Endpoint>> {
        let eligible = |index: usize| self.is_eligible(index, choice.tried);
        let index = match (&self.algorithm, choice.hash) {
            (Algorithm::RoundRobin(turns), _) => turns.choose(eligible),
            (Algorithm::LeastRequest, _) => self.better_of_two(choice, eligible, least_request::prefers),
            (Algorithm::Ewma, _) => {
                self.better_of_two(choice, eligible, |one, other| ewma::prefers(one, other, choice.now))
            }
            (Algorithm::Hash(table), Some(hash)) => table.choose(hash, eligible),
            (Algorithm::Random, _) | (Algorithm::Hash(_), None) => self.weights.draw(choice.random, eligible),
        };
        self.endpoints.get(index?)
    }

    /// The one place that says whether an endpoint may be chosen at all.
    fn is_eligible(&self, index: usize, tried: &Tried) -> bool {
        tried.is_empty() || self.endpoints.get(index).is_some_and(|endpoint| !tried.contains(endpoint))
    }

    /// The power of two choices: two different endpoints are drawn by weight, and the preferred one of them is taken
    /// (the first drawn unless the second is better). One look at two loads keeps the longest queue exponentially
    /// shorter than a random choice does (Mitzenmacher 2001), without the herd that runs after one global minimum.
    fn better_of_two(
        &self,
        choice: &Choice<'_>,
        eligible: impl Fn(usize) -> bool,
        prefers: impl Fn(&Endpoint, &Endpoint) -> bool,
    ) -> Option<usize> {
        let first = self.weights.draw(choice.random, &eligible)?;
        let other = |index: usize| index != first && eligible(index);
        let Some(second) = self.weights.draw(remix(choice.random), other) else { return Some(first) };
        match (self.endpoints.get(first), self.endpoints.get(second)) {
            (Some(one), Some(two)) if prefers(two, one) => Some(second),
            _ => Some(first),
        }
    }
}

#[cfg(test)]
mod tests;
