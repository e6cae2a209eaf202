use std::sync::OnceLock;

use chiral_core::conformance::peer_directory::{header, offer};
use chiral_core::{Announcement, Endpoint, Protocol};
use proptest::prelude::*;

use super::super::Publication;
use super::super::testing::{NOW, announced, key, node, withdrawn};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn decode(value: &[u8]) -> Result<SeederSet, RecordError> {
    SeederSet::decode(value, &key(), NOW)
}

fn wire(value: &[u8]) -> wire::SeederSet {
    wire::SeederSet::decode(value).unwrap()
}

/// Sets of one announcement: 5 peers, each with 4 announcements and a withdrawal.
fn pool() -> &'static [SeederSet] {
    static POOL: OnceLock<Vec<SeederSet>> = OnceLock::new();
    POOL.get_or_init(|| {
        let of = |peer: u64| {
            let mut values: Vec<_> = (0..4u16)
                .map(|i| announced(peer, NOW - SECOND * u32::from(i / 2), 100 + u64::from(i), i))
                .collect();
            values.push(withdrawn(peer, NOW, 90));
            values
        };
        let values = (0..5).flat_map(of);
        values.map(|value| decode(&value).unwrap()).collect()
    })
}

fn joined(picks: &[usize]) -> SeederSet {
    let mut set = SeederSet::new(key());
    for pick in picks {
        set.join(pool()[*pick].clone());
    }
    set
}

fn chooser<'a>(secret: &'a [u8; 32], key: &'a RecordKey) -> Chooser<'a> {
    Chooser {
        secret,
        own: node(0).public().to_peer_id(),
        key,
    }
}

proptest! {
    #[test]
    fn merging_does_not_depend_on_order_grouping_or_repetition(
        a in proptest::collection::vec(0usize..25, 0..12),
        b in proptest::collection::vec(0usize..25, 0..12),
        c in proptest::collection::vec(0usize..25, 0..12),
    ) {
        let (x, y, z) = (joined(&a), joined(&b), joined(&c));
        let join = |left: &SeederSet, right: &SeederSet| {
            let mut left = left.clone();
            left.join(right.clone());
            left
        };
        prop_assert_eq!(join(&x, &y), join(&y, &x));
        prop_assert_eq!(join(&join(&x, &y), &z), join(&x, &join(&y, &z)));
        prop_assert_eq!(join(&x, &x), x.clone());
        // What merging forgets beside: headers that no announcement names any more.
        let (secret, key) = ([1; 32], key());
        let merge = |left: &SeederSet, right: &SeederSet| {
            let mut left = left.clone();
            left.merge(right.clone(), &chooser(&secret, &key), NOW);
            left
        };
        let mut all = join(&join(&x, &y), &z);
        all.expire(NOW);
        prop_assert_eq!(&merge(&merge(&x, &y), &z), &all);
        prop_assert_eq!(&merge(&merge(&z, &y), &x), &all);
        prop_assert_eq!(&merge(&all, &y), &all);
        if !all.is_empty() {
            // What others read is what is held, whether or not replays are remembered.
            let read = decode(&all.encode(NOW)).unwrap();
            prop_assert_eq!(read.encode(NOW), all.encode(NOW));
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn a_changed_bit_is_refused(at in 0usize..10_000, bit in 0u8..8) {
        let mut value = announced(1, NOW, 100, 1);
        let at = at % value.len();
        value[at] ^= 1 << bit;
        prop_assert!(decode(&value).is_err(), "byte {}", at);
    }
}

#[test]
fn merging_a_withdrawal_forgets_the_header_that_it_leaves_unnamed() {
    // A reader refuses a set with a header that nobody names.
    let (secret, key) = ([1; 32], key());
    let mut set = decode(&announced(1, NOW - SECOND, 102, 2)).unwrap();
    let withdrawal = decode(&withdrawn(1, NOW, 90)).unwrap();
    set.merge(withdrawal, &chooser(&secret, &key), NOW);
    assert!(set.headers.is_empty());
    decode(&set.encode(NOW)).unwrap();
}

#[test]
fn one_bad_member_makes_all_of_a_set_refused() {
    let good = announced(1, NOW, 100, 1);
    let member = |value: &[u8]| wire(value).announcements.swap_remove(0);
    let mut changed = member(&announced(2, NOW, 100, 1));
    *changed.last_mut().unwrap() ^= 1;
    let mut two_of_one = wire(&good);
    two_of_one
        .announcements
        .push(member(&announced(1, NOW, 100, 2)));
    let mut with_forged = wire(&good);
    with_forged.announcements.push(changed);
    let mut unnamed = wire(&good);
    unnamed.headers.push(header("another").encode().unwrap());
    let mut twice = wire(&good);
    twice.headers.push(twice.headers[0].clone());
    let mut no_header = wire(&good);
    no_header.headers[0].truncate(20);
    let mut nobody = wire(&good);
    nobody.announcements.clear();
    for bad in [two_of_one, with_forged, unnamed, twice, no_header, nobody] {
        assert!(decode(&bad.encode_to_vec()).is_err(), "{bad:?}");
    }
    let mut unknown_field = good.clone();
    unknown_field.extend([0x18, 1]);
    assert!(decode(&unknown_field).is_err());
    let mut stripped = wire(&good);
    stripped.headers.clear();
    decode(&stripped.encode_to_vec()).expect("the header may be known from elsewhere");
    let mut none = SeederSet::new(key());
    assert!(decode(&none.encode(NOW)).is_err());
    none.join(decode(&good).unwrap());
    assert_eq!(none.encode(NOW), good);
}

#[test]
fn limits_are_checked_before_signatures() {
    let many = wire::SeederSet {
        announcements: vec![vec![1]; MAX_ANNOUNCEMENTS + 1],
        headers: Vec::new(),
    };
    let headers = wire::SeederSet {
        announcements: Vec::new(),
        headers: (0..=MAX_HEADERS as u8).map(|i| vec![i]).collect(),
    };
    let long = wire::SeederSet {
        announcements: Vec::new(),
        headers: vec![vec![0; MAX_HEADER_LEN + 1]],
    };
    let huge = wire::SeederSet {
        announcements: vec![vec![0; MAX_VALUE_LEN]],
        headers: Vec::new(),
    };
    for over in [many, headers, long, huge] {
        let result = decode(&over.encode_to_vec());
        assert!(
            matches!(result, Err(RecordError::TooLarge { .. })),
            "{result:?}"
        );
    }
}

#[test]
fn an_expired_announcement_is_passed_over_and_alone_it_is_refused() {
    let old = announced(1, NOW - SECOND * 100, 100, 1);
    let result = decode(&old);
    assert!(
        matches!(result, Err(RecordError::Expired { .. })),
        "{result:?}"
    );
    let mut both = wire(&old);
    both.announcements
        .extend(wire(&announced(2, NOW, 100, 2)).announcements);
    let set = decode(&both.encode_to_vec()).unwrap();
    assert_eq!(set.len(), 1);
    assert!(set.has(&node(2).public().to_peer_id()));
}

#[test]
fn what_was_replaced_cannot_be_replayed_until_it_would_have_expired() {
    let old = decode(&announced(1, NOW, 1000, 1)).unwrap();
    let late = NOW + SECOND;
    let gone = withdrawn(1, late, 60);
    let gone = SeederSet::decode(&gone, &key(), late).unwrap();
    let (secret, key) = ([1; 32], key());
    let mut set = old.clone();
    set.merge(gone, &chooser(&secret, &key), late);
    for at in [2, 60, 62, 999] {
        let now = NOW + SECOND * at;
        set.merge(old.clone(), &chooser(&secret, &key), now);
        assert!(set.makes_stale(&old), "after {at} s");
        assert_eq!(
            set.holds(now),
            at < 61,
            "the withdrawal is told others for a minute"
        );
    }
    assert_eq!(set.first_end(), Some(NOW.as_secs() + 1000));
    set.expire(NOW + SECOND * 1000);
    assert!(set.is_empty() && set.size() == 0);
}

/// A set with one announcement of `len` bytes or a little less, at an address.
fn padded(number: u64, address: String, len: usize) -> SeederSet {
    let fill = |i: usize, len: usize| {
        let endpoint = format!("http://192.0.2.1/{i}/{}", "x".repeat(len));
        let mut offer = offer(Protocol::Http, 1);
        offer.endpoint = Endpoint::new(endpoint).unwrap();
        offer
    };
    let mut first = offer(Protocol::Http, 1);
    first.endpoint = Endpoint::new(address).unwrap();
    let rest = (1..8).map(|i| fill(i, len / 8));
    let offers = std::iter::once(first).chain(rest.take_while(|_| len > 0));
    let mut header = header("file");
    header.name = Some(format!("{number}{}", "n".repeat(200)));
    let announcement = Announcement::new(header, offers.collect());
    let seq = NOW.as_millis() as u64;
    let records = Publication::announce(&node(number), None, &announcement, seq, NOW);
    decode(&records.unwrap().records[0].1).unwrap()
}

#[test]
fn a_flood_leaves_every_network_its_places_and_the_value_its_limit() {
    let (secret, key) = ([9; 32], key());
    let chooser = chooser(&secret, &key);
    let mut set = SeederSet::new(key);
    set.merge(padded(0, "http://10.0.0.1/".into(), 0), &chooser, NOW);
    for i in 1..=30u64 {
        set.merge(padded(i, format!("http://198.51.{i}.1/"), 0), &chooser, NOW);
    }
    for i in 100..400u64 {
        let len = if i % 2 == 0 { 1500 } else { 0 };
        let address = format!("http://203.0.113.{}/", i % 200);
        set.merge(padded(i, address, len), &chooser, NOW);
        assert!(set.len() <= MAX_ANNOUNCEMENTS && set.headers.len() <= MAX_HEADERS);
        let value = set.encode(NOW);
        assert!(value.len() <= MAX_VALUE_LEN, "{}", value.len());
    }
    for i in 0..=30 {
        assert!(
            set.has(&node(i).public().to_peer_id()),
            "{i} was crowded out"
        );
    }
    assert!(set.len() > 60, "{}", set.len());
    let read = decode(&set.encode(NOW)).unwrap();
    assert_eq!(read.len(), set.len());
}
