//! What a text is to become: parameters and forms are text, schemas speak of numbers, lists and objects.
//!
//! A text is read as what its schema asks for, and left a text where it isn't that: then the schema says what is wrong.

use serde_json::{Map, Number, Value};

use super::schema::REFERENCE;

const NULL: u8 = 1;
const BOOLEAN: u8 = 2;
const NUMBER: u8 = 4;
const STRING: u8 = 8;
const ARRAY: u8 = 16;
const OBJECT: u8 = 32;

/// How deep schemas are looked into; parameters and forms are flat.
const MAX_DEPTH: usize = 12;

/// What a schema takes, as far as reading a text depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Shape {
    types: u8,
    items: Option<Box<Shape>>,
    properties: Vec<(String, Shape)>,
    /// It takes properties that it does not name.
    pub(super) open: bool,
}

impl Shape {
    /// The shape of a schema; `resolve` finds what it refers to.
    pub(super) fn of<'a>(schema: &'a Value, resolve: &dyn Fn(&'a Value) -> Option<&'a Value>) -> Self {
        let mut shape = Self { open: true, ..Self::default() };
        shape.add(schema, resolve, 0);
        shape
    }

    fn add<'a>(&mut self, schema: &'a Value, resolve: &dyn Fn(&'a Value) -> Option<&'a Value>, depth: usize) {
        if depth > MAX_DEPTH {
            return;
        }
        if let Some(target) = resolve(schema) {
            self.add(target, resolve, depth + 1);
        }
        let Value::Object(keywords) = schema else { return };
        let mut add_type = |name: &str| {
            self.types |= match name {
                "null" => NULL,
                "boolean" => BOOLEAN,
                "integer" | "number" => NUMBER,
                "string" => STRING,
                "array" => ARRAY,
                "object" => OBJECT,
                _ => 0,
            };
        };
        match keywords.get("type") {
            Some(Value::String(name)) => add_type(name),
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).for_each(add_type),
            _ => {
                let listed = keywords.get("enum").and_then(Value::as_array).into_iter().flatten();
                for value in listed.chain(keywords.get("const")) {
                    add_type(match value {
                        Value::Null => "null",
                        Value::Bool(_) => "boolean",
                        Value::Number(_) => "number",
                        Value::String(_) => "string",
                        Value::Array(_) => "array",
                        Value::Object(_) => "object",
                    });
                }
            }
        }
        if let Some(items) = keywords.get("items") {
            self.items.get_or_insert_default().add(items, resolve, depth + 1);
        }
        for (name, property) in keywords.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let place = self.properties.iter().position(|(known, _)| known == name);
            let place = place.unwrap_or_else(|| {
                self.properties.push((name.clone(), Self { open: true, ..Self::default() }));
                self.properties.len() - 1
            });
            if let Some((_, shape)) = self.properties.get_mut(place) {
                shape.add(property, resolve, depth + 1);
            }
        }
        if keywords.get("additionalProperties") == Some(&Value::Bool(false)) {
            self.open = false;
        }
        for keyword in ["allOf", "anyOf", "oneOf"] {
            for part in keywords.get(keyword).and_then(Value::as_array).into_iter().flatten() {
                self.add(part, resolve, depth + 1);
            }
        }
    }

    pub(super) const fn is_list(&self) -> bool {
        self.types & ARRAY != 0
    }

    pub(super) fn is_object(&self) -> bool {
        self.types & OBJECT != 0 || (self.types == 0 && !self.properties.is_empty())
    }

    /// Whether it may be one value, neither list nor object.
    pub(super) const fn is_scalar(&self) -> bool {
        self.types == 0 || self.types & (NULL | BOOLEAN | NUMBER | STRING) != 0
    }

    pub(super) fn property(&self, name: &str) -> Option<&Self> {
        self.properties.iter().find(|(known, _)| known == name).map(|(_, shape)| shape)
    }

    /// A text as what the schema asks for. `texts`: as text wherever that is possible too.
    pub(super) fn scalar(&self, text: String, texts: bool) -> Value {
        let may_be_text = self.types & STRING != 0;
        if may_be_text && texts {
            return Value::String(text);
        }
        let may_be = |kind: u8| self.types == 0 && !texts || self.types & kind != 0;
        match text.as_str() {
            "true" if may_be(BOOLEAN) => return Value::Bool(true),
            "false" if may_be(BOOLEAN) => return Value::Bool(false),
            "null" if may_be(NULL) => return Value::Null,
            _ => {}
        }
        let number = || -> Option<Number> {
            let is_plain =
                text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E'));
            if is_plain { serde_json::from_str(&text).ok() } else { None }
        };
        if may_be(NUMBER)
            && let Some(number) = number()
        {
            return Value::Number(number);
        }
        Value::String(text)
    }

    pub(super) fn list(&self, texts: impl IntoIterator<Item = String>, as_texts: bool) -> Value {
        let free = Self::default();
        let items = self.items.as_deref().unwrap_or(&free);
        Value::Array(texts.into_iter().map(|text| items.scalar(text, as_texts)).collect())
    }

    /// A name that stands more than once has a list of values, also where the schema asks for one: then it refuses them.
    pub(super) fn object(&self, pairs: Vec<(String, String)>, as_texts: bool) -> Value {
        let mut grouped: Vec<(String, Vec<String>)> = Vec::new();
        for (name, text) in pairs {
            match grouped.iter_mut().find(|(known, _)| *known == name) {
                Some((_, texts)) => texts.push(text),
                None => grouped.push((name, vec![text])),
            }
        }
        let free = Self::default();
        let mut object = Map::new();
        for (name, mut texts) in grouped {
            let shape = self.property(&name).unwrap_or(&free);
            let single = if texts.len() == 1 && !(shape.is_list()) { texts.pop() } else { None };
            let value = match single {
                Some(text) => shape.scalar(text, as_texts),
                None => shape.list(texts, as_texts),
            };
            object.insert(name, value);
        }
        Value::Object(object)
    }
}

/// The schema of a lowered table that `schema` refers to.
pub(super) fn in_table<'a>(schemas: &'a [Value]) -> impl Fn(&'a Value) -> Option<&'a Value> {
    |schema| schemas.get(usize::try_from(schema.get(REFERENCE)?.as_u64()?).ok()?)
}

/// The schema of a file that `schema` refers to by a pointer into the same file.
pub(super) fn in_file<'a>(root: &'a Value) -> impl Fn(&'a Value) -> Option<&'a Value> {
    move |schema| root.pointer(schema.get("$ref")?.as_str()?.strip_prefix('#')?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(schema: &Value, text: &str, expected: &Value) {
        let shape = Shape::of(schema, &in_file(schema));
        assert_eq!(shape.scalar(text.to_owned(), false), *expected, "{text} for {schema}");
    }

    #[test]
    fn a_text_becomes_what_the_schema_asks_for_if_it_can() {
        check(&json!({ "type": "integer" }), "9007199254740993", &json!(9_007_199_254_740_993_u64));
        check(&json!({ "type": "integer" }), "007", &json!("007"));
        check(&json!({ "type": "number" }), "-1.5e3", &json!(-1500.0));
        check(&json!({ "type": "number" }), "+1", &json!("+1"));
        check(&json!({ "type": "number" }), "NaN", &json!("NaN"));
        check(&json!({ "type": "boolean" }), "true", &json!(true));
        check(&json!({ "type": "boolean" }), "True", &json!("True"));
        check(&json!({ "type": ["integer", "null"] }), "null", &json!(null));
        check(&json!({ "type": "string" }), "7", &json!("7"));
        check(&json!({ "enum": [1, 2] }), "2", &json!(2));
        check(&json!({ "$ref": "#/$defs/a", "$defs": { "a": { "type": "integer" } } }), "7", &json!(7));
        check(&json!({ "allOf": [{ "type": "integer" }] }), "7", &json!(7));
    }

    #[test]
    fn a_shape_that_refers_to_itself_ends() {
        let schema = json!({ "$ref": "#" });
        assert_eq!(Shape::of(&schema, &in_file(&schema)).types, 0);
    }
}
