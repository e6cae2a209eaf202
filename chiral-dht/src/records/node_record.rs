//! [`NodeRecord`]: what a node says of itself when asked. Signed, so that it can be passed
//! on; not kept in the DHT. Uptime and reputation are for others to observe.

use std::time::Duration;

use chiral_core::{Cid, Protocol};
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId};

use super::announcement::{body::wallet_from_wire, check_times, open, seal};
use super::wire::{array, check_len};
use super::{RecordError, WalletBinding, wire};

/// Domain of the envelope's signature.
pub const DOMAIN: &str = "chiral-node";

/// Type of the envelope's payload, with the version of its format.
pub const PAYLOAD_TYPE: &[u8] = b"/chiral/node/1";

/// Limit on a node record in bytes, envelope included.
pub const MAX_NODE_RECORD_LEN: usize = 16 * 1024;

/// Limit on the addresses in a node record.
pub const MAX_ADDRESSES: usize = 16;

/// Limit on each of them, in bytes.
pub const MAX_ADDRESS_LEN: usize = 256;

/// Limit on the protocols in a node record.
pub const MAX_PROTOCOLS: usize = 16;

/// Limit on the files that a node record lists; it counts all.
pub const MAX_SEEDED: usize = 256;

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct NodeRecord {
    /// Of two records of a node the one with the greater number holds: milliseconds since
    /// 1970 (UTC), or more.
    pub seq: u64,
    /// Until when it holds: seconds since 1970 (UTC).
    pub expires_at: u64,
    /// Where the node listens.
    pub addresses: Vec<Multiaddr>,
    /// What it serves over.
    pub protocols: Vec<Protocol>,
    /// Bytes that it gives to the network, if it has a limit.
    pub capacity_bytes: Option<u64>,
    /// Bytes that it holds.
    pub used_bytes: u64,
    /// Who is paid for what it delivers, if anybody.
    pub wallet: Option<WalletBinding>,
    /// How many files it seeds.
    pub seeded_count: u64,
    /// Some of them.
    pub seeded: Vec<Cid>,
}

impl NodeRecord {
    /// A record that says nothing yet, with its number and its end.
    pub fn new(seq: u64, expires_at: u64) -> Self {
        Self {
            seq,
            expires_at,
            ..Self::default()
        }
    }

    /// Signs the record, and checks it as who asks will. Addresses, protocols and files over
    /// their limits are left out.
    ///
    /// # Errors
    /// [`RecordError`], as [`NodeRecord::verify`].
    pub fn sign(&self, node: &Keypair, now: Duration) -> Result<Vec<u8>, RecordError> {
        let addresses = self.addresses.iter().map(Multiaddr::to_vec);
        let protocols = self.protocols.iter().map(Protocol::to_string);
        let seeded = self.seeded.iter().map(|cid| cid.as_bytes().to_vec());
        let wallet = self.wallet.as_ref();
        let message = wire::NodeRecord {
            seq: self.seq,
            expires_at: self.expires_at,
            addresses: addresses
                .filter(|address| address.len() <= MAX_ADDRESS_LEN)
                .take(MAX_ADDRESSES)
                .collect(),
            protocols: protocols.take(MAX_PROTOCOLS).collect(),
            capacity_bytes: self.capacity_bytes,
            used_bytes: self.used_bytes,
            wallet: wallet.map_or_else(Vec::new, |w| w.wallet().to_vec()),
            wallet_sig: wallet.map_or_else(Vec::new, |w| w.signature().as_bytes().to_vec()),
            seeded_count: self.seeded_count,
            seeded: seeded.take(MAX_SEEDED).collect(),
        };
        let bytes = seal(node, DOMAIN, PAYLOAD_TYPE, &message)?;
        Self::verify(&bytes, &node.public().to_peer_id(), now)?;
        Ok(bytes)
    }

    /// Reads a record that `node` was asked for.
    ///
    /// # Errors
    /// [`RecordError`], by case: too large, malformed, of another node, expired, with a
    /// wallet that has not signed for this node.
    pub fn verify(bytes: &[u8], node: &PeerId, now: Duration) -> Result<Self, RecordError> {
        let limit = (MAX_NODE_RECORD_LEN, "node record");
        let (signer, message) = open::<wire::NodeRecord>(bytes, DOMAIN, PAYLOAD_TYPE, limit)?;
        if signer != *node {
            return Err(RecordError::Foreign);
        }
        check_times(message.seq, message.expires_at, now)?;
        check_len(message.addresses.len(), "addresses", MAX_ADDRESSES)?;
        check_len(message.protocols.len(), "protocols", MAX_PROTOCOLS)?;
        check_len(message.seeded.len(), "seeded files", MAX_SEEDED)?;
        let wallet = wallet_from_wire(&message.wallet, &message.wallet_sig)?;
        if wallet.is_some_and(|wallet| !wallet.verify(node)) {
            return Err(RecordError::Wallet);
        }
        let what = "more files listed than counted";
        if message.seeded.len() as u64 > message.seeded_count {
            return Err(RecordError::Malformed { what });
        }
        let address = |bytes: Vec<u8>| {
            check_len(bytes.len(), "address", MAX_ADDRESS_LEN)?;
            Multiaddr::try_from(bytes).map_err(|_| RecordError::Malformed { what: "address" })
        };
        let protocol = |name: String| {
            let what = "protocol";
            name.parse().map_err(|_| RecordError::Malformed { what })
        };
        let cid = |bytes: Vec<u8>| array(&bytes, "cid").map(Cid::from_bytes);
        Ok(Self {
            seq: message.seq,
            expires_at: message.expires_at,
            addresses: message
                .addresses
                .into_iter()
                .map(address)
                .collect::<Result<_, _>>()?,
            protocols: message
                .protocols
                .into_iter()
                .map(protocol)
                .collect::<Result<_, _>>()?,
            capacity_bytes: message.capacity_bytes,
            used_bytes: message.used_bytes,
            wallet,
            seeded_count: message.seeded_count,
            seeded: message
                .seeded
                .into_iter()
                .map(cid)
                .collect::<Result<_, _>>()?,
        })
    }
}
