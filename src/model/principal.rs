//! Who a request comes from, once that is known: what limits, logs, audit and upstreams are told.
//!
//! A principal never holds a credential. Authentication makes it; nothing else does.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

/// By which method a request proved who it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// A certificate of the client, verified in the TLS handshake.
    ClientCertificate,
    /// An API key of a consumer.
    ApiKey,
    /// A JSON Web Token (RFC 7519).
    Jwt,
    /// Name and password (RFC 7617).
    Basic,
    /// A service that was asked.
    Forward,
}

impl AuthMethod {
    /// The key in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientCertificate => "client_certificate",
            Self::ApiKey => "api_key",
            Self::Jwt => "jwt",
            Self::Basic => "basic",
            Self::Forward => "forward",
        }
    }
}

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    name: Arc<str>,
    method: AuthMethod,
    groups: Box<[Arc<str>]>,
    claims: Option<Arc<Map<String, Value>>>,
}

impl Principal {
    /// A caller of that name: a consumer's, a token's subject, a certificate's.
    pub fn new(
        name: impl Into<Arc<str>>,
        method: AuthMethod,
        groups: impl IntoIterator<Item = Arc<str>>,
        claims: Option<Arc<Map<String, Value>>>,
    ) -> Self {
        Self { name: name.into(), method, groups: groups.into_iter().collect(), claims }
    }

    /// Its name. Two methods may know different callers by one name: a route that counts on names offers one method,
    /// or issuers that agree.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it was found.
    #[must_use]
    pub const fn method(&self) -> AuthMethod {
        self.method
    }

    /// The groups that it is in.
    #[must_use]
    pub fn groups(&self) -> &[Arc<str>] {
        &self.groups
    }

    /// Whether it is in that group.
    #[must_use]
    pub fn has_group(&self, group: &str) -> bool {
        self.groups.iter().any(|known| **known == *group)
    }

    /// A claim of its token as text: `path` is a name, or names joined by dots that lead into nested objects; a name that
    /// has dots itself is found first. `None` for what is not there and for lists, objects and null.
    #[must_use]
    pub fn claim(&self, path: &str) -> Option<Cow<'_, str>> {
        scalar(find(self.claims.as_deref()?, path)?)
    }
}

/// The claim that `path` leads to; see [`Principal::claim`].
#[must_use]
pub fn find<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let (first, rest) = path.split_once('.')?;
    find(claims.get(first)?.as_object()?, rest)
}

fn scalar(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(truth) => Some(Cow::Borrowed(if *truth { "true" } else { "false" })),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn principal(claims: &Value) -> Principal {
        let claims = claims.as_object().cloned().map(Arc::new);
        Principal::new("ann", AuthMethod::Jwt, ["staff".into(), "ops".into()], claims)
    }

    #[test]
    fn a_claim_is_found_by_its_name_or_by_its_way() {
        #[track_caller]
        fn check(path: &str, found: Option<&str>) {
            let claims = json!({
                "sub": "ann", "n": 7, "ok": true, "nil": null, "list": ["a"], "a.b": "dotted",
                "a": { "b": "nested", "c": { "d": "deep" } }, "https://id.example/tenant": "blue",
            });
            assert_eq!(principal(&claims).claim(path).as_deref(), found, "{path}");
        }
        check("sub", Some("ann"));
        check("n", Some("7"));
        check("ok", Some("true"));
        check("a.b", Some("dotted"));
        check("a.c.d", Some("deep"));
        check("https://id.example/tenant", Some("blue"));
        for path in ["nil", "list", "a", "a.c", "none", "sub.x", "", "."] {
            check(path, None);
        }
    }

    #[test]
    fn groups_are_whole_names() {
        let principal = principal(&json!({}));
        assert!(principal.has_group("staff") && principal.has_group("ops"));
        assert!(!principal.has_group("sta") && !principal.has_group("Staff") && !principal.has_group(""));
    }
}
