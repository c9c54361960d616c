//! Who is known by name: the consumers file, with API keys and passwords as hashes only.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::password::{PasswordHash, Verified};
use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::principal::{AuthMethod, Principal};
use crate::model::source::{SourceSpan, Spanned};

/// The consumers file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Document {
    /// `[consumer.NAME]`: those who may call, by name.
    pub consumer: BTreeMap<String, Spanned<ConsumerConfig>>,
}

/// `[consumer.NAME]`: one who may call. The name is what limits, logs and upstreams are told, and the user name of `basic`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ConsumerConfig {
    /// Its API keys, each as `"sha256:"` and the SHA-256 of the key in hexadecimal: `portcullis hash key` prints it, or
    /// `printf %s "$KEY" | sha256sum`. Keys are long and random, which is why a fast hash is enough. Default: none.
    pub api_keys: Vec<Spanned<String>>,
    /// The hash of its password: argon2id in PHC format (`$argon2id$v=19$m=19456,t=2,p=1$...`, as `portcullis hash password`
    /// prints it) or bcrypt (`$2b$12$...`, as `htpasswd -nB` prints it). Default: none, so no `basic`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic: Option<Spanned<String>>,
    /// The groups that it is in. Default: none.
    pub groups: Vec<Spanned<String>>,
}

/// The compiled consumers. What was found out about passwords lives as long as they do.
pub struct Consumers {
    document: Document,
    all: Vec<Consumer>,
    by_key: HashMap<KeyDigest, usize>,
    by_name: HashMap<Box<str>, usize>,
    /// What the password of an unknown user is checked against.
    costliest: Option<Arc<PasswordHash>>,
    verified: Verified,
}

struct Consumer {
    by_key: Arc<Principal>,
    by_password: Arc<Principal>,
    password: Option<Arc<PasswordHash>>,
}

/// No hash is shown.
impl fmt::Debug for Consumers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumers").field("count", &self.all.len()).finish_non_exhaustive()
    }
}

/// The SHA-256 of a key. The map is keyed by a hash of it that is keyed itself and differs in each process; two digests are
/// compared in constant time.
#[derive(Clone, Copy, Eq)]
struct KeyDigest([u8; 32]);

impl PartialEq for KeyDigest {
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Hash for KeyDigest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

/// Reads the consumers; those of before, if nothing about them has changed.
pub fn compile(
    document: &Document,
    previous: Option<&Arc<Consumers>>,
    diagnostics: &mut Diagnostics,
) -> Option<Arc<Consumers>> {
    if let Some(previous) = previous.filter(|previous| previous.document == *document) {
        return Some(Arc::clone(previous));
    }
    let errors = diagnostics.errors();
    let mut consumers = Consumers {
        document: document.clone(),
        all: Vec::new(),
        by_key: HashMap::new(),
        by_name: HashMap::new(),
        costliest: None,
        verified: Verified::default(),
    };
    let mut places: HashMap<KeyDigest, SourceSpan> = HashMap::new();
    for (name, config) in &document.consumer {
        let index = consumers.all.len();
        check_name(name, config.span, diagnostics);
        for written in &config.api_keys {
            let Some(key) = key_digest(written, diagnostics) else { continue };
            if let Some(first) = places.insert(key, written.span) {
                let twice =
                    Diagnostic::error("duplicate", written.span, "an API key of two consumers, or twice of one");
                diagnostics.push(twice.related(first, "first here").help("a key says who calls: give each its own"));
            }
            consumers.by_key.insert(key, index);
        }
        let password =
            config.basic.as_ref().and_then(|written| PasswordHash::compile(written, diagnostics)).map(Arc::new);
        if let Some(password) = &password
            && consumers.costliest.as_ref().is_none_or(|costliest| costliest.cost() < password.cost())
        {
            consumers.costliest = Some(Arc::clone(password));
        }
        let groups: Vec<Arc<str>> = config.groups.iter().map(|group| group.value.as_str().into()).collect();
        let shared: Arc<str> = name.as_str().into();
        let principal =
            |method| Arc::new(Principal::new(Arc::clone(&shared), method, groups.iter().map(Arc::clone), None));
        let by_key = principal(AuthMethod::ApiKey);
        consumers.all.push(Consumer { by_key, by_password: principal(AuthMethod::Basic), password });
        consumers.by_name.insert(name.as_str().into(), index);
    }
    (diagnostics.errors() == errors).then(|| Arc::new(consumers))
}

fn check_name(name: &str, span: SourceSpan, diagnostics: &mut Diagnostics) {
    // it is a user name of RFC 7617, which has no colon, and stands in fields that go upstream
    let is_bad = |letter: char| letter == ':' || letter == ',' || letter.is_control();
    if name.is_empty() || name.len() > 128 || name.contains(is_bad) {
        let message = format!("not a name for a consumer: {name:?}");
        diagnostics.push(
            Diagnostic::error("bad_value", span, message)
                .help("a name has 1 to 128 bytes without `:`, `,` and control characters"),
        );
    }
}

fn key_digest(written: &Spanned<String>, diagnostics: &mut Diagnostics) -> Option<KeyDigest> {
    let parsed = written.value.strip_prefix("sha256:").and_then(hex);
    if parsed.is_none() {
        // What was written may be the key itself, so it is not repeated.
        diagnostics.push(
            Diagnostic::error("bad_value", written.span, "not the SHA-256 of a key").help(
                "write \"sha256:\" and 64 hexadecimal digits, as `portcullis hash key` prints them; keys are never stored as they are",
            ),
        );
    }
    parsed.map(KeyDigest)
}

fn hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    let mut digits = text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()));
    for byte in &mut bytes {
        *byte = digits.next()?? << 4 | digits.next()??;
    }
    Some(bytes)
}

/// How the consumers file writes an API key.
#[must_use]
pub fn hashed_key(key: &[u8]) -> String {
    use fmt::Write as _;
    let mut text = "sha256:".to_owned();
    for byte in digest(&SHA256, key).as_ref() {
        // writing into a string can't fail
        let _ = write!(text, "{byte:02x}");
    }
    text
}

impl Consumers {
    /// Whose key it is.
    pub(super) fn by_key(&self, key: &[u8]) -> Option<&Arc<Principal>> {
        let digest = KeyDigest(digest(&SHA256, key).as_ref().try_into().ok()?);
        self.all.get(*self.by_key.get(&digest)?).map(|consumer| &consumer.by_key)
    }

    /// The consumer of that user name who has a password.
    pub(super) fn by_user(&self, name: &str) -> Option<(&Arc<Principal>, &Arc<PasswordHash>)> {
        let consumer = self.all.get(*self.by_name.get(name)?)?;
        Some((&consumer.by_password, consumer.password.as_ref()?))
    }

    /// The groups of a consumer, for callers that other methods know by the same name.
    pub(super) fn groups(&self, name: &str) -> &[Arc<str>] {
        let consumer = self.by_name.get(name).and_then(|index| self.all.get(*index));
        consumer.map_or(&[], |consumer| consumer.by_key.groups())
    }

    /// A hash that costs as much to check as any.
    pub(super) const fn costliest(&self) -> Option<&Arc<PasswordHash>> {
        self.costliest.as_ref()
    }

    pub(super) const fn verified(&self) -> &Verified {
        &self.verified
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(consumers: &[(&str, &[&str])]) -> Document {
        let config = |keys: &[&str]| ConsumerConfig {
            api_keys: keys.iter().map(|key| (*key).to_owned().into()).collect(),
            groups: vec!["staff".to_owned().into()],
            ..ConsumerConfig::default()
        };
        let entry = |(name, keys): &(&str, &[&str])| ((*name).to_owned(), config(keys).into());
        Document { consumer: consumers.iter().map(entry).collect() }
    }

    #[test]
    fn a_key_says_whose_it_is() {
        let (ann, bob) =
            (hashed_key(b"key of ann"), hashed_key(b"key of bob").to_uppercase().replace("SHA256", "sha256"));
        let document = document(&[("ann", &[&ann, &hashed_key(b"another")]), ("bob", &[&bob])]);
        let consumers = compile(&document, None, &mut Diagnostics::default()).expect("valid");
        let name = |key: &str| consumers.by_key(key.as_bytes()).map(|principal| principal.name().to_owned());
        assert_eq!(name("key of ann").as_deref(), Some("ann"));
        assert_eq!(name("another").as_deref(), Some("ann"));
        assert_eq!(name("key of bob").as_deref(), Some("bob"));
        for wrong in ["", "key of an", "key of ann ", &ann] {
            assert_eq!(name(wrong), None, "{wrong}");
        }
        let shown = format!("{consumers:?}");
        assert!(!shown.contains("sha256"), "{shown}");
    }

    #[test]
    fn unchanged_consumers_live_on_over_a_reload() {
        let key = hashed_key(b"k");
        let before = compile(&document(&[("ann", &[&key])]), None, &mut Diagnostics::default()).expect("valid");
        let same = compile(&document(&[("ann", &[&key])]), Some(&before), &mut Diagnostics::default()).expect("valid");
        assert!(Arc::ptr_eq(&before, &same));
        let other = compile(&document(&[("ann", &[])]), Some(&before), &mut Diagnostics::default()).expect("valid");
        assert!(!Arc::ptr_eq(&before, &other) && other.by_key(b"k").is_none());
    }

    #[test]
    fn mistakes_do_not_repeat_what_may_be_a_secret() {
        #[track_caller]
        fn check(consumers: &[(&str, &[&str])], code: &str) {
            let mut diagnostics = Diagnostics::default();
            assert!(compile(&document(consumers), None, &mut diagnostics).is_none());
            let found = diagnostics.as_slice().first().expect("found");
            assert_eq!(found.code, code);
            assert!(!found.message.contains("hunter2"), "{}", found.message);
        }
        check(&[("ann", &["hunter2"])], "bad_value");
        check(&[("ann", &["sha256:hunter2"])], "bad_value");
        check(&[("ann", &[&format!("sha256:{}é", "0".repeat(62))])], "bad_value");
        check(&[("a:b", &[])], "bad_value");
        let key = hashed_key(b"k");
        check(&[("ann", &[&key]), ("bob", &[&key])], "duplicate");
    }
}
