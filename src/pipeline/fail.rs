//! The one place where a refusal becomes a response: `application/problem+json` (RFC 9457), or plain text for clients
//! that prefer it, always with `Proxy-Status` (RFC 9209) and the request's id.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use serde::Serialize;

use crate::model::grpc::{self, GrpcCode};
use crate::model::outcome::StandIn;
use crate::model::response::ResponseHead;
use crate::model::verdict::{Code, Rejection};
use crate::model::violation::Violation;

/// `X-Request-Id`.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// `Proxy-Status` (RFC 9209).
pub const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// The base of a problem's `type`; its last part is the stable code.
const TYPE_BASE: &str = "https://portcullis.dev/errors/";

#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [Violation],
}

/// The response that tells a client of `rejection`. `request` are the request's fields, where there is a request. A gRPC
/// client gets what it understands: a response of trailers only, with status 200 and the refusal as gRPC status.
#[must_use]
pub fn response(
    rejection: &Rejection,
    request: Option<&HeaderMap>,
    request_id: Option<&HeaderValue>,
) -> (ResponseHead, Bytes) {
    let status = rejection.code.status();
    let mut headers = HeaderMap::with_capacity(6 + rejection.headers.len());
    let id = request_id.and_then(|id| id.to_str().ok());
    if request.is_some_and(grpc::is_grpc) && !rejection.code.closes_connection() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(grpc::GRPC_STATUS, HeaderValue::from(u16::from(GrpcCode::of_refusal(status).number())));
        headers.insert(grpc::GRPC_MESSAGE, grpc_message(rejection));
        tell(&mut headers, rejection, request_id);
        return (ResponseHead { status: StatusCode::OK, headers }, Bytes::new());
    }
    let (content_type, body) = if request.is_some_and(prefers_text) {
        ("text/plain; charset=utf-8", text(rejection, id))
    } else {
        ("application/problem+json", json(rejection, id))
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    // A refusal is about this request at this moment.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    tell(&mut headers, rejection, request_id);
    (ResponseHead { status, headers }, body)
}

/// How a gRPC response that has begun ends for `rejection`; `None` for any other response, which can only be cut.
#[must_use]
pub fn trailers(rejection: &Rejection, request: &HeaderMap) -> Option<HeaderMap> {
    let code = GrpcCode::of_refusal(rejection.code.status());
    grpc::is_grpc(request).then(|| {
        HeaderMap::from_iter([
            (grpc::GRPC_STATUS, HeaderValue::from(u16::from(code.number()))),
            (grpc::GRPC_MESSAGE, grpc_message(rejection)),
        ])
    })
}

/// The fields that every refusal has.
fn tell(headers: &mut HeaderMap, rejection: &Rejection, request_id: Option<&HeaderValue>) {
    headers.insert(PROXY_STATUS, proxy_status(rejection.code, None));
    if let Some(id) = request_id {
        headers.insert(X_REQUEST_ID, id.clone());
    }
    for (name, value) in &rejection.headers {
        headers.append(name.clone(), value.clone());
    }
}

/// What went wrong here (RFC 9209 §2.3), and what stood in for the answer that did not come.
pub(super) fn proxy_status(code: Code, stand_in: Option<StandIn>) -> HeaderValue {
    let error = code.proxy_error();
    let text = match stand_in {
        None => format!("portcullis; error={error}"),
        Some(kind) => format!("portcullis; error={error}; details=\"{}; fallback={}\"", code.as_str(), kind.as_str()),
    };
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("portcullis"))
}

/// Code and detail, percent-encoded as gRPC wants it: all but printable ASCII, and `%` itself.
fn grpc_message(rejection: &Rejection) -> HeaderValue {
    use std::fmt::Write as _;
    let mut text = String::new();
    for byte in format!("{}: {}", rejection.code.as_str(), rejection.detail).bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => text.push(char::from(byte)),
            _ => drop(write!(text, "%{byte:02X}")),
        }
    }
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn json(rejection: &Rejection, request_id: Option<&str>) -> Bytes {
    let problem = Problem {
        r#type: format!("{TYPE_BASE}{}", rejection.code.as_str()),
        title: rejection.code.title(),
        status: rejection.code.status().as_u16(),
        detail: &rejection.detail,
        request_id,
        errors: &rejection.errors,
    };
    // Strings and numbers always serialise.
    serde_json::to_vec(&problem).unwrap_or_default().into()
}

fn text(rejection: &Rejection, request_id: Option<&str>) -> Bytes {
    let mut text = format!("{}: {}\n", rejection.code.title(), rejection.detail);
    for violation in &rejection.errors {
        let Violation { place, pointer, message } = violation;
        let _ = writeln!(text, "{} {pointer}: {message}", place.as_str());
    }
    if let Some(id) = request_id {
        text.push_str("request id: ");
        text.push_str(id);
        text.push('\n');
    }
    text.into()
}

/// Whether the client ranks plain text above JSON (RFC 9110 §12.5.1). A bare `*/*`, as curl sends it, gets JSON.
fn prefers_text(headers: &HeaderMap) -> bool {
    let Some(accept) = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()) else { return false };
    let (mut text, mut json) = (0.0_f32, 0.0_f32);
    for range in accept.split(',') {
        let mut parts = range.split(';');
        let media = parts.next().unwrap_or_default().trim();
        let quality = parts
            .filter_map(|parameter| parameter.trim().strip_prefix("q="))
            .find_map(|q| q.trim().parse::<f32>().ok())
            .unwrap_or(1.0);
        match media.to_ascii_lowercase().as_str() {
            "text/plain" | "text/*" | "text/html" => text = text.max(quality),
            "application/json" | "application/problem+json" | "application/*" => json = json.max(quality),
            _ => {}
        }
    }
    text > json
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT, HeaderValue::from_str(value).expect("visible"))])
    }

    #[track_caller]
    fn check(accepts: &str, content_type: &str) {
        let rejection = Rejection::new(Code::NoRoute, "no route for GET a.example/x");
        let (head, _) = response(&rejection, Some(&accept(accepts)), None);
        assert_eq!(head.headers.get(CONTENT_TYPE).expect("set"), content_type, "{accepts}");
    }

    #[test]
    fn plain_text_only_for_those_who_prefer_it() {
        check("*/*", "application/problem+json");
        check("application/json, text/plain", "application/problem+json");
        check("text/plain;q=0.5, application/json;q=0.4", "text/plain; charset=utf-8");
        check("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/plain; charset=utf-8");
        check("nonsense;;;", "application/problem+json");
    }

    #[test]
    fn a_problem_has_the_contract_s_fields() {
        let rejection = Rejection::new(Code::NoRoute, "nothing here");
        let (head, body) = response(&rejection, None, Some(&HeaderValue::from_static("id-1")));
        assert_eq!(head.status, 404);
        assert_eq!(head.headers.get(PROXY_STATUS).expect("set"), "portcullis; error=destination_not_found");
        assert_eq!(head.headers.get(X_REQUEST_ID).expect("set"), "id-1");
        let problem: serde_json::Value = serde_json::from_slice(&body).expect("json");
        assert_eq!(
            problem,
            serde_json::json!({
                "type": "https://portcullis.dev/errors/no_route", "title": "No route", "status": 404,
                "detail": "nothing here", "request_id": "id-1",
            })
        );
    }

    #[test]
    fn a_grpc_client_gets_a_grpc_status() {
        let request = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/grpc+proto"))]);
        for (code, status) in [
            (Code::DeadlineExceeded, "4"),
            (Code::NoHealthyEndpoint, "14"),
            (Code::NoRoute, "12"),
            (Code::Forbidden, "7"),
            (Code::BodyTooLarge, "8"),
        ] {
            let (head, body) = response(&Rejection::new(code, "50 % of \u{e4}"), Some(&request), None);
            assert_eq!((head.status, body.len()), (StatusCode::OK, 0), "{code:?}");
            assert_eq!(head.headers.get(grpc::GRPC_STATUS).expect("set"), status, "{code:?}");
            let message = head.headers.get(grpc::GRPC_MESSAGE).expect("set").to_str().expect("visible");
            assert_eq!(message, format!("{}: 50 %25 of %C3%A4", code.as_str()));
            assert!(head.headers.contains_key(PROXY_STATUS));
        }
    }
}
