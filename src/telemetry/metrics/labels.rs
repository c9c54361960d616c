//! The closed sets that stand as label values: what a series may be called is decided here and nowhere else.
//!
//! Nothing that a client or an upstream sends becomes a label value: unknown methods are `other`, unregistered status
//! codes are their class (`4xx`).

use http::{Method, StatusCode};

use crate::model::outcome::Outcome;
use crate::telemetry::label::label;

label! {
    /// How a connection or a stream ended without becoming a request that a route could be found for.
    NonRequest {
        /// Bytes that are not HTTP, or HTTP that RFC 9112 §3 and §5 tell us to refuse before there is a request.
        ParseError => "parse_error",
        /// The head was larger than `limits.header_size` or had more fields than `limits.header_count`.
        HeadTooLarge => "head_too_large",
        /// The head was not complete within `limits.header_timeout`.
        HeaderTimeout => "header_timeout",
        /// The TLS handshake failed: no common version, bad certificate, not TLS at all.
        TlsFailure => "tls_failure",
        /// The TLS handshake was not complete within `limits.handshake_timeout`.
        HandshakeTimeout => "handshake_timeout",
        /// HTTP/2 broke off: preface, SETTINGS, or a protocol error of the connection (RFC 9113 §5.4.1).
        Http2Error => "http2_error",
        /// `CONNECT`, which a reverse proxy does not offer (RFC 9110 §9.3.6).
        Connect => "connect",
        /// The client closed before it had sent a whole head.
        ClientGone => "client_gone",
        /// A keep-alive connection was closed by us after `limits.idle_timeout`.
        IdleClose => "idle_close",
    }
}

label! {
    /// Why a listener turned a connection away before it read from it.
    Refused {
        /// `limits.connections` was reached.
        ConnectionLimit => "connection_limit",
        /// The process or the system had no file descriptor or memory left for it.
        Resources => "resources",
        /// The gateway is draining.
        Draining => "draining",
    }
}

label! {
    /// How a TLS handshake ended.
    Handshake {
        /// With a full exchange of certificates.
        Full => "full",
        /// By resuming a session (RFC 8446 §2.2).
        Resumed => "resumed",
        /// Not at all; [`NonRequest`] says why.
        Failed => "failed",
    }
}

label! {
    /// How the resolution of an upstream's name ended.
    Resolution {
        /// With at least one address.
        Resolved => "resolved",
        /// The name does not exist or has no address.
        NotFound => "not_found",
        /// No server answered in time.
        Timeout => "timeout",
        /// Any other failure.
        Failed => "failed",
    }
}

label! {
    /// How a fetch of an issuer's keys ended.
    KeyRefresh {
        /// The keys are in use.
        Fetched => "fetched",
        /// There was no answer, or no keys in it; those at hand go on.
        Failed => "failed",
    }
}

label! {
    /// How a reload ended.
    Reload {
        /// The new configuration is in force.
        Applied => "applied",
        /// It was refused; the old one stays in force.
        Refused => "refused",
    }
}

label! {
    /// A request method as a label; methods are case-sensitive (RFC 9110 §9.1).
    MethodLabel {
        /// `GET`
        Get => "GET",
        /// `HEAD`
        Head => "HEAD",
        /// `POST`
        Post => "POST",
        /// `PUT`
        Put => "PUT",
        /// `DELETE`
        Delete => "DELETE",
        /// `PATCH`
        Patch => "PATCH",
        /// `OPTIONS`
        Options => "OPTIONS",
        /// `CONNECT`
        Connect => "CONNECT",
        /// `TRACE`
        Trace => "TRACE",
        /// Any other method.
        Other => "other",
    }
}

impl From<&Method> for MethodLabel {
    fn from(method: &Method) -> Self {
        match *method {
            Method::GET => Self::Get,
            Method::HEAD => Self::Head,
            Method::POST => Self::Post,
            Method::PUT => Self::Put,
            Method::DELETE => Self::Delete,
            Method::PATCH => Self::Patch,
            Method::OPTIONS => Self::Options,
            Method::CONNECT => Self::Connect,
            Method::TRACE => Self::Trace,
            _ => Self::Other,
        }
    }
}

/// The values of the `code` label: registered status codes, then the classes for all others.
///
/// 499 is not registered; it is what gateways count when the client went away before there was a response.
pub(super) const CODES: [&str; 70] = [
    "100", "101", "102", "103", "200", "201", "202", "203", "204", "205", "206", "207", "208", "226", "300", "301",
    "302", "303", "304", "305", "307", "308", "400", "401", "402", "403", "404", "405", "406", "407", "408", "409",
    "410", "411", "412", "413", "414", "415", "416", "417", "418", "421", "422", "423", "424", "425", "426", "428",
    "429", "431", "451", "499", "500", "501", "502", "503", "504", "505", "506", "507", "508", "510", "511", "1xx",
    "2xx", "3xx", "4xx", "5xx", "other", "none",
];

/// The index in [`CODES`] of "no response was begun".
const NO_RESPONSE: u8 = 69;

/// From `status - 100` to the index in [`CODES`].
const CODE_INDEX: [u8; 500] = code_index();

/// The index in [`CODES`] of a response's status; `None` stands for a request that ended without a response.
pub(super) fn code_label(status: Option<StatusCode>) -> usize {
    const OTHER: u8 = 68;
    let Some(status) = status else { return usize::from(NO_RESPONSE) };
    let from_100 = usize::from(status.as_u16()).saturating_sub(100);
    usize::from(CODE_INDEX.get(from_100).copied().unwrap_or(OTHER))
}

#[expect(clippy::indexing_slicing, reason = "evaluated at compile time: an index out of bounds does not compile")]
#[expect(clippy::cast_possible_truncation, reason = "the table has 70 entries")]
const fn code_index() -> [u8; 500] {
    const FIRST_CLASS: usize = 63;
    let mut index = [0; 500];
    let mut offset = 0;
    while offset < 500 {
        index[offset] = (FIRST_CLASS + offset / 100) as u8;
        offset += 1;
    }
    let mut known = 0;
    while known < FIRST_CLASS {
        let digits = CODES[known].as_bytes();
        let code = (digits[0] - b'0') as usize * 100 + (digits[1] - b'0') as usize * 10 + (digits[2] - b'0') as usize;
        index[code - 100] = known as u8;
        known += 1;
    }
    index
}

/// The index of an outcome in [`Outcome::LABELS`].
pub(super) fn outcome_label(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Status(status) => match status.as_u16() / 100 {
            class @ 1..=5 => usize::from(class) - 1,
            _ => 5,
        },
        Outcome::Connect => 6,
        Outcome::Reset => 7,
        Outcome::Timeout(_) => 8,
        Outcome::Invalid => 9,
        Outcome::ClientGone => 10,
        Outcome::Superseded => 11,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::deadline::Limit;
    use crate::model::verdict::{Code, PolicyName, Verdict};

    fn code(status: u16) -> &'static str {
        CODES[code_label(StatusCode::from_u16(status).ok())]
    }

    #[test]
    fn registered_codes_are_themselves_and_others_are_their_class() {
        for status in 100..=599 {
            let registered = StatusCode::from_u16(status).expect("in range").canonical_reason().is_some();
            if registered || status == 499 {
                assert_eq!(code(status), status.to_string());
            } else {
                assert_eq!(code(status), format!("{}xx", status / 100));
            }
        }
        assert_eq!((code(420), code(599), code(777)), ("4xx", "5xx", "other"));
        assert_eq!(CODES[code_label(None)], "none");
    }

    #[test]
    fn outcomes_land_on_their_own_label() {
        let outcomes = [
            Outcome::Status(StatusCode::CONTINUE),
            Outcome::Status(StatusCode::OK),
            Outcome::Status(StatusCode::FOUND),
            Outcome::Status(StatusCode::NOT_FOUND),
            Outcome::Status(StatusCode::BAD_GATEWAY),
            Outcome::Status(StatusCode::from_u16(999).expect("three digits")),
            Outcome::Connect,
            Outcome::Reset,
            Outcome::Timeout(Limit::Attempt),
            Outcome::Invalid,
            Outcome::ClientGone,
            Outcome::Superseded,
        ];
        for outcome in outcomes {
            assert_eq!(Outcome::LABELS[outcome_label(outcome)], outcome.as_str());
        }
    }

    #[test]
    fn the_models_enums_list_their_values_in_order() {
        assert!(Code::ALL.iter().enumerate().all(|(index, code)| *code as usize == index));
        assert!(PolicyName::ALL.iter().enumerate().all(|(index, policy)| *policy as usize == index));
        assert!(Verdict::ALL.iter().enumerate().all(|(index, verdict)| *verdict as usize == index));
    }

    #[test]
    fn a_method_nobody_registered_is_other() {
        let odd = Method::from_bytes(b"BREW").expect("a token");
        assert_eq!(MethodLabel::from(&odd), MethodLabel::Other);
        let lower = Method::from_bytes(b"get").expect("a token");
        assert_eq!(MethodLabel::from(&lower), MethodLabel::Other, "methods are case-sensitive");
    }
}
