//! Judges JSON while it arrives, byte by byte: form (RFC 8259), depth, number of keys, length of strings, names that are
//! said twice.
//!
//! Iterative and in bounded memory: one bit a level, one hash a key, and the key that is being read. Whatever passes has
//! one reading: duplicate names, byte order marks, lone surrogates and bytes that aren't UTF-8 are refused, because two
//! programs would read them differently. Never builds a value.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

/// How much a JSON text may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonLimits {
    /// Levels of arrays and objects.
    pub depth: usize,
    /// Keys in all objects together.
    pub keys: usize,
    /// Bytes of one string or key, as written.
    pub string: usize,
}

/// What is wrong with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Too many levels.
    #[error("nested deeper than {0} levels")]
    Depth(usize),
    /// Too many keys.
    #[error("more than {0} keys")]
    Keys(usize),
    /// Too long a string.
    #[error("a string longer than {0} bytes")]
    String(usize),
    /// A name twice in one object.
    #[error("a name stands twice in one object, at byte {0}")]
    Duplicate(u64),
    /// Not JSON.
    #[error("not JSON at byte {0}: {1}")]
    Syntax(u64, &'static str),
}

/// The state between two pieces of a text.
#[derive(Debug)]
pub struct Scanner {
    limits: JsonLimits,
    state: State,
    /// One entry a level: the number of an object, or none for an array.
    open: Vec<Option<u32>>,
    objects: u32,
    names: HashSet<(u32, u64)>,
    hasher: RandomState,
    /// The name that is being read, decoded.
    name: Vec<u8>,
    string: Text,
    at: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Value,
    ValueOrEnd,
    Name,
    NameOrEnd,
    Colon,
    Comma,
    Text,
    Number(Number),
    Word(&'static [u8]),
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    Exponent,
    Sign,
    Power,
}

/// A string on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Text {
    is_name: bool,
    length: usize,
    mode: Mode,
    /// The high half of a pair of surrogates that waits for its low one.
    high: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Plain,
    Escape,
    /// Digits of `\u` so far.
    Unicode(u8, u16),
    /// Bytes of a character to come, and the range of the next one.
    Utf8(u8, u8, u8),
}

const PLAIN: Text = Text { is_name: false, length: 0, mode: Mode::Plain, high: None };

impl Scanner {
    /// At the beginning of a text.
    #[must_use]
    pub fn new(limits: JsonLimits) -> Self {
        Self {
            limits,
            state: State::Value,
            open: Vec::new(),
            objects: 0,
            names: HashSet::new(),
            hasher: RandomState::new(),
            name: Vec::new(),
            string: PLAIN,
            at: 0,
        }
    }

    /// Judges a whole text.
    pub fn judge(limits: JsonLimits, text: &[u8]) -> Result<(), Fault> {
        let mut scanner = Self::new(limits);
        scanner.push(text)?;
        scanner.finish()
    }

    /// Judges the next piece.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), Fault> {
        let mut rest = piece;
        while let Some((byte, after)) = rest.split_first() {
            if self.state == State::Text && self.string.mode == Mode::Plain && self.string.high.is_none() {
                // The common run within a string: nothing but its length counts.
                let run = rest.iter().take_while(|byte| matches!(byte, 0x20..0x7f) && !matches!(byte, b'"' | b'\\'));
                let run = run.count();
                if run > 0 {
                    let (plain, after) = rest.split_at_checked(run).unwrap_or((rest, &[]));
                    self.lengthen(plain)?;
                    self.at += run as u64;
                    rest = after;
                    continue;
                }
            }
            self.byte(*byte)?;
            self.at += 1;
            rest = after;
        }
        Ok(())
    }

    /// Judges the end.
    pub fn finish(mut self) -> Result<(), Fault> {
        if let State::Number(number) = self.state {
            self.end_number(number)?;
        }
        if self.state == State::Done { Ok(()) } else { self.wrong("it ends too early") }
    }

    fn byte(&mut self, byte: u8) -> Result<(), Fault> {
        match self.state {
            State::Text => return self.text(byte),
            State::Word(rest) => return self.word(byte, rest),
            State::Number(number) => {
                if let Some(next) = number.next(byte) {
                    self.state = State::Number(next);
                    return Ok(());
                }
                self.end_number(number)?;
            }
            _ => {}
        }
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            return Ok(());
        }
        match (self.state, byte) {
            (State::ValueOrEnd, b']') | (State::NameOrEnd, b'}') => self.close(),
            (State::Value | State::ValueOrEnd, _) => return self.value(byte),
            (State::Name | State::NameOrEnd, b'"') => {
                self.name.clear();
                self.string = Text { is_name: true, ..PLAIN };
                self.state = State::Text;
            }
            (State::Name | State::NameOrEnd, _) => return self.wrong("a name in double quotes is expected"),
            (State::Colon, b':') => self.state = State::Value,
            (State::Colon, _) => return self.wrong("a colon is expected"),
            (State::Comma, b',') => {
                let in_object = self.open.last().is_some_and(Option::is_some);
                self.state = if in_object { State::Name } else { State::Value };
            }
            (State::Comma, b'}') if self.open.last().is_some_and(Option::is_some) => self.close(),
            (State::Comma, b']') if self.open.last().is_some_and(Option::is_none) => self.close(),
            (State::Comma, _) => return self.wrong("a comma or the closing bracket is expected"),
            (State::Done, _) => return self.wrong("something follows the value"),
            (State::Text | State::Number(_) | State::Word(_), _) => return self.wrong("not a value"),
        }
        Ok(())
    }

    fn value(&mut self, byte: u8) -> Result<(), Fault> {
        self.state = match byte {
            b'{' => {
                self.objects = self.objects.wrapping_add(1);
                return self.enter(Some(self.objects), State::NameOrEnd);
            }
            b'[' => return self.enter(None, State::ValueOrEnd),
            b'"' => {
                self.string = PLAIN;
                State::Text
            }
            b't' => State::Word(b"rue"),
            b'f' => State::Word(b"alse"),
            b'n' => State::Word(b"ull"),
            b'-' => State::Number(Number::Minus),
            b'0' => State::Number(Number::Zero),
            b'1'..=b'9' => State::Number(Number::Digits),
            0xef => return self.wrong("a byte order mark is no part of JSON"),
            _ => return self.wrong("a value is expected"),
        };
        Ok(())
    }

    fn enter(&mut self, object: Option<u32>, state: State) -> Result<(), Fault> {
        if self.open.len() >= self.limits.depth {
            return Err(Fault::Depth(self.limits.depth));
        }
        self.open.push(object);
        self.state = state;
        Ok(())
    }

    fn close(&mut self) {
        self.open.pop();
        self.end_value();
    }

    fn end_value(&mut self) {
        self.state = if self.open.is_empty() { State::Done } else { State::Comma };
    }

    fn word(&mut self, byte: u8, rest: &'static [u8]) -> Result<(), Fault> {
        match rest.split_first() {
            Some((expected, rest)) if *expected == byte => {
                if rest.is_empty() {
                    self.end_value();
                } else {
                    self.state = State::Word(rest);
                }
                Ok(())
            }
            _ => self.wrong("a value is expected"),
        }
    }

    fn end_number(&mut self, number: Number) -> Result<(), Fault> {
        if !matches!(number, Number::Zero | Number::Digits | Number::Fraction | Number::Power) {
            return self.wrong("a number is cut short");
        }
        self.end_value();
        Ok(())
    }

    fn text(&mut self, byte: u8) -> Result<(), Fault> {
        if self.string.high.is_some() && self.string.mode == Mode::Plain && byte != b'\\' {
            return self.wrong("half a pair of surrogates");
        }
        match self.string.mode {
            Mode::Plain => match byte {
                b'"' => return self.end_text(),
                b'\\' => {
                    self.string.mode = Mode::Escape;
                    self.lengthen(&[])?;
                }
                0..0x20 => return self.wrong("a control character within a string"),
                0x20..0x80 => self.lengthen(&[byte])?,
                // The table of well-formed sequences (RFC 3629 §4).
                0xc2..=0xdf => self.begin_character(byte, 1, 0x80, 0xbf)?,
                0xe0 => self.begin_character(byte, 2, 0xa0, 0xbf)?,
                0xe1..=0xec | 0xee | 0xef => self.begin_character(byte, 2, 0x80, 0xbf)?,
                0xed => self.begin_character(byte, 2, 0x80, 0x9f)?,
                0xf0 => self.begin_character(byte, 3, 0x90, 0xbf)?,
                0xf1..=0xf3 => self.begin_character(byte, 3, 0x80, 0xbf)?,
                0xf4 => self.begin_character(byte, 3, 0x80, 0x8f)?,
                _ => return self.wrong("not UTF-8"),
            },
            Mode::Utf8(left, least, most) => {
                if !(least..=most).contains(&byte) {
                    return self.wrong("not UTF-8");
                }
                self.string.mode = if left > 1 { Mode::Utf8(left - 1, 0x80, 0xbf) } else { Mode::Plain };
                self.lengthen(&[byte])?;
            }
            Mode::Escape => return self.escape(byte),
            Mode::Unicode(digits, value) => {
                let Some(digit) = char::from(byte).to_digit(16) else { return self.wrong("not an escape of JSON") };
                let value = (value << 4) | u16::try_from(digit).unwrap_or_default();
                if digits < 3 {
                    self.string.mode = Mode::Unicode(digits + 1, value);
                } else {
                    self.string.mode = Mode::Plain;
                    return self.unit(value);
                }
            }
        }
        Ok(())
    }

    fn begin_character(&mut self, byte: u8, left: u8, least: u8, most: u8) -> Result<(), Fault> {
        self.string.mode = Mode::Utf8(left, least, most);
        self.lengthen(&[byte])
    }

    fn escape(&mut self, byte: u8) -> Result<(), Fault> {
        let meant = match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                self.string.mode = Mode::Unicode(0, 0);
                return Ok(());
            }
            _ => return self.wrong("not an escape of JSON"),
        };
        if self.string.high.is_some() {
            return self.wrong("half a pair of surrogates");
        }
        self.string.mode = Mode::Plain;
        self.lengthen(&[meant])
    }

    /// A UTF-16 unit of an escape (RFC 8259 §7).
    fn unit(&mut self, unit: u16) -> Result<(), Fault> {
        let units = match (self.string.high.take(), unit) {
            (None, 0xd800..=0xdbff) => {
                self.string.high = Some(unit);
                return Ok(());
            }
            (Some(high), low) => [high, low],
            (None, unit) => [unit, 0],
        };
        let length = if (0xd800..0xdc00).contains(&units[0]) { 2 } else { 1 };
        match char::decode_utf16(units.into_iter().take(length)).next() {
            Some(Ok(character)) => self.lengthen(character.encode_utf8(&mut [0; 4]).as_bytes()),
            _ => self.wrong("half a pair of surrogates"),
        }
    }

    fn lengthen(&mut self, decoded: &[u8]) -> Result<(), Fault> {
        self.string.length += decoded.len();
        if self.string.length > self.limits.string {
            return Err(Fault::String(self.limits.string));
        }
        if self.string.is_name {
            self.name.extend_from_slice(decoded);
        }
        Ok(())
    }

    fn end_text(&mut self) -> Result<(), Fault> {
        if !self.string.is_name {
            self.end_value();
            return Ok(());
        }
        if self.names.len() >= self.limits.keys {
            return Err(Fault::Keys(self.limits.keys));
        }
        let object = self.open.last().copied().flatten().unwrap_or_default();
        if !self.names.insert((object, self.hasher.hash_one(&self.name))) {
            return Err(Fault::Duplicate(self.at));
        }
        self.state = State::Colon;
        Ok(())
    }

    fn wrong<T>(&self, why: &'static str) -> Result<T, Fault> {
        Err(Fault::Syntax(self.at, why))
    }
}

impl Number {
    /// Where the grammar goes from here; `None` where the number ends.
    const fn next(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Minus, b'0') => Self::Zero,
            (Self::Minus, b'1'..=b'9') | (Self::Digits, b'0'..=b'9') => Self::Digits,
            (Self::Zero | Self::Digits, b'.') => Self::Point,
            (Self::Point | Self::Fraction, b'0'..=b'9') => Self::Fraction,
            (Self::Zero | Self::Digits | Self::Fraction, b'e' | b'E') => Self::Exponent,
            (Self::Exponent, b'+' | b'-') => Self::Sign,
            (Self::Exponent | Self::Sign | Self::Power, b'0'..=b'9') => Self::Power,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: JsonLimits = JsonLimits { depth: 4, keys: 6, string: 8 };

    #[track_caller]
    fn check(text: impl AsRef<[u8]>, expected: Result<(), &str>) {
        let text = text.as_ref();
        let whole = Scanner::judge(LIMITS, text);
        let mut scanner = Scanner::new(LIMITS);
        let in_pieces = text.iter().try_for_each(|byte| scanner.push(&[*byte])).and_then(|()| scanner.finish());
        assert_eq!(whole, in_pieces, "{:?}", String::from_utf8_lossy(text));
        match (whole, expected) {
            (Ok(()), Ok(())) => {}
            (Err(fault), Err(part)) if fault.to_string().contains(part) => {}
            (found, _) => panic!("{:?}: {found:?} is not {expected:?}", String::from_utf8_lossy(text)),
        }
    }

    #[test]
    fn takes_json_and_nothing_else() {
        for text in ["{}", " [ ] ", "null", "-0.5e+7", "0", "\"\"", r#"{"a":[1,{"b":true}],"c":"\u00e9\ud83d\ude00"}"#]
        {
            check(text, Ok(()));
        }
        for text in ["", "  ", "{", "[1", "\"a", "tru", "-", "1.", "1e", "1e+"] {
            check(text, Err("not JSON"));
        }
        for text in ["01", "[1,]", "{\"a\":1,}", "{a:1}", "{\"a\" 1}", "[1}", "{\"a\":1]", "nul!", "+1", ".5", "'a'"] {
            check(text, Err("not JSON"));
        }
        check("{} {}", Err("something follows"));
        check("1 2", Err("something follows"));
        check("[1]x", Err("something follows"));
        check(b"\xef\xbb\xbf{}", Err("byte order mark"));
    }

    #[test]
    fn strings_have_one_reading() {
        check("\"a\nb\"", Err("control character"));
        check("\"\\x\"", Err("not an escape"));
        check("\"\\u12g4\"", Err("not an escape"));
        check(b"\"\xff\"", Err("not UTF-8"));
        check(b"\"\xc0\xaf\"", Err("not UTF-8"));
        check(b"\"\xed\xa0\x80\"", Err("not UTF-8"));
        check(b"\"\xe2\x82\"", Err("not UTF-8"));
        check("\"\\ud800\"", Err("surrogates"));
        check("\"\\ud800x\"", Err("surrogates"));
        check("\"\\ud800\\n\"", Err("surrogates"));
        check("\"\\udc00\"", Err("surrogates"));
        check("\"\\ud800\\u0041\"", Err("surrogates"));
        check("\"ü€😀\"", Err("longer than 8"));
        check("\"ü€\"", Ok(()));
    }

    #[test]
    fn limits_hold_and_names_are_unique_after_decoding() {
        check("[[[[]]]]", Ok(()));
        check("[[[[[]]]]]", Err("deeper than 4"));
        check(r#"{"a":{"a":{"a":1}},"b":{"a":2}}"#, Ok(()));
        check(r#"{"a":1,"a":2}"#, Err("stands twice"));
        check(r#"{"a":1,"\u0061":2}"#, Err("stands twice"));
        check(r#"{"1":1,"2":1,"3":1,"4":1,"5":1,"6":1}"#, Ok(()));
        check(r#"{"1":1,"2":1,"3":1,"4":1,"5":1,"6":1,"7":1}"#, Err("more than 6 keys"));
        check("\"12345678\"", Ok(()));
        check("\"123456789\"", Err("longer than 8"));
        check("{\"123456789\":1}", Err("longer than 8"));
    }

    #[test]
    fn a_hundred_thousand_levels_cost_no_more_than_the_limit() {
        let limits = JsonLimits { depth: 64, ..LIMITS };
        let mut scanner = Scanner::new(limits);
        let deep = vec![b'['; 100_000];
        assert_eq!(scanner.push(&deep), Err(Fault::Depth(64)));
        assert_eq!(scanner.open.len(), 64);
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json_wherever_it_is_cut(text in "[\\[\\]{}:,\"a1e.\\-\\\\u0 tn]{0,24}", cut in 0usize..24) {
            let limits = JsonLimits { depth: 100, keys: 100, string: 100 };
            let mut scanner = Scanner::new(limits);
            let (left, right) = text.as_bytes().split_at(cut.min(text.len()));
            let found = scanner.push(left).and_then(|()| scanner.push(right)).and_then(|()| scanner.finish());
            let parsed = serde_json::from_str::<serde_json::Value>(&text);
            match found {
                Ok(()) => prop_assert!(parsed.is_ok() || text.contains('e'), "{text}: {parsed:?}"),
                Err(Fault::Duplicate(_)) => prop_assert!(parsed.is_ok()),
                Err(_) => prop_assert!(parsed.is_err(), "{text}: {found:?}"),
            }
        }
    }
}
