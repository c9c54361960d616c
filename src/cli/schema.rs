//! `portcullis schema`

use clap::ValueEnum;

use super::{Outcome, data};
use crate::config::reference;
use crate::control::configuration::{CONSUMERS, SCHEMA};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What to print.
    #[arg(long, value_enum, default_value = "json-schema")]
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// JSON Schema, for editors.
    JsonSchema,
    /// JSON Schema of the consumers file.
    Consumers,
    /// The reference manual in Markdown.
    Markdown,
}

pub(super) fn schema(arguments: &Arguments) -> anyhow::Result<Outcome> {
    match arguments.form {
        Form::JsonSchema => data(&format!("{}\n", serde_json::to_string_pretty(&SCHEMA.published())?)),
        Form::Consumers => data(&format!("{}\n", serde_json::to_string_pretty(&CONSUMERS.published())?)),
        Form::Markdown => data(&format!(
            "{}{}",
            reference::markdown(&SCHEMA),
            reference::markdown(&CONSUMERS).replacen("## Top level", "## The consumers file", 1)
        )),
    }
    Ok(Outcome::Ok)
}
