//! What a request must be like before it reaches an upstream: how long, of which type, and what it says.
//!
//! Limits come first and hold while bytes arrive: of the head, of the body's length, of JSON's depth, keys and strings. A
//! description of the API or schemas then judge path, query, fields and, when it has come whole and before any of it goes
//! upstream, the body. Nothing here reads a file or waits: the engine collects what [`BodyTask::collects`] asks for, and
//! what is wrong is told place by place without the values that are wrong.

mod body;
mod config;
mod json;
mod limit;
mod media;
pub mod openapi;
mod refusals;
mod response;
mod schema;
mod shape;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode, Version};
use serde_json::{Map, Value};

pub use self::body::BodyTask;
use self::body::{Judge, Target};
pub use self::config::{BodyConfig, Config, OverBuffer, PartConfig, Responses, Strictness};
use self::json::JsonLimits;
pub use self::json::{Fault, Scanner};
pub use self::limit::BodyLimit;
use self::media::{Kind, MediaRange, MediaType};
use self::openapi::percent::{decode, pairs};
use self::openapi::{Asked, BodyRule, Description, Judged};
use self::refusals::{accept, invalid, uncoded, unknown_method, unsupported};
pub use self::response::ResponseTask;
use self::response::response_admission;
use self::schema::Schema;
use self::shape::{Shape, in_file};
use crate::model::diagnostic::{Diagnostic, Diagnostics, did_you_mean};
use crate::model::grpc::is_grpc;
use crate::model::request::RequestView;
use crate::model::source::Spanned;
use crate::model::spec::Specs;
use crate::model::units::ByteSize;
use crate::model::verdict::{Admission, Code, Mode, PolicyName, Rejection};
use crate::model::violation::{Place, Violations};

/// The limit of a route that says nothing.
pub const DEFAULT_MAX_BODY: ByteSize = ByteSize::mib(10);

const DEFAULT_BUFFER: u64 = 1 << 20;
const DEFAULT_DEPTH: usize = 64;
const DEFAULT_KEYS: usize = 10_000;
const DEFAULT_STRING: usize = 1 << 20;

/// What the settings of routes refer to.
pub struct References<'a> {
    specs: &'a Specs,
    descriptions: &'a BTreeMap<String, Option<Arc<Description>>>,
    /// Each schema is compiled once, however many routes name it.
    schemas: RefCell<HashMap<usize, Option<Part>>>,
}

impl<'a> References<'a> {
    /// The files that were read, and the descriptions that were compiled; `None` for one that has a mistake.
    #[must_use]
    pub fn new(specs: &'a Specs, descriptions: &'a BTreeMap<String, Option<Arc<Description>>>) -> Self {
        Self { specs, descriptions, schemas: RefCell::new(HashMap::new()) }
    }

    fn schema(&self, path: &Spanned<String>, diagnostics: &mut Diagnostics) -> Option<Part> {
        let index = self.specs.require(path, diagnostics)?;
        if let Some(known) = self.schemas.borrow().get(&index) {
            return known.clone();
        }
        let compiled = schema::compile_file(self.specs, index, diagnostics).and_then(|schema| {
            let value = &self.specs.files.get(index)?.value;
            Some(Part { schema, shape: Arc::new(Shape::of(value, &in_file(value))) })
        });
        self.schemas.borrow_mut().insert(index, compiled.clone());
        compiled
    }

    fn description(&self, name: &Spanned<String>, diagnostics: &mut Diagnostics) -> Option<Arc<Description>> {
        if let Some(known) = self.descriptions.get(&name.value) {
            return known.clone();
        }
        let unknown = format!("no such description: {:?}", name.value);
        let diagnostic = Diagnostic::error("unknown_reference", name.span, unknown);
        diagnostics.push(match did_you_mean(&name.value, self.descriptions.keys().map(String::as_str)) {
            Some(near) => diagnostic.help(format!("did you mean \"{near}\"?")),
            None => diagnostic.help(format!("define [openapi.{}] with file = \"…\"", name.value)),
        });
        None
    }
}

/// A schema and what texts become by it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    schema: Schema,
    shape: Arc<Shape>,
}

/// The compiled settings.
#[derive(Debug, Clone)]
pub struct Validate {
    max_body: u64,
    is_written: bool,
    max_url: Option<u64>,
    max_headers: Option<u32>,
    content_type: Option<Arc<[MediaRange]>>,
    json: JsonLimits,
    /// JSON is scanned although nothing judges it.
    scans: bool,
    rules: Option<Arc<Rules>>,
    buffer: u64,
    over_buffer: OverBuffer,
    responses: Responses,
    /// How much of a response is held to be judged; `max_body` is about requests.
    response_buffer: u64,
    mode: Mode,
}

/// What judges.
#[derive(Debug)]
enum Rules {
    OpenApi { description: Arc<Description>, unknown: Strictness, undeclared: Strictness },
    Schemas { body: Option<Part>, required: bool, query: Option<Part>, header: Option<Part> },
}

/// Reads the settings.
pub fn compile(config: &Config, references: &References<'_>, diagnostics: &mut Diagnostics) -> Option<Validate> {
    let errors = diagnostics.errors();
    let max_body = config.max_body.map_or(DEFAULT_MAX_BODY, |written| written.value).0;
    let content_type = config.content_type.as_ref().map(|ranges| {
        if ranges.is_empty() {
            let nothing = "a list of media types with nothing in it refuses every body";
            diagnostics
                .push(Diagnostic::error("empty_list", ranges.span, nothing).help("max_body = \"0B\" refuses bodies"));
        }
        let range = |written: &Spanned<String>| {
            let range = MediaRange::parse(&written.value);
            if range.is_none() {
                let message = format!("not a media type: {:?}", written.value);
                let help = "as in \"application/json\", \"application/*+json\", \"text/*\"";
                diagnostics.push(Diagnostic::error("bad_value", written.span, message).help(help));
            }
            range
        };
        ranges.iter().filter_map(range).collect()
    });
    let rules = rules(config, references, diagnostics);
    let limit = |written: Option<Spanned<u32>>, default: usize| {
        written.map_or(default, |written| usize::try_from(written.value).unwrap_or(usize::MAX))
    };
    let string = config.max_string.map_or(DEFAULT_STRING, |size| usize::try_from(size.value.0).unwrap_or(usize::MAX));
    let json = JsonLimits {
        depth: limit(config.max_depth, DEFAULT_DEPTH),
        keys: limit(config.max_keys, DEFAULT_KEYS),
        string,
    };
    let judges_body = match rules.as_deref() {
        Some(Rules::OpenApi { .. }) => true,
        Some(Rules::Schemas { body, .. }) => body.is_some(),
        None => false,
    };
    buffer_settings(config, judges_body, max_body, diagnostics);
    (diagnostics.errors() == errors).then(|| Validate {
        max_body,
        is_written: config.max_body.is_some(),
        max_url: config.max_url.map(|size| size.value.0),
        max_headers: config.max_headers.map(|count| count.value),
        content_type,
        json,
        scans: config.max_depth.is_some() || config.max_keys.is_some() || config.max_string.is_some(),
        rules,
        buffer: config.buffer.map_or(DEFAULT_BUFFER, |size| size.value.0).min(max_body),
        over_buffer: config.over_buffer.map_or(OverBuffer::Reject, |over| over.value),
        response_buffer: config.buffer.map_or(DEFAULT_BUFFER, |size| size.value.0),
        responses: config.responses.map_or(Responses::Off, |responses| responses.value),
        mode: config.mode,
    })
}

fn rules(config: &Config, references: &References<'_>, diagnostics: &mut Diagnostics) -> Option<Arc<Rules>> {
    let Config { openapi, unknown_operation, undeclared_query, responses, body, query, header, .. } = config;
    if let Some(name) = openapi {
        let schemas = [
            body.as_ref().map(|one| one.span),
            query.as_ref().map(|one| one.span),
            header.as_ref().map(|one| one.span),
        ];
        for span in schemas.into_iter().flatten() {
            diagnostics.push(
                Diagnostic::error("conflict", span, "a schema beside a description, which has its own")
                    .related(name.span, "the description")
                    .help("keep one of the two"),
            );
        }
        let description = references.description(name, diagnostics)?;
        return Some(Arc::new(Rules::OpenApi {
            description,
            unknown: unknown_operation.map_or(Strictness::Reject, |written| written.value),
            undeclared: undeclared_query.map_or(Strictness::Allow, |written| written.value),
        }));
    }
    let strictness = unknown_operation.iter().chain(undeclared_query).map(|written| written.span);
    for span in strictness.chain(responses.iter().map(|written| written.span)) {
        diagnostics.push(
            Diagnostic::error(
                "missing_key",
                span,
                "it says what becomes of what is not as described, and nothing is described",
            )
            .help("name a description: openapi = \"NAME\""),
        );
    }
    let required = body.as_ref().is_some_and(|body| body.required);
    let mut part = |path: Option<&Spanned<String>>| path.map(|path| references.schema(path, diagnostics));
    let body = part(body.as_ref().map(|body| &body.schema));
    let query = part(query.as_ref().map(|query| &query.schema));
    let header = part(header.as_ref().map(|header| &header.schema));
    let any = body.is_some() || query.is_some() || header.is_some();
    any.then(|| {
        Arc::new(Rules::Schemas { body: body.flatten(), required, query: query.flatten(), header: header.flatten() })
    })
}

fn buffer_settings(config: &Config, judges_body: bool, max_body: u64, diagnostics: &mut Diagnostics) {
    let spans = [config.buffer.as_ref().map(|one| one.span), config.over_buffer.as_ref().map(|one| one.span)];
    if !judges_body {
        for span in spans.into_iter().flatten() {
            diagnostics.push(
                Diagnostic::error("missing_key", span, "nothing is held: no schema judges the body")
                    .help("add `openapi` or `body`"),
            );
        }
        return;
    }
    if let Some(over) = config.over_buffer.filter(|over| over.value == OverBuffer::Stream) {
        let buffer = ByteSize(config.buffer.map_or(DEFAULT_BUFFER, |size| size.value.0).min(max_body));
        let message = format!("bodies longer than {buffer} reach the upstream without being judged by a schema");
        diagnostics.push(
            Diagnostic::warning("unjudged", over.span, message)
                .help("over_buffer = \"reject\" refuses them; a larger `buffer` judges them"),
        );
    }
}

/// What `validate` says of a request by its head.
#[derive(Debug)]
pub struct HeadJudgement {
    /// Its judgement; `None` when nothing but the body's length is asked for.
    pub admission: Option<Admission>,
    /// What is still to be judged.
    pub task: Option<BodyTask>,
    /// The operation that is asked for, by whose description responses are judged.
    pub operation: Option<usize>,
}

impl Validate {
    /// Whether bodies are looked into, and not only counted.
    #[must_use]
    pub fn judges_bodies(&self) -> bool {
        let rules = match self.rules.as_deref() {
            Some(Rules::OpenApi { .. }) => true,
            Some(Rules::Schemas { body, required, .. }) => body.is_some() || *required,
            None => false,
        };
        rules || self.scans || !matches!(self.responses, Responses::Off)
    }

    /// The limit on the body of this request; `None` when it has none. `upgrade`: the request asks to leave HTTP.
    #[must_use]
    pub fn body_limit(&self, headers: &HeaderMap, upgrade: bool) -> Option<BodyLimit> {
        // gRPC streams have no end by design; the protocol limits its messages itself.
        let is_exempt = !self.is_written && (upgrade || is_grpc(headers));
        (!is_exempt).then_some(BodyLimit { bytes: self.max_body, mode: self.mode })
    }

    /// The limits beside the body's length that are in force, for `explain`: setting and value.
    #[must_use]
    pub fn limits(&self) -> Vec<(&'static str, String)> {
        let mut limits = Vec::new();
        limits.extend(self.max_url.map(|size| ("validate.max_url", ByteSize(size).to_string())));
        limits.extend(self.max_headers.map(|count| ("validate.max_headers", count.to_string())));
        if self.scans || self.rules.is_some() {
            limits.push(("validate.max_depth", self.json.depth.to_string()));
            limits.push(("validate.max_keys", self.json.keys.to_string()));
            limits.push(("validate.max_string", ByteSize(self.json.string as u64).to_string()));
        }
        if self.rules.is_some() {
            limits.push(("validate.buffer", ByteSize(self.buffer).to_string()));
        }
        limits
    }

    /// Judges the head. `target_length`: bytes of path and query as received.
    #[must_use]
    pub fn judge_head(&self, request: &RequestView<'_>, target_length: usize) -> HeadJudgement {
        let refused = |rejection: Rejection, reason: String| {
            let admission = Admission::refuse(PolicyName::Validate, self.mode, reason, rejection);
            HeadJudgement { admission: Some(admission), task: None, operation: None }
        };
        if let Some((rejection, reason)) = self.over_limits(request, target_length) {
            return refused(rejection, reason);
        }
        if self.content_type.is_none() && self.rules.is_none() && !self.scans {
            return HeadJudgement { admission: None, task: None, operation: None };
        }
        let presence = Presence::of(request);
        let media = MediaType::of(request.headers);
        let has_type = request.headers.contains_key(CONTENT_TYPE);
        if let Some(ranges) = &self.content_type
            && (has_type || presence == Presence::Certain)
            && !media.as_ref().is_some_and(|media| ranges.iter().any(|range| range.rank(&media.essence).is_some()))
        {
            let names: Vec<&str> = ranges.iter().map(MediaRange::as_str).collect();
            return refused(unsupported(&names), "the content type is none of those that are taken".to_owned());
        }
        let mut violations = Violations::default();
        let mut asked_for = None;
        let found = match self.rules.as_deref() {
            None => Ok(None),
            Some(Rules::Schemas { body, required, query, header }) => {
                if let Some(query) = query {
                    judge_query(query, request.query, &mut violations);
                }
                if let Some(header) = header {
                    judge_fields(header, request.headers, &mut violations);
                }
                let required = *required && [Method::POST, Method::PUT, Method::PATCH].contains(request.method);
                Ok(body.as_ref().map(|_| (Target::Schema, required, Vec::new())))
            }
            Some(Rules::OpenApi { description, unknown, undeclared }) => {
                match description.find(request.method, request.path) {
                    Asked::Operation(operation, path) => {
                        asked_for = Some(operation);
                        let undeclared = *undeclared == Strictness::Reject;
                        let (query, headers) = (request.query, request.headers);
                        let head = openapi::Head { path, query, headers, undeclared };
                        description.judge_head(operation, head, self.json, &mut violations);
                        let described = description.describes_body(operation);
                        let target = Target::Operation(operation, description.body_rule(operation, media.as_ref()));
                        Ok(described.then(|| {
                            let accepted = description.accepted(operation).into_iter().map(str::to_owned).collect();
                            (target, description.requires_body(operation), accepted)
                        }))
                    }
                    _ if *unknown == Strictness::Allow => {
                        let reason = "the description does not have this operation";
                        return HeadJudgement {
                            admission: Some(Admission::allow(PolicyName::Validate, reason)),
                            task: self.scan_task(media, presence),
                            operation: None,
                        };
                    }
                    Asked::Methods(methods) => Err(unknown_method(&methods)),
                    Asked::Nothing => {
                        Err(Rejection::new(Code::NoRoute, "the description of this API has no such path"))
                    }
                }
            }
        };
        let found = match found {
            Ok(found) => found,
            Err(rejection) => return refused(rejection, "the description does not have this operation".to_owned()),
        };
        let task = match found {
            Some((target, required, accepted)) if presence != Presence::None => {
                let is_typed = has_type || presence == Presence::Certain;
                if let Some(refusal) = unjudgeable(&target, media.as_ref(), is_typed, &accepted, request.headers) {
                    let reason = "the content type or coding of the body is not taken".to_owned();
                    return refused(refusal, reason);
                }
                self.task(target, media, required, accepted)
            }
            Some((_, required, _)) => {
                if required {
                    violations.push(Place::Body, "", "is required");
                }
                None
            }
            None => {
                if self.is_coded_json(media.as_ref(), request.headers) {
                    return refused(uncoded(), "a coded body can't be held to limits of JSON".to_owned());
                }
                self.scan_task(media, presence)
            }
        };
        let admission = match self.rules.as_deref() {
            _ if !violations.is_empty() => Some(invalid(self.mode, violations)),
            Some(Rules::OpenApi { .. }) => {
                Some(Admission::allow(PolicyName::Validate, "the head is as the description has it"))
            }
            Some(Rules::Schemas { query: None, header: None, .. }) | None => None,
            Some(Rules::Schemas { .. }) => Some(Admission::allow(PolicyName::Validate, "the head fits its schemas")),
        };
        HeadJudgement { admission, task, operation: asked_for }
    }

    /// Judges a response by its head: whether it is as described, and what is still to be judged of its body.
    /// `is_empty`: it has none.
    #[must_use]
    pub fn judge_response(
        &self,
        operation: usize,
        status: StatusCode,
        headers: &HeaderMap,
        is_empty: bool,
    ) -> Option<(Option<Admission>, Option<ResponseTask>)> {
        let mode = match self.responses {
            Responses::Off => return None,
            Responses::Report => Mode::Report,
            Responses::Enforce => self.mode,
        };
        let Rules::OpenApi { description, .. } = self.rules.as_deref()? else { return None };
        match description.judges_response(operation, status, headers) {
            Some(judged) => Some((Some(response_admission(judged, mode)), None)),
            None if is_empty => Some((Some(response_admission(Judged::Sound, mode)), None)),
            None => {
                let content_type = headers.get(CONTENT_TYPE).map(|value| (CONTENT_TYPE, value.clone()));
                let most = usize::try_from(self.response_buffer).unwrap_or(usize::MAX);
                Some((
                    None,
                    Some(ResponseTask {
                        description: Arc::clone(description),
                        operation,
                        status,
                        headers: content_type.into_iter().collect(),
                        most,
                        mode,
                    }),
                ))
            }
        }
    }

    fn over_limits(&self, request: &RequestView<'_>, target_length: usize) -> Option<(Rejection, String)> {
        if let Some(max) = self.max_url.filter(|max| target_length as u64 > *max) {
            let detail = format!("path and query are longer than {}", ByteSize(max));
            let reason = format!("{target_length} bytes of path and query, {max} allowed");
            return Some((Rejection::new(Code::HeadersTooLarge, detail), reason));
        }
        let fields = request.headers.len();
        let max = self.max_headers.filter(|max| fields > usize::try_from(*max).unwrap_or(usize::MAX))?;
        let detail = format!("the head has more than {max} fields");
        Some((Rejection::new(Code::HeadersTooLarge, detail), format!("{fields} fields, {max} allowed")))
    }

    fn task(
        &self,
        target: Target,
        media: Option<MediaType>,
        required: bool,
        accepted: Vec<String>,
    ) -> Option<BodyTask> {
        let rules = Arc::clone(self.rules.as_ref()?);
        // What can't be read is not held.
        if media.as_ref().is_some_and(|media| media.kind() == Kind::Opaque) {
            return None;
        }
        let (limits, mode) = (self.json, self.mode);
        let judge = Some(Judge { rules, target, required, accepted, buffer: self.buffer, over: self.over_buffer });
        Some(BodyTask { media, limits, mode, judge })
    }

    fn scan_task(&self, media: Option<MediaType>, presence: Presence) -> Option<BodyTask> {
        let is_json = media.as_ref().is_some_and(|media| media.kind() == Kind::Json);
        let wanted = self.scans && is_json && presence != Presence::None;
        wanted.then_some(BodyTask { media, limits: self.json, mode: self.mode, judge: None })
    }

    fn is_coded_json(&self, media: Option<&MediaType>, headers: &HeaderMap) -> bool {
        self.scans && media::is_coded(headers) && media.is_some_and(|media| media.kind() == Kind::Json)
    }
}

/// Why a body that has to be judged can't be. `is_typed`: it has a type, or has to have one.
fn unjudgeable(
    target: &Target,
    media: Option<&MediaType>,
    is_typed: bool,
    accepted: &[String],
    headers: &HeaderMap,
) -> Option<Rejection> {
    let accepted: Vec<&str> = match target {
        Target::Schema => vec!["application/json"],
        Target::Operation(..) => accepted.iter().map(String::as_str).collect(),
    };
    let Some(media) = media else {
        return is_typed.then(|| unsupported(&accepted));
    };
    let is_taken = match target {
        Target::Schema => media.kind() != Kind::Opaque,
        Target::Operation(_, rule) => *rule != BodyRule::Unsupported,
    };
    if !is_taken {
        return Some(unsupported(&accepted));
    }
    if media.kind() == Kind::Opaque {
        return None;
    }
    if !media.is_utf8() {
        let detail = "the body's character set is not UTF-8";
        return Some(Rejection::new(Code::UnsupportedMediaType, detail).header(ACCEPT, accept(&accepted)));
    }
    media::is_coded(headers).then(uncoded)
}

/// Whether a request has a body, as far as its head tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    None,
    /// HTTP/2 without a length: the end of the stream tells.
    Possible,
    Certain,
}

impl Presence {
    fn of(request: &RequestView<'_>) -> Self {
        match request.headers.get(CONTENT_LENGTH) {
            Some(length) if length.as_bytes() == b"0" => Self::None,
            Some(_) => Self::Certain,
            None if request.headers.contains_key(TRANSFER_ENCODING) => Self::Certain,
            None if request.version == Version::HTTP_2 => Self::Possible,
            None => Self::None,
        }
    }
}

fn judge_any(part: &Part, values: &[Value], place: Place, violations: &mut Violations) {
    if values.iter().any(|value| part.schema.is_valid(value)) {
        return;
    }
    if let Some(value) = values.first() {
        part.schema.judge(value, place, "", violations);
    }
}

fn judge_query(part: &Part, query: Option<&str>, violations: &mut Violations) {
    let decoded: Option<Vec<(String, String)>> = pairs(query.unwrap_or_default())
        .map(|(name, value)| Some((decode(name, true)?, decode(value, true)?)))
        .collect();
    match decoded {
        Some(pairs) => {
            let values = media::both(|texts| part.shape.object(pairs.clone(), texts));
            judge_any(part, &values, Place::Query, violations);
        }
        None => violations.push(Place::Query, "", "is not percent-encoded UTF-8"),
    }
}

fn judge_fields(part: &Part, headers: &HeaderMap, violations: &mut Violations) {
    let fields = |texts: bool| {
        let mut object = Map::new();
        for name in headers.keys() {
            let lines: Vec<String> = headers
                .get_all(name)
                .iter()
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
                .collect();
            let free = Shape::default();
            let shape = part.shape.property(name.as_str()).unwrap_or(&free);
            let value = if shape.is_list() {
                let items = lines.iter().flat_map(|line| line.split(',')).map(|item| item.trim().to_owned());
                shape.list(items, texts)
            } else if shape == &free {
                Value::String(lines.join(", "))
            } else {
                shape.scalar(lines.join(", "), texts)
            };
            object.insert(name.as_str().to_owned(), value);
        }
        Value::Object(object)
    };
    judge_any(part, &media::both(fields), Place::Header, violations);
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::CONTENT_TYPE;
    use proptest::prelude::*;

    use super::*;
    use crate::model::verdict::Verdict;

    fn compiled(config: &Config) -> Validate {
        let (specs, none) = (Specs::default(), BTreeMap::new());
        compile(config, &References::new(&specs, &none), &mut Diagnostics::default()).expect("always")
    }

    fn limit(max_body: Option<&str>, content_type: &'static str, upgrade: bool) -> Option<BodyLimit> {
        let max_body = max_body.map(|size| size.parse::<ByteSize>().expect("a size").into());
        let validate = compiled(&Config { max_body, ..Config::default() });
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        validate.body_limit(&headers, upgrade)
    }

    #[track_caller]
    fn check(max_body: Option<&str>, content_type: &'static str, upgrade: bool, bytes: Option<u64>) {
        assert_eq!(limit(max_body, content_type, upgrade).and_then(BodyLimit::enforced), bytes);
    }

    #[test]
    fn only_a_written_limit_holds_for_endless_streams() {
        const TEN: u64 = 10 * 1024 * 1024;
        check(None, "application/json", false, Some(TEN));
        check(None, "application/json", true, None);
        check(None, "application/grpc+proto", false, None);
        check(None, "Application/GRPC", false, None);
        check(None, "application/gr", false, Some(TEN));
        check(Some("1KiB"), "application/grpc", false, Some(1024));
        check(Some("1KiB"), "", true, Some(1024));
        check(Some("0B"), "", false, Some(0));
    }

    #[track_caller]
    fn check_length(max_body: &str, declared: Option<u64>, verdict: Verdict) {
        let admission = limit(Some(max_body), "", false).expect("written").judge_declared(declared);
        assert_eq!(admission.decision.verdict, verdict);
        assert_eq!(admission.rejection.is_some(), verdict == Verdict::Reject);
    }

    #[test]
    fn a_declared_length_is_judged_at_once() {
        check_length("1KiB", Some(1024), Verdict::Allow);
        check_length("1KiB", Some(1025), Verdict::Reject);
        check_length("1KiB", None, Verdict::Allow);
        check_length("0B", Some(0), Verdict::Allow);
        check_length("0B", Some(1), Verdict::Reject);
    }

    #[test]
    fn report_mode_cuts_nothing_off() {
        let config = Config { max_body: Some(ByteSize(1).into()), mode: Mode::Report, ..Config::default() };
        let validate = compiled(&config);
        let limit = validate.body_limit(&HeaderMap::new(), false).expect("written");
        let admission = limit.judge_received(2).expect("over the limit");
        assert_eq!((admission.decision.verdict, admission.rejection), (Verdict::WouldReject, None));
        assert_eq!(limit.enforced(), None);
    }

    proptest! {
        #[test]
        fn what_streams_is_judged_as_what_is_declared(max in any::<u64>(), length in any::<u64>()) {
            let limit = BodyLimit { bytes: max, mode: Mode::Enforce };
            prop_assert_eq!(limit.judge_received(length).is_some(), limit.judge_declared(Some(length)).rejection.is_some());
            prop_assert_eq!(limit.judge_received(length).is_some(), length > max);
        }
    }
}
