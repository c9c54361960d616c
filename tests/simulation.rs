//! Seeded simulation: random requests, failures, latencies and reloads against the pure core on a clock that the test
//! turns. The engine's part, making attempts and waiting, is played here; every decision is the gateway's own.
//!
//! A failing seed prints itself; `SIMULATION_SEED=… cargo test --test simulation` plays it alone.

#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    reason = "it writes the configuration that it reads, and stops where it can't go on"
)]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HOST, HeaderValue};
use http::{Method, StatusCode, Version};
use portcullis::control::configuration::{self, Surroundings};
use portcullis::model::clock::Instant;
use portcullis::model::deadline::Limit;
use portcullis::model::outcome::Outcome;
use portcullis::pipeline::attempt::{Plan, plan};
use portcullis::pipeline::exchange::{Exchange, Peer};
use portcullis::pipeline::judge::Attempted;
use portcullis::pipeline::pursuit::{Attempt, Cue, Guard, Move, Pursuit, Queued, Sequel};
use portcullis::pipeline::receive::{Facts, receive};
use portcullis::pipeline::route::route;
use portcullis::snapshot::Snapshot;
use portcullis::snapshot::tls::bundled_roots;
use portcullis::upstream::breaker::BreakerState;
use portcullis::upstream::{Endpoint, InFlight};

const LIMIT: u32 = 12;
const PROBES: u32 = 3;
const SHARE: f64 = 0.2;
const FLOOR: f64 = 2.0;
const STANDBY: &str = "standby";

/// The configuration; `reload` changes what must not touch any state.
fn document(reload: u64) -> String {
    format!(
        r#"
[[listener]]
address = "127.0.0.1:0"

[upstream.api]
endpoints = ["http://10.0.0.1", "http://10.0.0.2", "http://10.0.0.3", "http://10.0.0.4"]
balance = "least_request"
breaker = {{ failure_ratio = "60%", min_requests = 20, window = "10s", open_for = "2s", half_open_requests = {PROBES}, consecutive_failures = 15 }}
concurrency = {{ limit = {LIMIT}, queue = 6, queue_timeout = "300ms" }}
outlier = {{ consecutive_failures = 4, eject_for = "3s", max_ejected = "50%" }}
slow_start = "5s"

[upstream.standby]
endpoints = ["http://10.0.1.1"]
breaker = {{ failure_ratio = "80%", min_requests = 10, window = "5s", open_for = "1s", half_open_requests = {PROBES} }}

[defaults]
timeout = {{ request = "2500ms", attempt = "1s" }}
retry = {{ attempts = 4, budget = "20%", min_retries_per_second = 2 }}

[[route]]
name = "plain"
match = "/plain/*"
upstream = "api"
headers = {{ response = {{ set = {{ "x-reload" = "{reload}" }} }} }}

[[route]]
name = "covered"
match = "/covered/*"
upstream = "api"
fallback = [{{ upstream = "{STANDBY}" }}, {{ status = 503, body = "later" }}]
"#
    )
}

fn compile(reload: u64, previous: Option<&Snapshot>) -> &'static Snapshot {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("portcullis.toml");
    std::fs::write(&file, document(reload)).expect("written");
    let roots = bundled_roots();
    let mut read = configuration::read(&file);
    let snapshot = read.compile(&Surroundings { previous, roots: &roots, demo: None });
    // Plans borrow their snapshot for as long as they are under way; a test may keep a few for ever.
    Box::leak(Box::new(snapshot.unwrap_or_else(|| panic!("{}", read.text(false)))))
}

/// How an endpoint behaves for a while.
#[derive(Debug, Clone, Copy)]
enum Mood {
    Well,
    Slow,
    Failing,
    Dead,
}

/// What an exchange is doing.
enum Doing {
    Attempting { attempt: Attempt, in_flight: InFlight, began: Instant, attempted: Attempted, probe: bool },
    Waiting,
    Queued(Queued),
    Relaying { _guard: Guard, _in_flight: InFlight },
}

struct Flight {
    snapshot: &'static Snapshot,
    plan: Plan<'static>,
    exchange: Exchange,
    pursuit: Pursuit,
    doing: Doing,
    /// How often it reached an upstream that may have processed it.
    processed: u32,
    retry_wait: bool,
}

/// What is counted independently of the gateway, by upstream.
#[derive(Debug, Default)]
struct Tally {
    requests: u32,
    retries: u32,
    under_way: u32,
    probes: u32,
}

struct Simulation {
    seed: u64,
    random: fastrand::Rng,
    now: Instant,
    snapshot: &'static Snapshot,
    moods: HashMap<String, Mood>,
    flights: BTreeMap<u64, Flight>,
    /// When to look at which exchange again.
    agenda: BinaryHeap<Reverse<(Instant, u64)>>,
    tallies: HashMap<String, Tally>,
    ended: u64,
    /// How often each thing happened: a simulation in which nothing fails proves nothing.
    seen: BTreeMap<&'static str, u64>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            random: fastrand::Rng::with_seed(seed),
            now: Instant::from_nanos(1_000_000_000),
            snapshot: compile(0, None),
            moods: HashMap::new(),
            flights: BTreeMap::new(),
            agenda: BinaryHeap::new(),
            tallies: HashMap::new(),
            ended: 0,
            seen: BTreeMap::new(),
        }
    }

    fn run(mut self, requests: u64) -> BTreeMap<&'static str, u64> {
        for id in 0..requests {
            let pause = Duration::from_micros(self.random.u64(0..30_000));
            self.advance(self.now.after(pause));
            if self.random.u32(0..60) == 0 {
                self.change_a_mood();
            }
            if self.random.u32(0..400) == 0 {
                self.snapshot = compile(id, Some(self.snapshot));
                self.saw("reload");
            }
            self.begin(id);
        }
        self.advance(self.now.after(Duration::from_mins(1)));
        assert!(self.flights.is_empty(), "seed {}: {} exchanges never ended", self.seed, self.flights.len());
        assert_eq!(self.ended, requests, "seed {}", self.seed);
        self.check_budget();
        for (name, tally) in &self.tallies {
            assert_eq!(tally.under_way, 0, "seed {}: {name} {tally:?}", self.seed);
        }
        self.seen
    }

    fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn change_a_mood(&mut self) {
        let endpoint = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80", "10.0.1.1:80"];
        let mood = match self.random.u32(0..7) {
            0..=2 => Mood::Well,
            3 => Mood::Slow,
            4 => Mood::Failing,
            _ => Mood::Dead,
        };
        if self.random.u32(0..6) == 0 {
            // All at once: what opens breakers.
            self.moods.extend(endpoint.iter().take(4).map(|endpoint| ((*endpoint).to_owned(), mood)));
        } else {
            let endpoint = self.random.choice(endpoint).expect("some");
            self.moods.insert(endpoint.to_owned(), mood);
        }
    }

    /// Turns the clock, and looks at everything that is due on the way.
    fn advance(&mut self, until: Instant) {
        while let Some(Reverse((at, id))) = self.agenda.peek().copied()
            && at <= until
        {
            self.agenda.pop();
            self.now = self.now.max(at);
            self.look_at(id);
            self.serve_queues();
        }
        self.now = self.now.max(until);
    }

    fn begin(&mut self, id: u64) {
        let method = self.random.choice([Method::GET, Method::GET, Method::POST, Method::PUT]).expect("some");
        let path = if self.random.bool() { "/plain/x" } else { "/covered/x" };
        let (mut parts, ()) = http::Request::new(()).into_parts();
        (parts.method, parts.version) = (method.clone(), Version::HTTP_11);
        parts.uri = path.parse().expect("a path");
        parts.headers.insert(HOST, HeaderValue::from_static("a.example"));
        let has_body = method != Method::GET;
        if has_body {
            parts.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("3"));
        }
        let peer: SocketAddr = ([192, 0, 2, 7], 999).into();
        let facts = Facts {
            peer,
            peer_text: Arc::new(Peer::new(peer.ip())),
            local: peer,
            tls: false,
            certificate: None,
            now: self.now,
            random: u128::from(id),
        };
        let snapshot = self.snapshot;
        let (mut exchange, refusal) = receive(snapshot, &facts, parts, None);
        assert!(refusal.is_none(), "{refusal:?}");
        let found = route(snapshot, &mut exchange).expect("a route");
        let plan = plan(snapshot, found, &mut exchange, !has_body, self.random.u64(..)).expect("a plan");
        self.tally("api").requests += 1;
        let flight = Flight {
            snapshot,
            plan,
            exchange,
            pursuit: Pursuit::default(),
            doing: Doing::Waiting,
            processed: 0,
            retry_wait: false,
        };
        self.flights.insert(id, flight);
        self.look_at(id);
    }

    fn tally(&mut self, upstream: &str) -> &mut Tally {
        self.tallies.entry(upstream.to_owned()).or_default()
    }

    /// Gives tickets whose turn has come their turn, as their wakers would.
    fn serve_queues(&mut self) {
        let queued: Vec<u64> = self
            .flights
            .iter()
            .filter(|(_, flight)| matches!(flight.doing, Doing::Queued(_)))
            .map(|(id, _)| *id)
            .collect();
        for id in queued {
            let Some(mut flight) = self.flights.remove(&id) else { continue };
            let Doing::Queued(mut queued) = std::mem::replace(&mut flight.doing, Doing::Waiting) else { continue };
            match queued.ticket.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending => {
                    flight.doing = Doing::Queued(queued);
                    self.flights.insert(id, flight);
                }
                Poll::Ready(permit) => {
                    self.saw("queued, then served");
                    let cue = self.cue();
                    let next = flight.pursuit.entered(&flight.plan, &mut flight.exchange, permit, cue);
                    match next {
                        Some(next) => self.follow(id, flight, next),
                        None => self.pursue(id, flight),
                    }
                }
            }
        }
    }

    fn cue(&mut self) -> Cue {
        Cue { now: self.now, random: self.random.u64(..), can_restart: true }
    }

    fn look_at(&mut self, id: u64) {
        let Some(mut flight) = self.flights.remove(&id) else { return };
        let deadline = flight.plan.deadline.expect("none of these is a stream").at;
        assert!(self.now <= deadline, "seed {}: exchange {id} outlived its deadline", self.seed);
        match std::mem::replace(&mut flight.doing, Doing::Waiting) {
            Doing::Waiting => self.pursue(id, flight),
            Doing::Queued(queued) if self.now >= deadline => {
                drop(queued);
                self.end("deadline in the queue");
            }
            Doing::Queued(queued) => {
                self.saw("queued, then turned away");
                flight.pursuit.turned_away(&mut flight.exchange, &flight.plan, queued);
                self.pursue(id, flight);
            }
            Doing::Attempting { attempt, in_flight, began, attempted, probe } => {
                let Attempt { endpoint, mut guard, .. } = attempt;
                let upstream = flight.plan.upstream.upstream.name().as_str().to_owned();
                flight.plan.upstream.upstream.judged(&in_flight, attempted.outcome, self.now);
                self.check_ejections();
                guard.judged(attempted, self.now.since(began), self.now);
                if probe {
                    self.tally(&upstream).probes -= 1;
                }
                if matches!(attempted.outcome, Outcome::Timeout(Limit::Request)) {
                    self.tally(&upstream).under_way -= 1;
                    return self.end("deadline in an attempt");
                }
                let cue = self.cue();
                let events = flight.exchange.events.len();
                let sequel = flight.pursuit.judge(&flight.plan, &mut flight.exchange, &endpoint, attempted, cue);
                let retried = flight
                    .exchange
                    .events
                    .iter()
                    .skip(events)
                    .any(|(_, event)| matches!(event, portcullis::pipeline::exchange::UpstreamEvent::Retried));
                if retried {
                    self.tally(&upstream).retries += 1;
                    self.saw("retry");
                    self.check_budget();
                }
                match sequel {
                    Sequel::Accept => {
                        // The body takes a while, and holds its place.
                        let until = self.now.after(Duration::from_micros(self.random.u64(0..20_000)));
                        flight.doing = Doing::Relaying { _guard: guard, _in_flight: in_flight };
                        self.agenda.push(Reverse((until.min(deadline), id)));
                        self.flights.insert(id, flight);
                        self.saw("answered");
                    }
                    Sequel::Next(wait) => {
                        drop((guard, in_flight));
                        self.tally(&upstream).under_way -= 1;
                        let until = self.now.after(wait);
                        assert!(wait.is_zero() || until < deadline, "seed {}: a wait past the deadline", self.seed);
                        flight.retry_wait = true;
                        self.agenda.push(Reverse((until, id)));
                        self.flights.insert(id, flight);
                    }
                }
            }
            Doing::Relaying { .. } => {
                let upstream = flight.plan.upstream.upstream.name().as_str().to_owned();
                self.tally(&upstream).under_way -= 1;
                self.end("relayed");
            }
        }
    }

    fn pursue(&mut self, id: u64, mut flight: Flight) {
        let cue = self.cue();
        let next = flight.pursuit.next(&mut flight.plan, flight.snapshot, &mut flight.exchange, cue);
        self.follow(id, flight, next);
    }

    fn follow(&mut self, id: u64, mut flight: Flight, next: Move<'static>) {
        let deadline = flight.plan.deadline.expect("a deadline").at;
        match next {
            Move::Queue(queued) => {
                self.agenda.push(Reverse((queued.ticket.deadline().min(deadline), id)));
                flight.doing = Doing::Queued(queued);
                self.flights.insert(id, flight);
            }
            Move::Answer(_) => self.end("stood in for"),
            Move::End(rejection) => {
                assert!(rejection.code.status().is_server_error(), "{rejection:?}");
                self.end("refused");
            }
            Move::Attempt(attempt) => self.attempt(id, flight, attempt),
        }
    }

    fn attempt(&mut self, id: u64, mut flight: Flight, attempt: Attempt) {
        let upstream = &flight.plan.upstream.upstream;
        let name = upstream.name().as_str().to_owned();
        let state = upstream.breaker().map(|breaker| breaker.state(self.now));
        assert!(
            !matches!(state, Some(BreakerState::Open { .. })),
            "seed {}: the breaker of {name} admitted an attempt while open",
            self.seed
        );
        let probe = matches!(state, Some(BreakerState::HalfOpen));
        if name == STANDBY && flight.processed == 0 && !flight.retry_wait {
            self.saw("standby asked");
        }
        let tally = self.tallies.entry(name.clone()).or_default();
        tally.under_way += 1;
        tally.probes += u32::from(probe);
        assert!(tally.probes <= PROBES, "seed {}: {} probes at {name}", self.seed, tally.probes);
        assert!(name == STANDBY || tally.under_way <= LIMIT, "seed {}: {} at {name}", self.seed, tally.under_way);
        let (took, mut attempted) = self.play(&attempt.endpoint.address);
        let deadline = flight.plan.deadline.expect("a deadline").at;
        let mut until = self.now.after(took);
        if until >= deadline {
            (until, attempted) = (deadline, Attempted::failed(Outcome::Timeout(Limit::Request)));
        }
        flight.processed += u32::from(!attempted.unprocessed);
        assert!(
            flight.exchange.method != Method::POST || flight.processed <= 1,
            "seed {}: a POST was sent {} times",
            self.seed,
            flight.processed
        );
        if probe {
            self.saw("probe");
        }
        let in_flight = attempt.endpoint.begin(self.now);
        flight.doing = Doing::Attempting { attempt, in_flight, began: self.now, attempted, probe };
        self.agenda.push(Reverse((until, id)));
        self.flights.insert(id, flight);
    }

    /// What an endpoint makes of an attempt, and how long it takes.
    fn play(&mut self, endpoint: &str) -> (Duration, Attempted) {
        let mood = self.moods.get(endpoint).copied().unwrap_or(Mood::Well);
        let status = |code| Attempted::failed(Outcome::Status(StatusCode::from_u16(code).expect("a status")));
        let millis = |range: std::ops::Range<u64>, random: &mut fastrand::Rng| Duration::from_millis(random.u64(range));
        match (mood, self.random.u32(0..10)) {
            (Mood::Well, 0) if self.random.u32(0..10) == 0 => (millis(1..50, &mut self.random), status(503)),
            (Mood::Well, _) => (millis(1..80, &mut self.random), status(200)),
            (Mood::Slow, 0..=6) => (Duration::from_secs(1), Attempted::failed(Outcome::Timeout(Limit::Attempt))),
            (Mood::Slow, _) => (millis(300..900, &mut self.random), status(200)),
            (Mood::Failing, 0..=5) => (millis(1..10, &mut self.random), status(502)),
            (Mood::Failing, 6..=7) => (millis(1..10, &mut self.random), Attempted::failed(Outcome::Reset)),
            (Mood::Failing, _) => (millis(1..10, &mut self.random), status(200)),
            (Mood::Dead, _) => {
                let refused = Attempted { unprocessed: true, ..Attempted::failed(Outcome::Connect) };
                (millis(0..2, &mut self.random), refused)
            }
        }
    }

    fn end(&mut self, how: &'static str) {
        self.ended += 1;
        self.saw(how);
    }

    /// Never more than half of the four endpoints are ejected.
    fn check_ejections(&mut self) {
        let upstreams = self.snapshot.upstreams.iter().map(|entry| &entry.upstream);
        let Some(api) = upstreams.into_iter().find(|upstream| upstream.name().as_str() == "api") else { return };
        let endpoints = api.roster().endpoints();
        let is_ejected = |endpoint: &&Arc<Endpoint>| endpoint.health.ejected_until(self.now).is_some();
        let ejected = endpoints.as_slice().iter().filter(is_ejected).count();
        assert!(ejected <= 2, "seed {}: {ejected} of four are ejected", self.seed);
        if ejected > 0 {
            self.saw("ejection");
        }
    }

    /// Retries of the whole run within the share of its requests, the floor for each second, and one window of it.
    fn check_budget(&self) {
        let seconds = self.now.since(Instant::from_nanos(1_000_000_000)).as_secs_f64();
        let Some(tally) = self.tallies.get("api") else { return };
        let most = f64::from(tally.requests) * SHARE + FLOOR * (seconds + 10.0);
        assert!(f64::from(tally.retries) <= most, "seed {}: {tally:?}, at most {most}", self.seed);
    }
}

/// Whatever is thrown at it, the gateway keeps its word.
#[test]
fn invariants_hold_whatever_happens() {
    if let Ok(seed) = std::env::var("SIMULATION_SEED") {
        let seen = Simulation::new(seed.parse().expect("a number")).run(3000);
        assert!(!seen.is_empty());
        return;
    }
    let mut all: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in 0..40 {
        for (what, times) in Simulation::new(seed).run(1500) {
            *all.entry(what).or_default() += times;
        }
    }
    for what in [
        "answered",
        "relayed",
        "retry",
        "probe",
        "ejection",
        "reload",
        "refused",
        "stood in for",
        "standby asked",
        "queued, then served",
        "queued, then turned away",
        "deadline in an attempt",
    ] {
        assert!(all.get(what).is_some_and(|times| *times > 0), "{what} never happened: {all:?}");
    }
}

#[test]
fn the_same_seed_plays_the_same() {
    assert_eq!(Simulation::new(7).run(500), Simulation::new(7).run(500));
}
