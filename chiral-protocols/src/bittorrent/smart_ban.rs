//! [`SmartBan`]: who sent the wrong blocks of a piece that failed.
//!
//! A piece that fails says nothing of who is to blame if several peers sent blocks of it. So a
//! digest of every block is kept with its sender; when the piece comes out right, whoever sent
//! a block that differs from the right one has lied. A piece from one sender alone needs none
//! of this.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sha2::{Digest, Sha256};

use super::merkle::BLOCK_LEN;

/// Limit on the pieces of which digests are kept; of the oldest they are dropped first.
pub const MAX_FAILED_PIECES: usize = 64;

/// Limit on the digests kept for one block: of so many attempts.
pub const MAX_ATTEMPTS: usize = 8;

type Digest16 = [u8; 16];

fn digest(bytes: &[u8]) -> Digest16 {
    let full: [u8; 32] = Sha256::digest(bytes).into();
    let mut short = [0; 16];
    short.copy_from_slice(&full[..16]);
    short
}

/// Keeps digests of blocks of pieces that failed. `S` names a sender.
#[derive(Debug, Clone, Default)]
pub struct SmartBan<S> {
    failed: BTreeMap<u32, BTreeMap<u32, Vec<(S, Digest16)>>>,
    /// Pieces, the one that failed first in front.
    order: VecDeque<u32>,
}

impl<S: Copy + Ord> SmartBan<S> {
    /// Nothing has failed yet.
    pub fn new() -> Self {
        Self {
            failed: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Notes the blocks of a piece that failed: where each begins, who sent it, its bytes.
    /// Answers the sender to blame at once, if there was but one.
    pub fn failed<'a>(
        &mut self,
        piece: u32,
        blocks: impl IntoIterator<Item = (u32, S, &'a [u8])>,
    ) -> Option<S> {
        let blocks: Vec<_> = blocks.into_iter().collect();
        let (_, first, _) = *blocks.first()?;
        if blocks.iter().all(|(_, sender, _)| *sender == first) {
            return Some(first);
        }
        self.note(piece, blocks);
        None
    }

    /// The same for a piece of which these are only some of the blocks, so that nobody is to
    /// blame at once.
    pub fn note<'a>(&mut self, piece: u32, blocks: impl IntoIterator<Item = (u32, S, &'a [u8])>) {
        if !self.failed.contains_key(&piece) {
            if self.order.len() == MAX_FAILED_PIECES
                && let Some(oldest) = self.order.pop_front()
            {
                self.failed.remove(&oldest);
            }
            self.order.push_back(piece);
        }
        let held = self.failed.entry(piece).or_default();
        for (begin, sender, bytes) in blocks {
            let attempts = held.entry(begin / BLOCK_LEN).or_default();
            let entry = (sender, digest(bytes));
            if attempts.len() < MAX_ATTEMPTS && !attempts.contains(&entry) {
                attempts.push(entry);
            }
        }
    }

    /// Takes the right bytes of a piece; answers who sent others, each once.
    pub fn passed(&mut self, piece: u32, bytes: &[u8]) -> BTreeSet<S> {
        let Some(held) = self.failed.remove(&piece) else {
            return BTreeSet::new();
        };
        self.order.retain(|other| *other != piece);
        let blocks = bytes.chunks(BLOCK_LEN as usize);
        let mut liars = BTreeSet::new();
        for (block, bytes) in (0..).zip(blocks) {
            if let Some(attempts) = held.get(&block) {
                let right = digest(bytes);
                let wrong = attempts.iter().filter(|(_, digest)| *digest != right);
                liars.extend(wrong.map(|(sender, _)| *sender));
            }
        }
        liars
    }

    /// Whether a piece failed and has not passed since.
    pub fn has_failed(&self, piece: u32) -> bool {
        self.failed.contains_key(&piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = BLOCK_LEN as usize;

    fn piece(wrong: &[usize]) -> Vec<u8> {
        let mut bytes = vec![7; 3 * LEN + 5];
        wrong.iter().for_each(|block| bytes[block * LEN + 3] ^= 1);
        bytes
    }

    fn blocks<'a>(bytes: &'a [u8], from: &'a [u8]) -> impl Iterator<Item = (u32, u8, &'a [u8])> {
        let blocks = bytes.chunks(LEN).zip(from).enumerate();
        blocks.map(|(i, (block, sender))| (i as u32 * BLOCK_LEN, *sender, block))
    }

    #[test]
    fn who_sent_all_is_to_blame_at_once() {
        let mut ban = SmartBan::new();
        assert_eq!(ban.failed(0, blocks(&piece(&[1]), &[9, 9, 9, 9])), Some(9));
        assert!(!ban.has_failed(0));
    }

    #[test]
    fn only_those_whose_blocks_differ_are_to_blame() {
        let mut ban = SmartBan::new();
        assert_eq!(ban.failed(4, blocks(&piece(&[1, 3]), &[1, 2, 3, 4])), None);
        assert_eq!(ban.failed(4, blocks(&piece(&[0]), &[5, 2, 1, 4])), None);
        assert!(ban.passed(3, &piece(&[])).is_empty());
        assert_eq!(ban.passed(4, &piece(&[])), BTreeSet::from([2, 4, 5]));
        assert!(ban.passed(4, &piece(&[])).is_empty(), "forgotten");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut ban = SmartBan::new();
        for number in 0..1000 {
            ban.failed(number, blocks(&piece(&[0]), &[1, 2, 3, 4]));
            for sender in 0..100 {
                ban.failed(999, blocks(&piece(&[1]), &[sender, 101, 3, 4]));
            }
        }
        assert_eq!(
            (ban.failed.len(), ban.order.len()),
            (MAX_FAILED_PIECES, MAX_FAILED_PIECES)
        );
        let attempts = ban
            .failed
            .values()
            .flat_map(BTreeMap::values)
            .map(Vec::len)
            .max();
        assert_eq!(attempts, Some(MAX_ATTEMPTS));
    }
}
