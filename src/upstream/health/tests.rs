use std::sync::Arc;

use http::StatusCode;
use proptest::prelude::*;

use super::*;
use crate::model::diagnostic::Diagnostics;
use crate::model::key::Key;
use crate::model::outcome::Outcome;
use crate::model::source::{SourceSpan, Sources, Spanned};
use crate::upstream::config::Config;
use crate::upstream::endpoint::{Endpoint, Tried};
use crate::upstream::selection::Choice;
use crate::upstream::{Balance, Upstream};

fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

fn spanned<T>(value: T) -> Spanned<T> {
    Spanned::new(value, SourceSpan { file: 0, start: 1, end: 2 })
}

/// An upstream of endpoints at `10.0.0.1:1`, `10.0.0.1:2` and so on, with settings as they are written in JSON.
fn config(count: u16, settings: &str) -> Config {
    let endpoints: Vec<String> = (1..=count).map(|port| format!("http://10.0.0.1:{port}")).collect();
    let mut document = serde_json::json!({ "endpoints": endpoints });
    let settings: serde_json::Value = serde_json::from_str(settings).expect("JSON");
    for (key, value) in settings.as_object().expect("settings") {
        document[key] = value.clone();
    }
    serde_json::from_value(document).expect("a configuration")
}

#[track_caller]
fn upstream(config: &Config, previous: Option<&Upstream>) -> Upstream {
    let mut diagnostics = Diagnostics::default();
    let name = spanned("api".to_owned());
    let compiled = Upstream::compile(&name, config, previous, &Sources::default(), &mut diagnostics);
    compiled.unwrap_or_else(|| panic!("refused: {diagnostics:?}"))
}

fn endpoints(upstream: &Upstream) -> Vec<Arc<Endpoint>> {
    upstream.roster().endpoints().as_slice().to_vec()
}

fn states(upstream: &Upstream, now: Instant) -> Vec<State> {
    endpoints(upstream).iter().map(|endpoint| endpoint.health_state(now)).collect()
}

/// An attempt at an endpoint that ends at once.
fn attempt(upstream: &Upstream, index: usize, good: bool, now: Instant) {
    let status = if good { StatusCode::OK } else { StatusCode::BAD_GATEWAY };
    upstream.judged(&endpoints(upstream)[index].begin(now), Outcome::Status(status), now);
}

fn check_result(upstream: &Upstream, index: usize, good: bool, now: Instant) {
    upstream.roster().checked(&endpoints(upstream)[index], (!good).then(|| "status 503".to_owned()), now);
}

const CHECK: &str =
    r#"{"health_check": {"path": "/healthz", "interval": "1s", "unhealthy_after": 3, "healthy_after": 2}}"#;

#[test]
fn an_endpoint_falls_and_rises_at_its_thresholds() {
    let upstream = upstream(&config(1, CHECK), None);
    let state = |now| states(&upstream, at(now))[0];
    assert_eq!(state(0), State::Healthy, "never checked");
    for (now, good, expected) in [
        (0, false, State::Healthy),
        (1000, false, State::Healthy),
        (2000, true, State::Healthy),
        (3000, false, State::Healthy),
        (4000, false, State::Healthy),
        (5000, false, State::Unhealthy),
        (6000, true, State::Unhealthy),
        (7000, false, State::Unhealthy),
        (8000, true, State::Unhealthy),
        (9000, true, State::Healthy),
    ] {
        check_result(&upstream, 0, good, at(now));
        assert_eq!(state(now), expected, "at {now}");
    }
    let last = endpoints(&upstream)[0].health.last_check();
    assert_eq!(last, Some(LastCheck { at: at(9000), failure: None }));
}

proptest! {
    #[test]
    fn a_flapping_host_changes_its_state_at_most_once_per_window(
        results in prop::collection::vec(any::<bool>(), 1..200),
        fall in 1_u32..4,
        rise in 1_u32..4,
        jitter in 0_u64..100,
    ) {
        let settings = format!(
            r#"{{"health_check": {{"tcp": true, "interval": "1s", "unhealthy_after": {fall}, "healthy_after": {rise}}}}}"#
        );
        let upstream = upstream(&config(1, &settings), None);
        let window = 1000 * u64::from(fall.max(rise));
        let (mut state, mut changed) = (State::Healthy, None);
        for (index, good) in (0_u64..).zip(results) {
            let now = index * (1000 + jitter);
            check_result(&upstream, 0, good, at(now));
            let is = states(&upstream, at(now))[0];
            if is != state {
                prop_assert!(changed.is_none_or(|changed| now - changed >= window), "{changed:?} {now}");
                (state, changed) = (is, Some(now));
            }
        }
    }

    #[test]
    fn the_ejected_share_never_passes_its_limit(
        count in 1_u16..9,
        percent in 1_u32..=100,
        events in prop::collection::vec((any::<prop::sample::Index>(), prop::bool::weighted(0.3), 0_u64..400), 1..300),
    ) {
        let settings = format!(
            r#"{{"outlier": {{"consecutive_failures": 2, "eject_for": "1s", "max_ejected": "{percent}%",
                "success_rate": {{"min_requests": 3, "min_endpoints": 2, "window": "500ms"}}}}}}"#
        );
        let limit = usize::from(count) * percent as usize / 100;
        prop_assume!(limit > 0);
        let upstream = upstream(&config(count, &settings), None);
        let mut began: Vec<Option<u64>> = vec![None; usize::from(count)];
        let mut now = 0;
        for (index, good, passes) in events {
            now += passes;
            let index = index.index(usize::from(count));
            let before = states(&upstream, at(now));
            attempt(&upstream, index, good, at(now));
            let after = states(&upstream, at(now));
            let ejected = after.iter().filter(|state| **state == State::Ejected).count();
            prop_assert!(ejected <= limit, "{ejected} of {count} at {percent}%");
            for (index, (before, after)) in before.iter().zip(&after).enumerate() {
                if before != after {
                    prop_assert_eq!(*after, State::Ejected, "an end is a matter of time");
                    prop_assert!(began[index].is_none_or(|began| now - began >= 1000), "ejected twice in a window");
                    began[index] = Some(now);
                }
            }
        }
    }
}

#[test]
fn ejections_from_many_threads_keep_to_the_limit() {
    let upstream = upstream(&config(8, r#"{"outlier": {"consecutive_failures": 1, "eject_for": "1s"}}"#), None);
    std::thread::scope(|scope| {
        for index in 0..8 {
            let upstream = &upstream;
            scope.spawn(move || attempt(upstream, index, false, at(0)));
        }
    });
    assert_eq!(upstream.roster().census(at(0)), [4, 0, 4, 0]);
    assert_eq!(upstream.roster().ejections(), [4, 0]);
}

const OUTLIER: &str = r#"{"outlier": {"consecutive_failures": 3, "eject_for": "10s", "max_eject_for": "25s"}}"#;

#[test]
fn an_endpoint_is_ejected_for_longer_each_time_and_forgiven_with_time() {
    let upstream = upstream(&config(3, OUTLIER), None);
    let until = |now| endpoints(&upstream)[1].health.ejected_until(at(now)).map(|until| until.as_nanos() / 1_000_000);
    let fail = |count: usize, now| (0..count).for_each(|_| attempt(&upstream, 1, false, at(now)));
    fail(2, 0);
    attempt(&upstream, 1, true, at(0));
    fail(2, 0);
    assert_eq!(until(0), None, "a success between");
    fail(1, 0);
    assert_eq!((until(0), states(&upstream, at(9_999))[1]), (Some(10_000), State::Ejected));
    assert_eq!(states(&upstream, at(10_000))[1], State::Healthy);
    // on probation
    fail(1, 10_000);
    assert_eq!(until(10_000), Some(30_000));
    fail(1, 30_000);
    assert_eq!(until(30_000), Some(55_000), "max_eject_for");
    attempt(&upstream, 1, true, at(55_000));
    fail(2, 55_000);
    assert_eq!(until(55_000), None, "cleared by a good answer");
    // two of three are forgiven after twenty seconds
    fail(1, 75_000);
    assert_eq!(until(75_000), Some(95_000));
    assert_eq!(endpoints(&upstream)[1].health.ejected_for(), EjectionReason::ConsecutiveFailures);
}

#[test]
fn only_what_speaks_against_the_endpoint_ejects_it() {
    for (outcome, ejects) in [
        (Outcome::Connect, true),
        (Outcome::Reset, true),
        (Outcome::Invalid, true),
        (Outcome::Timeout(crate::model::deadline::Limit::Attempt), true),
        (Outcome::Status(StatusCode::BAD_GATEWAY), true),
        (Outcome::Status(StatusCode::SERVICE_UNAVAILABLE), true),
        (Outcome::Status(StatusCode::GATEWAY_TIMEOUT), true),
        (Outcome::Status(StatusCode::INTERNAL_SERVER_ERROR), false),
        (Outcome::Status(StatusCode::TOO_MANY_REQUESTS), false),
        (Outcome::Status(StatusCode::OK), false),
        (Outcome::ClientGone, false),
        (Outcome::Superseded, false),
    ] {
        let upstream = upstream(&config(2, r#"{"outlier": {"consecutive_failures": 1}}"#), None);
        upstream.judged(&endpoints(&upstream)[0].begin(at(0)), outcome, at(0));
        assert_eq!(states(&upstream, at(0))[0] == State::Ejected, ejects, "{outcome:?}");
    }
    // what says nothing does not clear either
    let upstream = upstream(&config(2, r#"{"outlier": {"consecutive_failures": 2}}"#), None);
    attempt(&upstream, 0, false, at(0));
    upstream.judged(&endpoints(&upstream)[0].begin(at(0)), Outcome::ClientGone, at(0));
    attempt(&upstream, 0, false, at(0));
    assert_eq!(states(&upstream, at(0))[0], State::Ejected);
}

/// A window in which each endpoint answers so many of 100 attempts well, then one more attempt: who is ejected.
#[track_caller]
fn check_rates(good: &[u32], settings: &str, expected: &[usize]) {
    let count = u16::try_from(good.len()).expect("few");
    let rate = format!(
        r#"{{"outlier": {{"consecutive_failures": 10000, "max_ejected": "50%", "success_rate": {{{settings}}}}}}}"#
    );
    let upstream = upstream(&config(count, &rate), None);
    attempt(&upstream, 0, true, at(0)); // the first window begins
    for (index, good) in good.iter().enumerate() {
        (0..100).for_each(|number| attempt(&upstream, index, number < *good, at(5000)));
    }
    assert!(!states(&upstream, at(5000)).contains(&State::Ejected), "before the window is over");
    attempt(&upstream, 0, true, at(10_000));
    let ejected: Vec<usize> =
        (0..good.len()).filter(|index| states(&upstream, at(10_000))[*index] == State::Ejected).collect();
    assert_eq!(ejected, expected, "{good:?}");
    assert_eq!(upstream.roster().ejections(), [0, expected.len() as u64]);
}

#[test]
fn an_endpoint_is_compared_with_its_peers() {
    check_rates(&[99, 98, 70], "", &[2]);
    check_rates(&[99, 98, 85], "", &[]);
    check_rates(&[99, 98, 85], r#""margin": "10%""#, &[2]);
    check_rates(&[40, 45, 50], "", &[]);
    check_rates(&[99, 10, 20, 99, 99, 99], "", &[1, 2]);
    // the worst first, and no more than half
    check_rates(&[0, 100, 10], "", &[0]);
    check_rates(&[99, 10], "", &[]);
    check_rates(&[99, 10], r#""min_endpoints": 2"#, &[1]);
    check_rates(&[99, 99, 10], r#""min_requests": 101"#, &[]);
}

fn counts(upstream: &Upstream, now: Instant, count: u32) -> Vec<u32> {
    let mut rng = fastrand::Rng::with_seed(9);
    let tried = Tried::default();
    let mut counts = vec![0; endpoints(upstream).len()];
    for _ in 0..count {
        let choice = Choice { random: rng.u64(..), hash: Some(rng.u64(..)), now, tried: &tried };
        let Some(chosen) = upstream.choose(&choice) else { continue };
        let index = endpoints(upstream).iter().position(|endpoint| Arc::ptr_eq(endpoint, &chosen));
        counts[index.expect("one of them")] += 1;
    }
    counts
}

fn balances() -> [Balance; 5] {
    let hash = Balance::Hash(Key::ClientIp.into());
    [Balance::RoundRobin, Balance::LeastRequest, Balance::Ewma, Balance::Random, hash]
}

#[test]
fn what_is_not_healthy_gets_no_request_whatever_the_balance() {
    for balance in balances() {
        let mut config = config(
            4,
            r#"{"health_check": {"tcp": true, "unhealthy_after": 1}, "outlier": {"consecutive_failures": 1}}"#,
        );
        config.balance = spanned(balance.clone());
        let upstream = upstream(&config, None);
        check_result(&upstream, 0, false, at(0));
        attempt(&upstream, 1, false, at(0));
        assert!(upstream.roster().drain("10.0.0.1:3", true, at(0)));
        assert_eq!(upstream.roster().census(at(0)), [1, 1, 1, 1]);
        assert_eq!(counts(&upstream, at(0), 100), [0, 0, 0, 100], "{balance:?}");
        check_result(&upstream, 3, false, at(0));
        assert_eq!(counts(&upstream, at(0), 100), [0, 0, 0, 0], "{balance:?}");
        assert!(!upstream.roster().drain("10.0.0.1:9", true, at(0)));
    }
}

#[test]
fn with_too_few_healthy_ones_health_is_ignored_but_drained_ones_stay_out() {
    for balance in balances() {
        let mut config =
            config(4, r#"{"health_check": {"tcp": true, "unhealthy_after": 1}, "panic_threshold": "50%"}"#);
        config.balance = spanned(balance.clone());
        let upstream = upstream(&config, None);
        let served =
            |upstream: &Upstream| counts(upstream, at(0), 400).iter().map(|count| *count > 0).collect::<Vec<_>>();
        check_result(&upstream, 0, false, at(0));
        check_result(&upstream, 1, false, at(0));
        assert_eq!(served(&upstream), [false, false, true, true], "{balance:?}: half is not less than half");
        check_result(&upstream, 2, false, at(0));
        assert_eq!(served(&upstream), [true, true, true, true], "{balance:?}");
        upstream.roster().drain("10.0.0.1:1", true, at(0));
        assert_eq!(served(&upstream), [false, true, true, true], "{balance:?}");
        upstream.roster().drain("10.0.0.1:2", true, at(0));
        assert_eq!(served(&upstream), [false, false, false, true], "{balance:?}: half of those that count");
    }
}

#[test]
fn a_slow_start_gives_its_part_of_the_weight_at_every_moment() {
    for balance in balances() {
        let mut config = config(3, r#"{"slow_start": "10s"}"#);
        config.balance = spanned(balance.clone());
        let upstream = upstream(&config, None);
        upstream.roster().drain("10.0.0.1:1", true, at(0));
        upstream.roster().drain("10.0.0.1:1", false, at(1000));
        // an idle endpoint that is drawn at all is preferred by none of the two that look at load: they tie
        for (now, part) in [(1000, 0.1), (3000, 0.2), (6000, 0.5), (10_000, 0.9), (11_000, 1.0), (99_000, 1.0)] {
            let share = f64::from(counts(&upstream, at(now), 20_000)[0]) / 20_000.0;
            let expected = part / (2.0 + part);
            assert!((share - expected).abs() < 0.015, "{balance:?} at {now}: {share}, not {expected}");
        }
    }
}

#[test]
fn when_all_start_slowly_their_shares_are_equal() {
    for balance in balances() {
        let mut config = config(2, r#"{"slow_start": "10s"}"#);
        config.balance = spanned(balance.clone());
        let upstream = upstream(&config, None);
        for address in ["10.0.0.1:1", "10.0.0.1:2"] {
            upstream.roster().drain(address, true, at(0));
            upstream.roster().drain(address, false, at(0));
        }
        let counts = counts(&upstream, at(0), 10_000);
        assert!(counts[0].abs_diff(5000) < 250, "{balance:?} {counts:?}");
    }
}

#[test]
fn as_a_hashed_endpoint_warms_up_each_key_moves_to_it_once() {
    let mut config = config(3, r#"{"slow_start": "10s"}"#);
    config.balance = spanned(Balance::Hash(Key::ClientIp.into()));
    let upstream = upstream(&config, None);
    let tried = Tried::default();
    let place = |hash, now| {
        let choice = Choice { random: 0, hash: Some(hash), now: at(now), tried: &tried };
        upstream.choose(&choice).map(|chosen| chosen.address.to_string())
    };
    upstream.roster().drain("10.0.0.1:1", true, at(0));
    let before: Vec<_> = (0..500_u64).map(|hash| place(hash << 40, 0)).collect();
    upstream.roster().drain("10.0.0.1:1", false, at(0));
    for (hash, before) in (0..500_u64).zip(before) {
        let mut places: Vec<_> = (0..=10).map(|second| place(hash << 40, second * 1000)).collect();
        places.insert(0, before);
        places.dedup();
        assert!(places.len() <= 2, "{places:?}");
        assert!(places.len() == 1 || places[1].as_deref() == Some("10.0.0.1:1"), "{places:?}");
    }
}

#[test]
fn an_ejected_and_an_unhealthy_endpoint_return_slowly_and_so_does_one_that_joins() {
    let both = r#"{"health_check": {"tcp": true, "interval": "1s", "unhealthy_after": 1, "healthy_after": 1},
        "outlier": {"consecutive_failures": 1, "eject_for": "5s"}, "slow_start": "10s"}"#;
    let before = upstream(&config(3, both), None);
    let slow = |upstream: &Upstream, index: usize, now| {
        let set = upstream.roster().endpoints();
        set.slow_start(&set.as_slice()[index], at(now)).map(|share| (share * 10.0).round() / 10.0)
    };
    assert_eq!(slow(&before, 0, 0), None, "all begin at once");
    attempt(&before, 0, false, at(0));
    check_result(&before, 1, false, at(0));
    check_result(&before, 1, true, at(2000));
    assert_eq!((slow(&before, 0, 4000), slow(&before, 1, 4000)), (None, Some(0.2)));
    assert_eq!((slow(&before, 0, 10_000), slow(&before, 1, 12_000)), (Some(0.5), None));
    let after = upstream(&config(4, both), Some(&before));
    counts(&after, at(20_000), 1); // its first choice
    counts(&after, at(20_000), 30);
    assert_eq!(slow(&after, 3, 23_000), Some(0.3));
    assert_eq!(slow(&after, 2, 23_000), None);
}

#[test]
fn health_lives_on_over_a_reload_as_long_as_its_settings_do() {
    use State::{Drained, Ejected, Healthy, Unhealthy};

    let settings = |path: &str, failures: u32, connect: &str| {
        config(
            3,
            &format!(
                r#"{{"health_check": {{"path": "{path}", "unhealthy_after": 1}}, "connect_timeout": "{connect}",
                    "outlier": {{"consecutive_failures": {failures}}}}}"#
            ),
        )
    };
    let before = upstream(&settings("/a", 1, "1s"), None);
    check_result(&before, 0, false, at(0));
    attempt(&before, 1, false, at(0));
    before.roster().drain("10.0.0.1:3", true, at(0));
    let expect = |config: &Config, expected: [State; 3]| {
        let after = upstream(config, Some(&before));
        assert_eq!(states(&after, at(0)), expected);
        assert_eq!(after.roster().ejections(), [1, 0], "counted on");
    };
    expect(&settings("/a", 1, "1s"), [Unhealthy, Ejected, Drained]);
    expect(&settings("/b", 1, "1s"), [Healthy, Ejected, Drained]);
    expect(&settings("/a", 2, "1s"), [Unhealthy, Healthy, Drained]);
    expect(&settings("/a", 1, "2s"), [Unhealthy, Ejected, Drained]);
    expect(&config(3, "{}"), [Healthy, Healthy, Drained]);
}

#[test]
fn a_change_of_health_is_told_once() {
    let upstream = upstream(&config(1, CHECK), None);
    let state = &endpoints(&upstream)[0].state;
    assert_eq!(state.tell(State::Healthy), None);
    assert_eq!(state.tell(State::Drained), Some(State::Healthy));
    assert_eq!(state.tell(State::Drained), None);
}

#[track_caller]
fn check(count: u16, settings: &str, expected: &[(&str, &str)]) {
    let mut diagnostics = Diagnostics::default();
    let name = spanned("api".to_owned());
    let compiled = Upstream::compile(&name, &config(count, settings), None, &Sources::default(), &mut diagnostics);
    let seen: Vec<_> = diagnostics.as_slice().iter().map(|one| (one.code, one.message.as_str())).collect();
    assert_eq!(seen, expected, "{settings}");
    assert_eq!(compiled.is_none(), !expected.is_empty());
}

#[test]
fn settings_that_do_nothing_are_refused() {
    check(1, r#"{"health_check": {}}"#, &[("missing_key", "a check of nothing")]);
    check(
        1,
        r#"{"health_check": {"path": "/", "tcp": true}}"#,
        &[("conflicting_keys", "more than one of path, tcp and grpc")],
    );
    check(1, r#"{"health_check": {"tcp": false}}"#, &[("dead_setting", "tcp = false checks nothing")]);
    check(
        1,
        r#"{"health_check": {"tcp": true, "status": ["2xx"], "host": "a"}}"#,
        &[
            ("dead_setting", "health_check.status is set, but tcp has no use for it"),
            ("dead_setting", "health_check.host is set, but tcp has no use for it"),
        ],
    );
    check(
        1,
        r#"{"health_check": {"grpc": "", "status": ["2xx"]}}"#,
        &[("dead_setting", "health_check.status is set, but grpc has no use for it")],
    );
    check(1, r#"{"outlier": {}}"#, &[("dead_setting", "no endpoint could ever be ejected: max_ejected is \"50%\"")]);
    check(1, r#"{"outlier": {"max_ejected": "100%"}}"#, &[]);
    check(2, r#"{"outlier": {}}"#, &[]);
    check(
        9,
        r#"{"outlier": {"max_ejected": "0%"}}"#,
        &[("dead_setting", "no endpoint could ever be ejected: max_ejected is \"0%\"")],
    );
    check(
        1,
        r#"{"panic_threshold": "50%"}"#,
        &[("dead_setting", "panic_threshold is set, but nothing makes an endpoint unhealthy")],
    );
    check(1, r#"{"panic_threshold": "0%", "slow_start": "1s"}"#, &[]);
}

#[test]
fn mistakes_are_reported_together() {
    check(
        1,
        r#"{"health_check": {"path": "healthz", "interval": "1ms", "timeout": "0s", "unhealthy_after": 0,
            "healthy_after": 101, "status": ["2xx", "6xx", "299-200", "99", "20x"], "host": "a b", "port": 0},
            "slow_start": "0s"}"#,
        &[
            ("bad_value", "health_check.interval is at least 10ms: \"1ms\""),
            ("bad_value", "health_check.timeout must be longer than nothing: \"0s\""),
            ("bad_value", "health_check.unhealthy_after is a number from 1 to 100: 0"),
            ("bad_value", "health_check.healthy_after is a number from 1 to 100: 101"),
            ("bad_value", "a port is a number from 1 to 65535: 0"),
            ("bad_value", "not a status from 200 to 599: \"6xx\""),
            ("bad_value", "not a status from 200 to 599: \"299-200\""),
            ("bad_value", "not a status from 200 to 599: \"99\""),
            ("bad_value", "not a status from 200 to 599: \"20x\""),
            ("bad_value", "not a host: \"a b\""),
            ("bad_value", "not a path: \"healthz\""),
            ("bad_value", "slow_start must be longer than nothing: \"0s\""),
        ],
    );
    check(
        2,
        r#"{"outlier": {"consecutive_failures": 0, "eject_for": "10s", "max_eject_for": "5s",
            "success_rate": {"margin": "100%", "min_requests": 0, "min_endpoints": 1, "window": "0s"}}}"#,
        &[
            ("bad_value", "outlier.consecutive_failures is a number from 1 to 10000: 0"),
            ("bad_value", "outlier.max_eject_for is shorter than eject_for: \"5s\""),
            ("bad_value", "outlier.success_rate.window must be longer than nothing: \"0s\""),
            ("bad_value", "outlier.success_rate.min_requests is at least 1: 0"),
            ("bad_value", "outlier.success_rate.min_endpoints is a number from 2 to 1024: 1"),
            ("dead_setting", "no success rate is more than 100% below another"),
        ],
    );
    check(
        1,
        r#"{"protocol": "h1", "health_check": {"grpc": "a"}}"#,
        &[("bad_value", "gRPC needs HTTP/2, but the protocol is h1")],
    );
}

#[test]
fn a_check_is_compiled_with_its_defaults() {
    let compiled = upstream(
        &config(1, r#"{"health_check": {"path": "/healthz?full=1", "status": ["204", "3xx", "400-404"]}}"#),
        None,
    );
    let check = compiled.roster().health().check.clone().expect("a check");
    assert_eq!((check.interval, check.timeout), (Duration::from_secs(5), Duration::from_secs(1)));
    assert_eq!((check.unhealthy_after, check.healthy_after, check.port), (3, 2, None));
    assert_eq!(check.window(), Duration::from_secs(15));
    let statuses = vec![204..=204, 300..=399, 400..=404].into();
    assert_eq!(check.kind, Kind::Http { path: "/healthz?full=1".parse().unwrap(), host: None, statuses });
}
