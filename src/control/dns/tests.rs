//! The life of names, on tokio's paused clock: a service that answers from a script, and nobody waits in real time.

use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;

use tokio::time::advance;

use super::*;
use crate::model::diagnostic::Diagnostics;
use crate::model::source::{Sources, Spanned};
use crate::upstream::Upstream;

/// Answers from a script; the last line of it again and again.
#[derive(Clone)]
struct Script(Arc<ScriptState>);

struct ScriptState {
    lines: Mutex<VecDeque<Line>>,
    asked_at: Mutex<Vec<Instant>>,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
}

#[derive(Clone)]
enum Line {
    Answer(Answer),
    Fails,
    Takes(Duration),
}

impl Script {
    fn new(lines: impl IntoIterator<Item = Line>) -> Self {
        Self(Arc::new(ScriptState {
            lines: Mutex::new(lines.into_iter().collect()),
            asked_at: Mutex::default(),
            under_way: AtomicUsize::new(0),
            most_under_way: AtomicUsize::new(0),
        }))
    }

    fn asked(&self) -> usize {
        self.0.asked_at.lock().len()
    }

    /// Seconds between one question and the next.
    fn pauses(&self) -> Vec<f64> {
        self.0.asked_at.lock().windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect()
    }
}

#[async_trait]
impl NameService for Script {
    async fn lookup(&self, _: &str) -> Result<Answer, LookupError> {
        let Script(state) = self;
        state.asked_at.lock().push(Instant::now());
        let now = state.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        state.most_under_way.fetch_max(now, Ordering::Relaxed);
        let line = {
            let mut lines = state.lines.lock();
            if lines.len() > 1 { lines.pop_front() } else { lines.front().cloned() }
        };
        let result = match line.expect("a line") {
            Line::Answer(answer) => Ok(answer),
            Line::Fails => Err(LookupError::Failed("refused".into())),
            Line::Takes(time) => {
                sleep(time).await;
                Err(LookupError::Failed("late".into()))
            }
        };
        state.under_way.fetch_sub(1, Ordering::Relaxed);
        result
    }
}

fn answer(last: &[u8], ttl: u64) -> Line {
    let v4 = last.iter().map(|last| Ipv4Addr::new(10, 0, 0, *last)).collect();
    Line::Answer(Answer { v4: Some(v4), v6: Some(Vec::new()), ttl: Duration::from_secs(ttl) })
}

fn resolver(script: &Script) -> Resolver {
    Resolver::new(script.clone(), Handle::current(), 7)
}

fn upstream(url: &str) -> Upstream {
    let url = Spanned { value: url.to_owned(), ..Spanned::default() };
    Upstream::compile_inline(&url, None, &Sources::default(), &mut Diagnostics::default()).expect("an address")
}

fn addresses(upstream: &Upstream) -> Vec<String> {
    upstream.roster().endpoints().as_slice().iter().map(|endpoint| endpoint.address.to_string()).collect()
}

const SOON: Duration = Duration::from_secs(5);

/// Lets the clock run, and the tasks with it.
async fn pass(time: Duration) {
    sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn a_name_is_resolved_before_the_first_request_and_again_by_its_ttl() {
    let script = Script::new([answer(&[1, 2], 30), answer(&[2, 3], 30)]);
    let (resolver, upstream) = (resolver(&script), upstream("http://api.test:81"));
    assert!(addresses(&upstream).is_empty());
    resolver.follow([upstream.roster()]);
    assert!(resolver.resolve_now(SOON).await.is_empty());
    assert_eq!(addresses(&upstream), ["10.0.0.1:81", "10.0.0.2:81"]);
    pass(Duration::from_secs(29)).await;
    assert_eq!(script.asked(), 1);
    pass(Duration::from_secs(5)).await;
    assert_eq!(addresses(&upstream), ["10.0.0.2:81", "10.0.0.3:81"]);
    assert_eq!(resolver.counts(), Counts { answered: 2, failed: 0 });
}

#[tokio::test(start_paused = true)]
async fn the_ttl_is_held_between_a_second_and_five_minutes_and_jittered() {
    let script = Script::new([answer(&[1], 0), answer(&[1], 100_000), answer(&[1], 100_000), answer(&[1], 60)]);
    let (resolver, upstream) = (resolver(&script), upstream("http://api.test"));
    resolver.follow([upstream.roster()]);
    pass(Duration::from_secs(1000)).await;
    let pauses = script.pauses();
    for (pause, base) in pauses.iter().zip([1.0, 300.0, 300.0, 60.0]) {
        assert!((base..=base * 1.1 + 0.01).contains(pause), "{pauses:?}");
    }
    assert!((pauses[1] - pauses[2]).abs() > 0.01, "no jitter: {pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn the_last_addresses_stay_while_a_name_cannot_be_resolved() {
    let nothing = Answer { v4: Some(Vec::new()), v6: Some(Vec::new()), ttl: SOON };
    let script = Script::new([answer(&[1], 10), Line::Fails, Line::Answer(nothing), Line::Fails, answer(&[2], 10)]);
    let (resolver, upstream) = (resolver(&script), upstream("http://api.test"));
    resolver.follow([upstream.roster()]);
    pass(Duration::from_secs(15)).await;
    assert_eq!((addresses(&upstream), script.asked()), (vec!["10.0.0.1:80".to_owned()], 4));
    assert_eq!(resolver.counts(), Counts { answered: 1, failed: 3 });
    pass(Duration::from_secs(5)).await;
    assert_eq!(addresses(&upstream), ["10.0.0.2:80"]);
}

#[tokio::test(start_paused = true)]
async fn failures_are_asked_again_ever_later() {
    let script = Script::new([Line::Fails]);
    let (resolver, upstream) = (resolver(&script), upstream("http://api.test"));
    resolver.follow([upstream.roster()]);
    assert_eq!(resolver.resolve_now(SOON).await, [Arc::from("api.test")]);
    pass(Duration::from_secs(150)).await;
    let pauses = script.pauses();
    for (pause, base) in pauses.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]) {
        assert!((base..=base * 1.1 + 0.01).contains(pause), "{pauses:?}");
    }
    assert!(pauses.len() >= 7, "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn a_family_that_could_not_be_asked_keeps_its_addresses() {
    let both = Answer { v4: Some(vec![Ipv4Addr::LOCALHOST]), v6: Some(vec![Ipv6Addr::LOCALHOST]), ttl: SOON };
    let no_v4 = Answer { v4: None, ..both.clone() };
    let only_v6 = Answer { v4: Some(Vec::new()), ..both.clone() };
    let script = Script::new([both, no_v4, only_v6].map(Line::Answer));
    let (resolver, upstream) = (resolver(&script), upstream("http://api.test"));
    resolver.follow([upstream.roster()]);
    pass(Duration::from_secs(6)).await;
    assert_eq!((addresses(&upstream).len(), script.asked()), (2, 2));
    pass(Duration::from_secs(6)).await;
    assert_eq!(addresses(&upstream), ["[::1]:80"]);
}

#[tokio::test(start_paused = true)]
async fn a_name_of_several_upstreams_is_asked_for_once() {
    let script = Script::new([answer(&[1], 60)]);
    let resolver = resolver(&script);
    let (one, two, late) = (upstream("http://api.test"), upstream("https://api.test"), upstream("http://api.test:82"));
    resolver.follow([one.roster(), two.roster(), one.roster()]);
    resolver.resolve_now(SOON).await;
    resolver.follow([late.roster(), one.roster()]);
    assert_eq!((addresses(&one), addresses(&two)), (vec!["10.0.0.1:80".into()], vec!["10.0.0.1:443".into()]));
    assert_eq!(addresses(&late), ["10.0.0.1:82"]);
    assert_eq!(script.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_name_is_forgotten_with_its_last_upstream() {
    let script = Script::new([answer(&[1], 10)]);
    let (resolver, upstream) = (resolver(&script), upstream("http://api.test"));
    resolver.follow([upstream.roster()]);
    resolver.resolve_now(SOON).await;
    drop(upstream);
    pass(Duration::from_mins(1)).await;
    assert_eq!((script.asked(), resolver.shared.names.lock().len()), (1, 0));
    let again = self::upstream("http://api.test");
    resolver.follow([again.roster()]);
    resolver.resolve_now(SOON).await;
    assert_eq!((script.asked(), addresses(&again)), (2, vec!["10.0.0.1:80".to_owned()]));
    assert_eq!(resolver.tasks.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_tasks_end_with_the_resolver() {
    let script = Script::new([answer(&[1], 1)]);
    let (resolver, upstream) = (resolver(&script), upstream("http://api.test"));
    resolver.follow([upstream.roster()]);
    resolver.resolve_now(SOON).await;
    drop(resolver);
    pass(Duration::from_mins(1)).await;
    assert_eq!((script.asked(), Arc::strong_count(&script.0)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_they_want_to() {
    let script = Script::new([Line::Takes(Duration::from_hours(1)), answer(&[1], 60)]);
    let (resolver, upstream) = (resolver(&script), upstream("http://api.test"));
    resolver.follow([upstream.roster()]);
    let start = Instant::now();
    assert_eq!(resolver.resolve_now(Duration::from_secs(2)).await, [Arc::from("api.test")]);
    assert_eq!(start.elapsed().as_secs(), 2);
    // the lookup itself is given up too, and asked again
    pass(LOOKUP_TIMEOUT).await;
    assert_eq!(addresses(&upstream), ["10.0.0.1:80"]);
}

#[tokio::test(start_paused = true)]
async fn lookups_under_way_are_bounded() {
    let script = Script::new([Line::Takes(SOON)]);
    let resolver = resolver(&script);
    let upstreams: Vec<Upstream> = (0..100).map(|n| upstream(&format!("http://api-{n}.test"))).collect();
    resolver.follow(upstreams.iter().map(Upstream::roster));
    advance(Duration::from_millis(1)).await;
    resolver.resolve_now(Duration::from_mins(1)).await;
    assert!(script.asked() >= 100);
    assert_eq!(script.0.most_under_way.load(Ordering::Relaxed), MAX_LOOKUPS);
}

#[tokio::test(start_paused = true)]
async fn an_address_needs_no_lookup() {
    let script = Script::new([Line::Fails]);
    let (resolver, upstream) = (resolver(&script), upstream("http://127.0.0.1:3000"));
    resolver.follow([upstream.roster()]);
    assert!(resolver.resolve_now(SOON).await.is_empty());
    pass(Duration::from_mins(1)).await;
    assert_eq!((script.asked(), addresses(&upstream)), (0, vec!["127.0.0.1:3000".to_owned()]));
}
