//! The `portcullis` program: arguments to `cli`, and its answer to an exit code.

fn main() {}
