//! Whether numbers lie in the range that a schema gives, and whether a list says the same twice.

use serde_json::Value as Json;

use super::node::Node;
use super::walk::Found;
use crate::model::diagnostic::Diagnostic;

pub(super) fn integer(node: &Node, number: i64, schema: &Json) -> Option<Diagnostic> {
    let by_format = match schema.get("format").and_then(Json::as_str) {
        Some("uint32") => (0, i64::from(u32::MAX)),
        Some("int32") => (i64::from(i32::MIN), i64::from(i32::MAX)),
        _ => (i64::MIN, i64::MAX),
    };
    let least = schema.get("minimum").and_then(Json::as_i64).unwrap_or(i64::MIN).max(by_format.0);
    let most = schema.get("maximum").and_then(Json::as_i64).unwrap_or(i64::MAX).min(by_format.1);
    if (least..=most).contains(&number) && float(node, to_float(number), schema).is_none() {
        return None;
    }
    let help = match (least, most) {
        (i64::MIN, i64::MAX) => range(schema, "exclusiveMinimum", "exclusiveMaximum"),
        (least, i64::MAX) => format!("at least {least}"),
        (i64::MIN, most) => format!("at most {most}"),
        (least, most) => format!("from {least} to {most}"),
    };
    Some(Diagnostic::error("out_of_range", node.span, format!("{number} is out of range")).help(help))
}

#[expect(clippy::cast_precision_loss, reason = "bounds that large are exact enough")]
fn to_float(number: i64) -> f64 {
    number as f64
}

pub(super) fn float(node: &Node, number: f64, schema: &Json) -> Option<Diagnostic> {
    let bound = |name: &str| schema.get(name).and_then(Json::as_f64);
    let refused = bound("minimum").is_some_and(|least| number < least)
        || bound("maximum").is_some_and(|most| number > most)
        || bound("exclusiveMinimum").is_some_and(|least| number <= least)
        || bound("exclusiveMaximum").is_some_and(|most| number >= most)
        || number.is_nan();
    let message = format!("{number} is out of range");
    refused.then(|| Diagnostic::error("out_of_range", node.span, message).help(range(schema, "minimum", "maximum")))
}

/// `at least 1`, `at most 9`, `from 1 to 9`; exclusive bounds are named as such.
pub(super) fn range(schema: &Json, least: &str, most: &str) -> String {
    let exclusive = |name: &str| if name.starts_with("exclusive") { "more than" } else { "at least" };
    match (schema.get(least), schema.get(most)) {
        (Some(least), Some(most)) if least == most => format!("exactly {least}"),
        (Some(least), Some(most)) => format!("from {least} to {most}"),
        (Some(bound), None) => format!("{} {bound}", exclusive(least)),
        (None, Some(bound)) if most.starts_with("exclusive") => format!("less than {bound}"),
        (None, Some(bound)) => format!("at most {bound}"),
        (None, None) => "it takes no such number".to_owned(),
    }
}

pub(super) fn repeated(items: &[Node]) -> Found {
    let mut seen = std::collections::HashMap::new();
    let mut found = Found::new();
    for item in items {
        let shown = super::secrets::redacted(item).to_string();
        match seen.get(&shown) {
            Some(first) => found.push(
                Diagnostic::error("duplicate", item.span, format!("{} is listed twice", item.words()))
                    .related(*first, "first listed here"),
            ),
            None => {
                seen.insert(shown, item.span);
            }
        }
    }
    found
}
