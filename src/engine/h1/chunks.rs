//! Takes a chunked body apart (RFC 9112 §7.1), one byte of framing at a time: bounded, and without a second reading.
//!
//! A size that is no number, a bare LF, data that is longer than its size: each is a way in which two programs may read
//! one body differently (RFC 9112 §11.2), and ends it. Trailers are judged and forgotten, which RFC 9110 §6.5.1 allows.

/// Who sends the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grammar {
    /// A client: to the letter.
    Exact,
    /// An upstream: white space may follow a size, and an extension or a trailer be any text.
    Tolerant,
}

/// The bounds of what is not data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of one line between chunks, and of all trailers together.
    pub size: usize,
    /// Trailers.
    pub count: usize,
}

/// The framing is broken, or out of bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// What the next bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of them are framing; more is needed.
    Framing,
    /// Data, after this much framing.
    Data {
        /// Bytes of framing.
        framing: usize,
        /// Bytes of data, at least one.
        length: usize,
    },
    /// The body has ended after this much framing.
    End(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Within a size, after this many digits.
    Size(u8),
    /// In the white space after a size.
    Padding,
    /// At the first byte of an extension's name, or within it.
    Name { begun: bool },
    /// At the first byte of an extension's value, or within it.
    Value { begun: bool },
    /// Within an extension's quoted value.
    Quoted { escaped: bool },
    /// After an extension's quoted value.
    Unquoted,
    /// Within any extension.
    Text,
    /// Within data.
    Data,
    /// After data, before its CRLF.
    DataEnd,
    /// At the first byte of a line after the last chunk.
    Trailer,
    /// Within a trailer's name.
    TrailerName,
    /// Within a trailer's value.
    TrailerValue,
    /// After everything.
    Done,
}

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct Chunks {
    state: State,
    grammar: Grammar,
    bounds: Bounds,
    /// Bytes of the line at hand, or of the trailers.
    line: usize,
    trailers: usize,
    /// Bytes that the chunk at hand still has.
    left: u64,
    after_cr: bool,
}

impl Chunks {
    /// Before the first chunk.
    #[must_use]
    pub const fn new(grammar: Grammar, bounds: Bounds) -> Self {
        Self { state: State::Size(0), grammar, bounds, line: 0, trailers: 0, left: 0, after_cr: false }
    }

    /// Bytes that the chunk at hand still has.
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.left
    }

    /// Judges the next bytes, as far as they are of one kind. What it returns counts as read; the rest has to be shown
    /// again.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Part, Malformed> {
        for (framing, byte) in bytes.iter().enumerate() {
            match self.state {
                State::Done => return Ok(Part::End(framing)),
                State::Data => return Ok(self.data(framing, bytes.len() - framing)),
                _ => self.step(*byte)?,
            }
        }
        Ok(if self.state == State::Done { Part::End(bytes.len()) } else { Part::Framing })
    }

    fn data(&mut self, framing: usize, at_hand: usize) -> Part {
        let length = at_hand.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= length as u64;
        if self.left == 0 {
            self.state = State::DataEnd;
        }
        Part::Data { framing, length }
    }

    fn step(&mut self, byte: u8) -> Result<(), Malformed> {
        self.line += 1;
        if self.line > self.bounds.size {
            return Err(Malformed);
        }
        match (std::mem::take(&mut self.after_cr), byte) {
            (true, b'\n') => self.state = self.end_line()?,
            (true, _) | (false, b'\n') => return Err(Malformed),
            (false, b'\r') => self.after_cr = true,
            (false, _) => self.state = self.within_line(byte)?,
        }
        Ok(())
    }

    fn end_line(&mut self) -> Result<State, Malformed> {
        let state = match self.state {
            State::Size(1..)
            | State::Padding
            | State::Name { begun: true }
            | State::Value { begun: true }
            | State::Unquoted
            | State::Text => {
                self.line = 0;
                if self.left > 0 { State::Data } else { State::Trailer }
            }
            State::DataEnd => {
                self.line = 0;
                State::Size(0)
            }
            State::Trailer => State::Done,
            State::TrailerValue => State::Trailer,
            _ => return Err(Malformed),
        };
        Ok(state)
    }

    fn within_line(&mut self, byte: u8) -> Result<State, Malformed> {
        /// More digits than any body needs.
        const MOST_DIGITS: u8 = 15;
        let is_tolerant = self.grammar == Grammar::Tolerant;
        let state = match (self.state, byte) {
            (State::Size(digits), byte) if byte.is_ascii_hexdigit() && digits < MOST_DIGITS => {
                self.left = self.left << 4 | u64::from(char::from(byte).to_digit(16).unwrap_or_default());
                State::Size(digits + 1)
            }
            (State::Size(1..) | State::Padding, b' ' | b'\t') if is_tolerant => State::Padding,
            (State::Size(1..) | State::Padding, b';') if is_tolerant => State::Text,
            (State::Text, byte) if is_text(byte) => State::Text,
            (State::Size(1..) | State::Name { begun: true } | State::Value { begun: true } | State::Unquoted, b';') => {
                State::Name { begun: false }
            }
            (State::Name { begun: true }, b'=') => State::Value { begun: false },
            (State::Name { .. }, byte) if is_token(byte) => State::Name { begun: true },
            (State::Value { begun: false }, b'"') => State::Quoted { escaped: false },
            (State::Value { .. }, byte) if is_token(byte) => State::Value { begun: true },
            (State::Quoted { escaped: false }, b'"') => State::Unquoted,
            (State::Quoted { escaped: false }, b'\\') => State::Quoted { escaped: true },
            (State::Quoted { .. }, byte) if is_text(byte) => State::Quoted { escaped: false },
            (State::Trailer, byte) if is_token(byte) => {
                self.trailers += 1;
                if self.trailers > self.bounds.count {
                    return Err(Malformed);
                }
                if is_tolerant { State::TrailerValue } else { State::TrailerName }
            }
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerName, byte) if is_token(byte) => State::TrailerName,
            (State::TrailerValue, byte) if is_text(byte) => State::TrailerValue,
            _ => return Err(Malformed),
        };
        Ok(state)
    }
}

/// What a value may have.
const fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}

/// `tchar` of RFC 9110 §5.6.2.
pub(in crate::engine) const fn is_token(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
    ) || byte.is_ascii_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds { size: 200, count: 4 };

    /// The data, how many bytes it took, and whether it ended there; reads pieces of `step` bytes.
    fn read(grammar: Grammar, body: &[u8], step: usize) -> Result<(Vec<u8>, usize, bool), Malformed> {
        let mut chunks = Chunks::new(grammar, BOUNDS);
        let (mut data, mut at) = (Vec::new(), 0);
        for end in (1..=body.len()).filter(|end| end % step == 0 || *end == body.len()) {
            while at < end {
                match chunks.next(&body[at..end])? {
                    Part::Framing => at = end,
                    Part::End(framing) => return Ok((data, at + framing, true)),
                    Part::Data { framing, length } => {
                        assert!(length > 0 && at + framing + length <= end);
                        data.extend_from_slice(&body[at + framing..at + framing + length]);
                        at += framing + length;
                    }
                }
            }
        }
        Ok((data, at, false))
    }

    #[track_caller]
    fn check(grammar: Grammar, body: &str, expected: Result<(&str, &str, bool), Malformed>) {
        for step in [1, 2, 7, usize::MAX] {
            let read = read(grammar, body.as_bytes(), step);
            let read = read.map(|(data, at, ended)| {
                (String::from_utf8(data).unwrap(), body.get(at..).expect("a boundary").to_owned(), ended)
            });
            let expected = expected.map(|(data, rest, ended)| (data.to_owned(), rest.to_owned(), ended));
            assert_eq!(read, expected, "{body:?} by {step}");
        }
    }

    #[test]
    fn passes_chunks_and_their_extensions() {
        for grammar in [Grammar::Exact, Grammar::Tolerant] {
            check(grammar, "0\r\n\r\n", Ok(("", "", true)));
            check(grammar, "3\r\nabc\r\n0\r\n\r\nGET ", Ok(("abc", "GET ", true)));
            check(grammar, "A;a=b;c=\"d;\\\"\"\r\n0123456789\r\n0;x\r\nT: v\r\n\r\n\n", Ok(("0123456789", "\n", true)));
            check(grammar, "3\r\nab", Ok(("ab", "", false)));
            check(grammar, "3\r\nabc\r\n000\r\n\r", Ok(("abc", "", false)));
        }
    }

    const BROKEN: [&str; 12] = [
        "\r\n",
        "0x3\r\nabc\r\n",
        "-1\r\n",
        " 3\r\nabc\r\n",
        "3\nabc\r\n",
        "3\rabc\r\n",
        "3\r\nabcX\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "1111111111111111\r\n",
        "3;a\0\r\nabc\r\n",
        "0\r\nT: v\n\r\n",
        "0\r\n folded\r\n\r\n",
    ];

    #[test]
    fn refuses_chunks_that_two_programs_could_read_differently() {
        for body in BROKEN {
            check(Grammar::Exact, body, Err(Malformed));
            check(Grammar::Tolerant, body, Err(Malformed));
        }
        for body in ["3 \r\nabc\r\n", "3;\r\nabc\r\n", "3;a b\r\nabc\r\n", "3;a=\"\r\nabc\r\n", "0\r\nT : v\r\n\r\n"] {
            check(Grammar::Exact, body, Err(Malformed));
        }
        check(Grammar::Tolerant, "3 \t\r\nabc\r\n0 ; a b\r\nT : v\r\n\r\n", Ok(("abc", "", true)));
    }

    #[test]
    fn bounds_lines_and_trailers() {
        check(Grammar::Exact, &format!("3;{}\r\nabc\r\n", "a".repeat(200)), Err(Malformed));
        check(Grammar::Exact, &format!("0\r\n{}\r\n", "A: b\r\n".repeat(5)), Err(Malformed));
        check(Grammar::Exact, &format!("0\r\nA: {}\r\n\r\n", "b".repeat(200)), Err(Malformed));
        check(Grammar::Exact, &format!("0\r\n{}\r\n", "A: b\r\n".repeat(4)), Ok(("", "", true)));
    }

    proptest! {
        #[test]
        fn what_is_sent_in_chunks_arrives_however_it_is_cut(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..8),
            step in 1usize..50,
        ) {
            let mut body = Vec::new();
            for piece in &pieces {
                body.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                body.extend_from_slice(piece);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"0\r\n\r\n");
            let length = body.len();
            body.extend_from_slice(b"behind");
            for grammar in [Grammar::Exact, Grammar::Tolerant] {
                prop_assert_eq!(read(grammar, &body, step), Ok((pieces.concat(), length, true)));
            }
        }

        #[test]
        fn hostile_bytes_have_one_reading_however_they_are_cut(
            bytes in proptest::collection::vec(
                prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'3'), Just(b';'), Just(b'='), any::<u8>()], 0..80),
            step in 1usize..20,
        ) {
            for grammar in [Grammar::Exact, Grammar::Tolerant] {
                prop_assert_eq!(read(grammar, &bytes, step), read(grammar, &bytes, usize::MAX));
            }
        }

        #[test]
        fn what_the_exact_grammar_passes_the_tolerant_one_reads_alike(
            text in "[0-3]{1,2}(;[a=\"]{0,4})?\r\n[a-c]{0,4}\r\n0\r\n(T: v\r\n)?\r\n",
        ) {
            if let Ok(exact) = read(Grammar::Exact, text.as_bytes(), usize::MAX) {
                prop_assert_eq!(read(Grammar::Tolerant, text.as_bytes(), usize::MAX), Ok(exact));
            }
        }
    }
}
