//! A connection in bytes: reads heads and bodies by their framing, keeps all that came, and can end in every way.
//!
//! Knows the grammar of HTTP/1.1 messages and nothing about gateways; it repairs nothing.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;

use super::message::Fields;

/// Both directions of a connection, whatever is below.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// How a peer ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// An orderly close (FIN, or `close_notify`).
    Closed,
    /// A reset, or TLS without its end.
    Reset,
}

/// A body as it was framed.
#[derive(Debug, Clone, Default)]
pub struct Body {
    pub bytes: Vec<u8>,
    pub trailers: Fields,
    /// Whether the framing says that this is all of it.
    pub whole: bool,
    /// The sizes of the chunks, where there were chunks.
    pub chunks: Vec<usize>,
}

/// One connection.
pub struct Wire {
    reader: ReadHalf<Box<dyn Io>>,
    writer: Option<WriteHalf<Box<dyn Io>>>,
    /// The same socket once more, to reset it.
    socket: Option<socket2::Socket>,
    /// Received and not yet taken.
    buffer: Vec<u8>,
}

impl Wire {
    /// Connects over TCP.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        Ok(Self::tcp(stream))
    }

    /// Takes a TCP connection.
    pub fn tcp(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        let socket = socket2::SockRef::from(&stream).try_clone().unwrap();
        Self::new(Box::new(stream), Some(socket))
    }

    /// Takes any connection; `socket` is the one below it.
    pub fn new(io: Box<dyn Io>, socket: Option<socket2::Socket>) -> Self {
        let (reader, writer) = tokio::io::split(io);
        Self { reader, writer: Some(writer), socket, buffer: Vec::new() }
    }

    /// Sends bytes and flushes them.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let writer = self.writer.as_mut().ok_or(ErrorKind::NotConnected)?;
        writer.write_all(bytes.as_ref()).await?;
        writer.flush().await
    }

    /// Ends our direction only.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.writer.as_mut().ok_or(ErrorKind::NotConnected)?.shutdown().await
    }

    /// The sending half, for a task of its own.
    pub fn take_writer(&mut self) -> WriteHalf<Box<dyn Io>> {
        self.writer.take().expect("the writer is taken once")
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        if let Some(socket) = &self.socket {
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
    }

    /// Reads more into the buffer; 0 at the end.
    async fn fill(&mut self) -> io::Result<usize> {
        self.reader.read_buf(&mut self.buffer).await
    }

    /// Whatever comes next; empty at the end.
    pub async fn some(&mut self) -> io::Result<Vec<u8>> {
        if self.buffer.is_empty() {
            self.fill().await?;
        }
        Ok(std::mem::take(&mut self.buffer))
    }

    /// Everything up to and including `end`; what came, when the connection ends before.
    async fn until(&mut self, end: &[u8]) -> io::Result<Result<Vec<u8>, Vec<u8>>> {
        let mut looked = 0;
        loop {
            let from = usize::saturating_sub(looked, end.len());
            if let Some(at) = self.buffer[from..].windows(end.len()).position(|window| window == end) {
                let rest = self.buffer.split_off(from + at + end.len());
                return Ok(Ok(std::mem::replace(&mut self.buffer, rest)));
            }
            looked = self.buffer.len();
            if self.fill().await? == 0 {
                return Ok(Err(std::mem::take(&mut self.buffer)));
            }
        }
    }

    /// A message head with its empty line; `None` when the connection ends before its first byte.
    pub async fn head(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self.until(b"\r\n\r\n").await? {
            Ok(head) => Ok(Some(head)),
            Err(nothing) if nothing.is_empty() => Ok(None),
            Err(part) => Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                format!("in the middle of a head: {:?}", String::from_utf8_lossy(&part)),
            )),
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        match self.until(b"\r\n").await? {
            Ok(line) => Ok(String::from_utf8_lossy(&line[..line.len() - 2]).into_owned()),
            Err(_) => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    /// `length` bytes, or fewer when the connection ends before.
    pub async fn at_most(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            if !matches!(self.fill().await, Ok(1..)) {
                return std::mem::take(&mut self.buffer);
            }
        }
        let rest = self.buffer.split_off(length);
        std::mem::replace(&mut self.buffer, rest)
    }

    /// A body of that length.
    pub async fn sized(&mut self, length: usize) -> Body {
        let bytes = self.at_most(length).await;
        Body { whole: bytes.len() == length, bytes, ..Body::default() }
    }

    /// A body that lasts until the connection ends; whole when it ends in order.
    pub async fn rest(&mut self) -> Body {
        loop {
            match self.fill().await {
                Ok(0) => return Body { bytes: std::mem::take(&mut self.buffer), whole: true, ..Body::default() },
                Ok(_) => {}
                Err(_) => return Body { bytes: std::mem::take(&mut self.buffer), ..Body::default() },
            }
        }
    }

    /// A chunked body with its trailers (RFC 9112 §7.1).
    pub async fn chunked(&mut self) -> Body {
        let mut body = Body::default();
        loop {
            let Ok(line) = self.line().await else { return body };
            let digits = line.split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("a chunk size: {line:?}"));
            if size == 0 {
                break;
            }
            let chunk = self.at_most(size).await;
            let cut = chunk.len() < size;
            body.chunks.push(chunk.len());
            body.bytes.extend_from_slice(&chunk);
            if cut {
                return body;
            }
            match self.line().await.as_deref() {
                Ok("") => {}
                Ok(more) => panic!("bytes beyond the chunk: {more:?}"),
                Err(_) => return body,
            }
        }
        let mut trailers = String::new();
        loop {
            match self.line().await {
                Ok(line) if line.is_empty() => break,
                Ok(line) => trailers = trailers + &line + "\r\n",
                Err(_) => return body,
            }
        }
        body.trailers = Fields::parse(&trailers);
        body.whole = true;
        body
    }

    /// Reads to the end of the connection; also says what still came.
    pub async fn end(&mut self) -> (End, Vec<u8>) {
        let mut rest = std::mem::take(&mut self.buffer);
        loop {
            match self.fill().await {
                Ok(0) => return (End::Closed, rest),
                Ok(_) => rest.append(&mut self.buffer),
                Err(_) => return (End::Reset, rest),
            }
        }
    }
}
