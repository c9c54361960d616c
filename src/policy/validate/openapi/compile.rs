//! From the document to a [`Description`]: everything that is wrong with it is said at its place in its own file.

use std::collections::HashSet;
use std::sync::Arc;

use http::Method;
use serde_json::{Map, Value};

use super::super::media::MediaRange;
use super::super::schema::compile_table;
use super::super::shape::{Shape, in_table};
use super::lower::{At, Direction, Lowerer, Version};
use super::parameters::{Parameter, Style};
use super::paths::{Tree, Twin};
use super::{Body, Config, Content, Description, Operation, Status};
use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::source::Spanned;
use crate::model::spec::Specs;
use crate::model::violation::{Place, step};

/// The most operations of one description.
const MAX_OPERATIONS: usize = 20_000;

const METHODS: [(&str, Method); 8] = [
    ("get", Method::GET),
    ("put", Method::PUT),
    ("post", Method::POST),
    ("delete", Method::DELETE),
    ("options", Method::OPTIONS),
    ("head", Method::HEAD),
    ("patch", Method::PATCH),
    ("trace", Method::TRACE),
];

/// Compiles a description, or hands on the previous one when nothing has changed that it was made from.
pub fn compile(
    name: &str,
    config: &Spanned<Config>,
    specs: &Specs,
    previous: Option<&Arc<Description>>,
    diagnostics: &mut Diagnostics,
) -> Option<Arc<Description>> {
    let errors = diagnostics.errors();
    let root = specs.require(&config.file, diagnostics)?;
    let written_base = match &config.base_path {
        Some(base) => Some(base_path(base, diagnostics)?),
        None => None,
    };
    let texts: Vec<(Arc<str>, Arc<str>)> = specs
        .reach(root)
        .into_iter()
        .filter_map(|index| specs.files.get(index))
        .map(|file| (Arc::clone(&file.path), Arc::clone(&file.text)))
        .collect();
    if let Some(previous) = previous.filter(|previous| previous.texts == texts && previous.written_base == written_base)
    {
        return Some(Arc::clone(previous));
    }
    let file = specs.files.get(root)?;
    let version = version(&file.value).or_else(|| {
        let found = file.value.get("openapi").or_else(|| file.value.get("swagger"));
        let message = match found {
            Some(found) => format!("a version that is not read: {found}"),
            None => "not an OpenAPI description: `openapi` is missing".to_owned(),
        };
        let span = file.places.span(if file.value.get("openapi").is_some() { "/openapi" } else { "" });
        diagnostics.push(Diagnostic::error("bad_openapi", span, message).help("it reads OpenAPI 3.0 and 3.1"));
        None
    })?;
    let bases = written_base.clone().map_or_else(|| bases(&file.value), |base| vec![base]);
    let mut reader = Reader {
        lowerer: Lowerer::new(specs, version, diagnostics),
        tree: Tree::default(),
        paths: Vec::new(),
        operations: Vec::new(),
        shapes: Vec::new(),
    };
    reader.paths(&(root, "/paths".to_owned()));
    reader.lowerer.finish();
    let Reader { lowerer, tree, paths, mut operations, shapes, .. } = reader;
    let lowered = lowerer.lowered;
    for (operation, place) in shapes {
        let Some(operation) = operations.get_mut(operation) else { continue };
        let (schema, shape) = match place {
            Slot::Parameter(index) => match operation.parameters.get_mut(index) {
                Some(parameter) => (Some(parameter.schema), &mut parameter.shape),
                None => continue,
            },
            Slot::Body(index) => match operation.body.as_mut().and_then(|body| body.contents.get_mut(index)) {
                Some(content) => (content.schema, &mut content.shape),
                None => continue,
            },
        };
        if let Some(schema) = schema.and_then(|schema| lowered.schemas.get(schema)) {
            *shape = Shape::of(schema, &in_table(&lowered.schemas));
        }
    }
    if diagnostics.errors() > errors {
        return None;
    }
    let table = compile_table(&lowered, specs, diagnostics);
    let name = name.to_owned();
    let description = Description { name, texts, written_base, bases, tree, paths, operations, table };
    (diagnostics.errors() == errors).then(|| Arc::new(description))
}

fn base_path(written: &Spanned<String>, diagnostics: &mut Diagnostics) -> Option<String> {
    if !written.value.starts_with('/') || written.value.contains(['?', '#', '{']) {
        let message = format!("not a path: {:?}", written.value);
        diagnostics.push(Diagnostic::error("bad_value", written.span, message).help("as in \"/v1\""));
        return None;
    }
    Some(written.value.trim_end_matches('/').to_owned())
}

fn version(value: &Value) -> Option<Version> {
    let version = value.get("openapi")?.as_str()?;
    match version.get(..4).unwrap_or(version) {
        "3.0." => Some(Version::V30),
        "3.1." => Some(Version::V31),
        _ => None,
    }
}

/// The paths of the servers, without a slash at the end; variables stand for their defaults.
fn bases(value: &Value) -> Vec<String> {
    let mut bases = Vec::new();
    for server in value.get("servers").and_then(Value::as_array).into_iter().flatten() {
        let Some(url) = server.get("url").and_then(Value::as_str) else { continue };
        let mut url = url.to_owned();
        for (name, variable) in server.get("variables").and_then(Value::as_object).into_iter().flatten() {
            let default = variable.get("default").and_then(Value::as_str).unwrap_or_default();
            url = url.replace(&format!("{{{name}}}"), default);
        }
        let path = match url.split_once("://") {
            Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or_default(),
            None => url.as_str(),
        };
        let path = path.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
        let path = if path.is_empty() || path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        if !bases.contains(&path) {
            bases.push(path);
        }
    }
    // The longest first: `/v1` before ``.
    bases.sort_by_key(|base| std::cmp::Reverse(base.len()));
    if bases.is_empty() {
        bases.push(String::new());
    }
    bases
}

struct Reader<'a> {
    lowerer: Lowerer<'a>,
    tree: Tree,
    paths: Vec<Vec<(Method, usize)>>,
    operations: Vec<Operation>,
    /// Whose shapes are still to be made, once all schemas are there.
    shapes: Vec<(usize, Slot)>,
}

enum Slot {
    Parameter(usize),
    Body(usize),
}

impl<'a> Reader<'a> {
    fn paths(&mut self, at: &At) {
        let Some(paths) = self.table(at) else { return };
        for (template, _) in paths.iter().filter(|(template, _)| !template.starts_with("x-")) {
            let here = below(at, template);
            match self.tree.add(template, self.paths.len()) {
                Ok(()) => {}
                Err(Twin::Same) => {
                    self.lowerer.wrong("bad_openapi", &here, format!("a path that is described already: {template}"));
                    continue;
                }
                Err(Twin::Malformed(why)) => {
                    self.lowerer.wrong("bad_openapi", &here, format!("not a path: {why}: {template}"));
                    continue;
                }
            }
            let methods = match self.lowerer.follow(here) {
                Some(item) => self.path_item(&item),
                None => Vec::new(),
            };
            self.paths.push(methods);
        }
    }

    fn path_item(&mut self, at: &At) -> Vec<(Method, usize)> {
        let Some(item) = self.table(at) else { return Vec::new() };
        let common = self.parameters(at);
        let mut methods = Vec::new();
        for (name, method) in METHODS {
            if !item.contains_key(name) {
                continue;
            }
            let here = below(at, name);
            if self.operations.len() >= MAX_OPERATIONS {
                let message = format!("more than {MAX_OPERATIONS} operations");
                self.lowerer.wrong("bad_openapi", &here, message);
                return methods;
            }
            if let Some(operation) = self.operation(&here, &common) {
                methods.push((method, self.operations.len()));
                self.operations.push(operation);
            }
        }
        methods
    }

    fn operation(&mut self, at: &At, common: &[Parameter]) -> Option<Operation> {
        let operation = self.table(at)?;
        let number = self.operations.len();
        let mut parameters = self.parameters(at);
        for parameter in common {
            let is_said = parameters.iter().any(|own| own.name == parameter.name && own.place == parameter.place);
            if !is_said {
                parameters.push(parameter.clone());
            }
        }
        self.shapes.extend((0..parameters.len()).map(|index| (number, Slot::Parameter(index))));
        let body = if operation.contains_key("requestBody") {
            let at = self.lowerer.follow(below(at, "requestBody"))?;
            let body = self.table(&at)?;
            let contents = self.contents(&at, Direction::Request);
            self.shapes.extend((0..contents.len()).map(|index| (number, Slot::Body(index))));
            Some(Body { required: body.get("required") == Some(&Value::Bool(true)), contents })
        } else {
            None
        };
        let mut responses = Vec::new();
        if let Some(Value::Object(described)) = operation.get("responses") {
            let around = below(at, "responses");
            for status in described.keys().filter(|status| !status.starts_with("x-")) {
                let here = below(&around, status);
                let Some(status) = status_of(status) else {
                    self.lowerer.wrong("bad_openapi", &here, format!("not a status: {status}"));
                    continue;
                };
                let Some(here) = self.lowerer.follow(here) else { continue };
                responses.push((status, self.contents(&here, Direction::Response)));
            }
        }
        responses.sort_by_key(|(status, _)| match status {
            Status::Exactly(_) => 0,
            Status::Hundred(_) => 1,
            Status::Default => 2,
        });
        Some(Operation { parameters, body, responses })
    }

    fn contents(&mut self, at: &At, direction: Direction) -> Vec<Content> {
        let around = below(at, "content");
        let Some(contents) = self.lowerer.value(at).and_then(|value| value.get("content")) else { return Vec::new() };
        let Some(contents) = contents.as_object() else {
            self.lowerer.wrong("bad_openapi", &around, "`content` is a table");
            return Vec::new();
        };
        let mut read = Vec::new();
        for (range, content) in contents {
            let here = below(&around, range);
            let Some(range) = MediaRange::parse(range) else {
                self.lowerer.wrong("bad_openapi", &here, format!("not a media type: {range}"));
                continue;
            };
            let schema = content.get("schema").map(|_| self.lowerer.schema(below(&here, "schema"), direction));
            read.push(Content { range, schema, shape: Shape::default() });
        }
        read
    }

    /// The `parameters` of a path or an operation.
    fn parameters(&mut self, at: &At) -> Vec<Parameter> {
        let Some(list) = self.lowerer.value(at).and_then(|value| value.get("parameters")) else { return Vec::new() };
        let around = below(at, "parameters");
        let Some(list) = list.as_array() else {
            self.lowerer.wrong("bad_openapi", &around, "`parameters` is a list");
            return Vec::new();
        };
        let mut read: Vec<Parameter> = Vec::new();
        let mut names = HashSet::new();
        for index in 0..list.len() {
            let here = below(&around, &index.to_string());
            let Some(here) = self.lowerer.follow(here) else { continue };
            let Some(parameter) = self.parameter(&here) else { continue };
            if !names.insert((parameter.name.clone(), parameter.place)) {
                let message = format!("a parameter that is described twice: {}", parameter.name);
                self.lowerer.wrong("bad_openapi", &here, message);
            }
            // These three are described elsewhere (OpenAPI 3.1 §4.8.12.1).
            let is_field = |name: &str| parameter.place == Place::Header && parameter.name.eq_ignore_ascii_case(name);
            if !["accept", "content-type", "authorization"].into_iter().any(is_field) {
                read.push(parameter);
            }
        }
        read
    }

    fn parameter(&mut self, at: &At) -> Option<Parameter> {
        let written = self.table(at)?;
        let text = |key: &str| written.get(key).and_then(Value::as_str);
        let flag = |key: &str| written.get(key).and_then(Value::as_bool);
        let Some(name) = text("name") else {
            self.lowerer.wrong("bad_openapi", at, "a parameter without a `name`");
            return None;
        };
        let place = match text("in") {
            Some("path") => Place::Path,
            Some("query") => Place::Query,
            Some("header") => Place::Header,
            Some("cookie") => Place::Cookie,
            _ => {
                self.lowerer.wrong("bad_openapi", at, "`in` is \"path\", \"query\", \"header\" or \"cookie\"");
                return None;
            }
        };
        let style = match text("style") {
            None => Style::default_of(place),
            Some(written) => {
                let style = Style::parse(written, place);
                if style.is_none() {
                    let message = format!("no style for a parameter in the {}: {written}", place.as_str());
                    self.lowerer.wrong("bad_openapi", &below(at, "style"), message);
                }
                style?
            }
        };
        let content = written.get("content").and_then(Value::as_object).and_then(|content| content.iter().next());
        let schema_at = match content {
            Some((media, content)) => {
                content.get("schema").map(|_| below(&below(&below(at, "content"), media), "schema"))
            }
            None => written.get("schema").map(|_| below(at, "schema")),
        };
        let is_json = content.is_some_and(|(media, _)| media.contains("json"));
        let Some(schema_at) = schema_at else {
            self.lowerer.wrong("bad_openapi", at, "a parameter without a `schema`");
            return None;
        };
        Some(Parameter {
            name: name.to_owned(),
            place,
            required: flag("required").unwrap_or(place == Place::Path),
            style,
            explode: flag("explode").unwrap_or(matches!(style, Style::Form | Style::DeepObject)),
            allow_empty: flag("allowEmptyValue").unwrap_or(false),
            is_json,
            schema: self.lowerer.schema(schema_at, Direction::Request),
            shape: Shape::default(),
        })
    }

    fn table(&mut self, at: &At) -> Option<&'a Map<String, Value>> {
        match self.lowerer.value(at) {
            Some(Value::Object(table)) => Some(table),
            Some(_) => {
                self.lowerer.wrong("bad_openapi", at, "it is a table");
                None
            }
            None => None,
        }
    }
}

fn status_of(text: &str) -> Option<Status> {
    match text {
        "default" => Some(Status::Default),
        _ if text.len() == 3 && text.to_ascii_uppercase().ends_with("XX") => {
            text.get(..1)?.parse().ok().filter(|hundred| (1..=5).contains(hundred)).map(Status::Hundred)
        }
        _ => text.parse().ok().filter(|code| (100..=599).contains(code)).map(Status::Exactly),
    }
}

fn below(at: &At, name: &str) -> At {
    (at.0, format!("{}{}", at.1, step(name)))
}
