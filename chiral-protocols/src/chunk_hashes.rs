//! [`ChunkHashes`]: the hashes of single chunks, from the few manifest pages in use.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chiral_core::manifest::{PAGE_CHUNKS, page_of};
use chiral_core::{ChunkHash, Cid, ManifestPage, StoreError, StoredContent};

/// Manifest pages kept, 128 KiB each.
const KEPT_PAGES: usize = 16;

type KeptPage = (Cid, Arc<ManifestPage>);

/// The pages that were asked for last.
#[derive(Debug, Default)]
pub(crate) struct ChunkHashes {
    pages: Mutex<VecDeque<KeptPage>>,
}

impl ChunkHashes {
    fn pages(&self) -> MutexGuard<'_, VecDeque<KeptPage>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hash of a chunk, if the page that holds it is known.
    pub(crate) async fn of(
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
        let kept = self
            .pages()
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
                let mut pages = self.pages();
                pages.truncate(KEPT_PAGES - 1);
                pages.push_front((cid, page.clone()));
                page
            }
        };
        let at = index as usize - number as usize * PAGE_CHUNKS as usize;
        Ok(page.hashes.get(at).copied())
    }
}
