//! Which responses are compressed on their way to the client, and how.
//!
//! Decides from `Accept-Encoding` (RFC 9110 §12.5.3, weights honoured) and the head of the response; the bytes are the
//! [`Encoder`]'s. A response that is encoded already, partial, or marked `no-transform` is left alone, and nothing is
//! compressed twice. Whenever the answer depended on `Accept-Encoding`, `Vary` says so, also on the copy that went out
//! plain. Never decompresses. A page that mixes a secret with what a client sends should not be compressed over TLS
//! (BREACH): switch it off on such a route.

use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap,
    HeaderName, HeaderValue,
};
use http::{Method, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::encoder::{Encoder, EncoderError};
pub use self::negotiation::Wanted;
use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::fields;
use crate::model::source::Spanned;
use crate::model::units::ByteSize;
use crate::model::verdict::{Decision, PolicyName, Verdict};

mod encoder;
mod negotiation;

/// `compress`: compresses responses for clients that accept it. `true` means all of the defaults below.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// The encodings on offer, the preferred one first: it wins among those that a client likes equally. Default:
    /// `["zstd", "br", "gzip"]`.
    pub algorithms: Spanned<Vec<Spanned<Algorithm>>>,
    /// Responses that are known to be shorter are left alone. Default: `"1KiB"`.
    pub min_size: ByteSize,
    /// Content types that are worth it: `"text/html"`, `"text/*"`, or `"*+json"` for a suffix. Default: text, JSON, XML,
    /// JavaScript, WebAssembly, SVG, bitmaps and uncompressed fonts. gRPC, which has compression of its own, is left alone
    /// whatever stands here.
    pub types: Spanned<Vec<Spanned<String>>>,
    /// `"fast"`, `"balanced"` or `"best"`: processor time and memory (at most 2, 4 and 7 MiB a response) against size.
    /// Default: `"balanced"`.
    pub level: Level,
}

impl Default for Config {
    fn default() -> Self {
        let types = DEFAULT_TYPES.iter().map(|kind| Spanned::from((*kind).to_owned()));
        Self {
            algorithms: vec![Algorithm::Zstd.into(), Algorithm::Br.into(), Algorithm::Gzip.into()].into(),
            min_size: ByteSize::kib(1),
            types: types.collect::<Vec<_>>().into(),
            level: Level::default(),
        }
    }
}

const DEFAULT_TYPES: [&str; 15] = [
    "text/*",
    "application/json",
    "*+json",
    "application/xml",
    "*+xml",
    "application/javascript",
    "application/ecmascript",
    "application/x-javascript",
    "application/x-ndjson",
    "application/graphql",
    "application/wasm",
    "application/vnd.ms-fontobject",
    "font/ttf",
    "font/otf",
    "image/bmp",
];

/// A content coding (RFC 9110 §8.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// Zstandard (RFC 8878).
    Zstd,
    /// Brotli (RFC 7932).
    Br,
    /// gzip (RFC 1952).
    Gzip,
}

impl Algorithm {
    /// Its name in `Accept-Encoding` and `Content-Encoding`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Br => "br",
            Self::Gzip => "gzip",
        }
    }
}

/// Processor time against size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As little processor time as each algorithm takes.
    Fast,
    /// What pays for responses that are made for one request.
    #[default]
    Balanced,
    /// Small, for responses that are slow to send.
    Best,
}

/// The compiled policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compress {
    algorithms: Box<[Algorithm]>,
    min_size: u64,
    types: Box<[TypePattern]>,
    level: Level,
}

/// Lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
enum TypePattern {
    Exact(Box<str>),
    /// `text/`
    Prefix(Box<str>),
    /// `+json`
    Suffix(Box<str>),
}

/// Reads the settings.
pub fn compile(config: &Config, diagnostics: &mut Diagnostics) -> Option<Compress> {
    let errors = diagnostics.errors();
    for (name, span, is_empty) in [
        ("algorithms", config.algorithms.span, config.algorithms.is_empty()),
        ("types", config.types.span, config.types.is_empty()),
    ] {
        if is_empty {
            let error = Diagnostic::error("empty_list", span, format!("an empty list of `{name}`"));
            diagnostics.push(error.help("to compress nothing, write `compress = false`"));
        }
    }
    let mut algorithms: Vec<Algorithm> = Vec::new();
    for algorithm in &config.algorithms.value {
        if algorithms.contains(&algorithm.value) {
            let message = format!("listed twice: {:?}", algorithm.value.as_str());
            diagnostics.push(Diagnostic::error("duplicate", algorithm.span, message));
        }
        algorithms.push(algorithm.value);
    }
    let types = config.types.iter().filter_map(|written| compile_type(written, diagnostics)).collect();
    (diagnostics.errors() == errors).then(|| Compress {
        algorithms: algorithms.into(),
        min_size: config.min_size.0,
        types,
        level: config.level,
    })
}

fn compile_type(written: &Spanned<String>, diagnostics: &mut Diagnostics) -> Option<TypePattern> {
    let lower = written.trim().to_ascii_lowercase();
    let is_token = |text: &str| text.parse::<HeaderName>().is_ok() && !text.contains('*');
    let pattern = if let Some(suffix) = lower.strip_prefix("*+") {
        is_token(suffix).then(|| TypePattern::Suffix(format!("+{suffix}").into()))
    } else if let Some(kind) = lower.strip_suffix("/*") {
        is_token(kind).then(|| TypePattern::Prefix(format!("{kind}/").into()))
    } else {
        let is_exact = lower.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
        is_exact.then(|| TypePattern::Exact(lower.clone().into()))
    };
    if pattern.is_none() {
        let error = Diagnostic::error("bad_value", written.span, format!("not a content type: {:?}", written.value));
        diagnostics.push(error.help("write \"text/html\", \"text/*\" or \"*+json\", without parameters"));
    }
    if pattern.is_some() && is_grpc(lower.as_bytes()) {
        let error = Diagnostic::error("bad_value", written.span, format!("never compressed: {:?}", written.value));
        diagnostics.push(error.help("gRPC compresses its messages by itself"));
    }
    pattern
}

/// What becomes of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// It is compressed.
    Encode(Algorithm),
    /// It answers HEAD: no body, but the head that GET would get (RFC 9110 §9.3.2), compressed.
    Describe(Algorithm),
    /// It is a 304 to a client that holds a copy under a weak tag, and must name that tag: a strong one would confirm
    /// no copy of it (RFC 9111 §4.3.4).
    Confirm,
    /// It goes out as it is.
    Leave {
        /// Whether another `Accept-Encoding` would have changed that.
        depends: bool,
        /// Why.
        reason: &'static str,
    },
}

impl Plan {
    /// The judgement.
    #[must_use]
    pub const fn decision(self) -> Decision {
        use std::borrow::Cow::Borrowed;
        let (verdict, reason) = match self {
            Self::Encode(Algorithm::Zstd) => (Verdict::Apply, "compressed with zstd"),
            Self::Encode(Algorithm::Br) => (Verdict::Apply, "compressed with br"),
            Self::Encode(Algorithm::Gzip) => (Verdict::Apply, "compressed with gzip"),
            Self::Describe(_) => (Verdict::Apply, "the head is that of a compressed response"),
            Self::Confirm => (Verdict::Apply, "the tag is that of a compressed response"),
            Self::Leave { reason, .. } => (Verdict::Allow, reason),
        };
        Decision { policy: PolicyName::Compress, verdict, reason: Borrowed(reason) }
    }
}

impl Compress {
    /// What the client of a request accepts of what is on offer. Small and `Copy`: it outlives the request's fields.
    #[must_use]
    pub fn wanted(&self, request: &HeaderMap) -> Wanted {
        Wanted::read(&self.algorithms, request)
    }

    /// Judges the head of a response. `length` is that of its body, where it is known; to HEAD, what the head declares
    /// counts. Does not allocate.
    #[must_use]
    pub fn decide(
        &self,
        wanted: Wanted,
        method: &Method,
        status: StatusCode,
        headers: &HeaderMap,
        length: Option<u64>,
    ) -> Plan {
        let leave = |reason| Plan::Leave { depends: false, reason };
        if status == StatusCode::NOT_MODIFIED {
            // It stands for a response that may have been compressed (RFC 9110 §15.4.5).
            let leave = Plan::Leave { depends: true, reason: "the status has no body" };
            return if wanted.holds_weak_tag { Plan::Confirm } else { leave };
        }
        if status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::RESET_CONTENT {
            return leave("the status has no body");
        }
        if status == StatusCode::PARTIAL_CONTENT || headers.contains_key(CONTENT_RANGE) {
            return leave("the response is a part");
        }
        if members(headers, &CONTENT_ENCODING).any(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
            return leave("the response is encoded already");
        }
        if forbids_transformation(headers) {
            return leave("the response says no-transform");
        }
        let Some(content_type) = essence(headers) else { return leave("there is no content type") };
        if is_grpc(content_type) {
            return leave("gRPC has compression of its own");
        }
        if !self.types.iter().any(|pattern| pattern.matches(content_type)) {
            return leave("the content type is not listed");
        }
        let length = length.or_else(|| declared_length(headers).filter(|_| method == Method::HEAD));
        if length.is_some_and(|length| length == 0 || length < self.min_size) {
            return leave("the response is short");
        }
        let leave = |reason| Plan::Leave { depends: true, reason };
        match wanted.algorithm {
            None => leave("the client accepts none of the encodings"),
            Some(algorithm) if method == Method::HEAD => Plan::Describe(algorithm),
            Some(algorithm) => Plan::Encode(algorithm),
        }
    }

    /// Writes the plan into the head of the response; the encoder for its body, if it is to be compressed.
    pub fn apply(&self, plan: Plan, headers: &mut HeaderMap) -> Result<Option<Encoder>, EncoderError> {
        let encoder = match plan {
            Plan::Leave { depends: false, .. } => return Ok(None),
            Plan::Leave { depends: true, .. } => None,
            Plan::Confirm => {
                forget_plain_bytes(headers);
                None
            }
            Plan::Describe(algorithm) => {
                rewrite_head(algorithm, headers);
                None
            }
            Plan::Encode(algorithm) => {
                let encoder = Encoder::new(algorithm, self.level)?;
                rewrite_head(algorithm, headers);
                Some(encoder)
            }
        };
        fields::add_vary(headers, "Accept-Encoding");
        Ok(encoder)
    }
}

impl TypePattern {
    fn matches(&self, essence: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => essence.eq_ignore_ascii_case(exact.as_bytes()),
            Self::Prefix(prefix) => {
                essence.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
            }
            Self::Suffix(suffix) => {
                let start = essence.len().checked_sub(suffix.len());
                let end = start.and_then(|start| essence.get(start..));
                end.is_some_and(|end| end.eq_ignore_ascii_case(suffix.as_bytes()))
            }
        }
    }
}

/// The content type without its parameters.
fn essence(headers: &HeaderMap) -> Option<&[u8]> {
    let written = headers.get(CONTENT_TYPE)?.as_bytes();
    written.split(|byte| *byte == b';').next().map(<[u8]>::trim_ascii)
}

/// What GET would get, when HEAD gets this (RFC 9110 §8.6).
fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// gRPC and gRPC-Web: each message in the body is compressed or not by itself, and a stream of them must not wait.
fn is_grpc(essence: &[u8]) -> bool {
    const PREFIX: &[u8] = b"application/grpc";
    essence.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

/// RFC 9111 §5.2.2.6
fn forbids_transformation(headers: &HeaderMap) -> bool {
    members(headers, &CACHE_CONTROL).any(|directive| directive.eq_ignore_ascii_case(b"no-transform"))
}

/// Like [`fields::members`], also of lines that are not ASCII: what can't be read whole may still forbid.
fn members<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    let lines = headers.get_all(name).iter();
    let members = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// Digests of the bytes as they were (RFC 9530, RFC 3230, RFC 1864).
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

fn rewrite_head(algorithm: Algorithm, headers: &mut HeaderMap) {
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(algorithm.as_str()));
    forget_plain_bytes(headers);
}

/// The compressed bytes are another representation: what was said of the bytes as they were no longer holds.
fn forget_plain_bytes(headers: &mut HeaderMap) {
    headers.remove(CONTENT_LENGTH);
    headers.remove(ACCEPT_RANGES);
    for digest in DIGESTS {
        headers.remove(digest);
    }
    weaken_tag(headers);
}

/// RFC 9110 §8.8.3.3: a strong tag names one sequence of bytes; a weak one may be shared by both. What is no tag goes.
fn weaken_tag(headers: &mut HeaderMap) {
    let Some(tag) = headers.get_mut(ETAG) else { return };
    if tag.as_bytes().starts_with(b"W/\"") {
        return;
    }
    let is_strong = tag.as_bytes().starts_with(b"\"");
    let weak = is_strong.then(|| bytes::Bytes::from([b"W/", tag.as_bytes()].concat()));
    match weak.and_then(|weak| HeaderValue::from_maybe_shared(weak).ok()) {
        Some(weak) => *tag = weak,
        None => drop(headers.remove(ETAG)),
    }
}

#[cfg(test)]
mod tests;
