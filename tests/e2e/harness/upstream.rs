//! An upstream that follows a script: raw HTTP/1.1 over TCP, TLS or a unix socket, each request kept as it came.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::message::Request;
use super::wire::{Body, End, Wire};
use super::within;

/// What happened so far.
#[derive(Default)]
struct Seen {
    requests: Vec<Request>,
    /// How each connection ended, once it has.
    connections: Vec<Option<End>>,
}

#[derive(Default)]
struct Record {
    seen: Mutex<Seen>,
    changed: watch::Sender<()>,
}

impl Record {
    fn note<T>(&self, change: impl FnOnce(&mut Seen) -> T) -> T {
        let result = change(&mut self.seen.lock());
        self.changed.send_replace(());
        result
    }

    async fn until<T>(&self, what: &str, look: impl Fn(&Seen) -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        within(what, async {
            loop {
                if let Some(found) = look(&self.seen.lock()) {
                    return found;
                }
                changed.changed().await.expect("the record lives");
            }
        })
        .await
    }
}

/// A running upstream. Ends with its connections when dropped.
pub struct Upstream {
    address: Option<SocketAddr>,
    path: Option<PathBuf>,
    record: Arc<Record>,
    accepting: JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Upstream {
    /// Runs `script` for each connection.
    pub async fn start<F, Fut>(script: F) -> Self
    where
        F: Fn(Conn) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<()>> + Send + 'static,
    {
        Self::start_on(None, script).await
    }

    /// Runs `script` for each connection, over TLS.
    pub async fn start_tls<F, Fut>(acceptor: TlsAcceptor, script: F) -> Self
    where
        F: Fn(Conn) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<()>> + Send + 'static,
    {
        Self::start_on(Some(acceptor), script).await
    }

    async fn start_on<F, Fut>(acceptor: Option<TlsAcceptor>, script: F) -> Self
    where
        F: Fn(Conn) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let record = Arc::new(Record::default());
        let accepted = Arc::clone(&record);
        let script = Arc::new(script);
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (record, script, acceptor) = (Arc::clone(&accepted), Arc::clone(&script), acceptor.clone());
                connections.spawn(async move {
                    let wire = match acceptor {
                        None => Wire::tcp(stream),
                        Some(acceptor) => {
                            let socket = socket2::SockRef::from(&stream).try_clone().ok();
                            let Ok(stream) = acceptor.accept(stream).await else { return };
                            Wire::new(Box::new(stream), socket)
                        }
                    };
                    let _ = script(Conn::new(wire, record)).await;
                });
            }
        });
        Self { address: Some(address), path: None, record, accepting }
    }

    /// Runs `script` for each connection to the unix socket at `path`.
    pub fn start_unix<F, Fut>(path: &Path, script: F) -> Self
    where
        F: Fn(Conn) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = UnixListener::bind(path).unwrap();
        let record = Arc::new(Record::default());
        let accepted = Arc::clone(&record);
        let script = Arc::new(script);
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (record, script) = (Arc::clone(&accepted), Arc::clone(&script));
                connections.spawn(async move {
                    let _ = script(Conn::new(Wire::new(Box::new(stream), None), record)).await;
                });
            }
        });
        Self { address: None, path: Some(path.to_owned()), record, accepting }
    }

    /// Answers each request with the same bytes and keeps connections open.
    pub async fn answering(response: impl Into<Vec<u8>>) -> Self {
        let response = Arc::new(response.into());
        Self::with(move |_| response.to_vec()).await
    }

    /// Answers `200` with that text.
    pub async fn saying(text: &str) -> Self {
        Self::answering(ok(text)).await
    }

    /// Answers each request, once it is whole, with what `answer` makes of it, and keeps connections open.
    pub async fn with(answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let answer = Arc::new(answer);
        Self::start(move |conn| serve(conn, Arc::clone(&answer))).await
    }

    /// Like [`Upstream::with`], over TLS.
    pub async fn with_tls(acceptor: TlsAcceptor, answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let answer = Arc::new(answer);
        Self::start_tls(acceptor, move |conn| serve(conn, Arc::clone(&answer))).await
    }

    /// Like [`Upstream::with`], on a unix socket.
    pub fn with_unix(path: &Path, answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let answer = Arc::new(answer);
        Self::start_unix(path, move |conn| serve(conn, Arc::clone(&answer)))
    }

    /// Its address as the configuration writes it.
    pub fn url(&self) -> String {
        match (&self.address, &self.path) {
            (Some(address), _) => format!("http://{address}"),
            (None, Some(path)) => format!("unix:{}", path.display()),
            (None, None) => unreachable!(),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address.expect("it listens on TCP")
    }

    /// The requests whose heads have arrived, in their order.
    pub fn requests(&self) -> Vec<Request> {
        self.record.seen.lock().requests.clone()
    }

    /// The request of that number from 0, once it is whole.
    pub async fn request(&self, number: usize) -> Request {
        let whole = |seen: &Seen| seen.requests.get(number).filter(|request| request.body.is_some()).cloned();
        self.record.until(&format!("the upstream receives request {number}"), whole).await
    }

    /// The request of that number from 0, once its head is there.
    pub async fn request_head(&self, number: usize) -> Request {
        let begun = |seen: &Seen| seen.requests.get(number).cloned();
        self.record.until(&format!("the upstream receives the head of request {number}"), begun).await
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.record.seen.lock().connections.len()
    }

    /// Waits until the script has seen the end of connection `number`.
    pub async fn ended(&self, number: usize) -> End {
        let end = |seen: &Seen| seen.connections.get(number).copied().flatten();
        self.record.until(&format!("the upstream sees the end of connection {number}"), end).await
    }
}

async fn serve<A>(mut conn: Conn, answer: Arc<A>) -> io::Result<()>
where
    A: Fn(&Request) -> Vec<u8>,
{
    loop {
        let request = conn.request().await?;
        conn.send(answer(&request)).await?;
    }
}

/// A script's end of one connection.
pub struct Conn {
    /// Its number from 0.
    pub number: usize,
    wire: Wire,
    record: Arc<Record>,
}

impl Conn {
    fn new(wire: Wire, record: Arc<Record>) -> Self {
        let number = record.note(|seen| {
            seen.connections.push(None);
            seen.connections.len() - 1
        });
        Self { number, wire, record }
    }

    /// The next request, whole. An error when the connection ends instead, which ends most scripts.
    pub async fn request(&mut self) -> io::Result<Request> {
        let (index, mut request) = self.read_head().await?;
        let body = self.read_body(&request, index).await;
        let whole = body.whole;
        request.body = Some(body);
        if whole { Ok(request) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }

    /// The next request's head; its body stays on the wire.
    pub async fn head(&mut self) -> io::Result<Request> {
        self.read_head().await.map(|(_, request)| request)
    }

    /// The rest of the latest request, after [`Conn::head`].
    pub async fn body(&mut self) -> Body {
        let (index, request) = {
            let seen = self.record.seen.lock();
            let latest = seen.requests.iter().rposition(|request| request.connection == self.number);
            let index = latest.expect("a head was read");
            (index, seen.requests[index].clone())
        };
        self.read_body(&request, index).await
    }

    async fn read_head(&mut self) -> io::Result<(usize, Request)> {
        let head = match self.wire.head().await {
            Ok(Some(head)) => head,
            Ok(None) => return Err(self.over(End::Closed)),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Err(self.over(End::Closed)),
            Err(_) => return Err(self.over(End::Reset)),
        };
        let request = Request::parse(&head, self.number);
        let index = self.record.note(|seen| {
            seen.requests.push(request.clone());
            seen.requests.len() - 1
        });
        Ok((index, request))
    }

    async fn read_body(&mut self, request: &Request, index: usize) -> Body {
        let body = match (request.field("transfer-encoding"), request.field("content-length")) {
            (Some("chunked"), None) => self.wire.chunked().await,
            (None, Some(length)) => self.wire.sized(length.parse().expect("a length")).await,
            (None, None) => Body { whole: true, ..Body::default() },
            both => panic!("the framing that reached the upstream: {both:?}"),
        };
        if body.whole {
            self.record.note(|seen| seen.requests[index].body = Some(body.clone()));
        } else {
            let _ = self.closed().await;
        }
        body
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.send(bytes).await
    }

    /// That many bytes, or fewer when the connection ends before.
    pub async fn at_most(&mut self, length: usize) -> Vec<u8> {
        self.wire.at_most(length).await
    }

    /// Whatever comes next; empty at the end.
    pub async fn some(&mut self) -> io::Result<Vec<u8>> {
        self.wire.some().await
    }

    /// Waits for the end of the connection.
    pub async fn closed(&mut self) -> End {
        let (end, _) = self.wire.end().await;
        let _ = self.over(end);
        end
    }

    /// Ends our direction only.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.wire.shutdown().await
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        self.wire.reset();
    }

    /// The connection's parts, for what is not HTTP any more.
    pub fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    fn over(&mut self, end: End) -> io::Error {
        let number = self.number;
        self.record.note(|seen| {
            seen.connections[number].get_or_insert(end);
        });
        ErrorKind::UnexpectedEof.into()
    }
}

/// A whole `200` with a length.
pub fn ok(text: &str) -> Vec<u8> {
    response("200 OK", "", text.as_bytes())
}

/// A whole response; `fields` are lines with their CRLF.
pub fn response(status: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}
