//! What a node puts in the DHT when it announces a file, or withdraws it.

use chiral_core::{Announcement, DirectoryError, ManifestHeader, PeerOffer};
use libp2p::PeerId;
use libp2p::identity::Keypair;
use std::time::Duration;

use super::announcement::{
    self, Body, MAX_ENDPOINTS, MAX_LIFETIME, ServedEndpoint, Service, Statement,
};
use super::{RecordError, RecordKey, SeederSet, SignedAnnouncement, WalletBinding};

/// Shortest time for which a withdrawal is kept.
pub const MIN_WITHDRAWAL: Duration = Duration::from_secs(60);

/// The records of one announcement: under the cid, and a pointer under each other name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Publication {
    /// Key and value of each record; the cid's is first.
    pub records: Vec<(RecordKey, Vec<u8>)>,
    /// The sequence number that all of them have.
    pub seq: u64,
    /// Until when they hold: seconds since 1970 (UTC).
    pub expires_at: u64,
}

impl Publication {
    /// Signs what announces a file. `wallet` is this node's, if it has one. The lifetime is
    /// cut at [`MAX_LIFETIME`] and is at least a second.
    ///
    /// # Errors
    /// [`RecordError::Refused`] for what cannot be announced: no offers or too many, an
    /// offer of another file, of another peer, or to be paid to another wallet.
    /// [`RecordError::TooLarge`] if the offers are too long together.
    pub fn announce(
        node: &Keypair,
        wallet: Option<&WalletBinding>,
        announcement: &Announcement,
        seq: u64,
        now: Duration,
    ) -> Result<Self, RecordError> {
        let header = &announcement.header;
        let service = service(node, wallet, header, &announcement.offers)?;
        let lifetime = announcement
            .lifetime
            .clamp(Duration::from_secs(1), MAX_LIFETIME);
        let expires_at = (now + lifetime).as_secs();
        Self::sign(node, header, seq, expires_at, now, |key| match key {
            RecordKey::Cid(_) => Statement::Serves(service.clone()),
            _ => Statement::Points,
        })
    }

    /// Signs what withdraws a file. `expires_at` is that of the announcement: before then it
    /// could be replayed to a node that has forgotten the withdrawal.
    ///
    /// # Errors
    /// [`RecordError`] if the header does not fit its format or the key does not sign.
    pub fn withdraw(
        node: &Keypair,
        header: &ManifestHeader,
        seq: u64,
        expires_at: u64,
        now: Duration,
    ) -> Result<Self, RecordError> {
        let least = (now + MIN_WITHDRAWAL).as_secs();
        let most = (now + MAX_LIFETIME).as_secs();
        let expires_at = expires_at.clamp(least, most);
        Self::sign(node, header, seq, expires_at, now, |_| Statement::Withdrawn)
    }

    fn sign(
        node: &Keypair,
        header: &ManifestHeader,
        seq: u64,
        expires_at: u64,
        now: Duration,
        statement: impl Fn(&RecordKey) -> Statement,
    ) -> Result<Self, RecordError> {
        let record = |key: RecordKey| {
            let body = Body {
                statement: statement(&key),
                key,
                cid: header.cid,
                root: header.root,
                size: header.size,
                seq,
                expires_at,
            };
            let signed: SignedAnnouncement = announcement::sign(&body, node, now)?;
            let header = matches!(body.statement, Statement::Serves(_)).then_some(header);
            Ok((key, SeederSet::encode_one(&signed, header)?))
        };
        Ok(Self {
            records: RecordKey::all(header)
                .map(record)
                .collect::<Result<_, _>>()?,
            seq,
            expires_at,
        })
    }
}

fn service(
    node: &Keypair,
    wallet: Option<&WalletBinding>,
    header: &ManifestHeader,
    offers: &[PeerOffer],
) -> Result<Service, RecordError> {
    let refused = |reason| Err(RecordError::Refused { reason });
    let peer = node.public().to_peer_id();
    let header_digest = announcement::digest(header)?;
    if offers.is_empty() {
        return refused("no offers");
    }
    if offers.len() > MAX_ENDPOINTS {
        return refused("too many offers");
    }
    for offer in offers {
        if offer.peer.as_ref().is_some_and(|named| !is(named, &peer)) {
            return refused("an offer names another peer");
        }
        if offer.header.as_ref().is_some_and(|other| other != header) {
            return refused("an offer has another header");
        }
        let own = wallet.map(WalletBinding::wallet);
        if offer.wallet.is_some() && offer.wallet != own {
            return refused("an offer is to be paid to another wallet than this node's");
        }
        if !offer.price.is_free() && (own.is_none() || offer.mirror) {
            return refused("a price needs a wallet, and a mirror has none");
        }
    }
    let served = |offer: &PeerOffer| ServedEndpoint {
        protocol: offer.protocol.clone(),
        endpoint: offer.endpoint.clone(),
        mirror: offer.mirror,
        price: offer.price,
        coverage: offer.coverage.clone(),
    };
    let paid = offers.iter().any(|offer| !offer.price.is_free());
    Ok(Service {
        endpoints: offers.iter().map(served).collect(),
        wallet: wallet.copied().filter(|_| paid),
        header_digest,
    })
}

fn is(named: &chiral_core::PeerId, peer: &PeerId) -> bool {
    named.as_bytes() == peer.to_bytes()
}

impl From<RecordError> for DirectoryError {
    fn from(error: RecordError) -> Self {
        let reason = match error {
            RecordError::Refused { reason } => reason,
            RecordError::TooLarge { .. } => "the announcement is too large",
            RecordError::Wallet => "the wallet has not signed for this node",
            RecordError::Foreign => "an address names another peer",
            RecordError::Full { .. } => "this node announces too much",
            _ => "the announcement does not fit its format",
        };
        Self::Refused { reason }
    }
}
