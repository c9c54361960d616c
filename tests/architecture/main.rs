//! Rules about the shape of the source, held up by `cargo test` and not by memory.
//!
//! Fence one (clippy's disallowed types and methods) is in `clippy.toml`; `clippy_fence` shows that it bites. Fence two
//! (who may import whom, and who may do I/O) is `imports`. Fence three (stages destructure the policy set without `..`)
//! is the compiler's work, and `stages` sees that nobody opts out of it. `tidy` is the house style that a program can
//! read. Each rule is a function over source text, so that each is also shown to fail on a planted violation.

#![expect(clippy::disallowed_methods, reason = "the rules are about files, so they read files")]

// `cfg(test)` tells clippy that all of it is test code, where unwrap and indexing are allowed
#[cfg(test)]
mod clippy_fence;
#[cfg(test)]
mod imports;
#[cfg(test)]
mod source;
#[cfg(test)]
mod stages;
#[cfg(test)]
mod tidy;
