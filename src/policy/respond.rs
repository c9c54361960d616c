//! A fixed response, instead of an upstream.
//!
//! Decides nothing: every request that gets as far is answered alike, after the route's access list and body limit.
//! Never reads the request.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::answer::Answer;
use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::fields;
use crate::model::source::Spanned;

/// `respond`: a fixed response, instead of an upstream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// Status of the response, 200 to 599. Default: 200.
    #[schemars(range(min = 200, max = 599))]
    pub status: Spanned<u16>,
    /// Body of the response. Statuses 204 and 304 have none. Default: empty.
    pub body: Spanned<String>,
    /// `Content-Type` of the body; not sent without a body. Default: `"text/plain; charset=utf-8"`.
    pub content_type: Spanned<String>,
    /// Further fields, by name. Default: none.
    pub headers: BTreeMap<String, Spanned<String>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            status: 200.into(),
            body: String::new().into(),
            content_type: "text/plain; charset=utf-8".to_owned().into(),
            headers: BTreeMap::new(),
        }
    }
}

/// The compiled response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Respond(Answer);

/// Reads the settings.
pub fn compile(config: &Config, diagnostics: &mut Diagnostics) -> Option<Respond> {
    let errors = diagnostics.errors();
    let status = status(config.status, diagnostics).unwrap_or_default();
    let has_no_body = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
    if has_no_body && !config.body.is_empty() {
        diagnostics.push(
            Diagnostic::error("bad_value", config.body.span, format!("a response with status {status} has no body"))
                .related(config.status.span, "the status"),
        );
    }
    let mut headers = HeaderMap::with_capacity(config.headers.len() + 1);
    if let Some(value) = fields::compile_value(&config.content_type, diagnostics).filter(|_| !config.body.is_empty()) {
        headers.insert(CONTENT_TYPE, value);
    }
    for (name, written) in &config.headers {
        field(name, written, &mut headers, diagnostics);
    }
    let body = Bytes::copy_from_slice(config.body.as_bytes());
    (diagnostics.errors() == errors).then_some(Respond(Answer { status, headers, body }))
}

fn status(written: Spanned<u16>, diagnostics: &mut Diagnostics) -> Option<StatusCode> {
    let status = StatusCode::from_u16(written.value).ok().filter(|status| (200..600).contains(&status.as_u16()));
    if status.is_none() {
        let message = format!("not the status of a final response: {}", written.value);
        diagnostics.push(Diagnostic::error("bad_value", written.span, message).help("write 200 to 599"));
    }
    status
}

fn field(written: &str, value: &Spanned<String>, headers: &mut HeaderMap, diagnostics: &mut Diagnostics) {
    let name = fields::compile_name(written, value.span, diagnostics);
    let compiled: Option<HeaderValue> = fields::compile_value(value, diagnostics);
    let Some((name, compiled)) = name.zip(compiled) else { return };
    if name == CONTENT_TYPE {
        let error = Diagnostic::error("bad_value", value.span, "the content type has a key of its own");
        diagnostics.push(error.help("write `content_type = \"...\"`"));
    } else if headers.insert(name, compiled).is_some() {
        diagnostics.push(Diagnostic::error("duplicate_field", value.span, format!("a field is set twice: {written}")));
    }
}

impl Respond {
    /// The response. Its parts are shared, not copied, but for the map of fields.
    #[must_use]
    pub fn answer(&self) -> Answer {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config(status: u16, body: &str, headers: &[(&str, &str)]) -> Config {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned().into())).collect();
        Config { status: status.into(), body: body.to_owned().into(), headers, ..Config::default() }
    }

    #[track_caller]
    fn check(config: &Config, expected: Result<&[(&str, &str)], &str>) {
        let mut diagnostics = Diagnostics::default();
        match (compile(config, &mut diagnostics), expected) {
            (Some(respond), Ok(fields)) => {
                let answer = respond.answer();
                let sent: Vec<_> = answer
                    .headers
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.to_str().expect("ASCII")))
                    .collect();
                assert_eq!((answer.status.as_u16(), &*answer.body), (*config.status, config.body.as_bytes()));
                assert_eq!(sent, fields);
            }
            (None, Err(part)) => {
                let found = diagnostics.as_slice().first().expect("a reason");
                assert!(found.message.contains(part), "{}", found.message);
            }
            (compiled, expected) => panic!("{compiled:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn answers_as_it_is_told() {
        check(&Config::default(), Ok(&[]));
        check(&config(200, "ok", &[]), Ok(&[("content-type", "text/plain; charset=utf-8")]));
        check(&config(503, "", &[("Retry-After", "30")]), Ok(&[("retry-after", "30")]));
        check(&config(204, "", &[]), Ok(&[]));
    }

    #[test]
    fn nonsense_is_refused() {
        check(&config(101, "", &[]), Err("final response: 101"));
        check(&config(700, "", &[]), Err("final response: 700"));
        check(&config(204, "x", &[]), Err("204 No Content has no body"));
        check(&config(200, "x", &[("content-length", "1")]), Err("can't be changed"));
        check(&config(200, "x", &[("Content-Type", "text/html")]), Err("a key of its own"));
        check(&config(200, "x", &[("X-A", "1"), ("x-a", "2")]), Err("set twice"));
        check(&config(200, "x", &[("x-a", "1\r\nx-b: 2")]), Err("not a field value"));
    }

    proptest! {
        #[test]
        fn no_value_breaks_out_of_its_field(value in "[ -~\r\n\t]{0,20}") {
            let compiled = compile(&config(200, "", &[("x-a", &value)]), &mut Diagnostics::default());
            prop_assert_eq!(compiled.is_none(), value.contains(['\r', '\n']));
        }
    }
}
