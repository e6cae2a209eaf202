//! [`SeederSet`]: the value of a record, a map from peer to announcement that merges.
//!
//! Of each peer the announcement with the greatest sequence number is kept, so merging is
//! commutative, associative and idempotent: in whatever order nodes hear of announcements,
//! they end with the same ones. Where there are too many, merging leaves some
//! out by its node's own choice.
//!
//! An announcement that was replaced or withdrawn could be replayed until it expires. So a
//! peer's entry stays, unseen by others, until the last of its announcements that were ever
//! merged has expired.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chiral_core::ManifestHeader;
use chiral_core::manifest::MAX_HEADER_LEN;
use libp2p::PeerId;
use prost::Message;

use super::announcement::{MAX_ANNOUNCEMENT_LEN, Statement, sha256};
use super::choice::{Candidate, Chooser, Neighbourhood, neighbourhood};
use super::{RecordError, RecordKey, SignedAnnouncement, wire};

/// Limit on a record's value in bytes. Kademlia's answers carry up to 16 KiB beside it, and
/// its packets hold 64 KiB.
pub const MAX_VALUE_LEN: usize = 48 * 1024;

/// Limit on the announcements under one key.
pub const MAX_ANNOUNCEMENTS: usize = 128;

/// Limit on the headers in one set. Seeders of one file may differ in its name, say.
pub const MAX_HEADERS: usize = 64;

/// Bytes that the message adds to each of its members, at most.
const MEMBER_OVERHEAD: usize = 3;

/// The announcements under one key, and the manifest headers that they name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeederSet {
    key: RecordKey,
    entries: BTreeMap<PeerId, Entry>,
    headers: BTreeMap<[u8; 32], Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    bytes: Vec<u8>,
    seq: u64,
    expires_at: u64,
    /// When the last announcement of this peer expires that was ever merged.
    hold_until: u64,
    header: Option<[u8; 32]>,
    neighbourhood: Neighbourhood,
}

impl Entry {
    fn new(signed: &SignedAnnouncement) -> Self {
        let body = signed.body();
        Self {
            bytes: signed.as_bytes().to_vec(),
            seq: body.seq,
            expires_at: body.expires_at,
            hold_until: body.expires_at,
            header: match &body.statement {
                Statement::Serves(service) => Some(service.header_digest),
                Statement::Points | Statement::Withdrawn => None,
            },
            neighbourhood: neighbourhood(body),
        }
    }

    fn rank(&self) -> (u64, &[u8]) {
        (self.seq, &self.bytes)
    }

    /// Of two entries of one peer what remains.
    fn join(&mut self, other: Self) {
        let hold_until = self.hold_until.max(other.hold_until);
        if other.rank() > self.rank() {
            *self = other;
        }
        self.hold_until = hold_until;
    }

    fn cost(&self) -> usize {
        self.bytes.len() + MEMBER_OVERHEAD
    }
}

/// The members of an encoded set, not yet looked into.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    pub(super) announcements: Vec<Vec<u8>>,
    pub(super) headers: BTreeMap<[u8; 32], Vec<u8>>,
}

impl Parts {
    pub(super) fn decode(value: &[u8]) -> Result<Self, RecordError> {
        let wire: wire::SeederSet = wire::decode(value, "seeder set", MAX_VALUE_LEN)?;
        let number = wire.announcements.len();
        wire::check_len(number, "announcements", MAX_ANNOUNCEMENTS)?;
        wire::check_len(wire.headers.len(), "headers", MAX_HEADERS)?;
        let mut headers = BTreeMap::new();
        for header in wire.headers {
            wire::check_len(header.len(), "header", MAX_HEADER_LEN)?;
            if headers.insert(sha256(&header), header).is_some() {
                return Err(RecordError::Malformed { what: "headers" });
            }
        }
        Ok(Self {
            announcements: wire.announcements,
            headers,
        })
    }
}

/// Whether a header is what an announcement says it is.
pub(super) fn fits(header: &ManifestHeader, signed: &SignedAnnouncement) -> bool {
    let body = signed.body();
    (header.cid, header.root, header.size) == (body.cid, body.root, body.size)
}

impl SeederSet {
    /// Nobody.
    pub const fn new(key: RecordKey) -> Self {
        Self {
            key,
            entries: BTreeMap::new(),
            headers: BTreeMap::new(),
        }
    }

    /// Reads the value of a record, strictly: one announcement or header that does not
    /// belong makes all of it refused. Expired announcements alone are passed over, for
    /// nodes' clocks differ; if all are, that is an error.
    ///
    /// # Errors
    /// [`RecordError`], by case.
    pub fn decode(value: &[u8], key: &RecordKey, now: Duration) -> Result<Self, RecordError> {
        Self::decode_beside(value, key, now, None)
    }

    /// As [`SeederSet::decode`], without verifying again what `held` has already.
    pub(super) fn decode_beside(
        value: &[u8],
        key: &RecordKey,
        now: Duration,
        held: Option<&Self>,
    ) -> Result<Self, RecordError> {
        let parts = Parts::decode(value)?;
        let mut set = Self::new(*key);
        let mut headers: BTreeMap<[u8; 32], ManifestHeader> = BTreeMap::new();
        for (digest, bytes) in &parts.headers {
            let header = ManifestHeader::decode(bytes)
                .map_err(|_| RecordError::Malformed { what: "header" })?;
            headers.insert(*digest, header);
        }
        let mut named = BTreeSet::new();
        let mut expired = Err(RecordError::Malformed { what: "empty set" });
        for bytes in &parts.announcements {
            if let Some((peer, entry)) = held.and_then(|held| held.known(bytes)) {
                named.extend(entry.header);
                if entry.expires_at > now.as_secs() {
                    set.insert(*peer, entry.clone())?;
                }
                continue;
            }
            let signed = match SignedAnnouncement::verify(bytes, key, now) {
                Err(error @ RecordError::Expired { .. }) => {
                    expired = Err(error);
                    continue;
                }
                other => other?,
            };
            let entry = Entry::new(&signed);
            if let Some(header) = entry.header.and_then(|digest| headers.get(&digest))
                && !fits(header, &signed)
            {
                return Err(RecordError::Malformed {
                    what: "header of another file",
                });
            }
            named.extend(entry.header);
            set.insert(*signed.peer(), entry)?;
        }
        if set.entries.is_empty() {
            return expired;
        }
        // One that only an expired announcement named is not worth a refusal.
        let all_read = parts.announcements.len() == set.entries.len();
        if all_read && parts.headers.keys().any(|digest| !named.contains(digest)) {
            return Err(RecordError::Malformed {
                what: "header that nobody names",
            });
        }
        set.headers = parts.headers;
        set.forget_headers(now);
        Ok(set)
    }

    /// The value of a record that holds one announcement.
    ///
    /// # Errors
    /// [`RecordError`] if the header does not fit its format.
    pub fn encode_one(
        signed: &SignedAnnouncement,
        header: Option<&ManifestHeader>,
    ) -> Result<Vec<u8>, RecordError> {
        let header = header.map(ManifestHeader::encode).transpose();
        let header = header.map_err(|_| RecordError::Malformed { what: "header" })?;
        let wire = wire::SeederSet {
            announcements: vec![signed.as_bytes().to_vec()],
            headers: header.into_iter().collect(),
        };
        Ok(wire.encode_to_vec())
    }

    /// The value of a record: all that holds `now`, withdrawals too. Within
    /// [`MAX_VALUE_LEN`] if the set came from a merge.
    pub fn encode(&self, now: Duration) -> Vec<u8> {
        let holds = |entry: &&Entry| entry.expires_at > now.as_secs();
        let announcements: Vec<_> = self.entries.values().filter(holds).collect();
        let named: BTreeSet<_> = announcements.iter().filter_map(|e| e.header).collect();
        let headers = self.headers.iter().filter(|(d, _)| named.contains(*d));
        let wire = wire::SeederSet {
            headers: headers.map(|(_, header)| header.clone()).collect(),
            announcements: announcements.iter().map(|e| e.bytes.clone()).collect(),
        };
        wire.encode_to_vec()
    }

    /// What the records are about.
    pub const fn key(&self) -> &RecordKey {
        &self.key
    }

    /// Who has an entry, whether it holds or is kept against replays.
    pub fn peers(&self) -> impl ExactSizeIterator<Item = &PeerId> {
        self.entries.keys()
    }

    /// Whether a peer has an entry.
    pub(super) fn has(&self, peer: &PeerId) -> bool {
        self.entries.contains_key(peer)
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether any announcement holds.
    pub fn holds(&self, now: Duration) -> bool {
        let now = now.as_secs();
        self.entries.values().any(|entry| entry.expires_at > now)
    }

    /// Bytes of announcements and headers.
    pub fn size(&self) -> usize {
        let headers = self.headers.values().map(|h| h.len() + MEMBER_OVERHEAD);
        self.entries.values().map(Entry::cost).sum::<usize>() + headers.sum::<usize>()
    }

    /// When the first entry can be forgotten: seconds since 1970 (UTC).
    pub fn first_end(&self) -> Option<u64> {
        self.entries.values().map(|entry| entry.hold_until).min()
    }

    /// Forgets what need not be held any more.
    pub fn expire(&mut self, now: Duration) {
        self.entries
            .retain(|_, entry| entry.hold_until > now.as_secs());
        self.forget_headers(now);
    }

    /// Takes over what another set of this key has, without any limit.
    pub(super) fn join(&mut self, other: Self) {
        for (peer, entry) in other.entries {
            match self.entries.entry(peer) {
                std::collections::btree_map::Entry::Vacant(place) => {
                    place.insert(entry);
                }
                std::collections::btree_map::Entry::Occupied(held) => {
                    held.into_mut().join(entry);
                }
            }
        }
        self.headers.extend(other.headers);
    }

    /// Takes over what another set of this key has, forgets what has expired, and leaves out
    /// what there is no room for.
    pub(super) fn merge(&mut self, other: Self, chooser: &Chooser<'_>, now: Duration) {
        self.join(other);
        self.expire(now);
        if self.entries.len() > MAX_ANNOUNCEMENTS
            || self.headers.len() > MAX_HEADERS
            || self.size() > MAX_VALUE_LEN
        {
            self.choose(chooser, now);
        }
    }

    /// Whether every announcement of `newer` is older than this set's of the same peer.
    pub(super) fn makes_stale(&self, newer: &Self) -> bool {
        newer.entries.iter().all(|(peer, theirs)| {
            let ours = self.entries.get(peer);
            ours.is_some_and(|ours| ours.rank() > theirs.rank())
        })
    }

    /// Whether any entry of `other` is in this set as it is there.
    pub(super) fn has_any_of(&self, other: &Self) -> bool {
        other.entries.iter().any(|(peer, theirs)| {
            let ours = self.entries.get(peer);
            ours.is_some_and(|ours| ours.rank() == theirs.rank())
        })
    }

    fn insert(&mut self, peer: PeerId, entry: Entry) -> Result<(), RecordError> {
        match self.entries.insert(peer, entry) {
            None => Ok(()),
            Some(_) => Err(RecordError::Malformed {
                what: "two announcements of one peer",
            }),
        }
    }

    fn known(&self, bytes: &[u8]) -> Option<(&PeerId, &Entry)> {
        // At most 128 entries of different lengths and signatures: comparing is cheap.
        self.entries.iter().find(|(_, entry)| entry.bytes == bytes)
    }

    fn choose(&mut self, chooser: &Chooser<'_>, now: Duration) {
        let seconds = now.as_secs();
        let order = chooser.order(self.entries.iter().map(|(peer, entry)| Candidate {
            peer: *peer,
            neighbourhood: entry.neighbourhood,
            len: entry.bytes.len(),
            expired: entry.expires_at <= seconds,
        }));
        let (mut kept, mut headers) = (BTreeMap::new(), BTreeMap::new());
        let mut room = MAX_VALUE_LEN;
        for peer in order {
            if kept.len() == MAX_ANNOUNCEMENTS {
                break;
            }
            let Some(entry) = self.entries.remove(&peer) else {
                continue;
            };
            if entry.cost() > room {
                break;
            }
            room -= entry.cost();
            let header = entry.header.filter(|digest| !headers.contains_key(digest));
            if let Some((digest, bytes)) =
                header.and_then(|digest| self.headers.remove_entry(&digest))
                && headers.len() < MAX_HEADERS
                && bytes.len() + MEMBER_OVERHEAD <= room
            {
                room -= bytes.len() + MEMBER_OVERHEAD;
                headers.insert(digest, bytes);
            }
            kept.insert(peer, entry);
        }
        self.entries = kept;
        self.headers = headers;
    }

    fn forget_headers(&mut self, now: Duration) {
        let now = now.as_secs();
        let holds = |entry: &&Entry| entry.expires_at > now;
        let entries = self.entries.values().filter(holds);
        let named: BTreeSet<_> = entries.filter_map(|entry| entry.header).collect();
        self.headers.retain(|digest, _| named.contains(digest));
    }
}

// An announcement alone always has room.
const _: () = assert!(MAX_ANNOUNCEMENT_LEN + MAX_HEADER_LEN + 64 < MAX_VALUE_LEN);

#[cfg(test)]
mod tests;
