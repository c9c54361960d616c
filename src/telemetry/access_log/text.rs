//! How values become bytes of a line: escaped, bounded, without an intermediate string.
//!
//! Everything that a client sends passes through [`Escape`], whose output holds no control character and no quote that
//! would end the field: a request can't forge a line, a field or a terminal sequence.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::Offset;

/// How a format writes bytes that it can't write as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escape {
    /// RFC 8259 §7; bytes that are not UTF-8 become U+FFFD, also control characters beyond ASCII are escaped.
    Json,
    /// `\xHH`, as nginx does, for quotes, backslashes and everything that is not printable ASCII.
    Hex,
}

impl Escape {
    /// Writes all of `bytes`.
    pub(super) fn push(self, out: &mut Vec<u8>, bytes: &[u8]) {
        let mut rest = bytes;
        loop {
            let (head, tail) = rest.split_at(plain_length(rest));
            out.extend_from_slice(head);
            let Some((first, after)) = tail.split_first() else { return };
            rest = match self {
                Self::Hex => {
                    push_hex(out, *first);
                    after
                }
                Self::Json if first.is_ascii() => {
                    push_json_ascii(out, *first);
                    after
                }
                Self::Json => {
                    let end = tail.iter().position(u8::is_ascii).unwrap_or(tail.len());
                    let (beyond_ascii, after) = tail.split_at(end);
                    push_json_beyond_ascii(out, beyond_ascii);
                    after
                }
            };
        }
    }

    /// Writes at most `most` bytes of `bytes`, and a mark with the length of the rest.
    pub(super) fn push_at_most(self, out: &mut Vec<u8>, bytes: &[u8], most: usize) {
        let (head, cut) = bounded(bytes, most);
        self.push(out, head);
        push_cut(out, cut);
    }
}

/// How many bytes from the start on can be written as they are. Looks at a block at a time without a branch for each
/// byte, because almost all bytes of almost all lines are plain.
fn plain_length(bytes: &[u8]) -> usize {
    const BLOCK: usize = 16;
    let all_plain = |block: &&[u8]| block.iter().fold(true, |all, byte| all & is_plain(*byte));
    let blocks = bytes.chunks_exact(BLOCK).take_while(all_plain).count() * BLOCK;
    let rest = bytes.iter().skip(blocks);
    blocks + rest.take_while(|byte| is_plain(**byte)).count()
}

/// Printable ASCII except the quote and the backslash: the same in every format.
#[expect(
    clippy::needless_bitwise_bool,
    reason = "without branches, the compiler looks at a block with vector instructions"
)]
const fn is_plain(byte: u8) -> bool {
    (byte >= 0x20) & (byte < 0x7f) & (byte != b'"') & (byte != b'\\')
}

fn push_hex(out: &mut Vec<u8>, byte: u8) {
    out.extend_from_slice(b"\\x");
    out.extend([byte >> 4, byte & 0xf].map(hex_digit));
}

const fn hex_digit(nibble: u8) -> u8 {
    match nibble {
        0..=9 => b'0' + nibble,
        _ => b'a' + (nibble - 10),
    }
}

fn push_json_ascii(out: &mut Vec<u8>, byte: u8) {
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ => push_json_unit(out, u16::from(byte)),
    }
}

fn push_json_unit(out: &mut Vec<u8>, unit: u16) {
    let [high, low] = unit.to_be_bytes();
    out.extend_from_slice(b"\\u");
    out.extend([high >> 4, high & 0xf, low >> 4, low & 0xf].map(hex_digit));
}

fn push_json_beyond_ascii(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match u16::try_from(u32::from(character)) {
                Ok(unit) if reorders_or_controls(unit) => push_json_unit(out, unit),
                _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// C1 controls, line separators and the marks that turn the direction of text: legal in JSON, but a terminal or an
/// editor would show the line other than it is.
const fn reorders_or_controls(unit: u16) -> bool {
    matches!(unit, 0x80..=0x9f | 0x200e | 0x200f | 0x2028..=0x202e | 0x2066..=0x2069)
}

/// The first `most` bytes, without a character cut in two, and how many bytes are left out.
pub(super) fn bounded(bytes: &[u8], most: usize) -> (&[u8], usize) {
    let Some((head, rest)) = bytes.split_at_checked(most) else { return (bytes, 0) };
    if rest.is_empty() {
        return (bytes, 0);
    }
    let torn = match rest.first() {
        Some(0x80..=0xbf) => head.iter().rev().take(3).take_while(|byte| matches!(**byte, 0x80..=0xbf)).count() + 1,
        _ => 0,
    };
    let (head, _) = head.split_at(head.len().saturating_sub(torn));
    (head, bytes.len() - head.len())
}

/// The mark that something was left out.
pub(super) fn push_cut(out: &mut Vec<u8>, cut: usize) {
    if cut > 0 {
        out.extend_from_slice(b"...(+");
        push_number(out, cut as u64);
        out.extend_from_slice(b" bytes)");
    }
}

/// A number in decimal.
pub(super) fn push_number(out: &mut Vec<u8>, number: u64) {
    if let Ok(digit @ 0..=9) = u8::try_from(number) {
        out.push(b'0' + digit);
        return;
    }
    let mut digits = [0; 20];
    let mut left = number;
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit = last_digit(left);
        left /= 10;
        used += 1;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.split_at(digits.len() - used).1);
}

/// A duration in milliseconds with three decimal places.
pub(super) fn push_millis(out: &mut Vec<u8>, duration: Duration) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    push_number(out, micros / 1_000);
    out.push(b'.');
    push_three_digits(out, micros);
}

/// The last three decimal digits.
fn push_three_digits(out: &mut Vec<u8>, number: u64) {
    out.extend([number / 100, number / 10, number].map(last_digit));
}

const fn last_digit(number: u64) -> u8 {
    b'0' + (number % 10) as u8
}

/// An address; an IPv4 address that came as IPv6 is shown as what it is.
pub(super) fn push_ip(out: &mut Vec<u8>, address: IpAddr) {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [first, others @ ..] = v4.octets();
            push_number(out, first.into());
            for octet in others {
                out.push(b'.');
                push_number(out, octet.into());
            }
        }
        // writing into memory can't fail
        IpAddr::V6(v6) => drop(write!(out, "{v6}")),
    }
}

/// The wall-clock time as text, in UTC. The text of a second is made once and kept; the second before it too, because
/// requests are logged when they end by the time at which they began.
#[derive(Debug, Default)]
pub(super) struct TimeText {
    even: Second,
    odd: Second,
}

impl TimeText {
    /// RFC 3339 with milliseconds, such as `2026-11-23T22:00:00.123Z`.
    pub(super) fn push_rfc3339(&mut self, out: &mut Vec<u8>, unix_nanos: u64) {
        out.extend_from_slice(self.second(unix_nanos).rfc3339.as_bytes());
        out.push(b'.');
        push_three_digits(out, unix_nanos / 1_000_000);
        out.push(b'Z');
    }

    /// The common log format's way, such as `23/Nov/2026:22:00:00 +0000`.
    pub(super) fn push_common(&mut self, out: &mut Vec<u8>, unix_nanos: u64) {
        out.extend_from_slice(self.second(unix_nanos).common.as_bytes());
    }

    fn second(&mut self, unix_nanos: u64) -> &Second {
        let second = unix_nanos / 1_000_000_000;
        let kept = if second.is_multiple_of(2) { &mut self.even } else { &mut self.odd };
        if kept.second != Some(second) {
            kept.turn_to(second);
        }
        kept
    }
}

/// One second in both notations.
#[derive(Debug, Default)]
struct Second {
    second: Option<u64>,
    rfc3339: String,
    common: String,
}

impl Second {
    fn turn_to(&mut self, second: u64) {
        const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let timestamp = i64::try_from(second).ok().and_then(|second| Timestamp::from_second(second).ok());
        let at = Offset::UTC.to_datetime(timestamp.unwrap_or(Timestamp::UNIX_EPOCH));
        let (date, time) = (at.date(), at.time());
        let (year, month, day) = (date.year(), date.month(), date.day());
        let (hour, minute, whole_second) = (time.hour(), time.minute(), time.second());
        let month_name = usize::try_from(month - 1).ok().and_then(|index| MONTHS.get(index)).unwrap_or(&"Jan");
        self.rfc3339.clear();
        self.common.clear();
        // writing into memory can't fail
        let _ = write!(self.rfc3339, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{whole_second:02}");
        let _ = write!(self.common, "{day:02}/{month_name}/{year:04}:{hour:02}:{minute:02}:{whole_second:02} +0000");
        self.second = Some(second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("what is written is UTF-8")
    }

    #[track_caller]
    fn check(bytes: &[u8], json: &str, hex: &str) {
        assert_eq!(written(|out| Escape::Json.push(out, bytes)), json);
        assert_eq!(written(|out| Escape::Hex.push(out, bytes)), hex);
    }

    #[test]
    fn escapes_what_could_end_a_field_a_line_or_the_truth() {
        check(b"plain /path?x=1", "plain /path?x=1", "plain /path?x=1");
        check(b"a\"b\\c", r#"a\"b\\c"#, r"a\x22b\x5cc");
        check(b"a\nb\r\tc", r"a\nb\r\tc", r"a\x0ab\x0d\x09c");
        check(b"\x1b[31m\x00\x7f", r"\u001b[31m\u0000\u007f", r"\x1b[31m\x00\x7f");
        check("grün €🦀".as_bytes(), "grün €🦀", r"gr\xc3\xbcn \xe2\x82\xac\xf0\x9f\xa6\x80");
        check(b"\xff\xfe.\xc3(", "\u{fffd}\u{fffd}.\u{fffd}(", r"\xff\xfe.\xc3(");
        check("\u{9b}x\u{2028}y\u{202e}z".as_bytes(), r"\u009bx\u2028y\u202ez", r"\xc2\x9bx\xe2\x80\xa8y\xe2\x80\xaez");
        check(b"", "", "");
    }

    #[test]
    fn every_byte_is_valid_json_and_printable() {
        let all: Vec<u8> = (0..=255).chain(0..=255).collect();
        let json = written(|out| Escape::Json.push(out, &all));
        serde_json::from_str::<String>(&format!("\"{json}\"")).expect("valid JSON");
        let hex = written(|out| Escape::Hex.push(out, &all));
        assert!(hex.bytes().all(|byte| matches!(byte, 0x20..=0x7e)) && !hex.contains('"'), "{hex}");
    }

    #[test]
    fn cuts_between_characters_and_says_how_much() {
        let at_most = |text: &str, most| written(|out| Escape::Json.push_at_most(out, text.as_bytes(), most));
        assert_eq!(at_most("abcdef", 6), "abcdef");
        assert_eq!(at_most("abcdef", 4), "abcd...(+2 bytes)");
        assert_eq!(at_most("ab€f", 4), "ab...(+4 bytes)");
        assert_eq!(at_most("ab€f", 5), "ab€...(+1 bytes)");
        assert_eq!(bounded(&[0x80; 8], 4), (&[][..], 8), "bytes that are no text are still bounded");
    }

    #[test]
    fn writes_numbers_durations_and_addresses() {
        let number = |number| written(|out| push_number(out, number));
        assert_eq!((number(0), number(10), number(u64::MAX)), ("0".to_owned(), "10".to_owned(), u64::MAX.to_string()));
        let millis = |nanos| written(|out| push_millis(out, Duration::from_nanos(nanos)));
        assert_eq!(
            (millis(999), millis(1_050_000), millis(61_000_000_000)),
            ("0.000".into(), "1.050".into(), "61000.000".into())
        );
        let ip = |ip: &str| written(|out| push_ip(out, ip.parse().expect("an address")));
        assert_eq!(
            (ip("192.0.2.7"), ip("2001:db8::1"), ip("::ffff:10.0.0.1")),
            ("192.0.2.7".into(), "2001:db8::1".into(), "10.0.0.1".into())
        );
    }

    #[test]
    fn the_time_follows_the_second() {
        let mut time = TimeText::default();
        let mut at =
            |nanos| (written(|out| time.push_rfc3339(out, nanos)), written(|out| time.push_common(out, nanos)));
        let check = |(rfc3339, common): (String, String), expected: (&str, &str)| {
            assert_eq!((rfc3339.as_str(), common.as_str()), expected);
        };
        check(at(1_700_000_000_001_999_999), ("2023-11-14T22:13:20.001Z", "14/Nov/2023:22:13:20 +0000"));
        check(at(1_700_000_000_999_000_000), ("2023-11-14T22:13:20.999Z", "14/Nov/2023:22:13:20 +0000"));
        check(at(1_709_164_801_000_000_000), ("2024-02-29T00:00:01.000Z", "29/Feb/2024:00:00:01 +0000"));
        check(at(0), ("1970-01-01T00:00:00.000Z", "01/Jan/1970:00:00:00 +0000"));
    }
}
