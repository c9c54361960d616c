//! Between requests and the writer: a buffer per lane, and one queue of full buffers with a bound in bytes.
//!
//! Requests only ever wait for a lane's lock, which is held while a line is formatted or a buffer is swapped, never
//! during I/O. When the queue is full and the lane's buffer too, the line is dropped and counted.
//! Lock order: lane, then queue.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::destination::Destination;
use super::entry::Entry;
use super::formats::Format;
use super::text::TimeText;
use crate::telemetry::metrics::Metrics;

/// How much is held, and how often it is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// A lane hands its buffer over when it holds this much; a buffer is at most one line longer.
    pub(super) chunk_bytes: usize,
    /// The queue takes no further buffer beyond this much.
    pub(super) queue_bytes: usize,
    /// A line waits at most this long for its buffer to fill.
    pub(super) flush_every: Duration,
    /// How long after a failed write it is tried again.
    pub(super) retry_after: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            chunk_bytes: 32 * 1024,
            queue_bytes: 8 * 1024 * 1024,
            flush_every: Duration::from_millis(250),
            retry_after: Duration::from_secs(1),
        }
    }
}

/// What the lanes and the writer share.
pub(super) struct Shared {
    pub(super) limits: Limits,
    pub(super) metrics: Arc<Metrics>,
    lanes: Box<[Lane]>,
    queue: Mutex<Queue>,
    /// Signals the writer.
    work: Condvar,
    /// Signals those who wait for a ticket.
    passed: Condvar,
}

/// One lane, on cache lines of its own.
#[repr(align(128))]
#[derive(Default)]
struct Lane(Mutex<Buffer>);

/// Lines that were not handed over yet.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    lines: u64,
    time: TimeText,
}

/// What the writer does next, in order.
pub(super) enum Item {
    /// Write these lines.
    Chunk(Chunk),
    /// Go on with this destination, or with none.
    Switch(Option<Box<dyn Destination>>),
    /// Open the destination anew.
    Reopen,
    /// Tell who waits for this ticket that everything before it is done.
    Mark(u64),
    /// End.
    Close,
}

/// Whole lines.
pub(super) struct Chunk {
    pub(super) bytes: Vec<u8>,
    pub(super) lines: u64,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    /// Bytes in the chunks among `items`.
    bytes: usize,
    /// Empty buffers to be used again.
    spare: Vec<Vec<u8>>,
    /// Tickets given out.
    tickets: u64,
    /// The last ticket that the writer has passed.
    passed: u64,
    closing: bool,
}

/// What the writer finds when it waits before another try.
pub(super) enum Remedy {
    /// Time has passed.
    Again,
    /// There is another destination, or none any more.
    Switch(Option<Box<dyn Destination>>),
    /// The destination is to be opened anew.
    Reopen,
    /// The log is being closed: there is no later.
    GiveUp,
}

impl Shared {
    pub(super) fn new(lanes: usize, limits: Limits, metrics: Arc<Metrics>) -> Self {
        Self {
            limits,
            metrics,
            lanes: std::iter::repeat_with(Lane::default).take(lanes.max(1)).collect(),
            queue: Mutex::default(),
            work: Condvar::new(),
            passed: Condvar::new(),
        }
    }

    /// Adds a line to a lane; an index past the last lane begins again at the first.
    pub(super) fn record(&self, lane: usize, format: Format, entry: &Entry<'_>) {
        let Some(Lane(buffer)) = self.lanes.get(lane % self.lanes.len()) else { return };
        let mut buffer = buffer.lock();
        if buffer.bytes.len() >= self.limits.chunk_bytes && !self.hand_over(&mut buffer, self.limits.queue_bytes) {
            self.metrics.access_log().dropped.inc();
            return;
        }
        let Buffer { bytes, lines, time } = &mut *buffer;
        format.write(entry, time, bytes);
        *lines += 1;
        if bytes.len() >= self.limits.chunk_bytes {
            // when there is no room now, the next line asks again
            self.hand_over(&mut buffer, self.limits.queue_bytes);
        }
    }

    /// Moves a lane's lines into the queue, unless they would make it hold more than `most` bytes.
    fn hand_over(&self, buffer: &mut Buffer, most: usize) -> bool {
        let mut queue = self.queue.lock();
        if queue.bytes + buffer.bytes.len() > most {
            return false;
        }
        queue.bytes += buffer.bytes.len();
        let bytes = mem::replace(&mut buffer.bytes, queue.spare.pop().unwrap_or_default());
        queue.items.push_back(Item::Chunk(Chunk { bytes, lines: mem::take(&mut buffer.lines) }));
        drop(queue);
        self.work.notify_one();
        true
    }

    /// Moves the lines of all lanes into the queue, whatever it holds: at most one buffer for each lane.
    pub(super) fn sweep(&self) {
        for Lane(buffer) in &self.lanes {
            let mut buffer = buffer.lock();
            if buffer.lines > 0 {
                self.hand_over(&mut buffer, usize::MAX);
            }
        }
    }

    /// Queues something behind all lines that were recorded before.
    pub(super) fn push(&self, item: Item) {
        self.sweep();
        self.queue.lock().items.push_back(item);
        self.work.notify_one();
    }

    /// Queues the end behind all lines that were recorded before, and returns the ticket to wait for it.
    pub(super) fn close(&self) -> u64 {
        self.sweep();
        let mut queue = self.queue.lock();
        if !mem::replace(&mut queue.closing, true) {
            queue.items.push_back(Item::Close);
        }
        queue.tickets += 1;
        let ticket = queue.tickets;
        drop(queue);
        self.work.notify_one();
        ticket
    }

    /// Queues a mark behind all lines that were recorded before, and returns the ticket to wait for it.
    pub(super) fn mark(&self) -> u64 {
        self.sweep();
        let mut queue = self.queue.lock();
        queue.tickets += 1;
        let ticket = queue.tickets;
        queue.items.push_back(Item::Mark(ticket));
        drop(queue);
        self.work.notify_one();
        ticket
    }

    /// Waits until the writer has passed a ticket; `false` when `timeout` was over first.
    pub(super) fn wait_for(&self, ticket: u64, timeout: Duration) -> bool {
        let mut queue = self.queue.lock();
        let _ = self.passed.wait_while_for(&mut queue, |queue| queue.passed < ticket, timeout);
        queue.passed >= ticket
    }

    /// Tells those who wait that the writer has passed this ticket.
    pub(super) fn pass(&self, ticket: u64) {
        let mut queue = self.queue.lock();
        queue.passed = queue.passed.max(ticket);
        drop(queue);
        self.passed.notify_all();
    }

    /// The next item for the writer; `None` when there was none within `wait`.
    pub(super) fn next(&self, wait: Duration) -> Option<Item> {
        let mut queue = self.queue.lock();
        if queue.items.is_empty() {
            let _ = self.work.wait_while_for(&mut queue, |queue| queue.items.is_empty(), wait);
        }
        let item = queue.items.pop_front()?;
        if let Item::Chunk(chunk) = &item {
            queue.bytes -= chunk.bytes.len();
        }
        Some(item)
    }

    /// Takes a written buffer back. One that a few long lines have swollen is let go.
    pub(super) fn recycle(&self, mut bytes: Vec<u8>) {
        if bytes.capacity() <= 4 * self.limits.chunk_bytes {
            bytes.clear();
            let mut queue = self.queue.lock();
            if queue.spare.len() <= self.lanes.len() {
                queue.spare.push(bytes);
            }
        }
    }

    /// Waits for `wait` or for something that could make a failed write succeed. The next remedy is taken out of its
    /// turn, because nothing before it can be written.
    pub(super) fn wait_for_remedy(&self, wait: Duration) -> Remedy {
        let mut queue = self.queue.lock();
        let is_remedy = |item: &Item| matches!(item, Item::Switch(_) | Item::Reopen);
        let nothing_new = |queue: &mut Queue| !queue.closing && !queue.items.iter().any(is_remedy);
        let _ = self.work.wait_while_for(&mut queue, nothing_new, wait);
        let remedy = queue.items.iter().position(is_remedy).and_then(|index| queue.items.remove(index));
        match remedy {
            Some(Item::Switch(destination)) => Remedy::Switch(destination),
            Some(_) => Remedy::Reopen,
            None if queue.closing => Remedy::GiveUp,
            None => Remedy::Again,
        }
    }
}
