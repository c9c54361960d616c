//! Finds the route, or says 404 or 405.

use http::header::ALLOW;

use super::exchange::Exchange;
use crate::model::verdict::{Code, Rejection};
use crate::routing::Found;
use crate::snapshot::{Route, Snapshot};

/// The route of the exchange.
pub fn route<'s>(snapshot: &'s Snapshot, exchange: &mut Exchange) -> Result<&'s Route, Rejection> {
    let found = match snapshot.router.find(&exchange.view()) {
        Found::Match(found) => found,
        Found::NotFound => return Err(Rejection::new(Code::NoRoute, "no route takes this host and path")),
        Found::MethodNotAllowed(allow) => {
            let refusal = Rejection::new(Code::MethodNotAllowed, "no route takes this method here");
            return Err(refusal.header(ALLOW, allow.header_value()));
        }
    };
    let Some(route) = snapshot.routes.get(found.route) else {
        return Err(Rejection::new(Code::Internal, "the route is not there"));
    };
    exchange.route = Some(found.route);
    exchange.matched_prefix = found.prefix_len;
    match exchange.evasion {
        Some(evasion) if !route.raw_path => Err(Rejection::new(Code::BadRequest, evasion.as_str())),
        _ => Ok(route),
    }
}
