//! Programs that others wrote, as clients and servers: Python scripts of `tests/python/`, and curl.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use super::within;

/// The interpreter of the environment that `make test` prepares.
fn interpreter() -> PathBuf {
    let named = std::env::var_os("PORTCULLIS_TEST_PYTHON").map(PathBuf::from);
    let beside_target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().map(|target| target.join("python/bin/python"));
    let in_package = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/python");
    let usual = [beside_target, Some(in_package)].into_iter().flatten().find(|python| python.exists());
    let python = named.or(usual).filter(|python| python.exists());
    python.expect("the Python environment of the tests is missing: run `make test`, which sets it up, or point PORTCULLIS_TEST_PYTHON at a python with tests/python/requirements.txt installed")
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(name)
}

/// Runs a script to its end; what it printed. Fails the test when the script fails.
pub async fn run(name: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(interpreter());
    command.arg("-u").arg(script(name)).args(arguments);
    succeed(name, command).await
}

/// Runs curl; what it printed. Fails the test when curl fails.
pub async fn curl(arguments: &[&str]) -> String {
    let mut command = Command::new("curl");
    // no settings of whoever runs the tests, and no proxy
    command.args(["--disable", "--silent", "--show-error", "--noproxy", "*", "--max-time", "20"]).args(arguments);
    succeed("curl", command).await
}

async fn succeed(name: &str, mut command: Command) -> String {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = within(name, command.output()).await.unwrap_or_else(|error| panic!("{name} does not start: {error}"));
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {}\n{said}\n{complained}", output.status);
    said.into_owned()
}

/// A script that serves until it is dropped.
pub struct Server {
    _process: Child,
    /// The port that it listens on.
    pub port: u16,
}

impl Server {
    /// Starts a script, whose first line of output is its port.
    pub async fn start(name: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(interpreter());
        command.arg("-u").arg(script(name)).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = within(name, lines.next_line()).await.unwrap();
        let Some(port) = line.and_then(|line| line.trim().parse().ok()) else {
            let mut complaint = String::new();
            let _ = process.stderr.take().unwrap().read_to_string(&mut complaint).await;
            panic!("{name} does not serve: {complaint}");
        };
        Self { _process: process, port }
    }
}
