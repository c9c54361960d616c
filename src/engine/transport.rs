//! One connection's bytes: what has arrived and was not taken, and what waits to leave.
//!
//! HTTP/1 reads and writes through buffers of the transport's own, so that the engine alone decides when the task waits:
//!
//! - What is sent is gathered and leaves together when the task is about to wait: a head and its first body bytes are one
//!   system call, and writing never blocks reading (no deadlock when both peers send at once). The engine asks
//!   [`Transport::poll_writable`] before it sends more: that is the backpressure and the bound.
//! - [`Transport::arrived`] shows what has come, until it is taken. So [`Transport::poll_closed`] can look for the peer's
//!   departure without losing a byte that it sent instead, and what belongs to the next message stays where it is.
//! - [`Transport::is_reusable`] tells whether an idle connection is still silent and open, without a task per
//!   connection and mostly without a system call.
//!
//! HTTP/2 reads and writes directly ([`AsyncRead`], [`AsyncWrite`]): `h2` gathers its frames itself.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType, raw_connect::ProxyDigest,
};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Above this many waiting bytes the engine is told to wait.
const WRITE_LIMIT: usize = 32 * 1024;
/// From this many waiting bytes on, a write does not wait for company.
const FLUSH_AT: usize = 16 * 1024;
/// Writes of at least this size are not copied behind waiting bytes but sent together with them.
const VECTORED_AT: usize = 4 * 1024;
/// How far to read ahead while watching whether the peer is still there.
const READ_AHEAD: usize = 4 * 1024;
/// The room for bytes that arrive: most heads, and small bodies with them.
pub const ROOM: usize = 4 * 1024;
/// The room for bytes of which nobody knows how many will come.
pub const STREAM_ROOM: usize = 16 * 1024;
/// The room for the bytes of a large body.
pub const LARGE_ROOM: usize = 64 * 1024;
/// With less room than this left, a buffer is not read into.
const LEAST_ROOM: usize = 1024;

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
struct Channel {
    io: Io,
    /// Bytes for the peer that its socket has not taken yet.
    waiting: BytesMut,
    /// Bytes of the peer's that nobody has taken yet.
    arrived: BytesMut,
    /// The peer has closed its direction.
    peer_closed: bool,
    /// TLS holds bytes that its own flush has to push out.
    tls_unflushed: bool,
    /// A buffer has become larger than [`ROOM`].
    grown: bool,
    sent: u64,
}

/// One connection.
#[derive(Debug)]
pub struct Transport(Box<Channel>);

impl Transport {
    /// Wraps an established connection.
    #[must_use]
    pub fn new(io: Io) -> Self {
        Self(Box::new(Channel {
            io,
            waiting: BytesMut::new(),
            arrived: BytesMut::new(),
            peer_closed: false,
            tls_unflushed: false,
            grown: false,
            sent: 0,
        }))
    }

    /// Bytes that the peer's socket took so far (before TLS).
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.0.sent
    }

    /// What has arrived and was not taken.
    #[must_use]
    pub fn arrived(&self) -> &[u8] {
        &self.0.arrived
    }

    /// Takes the first `length` bytes of what has arrived, or all if it is less.
    pub fn take_arrived(&mut self, length: usize) -> Bytes {
        let length = length.min(self.0.arrived.len());
        self.0.arrived.split_to(length).freeze()
    }

    /// Forgets the first `length` bytes of what has arrived.
    pub fn skip(&mut self, length: usize) {
        let length = length.min(self.0.arrived.len());
        self.0.arrived.advance(length);
    }

    /// Waits for more than has arrived, and says how much it is; zero is the end of the peer's direction. `room` is how
    /// much there may be at once. While it waits, what waits to leave leaves.
    pub fn poll_arrive(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        let channel = &mut *self.0;
        if channel.peer_closed {
            return Poll::Ready(Ok(0));
        }
        match channel.poll_read_more(cx, room) {
            Poll::Ready(Ok(0)) => {
                channel.peer_closed = true;
                Poll::Ready(Ok(0))
            }
            // a full socket wakes this task when it has room
            Poll::Pending => match channel.poll_drain(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                _ => Poll::Pending,
            },
            ready @ Poll::Ready(_) => ready,
        }
    }

    /// Lets go of large buffers between two messages: thousands of connections may be idle for long.
    pub fn rest(&mut self) {
        let channel = &mut *self.0;
        if channel.grown && channel.arrived.is_empty() && channel.waiting.is_empty() {
            channel.grown = false;
            (channel.arrived, channel.waiting) = (BytesMut::new(), BytesMut::new());
        }
    }

    /// Where heads and the lines between chunks are written: they leave before what is sent next.
    pub fn outgoing(&mut self) -> &mut BytesMut {
        &mut self.0.waiting
    }

    /// Sends all of `bytes`: what the socket does not take at once waits here. The engine bounds it by asking
    /// [`Transport::poll_writable`] before each piece.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let channel = &mut *self.0;
        let mut cx = Context::from_waker(Waker::noop());
        let mut rest = bytes;
        if bytes.len() >= VECTORED_AT && !channel.io.is_tls() {
            match channel.poll_write_through(&mut cx, bytes) {
                Poll::Ready(Ok(written)) => rest = bytes.get(written..).unwrap_or_default(),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {}
            }
        }
        channel.waiting.extend_from_slice(rest);
        if channel.waiting.len() >= FLUSH_AT
            && let Poll::Ready(Err(error)) = channel.poll_drain(&mut cx)
        {
            return Err(error);
        }
        Ok(())
    }

    /// Sends what waits, as far as the peer's socket takes it. `Ready` when nothing waits any more.
    pub fn poll_flush_waiting(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_drain(cx)
    }

    /// `Ready` when another write is welcome; sends meanwhile.
    pub fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let channel = &mut *self.0;
        if channel.waiting.len() < FLUSH_AT {
            return Poll::Ready(Ok(()));
        }
        match channel.poll_drain(cx) {
            Poll::Pending if channel.waiting.len() < WRITE_LIMIT => Poll::Ready(Ok(())),
            other => other,
        }
    }

    /// `Ready` once the peer has closed its direction or the connection broke. Bytes that arrive instead are kept for
    /// the next reader, up to a bound; with that many waiting the question is not answerable and stays `Pending`.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let channel = &mut *self.0;
        loop {
            if channel.peer_closed {
                return Poll::Ready(());
            }
            if channel.arrived.len() >= READ_AHEAD {
                return Poll::Pending;
            }
            match channel.poll_read_more(cx, LEAST_ROOM) {
                Poll::Ready(Ok(0) | Err(_)) => channel.peer_closed = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Whether an idle connection is in a known state: open, silent, and with nothing left to send.
    #[must_use]
    pub fn is_reusable(&mut self) -> bool {
        let channel = &mut *self.0;
        if channel.peer_closed || !channel.arrived.is_empty() || !channel.waiting.is_empty() {
            return false;
        }
        // Anything to read (data, end or error) makes it unusable: an idle peer has nothing to say. The kernel is asked,
        // because the runtime knows only what came before it last waited.
        let would_block =
            |result: io::Result<usize>| result.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        match &channel.io {
            Io::Tcp(stream) => would_block(SockRef::from(stream).peek(&mut [MaybeUninit::uninit()])),
            Io::Unix(stream) => would_block(SockRef::from(stream).peek(&mut [MaybeUninit::uninit()])),
            _ => channel.poll_read_more(&mut Context::from_waker(Waker::noop()), LEAST_ROOM).is_pending(),
        }
    }

    /// Sends what waits, then ends our direction; the peer's may go on. Errors end it as well.
    pub fn poll_end_writing(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.0.poll_drain(cx) {
            Poll::Ready(Ok(())) => self.0.io.poll_shutdown(cx).map(drop),
            Poll::Ready(Err(_)) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        }
    }

    /// The connection will be reset and not closed: what was cut short must not look whole.
    pub fn reset_on_close(&self) {
        if let Io::Tcp(stream) = &self.0.io {
            let _ = socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
        }
    }

    /// Reads and forgets what the peer still sends, up to its end or `limit` bytes.
    pub async fn discard(&mut self, limit: u64) {
        let mut seen = 0;
        let channel = &mut *self.0;
        channel.arrived.clear();
        std::future::poll_fn(|cx| {
            while !channel.peer_closed && seen < limit {
                match std::task::ready!(channel.poll_read_more(cx, STREAM_ROOM)) {
                    Ok(0) | Err(_) => channel.peer_closed = true,
                    Ok(arrived) => seen += arrived as u64,
                }
                channel.arrived.clear();
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Sends what waits, then ends our direction. Errors are of no interest: the connection is given up.
    pub async fn close(&mut self) {
        std::future::poll_fn(|cx| self.poll_end_writing(cx)).await;
    }
}

impl Channel {
    fn poll_read_more(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        let left = self.arrived.capacity() - self.arrived.len();
        if left < room.min(LEAST_ROOM) || (room > ROOM && left < room) {
            let room = room.max(ROOM);
            self.grown |= self.arrived.len() + room > ROOM;
            self.arrived.reserve(room);
        }
        let Self { io, arrived, .. } = self;
        each_io!(io, io => pin!(io.read_buf(arrived)).poll(cx))
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.grown |= self.waiting.len() > ROOM;
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
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.io.poll_read(cx, buf)
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(self.0.io.poll_write(cx, buf))?;
        self.0.sent += written as u64;
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(self.0.io.poll_write_vectored(cx, bufs))?;
        self.0.sent += written as u64;
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        !self.0.io.is_tls()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.io.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.io.poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Transport {
    /// Nobody of pingora's gives up a connection of ours; here nothing may block.
    async fn shutdown(&mut self) {}
}

impl UniqueID for Transport {
    fn id(&self) -> UniqueIDType {
        0
    }
}

// Pingora's HTTP/2 handshake asks for a stream that has digests; the engine knows its connections itself.
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
