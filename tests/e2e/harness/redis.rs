//! Debian's `redis-server`, started for one test on free ports and killed with it.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::wire::Wire;
use super::{eventually, within};

/// A server that keeps nothing on disk.
pub struct Redis {
    folder: TempDir,
    /// Where a Sentinel keeps its configuration, which it writes itself.
    _config: Option<TempDir>,
    address: SocketAddr,
    arguments: Vec<String>,
    process: Child,
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Redis {
    /// Starts a server with these settings beside the usual ones; returns when it answers.
    pub async fn start(settings: &[&str]) -> Self {
        Self::start_as(&[], settings).await
    }

    /// Starts a Sentinel that watches `server` as `name`.
    pub async fn sentinel(name: &str, server: &Self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sentinel.conf");
        std::fs::write(&file, format!("sentinel monitor {name} 127.0.0.1 {} 1\n", server.address.port())).unwrap();
        let file = file.to_str().unwrap().to_owned();
        Self { _config: Some(folder), ..Self::start_as(&[&file, "--sentinel"], &[]).await }
    }

    async fn start_as(first: &[&str], settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut arguments: Vec<String> = first.iter().map(|word| (*word).to_owned()).collect();
        arguments.extend(["--port".to_owned(), port.to_string(), "--bind".to_owned(), "127.0.0.1".to_owned()]);
        if first.is_empty() {
            arguments.extend(["--save", "", "--appendonly", "no"].map(str::to_owned));
        }
        arguments.extend(settings.iter().map(|word| (*word).to_owned()));
        let process = spawn(folder.path(), &arguments);
        let server =
            Self { folder, _config: None, address: SocketAddr::from(([127, 0, 0, 1], port)), arguments, process };
        server.answers().await;
        server
    }

    async fn answers(&self) {
        eventually("redis-server answers", async || {
            let mut wire = Wire::connect(self.address).await.ok()?;
            wire.send("PING\r\n").await.ok()?;
            let said = within("an answer of redis-server", wire.some()).await.ok()?;
            // a server that wants a password, or is loading, answers too
            (!said.is_empty()).then_some(())
        })
        .await;
    }

    /// `redis://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// What it answers to a command on a connection of its own.
    pub async fn ask(&self, command: &str) -> String {
        let mut wire = within("a connection to redis-server", Wire::connect(self.address)).await.unwrap();
        within("redis-server takes a command", wire.send(format!("{command}\r\n"))).await.unwrap();
        let said = within("an answer of redis-server", wire.some()).await.unwrap();
        String::from_utf8_lossy(&said).trim().to_owned()
    }

    /// The same, after another command.
    pub async fn ask_as(&self, log_in: &str, command: &str) -> String {
        self.ask(&format!("{log_in}\r\n{command}")).await
    }

    /// Kills it without a word (SIGKILL); what it knew is gone.
    pub async fn kill(&mut self) {
        within("redis-server is killed", self.process.kill()).await.unwrap();
    }

    /// Starts it again on the same port.
    pub async fn start_again(&mut self) {
        self.process = spawn(self.folder.path(), &self.arguments);
        self.answers().await;
    }
}

fn spawn(folder: &Path, arguments: &[String]) -> Child {
    let mut command = Command::new("redis-server");
    command.args(arguments).current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command.spawn().unwrap_or_else(|error| panic!("redis-server does not start ({error}): .ci/setup test installs it"))
}
