//! One way from a path to a compiled configuration, for `run`, reloads, `check` and `explain` alike.

use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls_pki_types::UnixTime;
use serde_json::Value as Json;

use crate::config::document::Document;
use crate::config::load::{Loader, asset_path};
use crate::config::schema::DocumentSchema;
use crate::config::{self, render, secrets};
use crate::model::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::model::source::Sources;
use crate::policy::auth::ConsumersDocument;
use crate::snapshot::{self, Assets, Snapshot};
use crate::upstream::DEMO;

/// The schema of the whole document; made once, because it depends on nothing.
pub static SCHEMA: LazyLock<DocumentSchema> = LazyLock::new(DocumentSchema::of::<Document>);

/// The schema of the consumers file.
pub static CONSUMERS: LazyLock<DocumentSchema> = LazyLock::new(DocumentSchema::of::<ConsumersDocument>);

/// A document that was read, before it is compiled.
pub struct Read {
    /// Where it was read from.
    pub path: PathBuf,
    /// The texts.
    pub sources: Sources,
    /// What the operator wrote; `None` when it could not be read.
    pub document: Option<Document>,
    /// The consumers file, if the document names one and it could be read.
    pub consumers: Option<ConsumersDocument>,
    /// Contents of the files that it names.
    pub assets: Assets,
    /// Everything that should be watched for changes.
    pub files: Vec<PathBuf>,
    /// The document with every secret shown as its reference.
    pub redacted: Json,
    /// Stands for the content of everything that was read: equal content, equal number.
    pub fingerprint: u64,
    /// What is wrong so far.
    pub diagnostics: Diagnostics,
    root: config::node::Node,
    further: Option<config::node::Node>,
}

/// 128 bits that nobody outside can guess: the standard library seeds its hashers from the system's randomness.
pub(super) fn random_seed() -> u128 {
    let half = || u128::from(RandomState::new().build_hasher().finish());
    half() << 64 | half()
}

/// What a compile step needs from outside.
pub struct Surroundings<'a> {
    /// The snapshot in force.
    pub previous: Option<&'a Snapshot>,
    /// The authorities of the system.
    pub roots: &'a Arc<RootCertStore>,
    /// Where the demo app listens.
    pub demo: Option<std::net::SocketAddr>,
}

/// Reads a configuration and the files that it names. Blocks on files.
#[must_use]
pub fn read(path: &Path) -> Read {
    let loader = Loader::from_environment();
    let mut found = loader.load(path);
    let document: Option<Document> = config::read(&mut found, &SCHEMA);
    let named = document.as_ref().and_then(|document| document.consumers.as_ref());
    let further = named.and_then(|consumers| loader.further(&mut found, &consumers.file));
    let consumers = further.as_ref().and_then(|root| config::read_further(root, &CONSUMERS, &mut found.diagnostics));
    let paths = document.as_ref().map(snapshot::paths).unwrap_or_default();
    let mut files = std::mem::take(&mut found.files);
    files.extend(paths.iter().map(|path| asset_path(&found.sources, path)));
    let mut assets = loader.assets(&found.sources, paths.iter().copied());
    let specs = document.as_ref().map(snapshot::spec_paths).unwrap_or_default();
    let (specs, looked_for) = loader.specs(&mut found.sources, specs);
    assets.specs = specs;
    files.extend(looked_for);
    let mut content = DefaultHasher::new();
    for file in found.sources.files() {
        (&file.path, &file.text).hash(&mut content);
    }
    // What `${env:…}` and `${file:…}` came to stands in the tree.
    format!("{:?} {further:?}", found.root).hash(&mut content);
    for path in &paths {
        assets.get(path).hash(&mut content);
    }
    Read {
        path: path.to_owned(),
        redacted: secrets::redacted(&found.root),
        sources: found.sources,
        document,
        consumers,
        assets,
        files,
        fingerprint: content.finish(),
        diagnostics: found.diagnostics,
        root: found.root,
        further,
    }
}

impl Read {
    /// Compiles what was read; `None` when anything is wrong, which is then in [`Read::diagnostics`].
    pub fn compile(&mut self, surroundings: &Surroundings<'_>) -> Option<Snapshot> {
        let document = self.document.as_ref()?;
        let input = snapshot::Input {
            document,
            sources: &self.sources,
            consumers: self.consumers.as_ref(),
            assets: &self.assets,
            previous: surroundings.previous,
            roots: surroundings.roots,
            seed: random_seed(),
            demo: surroundings.demo,
            now: UnixTime::since_unix_epoch(
                SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
            ),
        };
        // Without the settings whose form is wrong others may look missing or unused: only what is certain is added.
        let sound = !self.diagnostics.has_errors();
        let mut found = Diagnostics::default();
        let snapshot = snapshot::compile(&input, &mut found);
        let incomplete = self.diagnostics.as_slice().iter().any(|finding| finding.code == "missing_key");
        let certain = |finding: &Diagnostic| {
            finding.severity == Severity::Error
                && finding.code != "missing_key"
                && !(incomplete && finding.code.starts_with("unknown_"))
        };
        self.diagnostics.extend(found.as_slice().iter().filter(|finding| sound || certain(finding)).cloned());
        for root in std::iter::once(&self.root).chain(&self.further) {
            secrets::scrub_all(root, &mut self.diagnostics);
        }
        snapshot.filter(|_| !self.diagnostics.has_errors())
    }

    /// Whether any route goes to the demo app.
    #[must_use]
    pub fn wants_demo(&self) -> bool {
        self.document.iter().flat_map(|document| &document.route).any(|route| {
            route.first.upstream.as_ref().is_some_and(|upstream| {
                crate::upstream::split::Config::references(upstream).iter().any(|reference| reference.value == DEMO)
            })
        })
    }

    /// `text` with every secret of the configuration shown as its reference.
    #[must_use]
    pub fn without_secrets(&self, text: String) -> String {
        let roots = std::iter::once(&self.root).chain(&self.further);
        roots.fold(text, secrets::scrub)
    }

    /// The findings for a person.
    #[must_use]
    pub fn text(&self, color: bool) -> String {
        render::text(&self.diagnostics, &self.sources, &self.path.display().to_string(), color)
    }

    /// The findings for a program.
    #[must_use]
    pub fn json(&self) -> Json {
        render::json(&self.diagnostics, &self.sources)
    }

    /// The findings in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        render::summary(&self.diagnostics, &self.path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::tls::bundled_roots;

    #[track_caller]
    fn check(text: &str, codes: &[&str]) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gateway.toml");
        std::fs::write(&path, text).expect("written");
        let mut read = read(&path);
        let compiled = read.compile(&Surroundings { previous: None, roots: &bundled_roots(), demo: None });
        let mut found: Vec<_> = read.diagnostics.as_slice().iter().map(|finding| finding.code).collect();
        found.sort_unstable();
        assert_eq!(found, codes);
        assert_eq!(compiled.is_none(), !codes.is_empty());
    }

    const SOUND: &str =
        "[[listener]]\naddress = \"127.0.0.1:0\"\n[[route]]\nmatch = \"/*\"\nrespond = { body = \"a\" }\n";

    #[test]
    fn mistakes_of_form_and_of_meaning_are_reported_together() {
        check(SOUND, &[]);
        let more = "[[route]]\nmatch = \"/a\"\nupstream = \"nowhere\"\ntimeout = { request = 30 }\n\
                    [[route]]\nmatch = \"/b\"\nupstraem = \"x\"\n[[route]]\nname = \"again\"\nmatch = \"/*\"\nrespond = {}\n";
        check(&format!("{SOUND}{more}"), &["route_conflict", "unitless", "unknown_key", "unknown_reference"]);
    }

    #[test]
    fn the_guards_of_an_upstream_are_read_and_their_mistakes_found() {
        let more = |guards: &str| {
            format!(
                "{SOUND}[upstream.api]\nendpoints = [\"http://127.0.0.1:1\"]\n{guards}\n\
                 [[route]]\nmatch = \"/a\"\nupstream = \"api\"\n"
            )
        };
        let breaker = "breaker = { failure_ratio = \"50%\", min_requests = 20, window = \"10s\", open_for = \"30s\", \
                       half_open_requests = 3, slow_call = \"2s\", slow_call_ratio = \"50%\", consecutive_failures = 5 }\n";
        check(&more(&format!("{breaker}concurrency = {{ limit = 200, queue = 50, queue_timeout = \"500ms\" }}")), &[]);
        check(&more("breaker = true\nconcurrency = { adaptive = true, min = 2, max = 50 }"), &[]);
        check(&more("breaker = false\nconcurrency = false"), &[]);
        check(
            &more("breaker = { slow_call_ratio = \"50%\", half_open_requests = 0 }\nconcurrency = { queue = 5 }"),
            &["bad_value", "dead_setting", "missing_key"],
        );
        check(&more("concurrency = { limit = 5, queue_timeout = \"1s\", min = 2 }"), &["dead_setting", "dead_setting"]);
        check(&more("breaker = { window = 10 }\nconcurrency = { limits = 5 }"), &["unitless", "unknown_key"]);
        check(&more("concurrency = true"), &["bad_value"]);
    }

    #[test]
    fn mistakes_in_the_consumers_file_are_reported_at_their_place_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gateway.toml");
        let text = format!("{SOUND}auth = {{ basic = true }}\n[consumers]\nfile = \"people.toml\"\n");
        std::fs::write(&path, text).expect("written");
        let codes = |people: Option<&str>| {
            if let Some(people) = people {
                std::fs::write(folder.path().join("people.toml"), people).expect("written");
            }
            let mut read = read(&path);
            let compiled = read.compile(&Surroundings { previous: None, roots: &bundled_roots(), demo: None });
            assert!(read.files.contains(&folder.path().join("people.toml")), "it is watched");
            assert_eq!(compiled.is_some(), !read.diagnostics.has_errors());
            let found = read.diagnostics.as_slice().iter().map(|finding| {
                let file = finding.span.map_or_else(String::new, |span| read.sources.origin(span).file.to_string());
                (finding.code, file.rsplit('/').next().unwrap_or_default().to_owned())
            });
            (found.collect::<Vec<_>>(), read.fingerprint)
        };
        let at = |code, file: &str| vec![(code, file.to_owned())];
        assert_eq!(codes(None).0, at("unreadable_file", "gateway.toml"));
        assert_eq!(codes(Some("[consumer.ann]\napi_kyes = []\n")).0, at("unknown_key", "people.toml"));
        assert_eq!(codes(Some("[consumer.ann]\nbasic = 'hunter2'\n")).0, at("bad_value", "people.toml"));
        let (found, empty) = codes(Some(""));
        assert_eq!(found, []);
        assert_ne!(codes(Some("[consumer.ann]\n")).1, empty, "a change is seen");
    }

    #[test]
    fn what_a_mistake_only_makes_look_wrong_is_not_reported() {
        let more =
            "[upstream.api]\nendpoint = [\"http://127.0.0.1:1\"]\n[[route]]\nmatch = \"/a\"\nupstream = \"api\"\n";
        check(&format!("{SOUND}{more}"), &["unknown_key"]);
    }
}
