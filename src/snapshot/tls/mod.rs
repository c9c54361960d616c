//! Certificates and keys, compiled into rustls configurations for listeners and for upstreams.
//!
//! Decides which certificate a client is shown, which versions are spoken, whose certificates are believed and which
//! sessions may be resumed. Gets bytes, never reads a file; takes the time as an argument. Never switches verification
//! off, never names a key in a message, and never relies on the process's default provider: pingora brings ring along,
//! so aws-lc-rs is named in each configuration.

mod client;
mod pem;
mod server;
mod sni;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

pub use client::{ClientTlsInput, bundled_roots, compile_client, system_roots};
pub use pem::{CaBundle, KeyPair};
pub use server::{ClientAuth, ServerTls, ServerTlsInput, compile_server};

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

#[cfg(test)]
mod tests;
