//! The command line: data goes to standard output, talk to standard error.
//!
//! Exit codes: 0 ok, 1 the input was refused (a bad configuration, a request that would be refused is no reason), 2 the
//! program could not do its work.

mod admin_client;
mod check;
mod explain;
mod hash;
mod health;
mod reload;
mod run;
mod schema;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

/// The configuration that is looked for when `-c` is not given, in this order.
const DEFAULT_PATHS: [&str; 2] = ["conf/portcullis.toml", "/etc/portcullis/portcullis.toml"];

/// A reverse-proxy API gateway whose every decision can be explained, tested and audited.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 120)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "one value per process")]
enum Command {
    /// Start the gateway.
    Run(ConfigPath),
    /// Say everything that is wrong with configurations; exit code 1 when anything is.
    Check(check::Arguments),
    /// Say what the gateway would do with a request, and which settings cause it.
    Explain(explain::Arguments),
    /// Print the hash of an API key or a password, which is read from standard input, for the consumers file.
    Hash(hash::Arguments),
    /// Print the JSON Schema of the configuration, or its reference manual.
    Schema(schema::Arguments),
    /// Ask a running gateway to read its configuration again.
    Reload(AdminAddress),
    /// Ask a running gateway whether it is ready; exit code 1 when it is not.
    Health(AdminAddress),
}

#[derive(Debug, clap::Args)]
struct ConfigPath {
    /// A configuration file, or a folder of them. Default: conf/portcullis.toml, then /etc/portcullis/portcullis.toml.
    #[arg(short, long = "config", env = "PORTCULLIS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigPath {
    fn path(&self) -> PathBuf {
        if let Some(path) = &self.config {
            return path.clone();
        }
        let known = DEFAULT_PATHS.iter().map(Path::new);
        known.clone().find(|path| path.exists()).or_else(|| known.clone().next()).unwrap_or(Path::new(".")).to_owned()
    }
}

#[derive(Debug, clap::Args)]
struct AdminAddress {
    /// Address of the admin API.
    #[arg(long, env = "PORTCULLIS_ADMIN", default_value = "127.0.0.1:9901", value_name = "ADDRESS")]
    admin: String,
    /// Bearer token of the admin API, where it asks for one.
    #[arg(long, env = "PORTCULLIS_ADMIN_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
}

/// For people or for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// How a command ended, as an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Ok,
    Refused,
}

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.command {
        Command::Run(config) => run::run(&config.path()),
        Command::Check(arguments) => check::check(arguments),
        Command::Explain(arguments) => explain::run(arguments),
        Command::Hash(arguments) => hash::hash(arguments),
        Command::Schema(arguments) => schema::schema(arguments),
        Command::Reload(admin) => reload::reload(admin),
        Command::Health(admin) => health::health(admin),
    };
    match result {
        Ok(Outcome::Ok) => ExitCode::SUCCESS,
        Ok(Outcome::Refused) => ExitCode::from(1),
        Err(error) => {
            talk(&format!("portcullis: {error:#}\n"));
            ExitCode::from(2)
        }
    }
}

/// Writes data to standard output. A reader that has gone away is no error of ours.
fn data(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// Writes talk to standard error.
fn talk(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Whether to colour what goes to `stream` (<https://no-color.org>).
fn color(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
