//! Header lines: their grammar, `Host`, names that other programs read as one, and who may nominate what.

use super::Bench;

#[tokio::test]
async fn a_line_that_does_not_end_in_crlf_is_refused() {
    Bench::new()
        .await
        .all_refused(&[
            ("LF alone everywhere", "GET / HTTP/1.1\nHost: example.com\n\n"),
            ("LF alone after the request line", "GET / HTTP/1.1\nHost: example.com\r\n\r\n"),
            ("LF alone after a field", "GET / HTTP/1.1\r\nHost: example.com\nX: y\r\n\r\n"),
            ("LF alone at the end", "GET / HTTP/1.1\r\nHost: example.com\r\n\n"),
            ("CR alone in a value", "GET / HTTP/1.1\r\nHost: example.com\r\nX: a\rb\r\n\r\n"),
            ("CR alone that could begin a field", "GET / HTTP/1.1\r\nHost: example.com\rX: y\r\n\r\n"),
            ("CR twice", "GET / HTTP/1.1\r\nHost: example.com\r\r\n\r\n"),
            ("CR in the request line", "GET /\r HTTP/1.1\r\nHost: example.com\r\n\r\n"),
        ])
        .await;
}

#[tokio::test]
async fn a_malformed_field_line_is_refused() {
    Bench::new()
        .await
        .all_refused(&[
            ("a folded line", "GET / HTTP/1.1\r\nHost: example.com\r\nX: a\r\n b\r\n\r\n"),
            ("a line folded with a tab", "GET / HTTP/1.1\r\nHost: example.com\r\nX: a\r\n\tb\r\n\r\n"),
            ("white space before the first field", "GET / HTTP/1.1\r\n Host: example.com\r\n\r\n"),
            ("a space before the colon", "GET / HTTP/1.1\r\nHost : example.com\r\n\r\n"),
            ("a tab before the colon", "GET / HTTP/1.1\r\nHost: example.com\r\nX\t: y\r\n\r\n"),
            ("a space before the colon of a length", "POST / HTTP/1.1\r\nHost: a.b\r\nContent-Length : 5\r\n\r\nhello"),
            ("no name", "GET / HTTP/1.1\r\nHost: example.com\r\n: y\r\n\r\n"),
            ("no colon", "GET / HTTP/1.1\r\nHost: example.com\r\nnonsense\r\n\r\n"),
            ("a space in the name", "GET / HTTP/1.1\r\nHost: example.com\r\nX Y: z\r\n\r\n"),
            ("parentheses in the name", "GET / HTTP/1.1\r\nHost: example.com\r\nX(Y): z\r\n\r\n"),
            ("a slash in the name", "GET / HTTP/1.1\r\nHost: example.com\r\nX/Y: z\r\n\r\n"),
            ("NUL in the name", "GET / HTTP/1.1\r\nHost: example.com\r\nX\0: z\r\n\r\n"),
            ("NUL in the value", "GET / HTTP/1.1\r\nHost: example.com\r\nX: a\0b\r\n\r\n"),
            ("a control character in the value", "GET / HTTP/1.1\r\nHost: example.com\r\nX: a\x08b\r\n\r\n"),
            ("DEL in the value", "GET / HTTP/1.1\r\nHost: example.com\r\nX: a\x7fb\r\n\r\n"),
            ("UTF-8 in the name", "GET / HTTP/1.1\r\nHost: example.com\r\nCafé: y\r\n\r\n"),
        ])
        .await;
}

#[tokio::test]
async fn a_request_has_one_good_host() {
    Bench::new()
        .await
        .all_refused(&[
            ("none", "GET / HTTP/1.1\r\nX: y\r\n\r\n"),
            ("none beside an absolute target", "GET http://example.com/ HTTP/1.1\r\nX: y\r\n\r\n"),
            ("two", "GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n"),
            ("the same twice", "GET / HTTP/1.1\r\nHost: a.example\r\nhost: a.example\r\n\r\n"),
            ("empty", "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
            ("a list", "GET / HTTP/1.1\r\nHost: a.example, b.example\r\n\r\n"),
            ("a space", "GET / HTTP/1.1\r\nHost: a.example b.example\r\n\r\n"),
            ("a path", "GET / HTTP/1.1\r\nHost: a.example/b\r\n\r\n"),
            ("user information", "GET / HTTP/1.1\r\nHost: a.example@b.example\r\n\r\n"),
            ("a port out of range", "GET / HTTP/1.1\r\nHost: a.example:65536\r\n\r\n"),
            ("a port that is no number", "GET / HTTP/1.1\r\nHost: a.example:http\r\n\r\n"),
            ("two ports", "GET / HTTP/1.1\r\nHost: a.example:80:80\r\n\r\n"),
            ("half an address", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"),
            ("percent-encoding", "GET / HTTP/1.1\r\nHost: a%2eexample\r\n\r\n"),
        ])
        .await;
}

#[tokio::test]
async fn hosts_that_are_right_pass() {
    let bench = Bench::new().await;
    for host in ["example.com:8080", "EXAMPLE.com", "127.0.0.1:80", "[::1]:8080", "my_service", "example.com."] {
        let request = bench.passes(host, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert!(request.field("host").is_some_and(|received| received.eq_ignore_ascii_case(host)), "{request:?}");
    }
}

#[tokio::test]
async fn http_1_0_without_a_host_is_refused_or_gets_one() {
    let bench = Bench::new().await;
    let has_one = |request: &super::Request| request.field("host").is_some_and(|host| !host.is_empty());
    bench.refused_or("HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", has_one).await;
}

#[tokio::test]
async fn a_name_that_others_read_as_a_trusted_field_does_not_pass() {
    let bench = Bench::new().await;
    let names = [
        "X_Forwarded_For",
        "X_FORWARDED_FOR",
        "X-Forwarded_For",
        "X_Forwarded_Proto",
        "X_Forwarded_Host",
        "X_Request_Id",
        "X_Real_Ip",
        "Content_Length",
        "Transfer_Encoding",
    ];
    for name in names {
        let request =
            bench.passes(name, format!("GET / HTTP/1.1\r\nHost: example.com\r\n{name}: 6.6.6.6\r\n\r\n")).await;
        assert!(!request.raw.contains("6.6.6.6"), "{name}: {}", request.raw);
    }
}

#[tokio::test]
async fn the_proxy_field_does_not_pass() {
    // CGI programs would take it for their own HTTP_PROXY
    let bench = Bench::new().await;
    let request = bench.passes("Proxy", "GET / HTTP/1.1\r\nHost: example.com\r\nProxy: http://evil/\r\n\r\n").await;
    assert!(!request.fields.has("proxy"), "{request:?}");
}

#[tokio::test]
async fn connection_cannot_nominate_what_the_gateway_vouches_for() {
    let bench = Bench::new().await;
    for name in ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Request-Id", "Via"] {
        let sent = format!("GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close, {name}\r\n\r\n");
        bench.refused_or(name, sent, |request| request.fields.has(name)).await;
    }
    let sent = "GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close, Host\r\n\r\n";
    bench.refused_or("Host", sent, |request| request.field("host") == Some("example.com")).await;
}

#[tokio::test]
async fn connection_cannot_nominate_the_framing() {
    let bench = Bench::new().await;
    let whole = |request: &super::Request| request.body.as_ref().is_some_and(|body| body.bytes == b"hello");
    let sent = "POST / HTTP/1.1\r\nHost: example.com\r\nConnection: Content-Length\r\nContent-Length: 5\r\n\r\nhello";
    bench.refused_or("Content-Length", sent, whole).await;
    let sent = "POST / HTTP/1.1\r\nHost: example.com\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    bench.refused_or("Transfer-Encoding", sent, whole).await;
}

#[tokio::test]
async fn a_value_keeps_its_bytes() {
    let bench = Bench::new().await;
    let sent = b"GET / HTTP/1.1\r\nHost: example.com\r\nX:  \t caf\xe9 \"a, b\"\t \r\n\r\n";
    let request = bench.passes("Latin-1", sent).await;
    assert_eq!(request.field("x"), Some("caf\u{e9} \"a, b\""));
}
