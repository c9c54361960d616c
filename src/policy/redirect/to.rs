//! The whole target of a redirect as one text with placeholders: `"https://{host}{path}{query}"`.
//!
//! Decides when it is read which of its parts are scheme, authority, path and query, so that what a client sends can
//! never move from one into another: a path that follows `https://` at once would be read as a host, for instance.

use std::fmt::Write as _;

use http::uri::Authority;

use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::request::RequestView;
use crate::model::source::Spanned;
use crate::model::target;
use crate::model::template::{Part, Template};

/// A compiled target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct To {
    /// Scheme and authority; empty for a target on the same site.
    origin: Box<[Part<Placeholder>]>,
    /// Path and query.
    rest: Box<[Part<Placeholder>]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placeholder {
    Scheme,
    Host,
    Port,
    Path,
    Query,
}

const NAMES: [(&str, Placeholder); 5] = [
    ("scheme", Placeholder::Scheme),
    ("host", Placeholder::Host),
    ("port", Placeholder::Port),
    ("path", Placeholder::Path),
    ("query", Placeholder::Query),
];

impl To {
    pub(super) fn compile(written: &Spanned<String>, diagnostics: &mut Diagnostics) -> Option<Self> {
        let names = NAMES.map(|(name, _)| name);
        let resolve = |name: &str| NAMES.iter().find(|(known, _)| *known == name).map(|(_, placeholder)| *placeholder);
        let template = Template::compile(written, &names, resolve, diagnostics)?;
        let checked = split(template.parts()).and_then(|to| to.check().map(|()| to));
        if let Err(help) = &checked {
            let message = format!("not a target of a redirect: {:?}", written.value);
            diagnostics.push(Diagnostic::error("bad_value", written.span, message).help(*help));
        }
        checked.ok()
    }

    /// The `Location` for a request; `None` when the request is already there.
    pub(super) fn location(&self, request: &RequestView<'_>) -> Option<String> {
        let mut location = String::new();
        for part in &self.origin {
            match part {
                Part::Literal(text) => location.push_str(text),
                Part::Placeholder(placeholder) => placeholder.push_origin(request, &mut location),
            }
        }
        let mut rest = String::new();
        let mut in_query = false;
        for part in &self.rest {
            match part {
                Part::Literal(text) => push(&mut rest, text, &mut in_query),
                Part::Placeholder(Placeholder::Path) => push(&mut rest, request.path, &mut in_query),
                Part::Placeholder(Placeholder::Query) => push_query(&mut rest, request.query, &mut in_query),
                Part::Placeholder(other) => {
                    let mut text = String::new();
                    other.push_origin(request, &mut text);
                    push(&mut rest, &text, &mut in_query);
                }
            }
        }
        if !rest.starts_with('/') {
            rest.insert(0, '/');
        }
        if is_own_origin(&location, request) && is_own_target(&rest, request) {
            return None;
        }
        location.push_str(&rest);
        Some(location)
    }

    fn check(&self) -> Result<(), &'static str> {
        let is_query = |part: &Part<Placeholder>| *part == Part::Placeholder(Placeholder::Query);
        let first_query = self.rest.iter().position(is_query);
        let has_path_in_query =
            self.rest.iter().skip(first_query.map_or(usize::MAX, |at| at + 1)).any(|part| match part {
                Part::Literal(text) => text.contains('?'),
                Part::Placeholder(_) => false,
            });
        if has_path_in_query {
            return Err("`{query}` brings its own `?`");
        }
        for part in &self.rest {
            if let Part::Literal(text) = part
                && (text.contains('#') || !text.bytes().all(|byte| byte.is_ascii_graphic()))
            {
                return Err("percent-encode spaces and characters beyond ASCII, and leave fragments out");
            }
        }
        Ok(())
    }
}

/// Parts the template where the path begins.
fn split(parts: &[Part<Placeholder>]) -> Result<To, &'static str> {
    const SHAPE: &str = "begin with \"https://\", \"http://\", \"{scheme}://\", \"/\" or \"{path}\"";
    match parts {
        [Part::Literal(text), ..] if text.starts_with('/') => {
            return Ok(To { origin: Box::default(), rest: parts.into() });
        }
        [Part::Placeholder(Placeholder::Path), ..] => {
            return Ok(To { origin: Box::default(), rest: parts.into() });
        }
        _ => {}
    }
    let (scheme, after): (Part<Placeholder>, Vec<Part<Placeholder>>) = match parts {
        [Part::Placeholder(Placeholder::Scheme), Part::Literal(text), rest @ ..] => {
            let after = text.strip_prefix("://").ok_or(SHAPE)?;
            (Part::Placeholder(Placeholder::Scheme), prepend(after, rest))
        }
        [Part::Literal(text), rest @ ..] => {
            let (scheme, after) = text.split_once("://").ok_or(SHAPE)?;
            if scheme != "http" && scheme != "https" {
                return Err(SHAPE);
            }
            (Part::Literal(scheme.into()), prepend(after, rest))
        }
        _ => return Err(SHAPE),
    };
    let (authority, rest) = split_authority(&after);
    check_authority(&authority)?;
    let lower = |part| match part {
        Part::Literal(text) => Part::Literal(text.to_ascii_lowercase().into()),
        placeholder @ Part::Placeholder(_) => placeholder,
    };
    let origin = [scheme, Part::Literal("://".into())].into_iter().chain(authority.into_iter().map(lower)).collect();
    Ok(To { origin, rest: rest.into() })
}

fn prepend(text: &str, rest: &[Part<Placeholder>]) -> Vec<Part<Placeholder>> {
    let first = (!text.is_empty()).then(|| Part::Literal(text.into()));
    first.into_iter().chain(rest.iter().cloned()).collect()
}

fn split_authority(parts: &[Part<Placeholder>]) -> (Vec<Part<Placeholder>>, Vec<Part<Placeholder>>) {
    for (index, part) in parts.iter().enumerate() {
        let before = || parts.iter().take(index).cloned();
        let after = || parts.iter().skip(index + 1).cloned();
        match part {
            Part::Placeholder(Placeholder::Path | Placeholder::Query) => {
                return (before().collect(), parts.iter().skip(index).cloned().collect());
            }
            Part::Literal(text) => {
                if let Some(at) = text.find(['/', '?', '#']) {
                    let (authority, path) = text.split_at(at);
                    let last = (!authority.is_empty()).then(|| Part::Literal(authority.into()));
                    let first = std::iter::once(Part::Literal(path.into()));
                    return (before().chain(last).collect(), first.chain(after()).collect());
                }
            }
            Part::Placeholder(_) => {}
        }
    }
    (parts.to_vec(), Vec::new())
}

/// With something plausible for the placeholders it has to be an authority that ends with its host or port.
fn check_authority(authority: &[Part<Placeholder>]) -> Result<(), &'static str> {
    let mut sample = String::new();
    for part in authority {
        match part {
            Part::Literal(text) => sample.push_str(text),
            Part::Placeholder(Placeholder::Host) => sample.push_str("host.example"),
            Part::Placeholder(Placeholder::Port) => sample.push_str("8080"),
            Part::Placeholder(_) => return Err("only `{host}` and `{port}` may stand where the host does"),
        }
    }
    let is_host = |authority: &Authority| !authority.host().is_empty() && !sample.contains('@');
    let authority = sample.parse::<Authority>().ok().filter(is_host);
    authority.map(|_| ()).ok_or("a host stands between \"://\" and the path, without a user")
}

impl Placeholder {
    fn push_origin(self, request: &RequestView<'_>, out: &mut String) {
        match self {
            Self::Scheme => out.push_str(request.scheme.as_str()),
            Self::Host => out.push_str(request.host),
            Self::Port => {
                // writing into a string can't fail
                let _ = write!(out, "{}", request.port.unwrap_or(request.scheme.default_port()));
            }
            Self::Path | Self::Query => {}
        }
    }
}

/// Appends text to the path, or to the query once a literal `?` has opened it.
fn push(rest: &mut String, text: &str, in_query: &mut bool) {
    match text.split_once('?').filter(|_| !*in_query) {
        Some((path, query)) => {
            target::push_path(rest, path);
            rest.push('?');
            *in_query = true;
            target::push_query(rest, query);
        }
        None if *in_query => target::push_query(rest, text),
        None => target::push_path(rest, text),
    }
}

/// Appends the query of the request: behind its `?`, or behind `&` to a query that is there already.
fn push_query(rest: &mut String, query: Option<&str>, in_query: &mut bool) {
    let Some(query) = query else { return };
    rest.push(if *in_query { '&' } else { '?' });
    *in_query = true;
    target::push_query(rest, query);
}

fn is_own_origin(location: &str, request: &RequestView<'_>) -> bool {
    if location.is_empty() {
        return true;
    }
    let Some(authority) = location.strip_prefix(request.scheme.as_str()).and_then(|rest| rest.strip_prefix("://"))
    else {
        return false;
    };
    let Some(port) = authority.strip_prefix(request.host) else { return false };
    let own = request.port.unwrap_or(request.scheme.default_port());
    match port.strip_prefix(':') {
        None => port.is_empty() && own == request.scheme.default_port(),
        Some(port) => port.parse() == Ok(own),
    }
}

fn is_own_target(rest: &str, request: &RequestView<'_>) -> bool {
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    path == request.path && query == request.query
}
