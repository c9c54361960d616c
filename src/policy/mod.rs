//! THE TABLE: what a route may say about its requests.

pub mod access;
pub mod hygiene;
pub mod respond;
pub mod timeout;
pub mod compress {
    //! stub
    use bytes::Bytes;
    /// stub
    #[derive(Debug)]
    pub struct Encoder;
    impl Encoder {
        /// stub
        pub fn push(&mut self, _: &[u8]) -> Result<Bytes, ()> { Ok(Bytes::new()) }
        /// stub
        pub fn flush(&mut self) -> Result<Bytes, ()> { Ok(Bytes::new()) }
        /// stub
        pub fn finish(self) -> Result<Bytes, ()> { Ok(Bytes::new()) }
    }
}
use crate::model::diagnostic::Diagnostics;
use crate::model::source::{Origin, Sources, Spanned};
use crate::model::toggle::OrOff;
use crate::model::verdict::PolicyName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The policies of a route as written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RoutePolicies {
    /// Which client addresses may use the route.
    pub access: Option<Spanned<OrOff<access::Config>>>,
    /// A fixed response.
    pub respond: Option<Spanned<OrOff<respond::Config>>>,
    /// How long things may last.
    pub timeout: Option<Spanned<OrOff<timeout::Config>>>,
}

/// A slot.
#[derive(Debug)]
pub struct Slot<T> {
    /// The policy.
    pub policy: T,
    /// Where it is written.
    pub origin: Origin,
}

/// The policies of a route.
#[derive(Debug)]
pub struct Policies {
    /// access
    pub access: Option<Slot<access::Access>>,
    /// respond
    pub respond: Option<Slot<respond::Respond>>,
    /// timeout
    pub timeout: Slot<timeout::Timeout>,
}

impl RoutePolicies {
    /// x
    pub fn layer(defaults: &Self, profiles: Vec<&Self>, route: &Self) -> Self {
        let mut layered = defaults.clone();
        for over in profiles.into_iter().chain([route]) {
            let Self { access, respond, timeout } = over.clone();
            layered.access = access.or(layered.access);
            layered.respond = respond.or(layered.respond);
            layered.timeout = timeout.or(layered.timeout);
        }
        layered
    }
}

impl Policies {
    /// x
    pub fn compile(config: &RoutePolicies, sources: &Sources, diagnostics: &mut Diagnostics) -> Option<Self> {
        let access = match config.access.as_ref().and_then(|s| s.as_set().map(|v| (v, s.span))) {
            Some((c, span)) => Some(Slot { policy: access::compile(&Spanned::new(c.clone(), span), diagnostics)?, origin: sources.origin(span) }),
            None => None,
        };
        let respond = match config.respond.as_ref().and_then(|s| s.as_set().map(|v| (v, s.span))) {
            Some((c, span)) => Some(Slot { policy: respond::compile(c, diagnostics)?, origin: sources.origin(span) }),
            None => None,
        };
        let timeout = match config.timeout.as_ref().and_then(|s| s.as_set().map(|v| (v, s.span))) {
            Some((c, span)) => Slot { policy: timeout::compile(c, diagnostics)?, origin: sources.origin(span) },
            None => Slot { policy: timeout::compile(&timeout::Config::default(), diagnostics)?, origin: Origin::default() },
        };
        Some(Self { access, respond, timeout })
    }
    /// x
    pub fn answers(&self) -> Option<&'static str> { self.respond.as_ref().map(|_| "respond") }
    /// x
    pub fn origins(&self) -> impl Iterator<Item = (PolicyName, &Origin)> {
        self.access.iter().map(|s| (PolicyName::Access, &s.origin)).chain(self.respond.iter().map(|s| (PolicyName::Respond, &s.origin)))
    }
}
