//! The endpoints whose bodies come in pieces: many bytes, slow bytes, events.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use serde::Deserialize;

use super::{Refused, bounded_duration};

/// The longest body of `/bytes`.
pub(super) const MAX_BYTES: usize = 16 << 20;
/// The most bytes of one `/drip`.
const MAX_DRIPPED: usize = 10_000;
/// The most events of one `/sse`.
const MAX_EVENTS: usize = 100;
/// The longest wait between two pieces.
const MAX_INTERVAL: Duration = Duration::from_secs(10);
/// The longest that one slow body may take as a whole.
const MAX_STREAM: Duration = Duration::from_mins(5);

const BLOCK: usize = 16 << 10;
static FILL: [u8; BLOCK] = [b'p'; BLOCK];

/// `/bytes/{count}`: a body of that length, in blocks that share one buffer, with its `Content-Length`.
pub(super) async fn bytes(Path(count): Path<String>) -> Result<Response, Refused> {
    let count = count
        .parse::<usize>()
        .ok()
        .filter(|count| *count <= MAX_BYTES)
        .ok_or_else(|| Refused::bad_request(format!("not a number of bytes up to {MAX_BYTES}: {count}")))?;
    let blocks = stream::unfold(count, |left| async move {
        let size = left.min(BLOCK);
        (size > 0).then(|| (Ok::<_, Infallible>(Bytes::from_static(&FILL).slice(..size)), left.saturating_sub(size)))
    });
    let head =
        [(header::CONTENT_TYPE, "application/octet-stream".to_owned()), (header::CONTENT_LENGTH, count.to_string())];
    Ok((head, Body::from_stream(blocks)).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct Drip {
    bytes: usize,
    interval: String,
}

impl Default for Drip {
    fn default() -> Self {
        Self { bytes: 10, interval: "100ms".to_owned() }
    }
}

/// `/drip`: one byte per interval, without a `Content-Length`, as a slow origin sends.
pub(super) async fn drip(Query(Drip { bytes, interval }): Query<Drip>) -> Result<Response, Refused> {
    let pieces = slowly(bytes, MAX_DRIPPED, &interval, |_| Bytes::from_static(b"."))?;
    Ok(([(header::CONTENT_TYPE, "text/plain")], Body::from_stream(pieces)).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct Events {
    events: usize,
    interval: String,
}

impl Default for Events {
    fn default() -> Self {
        Self { events: 5, interval: "1s".to_owned() }
    }
}

/// `/sse`: numbered server-sent events.
pub(super) async fn sse(Query(Events { events, interval }): Query<Events>) -> Result<Response, Refused> {
    let pieces = slowly(events, MAX_EVENTS, &interval, |number| {
        Bytes::from(format!("id: {number}\nevent: tick\ndata: {{\"tick\": {number}}}\n\n"))
    })?;
    let head = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((head, Body::from_stream(pieces)).into_response())
}

/// A stream of `count` pieces, each made from its number (the first is 1) and sent one interval after the one before;
/// the first is sent at once.
fn slowly(
    count: usize,
    most: usize,
    interval: &str,
    piece: fn(usize) -> Bytes,
) -> Result<impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static, Refused> {
    let interval = bounded_duration(interval, MAX_INTERVAL)?;
    let too_long = u32::try_from(count).map_or(true, |count| interval.saturating_mul(count) > MAX_STREAM);
    if count > most || too_long {
        return Err(Refused::bad_request(format!("at most {most} pieces within {} s: {count}", MAX_STREAM.as_secs())));
    }
    Ok(stream::unfold(1, move |number| async move {
        if number > count {
            return None;
        }
        if number > 1 {
            tokio::time::sleep(interval).await;
        }
        Some((Ok(piece(number)), number.saturating_add(1)))
    }))
}
