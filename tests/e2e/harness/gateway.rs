//! The gateway as a process: started with a configuration, watched through its log and admin API, killed in the end.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::client::{Client, get};
use super::message::Response;
use super::{eventually, tls, within};

/// The program's log, as it grows.
#[derive(Default)]
pub struct Log {
    lines: Mutex<Vec<String>>,
    length: watch::Sender<usize>,
}

/// One event of the log.
#[derive(Debug, Clone)]
pub struct Event(Value);

impl Event {
    /// A field, whether the log nests fields or not.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.0.get(name).or_else(|| self.0.get("fields")?.get(name)).and_then(Value::as_str)
    }

    /// The constant text.
    pub fn message(&self) -> &str {
        self.field("message").unwrap_or_default()
    }

    /// The level in lower case.
    pub fn level(&self) -> String {
        self.field("level").unwrap_or_default().to_lowercase()
    }
}

impl Log {
    /// What has been logged so far.
    pub fn events(&self) -> Vec<Event> {
        self.lines.lock().iter().filter_map(|line| serde_json::from_str(line).ok()).map(Event).collect()
    }

    /// All lines, also those that are no events.
    pub fn text(&self) -> String {
        self.lines.lock().join("\n")
    }

    /// The latest event that `wanted` takes, now or later; `None` when the process ends without one.
    async fn find(&self, wanted: impl Fn(&Event) -> bool) -> Option<Event> {
        let mut length = self.length.subscribe();
        loop {
            let seen = *length.borrow_and_update();
            if let Some(found) = self.events().into_iter().rfind(&wanted) {
                return Some(found);
            }
            if seen == usize::MAX || length.changed().await.is_err() {
                return None;
            }
        }
    }
}

/// A running gateway.
pub struct Gateway {
    folder: TempDir,
    file: PathBuf,
    process: Option<Child>,
    pid: u32,
    pub log: Arc<Log>,
    reader: Option<std::thread::JoinHandle<()>>,
}

/// How the gateway ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    /// From the signal to the end.
    pub took: Duration,
}

impl Gateway {
    /// Starts with `config`, to which are added a listener `public` on a free port, the admin API, a JSON log and an
    /// access log, each unless `config` has one. Its first lines may be keys of the root. Returns when it is ready.
    pub async fn start(config: &str) -> Self {
        let gateway = Self::spawn(config);
        match within("the gateway is ready", gateway.log.find(|event| event.message() == "ready")).await {
            Some(_) => gateway,
            None => panic!("the gateway ended before it was ready"),
        }
    }

    /// Starts and does not wait.
    pub fn spawn(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("portcullis.toml");
        std::fs::write(&file, whole(config, folder.path())).unwrap();
        Self::spawn_in(folder, file)
    }

    /// Starts with a file that the test has laid out itself.
    pub fn spawn_in(folder: TempDir, file: PathBuf) -> Self {
        let (reading, writing) = std::io::pipe().unwrap();
        let mut command = Command::new(binary());
        command.arg("run").arg("-c").arg(&file).current_dir(folder.path());
        // what the caller's environment says about logs and proxies must not matter
        command.env_remove("RUST_LOG").env_remove("http_proxy").env("NO_COLOR", "1").env("RUST_BACKTRACE", "1");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(writing).kill_on_drop(true);
        let process = command.spawn().unwrap();
        drop(command); // closes our end of the pipe
        let log = Arc::new(Log::default());
        let kept = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(reading).lines().map_while(Result::ok) {
                let mut lines = kept.lines.lock();
                lines.push(line);
                kept.length.send_replace(lines.len());
            }
            kept.length.send_replace(usize::MAX);
        });
        let pid = process.id().unwrap();
        Self { folder, file, process: Some(process), pid, log, reader: Some(reader) }
    }

    /// Waits for an event.
    pub async fn event(&self, what: &str, wanted: impl Fn(&Event) -> bool) -> Event {
        within(what, self.log.find(wanted)).await.unwrap_or_else(|| panic!("the gateway ended before {what}"))
    }

    /// The address of listener `public`.
    pub async fn public(&self) -> SocketAddr {
        self.listener("public").await
    }

    /// The latest address of a listener.
    pub async fn listener(&self, name: &str) -> SocketAddr {
        let listening = |event: &Event| event.message() == "listening" && event.field("listener") == Some(name);
        let event = self.event(&format!("listener {name} listens"), listening).await;
        event.field("address").and_then(|address| address.parse().ok()).expect("an address")
    }

    /// The address of the admin API.
    pub async fn admin(&self) -> SocketAddr {
        let event = self.event("the admin API listens", |event| event.message() == "admin listening").await;
        event.field("address").and_then(|address| address.parse().ok()).expect("an address")
    }

    /// A connection to listener `public`.
    pub async fn client(&self) -> Client {
        Client::connect(self.public().await).await
    }

    /// One GET to listener `public`, on a connection of its own.
    pub async fn get(&self, target: &str) -> Response {
        get(self.public().await, target).await
    }

    /// One GET to the admin API.
    pub async fn admin_get(&self, path: &str) -> Response {
        // the admin API answers to names that a web page cannot make a browser use
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        Client::connect(self.admin().await).await.request(&request).await
    }

    /// One POST without a body to the admin API.
    pub async fn admin_post(&self, path: &str) -> Response {
        let request = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        Client::connect(self.admin().await).await.request(&request).await
    }

    /// The number of the configuration in force.
    pub async fn generation(&self) -> u64 {
        self.admin_get("/api/v1/config").await.json()["generation"].as_u64().expect("a generation")
    }

    /// Writes another configuration, as [`Gateway::start`] would have; nobody is told.
    pub fn write(&self, config: &str) {
        tls::replace(&self.file, &whole(config, self.folder.path()));
    }

    /// Puts another configuration in force, through the admin API.
    pub async fn reload(&self, config: &str) {
        let before = self.generation().await;
        self.write(config);
        let answer = self.admin_post("/api/v1/reload").await;
        assert!((200..300).contains(&answer.status), "{answer:?}");
        eventually("the new configuration is in force", async || {
            let state = self.admin_get("/api/v1/config").await.json();
            assert!(state["last_error"].is_null(), "{state}");
            (state["generation"].as_u64() > Some(before)).then_some(())
        })
        .await;
    }

    /// Sends a signal, such as `TERM`.
    pub async fn signal(&self, name: &str) {
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.pid)).status().await.unwrap();
        assert!(sent.success(), "kill -{name}");
    }

    /// Waits for the process to end.
    pub async fn exit(&mut self) -> ExitStatus {
        within("the gateway ends", self.process.as_mut().expect("it runs").wait()).await.unwrap()
    }

    /// Asks it to stop and waits until it has.
    pub async fn terminate(&mut self) -> Ended {
        let since = Instant::now();
        self.signal("TERM").await;
        let status = self.exit().await;
        Ended { status, took: since.elapsed() }
    }

    /// The sum of all series of `family` that have these labels; 0 when there is none.
    pub async fn metric(&self, family: &str, labels: &[(&str, &str)]) -> f64 {
        sum(&self.admin_get("/metrics").await.text(), family, labels)
    }

    /// Waits until the sum is at least `least`.
    pub async fn metric_reaches(&self, family: &str, labels: &[(&str, &str)], least: f64) -> f64 {
        eventually(&format!("{family} {labels:?} reaches {least}"), async || {
            let value = self.metric(family, labels).await;
            (value >= least).then_some(value)
        })
        .await
    }

    /// Waits until the sum is `value`.
    pub async fn metric_becomes(&self, family: &str, labels: &[(&str, &str)], value: f64) {
        eventually(&format!("{family} {labels:?} becomes {value}"), async || {
            ((self.metric(family, labels).await - value).abs() < 1e-9).then_some(())
        })
        .await;
    }

    /// The lines of the access log so far.
    pub fn access_log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("access.log")).unwrap_or_default()
    }

    /// Waits for the first line of the access log, read as JSON, that `wanted` takes.
    pub async fn logged(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("the access log shows {what}"), async || {
            let text = self.access_log();
            // the last line may be half written
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            whole.lines().map(read).find(&wanted)
        })
        .await
    }

    /// Its folder, where relative paths begin.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its configuration file.
    pub fn file(&self) -> &Path {
        &self.file
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        if let Some(mut process) = self.process.take() {
            let _ = process.start_kill();
        }
        // ends with the process, which held the other end of the pipe
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        #[expect(clippy::print_stderr, reason = "the test runner shows it beside the failure")]
        {
            eprintln!("--- log of the gateway\n{}\n--- access log\n{}\n---", self.log.text(), self.access_log());
        }
    }
}

/// The build under test: cargo's own, or another one, such as what is about to be released.
fn binary() -> std::ffi::OsString {
    std::env::var_os("PORTCULLIS_TEST_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_portcullis").into())
}

/// `config` with what every gateway of the tests has.
pub fn whole(config: &str, folder: &Path) -> String {
    let mut text = format!("workers = 2\n{config}\n");
    let mut add = |key: &str, more: &str| {
        if !config.contains(key) {
            text.push_str(more);
        }
    };
    add("[[listener]]", "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n");
    add("[admin]", "[admin]\naddress = \"127.0.0.1:0\"\n");
    let access_log = folder.join("access.log");
    add(
        "[telemetry]",
        &format!(
            "[telemetry]\nlog = {{ level = \"info\", format = \"json\" }}\naccess_log = {{ path = \"{}\", format = \"json\" }}\n",
            access_log.display()
        ),
    );
    text
}

/// The sum of all series in an exposition that have these labels.
pub fn sum(exposition: &str, family: &str, labels: &[(&str, &str)]) -> f64 {
    let matches = |line: &&str| {
        let rest = line.strip_prefix(family).unwrap_or_default();
        rest.starts_with(['{', ' ']) && labels.iter().all(|(name, value)| rest.contains(&format!("{name}=\"{value}\"")))
    };
    let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a value");
    exposition.lines().filter(matches).map(value).sum()
}
