use chiral_chain::{Fees, PrivateKey, Transaction};
use chiral_core::{ByteRange, PeerId, Price, RangeSet};
use futures_util::FutureExt;
use proptest::prelude::*;

use super::*;

fn bill() -> Bill {
    let mut ranges = RangeSet::new();
    ranges.insert(ByteRange::new(5, 1 << 20));
    let id = BillId(B256::repeat_byte(1));
    let price = Price::from_wei_per_mib(U256::from(7));
    let peer = PeerId::from_bytes(b"somebody").unwrap();
    Bill::new(id, Cid::from_bytes([2; 32]), ranges, price, Protocol::Ed2k)
        .unwrap()
        .owed_to(Some(peer), Some(Address::repeat_byte(3)))
}

fn flight(variants: u64) -> Flight {
    let key = PrivateKey::from_bytes(&[1; 32]).unwrap();
    let signed = |price| {
        let transaction = Transaction {
            chain_id: 98765,
            nonce: 7,
            gas_limit: 21_000,
            fees: Fees::Legacy { gas_price: price },
            to: Some(Address::ZERO),
            value: U256::ZERO,
            input: Bytes::new(),
        };
        transaction.sign(&key).now_or_never().unwrap().unwrap()
    };
    let mut flight = Flight::new(signed(1), true, vec![bill().id], 8, 9);
    flight.variants = (1..=variants).map(|n| signed(u128::from(n))).collect();
    flight
}

#[test]
fn records_come_back() {
    let mut record = BillRecord::new(&bill(), 4, u128::MAX, 1_700_000_000);
    for state in [
        BillState::Free,
        BillState::Waiting,
        BillState::InFlight,
        BillState::Settled,
    ] {
        record.state = state;
        record.put_off(10, 15);
        assert_eq!(BillRecord::decode(&record.encode()).unwrap(), record);
    }
    let mut flight = flight(3);
    use FlightState::*;
    for state in [Signed, Broadcast, Included, Final, Closed, Lost, Reverted] {
        flight.state = state;
        flight.variant = 2;
        assert_eq!(Flight::decode(&flight.encode(), 98765).unwrap(), flight);
    }
    assert!(
        Flight::decode(&flight.encode(), 98766).is_err(),
        "signed for another chain"
    );
    let identity = Identity {
        chain_id: 1,
        genesis: B256::repeat_byte(2),
        wallet: Address::repeat_byte(3),
        salt: 4,
        bills: 5,
        flights: 6,
    };
    assert_eq!(Identity::decode(&identity.encode()).unwrap(), identity);
}

#[test]
fn damaged_records_are_errors() {
    for variants in [0, 1] {
        let mut bad = flight(variants.max(1));
        bad.variant = variants as usize;
        if variants == 0 {
            bad.variants.clear();
        }
        assert!(
            Flight::decode(&bad.encode(), 98765).is_err(),
            "{variants} variants"
        );
    }
    let mut bad = flight(1);
    bad.nonce = 8;
    assert!(
        Flight::decode(&bad.encode(), 98765).is_err(),
        "the nonce of another"
    );
    let good = BillRecord::new(&bill(), 4, 1, 1).encode();
    assert!(
        BillRecord::decode(&[&good[..], &[0; 32]].concat()).is_err(),
        "bytes behind it"
    );
}

#[test]
fn failures_put_off_for_longer_and_not_for_ever() {
    let mut record = BillRecord::new(&bill(), 4, 1, 1);
    for (failures, wait) in [(1, 15), (2, 30), (3, 60)] {
        record.put_off(100, 15);
        assert_eq!((record.failures, record.not_before), (failures, 100 + wait));
    }
    record.failures = u32::MAX;
    record.put_off(u64::MAX, 15);
    assert_eq!((record.failures, record.not_before), (u32::MAX, u64::MAX));
}

proptest! {
    #[test]
    fn bills_that_differ_have_different_digests(
        names in proptest::collection::vec("[a-c]{1,3}", 2),
        bytes in proptest::collection::vec(0u64..3, 2),
        ends in proptest::collection::vec(10u64..13, 2),
        amounts in proptest::collection::vec(0u64..3, 2),
    ) {
        let bill = |i: usize| {
            let mut bill = bill();
            bill.protocol = names[i].parse().unwrap();
            bill.ranges = RangeSet::from(ByteRange::new(0, ends[i]));
            bill.bytes = bytes[i];
            bill.amount = U256::from(amounts[i]);
            bill
        };
        prop_assert_eq!(bill(0) == bill(1), digest(&bill(0)) == digest(&bill(1)));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..800), at in 0usize..600) {
        let _ = BillRecord::decode(&bytes);
        let _ = Flight::decode(&bytes, 98765);
        let mut good = flight(2).encode();
        let at = at % good.len();
        good[at] ^= bytes.first().copied().unwrap_or(1);
        let _ = Flight::decode(&good, 98765);
        let mut good = BillRecord::new(&bill(), 4, 1, 1).encode();
        let at = at % good.len();
        good[at] ^= bytes.first().copied().unwrap_or(1);
        let _ = BillRecord::decode(&good);
    }
}
