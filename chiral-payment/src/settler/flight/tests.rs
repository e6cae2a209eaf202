use alloy_primitives::{Address, U256};
use bytes::Bytes;
use chiral_chain::{Fees, PrivateKey, Transaction};
use chiral_core::BillId;
use futures_util::FutureExt;
use proptest::prelude::*;

use super::*;

const DEPTHS: Depths = Depths {
    confirmations: 3,
    failed: 5,
    watched: 6,
};

fn flight(state: FlightState) -> Flight {
    let transaction = Transaction {
        chain_id: 1,
        nonce: 7,
        gas_limit: 21_000,
        fees: Fees::Legacy { gas_price: 1 },
        to: Some(Address::ZERO),
        value: U256::ZERO,
        input: Bytes::new(),
    };
    let key = PrivateKey::from_bytes(&[1; 32]).unwrap();
    let signed = transaction.sign(&key).now_or_never().unwrap().unwrap();
    let mut flight = Flight::new(signed, false, vec![BillId(B256::ZERO)], 0, 0);
    flight.state = state;
    flight.block = block(1);
    flight.succeeded = true;
    flight
}

fn block(n: u8) -> BlockRef {
    BlockRef {
        number: u64::from(n),
        hash: B256::repeat_byte(n),
    }
}

fn mined(n: u8, succeeded: bool, depth: u64) -> Sighting {
    Sighting::Mined {
        variant: 0,
        block: block(n),
        succeeded,
        depth,
    }
}

const ABSENT: Sighting = Sighting::Absent { next: 7 };
const TAKEN: Sighting = Sighting::Taken { by: B256::ZERO };

#[test]
fn the_way_of_a_payment() {
    use FlightState::*;
    let include = |n: u8, succeeded| Step::Include {
        variant: 0,
        block: block(n),
        succeeded,
    };
    for (state, sighting, step) in [
        (Signed, ABSENT, Step::Send),
        (Broadcast, ABSENT, Step::Send),
        (Broadcast, Sighting::Unclear, Step::Wait),
        // Sent before a crash, and in a block since.
        (Signed, mined(1, true, 1), include(1, true)),
        (Broadcast, mined(1, false, 9), include(1, false)),
        (Included, mined(1, true, 2), Step::Wait),
        (Included, mined(1, true, 3), Step::Settle),
        (Final, mined(1, true, 5), Step::Wait),
        (Final, mined(1, true, 6), Step::Close),
        // Reorganisations: into another block, out of any, and with another outcome.
        (Included, mined(2, true, 9), include(2, true)),
        (Final, mined(2, true, 1), include(2, true)),
        (Final, mined(1, false, 1), include(1, false)),
        (Included, ABSENT, Step::Reorganise),
        (Final, ABSENT, Step::Reorganise),
        (Final, TAKEN, Step::Reorganise),
        (Final, Sighting::Unclear, Step::Wait),
        (Broadcast, TAKEN, Step::Lose { by: B256::ZERO }),
    ] {
        assert_eq!(
            next(&flight(state), sighting, DEPTHS),
            step,
            "{state:?} {sighting:?}"
        );
    }
    let mut failed = flight(Included);
    failed.succeeded = false;
    assert_eq!(next(&failed, mined(1, false, 4), DEPTHS), Step::Wait);
    assert_eq!(next(&failed, mined(1, false, 5), DEPTHS), Step::Revert);
}

fn any_sighting() -> impl Strategy<Value = Sighting> {
    prop_oneof![
        Just(ABSENT),
        Just(TAKEN),
        Just(Sighting::Unclear),
        (0u8..3, any::<bool>(), 1u64..9).prop_map(|(n, ok, depth)| mined(n, ok, depth)),
    ]
}

proptest! {
    /// Whatever the chain shows: bills are given another transaction only on the word that
    /// the nonce is another's or that this one was reverted, deep enough, and are settled
    /// only by one that succeeded, deep enough.
    #[test]
    fn no_way_leads_to_a_second_payment(sightings in proptest::collection::vec(any_sighting(), 1..40)) {
        let mut flight = flight(FlightState::Signed);
        for sighting in sightings {
            match next(&flight, sighting, DEPTHS) {
                Step::Wait => {}
                Step::Send => {
                    let absent = matches!(sighting, Sighting::Absent { .. });
                    prop_assert!(absent);
                    flight.state = FlightState::Broadcast;
                }
                Step::Include { variant, block, succeeded } => {
                    flight.state = FlightState::Included;
                    (flight.variant, flight.block, flight.succeeded) = (variant, block, succeeded);
                }
                Step::Settle => {
                    let deep = matches!(sighting, Sighting::Mined { succeeded: true, depth, .. } if depth >= 3);
                    prop_assert!(deep);
                    flight.state = FlightState::Final;
                }
                Step::Revert => {
                    let deep = matches!(sighting, Sighting::Mined { succeeded: false, depth, .. } if depth >= 5);
                    prop_assert!(deep);
                    flight.state = FlightState::Reverted;
                }
                Step::Reorganise => flight.state = FlightState::Broadcast,
                Step::Lose { .. } => {
                    prop_assert_eq!(sighting, TAKEN);
                    flight.state = FlightState::Lost;
                }
                Step::Close => flight.state = FlightState::Closed,
            }
        }
    }
}
