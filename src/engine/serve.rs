//! Serves one connection from a client to its end: one exchange after another on HTTP/1, side by side on HTTP/2.
//!
//! Pingora's own connection loop (`process_new`) would do this too, but it hides what we must answer for: how long a
//! client may stay silent before and within a head, heads that never become a request, refused HTTP/2 streams, and the
//! order to drain.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use super::downstream::{Downstream, H1Downstream, H2Downstream, parse_length};
use super::exchange::{self, Ended};
use super::head_guard::{GuardVerdict, HeadFault, HeadGuard, HeadLimits};
use super::respond;
use super::timer::Timer;
use super::transport::{Io, ROOM, Transport};
use super::{Gateway, Worker, complete, h1};
use crate::model::clock::{Instant, Now};
use crate::model::connection::ClientConnection;
use crate::model::drain::DrainWatch;
use crate::model::listener::Protocol;
use crate::model::verdict::{Code, Rejection};
use crate::pipeline::exchange::{ClientCertificate, Peer};
use crate::pipeline::receive::fresh_id;
use crate::telemetry::metrics::NonRequest;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Method, Version};
use pingora_core::protocols::http::v2::server::{default_h2_options, handshake};

/// How long a connection that we end may take to read our last bytes, and how much it may still send meanwhile.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES: u64 = 64 * 1024 * 1024;
/// How long a connection that was accepted just before the drain may take to begin its first request.
const FIRST_WORD: Duration = Duration::from_millis(500);
/// … and how long one that has served requests may take to begin another: a client that is just sending one loses nothing.
const LAST_WORD: Duration = Duration::from_millis(100);
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
        http2(ground, Transport::new(io)).await;
    } else {
        http1(ground, Transport::new(io)).await;
    }
}

async fn http1(ground: Ground, mut transport: Transport) {
    let mut timer = Timer::default();
    let watch = ground.drain.clone();
    let mut drained = pin!(watch.draining());
    let mut registered = false;
    let mut first = true;
    let limits = HeadLimits {
        size: ground.info.listener.limits.header_size.as_usize(),
        count: usize::try_from(ground.info.listener.limits.header_count).unwrap_or(usize::MAX),
    };
    loop {
        let (guard, began) = match read_head(&ground, &mut transport, limits, &mut timer, first, &mut |cx| {
            // Once asked, the watch wakes this task; asking again would take its lock for each request.
            if !std::mem::replace(&mut registered, true) {
                return drained.as_mut().poll(cx).is_ready();
            }
            ground.drain.is_draining()
        })
        .await
        {
            Next::Request(guard, began) => (guard, began),
            Next::Refuse(rejection, why) => return refuse(&ground, transport, &rejection, why).await,
            Next::Quiet(why) => {
                if let Some(why) = why {
                    ground.non_request(why);
                }
                return end(&mut transport, false).await;
            }
        };
        first = false;
        let bytes = transport.take_arrived(guard.size());
        let Some(head) = h1::head::request(&bytes, guard.fields()) else {
            let rejection = Rejection::new(Code::BadRequest, "the request head is not valid HTTP/1.1");
            return refuse(&ground, transport, &rejection, NonRequest::ParseError).await;
        };
        let fault = target_fault(&head, &bytes).or_else(|| framing_fault(&head));
        drop(bytes);
        let mut h1 = H1Downstream::new(&head, transport, limits);
        if ground.drain.is_draining() {
            h1.close_after();
        }
        let down = Downstream::H1(h1);
        let (down, ended) = exchange::run(&ground, down, head, fault, began, &mut timer).await;
        let Downstream::H1(h1) = down else { return };
        let is_close_delimited = h1.is_close_delimited();
        let is_clean;
        (transport, is_clean) = h1.finish();
        match ended {
            Ended::Clean if is_clean => transport.rest(),
            // A body that only the end of the connection delimits must not look whole.
            Ended::Broken if is_close_delimited => return transport.reset_on_close(),
            Ended::Clean | Ended::Broken => return end(&mut transport, true).await,
        }
    }
}

/// Answers what never became a request, and ends the connection.
async fn refuse(ground: &Ground, mut transport: Transport, rejection: &Rejection, why: NonRequest) {
    let request_id = fresh_id(ground.worker.random_bits());
    complete::refused(ground, why, rejection, &request_id);
    respond::refuse_raw(&mut transport, rejection, &request_id);
    end(&mut transport, true).await;
}

enum Next {
    /// A head has arrived, and when it began.
    Request(HeadGuard, Instant),
    /// What arrived is refused with an answer.
    Refuse(Rejection, NonRequest),
    /// The connection ends without an answer.
    Quiet(Option<NonRequest>),
}

/// Waits for the next head under the listener's limits: silence before it, slowness within it, size and grammar of it.
async fn read_head(
    ground: &Ground,
    transport: &mut Transport,
    limits: HeadLimits,
    timer: &mut Timer,
    first: bool,
    draining: &mut (dyn FnMut(&mut Context<'_>) -> bool + Send),
) -> Next {
    let clock = &ground.gateway.clock;
    let header_timeout = ground.info.listener.limits.header_timeout.0;
    let silence = if first { header_timeout } else { ground.info.listener.limits.idle_timeout.0 };
    let mut guard = HeadGuard::new(limits);
    let mut judged = 0;
    let waits_since = clock.now();
    let mut spoke_at = None;
    let mut drained_at = None;
    let outcome = poll_fn(|cx| {
        loop {
            let fresh = transport.arrived().get(judged..).unwrap_or_default();
            judged += fresh.len();
            match guard.take(fresh) {
                GuardVerdict::Complete => return Poll::Ready(HeadRead::Whole),
                GuardVerdict::Refused(fault) => return Poll::Ready(HeadRead::Refused(fault)),
                GuardVerdict::Idle | GuardVerdict::Partial => {}
            }
            match transport.poll_arrive(cx, ROOM) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(HeadRead::Closed),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => break,
            }
        }
        let deadline = if guard.verdict() == GuardVerdict::Idle {
            let silent_until = waits_since.after(silence);
            // One that is new may still speak, and the next request of one that was busy may be on its way: it is served, as
            // the last. Whoever is silent for longer owes us nothing.
            if draining(cx) {
                let drained_at = *drained_at.get_or_insert_with(|| clock.now());
                let last_word = drained_at.after(if first { FIRST_WORD } else { LAST_WORD });
                if !first && last_word < silent_until {
                    return timer.poll_until(cx, clock, last_word).map(|()| HeadRead::Drained);
                }
                silent_until.min(last_word)
            } else {
                silent_until
            }
        } else {
            let spoke_at = *spoke_at.get_or_insert_with(|| clock.now());
            if first { waits_since } else { spoke_at }.after(header_timeout)
        };
        timer.poll_until(cx, clock, deadline).map(|()| HeadRead::Late)
    })
    .await;
    let is_idle = guard.verdict() == GuardVerdict::Idle;
    match outcome {
        HeadRead::Whole => Next::Request(guard, spoke_at.unwrap_or_else(|| clock.now())),
        HeadRead::Refused(fault) => Next::Refuse(fault.rejection(), of_fault(fault)),
        HeadRead::Drained => Next::Quiet(None),
        HeadRead::Closed if is_idle && !first => Next::Quiet(None),
        HeadRead::Closed => Next::Quiet(Some(NonRequest::ClientGone)),
        HeadRead::Late if is_idle && first => Next::Quiet(Some(NonRequest::HeaderTimeout)),
        HeadRead::Late if is_idle => Next::Quiet(Some(NonRequest::IdleClose)),
        HeadRead::Late => {
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
    /// A head is there.
    Whole,
    /// What is there is none.
    Refused(HeadFault),
    /// The connection ended before one.
    Closed,
    /// A limit was over.
    Late,
    /// The listener drains.
    Drained,
}

fn target_fault(head: &Parts, bytes: &[u8]) -> Option<Rejection> {
    let is_odd = head.method != Method::CONNECT && !is_target(bytes);
    is_odd.then(|| Rejection::new(Code::BadRequest, "the target is neither a path nor an http URL"))
}

/// The length of a message must have one reading (RFC 9112 §6).
fn framing_fault(head: &Parts) -> Option<Rejection> {
    let refuse = |detail| Some(Rejection::new(Code::BadRequest, detail));
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if codings.next().is_some() {
            return refuse("more than one Transfer-Encoding field");
        }
        if !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") {
            let detail = "a transfer coding other than chunked";
            return Some(Rejection::new(Code::NotImplemented, detail));
        }
        if head.version == Version::HTTP_10 {
            return refuse("a transfer coding in HTTP/1.0");
        }
        if head.headers.contains_key(CONTENT_LENGTH) {
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
async fn end(transport: &mut Transport, linger: bool) {
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
        let fault = if head.headers.len() > most { Some(HeadFault::TooMany.rejection()) } else { framing_fault(&head) };
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
