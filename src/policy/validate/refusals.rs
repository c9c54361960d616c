//! What the senders of requests are told.

use http::Method;
use http::header::{ACCEPT, ACCEPT_ENCODING, ALLOW, HeaderValue};

use crate::model::verdict::{Admission, Code, Mode, PolicyName, Rejection};
use crate::model::violation::Violations;

pub(super) fn invalid(mode: Mode, violations: Violations) -> Admission {
    let reason = match violations.as_slice() {
        [first, rest @ ..] => {
            let others = if rest.is_empty() { String::new() } else { format!(", and {} more", rest.len()) };
            format!("{} {:?} {}{others}", first.place.as_str(), first.pointer, first.message)
        }
        [] => String::new(),
    };
    let mut rejection = Rejection::new(Code::InvalidRequest, "the request is not as this route asks for");
    rejection.errors = violations.into_vec();
    Admission::refuse(PolicyName::Validate, mode, reason, rejection)
}

pub(super) fn unsupported(accepted: &[&str]) -> Rejection {
    let rejection = Rejection::new(Code::UnsupportedMediaType, "the content type of the body is not taken here");
    rejection.header(ACCEPT, accept(accepted))
}

/// What can't be judged is not let past; `Accept-Encoding` says what would be (RFC 9110 §12.5.3).
pub(super) fn uncoded() -> Rejection {
    let rejection = Rejection::new(Code::UnsupportedMediaType, "a body with a content encoding can't be judged here");
    rejection.header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
}

pub(super) fn accept(accepted: &[&str]) -> HeaderValue {
    HeaderValue::from_str(&accepted.join(", ")).unwrap_or_else(|_| HeaderValue::from_static("*/*"))
}

pub(super) fn unknown_method(methods: &[Method]) -> Rejection {
    let mut names: Vec<&str> = methods.iter().map(Method::as_str).collect();
    if names.contains(&"GET") {
        names.push("HEAD");
    }
    names.sort_unstable();
    names.dedup();
    let allow = HeaderValue::from_str(&names.join(", ")).unwrap_or_else(|_| HeaderValue::from_static(""));
    Rejection::new(Code::MethodNotAllowed, "the description of this API has no such method here").header(ALLOW, allow)
}
