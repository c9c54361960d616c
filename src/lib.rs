//! Portcullis: a reverse-proxy API gateway whose every decision can be explained, tested and audited.
//!
//! The modules stand in layer order: each may import only those above it (the table is in ARCHITECTURE.md and
//! `tests/architecture/` holds it up). Everything down to `pipeline` is pure: no socket, file or system clock.

pub mod model;
pub mod routing;
pub mod upstream;
pub mod policy;
pub mod telemetry;
pub mod config;
pub mod snapshot;
pub mod pipeline;
pub mod explain;
#[expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the engine is where bytes are moved and waited for"
)]
pub mod engine;
#[expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "the edge is where connections are accepted")]
pub mod edge;
#[expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the demo app is an origin: it listens on a socket and waits when asked to"
)]
pub mod demo;
#[expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the control plane watches files, resolves names and serves the admin API"
)]
pub mod control;
#[expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the command line speaks to a running gateway and asks for the time"
)]
pub mod cli;
