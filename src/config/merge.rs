//! Several files as one document: how the tables of a folder's files come together.
//!
//! Tables of the first level merge key by key (`[upstream.api]` in one file, `[upstream.web]` in another, a key of
//! `[defaults]` in a third); lists of tables (`[[route]]`) append in the order of the files. Anything that is set in two
//! files is an error that names both places.

use super::node::{Key, Node, Value, shortened};
use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::shape::Kind;

/// Adds the entries of the document `from` to those of the document `into`.
pub fn merge(into: &mut Node, from: Node, diagnostics: &mut Diagnostics) {
    let (Value::Table(into), Value::Table(from)) = (&mut into.value, from.value) else { return };
    for (key, node) in from {
        match into.iter_mut().find(|(known, _)| known.text == key.text) {
            None => into.push((key, node)),
            Some((known, old)) => merge_entry(known, old, &key, node, diagnostics),
        }
    }
}

fn merge_entry(known: &Key, old: &mut Node, key: &Key, new: Node, diagnostics: &mut Diagnostics) {
    match (&mut old.value, new.value) {
        (Value::Array(old), Value::Array(new)) if old.iter().chain(&new).all(|item| item.kind() == Kind::Table) => {
            old.extend(new);
        }
        (Value::Table(old), Value::Table(new)) => {
            for (name, node) in new {
                match old.iter().find(|(known, _)| known.text == name.text) {
                    None => old.push((name, node)),
                    Some((known, _)) => {
                        diagnostics.push(duplicate(known, &name, &format!("{}.{}", key.text, name.text)));
                    }
                }
            }
        }
        _ => diagnostics.push(duplicate(known, key, &key.text)),
    }
}

fn duplicate(first: &Key, second: &Key, name: &str) -> Diagnostic {
    Diagnostic::error("duplicate", second.span, format!("`{}` is set in two files", shortened(name)))
        .related(first.span, "first set here")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{secrets, toml};

    #[track_caller]
    fn check(first: &str, second: &str, expected: Result<&str, &[&str]>) {
        let mut diagnostics = Diagnostics::default();
        let mut root = toml::parse(first, 0, &mut diagnostics).root;
        let other = toml::parse(second, 1, &mut diagnostics).root;
        merge(&mut root, other, &mut diagnostics);
        match expected {
            Ok(expected) => {
                assert!(!diagnostics.has_errors(), "{diagnostics:?}");
                assert_eq!(secrets::redacted(&root).to_string(), expected);
            }
            Err(expected) => {
                let found: Vec<_> = diagnostics.as_slice().iter().map(|d| d.message.as_str()).collect();
                assert_eq!(found, expected);
                let places = |d: &Diagnostic| (d.span.unwrap().file, d.related.first().unwrap().0.file);
                assert!(diagnostics.as_slice().iter().all(|d| places(d) == (1, 0)));
            }
        }
    }

    #[test]
    fn tables_merge_by_name_and_lists_of_tables_append() {
        check(
            "[u.a]\nx=1\n[[r]]\nn=1\n",
            "z=1\n[u.b]\ny=1\n[[r]]\nn=2\n",
            Ok(r#"{"r":[{"n":1},{"n":2}],"u":{"a":{"x":1},"b":{"y":1}},"z":1}"#),
        );
    }

    #[test]
    fn what_is_set_twice_names_both_files() {
        check("[u.a]\nx=1\n", "[u.a]\ny=1\n", Err(&["`u.a` is set in two files"]));
        check("a=1\nb=['x']\n", "b=['y']\na=1\n", Err(&["`b` is set in two files", "`a` is set in two files"]));
        check("[a]\nx=1\n", "a=1\n", Err(&["`a` is set in two files"]));
    }
}
