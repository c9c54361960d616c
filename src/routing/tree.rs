//! Values by sequences of segments: host labels from the right, path segments from the left.
//!
//! A walk costs the length of what is looked up and ends at the first segment that nobody named; it allocates nothing,
//! and its cost does not grow with the number of values but for the caches of the processor. To keep that small, the
//! tree is flat: the nodes stand in one table under a hash of their whole sequence, which a walk computes as it goes,
//! and what a walk yields is a list that was linked in advance. Only the node where a walk ends is compared with the
//! text, since it can't be right when an earlier step was wrong; when it isn't (a client can craft equal hashes), a
//! second walk compares every step.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::marker::PhantomData;

/// The index of nothing.
const NONE: u32 = u32::MAX;

/// How texts fall into segments.
pub(super) trait Reading {
    /// Whether a text counts as a beginning of itself: `/orders/*` takes `/orders`, but `*.example.com` does not take
    /// `example.com`.
    const BEGINS_ITSELF: bool;

    /// The next segment of what is left of a text, and what is left then.
    fn next(left: &str) -> Option<(&str, &str)>;

    /// What of `text` has been read when there is `left`.
    fn read<'t>(text: &'t str, left: &str) -> Option<&'t str>;
}

/// Paths, which begin with `/`; from the left. The empty text is what every path begins with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Paths {}

/// Host names, from the right. The empty text is what every host ends with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Hosts {}

impl Reading for Paths {
    const BEGINS_ITSELF: bool = true;

    fn next(left: &str) -> Option<(&str, &str)> {
        let left = left.strip_prefix('/')?;
        let end = left.bytes().position(|byte| byte == b'/').unwrap_or(left.len());
        left.split_at_checked(end)
    }

    fn read<'t>(text: &'t str, left: &str) -> Option<&'t str> {
        text.get(..text.len().checked_sub(left.len())?)
    }
}

impl Reading for Hosts {
    const BEGINS_ITSELF: bool = false;

    fn next(left: &str) -> Option<(&str, &str)> {
        if left.is_empty() {
            return None;
        }
        let Some(dot) = left.bytes().rposition(|byte| byte == b'.') else { return Some((left, "")) };
        Some((left.get(dot + 1..)?, left.get(..dot)?))
    }

    fn read<'t>(text: &'t str, left: &str) -> Option<&'t str> {
        let read = text.get(left.len()..)?;
        Some(if left.is_empty() { read } else { read.strip_prefix('.').unwrap_or(read) })
    }
}

/// Values and the texts that they belong to, while they are being collected. The texts of several roots are apart.
#[derive(Debug)]
pub(super) struct Seedlings<R, T> {
    /// By segments, so that each text comes after those that it begins with; these are always there.
    nodes: BTreeMap<(u32, Vec<Box<str>>), Lists<T>>,
    reading: PhantomData<R>,
}

/// What one text holds, each list in the order in which it is to be yielded.
#[derive(Debug)]
pub(super) struct Lists<T> {
    spelling: Box<str>,
    /// For the text itself.
    pub(super) here: Vec<T>,
    /// For what begins with the text.
    pub(super) below: Vec<T>,
}

/// The finished tree.
#[derive(Debug)]
pub(super) struct Tree<R, T> {
    seed: u64,
    nodes: HashMap<u64, Node, BuildHasherDefault<Hashed>>,
    items: Vec<Item<T>>,
    /// The texts of the nodes.
    spellings: String,
    reading: PhantomData<R>,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    root: u32,
    /// From and to, in the spellings.
    spelling: (u32, u32),
    /// The first item for a walk that ends here because its text does.
    complete: u32,
    /// The first item for a walk that would lead on from here to where there is no node.
    partial: u32,
}

#[derive(Debug)]
struct Item<T> {
    value: T,
    next: u32,
}

impl<R: Reading, T> Seedlings<R, T> {
    pub(super) const fn new() -> Self {
        Self { nodes: BTreeMap::new(), reading: PhantomData }
    }

    /// The lists of a text.
    pub(super) fn at(&mut self, root: u32, text: &str) -> &mut Lists<T> {
        let mut key = (root, Vec::new());
        let mut left = text;
        while let Some((segment, rest)) = R::next(left) {
            self.nodes.entry(key.clone()).or_insert_with(|| Lists::of::<R>(text, left));
            key.1.push(Box::from(segment));
            left = rest;
        }
        self.nodes.entry(key).or_insert_with(|| Lists::of::<R>(text, left))
    }

    /// Every list.
    pub(super) fn lists_mut(&mut self) -> impl Iterator<Item = &mut Vec<T>> {
        self.nodes.values_mut().flat_map(|lists| [&mut lists.here, &mut lists.below])
    }

    /// Lays the tree out for walking.
    pub(super) fn plant(self) -> Tree<R, T> {
        let seed = self.seed();
        let nodes = HashMap::with_capacity_and_hasher(self.nodes.len(), BuildHasherDefault::default());
        let mut tree = Tree { seed, nodes, items: Vec::new(), spellings: String::new(), reading: PhantomData };
        let mut partials: Vec<u32> = Vec::new(); // of the nodes above
        for ((root, segments), lists) in self.nodes {
            partials.truncate(segments.len());
            let above = partials.last().copied().unwrap_or(NONE);
            let partial = tree.chain(lists.below, above);
            partials.push(partial);
            let complete = tree.chain(lists.here, if R::BEGINS_ITSELF { partial } else { above });
            let start = tree.spellings.len();
            tree.spellings.push_str(&lists.spelling);
            let spelling = (narrow(start), narrow(tree.spellings.len()));
            tree.nodes.insert(hash_all(seed, root, &segments), Node { root, spelling, complete, partial });
        }
        tree.items.shrink_to_fit();
        tree.spellings.shrink_to_fit();
        tree
    }

    /// A seed by which no two nodes have the same hash; practically always the first.
    fn seed(&self) -> u64 {
        let differ = |seed: &u64| {
            let mut seen = HashSet::with_capacity(self.nodes.len());
            self.nodes.keys().all(|(root, segments)| seen.insert(hash_all(*seed, *root, segments)))
        };
        (0..u64::MAX).find(differ).unwrap_or_default()
    }
}

impl<T> Lists<T> {
    fn of<R: Reading>(text: &str, left: &str) -> Self {
        Self { spelling: R::read(text, left).unwrap_or_default().into(), here: Vec::new(), below: Vec::new() }
    }
}

impl<R: Reading, T> Tree<R, T> {
    /// The values for this text, and then for its beginnings, the longest first.
    pub(super) fn walk(&self, root: u32, text: &str) -> Items<'_, T> {
        let (node, left) = self.descend(root, text, |_, _| true);
        let at = match node {
            Some(node) if !self.is_spelt(node, root, text, left) => self.walk_carefully(root, text),
            Some(node) => node.first(left),
            None => NONE,
        };
        Items { items: &self.items, at }
    }

    #[cold]
    fn walk_carefully(&self, root: u32, text: &str) -> u32 {
        let (node, left) = self.descend(root, text, |node, left| self.is_spelt(node, root, text, left));
        node.map_or(NONE, |node| node.first(left))
    }

    /// The last node on the way, and what of the text is left there.
    fn descend<'t>(
        &self,
        root: u32,
        text: &'t str,
        is_right: impl Fn(&Node, &str) -> bool,
    ) -> (Option<&Node>, &'t str) {
        let mut hash = hash_root(self.seed, root);
        let mut last = None;
        let mut left = text;
        while let Some((segment, rest)) = R::next(left) {
            hash = hash_segment(hash, segment.as_bytes());
            let Some(node) = self.nodes.get(&hash).filter(|node| is_right(node, rest)) else { break };
            (last, left) = (Some(node), rest);
        }
        // the root has something to say only where no other node does
        let root = || self.nodes.get(&hash_root(self.seed, root)).filter(|node| is_right(node, text));
        (last.or_else(root), left)
    }

    fn is_spelt(&self, node: &Node, root: u32, text: &str, left: &str) -> bool {
        let (start, end) = node.spelling;
        node.root == root && R::read(text, left) == self.spellings.get(start as usize..end as usize)
    }

    /// Adds items that follow one another, the last one followed by `after`; the index of the first.
    fn chain(&mut self, list: Vec<T>, after: u32) -> u32 {
        let first = self.items.len();
        self.items.extend((first + 1..).zip(list).map(|(next, value)| Item { value, next: narrow(next) }));
        match self.items.get_mut(first..) {
            Some([.., end]) => {
                end.next = after;
                narrow(first)
            }
            _ => after,
        }
    }
}

impl Node {
    const fn first(&self, left: &str) -> u32 {
        if left.is_empty() { self.complete } else { self.partial }
    }
}

/// What a walk yields.
#[derive(Debug)]
pub(super) struct Items<'t, T> {
    items: &'t [Item<T>],
    at: u32,
}

impl<'t, T> Iterator for Items<'t, T> {
    type Item = &'t T;

    fn next(&mut self) -> Option<&'t T> {
        let item = self.items.get(self.at as usize)?;
        self.at = item.next;
        Some(&item.value)
    }
}

/// A length or index that a configuration can't make too large for 32 bits.
pub(super) fn narrow(wide: usize) -> u32 {
    u32::try_from(wide).unwrap_or(NONE)
}

fn hash_all(seed: u64, root: u32, segments: &[Box<str>]) -> u64 {
    segments.iter().fold(hash_root(seed, root), |hash, segment| hash_segment(hash, segment.as_bytes()))
}

const fn hash_root(seed: u64, root: u32) -> u64 {
    mix(seed, root as u64)
}

fn hash_segment(hash: u64, segment: &[u8]) -> u64 {
    let (words, rest) = segment.as_chunks::<8>();
    let hash = words.iter().fold(hash, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    let rest = rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    mix(hash, rest ^ (segment.len() as u64) << 56)
}

const fn mix(hash: u64, word: u64) -> u64 {
    let mixed = (hash ^ word).wrapping_add(0x9E37_79B9_7F4A_7C15).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    mixed ^ (mixed >> 32)
}

/// The keys of the table are hashes already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash_segment(self.0, bytes);
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree<R: Reading>(here: &[&'static str], below: &[&'static str]) -> Tree<R, &'static str> {
        let mut seedlings = Seedlings::new();
        for name in here.iter().copied() {
            seedlings.at(0, name).here.push(name);
        }
        for name in below.iter().copied() {
            seedlings.at(0, name).below.push(name);
        }
        seedlings.plant()
    }

    #[track_caller]
    fn check<R: Reading>(tree: &Tree<R, &'static str>, walked: &str, expected: &[&str]) {
        assert_eq!(tree.walk(0, walked).copied().collect::<Vec<_>>(), expected, "{walked}");
    }

    #[test]
    fn the_whole_path_comes_first_then_its_beginnings_the_longest_first() {
        let tree = tree::<Paths>(&["/a/b/c/d", "/a/b/c", "/x"], &["", "/a", "/a/b/c"]);
        check(&tree, "/a/b/c/d", &["/a/b/c/d", "/a/b/c", "/a", ""]);
        check(&tree, "/a/b/c/d/e", &["/a/b/c", "/a", ""]);
        check(&tree, "/a/b/c", &["/a/b/c", "/a/b/c", "/a", ""]);
        check(&tree, "/a/b", &["/a", ""]);
        check(&tree, "/a/b/x", &["/a", ""]);
        check(&tree, "/a/", &["/a", ""]);
        check(&tree, "/x", &["/x", ""]);
        check(&tree, "/x/x", &[""]);
        check(&tree, "/y", &[""]);
        check(&tree, "/", &[""]);
    }

    #[test]
    fn an_ending_of_a_host_leaves_a_label_over() {
        let tree = tree::<Hosts>(&["b.a"], &["", "a", "b.a"]);
        check(&tree, "b.a", &["b.a", "a", ""]);
        check(&tree, "c.b.a", &["b.a", "a", ""]);
        check(&tree, "d.c.b.a", &["b.a", "a", ""]);
        check(&tree, "a", &[""]);
        check(&tree, "x", &[""]);
        check(&tree, "xb.a", &["a", ""]);
    }

    #[test]
    fn roots_are_worlds_apart() {
        let mut seedlings = Seedlings::<Paths, _>::new();
        for root in 0..1000 {
            seedlings.at(root, "/a").here.push(root);
        }
        let tree = seedlings.plant();
        assert!((0..1000).all(|root| tree.walk(root, "/a").eq([&root])));
        assert_eq!(tree.walk(1000, "/a").next(), None);
    }

    /// Another text of two words with the same hash after `hash`: the second word makes up for what the first one does.
    fn twin(hash: u64, text: &[u8; 16]) -> String {
        let (words, _) = text.as_chunks::<8>();
        let [first, second] = words else { panic!("two words") };
        let wanted = mix(hash, u64::from_le_bytes(*first)) ^ u64::from_le_bytes(*second);
        (0_u64..)
            .map(|n| format!("{n:08}"))
            .map(|word| {
                [
                    word.clone().into_bytes(),
                    (mix(hash, u64::from_le_bytes(word.as_bytes().try_into().expect("8"))) ^ wanted)
                        .to_le_bytes()
                        .to_vec(),
                ]
                .concat()
            })
            .find_map(|twin| String::from_utf8(twin).ok().filter(|twin| !twin.contains('/') && twin.as_bytes() != text))
            .expect("one in some thousands")
    }

    #[test]
    fn a_crafted_segment_with_the_hash_of_another_is_not_taken_for_it() {
        let name = "administrators-1";
        let tree = tree::<Paths>(&["/a/administrators-1", "/a/administrators-1/b"], &["", "/a"]);
        let twin = twin(hash_all(tree.seed, 0, &["a".into()]), name.as_bytes().try_into().expect("16 bytes"));
        assert_eq!(
            hash_all(tree.seed, 0, &["a".into(), name.into()]),
            hash_all(tree.seed, 0, &["a".into(), twin.as_str().into()])
        );
        check(&tree, &format!("/a/{name}"), &["/a/administrators-1", "/a", ""]);
        check(&tree, &format!("/a/{twin}"), &["/a", ""]);
        check(&tree, &format!("/a/{twin}/b"), &["/a", ""]);
        check(&tree, &format!("/a/{twin}/c"), &["/a", ""]);
    }
}
