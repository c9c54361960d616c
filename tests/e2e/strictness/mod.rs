//! Requests that two programs could read differently, over raw sockets: each is refused, or it reaches the upstream in a
//! form that has one reading.
//!
//! Behind each request stands another one, `/smuggled-N`, in the bytes that follow. Whoever disagrees with the gateway about
//! where the first one ends would see it; here it must never reach the upstream, and the connection must be closed.

mod bodies;
mod fields;
mod limits;
mod targets;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use parking_lot::Mutex;

use super::harness::message::Request;
use super::harness::upstream::ok;
use super::harness::{Client, Gateway, Response, Upstream, all_to};

/// A gateway with a catch-all route to an upstream that answers everything.
struct Bench {
    gateway: Gateway,
    upstream: Upstream,
    cases: AtomicUsize,
    /// The cases of a table that failed: all of them are worth knowing.
    failed: Mutex<Vec<String>>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let failed = std::mem::take(&mut *self.failed.lock());
        assert!(failed.is_empty() || std::thread::panicking(), "{} cases failed: {failed:#?}", failed.len());
    }
}

impl Bench {
    async fn new() -> Self {
        Self::with("").await
    }

    /// `listener` are further lines of the listener's table.
    async fn with(listener: &str) -> Self {
        let upstream = Upstream::with(|request| ok(&request.target)).await;
        let listener = format!("[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n{listener}");
        let gateway = Gateway::start(&format!("{listener}{}", all_to(&upstream.url()))).await;
        Self { gateway, upstream, cases: AtomicUsize::new(0), failed: Mutex::default() }
    }

    /// Sends `bytes` and what must not be taken for a request of its own.
    async fn send(&self, bytes: impl AsRef<[u8]>) -> Case<'_> {
        let before = self.upstream.requests().len();
        let behind = format!("/smuggled-{}", self.cases.fetch_add(1, Ordering::Relaxed));
        let mut client = self.gateway.client().await;
        let smuggled = format!("GET {behind} HTTP/1.1\r\nHost: example.com\r\n\r\n");
        client.send_or_lose([bytes.as_ref(), smuggled.as_bytes()].concat()).await;
        Case { bench: self, client, behind, before }
    }

    /// Runs one case of a table; the others run even when it fails.
    async fn case(&self, name: &str, case: impl Future<Output = ()>) {
        if let Err(panic) = AssertUnwindSafe(case).catch_unwind().await {
            let said = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            self.failed.lock().push(format!("{name}: {said}"));
        }
    }

    /// The request is refused with one of `statuses`, nothing of it reaches the upstream, and the connection ends.
    async fn refused(&self, name: &str, bytes: impl AsRef<[u8]>, statuses: &[u16]) {
        self.case(name, self.check_refused(name, bytes, statuses)).await;
    }

    async fn check_refused(&self, name: &str, bytes: impl AsRef<[u8]>, statuses: &[u16]) {
        let mut case = self.send(bytes).await;
        let answer = case.answer(name).await;
        check_refusal(name, &answer, statuses);
        case.client.closed().await;
        let reached = case.reached();
        assert!(reached.is_empty(), "{name}: reached the upstream: {reached:?}");
    }

    /// Each of these is refused with 400.
    async fn all_refused(&self, cases: &[(&str, &str)]) {
        for (name, bytes) in cases {
            self.refused(name, bytes, &[400]).await;
        }
    }

    /// The body is refused while it is read: whatever reached the upstream is no whole request, and the connection ends.
    async fn cut(&self, name: &str, bytes: impl AsRef<[u8]>) {
        self.case(name, self.check_cut(name, bytes)).await;
    }

    async fn check_cut(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let mut case = self.send(bytes).await;
        if let Some(answer) = case.client.try_response_to("POST").await {
            check_refusal(name, &answer, &[400]);
            case.client.closed().await;
        }
        for request in case.reached() {
            // at the end of its connection it would be whole, if it ever was to be
            self.upstream.ended(request.connection).await;
        }
        for request in case.reached() {
            assert_ne!(request.target, case.behind, "{name}: {request:?}");
            assert!(request.body.is_none(), "{name}: the upstream could take it for whole: {request:?}");
        }
    }

    /// The request passes, in the form that is returned, and what stands behind it is a request of its own.
    async fn passes(&self, name: &str, bytes: impl AsRef<[u8]>) -> Request {
        let mut case = self.send(bytes).await;
        let answer = case.answer(name).await;
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
        if !answer.says_close() {
            assert_eq!(case.client.response().await.text(), case.behind, "{name}: the next request");
        }
        let reached = case.reached();
        let expected = if answer.says_close() { 1 } else { 2 };
        assert_eq!(reached.len(), expected, "{name}: {reached:?}");
        reached.into_iter().next().unwrap()
    }

    /// The request is refused, or it passes in a form that `harmless` accepts; both are right.
    async fn refused_or(&self, name: &str, bytes: impl AsRef<[u8]>, harmless: impl Fn(&Request) -> bool) {
        self.case(name, self.check_refused_or(name, bytes, harmless)).await;
    }

    async fn check_refused_or(&self, name: &str, bytes: impl AsRef<[u8]>, harmless: impl Fn(&Request) -> bool) {
        let mut case = self.send(bytes).await;
        let answer = case.answer(name).await;
        if answer.status == 200 && !answer.says_close() {
            assert_eq!(case.client.response().await.text(), case.behind, "{name}: the next request");
        }
        let reached = case.reached();
        if answer.status == 200 {
            let first = reached.first().unwrap_or_else(|| panic!("{name}: who answered?"));
            assert!(harmless(first), "{name}: {first:?}");
        } else {
            check_refusal(name, &answer, &[400, 501]);
            case.client.closed().await;
            assert!(reached.is_empty(), "{name}: {reached:?}");
        }
    }
}

/// One connection of one case.
struct Case<'a> {
    bench: &'a Bench,
    client: Client,
    /// The target of the request behind.
    behind: String,
    before: usize,
}

impl Case<'_> {
    async fn answer(&mut self, name: &str) -> Response {
        self.client.try_response_to("GET").await.unwrap_or_else(|| panic!("{name}: closed without an answer"))
    }

    /// What of this case has reached the upstream; not what an earlier one left behind.
    fn reached(&self) -> Vec<Request> {
        let mut reached = self.bench.upstream.requests().split_off(self.before);
        reached.retain(|request| !request.target.starts_with("/smuggled-") || request.target == self.behind);
        reached
    }
}

/// A refusal in the form of the contract, which says that the connection ends.
#[track_caller]
fn check_refusal(name: &str, answer: &Response, statuses: &[u16]) {
    assert!(statuses.contains(&answer.status), "{name}: {answer:?}");
    let code = answer.code();
    let expected = match answer.status {
        400 => "bad_request",
        405 => "method_not_allowed",
        431 => "headers_too_large",
        _ => code.as_str(),
    };
    assert_eq!(code, expected, "{name}");
    assert!(answer.says_close(), "{name}: {answer:?}");
    assert!(answer.field("server").is_none_or(|server| !server.to_lowercase().contains("pingora")), "{name}");
}
