//! Dice that fall the same way for the same seed.

/// `SplitMix64`.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    /// The same for the same seed and name: each who throws has dice of his own, whatever order they throw in.
    pub(crate) fn of(seed: u64, name: &str) -> Self {
        let start = name.bytes().fold(seed, |sum, byte| sum.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte));
        Self(start)
    }

    /// A number below `most`.
    pub(crate) fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let thrown = z ^ (z >> 31);
        usize::try_from(thrown % most.max(1) as u64).unwrap_or(0)
    }

    /// A time between two, in milliseconds.
    pub(crate) fn millis(&mut self, from: usize, to: usize) -> std::time::Duration {
        std::time::Duration::from_millis((from + self.below(to - from)) as u64)
    }

    /// Puts `things` into another order.
    pub(crate) fn shuffle<T>(&mut self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            things.swap(last, self.below(last + 1));
        }
    }
}
