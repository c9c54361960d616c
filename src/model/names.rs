//! What a setting of a policy may name, and only the whole configuration knows: upstreams and files.

use bytes::Bytes;

use super::diagnostic::Diagnostics;
use super::source::Spanned;

/// Finds what settings name. Each of the two pushes its own error when there is no such thing.
pub trait Names {
    /// The index of an upstream in the snapshot, by its name or address.
    fn upstream(&self, written: &Spanned<String>, diagnostics: &mut Diagnostics) -> Option<usize>;
    /// The content of a file.
    fn file(&self, written: &Spanned<String>, diagnostics: &mut Diagnostics) -> Option<Bytes>;
}
