//! One spelling for each path, so that what is matched is what the upstream will read (RFC 3986 §6.2).
//!
//! Decides the canonical form of the path of a request target, and which paths have none: unreserved
//! percent-encodings are decoded, the hex digits of the others are upper case, dot segments are removed, duplicate
//! slashes stay. A path that is canonical already is borrowed after one scan.
//!
//! It never decides whether an [`Evasion`] is refused: that is the route's word (`raw_path`), and the route is only
//! known once the path is. It never sees the query and never decodes a reserved character.

use std::borrow::Cow;

/// A path in canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canonical<'a> {
    /// Begins with `/`, is ASCII and has no dot segment. Borrowed when the raw path was canonical already.
    pub path: Cow<'a, str>,
    /// What the raw path tried, if anything: refused with 400 unless the route says `raw_path = true`, in which case
    /// the raw path goes upstream untouched.
    pub evasion: Option<Evasion>,
}

/// What a gateway and an upstream commonly read differently. The first one of a path is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Evasion {
    /// `..` above the root. The canonical path stays at the root, as RFC 3986 §5.2.4 has it.
    ClimbsAboveRoot,
    /// `%2F`
    EncodedSlash,
    /// `%5C`
    EncodedBackslash,
    /// `%00`
    EncodedNul,
}

impl Evasion {
    /// Why the path is refused: lower case, no full stop.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClimbsAboveRoot => "the path climbs above the root",
            Self::EncodedSlash => "the path hides a slash behind percent-encoding",
            Self::EncodedBackslash => "the path hides a backslash behind percent-encoding",
            Self::EncodedNul => "the path hides a NUL behind percent-encoding",
        }
    }
}

/// Why a path is refused whatever the route says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PathRefusal {
    /// It does not begin with `/`.
    NotAbsolute,
    /// `\`, which some servers take for `/`.
    Backslash,
    /// A control character, NUL and DEL included.
    Control,
    /// A space.
    Space,
    /// A byte above 127.
    NonAscii,
    /// `#`: a fragment is no part of a request target (RFC 9112 §3.2).
    Fragment,
    /// `?`: the caller splits the query off first.
    Query,
    /// `%` without two hex digits.
    MalformedPercent,
}

impl PathRefusal {
    /// Why the path is refused: lower case, no full stop.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotAbsolute => "the path does not begin with a slash",
            Self::Backslash => "the path has a backslash",
            Self::Control => "the path has a control character",
            Self::Space => "the path has a space",
            Self::NonAscii => "the path has a byte that is not ASCII",
            Self::Fragment => "the path has a fragment",
            Self::Query => "the path has a query",
            Self::MalformedPercent => "the path has a percent sign without two hex digits",
        }
    }
}

/// The canonical form of `raw`, the path of a request target without its query. The empty path is `/` (RFC 3986 §6.2.3).
pub fn canonical(raw: &[u8]) -> Result<Canonical<'_>, PathRefusal> {
    let path = std::str::from_utf8(raw).map_err(|_| PathRefusal::NonAscii)?;
    match raw {
        [] => return Ok(Canonical { path: Cow::Borrowed("/"), evasion: None }),
        [b'/', ..] => {}
        _ => return Err(PathRefusal::NotAbsolute),
    }
    if is_plain(raw) {
        return Ok(Canonical { path: Cow::Borrowed(path), evasion: None });
    }
    let scan = scan(raw)?;
    if !scan.differs {
        return Ok(Canonical { path: Cow::Borrowed(path), evasion: scan.evasion });
    }
    let (path, climbs) = rewrite(path);
    let evasion = scan.evasion.or(climbs.then_some(Evasion::ClimbsAboveRoot));
    Ok(Canonical { path: Cow::Owned(path), evasion })
}

/// Whether nothing in the path needs a second look. Most paths are; two loops without a branch, for wide registers.
fn is_plain(raw: &[u8]) -> bool {
    let odd = |byte: &u8| !matches!(byte, 0x21..=0x7e) | matches!(byte, b'%' | b'\\' | b'#' | b'?');
    let dot = |(byte, next): (&u8, &u8)| *byte == b'/' && *next == b'.';
    !raw.iter().fold(false, |any, byte| any | odd(byte))
        && !raw.iter().zip(raw.iter().skip(1)).fold(false, |any, pair| any | dot(pair))
}

struct Scan {
    differs: bool,
    evasion: Option<Evasion>,
}

fn scan(raw: &[u8]) -> Result<Scan, PathRefusal> {
    let mut scan = Scan { differs: false, evasion: None };
    let mut rest = raw;
    loop {
        rest = match rest {
            [] => return Ok(scan),
            [b'/', after @ ..] => {
                scan.differs |= matches!(after, [b'.'] | [b'.', b'/', ..] | [b'.', b'.'] | [b'.', b'.', b'/', ..]);
                after
            }
            [b'%', high, low, after @ ..] => {
                let byte = unhex(*high).zip(unhex(*low)).ok_or(PathRefusal::MalformedPercent)?;
                let byte = byte.0 << 4 | byte.1;
                scan.differs |= is_unreserved(byte) || high.is_ascii_lowercase() || low.is_ascii_lowercase();
                scan.evasion = scan.evasion.or(hidden(byte));
                after
            }
            [b'%', ..] => return Err(PathRefusal::MalformedPercent),
            [byte, after @ ..] => {
                refuse(*byte)?;
                after
            }
        }
    }
}

/// RFC 3986 §5.2.4 and §6.2.2 on a path that [`scan`] let pass; also whether it climbs above the root.
fn rewrite(path: &str) -> (String, bool) {
    let mut out = String::with_capacity(path.len());
    let mut climbs = false;
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let start = out.len();
        out.push('/');
        decode(segment, &mut out);
        match out.get(start..) {
            Some("/.") => out.truncate(start),
            Some("/..") => {
                out.truncate(start);
                match out.rfind('/') {
                    Some(parent) => out.truncate(parent),
                    None => climbs = true,
                }
            }
            _ => continue,
        }
        if segments.peek().is_none() {
            out.push('/');
        }
    }
    (out, climbs)
}

fn decode(segment: &str, out: &mut String) {
    let mut rest = segment.as_bytes();
    loop {
        rest = match rest {
            [] => return,
            [b'%', high, low, after @ ..] => {
                match unhex(*high).zip(unhex(*low)).map(|(high, low)| high << 4 | low) {
                    Some(byte) if is_unreserved(byte) => out.push(char::from(byte)),
                    _ => out.extend(['%', char::from(high.to_ascii_uppercase()), char::from(low.to_ascii_uppercase())]),
                }
                after
            }
            [byte, after @ ..] => {
                out.push(char::from(*byte));
                after
            }
        }
    }
}

fn refuse(byte: u8) -> Result<(), PathRefusal> {
    match byte {
        b'\\' => Err(PathRefusal::Backslash),
        b' ' => Err(PathRefusal::Space),
        b'#' => Err(PathRefusal::Fragment),
        b'?' => Err(PathRefusal::Query),
        0x00..0x20 | 0x7f => Err(PathRefusal::Control),
        0x80.. => Err(PathRefusal::NonAscii),
        _ => Ok(()),
    }
}

const fn hidden(byte: u8) -> Option<Evasion> {
    match byte {
        b'/' => Some(Evasion::EncodedSlash),
        b'\\' => Some(Evasion::EncodedBackslash),
        0 => Some(Evasion::EncodedNul),
        _ => None,
    }
}

/// RFC 3986 §2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// The value of a hex digit.
pub(super) const fn unhex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(raw: &str, path: &str, evasion: Option<Evasion>) {
        let canonical = canonical(raw.as_bytes()).unwrap_or_else(|refusal| panic!("{raw}: {}", refusal.as_str()));
        assert_eq!((canonical.path.as_ref(), canonical.evasion), (path, evasion), "{raw}");
        assert_eq!(matches!(canonical.path, Cow::Borrowed(_)), raw == path || raw.is_empty(), "borrowed: {raw}");
    }

    #[track_caller]
    fn check_refused(raw: &[u8], refusal: PathRefusal) {
        assert_eq!(canonical(raw), Err(refusal), "{raw:?}");
    }

    #[test]
    fn a_canonical_path_is_borrowed() {
        for path in [
            "/",
            "/orders",
            "/orders/",
            "/a//b",
            "//a",
            "/.well-known/x",
            "/...",
            "/a.b",
            "/a/..b",
            "/a/.b./",
            "/%20%C3%A9",
        ] {
            check(path, path, None);
        }
        check("", "/", None);
    }

    #[test]
    fn unreserved_encodings_are_decoded_and_the_others_upper_cased() {
        check("/%7Euser/%41%2d%5F", "/~user/A-_", None);
        check("/caf%c3%a9", "/caf%C3%A9", None);
        check("/a%3fb%23c%25d", "/a%3Fb%23c%25d", None);
        check("/%252e%252e/", "/%252e%252e/", None);
    }

    #[test]
    fn dot_segments_are_removed() {
        check("/a/./b", "/a/b", None);
        check("/a/../b", "/b", None);
        check("/a/b/..", "/a/", None);
        check("/a/b/.", "/a/b/", None);
        check("/a//../b", "/a/b", None);
        check("/a/%2e%2E/b", "/b", None);
        check("/a/.%2e", "/", None);
        check("/.", "/", None);
        check("/mid/content=5/../6", "/mid/6", None);
    }

    #[test]
    fn a_path_that_climbs_out_stays_at_the_root_and_says_so() {
        check("/..", "/", Some(Evasion::ClimbsAboveRoot));
        check("/../etc/passwd", "/etc/passwd", Some(Evasion::ClimbsAboveRoot));
        check("/a/../../b", "/b", Some(Evasion::ClimbsAboveRoot));
        check("/%2e%2e/a", "/a", Some(Evasion::ClimbsAboveRoot));
        check("/a/../..", "/", Some(Evasion::ClimbsAboveRoot));
    }

    #[test]
    fn hidden_delimiters_stay_encoded_and_are_named() {
        check("/a%2Fb", "/a%2Fb", Some(Evasion::EncodedSlash));
        check("/a%2fb", "/a%2Fb", Some(Evasion::EncodedSlash));
        check("/a%5cb", "/a%5Cb", Some(Evasion::EncodedBackslash));
        check("/a%00", "/a%00", Some(Evasion::EncodedNul));
        check("/..%2F..", "/..%2F..", Some(Evasion::EncodedSlash));
        check("/a/..%5C/../..", "/", Some(Evasion::EncodedBackslash));
    }

    #[test]
    fn what_no_target_may_hold_is_refused() {
        check_refused(b"orders", PathRefusal::NotAbsolute);
        check_refused(b"*", PathRefusal::NotAbsolute);
        check_refused(b"/a\\b", PathRefusal::Backslash);
        check_refused(b"/a\tb", PathRefusal::Control);
        check_refused(b"/a\x7f", PathRefusal::Control);
        check_refused(b"/a\0", PathRefusal::Control);
        check_refused(b"/a b", PathRefusal::Space);
        check_refused("/é".as_bytes(), PathRefusal::NonAscii);
        check_refused(b"/\xff", PathRefusal::NonAscii);
        check_refused(b"/a#b", PathRefusal::Fragment);
        check_refused(b"/a?b", PathRefusal::Query);
        check_refused(b"/%zz", PathRefusal::MalformedPercent);
        check_refused(b"/%4", PathRefusal::MalformedPercent);
        check_refused(b"/%", PathRefusal::MalformedPercent);
        check_refused(b"/%%41", PathRefusal::MalformedPercent);
    }

    fn pieces() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "/", "/", "/", ".", "..", "%2e", "%2E", "%2f", "%5C", "%00", "%25", "%41", "%c3", "a", "b", "~", ";", "*",
            "%", "\\",
        ]);
        prop::collection::vec(piece, 0..24).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    proptest! {
        #[test]
        fn canonical_form_is_idempotent_and_free_of_dot_segments(raw in pieces()) {
            if let Ok(once) = canonical(raw.as_bytes()) {
                prop_assert!(once.path.starts_with('/'));
                prop_assert!(!once.path.split('/').any(|segment| segment == "." || segment == ".."));
                prop_assert!(once.path.len() <= raw.len());
                let twice = canonical(once.path.as_bytes()).expect("a canonical path is accepted");
                prop_assert!(matches!(twice.path, Cow::Borrowed(_)));
                prop_assert_eq!(&twice.path, &once.path);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(raw in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(canonical) = canonical(&raw) {
                prop_assert!(canonical.path.is_ascii());
            }
        }

        #[test]
        fn a_path_without_a_second_look_is_one_that_survives_it(raw in "/[a.%/4?# ~-]{0,12}") {
            if is_plain(raw.as_bytes()) {
                let scan = scan(raw.as_bytes()).map(|scan| (scan.differs, scan.evasion));
                prop_assert_eq!(scan, Ok((false, None)));
            }
        }
    }
}
