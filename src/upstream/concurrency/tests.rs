use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Wake;
use std::thread::Thread;

use proptest::prelude::*;

use super::*;
use crate::model::clock::Clock;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn at(millis: u64) -> Instant {
    Instant::default().after(ms(millis))
}

fn fixed(limit: u32, queue: u32) -> Arc<Limiter> {
    Limiter::new(Rules { limit: Limit::Fixed(limit), queue, queue_timeout: ms(500) })
}

fn adaptive(min: u32, max: u32) -> Arc<Limiter> {
    Limiter::new(Rules { limit: Limit::Adaptive(Bounds { min, max }), queue: 0, queue_timeout: ms(500) })
}

#[track_caller]
fn admitted(limiter: &Arc<Limiter>) -> Permit {
    match limiter.enter(at(0), None) {
        Entry::Admitted(permit) => permit,
        other => panic!("not admitted: {other:?}"),
    }
}

#[track_caller]
fn queued(limiter: &Arc<Limiter>) -> Ticket {
    match limiter.enter(at(0), None) {
        Entry::Queued(ticket) => ticket,
        other => panic!("not queued: {other:?}"),
    }
}

#[track_caller]
fn full(entry: &Entry) -> Refusal {
    match entry {
        Entry::Full(refusal) => *refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[derive(Default)]
struct Wakes(AtomicU32);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll(ticket: &mut Ticket, wakes: &Arc<Wakes>) -> Poll<Permit> {
    ticket.poll(&mut Context::from_waker(&Waker::from(Arc::clone(wakes))))
}

fn ready(ticket: &mut Ticket) -> Option<Permit> {
    match poll(ticket, &Arc::default()) {
        Poll::Ready(permit) => Some(permit),
        Poll::Pending => None,
    }
}

fn state(limiter: &Limiter) -> (u32, u32) {
    let reading = limiter.reading();
    (reading.in_flight, reading.queued)
}

#[test]
fn admits_up_to_the_limit_then_queues_then_refuses() {
    let limiter = fixed(2, 1);
    let _held = [admitted(&limiter), admitted(&limiter)];
    let ticket = queued(&limiter);
    assert_eq!(ticket.deadline(), at(500));
    assert_eq!(full(&limiter.enter(at(0), None)).reason, Shed::QueueFull);
    assert_eq!(state(&limiter), (2, 1));
}

#[test]
fn places_are_given_in_the_order_of_arrival() {
    let limiter = fixed(1, 10);
    let held = admitted(&limiter);
    let mut tickets = [queued(&limiter), queued(&limiter), queued(&limiter)];
    assert!(tickets.iter_mut().all(|ticket| ready(ticket).is_none()));
    drop(held);
    let [first, second, third] = &mut tickets;
    assert!(ready(third).is_none() && ready(second).is_none());
    let permit = ready(first).expect("its turn");
    assert!(ready(first).is_none(), "it is over");
    drop(permit);
    assert!(ready(third).is_none());
    drop(ready(second).expect("its turn"));
    assert!(ready(third).is_some());
}

#[test]
fn a_newcomer_overtakes_nobody() {
    let limiter = fixed(1, 10);
    let held = admitted(&limiter);
    let mut first = queued(&limiter);
    drop(held);
    let mut newcomer = queued(&limiter);
    assert!(ready(&mut newcomer).is_none());
    assert!(ready(&mut first).is_some());
}

#[test]
fn the_waker_of_the_last_poll_is_woken_once() {
    let limiter = fixed(1, 10);
    let held = admitted(&limiter);
    let mut ticket = queued(&limiter);
    let (early, last) = (Arc::<Wakes>::default(), Arc::<Wakes>::default());
    for wakes in [&early, &last, &last] {
        assert!(poll(&mut ticket, wakes).is_pending());
    }
    drop(held);
    assert_eq!((early.0.load(Ordering::SeqCst), last.0.load(Ordering::SeqCst)), (0, 1));
    assert!(poll(&mut ticket, &last).is_ready());
}

#[test]
fn a_ticket_that_leaves_after_its_turn_came_passes_the_place_on() {
    let limiter = fixed(1, 10);
    let held = admitted(&limiter);
    let (first, mut second) = (queued(&limiter), queued(&limiter));
    let wakes = Arc::<Wakes>::default();
    assert!(poll(&mut second, &wakes).is_pending());
    drop(held);
    assert_eq!(wakes.0.load(Ordering::SeqCst), 0);
    drop(first);
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    drop(ready(&mut second).expect("the place that was passed on"));
    drop(second);
    assert_eq!(state(&limiter), (0, 0));
}

#[test]
fn a_ticket_that_times_out_leaves_the_queue() {
    let limiter = fixed(1, 1);
    let _held = admitted(&limiter);
    let refusal = queued(&limiter).timed_out();
    assert_eq!(refusal.reason, Shed::QueueTimeout);
    assert_eq!(state(&limiter), (1, 0));
    drop(queued(&limiter));
}

#[test]
fn refuses_at_once_what_would_wait_too_long() {
    let limiter = fixed(2, 100);
    let held = [admitted(&limiter), admitted(&limiter)];
    for permit in &held {
        permit.sample(ms(200), true, at(0));
    }
    // 100 ms for each position
    let _tickets: Vec<Ticket> = (0..5).map(|_| queued(&limiter)).collect();
    let refusal = full(&limiter.enter(at(0), None));
    assert_eq!(refusal, Refusal { reason: Shed::ExpectedWait, retry_after: ms(600) });
    assert_eq!(state(&limiter), (2, 5));

    let limiter = fixed(1, 100);
    let held = admitted(&limiter);
    held.sample(ms(200), true, at(0));
    assert_eq!(full(&limiter.enter(at(10), Some(at(209)))).reason, Shed::ExpectedWait, "its own deadline is sooner");
    assert_eq!(full(&limiter.enter(at(10), Some(at(10)))).reason, Shed::ExpectedWait);
    assert!(matches!(limiter.enter(at(10), Some(at(210))), Entry::Queued(_)));
    drop(held);
    assert!(matches!(limiter.enter(at(10), Some(at(11))), Entry::Admitted(_)), "no wait is expected");
}

#[test]
fn the_client_is_told_when_to_come_back() {
    for reason in [Shed::QueueFull, Shed::QueueTimeout, Shed::ExpectedWait] {
        let rejection = rejection(&Refusal { reason, retry_after: ms(1500) });
        assert_eq!((rejection.code.as_str(), rejection.code.status().as_u16()), ("overloaded", 503));
        assert_eq!(rejection.code.proxy_error(), "connection_limit_reached");
        assert_eq!(rejection.headers, [(RETRY_AFTER, 2.into())]);
    }
}

/// Parks its thread and is unparked by a wake.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for the turn of a ticket; a wake that was lost ends the test.
#[track_caller]
fn wait(mut ticket: Ticket) -> Permit {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut parked = 0;
    loop {
        if let Poll::Ready(permit) = ticket.poll(&mut Context::from_waker(&waker)) {
            return permit;
        }
        parked += 1;
        assert!(parked < 1000, "the wake was lost");
        // a park may end early for no reason: it is the many that would show
        std::thread::park_timeout(Duration::from_secs(30));
    }
}

#[test]
fn threads_share_the_limit_and_lose_no_wake() {
    const LIMIT: u32 = 3;
    let limiter = fixed(LIMIT, 6);
    let under_way = AtomicU32::new(0);
    let served = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for seed in 0..8 {
            let (limiter, under_way, served) = (&limiter, &under_way, &served);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                for _ in 0..2000 {
                    let permit = match limiter.enter(at(0), None) {
                        Entry::Admitted(permit) => permit,
                        // some leave the queue, whether their turn has come or not
                        Entry::Queued(ticket) if random.u8(..4) == 0 => {
                            std::thread::yield_now();
                            drop(ticket);
                            continue;
                        }
                        Entry::Queued(ticket) => wait(ticket),
                        Entry::Full(_) => continue,
                    };
                    assert!(under_way.fetch_add(1, Ordering::SeqCst) < LIMIT);
                    if random.bool() {
                        std::thread::yield_now();
                    }
                    served.fetch_add(1, Ordering::SeqCst);
                    under_way.fetch_sub(1, Ordering::SeqCst);
                    drop(permit);
                }
            });
        }
    });
    assert_eq!(state(&limiter), (0, 0));
    assert!(served.load(Ordering::SeqCst) > 1000);
}

#[derive(Debug, Clone)]
enum Step {
    Enter(Option<u64>),
    Poll(usize),
    Leave(usize),
    Finish(usize),
    Sample(usize, u64, bool),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => prop::option::weighted(0.2, 0_u64..800).prop_map(Step::Enter),
        3 => (0_usize..64).prop_map(Step::Poll),
        1 => (0_usize..64).prop_map(Step::Leave),
        3 => (0_usize..64).prop_map(Step::Finish),
        2 => (0_usize..64, 0_u64..400, prop::bool::weighted(0.9)).prop_map(|(which, took, ok)| Step::Sample(which, took, ok)),
        1 => (0_u64..300).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Nothing is admitted above the limit, no more wait than may, and turns come in order. With `limit` 0 the limit is
    /// adaptive.
    #[test]
    fn whatever_happens_it_keeps_its_promises(
        limit in 0_u32..5,
        queue in 0_u32..5,
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let from = if limit == 0 { Limit::Adaptive(Bounds { min: 1, max: 6 }) } else { Limit::Fixed(limit) };
        let limiter = Limiter::new(Rules { limit: from, queue, queue_timeout: ms(500) });
        let clock = Clock::manual();
        let mut permits: Vec<Permit> = Vec::new();
        let mut tickets: Vec<Ticket> = Vec::new();
        for step in steps {
            let before = limiter.reading();
            match step {
                Step::Enter(deadline) => {
                    let now = clock.now();
                    match limiter.enter(now, deadline.map(|millis| now.after(ms(millis)))) {
                        Entry::Admitted(permit) => {
                            prop_assert!(limiter.reading().in_flight <= limiter.reading().limit);
                            prop_assert_eq!(limiter.reading().queued, 0, "nobody was overtaken");
                            permits.push(permit);
                        }
                        Entry::Queued(ticket) => {
                            prop_assert_eq!(ticket.deadline(), now.after(ms(500)));
                            tickets.push(ticket);
                        }
                        Entry::Full(refusal) => {
                            prop_assert!(before.in_flight >= limiter.reading().limit);
                            prop_assert_eq!(refusal.reason == Shed::QueueFull, before.queued == queue);
                        }
                    }
                }
                Step::Poll(which) if !tickets.is_empty() => {
                    let which = which % tickets.len();
                    if let Some(permit) = ready(&mut tickets[which]) {
                        drop(tickets.remove(which));
                        permits.push(permit);
                        // those that came earlier and are still here have had their turn too
                        for earlier in &mut tickets[..which] {
                            prop_assert!(limiter.state.lock().position(earlier.ticket).is_none());
                        }
                    }
                }
                Step::Leave(which) if !tickets.is_empty() => drop(tickets.remove(which % tickets.len())),
                Step::Finish(which) if !permits.is_empty() => drop(permits.swap_remove(which % permits.len())),
                Step::Sample(which, took, success) if !permits.is_empty() => {
                    permits[which % permits.len()].sample(ms(took), success, clock.now());
                }
                Step::Poll(_) | Step::Leave(_) | Step::Finish(_) | Step::Sample(..) => {}
                Step::Wait(millis) => clock.advance(ms(millis)),
            }
            let after = limiter.reading();
            let waiting = tickets.iter().filter(|ticket| limiter.state.lock().position(ticket.ticket).is_some()).count();
            prop_assert_eq!(after.in_flight as usize, permits.len() + tickets.len() - waiting);
            prop_assert_eq!(after.queued as usize, waiting);
            prop_assert!(after.queued <= queue);
            // a limit that shrinks takes no place away; it gives none
            prop_assert!(after.in_flight <= after.limit.max(before.in_flight));
            prop_assert!(after.queued == 0 || after.in_flight >= after.limit, "a free place while one waits");
            if limit != 0 {
                prop_assert!(after.in_flight <= limit);
            }
        }
        drop((permits, tickets));
        prop_assert_eq!(state(&limiter), (0, 0));
    }
}

/// An app that works on `capacity` requests at once and lets the others wait inside, asked by so many clients that the
/// limit is always used up. Time passes from one response to the next.
struct Server {
    limiter: Arc<Limiter>,
    clients: usize,
    /// When each of its workers is free.
    free: BinaryHeap<Reverse<Instant>>,
    /// Work takes between half and one and a half of this.
    work: Duration,
    /// Responses to come: when, and when they were asked for.
    coming: BinaryHeap<Reverse<(Instant, u64)>>,
    asked: BTreeMap<u64, (Permit, Instant)>,
    next: u64,
    now: Instant,
    random: fastrand::Rng,
    failing: bool,
}

/// What was seen over a stretch of time.
#[derive(Debug)]
struct Seen {
    responses: usize,
    /// The limit at each response, sorted.
    limits: Vec<u32>,
}

fn ratio(part: usize, whole: usize) -> f64 {
    let number = |count| f64::from(u32::try_from(count).expect("a test counts no further"));
    number(part) / number(whole)
}

impl Seen {
    fn share_within(&self, range: std::ops::RangeInclusive<u32>) -> f64 {
        let within = self.limits.iter().filter(|limit| range.contains(limit));
        ratio(within.count(), self.limits.len())
    }
}

impl Server {
    fn new(limiter: Arc<Limiter>, clients: usize, capacity: usize, work: Duration) -> Self {
        let mut server = Self {
            limiter,
            clients,
            free: BinaryHeap::new(),
            work,
            coming: BinaryHeap::new(),
            asked: BTreeMap::new(),
            next: 0,
            now: at(0),
            random: fastrand::Rng::with_seed(7),
            failing: false,
        };
        server.has_capacity(capacity);
        server
    }

    fn has_capacity(&mut self, capacity: usize) {
        self.free = std::iter::repeat_n(Reverse(self.now), capacity).collect();
    }

    fn ask(&mut self) {
        while self.asked.len() < self.clients
            && let Entry::Admitted(permit) = self.limiter.enter(self.now, None)
        {
            let reading = self.limiter.reading();
            assert!(reading.in_flight <= reading.limit, "{reading:?}");
            let Reverse(free) = self.free.pop().expect("a worker");
            let done = free.max(self.now).after(self.work.mul_f64(0.5 + self.random.f64()));
            self.free.push(Reverse(done));
            self.coming.push(Reverse((done, self.next)));
            self.asked.insert(self.next, (permit, self.now));
            self.next += 1;
        }
    }

    fn run(&mut self, length: Duration) -> Seen {
        let until = self.now.after(length);
        let mut seen = Seen { responses: 0, limits: Vec::new() };
        while self.now < until {
            self.ask();
            let Reverse((done, which)) = self.coming.pop().expect("a response");
            self.now = done;
            let (permit, asked) = self.asked.remove(&which).expect("it was asked for");
            permit.sample(self.now.since(asked), !self.failing, self.now);
            seen.responses += 1;
            seen.limits.push(self.limiter.reading().limit);
        }
        seen.limits.sort_unstable();
        seen
    }
}

/// Lets the limit settle for `settle` and then demands that, over a minute, nine tenths of the time it lies between the
/// capacity and 1.7 times that plus 4, and that the app does nine tenths of what it can do.
#[track_caller]
fn check_settles(server: &mut Server, settle: Duration, capacity: u32) {
    server.run(settle);
    let seen = server.run(Duration::from_mins(1));
    let most = capacity + capacity * 7 / 10 + 4;
    let share = seen.share_within(capacity..=most);
    let median = seen.limits[seen.limits.len() / 2];
    assert!(share >= 0.9, "{share} of the time within {capacity}..={most}; median {median}");
    let possible = 60.0 * f64::from(capacity) / server.work.as_secs_f64();
    let done = ratio(seen.responses, 1) / possible;
    assert!(done >= 0.9, "{done} of what is possible; median {median}");
}

#[test]
fn finds_the_capacity_of_an_app() {
    for (capacity, work) in [(1, 20), (4, 50), (10, 10), (50, 20), (100, 200), (200, 300)] {
        let mut server = Server::new(adaptive(1, 1000), 2000, capacity, ms(work));
        check_settles(&mut server, Duration::from_secs(30), u32::try_from(capacity).expect("small"));
    }
}

#[test]
fn follows_an_app_whose_capacity_changes() {
    let mut server = Server::new(adaptive(4, 1000), 2000, 50, ms(100));
    check_settles(&mut server, Duration::from_secs(20), 50);
    for capacity in [10, 100, 25, 200] {
        server.has_capacity(capacity);
        check_settles(&mut server, Duration::from_secs(20), u32::try_from(capacity).expect("small"));
    }
}

#[test]
fn an_app_that_does_slower_work_is_not_taken_for_a_smaller_one() {
    let mut server = Server::new(adaptive(4, 1000), 2000, 50, ms(20));
    check_settles(&mut server, Duration::from_secs(20), 50);
    for work in [80, 20, 300] {
        server.work = ms(work);
        check_settles(&mut server, Duration::from_mins(1), 50);
    }
}

#[test]
fn a_limit_that_nobody_reaches_does_not_grow() {
    let mut server = Server::new(adaptive(4, 1000), 8, 50, ms(20));
    let seen = server.run(Duration::from_mins(2));
    assert!(*seen.limits.last().expect("responses") <= 24, "{:?}", seen.limits.last());
    // of the eight clients none has to wait once it has grown beyond them
    assert!(seen.share_within(8..=24) > 0.9);
}

#[test]
fn failures_cut_the_limit_down_to_the_least() {
    let mut server = Server::new(adaptive(4, 1000), 2000, 50, ms(20));
    check_settles(&mut server, Duration::from_secs(20), 50);
    server.failing = true;
    let seen = server.run(Duration::from_mins(1));
    assert_eq!(server.limiter.reading().limit, 4);
    assert_eq!(seen.limits.first(), Some(&4));
    server.failing = false;
    check_settles(&mut server, Duration::from_secs(20), 50);
}

#[test]
fn streams_that_hold_every_place_stop_no_measurement_for_good() {
    let mut server = Server::new(adaptive(4, 1000), 2000, 50, ms(20));
    server.run(Duration::from_secs(20));
    let settled = server.limiter.reading().limit;
    // all that is under way turns into streams; a measurement is due, and no response will come
    let streams = std::mem::take(&mut server.asked);
    server.coming.clear();
    let mut now = server.now;
    let limit = || server.limiter.reading().limit;
    let measures = streams.values().any(|(permit, _)| {
        now = now.after(Duration::from_secs(1));
        permit.sample(ms(20), true, now);
        limit() < settled * 6 / 10
    });
    assert!(measures, "a measurement began: {}, {settled}", limit());
    let just_before = now.after(ms(999));
    assert_eq!(full(&server.limiter.enter(just_before, None)).reason, Shed::QueueFull);
    let _entry = server.limiter.enter(now.after(Duration::from_secs(1)), None);
    assert!(limit() >= settled * 9 / 10, "{}", limit());
}

#[test]
fn the_limit_keeps_to_its_bounds() {
    let mut server = Server::new(adaptive(6, 20), 2000, 50, ms(20));
    let seen = server.run(Duration::from_mins(1));
    assert_eq!(seen.limits.last(), Some(&20));
    assert!(seen.share_within(20..=20) > 0.9, "the app could do more");
    server.has_capacity(1);
    let seen = server.run(Duration::from_mins(2));
    assert_eq!(seen.limits.first(), Some(&6));
}
