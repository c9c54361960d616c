//! What runs beside the requests: it changes what they find, and never makes one wait.

pub mod dns;
