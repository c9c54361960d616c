//! `key = false`, `key = true` or `key = { … }`: how a policy is switched off, on with its defaults, or set.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::SeqAccess;
use serde::{Deserialize, Deserializer, Serialize};

use super::shape::{self, ByKind, Kind, Written};

/// A policy key on a route: `false` switches an inherited policy off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum OrOff<T> {
    /// `false`; `true` is refused by the policy's compile step unless it has defaults for everything ([`Toggle`]).
    Off(False),
    /// The settings.
    Set(T),
}

/// Like [`OrOff`], for a policy whose every setting has a default: `true` switches it on with them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Toggle<T> {
    /// `true` or `false`.
    Switch(bool),
    /// The settings.
    Set(T),
}

/// The literal `false`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct False;

impl Serialize for False {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bool(false)
    }
}

impl<'de> Deserialize<'de> for False {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if bool::deserialize(deserializer)? {
            return Err(serde::de::Error::custom("expected `false` or settings"));
        }
        Ok(Self)
    }
}

impl JsonSchema for False {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "False".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "const": false })
    }
}

impl<'de, T: Deserialize<'de>> ByKind<'de> for OrOff<T> {
    fn by_kind<S: SeqAccess<'de>>(kind: Kind, mut written: Written<S>) -> Result<Self, S::Error> {
        match kind {
            Kind::Bool => written.read().map(Self::Off),
            _ => written.read().map(Self::Set),
        }
    }
}

impl<'de, T: Deserialize<'de>> ByKind<'de> for Toggle<T> {
    fn by_kind<S: SeqAccess<'de>>(kind: Kind, mut written: Written<S>) -> Result<Self, S::Error> {
        match kind {
            Kind::Bool => written.read().map(Self::Switch),
            _ => written.read().map(Self::Set),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OrOff<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        shape::by_kind(deserializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Toggle<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        shape::by_kind(deserializer)
    }
}

impl<T: JsonSchema> JsonSchema for OrOff<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("{}OrOff", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "const": false }, generator.subschema_for::<T>()] })
    }
}

impl<T: JsonSchema> JsonSchema for Toggle<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("{}Toggle", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "boolean" }, generator.subschema_for::<T>()] })
    }
}

impl<T> OrOff<T> {
    /// The settings, unless it is off.
    pub const fn as_set(&self) -> Option<&T> {
        match self {
            Self::Off(False) => None,
            Self::Set(settings) => Some(settings),
        }
    }
}

impl<T: Default + Clone> Toggle<T> {
    /// The settings (the defaults for `true`), unless it is off.
    pub fn resolved(&self) -> Option<T> {
        match self {
            Self::Switch(true) => Some(T::default()),
            Self::Switch(false) => None,
            Self::Set(settings) => Some(settings.clone()),
        }
    }
}
