//! `portcullis hash`

use std::io::Read as _;

use anyhow::{Context, ensure};
use clap::ValueEnum;

use super::{Outcome, data};
use crate::policy::auth::{hashed_key, hashed_password};

/// More than a key or password could be.
const MAX_SECRET: u64 = 4096;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What standard input is.
    #[arg(value_enum)]
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// An API key: long and random, so a fast hash is enough.
    Key,
    /// A password, which is hashed slowly (argon2id).
    Password,
}

/// Reads the secret from standard input, where no list of processes and no history shows it.
pub(super) fn hash(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let mut secret = String::new();
    std::io::stdin().take(MAX_SECRET + 1).read_to_string(&mut secret).context("can't read standard input")?;
    let secret = secret.trim_end_matches(['\r', '\n']);
    ensure!(!secret.is_empty(), "standard input is empty");
    ensure!(secret.len() as u64 <= MAX_SECRET, "longer than {MAX_SECRET} bytes");
    let hash = match arguments.what {
        What::Key => hashed_key(secret.as_bytes()),
        What::Password => hashed_password(secret.as_bytes()).context("no randomness")?,
    };
    data(&format!("{hash}\n"));
    Ok(Outcome::Ok)
}
