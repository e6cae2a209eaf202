use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn peer(key: u64) -> Candidate {
    Candidate {
        key,
        interested: true,
        fast_lane: false,
        gives: 0.0,
        gave: 0,
        got: 0,
        snubs: false,
    }
}

fn choker(slots: usize) -> Choker {
    Choker::new(
        ChokerConfig {
            slots,
            ..ChokerConfig::default()
        },
        Duration::ZERO,
    )
}

fn seconds(n: u64) -> Now {
    Duration::from_secs(n)
}

#[test]
fn who_gives_most_has_the_slots_and_one_goes_round() {
    let mut choker = choker(4);
    let peers: Vec<_> = (0..20)
        .map(|key| Candidate {
            gives: key as f64,
            ..peer(key)
        })
        .collect();
    let mut tried = BTreeSet::new();
    let mut state = 7u64;
    for second in (0..3000).step_by(10) {
        let chosen = choker.decide(seconds(second), false, &peers, |most| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as usize % most
        });
        assert_eq!(chosen.len(), 4);
        for best in 17..20 {
            assert!(chosen.contains(&best), "{chosen:?}");
        }
        tried.extend(chosen);
    }
    assert_eq!(tried.len(), 20);
}

#[test]
fn between_two_looks_nobody_loses_a_slot_and_a_free_one_is_given_at_once() {
    let mut choker = choker(3);
    let mut peers: Vec<_> = (0..6).map(peer).collect();
    let first = choker.decide(seconds(0), false, &peers, |_| 0);
    for peer in &mut peers {
        peer.gives = if first.contains(&peer.key) { 0.0 } else { 1e6 };
    }
    let second = choker.decide(seconds(5), false, &peers, |_| 0);
    let sorted = |list: &[u64]| list.iter().copied().collect::<BTreeSet<_>>();
    assert_eq!(sorted(&first), sorted(&second));
    peers.retain(|peer| peer.key != first[0]);
    assert_eq!(choker.decide(seconds(6), false, &peers, |_| 0).len(), 3);
    let third = choker.decide(seconds(10), false, &peers, |_| 0);
    assert!(third.iter().filter(|key| !first.contains(key)).count() >= 2);
}

#[test]
fn those_who_snub_come_last() {
    let mut choker = choker(2);
    let mut peers: Vec<_> = (0..3).map(peer).collect();
    peers[0].gives = 100.0;
    peers[0].snubs = true;
    peers[1].gives = 1.0;
    let chosen = choker.decide(seconds(0), false, &peers, |_| 0);
    assert_eq!(chosen[0], 1);
}

#[test]
fn a_seeder_lets_all_take_turns() {
    let mut choker = choker(3);
    let peers: Vec<_> = (0..10).map(peer).collect();
    let mut turns: BTreeMap<u64, u32> = BTreeMap::new();
    for second in (0..600).step_by(10) {
        for key in choker.decide(seconds(second), true, &peers, |_| 0) {
            *turns.entry(key).or_default() += 1;
        }
    }
    assert_eq!(turns.len(), 10);
    let (least, most) = (turns.values().min().unwrap(), turns.values().max().unwrap());
    assert!(most - least <= 6, "{turns:?}");
}

#[test]
fn the_fast_lane_leaves_the_public_its_floor_and_more_while_it_is_owed() {
    let fast = |key| Candidate {
        fast_lane: true,
        ..peer(key)
    };
    let mut peers: Vec<_> = (0..20).map(fast).chain((20..40).map(peer)).collect();
    for seeding in [true, false] {
        let mut choker = choker(8);
        let chosen = choker.decide(seconds(0), seeding, &peers, |_| 0);
        assert_eq!(chosen.len(), 8);
        assert_eq!(chosen.iter().filter(|key| **key >= 20).count(), 2);
    }
    // The public gave, and did not get as much.
    peers[30].gave = 1000;
    let chosen = choker(8).decide(seconds(0), true, &peers, |_| 0);
    assert_eq!(chosen.iter().filter(|key| **key >= 20).count(), 4);
    peers[31].got = 1000;
    let chosen = choker(8).decide(seconds(0), true, &peers, |_| 0);
    assert_eq!(chosen.iter().filter(|key| **key >= 20).count(), 2);
    // What nobody wants is not kept free.
    let chosen = choker(8).decide(seconds(0), true, &peers[..20], |_| 0);
    assert_eq!(chosen.len(), 8);
    let chosen = choker(8).decide(seconds(0), true, &peers[18..], |_| 0);
    assert_eq!(chosen.iter().filter(|key| **key >= 20).count(), 6);
}

proptest! {
    #[test]
    fn no_slot_is_given_twice_or_wasted_and_the_floor_holds(
        slots in 1usize..12,
        rounds in proptest::collection::vec(
            (0u64..60, any::<bool>(),
             proptest::collection::vec((any::<bool>(), any::<bool>(), 0u32..5, 0u64..9, 0u64..9, any::<bool>()), 0..30)),
            1..20),
    ) {
        let mut choker = choker(slots);
        let mut now = Duration::ZERO;
        let mut n = 0usize;
        for (pause, seeding, peers) in rounds {
            now += Duration::from_secs(pause);
            let peers: Vec<_> = peers.into_iter().enumerate().map(|(key, p)| Candidate {
                key: key as u64, interested: p.0, fast_lane: p.1, gives: p.2.into(), gave: p.3, got: p.4, snubs: p.5,
            }).collect();
            let chosen = choker.decide(now, seeding, &peers, |most| { n += 1; n % most });
            let set: BTreeSet<_> = chosen.iter().copied().collect();
            prop_assert_eq!(set.len(), chosen.len());
            let interested = |peer: &&Candidate| peer.interested;
            prop_assert_eq!(set.len(), slots.min(peers.iter().filter(interested).count()));
            let public = |peer: &&Candidate| peer.interested && !peer.fast_lane;
            let floor = choker.floor(&peers).min(peers.iter().filter(public).count());
            let got = peers.iter().filter(public).filter(|peer| set.contains(&peer.key)).count();
            prop_assert!(got >= floor, "{} of {}", got, floor);
            prop_assert!(peers.iter().all(|peer| peer.interested || !set.contains(&peer.key)));
        }
    }
}
