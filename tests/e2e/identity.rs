//! Who calls, from end to end: keys, tokens with an issuer that rotates and fails, passwords, certificates, a service that is
//! asked; and what upstreams and logs are told of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::harness::client::ask;
use super::harness::tls::{Authority, replace};
use super::harness::upstream::{ok, response};
use super::harness::{Client, Gateway, Response, Upstream, eventually};

/// What reached the upstream, as its answer.
async fn echo() -> Upstream {
    Upstream::with(|request| {
        let field = |name: &str| request.field(name).unwrap_or("-").to_owned();
        let seen = json!({
            "target": request.target,
            "principal": field("x-portcullis-principal"),
            "groups": field("x-portcullis-groups"),
            "alias": field("x_portcullis_principal"),
            "key": field("x-api-key"),
            "authorization": field("authorization"),
            "org": field("x-org"),
        });
        ok(&seen.to_string())
    })
    .await
}

fn route(upstream: &Upstream, auth: &str) -> String {
    format!("[[route]]\nname = \"all\"\nmatch = \"/*\"\nupstream = \"{}\"\nauth = {auth}\n", upstream.url())
}

async fn get_with(gateway: &Gateway, target: &str, lines: &str) -> Response {
    ask(gateway.public().await, &format!("GET {target} HTTP/1.1\r\nHost: example.com\r\n{lines}\r\n")).await
}

fn hash(what: &str, secret: &str) -> String {
    use std::io::Write as _;
    let binary = env!("CARGO_BIN_EXE_portcullis");
    let mut command = std::process::Command::new(binary);
    let piped = std::process::Stdio::piped;
    let mut child = command.args(["hash", what]).stdin(piped()).stdout(piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{secret}\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn consumers(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("consumers.toml");
    std::fs::write(&file, text).unwrap();
    let line = format!("[consumers]\nfile = \"{}\"\n", file.display());
    (folder, line)
}

fn ann() -> String {
    format!("[consumer.ann]\napi_keys = [\"{}\"]\ngroups = [\"staff\"]\n", hash("key", "key-of-ann"))
}

#[tokio::test]
async fn an_api_key_opens_and_stays_at_the_gateway() {
    let upstream = echo().await;
    let (_folder, named) = consumers(&ann());
    let auth = "{ api_key = { header = \"x-api-key\", query = \"api_key\" } }";
    let gateway = Gateway::start(&(named + &route(&upstream, auth))).await;
    let refused = get_with(&gateway, "/", "").await;
    assert_eq!((refused.status, refused.code().as_str()), (401, "unauthenticated"));
    let challenge = "ApiKey realm=\"portcullis\", in=\"header\", name=\"x-api-key\"";
    assert_eq!(refused.field("www-authenticate"), Some(challenge));
    assert_eq!(get_with(&gateway, "/", "X-Api-Key: key-of-eve\r\n").await.status, 401);
    assert_eq!(upstream.requests().len(), 0);
    let forged = "X-Api-Key: key-of-ann\r\nX-Portcullis-Principal: root\r\nX_Portcullis_Principal: root\r\n";
    let seen = get_with(&gateway, "/a?b=1", forged).await.json();
    assert_eq!((seen["principal"].as_str(), seen["groups"].as_str()), (Some("ann"), Some("staff")));
    assert_eq!((seen["alias"].as_str(), seen["key"].as_str()), (Some("-"), Some("-")));
    let seen = get_with(&gateway, "/a?b=1&api_key=key-of-ann&c=2", "").await.json();
    assert_eq!((seen["principal"].as_str(), seen["target"].as_str()), (Some("ann"), Some("/a?b=1&c=2")));
    let line = gateway
        .logged("the key in the query", |line| line["query"].as_str().is_some_and(|query| query.contains("c=2")))
        .await;
    assert_eq!((line["query"].as_str(), line["principal"].as_str()), (Some("b=1&api_key=[redacted]&c=2"), Some("ann")));
    assert!(!gateway.access_log().contains("key-of-ann") && !gateway.log.text().contains("key-of-ann"));
    let shown = gateway.admin_get("/api/v1/config").await.text();
    assert!(!shown.contains("sha256:"), "{shown}");
}

#[tokio::test]
async fn groups_decide_after_the_name() {
    let upstream = echo().await;
    let (_folder, named) = consumers(&ann());
    let auth = "{ api_key = { header = \"x-api-key\" }, groups = [\"admin\"] }";
    let gateway = Gateway::start(&(named + &route(&upstream, auth))).await;
    let refused = get_with(&gateway, "/", "X-Api-Key: key-of-ann\r\n").await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "forbidden"));
    assert_eq!(get_with(&gateway, "/", "").await.status, 401);
    gateway.logged("who was refused", |line| line["status"] == 403 && line["principal"] == "ann").await;
}

#[tokio::test]
async fn in_report_mode_everybody_comes_in_and_nobody_forges_a_name() {
    let upstream = echo().await;
    let (_folder, named) = consumers(&ann());
    let auth = "{ api_key = { header = \"x-api-key\" }, mode = \"report\" }";
    let gateway = Gateway::start(&(named + &route(&upstream, auth))).await;
    let seen = get_with(&gateway, "/", "X-Portcullis-Principal: root\r\n").await.json();
    assert_eq!(seen["principal"], "-");
    let labels = [("policy", "auth"), ("verdict", "would_reject")];
    gateway.metric_reaches("portcullis_policy_decisions_total", &labels, 1.0).await;
}

#[tokio::test]
async fn a_preflight_needs_no_credentials() {
    let upstream = echo().await;
    let (_folder, named) = consumers(&ann());
    let auth = "{ api_key = { header = \"x-api-key\" } }\ncors = { origins = [\"https://a.example\"] }";
    let gateway = Gateway::start(&(named + &route(&upstream, auth))).await;
    let request = "OPTIONS / HTTP/1.1\r\nHost: example.com\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: GET\r\n\r\n";
    assert_eq!(ask(gateway.public().await, request).await.status, 204);
    let refused = get_with(&gateway, "/", "Origin: https://a.example\r\n").await;
    assert_eq!(refused.status, 401);
    assert_eq!(refused.field("access-control-allow-origin"), Some("https://a.example"), "the page may read why");
}

#[tokio::test]
async fn the_consumers_file_reloads_by_itself_and_a_bad_one_changes_nothing() {
    let upstream = echo().await;
    let (folder, named) = consumers(&ann());
    let gateway = Gateway::start(&(named + &route(&upstream, "{ api_key = { header = \"x-api-key\" } }"))).await;
    let status = async |key: &str| get_with(&gateway, "/", &format!("X-Api-Key: {key}\r\n")).await.status;
    assert_eq!((status("key-of-ann").await, status("key-of-bob").await), (200, 401));
    let file = folder.path().join("consumers.toml");
    replace(&file, "[consumer.bob]\napi_keys = [\"key-of-bob\"]\n");
    eventually("the mistake is reported", async || {
        let state = gateway.admin_get("/api/v1/config").await.json();
        let error = state["last_error"].to_string();
        (!state["last_error"].is_null()).then(|| assert!(!error.contains("key-of-bob"), "{error}"))
    })
    .await;
    assert_eq!(status("key-of-ann").await, 200);
    replace(&file, &format!("[consumer.bob]\napi_keys = [\"{}\"]\n", hash("key", "key-of-bob")));
    eventually("the other consumer is known", async || (status("key-of-bob").await == 200).then_some(())).await;
    assert_eq!(status("key-of-ann").await, 401);
}

#[tokio::test]
async fn a_password_opens_and_stays_at_the_gateway() {
    let upstream = echo().await;
    let (_folder, named) = consumers(&format!("[consumer.ann]\nbasic = '{}'\n", hash("password", "s3cret:word")));
    let gateway = Gateway::start(&(named + &route(&upstream, "{ basic = true }"))).await;
    let basic = |text: &str| format!("Authorization: Basic {}\r\n", STANDARD.encode(text));
    let refused = get_with(&gateway, "/", "").await;
    assert_eq!(refused.field("www-authenticate"), Some("Basic realm=\"portcullis\", charset=\"UTF-8\""));
    let seen = get_with(&gateway, "/", &basic("ann:s3cret:word")).await.json();
    assert_eq!((seen["principal"].as_str(), seen["authorization"].as_str()), (Some("ann"), Some("-")));
    for text in ["ann:s3cret", "eve:s3cret:word", "ann:"] {
        assert_eq!(get_with(&gateway, "/", &basic(text)).await.status, 401, "{text}");
    }
    assert!(!gateway.access_log().contains("s3cret") && !gateway.log.text().contains("s3cret"));
}

/// An issuer with its keys, which answers as it is told.
struct Issuer {
    current: Arc<Mutex<(String, Ed25519KeyPair)>>,
    published: Arc<Mutex<Value>>,
    down: Arc<AtomicBool>,
    server: Upstream,
}

impl Issuer {
    async fn start() -> Self {
        let published = Arc::new(Mutex::new(json!({ "keys": [] })));
        let down = Arc::new(AtomicBool::new(false));
        let (shown, silent) = (Arc::clone(&published), Arc::clone(&down));
        let server = Upstream::with(move |_| {
            let is_down = silent.load(Ordering::SeqCst);
            if is_down { response("503 Service Unavailable", "", b"") } else { ok(&shown.lock().to_string()) }
        })
        .await;
        let key = Ed25519KeyPair::generate().unwrap();
        let issuer = Self { current: Arc::new(Mutex::new((String::new(), key))), published, down, server };
        issuer.rotate("first");
        issuer
    }

    /// Publishes a new key in the place of the one before the last, and then signs with it.
    fn rotate(&self, kid: &str) {
        let key = Ed25519KeyPair::generate().unwrap();
        let mut published = self.published.lock();
        let keys = published["keys"].as_array_mut().unwrap();
        keys.push(json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": URL_SAFE_NO_PAD.encode(key.public_key()) }));
        if keys.len() > 2 {
            keys.remove(0);
        }
        *self.current.lock() = (kid.to_owned(), key);
    }

    fn token(&self) -> String {
        let current = self.current.lock();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let header = json!({ "alg": "EdDSA", "kid": current.0 });
        let claims = json!({ "iss": "https://id.example/", "aud": "orders", "sub": "ann", "exp": now + 60, "groups": ["staff"] });
        let message =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(current.1.sign(message.as_bytes())))
    }

    fn auth(&self, more: &str) -> String {
        let url = self.server.url();
        format!(
            "{{ jwt = {{ issuer = \"https://id.example/\", audience = \"orders\", jwks = \"{url}/jwks?x=1\"{more} }} }}"
        )
    }
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

#[tokio::test]
async fn a_token_opens_and_goes_upstream() {
    let (upstream, issuer) = (echo().await, Issuer::start().await);
    let gateway = Gateway::start(&route(&upstream, &issuer.auth(""))).await;
    let token = issuer.token();
    let seen = get_with(&gateway, "/", &bearer(&token)).await.json();
    assert_eq!((seen["principal"].as_str(), seen["groups"].as_str()), (Some("ann"), Some("staff")));
    assert_eq!(seen["authorization"], format!("Bearer {token}"));
    let refused = get_with(&gateway, "/", &bearer("a.b.c")).await;
    assert_eq!(refused.status, 401);
    let challenge =
        "Bearer realm=\"portcullis\", error=\"invalid_token\", error_description=\"the token is malformed\"";
    assert_eq!(refused.field("www-authenticate"), Some(challenge));
    assert_eq!(issuer.server.request(0).await.target, "/jwks?x=1");
    gateway.metric_reaches("portcullis_auth_jwks_refreshes_total", &[("result", "fetched")], 1.0).await;
    let rings = gateway.admin_get("/api/v1/keys").await.json();
    assert_eq!(
        (rings["key_rings"][0]["keys"].as_u64(), rings["key_rings"][0]["failures"].as_u64()),
        (Some(1), Some(0))
    );
}

#[tokio::test]
async fn keys_rotate_under_load_without_one_false_refusal() {
    let (upstream, issuer) = (echo().await, Arc::new(Issuer::start().await));
    let gateway = Gateway::start(&route(&upstream, &issuer.auth(""))).await;
    let address = gateway.public().await;
    let over = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (issuer, over, answered) = (Arc::clone(&issuer), Arc::clone(&over), Arc::clone(&answered));
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                while !over.load(Ordering::SeqCst) {
                    let token = issuer.token();
                    let answer = client.request(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", bearer(&token))).await;
                    assert_eq!(answer.status, 200, "{answer:?}");
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for rotation in 0..4 {
        let before = answered.load(Ordering::SeqCst);
        eventually("requests are answered", async || (answered.load(Ordering::SeqCst) >= before + 40).then_some(()))
            .await;
        issuer.rotate(&format!("key {rotation}"));
    }
    let before = answered.load(Ordering::SeqCst);
    eventually("requests are answered", async || (answered.load(Ordering::SeqCst) >= before + 40).then_some(())).await;
    over.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.expect("no false refusal");
    }
    // many waited for each key, and one fetch served them
    let fetches = issuer.server.requests().len();
    assert!((5..=12).contains(&fetches), "{fetches} fetches");
}

#[tokio::test]
async fn unknown_keys_cost_the_issuer_little() {
    let (upstream, issuer) = (echo().await, Issuer::start().await);
    let gateway = Gateway::start(&route(&upstream, &issuer.auth(""))).await;
    assert_eq!(get_with(&gateway, "/", &bearer(&issuer.token())).await.status, 200);
    let other = Issuer::start().await;
    other.rotate("nobody's");
    let forged = bearer(&other.token());
    let since = std::time::Instant::now();
    for _ in 0..50 {
        assert_eq!(get_with(&gateway, "/", &forged).await.status, 401);
    }
    // one a second at the most, and the one at the start
    let fetches = issuer.server.requests().len() as u64;
    assert!(fetches <= 3 + since.elapsed().as_secs(), "{fetches} fetches in {:?}", since.elapsed());
}

#[tokio::test]
async fn while_the_issuer_is_down_its_keys_hold_for_max_stale() {
    let (upstream, issuer) = (echo().await, Issuer::start().await);
    let gateway = Gateway::start(&route(&upstream, &issuer.auth(", refresh = \"1s\", max_stale = \"4s\""))).await;
    assert_eq!(get_with(&gateway, "/", &bearer(&issuer.token())).await.status, 200);
    issuer.down.store(true, Ordering::SeqCst);
    gateway.metric_reaches("portcullis_auth_jwks_refreshes_total", &[("result", "failed")], 1.0).await;
    assert_eq!(get_with(&gateway, "/", &bearer(&issuer.token())).await.status, 200, "the keys at hand go on");
    let refused = eventually("the keys are too old", async || {
        let answer = get_with(&gateway, "/", &bearer(&issuer.token())).await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "auth_unavailable"));
    assert_eq!(refused.field("retry-after"), Some("1"));
    issuer.down.store(false, Ordering::SeqCst);
    eventually("the issuer is heard again", async || {
        (get_with(&gateway, "/", &bearer(&issuer.token())).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_issuer_that_never_answered_is_no_reason_to_call_a_token_false() {
    let (upstream, issuer) = (echo().await, Issuer::start().await);
    issuer.down.store(true, Ordering::SeqCst);
    let gateway = Gateway::start(&route(&upstream, &issuer.auth(""))).await;
    let refused = get_with(&gateway, "/", &bearer(&issuer.token())).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "auth_unavailable"));
    assert_eq!(get_with(&gateway, "/", "").await.status, 401);
}

#[tokio::test]
async fn keys_of_a_file_are_read_with_the_configuration() {
    let (upstream, issuer) = (echo().await, Issuer::start().await);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jwks.json");
    std::fs::write(&file, issuer.published.lock().to_string()).unwrap();
    let auth = issuer.auth("").replace(&format!("{}/jwks?x=1", issuer.server.url()), &file.display().to_string());
    let gateway = Gateway::start(&route(&upstream, &auth)).await;
    assert_eq!(get_with(&gateway, "/", &bearer(&issuer.token())).await.status, 200);
    issuer.rotate("second");
    assert_eq!(get_with(&gateway, "/", &bearer(&issuer.token())).await.status, 401);
    replace(&file, &issuer.published.lock().to_string());
    eventually("the file is read again", async || {
        (get_with(&gateway, "/", &bearer(&issuer.token())).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(issuer.server.requests().len(), 0);
}

#[tokio::test]
async fn a_client_certificate_names_the_caller() {
    let upstream = echo().await;
    let authority = Authority::new();
    let (_folder, named) = consumers("[consumer.\"billing.example\"]\ngroups = [\"machines\"]\n");
    let certificate = authority.issue("localhost");
    let listener = format!(
        "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n[listener.tls]\ncertificates = [{}]\nclient_ca = \"{}\"\nclient_auth = \"optional\"\n",
        certificate.toml(),
        authority.ca().display(),
    );
    let gateway = Gateway::start(
        &(named
            + &listener
            + &route(&upstream, "{ client_certificate = { name = \"dns\" }, groups = [\"machines\"] }")),
    )
    .await;
    let address = gateway.public().await;
    let get = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let shown = authority.client_showing(&["http/1.1"], &authority.issue("billing.example"));
    let seen = Client::connect_tls(address, &shown, "localhost").await.request(get).await.json();
    assert_eq!((seen["principal"].as_str(), seen["groups"].as_str()), (Some("billing.example"), Some("machines")));
    let stranger = authority.client_showing(&["http/1.1"], &authority.issue("other.example"));
    assert_eq!(Client::connect_tls(address, &stranger, "localhost").await.request(get).await.status, 403);
    let nobody = authority.client(&["http/1.1"]);
    let refused = Client::connect_tls(address, &nobody, "localhost").await.request(get).await;
    assert_eq!(refused.field("www-authenticate"), Some("ClientCertificate realm=\"portcullis\""));
}

#[tokio::test]
async fn a_service_says_who_may_come_in() {
    let upstream = echo().await;
    let service = Upstream::with(|request| match request.field("authorization") {
        Some("Bearer good") => {
            response("204 No Content", "Remote-User: ann\r\nRemote-Groups: staff, ops\r\nX-Org: blue\r\n", b"")
        }
        Some("Bearer known") => response("403 Forbidden", "", b""),
        Some("Bearer broken") => response("500 Internal Server Error", "", b""),
        _ => response("401 Unauthorized", "WWW-Authenticate: Negotiate\r\n", b"no"),
    })
    .await;
    let auth = format!(
        "{{ forward = {{ url = \"{}/check\", copy_headers = [\"x-org\"], principal = \"remote-user\", groups = \"remote-groups\" }} }}",
        service.url()
    );
    let gateway = Gateway::start(&route(&upstream, &auth)).await;
    let forged = format!("{}X-Org: red\r\nX_Org: red\r\n", bearer("good"));
    let seen = get_with(&gateway, "/orders/7?x=1", &forged).await.json();
    assert_eq!(
        (seen["principal"].as_str(), seen["groups"].as_str(), seen["org"].as_str()),
        (Some("ann"), Some("staff,ops"), Some("blue"))
    );
    let asked = service.request(0).await;
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("GET", "/check"));
    assert_eq!(
        (asked.field("x-forwarded-method"), asked.field("x-forwarded-uri")),
        (Some("GET"), Some("/orders/7?x=1"))
    );
    assert_eq!(
        (asked.field("x-forwarded-host"), asked.field("x-forwarded-proto")),
        (Some("example.com"), Some("http"))
    );
    assert!(asked.field("x-org").is_none() && asked.field("x-request-id").is_some());
    let refused = get_with(&gateway, "/", &bearer("bad")).await;
    assert_eq!((refused.status, refused.field("www-authenticate")), (401, Some("Negotiate")));
    assert_eq!(get_with(&gateway, "/", &bearer("known")).await.status, 403);
    let refused = get_with(&gateway, "/", &bearer("broken")).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "auth_unavailable"));
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn a_service_that_is_slow_or_gone_denies_unless_told_otherwise() {
    let upstream = echo().await;
    let slow = Upstream::start(|mut conn| async move {
        let _ = conn.request().await?;
        let _ = conn.closed().await;
        Ok(())
    })
    .await;
    let forward = |url: &str, more: &str| format!("{{ forward = {{ url = \"{url}\", timeout = \"200ms\"{more} }} }}");
    let gateway = Gateway::start(&route(&upstream, &forward(&slow.url(), ""))).await;
    let refused = get_with(&gateway, "/", "").await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "auth_unavailable"));
    gateway.reload(&route(&upstream, &forward(&slow.url(), ", on_error = \"allow\""))).await;
    assert_eq!(get_with(&gateway, "/", "").await.status, 200);
    let gone = super::harness::Refusing::new();
    gateway.reload(&route(&upstream, &forward(&gone.url(), ""))).await;
    assert_eq!(get_with(&gateway, "/", "").await.status, 503);
}

#[tokio::test]
async fn who_has_left_is_not_waited_for() {
    let upstream = echo().await;
    let slow = Upstream::start(|mut conn| async move {
        let _ = conn.request().await?;
        let _ = conn.closed().await;
        Ok(())
    })
    .await;
    let auth = format!("{{ forward = {{ url = \"{}\", timeout = \"20s\" }} }}", slow.url());
    let gateway = Gateway::start(&route(&upstream, &auth)).await;
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    slow.request(0).await;
    drop(client);
    gateway.logged("that the client has left", |line| line["termination"] == "client_gone").await;
    let _ = tokio::time::timeout(Duration::from_secs(5), slow.ended(0)).await.expect("the question is given up");
    assert_eq!(upstream.requests().len(), 0);
}

#[tokio::test]
async fn nobody_forges_a_caller_on_another_route_to_the_same_upstream() {
    let upstream = echo().await;
    let (_folder, consumers) = consumers(&ann());
    let plain = format!("[[route]]\nname = \"plain\"\nmatch = \"/plain/*\"\nupstream = \"{}\"\n", upstream.url());
    let config = format!("{consumers}{}{plain}", route(&upstream, "{ api_key = { header = 'x-api-key' } }"));
    let gateway = Gateway::start(&config).await;
    let forged = "X-Portcullis-Principal: root\r\nx_portcullis_principal: root\r\nX-Portcullis-Groups: staff\r\n";
    let seen = get_with(&gateway, "/plain/x", forged).await.json();
    assert_eq!(
        (&seen["principal"], &seen["groups"], &seen["alias"]),
        (&json!("-"), &json!("-"), &json!("-")),
        "{seen}"
    );
}
