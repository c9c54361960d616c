//! The compiled configuration: what the operator wrote, resolved into immutable values that a request can pin.

pub mod tls;
