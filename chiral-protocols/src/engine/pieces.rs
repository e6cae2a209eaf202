//! Under another network's hashes: chunks are kept as they come, and count once every piece
//! that they lie in has passed. Meanwhile SHA-256 follows along what has passed from the
//! start, so that the file's cid is known when its last piece is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chiral_core::transfer::TransferEventKind;
use chiral_core::{
    ByteRange, ChunkLayout, FileIdentification, ForwardChain, PieceHashes, Protocol, TransferError,
};

use super::active::{Active, Step};
use super::assembly::Contributions;
use super::held::Held;
use super::jobs::{JobDone, hashing};
use super::source::Connected;
use crate::scheduler::{Blame, SourceId};

/// Most pieces checked at once, whatever the number of processors.
const MAX_CHECKS: usize = 8;

/// Pieces of which it is remembered what each source had sent, until they pass.
const MAX_SUSPECT: usize = 256;

/// Chunks hashed for the cid in one job.
const STRIDE: u32 = 8;

/// Time between two words on how many pieces have passed.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Proofs handed to the store at once.
const PROOFS: usize = 1024;

/// What a source had sent for a piece that failed: a digest that nobody else can compute.
type Suspect = (ByteRange, SourceId, u64);

/// What came of checking a piece.
pub(super) struct PieceChecked {
    piece: u32,
    /// Which check of it this was: an older one says nothing of what has come since.
    ticket: u64,
    passed: bool,
    /// If it failed, what each source had sent; if it passed, those whose bytes were others.
    suspects: Vec<Suspect>,
}

pub(super) struct Pieces {
    hashes: Arc<dyn PieceHashes>,
    count: u32,
    passed: BTreeSet<u32>,
    /// Pieces under check, each with the number of the check that counts.
    checking: BTreeMap<u32, u64>,
    tickets: u64,
    waiting: VecDeque<u32>,
    /// Most that are under check at once.
    checks: usize,
    held: Held,
    suspects: BTreeMap<u32, Vec<Suspect>>,
    key: RandomState,
    /// Not here while chunks are being hashed.
    chain: Option<ForwardChain>,
    /// How many had passed when it was told last, and when that was.
    told: (usize, Duration),
    done: bool,
}

impl Pieces {
    fn range(&self, piece: u32) -> ByteRange {
        let start = u64::from(piece).saturating_mul(self.hashes.piece_length());
        let end = start.saturating_add(self.hashes.piece_length());
        ByteRange::new(start.min(self.hashes.size()), end.min(self.hashes.size()))
    }

    fn touching(&self, range: ByteRange) -> std::ops::Range<u32> {
        let length = self.hashes.piece_length();
        // Sizes are checked in the beginning: indices fit.
        (range.start / length) as u32..range.end.div_ceil(length) as u32
    }

    /// Keeps the bytes of a chunk until they have been checked, if there is room.
    pub(super) fn hold(&mut self, index: u32, bytes: &Bytes) {
        self.held.keep(index, bytes);
    }

    fn queue(&mut self, piece: u32) {
        if !self.passed.contains(&piece)
            && !self.checking.contains_key(&piece)
            && !self.waiting.contains(&piece)
        {
            self.waiting.push_back(piece);
        }
    }
}

/// How many pieces there are.
///
/// # Errors
/// [`TransferError::BadLink`] for a length of 0, and for more than can be numbered.
fn count(hashes: &dyn PieceHashes) -> Result<u32, TransferError> {
    let reason = "its pieces have no length, or are too many";
    (hashes.piece_length() > 0)
        .then(|| hashes.size().div_ceil(hashes.piece_length()))
        .and_then(|count| u32::try_from(count).ok())
        .ok_or(TransferError::BadLink { reason })
}

impl Active<'_> {
    pub(super) fn begin_pieces(
        &mut self,
        hashes: Arc<dyn PieceHashes>,
    ) -> Result<Pieces, TransferError> {
        let mut pieces = Pieces {
            count: count(&*hashes)?,
            hashes,
            passed: BTreeSet::new(),
            checking: BTreeMap::new(),
            tickets: 0,
            waiting: VecDeque::new(),
            checks: std::thread::available_parallelism()
                .map_or(1, usize::from)
                .clamp(1, MAX_CHECKS),
            held: Held::default(),
            suspects: BTreeMap::new(),
            key: RandomState::new(),
            chain: Some(ForwardChain::new(self.layout)),
            told: (0, Duration::ZERO),
            done: false,
        };
        if let Some(lookup) = &self.run.request.lookup {
            lookup.begun(&self.partial);
        }
        // Each byte is checked soon after it came.
        self.run.tellers.pieces_known();
        for index in 0..self.layout.count() {
            if !self.present.get(index) {
                self.scheduler.want(self.layout.range(index));
            }
        }
        // What an earlier run left is looked at again.
        for piece in 0..pieces.count {
            let mut chunks = self.layout.touched(pieces.range(piece));
            if chunks.clone().all(|index| self.proven.get(index)) {
                pieces.passed.insert(piece);
                if let Some(lookup) = &self.run.request.lookup {
                    chunks.for_each(|index| lookup.passed(index));
                }
            } else if chunks.all(|index| self.present.get(index)) {
                pieces.waiting.push_back(piece);
            }
        }
        Ok(pieces)
    }

    pub(super) fn step_pieces(
        &mut self,
        pieces: &mut Pieces,
    ) -> Result<Option<Step>, TransferError> {
        self.tell_pieces(pieces);
        if pieces.done {
            return Ok(Some(Step::Done));
        }
        while pieces.checking.len() < pieces.checks
            && let Some(piece) = pieces.waiting.pop_front()
        {
            self.check_piece(pieces, piece);
        }
        if let Some(chain) = pieces
            .chain
            .take_if(|chain| self.proven.get(chain.next_index()))
        {
            let first = chain.next_index();
            let limit = self.layout.count().min(first.saturating_add(STRIDE));
            let end = (first..limit)
                .find(|index| !self.proven.get(*index))
                .unwrap_or(limit);
            self.hash_on(chain, pieces.held.follow(first..end));
        }
        Ok(None)
    }

    /// Tells how many pieces have passed, now and then and at the end.
    fn tell_pieces(&mut self, pieces: &mut Pieces) {
        let FileIdentification::Alias(alias) = self.run.request.target else {
            return;
        };
        let (passed, now) = (pieces.passed.len(), self.run.now());
        let due = now >= pieces.told.1 + TELL_EVERY || pieces.done;
        if passed == pieces.told.0 || !due {
            return;
        }
        pieces.told = (passed, now);
        let over = |connected: &&Connected| connected.offer().protocol == Protocol::BitTorrent;
        let peers = self.run.known.values().filter(over).count();
        self.run.driver.emit(TransferEventKind::TorrentProgress {
            torrent: alias.to_string(),
            passed: u32::try_from(passed).unwrap_or(u32::MAX),
            pieces: pieces.count,
            peers: u32::try_from(peers).unwrap_or(u32::MAX),
        });
    }

    /// Hashes a piece, from memory as far as it is there.
    fn check_piece(&mut self, pieces: &mut Pieces, piece: u32) {
        let range = pieces.range(piece);
        let chunks = self.layout.touched(range);
        if !chunks.clone().all(|index| self.present.get(index)) {
            return;
        }
        pieces.tickets += 1;
        let ticket = pieces.tickets;
        pieces.checking.insert(piece, ticket);
        let mut parts = Vec::new();
        let mut from: Contributions = Vec::new();
        for index in chunks {
            parts.push((index, pieces.held.get(index)));
            for (sent, id) in self.run.unproven_from.get(&index).into_iter().flatten() {
                from.extend(sent.intersection(range).map(|sent| (sent, *id)));
            }
        }
        let earlier = pieces.suspects.get(&piece).cloned().unwrap_or_default();
        let mut checker = pieces.hashes.checker(piece);
        let (partial, layout, key) = (self.partial.clone(), self.layout, pieces.key.clone());
        self.jobs.spawn(async move {
            let mut cut = Vec::with_capacity(parts.len());
            for (index, bytes) in parts {
                let bytes = match bytes {
                    Some(bytes) => bytes,
                    None => match partial.read(index).await {
                        Ok(bytes) => bytes,
                        Err(error) => {
                            return JobDone::PieceUnread {
                                piece,
                                ticket,
                                error,
                            };
                        }
                    },
                };
                cut.push(within(layout, index, bytes, range));
            }
            JobDone::Piece(
                hashing(move || {
                    cut.iter().for_each(|(_, bytes)| checker.update(bytes));
                    let passed = checker.passes();
                    let digest = |range: &ByteRange| digest(&key, &cut, *range);
                    let suspects = match passed {
                        true => earlier
                            .into_iter()
                            .filter(|(range, _, was)| digest(range) != *was)
                            .collect(),
                        false => from
                            .into_iter()
                            .map(|(range, id)| (range, id, digest(&range)))
                            .collect(),
                    };
                    PieceChecked {
                        piece,
                        ticket,
                        passed,
                        suspects,
                    }
                })
                .await,
            )
        });
    }

    pub(super) async fn pieces_done(
        &mut self,
        pieces: &mut Pieces,
        done: JobDone,
    ) -> Result<(), TransferError> {
        match done {
            JobDone::Stored { index, from, .. } => {
                self.note_present(index);
                self.run.unproven_from.insert(index, from);
                for piece in pieces.touching(self.layout.range(index)) {
                    let mut chunks = self.layout.touched(pieces.range(piece));
                    if chunks.all(|index| self.present.get(index)) {
                        pieces.queue(piece);
                    }
                }
            }
            JobDone::Piece(checked) => {
                if pieces.checking.get(&checked.piece) != Some(&checked.ticket) {
                    // A chunk that it shares with a piece that failed was thrown away.
                } else if checked.passed {
                    pieces.checking.remove(&checked.piece);
                    self.piece_passed(pieces, checked);
                } else {
                    pieces.checking.remove(&checked.piece);
                    self.piece_failed(pieces, checked).await?;
                }
            }
            // Of a check that does not count any more: a chunk was thrown away in the middle.
            JobDone::PieceUnread {
                piece,
                ticket,
                error,
            } if pieces.checking.get(&piece) == Some(&ticket) => return Err(error.into()),
            JobDone::Hashed { chain } if chain.next_index() < self.layout.count() => {
                pieces.chain = Some(chain);
            }
            JobDone::Hashed { chain } => self.all_passed(pieces, chain).await?,
            _ => {}
        }
        Ok(())
    }

    fn piece_passed(&mut self, pieces: &mut Pieces, checked: PieceChecked) {
        let piece = checked.piece;
        pieces.passed.insert(piece);
        pieces.suspects.remove(&piece);
        for (_, source, _) in checked.suspects {
            self.ban(source, &format!("its bytes of piece {piece} were others"));
        }
        for index in self.layout.touched(pieces.range(piece)) {
            let mut all = pieces.touching(self.layout.range(index));
            if all.all(|piece| pieces.passed.contains(&piece)) {
                pieces.held.passed(index);
                if let Some(lookup) = &self.run.request.lookup {
                    lookup.passed(index);
                }
                let from = self.run.unproven_from.remove(&index);
                self.note_proven(index, &from.unwrap_or_default());
            }
        }
    }

    /// A sole sender is out. Of several nobody is, yet: the piece is fetched again whole from
    /// one, and what passes tells whose bytes were wrong.
    async fn piece_failed(
        &mut self,
        pieces: &mut Pieces,
        checked: PieceChecked,
    ) -> Result<(), TransferError> {
        let PieceChecked {
            piece, suspects, ..
        } = checked;
        let now = self.run.now();
        let chunks = self.layout.touched(pieces.range(piece));
        let span = self.layout.span(chunks.start, chunks.end);
        for index in chunks {
            pieces.held.take(index);
            self.run.unproven_from.remove(&index);
            if self.present.set(index, false) {
                self.partial.forget(index).await?;
                self.run
                    .driver
                    .emit(TransferEventKind::ChunkRefetched { index });
            }
            for other in pieces.touching(self.layout.range(index)) {
                pieces.passed.remove(&other);
                pieces.checking.remove(&other);
            }
        }
        let mut senders: Vec<_> = suspects.iter().map(|(_, id, _)| *id).collect();
        senders.dedup();
        let sent: u64 = suspects.iter().map(|(range, ..)| range.len()).sum();
        match senders[..] {
            [only] if sent == pieces.range(piece).len() => {
                self.ban(only, &format!("piece {piece} contradicts its hash"));
                self.scheduler.invalidate(now, span, Blame::Nobody);
            }
            [] => self.scheduler.want(span),
            _ => {
                if pieces.suspects.len() < MAX_SUSPECT {
                    pieces.suspects.entry(piece).or_default().extend(suspects);
                }
                self.scheduler.retry_whole(now, span, &[]);
            }
        }
        Ok(())
    }

    /// Every piece passed, and SHA-256 is through.
    async fn all_passed(
        &mut self,
        pieces: &mut Pieces,
        chain: ForwardChain,
    ) -> Result<(), TransferError> {
        let reason = "what its pieces make has another cid";
        let cid = chain.cid().map_err(|_| TransferError::BadLink { reason })?;
        if self.cid.is_some_and(|expected| expected != cid) {
            return Err(TransferError::BadLink { reason });
        }
        let links = chain
            .finish(cid)
            .map_err(|_| TransferError::BadLink { reason })?;
        let links: Vec<_> = links.collect();
        for batch in links.chunks(PROOFS) {
            self.partial.prove(batch.to_vec()).await?;
        }
        self.cid = Some(cid);
        pieces.done = true;
        self.tell_pieces(pieces);
        if let FileIdentification::Alias(alias) = self.run.request.target {
            let torrent = alias.to_string();
            let complete = TransferEventKind::TorrentComplete { torrent, cid };
            self.run.driver.emit(complete);
        }
        Ok(())
    }
}

/// The bytes of a chunk that lie in a range, and where they begin.
fn within(layout: ChunkLayout, index: u32, bytes: Bytes, range: ByteRange) -> (u64, Bytes) {
    let chunk = layout.range(index);
    match chunk.intersection(range) {
        Some(part) => {
            let from = (part.start - chunk.start) as usize;
            let to = ((part.end - chunk.start) as usize).min(bytes.len());
            (part.start, bytes.slice(from.min(to)..to))
        }
        None => (range.start, Bytes::new()),
    }
}

/// A digest of the bytes of a range, which is cut into parts that follow each other.
fn digest(key: &RandomState, cut: &[(u64, Bytes)], range: ByteRange) -> u64 {
    use std::hash::Hasher;
    let mut hasher = key.build_hasher();
    for (start, bytes) in cut {
        let part = ByteRange::new(*start, start + bytes.len() as u64);
        if let Some(part) = part.intersection(range) {
            hasher.write(&bytes[(part.start - start) as usize..(part.end - start) as usize]);
        }
    }
    hasher.finish()
}
