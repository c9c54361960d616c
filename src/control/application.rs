//! Joins the edge to the engine: connections that were accepted are served by the exchange loop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::edge::{Application, Connection, HandshakeFailure, Io, Refused};
use crate::engine::serve::{self, Ground};
use crate::engine::transport;
use crate::engine::{Gateway, Worker};
use crate::model::ids::ListenerName;
use crate::model::request::Scheme;
use crate::pipeline::exchange::{ClientCertificate, Peer};
use crate::telemetry::access_log::Entry;
use crate::telemetry::metrics::{self, Handshake, NonRequest};

/// How often a worker closes idle upstream connections that are too old or were closed by their peer.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

impl Application for Gateway {
    type Worker = Arc<Worker>;

    fn worker(&self, index: usize) -> Self::Worker {
        let worker = Arc::new(Worker::new(self.telemetry.access_log.lane(index)));
        // Ends with the worker: it holds no strong reference.
        let (swept, clock) = (Arc::downgrade(&worker), self.clock.clone());
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP_EVERY).await;
                let Some(worker) = swept.upgrade() else { return };
                worker.pool.sweep(clock.now());
            }
        });
        worker
    }

    async fn serve(self: Arc<Self>, worker: Arc<Self::Worker>, connection: Connection) {
        let listener = self.telemetry.metrics.listener(&connection.info.listener.name);
        let _counted = listener.connected();
        if let Some(tls) = &connection.info.tls {
            listener.handshake(if tls.resumed { Handshake::Resumed } else { Handshake::Full });
        }
        let io = match connection.io {
            Io::Tcp(stream) => transport::Io::Tcp(stream),
            Io::Tls(stream) => transport::Io::ServerTls(stream),
        };
        let ground = Ground {
            gateway: self,
            worker: Arc::clone(&worker),
            peer_text: Arc::new(Peer::new(connection.info.peer.ip())),
            certificate: connection.info.tls.as_ref().and_then(|tls| {
                let shown = tls.client_certificate.as_ref()?;
                Some(Arc::new(ClientCertificate::read(shown)))
            }),
            info: connection.info,
            drain: connection.drain,
        };
        serve::connection(ground, io).await;
    }

    fn refused(&self, listener: &ListenerName, peer: Option<SocketAddr>, why: Refused) {
        let counted = self.telemetry.metrics.listener(listener);
        match why {
            Refused::ConnectionLimit => counted.refused(metrics::Refused::ConnectionLimit),
            Refused::Accept => counted.refused(metrics::Refused::Resources),
            Refused::Handshake(failure) => {
                counted.handshake(Handshake::Failed);
                counted.non_request(non_request(failure));
            }
        }
        if let (Refused::Handshake(failure), Some(peer)) = (why, peer) {
            self.telemetry.access_log.lane(0).record(&Entry {
                non_request: Some(non_request(failure)),
                ..Entry::new(unix_nanos(), listener.as_str(), Scheme::Https, peer)
            });
        }
        let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
        tracing::debug!(%listener, peer, reason = why.as_str(), "connection refused");
    }
}

const fn non_request(failure: HandshakeFailure) -> NonRequest {
    match failure {
        HandshakeFailure::Timeout => NonRequest::HandshakeTimeout,
        _ => NonRequest::TlsFailure,
    }
}

fn unix_nanos() -> u64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
}
