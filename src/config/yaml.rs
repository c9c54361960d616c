//! YAML 1.2 to [`Node`] by its core schema: `no` and `on` are strings, `true` is a boolean.
//!
//! Anchors, aliases, tags of one's own and several documents in a file are refused: a configuration says each thing in
//! one place, and an alias can make a short file long. The first syntax error ends the reading.

use std::collections::HashMap;
use std::ops::Range;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};

use super::node::{Key, MAX_DEPTH, Node, Parsed, Text, Value, insert_unique};
use crate::model::diagnostic::{Diagnostic, Diagnostics};

/// Reads `text`, the file of index `file`, and pushes what is wrong with it.
pub fn parse(text: &str, file: u32, diagnostics: &mut Diagnostics) -> Parsed {
    let mut reader = Reader {
        text: Text { text, file },
        offsets: CharOffsets::of(text),
        events: Parser::new_from_str(text),
        stopped: false,
        partial: false,
        diagnostics,
    };
    let root = reader.document();
    Parsed { root, partial: reader.partial }
}

struct Reader<'a> {
    text: Text<'a>,
    offsets: CharOffsets,
    events: Parser<'a, StrInput<'a>>,
    stopped: bool,
    partial: bool,
    diagnostics: &'a mut Diagnostics,
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Node {
        let mut root = None;
        while let Some((event, range)) = self.next() {
            match event {
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                Event::StreamEnd => break,
                Event::DocumentStart(_) if root.is_none() => {}
                Event::DocumentStart(_) => {
                    self.fail(&range, "a second document in the file");
                }
                event => root = Some(self.node(event, &range, 0)),
            }
        }
        root.unwrap_or_else(|| Node::new(self.text.span(&(0..0)), Value::Null))
    }

    fn next(&mut self) -> Option<(Event<'a>, Range<usize>)> {
        if self.stopped {
            return None;
        }
        match self.events.next_event()? {
            Ok((event, span)) => Some((event, self.offsets.range(span))),
            Err(error) => {
                let at = self.offsets.byte(error.marker().index());
                let end = at + self.text.text.get(at..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
                self.fail(&(at..end), error.info());
                None
            }
        }
    }

    fn node(&mut self, event: Event<'a>, range: &Range<usize>, depth: usize) -> Node {
        let (value, end) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_anchor(anchor, range);
                (self.scalar(&text, style, tag.as_deref(), range), range.end)
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_anchor(anchor, range);
                self.refuse_tag(tag.as_deref(), "seq", range);
                self.array(range, depth)
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_anchor(anchor, range);
                self.refuse_tag(tag.as_deref(), "map", range);
                self.table(range, depth)
            }
            Event::Alias(_) => {
                self.unsupported(range, "aliases are not read: write the value out");
                (Value::Null, range.end)
            }
            _ => (Value::Null, range.end),
        };
        Node::new(self.text.span(&(range.start..end)), value)
    }

    fn array(&mut self, range: &Range<usize>, depth: usize) -> (Value, usize) {
        let mut items = Vec::new();
        let mut end = range.end;
        if self.is_too_deep(range, depth) {
            return (Value::Null, end);
        }
        while let Some((event, range)) = self.next() {
            if matches!(event, Event::SequenceEnd) {
                end = closed(end, &range);
                break;
            }
            let item = self.node(event, &range, depth + 1);
            end = end.max(to_usize(item.span.end));
            items.push(item);
        }
        (Value::Array(items), end)
    }

    fn table(&mut self, range: &Range<usize>, depth: usize) -> (Value, usize) {
        let (mut entries, mut seen) = (Vec::new(), HashMap::new());
        let mut end = range.end;
        if self.is_too_deep(range, depth) {
            return (Value::Null, end);
        }
        while let Some((event, range)) = self.next() {
            if matches!(event, Event::MappingEnd) {
                end = closed(end, &range);
                break;
            }
            let key = self.key(event, &range, depth);
            let Some((event, range)) = self.next() else { break };
            let node = self.node(event, &range, depth + 1);
            end = end.max(to_usize(node.span.end));
            let Some(key) = key else { continue };
            if let Some(duplicate) = insert_unique(&mut entries, &mut seen, key, node) {
                self.diagnostics.push(duplicate);
            }
        }
        (Value::Table(entries), end)
    }

    /// A key is any scalar, taken by its text: `200:` is the key `200`.
    fn key(&mut self, event: Event<'a>, range: &Range<usize>, depth: usize) -> Option<Key> {
        let span = self.text.span(range);
        if let Event::Scalar(text, _, anchor, _) = event {
            self.refuse_anchor(anchor, range);
            return Some(Key { text: text.into_owned(), span });
        }
        self.unsupported(range, "a key is a string");
        self.node(event, range, depth + 1);
        None
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, range: &Range<usize>) -> Value {
        let is_string = match tag {
            Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => true,
            Some(tag)
                if tag.is_yaml_core_schema() && matches!(tag.suffix.as_str(), "int" | "float" | "bool" | "null") =>
            {
                false
            }
            Some(tag) => {
                self.unsupported(range, &format!("tags are not read: {tag}"));
                true
            }
            None => style != ScalarStyle::Plain,
        };
        if is_string {
            return Value::String(text.to_owned());
        }
        core_schema(text).unwrap_or_else(|| {
            self.partial = true;
            let span = self.text.span(range);
            self.diagnostics.push(Diagnostic::error("out_of_range", span, "a number beyond 64 bits"));
            Value::Null
        })
    }

    fn is_too_deep(&mut self, range: &Range<usize>, depth: usize) -> bool {
        if depth > MAX_DEPTH {
            self.diagnostics.push(self.text.too_deep(range));
            (self.stopped, self.partial) = (true, true);
        }
        self.stopped
    }

    fn refuse_anchor(&mut self, anchor: usize, range: &Range<usize>) {
        if anchor != 0 {
            self.unsupported(range, "anchors are not read: write the value where it is used");
        }
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, core: &str, range: &Range<usize>) {
        if let Some(tag) = tag
            && !(tag.is_yaml_core_schema() && tag.suffix == core)
        {
            self.unsupported(range, &format!("tags are not read: {tag}"));
        }
    }

    fn unsupported(&mut self, range: &Range<usize>, message: &str) {
        self.partial = true;
        self.diagnostics.push(Diagnostic::error("unsupported_yaml", self.text.span(range), message));
    }

    fn fail(&mut self, range: &Range<usize>, message: &str) {
        self.diagnostics.push(self.text.syntax(range, message));
        (self.stopped, self.partial) = (true, true);
    }
}

// YAML 1.2.2 section 10.3.2, tag resolution of the core schema; `None` for an integer that does not fit.
fn core_schema(text: &str) -> Option<Value> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Value::Null),
        "true" | "True" | "TRUE" => return Some(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Some(Value::Bool(false)),
        ".nan" | ".NaN" | ".NAN" => return Some(Value::Float(f64::NAN)),
        _ => {}
    }
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return Some(Value::Float(sign * f64::INFINITY));
    }
    for (prefix, radix) in [("0o", 8), ("0x", 16)] {
        if let Some(digits) = text.strip_prefix(prefix)
            && !digits.is_empty()
            && digits.chars().all(|c| c.is_digit(radix))
        {
            return i64::from_str_radix(digits, radix).ok().map(Value::Integer);
        }
    }
    if !unsigned.is_empty() && unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Value::Integer);
    }
    let is_float = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && unsigned.contains(|c: char| c.is_ascii_digit())
        && unsigned.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'));
    match text.parse::<f64>() {
        Ok(float) if is_float && float.is_finite() => Some(Value::Float(float)),
        Ok(_) if is_float => None,
        _ => Some(Value::String(text.to_owned())),
    }
}

/// From the parser's count of characters to bytes.
pub(super) enum CharOffsets {
    /// One is the other.
    Ascii(usize),
    /// The byte offset of each character, and the text's length last.
    Table(Vec<u32>),
}

impl CharOffsets {
    pub(super) fn of(text: &str) -> Self {
        if text.is_ascii() {
            return Self::Ascii(text.len());
        }
        let starts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
        Self::Table(starts.map(|at| u32::try_from(at).unwrap_or(u32::MAX)).collect())
    }

    pub(super) fn byte(&self, index: usize) -> usize {
        match self {
            Self::Ascii(length) => index.min(*length),
            Self::Table(starts) => to_usize(starts.get(index).or(starts.last()).copied().unwrap_or_default()),
        }
    }

    pub(super) fn range(&self, span: Span) -> Range<usize> {
        let start = self.byte(span.start.index());
        start..self.byte(span.end.index()).max(start)
    }
}

/// A block ends with its last child; only the end of a flow collection is written.
fn closed(end: usize, bracket: &Range<usize>) -> usize {
    if bracket.is_empty() { end } else { end.max(bracket.end) }
}

fn to_usize(at: u32) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let mut diagnostics = Diagnostics::default();
        let parsed = parse(text, 0, &mut diagnostics);
        let found: Vec<_> = diagnostics
            .as_slice()
            .iter()
            .map(|d| {
                let span = d.span.unwrap();
                format!("{} {}..{}: {}", d.code, span.start, span.end, d.message)
            })
            .collect();
        match (found.first(), expected) {
            (None, Ok(expected)) => assert_eq!(format!("{:?}", parsed.root), expected),
            (Some(_), Err(expected)) => assert_eq!(found.join("; "), expected),
            (_, expected) => panic!("{found:?} is not {expected:?}"),
        }
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        check(
            "[no, on, yes, NO, y]",
            Ok(r#"Array([String("no"), String("on"), String("yes"), String("NO"), String("y")])"#),
        );
        check("[true, False, ~, null, '']", Ok(r#"Array([Bool(true), Bool(false), Null, Null, String("")])"#));
        check(
            "[1, -2, 0x1F, 0o17, 017, 1_000]",
            Ok(r#"Array([Integer(1), Integer(-2), Integer(31), Integer(15), Integer(17), String("1_000")])"#),
        );
        check(
            "[1.5, .5, 1e3, -.inf, 1.2.3, e3, nan]",
            Ok(
                r#"Array([Float(1.5), Float(0.5), Float(1000.0), Float(-inf), String("1.2.3"), String("e3"), String("nan")])"#,
            ),
        );
        check("['1', \"true\", !!str 3]", Ok(r#"Array([String("1"), String("true"), String("3")])"#));
        check("a: |\n  x\n  y\nb: 12:30", Ok(r#"Table([(a, String("x\ny\n")), (b, String("12:30"))])"#));
    }

    #[test]
    fn keys_are_taken_by_their_text() {
        check(
            "200: a\ntrue: b\n'x y': {}",
            Ok(r#"Table([(200, String("a")), (true, String("b")), (x y, Table([]))])"#),
        );
        check("? [a]\n: b", Err("unsupported_yaml 2..3: a key is a string"));
        check("a: 1\nb: 2\na: 3", Err("duplicate_key 10..11: `a` is set twice"));
    }

    #[test]
    fn what_could_grow_or_surprise_is_refused() {
        check("a: &x 1", Err("unsupported_yaml 3..7: anchors are not read: write the value where it is used"));
        check(
            "a: &x 1\nb: *x",
            Err("unsupported_yaml 3..7: anchors are not read: write the value where it is used; \
            unsupported_yaml 11..13: aliases are not read: write the value out"),
        );
        check("a: !mine 1", Err("unsupported_yaml 3..10: tags are not read: !mine"));
        check("a: 1\n---\nb: 1", Err("syntax 5..8: a second document in the file"));
        check("99999999999999999999", Err("out_of_range 0..20: a number beyond 64 bits"));
    }

    #[test]
    fn a_syntax_error_keeps_what_came_before() {
        let mut diagnostics = Diagnostics::default();
        let parsed = parse("a: 1\nb: [1, 2\nc: 3", 0, &mut diagnostics);
        assert!(parsed.partial && diagnostics.errors() == 1, "{diagnostics:?}");
        assert!(parsed.root.get("a").is_some());
    }

    #[test]
    fn places_are_bytes_though_the_parser_counts_characters() {
        let text = "é: 'ü'\nö:\n  - x: 1\n    y: 2\n  - z\n";
        let mut diagnostics = Diagnostics::default();
        let root = parse(text, 0, &mut diagnostics).root;
        let written = |node: &Node| node.span.slice(text).unwrap().to_owned();
        assert_eq!(written(root.get("é").unwrap()), "'ü'");
        let Value::Array(items) = &root.get("ö").unwrap().value else { panic!("a list") };
        assert_eq!(items.iter().map(written).collect::<Vec<_>>(), ["x: 1\n    y: 2", "z"]);
    }

    #[test]
    fn depth_is_bounded() {
        let mut diagnostics = Diagnostics::default();
        parse(&"- ".repeat(100_000), 0, &mut diagnostics);
        assert_eq!(diagnostics.as_slice().first().map(|d| d.code), Some("too_deep"));
        parse(&"[".repeat(100_000), 0, &mut diagnostics);
        assert_eq!(diagnostics.errors(), 2);
    }
}
