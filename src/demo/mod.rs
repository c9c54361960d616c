//! The built-in demo app: a small origin on a loopback port, so that `upstream = "demo"` shows a gateway at work with
//! nothing else installed.
//!
//! It speaks HTTP/1.1 and clear-text HTTP/2 by prior knowledge, decides nothing about proxying and knows no other
//! module. Everything that it keeps, sends or waits for has a bound, since whoever reaches the gateway reaches it too.

mod answers;
mod orders;
mod streams;

use std::future::IntoFuture;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use orders::Orders;

/// The longest request body that the app reads.
const MAX_REQUEST_BODY: usize = 1 << 20;

/// A running demo app. It stops accepting, and ends its connections after their current request, when dropped.
#[derive(Debug)]
pub struct DemoApp {
    /// Where it listens: a loopback address with the port that the system chose.
    pub address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

/// Starts a demo app of its own on the current runtime. Fails when no loopback port can be bound.
pub async fn start() -> io::Result<DemoApp> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel();
    let served = axum::serve(listener, app()).with_graceful_shutdown(async {
        // an error means that the sender is gone, which is how a demo app is stopped
        let _ = stopped.await;
    });
    tokio::spawn(served.into_future());
    Ok(DemoApp { address, _stop: stop })
}

/// What the endpoints share: one value per running app, so two apps never see each other's orders.
#[derive(Debug, Default)]
struct State {
    orders: Mutex<Orders>,
    flaky_requests: AtomicU64,
    cacheable_answers: AtomicU64,
}

fn app() -> Router {
    Router::new()
        .route("/", get(answers::index))
        .route("/healthz", get(answers::healthz))
        .route("/echo", any(answers::echo))
        .route("/status/{code}", any(answers::status))
        .route("/delay/{ms}", any(answers::delay))
        .route("/flaky", any(answers::flaky))
        .route("/cacheable", get(answers::cacheable))
        .route("/openapi.json", get(answers::openapi))
        .route("/orders", get(orders::list).post(orders::create))
        .route("/orders/{id}", get(orders::show))
        .route("/bytes/{count}", get(streams::bytes))
        .route("/drip", get(streams::drip))
        .route("/sse", get(streams::sse))
        .fallback(answers::not_found)
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BODY))
        .with_state(Arc::new(State::default()))
}

/// A request that an endpoint does not take, with the sentence that says why.
#[derive(Debug)]
struct Refused {
    status: StatusCode,
    why: String,
}

impl Refused {
    fn bad_request(why: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, why: why.into() }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, axum::Json(serde_json::json!({ "error": self.why }))).into_response()
    }
}

/// Parses a duration written with its unit, such as `250ms`, and holds it below `longest`.
fn bounded_duration(text: &str, longest: std::time::Duration) -> Result<std::time::Duration, Refused> {
    let duration = humantime::parse_duration(text)
        .map_err(|_| Refused::bad_request(format!("not a duration with a unit, such as 250ms: {text}")))?;
    if duration > longest {
        return Err(Refused::bad_request(format!("at most {}: {text}", humantime::format_duration(longest))));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests;
