//! Writes HTTP/1.1 heads: straight from the maps that hold them, once, into the bytes that leave.

use bytes::{BufMut, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method, StatusCode};

/// The framing that a head announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Nothing about a body.
    Silent,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// What a head says about the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// Nothing: HTTP/1.1 keeps it open.
    Implied,
    /// `Connection: keep-alive`, for HTTP/1.0.
    KeepAlive,
    /// `Connection: close`.
    Close,
    /// `Connection: upgrade`, with the map's `Upgrade` field.
    Upgrade,
}

/// A request head in HTTP/1.1. Framing and connection fields of the map are left out: `framing` and `persistence`
/// speak for them. `host` leads (RFC 9110 §7.2).
pub fn request(
    wire: &mut BytesMut,
    (method, target, host): (&Method, &str, &[u8]),
    headers: &HeaderMap,
    framing: Framing,
    persistence: Persistence,
) {
    wire.reserve(size_hint(headers) + target.len() + host.len());
    wire.put_slice(method.as_str().as_bytes());
    wire.put_u8(b' ');
    wire.put_slice(target.as_bytes());
    wire.put_slice(b" HTTP/1.1\r\nhost: ");
    wire.put_slice(host);
    wire.put_slice(b"\r\n");
    fields(wire, headers, persistence, true);
    end(wire, framing, persistence);
}

/// A response head in HTTP/1.1; see [`request`].
pub fn response(
    wire: &mut BytesMut,
    status: StatusCode,
    headers: &HeaderMap,
    framing: Framing,
    persistence: Persistence,
) {
    wire.reserve(size_hint(headers));
    wire.put_slice(b"HTTP/1.1 ");
    wire.put_slice(status.as_str().as_bytes());
    wire.put_u8(b' ');
    wire.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    wire.put_slice(b"\r\n");
    fields(wire, headers, persistence, false);
    end(wire, framing, persistence);
}

fn fields(wire: &mut BytesMut, headers: &HeaderMap, persistence: Persistence, skip_host: bool) {
    for (name, value) in headers {
        let own = name == CONTENT_LENGTH
            || name == TRANSFER_ENCODING
            || name == CONNECTION
            || (name == UPGRADE && persistence != Persistence::Upgrade)
            || (skip_host && name == HOST);
        if own {
            continue;
        }
        wire.put_slice(name.as_str().as_bytes());
        wire.put_slice(b": ");
        wire.put_slice(value.as_bytes());
        wire.put_slice(b"\r\n");
    }
}

fn end(wire: &mut BytesMut, framing: Framing, persistence: Persistence) {
    match framing {
        Framing::Silent => {}
        Framing::Length(length) => {
            wire.put_slice(b"content-length: ");
            put_number(wire, length, 10);
            wire.put_slice(b"\r\n");
        }
        Framing::Chunked => wire.put_slice(b"transfer-encoding: chunked\r\n"),
    }
    match persistence {
        Persistence::Implied => {}
        Persistence::KeepAlive => wire.put_slice(b"connection: keep-alive\r\n"),
        Persistence::Close => wire.put_slice(b"connection: close\r\n"),
        Persistence::Upgrade => wire.put_slice(b"connection: upgrade\r\n"),
    }
    wire.put_slice(b"\r\n");
}

/// Writes a number in a base of at most 16.
pub fn put_number(wire: &mut BytesMut, number: u64, base: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0_u8; 20];
    let mut rest = number;
    let mut length = 0;
    for digit in digits.iter_mut().rev() {
        *digit = usize::try_from(rest % base).ok().and_then(|value| DIGITS.get(value)).copied().unwrap_or(b'0');
        rest /= base;
        length += 1;
        if rest == 0 {
            break;
        }
    }
    wire.put_slice(digits.get(digits.len() - length..).unwrap_or_default());
}

/// Roughly: the buffer serves one message after another, and grows where it has to.
fn size_hint(headers: &HeaderMap) -> usize {
    128 + headers.len() * 48
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("wrong"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("99"));
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(CONNECTION, HeaderValue::from_static("x"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.append("x-a", HeaderValue::from_static("1"));
        headers.append("x-a", HeaderValue::from_static("2"));
        headers
    }

    #[test]
    fn the_map_does_not_speak_for_framing_or_connection() {
        let mut wire = BytesMut::new();
        let line = (&Method::POST, "/a?b", &b"h"[..]);
        request(&mut wire, line, &headers(), Framing::Length(120), Persistence::Implied);
        assert_eq!(&wire[..], b"POST /a?b HTTP/1.1\r\nhost: h\r\nx-a: 1\r\nx-a: 2\r\ncontent-length: 120\r\n\r\n");
        wire.clear();
        response(&mut wire, StatusCode::OK, &HeaderMap::new(), Framing::Chunked, Persistence::Close);
        assert_eq!(&wire[..], b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n");
    }

    #[test]
    fn an_upgrade_keeps_its_field() {
        let mut wire = BytesMut::new();
        request(&mut wire, (&Method::GET, "/", b"h"), &headers(), Framing::Silent, Persistence::Upgrade);
        assert_eq!(
            &wire[..],
            b"GET / HTTP/1.1\r\nhost: h\r\nupgrade: websocket\r\nx-a: 1\r\nx-a: 2\r\nconnection: upgrade\r\n\r\n"
        );
    }

    #[test]
    fn numbers_are_written_whole() {
        for number in [0, 7, 10, 255, 1_234_567_890, u64::MAX] {
            let mut wire = BytesMut::new();
            put_number(&mut wire, number, 10);
            wire.put_u8(b' ');
            put_number(&mut wire, number, 16);
            assert_eq!(wire, format!("{number} {number:x}").as_bytes());
        }
    }
}
