//! The formats of a line, a file each. Pure: an entry and the time's text in, bytes out.

use http::Version;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::entry::Entry;
use super::text::TimeText;

mod combined;
mod common;
mod json;

/// How a line of the access log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "AccessLogFormat")]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// A JSON object per line with everything that is known; what is absent is left out.
    #[default]
    Json,
    /// The common log format: client, time, request line, status, bytes.
    Common,
    /// The common log format with referer and user agent.
    Combined,
}

impl Format {
    /// Writes one line with its end.
    pub(super) fn write(self, entry: &Entry<'_>, time: &mut TimeText, out: &mut Vec<u8>) {
        match self {
            Self::Json => json::write(entry, time, out),
            Self::Common => common::write(entry, time, out),
            Self::Combined => combined::write(entry, time, out),
        }
        out.push(b'\n');
    }
}

/// The version as a request line names it; HTTP/2 and later are written with a minor version, as nginx and Apache do,
/// because that is what parsers of these formats expect.
fn version_text(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

#[cfg(test)]
mod tests;
