//! The words that every other module speaks: plain values, no behaviour that needs a socket, a file or the system clock.
//!
//! Nothing in here imports another module of ours. The lexicon in ARCHITECTURE.md gives each word its one meaning.

pub mod answer;
pub mod clock;
pub mod connection;
pub mod credential;
pub mod deadline;
pub mod diagnostic;
pub mod drain;
pub mod fields;
pub mod grpc;
pub mod guard;
pub mod ids;
pub mod key;
pub mod listener;
pub mod names;
pub mod outcome;
pub mod prefixes;
pub mod principal;
pub mod request;
pub mod response;
pub mod shape;
pub mod source;
pub mod spec;
pub mod target;
pub mod template;
pub mod toggle;
pub mod units;
pub mod verdict;
pub mod violation;
