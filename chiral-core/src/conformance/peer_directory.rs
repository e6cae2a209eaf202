//! The suite of [`PeerDirectory`].
//!
//! A maker joins as many directories as it is asked for to one fresh network. What they
//! acknowledge may take a while to be seen by the others: each look is repeated, with the
//! maker's pause in between, up to [`TRIES`] times.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{Address, U256};
use futures_util::future::join_all;

use crate::peer_directory::MAX_OFFERS;
use crate::{
    Alias, Announcement, ContentIdentity, Coverage, DirectoryError, Endpoint, FileIdentification,
    ManifestHeader, PeerDirectory, PeerId, PeerOffer, Price, Protocol, ProviderQuery,
};

/// How often an answer is asked for until it is as expected.
pub const TRIES: usize = 200;

/// A directory, and the node whose it is.
#[derive(Clone, Debug)]
pub struct Joined {
    /// Who announces through it.
    pub peer: PeerId,
    /// The directory.
    pub directory: Arc<dyn PeerDirectory>,
}

/// Makes the directories that the suite asks for.
pub trait Maker {
    /// Joins `count` directories, each a node of its own, to one fresh network.
    fn join(&self, count: usize) -> impl Future<Output = Vec<Joined>>;

    /// Lets the network work for a moment.
    fn pause(&self) -> impl Future<Output = ()>;

    /// The wallet of its nodes, where a directory checks whose it is.
    fn wallet(&self) -> Address {
        Address::repeat_byte(7)
    }
}

/// Runs everything but [`announcements_expire`].
pub async fn run(maker: &impl Maker) {
    nobody_is_an_empty_answer(maker).await;
    an_announcement_is_found_by_others(maker).await;
    announcing_again_replaces_ones_own(maker).await;
    announcements_made_at_once_are_all_kept(maker).await;
    nobody_alters_anothers_announcement(maker).await;
    a_withdrawn_announcement_is_gone(maker).await;
    only_the_protocols_asked_for_are_answered(maker).await;
    roots_and_aliases_lead_to_the_offers(maker).await;
    what_does_not_fit_is_refused(maker).await;
    answers_are_limited(maker).await;
    shutdown_withdraws_and_closes(maker).await;
}

/// The header of a file that consists of `name`, with all kinds of aliases.
pub fn header(name: &str) -> ManifestHeader {
    let identity = ContentIdentity::of(name.as_bytes()).expect("a short name is a small file");
    let hash = *identity.cid.as_bytes();
    let mut short = [0; 20];
    short.copy_from_slice(&hash[..20]);
    let mut shorter = [0; 16];
    shorter.copy_from_slice(&hash[..16]);
    ManifestHeader {
        size: identity.size,
        cid: identity.cid,
        root: identity.root,
        name: Some(name.to_owned()),
        mime: None,
        created_at: 0,
        aliases: vec![
            Alias::InfoHashV1(short),
            Alias::InfoHashV2(hash),
            Alias::Ed2k(shorter),
        ],
    }
}

/// An offer over a protocol at an address of the documentation range.
pub fn offer(protocol: Protocol, port: u16) -> PeerOffer {
    let endpoint = Endpoint::new(format!("http://192.0.2.1:{port}/")).expect("printable, short");
    PeerOffer::new(protocol, endpoint)
}

/// Nobody seeds what nobody announced, and nothing is withdrawn.
pub async fn nobody_is_an_empty_answer(maker: &impl Maker) {
    let nodes = maker.join(2).await;
    let target = FileIdentification::from(header("unknown").cid);
    assert_eq!(ask(&nodes[0], target).await, [], "nobody announced this");
    assert!(
        !withdraw(&nodes[0], target).await,
        "nothing was announced, so nothing is withdrawn"
    );
}

/// All that an offer says comes back, under the id of who made it, with the header.
pub async fn an_announcement_is_found_by_others(maker: &impl Maker) {
    let nodes = maker.join(2).await;
    let header = header("found");
    let mut paid = offer(Protocol::Http, 1);
    paid.price = Price::from_wei_per_mib(U256::MAX);
    paid.wallet = Some(maker.wallet());
    paid.coverage = Some(Coverage::Complete);
    announce(
        &nodes[0],
        &header,
        vec![paid.clone(), offer(Protocol::BitTorrent, 2)],
    )
    .await;

    let mut found = expect_offers(maker, &nodes[1], header.cid.into(), 2).await;
    for offer in &mut found {
        // Said or not; it was not in what was announced.
        offer.valid_until = None;
        assert_eq!(
            offer.peer.as_ref(),
            Some(&nodes[0].peer),
            "an offer is its announcer's"
        );
        assert_eq!(
            offer.header.as_ref(),
            Some(&header),
            "an offer carries the header"
        );
    }
    paid.peer = Some(nodes[0].peer.clone());
    paid.header = Some(header);
    assert!(
        found.contains(&paid),
        "{paid:?} came back changed: {found:?}"
    );
}

/// The later of two announcements of one file holds, and holds alone.
pub async fn announcing_again_replaces_ones_own(maker: &impl Maker) {
    let nodes = maker.join(2).await;
    let (first, other) = (header("first"), header("other"));
    announce(
        &nodes[0],
        &first,
        vec![offer(Protocol::Http, 1), offer(Protocol::Ed2k, 2)],
    )
    .await;
    announce(&nodes[0], &other, vec![offer(Protocol::Http, 1)]).await;
    expect_offers(maker, &nodes[1], first.cid.into(), 2).await;
    announce(&nodes[0], &first, vec![offer(Protocol::Private, 3)]).await;

    let replaced = |found: &[PeerOffer]| found.len() == 1 && found[0].protocol == Protocol::Private;
    expect(
        maker,
        &nodes[1],
        first.cid.into(),
        "the new offer alone",
        replaced,
    )
    .await;
    expect_offers(maker, &nodes[1], other.cid.into(), 1).await;
}

/// Announcements are merged: none is lost to another made at the same time.
pub async fn announcements_made_at_once_are_all_kept(maker: &impl Maker) {
    let nodes = maker.join(4).await;
    let header = header("together");
    join_all(
        nodes
            .iter()
            .map(|node| announce(node, &header, vec![offer(Protocol::Http, 1)])),
    )
    .await;

    for node in &nodes {
        let found = expect_offers(maker, node, header.cid.into(), nodes.len()).await;
        for seeder in &nodes {
            assert!(
                by(&found, seeder) == 1,
                "{} is missing in {found:?}",
                seeder.peer
            );
        }
    }
}

/// Neither announcing, nor withdrawing, nor lying about one's name changes another's entry.
pub async fn nobody_alters_anothers_announcement(maker: &impl Maker) {
    let nodes = maker.join(3).await;
    let header = header("mine");
    announce(&nodes[0], &header, vec![offer(Protocol::Http, 1)]).await;
    expect_offers(maker, &nodes[1], header.cid.into(), 1).await;

    assert!(
        !withdraw(&nodes[1], header.cid.into()).await,
        "another's announcement was withdrawn"
    );
    let forged = offer(Protocol::Http, 666).with_peer(nodes[0].peer.clone());
    let announcement = Announcement::new(header.clone(), vec![forged]);
    let result = nodes[1].directory.announce(announcement).await;
    assert!(
        matches!(result, Err(DirectoryError::Refused { .. })),
        "an offer in another's name must be refused: {result:?}"
    );
    announce(&nodes[1], &header, vec![offer(Protocol::Http, 2)]).await;

    let found = expect_offers(maker, &nodes[2], header.cid.into(), 2).await;
    let mine = found
        .iter()
        .find(|offer| offer.peer.as_ref() == Some(&nodes[0].peer));
    let endpoint = mine.map(|offer| offer.endpoint.as_str());
    assert_eq!(
        endpoint,
        Some("http://192.0.2.1:1/"),
        "the first entry was altered: {found:?}"
    );
}

/// Withdrawing tells whether there was something, and leaves the rest.
pub async fn a_withdrawn_announcement_is_gone(maker: &impl Maker) {
    let nodes = maker.join(3).await;
    let (gone, kept) = (header("gone"), header("kept"));
    announce(&nodes[0], &gone, vec![offer(Protocol::Http, 1)]).await;
    announce(&nodes[0], &kept, vec![offer(Protocol::Http, 1)]).await;
    announce(&nodes[1], &gone, vec![offer(Protocol::Http, 2)]).await;
    expect_offers(maker, &nodes[2], gone.cid.into(), 2).await;

    assert!(
        withdraw(&nodes[0], gone.cid.into()).await,
        "there was an announcement"
    );
    assert!(
        !withdraw(&nodes[0], gone.cid.into()).await,
        "it was withdrawn already"
    );
    let found = expect_offers(maker, &nodes[2], gone.cid.into(), 1).await;
    assert_eq!(
        by(&found, &nodes[1]),
        1,
        "the other seeder's entry went instead: {found:?}"
    );
    expect_offers(maker, &nodes[2], kept.cid.into(), 1).await;

    announce(&nodes[0], &gone, vec![offer(Protocol::Http, 3)]).await;
    expect_offers(maker, &nodes[2], gone.cid.into(), 2).await;
}

/// A query for some protocols is answered with offers over these.
pub async fn only_the_protocols_asked_for_are_answered(maker: &impl Maker) {
    let nodes = maker.join(2).await;
    let header = header("filtered");
    let custom: Protocol = "ipfs/1.0".parse().expect("a valid name");
    let protocols = [Protocol::Http, Protocol::BitTorrent, custom.clone()];
    let offers = protocols
        .iter()
        .cloned()
        .zip(1..)
        .map(|(p, port)| offer(p, port))
        .collect();
    announce(&nodes[0], &header, offers).await;
    expect_offers(maker, &nodes[1], header.cid.into(), 3).await;

    for (wanted, number) in [
        (vec![Protocol::Http], 1),
        (vec![custom, Protocol::Http], 2),
        (vec![Protocol::Ed2k], 0),
    ] {
        let mut query = ProviderQuery::new(header.cid.into());
        query.protocols = wanted.clone();
        let found = providers(&nodes[1], query).await;
        assert_eq!(found.len(), number, "offers over {wanted:?}: {found:?}");
        assert!(
            found.iter().all(|offer| wanted.contains(&offer.protocol)),
            "{found:?}"
        );
    }
}

/// What the header names a file by finds and withdraws it too.
pub async fn roots_and_aliases_lead_to_the_offers(maker: &impl Maker) {
    let nodes = maker.join(2).await;
    let header = header("named");
    let names = header
        .aliases
        .iter()
        .map(|alias| FileIdentification::from(*alias));
    for name in names.chain([
        FileIdentification::Root(header.root),
        (&header.link()).into(),
    ]) {
        assert_eq!(
            ask(&nodes[1], name).await,
            [],
            "{name} was not announced yet"
        );
        announce(&nodes[0], &header, vec![offer(Protocol::Http, 1)]).await;
        let found = expect_offers(maker, &nodes[1], name, 1).await;
        assert_eq!(
            found[0].header.as_ref().map(|header| header.cid),
            Some(header.cid)
        );
        assert!(withdraw(&nodes[0], name).await, "{name} was announced");
        expect_offers(maker, &nodes[1], name, 0).await;
        expect_offers(maker, &nodes[1], header.cid.into(), 0).await;
    }
}

/// No offers at all, and offers that contradict the announcement, are refused.
pub async fn what_does_not_fit_is_refused(maker: &impl Maker) {
    let nodes = maker.join(2).await;
    let ours = header("ours");
    let mut of_another_file = offer(Protocol::Http, 1);
    of_another_file.header = Some(header("theirs"));
    let mut huge = ours.clone();
    huge.name = Some("n".repeat(4096));
    for (what, header, offers) in [
        ("no offers", ours.clone(), vec![]),
        (
            "an offer of another file",
            ours.clone(),
            vec![of_another_file],
        ),
        (
            "a header over the limit",
            huge,
            vec![offer(Protocol::Http, 1)],
        ),
    ] {
        let result = nodes[0]
            .directory
            .announce(Announcement::new(header, offers))
            .await;
        let refused = matches!(result, Err(DirectoryError::Refused { .. }));
        assert!(refused, "{what} must be refused: {result:?}");
    }
    assert_eq!(
        ask(&nodes[1], ours.cid.into()).await,
        [],
        "nothing was accepted"
    );
}

/// However many seeders there are, an answer has at most [`MAX_OFFERS`] offers.
pub async fn answers_are_limited(maker: &impl Maker) {
    const EACH: usize = 5;
    let nodes = maker.join(MAX_OFFERS / EACH + 2).await;
    let header = header("popular");
    let protocols = [
        Protocol::Http,
        Protocol::BitTorrent,
        Protocol::WebTorrent,
        Protocol::Ed2k,
        Protocol::Private,
    ];
    for node in &nodes {
        let offers = protocols
            .iter()
            .cloned()
            .map(|protocol| offer(protocol, 1))
            .collect();
        announce(node, &header, offers).await;
    }
    let found = ask(&nodes[0], header.cid.into()).await;
    assert!(
        found.len() <= MAX_OFFERS,
        "{} offers were answered",
        found.len()
    );
    let many = |found: &[PeerOffer]| found.len() > MAX_OFFERS / 2;
    expect(maker, &nodes[0], header.cid.into(), "many offers", many).await;
}

/// After shutdown one's announcements are gone and every call but shutdown is refused;
/// other nodes go on.
pub async fn shutdown_withdraws_and_closes(maker: &impl Maker) {
    let nodes = maker.join(3).await;
    let header = header("closing");
    announce(&nodes[0], &header, vec![offer(Protocol::Http, 1)]).await;
    announce(&nodes[1], &header, vec![offer(Protocol::Http, 2)]).await;
    expect_offers(maker, &nodes[2], header.cid.into(), 2).await;

    for time in ["first", "second"] {
        let result = nodes[0].directory.shutdown().await;
        assert!(result.is_ok(), "the {time} shutdown failed: {result:?}");
    }
    let found = expect_offers(maker, &nodes[2], header.cid.into(), 1).await;
    assert_eq!(
        by(&found, &nodes[1]),
        1,
        "the wrong announcement was withdrawn: {found:?}"
    );

    let closed = &nodes[0].directory;
    let target = FileIdentification::from(header.cid);
    let announcement = Announcement::new(header, vec![offer(Protocol::Http, 1)]);
    for (what, result) in [
        ("announce", closed.announce(announcement).await),
        ("withdraw", closed.withdraw(&target).await.map(drop)),
        (
            "providers",
            closed.providers(ProviderQuery::new(target)).await.map(drop),
        ),
    ] {
        let refused = matches!(result, Err(DirectoryError::Closed));
        assert!(refused, "{what} after shutdown: {result:?}");
    }
}

/// An announcement holds for its lifetime and not longer, unless it is repeated. For
/// makers whose networks' clock can be moved: `advance` moves it.
pub async fn announcements_expire(maker: &impl Maker, advance: impl AsyncFn(Duration)) {
    const HALF: Duration = Duration::from_secs(30);
    let nodes = maker.join(2).await;
    let (once, again) = (header("once"), header("again"));
    for header in [&once, &again] {
        announce_for(&nodes[0], header, HALF * 2).await;
        expect_offers(maker, &nodes[1], header.cid.into(), 1).await;
    }
    advance(HALF).await;
    expect_offers(maker, &nodes[1], once.cid.into(), 1).await;
    announce_for(&nodes[0], &again, HALF * 2).await;
    advance(HALF + Duration::from_secs(1)).await;

    expect_offers(maker, &nodes[1], once.cid.into(), 0).await;
    assert!(
        !withdraw(&nodes[0], once.cid.into()).await,
        "an expired announcement is no more"
    );
    for name in [again.cid.into(), again.aliases[0].into()] {
        expect_offers(maker, &nodes[1], name, 1).await;
    }
    advance(HALF * 2).await;
    expect_offers(maker, &nodes[1], again.cid.into(), 0).await;
}

async fn announce(node: &Joined, header: &ManifestHeader, offers: Vec<PeerOffer>) {
    let result = node
        .directory
        .announce(Announcement::new(header.clone(), offers))
        .await;
    assert!(
        result.is_ok(),
        "{} could not announce: {result:?}",
        node.peer
    );
}

async fn announce_for(node: &Joined, header: &ManifestHeader, lifetime: Duration) {
    let mut announcement = Announcement::new(header.clone(), vec![offer(Protocol::Http, 1)]);
    announcement.lifetime = lifetime;
    let result = node.directory.announce(announcement).await;
    assert!(
        result.is_ok(),
        "{} could not announce: {result:?}",
        node.peer
    );
}

async fn withdraw(node: &Joined, target: FileIdentification) -> bool {
    let result = node.directory.withdraw(&target).await;
    result.unwrap_or_else(|error| panic!("{} could not withdraw {target}: {error}", node.peer))
}

async fn providers(node: &Joined, query: ProviderQuery) -> Vec<PeerOffer> {
    let target = query.target;
    let result = node.directory.providers(query).await;
    result.unwrap_or_else(|error| panic!("{} could not look up {target}: {error}", node.peer))
}

async fn ask(node: &Joined, target: FileIdentification) -> Vec<PeerOffer> {
    providers(node, ProviderQuery::new(target)).await
}

fn by(offers: &[PeerOffer], node: &Joined) -> usize {
    offers
        .iter()
        .filter(|offer| offer.peer.as_ref() == Some(&node.peer))
        .count()
}

async fn expect_offers(
    maker: &impl Maker,
    node: &Joined,
    target: FileIdentification,
    number: usize,
) -> Vec<PeerOffer> {
    let what = format!("{number} offers");
    expect(maker, node, target, &what, |found| found.len() == number).await
}

async fn expect(
    maker: &impl Maker,
    node: &Joined,
    target: FileIdentification,
    what: &str,
    as_expected: impl Fn(&[PeerOffer]) -> bool,
) -> Vec<PeerOffer> {
    let mut found = ask(node, target).await;
    for _ in 0..TRIES {
        if as_expected(&found) {
            return found;
        }
        maker.pause().await;
        found = ask(node, target).await;
    }
    panic!("expected {what} of {target}, found {found:?}");
}
