//! The replacement of a `path_regex`: literal text and groups, taken apart once, so that a group that the expression
//! does not have is an error in the configuration and not an empty text in a path.

use regex::{Captures, Regex};

use crate::model::diagnostic::{Diagnostic, Diagnostics, did_you_mean};
use crate::model::source::Spanned;
use crate::model::target;

/// The pieces in order.
#[derive(Debug, Clone)]
pub(super) struct Replacement(Box<[Piece]>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(Box<str>),
    Group(usize),
}

impl Replacement {
    pub(super) fn compile(written: &Spanned<String>, regex: &Regex, diagnostics: &mut Diagnostics) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = written.as_str();
        while let Some((before, after)) = rest.split_once('$') {
            literal.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                literal.push('$');
                rest = after;
                continue;
            }
            let (name, after) = group_name(after);
            let Some(group) = find_group(name, regex) else {
                diagnostics.push(unknown_group(name, written, regex));
                return None;
            };
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
            }
            pieces.push(Piece::Group(group));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal.into()));
        }
        Some(Self(pieces.into()))
    }

    /// The new path; a group that took no part is empty.
    pub(super) fn expand(&self, groups: &Captures<'_>) -> String {
        let mut path = String::new();
        for piece in &self.0 {
            let text = match piece {
                Piece::Literal(text) => text,
                Piece::Group(group) => groups.get(*group).map_or("", |found| found.as_str()),
            };
            target::push_path(&mut path, text);
        }
        if path.is_empty() {
            path.push('/');
        }
        path
    }
}

/// The name after a `$`, and what follows it: in braces, or as long as there are letters, digits and underscores.
fn group_name(after: &str) -> (&str, &str) {
    if let Some((name, rest)) = after.strip_prefix('{').and_then(|inside| inside.split_once('}')) {
        return (name, rest);
    }
    let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
    after.split_at(end)
}

fn find_group(name: &str, regex: &Regex) -> Option<usize> {
    match name.parse::<usize>() {
        Ok(number) => Some(number).filter(|number| *number < regex.captures_len()),
        Err(_) if name.is_empty() => None,
        Err(_) => regex.capture_names().position(|known| known == Some(name)),
    }
}

fn unknown_group(name: &str, written: &Spanned<String>, regex: &Regex) -> Diagnostic {
    let error = Diagnostic::error("bad_value", written.span, format!("the expression has no group `{name}`"));
    let names = regex.capture_names().flatten();
    let digits: String = name.chars().take_while(char::is_ascii_digit).collect();
    let help = if let Some(near) = did_you_mean(name, names) {
        format!("did you mean `${near}`?")
    } else if !digits.is_empty() && digits != name {
        format!("write `${{{digits}}}` where a letter, digit or `_` follows")
    } else {
        "write `$$` where a dollar sign is meant".to_owned()
    };
    error.help(help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(regex: &str, replacement: &str, path: &str, expected: Result<&str, &str>) {
        let regex = Regex::new(regex).expect("valid");
        let mut diagnostics = Diagnostics::default();
        let compiled = Replacement::compile(&replacement.to_owned().into(), &regex, &mut diagnostics);
        match (compiled, expected) {
            (Some(compiled), Ok(expected)) => {
                assert_eq!(compiled.expand(&regex.captures(path).expect("a match")), expected);
            }
            (None, Err(part)) => {
                let help = diagnostics.as_slice().first().and_then(|found| found.help.clone()).expect("a way out");
                assert!(help.contains(part), "{help}");
            }
            (compiled, expected) => panic!("{compiled:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn groups_go_by_number_and_by_name() {
        check("/(a)/(?<last>b)", "/$last/$1/${2}x", "/a/b", Ok("/b/a/bx"));
        check("/(a)?b", "/$1", "/b", Ok("/"));
        check("/a", "$0", "/a", Ok("/a"));
        check("/(.*)", "/$1", "//evil", Ok("/evil"));
        check("/a(.*)(.*)", "$1/$2", "/a", Ok("/"));
    }

    #[test]
    fn an_unknown_group_comes_with_a_way_out() {
        check("/(?<tenant>a)", "/$tenent", "", Err("did you mean `$tenant`?"));
        check("/(a)", "/$1x", "", Err("write `${1}`"));
        check("/a", "/$", "", Err("write `$$`"));
        check("/a", "/$3", "", Err("write `$$`"));
    }
}
