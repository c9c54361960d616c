//! What runs beside the requests: it changes what they find, and never makes one wait.

pub mod admin;
pub mod application;
pub mod dns;
mod keys;
pub mod configuration;
pub mod limits;
pub mod probes;
pub mod supervisor;
pub mod watch;
