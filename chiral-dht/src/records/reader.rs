//! [`Reader`]: what the copies of a record that several nodes keep say together.
//!
//! A copy is a stranger's word: what is invalid in it is passed over, and the rest counts.
//! Of each peer the newest announcement in any copy holds, so one honest holder is enough to
//! see a seeder, and one is enough to see that it has withdrawn.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use chiral_core::peer_directory::MAX_OFFERS;
use chiral_core::{Cid, FileIdentification, ManifestHeader, PeerOffer, ProviderQuery};
use libp2p::PeerId;

use super::announcement::{Statement, sha256};
use super::set::{Parts, fits};
use super::{RecordError, RecordKey, SignedAnnouncement};

/// Limit on the copies of a record that are read: k = 20 nodes keep one, and some more.
pub const MAX_COPIES: usize = 32;

/// Limit on the files that a name leads to.
pub const MAX_POINTERS: usize = 8;

/// Limit on the headers that are kept of all copies.
const MAX_HEADERS: usize = 512;

/// Unites copies of one record.
#[derive(Clone, Debug)]
pub struct Reader {
    key: RecordKey,
    now: Duration,
    copies: usize,
    newest: BTreeMap<PeerId, SignedAnnouncement>,
    /// Verified, or found wanting: copies are mostly alike.
    seen: HashSet<[u8; 32]>,
    headers: HashMap<[u8; 32], ManifestHeader>,
}

impl Reader {
    /// Nothing read yet. `now` is for all copies.
    pub fn new(key: RecordKey, now: Duration) -> Self {
        Self {
            key,
            now,
            copies: 0,
            newest: BTreeMap::new(),
            seen: HashSet::new(),
            headers: HashMap::new(),
        }
    }

    /// Takes one copy, and says how many of its announcements were refused. Copies over
    /// [`MAX_COPIES`] are not looked at.
    ///
    /// # Errors
    /// [`RecordError`] if it is no set at all.
    pub fn add(&mut self, value: &[u8]) -> Result<usize, RecordError> {
        self.copies += 1;
        if self.copies > MAX_COPIES {
            return Err(RecordError::Full { what: "copies" });
        }
        let parts = Parts::decode(value)?;
        let mut refused = 0;
        for bytes in parts.announcements {
            if !self.seen.insert(sha256(&bytes)) {
                continue;
            }
            match SignedAnnouncement::verify(&bytes, &self.key, self.now) {
                Ok(signed) => self.take(signed),
                Err(error) => {
                    tracing::debug!(key = %self.key, %error, "announcement refused");
                    refused += 1;
                }
            }
        }
        for (digest, bytes) in parts.headers {
            if self.headers.len() < MAX_HEADERS
                && let Ok(header) = ManifestHeader::decode(&bytes)
            {
                self.headers.insert(digest, header);
            }
        }
        Ok(refused)
    }

    /// Peers with an announcement, whether it offers anything or withdraws.
    pub fn len(&self) -> usize {
        self.newest.len()
    }

    /// Whether no valid announcement was read.
    pub fn is_empty(&self) -> bool {
        self.newest.is_empty()
    }

    /// The newest announcement of each peer.
    pub fn announcements(&self) -> impl Iterator<Item = &SignedAnnouncement> {
        self.newest.values()
    }

    /// The offers that answer a query: verified with wallet and all, over the protocols
    /// asked for, not contradicting a pinned root or size, at most [`MAX_OFFERS`].
    ///
    /// Where there are more, every peer gets a place before any gets a second one, in an
    /// order that depends on `turn`: another number makes others first.
    pub fn offers(&self, query: &ProviderQuery, turn: u64) -> Vec<PeerOffer> {
        let wanted = |offer: &PeerOffer| {
            query.protocols.is_empty() || query.protocols.contains(&offer.protocol)
        };
        let lot = |peer: &PeerId| sha256(&[&turn.to_be_bytes()[..], &peer.to_bytes()].concat());
        let mut fitting: Vec<&SignedAnnouncement> = self
            .announcements()
            .filter(|signed| self.answers(signed, &query.target))
            .collect();
        fitting.sort_by_cached_key(|signed| lot(signed.peer()));
        // A wallet's signature is dear to check: no more than can be answered.
        let mut by_peer: Vec<Vec<PeerOffer>> = Vec::new();
        for signed in fitting {
            if by_peer.len() == MAX_OFFERS {
                break;
            }
            let header = self.header(signed);
            match signed.clone().verify_wallet() {
                Ok(verified) => {
                    let mut offers = verified.offers(header);
                    offers.retain(wanted);
                    if !offers.is_empty() {
                        by_peer.push(offers);
                    }
                }
                Err(error) => {
                    tracing::debug!(peer = %signed.peer(), %error, "announcement refused");
                }
            }
        }
        let longest = by_peer.iter().map(Vec::len).max().unwrap_or(0);
        let in_turns = (0..longest).flat_map(|i| by_peer.iter().filter_map(move |o| o.get(i)));
        in_turns.take(MAX_OFFERS).cloned().collect()
    }

    /// The files that a name leads to, those with the most pointers first, each as its
    /// pointers say: at most [`MAX_POINTERS`]. Root and size are candidates, not proven.
    pub fn files(&self) -> Vec<FileIdentification> {
        let mut counted: HashMap<(Cid, _, u64), usize> = HashMap::new();
        for signed in self.announcements() {
            let body = signed.body();
            if matches!(body.statement, Statement::Points) {
                *counted.entry((body.cid, body.root, body.size)).or_default() += 1;
            }
        }
        let mut files: Vec<_> = counted.into_iter().collect();
        files.sort_unstable_by_key(|(file, pointers)| (Reverse(*pointers), *file));
        let identify = |((cid, root, size), _)| FileIdentification::Content {
            cid,
            root: Some(root),
            size: Some(size),
        };
        files.into_iter().take(MAX_POINTERS).map(identify).collect()
    }

    fn take(&mut self, signed: SignedAnnouncement) {
        let held = self.newest.get(signed.peer());
        if held.is_none_or(|held| held.rank() < signed.rank()) {
            self.newest.insert(*signed.peer(), signed);
        }
    }

    fn header(&self, signed: &SignedAnnouncement) -> Option<&ManifestHeader> {
        let Statement::Serves(service) = &signed.body().statement else {
            return None;
        };
        let header = self.headers.get(&service.header_digest);
        header.filter(|header| fits(header, signed))
    }

    /// Whether an announcement offers something of the file that is asked for.
    fn answers(&self, signed: &SignedAnnouncement, target: &FileIdentification) -> bool {
        let body = signed.body();
        matches!(body.statement, Statement::Serves(_))
            && target.cid().is_none_or(|cid| cid == body.cid)
            && target.root().is_none_or(|root| root == body.root)
            && target.size().is_none_or(|size| size == body.size)
    }
}
