//! Chance that can be had again: all that a month draws comes from its seed.

use jiff::{SignedDuration, Timestamp};

/// SplitMix64.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `from..to`.
    pub(super) fn within(&mut self, from: i64, to: i64) -> i64 {
        let width = u64::try_from(to - from).unwrap();
        from + i64::try_from(self.next() % width).unwrap()
    }

    pub(super) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.within(0, i64::try_from(length).unwrap())).unwrap()
    }

    pub(super) fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.index(all.len())]
    }

    /// True in so many of a hundred cases.
    pub(super) fn percent(&mut self, percent: i64) -> bool {
        self.within(0, 100) < percent
    }

    pub(super) fn minutes(&mut self, from: i64, to: i64) -> SignedDuration {
        SignedDuration::from_mins(self.within(from, to))
    }

    /// Moments between `from` and `to`, about `every` apart.
    pub(super) fn moments(
        &mut self,
        from: Timestamp,
        to: Timestamp,
        every: SignedDuration,
    ) -> Vec<Timestamp> {
        let mut moments = Vec::new();
        let mut at = from;
        loop {
            at += SignedDuration::from_secs(self.within(every.as_secs() / 2, every.as_secs() * 3 / 2));
            if at >= to {
                return moments;
            }
            moments.push(at);
        }
    }
}
