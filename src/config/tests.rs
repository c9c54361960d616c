//! The steps together: the same document in three formats, the report of a file with many mistakes, and no input that
//! breaks a parser.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use proptest::prelude::*;
use schemars::JsonSchema;
use serde::Deserialize;

use super::load::{Loaded, Loader};
use super::node::{Key, Node, Parsed, Value};
use super::schema::DocumentSchema;
use super::{json, read, reference, render, secrets, toml, yaml};
use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::shape::{Both, OneOrMany};
use crate::model::source::{SourceSpan, Sources, Spanned};
use crate::model::toggle::{OrOff, Toggle};
use crate::model::units::Period;

/// A gateway in miniature.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "its schema and its reading are tested, not its use")]
struct Document {
    /// Where the admin page listens.
    #[serde(default)]
    address: Option<Spanned<String>>,
    /// How long a request may take, from its first byte to the last of the response.
    #[serde(default = "thirty")]
    timeout: Period,
    /// The servers behind, by name.
    #[serde(default)]
    upstream: BTreeMap<String, Upstream>,
    /// What goes where.
    #[serde(default)]
    route: Vec<Both<Route, Policies>>,
}

/// Servers that answer for one another.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "its schema and its reading are tested, not its use")]
struct Upstream {
    /// Where it is.
    url: Spanned<String>,
    /// Which server gets the next request.
    #[serde(default)]
    balance: Balance,
}

#[derive(Debug, Default, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Balance {
    /// In turn.
    #[default]
    RoundRobin,
    /// The one with the fewest requests under way.
    LeastRequest,
    /// By a key of the request.
    Hash(String),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "its schema and its reading are tested, not its use")]
struct Route {
    /// What it is called in logs and metrics.
    name: Spanned<String>,
    /// Which requests it takes.
    #[serde(default)]
    methods: OneOrMany<String>,
    /// Where they go | or not.
    upstream: Spanned<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "its schema and its reading are tested, not its use")]
struct Policies {
    /// How many requests are let through.
    #[serde(default)]
    rate_limit: Option<OrOff<RateLimit>>,
    /// Whether responses are compressed.
    #[serde(default)]
    compress: Option<Toggle<RateLimit>>,
}

/// So many, and some more at once.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "its schema and its reading are tested, not its use")]
struct RateLimit {
    /// Requests in a second.
    rate: Spanned<u32>,
    /// Requests on top.
    #[serde(default)]
    burst: u16,
}

fn thirty() -> Period {
    Period::from_secs(30)
}

fn load(file: &str) -> Loaded {
    let mut loaded = Loader::with_variables(HashMap::new()).load(&Path::new("tests/config").join(file));
    for path in &mut loaded.files {
        *path = path.file_name().map(Into::into).unwrap_or_default();
    }
    loaded
}

macro_rules! golden {
    ($name:literal, $text:expr) => {
        insta::with_settings!({ snapshot_path => "../../tests/config", prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!($name, $text);
        });
    };
}

#[test]
fn a_file_with_many_mistakes_is_reported_whole_and_in_place() {
    let mut loaded = load("mistakes.toml");
    assert!(read::<Document>(&mut loaded, &DocumentSchema::of::<Document>()).is_none());
    let report = render::text(&loaded.diagnostics, &loaded.sources, "tests/config/mistakes.toml", false);
    golden!("mistakes_text", report);
    let report = render::json(&loaded.diagnostics, &loaded.sources);
    golden!("mistakes_json", serde_json::to_string_pretty(&report).expect("it is JSON"));
}

#[test]
fn colour_is_there_when_it_is_asked_for() {
    let loaded = load("mistakes.toml");
    assert!(render::text(&loaded.diagnostics, &loaded.sources, "x", true).contains('\u{1b}'));
    assert!(!render::text(&loaded.diagnostics, &loaded.sources, "x", false).contains('\u{1b}'));
}

#[test]
fn a_report_survives_odd_places() {
    let mut sources = Sources::default();
    let file = sources.add("a.toml", format!("é = {{\n  b = 1\n}}\r\n{}", "x".repeat(10_000)));
    let other = sources.add("b.toml", "");
    let span = |file, start, end| SourceSpan { file, start, end };
    let mut diagnostics = Diagnostics::default();
    diagnostics.push(
        Diagnostic::error("many_lines", span(file, 0, 16), "spans three lines").related(span(other, 0, 0), "empty"),
    );
    diagnostics.push(Diagnostic::warning("at_end", span(file, 17, 17), "stands on the line break"));
    diagnostics.push(Diagnostic::error("long_line", span(file, 500, 501), "the line is long").help("break it"));
    diagnostics.push(Diagnostic::error("no_file", span(9, 1, 2), "in a file that is none"));
    diagnostics.push(Diagnostic::global("nowhere", "has no place"));
    golden!("odd_places_text", render::text(&diagnostics, &sources, "a.toml", false));
}

#[test]
fn nothing_wrong_is_said_so() {
    assert_eq!(render::summary(&Diagnostics::default(), "a.toml"), "no errors in a.toml");
}

#[test]
fn the_same_document_reads_the_same_in_every_format() {
    let trees = ["same.toml", "same.yaml", "same.json"].map(|file| {
        let loaded = load(file);
        assert!(loaded.diagnostics.as_slice().is_empty(), "{file}: {:?}", loaded.diagnostics);
        placeless(loaded.root)
    });
    let [toml, yaml, json] = trees;
    assert_eq!(toml, yaml);
    assert_eq!(toml, json);
}

#[test]
fn the_reference_and_the_schema_are_golden() {
    let schema = DocumentSchema::of::<Document>();
    golden!("reference", reference::markdown(&schema));
    golden!("schema", serde_json::to_string_pretty(&schema.published()).expect("it is JSON"));
}

fn placeless(mut node: Node) -> Node {
    node.span = SourceSpan::default();
    match &mut node.value {
        Value::Array(items) => items.iter_mut().for_each(|item| *item = placeless(item.clone())),
        Value::Table(entries) => {
            for (key, item) in entries {
                *key = Key { text: key.text.clone(), span: SourceSpan::default() };
                *item = placeless(item.clone());
            }
        }
        _ => {}
    }
    node
}

const PARSERS: [fn(&str, u32, &mut Diagnostics) -> Parsed; 3] = [toml::parse, yaml::parse, json::parse];

/// No parser panics on `text`, every place lies within it, and the rest of the way holds as well.
fn survives(text: &str) {
    for parse in PARSERS {
        let mut diagnostics = Diagnostics::default();
        let parsed = parse(text, 0, &mut diagnostics);
        within(text, &parsed.root);
        assert!(!parsed.partial || diagnostics.has_errors(), "cut off without a word: {text:?}");
        for diagnostic in diagnostics.as_slice() {
            let related = diagnostic.related.iter().map(|(span, _)| *span);
            diagnostic.span.into_iter().chain(related).for_each(|span| on_boundaries(text, span));
        }
        let mut sources = Sources::default();
        sources.add("a", text);
        let root = parsed.root.clone();
        let mut loaded = Loaded { sources, root, partial: parsed.partial, files: Vec::new(), diagnostics };
        let document = read::<Document>(&mut loaded, &DocumentSchema::of::<Document>());
        assert!(document.is_some() || loaded.diagnostics.has_errors(), "nothing was read, without a word: {text:?}");
        let _ = render::text(&loaded.diagnostics, &loaded.sources, "a", false);
        let _ = render::json(&loaded.diagnostics, &loaded.sources);
        let _ = secrets::redacted(&loaded.root);
    }
}

fn within(text: &str, node: &Node) {
    on_boundaries(text, node.span);
    match &node.value {
        Value::Array(items) => items.iter().for_each(|item| within(text, item)),
        Value::Table(entries) => entries.iter().for_each(|(key, item)| {
            on_boundaries(text, key.span);
            within(text, item);
        }),
        _ => {}
    }
}

fn on_boundaries(text: &str, span: SourceSpan) {
    assert!(span.slice(text).is_some(), "{span:?} is not a piece of {text:?}");
}

const SAMPLES: [&str; 4] = [
    include_str!("../../tests/config/mistakes.toml"),
    include_str!("../../tests/config/same.toml"),
    include_str!("../../tests/config/same.yaml"),
    include_str!("../../tests/config/same.json"),
];

/// Pieces that mean something to one of the parsers.
const PIECES: [&str; 40] = [
    "[", "]", "[[", "]]", "{", "}", "=", ":", ": ", "- ", "\n", "\r\n", "\t", "  ", ",", ".", "\"", "'", "\"\"\"",
    "'''", "\\u00e9", "\\", "#", "&a ", "*a", "!!str ", "|\n", ">-\n", "---\n", "? ", "a", "name", "route", "é", "😀",
    "\u{feff}", "1e9", "-0x", "true", "${env:A}",
];

const CASES: u32 = 300;

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_breaks_a_parser(text in "\\PC*") {
        survives(&text);
    }

    #[test]
    fn no_bytes_break_a_parser(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        survives(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_heap_of_syntax_breaks_a_parser(picks in proptest::collection::vec(0..PIECES.len(), 0..60)) {
        survives(&picks.into_iter().map(|pick| PIECES[pick]).collect::<String>());
    }

    #[test]
    fn no_mutated_document_breaks_a_parser(
        sample in 0..SAMPLES.len(),
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), 0..PIECES.len(), 0..6_usize), 1..6),
    ) {
        let mut text: Vec<char> = SAMPLES[sample].chars().collect();
        for (at, piece, removed) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + removed).min(text.len());
            text.splice(at..end, PIECES[piece].chars());
        }
        survives(&text.into_iter().collect::<String>());
    }
}
