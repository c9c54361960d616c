//! How findings are shown: underlined source for people, JSON for programs.
//!
//! The source lines show references, not secrets, because they are the operator's own text. Whether colour is wanted is
//! the caller's to decide (`NO_COLOR`, a terminal).

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde_json::{Value as Json, json};

use crate::model::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::model::source::{SourceSpan, Sources};

/// Longer lines are not shown, only named: nobody finds anything in them.
const MAX_LINE: usize = 4096;

/// Text for people: a report for each finding in the order of the places, then a summary that names `target`.
#[must_use]
pub fn text(diagnostics: &Diagnostics, sources: &Sources, target: &str, color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let mut shown = String::new();
    for diagnostic in in_order(diagnostics) {
        shown.push_str(&renderer.render(&[report(diagnostic, sources)]));
        shown.push_str("\n\n");
    }
    shown.push_str(&summary(diagnostics, target));
    shown.push('\n');
    shown
}

/// `2 errors, 1 warning in conf/portcullis.toml`.
#[must_use]
pub fn summary(diagnostics: &Diagnostics, target: &str) -> String {
    let errors = diagnostics.errors();
    let warnings = diagnostics.as_slice().iter().filter(|d| d.severity == Severity::Warning).count();
    let count = |number: usize, noun: &str| match number {
        0 => None,
        1 => Some(format!("1 {noun}")),
        _ => Some(format!("{number} {noun}s")),
    };
    let counts: Vec<_> = [count(errors, "error"), count(warnings, "warning")].into_iter().flatten().collect();
    let counts = if counts.is_empty() { "no errors".to_owned() } else { counts.join(", ") };
    match diagnostics.dropped() {
        0 => format!("{counts} in {target}"),
        dropped => format!("{counts} in {target} ({dropped} not shown)"),
    }
}

/// A list of objects for programs. Lines and columns count from one, columns in characters; without a place they are null.
#[must_use]
pub fn json(diagnostics: &Diagnostics, sources: &Sources) -> Json {
    in_order(diagnostics)
        .into_iter()
        .map(|diagnostic| {
            let mut object = place(diagnostic.span, sources);
            let related = diagnostic.related.iter().map(|(span, why)| {
                let mut object = place(Some(*span), sources);
                object.insert("message".to_owned(), json!(why));
                object
            });
            let related: Vec<_> = related.collect();
            object.insert("severity".to_owned(), json!(severity(diagnostic.severity)));
            object.insert("code".to_owned(), json!(diagnostic.code));
            object.insert("message".to_owned(), json!(diagnostic.message));
            object.insert("help".to_owned(), json!(diagnostic.help));
            object.insert("related".to_owned(), json!(related));
            Json::Object(object)
        })
        .collect()
}

const fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

fn place(span: Option<SourceSpan>, sources: &Sources) -> serde_json::Map<String, Json> {
    let start = span.map(|span| sources.origin(span)).filter(|origin| origin.line > 0);
    let end = span.map(|span| sources.origin(SourceSpan { start: span.end, ..span })).filter(|origin| origin.line > 0);
    let fields = [
        ("file", json!(start.as_ref().map(|origin| &origin.file))),
        ("line", json!(start.as_ref().map(|origin| origin.line))),
        ("column", json!(start.as_ref().map(|origin| origin.column))),
        ("end_line", json!(end.as_ref().map(|origin| origin.line))),
        ("end_column", json!(end.as_ref().map(|origin| origin.column))),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn in_order(diagnostics: &Diagnostics) -> Vec<&Diagnostic> {
    let mut all: Vec<_> = diagnostics.as_slice().iter().collect();
    all.sort_by_key(|diagnostic| diagnostic.span.map(|span| (span.file, span.start)));
    all
}

fn report<'a>(diagnostic: &'a Diagnostic, sources: &'a Sources) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Warning => Level::WARNING,
        Severity::Error => Level::ERROR,
    };
    let mut group = Group::with_title(level.primary_title(diagnostic.message.as_str()).id(diagnostic.code));
    let related = diagnostic.related.iter().map(|(span, why)| (*span, Some(why.as_ref())));
    let mut marks: Vec<_> = diagnostic.span.map(|span| (span, None)).into_iter().chain(related).collect();
    while let Some((span, _)) = marks.first().copied() {
        let Some(line) = Line::of(span, sources) else {
            marks.remove(0);
            continue;
        };
        let (here, elsewhere): (Vec<_>, Vec<_>) = marks.into_iter().partition(|(span, _)| line.holds(*span));
        marks = elsewhere;
        if line.text.len() > MAX_LINE {
            let origin = sources.origin(span);
            let column = usize::try_from(origin.column).unwrap_or_default();
            group = group.element(Origin::path(line.path).line(line.number).char_column(column));
            continue;
        }
        let annotations = here.into_iter().map(|(span, why)| {
            let kind = if Some(span) == diagnostic.span && why.is_none() {
                AnnotationKind::Primary
            } else {
                AnnotationKind::Context
            };
            kind.span(line.range(span)).label(why)
        });
        let snippet: Snippet<'a, Annotation<'a>> = Snippet::source(line.text).path(line.path).line_start(line.number);
        group = group.element(snippet.annotations(annotations));
    }
    match &diagnostic.help {
        Some(help) => group.element(Level::HELP.message(help.as_str())),
        None => group,
    }
}

/// The line on which a place begins. What goes on beyond the line is underlined up to its end.
struct Line<'a> {
    file: u32,
    path: &'a str,
    text: &'a str,
    start: usize,
    number: usize,
}

impl<'a> Line<'a> {
    fn of(span: SourceSpan, sources: &'a Sources) -> Option<Self> {
        let source = sources.get(span.file)?;
        let at = usize::try_from(span.start).ok()?.min(source.text.len());
        let before = source.text.get(..at)?;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let rest = source.text.get(start..)?;
        let text = rest.split('\n').next().unwrap_or_default();
        let text = text.strip_suffix('\r').unwrap_or(text);
        let number = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        Some(Self { file: span.file, path: &source.path, text, start, number })
    }

    fn holds(&self, span: SourceSpan) -> bool {
        let at = usize::try_from(span.start).unwrap_or(usize::MAX);
        span.file == self.file && (self.start..=self.start + self.text.len() + 1).contains(&at)
    }

    fn range(&self, span: SourceSpan) -> std::ops::Range<usize> {
        let within =
            |at: u32| usize::try_from(at).unwrap_or(usize::MAX).saturating_sub(self.start).min(self.text.len());
        within(span.start)..within(span.end)
    }
}
