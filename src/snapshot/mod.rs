//! The compiled configuration: what the operator wrote, resolved into immutable values that a request can pin.
//!
//! `compile` makes it from the document, purely and with all mistakes at once; state that outlives a reload (endpoints, TLS
//! tickets, rate limits) is handed over from the previous snapshot where its owner and settings are equal.

mod compile;
pub mod tls;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderName;
use rustls::ClientConfig;

pub use self::compile::{Assets, Input, address, compile, paths, spec_paths};
use crate::model::ids::RouteName;
use crate::model::listener::ListenerSpec;
use crate::model::prefixes::PrefixSet;
use crate::model::source::Origin;
use crate::policy::Policies;
use crate::policy::auth::{Consumers, KeyRing};
use crate::policy::rate_limit::Ledger;
use crate::policy::validate::openapi::Description;
use crate::routing::Router;
use crate::upstream::{Split, Upstream};

/// A whole configuration, ready to be served.
#[derive(Debug)]
pub struct Snapshot {
    /// How many configurations came into force before this one.
    pub generation: u64,
    /// Where clients connect.
    pub listeners: Vec<Listener>,
    /// Finds the route of a request.
    pub router: Router,
    /// The routes, by the index that the router names.
    pub routes: Vec<Route>,
    /// The upstreams, by the index that routes name.
    pub upstreams: Vec<UpstreamEntry>,
    /// Who is known by name.
    pub consumers: Option<Arc<Consumers>>,
    /// The keys of issuers that routes believe.
    pub key_rings: Vec<Arc<KeyRing>>,
    /// The buckets of its rate limits.
    pub limits: Ledger,
    /// Descriptions of APIs by name: the next snapshot takes over those whose files are equal.
    pub descriptions: BTreeMap<String, Arc<Description>>,
    /// The fields by which any route tells its upstream who calls: no client may send one, on whatever route.
    pub identity_fields: Vec<HeaderName>,
    /// Whose forwarding fields are believed.
    pub trusted_proxies: PrefixSet,
}

/// A listener and what a reload hands over.
#[derive(Debug)]
pub struct Listener {
    /// What the edge obeys.
    pub spec: Arc<ListenerSpec>,
    /// TLS with its ticket keys, where there is TLS.
    pub tls: Option<tls::ServerTls>,
    /// Where it is written.
    pub origin: Origin,
}

/// A route, compiled.
#[derive(Debug)]
pub struct Route {
    /// Its name.
    pub name: RouteName,
    /// Where it is written.
    pub origin: Origin,
    /// Its policies.
    pub policies: Policies,
    /// Indices of its upstreams with their shares; `None` where a policy answers.
    pub upstream: Option<Split<usize>>,
    /// The path goes upstream as it was received.
    pub raw_path: bool,
}

/// An upstream and the TLS towards it.
#[derive(Debug)]
pub struct UpstreamEntry {
    /// Endpoints and balancing.
    pub upstream: Upstream,
    /// For its `https://` endpoints.
    pub tls: Option<Arc<ClientConfig>>,
    /// What the TLS was made from: with the same, its sessions go on over a reload.
    pub(crate) tls_files: Vec<Bytes>,
}
