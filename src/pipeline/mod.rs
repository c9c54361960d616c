//! The stages of a request, in their fixed order: each takes the snapshot and the exchange and returns a verdict.
//!
//! `receive → route → admit → body → attempt → judge → respond`, and `fail` for every refusal; `pursuit` orders attempts. The
//! engine applies what they say, and brings the answers that [`inquiry`] asks for; `explain` and the tests run the very same
//! functions.

pub mod admit;
pub mod attempt;
pub mod body;
pub mod exchange;
pub mod fail;
pub mod inquiry;
pub mod judge;
pub mod pursuit;
pub mod receive;
pub mod respond;
pub mod route;
