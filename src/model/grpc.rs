//! The status codes of gRPC, and how they stand beside those of HTTP.
//!
//! gRPC puts its own status into the trailers; a call that fails at once has it in the only head of the response
//! ("trailers-only", gRPC over HTTP/2, "Responses"). Messages and streams are none of our business.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};

/// `grpc-status`.
pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// `grpc-message`.
pub const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// `grpc-timeout`.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

macro_rules! codes {
    ($($variant:ident = $number:literal $name:literal;)+) => {
        /// A status of a gRPC call.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "the names are gRPC's own, and their meaning is in its documentation")]
        pub enum GrpcCode {
            $($variant = $number,)+
        }

        impl GrpcCode {
            /// The name in the configuration and in logs.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The code of that number.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)+ _ => None }
            }
        }

        impl FromStr for GrpcCode {
            type Err = ();

            fn from_str(written: &str) -> Result<Self, ()> {
                match written { $($name => Ok(Self::$variant),)+ _ => Err(()) }
            }
        }
    };
}

codes! {
    Ok = 0 "ok";
    Cancelled = 1 "cancelled";
    Unknown = 2 "unknown";
    InvalidArgument = 3 "invalid_argument";
    DeadlineExceeded = 4 "deadline_exceeded";
    NotFound = 5 "not_found";
    AlreadyExists = 6 "already_exists";
    PermissionDenied = 7 "permission_denied";
    ResourceExhausted = 8 "resource_exhausted";
    FailedPrecondition = 9 "failed_precondition";
    Aborted = 10 "aborted";
    OutOfRange = 11 "out_of_range";
    Unimplemented = 12 "unimplemented";
    Internal = 13 "internal";
    Unavailable = 14 "unavailable";
    DataLoss = 15 "data_loss";
    Unauthenticated = 16 "unauthenticated";
}

impl fmt::Display for GrpcCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl GrpcCode {
    /// Whether it speaks against the server that said it, and not against the call.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::Unknown | Self::DeadlineExceeded | Self::Internal | Self::Unavailable)
    }

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The status in the head of a response: that of a call that failed at once.
    #[must_use]
    pub fn of_head(headers: &HeaderMap) -> Option<Self> {
        Self::from_number(headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()?)
    }

    /// What a refusal with that HTTP status says to a gRPC client ("HTTP to gRPC Status Code Mapping", with the
    /// gateway's own knowledge where that mapping has only "unavailable" or "unknown").
    #[must_use]
    pub fn of_refusal(status: StatusCode) -> Self {
        match status.as_u16() {
            400 | 431 => Self::Internal,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 | 405 => Self::Unimplemented,
            408 | 504 => Self::DeadlineExceeded,
            413 | 429 => Self::ResourceExhausted,
            502 | 503 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }
}

/// Whether a message belongs to gRPC, by its content type.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    const PREFIX: &[u8] = b"application/grpc";
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type.and_then(|value| value.get(..PREFIX.len())).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

/// The time that a call may take, as its client says: at most eight digits and a unit (gRPC over HTTP/2, "Timeout").
/// `None` for what is not written so.
#[must_use]
pub fn timeout(value: &HeaderValue) -> Option<Duration> {
    let (unit, digits) = value.as_bytes().split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount = digits.iter().fold(0_u64, |amount, digit| amount * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(amount * 3600),
        b'M' => Duration::from_secs(amount * 60),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// A timeout in the finest unit that its eight digits can hold, rounded down.
#[must_use]
pub fn timeout_value(left: Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999;
    let units =
        [(left.as_nanos(), 'n'), (left.as_micros(), 'u'), (left.as_millis(), 'm'), (u128::from(left.as_secs()), 'S')];
    let text = units.into_iter().find(|(amount, _)| *amount <= MOST).map_or_else(
        || format!("{}H", (left.as_secs() / 3600).min(99_999_999)),
        |(amount, unit)| format!("{amount}{unit}"),
    );
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("0n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(written: &'static str, read: Option<Duration>) {
        assert_eq!(timeout(&HeaderValue::from_static(written)), read, "{written}");
    }

    #[test]
    fn a_timeout_has_digits_and_a_unit() {
        check("1H", Some(Duration::from_hours(1)));
        check("2M", Some(Duration::from_mins(2)));
        check("5S", Some(Duration::from_secs(5)));
        check("100m", Some(Duration::from_millis(100)));
        check("99999999u", Some(Duration::from_micros(99_999_999)));
        check("7n", Some(Duration::from_nanos(7)));
        for bad in ["", "S", "5", "5s", "123456789S", "-1S", "1.5S", " 5S", "5 S", "+5S"] {
            check(bad, None);
        }
    }

    #[test]
    fn a_timeout_is_written_as_finely_as_it_fits() {
        for (left, text) in [
            (Duration::from_nanos(7), "7n"),
            (Duration::from_millis(99), "99000000n"),
            (Duration::from_millis(100), "100000u"),
            (Duration::from_secs(200), "200000m"),
            (Duration::from_secs(200_000), "200000S"),
            (Duration::from_hours(1_000_000), "1000000H"),
        ] {
            let written = timeout_value(left);
            assert_eq!(written, text);
            assert!(timeout(&written).expect("valid") <= left, "never longer than it was");
        }
    }

    #[test]
    fn names_and_numbers_agree() {
        for number in 0..=16 {
            let code = GrpcCode::from_number(number).expect("a code");
            assert_eq!((code.number(), code.as_str().parse()), (number, Ok(code)));
        }
        assert_eq!(GrpcCode::from_number(17), None);
    }

    #[test]
    fn the_status_of_a_head_is_a_number() {
        let head = |value| HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_static(value))]);
        assert_eq!(GrpcCode::of_head(&head("14")), Some(GrpcCode::Unavailable));
        assert_eq!(GrpcCode::of_head(&head("x")), None);
        assert_eq!(GrpcCode::of_head(&HeaderMap::new()), None);
    }
}
