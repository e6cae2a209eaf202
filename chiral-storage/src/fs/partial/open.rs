//! Beginning, going on with, listing and discarding downloads.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use chiral_core::chunk_store::{PartialInfo, PartialRequest};
use chiral_core::{ChunkLayout, StoreError, TransferId};

use super::super::disk::is_missing;
use super::super::hash_list;
use super::super::meta::record::PartialRecord;
use super::super::shared::Shared;
use super::super::vfs::OpenMode;
use super::{Partial, PartialHandle, Phase, SpansList, held};
use crate::blocking::lock;
use crate::requests;

/// Goes on with a partial file of this target and size, or begins one.
pub(in crate::fs) fn begin(
    shared: &Arc<Shared>,
    request: &PartialRequest,
) -> Result<PartialHandle, StoreError> {
    let _registry = lock(&shared.registry);
    begin_alone(shared, request).map(PartialHandle::new)
}

fn begin_alone(shared: &Arc<Shared>, request: &PartialRequest) -> Result<Arc<Partial>, StoreError> {
    let layout = requests::partial_layout(request)?;
    if !PartialRecord::is_storable(&request.target) {
        return Err(StoreError::Unsupported {
            what: "this target",
        });
    }
    shared.check_open()?;
    shared.recover_if_needed()?;
    let known = shared.meta.partials()?;
    let same = known.iter().find(|(_, record)| {
        record.size == request.size
            && requests::same_target(&record.target, record.header.as_ref(), &request.target)
    });
    if let Some((transfer, record)) = same {
        if lies_elsewhere(shared, *transfer, request)? {
            tracing::warn!(%transfer, "it goes to other files now; beginning again");
            shared.meta.mark_discarded(*transfer)?;
            shared.finish_discard(*transfer)?;
            return create(shared, request, layout);
        }
        match open_known(shared, *transfer, record) {
            Err(error) if is_missing(&error) => {
                tracing::error!(%transfer, %error, "partial file is gone; beginning again");
                shared.finish_discard(*transfer)?;
            }
            result => return result,
        }
    } else if known
        .iter()
        .any(|(transfer, _)| *transfer == request.transfer)
    {
        let path = shared.places.partial_data(request.transfer);
        return Err(StoreError::AlreadyExists { path });
    }
    create(shared, request, layout)
}

/// Whether a partial file lies in other files than it is to lie in now. Nobody may hold it then.
fn lies_elsewhere(
    shared: &Shared,
    transfer: TransferId,
    request: &PartialRequest,
) -> Result<bool, StoreError> {
    let Some(spans) = &request.spans else {
        return Ok(false);
    };
    let list = SpansList::load(shared, transfer)?;
    if list.is_some_and(|list| list.spans == *spans) {
        return Ok(false);
    }
    let held = lock(&shared.partials).get(&transfer).cloned();
    if let Some(held) = held.and_then(|held| held.upgrade()) {
        if held.handles.load(Ordering::Acquire) > 0 {
            let path = shared.places.partial_data(transfer);
            return Err(StoreError::AlreadyExists { path });
        }
        held.abandon();
    }
    Ok(true)
}

/// A partial file that is on record: the one that somebody holds, or opened again.
pub(in crate::fs) fn open_known(
    shared: &Arc<Shared>,
    transfer: TransferId,
    record: &PartialRecord,
) -> Result<Arc<Partial>, StoreError> {
    let mut partials = lock(&shared.partials);
    let held = partials.get(&transfer).and_then(std::sync::Weak::upgrade);
    if let Some(held) = held.filter(|held| held.is_usable()) {
        return Ok(held);
    }
    let layout = requests::layout(record.size)?;
    let state = shared.meta.partial_state(transfer, layout)?;
    let partial = Partial::new(shared, transfer, record.clone(), layout, state)?;
    if !partial.data.is_there(layout.size())?
        || partial.hashes.stat()?.len < hash_list::hashes_len(layout)
    {
        let path = shared.places.partial_data(transfer);
        let source = std::io::ErrorKind::NotFound.into();
        return Err(StoreError::Io {
            operation: "go on with",
            path,
            source,
        });
    }
    let partial = Arc::new(partial);
    partials.insert(transfer, Arc::downgrade(&partial));
    Ok(partial)
}

fn create(
    shared: &Arc<Shared>,
    request: &PartialRequest,
    layout: ChunkLayout,
) -> Result<Arc<Partial>, StoreError> {
    let record = PartialRecord {
        target: request.target,
        size: request.size,
        header: None,
    };
    let spans = match &request.spans {
        Some(spans) => SpansList::make(shared, request.transfer, spans),
        None => Ok(()),
    };
    let made = spans
        .and_then(|()| make_files(shared, request.transfer, layout))
        .and_then(|()| shared.meta.set_partial(request.transfer, &record))
        .and_then(|()| open_known(shared, request.transfer, &record));
    if made.is_err() {
        // Best effort: what stays is without a record and goes at the next start.
        let _ = shared.remove_partial_files(request.transfer);
    }
    made
}

fn make_files(
    shared: &Shared,
    transfer: TransferId,
    layout: ChunkLayout,
) -> Result<(), StoreError> {
    for (path, len) in [
        (shared.places.partial_data(transfer), layout.size()),
        (
            shared.places.partial_hashes(transfer),
            hash_list::hashes_len(layout),
        ),
    ] {
        let file = shared.disk.open(&path, OpenMode::CreateNew)?;
        file.set_len(len)?;
        file.sync()?;
    }
    shared.disk.sync_dir(&shared.places.partial())
}

/// All partial files.
pub(in crate::fs) fn list(shared: &Arc<Shared>) -> Result<Vec<PartialInfo>, StoreError> {
    shared.check_open()?;
    let held = held(shared);
    let info = |(transfer, record): (TransferId, PartialRecord)| {
        if let Some(partial) = held.get(&transfer).filter(|partial| partial.is_usable()) {
            return Ok(partial.info());
        }
        let layout = requests::layout(record.size)?;
        let state = shared.meta.partial_state(transfer, layout)?;
        let (present, proven) = (state.present.count_ones(), state.proven.count_ones());
        Ok(PartialInfo::new(
            transfer,
            record.target,
            record.size,
            present,
            proven,
        ))
    };
    shared.meta.partials()?.into_iter().map(info).collect()
}

/// Deletes a partial file; answers whether there was one.
pub(in crate::fs) fn discard(
    shared: &Arc<Shared>,
    transfer: TransferId,
) -> Result<bool, StoreError> {
    loop {
        let of_map = || {
            lock(&shared.partials)
                .get(&transfer)
                .and_then(std::sync::Weak::upgrade)
        };
        let held = of_map();
        if let Some(partial) = &held {
            partial.abandon();
        }
        let _registry = lock(&shared.registry);
        shared.check_open()?;
        shared.recover_if_needed()?;
        let now = of_map();
        if now.is_some() && now.as_ref().map(Arc::as_ptr) != held.as_ref().map(Arc::as_ptr) {
            // Somebody opened it again meanwhile.
            continue;
        }
        if !shared
            .meta
            .partials()?
            .iter()
            .any(|(known, _)| *known == transfer)
        {
            return Ok(false);
        }
        shared.meta.mark_discarded(transfer)?;
        let finished = shared.finish_discard(transfer);
        if finished.is_err() {
            shared.meta.unsettle();
        }
        return finished.map(|()| true);
    }
}

impl Partial {
    /// Ends writing for good; waits for what is being written or completed.
    fn abandon(&self) {
        let mut phase = self
            .phase
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if *phase == Phase::Live {
            *phase = Phase::Gone;
            let _commit = lock(&self.commit);
            lock(&self.pending).abandon();
        }
    }
}

impl Shared {
    /// Second half of discarding: unlinks the files, then forgets the records.
    pub(in crate::fs) fn finish_discard(&self, transfer: TransferId) -> Result<(), StoreError> {
        self.remove_partial_files(transfer)?;
        self.disk.sync_dir(&self.places.partial())?;
        self.meta.forget_partial(transfer)
    }

    pub(in crate::fs) fn remove_partial_files(
        &self,
        transfer: TransferId,
    ) -> Result<(), StoreError> {
        if let Some(list) = SpansList::load(self, transfer)? {
            list.remove_unfinished(self)?;
        }
        self.disk.remove(&self.places.partial_spans(transfer))?;
        self.disk.remove(&self.places.partial_data(transfer))?;
        self.disk.remove(&self.places.partial_hashes(transfer))?;
        self.disk.remove(&self.places.partial_pages(transfer))
    }
}
