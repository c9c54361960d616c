//! An explanation for people: short lines, each with the place of the setting that caused it.

use std::fmt::{self, Display, Formatter, Write as _};

use super::report::{
    AttemptShown, Body, Change, Compared, Decided, Ending, Limit, Missed, RateLimit, Report, Request, Response, Route,
    Upstream,
};
use crate::model::violation::Violation;

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        request(f, &self.request)?;
        route(f, self.route.as_ref(), &self.near_misses)?;
        f.write_str("\ndecisions\n")?;
        decisions(f, &self.decisions)?;
        if !self.limits.is_empty() {
            f.write_str("\nlimits\n")?;
            limits(f, &self.limits)?;
        }
        if !self.rate_limits.is_empty() {
            f.write_str("\nrate limits\n")?;
            rate_limits(f, &self.rate_limits)?;
        }
        if let Some(up) = &self.upstream {
            upstream(f, up)?;
        }
        if let Some(sent) = &self.upstream_request {
            let upgrade = if sent.upgrade { ", asks to leave HTTP" } else { "" };
            writeln!(f, "\nto the upstream ({}{upgrade})", body(&sent.body))?;
            writeln!(f, "    {} {}", sent.method, sent.target)?;
            writeln!(f, "    host: {}", sent.host)?;
            fields(f, &sent.fields, true)?;
        }
        if self.attempts.len() > 1 || self.attempts.iter().any(|attempt| attempt.outcome != "200") {
            f.write_str("\nattempts\n")?;
            for AttemptShown { upstream, outcome, then } in &self.attempts {
                writeln!(f, "  {upstream:<8} {outcome:<8} {then}")?;
            }
        }
        if let Some(refusal) = &self.refusal {
            let by = refusal.policy.map_or_else(String::new, |policy| format!(" by {policy}"));
            writeln!(f, "\nrefused in {}{by}: {} ({})", refusal.stage.as_str(), refusal.code, refusal.detail)?;
            for Violation { place, pointer, message } in &refusal.errors {
                writeln!(
                    f,
                    "  {:<6} {:<24} {message}",
                    place.as_str(),
                    if pointer.is_empty() { "-" } else { pointer }
                )?;
            }
        }
        response(f, &self.response)?;
        for note in &self.notes {
            writeln!(f, "\nnote: {note}")?;
        }
        Ok(())
    }
}

fn request(f: &mut Formatter<'_>, request: &Request) -> fmt::Result {
    let port = request.port.map_or_else(String::new, |port| format!(":{port}"));
    let query = request.query.as_ref().map_or_else(String::new, |query| format!("?{query}"));
    writeln!(f, "{} {}://{}{port}{}{query}", request.method, request.scheme, request.host, request.path)?;
    let mut line = |name: &str, value: &dyn Display| writeln!(f, "  {name:<9} {value}");
    line("host", &request.host)?;
    match &request.path_as_received {
        Some(received) => line("path", &format_args!("{} (received as {received})", request.path))?,
        None => line("path", &request.path)?,
    }
    match &request.trusted_proxy {
        Some(proxy) => line("client", &format_args!("{} (by the word of {proxy})", request.client))?,
        None => line("client", &request.client)?,
    }
    if let Some(principal) = &request.principal {
        let groups = if principal.groups.is_empty() { "none".to_owned() } else { principal.groups.join(", ") };
        line("principal", &format_args!("{} (by {}; groups: {groups})", principal.name, principal.method))?;
    }
    if let Some(listener) = &request.listener {
        let tls = if listener.tls { ", TLS" } else { "" };
        line("listener", &format_args!("{} on {}{tls}  {}", listener.name, listener.address, listener.origin))?;
    }
    Ok(())
}

fn route(f: &mut Formatter<'_>, route: Option<&Route>, near_misses: &[Missed]) -> fmt::Result {
    match route {
        None => f.write_str("\nno route\n")?,
        Some(route) => {
            writeln!(f, "\nroute {}  {}", route.name, route.origin)?;
            writeln!(f, "  matches   host {}, path {}", route.host, route.path)?;
            if let Some(method) = &route.preflight_for {
                writeln!(f, "  because   it is a preflight for {method}")?;
            }
            if let Some(second) = &route.runner_up {
                writeln!(f, "  before    {}, decided by {}  {}", second.name, second.decided_by, second.origin)?;
            }
        }
    }
    for miss in near_misses {
        let missing: Vec<String> = miss.missing.iter().map(ToString::to_string).collect();
        writeln!(f, "  not       {}: lacks {}  {}", miss.name, missing.join(", "), miss.origin)?;
    }
    Ok(())
}

fn decisions(f: &mut Formatter<'_>, decisions: &[Decided]) -> fmt::Result {
    for decided in decisions {
        let (stage, policy) = (decided.stage.as_str(), decided.policy.unwrap_or("-"));
        write!(f, "  {stage:<8} {policy:<10} {:<12} {}", decided.verdict, decided.reason)?;
        match &decided.origin {
            Some(origin) => writeln!(f, "  {origin}")?,
            None => f.write_char('\n')?,
        }
    }
    Ok(())
}

fn limits(f: &mut Formatter<'_>, limits: &[Limit]) -> fmt::Result {
    let width = limits.iter().map(|limit| limit.name.len()).max().unwrap_or(0);
    limits.iter().try_for_each(|limit| writeln!(f, "  {:<width$} {}  {}", limit.name, limit.value, limit.origin))
}

fn rate_limits(f: &mut Formatter<'_>, limits: &[RateLimit]) -> fmt::Result {
    let width = limits.iter().map(|limit| limit.name.len()).max().unwrap_or(0);
    for limit in limits {
        let RateLimit { name, key, rate, burst, cost, verdict, left } = limit;
        let left = left.map_or_else(String::new, |left| format!(", {left} left"));
        writeln!(f, "  {name:<width$} {verdict:<12} {rate}, burst {burst}, cost {cost}{left}  {}", key.join(", "))?;
    }
    Ok(())
}

fn upstream(f: &mut Formatter<'_>, upstream: &Upstream) -> fmt::Result {
    writeln!(f, "\nupstream {}  {}", upstream.name, upstream.origin)?;
    if upstream.shares.len() > 1 {
        let shares = upstream.shares.iter().map(|share| format!("{} {}%", share.upstream, share.percent));
        writeln!(f, "  shares    {}", shares.collect::<Vec<_>>().join(", "))?;
    }
    let key = match upstream.balance.has_key {
        Some(false) => ", but the request has no key: drawn at random",
        Some(true) | None => "",
    };
    writeln!(f, "  balance   {}{key}  {}", upstream.balance.algorithm, upstream.balance.origin)?;
    for endpoint in &upstream.endpoints {
        let mark = if endpoint.chosen { '>' } else { ' ' };
        write!(f, "  {mark} {} weight {}", endpoint.url, endpoint.weight)?;
        if let Some(health) = endpoint.health {
            write!(f, ", health {health}")?;
        }
        f.write_str(if endpoint.address.is_some() { "\n" } else { " (not resolved)\n" })?;
    }
    Ok(())
}

fn response(f: &mut Formatter<'_>, response: &Response) -> fmt::Result {
    let maker = match response.ending {
        Ending::Forwarded => "the upstream's, supposed",
        Ending::Answered => "the gateway's answer",
        Ending::Refused => "the gateway's refusal",
    };
    writeln!(f, "\nto the client ({maker}; {})", body(&response.body))?;
    let reason = http::StatusCode::from_u16(response.status).ok().and_then(|status| status.canonical_reason());
    writeln!(f, "    {} {}", response.status, reason.unwrap_or_default())?;
    fields(f, &response.fields, response.ending == Ending::Forwarded)?;
    if let Some(text) = &response.text {
        f.write_char('\n')?;
        text.lines().try_for_each(|line| writeln!(f, "    {line}"))?;
    }
    Ok(())
}

/// Fields, marked by what became of them where there is something to compare with.
fn fields(f: &mut Formatter<'_>, fields: &Compared, compared: bool) -> fmt::Result {
    for field in &fields.sent {
        let mark = match field.change {
            Change::Added if compared => '+',
            Change::Changed if compared => '~',
            Change::Kept | Change::Added | Change::Changed => ' ',
        };
        writeln!(f, "  {mark} {}: {}", field.name, field.value)?;
    }
    fields.removed.iter().try_for_each(|name| writeln!(f, "  - {name}"))
}

fn body(body: &Body) -> String {
    match body {
        Body::Absent | Body::Bytes(0) => "no body".to_owned(),
        Body::Bytes(1) => "a body of 1 byte".to_owned(),
        Body::Bytes(length) => format!("a body of {length} bytes"),
        Body::Streamed => "a body that streams".to_owned(),
    }
}
