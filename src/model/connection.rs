//! What is known of a client's connection before its first request. Says nothing of what the client asks for.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;

use super::listener::{ListenerSpec, Protocol, TlsVersion};

/// A client's connection: where it came in, from whom and under which limits. Fixed for its life, so that a reload
/// never changes the rules in the middle of a request.
#[derive(Debug, Clone)]
pub struct ClientConnection {
    /// The listener as it was when the connection was accepted.
    pub listener: Arc<ListenerSpec>,
    /// The other end of the TCP connection: a client or a proxy in front of us.
    pub peer: SocketAddr,
    /// Our end: the address that the peer connected to, also where the listener is bound to all addresses.
    pub local: SocketAddr,
    /// What TLS agreed on; `None` in clear.
    pub tls: Option<TlsSession>,
}

/// What the TLS handshake agreed on.
#[derive(Debug, Clone)]
pub struct TlsSession {
    /// The name that the client asked for (SNI, RFC 6066 §3), in lower case.
    pub server_name: Option<Box<str>>,
    /// The protocol that ALPN chose; `None` when the client did not use ALPN.
    pub protocol: Option<Protocol>,
    /// The version of TLS.
    pub version: TlsVersion,
    /// The cipher suite by its IANA name.
    pub cipher: &'static str,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
    /// The client's own certificate, verified against the listener's `client_ca`; `None` when it sent none.
    pub client_certificate: Option<CertificateDer<'static>>,
}
