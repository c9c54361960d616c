//! Tokens, good and forged, and the keys that they are judged by.

use super::*;

const JWT: &str = "jwt = { issuer = 'https://id.example/', audience = 'orders', jwks = 'jwks.json' }";

fn bearer(auth: &Auth, token: &str) -> Result<Option<String>, String> {
    let value = format!("Bearer {token}");
    decide(auth, &[("authorization", &value)], None).map_err(|(code, reason, _)| format!("{} {reason}", code.as_str()))
}

#[test]
fn tokens_of_every_kind_of_key_are_accepted() {
    let issuer = Issuer::new();
    let auth = auth(settings(JWT), issuer.jwks().to_string().as_bytes());
    let known = Ok(Some("ann".to_owned()));
    for (alg, kid) in [("ES256", "e"), ("EdDSA", "d"), ("RS256", "r"), ("PS256", "r")] {
        let header = json!({ "alg": alg, "kid": kid, "typ": "JWT" });
        assert_eq!(bearer(&auth, &issuer.sign(&header, &claims())), known, "{alg}");
        assert_eq!(bearer(&auth, &issuer.sign(&json!({ "alg": alg }), &claims())), known, "{alg} without an id");
    }
    let within_leeway =
        claims_with(&json!({ "exp": NOW.unix.as_secs() - 29, "nbf": NOW.unix.as_secs() + 29, "iat": null }));
    assert_eq!(bearer(&auth, &issuer.sign(&json!({ "alg": "ES256", "kid": "e" }), &within_leeway)), known);
    let one = claims_with(&json!({ "aud": "orders", "nbf": null, "iat": null, "groups": null }));
    assert_eq!(bearer(&auth, &issuer.sign(&json!({ "alg": "ES256", "kid": "e" }), &one)), known);
}

#[test]
fn forged_tokens_are_all_refused() {
    let issuer = Issuer::new();
    let other = Issuer::new();
    let auth = auth(settings(JWT), issuer.jwks().to_string().as_bytes());
    let e = json!({ "alg": "ES256", "kid": "e" });
    let good = issuer.sign(&e, &claims());
    let parts: Vec<&str> = good.split('.').collect();
    let (header, payload, signature) = (parts[0], parts[1], parts[2]);
    let now = NOW.unix.as_secs();
    let with = |changes: Value| issuer.sign(&e, &claims_with(&changes));
    let altered = |extra: Value| {
        let mut header = e.clone();
        for (name, value) in extra.as_object().expect("an object") {
            header[name] = value.clone();
        }
        issuer.sign_as("ES256", &header, &claims())
    };
    let own = |alg: &str| json!({ "alg": alg, "kid": "e" });
    let point = other.ec.public_key().as_ref().to_vec();
    let embedded = json!({ "alg": "ES256", "kid": "e", "jwk": { "kty": "EC", "crv": "P-256", "x": encoded(&point[1..33]), "y": encoded(&point[33..]) } });
    let mut flipped = URL_SAFE_NO_PAD.decode(signature).expect("base64");
    flipped[40] ^= 1;
    let forged: Vec<(&str, String, &str)> = vec![
        ("alg none", issuer.sign(&json!({ "alg": "none" }), &claims()), "algorithm is not accepted"),
        ("alg nOnE", issuer.sign(&json!({ "alg": "nOnE", "kid": "e" }), &claims()), "algorithm is not accepted"),
        (
            "alg none with a good signature",
            format!("{}.{payload}.{signature}", encoded(own("none").to_string())),
            "algorithm is not accepted",
        ),
        ("no alg", issuer.sign_as("ES256", &json!({ "kid": "e" }), &claims()), "malformed"),
        (
            "RSA key as HMAC secret",
            issuer.sign(&json!({ "alg": "HS256", "kid": "r" }), &claims()),
            "algorithm is not accepted",
        ),
        (
            "HMAC key of the set",
            issuer.sign(&json!({ "alg": "HS256", "kid": "h" }), &claims()),
            "algorithm is not accepted",
        ),
        ("RS256 said, EC key named", issuer.sign_as("RS256", &own("RS256"), &claims()), "signature is not valid"),
        (
            "ES256 said, RSA key named",
            issuer.sign_as("ES256", &json!({ "alg": "ES256", "kid": "r" }), &claims()),
            "signature is not valid",
        ),
        (
            "a key made for another alg",
            issuer.sign_as("RS256", &json!({ "alg": "RS256", "kid": "only384" }), &claims()),
            "signature is not valid",
        ),
        (
            "a key for encryption",
            issuer.sign_as("RS256", &json!({ "alg": "RS256", "kid": "enc" }), &claims()),
            "key is not known",
        ),
        ("wrong key", other.sign(&e, &claims()), "signature is not valid"),
        ("wrong RSA key", other.sign(&json!({ "alg": "RS256", "kid": "r" }), &claims()), "signature is not valid"),
        ("wrong key without an id", other.sign(&json!({ "alg": "EdDSA" }), &claims()), "signature is not valid"),
        ("embedded jwk", other.sign_as("ES256", &embedded, &claims()), "signature is not valid"),
        (
            "jku",
            other.sign_as("ES256", &json!({ "alg": "ES256", "kid": "e", "jku": "http://evil.example/" }), &claims()),
            "signature is not valid",
        ),
        (
            "kid of a path",
            issuer.sign_as("ES256", &json!({ "alg": "ES256", "kid": "../../../../dev/null" }), &claims()),
            "key is not known",
        ),
        (
            "kid of SQL",
            issuer.sign_as("ES256", &json!({ "alg": "ES256", "kid": "' UNION SELECT 'k" }), &claims()),
            "key is not known",
        ),
        ("kid empty", issuer.sign_as("ES256", &json!({ "alg": "ES256", "kid": "" }), &claims()), "key is not known"),
        (
            "kid huge",
            issuer.sign_as("ES256", &json!({ "alg": "ES256", "kid": "k".repeat(300) }), &claims()),
            "id is too long",
        ),
        ("kid no text", issuer.sign_as("ES256", &json!({ "alg": "ES256", "kid": 7 }), &claims()), "malformed"),
        ("crit", altered(json!({ "crit": ["exp"] })), "demands an extension"),
        ("crit null", altered(json!({ "crit": null })), "demands an extension"),
        ("b64 false", altered(json!({ "b64": false })), "demands an extension"),
        ("zip", altered(json!({ "zip": "DEF" })), "demands an extension"),
        (
            "header member twice",
            issuer.sign_text("ES256", r#"{"alg":"ES256","kid":"e","alg":"ES256"}"#, &claims().to_string()),
            "malformed",
        ),
        ("expired", with(json!({ "exp": now - 30 })), "has expired"),
        ("exp missing", with(json!({ "exp": null })), "has no end"),
        ("exp as text", with(json!({ "exp": "9999999999" })), "not a number"),
        ("not yet", with(json!({ "nbf": now + 31 })), "does not hold yet"),
        ("issued later", with(json!({ "iat": now + 31 })), "from the future"),
        ("wrong aud", with(json!({ "aud": "stock" })), "another audience"),
        ("aud of words", with(json!({ "aud": "orders stock" })), "another audience"),
        ("no aud", with(json!({ "aud": null })), "another audience"),
        ("wrong iss", with(json!({ "iss": "https://id.example" })), "another issuer"),
        ("iss in a list", with(json!({ "iss": ["https://id.example/"] })), "another issuer"),
        ("no iss", with(json!({ "iss": null })), "another issuer"),
        ("no sub", with(json!({ "sub": null })), "names nobody"),
        ("sub empty", with(json!({ "sub": "" })), "names nobody"),
        ("sub huge", with(json!({ "sub": "s".repeat(257) })), "names nobody"),
        ("claims no object", issuer.sign_text("ES256", &e.to_string(), "[]"), "has no claims"),
        (
            "other claims under the signature",
            format!("{header}.{}.{signature}", encoded(claims_with(&json!({ "sub": "root" })).to_string())),
            "signature is not valid",
        ),
        ("a bit of the signature", format!("{header}.{payload}.{}", encoded(flipped)), "signature is not valid"),
        ("truncated", good.get(..good.len() - 2).expect("long").to_owned(), "signature is not valid"),
        ("no signature", format!("{header}.{payload}."), "signature is not valid"),
        ("two parts", format!("{header}.{payload}"), "malformed"),
        ("four parts", format!("{good}.x"), "malformed"),
        ("five parts", format!("{header}.{payload}.x.y.z"), "malformed"),
        ("nothing", ".".to_owned(), "malformed"),
        ("padding", format!("{good}="), "malformed"),
        ("white space", format!("{header}. {payload}.{signature}"), "signature is not valid"),
        (
            "standard alphabet",
            format!("{header}.{payload}.{}+/", signature.get(..signature.len() - 2).expect("long")),
            "malformed",
        ),
        ("huge", with(json!({ "x": "x".repeat(16 * 1024) })), "too long"),
    ];
    assert_eq!(bearer(&auth, &good), Ok(Some("ann".to_owned())));
    for (what, token, reason) in forged {
        let found = bearer(&auth, &token).expect_err(what);
        assert!(found.starts_with("unauthenticated ") && found.contains(reason), "{what}: {found}");
    }
    let twice = format!("Bearer {good}");
    check(
        &auth,
        &[("authorization", &twice), ("authorization", &twice)],
        None,
        Err((Code::Unauthenticated, "more than one Authorization")),
    );
    check(&auth, &[("authorization", &good)], None, Err((Code::Unauthenticated, "no credentials")));
}

#[test]
fn claims_can_be_demanded_and_mapped() {
    let issuer = Issuer::new();
    let settings = settings(
        "groups = ['write']\n\
         [jwt]\nissuer = 'https://id.example/'\naudience = ['a', 'orders']\njwks = 'jwks.json'\nalgorithms = ['ES256']\n\
         claims = { scope = ['admin', 'read'], email = [] }\nprincipal_claim = 'email'\ngroups_claim = 'scope'\n",
    );
    let auth = auth(settings, issuer.jwks().to_string().as_bytes());
    let e = json!({ "alg": "ES256", "kid": "e" });
    assert_eq!(bearer(&auth, &issuer.sign(&e, &claims())), Ok(Some("ann@example.com".to_owned())));
    let refused = |changes| bearer(&auth, &issuer.sign(&e, &claims_with(&changes))).expect_err("refused");
    assert!(refused(json!({ "scope": "write" })).contains("a claim"));
    assert!(refused(json!({ "email": null })).contains("a claim"));
    assert!(refused(json!({ "scope": "read" })).starts_with("forbidden"));
    let ed = issuer.sign(&json!({ "alg": "EdDSA", "kid": "d" }), &claims());
    assert!(bearer(&auth, &ed).expect_err("refused").contains("algorithm"));
}

#[test]
fn a_token_can_stand_in_a_field_or_a_cookie() {
    let issuer = Issuer::new();
    let jwks = issuer.jwks().to_string();
    let token = issuer.sign(&json!({ "alg": "EdDSA", "kid": "d" }), &claims());
    let place = |place: &str| auth(settings(&JWT.replace("jwks =", &format!("{place}, jwks ="))), jwks.as_bytes());
    let header = place("header = 'x-token'");
    check(&header, &[("x-token", &token)], None, Ok(Some("ann")));
    check(&header, &[("x-token", &format!("Bearer {token}"))], None, Ok(Some("ann")));
    check(
        &header,
        &[("x-token", &token), ("x-token", &token)],
        None,
        Err((Code::Unauthenticated, "more than one token")),
    );
    check(
        &header,
        &[("authorization", &format!("Bearer {token}"))],
        None,
        Err((Code::Unauthenticated, "no credentials")),
    );
    let cookie = place("cookie = 'session'");
    check(&cookie, &[("cookie", &format!("a=b; session={token}; c=d"))], None, Ok(Some("ann")));
    let twice = format!("session={token}; session={token}");
    check(&cookie, &[("cookie", &twice)], None, Err((Code::Unauthenticated, "more than one token")));
}

#[test]
fn each_method_has_its_challenge() {
    let issuer = Issuer::new();
    let jwks = issuer.jwks().to_string();
    let all = auth(
        settings(&format!("{JWT}\nbasic = true\napi_key = {{ header = 'x-api-key' }}\nrealm = 'shop'")),
        jwks.as_bytes(),
    );
    let challenges = |lines: &[(&str, &str)]| decide(&all, lines, None).expect_err("refused").2;
    assert_eq!(
        challenges(&[]),
        [
            "Bearer realm=\"shop\"",
            "Basic realm=\"shop\", charset=\"UTF-8\"",
            "ApiKey realm=\"shop\", in=\"header\", name=\"x-api-key\"",
        ]
    );
    let expired = issuer.sign(&json!({ "alg": "EdDSA", "kid": "d" }), &claims_with(&json!({ "exp": 1 })));
    assert_eq!(
        challenges(&[("authorization", &format!("bearer {expired}"))])[0],
        "Bearer realm=\"shop\", error=\"invalid_token\", error_description=\"the token has expired\""
    );
    // any one is enough, whatever else is wrong
    check(&all, &[("authorization", &format!("bearer {expired}")), ("x-api-key", "key of bob")], None, Ok(Some("bob")));
    let scoped = auth(settings(&format!("groups = ['x']\n{JWT}")), jwks.as_bytes());
    let good = format!("Bearer {}", issuer.sign(&json!({ "alg": "EdDSA", "kid": "d" }), &claims()));
    let (code, _, challenges) = decide(&scoped, &[("authorization", &good)], None).expect_err("refused");
    assert_eq!(
        (code, challenges),
        (Code::Forbidden, vec!["Bearer realm=\"portcullis\", error=\"insufficient_scope\"".to_owned()])
    );
}

const FRESHNESS: Freshness =
    Freshness { refresh: Duration::from_mins(5), max_stale: Duration::from_hours(1), timeout: Duration::from_secs(3) };

#[test]
fn keys_hold_while_the_issuer_is_silent_and_no_longer() {
    let issuer = Issuer::new();
    let ring = KeyRing::of_url("https://id.example", "/jwks", FRESHNESS);
    let at = |seconds: u64| Instant::default().after(Duration::from_secs(seconds));
    let message = b"message";
    let signature = issuer.ed.sign(message);
    let check = |now| ring.check(Some("d"), Algorithm::EdDsa, message, signature.as_ref(), now);
    assert_eq!((check(at(0)), ring.due()), (keys::Found::NoKeys, Some(at(0))));
    ring.fetched(Some(issuer.jwks().to_string().as_bytes()), at(10)).expect("keys");
    assert_eq!((check(at(10)), ring.due()), (keys::Found::Valid, Some(at(310))));
    for (text, now) in [(None, 310), (Some(&b"{\"keys\":[]}"[..]), 400), (Some(b"<html>"), 500)] {
        assert!(ring.fetched(text, at(now)).is_err());
        assert_eq!(check(at(now)), keys::Found::Valid);
    }
    assert_eq!(ring.due(), Some(at(508)), "soon, ever less often");
    assert_eq!(ring.status(at(510)), RingStatus { keys: 4, age: Some(Duration::from_secs(500)), failures: 3 });
    assert_eq!(check(at(3610)), keys::Found::Valid);
    assert_eq!(check(at(3611)), keys::Found::NoKeys);
    ring.fetched(Some(issuer.jwks().to_string().as_bytes()), at(4000)).expect("keys");
    assert_eq!((check(at(4000)), ring.status(at(4000)).failures), (keys::Found::Valid, 0));
}

#[test]
fn an_unknown_key_id_is_asked_for_once() {
    let issuer = Issuer::new();
    let other = Issuer::new();
    let url = JWT.replace("jwks.json", "https://id.example/jwks");
    let auth = auth(settings(&url), b"");
    let ring = Arc::clone(&auth.jwt.as_ref().expect("set").ring);
    ring.fetched(Some(issuer.jwks().to_string().as_bytes()), NOW.monotonic).expect("keys");
    let value = format!("Bearer {}", other.sign(&json!({ "alg": "EdDSA", "kid": "new" }), &claims()));
    let decide = |answers: &Answers, now: Now| {
        with_request(&[("authorization", &value)], None, |request| auth.decide(request, None, answers, now))
    };
    let asks = |ruling: Ruling| matches!(ruling, Ruling::Ask(Question::Keys { kid, .. }) if &*kid == "new");
    assert!(asks(decide(&Answers::default(), NOW)));
    let mut asked = Answers::default();
    asked.add(Reply::Keys(true));
    let mut untold = Answers::default();
    untold.add(Reply::Keys(false));
    let Ruling::Settled { admission, .. } = decide(&untold, NOW) else { panic!("settled") };
    assert_eq!(
        admission.rejection.map(|rejection| rejection.code),
        Some(Code::AuthUnavailable),
        "no fetch, no verdict"
    );
    assert!(!asks(decide(&asked, NOW)), "one answer is enough");
    assert!(!asks(decide(&Answers::default(), NOW)), "it is known not to exist");
    let later = Now { monotonic: NOW.monotonic.after(Duration::from_secs(2)), ..NOW };
    assert!(asks(decide(&Answers::default(), later)));
    // and once the issuer has it, it is there
    let mut jwks = issuer.jwks();
    jwks["keys"]
        .as_array_mut()
        .expect("a list")
        .push(json!({ "kty": "OKP", "crv": "Ed25519", "kid": "new", "x": encoded(other.ed.public_key().as_ref()) }));
    ring.fetched(Some(jwks.to_string().as_bytes()), later.monotonic).expect("keys");
    let Ruling::Settled { principal, .. } = decide(&Answers::default(), later) else { panic!("settled") };
    assert!(principal.is_some());
}

#[test]
fn rings_are_shared_and_live_on() {
    let source = KeySource::Url { origin: "https://id.example".into(), target: "/jwks".into() };
    let mut rings = Rings::default();
    let first = rings.ring(&source, FRESHNESS).expect("a ring");
    assert!(Arc::ptr_eq(&first, &rings.ring(&source, FRESHNESS).expect("a ring")));
    let mut after = Rings::after(&rings.into_current());
    assert!(Arc::ptr_eq(&first, &after.ring(&source, FRESHNESS).expect("a ring")));
    let other = Freshness { refresh: Duration::from_secs(1), ..FRESHNESS };
    assert!(!Arc::ptr_eq(&first, &after.ring(&source, other).expect("a ring")));
    assert_eq!(after.into_current().len(), 2);
}
