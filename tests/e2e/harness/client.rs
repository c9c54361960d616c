//! A client that sends bytes and reads responses by their framing, over TCP or TLS. Each wait has a bound.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::message::Response;
use super::wire::{Body, End, Wire};
use super::within;

/// One connection to the gateway, or to whatever else speaks HTTP/1.
pub struct Client {
    pub wire: Wire,
}

impl Client {
    /// Connects in clear.
    pub async fn connect(address: SocketAddr) -> Self {
        let wire = within("the connection", Wire::connect(address)).await.unwrap();
        Self { wire }
    }

    /// Connects over TLS; fails the test when the handshake does.
    pub async fn connect_tls(address: SocketAddr, config: &Arc<ClientConfig>, name: &'static str) -> Self {
        Self::try_connect_tls(address, config, name).await.unwrap()
    }

    /// Connects over TLS.
    pub async fn try_connect_tls(
        address: SocketAddr,
        config: &Arc<ClientConfig>,
        name: &'static str,
    ) -> std::io::Result<Self> {
        let stream = within("the connection", TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        let socket = socket2::SockRef::from(&stream).try_clone()?;
        let connector = TlsConnector::from(Arc::clone(config));
        let name = ServerName::try_from(name).expect("a server name");
        let stream = within("the TLS handshake", connector.connect(name, stream)).await?;
        Ok(Self { wire: Wire::new(Box::new(stream), Some(socket)) })
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("the gateway takes bytes", self.wire.send(bytes)).await.unwrap();
    }

    /// Sends bytes to a peer that may have gone.
    pub async fn send_or_lose(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = within("the gateway takes bytes or goes", self.wire.send(bytes)).await;
    }

    /// A GET with no further fields, and its response.
    pub async fn get(&mut self, target: &str) -> Response {
        self.request(&format!("GET {target} HTTP/1.1\r\nHost: example.com\r\n\r\n")).await
    }

    /// Sends a request without a body, or with one, and reads its response.
    pub async fn request(&mut self, request: &str) -> Response {
        self.send(request).await;
        self.response_to(request.split(' ').next().unwrap_or_default()).await
    }

    /// The response to a request of any method but HEAD.
    pub async fn response(&mut self) -> Response {
        self.response_to("GET").await
    }

    /// The response to a request of that method: whether there is a body depends on it.
    pub async fn response_to(&mut self, method: &str) -> Response {
        self.try_response_to(method).await.expect("a response, not the end of the connection")
    }

    /// The response, or `None` when the connection ends instead.
    pub async fn try_response_to(&mut self, method: &str) -> Option<Response> {
        let mut interim = Vec::new();
        loop {
            let mut response = self.try_head().await?;
            if (100..200).contains(&response.status) && response.status != 101 {
                interim.push((response.status, response.fields));
                continue;
            }
            let body = within("the response's body", self.body_of(&response, method)).await;
            (response.body, response.trailers, response.whole) = (body.bytes, body.trailers, body.whole);
            response.interim = interim;
            return Some(response);
        }
    }

    /// The next head, also an interim one, without a body.
    pub async fn head(&mut self) -> Response {
        self.try_head().await.expect("a response head, not the end of the connection")
    }

    /// The next head, or `None` when the connection ends in place of it.
    pub async fn try_head(&mut self) -> Option<Response> {
        match within("a response head", self.wire.head()).await {
            Ok(head) => head.map(|head| Response::parse(&head)),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => panic!("{error}"),
            Err(_) => None,
        }
    }

    /// The body that belongs to a head (RFC 9112 §6.3).
    pub async fn body_of(&mut self, head: &Response, method: &str) -> Body {
        if method == "HEAD" || matches!(head.status, 100..200 | 204 | 304) {
            return Body { whole: true, ..Body::default() };
        }
        if let Some(coding) = head.field("transfer-encoding") {
            assert!(!head.fields.has("content-length"), "two lengths: {head:?}");
            assert_eq!(coding, "chunked", "{head:?}");
            return self.wire.chunked().await;
        }
        match head.field("content-length") {
            Some(length) => self.wire.sized(length.parse().expect("a length")).await,
            None => self.wire.rest().await,
        }
    }

    /// That many bytes of a body.
    pub async fn exactly(&mut self, length: usize) -> Vec<u8> {
        let bytes = within("bytes of a body", self.wire.at_most(length)).await;
        assert_eq!(bytes.len(), length, "the connection ended: {:?}", String::from_utf8_lossy(&bytes));
        bytes
    }

    /// Waits until the gateway ends the connection, having sent nothing more.
    #[track_caller]
    pub fn closed(&mut self) -> impl Future<Output = End> {
        let caller = std::panic::Location::caller();
        async move {
            let (end, rest) = within("the gateway closes the connection", self.wire.end()).await;
            assert!(rest.is_empty(), "before the end, at {caller}: {:?}", String::from_utf8_lossy(&rest));
            end
        }
    }

    /// Whether the connection is still usable: a whole GET works on it.
    pub async fn is_alive(&mut self) -> bool {
        if self.wire.send("GET /alive HTTP/1.1\r\nHost: example.com\r\n\r\n").await.is_err() {
            return false;
        }
        self.try_response_to("GET").await.is_some()
    }
}

/// One GET on a connection of its own.
pub async fn get(address: SocketAddr, target: &str) -> Response {
    Client::connect(address).await.get(target).await
}

/// One request on a connection of its own; the request is written whole.
pub async fn ask(address: SocketAddr, request: &str) -> Response {
    Client::connect(address).await.request(request).await
}
