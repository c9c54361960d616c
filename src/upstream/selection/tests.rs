//! The rules that hold for every way of choosing, then those of each.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use super::super::endpoint::tests::endpoint;
use super::*;
use crate::model::key::Key;
use crate::model::outcome::Outcome;

fn balances() -> [Balance; 5] {
    let hash = Balance::Hash(Key::ClientIp.into());
    [Balance::RoundRobin, Balance::LeastRequest, Balance::Ewma, Balance::Random, hash]
}

fn set(balance: &Balance, weights: &[u32]) -> EndpointSet {
    let endpoints = (1_u16..).zip(weights).map(|(index, weight)| endpoint(index, *weight)).collect();
    EndpointSet::new(endpoints, balance, &Arc::default(), &health::Settings::default())
}

fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

/// Where each of `count` requests goes that end at once, by the endpoint's index.
fn spread(set: &EndpointSet, tried: &Tried, count: usize) -> Vec<u32> {
    let mut rng = fastrand::Rng::with_seed(11);
    let mut seen = vec![0; set.as_slice().len()];
    for _ in 0..count {
        let choice = Choice { random: rng.u64(..), hash: Some(rng.u64(..)), now: at(0), tried };
        let chosen = set.choose(&choice).expect("some endpoint is eligible");
        let index = set.as_slice().iter().position(|endpoint| Arc::ptr_eq(endpoint, chosen));
        seen[index.expect("one of the set")] += 1;
    }
    seen
}

/// The shares of idle endpoints are their weights, within `tolerance` of all requests.
#[track_caller]
fn check_shares(balance: &Balance, weights: &[u32], left_out: &[usize], tolerance: f64) {
    const COUNT: u32 = 30_000;
    let set = set(balance, weights);
    let mut tried = Tried::default();
    for index in left_out {
        tried.add(&set.as_slice()[*index]);
    }
    let weight = |index: usize| if left_out.contains(&index) { 0.0 } else { f64::from(weights[index]) };
    let total: f64 = (0..weights.len()).map(weight).sum();
    for (index, seen) in spread(&set, &tried, COUNT as usize).into_iter().enumerate() {
        let (seen, expected) = (f64::from(seen) / f64::from(COUNT), weight(index) / total);
        assert!(
            (seen - expected).abs() <= tolerance,
            "{balance:?} {weights:?} -{left_out:?} [{index}]: {seen}, not {expected}"
        );
    }
}

#[test]
fn shares_follow_the_weights() {
    for (weights, left_out) in [
        (&[1, 1, 1][..], &[][..]),
        (&[1, 2, 3], &[]),
        (&[1, 2, 3], &[2]),
        (&[5, 1, 1, 3], &[0, 3]),
        (&[100, 1], &[]),
        (&[7], &[]),
    ] {
        check_shares(&Balance::RoundRobin, weights, left_out, 0.0005);
        check_shares(&Balance::Random, weights, left_out, 0.015);
        check_shares(&Balance::Hash(Key::Path.into()), weights, left_out, 0.015);
    }
    // idle endpoints tie, so the first one drawn is taken
    check_shares(&Balance::LeastRequest, &[1, 1, 1], &[], 0.015);
    check_shares(&Balance::LeastRequest, &[1, 2, 3], &[], 0.015);
    check_shares(&Balance::LeastRequest, &[4, 1, 1, 4], &[0], 0.015);
}

proptest! {
    #[test]
    fn what_was_tried_is_never_chosen_and_nothing_panics(
        weights in prop::collection::vec(1_u32..=1000, 0..12),
        left_out in prop::collection::vec(any::<bool>(), 12),
        seed in any::<u64>(),
        keyed in any::<bool>(),
    ) {
        for balance in balances() {
            let set = set(&balance, &weights);
            let mut tried = Tried::default();
            let left = set.as_slice().iter().zip(&left_out).filter(|(_, out)| **out);
            left.for_each(|(endpoint, _)| tried.add(endpoint));
            let mut rng = fastrand::Rng::with_seed(seed);
            for _ in 0..20 {
                let hash = keyed.then(|| rng.u64(..));
                let choice = Choice { random: rng.u64(..), hash, now: at(rng.u64(..1 << 20)), tried: &tried };
                let chosen = set.choose(&choice);
                prop_assert!(!chosen.is_some_and(|chosen| tried.contains(chosen)), "{balance:?}");
                prop_assert_eq!(chosen.is_none(), tried.len() == weights.len(), "{:?}", balance);
            }
        }
    }

    #[test]
    fn retries_reach_every_endpoint(weights in prop::collection::vec(1_u32..=1000, 1..12), seed in any::<u64>()) {
        for balance in balances() {
            let set = set(&balance, &weights);
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut tried = Tried::default();
            for _ in &weights {
                let choice = Choice { random: rng.u64(..), hash: Some(seed), now: at(0), tried: &tried };
                let chosen = set.choose(&choice).map(Arc::clone);
                tried.add(&chosen.expect("one is left"));
            }
            prop_assert_eq!(tried.len(), weights.len());
            let once_more = set.choose(&Choice { random: 1, hash: None, now: at(0), tried: &tried });
            prop_assert!(once_more.is_none());
        }
    }

    #[test]
    fn one_round_of_turns_is_exactly_the_weights(weights in prop::collection::vec(1_u32..=40, 1..8)) {
        let set = set(&Balance::RoundRobin, &weights);
        let seen = spread(&set, &Tried::default(), weights.iter().sum::<u32>() as usize);
        prop_assert_eq!(seen, weights);
    }

    #[test]
    fn only_the_keys_of_an_endpoint_that_leaves_move(
        weights in prop::collection::vec(1_u32..=5, 2..9),
        leaver in any::<prop::sample::Index>(),
        hashes in prop::collection::vec(any::<u64>(), 200),
    ) {
        let balance = Balance::Hash(Key::ClientIp.into());
        let before = set(&balance, &weights);
        let leaver = Arc::clone(&before.as_slice()[leaver.index(weights.len())]);
        let rest = before.as_slice().iter().filter(|one| !Arc::ptr_eq(one, &leaver)).map(Arc::clone).collect();
        let after = EndpointSet::new(rest, &balance, &Arc::default(), &health::Settings::default());
        let mut without = Tried::default();
        without.add(&leaver);
        let none = Tried::default();
        for hash in hashes {
            let at_once = Choice { random: 0, hash: Some(hash), now: at(0), tried: &none };
            let (was, is) = (before.choose(&at_once).expect("one"), after.choose(&at_once).expect("one"));
            if !Arc::ptr_eq(was, &leaver) {
                prop_assert!(Arc::ptr_eq(was, is));
            }
            // a retry goes where the key goes once the endpoint is gone
            let retry = before.choose(&Choice { tried: &without, ..at_once }).expect("one");
            prop_assert!(Arc::ptr_eq(retry, is));
        }
    }
}

#[test]
fn the_same_key_stays_with_its_endpoint_whatever_the_load() {
    let set = set(&Balance::Hash(Key::ClientIp.into()), &[1, 2, 1]);
    let tried = Tried::default();
    let choose =
        |random, now| set.choose(&Choice { random, hash: Some(77), now: at(now), tried: &tried }).map(Arc::clone);
    let first = choose(1, 0).expect("one");
    let under_way: Vec<_> = (0..50).map(|_| first.begin(at(0))).collect();
    assert!((0..50).all(|n| choose(n, n).is_some_and(|chosen| Arc::ptr_eq(&chosen, &first))));
    drop(under_way);
}

#[test]
fn a_request_without_the_key_is_spread() {
    let set = set(&Balance::Hash(Key::ClientIp.into()), &[1, 1, 1]);
    let tried = Tried::default();
    let mut rng = fastrand::Rng::with_seed(3);
    let mut seen: HashMap<usize, u32> = HashMap::new();
    for _ in 0..3000 {
        let choice = Choice { random: rng.u64(..), hash: None, now: at(0), tried: &tried };
        *seen.entry(set.choose(&choice).expect("one").key()).or_default() += 1;
    }
    assert!(seen.len() == 3 && seen.values().all(|count| count.abs_diff(1000) < 120), "{seen:?}");
}

/// Requests arrive one by one, and each takes as many steps as its endpoint says: the share of each endpoint.
fn simulate(balance: &Balance, weights: &[u32], steps: &[u64], arrivals: u64) -> Vec<f64> {
    let set = set(balance, weights);
    let tried = Tried::default();
    let mut rng = fastrand::Rng::with_seed(5);
    let mut under_way = Vec::new();
    let mut seen = vec![0_u32; weights.len()];
    for now in 0..arrivals {
        under_way.retain(|(ends, request): &(u64, super::super::InFlight)| {
            if *ends <= now {
                request.judged(Outcome::Status(http::StatusCode::OK), at(now));
            }
            *ends > now
        });
        let choice = Choice { random: rng.u64(..), hash: None, now: at(now), tried: &tried };
        let chosen = set.choose(&choice).expect("one");
        let index = set.as_slice().iter().position(|endpoint| Arc::ptr_eq(endpoint, chosen)).expect("one of the set");
        seen[index] += 1;
        under_way.push((now + steps[index], chosen.begin(at(now))));
    }
    #[expect(clippy::cast_precision_loss, reason = "a test's share")]
    seen.into_iter().map(|count| f64::from(count) / arrivals as f64).collect()
}

#[test]
fn a_slow_endpoint_gets_less_where_load_counts() {
    for balance in [Balance::LeastRequest, Balance::Ewma] {
        let shares = simulate(&balance, &[1, 1, 1], &[10, 10, 100], 20_000);
        assert!(shares[2] < 0.12, "{balance:?} {shares:?}");
        assert!((shares[0] - shares[1]).abs() < 0.2, "{balance:?} {shares:?}");
    }
    let shares = simulate(&Balance::Random, &[1, 1, 1], &[10, 10, 100], 20_000);
    assert!((shares[2] - 0.333).abs() < 0.02, "{shares:?}");
}

#[test]
fn load_is_shared_by_weight_under_load() {
    let shares = simulate(&Balance::LeastRequest, &[1, 3], &[100, 100], 20_000);
    assert!((shares[1] - 0.75).abs() < 0.03, "{shares:?}");
}

#[test]
fn a_recovered_endpoint_is_tried_again() {
    let set = set(&Balance::Ewma, &[1, 1]);
    let [slow, fast] = set.as_slice() else { panic!("two endpoints") };
    slow.state.latency().record(Duration::from_secs(5), at(0));
    fast.state.latency().record(Duration::from_millis(5), at(0));
    let tried = Tried::default();
    let chosen = |now| {
        fast.state.latency().record(Duration::from_millis(5), at(now));
        set.choose(&Choice { random: 1, hash: None, now: at(now), tried: &tried }).map(|chosen| chosen.key())
    };
    assert_eq!(chosen(1000), Some(fast.key()));
    assert_eq!(chosen(120_000), Some(slow.key()));
}

#[test]
fn threads_that_take_turns_together_share_one_round() {
    let set = set(&Balance::RoundRobin, &[3, 2, 1]);
    let tried = Tried::default();
    let count = || {
        let mut seen: HashMap<usize, u32> = HashMap::new();
        for _ in 0..6000 {
            let choice = Choice { random: 0, hash: None, now: at(0), tried: &tried };
            *seen.entry(set.choose(&choice).expect("one").key()).or_default() += 1;
        }
        seen
    };
    let seen = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).fold(
            HashMap::<usize, u32>::new(),
            |mut all, (key, count)| {
                *all.entry(key).or_default() += count;
                all
            },
        )
    });
    let expected = set.as_slice().iter().map(|endpoint| (endpoint.key(), 4000 * endpoint.weight)).collect();
    assert_eq!(seen, expected);
}
