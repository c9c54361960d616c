//! `health_check`, `outlier`, `slow_start` and `panic_threshold` as they are written, and what is made of them.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::uri::{Authority, PathAndQuery};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Check, Kind, Origins, Outlier, Settings, SuccessRate};
use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::source::{SourceSpan, Sources, Spanned};
use crate::model::units::{Percent, Period};
use crate::upstream::Protocol;
use crate::upstream::config::Config;

/// Checks that the gateway makes by itself, each on a connection of its own: one of `path`, `tcp` and `grpc`.
///
/// An endpoint that has never been checked counts as healthy, and is checked at once. Checks change its state at most
/// once in `interval` times the greater of `unhealthy_after` and `healthy_after`, however it flaps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HealthCheckConfig {
    /// A GET of this path, with its query if any; over TLS and in the version of HTTP that requests are sent in.
    pub path: Option<Spanned<String>>,
    /// `true`: it is enough that a connection can be made; for `https://` endpoints with its TLS handshake.
    pub tcp: Option<Spanned<bool>>,
    /// `grpc.health.v1.Health/Check` for this service, `""` for the server as a whole; only `SERVING` is good.
    pub grpc: Option<Spanned<String>>,
    /// How long after a check the next begins, at least 10ms; up to a tenth is added at random.
    pub interval: Spanned<Period>,
    /// How long a check may take, its connection included.
    pub timeout: Spanned<Period>,
    /// How many checks in a row have to fail before the endpoint gets no more requests, 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub unhealthy_after: Spanned<u32>,
    /// How many in a row have to succeed before it gets requests again, 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub healthy_after: Spanned<u32>,
    /// With `path`: which statuses are good, as `"204"`, `"2xx"` or `"200-399"`. Default: `["2xx"]`.
    pub status: Option<Spanned<Vec<Spanned<String>>>>,
    /// With `path` or `grpc`: the `Host` that is asked for. Default: the endpoint's host and port.
    pub host: Option<Spanned<String>>,
    /// Another port than that of requests.
    #[schemars(range(min = 1))]
    pub port: Option<Spanned<u16>>,
}

impl Default for HealthCheckConfig {
    fn default() -> Self {
        Self {
            path: None,
            tcp: None,
            grpc: None,
            interval: unwritten(Period::from_secs(5)),
            timeout: unwritten(Period::from_secs(1)),
            unhealthy_after: unwritten(3),
            healthy_after: unwritten(2),
            status: None,
            host: None,
            port: None,
        }
    }
}

/// Endpoints whose answers fail are left out for a while.
///
/// A failure is an attempt without a response head, or one that was answered 502, 503 or 504. What the client did, and
/// every other status, never counts. An endpoint that returns is on probation: its first failure ejects it again, its
/// first good answer clears it. Two ejections of one endpoint begin at least `eject_for` apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OutlierConfig {
    /// How many attempts in a row have to fail, 1 to 10000.
    #[schemars(range(min = 1, max = 10000))]
    pub consecutive_failures: Spanned<u32>,
    /// How long the first ejection lasts. Each further one lasts as much longer; one is forgiven for each such time that
    /// the endpoint was not ejected.
    pub eject_for: Spanned<Period>,
    /// The longest that an ejection lasts. Default: 5m, or `eject_for` if that is longer.
    pub max_eject_for: Option<Spanned<Period>>,
    /// No endpoint is ejected when more than this share of the upstream's endpoints would be, rounded down: with
    /// `"50%"` one of three.
    pub max_ejected: Spanned<Percent>,
    /// Ejects as well an endpoint that fails more often than the others.
    pub success_rate: Option<Spanned<SuccessRateConfig>>,
}

impl Default for OutlierConfig {
    fn default() -> Self {
        Self {
            consecutive_failures: unwritten(5),
            eject_for: unwritten(Period::from_secs(30)),
            max_eject_for: None,
            max_ejected: unwritten(Percent::whole(50)),
            success_rate: None,
        }
    }
}

/// Comparison of an endpoint with its peers: what share of its attempts succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SuccessRateConfig {
    /// An endpoint is ejected when its share of successes is by more than this below that of all its peers together:
    /// with `"20%"` at 70% beside peers at 95%.
    pub margin: Spanned<Percent>,
    /// How many attempts an endpoint needs in a window to be judged, and to count as a peer; at least 1.
    #[schemars(range(min = 1))]
    pub min_requests: Spanned<u32>,
    /// How many endpoints with so many attempts are needed for any to be judged; at least 2.
    #[schemars(range(min = 2))]
    pub min_endpoints: Spanned<u32>,
    /// How long attempts are counted; the first attempt after it has them compared.
    pub window: Spanned<Period>,
}

impl Default for SuccessRateConfig {
    fn default() -> Self {
        Self {
            margin: unwritten(Percent::whole(20)),
            min_requests: unwritten(50),
            min_endpoints: unwritten(3),
            window: unwritten(Period::from_secs(10)),
        }
    }
}

fn unwritten<T>(value: T) -> Spanned<T> {
    Spanned { value, span: SourceSpan::default() }
}

/// The shortest time between two checks.
const MIN_INTERVAL: Duration = Duration::from_millis(10);
/// The longest ejection, unless the first one is longer already.
const MAX_EJECT_FOR: Duration = Duration::from_mins(5);

/// Compiles the settings of an upstream; what is wrong is pushed.
pub(in super::super) fn compile(
    config: &Config,
    sources: &Sources,
    diagnostics: &mut Diagnostics,
) -> (Settings, Origins) {
    let settings = Settings {
        check: config.health_check.as_ref().and_then(|check| compile_check(check, config, diagnostics)),
        outlier: config.outlier.as_ref().and_then(|outlier| compile_outlier(outlier, config, diagnostics)),
        slow_start: config.slow_start.as_ref().map(|period| {
            positive(period, "slow_start", diagnostics);
            period.0
        }),
        panic_threshold: config.panic_threshold.as_ref().map(|share| share.value).unwrap_or_default(),
    };
    if let Some(threshold) = &config.panic_threshold
        && threshold.value > Percent::default()
        && config.health_check.is_none()
        && config.outlier.is_none()
    {
        let message = "panic_threshold is set, but nothing makes an endpoint unhealthy";
        let diagnostic = Diagnostic::error("dead_setting", threshold.span, message);
        diagnostics.push(diagnostic.help("add health_check or outlier to the upstream"));
    }
    let origins = Origins {
        check: config.health_check.as_ref().map(|one| sources.origin(one.span)),
        outlier: config.outlier.as_ref().map(|one| sources.origin(one.span)),
        slow_start: config.slow_start.as_ref().map(|one| sources.origin(one.span)),
        panic_threshold: config.panic_threshold.as_ref().map(|one| sources.origin(one.span)),
    };
    (settings, origins)
}

fn compile_check(check: &Spanned<HealthCheckConfig>, config: &Config, diagnostics: &mut Diagnostics) -> Option<Check> {
    let errors = diagnostics.errors();
    if check.interval.0 < MIN_INTERVAL {
        let message = format!("health_check.interval is at least 10ms: \"{}\"", check.interval.value);
        diagnostics.push(Diagnostic::error("bad_value", check.interval.span, message));
    }
    positive(&check.timeout, "health_check.timeout", diagnostics);
    within(&check.unhealthy_after, "health_check.unhealthy_after", 1..=100, diagnostics);
    within(&check.healthy_after, "health_check.healthy_after", 1..=100, diagnostics);
    check_port(check, config, diagnostics);
    let kind = kind(check, config, diagnostics);
    let compiled = Check {
        kind: kind?,
        interval: check.interval.0,
        timeout: check.timeout.0,
        unhealthy_after: check.unhealthy_after.value,
        healthy_after: check.healthy_after.value,
        port: check.port.as_ref().map(|port| port.value),
    };
    (diagnostics.errors() == errors).then_some(compiled)
}

fn check_port(check: &HealthCheckConfig, config: &Config, diagnostics: &mut Diagnostics) {
    let Some(port) = &check.port else { return };
    if port.value == 0 {
        diagnostics.push(Diagnostic::error("bad_value", port.span, "a port is a number from 1 to 65535: 0"));
    }
    if !config.endpoints.is_empty() && config.endpoints.iter().all(|endpoint| endpoint.url.starts_with("unix:")) {
        let message = "health_check.port is set, but a unix socket has no port";
        diagnostics.push(Diagnostic::error("dead_setting", port.span, message));
    }
}

/// What is asked: exactly one of three, and nothing beside it that it has no use for.
fn kind(check: &Spanned<HealthCheckConfig>, config: &Config, diagnostics: &mut Diagnostics) -> Option<Kind> {
    let host = check.host.as_ref();
    match (&check.path, &check.tcp, &check.grpc) {
        (Some(path), None, None) => {
            let statuses = statuses(check.status.as_ref(), diagnostics);
            let host = authority(host, diagnostics);
            let parsed = path.parse::<PathAndQuery>().ok().filter(|_| path.starts_with('/') && !path.contains('#'));
            if parsed.is_none() {
                let message = format!("not a path: {:?}", path.value);
                let help = "a path begins with a slash, as in \"/healthz\"";
                diagnostics.push(Diagnostic::error("bad_value", path.span, message).help(help));
            }
            Some(Kind::Http { path: parsed?, host, statuses: statuses? })
        }
        (None, Some(tcp), None) => {
            if !tcp.value {
                let help = "leave health_check out when nothing is to be checked";
                let message = "tcp = false checks nothing";
                diagnostics.push(Diagnostic::error("dead_setting", tcp.span, message).help(help));
            }
            unused(check.status.as_ref().map(|one| one.span), "status", "tcp", diagnostics);
            unused(host.map(|one| one.span), "host", "tcp", diagnostics);
            Some(Kind::Tcp)
        }
        (None, None, Some(service)) => {
            unused(check.status.as_ref().map(|one| one.span), "status", "grpc", diagnostics);
            let host = authority(host, diagnostics);
            if config.protocol == Protocol::H1 {
                let message = "gRPC needs HTTP/2, but the protocol is h1";
                let help = "set protocol = \"h2\", or check a path or tcp";
                diagnostics.push(Diagnostic::error("bad_value", service.span, message).help(help));
            }
            if service.len() > 256 {
                let message = format!("a service's name has at most 256 bytes: {}", service.len());
                diagnostics.push(Diagnostic::error("bad_value", service.span, message));
            }
            Some(Kind::Grpc { service: service.as_str().into(), host })
        }
        (None, None, None) => {
            let help = "add path = \"/healthz\", tcp = true or grpc = \"SERVICE\"";
            diagnostics.push(Diagnostic::error("missing_key", check.span, "a check of nothing").help(help));
            None
        }
        _ => {
            let message = "more than one of path, tcp and grpc";
            let diagnostic = Diagnostic::error("conflicting_keys", check.span, message);
            diagnostics.push(diagnostic.help("keep the one that says most of whether requests will succeed"));
            None
        }
    }
}

fn unused(span: Option<SourceSpan>, setting: &str, kind: &str, diagnostics: &mut Diagnostics) {
    if let Some(span) = span {
        let message = format!("health_check.{setting} is set, but {kind} has no use for it");
        diagnostics.push(Diagnostic::error("dead_setting", span, message));
    }
}

/// The host that was written, if one was.
fn authority(host: Option<&Spanned<String>>, diagnostics: &mut Diagnostics) -> Option<Arc<str>> {
    let host = host?;
    let is_host = host.parse::<Authority>().is_ok_and(|authority| !authority.as_str().contains('@'));
    if is_host && HeaderValue::from_str(host).is_ok() {
        return Some(host.as_str().into());
    }
    let message = format!("not a host: {:?}", host.value);
    let help = "a name or an address, with a port if need be, as in \"api.internal\"";
    diagnostics.push(Diagnostic::error("bad_value", host.span, message).help(help));
    None
}

type Statuses = Box<[RangeInclusive<u16>]>;

fn statuses(written: Option<&Spanned<Vec<Spanned<String>>>>, diagnostics: &mut Diagnostics) -> Option<Statuses> {
    let Some(written) = written else { return Some(Box::new([200..=299])) };
    if written.is_empty() {
        let help = "leave status out for 2xx";
        diagnostics.push(Diagnostic::error("empty_list", written.span, "no status would be good").help(help));
        return None;
    }
    let mut statuses = Vec::with_capacity(written.len());
    for one in &written.value {
        if let Some(range) = status(one) {
            statuses.push(range);
        } else {
            let message = format!("not a status from 200 to 599: {:?}", one.value);
            let help = "write \"204\", \"2xx\" or \"200-399\"";
            diagnostics.push(Diagnostic::error("bad_value", one.span, message).help(help));
        }
    }
    (statuses.len() == written.len()).then(|| statuses.into())
}

fn status(written: &str) -> Option<RangeInclusive<u16>> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|status| text.len() == 3 && (200..600).contains(status));
    if let Some(class) = written.strip_suffix("xx") {
        let class = class.parse::<u16>().ok().filter(|class| (2..=5).contains(class) && written.len() == 3)?;
        return Some(class * 100..=class * 100 + 99);
    }
    let (from, to) = written.split_once('-').unwrap_or((written, written));
    let (from, to) = (number(from)?, number(to)?);
    (from <= to).then_some(from..=to)
}

fn compile_outlier(
    outlier: &Spanned<OutlierConfig>,
    config: &Config,
    diagnostics: &mut Diagnostics,
) -> Option<Outlier> {
    let errors = diagnostics.errors();
    within(&outlier.consecutive_failures, "outlier.consecutive_failures", 1..=10_000, diagnostics);
    positive(&outlier.eject_for, "outlier.eject_for", diagnostics);
    let eject_for = outlier.eject_for.0;
    let max_eject_for = outlier.max_eject_for.as_ref().map_or(MAX_EJECT_FOR.max(eject_for), |longest| longest.0);
    if let Some(longest) = &outlier.max_eject_for
        && longest.0 < eject_for
    {
        let message = format!("outlier.max_eject_for is shorter than eject_for: \"{}\"", longest.value);
        let diagnostic = Diagnostic::error("bad_value", longest.span, message);
        diagnostics.push(diagnostic.related(outlier.eject_for.span, "the first ejection lasts longer"));
    }
    let compiled = Outlier {
        consecutive_failures: outlier.consecutive_failures.value,
        eject_for,
        max_eject_for,
        max_ejected: outlier.max_ejected.value,
        success_rate: outlier.success_rate.as_ref().map(|rate| {
            positive(&rate.window, "outlier.success_rate.window", diagnostics);
            within(&rate.min_requests, "outlier.success_rate.min_requests", 1..=u32::MAX, diagnostics);
            within(&rate.min_endpoints, "outlier.success_rate.min_endpoints", 2..=1024, diagnostics);
            if rate.margin.value >= Percent::whole(100) {
                let message = "no success rate is more than 100% below another";
                diagnostics.push(Diagnostic::error("dead_setting", rate.margin.span, message));
            }
            SuccessRate {
                margin: rate.margin.value,
                min_requests: rate.min_requests.value.into(),
                min_endpoints: usize::try_from(rate.min_endpoints.value).unwrap_or(usize::MAX),
                window: rate.window.0,
            }
        }),
    };
    // a name may stand for any number of endpoints
    let is_fixed = |url: &str| {
        use crate::upstream::url::{EndpointUrl, Location};
        !matches!(EndpointUrl::parse(url), Ok(EndpointUrl { location: Location::Name { .. }, .. }))
    };
    let fixed = config.endpoints.iter().all(|endpoint| is_fixed(&endpoint.url));
    if (fixed && !config.endpoints.is_empty() && !compiled.has_room(0, config.endpoints.len()))
        || outlier.max_ejected.value == Percent::default()
    {
        let message = format!("no endpoint could ever be ejected: max_ejected is \"{}\"", outlier.max_ejected.value);
        let help = "one is when its share of all endpoints is within max_ejected; more endpoints, or a greater share";
        diagnostics.push(Diagnostic::error("dead_setting", outlier.span, message).help(help));
    }
    (diagnostics.errors() == errors).then_some(compiled)
}

fn positive(period: &Spanned<Period>, setting: &str, diagnostics: &mut Diagnostics) {
    if period.0 == Duration::ZERO {
        let message = format!("{setting} must be longer than nothing: \"{}\"", period.value);
        diagnostics.push(Diagnostic::error("bad_value", period.span, message));
    }
}

fn within(number: &Spanned<u32>, setting: &str, range: RangeInclusive<u32>, diagnostics: &mut Diagnostics) {
    if !range.contains(&number.value) {
        let message = if *range.end() == u32::MAX {
            format!("{setting} is at least {}: {}", range.start(), number.value)
        } else {
            format!("{setting} is a number from {} to {}: {}", range.start(), range.end(), number.value)
        };
        diagnostics.push(Diagnostic::error("bad_value", number.span, message));
    }
}
