//! `portcullis check FILE…`

use std::path::PathBuf;

use super::{Format, Outcome, color, data};
use crate::control::configuration::{self, Surroundings};
use crate::snapshot::tls::bundled_roots;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Configuration files, or folders of them.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// For people or for programs.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

pub(super) fn check(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let roots = bundled_roots();
    let mut outcome = Outcome::Ok;
    let mut findings = Vec::new();
    for file in &arguments.files {
        let mut read = configuration::read(file);
        let good = read.compile(&Surroundings { previous: None, roots: &roots, demo: None }).is_some();
        if !good {
            outcome = Outcome::Refused;
        }
        match arguments.format {
            Format::Text => data(&read.text(color(&std::io::stdout()))),
            Format::Json => findings.push(serde_json::json!({
                "file": file, "ok": good, "diagnostics": read.json(),
            })),
        }
    }
    if arguments.format == Format::Json {
        data(&format!("{}\n", serde_json::to_string_pretty(&findings)?));
    }
    Ok(outcome)
}
