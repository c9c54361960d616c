//! Portcullis: a reverse-proxy API gateway whose every decision can be explained, tested and audited.
//!
//! The modules stand in layer order: each may import only those above it (the table is in ARCHITECTURE.md and
//! `tests/architecture.rs` holds it up). Everything down to `pipeline` is pure: no socket, file or system clock.

pub mod model;
pub mod policy;
