//! From the files that an operator wrote to typed settings, with every mistake reported at its place.
//!
//! The steps, each pure except the first: [`load`] reads files into [`node::Node`] trees and resolves `${env:}` and
//! `${file:}`; [`walk`] checks a tree against the schema of a type, all errors at once; [`de`] reads the type from it,
//! places included; [`render`] shows what was found. [`read`] is the middle two in a row, and [`mod@reference`] writes the
//! manual from the same schema.
//!
//! It does not decide what a setting means: that is the policies' part and `snapshot`'s.

pub mod assets;
mod bounds;
mod choice;
pub mod de;
pub mod document;
pub mod json;
pub mod load;
pub mod merge;
pub mod node;
pub mod reference;
pub mod render;
pub mod schema;
pub mod secrets;
pub mod spec;
pub mod toml;
pub mod walk;
pub mod yaml;

use serde::de::DeserializeOwned;

use load::Loaded;
use schema::DocumentSchema;

use crate::model::diagnostic::Diagnostics;

/// Reads the document, whose schema is `schema`, from what was loaded; what is wrong with its form is in
/// `loaded.diagnostics` then, all of it.
///
/// A document with mistakes is read without the settings that have them, so that mistakes of meaning can be reported
/// together with those of form; it must not come into force. `None` when not even that is possible.
pub fn read<T: DeserializeOwned>(loaded: &mut Loaded, schema: &DocumentSchema) -> Option<T> {
    walk::check(&loaded.root, schema, loaded.partial, &mut loaded.diagnostics);
    if loaded.partial {
        return None;
    }
    if loaded.diagnostics.has_errors() {
        let wrong: Vec<_> = loaded.diagnostics.as_slice().iter().filter_map(|finding| finding.span).collect();
        return de::from_node(&loaded.root.without(&wrong)).ok();
    }
    de::from_node(&loaded.root).map_err(|diagnostic| loaded.diagnostics.push(diagnostic)).ok()
}

/// Reads a further file of the configuration, whose schema is `schema`; `None` when its form is wrong, which is then in
/// `diagnostics`.
pub fn read_further<T: DeserializeOwned>(
    root: &node::Node,
    schema: &DocumentSchema,
    diagnostics: &mut Diagnostics,
) -> Option<T> {
    let errors = diagnostics.errors();
    walk::check(root, schema, false, diagnostics);
    if diagnostics.errors() > errors {
        return None;
    }
    de::from_node(root).map_err(|diagnostic| diagnostics.push(diagnostic)).ok()
}

#[cfg(test)]
mod tests;
