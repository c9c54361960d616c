//! `portcullis explain URL`

use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use serde_json::Value as Json;

use super::{ConfigPath, Format, Outcome, color, data, talk};
use crate::control::configuration::{self, Surroundings};
use crate::explain::{Question, State, Supposed, explain};
use crate::model::clock::Now;
use crate::snapshot::tls::bundled_roots;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigPath,
    /// Method of the request. Default: GET, or POST with a body.
    #[arg(short = 'X', long)]
    method: Option<Method>,
    /// A field of the request, as in 'x-tenant: 7'.
    #[arg(short = 'H', long, value_name = "FIELD", value_parser = field)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// Length of the request's body in bytes.
    #[arg(long, value_name = "BYTES")]
    body_length: Option<u64>,
    /// A file that is the request's body, at most 64 MiB: its length counts, and what `validate` says of it.
    #[arg(long, value_name = "FILE", conflicts_with = "body_length")]
    body: Option<PathBuf>,
    /// The request's body itself.
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["body", "body_length"])]
    body_text: Option<String>,
    /// The address that connects.
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    client: IpAddr,
    /// It connects over TLS, whatever the URL says.
    #[arg(long)]
    tls: bool,
    /// Status of the upstream's response. Default: 200, or 101 for an upgrade.
    #[arg(long, value_name = "STATUS", value_parser = clap::value_parser!(u16).range(101..=599))]
    response_status: Option<u16>,
    /// A field of the upstream's response. Default: 'content-type: application/json'.
    #[arg(long, value_name = "FIELD", value_parser = field)]
    response_header: Vec<(HeaderName, HeaderValue)>,
    /// Length of the upstream's response in bytes. Default: not known in advance.
    #[arg(long, value_name = "BYTES")]
    response_length: Option<u64>,
    /// States that upstreams are in: `breaker=open`, `breaker=half_open`, `concurrency=full`, `endpoints=none`,
    /// `budget=spent`, `attempt=connect` (or `reset`, `timeout`, `invalid`, a status); for one upstream alone with its
    /// name before it, as in `standby/breaker=open`. Several with commas.
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    state: Vec<State>,
    /// Asks so many times, with a clock that stands still, and shows the last answer: what rate limits come to.
    #[arg(long, value_name = "TIMES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    repeat: u32,
    /// For people or for programs.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Absolute URL of the request, such as `http://api.example.com/orders/7`.
    #[arg(value_parser = absolute)]
    url: Uri,
}

fn field(written: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = written.split_once(':').ok_or("a field is written as 'name: value'")?;
    let name = name.trim().parse().map_err(|_| format!("not a field name: {name:?}"))?;
    let value = value.trim().parse().map_err(|_| "a forbidden byte in the value".to_owned())?;
    Ok((name, value))
}

fn absolute(written: &str) -> Result<Uri, String> {
    let is_absolute = |url: &Uri| matches!(url.scheme_str(), Some("http" | "https")) && url.authority().is_some();
    let url = written.parse().ok().filter(is_absolute);
    url.ok_or_else(|| "not an absolute URL: write http://HOST/PATH or https://HOST/PATH".to_owned())
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let question = question(arguments)?;
    let mut read = configuration::read(&arguments.config.path());
    let roots = bundled_roots();
    let snapshot = read.compile(&Surroundings { previous: None, roots: &roots, demo: None });
    if !read.diagnostics.as_slice().is_empty() {
        talk(&read.text(color(&std::io::stderr())));
    }
    let Some(snapshot) = snapshot else { return Ok(Outcome::Refused) };
    let report = explain(snapshot, &question);
    match arguments.format {
        Format::Text => data(&read.without_secrets(report.to_string())),
        Format::Json => {
            let mut json = serde_json::to_value(&report)?;
            each_string(&mut json, &|text| read.without_secrets(text));
            data(&format!("{}\n", serde_json::to_string_pretty(&json)?));
        }
    }
    Ok(Outcome::Ok)
}

fn question(arguments: &Arguments) -> anyhow::Result<Question> {
    let content = match (&arguments.body, &arguments.body_text) {
        (Some(path), _) => Some(read(path)?),
        (None, text) => text.clone().map(Bytes::from),
    };
    let body = content.as_ref().map(|content| content.len() as u64).or(arguments.body_length);
    let by_body = if body.is_some() { Method::POST } else { Method::GET };
    Ok(Question {
        method: arguments.method.clone().unwrap_or(by_body),
        url: arguments.url.clone(),
        headers: map(&arguments.header),
        body,
        content,
        client: arguments.client,
        tls: arguments.tls,
        now: Now { unix: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?, ..Now::default() },
        response: Supposed {
            status: arguments.response_status.map(StatusCode::from_u16).transpose()?,
            headers: map(&arguments.response_header),
            length: arguments.response_length,
        },
        repeat: arguments.repeat,
        states: arguments.state.clone(),
    })
}

fn read(path: &Path) -> anyhow::Result<Bytes> {
    const MOST: u64 = 64 << 20;
    let unreadable = || format!("can't read {}", path.display());
    anyhow::ensure!(
        std::fs::metadata(path).with_context(unreadable)?.is_file(),
        "not a regular file: {}",
        path.display()
    );
    let mut content = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MOST + 1).read_to_end(&mut content))
        .with_context(unreadable)?;
    anyhow::ensure!(content.len() as u64 <= MOST, "longer than 64 MiB: {}", path.display());
    Ok(content.into())
}

fn map(fields: &[(HeaderName, HeaderValue)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(name.clone(), value.clone());
    }
    map
}

fn each_string(json: &mut Json, change: &dyn Fn(String) -> String) {
    match json {
        Json::String(text) => *text = change(std::mem::take(text)),
        Json::Array(items) => items.iter_mut().for_each(|item| each_string(item, change)),
        Json::Object(entries) => entries.values_mut().for_each(|item| each_string(item, change)),
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}
