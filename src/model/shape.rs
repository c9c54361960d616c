//! Settings that may be written in more than one shape: `key = "text"` or `key = { … }`, one or a list of them.
//!
//! `#[serde(untagged)]` and `#[serde(flatten)]` copy the value into a buffer of serde's own, which has no places: every
//! [`Spanned`](super::source::Spanned) below them would lose where it was written, and a mistake inside would become
//! "matches no variant". The types here ask the document for the same setting several times instead ([`REPEATED`]) and
//! choose by the [`Kind`] that was written, so that places survive and a mistake is reported where it is.
//!
//! An enum of one's own follows with one line (see [`deserialize_by_kind!`](crate::deserialize_by_kind)); its
//! `JsonSchema` stays derived with `#[serde(untagged)]` or `#[schemars(untagged)]`.

use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Serialize, Serializer};

/// The newtype name by which a type asks the document's deserializer for the same setting as often as it likes: it is
/// answered by a sequence whose every element is that setting.
pub const REPEATED: &str = "$portcullis::Repeated";

/// As what a setting was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// YAML's and JSON's `null`.
    Nothing,
    /// `true` or `false`.
    Bool,
    /// With or without a fraction.
    Number,
    /// A text.
    String,
    /// A list.
    Array,
    /// A table of keys.
    Table,
}

impl Kind {
    /// The word in messages.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Bool => "a boolean",
            Self::Number => "a number",
            Self::String => "a string",
            Self::Array => "a list",
            Self::Table => "a table",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A type that decides by the kind of the written setting what to read it as.
pub trait ByKind<'de>: Sized {
    /// Reads `written`; a kind that is none of the type's is refused with [`Written::refuse`].
    fn by_kind<S: SeqAccess<'de>>(kind: Kind, written: Written<S>) -> Result<Self, S::Error>;
}

/// One setting, to be read as one type or another.
#[derive(Debug)]
pub struct Written<S>(S);

impl<'de, S: SeqAccess<'de>> Written<S> {
    /// Reads it as `T`. It can be read again, whether that succeeded or not.
    pub fn read<T: Deserialize<'de>>(&mut self) -> Result<T, S::Error> {
        self.0.next_element()?.ok_or_else(|| de::Error::custom("the setting can't be read again"))
    }

    /// The error for a kind that the type does not take.
    pub fn refuse(&self, kind: Kind, expected: &str) -> S::Error {
        de::Error::custom(format_args!("expected {expected}, found {kind}"))
    }
}

/// The body of `Deserialize` for a [`ByKind`] type.
pub fn by_kind<'de, T: ByKind<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct Chosen<T>(PhantomData<T>);

    impl<'de, T: ByKind<'de>> Repeated<'de> for Chosen<T> {
        type Value = T;
        fn read<S: SeqAccess<'de>>(self, mut written: Written<S>) -> Result<T, S::Error> {
            let kind = written.read()?;
            T::by_kind(kind, written)
        }
    }

    deserializer.deserialize_newtype_struct(REPEATED, RepeatedVisitor(Chosen(PhantomData)))
}

/// Implements `Deserialize` for an enum whose variants are told apart by the kind of what was written.
///
/// ```ignore
/// deserialize_by_kind!(MatchConfig, "a pattern or a table" { String => Short, Table => Full });
/// ```
#[macro_export]
macro_rules! deserialize_by_kind {
    ($type:ident, $expected:literal { $($kind:ident => $variant:ident),+ $(,)? }) => {
        impl<'de> $crate::model::shape::ByKind<'de> for $type {
            fn by_kind<S: ::serde::de::SeqAccess<'de>>(
                kind: $crate::model::shape::Kind,
                mut written: $crate::model::shape::Written<S>,
            ) -> Result<Self, S::Error> {
                match kind {
                    $($crate::model::shape::Kind::$kind => written.read().map(Self::$variant),)+
                    other => Err(written.refuse(other, $expected)),
                }
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $type {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::model::shape::by_kind(deserializer)
            }
        }
    };
}
pub use deserialize_by_kind;

/// One or a list of them: `methods = "GET"` or `methods = ["GET", "POST"]`. `T` itself is not a list.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> std::ops::Deref for OneOrMany<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> ByKind<'de> for OneOrMany<T> {
    fn by_kind<S: SeqAccess<'de>>(kind: Kind, mut written: Written<S>) -> Result<Self, S::Error> {
        match kind {
            Kind::Array => written.read().map(Self),
            _ => Ok(Self(vec![written.read()?])),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        by_kind(deserializer)
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("{}OneOrMany", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

/// One table read as two structs, each of which takes its own keys: what `#[serde(flatten)]` would be if it kept places.
/// Both are written as tables and share no key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Both<A, B> {
    /// The keys of the first struct.
    pub first: A,
    /// The keys of the second struct.
    pub second: B,
}

impl<'de, A: Deserialize<'de>, B: Deserialize<'de>> Deserialize<'de> for Both<A, B> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pair<A, B>(PhantomData<(A, B)>);

        impl<'de, A: Deserialize<'de>, B: Deserialize<'de>> Repeated<'de> for Pair<A, B> {
            type Value = Both<A, B>;
            fn read<S: SeqAccess<'de>>(self, mut written: Written<S>) -> Result<Self::Value, S::Error> {
                Ok(Both { first: written.read()?, second: written.read()? })
            }
        }

        deserializer.deserialize_newtype_struct(REPEATED, RepeatedVisitor(Pair(PhantomData)))
    }
}

impl<A: Serialize, B: Serialize> Serialize for Both<A, B> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let table = |value: Result<serde_json::Value, serde_json::Error>| match value {
            Ok(serde_json::Value::Object(table)) => Ok(table),
            Ok(_) => Err(serde::ser::Error::custom("only a table has two halves")),
            Err(error) => Err(serde::ser::Error::custom(error)),
        };
        let mut all = table(serde_json::to_value(&self.first))?;
        all.extend(table(serde_json::to_value(&self.second))?);
        all.serialize(serializer)
    }
}

impl<A: JsonSchema, B: JsonSchema> JsonSchema for Both<A, B> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("{}With{}", A::schema_name(), B::schema_name()).into()
    }

    fn schema_id() -> std::borrow::Cow<'static, str> {
        format!("{}With{}", A::schema_id(), B::schema_id()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut merged = A::json_schema(generator);
        let mut other = B::json_schema(generator);
        for list in ["properties", "required"] {
            let Some(added) = other.remove(list) else { continue };
            match (merged.get_mut(list), added) {
                (Some(serde_json::Value::Object(old)), serde_json::Value::Object(new)) => old.extend(new),
                (Some(serde_json::Value::Array(old)), serde_json::Value::Array(new)) => old.extend(new),
                (_, added) => {
                    merged.insert(list.to_owned(), added);
                }
            }
        }
        merged
    }
}

/// What is done with a setting that can be read several times.
trait Repeated<'de> {
    type Value;
    fn read<S: SeqAccess<'de>>(self, written: Written<S>) -> Result<Self::Value, S::Error>;
}

struct RepeatedVisitor<R>(R);

impl<'de, R: Repeated<'de>> Visitor<'de> for RepeatedVisitor<R> {
    type Value = R::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a setting")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, seq: S) -> Result<R::Value, S::Error> {
        self.0.read(Written(seq))
    }

    // A format that does not know `REPEATED` (serde_json, in an API or a test) ends here: no places, but the same value.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<R::Value, D::Error> {
        let copy = serde_json::Value::deserialize(deserializer)?;
        self.0.read(Written(Copied { copy, error: PhantomData }))
    }
}

struct Copied<E> {
    copy: serde_json::Value,
    error: PhantomData<E>,
}

impl<'de, E: de::Error> SeqAccess<'de> for Copied<E> {
    type Error = E;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, E> {
        seed.deserialize(self.copy.clone()).map(Some).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KindVisitor;

        impl<'de> Visitor<'de> for KindVisitor {
            type Value = Kind;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a setting")
            }
            fn visit_unit<E>(self) -> Result<Kind, E> {
                Ok(Kind::Nothing)
            }
            fn visit_bool<E>(self, _: bool) -> Result<Kind, E> {
                Ok(Kind::Bool)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Kind, E> {
                Ok(Kind::Number)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Kind, E> {
                Ok(Kind::Number)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Kind, E> {
                Ok(Kind::Number)
            }
            fn visit_str<E>(self, _: &str) -> Result<Kind, E> {
                Ok(Kind::String)
            }
            fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Kind, S::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Kind::Array)
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Kind, M::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Kind::Table)
            }
        }

        deserializer.deserialize_any(KindVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::source::Spanned;
    use crate::model::toggle::{OrOff, Toggle};

    #[derive(Debug, PartialEq, serde::Deserialize, Default, Clone)]
    struct Settings {
        limit: Spanned<u32>,
    }

    #[derive(Debug, PartialEq)]
    enum Short {
        Text(Spanned<String>),
        Full(Settings),
    }
    deserialize_by_kind!(Short, "a string or a table" { String => Text, Table => Full });

    fn limit(value: u32) -> Settings {
        Settings { limit: Spanned::new(value, crate::model::source::SourceSpan::default()) }
    }

    #[track_caller]
    fn check<T: serde::de::DeserializeOwned + PartialEq + fmt::Debug>(json: &str, expected: Result<T, &str>) {
        match (serde_json::from_str::<T>(json), expected) {
            (Ok(value), Ok(expected)) => assert_eq!(value, expected),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (value, expected) => panic!("{value:?} is not {expected:?}"),
        }
    }

    #[test]
    fn every_shape_reads_from_a_format_without_places() {
        check(r#"{"limit": 3}"#, Ok(Short::Full(limit(3))));
        check(r#""x""#, Ok(Short::Text(Spanned::new("x".to_owned(), crate::model::source::SourceSpan::default()))));
        check::<Short>("3", Err("expected a string or a table, found a number"));
        check(r#"{"limit": 3}"#, Ok(OrOff::Set(limit(3))));
        check("false", Ok(OrOff::<Settings>::Off(crate::model::toggle::False)));
        check::<OrOff<Settings>>("true", Err("expected `false` or settings"));
        check("true", Ok(Toggle::<Settings>::Switch(true)));
        check::<Toggle<Settings>>(r#"{"limit": -1}"#, Err("-1"));
        check("[1, 2]", Ok(OneOrMany(vec![1, 2])));
        check("1", Ok(OneOrMany(vec![1])));
    }

    #[test]
    fn both_takes_each_half_and_shows_them_as_one_table() {
        #[derive(Debug, PartialEq, serde::Deserialize, Serialize)]
        struct Name {
            name: String,
        }
        #[derive(Debug, PartialEq, serde::Deserialize, Serialize)]
        struct Size {
            size: u8,
        }
        let json = r#"{"name":"a","size":2}"#;
        let both: Both<Name, Size> = serde_json::from_str(json).expect("both halves are there");
        assert_eq!((both.first.name.as_str(), both.second.size), ("a", 2));
        assert_eq!(serde_json::to_string(&both).expect("two tables"), json);
    }
}
