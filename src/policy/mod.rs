//! THE TABLE: what a route may say about its requests, and in which order it is asked.
//!
//! | stage | slot | decides |
//! |---|---|---|
//! | admit | [`access`] | whether this client address may use the route |
//! | admit | [`rate_limit`] | whether there have been too many such requests |
//! | admit | [`cors`] | whether the request is a preflight, and what its origin may read |
//! | admit | [`auth`] | who calls, and whether they may; later, what the upstream is told of them |
//! | admit | [`validate`] | whether head and body are as the route asks for: lengths, types, schemas, the description of the API |
//! | answer | [`redirect`] | whether the client is sent elsewhere |
//! | answer | [`respond`] | the fixed response |
//! | attempt | [`rewrite`] | the path and host that the upstream sees |
//! | attempt | [`headers`] (request) | the fields that the upstream sees |
//! | respond | [`headers`] (response), then the CORS grant | the fields that the client sees |
//! | respond | [`compress`] | the encoding that the client gets |
//! | all | [`timeout`] | how long all of this may last |
//! | judge | [`retry`] | which failed attempts are made again |
//! | attempt | [`hedge`] | when a second attempt starts beside a slow one |
//! | fail | [`fallback`] | what answers when the upstream can't |
//!
//! Who may come in is asked before anything is answered, and an answer of the gateway's own needs no upstream. The CORS
//! grant is written after `headers`, so that an edit can't widen it, and `compress` comes last, when nothing else will
//! look at the body.
//!
//! Beside the slots stands [`hygiene`]: what every request gets, whatever its route says.
//!
//! Each policy has a file (past a sitting, a folder) of one shape: `Config` as written, `compile` into a value that can't
//! be wrong, one decision as a plain function, tests. Policies never import each other: what several need is a word of
//! `model`. Stages take [`Policies`] apart without `..`, so that a new slot fails to compile until each has considered it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::ids::RouteName;
use crate::model::names::Names;
use crate::model::source::{Origin, SourceSpan, Sources, Spanned};
use crate::model::toggle::{OrOff, Toggle};
use crate::model::verdict::PolicyName;

pub mod access;
pub mod auth;
pub mod compress;
pub mod cors;
pub mod fallback;
pub mod headers;
pub mod hedge;
pub mod hygiene;
pub mod rate_limit;
pub mod redirect;
pub mod respond;
pub mod retry;
pub mod rewrite;
pub mod timeout;
pub mod validate;

/// The policy keys of a route, of `[defaults]` and of a `[profile]`. A key on the route replaces the whole key of a
/// profile, and that of a later profile the one of an earlier profile and of the defaults; `false` switches an inherited
/// policy off.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RoutePolicies {
    /// Which client addresses may use the route. Default: every one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<Spanned<OrOff<access::Config>>>,
    /// How many requests get through. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<Spanned<OrOff<rate_limit::Config>>>,
    /// Which other origins' pages may read the responses. Default: the upstream's own CORS fields stand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<Spanned<OrOff<cors::Config>>>,
    /// Who may use the route. Default: everybody, and nobody has a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<Spanned<OrOff<auth::Config>>>,
    /// What a request must be like: limits, content types, schemas, a description of the API. Default: a body of at most 10 MiB; `false` lifts the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validate: Option<Spanned<OrOff<validate::Config>>>,
    /// Sends the client elsewhere. Default: no redirect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Spanned<OrOff<redirect::Config>>>,
    /// A fixed response instead of an upstream. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub respond: Option<Spanned<OrOff<respond::Config>>>,
    /// What path and host the upstream sees. Default: the client's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<Spanned<OrOff<rewrite::Config>>>,
    /// Fields that are set, added and removed. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<Spanned<OrOff<headers::Config>>>,
    /// Whether and how responses are compressed. Default: not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compress: Option<Spanned<Toggle<compress::Config>>>,
    /// How long things may last. Default, also for `false`: 30 s a request, 10 s an attempt, 60 s of silence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Spanned<OrOff<timeout::Config>>>,
    /// Which failed attempts are made again. Default: those of idempotent requests, within a budget; `false`: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Spanned<OrOff<retry::Config>>>,
    /// Whether a second attempt starts beside a slow one. Default: no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hedge: Option<Spanned<OrOff<hedge::Config>>>,
    /// What answers when the upstream can't. Default: a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Spanned<OrOff<fallback::Config>>>,
}

impl RoutePolicies {
    /// The keys that hold for a route: its own, else those of its profiles (the last one first), else the defaults.
    #[must_use]
    pub fn layer(defaults: &Self, profiles: Vec<&Self>, route: &Self) -> Self {
        let mut layered = defaults.clone();
        for over in profiles.into_iter().chain([route]) {
            let Self {
                access,
                rate_limit,
                cors,
                auth,
                validate,
                redirect,
                respond,
                rewrite,
                headers,
                compress,
                timeout,
                retry,
                hedge,
                fallback,
            } = over.clone();
            layered = Self {
                access: access.or(layered.access),
                rate_limit: rate_limit.or(layered.rate_limit),
                cors: cors.or(layered.cors),
                auth: auth.or(layered.auth),
                validate: validate.or(layered.validate),
                redirect: redirect.or(layered.redirect),
                respond: respond.or(layered.respond),
                rewrite: rewrite.or(layered.rewrite),
                headers: headers.or(layered.headers),
                compress: compress.or(layered.compress),
                timeout: timeout.or(layered.timeout),
                retry: retry.or(layered.retry),
                hedge: hedge.or(layered.hedge),
                fallback: fallback.or(layered.fallback),
            };
        }
        layered
    }
}

/// A compiled policy and the setting that caused it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot<T> {
    /// The policy.
    pub policy: T,
    /// `file:line:column`, or the built-in default.
    pub origin: Origin,
}

/// The compiled policies of a route.
#[derive(Debug)]
pub struct Policies {
    /// [`access`]
    pub access: Option<Slot<access::Access>>,
    /// [`rate_limit`]
    pub rate_limit: Option<Slot<rate_limit::RateLimit>>,
    /// [`cors`]
    pub cors: Option<Slot<cors::Cors>>,
    /// [`auth`]
    pub auth: Option<Slot<auth::Auth>>,
    /// [`validate`]; `None` only when the route lifts the limit.
    pub validate: Option<Slot<validate::Validate>>,
    /// [`redirect`]
    pub redirect: Option<Slot<redirect::Redirect>>,
    /// [`respond`]
    pub respond: Option<Slot<respond::Respond>>,
    /// [`rewrite`]
    pub rewrite: Option<Slot<rewrite::Rewrite>>,
    /// [`headers`]
    pub headers: Option<Slot<headers::Headers>>,
    /// [`compress`]
    pub compress: Option<Slot<compress::Compress>>,
    /// [`timeout`]: there is no route without limits.
    pub timeout: Slot<timeout::Timeout>,
    /// [`retry`]; `None` only when the route switches it off.
    pub retry: Option<Slot<retry::Retry>>,
    /// [`hedge`]
    pub hedge: Option<Slot<hedge::Hedge>>,
    /// [`fallback`]
    pub fallback: Option<Slot<fallback::Fallback>>,
}

/// What the policies of a route are compiled with, beside their settings.
pub struct Surroundings<'a, 'l, 'c> {
    /// The route's name.
    pub route: &'a RouteName,
    /// What it may name.
    pub names: &'a dyn Names,
    /// The texts that the settings were read from.
    pub sources: &'a Sources,
    /// The rate limits of the whole snapshot.
    pub limits: &'a mut rate_limit::LedgerBuilder<'l>,
    /// What `auth` needs to know of consumers, keys and services.
    pub identity: &'a mut auth::Context<'c>,
    /// Descriptions of APIs, and schemas.
    pub references: &'a validate::References<'a>,
}

impl Policies {
    /// Compiles what [`RoutePolicies::layer`] came to. All policies are compiled, so that all mistakes are reported.
    pub fn compile(
        config: &RoutePolicies,
        around: Surroundings<'_, '_, '_>,
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        let Surroundings { route, names, sources, limits, identity, references } = around;
        let RoutePolicies {
            access,
            rate_limit,
            cors,
            auth,
            validate,
            redirect,
            respond,
            rewrite,
            headers,
            compress,
            timeout,
            retry,
            hedge,
            fallback,
        } = config;
        let errors = diagnostics.errors();
        refuse_two_answers(redirect.as_ref(), respond.as_ref(), diagnostics);
        let mut compiler = Compiler { sources, diagnostics };
        let access = compiler.slot(access.as_ref(), access::compile);
        let rate_limit =
            compiler.slot(rate_limit.as_ref(), |config, diagnostics| limits.compile(config, route, diagnostics));
        let cors = compiler.slot(cors.as_ref(), |config, diagnostics| cors::compile(config, diagnostics));
        let auth = compiler.slot(auth.as_ref(), |config, diagnostics| auth::compile(config, identity, diagnostics));
        let validate = match validate {
            Some(written) => {
                compiler.slot(Some(written), |config, diagnostics| validate::compile(config, references, diagnostics))
            }
            None => compiler.built_in(|config, diagnostics| validate::compile(config, references, diagnostics)),
        };
        let redirect = compiler.slot(redirect.as_ref(), redirect::compile);
        let respond = compiler.slot(respond.as_ref(), |config, diagnostics| respond::compile(config, diagnostics));
        let rewrite = compiler.slot(rewrite.as_ref(), rewrite::compile);
        let headers = compiler.slot(headers.as_ref(), headers::compile);
        let compress = compress.as_ref().and_then(|written| {
            let config = Spanned::new(written.resolved()?, written.span);
            compiler.set(&config, |config, diagnostics| compress::compile(config, diagnostics))
        });
        let is_set = timeout.as_ref().filter(|written| written.as_set().is_some());
        let timeout = match is_set {
            Some(written) => compiler.slot(Some(written), |config, diagnostics| timeout::compile(config, diagnostics)),
            None => compiler.built_in(timeout::compile),
        }?;
        let retry = match retry {
            Some(written) => compiler.slot(Some(written), |config, diagnostics| retry::compile(config, diagnostics)),
            None => compiler.built_in(retry::compile),
        };
        let hedge = compiler.slot(hedge.as_ref(), |config, diagnostics| hedge::compile(config, diagnostics));
        if let (Some(written), Some(_), None) = (&config.hedge, &hedge, &retry) {
            let message = "a hedge is paid out of `retry.budget`, and `retry` is off";
            compiler.diagnostics.push(Diagnostic::error("dead_setting", written.span, message));
        }
        if let (Some(written), Some(slot), None) = (&config.retry, &retry, &hedge)
            && slot.policy.conditions().next().is_none()
        {
            let message = "`retry.on` is empty, so nothing is made again";
            let help = "write `retry = false`; an empty list is for a route with a `hedge`, which needs the budget";
            compiler.diagnostics.push(Diagnostic::error("dead_setting", written.span, message).help(help));
        }
        if let (Some(written), Some(limits), None) = (&config.rate_limit, &rate_limit, &auth)
            && let Some(name) = limits.policy.about_callers()
        {
            let message =
                format!("the limit {name:?} is about callers, and nobody says who calls: the route has no `auth`");
            let help = "add `auth`, or use a key such as \"client.ip\"";
            compiler.diagnostics.push(Diagnostic::error("dead_setting", written.span, message).help(help));
        }
        let fallback =
            compiler.slot(fallback.as_ref(), |config, diagnostics| fallback::compile(config, names, diagnostics));
        let policies = Self {
            access,
            rate_limit,
            cors,
            auth,
            validate,
            redirect,
            respond,
            rewrite,
            headers,
            compress,
            timeout,
            retry,
            hedge,
            fallback,
        };
        (diagnostics.errors() == errors).then_some(policies)
    }

    /// The policy that answers instead of an upstream, if there is one. A redirect does not answer a request that is
    /// already where it points, so a route may have one and an upstream.
    #[must_use]
    pub fn answers(&self) -> Option<&'static str> {
        let name = match (&self.redirect, &self.respond) {
            (Some(_), _) => PolicyName::Redirect,
            (None, Some(_)) => PolicyName::Respond,
            (None, None) => return None,
        };
        Some(name.as_str())
    }

    /// The policy that replaces the prefix that the route matched, if there is one: such a route must not match by a
    /// regular expression.
    #[must_use]
    pub fn needs_prefix(&self) -> Option<(PolicyName, &Origin)> {
        let redirect = self.redirect.as_ref().filter(|slot| slot.policy.needs_prefix());
        let rewrite = self.rewrite.as_ref().filter(|slot| slot.policy.needs_prefix());
        let redirect = redirect.map(|slot| (PolicyName::Redirect, &slot.origin));
        redirect.or(rewrite.map(|slot| (PolicyName::Rewrite, &slot.origin)))
    }

    /// The policies that the route has, in the order of the table, each with the setting that caused it.
    pub fn origins(&self) -> impl Iterator<Item = (PolicyName, &Origin)> {
        let Self {
            access,
            rate_limit,
            cors,
            auth,
            validate,
            redirect,
            respond,
            rewrite,
            headers,
            compress,
            timeout,
            retry,
            hedge,
            fallback,
        } = self;
        [
            (PolicyName::Access, access.as_ref().map(|slot| &slot.origin)),
            (PolicyName::RateLimit, rate_limit.as_ref().map(|slot| &slot.origin)),
            (PolicyName::Cors, cors.as_ref().map(|slot| &slot.origin)),
            (PolicyName::Auth, auth.as_ref().map(|slot| &slot.origin)),
            (PolicyName::Validate, validate.as_ref().map(|slot| &slot.origin)),
            (PolicyName::Redirect, redirect.as_ref().map(|slot| &slot.origin)),
            (PolicyName::Respond, respond.as_ref().map(|slot| &slot.origin)),
            (PolicyName::Rewrite, rewrite.as_ref().map(|slot| &slot.origin)),
            (PolicyName::Headers, headers.as_ref().map(|slot| &slot.origin)),
            (PolicyName::Compress, compress.as_ref().map(|slot| &slot.origin)),
            (PolicyName::Timeout, Some(&timeout.origin)),
            (PolicyName::Retry, retry.as_ref().map(|slot| &slot.origin)),
            (PolicyName::Hedge, hedge.as_ref().map(|slot| &slot.origin)),
            (PolicyName::Fallback, fallback.as_ref().map(|slot| &slot.origin)),
        ]
        .into_iter()
        .filter_map(|(name, origin)| origin.map(|origin| (name, origin)))
    }
}

struct Compiler<'a> {
    sources: &'a Sources,
    diagnostics: &'a mut Diagnostics,
}

impl Compiler<'_> {
    fn slot<C: Clone, T>(
        &mut self,
        written: Option<&Spanned<OrOff<C>>>,
        compile: impl FnOnce(&Spanned<C>, &mut Diagnostics) -> Option<T>,
    ) -> Option<Slot<T>> {
        let written = written?;
        let config = Spanned::new(written.as_set()?.clone(), written.span);
        self.set(&config, compile)
    }

    fn set<C, T>(
        &mut self,
        config: &Spanned<C>,
        compile: impl FnOnce(&Spanned<C>, &mut Diagnostics) -> Option<T>,
    ) -> Option<Slot<T>> {
        let policy = compile(config, self.diagnostics)?;
        Some(Slot { policy, origin: self.sources.origin(config.span) })
    }

    /// What holds when nobody says anything.
    fn built_in<C: Default, T>(&mut self, compile: impl FnOnce(&C, &mut Diagnostics) -> Option<T>) -> Option<Slot<T>> {
        let policy = compile(&C::default(), self.diagnostics)?;
        Some(Slot { policy, origin: Origin::default() })
    }
}

fn refuse_two_answers(
    redirect: Option<&Spanned<OrOff<redirect::Config>>>,
    respond: Option<&Spanned<OrOff<respond::Config>>>,
    diagnostics: &mut Diagnostics,
) {
    let place = |is_set: bool, span: SourceSpan| is_set.then_some(span);
    let redirect = redirect.and_then(|written| place(written.as_set().is_some(), written.span));
    let respond = respond.and_then(|written| place(written.as_set().is_some(), written.span));
    if let (Some(redirect), Some(respond)) = (redirect, respond) {
        diagnostics.push(
            Diagnostic::error("conflict", respond, "`respond` and `redirect` both answer instead of an upstream")
                .related(redirect, "the redirect")
                .help("keep one of them; an inherited one is switched off by `respond = false` or `redirect = false`"),
        );
    }
}

#[cfg(test)]
mod tests;
