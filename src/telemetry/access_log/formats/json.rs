//! `json`: one object per line. The names of the fields are those of the program log and of `explain`.

use std::io::Write as _;
use std::net::SocketAddr;

use super::super::entry::{AttemptEntry, Entry, most};
use super::super::redact::{push_query, push_target, split_query};
use super::super::text::{Escape, TimeText, bounded, push_cut, push_ip, push_millis, push_number};
use super::version_text;
use crate::model::verdict::Decision;

pub(super) fn write(entry: &Entry<'_>, time: &mut TimeText, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"time\":\"");
    time.push_rfc3339(out, entry.unix_nanos);
    out.push(b'"');
    if !entry.request_id.is_empty() {
        text(out, ",\"request_id\":\"", entry.request_id.as_bytes());
    }
    push_who(out, entry);
    push_what(out, entry);
    push_result(out, entry);
    push_attempts(out, entry);
    if let Some(referer) = entry.referer {
        quoted(out, ",\"referer\":\"", |out| push_target(out, referer, most::REFERER, Escape::Json));
    }
    if let Some(agent) = entry.user_agent {
        quoted(out, ",\"user_agent\":\"", |out| Escape::Json.push_at_most(out, agent, most::USER_AGENT));
    }
    if let Some(trace_id) = entry.trace_id {
        text(out, ",\"trace_id\":\"", trace_id.as_bytes());
    }
    push_decisions(out, entry);
    out.push(b'}');
}

/// Addresses and the listener.
fn push_who(out: &mut Vec<u8>, entry: &Entry<'_>) {
    quoted(out, ",\"client\":\"", |out| push_ip(out, entry.client));
    quoted(out, ",\"peer\":\"", |out| push_socket(out, entry.peer));
    text(out, ",\"listener\":\"", entry.listener.as_bytes());
    if let Some(version) = entry.tls_version {
        text(out, ",\"tls_version\":\"", version.as_bytes());
    }
}

/// The request and where it went.
fn push_what(out: &mut Vec<u8>, entry: &Entry<'_>) {
    if let Some(what) = entry.non_request {
        word(out, ",\"non_request\":\"", what.as_str());
    }
    if let Some(method) = entry.method {
        text(out, ",\"method\":\"", method.as_str().as_bytes());
    }
    word(out, ",\"scheme\":\"", entry.scheme.as_str());
    if let Some(host) = entry.host {
        text(out, ",\"host\":\"", host);
    }
    if let Some(target) = entry.target {
        push_path_and_query(out, target);
    }
    if let Some(version) = entry.version {
        word(out, ",\"version\":\"", version_text(version));
    }
    if let Some(principal) = entry.principal {
        text(out, ",\"principal\":\"", principal.as_bytes());
    }
    let names =
        [(",\"route\":\"", entry.route), (",\"upstream\":\"", entry.upstream), (",\"endpoint\":\"", entry.endpoint)];
    for (key, name) in names {
        if let Some(name) = name {
            text(out, key, name.as_bytes());
        }
    }
}

/// Path and query as two fields, so that requests can be grouped by path; the mark of a cut is at the end of the last.
fn push_path_and_query(out: &mut Vec<u8>, target: &[u8]) {
    let (shown, cut) = bounded(target, most::TARGET);
    let (path, query) = split_query(shown);
    quoted(out, ",\"path\":\"", |out| {
        Escape::Json.push(out, path);
        if query.is_none() {
            push_cut(out, cut);
        }
    });
    if let Some(query) = query {
        quoted(out, ",\"query\":\"", |out| {
            push_query(out, query, Escape::Json);
            push_cut(out, cut);
        });
    }
}

/// How it ended.
fn push_result(out: &mut Vec<u8>, entry: &Entry<'_>) {
    if let Some(status) = entry.status {
        number(out, ",\"status\":", status.as_u16().into());
    }
    if let Some(code) = entry.code {
        word(out, ",\"code\":\"", code.as_str());
    }
    if let Some(fallback) = entry.fallback {
        word(out, ",\"fallback\":\"", fallback.as_str());
    }
    if let Some(termination) = entry.termination {
        word(out, ",\"termination\":\"", termination.as_str());
    }
    number(out, ",\"bytes_in\":", entry.bytes_in);
    number(out, ",\"bytes_out\":", entry.bytes_out);
    out.extend_from_slice(b",\"duration_ms\":");
    push_millis(out, entry.duration);
}

fn push_attempts(out: &mut Vec<u8>, entry: &Entry<'_>) {
    let attempt = |out: &mut Vec<u8>, attempt: &AttemptEntry<'_>| {
        text(out, "{\"endpoint\":\"", attempt.endpoint.as_bytes());
        word(out, ",\"outcome\":\"", attempt.outcome.as_str());
        out.extend_from_slice(b",\"duration_ms\":");
        push_millis(out, attempt.duration);
        out.push(b'}');
    };
    list(out, ",\"attempts\":[", entry.attempts.iter().take(most::ATTEMPTS), attempt);
}

fn push_decisions(out: &mut Vec<u8>, entry: &Entry<'_>) {
    list(out, ",\"decisions\":[", entry.notable_decisions(), |out, decision: &Decision| {
        word(out, "{\"policy\":\"", decision.policy.as_str());
        word(out, ",\"verdict\":\"", decision.verdict.as_str());
        text(out, ",\"reason\":\"", decision.reason.as_bytes());
        out.push(b'}');
    });
}

/// An array, left out when it is empty.
fn list<T>(out: &mut Vec<u8>, open: &str, items: impl Iterator<Item = T>, mut write: impl FnMut(&mut Vec<u8>, T)) {
    let mut items = items.peekable();
    if items.peek().is_none() {
        return;
    }
    out.extend_from_slice(open.as_bytes());
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

/// A string; `open` is the key up to the opening quote.
fn text(out: &mut Vec<u8>, open: &str, value: &[u8]) {
    quoted(out, open, |out| Escape::Json.push_at_most(out, value, most::SHORT));
}

/// A string from a closed set of words, which needs no escaping.
fn word(out: &mut Vec<u8>, open: &str, word: &'static str) {
    quoted(out, open, |out| out.extend_from_slice(word.as_bytes()));
}

fn quoted(out: &mut Vec<u8>, open: &str, write: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(open.as_bytes());
    write(out);
    out.push(b'"');
}

fn number(out: &mut Vec<u8>, open: &str, value: u64) {
    out.extend_from_slice(open.as_bytes());
    push_number(out, value);
}

fn push_socket(out: &mut Vec<u8>, peer: SocketAddr) {
    match peer {
        SocketAddr::V4(v4) => {
            push_ip(out, (*v4.ip()).into());
            out.push(b':');
            push_number(out, v4.port().into());
        }
        // writing into memory can't fail
        SocketAddr::V6(v6) => drop(write!(out, "{v6}")),
    }
}
