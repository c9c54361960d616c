//! JSON Schema: compiled once, asked for each message. The crate judges; what is wrong is worded here, without a value.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::{Arc, OnceLock, Weak};

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{
    Draft, Keyword, PatternCache, PatternOptions, Registry, Retrieve, Uri, ValidationError, ValidationOptions,
    Validator,
};
use serde_json::{Map, Value};

use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::spec::Specs;
use crate::model::violation::{Place, Violations};

/// Stands in a lowered schema where `$ref` stood: the number of another one in the same [`Table`].
pub(super) const REFERENCE: &str = "$portcullis-ref";
/// `multipleOf` with a divisor that a double can't hold.
pub(super) const MULTIPLE_OF: &str = "$portcullis-multiple-of";

/// How far one expression may search backwards in one text: a pattern of the description can't be made to run for ever.
const BACKTRACK_LIMIT: usize = 100_000;
const REGEX_SIZE_LIMIT: usize = 1 << 20;

/// Schemas that refer to each other by number, each compiled once however many others refer to it.
#[derive(Debug)]
pub(super) struct Table {
    validators: Vec<OnceLock<Validator>>,
}

/// One schema, ready to be asked.
#[derive(Debug, Clone)]
pub(super) struct Schema {
    table: Arc<Table>,
    root: usize,
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.table, &other.table) && self.root == other.root
    }
}

impl Eq for Schema {}

impl Schema {
    pub(super) const fn new(table: Arc<Table>, root: usize) -> Self {
        Self { table, root }
    }

    pub(super) fn is_valid(&self, value: &Value) -> bool {
        self.table.is_valid(self.root, value)
    }

    /// Judges `value`, which stands at `pointer` in `place`.
    pub(super) fn judge(&self, value: &Value, place: Place, pointer: &str, violations: &mut Violations) {
        if !self.is_valid(value) {
            self.table.explain(self.root, value, place, pointer, violations);
        }
    }
}

/// What has been found out of the value that is being judged: which schema of which table a part of it meets. Alternatives
/// that refer to each other would else be asked twice at each level, which is for ever at the sixtieth.
type Known = HashMap<(usize, usize, usize), bool>;

/// More than this is not kept for the next value.
const KEPT: usize = 4096;

/// What is known belongs to one judgement: after it, another value may stand at the same place in memory.
fn judgement<T>(judge: impl FnOnce() -> T) -> T {
    thread_local! {
        static OPEN: Cell<bool> = const { Cell::new(false) };
    }
    if OPEN.replace(true) {
        return judge();
    }
    let judged = judge();
    OPEN.set(false);
    KNOWN.with_borrow_mut(|known| {
        known.clear();
        known.shrink_to(KEPT);
    });
    judged
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

impl Table {
    pub(super) fn is_valid(&self, root: usize, value: &Value) -> bool {
        judgement(|| self.meets(root, value))
    }

    /// Asks each schema once of each part of the value.
    fn meets(&self, root: usize, value: &Value) -> bool {
        let place = (std::ptr::from_ref(self).addr(), root, std::ptr::from_ref(value).addr());
        if let Some(known) = KNOWN.with_borrow(|known| known.get(&place).copied()) {
            return known;
        }
        let meets = self.validators.get(root).and_then(OnceLock::get).is_none_or(|validator| validator.is_valid(value));
        KNOWN.with_borrow_mut(|known| known.insert(place, meets));
        meets
    }

    pub(super) fn explain(&self, root: usize, value: &Value, place: Place, pointer: &str, violations: &mut Violations) {
        judgement(|| self.list(root, value, place, pointer, violations));
    }

    fn list(&self, root: usize, value: &Value, place: Place, pointer: &str, violations: &mut Violations) {
        let Some(validator) = self.validators.get(root).and_then(OnceLock::get) else { return };
        for error in validator.iter_errors(value) {
            if violations.is_full() {
                return;
            }
            let at = error.instance_path().as_str();
            let whole = format!("{pointer}{at}");
            match referred(error.kind()) {
                Some(other) => {
                    if let Some(part) = value.pointer(at) {
                        self.list(other, part, place, &whole, violations);
                    }
                }
                None => violations.push(place, &whole, &message(error.kind())),
            }
        }
    }
}

fn referred(kind: &ValidationErrorKind) -> Option<usize> {
    match kind {
        ValidationErrorKind::Custom { message, .. } => message.strip_prefix(REFERENCE)?.parse().ok(),
        _ => None,
    }
}

/// Lowered schemas and where in the sources each comes from.
#[derive(Debug, Default)]
pub(super) struct Lowered {
    /// The schemas, referring to each other by [`REFERENCE`].
    pub schemas: Vec<Value>,
    /// Index of the file and pointer of each.
    pub origins: Vec<(usize, String)>,
    /// Whether any asks what others left unevaluated, which a schema can only know of those that it contains.
    pub unevaluated: bool,
}

/// Compiles a table. Formats are asserted, as descriptions of APIs mean them.
pub(super) fn compile_table(lowered: &Lowered, specs: &Specs, diagnostics: &mut Diagnostics) -> Arc<Table> {
    let Lowered { schemas, origins, unevaluated } = lowered;
    let whole = unevaluated.then(|| with_plain_references(schemas));
    Arc::new_cyclic(|own: &Weak<Table>| {
        let options = options(own.clone());
        let validators = schemas.iter().zip(origins).enumerate().map(|(index, (schema, (file, pointer)))| {
            let built = match &whole {
                Some(definitions) => options.build(&definitions_of(definitions, index)),
                None => options.build(schema),
            };
            match built {
                Ok(validator) => OnceLock::from(validator),
                Err(error) => {
                    diagnostics.push(broken(specs, *file, pointer, &error));
                    OnceLock::new()
                }
            }
        });
        Table { validators: validators.collect() }
    })
}

fn options(table: Weak<Table>) -> ValidationOptions<'static> {
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .with_retriever(NoRetriever)
        .should_validate_formats(true)
        .with_pattern_options(patterns())
        .with_pattern_cache(PatternCache::new())
        .with_format("byte", is_base64)
        .with_keyword(REFERENCE, move |_, number, _| {
            Ok(Box::new(Reference { table: table.clone(), index: index_of(number) }))
        })
        .with_keyword(MULTIPLE_OF, |_, divisor, _| {
            Ok(Box::new(MultipleOf(divisor.as_u64().map_or(1, i128::from).max(1))))
        })
}

fn patterns() -> PatternOptions<jsonschema::FancyRegex> {
    PatternOptions::fancy_regex().backtrack_limit(BACKTRACK_LIMIT).size_limit(REGEX_SIZE_LIMIT)
}

fn index_of(number: &Value) -> usize {
    number.as_u64().and_then(|number| usize::try_from(number).ok()).unwrap_or(usize::MAX)
}

/// The same schemas, referring to each other as JSON Schema does.
fn with_plain_references(schemas: &[Value]) -> Map<String, Value> {
    fn replace(value: &mut Value) {
        match value {
            Value::Object(entries) => {
                if let Some(number) = entries.get(REFERENCE).and_then(Value::as_u64) {
                    entries.remove(REFERENCE);
                    entries.insert("$ref".to_owned(), format!("#/$defs/{number}").into());
                }
                entries.values_mut().for_each(replace);
            }
            Value::Array(items) => items.iter_mut().for_each(replace),
            _ => {}
        }
    }
    let numbered = schemas.iter().enumerate().map(|(index, schema)| {
        let mut schema = schema.clone();
        replace(&mut schema);
        (index.to_string(), schema)
    });
    numbered.collect()
}

fn definitions_of(definitions: &Map<String, Value>, root: usize) -> Value {
    serde_json::json!({ "$defs": definitions, "$ref": format!("#/$defs/{root}") })
}

struct Reference {
    table: Weak<Table>,
    index: usize,
}

impl<'i> Keyword<'i> for Reference {
    fn validate(&self, instance: &'i Value) -> Result<(), ValidationError<'i>> {
        if self.is_valid(instance) {
            return Ok(());
        }
        Err(ValidationError::custom(format!("{REFERENCE}{}", self.index)))
    }

    fn is_valid(&self, instance: &'i Value) -> bool {
        self.table.upgrade().is_none_or(|table| table.meets(self.index, instance))
    }
}

struct MultipleOf(i128);

impl<'i> Keyword<'i> for MultipleOf {
    fn validate(&self, instance: &'i Value) -> Result<(), ValidationError<'i>> {
        if self.is_valid(instance) {
            return Ok(());
        }
        Err(ValidationError::custom(format!("not a multiple of {}", self.0)))
    }

    fn is_valid(&self, instance: &'i Value) -> bool {
        let whole = instance.as_u64().map(i128::from).or_else(|| instance.as_i64().map(i128::from));
        match whole {
            Some(number) => number % self.0 == 0,
            // A number with a fraction is no multiple; what isn't a number is none of this keyword's business.
            None => instance.as_f64().is_none_or(|number| number == 0.0),
        }
    }
}

/// RFC 4648 §4.
fn is_base64(text: &str) -> bool {
    let unpadded = text.trim_end_matches('=');
    text.len().is_multiple_of(4)
        && text.len() - unpadded.len() <= 2
        && unpadded.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

struct NoRetriever;

impl Retrieve for NoRetriever {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        Err(format!("references to other hosts are not followed: {uri}").into())
    }
}

/// Compiles a JSON Schema file: draft 2020-12, or the one that its `$schema` names. References are resolved among the
/// files that it refers to.
pub(super) fn compile_file(specs: &Specs, root: usize, diagnostics: &mut Diagnostics) -> Option<Schema> {
    let file = specs.files.get(root)?;
    let errors = diagnostics.errors();
    let mut builder = Registry::new().retriever(NoRetriever);
    let mut added = HashSet::new();
    for index in specs.reach(root) {
        let Some(other) = specs.files.get(index) else { continue };
        if index != root && !other.problems.is_empty() {
            diagnostics.extend(other.problems.iter().cloned());
            continue;
        }
        for (link, found) in &other.links {
            if let Err(why) = found {
                let span = other.places.span(&pointer_of_link(&other.value, link));
                diagnostics.push(Diagnostic::error("bad_reference", span, why.clone()));
            }
        }
        for name in names_of(specs, index, root) {
            if !added.insert(name.clone()) {
                continue;
            }
            builder = match builder.add(&name, other.value.clone()) {
                Ok(builder) => builder,
                Err(error) => {
                    let message = format!("not an identifier that can be referred to: {error}");
                    diagnostics.push(Diagnostic::error("bad_schema", other.places.span("/$id"), message));
                    return None;
                }
            };
        }
    }
    if diagnostics.errors() > errors {
        return None;
    }
    let registry = match builder.prepare() {
        Ok(registry) => registry,
        Err(error) => {
            let message = format!("a reference that leads nowhere: {error}");
            diagnostics.push(Diagnostic::error("bad_reference", file.places.span(""), message));
            return None;
        }
    };
    let built = jsonschema::options()
        .with_registry(&registry)
        .with_retriever(NoRetriever)
        .with_base_uri(uri_of(specs, root))
        .with_pattern_options(patterns())
        .build(&file.value);
    match built {
        Ok(validator) => {
            let table = Table { validators: vec![OnceLock::from(validator)] };
            Some(Schema::new(Arc::new(table), 0))
        }
        Err(error) => {
            diagnostics.push(broken(specs, root, "", &error));
            None
        }
    }
}

/// By which names a file can be referred to: where it lies, and where others look for it from theirs.
fn names_of(specs: &Specs, index: usize, root: usize) -> Vec<String> {
    let mut names = vec![uri_of(specs, index)];
    for other in specs.reach(root).into_iter().filter_map(|other| specs.files.get(other)) {
        let Some(base) = other.value.get("$id").and_then(Value::as_str) else { continue };
        let links = other.links.iter().filter(|(_, found)| found.as_ref() == Ok(&index));
        for (link, _) in links {
            if let Some((folder, _)) = base.rsplit_once('/') {
                names.push(format!("{folder}/{}", link.trim_start_matches("./")));
            }
        }
    }
    names
}

fn uri_of(specs: &Specs, index: usize) -> String {
    let path = specs.files.get(index).map_or("", |file| file.path.as_ref());
    let mut uri = "portcullis:///".to_owned();
    for byte in path.trim_start_matches('/').bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'-' | b'_' | b'~') {
            uri.push(char::from(byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri
}

fn pointer_of_link(value: &Value, link: &str) -> String {
    fn find(value: &Value, link: &str, pointer: &mut String) -> bool {
        let entries: Vec<(String, &Value)> = match value {
            Value::Object(entries) => {
                let refers = entries.get("$ref").and_then(Value::as_str).is_some_and(|found| found.starts_with(link));
                if refers {
                    pointer.push_str("/$ref");
                    return true;
                }
                entries.iter().map(|(name, part)| (crate::model::violation::step(name), part)).collect()
            }
            Value::Array(items) => items.iter().enumerate().map(|(at, part)| (format!("/{at}"), part)).collect(),
            _ => return false,
        };
        entries.into_iter().any(|(step, part)| {
            let length = pointer.len();
            pointer.push_str(&step);
            let found = find(part, link, pointer);
            if !found {
                pointer.truncate(length);
            }
            found
        })
    }
    let mut pointer = String::new();
    find(value, link, &mut pointer);
    pointer
}

/// What is wrong with a schema, at its place.
fn broken(specs: &Specs, file: usize, pointer: &str, error: &ValidationError<'_>) -> Diagnostic {
    let at = format!("{pointer}{}", error.instance_path());
    let span = specs.files.get(file).map(|file| file.places.span(&at)).unwrap_or_default();
    match error.kind() {
        ValidationErrorKind::Referencing(reason) => {
            Diagnostic::error("bad_reference", span, format!("a reference that leads nowhere: {reason}"))
        }
        kind => {
            let keyword = at.rsplit('/').next().unwrap_or_default();
            let message = format!("not a schema: `{keyword}` {}", message(kind));
            Diagnostic::error("bad_schema", span, message)
        }
    }
}

/// The rule that is broken, without the value that breaks it.
fn message(kind: &ValidationErrorKind) -> String {
    use ValidationErrorKind as Kind;
    match kind {
        Kind::Type { kind } => format!("is not {}", type_names(kind)),
        Kind::Required { property } => format!("lacks the property {property}"),
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            let names: Vec<String> = unexpected.iter().take(5).map(|name| format!("{name:?}")).collect();
            format!("has properties that are not described: {}", names.join(", "))
        }
        Kind::AdditionalItems { .. } | Kind::UnevaluatedItems { .. } => "has items that are not described".to_owned(),
        Kind::AnyOf { .. } | Kind::OneOfNotValid { .. } => "fits none of the alternatives".to_owned(),
        Kind::OneOfMultipleValid { .. } => "fits more than one of the alternatives".to_owned(),
        Kind::Constant { expected_value } => format!("is not {expected_value}"),
        Kind::Enum { options } => format!("is not one of {options}"),
        Kind::Maximum { limit } => format!("is more than {limit}"),
        Kind::Minimum { limit } => format!("is less than {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("is not less than {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("is not more than {limit}"),
        Kind::MultipleOf { multiple_of } => format!("is not a multiple of {multiple_of}"),
        Kind::MaxLength { limit } => format!("is longer than {limit} characters"),
        Kind::MinLength { limit } => format!("is shorter than {limit} characters"),
        Kind::MaxItems { limit } => format!("has more than {limit} items"),
        Kind::MinItems { limit } => format!("has less than {limit} items"),
        Kind::MaxProperties { limit } => format!("has more than {limit} properties"),
        Kind::MinProperties { limit } => format!("has less than {limit} properties"),
        Kind::Pattern { pattern } => format!("does not match {pattern:?}"),
        Kind::Format { format } => format!("is not a valid {format}"),
        Kind::UniqueItems => "has an item twice".to_owned(),
        Kind::Contains => "has no item, or too few or too many, of the kind that is asked for".to_owned(),
        Kind::PropertyNames { .. } => "has a property whose name is not allowed".to_owned(),
        Kind::FalseSchema => "is not allowed here".to_owned(),
        Kind::Not { .. } => "is what the description rules out".to_owned(),
        Kind::ContentEncoding { content_encoding } => format!("is not encoded as {content_encoding}"),
        Kind::ContentMediaType { content_media_type } => format!("is not {content_media_type}"),
        Kind::BacktrackLimitExceeded { .. } | Kind::RegexEngineFailure { .. } => {
            "takes too long to match with its pattern".to_owned()
        }
        Kind::Custom { message, .. } => format!("is {message}"),
        Kind::FromUtf8 { .. } => "is not UTF-8 once decoded".to_owned(),
        Kind::Referencing(_) => "can't be judged".to_owned(),
    }
}

fn type_names(kind: &TypeKind) -> String {
    match kind {
        TypeKind::Single(one) => one.to_string(),
        TypeKind::Multiple(several) => several.iter().map(|one| one.to_string()).collect::<Vec<_>>().join(" or "),
    }
}
