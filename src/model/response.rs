//! The head of a response and how its body ends, independent of the HTTP version on either side.

use http::{HeaderMap, Method, StatusCode};

/// Status and fields of a response.
#[derive(Debug, Clone, Default)]
pub struct ResponseHead {
    /// Status.
    pub status: StatusCode,
    /// Fields; framing fields (`Content-Length`, `Transfer-Encoding`) are written by the engine.
    pub headers: HeaderMap,
}

/// How much body follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// None, by the rules of the protocol (HEAD, 204, 304).
    Absent,
    /// Exactly this many bytes.
    Known(u64),
    /// Until the sender says so.
    Unknown,
}

impl BodyLength {
    /// The length of a response body to a request of `method` (RFC 9110 §6.4.1), when the framing said `declared`.
    #[must_use]
    pub fn of_response(method: &Method, status: StatusCode, declared: Option<u64>) -> Self {
        let bodiless = method == Method::HEAD
            || status.is_informational()
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED;
        match declared {
            _ if bodiless => Self::Absent,
            Some(length) => Self::Known(length),
            None => Self::Unknown,
        }
    }

    /// Whether not a byte follows.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        matches!(self, Self::Absent | Self::Known(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_and_bodiless_statuses_have_no_body_whatever_is_declared() {
        let of = BodyLength::of_response;
        assert_eq!(of(&Method::HEAD, StatusCode::OK, Some(5)), BodyLength::Absent);
        assert_eq!(of(&Method::GET, StatusCode::NO_CONTENT, None), BodyLength::Absent);
        assert_eq!(of(&Method::GET, StatusCode::NOT_MODIFIED, Some(9)), BodyLength::Absent);
        assert_eq!(of(&Method::GET, StatusCode::OK, Some(5)), BodyLength::Known(5));
        assert_eq!(of(&Method::GET, StatusCode::OK, None), BodyLength::Unknown);
    }
}
