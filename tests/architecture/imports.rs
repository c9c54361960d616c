//! Fence two: who may import whom, and which modules may name what does I/O. The table is ARCHITECTURE.md's.
//!
//! Test code is exempt: it adds no dependency to the product, and a test of a low layer may set its scene with a higher one.

use std::collections::BTreeSet;

use super::source::{Finding, Meets, Source, assert_finds, assert_none, library, resolve, walk};

/// Each module with what it may import of ours, in layer order: `lib.rs` declares them in this order too.
const TABLE: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("routing", &["model"]),
    ("upstream", &["model"]),
    ("cache", &["model"]),
    ("policy", &["model"]),
    // the settings of telemetry are part of the document
    ("telemetry", &["model"]),
    ("config", &["model", "routing", "upstream", "cache", "policy", "telemetry"]),
    ("snapshot", &["model", "routing", "upstream", "cache", "policy", "config"]),
    ("pipeline", &["model", "routing", "upstream", "cache", "policy", "snapshot"]),
    ("explain", &["model", "routing", "upstream", "policy", "snapshot", "pipeline"]),
    ("cache::store", &["model", "cache", "telemetry"]),
    ("engine", &["model", "upstream", "snapshot", "pipeline", "cache", "cache::store", "telemetry"]),
    ("edge", &["model", "telemetry", "engine"]),
    ("demo", &[]),
    ("control", BELOW_CONTROL),
    ("cli", BELOW_CLI),
    ("main", &["cli"]),
];

const BELOW_CONTROL: &[&str] = &[
    "model",
    "routing",
    "upstream",
    "cache",
    "policy",
    "config",
    "snapshot",
    "pipeline",
    "telemetry",
    "cache::store",
    "engine",
    "edge",
    "demo",
];
const BELOW_CLI: &[&str] = &[
    "model",
    "routing",
    "upstream",
    "cache",
    "policy",
    "config",
    "snapshot",
    "pipeline",
    "explain",
    "telemetry",
    "cache::store",
    "engine",
    "edge",
    "demo",
    "control",
];

/// The modules that do I/O; every other one is pure.
const SHELL: &[&str] =
    &["config::load", "telemetry", "cache::store", "engine", "edge", "demo", "control", "cli", "main"];

/// The shell, and the pure modules whose state is shared between requests (permits, single flight, the word to drain).
const WITH_SHARED_STATE: &[&str] = &[
    "model::drain",
    "upstream",
    "policy",
    "snapshot",
    "pipeline",
    "cache",
    "config::load",
    "telemetry",
    "engine",
    "edge",
    "demo",
    "control",
    "cli",
    "main",
];

/// What only some modules may name: the beginning of a path, who may, and why the others may not. The first row that fits counts.
const FOREIGN: &[(&str, &[&str], &str)] = &[
    ("pingora_", &["engine"], "only engine speaks to pingora"),
    ("std::fs", SHELL, "decisions know no file"),
    ("tokio::fs", SHELL, "decisions know no file"),
    ("std::env", SHELL, "decisions know no environment"),
    ("std::process", SHELL, "decisions know no process"),
    ("std::thread", SHELL, "decisions start no thread"),
    ("std::net::TcpStream", SHELL, "decisions know no socket"),
    ("std::net::TcpListener", SHELL, "decisions know no socket"),
    ("std::net::UdpSocket", SHELL, "decisions know no socket"),
    ("std::net::ToSocketAddrs", SHELL, "decisions look up no name"),
    ("std::os::unix::net", SHELL, "decisions know no socket"),
    ("socket2", SHELL, "decisions know no socket"),
    ("tokio::sync", WITH_SHARED_STATE, "its values need no permit or signal"),
    ("tokio", SHELL, "decisions are synchronous"),
    ("hickory_resolver", SHELL, "decisions look up no name"),
    ("notify", SHELL, "decisions know no file"),
    ("redis", &["control"], "decisions know no store; the control plane speaks to it beside the requests"),
    ("axum", &["demo", "control"], "only the admin API and the demo app are served by axum"),
    ("prometheus", &["telemetry"], "metrics are telemetry's; the others hand it values"),
    ("clap", &["cli", "main"], "only the command line parses arguments"),
    ("anyhow", &["cli", "main"], "the library's errors are types"),
];

/// The clock reads the system's time for everybody else; it alone may opt out of fence one among the pure modules.
const MAY_OPT_OUT_OF_FENCE_ONE: &[&str] = &["model::clock"];

/// Checks every file against the tables; the modules that exist are those of `sources`.
fn check(sources: &[Source]) -> Vec<Finding> {
    let modules: BTreeSet<String> = sources.iter().filter_map(Source::module).map(|module| module.join("::")).collect();
    let mut findings = Vec::new();
    for source in sources {
        let mut imports = Imports { source, modules: &modules, findings: Vec::new() };
        walk(source, &mut imports);
        imports.findings.dedup();
        findings.append(&mut imports.findings);
    }
    findings
}

struct Imports<'s> {
    source: &'s Source,
    modules: &'s BTreeSet<String>,
    findings: Vec<Finding>,
}

impl Meets for Imports<'_> {
    fn path(&mut self, module: &[String], path: &[String], line: usize) {
        let own = module.join("::");
        let ours = if path.first().is_some_and(|first| first == "portcullis") {
            path.get(1..).map(<[String]>::to_vec)
        } else {
            resolve(module, path)
        };
        let broken = match ours {
            Some(target) => internal(&own, &target, self.modules),
            None => foreign(&own, &path.join("::")),
        };
        self.findings.extend(broken.map(|sentence| self.source.finding(line, sentence)));
    }

    fn attribute(&mut self, text: &str, on_module: Option<&str>, line: usize) {
        if !text.contains("clippy::disallowed_") {
            return;
        }
        let mut module = self.source.module().unwrap_or_default();
        module.extend(on_module.map(str::to_owned));
        let module = module.join("::");
        if !is_within(&module, SHELL) && !is_within(&module, MAY_OPT_OUT_OF_FENCE_ONE) {
            let sentence = format!("`{module}` is pure and may not opt out of clippy's disallowed lists");
            self.findings.push(self.source.finding(line, sentence));
        }
    }
}

/// What is wrong when code of the module `own` names `target`, a path from our crate's root.
fn internal(own: &str, target: &[String], modules: &BTreeSet<String>) -> Option<String> {
    let named = target.join("::");
    if own.is_empty() {
        return None; // lib.rs declares the modules
    }
    let (Some((own_layer, may_import)), Some((target_layer, _))) = (layer(own), layer(&named)) else {
        return Some(format!("`{own}` names `crate::{named}`, and one of them is in no layer of the import table"));
    };
    if own_layer != target_layer && !may_import.contains(&target_layer) {
        return Some(format!("`{own_layer}` may not import `{target_layer}`: it names `crate::{named}`"));
    }
    let sibling = target.get(..2).map(|two| two.join("::"))?;
    let is_other_policy = own.starts_with("policy::") && target_layer == "policy" && modules.contains(&sibling);
    (is_other_policy && !is_below(own, &sibling))
        .then(|| format!("`{own}` may not import `{sibling}`: policies meet through values in `model`"))
}

/// What is wrong when code of the module `own` names `path`, which isn't ours.
fn foreign(own: &str, path: &str) -> Option<String> {
    let is_named =
        |beginning: &str| is_below(path, beginning) || (beginning.ends_with('_') && path.starts_with(beginning));
    let (_, may, why) = FOREIGN.iter().find(|(beginning, ..)| is_named(beginning))?;
    (!is_within(own, may)).then(|| format!("`{own}` may not name `{path}`: {why}"))
}

/// The row of the table that a path belongs to: the longest that fits.
fn layer(path: &str) -> Option<(&'static str, &'static [&'static str])> {
    TABLE.iter().filter(|(layer, _)| is_below(path, layer)).max_by_key(|(layer, _)| layer.len()).copied()
}

fn is_within(module: &str, layers: &[&str]) -> bool {
    layers.iter().any(|layer| is_below(module, layer))
}

/// Whether `path` is `above` or something in it.
fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// `lib.rs` declares modules of the table, in its order.
fn check_order(lib: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut before = 0;
    for item in lib.syntax().items {
        let syn::Item::Mod(module) = item else { continue };
        let line = module.ident.span().start().line;
        match TABLE.iter().position(|(layer, _)| module.ident == layer) {
            None => findings.push(lib.finding(line, format!("`{}` is in no row of the import table", module.ident))),
            Some(place) if place < before => {
                findings.push(lib.finding(line, format!("`{}` stands below what may import it", module.ident)));
            }
            Some(place) => before = place,
        }
    }
    findings
}

#[test]
fn every_module_imports_only_what_the_table_allows() {
    assert_none(&check(&library()));
}

#[test]
fn modules_are_declared_in_layer_order() {
    let library = library();
    let lib = library.iter().find(|source| source.path == "src/lib.rs").unwrap();
    assert_none(&check_order(lib));
}

#[test]
fn the_table_has_no_way_back_up() {
    for (place, (layer, may_import)) in TABLE.iter().enumerate() {
        for import in *may_import {
            let imported = TABLE.iter().position(|(other, _)| other == import).unwrap();
            assert!(imported < place, "{layer} may import {import}, which stands below it");
        }
    }
}

/// Checks one planted file beside two policies.
#[track_caller]
fn check_planted(path: &str, text: &str, expected: &[(usize, &str)]) {
    let sources =
        [Source::new("src/policy/cors.rs", ""), Source::new("src/policy/access/mod.rs", ""), Source::new(path, text)];
    assert_finds(&check(&sources), expected);
}

#[test]
fn an_import_against_the_table_is_found() {
    for (path, text, sentence) in [
        ("src/model/ids.rs", "use crate::routing::Route;", "`model` may not import `routing`"),
        ("src/model/mod.rs", "use super::routing::Route;", "`model` may not import `routing`"),
        ("src/policy/mod.rs", "use crate::{model, pipeline};", "`policy` may not import `pipeline`"),
        ("src/policy/cors.rs", "use crate::config::Document as D;", "`policy` may not import `config`"),
        ("src/policy/cors.rs", "fn f(x: &super::super::snapshot::Snapshot) {}", "`policy` may not import `snapshot`"),
        ("src/policy/cors.rs", "fn f() { g(crate::engine::serve()); }", "`policy` may not import `engine`"),
        ("src/policy/cors.rs", "fn f() { format!(\"{}\", crate::engine::X); }", "`policy` may not import `engine`"),
        ("src/policy/cors.rs", "impl crate::edge::T for X {}", "`policy` may not import `edge`"),
        ("src/policy/cors.rs", "mod inner { use super::super::super::config::X; }", "`policy` may not import `config`"),
        ("src/pipeline/route.rs", "use crate::config::Document;", "`pipeline` may not import `config`"),
        ("src/cache/mod.rs", "use self::store::Tier;", "`cache` may not import `cache::store`"),
        ("src/edge/mod.rs", "use crate::control::Admin;", "`edge` may not import `control`"),
        ("src/demo/mod.rs", "use crate::model::ids;", "`demo` may not import `model`"),
        ("src/control/mod.rs", "use crate::cli::Args;", "`control` may not import `cli`"),
        ("src/main.rs", "fn main() { portcullis::engine::run(); }", "`main` may not import `engine`"),
        ("src/model/ids.rs", "use crate::*;", "is in no layer"),
        ("src/model/ids.rs", "use crate as everything;", "is in no layer"),
        ("src/model/ids.rs", "use crate::shortcut::X;", "is in no layer"),
        ("src/extra.rs", "use crate::model::ids;", "is in no layer"),
    ] {
        check_planted(path, text, &[(1, sentence)]);
    }
}

#[test]
fn an_import_along_the_table_is_not() {
    for (path, text) in [
        ("src/policy/headers.rs", "use crate::model::{self, ids::RouteName};\npub(crate) fn f(x: super::Slot) {}"),
        ("src/policy/mod.rs", "use self::cors::Config;\nuse super::policy::access;"),
        ("src/policy/access/list.rs", "use super::Config;\nuse crate::policy::access::X;\nuse crate::policy::Context;"),
        ("src/policy/headers.rs", "#[cfg(test)] mod tests { use crate::config::Document; use std::fs; }"),
        ("src/policy/headers.rs", "#[test] fn f() { crate::engine::x(); }"),
        ("src/policy/access/tests.rs", "use crate::config::Document;"),
        ("src/engine/mod.rs", "use crate::cache::store::Tier;\nuse pingora_core::apps::HttpServerApp;"),
        ("src/cli/run.rs", "use crate::control::Admin; use anyhow::Result;"),
        ("src/main.rs", "fn main() { portcullis::cli::main() }"),
    ] {
        check_planted(path, text, &[]);
    }
}

#[test]
fn a_policy_that_names_another_is_found() {
    for text in ["use super::cors::Config;", "fn f() { crate::policy::cors::f() }"] {
        check_planted("src/policy/headers.rs", text, &[(1, "policies meet through values")]);
    }
}

#[test]
fn naming_what_does_io_in_a_pure_module_is_found() {
    for (path, text, sentence) in [
        ("src/edge/mod.rs", "use pingora_core::protocols::Stream;", "only engine speaks to pingora"),
        ("src/snapshot/mod.rs", "use std::fs;", "decisions know no file"),
        ("src/config/document.rs", "fn f() { std::fs::read(p); }", "decisions know no file"),
        ("src/config/mod.rs", "use tokio::fs::File;", "decisions know no file"),
        ("src/upstream/mod.rs", "use tokio::net::TcpStream;", "decisions are synchronous"),
        ("src/upstream/mod.rs", "use std::net::{IpAddr, TcpStream};", "decisions know no socket"),
        ("src/model/mod.rs", "use tokio::sync::Notify;", "its values need no permit"),
        ("src/pipeline/mod.rs", "async fn f() { tokio::time::sleep(d).await }", "decisions are synchronous"),
        ("src/routing/mod.rs", "fn f() { std::env::var(\"A\"); }", "decisions know no environment"),
        ("src/engine/mod.rs", "use anyhow::Context;", "the library's errors are types"),
        ("src/edge/mod.rs", "fn f() { prometheus::default_registry(); }", "metrics are telemetry's"),
    ] {
        check_planted(path, text, &[(1, sentence)]);
    }
    check_planted("src/upstream/mod.rs", "use tokio::sync::Semaphore;\nuse std::net::SocketAddr;", &[]);
    check_planted("src/config/load.rs", "use std::fs;\nuse std::env;", &[]);
}

#[test]
fn a_pure_module_that_opts_out_of_fence_one_is_found() {
    let attribute = "#![expect(clippy::disallowed_types, reason = \"because\")]\n";
    check_planted("src/routing/mod.rs", attribute, &[(1, "may not opt out")]);
    check_planted("src/lib.rs", "\n#[expect(clippy::disallowed_methods)]\npub mod routing;", &[(2, "may not opt out")]);
    check_planted(
        "src/routing/tree.rs",
        "impl T { #[expect(clippy::disallowed_methods)] fn f() {} }",
        &[(1, "opt out")],
    );
    check_planted("src/lib.rs", "#[expect(clippy::disallowed_methods)]\npub mod demo;", &[]);
    check_planted("src/model/clock.rs", attribute, &[]);
}

#[test]
fn modules_out_of_order_or_outside_of_the_table_are_found() {
    let lib = Source::new("src/lib.rs", "pub mod routing;\npub mod model;\npub mod util;");
    assert_finds(&check_order(&lib), &[(2, "stands below"), (3, "in no row")]);
}
