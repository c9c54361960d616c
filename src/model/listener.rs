//! A listener as the configuration describes it: where it listens, what it speaks and how much it bears.
//!
//! Plain values that the snapshot compiles and the edge obeys; nothing here opens a socket.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ids::ListenerName;
use super::units::{ByteRate, ByteSize, Period};

/// A `[[listener]]`, compiled. Immutable: a reload that changes a setting makes a new one.
#[derive(Clone)]
pub struct ListenerSpec {
    /// Its name, unique in the configuration.
    pub name: ListenerName,
    /// Where it listens. Port 0 lets the system choose; the choice is kept over reloads that leave the address alone.
    pub address: SocketAddr,
    /// The versions of HTTP that it speaks.
    pub protocols: Protocols,
    /// What one client, and all of them together, may take.
    pub limits: Limits,
    /// Certificates and everything else of TLS; `None` is a listener in clear.
    pub tls: Option<Arc<ServerConfig>>,
}

impl fmt::Debug for ListenerSpec {
    /// Without the TLS settings: they hold keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerSpec")
            .field("name", &self.name)
            .field("address", &self.address)
            .field("protocols", &self.protocols)
            .field("limits", &self.limits)
            .field("tls", &self.tls.is_some())
            .finish()
    }
}

/// A version of HTTP on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/1.0 (RFC 9112).
    H1,
    /// HTTP/2 (RFC 9113).
    H2,
}

impl Protocol {
    /// The name in the configuration, in logs and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H2 => "h2",
        }
    }

    /// The protocol's name in ALPN (RFC 7301 §6, RFC 9113 §3.1).
    #[must_use]
    pub const fn alpn(self) -> &'static [u8] {
        match self {
            Self::H1 => b"http/1.1",
            Self::H2 => b"h2",
        }
    }

    /// The protocol of that ALPN name; `None` for one that is not offered.
    #[must_use]
    pub fn from_alpn(name: &[u8]) -> Option<Self> {
        [Self::H1, Self::H2].into_iter().find(|protocol| protocol.alpn() == name)
    }
}

/// A set of [`Protocol`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Protocols {
    h1: bool,
    h2: bool,
}

impl Protocols {
    /// HTTP/1 alone: the default in clear.
    pub const H1: Self = Self { h1: true, h2: false };
    /// HTTP/2 alone.
    pub const H2: Self = Self { h1: false, h2: true };
    /// Both: the default over TLS.
    pub const BOTH: Self = Self { h1: true, h2: true };

    /// Whether `protocol` is in the set.
    #[must_use]
    pub const fn contains(self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::H1 => self.h1,
            Protocol::H2 => self.h2,
        }
    }

    /// The ALPN names, the preferred one first: HTTP/2 needs one connection where HTTP/1 needs six.
    #[must_use]
    pub fn alpn(self) -> Vec<Vec<u8>> {
        [Protocol::H2, Protocol::H1]
            .into_iter()
            .filter(|protocol| self.contains(*protocol))
            .map(|protocol| protocol.alpn().to_vec())
            .collect()
    }
}

impl FromIterator<Protocol> for Protocols {
    fn from_iter<I: IntoIterator<Item = Protocol>>(protocols: I) -> Self {
        let mut set = Self::default();
        for protocol in protocols {
            match protocol {
                Protocol::H1 => set.h1 = true,
                Protocol::H2 => set.h2 = true,
            }
        }
        set
    }
}

/// A version of TLS. Older ones are not offered at all (RFC 8996).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "1.3")]
    V1_3,
}

impl TlsVersion {
    /// The number, as in the configuration and in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1_2 => "1.2",
            Self::V1_3 => "1.3",
        }
    }
}

/// What one client, and all clients of a listener together, may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Limits {
    /// Connections open at once on this listener, over all workers. One more is accepted and closed at once.
    pub connections: u32,
    /// Bytes of a request's line and header fields together; more is answered with 431.
    pub header_size: ByteSize,
    /// Header fields of a request; more is answered with 431.
    pub header_count: u32,
    /// From the first byte of a request to the end of its header fields; over it, 408 and the connection is closed.
    pub header_timeout: Period,
    /// How long a connection may stay without a request.
    pub idle_timeout: Period,
    /// The slowest rate at which a request's body may arrive.
    pub min_body_rate: ByteRate,
    /// From the accepted connection to the end of its TLS handshake; over it the connection is closed.
    pub handshake_timeout: Period,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            header_size: ByteSize::kib(64),
            header_count: 128,
            header_timeout: Period::from_secs(10),
            idle_timeout: Period::from_secs(60),
            min_body_rate: ByteRate(ByteSize::kib(1)),
            handshake_timeout: Period::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http2_is_offered_before_http1() {
        assert_eq!(Protocols::BOTH.alpn(), [b"h2".to_vec(), b"http/1.1".to_vec()]);
        assert_eq!(Protocols::H1.alpn(), [b"http/1.1".to_vec()]);
        assert_eq!([Protocol::H2, Protocol::H1].into_iter().collect::<Protocols>(), Protocols::BOTH);
    }

    #[test]
    fn alpn_names_are_read_back() {
        for protocol in [Protocol::H1, Protocol::H2] {
            assert_eq!(Protocol::from_alpn(protocol.alpn()), Some(protocol));
        }
        assert_eq!(Protocol::from_alpn(b"http/1.0"), None);
    }
}
