//! Moves the bytes of one attempt: the upload while the head is awaited, then the response while the upload may still
//! run, or both directions of an upgraded connection. One place watches all of it, so nothing can block anything else.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::downstream::{Downstream, Piece};
use super::timer::Timer;
use super::upload::{Upload, UploadError};
use super::upstream_session::{Received, UpstreamError, UpstreamSession};
use crate::model::clock::{Clock, Instant};
use crate::model::deadline::{Deadline, Limit};
use crate::model::response::ResponseHead;
use crate::pipeline::respond::Encoder;

/// Interim responses that one attempt may send; a flood of them is not an answer.
pub(super) const MAX_INTERIM: usize = 16;

/// Why a transfer ended before its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interruption {
    /// The client went away.
    ClientGone,
    /// The request body broke one of its bounds.
    Upload(UploadError),
    /// The upstream broke off.
    Upstream(UpstreamError),
    /// A limit was over.
    Timeout(Limit),
    /// The response body could not be compressed: a defect of ours.
    Encoder,
}

/// Both sides of an attempt and what bounds it.
pub struct Relay<'a> {
    /// The client's side.
    pub down: &'a mut Downstream,
    /// The upstream's side.
    pub up: &'a mut UpstreamSession,
    /// The request body.
    pub upload: &'a mut Upload,
    /// The exchange's timer.
    pub timer: &'a mut Timer,
    /// The gateway's clock.
    pub clock: &'a Clock,
    /// When the exchange ends at the latest.
    pub deadline: Option<Deadline>,
    /// `timeout.idle`.
    pub idle: Duration,
}

/// What a relayed body came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Relayed {
    /// Bytes of body from the upstream.
    pub from_upstream: u64,
    /// Bytes of body to the client (after compression).
    pub to_client: u64,
}

impl Relay<'_> {
    /// Waits for the final head. `attempt` bounds it from the last byte of the request on; while the body is still on
    /// its way, only progress counts. Interim heads go to the client through `interim`.
    pub async fn head(
        &mut self,
        attempt: Duration,
        mut interim: impl FnMut(&mut ResponseHead),
    ) -> Result<Received, Interruption> {
        let mut sent_at = None;
        let mut progress = Progress::default();
        let mut interims = 0;
        poll_fn(|cx| {
            loop {
                match self.up.poll_head(cx) {
                    Poll::Ready(Ok(Received::Interim(mut head))) => {
                        interims += 1;
                        if interims > MAX_INTERIM {
                            let flood = UpstreamError::Invalid("too many interim responses");
                            return Poll::Ready(Err(Interruption::Upstream(flood)));
                        }
                        // Our own `100 Continue` went out when the body was first asked for.
                        if head.status != http::StatusCode::CONTINUE {
                            interim(&mut head);
                            if self.down.send_interim(&head).is_err() {
                                return Poll::Ready(Err(Interruption::ClientGone));
                            }
                        }
                        continue;
                    }
                    Poll::Ready(Ok(head)) => return Poll::Ready(Ok(head)),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Interruption::Upstream(error))),
                    Poll::Pending => {}
                }
                if !self.poll_upload(cx)? {
                    break;
                }
                progress.made();
            }
            self.poll_pause(cx)?;
            let now = self.clock.now();
            if !self.upload.is_open() {
                sent_at.get_or_insert(now);
            }
            let limit = match sent_at {
                Some(at) => Deadline { at: at.after(attempt), limit: Limit::Attempt },
                None => Deadline { at: progress.last(now).after(self.idle), limit: Limit::Idle },
            };
            self.poll_deadline(cx, limit)
        })
        .await
    }

    /// Holds the response body back: until it has ended, or more than `most` bytes of it are here. The bytes, and whether
    /// they are all.
    pub async fn hold(&mut self, most: usize) -> Result<(Bytes, bool), Interruption> {
        let mut held = BytesMut::new();
        let mut progress_at = self.clock.now();
        let is_whole = poll_fn(|cx| {
            loop {
                if held.len() > most {
                    return Poll::Ready(Ok(false));
                }
                match self.up.poll_body(cx) {
                    Poll::Ready(Ok(Some(piece))) => {
                        held.extend_from_slice(piece.as_slice());
                        progress_at = self.clock.now();
                        continue;
                    }
                    Poll::Ready(Ok(None)) => return Poll::Ready(Ok(true)),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Interruption::Upstream(error))),
                    Poll::Pending => {}
                }
                if self.poll_upload(cx)? {
                    progress_at = self.clock.now();
                    continue;
                }
                break;
            }
            self.poll_pause(cx)?;
            self.poll_deadline(cx, Deadline { at: progress_at.after(self.idle), limit: Limit::Idle })
        })
        .await?;
        Ok((held.freeze(), is_whole))
    }

    /// Relays the response body; the head has gone to the client. Compresses on the way when there is an encoder.
    pub async fn body(
        &mut self,
        encoder: Option<Encoder>,
        source: &mut Source,
        mut relayed: impl FnMut(Relayed),
    ) -> Result<Relayed, Interruption> {
        let mut encoding = encoder.map(|encoder| Encoding { encoder, unflushed: false });
        let mut total = Relayed::default();
        let mut progress = Progress::default();
        let mut sent = self.down.progress();
        let result = poll_fn(|cx| {
            loop {
                match self.poll_response_piece(cx, source, &mut encoding, &mut total)? {
                    Step::Moved => {
                        progress.made();
                        continue;
                    }
                    Step::Ended => return Poll::Ready(Ok(())),
                    Step::Waiting => {}
                }
                if self.poll_upload(cx)? {
                    progress.made();
                    continue;
                }
                break;
            }
            if let Some(encoding) = encoding.as_mut().filter(|encoding| encoding.unflushed) {
                // What the upstream has said so far must not wait for what it says next.
                encoding.unflushed = false;
                let piece = encoding.encoder.flush().map_err(|_| Interruption::Encoder)?;
                self.send(piece, &mut total)?;
            }
            self.poll_pause(cx)?;
            if std::mem::replace(&mut sent, self.down.progress()) != sent {
                progress.made();
            }
            let at = progress.last(self.clock.now()).after(self.idle);
            self.poll_deadline(cx, Deadline { at, limit: Limit::Idle })
        })
        .await;
        relayed(total);
        result?;
        self.flush_end().await?;
        Ok(total)
    }

    /// Relays both directions of an upgraded connection. Each direction ends by itself: an end is passed on, and the
    /// other one goes on to its own end, as long as it makes progress.
    pub async fn upgraded(&mut self, mut relayed: impl FnMut(Relayed)) -> Result<Relayed, Interruption> {
        let mut total = Relayed::default();
        let mut progress = Progress::default();
        let (mut from_client, mut from_upstream) = (Direction::Open, Direction::Open);
        let result = poll_fn(|cx| {
            loop {
                let moved = self.poll_to_client(cx, &mut from_upstream, &mut total)?
                    | self.poll_to_upstream(cx, &mut from_client)?;
                if !moved {
                    break;
                }
                progress.made();
            }
            if (from_client, from_upstream) == (Direction::Ended, Direction::Ended) {
                return Poll::Ready(Ok(()));
            }
            if let Poll::Ready(Err(error)) = self.up.poll_flush(cx) {
                return Poll::Ready(Err(Interruption::Upstream(error)));
            }
            if let Poll::Ready(Err(_)) = self.down.poll_flush(cx) {
                return Poll::Ready(Err(Interruption::ClientGone));
            }
            let at = progress.last(self.clock.now()).after(self.idle);
            self.poll_deadline(cx, Deadline { at, limit: Limit::Idle })
        })
        .await;
        relayed(total);
        result.map(|()| total)
    }

    /// One step from the upstream to the client; whether anything moved.
    fn poll_to_client(
        &mut self,
        cx: &mut Context<'_>,
        direction: &mut Direction,
        total: &mut Relayed,
    ) -> Result<bool, Interruption> {
        if *direction == Direction::Open {
            return match self.poll_response_piece(cx, &mut Source::default(), &mut None, total)? {
                Step::Moved => Ok(true),
                Step::Waiting => Ok(false),
                Step::Ended => {
                    *direction = Direction::Ending;
                    Ok(true)
                }
            };
        }
        Ok(*direction == Direction::Ending && self.down.poll_end_writing(cx).is_ready() && direction.end())
    }

    /// One step from the client to the upstream; whether anything moved.
    fn poll_to_upstream(&mut self, cx: &mut Context<'_>, direction: &mut Direction) -> Result<bool, Interruption> {
        if *direction != Direction::Open {
            return Ok(*direction == Direction::Ending && self.up.poll_end_writing(cx).is_ready() && direction.end());
        }
        match self.up.poll_writable(cx) {
            Poll::Ready(writable) => writable.map_err(Interruption::Upstream)?,
            Poll::Pending => return Ok(false),
        }
        match self.down.poll_body(cx) {
            Poll::Ready(Ok(Some(piece))) => self.up.send_body(piece).map_err(Interruption::Upstream)?,
            Poll::Ready(Ok(None)) => *direction = Direction::Ending,
            Poll::Ready(Err(_)) => return Err(Interruption::ClientGone),
            Poll::Pending => return Ok(false),
        }
        Ok(true)
    }

    fn poll_response_piece(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Source,
        encoding: &mut Option<Encoding>,
        total: &mut Relayed,
    ) -> Result<Step, Interruption> {
        match self.down.poll_writable(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return Err(Interruption::ClientGone),
            Poll::Pending => return Ok(Step::Waiting),
        }
        let piece = match source.held.take() {
            Some(held) => Some(Piece::Owned(held)),
            None => match self.up.poll_body(cx) {
                Poll::Ready(piece) => piece.map_err(Interruption::Upstream)?,
                Poll::Pending => return Ok(Step::Waiting),
            },
        };
        if let Some(piece) = piece {
            source.copy(piece.as_slice());
            let bytes = piece.as_slice().len();
            if bytes == 0 {
                return Ok(Step::Moved);
            }
            total.from_upstream += bytes as u64;
            match encoding {
                None => {
                    total.to_client += bytes as u64;
                    self.down.send_body(piece).map_err(|_| Interruption::ClientGone)?;
                }
                Some(encoding) => {
                    let piece = encoding.encoder.push(piece.as_slice()).map_err(|_| Interruption::Encoder)?;
                    encoding.unflushed = true;
                    self.send(piece, total)?;
                }
            }
            return Ok(Step::Moved);
        }
        let trailers = match self.up.poll_trailers(cx) {
            Poll::Ready(trailers) => trailers.map_err(Interruption::Upstream)?,
            Poll::Pending => return Ok(Step::Waiting),
        };
        if let Some(encoding) = encoding.take() {
            let piece = encoding.encoder.finish().map_err(|_| Interruption::Encoder)?;
            self.send(piece, total)?;
        }
        if !self.up.is_upgraded() {
            self.down.end_body(trailers).map_err(|_| Interruption::ClientGone)?;
        }
        Ok(Step::Ended)
    }

    fn send(&mut self, piece: Bytes, total: &mut Relayed) -> Result<(), Interruption> {
        if piece.is_empty() {
            return Ok(());
        }
        total.to_client += piece.len() as u64;
        self.down.send_body(Piece::Owned(piece)).map_err(|_| Interruption::ClientGone)
    }

    /// Waits until the client's socket has taken everything; only progress keeps this alive.
    async fn flush_end(&mut self) -> Result<(), Interruption> {
        let mut progress = Progress::default();
        let mut sent = self.down.progress();
        poll_fn(|cx| {
            match self.down.poll_flush(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Interruption::ClientGone)),
                Poll::Pending => {}
            }
            if std::mem::replace(&mut sent, self.down.progress()) != sent {
                progress.made();
            }
            let at = progress.last(self.clock.now()).after(self.idle);
            self.poll_deadline(cx, Deadline { at, limit: Limit::Idle })
        })
        .await
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<bool, Interruption> {
        match self.upload.poll_step(cx, self.clock, self.down, self.up) {
            Poll::Ready(Ok(moved)) => Ok(moved),
            Poll::Ready(Err(UploadError::Client(super::downstream::ClientError::Gone))) => {
                Err(Interruption::ClientGone)
            }
            Poll::Ready(Err(error)) => Err(Interruption::Upload(error)),
            Poll::Pending => Ok(false),
        }
    }

    /// The task is about to wait: what is held leaves, and the client's departure is looked for.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Result<(), Interruption> {
        if let Poll::Ready(Err(error)) = self.up.poll_flush(cx) {
            // An upstream that answers early may have closed its reading side: its answer decides, not this.
            tracing::trace!(%error, "upstream takes no more");
        }
        if let Poll::Ready(Err(_)) = self.down.poll_flush(cx) {
            return Err(Interruption::ClientGone);
        }
        if !self.upload.is_open() && self.down.poll_gone(cx).is_ready() {
            return Err(Interruption::ClientGone);
        }
        Ok(())
    }

    /// `Ready(Err)` when the earliest of all limits is over.
    fn poll_deadline<T>(&mut self, cx: &mut Context<'_>, limit: Deadline) -> Poll<Result<T, Interruption>> {
        let mut earliest = limit;
        if let Some(exchange) = self.deadline {
            earliest = earliest.min(exchange);
        }
        let slow: Option<Instant> = self.upload.deadline().filter(|at| *at < earliest.at);
        let at = slow.unwrap_or(earliest.at);
        if self.timer.poll_until(cx, self.clock, at).is_pending() {
            return Poll::Pending;
        }
        // Silence while the client is waited for is the client's.
        let client_s = slow.is_some() || (earliest.limit == Limit::Idle && self.upload.awaits_client());
        Poll::Ready(Err(if client_s {
            Interruption::Upload(UploadError::TooSlow)
        } else {
            Interruption::Timeout(earliest.limit)
        }))
    }
}

/// When something last moved, as of the next time that the task is about to wait: while bytes move, nobody asks the clock.
#[derive(Debug, Default)]
struct Progress(Option<Instant>);

impl Progress {
    fn made(&mut self) {
        self.0 = None;
    }

    /// The last movement; `now` if there was one since the last time.
    fn last(&mut self, now: Instant) -> Instant {
        *self.0.get_or_insert(now)
    }
}

/// Where a response body comes from, beside the upstream.
#[derive(Debug, Default)]
pub struct Source {
    /// What was held back of it, and goes first.
    pub held: Option<Bytes>,
    /// A copy of its beginning that is made on the way.
    pub copy: Option<Copy>,
}

/// The beginning of a body that passes.
#[derive(Debug)]
pub struct Copy {
    /// What has passed, as long as it is no more than `most`.
    pub bytes: BytesMut,
    most: usize,
    /// Whether nothing is missing.
    pub is_whole: bool,
}

impl Copy {
    /// Nothing yet, and never more than `most` bytes.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { bytes: BytesMut::new(), most, is_whole: true }
    }
}

impl Source {
    fn copy(&mut self, piece: &[u8]) {
        let Some(copy) = self.copy.as_mut().filter(|copy| copy.is_whole) else { return };
        if copy.bytes.len() + piece.len() > copy.most {
            (copy.bytes, copy.is_whole) = (BytesMut::new(), false);
        } else {
            copy.bytes.extend_from_slice(piece);
        }
    }
}

struct Encoding {
    encoder: Encoder,
    unflushed: bool,
}

/// One direction of an upgraded connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Open,
    /// Its sender has ended; the end is on its way to the receiver.
    Ending,
    Ended,
}

impl Direction {
    fn end(&mut self) -> bool {
        *self = Self::Ended;
        true
    }
}

enum Step {
    Moved,
    Ended,
    Waiting,
}
