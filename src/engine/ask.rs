//! Brings the answers that decisions wait for. Thin: what is asked, and what follows from the answer, is the pipeline's.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use super::Live;
use super::downstream::Downstream;
use super::relay::Interruption;
use super::serve::Ground;
use super::timer::Timer;
use crate::model::deadline::Deadline;
use crate::pipeline::inquiry::{Inquiry, Reply};

/// Asks, for at most what the inquiry itself allows, until `deadline` of the request, or until the client has left.
pub async fn ask(
    ground: &Ground,
    live: &Live,
    inquiry: Inquiry,
    deadline: Deadline,
    (down, timer): (&mut Downstream, &mut Timer),
) -> Result<Reply, Interruption> {
    let mut answer = pin!(answer(ground, live, inquiry));
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

#[expect(clippy::unused_async, reason = "no inquiry yet; each that is added waits")]
async fn answer(_ground: &Ground, _live: &Live, inquiry: Inquiry) -> Reply {
    match inquiry {}
}
