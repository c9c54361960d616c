//! Where connections come in: worker threads, listening sockets, TLS handshakes, connection caps and the end of it all.
//!
//! Decides which connections become ones worth serving and on which worker; an [`Application`] serves them. Knows
//! nothing of HTTP, routes or policies, and never changes the limits of a connection that has been accepted.
//!
//! # Threads
//! N workers, each a thread with a single-threaded runtime of its own. A connection stays on the worker that accepted
//! it, with that worker's [`Application::Worker`]: pools, buffers and random numbers are never shared between cores,
//! and no task is ever woken on another thread.
//!
//! # One socket per worker
//! Each address has one `SO_REUSEPORT` socket per worker, and the kernel spreads connections over them by a hash of the
//! addresses. The other way, one socket that every worker waits on, was measured beside it: a loopback program, four
//! clients, two busy cores, three runs each of 2, 4 and 8 workers. CPU per connection (accept, echo of 4 bytes, close)
//! did not differ beyond the noise: 47 to 74 µs against 47 to 78 µs, most of it the kernel's. With two workers the
//! slowest percent took 1.2 to 1.9 ms against 1.9 to 3.5 ms. 64 connections over eight workers came to 2 to 13 each,
//! against 0 to 16 in the worst run. So the reasons are: a connection wakes one worker and not all, the accept queues
//! share no lock as cores are added, and the spread does not depend on who is fastest to wake. The price: the kernel
//! does not look at the load of a worker, and a socket that closes needs the care that `socket` takes.

mod accept;
mod handshake;
mod socket;
mod workers;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::model::connection::ClientConnection;
use crate::model::drain::DrainWatch;
use crate::model::ids::ListenerName;

pub use handshake::HandshakeFailure;
pub use workers::{BindError, Bound, DrainReport, Workers};

/// What the edge feeds: the thing that serves connections.
pub trait Application: Send + Sync + 'static {
    /// State of one worker: connection pools, random numbers, log buffers. Its last owner is the worker's thread, which
    /// drops it after all of its connections.
    type Worker: Send + Sync + 'static;

    /// Makes the state of worker `index`, on the worker's thread and inside its runtime.
    fn worker(&self, index: usize) -> Self::Worker;

    /// Serves one connection to its end. The place under the listener's cap is held until this returns.
    fn serve(self: Arc<Self>, worker: Arc<Self::Worker>, connection: Connection) -> impl Future<Output = ()> + Send;

    /// Hears of what never became a connection worth serving. Called on the worker; must not block.
    fn refused(&self, listener: &ListenerName, peer: Option<SocketAddr>, why: Refused);
}

/// A connection that is worth serving: accepted, under the cap, its TLS handshake done.
#[derive(Debug)]
pub struct Connection {
    /// The bytes.
    pub io: Io,
    /// What is known of it; shared by all streams of an HTTP/2 connection.
    pub info: Arc<ClientConnection>,
    /// When to take no further request.
    pub drain: DrainWatch,
}

/// The bytes of a connection, in clear.
#[derive(Debug)]
pub enum Io {
    /// Straight from the socket.
    Tcp(TcpStream),
    /// Through TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Why something never became a connection worth serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refused {
    /// `limits.connections` was reached; accepted and closed at once.
    ConnectionLimit,
    /// The system gave no connection: out of file descriptors or memory. There is no peer to name.
    Accept,
    /// The TLS handshake came to nothing.
    Handshake(HandshakeFailure),
}

impl Refused {
    /// Every reason, for metrics that start at zero.
    pub const ALL: [Self; 11] = [
        Self::ConnectionLimit,
        Self::Accept,
        Self::Handshake(HandshakeFailure::Timeout),
        Self::Handshake(HandshakeFailure::Eof),
        Self::Handshake(HandshakeFailure::NotTls),
        Self::Handshake(HandshakeFailure::Version),
        Self::Handshake(HandshakeFailure::Certificate),
        Self::Handshake(HandshakeFailure::ClientCertificate),
        Self::Handshake(HandshakeFailure::Alpn),
        Self::Handshake(HandshakeFailure::Alert),
        Self::Handshake(HandshakeFailure::Protocol),
    ];

    /// The label in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConnectionLimit => "connection_limit",
            Self::Accept => "accept_failed",
            Self::Handshake(failure) => failure.as_str(),
        }
    }
}
