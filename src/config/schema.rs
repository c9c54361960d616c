//! The schema of a document: what `schemars` makes of its type, and how to find one's way in it.
//!
//! A table takes no keys but those that are named: JSON Schema would say `additionalProperties: false`, which serde's
//! derive does not write; [`DocumentSchema::published`] adds it.

use std::collections::HashMap;

use regex::Regex;
use schemars::JsonSchema;
use serde_json::Value as Json;

use super::node::Node;
use crate::model::shape::Kind;
use crate::model::units;

/// Checks a string against the `format` that a schema names; `None` when the format is not one of its own. The error
/// is a message for the operator.
pub type FormatCheck = fn(format: &str, written: &str) -> Option<Result<(), String>>;

/// The schema of one type.
#[derive(Debug, Clone)]
pub struct DocumentSchema {
    root: Json,
    patterns: HashMap<String, Regex>,
    formats: FormatCheck,
}

impl DocumentSchema {
    /// The schema of `T`.
    #[must_use]
    pub fn of<T: JsonSchema>() -> Self {
        let generator = schemars::generate::SchemaSettings::draft2020_12().into_generator();
        let root = generator.into_root_schema_for::<T>().to_value();
        let mut patterns = HashMap::new();
        collect_patterns(&root, &mut patterns);
        Self { root, patterns, formats: |_, _| None }
    }

    /// Adds checks for formats beyond those of `model::units`, so that their mistakes are found with all the others.
    #[must_use]
    pub fn with_formats(self, formats: FormatCheck) -> Self {
        Self { formats, ..self }
    }

    /// JSON Schema (draft 2020-12) for editors and generators.
    #[must_use]
    pub fn published(&self) -> Json {
        let mut schema = self.root.clone();
        close_tables(&mut schema);
        schema
    }

    pub(super) fn root(&self) -> &Json {
        &self.root
    }

    /// What `schema` refers to, or itself. A circle of references ends at one of them.
    pub(super) fn target<'a>(&'a self, schema: &'a Json) -> &'a Json {
        let mut schema = schema;
        for _ in 0..MAX_REFERENCES {
            let Some(reference) = schema.get("$ref").and_then(Json::as_str) else { break };
            let Some(found) = reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer)) else { break };
            schema = found;
        }
        schema
    }

    /// The branches of `anyOf` and `oneOf`, those of branches included, without `null`; the schema itself when it has none.
    pub(super) fn branches<'a>(&'a self, schema: &'a Json) -> Vec<&'a Json> {
        let mut branches = Vec::new();
        self.collect_branches(schema, MAX_REFERENCES, &mut branches);
        branches
    }

    fn collect_branches<'a>(&'a self, schema: &'a Json, depth: usize, branches: &mut Vec<&'a Json>) {
        let schema = self.target(schema);
        match schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Json::as_array) {
            Some(parts) if depth > 0 => {
                for part in parts {
                    self.collect_branches(part, depth - 1, branches);
                }
            }
            _ if schema.get("type").and_then(Json::as_str) == Some("null") => {}
            _ => branches.push(schema),
        }
    }

    pub(super) fn pattern(&self, pattern: &str) -> Option<&Regex> {
        self.patterns.get(pattern)
    }

    pub(super) fn check_format(&self, format: &str, written: &str) -> Option<Result<(), String>> {
        if let Some(checked) = units::check_format(format, written) {
            return Some(checked.map_err(|error| error.to_string()));
        }
        if let Some(checked) = (self.formats)(format, written) {
            return Some(checked);
        }
        let is_address = match format {
            "ip" => written.parse::<std::net::IpAddr>().is_ok(),
            "ipv4" => written.parse::<std::net::Ipv4Addr>().is_ok(),
            "ipv6" => written.parse::<std::net::Ipv6Addr>().is_ok(),
            _ => return None,
        };
        Some(if is_address { Ok(()) } else { Err(format!("not an IP address: {written:?}")) })
    }

    /// In a message, with its article: `a duration`, `"h1" or "h2"`, `a list or a table`.
    pub(super) fn expected(&self, schema: &Json) -> String {
        let mut words = Vec::new();
        for branch in self.branches(schema) {
            let word = expected_of(branch);
            if !words.contains(&word) {
                words.push(word);
            }
        }
        match words.as_slice() {
            [] => "nothing".to_owned(),
            words => join(words, "or"),
        }
    }
}

const MAX_REFERENCES: usize = 16;

fn expected_of(schema: &Json) -> String {
    let values = allowed_values(schema);
    if !values.is_empty() {
        return join(&values.into_iter().map(literal).collect::<Vec<_>>(), "or");
    }
    let words: Vec<String> = types(schema)
        .into_iter()
        .filter(|name| *name != "null")
        .map(|name| match (name, schema.get("format").and_then(Json::as_str)) {
            ("string", Some("period")) => "a duration such as \"30s\"",
            ("string", Some("byte-size")) => "a size such as \"64KiB\"",
            ("string", Some("byte-rate")) => "a byte rate such as \"1KiB/s\"",
            ("string", Some("rate")) => "a rate such as \"100/s\"",
            ("string", Some("percent")) => "a share such as \"20%\"",
            ("string", Some("ip" | "ipv4" | "ipv6")) => "an IP address",
            ("boolean", _) => "`true` or `false`",
            ("integer", _) => "an integer",
            ("array", _) => "a list",
            ("object", _) => "a table",
            ("number", _) => "a number",
            _ => "a string",
        })
        .map(str::to_owned)
        .collect();
    if words.is_empty() { "any value".to_owned() } else { join(&words, "or") }
}

/// The names in `type`; empty when anything goes.
pub(super) fn types(schema: &Json) -> Vec<&str> {
    match schema.get("type") {
        Some(Json::String(name)) => vec![name],
        Some(Json::Array(names)) => names.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The values of `const` and `enum`, strings in quotes.
pub(super) fn allowed_values(schema: &Json) -> Vec<&Json> {
    let listed = schema.get("enum").and_then(Json::as_array).into_iter().flatten();
    schema.get("const").into_iter().chain(listed).collect()
}

/// A value in a message: strings have their quotes already.
pub(super) fn literal(value: &Json) -> String {
    if value.is_string() { value.to_string() } else { format!("`{value}`") }
}

/// Whether a schema without branches takes a value of that kind at all.
pub(super) fn takes(schema: &Json, node: &Node) -> bool {
    let kind = node.kind();
    let values = allowed_values(schema);
    if !values.is_empty() {
        return values.iter().any(|value| kind_of(value) == kind);
    }
    let types = types(schema);
    types.is_empty()
        || types.iter().any(|name| match *name {
            "null" => kind == Kind::Nothing,
            "boolean" => kind == Kind::Bool,
            "integer" => matches!(node.value, super::node::Value::Integer(_)),
            "number" => kind == Kind::Number,
            "string" => kind == Kind::String,
            "array" => kind == Kind::Array,
            _ => kind == Kind::Table,
        })
}

const fn kind_of(value: &Json) -> Kind {
    match value {
        Json::Null => Kind::Nothing,
        Json::Bool(_) => Kind::Bool,
        Json::Number(_) => Kind::Number,
        Json::String(_) => Kind::String,
        Json::Array(_) => Kind::Array,
        Json::Object(_) => Kind::Table,
    }
}

/// `a`, `a or b`, `a, b or c`.
pub(super) fn join(words: &[String], last: &str) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [init @ .., end] => format!("{} {last} {end}", init.join(", ")),
    }
}

/// Whether a table schema refuses keys that it does not name.
pub(super) fn is_closed(schema: &Json) -> bool {
    matches!(schema.get("additionalProperties"), None | Some(Json::Bool(false)))
}

fn close_tables(schema: &mut Json) {
    match schema {
        Json::Object(keywords) => {
            keywords.values_mut().for_each(close_tables);
            let is_table = keywords.get("type").and_then(Json::as_str) == Some("object");
            if is_table && !keywords.contains_key("additionalProperties") {
                keywords.insert("additionalProperties".to_owned(), Json::Bool(false));
            }
        }
        Json::Array(parts) => parts.iter_mut().for_each(close_tables),
        _ => {}
    }
}

fn collect_patterns(schema: &Json, patterns: &mut HashMap<String, Regex>) {
    let mut add = |pattern: &str| {
        if let Ok(regex) = Regex::new(pattern) {
            patterns.insert(pattern.to_owned(), regex);
        }
    };
    match schema {
        Json::Object(keywords) => {
            if let Some(Json::String(pattern)) = keywords.get("pattern") {
                add(pattern);
            }
            if let Some(Json::Object(properties)) = keywords.get("patternProperties") {
                properties.keys().for_each(|pattern| add(pattern));
            }
            keywords.values().for_each(|part| collect_patterns(part, patterns));
        }
        Json::Array(parts) => parts.iter().for_each(|part| collect_patterns(part, patterns)),
        _ => {}
    }
}
