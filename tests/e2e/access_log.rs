//! A line for each request, and for what never became one.

use super::harness::client::ask;
use super::harness::wire::Wire;
use super::harness::{Authority, Client, Conn, Gate, Gateway, H2Client, Refusing, Upstream, all_to, eventually};

#[tokio::test]
async fn a_request_leaves_a_line_that_says_what_happened() {
    let upstream = Upstream::saying("hello").await;
    let config = format!("[upstream.api]\nendpoints = [\"{}\"]\n{}", upstream.url(), all_to("api"));
    let gateway = Gateway::start(&config).await;
    let request = "POST /a/b?c=d HTTP/1.1\r\nHost: example.com\r\nUser-Agent: test \"1\"\r\nReferer: http://example.com/from\r\nContent-Length: 3\r\n\r\nabc";
    let answer = ask(gateway.public().await, request).await;
    let line = gateway.logged("the request", |line| line["path"] == "/a/b").await;
    let expected = serde_json::json!({
        "method": "POST", "scheme": "http", "host": "example.com", "path": "/a/b", "query": "c=d", "version": "HTTP/1.1",
        "route": "all", "upstream": "api", "listener": "public", "client": "127.0.0.1", "status": 200,
        "bytes_in": 3, "bytes_out": 5, "user_agent": "test \"1\"", "referer": "http://example.com/from",
        "request_id": answer.field("x-request-id"),
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&line[key], value, "{key}: {line}");
    }
    assert!(line["duration_ms"].as_f64().is_some_and(|took| took >= 0.0), "{line}");
    assert!(line["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
    assert_eq!(line["attempts"].as_array().map(Vec::len), Some(1), "{line}");
    let endpoint = line["attempts"][0]["endpoint"].as_str().unwrap_or_default();
    assert!(endpoint.contains(&upstream.address().to_string()), "{line}");
}

#[tokio::test]
async fn a_refusal_is_logged_with_its_code() {
    let refusing = Refusing::new();
    let config = format!("[[route]]\nname = \"gone\"\nmatch = \"/gone\"\nupstream = \"{}\"\n", refusing.url());
    let gateway = Gateway::start(&config).await;
    gateway.get("/gone").await;
    let line = gateway.logged("the failure", |line| line["path"] == "/gone").await;
    assert_eq!((&line["status"], &line["code"]), (&502.into(), &"upstream_unreachable".into()), "{line}");
    gateway.get("/nowhere").await;
    let line = gateway.logged("the miss", |line| line["path"] == "/nowhere").await;
    assert_eq!((&line["status"], &line["code"]), (&404.into(), &"no_route".into()), "{line}");
}

#[tokio::test]
async fn what_never_became_a_request_is_logged() {
    let upstream = Upstream::saying("hello").await;
    let authority = Authority::new();
    let certificate = authority.issue("localhost").toml();
    let config = format!(
        "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\nlimits = {{ header_size = \"1KiB\" }}\n[[listener]]\nname = \"tls\"\naddress = \"127.0.0.1:0\"\ntls = {{ certificates = [{certificate}] }}\n{}",
        all_to(&upstream.url())
    );
    let gateway = Gateway::start(&config).await;
    let address = gateway.public().await;
    ask(address, "nonsense\r\n\r\n").await;
    gateway.logged("nonsense", |line| line["non_request"] == "parse_error").await;
    ask(address, &format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(2_000))).await;
    gateway.logged("a large head", |line| line["non_request"] == "head_too_large").await;
    let mut half = Wire::connect(address).await.unwrap();
    half.send("GET / HT").await.unwrap();
    drop(half);
    gateway.logged("half a head", |line| line["non_request"] == "client_gone").await;
    let mut wire = Wire::connect(gateway.listener("tls").await).await.unwrap();
    wire.send("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n").await.unwrap();
    let line = gateway.logged("a failed handshake", |line| line["non_request"] == "tls_failure").await;
    assert_eq!((&line["listener"], &line["client"]), (&"tls".into(), &"127.0.0.1".into()), "{line}");
    ask(address, "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n").await;
    gateway.logged("CONNECT", |line| line["method"] == "CONNECT" || line["non_request"] == "connect").await;
}

#[tokio::test]
async fn a_client_that_went_away_is_logged() {
    let upstream = Upstream::start(|mut conn: Conn| async move {
        conn.request().await?;
        conn.closed().await;
        Ok(())
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let mut client = gateway.client().await;
    client.send("GET /left HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
    upstream.request(0).await;
    drop(client);
    let line = gateway.logged("the request", |line| line["path"] == "/left").await;
    assert_eq!(line["termination"], "client_gone", "{line}");
}

#[tokio::test]
async fn a_response_that_was_cut_is_logged() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::start(move |mut conn: Conn| {
        let held = held.clone();
        async move {
            conn.request().await?;
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfour").await?;
            held.passed().await;
            Ok(())
        }
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let mut client = gateway.client().await;
    client.send("GET /cut HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
    client.head().await;
    assert_eq!(client.exactly(4).await, b"four");
    gate.open();
    client.closed().await;
    let line = gateway.logged("the request", |line| line["path"] == "/cut").await;
    assert_eq!((&line["status"], &line["termination"]), (&200.into(), &"upstream_reset".into()), "{line}");
}

#[tokio::test]
async fn every_stream_leaves_a_line() {
    let upstream = Upstream::saying("hello").await;
    let listener = "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\nprotocols = [\"h2\"]\n";
    let gateway = Gateway::start(&(listener.to_owned() + &all_to(&upstream.url()))).await;
    let mut client = H2Client::connect(gateway.public().await).await;
    for number in 0..5 {
        assert_eq!(client.get(&format!("http://example.com/{number}")).await.status, 200);
    }
    for number in 0..5 {
        let path = format!("/{number}");
        let line = gateway.logged("the stream", |line| line["path"] == path.as_str()).await;
        assert_eq!(line["version"], "HTTP/2.0", "{line}");
    }
}

#[tokio::test]
async fn credentials_never_reach_the_log() {
    let upstream = Upstream::saying("hello").await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let request = "GET /?token=S3CRET&access_token=S3CRET&api_key=S3CRET&password=S3CRET&page=2 HTTP/1.1\r\nHost: example.com\r\nAuthorization: Bearer S3CRET\r\nCookie: session=S3CRET\r\nX-Api-Key: S3CRET\r\nReferer: http://example.com/?token=S3CRET\r\n\r\n";
    assert_eq!(ask(gateway.public().await, request).await.status, 200);
    let line = gateway.logged("the request", |line| line["status"] == 200).await;
    assert!(!line.to_string().contains("S3CRET"), "{line}");
    assert!(line["query"].as_str().is_some_and(|query| query.contains("page=2")), "{line}");
    assert!(!gateway.log.text().contains("S3CRET"));
}

#[tokio::test]
async fn bytes_of_a_client_cannot_forge_a_line() {
    let upstream = Upstream::saying("hello").await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let request =
        b"GET /forge HTTP/1.1\r\nHost: example.com\r\nUser-Agent: a\"}\\n{\"path\":\"/evil\" caf\xe9 \x7f\tb\r\n\r\n";
    let request: Vec<u8> = request.iter().copied().filter(|byte| *byte != 0x7f).collect();
    let mut client = Client::connect(gateway.public().await).await;
    client.send(request).await;
    assert_eq!(client.response().await.status, 200);
    // every line is read as JSON on the way
    let line = gateway.logged("the request", |line| line["path"] == "/forge").await;
    assert!(line["user_agent"].as_str().is_some_and(|agent| agent.contains("/evil")), "{line}");
    assert_eq!(gateway.access_log().lines().count(), 1);
}

fn in_format(gateway_folder: &std::path::Path, format: &str) -> String {
    let path = gateway_folder.join("formatted.log");
    format!(
        "[telemetry]\nlog = {{ level = \"info\", format = \"json\" }}\naccess_log = {{ path = \"{}\", format = \"{format}\" }}\n[[route]]\nmatch = \"/*\"\nrespond = {{ body = \"hello\" }}\n",
        path.display()
    )
}

#[tokio::test]
async fn common_and_combined_are_those_of_other_servers() {
    let request = "GET /a?b=c HTTP/1.1\r\nHost: example.com\r\nUser-Agent: test\r\nReferer: http://r/\r\n\r\n";
    let common =
        r#"^127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "GET /a\?b=c HTTP/1\.1" 200 5"#;
    for (format, rest) in [("common", "$"), ("combined", r#" "http://r/" "test"$"#)] {
        let folder = tempfile::tempdir().unwrap();
        let gateway = Gateway::start(&in_format(folder.path(), format)).await;
        ask(gateway.public().await, request).await;
        let expected = regex::Regex::new(&format!("{common}{rest}")).unwrap();
        let path = folder.path().join("formatted.log");
        let text =
            eventually("a line", async || std::fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n')))
                .await;
        assert!(expected.is_match(text.trim_end()), "{format}: {text}");
    }
}

#[tokio::test]
async fn sighup_opens_the_log_anew_after_it_was_moved() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (folder.path().join("formatted.log"), folder.path().join("moved.log"));
    let gateway = Gateway::start(&in_format(folder.path(), "json")).await;
    gateway.get("/before").await;
    let holds = |path: &std::path::Path, text: &str| {
        std::fs::read_to_string(path).is_ok_and(|log| log.contains(text)).then_some(())
    };
    eventually("the first line", async || holds(&path, "/before")).await;
    std::fs::rename(&path, &moved).unwrap();
    gateway.signal("HUP").await;
    eventually("a new file", async || path.exists().then_some(())).await;
    gateway.get("/after").await;
    eventually("the second line", async || holds(&path, "/after")).await;
    assert!(holds(&moved, "/after").is_none());
}

#[tokio::test]
async fn the_lines_of_the_last_requests_are_written_before_the_end() {
    let mut gateway = Gateway::start("[[route]]\nmatch = \"/*\"\nrespond = { body = \"hello\" }\n").await;
    let mut client = gateway.client().await;
    for number in 0..100 {
        assert_eq!(client.get(&format!("/{number}")).await.status, 200);
    }
    assert!(gateway.terminate().await.status.success());
    assert_eq!(gateway.access_log().lines().count(), 100);
}
