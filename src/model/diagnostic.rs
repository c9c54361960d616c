//! What is wrong with a configuration, for the person who has to mend it.
//!
//! Every step of loading pushes its findings into one [`Diagnostics`]; nothing stops at the first one.

use std::borrow::Cow;

use super::source::SourceSpan;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Accepted, but probably not what was meant.
    Warning,
    /// The configuration is refused.
    Error,
}

/// One finding. `code` is stable (`unknown_key`, `bad_value`, …); `message` is lower case without a full stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the configuration is refused for it.
    pub severity: Severity,
    /// Stable name of the kind of mistake.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// Where; `None` when no single place is to blame.
    pub span: Option<SourceSpan>,
    /// Further places that matter, each with a word on why ("first defined here").
    pub related: Vec<(SourceSpan, Cow<'static, str>)>,
    /// How to mend it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(code: &'static str, span: SourceSpan, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            span: Some(span),
            related: Vec::new(),
            help: None,
        }
    }

    /// A warning at a place.
    pub fn warning(code: &'static str, span: SourceSpan, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, span, message) }
    }

    /// An error that no place in a file is to blame for.
    pub fn global(code: &'static str, message: impl Into<String>) -> Self {
        Self { span: None, ..Self::error(code, SourceSpan::default(), message) }
    }

    /// Adds the way out.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds another place.
    #[must_use]
    pub fn related(mut self, span: SourceSpan, why: impl Into<Cow<'static, str>>) -> Self {
        self.related.push((span, why.into()));
        self
    }
}

/// Findings in the order in which they were made. Bounded: past [`Diagnostics::MAX`] only the count goes on.
#[derive(Debug, Clone, Default)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    dropped: usize,
    errors: usize,
}

impl Diagnostics {
    /// More findings than anybody reads.
    pub const MAX: usize = 1000;

    /// Adds a finding.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if diagnostic.severity == Severity::Error {
            self.errors += 1;
        }
        if self.list.len() < Self::MAX {
            self.list.push(diagnostic);
        } else {
            self.dropped += 1;
        }
    }

    /// Whether the configuration has to be refused.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// How many of the findings refuse the configuration.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// How many findings are not listed because there are more than [`Diagnostics::MAX`].
    #[must_use]
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// The findings.
    #[must_use]
    pub fn as_slice(&self) -> &[Diagnostic] {
        &self.list
    }

    /// The findings, for rewording.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Diagnostic> {
        self.list.iter_mut()
    }
}

impl Extend<Diagnostic> for Diagnostics {
    fn extend<I: IntoIterator<Item = Diagnostic>>(&mut self, findings: I) {
        findings.into_iter().for_each(|finding| self.push(finding));
    }
}

/// The candidate nearest to what was written, when it is near enough to be what was meant.
///
/// Jaro-Winkler similarity above 0.75; the first of equals wins.
pub fn did_you_mean<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best: Option<(f64, &str)> = None;
    for candidate in candidates {
        let score = strsim::jaro_winkler(written, candidate);
        if score > 0.75 && best.is_none_or(|(top, _)| score > top) {
            best = Some((score, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_the_near_and_not_the_far() {
        let keys = ["rate_limit", "retry", "rewrite"];
        assert_eq!(did_you_mean("rate_limt", keys), Some("rate_limit"));
        assert_eq!(did_you_mean("rewrit", keys), Some("rewrite"));
        assert_eq!(did_you_mean("zzz", keys), None);
    }

    #[test]
    fn a_flood_of_findings_is_bounded_and_counted() {
        let mut all = Diagnostics::default();
        for _ in 0..Diagnostics::MAX + 5 {
            all.push(Diagnostic::global("x", "y"));
        }
        assert_eq!((all.as_slice().len(), all.dropped(), all.errors()), (Diagnostics::MAX, 5, Diagnostics::MAX + 5));
    }
}
