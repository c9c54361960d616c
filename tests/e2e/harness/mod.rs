//! What the tests stand on: the gateway as a process, scripted upstreams, clients that speak bytes.
//!
//! Decides how long a test waits and how it fails (with the gateway's log); it asserts nothing about the gateway itself.

pub mod client;
pub mod gateway;
pub mod h2_client;
pub mod h2_upstream;
pub mod message;
pub mod python;
pub mod redis;
pub mod tls;
pub mod upstream;
pub mod wire;

use std::time::Duration;

pub use client::Client;
pub use gateway::Gateway;
pub use h2_client::H2Client;
pub use h2_upstream::H2Upstream;
pub use message::Response;
pub use tls::Authority;
pub use upstream::{Conn, Upstream};

/// Longer than anything takes on a busy machine: whoever waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often a condition is looked at that tells nobody when it changes.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What `future` returns; fails the test when it takes longer than [`PATIENCE`].
#[track_caller]
pub fn within<T>(what: &str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let result = tokio::time::timeout(PATIENCE, future).await;
        result.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}, at {caller}"))
    }
}

/// Looks until there is something to see.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await
}

/// A door that scripts wait at until the test opens it. Stays open.
#[derive(Debug, Clone)]
pub struct Gate(std::sync::Arc<tokio::sync::watch::Sender<bool>>);

impl Gate {
    /// A closed one.
    pub fn new() -> Self {
        Self(std::sync::Arc::new(tokio::sync::watch::channel(false).0))
    }

    /// Lets everybody through.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Waits until it is open.
    pub async fn passed(&self) {
        let mut watch = self.0.subscribe();
        within("a gate opens", watch.wait_for(|open| *open)).await.unwrap();
    }
}

/// Bytes that differ from place to place, so that loss, repetition and disorder all show.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A short stand-in for bytes in a comparison that would print megabytes.
pub fn checksum(bytes: &[u8]) -> (usize, u64) {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    (bytes.len(), hash)
}

/// A loopback address that refuses connections for as long as this lives: bound, but nobody listens.
pub struct Refusing(socket2::Socket);

impl Refusing {
    /// Takes a port.
    pub fn new() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        Self(socket)
    }

    /// Where nobody listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().unwrap().as_socket().unwrap())
    }
}

/// A catch-all route to `upstream`, which is a URL or a name.
pub fn all_to(upstream: &str) -> String {
    format!("[[route]]\nname = \"all\"\nmatch = \"/*\"\nupstream = \"{upstream}\"\n")
}
