use super::*;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

fn plain(bytes: &[u8]) -> Cid {
    Cid::from_bytes(Sha256::digest(bytes).into())
}

#[test]
fn nothing_has_the_empty_cid() {
    let (hashes, cid) = ChunkHasher::new().finish().unwrap();
    assert!(hashes.is_empty());
    assert_eq!(cid, EMPTY_CID);
    assert_eq!(cid, plain(b""));
}

#[test]
fn a_wrong_byte_length_index_or_neighbour_is_refused() {
    let data = vec![7u8; 262_144 * 2 + 100];
    let layout = ChunkLayout::new(data.len() as u64).unwrap();
    let mut hasher = ChunkHasher::new();
    hasher.update(&data);
    let (hashes, cid) = hasher.finish().unwrap();
    assert_eq!(cid, plain(&data));
    let chunk = |i: u32| {
        let r = layout.range(i);
        data[r.start as usize..r.end as usize].to_vec()
    };
    assert!(check(layout, 1, hashes[0], hashes[1], &chunk(1)).is_ok());
    assert!(check(layout, 2, hashes[1], cid.into(), &chunk(2)).is_ok());
    let mut bad = chunk(1);
    bad[262_143] ^= 1;
    assert_eq!(
        check(layout, 1, hashes[0], hashes[1], &bad),
        Err(ChunkError::Mismatch { index: 1 })
    );
    assert!(check(layout, 1, hashes[1], hashes[1], &chunk(1)).is_err());
    assert!(matches!(
        check(layout, 1, hashes[0], hashes[1], &bad[1..]),
        Err(ChunkError::Length { .. })
    ));
    assert!(matches!(
        check(layout, 3, hashes[2], hashes[2], b""),
        Err(ChunkError::Index { .. })
    ));
    // Another size means another padding, hence another cid.
    let other = ChunkLayout::new(data.len() as u64 - 1).unwrap();
    assert!(check(other, 2, hashes[1], cid.into(), &chunk(2)[1..]).is_err());
    // Whatever a stranger says precedes chunk 0 is ignored.
    let first = ChunkLink::compress(layout, 0, hashes[1], &chunk(0)).unwrap();
    assert_eq!((first.before(), first.after()), (INITIAL, hashes[0]));
    assert!(first.prove(hashes[1]).is_err());
    assert!(first.prove(hashes[0]).is_ok());
}

#[test]
fn a_check_counts_for_the_very_claim_that_it_was_of() {
    let data = Bytes::from(vec![7u8; 262_144 * 2 + 100]);
    let layout = ChunkLayout::new(data.len() as u64).unwrap();
    let mut hasher = ChunkHasher::new();
    hasher.update(&data);
    let (hashes, _) = hasher.finish().unwrap();
    let claim = |index: u32, bytes: &Bytes, checked: Option<&VerifiedChunk>| ChunkClaim {
        index,
        before: index.checked_sub(1).map_or(INITIAL, |i| hashes[i as usize]),
        after: hashes[index as usize],
        bytes: bytes.clone(),
        checked: checked.cloned(),
    };
    let chunk = |index: u32| {
        let range = layout.range(index);
        data.slice(range.start as usize..range.end as usize)
    };
    let [first, second, last] =
        [0, 1, 2].map(|index| claim(index, &chunk(index), None).check(layout).unwrap());
    for (index, checked) in [(0, &first), (1, &second), (2, &last)] {
        let again = claim(index, &chunk(index), Some(checked));
        assert!(checked.is_of(layout, &again));
        assert_eq!(again.check(layout).unwrap().link(), checked.link());
    }
    // Beside anything else it counts for nothing, and the bytes decide.
    let copy = Bytes::from(chunk(1).to_vec());
    let mut wrong = chunk(1).to_vec();
    wrong[5] ^= 1;
    let wrong = Bytes::from(wrong);
    let other_layout = ChunkLayout::new(layout.size() - 1).unwrap();
    let mut other_after = claim(1, &chunk(1), Some(&second));
    other_after.after = hashes[0];
    let mut other_before = claim(1, &chunk(1), Some(&second));
    other_before.before = hashes[1];
    let mut other_first = claim(0, &chunk(0), Some(&first));
    other_first.before = hashes[1];
    assert!(
        first.is_of(layout, &other_first),
        "what precedes chunk 0 is known"
    );
    for (claim, layout, right) in [
        (claim(1, &copy, Some(&second)), layout, true),
        (claim(1, &wrong, Some(&second)), layout, false),
        (claim(1, &chunk(1), Some(&first)), layout, true),
        (claim(1, &chunk(0), Some(&first)), layout, true),
        (claim(2, &chunk(1), Some(&second)), layout, false),
        (claim(1, &chunk(1).slice(1..), Some(&second)), layout, false),
        (claim(2, &chunk(2), Some(&last)), other_layout, false),
        (other_after, layout, false),
        (other_before, layout, false),
    ] {
        let checked = claim.checked.clone().unwrap();
        assert!(!checked.is_of(layout, &claim), "{:?}", claim.index);
        assert_eq!(claim.check(layout).is_ok(), right);
    }
}

#[test]
fn a_forward_chain_proves_all_or_nothing() {
    let data = vec![9u8; 262_144 * 2 + 1];
    let layout = ChunkLayout::new(data.len() as u64).unwrap();
    let feed = |flip: Option<usize>, chunks: u32| {
        let mut data = data.clone();
        if let Some(at) = flip {
            data[at] ^= 1;
        }
        let mut chain = ForwardChain::new(layout);
        for index in 0..chunks {
            let r = layout.range(index);
            chain.push(&data[r.start as usize..r.end as usize]).unwrap();
        }
        chain
            .finish(plain(&vec![9u8; 262_144 * 2 + 1]))
            .map(|links| links.collect::<Vec<_>>())
    };
    let links = feed(None, 3).unwrap();
    assert_eq!(links.len(), 3);
    assert!(
        links
            .windows(2)
            .all(|pair| pair[0].after() == pair[1].before())
    );
    assert!(matches!(feed(Some(5), 3), Err(ChunkError::Mismatch { .. })));
    assert!(matches!(feed(None, 2), Err(ChunkError::Length { .. })));
    let empty = ChunkLayout::new(0).unwrap();
    assert_eq!(
        ForwardChain::new(empty).finish(EMPTY_CID).unwrap().count(),
        0
    );
    assert!(ForwardChain::new(empty).finish(plain(b"x")).is_err());
}

proptest! {
    #[test]
    fn any_split_gives_the_same_hashes(
        size in prop_oneof![0usize..200, 262_080usize..262_210, 524_200usize..524_400],
        cuts in proptest::collection::vec(1usize..100_000, 0..12),
    ) {
        let data: Vec<u8> = (0..size).map(|i| ((i as u64 * 31) >> 3) as u8).collect();
        let mut whole = ChunkHasher::new();
        whole.update(&data);
        let (hashes, cid) = whole.finish().unwrap();
        prop_assert_eq!(cid, plain(&data));
        let mut pieces = ChunkHasher::new();
        let mut rest = &data[..];
        for cut in cuts {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            pieces.update(now);
            rest = later;
        }
        pieces.update(rest);
        prop_assert_eq!(pieces.finish().unwrap(), (hashes.clone(), cid));
        let layout = ChunkLayout::new(size as u64).unwrap();
        let mut before = INITIAL;
        for (index, after) in hashes.into_iter().enumerate() {
            let r = layout.range(index as u32);
            let bytes = &data[r.start as usize..r.end as usize];
            prop_assert!(check(layout, index as u32, before, after, bytes).is_ok());
            before = after;
        }
    }
}
