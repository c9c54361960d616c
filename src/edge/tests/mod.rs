//! The edge over real sockets: an application that echoes, says `drain` when told to end, and reports what it sees.

mod listeners;
mod tls;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::model::listener::{Limits, ListenerSpec, Protocols};

/// Longer than anything here takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the application saw, in order.
#[derive(Debug)]
enum Seen {
    Served(Arc<ClientConnection>, std::thread::ThreadId),
    Refused(ListenerName, Option<SocketAddr>, Refused),
}

struct Echo {
    seen: mpsc::UnboundedSender<Seen>,
    workers: Arc<Mutex<Vec<(usize, std::thread::ThreadId)>>>,
}

/// The state of a worker: knows its thread, and tells when it is dropped.
struct EchoWorker {
    thread: std::thread::ThreadId,
    dropped: Arc<Mutex<Vec<(usize, std::thread::ThreadId)>>>,
    index: usize,
}

impl Drop for EchoWorker {
    fn drop(&mut self) {
        self.dropped.lock().push((self.index, std::thread::current().id()));
    }
}

impl Application for Echo {
    type Worker = EchoWorker;

    fn worker(&self, index: usize) -> EchoWorker {
        let thread = std::thread::current().id();
        EchoWorker { thread, dropped: Arc::clone(&self.workers), index }
    }

    async fn serve(self: Arc<Self>, worker: Arc<EchoWorker>, connection: Connection) {
        assert_eq!(worker.thread, std::thread::current().id(), "a connection stays on its worker");
        let _ = self.seen.send(Seen::Served(Arc::clone(&connection.info), worker.thread));
        match connection.io {
            Io::Tcp(stream) => echo(stream, connection.drain).await,
            Io::Tls(stream) => echo(stream, connection.drain).await,
        }
    }

    fn refused(&self, listener: &ListenerName, peer: Option<SocketAddr>, why: Refused) {
        let _ = self.seen.send(Seen::Refused(listener.clone(), peer, why));
    }
}

async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin, drain: DrainWatch) {
    let mut buffer = [0; 64];
    let mut told = false;
    loop {
        tokio::select! {
            () = drain.draining(), if !told => {
                told = true;
                if stream.write_all(b"drain").await.is_err() {
                    return;
                }
            }
            read = stream.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(length) => if stream.write_all(&buffer[..length]).await.is_err() {
                    return;
                },
            },
        }
        let _ = stream.flush().await;
    }
}

/// Workers with the echo application, and what it sees.
struct Rig {
    workers: Workers<Echo>,
    seen: mpsc::UnboundedReceiver<Seen>,
    dropped: Arc<Mutex<Vec<(usize, std::thread::ThreadId)>>>,
}

impl Rig {
    fn start(count: usize) -> Self {
        let (seen, receiver) = mpsc::unbounded_channel();
        let dropped = Arc::default();
        let app = Arc::new(Echo { seen, workers: Arc::clone(&dropped) });
        let workers = Workers::start(NonZeroUsize::new(count).expect("not zero"), app).expect("threads");
        Self { workers, seen: receiver, dropped }
    }

    /// Applies the listeners and returns their addresses.
    #[track_caller]
    fn apply(&self, specs: &[ListenerSpec]) -> impl Future<Output = Vec<SocketAddr>> {
        let specs: Vec<_> = specs.iter().cloned().map(Arc::new).collect();
        async move {
            let bound = self.workers.apply(&specs).await.expect("can be bound");
            assert_eq!(bound, self.workers.bound());
            assert!(bound.iter().map(|bound| &bound.name).eq(specs.iter().map(|spec| &spec.name)));
            bound.into_iter().map(|bound| bound.address).collect()
        }
    }

    async fn next(&mut self) -> Seen {
        timeout(PATIENCE, self.seen.recv()).await.expect("in time").expect("application lives")
    }

    async fn served(&mut self) -> Arc<ClientConnection> {
        match self.next().await {
            Seen::Served(info, _) => info,
            refused @ Seen::Refused(..) => panic!("expected a connection: {refused:?}"),
        }
    }

    async fn refused(&mut self) -> Refused {
        match self.next().await {
            Seen::Refused(_, _, why) => why,
            served @ Seen::Served(..) => panic!("expected a refusal: {served:?}"),
        }
    }
}

/// A listener in clear on a port of the system's choice.
fn spec(name: &str) -> ListenerSpec {
    ListenerSpec {
        name: name.into(),
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        protocols: Protocols::H1,
        limits: Limits::default(),
        tls: None,
    }
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("accepted")
}

/// Sends a word and expects it back.
async fn ping(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    stream.write_all(b"ping").await.expect("written");
    stream.flush().await.expect("flushed");
    expect(stream, "ping").await;
}

async fn expect(stream: &mut (impl AsyncRead + Unpin), word: &str) {
    let mut buffer = vec![0; word.len()];
    timeout(PATIENCE, stream.read_exact(&mut buffer)).await.expect("in time").expect("an answer");
    assert_eq!(String::from_utf8_lossy(&buffer), word);
}

/// Expects the other side to close, by the end of the stream or a reset.
async fn expect_closed(stream: &mut (impl AsyncRead + Unpin)) {
    let mut rest = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("in time");
    assert!(end.is_err() || rest.is_empty(), "expected nothing but the end: {rest:?}");
}
