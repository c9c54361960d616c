//! Every method on its own and beside the others, on a clock that stands still; forged tokens, all of them refused.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaKeyPair,
};
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, StatusCode, Version};
use serde_json::{Value, json};

use super::*;
use crate::model::clock::Instant;
use crate::model::diagnostic::Diagnostics;
use crate::model::request::Scheme;
use crate::model::source::Spanned;
use crate::model::verdict::Verdict;

mod tokens;

const NOW: Now = Now { monotonic: Instant::from_nanos(1), unix: Duration::from_secs(1_700_000_000) };

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The keys of an issuer: `e` on P-256, `d` Ed25519, `r` RSA without an `alg`.
struct Issuer {
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
    rsa: RsaKeyPair,
}

impl Issuer {
    fn new() -> Self {
        Self {
            ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"),
            ed: Ed25519KeyPair::generate().expect("a key"),
            rsa: RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).expect("a key"),
        }
    }

    fn jwks(&self) -> Value {
        let point = self.ec.public_key().as_ref();
        json!({ "keys": [
            { "kty": "oct", "kid": "h", "k": encoded("secret of everybody") },
            { "kty": "EC", "crv": "P-256", "kid": "e", "use": "sig", "x": encoded(&point[1..33]), "y": encoded(&point[33..]) },
            { "kty": "OKP", "crv": "Ed25519", "kid": "d", "alg": "EdDSA", "x": encoded(self.ed.public_key().as_ref()) },
            { "kty": "RSA", "kid": "r", "n": encoded(self.modulus()), "e": encoded([1, 0, 1]) },
            { "kty": "RSA", "kid": "enc", "use": "enc", "n": encoded(self.modulus()), "e": encoded([1, 0, 1]) },
            { "kty": "RSA", "kid": "only384", "alg": "RS384", "n": encoded(self.modulus()), "e": encoded([1, 0, 1]) },
        ] })
    }

    fn modulus(&self) -> Vec<u8> {
        // RSAPublicKey of 2048 bits (RFC 8017 A.1.1): two headers of four bytes, the sign, the modulus
        self.rsa.public_key().as_ref()[9..265].to_vec()
    }

    /// The token of a header and claims, signed by the key that belongs to `alg` in the header (or as told).
    fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_as(header["alg"].as_str().unwrap_or_default(), header, claims)
    }

    fn sign_as(&self, alg: &str, header: &Value, claims: &Value) -> String {
        self.sign_text(alg, &header.to_string(), &claims.to_string())
    }

    fn sign_text(&self, alg: &str, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", encoded(header), encoded(claims));
        let random = SystemRandom::new();
        let rsa = |padding| {
            let mut signature = vec![0; self.rsa.public_modulus_len()];
            self.rsa.sign(padding, &random, message.as_bytes(), &mut signature).expect("signed");
            signature
        };
        let signature = match alg {
            "ES256" => self.ec.sign(&random, message.as_bytes()).expect("signed").as_ref().to_vec(),
            "EdDSA" => self.ed.sign(message.as_bytes()).as_ref().to_vec(),
            "RS256" => rsa(&RSA_PKCS1_SHA256),
            "PS256" => rsa(&RSA_PSS_SHA256),
            // the public key as the secret of an HMAC: the classic of alg confusion
            "HS256" => {
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.modulus()), message.as_bytes()).as_ref().to_vec()
            }
            _ => Vec::new(),
        };
        format!("{message}.{}", encoded(signature))
    }
}

fn claims() -> Value {
    let now = NOW.unix.as_secs();
    json!({
        "iss": "https://id.example/", "aud": ["orders", "stock"], "sub": "ann", "iat": now - 60, "nbf": now - 60, "exp": now + 300,
        "groups": ["staff", "ops"], "scope": "read write", "email": "ann@example.com",
    })
}

/// `claims` with some replaced; null removes one.
fn claims_with(changes: &Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().expect("an object") {
        match value {
            Value::Null => drop(claims.as_object_mut().expect("an object").remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

fn settings(toml: &str) -> Config {
    let value: toml::Value = toml::from_str(toml).expect("toml");
    serde_json::from_value(serde_json::to_value(value).expect("json")).expect("settings")
}

fn consumers() -> Arc<Consumers> {
    let config = |key: &str, password: Option<&str>, groups: &[&str]| {
        let config = ConsumerConfig {
            api_keys: vec![hashed_key(key.as_bytes()).into()],
            basic: password.map(|password| password::tests::cheap(password).into()),
            groups: groups.iter().map(|group| (*group).to_owned().into()).collect(),
        };
        Spanned::from(config)
    };
    let consumer = [
        ("ann".to_owned(), config("key of ann", Some("pass:word"), &["staff"])),
        ("bob".to_owned(), config("key of bob", None, &["guests"])),
    ];
    compile_consumers(&ConsumersDocument { consumer: consumer.into() }, None, &mut Diagnostics::default())
        .expect("valid")
}

fn auth(settings: Config, jwks: &[u8]) -> Auth {
    let consumers = consumers();
    let mut rings = Rings::default();
    let mut diagnostics = Diagnostics::default();
    let mut context = Context {
        consumers: Some(&consumers),
        has_consumers: true,
        file: &|_| Ok(jwks),
        upstream: &|_| Some(0),
        asks_for_certificates: true,
        rings: &mut rings,
    };
    let compiled = compile(&settings.into(), &mut context, &mut diagnostics);
    compiled.unwrap_or_else(|| panic!("{:?}", diagnostics.as_slice()))
}

/// A request with these fields and this query.
fn with_request<T>(lines: &[(&str, &str)], query: Option<&str>, judge: impl FnOnce(&RequestView<'_>) -> T) -> T {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(name.parse::<HeaderName>().expect("a name"), value.parse().expect("a value"));
    }
    judge(&RequestView {
        method: &Method::GET,
        scheme: Scheme::Https,
        host: "api.example",
        port: Some(8443),
        path: "/orders/7",
        query,
        headers: &headers,
        version: Version::HTTP_11,
        client: [192, 0, 2, 1].into(),
        peer: ([192, 0, 2, 1], 5000).into(),
        principal: None,
        route: None,
    })
}

/// Who it is, or with which code and reason it is refused; questions about passwords are answered by checking.
fn decide(
    auth: &Auth,
    lines: &[(&str, &str)],
    query: Option<&str>,
) -> Result<Option<String>, (Code, String, Vec<String>)> {
    with_request(lines, query, |request| {
        let mut answers = Answers::default();
        loop {
            match auth.decide(request, None, &answers, NOW) {
                Ruling::Ask(Question::Password { check, .. }) => answers.add(Reply::Password(Some(check.run()))),
                Ruling::Ask(Question::Keys { .. }) => answers.add(Reply::Keys(true)),
                Ruling::Ask(Question::Forward(_)) => answers.add(Reply::Forward(None)),
                Ruling::Settled { admission, principal, .. } => {
                    let Some(rejection) = admission.rejection else {
                        return Ok(principal.map(|principal| principal.name().to_owned()));
                    };
                    let challenges = rejection.headers.iter().filter(|(name, _)| name == WWW_AUTHENTICATE);
                    let challenges = challenges.map(|(_, value)| value.to_str().expect("ascii").to_owned()).collect();
                    return Err((rejection.code, admission.decision.reason.into_owned(), challenges));
                }
            }
        }
    })
}

#[track_caller]
fn check(auth: &Auth, lines: &[(&str, &str)], query: Option<&str>, expected: Result<Option<&str>, (Code, &str)>) {
    let found = decide(auth, lines, query);
    let found = found.as_ref().map(Option::as_deref).map_err(|(code, reason, _)| (*code, reason.as_str()));
    assert_eq!(found, expected, "{lines:?} {query:?}");
}

#[test]
fn an_api_key_is_found_in_its_places_only() {
    let auth = auth(settings("api_key = { header = 'x-api-key', query = 'api_key' }"), b"");
    let unknown = (Code::Unauthenticated, "the API key is not known");
    let twice = (Code::Unauthenticated, "more than one API key");
    check(&auth, &[("x-api-key", "key of ann")], None, Ok(Some("ann")));
    check(&auth, &[("x-api-key", " key of bob ")], None, Ok(Some("bob")));
    check(&auth, &[], Some("a=1&api_key=key%20of+ann"), Ok(Some("ann")));
    check(&auth, &[], Some("a=1&api%5Fkey=key+of+ann"), Ok(Some("ann")));
    check(&auth, &[("x-api-key", "key of eve")], None, Err(unknown));
    check(&auth, &[("x-api-key", "")], None, Err(unknown));
    check(&auth, &[("x-api-key", &hashed_key(b"key of ann"))], None, Err(unknown));
    check(&auth, &[("x-api-key", "key of ann"), ("x-api-key", "key of bob")], None, Err(twice));
    check(&auth, &[("x-api-key", "key of ann")], Some("api_key=key+of+ann"), Err(twice));
    check(
        &auth,
        &[("authorization", "key of ann")],
        Some("key=key+of+ann"),
        Err((Code::Unauthenticated, "no credentials")),
    );
}

#[test]
fn a_key_in_the_query_stays_here() {
    let auth = auth(settings("api_key = { query = 'api_key' }"), b"");
    assert_eq!(auth.edit_query("a=1&api_key=x&b=2&api%5Fkey=y&c").as_deref(), Some("a=1&b=2&c"));
    assert_eq!(auth.edit_query("api_key=x").as_deref(), Some(""));
    assert_eq!(auth.edit_query("a=1&apikey=x"), None);
}

#[test]
fn groups_are_asked_for_after_the_name() {
    let auth = auth(settings("api_key = { header = 'x-api-key' }\ngroups = ['staff', 'admin']"), b"");
    check(&auth, &[("x-api-key", "key of ann")], None, Ok(Some("ann")));
    check(&auth, &[("x-api-key", "key of bob")], None, Err((Code::Forbidden, "the caller is in none of the groups")));
    check(&auth, &[], None, Err((Code::Unauthenticated, "no credentials")));
}

#[test]
fn where_nothing_is_required_bad_credentials_are_refused_all_the_same() {
    let auth = auth(settings("api_key = { header = 'x-api-key' }\nrequired = false"), b"");
    check(&auth, &[], None, Ok(None));
    check(&auth, &[("x-api-key", "key of ann")], None, Ok(Some("ann")));
    check(&auth, &[("x-api-key", "nonsense")], None, Err((Code::Unauthenticated, "the API key is not known")));
}

#[test]
fn report_mode_judges_and_lets_go_on_as_nobody() {
    let auth = auth(settings("api_key = { header = 'x-api-key' }\nmode = 'report'"), b"");
    let ruling = with_request(&[], None, |request| auth.decide(request, None, &Answers::default(), NOW));
    let Ruling::Settled { admission, principal, .. } = ruling else { panic!("settled at once") };
    assert_eq!((admission.decision.verdict, admission.rejection), (Verdict::WouldReject, None));
    assert!(principal.is_none());
}

#[test]
fn a_password_is_checked_once_and_remembered() {
    let auth = auth(settings("basic = true"), b"");
    let basic = |text: &str| format!("basic {}", STANDARD.encode(text));
    let right = basic("ann:pass:word");
    let wrong = (Code::Unauthenticated, "the user name or password is wrong");
    check(&auth, &[("authorization", &right)], None, Ok(Some("ann")));
    let again = with_request(&[("authorization", &right)], None, |request| {
        matches!(auth.decide(request, None, &Answers::default(), NOW), Ruling::Settled { .. })
    });
    assert!(again, "what was found out is not asked again");
    for text in ["ann:password", "ann:", "eve:pass:word", "bob:pass:word", "Ann:pass:word", ":"] {
        check(&auth, &[("authorization", &basic(text))], None, Err(wrong));
    }
    let malformed = (Code::Unauthenticated, "the credentials are malformed");
    for value in ["Basic ann:pass:word", "Basic YW5u", "Basic /w==", "Basic "] {
        check(&auth, &[("authorization", value)], None, Err(malformed));
    }
    let twice = (Code::Unauthenticated, "more than one Authorization");
    check(&auth, &[("authorization", &right), ("authorization", &right)], None, Err(twice));
    check(&auth, &[("authorization", "Bearer x")], None, Err((Code::Unauthenticated, "no credentials")));
    let long = basic(&format!("ann:{}", "x".repeat(1025)));
    check(&auth, &[("authorization", &long)], None, Err((Code::Unauthenticated, "the password is too long")));
}

#[test]
fn an_unknown_user_costs_a_check_too() {
    let auth = auth(settings("basic = true"), b"");
    let eve = format!("Basic {}", STANDARD.encode("eve:guess"));
    let asks = with_request(&[("authorization", &eve)], None, |request| {
        matches!(auth.decide(request, None, &Answers::default(), NOW), Ruling::Ask(Question::Password { .. }))
    });
    assert!(asks);
}

#[test]
fn no_time_for_a_check_is_no_verdict() {
    let auth = auth(settings("basic = true"), b"");
    let ann = format!("Basic {}", STANDARD.encode("ann:pass:word"));
    let ruling = with_request(&[("authorization", &ann)], None, |request| {
        let mut answers = Answers::default();
        answers.add(Reply::Password(None));
        auth.decide(request, None, &answers, NOW)
    });
    let Ruling::Settled { admission, .. } = ruling else { panic!("settled") };
    let rejection = admission.rejection.expect("refused");
    assert_eq!(rejection.code, Code::AuthUnavailable);
    assert!(rejection.headers.iter().any(|(name, _)| name == RETRY_AFTER));
}

#[test]
fn a_certificate_names_its_holder() {
    let auth = auth(settings("client_certificate = true\ngroups = ['staff']"), b"");
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "ann");
    let shown = params.self_signed(&rcgen::KeyPair::generate().expect("a key")).expect("signed");
    let shown = ClientCertificate::read(shown.der());
    let ruling = with_request(&[], None, |request| auth.decide(request, Some(&shown), &Answers::default(), NOW));
    let Ruling::Settled { admission, principal, .. } = ruling else { panic!("settled") };
    assert_eq!(admission.rejection, None, "the consumer of that name is staff");
    assert_eq!(principal.map(|principal| principal.name().to_owned()).as_deref(), Some("ann"));
    check(&auth, &[], None, Err((Code::Unauthenticated, "no credentials")));
}

const FORWARD: &str = "forward = { url = 'http://127.0.0.1:4000/check?x=1', copy_headers = ['x-org'], principal = 'remote-user', groups = 'remote-groups' }";

fn forward_answer(auth: &Auth, status: u16, fields: &[(&'static str, &'static str)]) -> Ruling {
    let headers =
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect();
    let mut answers = Answers::default();
    answers
        .add(Reply::Forward(Some(ForwardAnswer { status: StatusCode::from_u16(status).expect("a status"), headers })));
    with_request(&[], None, |request| auth.decide(request, None, &answers, NOW))
}

#[test]
fn a_service_is_told_what_is_asked_and_no_more() {
    let auth = auth(settings(FORWARD), b"");
    let lines = [("authorization", "Bearer x"), ("cookie", "a=b"), ("x-secret", "s"), ("x-forwarded-method", "forged")];
    let ruling = with_request(&lines, Some("q=1"), |request| auth.decide(request, None, &Answers::default(), NOW));
    let Ruling::Ask(Question::Forward(call)) = ruling else { panic!("asks") };
    assert_eq!((&*call.target, call.authority.to_str().expect("ascii")), ("/check?x=1", "127.0.0.1:4000"));
    let mut told: Vec<String> =
        call.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("ascii"))).collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [
            "authorization: Bearer x",
            "cookie: a=b",
            "x-forwarded-for: 192.0.2.1",
            "x-forwarded-host: api.example:8443",
            "x-forwarded-method: GET",
            "x-forwarded-proto: https",
            "x-forwarded-uri: /orders/7?q=1",
        ]
    );
}

#[test]
fn a_service_s_answer_counts() {
    #[track_caller]
    fn check(
        settings_of: &str,
        status: u16,
        fields: &[(&'static str, &'static str)],
        expected: Result<Option<&str>, Code>,
    ) {
        let auth = auth(settings(settings_of), b"");
        let Ruling::Settled { admission, principal, .. } = forward_answer(&auth, status, fields) else {
            panic!("settled")
        };
        let found = match admission.rejection {
            Some(rejection) => Err(rejection.code),
            None => Ok(principal.as_ref().map(|principal| principal.name())),
        };
        assert_eq!(found, expected, "{status}");
    }
    check(FORWARD, 200, &[("remote-user", "ann"), ("remote-groups", "a, b")], Ok(Some("ann")));
    check(FORWARD, 204, &[], Ok(None));
    check(FORWARD, 401, &[], Err(Code::Unauthenticated));
    check(FORWARD, 403, &[], Err(Code::Forbidden));
    for status in [301, 302, 404, 429, 500, 503] {
        check(FORWARD, status, &[], Err(Code::AuthUnavailable));
        check(&FORWARD.replace(" }", ", on_error = 'allow' }"), status, &[], Ok(None));
    }
    let grouped = format!("groups = ['b']\n{FORWARD}");
    check(&grouped, 200, &[("remote-user", "ann"), ("remote-groups", "a, b")], Ok(Some("ann")));
    check(&grouped, 200, &[("remote-user", "ann")], Err(Code::Forbidden));
    check(&grouped, 200, &[], Err(Code::Forbidden));
}

#[test]
fn a_service_s_challenge_and_fields_are_passed_on() {
    let auth = auth(settings(FORWARD), b"");
    let Ruling::Settled { admission, .. } = forward_answer(&auth, 401, &[("www-authenticate", "Digest x")]) else {
        panic!()
    };
    let headers = admission.rejection.expect("refused").headers;
    assert_eq!(headers, [(WWW_AUTHENTICATE, HeaderValue::from_static("Digest x"))]);
    let Ruling::Settled { copied, .. } = forward_answer(&auth, 200, &[("x-org", "blue"), ("x-other", "red")]) else {
        panic!()
    };
    let mut upstream = HeaderMap::new();
    for (name, value) in [("x-org", "forged"), ("x_org", "forged"), ("x-portcullis-principal", "root"), ("x-kept", "1")]
    {
        upstream.append(name, HeaderValue::from_static(value));
    }
    auth.edit_request(None, copied.as_ref(), &mut upstream);
    let mut left: Vec<_> =
        upstream.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("ascii"))).collect();
    left.sort_unstable();
    assert_eq!(left, [("x-kept", "1"), ("x-org", "blue")]);
}

#[test]
fn credentials_that_are_the_gateway_s_stay_here() {
    let auth = auth(settings("api_key = { header = 'x-api-key' }\nbasic = true"), b"");
    let upstream = |method, authorization: &'static str| {
        let mut headers = HeaderMap::new();
        for name in ["x-api-key", "x_api_key"] {
            headers.append(name, HeaderValue::from_static("secret"));
        }
        headers.append("authorization", HeaderValue::from_static(authorization));
        auth.edit_request(Some(&Principal::new("ann", method, [], None)), None, &mut headers);
        let mut names: Vec<String> = headers.keys().map(ToString::to_string).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(upstream(AuthMethod::Basic, "Basic YTpi"), ["x-portcullis-principal"]);
    assert_eq!(upstream(AuthMethod::ApiKey, "basic YTpi"), ["x-portcullis-principal"], "also when a key came first");
    assert_eq!(upstream(AuthMethod::Jwt, "Bearer a.b.c"), ["authorization", "x-portcullis-principal"]);
}

#[test]
fn settings_that_can_t_be_are_refused() {
    #[track_caller]
    fn check(toml: &str, code: &str) {
        let mut rings = Rings::default();
        let mut context = Context {
            consumers: None,
            has_consumers: false,
            file: &|_| Err("no such file".to_owned()),
            upstream: &|_| Some(0),
            asks_for_certificates: false,
            rings: &mut rings,
        };
        let mut diagnostics = Diagnostics::default();
        assert!(compile(&settings(toml).into(), &mut context, &mut diagnostics).is_none(), "{toml}");
        assert_eq!(
            diagnostics.as_slice().first().map(|found| found.code),
            Some(code),
            "{toml}: {:?}",
            diagnostics.as_slice()
        );
    }
    let jwt = |more: &str| format!("jwt = {{ issuer = 'i', audience = 'a', jwks = 'https://id.example/', {more} }}");
    check("required = true", "missing_key");
    check("api_key = { header = 'x-api-key' }", "missing_key");
    check("basic = true", "missing_key");
    check("client_certificate = true", "missing_key");
    check("api_key = {}", "missing_key");
    check(&format!("{}\nrequired = false\ngroups = ['a']", jwt("leeway = '1s'")).replace(",  }", " }"), "conflict");
    check(&jwt("leeway = '6m'"), "bad_value");
    check(&jwt("refresh = '10ms'"), "bad_value");
    check(&jwt("algorithms = []"), "empty_list");
    check(&jwt("header = 'x', cookie = 'y'"), "conflict");
    check("jwt = { issuer = 'i', audience = [], jwks = 'https://id.example/' }", "empty_list");
    check("jwt = { issuer = 'i', audience = 'a', jwks = 'keys.json' }", "unreadable_file");
    check("forward = { url = '127.0.0.1:4000' }", "bad_value");
    check("forward = { url = 'http://a/#x' }", "bad_value");
    for field in ["connection", "host", "X-Request-ID", "traceparent"] {
        check(&format!("forward = {{ url = 'http://a/', copy_headers = ['{field}'] }}"), "reserved_field");
        check(&format!("forward = {{ url = 'http://a/' }}\nheaders = {{ {field} = 'principal' }}"), "reserved_field");
    }
    check("forward = { url = 'http://a/', groups = 'remote-groups' }", "missing_key");
    check(&format!("{}\nrealm = 'a\"b'", jwt("leeway = '1s'")), "bad_value");
    check(&format!("{}\nheaders = {{ x-user = 'name' }}", jwt("leeway = '1s'")), "bad_value");
}

#[test]
fn parameters_that_logs_would_show_are_no_place_for_keys() {
    let mut diagnostics = Diagnostics::default();
    let config = ApiKeyConfig { query: Some("customer".to_owned().into()), ..ApiKeyConfig::default() };
    assert!(config::compile_api_key(&config.into(), &mut diagnostics).is_none());
    assert_eq!(diagnostics.as_slice().first().map(|found| found.code), Some("bad_value"));
}
