//! An HTTP/2 client over the `h2` crate, in clear by prior knowledge or over TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::message::Fields;
use super::wire::Io;
use super::within;

/// One connection.
pub struct H2Client {
    pub send: SendRequest<Bytes>,
    /// Ends when the connection does; says how.
    pub connection: JoinHandle<Result<(), h2::Error>>,
}

/// A response that has arrived whole.
#[derive(Debug, Clone)]
pub struct H2Response {
    pub status: u16,
    pub fields: Fields,
    pub body: Vec<u8>,
    pub trailers: Option<Fields>,
}

impl H2Response {
    /// A field's value; panics when it stands twice.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name)
    }

    /// The code of a refusal; panics when this is not a refusal in the form of the contract.
    #[track_caller]
    pub fn code(&self) -> String {
        let problem = serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        super::message::refusal(self.status, &self.fields, &problem)
    }
}

/// A stream whose request head has been sent.
pub struct Stream {
    pub response: ResponseFuture,
    pub send: SendStream<Bytes>,
}

impl H2Client {
    /// Connects in clear and speaks HTTP/2 at once (RFC 9113 §3.3).
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = within("the connection", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(Box::new(stream)).await
    }

    /// Connects over TLS; the server has to choose HTTP/2.
    pub async fn connect_tls(address: SocketAddr, config: &Arc<ClientConfig>, name: &'static str) -> Self {
        let stream = within("the connection", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from(name).unwrap();
        let connector = TlsConnector::from(Arc::clone(config));
        let stream = within("the TLS handshake", connector.connect(name, stream)).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        Self::over(Box::new(stream)).await
    }

    async fn over(io: Box<dyn Io>) -> Self {
        // no single stream may use up what all of them share
        let mut settings = h2::client::Builder::new();
        settings.initial_window_size(64 * 1024).initial_connection_window_size(16 * 1024 * 1024);
        let (send, connection) = within("the HTTP/2 handshake", settings.handshake(io)).await.unwrap();
        Self { send, connection: tokio::spawn(connection) }
    }

    /// Sends a head; `end`: nothing follows.
    pub async fn begin(&mut self, request: Request<()>, end: bool) -> Stream {
        self.send = within("a stream may be opened", self.send.clone().ready()).await.unwrap();
        let (response, send) = self.send.send_request(request, end).unwrap();
        Stream { response, send }
    }

    /// A GET and its response.
    pub async fn get(&mut self, uri: &str) -> H2Response {
        self.request(Request::get(uri).body(()).unwrap(), &[]).await
    }

    /// Sends a request with its body and reads the response.
    pub async fn request(&mut self, request: Request<()>, body: &[u8]) -> H2Response {
        let end = body.is_empty() && request.method() != Method::POST;
        let mut stream = self.begin(request, end).await;
        if !end {
            stream.send.send_data(Bytes::copy_from_slice(body), true).unwrap();
        }
        stream.whole().await
    }
}

impl Stream {
    /// Reads the response to its end.
    pub async fn whole(self) -> H2Response {
        self.result().await.expect("a whole response")
    }

    /// The response, or how the stream broke.
    pub async fn result(self) -> Result<H2Response, h2::Error> {
        // the sending half stays until the response is there: dropping it would reset the stream
        let Self { response, send: _send } = self;
        let (head, mut body) = within("a response head", response).await?.into_parts();
        let bytes = within("a response body", read(&mut body)).await?;
        let trailers = within("trailers", body.trailers()).await?;
        Ok(H2Response {
            status: head.status.as_u16(),
            fields: Fields::of(&head.headers),
            body: bytes,
            trailers: trailers.as_ref().map(Fields::of),
        })
    }
}

/// Reads a body to its end, giving the window back as it goes.
pub async fn read(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// Sends all of a body as the window allows.
pub async fn write(send: &mut SendStream<Bytes>, mut bytes: Bytes, end: bool) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        send.reserve_capacity(bytes.len());
        let window = match std::future::poll_fn(|cx| send.poll_capacity(cx)).await {
            Some(window) => window?,
            None => return Err(h2::Reason::STREAM_CLOSED.into()),
        };
        let piece = bytes.split_to(window.min(bytes.len()));
        send.send_data(piece, end && bytes.is_empty())?;
    }
    Ok(())
}

/// Trailers of one field.
pub fn trailers(name: &'static str, value: &'static str) -> HeaderMap {
    let mut map = HeaderMap::new();
    map.insert(name, value.parse().unwrap());
    map
}
