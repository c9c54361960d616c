//! Brings the answers that decisions wait for. Thin: what is asked, and what follows from the answer, is the pipeline's.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::Live;
use super::downstream::Downstream;
use super::fetch::{Request, fetch};
use super::relay::Interruption;
use super::serve::Ground;
use super::timer::Timer;
use crate::model::deadline::Deadline;
use crate::pipeline::fail::X_REQUEST_ID;
use crate::pipeline::inquiry::{
    AuthQuestion, AuthReply, FORWARD_METHOD, ForwardAnswer, ForwardCall, Inquiry, KeyRing, PasswordCheck, Reply,
};

/// How much of a service's answer is read; its fields are what counts.
const MAX_FORWARD_BODY: usize = 64 * 1024;
/// How many requests may wait for keys at once; one more is told that there is no answer.
const MAX_WISHES: usize = 4096;

/// What the answers need that outlives a request.
pub struct Desk {
    /// To whoever fetches keys.
    wishes: mpsc::Sender<KeyWish>,
    /// Passwords that are checked at once, so that they never take all processors.
    checks: Arc<Semaphore>,
}

/// Somebody waits for the keys of an issuer.
#[derive(Debug)]
pub struct KeyWish {
    /// Whose keys.
    pub ring: Arc<KeyRing>,
    /// The id that is looked for; empty for any key.
    pub kid: Box<str>,
    /// Told when the keys have been fetched, or can't be.
    pub done: oneshot::Sender<()>,
}

impl Desk {
    /// A desk that lets so many passwords be checked at once, and where the wishes for keys arrive.
    #[must_use]
    pub fn new(checks: usize) -> (Self, mpsc::Receiver<KeyWish>) {
        let (wishes, arrive) = mpsc::channel(MAX_WISHES);
        (Self { wishes, checks: Arc::new(Semaphore::new(checks.max(1))) }, arrive)
    }
}

/// Asks, for at most what the inquiry itself allows, until `deadline` of the request, or until the client has left.
pub async fn ask(
    ground: &Ground,
    live: &Live,
    inquiry: Inquiry,
    request_id: &HeaderValue,
    deadline: Deadline,
    (down, timer): (&mut Downstream, &mut Timer),
) -> Result<Reply, Interruption> {
    let mut answer = pin!(answer(ground, live, inquiry, request_id));
    poll_fn(|cx| {
        if let Poll::Ready(reply) = answer.as_mut().poll(cx) {
            return Poll::Ready(Ok(reply));
        }
        // While its body is still to come, its silence says nothing.
        if down.body_done() && down.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(Interruption::ClientGone));
        }
        let over = timer.poll_until(cx, &ground.gateway.clock, deadline.at);
        over.map(|()| Err(Interruption::Timeout(deadline.limit)))
    })
    .await
}

async fn answer(ground: &Ground, live: &Live, inquiry: Inquiry, request_id: &HeaderValue) -> Reply {
    match inquiry {
        Inquiry::Auth(AuthQuestion::Keys { ring, kid }) => {
            Reply::Auth(AuthReply::Keys(keys(&ground.gateway.desk, ring, kid).await))
        }
        Inquiry::Auth(AuthQuestion::Password { check, timeout }) => {
            Reply::Auth(AuthReply::Password(password(&ground.gateway.desk, check, timeout).await))
        }
        Inquiry::Auth(AuthQuestion::Forward(call)) => {
            Reply::Auth(AuthReply::Forward(forward(ground, live, call, request_id).await))
        }
    }
}

/// Waits until the keys have been fetched on account of this wish; who fetches joins wishes into one fetch.
async fn keys(desk: &Desk, ring: Arc<KeyRing>, kid: Box<str>) -> bool {
    // a fetch that is under way may have begun too early, and another one begins a second later
    let within = ring.freshness().timeout * 2 + Duration::from_secs(1);
    let (done, told) = oneshot::channel();
    desk.wishes.try_send(KeyWish { ring, kid, done }).is_ok()
        && timeout(within, told).await.is_ok_and(|told| told.is_ok())
}

/// Checks a password on a thread that may block.
async fn password(desk: &Desk, check: PasswordCheck, within: Duration) -> Option<bool> {
    let checked = async {
        let permit = Arc::clone(&desk.checks).acquire_owned().await.ok()?;
        let run = tokio::task::spawn_blocking(move || {
            let is_right = check.run();
            // held by the work and not by who waits for it: who leaves does not make room
            drop(permit);
            is_right
        });
        run.await.ok()
    };
    timeout(within, checked).await.ok().flatten()
}

async fn forward(
    ground: &Ground,
    live: &Live,
    mut call: ForwardCall,
    request_id: &HeaderValue,
) -> Option<ForwardAnswer> {
    call.headers.insert(X_REQUEST_ID, request_id.clone());
    let request = Request {
        method: &FORWARD_METHOD,
        authority: &call.authority,
        target: &call.target,
        headers: &call.headers,
        most: MAX_FORWARD_BODY,
    };
    let pool = Some(&ground.worker.pool);
    let fetched = fetch(live, call.upstream, &request, pool, &ground.gateway.clock, ground.worker.random_word());
    match timeout(call.timeout, fetched).await {
        Ok(Ok((head, _))) => Some(ForwardAnswer { status: head.status, headers: head.headers }),
        Ok(Err(error)) => {
            tracing::debug!(%error, "no answer of the service that authenticates");
            None
        }
        Err(_) => None,
    }
}
