//! Judges the framing bytes of a request as they come from the wire, before a parser may repair them: its head, and the
//! lines between the chunks of its body.
//!
//! Pingora accepts bare LF, escapes a space in the target, drops `Content-Length` beside `Transfer-Encoding`, answers a
//! head that is too large with 400, and takes a chunk without a size for the last one: each of them is a way in which
//! two programs may read one request differently (RFC 9112 §11.2). The guard sees every byte once, allocates nothing,
//! and its refusal ends the read.

use crate::model::verdict::{Code, Rejection};

/// The bounds of one request head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes from the first of the request line to the empty line.
    pub size: usize,
    /// Field lines.
    pub count: usize,
}

/// What the guard thinks of the bytes so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuardVerdict {
    /// No byte of a head has come yet.
    Idle,
    /// A head has begun.
    Partial,
    /// The head is whole; what follows is not the guard's.
    Complete,
    /// The head is refused.
    Refused(HeadFault),
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadFault {
    /// A line ends in LF without CR (RFC 9112 §2.2 lets a recipient accept it; smuggling lives on that).
    BareLf,
    /// CR that no LF follows.
    BareCr,
    /// NUL, other control characters, or a byte outside ASCII in the request line.
    ForbiddenByte,
    /// The request line is not `method SP target SP version`.
    RequestLine,
    /// The version is not HTTP/1.1 or HTTP/1.0.
    Version,
    /// A field line begins with white space (obs-fold, RFC 9112 §5.2).
    Folded,
    /// A field name is empty, or not a token, or white space stands before the colon (RFC 9112 §5.1).
    FieldName,
    /// More bytes than the listener's `header_size`.
    TooLarge,
    /// More field lines than the listener's `header_count`.
    TooMany,
    /// A chunk's line is not a size in hexadecimal with well-formed extensions (RFC 9112 §7.1), or its data has no end.
    Chunk,
    /// The bytes are a TLS handshake: the client speaks HTTPS to a port that speaks HTTP.
    Tls,
}

impl HeadFault {
    /// The refusal that the client sees.
    #[must_use]
    pub fn rejection(self) -> Rejection {
        let (code, detail) = match self {
            Self::BareLf => (Code::BadRequest, "a line of the head ends without CR"),
            Self::BareCr => (Code::BadRequest, "CR without LF in the head"),
            Self::ForbiddenByte => (Code::BadRequest, "a forbidden byte in the head"),
            Self::RequestLine => (Code::BadRequest, "the request line is not method, target and version"),
            Self::Version => (Code::BadRequest, "the version is neither HTTP/1.1 nor HTTP/1.0"),
            Self::Folded => (Code::BadRequest, "a folded field line"),
            Self::FieldName => (Code::BadRequest, "a malformed field name"),
            Self::TooLarge => (Code::HeadersTooLarge, "the request head is larger than this listener accepts"),
            Self::TooMany => (Code::HeadersTooLarge, "more field lines than this listener accepts"),
            Self::Chunk => (Code::BadRequest, "a malformed chunk in the body"),
            Self::Tls => (Code::BadRequest, "a TLS handshake on a port that speaks HTTP in clear"),
        };
        Rejection::new(code, detail)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first byte of the request line; empty lines are skipped (RFC 9112 §2.2).
    Before,
    /// Within the request line.
    RequestLine,
    /// At the first byte of a line after the request line.
    LineStart,
    /// Within a field name.
    Name,
    /// Within a field value.
    Value,
    /// Within a chunk's size, after this many digits.
    ChunkSize(u8),
    /// At the first byte of an extension's name, or within it.
    ExtensionName {
        begun: bool,
    },
    /// At the first byte of an extension's value, or within it.
    ExtensionValue {
        begun: bool,
    },
    /// Within an extension's quoted value.
    Quoted {
        escaped: bool,
    },
    /// After an extension's quoted value.
    Unquoted,
    /// Within the data of a chunk, before this many more bytes.
    ChunkData(u64),
    /// After the data of a chunk, before its CRLF.
    ChunkEnd,
    /// After the empty line, or after the last chunk and its trailers.
    Done,
    Refused(HeadFault),
}

/// See the module's documentation.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own about the bytes so far")]
pub struct HeadGuard {
    state: State,
    limits: HeadLimits,
    size: usize,
    fields: usize,
    /// The last byte was CR.
    after_cr: bool,
    /// Spaces seen in the request line.
    spaces: u8,
    /// The last byte of the request line was a space.
    after_space: bool,
    /// How much of the version has matched, after the second space.
    version: u8,
    /// How much of `transfer-encoding` the name at hand has matched; `u8::MAX` when it is another one.
    coding: u8,
    /// The body comes in chunks.
    chunked: bool,
    /// The field lines are those after the last chunk.
    in_trailers: bool,
    /// Size of the chunk at hand.
    chunk: u64,
}

impl HeadGuard {
    /// A guard that waits for the first byte of a head.
    #[must_use]
    pub const fn new(limits: HeadLimits) -> Self {
        Self {
            state: State::Before,
            limits,
            size: 0,
            fields: 0,
            after_cr: false,
            spaces: 0,
            after_space: false,
            version: 0,
            coding: 0,
            chunked: false,
            in_trailers: false,
            chunk: 0,
        }
    }

    /// What it thinks of the bytes so far.
    #[must_use]
    pub const fn verdict(&self) -> GuardVerdict {
        match self.state {
            State::Before => GuardVerdict::Idle,
            State::Done
            | State::ChunkSize(_)
            | State::ExtensionName { .. }
            | State::ExtensionValue { .. }
            | State::Quoted { .. }
            | State::Unquoted
            | State::ChunkData(_)
            | State::ChunkEnd => GuardVerdict::Complete,
            _ if self.in_trailers && !matches!(self.state, State::Refused(_)) => GuardVerdict::Complete,
            State::Refused(fault) => GuardVerdict::Refused(fault),
            _ => GuardVerdict::Partial,
        }
    }

    /// Judges the next bytes from the wire.
    pub fn take(&mut self, bytes: &[u8]) -> GuardVerdict {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            if matches!(self.state, State::Done | State::Refused(_)) {
                break;
            }
            if let State::ChunkData(left) = self.state {
                let length = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                rest = rest.get(length..).unwrap_or_default();
                let left = left - length as u64;
                self.state = if left == 0 { State::ChunkEnd } else { State::ChunkData(left) };
                continue;
            }
            rest = after;
            if self.state == State::Value {
                // The bulk of a head is field values: run to the next byte that could matter.
                let run = after.iter().take_while(|byte| is_plain_value(**byte)).count();
                if is_plain_value(byte) && !self.after_cr {
                    self.size += 1 + run;
                    rest = after.get(run..).unwrap_or_default();
                    self.check_size();
                    continue;
                }
            }
            self.size += 1;
            self.step(byte);
            self.check_size();
        }
        self.verdict()
    }

    fn check_size(&mut self) {
        if self.size > self.limits.size && !matches!(self.state, State::Refused(_)) {
            // Trailers are part of the body.
            self.state = State::Refused(if self.in_trailers { HeadFault::Chunk } else { HeadFault::TooLarge });
        }
    }

    fn step(&mut self, byte: u8) {
        if self.after_cr {
            self.after_cr = false;
            if byte == b'\n' {
                self.end_line();
            } else {
                self.state = State::Refused(HeadFault::BareCr);
            }
            return;
        }
        match byte {
            b'\r' => self.after_cr = true,
            b'\n' => self.state = State::Refused(HeadFault::BareLf),
            _ => self.state = self.next(byte),
        }
    }

    fn end_line(&mut self) {
        self.state = match self.state {
            // An empty line before the request line is skipped, a second one is not worth waiting for.
            State::Before if self.size <= 2 => State::Before,
            State::RequestLine if self.spaces == 2 && self.version == 8 => State::LineStart,
            State::RequestLine if self.spaces == 2 => State::Refused(HeadFault::Version),
            State::Before | State::RequestLine => State::Refused(HeadFault::RequestLine),
            State::LineStart if self.chunked && !self.in_trailers => self.next_chunk(),
            State::LineStart => State::Done,
            State::ChunkSize(0)
            | State::ExtensionName { begun: false }
            | State::ExtensionValue { begun: false }
            | State::Quoted { .. } => State::Refused(HeadFault::Chunk),
            State::ChunkSize(_)
            | State::ExtensionName { begun: true }
            | State::ExtensionValue { begun: true }
            | State::Unquoted => self.chunk_line_over(),
            State::ChunkEnd => self.next_chunk(),
            State::Name => State::Refused(HeadFault::FieldName),
            State::Value => State::LineStart,
            other => other,
        };
    }

    /// The bounds of a head hold for each line between chunks, and for the trailers together.
    fn next_chunk(&mut self) -> State {
        (self.size, self.chunk) = (0, 0);
        State::ChunkSize(0)
    }

    fn chunk_line_over(&mut self) -> State {
        if self.chunk > 0 {
            return State::ChunkData(self.chunk);
        }
        (self.size, self.fields, self.in_trailers) = (0, 0, true);
        State::LineStart
    }

    fn chunk_line(&mut self, byte: u8) -> State {
        /// More digits than any body needs.
        const MOST_DIGITS: u8 = 15;
        match (self.state, byte) {
            (State::ChunkSize(digits), byte) if byte.is_ascii_hexdigit() && digits < MOST_DIGITS => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                self.chunk = self.chunk << 4 | u64::from(digit);
                State::ChunkSize(digits + 1)
            }
            (
                State::ChunkSize(1..)
                | State::ExtensionName { begun: true }
                | State::ExtensionValue { begun: true }
                | State::Unquoted,
                b';',
            ) => State::ExtensionName { begun: false },
            (State::ExtensionName { begun: true }, b'=') => State::ExtensionValue { begun: false },
            (State::ExtensionName { .. }, byte) if is_token(byte) => State::ExtensionName { begun: true },
            (State::ExtensionValue { begun: false }, b'"') => State::Quoted { escaped: false },
            (State::ExtensionValue { .. }, byte) if is_token(byte) => State::ExtensionValue { begun: true },
            (State::Quoted { escaped: false }, b'"') => State::Unquoted,
            (State::Quoted { escaped: false }, b'\\') => State::Quoted { escaped: true },
            (State::Quoted { .. }, byte) if is_plain_value(byte) || byte == b'\t' => State::Quoted { escaped: false },
            _ => State::Refused(HeadFault::Chunk),
        }
    }

    /// Follows a field's name, to know whether the body comes in chunks.
    fn name_byte(&mut self, byte: u8) {
        const CODING: &[u8; 17] = b"transfer-encoding";
        let fits = CODING.get(usize::from(self.coding)).is_some_and(|expected| byte.eq_ignore_ascii_case(expected));
        self.coding = if fits { self.coding + 1 } else { u8::MAX };
    }

    fn next(&mut self, byte: u8) -> State {
        match self.state {
            State::ChunkSize(_)
            | State::ExtensionName { .. }
            | State::ExtensionValue { .. }
            | State::Quoted { .. }
            | State::Unquoted
            | State::ChunkEnd => self.chunk_line(byte),
            State::Before if byte == 0x16 => State::Refused(HeadFault::Tls),
            State::Before if is_token(byte) => State::RequestLine,
            State::Before => State::Refused(HeadFault::RequestLine),
            State::RequestLine => self.request_line(byte),
            State::LineStart if byte == b' ' || byte == b'\t' => State::Refused(HeadFault::Folded),
            State::LineStart if !is_token(byte) => State::Refused(HeadFault::FieldName),
            State::LineStart => {
                self.fields += 1;
                self.coding = 0;
                self.name_byte(byte);
                match (self.fields > self.limits.count, self.in_trailers) {
                    (false, _) => State::Name,
                    (true, false) => State::Refused(HeadFault::TooMany),
                    (true, true) => State::Refused(HeadFault::Chunk),
                }
            }
            State::Name if byte == b':' => {
                self.chunked |= self.coding == 17 && !self.in_trailers;
                State::Value
            }
            State::Name if is_token(byte) => {
                self.name_byte(byte);
                State::Name
            }
            State::Name => State::Refused(HeadFault::FieldName),
            State::Value if byte == b'\t' || (byte >= 0x20 && byte != 0x7f) => State::Value,
            State::Value => State::Refused(HeadFault::ForbiddenByte),
            other => other,
        }
    }

    fn request_line(&mut self, byte: u8) -> State {
        const VERSION: &[u8; 8] = b"HTTP/1.1";
        if byte == b' ' {
            if self.after_space || self.spaces == 2 {
                return State::Refused(HeadFault::RequestLine);
            }
            self.spaces += 1;
            self.after_space = true;
            return State::RequestLine;
        }
        self.after_space = false;
        match self.spaces {
            0 if is_token(byte) => State::RequestLine,
            0 => State::Refused(HeadFault::RequestLine),
            1 if (0x21..0x7f).contains(&byte) && byte != b'#' => State::RequestLine,
            1 => State::Refused(HeadFault::ForbiddenByte),
            _ => {
                let position = usize::from(self.version);
                let fits = VERSION.get(position) == Some(&byte) || (position == 7 && byte == b'0');
                self.version = self.version.saturating_add(1);
                if fits { State::RequestLine } else { State::Refused(HeadFault::Version) }
            }
        }
    }
}

const fn is_plain_value(byte: u8) -> bool {
    byte >= 0x20 && byte != 0x7f
}

/// `tchar` of RFC 9110 §5.6.2.
const fn is_token(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
    ) || byte.is_ascii_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: HeadLimits = HeadLimits { size: 200, count: 4 };

    fn judge(head: &[u8]) -> GuardVerdict {
        HeadGuard::new(LIMITS).take(head)
    }

    #[track_caller]
    fn check(head: &str, verdict: GuardVerdict) {
        assert_eq!(judge(head.as_bytes()), verdict, "{head:?}");
        let mut guard = HeadGuard::new(LIMITS);
        for byte in head.as_bytes() {
            guard.take(std::slice::from_ref(byte));
        }
        assert_eq!(guard.verdict(), verdict, "byte by byte: {head:?}");
    }

    #[test]
    fn passes_what_the_grammar_allows() {
        check("GET / HTTP/1.1\r\nHost: a\r\n\r\n", GuardVerdict::Complete);
        check("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", GuardVerdict::Complete);
        check("GET / HTTP/1.0\r\n\r\nanything\n\n", GuardVerdict::Complete);
        check("GET / HTTP/1.1\r\nX: \u{e4}\tb\r\n\r\n", GuardVerdict::Complete);
        check("GET /", GuardVerdict::Partial);
        check("", GuardVerdict::Idle);
    }

    #[test]
    fn refuses_what_two_programs_could_read_differently() {
        use HeadFault as F;
        let table = [
            ("GET / HTTP/1.1\nHost: a\n\n", F::BareLf),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", F::BareLf),
            ("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", F::BareCr),
            ("GET / HTTP/1.1\r\nX: a\0b\r\n\r\n", F::ForbiddenByte),
            ("GET /a b HTTP/1.1\r\n\r\n", F::Version),
            ("GET  / HTTP/1.1\r\n\r\n", F::RequestLine),
            ("GET /\r\n\r\n", F::RequestLine),
            ("GET /\u{e4} HTTP/1.1\r\n\r\n", F::ForbiddenByte),
            ("GET /#x HTTP/1.1\r\n\r\n", F::ForbiddenByte),
            ("GET / HTTP/1.2\r\n\r\n", F::Version),
            ("GET / HTTP/2.0\r\n\r\n", F::Version),
            ("GET / HTTP/1.1 \r\n\r\n", F::RequestLine),
            ("GET / HTTP/1.11\r\n\r\n", F::Version),
            ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", F::Folded),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", F::FieldName),
            ("GET / HTTP/1.1\r\n: a\r\n\r\n", F::FieldName),
            ("GET / HTTP/1.1\r\nHost\r\n\r\n", F::FieldName),
            ("\u{16}\u{3}\u{1}", F::Tls),
            ("\r\n\r\n", F::RequestLine),
        ];
        for (head, fault) in table {
            check(head, GuardVerdict::Refused(fault));
        }
    }

    const CHUNKED: &str = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";

    #[test]
    fn passes_chunks_and_their_extensions() {
        for body in [
            "0\r\n\r\n",
            "3\r\nabc\r\n0\r\n\r\n",
            "A;a=b;c=\"d;\\\"\"\r\n0123456789\r\n0;x\r\nT: v\r\n\r\nGET bad",
            "3\r\nab",
        ] {
            check(&format!("{CHUNKED}{body}"), GuardVerdict::Complete);
        }
    }

    #[test]
    fn refuses_chunks_that_two_programs_could_read_differently() {
        let table = [
            ("\r\n", HeadFault::Chunk),
            ("3 \r\nabc\r\n", HeadFault::Chunk),
            ("0x3\r\nabc\r\n", HeadFault::Chunk),
            ("-1\r\n", HeadFault::Chunk),
            ("3\nabc\r\n", HeadFault::BareLf),
            ("3\r\nabcX\r\n", HeadFault::Chunk),
            ("3\r\nabc\n0\r\n\r\n", HeadFault::BareLf),
            ("3;\r\nabc\r\n", HeadFault::Chunk),
            ("3;a b\r\nabc\r\n", HeadFault::Chunk),
            ("3;a=\"\r\nabc\r\n", HeadFault::Chunk),
            ("1111111111111111\r\n", HeadFault::Chunk),
            ("0\r\nT : v\r\n\r\n", HeadFault::FieldName),
        ];
        for (body, fault) in table {
            check(&format!("{CHUNKED}{body}"), GuardVerdict::Refused(fault));
        }
    }

    #[test]
    fn bounds_size_and_count() {
        let large = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(200));
        check(&large, GuardVerdict::Refused(HeadFault::TooLarge));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(5));
        check(&many, GuardVerdict::Refused(HeadFault::TooMany));
        let just = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(4));
        check(&just, GuardVerdict::Complete);
    }

    proptest! {
        #[test]
        fn the_verdict_does_not_depend_on_how_the_bytes_arrive(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b' '), Just(b':'), any::<u8>()], 0..120),
            cut in 0usize..120,
        ) {
            let head = [b"GET / HTTP/1.1\r\n".as_slice(), &bytes].concat();
            let mut parts = HeadGuard::new(LIMITS);
            let (first, second) = head.split_at(cut.min(head.len()));
            parts.take(first);
            parts.take(second);
            prop_assert_eq!(parts.verdict(), judge(&head));
        }
    }
}
