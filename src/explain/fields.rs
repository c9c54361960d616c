//! Field maps as they are shown: sorted, compared with what they were, and without credentials.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName};

use super::report::{Change, Compared, Field};
use crate::model::credential::is_credential;

const REDACTED: &str = "[redacted]";

/// Said elsewhere: the engine writes them from what it knows of host, body and connection.
const FRAMING: [HeaderName; 4] = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION];

/// `after`, and how it differs from `before`.
pub(super) fn compare(before: &HeaderMap, after: &HeaderMap) -> Compared {
    let mut names: Vec<&HeaderName> = after.keys().filter(|name| !FRAMING.contains(name)).collect();
    names.sort_unstable_by_key(|name| name.as_str());
    let mut sent = Vec::new();
    for name in names {
        let change = match () {
            () if !before.contains_key(name) => Change::Added,
            () if before.get_all(name).iter().eq(after.get_all(name)) => Change::Kept,
            () => Change::Changed,
        };
        for value in after.get_all(name) {
            let value = if is_hidden(name) {
                REDACTED.to_owned()
            } else {
                String::from_utf8_lossy(value.as_bytes()).into_owned()
            };
            sent.push(Field { name: name.as_str().to_owned(), value, change });
        }
    }
    let gone = before.keys().filter(|name| !FRAMING.contains(name) && !after.contains_key(*name));
    let mut removed: Vec<String> = gone.map(|name| name.as_str().to_owned()).collect();
    removed.sort_unstable();
    Compared { sent, removed }
}

/// `Access-Control-Allow-Credentials` is none.
fn is_hidden(name: &HeaderName) -> bool {
    is_credential(name.as_str().as_bytes()) && !name.as_str().starts_with("access-control-")
}

/// A path and query, or a query, with the values of credentials hidden.
pub(super) fn without_credentials(target: &str) -> String {
    let mut shown = String::with_capacity(target.len());
    let query_at = target.find('?').map_or(0, |at| at + 1);
    let (path, query) = target.split_at_checked(query_at).unwrap_or(("", target));
    shown.push_str(path);
    if path.is_empty() && target.starts_with('/') {
        return target.to_owned();
    }
    for parameter in query.split_inclusive(['&', ';']) {
        match parameter.split_once('=') {
            Some((name, value)) if is_credential(name.as_bytes()) => {
                let end = value.strip_suffix(['&', ';']).map_or("", |rest| value.get(rest.len()..).unwrap_or_default());
                shown.push_str(name);
                shown.push('=');
                shown.push_str(REDACTED);
                shown.push_str(end);
            }
            _ => shown.push_str(parameter),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn each_field_says_what_became_of_it() {
        let before = map(&[("host", "a"), ("x-kept", "1"), ("x-changed", "1"), ("x-gone", "1"), ("cookie", "a=b")]);
        let after = map(&[
            ("access-control-allow-credentials", "true"),
            ("x-new", "1"),
            ("x-kept", "1"),
            ("x-changed", "1"),
            ("x-changed", "2"),
            ("cookie", "a=b"),
        ]);
        let Compared { sent, removed } = compare(&before, &after);
        let sent: Vec<_> = sent.iter().map(|field| (&*field.name, &*field.value, field.change)).collect();
        let expected = [
            ("access-control-allow-credentials", "true", Change::Added),
            ("cookie", "[redacted]", Change::Kept),
            ("x-changed", "1", Change::Changed),
            ("x-changed", "2", Change::Changed),
            ("x-kept", "1", Change::Kept),
            ("x-new", "1", Change::Added),
        ];
        assert_eq!(sent, expected);
        assert_eq!(removed, ["x-gone"]);
    }

    #[test]
    fn values_of_credentials_in_a_query_are_hidden() {
        #[track_caller]
        fn check(target: &str, shown: &str) {
            assert_eq!(without_credentials(target), shown);
        }
        check("/a?token=1&b=2", "/a?token=[redacted]&b=2");
        check("b=2&api_key=3", "b=2&api_key=[redacted]");
        check("/token=1", "/token=1");
        check("/a?x", "/a?x");
    }
}
