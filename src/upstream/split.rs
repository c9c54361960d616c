//! Which upstream a request of a route goes to: `upstream = "api"`, an address, or shares of several.
//!
//! The share is exact in the long run and independent for each request; nothing ties a client to one side of it.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::selection::Shares;
use crate::model::diagnostic::{Diagnostic, Diagnostics, did_you_mean};
use crate::model::source::Spanned;

/// Where a route sends its requests: the name of an upstream, an address such as `"http://127.0.0.1:3000"`, `"demo"`,
/// or a list of them with weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Config {
    /// Everything goes to one upstream.
    One(String),
    /// Each request goes to one of several, by weight.
    Several(Vec<Part>),
}

/// One upstream of several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Part {
    /// The name of an upstream, an address, or `"demo"`.
    pub upstream: Spanned<String>,
    /// Its share relative to the others, 0 to 1000000; 0 sends it nothing.
    #[serde(default = "default_weight")]
    pub weight: Spanned<u32>,
}

fn default_weight() -> Spanned<u32> {
    Spanned { value: 1, ..Spanned::default() }
}

/// The greatest weight of a part: shares down to one in a million.
const MAX_WEIGHT: u32 = 1_000_000;
/// More parts than this are refused.
const MAX_PARTS: usize = 64;

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ConfigVisitor;

        impl<'de> Visitor<'de> for ConfigVisitor {
            type Value = Config;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of an upstream, an address, or [{ upstream = \"...\", weight = 95 }, ...]")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Config, E> {
                Ok(Config::One(name.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Config, A::Error> {
                let mut parts = Vec::new();
                while let Some(part) = list.next_element()? {
                    parts.push(part);
                }
                Ok(Config::Several(parts))
            }
        }

        deserializer.deserialize_any(ConfigVisitor)
    }
}

impl Config {
    /// Every reference to an upstream, where it stands. `whole` is the place of the setting.
    #[must_use]
    pub fn references(whole: &Spanned<Self>) -> Vec<Spanned<String>> {
        match &whole.value {
            Self::One(name) => vec![Spanned::new(name.clone(), whole.span)],
            Self::Several(parts) => parts.iter().map(|part| part.upstream.clone()).collect(),
        }
    }
}

/// Whether a reference is the address of an inline upstream and not a name: names have no colon.
#[must_use]
pub fn is_inline(reference: &str) -> bool {
    reference.contains(':')
}

/// The compiled shares of a route's upstreams.
#[derive(Debug, Clone)]
pub struct Split<T> {
    shares: Shares<T>,
}

impl<T> Split<T> {
    /// Compiles a route's `upstream`. `find` gives the upstream that a reference means; `known` are the names there
    /// are, for "did you mean". A reference that `find` does not know and that [`is_inline`] was reported when the
    /// inline upstream was compiled. `None` when there is an error.
    pub fn compile(
        config: &Spanned<Config>,
        find: impl Fn(&str) -> Option<T>,
        known: &[&str],
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        let errors = diagnostics.errors();
        check_parts(config, diagnostics);
        let references = Config::references(config);
        let weights = match &config.value {
            Config::One(_) => vec![1],
            Config::Several(parts) => parts.iter().map(|part| part.weight.value).collect(),
        };
        let mut items = Vec::with_capacity(references.len());
        for (reference, weight) in references.iter().zip(weights) {
            match find(reference) {
                Some(upstream) => items.push((upstream, weight)),
                None if is_inline(reference) => {}
                None => diagnostics.push(unknown(reference, known)),
            }
        }
        let complete = items.len() == references.len() && diagnostics.errors() == errors;
        let shares = Shares::new(items).filter(|_| complete)?;
        Some(Self { shares })
    }

    /// The upstream for a request, by random bits that are fresh for each request.
    #[must_use]
    pub fn choose(&self, random: u64) -> Option<&T> {
        self.shares.choose(random)
    }

    /// Every upstream with its weight.
    pub fn iter(&self) -> impl Iterator<Item = (&T, u64)> {
        self.shares.iter()
    }
}

fn check_parts(config: &Spanned<Config>, diagnostics: &mut Diagnostics) {
    let Config::Several(parts) = &config.value else { return };
    if parts.len() > MAX_PARTS {
        let message = format!("more than {MAX_PARTS} upstreams: {}", parts.len());
        diagnostics.push(Diagnostic::error("bad_value", config.span, message));
        return;
    }
    for (index, part) in parts.iter().enumerate() {
        if part.weight.value > MAX_WEIGHT {
            let message = format!("a weight is a number from 0 to {MAX_WEIGHT}: {}", part.weight.value);
            diagnostics.push(Diagnostic::error("bad_value", part.weight.span, message));
        }
        let mut earlier = parts.iter().take(index);
        if let Some(first) = earlier.find(|earlier| earlier.upstream == part.upstream) {
            let message = format!("an upstream that is there already: {:?}", part.upstream.value);
            let diagnostic = Diagnostic::error("duplicate", part.upstream.span, message);
            diagnostics.push(diagnostic.related(first.upstream.span, "first written here").help("add the weights up"));
        }
    }
    if parts.iter().all(|part| part.weight.value == 0) {
        let help = "give at least one upstream a weight above 0";
        diagnostics.push(Diagnostic::error("bad_value", config.span, "no upstream gets any request").help(help));
    }
}

fn unknown(reference: &Spanned<String>, known: &[&str]) -> Diagnostic {
    let message = format!("no upstream of that name: {:?}", reference.value);
    let diagnostic = Diagnostic::error("unknown_reference", reference.span, message);
    match did_you_mean(reference, known.iter().copied()) {
        Some(name) => diagnostic.help(format!("did you mean {name:?}?")),
        None => diagnostic.help("define it as [upstream.NAME], or write an address such as \"http://127.0.0.1:3000\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::source::SourceSpan;

    const NAMES: [&str; 3] = ["api", "canary", "http://a"];

    fn spanned<T>(value: T) -> Spanned<T> {
        Spanned::new(value, SourceSpan { file: 0, start: 1, end: 2 })
    }

    fn several(parts: &[(&str, u32)]) -> Config {
        let part =
            |(name, weight): &(&str, u32)| Part { upstream: spanned((*name).to_owned()), weight: spanned(*weight) };
        Config::Several(parts.iter().map(part).collect())
    }

    fn compile(config: Config) -> Result<Split<&'static str>, Vec<String>> {
        let mut diagnostics = Diagnostics::default();
        let find = |name: &str| NAMES.into_iter().find(|known| *known == name);
        let split = Split::compile(&spanned(config), find, &NAMES, &mut diagnostics);
        let text = |one: &Diagnostic| format!("{}; {}", one.message, one.help.clone().unwrap_or_default());
        split.ok_or_else(|| diagnostics.as_slice().iter().map(text).collect())
    }

    #[track_caller]
    fn check(config: Config, expected: &[&str]) {
        assert_eq!(compile(config).expect_err("is refused"), expected);
    }

    #[test]
    fn a_name_an_address_or_shares_are_understood() {
        for (config, expected) in [
            (Config::One("api".into()), vec![("api", 1)]),
            (Config::One("http://a".into()), vec![("http://a", 1)]),
            (
                several(&[("api", 95), ("canary", 5), ("http://a", 0)]),
                vec![("api", 95), ("canary", 5), ("http://a", 0)],
            ),
        ] {
            let split = compile(config).expect("compiles");
            assert_eq!(split.iter().map(|(name, weight)| (*name, weight)).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn mistakes_in_a_split_are_reported_together() {
        check(Config::One("apy".into()), &["no upstream of that name: \"apy\"; did you mean \"api\"?"]);
        check(several(&[]), &["no upstream gets any request; give at least one upstream a weight above 0"]);
        check(
            several(&[("api", 0), ("api", 0), ("canary", 0)]),
            &[
                "an upstream that is there already: \"api\"; add the weights up",
                "no upstream gets any request; give at least one upstream a weight above 0",
            ],
        );
        check(several(&[("api", 1_000_001)]), &["a weight is a number from 0 to 1000000: 1000001; "]);
        check(several(&vec![("api", 1); 65]), &["more than 64 upstreams: 65; "]);
    }

    #[test]
    fn an_address_that_could_not_be_read_is_not_reported_twice() {
        check(Config::One("http://bad/path".into()), &[]);
    }

    #[test]
    fn shares_are_exact_in_the_long_run() {
        let split = compile(several(&[("api", 95), ("canary", 5)])).expect("compiles");
        let mut rng = fastrand::Rng::with_seed(42);
        let canary = (0..100_000).filter(|_| split.choose(rng.u64(..)) == Some(&"canary")).count();
        assert!(canary.abs_diff(5000) < 250, "{canary}");
    }
}
