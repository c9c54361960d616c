//! Brings a configuration into force, at the start and at every reload: all of it or nothing.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::RootCertStore;
use serde::Serialize;
use serde_json::Value as Json;
use tokio::runtime::Handle;

use super::configuration::{self, Read, Surroundings};
use super::dns::{LookupError, Resolver, SystemNames};
use super::probes::Probes;
use super::{keys, limits};
use crate::config::document::Document;
use crate::demo::{self, DemoApp};
use crate::edge::Workers;
use crate::engine::ask::Desk;
use crate::engine::{Gateway, Live};
use crate::model::clock::Clock;
use crate::model::ids::{LimitName, ListenerName, RouteName, UpstreamName};
use crate::model::listener::ListenerSpec;
use crate::snapshot::Snapshot;
use crate::snapshot::tls::{bundled_roots, system_roots};
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::{Exposed, GuardSource, Metrics, Resolution};

/// How long a reload waits for names that were never resolved; requests for them are refused until they are.
const RESOLVE_WITHIN: Duration = Duration::from_secs(3);
/// Default of `grace_period`.
const GRACE: Duration = Duration::from_secs(30);

/// What asked for a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// The program starts.
    Start,
    /// SIGHUP.
    Signal,
    /// A file changed.
    File,
    /// The admin API.
    Admin,
}

impl Trigger {
    /// The name in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Signal => "signal",
            Self::File => "file",
            Self::Admin => "admin",
        }
    }
}

/// A configuration that was refused; the one before stays in force.
#[derive(Debug, Clone, Serialize)]
pub struct Refused {
    /// In one line.
    pub summary: String,
    /// All findings, as `check --format json` prints them.
    pub diagnostics: Json,
    /// All findings for a person.
    #[serde(skip)]
    pub text: String,
}

impl Refused {
    /// Puts each finding on the log, in a line of its own.
    fn say(&self) {
        for finding in self.diagnostics.as_array().into_iter().flatten() {
            let text = |key: &str| finding.get(key).and_then(Json::as_str).unwrap_or_default();
            let line = finding.get("line").and_then(Json::as_u64).unwrap_or_default();
            let column = finding.get("column").and_then(Json::as_u64).unwrap_or_default();
            let at = format!("{}:{line}:{column}", text("file"));
            tracing::error!(code = text("code"), at, detail = text("message"), help = text("help"), "configuration");
        }
    }
}

/// What `/api/v1/config` shows.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Generation in force.
    pub generation: u64,
    /// When it came into force, in seconds since the Unix epoch.
    pub loaded_at: u64,
    /// What brought it.
    pub trigger: Trigger,
    /// The configuration with secrets redacted.
    pub config: Json,
    /// The last attempt to reload, when it was refused.
    pub last_error: Option<LastError>,
}

/// A refused reload.
#[derive(Debug, Clone, Serialize)]
pub struct LastError {
    /// When, in seconds since the Unix epoch.
    pub at: u64,
    /// What asked for it.
    pub trigger: Trigger,
    /// Why.
    #[serde(flatten)]
    pub refused: Refused,
}

/// Owns everything that a configuration brings to life.
pub struct Supervisor {
    path: PathBuf,
    gateway: Arc<Gateway>,
    workers: Workers<Gateway>,
    resolver: Resolver,
    probes: Probes,
    roots: Arc<RootCertStore>,
    status: Mutex<Status>,
    files: Mutex<Vec<PathBuf>>,
    /// Of the configuration that was read last, in force or refused.
    fingerprint: AtomicU64,
    grace: Mutex<Duration>,
    draining: AtomicBool,
    /// Names this process among the gateways that share limits.
    node: Arc<str>,
    /// The demo app, once a route has wanted it; and the turn of reloads, one after the other.
    turn: tokio::sync::Mutex<Option<DemoApp>>,
}

impl Supervisor {
    /// Brings the configuration that was read into force for the first time.
    pub async fn start(mut read: Read) -> Result<Arc<Self>, Failure> {
        let roots = native_roots();
        let demo = start_demo(&read, None).await?;
        let surroundings = Surroundings { previous: None, roots: &roots, demo: demo.as_ref().map(|demo| demo.address) };
        let Some(snapshot) = read.compile(&surroundings) else { return Err(Failure::Refused(refused(&read))) };
        let Some(document) = &read.document else { return Err(Failure::Refused(refused(&read))) };
        let workers = worker_count(document);
        let telemetry = Telemetry::start(&document.telemetry, workers.get()).map_err(broken)?;
        for warning in read.diagnostics.as_slice() {
            tracing::warn!(code = warning.code, detail = warning.message, "configuration");
        }
        let snapshot = Arc::new(snapshot);
        let clock = Clock::monotonic();
        let exposed = handles(&telemetry.metrics, &snapshot, &clock);
        let specs = specs(&snapshot);
        let (desk, wishes) = Desk::new(workers.get());
        let gateway = Arc::new(Gateway {
            live: ArcSwap::from_pointee(Live { snapshot: Arc::clone(&snapshot), metrics: exposed.clone() }),
            clock,
            telemetry: Arc::new(telemetry),
            desk,
        });
        tokio::spawn(keys::run(Arc::clone(&gateway), wishes));
        let names = SystemNames::new().map_err(broken)?;
        let supervisor = Arc::new(Self {
            path: read.path.clone(),
            workers: Workers::start(workers, Arc::clone(&gateway)).map_err(broken)?,
            resolver: Resolver::new(names, Handle::current(), fastrand::u64(..)).counted(count_resolutions(&gateway)),
            probes: Probes::new(gateway.clock.clone(), Handle::current(), fastrand::u64(..)),
            roots,
            status: Mutex::new(Status {
                generation: snapshot.generation,
                loaded_at: unix_seconds(),
                trigger: Trigger::Start,
                config: read.redacted.clone(),
                last_error: None,
            }),
            files: Mutex::new(read.files.clone()),
            fingerprint: AtomicU64::new(read.fingerprint),
            grace: Mutex::new(grace(document)),
            draining: AtomicBool::new(false),
            node: format!("{:032x}", configuration::random_seed()).into(),
            turn: tokio::sync::Mutex::new(demo),
            gateway,
        });
        tokio::spawn(limits::sweep(Arc::downgrade(&supervisor.gateway)));
        supervisor.resolve(&snapshot).await;
        supervisor.gateway.telemetry.metrics.expose(&exposed);
        supervisor.workers.apply(&specs).await.map_err(broken)?;
        supervisor.applied(&snapshot);
        Ok(supervisor)
    }

    /// Reads the configuration again and brings it into force; on any error everything stays as it is.
    pub async fn reload(&self, trigger: Trigger) -> Result<u64, Refused> {
        let mut turn = self.turn.lock().await;
        let result = self.try_reload(&mut turn).await;
        match &result {
            Ok((snapshot, read)) => {
                let mut status = self.status.lock();
                status.generation = snapshot.generation;
                status.loaded_at = unix_seconds();
                status.trigger = trigger;
                status.config = read.redacted.clone();
                status.last_error = None;
                drop(status);
                let trigger = trigger.as_str();
                tracing::info!(generation = snapshot.generation, trigger, "configuration in force");
            }
            Err(refused) => {
                self.gateway.telemetry.metrics.config_refused();
                tracing::error!(
                    reason = refused.summary,
                    trigger = trigger.as_str(),
                    "configuration refused, the one before stays"
                );
                refused.say();
                let error = LastError { at: unix_seconds(), trigger, refused: refused.clone() };
                self.status.lock().last_error = Some(error);
            }
        }
        result.map(|(snapshot, _)| snapshot.generation)
    }

    async fn try_reload(&self, turn: &mut Option<DemoApp>) -> Result<(Arc<Snapshot>, Read), Refused> {
        let path = self.path.clone();
        let mut read =
            tokio::task::spawn_blocking(move || configuration::read(&path)).await.map_err(|error| failed(&error))?;
        // What could not be read is watched too: the next change may be its mending.
        self.files.lock().clone_from(&read.files);
        self.fingerprint.store(read.fingerprint, Ordering::Release);
        if let Some(demo) = start_demo(&read, turn.as_ref()).await.map_err(|error| failed(&error))? {
            *turn = Some(demo);
        }
        let live = self.gateway.live.load_full();
        let surroundings = Surroundings {
            previous: Some(&live.snapshot),
            roots: &self.roots,
            demo: turn.as_ref().map(|demo| demo.address),
        };
        let Some(snapshot) = read.compile(&surroundings) else { return Err(refused(&read)) };
        let Some(document) = &read.document else { return Err(refused(&read)) };
        let telemetry = &self.gateway.telemetry;
        let prepared = telemetry.prepare(&document.telemetry).map_err(|error| failed(&error))?;
        let snapshot = Arc::new(snapshot);
        self.resolve(&snapshot).await;
        // Nothing has changed until here; binding is the last thing that can fail, and undoes itself.
        let exposed = handles(&telemetry.metrics, &snapshot, &self.gateway.clock);
        self.workers.apply(&specs(&snapshot)).await.map_err(|error| failed(&error))?;
        self.gateway.live.store(Arc::new(Live { snapshot: Arc::clone(&snapshot), metrics: exposed.clone() }));
        telemetry.metrics.expose(&exposed);
        if let Err(error) = telemetry.apply(&document.telemetry, prepared) {
            tracing::error!(%error, "the logs stay as they were");
        }
        *self.grace.lock() = grace(document);
        self.applied(&snapshot);
        Ok((snapshot, read))
    }

    async fn resolve(&self, snapshot: &Snapshot) {
        self.resolver.follow(snapshot.upstreams.iter().map(|entry| entry.upstream.roster()));
        for name in self.resolver.resolve_now(RESOLVE_WITHIN).await {
            tracing::warn!(%name, "no address yet for an upstream's name");
        }
    }

    fn applied(&self, snapshot: &Snapshot) {
        self.probes.follow(&self.gateway.live.load());
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        limits::attend(&self.gateway, &snapshot.limits, &self.node);
        self.gateway.telemetry.metrics.config_applied(snapshot.generation, since_epoch);
        for bound in self.workers.bound() {
            tracing::info!(listener = %bound.name, address = %bound.address, "listening");
        }
    }

    /// Stops accepting, lets what is in flight end within `grace_period`, and closes the logs.
    pub async fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.gateway.telemetry.metrics.draining();
        let grace = *self.grace.lock();
        tracing::info!(grace_period = ?grace, connections = self.workers.connections(), "draining");
        let report = self.workers.drain(grace).await;
        if report.cut > 0 {
            tracing::warn!(cut = report.cut, "connections were cut because grace_period was over");
        }
        if !self.gateway.telemetry.access_log.flush_and_close(Duration::from_secs(2)) {
            tracing::warn!("the access log did not take all lines in time");
        }
        tracing::info!("drained");
    }

    /// Why the gateway should get no traffic, if so.
    #[must_use]
    pub fn not_ready(&self) -> Option<&'static str> {
        self.draining.load(Ordering::Acquire).then_some("draining")
    }

    /// What is in force.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.lock().clone()
    }

    /// What the workers share.
    #[must_use]
    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// Whether the files hold something else than what was read last.
    pub async fn is_outdated(&self) -> bool {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || configuration::read(&path).fingerprint).await;
        read.is_ok_and(|fingerprint| fingerprint != self.fingerprint.load(Ordering::Acquire))
    }

    /// Everything whose change asks for a reload.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        self.files.lock().clone()
    }

    /// Where the listeners are bound.
    #[must_use]
    pub fn bound(&self) -> Vec<(ListenerName, SocketAddr)> {
        self.workers.bound().into_iter().map(|bound| (bound.name, bound.address)).collect()
    }
}

/// The gateway can't start.
#[derive(Debug)]
pub enum Failure {
    /// The configuration is refused.
    Refused(Refused),
    /// The program could not do its work.
    Broken(Box<dyn std::error::Error + Send + Sync>),
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Broken(error.into())
    }
}

fn broken(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::Broken(Box::new(error))
}

fn refused(read: &Read) -> Refused {
    Refused { summary: read.summary(), diagnostics: read.json(), text: read.text(false) }
}

fn failed(error: &dyn std::error::Error) -> Refused {
    let message = error.to_string();
    let diagnostics = serde_json::json!([{ "severity": "error", "code": "not_applied", "message": message }]);
    Refused { summary: message.clone(), diagnostics, text: message }
}

async fn start_demo(read: &Read, running: Option<&DemoApp>) -> std::io::Result<Option<DemoApp>> {
    if running.is_some() || !read.wants_demo() {
        return Ok(None);
    }
    demo::start().await.map(Some)
}

/// Tells the metrics how each resolution ended.
fn count_resolutions(gateway: &Gateway) -> impl Fn(Option<&LookupError>) + Send + Sync + 'static {
    let metrics = Arc::clone(&gateway.telemetry.metrics);
    move |error| {
        metrics.resolved(match error {
            None => Resolution::Resolved,
            Some(LookupError::NoAddress) => Resolution::NotFound,
            Some(LookupError::Timeout) => Resolution::Timeout,
            Some(LookupError::Failed(_)) => Resolution::Failed,
        });
    }
}

fn native_roots() -> Arc<RootCertStore> {
    let native = rustls_native_certs::load_native_certs();
    if native.certs.is_empty() {
        return bundled_roots();
    }
    system_roots(native.certs)
}

fn worker_count(document: &Document) -> NonZeroUsize {
    let wanted = document.workers.as_ref().and_then(|workers| NonZeroUsize::new(usize::from(workers.value)));
    wanted.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN)
}

fn grace(document: &Document) -> Duration {
    document.grace_period.map_or(GRACE, |grace| grace.0)
}

fn specs(snapshot: &Snapshot) -> Vec<Arc<ListenerSpec>> {
    snapshot.listeners.iter().map(|listener| Arc::clone(&listener.spec)).collect()
}

fn handles(metrics: &Metrics, snapshot: &Snapshot, clock: &Clock) -> Exposed {
    let routes: Vec<RouteName> = snapshot.routes.iter().map(|route| route.name.clone()).collect();
    let upstreams: Vec<UpstreamName> = snapshot.upstreams.iter().map(|entry| entry.upstream.name().clone()).collect();
    let listeners: Vec<ListenerName> = snapshot.listeners.iter().map(|listener| listener.spec.name.clone()).collect();
    let guards = snapshot.upstreams.iter().map(|entry| {
        let (upstream, clock) = (entry.upstream.clone(), clock.clone());
        GuardSource::new(upstream.name().clone(), move || upstream.guard_reading(clock.now()))
    });
    let limit_stores: Vec<Arc<str>> = snapshot.limits.stores().map(|store| Arc::clone(store.name())).collect();
    let limits: Vec<LimitName> = snapshot.limits.iter().map(|limit| limit.id().clone()).collect();
    Exposed {
        routes: metrics.for_routes(&routes),
        upstreams: metrics.for_upstreams(&upstreams),
        listeners: metrics.for_listeners(&listeners),
        guards: guards.collect(),
        limits: metrics.for_limits(&limits),
        limit_stores: metrics.for_limit_stores(&limit_stores),
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
