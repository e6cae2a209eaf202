//! One announcement: all that it says is under its signature, and nothing else is said.

use alloy_primitives::{Address, U256};
use chiral_core::conformance::peer_directory::{header, offer};
use chiral_core::conformance::wallet::{FixedKeySigner, high_s_twin};
use chiral_core::{
    Announcement, CHUNK_SIZE, ChunkRuns, Coverage, DirectoryError, Endpoint, PeerOffer, Price,
    Protocol,
};
use chiral_dht::records::announcement::{
    self, Body, DOMAIN, MAX_ANNOUNCEMENT_LEN, MAX_LIFETIME, MAX_SKEW, PAYLOAD_TYPE, ServedEndpoint,
    Service, Statement, next_seq, sign, verify,
};
use chiral_dht::records::{Publication, RecordError, RecordKey, SignedAnnouncement};
use libp2p::core::SignedEnvelope;
use libp2p::identity::Keypair;
use proptest::prelude::*;

use crate::nodes::{NOW, SECOND, key, node, paid, peer, wallet};

/// What node 1 says of the file "a": over HTTP, paid.
fn body() -> Body {
    let header = header("a");
    let offer = paid(1, 1_000_000);
    Body {
        key: key("a"),
        cid: header.cid,
        root: header.root,
        size: header.size,
        seq: next_seq(0, NOW),
        expires_at: NOW.as_secs() + 3600,
        statement: Statement::Serves(Service {
            endpoints: vec![ServedEndpoint {
                protocol: offer.protocol,
                endpoint: offer.endpoint,
                mirror: false,
                price: offer.price,
                coverage: Some(Coverage::Complete),
            }],
            wallet: Some(wallet(1)),
            header_digest: [7; 32],
        }),
    }
}

fn service(change: impl FnOnce(&mut Service)) -> Body {
    let mut body = body();
    let Statement::Serves(service) = &mut body.statement else {
        unreachable!("it serves");
    };
    change(service);
    body
}

fn signed() -> Vec<u8> {
    sign(&body(), &node(1), NOW).unwrap().as_bytes().to_vec()
}

/// The payload of an envelope, signed again by `signer` after a change.
fn resigned(signer: &Keypair, domain: &str, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let envelope = SignedEnvelope::from_protobuf_encoding(&signed()).unwrap();
    let (payload, _) = envelope
        .payload_and_signing_key(DOMAIN.to_owned(), PAYLOAD_TYPE)
        .unwrap();
    let mut payload = payload.to_vec();
    change(&mut payload);
    SignedEnvelope::new(signer, domain.to_owned(), PAYLOAD_TYPE.to_vec(), payload)
        .unwrap()
        .into_protobuf_encoding()
}

#[test]
fn all_that_is_said_comes_back() {
    let mut header = header("big");
    header.size = 1000 * CHUNK_SIZE;
    let mut dear = paid(1, 0);
    dear.price = Price::from_wei_per_mib(U256::MAX);
    dear.wallet = Some(wallet(1).wallet());
    dear.coverage = Some(Coverage::Complete);
    let mut part = paid(2, 5);
    part.protocol = "ipfs/1.0".parse().unwrap();
    part.wallet = dear.wallet;
    part.coverage = Some(Coverage::Partial(ChunkRuns::from_sorted([0, 1, 2, 7, 999])));
    let free = offer(Protocol::BitTorrent, 3);
    let mirror = offer(Protocol::Http, 4).as_mirror();
    let mut private = offer(Protocol::Private, 0);
    let multiaddr = format!("/ip4/192.0.2.1/udp/1/quic-v1/p2p/{}", peer(1));
    private.endpoint = Endpoint::new(multiaddr).unwrap();

    let offers = vec![dear, part, free, mirror, private];
    let announcement = Announcement::new(header.clone(), offers.clone());
    let published =
        Publication::announce(&node(1), Some(&wallet(1)), &announcement, 77, NOW).unwrap();
    assert_eq!(published.expires_at, NOW.as_secs() + 3600);
    let keys: Vec<_> = published.records.iter().map(|(key, _)| *key).collect();
    assert_eq!(keys, RecordKey::all(&header).collect::<Vec<_>>());
    assert_eq!(keys.len(), 5);

    let mut reader = chiral_dht::records::Reader::new(keys[0], NOW);
    assert_eq!(reader.add(&published.records[0].1), Ok(0));
    let verified = reader.announcements().next().unwrap().clone();
    let verified = verified.verify_wallet().unwrap();
    let expected: Vec<PeerOffer> = offers
        .into_iter()
        .map(|mut offer| {
            let id = chiral_core::PeerId::from_bytes(&peer(1).to_bytes()).unwrap();
            offer.peer = (!offer.mirror).then_some(id);
            offer.valid_until = Some(published.expires_at);
            offer.header = Some(header.clone());
            offer
        })
        .collect();
    assert_eq!(verified.offers(Some(&header)), expected);
    let bare = verified.offers(None)[0].header.clone().unwrap();
    assert_eq!(
        (bare.cid, bare.root, bare.size),
        (header.cid, header.root, header.size)
    );
    assert_eq!(bare.name, None);
}

/// Ed25519 and RFC 6979 sign deterministically: these are the bytes of version 1.
#[test]
fn the_format_is_the_one_that_was_published() {
    let bytes = signed();
    assert_eq!(bytes.len(), 366);
    let digest = alloy_primitives::keccak256(&bytes);
    assert_eq!(
        digest.to_string(),
        "0xf2f8d01488f1326e0166f05acc074a9ae13931d615da7a235678e99f47fdd48e"
    );
}

#[test]
fn it_holds_under_its_own_key_alone() {
    let bytes = signed();
    assert!(verify(&bytes, &key("a"), NOW).is_ok());
    let header = header("a");
    for key in RecordKey::all(&header).skip(1).chain([key("b")]) {
        assert_eq!(
            verify(&bytes, &key, NOW),
            Err(RecordError::Foreign),
            "{key}"
        );
    }
    let announcement = Announcement::new(header.clone(), vec![offer(Protocol::Http, 1)]);
    let published = Publication::announce(&node(1), None, &announcement, 1, NOW).unwrap();
    for (key, value) in &published.records {
        for other in RecordKey::all(&header) {
            let set = chiral_dht::records::SeederSet::decode(value, &other, NOW);
            assert_eq!(set.is_ok(), *key == other, "{key} under {other}");
        }
    }
}

#[test]
fn another_signer_domain_or_wallet_is_refused() {
    let id = |bytes: &[u8]| verify(bytes, &key("a"), NOW).map(|v| *v.signed().peer());
    assert_eq!(id(&resigned(&node(1), DOMAIN, |_| ())), Ok(peer(1)));
    // Somebody else's key: another announcer, whom the wallet has not signed for.
    assert_eq!(
        id(&resigned(&node(2), DOMAIN, |_| ())),
        Err(RecordError::Wallet)
    );
    assert_eq!(
        id(&resigned(&node(1), "chiral-node", |_| ())),
        Err(RecordError::Signature)
    );
    // A storing node does not look at the wallet, a buyer does.
    let (mine, theirs) = (wallet(1).wallet(), FixedKeySigner::numbered(66));
    let theirs = chiral_core::WalletSigner::address(&theirs);
    let swapped = resigned(&node(1), DOMAIN, |payload| {
        let at = payload.windows(20).position(|part| part == mine.as_slice());
        payload[at.unwrap()..][..20].copy_from_slice(theirs.as_slice());
    });
    assert_eq!(id(&swapped), Err(RecordError::Wallet));
    assert!(SignedAnnouncement::verify(&swapped, &key("a"), NOW).is_ok());
    let signature = *wallet(1).signature().as_bytes();
    for other in [high_s_twin(signature), [0; 65]] {
        let changed = resigned(&node(1), DOMAIN, |payload| {
            let at = payload.windows(65).position(|part| part == signature);
            payload[at.unwrap()..][..65].copy_from_slice(&other);
        });
        assert_eq!(id(&changed), Err(RecordError::Wallet));
    }
}

#[test]
fn only_ed25519_keys_announce() {
    let bytes = signed();
    // The key's type is the second byte of its message; it follows the field's two bytes.
    assert_eq!(bytes[..6], [0x0a, 0x24, 8, 1, 0x12, 0x20]);
    for kind in [0, 2, 3, 4] {
        let mut bytes = bytes.clone();
        bytes[3] = kind;
        assert_eq!(verify(&bytes, &key("a"), NOW), Err(RecordError::Signature));
    }
}

#[test]
fn a_second_spelling_is_refused() {
    let malformed = |bytes: &[u8]| {
        let result = verify(bytes, &key("a"), NOW);
        assert!(
            matches!(result, Err(RecordError::Malformed { .. })),
            "{result:?}"
        );
    };
    malformed(&resigned(&node(1), DOMAIN, |payload| {
        payload.extend([0xf8, 1, 1])
    }));
    malformed(&resigned(&node(1), DOMAIN, |payload| {
        payload.extend([0x30, 0])
    }));
    malformed(&resigned(&node(1), DOMAIN, |payload| {
        payload.truncate(payload.len() - 1);
    }));
    let mut envelope = signed();
    envelope.extend([0x30, 1]);
    malformed(&envelope);
}

#[test]
fn times_are_bounded_on_both_sides() {
    let at = |seq, expires_at| {
        let body = Body {
            seq,
            expires_at,
            ..body()
        };
        sign(&body, &node(1), NOW).map(drop)
    };
    let (ms, s) = (NOW.as_millis() as u64, NOW.as_secs());
    let skew = MAX_SKEW.as_secs();
    let longest = s + (MAX_LIFETIME + MAX_SKEW).as_secs();
    assert_eq!(at(0, s + 1), Ok(()));
    assert_eq!(at(ms + skew * 1000, longest), Ok(()));
    for expires_at in [0, s] {
        let expired = RecordError::Expired { expires_at, now: s };
        assert_eq!(at(ms, expires_at), Err(expired));
    }
    let future = |what| Err(RecordError::Future { what });
    assert_eq!(at(ms, longest + 1), future("expiry"));
    assert_eq!(at(ms, u64::MAX), future("expiry"));
    assert_eq!(at(ms + skew * 1000 + 1, s + 1), future("sequence number"));
    assert_eq!(at(u64::MAX, s + 1), future("sequence number"));
    let bytes = signed();
    assert!(verify(&bytes, &key("a"), NOW + SECOND * 3599).is_ok());
    let late = verify(&bytes, &key("a"), NOW + SECOND * 3600);
    assert!(matches!(late, Err(RecordError::Expired { .. })));
}

#[test]
fn terms_that_make_no_sense_are_refused() {
    let refused = |what: &str, body: Body| {
        let result = sign(&body, &node(1), NOW);
        assert!(result.is_err(), "{what}: {result:?}");
    };
    refused("no endpoints", service(|s| s.endpoints.clear()));
    refused("a price without a wallet", service(|s| s.wallet = None));
    refused(
        "a mirror with a price",
        service(|s| s.endpoints[0].mirror = true),
    );
    refused("another's wallet", service(|s| s.wallet = Some(wallet(2))));
    refused(
        "too many endpoints",
        service(|s| s.endpoints = vec![s.endpoints[0].clone(); 9]),
    );
    let mut other_file = body();
    other_file.cid = header("b").cid;
    refused("a cid that is not the key", other_file);
    let mut huge = body();
    huge.size = u64::MAX;
    refused("a file over the limit", huge);
    let at =
        |address: String| service(|s| s.endpoints[0].endpoint = Endpoint::new(address).unwrap());
    refused("a long address", at(format!("http://{}", "a".repeat(250))));
    refused(
        "no multiaddr",
        at(format!("/ip4/999.1.1.1/p2p/{}", peer(1))),
    );
    for other in [
        format!("/ip4/192.0.2.1/tcp/1/p2p/{}", peer(2)),
        format!(
            "/ip4/192.0.2.1/tcp/1/p2p/{}/p2p-circuit/p2p/{}",
            peer(1),
            peer(2)
        ),
        format!("/ip4/192.0.2.1/tcp/1/p2p/{}/p2p-circuit", peer(1)),
    ] {
        refused("another peer's address", at(other));
    }
    let relayed = format!(
        "/ip4/192.0.2.1/tcp/1/p2p/{}/p2p-circuit/p2p/{}",
        peer(2),
        peer(1)
    );
    assert!(sign(&at(relayed), &node(1), NOW).is_ok());
    let long = service(|s| {
        s.endpoints = vec![s.endpoints[0].clone(); 8];
        for (i, served) in s.endpoints.iter_mut().enumerate() {
            let address = format!("http://{i}.example/{}", "a".repeat(235));
            served.endpoint = Endpoint::new(address).unwrap();
        }
    });
    let result = sign(&long, &node(1), NOW);
    assert!(matches!(
        result,
        Err(RecordError::TooLarge {
            limit: MAX_ANNOUNCEMENT_LEN,
            ..
        })
    ));
}

#[test]
fn what_is_no_announcement_of_this_node_is_not_published() {
    let refused = |what: &str, wallet, offers: Vec<PeerOffer>| {
        let announcement = Announcement::new(header("a"), offers);
        let result = Publication::announce(&node(1), wallet, &announcement, 1, NOW);
        let error = DirectoryError::from(result.expect_err(what));
        assert!(
            matches!(error, DirectoryError::Refused { .. }),
            "{what}: {error}"
        );
    };
    let own = wallet(1);
    let own = Some(&own);
    refused("no offers", own, vec![]);
    refused("too many", own, vec![offer(Protocol::Http, 1); 9]);
    let stranger = chiral_core::PeerId::from_bytes(&peer(2).to_bytes()).unwrap();
    refused(
        "another peer",
        own,
        vec![offer(Protocol::Http, 1).with_peer(stranger)],
    );
    let mut other = offer(Protocol::Http, 1);
    other.header = Some(header("b"));
    refused("another file", own, vec![other]);
    refused("a price and no wallet", None, vec![paid(1, 1)]);
    let mut elsewhere = paid(1, 1);
    elsewhere.wallet = Some(Address::repeat_byte(7));
    refused("another wallet", own, vec![elsewhere]);
    refused("a paid mirror", own, vec![paid(1, 1).as_mirror()]);
    let not_ours = wallet(2);
    refused(
        "a binding of another node",
        Some(&not_ours),
        vec![paid(1, 1)],
    );
    let mut announcement = Announcement::new(header("a"), vec![offer(Protocol::Http, 1)]);
    announcement.header.name = Some("n".repeat(4096));
    assert!(Publication::announce(&node(1), None, &announcement, 1, NOW).is_err());
}

#[test]
fn sequence_numbers_rise_even_if_the_clock_goes_back() {
    let first = next_seq(0, NOW);
    assert_eq!(u128::from(first), NOW.as_millis());
    assert_eq!(next_seq(first, NOW), first + 1);
    assert_eq!(next_seq(first, NOW - SECOND), first + 1);
    assert_eq!(announcement::next_seq(u64::MAX, NOW), u64::MAX);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
        prop_assert!(verify(&bytes, &key("a"), NOW).is_err());
    }

    #[test]
    fn no_signed_payload_panics(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        at in 0usize..400,
        cut in any::<bool>(),
    ) {
        let bytes = resigned(&node(1), DOMAIN, |payload| {
            let at = at % payload.len();
            if cut {
                payload.truncate(at);
            }
            payload.splice(at.min(payload.len()).., bytes);
        });
        let _ = verify(&bytes, &key("a"), NOW);
    }

    #[test]
    fn a_changed_bit_is_refused(at in 0usize..10_000, bit in 0u8..8) {
        let mut bytes = signed();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        prop_assert!(SignedAnnouncement::verify(&bytes, &key("a"), NOW).is_err());
    }
}
