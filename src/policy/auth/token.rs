//! JSON Web Tokens (RFC 7519, RFC 7515, by the rules of RFC 8725): compact, signed, by a key that the issuer publishes.
//!
//! Own code over aws-lc-rs, which the gateway has for TLS: the libraries at hand read the system's clock themselves, and what
//! is strict here (size, header, algorithm by key) would stand around them anyway.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use http::header::COOKIE;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::keys::{Algorithm, Found, KeyRing, MAX_KID, decoded};
use crate::model::clock::{Instant, Now};
use crate::model::principal::{self, AuthMethod, Principal};
use crate::model::request::RequestView;

/// The longest token, in bytes.
const MAX_TOKEN: usize = 16 * 1024;
/// The longest signature: RSA of 8192 bits.
const MAX_SIGNATURE: usize = 1024;
/// The most groups that one token can give.
const MAX_GROUPS: usize = 256;
/// The longest name of a caller.
const MAX_NAME: usize = 256;

/// What a token has to be like.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) ring: Arc<KeyRing>,
    pub(super) issuer: Box<str>,
    pub(super) audiences: Vec<Box<str>>,
    pub(super) algorithms: Option<Vec<Algorithm>>,
    pub(super) leeway: Duration,
    pub(super) claims: BTreeMap<Box<str>, Vec<Box<str>>>,
    pub(super) principal_claim: Box<str>,
    pub(super) groups_claim: Box<str>,
    pub(super) place: Place,
}

/// Where a request has its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// `Authorization: Bearer` (RFC 6750 §2.1).
    Authorization,
    /// A field of its own, with or without `Bearer`.
    Header(HeaderName),
    /// A cookie.
    Cookie(Box<str>),
}

/// What a request's token came to.
#[derive(Debug)]
pub(super) enum Judged {
    /// There is none.
    Absent,
    /// It is the issuer's, and holds.
    Good(Principal),
    /// It is refused.
    Bad(&'static str),
    /// The keys have to be fetched first, on account of this id.
    Fetch(Box<str>),
    /// There are no keys to judge it by.
    NoKeys,
}

/// The header of a token (RFC 7515 §4.1). A member that comes twice is refused; keys and addresses of keys that a token
/// brings along (`jwk`, `jku`, `x5c`, `x5u`) are nobody's word but its own, and are not read.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    #[serde(default, deserialize_with = "present")]
    crit: bool,
    #[serde(default, deserialize_with = "present")]
    b64: bool,
    #[serde(default, deserialize_with = "present")]
    zip: bool,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer).map(|_| true)
}

impl Rules {
    /// Judges the request's token. `fetched`: whether the keys were fetched on its account, if
    /// that was asked for.
    pub(super) fn judge(&self, request: &RequestView<'_>, fetched: Option<bool>, now: Now) -> Judged {
        match self.place.token(request) {
            Ok(None) => Judged::Absent,
            Ok(Some(token)) => self.judge_token(token, fetched, now),
            Err(why) => Judged::Bad(why),
        }
    }

    fn judge_token(&self, token: &str, fetched: Option<bool>, now: Now) -> Judged {
        if token.len() > MAX_TOKEN {
            return Judged::Bad("the token is too long");
        }
        let mut parts = token.rsplitn(2, '.');
        let (Some(signature), Some(message)) = (parts.next(), parts.next()) else {
            return Judged::Bad("the token is malformed");
        };
        let Some((header, payload)) = message.split_once('.').filter(|(_, payload)| !payload.contains('.')) else {
            return Judged::Bad("the token is malformed");
        };
        let header = decoded(header).and_then(|header| serde_json::from_slice::<Header>(&header).ok());
        let Some(Header { alg, kid, crit, b64, zip }) = header else { return Judged::Bad("the token is malformed") };
        if crit || b64 || zip {
            return Judged::Bad("the token demands an extension");
        }
        let known = Algorithm::named(&alg).filter(|alg| self.algorithms.as_ref().is_none_or(|list| list.contains(alg)));
        let Some(algorithm) = known else { return Judged::Bad("the token's algorithm is not accepted") };
        if kid.as_ref().is_some_and(|kid| kid.len() > MAX_KID) {
            return Judged::Bad("the token's key id is too long");
        }
        let signature = decoded(signature).filter(|signature| signature.len() <= MAX_SIGNATURE);
        let Some(signature) = signature else { return Judged::Bad("the token is malformed") };
        let instant = now.monotonic;
        match self.ring.check(kid.as_deref(), algorithm, message.as_bytes(), &signature, instant) {
            Found::Valid => {}
            Found::Invalid => return Judged::Bad("the token's signature is not valid"),
            found @ (Found::NoKeys | Found::UnknownKey) => {
                return self.without_key(found, kid.unwrap_or_default(), fetched, instant);
            }
        }
        let claims = decoded(payload).and_then(|payload| serde_json::from_slice::<Map<String, Value>>(&payload).ok());
        let Some(claims) = claims else { return Judged::Bad("the token has no claims") };
        match self.judge_claims(&claims, now.unix) {
            Err(why) => Judged::Bad(why),
            Ok(name) => {
                let name: Arc<str> = name.into();
                let groups = groups(principal::find(&claims, &self.groups_claim));
                Judged::Good(Principal::new(name, AuthMethod::Jwt, groups, Some(Arc::new(claims))))
            }
        }
    }

    /// There is no key to judge a token by: it is fetched once, and if the issuer does not have it either, it is nobody's.
    fn without_key(&self, found: Found, kid: String, fetched: Option<bool>, now: Instant) -> Judged {
        const UNKNOWN: Judged = Judged::Bad("the token's key is not known");
        if found == Found::UnknownKey && !self.ring.may_fetch_for(&kid, now) {
            return UNKNOWN;
        }
        match fetched {
            None if self.ring.may_fetch(now) => Judged::Fetch(kid.into_boxed_str()),
            Some(true) if found == Found::UnknownKey && !self.ring.is_behind() => {
                self.ring.note_unknown(&kid, now);
                UNKNOWN
            }
            // the issuer may well have it
            _ => Judged::NoKeys,
        }
    }

    /// The name of the caller, if the claims are as they have to be (RFC 7519 §4.1).
    fn judge_claims<'c>(&self, claims: &'c Map<String, Value>, unix: Duration) -> Result<&'c str, &'static str> {
        let now = unix.as_secs_f64();
        let leeway = self.leeway.as_secs_f64();
        let time = |name: &str| match claims.get(name) {
            None => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or("a time in the token is not a number"),
        };
        if claims.get("iss").and_then(Value::as_str) != Some(&self.issuer) {
            return Err("the token is another issuer's");
        }
        if !holds_any(claims.get("aud"), &self.audiences, false) {
            return Err("the token is for another audience");
        }
        let end = time("exp")?.ok_or("the token has no end")?;
        if now >= end + leeway {
            return Err("the token has expired");
        }
        if time("nbf")?.is_some_and(|begin| now + leeway < begin) {
            return Err("the token does not hold yet");
        }
        if time("iat")?.is_some_and(|issued| now + leeway < issued) {
            return Err("the token comes from the future");
        }
        for (name, allowed) in &self.claims {
            let claim = principal::find(claims, name).filter(|claim| !claim.is_null());
            let is_there = if allowed.is_empty() { claim.is_some() } else { holds_any(claim, allowed, true) };
            if !is_there {
                return Err("a claim of the token is not as it has to be");
            }
        }
        let name = principal::find(claims, &self.principal_claim).and_then(Value::as_str);
        name.filter(|name| !name.is_empty() && name.len() <= MAX_NAME).ok_or("the token names nobody")
    }
}

/// Whether a claim is one of the values, or holds one in its list; `words`: also as one of several words, as `scope` does
/// (RFC 8693 §4.2).
fn holds_any(claim: Option<&Value>, allowed: &[Box<str>], words: bool) -> bool {
    let is_allowed = |text: &str| allowed.iter().any(|allowed| **allowed == *text);
    match claim {
        Some(Value::String(text)) => is_allowed(text) || (words && text.split(' ').any(is_allowed)),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).any(is_allowed),
        Some(Value::Bool(truth)) if words => is_allowed(if *truth { "true" } else { "false" }),
        Some(Value::Number(number)) if words => is_allowed(&number.to_string()),
        _ => false,
    }
}

/// Groups are a list of texts, or a text of words.
fn groups(claim: Option<&Value>) -> Vec<Arc<str>> {
    match claim {
        Some(Value::String(text)) => {
            text.split(' ').filter(|group| !group.is_empty()).take(MAX_GROUPS).map(Arc::from).collect()
        }
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).take(MAX_GROUPS).map(Arc::from).collect(),
        _ => Vec::new(),
    }
}

impl Place {
    /// The token, if there is one; two are an error, because somebody else may take the other.
    fn token<'a>(&self, request: &RequestView<'a>) -> Result<Option<&'a str>, &'static str> {
        match self {
            Self::Authorization => Ok(super::authorization(request.headers)?.and_then(|value| after_scheme(value))),
            Self::Header(name) => {
                let mut values = request.headers.get_all(name).iter();
                let Some(value) = values.next() else { return Ok(None) };
                if values.next().is_some() {
                    return Err("more than one token");
                }
                let text = value.to_str().map_err(|_| "the token is malformed")?.trim();
                Ok(Some(after_scheme(text).unwrap_or(text)))
            }
            Self::Cookie(name) => {
                let mut found = None;
                for line in request.headers.get_all(COOKIE) {
                    for pair in line.as_bytes().split(|byte| *byte == b';') {
                        let pair = std::str::from_utf8(pair).unwrap_or_default();
                        let Some((_, value)) = pair.split_once('=').filter(|(written, _)| written.trim() == &**name)
                        else {
                            continue;
                        };
                        if found.replace(value.trim()).is_some() {
                            return Err("more than one token");
                        }
                    }
                }
                Ok(found.filter(|value| !value.is_empty()))
            }
        }
    }
}

/// What follows `Bearer`; the scheme has no case (RFC 9110 §11.1).
fn after_scheme(value: &str) -> Option<&str> {
    let (scheme, rest) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| rest.trim())
}
