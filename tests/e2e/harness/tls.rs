//! Certificates for one test: an authority of its own, the certificates that it issues, and both ends' TLS settings.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

/// Issues certificates into a folder of its own.
pub struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

/// A certificate and its key, as files.
#[derive(Debug, Clone)]
pub struct Issued {
    pub chain: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    /// A new one, whom nobody else trusts.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { folder, certificate: certificate.der().clone(), issuer: Issuer::new(params, key) }
    }

    /// The file with its certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate for a name or an address, in files named after it.
    pub fn issue(&self, name: &str) -> Issued {
        let path = |end: &str| self.folder.path().join(format!("{name}.{end}"));
        let issued = Issued { chain: path("pem"), key: path("key") };
        self.issue_into(name, &issued);
        issued
    }

    /// A new certificate in the place of an older one: each file is replaced at once.
    pub fn issue_into(&self, name: &str, place: &Issued) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names.push(match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.try_into().unwrap()),
        });
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        replace(&place.key, &key.serialize_pem());
        replace(&place.chain, &certificate.pem());
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        roots
    }

    /// A client that trusts this authority and offers these protocols by ALPN.
    pub fn client(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        self.client_of(alpn, rustls::ALL_VERSIONS)
    }

    /// A client of TLS 1.2.
    pub fn client_of_tls12(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        self.client_of(alpn, &[&rustls::version::TLS12])
    }

    fn client_of(&self, alpn: &[&str], versions: &[&'static rustls::SupportedProtocolVersion]) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
        let mut config = builder.with_root_certificates(self.roots()).with_no_client_auth();
        config.alpn_protocols = names(alpn);
        Arc::new(config)
    }

    /// A client that shows a certificate.
    pub fn client_showing(&self, alpn: &[&str], shown: &Issued) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let (chain, key) = shown.read();
        let mut config = builder.with_root_certificates(self.roots()).with_client_auth_cert(chain, key).unwrap();
        config.alpn_protocols = names(alpn);
        Arc::new(config)
    }

    /// A server that asks for certificates of this authority's.
    pub fn acceptor_asking(&self, issued: &Issued, alpn: &[&str]) -> TlsAcceptor {
        let roots = Arc::new(self.roots());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build().unwrap();
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let (chain, key) = issued.read();
        let mut config = builder.with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap();
        config.alpn_protocols = names(alpn);
        TlsAcceptor::from(Arc::new(config))
    }
}

impl Issued {
    fn read(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::pem_file_iter(&self.chain).unwrap().map(Result::unwrap).collect();
        (chain, PrivateKeyDer::from_pem_file(&self.key).unwrap())
    }

    /// A server with this certificate.
    pub fn acceptor(&self, alpn: &[&str]) -> TlsAcceptor {
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let (chain, key) = self.read();
        let mut config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
        config.alpn_protocols = names(alpn);
        TlsAcceptor::from(Arc::new(config))
    }

    /// The table that a listener's `certificates` has for it.
    pub fn toml(&self) -> String {
        format!("{{ chain = \"{}\", key = \"{}\" }}", self.chain.display(), self.key.display())
    }
}

fn names(alpn: &[&str]) -> Vec<Vec<u8>> {
    alpn.iter().map(|name| name.as_bytes().to_vec()).collect()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Writes beside the file and renames over it, as deployments do.
pub fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, path).unwrap();
}
