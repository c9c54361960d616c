//! Asking a service whether a request may come in, as nginx's `auth_request` does: what it is told, and what its answer means.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::identity;
use crate::model::principal::{AuthMethod, Principal};
use crate::model::request::RequestView;

/// What follows when the service gives no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// The request is refused with 503 `auth_unavailable`.
    #[default]
    Deny,
    /// The request goes on without a name.
    Allow,
}

/// The compiled settings.
#[derive(Debug)]
pub(super) struct Forward {
    /// Index of the upstream that is asked.
    pub(super) upstream: usize,
    pub(super) authority: HeaderValue,
    pub(super) target: Arc<str>,
    pub(super) timeout: Duration,
    pub(super) request_headers: Vec<HeaderName>,
    pub(super) copy_headers: Vec<HeaderName>,
    pub(super) principal: Option<HeaderName>,
    pub(super) groups: Option<HeaderName>,
    pub(super) on_error: OnError,
}

/// A request to the service.
#[derive(Debug)]
pub struct ForwardCall {
    /// Index of the upstream in the snapshot.
    pub upstream: usize,
    /// `Host` that it is sent.
    pub authority: HeaderValue,
    /// Path and query.
    pub target: Arc<str>,
    /// Fields.
    pub headers: HeaderMap,
    /// How long the answer may take.
    pub timeout: Duration,
}

/// What the service said.
#[derive(Debug, Clone)]
pub struct ForwardAnswer {
    /// Status.
    pub status: StatusCode,
    /// Fields.
    pub headers: HeaderMap,
}

/// What an answer comes to.
#[derive(Debug)]
pub(super) enum Ruled {
    /// The request may come in, with these fields.
    Allowed(Option<Principal>, HeaderMap),
    /// It may not; the challenges that the service sent.
    Refused(StatusCode, Vec<HeaderValue>),
    /// There was no answer, or none that says yes or no.
    Unknown,
}

const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

impl Forward {
    /// What the service is told of a request: never its body.
    pub(super) fn call(&self, request: &RequestView<'_>) -> ForwardCall {
        let mut headers = HeaderMap::new();
        for name in &self.request_headers {
            for value in request.headers.get_all(name) {
                headers.append(name.clone(), value.clone());
            }
        }
        let mut tell = |name: HeaderName, value: &str| {
            // method, host and target consist of visible characters
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        tell(X_FORWARDED_METHOD, request.method.as_str());
        match request.query {
            Some(query) => tell(X_FORWARDED_URI, &format!("{}?{query}", request.path)),
            None => tell(X_FORWARDED_URI, request.path),
        }
        match request.port {
            Some(port) => tell(X_FORWARDED_HOST, &format!("{}:{port}", request.host)),
            None => tell(X_FORWARDED_HOST, request.host),
        }
        tell(X_FORWARDED_PROTO, request.scheme.as_str());
        tell(X_FORWARDED_FOR, &request.client.to_string());
        ForwardCall {
            upstream: self.upstream,
            authority: self.authority.clone(),
            target: Arc::clone(&self.target),
            headers,
            timeout: self.timeout,
        }
    }

    /// What an answer means.
    pub(super) fn rule(&self, answer: Option<&ForwardAnswer>) -> Ruled {
        match answer {
            Some(answer) if answer.status.is_success() => {
                let mut copied = HeaderMap::new();
                for name in &self.copy_headers {
                    for value in answer.headers.get_all(name) {
                        copied.append(name.clone(), value.clone());
                    }
                }
                Ruled::Allowed(self.principal(&answer.headers), copied)
            }
            Some(answer) if matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                Ruled::Refused(answer.status, answer.headers.get_all(WWW_AUTHENTICATE).iter().cloned().collect())
            }
            Some(_) | None => Ruled::Unknown,
        }
    }

    fn principal(&self, headers: &HeaderMap) -> Option<Principal> {
        let text = |name: &Option<HeaderName>| {
            let value = headers.get(name.as_ref()?)?;
            std::str::from_utf8(value.as_bytes()).ok().map(str::trim).filter(|text| !text.is_empty())
        };
        let name = text(&self.principal).filter(|name| name.len() <= 256)?;
        let groups = text(&self.groups).unwrap_or_default().split(',').map(str::trim);
        let groups = groups.filter(|group| !group.is_empty()).take(256).map(Arc::from);
        Some(Principal::new(name, AuthMethod::Forward, groups, None))
    }

    /// The fields that only the service may say.
    pub(super) fn claims(&self) -> impl Iterator<Item = &HeaderName> {
        self.copy_headers.iter()
    }
}

/// `GET`: the service is asked about the request, not sent it.
pub const METHOD: Method = Method::GET;

/// Puts the fields that the service gave into a request that goes upstream, in place of what the client said.
pub(super) fn copy(copied: &HeaderMap, headers: &mut HeaderMap) {
    for name in copied.keys() {
        identity::remove(headers, name);
        for value in copied.get_all(name) {
            headers.append(name.clone(), value.clone());
        }
    }
}
