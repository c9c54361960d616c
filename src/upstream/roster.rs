//! The endpoints of an upstream as they are now.
//!
//! An endpoint that was declared by a name becomes one endpoint for each address of the name, all of its weight (what
//! Envoy calls `STRICT_DNS`). The resolver tells the addresses; nothing here asks for them. A set of endpoints is
//! replaced as a whole, so a choice sees the old or the new one; an endpoint whose address is gone is no longer
//! chosen, and ends with the last request that is under way on it.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::config::Balance;
use super::endpoint::{Endpoint, Target, has_failed};
use super::health::{self, EjectionReason, Health, Referee};
use super::selection::EndpointSet;
use super::url::{EndpointUrl, Location};
use crate::model::clock::Instant;
use crate::model::ids::UpstreamName;
use crate::model::outcome::Outcome;

/// More addresses of one name than this are left out, the numerically highest first.
pub const MAX_ADDRESSES: usize = 256;

/// An endpoint as it was declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Declared {
    pub(super) url: EndpointUrl,
    pub(super) server_name: Arc<str>,
    pub(super) weight: u32,
}

/// What is declared, what the names in it resolve to, and the endpoints that follow.
#[derive(Debug)]
pub struct Roster {
    upstream: UpstreamName,
    declared: Box<[Declared]>,
    balance: Balance,
    /// Where round robin stands.
    turn: Arc<AtomicU64>,
    /// Addresses by name, sorted. Locked while the endpoints are replaced, never by a request.
    resolved: Mutex<BTreeMap<Arc<str>, Arc<[IpAddr]>>>,
    endpoints: ArcSwap<EndpointSet>,
    health: health::Settings,
    referee: Arc<Referee>,
    /// Told when an endpoint may have changed its health, or when there are others.
    changed: Arc<Notify>,
}

impl Roster {
    /// The roster of what is declared. Addresses that `previous` knows are taken over, and with `keep_state` the
    /// state of its endpoints; their health in any case, as far as its settings stayed, and what the operator drained.
    pub(super) fn new(
        upstream: UpstreamName,
        declared: Vec<Declared>,
        balance: Balance,
        health: health::Settings,
        previous: Option<&Self>,
        keep_state: bool,
    ) -> Self {
        let mut resolved = previous.map(|previous| previous.resolved.lock().clone()).unwrap_or_default();
        resolved.retain(|name, _| declared.iter().any(|one| one.url.name() == Some(name)));
        let known = previous.map(|previous| previous.endpoints.load());
        let known = Known {
            endpoints: known.as_ref().map_or(&[], |set| set.as_slice()),
            state: keep_state,
            check: previous.is_some_and(|previous| previous.health.check == health.check),
            outlier: previous.is_some_and(|previous| previous.health.outlier == health.outlier),
        };
        let turn = Arc::default();
        let endpoints = endpoints(&declared, &resolved, &known);
        let endpoints = EndpointSet::new(endpoints, &balance, &turn, &health);
        Self {
            upstream,
            declared: declared.into(),
            balance,
            turn,
            resolved: Mutex::new(resolved),
            endpoints: ArcSwap::from_pointee(endpoints),
            health,
            referee: previous.map(|previous| Arc::clone(&previous.referee)).unwrap_or_default(),
            changed: Arc::default(),
        }
    }

    /// Whose endpoints these are.
    #[must_use]
    pub fn upstream(&self) -> &UpstreamName {
        &self.upstream
    }

    /// How a choice is made among them.
    #[must_use]
    pub fn balance(&self) -> &Balance {
        &self.balance
    }

    /// The endpoints at this moment.
    #[must_use]
    pub fn endpoints(&self) -> Guard<Arc<EndpointSet>> {
        self.endpoints.load()
    }

    /// What is declared, resolved or not, each with its weight.
    pub fn declared(&self) -> impl Iterator<Item = (&EndpointUrl, u32)> {
        self.declared.iter().map(|declared| (&declared.url, declared.weight))
    }

    /// The names that have to be resolved, each of them once.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        let mut names: Vec<&Arc<str>> = self.declared.iter().filter_map(|declared| declared.url.name()).collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter()
    }

    /// Takes in the addresses of a name; true when they are others than before. Endpoints whose address stays keep
    /// their state.
    pub fn publish(&self, name: &str, addresses: &[IpAddr]) -> bool {
        let Some(name) = self.names().find(|known| &***known == name) else { return false };
        let mut addresses = addresses.to_vec();
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(MAX_ADDRESSES);
        let mut resolved = self.resolved.lock();
        if resolved.get(name).is_some_and(|before| **before == *addresses) {
            return false;
        }
        resolved.insert(Arc::clone(name), addresses.into());
        let known = self.endpoints.load();
        let known = Known { endpoints: known.as_slice(), state: true, check: true, outlier: true };
        let endpoints = endpoints(&self.declared, &resolved, &known);
        self.endpoints.store(Arc::new(EndpointSet::new(endpoints, &self.balance, &self.turn, &self.health)));
        self.changed.notify_one();
        true
    }

    /// Whether the same endpoints are declared, with the same choice among them and the same care for them.
    pub(super) fn is_declared_as(&self, declared: &[Declared], balance: &Balance, health: &health::Settings) -> bool {
        *self.declared == *declared && self.balance == *balance && self.health == *health
    }

    /// How the endpoints are kept healthy.
    #[must_use]
    pub fn health(&self) -> &health::Settings {
        &self.health
    }

    /// Told when an endpoint may have changed its health, or when there are others; for one listener.
    #[must_use]
    pub fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// Ejections so far, in the order of [`EjectionReason::ALL`]; kept over reloads.
    #[must_use]
    pub fn ejections(&self) -> [u64; EjectionReason::ALL.len()] {
        self.referee.ejections()
    }

    /// How many endpoints are in each state, in the order of [`health::State::ALL`].
    #[must_use]
    pub fn census(&self, now: Instant) -> [usize; health::State::ALL.len()] {
        let mut census = [0; health::State::ALL.len()];
        for endpoint in self.endpoints.load().as_slice() {
            if let Some(count) = census.get_mut(endpoint.health_state(now) as usize) {
                *count += 1;
            }
        }
        census
    }

    /// Takes the endpoint at `address` out, or lets it in again (slowly); false when there is none.
    pub fn drain(&self, address: &str, drained: bool, now: Instant) -> bool {
        let set = self.endpoints.load();
        let mut found = false;
        // one address may be declared by two names
        for endpoint in set.as_slice().iter().filter(|endpoint| &*endpoint.address == address) {
            found = true;
            if endpoint.state.drain(drained) && !drained {
                endpoint.health.warm(now);
            }
        }
        if found {
            self.changed.notify_one();
        }
        found
    }

    /// Takes in how a check of `endpoint` ended; `failure` says why it was no good one.
    pub fn checked(&self, endpoint: &Endpoint, failure: Option<String>, now: Instant) {
        if let Some(check) = &self.health.check
            && check.take_in(&endpoint.health, failure, now)
        {
            self.changed.notify_one();
        }
    }

    /// Takes in how an attempt at `endpoint` ended.
    pub(super) fn judged(&self, endpoint: &Endpoint, outcome: Outcome, now: Instant) {
        let (Some(outlier), Some(failed)) = (&self.health.outlier, has_failed(outcome)) else { return };
        if outlier.judged(self.endpoints.load().as_slice(), &self.referee, endpoint, failed, now) {
            self.changed.notify_one();
        }
    }
}

impl EndpointUrl {
    fn name(&self) -> Option<&Arc<str>> {
        match &self.location {
            Location::Name { host, .. } => Some(host),
            Location::Address(_) | Location::Unix(_) => None,
        }
    }
}

/// Endpoints of before, and what of them lives on.
struct Known<'a> {
    endpoints: &'a [Arc<Endpoint>],
    state: bool,
    check: bool,
    outlier: bool,
}

/// One endpoint for each address of what is declared. Those that are `known` keep what lives on of them; one that joins
/// them starts slowly.
fn endpoints(
    declared: &[Declared],
    resolved: &BTreeMap<Arc<str>, Arc<[IpAddr]>>,
    known: &Known<'_>,
) -> Vec<Arc<Endpoint>> {
    let by_place: HashMap<(&str, &Target), &Arc<Endpoint>> =
        known.endpoints.iter().map(|endpoint| ((&*endpoint.url, &endpoint.target), endpoint)).collect();
    let mut endpoints = Vec::with_capacity(declared.len());
    for declared in declared {
        let url: Arc<str> = declared.url.to_string().into();
        for target in targets(&declared.url.location, resolved) {
            let before = by_place.get(&(&*url, &target));
            let state = match before {
                Some(before) if known.state => Arc::clone(&before.state),
                Some(before) => Arc::new(before.state.renewed()),
                None => Arc::default(),
            };
            let health = match before {
                Some(before) if known.check && known.outlier => Arc::clone(&before.health),
                Some(before) => Arc::new(before.health.carried(known.check, known.outlier)),
                None if known.endpoints.is_empty() => Arc::default(),
                None => Arc::new(Health::joining()),
            };
            endpoints.push(Arc::new(Endpoint {
                url: Arc::clone(&url),
                address: target.to_string().into(),
                target,
                scheme: declared.url.scheme,
                authority: declared.url.authority(),
                server_name: Arc::clone(&declared.server_name),
                weight: declared.weight,
                state,
                health,
            }));
        }
    }
    endpoints
}

fn targets(location: &Location, resolved: &BTreeMap<Arc<str>, Arc<[IpAddr]>>) -> Vec<Target> {
    match location {
        Location::Address(address) => vec![Target::Tcp(*address)],
        Location::Unix(path) => vec![Target::Unix(Arc::clone(path))],
        Location::Name { host, port } => {
            let addresses = resolved.get(host).map_or(&[][..], |addresses| &**addresses);
            addresses.iter().map(|ip| Target::Tcp(SocketAddr::new(*ip, *port))).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::clock::Instant;
    use crate::upstream::endpoint::Tried;
    use crate::upstream::selection::Choice;

    fn roster(urls: &[&str]) -> Roster {
        let declare = |url: &&str| {
            let url = EndpointUrl::parse(url).expect("an address");
            Declared { server_name: url.host(), url, weight: 1 }
        };
        Roster::new(
            "api".into(),
            urls.iter().map(declare).collect(),
            Balance::default(),
            health::Settings::default(),
            None,
            true,
        )
    }

    fn ips(written: &[&str]) -> Vec<IpAddr> {
        written.iter().map(|ip| ip.parse().expect("an address")).collect()
    }

    #[track_caller]
    fn check(roster: &Roster, expected: &[&str]) {
        let set = roster.endpoints();
        let seen: Vec<&str> = set.as_slice().iter().map(|endpoint| &*endpoint.address).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn each_address_of_a_name_is_an_endpoint() {
        let roster = roster(&["http://a.test:81", "http://10.0.0.9", "unix:/s", "https://a.test"]);
        assert_eq!(roster.names().map(|name| &**name).collect::<Vec<_>>(), ["a.test"]);
        check(&roster, &["10.0.0.9:80", "unix:/s"]);
        assert!(roster.publish("a.test", &ips(&["::1", "10.0.0.2", "10.0.0.1", "10.0.0.2"])));
        let expected = ["10.0.0.1:81", "10.0.0.2:81", "[::1]:81", "10.0.0.9:80", "unix:/s"];
        check(&roster, &[&expected[..], &["10.0.0.1:443", "10.0.0.2:443", "[::1]:443"]].concat());
        assert_eq!(&*roster.endpoints().as_slice()[0].server_name, "a.test");
        assert_eq!(&*roster.endpoints().as_slice()[0].authority, "a.test:81");
    }

    #[test]
    fn an_address_that_is_gone_is_not_chosen_and_its_requests_finish() {
        let roster = roster(&["http://a.test"]);
        roster.publish("a.test", &ips(&["10.0.0.1", "10.0.0.2"]));
        let gone = Arc::clone(&roster.endpoints().as_slice()[0]);
        let stays = Arc::clone(&roster.endpoints().as_slice()[1]);
        let under_way = [gone.begin(Instant::default()), stays.begin(Instant::default())];
        roster.publish("a.test", &ips(&["10.0.0.2", "10.0.0.3"]));
        check(&roster, &["10.0.0.2:80", "10.0.0.3:80"]);
        assert_eq!(gone.state.in_flight(), 1);
        assert_eq!(roster.endpoints().as_slice()[0].key(), stays.key());
        assert_eq!(roster.endpoints().as_slice()[0].state.in_flight(), 1);
        drop(under_way);
        assert_eq!(roster.endpoints().as_slice()[0].state.in_flight(), 0);
    }

    #[test]
    fn the_same_addresses_in_another_order_change_nothing() {
        let roster = roster(&["http://a.test"]);
        assert!(roster.publish("a.test", &ips(&["10.0.0.1", "10.0.0.2"])));
        assert!(!roster.publish("a.test", &ips(&["10.0.0.2", "10.0.0.1"])));
        assert!(!roster.publish("b.test", &ips(&["10.0.0.9"])));
    }

    #[test]
    fn the_addresses_of_a_name_are_bounded() {
        let roster = roster(&["http://a.test"]);
        let many: Vec<IpAddr> = (0..1000_u32).map(|n| IpAddr::from((0x0a00_0000 + n).to_be_bytes())).collect();
        roster.publish("a.test", &many);
        assert_eq!(roster.endpoints().as_slice().len(), MAX_ADDRESSES);
    }

    #[test]
    fn all_addresses_of_a_name_take_their_turns_across_a_change() {
        let roster = roster(&["http://a.test"]);
        roster.publish("a.test", &ips(&["10.0.0.1", "10.0.0.2"]));
        let tried = Tried::default();
        let choice = Choice { random: 0, hash: None, now: Instant::default(), tried: &tried };
        let next = || roster.endpoints().choose(&choice).map(|endpoint| endpoint.address.to_string());
        assert_eq!([next(), next(), next()].map(Option::unwrap), ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.1:80"]);
        roster.publish("a.test", &ips(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]));
        assert_eq!([next(), next(), next()].map(Option::unwrap), ["10.0.0.4:80", "10.0.0.1:80", "10.0.0.2:80"]);
    }
}
