//! Keeps the addresses of upstreams' names current, beside the requests: none ever waits for a lookup.
//!
//! One task per name asks its [`NameService`], publishes what it learns to the rosters that declare the name, and asks
//! again when the TTL is over. While a name can't be resolved its last addresses stay, and so do those of one address
//! family while only that one can't be asked; an answer without any address counts as a failure too, since a zone
//! that is being reloaded looks just like it. A task holds its rosters weakly and ends with the last of them.
//!
//! Which of the addresses a request goes to is decided in `upstream::selection`.

mod system;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, warn};

pub use self::system::SystemNames;
use crate::upstream::Roster;
use crate::upstream::roster::MAX_ADDRESSES;

/// An answer is asked for again at the earliest after this time, whatever its TTL.
const MIN_TTL: Duration = Duration::from_secs(1);
/// An answer is asked for again at the latest after this time (and the jitter).
const MAX_TTL: Duration = Duration::from_mins(5);
/// The first pause after a failure; it doubles with each further one.
const MIN_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause after a failure.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// The most that is added to each wait, as a share of it, so that gateways that started together spread out.
const JITTER: f64 = 0.1;
/// A lookup that takes longer counts as failed.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// Lookups under way at the same time; further ones wait.
const MAX_LOOKUPS: usize = 16;

/// Whoever knows the addresses of names.
#[async_trait]
pub trait NameService: Send + Sync + 'static {
    /// Looks one name up.
    async fn lookup(&self, name: &str) -> Result<Answer, LookupError>;
}

/// The addresses of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its IPv4 addresses; `None` when they could not be asked for, and the earlier ones stay.
    pub v4: Option<Vec<Ipv4Addr>>,
    /// Its IPv6 addresses; `None` as above.
    pub v6: Option<Vec<Ipv6Addr>>,
    /// How long the answer is good for.
    pub ttl: Duration,
}

/// Why a name has no addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// The name service failed, or could not be reached.
    #[error("{0}")]
    Failed(String),
    /// The name does not exist, or has no address.
    #[error("no address")]
    NoAddress,
    /// No answer within ten seconds.
    #[error("no answer in time")]
    Timeout,
}

/// Lookups since the start, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Lookups that gave addresses.
    pub answered: u64,
    /// Lookups that did not.
    pub failed: u64,
}

/// Resolves the names of all rosters that it was told to follow. Dropping it ends its tasks.
pub struct Resolver {
    shared: Arc<Shared>,
    runtime: Handle,
    tasks: Mutex<JoinSet<()>>,
    seeds: Mutex<fastrand::Rng>,
}

struct Shared {
    service: Box<dyn NameService>,
    names: Mutex<HashMap<Arc<str>, Arc<Name>>>,
    lookups: Semaphore,
    answered: AtomicU64,
    failed: AtomicU64,
    counted: OnceLock<Counted>,
}

/// Hears how each lookup ended.
type Counted = Box<dyn Fn(Option<&LookupError>) + Send + Sync>;

/// One name, whom it matters to, and what is known of it.
struct Name {
    name: Arc<str>,
    state: Mutex<NameState>,
    /// Whether a first lookup has ended, well or not.
    asked: watch::Sender<bool>,
}

#[derive(Default)]
struct NameState {
    rosters: Vec<Weak<Roster>>,
    v4: Vec<Ipv4Addr>,
    v6: Vec<Ipv6Addr>,
}

impl Resolver {
    /// A resolver that asks `service`, and whose tasks run on `runtime`. `seed` feeds the jitter.
    #[must_use]
    pub fn new(service: impl NameService, runtime: Handle, seed: u64) -> Self {
        let shared = Shared {
            service: Box::new(service),
            names: Mutex::default(),
            lookups: Semaphore::new(MAX_LOOKUPS),
            answered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            counted: OnceLock::new(),
        };
        let seeds = Mutex::new(fastrand::Rng::with_seed(seed));
        Self { shared: Arc::new(shared), runtime, tasks: Mutex::default(), seeds }
    }

    /// The same resolver, which tells `counted` how each lookup ended: the error, or none. To be told before it follows.
    #[must_use]
    pub fn counted(self, counted: impl Fn(Option<&LookupError>) + Send + Sync + 'static) -> Self {
        let _ = self.shared.counted.set(Box::new(counted));
        self
    }

    /// Follows the names of these rosters from now on, as long as the rosters live. A name that is known already is
    /// published at once and not looked up again; telling a roster twice is harmless.
    pub fn follow<'a>(&self, rosters: impl IntoIterator<Item = &'a Arc<Roster>>) {
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        let mut names = self.shared.names.lock();
        for roster in rosters {
            for name in roster.names() {
                if let Some(known) = names.get(name) {
                    known.add(roster);
                    continue;
                }
                let followed = Arc::new(Name::new(Arc::clone(name)));
                followed.add(roster);
                names.insert(Arc::clone(name), Arc::clone(&followed));
                let rng = self.seeds.lock().fork();
                tasks.spawn_on(keep_current(Arc::clone(&self.shared), followed, rng), &self.runtime);
            }
        }
    }

    /// Waits until every followed name was looked up once, but no longer than `within`. Gives the names that have no
    /// address yet; they go on being asked for.
    pub async fn resolve_now(&self, within: Duration) -> Vec<Arc<str>> {
        let deadline = Instant::now() + within;
        let mut names: Vec<Arc<Name>> = self.shared.names.lock().values().map(Arc::clone).collect();
        names.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let mut missing = Vec::new();
        for name in names {
            let mut asked = name.asked.subscribe();
            // that it was asked, or that the time is over: what counts is what is known then
            let _ = timeout_at(deadline, asked.wait_for(|asked| *asked)).await;
            if name.state.lock().is_empty() {
                missing.push(Arc::clone(&name.name));
            }
        }
        missing
    }

    /// Lookups since the start.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let Shared { answered, failed, .. } = &*self.shared;
        Counts { answered: answered.load(Ordering::Relaxed), failed: failed.load(Ordering::Relaxed) }
    }
}

/// The life of one name.
async fn keep_current(shared: Arc<Shared>, name: Arc<Name>, mut rng: fastrand::Rng) {
    let mut failures = 0_u32;
    while shared.is_followed(&name) {
        let wait = match shared.lookup(&name).await {
            Ok(ttl) => {
                failures = 0;
                ttl.clamp(MIN_TTL, MAX_TTL)
            }
            Err(error) => {
                warn!(name = %name.name, %error, "a name of an upstream could not be resolved");
                failures += 1;
                MIN_PAUSE.saturating_mul(1 << (failures - 1).min(16)).min(MAX_PAUSE)
            }
        };
        name.asked.send_replace(true);
        sleep(wait.mul_f64(1.0 + JITTER * rng.f64())).await;
    }
}

impl Shared {
    /// Whether the name still matters to anybody; if not, it is forgotten, and its task has to end.
    fn is_followed(&self, name: &Name) -> bool {
        // `follow` adds rosters under this lock, so none is added between the look and the removal
        let mut names = self.names.lock();
        let followed = name.state.lock().rosters.iter().any(|roster| roster.strong_count() > 0);
        if !followed {
            names.remove(&name.name);
        }
        followed
    }

    async fn lookup(&self, name: &Name) -> Result<Duration, LookupError> {
        let result = {
            // the semaphore is never closed
            let _permit = self.lookups.acquire().await;
            timeout(LOOKUP_TIMEOUT, self.service.lookup(&name.name)).await
        };
        let result = result.unwrap_or(Err(LookupError::Timeout)).and_then(|answer| name.take_in(answer));
        let count = if result.is_ok() { &self.answered } else { &self.failed };
        count.fetch_add(1, Ordering::Relaxed);
        if let Some(counted) = self.counted.get() {
            counted(result.as_ref().err());
        }
        result
    }
}

impl Name {
    fn new(name: Arc<str>) -> Self {
        Self { name, state: Mutex::default(), asked: watch::Sender::new(false) }
    }

    fn add(&self, roster: &Arc<Roster>) {
        let mut state = self.state.lock();
        state.rosters.retain(|known| known.strong_count() > 0);
        if !state.rosters.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(roster))) {
            state.rosters.push(Arc::downgrade(roster));
        }
        if !state.is_empty() {
            roster.publish(&self.name, &state.addresses());
        }
    }

    /// Publishes an answer; the time until the next question.
    fn take_in(&self, answer: Answer) -> Result<Duration, LookupError> {
        if answer.v4.as_ref().is_none_or(Vec::is_empty) && answer.v6.as_ref().is_none_or(Vec::is_empty) {
            return Err(LookupError::NoAddress);
        }
        let mut state = self.state.lock();
        if let Some(v4) = answer.v4 {
            state.v4 = v4;
        }
        if let Some(v6) = answer.v6 {
            state.v6 = v6;
        }
        let addresses = state.addresses();
        if addresses.len() > MAX_ADDRESSES {
            warn!(name = %self.name, addresses = addresses.len(), limit = MAX_ADDRESSES, "a name has too many addresses");
        }
        for roster in state.rosters.iter().filter_map(Weak::upgrade) {
            if roster.publish(&self.name, &addresses) {
                debug!(upstream = %roster.upstream(), name = %self.name, addresses = addresses.len(), "addresses changed");
            }
        }
        Ok(answer.ttl)
    }
}

impl NameState {
    fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    fn addresses(&self) -> Vec<IpAddr> {
        self.v4.iter().map(|ip| IpAddr::V4(*ip)).chain(self.v6.iter().map(|ip| IpAddr::V6(*ip))).collect()
    }
}

#[cfg(test)]
mod tests;
