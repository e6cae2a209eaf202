//! Records of the directory: strangers' bytes, and payloads that somebody really signed.
#![no_main]

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chiral_core::{Cid, ProviderQuery};
use chiral_dht::records::announcement::{self, DOMAIN, PAYLOAD_TYPE, Statement};
use chiral_dht::records::{
    ChiralStore, NodeRecord, Reader, RecordError, RecordKey, SeederSet, StoreLimits,
};
use libfuzzer_sys::fuzz_target;
use libp2p::core::SignedEnvelope;
use libp2p::identity::Keypair;

const NOW: Duration = Duration::from_secs(1_800_000_000);

fn node() -> &'static Keypair {
    static NODE: OnceLock<Keypair> = OnceLock::new();
    NODE.get_or_init(|| Keypair::ed25519_from_bytes([7; 32]).expect("any 32 bytes are a key"))
}

fn sealed(domain: &str, payload_type: &[u8], payload: &[u8]) -> Vec<u8> {
    let (domain, payload_type) = (domain.to_owned(), payload_type.to_vec());
    SignedEnvelope::new(node(), domain, payload_type, payload.to_vec())
        .expect("Ed25519 signs anything")
        .into_protobuf_encoding()
}

/// What is accepted makes sense, and says the same when it is signed again.
fn announced(bytes: &[u8], key: &RecordKey) {
    let Ok(verified) = announcement::verify(bytes, key, NOW) else {
        return;
    };
    let body = verified.signed().body();
    let offers = verified.offers(None);
    if let Statement::Serves(service) = &body.statement {
        assert_eq!(offers.len(), service.endpoints.len());
        assert!(
            offers
                .iter()
                .all(|offer| offer.price.is_free() || offer.wallet.is_some())
        );
    } else {
        assert!(offers.is_empty());
    }
    match announcement::sign(body, node(), NOW) {
        Ok(again) => assert_eq!(again.body(), body),
        // Coverage that came in slices may be longer in runs.
        Err(RecordError::TooLarge { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(key) = RecordKey::parse(bytes) {
        assert_eq!(key.to_bytes(), bytes);
    }
    // The first field of a payload is the cid.
    let cid: Option<[u8; 32]> = bytes.get(2..34).and_then(|cid| cid.try_into().ok());
    let key = RecordKey::Cid(Cid::from_bytes(cid.unwrap_or_default()));
    announced(bytes, &key);
    let signed = sealed(DOMAIN, PAYLOAD_TYPE, bytes);
    announced(&signed, &key);

    let peer = node().public().to_peer_id();
    let record = sealed("chiral-node", b"/chiral/node/1", bytes);
    let _ = NodeRecord::verify(&record, &peer, NOW);

    let clock = Arc::new(|| NOW);
    let mut store = ChiralStore::new(peer, [1; 32], StoreLimits::default(), clock);
    let mut reader = Reader::new(key, NOW);
    // A set of one member has its tag and length before it.
    let mut alone = vec![0x0a];
    let mut len = signed.len();
    while len >= 0x80 {
        alone.push(len as u8 | 0x80);
        len >>= 7;
    }
    alone.push(len as u8);
    alone.extend(&signed);
    for value in [bytes, &alone] {
        let decoded = SeederSet::decode(value, &key, NOW);
        let put = store.put_record(&key.to_bytes(), value, false);
        assert_eq!(decoded.is_ok(), put.is_ok());
        let _ = reader.add(value);
    }
    let held = store.record(&key).map_or(0, |record| {
        let set = SeederSet::decode(&record.value, &key, NOW);
        set.expect("what is answered is valid").len()
    });
    assert_eq!(held, store.len());
    assert!(reader.len() >= held);
    if let RecordKey::Cid(cid) = key {
        let _ = reader.offers(&ProviderQuery::new(cid.into()), 0);
    }
});
