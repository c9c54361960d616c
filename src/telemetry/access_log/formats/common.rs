//! `common`: `client - - [time] "request line" status bytes`, as Apache's `%h %l %u %t "%r" %>s %b`.

use super::super::entry::{Entry, most};
use super::super::redact::push_target;
use super::super::text::{Escape, TimeText, push_ip, push_number};
use super::version_text;

pub(super) fn write(entry: &Entry<'_>, time: &mut TimeText, out: &mut Vec<u8>) {
    push_ip(out, entry.client);
    out.extend_from_slice(b" - - [");
    time.push_common(out, entry.unix_nanos);
    out.extend_from_slice(b"] \"");
    push_request_line(out, entry);
    out.extend_from_slice(b"\" ");
    match entry.status {
        Some(status) => push_number(out, status.as_u16().into()),
        None => out.push(b'-'),
    }
    out.push(b' ');
    match entry.bytes_out {
        0 => out.push(b'-'),
        bytes => push_number(out, bytes),
    }
}

fn push_request_line(out: &mut Vec<u8>, entry: &Entry<'_>) {
    let (Some(method), Some(target)) = (entry.method, entry.target) else {
        out.push(b'-');
        return;
    };
    Escape::Hex.push_at_most(out, method.as_str().as_bytes(), most::SHORT);
    out.push(b' ');
    push_target(out, target, most::TARGET, Escape::Hex);
    if let Some(version) = entry.version {
        out.push(b' ');
        out.extend_from_slice(version_text(version).as_bytes());
    }
}
