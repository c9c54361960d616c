//! What the decisions see of a request: values in canonical form, borrowed from the exchange.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, Method, Version};

use super::principal::Principal;

/// The scheme by which the client reached us (or by which a trusted proxy says that it did).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// In clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that needs no mention in a URL.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A request as routing and policies see it. Cheap to make: it borrows everything.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// Method as received; methods are case-sensitive (RFC 9110 §9.1).
    pub method: &'a Method,
    /// Scheme towards the client.
    pub scheme: Scheme,
    /// Host in lower case without port and without a trailing dot; IPv6 in brackets. Never empty.
    pub host: &'a str,
    /// Port of the authority, where the client named one.
    pub port: Option<u16>,
    /// Path in canonical form (see `routing::path`); begins with `/`, or is `*` for `OPTIONS *`.
    pub path: &'a str,
    /// Query without the `?`, as received.
    pub query: Option<&'a str>,
    /// Fields as received.
    pub headers: &'a HeaderMap,
    /// Version that the client speaks.
    pub version: Version,
    /// The client's address: the peer's, or the one that trusted proxies vouch for.
    pub client: IpAddr,
    /// The connection's peer.
    pub peer: SocketAddr,
    /// Who it comes from; `None` before authentication, and for a request that did not say.
    pub principal: Option<&'a Principal>,
    /// The name of its route, once it has one.
    pub route: Option<&'a str>,
}

impl<'a> RequestView<'a> {
    /// The first value of a field, when it is visible ASCII.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}
