//! What a route asks of header fields and query parameters.
//!
//! Decides whether a request meets a route's conditions, and which it misses. A condition holds when any of the
//! values of its name meets it: a field line counts as a whole and is not split at commas, a query parameter is
//! percent-decoded with `+` as a space. It allocates nothing, except for an encoded query value of more than 128
//! bytes that an expression wants to see.

use std::fmt;

use http::HeaderValue;
use http::header::{HOST, HeaderName};
use regex::Regex;
use smallvec::SmallVec;

use super::config::{MatchTable, ValueConfig};
use super::path::unhex;
use super::pattern::whole;
use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::request::RequestView;
use crate::model::source::Spanned;

/// The conditions of one route, by name within each part.
#[derive(Debug, Clone, Default)]
pub(super) struct Conditions {
    pub(super) headers: Vec<Condition<HeaderName>>,
    pub(super) query: Vec<Condition<String>>,
}

/// A name and what is asked of its values.
#[derive(Debug, Clone)]
pub(super) struct Condition<N> {
    name: N,
    value: ValueTest,
}

#[derive(Debug, Clone)]
enum ValueTest {
    Exact(String),
    /// As written, and anchored.
    Regex(String, Regex),
    Present,
    Absent,
}

impl Conditions {
    /// Compiles the conditions of a route; pushes everything that is wrong with them.
    pub(super) fn compile(table: &MatchTable, diagnostics: &mut Diagnostics) -> Option<Self> {
        let errors = diagnostics.errors();
        let mut conditions = Self::default();
        for (name, value) in &table.header {
            if let Some((name, value)) =
                header_name(name, value, diagnostics).zip(ValueTest::compile(value, diagnostics))
            {
                conditions.headers.push(Condition { name, value });
            }
        }
        for (name, value) in &table.query {
            if let Some(value) = ValueTest::compile(value, diagnostics) {
                conditions.query.push(Condition { name: name.clone(), value });
            }
        }
        conditions.headers.sort_by(|one, other| one.name.as_str().cmp(other.name.as_str()));
        let twins = conditions.headers.windows(2).find(|pair| matches!(pair, [one, other] if one.name == other.name));
        if let (Some([twin, _]), Some(place)) = (twins, table.header.values().next()) {
            let message = format!("a header name is written twice; case makes no difference: {:?}", twin.name.as_str());
            diagnostics.push(Diagnostic::error("bad_value", place.span, message));
        }
        (errors == diagnostics.errors()).then_some(conditions)
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.headers.is_empty() && self.query.is_empty()
    }

    /// Whether the request meets them all.
    pub(super) fn hold(&self, request: &RequestView<'_>) -> bool {
        self.headers.iter().all(|condition| condition.holds(request))
            && self.query.iter().all(|condition| condition.holds(request))
    }
}

/// The same text for the same conditions.
impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.headers.iter().try_for_each(|condition| write!(f, " header {condition}"))?;
        self.query.iter().try_for_each(|condition| write!(f, " query {condition}"))
    }
}

impl<N: AsRef<str>> fmt::Display for Condition<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_ref();
        match &self.value {
            ValueTest::Exact(text) => write!(f, "{name:?} = {text:?}"),
            ValueTest::Regex(written, _) => write!(f, "{name:?} matches {written:?}"),
            ValueTest::Present => write!(f, "{name:?} is present"),
            ValueTest::Absent => write!(f, "{name:?} is absent"),
        }
    }
}

impl Condition<HeaderName> {
    pub(super) fn holds(&self, request: &RequestView<'_>) -> bool {
        let mut values = request.headers.get_all(&self.name).iter().map(HeaderValue::as_bytes);
        match &self.value {
            ValueTest::Exact(text) => values.any(|value| value == text.as_bytes()),
            ValueTest::Regex(_, regex) => values.any(|value| is_match(regex, value)),
            ValueTest::Present => values.next().is_some(),
            ValueTest::Absent => values.next().is_none(),
        }
    }
}

impl Condition<String> {
    pub(super) fn holds(&self, request: &RequestView<'_>) -> bool {
        let pairs = request.query.into_iter().flat_map(|query| query.split('&')).filter(|pair| !pair.is_empty());
        let mut values = pairs
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .filter(|(name, _)| decoded(name).eq(self.name.bytes()))
            .map(|(_, value)| value);
        match &self.value {
            ValueTest::Exact(text) => values.any(|value| decoded(value).eq(text.bytes())),
            ValueTest::Regex(_, regex) => {
                values.any(|value| is_match(regex, &decoded(value).collect::<SmallVec<[u8; 128]>>()))
            }
            ValueTest::Present => values.next().is_some(),
            ValueTest::Absent => values.next().is_none(),
        }
    }
}

impl ValueTest {
    fn compile(written: &Spanned<ValueConfig>, diagnostics: &mut Diagnostics) -> Option<Self> {
        let table = match &written.value {
            ValueConfig::Exact(text) => return Some(Self::Exact(text.clone())),
            ValueConfig::Test(table) => table,
        };
        match (&table.regex, &table.present) {
            (Some(regex), None) => Some(Self::Regex(regex.value.clone(), whole(regex, diagnostics)?)),
            (None, Some(present)) => Some(if present.value { Self::Present } else { Self::Absent }),
            _ => {
                let message = "a condition is one of `regex` and `present`";
                diagnostics.push(
                    Diagnostic::error("bad_value", written.span, message)
                        .help("write \"text\", `{ regex = \"..\" }`, `{ present = true }` or `{ present = false }`"),
                );
                None
            }
        }
    }
}

fn header_name(name: &str, value: &Spanned<ValueConfig>, diagnostics: &mut Diagnostics) -> Option<HeaderName> {
    let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
        diagnostics.push(Diagnostic::error("bad_value", value.span, format!("not a header name: {name:?}")));
        return None;
    };
    if parsed == HOST {
        let message = "the host is not matched as a header: it comes in other ways too, and in many spellings";
        diagnostics
            .push(Diagnostic::error("bad_value", value.span, message).help("write `host = \"..\"` beside `path`"));
        return None;
    }
    if let ValueConfig::Exact(text) = &value.value
        && (HeaderValue::from_bytes(text.as_bytes()).is_err() || text.trim_matches([' ', '\t']) != text)
    {
        let message = format!("no header field has this value: {text:?}");
        diagnostics.push(Diagnostic::error("bad_value", value.span, message));
        return None;
    }
    Some(parsed)
}

fn is_match(regex: &Regex, value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok_and(|value| regex.is_match(value))
}

/// `application/x-www-form-urlencoded`, decoded; a malformed escape stands for itself.
fn decoded(encoded: &str) -> impl Iterator<Item = u8> {
    let mut rest = encoded.as_bytes();
    std::iter::from_fn(move || {
        let (byte, after) = match rest {
            [] => return None,
            [b'+', after @ ..] => (b' ', after),
            [b'%', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (unhex(*high)? << 4 | unhex(*low)?, after)
            }
            [byte, after @ ..] => (*byte, after),
        };
        rest = after;
        Some(byte)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_text_is_decoded_byte_by_byte() {
        let check =
            |encoded, plain: &str| assert_eq!(decoded(encoded).collect::<Vec<_>>(), plain.as_bytes(), "{encoded}");
        check("a+b%20c", "a b c");
        check("caf%C3%a9", "café");
        check("%zz%4%", "%zz%4%");
        check("", "");
    }
}
