//! What the server serves: a set of cids, and the few manifest pages in use.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chiral_core::manifest::page_of;
use chiral_core::{
    ChunkHash, ChunkStore, Cid, FileIdentification, ManifestHeader, ManifestPage, StoreError,
    StoredContent,
};

use super::meter::Meter;

/// Manifest pages kept for the ETags of chunks, 128 KiB each.
const KEPT_PAGES: usize = 16;

type KeptPage = (Cid, Arc<ManifestPage>);

/// A file that is served.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) header: ManifestHeader,
    pub(super) meter: Arc<Meter>,
}

/// Content that is served, opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) content: Arc<dyn StoredContent>,
    pub(super) meter: Arc<Meter>,
}

/// The content that is served, out of all that the store holds.
#[derive(Debug)]
pub(super) struct Seeds {
    store: Arc<dyn ChunkStore>,
    served: Mutex<BTreeMap<Cid, Served>>,
    pages: Mutex<VecDeque<KeptPage>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seeds {
    pub(super) fn new(store: Arc<dyn ChunkStore>) -> Self {
        Self {
            store,
            served: Mutex::default(),
            pages: Mutex::default(),
        }
    }

    pub(super) fn store(&self) -> &dyn ChunkStore {
        &*self.store
    }

    /// Begins to serve.
    pub(super) fn insert(&self, header: ManifestHeader) {
        let mut served = lock(&self.served);
        let before = served.get(&header.cid).map(|served| served.meter.clone());
        let meter = before.unwrap_or_default();
        served.insert(header.cid, Served { header, meter });
    }

    /// What is served, in the order of cids, from behind one of them; at most so many.
    pub(super) fn list(&self, after: Option<Cid>, most: usize) -> Vec<Served> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let served = lock(&self.served);
        let range = served.range((from, Bound::Unbounded));
        range.take(most).map(|(_, served)| served.clone()).collect()
    }

    /// Ends serving; whether it was served.
    pub(super) fn remove(&self, cid: Cid) -> bool {
        lock(&self.pages).retain(|(other, _)| *other != cid);
        lock(&self.served).remove(&cid).is_some()
    }

    /// The cid of served content.
    pub(super) fn find(&self, target: &FileIdentification) -> Option<Cid> {
        let served = lock(&self.served);
        let matches = |header: &ManifestHeader| match target {
            FileIdentification::Content { cid, .. } => header.cid == *cid,
            FileIdentification::Root(root) => header.root == *root,
            FileIdentification::Alias(alias) => header.aliases.contains(alias),
            _ => false,
        };
        match target.cid() {
            Some(cid) => served.contains_key(&cid).then_some(cid),
            None => {
                let mut headers = served.values().map(|served| &served.header);
                headers
                    .find(|header| matches(header))
                    .map(|header| header.cid)
            }
        }
    }

    /// Opens served content.
    pub(super) async fn open(&self, cid: Cid) -> Result<Option<Opened>, StoreError> {
        let meter = lock(&self.served)
            .get(&cid)
            .map(|served| served.meter.clone());
        let Some(meter) = meter else {
            return Ok(None);
        };
        let content = self.store.open(cid).await?;
        Ok(content.map(|content| Opened { content, meter }))
    }

    /// The hash of a chunk, if the page that holds it is known.
    pub(super) async fn chunk_hash(
        &self,
        content: &dyn StoredContent,
        index: u32,
    ) -> Result<Option<ChunkHash>, StoreError> {
        let cid = content.header().cid;
        if content
            .header()
            .layout()
            .is_ok_and(|layout| layout.is_last(index))
        {
            return Ok(Some(cid.into()));
        }
        let number = page_of(index);
        let kept = lock(&self.pages)
            .iter()
            .find(|(other, page)| *other == cid && page.index == number)
            .map(|(_, page)| page.clone());
        let page = match kept {
            Some(page) => page,
            None => {
                let Some(page) = content.page(number).await? else {
                    return Ok(None);
                };
                let page = Arc::new(page);
                let mut pages = lock(&self.pages);
                pages.truncate(KEPT_PAGES - 1);
                pages.push_front((cid, page.clone()));
                page
            }
        };
        let at = index as usize - number as usize * chiral_core::manifest::PAGE_CHUNKS as usize;
        Ok(page.hashes.get(at).copied())
    }
}
