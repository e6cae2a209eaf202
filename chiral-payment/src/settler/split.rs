//! [`PeerHeads`]: what other nodes say of the chain, so that nobody pays on a part of it that
//! was cut off from the rest.
//!
//! Each node tells the others which block it takes for firm. One that sees another block at
//! that height, or none as high, and has more against it than with it, is split off, or behind:
//! its payments are held until that has healed. What was sent before is sent on, the same
//! bytes; what was paid on a side that loses is found to be gone, and paid again there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use alloy_primitives::B256;
use chiral_chain::{BlockRef, ChainClient, ChainError};
use chiral_core::PeerId;

/// Peers that are listened to, at most: those that spoke last.
pub const MAX_PEERS: usize = 32;

/// Seconds for which a peer's word counts.
pub const WORD_SECONDS: u64 = 300;

/// Length of an announcement: a version, the block's number and its hash.
const ANNOUNCEMENT: usize = 1 + 8 + 32;

const VERSION: u8 = 1;

/// What other nodes take for firm. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct PeerHeads(Arc<Mutex<HashMap<PeerId, Word>>>);

#[derive(Clone, Copy, Debug)]
struct Word {
    block: BlockRef,
    /// When it was said, in seconds since 1970.
    at: u64,
}

/// What the words of the others come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Peers whose firm block is on this node's chain.
    pub(super) with: usize,
    /// Peers that have another block there.
    pub(super) against: usize,
    /// Peers that are further than this node's best block.
    pub(super) ahead: usize,
}

impl PeerHeads {
    /// Nobody was heard.
    pub fn new() -> Self {
        Self::default()
    }

    /// A peer takes this block for firm. `now` is in seconds since 1970.
    pub fn note(&self, peer: PeerId, block: BlockRef, now: u64) {
        let mut words = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if words.len() >= MAX_PEERS && !words.contains_key(&peer) {
            let oldest = words.iter().min_by_key(|(_, word)| word.at);
            if let Some(oldest) = oldest.map(|(peer, _)| peer.clone()) {
                words.remove(&oldest);
            }
        }
        words.insert(peer, Word { block, at: now });
    }

    /// Peers whose word counts now, which is in seconds since 1970.
    pub fn heard(&self, now: u64) -> usize {
        self.fresh(now).len()
    }

    fn fresh(&self, now: u64) -> Vec<BlockRef> {
        let mut words = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        words.retain(|_, word| word.at.saturating_add(WORD_SECONDS) >= now);
        words.values().map(|word| word.block).collect()
    }

    /// Holds what was heard against the chain.
    pub(super) async fn judge(
        &self,
        chain: &dyn ChainClient,
        head: BlockRef,
        now: u64,
    ) -> Result<Verdict, ChainError> {
        let mut verdict = Verdict::default();
        let mut known: HashMap<u64, Option<B256>> = HashMap::new();
        for said in self.fresh(now) {
            if said.number > head.number {
                verdict.ahead += 1;
                continue;
            }
            let own = match known.get(&said.number) {
                Some(own) => *own,
                None => {
                    let block = chain.block(chiral_chain::BlockId::Number(said.number));
                    let own = block.await?.map(|block| block.id.hash);
                    known.insert(said.number, own);
                    own
                }
            };
            match own == Some(said.hash) {
                true => verdict.with += 1,
                false => verdict.against += 1,
            }
        }
        Ok(verdict)
    }
}

impl Verdict {
    /// Whether more is against this node's view than for it.
    pub(super) fn is_split(&self) -> bool {
        self.against > self.with
    }

    /// Whether this node is behind most others.
    pub(super) fn is_behind(&self) -> bool {
        self.ahead > self.with
    }
}

/// The block that a node takes for firm, `depth` blocks deep, its own included, as it is told to
/// others; `None` on a chain that is not that long.
///
/// # Errors
/// [`ChainError`].
pub async fn firm_block(
    chain: &dyn ChainClient,
    depth: u64,
) -> Result<Option<BlockRef>, ChainError> {
    let head = chain.head().await?.number;
    let Some(number) = (head + 1).checked_sub(depth.max(1)) else {
        return Ok(None);
    };
    let block = chain.block(chiral_chain::BlockId::Number(number)).await?;
    Ok(block.map(|block| block.id))
}

/// The announcement of a firm block.
pub fn encode_head(block: BlockRef) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&block.number.to_be_bytes());
    bytes.extend_from_slice(block.hash.as_slice());
    bytes
}

/// Reads the announcement of a firm block; `None` if it is none.
pub fn decode_head(bytes: &[u8]) -> Option<BlockRef> {
    let bytes: &[u8; ANNOUNCEMENT] = bytes.try_into().ok()?;
    let (number, hash) = (bytes[1..9].try_into().ok()?, &bytes[9..]);
    (bytes[0] == VERSION).then(|| BlockRef {
        number: u64::from_be_bytes(number),
        hash: B256::from_slice(hash),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(number: u64) -> BlockRef {
        let hash = B256::repeat_byte(number as u8);
        BlockRef { number, hash }
    }

    fn peer(n: u8) -> PeerId {
        // An identity multihash of a key, as libp2p has it for small ones.
        let mut bytes = vec![0, 36, 8, 1, 18, 32];
        bytes.extend([n; 32]);
        PeerId::from_bytes(&bytes).unwrap()
    }

    #[test]
    fn announcements_come_back_and_nothing_else_is_one() {
        let bytes = encode_head(block(7));
        assert_eq!(decode_head(&bytes), Some(block(7)));
        assert_eq!(decode_head(&bytes[1..]), None);
        assert_eq!(decode_head(&[&bytes[..], &[0]].concat()), None);
        let mut other = bytes;
        other[0] = 2;
        assert_eq!(decode_head(&other), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic_and_each_head_has_one_encoding(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64),
            version in 0u8..3,
        ) {
            let bytes: Vec<u8> = std::iter::once(version).chain(bytes).collect();
            if let Some(block) = decode_head(&bytes) {
                proptest::prop_assert_eq!(encode_head(block), bytes);
            }
        }
    }

    #[test]
    fn only_so_many_are_heard_and_for_so_long() {
        let heads = PeerHeads::new();
        for n in 0..MAX_PEERS as u8 + 5 {
            heads.note(peer(n), block(1), u64::from(n));
        }
        assert_eq!(heads.fresh(36).len(), MAX_PEERS);
        assert_eq!(heads.fresh(36 + WORD_SECONDS).len(), 1);
        assert!(heads.fresh(37 + WORD_SECONDS).is_empty());
    }

    #[test]
    fn more_against_than_with_is_a_split() {
        let verdict = |with, against, ahead| Verdict {
            with,
            against,
            ahead,
        };
        assert!(!verdict(0, 0, 0).is_split() && !verdict(0, 0, 0).is_behind());
        assert!(verdict(0, 1, 0).is_split());
        assert!(!verdict(1, 1, 1).is_split() && !verdict(1, 1, 1).is_behind());
        assert!(verdict(1, 0, 2).is_behind());
    }
}
