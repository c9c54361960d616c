//! The limits in force, each with the setting that it comes from; and what is said of a body by them.

use bytes::Bytes;

use super::{Walk, is_tls};
use crate::model::deadline::Limit as DeadlineLimit;
use crate::model::listener::Limits;
use crate::model::source::Origin;
use crate::model::units::{ByteSize, Period};
use crate::model::verdict::Rejection;
use crate::pipeline::attempt::Plan;
use crate::pipeline::body;
use crate::policy::timeout::Timeout;
use crate::snapshot::{Listener, Route};
use crate::upstream;
use crate::upstream::health::Kind;

impl Walk<'_> {
    pub(super) fn limits_of_listener(&mut self) {
        let Some(Listener { spec, origin, .. }) = self.listener else {
            let kind = if is_tls(self.question) { "speaks TLS" } else { "speaks in clear" };
            return self.note(&format!("no listener {kind}: this request could not come in"));
        };
        let default = Limits::default();
        let Limits { header_size, header_count, header_timeout, min_body_rate, .. } = &spec.limits;
        let written = Origin::default();
        let place = |is_default: bool| if is_default { &written } else { origin };
        self.limit("listener.limits.header_size", header_size, place(*header_size == default.header_size));
        self.limit("listener.limits.header_count", header_count, place(*header_count == default.header_count));
        self.limit("listener.limits.header_timeout", header_timeout, place(*header_timeout == default.header_timeout));
        self.limit("listener.limits.min_body_rate", min_body_rate, place(*min_body_rate == default.min_body_rate));
    }

    pub(super) fn limit_of_body(&mut self, route: &Route) {
        const NAME: &str = "validate.max_body";
        match (&route.policies.validate, self.exchange.body_limit) {
            (Some(slot), Some(limit)) if limit.enforced().is_some() => self.limit(NAME, limit.bytes(), &slot.origin),
            (Some(slot), Some(limit)) => self.limit(NAME, format!("{} (reported)", limit.bytes()), &slot.origin),
            (Some(slot), None) => self.limit(NAME, "none for such a stream", &slot.origin),
            (None, _) => self.limit(NAME, "none", &route.origin),
        }
    }

    pub(super) fn limits_of_validate(&mut self, route: &Route) {
        if let Some(slot) = &route.policies.validate {
            for (name, value) in slot.policy.limits() {
                self.limit(name, value, &slot.origin);
            }
        }
    }

    pub(super) fn limits_of_plan(&mut self, route: &Route, plan: &Plan<'_>) {
        let origin = &route.policies.timeout.origin;
        let Timeout { request, attempt, idle, stream } = plan.timeouts;
        match plan.deadline {
            Some(deadline) if deadline.limit == DeadlineLimit::Request => {
                self.limit("timeout.request", Period(request), origin);
            }
            Some(_) | None => self.limit("timeout.request", "none for such a stream", origin),
        }
        if let Some(stream) = stream {
            self.limit("timeout.stream", Period(stream), origin);
        }
        if let Some(deadline) = plan.deadline.filter(|deadline| deadline.limit == DeadlineLimit::Grpc) {
            self.limit("grpc-timeout", Period(deadline.left(self.exchange.started)), &Origin::default());
        }
        self.limit("timeout.attempt", Period(attempt), origin);
        self.limit("timeout.idle", Period(idle), origin);
        self.limits_of_retries(route, plan);
        let connect = plan.upstream.upstream.settings().connect_timeout;
        let is_default = connect == upstream::Settings::default().connect_timeout;
        let written = Origin::default();
        let origin = if is_default { &written } else { plan.upstream.upstream.origin() };
        self.limit("upstream.connect_timeout", Period(connect), origin);
        self.limits_of_health(&plan.upstream.upstream);
    }

    /// What keeps requests from endpoints, each where it is set.
    pub(super) fn limits_of_health(&mut self, upstream: &upstream::Upstream) {
        let (settings, origins) = upstream.health();
        if let (Some(check), Some(origin)) = (&settings.check, &origins.check) {
            let what = match &check.kind {
                Kind::Http { path, .. } => format!("GET {path}"),
                Kind::Tcp => "a connection".to_owned(),
                Kind::Grpc { service, .. } => format!("gRPC {service:?}"),
            };
            let upstream::health::Check { unhealthy_after, healthy_after, .. } = check;
            let value = format!(
                "{what} every {}, unhealthy after {unhealthy_after}, healthy after {healthy_after}",
                Period(check.interval)
            );
            self.limit("upstream.health_check", value, origin);
        }
        if let (Some(outlier), Some(origin)) = (&settings.outlier, &origins.outlier) {
            let rate = outlier.success_rate.as_ref();
            let rate =
                rate.map_or_else(String::new, |rate| format!(" or a success rate {} below the peers'", rate.margin));
            let value = format!(
                "{} failures in a row{rate} eject for {}, at most {}",
                outlier.consecutive_failures,
                Period(outlier.eject_for),
                outlier.max_ejected
            );
            self.limit("upstream.outlier", value, origin);
        }
        if let (Some(slow_start), Some(origin)) = (settings.slow_start, &origins.slow_start) {
            self.limit("upstream.slow_start", Period(slow_start), origin);
        }
        if let Some(origin) = &origins.panic_threshold {
            self.limit("upstream.panic_threshold", settings.panic_threshold, origin);
        }
    }

    pub(super) fn limits_of_retries(&mut self, route: &Route, plan: &Plan<'_>) {
        let Some((retry, slot)) = plan.retry.zip(route.policies.retry.as_ref()) else { return };
        let origin = &slot.origin;
        let on: Vec<String> = retry.conditions().map(|condition| condition.to_string()).collect();
        let (share, floor) = retry.budget();
        self.limit("retry.attempts", retry.attempts(), origin);
        self.limit("retry.on", on.join(", "), origin);
        self.limit("retry.buffer", ByteSize(retry.buffer()), origin);
        self.limit("retry.budget", format!("{}% and {floor}/s", share * 100.0), origin);
        if let Some((hedge, slot)) = plan.hedge.zip(route.policies.hedge.as_ref()) {
            self.limit("hedge.after", hedge.after(), &slot.origin);
        }
    }

    /// What is judged before any of the body goes upstream, or while it goes.
    pub(super) fn judge_body(&mut self) -> Option<Rejection> {
        let length = self.question.body.or(self.exchange.declared_length()).unwrap_or(0);
        let content = match &self.question.content {
            Some(content) => content.clone(),
            None if length == 0 => Bytes::new(),
            None => {
                if body::collects(&self.exchange).is_some() || body::scanner(&self.exchange).is_some() {
                    self.note("the body is not judged, since it is not known: give it by --body or --body-text");
                }
                return None;
            }
        };
        if let Some(most) = body::collects(&self.exchange) {
            let is_whole = content.len() as u64 <= most;
            let rejection = body::judge(&mut self.exchange, &content, is_whole);
            if is_whole || rejection.is_some() {
                return rejection;
            }
        }
        let mut scanner = body::scanner(&self.exchange).filter(|_| !content.is_empty())?;
        let fault = scanner.push(&content).and_then(|()| scanner.finish()).err()?;
        body::scanned(&mut self.exchange, fault)
    }
}
