//! Drawing by weight.

use super::super::health::WHOLE;

/// Weights as their running sums, so that a draw is one binary search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Weights {
    /// Sum of the weights up to and including each index.
    sums: Box<[u64]>,
}

impl Weights {
    pub(super) fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let mut sum = 0_u64;
        let sums = weights.into_iter().map(|weight| {
            sum += u64::from(weight);
            sum
        });
        Self { sums: sums.collect() }
    }

    fn total(&self) -> u64 {
        self.sums.last().copied().unwrap_or(0)
    }

    /// The index that `random` falls on; each has its exact share of all the values of `random`, give or take one.
    fn index(&self, random: u64) -> usize {
        let point = scale(random, self.total());
        self.sums.partition_point(|sum| *sum <= point)
    }

    /// An index, each with the chance of its weight times `share` (0 to [`WHOLE`]) among all of these products.
    pub(super) fn draw(&self, random: u64, share: impl Fn(usize) -> u64) -> Option<usize> {
        let index = self.index(random);
        if index < self.sums.len() && passes(share(index), random) {
            return Some(index);
        }
        // With e = w * share and their sum E, drawing anew among them keeps the proportions: e/W + (1 - E/W) * e/E = e/E.
        let weights =
            || self.sums.iter().scan(0, |before, sum| Some(sum - std::mem::replace(before, *sum))).enumerate();
        let candidates = || {
            let effective = weights().map(|(index, weight)| (index, weight.saturating_mul(share(index))));
            effective.filter(|(_, weight)| *weight > 0)
        };
        let mut point = scale(remix(random ^ 1), candidates().map(|(_, weight)| weight).sum());
        for (index, weight) in candidates() {
            match point.checked_sub(weight) {
                Some(rest) => point = rest,
                None => return Some(index),
            }
        }
        None
    }
}

/// Whether something with this share of [`WHOLE`] is taken; `random` decides where it is but a part.
pub(super) fn passes(share: u64, random: u64) -> bool {
    share >= WHOLE || (share > 0 && scale(remix(random ^ 2), WHOLE) < share)
}

/// Things with a share each, at least one of them above zero.
#[derive(Debug, Clone)]
pub struct Shares<T> {
    items: Box<[T]>,
    weights: Weights,
}

impl<T> Shares<T> {
    /// `None` when there is nothing to share out: no items, or weights of zero only.
    #[must_use]
    pub fn new(items: impl IntoIterator<Item = (T, u32)>) -> Option<Self> {
        let (items, weights): (Vec<T>, Vec<u32>) = items.into_iter().unzip();
        let weights = Weights::new(weights);
        (weights.total() > 0).then(|| Self { items: items.into(), weights })
    }

    /// The item that `random` falls on. An item without weight is never chosen.
    #[must_use]
    pub fn choose(&self, random: u64) -> Option<&T> {
        self.items.get(self.weights.index(random))
    }

    /// Each item with its weight.
    pub fn iter(&self) -> impl Iterator<Item = (&T, u64)> {
        let weights = self.weights.sums.iter().scan(0, |before, sum| Some(sum - std::mem::replace(before, *sum)));
        self.items.iter().zip(weights)
    }
}

/// Maps the values of `random` evenly to `0..total` (Lemire 2019, without the rejection: off by at most one in 2^64).
fn scale(random: u64, total: u64) -> u64 {
    let product = u128::from(random) * u128::from(total);
    u64::try_from(product >> 64).unwrap_or(u64::MAX)
}

/// Another value as random as this one: the step of `SplitMix64` (Steele, Lea and Flood 2014).
pub(super) fn remix(random: u64) -> u64 {
    let mut mixed = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_exact_over_the_whole_range() {
        let shares = Shares::new([("api", 95), ("idle", 0), ("canary", 5)]).expect("shares");
        let step = u64::MAX / 10_000;
        let canary = (0..10_000).filter(|n| shares.choose(n * step) == Some(&"canary")).count();
        let idle = (0..10_000).filter(|n| shares.choose(n * step) == Some(&"idle")).count();
        assert!(canary.abs_diff(500) <= 1 && idle == 0, "{canary} {idle}");
        assert_eq!(shares.choose(0), Some(&"api"));
        assert_eq!(shares.choose(u64::MAX), Some(&"canary"));
        assert_eq!(shares.iter().collect::<Vec<_>>(), [(&"api", 95), (&"idle", 0), (&"canary", 5)]);
    }

    #[test]
    fn nothing_to_share_out_is_no_share() {
        assert!(Shares::<u8>::new([]).is_none());
        assert!(Shares::new([(1, 0), (2, 0)]).is_none());
    }

    #[test]
    fn a_draw_among_some_keeps_their_proportions() {
        let weights = Weights::new([5, 3, 2]);
        let mut rng = fastrand::Rng::with_seed(7);
        let mut counts = [0_u32; 3];
        for _ in 0..50_000 {
            counts[weights.draw(rng.u64(..), |index| if index == 0 { 0 } else { WHOLE }).expect("two are eligible")] +=
                1;
        }
        assert_eq!(counts[0], 0);
        assert!(counts[1].abs_diff(30_000) < 600, "{counts:?}");
    }

    #[test]
    fn a_part_of_a_weight_is_drawn_as_such() {
        let weights = Weights::new([1, 1, 2]);
        let shares = [WHOLE / 8, WHOLE, WHOLE / 2];
        let mut rng = fastrand::Rng::with_seed(7);
        let mut counts = [0_u32; 3];
        for _ in 0..85_000 {
            counts[weights.draw(rng.u64(..), |index| shares[index]).expect("all are eligible")] += 1;
        }
        // 1/8, 1 and 1 of 17/8
        assert!(counts[0].abs_diff(5000) < 300 && counts[1].abs_diff(40_000) < 800, "{counts:?}");
    }
}
