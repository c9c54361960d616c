//! Text with placeholders in braces, taken apart once, when the configuration is read: `"client {client.ip}"`.
//!
//! Decides what is literal and what is a placeholder; what placeholders there are and what they stand for is the
//! policy's word. `{{` and `}}` are the braces themselves. Never looks anything up while a request is served.

use super::diagnostic::{Diagnostic, Diagnostics, did_you_mean};
use super::source::Spanned;

/// One piece of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part<P> {
    /// Taken as it is.
    Literal(Box<str>),
    /// Replaced for each request.
    Placeholder(P),
}

/// The pieces in order. No two literals stand beside each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template<P>(Box<[Part<P>]>);

impl<P> Template<P> {
    /// The pieces.
    #[must_use]
    pub fn parts(&self) -> &[Part<P>] {
        &self.0
    }

    /// The whole text, when it has no placeholder.
    #[must_use]
    pub fn as_literal(&self) -> Option<&str> {
        match self.parts() {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Reads a setting. `names` are the placeholders for the suggestion; one that ends with `.` is a beginning.
    pub fn compile(
        written: &Spanned<String>,
        names: &[&str],
        resolve: impl Fn(&str) -> Option<P>,
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        match Self::parse(written, resolve) {
            Ok(template) => Some(template),
            Err(error) => {
                diagnostics.push(error.at(written, names));
                None
            }
        }
    }

    fn parse(text: &str, resolve: impl Fn(&str) -> Option<P>) -> Result<Self, TemplateError<'_>> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(at);
            literal.push_str(before);
            if let Some(after) = brace.strip_prefix("{{") {
                literal.push('{');
                rest = after;
            } else if let Some(after) = brace.strip_prefix("}}") {
                literal.push('}');
                rest = after;
            } else if let Some(inside) = brace.strip_prefix('{') {
                let (name, after) = inside.split_once('}').ok_or(TemplateError::Unclosed)?;
                let placeholder = resolve(name).ok_or(TemplateError::Unknown(name))?;
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal).into()));
                }
                parts.push(Part::Placeholder(placeholder));
                rest = after;
            } else {
                return Err(TemplateError::Unopened);
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        Ok(Self(parts.into()))
    }
}

#[derive(Debug, PartialEq, Eq)]
enum TemplateError<'a> {
    Unclosed,
    Unopened,
    Unknown(&'a str),
}

impl TemplateError<'_> {
    fn at(&self, written: &Spanned<String>, names: &[&str]) -> Diagnostic {
        let error = |message: String| Diagnostic::error("bad_placeholder", written.span, message);
        match self {
            Self::Unclosed => {
                error(format!("a `{{` without its `}}`: {:?}", written.value)).help("write `{{` where a brace is meant")
            }
            Self::Unopened => {
                error(format!("a `}}` without its `{{`: {:?}", written.value)).help("write `}}` where a brace is meant")
            }
            Self::Unknown(name) => {
                let all = || names.iter().map(|name| format!("`{{{name}}}`")).collect::<Vec<_>>().join(", ");
                let help = did_you_mean(name, names.iter().copied()).map_or_else(
                    || format!("there are {}; write `{{{{` where a brace is meant", all()),
                    |near| format!("did you mean `{{{near}}}`?"),
                );
                error(format!("unknown placeholder: {{{name}}}")).help(help)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(name: &str) -> Option<u8> {
        ["host", "route"].iter().position(|known| *known == name).and_then(|index| u8::try_from(index).ok())
    }

    #[track_caller]
    fn check(text: &str, shown: Result<&str, &str>) {
        let mut diagnostics = Diagnostics::default();
        let written = Spanned::from(text.to_owned());
        let template = Template::compile(&written, &["host", "route"], resolve, &mut diagnostics);
        let pieces = template.map(|template| {
            let piece = |part: &Part<u8>| match part {
                Part::Literal(text) => format!("[{text}]"),
                Part::Placeholder(index) => format!("<{index}>"),
            };
            template.parts().iter().map(piece).collect::<String>()
        });
        match shown {
            Ok(expected) => assert_eq!(pieces.as_deref(), Some(expected), "{text}"),
            Err(part) => {
                let found = diagnostics.as_slice().first().expect("an error");
                let told = format!("{} {}", found.message, found.help.as_deref().unwrap_or_default());
                assert!(pieces.is_none() && told.contains(part), "{text}: {told}");
            }
        }
    }

    #[test]
    fn takes_text_apart() {
        check("", Ok(""));
        check("plain", Ok("[plain]"));
        check("{host}", Ok("<0>"));
        check("a{host}{route}b", Ok("[a]<0><1>[b]"));
        check("{{\"a\":1}}", Ok("[{\"a\":1}]"));
        check("{{{host}}}", Ok("[{]<0>[}]"));
    }

    #[test]
    fn mistakes_come_with_a_way_out() {
        check("{hots}", Err("did you mean `{host}`?"));
        check("{zzz}", Err("there are `{host}`, `{route}`"));
        check("{host", Err("without its `}`"));
        check("host}", Err("write `}}`"));
        check("{}", Err("unknown placeholder"));
    }
}
