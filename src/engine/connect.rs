//! Opens connections to upstreams: TCP or unix socket, TLS, and the HTTP/2 handshake. No name is resolved here.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use h2::client::SendRequest;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::transport::{Io, Transport};

/// Streams that we let one HTTP/2 connection to an upstream carry before we open another.
const MAX_STREAMS: usize = 100;
/// HTTP/2 receive windows towards upstreams: large enough for a local network, bounded per connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Where a connection goes.
#[derive(Debug, Clone, Copy)]
pub enum Address<'a> {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(&'a Path),
}

/// Which HTTP an upstream is spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Speak {
    /// HTTP/1.1.
    H1,
    /// HTTP/2, in clear by prior knowledge.
    H2,
    /// What ALPN chooses; HTTP/1.1 in clear.
    Negotiate,
}

/// An open connection.
#[derive(Debug)]
pub enum Connected {
    /// For one exchange at a time.
    H1(Transport),
    /// For many streams; its frames are driven by a task of its own.
    H2(H2Connection),
}

/// An HTTP/2 connection to an upstream, shared by the streams on it. Dropping every clone ends it.
#[derive(Debug, Clone)]
pub struct H2Connection {
    /// Opens streams.
    pub requests: SendRequest<Bytes>,
    state: Arc<H2State>,
}

#[derive(Debug, Default)]
struct H2State {
    closed: AtomicBool,
    streams: AtomicUsize,
}

/// Counts a stream on its connection for as long as it lives.
#[derive(Debug)]
pub struct StreamPermit(Arc<H2State>);

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::AcqRel);
    }
}

impl H2Connection {
    /// Whether another stream may be opened on it now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.is_closed() && self.streams() < self.requests.current_max_send_streams().min(MAX_STREAMS)
    }

    /// Counts a stream that is about to be opened.
    #[must_use]
    pub fn permit(&self) -> StreamPermit {
        self.state.streams.fetch_add(1, Ordering::AcqRel);
        StreamPermit(Arc::clone(&self.state))
    }

    fn streams(&self) -> usize {
        self.state.streams.load(Ordering::Acquire)
    }

    /// Whether no stream is open on it.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.streams() == 0
    }

    /// Takes no further stream; those that are open go on.
    pub fn retire(&self) {
        self.state.closed.store(true, Ordering::Release);
    }

    /// Whether the peer has closed it, or takes no further stream.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state.closed.load(Ordering::Acquire)
    }
}

/// Connects; the caller bounds it in time. `tls` is the compiled configuration, which has the trust anchors and our
/// certificate, and the name that the upstream's certificate must bear (also sent as SNI where it is a name).
pub async fn connect(
    address: Address<'_>,
    tls: Option<(&Arc<ClientConfig>, &str)>,
    speak: Speak,
) -> io::Result<Connected> {
    let (io, alpn_h2) = match (address, tls) {
        (Address::Tcp(address), None) => (Io::Tcp(tcp(address).await?), false),
        (Address::Unix(path), None) => (Io::Unix(UnixStream::connect(path).await?), false),
        (Address::Tcp(address), Some((tls, name))) => {
            let name = server_name(name)?;
            let stream = connector(tls).connect(name, tcp(address).await?).await?;
            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            (Io::ClientTls(Box::new(stream)), h2)
        }
        (Address::Unix(path), Some((tls, name))) => {
            let name = server_name(name)?;
            let stream = connector(tls).connect(name, UnixStream::connect(path).await?).await?;
            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            (Io::ClientTlsUnix(Box::new(stream)), h2)
        }
    };
    match speak {
        Speak::H2 if tls.is_some() && !alpn_h2 => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "the upstream did not agree to HTTP/2 (ALPN)"))
        }
        Speak::H2 => handshake(io).await,
        Speak::Negotiate if alpn_h2 => handshake(io).await,
        Speak::Negotiate | Speak::H1 => Ok(Connected::H1(Transport::new(io))),
    }
}

fn connector(tls: &Arc<ClientConfig>) -> TlsConnector {
    TlsConnector::from(Arc::clone(tls))
}

fn server_name(name: &str) -> io::Result<ServerName<'static>> {
    ServerName::try_from(name.to_owned()).map_err(io::Error::other)
}

async fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn handshake(io: Io) -> io::Result<Connected> {
    let (requests, connection) = h2::client::Builder::new()
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_reset_streams(64)
        .max_header_list_size(64 * 1024)
        .handshake::<_, Bytes>(Transport::new(io))
        .await
        .map_err(io::Error::other)?;
    let state = Arc::new(H2State::default());
    let driven = Arc::clone(&state);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "upstream http/2 connection ended");
        }
        driven.closed.store(true, Ordering::Release);
    });
    Ok(Connected::H2(H2Connection { requests, state }))
}
