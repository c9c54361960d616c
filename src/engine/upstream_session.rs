//! The upstream's side of one attempt: HTTP/1 over our own transport, HTTP/2 by the stream halves of `h2`.

use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, HOST};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version};

use super::connect::{H2Connection, StreamPermit};
use super::downstream::{Piece, parse_length, poll_window};
use super::h1::body::{BodyError, Reading, Writing};
use super::h1::chunks::{Bounds, Chunks, Grammar};
use super::h1::head;
use super::head_wire::{self, Framing, Persistence};
use super::transport::{ROOM, Transport};
use crate::model::request::Scheme;
use crate::model::response::{BodyLength, ResponseHead};
use crate::pipeline::attempt::Plan;

/// What an upstream may put between the chunks of a body, and behind them.
const CHUNK_BOUNDS: Bounds = Bounds { size: 64 * 1024, count: 256 };

/// What went wrong on the upstream's side.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// The connection ended or broke.
    #[error("the connection ended")]
    Reset,
    /// The peer says that it has not processed the request (RFC 9113 §8.7): safe to send again.
    #[error("the upstream refused the stream")]
    Refused,
    /// What arrived is not HTTP.
    #[error("not a valid response: {0}")]
    Invalid(&'static str),
}

/// The head of a request as it goes upstream, independent of the HTTP version.
#[derive(Debug, Clone, Copy)]
pub struct UpstreamHead<'a> {
    /// Method.
    pub method: &'a Method,
    /// Scheme that `:scheme` carries on HTTP/2.
    pub scheme: Scheme,
    /// `Host`, `:authority`.
    pub authority: &'a HeaderValue,
    /// Path and query in origin form.
    pub target: &'a str,
    /// End-to-end fields.
    pub headers: &'a HeaderMap,
    /// How much body follows.
    pub length: BodyLength,
    /// Whether the head asks to switch protocols.
    pub upgrade: bool,
}

impl<'a> UpstreamHead<'a> {
    /// The head that a plan sends, to an endpoint that is spoken to by `scheme`.
    #[must_use]
    pub const fn of(plan: &'a Plan<'_>, target: &'a str, scheme: Scheme) -> Self {
        Self {
            method: &plan.method,
            scheme,
            authority: &plan.authority,
            target,
            headers: &plan.headers,
            length: plan.length,
            upgrade: plan.upgrade,
        }
    }
}

/// What came back.
#[derive(Debug)]
pub enum Received {
    /// 1xx; more follows.
    Interim(ResponseHead),
    /// 101: the connection is bytes from now on.
    Upgraded(ResponseHead),
    /// The final head.
    Final(ResponseHead, BodyLength),
}

impl Received {
    /// The status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Interim(head) | Self::Upgraded(head) | Self::Final(head, _) => head.status,
        }
    }

    /// The fields.
    #[must_use]
    pub const fn headers(&self) -> &HeaderMap {
        match self {
            Self::Interim(head) | Self::Upgraded(head) | Self::Final(head, _) => &head.headers,
        }
    }
}

/// The upstream's side of an attempt.
pub enum UpstreamSession {
    /// HTTP/1.1.
    H1(H1Upstream),
    /// A stream on an HTTP/2 connection.
    H2(H2Upstream),
}

/// An HTTP/1.1 attempt.
pub struct H1Upstream {
    transport: Transport,
    method: Method,
    upgrade: bool,
    /// How much of a head has been looked at and was not whole.
    seen: usize,
    reading: Reading,
    /// What was lent out of the transport's buffer last.
    lent: usize,
    writing: Writing,
    body_sent: bool,
    persists: bool,
}

/// An HTTP/2 attempt.
pub struct H2Upstream {
    response: Option<ResponseFuture>,
    send: SendStream<Bytes>,
    body: Option<RecvStream>,
    method: Method,
    body_sent: bool,
    connection: H2Connection,
    _permit: StreamPermit,
}

impl UpstreamSession {
    /// Sends `head` over an HTTP/1.1 connection. The bytes leave when the attempt first waits.
    #[must_use]
    pub fn start_h1(mut transport: Transport, head: &UpstreamHead<'_>) -> Self {
        let framing = match head.length {
            BodyLength::Absent => Framing::Silent,
            BodyLength::Known(length) => Framing::Length(length),
            BodyLength::Unknown => Framing::Chunked,
        };
        let persistence = if head.upgrade { Persistence::Upgrade } else { Persistence::Implied };
        let line = (head.method, head.target, head.authority.as_bytes());
        head_wire::request(transport.outgoing(), line, head.headers, framing, persistence);
        Self::H1(H1Upstream {
            transport,
            method: head.method.clone(),
            upgrade: head.upgrade,
            seen: 0,
            reading: Reading::Done,
            lent: 0,
            writing: match framing {
                Framing::Silent => Writing::Length(0),
                Framing::Length(length) => Writing::Length(length),
                Framing::Chunked => Writing::Chunked,
            },
            body_sent: head.length.is_empty() && !head.upgrade,
            persists: false,
        })
    }

    /// Opens a stream for `head` on an HTTP/2 connection that has room.
    pub fn start_h2(connection: &mut H2Connection, head: &UpstreamHead<'_>) -> Result<Self, UpstreamError> {
        let mut request = Request::new(());
        *request.method_mut() = head.method.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = h2_uri(head)?;
        *request.headers_mut() = head.headers.clone();
        request.headers_mut().remove(HOST);
        if let BodyLength::Known(length) = head.length {
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        } else {
            request.headers_mut().remove(CONTENT_LENGTH);
        }
        let end = head.length.is_empty();
        let permit = connection.permit();
        let (response, send) = match connection.requests.send_request(request, end) {
            Ok(halves) => halves,
            Err(error) => {
                connection.retire();
                tracing::debug!(%error, "upstream connection takes no further stream");
                // A stream that was never opened has certainly not been processed.
                return Err(UpstreamError::Refused);
            }
        };
        Ok(Self::H2(H2Upstream {
            response: Some(response),
            send,
            body: None,
            method: head.method.clone(),
            body_sent: end,
            connection: connection.clone(),
            _permit: permit,
        }))
    }

    /// The next head: interim ones first, then the final one.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, UpstreamError>> {
        match self {
            Self::H1(h1) => h1.poll_head(cx),
            Self::H2(h2) => h2.poll_head(cx),
        }
    }

    /// The next piece of the response body; `None` at its end.
    pub fn poll_body<'a>(&'a mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Piece<'a>>, UpstreamError>> {
        match self {
            Self::H1(h1) => h1.poll_body(cx),
            Self::H2(h2) => {
                let Some(body) = h2.body.as_mut() else { return Poll::Ready(Ok(None)) };
                match ready!(body.poll_data(cx)) {
                    Some(Ok(data)) => {
                        let _ = body.flow_control().release_capacity(data.len());
                        Poll::Ready(Ok(Some(Piece::Owned(data))))
                    }
                    // An upstream that has answered may stop the upload so (RFC 9113 §8.1).
                    Some(Err(error)) if error.is_reset() && error.reason() == Some(Reason::NO_ERROR) => {
                        Poll::Ready(Ok(None))
                    }
                    Some(Err(error)) => Poll::Ready(Err(classify(&error))),
                    None => Poll::Ready(Ok(None)),
                }
            }
        }
    }

    /// Trailers after the body's end; those of HTTP/1 are discarded, which RFC 9110 §6.5.1 allows.
    pub fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, UpstreamError>> {
        match self {
            Self::H1(_) => Poll::Ready(Ok(None)),
            Self::H2(h2) => match h2.body.as_mut() {
                Some(body) => body.poll_trailers(cx).map_err(|error| classify(&error)),
                None => Poll::Ready(Ok(None)),
            },
        }
    }

    /// `Ready` when the upstream's side takes another piece of body; sends meanwhile.
    pub fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        match self {
            Self::H1(h1) => h1.transport.poll_writable(cx).map_err(|_| UpstreamError::Reset),
            Self::H2(h2) => poll_window(&mut h2.send, cx).map_err(|error| classify(&error)),
        }
    }

    /// Sends a piece of body; ask [`UpstreamSession::poll_writable`] first.
    pub fn send_body(&mut self, piece: Bytes) -> Result<(), UpstreamError> {
        match self {
            Self::H1(h1) => h1.writing.send(&mut h1.transport, &piece).map_err(|_| UpstreamError::Reset),
            Self::H2(h2) => h2.send.send_data(piece, false).map_err(|error| classify(&error)),
        }
    }

    /// Ends the body.
    pub fn end_body(&mut self, trailers: Option<HeaderMap>) -> Result<(), UpstreamError> {
        match self {
            Self::H1(h1) => {
                h1.body_sent = true;
                h1.writing.end(&mut h1.transport).map_err(|_| UpstreamError::Reset)
            }
            Self::H2(h2) => {
                h2.body_sent = true;
                match trailers {
                    Some(trailers) => h2.send.send_trailers(trailers),
                    None => h2.send.send_data(Bytes::new(), true),
                }
                .map_err(|error| classify(&error))
            }
        }
    }

    /// Sends what was written, before the task waits.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        match self {
            Self::H1(h1) => h1.transport.poll_flush_waiting(cx).map_err(|_| UpstreamError::Reset),
            Self::H2(_) => Poll::Ready(Ok(())),
        }
    }

    /// `Ready` when our direction of an upgraded connection has been ended.
    pub fn poll_end_writing(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::H1(h1) => h1.transport.poll_end_writing(cx),
            Self::H2(_) => Poll::Ready(()),
        }
    }

    /// Whether this side has switched to bytes.
    #[must_use]
    pub fn is_upgraded(&self) -> bool {
        matches!(self, Self::H1(h1) if h1.writing == Writing::Raw)
    }

    /// Ends the attempt. `Some`: the HTTP/1.1 connection is in a known state and may carry another.
    #[must_use]
    pub fn finish(self) -> Option<Transport> {
        let Self::H1(mut h1) = self else { return None };
        h1.transport.skip(h1.lent);
        // bytes beyond the answer would be the beginning of the next one
        let is_clean = h1.reading.is_done() && h1.transport.arrived().is_empty();
        (h1.body_sent && h1.persists && is_clean).then_some(h1.transport)
    }

    /// Ends an attempt whose answer nobody wants, like [`UpstreamSession::finish`], if the rest of it is here already.
    #[must_use]
    pub fn finish_if_whole(mut self) -> Option<Transport> {
        const MOST: usize = 64 * 1024;
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut passed = 0;
        loop {
            match self.poll_body(&mut cx) {
                Poll::Ready(Ok(Some(piece))) if passed <= MOST => passed += piece.as_slice().len(),
                Poll::Ready(Ok(None)) => return self.finish(),
                _ => {
                    self.cancel();
                    return None;
                }
            }
        }
    }

    /// Gives the attempt up; an HTTP/2 peer is told to stop.
    pub fn cancel(self) {
        if let Self::H2(mut h2) = self {
            h2.send.send_reset(Reason::CANCEL);
        }
    }
}

impl H1Upstream {
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, UpstreamError>> {
        let found = loop {
            let at_hand = self.transport.arrived();
            if head::may_be_whole(at_hand, std::mem::replace(&mut self.seen, at_hand.len()))
                && let Some(found) = head::response(at_hand).map_err(UpstreamError::Invalid)?
            {
                break found;
            }
            match ready!(self.transport.poll_arrive(cx, ROOM)) {
                Ok(0) | Err(_) => return Poll::Ready(Err(UpstreamError::Reset)),
                Ok(_) => {}
            }
        };
        self.seen = 0;
        let bytes = self.transport.take_arrived(found.length);
        let parts = found.read(&bytes).map_err(UpstreamError::Invalid)?;
        Poll::Ready(self.received(parts))
    }

    fn received(&mut self, parts: head::ResponseParts) -> Result<Received, UpstreamError> {
        let head = ResponseHead { status: parts.status, headers: parts.headers };
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            if !self.upgrade {
                return Err(UpstreamError::Invalid("101 to a request that did not ask to switch protocols"));
            }
            (self.reading, self.writing) = (Reading::UntilClose, Writing::Raw);
            return Ok(Received::Upgraded(head));
        }
        if head.status.is_informational() {
            return Ok(Received::Interim(head));
        }
        let declared = if let head::Framing::Length(length) = parts.framing { Some(length) } else { None };
        let length = BodyLength::of_response(&self.method, head.status, declared);
        self.reading = match parts.framing {
            _ if length == BodyLength::Absent => Reading::Done,
            head::Framing::Length(length) => Reading::length(length),
            head::Framing::Chunked => Reading::Chunked(Chunks::new(Grammar::Tolerant, CHUNK_BOUNDS)),
            head::Framing::UntilClose => Reading::UntilClose,
        };
        // the end of a connection ends what only that can end
        // A 204 that announces content (RFC 9110 §8.6, RFC 9112 §6.1) may still send it.
        let announces = !matches!(parts.framing, head::Framing::UntilClose | head::Framing::Length(0));
        self.persists = parts.persists
            && !matches!(self.reading, Reading::UntilClose)
            && !(head.status == StatusCode::NO_CONTENT && announces);
        Ok(Received::Final(head, length))
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Piece<'_>>, UpstreamError>> {
        self.transport.skip(std::mem::take(&mut self.lent));
        let length = ready!(self.reading.poll(cx, &mut self.transport)).map_err(|error| match error {
            BodyError::Cut => UpstreamError::Reset,
            BodyError::Malformed => UpstreamError::Invalid("malformed body framing"),
        })?;
        self.lent = length.unwrap_or(0);
        Poll::Ready(
            Ok(length.map(|length| Piece::Borrowed(self.transport.arrived().get(..length).unwrap_or_default()))),
        )
    }
}

impl H2Upstream {
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, UpstreamError>> {
        let Some(response) = self.response.as_mut() else {
            return Poll::Ready(Err(UpstreamError::Invalid("a second head")));
        };
        if let Poll::Ready(Some(Ok(interim))) = response.poll_informational(cx) {
            let (parts, ()) = interim.into_parts();
            return Poll::Ready(Ok(Received::Interim(ResponseHead { status: parts.status, headers: parts.headers })));
        }
        let response = ready!(pin!(response).poll(cx)).map_err(|error| {
            if error.is_go_away() {
                self.connection.retire();
            }
            classify(&error)
        })?;
        self.response = None;
        let (parts, body) = response.into_parts();
        let ended = body.is_end_stream();
        self.body = Some(body);
        // A length of zero without an end may still have trailers: a gRPC status.
        let declared = parts.headers.get(CONTENT_LENGTH).and_then(parse_length).filter(|length| *length > 0);
        let declared = if ended { Some(0) } else { declared };
        let length = BodyLength::of_response(&self.method, parts.status, declared);
        let head = ResponseHead { status: parts.status, headers: parts.headers };
        Poll::Ready(Ok(Received::Final(head, length)))
    }
}

fn h2_uri(head: &UpstreamHead<'_>) -> Result<Uri, UpstreamError> {
    let authority = Authority::try_from(head.authority.as_bytes()).map_err(|_| UpstreamError::Invalid("authority"))?;
    let path = if head.method == Method::OPTIONS && head.target == "*" { "*" } else { head.target };
    let path = PathAndQuery::try_from(path).map_err(|_| UpstreamError::Invalid("target"))?;
    Uri::builder()
        .scheme(head.scheme.as_str())
        .authority(authority)
        .path_and_query(path)
        .build()
        .map_err(|_| UpstreamError::Invalid("target"))
}

fn classify(error: &h2::Error) -> UpstreamError {
    let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    let going_away = error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR);
    if refused || going_away {
        UpstreamError::Refused
    } else if error.is_io() || error.is_reset() || error.is_go_away() {
        UpstreamError::Reset
    } else {
        UpstreamError::Invalid("http/2 protocol error")
    }
}
