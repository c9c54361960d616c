//! From the schemas of an API description to JSON Schema 2020-12: what OpenAPI 3.0 says differently, what only holds for
//! one direction, and where references lead.
//!
//! Each schema that is referred to becomes one of a table, however many refer to it. A request may not hold what is
//! `readOnly`, a response not what is `writeOnly`, and neither has to. A `discriminator` beside `oneOf` or `anyOf` chooses
//! the branch by which the value is judged. A schema that consists of itself is a mistake, not an endless loop.

use std::collections::{HashMap, VecDeque};

use serde_json::{Map, Value, json};

use super::super::schema::{Lowered, MULTIPLE_OF, REFERENCE};
use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::spec::Specs;
use crate::model::violation::step;

/// How many references may follow each other.
const MAX_HOPS: usize = 32;
/// Beyond it a double skips whole numbers.
const EXACT: u64 = 1 << 53;

/// Which dialect the description is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V30,
    V31,
}

/// Which way the message goes that a schema describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Direction {
    Request,
    Response,
}

/// Where something stands: index of the file, pointer in it.
pub(super) type At = (usize, String);

pub(super) struct Lowerer<'a> {
    pub(super) specs: &'a Specs,
    pub(super) version: Version,
    pub(super) diagnostics: &'a mut Diagnostics,
    pub(super) lowered: Lowered,
    numbers: HashMap<(usize, String, Direction), usize>,
    waiting: VecDeque<(usize, At, Direction)>,
    /// For each schema those that it consists of: judged with the same value.
    parts: Vec<Vec<usize>>,
}

const VALUES: &[&str] = &[
    "type",
    "enum",
    "const",
    "maximum",
    "minimum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "multipleOf",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "maxContains",
    "minContains",
    "maxProperties",
    "minProperties",
    "dependentRequired",
    "format",
];

impl<'a> Lowerer<'a> {
    pub(super) fn new(specs: &'a Specs, version: Version, diagnostics: &'a mut Diagnostics) -> Self {
        Self {
            specs,
            version,
            diagnostics,
            lowered: Lowered::default(),
            numbers: HashMap::new(),
            waiting: VecDeque::new(),
            parts: Vec::new(),
        }
    }

    /// What stands there.
    pub(super) fn value(&self, at: &At) -> Option<&'a Value> {
        self.specs.files.get(at.0)?.value.pointer(&at.1)
    }

    /// A mistake at a place.
    pub(super) fn wrong(&mut self, code: &'static str, at: &At, message: impl Into<String>) {
        let span = self.specs.files.get(at.0).map(|file| file.places.span(&at.1)).unwrap_or_default();
        self.diagnostics.push(Diagnostic::error(code, span, message));
    }

    /// Where what stands at `at` really is, references followed; `None` when they lead nowhere, which is pushed.
    pub(super) fn follow(&mut self, at: At) -> Option<At> {
        let mut at = at;
        for _ in 0..MAX_HOPS {
            let Some(reference) = self.value(&at).and_then(|value| value.get("$ref")).and_then(Value::as_str) else {
                return Some(at);
            };
            at = self.target(&at, "$ref", reference)?;
        }
        self.wrong("bad_reference", &at, "references that lead in a circle");
        None
    }

    /// The number of the schema at `at`.
    pub(super) fn schema(&mut self, at: At, direction: Direction) -> usize {
        let next = self.lowered.schemas.len();
        let number = *self.numbers.entry((at.0, at.1.clone(), direction)).or_insert(next);
        if number == next {
            self.lowered.schemas.push(Value::Bool(true));
            self.lowered.origins.push(at.clone());
            self.parts.push(Vec::new());
            self.waiting.push_back((number, at, direction));
        }
        number
    }

    /// Lowers everything that was asked for and what that refers to.
    pub(super) fn finish(&mut self) {
        while let Some((number, at, direction)) = self.waiting.pop_front() {
            let Some(value) = self.value(&at) else { continue };
            let mut one = One { lowerer: self, number, direction };
            let lowered = one.lower(value, &at, true);
            if let Some(place) = self.lowered.schemas.get_mut(number) {
                *place = lowered;
            }
        }
        self.refuse_circles();
    }

    fn target(&mut self, at: &At, keyword: &str, reference: &str) -> Option<At> {
        let place = (at.0, format!("{}/{keyword}", at.1));
        let (link, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let file = if link.is_empty() {
            at.0
        } else {
            match self.specs.files.get(at.0).and_then(|file| file.links.get(link)) {
                Some(Ok(file)) => *file,
                Some(Err(why)) => {
                    let why = why.clone();
                    self.wrong("bad_reference", &place, why);
                    return None;
                }
                None => {
                    let message = format!("references to other hosts are not followed: {link}");
                    self.wrong("bad_reference", &place, message);
                    return None;
                }
            }
        };
        let found = self.specs.files.get(file)?;
        if !found.problems.is_empty() {
            if file != at.0 {
                self.diagnostics.extend(found.problems.iter().cloned());
            }
            return None;
        }
        let pointer = super::percent::decode(fragment, false).unwrap_or_default();
        let pointer = if pointer.is_empty() || pointer.starts_with('/') {
            pointer
        } else {
            anchor(&found.value, &pointer).unwrap_or_else(|| "/$anchor".to_owned())
        };
        if found.value.pointer(&pointer).is_none() {
            self.wrong("bad_reference", &place, format!("a reference that leads nowhere: {reference}"));
            return None;
        }
        Some((file, pointer))
    }

    fn refuse_circles(&mut self) {
        // Depth first, without recursion: 0 is new, 1 is on the way, 2 is done.
        let mut marks = vec![0_u8; self.parts.len()];
        for start in 0..self.parts.len() {
            let mut way = vec![(start, 0_usize)];
            while let Some((number, next)) = way.pop() {
                let Some(mark) = marks.get_mut(number) else { continue };
                if *mark == 2 {
                    continue;
                }
                *mark = 1;
                match self.parts.get(number).and_then(|parts| parts.get(next)).copied() {
                    None => *mark = 2,
                    Some(part) => {
                        way.push((number, next + 1));
                        match marks.get(part) {
                            Some(1) => {
                                let at = self.lowered.origins.get(part).cloned().unwrap_or_default();
                                self.wrong("bad_schema", &at, "a schema that consists of itself");
                                return;
                            }
                            Some(0) => way.push((part, 0)),
                            _ => {}
                        }
                    }
                }
            }
        }
    }
}

/// One schema on its way into the table.
struct One<'l, 'a> {
    lowerer: &'l mut Lowerer<'a>,
    number: usize,
    direction: Direction,
}

impl One<'_, '_> {
    /// `in_place`: it judges the same value as the whole schema.
    fn lower(&mut self, value: &Value, at: &At, in_place: bool) -> Value {
        let schema = match value {
            Value::Object(schema) => schema,
            Value::Bool(_) => return value.clone(),
            _ => {
                self.lowerer.wrong("bad_schema", at, "a schema is a table");
                return Value::Bool(true);
            }
        };
        let mut lowered = Map::new();
        for keyword in ["$ref", "$dynamicRef"] {
            let Some(reference) = schema.get(keyword).and_then(Value::as_str) else { continue };
            let Some(target) = self.lowerer.target(at, keyword, reference) else { return Value::Bool(true) };
            lowered.insert(REFERENCE.to_owned(), self.refer(target, in_place).into());
            // In 3.0 nothing beside a reference counts.
            if self.lowerer.version == Version::V30 {
                return Value::Object(lowered);
            }
        }
        for keyword in VALUES {
            if let Some(value) = schema.get(*keyword) {
                lowered.insert((*keyword).to_owned(), value.clone());
            }
        }
        if let Some(divisor) = schema.get("multipleOf").and_then(Value::as_u64).filter(|divisor| *divisor > EXACT) {
            lowered.remove("multipleOf");
            lowered.insert(MULTIPLE_OF.to_owned(), divisor.into());
        }
        self.required(schema, at, &mut lowered);
        self.properties(schema, at, &mut lowered);
        for (keyword, same_value) in [
            ("items", false),
            ("additionalProperties", false),
            ("contains", false),
            ("propertyNames", false),
            ("unevaluatedItems", false),
            ("unevaluatedProperties", false),
            ("not", true),
            ("if", true),
            ("then", true),
            ("else", true),
        ] {
            let Some(part) = schema.get(keyword) else { continue };
            self.lowerer.lowered.unevaluated |= keyword.starts_with("unevaluated");
            let part = self.lower(part, &below(at, keyword), in_place && same_value);
            lowered.insert(keyword.to_owned(), part);
        }
        let discriminated = self.discriminator(schema, at, in_place);
        for (keyword, same_value) in [("allOf", true), ("anyOf", true), ("oneOf", true), ("prefixItems", false)] {
            let Some(Value::Array(parts)) = schema.get(keyword) else { continue };
            if discriminated.is_some() && matches!(keyword, "anyOf" | "oneOf") {
                continue;
            }
            let around = below(at, keyword);
            let parts = parts.iter().enumerate();
            let parts = parts
                .map(|(index, part)| self.lower(part, &below(&around, &index.to_string()), in_place && same_value));
            let parts = parts.collect();
            lowered.insert(keyword.to_owned(), Value::Array(parts));
        }
        for (keyword, same_value) in [("patternProperties", false), ("dependentSchemas", true)] {
            let Some(Value::Object(parts)) = schema.get(keyword) else { continue };
            let around = below(at, keyword);
            let parts = parts.iter();
            let parts = parts
                .map(|(name, part)| (name.clone(), self.lower(part, &below(&around, name), in_place && same_value)));
            let parts = parts.collect();
            lowered.insert(keyword.to_owned(), Value::Object(parts));
        }
        let more = discriminated.into_iter().chain(bounds_of_format(schema));
        for part in more {
            if let Value::Array(parts) = lowered.entry("allOf").or_insert_with(|| Value::Array(Vec::new())) {
                parts.push(part);
            }
        }
        if self.lowerer.version == Version::V30 {
            exclusive(&mut lowered, "exclusiveMaximum", "maximum");
            exclusive(&mut lowered, "exclusiveMinimum", "minimum");
            if schema.get("nullable") == Some(&Value::Bool(true)) {
                return nullable(lowered);
            }
        }
        Value::Object(lowered)
    }

    fn refer(&mut self, target: At, in_place: bool) -> usize {
        let number = self.lowerer.schema(target, self.direction);
        if in_place && let Some(parts) = self.lowerer.parts.get_mut(self.number) {
            parts.push(number);
        }
        number
    }

    /// What has to be there, in this direction.
    fn required(&mut self, schema: &Map<String, Value>, at: &At, lowered: &mut Map<String, Value>) {
        let Some(Value::Array(names)) = schema.get("required") else {
            if let Some(other) = schema.get("required") {
                // The compiler says what is wrong with it.
                lowered.insert("required".to_owned(), other.clone());
            }
            return;
        };
        let around = below(at, "properties");
        let names = names.iter().filter(|name| {
            let name = name.as_str().unwrap_or_default();
            let property = schema.get("properties").and_then(|properties| properties.get(name));
            !property.is_some_and(|property| self.is_for_the_other(property, &below(&around, name)))
        });
        let names = names.cloned().collect();
        lowered.insert("required".to_owned(), Value::Array(names));
    }

    fn properties(&mut self, schema: &Map<String, Value>, at: &At, lowered: &mut Map<String, Value>) {
        let properties = match schema.get("properties") {
            Some(Value::Object(properties)) => properties,
            Some(_) => return self.lowerer.wrong("bad_schema", &below(at, "properties"), "properties are a table"),
            None => return,
        };
        let around = below(at, "properties");
        let mut described = Map::new();
        for (name, property) in properties {
            let at = below(&around, name);
            let part = if self.is_for_the_other(property, &at) {
                Value::Bool(false)
            } else {
                self.lower(property, &at, false)
            };
            described.insert(name.clone(), part);
        }
        lowered.insert("properties".to_owned(), Value::Object(described));
    }

    /// Whether a property is for the other direction alone.
    fn is_for_the_other(&self, property: &Value, at: &At) -> bool {
        let mark = match self.direction {
            Direction::Request => "readOnly",
            Direction::Response => "writeOnly",
        };
        let (mut property, mut file) = (property, at.0);
        for _ in 0..MAX_HOPS {
            if property.get(mark) == Some(&Value::Bool(true)) {
                return true;
            }
            // A reference that leads nowhere is reported where it is followed for good.
            let Some(reference) = property.get("$ref").and_then(Value::as_str) else { return false };
            let (link, pointer) = reference.split_once('#').unwrap_or((reference, ""));
            let Some(here) = self.lowerer.specs.files.get(file) else { return false };
            if !link.is_empty() {
                let Some(Ok(other)) = here.links.get(link) else { return false };
                file = *other;
            }
            let found = self.lowerer.specs.files.get(file).and_then(|file| file.value.pointer(pointer));
            let Some(found) = found else { return false };
            property = found;
        }
        false
    }

    /// The branch that a property of the value names (OpenAPI 3.1 §4.8.25), where all branches are references.
    fn discriminator(&mut self, schema: &Map<String, Value>, at: &At, in_place: bool) -> Option<Value> {
        let discriminator = schema.get("discriminator")?;
        let (keyword, branches) =
            ["oneOf", "anyOf"].into_iter().find_map(|keyword| Some((keyword, schema.get(keyword)?.as_array()?)))?;
        let place = below(at, "discriminator");
        let Some(property) = discriminator.get("propertyName").and_then(Value::as_str) else {
            self.lowerer.wrong("bad_schema", &place, "a discriminator without `propertyName`");
            return None;
        };
        let mut named: Vec<(String, usize)> = Vec::new();
        for (index, branch) in branches.iter().enumerate() {
            let at = (at.0, format!("{}/{keyword}/{index}", at.1));
            let reference = branch.get("$ref").and_then(Value::as_str)?;
            let target = self.lowerer.target(&at, "$ref", reference)?;
            let name = reference.rsplit('/').next().unwrap_or_default().to_owned();
            named.push((name, self.refer(target, in_place)));
        }
        for (name, reference) in discriminator.get("mapping").and_then(Value::as_object).into_iter().flatten() {
            let Some(reference) = reference.as_str() else { continue };
            let at = (at.0, format!("{}/discriminator/mapping", at.1));
            let whole = if reference.contains(['/', '#', '.']) {
                reference.to_owned()
            } else {
                format!("#/components/schemas{}", step(reference))
            };
            let target = self.lowerer.target(&at, name, &whole)?;
            let number = self.refer(target, in_place);
            named.retain(|(other, _)| other != name);
            named.push((name.clone(), number));
        }
        let known: Vec<&String> = named.iter().map(|(name, _)| name).collect();
        let chosen = named.iter().map(|(name, number)| {
            json!({ "if": { "properties": { property: { "const": name } }, "required": [property] }, "then": { REFERENCE: number } })
        });
        Some(json!({
            "type": "object", "required": [property], "properties": { property: { "enum": known } },
            "allOf": chosen.collect::<Vec<_>>(),
        }))
    }
}

fn below(at: &At, name: &str) -> At {
    (at.0, format!("{}{}", at.1, step(name)))
}

/// Formats of numbers are bounds (OpenAPI 3.1 §4.4).
fn bounds_of_format(schema: &Map<String, Value>) -> Option<Value> {
    match schema.get("format").and_then(Value::as_str)? {
        "int32" => Some(json!({ "minimum": i32::MIN, "maximum": i32::MAX })),
        "int64" => Some(json!({ "minimum": i64::MIN, "maximum": i64::MAX })),
        _ => None,
    }
}

/// In 3.0 `exclusiveMaximum: true` makes `maximum` exclusive.
fn exclusive(schema: &mut Map<String, Value>, exclusive: &str, bound: &str) {
    match schema.get(exclusive) {
        Some(Value::Bool(true)) => {
            schema.remove(exclusive);
            if let Some(limit) = schema.remove(bound) {
                schema.insert(exclusive.to_owned(), limit);
            }
        }
        Some(Value::Bool(false)) => drop(schema.remove(exclusive)),
        _ => {}
    }
}

/// 3.0's `nullable`: beside a type it adds one; beside anything else, null is an alternative.
fn nullable(mut schema: Map<String, Value>) -> Value {
    let composed =
        ["allOf", "anyOf", "oneOf", "not", "const", REFERENCE].iter().any(|keyword| schema.contains_key(*keyword));
    match schema.get("type") {
        Some(Value::String(name)) if !composed => {
            let types = json!([name, "null"]);
            schema.insert("type".to_owned(), types);
            if let Some(Value::Array(values)) = schema.get_mut("enum")
                && !values.contains(&Value::Null)
            {
                values.push(Value::Null);
            }
            Value::Object(schema)
        }
        _ => json!({ "anyOf": [{ "type": "null" }, schema] }),
    }
}

fn anchor(value: &Value, name: &str) -> Option<String> {
    fn find(value: &Value, name: &str, pointer: &mut String) -> bool {
        let parts: Vec<(String, &Value)> = match value {
            Value::Object(entries) => {
                let is = |keyword: &str| entries.get(keyword).and_then(Value::as_str) == Some(name);
                if is("$anchor") || is("$dynamicAnchor") {
                    return true;
                }
                entries.iter().map(|(key, part)| (step(key), part)).collect()
            }
            Value::Array(items) => items.iter().enumerate().map(|(at, part)| (format!("/{at}"), part)).collect(),
            _ => return false,
        };
        parts.into_iter().any(|(step, part)| {
            let length = pointer.len();
            pointer.push_str(&step);
            let found = find(part, name, pointer);
            if !found {
                pointer.truncate(length);
            }
            found
        })
    }
    let mut pointer = String::new();
    find(value, name, &mut pointer).then_some(pointer)
}
