//! The answers to what the gateway would ask while it runs: found out where that needs nobody else, else supposed.

use http::{HeaderMap, StatusCode};

use crate::pipeline::inquiry::{AuthQuestion, AuthReply, ForwardAnswer, Inquiry, Reply};

/// The answer, and what is to be said of it where it is only supposed.
pub(super) fn to(inquiry: Inquiry) -> (Reply, Option<&'static str>) {
    match inquiry {
        Inquiry::Auth(AuthQuestion::Keys { .. }) => (
            Reply::Auth(AuthReply::Keys(false)),
            Some(
                "the gateway would fetch the issuer's keys now; explain fetches nothing, so the token can't be verified",
            ),
        ),
        Inquiry::Auth(AuthQuestion::Password { check, .. }) => {
            (Reply::Auth(AuthReply::Password(Some(check.run()))), None)
        }
        Inquiry::Auth(AuthQuestion::Forward(_)) => {
            let answer = ForwardAnswer { status: StatusCode::OK, headers: HeaderMap::new() };
            let note = "the service of auth.forward is supposed to answer 200 without further fields";
            (Reply::Auth(AuthReply::Forward(Some(answer))), Some(note))
        }
    }
}
