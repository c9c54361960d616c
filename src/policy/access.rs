//! Which client addresses may use a route.
//!
//! Decides from the client's address alone: the peer's, or the one that trusted proxies vouch for. `deny` is asked
//! first; then, when there is an `allow` list, the address must be on it. There is no "most specific prefix wins": an
//! address that an operator has denied stays out, whatever else the lists say. Never looks at a field of the request and
//! never resolves a name.

use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::prefixes::{self, PrefixSet};
use crate::model::source::Spanned;
use crate::model::verdict::{Admission, Code, Mode, PolicyName, Rejection};

/// `access`: which client addresses may use the route. At least one of the two lists is required.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// Addresses and prefixes that may use the route, such as `"10.0.0.0/8"` or `"192.0.2.7"`. With this list, every
    /// other address is refused; without it, every address that is not denied may. An empty list is an error, because
    /// it could mean everybody or nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<Spanned<Vec<Spanned<String>>>>,
    /// Addresses and prefixes that are refused, also when `allow` names them. Default: none.
    pub deny: Vec<Spanned<String>>,
    /// `"enforce"` refuses with 403 `forbidden`; `"report"` lets the request go on and counts `would_reject`.
    pub mode: Mode,
}

/// The compiled lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    allow: Option<PrefixSet>,
    deny: PrefixSet,
    mode: Mode,
}

/// Reads the settings.
pub fn compile(config: &Spanned<Config>, diagnostics: &mut Diagnostics) -> Option<Access> {
    let errors = diagnostics.errors();
    let deny = PrefixSet::compile(&config.deny, diagnostics);
    let allow = config.allow.as_ref().map(|list| {
        if list.is_empty() {
            diagnostics.push(Diagnostic::error("empty_list", list.span, "an empty `allow` list").help(
                "leave `allow` out to let everybody in, or deny \"0.0.0.0/0\" and \"::/0\" to keep everybody out",
            ));
        }
        warn_of_shadowed(list, &deny, diagnostics);
        PrefixSet::compile(list, diagnostics)
    });
    if allow.is_none() && config.deny.is_empty() {
        diagnostics.push(
            Diagnostic::error("missing_key", config.span, "an access list without `allow` and without `deny`")
                .help("to switch an inherited list off, write `access = false`"),
        );
    }
    (diagnostics.errors() == errors).then_some(Access { allow, deny, mode: config.mode })
}

/// `deny` is asked first, so an entry of `allow` inside it says nothing.
fn warn_of_shadowed(allow: &[Spanned<String>], deny: &PrefixSet, diagnostics: &mut Diagnostics) {
    for entry in allow {
        let covering = |prefix: IpNet| deny.covering(prefix);
        if let Some(denied) = prefixes::parse(entry).and_then(covering) {
            let message = format!("allowed, but also denied by {denied}: {:?}", entry.value);
            diagnostics.push(Diagnostic::warning("shadowed", entry.span, message).help("`deny` is asked first"));
        }
    }
}

impl Access {
    /// Whether `client` may use the route. O(log n) in the length of the lists; allocates only to refuse.
    #[must_use]
    pub fn decide(&self, client: IpAddr) -> Admission {
        if let Some(prefix) = self.deny.find(client) {
            return self.refuse(format!("{client} is denied by {prefix}"));
        }
        match &self.allow {
            None => Admission::allow(PolicyName::Access, "the address is not denied"),
            Some(allow) if allow.contains(client) => Admission::allow(PolicyName::Access, "the address is allowed"),
            Some(_) => self.refuse(format!("{client} is not on the allow list")),
        }
    }

    fn refuse(&self, reason: String) -> Admission {
        let rejection = Rejection::new(Code::Forbidden, "this address may not use this route");
        Admission::refuse(PolicyName::Access, self.mode, reason, rejection)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::verdict::Verdict;

    fn list(entries: &[&str]) -> Vec<Spanned<String>> {
        entries.iter().map(|entry| Spanned::from((*entry).to_owned())).collect()
    }

    fn config(allow: Option<&[&str]>, deny: &[&str]) -> Spanned<Config> {
        Config { allow: allow.map(|entries| list(entries).into()), deny: list(deny), mode: Mode::Enforce }.into()
    }

    #[track_caller]
    fn check(allow: Option<&[&str]>, deny: &[&str], client: &str, reason: Result<&str, &str>) {
        let access = compile(&config(allow, deny), &mut Diagnostics::default()).expect("valid lists");
        let admission = access.decide(client.parse().expect("an address"));
        let (verdict, expected) = match reason {
            Ok(reason) => (Verdict::Allow, reason),
            Err(reason) => (Verdict::Reject, reason),
        };
        assert_eq!((admission.decision.verdict, &*admission.decision.reason), (verdict, expected));
        assert_eq!(admission.rejection.map(|rejection| rejection.code), reason.err().map(|_| Code::Forbidden));
    }

    #[test]
    fn deny_comes_first_and_then_the_allow_list() {
        let ten: Option<&[&str]> = Some(&["10.0.0.0/8"]);
        check(ten, &[], "10.1.2.3", Ok("the address is allowed"));
        check(ten, &[], "192.0.2.1", Err("192.0.2.1 is not on the allow list"));
        check(ten, &["10.6.0.0/16"], "10.6.6.6", Err("10.6.6.6 is denied by 10.6.0.0/16"));
        check(Some(&["10.6.6.6"]), &["10.0.0.0/8"], "10.6.6.6", Err("10.6.6.6 is denied by 10.0.0.0/8"));
        check(None, &["10.6.6.6"], "10.6.6.7", Ok("the address is not denied"));
        check(ten, &[], "::ffff:10.0.0.1", Ok("the address is allowed"));
        check(None, &["2001:db8::/32"], "2001:db8::9", Err("2001:db8::9 is denied by 2001:db8::/32"));
    }

    #[test]
    fn report_mode_judges_and_lets_go_on() {
        let mut config = config(None, &["10.0.0.0/8"]);
        config.value.mode = Mode::Report;
        let access = compile(&config, &mut Diagnostics::default()).expect("valid lists");
        let admission = access.decide(IpAddr::from([10, 0, 0, 1]));
        assert_eq!((admission.decision.verdict, admission.rejection), (Verdict::WouldReject, None));
    }

    #[test]
    fn lists_that_say_nothing_are_refused() {
        #[track_caller]
        fn check(config: &Spanned<Config>, code: &str, errors: usize) {
            let mut diagnostics = Diagnostics::default();
            assert_eq!(compile(config, &mut diagnostics).is_none(), errors > 0);
            assert_eq!(diagnostics.errors(), errors);
            assert_eq!(diagnostics.as_slice().first().map(|found| found.code), Some(code));
        }
        check(&Config::default().into(), "missing_key", 1);
        check(&config(Some(&[]), &["10.0.0.1"]), "empty_list", 1);
        check(&config(Some(&["x", "y"]), &["z"]), "bad_value", 3);
        check(&config(Some(&["10.1.0.0/16"]), &["10.0.0.0/8"]), "shadowed", 0);
    }

    #[test]
    fn ten_thousand_prefixes_are_a_binary_search() {
        let deny: Vec<String> = (0..10_000_u32).map(|n| format!("10.{}.{}.0/25", n / 250, n % 250)).collect();
        let deny: Vec<&str> = deny.iter().map(String::as_str).collect();
        let access = compile(&config(None, &deny), &mut Diagnostics::default()).expect("valid lists");
        assert!(access.decide(IpAddr::from([10, 39, 249, 127])).rejection.is_some());
        assert!(access.decide(IpAddr::from([10, 39, 249, 128])).rejection.is_none());
    }

    proptest! {
        #[test]
        fn nobody_who_is_denied_gets_in(allow in 0_u8..=32, deny in 0_u8..=32, network in any::<[u8; 4]>(), client in any::<[u8; 4]>()) {
            let prefix = |length: u8| format!("{}/{length}", IpAddr::from(network));
            let (allow, deny) = (prefix(allow), prefix(deny));
            let access = compile(&config(Some(&[&allow]), &[&deny]), &mut Diagnostics::default()).expect("valid lists");
            let holds = |written: &str| written.parse::<IpNet>().expect("a prefix").contains(&IpAddr::from(client));
            let admitted = access.decide(IpAddr::from(client)).rejection.is_none();
            prop_assert_eq!(admitted, holds(&allow) && !holds(&deny));
        }
    }
}
