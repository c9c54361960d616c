//! The client's side of one exchange: HTTP/1.1 by pingora's session, HTTP/2 by the stream halves of `h2`.
//!
//! Everything is poll-shaped, so that the relay can watch both directions of both sides from one place. HTTP/2 does not
//! go through pingora's session type: it holds both halves behind one `&mut`, drops request trailers and interim
//! responses, and hides refused streams from the log; the handshake and its limits are pingora's.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version};
use pingora_core::protocols::http::v1::server::HttpSession;
use pingora_http::{RequestHeader, ResponseHeader};

use super::head_guard::GuardVerdict;
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

/// One piece of a body: borrowed from a session's buffer, or owned.
#[derive(Debug)]
pub enum Piece<'a> {
    /// In a session's buffer until its next read.
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
pub struct H1Downstream {
    session: Box<HttpSession>,
    transport: Transport,
    version: Version,
    upgraded: bool,
    keep_alive: bool,
    close_delimited: bool,
}

impl std::fmt::Debug for H1Downstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("H1Downstream")
            .field("version", &self.version)
            .field("upgraded", &self.upgraded)
            .finish_non_exhaustive()
    }
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
    /// Takes the head out of a session that has read it; the session keeps what its framing needs.
    #[must_use]
    pub fn new(mut session: Box<HttpSession>, transport: Transport) -> (http::request::Parts, Bytes, Self) {
        let raw = session.get_headers_raw_bytes();
        // Decides the body's framing from the head while the head is still there.
        let _ = session.is_body_done();
        session.set_close_on_response_before_downstream_finish(false);
        let keep_alive = session.will_keepalive();
        let stub = stub_of(session.req_header());
        let head = std::mem::replace(session.req_header_mut(), stub);
        let version = head.version;
        let this = Self { session, transport, version, upgraded: false, keep_alive, close_delimited: false };
        (head.into(), raw, this)
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

    /// Ends the exchange. `true`: the connection is clean and its bytes beyond this exchange are back in the transport.
    pub async fn finish(mut self) -> bool {
        if !self.keeps_alive() || !self.session.is_body_done() {
            return false;
        }
        self.session.set_pipelining_enabled(true);
        // The body is done, so nothing is drained and nothing waits here.
        match self.session.reuse().await {
            Ok(Some(reusable)) => {
                let (_, prefix) = reusable.into_parts();
                if let Some(prefix) = prefix {
                    self.transport.unread(&prefix);
                }
                true
            }
            _ => false,
        }
    }

    fn write_head(&mut self, head: &ResponseHead, length: BodyLength, upgrade: bool) -> Result<(), ClientError> {
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
        let wire = head_wire::response(head.status, &head.headers, framing, persistence);
        self.write_through_session(head.status, framing, wire)
    }

    /// Lets the session take note of status and framing while `wire` is what is sent.
    fn write_through_session(
        &mut self,
        status: StatusCode,
        framing: Framing,
        wire: BytesMut,
    ) -> Result<(), ClientError> {
        let mut parts = Response::new(()).into_parts().0;
        parts.status = status;
        match framing {
            Framing::Silent => {}
            Framing::Length(length) => drop(parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length))),
            Framing::Chunked => {
                parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
        }
        self.transport.substitute_head(wire);
        let note = Box::new(ResponseHeader::from(parts));
        poll_now(self.session.write_response_header(note)).map_err(|()| ClientError::Gone)
    }
}

/// A future over a gathering transport is ready at once: writes are taken whole.
fn poll_now<T, E>(future: impl Future<Output = Result<T, E>>) -> Result<(), ()> {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    match pin!(future).poll(&mut cx) {
        Poll::Ready(Ok(_)) => Ok(()),
        Poll::Ready(Err(_)) | Poll::Pending => Err(()),
    }
}

/// What pingora's session needs of the head after it has been read: method, version, and whether it asks to upgrade.
fn stub_of(head: &RequestHeader) -> RequestHeader {
    let mut parts = http::Request::new(()).into_parts().0;
    parts.method = head.method.clone();
    parts.version = head.version;
    if let Some(upgrade) = head.headers.get(UPGRADE) {
        parts.headers.insert(UPGRADE, upgrade.clone());
    }
    RequestHeader::from(parts)
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
            Self::H1(h1) => h1.session.is_body_done(),
            Self::H2(h2) => h2.body_ended || h2.body.is_end_stream(),
        }
    }

    /// The next piece of the request body; `None` at its end.
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ClientError>> {
        match self {
            Self::H1(h1) => match ready!(pin!(h1.session.read_body_bytes()).poll(cx)) {
                Ok(piece) => Poll::Ready(Ok(piece)),
                Err(_) if matches!(h1.transport.guard_verdict(), GuardVerdict::Refused(_)) => {
                    Poll::Ready(Err(ClientError::BadBody))
                }
                Err(error)
                    if matches!(
                        error.etype(),
                        pingora_error::ErrorType::ConnectionClosed | pingora_error::ErrorType::ReadError
                    ) =>
                {
                    Poll::Ready(Err(ClientError::Gone))
                }
                Err(_) => Poll::Ready(Err(ClientError::BadBody)),
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

    /// The request's trailers, once its body has ended. HTTP/1 trailers are discarded by pingora's reader, which
    /// RFC 9110 §6.5.1 allows.
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
                let wire = head_wire::response(head.status, &head.headers, Framing::Silent, Persistence::Implied);
                h1.write_through_session(head.status, Framing::Silent, wire)
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
                h1.write_head(head, BodyLength::Absent, true)
            }
            Self::H2(_) => Err(ClientError::Gone),
        }
    }

    /// Sends the final head.
    pub fn send_head(&mut self, head: ResponseHead, length: BodyLength) -> Result<(), ClientError> {
        match self {
            Self::H1(h1) => h1.write_head(&head, length, false),
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
            Self::H1(h1) => poll_now(h1.session.write_body(piece.as_slice())).map_err(|()| ClientError::Gone),
            Self::H2(h2) => match h2.send.as_mut() {
                Some(send) => send.send_data(piece.into_bytes(), false).map_err(ClientError::from),
                None => Err(ClientError::Gone),
            },
        }
    }

    /// Ends the body, with trailers where the version carries them; pingora's writer has none for HTTP/1.
    pub fn end_body(&mut self, trailers: Option<HeaderMap>) -> Result<(), ClientError> {
        match self {
            Self::H1(h1) => poll_now(h1.session.finish_body()).map_err(|()| ClientError::Gone),
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

    /// Holds flushes back, so that a head and its first bytes leave together.
    pub fn hold(&mut self, held: bool) {
        if let Self::H1(h1) = self {
            h1.transport.hold_flushes(held);
        }
    }

    /// Sends what is held, before the task waits. `Ready` when nothing is left here.
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
