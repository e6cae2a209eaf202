//! The store: a put adds what is valid, or changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chiral_core::Protocol;
use chiral_core::ProviderQuery;
use chiral_core::conformance::peer_directory::{header, offer};
use chiral_dht::records::key::provider_key;
use chiral_dht::records::set::{MAX_ANNOUNCEMENTS, MAX_VALUE_LEN};
use chiral_dht::records::{ChiralStore, Reader, RecordError, RecordKey, StoreLimits};
use libp2p::PeerId;
use libp2p::kad::store::RecordStore;
use libp2p::kad::{KBucketKey, ProviderRecord, Record};
use proptest::prelude::*;
use prost::Message;

use crate::nodes::{NOW, SECOND, Set, announced, key, paid, peer, publish, united, withdrawn};

/// The number of the node whose store it is.
const OWN: u64 = 9999;

struct Store {
    store: ChiralStore,
    seconds: Arc<AtomicU64>,
}

impl Store {
    fn new(limits: StoreLimits) -> Self {
        let seconds = Arc::new(AtomicU64::new(NOW.as_secs()));
        let clock = seconds.clone();
        let clock = Arc::new(move || Duration::from_secs(clock.load(Ordering::Relaxed)));
        Self {
            store: ChiralStore::new(peer(OWN), [3; 32], limits, clock),
            seconds,
        }
    }

    fn advance(&self, by: Duration) {
        self.seconds.fetch_add(by.as_secs(), Ordering::Relaxed);
    }

    fn put(&mut self, key: &RecordKey, value: &[u8]) -> Result<(), RecordError> {
        self.store.put_record(&key.to_bytes(), value, false)
    }

    fn value(&self, key: &RecordKey) -> Option<Vec<u8>> {
        let record = self.store.get(&key.to_kad())?;
        assert!(record.value.len() <= MAX_VALUE_LEN);
        Some(record.value.clone())
    }

    /// The seeders that somebody who gets the record sees.
    fn seen(&self, name: &str) -> Vec<PeerId> {
        let now = Duration::from_secs(self.seconds.load(Ordering::Relaxed));
        let mut reader = Reader::new(key(name), now);
        if let Some(value) = self.value(&key(name)) {
            assert_eq!(reader.add(&value), Ok(0), "only what is valid is answered");
        }
        let offers = reader.offers(&ProviderQuery::new(header(name).cid.into()), 0);
        let peers = offers.into_iter().filter_map(|offer| offer.peer);
        peers
            .map(|id| PeerId::from_bytes(id.as_bytes()).unwrap())
            .collect()
    }
}

fn limits(change: impl FnOnce(&mut StoreLimits)) -> Store {
    let mut limits = StoreLimits::default();
    change(&mut limits);
    Store::new(limits)
}

#[test]
fn announcements_of_many_are_merged_in_any_order() {
    let values: Vec<_> = (0..30).map(|i| announced(i, "a", NOW, 60)).collect();
    let (mut one, mut other) = (limits(|_| ()), limits(|_| ()));
    for value in &values {
        one.put(&key("a"), value).unwrap();
    }
    for value in values.iter().rev().chain(&values[7..9]) {
        other.put(&key("a"), value).unwrap();
    }
    assert_eq!(one.seen("a").len(), 30);
    assert_eq!(one.value(&key("a")), other.value(&key("a")));
    // A whole copy is merged as well.
    let mut third = limits(|_| ());
    third.put(&key("a"), &announced(77, "a", NOW, 60)).unwrap();
    third
        .put(&key("a"), &one.value(&key("a")).unwrap())
        .unwrap();
    assert_eq!(third.seen("a").len(), 31);
}

#[test]
fn what_is_refused_changes_nothing() {
    let mut store = limits(|_| ());
    for i in 0..5 {
        store.put(&key("a"), &announced(i, "a", NOW, 60)).unwrap();
    }
    let old = announced(1, "a", NOW - SECOND, 3600);
    let before = store.value(&key("a")).unwrap();
    let good = announced(6, "a", NOW, 60);
    let mut forged = good.clone();
    let end = forged.len() - 1;
    forged[end] ^= 1;
    let mixed = united(&[announced(7, "a", NOW, 60), announced(8, "b", NOW, 60)]);
    let mut header_only = Set::decode(&good[..]).unwrap();
    header_only.announcements.clear();
    let header_only = header_only.encode_to_vec();
    for (what, value) in [
        ("empty", vec![]),
        ("garbage", vec![0xff; 100]),
        ("forged", forged),
        ("of another file", announced(6, "b", NOW, 60)),
        ("one of another file among others", mixed),
        ("a header without an announcement", header_only),
        ("a replay", old),
        ("expired", announced(6, "a", NOW - SECOND * 61, 60)),
        ("from the future", announced(6, "a", NOW + SECOND * 601, 60)),
        ("cut", good[..good.len() / 2].to_vec()),
        ("oversized", vec![0; MAX_VALUE_LEN + 1]),
    ] {
        let result = store.put(&key("a"), &value);
        assert!(result.is_err(), "{what} was taken");
        assert_eq!(store.value(&key("a")).unwrap(), before, "{what}");
        let mut record = Record::new(key("a").to_kad(), value);
        for publisher in [None, Some(peer(6)), Some(peer(1))] {
            record.publisher = publisher;
            assert!(store.store.put(record.clone()).is_err(), "{what}");
        }
    }
    for bad_key in ["", "/chiral/", "/pk/abc", "/chiral/btih:00"] {
        let result = store.store.put_record(bad_key.as_bytes(), &good, false);
        assert_eq!(result, Err(RecordError::Key));
    }
    assert_eq!(store.store.len(), 1);
    store
        .put(&key("a"), &before)
        .expect("what is held may be put again");
    store.store.remove(&key("a").to_kad());
    assert_eq!(
        store.value(&key("a")).unwrap(),
        before,
        "nobody removes a record"
    );
}

#[test]
fn the_newest_of_a_peer_holds_and_a_replay_is_stale() {
    let mut store = limits(|_| ());
    let first = announced(1, "a", NOW, 3600);
    let dearer = publish(1, "a", vec![paid(1, 500)], NOW + SECOND, 3600);
    let dearer = &dearer.records[0].1;
    store.put(&key("a"), &first).unwrap();
    store.put(&key("a"), dearer).unwrap();
    assert_eq!(store.put(&key("a"), &first), Err(RecordError::Stale));
    assert_eq!(store.value(&key("a")).as_ref(), Some(dearer));
}

#[test]
fn a_withdrawal_is_seen_at_once_and_outlives_the_announcement() {
    let mut store = limits(|_| ());
    let announcement = announced(1, "a", NOW, 600);
    store.put(&key("a"), &announcement).unwrap();
    store.put(&key("a"), &announced(2, "a", NOW, 600)).unwrap();
    store.advance(SECOND);
    // Said to be kept for a minute only: it is kept as long as it is needed.
    store
        .put(&key("a"), &withdrawn(1, "a", NOW + SECOND, 60))
        .unwrap();
    assert_eq!(store.seen("a"), [peer(2)]);
    for _ in 0..9 {
        store.advance(SECOND * 60);
        assert_eq!(store.put(&key("a"), &announcement), Err(RecordError::Stale));
        assert_eq!(store.seen("a"), [peer(2)]);
    }
    store.advance(SECOND * 60);
    let result = store.put(&key("a"), &announcement);
    assert!(
        matches!(result, Err(RecordError::Expired { .. })),
        "{result:?}"
    );
    assert_eq!((store.store.len(), store.store.bytes()), (0, 0));
    let back = announced(1, "a", NOW + SECOND * 601, 600);
    store.put(&key("a"), &back).unwrap();
    assert_eq!(store.seen("a"), [peer(1)]);
}

#[test]
fn a_vanished_seeder_is_not_answered_after_its_time() {
    let mut store = limits(|_| ());
    store.put(&key("a"), &announced(1, "a", NOW, 3)).unwrap();
    store.put(&key("a"), &announced(2, "a", NOW, 60)).unwrap();
    store.put(&key("b"), &announced(1, "b", NOW, 3)).unwrap();
    store.advance(SECOND * 2);
    assert_eq!(store.seen("a").len(), 2);
    store.advance(SECOND);
    assert_eq!(store.seen("a"), [peer(2)]);
    assert_eq!(store.value(&key("b")), None);
    assert_eq!(store.store.records().count(), 1);
    store.store.expire();
    assert_eq!(store.store.len(), 1);
}

#[test]
fn what_this_node_publishes_is_its_own_alone() {
    let mut store = limits(|_| ());
    let own = publish(OWN, "a", vec![offer(Protocol::Http, 1)], NOW, 60);
    let mut record = Record::new(key("a").to_kad(), own.records[0].1.clone());
    record.publisher = Some(peer(OWN));
    store.store.put(record.clone()).unwrap();
    record.value = announced(1, "a", NOW, 60);
    assert!(
        store.store.put(record.clone()).is_err(),
        "another's as ours"
    );
    let both = united(&[own.records[0].1.clone(), announced(1, "a", NOW, 60)]);
    let result = store.store.put_record(&key("a").to_bytes(), &both, true);
    assert_eq!(result, Err(RecordError::Foreign));
    store.put(&key("a"), &announced(1, "a", NOW, 60)).unwrap();
    assert_eq!(store.seen("a").len(), 2);
}

#[test]
fn a_flooded_key_keeps_its_bound_and_ones_own_announcement() {
    let mut store = limits(|_| ());
    let own = publish(OWN, "a", vec![offer(Protocol::Http, 1)], NOW, 60);
    store
        .store
        .put_record(&key("a").to_bytes(), &own.records[0].1, true)
        .unwrap();
    let (mut taken, mut full) = (0, 0);
    for i in 0..300 {
        match store.put(&key("a"), &announced(i, "a", NOW, 60)) {
            Ok(()) => taken += 1,
            Err(RecordError::Full { .. }) => full += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(
        taken >= MAX_ANNOUNCEMENTS - 40 && full > 50,
        "{taken} {full}"
    );
    let seen = store.seen("a");
    assert!(
        seen.len() <= MAX_ANNOUNCEMENTS && seen.len() > 80,
        "{}",
        seen.len()
    );
    assert!(seen.contains(&peer(OWN)));
}

#[test]
fn limits_hold_for_others_and_not_for_what_this_node_publishes() {
    let full = |result| {
        assert!(
            matches!(result, Err(RecordError::Full { .. })),
            "{result:?}"
        )
    };
    let mut store = limits(|limits| {
        limits.keys = 3;
        limits.keys_per_peer = 2;
    });
    // The one that is wanted where there is no room is the farthest away.
    let names = by_distance(["a", "b", "c", "d"].map(str::to_owned).into());
    let [a, b, c, d] = [0, 1, 2, 3].map(|at| names[at].as_str());
    store.put(&key(a), &announced(1, a, NOW, 60)).unwrap();
    store.put(&key(b), &announced(1, b, NOW, 60)).unwrap();
    full(store.put(&key(c), &announced(1, c, NOW, 60)));
    store
        .put(&key(b), &announced(1, b, NOW + SECOND, 60))
        .unwrap();
    store.put(&key(c), &announced(2, c, NOW, 60)).unwrap();
    full(store.put(&key(d), &announced(2, d, NOW, 60)));
    let own = publish(OWN, d, vec![offer(Protocol::Http, 1)], NOW, 60);
    store
        .store
        .put_record(&key(d).to_bytes(), &own.records[0].1, true)
        .unwrap();
    store.advance(SECOND * 61);
    store
        .put(&key(d), &announced(2, d, NOW + SECOND * 61, 60))
        .unwrap();

    let mut small = limits(|limits| limits.bytes = 1000);
    small.put(&key("a"), &announced(1, "a", NOW, 60)).unwrap();
    let held = small.store.bytes();
    full((2..9).try_for_each(|i| small.put(&key("a"), &announced(i, "a", NOW, 60))));
    assert!(small.store.bytes() <= 1000 && small.store.bytes() > held);
}

#[test]
fn providing_for_others_does_not_get_in_the_way_of_ones_own() {
    let mut store = limits(|limits| {
        limits.provider_keys = 2;
        limits.providers_per_key = 3;
        limits.provider_keys_per_peer = 2;
    });
    let of = |name: &str, by: u64| {
        ProviderRecord::new(provider_key(header(name).cid), peer(by), Vec::new())
    };
    for i in 0..10 {
        let _ = store.store.add_provider(of("a", i));
    }
    assert_eq!(store.store.providers(&of("a", 0).key).len(), 3);
    store.store.add_provider(of("b", 42)).unwrap();
    assert_eq!(store.store.providers(&of("b", 0).key).len(), 1);
    for name in ["a", "b", "c", "d"] {
        store.store.add_provider(of(name, OWN)).unwrap();
    }
    assert_eq!(store.store.provided().count(), 4);
    assert_eq!(store.store.providers(&of("a", 0).key).len(), 4);
    assert_eq!(store.store.providers(&of("c", 0).key).len(), 1);
    store.store.remove_provider(&of("c", 0).key, &peer(OWN));
    assert_eq!(store.store.provided().count(), 3);
    let strange = ProviderRecord::new(b"strange".to_vec(), peer(1), Vec::new());
    assert!(store.store.add_provider(strange).is_err());
    // Others' end, one's own does not.
    store.advance(SECOND * 3601);
    assert_eq!(store.store.providers(&of("a", 0).key).len(), 1);
    store.store.add_provider(of("c", 43)).unwrap();
    assert_eq!(store.store.providers(&of("c", 0).key).len(), 1);
}

/// These names, that of the key nearest to the store's node first.
fn by_distance(mut names: Vec<String>) -> Vec<String> {
    let own = KBucketKey::from(peer(OWN));
    names.sort_by_key(|name| own.distance(&KBucketKey::new(key(name).to_bytes())));
    names
}

#[test]
fn when_it_is_full_far_keys_give_way_to_near_ones_in_whatever_order_they_come() {
    let names = by_distance((0..60).map(|n| format!("file {n}")).collect());
    let size = {
        let mut one = limits(|_| ());
        one.put(&key(&names[0]), &announced(1, &names[0], NOW, 600))
            .unwrap();
        one.store.bytes()
    };
    for by_bytes in [false, true] {
        for seed in 0..4 {
            let mut store = limits(|limits| match by_bytes {
                true => limits.bytes = 10 * (size + 8),
                false => limits.keys = 10,
            });
            // One that this node publishes itself stays, though it is the farthest.
            let own = &names[59];
            let published = publish(OWN, own, vec![offer(Protocol::Http, 1)], NOW, 600);
            let value = &published.records[0].1;
            if !by_bytes {
                store
                    .store
                    .put_record(&key(own).to_bytes(), value, true)
                    .unwrap();
            }
            let mut order: Vec<usize> = (0..59).collect();
            order.sort_by_key(|n| (n * 7919 + seed * 31) % 61);
            for n in order {
                // Four peers or many: it makes no difference.
                let by = 1 + n as u64 % 4;
                let _ = store.put(&key(&names[n]), &announced(by, &names[n], NOW, 600));
            }
            let held = |n: &usize| store.value(&key(&names[*n])).is_some();
            let near: Vec<usize> = (0..59).filter(held).collect();
            assert_eq!(near, (0..near.len()).collect::<Vec<_>>(), "the nearest");
            assert!((9..=10).contains(&near.len()), "{near:?}");
            assert!(by_bytes || held(&59));
            store.advance(SECOND * 700);
            store.store.expire();
            assert_eq!((store.store.len(), store.store.bytes()), (0, 0));
        }
    }
}

#[test]
fn far_provider_records_give_way_to_near_ones() {
    let own = KBucketKey::from(peer(OWN));
    let of = |n: u64| {
        let key = provider_key(header(&format!("file {n}")).cid);
        ProviderRecord::new(key, peer(n % 4), Vec::new())
    };
    let mut all: Vec<u64> = (0..60).collect();
    all.sort_by_key(|n| own.distance(&KBucketKey::new(of(*n).key.to_vec())));
    for reversed in [false, true] {
        let mut store = limits(|limits| limits.provider_keys = 10);
        let order: Vec<u64> = match reversed {
            true => (0..60).rev().collect(),
            false => (0..60).collect(),
        };
        for n in order {
            let _ = store.store.add_provider(of(n));
        }
        let held = |n: &&u64| !store.store.providers(&of(**n).key).is_empty();
        let near: Vec<u64> = all.iter().filter(held).copied().collect();
        assert_eq!(near, all[..10]);
    }
}

#[test]
fn who_stays_among_providers_is_not_who_came_first() {
    let of = |by: u64| ProviderRecord::new(provider_key(header("a").cid), peer(by), Vec::new());
    let stay = |order: &mut dyn Iterator<Item = u64>| {
        let mut store = limits(|limits| limits.providers_per_key = 5);
        for i in order {
            let _ = store.store.add_provider(of(i));
        }
        let providers = store.store.providers(&of(0).key);
        let mut peers: Vec<_> = providers
            .into_iter()
            .map(|record| record.provider)
            .collect();
        peers.sort();
        peers
    };
    assert_eq!(stay(&mut (0..50)), stay(&mut (0..50).rev()));
}

#[derive(Clone, Debug)]
enum Step {
    Announce(u64, usize, u64),
    Withdraw(u64, usize),
    Wait(u64),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn counts_stay_right_and_time_empties_the_store(
        steps in proptest::collection::vec(
            prop_oneof![
                (0u64..5, 0usize..3, 1u64..100).prop_map(|(p, k, s)| Step::Announce(p, k, s)),
                (0u64..5, 0usize..3).prop_map(|(p, k)| Step::Withdraw(p, k)),
                (1u64..40).prop_map(Step::Wait),
            ],
            1..40,
        )
    ) {
        let mut store = limits(|limits| {
            limits.keys_per_peer = 2;
            limits.bytes = 2000;
        });
        let names = ["a", "b", "c"];
        for step in steps {
            let now = Duration::from_secs(store.seconds.load(Ordering::Relaxed));
            let _ = match step {
                Step::Announce(by, name, seconds) => {
                    store.put(&key(names[name]), &announced(by, names[name], now, seconds))
                }
                Step::Withdraw(by, name) => {
                    store.put(&key(names[name]), &withdrawn(by, names[name], now, 60))
                }
                Step::Wait(seconds) => {
                    store.advance(SECOND * seconds as u32);
                    Ok(())
                }
            };
            prop_assert!(store.store.bytes() <= 2000);
            prop_assert_eq!(store.store.is_empty(), store.store.bytes() == 0);
        }
        store.advance(SECOND * 200);
        store.store.expire();
        prop_assert_eq!((store.store.len(), store.store.bytes()), (0, 0));
        // Nothing is left of the counts by peer either.
        store.put(&key("a"), &announced(0, "a", NOW + SECOND * 2000, 60)).unwrap_err();
    }
}
