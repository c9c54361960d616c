//! Which other origins' pages may read a route's responses: the server's side of CORS (Fetch standard §3.2, "CORS
//! protocol").
//!
//! Decides whether a request is a preflight, which the gateway answers itself, and what fields the response to any other
//! request carries; the upstream's own CORS fields are replaced, so that there is one policy and not two. It never
//! refuses: CORS is enforced by browsers, which need a missing field and not an error, and says nothing to anybody else
//! (`access` and authentication do). A preflight of an origin that is not listed therefore gets 204 without CORS fields,
//! as most servers answer it: to the browser that is a refusal, and to monitoring no error of ours.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    HeaderMap, HeaderName, HeaderValue, ORIGIN,
};
use http::{Method, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::origins::Origins;
use crate::model::answer::Answer;
use crate::model::diagnostic::{Diagnostic, Diagnostics, did_you_mean};
use crate::model::fields;
use crate::model::request::RequestView;
use crate::model::source::Spanned;
use crate::model::units::Period;
use crate::model::verdict::{Decision, PolicyName, Verdict};

mod origins;

/// `cors`: which other origins' pages may read the responses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Config {
    /// The origins: `"https://app.example.com"`, `"https://*.example.com"` (every name below it, not itself), `"null"`
    /// (sandboxed pages and files), or `"*"` for every origin.
    pub origins: Spanned<Vec<Spanned<String>>>,
    /// The methods that those pages may use. GET, HEAD and POST need no permission in simple requests, but do with
    /// other content types. `"*"` means every method, without credentials. Default: `["GET", "HEAD", "POST"]`.
    #[serde(default = "simple_methods")]
    pub methods: Vec<Spanned<String>>,
    /// The request fields that those pages may set beyond the harmless ones. `"*"` means every field but
    /// `Authorization`, without credentials. Default: none.
    #[serde(default)]
    pub headers: Vec<Spanned<String>>,
    /// The response fields that those pages may read beyond the harmless ones. `"*"` means every field, without
    /// credentials. Default: none.
    #[serde(default)]
    pub expose_headers: Vec<Spanned<String>>,
    /// Whether cookies and other credentials go along, and the responses to such requests may be read. Can't be used
    /// with `"*"`. Default: false.
    #[serde(default)]
    pub credentials: Spanned<bool>,
    /// How long a browser may keep the answer to a preflight; browsers have limits of their own (Chrome two hours,
    /// Firefox a day). Default: not said, which browsers take as five seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Spanned<Period>>,
}

fn simple_methods() -> Vec<Spanned<String>> {
    ["GET", "HEAD", "POST"].map(|method| Spanned::from(method.to_owned())).into()
}

impl Default for Config {
    fn default() -> Self {
        Self {
            origins: Vec::new().into(),
            methods: simple_methods(),
            headers: Vec::new(),
            expose_headers: Vec::new(),
            credentials: false.into(),
            max_age: None,
        }
    }
}

/// The compiled policy; the values of all fields are ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    origins: Origins,
    credentials: bool,
    allow_methods: Option<HeaderValue>,
    allow_headers: Option<HeaderValue>,
    expose_headers: Option<HeaderValue>,
    max_age: Option<HeaderValue>,
}

/// Reads the settings.
pub fn compile(config: &Config, diagnostics: &mut Diagnostics) -> Option<Cors> {
    let errors = diagnostics.errors();
    let origins = Origins::compile(&config.origins, diagnostics);
    for method in &config.methods {
        check_method(method, diagnostics);
    }
    for name in config.headers.iter().chain(&config.expose_headers) {
        if name.value != "*" && name.parse::<HeaderName>().is_err() {
            let message = format!("not a field name: {:?}", name.value);
            diagnostics.push(Diagnostic::error("bad_value", name.span, message));
        }
    }
    if *config.credentials {
        refuse_wildcards(config, diagnostics);
    }
    let list = |entries: &[Spanned<String>]| -> Option<HeaderValue> {
        let names: Vec<&str> = entries.iter().map(|entry| entry.as_str()).collect();
        HeaderValue::try_from(names.join(", ")).ok().filter(|value| !value.is_empty())
    };
    let cors = Cors {
        origins,
        credentials: *config.credentials,
        allow_methods: list(&config.methods),
        allow_headers: list(&config.headers),
        expose_headers: list(&config.expose_headers),
        max_age: config.max_age.map(|age| HeaderValue::from(age.0.as_secs())),
    };
    (diagnostics.errors() == errors).then_some(cors)
}

fn check_method(written: &Spanned<String>, diagnostics: &mut Diagnostics) {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];
    let method = written.as_str();
    let upper = method.to_ascii_uppercase();
    let is_misspelt = !KNOWN.contains(&method) && KNOWN.contains(&upper.as_str());
    if !is_misspelt && Method::from_bytes(method.as_bytes()).is_ok() {
        return;
    }
    let error = Diagnostic::error("bad_value", written.span, format!("not a method: {method:?}"));
    diagnostics.push(match did_you_mean(&upper, KNOWN) {
        Some(near) => error.help(format!("did you mean \"{near}\"?")),
        None => error,
    });
}

/// With credentials a browser takes `*` for a name and not for "every" (Fetch standard §3.2.5).
fn refuse_wildcards(config: &Config, diagnostics: &mut Diagnostics) {
    let lists = [&config.origins.value, &config.methods, &config.headers, &config.expose_headers];
    for entry in lists.into_iter().flatten().filter(|entry| entry.value == "*") {
        diagnostics.push(
            Diagnostic::error("bad_value", entry.span, "\"*\" can't be used with credentials")
                .related(config.credentials.span, "credentials are switched on here")
                .help("name each one: browsers ignore \"*\" on requests with credentials"),
        );
    }
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    /// The request goes on; [`Cors::apply`] writes the grant into its response.
    GoOn(Grant),
    /// A preflight, answered.
    Answer(Answer),
}

/// What the response to one request says to its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    allow_origin: Option<HeaderValue>,
}

impl Cors {
    /// Judges a request. Allocates for preflights only.
    #[must_use]
    pub fn decide(&self, request: &RequestView<'_>) -> (Decision, Ruling) {
        let origin = sole(request.headers, &ORIGIN);
        let grant = Grant { allow_origin: self.origins.grant(origin) };
        let reason = match (&grant.allow_origin, request.headers.contains_key(ORIGIN)) {
            (_, false) => "no origin is named",
            (Some(_), true) => "the origin is listed",
            (None, true) => "the origin is not listed: no CORS fields",
        };
        let (verdict, ruling) = if requested_method(request.method, request.headers).is_some() {
            (Verdict::Answer, Ruling::Answer(self.preflight(&grant)))
        } else {
            (Verdict::Allow, Ruling::GoOn(grant))
        };
        (Decision { policy: PolicyName::Cors, verdict, reason: reason.into() }, ruling)
    }

    /// Writes the grant into the response; CORS fields of the upstream give way.
    pub fn apply(&self, grant: &Grant, headers: &mut HeaderMap) {
        for name in RESPONSE_FIELDS {
            headers.remove(name);
        }
        self.write_grant(grant, headers);
        if let (Some(_), Some(expose)) = (&grant.allow_origin, &self.expose_headers) {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }

    /// The lists are sent whole and not trimmed to what was asked for: the browser compares, and may keep the answer.
    fn preflight(&self, grant: &Grant) -> Answer {
        let mut headers = HeaderMap::with_capacity(6);
        self.write_grant(grant, &mut headers);
        if grant.allow_origin.is_some() {
            let lists = [
                (ACCESS_CONTROL_ALLOW_METHODS, &self.allow_methods),
                (ACCESS_CONTROL_ALLOW_HEADERS, &self.allow_headers),
                (ACCESS_CONTROL_MAX_AGE, &self.max_age),
            ];
            for (name, value) in lists {
                if let Some(value) = value {
                    headers.insert(name, value.clone());
                }
            }
        }
        Answer { status: StatusCode::NO_CONTENT, headers, ..Answer::default() }
    }

    fn write_grant(&self, grant: &Grant, headers: &mut HeaderMap) {
        if let Some(origin) = &grant.allow_origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            if self.credentials {
                headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            }
        }
        // Also without a grant: a cache must not hand this response to an origin that has one.
        if !self.origins.is_any() {
            fields::add_vary(headers, "Origin");
        }
    }
}

const RESPONSE_FIELDS: [HeaderName; 6] = [
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
];

/// The method that a preflight asks for; `None` when the request is no preflight. Routing may match by it, for the
/// route that would serve the real request is the one whose policy counts.
#[must_use]
pub fn requested_method<'h>(method: &Method, headers: &'h HeaderMap) -> Option<&'h HeaderValue> {
    let is_preflight = method == Method::OPTIONS && headers.contains_key(ORIGIN);
    headers.get(ACCESS_CONTROL_REQUEST_METHOD).filter(|_| is_preflight)
}

/// The value of a field that stands there once.
fn sole<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    lines.next().filter(|_| lines.next().is_none())
}

#[cfg(test)]
mod tests;
