//! The keys of an issuer (RFC 7517), and what is known of how fresh they are.
//!
//! A key is used with the algorithms that it is made for, never with what a token asks for (RFC 8725 §3.1): RSA keys check
//! RSA signatures, keys of a curve those of that curve. Symmetric keys are left out: whoever can check a token with them can
//! make one. Keys from a URL are fetched by others, who hand the text to [`KeyRing::fetched`]; here is decided when that is
//! due, how long old keys hold while the issuer is silent, and which ids are known not to exist.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::clock::Instant;

/// The most keys of one issuer that are used.
const MAX_KEYS: usize = 64;
/// The longest key id.
pub(super) const MAX_KID: usize = 256;
/// How long an id that the issuer does not have is believed not to exist. Short, because somebody may guess the next one and
/// ask for it before the issuer uses it; whoever fetches holds the rate down anyway.
const UNKNOWN_FOR: Duration = Duration::from_secs(2);
/// How many of them are remembered.
const MAX_UNKNOWN: usize = 1024;

/// A signature algorithm of RFC 7518 or RFC 8037.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RS384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RS512,
    /// RSASSA-PSS with SHA-256.
    PS256,
    /// RSASSA-PSS with SHA-384.
    PS384,
    /// RSASSA-PSS with SHA-512.
    PS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// ECDSA on P-521 with SHA-512.
    ES512,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl Algorithm {
    const OF_RSA: [Self; 6] = [Self::RS256, Self::RS384, Self::RS512, Self::PS256, Self::PS384, Self::PS512];

    /// The algorithm that `alg` names; `None` for every other one, `none` and the symmetric ones included.
    pub(super) fn named(alg: &str) -> Option<Self> {
        Some(match alg {
            "RS256" => Self::RS256,
            "RS384" => Self::RS384,
            "RS512" => Self::RS512,
            "PS256" => Self::PS256,
            "PS384" => Self::PS384,
            "PS512" => Self::PS512,
            "ES256" => Self::ES256,
            "ES384" => Self::ES384,
            "ES512" => Self::ES512,
            // RFC 9864 names the curve
            "EdDSA" | "Ed25519" => Self::EdDsa,
            _ => return None,
        })
    }

    const fn rsa(self) -> Option<&'static RsaParameters> {
        Some(match self {
            Self::RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::RS384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::RS512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Self::PS256 => &signature::RSA_PSS_2048_8192_SHA256,
            Self::PS384 => &signature::RSA_PSS_2048_8192_SHA384,
            Self::PS512 => &signature::RSA_PSS_2048_8192_SHA512,
            Self::ES256 | Self::ES384 | Self::ES512 | Self::EdDsa => return None,
        })
    }
}

/// One public key, ready for each algorithm that it may be used with.
#[derive(Debug, Clone)]
struct Key {
    kid: Option<Box<str>>,
    checks: Vec<(Algorithm, ParsedPublicKey)>,
}

/// What a search for the key of a token came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// The signature is that of the key.
    Valid,
    /// There are keys for it, and it is not theirs.
    Invalid,
    /// No key has the id.
    UnknownKey,
    /// There are no keys, or none that still hold.
    NoKeys,
}

/// Where keys come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeySource {
    /// A file, read with the configuration: its content.
    File(Box<[u8]>),
    /// A URL.
    Url {
        /// Scheme, host and port: the name of the upstream that is asked.
        origin: Box<str>,
        /// Path and query.
        target: Box<str>,
    },
}

/// How keys are kept fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Freshness {
    /// When they are fetched again.
    pub refresh: Duration,
    /// How old they may become while that does not succeed.
    pub max_stale: Duration,
    /// How long one fetch may take.
    pub timeout: Duration,
}

/// The keys of one issuer, shared by the routes that name the same source with the same settings, and kept over reloads
/// while these are equal.
pub struct KeyRing {
    source: KeySource,
    freshness: Freshness,
    held: ArcSwap<Held>,
    unknown: Mutex<HashMap<u64, Instant>>,
    state: RandomState,
}

#[derive(Debug, Default)]
struct Held {
    keys: Arc<[Key]>,
    /// When they came; `None` before the first time, and for a file.
    at: Option<Instant>,
    failures: u64,
    tried: Option<Instant>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").field("freshness", &self.freshness).finish_non_exhaustive()
    }
}

/// What the admin API shows of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingStatus {
    /// How many keys are held.
    pub keys: usize,
    /// How old they are; `None` for a file, and before they came.
    pub age: Option<Duration>,
    /// Fetches that failed since the last good one.
    pub failures: u64,
}

impl KeyRing {
    /// A ring without keys, for a URL.
    #[must_use]
    pub fn of_url(origin: &str, target: &str, freshness: Freshness) -> Self {
        Self::new(KeySource::Url { origin: origin.into(), target: target.into() }, freshness, Held::default())
    }

    /// The ring of a file with that content.
    pub fn of_file(content: &[u8], freshness: Freshness) -> Result<Self, &'static str> {
        let held = Held { keys: parse(content)?.into(), ..Held::default() };
        Ok(Self::new(KeySource::File(content.into()), freshness, held))
    }

    fn new(source: KeySource, freshness: Freshness, held: Held) -> Self {
        let held = ArcSwap::from_pointee(held);
        Self { source, freshness, held, unknown: Mutex::default(), state: RandomState::new() }
    }

    /// Where the keys come from.
    #[must_use]
    pub const fn source(&self) -> &KeySource {
        &self.source
    }

    /// How they are kept fresh.
    #[must_use]
    pub const fn freshness(&self) -> Freshness {
        self.freshness
    }

    /// When the keys have to be fetched; `None` for a file. After a failure it is tried again soon, ever less often.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        if matches!(self.source, KeySource::File(_)) {
            return None;
        }
        let held = self.held.load();
        let Some(tried) = held.tried else { return Some(Instant::default()) };
        if held.failures == 0 {
            return Some(tried.after(self.freshness.refresh));
        }
        let backoff = Duration::from_secs(1 << held.failures.min(5));
        Some(tried.after(backoff.min(self.freshness.refresh)))
    }

    /// Takes what a fetch brought at `now`: the text of the keys, or nothing. Keys that were held go on if it is no good.
    pub fn fetched(&self, text: Option<&[u8]>, now: Instant) -> Result<(), &'static str> {
        let parsed = text.ok_or("no answer").and_then(parse);
        let before = self.held.load_full();
        match parsed {
            Ok(keys) => {
                self.held.store(Arc::new(Held { keys: keys.into(), at: Some(now), failures: 0, tried: Some(now) }));
                Ok(())
            }
            Err(why) => {
                self.held.store(Arc::new(Held {
                    keys: Arc::clone(&before.keys),
                    at: before.at,
                    failures: before.failures.saturating_add(1),
                    tried: Some(now),
                }));
                Err(why)
            }
        }
    }

    /// Whether there is a key of that id; for an empty one, any key.
    #[must_use]
    pub fn has(&self, kid: &str) -> bool {
        self.held.load().keys.iter().any(|key| kid.is_empty() || key.kid.as_deref() == Some(kid))
    }

    /// Notes that the issuer has just been asked and has no such key.
    pub(super) fn note_unknown(&self, kid: &str, now: Instant) {
        let mut unknown = self.unknown.lock();
        if unknown.len() >= MAX_UNKNOWN {
            unknown.retain(|_, end| now < *end);
        }
        if unknown.len() >= MAX_UNKNOWN {
            unknown.clear();
        }
        unknown.insert(self.state.hash_one(kid), now.after(UNKNOWN_FOR));
    }

    const fn is_fetched(&self) -> bool {
        matches!(self.source, KeySource::Url { .. })
    }

    /// Whether the last fetch failed, so that a key may exist and not be known here.
    pub(super) fn is_behind(&self) -> bool {
        self.held.load().failures > 0
    }

    /// Whether it makes sense to fetch keys for want of any: not when that failed a moment ago.
    pub(super) fn may_fetch(&self, now: Instant) -> bool {
        const PAUSE: Duration = Duration::from_secs(1);
        let held = self.held.load();
        self.is_fetched() && !(held.failures > 0 && held.tried.is_some_and(|tried| now.since(tried) < PAUSE))
    }

    /// Whether it makes sense to fetch the keys on account of this id.
    pub(super) fn may_fetch_for(&self, kid: &str, now: Instant) -> bool {
        self.is_fetched() && self.unknown.lock().get(&self.state.hash_one(kid)).is_none_or(|end| now >= *end)
    }

    /// Checks a signature. Without an id every key that fits the algorithm is tried.
    pub(super) fn check(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
        now: Instant,
    ) -> Found {
        let held = self.held.load();
        let too_old = held.at.is_some_and(|at| now.since(at) > self.freshness.max_stale.max(self.freshness.refresh));
        if too_old || held.keys.is_empty() {
            return Found::NoKeys;
        }
        let mut is_known = false;
        for key in held.keys.iter().filter(|key| kid.is_none_or(|kid| key.kid.as_deref() == Some(kid))) {
            is_known = true;
            let check = key.checks.iter().find(|(made_for, _)| *made_for == algorithm);
            if check.is_some_and(|(_, key)| key.verify_sig(message, signature).is_ok()) {
                return Found::Valid;
            }
        }
        if is_known || kid.is_none() { Found::Invalid } else { Found::UnknownKey }
    }

    /// What is known of it.
    #[must_use]
    pub fn status(&self, now: Instant) -> RingStatus {
        let held = self.held.load();
        RingStatus { keys: held.keys.len(), age: held.at.map(|at| now.since(at)), failures: held.failures }
    }
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    r#use: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// Reads a set of keys. Those that are not for checking signatures, or of a kind that is not known, are left out (RFC 7517
/// §5); a set in which none is left is an error.
fn parse(text: &[u8]) -> Result<Vec<Key>, &'static str> {
    let set: JwkSet = serde_json::from_slice(text).map_err(|_| "not a JSON Web Key Set")?;
    let jwks = set.keys.into_iter().filter_map(|jwk| serde_json::from_value::<Jwk>(jwk).ok());
    let keys: Vec<Key> = jwks.filter_map(|jwk| key(&jwk)).take(MAX_KEYS).collect();
    if keys.is_empty() { Err("no key that checks signatures") } else { Ok(keys) }
}

fn key(jwk: &Jwk) -> Option<Key> {
    let for_signatures = jwk.r#use.as_deref().is_none_or(|purpose| purpose == "sig")
        && jwk.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|operation| operation == "verify"));
    let kid = jwk.kid.as_deref().filter(|kid| kid.len() <= MAX_KID).map(Box::from);
    if !for_signatures || (kid.is_none() && jwk.kid.is_some()) {
        return None;
    }
    // An `alg` that is not known leaves the key without use.
    let wanted = match &jwk.alg {
        Some(alg) => Some(Algorithm::named(alg)?),
        None => None,
    };
    let checks = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => rsa(jwk, wanted)?,
        ("EC", Some("P-256")) => curve(jwk, Algorithm::ES256, &signature::ECDSA_P256_SHA256_FIXED, 32)?,
        ("EC", Some("P-384")) => curve(jwk, Algorithm::ES384, &signature::ECDSA_P384_SHA384_FIXED, 48)?,
        ("EC", Some("P-521")) => curve(jwk, Algorithm::ES512, &signature::ECDSA_P521_SHA512_FIXED, 66)?,
        ("OKP", Some("Ed25519")) => {
            let parsed = ParsedPublicKey::new(&signature::ED25519, decoded(jwk.x.as_deref()?)?).ok()?;
            vec![(Algorithm::EdDsa, parsed)]
        }
        _ => return None,
    };
    let fits = wanted.is_none_or(|wanted| checks.iter().all(|(algorithm, _)| *algorithm == wanted));
    fits.then_some(Key { kid, checks })
}

fn rsa(jwk: &Jwk, wanted: Option<Algorithm>) -> Option<Vec<(Algorithm, ParsedPublicKey)>> {
    let whole = |number: &str| {
        let bytes = decoded(number)?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        bytes.get(zeros..).filter(|rest| !rest.is_empty()).map(<[u8]>::to_vec)
    };
    let components = RsaPublicKeyComponents { n: whole(jwk.n.as_deref()?)?, e: whole(jwk.e.as_deref()?)? };
    let mut checks = Vec::new();
    for algorithm in Algorithm::OF_RSA.into_iter().filter(|algorithm| wanted.is_none_or(|wanted| wanted == *algorithm))
    {
        checks.push((algorithm, components.to_parsed_public_key(algorithm.rsa()?).ok()?));
    }
    (!checks.is_empty()).then_some(checks)
}

fn curve(
    jwk: &Jwk,
    algorithm: Algorithm,
    parameters: &'static dyn signature::VerificationAlgorithm,
    length: usize,
) -> Option<Vec<(Algorithm, ParsedPublicKey)>> {
    // an uncompressed point (SEC 1 §2.3.3); each coordinate has its full length (RFC 7518 §6.2.1.2)
    let (x, y) = (decoded(jwk.x.as_deref()?)?, decoded(jwk.y.as_deref()?)?);
    if x.len() != length || y.len() != length {
        return None;
    }
    let point = [&[4], x.as_slice(), y.as_slice()].concat();
    Some(vec![(algorithm, ParsedPublicKey::new(parameters, point).ok()?)])
}

pub(super) fn decoded(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}
