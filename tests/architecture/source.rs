//! Source files as the rules see them, what a rule finds, and where in the module tree a piece of code stands.

use std::fmt;
use std::path::Path;

use syn::visit::{self, Visit};
use syn::{Attribute, Item};

/// A text file of the package.
#[derive(Debug)]
pub struct Source {
    /// Relative to the package, with `/`.
    pub path: String,
    pub text: String,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    pub fn syntax(&self) -> syn::File {
        syn::parse_file(&self.text).unwrap_or_else(|error| panic!("{}: {error}", self.path))
    }

    /// The module that the file is: `["policy", "cors"]` for `src/policy/cors.rs`, `["main"]` for the binary, nothing
    /// for `src/lib.rs`. None for a file outside of `src/`.
    pub fn module(&self) -> Option<Vec<String>> {
        let inner = self.path.strip_prefix("src/")?.strip_suffix(".rs")?;
        let mut module: Vec<String> = inner.split('/').map(str::to_owned).collect();
        if module.last().is_some_and(|last| last == "mod" || last == "lib") {
            module.pop();
        }
        Some(module)
    }

    /// Whether the whole file is test code by its name, as in `#[cfg(test)] mod tests;`.
    pub fn is_test(&self) -> bool {
        let mut parts = self.path.split(['/', '.']);
        !self.path.starts_with("src/") || parts.any(|part| part == "tests")
    }
}

/// One broken rule at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub path: String,
    pub line: usize,
    pub sentence: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.sentence)
    }
}

impl Source {
    pub fn finding(&self, line: usize, sentence: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line, sentence: sentence.into() }
    }
}

/// Fails the test with one line per finding.
#[track_caller]
pub fn assert_none(findings: &[Finding]) {
    let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert!(lines.is_empty(), "{} broken rule(s)\n{}", lines.len(), lines.join("\n"));
}

/// Holds a rule against a planted text: the sentences' beginnings and their lines, in order.
#[track_caller]
pub fn assert_finds(findings: &[Finding], expected: &[(usize, &str)]) {
    let found: Vec<String> = findings.iter().map(|finding| format!("{}: {}", finding.line, finding.sentence)).collect();
    let fits = findings.len() == expected.len()
        && findings
            .iter()
            .zip(expected)
            .all(|(finding, (line, part))| finding.line == *line && finding.sentence.contains(part));
    assert!(fits, "expected {expected:?}, found {found:#?}");
}

/// The package's files with one of these extensions below these folders, sorted by path.
pub fn files_below(folders: &[&str], extensions: &[&str]) -> Vec<Source> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    for folder in folders {
        collect(&package.join(folder), package, extensions, &mut sources);
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

/// Every Rust file below `src/`.
pub fn library() -> Vec<Source> {
    let sources = files_below(&["src"], &["rs"]);
    assert!(!sources.is_empty(), "no source file found below src/");
    sources
}

fn collect(folder: &Path, package: &Path, extensions: &[&str], sources: &mut Vec<Source>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if !["target", "work", "node_modules", "__pycache__"].contains(&name) {
                collect(&path, package, extensions, sources);
            }
        } else if extensions.iter().any(|extension| name.ends_with(extension)) {
            let relative = path.strip_prefix(package).unwrap().to_str().unwrap().replace('\\', "/");
            sources.push(Source { path: relative, text: std::fs::read_to_string(&path).unwrap() });
        }
    }
}

/// What a walk over a file meets: every path that the code names, and every attribute, each outside of test code.
pub trait Meets {
    /// A path as written (`["super", "cors", "Config"]`), with the module that it is written in.
    fn path(&mut self, module: &[String], path: &[String], line: usize);
    /// An attribute's text without white space, with the name of the item that it stands on when that is a module.
    fn attribute(&mut self, _text: &str, _on_module: Option<&str>, _line: usize) {}
}

/// Walks the code of a file that is not test code.
pub fn walk(source: &Source, meets: &mut impl Meets) {
    let Some(module) = source.module() else { return };
    if !source.is_test() {
        let syntax = source.syntax();
        let mut walk = Walk { module, meets };
        syntax.attrs.iter().for_each(|attribute| walk.attribute(attribute, None));
        walk.visit_file(&syntax);
    }
}

struct Walk<'m, M> {
    module: Vec<String>,
    meets: &'m mut M,
}

impl<M: Meets> Walk<'_, M> {
    fn meet(&mut self, segments: &[&syn::Ident]) {
        if let Some(first) = segments.first() {
            let names: Vec<String> = segments.iter().map(ToString::to_string).collect();
            self.meets.path(&self.module, &names, first.span().start().line);
        }
    }

    fn attribute(&mut self, attribute: &Attribute, on_module: Option<&str>) {
        let text = match &attribute.meta {
            syn::Meta::List(list) => list.tokens.to_string().split_whitespace().collect(),
            _ => String::new(),
        };
        self.meets.attribute(&text, on_module, attribute.pound_token.span.start().line);
    }

    fn use_tree<'t>(&mut self, before: &mut Vec<&'t syn::Ident>, tree: &'t syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => {
                before.push(&path.ident);
                self.use_tree(before, &path.tree);
                before.pop();
            }
            syn::UseTree::Name(syn::UseName { ident }) | syn::UseTree::Rename(syn::UseRename { ident, .. }) => {
                if ident != "self" {
                    before.push(ident);
                }
                self.meet(before);
                if ident != "self" {
                    before.pop();
                }
            }
            syn::UseTree::Glob(_) => self.meet(before),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.use_tree(before, tree)),
        }
    }

    /// Macro calls are tokens to `syn`: every `a::b::c` in them counts as a path.
    fn tokens(&mut self, tokens: proc_macro2::TokenStream) {
        let mut path: Vec<syn::Ident> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                proc_macro2::TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.meet(&path.iter().collect::<Vec<_>>());
                        path.clear();
                    }
                    path.push(ident);
                    colons = 0;
                }
                proc_macro2::TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.meet(&path.iter().collect::<Vec<_>>());
                    path.clear();
                    colons = 0;
                    if let proc_macro2::TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.meet(&path.iter().collect::<Vec<_>>());
    }
}

impl<'ast, M: Meets> Visit<'ast> for Walk<'_, M> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = attributes_of(item);
        if attributes.iter().any(is_test_only) {
            return;
        }
        let module = if let Item::Mod(module) = item { Some(module.ident.to_string()) } else { None };
        for attribute in attributes {
            self.attribute(attribute, module.as_deref());
        }
        match (item, module) {
            (Item::Mod(syn::ItemMod { content: Some((_, items)), .. }), Some(name)) => {
                self.module.push(name);
                for item in items {
                    self.visit_item(item);
                }
                self.module.pop();
            }
            (Item::Use(item), _) => self.use_tree(&mut Vec::new(), &item.tree),
            _ => visit::visit_item(self, item),
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !function.attrs.iter().any(is_test_only) {
            function.attrs.iter().for_each(|attribute| self.attribute(attribute, None));
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.meet(&path.segments.iter().map(|segment| &segment.ident).collect::<Vec<_>>());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.tokens(call.tokens.clone());
    }

    // `pub(crate)` names no module, and attributes are met above
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}
    fn visit_attribute(&mut self, _: &'ast Attribute) {}
}

fn is_test_only(attribute: &Attribute) -> bool {
    match &attribute.meta {
        syn::Meta::Path(path) => path.is_ident("test"),
        syn::Meta::List(list) if list.path.is_ident("cfg") => {
            let condition = list.tokens.to_string();
            condition.split(|c: char| !c.is_alphanumeric()).any(|word| word == "test") && !condition.contains("not")
        }
        _ => false,
    }
}

fn attributes_of(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// A path in full from the crate's root, or None when it names another crate or something in scope.
pub fn resolve(module: &[String], path: &[String]) -> Option<Vec<String>> {
    let mut resolved = match path.first().map(String::as_str) {
        Some("crate") => Vec::new(),
        Some("self" | "super") => module.to_vec(),
        _ => return None,
    };
    for segment in path {
        match segment.as_str() {
            "crate" | "self" => {}
            "super" => {
                resolved.pop();
            }
            name => resolved.push(name.to_owned()),
        }
    }
    Some(resolved)
}
