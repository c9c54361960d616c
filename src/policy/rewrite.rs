//! What path and host an upstream sees instead of the client's.
//!
//! Decides from the canonical path and the prefix that the route matched; the query always stays. What it yields is a
//! valid origin form without a dot segment, whatever a regular expression put together. Never touches the fields that
//! tell the upstream of the client's own host (`X-Forwarded-Host`).

use std::borrow::Cow;

use http::HeaderValue;
use http::uri::Authority;
use regex::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::replacement::Replacement;
use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::source::Spanned;
use crate::model::target;
use crate::model::verdict::{Code, Rejection};

mod replacement;

/// `rewrite`: what path and host the upstream sees. At most one of `path`, `path_prefix` and `path_regex`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// Replaces the prefix that the route matched, on whole segments: with `match = "/orders/*"`, `"/v2"` makes
    /// `/v2/7` of `/orders/7`, and `"/"` strips the prefix. On a route with an exact path it replaces all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<Spanned<String>>,
    /// Replaces the whole path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Spanned<String>>,
    /// Replaces the whole path by groups of a regular expression. A path that does not match stays as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_regex: Option<PathRegex>,
    /// The host, with a port if need be, that the upstream sees in `Host` or `:authority`. Default: the client's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Spanned<String>>,
}

/// A regular expression over the whole path, and what replaces it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PathRegex {
    /// The expression, anchored at both ends; the syntax is that of Rust's `regex` crate, which matches in linear time
    /// (no look-around, no back-references).
    pub regex: Spanned<String>,
    /// The new path: `$1` or `$name` stands for a group, `${1}` where a letter, digit or `_` follows, `$$` for a dollar
    /// sign.
    pub replacement: Spanned<String>,
}

/// The compiled policy.
#[derive(Debug, Clone)]
pub struct Rewrite {
    path: Option<PathRewrite>,
    host: Option<HeaderValue>,
}

#[derive(Debug, Clone)]
enum PathRewrite {
    Prefix(Box<str>),
    Whole(Box<str>),
    Regex(Regex, Replacement),
}

/// Memory that one compiled expression may take.
const REGEX_SIZE_LIMIT: usize = 1 << 20;

/// Reads the settings.
pub fn compile(config: &Spanned<Config>, diagnostics: &mut Diagnostics) -> Option<Rewrite> {
    let Config { path_prefix, path, path_regex, host } = &config.value;
    let errors = diagnostics.errors();
    let mut paths = Vec::new();
    if let Some(prefix) = path_prefix {
        paths.push(("path_prefix", prefix.span));
    }
    if let Some(path) = path {
        paths.push(("path", path.span));
    }
    if let Some(regex) = path_regex {
        paths.push(("path_regex", regex.regex.span));
    }
    if let [(first, at), (second, again), ..] = *paths {
        diagnostics.push(
            Diagnostic::error("conflict", again, format!("`{second}` and `{first}` both rewrite the path"))
                .related(at, "the other one")
                .help("keep one of them"),
        );
    }
    if paths.is_empty() && host.is_none() {
        diagnostics.push(Diagnostic::error("missing_key", config.span, "a rewrite that changes nothing").help(
            "give `path_prefix`, `path`, `path_regex` or `host`; `rewrite = false` switches an inherited one off",
        ));
    }
    let prefix = path_prefix.as_ref().and_then(|written| compile_path(written, diagnostics)).map(PathRewrite::Prefix);
    let whole = path.as_ref().and_then(|written| compile_path(written, diagnostics)).map(PathRewrite::Whole);
    let regex = path_regex.as_ref().and_then(|written| compile_regex(written, diagnostics));
    let host = host.as_ref().and_then(|written| compile_host(written, diagnostics));
    (diagnostics.errors() == errors).then_some(Rewrite { path: prefix.or(whole).or(regex), host })
}

fn compile_path(written: &Spanned<String>, diagnostics: &mut Diagnostics) -> Option<Box<str>> {
    let mut clean = String::new();
    target::push_path(&mut clean, written);
    let help = if !written.starts_with('/') {
        "a path begins with `/`"
    } else if target::has_dot_segment(written) {
        "write it without `.` and `..` segments"
    } else if written.contains('?') {
        "the query of the request is kept: write the path alone"
    } else if clean != written.value {
        diagnostics.push(
            Diagnostic::error("bad_value", written.span, format!("not a path: {:?}", written.value))
                .help(format!("percent-encode it: {clean:?}")),
        );
        return None;
    } else {
        return Some(clean.into());
    };
    diagnostics
        .push(Diagnostic::error("bad_value", written.span, format!("not a path: {:?}", written.value)).help(help));
    None
}

fn compile_regex(written: &PathRegex, diagnostics: &mut Diagnostics) -> Option<PathRewrite> {
    let anchored = format!("^(?:{})$", written.regex.value);
    let regex = match RegexBuilder::new(&anchored).size_limit(REGEX_SIZE_LIMIT).build() {
        Ok(regex) => regex,
        Err(error) => {
            diagnostics.push(Diagnostic::error("bad_value", written.regex.span, regex_message(&written.regex, &error)));
            return None;
        }
    };
    let replacement = Replacement::compile(&written.replacement, &regex, diagnostics)?;
    Some(PathRewrite::Regex(regex, replacement))
}

/// The crate's messages draw the expression over several lines and close with the reason.
fn regex_message(written: &str, error: &regex::Error) -> String {
    let told = error.to_string();
    let reason = told.lines().last().unwrap_or_default().trim_start_matches("error: ").to_lowercase();
    format!("not a regular expression, {reason}: {written:?}")
}

fn compile_host(written: &Spanned<String>, diagnostics: &mut Diagnostics) -> Option<HeaderValue> {
    let authority = written.parse::<Authority>().ok();
    let authority = authority.filter(|authority| !authority.host().is_empty() && !authority.as_str().contains('@'));
    let value = authority.and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if value.is_none() {
        diagnostics.push(
            Diagnostic::error("bad_value", written.span, format!("not a host: {:?}", written.value))
                .help("write \"orders.internal\" or \"orders.internal:8080\", without a scheme"),
        );
    }
    value
}

impl Rewrite {
    /// The path for the upstream; borrowed when it stays as it is. `matched` is the length of the prefix of `path` that
    /// the route matched. Refuses a result that would climb by a `..` segment.
    pub fn path<'p>(&'p self, path: &'p str, matched: usize) -> Result<Cow<'p, str>, Rejection> {
        match &self.path {
            None => Ok(Cow::Borrowed(path)),
            Some(PathRewrite::Whole(whole)) => Ok(Cow::Borrowed(whole)),
            Some(PathRewrite::Prefix(prefix)) => Ok(Cow::Owned(target::replace_prefix(path, matched, prefix))),
            Some(PathRewrite::Regex(regex, replacement)) => {
                let Some(groups) = regex.captures(path) else { return Ok(Cow::Borrowed(path)) };
                let replaced = replacement.expand(&groups);
                if target::has_dot_segment(&replaced) {
                    return Err(Rejection::new(Code::BadRequest, "the rewritten path has a dot segment"));
                }
                Ok(Cow::Owned(replaced))
            }
        }
    }

    /// The host for the upstream, when it is not the client's.
    #[must_use]
    pub const fn host(&self) -> Option<&HeaderValue> {
        self.host.as_ref()
    }

    /// Whether the route has to match a prefix or an exact path: a regular expression matches no prefix to replace.
    #[must_use]
    pub const fn needs_prefix(&self) -> bool {
        matches!(self.path, Some(PathRewrite::Prefix(_)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "the keys are optional, the tests give them")]
    fn text(written: &str) -> Option<Spanned<String>> {
        Some(written.to_owned().into())
    }

    fn by_regex(regex: &str, replacement: &str) -> Config {
        let path_regex = PathRegex { regex: regex.to_owned().into(), replacement: replacement.to_owned().into() };
        Config { path_regex: Some(path_regex), ..Config::default() }
    }

    fn prefix(written: &str) -> Config {
        Config { path_prefix: text(written), ..Config::default() }
    }

    fn whole(written: &str) -> Config {
        Config { path: text(written), ..Config::default() }
    }

    #[track_caller]
    fn check(config: Config, path: &str, matched: &str, rewritten: Option<&str>) {
        let rewrite = compile(&config.into(), &mut Diagnostics::default()).expect("valid settings");
        assert_eq!(rewrite.path(path, matched.len()).ok().as_deref(), rewritten);
    }

    #[test]
    fn replaces_the_matched_prefix_or_the_whole_path() {
        check(prefix("/v2/orders"), "/orders/7", "/orders", Some("/v2/orders/7"));
        check(prefix("/"), "/orders/7", "/orders", Some("/7"));
        check(prefix("/"), "/orders", "/orders", Some("/"));
        check(prefix("/"), "/orders//evil.example", "/orders", Some("/evil.example"));
        check(prefix("/v2"), "/orders", "/orders", Some("/v2"));
        check(whole("/fixed"), "/orders/7", "/orders", Some("/fixed"));
    }

    #[test]
    fn replaces_by_groups_of_an_expression() {
        check(by_regex("/users/(?<id>[0-9]+)/(.*)", "/u/$2/$id"), "/users/7/a/b", "", Some("/u/a/b/7"));
        check(by_regex("/users/([0-9]+)", "/u${1}x/$$"), "/users/7", "", Some("/u7x/$"));
        check(by_regex("/users", "/u"), "/users/7", "", Some("/users/7"));
        check(by_regex("/a|/b", "/c"), "/b", "", Some("/c"));
        check(by_regex("/(.*)", "$1"), "/", "", Some("/"));
        check(by_regex("/(.*)", "//$1"), "/evil.example", "", Some("/evil.example"));
        check(by_regex("/x(.*)", "/y$1"), "/x%41", "", Some("/y%41"));
    }

    #[test]
    fn a_path_that_would_climb_is_refused() {
        check(by_regex("/p/a(.*)", "/q/$1"), "/p/a../secret", "", None);
        check(by_regex("/p/a(.*)", "/q/$1"), "/p/a.", "", None);
    }

    #[test]
    fn the_host_is_kept_ready() {
        let config = Config { host: text("orders.internal:8080"), ..Config::default() };
        let rewrite = compile(&config.into(), &mut Diagnostics::default()).expect("valid settings");
        assert_eq!(rewrite.host().expect("set"), "orders.internal:8080");
        assert_eq!(rewrite.path("/a", 0).ok(), Some(Cow::Borrowed("/a")));
    }

    #[test]
    fn mistakes_come_with_a_way_out() {
        #[track_caller]
        fn check(config: Config, told: &str) {
            let mut diagnostics = Diagnostics::default();
            assert!(compile(&config.into(), &mut diagnostics).is_none());
            let found = diagnostics.as_slice().first().expect("an error");
            let text = format!("{} {}", found.message, found.help.as_deref().unwrap_or_default());
            assert!(text.contains(told), "{text}");
        }
        check(Config::default(), "changes nothing");
        check(Config { path: text("/a"), ..prefix("/b") }, "`path` and `path_prefix` both");
        check(whole("a"), "begins with `/`");
        check(whole("/a/../b"), "`..` segments");
        check(whole("/a?b=c"), "write the path alone");
        check(whole("/a b"), "percent-encode it: \"/a%20b\"");
        check(whole("//a"), "percent-encode it: \"/a\"");
        check(by_regex("/(", "/"), "unclosed group");
        check(by_regex("/a", "/$1"), "no group `1`");
        check(Config { host: text("http://a"), ..Config::default() }, "without a scheme");
        check(Config { host: text("user@a"), ..Config::default() }, "not a host");
    }

    proptest! {
        #[test]
        fn what_is_written_is_an_origin_form_that_does_not_climb(path in "/[a-c./%]{0,12}", nth in 0_usize..5, replacement in "[a-z/.]{0,4}\\$1[a-z/.]{0,4}") {
            let matched = path.match_indices('/').nth(nth).map_or(path.len(), |(at, _)| at);
            for config in [prefix("/v2"), prefix("/"), by_regex("/[a-c]*(.*)", &replacement)] {
                let rewrite = compile(&config.into(), &mut Diagnostics::default());
                // a replacement with dots of its own is refused when it is read
                let Some(rewrite) = rewrite else { continue };
                if let Ok(rewritten) = rewrite.path(&path, matched)
                    && rewritten != path {
                    prop_assert!(rewritten.starts_with('/') && !rewritten.starts_with("//"));
                    prop_assert!(rewritten.parse::<http::uri::PathAndQuery>().is_ok());
                    prop_assert!(!target::has_dot_segment(&rewritten) || target::has_dot_segment(&path));
                }
            }
        }
    }
}
