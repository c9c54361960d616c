//! The accept loop of one worker on one socket, and the life of each connection that it lets in.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::handshake::handshake;
use super::{Application, Connection, Io, Refused, socket};
use crate::model::connection::ClientConnection;
use crate::model::drain::DrainWatch;
use crate::model::listener::ListenerSpec;

/// How long no connection is accepted after the system failed to give one: it is out of descriptors or memory, and
/// asking again at once would only burn the CPU that could end other connections.
const BACK_OFF: Duration = Duration::from_millis(50);

/// How long a closing socket waits for handshakes that have begun: the client's last packet is a round trip away.
const ROUND_TRIP: Duration = Duration::from_millis(100);

/// What all workers share of one listening address.
#[derive(Debug)]
pub(super) struct Listening {
    /// The listener as of the last reload; each connection keeps the one that it was accepted under.
    pub(super) spec: ArcSwap<ListenerSpec>,
    /// The address that was bound.
    pub(super) address: SocketAddr,
    open: AtomicU32,
}

impl Listening {
    pub(super) fn new(spec: Arc<ListenerSpec>, address: SocketAddr) -> Self {
        Self { spec: ArcSwap::new(spec), address, open: AtomicU32::new(0) }
    }

    /// Our end of a connection: asks the system only where one socket takes several addresses.
    fn local(&self, stream: &TcpStream) -> SocketAddr {
        if self.address.ip().is_unspecified() { stream.local_addr().unwrap_or(self.address) } else { self.address }
    }
}

/// Counts the open connections of all listeners, also of those that are gone.
#[derive(Debug, Default)]
pub(super) struct Census {
    open: AtomicUsize,
    empty: Notify,
}

impl Census {
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Returns when no connection is open. Meant for one waiter, after the last connection was let in.
    pub(super) async fn emptied(&self) {
        while self.open() > 0 {
            self.empty.notified().await;
        }
    }
}

/// A connection's place under its listener's cap; given back when dropped.
struct Place {
    listening: Arc<Listening>,
    census: Arc<Census>,
}

impl Place {
    /// A place, unless `limit` are taken.
    fn take(listening: &Arc<Listening>, census: &Arc<Census>, limit: u32) -> Option<Self> {
        let one_more = |open: u32| (open < limit).then(|| open.saturating_add(1));
        listening.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok()?;
        census.open.fetch_add(1, Ordering::AcqRel);
        Some(Self { listening: Arc::clone(listening), census: Arc::clone(census) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.listening.open.fetch_sub(1, Ordering::AcqRel);
        if self.census.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.census.empty.notify_one();
        }
    }
}

/// One worker's door to one listening address.
pub(super) struct Door<A: Application> {
    pub(super) app: Arc<A>,
    pub(super) worker: Arc<A::Worker>,
    pub(super) listening: Arc<Listening>,
    pub(super) census: Arc<Census>,
    pub(super) drain: DrainWatch,
}

impl<A: Application> Door<A> {
    /// Lets connections in until the drain begins, then those that have begun by then, and closes.
    pub(super) async fn keep(self: Arc<Self>, socket: TcpListener) {
        self.accept_until(&socket, self.drain.draining()).await;
        match socket::let_nobody_in(&socket) {
            Ok(()) => self.accept_until(&socket, sleep(ROUND_TRIP)).await,
            // some sandboxes don't allow it; then new ones would keep coming, and the latest of them are lost
            Err(error) => tracing::debug!(%error, "no filter on the listening socket"),
        }
        if let Err(error) = self.close(socket) {
            self.report(&error);
        }
    }

    async fn accept_until(self: &Arc<Self>, socket: &TcpListener, end: impl Future<Output = ()>) {
        let mut end = pin!(end);
        loop {
            tokio::select! {
                biased;
                () = &mut end => return,
                accepted = socket.accept() => match accepted {
                    Ok((stream, peer)) => self.admit(stream, peer),
                    Err(error) if concerns_one_connection(&error) => {}
                    Err(error) => {
                        self.report(&error);
                        tokio::select! {
                            biased;
                            () = &mut end => return,
                            () = sleep(BACK_OFF) => {}
                        }
                    }
                },
            }
        }
    }

    /// Lets in whoever waits in the queue, then closes. Bounded by what the queue holds.
    fn close(self: &Arc<Self>, socket: TcpListener) -> io::Result<()> {
        // asked of the socket itself: the runtime may not have heard yet of the latest connections
        let socket = socket.into_std()?;
        for _ in 0..=socket::BACKLOG {
            match socket.accept() {
                Ok((stream, peer)) => {
                    stream.set_nonblocking(true)?;
                    self.admit(TcpStream::from_std(stream)?, peer);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn admit(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let spec = self.listening.spec.load_full();
        match Place::take(&self.listening, &self.census, spec.limits.connections) {
            Some(place) => drop(tokio::spawn(Arc::clone(self).serve(stream, peer, spec, place))),
            None => self.app.refused(&spec.name, Some(peer), Refused::ConnectionLimit),
        }
    }

    /// The life of one connection.
    async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, spec: Arc<ListenerSpec>, _place: Place) {
        let local = self.listening.local(&stream);
        let (io, tls) = match &spec.tls {
            None => (Io::Tcp(stream), None),
            Some(config) => match handshake(stream, peer, config, spec.limits.handshake_timeout.0).await {
                Ok((stream, tls)) => (Io::Tls(stream), Some(tls)),
                Err(why) => return self.app.refused(&spec.name, Some(peer), Refused::Handshake(why)),
            },
        };
        let info = Arc::new(ClientConnection { listener: spec, peer, local, tls });
        let connection = Connection { io, info, drain: self.drain.clone() };
        Arc::clone(&self.app).serve(Arc::clone(&self.worker), connection).await;
    }

    fn report(&self, error: &io::Error) {
        let name = &self.listening.spec.load().name;
        tracing::warn!(listener = %name, %error, "cannot accept connections");
        self.app.refused(name, None, Refused::Accept);
    }
}

/// Whether `accept` failed for one connection only, so that the next call may succeed: `accept(2)` hands out the
/// pending network errors of the connection that it would have returned.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::Interrupted
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::TimedOut
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_out_of_descriptors_is_no_fault_of_one_connection() {
        const EMFILE: i32 = 24;
        const ECONNABORTED: i32 = 103;
        assert!(!concerns_one_connection(&io::Error::from_raw_os_error(EMFILE)));
        assert!(concerns_one_connection(&io::Error::from_raw_os_error(ECONNABORTED)));
    }
}
