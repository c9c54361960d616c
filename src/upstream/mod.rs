//! Where requests go: upstreams, their endpoints, and the choice among them.
//!
//! Pure: nothing here opens a connection, resolves a name or reads a clock. The engine asks for an endpoint and says
//! how the attempt went; `control::dns` says what names resolve to.

pub mod budget;
pub mod breaker;
pub mod concurrency;
pub mod config;
pub mod endpoint;
pub mod health;
pub mod latency;
pub mod quantile;
pub mod roster;
pub mod selection;
pub mod split;
pub mod url;

mod compile;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use self::breaker::Breaker;
pub use self::budget::{Allowance, RetryBudget};
pub use self::concurrency::Limiter;
pub use self::config::{Balance, ClientCertificate, Config, Protocol, TlsConfig};
pub use self::endpoint::{Endpoint, EndpointState, InFlight, Target, Tried};
pub use self::quantile::Quantiles;
pub use self::roster::Roster;
pub use self::selection::{Choice, EndpointSet};
pub use self::split::Split;
use crate::model::clock::Instant;
use crate::model::guard::GuardReading;
use crate::model::ids::UpstreamName;
use crate::model::outcome::Outcome;
use crate::model::request::{RequestView, Scheme};
use crate::model::source::Origin;

/// The reserved name of the built-in demo application.
pub const DEMO: &str = "demo";

/// A group of endpoints that serve the same thing, ready to be used.
#[derive(Debug, Clone)]
pub struct Upstream {
    name: UpstreamName,
    origin: Origin,
    balance_origin: Origin,
    health_origins: health::Origins,
    settings: Settings,
    roster: Arc<Roster>,
    demand: Arc<Demand>,
    breaker: Option<Arc<Breaker>>,
    concurrency: Option<Arc<Limiter>>,
}

/// What is asked of an upstream as a whole, and how fast it answers. Kept over reloads while the upstream has its name.
#[derive(Debug, Default)]
pub struct Demand {
    /// Requests and retries.
    pub budget: RetryBudget,
    /// Times to a response head, of requests that may be hedged.
    pub quantiles: Quantiles,
}

/// The rules of what stands before an upstream.
#[derive(Debug, Default)]
struct GuardRules {
    breaker: Option<breaker::Rules>,
    concurrency: Option<concurrency::Rules>,
}

/// How connections to the endpoints are made and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long TCP, TLS and HTTP/2 handshakes may take together.
    pub connect_timeout: Duration,
    /// How many idle connections are kept per endpoint and worker thread.
    pub idle: usize,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// Which version of HTTP is spoken.
    pub protocol: Protocol,
    /// The files and names for TLS; the defaults when nothing was written.
    pub tls: TlsConfig,
}

/// What an upstream is made of.
struct Parts {
    origin: Origin,
    balance_origin: Origin,
    health_origins: health::Origins,
    settings: Settings,
    declared: Vec<roster::Declared>,
    balance: Balance,
    health: health::Settings,
    guards: GuardRules,
}

impl Upstream {
    /// The built-in demo application at the address that the system gave it; without one (`check`, `explain`) it has
    /// no endpoint.
    #[must_use]
    pub fn demo(address: Option<SocketAddr>, previous: Option<&Self>) -> Self {
        let declared = address.map(|address| {
            let location = url::Location::Address(address);
            let url = url::EndpointUrl { scheme: Scheme::Http, location };
            roster::Declared { server_name: url.host(), url, weight: 1 }
        });
        let parts = Parts {
            origin: Origin::default(),
            balance_origin: Origin::default(),
            health_origins: health::Origins::default(),
            settings: Settings::default(),
            declared: declared.into_iter().collect(),
            balance: Balance::default(),
            health: health::Settings::default(),
            guards: GuardRules::default(),
        };
        Self::assemble(DEMO.into(), parts, previous)
    }

    /// Joins what was compiled with what lives on: the whole roster when nothing changed, else the state of the
    /// endpoints that stay, provided that connections to them are made in the same way as before. The breaker and the
    /// concurrency limit live on while their own rules are equal, whatever became of the endpoints.
    fn assemble(name: UpstreamName, parts: Parts, previous: Option<&Self>) -> Self {
        let Parts { origin, balance_origin, health_origins, settings, declared, balance, health, guards } = parts;
        let previous = previous.filter(|previous| previous.name == name);
        let keep_state = previous.is_some_and(|previous| previous.settings == settings);
        let unchanged =
            previous.filter(|previous| keep_state && previous.roster.is_declared_as(&declared, &balance, &health));
        let roster = if let Some(previous) = unchanged {
            Arc::clone(&previous.roster)
        } else {
            let before = previous.map(|previous| &*previous.roster);
            Arc::new(Roster::new(name.clone(), declared, balance, health, before, keep_state))
        };
        let demand = previous.map(|previous| Arc::clone(&previous.demand)).unwrap_or_default();
        let breaker = guards.breaker.map(|rules| {
            let before = previous.and_then(|previous| previous.breaker.as_ref());
            let same = before.filter(|before| *before.rules() == rules).map(Arc::clone);
            same.unwrap_or_else(|| Breaker::new(rules))
        });
        let concurrency = guards.concurrency.map(|rules| {
            let before = previous.and_then(|previous| previous.concurrency.as_ref());
            let same = before.filter(|before| *before.rules() == rules).map(Arc::clone);
            same.unwrap_or_else(|| Limiter::new(rules))
        });
        Self { name, origin, balance_origin, health_origins, settings, roster, demand, breaker, concurrency }
    }

    /// Its name in the configuration; the address as written for an inline one.
    #[must_use]
    pub fn name(&self) -> &UpstreamName {
        &self.name
    }

    /// Where it is defined.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// How a choice is made among the endpoints, and where that was written.
    #[must_use]
    pub fn balance(&self) -> (&Balance, &Origin) {
        (self.roster.balance(), &self.balance_origin)
    }

    /// How its endpoints are kept healthy, and where that was written.
    #[must_use]
    pub fn health(&self) -> (&health::Settings, &health::Origins) {
        (self.roster.health(), &self.health_origins)
    }

    /// Takes in how an attempt ended, or the head of its response; to be told once.
    pub fn judged(&self, in_flight: &InFlight, outcome: Outcome, now: Instant) {
        in_flight.judged(outcome, now);
        self.roster.judged(in_flight.endpoint(), outcome, now);
    }

    /// How connections are made and kept.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The endpoints, and the place where the resolver publishes addresses.
    #[must_use]
    pub fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// Puts the circuit breaker, if there is one, into `state`: for `explain`.
    pub fn force_breaker(&mut self, state: breaker::BreakerState) {
        self.breaker = self.breaker.as_ref().map(|breaker| Breaker::forced(breaker.rules().clone(), state));
    }

    /// Takes every endpoint away: for `explain`.
    pub fn suppose_no_endpoint(&mut self) {
        let balance = self.roster.balance().clone();
        self.roster =
            Arc::new(Roster::new(self.name.clone(), Vec::new(), balance, health::Settings::default(), None, false));
    }

    /// What is asked of it as a whole.
    #[must_use]
    pub fn demand(&self) -> &Demand {
        &self.demand
    }

    /// Its circuit breaker, if it has one.
    #[must_use]
    pub fn breaker(&self) -> Option<&Arc<Breaker>> {
        self.breaker.as_ref()
    }

    /// Its concurrency limit, if it has one.
    #[must_use]
    pub fn concurrency(&self) -> Option<&Arc<Limiter>> {
        self.concurrency.as_ref()
    }

    /// What the metrics and the admin API show of both at `now`.
    #[must_use]
    pub fn guard_reading(&self, now: Instant) -> GuardReading {
        GuardReading {
            breaker: self.breaker.as_ref().map(|breaker| breaker.reading(now)),
            concurrency: self.concurrency.as_ref().map(|limiter| limiter.reading()),
        }
    }

    /// The hash of the request's key when the choice is made by hash and the request has the key.
    #[must_use]
    pub fn hash(&self, request: &RequestView<'_>) -> Option<u64> {
        match self.roster.balance() {
            Balance::Hash(keys) => selection::hash(keys.as_slice(), request),
            Balance::RoundRobin | Balance::LeastRequest | Balance::Ewma | Balance::Random => None,
        }
    }

    /// The endpoint for the next attempt; `None` when there is none that was not tried.
    #[must_use]
    pub fn choose(&self, choice: &Choice<'_>) -> Option<Arc<Endpoint>> {
        self.roster.endpoints().choose(choice).map(Arc::clone)
    }
}
