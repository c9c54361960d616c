//! Finds the route, or says 404 or 405.

use http::Method;
use http::header::ALLOW;

use super::exchange::Exchange;
use crate::model::request::RequestView;
use crate::model::verdict::{Code, Rejection};
use crate::policy::Policies;
use crate::policy::cors::requested_method;
use crate::routing::{Found, Match};
use crate::snapshot::{Route, Snapshot};

/// The route of the exchange.
pub fn route<'s>(snapshot: &'s Snapshot, exchange: &mut Exchange) -> Result<&'s Route, Rejection> {
    let found = find(snapshot, &exchange.view())?;
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

fn find(snapshot: &Snapshot, request: &RequestView<'_>) -> Result<Match, Rejection> {
    // A preflight asks on behalf of another method: the route of that one answers it, when it has `cors` (Fetch, §3.3.5).
    if let Some(found) = preflight(snapshot, request) {
        return Ok(found);
    }
    match snapshot.router.find(request) {
        Found::Match(found) => Ok(found),
        Found::NotFound => Err(Rejection::new(Code::NoRoute, "no route takes this host and path")),
        Found::MethodNotAllowed(allow) => {
            let refusal = Rejection::new(Code::MethodNotAllowed, "no route takes this method here");
            Err(refusal.header(ALLOW, allow.header_value()))
        }
    }
}

/// The method on whose behalf a preflight asks; `None` for a request that is none.
#[must_use]
pub fn asked_for(request: &RequestView<'_>) -> Option<Method> {
    let wanted = requested_method(request.method, request.headers)?;
    Method::from_bytes(wanted.as_bytes()).ok()
}

fn preflight(snapshot: &Snapshot, request: &RequestView<'_>) -> Option<Match> {
    let method = asked_for(request)?;
    let Found::Match(found) = snapshot.router.find(&RequestView { method: &method, ..*request }) else { return None };
    let Policies {
        access: _,
        rate_limit: _,
        cors,
        auth: _,
        validate: _,
        redirect: _,
        respond: _,
        rewrite: _,
        headers: _,
        compress: _,
        timeout: _,
        retry: _,
        hedge: _,
        fallback: _,
    } = &snapshot.routes.get(found.route)?.policies;
    cors.is_some().then_some(found)
}
