//! Learning what is to be downloaded: size, and what chunks can be checked against.

use std::sync::Arc;
use std::time::Duration;

use chiral_core::chain::EMPTY_CID;
use chiral_core::chunk_store::{Destination, PartialRequest};
use chiral_core::manifest::page_count;
use chiral_core::transfer::TransferEventKind;
use chiral_core::{
    ChunkHash, ChunkLayout, Cid, FileIdentification, FoundPieces, ManifestHeader, MerkleRoot,
    PartialFile, PieceHashes, PieceLookup, TransferError, VerifiedChunk, VerifiedPage, merkle,
};
use tokio::time::Instant;

use super::backward::Candidate;
use super::control::{self, Control};
use super::pages;
use super::run::Run;
use super::tail::{self, Tail};
use crate::scheduler::SourceId;

/// How long after a failed try to learn the identity another is made.
const RETRY: Duration = Duration::from_secs(1);

/// What a transfer begins with.
pub(super) struct Identity {
    pub(super) layout: ChunkLayout,
    pub(super) cid: Option<Cid>,
    pub(super) partial: Arc<dyn PartialFile>,
    /// Hints, from whoever gave them.
    pub(super) hints: Option<ManifestHeader>,
    pub(super) start: Start,
}

/// What chunks are checked against.
pub(super) enum Start {
    /// A root that is pinned, or proven in an earlier run; its last leaf is the cid.
    Pinned(MerkleRoot),
    /// The cid, and roots that strangers announce.
    Backward {
        candidates: Vec<Candidate>,
        /// The last chunk, if it was fetched just now.
        last: Option<(VerifiedChunk, SourceId)>,
    },
    /// The cid alone.
    Forward,
    /// Another network's hashes.
    Pieces(Arc<dyn PieceHashes>),
}

impl Run {
    pub(super) async fn identify(&mut self) -> Result<Identity, TransferError> {
        if let Some(lookup) = self.request.lookup.clone()
            && self.request.pieces.is_none()
        {
            self.look_up(lookup).await?;
        }
        if let Some(pieces) = self.request.pieces.clone().filter(|p| p.size() > 0) {
            return self.by_pieces(pieces).await;
        }
        if let FileIdentification::Alias(alias) = self.request.target
            && self.request.pieces.is_none()
        {
            return Err(TransferError::Unknown {
                target: alias.to_string(),
            });
        }
        if let Some(identity) = self.without_asking().await? {
            return Ok(identity);
        }
        let mut begun = Instant::now();
        let mut tried: Option<((usize, bool), Instant)> = None;
        loop {
            let control = control::look(&self.driver, &self.turn);
            if control != Control::default() {
                control::own_turn(&self.driver, &self.turn).await?;
                // Time that it was not let work is not held against anybody.
                begun = Instant::now();
                continue;
            }
            // Once all have been tried, what was left to the others is not waited for.
            let state = (self.known.len(), self.connections.all_tried());
            let fresh = tried.is_none_or(|(before, at)| before != state || at.elapsed() >= RETRY);
            if fresh && !self.known.is_empty() {
                if let Some(identity) = self.ask(begun.elapsed()).await? {
                    return Ok(identity);
                }
                tried = Some((state, Instant::now()));
            }
            let patience = self.config().source_patience;
            if begun.elapsed() > self.config().manifest_patience {
                self.connections.use_last_resort();
            }
            let hopeless = self.known.is_empty() && self.connections.exhausted();
            let paying = self.known.values().any(|c| c.source.is_paying());
            let limit = match paying {
                true => patience.max(self.config().payment_patience),
                false => patience,
            };
            if hopeless || begun.elapsed() > limit {
                return Err(self.no_sources(self.request.target.size().unwrap_or(0)));
            }
            tokio::select! {
                arrival = self.connections.next() => { self.arrive(arrival); }
                _ = control::changed(&self.driver, &self.turn, control) => {}
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        }
    }

    /// What is known without anybody else: an empty file, or a partial file with its header.
    async fn without_asking(&mut self) -> Result<Option<Identity>, TransferError> {
        let target = self.request.target;
        let empty_root = merkle::seal(0, merkle::tree_hash(&[]));
        let empty = self.request.pieces.as_ref().is_some_and(|p| p.size() == 0);
        if empty || target.cid() == Some(EMPTY_CID) || target.root() == Some(empty_root) {
            if target.cid().is_some_and(|cid| cid != EMPTY_CID)
                || target.root().is_some_and(|root| root != empty_root)
                || target.size().is_some_and(|size| size != 0)
            {
                return Err(TransferError::BadLink {
                    reason: "an empty file has one cid and one root",
                });
            }
            return self
                .identity(EMPTY_CID, 0, None, Start::Pinned(empty_root))
                .await
                .map(Some);
        }
        for info in self.engine.store.partials().await? {
            // What was proven under a root counts for that root only.
            let same = info.target.root() == target.root()
                && target
                    .cid()
                    .is_none_or(|cid| info.target.cid() == Some(cid));
            if !same || target.size().is_some_and(|size| size != info.size) {
                continue;
            }
            let request = PartialRequest::new(self.driver.id(), info.target, info.size);
            let partial = self.engine.store.begin(request).await?;
            let layout = partial.layout();
            let header = partial.header().await?;
            let usable = header.filter(|h| target.root() == Some(h.root) && !self.without_manifest);
            if let Some(header) = usable {
                self.describe(layout, header.name.clone());
                let start = Start::Pinned(header.root);
                let (cid, hints) = (Some(header.cid), Some(header));
                return Ok(Some(Identity {
                    layout,
                    cid,
                    partial,
                    hints,
                    start,
                }));
            }
            let proven_end = layout.last().is_some_and(|last| partial.proven().get(last));
            if let Some(cid) = info.target.cid()
                && proven_end
                && target.root().is_none()
                && !self.without_manifest
            {
                self.describe(layout, None);
                let start = Start::Backward {
                    candidates: Vec::new(),
                    last: None,
                };
                return Ok(Some(Identity {
                    layout,
                    cid: Some(cid),
                    partial,
                    hints: None,
                    start,
                }));
            }
        }
        Ok(None)
    }

    /// Asks the sources that are up. `None` if more must come first.
    async fn ask(&mut self, waited: Duration) -> Result<Option<Identity>, TransferError> {
        let target = self.request.target;
        let all_tried = self.connections.all_tried();
        let manifest = !self.without_manifest && self.known.values().any(|c| c.header.is_some());
        if manifest && let Some(root) = target.root() {
            if let Some(identity) = self.ask_pinned(root).await? {
                return Ok(Some(identity));
            }
            let announced = self
                .known
                .values()
                .any(|c| c.header.as_ref().is_some_and(|h| h.root == root));
            let others = self.known.values().any(|c| c.header.is_some());
            if others && !announced && (all_tried || waited > self.config().manifest_patience) {
                return Err(TransferError::BadLink {
                    reason: "those who have the cid announce another root",
                });
            }
        } else if manifest && (all_tried || waited >= self.config().gather) {
            let Some(cid) = target.cid() else {
                return Ok(None);
            };
            if let Some(identity) = self.ask_candidates(cid).await? {
                return Ok(Some(identity));
            }
        }
        let patient = all_tried || waited > self.config().manifest_patience;
        match target.cid() {
            Some(cid) if patient && (!manifest || self.without_manifest) => {
                self.begin_forward(cid).await
            }
            _ => Ok(None),
        }
    }

    /// The root of a link: shown to belong to the cid by its last leaf.
    async fn ask_pinned(&mut self, root: MerkleRoot) -> Result<Option<Identity>, TransferError> {
        let target = self.request.target;
        let announcers: Vec<_> = self
            .known
            .iter()
            .filter_map(|(id, c)| Some((*id, c.source.clone(), c.header.clone()?)))
            .filter(|(.., header)| header.root == root)
            .filter(|(.., header)| target.size().is_none_or(|size| size == header.size))
            .collect();
        for (id, source, header) in announcers {
            let Ok(layout) = header.layout() else {
                continue;
            };
            let Some(last) = layout.last() else { continue };
            let at = page_count(layout) - 1;
            let limit = self.config().request_timeout;
            match pages::fetch_one(&*source, root, layout, at, limit).await {
                Ok(page) => {
                    let (_, leaf) = page
                        .around(last)
                        .ok_or_else(|| self.no_sources(header.size))?;
                    return self
                        .pinned(root, layout, &page, leaf.into_cid(), header)
                        .await
                        .map(Some);
                }
                Err(error) => {
                    let reason = super::run::describe(&error);
                    self.last_trouble = Some(reason.clone());
                    self.driver.emit(TransferEventKind::SourceDemoted {
                        source: source.offer().endpoint.as_str().to_owned(),
                        reason,
                        for_ms: 0,
                    });
                    // Its bytes may still be good; its manifest is not asked for again.
                    if matches!(error, TransferError::Protocol { .. })
                        && let Some(connected) = self.known.get_mut(&id)
                    {
                        connected.header = None;
                    }
                }
            }
        }
        Ok(None)
    }

    async fn pinned(
        &mut self,
        root: MerkleRoot,
        layout: ChunkLayout,
        page: &VerifiedPage,
        cid: Cid,
        header: ManifestHeader,
    ) -> Result<Identity, TransferError> {
        if self
            .request
            .target
            .cid()
            .is_some_and(|wanted| wanted != cid)
        {
            return Err(TransferError::BadLink {
                reason: "the last chunk hash under its root is not its cid",
            });
        }
        let header = ManifestHeader { cid, ..header };
        let start = Start::Pinned(root);
        let identity = self
            .identity(cid, layout.size(), Some(header.clone()), start)
            .await?;
        identity.partial.set_header(header).await?;
        identity.partial.store_page(page).await?;
        Ok(identity)
    }

    /// Roots that strangers announce for a cid: the first whose tail closes settles the size.
    async fn ask_candidates(&mut self, cid: Cid) -> Result<Option<Identity>, TransferError> {
        let mut candidates: Vec<Candidate> = Vec::new();
        for (id, connected) in &self.known {
            let Some(header) = &connected.header else {
                continue;
            };
            match candidates
                .iter_mut()
                .find(|c| c.root == header.root && c.size == header.size)
            {
                Some(candidate) => candidate.announcers.push(*id),
                None => candidates.push(Candidate::new(header.clone(), *id)),
            }
        }
        candidates.sort_by_key(|c| std::cmp::Reverse(c.announcers.len()));
        candidates.truncate(self.config().max_candidates);
        if let Some(size) = self.request.target.size() {
            candidates.retain(|candidate| candidate.size == size);
        }
        let limit = self.config().request_timeout;
        let tail = match tail::check(&candidates, &self.known, cid, limit).await {
            Ok(tail) => tail,
            Err(trouble) => {
                let none = || "no announced root leads to the cid from the last chunk".to_owned();
                self.last_trouble = Some(trouble.unwrap_or_else(none));
                return Ok(None);
            }
        };
        let Tail {
            winner,
            page,
            chunk,
            from,
            refuted,
        } = tail;
        let layout = page.layout();
        let proven_before: ChunkHash = chunk.link().before();
        for id in refuted {
            self.put_out(id, "the last chunk it sent is not the file's");
        }
        let winning_root = candidates[winner].root;
        candidates[winner]
            .pages
            .insert(page.page().index, Arc::new(page));
        candidates.retain(|candidate| {
            let last = layout.last().unwrap_or(0);
            let agrees = candidate.size == layout.size()
                && candidate
                    .before(last)
                    .is_none_or(|before| before == proven_before);
            if !agrees {
                self.driver.emit(TransferEventKind::RootRefused {
                    root: candidate.root,
                    reason: "its size or last chunk is not the file's".to_owned(),
                });
            }
            agrees
        });
        candidates.sort_by_key(|candidate| candidate.root != winning_root);
        let hints = candidates.first().map(|candidate| candidate.header.clone());
        let start = Start::Backward {
            candidates,
            last: Some((chunk, from)),
        };
        self.identity(cid, layout.size(), hints, start)
            .await
            .map(Some)
    }

    /// Nobody knows a manifest: the size that most sources claim is tried.
    async fn begin_forward(&mut self, cid: Cid) -> Result<Option<Identity>, TransferError> {
        let claims: Vec<u64> = match self.request.target.size() {
            Some(size) => vec![size],
            None => self
                .known
                .values()
                .filter_map(|connected| connected.size())
                .collect(),
        };
        let votes = |size: &u64| claims.iter().filter(|other| *other == size).count();
        let Some(size) = claims.iter().copied().max_by_key(votes) else {
            return Ok(None);
        };
        if self.request.only.is_some() {
            return Err(TransferError::Missing {
                source_name: "every source".to_owned(),
                what: "a manifest, which a part of a file needs",
            });
        }
        self.identity(cid, size, None, Start::Forward)
            .await
            .map(Some)
    }

    async fn identity(
        &mut self,
        cid: Cid,
        size: u64,
        hints: Option<ManifestHeader>,
        start: Start,
    ) -> Result<Identity, TransferError> {
        let root = match start {
            Start::Pinned(root) => Some(root),
            _ => self.request.target.root(),
        };
        let target = FileIdentification::Content {
            cid,
            root,
            size: Some(size),
        };
        self.begin(target, size, hints, start).await
    }

    /// Learns the hashes of pieces from whoever knows them, while sources connect.
    async fn look_up(&mut self, lookup: Arc<dyn PieceLookup>) -> Result<(), TransferError> {
        let mut looking = lookup.look_up();
        let mut begun = Instant::now();
        loop {
            let control = control::look(&self.driver, &self.turn);
            if control != Control::default() {
                control::own_turn(&self.driver, &self.turn).await?;
                begun = Instant::now();
                continue;
            }
            let patience = begun + self.config().source_patience;
            tokio::select! {
                found = &mut looking => {
                    let FoundPieces { hashes, name, destination, .. } = found?;
                    (self.request.pieces, self.found_name) = (Some(hashes), name);
                    if let Some(destination) = destination {
                        self.request.destination = destination;
                    }
                    return self.refuse_taken_destination();
                }
                arrival = self.connections.next() => { self.arrive(arrival); }
                _ = control::changed(&self.driver, &self.turn, control) => {}
                () = tokio::time::sleep_until(patience) => return Err(self.no_sources(0)),
            }
        }
    }

    /// Nothing need be asked: the size and every piece's hash are known.
    async fn by_pieces(&mut self, pieces: Arc<dyn PieceHashes>) -> Result<Identity, TransferError> {
        let (target, size) = (self.request.target, pieces.size());
        if self.request.only.is_some() {
            return Err(TransferError::Missing {
                source_name: "a list of pieces".to_owned(),
                what: "a manifest, which a part of a file needs",
            });
        }
        if target.size().is_some_and(|wanted| wanted != size) {
            return Err(TransferError::BadLink {
                reason: "its pieces make a file of another size",
            });
        }
        self.begin(target, size, None, Start::Pieces(pieces)).await
    }

    async fn begin(
        &mut self,
        target: FileIdentification,
        size: u64,
        hints: Option<ManifestHeader>,
        start: Start,
    ) -> Result<Identity, TransferError> {
        let mut request = PartialRequest::new(self.driver.id(), target, size);
        if let Destination::Files(spans) = &self.request.destination {
            request = request.with_spans(spans.clone());
        }
        let partial = self.engine.store.begin(request).await?;
        let layout = partial.layout();
        let name = hints.as_ref().and_then(|header| header.name.clone());
        self.describe(layout, name.or_else(|| self.found_name.clone()));
        Ok(Identity {
            layout,
            cid: target.cid(),
            partial,
            hints,
            start,
        })
    }

    fn describe(&mut self, layout: ChunkLayout, name: Option<String>) {
        if !std::mem::replace(&mut self.described, true) {
            let (size, chunks) = (layout.size(), layout.count());
            self.driver
                .emit(TransferEventKind::Described { size, chunks, name });
        }
    }
}
