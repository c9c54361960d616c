//! A tree of segments: host labels from the right, path segments from the left.
//!
//! A walk costs the length of what is looked up and ends at the first segment that nobody named; it allocates nothing
//! and its cost does not grow with the number of entries. Each node knows the nearest one above it that holds
//! something for everything below, so that the fallbacks of a walk are followed without a stack.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use smallvec::SmallVec;

/// A segment, in place up to 16 bytes: most lookups then touch one cache line less.
type Segment = SmallVec<[u8; 16]>;

/// Up to how many children are compared one by one rather than hashed.
const FEW: usize = 4;

/// Values by sequences of segments.
#[derive(Debug)]
pub(super) struct Tree<T> {
    nodes: Vec<Node<T>>,
}

#[derive(Debug)]
pub(super) struct Node<T> {
    children: Children,
    /// For the sequence that ends here.
    here: Option<T>,
    /// For the sequences that go on below here.
    below: Option<T>,
    parent: Option<usize>,
    /// The nearest node above with a value for what is below it. Set by [`Tree::link`].
    fallback: Option<usize>,
}

#[derive(Debug)]
enum Children {
    Few(SmallVec<[(Segment, usize); 1]>),
    Many(HashMap<Segment, usize, BuildHasherDefault<SegmentHasher>>),
}

/// Where a walk ended.
#[derive(Debug)]
pub(super) struct Landing<'t, T> {
    tree: &'t Tree<T>,
    node: usize,
    complete: bool,
}

impl<T> Tree<T> {
    pub(super) fn new() -> Self {
        Self { nodes: vec![Node::under(None)] }
    }

    /// The value for exactly this sequence, made if there is none.
    pub(super) fn here_mut<'s>(
        &mut self,
        segments: impl Iterator<Item = &'s str>,
        new: impl FnOnce() -> T,
    ) -> Option<&mut T> {
        let node = self.grow(segments);
        self.nodes.get_mut(node).map(|node| node.here.get_or_insert_with(new))
    }

    /// The value for what begins with this sequence, made if there is none.
    pub(super) fn below_mut<'s>(
        &mut self,
        segments: impl Iterator<Item = &'s str>,
        new: impl FnOnce() -> T,
    ) -> Option<&mut T> {
        let node = self.grow(segments);
        self.nodes.get_mut(node).map(|node| node.below.get_or_insert_with(new))
    }

    fn grow<'s>(&mut self, segments: impl Iterator<Item = &'s str>) -> usize {
        let mut at = 0;
        for segment in segments {
            let next = self.nodes.len();
            let Some(node) = self.nodes.get_mut(at) else { continue };
            match node.children.get(segment.as_bytes()) {
                Some(child) => at = child,
                None => {
                    node.children.insert(segment.as_bytes(), next);
                    self.nodes.push(Node::under(Some(at)));
                    at = next;
                }
            }
        }
        at
    }

    /// Must follow the last insertion. Parents stand before their children, so one pass in order does.
    pub(super) fn link(&mut self) {
        for at in 1..self.nodes.len() {
            let parent = self.nodes.get(at).and_then(|node| node.parent);
            let fallback = parent.and_then(|at| self.nodes.get(at).map(|node| (at, node)));
            let fallback = fallback.and_then(|(at, node)| if node.below.is_some() { Some(at) } else { node.fallback });
            if let Some(node) = self.nodes.get_mut(at) {
                node.fallback = fallback;
            }
        }
    }

    /// Every value, in no order that means anything.
    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.nodes.iter().flat_map(|node| node.here.iter().chain(&node.below))
    }

    /// Every value.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.nodes.iter_mut().flat_map(|node| node.here.iter_mut().chain(&mut node.below))
    }

    /// Walks as far as the segments lead.
    pub(super) fn walk<'s>(&self, segments: impl Iterator<Item = &'s str>) -> Landing<'_, T> {
        let mut at = 0;
        for segment in segments {
            match self.nodes.get(at).and_then(|node| node.children.get(segment.as_bytes())) {
                Some(child) => at = child,
                None => return Landing { tree: self, node: at, complete: false },
            }
        }
        Landing { tree: self, node: at, complete: true }
    }
}

impl<'t, T> Landing<'t, T> {
    /// The value for exactly the sequence that was walked.
    pub(super) fn here(&self) -> Option<&'t T> {
        if self.complete { self.tree.nodes.get(self.node)?.here.as_ref() } else { None }
    }

    /// The values for what begins like the sequence that was walked, the longest first; the whole sequence counts as
    /// its own beginning.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = &'t T> + use<'t, T> {
        self.chain(self.tree.nodes.get(self.node))
    }

    /// Like [`Landing::prefixes`], but a beginning must leave at least one segment over.
    pub(super) fn proper_prefixes(&self) -> impl Iterator<Item = &'t T> + use<'t, T> {
        let node = self.tree.nodes.get(self.node);
        let tree = self.tree;
        self.chain(if self.complete { node.and_then(|node| tree.nodes.get(node.fallback?)) } else { node })
    }

    fn chain(&self, first: Option<&'t Node<T>>) -> impl Iterator<Item = &'t T> + use<'t, T> {
        let tree = self.tree;
        std::iter::successors(first, move |node| tree.nodes.get(node.fallback?)).filter_map(|node| node.below.as_ref())
    }
}

impl<T> Node<T> {
    fn under(parent: Option<usize>) -> Self {
        Self { children: Children::Few(SmallVec::new()), here: None, below: None, parent, fallback: None }
    }
}

impl Children {
    fn get(&self, segment: &[u8]) -> Option<usize> {
        match self {
            Self::Few(list) => list.iter().find(|(name, _)| name.as_slice() == segment).map(|(_, child)| *child),
            Self::Many(map) => map.get(segment).copied(),
        }
    }

    fn insert(&mut self, segment: &[u8], child: usize) {
        let segment = Segment::from_slice(segment);
        match self {
            Self::Few(list) if list.len() < FEW => list.push((segment, child)),
            Self::Few(list) => *self = Self::Many(list.drain(..).chain([(segment, child)]).collect()),
            Self::Many(map) => {
                map.insert(segment, child);
            }
        }
    }
}

/// Eight bytes at a time by folded multiplication. Its keys come from the configuration: a client can probe the table
/// but never put anything into it, so it needs no secret seed.
#[derive(Debug, Default)]
pub(super) struct SegmentHasher(u64);

impl SegmentHasher {
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

    fn mix(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word).wrapping_mul(u128::from(Self::FACTOR));
        let [low, high] = [product & u128::from(u64::MAX), product >> 64].map(|half| u64::try_from(half).unwrap_or(0));
        self.0 = low ^ high.wrapping_add(Self::FACTOR);
    }
}

impl Hasher for SegmentHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        let rest = rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        self.mix(rest);
    }

    fn write_usize(&mut self, length: usize) {
        self.0 ^= length as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(path: &str) -> impl Iterator<Item = &str> {
        path.split('/').filter(|segment| !segment.is_empty())
    }

    fn tree(here: &[&'static str], below: &[&'static str]) -> Tree<&'static str> {
        let mut tree = Tree::new();
        for name in here.iter().copied() {
            tree.here_mut(segments(name), || name);
        }
        for name in below.iter().copied() {
            tree.below_mut(segments(name), || name);
        }
        tree.link();
        tree
    }

    #[track_caller]
    fn check(tree: &Tree<&'static str>, walked: &str, here: Option<&str>, prefixes: &[&str], proper: &[&str]) {
        let landing = tree.walk(segments(walked));
        assert_eq!(landing.here().copied(), here, "{walked}");
        assert_eq!(landing.prefixes().copied().collect::<Vec<_>>(), prefixes, "{walked}");
        assert_eq!(landing.proper_prefixes().copied().collect::<Vec<_>>(), proper, "{walked}");
    }

    #[test]
    fn prefixes_come_longest_first_and_skip_what_holds_nothing() {
        let tree = tree(&["a/b/c/d"], &["", "a", "a/b/c"]);
        check(&tree, "a/b/c/d", Some("a/b/c/d"), &["a/b/c", "a", ""], &["a/b/c", "a", ""]);
        check(&tree, "a/b/c", None, &["a/b/c", "a", ""], &["a", ""]);
        check(&tree, "a/b/x", None, &["a", ""], &["a", ""]);
        check(&tree, "", None, &[""], &[]);
        check(&tree, "x", None, &[""], &[""]);
    }

    #[test]
    fn many_children_are_found_like_few() {
        let names: Vec<String> = (0..1000).map(|n| format!("a-rather-long-name-for-a-segment-{n}")).collect();
        let mut tree = Tree::new();
        for (n, name) in names.iter().enumerate() {
            tree.here_mut([name.as_str()].into_iter(), || n);
        }
        tree.link();
        for (n, name) in names.iter().enumerate() {
            assert_eq!(tree.walk([name.as_str()].into_iter()).here(), Some(&n));
        }
        assert_eq!(tree.walk(["a-rather"].into_iter()).here(), None);
    }
}
