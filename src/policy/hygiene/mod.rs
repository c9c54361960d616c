//! What every request and response undergoes, whatever its route: not configurable, so not a policy, but a stage's work.
//!
//! Each function changes a field map in place or reads one; none of them decides whether a request goes on.

pub mod client_address;
pub mod forwarding;
pub mod hop_by_hop;
pub mod request_id;
pub mod trace_context;
