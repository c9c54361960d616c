//! The server's side of a TLS handshake, within its time, and why it failed.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::{
    AlertDescription, Error, HandshakeKind, PeerIncompatible, ProtocolVersion, ServerConfig, ServerConnection,
};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::model::connection::TlsSession;
use crate::model::listener::{Protocol, TlsVersion};

/// Why a TLS handshake came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HandshakeFailure {
    /// `limits.handshake_timeout` was over.
    Timeout,
    /// The client went away in the middle, or without a word (port scans and TCP health checks do).
    Eof,
    /// What the client sent is not TLS: plain HTTP on a TLS port, most often.
    NotTls,
    /// The client speaks no version from `min_version` on.
    Version,
    /// No certificate of ours has a kind of key that the client can verify.
    Certificate,
    /// The client's certificate is missing or not trusted.
    ClientCertificate,
    /// The client offers no protocol that the listener speaks (RFC 7301 §3.2).
    Alpn,
    /// The client ended it with an alert: it does not trust our certificate, most often.
    Alert,
    /// Anything else against the rules of TLS, or without common ground in ciphers and groups.
    Protocol,
}

impl HandshakeFailure {
    /// The label in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "tls_timeout",
            Self::Eof => "tls_eof",
            Self::NotTls => "tls_not_tls",
            Self::Version => "tls_version",
            Self::Certificate => "tls_certificate",
            Self::ClientCertificate => "tls_client_certificate",
            Self::Alpn => "tls_alpn",
            Self::Alert => "tls_alert",
            Self::Protocol => "tls_protocol",
        }
    }
}

/// Does the handshake, in at most `limit`.
pub(super) async fn handshake(
    stream: TcpStream,
    peer: SocketAddr,
    config: &Arc<ServerConfig>,
    limit: Duration,
) -> Result<(Box<TlsStream<TcpStream>>, TlsSession), HandshakeFailure> {
    match timeout(limit, TlsAcceptor::from(Arc::clone(config)).accept(stream)).await {
        Ok(Ok(stream)) => {
            let info = describe(stream.get_ref().1);
            Ok((Box::new(stream), info))
        }
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "tls handshake failed");
            Err(classify(&error))
        }
        Err(_) => Err(HandshakeFailure::Timeout),
    }
}

fn describe(session: &ServerConnection) -> TlsSession {
    TlsSession {
        server_name: session.server_name().map(Into::into),
        protocol: session.alpn_protocol().and_then(Protocol::from_alpn),
        version: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => TlsVersion::V1_3,
            _ => TlsVersion::V1_2,
        },
        cipher: session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or("unknown"),
        resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
        client_certificate: session
            .peer_certificates()
            .and_then(|chain| chain.first())
            .map(|leaf| leaf.clone().into_owned()),
    }
}

fn classify(error: &io::Error) -> HandshakeFailure {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        // the socket's own errors: the end of the stream and a reset alike
        return HandshakeFailure::Eof;
    };
    match error {
        Error::InvalidMessage(_) => HandshakeFailure::NotTls,
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        ) => HandshakeFailure::Version,
        Error::PeerIncompatible(PeerIncompatible::NoSignatureSchemesInCommon) => HandshakeFailure::Certificate,
        Error::NoCertificatesPresented | Error::InvalidCertificate(_) => HandshakeFailure::ClientCertificate,
        Error::NoApplicationProtocol => HandshakeFailure::Alpn,
        Error::AlertReceived(AlertDescription::CloseNotify) => HandshakeFailure::Eof,
        Error::AlertReceived(_) => HandshakeFailure::Alert,
        _ => HandshakeFailure::Protocol,
    }
}
