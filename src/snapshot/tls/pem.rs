//! PEM texts into certificates and keys, with every mistake in them as a diagnostic where the file is named.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};
use rustls_pki_types::pem::{Error as PemError, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::source::SourceSpan;

/// A certificate chain and its private key, as PEM texts. No `Debug`: it holds a key.
#[derive(Clone, Copy)]
pub struct KeyPair<'a> {
    /// The certificate, then its issuers without the root.
    pub chain: &'a [u8],
    /// The private key in PKCS#8, PKCS#1 or SEC1, unencrypted.
    pub key: &'a [u8],
    /// Where the pair is named.
    pub span: SourceSpan,
}

/// Certificates of authorities, as PEM text.
#[derive(Clone, Copy)]
pub struct CaBundle<'a> {
    /// One certificate or more.
    pub pem: &'a [u8],
    /// Where the bundle is named.
    pub span: SourceSpan,
}

/// A key pair that fits together, and the names for which its certificate was issued.
pub(super) struct Loaded {
    pub(super) key: Arc<CertifiedKey>,
    /// DNS names, in lower case; a wildcard as `*.example.com`.
    pub(super) names: Vec<String>,
}

/// Reads a key pair. Warns of a certificate out of its time at `now`; it is served nevertheless, because a client that
/// complains is better than a listener that is gone.
pub(super) fn load_key_pair(
    pair: &KeyPair<'_>,
    now: UnixTime,
    provider: &CryptoProvider,
    diagnostics: &mut Diagnostics,
) -> Option<Loaded> {
    let chain = read_certificates(pair.chain, "bad_certificate", pair.span, diagnostics);
    let key = read_key(pair, provider, diagnostics);
    let (chain, key) = (chain?, key?);
    let names = match inspect(chain.first()?, pair.span, now, diagnostics) {
        Ok(names) => names,
        Err(diagnostic) => {
            diagnostics.push(diagnostic);
            return None;
        }
    };
    let key = CertifiedKey::new(chain, key);
    match key.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Some(Loaded { key: Arc::new(key), names }),
        Err(_) => {
            let message = "the private key does not belong to the first certificate of the chain";
            diagnostics.push(Diagnostic::error("key_mismatch", pair.span, message).help(
                "the chain starts with the certificate itself, then its issuers; check that both files were renewed",
            ));
            None
        }
    }
}

/// Reads authorities to trust; an empty or partly unreadable bundle is an error, never a smaller trust than was meant.
pub(super) fn load_roots(ca: &CaBundle<'_>, diagnostics: &mut Diagnostics) -> Option<RootCertStore> {
    let certificates = read_certificates(ca.pem, "bad_ca", ca.span, diagnostics)?;
    let mut roots = RootCertStore::empty();
    for (index, certificate) in certificates.into_iter().enumerate() {
        if let Err(error) = roots.add(certificate) {
            let message = format!("certificate {} of the bundle can't be trusted: {error}", index + 1);
            diagnostics.push(Diagnostic::error("bad_ca", ca.span, message));
            return None;
        }
    }
    Some(roots)
}

fn read_certificates(
    pem: &[u8],
    code: &'static str,
    span: SourceSpan,
    diagnostics: &mut Diagnostics,
) -> Option<Vec<CertificateDer<'static>>> {
    let problem = match CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, PemError>>() {
        Ok(certificates) if certificates.is_empty() => Diagnostic::error(code, span, "no certificate in the file")
            .help("expected PEM text with at least one `-----BEGIN CERTIFICATE-----`"),
        Ok(certificates) => match certificates.iter().position(|der| X509Certificate::from_der(der).is_err()) {
            None => return Some(certificates),
            Some(index) => Diagnostic::error(code, span, format!("certificate {} of the file is malformed", index + 1)),
        },
        Err(error) => Diagnostic::error(code, span, format!("the file of certificates is not PEM: {error}")),
    };
    diagnostics.push(problem);
    None
}

fn read_key(
    pair: &KeyPair<'_>,
    provider: &CryptoProvider,
    diagnostics: &mut Diagnostics,
) -> Option<Arc<dyn rustls::sign::SigningKey>> {
    // rustls' errors about keys name formats, never their content
    let problem = match PrivateKeyDer::from_pem_slice(pair.key) {
        Ok(der) => match provider.key_provider.load_private_key(der) {
            Ok(key) => return Some(key),
            Err(error) => format!("the private key can't be used: {error}"),
        },
        Err(PemError::NoItemsFound) => "no private key in the file".to_owned(),
        Err(error) => format!("the file of the private key is not PEM: {error}"),
    };
    diagnostics.push(Diagnostic::error("bad_private_key", pair.span, problem).help(
        "expected an unencrypted RSA, ECDSA or Ed25519 key; `openssl pkey -in OLD -out NEW` removes a pass phrase",
    ));
    None
}

/// The names of a certificate; warns when it is out of its time or names nothing.
fn inspect(
    der: &CertificateDer<'_>,
    span: SourceSpan,
    now: UnixTime,
    diagnostics: &mut Diagnostics,
) -> Result<Vec<String>, Diagnostic> {
    let bad = |what: &str| Diagnostic::error("bad_certificate", span, format!("the certificate is malformed: {what}"));
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| bad("not X.509"))?;
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let now = ASN1Time::from_timestamp(seconds).map_err(|_| bad("its dates can't be compared"))?;
    let validity = certificate.validity();
    if now > validity.not_after {
        let message = format!("the certificate has expired: {}", validity.not_after);
        diagnostics.push(Diagnostic::warning("certificate_expired", span, message));
    }
    if now < validity.not_before {
        let message = format!("the certificate is not valid yet: {}", validity.not_before);
        diagnostics.push(Diagnostic::warning("certificate_not_yet_valid", span, message));
    }
    let alternative = certificate.subject_alternative_name().map_err(|_| bad("subject alternative name"))?;
    let names = alternative.map(|extension| &extension.value.general_names).into_iter().flatten();
    Ok(names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect())
}
