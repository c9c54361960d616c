//! The `portcullis` program: arguments to `cli`, and its answer to an exit code.

use std::process::ExitCode;

/// Chosen by measurement: see bench/RESULTS.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // First of all: with two providers compiled in, a builder used before this would panic.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        return ExitCode::from(2);
    }
    portcullis::cli::main()
}
