//! The reference that is committed is the one that the program prints.

#![expect(clippy::disallowed_methods, reason = "the reference is a file")]
#![expect(clippy::expect_used, reason = "a test fails where it can't go on")]

use std::path::Path;
use std::process::Command;

#[track_caller]
fn check(file: &str, form: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_portcullis")).args(["schema", "--form", form]).output();
    let printed = String::from_utf8(output.expect("the program starts").stdout).expect("text");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == printed, "{file} is stale; renew it: cargo run -- schema --form {form} > {file}");
}

#[test]
fn the_reference_manual_is_up_to_date() {
    check("docs/reference.md", "markdown");
}

#[test]
fn the_schema_for_editors_is_up_to_date() {
    check("conf/schemas/portcullis.schema.json", "json-schema");
}

#[test]
fn the_schema_of_consumers_is_up_to_date() {
    check("conf/schemas/consumers.schema.json", "consumers");
}
