use super::*;
use proptest::prelude::*;

/// RFC 9162 §2.1.1, written as the RFC writes it.
fn mth(entries: &[Vec<u8>]) -> [u8; 32] {
    match entries {
        [] => Sha256::digest(b"").into(),
        [one] => Sha256::new()
            .chain_update([0])
            .chain_update(one)
            .finalize()
            .into(),
        many => {
            let k = many.len().next_power_of_two() / 2;
            Sha256::new()
                .chain_update([1])
                .chain_update(mth(&many[..k]))
                .chain_update(mth(&many[k..]))
                .finalize()
                .into()
        }
    }
}

fn hashes(n: usize) -> Vec<ChunkHash> {
    (0..n as u64)
        .map(|i| ChunkHash::from_bytes(Sha256::digest(i.to_be_bytes()).into()))
        .collect()
}

fn layout(n: u32) -> ChunkLayout {
    ChunkLayout::new(u64::from(n) * CHUNK_SIZE - 5).unwrap()
}

fn root_of(hashes: &[ChunkHash]) -> MerkleRoot {
    seal(layout(hashes.len() as u32).size(), tree_hash(hashes))
}

#[test]
fn equals_rfc_9162_for_1_to_600_leaves() {
    let all = hashes(600);
    for n in 0..=600 {
        let entries: Vec<_> = all[..n].iter().map(|h| h.as_bytes().to_vec()).collect();
        assert_eq!(tree_hash(&all[..n]).as_bytes(), &mth(&entries), "{n}");
    }
}

/// The eight entries and the root that Certificate Transparency implementations share.
#[test]
fn the_model_gives_the_certificate_transparency_root() {
    let entries: Vec<Vec<u8>> = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ]
    .iter()
    .map(|hex| {
        (0..hex.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap())
            .collect()
    })
    .collect();
    let root = TreeHash::from_bytes(mth(&entries));
    assert_eq!(
        root.to_string(),
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    );
    let leaves: Vec<_> = entries
        .iter()
        .map(|e| {
            TreeHash::from_bytes(
                Sha256::new()
                    .chain_update([0])
                    .chain_update(e)
                    .finalize()
                    .into(),
            )
        })
        .collect();
    assert_eq!(fold(&leaves), root);
}

#[test]
fn leaf_2_of_3_does_not_pass_as_leaf_1_of_2() {
    let three = hashes(3);
    let proof = MerkleProof::prove(&three, &[2]).unwrap();
    let root = root_of(&three);
    assert_eq!(proof.verify(root, layout(3), &[(2, three[2])]), Ok(()));
    assert!(proof.verify(root, layout(2), &[(1, three[2])]).is_err());
}

#[test]
fn an_inner_node_does_not_pass_as_a_leaf() {
    let four = hashes(4);
    let inner = tree_hash(&four[..2]);
    let sibling = tree_hash(&four[2..]);
    let forged = ChunkHash::from_bytes(*inner.as_bytes());
    let proof = MerkleProof::from_nodes(vec![sibling]);
    for n in 1..=4 {
        for index in 0..n {
            assert!(
                proof
                    .verify(root_of(&four), layout(n), &[(index, forged)])
                    .is_err()
            );
        }
    }
}

#[derive(Debug, Clone)]
enum Attack {
    None,
    Pad,
    Drop,
    Swap(usize, usize),
    FlipNode(usize),
    FlipLeaf(usize),
    Move(usize, u32),
    Repeat(usize),
    Size(i64),
    Count(u32),
}

fn attack() -> impl Strategy<Value = Attack> {
    prop_oneof![
        Just(Attack::None),
        Just(Attack::Pad),
        Just(Attack::Drop),
        (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Attack::Swap(a, b)),
        any::<usize>().prop_map(Attack::FlipNode),
        any::<usize>().prop_map(Attack::FlipLeaf),
        (any::<usize>(), any::<u32>()).prop_map(|(a, b)| Attack::Move(a, b)),
        any::<usize>().prop_map(Attack::Repeat),
        (-3i64..=3).prop_map(Attack::Size),
        (1u32..70).prop_map(Attack::Count),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever a prover does to a proof, it passes only if it claims nothing but the truth.
    #[test]
    fn a_hostile_prover_proves_only_what_is_true(
        n in 1u32..64,
        picks in proptest::collection::btree_set(0u32..64, 1..8),
        attacks in proptest::collection::vec(attack(), 0..3),
    ) {
        let all = hashes(n as usize);
        let root = root_of(&all);
        let mut indices: Vec<u32> = picks.into_iter().map(|i| i % n).collect();
        indices.sort_unstable();
        indices.dedup();
        let honest = MerkleProof::prove(&all, &indices).unwrap();
        let mut nodes = honest.nodes().to_vec();
        let mut leaves: Vec<_> = indices.iter().map(|&i| (i, all[i as usize])).collect();
        let mut at = layout(n);
        for attack in attacks {
            match attack {
                Attack::None => {}
                Attack::Pad => nodes.push(leaf(all[0])),
                Attack::Drop => { nodes.pop(); }
                Attack::Swap(a, b) if !nodes.is_empty() => {
                    let len = nodes.len();
                    nodes.swap(a % len, b % len);
                }
                Attack::FlipNode(a) if !nodes.is_empty() => {
                    let len = nodes.len();
                    let mut bytes = *nodes[a % len].as_bytes();
                    bytes[a % 32] ^= 1;
                    nodes[a % len] = TreeHash::from_bytes(bytes);
                }
                Attack::FlipLeaf(a) => {
                    let len = leaves.len();
                    let mut bytes = *leaves[a % len].1.as_bytes();
                    bytes[a % 32] ^= 1;
                    leaves[a % len].1 = ChunkHash::from_bytes(bytes);
                }
                Attack::Move(a, to) => {
                    let len = leaves.len();
                    leaves[a % len].0 = to % 70;
                }
                Attack::Repeat(a) => {
                    let len = leaves.len();
                    let again = leaves[a % len];
                    leaves.insert(a % len, again);
                }
                Attack::Size(by) => {
                    at = ChunkLayout::new(at.size().saturating_add_signed(by)).unwrap();
                }
                Attack::Count(count) => at = layout(count),
                _ => {}
            }
        }
        let verdict = MerkleProof::from_nodes(nodes).verify(root, at, &leaves);
        let truth = at == layout(n)
            && leaves.iter().all(|(i, h)| all.get(*i as usize) == Some(h));
        if verdict.is_ok() {
            prop_assert!(truth, "accepted a lie: {leaves:?} at {at:?}");
        }
        if leaves.windows(2).any(|w| w[0].0 >= w[1].0) {
            prop_assert!(verdict.is_err(), "accepted repeated or unordered leaves");
        }
    }

    #[test]
    fn an_honest_proof_passes_and_no_longer_or_shorter_one(
        n in 1u32..600,
        picks in proptest::collection::btree_set(0u32..600, 1..40),
    ) {
        let all = hashes(n as usize);
        let root = root_of(&all);
        let indices: Vec<u32> = picks.into_iter().filter(|i| *i < n).collect();
        prop_assume!(!indices.is_empty());
        let proof = MerkleProof::prove(&all, &indices).unwrap();
        let leaves: Vec<_> = indices.iter().map(|&i| (i, all[i as usize])).collect();
        prop_assert_eq!(proof.verify(root, layout(n), &leaves), Ok(()));
        let mut longer = proof.nodes().to_vec();
        longer.push(leaf(all[0]));
        let verdict = MerkleProof::from_nodes(longer).verify(root, layout(n), &leaves);
        let refused = matches!(verdict, Err(ProofError::Length { .. }));
        prop_assert!(refused);
    }
}
