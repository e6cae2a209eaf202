//! The architecture's tables, their boundaries, and that nothing is chosen that is not there.

use super::*;
use Protocol::{BitTorrent, Ed2k, Http, Private, WebTorrent};
use proptest::prelude::*;

const ALL: [Protocol; 5] = [Http, BitTorrent, WebTorrent, Ed2k, Private];

fn context(seeders: &[(Protocol, usize)]) -> DownloadContext {
    DownloadContext {
        seeders: seeders.iter().cloned().collect(),
        ..DownloadContext::default()
    }
}

fn first(context: &DownloadContext) -> Option<Protocol> {
    downloading(context, &ALL).first().cloned()
}

#[test]
fn a_public_node_seeds_over_http_one_behind_nat_over_webtorrent_or_as_configured() {
    let default = |context: &SeedingContext| seeding(context, &ALL).first().cloned();
    let mut nat = SeedingContext::new(Reachability::BehindNat);
    assert_eq!(
        default(&SeedingContext::new(Reachability::Public)),
        Some(Http)
    );
    assert_eq!(default(&nat), Some(WebTorrent));
    assert_eq!(seeding(&nat, &ALL).last(), Some(&Http));
    nat.behind_nat = BitTorrent;
    assert_eq!(default(&nat), Some(BitTorrent));
    nat.preference = Some(Ed2k);
    assert_eq!(seeding(&nat, &ALL)[..2], [Ed2k, BitTorrent]);
}

#[test]
fn a_browser_seeds_over_webtorrent_and_nothing_else() {
    let mut browser = SeedingContext::new(Reachability::Browser);
    browser.preference = Some(Http);
    assert_eq!(seeding(&browser, &ALL), [WebTorrent]);
    assert_eq!(seeding(&browser, &[Http, BitTorrent]), []);
}

#[test]
fn the_default_is_the_next_best_if_it_is_not_registered() {
    let nat = SeedingContext::new(Reachability::BehindNat);
    assert_eq!(seeding(&nat, &[Http, BitTorrent]), [BitTorrent, Http]);
    assert_eq!(seeding(&nat, &[Http]), [Http]);
    let public = SeedingContext::new(Reachability::Public);
    assert_eq!(
        seeding(&public, &[WebTorrent, BitTorrent]),
        [BitTorrent, WebTorrent]
    );
    assert_eq!(seeding(&public, &[]), []);
}

#[test]
fn a_large_file_with_many_bittorrent_seeders_comes_over_bittorrent() {
    let with = |size, seeders| DownloadContext {
        size,
        ..context(&[(Http, 3), (BitTorrent, seeders)])
    };
    assert_eq!(
        first(&with(Some(LARGE_FILE + 1), MANY_SEEDERS + 1)),
        Some(BitTorrent)
    );
    assert_eq!(first(&with(Some(LARGE_FILE), MANY_SEEDERS + 1)), Some(Http));
    assert_eq!(first(&with(Some(LARGE_FILE + 1), MANY_SEEDERS)), Some(Http));
    assert_eq!(first(&with(None, MANY_SEEDERS + 1)), Some(Http));
    assert_eq!((LARGE_FILE, MANY_SEEDERS), (100_000_000, 5));
}

#[test]
fn the_preference_comes_first_where_somebody_serves_it_and_is_passed_over_elsewhere() {
    let mut context = context(&[(Http, 1), (BitTorrent, 9), (Ed2k, 1)]);
    context.size = Some(1 << 30);
    context.preference = Some(Ed2k);
    assert_eq!(downloading(&context, &ALL), [Ed2k, BitTorrent, Http]);
    context.preference = Some(WebTorrent);
    assert_eq!(downloading(&context, &ALL), [BitTorrent, Http, Ed2k]);
    assert_eq!(downloading(&context, &[Http, Ed2k]), [Http, Ed2k]);
}

#[test]
fn a_browser_downloads_over_webtorrent_if_anybody_serves_it() {
    let mut context = context(&[(Http, 5), (WebTorrent, 1)]);
    context.browser = true;
    context.preference = Some(Http);
    assert_eq!(downloading(&context, &ALL), [WebTorrent]);
    context.seeders.remove(&WebTorrent);
    assert_eq!(downloading(&context, &ALL), []);
}

#[test]
fn http_is_first_in_open_and_in_restricted_networks_but_not_without_seeders() {
    for restricted in [false, true] {
        let with = |seeders: &[(Protocol, usize)]| DownloadContext {
            restricted,
            ..context(seeders)
        };
        assert_eq!(first(&with(&[(Http, 1), (WebTorrent, 40)])), Some(Http));
        // The architecture's function would answer HTTP here, over which nobody serves.
        assert_eq!(
            first(&with(&[(Http, 0), (WebTorrent, 40)])),
            Some(WebTorrent)
        );
    }
    assert_eq!(first(&context(&[])), None);
}

#[test]
fn a_restricted_network_is_left_to_http_the_swarm_and_the_preference_if_http_is_served() {
    let seeders = |http, torrent| DownloadContext {
        size: Some(LARGE_FILE + 1),
        ..context(&[
            (Http, http),
            (BitTorrent, torrent),
            (WebTorrent, 40),
            (Ed2k, 1),
        ])
    };
    let restricted = |context: DownloadContext| DownloadContext {
        restricted: true,
        ..context
    };
    let some = seeders(1, MANY_SEEDERS);
    assert_eq!(
        downloading(&some, &ALL),
        [Http, WebTorrent, BitTorrent, Ed2k]
    );
    assert_eq!(downloading(&restricted(some.clone()), &ALL), [Http]);
    let many = seeders(1, MANY_SEEDERS + 1);
    assert_eq!(downloading(&restricted(many), &ALL), [BitTorrent, Http]);
    let preferring = DownloadContext {
        preference: Some(Ed2k),
        ..some.clone()
    };
    assert_eq!(downloading(&restricted(preferring), &ALL), [Ed2k, Http]);
    // HTTP that nobody serves, or that is not registered, shuts nothing out.
    let without = seeders(0, MANY_SEEDERS);
    assert_eq!(
        downloading(&restricted(without), &ALL),
        [WebTorrent, BitTorrent, Ed2k]
    );
    assert_eq!(
        downloading(&restricted(some), &[WebTorrent, Ed2k]),
        [WebTorrent, Ed2k]
    );
}

#[test]
fn the_rest_goes_by_what_seeders_may_deliver_together() {
    let mut context = context(&[(WebTorrent, 4), (Ed2k, 3), (Private, 2)]);
    assert_eq!(downloading(&context, &ALL), [WebTorrent, Ed2k, Private]);
    // One that was not measured counts as the average of those that were.
    context.rates = BTreeMap::from([(WebTorrent, 100), (Private, 900)]);
    assert_eq!(downloading(&context, &ALL), [Private, Ed2k, WebTorrent]);
    context.rates = BTreeMap::from([(WebTorrent, 0), (Ed2k, u64::MAX), (Private, u64::MAX)]);
    assert_eq!(downloading(&context, &ALL), [Ed2k, Private, WebTorrent]);
}

#[test]
fn what_offers_say_is_counted() {
    use chiral_core::{ContentIdentity, Endpoint, ManifestHeader};
    let identity = ContentIdentity::of(b"abc").unwrap();
    let mut offers: Vec<_> = ["a", "b", "c"]
        .map(|place| PeerOffer::new(Http, Endpoint::new(place).unwrap()))
        .into();
    offers[2].protocol = BitTorrent;
    offers[1].header = Some(ManifestHeader {
        size: identity.size,
        cid: identity.cid,
        root: identity.root,
        name: None,
        mime: None,
        created_at: 0,
        aliases: Vec::new(),
    });
    let context = DownloadContext::of(&offers);
    assert_eq!(
        context.seeders,
        BTreeMap::from([(Http, 2), (BitTorrent, 1)])
    );
    assert_eq!(context.size, Some(3));
}

fn protocols() -> impl Strategy<Value = Vec<Protocol>> {
    proptest::collection::vec(proptest::sample::select(&ALL[..]), 0..8)
}

proptest! {
    /// Nothing is chosen twice, nor without being registered and served.
    #[test]
    fn only_what_is_there_is_chosen(
        registered in protocols(),
        served in proptest::collection::btree_map(
            proptest::sample::select(&ALL[..]), 0..20usize, 0..5),
        rates in proptest::collection::btree_map(
            proptest::sample::select(&ALL[..]), any::<u64>(), 0..5),
        preference in proptest::option::of(proptest::sample::select(&ALL[..])),
        size in proptest::option::of(any::<u64>()),
        (browser, restricted) in any::<(bool, bool)>(),
        reachability in proptest::sample::select(
            &[Reachability::Public, Reachability::BehindNat, Reachability::Browser][..]),
    ) {
        let context = DownloadContext {
            browser, preference: preference.clone(), size, restricted, seeders: served, rates,
        };
        let chosen = downloading(&context, &registered);
        let mut there: Vec<_> = registered.iter().collect();
        there.sort();
        there.dedup();
        let usable = |p: &&&Protocol| {
            context.count(p) > 0 && (!browser || ***p == WebTorrent)
        };
        let usable: Vec<_> = there.iter().filter(usable).collect();
        let left_to_http = restricted && !browser && usable.iter().any(|p| ***p == Http);
        prop_assert!(chosen.len() <= usable.len());
        prop_assert!(left_to_http || chosen.len() == usable.len());
        prop_assert!(!left_to_http || chosen.contains(&Http));
        for protocol in &chosen {
            prop_assert!(registered.contains(protocol) && context.count(protocol) > 0);
            prop_assert_eq!(chosen.iter().filter(|other| *other == protocol).count(), 1);
        }
        let seeding_context = SeedingContext {
            preference, ..SeedingContext::new(reachability)
        };
        for protocol in seeding(&seeding_context, &registered) {
            prop_assert!(registered.contains(&protocol));
        }
    }
}
