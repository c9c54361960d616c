//! The request body on its way from the client to an upstream: bounded, paced, and never ahead of the upstream.

use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::downstream::{ClientError, Downstream};
use super::upstream_session::UpstreamSession;
use crate::model::clock::{Clock, Instant};
use crate::model::response::ResponseHead;

/// How slowly a client may deliver its body. Only the time that the client itself makes us wait counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyPace {
    /// Bytes per second that the client must reach.
    pub rate: u64,
    /// How far behind it may be in total.
    pub grace: Duration,
}

/// What an upload is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// There is body to read.
    Open,
    /// The body has been read; trailers may follow.
    Trailers,
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
}

/// The upload of one exchange; it outlives attempts that sent none of it.
#[derive(Debug)]
pub struct Upload {
    state: State,
    /// The client waits for `100 Continue` before it sends.
    expects_continue: bool,
    max: Option<u64>,
    received: u64,
    pace: Option<BodyPace>,
    waited: Duration,
    waiting_since: Option<Instant>,
    /// Bytes have been handed to an upstream: they can't be sent again.
    pub spent: bool,
}

impl Upload {
    /// The upload of a request that has a body unless `ended`.
    #[must_use]
    pub const fn new(ended: bool, expects_continue: bool, max: Option<u64>, pace: Option<BodyPace>) -> Self {
        let state = if ended { State::Ended } else { State::Open };
        Self {
            state,
            expects_continue,
            max,
            received: 0,
            pace,
            waited: Duration::ZERO,
            waiting_since: None,
            spent: false,
        }
    }

    /// Bytes of body that came from the client.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Whether more is to be sent upstream.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open | State::Trailers)
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
        match self.state {
            State::Open => {}
            State::Trailers => return self.poll_trailers(cx, down, up),
            State::Ended | State::Abandoned => return Poll::Ready(Ok(false)),
        }
        match up.poll_writable(cx) {
            Poll::Pending => {
                self.stop_waiting(clock);
                return Poll::Pending;
            }
            Poll::Ready(Err(_)) => return self.abandon(),
            Poll::Ready(Ok(())) => {}
        }
        self.invite(down)?;
        let piece = match down.poll_body(cx) {
            Poll::Pending => {
                self.waiting_since.get_or_insert_with(|| clock.now());
                return Poll::Pending;
            }
            Poll::Ready(piece) => piece.map_err(UploadError::Client)?,
        };
        self.stop_waiting(clock);
        match piece {
            Some(piece) if piece.is_empty() => {}
            Some(piece) => {
                self.received += piece.len() as u64;
                if self.max.is_some_and(|max| self.received > max) {
                    self.state = State::Abandoned;
                    return Poll::Ready(Err(UploadError::TooLarge));
                }
                self.spent = true;
                if up.send_body(piece).is_err() {
                    return self.abandon();
                }
            }
            None => self.state = State::Trailers,
        }
        Poll::Ready(Ok(true))
    }

    fn poll_trailers(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut Downstream,
        up: &mut UpstreamSession,
    ) -> Poll<Result<bool, UploadError>> {
        let trailers = match down.poll_request_trailers(cx) {
            Poll::Ready(trailers) => trailers.map_err(UploadError::Client)?,
            Poll::Pending => return Poll::Pending,
        };
        self.state = State::Ended;
        if up.end_body(trailers).is_err() {
            return self.abandon();
        }
        Poll::Ready(Ok(true))
    }

    /// Answers `Expect: 100-continue` once an upstream is there to take the body (RFC 9110 §10.1.1).
    fn invite(&mut self, down: &mut Downstream) -> Result<(), UploadError> {
        if std::mem::take(&mut self.expects_continue) {
            let head = ResponseHead { status: StatusCode::CONTINUE, headers: HeaderMap::new() };
            down.send_interim(&head).map_err(UploadError::Client)?;
        }
        Ok(())
    }

    fn stop_waiting(&mut self, clock: &Clock) {
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
        let mut upload = Upload::new(false, false, None, Some(pace));
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
}
