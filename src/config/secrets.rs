//! `${env:NAME}` and `${file:PATH}` in any string, and how they are kept out of everything that is shown.
//!
//! It decides what a reference is and where its value goes; the looking up itself is a [`Lookups`] (see `load`). `$${`
//! stands for `${`. A value that came from a reference is marked on its [`Node`], so that [`redacted`] shows the
//! reference and [`scrub_all`] takes it out of messages.

use serde_json::Value as Json;

use super::node::{Node, Secret, Value};
use crate::model::credential::is_credential;
use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::source::SourceSpan;

/// Where references are looked up.
pub trait Lookups {
    /// The value of an environment variable; an error says why there is none.
    fn variable(&mut self, name: &str) -> Result<String, String>;
    /// The content of a file whose path, when relative, starts at the folder of the source file `naming`.
    fn file(&mut self, path: &str, naming: u32) -> Result<String, String>;
}

/// Resolves every reference below `node` in place. A reference that can't be resolved is an error at its string.
pub fn resolve(node: &mut Node, lookups: &mut dyn Lookups, diagnostics: &mut Diagnostics) {
    match &mut node.value {
        Value::String(text) if text.contains("${") => {
            let (resolved, secret) = resolve_text(text, node.span, lookups, diagnostics);
            node.secret = secret.map(Box::new);
            *text = resolved;
        }
        Value::Array(items) => items.iter_mut().for_each(|item| resolve(item, lookups, diagnostics)),
        Value::Table(entries) => entries.iter_mut().for_each(|(_, item)| resolve(item, lookups, diagnostics)),
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::String(_) => {}
    }
}

/// The text with its references replaced, and what is to be remembered when there were any.
fn resolve_text(
    text: &str,
    span: SourceSpan,
    lookups: &mut dyn Lookups,
    diagnostics: &mut Diagnostics,
) -> (String, Option<Secret>) {
    let mut resolved = String::new();
    let mut secret = Secret { written: text.to_owned(), values: Vec::new(), resolved: true };
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(escaped) = before.strip_suffix('$') {
            resolved.push_str(escaped);
            resolved.push_str("${");
            rest = after;
            continue;
        }
        resolved.push_str(before);
        let (found, behind) = if let Some((reference, behind)) = after.split_once('}') {
            (look_up(reference, span.file, lookups), behind)
        } else {
            (Err(("bad_reference", "a reference without a closing `}`".to_owned(), Some(FORMS.to_owned()))), "")
        };
        rest = behind;
        match found {
            Ok(value) => {
                resolved.push_str(&value);
                secret.values.push(value);
            }
            Err((code, message, help)) => {
                diagnostics.push(Diagnostic { help, ..Diagnostic::error(code, span, message) });
                secret.resolved = false;
            }
        }
    }
    resolved.push_str(rest);
    let referred = !secret.values.is_empty() || !secret.resolved;
    (resolved, referred.then_some(secret))
}

const FORMS: &str = "write `${env:NAME}` or `${file:PATH}`, and `$${` for the characters `${`";

type Unresolved = (&'static str, String, Option<String>);

fn look_up(reference: &str, naming: u32, lookups: &mut dyn Lookups) -> Result<String, Unresolved> {
    match reference.split_once(':') {
        Some(("env", name)) if !name.is_empty() => lookups.variable(name).map_err(|why| ("unset_variable", why, None)),
        Some(("file", path)) if !path.is_empty() => {
            lookups.file(path, naming).map_err(|why| ("unreadable_file", why, None))
        }
        _ => Err(("bad_reference", format!("not a reference: `${{{reference}}}`"), Some(FORMS.to_owned()))),
    }
}

/// The tree as JSON, with `<redacted ${env:NAME}>` in place of what came from a secret, and `<redacted>` for what was written in
/// clear though its name or its place in a URL says that it is one.
#[must_use]
pub fn redacted(node: &Node) -> Json {
    match (&node.value, &node.secret) {
        (_, Some(secret)) => Json::String(format!("<redacted {}>", secret.written)),
        (Value::Null, None) => Json::Null,
        (Value::Bool(value), None) => Json::Bool(*value),
        (Value::Integer(value), None) => Json::from(*value),
        (Value::Float(value), None) => Json::from(*value),
        (Value::String(text), None) => Json::String(url_without_credentials(text)),
        (Value::Array(items), None) => items.iter().map(redacted).collect(),
        (Value::Table(entries), None) => {
            let shown = |key: &str, item: &Node| match (&item.value, &item.secret) {
                (Value::String(_), None) if names_a_secret(key) => Json::String("<redacted>".to_owned()),
                _ => redacted(item),
            };
            Json::Object(entries.iter().map(|(key, item)| (key.text.clone(), shown(&key.text, item))).collect())
        }
    }
}

/// Settings, and fields of `headers`, whose text is a secret. Narrower than what logs hide: `key` names a file here.
fn names_a_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    matches!(key.as_str(), "password" | "token" | "authorization" | "proxy-authorization" | "cookie" | "x-api-key")
}

/// A URL without its user's password and the values of parameters that are credentials; any other text as it is.
fn url_without_credentials(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let authority = authority.rsplit_once('@').map_or(authority.to_owned(), |(_, host)| format!("<redacted>@{host}"));
    let Some((path, query)) = tail.split_once('?') else { return format!("{scheme}://{authority}{tail}") };
    let shown = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if is_credential(name.as_bytes()) => format!("{name}=<redacted>"),
        _ => pair.to_owned(),
    });
    format!("{scheme}://{authority}{path}?{}", shown.collect::<Vec<_>>().join("&"))
}

/// Replaces every secret of the tree by its reference in what was found: a later step may have quoted a value.
pub fn scrub_all(root: &Node, diagnostics: &mut Diagnostics) {
    let mut secrets = Vec::new();
    collect(root, &mut secrets);
    for diagnostic in diagnostics.iter_mut() {
        diagnostic.message = without(std::mem::take(&mut diagnostic.message), &secrets);
        diagnostic.help = diagnostic.help.take().map(|help| without(help, &secrets));
    }
}

/// `message` without the secrets of `node` and of what lies below it.
#[must_use]
pub fn scrub(message: String, node: &Node) -> String {
    let mut secrets = Vec::new();
    collect(node, &mut secrets);
    without(message, &secrets)
}

fn collect<'a>(node: &'a Node, secrets: &mut Vec<&'a Secret>) {
    secrets.extend(node.secret.as_deref());
    match &node.value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, secrets)),
        Value::Table(entries) => entries.iter().for_each(|(_, item)| collect(item, secrets)),
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::String(_) => {}
    }
}

/// Shorter values are left alone: they hide in any word, and keep no secret.
const SHORTEST_SECRET: usize = 4;

fn without(mut message: String, secrets: &[&Secret]) -> String {
    for secret in secrets {
        for value in secret.values.iter().filter(|value| value.len() >= SHORTEST_SECRET) {
            let quoted = format!("{value:?}");
            let escaped = quoted.trim_matches('"');
            for form in [value.as_str(), escaped] {
                if message.contains(form) {
                    message = message.replace(form, &secret.written);
                }
            }
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::toml;

    struct Table;

    impl Lookups for Table {
        fn variable(&mut self, name: &str) -> Result<String, String> {
            match name {
                "TOKEN" => Ok("hush\"1".to_owned()),
                "NESTED" => Ok("${env:TOKEN}".to_owned()),
                _ => Err(format!("the environment variable {name} is not set")),
            }
        }
        fn file(&mut self, path: &str, _: u32) -> Result<String, String> {
            if path == "key" { Ok("from a file".to_owned()) } else { Err(format!("no such file: {path}")) }
        }
    }

    #[track_caller]
    fn check(written: &str, expected: Result<&str, &str>) {
        let mut diagnostics = Diagnostics::default();
        let mut root = toml::parse(&format!("a = '{written}'"), 0, &mut diagnostics).root;
        resolve(&mut root, &mut Table, &mut diagnostics);
        let node = root.get("a").unwrap();
        match expected {
            Ok(expected) => {
                assert!(diagnostics.as_slice().is_empty(), "{diagnostics:?}");
                assert_eq!(node.value, Value::String(expected.to_owned()));
                assert_eq!(node.secret.is_some(), written.replace("$${", "").contains("${"));
            }
            Err(expected) => {
                let found = diagnostics.as_slice().first().unwrap();
                assert_eq!(format!("{}: {}", found.code, found.message), expected);
                assert_eq!(found.span, Some(node.span));
            }
        }
    }

    #[test]
    fn references_are_replaced_wherever_they_stand_in_a_string() {
        check("${env:TOKEN}", Ok("hush\"1"));
        check("Bearer ${env:TOKEN}, ${file:key}!", Ok("Bearer hush\"1, from a file!"));
        check("$${env:TOKEN}", Ok("${env:TOKEN}"));
        check("$$${env:TOKEN}", Ok("$${env:TOKEN}"));
        check("${env:NESTED}", Ok("${env:TOKEN}"));
        check("$env {x} $", Ok("$env {x} $"));
    }

    #[test]
    fn what_cannot_be_resolved_is_reported_at_its_string() {
        check("${env:NOPE}", Err("unset_variable: the environment variable NOPE is not set"));
        check("${file:nope}", Err("unreadable_file: no such file: nope"));
        check("${vault:x}", Err("bad_reference: not a reference: `${vault:x}`"));
        check("${env:}", Err("bad_reference: not a reference: `${env:}`"));
        check("${env:X", Err("bad_reference: a reference without a closing `}`"));
    }

    #[test]
    fn a_secret_shows_in_no_dump_and_no_message() {
        let mut diagnostics = Diagnostics::default();
        let mut root = toml::parse("a = 'x${env:TOKEN}'\nb = ['y']", 0, &mut diagnostics).root;
        resolve(&mut root, &mut Table, &mut diagnostics);
        assert_eq!(redacted(&root), serde_json::json!({ "a": "<redacted x${env:TOKEN}>", "b": ["y"] }));
        diagnostics.push(Diagnostic::global("x", "not good: \"xhush\\\"1\"").help("hush\"1"));
        scrub_all(&root, &mut diagnostics);
        let shown = format!("{diagnostics:?} {root:?}");
        assert!(!shown.contains("hush"), "{shown}");
    }

    #[test]
    fn what_is_written_in_clear_is_hidden_by_its_name_and_place() {
        for (written, shown) in [
            ("redis://user:pw@h:6379/0", "redis://<redacted>@h:6379/0"),
            ("http://h/check?token=abc&x=1", "http://h/check?token=<redacted>&x=1"),
            ("http://h:80/p", "http://h:80/p"),
            ("no url: a@b", "no url: a@b"),
        ] {
            assert_eq!(url_without_credentials(written), shown);
        }
        assert!(names_a_secret("Authorization") && names_a_secret("password") && !names_a_secret("key"));
    }
}
