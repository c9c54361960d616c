//! The client's side of one exchange: HTTP/1 over our own transport, HTTP/2 by the stream halves of `h2`.
//!
//! Everything is poll-shaped, so that the relay can watch both directions of both sides from one place. Pingora's session
//! types serve neither: for HTTP/1 they own the connection and keep a head and 64 KiB of their own for each request, and
//! for HTTP/2 they hold both halves behind one `&mut`, drop request trailers and interim responses, and hide refused
//! streams from the log; the handshake and its limits are pingora's.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version};

use super::h1::body::{BodyError, Reading, Writing};
use super::h1::chunks::{Bounds, Chunks, Grammar};
use super::h1::head::is_kept;
use super::head_guard::HeadLimits;
use super::head_wire::{self, Framing, Persistence};
use super::transport::Transport;
use crate::model::response::{BodyLength, ResponseHead};

/// How much HTTP/2 send window to ask for at a time.
const WINDOW: usize = 16 * 1024;

/// What went wrong on the client's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The client reset or closed the connection or the stream.
    #[error("the client went away")]
    Gone,
    /// The body's framing is broken.
    #[error("the request body's framing is broken")]
    BadBody,
}

impl From<io::Error> for ClientError {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl From<h2::Error> for ClientError {
    fn from(_: h2::Error) -> Self {
        Self::Gone
    }
}

/// One piece of a body: borrowed from a connection's buffer, or owned.
#[derive(Debug)]
pub enum Piece<'a> {
    /// In a connection's buffer until its next read.
    Borrowed(&'a [u8]),
    /// A frame of its own.
    Owned(Bytes),
}

impl Piece<'_> {
    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }

    /// The bytes as an owned value; copies only what is borrowed.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Self::Owned(bytes) => bytes,
        }
    }
}

/// The client's side of an exchange.
#[derive(Debug)]
pub enum Downstream {
    /// HTTP/1.0 or 1.1.
    H1(H1Downstream),
    /// A stream of an HTTP/2 connection.
    H2(H2Downstream),
}

/// An HTTP/1 exchange.
#[derive(Debug)]
pub struct H1Downstream {
    transport: Transport,
    version: Version,
    reading: Reading,
    writing: Writing,
    upgraded: bool,
    keep_alive: bool,
    close_delimited: bool,
}

/// An HTTP/2 exchange.
#[derive(Debug)]
pub struct H2Downstream {
    body: RecvStream,
    respond: SendResponse<Bytes>,
    send: Option<SendStream<Bytes>>,
    body_ended: bool,
    /// Our side has sent `END_STREAM`: there is nothing more to say, and nothing to wait for.
    ended: bool,
}

impl H1Downstream {
    /// The exchange of a head that has been taken from `transport` and whose framing has one reading. `limits` bound what
    /// is not data in its body.
    #[must_use]
    pub fn new(head: &http::request::Parts, transport: Transport, limits: HeadLimits) -> Self {
        let bounds = Bounds { size: limits.size, count: limits.count };
        let reading = if head.headers.contains_key(TRANSFER_ENCODING) {
            Reading::Chunked(Chunks::new(Grammar::Exact, bounds))
        } else {
            Reading::length(head.headers.get(CONTENT_LENGTH).and_then(parse_length).unwrap_or(0))
        };
        Self {
            transport,
            version: head.version,
            reading,
            writing: Writing::Length(0),
            upgraded: false,
            keep_alive: is_kept(head.version, &head.headers),
            close_delimited: false,
        }
    }

    /// Whether the connection may carry another request once this exchange is over.
    #[must_use]
    pub fn keeps_alive(&self) -> bool {
        self.keep_alive && !self.upgraded
    }

    /// Whether only the end of the connection tells the client where the body ends.
    #[must_use]
    pub const fn is_close_delimited(&self) -> bool {
        self.close_delimited
    }

    /// After this exchange the connection ends.
    pub fn close_after(&mut self) {
        self.keep_alive = false;
    }

    /// Ends the exchange: the connection, and whether it may carry another.
    #[must_use]
    pub fn finish(self) -> (Transport, bool) {
        let is_clean = self.keeps_alive() && self.reading.is_done();
        (self.transport, is_clean)
    }

    fn write_head(&mut self, head: &ResponseHead, length: BodyLength, upgrade: bool) {
        let declared = || head.headers.get(CONTENT_LENGTH).and_then(parse_length);
        let framing = match length {
            // A HEAD or 304 answer may say how long the body would have been (RFC 9110 §8.6).
            BodyLength::Absent if head.status == StatusCode::NO_CONTENT || upgrade => Framing::Silent,
            BodyLength::Absent => declared().map_or(Framing::Silent, Framing::Length),
            BodyLength::Known(length) => Framing::Length(length),
            BodyLength::Unknown if self.version == Version::HTTP_11 => Framing::Chunked,
            BodyLength::Unknown => {
                self.keep_alive = false;
                self.close_delimited = true;
                Framing::Silent
            }
        };
        let persistence = match self.version {
            _ if upgrade => Persistence::Upgrade,
            _ if !self.keep_alive => Persistence::Close,
            Version::HTTP_11 => Persistence::Implied,
            _ => Persistence::KeepAlive,
        };
        self.writing = match framing {
            Framing::Chunked => Writing::Chunked,
            _ if upgrade || self.close_delimited => Writing::Raw,
            _ => Writing::Length(if let BodyLength::Known(length) = length { length } else { 0 }),
        };
        head_wire::response(self.transport.outgoing(), head.status, &head.headers, framing, persistence);
    }
}

/// The value of a single, well-formed `Content-Length`.
#[must_use]
pub fn parse_length(value: &HeaderValue) -> Option<u64> {
    let text = value.to_str().ok()?;
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

impl H2Downstream {
    /// The halves of a stream whose head has arrived.
    #[must_use]
    pub fn new(body: RecvStream, respond: SendResponse<Bytes>) -> Self {
        let body_ended = body.is_end_stream();
        Self { body, respond, send: None, body_ended, ended: false }
    }
}

impl Downstream {
    /// Whether the request has no (more) body.
    pub fn body_done(&mut self) -> bool {
        match self {
            Self::H1(h1) => h1.reading.is_done(),
            Self::H2(h2) => h2.body_ended || h2.body.is_end_stream(),
        }
    }

    /// The next piece of the request body; `None` at its end.
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ClientError>> {
        match self {
            Self::H1(h1) => match ready!(h1.reading.poll(cx, &mut h1.transport)) {
                Ok(length) => Poll::Ready(Ok(length.map(|length| h1.transport.take_arrived(length)))),
                Err(BodyError::Cut) => Poll::Ready(Err(ClientError::Gone)),
                Err(BodyError::Malformed) => Poll::Ready(Err(ClientError::BadBody)),
            },
            Self::H2(h2) => match ready!(h2.body.poll_data(cx)) {
                Some(Ok(data)) => {
                    // What is handed on is accounted for by the next hop's own bound.
                    let _ = h2.body.flow_control().release_capacity(data.len());
                    Poll::Ready(Ok(Some(data)))
                }
                Some(Err(error)) => Poll::Ready(Err(error.into())),
                None => {
                    h2.body_ended = true;
                    Poll::Ready(Ok(None))
                }
            },
        }
    }

    /// The request's trailers, once its body has ended. HTTP/1 trailers are discarded, which RFC 9110 §6.5.1 allows.
    pub fn poll_request_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, ClientError>> {
        match self {
            Self::H1(_) => Poll::Ready(Ok(None)),
            Self::H2(h2) => h2.body.poll_trailers(cx).map_err(ClientError::from),
        }
    }

    /// `Ready` when the client is no longer there to be answered.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::H1(h1) => h1.transport.poll_closed(cx),
            Self::H2(h2) => match h2.send.as_mut() {
                Some(send) => send.poll_reset(cx).map(drop),
                None => h2.respond.poll_reset(cx).map(drop),
            },
        }
    }

    /// Sends an interim response (RFC 9110 §15.2). HTTP/1.0 clients get none.
    pub fn send_interim(&mut self, head: &ResponseHead) -> Result<(), ClientError> {
        match self {
            Self::H1(h1) if h1.version != Version::HTTP_11 => Ok(()),
            Self::H1(h1) => {
                let wire = h1.transport.outgoing();
                head_wire::response(wire, head.status, &head.headers, Framing::Silent, Persistence::Implied);
                Ok(())
            }
            Self::H2(h2) => {
                let mut response = Response::new(());
                *response.status_mut() = head.status;
                *response.headers_mut() = head.headers.clone();
                h2.respond.send_informational(response).map_err(ClientError::from)
            }
        }
    }

    /// Sends `101 Switching Protocols`; from now on both directions are bytes.
    pub fn send_upgrade(&mut self, head: &ResponseHead) -> Result<(), ClientError> {
        match self {
            Self::H1(h1) => {
                h1.upgraded = true;
                h1.reading = Reading::UntilClose;
                h1.write_head(head, BodyLength::Absent, true);
                Ok(())
            }
            Self::H2(_) => Err(ClientError::Gone),
        }
    }

    /// Sends the final head.
    pub fn send_head(&mut self, head: ResponseHead, length: BodyLength) -> Result<(), ClientError> {
        match self {
            Self::H1(h1) => {
                h1.write_head(&head, length, false);
                Ok(())
            }
            Self::H2(h2) => {
                let mut response = Response::new(());
                *response.status_mut() = head.status;
                *response.headers_mut() = head.headers;
                h2.send = Some(h2.respond.send_response(response, length.is_empty())?);
                h2.ended = length.is_empty();
                Ok(())
            }
        }
    }

    /// `Ready` when the client's side takes another piece of body; sends meanwhile.
    pub fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        match self {
            Self::H1(h1) => h1.transport.poll_writable(cx).map_err(ClientError::from),
            Self::H2(h2) => {
                let Some(send) = h2.send.as_mut().filter(|_| !h2.ended) else { return Poll::Ready(Ok(())) };
                poll_window(send, cx).map_err(|_| ClientError::Gone)
            }
        }
    }

    /// Sends a piece of body; ask [`Downstream::poll_writable`] first.
    pub fn send_body(&mut self, piece: Piece<'_>) -> Result<(), ClientError> {
        match self {
            Self::H1(h1) => h1.writing.send(&mut h1.transport, piece.as_slice()).map_err(ClientError::from),
            Self::H2(h2) => match h2.send.as_mut() {
                Some(send) => send.send_data(piece.into_bytes(), false).map_err(ClientError::from),
                None => Err(ClientError::Gone),
            },
        }
    }

    /// Ends the body; trailers go on where the client speaks HTTP/2.
    pub fn end_body(&mut self, trailers: Option<HeaderMap>) -> Result<(), ClientError> {
        match self {
            Self::H1(h1) => h1.writing.end(&mut h1.transport).map_err(ClientError::from),
            Self::H2(h2) => {
                let Some(send) = h2.send.as_mut().filter(|_| !h2.ended) else { return Ok(()) };
                h2.ended = true;
                match trailers {
                    Some(trailers) => send.send_trailers(trailers).map_err(ClientError::from),
                    None => send.send_data(Bytes::new(), true).map_err(ClientError::from),
                }
            }
        }
    }

    /// Sends what was written, before the task waits. `Ready` when nothing is left here.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        match self {
            Self::H1(h1) => h1.transport.poll_flush_waiting(cx).map_err(ClientError::from),
            // The connection's own task sends frames.
            Self::H2(_) => Poll::Ready(Ok(())),
        }
    }

    /// Bytes that the client's socket has taken; on HTTP/2 the connection's, so zero here.
    #[must_use]
    pub fn progress(&self) -> u64 {
        match self {
            Self::H1(h1) => h1.transport.sent(),
            Self::H2(_) => 0,
        }
    }

    /// `Ready` when our direction of an upgraded connection has been ended.
    pub fn poll_end_writing(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::H1(h1) => h1.transport.poll_end_writing(cx),
            Self::H2(_) => Poll::Ready(()),
        }
    }

    /// Breaks the exchange off in a way that the client can't take for its end.
    pub fn abort(&mut self, reason: Reason) {
        match self {
            Self::H1(h1) => h1.keep_alive = false,
            Self::H2(h2) if h2.ended => {}
            Self::H2(h2) => match h2.send.as_mut() {
                Some(send) => send.send_reset(reason),
                None => h2.respond.send_reset(reason),
            },
        }
    }
}

/// `Ready` when the peer's HTTP/2 window has room.
pub(super) fn poll_window(send: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
    send.reserve_capacity(WINDOW);
    loop {
        if send.capacity() > 0 {
            return Poll::Ready(Ok(()));
        }
        match ready!(send.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(error)),
            None => return Poll::Ready(Err(Reason::CANCEL.into())),
        }
    }
}
