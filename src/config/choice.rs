//! Which of several shapes a setting was meant to have, and what to say when it has none of them.
//!
//! The shapes are the branches of `anyOf` and `oneOf`: the words of an enum, its variants written as tables, a string or
//! a table. It does not check a shape itself: [`walk`](super::walk) has tried each.

use serde_json::Value as Json;

use super::node::{Node, Value};
use super::schema::{allowed_values, join, literal};
use super::walk::{Found, properties, unknown_key};
use crate::model::diagnostic::{Diagnostic, did_you_mean};

/// The error for a value that is none of those listed.
pub(super) fn not_allowed(node: &Node, values: &[&Json], all: &[&Json]) -> Option<Diagnostic> {
    let is_listed = |value: &Json| match (&node.value, value) {
        (Value::Bool(written), Json::Bool(value)) => written == value,
        (Value::String(written), Json::String(value)) => written == value,
        (Value::Integer(written), Json::Number(value)) => value.as_i64() == Some(*written),
        (Value::Float(written), Json::Number(value)) => value.as_f64() == Some(*written),
        _ => false,
    };
    if values.iter().any(|value| is_listed(value)) {
        return None;
    }
    let refused = Diagnostic::error("bad_value", node.span, format!("{} is not allowed here", node.words()));
    let names = values.iter().filter_map(|value| value.as_str());
    if let (Value::String(written), None) = (&node.value, &node.secret)
        && let Some(name) = did_you_mean(written, names)
    {
        return Some(refused.help(format!("did you mean \"{name}\"?")));
    }
    let mut choices: Vec<_> = values.iter().map(|value| literal(value)).collect();
    choices.extend(all.iter().filter_map(|branch| Some(format!("a table with `{}`", tag_key(branch)?))));
    Some(refused.help(format!("it takes {}", join(&choices, "or"))))
}

/// The key of an enum variant that is written as a table of one key.
fn tag_key(branch: &Json) -> Option<&str> {
    let properties = branch.get("properties")?.as_object()?;
    let (name, _) = properties.iter().next()?;
    (properties.len() == 1 && branch.get("required")?.as_array()?.len() == 1).then_some(name)
}

/// None of several string shapes fits. A free shape's own complaint is worth more than "none of the listed".
pub(super) fn string_of_several(node: &Node, tries: Vec<(&Json, Found)>, all: &[&Json]) -> Found {
    let listed: Vec<&Json> = tries.iter().flat_map(|(branch, _)| allowed_values(branch)).collect();
    let free = tries.into_iter().find(|(branch, _)| allowed_values(branch).is_empty());
    match free {
        None => not_allowed(node, &listed, all).into_iter().collect(),
        Some((_, mut found)) => {
            if let (Some(first), false) = (found.first_mut(), listed.is_empty())
                && first.help.is_none()
            {
                let choices: Vec<_> = listed.iter().map(|value| literal(value)).collect();
                first.help = Some(format!("it also takes {}", join(&choices, "or")));
            }
            found
        }
    }
}

/// None of several table shapes fits: the one whose tag was written, else whose keys were, else with the fewest mistakes.
pub(super) fn table_of_several(node: &Node, tries: Vec<(&Json, Found)>) -> Found {
    let written_in = |branch: &Json| properties(branch).iter().filter(|name| node.get(name).is_some()).count();
    let matching = tries.iter().filter(|(branch, _)| tags_match(node, branch)).count();
    let score = |branch: &Json, found: &Found| {
        let tagged = matching > 0 && tags_match(node, branch);
        (tagged, written_in(branch), std::cmp::Reverse(found.len()))
    };
    let untouched = tries.iter().all(|(branch, _)| written_in(branch) == 0);
    if untouched && !node.entries().is_empty() {
        let known: Vec<_> = tries.iter().flat_map(|(branch, _)| properties(branch)).collect();
        return node.entries().iter().map(|(key, _)| unknown_key(key, &known, node).0).collect();
    }
    if matching == 0
        && let Some(wrong_tag) = wrong_tag(node, &tries)
    {
        return vec![wrong_tag];
    }
    // `max_by_key` takes the last of equals: the first variant is the likelier one
    tries
        .into_iter()
        .rev()
        .max_by_key(|(branch, found)| score(branch, found))
        .map(|(_, found)| found)
        .unwrap_or_default()
}

/// The key by which an internally tagged enum tells its variants apart, and the value of this one.
fn tag(branch: &Json) -> Option<(&String, &Json)> {
    let properties = branch.get("properties")?.as_object()?;
    properties.iter().find_map(|(name, schema)| Some((name, schema.get("const")?)))
}

fn tags_match(node: &Node, branch: &Json) -> bool {
    tag(branch).is_some_and(|(name, value)| {
        node.get(name).is_some_and(
            |written| matches!(&written.value, Value::String(text) if Some(text.as_str()) == value.as_str()),
        )
    })
}

fn wrong_tag(node: &Node, tries: &[(&Json, Found)]) -> Option<Diagnostic> {
    let tags: Vec<_> = tries.iter().filter_map(|(branch, _)| tag(branch)).collect();
    let (name, _) = tags.first()?;
    let written = node.get(name)?;
    let values: Vec<_> = tags.iter().filter(|(other, _)| other == name).map(|(_, value)| *value).collect();
    not_allowed(written, &values, &[])
}
