//! The reference manual.
