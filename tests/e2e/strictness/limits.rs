//! Heads that are larger than the listener accepts.

use super::Bench;

const SMALL: &str = "limits = { header_size = \"1KiB\", header_count = 10 }\n";

#[tokio::test]
async fn a_head_over_the_size_is_431() {
    let bench = Bench::with(SMALL).await;
    let value = "v".repeat(2_000);
    bench.refused("a large field", format!("GET / HTTP/1.1\r\nHost: example.com\r\nX: {value}\r\n\r\n"), &[431]).await;
    bench.refused("a large name", format!("GET / HTTP/1.1\r\nHost: example.com\r\n{value}: x\r\n\r\n"), &[431]).await;
    bench.refused("a long target", format!("GET /{value} HTTP/1.1\r\nHost: example.com\r\n\r\n"), &[414, 431]).await;
    bench.refused("a head without an end", format!("GET / HTTP/1.1\r\nHost: example.com\r\nX: {value}"), &[431]).await;
    bench.refused("a target without an end", format!("GET /{value}"), &[414, 431]).await;
}

#[tokio::test]
async fn a_head_just_within_the_size_passes() {
    let bench = Bench::with(SMALL).await;
    let frame = "GET / HTTP/1.1\r\nHost: example.com\r\nX: \r\n\r\n".len();
    let value = "v".repeat(1024 - frame);
    let head = format!("GET / HTTP/1.1\r\nHost: example.com\r\nX: {value}\r\n\r\n");
    assert_eq!(head.len(), 1024);
    bench.passes("1024 bytes", head).await;
    let head = format!("GET / HTTP/1.1\r\nHost: example.com\r\nX: {value}v\r\n\r\n");
    bench.refused("1025 bytes", head, &[431]).await;
}

#[tokio::test]
async fn more_fields_than_the_count_are_431() {
    let bench = Bench::with(SMALL).await;
    let head = |fields: usize| format!("GET / HTTP/1.1\r\nHost: example.com\r\n{}\r\n", "A: b\r\n".repeat(fields));
    bench.passes("ten", head(9)).await;
    bench.refused("eleven", head(10), &[431]).await;
}

#[tokio::test]
async fn by_default_64_kib_and_128_fields_are_the_limits() {
    let bench = Bench::new().await;
    let large = |size: usize| format!("GET / HTTP/1.1\r\nHost: example.com\r\nX: {}\r\n\r\n", "v".repeat(size));
    bench.passes("60 KiB", large(60 * 1024)).await;
    bench.refused("70 KiB", large(70 * 1024), &[431]).await;
    let many = |fields: usize| format!("GET / HTTP/1.1\r\nHost: example.com\r\n{}\r\n", "A: b\r\n".repeat(fields));
    bench.passes("128", many(127)).await;
    bench.refused("129", many(128), &[431]).await;
}
