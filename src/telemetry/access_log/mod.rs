//! The access log: a line for each request, and for what never became one, off the request path.
//!
//! A line is formatted into the buffer of its lane ([`Lane`], one for each worker); full buffers go to one writer
//! thread through a queue that is bounded in bytes. A destination that is slow, full or gone never makes a request
//! wait: lines without room are dropped and counted (`portcullis_access_log_dropped_total`).
//! Credentials are never written: there is no field for them, and parameters of the query that look like them are
//! hidden.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::metrics::Metrics;

#[expect(clippy::disallowed_types, reason = "the access log's files are opened here and nowhere else")]
mod destination;
mod entry;
mod formats;
mod queue;
mod redact;
mod text;
#[expect(clippy::disallowed_methods, reason = "the writer's own thread waits for its destination")]
mod writer;

pub use entry::{AttemptEntry, Entry};
pub use formats::Format;

use destination::Destination;
use queue::{Item, Limits, Shared};

/// No line is longer than this, whatever a client sends.
pub const LONGEST_LINE: usize = 192 * 1024;

/// The access log. `access_log = false` switches it off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "AccessLog")]
#[serde(default)]
pub struct Config {
    /// The file that lines are appended to, or `-` for standard output. It is created when it does not exist, readable
    /// by its owner and group, and opened anew on SIGHUP.
    pub path: String,
    /// How a line looks.
    pub format: Format,
}

impl Default for Config {
    fn default() -> Self {
        Self { path: "-".to_owned(), format: Format::default() }
    }
}

/// The destination of the access log can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("access log can't be opened: {path}: {source}")]
pub struct OpenError {
    /// The path of the setting.
    pub path: String,
    /// Why.
    pub source: io::Error,
}

/// The access log of the process. Off until [`AccessLog::apply`].
pub struct AccessLog {
    shared: Arc<Shared>,
    format: Arc<Switch>,
}

/// A destination that was opened for a configuration which is not in force yet.
pub struct Prepared {
    format: Option<Format>,
    destination: Option<Box<dyn Destination>>,
}

impl AccessLog {
    /// Starts the writer. There should be as many lanes as workers.
    pub fn start(lanes: usize, metrics: Arc<Metrics>) -> io::Result<Self> {
        Self::with_limits(lanes, metrics, Limits::default())
    }

    fn with_limits(lanes: usize, metrics: Arc<Metrics>, limits: Limits) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(lanes, limits, metrics));
        let of_writer = Arc::clone(&shared);
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || writer::run(&of_writer))?;
        Ok(Self { shared, format: Arc::default() })
    }

    /// Opens the destination of a configuration without using it yet, so that a bad path refuses the configuration;
    /// `None` prepares to switch the log off.
    pub fn prepare(&self, config: Option<&Config>) -> Result<Prepared, OpenError> {
        let Some(config) = config else { return Ok(Prepared { format: None, destination: None }) };
        let opened = destination::open(&config.path);
        let destination = opened.map_err(|source| OpenError { path: config.path.clone(), source })?;
        Ok(Prepared { format: Some(config.format), destination: Some(destination) })
    }

    /// Goes on with another destination and format. What was recorded before still goes to the old one.
    pub fn apply(&self, prepared: Prepared) {
        if prepared.format.is_none() {
            self.format.set(None);
        }
        self.shared.push(Item::Switch(prepared.destination));
        self.format.set(prepared.format);
    }

    /// The lane of a worker. Workers may share one; they then wait for each other while a line is formatted.
    #[must_use]
    pub fn lane(&self, worker: usize) -> Lane {
        Lane { shared: Arc::clone(&self.shared), format: Arc::clone(&self.format), index: worker }
    }

    /// Opens the destination anew: what a log rotation asks for with SIGHUP.
    pub fn reopen(&self) {
        self.shared.push(Item::Reopen);
    }

    /// Waits until everything that was recorded before is written; `false` when `timeout` was over first.
    #[must_use]
    pub fn flush(&self, timeout: Duration) -> bool {
        self.shared.wait_for(self.shared.mark(), timeout)
    }

    /// Writes everything that was recorded and ends the writer; `false` when `timeout` was over first. Lines recorded
    /// afterwards are dropped. A destination that fails now is not tried again.
    #[must_use]
    pub fn flush_and_close(&self, timeout: Duration) -> bool {
        self.format.set(None);
        self.shared.wait_for(self.shared.close(), timeout)
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.format.set(None);
        self.shared.close();
    }
}

/// A worker's way into the access log. Cheap to clone.
#[derive(Clone)]
pub struct Lane {
    shared: Arc<Shared>,
    format: Arc<Switch>,
    index: usize,
}

impl Lane {
    /// Whether lines are written at all, for callers whose entry costs something to make.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.format.get().is_some()
    }

    /// Records a line. Never waits for the destination.
    pub fn record(&self, entry: &Entry<'_>) {
        if let Some(format) = self.format.get() {
            self.shared.record(self.index, format, entry);
        }
    }
}

/// The format in force, or off; read without a lock.
#[derive(Debug, Default)]
struct Switch(AtomicU8);

impl Switch {
    fn get(&self) -> Option<Format> {
        match self.0.load(Ordering::Relaxed) {
            1 => Some(Format::Json),
            2 => Some(Format::Common),
            3 => Some(Format::Combined),
            _ => None,
        }
    }

    fn set(&self, format: Option<Format>) {
        let number = match format {
            None => 0,
            Some(Format::Json) => 1,
            Some(Format::Common) => 2,
            Some(Format::Combined) => 3,
        };
        self.0.store(number, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
