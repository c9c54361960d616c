//! What the gateway tells the upstream about the client, what it keeps to itself, and what it never says of itself.

use super::harness::client::ask;
use super::harness::message::Request;
use super::harness::upstream::{ok, response};
use super::harness::{Authority, Client, Conn, Gateway, H2Client, Refusing, Upstream, all_to};

/// What the upstream receives of a GET with these further lines. `root` are keys of the configuration's root.
async fn received(root: &str, lines: &str) -> Request {
    let upstream = Upstream::saying("hello").await;
    let gateway = Gateway::start(&format!("{root}{}", all_to(&upstream.url()))).await;
    let answer = ask(gateway.public().await, &format!("GET /x HTTP/1.1\r\nHost: example.com\r\n{lines}\r\n")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    upstream.request(0).await
}

/// All values of a list field as one.
fn list(request: &Request, name: &str) -> String {
    request.fields.all(name).join(", ")
}

#[tokio::test]
async fn the_upstream_is_told_who_the_client_is() {
    let request = received("", "").await;
    assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.field("x-forwarded-proto"), Some("http"));
    assert_eq!(request.field("x-forwarded-host"), Some("example.com"));
    let forwarded = list(&request, "forwarded").to_lowercase().replace('"', "");
    for part in ["for=127.0.0.1", "proto=http", "host=example.com"] {
        assert!(forwarded.split([';', ',']).any(|given| given.trim() == part), "{part}: {forwarded}");
    }
}

#[tokio::test]
async fn over_tls_the_upstream_is_told_https() {
    let upstream = Upstream::saying("hello").await;
    let authority = Authority::new();
    let certificate = authority.issue("localhost").toml();
    let listener = format!(
        "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\ntls = {{ certificates = [{certificate}] }}\n"
    );
    let gateway = Gateway::start(&(listener + &all_to(&upstream.url()))).await;
    let mut client = Client::connect_tls(gateway.public().await, &authority.client(&[]), "localhost").await;
    assert_eq!(client.get("/").await.status, 200);
    let request = upstream.request(0).await;
    assert_eq!(request.field("x-forwarded-proto"), Some("https"));
    assert!(list(&request, "forwarded").contains("proto=https"), "{request:?}");
}

#[tokio::test]
async fn what_a_stranger_says_of_itself_is_not_believed() {
    let lies = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\nX-Forwarded-Port: 1\r\nForwarded: for=6.6.6.6;proto=https\r\nX-Real-IP: 6.6.6.6\r\n";
    let request = received("", lies).await;
    assert!(!request.raw.contains("6.6.6.6"), "{}", request.raw);
    assert!(!request.raw.contains("evil.example"), "{}", request.raw);
    assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.field("x-forwarded-proto"), Some("http"));
    assert!(!list(&request, "forwarded").contains("https"), "{}", request.raw);
}

#[tokio::test]
async fn what_a_trusted_proxy_says_is_believed_and_extended() {
    let root = "trusted_proxies = [\"127.0.0.0/8\"]\n";
    let said = "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: public.example\r\n";
    let request = received(root, said).await;
    assert_eq!(list(&request, "x-forwarded-for").replace(' ', ""), "203.0.113.7,127.0.0.1");
    assert_eq!(request.field("x-forwarded-proto"), Some("https"));
    assert_eq!(request.field("x-forwarded-host"), Some("public.example"));
}

#[tokio::test]
async fn the_client_is_the_nearest_address_that_no_trusted_proxy_has() {
    let upstream = Upstream::saying("hello").await;
    let config = format!(
        "trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]\n{}access = {{ deny = [\"203.0.113.7\"] }}\n",
        all_to(&upstream.url())
    );
    let gateway = Gateway::start(&config).await;
    let with = async |lines: &str| {
        let request = format!("GET / HTTP/1.1\r\nHost: example.com\r\n{lines}\r\n");
        ask(gateway.public().await, &request).await.status
    };
    assert_eq!(with("").await, 200);
    assert_eq!(with("X-Forwarded-For: 203.0.113.7\r\n").await, 403);
    assert_eq!(with("X-Forwarded-For: 203.0.113.7, 10.1.2.3\r\n").await, 403, "the proxy in between is trusted");
    assert_eq!(with("X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-For: 10.1.2.3\r\n").await, 403, "in two lines");
    assert_eq!(with("X-Forwarded-For: 203.0.113.7, 198.51.100.1\r\n").await, 200, "what the client itself said before");
    assert_eq!(with("Forwarded: for=203.0.113.7;proto=https\r\n").await, 403);
    assert_eq!(with("Forwarded: for=\"203.0.113.7:4711\"\r\n").await, 403, "with a port");
}

#[tokio::test]
async fn via_names_the_gateway_and_those_before_it() {
    let request = received("", "").await;
    assert!(list(&request, "via").starts_with("1.1 "), "{}", request.raw);
    let request = received("", "Via: 1.0 fred, 1.1 jane\r\n").await;
    let via = list(&request, "via");
    assert!(via.starts_with("1.0 fred, 1.1 jane, 1.1 "), "{via}");
}

#[tokio::test]
async fn a_request_id_is_made_and_told_to_both_sides() {
    let upstream = Upstream::saying("hello").await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let mut client = gateway.client().await;
    let (one, two) = (client.get("/").await, client.get("/").await);
    let ids = [one.field("x-request-id").expect("an id"), two.field("x-request-id").expect("an id")];
    assert_ne!(ids[0], ids[1]);
    for (number, id) in ids.into_iter().enumerate() {
        assert_eq!(upstream.request(number).await.field("x-request-id"), Some(id));
        assert!((8..=128).contains(&id.len()), "{id}");
    }
}

#[tokio::test]
async fn a_request_id_of_a_trusted_proxy_is_kept() {
    let request = received("trusted_proxies = [\"127.0.0.1\"]\n", "X-Request-Id: from-the-edge-1\r\n").await;
    assert_eq!(request.field("x-request-id"), Some("from-the-edge-1"));
}

#[tokio::test]
async fn a_request_id_that_could_break_a_log_is_replaced() {
    let long = "x".repeat(2_000);
    for id in [long.as_str(), "a b\"c", "caf\u{e9}"] {
        let request = received("trusted_proxies = [\"127.0.0.1\"]\n", &format!("X-Request-Id: {id}\r\n")).await;
        let kept = request.field("x-request-id").expect("an id");
        assert!(kept != id && !kept.is_empty(), "{kept}");
    }
}

/// The parts of a valid `traceparent` (W3C Trace Context §3.2).
fn trace(request: &Request) -> (String, String) {
    let value = request.field("traceparent").expect("traceparent");
    let parts: Vec<&str> = value.split('-').collect();
    let hex = |text: &str, length| text.len() == length && text.bytes().all(|b| b"0123456789abcdef".contains(&b));
    let [version, trace, parent, flags] = parts[..] else { panic!("{value}") };
    assert!(version == "00" && hex(trace, 32) && hex(parent, 16) && hex(flags, 2), "{value}");
    assert!(trace.bytes().any(|b| b != b'0') && parent.bytes().any(|b| b != b'0'), "{value}");
    (trace.to_owned(), parent.to_owned())
}

#[tokio::test]
async fn a_trace_is_begun_or_continued() {
    trace(&received("", "").await);
    let (id, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let lines = format!("traceparent: 00-{id}-{parent}-01\r\ntracestate: a=1,b=2\r\n");
    let request = received("", &lines).await;
    assert_eq!(trace(&request).0, id);
    assert!(request.field("traceparent").unwrap().ends_with("-01"), "sampled stays sampled");
    assert_eq!(request.field("tracestate"), Some("a=1,b=2"));
}

#[tokio::test]
async fn a_broken_trace_is_begun_anew() {
    let broken = [
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "nonsense",
    ];
    for value in broken {
        let request = received("", &format!("traceparent: {value}\r\ntracestate: a=1\r\n")).await;
        let (id, _) = trace(&request);
        assert!(id != "0af7651916cd43dd8448eb211c80319c", "{value}");
        assert!(!request.fields.has("tracestate"), "it belongs to the broken one: {value}");
    }
}

#[tokio::test]
async fn fields_of_the_connection_stop_at_the_gateway() {
    let lines = "Connection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\nTE: gzip\r\nTrailer: X\r\nUpgrade: foo\r\nX-End: 2\r\nAuthorization: Basic eQ==\r\nCookie: a=b\r\n";
    let request = received("", lines).await;
    for name in ["x-hop", "keep-alive", "proxy-connection", "proxy-authorization", "te", "upgrade"] {
        assert!(!request.fields.has(name), "{name}: {}", request.raw);
    }
    assert!(!request.fields.has_token("connection", "x-hop"), "{}", request.raw);
    for (name, value) in [("x-end", "2"), ("authorization", "Basic eQ=="), ("cookie", "a=b")] {
        assert_eq!(request.field(name), Some(value));
    }
}

#[tokio::test]
async fn fields_of_the_upstreams_connection_stop_at_the_gateway() {
    let fields = "Connection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nUpgrade: h2c\r\nX-End: 2\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n";
    let upstream = Upstream::answering(response("200 OK", fields, b"hello")).await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let answer = gateway.get("/").await;
    for name in ["x-hop", "keep-alive", "proxy-connection", "upgrade"] {
        assert!(!answer.fields.has(name), "{name}: {answer:?}");
    }
    assert!(!answer.fields.has_token("connection", "x-hop"), "{answer:?}");
    assert_eq!(answer.field("x-end"), Some("2"));
    assert_eq!(answer.fields.all("set-cookie"), ["a=1", "b=2"], "never joined");
}

#[tokio::test]
async fn what_the_origin_says_of_itself_stays() {
    let fields = "Date: Tue, 15 Nov 1994 08:12:31 GMT\r\nServer: origin/1.0\r\nETag: W/\"x\"\r\nAge: 30\r\n";
    let upstream = Upstream::answering(response("200 OK", fields, b"hello")).await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let answer = gateway.get("/").await;
    assert_eq!(answer.field("date"), Some("Tue, 15 Nov 1994 08:12:31 GMT"));
    assert_eq!(answer.field("server"), Some("origin/1.0"));
    assert_eq!((answer.field("etag"), answer.field("age")), (Some("W/\"x\""), Some("30")));
}

#[tokio::test]
async fn a_response_without_a_date_gets_one() {
    let upstream = Upstream::saying("hello").await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let date = gateway.get("/").await.field("date").map(str::to_owned).expect("RFC 9110 §6.6.1");
    assert!(date.ends_with(" GMT"), "{date}");
}

#[tokio::test]
async fn nothing_says_what_the_gateway_is_built_on() {
    let upstream = Upstream::start(|mut conn: Conn| async move {
        let request = conn.request().await?;
        conn.send(if request.target == "/bad" { b"nonsense\r\n\r\n".to_vec() } else { ok("hello") }).await
    })
    .await;
    let refusing = Refusing::new();
    let authority = Authority::new();
    let certificate = authority.issue("localhost").toml();
    let config = format!(
        "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n[[listener]]\nname = \"tls\"\naddress = \"127.0.0.1:0\"\ntls = {{ certificates = [{certificate}] }}\n{}{}{}",
        route("good", "/good/*", &upstream.url()),
        route("bad", "/bad", &upstream.url()),
        route("gone", "/gone", &refusing.url()),
    );
    let gateway = Gateway::start(&config).await;
    let address = gateway.public().await;
    for (target, status) in [("/good", 200), ("/bad", 502), ("/gone", 502), ("/nowhere", 404), ("/good/%00", 400)] {
        let answer = gateway.get(target).await;
        assert_eq!(answer.status, status, "{target}");
        assert!(!answer.raw.to_lowercase().contains("pingora"), "{}", answer.raw);
        assert!(!answer.text().to_lowercase().contains("pingora"), "{}", answer.text());
    }
    let answer = ask(address, "nonsense\r\n\r\n").await;
    assert!(!answer.raw.to_lowercase().contains("pingora"), "{}", answer.raw);
    let mut client =
        H2Client::connect_tls(gateway.listener("tls").await, &authority.client(&["h2"]), "localhost").await;
    for path in ["/good", "/nowhere", "/gone"] {
        let answer = client.get(&format!("https://localhost{path}")).await;
        assert!(!format!("{answer:?}").to_lowercase().contains("pingora"), "{answer:?}");
    }
}

fn route(name: &str, path: &str, upstream: &str) -> String {
    format!("[[route]]\nname = \"{name}\"\nmatch = \"{path}\"\nupstream = \"{upstream}\"\n")
}

#[tokio::test]
async fn a_refusal_is_plain_text_for_those_who_ask_for_it() {
    let gateway = Gateway::start("[[route]]\nmatch = \"/x\"\nrespond = { status = 200 }\n").await;
    let address = gateway.public().await;
    let answer = ask(address, "GET /y HTTP/1.1\r\nHost: example.com\r\nAccept: text/plain\r\n\r\n").await;
    assert_eq!(answer.status, 404);
    assert!(answer.field("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{answer:?}");
    let id = answer.field("x-request-id").expect("an id");
    assert!(!answer.text().is_empty() && !answer.text().contains('{'), "{} {id}", answer.text());
    let answer = ask(address, "GET /y HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\n\r\n").await;
    assert_eq!(answer.code(), "no_route");
}
