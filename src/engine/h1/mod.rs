//! HTTP/1 (RFC 9112): heads taken apart, and bodies in and out of their framing. No waiting here and no decision: bytes in,
//! values out.

pub mod body;
pub mod chunks;
pub mod head;
