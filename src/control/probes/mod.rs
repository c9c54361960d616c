//! Checks endpoints beside the requests, and says when one changes its health: from whatever cause, once, in one place.
//!
//! One task per upstream follows its roster. It starts a task of checks for each endpoint and ends it with the endpoint,
//! and it wakes when something may have changed: told by the roster, or because an ejection is over. What a check means
//! is decided in `upstream::health`; how it is made, in `ask`. A task holds its roster weakly; a reload ends the tasks of
//! upstreams that are not in force any more, also while old exchanges still hold them.

mod ask;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use self::ask::Route;
use crate::engine::Live;
use crate::model::clock::{Clock, Instant};
use crate::telemetry::metrics::UpstreamMetrics;
use crate::upstream::health::{Check, State};
use crate::upstream::{Endpoint, Protocol, Roster};

/// Checks under way at the same time; further ones wait.
const MAX_CHECKS: usize = 64;
/// The most that is added to each interval, as a share of it, so that gateways that started together spread out.
const JITTER: f64 = 0.1;
/// How long the task of an upstream sleeps when nobody wakes it.
const LONGEST_SLEEP: Duration = Duration::from_mins(1);

/// Follows the upstreams that are in force. Dropping it ends its tasks.
pub struct Probes {
    shared: Arc<Shared>,
    runtime: Handle,
    followed: Mutex<Vec<Followed>>,
    seeds: Mutex<fastrand::Rng>,
}

struct Shared {
    clock: Clock,
    checks: Semaphore,
}

/// An upstream with its task, and what the task was started with.
struct Followed {
    roster: Weak<Roster>,
    tls: Option<Weak<ClientConfig>>,
    protocol: Protocol,
    task: AbortHandle,
}

impl Drop for Probes {
    fn drop(&mut self) {
        for followed in &*self.followed.lock() {
            followed.task.abort();
        }
    }
}

impl Probes {
    /// Tasks run on `runtime` by `clock`, which is that of the requests. `seed` feeds the jitter.
    #[must_use]
    pub fn new(clock: Clock, runtime: Handle, seed: u64) -> Self {
        let shared = Arc::new(Shared { clock, checks: Semaphore::new(MAX_CHECKS) });
        Self { shared, runtime, followed: Mutex::default(), seeds: Mutex::new(fastrand::Rng::with_seed(seed)) }
    }

    /// Follows the upstreams of `live` from now on and no others. Those that stayed go on undisturbed.
    pub fn follow(&self, live: &Live) {
        let mut followed = self.followed.lock();
        let mut before = std::mem::take(&mut *followed);
        for (entry, metrics) in live.snapshot.upstreams.iter().zip(&live.metrics.upstreams) {
            let (roster, protocol) = (entry.upstream.roster(), entry.upstream.settings().protocol);
            let goes_on = |one: &Followed| {
                std::ptr::eq(one.roster.as_ptr(), Arc::as_ptr(roster))
                    && one.tls.as_ref().map(Weak::as_ptr) == entry.tls.as_ref().map(Arc::as_ptr)
                    && one.protocol == protocol
                    && !one.task.is_finished()
            };
            if let Some(place) = before.iter().position(goes_on) {
                followed.push(before.swap_remove(place));
                continue;
            }
            let watch = Watch {
                shared: Arc::clone(&self.shared),
                roster: Arc::downgrade(roster),
                tls: entry.tls.clone(),
                protocol,
                metrics: Arc::clone(metrics),
                rng: self.seeds.lock().fork(),
            };
            followed.push(Followed {
                roster: Arc::downgrade(roster),
                tls: entry.tls.as_ref().map(Arc::downgrade),
                protocol,
                task: self.runtime.spawn(watch.run()).abort_handle(),
            });
        }
        for gone in before {
            gone.task.abort();
        }
    }
}

/// The task of one upstream.
struct Watch {
    shared: Arc<Shared>,
    roster: Weak<Roster>,
    tls: Option<Arc<ClientConfig>>,
    protocol: Protocol,
    metrics: Arc<UpstreamMetrics>,
    rng: fastrand::Rng,
}

impl Watch {
    async fn run(mut self) {
        let Some(changed) = self.roster.upgrade().map(|roster| roster.changed()) else { return };
        // Ends with this task, and all checks with it.
        let mut tasks = JoinSet::new();
        let mut checked: HashMap<usize, AbortHandle> = HashMap::new();
        while let Some(wait) = self.look(&mut checked, &mut tasks) {
            tokio::select! {
                () = changed.notified() => {}
                () = sleep(wait) => {}
            }
        }
    }

    /// Looks at all endpoints once; how long until there is something to see again, or `None` at the end of the roster.
    fn look(&mut self, checked: &mut HashMap<usize, AbortHandle>, tasks: &mut JoinSet<()>) -> Option<Duration> {
        let roster = self.roster.upgrade()?;
        let now = self.shared.clock.now();
        let endpoints: Vec<Arc<Endpoint>> = roster.endpoints().as_slice().to_vec();
        for endpoint in &endpoints {
            tell(&roster, endpoint, now);
        }
        if let Some(check) = &roster.health().check {
            self.keep_checked(check, &endpoints, checked, tasks);
        }
        let ends = endpoints.iter().filter_map(|endpoint| endpoint.health.ejected_until(now)).min();
        let wait = ends.map_or(LONGEST_SLEEP, |ends| ends.since(now).saturating_add(Duration::from_millis(1)));
        Some(wait.min(LONGEST_SLEEP))
    }

    /// Starts the checks of endpoints that are new, and ends those of endpoints that are gone.
    fn keep_checked(
        &mut self,
        check: &Check,
        endpoints: &[Arc<Endpoint>],
        checked: &mut HashMap<usize, AbortHandle>,
        tasks: &mut JoinSet<()>,
    ) {
        while tasks.try_join_next().is_some() {}
        // An address in memory is not given to another endpoint while its task holds it.
        let key = |endpoint: &Endpoint| Arc::as_ptr(&endpoint.health).addr();
        checked.retain(|known, task| {
            let stays = endpoints.iter().any(|endpoint| key(endpoint) == *known);
            if !stays {
                task.abort();
            }
            stays
        });
        for endpoint in endpoints {
            checked.entry(key(endpoint)).or_insert_with(|| {
                let checks = Checks {
                    shared: Arc::clone(&self.shared),
                    roster: Weak::clone(&self.roster),
                    route: Route::new(Arc::clone(endpoint), check.clone(), self.tls.clone(), self.protocol),
                    metrics: Arc::clone(&self.metrics),
                    rng: self.rng.fork(),
                };
                tasks.spawn(checks.run())
            });
        }
    }
}

/// The checks of one endpoint, one after the other.
struct Checks {
    shared: Arc<Shared>,
    roster: Weak<Roster>,
    route: Route,
    metrics: Arc<UpstreamMetrics>,
    rng: fastrand::Rng,
}

impl Checks {
    async fn run(mut self) {
        let (limit, interval) = (self.route.check().timeout, self.route.check().interval);
        loop {
            let result = {
                // the semaphore is never closed
                let _permit = self.shared.checks.acquire().await;
                timeout(limit, self.route.ask()).await
            };
            let failure = match result {
                Ok(answer) => answer.err(),
                Err(_) => Some("no answer in time".to_owned()),
            };
            let Some(roster) = self.roster.upgrade() else { return };
            self.metrics.health_checked(failure.is_none());
            roster.checked(self.route.endpoint(), failure, self.shared.clock.now());
            drop(roster);
            sleep(interval.mul_f64(1.0 + JITTER * self.rng.f64())).await;
        }
    }
}

/// Puts a change of health on the log, once.
fn tell(roster: &Roster, endpoint: &Endpoint, now: Instant) {
    let state = endpoint.health_state(now);
    let Some(before) = endpoint.state.tell(state) else { return };
    let (upstream, address) = (roster.upstream(), &*endpoint.address);
    let (is, was) = (state.as_str(), before.as_str());
    match state {
        State::Healthy => info!(%upstream, endpoint = address, was, "an endpoint gets requests again"),
        State::Drained => info!(%upstream, endpoint = address, was, "an endpoint is drained"),
        State::Unhealthy => {
            let reason = endpoint.health.last_check().and_then(|check| check.failure).unwrap_or_default();
            warn!(%upstream, endpoint = address, state = is, was, reason, "an endpoint gets no more requests");
        }
        State::Ejected => {
            let reason = endpoint.health.ejected_for().as_str();
            warn!(%upstream, endpoint = address, state = is, was, reason, "an endpoint gets no more requests");
        }
    }
}
