//! Serves one connection from a client to its end: one exchange after another on HTTP/1, side by side on HTTP/2.
//!
//! Pingora's own connection loop (`process_new`) would do this too, but it hides what we must answer for: how long a
//! client may stay silent before and within a head, heads that never become a request, refused HTTP/2 streams, and the
//! order to drain.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use super::downstream::{Downstream, H1Downstream, H2Downstream, parse_length};
use super::exchange::{self, Ended};
use super::head_guard::{GuardVerdict, HeadFault, HeadLimits};
use super::respond;
use super::timer::Timer;
use super::transport::{Io, Transport};
use super::{Gateway, Worker, complete};
use crate::model::clock::{Instant, Now};
use crate::model::connection::ClientConnection;
use crate::model::drain::DrainWatch;
use crate::model::listener::Protocol;
use crate::model::verdict::{Code, Rejection};
use crate::pipeline::exchange::{ClientCertificate, Peer};
use crate::pipeline::receive::fresh_id;
use crate::telemetry::metrics::NonRequest;
use bytes::Bytes;
use http::Method;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use pingora_core::protocols::http::v1::server::HttpSession;
use pingora_core::protocols::http::v2::server::{default_h2_options, handshake};

/// How long a connection that we end may take to read our last bytes, and how much it may still send meanwhile.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES: u64 = 64 * 1024 * 1024;
/// How long a connection that was accepted just before the drain may take to begin its first request.
const FIRST_WORD: Duration = Duration::from_millis(500);
/// Streams that a client may have open at once (RFC 9113 §5.1.2).
const MAX_STREAMS: u32 = 128;
/// What one stream, and all streams of a connection together, may send before we take it.
const STREAM_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Everything that an exchange needs of what it runs on.
#[derive(Clone)]
pub struct Ground {
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// The worker that owns this connection.
    pub worker: Arc<Worker>,
    /// The connection.
    pub info: Arc<ClientConnection>,
    /// The peer's address as upstreams are told of it.
    pub peer_text: Arc<Peer>,
    /// What the client's certificate says, if it showed one.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// Tells when connections should end.
    pub drain: DrainWatch,
}

impl Ground {
    pub(super) fn now(&self) -> Instant {
        self.gateway.clock.now()
    }

    /// Both clocks, for decisions.
    pub(super) fn both(&self) -> Now {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Now { monotonic: self.now(), unix }
    }

    fn non_request(&self, why: NonRequest) {
        complete::non_request(self, why);
    }
}

/// Serves a connection until it ends.
pub async fn connection(ground: Ground, io: Io) {
    let by_alpn = ground.info.tls.as_ref().and_then(|tls| tls.protocol);
    let speaks_h1 = ground.info.listener.protocols.contains(Protocol::H1);
    if by_alpn.unwrap_or(if speaks_h1 { Protocol::H1 } else { Protocol::H2 }) == Protocol::H2 {
        http2(ground, Transport::direct(io)).await;
    } else {
        http1(ground, Transport::gathering(io)).await;
    }
}

async fn http1(ground: Ground, transport: Transport) {
    let mut timer = Timer::default();
    let watch = ground.drain.clone();
    let mut drained = pin!(watch.draining());
    let mut registered = false;
    let mut first = true;
    loop {
        let (session, began) = match read_head(&ground, &transport, &mut timer, first, &mut |cx| {
            // Once asked, the watch wakes this task; asking again would take its lock for each request.
            if !std::mem::replace(&mut registered, true) {
                return drained.as_mut().poll(cx).is_ready();
            }
            ground.drain.is_draining()
        })
        .await
        {
            Next::Request(session, began) => (session, began.unwrap_or_else(|| ground.now())),
            Next::Refuse(rejection, why) => {
                let request_id = fresh_id(ground.worker.random_bits());
                complete::refused(&ground, why, &rejection, &request_id);
                transport.hold_flushes(false);
                respond::refuse_raw(&transport, &rejection, &request_id);
                return end(&transport, true).await;
            }
            Next::Quiet(why) => {
                if let Some(why) = why {
                    ground.non_request(why);
                }
                return end(&transport, false).await;
            }
        };
        first = false;
        let (head, raw, mut h1) = H1Downstream::new(session, transport.clone());
        if ground.drain.is_draining() {
            h1.close_after();
        }
        let fault = framing_fault(&head, &raw);
        drop(raw);
        let down = Downstream::H1(h1);
        let (down, ended) = exchange::run(&ground, down, head, fault, began, &mut timer).await;
        let Downstream::H1(h1) = down else { return };
        match ended {
            Ended::Clean => {
                if !h1.finish().await {
                    return end(&transport, true).await;
                }
            }
            // A body that only the end of the connection delimits must not look whole.
            Ended::Broken if h1.is_close_delimited() => return transport.reset_on_close(),
            Ended::Broken => return end(&transport, true).await,
        }
    }
}

enum Next {
    /// A head has arrived, and when it began, if it did not come at once.
    Request(Box<HttpSession>, Option<Instant>),
    /// What arrived is refused with an answer.
    Refuse(Rejection, NonRequest),
    /// The connection ends without an answer.
    Quiet(Option<NonRequest>),
}

/// Reads the next head under the listener's limits: silence before it, slowness within it, size and grammar of it.
async fn read_head(
    ground: &Ground,
    transport: &Transport,
    timer: &mut Timer,
    first: bool,
    draining: &mut (dyn FnMut(&mut Context<'_>) -> bool + Send),
) -> Next {
    let limits = &ground.info.listener.limits;
    let header_timeout = limits.header_timeout.0;
    transport.hold_flushes(true);
    transport.guard_head(HeadLimits {
        size: limits.header_size.as_usize(),
        count: usize::try_from(limits.header_count).unwrap_or(usize::MAX),
    });
    let mut session = Box::new(HttpSession::new(Box::new(transport.clone())));
    session.set_read_timeout(None);
    let silence = if first { header_timeout } else { limits.idle_timeout.0 };
    let silent_until = ground.now().after(silence);
    let mut begun_at = first.then(|| ground.now());
    let mut spoke_at = None;
    let mut drained_at = None;
    let clock = &ground.gateway.clock;
    let outcome = {
        let mut read = pin!(session.read_request());
        poll_fn(|cx| {
            if let Poll::Ready(result) = read.as_mut().poll(cx) {
                return Poll::Ready(HeadRead::Done(result.map(|head| head.is_some()).map_err(drop)));
            }
            let deadline = if transport.guard_verdict() == GuardVerdict::Idle {
                // An idle connection owes us nothing and is closed at once; one that is new may still speak.
                match (draining(cx), first) {
                    (true, false) => return Poll::Ready(HeadRead::Drained),
                    (true, true) => silent_until.min(drained_at.get_or_insert_with(|| clock.now()).after(FIRST_WORD)),
                    (false, _) => silent_until,
                }
            } else {
                let spoke_at = *spoke_at.get_or_insert_with(|| clock.now());
                begun_at.get_or_insert(spoke_at).after(header_timeout)
            };
            timer.poll_until(cx, clock, deadline).map(|()| HeadRead::Late)
        })
        .await
    };
    match (outcome, transport.guard_verdict()) {
        (HeadRead::Done(_), GuardVerdict::Refused(fault)) => Next::Refuse(fault.rejection(), of_fault(fault)),
        (HeadRead::Done(Ok(true)), _) => Next::Request(session, spoke_at),
        (HeadRead::Done(Ok(false)), GuardVerdict::Idle) if first => Next::Quiet(Some(NonRequest::ClientGone)),
        (HeadRead::Done(Ok(false)) | HeadRead::Drained, GuardVerdict::Idle) => Next::Quiet(None),
        (HeadRead::Done(_), GuardVerdict::Complete) => {
            let detail = "the request head is not valid HTTP/1.1";
            Next::Refuse(Rejection::new(Code::BadRequest, detail), NonRequest::ParseError)
        }
        (HeadRead::Done(_), _) => Next::Quiet(Some(NonRequest::ClientGone)),
        (HeadRead::Late, GuardVerdict::Idle) if first => Next::Quiet(Some(NonRequest::HeaderTimeout)),
        (HeadRead::Late, GuardVerdict::Idle) => Next::Quiet(Some(NonRequest::IdleClose)),
        (HeadRead::Late | HeadRead::Drained, _) => {
            let detail = "the request head did not arrive in time";
            Next::Refuse(Rejection::new(Code::RequestTimeout, detail), NonRequest::HeaderTimeout)
        }
    }
}

const fn of_fault(fault: HeadFault) -> NonRequest {
    match fault {
        HeadFault::TooLarge | HeadFault::TooMany => NonRequest::HeadTooLarge,
        _ => NonRequest::ParseError,
    }
}

enum HeadRead {
    /// `true`: a head; `false`: the connection ended before one.
    Done(Result<bool, ()>),
    /// A limit was over.
    Late,
    /// The listener drains.
    Drained,
}

/// What pingora repairs in silence, and we refuse: the length of a message must have one reading (RFC 9112 §6).
fn framing_fault(head: &Parts, raw: &[u8]) -> Option<Rejection> {
    let refuse = |detail| Some(Rejection::new(Code::BadRequest, detail));
    if head.method != Method::CONNECT && !raw.is_empty() && !is_target(raw) {
        return refuse("the target is neither a path nor an http URL");
    }
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if codings.next().is_some() {
            return refuse("more than one Transfer-Encoding field");
        }
        if !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") {
            let detail = "a transfer coding other than chunked";
            return Some(Rejection::new(Code::NotImplemented, detail));
        }
        let mut lines = raw.split(|byte| *byte == b'\n');
        let is_length = |line: &[u8]| {
            line.get(..CONTENT_LENGTH.as_str().len())
                .is_some_and(|name| name.eq_ignore_ascii_case(CONTENT_LENGTH.as_str().as_bytes()))
                && line.get(CONTENT_LENGTH.as_str().len()) == Some(&b':')
        };
        if lines.any(is_length) {
            return refuse("both Content-Length and Transfer-Encoding");
        }
    }
    let mut lengths = head.headers.get_all(CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next()
        && (lengths.next().is_some() || parse_length(length).is_none())
    {
        return refuse("Content-Length is not one number");
    }
    None
}

/// Whether the request line names its target in a form that a server is asked in: origin, absolute with a scheme of
/// ours, or asterisk (RFC 9112 §3.2).
fn is_target(head: &[u8]) -> bool {
    let target = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let begins = |scheme: &[u8]| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    target.starts_with(b"/") || target == b"*" || begins(b"http://") || begins(b"https://")
}

/// Ends a connection: what waits is sent, our direction is closed, and, when the client may still be sending, its
/// bytes are read for a moment, so that the kernel does not reset what it has not read yet.
async fn end(transport: &Transport, linger: bool) {
    let _ = tokio::time::timeout(LINGER, async {
        transport.close().await;
        if linger {
            transport.discard(LINGER_BYTES).await;
        }
    })
    .await;
}

#[derive(Debug, Default)]
struct Streams {
    open: AtomicUsize,
    /// When the last one ended, in nanoseconds of the gateway's clock.
    quiet_since: AtomicU64,
}

async fn http2(ground: Ground, transport: Transport) {
    let limits = &ground.info.listener.limits;
    let (header_timeout, idle_timeout) = (limits.header_timeout.0, limits.idle_timeout.0);
    let mut options = default_h2_options();
    options
        .max_concurrent_streams(MAX_STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(limits.header_size.0).unwrap_or(u32::MAX));
    let shaken = tokio::time::timeout(header_timeout, handshake(Box::new(transport), Some(options))).await;
    let mut connection = match shaken {
        Ok(Ok(connection)) => connection,
        Ok(Err(_)) => return ground.non_request(NonRequest::Http2Error),
        Err(_) => return ground.non_request(NonRequest::HeaderTimeout),
    };
    let streams = Arc::new(Streams::default());
    streams.quiet_since.store(ground.now().as_nanos(), Ordering::Release);
    let mut timer = Timer::default();
    let clock = &ground.gateway.clock;
    let mut drained = pin!(ground.drain.draining());
    let mut leaving = false;
    loop {
        let event = poll_fn(|cx| {
            if let Poll::Ready(accepted) = connection.poll_accept(cx) {
                return Poll::Ready(H2Event::Accepted(accepted));
            }
            if !leaving && drained.as_mut().poll(cx).is_ready() {
                return Poll::Ready(H2Event::Leave);
            }
            let quiet_since = Instant::from_nanos(streams.quiet_since.load(Ordering::Acquire));
            let busy = streams.open.load(Ordering::Acquire) > 0;
            let until = if busy { clock.now() } else { quiet_since }.after(idle_timeout);
            timer.poll_until(cx, clock, until).map(|()| if leaving { H2Event::Cut } else { H2Event::Leave })
        })
        .await;
        match event {
            H2Event::Accepted(Some(Ok((request, respond)))) => {
                let (head, body) = request.into_parts();
                streams.open.fetch_add(1, Ordering::AcqRel);
                let stream = Stream { ground: ground.clone(), streams: Arc::clone(&streams) };
                let down = Downstream::H2(H2Downstream::new(body, respond));
                tokio::spawn(stream.serve(down, head));
            }
            H2Event::Accepted(Some(Err(error))) => {
                if !error.is_io() {
                    ground.non_request(NonRequest::Http2Error);
                }
                return;
            }
            H2Event::Accepted(None) | H2Event::Cut => return,
            H2Event::Leave => {
                // GOAWAY; streams that are open go on to their end (RFC 9113 §6.8).
                connection.graceful_shutdown();
                streams.quiet_since.store(ground.now().as_nanos(), Ordering::Release);
                leaving = true;
            }
        }
    }
}

/// A request on an HTTP/2 connection, and the way to answer it.
type H2Request = (http::Request<h2::RecvStream>, h2::server::SendResponse<Bytes>);

#[expect(clippy::large_enum_variant, reason = "one value per stream, and the large variant is the common one")]
enum H2Event {
    Accepted(Option<Result<H2Request, h2::Error>>),
    Leave,
    Cut,
}

struct Stream {
    ground: Ground,
    streams: Arc<Streams>,
}

impl Stream {
    async fn serve(self, down: Downstream, head: Parts) {
        let most = usize::try_from(self.ground.info.listener.limits.header_count).unwrap_or(usize::MAX);
        let fault =
            if head.headers.len() > most { Some(HeadFault::TooMany.rejection()) } else { framing_fault(&head, &[]) };
        let mut timer = Timer::default();
        let began = self.ground.now();
        let _ = exchange::run(&self.ground, down, head, fault, began, &mut timer).await;
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.streams.quiet_since.store(self.ground.now().as_nanos(), Ordering::Release);
        self.streams.open.fetch_sub(1, Ordering::AcqRel);
    }
}
