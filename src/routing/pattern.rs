//! What hosts and paths a route asks for, compiled from what the operator wrote.
//!
//! Decides which patterns are sound: a pattern that no canonical request could ever match is refused, with the
//! spelling that was probably meant. It matches nothing itself; that is the work of the router's trees.

use std::fmt;
use std::net::Ipv6Addr;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};

use super::authority::{self, AuthorityRefusal};
use super::path;
use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::source::Spanned;

/// A host pattern. The order of the variants is the order of precedence.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum HostPattern {
    /// This very host.
    Exact(Arc<str>),
    /// One or more labels before this suffix, as in Gateway API; never the suffix itself.
    Wildcard(Arc<str>),
    /// Every host.
    Any,
}

/// A path pattern. The order of the variants is the order of precedence.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum PathPattern {
    /// This very path.
    Exact(Arc<str>),
    /// This path and everything below it: the text before `/*`.
    Prefix(Arc<str>),
    /// Everything that this expression matches as a whole.
    Regex(Arc<str>),
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Wildcard(suffix) => write!(f, "*.{suffix}"),
            Self::Any => f.write_str("*"),
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => f.write_str(path),
            Self::Prefix(prefix) => write!(f, "{prefix}/*"),
            Self::Regex(expression) => f.write_str(expression),
        }
    }
}

/// A finding about one value, waiting for its place.
struct Flaw {
    message: String,
    help: Option<String>,
}

impl Flaw {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

fn accept<T, V>(written: &Spanned<V>, parsed: Result<T, Flaw>, diagnostics: &mut Diagnostics) -> Option<T> {
    parsed
        .map_err(|flaw| {
            let mut diagnostic = Diagnostic::error("bad_value", written.span, flaw.message);
            diagnostic.help = flaw.help;
            diagnostics.push(diagnostic);
        })
        .ok()
}

impl HostPattern {
    /// Reads a host, a wildcard or `*`; pushes what is wrong with it.
    pub(super) fn compile(written: &Spanned<&str>, diagnostics: &mut Diagnostics) -> Option<Self> {
        accept(written, Self::parse(written.value), diagnostics)
    }

    fn parse(written: &str) -> Result<Self, Flaw> {
        if written == "*" {
            return Ok(Self::Any);
        }
        let (stars, name) = written.strip_prefix("*.").map_or(("", written), |suffix| ("*.", suffix));
        if name.contains('*') {
            return Err(Flaw::new(format!("`*` stands only for whole labels at the start of a host: {written:?}"))
                .help("write \"*.example.com\" for every host below example.com, or \"*\" for any host"));
        }
        if name.contains('/') {
            return Err(Flaw::new(format!("a host has no scheme and no path: {written:?}"))
                .help("write the host alone, as in \"api.example.com\", and the rest as `path`"));
        }
        let authority = authority::parse(name.as_bytes()).map_err(|refusal| host_flaw(refusal, name, written))?;
        let host = authority.host;
        if authority.port.is_some() || name.ends_with(':') {
            return Err(Flaw::new(format!("hosts are matched without their port: {written:?}"))
                .help(format!("write \"{stars}{host}\"; which port is served is the listener's setting")));
        }
        if host != name {
            return Err(Flaw::new(format!("not in the form in which hosts are matched: {written:?}"))
                .help(format!("write \"{stars}{host}\"")));
        }
        let host: Arc<str> = Arc::from(host.as_ref());
        if stars.is_empty() {
            return Ok(Self::Exact(host));
        }
        if is_address(&host) {
            return Err(Flaw::new(format!("an IP address has no labels for `*` to stand for: {written:?}")));
        }
        Ok(Self::Wildcard(host))
    }
}

fn host_flaw(refusal: AuthorityRefusal, name: &str, written: &str) -> Flaw {
    let flaw = Flaw::new(format!("{}: {written:?}", refusal.as_str()));
    if !name.is_ascii() {
        return flaw.help("write the ASCII form of the name, whose labels begin with `xn--`");
    }
    if name.parse::<Ipv6Addr>().is_ok() {
        return Flaw::new(format!("an IPv6 address stands in brackets: {written:?}"))
            .help(format!("write \"[{name}]\""));
    }
    flaw
}

fn is_address(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or(host);
    host.starts_with('[') || last.bytes().all(|byte| byte.is_ascii_digit())
}

impl PathPattern {
    /// Every path.
    pub(super) fn any() -> Self {
        Self::Prefix(Arc::from(""))
    }

    /// Reads an exact path or a prefix; pushes what is wrong with it.
    pub(super) fn compile(written: &Spanned<&str>, diagnostics: &mut Diagnostics) -> Option<Self> {
        accept(written, Self::parse(written.value), diagnostics)
    }

    /// Reads an expression for the whole path; pushes what is wrong with it.
    pub(super) fn compile_regex(written: &Spanned<String>, diagnostics: &mut Diagnostics) -> Option<Self> {
        whole(written, diagnostics)?;
        let first = written.value.trim_start_matches('^').chars().next();
        if first.is_some_and(|first| first.is_ascii_alphanumeric()) {
            let message = format!("paths begin with `/`, so this expression matches none: {:?}", written.value);
            diagnostics.push(Diagnostic::warning("dead_pattern", written.span, message));
        }
        Some(Self::Regex(Arc::from(written.value.as_str())))
    }

    fn parse(written: &str) -> Result<Self, Flaw> {
        if !written.starts_with('/') {
            return Err(Flaw::new(format!("a path begins with `/`: {written:?}")).help(format!("write \"/{written}\"")));
        }
        let prefix = written.strip_suffix("/*");
        let literal = prefix.unwrap_or(written);
        if literal.contains('*') {
            return Err(Flaw::new(format!("`*` stands only at the end of a path, as `/*`: {written:?}"))
                .help("a prefix takes whole segments, as in \"/orders/*\"; for anything else there is `path_regex`"));
        }
        if literal.contains(['{', '}']) {
            return Err(Flaw::new(format!("path templates are not known here: {written:?}"))
                .help("write a prefix, as in \"/orders/*\", or `path_regex = \"/orders/[^/]+\"`"));
        }
        if literal.contains('?') {
            return Err(Flaw::new(format!("a path has no query: {written:?}"))
                .help("write conditions on the query as `query = { name = \"value\" }`"));
        }
        let canonical = path::canonical(literal.as_bytes())
            .map_err(|refusal| Flaw::new(format!("{}: {written:?}", refusal.as_str())))?;
        if let Some(evasion) = canonical.evasion {
            return Err(Flaw::new(format!("{}: {written:?}", evasion.as_str())).help(
                "on a route with `raw_path = true`, match such paths by a prefix above them or by `path_regex`",
            ));
        }
        if !literal.is_empty() && canonical.path != literal {
            let tail = prefix.map_or("", |_| "/*");
            return Err(Flaw::new(format!("not in the form in which paths are matched: {written:?}"))
                .help(format!("write \"{}{tail}\"", canonical.path)));
        }
        let literal = Arc::from(literal);
        Ok(if prefix.is_some() { Self::Prefix(literal) } else { Self::Exact(literal) })
    }
}

/// How large one compiled expression may be, in bytes.
pub(super) const MAX_REGEX: usize = 1 << 20;

/// `expression`, made to match whole texts only.
pub(super) fn anchored(expression: &str) -> String {
    format!(r"\A(?:{expression})\z")
}

/// Compiles an expression for whole texts; pushes what is wrong with it.
pub(super) fn whole(written: &Spanned<String>, diagnostics: &mut Diagnostics) -> Option<Regex> {
    let build = |expression: &str| RegexBuilder::new(expression).size_limit(MAX_REGEX).build();
    // alone first: anchoring would turn `a)(b` into an expression, and shift the position in the message
    let compiled = build(&written.value).and_then(|_| build(&anchored(&written.value)));
    accept(written, compiled.map_err(|error| regex_flaw(&error, &written.value)), diagnostics)
}

fn regex_flaw(error: &regex::Error, written: &str) -> Flaw {
    match error {
        regex::Error::CompiledTooBig(_) => Flaw::new(format!("the expression is too large when compiled: {written:?}"))
            .help("shorten its bounded repetitions, or write `(?-u:\\w)` for ASCII letters alone"),
        other => {
            let text = other.to_string();
            let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            Flaw::new(format!("not a regular expression, {reason}: {written:?}"))
        }
    }
}
