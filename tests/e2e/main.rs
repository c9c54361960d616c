//! The gateway from outside: its binary, real sockets, real clients, an upstream that follows a script.
//!
//! A file per feature; the name of a test states the rule. Nothing here knows the gateway's code: what is asserted is the
//! contract that an operator, a client and an upstream rely on. Nothing sleeps to wait for something: tests await the
//! event itself, with a bound that only a broken gateway meets.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the fences keep sockets and files out of decisions; here they are the point"
)]

// `cfg(test)` tells clippy that all of it is test code, where unwrap and indexing are allowed
#[cfg(test)]
mod harness;

#[cfg(test)]
mod access_log;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod health;
#[cfg(test)]
mod http2;
#[cfg(test)]
mod hygiene;
#[cfg(test)]
mod identity;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod policies;
#[cfg(test)]
mod rate_limits;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod retries;
#[cfg(test)]
mod fallbacks;
#[cfg(test)]
mod guards;
#[cfg(test)]
mod routing;
#[cfg(test)]
mod shared_limits;
#[cfg(test)]
mod slow_clients;
#[cfg(test)]
mod toxic;
#[cfg(test)]
mod strictness;
#[cfg(test)]
mod upgrades;
#[cfg(test)]
mod upstreams;
#[cfg(test)]
mod validation;
