//! Where a setting stands in the files that the operator wrote.
//!
//! [`Spanned`] carries a value together with its place, so that an error can underline it and `explain` can name it.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};

/// A range of bytes in one of the [`Sources`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SourceSpan {
    /// Index of the file in [`Sources`].
    pub file: u32,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl SourceSpan {
    /// The piece of `text` (the file's whole text) that it names.
    #[must_use]
    pub fn slice(self, text: &str) -> Option<&str> {
        text.get(usize::try_from(self.start).ok()?..usize::try_from(self.end).ok()?)
    }
}

/// The texts of all files that one configuration was read from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    files: Vec<SourceFile>,
}

/// One file: the path as the operator would name it, and its text.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Path for display.
    pub path: Arc<str>,
    /// Whole text.
    pub text: Arc<str>,
}

impl Sources {
    /// Adds a file and returns its index for [`SourceSpan::file`].
    pub fn add(&mut self, path: impl Into<Arc<str>>, text: impl Into<Arc<str>>) -> u32 {
        self.files.push(SourceFile { path: path.into(), text: text.into() });
        u32::try_from(self.files.len() - 1).unwrap_or(u32::MAX)
    }

    /// The file of that index.
    #[must_use]
    pub fn get(&self, file: u32) -> Option<&SourceFile> {
        self.files.get(usize::try_from(file).ok()?)
    }

    /// All files in the order of their indices.
    #[must_use]
    pub fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// The place of `span` as `file:line:column`, both counted from one; the column counts characters.
    #[must_use]
    pub fn origin(&self, span: SourceSpan) -> Origin {
        let Some(file) = self.get(span.file) else { return Origin::default() };
        let start = usize::try_from(span.start).unwrap_or(usize::MAX).min(file.text.len());
        let before = file.text.get(..start).unwrap_or(&file.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.get(line_start..).map_or(0, |prefix| prefix.chars().count()) + 1;
        Origin {
            file: Arc::clone(&file.path),
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: u32::try_from(column).unwrap_or(u32::MAX),
        }
    }
}

/// `file:line:column` of a setting. A default that nobody wrote has line 0 and shows as `default`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize)]
pub struct Origin {
    /// Path for display; empty for a built-in default.
    pub file: Arc<str>,
    /// Line, from 1; 0 for a built-in default.
    pub line: u32,
    /// Column in characters, from 1; 0 for a built-in default.
    pub column: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return f.write_str("default");
        }
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A value and where it was written. Equality looks at the value alone: a comment added above moves no setting.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub span: SourceSpan,
}

impl<T> Spanned<T> {
    /// A value that was written at `span`.
    pub const fn new(value: T, span: SourceSpan) -> Self {
        Self { value, span }
    }
}

/// A value that nobody wrote: a built-in default, or one made by a test.
impl<T> From<T> for Spanned<T> {
    fn from(value: T) -> Self {
        Self::new(value, SourceSpan::default())
    }
}

impl<T: PartialEq> PartialEq for Spanned<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for Spanned<T> {}

impl<T> std::ops::Deref for Spanned<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Serialize> Serialize for Spanned<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl<T: JsonSchema> JsonSchema for Spanned<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }
    fn schema_id() -> std::borrow::Cow<'static, str> {
        T::schema_id()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// The newtype name by which a [`Spanned`] asks the document's deserializer for a place beside the value: it answers with
/// a map of [`SPANNED_FIELDS`]. Another format hands over the bare value, whose place is then the default.
pub const SPANNED_STRUCT: &str = "$portcullis::Spanned";
/// The keys of the answer to [`SPANNED_STRUCT`], in the order in which the deserializer yields them.
pub const SPANNED_FIELDS: [&str; 4] = ["$file", "$start", "$end", "$value"];

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Spanned<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SpannedVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for SpannedVisitor<T> {
            type Value = Spanned<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value with its place")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Spanned<T>, A::Error> {
                let mut span = SourceSpan::default();
                let mut value = None;
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "$file" => span.file = map.next_value()?,
                        "$start" => span.start = map.next_value()?,
                        "$end" => span.end = map.next_value()?,
                        "$value" => value = Some(map.next_value()?),
                        other => return Err(de::Error::custom(format!("unexpected field {other}"))),
                    }
                }
                let value = value.ok_or_else(|| de::Error::missing_field("$value"))?;
                Ok(Spanned { value, span })
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Spanned<T>, D::Error> {
                T::deserialize(deserializer).map(|value| Spanned { value, span: SourceSpan::default() })
            }
        }

        deserializer.deserialize_newtype_struct(SPANNED_STRUCT, SpannedVisitor(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_counts_lines_and_characters_from_one() {
        let mut sources = Sources::default();
        let file = sources.add("a.toml", "first\nsécond = 1\n");
        let start = u32::try_from("first\nsécond = ".len()).expect("short");
        let origin = sources.origin(SourceSpan { file, start, end: start + 1 });
        assert_eq!(origin.to_string(), "a.toml:2:10");
    }

    #[test]
    fn an_unknown_file_is_a_default() {
        assert_eq!(Sources::default().origin(SourceSpan::default()).to_string(), "default");
    }
}
