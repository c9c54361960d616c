//! Takes heads apart: a request's after the guard has judged it, a response's as upstreams send it.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, request};
use smallvec::SmallVec;

use crate::model::fields;

/// Fields of a response at most.
const MOST_FIELDS: usize = 256;
/// Bytes of a response's head at most.
const MOST_BYTES: usize = 64 * 1024;

/// Takes a request head apart, of which [`super::super::head_guard::HeadGuard`] has said that it is whole; `None` when a
/// part of it is more than grammar and not valid. The values share `head`.
#[must_use]
pub fn request(head: &Bytes, fields: usize) -> Option<request::Parts> {
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let line = lines.by_ref().find(|line| !line.is_empty())?;
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let mut parts = http::Request::new(()).into_parts().0;
    parts.method = Method::from_bytes(method).ok()?;
    parts.uri = uri(head, target)?;
    parts.version = if version == b"HTTP/1.1" { Version::HTTP_11 } else { Version::HTTP_10 };
    // room for what an attempt adds
    parts.headers.try_reserve(fields).ok()?;
    for line in lines.take_while(|line| !line.is_empty()) {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at_checked(colon)?;
        let value = value.get(1..)?.trim_ascii();
        let value = HeaderValue::from_maybe_shared(head.slice_ref(value)).ok()?;
        parts.headers.try_append(HeaderName::from_bytes(name).ok()?, value).ok()?;
    }
    Some(parts)
}

/// The target. What stands for itself in no URL, and yet is sent by some, goes on as its escape.
fn uri(head: &Bytes, target: &[u8]) -> Option<Uri> {
    let escape = |byte: u8| match byte {
        b'"' => Some("%22"),
        b'<' => Some("%3C"),
        b'>' => Some("%3E"),
        _ => None,
    };
    if !target.iter().any(|byte| escape(*byte).is_some()) {
        return Uri::from_maybe_shared(head.slice_ref(target)).ok();
    }
    let mut escaped = Vec::with_capacity(target.len() + 16);
    for byte in target {
        match escape(*byte) {
            Some(escape) => escaped.extend_from_slice(escape.as_bytes()),
            None => escaped.push(*byte),
        }
    }
    Uri::from_maybe_shared(Bytes::from(escaped)).ok()
}

/// A response head in place.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    /// Its bytes.
    pub length: usize,
    status: StatusCode,
    version: Version,
    fields: SmallVec<[Field; 16]>,
}

/// A name, and where its value begins and ends.
type Field = (HeaderName, usize, usize);

/// Whether it is worth a look, when the first `seen` bytes were no whole head: a head that comes in many pieces is not read
/// anew for each.
#[must_use]
pub fn may_be_whole(bytes: &[u8], seen: usize) -> bool {
    if seen == 0 || bytes.len() >= MOST_BYTES {
        return bytes.len() > seen;
    }
    let fresh = bytes.get(seen.saturating_sub(2)..).unwrap_or_default();
    fresh.windows(2).any(|pair| pair == b"\n\n") || fresh.windows(3).any(|three| three == b"\n\r\n")
}

/// Looks for a response head at the beginning of `bytes`; `None` when more is needed.
pub fn response(bytes: &[u8]) -> Result<Option<Response>, &'static str> {
    let mut space = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let mut parser = httparse::ParserConfig::default();
    parser.allow_spaces_after_header_name_in_responses(true).allow_obsolete_multiline_headers_in_responses(true);
    let length = match parser.parse_response_with_uninit_headers(&mut parsed, bytes, &mut space) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < MOST_BYTES => return Ok(None),
        Ok(httparse::Status::Partial) => return Err("the head is too large"),
        Err(_) => return Err("malformed head"),
    };
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or("malformed status")?;
    let version = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let start = bytes.as_ptr().addr();
    let mut fields = SmallVec::with_capacity(parsed.headers.len());
    for field in &*parsed.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| "malformed field name")?;
        let begin = field.value.as_ptr().addr().saturating_sub(start);
        fields.push((name, begin, begin + field.value.len()));
    }
    Ok(Some(Response { length, status, version, fields }))
}

/// What a response head says.
#[derive(Debug)]
pub struct ResponseParts {
    /// Status.
    pub status: StatusCode,
    /// Fields.
    pub headers: HeaderMap,
    /// Whether the connection may carry another exchange, as far as the head says.
    pub persists: bool,
    /// How the body is framed, where the status and the method allow one.
    pub framing: Framing,
}

/// How the body of a response is framed (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding`, of which `chunked` is the last.
    Chunked,
    /// Neither, or another coding.
    UntilClose,
}

impl Response {
    /// The fields, with their values out of `head`: the bytes that [`response`] found it in.
    pub fn read(self, head: &Bytes) -> Result<ResponseParts, &'static str> {
        // room for what a response gets on its way
        let mut headers = HeaderMap::with_capacity(self.fields.len() + 4);
        for (name, begin, end) in self.fields {
            headers.append(name, value(head, begin, end)?);
        }
        let mut persists = is_kept(self.version, &headers);
        let framing = if headers.contains_key(TRANSFER_ENCODING) {
            // Both: the coding is right (RFC 9112 §6.3), and whoever sent it is not to be trusted with a second one; nor
            // is one that chunks in HTTP/1.0.
            persists &= headers.remove(CONTENT_LENGTH).is_none() && self.version == Version::HTTP_11;
            let mut codings = fields::members(&headers, &TRANSFER_ENCODING);
            // No TE was sent, so no other coding may come (RFC 9112 §7.4), and none is taken off.
            match (codings.next(), codings.next()) {
                (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") => Framing::Chunked,
                _ => return Err("a transfer coding other than chunked"),
            }
        } else {
            content_length(&headers)?.map_or(Framing::UntilClose, Framing::Length)
        };
        Ok(ResponseParts { status: self.status, headers, persists, framing })
    }
}

fn value(head: &Bytes, begin: usize, end: usize) -> Result<HeaderValue, &'static str> {
    let bytes = head.get(begin..end).ok_or("malformed field value")?;
    let malformed = |_| "malformed field value";
    if bytes.contains(&b'\n') {
        // a folded line is one line with a space in it (RFC 9112 §5.2)
        let line: Vec<u8> = bytes.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }).collect();
        return HeaderValue::from_maybe_shared(Bytes::from(line)).map_err(malformed);
    }
    HeaderValue::from_maybe_shared(head.slice_ref(bytes)).map_err(malformed)
}

/// Whether the sender keeps the connection (RFC 9112 §9.3).
#[must_use]
pub fn is_kept(version: Version, headers: &HeaderMap) -> bool {
    if !headers.contains_key(CONNECTION) {
        return version == Version::HTTP_11;
    }
    let says = |option: &str| fields::members(headers, &CONNECTION).any(|said| said.eq_ignore_ascii_case(option));
    !says("close") && (version == Version::HTTP_11 || says("keep-alive"))
}

/// The length that a response declares: once, or several times alike (RFC 9110 §8.6).
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, &'static str> {
    const MALFORMED: &str = "Content-Length";
    let mut length = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        for member in value.as_bytes().split(|byte| *byte == b',') {
            let text = std::str::from_utf8(member.trim_ascii()).map_err(|_| MALFORMED)?;
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let one: u64 = if is_number { text.parse().map_err(|_| MALFORMED)? } else { return Err(MALFORMED) };
            if length.replace(one).is_some_and(|other| other != one) {
                return Err(MALFORMED);
            }
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::engine::head_guard::{GuardVerdict, HeadGuard, HeadLimits};

    #[track_caller]
    fn read(head: &str) -> Result<ResponseParts, &'static str> {
        let found = response(head.as_bytes())?.expect("whole");
        let bytes = Bytes::copy_from_slice(head.as_bytes()).slice(..found.length);
        found.read(&bytes)
    }

    #[test]
    fn takes_a_request_apart() {
        let head = Bytes::from_static(b"\r\nGET /a<b>?c HTTP/1.0\r\nHost:a\r\nX: \t1 2\t\r\nx:\r\n\r\n");
        let parts = request(&head, 3).expect("valid");
        assert_eq!((parts.method, parts.version), (Method::GET, Version::HTTP_10));
        assert_eq!(parts.uri, "/a%3Cb%3E?c");
        assert_eq!(parts.headers.get_all("x").iter().collect::<Vec<_>>(), ["1 2", ""]);
        assert_eq!(parts.headers["host"], "a");
        assert!(request(&Bytes::from_static(b"GET /a\\b^ HTTP/1.1\r\n\r\n"), 0).is_none_or(|head| head.uri != "/a/b^"));
    }

    #[test]
    fn a_response_is_framed_by_one_field() {
        let framing = |fields: &str| read(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).map(|head| head.framing);
        assert_eq!(framing("Content-Length: 5\r\n"), Ok(Framing::Length(5)));
        assert_eq!(framing("Content-Length: 5\r\nContent-Length: 5, 5\r\n"), Ok(Framing::Length(5)));
        assert_eq!(framing("Transfer-Encoding: Chunked\r\nContent-Length: 5\r\n"), Ok(Framing::Chunked));
        for codings in ["gzip, chunked", "chunked, gzip", "gzip", "chunked, chunked", "identity", ""] {
            assert!(framing(&format!("Transfer-Encoding: {codings}\r\n")).is_err(), "{codings}");
        }
        assert_eq!(framing(""), Ok(Framing::UntilClose));
        for length in ["5, 6", "", "-1", "+1", "1 1", "99999999999999999999", "5,"] {
            assert!(framing(&format!("Content-Length: {length}\r\n")).is_err(), "{length}");
        }
    }

    #[test]
    fn a_response_says_whether_the_connection_goes_on() {
        let persists = |head: &str| read(&format!("{head}\r\n")).is_ok_and(|head| head.persists);
        assert!(persists("HTTP/1.1 200 OK\r\n"));
        assert!(persists("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n"));
        assert!(!persists("HTTP/1.0 200 OK\r\n"));
        assert!(!persists("HTTP/1.1 200 OK\r\nConnection: x, Close\r\n"));
        assert!(!persists("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n"));
        assert!(!persists("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n"));
    }

    #[test]
    fn a_folded_line_becomes_one() {
        let head = read("HTTP/1.1 200 OK\r\nX: a\r\n b\r\nY : c\r\n\r\n").expect("tolerated");
        assert_eq!((&head.headers["x"], &head.headers["y"]), (&"a   b".parse().unwrap(), &"c".parse().unwrap()));
    }

    #[test]
    fn waits_for_a_head_and_refuses_what_is_none() {
        assert_eq!(response(b"HTTP/1.1 200 OK\r\nX: a\r\n"), Ok(None));
        assert!(response(b"SSH-2.0-x\r\n").is_err());
        assert!(response(b"HTTP/1.1 099 OK\r\n\r\n").is_err());
        assert!(response(format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(257)).as_bytes()).is_err());
        assert!(response(format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(MOST_BYTES)).as_bytes()).is_err());
    }

    #[test]
    fn a_head_in_pieces_is_looked_at_when_its_end_may_be_there() {
        let head = b"HTTP/1.1 200 OK\r\nX: a\r\n\r\n";
        let looks: Vec<usize> = (1..=head.len()).filter(|at| may_be_whole(&head[..*at], at - 1)).collect();
        assert_eq!(looks, [1, head.len()]);
        assert!(may_be_whole(b"HTTP/1.1 200 OK\n\n", 17) && !may_be_whole(b"", 0));
    }

    proptest! {
        #[test]
        fn a_request_that_the_guard_passes_keeps_its_fields(
            target in "/[!-~]{0,20}",
            fields in proptest::collection::vec(("[a-zA-Z][a-z_-]{0,8}", "[ -~]{0,12}"), 0..6),
        ) {
            use std::fmt::Write as _;
            let mut text = format!("GET {target} HTTP/1.1\r\n");
            for (name, value) in &fields {
                let _ = write!(text, "{name}:{value}\r\n");
            }
            text.push_str("\r\n");
            let mut guard = HeadGuard::new(HeadLimits { size: 1000, count: 10 });
            if guard.take(text.as_bytes()) == GuardVerdict::Complete
                && let Some(parts) = request(&Bytes::from(text), guard.fields())
            {
                let read: Vec<_> = parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
                prop_assert_eq!(read.len(), fields.len());
                for (name, value) in &fields {
                    let name = name.to_ascii_lowercase();
                    prop_assert!(read.contains(&(name.as_str(), value.trim_ascii().as_bytes())));
                }
            }
        }
    }
}
