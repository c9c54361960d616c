//! One check: a connection of its own, a question, an answer. The caller bounds it in time; what is read is bounded here.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::engine::connect::{Address, Connected, H2Connection, Speak, connect};
use crate::engine::transport::Transport;
use crate::model::request::Scheme;
use crate::upstream::health::{Check, Kind};
use crate::upstream::{Endpoint, Protocol, Target};

/// A longer status line is no HTTP.
const MAX_STATUS_LINE: usize = 1024;
/// A longer message is no `HealthCheckResponse`.
const MAX_MESSAGE: usize = 1024;
/// What checks call themselves.
const AGENT: &str = concat!("portcullis/", env!("CARGO_PKG_VERSION"), " (health check)");

/// Where the checks of one endpoint go, and what they ask.
pub(super) struct Route {
    endpoint: Arc<Endpoint>,
    check: Check,
    tls: Option<Arc<ClientConfig>>,
    protocol: Protocol,
}

/// Why a check failed, in the words of logs and the admin API.
type Failure = String;

impl Route {
    pub(super) fn new(
        endpoint: Arc<Endpoint>,
        check: Check,
        tls: Option<Arc<ClientConfig>>,
        protocol: Protocol,
    ) -> Self {
        let tls = tls.filter(|_| endpoint.scheme == Scheme::Https);
        Self { endpoint, check, tls, protocol }
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) fn check(&self) -> &Check {
        &self.check
    }

    /// Makes one check.
    pub(super) async fn ask(&self) -> Result<(), Failure> {
        match &self.check.kind {
            Kind::Tcp => self.connect(Speak::H1).await.map(drop),
            Kind::Http { path, host, statuses } => {
                let speak = match self.protocol {
                    Protocol::Auto => Speak::Negotiate,
                    Protocol::H1 => Speak::H1,
                    Protocol::H2 => Speak::H2,
                };
                let host = host.as_ref().unwrap_or(&self.endpoint.authority);
                let status = match self.connect(speak).await? {
                    Connected::H1(transport) => get_h1(transport, path.as_str(), host).await?,
                    Connected::H2(connection) => self.get_h2(connection, path.as_str(), host).await?,
                };
                let is_good = statuses.iter().any(|range| range.contains(&status));
                if is_good { Ok(()) } else { Err(format!("status {status}")) }
            }
            Kind::Grpc { service, host } => match self.connect(Speak::H2).await? {
                Connected::H2(connection) => {
                    let host = host.as_ref().unwrap_or(&self.endpoint.authority);
                    self.call(connection, service, host).await
                }
                Connected::H1(_) => Err("not HTTP/2".to_owned()),
            },
        }
    }

    async fn connect(&self, speak: Speak) -> Result<Connected, Failure> {
        let address = match (&self.endpoint.target, self.check.port) {
            (Target::Tcp(address), Some(port)) => Address::Tcp(SocketAddr::new(address.ip(), port)),
            (Target::Tcp(address), None) => Address::Tcp(*address),
            (Target::Unix(path), _) => Address::Unix(path.as_ref().as_ref()),
        };
        let tls = self.tls.as_ref().map(|tls| (tls, &*self.endpoint.server_name));
        connect(address, tls, speak).await.map_err(|error| format!("no connection: {error}"))
    }

    fn request(&self, method: Method, path: &str, host: &str) -> Result<Request<()>, Failure> {
        let uri = Uri::builder().scheme(self.endpoint.scheme.as_str()).authority(host).path_and_query(path).build();
        let request = uri.and_then(|uri| {
            Request::builder().method(method).uri(uri).version(Version::HTTP_2).header(USER_AGENT, AGENT).body(())
        });
        request.map_err(|error| error.to_string())
    }

    async fn get_h2(&self, connection: H2Connection, path: &str, host: &str) -> Result<u16, Failure> {
        let request = self.request(Method::GET, path, host)?;
        let mut requests = connection.requests.ready().await.map_err(|error| error.to_string())?;
        let (response, _) = requests.send_request(request, true).map_err(|error| error.to_string())?;
        Ok(response.await.map_err(|error| error.to_string())?.status().as_u16())
    }

    /// `grpc.health.v1.Health/Check`, unary.
    async fn call(&self, connection: H2Connection, service: &str, host: &str) -> Result<(), Failure> {
        let mut request = self.request(Method::POST, "/grpc.health.v1.Health/Check", host)?;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
        let mut requests = connection.requests.ready().await.map_err(|error| error.to_string())?;
        let (response, mut body) = requests.send_request(request, false).map_err(|error| error.to_string())?;
        body.send_data(question(service), true).map_err(|error| error.to_string())?;
        let (head, mut body) = response.await.map_err(|error| error.to_string())?.into_parts();
        if head.status != http::StatusCode::OK {
            return Err(format!("status {}", head.status.as_u16()));
        }
        let mut message = BytesMut::new();
        while let Some(piece) = body.data().await {
            let piece = piece.map_err(|error| error.to_string())?;
            if message.len() + piece.len() > MAX_MESSAGE {
                return Err("the answer is no HealthCheckResponse".to_owned());
            }
            message.extend_from_slice(&piece);
        }
        let trailers = body.trailers().await.map_err(|error| error.to_string())?;
        judge_call(trailers.as_ref().unwrap_or(&head.headers), &message)
    }
}

/// A GET over HTTP/1.1; the status. The connection is closed after it.
async fn get_h1(mut transport: Transport, path: &str, host: &str) -> Result<u16, Failure> {
    let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: {AGENT}\r\nconnection: close\r\n\r\n");
    let status = async {
        transport.write_all(head.as_bytes()).await?;
        transport.flush().await?;
        let mut line = Vec::with_capacity(256);
        // what comes after the line is of no interest
        while !line.contains(&b'\n') {
            if line.len() > MAX_STATUS_LINE {
                return Err(io::Error::new(ErrorKind::InvalidData, "not HTTP"));
            }
            if transport.read_buf(&mut line).await? == 0 {
                return Err(io::Error::new(ErrorKind::UnexpectedEof, "closed without an answer"));
            }
        }
        status(&line).ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "not HTTP"))
    };
    status.await.map_err(|error| error.to_string())
}

/// The status of a status line (RFC 9112 §4).
fn status(line: &[u8]) -> Option<u16> {
    let [b'0' | b'1', b' ', digits @ ..] = line.strip_prefix(b"HTTP/1.")? else { return None };
    let (digits, after) = digits.split_at_checked(3)?;
    if !matches!(after.first(), Some(b' ' | b'\r' | b'\n')) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|status| (200..600).contains(status))
}

/// `HealthCheckRequest { service = 1 }` as a message of gRPC: no compression, length, protobuf.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
            length >>= 7;
        }
        message.put_u8(u8::try_from(length).unwrap_or_default());
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or_default());
    framed.extend_from_slice(&message);
    framed.freeze()
}

/// Whether a call was answered with `SERVING`.
fn judge_call(trailers: &HeaderMap, message: &[u8]) -> Result<(), Failure> {
    match trailers.get("grpc-status").map(HeaderValue::as_bytes) {
        Some(b"0") => {}
        Some(code) => return Err(format!("gRPC status {}", String::from_utf8_lossy(code.get(..3).unwrap_or(code)))),
        None => return Err("no gRPC status".to_owned()),
    }
    match serving_status(message) {
        Some(1) => Ok(()),
        Some(0) => Err("UNKNOWN".to_owned()),
        Some(2) => Err("NOT_SERVING".to_owned()),
        Some(3) => Err("SERVICE_UNKNOWN".to_owned()),
        Some(_) | None => Err("the answer is no HealthCheckResponse".to_owned()),
    }
}

/// `HealthCheckResponse.status`, field 1, an enumeration; 0 where it is left out.
fn serving_status(message: &[u8]) -> Option<u8> {
    let [0, a, b, c, d, message @ ..] = message else { return None };
    let length = u32::from_be_bytes([*a, *b, *c, *d]);
    match message {
        [] if length == 0 => Some(0),
        [0x08, status @ 0..=0x7f] if length == 2 => Some(*status),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_has_a_final_status() {
        for (line, expected) in [
            (&b"HTTP/1.1 200 OK\r\n"[..], Some(200)),
            (b"HTTP/1.0 503\r\n", Some(503)),
            (b"HTTP/1.1 404 \r\n", Some(404)),
            (b"HTTP/1.1 100 Continue\r\n", None),
            (b"HTTP/2 200\r\n", None),
            (b"HTTP/1.1 2000\r\n", None),
            (b"HTTP/1.1 20\r\n", None),
            (b"SSH-2.0-x\r\n", None),
            (b"\n", None),
        ] {
            assert_eq!(status(line), expected, "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn a_question_is_one_field_of_protobuf() {
        assert_eq!(*question(""), [0, 0, 0, 0, 0]);
        assert_eq!(*question("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = question(&"x".repeat(200));
        assert_eq!(long[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 1]);
        assert_eq!(long.len(), 5 + 203);
    }

    #[track_caller]
    fn check(status: Option<&'static str>, message: &[u8], expected: Result<(), &str>) {
        let trailers =
            status.map(|status| (http::HeaderName::from_static("grpc-status"), HeaderValue::from_static(status)));
        let judged = judge_call(&trailers.into_iter().collect(), message);
        assert_eq!(judged, expected.map_err(str::to_owned));
    }

    #[test]
    fn only_serving_is_good() {
        const NONE: &str = "the answer is no HealthCheckResponse";
        check(Some("0"), &[0, 0, 0, 0, 2, 8, 1], Ok(()));
        check(Some("0"), &[0, 0, 0, 0, 2, 8, 2], Err("NOT_SERVING"));
        check(Some("0"), &[0, 0, 0, 0, 2, 8, 3], Err("SERVICE_UNKNOWN"));
        check(Some("0"), &[0, 0, 0, 0, 0], Err("UNKNOWN"));
        check(Some("12"), &[], Err("gRPC status 12"));
        check(None, &[0, 0, 0, 0, 2, 8, 1], Err("no gRPC status"));
        check(Some("0"), &[], Err(NONE));
        check(Some("0"), &[1, 0, 0, 0, 2, 8, 1], Err(NONE));
        check(Some("0"), &[0, 0, 0, 0, 9, 8, 1], Err(NONE));
    }
}
