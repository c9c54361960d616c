//! What the limits of a route decide, over time and over reloads.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::{Method, Version};
use proptest::prelude::*;

use super::*;
use crate::model::diagnostic::Diagnostics;
use crate::model::ids::RouteName;
use crate::model::principal::{AuthMethod, Principal};
use crate::model::request::Scheme;
use crate::model::source::Spanned;

mod shared;

/// A request from `client` with these fields, to be judged.
struct Ask {
    client: IpAddr,
    headers: HeaderMap,
    caller: Option<Principal>,
}

impl Ask {
    fn from(client: &str) -> Self {
        Self { client: client.parse().expect("an address"), headers: HeaderMap::new(), caller: None }
    }

    fn of(number: u8) -> Self {
        Self { client: Ipv4Addr::new(192, 0, 2, number).into(), headers: HeaderMap::new(), caller: None }
    }

    fn by(self, name: &str, group: &str) -> Self {
        Self { caller: Some(Principal::new(name, AuthMethod::ApiKey, [group.into()], None)), ..self }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, HeaderValue::from_str(value).expect("a value"));
        self
    }

    fn view(&self) -> RequestView<'_> {
        RequestView {
            method: &Method::GET,
            scheme: Scheme::Http,
            host: "example.com",
            port: None,
            path: "/",
            query: None,
            headers: &self.headers,
            version: Version::HTTP_11,
            client: self.client,
            peer: SocketAddr::new(self.client, 1),
            route: Some("r"),
            principal: self.caller.as_ref(),
        }
    }
}

type NamedLimits = BTreeMap<String, Spanned<NamedConfig>>;

fn named(written: &str) -> NamedLimits {
    serde_json::from_str(written).expect("named limits")
}

/// What `written` compiles to on route `r`, and the ledger that a reload hands over.
fn compile(named: &NamedLimits, written: &str, previous: Option<&Ledger>) -> Result<(RateLimit, Ledger), Vec<String>> {
    let config: Spanned<Config> = serde_json::from_str(written).expect("limits");
    let mut diagnostics = Diagnostics::default();
    let stores = BTreeMap::new();
    let mut builder = LedgerBuilder::new((named, &stores), previous, 7, |_, _| None, &mut diagnostics);
    let compiled = builder.compile(&config, &RouteName::from("r"), &mut diagnostics);
    let ledger = builder.finish(&mut diagnostics);
    let found = || diagnostics.as_slice().iter().map(|one| format!("{}: {}", one.code, one.message)).collect();
    compiled.map(|compiled| (compiled, ledger)).ok_or_else(found)
}

fn limits(written: &str) -> RateLimit {
    compile(&NamedLimits::new(), written, None).expect("valid limits").0
}

const fn at(millis: u64) -> Instant {
    // not the beginning of the clock
    Instant::from_nanos((10_000 + millis) * 1_000_000)
}

/// Both turns, as admission takes them.
fn decide(limits: &RateLimit, ask: &Ask, now: Instant) -> (Judged, Charged) {
    let mut charged = Charged::default();
    let mut judged = limits.decide(Turn::BeforeAuthentication, &ask.view(), &mut charged, now);
    if judged.rejection.is_none() {
        let after = limits.decide(Turn::AfterAuthentication, &ask.view(), &mut charged, now);
        judged.decisions.extend(after.decisions);
        judged.rejection = after.rejection;
    }
    (judged, charged)
}

fn passes(limits: &RateLimit, ask: &Ask, now: Instant) -> bool {
    decide(limits, ask, now).0.rejection.is_none()
}

fn told(limits: &RateLimit, charged: &Charged) -> (String, String) {
    let mut headers = HeaderMap::new();
    limits.tell(charged, &mut headers);
    let text = |name| headers.get(name).map_or("", |value| value.to_str().expect("text")).to_owned();
    (text("ratelimit-policy"), text("ratelimit"))
}

#[test]
fn a_client_gets_its_burst_and_then_the_rate() {
    let limits = limits(r#"{ "key": "client.ip", "rate": "10/s", "burst": 3 }"#);
    let (one, other) = (Ask::of(1), Ask::of(2));
    assert!((0..3).all(|_| passes(&limits, &one, at(0))));
    let (judged, _) = decide(&limits, &one, at(40));
    let decision = &judged.decisions[0];
    assert_eq!((decision.verdict, &*decision.reason), (Verdict::Reject, "client.ip is used up for another 60ms"));
    let rejection = judged.rejection.expect("refused");
    assert_eq!(rejection.code, Code::RateLimited);
    assert_eq!(rejection.detail, "too many requests: \"client.ip\" allows 10/s and 3 at once");
    assert_eq!(rejection.headers, [(RETRY_AFTER, HeaderValue::from(1))]);
    assert!(passes(&limits, &other, at(40)), "another client has a bucket of its own");
    assert!(passes(&limits, &one, at(100)));
    assert!(!passes(&limits, &one, at(100)));
}

#[test]
fn an_ipv6_client_is_its_64() {
    let limits = limits(r#"{ "key": "client.ip", "rate": "1/m", "burst": 1 }"#);
    assert!(passes(&limits, &Ask::from("2001:db8:0:1::1"), at(0)));
    assert!(!passes(&limits, &Ask::from("2001:db8:0:1:ffff::2"), at(0)));
    assert!(passes(&limits, &Ask::from("2001:db8:0:2::1"), at(0)));
    assert!(passes(&limits, &Ask::from("192.0.2.1"), at(0)));
    assert!(!passes(&limits, &Ask::from("::ffff:192.0.2.1"), at(0)), "it is an IPv4 client");
}

#[test]
fn what_refuses_takes_nothing_from_the_others() {
    let limits = limits(
        r#"[{ "key": "header:x-tenant", "rate": "1/h", "burst": 2 }, { "key": "client.ip", "rate": "1/h", "burst": 1 }]"#,
    );
    let tenant = |client| Ask::of(client).with("x-tenant", "a");
    assert!(passes(&limits, &tenant(1), at(0)));
    for _ in 0..5 {
        assert!(!passes(&limits, &tenant(1), at(0)), "its address is used up");
    }
    assert!(passes(&limits, &tenant(2), at(0)), "the tenant had one left");
    assert!(!passes(&limits, &tenant(3), at(0)));
    assert!(passes(&limits, &Ask::of(3).with("x-tenant", "b"), at(0)), "the address was not charged for it");
}

#[test]
fn requests_without_the_key_share_a_bucket_and_say_so() {
    let limits = limits(r#"{ "key": ["header:x-a", "header:x-b"], "rate": "1/h", "burst": 1 }"#);
    let (judged, _) = decide(&limits, &Ask::of(1), at(0));
    assert_eq!(judged.decisions[0].reason, "within the limits, in the bucket of requests without the key");
    assert!(!passes(&limits, &Ask::of(2), at(0)));
    for (name, value) in [("x-a", "v"), ("x-b", "v"), ("x-a", "vv")] {
        assert!(passes(&limits, &Ask::of(3).with(name, value), at(0)), "{name}: {value}");
    }
    assert!(passes(&limits, &Ask::of(3).with("x-a", "a").with("x-b", "bc"), at(0)));
    assert!(passes(&limits, &Ask::of(3).with("x-a", "ab").with("x-b", "c"), at(0)), "values don't run together");
    assert_eq!(limits.limits[0].buckets.keyless(), 2);
}

#[test]
fn in_report_mode_a_limit_only_says_so() {
    let limits = limits(
        r#"[{ "key": "client.ip", "rate": "1/h", "burst": 1, "mode": "report" }, { "key": "host", "rate": "1/h", "burst": 3 }]"#,
    );
    assert!(passes(&limits, &Ask::of(1), at(0)));
    let (judged, charged) = decide(&limits, &Ask::of(1), at(0));
    let said: Vec<_> = judged.decisions.iter().map(|one| (one.verdict, &*one.reason)).collect();
    let expected =
        [(Verdict::Allow, "within the limits"), (Verdict::WouldReject, "client.ip is used up for another 1h")];
    assert_eq!(said, expected);
    assert!(judged.rejection.is_none());
    assert_eq!(told(&limits, &charged).1, "\"host\";r=1;t=3600", "the client is told of what holds for it");
    assert!(passes(&limits, &Ask::of(2), at(0)));
    let (judged, _) = decide(&limits, &Ask::of(3), at(0));
    assert!(judged.rejection.is_some());
    assert_eq!(judged.decisions.len(), 1, "what was refused has nothing to report");
    assert_eq!(limits.limits[0].buckets.tracked(), 2, "nor was it charged there");
}

#[test]
fn whoever_is_exempt_is_neither_refused_nor_counted() {
    let limits = limits(
        r#"{ "key": "host", "rate": "1/h", "burst": 1, "exempt": { "client": ["10.0.0.0/8", "2001:db8::/32"] } }"#,
    );
    for _ in 0..3 {
        let (judged, charged) = decide(&limits, &Ask::from("10.1.2.3"), at(0));
        assert_eq!(judged.decisions[0].reason, "exempt from every limit");
        assert_eq!(told(&limits, &charged), (String::new(), String::new()));
    }
    assert!(passes(&limits, &Ask::of(1), at(0)));
    assert!(!passes(&limits, &Ask::of(1), at(0)));
    assert!(passes(&limits, &Ask::from("2001:db8::1"), at(0)));
}

#[test]
fn responses_tell_how_the_limits_stand() {
    let limits = limits(
        r#"[{ "key": "client.ip", "rate": "10/s", "burst": 25, "cost": 2, "name": "per address", "exempt": { "client": ["10.0.0.0/8"] } },
            { "key": "host", "rate": "1000/h" },
            { "key": "method", "rate": "1/s", "burst": 9, "headers": false }]"#,
    );
    let (_, charged) = decide(&limits, &Ask::of(1), at(0));
    let (policy, state) = told(&limits, &charged);
    assert_eq!(policy, "\"per address\";q=25;w=3, \"host\";q=1000;w=3600");
    assert_eq!(state, "\"per address\";r=23;t=1, \"host\";r=999;t=4");
    let (_, charged) = decide(&limits, &Ask::from("10.0.0.1"), at(0));
    let (policy, state) = told(&limits, &charged);
    assert_eq!((&*policy, &*state), ("\"host\";q=1000;w=3600", "\"host\";r=998;t=4"));
    for _ in 0..9 {
        assert!(passes(&limits, &Ask::of(2), at(60_000)));
    }
    let (judged, charged) = decide(&limits, &Ask::of(2), at(60_000));
    assert!(judged.rejection.is_some());
    assert_eq!(told(&limits, &charged).1, "\"per address\";r=7;t=1, \"host\";r=991;t=4", "a refusal tells it too");
}

#[test]
fn a_response_may_say_what_it_cost() {
    let written =
        r#"{ "key": "client.ip", "rate": "10/s", "burst": 10, "cost": { "response_header": "X-Cost", "default": 2 } }"#;
    let limits = limits(written);
    let left = |charged: &Charged| limits.show(charged).next().and_then(|shown| shown.left);
    let answer = |cost: &'static str| {
        HeaderMap::from_iter([(HeaderName::from_static("x-cost"), HeaderValue::from_static(cost))])
    };
    let (_, mut charged) = decide(&limits, &Ask::of(1), at(0));
    assert_eq!(left(&charged), Some(8));
    limits.settle(&mut charged, &HeaderMap::new(), at(0));
    assert_eq!(left(&charged), Some(8));
    limits.settle(&mut charged, &answer("many"), at(0));
    assert_eq!(left(&charged), Some(8));
    limits.settle(&mut charged, &answer("0"), at(100));
    assert_eq!(left(&charged), Some(10));
    let (_, mut charged) = decide(&limits, &Ask::of(2), at(0));
    limits.settle(&mut charged, &answer("25"), at(0));
    assert_eq!(left(&charged), Some(0));
    assert!(!passes(&limits, &Ask::of(2), at(1_600)), "15 below zero: 17 intervals until 2 are left");
    assert!(passes(&limits, &Ask::of(2), at(1_700)));
    let (_, mut charged) = decide(&limits, &Ask::of(3), at(0));
    limits.settle(&mut charged, &answer("18446744073709551615"), at(0));
    assert!(!passes(&limits, &Ask::of(3), at(10_100)));
    assert!(passes(&limits, &Ask::of(3), at(10_200)), "at most ten bursts are owed");
    // what has refilled meanwhile is not given back as well
    let (_, mut charged) = decide(&limits, &Ask::of(4), at(0));
    let (_, full) = decide(&limits, &Ask::of(4), at(1_000));
    limits.settle(&mut charged, &answer("0"), at(1_000));
    assert_eq!(left(&full), Some(8));
    assert_eq!(left(&decide(&limits, &Ask::of(4), at(1_000)).1), Some(6));
}

#[test]
fn limits_by_caller_are_asked_when_the_caller_is_known_and_give_back_what_others_took() {
    let limits = limits(
        r#"[{ "key": "client.ip", "rate": "1/h", "burst": 2 }, { "key": "principal", "rate": "1/h", "burst": 1 },
            { "key": "host", "rate": "1/h", "burst": 3, "exempt": { "groups": ["staff"] } }]"#,
    );
    let ann = |client| Ask::of(client).by("ann", "users");
    let mut charged = Charged::default();
    let judged = limits.decide(Turn::BeforeAuthentication, &ann(9).view(), &mut charged, at(0));
    assert!(judged.rejection.is_none());
    assert_eq!(charged.0.len(), 1, "the address alone");
    assert!(passes(&limits, &ann(1), at(0)));
    let (judged, charged) = decide(&limits, &ann(1), at(0));
    assert_eq!(judged.decisions.last().map(|one| &*one.reason), Some("principal is used up for another 1h"));
    let left: Vec<_> = limits.show(&charged).map(|shown| shown.left).collect();
    assert_eq!(left, [Some(1), Some(0), Some(2)], "the address has its token back");
    assert!(passes(&limits, &Ask::of(1).by("bob", "users"), at(0)));
    assert!(!passes(&limits, &Ask::of(1).by("eve", "users"), at(0)), "and no more than that");
    assert!(passes(&limits, &Ask::of(2).by("eve", "users"), at(0)));
    assert!(!passes(&limits, &Ask::of(3).by("joe", "users"), at(0)), "three from outside of the staff");
    assert!(passes(&limits, &Ask::of(3).by("joe", "staff"), at(0)));
}

#[test]
fn named_limits_are_shared_and_a_route_may_say_otherwise() {
    let named = named(r#"{ "all": { "key": "client.ip", "rate": "1/h", "burst": 3 } }"#);
    let config = |written: &str| serde_json::from_str::<Spanned<Config>>(written).expect("limits");
    let mut diagnostics = Diagnostics::default();
    let stores = BTreeMap::new();
    let mut builder = LedgerBuilder::new((&named, &stores), None, 7, |_, _| None, &mut diagnostics);
    let mut compile = |written, route: &str| {
        builder.compile(&config(written), &RouteName::from(route), &mut diagnostics).expect("valid")
    };
    let a = compile(r#""all""#, "a");
    let b = compile(r#"[{ "limit": "all", "cost": 2 }]"#, "b");
    let c = compile(r#"[{ "limit": "all", "mode": "report" }]"#, "c");
    assert!(passes(&a, &Ask::of(1), at(0)));
    assert!(passes(&b, &Ask::of(1), at(0)));
    assert!(!passes(&a, &Ask::of(1), at(0)));
    assert!(passes(&c, &Ask::of(1), at(0)));
    assert!(passes(&b, &Ask::of(2), at(0)));
    assert_eq!(diagnostics.as_slice(), []);
}

#[track_caller]
fn check_refused(written: &str, expected: &[&str]) {
    let named = named(r#"{ "all": { "key": "client.ip", "rate": "1/h", "burst": 3 } }"#);
    match compile(&named, written, None) {
        Ok(_) => panic!("compiles: {written}"),
        Err(found) => {
            let found: Vec<_> = found.iter().filter(|one| !one.starts_with("unused")).collect();
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn every_mistake_is_named() {
    check_refused("[]", &["empty_list: an empty list of rate limits"]);
    check_refused("{}", &["missing_key: a rate limit without `key`", "missing_key: a rate limit without `rate`"]);
    check_refused(r#""al""#, &["unknown_reference: no such rate limit: \"al\""]);
    check_refused(
        r#"{ "limit": "all", "rate": "1/s", "burst": 1 }"#,
        &[
            "conflict: `rate` beside `limit`: that is the named limit's",
            "conflict: `burst` beside `limit`: that is the named limit's",
        ],
    );
    check_refused(r#"["all", "all"]"#, &["duplicate: two limits of one name on a route: \"all\""]);
    let with = |more: &str| format!(r#"{{ "key": "client.ip", "rate": "10/s", {more} }}"#);
    check_refused(&with(r#""burst": 0"#), &["bad_value: a burst of 0: no request would ever get through"]);
    check_refused(&with(r#""max_keys": 0"#), &["bad_value: max_keys is a number from 1 to 16777216: 0"]);
    let cost = "bad_value: a cost is a number from 1 to the burst, which is 10";
    for bad in
        [r#""cost": 11"#, r#""cost": 0"#, r#""cost": "x""#, r#""cost": { "response_header": "x", "default": 11 }"#]
    {
        check_refused(&with(bad), &[cost]);
    }
    check_refused(
        &with(r#""cost": { "response_header": "a b" }"#),
        &["bad_value: not a name that a field can have: \"a b\""],
    );
    check_refused(&with(r#""exempt": {}"#), &["missing_key: an exemption that names nobody"]);
    check_refused(&with(r#""exempt": { "client": ["x"] }"#), &["bad_value: not an address or a prefix: \"x\""]);
    check_refused(&with(r#""name": "a\"b""#), &["bad_value: not a name for a rate limit: \"a\\\"b\""]);
    check_refused(
        r#"{ "key": "client.ip", "rate": "1/d", "burst": 1000 }"#,
        &["bad_value: a burst of 1000 at 1/d takes more than a year to refill"],
    );
    let many = vec![r#""all""#; 17].join(",");
    check_refused(&format!("[{many}]"), &["too_many: more than 16 limits on a route: 17"]);
}

#[test]
fn a_named_limit_that_nobody_uses_is_a_warning() {
    let mut diagnostics = Diagnostics::default();
    let named = named(r#"{ "all": { "key": "client.ip", "rate": "1/h" } }"#);
    let stores = BTreeMap::new();
    let _ = LedgerBuilder::new((&named, &stores), None, 7, |_, _| None, &mut diagnostics).finish(&mut diagnostics);
    assert_eq!(diagnostics.as_slice()[0].message, "rate limit \"all\" is used by no route");
    assert!(!diagnostics.has_errors());
}

#[track_caller]
fn check_reload(before: &str, after: &str, kept: bool) {
    let (limits, ledger) = compile(&NamedLimits::new(), before, None).expect("valid");
    assert!(passes(&limits, &Ask::of(1), at(0)));
    let (limits, _) = compile(&NamedLimits::new(), after, Some(&ledger)).expect("valid");
    assert_eq!(!passes(&limits, &Ask::of(1), at(0)), kept, "{after}");
}

#[test]
fn buckets_outlive_a_reload_while_the_limit_counts_the_same() {
    let one = |more: &str| format!(r#"{{ "key": "client.ip", "rate": "1/h", "burst": 1{more} }}"#);
    check_reload(&one(""), &one(""), true);
    check_reload(&one(""), &one(r#", "headers": false, "cost": 1, "exempt": { "client": ["10.0.0.1"] }"#), true);
    check_reload(&one(""), &format!(r#"[{{ "key": "host", "rate": "9/s" }}, {}]"#, one("")), true);
    check_reload(&one(""), r#"{ "key": "client.ip", "rate": "2/h", "burst": 1 }"#, false);
    check_reload(&one(""), &one(r#", "max_keys": 9"#), false);
    check_reload(&one(""), &one(r#", "name": "other""#), false);
}

#[test]
fn when_all_buckets_are_in_use_further_keys_share_one_and_take_its_level_along() {
    let limits = limits(r#"{ "key": "client.ip", "rate": "1/s", "burst": 4, "max_keys": 2 }"#);
    let buckets = &limits.limits[0].buckets;
    let ask = |client, now| decide(&limits, &Ask::of(client), now).0;
    assert!(ask(1, at(0)).rejection.is_none());
    assert!((0..3).all(|_| ask(2, at(0)).rejection.is_none()));
    let judged = ask(3, at(0));
    assert_eq!(judged.decisions[0].reason, "within the limits, in the bucket of keys for which there is no room");
    assert!(ask(4, at(0)).rejection.is_none());
    assert!(ask(5, at(0)).rejection.is_none());
    assert!(ask(6, at(0)).rejection.is_none());
    assert!(ask(7, at(0)).rejection.is_some(), "four of them have used it up");
    assert!(ask(2, at(0)).rejection.is_none(), "a key with a bucket of its own is not touched");
    assert_eq!((buckets.tracked(), buckets.overflowed()), (2, 5));
    // client 1's bucket has refilled and makes room; client 3 may have had all four of the shared bucket
    assert!(ask(3, at(1_000)).rejection.is_none());
    assert_eq!(buckets.tracked(), 2);
    assert!(ask(3, at(1_000)).rejection.is_some());
    assert!(ask(3, at(2_000)).rejection.is_none());
    assert!(ask(3, at(2_000)).rejection.is_some());
}

#[test]
fn memory_comes_back_when_the_traffic_has_gone() {
    let limits = limits(r#"{ "key": "header:x", "rate": "1/s", "burst": 1, "max_keys": 50000 }"#);
    let buckets = &limits.limits[0].buckets;
    for number in 0..50_000 {
        assert!(passes(&limits, &Ask::of(1).with("x", &number.to_string()), at(0)));
    }
    assert_eq!(buckets.tracked(), 50_000);
    assert!(passes(&limits, &Ask::of(1).with("x", "one more"), at(0)), "in the shared bucket");
    assert_eq!(buckets.tracked(), 50_000, "the cap holds");
    for _ in 0..64 {
        buckets.sweep_next(at(999));
    }
    assert_eq!(buckets.tracked(), 50_000, "none has refilled");
    for _ in 0..64 {
        buckets.sweep_next(at(1_000));
    }
    assert_eq!(buckets.tracked(), 0);
}

#[test]
fn requests_at_the_same_time_don_t_get_more_between_them() {
    // opposite orders of the same two limits: whoever locked in the order of the settings would wait for ever
    let named = named(
        r#"{ "a": { "key": "host", "rate": "1/h", "burst": 500 }, "b": { "key": "host", "rate": "1/h", "burst": 300 } }"#,
    );
    let (one, ledger) = compile(&named, r#"["a", "b"]"#, None).expect("valid");
    let (other, _) = compile(&named, r#"["b", "a"]"#, Some(&ledger)).expect("valid");
    let count = |limits: &RateLimit| (0..1_000).filter(|_| passes(limits, &Ask::of(1), at(0))).count();
    let admitted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = [&one, &other, &one, &other].map(|limits| scope.spawn(move || count(limits))).into();
        threads.into_iter().map(|thread| thread.join().expect("it counts")).sum()
    });
    assert_eq!(admitted, 300);
    let left: Vec<_> = one.show(&decide(&one, &Ask::of(1), at(0)).1).map(|shown| shown.left).collect();
    assert_eq!(left, [Some(200), Some(0)], "the 3,700 that were refused took nothing");
}

/// Arrivals: which client, and milliseconds since the one before; now and then a reload.
fn arrivals(clients: u8) -> impl Strategy<Value = Vec<(u8, u64, bool)>> {
    prop::collection::vec(
        (0..clients, prop_oneof![Just(0_u64), 0_u64..50, 0_u64..2_000], prop::bool::weighted(0.05)),
        1..300,
    )
}

proptest! {
    /// Over any time that begins and ends with a request, however keys are forgotten, whatever reloads come between.
    #[test]
    fn nobody_gets_more_than_the_burst_and_the_rate(
        arrivals in arrivals(12),
        rate in 1_u32..50,
        burst in 1_u32..20,
        max_keys in 1_u32..16,
    ) {
        let written = format!(r#"{{ "key": "client.ip", "rate": "{rate}/s", "burst": {burst}, "max_keys": {max_keys} }}"#);
        let (mut limits, mut ledger) = compile(&NamedLimits::new(), &written, None).expect("valid");
        let mut admitted: Vec<Vec<u64>> = vec![Vec::new(); 12];
        let mut now = 0;
        for (client, later, reload) in arrivals {
            now += later;
            if reload {
                (limits, ledger) = compile(&NamedLimits::new(), &written, Some(&ledger)).expect("valid");
            }
            if passes(&limits, &Ask::of(client), at(now)) {
                admitted[usize::from(client)].push(now);
            }
            prop_assert!(limits.limits[0].buckets.tracked() <= max_keys as usize);
        }
        for times in admitted {
            for (first, start) in times.iter().enumerate() {
                for (last, end) in times.iter().enumerate().skip(first) {
                    let most = u64::from(burst) * 1_000 + u64::from(rate) * (end - start);
                    prop_assert!((last - first + 1) as u64 * 1_000 <= most, "{} in {} ms", last - first + 1, end - start);
                }
            }
        }
    }

    /// While there is room for all keys, a limit refuses nobody who has something left: it is the cell rate algorithm itself.
    #[test]
    fn several_limits_are_as_good_as_a_model_of_them(arrivals in arrivals(4), bursts in [1_u32..8, 1_u32..8], costs in [1_u32..3, 1_u32..3]) {
        let cost = [costs[0].min(bursts[0]), costs[1].min(bursts[1])];
        let written = format!(
            r#"[{{ "key": "client.ip", "rate": "2/s", "burst": {}, "cost": {} }}, {{ "key": "host", "rate": "5/s", "burst": {}, "cost": {} }}]"#,
            bursts[0], cost[0], bursts[1], cost[1],
        );
        let limits = limits(&written);
        // what is missing in each bucket, in thousandths, by client and then for the host
        let mut missing = [[0_u64; 2]; 4];
        let mut of_host = 0_u64;
        let mut now = 0;
        for (client, later, _) in arrivals {
            now += later;
            for bucket in &mut missing {
                bucket[0] = bucket[0].saturating_sub(2 * later);
            }
            of_host = of_host.saturating_sub(5 * later);
            let own = &mut missing[usize::from(client)][0];
            let wanted = [u64::from(cost[0]) * 1_000, u64::from(cost[1]) * 1_000];
            let fits = *own + wanted[0] <= u64::from(bursts[0]) * 1_000 && of_host + wanted[1] <= u64::from(bursts[1]) * 1_000;
            if fits {
                *own += wanted[0];
                of_host += wanted[1];
            }
            prop_assert_eq!(passes(&limits, &Ask::of(client), at(now)), fits);
        }
    }
}
