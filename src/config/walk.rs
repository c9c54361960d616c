//! Checks a tree against the schema of a type: every mistake of structure at once, each at its place.
//!
//! An unknown key is underlined at the key, a wrong value at the value. Where a setting takes several shapes, the one
//! that fits what was written best is chosen, so that a mistake inside it is reported there. YAML's and JSON's `null`
//! counts as not written. It does not decide what settings mean together: that is the compile step's.

use serde_json::Value as Json;

use super::bounds::{float, integer, range, repeated};
use super::choice::{not_allowed, string_of_several, table_of_several};
use super::node::{Key, Node, Value, shortened};
use super::schema::{DocumentSchema, allowed_values, is_closed, join, takes};
use crate::model::diagnostic::{Diagnostic, Diagnostics, did_you_mean};
use crate::model::shape::Kind;

/// Checks `root` and pushes what is wrong. In a `partial` tree (see [`Parsed`](super::node::Parsed)) nothing is missing.
pub fn check(root: &Node, schema: &DocumentSchema, partial: bool, diagnostics: &mut Diagnostics) {
    let walk = Walk { schema, partial };
    diagnostics.extend(walk.node(root, schema.root()));
}

struct Walk<'a> {
    schema: &'a DocumentSchema,
    partial: bool,
}

/// What is wrong with one value.
pub(super) type Found = Vec<Diagnostic>;

impl<'a> Walk<'a> {
    fn node(&self, node: &Node, schema: &'a Json) -> Found {
        if node.secret.as_ref().is_some_and(|secret| !secret.resolved) {
            return Found::new();
        }
        let branches = self.schema.branches(schema);
        let fitting: Vec<_> = branches.iter().copied().filter(|branch| takes(branch, node)).collect();
        match fitting.as_slice() {
            [] => vec![self.wrong_type(node, schema, &branches)],
            [only] => self.branch(node, only, &branches),
            several => self.best_of(node, several, &branches),
        }
    }

    /// Checks against one branch, whose type fits; `all` are its siblings, for the help.
    fn branch(&self, node: &Node, schema: &'a Json, all: &[&'a Json]) -> Found {
        let values = allowed_values(schema);
        if !values.is_empty() {
            return not_allowed(node, &values, all).into_iter().collect();
        }
        match &node.value {
            Value::Table(entries) => self.table(node, entries, schema),
            Value::Array(items) => self.array(node, items, schema),
            Value::String(text) => self.string(node, text, schema).into_iter().collect(),
            Value::Integer(number) => integer(node, *number, schema).into_iter().collect(),
            Value::Float(number) => float(node, *number, schema).into_iter().collect(),
            Value::Bool(_) | Value::Null => Found::new(),
        }
    }

    fn best_of(&self, node: &Node, several: &[&'a Json], all: &[&'a Json]) -> Found {
        let tries: Vec<_> = several.iter().map(|branch| (*branch, self.branch(node, branch, all))).collect();
        if tries.iter().any(|(_, found)| found.is_empty()) {
            return Found::new();
        }
        match node.kind() {
            Kind::String => string_of_several(node, tries, all),
            Kind::Table => table_of_several(node, tries),
            _ => tries.into_iter().map(|(_, found)| found).min_by_key(Vec::len).unwrap_or_default(),
        }
    }

    fn wrong_type(&self, node: &Node, schema: &'a Json, branches: &[&'a Json]) -> Diagnostic {
        if matches!(node.value, Value::Integer(_) | Value::Float(_)) {
            let number = node.words().split(' ').nth(1).unwrap_or_default().to_owned();
            let unit = branches.iter().filter_map(|branch| branch.get("format")?.as_str());
            for format in unit {
                if let Some(Err(message)) = self.schema.check_format(format, &number) {
                    return Diagnostic::error("unitless", node.span, message);
                }
            }
        }
        let expected = self.schema.expected(schema);
        Diagnostic::error("wrong_type", node.span, format!("expected {expected}, found {}", node.words()))
    }

    fn table(&self, node: &Node, entries: &[(Key, Node)], schema: &'a Json) -> Found {
        let mut found = Found::new();
        let mut suggested = Vec::new();
        let known = properties(schema);
        for (key, item) in entries {
            match self.schema_of(&key.text, schema) {
                Some(_) if item.is_null() && known.contains(&key.text.as_str()) => {}
                Some(schema) => found.extend(self.node(item, schema)),
                None => {
                    let (unknown, suggestion) = unknown_key(key, &known, node);
                    suggested.extend(suggestion);
                    found.push(unknown);
                }
            }
        }
        let required = schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
        for name in required {
            let written = node.get(name).is_some_and(|item| !item.is_null());
            if !written && !self.partial && !suggested.contains(&name) {
                let missing = Diagnostic::error("missing_key", node.span, format!("`{name}` is missing"));
                let expected = self.schema_of(name, schema).map(|schema| self.schema.expected(schema));
                found.push(missing.help(format!("`{name}` takes {}", expected.unwrap_or_default())));
            }
        }
        found
    }

    fn schema_of(&self, key: &str, table: &'a Json) -> Option<&'a Json> {
        if let Some(schema) = table.get("properties").and_then(|properties| properties.get(key)) {
            return Some(schema);
        }
        let patterns = table.get("patternProperties").and_then(Json::as_object).into_iter().flatten();
        for (pattern, schema) in patterns {
            if self.schema.pattern(pattern).is_some_and(|regex| regex.is_match(key)) {
                return Some(schema);
            }
        }
        if is_closed(table) && !super::schema::types(table).is_empty() {
            return None;
        }
        Some(table.get("additionalProperties").unwrap_or(&Json::Bool(true)))
    }

    fn array(&self, node: &Node, items: &[Node], schema: &'a Json) -> Found {
        let mut found = Found::new();
        let prefix = schema.get("prefixItems").and_then(Json::as_array).map_or(&[] as &[Json], Vec::as_slice);
        let rest = schema.get("items").unwrap_or(&Json::Bool(true));
        for (index, item) in items.iter().enumerate() {
            found.extend(self.node(item, prefix.get(index).unwrap_or(rest)));
        }
        let bound = |name: &str| schema.get(name).and_then(Json::as_u64);
        let length = u64::try_from(items.len()).unwrap_or(u64::MAX);
        if bound("minItems").is_some_and(|least| length < least) || bound("maxItems").is_some_and(|most| length > most)
        {
            let message = format!("a list of {length} items is out of range");
            found.push(
                Diagnostic::error("out_of_range", node.span, message).help(range(schema, "minItems", "maxItems")),
            );
        }
        if schema.get("uniqueItems") == Some(&Json::Bool(true)) {
            found.extend(repeated(items));
        }
        found
    }

    fn string(&self, node: &Node, text: &str, schema: &'a Json) -> Option<Diagnostic> {
        if let Some(format) = schema.get("format").and_then(Json::as_str)
            && let Some(Err(message)) = self.schema.check_format(format, text)
        {
            let code = if text.trim().parse::<f64>().is_ok() { "unitless" } else { "bad_value" };
            let message = match &node.secret {
                Some(secret) => format!("{} is not {}", secret.written, self.schema.expected(schema)),
                None => message,
            };
            return Some(Diagnostic::error(code, node.span, message));
        }
        if let Some(pattern) = schema.get("pattern").and_then(Json::as_str)
            && self.schema.pattern(pattern).is_some_and(|regex| !regex.is_match(text))
        {
            let message = format!("{} does not match `{pattern}`", node.words());
            return Some(Diagnostic::error("bad_value", node.span, message));
        }
        let length = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
        let bound = |name: &str| schema.get(name).and_then(Json::as_u64);
        if bound("minLength").is_some_and(|least| length < least)
            || bound("maxLength").is_some_and(|most| length > most)
        {
            let message = format!("a string of {length} characters is out of range");
            let help = range(schema, "minLength", "maxLength");
            return Some(Diagnostic::error("out_of_range", node.span, message).help(help));
        }
        None
    }
}

pub(super) fn properties(schema: &Json) -> Vec<&str> {
    let properties = schema.get("properties").and_then(Json::as_object);
    properties.map(|properties| properties.keys().map(String::as_str).collect()).unwrap_or_default()
}

/// How many known keys a help lists.
const FEW: usize = 12;

/// The error for a key that the table does not take, and the known key that was likely meant.
pub(super) fn unknown_key<'k>(key: &Key, known: &[&'k str], table: &Node) -> (Diagnostic, Option<&'k str>) {
    let unknown = Diagnostic::error("unknown_key", key.span, format!("unknown key `{}`", shortened(&key.text)));
    let unwritten = known.iter().copied().filter(|name| table.get(name).is_none());
    let suggestion = did_you_mean(&key.text, unwritten);
    let unknown = match suggestion {
        Some(name) => unknown.help(format!("did you mean `{name}`?")),
        None if known.is_empty() => unknown.help("this table takes no keys"),
        None if known.len() <= FEW => {
            let quoted: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
            unknown.help(format!("known keys are {}", join(&quoted, "and")))
        }
        None => unknown,
    };
    (unknown, suggestion)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use schemars::JsonSchema;
    use serde::Deserialize;

    use super::*;
    use crate::config::{toml, yaml};
    use crate::model::shape::{Both, OneOrMany};
    use crate::model::source::Spanned;
    use crate::model::toggle::{OrOff, Toggle};
    use crate::model::units::{ByteSize, Percent, Period};

    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Document {
        name: Spanned<String>,
        #[serde(default)]
        rate_limit: Option<Spanned<Limit>>,
        #[serde(default)]
        retry: OneOrMany<Limit>,
        #[serde(default)]
        compress: Option<Toggle<Limit>>,
        #[serde(default)]
        access: Option<OrOff<Limit>>,
        #[serde(default)]
        timeout: Option<Period>,
        #[serde(default)]
        size: Option<ByteSize>,
        #[serde(default)]
        share: Option<Percent>,
        #[serde(default)]
        port: u16,
        #[serde(default)]
        count: u32,
        #[serde(default)]
        #[schemars(range(min = 1, max = 5))]
        level: u32,
        #[serde(default)]
        ratio: f64,
        #[serde(default)]
        balance: Option<Balance>,
        #[serde(default)]
        protocols: BTreeSet<Protocol>,
        #[serde(default)]
        upstream: BTreeMap<String, Limit>,
        #[serde(default)]
        ports: BTreeMap<u16, String>,
        #[serde(default)]
        pair: Option<(u8, String)>,
        #[serde(default)]
        address: Option<std::net::IpAddr>,
        #[serde(default)]
        step: Option<Step>,
        #[serde(default)]
        both: Option<Both<Limit, Named>>,
        #[serde(default)]
        #[schemars(regex(pattern = "^[a-z]+$"))]
        word: Option<String>,
        #[serde(default)]
        wait: Option<Wait>,
        #[serde(default)]
        anything: Option<serde_json::Value>,
    }

    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Limit {
        rate: u32,
        #[serde(default)]
        window: Option<Period>,
    }

    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Named {
        label: String,
    }

    #[derive(Deserialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord)]
    #[serde(rename_all = "snake_case")]
    enum Protocol {
        H1,
        H2,
    }

    #[derive(Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    #[expect(dead_code, reason = "only its schema is used")]
    enum Balance {
        /// In turn.
        RoundRobin,
        /// At random.
        Random,
        /// By a key.
        Hash(String),
        Weighted {
            weight: u8,
        },
    }

    #[derive(Deserialize, JsonSchema)]
    #[serde(tag = "type", rename_all = "snake_case")]
    #[expect(dead_code, reason = "only its schema is used")]
    enum Step {
        Wait { period: Period },
        Send { body: String },
    }

    #[derive(Deserialize, JsonSchema)]
    #[serde(untagged)]
    #[expect(dead_code, reason = "only its schema is used")]
    enum Wait {
        Word(Never),
        Period(Period),
    }

    #[derive(Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Never {
        Never,
    }

    fn found(text: &str, is_yaml: bool, partial: bool) -> Vec<String> {
        let mut diagnostics = Diagnostics::default();
        let parsed =
            if is_yaml { yaml::parse(text, 0, &mut diagnostics) } else { toml::parse(text, 0, &mut diagnostics) };
        check(&parsed.root, &DocumentSchema::of::<Document>(), partial, &mut diagnostics);
        let show = |d: &Diagnostic| {
            let written = d.span.unwrap().slice(text).unwrap();
            let help = d.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
            format!("{} {written}: {}{help}", d.code, d.message)
        };
        diagnostics.as_slice().iter().map(show).collect()
    }

    /// What is wrong with one line of TOML beside the required key.
    #[track_caller]
    fn line(text: &str, expected: &[&str]) {
        assert_eq!(found(&format!("name = 'n'\n{text}"), false, false), expected);
    }

    #[test]
    fn what_fits_is_accepted() {
        line("rate_limit = { rate = 1 }\nretry = [{ rate = 1, window = '5s' }]\ncompress = true\naccess = false", &[]);
        line(
            "retry = { rate = 1 }\ncompress = { rate = 1 }\nports = { 80 = 'x' }\npair = [1, 'a']\naddress = '::1'",
            &[],
        );
        line("balance = 'random'\nprotocols = ['h1', 'h2']\nword = 'abc'\nwait = 'never'\nratio = 1\nlevel = 5", &[]);
        line(
            "balance = { weighted = { weight = 1 } }\nstep = { type = 'wait', period = '1s' }\nanything = [1, {}]",
            &[],
        );
        line("balance = { hash = 'x' }\nboth = { rate = 1, label = 'l' }\nupstream.any.rate = 1\nwait = '3s'", &[]);
    }

    #[test]
    fn an_unknown_key_is_underlined_and_its_likely_meaning_named() {
        line("rate_limt = {}", &["unknown_key rate_limt: unknown key `rate_limt` (did you mean `rate_limit`?)"]);
        line("upstream.a = { rte = 1 }", &["unknown_key rte: unknown key `rte` (did you mean `rate`?)"]);
        line(
            "upstream.a = { rate = 1, zzz = 1 }",
            &["unknown_key zzz: unknown key `zzz` (known keys are `rate` and `window`)"],
        );
        line("zzz = 1", &["unknown_key zzz: unknown key `zzz`"]);
        line("ports = { x = '' }", &["unknown_key x: unknown key `x` (this table takes no keys)"]);
    }

    #[test]
    fn a_missing_key_is_named_once() {
        assert_eq!(found("", false, false), ["missing_key : `name` is missing (`name` takes a string)"]);
        assert_eq!(found("", false, true), [""; 0], "nothing is missing where a syntax error cut something off");
        assert_eq!(found("nam = 'x'", false, false), ["unknown_key nam: unknown key `nam` (did you mean `name`?)"]);
        line("[upstream.api]\n", &["missing_key [upstream.api]: `rate` is missing (`rate` takes an integer)"]);
        line("both = { rate = 1 }", &["missing_key { rate = 1 }: `label` is missing (`label` takes a string)"]);
    }

    #[test]
    fn a_quantity_without_unit_says_which_units_there_are() {
        line("timeout = 30", &["unitless 30: a duration needs a unit, as in \"30s\" or \"30ms\""]);
        line("timeout = '30'", &["unitless '30': a duration needs a unit, as in \"30s\" or \"30ms\""]);
        line("size = 1.5", &["unitless 1.5: a size needs a unit, as in \"1.5KiB\" or \"1.5B\""]);
        line("timeout = 'soon'", &["bad_value 'soon': not a duration such as \"250ms\", \"30s\" or \"5m\": \"soon\""]);
        line("share = '120%'", &["bad_value '120%': a share is between 0% and 100%: \"120%\""]);
        line("wait = 3", &["unitless 3: a duration needs a unit, as in \"3s\" or \"3ms\""]);
        line(
            "wait = 'nevr'",
            &[
                "bad_value 'nevr': not a duration such as \"250ms\", \"30s\" or \"5m\": \"nevr\" (it also takes \"never\")",
            ],
        );
    }

    #[test]
    fn a_wrong_type_says_what_is_expected_and_what_was_found() {
        line("port = '80'", &["wrong_type '80': expected an integer, found string \"80\""]);
        line("port = 80.5", &["wrong_type 80.5: expected an integer, found number 80.5"]);
        line("timeout = true", &["wrong_type true: expected a duration such as \"30s\", found boolean true"]);
        line("rate_limit = [1]", &["wrong_type [1]: expected a table, found a list"]);
        line("access = 'x'", &["wrong_type 'x': expected `false` or a table, found string \"x\""]);
        line("access = true", &["bad_value true: boolean true is not allowed here (it takes `false`)"]);
        line("compress = 3", &["wrong_type 3: expected `true` or `false` or a table, found integer 3"]);
        line("retry = 'x'", &["wrong_type 'x': expected a table or a list, found string \"x\""]);
        line("protocols = 'h1'", &["wrong_type 'h1': expected a list, found string \"h1\""]);
    }

    #[test]
    fn a_mistake_within_a_choice_of_shapes_is_reported_within_it() {
        line("retry = [{ rate = 'x' }]", &["wrong_type 'x': expected an integer, found string \"x\""]);
        line("compress = { rte = 1 }", &["unknown_key rte: unknown key `rte` (did you mean `rate`?)"]);
        line(
            "balance = { weighted = { weigth = 1 } }",
            &["unknown_key weigth: unknown key `weigth` (did you mean `weight`?)"],
        );
        line("balance = { hsh = 'x' }", &["unknown_key hsh: unknown key `hsh` (did you mean `hash`?)"]);
        line(
            "step = { type = 'send', period = '1s' }",
            &[
                "unknown_key period: unknown key `period` (known keys are `body` and `type`)",
                "missing_key { type = 'send', period = '1s' }: `body` is missing (`body` takes a string)",
            ],
        );
        line(
            "step = { type = 'snd' }",
            &["bad_value 'snd': string \"snd\" is not allowed here (did you mean \"send\"?)"],
        );
    }

    #[test]
    fn a_word_that_is_no_choice_names_the_choices() {
        line(
            "balance = 'randm'",
            &["bad_value 'randm': string \"randm\" is not allowed here (did you mean \"random\"?)"],
        );
        line(
            "balance = 'x'",
            &["bad_value 'x': string \"x\" is not allowed here \
            (it takes \"round_robin\", \"random\", a table with `hash` or a table with `weighted`)"],
        );
        line(
            "protocols = ['h3x']",
            &["bad_value 'h3x': string \"h3x\" is not allowed here (it takes \"h1\" or \"h2\")"],
        );
        line("protocols = ['h1', 'h1']", &["duplicate 'h1': string \"h1\" is listed twice"]);
        line("word = 'A1'", &["bad_value 'A1': string \"A1\" does not match `^[a-z]+$`"]);
        line("address = 'localhost'", &["bad_value 'localhost': not an IP address: \"localhost\""]);
    }

    #[test]
    fn numbers_and_lists_have_bounds() {
        line("port = 70000", &["out_of_range 70000: 70000 is out of range (from 0 to 65535)"]);
        line("count = 5000000000", &["out_of_range 5000000000: 5000000000 is out of range (from 0 to 4294967295)"]);
        line("level = 6", &["out_of_range 6: 6 is out of range (from 1 to 5)"]);
        line("pair = [1]", &["out_of_range [1]: a list of 1 items is out of range (exactly 2)"]);
        line(
            "pair = ['a', 1]",
            &[
                "wrong_type 'a': expected an integer, found string \"a\"",
                "wrong_type 1: expected a string, found integer 1",
            ],
        );
    }

    #[test]
    fn null_counts_as_not_written_where_a_key_may_be_left_out() {
        assert_eq!(found("name: n\ntimeout: ~\nport:\n", true, false), [""; 0]);
        assert_eq!(found("name:", true, false), ["missing_key name: `name` is missing (`name` takes a string)"]);
        assert_eq!(found("name: n\nupstream: {a: }", true, false), ["wrong_type : expected a table, found nothing"]);
    }

    #[test]
    fn all_mistakes_are_found_at_once() {
        let text = "nme = 'x'\nport = 'x'\ntimeout = 3\nbalance = 'randm'\n[upstream.a]\nrate = -1\n";
        let codes: Vec<_> = found(text, false, false).iter().map(|d| d.split(' ').next().unwrap().to_owned()).collect();
        assert_eq!(codes, ["unknown_key", "wrong_type", "unitless", "bad_value", "out_of_range"]);
    }

    #[test]
    fn a_secret_is_named_by_its_reference_and_an_unresolved_one_not_judged() {
        use crate::config::node::Secret;
        let mut diagnostics = Diagnostics::default();
        let mut root = toml::parse("name = 'n'\ntimeout = 'hush'\nbalance = 'hush'", 0, &mut diagnostics).root;
        let Value::Table(entries) = &mut root.value else { panic!("a table") };
        for (_, node) in entries.iter_mut() {
            node.secret = Some(Box::new(Secret {
                written: "${env:T}".to_owned(),
                values: vec!["hush".to_owned()],
                resolved: true,
            }));
        }
        let schema = DocumentSchema::of::<Document>();
        check(&root, &schema, false, &mut diagnostics);
        assert_eq!(diagnostics.errors(), 2);
        assert!(!format!("{diagnostics:?}").contains("hush"), "{diagnostics:?}");
        let Value::Table(entries) = &mut root.value else { panic!("a table") };
        entries.iter_mut().filter_map(|(_, node)| node.secret.as_mut()).for_each(|secret| secret.resolved = false);
        let mut diagnostics = Diagnostics::default();
        check(&root, &schema, false, &mut diagnostics);
        assert!(!diagnostics.has_errors());
    }
}
