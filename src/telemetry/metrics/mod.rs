//! What is counted: one set of metric families for the life of the process.
//!
//! A request is counted through handles ([`RouteMetrics`], [`UpstreamMetrics`], [`ListenerMetrics`]) that are resolved
//! when a snapshot is compiled: counting is a few relaxed atomic additions, without lookup, lock or allocation.
//! Which handles are exposed is replaced as a whole when a snapshot comes into force ([`Metrics::expose`]). There are
//! no global statics, and no label value comes from a request (`labels`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use prometheus::Registry;

use crate::model::ids::{LimitName, ListenerName, RouteName, UpstreamName};
use crate::model::verdict::Code;

mod cells;
mod exposition;
mod families;
mod labels;
mod series;

pub use cells::{Counter, Durations, Gauge};
pub use families::{FamilyDoc, Kind, families};
pub use labels::{Handshake, KeyRefresh, MethodLabel, NonRequest, Refused, Reload, Resolution};
pub use series::{
    ActiveConnection, Finished, GuardSource, LimitMetrics, LimitStoreMetrics, ListenerMetrics, RouteMetrics,
    UpstreamMetrics,
};

use cells::Counters;
use exposition::Samples;

/// The media type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The label `route` of requests that matched none, as in the access log.
pub const NO_ROUTE: &str = "-";

/// How the names of our own families begin; the others are the process's.
const OUR_PREFIX: &str = "portcullis_";

/// All metrics of the process. Made once and shared.
#[derive(Debug)]
pub struct Metrics {
    cells: Arc<Cells>,
    registry: Registry,
    unrouted: Arc<RouteMetrics>,
}

/// The handles of one snapshot, in the order of the names that were asked for.
#[derive(Debug, Clone, Default)]
pub struct Exposed {
    /// One for each route.
    pub routes: Vec<Arc<RouteMetrics>>,
    /// One for each upstream.
    pub upstreams: Vec<Arc<UpstreamMetrics>>,
    /// One for each listener.
    pub listeners: Vec<Arc<ListenerMetrics>>,
    /// Where the states of breakers and limits are read, for each upstream.
    pub guards: Vec<GuardSource>,
    /// One for each rate limit.
    pub limits: Vec<Arc<LimitMetrics>>,
    /// One for each store of rate limits.
    pub limit_stores: Vec<Arc<LimitStoreMetrics>>,
}

impl Metrics {
    /// Metrics of which nothing has been counted yet.
    #[must_use]
    #[expect(
        clippy::expect_used,
        clippy::missing_panics_doc,
        reason = "at start-up; a test registers the constant table"
    )]
    pub fn new() -> Arc<Self> {
        let unrouted = Arc::new(RouteMetrics::new(NO_ROUTE.into()));
        let cells = Arc::new(Cells::default());
        let registry = exposition::registry(&cells).expect("the table of families has no duplicate and no bad name");
        let metrics = Self { cells, registry, unrouted };
        metrics.expose(&Exposed::default());
        Arc::new(metrics)
    }

    /// The handles of routes: those that are exposed under these names, new ones for the others.
    #[must_use]
    pub fn for_routes(&self, names: &[RouteName]) -> Vec<Arc<RouteMetrics>> {
        let exposed = self.cells.exposed.read();
        resolve(names, &exposed.routes, RouteMetrics::name, RouteMetrics::new)
    }

    /// The handles of upstreams: those that are exposed under these names, new ones for the others.
    #[must_use]
    pub fn for_upstreams(&self, names: &[UpstreamName]) -> Vec<Arc<UpstreamMetrics>> {
        let exposed = self.cells.exposed.read();
        resolve(names, &exposed.upstreams, UpstreamMetrics::name, UpstreamMetrics::new)
    }

    /// The handles of listeners: those that are exposed under these names, new ones for the others.
    #[must_use]
    pub fn for_listeners(&self, names: &[ListenerName]) -> Vec<Arc<ListenerMetrics>> {
        let exposed = self.cells.exposed.read();
        resolve(names, &exposed.listeners, ListenerMetrics::name, ListenerMetrics::new)
    }

    /// The handles of rate limits: those that are exposed under these names, new ones for the others.
    #[must_use]
    pub fn for_limits(&self, names: &[LimitName]) -> Vec<Arc<LimitMetrics>> {
        let exposed = self.cells.exposed.read();
        resolve(names, &exposed.limits, LimitMetrics::name, LimitMetrics::new)
    }

    /// The handles of stores of rate limits: those that are exposed under these names, new ones for the others.
    #[must_use]
    pub fn for_limit_stores(&self, names: &[Arc<str>]) -> Vec<Arc<LimitStoreMetrics>> {
        let exposed = self.cells.exposed.read();
        resolve(names, &exposed.limit_stores, LimitStoreMetrics::name, LimitStoreMetrics::new)
    }

    /// The handle of one listener: the exposed one, or one that nobody sees when it is not configured any more.
    #[must_use]
    pub fn listener(&self, name: &ListenerName) -> Arc<ListenerMetrics> {
        let exposed = self.cells.exposed.read();
        let known = exposed.listeners.iter().find(|listener| listener.name() == name);
        known.map_or_else(|| Arc::new(ListenerMetrics::new(name.clone())), Arc::clone)
    }

    /// The handle for requests that match no route. Always exposed.
    #[must_use]
    pub fn unrouted(&self) -> &Arc<RouteMetrics> {
        &self.unrouted
    }

    /// Exposes these handles and no others; called when a snapshot has come into force. Series of what is no longer
    /// configured end here, and what is still counted on their handles brings nothing back.
    pub fn expose(&self, live: &Exposed) {
        let mut live = live.clone();
        live.routes.push(Arc::clone(&self.unrouted));
        dedup_by_name(&mut live.routes, RouteMetrics::name);
        dedup_by_name(&mut live.upstreams, UpstreamMetrics::name);
        dedup_by_name(&mut live.listeners, ListenerMetrics::name);
        live.guards.sort_by(|a, b| a.upstream().cmp(b.upstream()));
        live.guards.dedup_by(|a, b| a.upstream() == b.upstream());
        dedup_by_name(&mut live.limits, LimitMetrics::name);
        dedup_by_name(&mut live.limit_stores, LimitStoreMetrics::name);
        *self.cells.exposed.write() = live;
    }

    /// Counts a refusal.
    pub fn rejected(&self, code: Code) {
        self.cells.rejections.inc(code as usize);
    }

    /// Counts a fetch of an issuer's keys.
    pub fn keys_refreshed(&self, result: KeyRefresh) {
        self.cells.key_refreshes.inc(result as usize);
    }

    /// Counts the resolution of a name.
    pub fn resolved(&self, result: Resolution) {
        self.cells.resolutions.inc(result as usize);
    }

    /// Notes that a configuration came into force: its generation, and when, as time since the Unix epoch.
    pub fn config_applied(&self, generation: u64, at: Duration) {
        self.cells.reloads.inc(Reload::Applied as usize);
        self.cells.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.cells.last_success.set(i64::try_from(at.as_secs()).unwrap_or(i64::MAX));
        self.cells.last_reload_ok.set(1);
    }

    /// Notes that a configuration was refused.
    pub fn config_refused(&self) {
        self.cells.reloads.inc(Reload::Refused as usize);
        self.cells.last_reload_ok.set(0);
    }

    /// Notes that draining has begun.
    pub fn draining(&self) {
        self.cells.draining.set(1);
    }

    /// What the access log counts of itself.
    #[must_use]
    pub fn access_log(&self) -> &AccessLogMetrics {
        &self.cells.access_log
    }

    /// The exposition in Prometheus's text format 0.0.4 ([`CONTENT_TYPE`]).
    #[must_use]
    pub fn render(&self) -> Vec<u8> {
        exposition::render(&self.registry)
    }
}

/// What the access log counts of itself.
#[derive(Debug, Default)]
pub struct AccessLogMetrics {
    /// Lines that reached the destination.
    pub lines: Counter,
    /// Lines for which there was no room.
    pub dropped: Counter,
    /// Writes that failed.
    pub write_errors: Counter,
}

/// Everything that is counted.
#[derive(Debug, Default)]
struct Cells {
    exposed: RwLock<Exposed>,
    rejections: Counters<{ Code::ALL.len() }>,
    key_refreshes: Counters<{ KeyRefresh::ALL.len() }>,
    resolutions: Counters<{ Resolution::ALL.len() }>,
    reloads: Counters<{ Reload::ALL.len() }>,
    generation: Gauge,
    last_success: Gauge,
    last_reload_ok: Gauge,
    draining: Gauge,
    access_log: AccessLogMetrics,
}

impl Cells {
    fn read(&self, out: &mut Samples) {
        // handles are cloned out, so that a scrape never makes a reload wait
        let exposed = self.exposed.read().clone();
        exposed.routes.iter().for_each(|route| route.read(out));
        exposed.upstreams.iter().for_each(|upstream| upstream.read(out));
        exposed.listeners.iter().for_each(|listener| listener.read(out));
        exposed.guards.iter().for_each(|source| source.read(out));
        exposed.limits.iter().for_each(|limit| limit.read(out));
        exposed.limit_stores.iter().for_each(|store| store.read(out));
        for (code, value) in Code::ALL.iter().zip(self.rejections.values()) {
            out.counter(&families::REJECTIONS, &[code.as_str()], value);
        }
        for (result, value) in KeyRefresh::ALL.iter().zip(self.key_refreshes.values()) {
            out.counter(&families::KEY_REFRESHES, &[result.as_str()], value);
        }
        for (result, value) in Resolution::ALL.iter().zip(self.resolutions.values()) {
            out.counter(&families::RESOLUTIONS, &[result.as_str()], value);
        }
        for (result, value) in Reload::ALL.iter().zip(self.reloads.values()) {
            out.counter(&families::RELOADS, &[result.as_str()], value);
        }
        out.gauge(&families::GENERATION, &[], self.generation.get());
        out.gauge(&families::LAST_SUCCESS, &[], self.last_success.get());
        out.gauge(&families::LAST_RELOAD_OK, &[], self.last_reload_ok.get());
        out.gauge(&families::DRAINING, &[], self.draining.get());
        out.gauge(&families::BUILD, &[env!("CARGO_PKG_VERSION")], 1);
        out.counter(&families::LOG_LINES, &[], self.access_log.lines.get());
        out.counter(&families::LOG_DROPPED, &[], self.access_log.dropped.get());
        out.counter(&families::LOG_ERRORS, &[], self.access_log.write_errors.get());
    }
}

/// A handle for each name, in order: the exposed one, or a new one; the same one for a name that comes twice.
fn resolve<N, H>(names: &[N], exposed: &[Arc<H>], name_of: fn(&H) -> &N, make: fn(N) -> H) -> Vec<Arc<H>>
where
    N: Clone + Eq + std::hash::Hash,
{
    let mut by_name: HashMap<N, Arc<H>> =
        exposed.iter().map(|handle| (name_of(handle).clone(), Arc::clone(handle))).collect();
    let handle = |name: &N| Arc::clone(by_name.entry(name.clone()).or_insert_with(|| Arc::new(make(name.clone()))));
    names.iter().map(handle).collect()
}

/// One handle for each name: two series with the same labels would make the whole scrape invalid.
fn dedup_by_name<N: Ord, H>(handles: &mut Vec<Arc<H>>, name_of: fn(&H) -> &N) {
    handles.sort_by(|a, b| name_of(a).cmp(name_of(b)));
    handles.dedup_by(|a, b| name_of(a) == name_of(b));
}

#[cfg(test)]
mod tests;
