//! What a request must be like before it reaches an upstream: here, how long its body may be.
//!
//! Decides by the declared length at once, and by what has arrived while a body of unknown length streams; never buffers
//! and never reads a byte of the body itself.

use http::HeaderMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::diagnostic::Diagnostics;
use crate::model::grpc::is_grpc;
use crate::model::source::Spanned;
use crate::model::units::ByteSize;
use crate::model::verdict::{Admission, Code, Mode, PolicyName, Rejection};

/// `validate`: what a request must be like. A route that says nothing has the default limit below; `validate = false`
/// lifts it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// The longest request body. A longer one is refused with 413 `body_too_large`: at once when `Content-Length`
    /// declares it, else as soon as that many bytes have come. `"0B"` refuses every body. Default: `"10MiB"`, and no
    /// limit on upgraded connections (WebSocket) and for content types `application/grpc*`; a limit that is written
    /// holds for those as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_body: Option<Spanned<ByteSize>>,
    /// `"enforce"` refuses; `"report"` lets the request go on and counts `would_reject`.
    pub mode: Mode,
}

/// The limit of a route that says nothing.
pub const DEFAULT_MAX_BODY: ByteSize = ByteSize::mib(10);

/// The compiled limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validate {
    max_body: u64,
    is_written: bool,
    mode: Mode,
}

/// Reads the settings.
#[must_use]
pub fn compile(config: &Config, _: &mut Diagnostics) -> Option<Validate> {
    let max_body = config.max_body.map_or(DEFAULT_MAX_BODY, |written| written.value);
    Some(Validate { max_body: max_body.0, is_written: config.max_body.is_some(), mode: config.mode })
}

impl Validate {
    /// The limit on the body of this request; `None` when it has none. `upgrade`: the request asks to leave HTTP.
    #[must_use]
    pub fn body_limit(&self, headers: &HeaderMap, upgrade: bool) -> Option<BodyLimit> {
        // gRPC streams have no end by design; the protocol limits its messages itself.
        let is_exempt = !self.is_written && (upgrade || is_grpc(headers));
        (!is_exempt).then_some(BodyLimit { bytes: self.max_body, mode: self.mode })
    }
}

/// How long the body of one request may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimit {
    bytes: u64,
    mode: Mode,
}

impl BodyLimit {
    /// Judges the length that the head declares; `None` for a body whose length is not known.
    #[must_use]
    pub fn judge_declared(self, length: Option<u64>) -> Admission {
        match length {
            Some(length) if length > self.bytes => {
                self.refuse(format!("{length} bytes declared, {} allowed", self.bytes))
            }
            Some(_) => Admission::allow(PolicyName::Validate, "the body is within the limit"),
            None => Admission::allow(PolicyName::Validate, "the body is counted while it streams"),
        }
    }

    /// Judges the bytes that have come so far; `None` while they are within the limit.
    #[must_use]
    pub fn judge_received(self, received: u64) -> Option<Admission> {
        (received > self.bytes).then(|| self.refuse(format!("more than {} bytes came", self.bytes)))
    }

    /// The longest body, also in report mode.
    #[must_use]
    pub const fn bytes(self) -> ByteSize {
        ByteSize(self.bytes)
    }

    /// The number of bytes past which the body has to be cut off; `None` in report mode.
    #[must_use]
    pub const fn enforced(self) -> Option<u64> {
        match self.mode {
            Mode::Enforce => Some(self.bytes),
            Mode::Report => None,
        }
    }

    fn refuse(self, reason: String) -> Admission {
        let detail = format!("the body is longer than {}", ByteSize(self.bytes));
        Admission::refuse(PolicyName::Validate, self.mode, reason, Rejection::new(Code::BodyTooLarge, detail))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::CONTENT_TYPE;
    use proptest::prelude::*;

    use super::*;
    use crate::model::verdict::Verdict;

    fn limit(max_body: Option<&str>, content_type: &'static str, upgrade: bool) -> Option<BodyLimit> {
        let max_body = max_body.map(|size| size.parse::<ByteSize>().expect("a size").into());
        let config = Config { max_body, mode: Mode::Enforce };
        let validate = compile(&config, &mut Diagnostics::default()).expect("always");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        validate.body_limit(&headers, upgrade)
    }

    #[track_caller]
    fn check(max_body: Option<&str>, content_type: &'static str, upgrade: bool, bytes: Option<u64>) {
        assert_eq!(limit(max_body, content_type, upgrade).and_then(BodyLimit::enforced), bytes);
    }

    #[test]
    fn only_a_written_limit_holds_for_endless_streams() {
        const TEN: u64 = 10 * 1024 * 1024;
        check(None, "application/json", false, Some(TEN));
        check(None, "application/json", true, None);
        check(None, "application/grpc+proto", false, None);
        check(None, "Application/GRPC", false, None);
        check(None, "application/gr", false, Some(TEN));
        check(Some("1KiB"), "application/grpc", false, Some(1024));
        check(Some("1KiB"), "", true, Some(1024));
        check(Some("0B"), "", false, Some(0));
    }

    #[track_caller]
    fn check_length(max_body: &str, declared: Option<u64>, verdict: Verdict) {
        let admission = limit(Some(max_body), "", false).expect("written").judge_declared(declared);
        assert_eq!(admission.decision.verdict, verdict);
        assert_eq!(admission.rejection.is_some(), verdict == Verdict::Reject);
    }

    #[test]
    fn a_declared_length_is_judged_at_once() {
        check_length("1KiB", Some(1024), Verdict::Allow);
        check_length("1KiB", Some(1025), Verdict::Reject);
        check_length("1KiB", None, Verdict::Allow);
        check_length("0B", Some(0), Verdict::Allow);
        check_length("0B", Some(1), Verdict::Reject);
    }

    #[test]
    fn report_mode_cuts_nothing_off() {
        let config = Config { max_body: Some(ByteSize(1).into()), mode: Mode::Report };
        let validate = compile(&config, &mut Diagnostics::default()).expect("always");
        let limit = validate.body_limit(&HeaderMap::new(), false).expect("written");
        let admission = limit.judge_received(2).expect("over the limit");
        assert_eq!((admission.decision.verdict, admission.rejection), (Verdict::WouldReject, None));
        assert_eq!(limit.enforced(), None);
    }

    proptest! {
        #[test]
        fn what_streams_is_judged_as_what_is_declared(max in any::<u64>(), length in any::<u64>()) {
            let limit = BodyLimit { bytes: max, mode: Mode::Enforce };
            prop_assert_eq!(limit.judge_received(length).is_some(), limit.judge_declared(Some(length)).rejection.is_some());
            prop_assert_eq!(limit.judge_received(length).is_some(), length > max);
        }
    }
}
