//! How the keys of defaults, profiles and routes come together.

use proptest::prelude::*;

use std::collections::BTreeMap;

use super::validate::References;
use super::*;
use crate::model::spec::Specs;
use crate::model::toggle::False;
use crate::model::units::ByteSize;

fn place(line: u32) -> SourceSpan {
    SourceSpan { file: 0, start: line * 2, end: line * 2 + 1 }
}

/// Ten lines of one character, so that `place` is on the line of its number.
fn sources() -> Sources {
    let mut sources = Sources::default();
    sources.add("a.toml", "x\n".repeat(10));
    sources
}

#[expect(clippy::unnecessary_wraps, reason = "the keys are optional, the tests give them")]
fn set<C>(config: C, line: u32) -> Option<Spanned<OrOff<C>>> {
    Some(Spanned::new(OrOff::Set(config), place(line)))
}

#[expect(clippy::unnecessary_wraps, reason = "the keys are optional, the tests give them")]
fn off<C>(line: u32) -> Option<Spanned<OrOff<C>>> {
    Some(Spanned::new(OrOff::Off(False), place(line)))
}

/// A configuration that defines nothing to name.
struct Nothing;

impl Names for Nothing {
    fn upstream(&self, _: &Spanned<String>, _: &mut Diagnostics) -> Option<usize> {
        None
    }
    fn file(&self, _: &Spanned<String>, _: &mut Diagnostics) -> Option<bytes::Bytes> {
        None
    }
}

fn body_limit(bytes: u64, line: u32) -> RoutePolicies {
    let config = validate::Config { max_body: Some(ByteSize(bytes).into()), ..validate::Config::default() };
    RoutePolicies { validate: set(config, line), ..RoutePolicies::default() }
}

fn compile(config: &RoutePolicies, diagnostics: &mut Diagnostics) -> Option<Policies> {
    let (named, stores) = Default::default();
    let mut limits = rate_limit::LedgerBuilder::new((&named, &stores), None, 0, |_, _| None, diagnostics);
    let mut rings = auth::Rings::default();
    // A configuration without consumers, files and upstreams.
    let mut identity = auth::Context {
        consumers: None,
        has_consumers: false,
        file: &|_| Err("no files here".to_owned()),
        upstream: &|_| None,
        asks_for_certificates: false,
        rings: &mut rings,
    };
    let (specs, none) = (Specs::default(), BTreeMap::new());
    let references = References::new(&specs, &none);
    let around = Surroundings {
        references: &references,
        route: &"r".into(),
        names: &Nothing,
        sources: &sources(),
        limits: &mut limits,
        identity: &mut identity,
    };
    Policies::compile(config, around, diagnostics)
}

fn compiled(config: &RoutePolicies) -> Policies {
    compile(config, &mut Diagnostics::default()).expect("valid settings")
}

#[track_caller]
fn check_origins(config: &RoutePolicies, expected: &[(&str, &str)]) {
    let policies = compiled(config);
    let origins: Vec<(&str, String)> =
        policies.origins().map(|(name, origin)| (name.as_str(), origin.to_string())).collect();
    let expected: Vec<(&str, String)> = expected.iter().map(|(name, at)| (*name, (*at).to_owned())).collect();
    assert_eq!(origins, expected);
}

#[test]
fn a_route_that_says_nothing_has_the_built_in_limits() {
    check_origins(&RoutePolicies::default(), &[("validate", "default"), ("timeout", "default"), ("retry", "default")]);
}

#[test]
fn each_policy_knows_the_setting_that_caused_it() {
    let config = RoutePolicies {
        respond: set(respond::Config::default(), 4),
        compress: Some(Spanned::new(Toggle::Switch(true), place(6))),
        timeout: set(timeout::Config::default(), 8),
        retry: set(retry::Config::default(), 10),
        hedge: set(hedge::Config { after: Spanned::from("p95".parse::<hedge::After>().expect("a quantile")) }, 7),
        ..body_limit(1, 2)
    };
    let expected = [
        ("validate", "a.toml:3:1"),
        ("respond", "a.toml:5:1"),
        ("compress", "a.toml:7:1"),
        ("timeout", "a.toml:9:1"),
        ("retry", "a.toml:11:1"),
        ("hedge", "a.toml:8:1"),
    ];
    check_origins(&config, &expected);
    assert_eq!(compiled(&config).answers(), Some("respond"));
}

#[test]
fn false_switches_an_inherited_policy_off() {
    let route = RoutePolicies {
        validate: off(1),
        respond: off(1),
        compress: Some(Spanned::new(Toggle::Switch(false), place(1))),
        timeout: off(1),
        retry: off(1),
        ..RoutePolicies::default()
    };
    let defaults = RoutePolicies {
        respond: set(respond::Config::default(), 4),
        compress: Some(Spanned::new(Toggle::Switch(true), place(6))),
        timeout: set(timeout::Config::default(), 8),
        ..body_limit(1, 2)
    };
    let layered = RoutePolicies::layer(&defaults, Vec::new(), &route);
    check_origins(&layered, &[("timeout", "default")]);
    assert_eq!(compiled(&layered).answers(), None);
}

#[test]
fn the_more_specific_key_replaces_the_whole_key() {
    let (defaults, first, second) = (body_limit(1, 1), body_limit(2, 2), body_limit(3, 3));
    let nothing = RoutePolicies::default();
    let at = |profiles, route| RoutePolicies::layer(&defaults, profiles, route).validate.expect("inherited").span;
    assert_eq!(at(vec![], &nothing), place(1));
    assert_eq!(at(vec![&first], &nothing), place(2));
    assert_eq!(at(vec![&first, &second], &nothing), place(3));
    assert_eq!(at(vec![&first, &second], &body_limit(4, 4)), place(4));
}

#[test]
fn the_mistakes_of_all_policies_are_reported_at_once() {
    let mut diagnostics = Diagnostics::default();
    let config = RoutePolicies {
        access: set(access::Config::default(), 1),
        cors: set(cors::Config::default(), 2),
        redirect: set(redirect::Config::default(), 3),
        respond: set(respond::Config::default(), 4),
        rewrite: set(rewrite::Config::default(), 5),
        headers: set(headers::Config::default(), 6),
        ..RoutePolicies::default()
    };
    assert!(compile(&config, &mut diagnostics).is_none());
    let codes: Vec<&str> = diagnostics.as_slice().iter().map(|found| found.code).collect();
    assert_eq!(codes, ["conflict", "missing_key", "empty_list", "missing_key", "missing_key", "missing_key"]);
}

#[test]
fn a_prefix_to_replace_is_asked_of_the_route() {
    let rewrite = rewrite::Config { path_prefix: Some("/v2".to_owned().into()), ..rewrite::Config::default() };
    let config = RoutePolicies { rewrite: set(rewrite, 1), ..RoutePolicies::default() };
    assert_eq!(compiled(&config).needs_prefix().map(|(name, _)| name), Some(PolicyName::Rewrite));
    assert_eq!(compiled(&RoutePolicies::default()).needs_prefix(), None);
}

proptest! {
    #[test]
    fn the_last_layer_that_says_something_holds(layers in prop::collection::vec(prop::option::of(any::<bool>()), 2..6)) {
        let written: Vec<RoutePolicies> = layers
            .iter()
            .map(|said| RoutePolicies {
                compress: said.map(|on| Spanned::from(Toggle::Switch(on))),
                ..RoutePolicies::default()
            })
            .collect();
        let (defaults, rest) = written.split_first().expect("at least two");
        let (route, profiles) = rest.split_last().expect("at least two");
        let layered = RoutePolicies::layer(defaults, profiles.iter().collect(), route);
        let on = layers.iter().rev().find_map(|said| *said).unwrap_or(false);
        prop_assert_eq!(compiled(&layered).compress.is_some(), on);
    }
}

#[test]
fn retries_of_nothing_are_refused_unless_a_hedge_needs_their_budget() {
    let nothing = retry::Config { on: Vec::new(), ..retry::Config::default() };
    let mut config = RoutePolicies { retry: set(nothing, 1), ..RoutePolicies::default() };
    let mut diagnostics = Diagnostics::default();
    assert!(compile(&config, &mut diagnostics).is_none());
    assert_eq!(diagnostics.as_slice().iter().map(|found| found.code).collect::<Vec<_>>(), ["dead_setting"]);
    config.hedge = set(hedge::Config { after: Spanned::from("p95".parse::<hedge::After>().expect("a quantile")) }, 2);
    assert!(compiled(&config).hedge.is_some());
}

#[test]
fn a_limit_by_caller_needs_somebody_who_names_callers() {
    for limit in [
        r#"{"key":"principal","rate":"1/s"}"#,
        r#"{"key":"jwt:sub","rate":"1/s"}"#,
        r#"{"key":"client.ip","rate":"1/s","exempt":{"groups":["staff"]}}"#,
    ] {
        let limit: rate_limit::Config = serde_json::from_str(limit).expect("a limit");
        let config = RoutePolicies { rate_limit: set(limit, 4), ..RoutePolicies::default() };
        let mut diagnostics = Diagnostics::default();
        assert!(compile(&config, &mut diagnostics).is_none());
        assert!(diagnostics.as_slice().iter().all(|diagnostic| diagnostic.code == "dead_setting"), "{diagnostics:?}");
    }
}
