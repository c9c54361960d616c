//! The byte stream under a session: buffered writing, reading ahead, and a second handle for the engine.
//!
//! A pingora HTTP/1 session owns its stream behind one `&mut`, so a proxy on it can't write while it waits to read,
//! nor see whether the client is still there. [`Transport`] is a cheap handle to a shared channel: the session holds
//! one, the engine another. What this buys:
//!
//! - Writes go into a buffer and leave together when the task is about to wait: a response head and its first body
//!   bytes are one system call, and a session's write never blocks its own reads (no deadlock when both peers send at
//!   once). The engine asks [`Transport::poll_writable`] before it writes more: that is the backpressure and the bound.
//! - [`Transport::substitute_head`] lets the engine write a head's bytes itself, straight from the map that holds it,
//!   while the session keeps the framing: no copy of a head per attempt, and the origin's `Date` stays.
//! - [`Transport::guard_head`] checks the bytes of a request head as they arrive, before any parser repairs them.
//! - [`Transport::poll_closed`] tells that the peer went away without losing a byte that it sent instead.
//! - [`Transport::is_reusable`] tells whether an idle connection is still silent and open, without a task per
//!   connection and mostly without a system call.
//!
//! All handles of one transport are used from one task at a time, so the lock is never contended.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType, raw_connect::ProxyDigest,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::head_guard::{GuardVerdict, HeadGuard, HeadLimits};

/// Above this many waiting bytes the engine is told to wait.
const WRITE_LIMIT: usize = 32 * 1024;
/// From this many waiting bytes on, a write does not wait for company.
const FLUSH_AT: usize = 16 * 1024;
/// Writes of at least this size are not copied behind waiting bytes but sent together with them.
const VECTORED_AT: usize = 4 * 1024;
/// How far to read ahead while watching whether the peer is still there.
const READ_AHEAD: usize = 4 * 1024;

/// The kernel's or TLS's end of a connection.
#[derive(Debug)]
pub enum Io {
    /// TCP in clear.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
    /// TLS towards a client.
    ServerTls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    /// TLS towards an upstream over TCP.
    ClientTls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    /// TLS towards an upstream over a unix socket.
    ClientTlsUnix(Box<tokio_rustls::client::TlsStream<UnixStream>>),
}

macro_rules! each_io {
    ($self:expr, $io:ident => $call:expr) => {
        match $self {
            Io::Tcp($io) => $call,
            Io::Unix($io) => $call,
            Io::ServerTls($io) => $call,
            Io::ClientTls($io) => $call,
            Io::ClientTlsUnix($io) => $call,
        }
    };
}

impl Io {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each_io!(self, io => Pin::new(io).poll_read(cx, buf))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each_io!(self, io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        each_io!(self, io => Pin::new(io).poll_write_vectored(cx, bufs))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each_io!(self, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each_io!(self, io => Pin::new(io).poll_shutdown(cx))
    }

    /// TLS gathers records itself and must be flushed; sockets need no flush.
    const fn is_tls(&self) -> bool {
        !matches!(self, Self::Tcp(_) | Self::Unix(_))
    }
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own about the connection")]
struct Channel {
    io: Io,
    /// Bytes that the session has written and the peer's socket has not taken yet.
    waiting: BytesMut,
    /// Bytes that arrived while the engine watched for the peer's departure; the next read yields them first.
    ahead: BytesMut,
    /// The peer closed its direction while the engine watched.
    peer_closed: bool,
    /// While held, a session's flush is only noted: the engine flushes when it is about to wait.
    held: bool,
    /// TLS holds bytes that its own flush has to push out.
    tls_unflushed: bool,
    /// Whether writes are gathered here (HTTP/1) or go straight through (HTTP/2, which gathers frames itself).
    gathering: bool,
    /// The head that stands in for the next write of the session.
    substitute: Option<BytesMut>,
    /// Judges the bytes of a request head while one is expected.
    guard: Option<HeadGuard>,
    received: u64,
    sent: u64,
}

/// A handle to one connection. Clones share the connection.
#[derive(Debug, Clone)]
pub struct Transport(Arc<Mutex<Channel>>);

impl Transport {
    /// Wraps an established connection for an HTTP/1 session: writes are gathered.
    #[must_use]
    pub fn gathering(io: Io) -> Self {
        Self::with(io, true)
    }

    /// Wraps an established connection for HTTP/2, which gathers its frames and bounds them itself.
    #[must_use]
    pub fn direct(io: Io) -> Self {
        Self::with(io, false)
    }

    fn with(io: Io, gathering: bool) -> Self {
        Self(Arc::new(Mutex::new(Channel {
            io,
            waiting: BytesMut::new(),
            ahead: BytesMut::new(),
            peer_closed: false,
            held: false,
            tls_unflushed: false,
            gathering,
            substitute: None,
            guard: None,
            received: 0,
            sent: 0,
        })))
    }

    /// Bytes that arrived from the peer so far (after TLS).
    #[must_use]
    pub fn received(&self) -> u64 {
        self.0.lock().received
    }

    /// Bytes that the peer's socket took so far (before TLS).
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.0.lock().sent
    }

    /// While held, what a session flushes stays in the buffer until [`Transport::poll_flush_waiting`].
    pub fn hold_flushes(&self, held: bool) {
        self.0.lock().held = held;
    }

    /// The next write of the session is replaced by `head`: the session keeps the framing, the bytes are ours.
    pub fn substitute_head(&self, head: BytesMut) {
        self.0.lock().substitute = Some(head);
    }

    /// Puts bytes back that were read but belong to the next message.
    pub fn unread(&self, bytes: &[u8]) {
        let mut channel = self.0.lock();
        if channel.ahead.is_empty() {
            channel.ahead.extend_from_slice(bytes);
        } else {
            let later = std::mem::take(&mut channel.ahead);
            channel.ahead.extend_from_slice(bytes);
            channel.ahead.extend_from_slice(&later);
        }
    }

    /// From now on the arriving bytes are taken for a request head and judged by `guard`; a read of bytes that it
    /// refuses fails, and [`Transport::guard_verdict`] says why.
    pub fn guard_head(&self, limits: HeadLimits) {
        self.0.lock().guard = Some(HeadGuard::new(limits));
    }

    /// How far the guarded head has come.
    #[must_use]
    pub fn guard_verdict(&self) -> GuardVerdict {
        self.0.lock().guard.as_ref().map_or(GuardVerdict::Complete, HeadGuard::verdict)
    }

    /// Sends what waits, as far as the peer's socket takes it. `Ready` when nothing waits any more.
    pub fn poll_flush_waiting(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().poll_drain(cx)
    }

    /// `Ready` when another write is welcome; sends meanwhile.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut channel = self.0.lock();
        if channel.waiting.len() < FLUSH_AT {
            return Poll::Ready(Ok(()));
        }
        match channel.poll_drain(cx) {
            Poll::Pending if channel.waiting.len() < WRITE_LIMIT => Poll::Ready(Ok(())),
            other => other,
        }
    }

    /// `Ready` once the peer has closed its direction or the connection broke. Bytes that arrive instead are kept for
    /// the next read, up to a bound; with that many waiting the question is not answerable and stays `Pending`.
    pub fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut channel = self.0.lock();
        loop {
            if channel.peer_closed {
                return Poll::Ready(());
            }
            if channel.ahead.len() >= READ_AHEAD {
                return Poll::Pending;
            }
            match channel.poll_read_ahead(cx) {
                Poll::Ready(Ok(0) | Err(_)) => channel.peer_closed = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Whether an idle connection is in a known state: open, silent, and with nothing left to send.
    #[must_use]
    pub fn is_reusable(&self) -> bool {
        let mut channel = self.0.lock();
        if channel.peer_closed || !channel.ahead.is_empty() || !channel.waiting.is_empty() {
            return false;
        }
        // Anything to read (data, end or error) makes it unusable: an idle peer has nothing to say. Sockets are asked
        // directly, because a poll may be put off by the runtime's budget.
        let would_block =
            |result: io::Result<usize>| result.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        match &channel.io {
            Io::Tcp(stream) => would_block(stream.try_read(&mut [0])),
            Io::Unix(stream) => would_block(stream.try_read(&mut [0])),
            _ => channel.poll_read_ahead(&mut Context::from_waker(Waker::noop())).is_pending(),
        }
    }

    /// Sends what waits, then ends our direction; the peer's may go on. Errors end it as well.
    pub fn poll_end_writing(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut channel = self.0.lock();
        match channel.poll_drain(cx) {
            Poll::Ready(Ok(())) => channel.io.poll_shutdown(cx).map(drop),
            Poll::Ready(Err(_)) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        }
    }

    /// The connection will be reset and not closed: what was cut short must not look whole.
    pub fn reset_on_close(&self) {
        if let Io::Tcp(stream) = &self.0.lock().io {
            let _ = socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
        }
    }

    /// Reads and forgets what the peer still sends, up to its end or `limit` bytes.
    pub async fn discard(&self, limit: u64) {
        let mut seen = 0;
        std::future::poll_fn(|cx| {
            let mut channel = self.0.lock();
            channel.ahead.clear();
            loop {
                match std::task::ready!(channel.poll_read_ahead(cx)) {
                    Ok(0) | Err(_) => return Poll::Ready(()),
                    Ok(arrived) => {
                        channel.ahead.clear();
                        seen += arrived as u64;
                        if seen >= limit {
                            return Poll::Ready(());
                        }
                    }
                }
            }
        })
        .await;
    }

    /// Sends what waits, then ends our direction. Errors are of no interest: the connection is given up.
    pub async fn close(&self) {
        let _ = std::future::poll_fn(|cx| {
            let mut channel = self.0.lock();
            match channel.poll_drain(cx) {
                Poll::Ready(Ok(())) => channel.io.poll_shutdown(cx),
                other => other,
            }
        })
        .await;
    }
}

impl Channel {
    fn judge(&mut self, arrived: &[u8]) -> io::Result<()> {
        match self.guard.as_mut().map(|guard| guard.take(arrived)) {
            Some(GuardVerdict::Refused(_)) => Err(io::ErrorKind::InvalidData.into()),
            _ => Ok(()),
        }
    }

    fn poll_read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [0_u8; 1024];
        let mut buf = ReadBuf::new(&mut space);
        match self.io.poll_read(cx, &mut buf) {
            Poll::Ready(Ok(())) => {
                let filled = buf.filled();
                self.received += filled.len() as u64;
                self.ahead.extend_from_slice(filled);
                Poll::Ready(Ok(filled.len()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            match self.io.poll_write(cx, &self.waiting) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    self.waiting.advance(written);
                    self.sent += written as u64;
                    self.tls_unflushed = self.io.is_tls();
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.tls_unflushed {
            std::task::ready!(self.io.poll_flush(cx))?;
            self.tls_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Takes all of `buf`: what the socket does not take at once waits here. The engine bounds it by asking
    /// [`Transport::poll_writable`] before each piece, and no piece is larger than a session's read buffer.
    fn gather(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(head) = self.substitute.take() {
            if self.waiting.is_empty() {
                self.waiting = head;
            } else {
                self.waiting.extend_from_slice(&head);
            }
            return Poll::Ready(Ok(buf.len()));
        }
        let mut rest = buf;
        if buf.len() >= VECTORED_AT && !self.io.is_tls() {
            match self.poll_write_through(cx, buf) {
                Poll::Ready(Ok(written)) => rest = buf.get(written..).unwrap_or_default(),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
        }
        self.waiting.extend_from_slice(rest);
        if self.waiting.len() >= FLUSH_AT
            && let Poll::Ready(Err(error)) = self.poll_drain(cx)
        {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(buf.len()))
    }

    /// Sends waiting bytes and `buf` in one system call. `Ok(0)`: nothing of `buf` went out.
    fn poll_write_through(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let waiting = self.waiting.len();
        let written = if waiting == 0 {
            std::task::ready!(self.io.poll_write(cx, buf))?
        } else {
            let slices = [IoSlice::new(&self.waiting), IoSlice::new(buf)];
            std::task::ready!(self.io.poll_write_vectored(cx, &slices))?
        };
        self.sent += written as u64;
        self.waiting.advance(written.min(waiting));
        Poll::Ready(Ok(written.saturating_sub(waiting)))
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut channel = self.0.lock();
        if !channel.ahead.is_empty() {
            let length = channel.ahead.len().min(buf.remaining());
            let bytes = channel.ahead.split_to(length);
            buf.put_slice(&bytes);
            return Poll::Ready(channel.judge(&bytes));
        }
        if channel.peer_closed {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match channel.io.poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                let arrived = buf.filled().get(before..).unwrap_or_default();
                channel.received += arrived.len() as u64;
                Poll::Ready(channel.judge(arrived))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                // About to wait: what is written leaves now, and a full socket wakes this task when it has room.
                match channel.poll_drain(cx) {
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    _ => Poll::Pending,
                }
            }
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut channel = self.0.lock();
        if channel.gathering {
            return channel.gather(cx, buf);
        }
        let written = std::task::ready!(channel.io.poll_write(cx, buf))?;
        channel.sent += written as u64;
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut channel = self.0.lock();
        if channel.gathering {
            let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| &**buf);
            return channel.gather(cx, first);
        }
        let written = std::task::ready!(channel.io.poll_write_vectored(cx, bufs))?;
        channel.sent += written as u64;
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        !self.0.lock().io.is_tls()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut channel = self.0.lock();
        if channel.held {
            return Poll::Ready(Ok(()));
        }
        std::task::ready!(channel.poll_drain(cx))?;
        channel.io.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut channel = self.0.lock();
        std::task::ready!(channel.poll_drain(cx))?;
        channel.io.poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Transport {
    /// Pingora's sessions call this when they give up a connection. What waits is sent by [`Transport::close`], which
    /// the engine calls under its own deadline; here nothing may block.
    async fn shutdown(&mut self) {}
}

impl UniqueID for Transport {
    fn id(&self) -> UniqueIDType {
        0
    }
}

// Pingora's digests would be gathered per session; the engine knows its connections itself.
impl Ssl for Transport {}
impl Peek for Transport {}
impl GetTimingDigest for Transport {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}
impl GetProxyDigest for Transport {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}
impl GetSocketDigest for Transport {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}
