use proptest::prelude::*;

use super::*;

/// All layers, padding included, the slow way.
fn whole_tree(leaves: &[NodeHash]) -> Vec<Vec<NodeHash>> {
    let mut layer = leaves.to_vec();
    layer.resize(leaves.len().next_power_of_two(), [0; 32]);
    let mut layers = vec![layer];
    while layers.last().unwrap().len() > 1 {
        let next = layers.last().unwrap().chunks(2);
        layers.push(next.map(|pair| parent(&pair[0], &pair[1])).collect());
    }
    layers
}

fn leaves(blocks: u64) -> Vec<NodeHash> {
    (0..blocks).map(|i| block_hash(&i.to_be_bytes())).collect()
}

fn tree(shape: TreeShape, leaves: &[NodeHash]) -> FileTree {
    let each = 1 << shape.piece_layer();
    let pieces = leaves.chunks(each).enumerate();
    let layer = pieces.map(|(i, blocks)| shape.piece_hash(i as u64, blocks.to_vec()).unwrap());
    FileTree::new(shape, layer.collect()).unwrap()
}

fn shape(blocks: u64, piece_blocks: u32) -> TreeShape {
    TreeShape::new(blocks * u64::from(BLOCK_LEN) - 5, piece_blocks * BLOCK_LEN).unwrap()
}

#[test]
fn shapes_that_are_none_are_refused() {
    assert!(TreeShape::new(0, BLOCK_LEN).is_none());
    assert!(TreeShape::new(1, BLOCK_LEN - 1).is_none());
    assert!(TreeShape::new(1, 3 * BLOCK_LEN).is_none());
    assert!(TreeShape::new(1, 0).is_none());
    assert!(TreeShape::new(u64::MAX, BLOCK_LEN).is_none());
}

#[test]
fn a_small_file_has_a_tree_of_its_own_height() {
    let shape = TreeShape::new(1, 64 * BLOCK_LEN).unwrap();
    assert_eq!(
        (shape.blocks(), shape.root_layer(), shape.piece_layer()),
        (1, 0, 0)
    );
    let leaf = block_hash(b"x");
    assert_eq!(
        shape.piece_hash(0, vec![leaf]),
        Ok(leaf),
        "no padding at all"
    );
    let layer = PieceLayer::new(leaf, shape);
    assert!(layer.is_complete());
    assert_eq!(layer.into_tree().unwrap().root(), leaf);
    assert_eq!(HashRequest::blocks_of(leaf, shape, 0), None);
}

#[test]
fn a_layer_of_thousands_of_pieces_is_fetched_in_parts() {
    let shape = shape(2 * 1300, 2);
    let leaves = leaves(2 * 1300);
    let tree = tree(shape, &leaves);
    let mut layer = PieceLayer::new(tree.root(), shape);
    let requests: Vec<_> = layer.missing().collect();
    let cut: Vec<_> = requests
        .iter()
        .map(|request| (request.index, request.length))
        .collect();
    assert_eq!(cut, [(0, 512), (512, 512), (1024, 512)]);
    for request in requests.iter().rev() {
        let mut answer = tree.answer(request, &[]).unwrap();
        answer[0][0] ^= 1;
        assert_eq!(layer.add(request, &answer), Err(MerkleError::Mismatch));
        answer[0][0] ^= 1;
        assert_eq!(layer.add(request, &answer), Ok(true));
        assert_eq!(layer.add(request, &answer), Ok(false));
        assert!(matches!(
            layer.add(request, &answer[1..]),
            Err(MerkleError::Count { .. })
        ));
    }
    assert_eq!(layer.into_tree().unwrap(), tree);
}

#[test]
fn a_request_that_fits_no_tree_is_refused() {
    let shape = shape(64, 4);
    let tree = tree(shape, &leaves(64));
    let good = HashRequest::piece_layer(tree.root(), shape).next().unwrap();
    assert!(tree.answer(&good, &[]).is_ok());
    for bad in [
        HashRequest {
            base_layer: 6,
            ..good
        },
        HashRequest {
            base_layer: u32::MAX,
            ..good
        },
        HashRequest { index: 1, ..good },
        HashRequest { index: 16, ..good },
        HashRequest {
            index: u32::MAX,
            ..good
        },
        HashRequest { length: 0, ..good },
        HashRequest { length: 3, ..good },
        HashRequest { length: 32, ..good },
        HashRequest {
            length: 1 << 31,
            ..good
        },
        HashRequest {
            proof_layers: 4,
            ..good
        },
        HashRequest {
            proof_layers: u32::MAX,
            ..good
        },
    ] {
        assert_eq!(tree.answer(&bad, &[]), Err(MerkleError::Request), "{bad:?}");
    }
    let blocks = HashRequest::blocks_of(tree.root(), shape, 3).unwrap();
    assert_eq!(tree.blocks_needed(&blocks), Ok(3..4));
    assert_eq!(tree.answer(&blocks, &[]), Err(MerkleError::BlocksNeeded));
}

proptest! {
    #[test]
    fn answers_are_what_the_whole_tree_has(
        blocks in 1u64..200,
        piece_log in 0u32..5,
        base in 0u32..8,
        length_log in 0u32..5,
        at in any::<prop::sample::Index>(),
        proof in 0u32..8,
    ) {
        let shape = shape(blocks, 1 << piece_log);
        let leaves = leaves(blocks);
        let tree = tree(shape, &leaves);
        let whole = whole_tree(&leaves);
        prop_assert_eq!(tree.root(), whole.last().unwrap()[0]);
        let length = 1u32 << length_log;
        let places = (shape.width(base) / u64::from(length)).max(1) as usize;
        let index = at.index(places) as u32 * length;
        let root = tree.root();
        let request = HashRequest {
            pieces_root: root, base_layer: base, index, length, proof_layers: proof,
        };
        let Ok(pieces) = tree.blocks_needed(&request) else { return Ok(()) };
        let each = 1usize << shape.piece_layer();
        let from = pieces.start as usize * each;
        let given = &leaves[from.min(leaves.len())..leaves.len().min(pieces.end as usize * each)];
        let answer = tree.answer(&request, given).unwrap();
        prop_assert_eq!(answer.len(), request.answer_len());
        let (hashes, uncles) = answer.split_at(length as usize);
        let layer = &whole[base as usize];
        prop_assert_eq!(hashes, &layer[index as usize..(index + length) as usize]);
        for (above, uncle) in (length_log..).zip(uncles) {
            let node = (index >> above ^ 1) as usize;
            prop_assert_eq!(uncle, &whole[(base + above) as usize][node]);
        }
    }

    #[test]
    fn blocks_of_a_piece_are_checked_against_it(
        blocks in 2u64..100, piece_log in 1u32..5, at in any::<prop::sample::Index>(),
    ) {
        let shape = shape(blocks, 1 << piece_log);
        let leaves = leaves(blocks);
        let tree = tree(shape, &leaves);
        let piece = at.index(shape.pieces() as usize) as u32;
        let Some(request) = HashRequest::blocks_of(tree.root(), shape, piece) else {
            return Ok(());
        };
        let first = request.index as usize;
        let own = &leaves[first..leaves.len().min(first + request.length as usize)];
        let mut answer = tree.answer(&request, own).unwrap();
        let hash = tree.piece_layer()[piece as usize];
        prop_assert_eq!(shape.check_blocks(piece, &hash, &answer).unwrap(), own);
        let wrong = at.index(answer.len());
        answer[wrong][31] ^= 0x80;
        prop_assert_eq!(shape.check_blocks(piece, &hash, &answer), Err(MerkleError::Mismatch));
    }
}
