//! Limits that several gateways share, without a request ever waiting for the store.
//!
//! Each gateway decides by buckets of its own, in which a request costs as many times its cost as there are gateways: so
//! it gives out its share of the limit, a burst divided by their number at the rate divided by their number. Beside the
//! requests, every few milliseconds, it reports what was taken to the store, which adds it up, and takes over how empty
//! each bucket is for all of them: what one gateway has not used is then there for the others. When the store can't be
//! reached, the shares are what is left, which is `on_error = "local"`, and nothing has to be switched.
//!
//! What it comes to: over time the gateways together admit the burst and the rate, since the store counts all that was
//! taken and a bucket that was overdrawn stays shut until it has refilled. At one moment they may have admitted more than
//! a single bucket by what each took since its last report: at most its share of what was left. Here are the values
//! and the arithmetic; `control::limits` speaks to the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::shape::OneOrMany;
use crate::model::source::Spanned;
use crate::model::units::Period;

/// More gateways than this would leave nothing of a share.
pub(super) const MOST_NODES: u32 = 1000;

/// `[rate_limit_store.NAME]`: where gateways add up what they let through, so that they share a limit. Redis 5 or later, or
/// what speaks its protocol and runs Lua scripts (Valkey, Dragonfly). No request waits for it: gateways report
/// to it and hear from it every few milliseconds, over one connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RateLimitStore")]
pub struct StoreConfig {
    /// `"redis://HOST:PORT/DB"`, or `"rediss://HOST:PORT/DB"` over TLS. With `cluster` or `sentinel`, one of them or several.
    pub redis: Spanned<OneOrMany<Spanned<String>>>,
    /// The addresses are nodes of a Redis Cluster.
    #[serde(default)]
    pub cluster: bool,
    /// The addresses are Sentinels, which know the server of this name. It is spoken to with the same `username`,
    /// `password` and TLS as they are.
    pub sentinel: Option<Spanned<String>>,
    /// Who logs in. Default: the one in the URL, or the default user.
    pub username: Option<String>,
    /// The password, best as `"${env:NAME}"`, which is shown nowhere. Default: the one in the URL.
    pub password: Option<String>,
    /// PEM file with the authorities that the server's certificate is checked against. Default: those of the system.
    pub ca: Option<Spanned<String>>,
    /// How long an answer may take. Past it the store counts as down. Default: `"50ms"`.
    #[serde(default = "default_timeout")]
    pub timeout: Spanned<Period>,
    /// What holds while the store is down.
    #[serde(default)]
    pub on_error: OnError,
    /// How many gateways share the limits, 1 to 1000, until they have counted themselves in the store. Default: 1.
    #[serde(default = "one")]
    pub nodes: Spanned<u32>,
    /// How the keys in the store begin: gateways with the same `prefix` and the same name of a limit share it. Default:
    /// `"portcullis"`.
    #[serde(default = "default_prefix")]
    pub prefix: String,
}

fn default_timeout() -> Spanned<Period> {
    Period::from_millis(50).into()
}

fn one() -> Spanned<u32> {
    1.into()
}

fn default_prefix() -> String {
    "portcullis".to_owned()
}

/// What holds while the store of a limit is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// Each gateway enforces its share: the limit divided by the number of gateways that were alive last.
    #[default]
    Local,
    /// Everything is let through.
    Open,
    /// Everything is refused, with 429.
    Closed,
}

impl OnError {
    /// As in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

/// Where gateways add up what they let through.
#[derive(Debug)]
pub struct Store {
    name: Arc<str>,
    settings: StoreSettings,
    up: AtomicBool,
    nodes: AtomicU32,
    errors: AtomicU64,
    attended: AtomicBool,
}

/// How a store is reached: while it stays, what is known of the store outlives a reload.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// URLs.
    pub urls: Box<[Box<str>]>,
    /// Whether they are nodes of a cluster.
    pub cluster: bool,
    /// Name of the server, when they are Sentinels.
    pub sentinel: Option<Box<str>>,
    /// User.
    pub username: Option<Box<str>>,
    /// Password.
    pub password: Option<Box<str>>,
    /// Authorities, PEM.
    pub ca: Option<Bytes>,
    /// For an answer.
    pub timeout: Duration,
    /// While it is down.
    pub on_error: OnError,
    /// Gateways until they have counted themselves.
    pub nodes: u32,
    /// Begins each key.
    pub prefix: Box<str>,
}

impl std::fmt::Debug for StoreSettings {
    /// URLs may hold passwords, as the other field does.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreSettings").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// How much of a shared limit this gateway may give out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// One part of so many.
    OneOf(u32),
    Everything,
    Nothing,
}

impl Store {
    pub(super) fn new(name: Arc<str>, settings: StoreSettings) -> Self {
        let nodes = AtomicU32::new(settings.nodes);
        let (up, attended) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { name, settings, up, nodes, errors: AtomicU64::new(0), attended }
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// How it is reached.
    #[must_use]
    pub fn settings(&self) -> &StoreSettings {
        &self.settings
    }

    /// Whether it answers.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Gateways that share it, as far as is known.
    #[must_use]
    pub fn nodes(&self) -> u32 {
        self.nodes.load(Ordering::Relaxed)
    }

    /// How often it failed.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// It answers. Whether it did not before.
    pub fn answers(&self) -> bool {
        !self.up.swap(true, Ordering::Relaxed)
    }

    /// It does not answer.
    pub fn fails(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        self.up.store(false, Ordering::Relaxed);
    }

    /// So many gateways share it.
    pub fn count(&self, nodes: u32) {
        self.nodes.store(nodes.clamp(1, MOST_NODES), Ordering::Relaxed);
    }

    /// Takes charge of speaking to it; false when somebody has it already.
    pub fn attend(&self) -> bool {
        !self.attended.swap(true, Ordering::AcqRel)
    }

    pub(super) fn share(&self) -> Share {
        match self.settings.on_error {
            OnError::Open if !self.is_up() => Share::Everything,
            OnError::Closed if !self.is_up() => Share::Nothing,
            OnError::Local | OnError::Open | OnError::Closed => Share::OneOf(self.nodes()),
        }
    }
}

/// What a gateway tells the store of one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Which bucket, in the same 128 bits at every gateway.
    pub key: u128,
    /// What was taken since the last report, as the time in which it refills; negative when more was put back.
    pub taken_micros: i64,
    /// The bucket lacks at least as much: after an outage, when what was taken can't be told apart from what was known.
    pub lacks_micros: u64,
}
