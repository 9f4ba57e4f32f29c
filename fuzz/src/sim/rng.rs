//! Chance out of a seed: the same on every machine and in every version.

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of `0..bound`. The bounds here are tiny, so that the remainder is fair enough.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// One of `low..=high`.
    pub(super) fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True in `percent` of 100 cases.
    pub(super) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of a list that is not empty.
    pub(super) fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        let length = u64::try_from(list.len()).expect("a list is far smaller than 2^64");
        let at = usize::try_from(self.below(length)).expect("it is below a length");
        &list[at]
    }

    /// One of some names.
    pub(super) fn name(&mut self, names: &[&'static str]) -> &'static str {
        self.pick::<&'static str>(names)
    }

    /// One of the last `most` of a list, if it has any.
    pub(super) fn recent<'a, T>(&mut self, list: &'a [T], most: usize) -> Option<&'a T> {
        let recent = &list[list.len().saturating_sub(most)..];
        if recent.is_empty() { None } else { Some(self.pick(recent)) }
    }
}
