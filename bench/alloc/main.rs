//! Counts the gateway's allocations per proxied request: the whole gateway in this process, a client and an origin that
//! allocate nothing themselves, and an allocator that counts.
//!
//! `cargo bench --bench alloc` prints allocations and bytes per request for a response of 1 KiB over kept-alive HTTP/1.1.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a program that measures, with sockets of its own"
)]

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use portcullis::control::configuration;
use portcullis::control::supervisor::{Failure, Supervisor};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const WARM_UP: usize = 200;
const REQUESTS: usize = 2_000;
const BODY: usize = 1024;

fn main() -> anyhow::Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let origin = origin()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("portcullis.toml");
    let config = format!(
        "workers = 1\nadmin = false\n[telemetry]\naccess_log = false\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nmatch = \"/*\"\nupstream = \"http://{origin}\"\n"
    );
    std::fs::write(&file, config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let supervisor =
        runtime.block_on(Supervisor::start(configuration::read(&file))).map_err(|failure| match failure {
            Failure::Refused(refused) => anyhow::anyhow!(refused.text),
            Failure::Broken(error) => anyhow::anyhow!(error),
        })?;
    let (_, address) = supervisor.bound().into_iter().next().ok_or_else(|| anyhow::anyhow!("nothing is bound"))?;
    let mut client = TcpStream::connect(address)?;
    ask(&mut client, WARM_UP)?;
    let region = Region::new(ALLOCATOR);
    ask(&mut client, REQUESTS)?;
    let change = region.change();
    let per_request = |count: usize| count as f64 / REQUESTS as f64;
    println!("allocations per request: {:.1}", per_request(change.allocations + change.reallocations));
    println!("bytes allocated per request: {:.0}", per_request(change.bytes_allocated));
    Ok(())
}

/// Sends requests one after the other and reads each response whole.
fn ask(client: &mut TcpStream, requests: usize) -> std::io::Result<()> {
    let mut buffer = [0_u8; 8192];
    for _ in 0..requests {
        client.write_all(b"GET / HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n")?;
        let mut length = 0;
        let mut whole = None;
        while whole.is_none_or(|whole| length < whole) {
            let read = client.read(&mut buffer[length..])?;
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            length += read;
            whole = head_end(&buffer[..length]).map(|head| head + BODY);
        }
    }
    Ok(())
}

/// Answers every request on every connection with the same bytes.
fn origin() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mut answer =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {BODY}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + BODY, b'x');
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let mut buffer = [0_u8; 8192];
                let mut length = 0;
                while let Ok(read @ 1..) = connection.read(&mut buffer[length..]) {
                    length += read;
                    if head_end(&buffer[..length]).is_some() {
                        length = 0;
                        if connection.write_all(&answer).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    Ok(address)
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}
