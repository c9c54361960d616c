//! What is still to be judged of a request once its head is: the body, whole or on its way.

use std::sync::Arc;

use super::config::OverBuffer;
use super::json::{Fault, JsonLimits, Scanner};
use super::media::{self, Kind, MediaType};
use super::openapi::BodyRule;
use super::refusals::{invalid, unsupported};
use super::{Rules, judge_any};
use crate::model::units::ByteSize;
use crate::model::verdict::{Admission, Code, Mode, PolicyName, Rejection};
use crate::model::violation::{Place, Violations};

/// What is to be done with a body before, or while, it goes upstream.
#[derive(Debug)]
pub struct BodyTask {
    pub(super) media: Option<MediaType>,
    pub(super) limits: JsonLimits,
    pub(super) mode: Mode,
    /// `None`: only the limits of JSON hold.
    pub(super) judge: Option<Judge>,
}

#[derive(Debug)]
pub(super) struct Judge {
    pub(super) rules: Arc<Rules>,
    pub(super) target: Target,
    pub(super) required: bool,
    pub(super) accepted: Vec<String>,
    pub(super) buffer: u64,
    pub(super) over: OverBuffer,
}

/// What judges a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Operation(usize, BodyRule),
    Schema,
}

impl BodyTask {
    /// How many bytes are held to be judged; `None` when the body is only scanned on its way.
    #[must_use]
    pub fn collects(&self) -> Option<u64> {
        self.judge.as_ref().map(|judge| judge.buffer)
    }

    /// Scans JSON on its way, for a body that is not held; `None` for one that is no JSON.
    #[must_use]
    pub fn scanner(&self) -> Option<Scanner> {
        self.media.as_ref().filter(|media| media.kind() == Kind::Json).map(|_| Scanner::new(self.limits))
    }

    /// The body has ended, or has as many bytes as are held and more to come.
    #[must_use]
    pub fn judge(&self, body: &[u8], is_whole: bool) -> Admission {
        let Some(Judge { rules, target, required, accepted, buffer, over }) = &self.judge else {
            return Admission::allow(PolicyName::Validate, "the body is scanned on its way");
        };
        if !is_whole {
            return match over {
                OverBuffer::Stream => {
                    Admission::unjudged(PolicyName::Validate, "the body is too long to be judged by its schema")
                }
                OverBuffer::Reject => {
                    let detail =
                        format!("the body is longer than {}, which is as much as can be judged", ByteSize(*buffer));
                    let rejection = Rejection::new(Code::BodyTooLarge, detail);
                    let reason = format!("longer than validate.buffer, {buffer} bytes");
                    Admission::refuse(PolicyName::Validate, self.mode, reason, rejection)
                }
            };
        }
        let mut violations = Violations::default();
        if body.is_empty() {
            if *required {
                violations.push(Place::Body, "", "is required");
                return invalid(self.mode, violations);
            }
            return Admission::allow(PolicyName::Validate, "there is no body");
        }
        let Some(media) = &self.media else {
            let names: Vec<&str> = accepted.iter().map(String::as_str).collect();
            let names = if names.is_empty() { vec!["application/json"] } else { names };
            let reason = "a body without a content type";
            return Admission::refuse(PolicyName::Validate, self.mode, reason, unsupported(&names));
        };
        match (rules.as_ref(), target) {
            (Rules::OpenApi { description, .. }, Target::Operation(operation, BodyRule::Judge(content))) => {
                description.judge_body(*operation, *content, media, body, self.limits, &mut violations);
            }
            (Rules::Schemas { body: Some(part), .. }, Target::Schema) => {
                if let Some(values) = media::read(media, body, &part.shape, self.limits, &mut violations) {
                    judge_any(part, &values, Place::Body, &mut violations);
                }
            }
            _ => {}
        }
        if violations.is_empty() {
            return Admission::allow(PolicyName::Validate, "the body fits its schema");
        }
        invalid(self.mode, violations)
    }

    /// The scanner has found something on the way.
    #[must_use]
    pub fn fault(&self, fault: Fault) -> Admission {
        let mut violations = Violations::default();
        violations.push(Place::Body, "", &format!("can't be taken: {fault}"));
        invalid(self.mode, violations)
    }

    /// Whether what is found refuses the request.
    #[must_use]
    pub const fn is_enforced(&self) -> bool {
        matches!(self.mode, Mode::Enforce)
    }
}
