//! TLS of a listener.

use std::sync::Arc;

use rustls::SupportedProtocolVersion;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::{TrustAnchor, UnixTime};

use super::pem::{self, CaBundle, KeyPair};
use super::provider;
use super::sni::BySni;
use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::listener::{Protocols, TlsVersion};
use crate::model::source::SourceSpan;

/// What `[listener.tls]` says, with the files' contents.
pub struct ServerTlsInput<'a> {
    /// At least one; the first is shown to clients that ask for an unknown name or for none.
    pub certificates: Vec<KeyPair<'a>>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Whether clients show certificates.
    pub client_auth: ClientAuth<'a>,
    /// What ALPN offers.
    pub protocols: Protocols,
    /// Where the section stands, for mistakes that no single file is to blame for.
    pub span: SourceSpan,
}

/// Whether clients show certificates, and whose.
pub enum ClientAuth<'a> {
    /// They are not asked.
    None,
    /// They are asked; who shows one must show a good one.
    Optional(CaBundle<'a>),
    /// Who shows none is refused.
    Required(CaBundle<'a>),
}

/// A listener's TLS, compiled. Kept beside the snapshot, so that the next one can go on with its sessions.
#[derive(Clone)]
pub struct ServerTls {
    /// For [`ListenerSpec::tls`](crate::model::listener::ListenerSpec::tls).
    pub config: Arc<ServerConfig>,
    trust: Arc<Trust>,
}

impl std::fmt::Debug for ServerTls {
    /// Without the settings: they hold keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

/// Which clients a resumed session vouches for: resumption does not look at the client's certificate again.
#[derive(PartialEq)]
enum Trust {
    Nobody,
    Optional(Vec<TrustAnchor<'static>>),
    Required(Vec<TrustAnchor<'static>>),
}

/// Compiles a listener's TLS; `None` when an error was pushed.
///
/// `previous` is what the same listener had before. Its ticket keys (made by the provider, changed every six hours,
/// good for twelve) go on when the same clients are believed, so that a reload costs no client a full handshake. They
/// are never shared between listeners and are dropped when `client_auth` or its authorities change, because a ticket
/// from before would otherwise let in whom the new setting refuses.
pub fn compile_server(
    input: &ServerTlsInput<'_>,
    previous: Option<&ServerTls>,
    now: UnixTime,
    diagnostics: &mut Diagnostics,
) -> Option<ServerTls> {
    let provider = provider();
    let certificates = compile_certificates(input, now, &provider, diagnostics);
    let clients = compile_client_auth(&input.client_auth, &provider, diagnostics);
    let (certificates, (trust, verifier)) = (certificates?, clients?);

    let builder =
        match ServerConfig::builder_with_provider(provider).with_protocol_versions(versions(input.min_version)) {
            Ok(builder) => builder,
            Err(error) => return refuse(diagnostics, input.span, &error),
        };
    let mut config = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    }
    .with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = input.protocols.alpn();
    // tickets alone: they need no memory here, work on each worker, and every client of today takes them
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = match previous.filter(|previous| *previous.trust == trust) {
        Some(previous) => Arc::clone(&previous.config.ticketer),
        None => match aws_lc_rs::Ticketer::new() {
            Ok(ticketer) => ticketer,
            Err(error) => return refuse(diagnostics, input.span, &error),
        },
    };
    Some(ServerTls { config: Arc::new(config), trust: Arc::new(trust) })
}

/// The versions from `min` on.
fn versions(min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static FROM_1_2: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    static FROM_1_3: [&SupportedProtocolVersion; 1] = [&TLS13];
    match min {
        TlsVersion::V1_2 => &FROM_1_2,
        TlsVersion::V1_3 => &FROM_1_3,
    }
}

fn compile_certificates(
    input: &ServerTlsInput<'_>,
    now: UnixTime,
    provider: &CryptoProvider,
    diagnostics: &mut Diagnostics,
) -> Option<BySni> {
    if input.certificates.is_empty() {
        diagnostics.push(
            Diagnostic::error("no_certificate", input.span, "a TLS listener without a certificate")
                .help("add `certificates = [{ chain = \"cert.pem\", key = \"key.pem\" }]`"),
        );
        return None;
    }
    let mut by_sni = BySni::default();
    let mut complete = true;
    for (index, pair) in input.certificates.iter().enumerate() {
        let Some(loaded) = pem::load_key_pair(pair, now, provider, diagnostics) else {
            complete = false;
            continue;
        };
        if loaded.names.is_empty() && index > 0 {
            let message = "the certificate has no DNS name, so no client will be shown it";
            diagnostics.push(Diagnostic::warning("certificate_without_names", pair.span, message));
        }
        if by_sni.add(&loaded.key, &loaded.names).is_err() {
            let message = "an earlier certificate of this listener has a name of this one and the same kind of key";
            diagnostics.push(Diagnostic::warning("certificate_shadowed", pair.span, message));
        }
    }
    complete.then_some(by_sni)
}

type Clients = (Trust, Option<Arc<dyn ClientCertVerifier>>);

fn compile_client_auth(
    auth: &ClientAuth<'_>,
    provider: &Arc<CryptoProvider>,
    diagnostics: &mut Diagnostics,
) -> Option<Clients> {
    let (ca, required) = match auth {
        ClientAuth::None => return Some((Trust::Nobody, None)),
        ClientAuth::Optional(ca) => (ca, false),
        ClientAuth::Required(ca) => (ca, true),
    };
    let roots = Arc::new(pem::load_roots(ca, diagnostics)?);
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider));
    let (trust, builder) = if required {
        (Trust::Required(roots.roots.clone()), builder)
    } else {
        (Trust::Optional(roots.roots.clone()), builder.allow_unauthenticated())
    };
    match builder.build() {
        Ok(verifier) => Some((trust, Some(verifier))),
        Err(error) => {
            diagnostics.push(Diagnostic::error("bad_ca", ca.span, format!("the authorities can't be used: {error}")));
            None
        }
    }
}

fn refuse<T>(diagnostics: &mut Diagnostics, span: SourceSpan, error: &rustls::Error) -> Option<T> {
    diagnostics.push(Diagnostic::error("tls_unavailable", span, format!("TLS can't be set up: {error}")));
    None
}
