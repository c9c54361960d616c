//! JSON with made-up places: the n-th setting that asks for its place gets n, so that tests can tell them apart.

use std::cell::Cell;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, Visitor};
use serde_json::{Error, Value};

use crate::model::source::{SPANNED_FIELDS, SPANNED_STRUCT};

pub(super) fn read<'de, T: Deserialize<'de>>(value: Value) -> Result<T, Error> {
    let places = Cell::new(0);
    T::deserialize(Placed { value, places: &places })
}

struct Placed<'p> {
    value: Value,
    places: &'p Cell<u32>,
}

impl<'de> Deserializer<'de> for Placed<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let placed = |value| Placed { value, places: self.places };
        match self.value {
            Value::Array(list) => visitor.visit_seq(SeqDeserializer::new(list.into_iter().map(placed))),
            Value::Object(map) => {
                visitor.visit_map(MapDeserializer::new(map.into_iter().map(|(key, value)| (key, placed(value)))))
            }
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Error> {
        if name != SPANNED_STRUCT {
            return visitor.visit_newtype_struct(self);
        }
        let place = self.places.get();
        self.places.set(place + 1);
        visitor.visit_map(SpannedFields { value: Some(self), place, next: 0 })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

impl IntoDeserializer<'_, Error> for Placed<'_> {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

struct SpannedFields<'p> {
    value: Option<Placed<'p>>,
    place: u32,
    next: usize,
}

impl<'de> MapAccess<'de> for SpannedFields<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let field = SPANNED_FIELDS.get(self.next);
        field.map(|field| seed.deserialize((*field).into_deserializer())).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        self.next += 1;
        match SPANNED_FIELDS.get(self.next - 1) {
            Some(&"$value") => seed.deserialize(self.value.take().ok_or_else(|| Error::custom("the value is taken"))?),
            Some(&"$file") => seed.deserialize(0_u32.into_deserializer()),
            _ => seed.deserialize(self.place.into_deserializer()),
        }
    }
}
