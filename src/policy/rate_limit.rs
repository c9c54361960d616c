//! How many requests get through: for each client, tenant, path, or whatever else tells requests apart.
//!
//! Decides from the request's head and from buckets that refill with time; the time is an argument. A route may have
//! several limits. A request has to fit into all of them, and what does not fit takes nothing from any: their buckets are
//! held together while it is decided. A limit in report mode is judged as if it were enforced, and never in the way of
//! another. Never waits, and never looks at a body; a cost that is known only after the response is taken then
//! ([`RateLimit::settle`]).
//!
//! Limits are asked before authentication, so that guessing credentials is limited too, except those that go by the caller:
//! by `principal` or `jwt:CLAIM`, or because groups are exempt. One of those that refuses gives back what the others took.
//!
//! Memory is bounded by `max_keys` of each limit, whatever clients send; see [`Buckets`]. A request costs a lock per limit,
//! and no allocation unless responses are to tell how the limit stands.
//!
//! The cell rate algorithm is our own and not governor's, since that decides and takes in one step: it can't ask several
//! limits before any of them pays, can't overdraw a bucket, and keeps each key until somebody sweeps the whole map.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use smallvec::SmallVec;

pub use self::buckets::{Buckets, Counting};
use self::buckets::{KeyHash, Open};
pub use self::compile::{Ledger, LedgerBuilder};
pub use self::config::{Config, Cost as CostConfig, Entry, Exempt as ExemptConfig, LimitConfig, NamedConfig, PostPaid};
use self::fields::whole_seconds;
pub use self::store::{OnError, Report, Store, StoreConfig, StoreSettings};
use self::take::{Demand, Standing, take};
use crate::model::clock::Instant;
use crate::model::key::Key;
use crate::model::prefixes::PrefixSet;
use crate::model::request::RequestView;
use crate::model::units::Period;
use crate::model::verdict::{Code, Decision, Mode, PolicyName, Rejection, Verdict};

mod buckets;
mod compile;
mod config;
mod fields;
mod gcra;
mod store;
mod take;

/// The limits of a route.
#[derive(Debug, Clone)]
pub struct RateLimit {
    limits: Box<[Limit]>,
    /// `RateLimit-Policy` of a request that no limit exempts.
    policies: Option<HeaderValue>,
}

/// A limit, as a route has it.
#[derive(Debug, Clone)]
pub struct Limit {
    name: Arc<str>,
    buckets: Arc<Buckets>,
    cost: Cost,
    mode: Mode,
    exempt: Exempt,
    headers: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Cost {
    Units(u32),
    Response { field: HeaderName, default: u32 },
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Exempt {
    client: PrefixSet,
    groups: Box<[Box<str>]>,
}

/// When a limit is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Before it is known who the caller is.
    BeforeAuthentication,
    /// When it is known.
    AfterAuthentication,
}

/// What the limits of a route decided about a request.
#[derive(Debug)]
pub struct Judged {
    /// For metrics, logs and `explain`: one for the policy unless no limit was asked, and one for each limit that would
    /// have refused.
    pub decisions: SmallVec<[Decision; 1]>,
    /// What the client is told; `None` when the request goes on.
    pub rejection: Option<Rejection>,
}

/// What a request took from its limits, and how they stand.
#[derive(Debug, Clone, Default)]
pub struct Charged(SmallVec<[Receipt; 2]>);

#[derive(Debug, Clone)]
struct Receipt {
    /// Index of the limit on its route.
    limit: usize,
    key: KeyHash,
    standing: Standing,
    /// When it was taken.
    at: Instant,
}

/// How a limit stands, for `explain`.
#[derive(Debug, Clone)]
pub struct Shown<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it counts.
    pub counting: &'a Counting,
    /// Whether it refuses.
    pub mode: Mode,
    /// What the request takes before there is a response.
    pub cost: u32,
    /// What is left after it; `None` when the request is exempt.
    pub left: Option<u64>,
    /// The time until the request would fit, when it does not.
    pub wait: Option<Duration>,
}

impl RateLimit {
    /// The name of a limit that is about callers, by its key or by whom it exempts: it needs somebody who names them.
    #[must_use]
    pub fn about_callers(&self) -> Option<&str> {
        self.limits.iter().find(|limit| limit.turn() == Turn::AfterAuthentication).map(|limit| &*limit.name)
    }

    /// Takes what `request` costs from every limit of that turn that holds for it, or nothing from any, and notes it in
    /// `charged`. A refusal gives back what was taken in the turn before.
    #[must_use]
    pub fn decide(&self, turn: Turn, request: &RequestView<'_>, charged: &mut Charged, now: Instant) -> Judged {
        let mut demands: SmallVec<[Demand<'_>; 2]> = SmallVec::new();
        let mut limits: SmallVec<[usize; 2]> = SmallVec::new();
        let (mut keyless, mut asked) = (false, false);
        for (index, limit) in self.limits.iter().enumerate().filter(|(_, limit)| limit.turn() == turn) {
            asked = true;
            if limit.exempt.holds_for(request) {
                continue;
            }
            let (key, found) = limit.buckets.key_of(request);
            keyless |= !found;
            let (cost, binding) = (u64::from(limit.cost.at_first()), compile::is_binding(limit.mode));
            demands.push(Demand { buckets: &limit.buckets, key, cost, binding });
            limits.push(index);
        }
        let standings = take(&demands, now);
        let receipt = |((limit, demand), standing): ((&usize, &Demand<'_>), &Standing)| Receipt {
            limit: *limit,
            key: demand.key,
            standing: *standing,
            at: now,
        };
        let taken = Charged(limits.iter().zip(&demands).zip(&standings).map(receipt).collect());
        let judged =
            if asked { self.judge(&taken, keyless) } else { Judged { decisions: SmallVec::new(), rejection: None } };
        if judged.rejection.is_some() {
            self.give_back(charged, now);
        }
        charged.0.extend(taken.0);
        judged
    }

    fn judge(&self, charged: &Charged, keyless: bool) -> Judged {
        let mut decisions = SmallVec::new();
        let mut refusing: Option<(&Limit, Duration)> = None;
        let mut overflow = false;
        for (limit, receipt) in self.of(charged) {
            overflow |= receipt.standing.overflow;
            let Some(wait) = receipt.standing.wait else { continue };
            match limit.mode {
                // the client has to wait for the slowest
                Mode::Enforce => {
                    refusing = Some(refusing.filter(|(_, longest)| *longest >= wait).unwrap_or((limit, wait)));
                }
                Mode::Report => decisions.push(decision(Verdict::WouldReject, limit.reason(wait))),
            }
        }
        let Some((limit, wait)) = refusing else {
            let reason = match () {
                () if charged.0.is_empty() => "exempt from every limit",
                () if overflow => "within the limits, in the bucket of keys for which there is no room",
                () if keyless => "within the limits, in the bucket of requests without the key",
                () => "within the limits",
            };
            decisions.insert(0, decision(Verdict::Allow, Cow::Borrowed(reason)));
            return Judged { decisions, rejection: None };
        };
        decisions.insert(0, decision(Verdict::Reject, limit.reason(wait)));
        let Counting { rate, burst, .. } = limit.buckets.counting();
        let detail = format!("too many requests: {:?} allows {rate} and {burst} at once", &*limit.name);
        let rejection = Rejection::new(Code::RateLimited, detail)
            .header(RETRY_AFTER, HeaderValue::from(whole_seconds(wait).max(1)));
        Judged { decisions, rejection: Some(rejection) }
    }

    fn give_back(&self, charged: &mut Charged, now: Instant) {
        for receipt in charged.0.iter_mut().filter(|receipt| receipt.standing.charged) {
            let Some(limit) = self.limits.get(receipt.limit) else { continue };
            let open = limit.buckets.open(receipt.key, now);
            if let Some(bucket) = receipt.put_back(limit, &open, u64::from(limit.cost.at_first()), now) {
                receipt.standing = Standing { bucket, charged: false, ..receipt.standing };
                receipt.at = now;
                open.set(bucket, -i64::from(limit.cost.at_first()));
            }
        }
    }

    /// Takes or puts back what the response says beyond what was taken before.
    pub fn settle(&self, charged: &mut Charged, response: &HeaderMap, now: Instant) {
        for receipt in charged.0.iter_mut().filter(|receipt| receipt.standing.charged) {
            let Some(limit) = self.limits.get(receipt.limit) else { continue };
            let Cost::Response { field, default } = &limit.cost else { continue };
            let said = response.get(field).and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
            let (Some(cost), taken) = (said, u64::from(*default)) else { continue };
            let buckets = &limit.buckets;
            let open = buckets.open(receipt.key, now);
            let (bucket, units) = if cost >= taken {
                // more would overdraw the bucket past what it may owe
                let more = (cost - taken).min(MOST_UNITS);
                (buckets.quota().overdraw(open.bucket(), now, more.saturating_mul(buckets.weight())), signed(more))
            } else {
                let Some(bucket) = receipt.put_back(limit, &open, taken - cost, now) else { continue };
                (bucket, -signed(taken - cost))
            };
            receipt.standing.bucket = bucket;
            receipt.at = now;
            open.set(bucket, units);
        }
    }

    /// Tells the client how its limits stand. Fields of the upstream's own stay beside ours.
    pub fn tell(&self, charged: &Charged, headers: &mut HeaderMap) {
        if self.policies.is_none() || charged.0.is_empty() {
            return;
        }
        let is_whole = charged.0.len() == self.limits.len();
        let policies =
            if is_whole { self.policies.clone() } else { fields::policies(self.of(charged).map(|(limit, _)| limit)) };
        let state = |(limit, receipt): (&'_ Limit, &Receipt)| {
            let quota = limit.buckets.quota();
            let Standing { bucket, wait, .. } = receipt.standing;
            match wait {
                Some(wait) => (0, wait),
                None => (quota.left(bucket, receipt.at), quota.until_more(bucket, receipt.at)),
            }
        };
        let state = fields::state(self.of(charged).map(|pair| {
            let (left, until_more) = state(pair);
            (pair.0, left, until_more)
        }));
        if let (Some(policies), Some(state)) = (policies, state) {
            headers.append(fields::RATELIMIT_POLICY, policies);
            headers.append(fields::RATELIMIT, state);
        }
    }

    /// How each limit stands after a request.
    pub fn show<'a>(&'a self, charged: &'a Charged) -> impl Iterator<Item = Shown<'a>> {
        self.limits.iter().enumerate().map(|(index, limit)| {
            let receipt = charged.0.iter().find(|receipt| receipt.limit == index);
            Shown {
                name: &limit.name,
                counting: limit.buckets.counting(),
                mode: limit.mode,
                cost: limit.cost.at_first(),
                left: receipt.map(|receipt| limit.buckets.quota().left(receipt.standing.bucket, receipt.at)),
                wait: receipt.and_then(|receipt| receipt.standing.wait),
            }
        })
    }

    fn of<'a>(&'a self, charged: &'a Charged) -> impl Iterator<Item = (&'a Limit, &'a Receipt)> {
        charged.0.iter().filter_map(|receipt| Some((self.limits.get(receipt.limit)?, receipt)))
    }
}

impl Receipt {
    /// The bucket with `units` put back; `None` when it has refilled since they were taken, so that they would be given
    /// twice.
    fn put_back(&self, limit: &Limit, open: &Open<'_>, units: u64, now: Instant) -> Option<Instant> {
        let units = units.saturating_mul(limit.buckets.weight());
        (self.standing.bucket > now && !open.is_new()).then(|| limit.buckets.quota().put_back(open.bucket(), units))
    }
}

impl Exempt {
    fn holds_for(&self, request: &RequestView<'_>) -> bool {
        let in_group =
            || request.principal.is_some_and(|caller| self.groups.iter().any(|group| caller.has_group(group)));
        self.client.contains(request.client) || in_group()
    }
}

impl Limit {
    fn turn(&self) -> Turn {
        let by_caller = self.buckets.counting().keys.as_slice().iter().any(Key::needs_principal);
        if by_caller || !self.exempt.groups.is_empty() { Turn::AfterAuthentication } else { Turn::BeforeAuthentication }
    }

    /// Whether responses tell of it.
    const fn is_shown(&self) -> bool {
        self.headers && compile::is_binding(self.mode)
    }

    fn reason(&self, wait: Duration) -> Cow<'static, str> {
        // whole milliseconds, rounded up: enough for a person
        let millis = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        format!("{} is used up for another {}", self.name, Period::from_millis(millis)).into()
    }
}

impl Cost {
    const fn at_first(&self) -> u32 {
        match self {
            Self::Units(units) | Self::Response { default: units, .. } => *units,
        }
    }
}

/// More than any burst.
const MOST_UNITS: u64 = 1 << 32;

fn signed(units: u64) -> i64 {
    i64::try_from(units).unwrap_or(i64::MAX)
}

fn decision(verdict: Verdict, reason: Cow<'static, str>) -> Decision {
    Decision { policy: PolicyName::RateLimit, verdict, reason }
}

#[cfg(test)]
mod tests;
