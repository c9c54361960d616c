//! Evidence: what the gateway tells of its work, in numbers ([`metrics`]), in a line per request ([`access_log`]) and in
//! words for its operator ([`program_log`]).
//!
//! Nothing in here decides anything about a request, and nothing in here makes a request wait: counters are relaxed
//! atomics, log lines are handed over in batches and dropped, and counted, when their destination does not keep up.

use std::io;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::toggle::Toggle;

mod label;

pub mod access_log;
pub mod metrics;
pub mod program_log;

use access_log::AccessLog;
use metrics::Metrics;
use program_log::ProgramLog;

/// What the gateway tells of its work. Metrics need no setting: they are at `/metrics` of the admin address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Telemetry")]
#[serde(default)]
pub struct Config {
    /// The program log.
    pub log: program_log::Config,
    /// A line for each request; `false` for none. On by default, as JSON on standard output.
    pub access_log: Toggle<access_log::Config>,
}

impl Default for Config {
    fn default() -> Self {
        Self { log: program_log::Config::default(), access_log: Toggle::Switch(true) }
    }
}

/// Telemetry can't be started or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program log was refused.
    #[error(transparent)]
    ProgramLog(#[from] program_log::Error),
    /// The access log's destination was refused.
    #[error(transparent)]
    AccessLog(#[from] access_log::OpenError),
    /// The access log's writer has no thread.
    #[error("access log can't start its writer: {0}")]
    Writer(#[source] io::Error),
}

/// The telemetry of the process. Made once, before the first listener; changed at each reload.
pub struct Telemetry {
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// A line per request.
    pub access_log: AccessLog,
    /// Words for the operator.
    pub program_log: ProgramLog,
}

impl Telemetry {
    /// Sets everything up; the access log gets a lane for each worker.
    pub fn start(config: &Config, workers: usize) -> Result<Self, Error> {
        let program_log = ProgramLog::start(&config.log)?;
        let metrics = Metrics::new();
        let access_log = AccessLog::start(workers, Arc::clone(&metrics)).map_err(Error::Writer)?;
        let telemetry = Self { metrics, access_log, program_log };
        telemetry.apply(config, telemetry.prepare(config)?)?;
        Ok(telemetry)
    }

    /// The part of a change that can fail, before the configuration is in force: opens the access log.
    pub fn prepare(&self, config: &Config) -> Result<access_log::Prepared, Error> {
        Ok(self.access_log.prepare(config.access_log.resolved().as_ref())?)
    }

    /// Goes on with another configuration and what was prepared for it.
    pub fn apply(&self, config: &Config, prepared: access_log::Prepared) -> Result<(), Error> {
        self.program_log.apply(&config.log)?;
        self.access_log.apply(prepared);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(toml: &str, access_log: Option<&access_log::Config>) {
        let config: Config = toml::from_str(toml).expect("a configuration");
        assert_eq!(config.access_log.resolved().as_ref(), access_log);
    }

    #[test]
    fn the_access_log_is_on_unless_it_is_switched_off() {
        check("", Some(&access_log::Config::default()));
        check("access_log = false", None);
        check("access_log = true", Some(&access_log::Config::default()));
        let format = access_log::Format::Combined;
        check("access_log = { format = \"combined\" }", Some(&access_log::Config { format, ..Default::default() }));
    }
}
