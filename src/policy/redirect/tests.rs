//! Requests and where they are sent.

use http::{Method, Version};
use proptest::prelude::*;

use super::*;

const METHOD: Method = Method::GET;

/// `url` as the gateway would see it; the parts are taken apart by hand so that odd paths stay as they are.
fn view<'a>(url: &'a str, headers: &'a HeaderMap) -> RequestView<'a> {
    let (scheme, rest) = url.split_once("://").expect("a scheme");
    let slash = rest.find('/').expect("a path");
    let (authority, target) = rest.split_at(slash);
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port.parse().expect("a port"))),
        None => (authority, None),
    };
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    RequestView {
        method: &METHOD,
        scheme: if scheme == "https" { Scheme::Https } else { Scheme::Http },
        host,
        port,
        path,
        query,
        headers,
        version: Version::HTTP_11,
        client: std::net::IpAddr::from([192, 0, 2, 1]),
        peer: std::net::SocketAddr::from(([192, 0, 2, 1], 5000)),
        principal: None,
        route: None,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the keys are optional, the tests give them")]
fn text(written: &str) -> Option<Spanned<String>> {
    Some(written.to_owned().into())
}

fn to(written: &str) -> Config {
    Config { to: text(written), ..Config::default() }
}

fn location(config: Config, url: &str, matched: usize) -> Option<String> {
    let mut diagnostics = Diagnostics::default();
    let redirect = compile(&config.into(), &mut diagnostics);
    let redirect = redirect.unwrap_or_else(|| panic!("{:?}", diagnostics.as_slice()));
    let answer = redirect.decide(&view(url, &HeaderMap::new()), matched)?;
    assert_eq!(answer.status, redirect.status);
    Some(answer.headers.get(LOCATION)?.to_str().expect("visible").to_owned())
}

#[track_caller]
fn check(config: Config, url: &str, expected: Option<&str>) {
    assert_eq!(location(config, url, "/old".len()).as_deref(), expected, "{url}");
}

#[test]
fn a_part_that_is_not_given_stays() {
    let https = || Config { scheme: text("https"), ..Config::default() };
    check(https(), "http://a.example/x?y=1", Some("https://a.example/x?y=1"));
    check(https(), "http://a.example:8080/x", Some("https://a.example/x"));
    check(Config { port: Some(8443.into()), ..https() }, "http://a.example/x", Some("https://a.example:8443/x"));
    check(Config { port: Some(443.into()), ..https() }, "http://a.example/x", Some("https://a.example/x"));
    check(
        Config { host: text("WWW.a.example"), ..Config::default() },
        "https://a.example:8443/x",
        Some("https://www.a.example:8443/x"),
    );
    check(Config { path: text("/new"), ..Config::default() }, "http://a.example/old/x?y", Some("/new?y"));
    check(Config { path_prefix: text("/new"), ..Config::default() }, "http://a.example/old/x?y", Some("/new/x?y"));
    check(Config { query: text("a=b"), ..Config::default() }, "http://a.example/x?y", Some("/x?a=b"));
    check(Config { query: text(""), ..Config::default() }, "http://a.example/x?y", Some("/x"));
}

#[test]
fn a_target_is_one_text() {
    let all = || to("https://{host}{path}{query}");
    check(all(), "http://a.example:80/x?y=1", Some("https://a.example/x?y=1"));
    check(all(), "http://a.example/x", Some("https://a.example/x"));
    check(to("https://www.example.com"), "http://a.example/x?y", Some("https://www.example.com/"));
    check(to("{scheme}://www.{host}:{port}/a{path}"), "http://a.example/x", Some("http://www.a.example:80/a/x"));
    check(to("/new{query}"), "http://a.example/x?y", Some("/new?y"));
    check(to("{path}/index.html"), "http://a.example/x", Some("/x/index.html"));
    check(to("/login?back={path}"), "http://a.example/x", Some("/login?back=/x"));
    check(to("/login?a=1{query}"), "http://a.example/x?b=2", Some("/login?a=1&b=2"));
}

#[test]
fn nobody_is_sent_where_they_are() {
    check(Config { scheme: text("https"), ..Config::default() }, "https://a.example/x?y", None);
    check(Config { port: Some(443.into()), ..Config::default() }, "https://a.example/x", None);
    check(Config { query: text(""), ..Config::default() }, "https://a.example/x", None);
    check(Config { path: text("/x"), ..Config::default() }, "https://a.example/x", None);
    check(to("https://{host}{path}{query}"), "https://a.example/x?y", None);
    check(to("https://{host}:443/x"), "https://a.example/x", None);
    check(to("https://A.example{path}"), "https://a.example/x", None);
    check(to("/x"), "https://a.example/x?y", Some("/x"));
}

#[test]
fn no_path_leads_off_the_site() {
    check(Config { query: text("a"), ..Config::default() }, "https://a.example//evil.example", Some("/evil.example?a"));
    check(to("{path}?a"), "https://a.example//evil.example", Some("/evil.example?a"));
    check(to("/{path}"), "https://a.example//evil.example", Some("/evil.example"));
    check(to("{path}x"), "https://a.example/\\evil.example", Some("/evil.examplex"));
    check(
        Config { path_prefix: text("/"), ..Config::default() },
        "https://a.example/old//evil.example",
        Some("/evil.example"),
    );
}

#[test]
fn mistakes_come_with_a_way_out() {
    #[track_caller]
    fn check(config: Config, told: &str) {
        let mut diagnostics = Diagnostics::default();
        assert!(compile(&config.into(), &mut diagnostics).is_none());
        let found = diagnostics.as_slice().first().expect("an error");
        let text = format!("{} {}", found.message, found.help.as_deref().unwrap_or_default());
        assert!(text.contains(told), "{text}");
    }
    check(Config::default(), "a redirect to the same place");
    check(Config { status: 304.into(), ..to("/x") }, "not the status of a redirect: 304");
    check(Config { host: text("a"), ..to("/x") }, "`host` beside `to`");
    check(Config { path: text("/a"), path_prefix: text("/b"), ..Config::default() }, "both replace the path");
    check(Config { scheme: text("ftp"), ..Config::default() }, "write \"http\" or \"https\"");
    check(Config { host: text("a:80"), ..Config::default() }, "a port has a key of its own");
    check(Config { port: Some(0.into()), ..Config::default() }, "1 to 65535");
    check(Config { path: text("/a?b"), ..Config::default() }, "the query has a key of its own");
    check(Config { query: text("?b"), ..Config::default() }, "leave the `?` out");
    check(to("www.example.com/x"), "begin with");
    check(to("javascript://x"), "begin with");
    check(to("https://{path}"), "between \"://\" and the path");
    check(to("https:///x"), "between \"://\" and the path");
    check(to("https://user@{host}/"), "without a user");
    check(to("/x y"), "percent-encode");
    check(to("/x{query}?a"), "brings its own `?`");
    check(to("/{pth}"), "did you mean `{path}`?");
}

proptest! {
    #[test]
    fn a_location_stays_on_the_site_that_was_meant(path in "[/\\\\a-z .\r\n%@:?#]{0,16}", which in 0_usize..5) {
        let url = format!("http://a.example/{path}");
        let config = match which {
            0 => to("{path}{query}"),
            1 => to("https://b.example{path}{query}"),
            2 => Config { host: text("b.example"), ..Config::default() },
            3 => Config { path_prefix: text("/"), ..Config::default() },
            _ => Config { query: text("z"), ..Config::default() },
        };
        let is_absolute = matches!(which, 1 | 2);
        if let Some(location) = location(config, &url, 0) {
            let target = if is_absolute {
                let rest = location.split_once("://b.example").map(|(_, rest)| rest);
                prop_assert!(rest.is_some(), "{}", location);
                rest.unwrap_or_default()
            } else {
                &location
            };
            prop_assert!(target.starts_with('/') && !target.starts_with("//"), "{}", location);
            prop_assert!(location.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\'), "{}", location);
        }
    }
}
