//! Programs that others wrote, as clients and upstreams: curl, gRPC for Python, websockets for Python.

use super::harness::python::{Server, curl, run};
use super::harness::upstream::{ok, response};
use super::harness::{Authority, Gateway, Upstream, all_to};

struct Curl {
    gateway: Gateway,
    upstream: Upstream,
    authority: Authority,
}

/// A listener in clear, one over TLS and one for HTTP/2 in clear, before an upstream that answers with what it got.
async fn curl_bench() -> Curl {
    let upstream = Upstream::with(|request| match request.method.as_str() {
        "POST" => response("200 OK", "", request.body().len().to_string().as_bytes()),
        _ => ok(&format!("{} {}", request.method, request.target)),
    })
    .await;
    let authority = Authority::new();
    let certificate = authority.issue("localhost").toml();
    let config = format!(
        r#"
[[listener]]
name = "public"
address = "127.0.0.1:0"
[[listener]]
name = "tls"
address = "127.0.0.1:0"
tls = {{ certificates = [{certificate}] }}
[[listener]]
name = "h2"
address = "127.0.0.1:0"
protocols = ["h2"]
{}compress = true
"#,
        all_to(&upstream.url())
    );
    Curl { gateway: Gateway::start(&config).await, upstream, authority }
}

impl Curl {
    /// What curl prints for that listener: the body, then the version and the status.
    async fn run(&self, listener: &str, arguments: &[&str]) -> String {
        let port = self.gateway.listener(listener).await.port();
        let scheme = if listener == "tls" { "https" } else { "http" };
        let (url, resolve) = (format!("{scheme}://localhost:{port}/a?b"), format!("localhost:{port}:127.0.0.1"));
        let ca = self.authority.ca().display().to_string();
        let mut all = vec!["--resolve", &resolve, "--cacert", &ca, "--write-out", " %{http_version} %{http_code}"];
        all.extend(arguments);
        all.push(&url);
        curl(&all).await
    }
}

#[tokio::test]
async fn curl_over_http_1() {
    let bench = curl_bench().await;
    assert_eq!(bench.run("public", &[]).await, "GET /a?b 1.1 200");
    assert_eq!(bench.run("public", &["--http1.0"]).await, "GET /a?b 1.1 200");
    assert!(bench.run("public", &["--head"]).await.ends_with(" 1.1 200"));
    assert_eq!(bench.run("tls", &["--http1.1"]).await, "GET /a?b 1.1 200");
    assert_eq!(bench.run("public", &["--compressed"]).await, "GET /a?b 1.1 200");
}

#[tokio::test]
async fn curl_over_http_2() {
    let bench = curl_bench().await;
    assert_eq!(bench.run("tls", &["--http2"]).await, "GET /a?b 2 200");
    assert_eq!(bench.run("h2", &["--http2-prior-knowledge"]).await, "GET /a?b 2 200");
    // curl asks to upgrade, and takes the answer that it gets
    assert_eq!(bench.run("public", &["--http2"]).await, "GET /a?b 1.1 200");
}

#[tokio::test]
async fn curl_uploads() {
    let bench = curl_bench().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("body");
    std::fs::write(&file, vec![b'x'; 3_000_000]).unwrap();
    let body = format!("@{}", file.display());
    // from one megabyte on curl waits for 100 (Continue)
    for (listener, version) in [("public", "--http1.1"), ("tls", "--http1.1"), ("tls", "--http2")] {
        let said = bench.run(listener, &[version, "--expect100-timeout", "20", "--data-binary", &body]).await;
        assert!(said.starts_with("3000000 "), "{listener} {version}: {said}");
        let chunked = ["--header", "Transfer-Encoding: chunked", "--data-binary", &body, version];
        if version == "--http1.1" {
            assert!(bench.run(listener, &chunked).await.starts_with("3000000 "), "{listener}, chunked");
        }
    }
    assert!(bench.upstream.requests().iter().all(|request| !request.fields.has("expect")));
}

fn grpc_config(authority: &Authority, endpoint: &str, tls: &str) -> String {
    let certificate = authority.issue("localhost").toml();
    format!(
        r#"
[[listener]]
name = "h2"
address = "127.0.0.1:0"
protocols = ["h2"]
[[listener]]
name = "tls"
address = "127.0.0.1:0"
tls = {{ certificates = [{certificate}] }}
[upstream.grpc]
endpoints = ["{endpoint}"]
protocol = "h2"
{tls}
[[route]]
match = "/test.Echo/*"
upstream = "grpc"
"#
    )
}

#[tokio::test]
async fn grpc_in_clear() {
    let server = Server::start("grpc_server.py", &[]).await;
    let authority = Authority::new();
    let gateway = Gateway::start(&grpc_config(&authority, &format!("http://127.0.0.1:{}", server.port), "")).await;
    let target = gateway.listener("h2").await.to_string();
    assert_eq!(run("grpc_client.py", &[&target]).await.trim(), "ok");
}

#[tokio::test]
async fn grpc_over_tls_on_both_sides() {
    let authority = Authority::new();
    let issued = authority.issue("127.0.0.1");
    let (chain, key) = (issued.chain.display().to_string(), issued.key.display().to_string());
    let server = Server::start("grpc_server.py", &[&chain, &key]).await;
    let tls = format!("tls = {{ ca = \"{}\" }}", authority.ca().display());
    let config = grpc_config(&authority, &format!("https://127.0.0.1:{}", server.port), &tls);
    let gateway = Gateway::start(&config).await;
    let target = gateway.listener("tls").await.to_string();
    let ca = authority.ca().display().to_string();
    assert_eq!(run("grpc_client.py", &[&target, &ca]).await.trim(), "ok");
}

#[tokio::test]
async fn websockets_in_clear_and_over_tls() {
    let server = Server::start("websocket_server.py", &[]).await;
    let authority = Authority::new();
    let certificate = authority.issue("localhost").toml();
    let config = format!(
        "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n[[listener]]\nname = \"tls\"\naddress = \"127.0.0.1:0\"\ntls = {{ certificates = [{certificate}] }}\n{}",
        all_to(&format!("http://127.0.0.1:{}", server.port))
    );
    let gateway = Gateway::start(&config).await;
    let url = format!("ws://{}/chat", gateway.public().await);
    assert_eq!(run("websocket_client.py", &[&url]).await.trim(), "ok");
    let url = format!("wss://{}/chat", gateway.listener("tls").await);
    let ca = authority.ca().display().to_string();
    assert_eq!(run("websocket_client.py", &[&url, &ca]).await.trim(), "ok");
}
