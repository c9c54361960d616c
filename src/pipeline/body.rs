//! The rules for a request's body on its way through.

/// What bounds a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyRules {
    /// Most bytes; `None` is no bound.
    pub max: Option<u64>,
    /// Whether the client must keep `min_body_rate`; streams that live on silence are exempt.
    pub paced: bool,
}
