//! Judges the bytes of a request head as they come from the wire, before anything takes them apart.
//!
//! A bare LF, a space in the target, white space before a colon, a folded line: each of them is a way in which two programs
//! may read one request differently (RFC 9112 §11.2). The guard sees every byte once and allocates nothing; it tells
//! idle, partial and complete apart, which is what the deadlines need, and where the head ends.

use super::h1::chunks::is_token;
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
    /// After the empty line.
    Done,
    Refused(HeadFault),
}

/// See the module's documentation.
#[derive(Debug, Clone, Copy)]
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
        }
    }

    /// What it thinks of the bytes so far.
    #[must_use]
    pub const fn verdict(&self) -> GuardVerdict {
        match self.state {
            State::Before => GuardVerdict::Idle,
            State::Done => GuardVerdict::Complete,
            State::Refused(fault) => GuardVerdict::Refused(fault),
            _ => GuardVerdict::Partial,
        }
    }

    /// The bytes of the head so far, with the empty lines before it.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// The field lines so far.
    #[must_use]
    pub const fn fields(&self) -> usize {
        self.fields
    }

    /// Judges the next bytes from the wire.
    pub fn take(&mut self, bytes: &[u8]) -> GuardVerdict {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            if matches!(self.state, State::Done | State::Refused(_)) {
                break;
            }
            // The bulk of a head is what may go on and on: run to the next byte that could matter.
            let run = self.run(rest);
            if run > 0 {
                self.size += run;
                rest = rest.get(run..).unwrap_or_default();
                self.check_size();
                continue;
            }
            rest = after;
            self.size += 1;
            self.step(byte);
            self.check_size();
        }
        self.verdict()
    }

    /// How many of the next bytes change nothing but the size.
    fn run(&mut self, bytes: &[u8]) -> usize {
        if self.after_cr {
            return 0;
        }
        let bytes = bytes.iter();
        let run = match self.state {
            State::Value => bytes.take_while(|byte| is_plain_value(**byte)).count(),
            State::Name => bytes.take_while(|byte| is_token(**byte)).count(),
            State::RequestLine if self.spaces == 1 => bytes.take_while(|byte| is_target_byte(**byte)).count(),
            _ => 0,
        };
        self.after_space &= run == 0;
        run
    }

    fn check_size(&mut self) {
        if self.size > self.limits.size && !matches!(self.state, State::Refused(_)) {
            self.state = State::Refused(HeadFault::TooLarge);
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
            State::LineStart => State::Done,
            State::Name => State::Refused(HeadFault::FieldName),
            State::Value => State::LineStart,
            other => other,
        };
    }

    fn next(&mut self, byte: u8) -> State {
        match self.state {
            State::Before if byte == 0x16 => State::Refused(HeadFault::Tls),
            State::Before if is_token(byte) => State::RequestLine,
            State::Before => State::Refused(HeadFault::RequestLine),
            State::RequestLine => self.request_line(byte),
            State::LineStart if byte == b' ' || byte == b'\t' => State::Refused(HeadFault::Folded),
            State::LineStart if !is_token(byte) => State::Refused(HeadFault::FieldName),
            State::LineStart => {
                self.fields += 1;
                if self.fields > self.limits.count { State::Refused(HeadFault::TooMany) } else { State::Name }
            }
            State::Name if byte == b':' => State::Value,
            State::Name if is_token(byte) => State::Name,
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
            1 if is_target_byte(byte) => State::RequestLine,
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

const fn is_target_byte(byte: u8) -> bool {
    0x21 <= byte && byte < 0x7f && byte != b'#'
}

const fn is_plain_value(byte: u8) -> bool {
    byte >= 0x20 && byte != 0x7f
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

    #[test]
    fn knows_where_the_head_ends() {
        let head = "\r\nPOST / HTTP/1.1\r\nA: b\r\nC: d\r\n\r\n";
        let mut guard = HeadGuard::new(LIMITS);
        assert_eq!(guard.take(format!("{head}hello\n").as_bytes()), GuardVerdict::Complete);
        assert_eq!((guard.size(), guard.fields()), (head.len(), 2));
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
