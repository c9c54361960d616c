//! Which certificate a client is shown: by the name that it asks for (SNI, RFC 6066 §3) and the keys it can verify.
//!
//! An exact name goes before a wildcard, a wildcard stands for exactly one label (RFC 9525 §6.3), and an unknown name
//! or none gets the first certificate: the client then sees a name that does not match, which says more than an alert.
//! Several certificates of one name are told apart by kind of key (RSA for old clients beside ECDSA).
//! Names come from the subject alternative names alone; the common name has not counted since RFC 9110 §4.3.4.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Certificates of one name in the order of the configuration; never empty.
type Candidates = Vec<Arc<CertifiedKey>>;

/// The certificates of one listener by name. Compiled once; a look-up costs one hash, a wildcard two.
#[derive(Default)]
pub(super) struct BySni {
    exact: HashMap<Box<str>, Candidates>,
    /// Keyed by what follows `*.`.
    wildcard: HashMap<Box<str>, Candidates>,
    default: Candidates,
}

/// A certificate that nobody will be shown under a name, because an earlier one has the same name and kind of key.
pub(super) struct Shadowed;

impl BySni {
    /// Adds a certificate under its names; the first one added is also the default. One without names is only that.
    pub(super) fn add(&mut self, key: &Arc<CertifiedKey>, names: &[String]) -> Result<(), Shadowed> {
        if self.default.is_empty() || names.iter().any(|name| self.is_of_default(name)) {
            self.default.push(Arc::clone(key));
        }
        let mut shadowed = Ok(());
        for name in names {
            let candidates = match name.strip_prefix("*.") {
                Some(rest) => self.wildcard.entry(rest.into()).or_default(),
                None => self.exact.entry(name.as_str().into()).or_default(),
            };
            if candidates.iter().any(|earlier| earlier.key.algorithm() == key.key.algorithm()) {
                shadowed = Err(Shadowed);
            }
            candidates.push(Arc::clone(key));
        }
        shadowed
    }

    /// The certificate for a name, as far as the client can verify its kind of key; else the first of the name.
    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let candidates = name.and_then(|name| self.named(name)).unwrap_or(&self.default);
        let fitting = candidates.iter().find(|candidate| candidate.key.choose_scheme(schemes).is_some());
        fitting.or(candidates.first()).cloned()
    }

    fn named(&self, name: &str) -> Option<&Candidates> {
        self.exact.get(name).or_else(|| self.wildcard.get(name.split_once('.')?.1))
    }

    /// Whether the default certificate has that name: its siblings of other kinds of key serve unknown names too.
    fn is_of_default(&self, name: &str) -> bool {
        let of_name = match name.strip_prefix("*.") {
            Some(rest) => self.wildcard.get(rest),
            None => self.exact.get(name),
        };
        let (Some(of_name), Some(default)) = (of_name, self.default.first()) else { return false };
        of_name.iter().any(|key| Arc::ptr_eq(key, default))
    }
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls has brought the name into lower case
        self.choose(hello.server_name(), hello.signature_schemes())
    }
}

impl fmt::Debug for BySni {
    /// Names alone: the certificates come with their keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BySni")
            .field("exact", &self.exact.keys())
            .field("wildcard", &self.wildcard.keys())
            .finish_non_exhaustive()
    }
}
