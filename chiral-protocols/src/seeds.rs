//! What a protocol serves: a set of cids.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use std::time::{SystemTime, UNIX_EPOCH};

use chiral_core::chunk_store::{ImportRequest, ImportSource};
use chiral_core::content_protocol::SeedContent;
use chiral_core::{
    ChunkStore, Cid, FileIdentification, ManifestHeader, PeerOffer, Protocol, SeedRequest,
    StoreError, StoredContent, TransferError,
};

use crate::meter::Meter;

/// A file that is served.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) header: ManifestHeader,
    pub(crate) meter: Arc<Meter>,
}

/// Content that is served, opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) content: Arc<dyn StoredContent>,
    pub(crate) meter: Arc<Meter>,
}

/// The content that is served, out of all that the store holds.
#[derive(Debug)]
pub(crate) struct Seeds {
    store: Arc<dyn ChunkStore>,
    served: Mutex<BTreeMap<Cid, Served>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seeds {
    pub(crate) fn new(store: Arc<dyn ChunkStore>) -> Self {
        Self {
            store,
            served: Mutex::default(),
        }
    }

    pub(crate) fn store(&self) -> &dyn ChunkStore {
        &*self.store
    }

    /// Begins to serve.
    pub(crate) fn insert(&self, header: ManifestHeader) {
        let mut served = lock(&self.served);
        let before = served.get(&header.cid).map(|served| served.meter.clone());
        let meter = before.unwrap_or_default();
        served.insert(header.cid, Served { header, meter });
    }

    /// Ends serving; whether it was served.
    pub(crate) fn remove(&self, cid: Cid) -> bool {
        lock(&self.served).remove(&cid).is_some()
    }

    /// As [`import`], into this store.
    pub(crate) async fn import(
        &self,
        request: &SeedRequest,
        pin: &str,
        protocol: Protocol,
    ) -> Result<Cid, TransferError> {
        import(&*self.store, request, pin, protocol).await
    }

    /// As [`unpin`], in this store.
    pub(crate) async fn unpin(&self, cid: Cid, pin: &str) -> Result<(), StoreError> {
        unpin(&*self.store, cid, pin).await
    }

    /// The cid of served content.
    pub(crate) fn find(&self, target: &FileIdentification) -> Option<Cid> {
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
    pub(crate) async fn open(&self, cid: Cid) -> Result<Option<Opened>, StoreError> {
        let meter = lock(&self.served)
            .get(&cid)
            .map(|served| served.meter.clone());
        let Some(meter) = meter else {
            return Ok(None);
        };
        let content = self.store.open(cid).await?;
        Ok(content.map(|content| Opened { content, meter }))
    }
}

#[cfg(feature = "http")]
impl Seeds {
    /// What is served, in the order of cids, from behind one of them; at most so many.
    pub(crate) fn list(&self, after: Option<Cid>, most: usize) -> Vec<Served> {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let served = lock(&self.served);
        let range = served.range((from, std::ops::Bound::Unbounded));
        range.take(most).map(|(_, served)| served.clone()).collect()
    }
}

/// The cid to ask a seeder for: that of the target, or of the offer's header if it is the
/// target's.
pub(crate) fn cid_of(offer: &PeerOffer, target: &FileIdentification) -> Result<Cid, TransferError> {
    let announced = offer.header.as_ref().filter(|header| match target {
        FileIdentification::Root(root) => header.root == *root,
        FileIdentification::Alias(alias) => header.aliases.contains(alias),
        _ => false,
    });
    target
        .cid()
        .or(announced.map(|header| header.cid))
        .ok_or_else(|| TransferError::Unknown {
            target: target.to_string(),
        })
}

/// Takes content into the store, if it is not there yet, and pins it under a name.
pub(crate) async fn import(
    store: &dyn ChunkStore,
    request: &SeedRequest,
    pin: &str,
    protocol: Protocol,
) -> Result<Cid, TransferError> {
    let (source, mode) = match &request.content {
        SeedContent::Path(path, mode) => (ImportSource::Path(path.clone()), Some(*mode)),
        SeedContent::Bytes(bytes) => (ImportSource::Bytes(bytes.clone()), None),
        SeedContent::Stored(cid) => return Ok(*cid),
        _ => {
            let operation = "seeding this kind of content";
            return Err(TransferError::Unsupported {
                protocol,
                operation,
            });
        }
    };
    let mut import = ImportRequest::new(source);
    import.mode = mode.unwrap_or(import.mode);
    import.name.clone_from(&request.name);
    import.progress.clone_from(&request.progress);
    // A clock before 1970 gives no time.
    import.created_at = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let object = store.import(import).await?;
    store.pin(object.header.cid, pin).await?;
    Ok(object.header.cid)
}

/// Takes the pin of that name away, if the content has it.
pub(crate) async fn unpin(store: &dyn ChunkStore, cid: Cid, pin: &str) -> Result<(), StoreError> {
    let object = store.object(cid).await?;
    if object.is_some_and(|object| object.pins.iter().any(|name| name == pin)) {
        store.unpin(cid, pin).await?;
    }
    Ok(())
}
