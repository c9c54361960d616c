//! Sends the client elsewhere, instead of to an upstream.
//!
//! Decides the `Location` from the request's own URL and the parts that the configuration replaces. It is relative
//! (`/new?q=1`) as long as neither scheme nor host nor port changes, so that it is right behind any number of proxies,
//! and absolute otherwise. Its path begins with exactly one `/` and holds no byte that has no place in a path, so
//! neither `//evil.example` nor `/\evil.example` nor a line break in a request becomes a way out of the site. A request
//! that is already where it would be sent is not sent there again. Never looks at the body or the fields.

use std::fmt::Write as _;

use http::header::{HeaderMap, LOCATION};
use http::uri::Authority;
use http::{HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::to::To;
use crate::model::answer::Answer;
use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::request::{RequestView, Scheme};
use crate::model::source::{SourceSpan, Spanned};
use crate::model::target;

mod to;

/// `redirect`: sends the client elsewhere, instead of to an upstream. Either `to`, or any of the other parts; a part that
/// is not given stays as the client wrote it. A request that is already there goes on to the route's upstream, so
/// `redirect = { scheme = "https" }` may stand in `[defaults]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// The whole target, such as `"https://www.example.com{path}{query}"` or `"/new{query}"`. Placeholders: `{scheme}`,
    /// `{host}` (without port), `{port}`, `{path}`, `{query}` (with its `?`, or nothing).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Spanned<String>>,
    /// 301 or 308 for good, 302 or 307 for now, 303 for a `GET` of another resource. A client may turn the request into
    /// a `GET` on 301 and 302, but not on 307 and 308. Default: 308.
    #[schemars(extend("enum" = [301, 302, 303, 307, 308]))]
    pub status: Spanned<u16>,
    /// `"http"` or `"https"`; the port becomes the scheme's own unless `port` says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Spanned<String>>,
    /// The host, without a port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Spanned<String>>,
    /// The port; the scheme's own is left out of the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<Spanned<u16>>,
    /// Replaces the whole path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Spanned<String>>,
    /// Replaces the prefix that the route matched, on whole segments, as in `rewrite`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<Spanned<String>>,
    /// Replaces the query; `""` drops it. Default: kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<Spanned<String>>,
}

const DEFAULT_STATUS: u16 = 308;

impl Default for Config {
    fn default() -> Self {
        Self {
            to: None,
            status: DEFAULT_STATUS.into(),
            scheme: None,
            host: None,
            port: None,
            path: None,
            path_prefix: None,
            query: None,
        }
    }
}

/// The compiled redirect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    status: StatusCode,
    target: Target,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    To(To),
    Parts(Parts),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Parts {
    scheme: Option<Scheme>,
    host: Option<Box<str>>,
    port: Option<u16>,
    path: Option<PathPart>,
    query: Option<Box<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum PathPart {
    Whole(Box<str>),
    Prefix(Box<str>),
}

/// Reads the settings.
pub fn compile(config: &Spanned<Config>, diagnostics: &mut Diagnostics) -> Option<Redirect> {
    let errors = diagnostics.errors();
    let status = match *config.status {
        301 => StatusCode::MOVED_PERMANENTLY,
        302 => StatusCode::FOUND,
        303 => StatusCode::SEE_OTHER,
        307 => StatusCode::TEMPORARY_REDIRECT,
        308 => StatusCode::PERMANENT_REDIRECT,
        other => {
            let message = format!("not the status of a redirect: {other}");
            let error = Diagnostic::error("bad_value", config.status.span, message);
            diagnostics.push(error.help("write 301, 302, 303, 307 or 308"));
            StatusCode::PERMANENT_REDIRECT
        }
    };
    refuse_conflicts(config, diagnostics);
    let target = match &config.to {
        Some(to) => To::compile(to, diagnostics).map(Target::To),
        None => Some(Target::Parts(compile_parts(config, diagnostics))),
    };
    target.filter(|_| diagnostics.errors() == errors).map(|target| Redirect { status, target })
}

fn refuse_conflicts(config: &Spanned<Config>, diagnostics: &mut Diagnostics) {
    let Config { to, status: _, scheme, host, port, path, path_prefix, query } = &config.value;
    let place = |written: &Option<Spanned<String>>| written.as_ref().map(|written| written.span);
    let parts: [(&str, Option<SourceSpan>); 6] = [
        ("scheme", place(scheme)),
        ("host", place(host)),
        ("port", port.map(|port| port.span)),
        ("path", place(path)),
        ("path_prefix", place(path_prefix)),
        ("query", place(query)),
    ];
    let mut given = parts.iter().filter_map(|(name, span)| span.map(|span| (*name, span)));
    if let Some(to) = to {
        for (name, span) in given {
            diagnostics.push(
                Diagnostic::error("conflict", span, format!("`{name}` beside `to`, which is the whole target"))
                    .related(to.span, "the whole target")
                    .help("write it into `to`, or leave `to` out"),
            );
        }
    } else if given.next().is_none() {
        diagnostics.push(
            Diagnostic::error("missing_key", config.span, "a redirect to the same place")
                .help("give `to`, or at least one of `scheme`, `host`, `port`, `path`, `path_prefix` and `query`"),
        );
    }
    if let (Some(path), Some(prefix)) = (path, path_prefix) {
        diagnostics.push(
            Diagnostic::error("conflict", prefix.span, "`path_prefix` and `path` both replace the path")
                .related(path.span, "the other one")
                .help("keep one of them"),
        );
    }
}

fn compile_parts(config: &Config, diagnostics: &mut Diagnostics) -> Parts {
    let mut refuse = |written: &Spanned<String>, what: &str, help: String| {
        let message = format!("not a {what}: {:?}", written.value);
        diagnostics.push(Diagnostic::error("bad_value", written.span, message).help(help));
    };
    let mut parts = Parts { port: config.port.map(|port| port.value), ..Parts::default() };
    match config.scheme.as_ref().map(|written| (written, written.as_str())) {
        None => {}
        Some((_, "http")) => parts.scheme = Some(Scheme::Http),
        Some((_, "https")) => parts.scheme = Some(Scheme::Https),
        Some((written, _)) => refuse(written, "scheme", "write \"http\" or \"https\"".to_owned()),
    }
    if let Some(written) = &config.host {
        if is_host(written) {
            parts.host = Some(written.to_ascii_lowercase().into());
        } else {
            refuse(written, "host", "write a name such as \"www.example.com\"; a port has a key of its own".to_owned());
        }
    }
    for (written, is_prefix) in [(&config.path, false), (&config.path_prefix, true)] {
        let Some(written) = written else { continue };
        let mut clean = String::new();
        target::push_path(&mut clean, written);
        if clean != written.value {
            let help = if clean.contains("%3F") {
                "the query has a key of its own".to_owned()
            } else {
                format!("write {clean:?}")
            };
            refuse(written, "path", help);
        }
        let path = clean.into_boxed_str();
        parts.path = Some(if is_prefix { PathPart::Prefix(path) } else { PathPart::Whole(path) });
    }
    if let Some(written) = &config.query {
        let mut clean = String::new();
        target::push_query(&mut clean, written);
        if clean != written.value {
            refuse(written, "query", format!("percent-encode it: {clean:?}"));
        } else if clean.starts_with('?') {
            refuse(written, "query", "leave the `?` out".to_owned());
        }
        parts.query = Some(clean.into());
    }
    if let Some(port) = config.port.filter(|port| port.value == 0) {
        diagnostics.push(Diagnostic::error("bad_value", port.span, "a port is a number from 1 to 65535: 0"));
    }
    parts
}

/// A host name or address without a port.
fn is_host(written: &str) -> bool {
    let authority = written.parse::<Authority>().ok();
    authority.is_some_and(|authority| !authority.host().is_empty() && authority.host() == written)
}

impl Redirect {
    /// The redirect for this request; `None` when the request is already there. `matched` is the length of the prefix of
    /// the path that the route matched.
    #[must_use]
    pub fn decide(&self, request: &RequestView<'_>, matched: usize) -> Option<Answer> {
        let location = match &self.target {
            Target::To(to) => to.location(request),
            Target::Parts(parts) => parts.location(request, matched),
        }?;
        let mut headers = HeaderMap::with_capacity(1);
        // `location` is visible ASCII by construction
        headers.insert(LOCATION, HeaderValue::try_from(location).ok()?);
        Some(Answer { status: self.status, headers, ..Answer::default() })
    }

    /// Whether the route has to match a prefix or an exact path: a regular expression matches no prefix to replace.
    #[must_use]
    pub const fn needs_prefix(&self) -> bool {
        matches!(&self.target, Target::Parts(Parts { path: Some(PathPart::Prefix(_)), .. }))
    }
}

impl Parts {
    fn location(&self, request: &RequestView<'_>, matched: usize) -> Option<String> {
        let scheme = self.scheme.unwrap_or(request.scheme);
        let host = self.host.as_deref().unwrap_or(request.host);
        let kept_port = request.port.filter(|_| self.scheme.is_none_or(|scheme| scheme == request.scheme));
        let port = self.port.or(kept_port).unwrap_or(scheme.default_port());
        let mut path = String::new();
        match &self.path {
            None => target::push_path(&mut path, request.path),
            Some(PathPart::Whole(whole)) => path.push_str(whole),
            Some(PathPart::Prefix(prefix)) => path = target::replace_prefix(request.path, matched, prefix),
        }
        let query = self.query.as_deref().map_or(request.query, |query| Some(query).filter(|query| !query.is_empty()));
        let is_here = scheme == request.scheme
            && host == request.host
            && port == request.port.unwrap_or(request.scheme.default_port())
            && path == request.path
            && query == request.query;
        if is_here {
            return None;
        }
        let mut location = String::with_capacity(path.len() + host.len() + query.map_or(0, str::len) + 16);
        if self.scheme.is_some() || self.host.is_some() || self.port.is_some() {
            push_origin(&mut location, scheme, host, port);
        }
        location.push_str(&path);
        if let Some(query) = query {
            location.push('?');
            target::push_query(&mut location, query);
        }
        Some(location)
    }
}

fn push_origin(location: &mut String, scheme: Scheme, host: &str, port: u16) {
    location.push_str(scheme.as_str());
    location.push_str("://");
    location.push_str(host);
    if port != scheme.default_port() {
        // writing into a string can't fail
        let _ = write!(location, ":{port}");
    }
}

#[cfg(test)]
mod tests;
