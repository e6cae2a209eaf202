//! [`Random`]: numbers that nobody else can predict, and that a test can repeat.

use sha1::{Digest, Sha1};

/// SHA-1 over a secret seed and a counter.
#[derive(Clone)]
pub(super) struct Random {
    seed: [u8; 32],
    counter: u64,
    block: [u8; 20],
    used: usize,
}

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The seed is what makes transaction ids and tokens unpredictable.
        f.write_str("Random")
    }
}

impl Random {
    pub(super) fn from_seed(seed: [u8; 32]) -> Self {
        Self {
            seed,
            counter: 0,
            block: [0; 20],
            used: 20,
        }
    }

    /// Seeded by the system.
    ///
    /// # Errors
    ///
    /// The system has no random numbers to give.
    pub(super) fn from_system() -> std::io::Result<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(std::io::Error::other)?;
        Ok(Self::from_seed(seed))
    }

    pub(super) fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            if self.used == self.block.len() {
                let mut hash = Sha1::new();
                hash.update(self.seed);
                hash.update(self.counter.to_be_bytes());
                self.block = hash.finalize().into();
                self.counter += 1;
                self.used = 0;
            }
            *byte = self.block[self.used];
            self.used += 1;
        }
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.bytes())
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.bytes())
    }

    /// Less than `end`, which is not zero. The bias is no larger than 2^-32 times `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        let drawn = u64::from(self.u32()) * end as u64;
        usize::try_from(drawn >> 32).unwrap_or(0)
    }

    /// Puts a slice into an order of chance.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last + 1);
            items.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_and_another_others() {
        let draw = |seed| Random::from_seed([seed; 32]).bytes::<50>();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn a_shuffle_loses_nothing() {
        let mut random = Random::from_system().unwrap();
        let mut items: Vec<_> = (0..100).collect();
        random.shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
        assert!((0..1000).all(|_| random.below(3) < 3));
    }
}
