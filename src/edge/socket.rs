//! Listening sockets: how they are opened, and how one is given up without losing whom it has already let in.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};
use tokio::net::TcpListener;

/// Connections that may wait to be accepted, per socket; the kernel takes the smaller of this and `somaxconn`.
pub(super) const BACKLOG: i32 = 4096;

/// Binds `count` sockets to one address and returns them with the address that was bound; none of them listens yet.
///
/// An IPv6 address takes IPv6 alone, as in nginx and Envoy and whatever the system's default is: `[::]:80` and
/// `0.0.0.0:80` are two listeners that get along, and a peer never shows as `::ffff:192.0.2.1` that an access list for
/// `192.0.2.0/24` would miss. `exclusive` first makes sure that nobody else listens there: with `SO_REUSEPORT` alone,
/// two gateways started by mistake would share the traffic without a word.
pub(super) fn bind(address: SocketAddr, count: usize, exclusive: bool) -> io::Result<(SocketAddr, Vec<Socket>)> {
    if exclusive && address.port() != 0 {
        open(address)?.bind(&address.into())?;
    }
    let first = bind_shared(address)?;
    let bound = first.local_addr()?.as_socket().unwrap_or(address);
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(bind_shared(bound)?);
    }
    Ok((bound, sockets))
}

/// Starts listening, and hands the socket to the runtime that is entered.
pub(super) fn listen(socket: Socket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn bind_shared(address: SocketAddr) -> io::Result<Socket> {
    let socket = open(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // a restart must not wait for the last connections of the process before (TIME_WAIT)
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // accepted connections inherit it, which saves a system call for each
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

/// Lets no new connection begin on a listening socket, while those that have begun can still be accepted.
///
/// A listening socket that is closed resets the connections in its queue. Who empties the queue and then closes loses
/// those that arrive in between or are in the middle of their handshake (on loopback, under a storm of connects, in one
/// close of 200); so the socket first drops what would begin one (SYN without ACK). Such a client tries again a second
/// later and finds the port closed, or another process there. Accepted connections inherit the filter, and none of
/// their segments are of that kind.
pub(super) fn let_nobody_in(socket: &TcpListener) -> io::Result<()> {
    const FLAGS: u32 = 13; // offset in the TCP header (RFC 9293 §3.1)
    const SYN: u32 = 0x02;
    const SYN_AND_ACK: u32 = 0x12;
    // classic BPF: load the flags, mask them, compare, drop (0) or pass (all)
    SockRef::from(socket).attach_filter(&[
        SockFilter::new(0x30, 0, 0, FLAGS),
        SockFilter::new(0x54, 0, 0, SYN_AND_ACK),
        SockFilter::new(0x15, 0, 1, SYN),
        SockFilter::new(0x06, 0, 0, 0),
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ])
}
