//! Records that are valid but for one thing, put at every node by somebody who keeps to
//! Kademlia and to nothing else: readers see the honest seeders, and nothing of the rest.
#![cfg(feature = "libp2p")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alloy_primitives::U256;
use chiral_core::conformance::peer_directory::{header, offer};
use chiral_core::conformance::wallet::FixedKeySigner;
use chiral_core::{
    Announcement, Endpoint, ManifestHeader, PeerOffer, Price, Protocol, ProviderQuery,
};
use chiral_dht::Libp2pNode;
use chiral_dht::records::announcement::{
    Body, ServedEndpoint, Service, Statement, next_seq, sign, verify,
};
use chiral_dht::records::set::MAX_VALUE_LEN;
use chiral_dht::records::{Publication, RecordKey, WalletBinding};
use futures_util::future::join_all;
use libp2p::PeerId;
use libp2p::core::SignedEnvelope;
use libp2p::identity::Keypair;
use prost::Message;
use sha2::{Digest, Sha256};
use support::hostile::Hostile;
use support::{announce, in_memory, network, peers, seeders, soon, until};

mod support;

/// More than the 20 that keep a record, so that some know nothing of it.
const NODES: usize = 40;
const SEEDERS: usize = 12;

/// A port that only hostile records name.
const HOSTILE: u16 = 666;

/// The value of a record, as anybody can write one.
#[derive(Message)]
struct Set {
    #[prost(bytes = "vec", repeated, tag = "1")]
    announcements: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    headers: Vec<Vec<u8>>,
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

fn key(number: u64) -> Keypair {
    let mut secret = [0xb7; 32];
    secret[..8].copy_from_slice(&number.to_be_bytes());
    Keypair::ed25519_from_bytes(secret).unwrap()
}

/// What a node would put under the cid, had it made the announcement at `at`.
fn value(by: &Keypair, header: &ManifestHeader, at: Duration) -> Vec<u8> {
    let announcement = Announcement::new(header.clone(), vec![offer(Protocol::Http, HOSTILE)]);
    let published = Publication::announce(by, None, &announcement, next_seq(0, at), at);
    published.unwrap().records.swap_remove(0).1
}

/// A paid announcement of the hostile node that names the wallet of another, with the
/// signature that this wallet made for its own node. `sign` refuses to make it, so it is put
/// together by hand: the bytes of the wallet and its signature are as long as any.
fn with_anothers_wallet(hostile: &Keypair, victim: &Keypair, header: &ManifestHeader) -> Vec<u8> {
    let binding = |number: u64, peer: PeerId| {
        let signer = FixedKeySigner::numbered(number);
        let signed = WalletBinding::sign(&signer, &peer);
        futures_util::FutureExt::now_or_never(signed)
            .unwrap()
            .unwrap()
    };
    let own = binding(1, hostile.public().to_peer_id());
    let theirs = binding(2, victim.public().to_peer_id());
    let endpoint = Endpoint::new(format!("http://192.0.2.1:{HOSTILE}/")).unwrap();
    let encoded = header.encode().unwrap();
    let body = Body {
        key: RecordKey::Cid(header.cid),
        cid: header.cid,
        root: header.root,
        size: header.size,
        seq: next_seq(0, now()),
        expires_at: now().as_secs() + 3600,
        statement: Statement::Serves(Service {
            endpoints: vec![ServedEndpoint {
                protocol: Protocol::Http,
                endpoint,
                mirror: false,
                price: Price::from_wei_per_mib(U256::from(1)),
                coverage: None,
            }],
            wallet: Some(own),
            header_digest: Sha256::digest(&encoded).into(),
        }),
    };
    let honest = sign(&body, hostile, now()).unwrap();
    let envelope = SignedEnvelope::from_protobuf_encoding(honest.as_bytes());
    let envelope = envelope.unwrap();
    let (domain, kind) = ("chiral-announcement".to_owned(), b"/chiral/ann/1");
    let (payload, _) = envelope
        .payload_and_signing_key(domain.clone(), kind)
        .unwrap();
    let mut payload = payload.to_vec();
    let mut replace = |old: &[u8], new: &[u8]| {
        let at = payload.windows(old.len()).position(|part| part == old);
        payload[at.unwrap()..][..old.len()].copy_from_slice(new);
    };
    replace(own.wallet().as_slice(), theirs.wallet().as_slice());
    replace(own.signature().as_bytes(), theirs.signature().as_bytes());
    let forged = SignedEnvelope::new(hostile, domain, kind.to_vec(), payload);
    let forged = forged.unwrap().into_protobuf_encoding();
    assert!(verify(&forged, &body.key, now()).is_err());
    Set {
        announcements: vec![forged],
        headers: vec![encoded],
    }
    .encode_to_vec()
}

async fn offers(node: &Libp2pNode, header: &ManifestHeader) -> Vec<PeerOffer> {
    let query = ProviderQuery::new(header.cid.into());
    node.directory().providers(query).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_records_change_nothing_that_readers_see() {
    let earlier = now() - Duration::from_secs(60);
    let made = |number: usize| in_memory().with_key(key(number as u64));
    let nodes = soon(network(NODES, made)).await;
    let (file, other) = (header("shared"), header("another"));
    soon(join_all(
        nodes[..SEEDERS].iter().map(|node| announce(node, &file)),
    ))
    .await;
    let honest = peers(&nodes[..SEEDERS]);
    let readers = [&nodes[NODES - 1], &nodes[SEEDERS], &nodes[0]];
    for reader in readers {
        until("a reader sees all", async || {
            seeders(reader, &file).await == honest
        })
        .await;
    }
    let addresses: Vec<_> = nodes
        .iter()
        .flat_map(Libp2pNode::listen_addresses)
        .collect();
    let hostile = key(1 << 40);

    let victim = key(0);
    let valid = value(&hostile, &file, now());
    let mut forged = Set::decode(&valid[..]).unwrap();
    let end = forged.announcements[0].len() - 1;
    forged.announcements[0][end] ^= 1;
    // The victim's public key over the hostile signature.
    let mut impersonated = Set::decode(&valid[..]).unwrap();
    let (mine, theirs) = (hostile.public(), victim.public());
    let (mine, theirs) = (mine.encode_protobuf(), theirs.encode_protobuf());
    let envelope = &mut impersonated.announcements[0];
    let at = envelope.windows(mine.len()).position(|part| part == mine);
    envelope[at.unwrap()..][..theirs.len()].copy_from_slice(&theirs);
    let mut padded = Set::decode(&valid[..]).unwrap();
    padded.headers.push(vec![0; MAX_VALUE_LEN]);

    let long_ago = now() - Duration::from_secs(7200);
    let refused = [
        ("forged", forged.encode_to_vec()),
        ("in another's name", impersonated.encode_to_vec()),
        ("of another file", value(&hostile, &other, now())),
        ("a seeder's, of another file", value(&victim, &other, now())),
        ("expired", value(&victim, &file, long_ago)),
        (
            "from the future",
            value(&victim, &file, now() + Duration::from_secs(900)),
        ),
        ("oversized", padded.encode_to_vec()),
        ("garbage", vec![0xff; 1000]),
        ("empty", Vec::new()),
    ];
    let record_key = RecordKey::Cid(file.cid).to_bytes();
    // A refusal shows at its sender's time limit: all at once.
    let puts = refused.map(async |(what, value)| {
        let taken = Hostile::new(&addresses).put(&record_key, value).await;
        assert_eq!(taken, 0, "{what} was acknowledged");
    });
    soon(join_all(puts)).await;

    // Nodes that do not know better keep these: a seeder's own words of before, and a
    // wallet that they do not check. Readers know better.
    let mut kept: Vec<Vec<u8>> = [0, 7, SEEDERS as u64 - 1]
        .map(|seeder| value(&key(seeder), &file, earlier))
        .into();
    kept.push(with_anothers_wallet(&hostile, &victim, &file));
    let puts = kept.into_iter().map(async |value| {
        let taken = Hostile::new(&addresses).put(&record_key, value).await;
        assert!(taken > 0, "nodes that do not know better keep it");
    });
    soon(join_all(puts)).await;

    for reader in readers {
        assert_eq!(soon(seeders(reader, &file)).await, honest);
        let offers = soon(offers(reader, &file)).await;
        assert_eq!(offers.len(), SEEDERS);
        let port = format!(":{HOSTILE}/");
        let bad = offers
            .iter()
            .find(|offer| offer.endpoint.as_str().contains(&port));
        assert_eq!(bad, None);
    }
    soon(join_all(nodes.iter().map(Libp2pNode::shutdown))).await;
}
