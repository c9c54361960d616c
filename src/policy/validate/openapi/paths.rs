//! From a path to the operation that describes it: one tree per description, a step per segment, what is fixed before
//! what is a parameter. A look-up visits each node at most once.

use std::collections::{HashMap, HashSet};

use super::percent::decode;

/// The templates of a description.
#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    shapes: HashSet<String>,
}

#[derive(Debug, Default)]
struct Node {
    fixed: HashMap<Box<str>, usize>,
    /// Segments of text and parameters, the more text the earlier.
    mixed: Vec<(Segment, usize)>,
    end: Option<usize>,
}

/// A segment with parameters: `{id}`, `{name}.{format}`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Segment {
    parts: Vec<Part>,
    text: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Parameter(Box<str>),
}

/// A path that is described: the number that its template was added with, and the parameters as they came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found<'p> {
    pub(super) path: usize,
    pub(super) parameters: Vec<(String, &'p str)>,
}

impl Tree {
    /// Adds a template; an error when it is no template, or the same but for the names of its parameters as an earlier
    /// one, whose number it then is.
    pub(super) fn add(&mut self, template: &str, path: usize) -> Result<(), Twin> {
        let rest = template.strip_prefix('/').ok_or(Twin::Malformed("a path begins with `/`"))?;
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        // `/a/{x}` and `/a/{y}` are one path (OpenAPI 3.1 §4.8.8).
        let pieces = template.split('{').enumerate();
        let shape = pieces
            .map(|(at, piece)| if at == 0 { piece } else { piece.split_once('}').map_or("", |(_, after)| after) });
        if !self.shapes.insert(shape.collect::<Vec<_>>().join("{}")) {
            return Err(Twin::Same);
        }
        let mut at = 0;
        for segment in rest.split('/') {
            let next = self.nodes.len();
            let segment = parse(segment)?;
            let Some(node) = self.nodes.get_mut(at) else { return Err(Twin::Malformed("too many paths")) };
            let child = match segment {
                Ok(fixed) => *node.fixed.entry(fixed).or_insert(next),
                Err(segment) => {
                    if let Some((_, child)) = node.mixed.iter().find(|(other, _)| *other == segment) {
                        *child
                    } else {
                        // Other names of parameters: a way of its own, which counts after the first.
                        let place = node.mixed.iter().position(|(other, _)| other.text < segment.text);
                        node.mixed.insert(place.unwrap_or(node.mixed.len()), (segment, next));
                        next
                    }
                }
            };
            if child == next {
                self.nodes.push(Node::default());
            }
            at = child;
        }
        match self.nodes.get_mut(at) {
            Some(node) if node.end.is_none() => node.end = Some(path),
            _ => return Err(Twin::Same),
        }
        Ok(())
    }

    /// The template that describes `path`, which begins with `/`.
    pub(super) fn find<'p>(&self, path: &'p str) -> Option<Found<'p>> {
        let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        let mut taken = Vec::new();
        let path = self.step(0, &segments, &mut taken)?;
        Some(Found { path, parameters: taken })
    }

    fn step<'p>(&self, at: usize, segments: &[&'p str], taken: &mut Vec<(String, &'p str)>) -> Option<usize> {
        let node = self.nodes.get(at)?;
        let Some((segment, rest)) = segments.split_first() else { return node.end };
        let decoded = decode(segment, false)?;
        if let Some(child) = node.fixed.get(decoded.as_str())
            && let Some(found) = self.step(*child, rest, taken)
        {
            return Some(found);
        }
        for (pattern, child) in &node.mixed {
            let before = taken.len();
            if pattern.fits(segment, taken)
                && let Some(found) = self.step(*child, rest, taken)
            {
                return Some(found);
            }
            taken.truncate(before);
        }
        None
    }
}

/// Why a template can't be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Twin {
    Malformed(&'static str),
    Same,
}

/// A fixed segment, decoded, or one with parameters.
fn parse(segment: &str) -> Result<Result<Box<str>, Segment>, Twin> {
    let mut parts = Vec::new();
    let (mut rest, mut text) = (segment, 0);
    let mut add = |parts: &mut Vec<Part>, piece: &str| {
        if !piece.is_empty() {
            text += piece.len();
            parts.push(Part::Text(piece.into()));
        }
    };
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or(Twin::Malformed("a `{` without its `}`"))?;
        add(&mut parts, before);
        if matches!(parts.last(), Some(Part::Parameter(_))) {
            return Err(Twin::Malformed("two parameters with nothing between them"));
        }
        parts.push(Part::Parameter(name.into()));
        rest = after;
    }
    add(&mut parts, rest);
    if parts.iter().any(|part| matches!(part, Part::Parameter(_))) {
        return Ok(Err(Segment { parts, text }));
    }
    Ok(Ok(decode(segment, false).unwrap_or_else(|| segment.to_owned()).into()))
}

impl Segment {
    /// A parameter takes as little as lets the rest fit, and at least one byte.
    fn fits<'p>(&self, segment: &'p str, taken: &mut Vec<(String, &'p str)>) -> bool {
        let mut rest = segment;
        let mut parts = self.parts.iter().peekable();
        while let Some(part) = parts.next() {
            match part {
                Part::Text(text) => match rest.strip_prefix(text.as_ref()) {
                    Some(after) => rest = after,
                    None => return false,
                },
                Part::Parameter(name) => {
                    let end = match parts.peek() {
                        None => rest.len(),
                        // The last text of a segment is looked for from the end: `{name}.{format}` of `a.b.c` is `a.b`.
                        Some(Part::Text(text)) => match rest.rfind(text.as_ref()) {
                            Some(at) => at,
                            None => return false,
                        },
                        Some(Part::Parameter(_)) => return false,
                    };
                    let Some((value, after)) = rest.split_at_checked(end).filter(|(value, _)| !value.is_empty()) else {
                        return false;
                    };
                    taken.push((name.to_string(), value));
                    rest = after;
                }
            }
        }
        rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(templates: &[&str]) -> Tree {
        let mut tree = Tree::default();
        for (number, template) in templates.iter().enumerate() {
            tree.add(template, number).expect("a template");
        }
        tree
    }

    #[track_caller]
    fn check(path: &str, expected: Option<(usize, &str)>) {
        let tree = tree(&[
            "/",
            "/orders",
            "/orders/{id}",
            "/orders/mine",
            "/orders/{id}/items/{item}",
            "/orders/mine/history",
            "/files/{name}.{format}",
            "/files/{name}",
            "/a%20b/{x}",
            "/users/{user}/x",
            "/users/{id}",
        ]);
        let found = tree.find(path).map(|found| {
            let taken = found.parameters.iter().map(|(name, value)| format!("{name}={value}"));
            (found.path, taken.collect::<Vec<_>>().join(" "))
        });
        assert_eq!(found.as_ref().map(|(path, taken)| (*path, taken.as_str())), expected, "{path}");
    }

    #[test]
    fn what_is_fixed_comes_before_what_is_a_parameter() {
        check("/", Some((0, "")));
        check("/orders", Some((1, "")));
        check("/orders/7", Some((2, "id=7")));
        check("/orders/mine", Some((3, "")));
        check("/orders/mine/items/3", Some((4, "id=mine item=3")));
        check("/orders/mine/history", Some((5, "")));
        check("/files/a.b.png", Some((6, "name=a.b format=png")));
        check("/files/a", Some((7, "name=a")));
        check("/a%20b/1%2F2", Some((8, "x=1%2F2")));
        check("/users/7/x", Some((9, "user=7")));
        check("/users/7", Some((10, "id=7")));
        check("/orders/", None);
        check("/orders/7/items", None);
        check("/nothing", None);
        check("orders", None);
    }

    #[test]
    fn templates_that_say_the_same_are_told() {
        let mut tree = tree(&["/a/{x}", "/b"]);
        assert_eq!(tree.add("/a/{x}", 9), Err(Twin::Same));
        assert_eq!(tree.add("/a/{y}", 9), Err(Twin::Same));
        assert_eq!(tree.add("/b", 9), Err(Twin::Same));
        assert!(matches!(tree.add("c", 9), Err(Twin::Malformed(_))));
        assert!(matches!(tree.add("/{c", 9), Err(Twin::Malformed(_))));
        assert!(matches!(tree.add("/{a}{b}", 9), Err(Twin::Malformed(_))));
    }
}
