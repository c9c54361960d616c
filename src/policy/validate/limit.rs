//! How long a body may be: by its declared length, and while it comes.

use crate::model::units::ByteSize;
use crate::model::verdict::{Admission, Code, Mode, PolicyName, Rejection};

/// How long the body of one request may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimit {
    pub(super) bytes: u64,
    pub(super) mode: Mode,
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
