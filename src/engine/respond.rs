//! Sends what the gateway itself answers: refusals, redirects, fixed responses.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::Method;
use http::header::{DATE, HeaderValue};

use super::downstream::{ClientError, Downstream, Piece};
use super::head_wire::{self, Framing, Persistence};
use super::timer::Timer;
use super::transport::Transport;
use crate::model::clock::Clock;
use crate::model::response::{BodyLength, ResponseHead};
use crate::model::verdict::Rejection;
use crate::pipeline::fail;

/// Answers what never became a request; the connection ends after it.
pub fn refuse_raw(transport: &mut Transport, rejection: &Rejection, request_id: &HeaderValue) {
    let (mut head, body) = fail::response(rejection, None, Some(request_id));
    stamp(&mut head);
    let framing = Framing::Length(body.len() as u64);
    head_wire::response(transport.outgoing(), head.status, &head.headers, framing, Persistence::Close);
    let _ = transport.send(&body);
}

/// Sends a whole response of our own. `idle` bounds how long the client may stop reading.
pub async fn whole(
    down: &mut Downstream,
    method: &Method,
    mut head: ResponseHead,
    body: Bytes,
    (timer, clock, idle): (&mut Timer, &Clock, Duration),
) -> Result<u64, ClientError> {
    stamp(&mut head);
    let length = BodyLength::of_response(method, head.status, Some(body.len() as u64));
    if length == BodyLength::Absent && method == Method::HEAD {
        head.headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    down.send_head(head, length)?;
    let until = clock.now().after(idle);
    let sent = if length.is_empty() { 0 } else { body.len() as u64 };
    if !length.is_empty() {
        poll_fn(|cx| match down.poll_writable(cx) {
            Poll::Pending => timer.poll_until(cx, clock, until).map(|()| Err(ClientError::Gone)),
            ready @ Poll::Ready(_) => ready,
        })
        .await?;
        down.send_body(Piece::Owned(body))?;
        down.end_body(None)?;
    } else if matches!(down, Downstream::H1(_)) {
        down.end_body(None)?;
    }
    poll_fn(|cx| match down.poll_flush(cx) {
        Poll::Pending => timer.poll_until(cx, clock, until).map(|()| Err(ClientError::Gone)),
        ready @ Poll::Ready(_) => ready,
    })
    .await?;
    Ok(sent)
}

/// Every response of ours has a date (RFC 9110 §6.6.1); an upstream's own stays.
pub fn stamp(head: &mut ResponseHead) {
    if !head.headers.contains_key(DATE) {
        head.headers.insert(DATE, date_now());
    }
}

/// The current time as an HTTP date, formatted once per second and thread.
fn date_now() -> HeaderValue {
    thread_local! {
        static LAST: std::cell::RefCell<(u64, HeaderValue)> =
            const { std::cell::RefCell::new((0, HeaderValue::from_static(""))) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    LAST.with_borrow_mut(|(last, text)| {
        if *last != second {
            *last = second;
            *text = HeaderValue::try_from(httpdate::fmt_http_date(now)).unwrap_or(HeaderValue::from_static(""));
        }
        text.clone()
    })
}
