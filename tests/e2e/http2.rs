//! HTTP/2 on either side and on both: streams beside each other, trailers, windows, resets, GOAWAY, translation.

use bytes::Bytes;
use http::{Request, Response, Version};

use super::harness::h2_client::{read, trailers, write};
use super::harness::h2_upstream::Exchange;
use super::harness::upstream::{ok, response};
use super::harness::wire::Wire;
use super::harness::{
    Authority, Client, Conn, Gate, Gateway, H2Client, H2Upstream, Upstream, all_to, checksum, eventually, noise, within,
};

const CLEAR: &str = "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\nprotocols = [\"h2\"]\n";

fn over_tls(authority: &Authority) -> String {
    let certificate = authority.issue("localhost").toml();
    format!("[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\ntls = {{ certificates = [{certificate}] }}\n")
}

async fn clear(routes: &str) -> (Gateway, H2Client) {
    let gateway = Gateway::start(&(CLEAR.to_owned() + routes)).await;
    let client = H2Client::connect(gateway.public().await).await;
    (gateway, client)
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("http://example.com{path}")).body(()).unwrap()
}

fn post(path: &str) -> Request<()> {
    Request::post(format!("http://example.com{path}")).body(()).unwrap()
}

/// Answers with the request's body and trailers.
async fn echo(mut exchange: Exchange) -> Result<(), h2::Error> {
    let (body, trailers) = exchange.read().await?;
    let response = Response::builder().header("x-method", exchange.request.method.as_str()).body(()).unwrap();
    exchange.answer(response, body.into(), trailers).await
}

#[tokio::test]
async fn a_tls_listener_speaks_both_versions_by_alpn() {
    let upstream = Upstream::with(|request| ok(&request.target)).await;
    let authority = Authority::new();
    let gateway = Gateway::start(&(over_tls(&authority) + &all_to(&upstream.url()))).await;
    let address = gateway.public().await;
    let mut client = H2Client::connect_tls(address, &authority.client(&["h2", "http/1.1"]), "localhost").await;
    assert_eq!(client.request(Request::get("https://localhost/two").body(()).unwrap(), &[]).await.body, b"/two");
    let mut client = Client::connect_tls(address, &authority.client(&["http/1.1"]), "localhost").await;
    assert_eq!(client.get("/one").await.text(), "/one");
    let mut client = Client::connect_tls(address, &authority.client(&[]), "localhost").await;
    assert_eq!(client.get("/none").await.text(), "/none", "without ALPN it is HTTP/1.1");
    let mut client = Client::connect_tls(address, &authority.client_of_tls12(&["http/1.1"]), "localhost").await;
    assert_eq!(client.get("/1.2").await.text(), "/1.2", "TLS 1.2 is the lowest version by default");
    assert_eq!(upstream.request(0).await.field("x-forwarded-proto"), Some("https"));
}

#[tokio::test]
async fn a_tls_listener_of_one_protocol_offers_no_other() {
    let upstream = Upstream::saying("hello").await;
    let authority = Authority::new();
    let one = over_tls(&authority).replace("\ntls", "\nprotocols = [\"h1\"]\ntls");
    let gateway = Gateway::start(&(one + &all_to(&upstream.url()))).await;
    let address = gateway.public().await;
    assert!(Client::try_connect_tls(address, &authority.client(&["h2"]), "localhost").await.is_err());
    let mut client = Client::connect_tls(address, &authority.client(&["h2", "http/1.1"]), "localhost").await;
    assert_eq!(client.get("/").await.text(), "hello");
}

#[tokio::test]
async fn below_the_lowest_tls_version_there_is_no_handshake() {
    let upstream = Upstream::saying("hello").await;
    let authority = Authority::new();
    let strict = over_tls(&authority).replace("certificates", "min_version = \"1.3\", certificates");
    let gateway = Gateway::start(&(strict + &all_to(&upstream.url()))).await;
    let address = gateway.public().await;
    assert!(Client::try_connect_tls(address, &authority.client_of_tls12(&[]), "localhost").await.is_err());
    assert_eq!(Client::connect_tls(address, &authority.client(&[]), "localhost").await.get("/").await.status, 200);
}

#[tokio::test]
async fn a_certificate_is_chosen_by_the_name_that_the_client_asks_for() {
    let upstream = Upstream::saying("hello").await;
    let authority = Authority::new();
    let (one, two) = (authority.issue("one.example").toml(), authority.issue("two.example").toml());
    let listener = format!(
        "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\ntls = {{ certificates = [{one}, {two}] }}\n"
    );
    let gateway = Gateway::start(&(listener + &all_to(&upstream.url()))).await;
    let config = authority.client(&[]);
    for name in ["one.example", "two.example"] {
        // the client verifies the name
        let mut client = Client::connect_tls(gateway.public().await, &config, name).await;
        assert_eq!(client.get("/").await.status, 200, "{name}");
    }
    let stranger = Client::try_connect_tls(gateway.public().await, &config, "three.example").await;
    assert!(stranger.is_err(), "the first certificate serves all other names, and is not for them");
}

#[tokio::test]
async fn a_client_without_the_certificate_that_is_asked_for_is_kept_out() {
    let upstream = Upstream::saying("hello").await;
    let authority = Authority::new();
    let ca = format!("client_ca = \"{}\", client_auth = \"required\", certificates", authority.ca().display());
    let gateway = Gateway::start(&(over_tls(&authority).replace("certificates", &ca) + &all_to(&upstream.url()))).await;
    let address = gateway.public().await;
    // with TLS 1.3 the client learns of it after its own part of the handshake
    let kept_out = match Client::try_connect_tls(address, &authority.client(&[]), "localhost").await {
        Err(_) => true,
        Ok(mut client) => !client.is_alive().await,
    };
    assert!(kept_out);
    let showing = authority.client_showing(&[], &authority.issue("client"));
    assert_eq!(Client::connect_tls(address, &showing, "localhost").await.get("/").await.status, 200);
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn http_2_in_clear_is_spoken_by_prior_knowledge() {
    let upstream = Upstream::with(|request| ok(&request.target)).await;
    let (_gateway, mut client) = clear(&all_to(&upstream.url())).await;
    assert_eq!(client.get("http://example.com/a?b").await.body, b"/a?b");
}

#[tokio::test]
async fn an_http_2_request_reaches_an_http_1_upstream() {
    let upstream = Upstream::with(|request| {
        response(
            "201 Created",
            "X-Origin: yes\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n",
            request.body(),
        )
    })
    .await;
    let (_gateway, mut client) = clear(&all_to(&upstream.url())).await;
    let request = Request::put("http://example.com:8080/a?b=c")
        .header("x-client", "one")
        .header("x-client", "two")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let answer = client.request(request, b"hello").await;
    assert_eq!(
        (answer.status, answer.body.as_slice(), answer.field("x-origin")),
        (201, b"hello".as_slice(), Some("yes"))
    );
    for name in ["connection", "keep-alive", "x-hop", "transfer-encoding", "upgrade"] {
        assert!(!answer.fields.has(name), "RFC 9113 §8.2.2: {answer:?}");
    }
    let request = upstream.request(0).await;
    assert_eq!((request.method.as_str(), request.target.as_str()), ("PUT", "/a?b=c"));
    assert_eq!(request.field("host"), Some("example.com:8080"));
    assert_eq!(request.fields.all("x-client"), ["one", "two"]);
    assert_eq!(request.field("cookie"), Some("a=1; b=2"), "RFC 9113 §8.2.3");
    assert_eq!(request.body(), b"hello");
}

#[tokio::test]
async fn an_http_2_body_with_a_length_keeps_it() {
    let upstream = Upstream::saying("thanks").await;
    let (_gateway, mut client) = clear(&all_to(&upstream.url())).await;
    let request = Request::post("http://example.com/").header("content-length", "5").body(()).unwrap();
    assert_eq!(client.request(request, b"hello").await.status, 200);
    assert_eq!(upstream.request(0).await.field("content-length"), Some("5"));
}

#[tokio::test]
async fn an_http_2_body_that_belies_its_length_never_looks_whole() {
    let upstream = Upstream::saying("thanks").await;
    let (_gateway, mut client) = clear(&all_to(&upstream.url())).await;
    for body in [b"hi".as_slice(), b"hello, world"] {
        let request = Request::post("http://example.com/").header("content-length", "5").body(()).unwrap();
        let mut stream = client.begin(request, false).await;
        let _ = stream.send.send_data(Bytes::from_static(body), true);
        if let Ok(answer) = stream.result().await {
            assert_eq!(answer.status, 400, "{answer:?}");
        }
    }
    for request in upstream.requests() {
        upstream.ended(request.connection).await;
    }
    assert!(upstream.requests().iter().all(|request| request.body.is_none()), "{:?}", upstream.requests());
}

#[tokio::test]
async fn an_http_1_request_reaches_an_http_2_upstream() {
    let upstream = H2Upstream::start(echo).await;
    let gateway = Gateway::start(&(upstream.toml("api") + &all_to("api"))).await;
    let mut client = gateway.client().await;
    let answer = client
        .request("POST /a?b HTTP/1.1\r\nHost: example.com\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nX-End: 2\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        .await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    assert_eq!(answer.field("x-method"), Some("POST"));
    let request = upstream.requests().remove(0);
    assert_eq!((request.authority.as_deref(), request.path.as_str()), (Some("example.com"), "/a?b"));
    assert_eq!(request.scheme.as_deref(), Some("http"));
    for name in ["host", "connection", "keep-alive", "x-hop", "transfer-encoding"] {
        assert!(!request.fields.has(name), "{request:?}");
    }
    assert_eq!(request.fields.get("x-end"), Some("2"));
    assert_eq!(client.get("/again").await.status, 200);
    assert_eq!(upstream.connections(), 1, "streams share the connection");
}

#[tokio::test]
async fn an_http_2_upstream_over_tls_is_found_by_alpn() {
    let authority = Authority::new();
    let acceptor = authority.issue("127.0.0.1").acceptor(&["h2", "http/1.1"]);
    let upstream = H2Upstream::start_on(Some(acceptor), echo).await;
    let tls = format!("tls = {{ ca = \"{}\" }}", authority.ca().display());
    for protocol in ["protocol = \"auto\"", "protocol = \"h2\""] {
        let config = format!(
            "[upstream.api]\nendpoints = [\"https://{}\"]\n{protocol}\n{tls}\n{}",
            upstream.address,
            all_to("api")
        );
        let gateway = Gateway::start(&config).await;
        assert_eq!(gateway.get("/").await.status, 200, "{protocol}");
    }
    assert!(upstream.requests().iter().all(|request| request.scheme.as_deref() == Some("https")));
}

#[tokio::test]
async fn an_upstream_that_may_choose_over_tls_can_choose_http_1() {
    let authority = Authority::new();
    let acceptor = authority.issue("127.0.0.1").acceptor(&["http/1.1"]);
    let upstream = Upstream::with_tls(acceptor, |_| ok("old")).await;
    let config = format!(
        "[upstream.api]\nendpoints = [\"https://{}\"]\nprotocol = \"auto\"\ntls = {{ ca = \"{}\" }}\n{}",
        upstream.address(),
        authority.ca().display(),
        all_to("api")
    );
    let gateway = Gateway::start(&config).await;
    assert_eq!(gateway.get("/").await.text(), "old");
}

#[tokio::test]
async fn trailers_pass_from_end_to_end() {
    let upstream = H2Upstream::start(echo).await;
    let (_gateway, mut client) = clear(&(upstream.toml("api") + &all_to("api"))).await;
    let request = Request::post("http://example.com/").header("te", "trailers").body(()).unwrap();
    let mut stream = client.begin(request, false).await;
    write(&mut stream.send, Bytes::from_static(b"hello"), false).await.unwrap();
    stream.send.send_trailers(trailers("x-checksum", "abc")).unwrap();
    let answer = stream.whole().await;
    assert_eq!(answer.body, b"hello");
    let returned = answer.trailers.expect("trailers");
    assert_eq!(returned.get("x-checksum"), Some("abc"));
    assert_eq!(upstream.requests()[0].fields.get("te"), Some("trailers"));
}

#[tokio::test]
async fn a_response_of_trailers_alone_passes() {
    let upstream = H2Upstream::start(async |mut exchange: Exchange| {
        let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut send = exchange.head(head)?;
        send.send_trailers(trailers("grpc-status", "5"))
    })
    .await;
    let (_gateway, mut client) = clear(&(upstream.toml("api") + &all_to("api"))).await;
    let answer = client.get("http://example.com/").await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(answer.trailers.expect("trailers").get("grpc-status"), Some("5"));
}

#[tokio::test]
async fn an_interim_response_passes_over_http_2() {
    let upstream =
        Upstream::answering([b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".to_vec(), ok("page")].concat()).await;
    let (_gateway, mut client) = clear(&all_to(&upstream.url())).await;
    let mut stream = client.begin(get("/"), true).await;
    let interim = within("an interim response", std::future::poll_fn(|cx| stream.response.poll_informational(cx)));
    let interim = interim.await.expect("an interim response").unwrap();
    assert_eq!((interim.status().as_u16(), interim.headers()["link"].to_str().unwrap()), (103, "</a>"));
    assert_eq!(stream.whole().await.body, b"page");
}

#[tokio::test]
async fn streams_run_beside_each_other() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::start(move |mut conn: Conn| {
        let held = held.clone();
        async move {
            loop {
                let request = conn.request().await?;
                if request.target == "/held" {
                    held.passed().await;
                }
                conn.send(ok(&request.target)).await?;
            }
        }
    })
    .await;
    let (_gateway, mut client) = clear(&all_to(&upstream.url())).await;
    let held = client.begin(get("/held"), true).await;
    upstream.request(0).await;
    let mut streams = Vec::new();
    for number in 0..50 {
        streams.push((number, client.begin(get(&format!("/{number}")), true).await));
    }
    for (number, stream) in streams {
        assert_eq!(stream.whole().await.body, format!("/{number}").as_bytes());
    }
    gate.open();
    assert_eq!(held.whole().await.body, b"/held");
}

#[tokio::test]
async fn a_reader_that_stops_does_not_hold_up_the_others() {
    const LENGTH: usize = 4 * 1024 * 1024;
    let body = Bytes::from(noise(LENGTH, 7));
    let sent = body.clone();
    let upstream = H2Upstream::start(move |mut exchange: Exchange| {
        let sent = sent.clone();
        async move {
            let large = exchange.request.path == "/large";
            let body = if large { sent } else { Bytes::from_static(b"small") };
            exchange.answer(Response::new(()), body, None).await
        }
    })
    .await;
    let (_gateway, mut client) = clear(&(upstream.toml("api") + &all_to("api"))).await;
    // its window is never given back until the others are done
    let stalled = client.begin(get("/large"), true).await;
    let (_, mut stalled) = within("the head", stalled.response).await.unwrap().into_parts();
    let first = within("the first piece", stalled.data()).await.unwrap().unwrap();
    for _ in 0..50 {
        assert_eq!(client.get("http://example.com/small").await.body, b"small");
    }
    stalled.flow_control().release_capacity(first.len()).unwrap();
    let rest = within("the rest", read(&mut stalled)).await.unwrap();
    assert_eq!(checksum(&[&first[..], &rest].concat()), checksum(&body));
}

#[tokio::test]
async fn an_upstream_that_stops_reading_does_not_hold_up_other_uploads() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = H2Upstream::start(move |mut exchange: Exchange| {
        let held = held.clone();
        async move {
            if exchange.request.path == "/stalled" {
                held.passed().await;
            }
            let (body, _) = exchange.read().await?;
            exchange.answer(Response::new(()), body.len().to_string().into(), None).await
        }
    })
    .await;
    let (_gateway, mut client) = clear(&(upstream.toml("api") + &all_to("api"))).await;
    let length = 512 * 1024;
    let mut stalled = client.begin(post("/stalled"), false).await;
    let mut uploading = tokio::spawn(async move {
        write(&mut stalled.send, Bytes::from(vec![0; length]), true).await.unwrap();
        stalled
    });
    for _ in 0..20 {
        assert_eq!(client.request(post("/other"), &[1; 10_000]).await.body, b"10000");
    }
    gate.open();
    let stalled = within("the upload", &mut uploading).await.unwrap();
    assert_eq!(stalled.whole().await.body, length.to_string().as_bytes());
}

#[tokio::test]
async fn large_bodies_pass_over_http_2_in_both_directions() {
    const LENGTH: usize = 4 * 1024 * 1024;
    let body = Bytes::from(noise(LENGTH, 8));
    for upstream_h2 in [true, false] {
        let (h2, h1);
        let routes = if upstream_h2 {
            h2 = H2Upstream::start(echo).await;
            h2.toml("api") + &all_to("api")
        } else {
            h1 = Upstream::with(|request| response("200 OK", "", request.body())).await;
            all_to(&h1.url())
        };
        let (_gateway, mut client) = clear(&routes).await;
        let mut stream = client.begin(post("/"), false).await;
        let sent = body.clone();
        let uploading = tokio::spawn(async move {
            write(&mut stream.send, sent, true).await.unwrap();
            stream
        });
        let stream = within("the upload", uploading).await.unwrap();
        assert_eq!(checksum(&stream.whole().await.body), checksum(&body), "HTTP/2 upstream: {upstream_h2}");
    }
}

#[tokio::test]
async fn a_reset_by_the_client_cancels_the_upstream_request() {
    let (told, mut cancelled) = tokio::sync::mpsc::unbounded_channel();
    let upstream = H2Upstream::start(move |mut exchange: Exchange| {
        let told = told.clone();
        async move {
            if exchange.request.path == "/held" {
                let reason = std::future::poll_fn(|cx| exchange.respond.poll_reset(cx)).await?;
                told.send(reason).unwrap();
                return Ok(());
            }
            exchange.answer(Response::new(()), Bytes::from_static(b"hello"), None).await
        }
    })
    .await;
    let (_gateway, mut client) = clear(&(upstream.toml("api") + &all_to("api"))).await;
    let mut stream = client.begin(get("/held"), true).await;
    eventually("the upstream has the request", async || (!upstream.requests().is_empty()).then_some(())).await;
    stream.send.send_reset(h2::Reason::CANCEL);
    assert_eq!(within("the reset arrives", cancelled.recv()).await, Some(h2::Reason::CANCEL));
    assert_eq!(client.get("http://example.com/").await.body, b"hello", "the connection goes on");
    assert_eq!(upstream.connections(), 1, "and so does the upstream's");
}

#[tokio::test]
async fn a_reset_by_the_client_closes_an_http_1_upstream_connection() {
    let upstream = Upstream::start(|mut conn: Conn| async move {
        conn.request().await?;
        conn.closed().await;
        Ok(())
    })
    .await;
    let (_gateway, mut client) = clear(&all_to(&upstream.url())).await;
    let mut stream = client.begin(get("/"), true).await;
    upstream.request(0).await;
    stream.send.send_reset(h2::Reason::CANCEL);
    upstream.ended(0).await;
}

#[tokio::test]
async fn a_body_that_the_upstream_cuts_short_is_a_reset() {
    let upstream = Upstream::start(|mut conn: Conn| async move {
        conn.request().await?;
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await
    })
    .await;
    let (_gateway, mut client) = clear(&all_to(&upstream.url())).await;
    let error = client.begin(get("/"), true).await.result().await.expect_err("it is not whole");
    assert!(error.is_reset(), "{error}");
    assert!(error.reason().is_some_and(|reason| reason != h2::Reason::NO_ERROR), "{error}");
}

#[tokio::test]
async fn a_reset_by_the_upstream_is_502_before_the_head_and_a_reset_after_it() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = H2Upstream::start(move |mut exchange: Exchange| {
        let held = held.clone();
        async move {
            if exchange.request.path == "/late" {
                let mut send = exchange.head(Response::new(()))?;
                write(&mut send, Bytes::from_static(b"part"), false).await?;
                held.passed().await;
                send.send_reset(h2::Reason::INTERNAL_ERROR);
            } else {
                exchange.respond.send_reset(h2::Reason::INTERNAL_ERROR);
            }
            Ok(())
        }
    })
    .await;
    let (_gateway, mut client) = clear(&(upstream.toml("api") + &all_to("api"))).await;
    let answer = client.get("http://example.com/early").await;
    assert_eq!(answer.status, 502, "{}", answer.code());
    let stream = client.begin(get("/late"), true).await;
    let (_, mut body) = within("the head", stream.response).await.unwrap().into_parts();
    assert_eq!(within("the first piece", body.data()).await.unwrap().unwrap(), "part");
    gate.open();
    assert!(within("the reset", read(&mut body)).await.is_err());
}

#[tokio::test]
async fn refusals_over_http_2_are_those_of_http_1() {
    let upstream = Upstream::saying("hello").await;
    let (_gateway, mut client) =
        clear(&format!("[[route]]\nmatch = \"example.com/*\"\nupstream = \"{}\"\n", upstream.url())).await;
    let answer = client.get("http://other.example/").await;
    assert_eq!((answer.status, answer.code().as_str()), (404, "no_route"));
    for path in ["/..%2fknown", "/%2e%2e/known", "/known/%00"] {
        let answer = client.get(&format!("http://example.com{path}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{path}");
    }
    assert_eq!(client.get("http://example.com/known").await.body, b"hello");
}

#[tokio::test]
async fn connect_over_http_2_is_refused() {
    let upstream = Upstream::saying("hello").await;
    let (_gateway, mut client) = clear(&all_to(&upstream.url())).await;
    let request = Request::builder().method("CONNECT").uri("example.com:443").body(()).unwrap();
    match client.begin(request, true).await.result().await {
        Ok(answer) => assert!([400, 405, 501].contains(&answer.status), "{answer:?}"),
        Err(error) => assert!(error.is_reset(), "{error}"),
    }
    assert_eq!(client.get("http://example.com/").await.status, 200);
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn a_head_over_the_limit_is_refused_over_http_2() {
    let upstream = Upstream::saying("hello").await;
    let listener = format!("{CLEAR}limits = {{ header_size = \"4KiB\", header_count = 20 }}\n");
    let gateway = Gateway::start(&(listener + &all_to(&upstream.url()))).await;
    let mut client = H2Client::connect(gateway.public().await).await;
    let large = Request::get("http://example.com/").header("x", "v".repeat(8 * 1024)).body(()).unwrap();
    let mut many = Request::get("http://example.com/");
    for number in 0..40 {
        many = many.header(format!("x-{number}"), "v");
    }
    for (name, request) in [("8 KiB", large), ("40 fields", many.body(()).unwrap())] {
        match client.begin(request, true).await.result().await {
            Ok(answer) => assert_eq!(answer.status, 431, "{name}"),
            Err(error) => assert!(error.is_reset() || error.is_go_away(), "{name}: {error}"),
        }
    }
    assert_eq!(upstream.requests().len(), 0);
}

#[tokio::test]
async fn expect_continue_is_answered_over_http_2() {
    let upstream = Upstream::saying("thanks").await;
    let (_gateway, mut client) = clear(&all_to(&upstream.url())).await;
    let request = Request::post("http://example.com/").header("expect", "100-continue").body(()).unwrap();
    let mut stream = client.begin(request, false).await;
    let interim = within("a 100", std::future::poll_fn(|cx| stream.response.poll_informational(cx))).await;
    assert_eq!(interim.expect("an interim response").unwrap().status(), 100);
    stream.send.send_data(Bytes::from_static(b"hello"), true).unwrap();
    assert_eq!(stream.whole().await.body, b"thanks");
    assert_eq!(upstream.request(0).await.field("expect"), None);
}

#[tokio::test]
async fn a_drain_says_goaway_and_lets_streams_end() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = H2Upstream::start(move |mut exchange: Exchange| {
        let held = held.clone();
        async move {
            held.passed().await;
            exchange.answer(Response::new(()), Bytes::from_static(b"finished"), None).await
        }
    })
    .await;
    let (mut gateway, mut client) = clear(&(upstream.toml("api") + &all_to("api"))).await;
    let stream = client.begin(get("/"), true).await;
    eventually("the upstream has the request", async || (!upstream.requests().is_empty()).then_some(())).await;
    gateway.signal("TERM").await;
    let mut send = client.send.clone();
    // after GOAWAY the client opens no further stream
    eventually("GOAWAY arrives", async || match send.clone().ready().await {
        Err(_) => Some(()),
        Ok(ready) => {
            send = ready;
            None
        }
    })
    .await;
    gate.open();
    assert_eq!(stream.whole().await.body, b"finished");
    assert!(gateway.exit().await.success());
}

#[tokio::test]
async fn an_upstreams_goaway_moves_requests_to_a_new_connection() {
    // the first connection takes one request and then says that it takes no more
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let mut served = Vec::new();
        for _ in 0..2 {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            respond.send_response(Response::new(()), true).unwrap();
            connection.graceful_shutdown();
            served.push(tokio::spawn(async move { while connection.accept().await.is_some() {} }));
        }
        served
    });
    let config = format!("[upstream.api]\nendpoints = [\"http://{address}\"]\nprotocol = \"h2\"\n{}", all_to("api"));
    let gateway = Gateway::start(&config).await;
    let mut client = gateway.client().await;
    assert_eq!(client.get("/one").await.status, 200);
    assert_eq!(client.get("/two").await.status, 200);
    within("both connections", serving).await.unwrap();
}

#[tokio::test]
async fn what_is_no_http_2_ends_the_connection_alone() {
    let upstream = Upstream::saying("hello").await;
    let (gateway, mut client) = clear(&all_to(&upstream.url())).await;
    let mut wire = Wire::connect(gateway.public().await).await.unwrap();
    wire.send("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n").await.unwrap();
    within("the connection ends", wire.end()).await;
    assert_eq!(client.get("http://example.com/").await.status, 200);
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn the_version_towards_the_upstream_is_ours() {
    let upstream = H2Upstream::start(echo).await;
    let (_gateway, mut client) = clear(&(upstream.toml("api") + &all_to("api"))).await;
    let request = Request::get("http://example.com/").version(Version::HTTP_2).body(()).unwrap();
    assert_eq!(client.request(request, &[]).await.status, 200);
    let via = upstream.requests()[0].fields.get("via").map(str::to_owned).expect("Via");
    assert!(via.starts_with("2.0 ") || via.starts_with("2 "), "the version that was received: {via}");
}
