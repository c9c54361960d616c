//! Fields that are set, added and removed on the way to the upstream and back to the client.
//!
//! Decides nothing: the same edits apply to every request of a route. First `remove`, then `set`, then `add`. Values may
//! hold placeholders, which are taken apart when the configuration is read; a value never holds a line break, whatever
//! the placeholders stand for. Fields of the connection and of framing can't be edited, and `Host` is `rewrite.host`'s.

use std::collections::BTreeMap;

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::fields;
use crate::model::source::{SourceSpan, Spanned};
use crate::model::template::{Part, Template};

/// `headers`: fields that are changed on the way. Values may hold `{client.ip}`, `{request.id}`, `{host}`, `{route}` and
/// `{header.NAME}` (a field of the request); `{{` and `}}` are braces. A value of placeholders alone that comes out
/// empty leaves the field out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// Fields of the request, on its way to the upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Edits>,
    /// Fields of the response, on its way to the client. Not those of refusals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<Edits>,
}

/// Edits of one head, in the order `remove`, `set`, `add`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Edits {
    /// Fields that get exactly this value, by name. Default: none.
    pub set: BTreeMap<String, Spanned<String>>,
    /// Lines that are added to what is there, by name. Default: none.
    pub add: BTreeMap<String, Spanned<String>>,
    /// Names of fields that are removed. Default: none.
    pub remove: Vec<Spanned<String>>,
}

/// The compiled edits of both directions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers {
    request: Compiled,
    response: Compiled,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Compiled {
    remove: Vec<HeaderName>,
    write: Vec<(Manner, HeaderName, Value)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Set,
    Add,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    /// Shared, not copied, for each request.
    Fixed(HeaderValue),
    Rendered(Template<Placeholder>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Placeholder {
    ClientIp,
    RequestId,
    Host,
    Route,
    Header(HeaderName),
}

const PLACEHOLDERS: [&str; 5] = ["client.ip", "request.id", "host", "route", "header.NAME"];

/// What the placeholders stand for.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    /// The client's address as text.
    pub client_ip: &'a str,
    /// The request's id.
    pub request_id: &'a HeaderValue,
    /// The host that the client asked for, without its port.
    pub host: &'a str,
    /// The route's name.
    pub route: &'a str,
}

/// Which head is edited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    Request,
    Response,
}

/// Reads the settings.
pub fn compile(config: &Spanned<Config>, diagnostics: &mut Diagnostics) -> Option<Headers> {
    let errors = diagnostics.errors();
    let is_empty = |edits: &Option<Edits>| edits.as_ref().is_none_or(|edits| *edits == Edits::default());
    if is_empty(&config.request) && is_empty(&config.response) {
        diagnostics.push(
            Diagnostic::error("missing_key", config.span, "no field is set, added or removed")
                .help("give `request` or `response`; `headers = false` switches inherited edits off"),
        );
    }
    let mut edits = |written: &Option<Edits>, head| {
        written.as_ref().map(|written| compile_edits(written, head, diagnostics)).unwrap_or_default()
    };
    let headers =
        Headers { request: edits(&config.request, Head::Request), response: edits(&config.response, Head::Response) };
    (diagnostics.errors() == errors).then_some(headers)
}

fn compile_edits(written: &Edits, head: Head, diagnostics: &mut Diagnostics) -> Compiled {
    let mut compiled = Compiled::default();
    let mut seen: Vec<(HeaderName, SourceSpan)> = Vec::new();
    for entry in &written.remove {
        let Some(name) = compile_name(entry, entry.span, head, diagnostics) else { continue };
        if first_use(&name, entry.span, &mut seen, diagnostics) {
            compiled.remove.push(name);
        }
    }
    for (manner, entries) in [(Manner::Set, &written.set), (Manner::Add, &written.add)] {
        if manner == Manner::Add {
            // what was removed or set may be added to; only the same name twice in one table is a slip
            seen.clear();
        }
        for (name, value) in entries {
            let name = compile_name(name, value.span, head, diagnostics);
            let compiled_value = compile_value(value, diagnostics);
            let Some((name, compiled_value)) = name.zip(compiled_value) else { continue };
            if first_use(&name, value.span, &mut seen, diagnostics) {
                compiled.write.push((manner, name, compiled_value));
            }
        }
    }
    compiled
}

/// Names compare without case, so `X-A` and `x-a` are one field; to remove what is set is pointless.
fn first_use(
    name: &HeaderName,
    span: SourceSpan,
    seen: &mut Vec<(HeaderName, SourceSpan)>,
    diagnostics: &mut Diagnostics,
) -> bool {
    if let Some((_, first)) = seen.iter().find(|(known, _)| known == name) {
        let error = Diagnostic::error("duplicate_field", span, format!("a field is edited twice: {name}"));
        diagnostics
            .push(error.related(*first, "first here").help("`set` replaces what is there: no need to remove it"));
        return false;
    }
    seen.push((name.clone(), span));
    true
}

fn compile_name(written: &str, span: SourceSpan, head: Head, diagnostics: &mut Diagnostics) -> Option<HeaderName> {
    let name = fields::compile_name(written, span, diagnostics)?;
    if head == Head::Request && name == HOST {
        let error = Diagnostic::error("reserved_field", span, "`Host` is not edited as a field");
        diagnostics.push(error.help("write `rewrite = { host = \"...\" }`, which holds for HTTP/2 as well"));
        return None;
    }
    Some(name)
}

fn compile_value(written: &Spanned<String>, diagnostics: &mut Diagnostics) -> Option<Value> {
    let template = Template::compile(written, &PLACEHOLDERS, resolve, diagnostics)?;
    if let Some(text) = template.as_literal() {
        let text = Spanned::new(text.to_owned(), written.span);
        return fields::compile_value(&text, diagnostics).map(Value::Fixed);
    }
    // the literal pieces have to be valid on their own; the others are made so when they are rendered
    let literals = template.parts().iter().filter_map(|part| match part {
        Part::Literal(text) => Some(text.to_string()),
        Part::Placeholder(_) => None,
    });
    let literals = Spanned::new(literals.collect::<String>(), written.span);
    fields::compile_value(&literals, diagnostics).map(|_| Value::Rendered(template))
}

fn resolve(name: &str) -> Option<Placeholder> {
    Some(match name {
        "client.ip" => Placeholder::ClientIp,
        "request.id" => Placeholder::RequestId,
        "host" => Placeholder::Host,
        "route" => Placeholder::Route,
        _ => Placeholder::Header(name.strip_prefix("header.")?.parse().ok()?),
    })
}

impl Headers {
    /// Whether there are edits of requests.
    #[must_use]
    pub fn edits_requests(&self) -> bool {
        !self.request.is_empty()
    }

    /// Whether there are edits of responses.
    #[must_use]
    pub fn edits_responses(&self) -> bool {
        !self.response.is_empty()
    }

    /// Edits the request on its way to the upstream. `{header.NAME}` is a field of `headers` before any edit.
    pub fn edit_request(&self, values: &Values<'_>, headers: &mut HeaderMap) {
        let rendered = self.request.render(values, headers);
        self.request.apply(rendered, headers);
    }

    /// Edits the response on its way to the client. `{header.NAME}` is a field of `request`.
    pub fn edit_response(&self, values: &Values<'_>, request: &HeaderMap, headers: &mut HeaderMap) {
        let rendered = self.response.render(values, request);
        self.response.apply(rendered, headers);
    }
}

/// `None` for a value that came out empty.
type RenderedValues = SmallVec<[Option<HeaderValue>; 8]>;

impl Compiled {
    fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.write.is_empty()
    }

    /// All values are made before any is written, so that no edit sees another's work.
    fn render(&self, values: &Values<'_>, request: &HeaderMap) -> RenderedValues {
        self.write.iter().map(|(_, _, value)| value.render(values, request)).collect()
    }

    fn apply(&self, rendered: RenderedValues, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for ((manner, name, _), value) in self.write.iter().zip(rendered) {
            match (manner, value) {
                (Manner::Set, Some(value)) => {
                    headers.insert(name, value);
                }
                (Manner::Set, None) => {
                    headers.remove(name);
                }
                (Manner::Add, Some(value)) => {
                    headers.append(name, value);
                }
                (Manner::Add, None) => {}
            }
        }
    }
}

impl Value {
    fn render(&self, values: &Values<'_>, request: &HeaderMap) -> Option<HeaderValue> {
        let template = match self {
            Self::Fixed(value) => return Some(value.clone()),
            Self::Rendered(template) => template,
        };
        // a lone field or id is shared, not copied
        match template.parts() {
            [Part::Placeholder(Placeholder::Header(name))] => {
                return request.get(name).filter(|value| !value.is_empty()).cloned();
            }
            [Part::Placeholder(Placeholder::RequestId)] => return Some(values.request_id.clone()),
            _ => {}
        }
        let mut text = Vec::with_capacity(64);
        for part in template.parts() {
            let piece = match part {
                Part::Literal(literal) => literal.as_bytes(),
                Part::Placeholder(Placeholder::ClientIp) => values.client_ip.as_bytes(),
                Part::Placeholder(Placeholder::RequestId) => values.request_id.as_bytes(),
                Part::Placeholder(Placeholder::Host) => values.host.as_bytes(),
                Part::Placeholder(Placeholder::Route) => values.route.as_bytes(),
                Part::Placeholder(Placeholder::Header(name)) => {
                    request.get(name).map_or(&b""[..], HeaderValue::as_bytes)
                }
            };
            text.extend(piece.iter().map(|byte| if is_value_byte(*byte) { *byte } else { b'?' }));
        }
        HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).ok().filter(|value| !value.is_empty())
    }
}

/// A byte of `field-content` (RFC 9110 §5.5).
const fn is_value_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | 0x20..=0x7e | 0x80..)
}

#[cfg(test)]
mod tests;
