//! Mistakes in certificates as diagnostics, and what the compiled configurations agree on, without a socket.
//! Choice by name, versions and resumption of listeners are tested where they are served, in `edge`.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair as Key, date_time_ymd};
use rustls::{ClientConnection, HandshakeKind, ServerConnection};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::*;
use crate::model::diagnostic::{Diagnostics, Severity};
use crate::model::listener::{Protocols, TlsVersion};
use crate::model::source::SourceSpan;

/// 2026-06-01: the certificates below are issued for that year.
const NOW: UnixTime = UnixTime::since_unix_epoch(std::time::Duration::from_hours(494_520));

struct Pem {
    chain: String,
    key: String,
}

struct Authority {
    issuer: Issuer<'static, Key>,
    pem: String,
}

fn params(names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).expect("names");
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    params
}

impl Authority {
    fn new() -> Self {
        let key = Key::generate().expect("a key");
        let mut params = params(&[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn issue(&self, params: &CertificateParams) -> Pem {
        let key = Key::generate().expect("a key");
        let chain = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        Pem { chain, key: key.serialize_pem() }
    }

    fn bundle(&self) -> CaBundle<'_> {
        CaBundle { pem: self.pem.as_bytes(), span: at(9) }
    }
}

fn self_signed(params: &CertificateParams) -> Pem {
    let key = Key::generate().expect("a key");
    Pem { chain: params.self_signed(&key).expect("a certificate").pem(), key: key.serialize_pem() }
}

fn at(start: u32) -> SourceSpan {
    SourceSpan { file: 0, start, end: start + 1 }
}

fn pair(chain: &str, key: &str, start: u32) -> (String, String, SourceSpan) {
    (chain.to_owned(), key.to_owned(), at(start))
}

fn server(pairs: &[(String, String, SourceSpan)], client_auth: ClientAuth<'_>) -> (Option<ServerTls>, Diagnostics) {
    let mut diagnostics = Diagnostics::default();
    let certificates = pairs
        .iter()
        .map(|(chain, key, span)| KeyPair { chain: chain.as_bytes(), key: key.as_bytes(), span: *span })
        .collect();
    let protocols = Protocols::BOTH;
    let input = ServerTlsInput { certificates, min_version: TlsVersion::V1_2, client_auth, protocols, span: at(1) };
    (compile_server(&input, None, NOW, &mut diagnostics), diagnostics)
}

/// Compiles a listener and expects these findings (code, place, part of the message), in order.
#[track_caller]
fn check(pairs: &[(String, String, SourceSpan)], client_auth: ClientAuth<'_>, expected: &[(&str, u32, &str)]) {
    let (compiled, diagnostics) = server(pairs, client_auth);
    let found: Vec<_> = diagnostics.as_slice().iter().collect();
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, (code, start, part)) in found.iter().zip(expected) {
        assert_eq!((found.code, found.span), (*code, Some(at(*start))), "{found:#?}");
        assert!(found.message.contains(part), "{}", found.message);
    }
    let refused = found.iter().any(|found| found.severity == Severity::Error);
    assert_eq!(compiled.is_none(), refused);
}

#[test]
fn a_good_pair_has_no_findings() {
    let good = self_signed(&params(&["a.example"]));
    check(&[pair(&good.chain, &good.key, 2)], ClientAuth::None, &[]);
}

#[test]
fn a_listener_needs_a_certificate() {
    check(&[], ClientAuth::None, &[("no_certificate", 1, "without a certificate")]);
}

#[test]
fn unreadable_files_are_named_where_they_are_set() {
    let good = self_signed(&params(&["a.example"]));
    let broken = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
    let malformed = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let nonsense = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    for (chain, key, code, part) in [
        ("", good.key.as_str(), "bad_certificate", "no certificate"),
        (good.key.as_str(), good.key.as_str(), "bad_certificate", "no certificate"),
        (broken, good.key.as_str(), "bad_certificate", "not PEM"),
        (malformed, good.key.as_str(), "bad_certificate", "certificate 1 of the file is malformed"),
        (&format!("{}{malformed}", good.chain), good.key.as_str(), "bad_certificate", "certificate 2 of the file"),
        (good.chain.as_str(), "", "bad_private_key", "no private key"),
        (good.chain.as_str(), encrypted, "bad_private_key", "no private key"),
        (good.chain.as_str(), nonsense, "bad_private_key", "can't be used"),
    ] {
        check(&[pair(chain, key, 5)], ClientAuth::None, &[(code, 5, part)]);
    }
}

#[test]
fn a_key_of_another_certificate_is_an_error() {
    let (one, other) = (self_signed(&params(&["a.example"])), self_signed(&params(&["b.example"])));
    check(&[pair(&one.chain, &other.key, 4)], ClientAuth::None, &[("key_mismatch", 4, "does not belong")]);
    // the issuer before the certificate
    let upside_down = format!("{}{}", other.chain, one.chain);
    check(
        &[pair(&upside_down, &one.key, 4)],
        ClientAuth::None,
        &[("key_mismatch", 4, "first certificate of the chain")],
    );
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let good = self_signed(&params(&["a.example"]));
    let ca = CaBundle { pem: b"", span: at(9) };
    check(
        &[pair("", "", 2), pair(&good.chain, &good.key, 3), pair(&good.chain, "", 4)],
        ClientAuth::Required(ca),
        &[
            ("bad_certificate", 2, "no certificate"),
            ("bad_private_key", 2, "no private key"),
            ("bad_private_key", 4, "no private key"),
            ("bad_ca", 9, "no certificate"),
        ],
    );
}

#[test]
fn a_certificate_out_of_its_time_is_served_with_a_warning() {
    let mut expired = params(&["a.example"]);
    expired.not_after = date_time_ymd(2026, 5, 31);
    let mut early = params(&["b.example"]);
    early.not_before = date_time_ymd(2026, 6, 2);
    let (expired, early) = (self_signed(&expired), self_signed(&early));
    check(
        &[pair(&expired.chain, &expired.key, 2), pair(&early.chain, &early.key, 3)],
        ClientAuth::None,
        &[("certificate_expired", 2, "has expired: May 31"), ("certificate_not_yet_valid", 3, "not valid yet: Jun  2")],
    );
}

#[test]
fn a_certificate_that_nobody_can_be_shown_is_a_warning() {
    let named = self_signed(&params(&["a.example", "*.a.example"]));
    let again = self_signed(&params(&["x.example", "*.a.example"]));
    let nameless = self_signed(&params(&[]));
    check(
        &[
            pair(&named.chain, &named.key, 2),
            pair(&again.chain, &again.key, 3),
            pair(&nameless.chain, &nameless.key, 4),
        ],
        ClientAuth::None,
        &[("certificate_shadowed", 3, "earlier certificate"), ("certificate_without_names", 4, "no DNS name")],
    );
    // as the default it needs no name
    check(&[pair(&nameless.chain, &nameless.key, 2)], ClientAuth::None, &[]);
}

#[test]
fn no_message_shows_a_key() {
    let good = self_signed(&params(&["a.example"]));
    let secret = good.key.lines().nth(1).expect("a line of base64").to_owned();
    let cut = good.key.replace("-----END", "----");
    for key in [cut.as_str(), &good.key.replace("PRIVATE", "RSA PRIVATE")] {
        let (compiled, diagnostics) = server(&[pair(&good.chain, key, 2)], ClientAuth::None);
        assert!(compiled.is_none());
        let shown = format!("{:?}", diagnostics.as_slice());
        assert!(!shown.contains(&secret), "{shown}");
    }
}

fn client(input: &ClientTlsInput<'_>) -> Result<Arc<rustls::ClientConfig>, Diagnostics> {
    let mut diagnostics = Diagnostics::default();
    compile_client(input, &bundled_roots(), NOW, &mut diagnostics).ok_or(diagnostics)
}

fn towards(ca: Option<CaBundle<'_>>) -> ClientTlsInput<'_> {
    ClientTlsInput { ca, client_certificate: None, protocols: Protocols::BOTH, span: at(1) }
}

/// A handshake in memory; the kind of it and the protocol agreed on, or what the client says.
fn shake(client: &Arc<rustls::ClientConfig>, server: &ServerTls) -> Result<(HandshakeKind, Vec<u8>), rustls::Error> {
    let name = ServerName::try_from("a.example").expect("a name");
    let mut client = ClientConnection::new(Arc::clone(client), name).expect("a configuration");
    let mut server = ServerConnection::new(Arc::clone(&server.config)).expect("a configuration");
    // one more turn than the handshake needs, for the tickets
    for _ in 0..4 {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).expect("memory");
        server.read_tls(&mut wire.as_slice()).expect("memory");
        server.process_new_packets()?;
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).expect("memory");
        }
        client.read_tls(&mut wire.as_slice()).expect("memory");
        client.process_new_packets()?;
    }
    let protocol = client.alpn_protocol().unwrap_or_default().to_vec();
    Ok((client.handshake_kind().expect("a handshake"), protocol))
}

#[test]
fn an_upstream_is_verified_against_its_authority_and_resumed() {
    let authority = Authority::new();
    let issued = authority.issue(&params(&["a.example"]));
    let server = server(&[pair(&issued.chain, &issued.key, 2)], ClientAuth::None).0.expect("compiled");
    let config = client(&towards(Some(authority.bundle()))).expect("compiled");
    let (kind, protocol) = shake(&config, &server).expect("trusted");
    assert_eq!((kind == HandshakeKind::Resumed, protocol.as_slice()), (false, &b"h2"[..]));
    assert_eq!(shake(&config, &server).expect("trusted").0, HandshakeKind::Resumed);
}

#[test]
fn an_upstream_of_an_unknown_authority_is_refused() {
    let issued = Authority::new().issue(&params(&["a.example"]));
    let server = server(&[pair(&issued.chain, &issued.key, 2)], ClientAuth::None).0.expect("compiled");
    let stranger = Authority::new();
    for ca in [None, Some(stranger.bundle())] {
        let error = shake(&client(&towards(ca)).expect("compiled"), &server).expect_err("nobody trusts it");
        assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{error}");
    }
}

#[test]
fn the_own_certificate_is_shown_to_an_upstream() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let issued = servers.issue(&params(&["a.example"]));
    let own = clients.issue(&params(&["gateway.example"]));
    let server =
        server(&[pair(&issued.chain, &issued.key, 2)], ClientAuth::Required(clients.bundle())).0.expect("compiled");
    let anonymous = towards(Some(servers.bundle()));
    shake(&client(&anonymous).expect("compiled"), &server).expect_err("asked for a certificate");
    let shown = KeyPair { chain: own.chain.as_bytes(), key: own.key.as_bytes(), span: at(3) };
    let named = ClientTlsInput { client_certificate: Some(shown), ..towards(Some(servers.bundle())) };
    shake(&client(&named).expect("compiled"), &server).expect("known");
}

#[test]
fn mistakes_towards_upstreams_are_reported_at_once() {
    let good = self_signed(&params(&["a.example"]));
    let other = self_signed(&params(&["b.example"]));
    let mixed = KeyPair { chain: good.chain.as_bytes(), key: other.key.as_bytes(), span: at(3) };
    let ca = CaBundle { pem: b"nothing", span: at(9) };
    let diagnostics =
        client(&ClientTlsInput { client_certificate: Some(mixed), ..towards(Some(ca)) }).expect_err("refused");
    let found: Vec<_> = diagnostics.as_slice().iter().map(|found| (found.code, found.span)).collect();
    assert_eq!(found, [("bad_ca", Some(at(9))), ("key_mismatch", Some(at(3)))]);
}

#[test]
fn a_system_without_authorities_gets_the_bundled_ones() {
    let bundled = bundled_roots().len();
    assert!(bundled > 50, "{bundled}");
    assert_eq!(system_roots([]).len(), bundled);
    assert_eq!(system_roots([CertificateDer::from(vec![0])]).len(), bundled);
    let own = rustls_pki_types::pem::PemObject::from_pem_slice(Authority::new().pem.as_bytes()).expect("a certificate");
    assert_eq!(system_roots([own]).len(), 1);
}
