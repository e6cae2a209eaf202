//! The reader: one honest copy is enough, and no number of dishonest ones is.

use std::collections::BTreeSet;

use chiral_core::conformance::peer_directory::{header, offer};
use chiral_core::peer_directory::MAX_OFFERS;
use chiral_core::{FileIdentification, PeerOffer, Protocol, ProviderQuery};
use chiral_dht::records::reader::{MAX_COPIES, MAX_POINTERS};
use chiral_dht::records::{Reader, RecordError, RecordKey};
use prost::Message;

use crate::nodes::{NOW, SECOND, Set, announced, key, paid, peer, publish, united, withdrawn};

fn query(name: &str) -> ProviderQuery {
    ProviderQuery::new(header(name).cid.into())
}

fn reader(copies: &[Vec<u8>]) -> Reader {
    let mut reader = Reader::new(key("a"), NOW);
    for copy in copies {
        let _ = reader.add(copy);
    }
    reader
}

fn by(offers: &[PeerOffer], number: u64) -> usize {
    let id = chiral_core::PeerId::from_bytes(&peer(number).to_bytes()).unwrap();
    let own = offers.iter().filter(|o| o.peer.as_ref() == Some(&id));
    own.count()
}

#[test]
fn copies_are_united_and_what_is_invalid_in_them_is_passed_over() {
    let mut forged = announced(6, "a", NOW, 60);
    let at = forged.len() / 2;
    forged[at] ^= 1;
    let mixed = [
        announced(4, "a", NOW, 60),
        announced(5, "b", NOW, 60),
        announced(7, "a", NOW - SECOND * 61, 60),
    ];
    let mut sets = vec![announced(1, "a", NOW, 60), announced(2, "a", NOW, 60)];
    sets.extend(mixed);
    sets.extend([
        forged,
        vec![],
        b"garbage".to_vec(),
        announced(1, "a", NOW, 60),
    ]);
    let offers = reader(&sets).offers(&query("a"), 0);
    assert_eq!(offers.len(), 3);
    for number in [1, 2, 4] {
        assert_eq!(by(&offers, number), 1);
    }
    assert!(offers.iter().all(|offer| offer.header == Some(header("a"))));
}

#[test]
fn of_a_copy_with_a_bad_member_the_good_ones_count() {
    let mut set = Set::decode(&announced(1, "a", NOW, 60)[..]).unwrap();
    let foreign = Set::decode(&announced(2, "b", NOW, 60)[..]).unwrap();
    set.announcements.extend(foreign.announcements);
    set.announcements.push(b"garbage".to_vec());
    set.headers.push(b"no header".to_vec());
    let mut reader = Reader::new(key("a"), NOW);
    assert_eq!(reader.add(&set.encode_to_vec()), Ok(2));
    assert_eq!(by(&reader.offers(&query("a"), 0), 1), 1);
    assert_eq!(reader.len(), 1);
}

#[test]
fn the_newest_in_any_copy_holds() {
    let old = announced(1, "a", NOW - SECOND * 5, 600);
    let new = publish(1, "a", vec![offer(Protocol::Ed2k, 1)], NOW, 600);
    let new = new.records[0].1.clone();
    for copies in [[old.clone(), new.clone()], [new, old.clone()]] {
        let offers = reader(&copies).offers(&query("a"), 0);
        assert_eq!(offers.len(), 1);
        assert_eq!(offers[0].protocol, Protocol::Ed2k);
    }
    let gone = withdrawn(1, "a", NOW, 600);
    let mut copies = vec![old; 19];
    copies.push(gone);
    let reader = reader(&copies);
    assert_eq!(reader.len(), 1);
    assert_eq!(reader.offers(&query("a"), 0), []);
}

#[test]
fn only_protocols_root_and_size_that_are_asked_for_are_answered() {
    let offers = vec![
        offer(Protocol::Http, 1),
        offer(Protocol::BitTorrent, 2),
        paid(3, 7),
    ];
    let mut liar = header("a");
    liar.root = header("b").root;
    liar.size += 1;
    let lie = chiral_core::Announcement::new(liar.clone(), vec![offer(Protocol::Http, 9)]);
    let lie =
        chiral_dht::records::Publication::announce(&crate::nodes::node(2), None, &lie, 1, NOW);
    let copies = [
        publish(1, "a", offers, NOW, 60).records.swap_remove(0).1,
        lie.unwrap().records.swap_remove(0).1,
    ];
    let reader = reader(&copies);
    let mut asked = query("a");
    assert_eq!(reader.offers(&asked, 0).len(), 4);
    asked.protocols = vec![Protocol::BitTorrent];
    assert_eq!(reader.offers(&asked, 0).len(), 1);
    asked.protocols = vec![Protocol::Ed2k];
    assert_eq!(reader.offers(&asked, 0), []);
    let honest = header("a");
    for (root, size) in [(Some(honest.root), None), (None, Some(honest.size))] {
        let cid = honest.cid;
        let target = FileIdentification::Content { cid, root, size };
        let found = reader.offers(&ProviderQuery::new(target), 0);
        assert_eq!((found.len(), by(&found, 2)), (3, 0));
    }
    let found = reader.offers(&ProviderQuery::new(FileIdentification::Root(liar.root)), 0);
    assert_eq!((found.len(), by(&found, 2)), (1, 1));
}

#[test]
fn every_peer_has_a_place_before_any_has_a_second_one() {
    let two = |i: u64| {
        vec![
            offer(Protocol::Http, i as u16),
            offer(Protocol::Ed2k, i as u16),
        ]
    };
    let copies: Vec<_> = (0..MAX_OFFERS as u64 + 10)
        .map(|i| publish(i, "a", two(i), NOW, 60).records.swap_remove(0).1)
        .collect();
    let mut reader = Reader::new(key("a"), NOW);
    for part in copies.chunks(16) {
        assert_eq!(reader.add(&united(part)), Ok(0));
    }
    assert_eq!(reader.len(), copies.len());
    let mut first = BTreeSet::new();
    for turn in 0..8 {
        let answer = reader.offers(&query("a"), turn);
        assert_eq!(answer.len(), MAX_OFFERS);
        let peers: BTreeSet<_> = answer.iter().map(|offer| &offer.peer).collect();
        assert_eq!(peers.len(), MAX_OFFERS);
        first.insert(answer[0].peer.clone());
    }
    assert!(first.len() > 4, "others are first each time: {first:?}");
    let few = self::reader(&copies[..MAX_COPIES]).offers(&query("a"), 0);
    assert_eq!(
        few.len(),
        2 * MAX_COPIES,
        "there is a second place for each"
    );
}

#[test]
fn no_more_copies_are_read_than_there_can_be() {
    let mut reader = Reader::new(key("a"), NOW);
    for _ in 0..MAX_COPIES {
        reader.add(&announced(1, "a", NOW, 60)).unwrap();
    }
    let one_more = reader.add(&announced(2, "a", NOW, 60));
    assert_eq!(one_more, Err(RecordError::Full { what: "copies" }));
    assert_eq!(reader.len(), 1);
}

#[test]
fn names_lead_to_files_and_the_one_with_most_pointers_is_first() {
    let honest = header("a");
    let name = RecordKey::Alias(honest.aliases[0]);
    let mut reader = Reader::new(name, NOW);
    let pointer = |number: u64, header: &chiral_core::ManifestHeader| {
        let announcement =
            chiral_core::Announcement::new(header.clone(), vec![offer(Protocol::Http, 1)]);
        let node = crate::nodes::node(number);
        let published =
            chiral_dht::records::Publication::announce(&node, None, &announcement, 1, NOW);
        let records = published.unwrap().records;
        records.into_iter().find(|(key, _)| *key == name).unwrap().1
    };
    for number in 0..3 {
        reader.add(&pointer(number, &honest)).unwrap();
    }
    for number in 3..20 {
        let mut liar = header(&number.to_string());
        liar.aliases = honest.aliases.clone();
        reader.add(&pointer(number, &liar)).unwrap();
    }
    let files = reader.files();
    assert_eq!(files.len(), MAX_POINTERS);
    let expected = FileIdentification::Content {
        cid: honest.cid,
        root: Some(honest.root),
        size: Some(honest.size),
    };
    assert_eq!(files[0], expected);
    assert_eq!(
        reader.offers(&ProviderQuery::new(honest.aliases[0].into()), 0),
        []
    );
    assert_eq!(
        RecordKey::all(&honest).nth(1),
        Some(RecordKey::Root(honest.root))
    );
}
