//! What every request and response undergoes, whatever its route says: not configurable, so not a policy.
//!
//! Each function reads a field map or changes it in place; none of them decides whether a request goes on. They run for
//! every request: none allocates beyond the values that it writes, and what a connection has once is made once.

pub mod client_address;
pub mod forwarding;
pub mod hop_by_hop;
pub mod request_id;
pub mod trace_context;
