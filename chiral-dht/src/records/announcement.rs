//! The announcement: what one seeder says of one file, signed with its node key.
//!
//! On the wire it is a libp2p signed envelope (RFC 0002) with domain [`DOMAIN`] and payload
//! type [`PAYLOAD_TYPE`], made with an Ed25519 key, around one protobuf message. Everything
//! that a buyer relies on is in it, price and expiry included, and so is the key that it is
//! put under: it holds for no other.

use std::time::Duration;

use chiral_core::{
    Cid, Coverage, Endpoint, ManifestHeader, MerkleRoot, PeerOffer, Price, Protocol,
};
use libp2p::PeerId;
use libp2p::identity::Keypair;

use super::{RecordError, RecordKey, WalletBinding};

pub(super) mod body;
mod envelope;

pub(super) use envelope::{open, seal};

/// Domain of the envelope's signature.
pub const DOMAIN: &str = "chiral-announcement";

/// Type of the envelope's payload, with the version of its format.
pub const PAYLOAD_TYPE: &[u8] = b"/chiral/ann/1";

/// Limit on an announcement in bytes, envelope included. One protocol takes about 370.
pub const MAX_ANNOUNCEMENT_LEN: usize = 2048;

/// Limit on the endpoints of an announcement.
pub const MAX_ENDPOINTS: usize = 8;

/// Limit on the address of an endpoint, in bytes.
pub const MAX_ADDRESS_LEN: usize = 256;

/// Limit on how long an announcement holds.
pub const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// How far another node's clock may be ahead.
pub const MAX_SKEW: Duration = Duration::from_secs(600);

/// What an announcement says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// What it is put under.
    pub key: RecordKey,
    /// The file.
    pub cid: Cid,
    /// The file's sealed root, as its announcer says.
    pub root: MerkleRoot,
    /// The file's size in bytes, as its announcer says.
    pub size: u64,
    /// Of two announcements of a peer under one key the one with the greater number holds:
    /// milliseconds since 1970 (UTC) when it was made, or more. See [`next_seq`].
    pub seq: u64,
    /// Until when it holds: seconds since 1970 (UTC).
    pub expires_at: u64,
    /// What it says of the file.
    pub statement: Statement,
}

/// What an announcement says of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// Under the cid: that it can be had.
    Serves(Service),
    /// Under another name: that the name is this file's.
    Points,
    /// Nothing any more. What was said before must not be believed.
    Withdrawn,
}

/// How a file can be had from a seeder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Where, 1 to [`MAX_ENDPOINTS`].
    pub endpoints: Vec<ServedEndpoint>,
    /// Who is paid; required if any endpoint asks for a price.
    pub wallet: Option<WalletBinding>,
    /// SHA-256 of the manifest header.
    pub header_digest: [u8; 32],
}

/// One place where a file can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedEndpoint {
    /// Over what.
    pub protocol: Protocol,
    /// Where: at most [`MAX_ADDRESS_LEN`] bytes. A multiaddr that names a peer names the
    /// announcer, unless it is a mirror's.
    pub endpoint: Endpoint,
    /// Served by somebody who knows nothing of Chiral; always free.
    pub mirror: bool,
    /// At what price.
    pub price: Price,
    /// What is held there, if said.
    pub coverage: Option<Coverage>,
}

/// An announcement whose form, key, times and node signature were checked. The wallet's
/// signature was not: see [`SignedAnnouncement::verify_wallet`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedAnnouncement {
    peer: PeerId,
    bytes: Vec<u8>,
    body: Body,
}

/// An announcement of which everything was checked, the wallet's signature included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedAnnouncement(SignedAnnouncement);

/// The sequence number for an announcement made `now`, after one with the number `last`.
pub fn next_seq(last: u64, now: Duration) -> u64 {
    u64::try_from(now.as_millis())
        .unwrap_or(u64::MAX)
        .max(last.saturating_add(1))
}

/// Signs an announcement and checks it as a stranger would: what this accepts, every node
/// with a right clock accepts.
///
/// # Errors
/// [`RecordError`], as [`SignedAnnouncement::verify`]; the wallet's signature included.
pub fn sign(body: &Body, node: &Keypair, now: Duration) -> Result<SignedAnnouncement, RecordError> {
    let message = body::to_wire(body)?;
    let bytes = seal(node, DOMAIN, PAYLOAD_TYPE, &message)?;
    let signed = SignedAnnouncement::verify(&bytes, &body.key, now)?;
    signed.verify_wallet().map(|verified| verified.0)
}

/// Checks everything about an announcement: what a buyer does.
///
/// # Errors
/// [`RecordError`], by case.
pub fn verify(
    bytes: &[u8],
    key: &RecordKey,
    now: Duration,
) -> Result<VerifiedAnnouncement, RecordError> {
    SignedAnnouncement::verify(bytes, key, now)?.verify_wallet()
}

impl SignedAnnouncement {
    /// Checks all but the wallet's signature, which costs several times as much and means
    /// nothing to a node that only keeps the record.
    ///
    /// # Errors
    /// [`RecordError`], by case.
    pub fn verify(bytes: &[u8], key: &RecordKey, now: Duration) -> Result<Self, RecordError> {
        let limit = (MAX_ANNOUNCEMENT_LEN, "announcement");
        let (peer, message) = open(bytes, DOMAIN, PAYLOAD_TYPE, limit)?;
        let body = body::from_wire(message, key, &peer)?;
        check_times(body.seq, body.expires_at, now)?;
        Ok(Self {
            peer,
            bytes: bytes.to_vec(),
            body,
        })
    }

    /// Checks that the wallet agreed to be paid for this peer, if there is one.
    ///
    /// # Errors
    /// [`RecordError::Wallet`].
    pub fn verify_wallet(self) -> Result<VerifiedAnnouncement, RecordError> {
        let wallet = match &self.body.statement {
            Statement::Serves(service) => service.wallet,
            Statement::Points | Statement::Withdrawn => None,
        };
        if wallet.is_none_or(|wallet| wallet.verify(&self.peer)) {
            Ok(VerifiedAnnouncement(self))
        } else {
            Err(RecordError::Wallet)
        }
    }

    /// Who made it.
    pub const fn peer(&self) -> &PeerId {
        &self.peer
    }

    /// The envelope.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What it says.
    pub const fn body(&self) -> &Body {
        &self.body
    }

    /// Of two of one peer, the one with the greater rank holds: by sequence number, and of
    /// equal ones, which an honest peer does not make, by their bytes.
    pub fn rank(&self) -> (u64, &[u8]) {
        (self.body.seq, &self.bytes)
    }
}

impl VerifiedAnnouncement {
    /// The announcement.
    pub const fn signed(&self) -> &SignedAnnouncement {
        &self.0
    }

    /// What it offers; nothing if it points or withdraws. `header` is the file's, if known.
    /// Instead of none, or one that is not the announced, the offers carry one without hints
    /// that says what the announcement itself does.
    ///
    /// A wallet is named where there is a price. A mirror is nobody's.
    pub fn offers(&self, header: Option<&ManifestHeader>) -> Vec<PeerOffer> {
        let Statement::Serves(service) = &self.0.body.statement else {
            return Vec::new();
        };
        let body = &self.0.body;
        let header = header.filter(|header| digest(header) == Ok(service.header_digest));
        let header = header.cloned().unwrap_or_else(|| ManifestHeader {
            size: body.size,
            cid: body.cid,
            root: body.root,
            name: None,
            mime: None,
            created_at: 0,
            aliases: Vec::new(),
        });
        let peer = chiral_core::PeerId::from_bytes(&self.0.peer.to_bytes()).ok();
        let offer = |served: &ServedEndpoint| {
            let mut offer = PeerOffer::new(served.protocol.clone(), served.endpoint.clone());
            offer.peer = peer.clone().filter(|_| !served.mirror);
            offer.mirror = served.mirror;
            offer.price = served.price;
            let paid = service.wallet.filter(|_| !served.price.is_free());
            offer.wallet = paid.map(|wallet| wallet.wallet());
            offer.coverage = served.coverage.clone();
            offer.valid_until = Some(body.expires_at);
            offer.header = Some(header.clone());
            offer
        };
        service.endpoints.iter().map(offer).collect()
    }
}

/// SHA-256 of an encoded header.
pub(super) fn digest(header: &ManifestHeader) -> Result<[u8; 32], RecordError> {
    let bytes = header.encode().map_err(|_| RecordError::Refused {
        reason: "the header does not fit its format",
    })?;
    Ok(sha256(&bytes))
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).into()
}

pub(super) fn check_times(seq: u64, expires_at: u64, now: Duration) -> Result<(), RecordError> {
    let seconds = now.as_secs();
    if expires_at <= seconds {
        return Err(RecordError::Expired {
            expires_at,
            now: seconds,
        });
    }
    if expires_at > (now + MAX_LIFETIME + MAX_SKEW).as_secs() {
        return Err(RecordError::Future { what: "expiry" });
    }
    if u128::from(seq) > (now + MAX_SKEW).as_millis() {
        return Err(RecordError::Future {
            what: "sequence number",
        });
    }
    Ok(())
}
