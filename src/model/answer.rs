//! A response that the gateway gives of its own accord, without an upstream and without a refusal: a redirect, a fixed
//! response, a CORS preflight.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

/// Status, fields and the whole body. Framing fields are the engine's; to `HEAD` it sends no body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Fields.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}
