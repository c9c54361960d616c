//! Evidence: what the gateway tells of its work, in numbers ([`metrics`]), a line per request and a program log.
//!
//! Nothing in here decides anything about a request, and nothing in here makes a request wait: counters are relaxed
//! atomics, log lines are handed over in batches and dropped, and counted, when their destination does not keep up.

mod label;

pub mod access_log;
pub mod metrics;
