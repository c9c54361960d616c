//! The files that a document names and a compile step needs: certificates, keys, bodies of responses.
//!
//! `load` reads them before the compile step, which stays free of I/O and finds them here by the setting that named them.

use std::collections::HashMap;

use bytes::Bytes;

use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::source::Spanned;
use crate::model::spec::Specs;

/// Contents of files, or why there is none, by the path as written and the source file it was written in.
#[derive(Debug, Clone, Default)]
pub struct Assets {
    contents: HashMap<(u32, String), Result<Bytes, String>>,
    /// API descriptions and schemas, already read into values.
    pub specs: Specs,
}

impl Assets {
    /// Sets the content of the file that `path` names, or why it could not be read.
    pub fn insert(&mut self, path: &Spanned<String>, content: Result<Bytes, String>) {
        self.contents.insert((path.span.file, path.value.clone()), content);
    }

    /// The content of the file that `path` names; the error says why there is none.
    pub fn get(&self, path: &Spanned<String>) -> Result<&Bytes, &str> {
        match self.contents.get(&(path.span.file, path.value.clone())) {
            Some(content) => content.as_ref().map_err(String::as_str),
            None => Err("the file was not read"),
        }
    }

    /// Like [`Assets::get`]; a file that could not be read is an error at the setting.
    pub fn require(&self, path: &Spanned<String>, diagnostics: &mut Diagnostics) -> Option<&Bytes> {
        self.get(path).map_err(|why| diagnostics.push(Diagnostic::error("unreadable_file", path.span, why))).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::source::SourceSpan;

    #[test]
    fn an_asset_belongs_to_the_file_that_names_it() {
        let path = |file| Spanned::new("a.pem".to_owned(), SourceSpan { file, start: 0, end: 1 });
        let mut assets = Assets::default();
        assets.insert(&path(0), Ok(Bytes::from_static(b"x")));
        assets.insert(&path(1), Err("no such file: a.pem".to_owned()));
        let mut diagnostics = Diagnostics::default();
        assert_eq!(assets.require(&path(0), &mut diagnostics), Some(&Bytes::from_static(b"x")));
        assert_eq!(assets.require(&path(1), &mut diagnostics), None);
        assert_eq!(diagnostics.as_slice().first().map(|d| d.message.as_str()), Some("no such file: a.pem"));
    }
}
