//! What upstreams are told of the caller, in fields that nobody else can write.
//!
//! Before anything is written, the fields are removed from what the client sent, together with the spellings that some
//! servers take for the same (CGI makes `HTTP_X_USER` of `x-user` and `x_user`).

use std::collections::BTreeMap;

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::fields;
use crate::model::principal::Principal;
use crate::model::source::{SourceSpan, Spanned};

/// What a field says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    Principal,
    Groups,
    Method,
    Claim(Box<str>),
}

/// The fields that are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity(Vec<(HeaderName, Said)>);

/// Fields that the gateway writes of every request after those of identity, which would be lost in them.
const OF_THE_GATEWAY: [HeaderName; 3] =
    [HOST, HeaderName::from_static("x-request-id"), HeaderName::from_static("traceparent")];

/// Reads the name of a field that the upstream is told of the caller in.
pub(super) fn compile_name(written: &str, span: SourceSpan, diagnostics: &mut Diagnostics) -> Option<HeaderName> {
    let name = fields::compile_name(written, span, diagnostics)?;
    if OF_THE_GATEWAY.contains(&name) {
        let error = Diagnostic::error("reserved_field", span, format!("the gateway writes this field itself: {name}"));
        diagnostics.push(error.help("tell upstreams of the caller in a field of its own, such as x-user"));
        return None;
    }
    Some(name)
}

/// The fields of a route that does not name its own.
pub(super) fn default_headers() -> BTreeMap<String, Spanned<String>> {
    [("x-portcullis-principal", "principal"), ("x-portcullis-groups", "groups")]
        .into_iter()
        .map(|(name, said)| (name.to_owned(), said.to_owned().into()))
        .collect()
}

impl Identity {
    pub(super) fn compile(config: &BTreeMap<String, Spanned<String>>, diagnostics: &mut Diagnostics) -> Self {
        let mut written = Vec::new();
        for (name, said) in config {
            let name = compile_name(name, said.span, diagnostics);
            let said = match said.value.as_str() {
                "principal" => Some(Said::Principal),
                "groups" => Some(Said::Groups),
                "method" => Some(Said::Method),
                other => other
                    .strip_prefix("claim:")
                    .filter(|claim| !claim.is_empty())
                    .map(|claim| Said::Claim(claim.into())),
            }
            .or_else(|| {
                let message = format!("not what is known of a caller: {:?}", said.value);
                diagnostics.push(
                    Diagnostic::error("bad_value", said.span, message)
                        .help("a field says \"principal\", \"groups\", \"method\" or \"claim:NAME\""),
                );
                None
            });
            written.extend(name.zip(said));
        }
        Self(written)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.0.iter().map(|(name, _)| name)
    }

    /// Writes what is known. What can't stand in a field is left out, and so is a group with a comma, which would be two.
    pub(super) fn write(&self, principal: Option<&Principal>, headers: &mut HeaderMap) {
        for (name, said) in &self.0 {
            remove(headers, name);
            let Some(principal) = principal else { continue };
            let text = match said {
                Said::Principal => Some(principal.name().to_owned()),
                Said::Groups => {
                    let groups: Vec<&str> =
                        principal.groups().iter().map(|group| &**group).filter(|group| is_member(group)).collect();
                    (!groups.is_empty()).then(|| groups.join(","))
                }
                Said::Method => Some(principal.method().as_str().to_owned()),
                Said::Claim(path) => principal.claim(path).map(std::borrow::Cow::into_owned),
            };
            if let Some(value) = text.and_then(|text| HeaderValue::from_bytes(text.as_bytes()).ok()) {
                headers.insert(name.clone(), value);
            }
        }
    }
}

fn is_member(group: &str) -> bool {
    !group.contains(|letter: char| letter == ',' || letter.is_control())
}

/// Removes a field in every spelling that could be taken for it.
pub fn remove(headers: &mut HeaderMap, name: &HeaderName) {
    headers.remove(name);
    let dashed =
        |text: &str| text.bytes().map(|byte| if byte == b'_' { b'-' } else { byte }).collect::<SmallVec<[u8; 48]>>();
    let own = dashed(name.as_str());
    let is_alias = |other: &&HeaderName| other.as_str().contains('_') && dashed(other.as_str()) == own;
    let aliases: SmallVec<[HeaderName; 2]> = headers.keys().filter(is_alias).cloned().collect();
    for alias in aliases {
        headers.remove(alias);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::model::principal::AuthMethod;

    fn identity(fields: &[(&str, &str)]) -> Identity {
        let config = fields.iter().map(|(name, said)| ((*name).to_owned(), (*said).to_owned().into())).collect();
        let mut diagnostics = Diagnostics::default();
        let identity = Identity::compile(&config, &mut diagnostics);
        assert_eq!(diagnostics.errors(), 0);
        identity
    }

    #[test]
    fn what_a_client_says_of_itself_is_removed_in_every_spelling() {
        let mut headers = HeaderMap::new();
        for name in ["x-user-id", "x_user_id", "x-user_id", "x-user", "x_users"] {
            headers.append(name.parse::<HeaderName>().expect("a name"), HeaderValue::from_static("forged"));
        }
        identity(&[("x-user-id", "principal")]).write(None, &mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["x-user", "x_users"]);
    }

    #[test]
    fn fields_say_what_is_known() {
        let claims = json!({ "email": "ann@example.com", "org": { "id": 7 }, "evil": "a\r\nb" });
        let claims = claims.as_object().cloned().map(Arc::new);
        let groups: [Arc<str>; 3] = ["staff".into(), "a,b".into(), "ops".into()];
        let principal = Principal::new("änn", AuthMethod::Jwt, groups, claims);
        let mut headers = HeaderMap::new();
        let fields = [
            ("x-user", "principal"),
            ("x-groups", "groups"),
            ("x-by", "method"),
            ("x-email", "claim:email"),
            ("x-org", "claim:org.id"),
            ("x-none", "claim:none"),
            ("x-evil", "claim:evil"),
        ];
        identity(&fields).write(Some(&principal), &mut headers);
        let value = |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        assert_eq!(value("x-user").as_deref(), Some("änn"));
        assert_eq!(value("x-groups").as_deref(), Some("staff,ops"));
        assert_eq!(value("x-by").as_deref(), Some("jwt"));
        assert_eq!(value("x-email").as_deref(), Some("ann@example.com"));
        assert_eq!(value("x-org").as_deref(), Some("7"));
        assert_eq!((value("x-none"), value("x-evil")), (None, None));
    }

    #[test]
    fn unknown_words_are_refused() {
        let mut diagnostics = Diagnostics::default();
        let config = [("x-a", "user"), ("x-b", "claim:"), ("connection", "principal")];
        let config = config.iter().map(|(name, said)| ((*name).to_owned(), (*said).to_owned().into())).collect();
        Identity::compile(&config, &mut diagnostics);
        assert_eq!(diagnostics.errors(), 3);
    }
}
