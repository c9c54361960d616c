//! Reads a type from a tree, handing places to every [`Spanned`](crate::model::source::Spanned) on the way.
//!
//! Keys that a struct does not know are passed over: [`walk`](super::walk) finds them. The first value that a type
//! refuses ends the reading, with its place; a secret is never quoted.
//!
//! Two protocols go beyond serde's: the newtype names [`SPANNED_STRUCT`] (a map of the place and the value) and
//! [`REPEATED`] (a sequence of the same value again and again, see `model::shape`).

use std::fmt;

use serde::de::value::{StrDeserializer, U32Deserializer};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, Unexpected, VariantAccess,
    Visitor,
};

use super::node::{Key, Node, Value};
use super::secrets;
use crate::model::diagnostic::Diagnostic;
use crate::model::shape::REPEATED;
use crate::model::source::{SPANNED_FIELDS, SPANNED_STRUCT, SourceSpan};

/// Reads `T` from `node`.
///
/// A table may be read into several structs, each of which takes its own keys (see also `model::shape::Both`).
pub fn from_node<T: DeserializeOwned>(node: &Node) -> Result<T, Diagnostic> {
    T::deserialize(NodeDeserializer { node }).map_err(|error| {
        let error = error.at(node);
        Diagnostic::error("bad_value", error.span.unwrap_or(node.span), error.message)
    })
}

/// Why a value was refused, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refused {
    message: String,
    span: Option<SourceSpan>,
}

impl Refused {
    /// Gives it the place of `node` unless a place further in is known, and takes the secrets of `node` out of it.
    fn at(self, node: &Node) -> Self {
        let message = match &node.secret {
            Some(secret) if self.span.is_none() => format!("the value of \"{}\" is not allowed here", secret.written),
            _ => secrets::scrub(self.message, node),
        };
        Self { message, span: self.span.or(Some(node.span)) }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refused {}

impl de::Error for Refused {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { message: message.to_string(), span: None }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::custom(format_args!("expected {expected}, found {found}"))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format_args!("`{field}` is missing"))
    }
}

#[derive(Clone, Copy)]
struct NodeDeserializer<'a> {
    node: &'a Node,
}

impl<'de> NodeDeserializer<'_> {
    fn any<V: Visitor<'de>>(self, visitor: V, skip_null: bool) -> Result<V::Value, Refused> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::String(text) => visitor.visit_str(text),
            Value::Array(items) => {
                let mut rest = Items { items: items.iter() };
                let value = visitor.visit_seq(&mut rest)?;
                match rest.items.len() {
                    0 => Ok(value),
                    more => Err(de::Error::custom(format_args!("a list of {more} items too many"))),
                }
            }
            Value::Table(entries) => visitor.visit_map(Entries { entries: entries.iter(), value: None, skip_null }),
        }
    }
}

impl<'de> Deserializer<'de> for NodeDeserializer<'_> {
    type Error = Refused;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.any(visitor, false).map_err(|error| error.at(self.node))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.any(visitor, true).map_err(|error| error.at(self.node))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        if self.node.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Refused> {
        let read = match name {
            SPANNED_STRUCT => visitor.visit_map(Place { node: self.node, next: 0 }),
            REPEATED => visitor.visit_seq(Again { node: self.node }),
            _ => visitor.visit_newtype_struct(self),
        };
        read.map_err(|error| error.at(self.node))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let read = match &self.node.value {
            Value::String(text) => visitor.visit_enum(StrDeserializer::<Refused>::new(text)),
            Value::Table(entries) => match entries.as_slice() {
                [(key, node)] => visitor.visit_enum(Variant { key, node }),
                _ => Err(de::Error::custom(format_args!("expected one key, found {}", entries.len()))),
            },
            _ => Err(de::Error::custom(format_args!("expected a string or a table, found {}", self.node.words()))),
        };
        read.map_err(|error| error.at(self.node))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier
    }
}

struct Items<'a> {
    items: std::slice::Iter<'a, Node>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        let Some(node) = self.items.next() else { return Ok(None) };
        seed.deserialize(NodeDeserializer { node }).map(Some).map_err(|error| error.at(node))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Entries<'a> {
    entries: std::slice::Iter<'a, (Key, Node)>,
    value: Option<&'a Node>,
    /// In a struct a `null` counts as not written; in a map of names it is a value.
    skip_null: bool,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refused> {
        for (key, node) in self.entries.by_ref() {
            if self.skip_null && node.is_null() {
                continue;
            }
            self.value = Some(node);
            return seed.deserialize(KeyDeserializer { key }).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Refused> {
        let node = self.value.take().ok_or_else(|| <Refused as de::Error>::custom("a value without a key"))?;
        seed.deserialize(NodeDeserializer { node }).map_err(|error| error.at(node))
    }
}

/// A key is a string, or whatever its text says in a map of numbers.
#[derive(Clone, Copy)]
struct KeyDeserializer<'a> {
    key: &'a Key,
}

impl KeyDeserializer<'_> {
    fn at(self, error: Refused) -> Refused {
        Refused { span: error.span.or(Some(self.key.span)), ..error }
    }

    fn number<T: std::str::FromStr>(self) -> Result<T, Refused> {
        let not_a_number = |_| self.at(de::Error::custom(format_args!("not a number in range: {:?}", self.key.text)));
        self.key.text.parse().map_err(not_a_number)
    }
}

macro_rules! number_keys {
    ($($method:ident $visit:ident),+) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
            visitor.$visit(self.number()?).map_err(|error| self.at(error))
        })+
    };
}

impl<'de> Deserializer<'de> for KeyDeserializer<'_> {
    type Error = Refused;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_str(&self.key.text).map_err(|error| self.at(error))
    }

    number_keys! {
        deserialize_u8 visit_u8, deserialize_u16 visit_u16, deserialize_u32 visit_u32, deserialize_u64 visit_u64,
        deserialize_i8 visit_i8, deserialize_i16 visit_i16, deserialize_i32 visit_i32, deserialize_i64 visit_i64
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Refused> {
        if name != SPANNED_STRUCT {
            return visitor.visit_newtype_struct(self);
        }
        let value = Node::new(self.key.span, Value::String(self.key.text.clone()));
        visitor.visit_map(Place { node: &value, next: 0 }).map_err(|error| self.at(error))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        visitor.visit_enum(StrDeserializer::<Refused>::new(&self.key.text)).map_err(|error| self.at(error))
    }

    serde::forward_to_deserialize_any! {
        bool i128 u128 f32 f64 char str string bytes byte_buf option unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

/// The answer to [`SPANNED_STRUCT`].
struct Place<'a> {
    node: &'a Node,
    next: usize,
}

impl<'de> MapAccess<'de> for Place<'_> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refused> {
        let Some(name) = SPANNED_FIELDS.get(self.next) else { return Ok(None) };
        seed.deserialize(StrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Refused> {
        let span = self.node.span;
        let number: Option<u32> = [span.file, span.start, span.end].get(self.next).copied();
        self.next += 1;
        match number {
            Some(number) => seed.deserialize(U32Deserializer::new(number)),
            None => seed.deserialize(NodeDeserializer { node: self.node }),
        }
    }
}

/// The answer to [`REPEATED`].
struct Again<'a> {
    node: &'a Node,
}

impl<'de> SeqAccess<'de> for Again<'_> {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        seed.deserialize(NodeDeserializer { node: self.node }).map(Some)
    }
}

/// An enum's variant written as a table of one key.
struct Variant<'a> {
    key: &'a Key,
    node: &'a Node,
}

impl<'a, 'de> EnumAccess<'de> for Variant<'a> {
    type Error = Refused;
    type Variant = NodeDeserializer<'a>;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self::Variant), Refused> {
        let name = seed.deserialize(KeyDeserializer { key: self.key })?;
        Ok((name, NodeDeserializer { node: self.node }))
    }
}

impl<'de> VariantAccess<'de> for NodeDeserializer<'_> {
    type Error = Refused;

    fn unit_variant(self) -> Result<(), Refused> {
        Err(Refused {
            span: Some(self.node.span),
            ..de::Error::custom("this choice takes no settings: write it as a string")
        })
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Refused> {
        seed.deserialize(self).map_err(|error| error.at(self.node))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_struct("", fields, visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use serde::Deserialize;

    use super::*;
    use crate::config::{toml, yaml};
    use crate::deserialize_by_kind;
    use crate::model::diagnostic::Diagnostics;
    use crate::model::shape::{Both, OneOrMany};
    use crate::model::source::Spanned;
    use crate::model::toggle::{OrOff, Toggle};
    use crate::model::units::Period;

    #[derive(Debug, Clone, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Limit {
        rate: Spanned<u32>,
        every: Option<Spanned<Period>>,
    }

    #[derive(Debug, PartialEq)]
    enum Pattern {
        Short(Spanned<String>),
        Full(Limit),
    }
    deserialize_by_kind!(Pattern, "a pattern or a table" { String => Short, Table => Full });

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Balance {
        Random,
        Hash(Spanned<String>),
        Weighted { weight: u8 },
    }

    fn read<T: DeserializeOwned>(text: &str) -> Result<T, Diagnostic> {
        let mut diagnostics = Diagnostics::default();
        let root = toml::parse(text, 7, &mut diagnostics).root;
        assert!(!diagnostics.has_errors(), "{diagnostics:?}");
        from_node(&root)
    }

    #[track_caller]
    fn at<T>(text: &str, spanned: &Spanned<T>, written: &str) {
        assert_eq!((spanned.span.file, spanned.span.slice(text)), (7, Some(written)));
    }

    #[test]
    fn places_survive_in_every_shape() {
        #[derive(Deserialize)]
        struct Document {
            plain: Spanned<Vec<Spanned<u8>>>,
            off: OrOff<Limit>,
            toggle: Toggle<Limit>,
            pattern: Pattern,
            short: Pattern,
            nested: OrOff<OneOrMany<Pattern>>,
            named: BTreeMap<String, Spanned<Limit>>,
            balance: Balance,
        }
        let text = "plain = [1, 2]\noff = { rate = 3 }\ntoggle = { every = '5s' }\npattern = { rate = 8 }\nshort = 'x'\n\
                    nested = ['a', { rate = 9 }]\nbalance = { hash = 'h' }\n[named.a]\nrate = 4\n";
        let document: Document = read(text).expect("it fits");
        at(text, &document.plain, "[1, 2]");
        at(text, document.plain.value.last().unwrap(), "2");
        at(text, &document.off.as_set().unwrap().rate, "3");
        at(text, &document.toggle.resolved().unwrap().every.unwrap(), "'5s'");
        let Pattern::Full(limit) = document.pattern else { panic!("a table") };
        at(text, &limit.rate, "8");
        let Pattern::Short(short) = document.short else { panic!("a string") };
        at(text, &short, "'x'");
        let many = document.nested.as_set().unwrap();
        let Some(Pattern::Full(limit)) = many.last() else { panic!("a table") };
        at(text, &limit.rate, "9");
        at(text, document.named.get("a").unwrap(), "[named.a]");
        at(text, &document.named.get("a").unwrap().rate, "4");
        let Balance::Hash(key) = document.balance else { panic!("a hash") };
        at(text, &key, "'h'");
    }

    #[test]
    fn a_derived_untagged_enum_reads_though_its_places_are_lost() {
        #[derive(Debug, PartialEq, Deserialize)]
        #[serde(untagged)]
        enum Derived {
            Text(Spanned<String>),
            Settings(Limit),
        }
        #[derive(Debug, PartialEq, Deserialize)]
        struct Document {
            a: Derived,
            b: Derived,
        }
        let document: Document = read("a = 'x'\nb = { rate = 3 }").expect("it fits");
        assert_eq!(document.a, Derived::Text(Spanned::new("x".to_owned(), SourceSpan::default())));
        let Derived::Settings(limit) = document.b else { panic!("settings") };
        assert_eq!((limit.rate.value, limit.rate.span), (3, SourceSpan::default()));
    }

    #[test]
    fn both_halves_keep_their_places() {
        #[derive(Deserialize)]
        struct Name {
            name: Spanned<String>,
        }
        let text = "[r]\nname = 'n'\nrate = 3\n";
        let document: HashMap<String, Both<Name, Limit>> = read(text).expect("it fits");
        let both = document.get("r").unwrap();
        at(text, &both.first.name, "'n'");
        at(text, &both.second.rate, "3");
    }

    #[test]
    fn enums_read_from_strings_and_tables_and_keys_from_numbers() {
        let read_all: HashMap<u16, Balance> = read("1 = 'random'\n2 = { weighted = { weight = 3 } }").expect("it fits");
        assert_eq!(read_all, HashMap::from([(1, Balance::Random), (2, Balance::Weighted { weight: 3 })]));
    }

    #[test]
    fn keys_have_places_too() {
        #[derive(Deserialize)]
        #[serde(transparent)]
        struct Names(#[serde(deserialize_with = "pairs")] Vec<Spanned<String>>);
        fn pairs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Spanned<String>>, D::Error> {
            struct Keys;
            impl<'de> Visitor<'de> for Keys {
                type Value = Vec<Spanned<String>>;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("a table")
                }
                fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                    let mut keys = Vec::new();
                    while let Some((key, _)) = map.next_entry::<Spanned<String>, de::IgnoredAny>()? {
                        keys.push(key);
                    }
                    Ok(keys)
                }
            }
            deserializer.deserialize_map(Keys)
        }
        let text = "\"a b\" = 1\n";
        let names: Names = read(text).expect("it fits");
        at(text, names.0.first().unwrap(), "\"a b\"");
    }

    #[test]
    fn null_in_a_struct_is_the_default_and_in_a_map_a_value() {
        let mut diagnostics = Diagnostics::default();
        let root = yaml::parse("rate: ~\nevery:\n", 0, &mut diagnostics).root;
        assert_eq!(from_node::<Limit>(&root), Ok(Limit::default()));
        let map: HashMap<String, Option<u8>> = from_node(&root).expect("it fits");
        assert_eq!(map.len(), 2);
    }

    #[test]
    fn a_refused_value_is_named_with_its_place() {
        let refused = |text: &str| {
            let error = read::<BTreeMap<String, OrOff<Limit>>>(text).unwrap_err();
            format!("{}: {}", error.span.unwrap().slice(text).unwrap(), error.message)
        };
        assert_eq!(refused("a = { rate = 'x' }"), "'x': expected u32, found string \"x\"");
        assert_eq!(refused("a = true"), "true: expected `false` or settings");
        assert_eq!(refused("a = { rate = 1, every = '5' }"), "'5': a duration needs a unit, as in \"5s\" or \"5ms\"");
    }

    #[test]
    fn a_refused_secret_is_not_quoted() {
        struct Lookup;
        impl secrets::Lookups for Lookup {
            fn variable(&mut self, _: &str) -> Result<String, String> {
                Ok("hushhush".to_owned())
            }
            fn file(&mut self, _: &str, _: u32) -> Result<String, String> {
                Err(String::new())
            }
        }
        let mut diagnostics = Diagnostics::default();
        let mut root = toml::parse("every = '${env:T}'", 0, &mut diagnostics).root;
        secrets::resolve(&mut root, &mut Lookup, &mut diagnostics);
        let error = from_node::<Limit>(&root).unwrap_err();
        assert_eq!(error.message, "the value of \"${env:T}\" is not allowed here");
        let owned: HashMap<String, String> = from_node(&root).expect("it is a string");
        assert_eq!(owned.get("every").map(String::as_str), Some("hushhush"));
    }
}
