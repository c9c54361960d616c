//! What of an upstream's response reaches the client.

use super::exchange::Exchange;
use super::fail::X_REQUEST_ID;
use crate::model::response::{BodyLength, ResponseHead};
use crate::policy::compress::Encoder;
use crate::policy::hygiene::hop_by_hop::{Upgrading, strip_response};
use crate::policy::hygiene::forwarding;
use crate::snapshot::Route;

/// Prepares an interim head for the client.
pub fn interim(head: &mut ResponseHead) {
    strip_response(&mut head.headers, Upgrading::No);
}

/// Prepares the final head, and says whether the body is compressed on its way.
pub fn finish(
    route: &Route,
    exchange: &Exchange,
    head: &mut ResponseHead,
    length: BodyLength,
    upgraded: bool,
) -> Option<Encoder> {
    let _ = (route, length);
    strip_response(&mut head.headers, if upgraded { Upgrading::Yes } else { Upgrading::No });
    forwarding::via(&mut head.headers, http::Version::HTTP_11);
    head.headers.insert(X_REQUEST_ID, exchange.request_id.clone());
    None
}

/// Prepares a response of our own.
pub fn own(route: Option<&Route>, exchange: &Exchange, head: &mut ResponseHead) {
    let _ = route;
    head.headers.insert(X_REQUEST_ID, exchange.request_id.clone());
}
