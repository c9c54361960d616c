//! The request body on its way from the client to an upstream: bounded, paced, and never ahead of the upstream.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};

use super::downstream::{ClientError, Downstream};
use super::upstream_session::UpstreamSession;
use crate::model::clock::{Clock, Instant};
use crate::model::response::ResponseHead;
use crate::pipeline::body::{Fault, Scanner};

/// Pieces in which a kept body is sent again.
const RESENT_PIECE: usize = 16 * 1024;

/// How slowly a client may deliver its body. Only the time that the client itself makes us wait counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyPace {
    /// Bytes per second that the client must reach.
    pub rate: u64,
    /// How far behind it may be in total.
    pub grace: Duration,
}

/// How much of the body has come from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// There is body to read.
    Body,
    /// The body has been read; trailers may follow.
    Trailers,
    /// All of it is here or has gone on.
    Ended,
}

/// What the attempt under way has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// There is more to send.
    Open,
    /// All of it has gone upstream.
    Ended,
    /// The upstream takes no more; its answer may still come.
    Abandoned,
}

/// Why an upload can't go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadError {
    /// The client broke it off, or its framing is broken.
    Client(ClientError),
    /// More bytes than `validate.max_body`.
    TooLarge,
    /// The client was slower than `min_body_rate`.
    TooSlow,
    /// What came is not what may come.
    Malformed(Fault),
}

/// The upload of one exchange. It outlives attempts: what was kept of the body is sent again to the next one.
#[derive(Debug)]
pub struct Upload {
    has_body: bool,
    source: Source,
    state: State,
    kept: Kept,
    /// How much of what is kept the attempt under way has been sent.
    resent: usize,
    /// What followed the body, for an attempt that is sent all of it again.
    trailers: Option<HeaderMap>,
    /// The client waits for `100 Continue` before it sends.
    expects_continue: bool,
    max: Option<u64>,
    received: u64,
    pace: Option<BodyPace>,
    waited: Duration,
    waiting_since: Option<Instant>,
    scan: Option<Scan>,
    /// What a scan found that does not end the upload.
    pub found: Option<Fault>,
}

/// Judges a body on its way.
#[derive(Debug)]
struct Scan {
    scanner: Scanner,
    /// What is found ends the upload.
    is_enforced: bool,
}

/// The beginning of a body, kept for another attempt: all that has come, or nothing once it is more than `limit`.
#[derive(Debug, Default)]
struct Kept {
    bytes: BytesMut,
    limit: usize,
    /// Bytes have been handed to an upstream that are not kept: they can't be sent again.
    lost: bool,
}

impl Kept {
    fn push(&mut self, piece: &[u8]) {
        if self.lost || self.bytes.len() + piece.len() > self.limit {
            self.lost = true;
            self.bytes = BytesMut::new();
        } else {
            self.bytes.extend_from_slice(piece);
        }
    }
}

impl Upload {
    /// The upload of a request that has a body unless `ended`. Up to `keep` bytes of it are kept for another attempt.
    #[must_use]
    pub fn new(ended: bool, expects_continue: bool, max: Option<u64>, pace: Option<BodyPace>, keep: usize) -> Self {
        let (source, state) = if ended { (Source::Ended, State::Ended) } else { (Source::Body, State::Open) };
        Self {
            has_body: !ended,
            source,
            state,
            kept: Kept { limit: keep, ..Kept::default() },
            resent: 0,
            trailers: None,
            expects_continue,
            max,
            received: 0,
            pace,
            waited: Duration::ZERO,
            waiting_since: None,
            scan: None,
            found: None,
        }
    }

    /// Scans what is here already, and what comes from now on.
    pub fn scan(&mut self, scanner: Scanner, is_enforced: bool) -> Result<(), UploadError> {
        self.scan = Some(Scan { scanner, is_enforced });
        let here = std::mem::take(&mut self.kept.bytes);
        let result = self.scan_piece(&here);
        self.kept.bytes = here;
        result
    }

    /// Takes the body without sending it on, until it has ended or more than `most` bytes of it are here.
    /// `Ready(Ok(true))`: it has ended.
    pub fn poll_collect(
        &mut self,
        cx: &mut Context<'_>,
        clock: &Clock,
        down: &mut Downstream,
        most: usize,
    ) -> Poll<Result<bool, UploadError>> {
        while self.source == Source::Body {
            if self.kept.bytes.len() > most {
                return Poll::Ready(Ok(false));
            }
            if let Some(piece) = ready!(self.poll_receive(cx, clock, down))? {
                self.kept.bytes.extend_from_slice(&piece);
            }
        }
        Poll::Ready(Ok(true))
    }

    /// What is here of the body and has not been dropped.
    #[must_use]
    pub fn collected(&self) -> &[u8] {
        &self.kept.bytes
    }

    /// Begins an attempt: what is kept goes to it first. Only for an upload that [`Upload::can_restart`].
    pub fn restart(&mut self) {
        self.resent = 0;
        self.state = if self.has_body { State::Open } else { State::Ended };
    }

    /// Nothing more goes upstream: the attempt that would take it is not the one under way.
    pub fn give_up(&mut self) {
        if self.state == State::Open {
            self.state = State::Abandoned;
        }
    }

    /// Whether another attempt can be sent the whole body.
    #[must_use]
    pub const fn can_restart(&self) -> bool {
        !self.kept.lost
    }

    /// Bytes of body that came from the client.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Whether more is to be sent upstream.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether all of the request has gone upstream.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.state == State::Ended
    }

    /// Whether it is the client that is waited for.
    #[must_use]
    pub const fn awaits_client(&self) -> bool {
        self.waiting_since.is_some()
    }

    /// When the client will have been too slow; `None` while it is not the client that is waited for.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let (pace, since) = (self.pace?, self.waiting_since?);
        let earned = Duration::from_millis(self.received.saturating_mul(1000) / pace.rate.max(1));
        Some(since.after((pace.grace + earned).saturating_sub(self.waited)))
    }

    /// Moves one piece, if both sides are ready. `Ready(Ok(true))`: something moved, ask again. `Ready(Ok(false))`:
    /// nothing will ever move again. `Pending`: one of the two sides will wake the task.
    pub fn poll_step(
        &mut self,
        cx: &mut Context<'_>,
        clock: &Clock,
        down: &mut Downstream,
        up: &mut UpstreamSession,
    ) -> Poll<Result<bool, UploadError>> {
        if self.state != State::Open {
            return Poll::Ready(Ok(false));
        }
        match up.poll_writable(cx) {
            Poll::Pending => {
                self.stop_waiting(clock);
                return Poll::Pending;
            }
            Poll::Ready(Err(_)) => return self.abandon(),
            Poll::Ready(Ok(())) => {}
        }
        if let Some(piece) = self.next_kept() {
            return if up.send_body(piece).is_err() { self.abandon() } else { Poll::Ready(Ok(true)) };
        }
        match self.source {
            Source::Body => {}
            Source::Trailers => return self.poll_trailers(cx, down, up),
            Source::Ended => return self.end(up),
        }
        if let Some(piece) = ready!(self.poll_receive(cx, clock, down))? {
            self.kept.push(&piece);
            self.resent = self.kept.bytes.len();
            if up.send_body(piece).is_err() {
                return self.abandon();
            }
        }
        Poll::Ready(Ok(true))
    }

    /// The next piece from the client, within what bounds the body; `None` at its end, which moves `source`.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        clock: &Clock,
        down: &mut Downstream,
    ) -> Poll<Result<Option<Bytes>, UploadError>> {
        self.invite(down)?;
        let piece = match down.poll_body(cx) {
            Poll::Pending => {
                self.waiting_since.get_or_insert_with(|| clock.now());
                return Poll::Pending;
            }
            Poll::Ready(piece) => piece.map_err(UploadError::Client)?,
        };
        self.stop_waiting(clock);
        let Some(piece) = piece else {
            self.source = Source::Trailers;
            self.scan_end()?;
            return Poll::Ready(Ok(None));
        };
        self.received += piece.len() as u64;
        if self.max.is_some_and(|max| self.received > max) {
            self.state = State::Abandoned;
            return Poll::Ready(Err(UploadError::TooLarge));
        }
        self.scan_piece(&piece)?;
        Poll::Ready(Ok(Some(piece).filter(|piece| !piece.is_empty())))
    }

    fn scan_piece(&mut self, piece: &[u8]) -> Result<(), UploadError> {
        match self.scan.as_mut().map(|scan| scan.scanner.push(piece)) {
            Some(Err(fault)) => self.scanned(fault),
            Some(Ok(())) | None => Ok(()),
        }
    }

    fn scan_end(&mut self) -> Result<(), UploadError> {
        let Some(Scan { scanner, is_enforced }) = self.scan.take().filter(|_| self.received > 0) else { return Ok(()) };
        match scanner.finish() {
            Ok(()) => Ok(()),
            Err(fault) if is_enforced => {
                self.state = State::Abandoned;
                Err(UploadError::Malformed(fault))
            }
            Err(fault) => {
                self.found = Some(fault);
                Ok(())
            }
        }
    }

    fn scanned(&mut self, fault: Fault) -> Result<(), UploadError> {
        if self.scan.take().is_some_and(|scan| scan.is_enforced) {
            self.state = State::Abandoned;
            return Err(UploadError::Malformed(fault));
        }
        self.found = Some(fault);
        Ok(())
    }

    /// The next piece of what an earlier attempt was sent already.
    fn next_kept(&mut self) -> Option<Bytes> {
        let rest = self.kept.bytes.get(self.resent..).filter(|rest| !rest.is_empty())?;
        let piece = rest.get(..RESENT_PIECE).unwrap_or(rest);
        let piece = Bytes::copy_from_slice(piece);
        self.resent += piece.len();
        Some(piece)
    }

    fn poll_trailers(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut Downstream,
        up: &mut UpstreamSession,
    ) -> Poll<Result<bool, UploadError>> {
        self.trailers = match down.poll_request_trailers(cx) {
            Poll::Ready(trailers) => trailers.map_err(UploadError::Client)?,
            Poll::Pending => return Poll::Pending,
        };
        self.source = Source::Ended;
        self.end(up)
    }

    fn end(&mut self, up: &mut UpstreamSession) -> Poll<Result<bool, UploadError>> {
        self.state = State::Ended;
        if up.end_body(self.trailers.clone()).is_err() {
            return self.abandon();
        }
        Poll::Ready(Ok(true))
    }

    /// Answers `Expect: 100-continue` once the body is asked for: an upstream is there to take it, or it has to be judged
    /// before one is asked (RFC 9110 §10.1.1).
    fn invite(&mut self, down: &mut Downstream) -> Result<(), UploadError> {
        if std::mem::take(&mut self.expects_continue) {
            let head = ResponseHead { status: StatusCode::CONTINUE, headers: HeaderMap::new() };
            down.send_interim(&head).map_err(UploadError::Client)?;
        }
        Ok(())
    }

    /// Nobody waits for the client now: an upstream is, or the time between two attempts passes.
    pub fn stop_waiting(&mut self, clock: &Clock) {
        if let Some(since) = self.waiting_since.take() {
            self.waited += clock.now().since(since);
        }
    }

    fn abandon(&mut self) -> Poll<Result<bool, UploadError>> {
        self.state = State::Abandoned;
        Poll::Ready(Ok(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_time_that_the_client_makes_us_wait_counts() {
        let clock = Clock::manual();
        let pace = BodyPace { rate: 1024, grace: Duration::from_secs(10) };
        let mut upload = Upload::new(false, false, None, Some(pace), 0);
        assert_eq!(upload.deadline(), None, "nobody waits yet");
        upload.waiting_since = Some(clock.now());
        assert_eq!(upload.deadline(), Some(clock.now().after(Duration::from_secs(10))));
        clock.advance(Duration::from_secs(5));
        upload.stop_waiting(&clock);
        upload.received = 2048;
        clock.advance(Duration::from_mins(1));
        upload.waiting_since = Some(clock.now());
        assert_eq!(upload.deadline(), Some(clock.now().after(Duration::from_secs(7))), "10 + 2 earned - 5 waited");
    }

    fn sent(upload: &mut Upload) -> Vec<u8> {
        std::iter::from_fn(|| upload.next_kept()).flat_map(|piece| piece.to_vec()).collect()
    }

    #[test]
    fn what_fits_is_sent_again_to_each_attempt() {
        let mut upload = Upload::new(false, false, None, None, 40_000);
        let halves = [vec![b'a'; 20_000], vec![b'b'; 20_000]];
        for half in &halves {
            upload.kept.push(half);
        }
        for _ in 0..2 {
            assert!(upload.can_restart());
            upload.restart();
            assert!(upload.is_open());
            assert_eq!(sent(&mut upload), halves.concat());
            assert_eq!(upload.next_kept(), None);
        }
        upload.kept.push(b"c");
        assert!(!upload.can_restart(), "one byte too many");
        assert_eq!(upload.kept.bytes.capacity(), 0, "and nothing is held for it");
    }

    #[test]
    fn a_request_without_a_body_has_nothing_to_restart() {
        let mut upload = Upload::new(true, false, None, None, 0);
        upload.restart();
        assert!(upload.is_complete() && upload.can_restart());
    }
}
