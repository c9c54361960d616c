//! Reads the configuration's files and the environment: the only place that does.
//!
//! A path is a file, or a folder whose `*.toml`, `*.yaml`, `*.yml` and `*.json` files (hidden ones aside) are merged in the
//! order of their names. A relative path in a file (`${file:…}`, a certificate) starts at the folder of that file, so
//! that a configuration can be moved as a whole and does not depend on where the program was started. Everything that is
//! read is bounded and is a regular file: a FIFO or a device would hang the reload.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "this is where files and the environment are read"
)]

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::assets::Assets;
use super::node::{Node, Parsed, Value};
use super::secrets::Lookups;
use super::{json, merge, secrets, spec, toml, yaml};
use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::source::{SourceSpan, Sources, Spanned};
use crate::model::spec::{SpecFile, Specs};

/// The largest configuration file in bytes.
pub const MAX_FILE: u64 = 8 << 20;
/// The largest content of a `${file:…}` in bytes.
pub const MAX_SECRET: u64 = 1 << 20;
/// The largest certificate, key or body that a document names, in bytes.
pub const MAX_ASSET: u64 = 4 << 20;
/// The largest API description or schema in bytes.
pub const MAX_SPEC: u64 = 16 << 20;
/// The most files of descriptions and schemas, referred ones included.
pub const MAX_SPECS: usize = 500;
/// The most files that a folder may hold.
pub const MAX_FILES: usize = 1000;

/// Reads configurations with one set of environment variables.
#[derive(Debug, Clone)]
pub struct Loader {
    variables: Option<HashMap<String, String>>,
}

/// What was read.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The texts, for showing places.
    pub sources: Sources,
    /// The document: a table, in which references are resolved.
    pub root: Node,
    /// Whether a syntax error cut something off.
    pub partial: bool,
    /// Everything that was read or looked for, to be watched for changes: files, `${file:…}` targets, a folder itself.
    pub files: Vec<PathBuf>,
    /// What is wrong so far.
    pub diagnostics: Diagnostics,
}

impl Loader {
    /// With the variables of the process.
    #[must_use]
    pub const fn from_environment() -> Self {
        Self { variables: None }
    }

    /// With these variables alone.
    #[must_use]
    pub const fn with_variables(variables: HashMap<String, String>) -> Self {
        Self { variables: Some(variables) }
    }

    /// Reads the file or folder at `path`.
    #[must_use]
    pub fn load(&self, path: &Path) -> Loaded {
        let mut loaded = Loaded {
            sources: Sources::default(),
            root: Node::new(SourceSpan::default(), Value::Table(Vec::new())),
            partial: false,
            files: vec![path.to_owned()],
            diagnostics: Diagnostics::default(),
        };
        match files_of(path) {
            Ok(files) => {
                for (index, file) in files.iter().enumerate() {
                    loaded.add(file, index == 0);
                }
            }
            Err(diagnostic) => loaded.refuse(diagnostic),
        }
        let mut lookups = Files { variables: self.variables.as_ref(), sources: &loaded.sources, read: Vec::new() };
        secrets::resolve(&mut loaded.root, &mut lookups, &mut loaded.diagnostics);
        let read = lookups.read;
        loaded.files.extend(read);
        loaded
    }

    /// Reads a further configuration file, which the setting `named` names, with the same references; its text is one of
    /// the sources and its place among the watched files. `None` when it can't be read or has mistakes of syntax.
    pub fn further(&self, loaded: &mut Loaded, named: &Spanned<String>) -> Option<Node> {
        let path = asset_path(&loaded.sources, named);
        loaded.files.push(path.clone());
        let Some(format) = Format::of(&path) else {
            let message = format!("not a configuration file by its name: {}", path.display());
            let help = "name it *.toml, *.yaml, *.yml or *.json";
            loaded.diagnostics.push(Diagnostic::error("unknown_format", named.span, message).help(help));
            return None;
        };
        let text = read_bounded(&path, MAX_FILE).and_then(|bytes| text_of(bytes, &path));
        let text =
            text.map_err(|why| loaded.diagnostics.push(Diagnostic::error("unreadable_file", named.span, why))).ok()?;
        let file = loaded.sources.add(path.display().to_string(), text.as_str());
        let mut root = format.parse(&text, file, &mut loaded.diagnostics);
        if root.root.is_null() {
            root.root.value = Value::Table(Vec::new());
        }
        let mut lookups = Files { variables: self.variables.as_ref(), sources: &loaded.sources, read: Vec::new() };
        secrets::resolve(&mut root.root, &mut lookups, &mut loaded.diagnostics);
        let read = lookups.read;
        loaded.files.extend(read);
        (!root.partial).then_some(root.root)
    }

    /// Reads the files that a document names. Those that can't be read hold the reason.
    pub fn assets<'a>(&self, sources: &Sources, paths: impl IntoIterator<Item = &'a Spanned<String>>) -> Assets {
        let mut assets = Assets::default();
        for path in paths {
            let content = read_bounded(&asset_path(sources, path), MAX_ASSET).map(Bytes::from);
            assets.insert(path, content);
        }
        assets
    }
}

impl Loader {
    /// Reads the API descriptions and schemas that settings name, and the files that those refer to; also where each was
    /// looked for. Their texts become `sources`, so that what is wrong in them is shown at its place.
    pub fn specs<'a>(
        &self,
        sources: &mut Sources,
        paths: impl IntoIterator<Item = &'a Spanned<String>>,
    ) -> (Specs, Vec<PathBuf>) {
        let mut reader = SpecReader { sources, specs: Specs::default(), known: HashMap::new(), looked_for: Vec::new() };
        for path in paths {
            let found = reader.file(&asset_path(reader.sources, path));
            reader.specs.roots.insert((path.span.file, path.value.clone()), found);
        }
        reader.follow();
        (reader.specs, reader.looked_for)
    }
}

struct SpecReader<'a> {
    sources: &'a mut Sources,
    specs: Specs,
    known: HashMap<PathBuf, Result<usize, String>>,
    looked_for: Vec<PathBuf>,
}

impl SpecReader<'_> {
    fn file(&mut self, path: &Path) -> Result<usize, String> {
        let path = plain(path);
        if let Some(known) = self.known.get(&path) {
            return known.clone();
        }
        self.looked_for.push(path.clone());
        let found = if self.specs.files.len() >= MAX_SPECS {
            Err(format!("more than {MAX_SPECS} files of descriptions and schemas: {}", path.display()))
        } else {
            read_bounded(&path, MAX_SPEC).and_then(|content| text_of(content, &path)).map(|text| {
                let shown: std::sync::Arc<str> = path.display().to_string().into();
                let text: std::sync::Arc<str> = text.into();
                let file = self.sources.add(std::sync::Arc::clone(&shown), std::sync::Arc::clone(&text));
                let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
                let spec::Reading { value, places, problems } = spec::read(&text, file, is_json);
                let read = SpecFile { path: shown, text, value, places, links: HashMap::new(), problems };
                self.specs.files.push(std::sync::Arc::new(read));
                self.specs.files.len() - 1
            })
        };
        self.known.insert(path, found.clone());
        found
    }

    fn follow(&mut self) {
        let mut next = 0;
        while let Some(file) = self.specs.files.get(next).cloned() {
            let folder = Path::new(file.path.as_ref()).parent().map(Path::to_owned).unwrap_or_default();
            let links: HashMap<_, _> = spec::links(&file.value)
                .into_iter()
                .map(|link| {
                    let found = self.file(&folder.join(percent_decoded(&link)));
                    (link, found)
                })
                .collect();
            if let Some(file) = self.specs.files.get_mut(next) {
                *file = std::sync::Arc::new(SpecFile { links, ..SpecFile::clone(file) });
            }
            next += 1;
        }
    }
}

/// The path without `.` and, where what stands before is a name, without `..`.
fn plain(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(plain.components().next_back(), Some(Component::Normal(_))) => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

/// A reference is a URI: a space in the name of a file is written as `%20` (RFC 3986 §2.1).
fn percent_decoded(link: &str) -> String {
    let mut bytes = Vec::with_capacity(link.len());
    let mut rest = link.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let pair = after.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        let decoded = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).filter(|_| *byte == b'%');
        bytes.push(decoded.unwrap_or(*byte));
        rest = if decoded.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Where the file is that a setting names: a relative path starts at the folder of the file with the setting.
#[must_use]
pub fn asset_path(sources: &Sources, path: &Spanned<String>) -> PathBuf {
    beside(sources, path.span.file, &path.value)
}

impl Loaded {
    fn add(&mut self, path: &Path, is_first: bool) {
        if !self.files.iter().any(|known| known == path) {
            self.files.push(path.to_owned());
        }
        let Some(format) = Format::of(path) else {
            let message = format!("not a configuration file by its name: {}", path.display());
            self.refuse(Diagnostic::global("unknown_format", message).help("name it *.toml, *.yaml, *.yml or *.json"));
            return;
        };
        let text = match read_bounded(path, MAX_FILE).and_then(|bytes| text_of(bytes, path)) {
            Ok(text) => text,
            Err(message) => return self.refuse(Diagnostic::global("unreadable_file", message)),
        };
        let file = self.sources.add(path.display().to_string(), text.as_str());
        let parsed = format.parse(&text, file, &mut self.diagnostics);
        let parsed = self.document(parsed);
        self.partial |= parsed.partial;
        if is_first {
            self.root = parsed.root;
        } else {
            merge::merge(&mut self.root, parsed.root, &mut self.diagnostics);
        }
    }

    /// An empty YAML file is an empty table; anything else that is not a table is refused.
    fn document(&mut self, mut parsed: Parsed) -> Parsed {
        if !matches!(parsed.root.value, Value::Table(_)) {
            if !parsed.root.is_null() {
                let message = format!("a configuration is a table, found {}", parsed.root.words());
                self.diagnostics.push(Diagnostic::error("wrong_type", parsed.root.span, message));
                parsed.partial = true;
            }
            parsed.root.value = Value::Table(Vec::new());
        }
        parsed
    }

    fn refuse(&mut self, diagnostic: Diagnostic) {
        self.partial = true;
        self.diagnostics.push(diagnostic);
    }
}

/// How a file is written, by its extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Toml,
    Yaml,
    Json,
}

impl Format {
    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "toml" => Some(Self::Toml),
            "yaml" | "yml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    fn parse(self, text: &str, file: u32, diagnostics: &mut Diagnostics) -> Parsed {
        match self {
            Self::Toml => toml::parse(text, file, diagnostics),
            Self::Yaml => yaml::parse(text, file, diagnostics),
            Self::Json => json::parse(text, file, diagnostics),
        }
    }
}

fn files_of(path: &Path) -> Result<Vec<PathBuf>, Diagnostic> {
    let unreadable = |error: std::io::Error| {
        Diagnostic::global("unreadable_file", format!("can't read {}: {error}", path.display()))
    };
    if !fs::metadata(path).map_err(unreadable)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !hidden && Format::of(&entry.path()).is_some() {
            files.push(entry.path());
        }
    }
    files.sort();
    match files.len() {
        0 => {
            let message = format!("no configuration file in the folder {}", path.display());
            Err(Diagnostic::global("unreadable_file", message).help("it reads *.toml, *.yaml, *.yml and *.json"))
        }
        count if count > MAX_FILES => {
            let message = format!("more than {MAX_FILES} files in the folder {}", path.display());
            Err(Diagnostic::global("unreadable_file", message))
        }
        _ => Ok(files),
    }
}

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let unreadable = |error: std::io::Error| format!("can't read {}: {error}", path.display());
    // before opening: opening a FIFO waits for a writer
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(format!("not a regular file: {}", path.display()));
    }
    let mut content = Vec::new();
    fs::File::open(path).map_err(unreadable)?.take(limit + 1).read_to_end(&mut content).map_err(unreadable)?;
    match u64::try_from(content.len()) {
        Ok(length) if length <= limit => Ok(content),
        _ => Err(format!("larger than {} MiB: {}", limit >> 20, path.display())),
    }
}

fn text_of(content: Vec<u8>, path: &Path) -> Result<String, String> {
    let text = String::from_utf8(content)
        .map_err(|error| format!("not UTF-8 text at byte {}: {}", error.utf8_error().valid_up_to(), path.display()))?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(without_mark) => without_mark.to_owned(),
        None => text,
    })
}

fn beside(sources: &Sources, naming: u32, path: &str) -> PathBuf {
    let folder = sources.get(naming).and_then(|file| Path::new(file.path.as_ref()).parent());
    folder.map_or_else(|| PathBuf::from(path), |folder| folder.join(path))
}

struct Files<'a> {
    variables: Option<&'a HashMap<String, String>>,
    sources: &'a Sources,
    read: Vec<PathBuf>,
}

impl Lookups for Files<'_> {
    fn variable(&mut self, name: &str) -> Result<String, String> {
        let found = match self.variables {
            Some(variables) => variables.get(name).cloned(),
            None => match std::env::var(name) {
                Err(std::env::VarError::NotUnicode(_)) => {
                    return Err(format!("the environment variable is not UTF-8 text: {name}"));
                }
                found => found.ok(),
            },
        };
        found.ok_or_else(|| format!("the environment variable is not set: {name}"))
    }

    fn file(&mut self, path: &str, naming: u32) -> Result<String, String> {
        let path = beside(self.sources, naming, path);
        let content = read_bounded(&path, MAX_SECRET).and_then(|content| text_of(content, &path));
        self.read.push(path);
        let mut content = content?;
        if content.ends_with('\n') {
            content.pop();
            if content.ends_with('\r') {
                content.pop();
            }
        }
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect("it is writable");
        }
        folder
    }

    fn load(path: &Path) -> Loaded {
        Loader::with_variables(HashMap::from([("TOKEN".to_owned(), "hush".to_owned())])).load(path)
    }

    #[track_caller]
    fn check(loaded: &Loaded, expected: &[(&str, &str)]) {
        let found: Vec<_> = loaded.diagnostics.as_slice().iter().map(|d| (d.code, d.message.as_str())).collect();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for ((code, message), (expected_code, part)) in found.iter().zip(expected) {
            assert!(code == expected_code && message.contains(part), "{found:?}");
        }
    }

    #[test]
    fn a_folder_is_merged_in_the_order_of_names() {
        let folder = folder(&[
            ("b.yaml", "route:\n- n: 2\n"),
            ("a.toml", "[[route]]\nn = 1\n"),
            ("c.json", r#"{"route": [{"n": 3}], "x": 1}"#),
            ("d.yml", ""),
            (".hidden.toml", "nonsense"),
            ("notes.txt", "nonsense"),
        ]);
        let loaded = load(folder.path());
        check(&loaded, &[]);
        assert_eq!(secrets::redacted(&loaded.root).to_string(), r#"{"route":[{"n":1},{"n":2},{"n":3}],"x":1}"#);
        assert_eq!(loaded.sources.files().len(), 4);
        assert_eq!(loaded.files.len(), 5, "the four files and the folder: {:?}", loaded.files);
    }

    #[test]
    fn references_resolve_beside_the_file_and_are_watched() {
        let folder = folder(&[("a.toml", "a = 'Bearer ${env:TOKEN}'\nb = '${file:key}'"), ("key", "secret\r\n")]);
        let loaded = load(&folder.path().join("a.toml"));
        check(&loaded, &[]);
        assert_eq!(loaded.root.get("a").unwrap().value, Value::String("Bearer hush".to_owned()));
        assert_eq!(loaded.root.get("b").unwrap().value, Value::String("secret".to_owned()));
        assert!(loaded.files.contains(&folder.path().join("key")));
    }

    #[test]
    fn what_cannot_be_read_is_a_diagnostic() {
        let folder = folder(&[("a.txt", ""), ("list.json", "[]"), ("s.toml", "a = '${file:nope}'\nb = '${env:NOPE}'")]);
        check(&load(&folder.path().join("none.toml")), &[("unreadable_file", "No such file")]);
        check(&load(&folder.path().join("a.txt")), &[("unknown_format", "a.txt")]);
        check(&load(&folder.path().join("list.json")), &[("wrong_type", "found a list")]);
        let loaded = load(&folder.path().join("s.toml"));
        check(&loaded, &[("unreadable_file", "nope"), ("unset_variable", "NOPE")]);
        assert!(loaded.files.contains(&folder.path().join("nope")), "a missing file is watched for");
        fs::write(folder.path().join("latin.toml"), b"a = '\xff'").expect("it is writable");
        check(&load(&folder.path().join("latin.toml")), &[("unreadable_file", "not UTF-8 text at byte 5")]);
        let empty = tempfile::tempdir().expect("a temporary folder");
        check(&load(empty.path()), &[("unreadable_file", "no configuration file in the folder")]);
    }

    #[test]
    fn a_fifo_or_a_folder_in_place_of_a_file_neither_hangs_nor_panics() {
        let folder = folder(&[("s.toml", "a = '${file:fifo}'\nb = '${file:.}'")]);
        let fifo = folder.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo is a standard command");
        assert!(made.success());
        check(
            &load(&folder.path().join("s.toml")),
            &[("unreadable_file", "not a regular"), ("unreadable_file", "not a regular")],
        );
        fs::create_dir(folder.path().join("dir.toml")).expect("it is writable");
        check(
            &load(folder.path()),
            &[
                ("unreadable_file", "not a regular"),
                ("unreadable_file", "not a regular"),
                ("unreadable_file", "not a regular"),
            ],
        );
        check(&load(Path::new("/dev/null")), &[("unknown_format", "/dev/null")]);
    }

    #[test]
    fn files_are_bounded() {
        let folder = folder(&[]);
        let big = folder.path().join("big.toml");
        fs::File::create(&big).and_then(|file| file.set_len(MAX_FILE + 1)).expect("a sparse file");
        check(&load(&big), &[("unreadable_file", "larger than 8 MiB")]);
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_the_text() {
        let folder = folder(&[("a.json", "\u{feff}{\"a\": 1}")]);
        check(&load(&folder.path().join("a.json")), &[]);
    }

    #[test]
    fn assets_are_read_beside_the_file_that_names_them() {
        let folder = folder(&[("a.toml", "cert = 'a.pem'\nkey = 'b.pem'"), ("a.pem", "pem")]);
        let loaded = load(&folder.path().join("a.toml"));
        let named = |key: &str| super::super::de::from_node::<Spanned<String>>(loaded.root.get(key).unwrap()).unwrap();
        let assets = Loader::from_environment().assets(&loaded.sources, [&named("cert"), &named("key")]);
        assert_eq!(assets.get(&named("cert")), Ok(&Bytes::from_static(b"pem")));
        assert!(assets.get(&named("key")).is_err_and(|why| why.contains("b.pem")));
    }
}
