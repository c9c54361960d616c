//! What a decision needs from outside before it can be made: a plain question, and the plain answer that the engine brings.
//!
//! A stage that needs an answer returns its question and is asked again once the answer lies in the exchange; it then goes
//! on at the policy that asked, and what had been decided before is not decided twice. Nothing here waits: `engine::ask`
//! does, for at most what the question allows and no longer than the request itself may last.

use crate::policy::auth;
pub use crate::policy::auth::{FORWARD_METHOD, ForwardAnswer, ForwardCall, KeyRing, KeySource, PasswordCheck};

/// A question to the outside.
#[derive(Debug)]
pub enum Inquiry {
    /// Of `auth`.
    Auth(auth::Question),
}

/// What `auth` asks.
pub use crate::policy::auth::{Question as AuthQuestion, Reply as AuthReply};

/// Its answer. Not to have got one in time is an answer too: the policy that asked says what follows from it.
#[derive(Debug)]
pub enum Reply {
    /// To [`Inquiry::Auth`].
    Auth(auth::Reply),
}
