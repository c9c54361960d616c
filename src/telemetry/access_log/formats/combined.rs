//! `combined`: the common format, then `"referer" "user agent"`.

use super::super::entry::{Entry, most};
use super::super::redact::push_target;
use super::super::text::{Escape, TimeText};
use super::common;

pub(super) fn write(entry: &Entry<'_>, time: &mut TimeText, out: &mut Vec<u8>) {
    common::write(entry, time, out);
    out.extend_from_slice(b" \"");
    match entry.referer {
        Some(referer) => push_target(out, referer, most::REFERER, Escape::Hex),
        None => out.push(b'-'),
    }
    out.extend_from_slice(b"\" \"");
    match entry.user_agent {
        Some(agent) => Escape::Hex.push_at_most(out, agent, most::USER_AGENT),
        None => out.push(b'-'),
    }
    out.push(b'"');
}
