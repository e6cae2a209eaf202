//! The tail check: the last chunk, from the hash before it, leads to the cid. It settles
//! the size of the file and which of the announced roots can be right.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chiral_core::chunk_source::collect_watched;
use chiral_core::manifest::page_count;
use chiral_core::{
    ChunkHash, ChunkLayout, ChunkSource, Cid, TransferError, VerifiedChunk, VerifiedPage, chain,
};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until, timeout};

use super::backward::Candidate;
use super::pages;
use super::run::describe;
use super::source::Connected;
use crate::scheduler::SourceId;

/// If nothing comes for this time another source is asked for the last chunk, too: one that
/// stalls does not hold the beginning up for as long as it is waited for.
const ANOTHER_AFTER: Duration = Duration::from_millis(500);

/// How often those who arrange payment are looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What a tail check showed.
pub(super) struct Tail {
    /// Position of the candidate that closed.
    pub(super) winner: usize,
    /// Its last page.
    pub(super) page: VerifiedPage,
    /// The last chunk of the file.
    pub(super) chunk: VerifiedChunk,
    /// Who sent it.
    pub(super) from: SourceId,
    /// Who sent other bytes for the same place.
    pub(super) refuted: Vec<SourceId>,
}

/// A hash that a candidate says precedes the last chunk.
struct Claim {
    winner: usize,
    page: VerifiedPage,
    before: ChunkHash,
}

/// The last chunk of a file of one size: the same bytes settle every claim about it, so that
/// they are asked for, and paid, once, unless somebody stalls or sends something else.
struct Place<'a> {
    layout: ChunkLayout,
    last: u32,
    claims: Vec<Claim>,
    /// Whom to ask, the next one first.
    waiting: VecDeque<(SourceId, &'a Connected)>,
    asked: BTreeMap<SourceId, &'a Connected>,
    /// When somebody was asked last, or bytes came.
    moved: Arc<Mutex<Instant>>,
    /// When somebody who was asked was last seen arranging payment.
    paying: Option<Instant>,
    /// What was sent and closed with no claim so far.
    sent: Vec<(SourceId, Bytes)>,
}

/// What came of asking somebody for the last chunk of a file of this size.
type Answer = (u64, SourceId, Option<Result<Bytes, TransferError>>);

/// Checks all candidates at once; the first that closes wins. If none does, the error of the
/// last source that did not deliver, if there was one.
pub(super) async fn check(
    candidates: &[Candidate],
    known: &BTreeMap<SourceId, Connected>,
    cid: Cid,
    limit: Duration,
) -> Result<Tail, Option<String>> {
    let mut trouble = None;
    let mut places: BTreeMap<u64, Place<'_>> = BTreeMap::new();
    let claims = candidates.iter().enumerate();
    let mut claims: FuturesUnordered<_> = claims
        .map(|(at, candidate)| claim(at, candidate, known, cid, limit))
        .collect();
    let mut answers = FuturesUnordered::new();
    loop {
        for place in places.values_mut() {
            if let Some((id, connected)) = place.next() {
                answers.push(place.ask(id, connected, limit));
            }
        }
        let look_again = places.values().filter_map(Place::due).min();
        tokio::select! {
            Some(claim) = claims.next() => {
                let Some(claim) = claim else { continue };
                let layout = claim.page.layout();
                let place = places
                    .entry(layout.size())
                    .or_insert_with(|| Place::new(layout, known));
                place.rank(&candidates[claim.winner].announcers);
                place.claims.push(claim);
                if let Some(tail) = place.settle(0, cid).await {
                    return Ok(tail);
                }
            }
            Some(answer) = answers.next() => {
                let (size, id, answer): Answer = answer;
                let Some(place) = places.get_mut(&size) else { continue };
                place.asked.remove(&id);
                match answer {
                    Some(Ok(bytes)) => {
                        place.sent.push((id, bytes));
                        let new = place.sent.len() - 1;
                        if let Some(tail) = place.settle(new, cid).await {
                            return Ok(tail);
                        }
                    }
                    Some(Err(error)) => trouble = Some(describe(&error)),
                    None => {}
                }
            }
            () = sleep_until(look_again.unwrap_or_else(Instant::now)), if look_again.is_some() => {}
            // All were asked, and none is left that could answer.
            else => return Err(trouble),
        }
    }
}

/// What a candidate says of the last chunk, if it leads to the cid at all.
async fn claim(
    winner: usize,
    candidate: &Candidate,
    known: &BTreeMap<SourceId, Connected>,
    cid: Cid,
    limit: Duration,
) -> Option<Claim> {
    let layout = candidate.header.layout().ok()?;
    let last = layout.last()?;
    let sources = sources_of(known, &candidate.announcers);
    let at = page_count(layout) - 1;
    let page = pages::fetch(sources, candidate.root, layout, at, limit)
        .await
        .ok()?;
    let (before, leaf) = page.around(last)?;
    (leaf.into_cid() == cid).then_some(Claim {
        winner,
        page,
        before,
    })
}

impl<'a> Place<'a> {
    fn new(layout: ChunkLayout, known: &'a BTreeMap<SourceId, Connected>) -> Self {
        // What claims are about has a last chunk.
        let last = layout.last().unwrap_or(0);
        let has_it =
            |connected: &Connected| connected.fits(layout) && connected.coverage.contains(last);
        let mut waiting: Vec<_> = known
            .iter()
            .filter(|(_, connected)| has_it(connected))
            .map(|(id, connected)| (*id, connected))
            .collect();
        waiting.sort_by_key(|(_, connected)| !connected.offer().price.is_free());
        Self {
            layout,
            last,
            claims: Vec::new(),
            waiting: waiting.into(),
            asked: BTreeMap::new(),
            moved: Arc::new(Mutex::new(Instant::now())),
            paying: None,
            sent: Vec::new(),
        }
    }

    /// Puts announcers before those who are not: a pair that does not close condemns neither
    /// the bytes nor the hash before them, but most announcers have both.
    fn rank(&mut self, announcers: &[SourceId]) {
        if self.claims.is_empty() {
            let waiting = self.waiting.make_contiguous();
            waiting.sort_by_key(|(id, _)| !announcers.contains(id));
        }
    }

    fn moved(&self) -> Instant {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom to ask now, if anybody: the first, and another when nothing comes. While payment is
    /// being arranged with one, and right afterwards, no other is asked that would be paid, too.
    fn next(&mut self) -> Option<(SourceId, &'a Connected)> {
        let mut at = 0;
        if !self.asked.is_empty() {
            if self.asked.values().any(|c| c.source.is_paying()) {
                self.paying = Some(Instant::now());
            }
            if self.moved().elapsed() < ANOTHER_AFTER {
                return None;
            }
            let lately = |at: Instant| at.elapsed() < ANOTHER_AFTER;
            let paying = self.paying.is_some_and(lately);
            let asks_nothing = |c: &Connected| c.offer().price.is_free();
            let mut waiting = self.waiting.iter();
            at = waiting.position(|(_, c)| !paying || asks_nothing(c))?;
        }
        let (id, connected) = self.waiting.remove(at)?;
        self.asked.insert(id, connected);
        Some((id, connected))
    }

    /// When [`next`](Self::next) may answer somebody although nothing happened.
    fn due(&self) -> Option<Instant> {
        let somebody = !self.waiting.is_empty() && !self.asked.is_empty();
        let soon = Instant::now() + LOOK_AGAIN;
        let asks = |c: &&Connected| !c.offer().price.is_free();
        let due = match self.asked.values().any(asks) {
            true => soon,
            false => (self.moved() + ANOTHER_AFTER).max(soon),
        };
        somebody.then_some(due)
    }

    fn ask(
        &self,
        id: SourceId,
        connected: &'a Connected,
        limit: Duration,
    ) -> impl Future<Output = Answer> + use<'a> {
        let (layout, range) = (self.layout, self.layout.range(self.last));
        let moved = self.moved.clone();
        let moves = move || *moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        moves();
        async move {
            let source = &*connected.source;
            let fetching = collect_watched(source, range, layout.size(), |_| moves());
            (layout.size(), id, timeout(limit, fetching).await.ok())
        }
    }

    /// Tries the claims with what was sent, from this position on.
    async fn settle(&mut self, from: usize, cid: Cid) -> Option<Tail> {
        let (layout, last) = (self.layout, self.last);
        for at in from..self.sent.len() {
            let befores: Vec<_> = self.claims.iter().map(|claim| claim.before).collect();
            let bytes = self.sent[at].1.clone();
            let closing = tokio::task::spawn_blocking(move || {
                let check =
                    |before| VerifiedChunk::check(layout, last, before, cid.into(), bytes.clone());
                let mut checks = befores.into_iter().map(check).enumerate();
                checks.find_map(|(claim, checked)| Some((claim, checked.ok()?)))
            });
            let Ok(Some((claim, chunk))) = closing.await else {
                continue;
            };
            let (from, _) = self.sent.swap_remove(at);
            let claim = self.claims.swap_remove(claim);
            let (before, after) = (claim.before, cid.into());
            let wrong = |sent: &Bytes| chain::check(layout, last, before, after, sent).is_err();
            let others = self.sent.iter().filter(|(_, sent)| wrong(sent));
            return Some(Tail {
                winner: claim.winner,
                page: claim.page,
                chunk,
                from,
                refuted: others.map(|(id, _)| *id).collect(),
            });
        }
        None
    }
}

/// As the source of a job needs it.
pub(super) fn sources_of(
    known: &BTreeMap<SourceId, Connected>,
    ids: &[SourceId],
) -> Vec<Arc<dyn ChunkSource>> {
    ids.iter()
        .filter_map(|id| known.get(id))
        .map(|c| c.source.clone())
        .collect()
}
