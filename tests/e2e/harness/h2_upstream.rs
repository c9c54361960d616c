//! An upstream that speaks HTTP/2, in clear by prior knowledge or over TLS, one script per stream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Response};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::h2_client::{read, write};
use super::message::Fields;
use super::wire::Io;

/// A request head as it came.
#[derive(Debug, Clone)]
pub struct H2Request {
    pub method: String,
    pub scheme: Option<String>,
    pub authority: Option<String>,
    pub path: String,
    pub fields: Fields,
}

/// A running upstream. Ends with its connections when dropped.
pub struct H2Upstream {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<H2Request>>>,
    connections: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Drop for H2Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// One stream, for a script.
pub struct Exchange {
    pub request: H2Request,
    pub body: RecvStream,
    pub respond: SendResponse<Bytes>,
}

impl Exchange {
    /// Sends the response head; a body may follow.
    pub fn head(&mut self, response: Response<()>) -> Result<SendStream<Bytes>, h2::Error> {
        self.respond.send_response(response, false)
    }

    /// Sends a whole response.
    pub async fn answer(
        &mut self,
        response: Response<()>,
        body: Bytes,
        trailers: Option<HeaderMap>,
    ) -> Result<(), h2::Error> {
        let end = body.is_empty() && trailers.is_none();
        let mut send = self.respond.send_response(response, end)?;
        write(&mut send, body, trailers.is_none()).await?;
        match trailers {
            Some(trailers) => send.send_trailers(trailers),
            None => Ok(()),
        }
    }

    /// Reads the request's body and trailers.
    pub async fn read(&mut self) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
        let bytes = read(&mut self.body).await?;
        Ok((bytes, self.body.trailers().await?))
    }
}

impl H2Upstream {
    /// In clear.
    pub async fn start<F, Fut>(script: F) -> Self
    where
        F: Fn(Exchange) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), h2::Error>> + Send + 'static,
    {
        Self::start_on(None, script).await
    }

    /// Over TLS, and in clear when there is no acceptor.
    pub async fn start_on<F, Fut>(acceptor: Option<TlsAcceptor>, script: F) -> Self
    where
        F: Fn(Exchange) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), h2::Error>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, connections) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicUsize>::default());
        let (seen, made) = (Arc::clone(&requests), Arc::clone(&connections));
        let script = Arc::new(script);
        let accepting = tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                made.fetch_add(1, Ordering::AcqRel);
                stream.set_nodelay(true).unwrap();
                let (seen, script, acceptor) = (Arc::clone(&seen), Arc::clone(&script), acceptor.clone());
                tasks.spawn(async move {
                    let io: Box<dyn Io> = match acceptor {
                        None => Box::new(stream),
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => Box::new(stream),
                            Err(_) => return,
                        },
                    };
                    serve(io, &seen, &*script).await;
                });
            }
        });
        Self { address, requests, connections, accepting }
    }

    /// The request heads so far.
    pub fn requests(&self) -> Vec<H2Request> {
        self.requests.lock().clone()
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }

    /// An `[upstream.NAME]` for it, in clear.
    pub fn toml(&self, name: &str) -> String {
        format!("[upstream.{name}]\nendpoints = [\"http://{}\"]\nprotocol = \"h2\"\n", self.address)
    }
}

async fn serve<F, Fut>(io: Box<dyn Io>, seen: &Mutex<Vec<H2Request>>, script: &F)
where
    F: Fn(Exchange) -> Fut,
    Fut: Future<Output = Result<(), h2::Error>> + Send + 'static,
{
    // no single stream may use up what all of them share
    let mut settings = h2::server::Builder::new();
    settings.initial_window_size(64 * 1024).initial_connection_window_size(16 * 1024 * 1024);
    let Ok(mut connection) = settings.handshake(io).await else { return };
    let mut streams = JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (head, body) = request.into_parts();
        let request = H2Request {
            method: head.method.to_string(),
            scheme: head.uri.scheme_str().map(str::to_owned),
            authority: head.uri.authority().map(ToString::to_string),
            path: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
            fields: Fields::of(&head.headers),
        };
        seen.lock().push(request.clone());
        streams.spawn(script(Exchange { request, body, respond }));
    }
}
