//! What answers a request whose upstream could not: other upstreams and fixed responses, tried in their order.
//!
//! Decides what the steps are and which of them may be taken; never asks an upstream itself. A step is taken when the
//! upstream was not to be had (breaker open, no healthy endpoint, concurrency full) and when its attempts failed and are
//! not made again, but never for a refusal that is the client's own doing.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{HeaderName, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::answer::Answer;
use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::fields;
use crate::model::names::Names;
use crate::model::source::Spanned;

/// `Portcullis-Fallback`: which kind of step answered.
pub const PORTCULLIS_FALLBACK: HeaderName = HeaderName::from_static("portcullis-fallback");

/// More steps than this are refused.
const MAX_STEPS: usize = 8;

/// `fallback`: what answers when the upstream can't, tried one after the other: another upstream, or a fixed response,
/// which ends the list. It takes over when the circuit breaker, the concurrency limit or the health of the endpoints
/// refuses the request, and when its last attempt failed in a way that `retry.on` names (with `retry = false`: no answer, 502,
/// 503 or 504). When the request's own time is over, nothing stands in. The response says so in `Portcullis-Fallback` and `Proxy-Status`.
pub type Config = Vec<Spanned<Step>>;

/// One step: either `upstream`, or `status` with what belongs to it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Step {
    /// The upstream that is asked instead, with breaker, limits and health of its own: a name, or an address. It is
    /// left out for a request that may have been processed already and must not be twice (see `retry.methods`), and for one
    /// whose body has left and is not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Spanned<String>>,
    /// Status of the fixed response, 200 to 599.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 200, max = 599))]
    pub status: Option<Spanned<u16>>,
    /// Body of the fixed response. Default: empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Spanned<String>>,
    /// File with the body of the fixed response, instead of `body`; read again when it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<Spanned<String>>,
    /// `Content-Type` of the body. Default: `"text/plain; charset=utf-8"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<Spanned<String>>,
    /// Further fields of the fixed response, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Spanned<String>>,
}

/// The compiled steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    steps: Box<[Compiled]>,
}

/// A compiled step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compiled {
    /// Another upstream, by its index in the snapshot.
    Upstream(usize),
    /// A fixed response.
    Status(Answer),
}

/// Reads the settings.
pub fn compile(config: &Spanned<Config>, names: &dyn Names, diagnostics: &mut Diagnostics) -> Option<Fallback> {
    let errors = diagnostics.errors();
    if config.is_empty() {
        let error = Diagnostic::error("empty_list", config.span, "a fallback without steps");
        diagnostics.push(error.help("to switch an inherited one off, write `fallback = false`"));
    }
    if config.len() > MAX_STEPS {
        let message = format!("more than {MAX_STEPS} steps: {}", config.len());
        diagnostics.push(Diagnostic::error("bad_value", config.span, message));
    }
    let mut steps = Vec::with_capacity(config.len());
    for (index, step) in config.iter().enumerate() {
        let compiled = match (&step.upstream, step.status) {
            (Some(upstream), None) => standby(step, upstream, names, diagnostics).map(Compiled::Upstream),
            (None, Some(status)) => fixed(step, status, names, diagnostics).map(Compiled::Status),
            (Some(upstream), Some(_)) => {
                let message = "a step asks an upstream or gives a fixed response, not both";
                diagnostics.push(Diagnostic::error("conflict", upstream.span, message).help("make two steps of it"));
                None
            }
            (None, None) => {
                let error =
                    Diagnostic::error("missing_key", step.span, "a step without `upstream` and without `status`");
                diagnostics.push(error.help("write { upstream = \"standby\" } or { status = 503, body = \"...\" }"));
                None
            }
        };
        if let Some(Compiled::Status(_)) = compiled
            && let Some(next) = config.get(index + 1)
        {
            let message = "a step that is never reached: the fixed response before it always answers";
            diagnostics.push(Diagnostic::error("dead_setting", next.span, message).related(step.span, "this one"));
        }
        steps.extend(compiled);
    }
    (diagnostics.errors() == errors).then(|| Fallback { steps: steps.into() })
}

fn standby(step: &Step, upstream: &Spanned<String>, names: &dyn Names, diagnostics: &mut Diagnostics) -> Option<usize> {
    let written = [&step.body, &step.file, &step.content_type].into_iter().flatten().map(|setting| setting.span);
    if let Some(span) = written.chain(step.headers.values().map(|value| value.span)).next() {
        let message = "a setting of a fixed response beside `upstream`";
        diagnostics.push(Diagnostic::error("dead_setting", span, message).related(upstream.span, "the step asks this"));
    }
    names.upstream(upstream, diagnostics)
}

fn fixed(step: &Step, status: Spanned<u16>, names: &dyn Names, diagnostics: &mut Diagnostics) -> Option<Answer> {
    let code = StatusCode::from_u16(status.value).ok().filter(|code| (200..600).contains(&code.as_u16()));
    if code.is_none() {
        let message = format!("not the status of a final response: {}", status.value);
        diagnostics.push(Diagnostic::error("bad_value", status.span, message).help("write 200 to 599"));
    }
    let body = match (&step.body, &step.file) {
        (Some(body), None) => Some(Bytes::copy_from_slice(body.as_bytes())),
        (None, Some(file)) => names.file(file, diagnostics),
        (None, None) => Some(Bytes::new()),
        (Some(body), Some(file)) => {
            let error = Diagnostic::error("conflict", file.span, "`body` and `file` both say what the body is");
            diagnostics.push(error.related(body.span, "the body"));
            None
        }
    };
    let has_no_body = matches!(code, Some(StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED));
    if has_no_body && body.as_ref().is_some_and(|body| !body.is_empty()) {
        let message = format!("a response with status {} has no body", status.value);
        diagnostics.push(Diagnostic::error("bad_value", status.span, message));
    }
    let mut headers = HeaderMap::with_capacity(step.headers.len() + 1);
    let content_type = match &step.content_type {
        Some(written) => fields::compile_value(written, diagnostics),
        None => Some(http::HeaderValue::from_static("text/plain; charset=utf-8")),
    };
    if let (Some(content_type), Some(body)) = (content_type, &body)
        && !body.is_empty()
    {
        headers.insert(CONTENT_TYPE, content_type);
    } else if let Some(written) = step.content_type.as_ref().filter(|_| body.as_ref().is_some_and(Bytes::is_empty)) {
        diagnostics.push(Diagnostic::error("dead_setting", written.span, "a content type without a body"));
    }
    for (written, value) in &step.headers {
        let name = fields::compile_name(written, value.span, diagnostics);
        let Some((name, value)) = name.zip(fields::compile_value(value, diagnostics)) else { continue };
        headers.insert(name, value);
    }
    Some(Answer { status: code?, headers, body: body? })
}

impl Fallback {
    /// The steps in their order.
    #[must_use]
    pub fn steps(&self) -> &[Compiled] {
        &self.steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Known;

    impl Names for Known {
        fn upstream(&self, written: &Spanned<String>, diagnostics: &mut Diagnostics) -> Option<usize> {
            if written.value == "standby" {
                return Some(7);
            }
            diagnostics.push(Diagnostic::error("unknown_reference", written.span, "no such upstream"));
            None
        }
        fn file(&self, _: &Spanned<String>, _: &mut Diagnostics) -> Option<Bytes> {
            Some(Bytes::from_static(b"from a file"))
        }
    }

    fn read(written: &str) -> (Option<Fallback>, Vec<&'static str>) {
        let steps: Vec<Step> = serde_json::from_str(written).expect("steps");
        let config: Config = steps.into_iter().map(Spanned::from).collect();
        let mut diagnostics = Diagnostics::default();
        let compiled = compile(&config.into(), &Known, &mut diagnostics);
        (compiled, diagnostics.as_slice().iter().map(|diagnostic| diagnostic.code).collect())
    }

    #[track_caller]
    fn check(written: &str, codes: &[&str]) {
        let (compiled, seen) = read(written);
        assert_eq!((seen.as_slice(), compiled.is_some()), (codes, codes.is_empty()), "{written}");
    }

    #[test]
    fn a_step_is_an_upstream_or_a_fixed_response() {
        check(r#"[{"upstream":"standby"},{"status":503,"body":"later"}]"#, &[]);
        check(r#"[{"status":200,"file":"maintenance.html","content_type":"text/html"}]"#, &[]);
        check(r#"[{"status":503}]"#, &[]);
        check("[]", &["empty_list"]);
        check("[{}]", &["missing_key"]);
        check(r#"[{"upstream":"standby","status":503}]"#, &["conflict"]);
        check(r#"[{"upstream":"standbye"}]"#, &["unknown_reference"]);
        check(r#"[{"upstream":"standby","body":"x"}]"#, &["dead_setting"]);
        check(r#"[{"status":503,"content_type":"text/html"}]"#, &["dead_setting"]);
        check(r#"[{"status":503,"body":"x","file":"y"}]"#, &["conflict"]);
        check(r#"[{"status":204,"body":"x"}]"#, &["bad_value"]);
        check(r#"[{"status":99}]"#, &["bad_value"]);
        check(r#"[{"status":503},{"upstream":"standby"}]"#, &["dead_setting"]);
    }

    #[test]
    fn a_fixed_response_has_its_fields() {
        let (compiled, _) =
            read(r#"[{"status":503,"body":"{}","content_type":"application/json","headers":{"x-a":"b"}}]"#);
        let compiled = compiled.expect("compiles");
        let [Compiled::Status(answer)] = compiled.steps() else { panic!("one fixed response") };
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (503, &b"{}"[..]));
        assert_eq!(answer.headers.get(CONTENT_TYPE).expect("set"), "application/json");
        assert_eq!(answer.headers.get("x-a").expect("set"), "b");
    }
}
