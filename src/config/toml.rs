//! TOML to [`Node`]. Several syntax errors are reported at once, because the parser goes on at the next line.
//!
//! A date is read as its text: no setting takes one.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue};

use super::node::{Key, MAX_DEPTH, Node, Parsed, Text, Value, duplicate_key};
use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::source::SourceSpan;

/// Reads `text`, the file of index `file`, and pushes what is wrong with it.
pub fn parse(text: &str, file: u32, diagnostics: &mut Diagnostics) -> Parsed {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader { text: Text { text, file }, diagnostics, broken: Vec::new(), partial: false };
    let mut duplicates = Vec::new();
    for error in &errors {
        let range = error.span().unwrap_or(0..0);
        if error.message() == "duplicate key" {
            duplicates.push(range);
        } else {
            reader.partial = true;
            reader.broken.push(range.start);
            reader.diagnostics.push(reader.text.syntax(&range, error.message()));
        }
    }
    reader.broken.sort_unstable();
    let root = reader.table(table.get_ref(), &(0..0), 0);
    for (index, range) in duplicates.into_iter().enumerate() {
        reader.duplicate((index < SEARCHED).then_some(&root), &range);
    }
    Parsed { root, partial: reader.partial }
}

/// For how many duplicates the first place is looked for: each search goes through the whole file.
const SEARCHED: usize = 50;

struct Reader<'a> {
    text: Text<'a>,
    diagnostics: &'a mut Diagnostics,
    /// Where the syntax errors are, in order: a value on their line is not believed.
    broken: Vec<usize>,
    partial: bool,
}

impl Reader<'_> {
    fn table(&mut self, table: &DeTable<'_>, range: &Range<usize>, depth: usize) -> Node {
        let span = self.text.span(range);
        if depth > MAX_DEPTH {
            return self.too_deep(range);
        }
        let mut entries: Vec<_> = table.iter().filter(|(key, value)| self.is_sound(key, value)).collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let entries = entries
            .into_iter()
            .map(|(key, value)| {
                let name = Key { text: key.get_ref().to_string(), span: self.text.span(&key.span()) };
                (name, self.value(value, depth + 1))
            })
            .collect();
        Node::new(span, Value::Table(entries))
    }

    fn array(&mut self, array: &DeArray<'_>, range: &Range<usize>, depth: usize) -> Node {
        if depth > MAX_DEPTH {
            return self.too_deep(range);
        }
        let items = array.iter().map(|item| self.value(item, depth + 1)).collect();
        Node::new(self.text.span(range), Value::Array(items))
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>, depth: usize) -> Node {
        let range = value.span();
        let read = match value.get_ref() {
            DeValue::Table(table) => return self.table(table, &range, depth),
            DeValue::Array(array) => return self.array(array, &range, depth),
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Boolean(value) => Value::Bool(*value),
            DeValue::Datetime(date) => Value::String(date.to_string()),
            DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(value) => Value::Integer(value),
                Err(_) => self.out_of_range(&range),
            },
            DeValue::Float(float) => match float.as_str().parse::<f64>() {
                Ok(value) => Value::Float(value),
                Err(_) => self.out_of_range(&range),
            },
        };
        Node::new(self.text.span(&range), read)
    }

    /// Whether what the parser recovered can be believed: a value that is missing reads as an integer at 0..0.
    fn is_sound(&self, key: &Spanned<DeString<'_>>, value: &Spanned<DeValue<'_>>) -> bool {
        if matches!(value.get_ref(), DeValue::Table(_)) {
            return true;
        }
        if value.span() == (0..0) {
            return false;
        }
        let rest = self.text.text.get(value.span().end..).unwrap_or_default();
        let line_end = value.span().end + rest.find('\n').unwrap_or(rest.len());
        let first = self.broken.partition_point(|at| *at < key.span().start);
        self.broken.get(first).is_none_or(|at| *at > line_end)
    }

    fn out_of_range(&mut self, range: &Range<usize>) -> Value {
        self.partial = true;
        let message = "a number beyond 64 bits";
        self.diagnostics.push(Diagnostic::error("out_of_range", self.text.span(range), message));
        Value::Null
    }

    fn too_deep(&mut self, range: &Range<usize>) -> Node {
        self.partial = true;
        self.diagnostics.push(self.text.too_deep(range));
        Node::new(self.text.span(range), Value::Null)
    }

    /// The parser says where the second key is but not the first: that is the nearest line before with the same header,
    /// or the nearest key of that name in the same table. Where this is not certain, no first place is named.
    fn duplicate(&mut self, root: Option<&Node>, range: &Range<usize>) {
        let written = self.text.text.get(range.clone()).unwrap_or_default();
        let key = Key { text: unquoted(written).to_owned(), span: self.text.span(range) };
        let mut first = None;
        match root {
            Some(_) if self.line_before(key.span).is_some_and(|before| before.starts_with('[')) => {
                first = self.header_before(range);
            }
            Some(root) => self.nearest_before(root, &key, &mut first),
            None => {}
        }
        self.diagnostics.push(duplicate_key(&key, first));
    }

    fn header_before(&self, range: &Range<usize>) -> Option<SourceSpan> {
        let line_start = self.text.text.get(..range.start)?.rfind('\n')? + 1;
        let header = self.text.text.get(line_start..range.end)?.trim_start();
        let mut end = line_start;
        for line in self.text.text.get(..line_start)?.split_inclusive('\n').rev() {
            let start = end - line.len();
            let rest = line.trim_start().strip_prefix(header);
            if rest.is_some_and(|rest| rest.trim_start().starts_with(']')) {
                let key_end = start + (line.len() - line.trim_start().len()) + header.len();
                return Some(self.text.span(&(key_end - range.len()..key_end)));
            }
            end = start;
        }
        None
    }

    fn nearest_before(&self, node: &Node, key: &Key, best: &mut Option<SourceSpan>) {
        let children: Box<dyn Iterator<Item = &Node>> = match &node.value {
            Value::Table(entries) => {
                for (name, _) in entries.iter().filter(|(name, _)| name.text == key.text) {
                    let nearer = best.is_none_or(|best| best.start < name.span.start);
                    if name.span.start < key.span.start && nearer && self.is_sibling(name.span, key.span) {
                        *best = Some(name.span);
                    }
                }
                Box::new(entries.iter().map(|(_, node)| node))
            }
            Value::Array(items) => Box::new(items.iter()),
            _ => return,
        };
        children.for_each(|child| self.nearest_before(child, key, best));
    }

    fn is_sibling(&self, first: SourceSpan, second: SourceSpan) -> bool {
        let (Some(before_first), Some(before_second)) = (self.line_before(first), self.line_before(second)) else {
            return false;
        };
        if before_first.contains('{') || before_second.contains('{') {
            // within inline tables: siblings only when no bracket lies between them
            let between = self.between(first, second).unwrap_or("{");
            return !between.contains(['{', '}', '[', ']']);
        }
        let between = self.between(first, second).unwrap_or("[");
        before_first == before_second && !between.lines().any(|line| line.trim_start().starts_with('['))
    }

    fn line_before(&self, span: SourceSpan) -> Option<&str> {
        let before = self.text.text.get(..usize::try_from(span.start).ok()?)?;
        Some(before.rsplit('\n').next().unwrap_or_default().trim())
    }

    fn between(&self, first: SourceSpan, second: SourceSpan) -> Option<&str> {
        self.text.text.get(usize::try_from(first.end).ok()?..usize::try_from(second.start).ok()?)
    }
}

fn unquoted(key: &str) -> &str {
    let inner = |quote: char| key.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(&str, &str, Option<&str>)]) -> Parsed {
        let mut diagnostics = Diagnostics::default();
        let parsed = parse(text, 0, &mut diagnostics);
        let at = |span: SourceSpan| {
            let before = SourceSpan { start: 0, end: span.start, ..span };
            format!("{}:{}", before.slice(text).unwrap().matches('\n').count() + 1, span.slice(text).unwrap())
        };
        let found: Vec<_> = diagnostics
            .as_slice()
            .iter()
            .map(|d| (d.code, at(d.span.unwrap()), d.related.first().map(|(span, _)| at(*span))))
            .collect();
        let found: Vec<_> = found.iter().map(|(code, at, first)| (*code, at.as_str(), first.as_deref())).collect();
        assert_eq!(found, expected, "{:?}", diagnostics.as_slice());
        parsed
    }

    #[test]
    fn reads_every_kind_of_value_in_the_order_of_the_file() {
        let parsed =
            check("b = 0x1F\na = [1.5, true, 'x', 1979-05-27]\n[t.u]\nk = {}\n[[l]]\n[[l]]\nx=\"\"\"\né\"\"\"", &[]);
        assert_eq!(
            format!("{:?}", parsed.root),
            "Table([(b, Integer(31)), (a, Array([Float(1.5), Bool(true), String(\"x\"), String(\"1979-05-27\")])), \
             (t, Table([(u, Table([(k, Table([]))]))])), (l, Array([Table([]), Table([(x, String(\"é\"))])]))])"
        );
    }

    #[test]
    fn a_table_stands_at_its_header_and_a_value_at_itself() {
        let text = "[a]\nkey = \"v\"\n";
        let root = check(text, &[]).root;
        let table = root.get("a").unwrap();
        let value = table.get("key").unwrap();
        assert_eq!((table.span.start, table.span.end), (0, 3));
        assert_eq!((value.span.start, value.span.end), (10, 13));
    }

    #[test]
    fn several_syntax_errors_are_reported_and_the_rest_is_read() {
        let parsed = check("a = \nb = 1\nc = 'x\nd = 2\n", &[("syntax", "1:", None), ("syntax", "3:", None)]);
        assert!(parsed.partial);
        let keys: Vec<_> = parsed.root.entries().iter().map(|(key, _)| key.text.as_str()).collect();
        assert_eq!(keys, ["b", "d"]);
    }

    #[test]
    fn a_duplicate_names_both_places_when_they_are_certain() {
        check("a = 1\nb = {a = 2}\na = 3", &[("duplicate_key", "3:a", Some("1:a"))]);
        check("[x]\na = 1\n[y]\na = 1\na = 2", &[("duplicate_key", "5:a", Some("4:a"))]);
        check("[u.api]\n[v.api]\n[u.api]\nz = 1", &[("duplicate_key", "3:api", Some("1:api"))]);
        check("x = { a = 1, b = 2, a = 3 }", &[("duplicate_key", "1:a", Some("1:a"))]);
        check("x = { a = 1, b = { a = 4 }, a = 3 }", &[("duplicate_key", "1:a", None)]);
        check("[[r]]\nn = 1\n[[r]]\nn = 1\n\"n\" = 2", &[("duplicate_key", "5:\"n\"", Some("4:n"))]);
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        check("a = 9223372036854775808", &[("out_of_range", "1:9223372036854775808", None)]);
    }

    #[test]
    fn depth_is_bounded() {
        let mut diagnostics = Diagnostics::default();
        let text = format!("a = {}{}", "[".repeat(70), "]".repeat(70));
        assert!(parse(&text, 0, &mut diagnostics).partial);
        assert_eq!(diagnostics.as_slice().first().map(|d| d.code), Some("too_deep"));
        for deep in [format!("a = {}", "[".repeat(200_000)), format!("[{}a]", "a.".repeat(200_000))] {
            let mut diagnostics = Diagnostics::default();
            parse(&deep, 0, &mut diagnostics);
            assert!(diagnostics.has_errors());
        }
        let dotted = "a.".repeat(78);
        let combined = format!("x = {}1{}", format!("{{ {dotted}a = ").repeat(78), " }".repeat(78));
        let mut diagnostics = Diagnostics::default();
        parse(&combined, 0, &mut diagnostics);
        assert!(diagnostics.has_errors());
    }
}
