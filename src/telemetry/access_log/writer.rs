//! The thread that writes. It alone waits for the destination; when that fails it keeps the lines and tries again,
//! and the bound of the queue decides what is dropped meanwhile.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::destination::{Destination, Reopened};
use super::queue::{Chunk, Item, Remedy, Shared};

/// How long a destination that would block is left alone.
const BUSY_WAIT: Duration = Duration::from_millis(10);

/// Writes until the log is closed.
pub(super) fn run(shared: &Arc<Shared>) {
    Writer { shared, destination: None, failing: None, dropped_seen: 0, dropping: false }.run();
}

struct Writer<'a> {
    shared: &'a Shared,
    destination: Option<Box<dyn Destination>>,
    /// The kind of failure that the program log knows of.
    failing: Option<ErrorKind>,
    /// Dropped lines that the program log knows of.
    dropped_seen: u64,
    dropping: bool,
}

impl Writer<'_> {
    fn run(&mut self) {
        let mut next_sweep = Instant::now() + self.shared.limits.flush_every;
        loop {
            let now = Instant::now();
            if now >= next_sweep {
                self.shared.sweep();
                self.report_drops();
                next_sweep = now + self.shared.limits.flush_every;
            }
            match self.shared.next(next_sweep.saturating_duration_since(now)) {
                None => {}
                Some(Item::Chunk(chunk)) => self.write(chunk),
                Some(Item::Switch(destination)) => self.switch(destination),
                Some(Item::Reopen) => _ = self.reopen(),
                Some(Item::Mark(ticket)) => self.shared.pass(ticket),
                Some(Item::Close) => return self.shared.pass(u64::MAX),
            }
        }
    }

    fn switch(&mut self, destination: Option<Box<dyn Destination>>) {
        self.destination = destination;
        self.failing = None;
    }

    fn reopen(&mut self) -> Reopened {
        let Some(destination) = &mut self.destination else { return Reopened::Same };
        destination.reopen().unwrap_or_else(|error| {
            tracing::error!(%error, "access log can't be opened anew; the old file stays in use");
            Reopened::Same
        })
    }

    /// Writes all lines of a chunk, however often it takes.
    fn write(&mut self, chunk: Chunk) {
        let mut written = 0;
        while let Some(rest) = chunk.bytes.get(written..).filter(|rest| !rest.is_empty()) {
            let Some(destination) = &mut self.destination else { return self.lose(&chunk) };
            match write_some(destination.as_mut(), rest) {
                Ok(count) => {
                    written += count;
                    self.succeeded();
                }
                Err(error) => match self.failed(&error) {
                    Some(Reopened::Same) => {}
                    // another file begins with a whole line
                    Some(Reopened::Another) => written = line_start(&chunk.bytes, written),
                    None => return self.lose(&chunk),
                },
            }
        }
        self.shared.metrics.access_log().lines.add(chunk.lines);
        self.shared.recycle(chunk.bytes);
    }

    fn lose(&mut self, chunk: &Chunk) {
        self.shared.metrics.access_log().dropped.add(chunk.lines);
    }

    /// Counts a failure, tells the operator when it is a new one, and waits for something to change: what to go on
    /// with, or `None` when there is no later.
    fn failed(&mut self, error: &io::Error) -> Option<Reopened> {
        self.shared.metrics.access_log().write_errors.inc();
        if self.failing.replace(error.kind()) != Some(error.kind()) {
            tracing::error!(%error, "access log can't be written; it is tried again, lines beyond the buffer are dropped");
        }
        match self.shared.wait_for_remedy(self.shared.limits.retry_after) {
            Remedy::Again => Some(Reopened::Same),
            Remedy::Switch(destination) => {
                self.switch(destination);
                Some(Reopened::Another)
            }
            Remedy::Reopen => Some(self.reopen()),
            Remedy::GiveUp => None,
        }
    }

    fn succeeded(&mut self) {
        if self.failing.take().is_some() {
            tracing::info!("access log is written again");
        }
    }

    /// Tells the operator when lines begin to be dropped and when that has ended.
    fn report_drops(&mut self) {
        let dropped = self.shared.metrics.access_log().dropped.get();
        let dropping = dropped > self.dropped_seen;
        match (self.dropping, dropping) {
            (false, true) => tracing::warn!(dropped, "access log lines are dropped; its destination does not keep up"),
            (true, false) => tracing::info!(dropped, "access log keeps up again"),
            _ => {}
        }
        (self.dropped_seen, self.dropping) = (dropped, dropping);
    }
}

/// Writes at least one byte. A destination that would block is waited for: that is no failure.
fn write_some(destination: &mut dyn Destination, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match destination.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(BUSY_WAIT),
            result => return result,
        }
    }
}

/// Where the line begins that holds the byte at `at`.
fn line_start(bytes: &[u8], at: usize) -> usize {
    let before = bytes.get(..at).unwrap_or(bytes);
    before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_starts_behind_the_last_newline() {
        assert_eq!(line_start(b"ab\ncd\n", 0), 0);
        assert_eq!(line_start(b"ab\ncd\n", 3), 3);
        assert_eq!(line_start(b"ab\ncd\n", 5), 3);
        assert_eq!(line_start(b"ab\ncd\n", 6), 6);
    }
}
