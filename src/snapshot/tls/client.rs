//! TLS towards upstreams.

use std::sync::Arc;

use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::{Error, RootCertStore};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::pem::{self, CaBundle, KeyPair};
use super::provider;
use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::listener::Protocols;
use crate::model::source::SourceSpan;

/// Sessions kept per upstream for resumption; each belongs to a server name.
const SESSIONS: usize = 256;

/// What `upstream.tls` says, with the files' contents. There is no setting that switches verification off.
pub struct ClientTlsInput<'a> {
    /// Authorities to trust instead of the system's.
    pub ca: Option<CaBundle<'a>>,
    /// The certificate that we show.
    pub client_certificate: Option<KeyPair<'a>>,
    /// What ALPN offers.
    pub protocols: Protocols,
    /// Where the section stands, for mistakes that no single file is to blame for.
    pub span: SourceSpan,
}

/// The authorities that an upstream without `ca` is verified against: the system's, loaded once by the caller, or
/// Mozilla's as of the build where the system has none (a container image without `ca-certificates`).
#[must_use]
pub fn system_roots(native: impl IntoIterator<Item = CertificateDer<'static>>) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(native);
    if roots.is_empty() { bundled_roots() } else { Arc::new(roots) }
}

/// Mozilla's authorities as of the build: for `check` and `explain`, which must not depend on the machine.
#[must_use]
pub fn bundled_roots() -> Arc<RootCertStore> {
    Arc::new(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect())
}

/// Compiles an upstream's TLS; `None` when an error was pushed. TLS 1.2 and 1.3, sessions are resumed.
///
/// Equal input gives a new configuration with an empty session cache: who wants sessions to live over a reload keeps
/// the `Arc` while the upstream's settings and files are unchanged.
pub fn compile_client(
    input: &ClientTlsInput<'_>,
    system: &Arc<RootCertStore>,
    now: UnixTime,
    diagnostics: &mut Diagnostics,
) -> Option<Arc<ClientConfig>> {
    let provider = provider();
    let roots = match &input.ca {
        Some(ca) => pem::load_roots(ca, diagnostics).map(Arc::new),
        None => Some(Arc::clone(system)),
    };
    let identity = match &input.client_certificate {
        Some(pair) => pem::load_key_pair(pair, now, &provider, diagnostics).map(Some),
        None => Some(None),
    };
    let (roots, identity) = (roots?, identity?);
    match build(provider, roots, identity) {
        Ok(mut config) => {
            config.alpn_protocols = input.protocols.alpn();
            config.resumption = Resumption::in_memory_sessions(SESSIONS);
            Some(Arc::new(config))
        }
        Err(error) => {
            diagnostics.push(Diagnostic::error("tls_unavailable", input.span, format!("TLS can't be set up: {error}")));
            None
        }
    }
}

fn build(
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    identity: Option<pem::Loaded>,
) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    Ok(match identity {
        Some(identity) => {
            builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(identity.key)))
        }
        None => builder.with_no_client_auth(),
    })
}
