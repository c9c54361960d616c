//! Portcullis: a reverse-proxy API gateway whose every decision can be explained, tested and audited.
//!
//! The modules stand in layer order: each may import only those above it (the table is in ARCHITECTURE.md and
//! `tests/architecture/` holds it up). Everything down to `pipeline` is pure: no socket, file or system clock.

pub mod model;
#[expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the demo app is an origin: it listens on a socket and waits when asked to"
)]
pub mod demo;
pub mod telemetry;
pub mod snapshot;

#[expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "the edge is where connections are accepted")]
pub mod edge;
pub mod routing;
pub mod config;
pub mod upstream;

#[expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "the control plane does I/O, and it waits")]
pub mod control;
