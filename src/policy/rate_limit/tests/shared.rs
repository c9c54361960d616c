//! Several gateways and one store, on a clock that the test turns: what they admit between them.

use std::collections::HashMap;

use super::*;

/// Does what the script in `control::limits::link` does.
#[derive(Default)]
struct Model(HashMap<u128, i64>);

impl Model {
    fn report(&mut self, report: &Report, now: Instant, longest_debt: Duration) -> Duration {
        let micros = |time: u128| i64::try_from(time).expect("it fits");
        let now = micros(u128::from(now.as_nanos()) / 1_000);
        let bucket = self.0.get(&report.key).copied().unwrap_or(0).max(now) + report.taken_micros;
        let lacks = now + i64::try_from(report.lacks_micros).expect("it fits");
        let bucket = bucket.max(lacks).min(now + micros(longest_debt.as_micros()));
        self.0.insert(report.key, bucket);
        Duration::from_micros(u64::try_from(bucket - now).unwrap_or(0))
    }
}

struct Gateway {
    limits: RateLimit,
    ledger: Ledger,
    admitted: u64,
}

impl Gateway {
    fn new(limit: &str, store: &str) -> Self {
        let config: Spanned<Config> = serde_json::from_str(limit).expect("limits");
        let stores = serde_json::from_str(store).expect("stores");
        let (named, mut diagnostics) = (NamedLimits::new(), Diagnostics::default());
        let mut builder = LedgerBuilder::new((&named, &stores), None, 7, |_, _| None, &mut diagnostics);
        let limits = builder.compile(&config, &RouteName::from("r"), &mut diagnostics);
        let ledger = builder.finish(&mut diagnostics);
        assert!(!diagnostics.has_errors(), "{diagnostics:?}");
        Self { limits: limits.expect("valid"), ledger, admitted: 0 }
    }

    fn store(&self) -> &Store {
        self.ledger.stores().next().expect("a store")
    }

    fn ask(&mut self, requests: u32, now: Instant) {
        for _ in 0..requests {
            self.admitted += u64::from(passes(&self.limits, &Ask::of(1), now));
        }
    }

    /// What `control::limits` does in a turn.
    fn exchange(&self, model: &mut Model, now: Instant) {
        let buckets = self.ledger.iter().next().expect("a limit");
        if self.store().answers() {
            buckets.tell_levels(now);
        }
        for report in buckets.reports(now, 100) {
            let lacks = model.report(&report, now, buckets.longest_debt());
            buckets.adopt(report.key, lacks, now);
        }
    }
}

const STORE: &str = r#"{ "s": { "redis": "redis://127.0.0.1:1" } }"#;

/// Turns the clock from `from` to `to`, in milliseconds. Each gateway gets so many requests every two of them, and, while
/// the store is up, reports every ten, not at the same time as the others.
fn run(gateways: &mut [Gateway], requests: &[u32], model: &mut Option<Model>, from: u64, to: u64) -> Vec<u64> {
    for gateway in &mut *gateways {
        gateway.admitted = 0;
        gateway.store().count(u32::try_from(requests.len()).expect("few"));
    }
    for millis in (from..to).step_by(2) {
        for (index, gateway) in gateways.iter_mut().enumerate() {
            gateway.ask(requests[index], at(millis));
            match model {
                Some(model) if (millis + 4 * index as u64).is_multiple_of(10) => gateway.exchange(model, at(millis)),
                Some(_) => {}
                None => gateway.store().fails(),
            }
        }
    }
    gateways.iter().map(|gateway| gateway.admitted).collect()
}

fn gateways(count: usize, limit: &str) -> Vec<Gateway> {
    (0..count).map(|_| Gateway::new(limit, STORE)).collect()
}

#[track_caller]
fn check_close(admitted: &[u64], most: u64) {
    let sum: u64 = admitted.iter().sum();
    assert!(sum * 100 <= most * 102, "{admitted:?}: {sum} of {most}");
    assert!(sum * 100 >= most * 97, "{admitted:?}: {sum} of {most}");
}

const LIMIT: &str = r#"{ "key": "client.ip", "rate": "100/s", "burst": 200, "store": "s" }"#;

#[test]
fn gateways_admit_the_limit_between_them_however_requests_spread() {
    for requests in [[1, 1, 1], [3, 1, 0], [2, 0, 0]] {
        let admitted = run(&mut gateways(3, LIMIT), &requests, &mut Some(Model::default()), 0, 60_000);
        check_close(&admitted, 200 + 100 * 60);
    }
}

#[test]
fn without_the_store_each_gateway_has_its_share_and_with_it_they_share_again() {
    let mut gateways = gateways(3, LIMIT);
    let mut model = Some(Model::default());
    run(&mut gateways, &[1, 1, 1], &mut model, 0, 5_000);
    // it dies, and what it knew with it
    for admitted in run(&mut gateways, &[1, 1, 1], &mut None, 5_000, 15_000) {
        assert!(admitted <= 10 * 100 / 3 + 200 / 3 + 1, "{admitted}");
        assert!(admitted >= 10 * 100 / 3 - 5, "{admitted}");
    }
    model = Some(Model::default());
    let admitted = run(&mut gateways, &[1, 1, 1], &mut model, 15_000, 25_000);
    check_close(&admitted, 100 * 10);
    let admitted = run(&mut gateways, &[2, 0, 0], &mut model, 25_000, 35_000);
    check_close(&admitted, 100 * 10);
}

#[test]
fn a_burst_smaller_than_the_number_of_gateways_still_lets_requests_through() {
    let limit = r#"{ "key": "client.ip", "rate": "10/s", "burst": 1, "store": "s" }"#;
    let mut gateways = gateways(3, limit);
    let admitted: u64 = run(&mut gateways, &[1, 1, 1], &mut Some(Model::default()), 0, 60_000).iter().sum();
    assert!((500..=613).contains(&admitted), "{admitted}");
}

#[test]
fn what_holds_without_the_store_is_a_setting() {
    for (on_error, status) in [("open", true), ("closed", false)] {
        let store = format!(r#"{{ "s": {{ "redis": "redis://127.0.0.1:1", "on_error": "{on_error}" }} }}"#);
        let mut gateway = Gateway::new(r#"{ "key": "client.ip", "rate": "1/h", "burst": 1, "store": "s" }"#, &store);
        gateway.ask(3, at(0));
        assert_eq!(gateway.admitted, if status { 3 } else { 0 }, "{on_error}");
        gateway.store().answers();
        gateway.admitted = 0;
        gateway.ask(3, at(0));
        assert_eq!(gateway.admitted, 1, "{on_error}");
    }
}

#[test]
fn what_is_put_back_or_costs_more_is_told_too() {
    let limit = r#"{ "key": "client.ip", "rate": "1/s", "burst": 10, "store": "s", "cost": { "response_header": "x-cost", "default": 2 } }"#;
    let gateway = Gateway::new(limit, STORE);
    gateway.store().answers();
    let buckets = gateway.ledger.iter().next().expect("a limit");
    let answer = |cost: &'static str| {
        HeaderMap::from_iter([(HeaderName::from_static("x-cost"), HeaderValue::from_static(cost))])
    };
    let told = || buckets.reports(at(0), 9).iter().map(|report| report.taken_micros).collect::<Vec<_>>();
    let (_, mut charged) = decide(&gateway.limits, &Ask::of(1), at(0));
    assert_eq!(told(), [2_000_000]);
    gateway.limits.settle(&mut charged, &answer("5"), at(0));
    assert_eq!(told(), [3_000_000]);
    let (_, mut charged) = decide(&gateway.limits, &Ask::of(1), at(0));
    gateway.limits.settle(&mut charged, &answer("0"), at(0));
    assert_eq!(told(), [0]);
    assert!(told().is_empty());
}

#[test]
fn mistakes_of_stores_are_named() {
    #[track_caller]
    fn check(settings: &str, expected: &[&str]) {
        let stores = serde_json::from_str(&format!(r#"{{ "s": {{ {settings} }} }}"#)).expect("stores");
        let (named, mut diagnostics) = (NamedLimits::new(), Diagnostics::default());
        let limit = serde_json::from_str::<Spanned<Config>>(LIMIT).expect("limits");
        let mut builder = LedgerBuilder::new((&named, &stores), None, 7, |_, _| None, &mut diagnostics);
        let _ = builder.compile(&limit, &RouteName::from("r"), &mut diagnostics);
        let _ = builder.finish(&mut diagnostics);
        let found: Vec<_> = diagnostics.as_slice().iter().map(|one| &*one.message).collect();
        assert_eq!(found, expected);
    }
    check(r#""redis": "http://:secret@a""#, &["not the address of a Redis server"]);
    check(r#""redis": ["redis://a", "redis://b"]"#, &["2 addresses of one server"]);
    check(r#""redis": ["redis://a", "redis://b"], "cluster": true"#, &[]);
    check(r#""redis": "redis://a", "cluster": true, "sentinel": "m""#, &["`sentinel` beside `cluster`"]);
    check(r#""redis": "redis://a", "timeout": "1s""#, &["a timeout of 1s"]);
    check(r#""redis": "redis://a", "nodes": 0"#, &["nodes is a number from 1 to 1000: 0"]);
    check(r#""redis": "redis://a", "ca": "a.pem""#, &["`ca` is set, but the server is not reached over TLS"]);
    check_refused(
        r#"{ "key": "client.ip", "rate": "1/s", "store": "none" }"#,
        &["unknown_reference: no such rate limit store: \"none\""],
    );
}

#[test]
fn a_store_that_nobody_uses_is_a_warning_and_one_that_stays_is_kept() {
    let stores = serde_json::from_str(STORE).expect("stores");
    let (named, mut diagnostics) = (NamedLimits::new(), Diagnostics::default());
    let before = Gateway::new(LIMIT, STORE).ledger;
    let again = |store: &str| {
        let stores = serde_json::from_str(store).expect("stores");
        let ledger = LedgerBuilder::new((&named, &stores), Some(&before), 7, |_, _| None, &mut Diagnostics::default());
        let ledger = ledger.finish(&mut Diagnostics::default());
        let (one, other) = (before.stores().next().expect("a store"), ledger.stores().next().expect("a store"));
        Arc::ptr_eq(one, other)
    };
    assert!(again(STORE));
    assert!(!again(r#"{ "s": { "redis": "redis://127.0.0.1:2" } }"#));
    let builder = LedgerBuilder::new((&named, &stores), None, 7, |_, _| None, &mut diagnostics);
    let _ = builder.finish(&mut diagnostics);
    assert_eq!(diagnostics.as_slice()[0].message, "rate limit store \"s\" is used by no limit");
}

#[test]
fn reports_come_round_to_every_key() {
    let limit = r#"{ "key": "header:x", "rate": "1/h", "burst": 1, "store": "s" }"#;
    let gateway = Gateway::new(limit, STORE);
    gateway.store().answers();
    let buckets = gateway.ledger.iter().next().expect("a limit");
    let ask = |number: u32| passes(&gateway.limits, &Ask::of(1).with("x", &number.to_string()), at(0));
    assert!((0..2_000).all(ask));
    let first: Vec<u128> = buckets.reports(at(0), 100).iter().map(|report| report.key).collect();
    assert_eq!(first.len(), 100);
    // others come in meanwhile, and the older ones are told all the same
    let mut told = std::collections::BTreeSet::from_iter(first);
    for turn in 1..20 {
        assert!((0..50).all(|number| ask(10_000 * turn + number)));
        told.extend(buckets.reports(at(0), 150).iter().map(|report| report.key));
    }
    assert_eq!(told.len(), 2_000 + 19 * 50);
}
