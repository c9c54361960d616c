//! What `portcullis explain` says, to the letter. Each configuration in `tests/explain/` begins with its questions, as
//! `#> name: arguments`; the answers beside it are accepted anew by `INSTA_UPDATE=always cargo test --test explain`.

#![expect(clippy::disallowed_methods, reason = "the questions are read from files")]
#![expect(clippy::expect_used, reason = "a test fails where it can't go on")]

use std::process::{Command, Output};

/// Stands for a secret in the configuration; no answer may show it.
const SECRET: &str = "hush-hush";

fn portcullis(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("EXPLAIN_SECRET", SECRET)
        .env_remove("PORTCULLIS_CONFIG")
        .args(arguments)
        .output()
        .expect("the program starts")
}

/// The words of a line, some of them in single quotes.
fn words(line: &str) -> Vec<&str> {
    let pieces = line.split('\'').enumerate();
    let words = pieces.flat_map(|(at, piece)| match at % 2 {
        0 => piece.split_whitespace().collect(),
        _ => vec![piece],
    });
    words.collect()
}

#[track_caller]
fn check(file: &str) {
    let path = format!("tests/explain/{file}.toml");
    let text = std::fs::read_to_string(&path).expect("the configuration is there");
    let questions: Vec<(&str, &str)> =
        text.lines().filter_map(|line| line.strip_prefix("#> ")?.split_once(": ")).collect();
    assert!(!questions.is_empty(), "{path} asks nothing");
    for (name, arguments) in questions {
        for format in ["text", "json"] {
            let mut all = vec!["explain", "-c", &path, "--format", format];
            all.extend(words(arguments));
            let output = portcullis(&all);
            let said = String::from_utf8(output.stdout).expect("text");
            assert_eq!(output.status.code(), Some(0), "{name}: {}", String::from_utf8_lossy(&output.stderr));
            assert!(!said.contains(SECRET), "{name} shows a secret: {said}");
            insta::with_settings!({
                snapshot_path => "explain", prepend_module_to_snapshot => false, omit_expression => true,
                description => arguments,
            }, {
                insta::assert_snapshot!(format!("{file}_{name}_{format}"), said);
            });
        }
    }
}

#[test]
fn policies_are_explained_with_the_settings_that_cause_them() {
    check("shop");
}

#[test]
fn answers_of_the_gateway_are_shown_whole() {
    check("answers");
}

#[test]
fn splits_and_streams_are_explained() {
    check("split");
}

#[test]
fn each_state_of_an_upstream_is_explained() {
    check("resilience");
}

#[test]
fn who_calls_is_explained_by_the_code_that_decides_it() {
    check("identity");
}

#[test]
fn rate_limits_show_what_is_left_and_why() {
    check("limits");
}

#[test]
fn violations_are_shown_place_by_place() {
    check("validation");
}

#[track_caller]
fn check_exit(arguments: &[&str], code: i32, talk: &str) {
    let output = portcullis(&[&["explain"], arguments].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(talk), "{said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn a_refused_configuration_is_one_and_a_bad_question_two() {
    check_exit(&["-c", "tests/config/mistakes.toml", "http://a/"], 1, "error");
    check_exit(&["-c", "tests/explain/answers.toml", "a/b"], 2, "absolute URL");
    check_exit(&["-c", "tests/explain/answers.toml", "ftp://a/b"], 2, "absolute URL");
    check_exit(&["-c", "tests/explain/answers.toml", "-H", "no colon", "http://a/"], 2, "name: value");
    check_exit(&["-c", "tests/explain/answers.toml", "--body", "tests/explain/none", "http://a/"], 2, "can't read");
}
