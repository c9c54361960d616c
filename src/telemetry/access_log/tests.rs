use std::collections::BTreeSet;
use std::io::ErrorKind;

use parking_lot::{Condvar, Mutex};

use super::destination::Reopened;
use super::*;
use crate::model::request::Scheme;

/// Longer than any test takes.
const LONG: Duration = Duration::from_mins(1);

/// A destination that a test opens, blocks and breaks.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    written: Vec<u8>,
    /// Writes wait.
    blocked: bool,
    /// A write waits.
    waiting: bool,
    /// How many further bytes are taken before writes fail; no bound when `None`.
    room: Option<usize>,
    /// How many further writes say that they would block.
    busy: usize,
    failures: usize,
    reopened: usize,
}

impl Gate {
    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.0.lock());
        self.0.1.notify_all();
    }

    #[track_caller]
    fn wait_until(&self, mut condition: impl FnMut(&State) -> bool) {
        let mut state = self.0.0.lock();
        let result = self.0.1.wait_while_for(&mut state, |state| !condition(state), LONG);
        assert!(!result.timed_out(), "it never came to it");
    }

    fn lines(&self) -> Vec<String> {
        let state = self.0.0.lock();
        String::from_utf8_lossy(&state.written).lines().map(str::to_owned).collect()
    }
}

impl Destination for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.0.lock();
        state.waiting = state.blocked;
        self.0.1.notify_all();
        self.0.1.wait_while(&mut state, |state| state.blocked);
        state.waiting = false;
        let taken = bytes.len().min(state.room.unwrap_or(usize::MAX));
        let result = if state.busy > 0 {
            state.busy -= 1;
            Err(ErrorKind::WouldBlock.into())
        } else if taken == 0 {
            state.failures += 1;
            Err(ErrorKind::StorageFull.into())
        } else {
            state.room = state.room.map(|room| room - taken);
            state.written.extend(bytes.iter().take(taken));
            Ok(taken)
        };
        self.0.1.notify_all();
        result
    }

    fn reopen(&mut self) -> io::Result<Reopened> {
        self.set(|state| state.reopened += 1);
        Ok(Reopened::Same)
    }
}

/// Limits under which nothing happens by itself.
const STILL: Limits = Limits { chunk_bytes: 200, queue_bytes: 1000, flush_every: LONG, retry_after: LONG };

fn log_to(gate: &Gate, lanes: usize, limits: Limits) -> (AccessLog, Arc<Metrics>) {
    let metrics = Metrics::new();
    let log = AccessLog::with_limits(lanes, Arc::clone(&metrics), limits).expect("a thread");
    log.apply(to(gate));
    (log, metrics)
}

fn to(gate: &Gate) -> Prepared {
    Prepared { format: Some(Format::Common), destination: Some(Box::new(gate.clone())) }
}

/// Records a line that is recognised by its status: some 60 bytes.
fn record(lane: &Lane, number: u16) {
    let peer = "192.0.2.7:4711".parse().expect("an address");
    let status = http::StatusCode::from_u16(number).ok();
    lane.record(&Entry { status, ..Entry::new(0, "public", Scheme::Http, peer) });
}

fn numbers(gate: &Gate) -> Vec<u16> {
    let number = |line: &String| line.split(' ').nth(6).and_then(|word| word.parse().ok());
    gate.lines().iter().map(|line| number(line).unwrap_or_else(|| panic!("not a line: {line:?}"))).collect()
}

#[test]
fn a_flush_writes_what_was_recorded_in_order() {
    let gate = Gate::default();
    let (log, metrics) = log_to(&gate, 1, Limits { queue_bytes: usize::MAX, ..STILL });
    let lane = log.lane(0);
    (100..200).for_each(|number| record(&lane, number));
    assert!(log.flush(LONG));
    assert_eq!(numbers(&gate), (100..200).collect::<Vec<_>>());
    assert_eq!((metrics.access_log().lines.get(), metrics.access_log().dropped.get()), (100, 0));
}

#[test]
fn a_line_does_not_wait_for_a_full_buffer() {
    let gate = Gate::default();
    let (log, _) = log_to(&gate, 2, Limits { flush_every: Duration::from_millis(1), ..STILL });
    record(&log.lane(1), 200);
    gate.wait_until(|state| !state.written.is_empty());
}

#[test]
fn a_blocked_destination_drops_and_counts_but_never_blocks() {
    let gate = Gate::default();
    gate.set(|state| state.blocked = true);
    let (log, metrics) = log_to(&gate, 1, STILL);
    let lane = log.lane(0);
    (100..600).for_each(|number| record(&lane, number));
    let dropped = metrics.access_log().dropped.get();
    assert!(dropped > 400, "{dropped} dropped: the bound is 1200 bytes and a buffer, of 60 each");
    gate.set(|state| state.blocked = false);
    assert!(log.flush(LONG));
    let written = numbers(&gate);
    assert!(written.is_sorted());
    assert_eq!(written.len() as u64 + dropped, 500, "every line is written or counted");
    assert_eq!(metrics.access_log().lines.get(), written.len() as u64);

    record(&lane, 999);
    assert!(log.flush(LONG));
    assert_eq!(numbers(&gate).last(), Some(&999), "it goes on");
}

#[test]
fn lanes_at_once_lose_nothing() {
    let gate = Gate::default();
    let (log, metrics) = log_to(&gate, 3, Limits { queue_bytes: usize::MAX, ..STILL });
    std::thread::scope(|scope| {
        for worker in 0..8_u16 {
            let lane = log.lane(worker.into());
            scope.spawn(move || (0..100).for_each(|number| record(&lane, 100 + worker * 100 + number)));
        }
    });
    assert!(log.flush_and_close(LONG));
    let written = numbers(&gate);
    assert_eq!(written.len(), 800);
    assert_eq!(written.into_iter().collect::<BTreeSet<_>>(), (100..900).collect());
    assert_eq!(metrics.access_log().dropped.get(), 0);
}

#[test]
fn closing_writes_everything_and_later_lines_are_ignored() {
    let gate = Gate::default();
    let (log, _) = log_to(&gate, 1, STILL);
    let lane = log.lane(0);
    record(&lane, 200);
    assert!(log.flush_and_close(LONG));
    record(&lane, 201);
    assert!(log.flush_and_close(LONG), "a second time is harmless");
    assert_eq!(numbers(&gate), [200]);
    assert!(!lane.is_on());
}

#[test]
fn closing_gives_up_at_its_timeout() {
    let gate = Gate::default();
    gate.set(|state| state.blocked = true);
    let (log, _) = log_to(&gate, 1, STILL);
    record(&log.lane(0), 200);
    assert!(!log.flush_and_close(Duration::from_millis(1)));
    gate.set(|state| state.blocked = false);
}

#[test]
fn a_failing_destination_is_tried_again_and_loses_nothing() {
    let gate = Gate::default();
    gate.set(|state| state.room = Some(90));
    let (log, metrics) = log_to(&gate, 1, Limits { retry_after: Duration::from_millis(1), ..STILL });
    let lane = log.lane(0);
    (201..=203).for_each(|number| record(&lane, number));
    let ticket = log.shared.mark();
    gate.wait_until(|state| state.failures >= 3);
    gate.set(|state| state.room = None);
    assert!(log.shared.wait_for(ticket, LONG));
    assert_eq!(numbers(&gate), [201, 202, 203], "a line that was begun is completed");
    assert!(metrics.access_log().write_errors.get() >= 3);
    assert_eq!(metrics.access_log().dropped.get(), 0);
}

#[test]
fn a_destination_that_would_block_is_not_a_failure() {
    let gate = Gate::default();
    gate.set(|state| state.busy = 2);
    let (log, metrics) = log_to(&gate, 1, STILL);
    record(&log.lane(0), 200);
    assert!(log.flush(LONG));
    assert_eq!((numbers(&gate), metrics.access_log().write_errors.get()), (vec![200], 0));
}

#[test]
fn closing_does_not_wait_for_a_destination_that_is_gone() {
    let gate = Gate::default();
    gate.set(|state| state.room = Some(0));
    let (log, metrics) = log_to(&gate, 1, STILL);
    let lane = log.lane(0);
    (100..110).for_each(|number| record(&lane, number));
    assert!(log.flush_and_close(LONG), "although it would be tried again only after {LONG:?}");
    assert_eq!((metrics.access_log().lines.get(), metrics.access_log().dropped.get()), (0, 10));
}

#[test]
fn a_switch_comes_between_the_lines() {
    let (first, second) = (Gate::default(), Gate::default());
    let (log, _) = log_to(&first, 2, STILL);
    record(&log.lane(0), 201);
    record(&log.lane(1), 202);
    log.apply(to(&second));
    record(&log.lane(0), 203);
    log.apply(Prepared { format: None, destination: None });
    record(&log.lane(0), 204);
    assert!(log.flush(LONG));
    assert_eq!((numbers(&first), numbers(&second)), (vec![201, 202], vec![203]));
}

#[test]
fn a_new_destination_relieves_a_failing_one() {
    let (full, second) = (Gate::default(), Gate::default());
    full.set(|state| state.room = Some(70));
    let (log, metrics) = log_to(&full, 1, STILL);
    let lane = log.lane(0);
    (201..=203).for_each(|number| record(&lane, number));
    let _ = log.shared.mark();
    full.wait_until(|state| state.failures > 0);
    log.apply(to(&second));
    assert!(log.flush(LONG));
    assert_eq!(numbers(&second), [202, 203], "the line that was begun is written whole");
    assert_eq!(metrics.access_log().dropped.get(), 0);
}

#[test]
fn reopening_relieves_a_failing_destination_at_once() {
    let gate = Gate::default();
    gate.set(|state| state.room = Some(0));
    let (log, _) = log_to(&gate, 1, STILL);
    record(&log.lane(0), 200);
    let _ = log.shared.mark();
    gate.wait_until(|state| state.failures > 0);
    gate.set(|state| state.room = None);
    log.reopen();
    assert!(log.flush(LONG));
    assert_eq!(numbers(&gate), [200]);
    gate.wait_until(|state| state.reopened == 1);
}

#[test]
fn is_off_until_it_is_applied() {
    let metrics = Metrics::new();
    let log = AccessLog::with_limits(1, Arc::clone(&metrics), STILL).expect("a thread");
    record(&log.lane(0), 200);
    assert!(log.flush(LONG));
    assert_eq!((metrics.access_log().lines.get(), metrics.access_log().dropped.get()), (0, 0));
}

#[test]
fn a_bad_path_is_refused_before_anything_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let gate = Gate::default();
    let (log, _) = log_to(&gate, 1, STILL);
    let path = folder.path().join("missing/access.log").display().to_string();
    let error = log.prepare(Some(&Config { path: path.clone(), ..Config::default() })).err().expect("refused");
    assert!(error.to_string().starts_with(&format!("access log can't be opened: {path}: ")), "{error}");
    record(&log.lane(0), 200);
    assert!(log.flush(LONG));
    assert_eq!(numbers(&gate), [200]);
}

#[test]
fn a_file_is_written_and_rotated() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let log = AccessLog::with_limits(1, Metrics::new(), STILL).expect("a thread");
    let config = Config { path: path.display().to_string(), format: Format::Common };
    log.apply(log.prepare(Some(&config)).expect("it opens"));
    record(&log.lane(0), 201);
    assert!(log.flush(LONG));
    std::fs::rename(&path, &moved).expect("it moves");
    log.reopen();
    record(&log.lane(0), 202);
    assert!(log.flush_and_close(LONG));
    let lines = |path| io::read_to_string(io::BufReader::new(Box::new(open(path)))).expect("text").lines().count();
    assert_eq!((lines(&moved), lines(&path)), (1, 1));
}

#[expect(clippy::disallowed_types, reason = "the test reads what was written")]
fn open(path: &std::path::Path) -> std::fs::File {
    std::fs::File::open(path).expect("the file exists")
}

#[test]
fn the_settings_have_defaults() {
    let config: Config = toml::from_str("").expect("every setting has a default");
    assert_eq!(config, Config { path: "-".to_owned(), format: Format::Json });
    let config: Config = toml::from_str("format = \"combined\"").expect("a format");
    assert_eq!(config.format, Format::Combined);
    assert!(toml::from_str::<Config>("format = \"ecs\"").is_err());
}
