//! The program log: what the gateway has to say to its operator, on standard error.
//!
//! `error`: somebody must act; `warn`: degraded; `info`: life cycle. Requests are not logged here, they go to the access
//! log; credentials are logged nowhere. An event is one line whatever it holds. Records of the `log` crate (pingora,
//! rustls) arrive here too, at the levels of `directives`: pingora reports what clients do wrong as errors, and a
//! client must not be able to fill the log.

use std::io::{self, IsTerminal as _};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::Subscriber;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, reload};

/// The environment variable that overrides the level: a level, or directives such as `info,pingora_core=debug`.
pub const VARIABLE: &str = "PORTCULLIS_LOG";

/// The program log, on standard error. The environment variable `PORTCULLIS_LOG` overrides the level: with a level, or
/// with directives for single modules such as `info,pingora_core=debug`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ProgramLog")]
#[serde(default)]
pub struct Config {
    /// The least severe events that are logged. Libraries below the gateway log warnings and errors at most.
    pub level: Level,
    /// How an event looks.
    pub format: Format,
}

/// How severe an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ProgramLogLevel")]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// An operator must act.
    Error,
    /// Something is degraded.
    Warn,
    /// Life cycle: start, reload, drain, end.
    #[default]
    Info,
    /// For those who look for a fault.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How an event looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ProgramLogFormat")]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// A line for people; in colour on a terminal, unless `NO_COLOR` is set.
    #[default]
    Text,
    /// A JSON object per line.
    Json,
}

/// The program log can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The environment variable holds no directives.
    #[error("{VARIABLE} is neither a level nor a list of directives: {directives}: {source}")]
    Directives {
        /// What it holds.
        directives: String,
        /// Why that is refused.
        source: tracing_subscriber::filter::ParseError,
    },
    /// There is another one in this process.
    #[error("the process already has a program log: {0}")]
    AlreadySet(#[from] tracing_subscriber::util::TryInitError),
}

/// The program log of the process.
pub struct ProgramLog {
    surroundings: Surroundings,
    handle: reload::Handle<BoxedLayer<Registry>, Registry>,
}

type BoxedLayer<S> = Box<dyn Layer<S> + Send + Sync>;

impl ProgramLog {
    /// Makes this the log of the process, for `tracing` and for `log`.
    pub fn start(config: &Config) -> Result<Self, Error> {
        let surroundings = Surroundings::of_process();
        // `log` keeps for ever the most detailed level of this moment: it must be one at which the libraries may speak
        // after a reload
        let widest = Config { level: widest(config.level, Level::Warn), ..*config };
        let (layer, handle) = reload::Layer::new(layer(widest, &surroundings, io::stderr)?);
        tracing_subscriber::registry().with(layer).try_init()?;
        let log = Self { surroundings, handle };
        log.apply(config)?;
        Ok(log)
    }

    /// Goes on with other settings.
    pub fn apply(&self, config: &Config) -> Result<(), Error> {
        let layer = layer(*config, &self.surroundings, io::stderr)?;
        if let Err(error) = self.handle.reload(layer) {
            // only when the subscriber is gone, that is, when the process ends
            tracing::debug!(%error, "program log can't be changed");
        }
        Ok(())
    }
}

/// What the process was started with that matters for the log.
#[derive(Debug, Clone, Default)]
struct Surroundings {
    /// What [`VARIABLE`] holds.
    overriding: Option<String>,
    /// Whether standard error is a terminal that may be coloured.
    colour: bool,
}

impl Surroundings {
    #[expect(clippy::disallowed_methods, reason = "the log is set up before any configuration is read")]
    fn of_process() -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            overriding: std::env::var(VARIABLE).ok().filter(|value| !value.trim().is_empty()),
            colour: io::stderr().is_terminal() && !no_colour,
        }
    }
}

/// The more talkative of the two.
fn widest(one: Level, other: Level) -> Level {
    if one as usize > other as usize { one } else { other }
}

/// The filter as directives. `overriding` takes the place of `level` when it is a level, of everything when it is more.
fn directives(level: Level, overriding: Option<&str>) -> String {
    let level = match overriding.map(str::trim) {
        None => level,
        Some(word) => match Level::ALL.into_iter().find(|level| level.as_str().eq_ignore_ascii_case(word)) {
            Some(level) => level,
            None => return word.to_owned(),
        },
    };
    let libraries = if level == Level::Error { "error" } else { "warn" };
    // `apps` is where pingora reports each malformed request and each handshake that a client broke off; those are
    // counted and stand in the access log
    format!("{libraries},portcullis={},pingora_core=error,pingora_core::apps=off", level.as_str())
}

/// Filter and format together, so that one reload replaces both. The filter is the outer one: `Layered` asks only the
/// outer for the most detailed level, and without that every `debug!` and `trace!` of pingora would be built and thrown
/// away, several for each request.
fn layer<S, W>(config: Config, surroundings: &Surroundings, writer: W) -> Result<BoxedLayer<S>, Error>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let directives = directives(config.level, surroundings.overriding.as_deref());
    let filter = EnvFilter::try_new(&directives).map_err(|source| Error::Directives { directives, source })?;
    // a write that fails must not be reported on standard error, where it failed
    let events = tracing_subscriber::fmt::layer().log_internal_errors(false);
    Ok(match config.format {
        Format::Text => {
            let writer = Inert { writer, colour: surroundings.colour };
            events.with_ansi(surroundings.colour).with_writer(writer).and_then(filter).boxed()
        }
        Format::Json => {
            let events = events.json().flatten_event(true).with_current_span(false).with_span_list(false);
            events.with_writer(writer).and_then(filter).boxed()
        }
    })
}

/// Keeps an event on one line and a terminal in its state, whatever a peer's error says: control characters inside an
/// event are written as `\n`, `\u{1b}` and so on, except the formatter's own colours where there are any.
struct Inert<W> {
    writer: W,
    colour: bool,
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Inert<W> {
    type Writer = Inert<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Inert { writer: self.writer.make_writer(), colour: self.colour }
    }
}

impl<W: io::Write> io::Write for Inert<W> {
    /// Takes a whole event with the line break at its end, as the formatting layer hands it over.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let inside = text.strip_suffix('\n').unwrap_or(&text);
        let mut line = String::with_capacity(event.len() + 16);
        for (at, character) in inside.char_indices() {
            let is_inert = match character {
                '\u{1b}' => self.colour && inside.get(at..).is_some_and(begins_with_colour),
                other => !other.is_control(),
            };
            if is_inert {
                line.push(character);
            } else {
                line.extend(character.escape_default());
            }
        }
        line.push('\n');
        self.writer.write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Whether the text begins with a sequence that changes nothing but the looks of what follows (ECMA-48 §8.3.117, SGR).
fn begins_with_colour(text: &str) -> bool {
    let parameters = text.strip_prefix("\u{1b}[");
    parameters.is_some_and(|text| text.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').starts_with('m'))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing_subscriber::filter::LevelFilter;

    use super::*;

    /// Where a test's log goes.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Page {
        type Writer = Self;
        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    impl Page {
        fn text(&self) -> String {
            String::from_utf8_lossy(&self.0.lock()).into_owned()
        }
    }

    fn logged(config: Config, overriding: Option<&str>, speak: impl FnOnce()) -> String {
        let page = Page::default();
        let surroundings = Surroundings { overriding: overriding.map(str::to_owned), colour: false };
        let layer = layer(config, &surroundings, page.clone()).expect("a filter");
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), speak);
        page.text()
    }

    fn speak_at_every_level() {
        tracing::error!(target: "portcullis::edge", "ours error");
        tracing::info!(target: "portcullis::edge", "ours info");
        tracing::debug!(target: "portcullis::edge", "ours debug");
        tracing::warn!(target: "rustls", "rustls warn");
        tracing::info!(target: "rustls", "rustls info");
        tracing::error!(target: "pingora_core::connectors", "pingora error");
        tracing::warn!(target: "pingora_core::connectors", "pingora warn");
        tracing::error!(target: "pingora_core::apps::http_app", "pingora about a client");
    }

    #[track_caller]
    fn check(level: Level, overriding: Option<&str>, heard: &[&str]) {
        let text = logged(Config { level, format: Format::Text }, overriding, speak_at_every_level);
        let said: Vec<&str> = text.lines().filter_map(|line| Some(line.split_once(": ")?.1)).collect();
        assert_eq!(said, heard, "{text}");
    }

    #[test]
    fn libraries_are_heard_when_something_is_wrong_and_clients_never() {
        check(Level::Error, None, &["ours error", "pingora error"]);
        check(Level::Info, None, &["ours error", "ours info", "rustls warn", "pingora error"]);
        check(Level::Trace, None, &["ours error", "ours info", "ours debug", "rustls warn", "pingora error"]);
    }

    #[test]
    fn the_environment_overrides_the_level() {
        check(Level::Info, Some(" ERROR "), &["ours error", "pingora error"]);
        check(Level::Info, Some("off,rustls=info"), &["rustls warn", "rustls info"]);
        let surroundings = Surroundings { overriding: Some("portcullis=loud".to_owned()), colour: false };
        let error = layer::<Registry, _>(Config::default(), &surroundings, Page::default()).err().expect("refused");
        assert!(error.to_string().starts_with("PORTCULLIS_LOG is neither a level nor a list of"), "{error}");
    }

    #[test]
    fn what_nobody_hears_is_not_even_built() {
        let check = |level, format, expected| {
            let layer = layer(Config { level, format }, &Surroundings::default(), Page::default()).expect("a filter");
            assert_eq!(tracing_subscriber::registry().with(layer).max_level_hint(), Some(expected));
        };
        check(Level::Info, Format::Text, LevelFilter::INFO);
        check(Level::Warn, Format::Json, LevelFilter::WARN);
        check(Level::Trace, Format::Text, LevelFilter::TRACE);
    }

    #[test]
    fn an_event_is_one_line_in_every_format() {
        let speak =
            || tracing::warn!(target: "portcullis", error = %"a\r\nb\u{1b}[2J", reason = "x\ny", "odd\nmessage");
        let text = logged(Config::default(), None, speak);
        assert!(
            text.ends_with("WARN portcullis: odd\\nmessage error=a\\r\\nb\\u{1b}[2J reason=\"x\\ny\"\n"),
            "{text:?}"
        );
        assert_eq!(text.lines().count(), 1, "{text:?}");

        let text = logged(Config { format: Format::Json, ..Config::default() }, None, speak);
        let json: serde_json::Value = serde_json::from_str(&text).expect("one JSON object");
        assert_eq!((&json["level"], &json["message"]), (&"WARN".into(), &"odd\nmessage".into()));
        assert_eq!((&json["error"], &json["reason"]), (&"a\r\nb\u{1b}[2J".into(), &"x\ny".into()));
    }

    #[test]
    fn on_a_terminal_only_colours_pass() {
        let page = Page::default();
        let surroundings = Surroundings { overriding: None, colour: true };
        let layer = layer(Config::default(), &surroundings, page.clone()).expect("a filter");
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::warn!(target: "portcullis", error = %"\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}2J", "odd");
        });
        let text = page.text();
        assert!(text.contains("\u{1b}[33m WARN\u{1b}[0m"), "{text:?}");
        assert!(text.contains(r"\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}2J"), "{text:?}");
    }

    #[test]
    fn a_reload_changes_level_and_format_at_once() {
        let page = Page::default();
        let make = |config| layer(config, &Surroundings::default(), page.clone()).expect("a filter");
        let (layer, handle) = reload::Layer::new(make(Config { level: Level::Error, format: Format::Text }));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::info!(target: "portcullis", "not yet");
            handle.reload(make(Config { level: Level::Info, format: Format::Json })).expect("the subscriber lives");
            tracing::info!(target: "portcullis", "now");
        });
        let json: serde_json::Value = serde_json::from_str(&page.text()).expect("one JSON object");
        assert_eq!(json["message"], "now");
    }

    #[test]
    fn a_closed_standard_error_is_no_reason_to_panic() {
        struct Closed;
        impl io::Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let layer = layer(Config::default(), &Surroundings::default(), || Closed).expect("a filter");
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::error!(target: "portcullis", "nobody listens");
        });
    }

    #[test]
    fn the_settings_have_defaults() {
        let config: Config = toml::from_str("").expect("every setting has a default");
        assert_eq!((config.level, config.format), (Level::Info, Format::Text));
        let config: Config = toml::from_str("level = \"debug\"\nformat = \"json\"").expect("both are known");
        assert_eq!((config.level, config.format), (Level::Debug, Format::Json));
        assert!(toml::from_str::<Config>("format = \"ecs\"").is_err());
    }
}
