//! Fence one bites: for every entry of clippy.toml that the standard library resolves, a planted use of it is refused
//! with the levels of Cargo.toml. The entries of other crates (tokio, pingora) are covered by `imports` as well.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

/// The paths below a key of clippy.toml that start with `std::`.
fn disallowed(clippy: &toml::Table, key: &str) -> Vec<String> {
    let entries = clippy[key].as_array().unwrap();
    let paths = entries.iter().map(|entry| entry["path"].as_str().unwrap().to_owned());
    paths.filter(|path| path.starts_with("std::")).collect()
}

fn read(file: &str) -> toml::Table {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap().parse().unwrap()
}

/// Clippy's errors about a crate that consists of `text`, under our clippy.toml and the levels of our Cargo.toml.
fn clippy(text: &str, lints: &toml::Table) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("planted.rs");
    std::fs::write(&file, text).unwrap();
    let mut clippy = Command::new("clippy-driver");
    clippy.env("CLIPPY_CONF_DIR", env!("CARGO_MANIFEST_DIR")).env("CLIPPY_DISABLE_DOCS_LINKS", "true");
    clippy.args(["--edition=2024", "--crate-type=lib", "--emit=metadata", "--cap-lints=forbid", "--out-dir"]);
    clippy.arg(folder.path()).arg(&file);
    for lint in ["disallowed_types", "disallowed_methods"] {
        clippy.arg(format!("--{}=clippy::{lint}", lints[lint].as_str().unwrap()));
    }
    let output = clippy.output().expect("clippy is a component of the toolchain: rustup component add clippy");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_planted_use_of_each_disallowed_path_is_refused() {
    let settings = read("clippy.toml");
    let manifest = read("Cargo.toml");
    let lints = manifest["lints"]["clippy"].as_table().unwrap();
    let (types, methods) = (disallowed(&settings, "disallowed-types"), disallowed(&settings, "disallowed-methods"));
    assert!(!types.is_empty() && !methods.is_empty());

    let mut planted = String::new();
    for (number, path) in types.iter().enumerate() {
        writeln!(planted, "pub struct T{number}(pub {path});").unwrap();
    }
    for (number, path) in methods.iter().enumerate() {
        let generic = if path.contains("fs::write") {
            "::<&str, &str>"
        } else if path.contains("fs::") || path.contains("env::") {
            "::<&str>"
        } else {
            ""
        };
        writeln!(planted, "pub fn f{number}() {{ let _ = {path}{generic}; }}").unwrap();
    }
    let errors = clippy(&planted, lints);
    for path in types.iter().chain(&methods) {
        let refused = errors.lines().any(|line| line.starts_with("error") && line.contains(&format!("`{path}`")));
        assert!(refused, "{path} is in clippy.toml, but clippy says:\n{errors}");
    }
}

#[test]
fn what_is_not_on_the_lists_passes() {
    let manifest = read("Cargo.toml");
    let lints = manifest["lints"]["clippy"].as_table().unwrap();
    let errors = clippy("pub fn f(a: std::net::SocketAddr) -> std::net::IpAddr { a.ip() }", lints);
    assert!(!errors.contains("error"), "{errors}");
}
