//! Who a client's certificate was issued to. That it is valid was settled in the handshake, by the listener's `client_ca`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// Which of a certificate's names is the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CertificateName {
    /// The common name of the subject.
    #[default]
    CommonName,
    /// The first DNS name among the subject's alternative names.
    Dns,
    /// The first e-mail address among them.
    Email,
    /// The first URI among them, such as a SPIFFE id.
    Uri,
}

/// The names in a client's certificate; read once for a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientCertificate {
    common_name: Option<Box<str>>,
    dns: Option<Box<str>>,
    email: Option<Box<str>>,
    uri: Option<Box<str>>,
}

impl ClientCertificate {
    /// Reads a verified certificate; one that this reader can't follow has no names.
    #[must_use]
    pub fn read(der: &[u8]) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Self::default() };
        let mut names = Self::default();
        let mut common_names = certificate.subject().iter_common_name();
        // two common names would be one name for us and another one for somebody else
        if let (Some(name), None) = (common_names.next(), common_names.next()) {
            names.common_name = name.as_str().ok().and_then(usable);
        }
        let alternatives = certificate.subject_alternative_name().ok().flatten();
        for name in alternatives.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::DNSName(name) => names.dns = names.dns.or_else(|| usable(name)),
                GeneralName::RFC822Name(name) => names.email = names.email.or_else(|| usable(name)),
                GeneralName::URI(name) => names.uri = names.uri.or_else(|| usable(name)),
                _ => {}
            }
        }
        names
    }

    /// The name of that kind.
    pub(super) fn name(&self, kind: CertificateName) -> Option<&str> {
        match kind {
            CertificateName::CommonName => self.common_name.as_deref(),
            CertificateName::Dns => self.dns.as_deref(),
            CertificateName::Email => self.email.as_deref(),
            CertificateName::Uri => self.uri.as_deref(),
        }
    }
}

fn usable(name: &str) -> Option<Box<str>> {
    (!name.is_empty() && name.len() <= 256 && !name.contains(char::is_control)).then(|| name.into())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn each_kind_of_name_is_found() {
        let mut params = CertificateParams::new(vec!["svc.example".to_owned()]).expect("valid");
        params.distinguished_name.push(DnType::CommonName, "billing");
        params.subject_alt_names.push(SanType::Rfc822Name("ops@example.com".try_into().expect("ascii")));
        params.subject_alt_names.push(SanType::URI("spiffe://example/billing".try_into().expect("ascii")));
        let certificate = params.self_signed(&KeyPair::generate().expect("a key")).expect("signed");
        let names = ClientCertificate::read(certificate.der());
        assert_eq!(names.name(CertificateName::CommonName), Some("billing"));
        assert_eq!(names.name(CertificateName::Dns), Some("svc.example"));
        assert_eq!(names.name(CertificateName::Email), Some("ops@example.com"));
        assert_eq!(names.name(CertificateName::Uri), Some("spiffe://example/billing"));
        assert_eq!(ClientCertificate::read(b"nonsense"), ClientCertificate::default());
    }
}
