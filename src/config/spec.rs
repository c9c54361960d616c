//! API descriptions and schemas (JSON or YAML) to values with places; numbers keep what 64 bits hold.
//!
//! Unlike a configuration they come from tools: YAML's anchors and aliases are taken, within a bound of what they may
//! grow to. Reads no file: `load` follows the references that [`links`] finds.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};
use serde_json::{Map, Number, Value};

use super::json;
use super::node::{Node, Text, Value as Written, shortened};
use super::yaml::CharOffsets;
use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::spec::Places;
use crate::model::violation::step;

/// The most values that a file may come to, aliases followed.
const MAX_VALUES: usize = 2_000_000;
/// How deep values may nest.
const MAX_DEPTH: usize = 100;

/// What a file says, and what is wrong with its form.
#[derive(Debug, Default)]
pub struct Reading {
    /// The value.
    pub value: Value,
    /// Where its parts stand.
    pub places: Places,
    /// Why it can't be used.
    pub problems: Vec<Diagnostic>,
}

/// Reads the text of the file of index `file`, as JSON when its name says so and as YAML otherwise.
#[must_use]
pub fn read(text: &str, file: u32, is_json: bool) -> Reading {
    if is_json { read_json(text, file) } else { read_yaml(text, file) }
}

fn read_json(text: &str, file: u32) -> Reading {
    let mut reading = Reading { places: Places { file, spans: HashMap::new() }, ..Reading::default() };
    // Its numbers are narrower than those of a schema may be: it is asked for places and mistakes alone.
    let mut found = Diagnostics::default();
    let root = json::parse(text, file, &mut found).root;
    place(&root, &mut String::new(), &mut reading.places);
    reading.problems.extend(found.as_slice().iter().filter(|finding| finding.code != "out_of_range").cloned());
    match serde_json::from_str(text) {
        Ok(value) => reading.value = value,
        Err(error) if reading.problems.is_empty() => {
            let span = Text { text, file }.span(&(0..0));
            reading.problems.push(Diagnostic::error("syntax", span, error.to_string()));
        }
        Err(_) => {}
    }
    reading
}

fn place(node: &Node, pointer: &mut String, places: &mut Places) {
    places.spans.insert(pointer.clone(), (node.span.start, node.span.end));
    let mut below = |name: &str, child: &Node| {
        let length = pointer.len();
        pointer.push_str(&step(name));
        place(child, pointer, places);
        pointer.truncate(length);
    };
    match &node.value {
        Written::Array(items) => items.iter().enumerate().for_each(|(at, item)| below(&at.to_string(), item)),
        Written::Table(entries) => entries.iter().for_each(|(key, item)| below(&key.text, item)),
        _ => {}
    }
}

fn read_yaml(text: &str, file: u32) -> Reading {
    let mut reader = Yaml {
        text: Text { text, file },
        offsets: CharOffsets::of(text),
        events: Parser::new_from_str(text),
        anchors: HashMap::new(),
        values: 0,
        stopped: false,
        pointer: String::new(),
        reading: Reading { places: Places { file, spans: HashMap::new() }, ..Reading::default() },
    };
    let mut root = None;
    while let Some((event, span)) = reader.next() {
        match event {
            Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
            Event::StreamEnd => break,
            Event::DocumentStart(_) if root.is_none() => {}
            Event::DocumentStart(_) => reader.fail(span, "a second document in the file"),
            event => root = Some(reader.value(event, span, 0)),
        }
    }
    Reading { value: root.unwrap_or_default(), ..reader.reading }
}

struct Yaml<'a> {
    text: Text<'a>,
    offsets: CharOffsets,
    events: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Value>,
    values: usize,
    stopped: bool,
    pointer: String,
    reading: Reading,
}

impl<'a> Yaml<'a> {
    fn next(&mut self) -> Option<(Event<'a>, Span)> {
        if self.stopped {
            return None;
        }
        match self.events.next_event()? {
            Ok(event) => Some(event),
            Err(error) => {
                let at = self.offsets.byte(error.marker().index());
                self.problem("syntax", at..at + 1, error.info());
                None
            }
        }
    }

    fn value(&mut self, event: Event<'a>, span: Span, depth: usize) -> Value {
        let range = self.offsets.range(span);
        let place = self.text.span(&range);
        self.reading.places.spans.insert(self.pointer.clone(), (place.start, place.end));
        self.values += 1;
        if self.values > MAX_VALUES || depth > MAX_DEPTH {
            self.fail(
                span,
                if depth > MAX_DEPTH { "nested too deep" } else { "more values than a description may have" },
            );
            return Value::Null;
        }
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => (anchor, self.scalar(&text, style, tag.as_deref(), span)),
            Event::SequenceStart(anchor, _) => (anchor, self.array(depth)),
            Event::MappingStart(anchor, _) => (anchor, self.table(depth)),
            Event::Alias(anchor) => {
                let value = self.anchors.get(&anchor).cloned().unwrap_or_default();
                self.values += size(&value);
                (0, value)
            }
            _ => (0, Value::Null),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, value.clone());
        }
        value
    }

    fn array(&mut self, depth: usize) -> Value {
        let mut items = Vec::new();
        while let Some((event, span)) = self.next() {
            if matches!(event, Event::SequenceEnd) {
                break;
            }
            let item = self.within(&items.len().to_string(), event, span, depth);
            items.push(item);
        }
        Value::Array(items)
    }

    fn table(&mut self, depth: usize) -> Value {
        let mut entries = Map::new();
        while let Some((event, span)) = self.next() {
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let name = if let Event::Scalar(text, ..) = event {
                text.into_owned()
            } else {
                self.fail(span, "a key is a string");
                break;
            };
            let Some((event, value_span)) = self.next() else { break };
            let value = self.within(&name, event, value_span, depth);
            if entries.contains_key(&name) {
                let message = format!("`{}` is set twice", shortened(&name));
                let range = self.offsets.range(span);
                self.problem("duplicate_key", range, &message);
            }
            entries.insert(name, value);
        }
        Value::Object(entries)
    }

    fn within(&mut self, name: &str, event: Event<'a>, span: Span, depth: usize) -> Value {
        let length = self.pointer.len();
        self.pointer.push_str(&step(name));
        let value = self.value(event, span, depth + 1);
        self.pointer.truncate(length);
        value
    }

    /// YAML 1.2.2 section 10.3.2, the core schema.
    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Value {
        let is_string =
            tag.map_or(style != ScalarStyle::Plain, |tag| !tag.is_yaml_core_schema() || tag.suffix == "str");
        if is_string {
            return Value::String(text.to_owned());
        }
        match text {
            "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
            "true" | "True" | "TRUE" => return Value::Bool(true),
            "false" | "False" | "FALSE" => return Value::Bool(false),
            _ => {}
        }
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        for (prefix, radix) in [("0o", 8), ("0x", 16)] {
            if let Some(Ok(number)) = text.strip_prefix(prefix).map(|digits| u64::from_str_radix(digits, radix)) {
                return number.into();
            }
        }
        let begins = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
        let is_number = begins
            && unsigned.contains(|c: char| c.is_ascii_digit())
            && unsigned.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'));
        if !is_number {
            return Value::String(text.to_owned());
        }
        let plain = text.strip_prefix('+').unwrap_or(text);
        let whole = plain.parse::<u64>().map(Number::from).or_else(|_| plain.parse::<i64>().map(Number::from)).ok();
        match (whole, plain.parse::<f64>()) {
            (Some(number), _) => Value::Number(number),
            (None, Ok(float)) => Number::from_f64(float).map_or_else(
                || {
                    self.fail(span, "a number beyond 64 bits");
                    Value::Null
                },
                Value::Number,
            ),
            // As in `1.2.3`.
            (None, Err(_)) => Value::String(text.to_owned()),
        }
    }

    fn fail(&mut self, span: Span, message: &str) {
        let range = self.offsets.range(span);
        self.problem("syntax", range, message);
        self.stopped = true;
    }

    fn problem(&mut self, code: &'static str, range: std::ops::Range<usize>, message: &str) {
        let span = self.text.span(&range);
        self.reading.problems.push(Diagnostic::error(code, span, message));
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Object(entries) => 1 + entries.values().map(size).sum::<usize>(),
        _ => 1,
    }
}

/// The other files that a document refers to, without the fragment, each once and in order.
#[must_use]
pub fn links(value: &Value) -> Vec<String> {
    let mut links = Vec::new();
    collect(value, &mut links);
    links.sort_unstable();
    links.dedup();
    links
}

fn collect(value: &Value, links: &mut Vec<String>) {
    match value {
        Value::Object(entries) => {
            for (key, part) in entries {
                match (key.as_str(), part) {
                    ("$ref", Value::String(reference)) => links.extend(file_of(reference)),
                    ("mapping", Value::Object(mapping)) if entries.contains_key("propertyName") => {
                        let named = mapping.values().filter_map(Value::as_str);
                        links.extend(named.filter(|name| name.contains(['/', '#', '.'])).filter_map(file_of));
                    }
                    _ => collect(part, links),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, links)),
        _ => {}
    }
}

/// The file that a reference names, if it is one of ours.
fn file_of(reference: &str) -> Option<String> {
    let file = reference.split('#').next().unwrap_or_default();
    (!file.is_empty() && !file.contains("://") && !file.starts_with("urn:")).then(|| file.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<Value, &str>) {
        let reading = read(text, 0, text.starts_with('{'));
        match (reading.problems.first(), expected) {
            (None, Ok(expected)) => assert_eq!(reading.value, expected, "{text}"),
            (Some(found), Err(part)) => assert!(found.message.contains(part), "{text}: {found:?}"),
            (found, expected) => panic!("{text}: {found:?} is not {expected:?}"),
        }
    }

    #[test]
    fn numbers_keep_what_64_bits_hold() {
        check(
            "a: 18446744073709551615\nb: -9223372036854775808\nc: 9007199254740993",
            Ok(json!({
                "a": u64::MAX, "b": i64::MIN, "c": 9_007_199_254_740_993_u64,
            })),
        );
        check("{\"a\": 18446744073709551615}", Ok(json!({ "a": u64::MAX })));
        check(
            "a: 1.5\nb: 1.2.3\nc: 2024-01-01\nd: '1'\ne: 0x1F",
            Ok(json!({
                "a": 1.5, "b": "1.2.3", "c": "2024-01-01", "d": "1", "e": 31,
            })),
        );
    }

    #[test]
    fn aliases_are_followed_within_a_bound() {
        check("a: &x {b: 1}\nc: *x", Ok(json!({ "a": { "b": 1 }, "c": { "b": 1 } })));
        let mut bomb = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n".to_owned();
        for level in 1..9 {
            let below = vec![format!("*a{}", level - 1); 10].join(",");
            let _ = writeln!(bomb, "a{level}: &a{level} [{below}]");
        }
        check(&bomb, Err("more values than"));
    }

    #[test]
    fn mistakes_of_form_have_places() {
        check("a: 1\na: 2", Err("`a` is set twice"));
        check("{\"a\": 1, \"a\": 2}", Err("`a` is set twice"));
        check("{\"a\": }", Err(""));
        check("a: [1", Err(""));
        let reading = read("a:\n  b: 1\n", 3, false);
        assert_eq!(reading.places.span("/a/b/c").start, 8, "the nearest part that is there");
        assert_eq!(reading.places.span("/a/b").file, 3);
    }

    #[test]
    fn references_to_other_files_are_found() {
        let value = json!({
            "a": { "$ref": "b.yaml#/x" }, "c": [{ "$ref": "#/here" }, { "$ref": "b.yaml" }, { "$ref": "http://x/y" }],
            "discriminator": { "propertyName": "kind", "mapping": { "cat": "cat.yaml#/Cat", "dog": "Dog" } },
        });
        assert_eq!(links(&value), ["b.yaml", "cat.yaml"]);
    }
}
