//! A body in and out of its framing (RFC 9112 §6).

use std::io;
use std::task::{Context, Poll, ready};

use super::chunks::{Chunks, Part};
use crate::engine::head_wire::put_number;
use crate::engine::transport::{LARGE_ROOM, ROOM, STREAM_ROOM, Transport};

/// How a body arrives.
#[derive(Debug)]
pub enum Reading {
    /// This many bytes.
    Length(u64),
    /// In chunks.
    Chunked(Chunks),
    /// As long as the peer sends.
    UntilClose,
    /// There is no (more) body.
    Done,
}

/// Why a body can't be read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// The connection ended before the body did.
    Cut,
    /// The framing is broken.
    Malformed,
}

impl Reading {
    /// A body of `length` bytes.
    #[must_use]
    pub const fn length(length: u64) -> Self {
        if length == 0 { Self::Done } else { Self::Length(length) }
    }

    /// Whether there is no (more) body.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// How many bytes of body stand first in what has arrived; they count as read and have to be taken. `None` at the
    /// body's end.
    pub fn poll(&mut self, cx: &mut Context<'_>, transport: &mut Transport) -> Poll<Result<Option<usize>, BodyError>> {
        loop {
            let at_hand = transport.arrived();
            let room = match self {
                Self::Done => return Poll::Ready(Ok(None)),
                Self::UntilClose if !at_hand.is_empty() => return Poll::Ready(Ok(Some(at_hand.len()))),
                Self::UntilClose => STREAM_ROOM,
                Self::Length(left) if !at_hand.is_empty() => {
                    let length = at_hand.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *self = Self::length(*left - length as u64);
                    return Poll::Ready(Ok(Some(length)));
                }
                Self::Length(left) => room(*left),
                Self::Chunked(chunks) => match chunks.next(at_hand) {
                    Ok(Part::Data { framing, length }) => {
                        transport.skip(framing);
                        return Poll::Ready(Ok(Some(length)));
                    }
                    Ok(Part::End(framing)) => {
                        transport.skip(framing);
                        *self = Self::Done;
                        continue;
                    }
                    Ok(Part::Framing) => {
                        let room = room(chunks.left()).max(STREAM_ROOM);
                        transport.skip(usize::MAX);
                        room
                    }
                    Err(_) => return Poll::Ready(Err(BodyError::Malformed)),
                },
            };
            match ready!(transport.poll_arrive(cx, room)) {
                Ok(0) if matches!(self, Self::UntilClose) => *self = Self::Done,
                Ok(0) | Err(_) => return Poll::Ready(Err(BodyError::Cut)),
                Ok(_) => {}
            }
        }
    }
}

/// Room for that much, within bounds.
fn room(left: u64) -> usize {
    usize::try_from(left).unwrap_or(LARGE_ROOM).clamp(ROOM, LARGE_ROOM)
}

/// How a body leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writing {
    /// This many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
    /// As it is, until the connection ends.
    Raw,
}

impl Writing {
    /// Sends a piece. More than was announced is an error, and is not sent.
    pub fn send(&mut self, transport: &mut Transport, piece: &[u8]) -> io::Result<()> {
        match self {
            Self::Raw => transport.send(piece),
            Self::Length(left) => {
                *left = left.checked_sub(piece.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
                transport.send(piece)
            }
            // an empty chunk would be the last one
            Self::Chunked if piece.is_empty() => Ok(()),
            Self::Chunked => {
                put_number(transport.outgoing(), piece.len() as u64, 16);
                transport.outgoing().extend_from_slice(b"\r\n");
                transport.send(piece)?;
                transport.outgoing().extend_from_slice(b"\r\n");
                Ok(())
            }
        }
    }

    /// Ends the body. Less than was announced is an error.
    pub fn end(&mut self, transport: &mut Transport) -> io::Result<()> {
        match std::mem::replace(self, Self::Length(0)) {
            Self::Length(0) | Self::Raw => Ok(()),
            Self::Length(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Self::Chunked => {
                transport.outgoing().extend_from_slice(b"0\r\n\r\n");
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::h1::chunks::{Bounds, Grammar};
    use crate::engine::transport::Io;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;

    fn chunked() -> Reading {
        Reading::Chunked(Chunks::new(Grammar::Exact, Bounds { size: 100, count: 3 }))
    }

    /// What is read of `sent`, and what is left behind it.
    #[track_caller]
    fn check(mut reading: Reading, sent: &'static str, body: Result<&str, BodyError>, behind: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let (ours, mut peer) = UnixStream::pair().unwrap();
            let mut transport = Transport::new(Io::Unix(ours));
            peer.write_all(sent.as_bytes()).await.unwrap();
            drop(peer);
            let mut read = Vec::new();
            let result = loop {
                match poll_fn(|cx| reading.poll(cx, &mut transport)).await {
                    Ok(Some(length)) => read.extend_from_slice(&transport.take_arrived(length)),
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            let text = String::from_utf8(read).unwrap();
            assert_eq!(result.map(|()| text.as_str()), body, "{sent:?}");
            assert_eq!(transport.arrived(), behind.as_bytes(), "{sent:?}");
        });
    }

    #[test]
    fn a_body_ends_where_its_framing_says() {
        check(Reading::length(5), "hello, world", Ok("hello"), ", world");
        check(Reading::length(0), "GET", Ok(""), "");
        check(Reading::length(5), "hell", Err(BodyError::Cut), "");
        check(chunked(), "3\r\nabc\r\n0\r\n\r\nGET", Ok("abc"), "GET");
        check(chunked(), "3\r\nabc\r\n0\r\n", Err(BodyError::Cut), "");
        check(chunked(), "3\r\nabc\r\nx", Err(BodyError::Malformed), "\r\nx");
        check(Reading::UntilClose, "anything", Ok("anything"), "");
    }

    #[test]
    fn what_is_sent_is_what_was_announced() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (ours, mut peer) = UnixStream::pair().unwrap();
            let mut transport = Transport::new(Io::Unix(ours));
            let mut chunked = Writing::Chunked;
            for piece in ["", "hello, world, this is it", "!"] {
                chunked.send(&mut transport, piece.as_bytes()).unwrap();
            }
            chunked.end(&mut transport).unwrap();
            let mut length = Writing::Length(5);
            length.send(&mut transport, b"hel").unwrap();
            assert!(length.send(&mut transport, b"lo!").is_err(), "more than was announced");
            assert!(Writing::Length(5).end(&mut transport).is_err(), "less than was announced");
            transport.close().await;
            let mut sent = String::new();
            peer.read_to_string(&mut sent).await.unwrap();
            assert_eq!(sent, "18\r\nhello, world, this is it\r\n1\r\n!\r\n0\r\n\r\nhel");
        });
    }
}
