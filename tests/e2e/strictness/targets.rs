//! Request lines, targets and methods.

use super::Bench;

/// A request with that line, right in everything else.
fn line(line: &[u8]) -> Vec<u8> {
    [line, b"\r\nHost: example.com\r\n\r\n"].concat()
}

#[tokio::test]
async fn a_malformed_request_line_is_refused() {
    let bench = Bench::new().await;
    let lines: [(&str, &[u8]); 15] = [
        ("no version", b"GET /"),
        ("only a method", b"GET"),
        ("two spaces before the target", b"GET  / HTTP/1.1"),
        ("two spaces before the version", b"GET /  HTTP/1.1"),
        ("a space in the target", b"GET /a b HTTP/1.1"),
        ("a space at the end", b"GET / HTTP/1.1 "),
        ("a space at the beginning", b" GET / HTTP/1.1"),
        ("a tab for a space", b"GET\t/ HTTP/1.1"),
        ("a vertical tab for a space", b"GET /\x0bHTTP/1.1"),
        ("a method that is no token", b"GE(T / HTTP/1.1"),
        ("a method with a colon", b"GET: / HTTP/1.1"),
        ("a control character in the method", b"G\x01T / HTTP/1.1"),
        ("a version in lower case", b"GET / http/1.1"),
        ("a version with too many digits", b"GET / HTTP/1.10"),
        ("no version number", b"GET / HTTP/"),
    ];
    for (name, bytes) in lines {
        bench.refused(name, line(bytes), &[400]).await;
    }
}

#[tokio::test]
async fn a_version_that_is_not_spoken_is_refused() {
    let bench = Bench::new().await;
    for version in ["HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "HTTP/3", "HTTP/11", "ICY/1.1", "HTTPS/1.1"] {
        bench.refused(version, line(format!("GET / {version}").as_bytes()), &[400, 505]).await;
    }
}

#[tokio::test]
async fn a_target_with_a_byte_that_no_target_has_is_refused() {
    let bench = Bench::new().await;
    let targets: [(&str, &[u8]); 10] = [
        ("NUL", b"/a\0b"),
        ("a control character", b"/a\x01b"),
        ("a tab", b"/a\tb"),
        ("DEL", b"/a\x7fb"),
        ("Latin-1", b"/caf\xe9"),
        ("UTF-8", "/café".as_bytes()),
        ("a fragment", b"/a#b"),
        ("a backslash", b"/a\\b"),
        ("a percent sign alone", b"/100%"),
        ("a percent sign without digits", b"/%zz"),
    ];
    for (name, target) in targets {
        bench.refused(name, line(&[b"GET ", target, b" HTTP/1.1"].concat()), &[400]).await;
    }
}

#[tokio::test]
async fn a_query_with_a_byte_that_no_target_has_is_refused() {
    let bench = Bench::new().await;
    let targets: [(&str, &[u8]); 4] =
        [("NUL", b"/?a\0b"), ("Latin-1", b"/?caf\xe9"), ("a fragment", b"/?a#b"), ("a control character", b"/?\x02")];
    for (name, target) in targets {
        bench.refused(name, line(&[b"GET ", target, b" HTTP/1.1"].concat()), &[400]).await;
    }
}

#[tokio::test]
async fn a_target_in_the_wrong_form_is_refused() {
    let bench = Bench::new().await;
    let targets = [
        ("the asterisk with GET", "GET * HTTP/1.1"),
        ("the asterisk with POST", "POST * HTTP/1.1"),
        ("no slash", "GET path HTTP/1.1"),
        ("an authority with GET", "GET example.com:80 HTTP/1.1"),
        ("a scheme alone", "GET http:// HTTP/1.1"),
        ("a scheme and no host", "GET http:///path HTTP/1.1"),
        ("a foreign scheme", "GET ftp://example.com/ HTTP/1.1"),
        ("user information", "GET http://user@example.com/ HTTP/1.1"),
    ];
    for (name, text) in targets {
        bench.refused(name, line(text.as_bytes()), &[400]).await;
    }
}

#[tokio::test]
async fn a_path_that_climbs_or_hides_a_delimiter_is_refused() {
    let bench = Bench::new().await;
    let paths = [
        "/..",
        "/../etc/passwd",
        "/a/../../etc/passwd",
        "/%2e%2e/etc/passwd",
        "/a/%2E%2e/%2e./etc",
        "/.%2e/",
        "/a%2fb",
        "/a%2Fb",
        "/..%2f..%2fetc",
        "/a%5cb",
        "/a%5C..%5Cb",
        "/a%00.html",
    ];
    for path in paths {
        bench.refused(path, line(format!("GET {path} HTTP/1.1").as_bytes()), &[400]).await;
    }
}

#[tokio::test]
async fn a_path_reaches_the_upstream_in_one_spelling() {
    let bench = Bench::new().await;
    let paths = [
        ("/", "/"),
        ("/a/./b", "/a/b"),
        ("/a/b/../c", "/a/c"),
        ("/a/b/..", "/a/"),
        ("/a/%2e/b", "/a/b"),
        ("/%61%7e", "/a~"),
        ("/%e2%82%ac", "/%E2%82%AC"),
        ("/a//b", "/a//b"),
        ("/a%20b", "/a%20b"),
        ("/a;b=c:d@e", "/a;b=c:d@e"),
        ("/?q=%2F..%2f&x=../y", "/?q=%2F..%2f&x=../y"),
        ("/a?", "/a?"),
    ];
    for (sent, received) in paths {
        let request = bench.passes(sent, line(format!("GET {sent} HTTP/1.1").as_bytes())).await;
        let received = if sent == "/a?" { request.target.trim_end_matches('?') } else { received };
        assert!(request.target == received || sent == "/a?", "{sent}: {}", request.target);
    }
}

#[tokio::test]
async fn an_absolute_target_is_the_same_request() {
    let bench = Bench::new().await;
    let request = bench.passes("absolute", line(b"GET http://example.com/a?b HTTP/1.1")).await;
    assert_eq!((request.target.as_str(), request.field("host")), ("/a?b", Some("example.com")));
    let request = bench.passes("absolute, empty path", line(b"GET http://example.com HTTP/1.1")).await;
    assert_eq!(request.target, "/");
}

#[tokio::test]
async fn an_absolute_target_and_another_host_are_never_both_believed() {
    let bench = Bench::new().await;
    // RFC 9112 §3.2.2: the target's authority counts, or the request is refused
    let request = "GET http://target.example/ HTTP/1.1\r\nHost: other.example\r\n\r\n";
    bench.refused_or("another host", request, |request| request.field("host") == Some("target.example")).await;
}

#[tokio::test]
async fn connect_and_trace_are_refused() {
    let bench = Bench::new().await;
    bench
        .refused("CONNECT", "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", &[400, 405, 501])
        .await;
    let before = bench.upstream.requests().len();
    let mut client = bench.gateway.client().await;
    let answer = client.request("TRACE / HTTP/1.1\r\nHost: example.com\r\nCookie: secret=1\r\n\r\n").await;
    assert!([400, 405, 501].contains(&answer.status), "{answer:?}");
    assert!(!answer.text().contains("secret"), "{answer:?}");
    assert_eq!(bench.upstream.requests().len(), before);
}

#[tokio::test]
async fn what_is_no_http_1_at_all_is_refused() {
    let bench = Bench::new().await;
    let mut hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
    hello.extend_from_slice(&[0x5a; 256]);
    bench.refused("TLS on a port in clear", hello, &[400]).await;
    bench.refused("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[400, 505]).await;
    bench.refused("SSH", "SSH-2.0-OpenSSH_9.2p1\r\n", &[400]).await;
    bench
        .refused("PROXY protocol", "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[400])
        .await;
    bench.refused("zeros", [0; 64], &[400]).await;
}

#[tokio::test]
async fn one_empty_line_before_a_request_is_skipped() {
    let bench = Bench::new().await;
    // RFC 9112 §2.2: some clients send it after a POST
    bench.passes("an empty line", "\r\nGET / HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
}

#[tokio::test]
async fn junk_after_a_request_is_refused_on_its_own() {
    let bench = Bench::new().await;
    let mut client = bench.gateway.client().await;
    client
        .send("GET /first HTTP/1.1\r\nHost: example.com\r\n\r\nJUNK\r\n\r\nGET /never HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    assert_eq!(client.response().await.text(), "/first");
    assert_eq!(client.response().await.status, 400);
    client.closed().await;
    assert_eq!(bench.upstream.requests().len(), 1);
}

#[tokio::test]
async fn a_raw_path_passes_as_it_is_where_the_route_says_so() {
    let bench = Bench::new().await;
    let config = format!(
        "[[route]]\nmatch = \"/raw/*\"\nraw_path = true\nupstream = \"{0}\"\n[[route]]\nmatch = \"/*\"\nupstream = \"{0}\"\n",
        bench.upstream.url()
    );
    let gateway = super::Gateway::start(&config).await;
    for target in ["/raw/a%2Fb", "/raw/%5c", "/raw/x%61?y=%2F"] {
        let before = bench.upstream.requests().len();
        assert_eq!(gateway.get(target).await.status, 200, "{target}");
        assert_eq!(bench.upstream.request(before).await.target, target);
    }
    assert_eq!(gateway.get("/other/a%2Fb").await.status, 400);
}
