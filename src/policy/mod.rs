//! x
pub mod access;
pub mod cors;
pub mod respond;
pub mod timeout;
pub mod validate;
