//! OpenAPI 3.0 and 3.1: which operation a request asks for, and whether it asks as described.
//!
//! A description is compiled once and shared by all routes that name it; while its files are equal, over reloads as
//! well. Security schemes, callbacks, webhooks and links are not looked at.

mod compile;
mod lower;
mod parameters;
mod paths;
pub(super) mod percent;

use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::compile::compile;
use self::parameters::{Parameter, Said, judge_any};
use self::paths::Tree;
use super::json::JsonLimits;
use super::media::{self, Kind, MediaRange, MediaType};
use super::schema::Table;
use super::shape::Shape;
use crate::model::source::Spanned;
use crate::model::violation::{Place, Violations, step};

/// `[openapi.NAME]`: a description of an API that routes judge their requests by (`validate = { openapi = "NAME" }`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Config {
    /// The file: OpenAPI 3.0 or 3.1, YAML or JSON (`*.json`), at most 16 MiB. It may refer to other files, which are read
    /// beside it; references to other hosts are refused. All of them are watched.
    pub file: Spanned<String>,
    /// Where its paths begin, as the client asks for them (before `rewrite`): `"/v1"`, or `"/"`. Default: the paths of its
    /// `servers`, each of which may come before a path; `/` when it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_path: Option<Spanned<String>>,
}

/// A compiled description.
#[derive(Debug)]
pub struct Description {
    name: String,
    /// What it was made from.
    texts: Vec<(Arc<str>, Arc<str>)>,
    written_base: Option<String>,
    bases: Vec<String>,
    tree: Tree,
    paths: Vec<Vec<(Method, usize)>>,
    operations: Vec<Operation>,
    table: Arc<Table>,
}

#[derive(Debug)]
struct Operation {
    parameters: Vec<Parameter>,
    body: Option<Body>,
    responses: Vec<(Status, Vec<Content>)>,
}

#[derive(Debug)]
struct Body {
    required: bool,
    contents: Vec<Content>,
}

#[derive(Debug)]
struct Content {
    range: MediaRange,
    schema: Option<usize>,
    shape: Shape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Exactly(u16),
    /// `2XX`.
    Hundred(u16),
    Default,
}

/// What a description has for a path and a method.
#[derive(Debug)]
pub(super) enum Asked<'p> {
    Operation(usize, Vec<(String, &'p str)>),
    /// The path is described, with other methods.
    Methods(Vec<Method>),
    Nothing,
}

/// What is judged of a request beside its body.
#[derive(Debug)]
pub(super) struct Head<'r> {
    /// Parameters of the path, as they came.
    pub(super) path: Vec<(String, &'r str)>,
    pub(super) query: Option<&'r str>,
    pub(super) headers: &'r HeaderMap,
    /// A query parameter that is not described is a violation.
    pub(super) undeclared: bool,
}

/// What is to become of a body by its media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyRule {
    /// Nothing is said of it.
    Free,
    /// It has to be judged by the content of this number.
    Judge(usize),
    /// Its type is none that is described.
    Unsupported,
}

/// What came of judging a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// As described.
    Sound,
    /// Not as described: the first thing that is wrong.
    Wrong(String),
    /// It can't be told: too long, coded, or no JSON.
    Unjudged,
}

impl Description {
    /// As the configuration calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn find<'p>(&self, method: &Method, path: &'p str) -> Asked<'p> {
        let mut others = Vec::new();
        for base in &self.bases {
            let Some(rest) = path.strip_prefix(base.as_str()).filter(|rest| rest.starts_with('/')) else { continue };
            let Some(found) = self.tree.find(rest) else { continue };
            let Some(methods) = self.paths.get(found.path) else { continue };
            let of = |wanted: &Method| methods.iter().find(|(method, _)| method == wanted).map(|(_, index)| *index);
            // HEAD is GET without the body (RFC 9110 §9.3.2).
            let head = || (*method == Method::HEAD).then(|| of(&Method::GET)).flatten();
            match of(method).or_else(head) {
                Some(operation) => return Asked::Operation(operation, found.parameters),
                None => others.extend(methods.iter().map(|(method, _)| method.clone())),
            }
        }
        if others.is_empty() { Asked::Nothing } else { Asked::Methods(others) }
    }

    /// Judges everything but the body.
    pub(super) fn judge_head(&self, operation: usize, head: Head<'_>, limits: JsonLimits, out: &mut Violations) {
        let Head { path, query, headers, undeclared } = head;
        let Some(operation) = self.operations.get(operation) else { return };
        let said = Said::new(path, query, headers, out);
        for parameter in &operation.parameters {
            parameter.judge(&said, &operation.parameters, &self.table, limits, out);
        }
        if undeclared {
            let in_query = || operation.parameters.iter().filter(|parameter| parameter.place == Place::Query);
            for (name, _) in &said.query {
                if !in_query().any(|parameter| parameter.claims(name)) {
                    out.push(Place::Query, &step(name), "is not described");
                }
            }
        }
    }

    pub(super) fn body_rule(&self, operation: usize, media: Option<&MediaType>) -> BodyRule {
        let Some(body) = self.operations.get(operation).and_then(|operation| operation.body.as_ref()) else {
            return BodyRule::Free;
        };
        let Some(media) = media else { return BodyRule::Unsupported };
        match best(&body.contents, &media.essence) {
            Some(index) => BodyRule::Judge(index),
            None => BodyRule::Unsupported,
        }
    }

    /// Whether the operation says anything of its body.
    pub(super) fn describes_body(&self, operation: usize) -> bool {
        self.operations.get(operation).is_some_and(|operation| operation.body.is_some())
    }

    pub(super) fn requires_body(&self, operation: usize) -> bool {
        let body = self.operations.get(operation).and_then(|operation| operation.body.as_ref());
        body.is_some_and(|body| body.required)
    }

    /// The media types that the operation takes.
    pub(super) fn accepted(&self, operation: usize) -> Vec<&str> {
        let body = self.operations.get(operation).and_then(|operation| operation.body.as_ref());
        body.map(|body| body.contents.iter().map(|content| content.range.as_str()).collect()).unwrap_or_default()
    }

    pub(super) fn judge_body(
        &self,
        operation: usize,
        content: usize,
        media: &MediaType,
        body: &[u8],
        limits: JsonLimits,
        out: &mut Violations,
    ) {
        let body_of = self.operations.get(operation).and_then(|operation| operation.body.as_ref());
        let Some(content) = body_of.and_then(|body| body.contents.get(content)) else { return };
        if let Some(values) = media::read(media, body, &content.shape, limits, out)
            && let Some(schema) = content.schema
        {
            judge_any(&self.table, schema, &values, Place::Body, "", out);
        }
    }

    /// Whether a response of this status and type has a body that can be judged: JSON, not coded.
    #[must_use]
    pub fn judges_response(&self, operation: usize, status: StatusCode, headers: &HeaderMap) -> Option<Judged> {
        let operation = self.operations.get(operation)?;
        let Some(contents) = response_of(operation, status) else {
            return Some(Judged::Wrong(format!("status {} is not described", status.as_u16())));
        };
        if contents.is_empty() {
            return Some(Judged::Sound);
        }
        let Some(media) = MediaType::of(headers) else { return Some(Judged::Unjudged) };
        let Some(content) = best(contents, &media.essence).and_then(|index| contents.get(index)) else {
            return Some(Judged::Wrong(format!("{} is not described for status {}", media.essence, status.as_u16())));
        };
        if content.schema.is_none() {
            return Some(Judged::Sound);
        }
        let judgeable = media.kind() == Kind::Json && media.is_utf8() && !media::is_coded(headers);
        if judgeable { None } else { Some(Judged::Unjudged) }
    }

    /// Judges the whole body of a response that [`Description::judges_response`] left open.
    #[must_use]
    pub fn judge_response(&self, operation: usize, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Judged {
        let schema = self.operations.get(operation).and_then(|operation| {
            let contents = response_of(operation, status)?;
            contents.get(best(contents, &MediaType::of(headers)?.essence)?)?.schema
        });
        let Some(schema) = schema else { return Judged::Unjudged };
        let Ok(value) = serde_json::from_slice(body) else { return Judged::Wrong("the body is not JSON".to_owned()) };
        let mut violations = Violations::default();
        judge_any(&self.table, schema, &[value], Place::Body, "", &mut violations);
        match violations.as_slice().first() {
            None => Judged::Sound,
            Some(first) => Judged::Wrong(format!("body {:?} {}", first.pointer, first.message)),
        }
    }
}

fn response_of(operation: &Operation, status: StatusCode) -> Option<&[Content]> {
    let code = status.as_u16();
    let fits = |described: &Status| match described {
        Status::Exactly(exactly) => *exactly == code,
        Status::Hundred(hundred) => *hundred == code / 100,
        Status::Default => true,
    };
    // Sorted by exactness when compiled.
    operation.responses.iter().find(|(described, _)| fits(described)).map(|(_, contents)| contents.as_slice())
}

fn best(contents: &[Content], essence: &str) -> Option<usize> {
    let ranked = contents.iter().enumerate().filter_map(|(index, content)| Some((content.range.rank(essence)?, index)));
    ranked.max_by_key(|(rank, _)| *rank).map(|(_, index)| index)
}

#[cfg(test)]
mod tests;
