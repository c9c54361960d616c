//! What a decision needs from outside before it can be made: a plain question, and the plain answer that the engine brings.
//!
//! A stage that needs an answer returns its question and is asked again once the answer lies in the exchange; it then goes
//! on at the policy that asked, and what had been decided before is not decided twice. Nothing here waits: `engine::ask`
//! does, for at most what the question allows and no longer than the request itself may last.

/// A question to the outside.
#[derive(Debug)]
pub enum Inquiry {}

/// Its answer. Not to have got one in time is an answer too: the policy that asked says what follows from it.
#[derive(Debug)]
pub enum Reply {}
