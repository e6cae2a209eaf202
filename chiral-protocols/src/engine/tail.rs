//! The tail check: the last chunk, from the hash before it, leads to the cid. It settles
//! the size of the file and which of the announced roots can be right.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chiral_core::chunk_source::collect;
use chiral_core::manifest::page_count;
use chiral_core::{ChunkSource, Cid, VerifiedChunk, VerifiedPage, chain};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::backward::Candidate;
use super::pages;
use super::run::describe;
use super::source::Connected;
use crate::scheduler::SourceId;

/// After this time without an answer another source is asked for the last chunk, too: one that
/// stalls does not hold the beginning up for as long as it is waited for.
const ANOTHER_AFTER: Duration = Duration::from_millis(500);

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

/// Checks all candidates at once; the first that closes wins. If none does, the error of the
/// last source that did not deliver, if there was one.
pub(super) async fn check(
    candidates: &[Candidate],
    known: &BTreeMap<SourceId, Connected>,
    cid: Cid,
    limit: Duration,
) -> Result<Tail, Option<String>> {
    let trouble = Mutex::new(None);
    let mut checks: FuturesUnordered<_> = candidates
        .iter()
        .enumerate()
        .map(|(at, candidate)| check_one(at, candidate, known, cid, limit, &trouble))
        .collect();
    while let Some(result) = checks.next().await {
        if let Some(tail) = result {
            return Ok(tail);
        }
    }
    drop(checks);
    Err(trouble.into_inner().unwrap_or_else(PoisonError::into_inner))
}

async fn check_one(
    winner: usize,
    candidate: &Candidate,
    known: &BTreeMap<SourceId, Connected>,
    cid: Cid,
    limit: Duration,
    trouble: &Mutex<Option<String>>,
) -> Option<Tail> {
    let layout = candidate.header.layout().ok()?;
    let last = layout.last()?;
    let announcers = candidate.announcers.iter().filter_map(|id| known.get(id));
    let sources = announcers
        .map(|connected| connected.source.clone())
        .collect();
    let at = page_count(layout) - 1;
    let page = pages::fetch(sources, candidate.root, layout, at, limit)
        .await
        .ok()?;
    let (before, leaf) = page.around(last)?;
    if leaf.into_cid() != cid {
        return None;
    }
    // Bytes of announcers first, then of anybody who has a file of this size: a pair that
    // does not close condemns neither the bytes nor the hash before them.
    let (mut order, others): (Vec<_>, Vec<_>) = known
        .iter()
        .filter(|(_, connected)| connected.fits(layout) && connected.coverage.contains(last))
        .partition(|(id, _)| candidate.announcers.contains(id));
    order.extend(others);
    let mut failed: Vec<(SourceId, Bytes)> = Vec::new();
    let mut waiting = order.into_iter();
    let mut asked = FuturesUnordered::new();
    loop {
        if let Some((id, connected)) = waiting.next() {
            asked.push(async move {
                let fetching = collect(&*connected.source, layout.range(last), layout.size());
                (id, tokio::time::timeout(limit, fetching).await)
            });
        }
        let answer = if waiting.len() == 0 {
            asked.next().await
        } else {
            match tokio::time::timeout(ANOTHER_AFTER, asked.next()).await {
                Ok(answer) => answer,
                Err(_) => continue,
            }
        };
        // All were asked, and none is left that could answer.
        let (id, answer) = answer?;
        let bytes = match answer {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) => {
                let mut trouble = trouble.lock().unwrap_or_else(PoisonError::into_inner);
                *trouble = Some(describe(&error));
                continue;
            }
            Err(_) => continue,
        };
        let checked = bytes.clone();
        let verified = tokio::task::spawn_blocking(move || {
            VerifiedChunk::check(layout, last, before, cid.into(), checked)
        });
        match verified.await {
            Ok(Ok(chunk)) => {
                let wrong =
                    |sent: &Bytes| chain::check(layout, last, before, cid.into(), sent).is_err();
                let refuted = failed
                    .iter()
                    .filter(|(_, sent)| wrong(sent))
                    .map(|(id, _)| *id)
                    .collect();
                return Some(Tail {
                    winner,
                    page,
                    chunk,
                    from: *id,
                    refuted,
                });
            }
            _ => failed.push((*id, bytes)),
        }
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
