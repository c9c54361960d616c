//! What is to be judged of a response.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};

use super::openapi::{Description, Judged};
use crate::model::verdict::{Admission, Code, Mode, PolicyName, Rejection};

/// What is to be judged of a response once its body is there.
#[derive(Debug)]
pub struct ResponseTask {
    pub(super) description: Arc<Description>,
    pub(super) operation: usize,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) most: usize,
    pub(super) mode: Mode,
}

impl ResponseTask {
    /// How many bytes are held to be judged.
    #[must_use]
    pub const fn most(&self) -> usize {
        self.most
    }

    /// Whether nothing may reach the client before it is judged.
    #[must_use]
    pub const fn holds(&self) -> bool {
        matches!(self.mode, Mode::Enforce)
    }

    /// Judges a body that has come whole, or is longer than what is held.
    #[must_use]
    pub fn judge(&self, body: &[u8], is_whole: bool) -> Admission {
        if !is_whole {
            return Admission::unjudged(PolicyName::Validate, "the response is too long to be judged");
        }
        let judged = self.description.judge_response(self.operation, self.status, &self.headers, body);
        response_admission(judged, self.mode)
    }
}

pub(super) fn response_admission(judged: Judged, mode: Mode) -> Admission {
    match judged {
        Judged::Sound => Admission::allow(PolicyName::Validate, "the response is as described"),
        Judged::Unjudged => Admission::unjudged(PolicyName::Validate, "the response is no plain JSON"),
        // Its details are for the operator: the client can't mend them.
        Judged::Wrong(why) => {
            let rejection =
                Rejection::new(Code::UpstreamInvalid, "the upstream's answer is not as this API describes it");
            Admission::refuse(PolicyName::Validate, mode, format!("the response: {why}"), rejection)
        }
    }
}
