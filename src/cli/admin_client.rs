//! One request to the admin API of a running gateway: plain HTTP/1.1 to an address that the operator named.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::Context;

use super::AdminAddress;

const TIMEOUT: Duration = Duration::from_secs(30);
const MOST: u64 = 16 * 1024 * 1024;

/// Status and body of the answer.
pub(super) fn ask(admin: &AdminAddress, method: &str, path: &str) -> anyhow::Result<(u16, String)> {
    let address = admin.admin.to_socket_addrs().with_context(|| format!("bad address {}", admin.admin))?.next();
    let address = address.with_context(|| format!("no address for {}", admin.admin))?;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)
        .with_context(|| format!("no gateway answers on {}", admin.admin))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let token = admin.token.as_ref().map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 0\r\n{token}connection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer).context("the gateway broke off")?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is not HTTP")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("the answer has no status")?;
    Ok((status, body.to_owned()))
}
