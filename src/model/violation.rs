//! What in a message is not as it should be, place by place, for the one who has to mend it.
//!
//! A violation names the place and the rule, never the value: what was sent may be a secret, and its sender knows it.

use serde::Serialize;

/// The most violations that one refusal lists.
pub const MAX_VIOLATIONS: usize = 20;
/// The longest text of one part of a violation, in characters.
const MAX_TEXT: usize = 200;

/// Which part of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The body.
    Body,
    /// The query of the target.
    Query,
    /// The path of the target.
    Path,
    /// A field of the head.
    Header,
    /// A crumb of `Cookie`.
    Cookie,
}

impl Place {
    /// Its name in a problem's `errors`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Query => "query",
            Self::Path => "path",
            Self::Header => "header",
            Self::Cookie => "cookie",
        }
    }
}

/// One thing to mend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Which part of the message.
    #[serde(rename = "in")]
    pub place: Place,
    /// Where in it (RFC 6901); the first step is the name of a parameter, except in the body.
    pub pointer: String,
    /// The rule that is broken.
    pub message: String,
}

/// The violations of one message, in the order in which they were found; at most [`MAX_VIOLATIONS`] are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// Adds one, unless there are enough of them.
    pub fn push(&mut self, place: Place, pointer: &str, message: &str) {
        if !self.is_full() {
            self.0.push(Violation { place, pointer: shortened(pointer), message: shortened(message) });
        }
    }

    /// Whether no more will be kept.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0.len() >= MAX_VIOLATIONS
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The violations.
    #[must_use]
    pub fn as_slice(&self) -> &[Violation] {
        &self.0
    }

    /// The violations.
    #[must_use]
    pub fn into_vec(self) -> Vec<Violation> {
        self.0
    }
}

/// `name` as one step of a JSON Pointer (RFC 6901 §3), with its slash.
#[must_use]
pub fn step(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((cut, _)) => format!("{}…", text.get(..cut).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_are_bounded_in_number_and_length() {
        let mut violations = Violations::default();
        for _ in 0..MAX_VIOLATIONS + 5 {
            violations.push(Place::Body, &"/a".repeat(1000), &"ü".repeat(1000));
        }
        assert_eq!(violations.as_slice().len(), MAX_VIOLATIONS);
        let longest = violations.as_slice().iter().map(|violation| violation.message.chars().count()).max();
        assert_eq!(longest, Some(MAX_TEXT + 1));
    }

    #[test]
    fn a_name_is_one_step_whatever_it_holds() {
        assert_eq!(step("a/b~c"), "/a~1b~0c");
    }
}
