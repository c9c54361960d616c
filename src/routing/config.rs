//! What an operator writes after `match =`. Only the shape; what it means is compiled in `pattern` and `condition`.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::model::source::{SourceSpan, Spanned};

/// Which requests a route takes: `"host/path"`, or a table for everything else.
///
/// The most specific of the matching routes gets the request, whatever their order in the file: exact host before
/// longest wildcard host before any host; then exact path before longest prefix before expression; then a named
/// method before any; then the one with more header conditions; then with more query conditions; then the name's
/// alphabetical order. Two routes with the same conditions are an error.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum MatchConfig {
    /// `"api.example.com/orders/*"`, `"*.example.com/*"`, or `"/static/*"` for any host.
    Short(String),
    /// All the conditions by name; a request has to meet each of them.
    Table(MatchTable),
}

/// The conditions of a route. What is not written is not asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MatchTable {
    /// The request's host, without its port: exact (`"api.example.com"`), a wildcard for one or more labels
    /// (`"*.example.com"`, which is not `example.com` itself), or a list of these. Default: any host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Spanned<OneOrMany>>,
    /// The path after normalisation: exact (`"/orders"`), or a prefix of whole segments (`"/orders/*"`, which also
    /// takes `/orders`). Default: `"/*"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Spanned<String>>,
    /// A regular expression for the whole path after normalisation, instead of `path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_regex: Option<Spanned<String>>,
    /// One method or a list. `GET` also takes `HEAD`, unless another route names `HEAD`. Default: any method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Spanned<OneOrMany>>,
    /// Conditions on header fields, by name. A field that came in several lines meets one when any line does.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub header: BTreeMap<String, Spanned<ValueConfig>>,
    /// Conditions on query parameters, by name, both percent-decoded. A repeated one meets it when any value does.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, Spanned<ValueConfig>>,
}

/// One text or a list of them.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany {
    /// A single one.
    One(String),
    /// Any one of these.
    Many(Vec<Spanned<String>>),
}

/// What a header field or query parameter has to be: this very text, or a table.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum ValueConfig {
    /// Exactly this text.
    Exact(String),
    /// An expression, or presence.
    Test(ValueTable),
}

/// Exactly one of the two.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ValueTable {
    /// A regular expression for the whole value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<Spanned<String>>,
    /// `true`: any value will do; `false`: it must be absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub present: Option<Spanned<bool>>,
}

// `#[serde(untagged)]` would buffer the value and lose the places inside it; these forward to the shape that is there.

impl MatchConfig {
    /// What a route is called when nobody named it: host and path as they were written.
    #[must_use]
    pub fn summary(&self) -> String {
        match self {
            Self::Short(short) => short.clone(),
            Self::Table(table) => {
                let host = match table.host.as_ref().map(|hosts| &hosts.value) {
                    Some(OneOrMany::One(host)) => host,
                    Some(OneOrMany::Many(hosts)) => hosts.first().map_or("", |host| &*host.value),
                    None => "",
                };
                let path = table.path.as_ref().or(table.path_regex.as_ref()).map_or("/*", |path| &*path.value);
                format!("{host}{path}")
            }
        }
    }
}

impl<'de> Deserialize<'de> for MatchConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;

        impl<'de> Visitor<'de> for Shape {
            type Value = MatchConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"host/path\" or a table of conditions")
            }
            fn visit_str<E: Error>(self, short: &str) -> Result<MatchConfig, E> {
                Ok(MatchConfig::Short(short.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<MatchConfig, A::Error> {
                MatchTable::deserialize(MapAccessDeserializer::new(map)).map(MatchConfig::Table)
            }
        }

        deserializer.deserialize_any(Shape)
    }
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;

        impl<'de> Visitor<'de> for Shape {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }
            fn visit_str<E: Error>(self, one: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany::One(one.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<OneOrMany, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(OneOrMany::Many)
            }
        }

        deserializer.deserialize_any(Shape)
    }
}

impl<'de> Deserialize<'de> for ValueConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;

        impl<'de> Visitor<'de> for Shape {
            type Value = ValueConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, `{ regex = \"..\" }` or `{ present = true }`")
            }
            fn visit_str<E: Error>(self, exact: &str) -> Result<ValueConfig, E> {
                Ok(ValueConfig::Exact(exact.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ValueConfig, A::Error> {
                ValueTable::deserialize(MapAccessDeserializer::new(map)).map(ValueConfig::Test)
            }
        }

        deserializer.deserialize_any(Shape)
    }
}

impl OneOrMany {
    /// Each text with the narrowest place that is known of it, `whole` being the place of them all.
    pub(super) fn each(&self, whole: SourceSpan) -> Vec<Spanned<&str>> {
        match self {
            Self::One(one) => vec![Spanned::new(one.as_str(), whole)],
            Self::Many(list) => list.iter().map(|one| Spanned::new(one.as_str(), one.span)).collect(),
        }
    }
}
