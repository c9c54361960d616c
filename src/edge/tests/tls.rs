//! TLS over real sockets: certificates compiled by `snapshot::tls`, served by the edge, seen by a rustls client.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair as Key};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as ClientStream;

use super::*;
use crate::model::diagnostic::Diagnostics;
use crate::model::listener::{Protocol, TlsVersion};
use crate::model::source::SourceSpan;
use crate::model::units::Period;
use crate::snapshot::tls::{CaBundle, ClientAuth, KeyPair, ServerTls, ServerTlsInput, compile_server};

/// An authority that issues certificates.
struct Authority {
    issuer: Issuer<'static, Key>,
    pem: String,
    der: CertificateDer<'static>,
}

/// A certificate and its key, as PEM.
struct Issued {
    chain: String,
    key: String,
    der: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let key = Key::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Self { issuer: Issuer::new(params, key), pem, der }
    }

    fn issue(&self, names: &[&str]) -> Issued {
        let key = Key::generate().expect("a key");
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let certificate =
            CertificateParams::new(names).expect("parameters").signed_by(&key, &self.issuer).expect("a certificate");
        Issued { chain: certificate.pem(), key: key.serialize_pem(), der: certificate.der().clone() }
    }
}

/// How a listener's TLS is set in a test.
struct Tls<'a> {
    certificates: &'a [&'a Issued],
    min_version: TlsVersion,
    client_auth: ClientAuth<'a>,
    protocols: Protocols,
}

impl<'a> Tls<'a> {
    fn with(certificates: &'a [&'a Issued]) -> Self {
        Tls { certificates, min_version: TlsVersion::V1_2, client_auth: ClientAuth::None, protocols: Protocols::BOTH }
    }

    #[track_caller]
    fn compile(self, previous: Option<&ServerTls>) -> ServerTls {
        let span = SourceSpan::default();
        let pair = |issued: &&'a Issued| KeyPair { chain: issued.chain.as_bytes(), key: issued.key.as_bytes(), span };
        let input = ServerTlsInput {
            certificates: self.certificates.iter().map(pair).collect(),
            min_version: self.min_version,
            client_auth: self.client_auth,
            protocols: self.protocols,
            span,
        };
        let mut diagnostics = Diagnostics::default();
        let compiled = compile_server(&input, previous, UnixTime::now(), &mut diagnostics);
        compiled.unwrap_or_else(|| panic!("{diagnostics:?}"))
    }
}

fn listener(tls: &ServerTls) -> ListenerSpec {
    ListenerSpec { protocols: Protocols::BOTH, tls: Some(Arc::clone(&tls.config)), ..spec("tls") }
}

/// A client that trusts `authority` and shows `certificate`.
fn client(
    authority: &Authority,
    certificate: Option<&Issued>,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der.clone()).expect("an authority");
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots);
    match certificate {
        Some(issued) => {
            let key = Key::from_pem(&issued.key).expect("a key").serialize_der();
            let key = PrivateKeyDer::try_from(key).expect("a key");
            builder.with_client_auth_cert(vec![issued.der.clone()], key).expect("a pair")
        }
        None => builder.with_no_client_auth(),
    }
}

const ALL: &[&SupportedProtocolVersion] = rustls::ALL_VERSIONS;

async fn shake(
    config: &Arc<ClientConfig>,
    address: SocketAddr,
    name: &str,
) -> std::io::Result<ClientStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut stream = TlsConnector::from(Arc::clone(config)).connect(name, connect(address).await).await?;
    // in TLS 1.3 the client learns of a refusal, and gets its tickets, only when it reads
    stream.write_all(b"ping").await?;
    stream.flush().await?;
    let mut answer = [0; 4];
    timeout(PATIENCE, stream.read_exact(&mut answer)).await.expect("in time")?;
    Ok(stream)
}

fn shown(stream: &ClientStream<TcpStream>) -> CertificateDer<'static> {
    let chain = stream.get_ref().1.peer_certificates().expect("the server's chain");
    chain[0].clone().into_owned()
}

fn kind(stream: &ClientStream<TcpStream>) -> HandshakeKind {
    stream.get_ref().1.handshake_kind().expect("a handshake")
}

#[tokio::test]
async fn the_certificate_is_chosen_by_name() {
    let authority = Authority::new();
    let first = authority.issue(&["first.example"]);
    let exact = authority.issue(&["api.example.com", "Two.Example.com"]);
    let wildcard = authority.issue(&["*.example.com", "*.example.org"]);
    let tls = Tls::with(&[&first, &exact, &wildcard]).compile(None);
    let mut rig = Rig::start(1);
    let address = rig.apply(&[listener(&tls)]).await[0];
    let config = Arc::new(client(&authority, None, ALL));
    for (name, expected) in [
        ("first.example", &first),
        ("api.example.com", &exact),
        ("two.example.com", &exact),
        ("other.example.com", &wildcard),
        ("a.example.org", &wildcard),
    ] {
        let stream = shake(&config, address, name).await.expect(name);
        assert_eq!(shown(&stream), expected.der, "{name}");
        let info = rig.served().await;
        let tls = info.tls.as_ref().expect("over TLS");
        assert_eq!(tls.server_name.as_deref(), Some(name));
    }
}

#[tokio::test]
async fn an_unknown_name_or_none_gets_the_first_certificate() {
    let authority = Authority::new();
    let first = authority.issue(&["first.example", "127.0.0.1"]);
    let second = authority.issue(&["*.example.com"]);
    let tls = Tls::with(&[&first, &second]).compile(None);
    let mut rig = Rig::start(1);
    let address = rig.apply(&[listener(&tls)]).await[0];
    let config = Arc::new(client(&authority, None, ALL));
    // an address is never sent as SNI (RFC 6066 §3)
    let stream = shake(&config, address, "127.0.0.1").await.expect("the default certificate names the address");
    assert_eq!(shown(&stream), first.der);
    assert_eq!(rig.served().await.tls.as_ref().and_then(|tls| tls.server_name.clone()), None);
    // a wildcard stands for one label: neither none nor two
    for name in ["unknown.example", "example.com", "a.b.example.com"] {
        let error = shake(&config, address, name).await.expect_err("a name that the first certificate has not");
        assert!(error.to_string().contains("not valid for name"), "{error}");
        assert_eq!(rig.refused().await, Refused::Handshake(HandshakeFailure::Alert));
    }
}

#[tokio::test]
async fn a_client_is_shown_a_key_that_it_can_verify() {
    let authority = Authority::new();
    let p256 = authority.issue(&["a.example"]);
    let ed25519 = {
        let key = Key::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        let params = CertificateParams::new(vec!["a.example".to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, &authority.issuer).expect("a certificate");
        Issued { chain: certificate.pem(), key: key.serialize_pem(), der: certificate.der().clone() }
    };
    let tls = Tls::with(&[&ed25519, &p256]).compile(None);
    let rig = Rig::start(1);
    let address = rig.apply(&[listener(&tls)]).await[0];
    let any = Arc::new(client(&authority, None, ALL));
    assert_eq!(shown(&shake(&any, address, "a.example").await.expect("served")), ed25519.der);

    let mut provider = aws_lc_rs::default_provider();
    provider.signature_verification_algorithms.mapping = {
        let ecdsa = provider.signature_verification_algorithms.mapping.iter().copied();
        ecdsa.filter(|(scheme, _)| *scheme != rustls::SignatureScheme::ED25519).collect::<Vec<_>>().leak()
    };
    let mut roots = RootCertStore::empty();
    roots.add(authority.der.clone()).expect("an authority");
    let builder =
        ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(ALL).expect("versions");
    let picky = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
    assert_eq!(shown(&shake(&picky, address, "a.example").await.expect("served")), p256.der);
}

#[tokio::test]
async fn a_version_below_the_minimum_is_refused() {
    let authority = Authority::new();
    let certificate = authority.issue(&["a.example"]);
    let tls = Tls { min_version: TlsVersion::V1_3, ..Tls::with(&[&certificate]) }.compile(None);
    let mut rig = Rig::start(1);
    let address = rig.apply(&[listener(&tls)]).await[0];
    let old = Arc::new(client(&authority, None, &[&rustls::version::TLS12]));
    shake(&old, address, "a.example").await.expect_err("too old");
    assert_eq!(rig.refused().await, Refused::Handshake(HandshakeFailure::Version));

    let new = Arc::new(client(&authority, None, ALL));
    let stream = shake(&new, address, "a.example").await.expect("new enough");
    assert_eq!(stream.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let info = rig.served().await;
    let tls = info.tls.as_ref().expect("over TLS");
    assert_eq!((tls.version.as_str(), tls.cipher.starts_with("TLS13_")), ("1.3", true), "{tls:?}");
}

#[tokio::test]
async fn alpn_chooses_what_both_speak() {
    let authority = Authority::new();
    let certificate = authority.issue(&["a.example"]);
    let both = Tls::with(&[&certificate]).compile(None);
    let old = Tls { protocols: Protocols::H1, ..Tls::with(&[&certificate]) }.compile(None);
    let mut rig = Rig::start(1);
    let addresses = rig.apply(&[listener(&both), ListenerSpec { name: "h1".into(), ..listener(&old) }]).await;
    let offers = |names: &[&[u8]]| {
        let mut config = client(&authority, None, ALL);
        config.alpn_protocols = names.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    };
    for (address, offered, agreed) in [
        (addresses[0], offers(&[b"http/1.1", b"h2"]), Some(Protocol::H2)),
        (addresses[0], offers(&[b"http/1.1"]), Some(Protocol::H1)),
        (addresses[0], offers(&[]), None),
        (addresses[1], offers(&[b"h2", b"http/1.1"]), Some(Protocol::H1)),
    ] {
        shake(&offered, address, "a.example").await.expect("common ground");
        assert_eq!(rig.served().await.tls.as_ref().and_then(|tls| tls.protocol), agreed);
    }
    shake(&offers(&[b"h2"]), addresses[1], "a.example").await.expect_err("no common ground");
    assert_eq!(rig.refused().await, Refused::Handshake(HandshakeFailure::Alpn));
}

#[tokio::test]
async fn sessions_are_resumed_on_any_worker_and_after_a_reload() {
    let authority = Authority::new();
    let before = authority.issue(&["a.example"]);
    let renewed = authority.issue(&["a.example"]);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let tls = Tls::with(&[&before]).compile(None);
        let mut rig = Rig::start(3);
        let address = rig.apply(&[listener(&tls)]).await[0];
        let config = Arc::new(client(&authority, None, &[version]));
        let first = shake(&config, address, "a.example").await.expect("served");
        assert_ne!(kind(&first), HandshakeKind::Resumed);
        assert!(!rig.served().await.tls.as_ref().expect("over TLS").resumed);
        for _ in 0..16 {
            let again = shake(&config, address, "a.example").await.expect("served");
            assert_eq!(kind(&again), HandshakeKind::Resumed);
            assert!(rig.served().await.tls.as_ref().expect("over TLS").resumed);
        }

        let reloaded = Tls::with(&[&renewed]).compile(Some(&tls));
        assert_eq!(rig.apply(&[listener(&reloaded)]).await, [address]);
        let after = shake(&config, address, "a.example").await.expect("served");
        assert_eq!(kind(&after), HandshakeKind::Resumed);
    }
}

#[tokio::test]
async fn a_reload_serves_new_certificates_to_new_connections() {
    let authority = Authority::new();
    let before = authority.issue(&["a.example"]);
    let renewed = authority.issue(&["a.example"]);
    let mut rig = Rig::start(2);
    let tls = Tls::with(&[&before]).compile(None);
    let address = rig.apply(&[listener(&tls)]).await[0];
    let mut config = client(&authority, None, ALL);
    config.resumption = Resumption::disabled();
    let config = Arc::new(config);
    let mut old = shake(&config, address, "a.example").await.expect("served");
    assert_eq!(shown(&old), before.der);
    rig.served().await;

    rig.apply(&[listener(&Tls::with(&[&renewed]).compile(Some(&tls)))]).await;
    assert_eq!(shown(&shake(&config, address, "a.example").await.expect("served")), renewed.der);
    ping(&mut old).await;
}

#[tokio::test]
async fn client_certificates_are_asked_for_as_set() {
    let (servers, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let certificate = servers.issue(&["a.example"]);
    let known = clients.issue(&["client.example"]);
    let unknown = strangers.issue(&["client.example"]);
    let ca = CaBundle { pem: clients.pem.as_bytes(), span: SourceSpan::default() };
    let refused = Refused::Handshake(HandshakeFailure::ClientCertificate);
    let mut rig = Rig::start(1);
    for (auth, shown, expected) in [
        (ClientAuth::Required(ca), Some(&known), Ok(true)),
        (ClientAuth::Required(ca), None, Err(refused)),
        (ClientAuth::Required(ca), Some(&unknown), Err(refused)),
        (ClientAuth::Optional(ca), Some(&known), Ok(true)),
        (ClientAuth::Optional(ca), None, Ok(false)),
        (ClientAuth::Optional(ca), Some(&unknown), Err(refused)),
        (ClientAuth::None, Some(&known), Ok(false)),
    ] {
        let tls = Tls { client_auth: auth, ..Tls::with(&[&certificate]) }.compile(None);
        let address = rig.apply(&[listener(&tls)]).await[0];
        let config = Arc::new(client(&servers, shown, ALL));
        let stream = shake(&config, address, "a.example").await;
        match expected {
            Ok(identified) => {
                stream.expect("let in");
                let info = rig.served().await;
                let leaf = info.tls.as_ref().and_then(|tls| tls.client_certificate.clone());
                assert_eq!(leaf, identified.then(|| known.der.clone()));
            }
            Err(why) => {
                stream.expect_err("refused");
                assert_eq!(rig.refused().await, why);
            }
        }
    }
}

#[tokio::test]
async fn a_ticket_from_before_does_not_let_in_whom_the_new_setting_refuses() {
    let authority = Authority::new();
    let certificate = authority.issue(&["a.example"]);
    let ca = CaBundle { pem: authority.pem.as_bytes(), span: SourceSpan::default() };
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let open = Tls::with(&[&certificate]).compile(None);
        let mut rig = Rig::start(1);
        let address = rig.apply(&[listener(&open)]).await[0];
        let anonymous = Arc::new(client(&authority, None, &[version]));
        shake(&anonymous, address, "a.example").await.expect("let in");
        rig.served().await;

        let closed = Tls { client_auth: ClientAuth::Required(ca), ..Tls::with(&[&certificate]) }.compile(Some(&open));
        rig.apply(&[listener(&closed)]).await;
        shake(&anonymous, address, "a.example").await.expect_err("no certificate, and a ticket is none");
        assert_eq!(rig.refused().await, Refused::Handshake(HandshakeFailure::ClientCertificate));
    }
}

#[tokio::test]
async fn a_silent_handshake_is_cut_at_its_limit() {
    let authority = Authority::new();
    let certificate = authority.issue(&["a.example"]);
    let tls = Tls::with(&[&certificate]).compile(None);
    let limits = Limits { handshake_timeout: Period::from_millis(50), ..Limits::default() };
    let mut rig = Rig::start(1);
    let address = rig.apply(&[ListenerSpec { limits, ..listener(&tls) }]).await[0];
    let mut silent = connect(address).await;
    let mut halfway = connect(address).await;
    halfway.write_all(&[0x16, 3, 1, 2, 0]).await.expect("a record's header");
    // neither holds up the others
    shake(&Arc::new(client(&authority, None, ALL)), address, "a.example").await.expect("served");
    rig.served().await;
    for stream in [&mut silent, &mut halfway] {
        expect_closed(stream).await;
        assert_eq!(rig.refused().await, Refused::Handshake(HandshakeFailure::Timeout));
    }
}

#[tokio::test]
async fn a_handshake_counts_under_the_cap() {
    let authority = Authority::new();
    let certificate = authority.issue(&["a.example"]);
    let tls = Tls::with(&[&certificate]).compile(None);
    let limits = Limits { connections: 1, ..Limits::default() };
    let mut rig = Rig::start(2);
    let address = rig.apply(&[ListenerSpec { limits, ..listener(&tls) }]).await[0];
    let _silent = connect(address).await;
    while rig.workers.connections() == 0 {
        tokio::task::yield_now().await;
    }
    expect_closed(&mut connect(address).await).await;
    assert_eq!(rig.refused().await, Refused::ConnectionLimit);
}

#[tokio::test]
async fn what_is_no_handshake_is_told_apart() {
    let authority = Authority::new();
    let certificate = authority.issue(&["a.example"]);
    let tls = Tls::with(&[&certificate]).compile(None);
    let mut rig = Rig::start(1);
    let address = rig.apply(&[listener(&tls)]).await[0];
    for (bytes, why) in [
        (&b""[..], HandshakeFailure::Eof),
        (&[0x16, 3, 1][..], HandshakeFailure::Eof),
        (&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], HandshakeFailure::NotTls),
    ] {
        let mut stream = connect(address).await;
        stream.write_all(bytes).await.expect("written");
        stream.shutdown().await.expect("shut down");
        assert_eq!(rig.refused().await, Refused::Handshake(why), "{bytes:?}");
    }
}
