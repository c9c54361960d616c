//! The reference manual, written from the schema: what the documentation of the fields says, as one page of Markdown.
//!
//! A section is a table of the configuration, named by the path of keys that leads to it (`route.timeout`). A table that
//! can be written in several places has its section at the first. The output depends on the schema alone.

use std::collections::VecDeque;
use std::fmt::Write as _;

use serde_json::Value as Json;

use super::schema::{DocumentSchema, allowed_values, is_closed, types};

/// The manual as Markdown, without a title: the caller puts it into a page.
#[must_use]
pub fn markdown(schema: &DocumentSchema) -> String {
    let mut manual = Manual { schema, sections: Vec::new(), waiting: VecDeque::new() };
    manual.section_of(schema.root(), "");
    let mut text = String::new();
    while let Some((path, table)) = manual.waiting.pop_front() {
        manual.section(&path, table, &mut text);
    }
    text
}

struct Manual<'a> {
    schema: &'a DocumentSchema,
    /// The tables that have a section, and its path.
    sections: Vec<(&'a Json, String)>,
    waiting: VecDeque<(String, &'a Json)>,
}

impl<'a> Manual<'a> {
    fn section(&mut self, path: &str, table: &'a Json, text: &mut String) {
        let title = if path.is_empty() { "Top level".to_owned() } else { format!("`{path}`") };
        let _ = writeln!(text, "## {title}\n");
        if let Some(description) = description(table) {
            let _ = writeln!(text, "{description}\n");
        }
        let Some(properties) = table.get("properties").and_then(Json::as_object) else { return };
        let mut keys: Vec<_> = properties.iter().collect();
        keys.sort_by_key(|(key, _)| key.as_str());
        text.push_str("| Key | Type | Default | Meaning |\n| --- | --- | --- | --- |\n");
        for (key, property) in keys {
            let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let kind = self.kind(property, &below);
            let default = default_of(table, key, property);
            let meaning = description(property).or_else(|| description(self.schema.target(property)));
            let meaning = format!("{} {}", meaning.unwrap_or_default(), self.choices(property)).replace('\n', " ");
            let _ = writeln!(text, "| `{key}` | {} | {} | {} |", cell(&kind), cell(&default), cell(meaning.trim()));
        }
        text.push('\n');
    }

    /// What each word of an enum means, as far as it is documented.
    fn choices(&self, schema: &'a Json) -> String {
        let meanings = self.schema.branches(schema).into_iter().filter_map(|branch| {
            let name = match branch.get("const") {
                Some(value) => value.to_string(),
                None => tag(branch)?.0.clone(),
            };
            Some(format!("`{name}`: {}", description(branch)?))
        });
        meanings.collect::<Vec<_>>().join(" ")
    }

    /// In the operator's words; a table is a link to its section.
    fn kind(&mut self, schema: &'a Json, path: &str) -> String {
        let mut words: Vec<String> = Vec::new();
        let mut choices: Vec<String> = Vec::new();
        for branch in self.schema.branches(schema) {
            let values = allowed_values(branch);
            if !values.is_empty() {
                choices.extend(values.iter().map(|value| format!("`{value}`")));
                continue;
            }
            let word = self.branch(branch, path);
            if !words.contains(&word) {
                words.push(word);
            }
        }
        match choices.as_slice() {
            [] => {}
            [one] => words.insert(0, one.clone()),
            several => words.insert(0, format!("one of {}", several.join(", "))),
        }
        words.join(" or ")
    }

    fn branch(&mut self, branch: &'a Json, path: &str) -> String {
        let format = branch.get("format").and_then(Json::as_str);
        match (types(branch).into_iter().find(|name| *name != "null"), format) {
            (Some("string"), Some("period")) => "duration".to_owned(),
            (Some("string"), Some("byte-size")) => "size".to_owned(),
            (Some("string"), Some("byte-rate")) => "size per second".to_owned(),
            (Some("string"), Some("rate")) => "rate".to_owned(),
            (Some("string"), Some("percent")) => "share".to_owned(),
            (Some("string"), Some(format)) => format!("string ({format})"),
            (Some("array"), _) => match branch.get("items") {
                Some(items) => format!("list of {}", self.kind(items, path)),
                None => "list".to_owned(),
            },
            (Some("object"), _) => self.table(branch, path),
            (Some("integer"), _) => format!("integer{}", bounds(branch)),
            (Some("number"), _) => format!("number{}", bounds(branch)),
            (Some(name), _) => name.to_owned(),
            (None, _) => "anything".to_owned(),
        }
    }

    fn table(&mut self, table: &'a Json, path: &str) -> String {
        if !is_closed(table) || table.get("patternProperties").is_some() {
            let named = table.get("patternProperties").and_then(Json::as_object).and_then(|all| all.values().next());
            let value = table.get("additionalProperties").filter(|value| value.is_object()).or(named);
            return match value {
                Some(value) => format!("table by name of {}", self.kind(value, &format!("{path}.NAME"))),
                None => "table".to_owned(),
            };
        }
        match tag(table) {
            // a choice of an enum that is written as a table of one key
            Some((key, value)) => {
                let value = self.kind(value, &format!("{path}.{key}"));
                format!("`{{ {key} = … }}` with {value}")
            }
            None => format!("[table](#{})", anchor(&self.section_of(table, path))),
        }
    }

    fn section_of(&mut self, table: &'a Json, path: &str) -> String {
        if let Some((_, path)) = self.sections.iter().find(|(known, _)| std::ptr::eq(*known, table)) {
            return path.clone();
        }
        self.sections.push((table, path.to_owned()));
        self.waiting.push_back((path.to_owned(), table));
        path.to_owned()
    }
}

fn tag(table: &Json) -> Option<(&String, &Json)> {
    let properties = table.get("properties")?.as_object()?;
    let one_of_an_enum = table.get("additionalProperties") == Some(&Json::Bool(false)) && properties.len() == 1;
    one_of_an_enum.then(|| properties.iter().next())?
}

fn description(schema: &Json) -> Option<&str> {
    schema.get("description").and_then(Json::as_str)
}

fn default_of(table: &Json, key: &str, property: &Json) -> String {
    let required =
        table.get("required").and_then(Json::as_array).is_some_and(|names| names.iter().any(|name| name == key));
    match property.get("default") {
        _ if required => "required".to_owned(),
        None | Some(Json::Null) => "none".to_owned(),
        Some(Json::Array(items)) if items.is_empty() => "none".to_owned(),
        Some(Json::Object(entries)) if entries.is_empty() => "none".to_owned(),
        Some(value) => format!("`{}`", as_toml(value)),
    }
}

/// As an operator would write it.
fn as_toml(value: &Json) -> String {
    match value {
        Json::Array(items) => format!("[{}]", items.iter().map(as_toml).collect::<Vec<_>>().join(", ")),
        Json::Object(entries) => {
            let mut entries: Vec<_> = entries.iter().filter(|(_, value)| !value.is_null()).collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            let entries: Vec<_> =
                entries.into_iter().map(|(key, value)| format!("{key} = {}", as_toml(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        other => other.to_string(),
    }
}

fn bounds(schema: &Json) -> String {
    match (schema.get("minimum"), schema.get("maximum")) {
        (Some(least), Some(most)) => format!(", {least} to {most}"),
        (Some(least), None) if least != 0 => format!(", at least {least}"),
        (None, Some(most)) => format!(", at most {most}"),
        _ => String::new(),
    }
}

/// A heading's anchor as GitHub and mdBook make it: lower case, punctuation dropped.
fn anchor(path: &str) -> String {
    if path.is_empty() {
        return "top-level".to_owned();
    }
    path.to_lowercase().chars().filter(|c| c.is_alphanumeric() || matches!(c, '_' | '-')).collect()
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
