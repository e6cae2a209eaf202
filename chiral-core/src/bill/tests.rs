use super::*;
use crate::{CHUNK_SIZE, ChunkHasher};

fn file(chunks: u32) -> (ChunkLayout, Vec<ChunkHash>) {
    let layout = ChunkLayout::new(u64::from(chunks) * CHUNK_SIZE - 3).unwrap();
    let mut hasher = ChunkHasher::new();
    for i in 0..layout.size() / 4096 {
        hasher.update(&[i as u8; 4096]);
    }
    hasher.update(&vec![1; (layout.size() % 4096) as usize]);
    (layout, hasher.finish().unwrap().0)
}

#[test]
fn a_proof_of_any_chunks_passes_and_no_altered_one() {
    let (layout, hashes) = file(9);
    for indices in [
        &[0][..],
        &[8],
        &[0, 1, 2],
        &[3, 5, 8],
        &[1, 2, 7],
        &[0, 1, 2, 3, 4, 5, 6, 7, 8],
    ] {
        let proof = TransferProof::new(layout, &hashes, indices, 7).unwrap();
        assert_eq!(proof.verify(), Ok(()), "{indices:?}");
        for at in 0..proof.chunks.len() {
            let mut bad = proof.clone();
            bad.chunks[at].1 = ChunkHash::from_bytes([9; 32]);
            assert!(bad.verify().is_err());
            assert_ne!(bad.digest(), proof.digest());
            let mut bad = proof.clone();
            bad.chunks[at].2 = ChunkHash::from_bytes([9; 32]);
            assert!(bad.verify().is_err());
            let mut bad = proof.clone();
            bad.chunks[at].0 += 1;
            assert!(bad.verify().is_err());
        }
        let mut bad = proof.clone();
        bad.size -= 1;
        assert!(bad.verify().is_err());
        let mut bad = proof.clone();
        bad.chunks.reverse();
        assert!(indices.len() == 1 || bad.verify().is_err());
    }
    assert!(TransferProof::new(layout, &hashes, &[9], 7).is_err());
    assert!(TransferProof::new(layout, &hashes, &[], 7).is_err());
    assert!(TransferProof::new(layout, &hashes, &[2, 1], 7).is_err());
}

#[test]
fn a_bill_is_rounded_up_once() {
    let price: Price = "0.001".parse().unwrap();
    let ranges = [ByteRange::new(0, 1), ByteRange::new(10, 5_242_890)]
        .into_iter()
        .collect();
    let cid = crate::chain::EMPTY_CID;
    let bill = Bill::new(BillId(B256::ZERO), cid, ranges, price, Protocol::Http).unwrap();
    assert_eq!(bill.amount, U256::from(5_000_000_953_674_317u64));
    let layout = ChunkLayout::new(6_000_000).unwrap();
    assert_eq!(ChunkPayment::for_bill(&bill, Address::ZERO, layout), None);
    let bill = bill.owed_to(None, Some(Address::repeat_byte(1)));
    let payment = ChunkPayment::for_bill(&bill, Address::ZERO, layout).unwrap();
    assert_eq!(payment.chunks_delivered.count(), 21);
    assert_eq!(payment.bytes, 5_242_881);
}
