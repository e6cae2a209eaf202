//! What a node says of itself.

use chiral_core::Protocol;
use chiral_core::conformance::peer_directory::header;
use chiral_dht::records::announcement;
use chiral_dht::records::node_record::{MAX_ADDRESSES, MAX_SEEDED};
use chiral_dht::records::{NodeRecord, RecordError};

use crate::nodes::{NOW, SECOND, key, node, peer, wallet};

fn record() -> NodeRecord {
    let mut record = NodeRecord::new(5, NOW.as_secs() + 60);
    record.addresses = vec!["/ip4/192.0.2.1/tcp/1".parse().unwrap()];
    record.protocols = vec![Protocol::Http, "ipfs/1.0".parse().unwrap()];
    record.capacity_bytes = Some(1 << 40);
    record.used_bytes = 77;
    record.wallet = Some(wallet(1));
    record.seeded_count = 1000;
    record.seeded = vec![header("a").cid, header("b").cid];
    record
}

#[test]
fn all_that_is_said_comes_back() {
    for record in [record(), NodeRecord::new(0, NOW.as_secs() + 1)] {
        let bytes = record.sign(&node(1), NOW).unwrap();
        assert_eq!(NodeRecord::verify(&bytes, &peer(1), NOW), Ok(record));
    }
}

#[test]
fn it_holds_for_its_node_and_its_time_alone() {
    let bytes = record().sign(&node(1), NOW).unwrap();
    let foreign = NodeRecord::verify(&bytes, &peer(2), NOW);
    assert_eq!(foreign, Err(RecordError::Foreign));
    let late = NodeRecord::verify(&bytes, &peer(1), NOW + SECOND * 60);
    assert!(matches!(late, Err(RecordError::Expired { .. })));
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(NodeRecord::verify(&changed, &peer(1), NOW).is_err(), "{at}");
    }
    assert!(announcement::verify(&bytes, &key("a"), NOW).is_err());
    let mut swapped = record();
    swapped.wallet = Some(wallet(2));
    assert_eq!(swapped.sign(&node(1), NOW), Err(RecordError::Wallet));
    let mut boasting = record();
    boasting.seeded_count = 1;
    assert!(boasting.sign(&node(1), NOW).is_err());
}

#[test]
fn a_node_with_much_to_say_says_what_fits() {
    let mut record = record();
    record.addresses = vec![record.addresses[0].clone(); 100];
    record.seeded = vec![record.seeded[0]; 1000];
    let bytes = record.sign(&node(1), NOW).unwrap();
    let read = NodeRecord::verify(&bytes, &peer(1), NOW).unwrap();
    assert_eq!(read.addresses.len(), MAX_ADDRESSES);
    assert_eq!((read.seeded.len(), read.seeded_count), (MAX_SEEDED, 1000));
}
