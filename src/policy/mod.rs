//! x
pub mod access;
pub mod cors;
pub mod headers;
pub mod redirect;
pub mod respond;
pub mod rewrite;
pub mod timeout;
pub mod validate;
