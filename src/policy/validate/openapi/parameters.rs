//! Parameters of an operation: how they stand in a request (style, explode) and what their texts come to.

use http::HeaderMap;
use http::header::COOKIE;
use serde_json::Value;

use super::super::json::JsonLimits;
use super::super::media::{both, read_json};
use super::super::schema::Table;
use super::super::shape::Shape;
use super::percent::{decode, pairs};
use crate::model::violation::{Place, Violations, step};

/// One parameter.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "they are the flags of a parameter object, by the names that it has")]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) required: bool,
    pub(super) style: Style,
    pub(super) explode: bool,
    pub(super) allow_empty: bool,
    /// Its text is JSON (`content` in place of `schema`).
    pub(super) is_json: bool,
    pub(super) schema: usize,
    pub(super) shape: Shape,
}

/// How lists and objects are written (OpenAPI 3.1 §4.8.12.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Simple,
    Label,
    Matrix,
    Form,
    SpaceDelimited,
    PipeDelimited,
    DeepObject,
}

impl Style {
    pub(super) fn parse(name: &str, place: Place) -> Option<Self> {
        Some(match (name, place) {
            ("simple", Place::Path | Place::Header) => Self::Simple,
            ("label", Place::Path) => Self::Label,
            ("matrix", Place::Path) => Self::Matrix,
            ("form", Place::Query | Place::Cookie) => Self::Form,
            ("spaceDelimited", Place::Query) => Self::SpaceDelimited,
            ("pipeDelimited", Place::Query) => Self::PipeDelimited,
            ("deepObject", Place::Query) => Self::DeepObject,
            _ => return None,
        })
    }

    pub(super) const fn default_of(place: Place) -> Self {
        match place {
            Place::Query | Place::Cookie => Self::Form,
            _ => Self::Simple,
        }
    }
}

/// What a request says, taken apart once for all its parameters.
#[derive(Debug)]
pub(super) struct Said<'r> {
    pub(super) path: Vec<(String, &'r str)>,
    /// Names decoded, values as they came.
    pub(super) query: Vec<(String, &'r str)>,
    pub(super) headers: &'r HeaderMap,
    pub(super) cookies: Vec<(&'r str, &'r str)>,
}

impl<'r> Said<'r> {
    pub(super) fn new(
        path: Vec<(String, &'r str)>,
        query: Option<&'r str>,
        headers: &'r HeaderMap,
        violations: &mut Violations,
    ) -> Self {
        let mut taken = Vec::new();
        for (name, value) in pairs(query.unwrap_or_default()) {
            match decode(name, true) {
                Some(name) => taken.push((name, value)),
                None => violations.push(Place::Query, "", "has a name that is not percent-encoded UTF-8"),
            }
        }
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let cookies = cookies.flat_map(|value| value.split(';')).filter_map(|crumb| crumb.trim().split_once('='));
        Self { path, query: taken, headers, cookies: cookies.collect() }
    }
}

/// A parameter as it stands in a request, still encoded.
enum Raw<'r> {
    Absent,
    Scalar(&'r str),
    List(Vec<&'r str>),
    Pairs(Vec<(String, &'r str)>),
    /// Broken in a way that the style rules out.
    Wrong(&'static str),
}

impl Parameter {
    /// Whether a name in the query is this parameter's.
    pub(super) fn claims(&self, name: &str) -> bool {
        match self.style {
            Style::DeepObject => name.strip_prefix(self.name.as_str()).is_some_and(|rest| rest.starts_with('[')),
            _ if self.spreads() => self.shape.open || self.shape.property(name).is_some(),
            _ => name == self.name,
        }
    }

    /// An object whose properties stand in the query side by side.
    fn spreads(&self) -> bool {
        self.style == Style::Form && self.explode && self.shape.is_object() && !self.is_json && !self.shape.is_scalar()
    }

    pub(super) fn judge(
        &self,
        said: &Said<'_>,
        others: &[Self],
        table: &Table,
        limits: JsonLimits,
        out: &mut Violations,
    ) {
        let pointer = step(&self.name);
        let header = self.header(said.headers);
        let raw = match self.place {
            Place::Header => match &header {
                Ok(Some(text)) => self.split(text),
                Ok(None) => Raw::Absent,
                Err(()) => Raw::Wrong("has a byte that is no visible ASCII"),
            },
            Place::Path => {
                said.path.iter().find(|(name, _)| *name == self.name).map_or(Raw::Absent, |(_, text)| self.split(text))
            }
            Place::Cookie => {
                let mut found = said.cookies.iter().filter(|(name, _)| *name == self.name).map(|(_, text)| *text);
                match (found.next(), found.next()) {
                    (None, _) => Raw::Absent,
                    (Some(text), None) => self.split(text),
                    (Some(_), Some(_)) => Raw::Wrong("is given more than once"),
                }
            }
            Place::Query | Place::Body => self.of_query(said, others),
        };
        match raw {
            Raw::Absent if self.required => out.push(self.place, &pointer, "is required"),
            Raw::Absent => {}
            Raw::Wrong(why) => out.push(self.place, &pointer, why),
            Raw::Scalar("") if self.allow_empty => {}
            raw => self.judge_raw(&raw, &pointer, table, limits, out),
        }
    }

    fn judge_raw(&self, raw: &Raw<'_>, pointer: &str, table: &Table, limits: JsonLimits, out: &mut Violations) {
        let plus = self.place == Place::Query;
        let values = if self.is_json {
            let Raw::Scalar(text) = raw else { return out.push(self.place, pointer, "is given more than once") };
            let text = if self.place == Place::Header { Some((*text).to_owned()) } else { decode(text, plus) };
            let mut wrong = Violations::default();
            match text.and_then(|text| read_json(text.as_bytes(), limits, "", &mut wrong)) {
                Some(value) => vec![value],
                None => return out.push(self.place, pointer, "is not JSON that can be taken"),
            }
        } else {
            let decoded = |text: &str| {
                if self.place == Place::Header { Some(text.to_owned()) } else { decode(text, plus) }
            };
            let values = match raw {
                Raw::Scalar(text) => decoded(text).map(|text| both(|texts| self.shape.scalar(text.clone(), texts))),
                Raw::List(items) => {
                    let items: Option<Vec<String>> = items.iter().map(|text| decoded(text)).collect();
                    items.map(|items| both(|texts| self.shape.list(items.clone(), texts)))
                }
                Raw::Pairs(pairs) => {
                    let pairs: Option<Vec<_>> =
                        pairs.iter().map(|(name, text)| Some((decode(name, false)?, decoded(text)?))).collect();
                    pairs.map(|pairs| both(|texts| self.shape.object(pairs.clone(), texts)))
                }
                Raw::Absent | Raw::Wrong(_) => None,
            };
            match values {
                Some(values) => values,
                None => return out.push(self.place, pointer, "is not percent-encoded UTF-8"),
            }
        };
        judge_any(table, self.schema, &values, self.place, pointer, out);
    }

    fn header(&self, headers: &HeaderMap) -> Result<Option<String>, ()> {
        if self.place != Place::Header {
            return Ok(None);
        }
        let mut joined: Option<String> = None;
        for value in headers.get_all(self.name.as_str()) {
            let text = value.to_str().map_err(drop)?;
            match &mut joined {
                // Lines of one field are one list (RFC 9110 §5.3).
                Some(joined) => {
                    joined.push_str(", ");
                    joined.push_str(text);
                }
                None => joined = Some(text.to_owned()),
            }
        }
        Ok(joined)
    }

    /// One text with everything in it.
    fn split<'r>(&self, text: &'r str) -> Raw<'r> {
        if self.is_json {
            return Raw::Scalar(text);
        }
        let (text, comma) = match self.style {
            Style::Label => match text.strip_prefix('.') {
                Some(text) => (text, if self.explode { '.' } else { ',' }),
                None => return Raw::Wrong("does not begin with a dot"),
            },
            Style::Matrix => return self.split_matrix(text),
            _ => (text, ','),
        };
        if self.shape.is_list() && (!self.shape.is_scalar() || text.contains(comma)) {
            let items = if text.is_empty() { Vec::new() } else { text.split(comma).map(str::trim).collect() };
            return Raw::List(items);
        }
        if self.shape.is_object() && (!self.shape.is_scalar() || text.contains([comma, '='])) {
            return pairs_of(text, comma, self.explode && self.style != Style::Form);
        }
        Raw::Scalar(text)
    }

    fn split_matrix<'r>(&self, text: &'r str) -> Raw<'r> {
        let Some(text) = text.strip_prefix(';') else { return Raw::Wrong("does not begin with a semicolon") };
        let named = |piece: &'r str| piece.split_once('=').unwrap_or((piece, ""));
        if self.explode && self.shape.is_object() && !self.shape.is_scalar() {
            return pairs_of(text, ';', true);
        }
        if self.explode && self.shape.is_list() {
            let pieces: Vec<_> = text.split(';').map(named).collect();
            if pieces.iter().any(|(name, _)| *name != self.name) {
                return Raw::Wrong("is not written as its style asks");
            }
            return Raw::List(pieces.into_iter().map(|(_, text)| text).collect());
        }
        let (name, text) = named(text);
        if name != self.name {
            return Raw::Wrong("is not written as its style asks");
        }
        if self.shape.is_list() && !self.shape.is_scalar() {
            return Raw::List(text.split(',').collect());
        }
        if self.shape.is_object() && !self.shape.is_scalar() {
            return pairs_of(text, ',', false);
        }
        Raw::Scalar(text)
    }

    fn of_query<'r>(&self, said: &Said<'r>, others: &[Self]) -> Raw<'r> {
        if self.style == Style::DeepObject {
            let property = |name: &str| {
                let inner = name.strip_prefix(self.name.as_str())?.strip_prefix('[')?.strip_suffix(']')?;
                Some(inner.strip_suffix("][").unwrap_or(inner).to_owned())
            };
            let pairs: Vec<_> = said.query.iter().filter_map(|(name, text)| Some((property(name)?, *text))).collect();
            return if pairs.is_empty() { Raw::Absent } else { Raw::Pairs(pairs) };
        }
        if self.spreads() {
            let is_another_s = |name: &str| {
                others.iter().any(|other| other.place == Place::Query && !other.spreads() && other.claims(name))
            };
            let pairs: Vec<_> = said
                .query
                .iter()
                .filter(|(name, _)| self.claims(name) && !is_another_s(name))
                .map(|(name, text)| (name.clone(), *text))
                .collect();
            return if pairs.is_empty() { Raw::Absent } else { Raw::Pairs(pairs) };
        }
        let mut texts: Vec<&str> =
            said.query.iter().filter(|(name, _)| *name == self.name).map(|(_, text)| *text).collect();
        if self.explode && self.shape.is_list() && !self.is_json {
            return match texts.as_slice() {
                [] => Raw::Absent,
                [one] if self.shape.is_scalar() => Raw::Scalar(one),
                _ => Raw::List(texts),
            };
        }
        match (texts.pop(), texts.is_empty()) {
            (None, _) => Raw::Absent,
            (Some(text), true) => match self.style {
                Style::SpaceDelimited => self.split_by(text, &["%20", "+"]),
                Style::PipeDelimited => self.split_by(text, &["%7C", "%7c", "|"]),
                _ => self.split(text),
            },
            (Some(_), false) => Raw::Wrong("is given more than once"),
        }
    }

    fn split_by<'r>(&self, text: &'r str, delimiters: &[&str]) -> Raw<'r> {
        let mut items = vec![text];
        for delimiter in delimiters {
            items = items.into_iter().flat_map(|item| item.split(delimiter)).collect();
        }
        if self.shape.is_object() && !self.shape.is_list() {
            return pairs_of_items(&items);
        }
        Raw::List(items)
    }
}

fn pairs_of(text: &str, comma: char, named: bool) -> Raw<'_> {
    let items: Vec<&str> = if text.is_empty() { Vec::new() } else { text.split(comma).map(str::trim).collect() };
    if !named {
        return pairs_of_items(&items);
    }
    let pairs = items.into_iter().map(|item| item.split_once('=').map(|(name, text)| (name.to_owned(), text)));
    pairs.collect::<Option<Vec<_>>>().map_or(Raw::Wrong("is not written as its style asks"), Raw::Pairs)
}

fn pairs_of_items<'r>(items: &[&'r str]) -> Raw<'r> {
    let (pairs, rest) = items.as_chunks::<2>();
    if !rest.is_empty() {
        return Raw::Wrong("has a property without a value");
    }
    Raw::Pairs(pairs.iter().map(|[name, text]| ((*name).to_owned(), *text)).collect())
}

/// Good if any of the readings is; else what is wrong with the first.
pub(in super::super) fn judge_any(
    table: &Table,
    schema: usize,
    values: &[Value],
    place: Place,
    pointer: &str,
    out: &mut Violations,
) {
    if values.iter().any(|value| table.is_valid(schema, value)) {
        return;
    }
    if let Some(value) = values.first() {
        table.explain(schema, value, place, pointer, out);
    }
}
