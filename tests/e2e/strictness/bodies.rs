//! Where a request ends: `Content-Length`, `Transfer-Encoding`, chunks, and everything that makes two readers disagree.

use super::Bench;

fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: example.com\r\n{fields}\r\n{body}")
}

#[tokio::test]
async fn two_lengths_are_refused() {
    let bench = Bench::new().await;
    let chunked = "Transfer-Encoding: chunked\r\n";
    let cases = [
        ("length, then coding", post(&format!("Content-Length: 5\r\n{chunked}"), "0\r\n\r\n")),
        ("coding, then length", post(&format!("{chunked}Content-Length: 5\r\n"), "0\r\n\r\n")),
        ("in other letters", post("content-LENGTH: 5\r\nTRANSFER-encoding: Chunked\r\n", "0\r\n\r\n")),
        ("a length of zero beside the coding", post(&format!("Content-Length: 0\r\n{chunked}"), "0\r\n\r\n")),
        ("two that differ", post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello!")),
        ("two that differ, in a list", post("Content-Length: 5, 6\r\n", "hello!")),
        ("a good and a bad one", post("Content-Length: 5\r\nContent-Length: x\r\n", "hello")),
    ];
    for (name, bytes) in cases {
        bench.refused(name, bytes, &[400]).await;
    }
}

#[tokio::test]
async fn the_same_length_twice_is_refused_or_becomes_one() {
    let bench = Bench::new().await;
    for fields in ["Content-Length: 5\r\nContent-Length: 5\r\n", "Content-Length: 5, 5\r\n"] {
        let once =
            |request: &super::Request| request.field("content-length") == Some("5") && request.body() == b"hello";
        bench.refused_or(fields, post(fields, "hello"), once).await;
    }
}

#[tokio::test]
async fn a_length_that_is_no_number_is_refused() {
    let bench = Bench::new().await;
    let lengths = [
        "+5",
        "-5",
        "5.0",
        "0x5",
        "5 5",
        "five",
        "",
        ",",
        "5,",
        ";5",
        "1e1",
        "5;",
        "\"5\"",
        "18446744073709551616",
        "99999999999999999999999999",
    ];
    for length in lengths {
        bench.refused(length, post(&format!("Content-Length: {length}\r\n"), "hello"), &[400]).await;
    }
}

#[tokio::test]
async fn a_transfer_coding_other_than_chunked_is_refused() {
    let bench = Bench::new().await;
    let codings = [
        "gzip, chunked",
        "gzip",
        "xchunked",
        "chunkedx",
        "chunked, gzip",
        "chunked, chunked",
        "identity",
        "chunked, identity",
        "identity, chunked",
        "chunked;q=1",
        "\"chunked\"",
        "'chunked'",
        ",chunked",
        "chunked,",
        "",
        "chun ked",
        "chunked\u{a0}",
    ];
    for coding in codings {
        let bytes = post(&format!("Transfer-Encoding: {coding}\r\n"), "0\r\n\r\n");
        // an empty member of a list means nothing (RFC 9110 §5.6.1.2), so these two may be read as `chunked`
        if [",chunked", "chunked,"].contains(&coding) {
            bench.refused_or(coding, bytes, |request| request.field("transfer-encoding") == Some("chunked")).await;
        } else {
            bench.refused(coding, bytes, &[400, 501]).await;
        }
    }
}

#[tokio::test]
async fn two_transfer_encoding_fields_are_refused() {
    let bench = Bench::new().await;
    for (one, other) in [("chunked", "chunked"), ("chunked", "identity"), ("x", "chunked"), ("gzip", "chunked")] {
        let fields = format!("Transfer-Encoding: {one}\r\nTransfer-Encoding: {other}\r\n");
        bench.refused(&fields, post(&fields, "0\r\n\r\n"), &[400, 501]).await;
    }
}

#[tokio::test]
async fn a_transfer_coding_in_http_1_0_is_refused() {
    // RFC 9112 §6.1: its framing is to be treated as faulty
    let bench = Bench::new().await;
    let bytes = "POST / HTTP/1.0\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    bench.refused("HTTP/1.0", bytes, &[400, 501]).await;
    let bytes = "POST / HTTP/1.0\r\nHost: example.com\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n";
    bench.refused("HTTP/1.0 with a length", bytes, &[400, 501]).await;
}

#[tokio::test]
async fn a_malformed_chunk_is_never_completed() {
    let bench = Bench::new().await;
    let bodies = [
        ("a size in C's hexadecimal", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("a sign", "+5\r\nhello\r\n0\r\n\r\n"),
        ("a minus sign", "-5\r\nhello\r\n0\r\n\r\n"),
        ("no size", "\r\nhello\r\n0\r\n\r\n"),
        ("a space before the size", " 5\r\nhello\r\n0\r\n\r\n"),
        ("white space after the size", "5 \r\nhello\r\n0\r\n\r\n"),
        ("a tab after the size", "5\t\r\nhello\r\n0\r\n\r\n"),
        ("a size that is no number", "five\r\nhello\r\n0\r\n\r\n"),
        ("an underscore in the size", "0_5\r\nhello\r\n0\r\n\r\n"),
        ("a size that overflows", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("a size that overflows to five", "fffffffffffffffffffffffff5\r\nhello\r\n0\r\n\r\n"),
        ("LF alone after the size", "5\nhello\r\n0\r\n\r\n"),
        ("CR alone after the size", "5\rhello\r\n0\r\n\r\n"),
        ("LF alone after the chunk", "5\r\nhello\n0\r\n\r\n"),
        ("a chunk longer than its size", "5\r\nhello!\r\n0\r\n\r\n"),
        ("no end of the chunk", "5\r\nhello0\r\n\r\n"),
        ("LF alone after the last chunk", "5\r\nhello\r\n0\n\r\n"),
        ("a bare semicolon", "5;\r\nhello\r\n0\r\n\r\n"),
        ("NUL in an extension", "5;a=\0\r\nhello\r\n0\r\n\r\n"),
        ("LF alone in an extension", "5;a=b\nc\r\nhello\r\n0\r\n\r\n"),
        ("CR alone in an extension", "5;a=b\rc\r\nhello\r\n0\r\n\r\n"),
        ("an extension without a name", "5;=b\r\nhello\r\n0\r\n\r\n"),
        ("an extension that is no token", "5;a(b)=c\r\nhello\r\n0\r\n\r\n"),
        ("a folded trailer", "0\r\nX: a\r\n b\r\n\r\n"),
        ("a trailer without a colon", "0\r\nnonsense\r\n\r\n"),
        ("LF alone after a trailer", "0\r\nX: a\n\r\n"),
    ];
    for (name, body) in bodies {
        bench.cut(name, post("Transfer-Encoding: chunked\r\n", body)).await;
    }
}

#[tokio::test]
async fn a_chunk_extension_means_nothing_and_passes() {
    let bench = Bench::new().await;
    for body in ["5;name=value\r\nhello\r\n0\r\n\r\n", "5;a;b=\"c;d\"\r\nhello\r\n0;last\r\n\r\n"] {
        let request = bench.passes(body, post("Transfer-Encoding: chunked\r\n", body)).await;
        assert_eq!(request.body(), b"hello", "{body:?}");
    }
}

#[tokio::test]
async fn sizes_in_every_spelling_of_the_grammar_pass() {
    let bench = Bench::new().await;
    for body in ["A\r\n0123456789\r\n0\r\n\r\n", "a\r\n0123456789\r\n000\r\n\r\n", "000a\r\n0123456789\r\n0\r\n\r\n"] {
        let request = bench.passes(body, post("Transfer-Encoding: CHUNKED\r\n", body)).await;
        assert_eq!(request.body(), b"0123456789", "{body:?}");
    }
}

#[tokio::test]
async fn an_endless_chunk_extension_is_refused() {
    let bench = Bench::new().await;
    let body = format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(256 * 1024));
    bench.cut("256 KiB of extension", post("Transfer-Encoding: chunked\r\n", &body)).await;
}

#[tokio::test]
async fn endless_trailers_are_refused() {
    let bench = Bench::new().await;
    let body = format!("5\r\nhello\r\n0\r\n{}\r\n", "X: y\r\n".repeat(64 * 1024));
    bench.cut("384 KiB of trailers", post("Transfer-Encoding: chunked\r\n", &body)).await;
}

#[tokio::test]
async fn trailers_never_become_fields_that_steer() {
    let bench = Bench::new().await;
    let body =
        "5\r\nhello\r\n0\r\nContent-Length: 999\r\nHost: evil\r\nX-Forwarded-For: 6.6.6.6\r\nAuthorization: x\r\n\r\n";
    let request = bench.passes("trailers", post("Transfer-Encoding: chunked\r\n", body)).await;
    assert_eq!((request.body(), request.field("host")), (b"hello".as_slice(), Some("example.com")));
    assert!(!request.raw.contains("999") && !request.raw.contains("6.6.6.6"), "{}", request.raw);
    let trailers = &request.body.as_ref().unwrap().trailers;
    for name in ["content-length", "host", "x-forwarded-for", "authorization"] {
        assert!(!trailers.has(name), "RFC 9110 §6.5.1: {trailers:?}");
    }
}

#[tokio::test]
async fn a_request_hidden_in_a_body_stays_a_body() {
    let bench = Bench::new().await;
    let hidden = "GET /hidden HTTP/1.1\r\nHost: example.com\r\n\r\n";
    for method in ["GET", "DELETE", "OPTIONS", "POST"] {
        let length = hidden.len();
        let bytes =
            format!("{method} /outer HTTP/1.1\r\nHost: example.com\r\nContent-Length: {length}\r\n\r\n{hidden}");
        let request = bench.passes(method, bytes).await;
        assert_eq!((request.target.as_str(), request.body()), ("/outer", hidden.as_bytes()), "{method}");
    }
}

#[tokio::test]
async fn bytes_beyond_a_length_are_the_next_request() {
    let bench = Bench::new().await;
    let request = bench.passes("one request, then another", post("Content-Length: 5\r\n", "hello")).await;
    assert_eq!(request.body(), b"hello");
}
