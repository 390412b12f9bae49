//! Chance that can be repeated: each part of a run has a stream of its own, made from the seed and the part's number.

use std::time::Duration;

/// SplitMix64: small, and good enough to choose by.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    /// The stream of a part of the run.
    pub(super) const fn of(seed: u64, part: u64) -> Self {
        Self(seed ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below the limit.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
    }

    /// True once in so many times.
    pub(super) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// A duration between the two.
    pub(super) fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let micros = usize::try_from((most - least).as_micros()).unwrap();
        least + Duration::from_micros(u64::try_from(self.below(micros.max(1))).unwrap())
    }

    /// One of these.
    pub(super) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// These in another order.
    pub(super) fn shuffled<T: Copy>(&mut self, of: &[T]) -> Vec<T> {
        let mut left = of.to_vec();
        (0..of.len()).map(|_| left.swap_remove(self.below(left.len()))).collect()
    }
}
