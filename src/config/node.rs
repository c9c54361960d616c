//! The tree that every format is read into: values with the places where they were written.
//!
//! It knows neither the schema nor where the text came from. Depth is bounded by [`MAX_DEPTH`].

use std::fmt;
use std::ops::Range;

use crate::model::diagnostic::Diagnostic;
use crate::model::shape::Kind;
use crate::model::source::SourceSpan;

/// How deep tables and lists may nest.
pub const MAX_DEPTH: usize = 64;

/// A value and its place.
#[derive(Clone, PartialEq)]
pub struct Node {
    /// Where it was written. A TOML table's place is its header.
    pub span: SourceSpan,
    /// What was written; references to secrets are resolved in place.
    pub value: Value,
    /// Set when the string came (in part) from a secret.
    pub secret: Option<Box<Secret>>,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// YAML's and JSON's `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction or an exponent.
    Float(f64),
    /// A text.
    String(String),
    /// A list.
    Array(Vec<Node>),
    /// A table in the order of the file; keys are unique.
    Table(Vec<(Key, Node)>),
}

/// A key and its place.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// Without quotes.
    pub text: String,
    /// Where it was written.
    pub span: SourceSpan,
}

/// What is remembered of a string that refers to secrets. Its `Debug` shows the reference alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// The string as written, with its references.
    pub written: String,
    /// The values that the references stand for.
    pub values: Vec<String>,
    /// Whether every reference was found; if not, the string is not what was meant and nothing is said about it.
    pub resolved: bool,
}

/// What a parser made of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The tree, as far as it could be read.
    pub root: Node,
    /// Whether a syntax error cut something off: what is missing may have been written after all.
    pub partial: bool,
}

impl Node {
    /// A copy without the members whose key or value stands at one of these places.
    #[must_use]
    pub fn without(&self, places: &[SourceSpan]) -> Self {
        let stays = |span: SourceSpan| !places.contains(&span);
        let value = match &self.value {
            Value::Array(items) => {
                Value::Array(items.iter().filter(|item| stays(item.span)).map(|item| item.without(places)).collect())
            }
            Value::Table(members) => Value::Table(
                members
                    .iter()
                    .filter(|(key, value)| stays(key.span) && stays(value.span))
                    .map(|(key, value)| (key.clone(), value.without(places)))
                    .collect(),
            ),
            other => other.clone(),
        };
        Self { value, ..self.clone() }
    }

    /// A value at a place.
    #[must_use]
    pub const fn new(span: SourceSpan, value: Value) -> Self {
        Self { span, value, secret: None }
    }

    /// As what it was written.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self.value {
            Value::Null => Kind::Nothing,
            Value::Bool(_) => Kind::Bool,
            Value::Integer(_) | Value::Float(_) => Kind::Number,
            Value::String(_) => Kind::String,
            Value::Array(_) => Kind::Array,
            Value::Table(_) => Kind::Table,
        }
    }

    /// The entries of a table; none for anything else.
    #[must_use]
    pub fn entries(&self) -> &[(Key, Node)] {
        match &self.value {
            Value::Table(entries) => entries,
            _ => &[],
        }
    }

    /// The value of `key` in a table.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(name, _)| name.text == key).map(|(_, node)| node)
    }

    /// Whether it is YAML's and JSON's `null`.
    #[must_use]
    pub const fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// How a message names it: `integer 30`, `string "x"`, `a list`; a secret is named by its reference.
    #[must_use]
    pub fn words(&self) -> String {
        match (&self.value, &self.secret) {
            (Value::Bool(value), _) => format!("boolean {value}"),
            (Value::Integer(value), _) => format!("integer {value}"),
            (Value::Float(value), _) => format!("number {value}"),
            (Value::String(_), Some(secret)) => format!("string {:?}", shortened(&secret.written)),
            (Value::String(value), None) => format!("string {:?}", shortened(value)),
            (Value::Null | Value::Array(_) | Value::Table(_), _) => self.kind().word().to_owned(),
        }
    }
}

/// At most forty characters of `text`, for a message.
#[must_use]
pub fn shortened(text: &str) -> std::borrow::Cow<'_, str> {
    match text.char_indices().nth(40) {
        Some((cut, _)) => format!("{}…", text.get(..cut).unwrap_or_default()).into(),
        None => text.into(),
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.secret {
            Some(secret) => secret.fmt(f),
            None => self.value.fmt(f),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<redacted {}>", self.written)
    }
}

/// The text of one file while it is parsed: every place that leaves a parser goes through [`Text::span`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a> {
    pub(super) text: &'a str,
    pub(super) file: u32,
}

impl Text<'_> {
    /// The place of `range`, cut to the text and widened to whole characters.
    pub(super) fn span(self, range: &Range<usize>) -> SourceSpan {
        let mut start = range.start.min(self.text.len());
        while !self.text.is_char_boundary(start) {
            start -= 1;
        }
        let mut end = range.end.clamp(start, self.text.len());
        while !self.text.is_char_boundary(end) {
            end += 1;
        }
        let narrow = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        SourceSpan { file: self.file, start: narrow(start), end: narrow(end) }
    }

    /// A syntax error.
    pub(super) fn syntax(self, range: &Range<usize>, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error("syntax", self.span(range), message)
    }

    /// What lies deeper than [`MAX_DEPTH`].
    pub(super) fn too_deep(self, range: &Range<usize>) -> Diagnostic {
        Diagnostic::error("too_deep", self.span(range), format!("nested deeper than {MAX_DEPTH} levels"))
    }
}

/// Adds an entry to a table unless its key is there already, which is an error that names both places.
pub(super) fn insert_unique(
    entries: &mut Vec<(Key, Node)>,
    seen: &mut std::collections::HashMap<String, SourceSpan>,
    key: Key,
    node: Node,
) -> Option<Diagnostic> {
    if let Some(first) = seen.get(&key.text) {
        return Some(duplicate_key(&key, Some(*first)));
    }
    seen.insert(key.text.clone(), key.span);
    entries.push((key, node));
    None
}

/// The error for a key that is set twice in one table.
pub(super) fn duplicate_key(key: &Key, first: Option<SourceSpan>) -> Diagnostic {
    let duplicate = Diagnostic::error("duplicate_key", key.span, format!("`{}` is set twice", shortened(&key.text)));
    match first {
        Some(first) => duplicate.related(first, "first set here"),
        None => duplicate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_stays_within_the_text_and_on_whole_characters() {
        let text = Text { text: "aé", file: 0 };
        let span = text.span(&(2..99));
        assert_eq!((span.start, span.end), (1, 3));
        let backwards = text.span(&std::ops::Range { start: 3, end: 1 });
        assert_eq!((backwards.start, backwards.end), (3, 3));
    }

    #[test]
    fn a_secret_is_shown_by_its_reference() {
        let secret = Secret { written: "${env:T}".to_owned(), values: vec!["hush".to_owned()], resolved: true };
        let node = Node {
            secret: Some(Box::new(secret)),
            ..Node::new(SourceSpan::default(), Value::String("hush".to_owned()))
        };
        assert_eq!(format!("{node:?} {}", node.words()), "<redacted ${env:T}> string \"${env:T}\"");
    }
}
