use std::sync::Barrier;

use proptest::prelude::*;

use super::*;
use crate::model::clock::Clock;
use crate::model::diagnostic::Diagnostics;
use crate::model::source::{SourceSpan, Spanned};
use crate::model::units::{Percent, Period};

fn rules() -> Rules {
    Rules::compile(&Config::default(), &mut Diagnostics::default()).expect("the defaults compile")
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A breaker and the clock it is turned by.
struct Bench {
    breaker: Arc<Breaker>,
    clock: Clock,
}

impl Bench {
    fn new(rules: Rules) -> Self {
        Self { breaker: Breaker::new(rules), clock: Clock::manual() }
    }

    fn pass(&self) -> Result<Pass, Tripped> {
        self.breaker.try_pass(self.clock.now())
    }

    fn judge(&self, pass: Pass, success: bool) -> Option<Phase> {
        pass.judged(success, ms(1), self.clock.now())
    }

    #[track_caller]
    fn call(&self, success: bool, took: Duration) -> Option<Phase> {
        self.pass().expect("it lets the call pass").judged(success, took, self.clock.now())
    }

    fn judge_all(&self, passes: Vec<Pass>, success: bool) {
        for pass in passes {
            self.judge(pass, success);
        }
    }

    #[track_caller]
    fn timed_calls(&self, count: u32, took: Duration) {
        for _ in 0..count {
            self.call(true, took);
        }
    }

    #[track_caller]
    fn calls(&self, count: u32, success: bool) {
        for _ in 0..count {
            self.call(success, ms(1));
        }
    }

    fn phase(&self) -> Phase {
        self.breaker.state(self.clock.now()).phase()
    }

    fn transitions(&self) -> [u64; 3] {
        self.breaker.reading(self.clock.now()).transitions
    }

    /// Brings it to half-open.
    #[track_caller]
    fn half_open(&self) {
        self.calls(20, false);
        assert_eq!(self.phase(), Phase::Open);
        self.clock.advance(Duration::from_secs(30));
        assert_eq!(self.phase(), Phase::HalfOpen);
    }
}

#[test]
fn opens_at_the_ratio_once_there_are_enough_calls() {
    let bench = Bench::new(rules());
    bench.calls(9, true);
    bench.calls(10, false);
    assert_eq!(bench.phase(), Phase::Closed, "19 calls are too few");
    assert_eq!(bench.call(true, ms(1)), Some(Phase::Open), "10 of 20");
    assert_eq!(bench.pass().unwrap_err(), Tripped { retry_after: Duration::from_secs(30) });
    bench.clock.advance(ms(29_999));
    assert_eq!(bench.pass().unwrap_err(), Tripped { retry_after: ms(1) });
    assert_eq!(bench.transitions(), [0, 0, 1]);
}

#[test]
fn stays_closed_below_the_ratio() {
    let bench = Bench::new(rules());
    for _ in 0..100 {
        bench.calls(2, true);
        bench.call(false, ms(1));
    }
    assert_eq!(bench.phase(), Phase::Closed);
    assert_eq!(bench.breaker.counted(bench.clock.now()), Counts { calls: 300, failures: 100, slow: 0 });
}

#[test]
fn forgets_what_has_left_the_window() {
    let bench = Bench::new(rules());
    bench.calls(19, false);
    bench.clock.advance(Duration::from_secs(10));
    bench.calls(19, false);
    assert_eq!(bench.phase(), Phase::Closed);
}

#[test]
fn opens_when_too_many_calls_are_slow() {
    let mut slow = rules();
    slow.slow = Some((ms(2000), Percent::whole(50)));
    let bench = Bench::new(slow);
    bench.timed_calls(10, ms(1999));
    bench.timed_calls(9, ms(2000));
    assert_eq!(bench.phase(), Phase::Closed);
    assert_eq!(bench.call(true, ms(2000)), Some(Phase::Open));

    let bench = Bench::new(rules());
    bench.timed_calls(100, Duration::from_mins(1));
    assert_eq!(bench.phase(), Phase::Closed, "no call is slow unless it is said from when");
}

#[test]
fn opens_after_failures_in_a_row() {
    let bench = Bench::new(Rules { consecutive_failures: Some(5), ..rules() });
    bench.calls(4, false);
    bench.call(true, ms(1));
    bench.calls(4, false);
    assert_eq!(bench.phase(), Phase::Closed);
    assert_eq!(bench.call(false, ms(1)), Some(Phase::Open));
}

#[test]
fn closes_when_every_trial_request_succeeds() {
    let bench = Bench::new(rules());
    bench.half_open();
    let trials: Vec<Pass> = (0..3).map(|_| bench.pass().expect("a place")).collect();
    assert_eq!(bench.pass().unwrap_err(), Tripped { retry_after: Duration::from_secs(1) });
    let changes: Vec<_> = trials.into_iter().map(|trial| bench.judge(trial, true)).collect();
    assert_eq!(changes, [None, None, Some(Phase::Closed)]);
    assert_eq!(bench.transitions(), [1, 1, 1]);
    bench.calls(9, true);
    bench.calls(10, false);
    assert_eq!(bench.phase(), Phase::Closed, "it counts afresh");
}

#[test]
fn opens_again_at_the_first_trial_that_fails_or_is_slow() {
    let mut slow = rules();
    slow.slow = Some((ms(100), Percent::whole(100)));
    for (success, took) in [(false, ms(1)), (true, ms(100))] {
        let bench = Bench::new(slow.clone());
        bench.half_open();
        let (first, second) = (bench.pass().expect("a place"), bench.pass().expect("a place"));
        assert_eq!(bench.call(success, took), Some(Phase::Open));
        assert_eq!((bench.judge(first, true), bench.judge(second, false)), (None, None), "of the phase before");
        assert_eq!(bench.pass().unwrap_err(), Tripped { retry_after: Duration::from_secs(30) });
    }
}

#[test]
fn a_trial_without_a_judgement_gives_its_place_back() {
    let bench = Bench::new(rules());
    bench.half_open();
    let mut places: Vec<Pass> = (0..3).map(|_| bench.pass().expect("a place")).collect();
    assert!(bench.pass().is_err());
    drop(places.pop());
    let again = bench.pass().expect("the place that was given back");
    assert!(bench.pass().is_err());
    places.push(again);
    bench.judge_all(places, true);
    assert_eq!(bench.phase(), Phase::Closed);
}

#[test]
fn a_place_of_an_earlier_trial_frees_none_in_a_later_one() {
    let bench = Bench::new(rules());
    bench.half_open();
    let early = bench.pass().expect("a place");
    bench.call(false, ms(1));
    bench.clock.advance(Duration::from_secs(30));
    let _places: Vec<Pass> = (0..3).map(|_| bench.pass().expect("a place")).collect();
    drop(early);
    assert!(bench.pass().is_err());
}

#[test]
fn late_results_from_before_it_opened_change_nothing() {
    let bench = Bench::new(rules());
    let late: Vec<Pass> = (0..50).map(|_| bench.pass().expect("closed")).collect();
    bench.half_open();
    let trials: Vec<Pass> = (0..3).map(|_| bench.pass().expect("a place")).collect();
    assert!(late.into_iter().all(|pass| bench.judge(pass, false).is_none()));
    assert_eq!(bench.phase(), Phase::HalfOpen);
    bench.judge_all(trials, true);
    assert_eq!(bench.phase(), Phase::Closed);
}

#[test]
fn each_state_can_be_forced() {
    let until = Instant::from_nanos(5_000_000_000);
    let forced = |state| Breaker::forced(rules(), state);
    assert!(forced(BreakerState::Closed).try_pass(Instant::default()).is_ok());
    let open = forced(BreakerState::Open { until });
    assert_eq!(open.try_pass(Instant::default()).unwrap_err().retry_after, Duration::from_secs(5));
    assert_eq!(open.state(Instant::default()), BreakerState::Open { until });
    let half_open = forced(BreakerState::HalfOpen);
    let places: Vec<_> = (0..4).map(|_| half_open.try_pass(Instant::default())).collect();
    assert_eq!(places.iter().filter(|place| place.is_ok()).count(), 3);
}

#[test]
fn the_client_is_told_when_to_come_back() {
    let seconds = |wait| rejection(&Tripped { retry_after: wait }).headers[0].1.clone();
    assert_eq!(seconds(ms(29_001)), "30");
    assert_eq!(seconds(Duration::ZERO), "1");
    let rejection = rejection(&Tripped { retry_after: ms(5) });
    assert_eq!((rejection.code.as_str(), rejection.code.status().as_u16()), ("breaker_open", 503));
    assert_eq!(rejection.code.proxy_error(), "destination_unavailable");
}

#[test]
fn half_open_admits_exactly_n_among_many_threads() {
    for round in 0..50 {
        let breaker = Breaker::forced(rules(), BreakerState::Open { until: Instant::from_nanos(1) });
        let barrier = Barrier::new(8);
        let passes: Vec<Pass> = std::thread::scope(|scope| {
            let ask = || {
                barrier.wait();
                (0..25).filter_map(|_| breaker.try_pass(Instant::from_nanos(2)).ok()).collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
        });
        assert_eq!(passes.len(), 3, "round {round}: of 200 requests");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Ask,
    Judge(usize, bool),
    Drop(usize),
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Ask),
        4 => (0_usize..64, prop::bool::weighted(0.6)).prop_map(|(which, success)| Step::Judge(which, success)),
        1 => (0_usize..64).prop_map(Step::Drop),
        2 => (0_u16..200).prop_map(Step::Wait),
    ]
}

proptest! {
    /// It never admits while it is open; while it is half-open, places that are held and results that succeeded are
    /// together at most N, and it closes by exactly N successes.
    #[test]
    fn whatever_happens_it_keeps_its_promises(steps in prop::collection::vec(step(), 1..400)) {
        let rules = Rules { min_requests: 4, open_for: ms(300), window: ms(1000), ..rules() };
        let bench = Bench::new(rules);
        // passes under way, each with the generation (the number of changes) in which it was taken
        let mut under_way: Vec<(Pass, u64)> = Vec::new();
        let mut succeeded = 0;
        let mut generation = 0;
        for step in steps {
            let before = bench.breaker.state(bench.clock.now());
            match step {
                Step::Ask => {
                    let pass = bench.pass();
                    let now: u64 = bench.transitions().iter().sum();
                    if now != generation {
                        (generation, succeeded) = (now, 0);
                    }
                    let held = under_way.iter().filter(|(_, of)| *of == generation).count();
                    match before {
                        BreakerState::Closed => prop_assert!(pass.is_ok()),
                        BreakerState::Open { until } => {
                            prop_assert_eq!(pass.as_ref().unwrap_err().retry_after, until.since(bench.clock.now()));
                        }
                        BreakerState::HalfOpen => prop_assert_eq!(pass.is_ok(), held + succeeded < 3),
                    }
                    under_way.extend(pass.ok().map(|pass| (pass, generation)));
                }
                Step::Judge(which, success) if !under_way.is_empty() => {
                    let (pass, of) = under_way.swap_remove(which % under_way.len());
                    let changed = bench.judge(pass, success);
                    if of != generation {
                        prop_assert_eq!(changed, None);
                    } else if before == BreakerState::HalfOpen {
                        succeeded += usize::from(success);
                        let expected = if success { (succeeded == 3).then_some(Phase::Closed) } else { Some(Phase::Open) };
                        prop_assert_eq!(changed, expected);
                    }
                    if changed.is_some() {
                        (generation, succeeded) = (generation + 1, 0);
                    }
                }
                Step::Drop(which) if !under_way.is_empty() => drop(under_way.swap_remove(which % under_way.len())),
                Step::Judge(..) | Step::Drop(_) => {}
                Step::Wait(millis) => bench.clock.advance(ms(u64::from(millis))),
            }
        }
    }
}

#[track_caller]
fn check(config: &Config, expected: &[(&str, &str)]) {
    let mut diagnostics = Diagnostics::default();
    assert!(Rules::compile(config, &mut diagnostics).is_none());
    let seen: Vec<_> = diagnostics.as_slice().iter().map(|one| (one.code, one.message.as_str())).collect();
    assert_eq!(seen, expected);
}

fn spanned<T>(value: T) -> Spanned<T> {
    Spanned::new(value, SourceSpan { file: 0, start: 1, end: 2 })
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let zero = spanned(Period::default());
    let config = Config {
        failure_ratio: spanned(Percent::default()),
        min_requests: spanned(0),
        window: zero,
        open_for: zero,
        half_open_requests: spanned(0),
        slow_call: Some(zero),
        slow_call_ratio: Some(spanned(Percent::default())),
        consecutive_failures: Some(spanned(0)),
    };
    check(
        &config,
        &[
            ("bad_value", "breaker.failure_ratio is above 0%: \"0%\""),
            ("bad_value", "breaker.min_requests is 1 or more: 0"),
            ("bad_value", "breaker.half_open_requests is 1 or more: 0"),
            ("bad_value", "breaker.window is 10ms or longer: \"0s\""),
            ("bad_value", "breaker.open_for is 10ms or longer: \"0s\""),
            ("bad_value", "breaker.slow_call is 10ms or longer: \"0s\""),
            ("bad_value", "breaker.consecutive_failures is 1 or more: 0"),
            ("bad_value", "breaker.slow_call_ratio is above 0%: \"0%\""),
        ],
    );
}

#[test]
fn a_share_of_slow_calls_needs_to_know_what_is_slow() {
    let config = Config { slow_call_ratio: Some(spanned(Percent::whole(10))), ..Config::default() };
    let message = "breaker.slow_call_ratio is set, but no call is slow without breaker.slow_call";
    check(&config, &[("dead_setting", message)]);
    let config = Config { slow_call: Some(spanned(Period::from_secs(2))), ..config };
    let rules = Rules::compile(&config, &mut Diagnostics::default()).expect("compiles");
    assert_eq!(rules.slow, Some((Duration::from_secs(2), Percent::whole(10))));
}
