use alloy_primitives::hex;
use chiral_core::{ByteRange, Price};
use proptest::prelude::*;

use super::*;

fn ranges(runs: &[(u64, u64)]) -> RangeSet {
    let mut ranges = RangeSet::new();
    for &(start, end) in runs {
        ranges.insert(ByteRange::new(start, end));
    }
    ranges
}

fn metadata(runs: &[(u64, u64)]) -> PaymentMetadata {
    let bill = Bill::new(
        BillId(B256::repeat_byte(0xb1)),
        Cid::from_bytes([0xc1; 32]),
        ranges(runs),
        Price::FREE,
        Protocol::Http,
    );
    PaymentMetadata::for_bill(&bill.unwrap())
}

/// Format 1, to the byte: what was written once stays readable.
#[test]
fn bill_and_cid_stand_as_words_of_their_own() {
    let five_mib_and_a_byte = metadata(&[(0, 5_242_881)]);
    let encoded = five_mib_and_a_byte.encode();
    let words: Vec<String> = encoded.chunks(32).map(hex::encode).collect();
    assert_eq!(
        words,
        [
            "636869726c706179010001040000000000000000000000000000000000500001".to_owned(),
            "b1".repeat(32),
            "c1".repeat(32),
            hex::encode(b"http\x00\x14"),
        ]
    );
    assert_eq!(PaymentMetadata::decode(&encoded), Ok(five_mib_and_a_byte));
    assert_eq!(chiral_chain::intrinsic_gas(&encoded, false), 22_392);
}

#[test]
fn a_delivery_in_many_pieces_is_told_more_coarsely() {
    let chunk = CHUNK_SIZE;
    let mut pieces: Vec<(u64, u64)> = (0..16)
        .map(|i| (i * 8 * chunk, i * 8 * chunk + 1))
        .collect();
    let exact = metadata(&pieces).chunks;
    assert_eq!((exact.runs().len(), exact.is_coarse()), (16, false));
    // The narrowest gap is closed first.
    pieces.push((2 * chunk, 3 * chunk));
    let coarse = metadata(&pieces).chunks;
    assert_eq!((coarse.runs().len(), coarse.is_coarse()), (16, true));
    assert_eq!(coarse.runs()[0], (0, 3));
    assert_eq!(coarse.runs()[1..], exact.runs()[1..]);
}

#[test]
fn what_is_not_the_one_encoding_is_refused() {
    let good = metadata(&[(0, 1), (3 * CHUNK_SIZE, 4 * CHUNK_SIZE)]).encode();
    assert!(PaymentMetadata::decode(&good).is_ok());
    for len in 0..good.len() {
        assert!(
            PaymentMetadata::decode(&good[..len]).is_err(),
            "{len} bytes"
        );
    }
    let bad = |at: usize, byte: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = byte;
        PaymentMetadata::decode(&bytes)
    };
    assert_eq!(bad(0, b'C'), Err(MetadataError::Foreign));
    assert_eq!(bad(8, 2), Err(MetadataError::Version(2)));
    for (at, byte) in [
        (9, 2),
        (10, 17),
        (10, 1),
        (11, 0),
        (11, 33),
        (12, 1),
        (96, b'H'),
    ] {
        let refused = bad(at, byte);
        assert!(
            matches!(refused, Err(MetadataError::Malformed { .. })),
            "{at}: {refused:?}"
        );
    }
    // A number that is longer than it has to be, or too large.
    let head = &good[..100];
    for runs in [
        &[0x80, 0, 0, 2, 0][..],
        &[0xff, 0xff, 0xff, 0xff, 0x1f, 0, 0, 0],
    ] {
        assert!(PaymentMetadata::decode(&[head, runs].concat()).is_err());
    }
    assert_eq!(
        PaymentMetadata::decode(&[&good[..], &[0]].concat()),
        Err(MetadataError::Malformed {
            what: "bytes behind the runs"
        })
    );
}

#[test]
fn absurd_ranges_have_an_encoding_too() {
    for range in [(0, u64::MAX), (u64::MAX - 1, u64::MAX)] {
        let metadata = metadata(&[range]);
        assert_eq!(PaymentMetadata::decode(&metadata.encode()), Ok(metadata));
    }
}

proptest! {
    #[test]
    fn metadata_comes_back(
        pieces in proptest::collection::vec((0u64..1 << 40, 1u64..1 << 24), 0..40),
        name in "[a-z][a-z0-9./-]{0,31}",
    ) {
        let pieces: Vec<_> = pieces.iter().map(|&(start, len)| (start, start + len)).collect();
        let mut metadata = metadata(&pieces);
        metadata.protocol = name.parse().unwrap();
        let encoded = metadata.encode();
        prop_assert!(encoded.len() <= MAX_METADATA_BYTES);
        // Whatever was delivered is among the runs.
        for range in ranges(&pieces).iter() {
            let chunk = (range.start / CHUNK_SIZE) as u32;
            prop_assert!(metadata.chunks.runs().iter().any(|run| run.0 <= chunk && chunk < run.1));
        }
        prop_assert_eq!(PaymentMetadata::decode(&encoded), Ok(metadata));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..300) {
        let _ = PaymentMetadata::decode(&bytes);
        let mut good = metadata(&[(0, 1), (CHUNK_SIZE * 5, CHUNK_SIZE * 9)]).encode().to_vec();
        let at = at % good.len();
        good[at] ^= bytes.first().copied().unwrap_or(1);
        if let Ok(metadata) = PaymentMetadata::decode(&good) {
            prop_assert_eq!(metadata.encode(), good);
        }
    }
}
