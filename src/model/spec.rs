//! Documents that describe an API or a schema, read into values with the places where everything was written.
//!
//! `config::load` reads them and whatever files they refer to; policies compile them without asking for a file.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::diagnostic::Diagnostic;
use super::source::{SourceSpan, Spanned};

/// One file.
#[derive(Debug, Clone)]
pub struct SpecFile {
    /// Path for display.
    pub path: Arc<str>,
    /// Whole text: what is equal needs no new compilation.
    pub text: Arc<str>,
    /// What it says; numbers as exact as 64 bits are.
    pub value: Value,
    /// Where.
    pub places: Places,
    /// The other files that it refers to, by the reference without its fragment: their index, or why there is none.
    pub links: HashMap<String, Result<usize, String>>,
    /// What is wrong with its form. Such a file can't be used.
    pub problems: Vec<Diagnostic>,
}

/// Where the parts of a file stand, by JSON Pointer.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// Index of the file in `Sources`.
    pub file: u32,
    /// First byte and one past the last.
    pub spans: HashMap<String, (u32, u32)>,
}

impl Places {
    /// The place of `pointer`, or of the nearest part around it.
    #[must_use]
    pub fn span(&self, pointer: &str) -> SourceSpan {
        let mut pointer = pointer;
        loop {
            if let Some((start, end)) = self.spans.get(pointer) {
                return SourceSpan { file: self.file, start: *start, end: *end };
            }
            match pointer.rsplit_once('/') {
                Some((around, _)) => pointer = around,
                None => return SourceSpan { file: self.file, start: 0, end: 0 },
            }
        }
    }
}

/// All such files of a configuration.
#[derive(Debug, Clone, Default)]
pub struct Specs {
    /// The files.
    pub files: Vec<Arc<SpecFile>>,
    /// Those that settings name, by the setting's file and the path as written: their index, or why there is none.
    pub roots: HashMap<(u32, String), Result<usize, String>>,
}

impl Specs {
    /// The index of the file that a setting names, unless it is broken; what is wrong is pushed then.
    pub fn require(&self, path: &Spanned<String>, diagnostics: &mut super::diagnostic::Diagnostics) -> Option<usize> {
        match self.roots.get(&(path.span.file, path.value.clone())) {
            Some(Ok(index)) => {
                let file = self.files.get(*index)?;
                diagnostics.extend(file.problems.iter().cloned());
                file.problems.is_empty().then_some(*index)
            }
            Some(Err(why)) => {
                diagnostics.push(Diagnostic::error("unreadable_file", path.span, why.clone()));
                None
            }
            None => {
                diagnostics.push(Diagnostic::error("unreadable_file", path.span, "the file was not read"));
                None
            }
        }
    }

    /// The files that the one of index `root` refers to, directly or through others; itself first.
    #[must_use]
    pub fn reach(&self, root: usize) -> Vec<usize> {
        let mut reached = vec![root];
        let mut next = 0;
        while let Some(file) = reached.get(next).and_then(|index| self.files.get(*index)) {
            next += 1;
            let mut linked: Vec<usize> = file.links.values().filter_map(|link| link.as_ref().ok().copied()).collect();
            linked.sort_unstable();
            for index in linked {
                if !reached.contains(&index) {
                    reached.push(index);
                }
            }
        }
        reached
    }
}
