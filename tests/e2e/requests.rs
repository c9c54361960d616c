//! One HTTP/1.1 exchange and the connections below it: framing, streaming, interim responses, reuse, cancellation.

use std::io;

use tokio::io::AsyncWriteExt as _;

use super::harness::client::ask;
use super::harness::upstream::{ok, response};
use super::harness::wire::End;
use super::harness::{Conn, Gate, Gateway, Upstream, all_to, checksum, noise, within};

#[tokio::test]
async fn a_get_is_forwarded_and_answered() {
    let upstream = Upstream::answering(response("200 OK", "X-Origin: yes\r\n", b"hello")).await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let answer = gateway.get("/a/path?and=query").await;
    assert_eq!((answer.status, answer.text().as_str(), answer.whole), (200, "hello", true));
    assert_eq!(answer.field("x-origin"), Some("yes"));
    assert_eq!(answer.field("proxy-status"), None, "the origin made this response");
    let request = upstream.request(0).await;
    assert_eq!((request.method.as_str(), request.target.as_str()), ("GET", "/a/path?and=query"));
    assert_eq!((request.version.as_str(), request.field("host")), ("HTTP/1.1", Some("example.com")));
    assert!(!request.fields.has("content-length") && !request.fields.has("transfer-encoding"), "{request:?}");
}

#[tokio::test]
async fn a_response_to_head_has_a_length_and_no_body() {
    let upstream = Upstream::with(|request| match request.method.as_str() {
        "HEAD" => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec(),
        _ => ok("after"),
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let mut client = gateway.client().await;
    let answer = client.request("HEAD / HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
    assert_eq!((answer.status, answer.field("content-length")), (200, Some("5")));
    assert_eq!(client.get("/").await.text(), "after", "the connection is in step");
    assert_eq!(upstream.connections(), 1, "the upstream's connection as well");
}

#[tokio::test]
async fn a_refusal_of_head_has_no_body() {
    let upstream = Upstream::saying("hello").await;
    let gateway = Gateway::start(&format!("[[route]]\nmatch = \"/known\"\nupstream = \"{}\"\n", upstream.url())).await;
    let mut client = gateway.client().await;
    let answer = client.request("HEAD /unknown HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
    assert_eq!(answer.status, 404);
    assert_eq!(client.get("/known").await.text(), "hello", "the connection is in step");
}

#[tokio::test]
async fn a_body_with_a_length_reaches_the_upstream() {
    let upstream = Upstream::saying("thanks").await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let answer =
        ask(gateway.public().await, "POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 11\r\n\r\nhello world");
    assert_eq!(answer.await.text(), "thanks");
    let request = upstream.request(0).await;
    assert_eq!((request.body(), request.field("content-length")), (b"hello world".as_slice(), Some("11")));
}

#[tokio::test]
async fn a_chunked_body_reaches_the_upstream() {
    let upstream = Upstream::saying("thanks").await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let request = "PUT / HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    assert_eq!(ask(gateway.public().await, request).await.text(), "thanks");
    assert_eq!(upstream.request(0).await.body(), b"hello world");
}

#[tokio::test]
async fn an_empty_body_is_said_to_be_empty() {
    let upstream = Upstream::saying("thanks").await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let mut client = gateway.client().await;
    client.request("POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(upstream.request(0).await.field("content-length"), Some("0"));
    let chunked = "POST / HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(client.request(chunked).await.status, 200);
    assert_eq!(upstream.request(1).await.body(), b"");
}

#[tokio::test]
async fn a_status_without_content_has_no_body_and_no_framing() {
    let upstream = Upstream::with(|request| match request.target.as_str() {
        "/204" => b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n".to_vec(),
        "/304" => b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 1234\r\n\r\n".to_vec(),
        _ => ok("after"),
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let mut client = gateway.client().await;
    let answer = client.get("/204").await;
    assert_eq!((answer.status, answer.field("x-a")), (204, Some("1")));
    // RFC 9110 §8.6 and RFC 9112 §6.1 forbid both in a 204
    assert!(!answer.fields.has("content-length") && !answer.fields.has("transfer-encoding"), "{answer:?}");
    let answer = client.get("/304").await;
    assert_eq!((answer.status, answer.field("etag")), (304, Some("\"x\"")));
    assert!(!answer.fields.has("transfer-encoding"), "{answer:?}");
    assert_eq!(client.get("/").await.text(), "after", "the connection is in step");
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_response_that_ends_with_its_connection_is_passed_on_whole() {
    let upstream = Upstream::start(|mut conn: Conn| async move {
        conn.request().await?;
        conn.send("HTTP/1.1 200 OK\r\n\r\nuntil ").await?;
        conn.send("the end").await
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let mut client = gateway.client().await;
    let answer = client.get("/").await;
    assert_eq!((answer.text().as_str(), answer.whole), ("until the end", true));
    assert_eq!(client.get("/").await.text(), "until the end", "our connection goes on");
}

#[tokio::test]
async fn a_response_streams_as_it_comes() {
    let gate = Gate::new();
    let door = gate.clone();
    let upstream = Upstream::start(move |mut conn: Conn| {
        let door = door.clone();
        async move {
            conn.request().await?;
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await?;
            door.passed().await;
            conn.send("6\r\nsecond\r\n0\r\n\r\n").await
        }
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!(head.field("transfer-encoding"), Some("chunked"));
    assert_eq!(client.exactly(10).await, b"5\r\nfirst\r\n");
    gate.open();
    let rest = client.body_of(&head, "GET").await;
    assert_eq!((rest.bytes.as_slice(), rest.whole), (b"second".as_slice(), true));
}

#[tokio::test]
async fn a_request_streams_as_it_comes() {
    let upstream = Upstream::start(|mut conn: Conn| async move {
        conn.head().await?;
        assert_eq!(conn.at_most(10).await, b"5\r\nfirst\r\n");
        // the client goes on only when it has seen this, so the first piece did not wait for the second
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await?;
        assert_eq!(conn.body().await.bytes, b"second");
        conn.send("3\r\ntwo\r\n0\r\n\r\n").await
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
    let head = client.head().await;
    assert_eq!(client.exactly(8).await, b"3\r\none\r\n");
    client.send("6\r\nsecond\r\n0\r\n\r\n").await;
    let rest = client.body_of(&head, "POST").await;
    assert_eq!((rest.bytes.as_slice(), rest.whole), (b"two".as_slice(), true));
}

const LARGE: usize = 6 * 1024 * 1024;

#[tokio::test]
async fn large_bodies_pass_in_both_directions_at_once() {
    let (upload, download) = (noise(LARGE, 1), noise(LARGE, 2));
    let sent = download.clone();
    let upstream = Upstream::start(move |mut conn: Conn| {
        let sent = sent.clone();
        async move {
            conn.head().await?;
            let mut writer = conn.wire().take_writer();
            let (last, most) = sent.split_last().unwrap();
            let (last, most) = (*last, most.to_vec());
            let down = tokio::spawn(async move {
                writer.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n").as_bytes()).await?;
                writer.write_all(&most).await?;
                io::Result::Ok(writer)
            });
            conn.body().await;
            // neither direction is over before the other
            let mut writer = down.await.unwrap()?;
            writer.write_all(&[last]).await?;
            writer.flush().await
        }
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let mut client = gateway.client().await;
    let mut writer = client.wire.take_writer();
    let head = format!("POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: {LARGE}\r\n\r\n");
    let body = upload.clone();
    let up = tokio::spawn(async move {
        writer.write_all(head.as_bytes()).await.unwrap();
        writer.write_all(&body).await.unwrap();
        writer.flush().await.unwrap();
        writer
    });
    let answer = client.response().await;
    within("the upload", up).await.unwrap();
    assert!(answer.whole);
    assert_eq!(checksum(&answer.body), checksum(&download));
    assert_eq!(checksum(upstream.request(0).await.body()), checksum(&upload));
}

#[tokio::test]
async fn a_large_chunked_body_passes_unchanged() {
    let upstream = Upstream::with(|request| response("200 OK", "", request.body())).await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let body = noise(1024 * 1024, 3);
    let mut request = b"POST / HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for (number, piece) in body.chunks(7_919).enumerate() {
        let size = if number % 2 == 0 { format!("{:x}\r\n", piece.len()) } else { format!("{:08X}\r\n", piece.len()) };
        request.extend_from_slice(size.as_bytes());
        request.extend_from_slice(piece);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    let mut client = gateway.client().await;
    client.send(request).await;
    assert_eq!(checksum(&client.response().await.body), checksum(&body));
    assert_eq!(client.get("/").await.status, 200, "the connection is in step");
}

#[tokio::test]
async fn a_response_may_come_before_the_upload_is_over() {
    let upstream = Upstream::start(|mut conn: Conn| async move {
        conn.head().await?;
        conn.send("HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 7\r\n\r\ntoo big").await?;
        conn.closed().await;
        Ok(())
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5000000\r\n\r\n").await;
    client.send_or_lose(noise(64 * 1024, 4)).await;
    let answer = client.response().await;
    assert_eq!((answer.status, answer.text().as_str()), (413, "too big"));
    assert_eq!(answer.field("proxy-status"), None, "the origin made this response");
    // the rest of the upload is not awaited: the upstream's connection is given up, and so is ours
    upstream.ended(0).await;
    client.closed().await;
}

#[tokio::test]
async fn an_upstream_that_answers_early_and_takes_the_rest_ends_in_order() {
    let gate = Gate::new();
    let door = gate.clone();
    let upstream = Upstream::start(move |mut conn: Conn| {
        let door = door.clone();
        async move {
            loop {
                conn.head().await?;
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel").await?;
                door.passed().await;
                conn.body().await;
                conn.send("lo").await?;
            }
        }
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 10\r\n\r\n12345").await;
    let head = client.head().await;
    assert_eq!(client.exactly(3).await, b"hel");
    gate.open();
    client.send("67890").await;
    assert_eq!((head.status, client.exactly(2).await.as_slice()), (200, b"lo".as_slice()));
    assert_eq!(upstream.request(0).await.body(), b"1234567890");
    assert!(client.is_alive().await, "nothing is left over on the connection");
}

#[tokio::test]
async fn a_response_that_is_complete_before_the_upload_leaves_nothing_half_done() {
    let upstream = Upstream::start(|mut conn: Conn| async move {
        loop {
            let request = conn.head().await?;
            conn.send(ok(&request.target)).await?;
            conn.body().await;
        }
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let mut client = gateway.client().await;
    client.send("POST /early HTTP/1.1\r\nHost: example.com\r\nContent-Length: 10\r\n\r\n12345").await;
    assert_eq!(client.response().await.text(), "/early");
    // the rest may be taken or not; what must not happen is that it is read as a request, on either side
    client.send_or_lose("67890").await;
    client.send_or_lose("GET /next HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
    if let Some(next) = client.try_response_to("GET").await {
        assert_eq!((next.status, next.text().as_str()), (200, "/next"));
    }
    assert_eq!(gateway.get("/after").await.text(), "/after");
    for request in upstream.requests() {
        assert!(["/early", "/next", "/after"].contains(&request.target.as_str()), "{request:?}");
    }
}

#[tokio::test]
async fn a_client_that_sends_all_before_it_reads_still_gets_the_refusal() {
    let upstream = Upstream::saying("thanks").await;
    let gateway = Gateway::start(&(all_to(&upstream.url()) + "validate = { max_body = \"1KiB\" }\n")).await;
    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 4000000\r\n\r\n").await;
    client.send(noise(4_000_000, 9)).await;
    let answer = client.response().await;
    assert_eq!((answer.status, answer.whole), (413, true));
}

#[tokio::test]
async fn an_interim_response_passes() {
    let upstream = Upstream::with(|_| {
        let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n".to_vec();
        [hints, ok("page")].concat()
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let mut client = gateway.client().await;
    let answer = client.get("/").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "page"));
    let (status, fields) = answer.interim.first().expect("an interim response");
    assert_eq!((*status, fields.get("link")), (103, Some("</style.css>; rel=preload")));
    // RFC 9110 §15.2: none to a client of HTTP/1.0
    let answer = ask(gateway.public().await, "GET / HTTP/1.0\r\nHost: example.com\r\n\r\n").await;
    assert_eq!((answer.status, answer.interim.len(), answer.text().as_str()), (200, 0, "page"));
}

#[tokio::test]
async fn the_gateway_itself_tells_a_client_to_continue() {
    let upstream = Upstream::saying("thanks").await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(client.head().await.status, 100);
    client.send("hello").await;
    assert_eq!(client.response().await.text(), "thanks");
    let request = upstream.request(0).await;
    assert_eq!((request.body(), request.field("expect")), (b"hello".as_slice(), None));
    assert!(client.is_alive().await);
}

#[tokio::test]
async fn a_client_that_does_not_wait_for_continue_is_served() {
    let upstream = Upstream::saying("thanks").await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let request = "POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello";
    assert_eq!(ask(gateway.public().await, request).await.text(), "thanks");
    assert_eq!(upstream.request(0).await.body(), b"hello");
}

#[tokio::test]
async fn a_client_of_http_1_0_is_never_told_to_continue() {
    let upstream = Upstream::saying("thanks").await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let request = "POST / HTTP/1.0\r\nHost: example.com\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello";
    let answer = ask(gateway.public().await, request).await;
    assert_eq!((answer.status, answer.interim.len()), (200, 0));
    assert_eq!(upstream.request(0).await.field("expect"), None);
}

#[tokio::test]
async fn an_unknown_expectation_fails() {
    let upstream = Upstream::saying("thanks").await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let request = "GET / HTTP/1.1\r\nHost: example.com\r\nExpect: a-miracle\r\n\r\n";
    assert_eq!(ask(gateway.public().await, request).await.status, 417);
    assert_eq!(upstream.requests().len(), 0);
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_the_body_and_then_the_end() {
    let upstream =
        Upstream::answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let answer = ask(gateway.public().await, "GET / HTTP/1.0\r\nHost: example.com\r\n\r\n").await;
    assert!(!answer.fields.has("transfer-encoding"), "{answer:?}");
    assert_eq!((answer.text().as_str(), answer.whole), ("hello", true));
    assert_eq!(answer.version, "HTTP/1.1", "RFC 9112 §2.3: what the gateway speaks, not what the client does");
    assert_eq!(upstream.request(0).await.version, "HTTP/1.1");
}

#[tokio::test]
async fn a_client_of_http_1_0_keeps_its_connection_when_it_asks() {
    let upstream = Upstream::saying("hello").await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let mut client = gateway.client().await;
    let request = "GET / HTTP/1.0\r\nHost: example.com\r\nConnection: keep-alive\r\n\r\n";
    let answer = client.request(request).await;
    assert!(answer.fields.has_token("connection", "keep-alive"), "{answer:?}");
    assert_eq!(client.request(request).await.text(), "hello");
    let answer = client.request("GET / HTTP/1.0\r\nHost: example.com\r\n\r\n").await;
    assert_eq!(answer.text(), "hello");
    client.closed().await;
}

#[tokio::test]
async fn one_connection_serves_one_request_after_another() {
    let upstream = Upstream::with(|request| ok(&request.target)).await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let mut client = gateway.client().await;
    for number in 0..10 {
        let target = format!("/{number}");
        assert_eq!(client.get(&target).await.text(), target);
    }
    assert_eq!(upstream.connections(), 1, "and the upstream sees one connection too");
}

#[tokio::test]
async fn a_client_that_says_close_gets_the_end_after_its_response() {
    let upstream = Upstream::saying("hello").await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let mut client = gateway.client().await;
    let answer = client.request("GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n").await;
    assert_eq!(answer.text(), "hello");
    assert!(answer.says_close(), "{answer:?}");
    assert_eq!(client.closed().await, End::Closed);
    assert!(!upstream.request(0).await.fields.has_token("connection", "close"), "it means our connection only");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::with(|request| ok(&format!("{}{}", request.target, request.body().len()))).await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let mut client = gateway.client().await;
    let post = "POST /b HTTP/1.1\r\nHost: example.com\r\nContent-Length: 4\r\n\r\nbody";
    let chunked = "POST /c HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: example.com\r\n\r\n");
    client.send([&get("/a"), post, chunked, &get("/d")].concat()).await;
    for expected in ["/a0", "/b4", "/c2", "/d0"] {
        assert_eq!(client.response().await.text(), expected);
    }
    assert!(client.is_alive().await);
}

/// The second request of a client, when the upstream's first connection was left in the state that `first` makes.
#[track_caller]
fn check_not_reused(first: &'static str) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let upstream = Upstream::start(move |mut conn: Conn| async move {
            let answer = if conn.number == 0 { first.as_bytes().to_vec() } else { ok("second") };
            loop {
                conn.request().await?;
                conn.send(&answer).await?;
            }
        })
        .await;
        let gateway = Gateway::start(&all_to(&upstream.url())).await;
        let mut client = gateway.client().await;
        assert_eq!(client.get("/1").await.text(), "first", "{caller}");
        let second = client.get("/2").await;
        assert_eq!((second.status, second.text().as_str()), (200, "second"), "{caller}");
        assert_eq!(upstream.request(1).await.connection, 1, "{caller}");
    }
}

#[tokio::test]
async fn an_upstream_connection_is_not_reused_after_connection_close() {
    check_not_reused("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nfirst").await;
}

#[tokio::test]
async fn an_upstream_connection_of_http_1_0_is_not_reused() {
    check_not_reused("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nfirst").await;
}

#[tokio::test]
async fn an_upstream_connection_is_not_reused_after_extra_bytes() {
    let stray = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirstHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    check_not_reused(stray).await;
    check_not_reused("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\nX").await;
}

#[tokio::test]
async fn an_upstream_connection_with_an_unfinished_body_is_not_reused() {
    let upstream = Upstream::start(|mut conn: Conn| async move {
        conn.head().await?;
        let early = conn.number == 0;
        conn.send(ok(if early { "early" } else { "later" })).await?;
        conn.closed().await;
        Ok(())
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 1000\r\n\r\npart").await;
    assert_eq!(client.response().await.text(), "early");
    client.wire.reset();
    upstream.ended(0).await;
    assert_eq!(gateway.get("/").await.text(), "later");
    assert_eq!(upstream.request_head(1).await.connection, 1);
}

/// A GET, or another request, on a pooled connection that the upstream closes when the second request comes.
async fn ask_on_a_stale_connection(second: &str) -> (u16, usize) {
    let upstream = Upstream::start(|mut conn: Conn| async move {
        conn.request().await?;
        conn.send(ok("answer")).await?;
        conn.request().await?;
        Ok(()) // closes, as a server does whose keep-alive time has run out just now
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let mut client = gateway.client().await;
    assert_eq!(client.get("/first").await.status, 200);
    let answer = client.request(second).await;
    (answer.status, upstream.requests().len())
}

#[tokio::test]
async fn a_get_on_a_stale_connection_is_repeated_unseen() {
    let (status, requests) = ask_on_a_stale_connection("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
    assert_eq!((status, requests), (200, 3));
}

#[tokio::test]
async fn a_post_on_a_stale_connection_is_not_repeated() {
    let post = "POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\n\r\nhello";
    let (status, requests) = ask_on_a_stale_connection(post).await;
    assert_eq!((status, requests), (502, 2), "the first one may have been processed");
}

#[tokio::test]
async fn a_pooled_connection_that_the_upstream_closed_is_not_used() {
    let upstream = Upstream::start(|mut conn: Conn| async move {
        conn.request().await?;
        conn.send(ok("answer")).await?;
        conn.shutdown().await?;
        conn.closed().await;
        Ok(())
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let mut client = gateway.client().await;
    let post = "POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(client.request(post).await.status, 200);
    // the gateway has noticed when it closes its end as well
    upstream.ended(0).await;
    assert_eq!(client.request(post).await.status, 200, "even what must not be repeated is safe");
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_the_upstream_request() {
    let upstream = Upstream::start(|mut conn: Conn| async move {
        conn.request().await?;
        conn.closed().await;
        Ok(())
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    for number in 0..2 {
        let mut client = gateway.client().await;
        client.send("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
        upstream.request(number).await;
        if number == 0 {
            client.wire.reset();
        } else {
            drop(client);
        }
        upstream.ended(number).await;
    }
}

#[tokio::test]
async fn a_client_that_goes_away_in_its_upload_cancels_the_upstream_request() {
    let upstream = Upstream::start(|mut conn: Conn| async move {
        conn.head().await?;
        assert!(!conn.body().await.whole, "a cut body is not completed by the gateway");
        Ok(())
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    for (number, framing) in ["Content-Length: 100", "Transfer-Encoding: chunked"].into_iter().enumerate() {
        let mut client = gateway.client().await;
        client.send(format!("POST / HTTP/1.1\r\nHost: example.com\r\n{framing}\r\n\r\n5\r\nhello\r\n")).await;
        upstream.request_head(number).await;
        drop(client);
        upstream.ended(number).await;
        assert!(upstream.request_head(number).await.body.is_none(), "{framing}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_in_its_download_cancels_the_upstream_request() {
    let upstream = Upstream::start(|mut conn: Conn| async move {
        conn.request().await?;
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await?;
        conn.closed().await;
        Ok(())
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
    client.head().await;
    drop(client);
    upstream.ended(0).await;
}

#[tokio::test]
async fn a_slow_reader_does_not_make_the_gateway_hoard_the_response() {
    // far more than sockets and gateway should buffer: the upstream's writes must come to a stop
    const ENDLESS: usize = 256 * 1024 * 1024;
    let (written, mut so_far) = tokio::sync::watch::channel(0_usize);
    let upstream = Upstream::start(move |mut conn: Conn| {
        let written = written.clone();
        async move {
            conn.request().await?;
            conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {ENDLESS}\r\n\r\n")).await?;
            let piece = vec![b'x'; 64 * 1024];
            for _ in 0..ENDLESS / piece.len() {
                conn.send(&piece).await?;
                written.send_modify(|so_far| *so_far += piece.len());
            }
            Ok(())
        }
    })
    .await;
    let gateway = Gateway::start(&all_to(&upstream.url())).await;
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
    client.head().await;
    // quiet for a while means that it has stopped
    let pause = std::time::Duration::from_millis(500);
    while let Ok(Ok(())) = tokio::time::timeout(pause, so_far.changed()).await {}
    assert!(*so_far.borrow() < ENDLESS / 4, "{} bytes were taken", *so_far.borrow());
}
