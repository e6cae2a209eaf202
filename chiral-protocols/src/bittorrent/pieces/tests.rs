use proptest::prelude::*;

use super::*;
use crate::bittorrent::merkle::block_hash;

fn content(len: usize) -> Bytes {
    (0..len)
        .map(|i| (i * 31 % 251) as u8)
        .collect::<Vec<_>>()
        .into()
}

fn sha1_of(bytes: &[u8]) -> [u8; 20] {
    sha1::Sha1::digest(bytes).into()
}

fn both(bytes: &[u8], layer: u32) -> ExpectedPiece {
    let leaves = bytes.chunks(BLOCK_LEN as usize).map(block_hash).collect();
    ExpectedPiece::Hybrid(sha1_of(bytes), fold(0, leaves, layer), layer)
}

#[test]
fn bytes_that_do_not_belong_are_not_taken() {
    let bytes = content(40_000);
    let mut hasher = PieceHasher::new(7, 40_000, vec![], ExpectedPiece::V1(sha1_of(&bytes)));
    for (begin, len) in [(0, 0), (39_999, 2), (40_000, 1), (u32::MAX, 1)] {
        let refused = hasher.feed(begin, bytes.slice(..len));
        assert!(
            matches!(refused, Err(PieceError::Range { piece: 7, .. })),
            "{begin} {len}"
        );
    }
    hasher.feed(16_384, bytes.slice(16_384..32_768)).unwrap();
    for (begin, end) in [
        (16_384, 32_768),
        (16_000, 16_385),
        (32_767, 32_768),
        (0, 40_000),
    ] {
        let refused = hasher.feed(begin, bytes.slice(begin as usize..end));
        assert_eq!(refused, Err(PieceError::Duplicate { piece: 7, begin }));
    }
    assert_eq!(hasher.lacks(), [0..16_384, 32_768..40_000]);
    assert_eq!(hasher.waiting(), 16_384);
    let early = hasher.clone().finish().unwrap_err();
    assert_eq!(
        early,
        PieceError::Incomplete {
            piece: 7,
            missing: 23_616
        }
    );
    assert!(early.is_retryable());
    hasher.feed(0, bytes.slice(..16_384)).unwrap();
    assert_eq!(hasher.waiting(), 0);
    hasher.feed(32_768, bytes.slice(32_768..)).unwrap();
    assert_eq!(hasher.finish().unwrap().piece(), 7);
}

#[test]
fn both_hashes_must_fit() {
    let bytes = content(50_000);
    let ExpectedPiece::Hybrid(v1, v2, layer) = both(&bytes, 2) else {
        unreachable!()
    };
    for (expected, passes) in [
        (ExpectedPiece::Hybrid(v1, v2, layer), true),
        (ExpectedPiece::Hybrid([0; 20], v2, layer), false),
        (ExpectedPiece::Hybrid(v1, [0; 32], layer), false),
        (ExpectedPiece::V1(v1), true),
        (ExpectedPiece::V1([1; 20]), false),
        (ExpectedPiece::V2(v2, layer), true),
        (ExpectedPiece::V2(v2, layer + 1), false),
        (ExpectedPiece::V2(v2, 1), false),
        (ExpectedPiece::V2(v2, u32::MAX), false),
    ] {
        let mut hasher = PieceHasher::new(0, 50_000, vec![], expected);
        hasher.feed(0, bytes.clone()).unwrap();
        assert_eq!(hasher.finish().is_ok(), passes, "{expected:?}");
    }
}

#[test]
fn padding_is_hashed_without_being_fed() {
    let (file, other) = (content(20_000), content(1000));
    let piece = [&file[..], &[0; 12_768], &other[..], &[0; 5]].concat();
    let padding = vec![33_768..33_773, 20_000..32_768];
    let mut hasher = PieceHasher::new(
        1,
        piece.len() as u32,
        padding,
        ExpectedPiece::V1(sha1_of(&piece)),
    );
    assert_eq!(hasher.lacks(), [0..20_000, 32_768..33_768]);
    for (begin, len) in [(19_999, 2), (25_000, 1), (32_767, 2), (33_768, 1)] {
        let refused = hasher.feed(begin, content(len));
        assert!(matches!(refused, Err(PieceError::Range { .. })), "{begin}");
    }
    hasher.feed(32_768, other).unwrap();
    hasher.feed(0, file).unwrap();
    hasher.finish().unwrap();
    let all = std::iter::once(0..9).collect();
    let nothing = PieceHasher::new(0, 9, all, ExpectedPiece::V1(sha1_of(&[0; 9])));
    nothing.finish().unwrap();
}

proptest! {
    #[test]
    fn any_cutting_in_any_order_passes_and_one_wrong_bit_does_not(
        len in 1usize..150_000,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        order in any::<u64>(),
        wrong in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let bytes = content(len);
        let layer = (len.div_ceil(16_384)).next_power_of_two().trailing_zeros();
        let mut hasher = PieceHasher::new(0, len as u32, vec![], both(&bytes, layer));
        let mut edges: Vec<usize> = cuts.iter().map(|cut| cut.index(len)).chain([0, len]).collect();
        edges.sort();
        edges.dedup();
        let mut parts: Vec<_> = edges.windows(2).map(|pair| pair[0]..pair[1]).collect();
        parts.sort_by_key(|part| (part.start as u64 + 1).wrapping_mul(order | 1));
        let fed = match wrong {
            Some(at) => {
                let mut fed = bytes.to_vec();
                fed[at.index(len)] ^= 4;
                Bytes::from(fed)
            }
            None => bytes.clone(),
        };
        for part in parts {
            prop_assert!(!hasher.is_complete());
            hasher.feed(part.start as u32, fed.slice(part)).unwrap();
        }
        prop_assert!(hasher.is_complete() && hasher.lacks().is_empty());
        match hasher.finish() {
            Ok(piece) => {
                prop_assert!(wrong.is_none());
                let leaves: Vec<_> = bytes.chunks(16_384).map(block_hash).collect();
                prop_assert_eq!(piece.blocks(), leaves);
            }
            Err(error) => {
                prop_assert!(wrong.is_some());
                prop_assert_eq!(error, PieceError::Mismatch { piece: 0 });
            }
        }
    }
}
