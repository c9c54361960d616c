//! Media types (RFC 9110 §8.3) and what the bytes of a body become by them: JSON, forms, parts, text.

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde_json::{Map, Value};

use super::json::{JsonLimits, Scanner};
use super::openapi::percent::{decode, pairs};
use super::shape::Shape;
use crate::model::violation::{Place, Violations, step};

/// The most parts of a multipart body, and pairs of a form.
const MAX_PARTS: usize = 1000;

/// What a body says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MediaType {
    /// Type and subtype in lower case.
    pub(super) essence: String,
    charset: Option<String>,
    boundary: Option<String>,
}

impl MediaType {
    /// Of `Content-Type`; `None` when there is none, or it can't be read in one way.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(CONTENT_TYPE).iter();
        let first = values.next()?;
        if values.next().is_some() {
            return None;
        }
        Self::parse(first.to_str().ok()?)
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (essence, mut rest) = text.split_once(';').unwrap_or((text, ""));
        let essence = essence.trim().to_ascii_lowercase();
        let (kind, subtype) = essence.split_once('/')?;
        if ![kind, subtype].into_iter().all(is_token) {
            return None;
        }
        let mut media = Self { essence, charset: None, boundary: None };
        while !rest.trim().is_empty() {
            let (name, after) = rest.split_once('=')?;
            let name = name.trim().to_ascii_lowercase();
            let after = after.trim_start();
            let (value, after) = if let Some(quoted) = after.strip_prefix('"') {
                let (value, after) = quoted.split_once('"')?;
                (value.to_owned(), after.trim_start().strip_prefix(';').unwrap_or(after))
            } else {
                let (value, after) = after.split_once(';').unwrap_or((after, ""));
                (value.trim().to_owned(), after)
            };
            let place = match name.as_str() {
                "charset" => &mut media.charset,
                "boundary" => &mut media.boundary,
                _ => {
                    rest = after;
                    continue;
                }
            };
            if place.replace(value).is_some() {
                return None;
            }
            rest = after;
        }
        Some(media)
    }

    /// Whether its text is UTF-8, of which ASCII is a part.
    pub(super) fn is_utf8(&self) -> bool {
        self.charset.as_deref().is_none_or(|charset| {
            ["utf-8", "utf8", "us-ascii", "ascii"].iter().any(|known| charset.eq_ignore_ascii_case(known))
        })
    }

    pub(super) fn kind(&self) -> Kind {
        Kind::of(&self.essence)
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Whether the bytes are coded further (gzip and kin): then they can't be judged.
pub(super) fn is_coded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// How the bytes of a body are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Json,
    Form,
    Multipart,
    Text,
    /// Not judged.
    Opaque,
}

impl Kind {
    fn of(essence: &str) -> Self {
        match essence {
            "application/x-www-form-urlencoded" => Self::Form,
            "multipart/form-data" => Self::Multipart,
            _ if essence == "application/json" || essence.ends_with("+json") => Self::Json,
            _ if essence.starts_with("text/") => Self::Text,
            _ => Self::Opaque,
        }
    }
}

/// A media type or a range of them: `text/*`, `application/*+json`, `*/*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MediaRange(String);

impl MediaRange {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let (kind, subtype) = essence.split_once('/')?;
        (is_token(kind) && is_token(subtype) && (kind != "*" || subtype == "*")).then_some(Self(essence))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// How exactly it names `essence`; `None` when it does not.
    pub(super) fn rank(&self, essence: &str) -> Option<u8> {
        if self.0 == essence {
            return Some(3);
        }
        let (kind, subtype) = self.0.split_once('/')?;
        let (given_kind, given_subtype) = essence.split_once('/')?;
        match (kind, subtype) {
            ("*", _) => Some(0),
            _ if kind != given_kind => None,
            (_, "*") => Some(1),
            (_, suffix) => suffix.strip_prefix('*').filter(|suffix| given_subtype.ends_with(suffix)).map(|_| 2),
        }
    }
}

/// The value that a body stands for; what is wrong with its form is in `violations` then.
pub(super) fn read(
    media: &MediaType,
    body: &[u8],
    shape: &Shape,
    limits: JsonLimits,
    violations: &mut Violations,
) -> Option<Vec<Value>> {
    match media.kind() {
        Kind::Json => read_json(body, limits, "", violations).map(|value| vec![value]),
        Kind::Form => {
            let wrong = |violations: &mut Violations| {
                violations.push(Place::Body, "", "is not a form: not percent-encoded UTF-8");
            };
            let Ok(text) = std::str::from_utf8(body) else {
                wrong(violations);
                return None;
            };
            let mut decoded = Vec::new();
            for (name, value) in pairs(text) {
                let (Some(name), Some(value)) = (decode(name, true), decode(value, true)) else {
                    wrong(violations);
                    return None;
                };
                if decoded.len() >= MAX_PARTS {
                    violations.push(Place::Body, "", "has too many fields");
                    return None;
                }
                decoded.push((name, value));
            }
            Some(both(|texts| shape.object(decoded.clone(), texts)))
        }
        Kind::Multipart => read_multipart(media, body, shape, limits, violations),
        Kind::Text => {
            let Ok(text) = std::str::from_utf8(body) else {
                violations.push(Place::Body, "", "is not UTF-8");
                return None;
            };
            Some(both(|texts| shape.scalar(text.to_owned(), texts)))
        }
        Kind::Opaque => None,
    }
}

/// A text may be what its schema asks for in two ways: as a number, say, and as the text itself.
pub(super) fn both(read: impl Fn(bool) -> Value) -> Vec<Value> {
    let (typed, text) = (read(false), read(true));
    if typed == text { vec![typed] } else { vec![typed, text] }
}

pub(super) fn read_json(body: &[u8], limits: JsonLimits, pointer: &str, violations: &mut Violations) -> Option<Value> {
    if let Err(fault) = Scanner::judge(limits, body) {
        violations.push(Place::Body, pointer, &format!("can't be taken: {fault}"));
        return None;
    }
    let value = serde_json::from_slice(body);
    if value.is_err() {
        // The scanner has taken the form: what is left is a number that no double holds.
        violations.push(Place::Body, pointer, "holds a number beyond 64 bits");
    }
    value.ok()
}

struct Part<'b> {
    name: String,
    is_file: bool,
    media: Option<MediaType>,
    body: &'b [u8],
}

fn read_multipart(
    media: &MediaType,
    body: &[u8],
    shape: &Shape,
    limits: JsonLimits,
    violations: &mut Violations,
) -> Option<Vec<Value>> {
    let parts = media.boundary.as_deref().and_then(|boundary| split_parts(body, boundary));
    let Some(parts) = parts else {
        violations.push(Place::Body, "", "is not a multipart body with the boundary that it declares");
        return None;
    };
    let mut values: Vec<(String, Vec<Value>, Vec<Value>)> = Vec::new();
    for part in &parts {
        let own = shape.property(&part.name);
        let free = Shape::default();
        let item = own.unwrap_or(&free);
        let is_json = match &part.media {
            Some(media) => media.kind() == Kind::Json,
            // What is an object is JSON unless it says otherwise (OpenAPI 3.1 §4.8.15).
            None => !part.is_file && item.is_object() && !item.is_scalar(),
        };
        let (typed, text) = if is_json {
            let value = read_json(part.body, limits, &step(&part.name), violations)?;
            (value.clone(), value)
        } else {
            let text = String::from_utf8_lossy(part.body).into_owned();
            if part.is_file {
                (Value::String(text.clone()), Value::String(text))
            } else if item.is_list() {
                let one = |texts| match item.list([text.clone()], texts) {
                    Value::Array(mut items) => items.pop().unwrap_or_default(),
                    other => other,
                };
                (one(false), one(true))
            } else {
                (item.scalar(text.clone(), false), item.scalar(text, true))
            }
        };
        match values.iter_mut().find(|(name, ..)| *name == part.name) {
            Some((_, all_typed, all_text)) => {
                all_typed.push(typed);
                all_text.push(text);
            }
            None => values.push((part.name.clone(), vec![typed], vec![text])),
        }
    }
    let assembled = |texts: bool| {
        let mut object = Map::new();
        for (name, typed, text) in &values {
            let mut items = if texts { text.clone() } else { typed.clone() };
            let is_list = shape.property(name).is_some_and(Shape::is_list);
            let value = match items.pop() {
                Some(only) if items.is_empty() && (!is_list || only.is_array()) => only,
                Some(last) => {
                    items.push(last);
                    Value::Array(items)
                }
                None => Value::Null,
            };
            object.insert(name.clone(), value);
        }
        Value::Object(object)
    };
    Some(both(assembled))
}

/// RFC 2046 §5.1.1: each delimiter stands at the beginning of a line.
fn split_parts<'b>(body: &'b [u8], boundary: &str) -> Option<Vec<Part<'b>>> {
    if boundary.is_empty() || boundary.len() > 70 {
        return None;
    }
    let delimiter = format!("--{boundary}");
    let between = format!("\r\n--{boundary}");
    let mut parts = Vec::new();
    let mut rest = match body.strip_prefix(delimiter.as_bytes()) {
        Some(rest) => rest,
        None => after(body, between.as_bytes())?.1,
    };
    loop {
        if rest.starts_with(b"--") {
            return Some(parts);
        }
        // A delimiter may be followed by spaces up to its line's end.
        let (padding, after_line) = after(rest, b"\r\n")?;
        if !padding.iter().all(|byte| matches!(byte, b' ' | b'\t')) || parts.len() >= MAX_PARTS {
            return None;
        }
        let (content, next) = match after_line.strip_prefix(between.trim_start().as_bytes()) {
            Some(next) => (&[][..], next),
            None => after(after_line, between.as_bytes())?,
        };
        parts.push(part(content)?);
        rest = next;
    }
}

fn part(content: &[u8]) -> Option<Part<'_>> {
    let (head, body) = match content.strip_prefix(b"\r\n") {
        Some(body) => (&[][..], body),
        None => after(content, b"\r\n\r\n")?,
    };
    let head = std::str::from_utf8(head).ok()?;
    let (mut name, mut is_file, mut media) = (None, false, None);
    for line in head.split("\r\n").filter(|line| !line.is_empty()) {
        let (field, value) = line.split_once(':')?;
        if field.eq_ignore_ascii_case("content-disposition") {
            let mut pieces = value.split(';');
            if !pieces.next()?.trim().eq_ignore_ascii_case("form-data") {
                return None;
            }
            for piece in pieces {
                let Some((key, value)) = piece.trim().split_once('=') else { continue };
                let value = value.trim().trim_matches('"');
                match key.trim().to_ascii_lowercase().as_str() {
                    "name" => name = Some(value.to_owned()),
                    "filename" | "filename*" => is_file = true,
                    _ => {}
                }
            }
        } else if field.eq_ignore_ascii_case("content-type") {
            media = Some(MediaType::parse(value.trim())?);
        }
    }
    Some(Part { name: name?, is_file, media, body })
}

/// What stands before and after the first `needle`.
fn after<'b>(hay: &'b [u8], needle: &[u8]) -> Option<(&'b [u8], &'b [u8])> {
    let at = hay.windows(needle.len()).position(|window| window == needle)?;
    let (before, rest) = hay.split_at_checked(at)?;
    Some((before, rest.get(needle.len()..)?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::shape::in_file;
    use super::*;

    const LIMITS: JsonLimits = JsonLimits { depth: 8, keys: 100, string: 100 };

    #[test]
    fn media_types_have_one_reading() {
        let media = |text| MediaType::parse(text).map(|media| (media.essence.clone(), media.is_utf8(), media.kind()));
        assert_eq!(media("Application/JSON; charset=UTF-8"), Some(("application/json".to_owned(), true, Kind::Json)));
        assert_eq!(media("application/problem+json"), Some(("application/problem+json".to_owned(), true, Kind::Json)));
        assert_eq!(media("text/plain; charset=\"iso-8859-1\""), Some(("text/plain".to_owned(), false, Kind::Text)));
        for broken in ["", "json", "a/b/c", "application/json; charset=utf-8; charset=latin1", "a b/c", "a/b; x"] {
            assert_eq!(media(broken), None, "{broken}");
        }
    }

    #[test]
    fn the_most_exact_range_counts() {
        let rank = |range: &str, essence: &str| MediaRange::parse(range).and_then(|range| range.rank(essence));
        assert_eq!(rank("application/json; charset=utf-8", "application/json"), Some(3));
        assert_eq!(rank("application/*+json", "application/problem+json"), Some(2));
        assert_eq!(rank("application/*", "application/json"), Some(1));
        assert_eq!(rank("*/*", "text/plain"), Some(0));
        assert_eq!(rank("text/*", "application/json"), None);
        assert_eq!(MediaRange::parse("*/json"), None);
    }

    #[track_caller]
    fn check(content_type: &str, body: &str, schema: &Value, expected: Result<&Value, &str>) {
        let mut violations = Violations::default();
        let media = MediaType::parse(content_type).expect("a media type");
        let shape = Shape::of(schema, &in_file(schema));
        let found = read(&media, body.as_bytes(), &shape, LIMITS, &mut violations);
        match (found.as_deref(), expected) {
            (Some([value, ..]), Ok(expected)) => assert_eq!(value, expected),
            (None, Err(part)) => {
                let found = violations.as_slice().first().map(|found| found.message.as_str());
                assert!(found.is_some_and(|found| found.contains(part)), "{found:?}");
            }
            (found, expected) => panic!("{found:?} is not {expected:?}"),
        }
    }

    #[test]
    fn forms_become_objects() {
        let schema = json!({ "type": "object", "properties": {
            "n": { "type": "integer" }, "l": { "type": "array", "items": { "type": "integer" } }, "s": { "type": "string" },
        } });
        let form = "application/x-www-form-urlencoded";
        check(form, "n=7&l=1&l=2&s=a+b%20c", &schema, Ok(&json!({ "n": 7, "l": [1, 2], "s": "a b c" })));
        check(form, "l=1", &schema, Ok(&json!({ "l": [1] })));
        check(form, "s=1&s=2", &schema, Ok(&json!({ "s": [1, 2] })));
        check(form, "s=%zz", &schema, Err("not a form"));
        check(form, "s=%ff", &schema, Err("not a form"));
    }

    #[test]
    fn parts_become_objects() {
        let schema = json!({ "type": "object", "properties": {
            "n": { "type": "integer" }, "o": { "type": "object" }, "f": { "type": "string" },
            "l": { "type": "array", "items": { "type": "integer" } },
        } });
        let multipart = "multipart/form-data; boundary=xx";
        let body = "preamble\r\n--xx\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n7\r\n--xx\r\n\
            Content-Disposition: form-data; name=\"o\"\r\n\r\n{\"a\":1}\r\n--xx\r\n\
            Content-Disposition: form-data; name=l\r\n\r\n1\r\n--xx\r\nContent-Disposition: form-data; name=l\r\n\r\n2\r\n--xx\r\n\
            Content-Disposition: form-data; name=\"f\"; filename=\"a.bin\"\r\nContent-Type: application/octet-stream\r\n\r\n\
            a\r\n--xx--\r\n";
        check(multipart, body, &schema, Ok(&json!({ "n": 7, "o": { "a": 1 }, "l": [1, 2], "f": "a" })));
        check(
            multipart,
            "--xx\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n7",
            &schema,
            Err("not a multipart"),
        );
        check(multipart, "--yy--", &schema, Err("not a multipart"));
        check(multipart, "--xx\r\nX: y\r\n\r\n7\r\n--xx--", &schema, Err("not a multipart"));
        check("multipart/form-data", body, &schema, Err("not a multipart"));
    }
}
