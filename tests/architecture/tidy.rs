//! House style, as far as a program can read it.

use super::source::{Finding, Source, assert_finds, assert_none, files_below};

/// A file longer than this has become two things.
const MAX_LINES: usize = 700;

/// The files that may be longer, each with the reason.
const LONG_FILES: &[(&str, &str)] = &[];

/// Left-overs that must not land, as words.
const LEFT_OVERS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];
/// Left-over macro calls.
const LEFT_OVER_CALLS: &[&str] = &[concat!("dbg", "!("), concat!("to", "do!("), concat!("unimple", "mented!(")];
/// Paths that only exist on the machine where the code was written.
const MACHINE_PATHS: &[&str] = &[concat!("/wor", "k/"), concat!("/tmp/bash", "_jobs"), concat!("/ro", "ot/")];
/// Silences a lint without noticing when it has nothing left to silence.
const ALLOW: &[&str] = &[concat!("#[al", "low("), concat!("#![al", "low(")];
/// Ends of names that say nothing.
const EMPTY_NAMES: &[&str] = &["Manager", "Handler", "Helper", "Helpers", "Util", "Utils", "Data", "Info"];

fn rust() -> Vec<Source> {
    files_below(&["src", "tests", "bench"], &[".rs"])
}

/// Whatever people write by hand in the package; prose may speak of left-overs, so it is read apart.
fn written() -> Vec<Source> {
    let extensions =
        ["Makefile", "Dockerfile", ".rs", ".py", ".toml", ".sh", ".yml", ".yaml", ".json", ".html", ".css", ".js"];
    let mut sources = files_below(&["src", "tests", "bench", "conf", "deploy", "docs", "certs"], &extensions);
    sources.extend(files_below(&[".ci"], &[""]));
    sources
}

#[track_caller]
fn assert_rule(sources: &[Source], rule: fn(&Source) -> Vec<Finding>) {
    assert!(!sources.is_empty());
    assert_none(&sources.iter().flat_map(rule).collect::<Vec<_>>());
}

/// Every line that holds one of `texts`.
fn lines_with(source: &Source, texts: &[&str], words: bool, sentence: impl Fn(&str) -> String) -> Vec<Finding> {
    let is_word = |line: &str, at: usize, text: &str| {
        let outside = |c: Option<char>| !c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let (before, rest) = line.split_at(at);
        outside(before.chars().next_back()) && outside(rest.chars().nth(text.len()))
    };
    let mut findings = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        for text in texts {
            if line.match_indices(text).any(|(at, _)| !words || is_word(line, at, text)) {
                findings.push(source.finding(number + 1, sentence(text)));
            }
        }
    }
    findings
}

fn opens_with_its_purpose(source: &Source) -> Vec<Finding> {
    // a module's tests, in a file of their own, have the purpose that their name says
    let is_unit_tests = source.path.starts_with("src/") && source.is_test();
    if source.text.starts_with("//!") || is_unit_tests {
        return Vec::new();
    }
    vec![source.finding(1, "a file opens with `//!`: what it decides and what it never does")]
}

fn is_of_a_sitting(source: &Source) -> Vec<Finding> {
    is_of_a_sitting_but_for(source, LONG_FILES)
}

fn is_of_a_sitting_but_for(source: &Source, long: &[(&str, &str)]) -> Vec<Finding> {
    let lines = source.text.lines().count();
    let listed = long.iter().any(|(path, _)| *path == source.path);
    match (lines > MAX_LINES, listed) {
        (true, false) => {
            vec![source.finding(lines, format!("longer than {MAX_LINES} lines: what is the second thing in it?"))]
        }
        (false, true) => vec![source.finding(lines, "no longer that long: take it off LONG_FILES")],
        _ => Vec::new(),
    }
}

fn is_finished(source: &Source) -> Vec<Finding> {
    let mut findings = lines_with(source, LEFT_OVERS, true, |text| format!("`{text}`: do it, or file an issue"));
    findings.extend(lines_with(source, LEFT_OVER_CALLS, false, |text| format!("`{text}` is a left-over")));
    findings
}

fn runs_anywhere(source: &Source) -> Vec<Finding> {
    lines_with(source, MACHINE_PATHS, false, |text| format!("`{text}` exists on one machine only"))
}

fn expects_instead_of_allowing(source: &Source) -> Vec<Finding> {
    lines_with(source, ALLOW, false, |_| {
        "use `#[expect(lint, reason = \"...\")]`, which says when it is no longer needed".to_owned()
    })
}

fn names_say_something(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub"));
        let (Some("struct" | "enum" | "trait" | "type"), Some(name)) = (words.next(), words.next()) else { continue };
        let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if EMPTY_NAMES.iter().any(|end| name.ends_with(end)) {
            findings.push(
                source.finding(number + 1, format!("`{name}` says nothing about what it is: use the field's word")),
            );
        }
    }
    findings
}

#[test]
fn every_file_opens_with_its_purpose() {
    assert_rule(&rust(), opens_with_its_purpose);
}

#[test]
fn no_file_is_longer_than_a_sitting() {
    let rust = rust();
    assert_rule(&rust, is_of_a_sitting);
    for (path, _) in LONG_FILES {
        assert!(rust.iter().any(|source| source.path == *path), "LONG_FILES names {path}, which is gone");
    }
}

#[test]
fn nothing_is_left_over() {
    assert_rule(&written(), is_finished);
}

#[test]
fn no_path_of_a_machine_is_named() {
    let mut sources = written();
    sources.extend(files_below(&["docs", "conf", "bench", "deploy"], &[".md"]));
    assert_rule(&sources, runs_anywhere);
}

#[test]
fn lints_are_expected_and_not_allowed() {
    assert_rule(&rust(), expects_instead_of_allowing);
}

#[test]
fn no_type_has_an_empty_name() {
    assert_rule(&rust(), names_say_something);
}

#[track_caller]
fn check_planted(rule: fn(&Source) -> Vec<Finding>, text: &str, expected: &[(usize, &str)]) {
    assert_finds(&rule(&Source::new("src/planted.rs", text)), expected);
}

#[test]
fn a_file_without_a_purpose_is_found() {
    check_planted(opens_with_its_purpose, "use std::fmt;", &[(1, "opens with")]);
    check_planted(opens_with_its_purpose, "//! Decides.", &[]);
    assert_finds(&opens_with_its_purpose(&Source::new("src/planted/tests.rs", "use super::*;")), &[]);
}

#[test]
fn a_long_file_is_found_and_so_is_a_stale_exception() {
    check_planted(is_of_a_sitting, &"\n".repeat(701), &[(701, "longer than 700")]);
    check_planted(is_of_a_sitting, &"\n".repeat(700), &[]);
    let planted = |lines| Source::new("src/planted.rs", &"\n".repeat(lines));
    let long = &[("src/planted.rs", "a table")];
    assert_finds(&is_of_a_sitting_but_for(&planted(701), long), &[]);
    assert_finds(&is_of_a_sitting_but_for(&planted(700), long), &[(700, "take it off")]);
}

#[test]
fn a_left_over_is_found() {
    for word in LEFT_OVERS {
        check_planted(is_finished, &format!("//! x\n// {word}: later"), &[(2, word)]);
        check_planted(is_finished, &format!("let name = \"/run/a.{word}{word}\";"), &[]);
    }
    for call in LEFT_OVER_CALLS {
        check_planted(is_finished, &format!("{call}x)"), &[(1, call)]);
    }
}

#[test]
fn a_machine_path_is_found() {
    for path in MACHINE_PATHS {
        check_planted(runs_anywhere, &format!("let path = \"{path}x\";"), &[(1, path)]);
    }
}

#[test]
fn an_allowed_lint_is_found() {
    for allow in ALLOW {
        check_planted(expects_instead_of_allowing, &format!("\n{allow}dead_code)]"), &[(2, "use `#[expect(")]);
    }
    check_planted(expects_instead_of_allowing, "#[expect(dead_code, reason = \"x\")]", &[]);
}

#[test]
fn an_empty_name_is_found() {
    check_planted(names_say_something, "pub struct PoolManager {", &[(1, "`PoolManager`")]);
    check_planted(names_say_something, "pub(crate) trait RetryHandler<T> {", &[(1, "`RetryHandler`")]);
    check_planted(names_say_something, "struct Utility;\n// a type Manager is not a definition", &[]);
}
