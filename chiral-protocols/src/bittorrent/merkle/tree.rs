//! The tree above the pieces of one file, whole or on its way.

use std::ops::Range;

use super::{HashRequest, MerkleError, NodeHash, TreeShape, above, padding, parent};

/// The tree of a file from its piece layer upwards: twice the memory of the piece layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileTree {
    shape: TreeShape,
    /// From the piece layer to the root, without padding.
    layers: Vec<Vec<NodeHash>>,
}

impl FileTree {
    /// The tree over a piece layer; of a file of one piece or less, over its root.
    ///
    /// # Errors
    /// [`MerkleError::Count`] if the file has another number of pieces.
    pub fn new(shape: TreeShape, piece_layer: Vec<NodeHash>) -> Result<Self, MerkleError> {
        let (found, expected) = (piece_layer.len(), shape.pieces() as usize);
        if found != expected {
            return Err(MerkleError::Count { found, expected });
        }
        let mut layers = vec![piece_layer];
        for layer in shape.piece_layer()..shape.root_layer() {
            let next = above(layer, layers.last().map(Vec::as_slice).unwrap_or_default());
            layers.push(next);
        }
        Ok(Self { shape, layers })
    }

    /// The same, if it leads to this root.
    ///
    /// # Errors
    /// [`MerkleError`], by case.
    pub fn checked(
        shape: TreeShape,
        piece_layer: Vec<NodeHash>,
        root: &NodeHash,
    ) -> Result<Self, MerkleError> {
        let tree = Self::new(shape, piece_layer)?;
        match tree.root() == *root {
            true => Ok(tree),
            false => Err(MerkleError::Mismatch),
        }
    }

    /// How the tree looks.
    pub fn shape(&self) -> TreeShape {
        self.shape
    }

    /// `pieces root` of the file.
    pub fn root(&self) -> NodeHash {
        self.node(self.shape.root_layer(), 0)
    }

    /// Hashes of the pieces, in order.
    pub fn piece_layer(&self) -> &[NodeHash] {
        &self.layers[0]
    }

    /// A node on the piece layer or above it.
    fn node(&self, layer: u32, index: u64) -> NodeHash {
        let above_pieces = (layer - self.shape.piece_layer()) as usize;
        let node = self
            .layers
            .get(above_pieces)
            .and_then(|nodes| nodes.get(index as usize));
        node.copied().unwrap_or_else(|| padding(layer))
    }

    /// The pieces whose blocks' hashes [`FileTree::answer`] needs, all of them: none if only
    /// hashes of pieces are asked for.
    ///
    /// # Errors
    /// [`MerkleError::Request`] if the file has no such hashes.
    pub fn blocks_needed(&self, request: &HashRequest) -> Result<Range<u32>, MerkleError> {
        request.check(self.shape)?;
        if request.base_layer >= self.shape.piece_layer() {
            return Ok(0..0);
        }
        let down = self.shape.piece_layer() - request.base_layer;
        let pieces = self.shape.pieces() as u32;
        let first = request.index >> down;
        let last = request.index + request.length - 1;
        Ok(first.min(pieces)..((last >> down) + 1).min(pieces))
    }

    /// The answer to a request: the hashes, then the proof. `blocks` has the hashes of all
    /// blocks of the pieces that [`FileTree::blocks_needed`] names, in order. They are not
    /// checked here: whoever hashed the bytes of a verified piece has right ones.
    ///
    /// # Errors
    /// [`MerkleError::Request`]; [`MerkleError::BlocksNeeded`] if there are not as many.
    pub fn answer(
        &self,
        request: &HashRequest,
        blocks: &[NodeHash],
    ) -> Result<Vec<NodeHash>, MerkleError> {
        let pieces = self.blocks_needed(request)?;
        let below = self.below(&pieces, blocks)?;
        let node = |layer: u32, index: u64| match layer.checked_sub(self.shape.piece_layer()) {
            Some(_) => self.node(layer, index),
            None => below
                .get(layer as usize)
                .and_then(|nodes| {
                    let first = u64::from(pieces.start) << (self.shape.piece_layer() - layer);
                    nodes.get(index.checked_sub(first)? as usize).copied()
                })
                .unwrap_or_else(|| padding(layer)),
        };
        let first = u64::from(request.index);
        let mut answer: Vec<NodeHash> = (first..first + u64::from(request.length))
            .map(|index| node(request.base_layer, index))
            .collect();
        let own = request.own_layers();
        for above in own..own + request.proof_len() {
            answer.push(node(request.base_layer + above, first >> above ^ 1));
        }
        Ok(answer)
    }

    /// Layers from the blocks of some pieces up to below the piece layer.
    fn below(
        &self,
        pieces: &Range<u32>,
        blocks: &[NodeHash],
    ) -> Result<Vec<Vec<NodeHash>>, MerkleError> {
        let needed: u64 = pieces
            .clone()
            .map(|piece| self.shape.blocks_in(piece.into()))
            .sum();
        if needed == 0 {
            return Ok(Vec::new());
        }
        if blocks.len() as u64 != needed {
            return Err(MerkleError::BlocksNeeded);
        }
        let mut layers = vec![blocks.to_vec()];
        for layer in 0..self.shape.piece_layer() - 1 {
            let next = above(layer, layers.last().map(Vec::as_slice).unwrap_or_default());
            layers.push(next);
        }
        Ok(layers)
    }
}

/// A piece layer that is fetched from peers, for a torrent that came without.
#[derive(Debug, Clone)]
pub struct PieceLayer {
    root: NodeHash,
    shape: TreeShape,
    requests: Vec<(HashRequest, bool)>,
    hashes: Vec<NodeHash>,
}

impl PieceLayer {
    /// Nothing of it yet. A file of one piece or less has all it needs in its root.
    pub fn new(root: NodeHash, shape: TreeShape) -> Self {
        let requests: Vec<_> = HashRequest::piece_layer(root, shape)
            .map(|request| (request, false))
            .collect();
        let hashes = match requests.is_empty() {
            true => vec![root],
            false => vec![[0; 32]; shape.pieces() as usize],
        };
        Self {
            root,
            shape,
            requests,
            hashes,
        }
    }

    /// What is still to be asked for.
    pub fn missing(&self) -> impl Iterator<Item = HashRequest> + '_ {
        let missing = self.requests.iter().filter(|(_, done)| !done);
        missing.map(|(request, _)| *request)
    }

    /// Whether nothing is missing.
    pub fn is_complete(&self) -> bool {
        self.requests.iter().all(|(_, done)| *done)
    }

    /// Takes the answer of a peer to one of the requests, if it leads to the root. Answers
    /// whether it was still missing.
    ///
    /// # Errors
    /// [`MerkleError::Request`] for what was not asked; [`MerkleError::Count`] and
    /// [`MerkleError::Mismatch`]: the peer lies, or its file is another.
    pub fn add(&mut self, request: &HashRequest, answer: &[NodeHash]) -> Result<bool, MerkleError> {
        let known = self.requests.iter_mut().find(|(known, _)| known == request);
        let Some((_, done)) = known else {
            return Err(MerkleError::Request);
        };
        let base = lead_to_root(&self.root, self.shape, request, answer)?;
        let first = request.index as usize;
        self.hashes[first..first + base.len()].copy_from_slice(base);
        Ok(!std::mem::replace(done, true))
    }

    /// The tree, once nothing is missing.
    pub fn into_tree(self) -> Option<FileTree> {
        let complete = self.is_complete();
        complete
            .then(|| FileTree::checked(self.shape, self.hashes, &self.root).ok())
            .flatten()
    }
}

/// The hashes of an answer that are not padding, if they lead to the root.
fn lead_to_root<'a>(
    root: &NodeHash,
    shape: TreeShape,
    request: &HashRequest,
    answer: &'a [NodeHash],
) -> Result<&'a [NodeHash], MerkleError> {
    request.check(shape)?;
    let (found, expected) = (answer.len(), request.answer_len());
    if found != expected {
        return Err(MerkleError::Count { found, expected });
    }
    let own = request.own_layers();
    if request.base_layer + own + request.proof_len() != shape.root_layer() {
        return Err(MerkleError::Request);
    }
    let (base, proof) = answer.split_at(request.length as usize);
    let mut node = super::fold(request.base_layer, base.to_vec(), own);
    for (sibling, above) in proof.iter().zip(own..) {
        node = match request.index >> above & 1 {
            0 => parent(&node, sibling),
            _ => parent(sibling, &node),
        };
    }
    let filled = shape
        .filled(request.base_layer)
        .saturating_sub(request.index.into());
    let (real, padded) = base.split_at((filled as usize).min(base.len()));
    let fill = padding(request.base_layer);
    match node == *root && padded.iter().all(|hash| *hash == fill) {
        true => Ok(real),
        false => Err(MerkleError::Mismatch),
    }
}
