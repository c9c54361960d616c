//! JSON (RFC 8259) to [`Node`], strictly: no comments, no trailing commas, no duplicate keys. The first syntax error ends it.

use std::collections::HashMap;
use std::ops::Range;

use super::node::{Key, MAX_DEPTH, Node, Parsed, Text, Value, insert_unique};
use crate::model::diagnostic::{Diagnostic, Diagnostics};

/// Reads `text`, the file of index `file`, and pushes what is wrong with it.
pub fn parse(text: &str, file: u32, diagnostics: &mut Diagnostics) -> Parsed {
    let mut reader = Reader { text: Text { text, file }, at: 0, stopped: false, partial: false, diagnostics };
    let root = reader.value(0);
    reader.skip_space();
    if !reader.stopped && reader.at < text.len() {
        reader.fail(reader.at..text.len(), "text after the end of the document");
    }
    Parsed { root, partial: reader.partial }
}

struct Reader<'a> {
    text: Text<'a>,
    at: usize,
    /// Set by the first syntax error: everything being read ends where it is.
    stopped: bool,
    partial: bool,
    diagnostics: &'a mut Diagnostics,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Node {
        self.skip_space();
        let start = self.at;
        let value = match self.peek() {
            Some(b'{') if depth <= MAX_DEPTH => self.table(depth),
            Some(b'[') if depth <= MAX_DEPTH => self.array(depth),
            Some(b'{' | b'[') => {
                self.diagnostics.push(self.text.too_deep(&(start..start + 1)));
                (self.stopped, self.partial) = (true, true);
                Value::Null
            }
            Some(b'"') => Value::String(self.string()),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) => self.word(),
            None => {
                self.fail(start..start, "the document ends where a value is expected");
                Value::Null
            }
        };
        Node::new(self.text.span(&(start..self.at)), value)
    }

    fn table(&mut self, depth: usize) -> Value {
        let (mut entries, mut seen) = (Vec::new(), HashMap::new());
        self.at += 1;
        let mut first = true;
        while self.goes_on(b'}', &mut first) {
            let start = self.at;
            if self.peek() != Some(b'"') {
                self.unexpected("a key in double quotes");
                break;
            }
            let text = self.string();
            let key = Key { text, span: self.text.span(&(start..self.at)) };
            self.skip_space();
            if self.stopped || !self.eat(b':') {
                self.unexpected("`:`");
                break;
            }
            let node = self.value(depth + 1);
            if let Some(duplicate) = insert_unique(&mut entries, &mut seen, key, node) {
                self.diagnostics.push(duplicate);
            }
        }
        Value::Table(entries)
    }

    fn array(&mut self, depth: usize) -> Value {
        let mut items = Vec::new();
        self.at += 1;
        let mut first = true;
        while self.goes_on(b']', &mut first) {
            items.push(self.value(depth + 1));
        }
        Value::Array(items)
    }

    /// Whether another entry follows: past the comma, or else past the closing bracket.
    fn goes_on(&mut self, close: u8, first: &mut bool) -> bool {
        self.skip_space();
        if self.stopped {
            return false;
        }
        let is_first = std::mem::replace(first, false);
        if self.eat(close) {
            return false;
        }
        if is_first {
            return true;
        }
        if !self.eat(b',') {
            self.unexpected(if close == b'}' { "`,` or `}`" } else { "`,` or `]`" });
            return false;
        }
        self.skip_space();
        if self.peek() == Some(close) {
            self.fail(self.at..self.at + 1, "JSON has no comma before the closing bracket");
        }
        !self.stopped
    }

    fn string(&mut self) -> String {
        let start = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            let rest = self.text.text.get(self.at..).unwrap_or_default();
            let plain = rest.find(|c: char| c == '"' || c == '\\' || c < ' ').unwrap_or(rest.len());
            text.push_str(rest.get(..plain).unwrap_or_default());
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return text;
                }
                Some(b'\\') => match self.escape() {
                    Some(c) => text.push(c),
                    None => return text,
                },
                Some(b'\n' | b'\r') | None => {
                    self.fail(start..self.at, "a string without a closing quote");
                    return text;
                }
                Some(_) => {
                    self.fail(self.at..self.at + 1, "a control character in a string is written as an escape");
                    return text;
                }
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let start = self.at;
        let named = match self.text.text.as_bytes().get(start + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => {
                self.fail(start..start + 2, "not an escape of JSON");
                return None;
            }
        };
        self.at = start + 2;
        Some(named)
    }

    // RFC 8259 section 7: a character beyond the basic plane is a pair of surrogates.
    fn unicode_escape(&mut self) -> Option<char> {
        let start = self.at;
        let high = self.hex_unit(start);
        let low = self.hex_unit(start + 6);
        let (units, length) = match (high, low) {
            (Some(high @ 0xD800..=0xDBFF), Some(low)) => (vec![high, low], 12),
            (Some(unit), _) => (vec![unit], 6),
            (None, _) => (vec![0xD800], 6),
        };
        let Some(Ok(c)) = char::decode_utf16(units).next() else {
            self.fail(start..start + length, "not a character's escape");
            return None;
        };
        self.at = start + length;
        Some(c)
    }

    fn hex_unit(&self, at: usize) -> Option<u16> {
        let digits = self.text.text.get(at..at + 6)?.strip_prefix("\\u")?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        u16::from_str_radix(digits, 16).ok()
    }

    fn number(&mut self) -> Value {
        let range = self.token();
        let text = self.text.text.get(range.clone()).unwrap_or_default();
        if !is_json_number(text) {
            self.fail(range, "not a number as JSON writes it");
            return Value::Null;
        }
        if !text.contains(['.', 'e', 'E'])
            && let Ok(integer) = text.parse::<i64>()
        {
            return Value::Integer(integer);
        }
        match text.parse::<f64>() {
            Ok(float) if float.is_finite() && text.contains(['.', 'e', 'E']) => Value::Float(float),
            _ => {
                self.partial = true;
                let span = self.text.span(&range);
                self.diagnostics.push(Diagnostic::error("out_of_range", span, "a number beyond 64 bits"));
                Value::Null
            }
        }
    }

    fn word(&mut self) -> Value {
        let range = self.token();
        match self.text.text.get(range.clone()) {
            Some("true") => Value::Bool(true),
            Some("false") => Value::Bool(false),
            Some("null") => Value::Null,
            Some("") => {
                self.unexpected("a value");
                Value::Null
            }
            _ => {
                self.fail(range, "not a value: strings stand in double quotes");
                Value::Null
            }
        }
    }

    fn token(&mut self) -> Range<usize> {
        let rest = self.text.text.get(self.at..).unwrap_or_default();
        let is_end = |c: char| c.is_whitespace() || matches!(c, ',' | ':' | '[' | ']' | '{' | '}' | '"');
        let start = self.at;
        self.at += rest.find(is_end).unwrap_or(rest.len());
        start..self.at
    }

    fn unexpected(&mut self, expected: &str) {
        if self.stopped {
            return;
        }
        let found = self.text.text.get(self.at..).and_then(|rest| rest.chars().next());
        let (length, found) = match found {
            Some(c) if c.is_control() => (c.len_utf8(), format!("`{}`", c.escape_default())),
            Some(c) => (c.len_utf8(), format!("`{c}`")),
            None => (0, "the end of the document".to_owned()),
        };
        self.fail(self.at..self.at + length, &format!("expected {expected}, found {found}"));
    }

    fn fail(&mut self, range: Range<usize>, message: &str) {
        if !self.stopped {
            self.diagnostics.push(self.text.syntax(&range, message));
        }
        (self.stopped, self.partial) = (true, true);
    }

    fn peek(&self) -> Option<u8> {
        self.text.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }
}

// RFC 8259 section 6: `-`, then `0` or digits without a leading zero, then fraction and exponent, each with a digit.
fn is_json_number(text: &str) -> bool {
    let digits = |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let text = text.strip_prefix('-').unwrap_or(text);
    let whole = digits(text);
    if whole == 0 || (whole > 1 && text.starts_with('0')) {
        return false;
    }
    let mut rest = text.get(whole..).unwrap_or_default();
    if let Some(fraction) = rest.strip_prefix('.') {
        let length = digits(fraction);
        if length == 0 {
            return false;
        }
        rest = fraction.get(length..).unwrap_or_default();
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        return !exponent.is_empty() && digits(exponent) == exponent.len();
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let mut diagnostics = Diagnostics::default();
        let parsed = parse(text, 0, &mut diagnostics);
        let found = diagnostics.as_slice().first().map(|d| {
            let span = d.span.unwrap();
            format!("{} {}..{}: {}", d.code, span.start, span.end, d.message)
        });
        match (found, expected) {
            (None, Ok(expected)) => assert_eq!(format!("{:?}", parsed.root), expected),
            (Some(found), Err(expected)) => assert_eq!(found, expected),
            (found, expected) => panic!("{found:?} is not {expected:?}"),
        }
        let judged_by_serde = serde_json::from_str::<serde_json::Value>(text).is_ok();
        let strict = expected.is_err_and(|e| e.starts_with("duplicate_key") || e.starts_with("out_of_range"));
        assert_eq!(expected.is_ok(), judged_by_serde && !strict, "serde_json disagrees");
    }

    #[test]
    fn reads_what_rfc_8259_allows() {
        check(
            r#"{"a": [1, -0, 1.5e3, true, null, {}], "b": "x\n\u00e9\ud83d\ude00\/"}"#,
            Ok(
                "Table([(a, Array([Integer(1), Integer(0), Float(1500.0), Bool(true), Null, Table([])])), (b, String(\"x\\né😀/\"))])",
            ),
        );
        check(" [ ] ", Ok("Array([])"));
    }

    #[test]
    fn refuses_what_it_does_not() {
        check("", Err("syntax 0..0: the document ends where a value is expected"));
        check(r#"{"a": 1,}"#, Err("syntax 8..9: JSON has no comma before the closing bracket"));
        check(r#"{"a": 1 "b": 2}"#, Err("syntax 8..9: expected `,` or `}`, found `\"`"));
        check("{a: 1}", Err("syntax 1..2: expected a key in double quotes, found `a`"));
        check(r#"{"a"}"#, Err("syntax 4..5: expected `:`, found `}`"));
        check("[yes]", Err("syntax 1..4: not a value: strings stand in double quotes"));
        check("[01]", Err("syntax 1..3: not a number as JSON writes it"));
        check("[1.]", Err("syntax 1..3: not a number as JSON writes it"));
        check("[1e]", Err("syntax 1..3: not a number as JSON writes it"));
        check("[\"a\nb\"]", Err("syntax 1..3: a string without a closing quote"));
        check(r#"["\ud800"]"#, Err("syntax 2..8: not a character's escape"));
        check(r#"["\x"]"#, Err("syntax 2..4: not an escape of JSON"));
        check("[\"\t\"]", Err("syntax 2..3: a control character in a string is written as an escape"));
        check("[] []", Err("syntax 3..5: text after the end of the document"));
        check("[,]", Err("syntax 1..2: expected a value, found `,`"));
        check(r#"{"a": 1, "a": 2}"#, Err("duplicate_key 9..12: `a` is set twice"));
        check("[9223372036854775808]", Err("out_of_range 1..20: a number beyond 64 bits"));
    }

    #[test]
    fn depth_is_bounded() {
        let mut diagnostics = Diagnostics::default();
        parse(&"[".repeat(1_000_000), 0, &mut diagnostics);
        assert_eq!(diagnostics.as_slice().first().map(|d| d.code), Some("too_deep"));
    }
}
