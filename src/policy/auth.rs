//! Who calls, and whether they may: API keys, JSON Web Tokens, passwords, client certificates, or the word of another service.
//!
//! Any one of a route's methods is enough. They are asked from the cheapest to the dearest; the first that knows the caller
//! settles it. Credentials that none of them accepts are refused also where none are required, so that a caller whose token
//! has expired does not go on as nobody. What is known at hand is decided at once; where keys have to be fetched, a slow hash
//! be computed or a service be asked, the decision returns the [`Question`] and is made again with the answer.
//!
//! Never keeps or shows a credential: of API keys and passwords there are hashes, and reasons name none of them.

mod certificate;
mod config;
mod consumers;
mod forward;
pub mod identity;
mod keys;
mod password;
mod token;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};

pub use self::certificate::{CertificateName, ClientCertificate};
pub use self::config::{
    ApiKeyConfig, BasicConfig, CertificateConfig, Config, Context, FileOf, ForwardConfig, JwtConfig, Rings, compile,
};
pub use self::consumers::{
    ConsumerConfig, Consumers, Document as ConsumersDocument, compile as compile_consumers, hashed_key,
};
use self::forward::{Forward, Ruled};
pub use self::forward::{ForwardAnswer, ForwardCall, METHOD as FORWARD_METHOD, OnError};
use self::identity::Identity;
pub use self::keys::{Algorithm, Freshness, KeyRing, KeySource, RingStatus};
use self::password::MAX_PASSWORD;
pub use self::password::{PasswordCheck, hashed_password};
use self::token::{Judged, Rules};
use crate::model::clock::Now;
use crate::model::key::decoded;
use crate::model::principal::{AuthMethod, Principal};
use crate::model::request::RequestView;
use crate::model::verdict::{Admission, Code, Mode, PolicyName, Rejection};

/// The compiled policy.
#[derive(Debug)]
pub struct Auth {
    certificate: Option<CertificateName>,
    api_key: Option<ApiKey>,
    jwt: Option<Rules>,
    basic: Option<Basic>,
    forward: Option<Forward>,
    consumers: Option<Arc<Consumers>>,
    required: bool,
    groups: Vec<Arc<str>>,
    identity: Identity,
    realm: Box<str>,
    mode: Mode,
}

#[derive(Debug)]
struct ApiKey {
    header: Option<HeaderName>,
    query: Option<Box<str>>,
}

#[derive(Debug)]
struct Basic {
    remember: Duration,
    timeout: Duration,
}

/// What has to be found out before the decision can be made.
#[derive(Debug)]
pub enum Question {
    /// The keys of an issuer, fetched anew on account of a key id.
    Keys {
        /// Whose.
        ring: Arc<KeyRing>,
        /// The id; empty when there are no keys at all.
        kid: Box<str>,
    },
    /// Whether a password is right.
    Password {
        /// The slow part.
        check: PasswordCheck,
        /// How long it may take, waiting included.
        timeout: Duration,
    },
    /// What a service says.
    Forward(ForwardCall),
}

/// The answer to a [`Question`].
#[derive(Debug)]
pub enum Reply {
    /// Whether a fetch has ended, well or not; the ring has what it brought.
    Keys(bool),
    /// Whether the password is right; `None` when there was no time to check it.
    Password(Option<bool>),
    /// What the service said; `None` when it said nothing in time.
    Forward(Option<ForwardAnswer>),
}

/// The answers that a request has got so far.
#[derive(Debug, Default)]
pub struct Answers(Vec<Reply>);

impl Answers {
    /// Adds one. A question is asked once, so there is at most one of each kind.
    pub fn add(&mut self, reply: Reply) {
        self.0.push(reply);
    }

    /// The answer that `of_kind` takes.
    fn find<'a, T>(&'a self, of_kind: impl Fn(&'a Reply) -> Option<T>) -> Option<T> {
        self.0.iter().find_map(of_kind)
    }
}

/// What the policy says of a request.
#[derive(Debug)]
pub enum Ruling {
    /// Something has to be found out first.
    Ask(Question),
    /// It is settled.
    Settled {
        /// Whether it goes on.
        admission: Admission,
        /// Who it comes from.
        principal: Option<Arc<Principal>>,
        /// Fields that a service wants to go upstream.
        copied: Option<HeaderMap>,
    },
}

/// What one method says of a request.
enum Proof {
    /// It has no credentials of the kind.
    Absent,
    Good(Arc<Principal>),
    /// Its credentials are refused.
    Bad(&'static str),
    /// It can't be found out.
    Unavailable(&'static str),
    Ask(Question),
}

/// What of the methods that did not settle it is to be told.
#[derive(Default)]
struct Refused {
    token: Option<&'static str>,
    reason: Option<&'static str>,
    unavailable: Option<&'static str>,
}

impl Auth {
    /// Judges a request; `certificate` is the client's, if it showed one.
    #[must_use]
    pub fn decide(
        &self,
        request: &RequestView<'_>,
        certificate: Option<&ClientCertificate>,
        answers: &Answers,
        now: Now,
    ) -> Ruling {
        let mut refused = Refused::default();
        for method in [AuthMethod::ClientCertificate, AuthMethod::ApiKey, AuthMethod::Jwt, AuthMethod::Basic] {
            let proof = match method {
                AuthMethod::ClientCertificate => self.by_certificate(certificate),
                AuthMethod::ApiKey => self.by_key(request),
                AuthMethod::Jwt => self.by_token(request, answers, now),
                AuthMethod::Basic => self.by_password(request, answers, now),
                AuthMethod::Forward => Proof::Absent,
            };
            match proof {
                Proof::Absent => {}
                Proof::Good(principal) => return self.known(principal, None),
                Proof::Ask(question) => return Ruling::Ask(question),
                Proof::Bad(why) => {
                    refused.reason.get_or_insert(why);
                    if method == AuthMethod::Jwt {
                        refused.token = Some(why);
                    }
                }
                Proof::Unavailable(why) => {
                    refused.unavailable.get_or_insert(why);
                }
            }
        }
        match &self.forward {
            Some(forward) => self.by_service(forward, request, answers, &refused),
            None => self.unknown(&refused),
        }
    }

    fn by_certificate(&self, certificate: Option<&ClientCertificate>) -> Proof {
        let (Some(kind), Some(certificate)) = (self.certificate, certificate) else { return Proof::Absent };
        let Some(name) = certificate.name(kind) else { return Proof::Bad("the certificate has no such name") };
        let groups = self.consumers.as_ref().map_or(&[][..], |consumers| consumers.groups(name));
        let groups = groups.iter().map(Arc::clone);
        Proof::Good(Arc::new(Principal::new(name, AuthMethod::ClientCertificate, groups, None)))
    }

    fn by_key(&self, request: &RequestView<'_>) -> Proof {
        let (Some(places), Some(consumers)) = (&self.api_key, &self.consumers) else { return Proof::Absent };
        let mut keys: smallvec::SmallVec<[std::borrow::Cow<'_, [u8]>; 2]> = smallvec::SmallVec::new();
        if let Some(name) = &places.header {
            keys.extend(request.headers.get_all(name).iter().map(|value| value.as_bytes().trim_ascii().into()));
        }
        if let (Some(name), Some(query)) = (&places.query, request.query) {
            let values = parameters(query).filter(|(written, _)| decoded(written).eq(name.bytes()));
            keys.extend(values.map(|(_, value)| decoded(value).collect::<Vec<u8>>().into()));
        }
        match keys.as_slice() {
            [] => Proof::Absent,
            [key] => consumers
                .by_key(key)
                .map_or(Proof::Bad("the API key is not known"), |known| Proof::Good(Arc::clone(known))),
            _ => Proof::Bad("more than one API key"),
        }
    }

    fn by_token(&self, request: &RequestView<'_>, answers: &Answers, now: Now) -> Proof {
        let Some(rules) = &self.jwt else { return Proof::Absent };
        let fetched = answers.find(|reply| if let Reply::Keys(ended) = reply { Some(*ended) } else { None });
        match rules.judge(request, fetched, now) {
            Judged::Absent => Proof::Absent,
            Judged::Good(principal) => Proof::Good(Arc::new(principal)),
            Judged::Bad(why) => Proof::Bad(why),
            Judged::Fetch(kid) => Proof::Ask(Question::Keys { ring: Arc::clone(&rules.ring), kid }),
            Judged::NoKeys => Proof::Unavailable("the issuer's keys are not to be had"),
        }
    }

    fn by_password(&self, request: &RequestView<'_>, answers: &Answers, now: Now) -> Proof {
        const WRONG: &str = "the user name or password is wrong";
        const HOLD_WRONG: Duration = Duration::from_secs(30);
        let (Some(basic), Some(consumers)) = (&self.basic, &self.consumers) else { return Proof::Absent };
        let credentials = match authorization(request.headers) {
            Ok(Some(value)) => match value.split_once(' ') {
                Some((scheme, credentials)) if scheme.eq_ignore_ascii_case("basic") => credentials.trim(),
                _ => return Proof::Absent,
            },
            Ok(None) => return Proof::Absent,
            Err(why) => return Proof::Bad(why),
        };
        let decoded = STANDARD.decode(credentials).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let Some((user, password)) = decoded.as_deref().and_then(|text| text.split_once(':')) else {
            return Proof::Bad("the credentials are malformed");
        };
        if password.len() > MAX_PASSWORD {
            return Proof::Bad("the password is too long");
        }
        let known = consumers.by_user(user);
        // An unknown user's password is checked as long as any, or one could tell who is known by the time it takes.
        let Some(hash) = known.map(|(_, hash)| hash).or(consumers.costliest()) else { return Proof::Bad(WRONG) };
        let verified = consumers.verified();
        let fingerprint = verified.fingerprint(user, password.as_bytes());
        let checked = answers.find(|reply| if let Reply::Password(outcome) = reply { Some(outcome) } else { None });
        let outcome = match (verified.recall(fingerprint, now.monotonic), checked) {
            (Some(remembered), _) => remembered,
            (None, Some(&Some(found))) => {
                let hold = if found { basic.remember } else { basic.remember.min(HOLD_WRONG) };
                verified.remember(fingerprint, found, now.monotonic, hold);
                found
            }
            (None, Some(&None)) => return Proof::Unavailable("the password could not be checked in time"),
            (None, None) => {
                let check = PasswordCheck::new(password.as_bytes(), hash, known.is_some());
                return Proof::Ask(Question::Password { check, timeout: basic.timeout });
            }
        };
        match known.filter(|_| outcome) {
            Some((principal, _)) => Proof::Good(Arc::clone(principal)),
            None => Proof::Bad(WRONG),
        }
    }

    fn by_service(&self, forward: &Forward, request: &RequestView<'_>, answers: &Answers, refused: &Refused) -> Ruling {
        let told = answers.find(|reply| if let Reply::Forward(answer) = reply { Some(answer) } else { None });
        let Some(answer) = told else { return Ruling::Ask(Question::Forward(forward.call(request))) };
        match forward.rule(answer.as_ref()) {
            Ruled::Allowed(Some(principal), copied) => self.known(Arc::new(principal), Some(copied)),
            Ruled::Allowed(None, _) if !self.groups.is_empty() => self.refuse("the caller has no name", forbidden()),
            Ruled::Allowed(None, copied) => {
                settled(Admission::allow(PolicyName::Auth, "the service lets it in"), None, Some(copied))
            }
            Ruled::Refused(status, challenges) => {
                let mut rejection = if status == http::StatusCode::FORBIDDEN {
                    forbidden()
                } else {
                    Rejection::new(Code::Unauthenticated, "the service that was asked does not know the caller")
                };
                let own = if rejection.code == Code::Unauthenticated { self.challenges(refused) } else { Vec::new() };
                let challenges = if challenges.is_empty() { own } else { challenges };
                rejection.headers.extend(challenges.into_iter().map(|challenge| (WWW_AUTHENTICATE, challenge)));
                self.refuse("the service that was asked refuses it", rejection)
            }
            Ruled::Unknown if forward.on_error == OnError::Allow => {
                settled(Admission::allow(PolicyName::Auth, "the service gave no answer, which lets it in"), None, None)
            }
            Ruled::Unknown => self.unavailable("the service that was asked gave no answer"),
        }
    }

    /// The caller is known; may they?
    fn known(&self, principal: Arc<Principal>, copied: Option<HeaderMap>) -> Ruling {
        let is_in = self.groups.is_empty() || self.groups.iter().any(|group| principal.has_group(group));
        if is_in {
            let reason = match principal.method() {
                AuthMethod::ClientCertificate => "known by its certificate",
                AuthMethod::ApiKey => "known by its API key",
                AuthMethod::Jwt => "known by its token",
                AuthMethod::Basic => "known by its password",
                AuthMethod::Forward => "known to the service that was asked",
            };
            return settled(Admission::allow(PolicyName::Auth, reason), Some(principal), copied);
        }
        let mut rejection = forbidden();
        if principal.method() == AuthMethod::Jwt {
            // RFC 6750 §3.1
            let challenge = format!("Bearer realm=\"{}\", error=\"insufficient_scope\"", self.realm);
            rejection = challenged(rejection, &challenge);
        }
        let admission =
            Admission::refuse(PolicyName::Auth, self.mode, "the caller is in none of the groups", rejection);
        Ruling::Settled { admission, principal: Some(principal), copied }
    }

    /// Nobody knows the caller.
    fn unknown(&self, refused: &Refused) -> Ruling {
        if let Some(why) = refused.unavailable {
            return self.unavailable(why);
        }
        let (reason, detail) = match refused.reason {
            None if !self.required => {
                return settled(Admission::allow(PolicyName::Auth, "nobody's, which is allowed"), None, None);
            }
            None => ("no credentials", "this route needs credentials"),
            Some(why) => (why, why),
        };
        let mut rejection = Rejection::new(Code::Unauthenticated, detail);
        rejection.headers.extend(self.challenges(refused).into_iter().map(|challenge| (WWW_AUTHENTICATE, challenge)));
        self.refuse(reason, rejection)
    }

    fn unavailable(&self, why: &'static str) -> Ruling {
        let rejection = Rejection::new(Code::AuthUnavailable, why).header(RETRY_AFTER, HeaderValue::from_static("1"));
        self.refuse(why, rejection)
    }

    fn refuse(&self, reason: &'static str, rejection: Rejection) -> Ruling {
        settled(Admission::refuse(PolicyName::Auth, self.mode, reason, rejection), None, None)
    }

    /// A challenge for each method (RFC 9110 §11.6.1), each in a line of its own, which clients read best. API keys,
    /// certificates and services have no registered scheme; what stands for them follows the same grammar.
    fn challenges(&self, refused: &Refused) -> Vec<HeaderValue> {
        let realm = &self.realm;
        let mut challenges = Vec::new();
        if self.jwt.is_some() {
            // Without a token there is no error to tell of (RFC 6750 §3.1).
            challenges.push(match refused.token {
                None => format!("Bearer realm=\"{realm}\""),
                Some(why) => format!("Bearer realm=\"{realm}\", error=\"invalid_token\", error_description=\"{why}\""),
            });
        }
        if self.basic.is_some() {
            challenges.push(format!("Basic realm=\"{realm}\", charset=\"UTF-8\""));
        }
        if let Some(ApiKey { header, query }) = &self.api_key {
            let place = match (header, query) {
                (Some(header), _) => format!("in=\"header\", name=\"{header}\""),
                (None, query) => format!("in=\"query\", name=\"{}\"", query.as_deref().unwrap_or_default()),
            };
            challenges.push(format!("ApiKey realm=\"{realm}\", {place}"));
        }
        if self.certificate.is_some() {
            challenges.push(format!("ClientCertificate realm=\"{realm}\""));
        }
        if challenges.is_empty() {
            challenges.push(format!("Forward realm=\"{realm}\""));
        }
        challenges.into_iter().filter_map(|challenge| HeaderValue::from_str(&challenge).ok()).collect()
    }

    /// Prepares the fields of a request that goes upstream: what the gateway alone may say of callers is what it knows, and
    /// keys and passwords, which are the gateway's business, stay here.
    pub fn edit_request(&self, principal: Option<&Principal>, copied: Option<&HeaderMap>, headers: &mut HeaderMap) {
        for name in self.forward.iter().flat_map(Forward::claims) {
            identity::remove(headers, name);
        }
        if let Some(header) = self.api_key.as_ref().and_then(|places| places.header.as_ref()) {
            identity::remove(headers, header);
        }
        // Also when another method knew the caller first.
        let is_basic = |value: &HeaderValue| {
            value.as_bytes().get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic "))
        };
        if self.basic.is_some() && headers.get_all(AUTHORIZATION).iter().any(is_basic) {
            headers.remove(AUTHORIZATION);
        }
        self.identity.write(principal, headers);
        if let Some(copied) = copied {
            forward::copy(copied, headers);
        }
    }

    /// The query without the API key; `None` when it has none.
    #[must_use]
    pub fn edit_query(&self, query: &str) -> Option<String> {
        let name = self.api_key.as_ref()?.query.as_deref()?;
        let is_key = |written: &str| decoded(written).eq(name.bytes());
        if !parameters(query).any(|(written, _)| is_key(written)) {
            return None;
        }
        let rest: Vec<&str> = query
            .split('&')
            .filter(|pair| !is_key(pair.split_once('=').map_or(*pair, |(written, _)| written)))
            .collect();
        Some(rest.join("&"))
    }

    /// The fields that only the gateway, or the service that it asks, may write.
    pub fn fields(&self) -> impl Iterator<Item = &HeaderName> {
        self.identity.names().chain(self.forward.iter().flat_map(Forward::claims))
    }
}

fn settled(admission: Admission, principal: Option<Arc<Principal>>, copied: Option<HeaderMap>) -> Ruling {
    Ruling::Settled { admission, principal, copied }
}

fn forbidden() -> Rejection {
    Rejection::new(Code::Forbidden, "this caller may not use this route")
}

fn challenged(rejection: Rejection, challenge: &str) -> Rejection {
    match HeaderValue::from_str(challenge) {
        Ok(challenge) => rejection.header(WWW_AUTHENTICATE, challenge),
        Err(_) => rejection,
    }
}

fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// The one value of `Authorization`; two are an error, because another reader may take the other one.
fn authorization(headers: &HeaderMap) -> Result<Option<&str>, &'static str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err("more than one Authorization");
    }
    value.to_str().map(Some).map_err(|_| "the credentials are malformed")
}

#[cfg(test)]
mod tests;
