//! Hashes of version 2 (BEP 52) between peers: given, and fetched for a torrent that came as a
//! magnet, whose `info` dictionary has the roots of the trees only.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chiral_core::ByteRange;

use super::torrent::Torrent;
use crate::bittorrent::merkle::{
    BLOCK_LEN, HashRequest, MerkleError, NodeHash, PieceLayer, block_hash,
};
use crate::bittorrent::metainfo::Metainfo;
use crate::bittorrent::wire::HashRange;

/// Most hashes that are given in one answer, their proof not counted.
const MAX_GIVEN: u32 = 512;

/// Most bytes that are read and hashed for one answer.
const MAX_HASHED: u64 = 16 << 20;

/// Longest piece layer that is fetched: of 2^20 pieces, 32 MiB.
pub(in crate::bittorrent) const MAX_LAYER: u64 = 1 << 20;

/// Peers that are remembered as having no hashes.
const MAX_WITHOUT: usize = 1000;

/// A question as the tree understands it.
fn request_of(range: &HashRange) -> HashRequest {
    HashRequest {
        pieces_root: range.pieces_root,
        base_layer: range.base_layer,
        index: range.index,
        length: range.length,
        proof_layers: range.proof_layers,
    }
}

fn range_of(request: &HashRequest) -> HashRange {
    HashRange {
        pieces_root: request.pieces_root,
        base_layer: request.base_layer,
        index: request.index,
        length: request.length,
        proof_layers: request.proof_layers,
    }
}

/// The hashes that a peer asks for; nothing if they are not known. Those of blocks are made of
/// the bytes of their pieces, if those are there.
pub(super) async fn answer(torrent: &Arc<Torrent>, range: HashRange) -> Option<Vec<NodeHash>> {
    let meta = torrent.metainfo()?;
    let request = request_of(&range);
    if request.length > MAX_GIVEN {
        return None;
    }
    let file = meta.file_of_root(&request.pieces_root)?;
    let tree = meta.tree(file)?;
    let pieces = tree.blocks_needed(&request).ok()?;
    let mut blocks = Vec::new();
    if !pieces.is_empty() {
        let whole = meta.layout().file_range(file)?;
        let piece_length = u64::from(meta.layout().piece_length());
        let start = u64::from(pieces.start) * piece_length;
        let end = (u64::from(pieces.end) * piece_length).min(whole.len());
        let range = ByteRange::new(whole.start + start, whole.start + end);
        if range.len() > MAX_HASHED {
            return None;
        }
        blocks = hash_blocks(torrent, range).await?;
    }
    tree.answer(&request, &blocks).ok()
}

/// The hashes of the blocks of a range.
async fn hash_blocks(torrent: &Arc<Torrent>, range: ByteRange) -> Option<Vec<NodeHash>> {
    // Only of what has passed the torrent's own hashes.
    torrent.have()?;
    let content = torrent.content()?;
    let mut blocks = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let end = range.end.min(at + chiral_core::CHUNK_SIZE);
        let bytes = content.read(ByteRange::new(at, end)).await.ok()?;
        blocks.extend(bytes.chunks(BLOCK_LEN as usize).map(block_hash));
        at = end;
    }
    Some(blocks)
}

/// What is known of a torrent's trees, and what is being asked for.
#[derive(Debug, Default)]
pub(super) struct Trees {
    meta: Option<Arc<Metainfo>>,
    /// Whether the swarm is that of the torrent's version 1: whoever greeted by that hash may
    /// take a question of version 2 for a fault, and its pieces can be checked without.
    first_version: bool,
    fetching: Option<(u32, PieceLayer)>,
    /// Who is asked for what.
    asked: HashMap<HashRequest, u64>,
    /// Peers that do not have hashes.
    without: HashSet<u64>,
}

impl Trees {
    /// The torrent became known, in the swarm of this hash.
    pub(super) fn learn(&mut self, meta: Arc<Metainfo>, swarm: [u8; 20]) {
        self.first_version = meta.hashes().v1 == Some(swarm);
        self.meta.get_or_insert(meta);
    }

    pub(super) fn metainfo(&self) -> Option<Arc<Metainfo>> {
        self.meta.clone()
    }

    /// The next question, for a peer that may have the answer.
    pub(super) fn next(&mut self, peer: u64) -> Option<HashRange> {
        if self.first_version || self.without.contains(&peer) {
            return None;
        }
        if self.fetching.is_none() {
            let meta = self.meta.as_ref()?;
            let (file, root, shape) = meta
                .missing_trees()
                .find(|(_, _, shape)| shape.pieces() <= MAX_LAYER)?;
            self.fetching = Some((file, PieceLayer::new(root, shape)));
        }
        let (_, layer) = self.fetching.as_ref()?;
        let next = layer
            .missing()
            .find(|request| !self.asked.contains_key(request))?;
        self.asked.insert(next, peer);
        Some(range_of(&next))
    }

    /// A peer answered. Whether a tree is complete by that.
    ///
    /// # Errors
    /// [`MerkleError`]: it lies.
    pub(super) fn came(
        &mut self,
        peer: u64,
        range: HashRange,
        hashes: &[NodeHash],
    ) -> Result<bool, MerkleError> {
        let request = request_of(&range);
        if self.asked.get(&request) != Some(&peer) {
            // Another was asked since.
            return Ok(false);
        }
        self.asked.remove(&request);
        let Some((_, layer)) = &mut self.fetching else {
            return Ok(false);
        };
        if let Err(error) = layer.add(&request, hashes) {
            self.no_hashes_of(peer);
            return Err(error);
        }
        if !layer.is_complete() {
            return Ok(false);
        }
        let complete = self.fetching.take();
        if let Some((file, layer)) = complete
            && let Some(tree) = layer.into_tree()
            && let Some(meta) = &mut self.meta
        {
            Arc::make_mut(meta).set_tree(file, tree)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// A peer has no hashes: others are asked.
    pub(super) fn no_hashes_of(&mut self, peer: u64) {
        self.asked.retain(|_, asked| *asked != peer);
        if self.without.len() < MAX_WITHOUT {
            self.without.insert(peer);
        }
    }

    /// A connection is over.
    pub(super) fn gone(&mut self, peer: u64) {
        self.asked.retain(|_, asked| *asked != peer);
        self.without.remove(&peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bittorrent::create::TorrentHasher;
    use crate::bittorrent::metainfo::{InfoHashes, Version};

    /// Hash of a swarm that is not asked for.
    const SWARM: [u8; 20] = [7; 20];

    /// A torrent with its trees, and as a magnet gives it.
    fn torrents(len: usize, version: Version) -> (Metainfo, Metainfo) {
        let mut hasher = TorrentHasher::new(version);
        let bytes: Vec<u8> = (0..len).map(|at| (at / 1000) as u8).collect();
        hasher.update(&bytes);
        let whole = hasher
            .finish()
            .metainfo("name", Default::default())
            .unwrap();
        let hashes: InfoHashes = whole.hashes();
        let bare = Metainfo::from_info(whole.info_bytes(), &hashes).unwrap();
        (whole, bare)
    }

    fn given(whole: &Metainfo, range: &HashRange) -> Vec<NodeHash> {
        let file = whole.file_of_root(&range.pieces_root).unwrap();
        whole
            .tree(file)
            .unwrap()
            .answer(&request_of(range), &[])
            .unwrap()
    }

    #[test]
    fn a_tree_is_fetched_from_several_peers() {
        // More hashes than one question asks for.
        let (whole, bare) = torrents(600 * 262_144 + 5, Version::V2);
        let mut trees = Trees::default();
        trees.learn(Arc::new(bare), SWARM);
        let first = trees.next(1).unwrap();
        let second = trees.next(2).unwrap();
        assert_eq!(trees.next(3), None);
        // The second has none, and is not asked again; the third is.
        trees.no_hashes_of(2);
        assert_eq!(trees.next(2), None);
        assert_eq!(trees.next(3), Some(second));
        assert_eq!(trees.came(2, second, &given(&whole, &second)), Ok(false));
        assert_eq!(trees.came(1, first, &given(&whole, &first)), Ok(false));
        assert_eq!(trees.came(3, second, &given(&whole, &second)), Ok(true));
        let got = trees.metainfo().unwrap();
        assert_eq!(got.tree(0), whole.tree(0));
        assert_eq!(trees.next(4), None);
    }

    #[test]
    fn peers_of_the_first_version_are_asked_for_no_tree() {
        let (_, bare) = torrents(9 * 262_144, Version::Hybrid);
        let hashes = bare.hashes();
        assert_eq!(hashes.wire().count(), 2);
        for swarm in hashes.wire() {
            let is_first = hashes.v1 == Some(swarm);
            let mut trees = Trees::default();
            trees.learn(Arc::new(bare.clone()), swarm);
            assert_eq!(trees.next(1).is_some(), !is_first);
        }
    }

    #[test]
    fn a_liar_is_found_out_and_another_asked() {
        let (whole, bare) = torrents(9 * 262_144, Version::V2);
        let mut trees = Trees::default();
        trees.learn(Arc::new(bare), SWARM);
        let range = trees.next(1).unwrap();
        let mut false_ones = given(&whole, &range);
        false_ones[0][0] ^= 1;
        assert!(trees.came(1, range, &false_ones).is_err());
        assert_eq!(trees.next(1), None);
        assert_eq!(trees.next(2), Some(range));
        trees.gone(2);
        assert_eq!(trees.next(3), Some(range));
        assert_eq!(trees.came(3, range, &given(&whole, &range)), Ok(true));
    }

    #[test]
    fn no_room_is_made_for_a_tree_without_end() {
        let layer = |len: u64| {
            let info = format!(
                "d9:file treed1:ad0:d6:lengthi{len}e11:pieces root32:{}eee12:meta versioni2e\
                 4:name1:a12:piece lengthi16384ee",
                "r".repeat(32)
            );
            let hashes = InfoHashes {
                v1: None,
                v2: Some(<sha2::Sha256 as sha2::Digest>::digest(info.as_bytes()).into()),
            };
            let mut trees = Trees::default();
            let meta = Metainfo::from_info(info.as_bytes(), &hashes).unwrap();
            trees.learn(Arc::new(meta), SWARM);
            trees.next(1)
        };
        assert!(layer(MAX_LAYER * 16_384).is_some());
        assert!(layer(MAX_LAYER * 16_384 + 1).is_none());
    }
}
