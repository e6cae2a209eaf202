//! Merkle proofs from a prover that knows the tree: only true claims pass.
#![no_main]

use chiral_core::{CHUNK_SIZE, ChunkHash, ChunkLayout, MerkleProof, TreeHash, merkle};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, Vec<(u8, u8)>, Vec<(u8, u8)>, i8)| {
    let (count, claims, nodes, shift) = input;
    let count = u32::from(count % 32) + 1;
    let hash = |n: u8| ChunkHash::from_bytes([n; 32]);
    let hashes: Vec<_> = (0..count).map(|n| hash(n as u8)).collect();
    let layout = ChunkLayout::new(u64::from(count) * CHUNK_SIZE).expect("small");
    let root = merkle::seal(layout.size(), merkle::tree_hash(&hashes));
    // Nodes of the real tree, so that the prover has something to work with.
    let level: Vec<_> = hashes.iter().map(|hash| merkle::leaf(*hash)).collect();
    let pick = |(from, to): (u8, u8)| -> TreeHash {
        let from = usize::from(from) % level.len();
        let to = (from + 1 + usize::from(to) % 8).min(level.len());
        merkle::fold(&level[from..to])
    };
    let proof = MerkleProof::from_nodes(nodes.into_iter().take(64).map(pick).collect());
    let claims: Vec<_> = claims
        .into_iter()
        .map(|(i, h)| (u32::from(i), hash(h)))
        .collect();
    let claimed = layout.size().saturating_add_signed(i64::from(shift));
    let Ok(at) = ChunkLayout::new(claimed) else {
        return;
    };
    if proof.verify(root, at, &claims).is_ok() {
        assert_eq!(at, layout);
        assert!(
            claims
                .iter()
                .all(|(i, h)| hashes.get(*i as usize) == Some(h))
        );
    }
});
