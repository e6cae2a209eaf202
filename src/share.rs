//! Sharing: import once, seed over every protocol, announce.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use chiral_core::chunk_store::{ImportMode, ImportRequest, ImportSource, ProgressFn};
use chiral_core::content_protocol::SeedContent;
use chiral_core::{
    Announcement, Cid, FileIdentification, FileMetadata, Link, ManifestHeader, Price, Rate,
    SeedRequest, StoreError,
};

use crate::{Node, NodeError};

/// The pin under which shared content is kept.
const PIN: &str = "share";

/// What to share, and how.
#[derive(Clone)]
pub struct Share {
    content: SeedContent,
    name: Option<String>,
    mime: Option<String>,
    progress: Option<ProgressFn>,
    price: Option<Price>,
    limit: Option<Rate>,
}

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Share")
            .field("content", &self.content)
            .finish_non_exhaustive()
    }
}

impl Share {
    fn new(content: SeedContent) -> Self {
        Self {
            content,
            name: None,
            mime: None,
            progress: None,
            price: None,
            limit: None,
        }
    }

    /// A file, served from where it is: it must not change while it is shared.
    pub fn path(path: impl Into<PathBuf>) -> Self {
        Self::new(SeedContent::Path(path.into(), ImportMode::InPlace))
    }

    /// A file, of which the store makes a copy.
    pub fn copy_of(path: impl Into<PathBuf>) -> Self {
        Self::new(SeedContent::Path(path.into(), ImportMode::Copy))
    }

    /// Bytes.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self::new(SeedContent::Bytes(bytes.into()))
    }

    /// Content that the store holds, complete or in part: what a download left there.
    pub fn stored(cid: Cid) -> Self {
        Self::new(SeedContent::Stored(cid))
    }

    /// Name for the manifest; of a path, its last component unless given.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Media type for the manifest.
    #[must_use]
    pub fn mime(mut self, mime: impl Into<String>) -> Self {
        self.mime = Some(mime.into());
        self
    }

    /// What to be paid for it, instead of the node's usual price; needs payments.
    #[must_use]
    pub fn price(mut self, price: Price) -> Self {
        self.price = Some(price);
        self
    }

    /// Limits what is served of it, beside the limit on all. [`Node::uploads`] changes it.
    #[must_use]
    pub fn limit_up(mut self, limit: Rate) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Is told bytes hashed and bytes in all, often and from any thread.
    #[must_use]
    pub fn progress(mut self, report: impl Fn(u64, u64) + Send + Sync + 'static) -> Self {
        self.progress = Some(std::sync::Arc::new(report));
        self
    }
}

impl From<&Path> for Share {
    fn from(path: &Path) -> Self {
        Self::path(path)
    }
}

impl From<PathBuf> for Share {
    fn from(path: PathBuf) -> Self {
        Self::path(path)
    }
}

impl From<Bytes> for Share {
    fn from(bytes: Bytes) -> Self {
        Self::bytes(bytes)
    }
}

impl From<Vec<u8>> for Share {
    fn from(bytes: Vec<u8>) -> Self {
        Self::bytes(bytes)
    }
}

/// Something that is shared.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Shared {
    /// The full link.
    pub link: Link,
    /// Identity, hints, and this node's own offers, one for each protocol.
    pub metadata: FileMetadata,
}

impl Shared {
    /// Its cid.
    pub fn cid(&self) -> Cid {
        self.link.cid
    }
}

pub(crate) async fn share(node: &Node, share: Share) -> Result<Shared, NodeError> {
    let (header, imported) = import(node, &share).await?;
    if let Some(price) = share.price {
        set_price(node, header.cid, price).await?;
    }
    if let Some(limit) = share.limit {
        node.uploads().set_file_limit(header.cid, Some(limit));
    }
    match seed(node, header.clone()).await {
        Ok(metadata) => Ok(Shared {
            link: header.link(),
            metadata,
        }),
        Err(error) => {
            // All or nothing: what was begun is taken back; the first error is what counts.
            let taken_back = node.manager().stop_sharing(&header.cid.into()).await;
            if imported {
                let unpinned = node.store().unpin(header.cid, PIN).await;
                tracing::debug!(?taken_back, ?unpinned, "sharing failed and was taken back");
            }
            Err(error)
        }
    }
}

/// What it costs has to be known before it is announced.
async fn set_price(node: &Node, cid: Cid, price: Price) -> Result<(), NodeError> {
    #[cfg(feature = "chain")]
    if let Some(payments) = node.payments() {
        return crate::money::keep_price(payments, cid, price).await;
    }
    if node.gate().tariff(cid).price == price {
        Ok(())
    } else {
        Err(NodeError::NoPayments)
    }
}

/// Keeps a complete object for being shared.
pub(crate) async fn keep(node: &Node, cid: Cid) -> Result<(), NodeError> {
    match node.store().pin(cid, PIN).await {
        // Of a part there is no object.
        Ok(_) | Err(StoreError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether a complete object is kept for being shared.
pub(crate) async fn is_shared(node: &Node, cid: Cid) -> Result<bool, NodeError> {
    let object = node.store().object(cid).await?;
    Ok(object.is_some_and(|object| object.pins.iter().any(|pin| pin == PIN)))
}

/// Announces a file with what is asked for it now, if it is shared.
#[cfg(feature = "chain")]
pub(crate) async fn announce_again(node: &Node, cid: Cid) -> Result<(), NodeError> {
    match node.store().object(cid).await? {
        Some(object) if object.pins.iter().any(|pin| pin == PIN) => {
            seed(node, object.header).await?;
            Ok(())
        }
        _ => Ok(()),
    }
}

async fn import(node: &Node, share: &Share) -> Result<(ManifestHeader, bool), NodeError> {
    let store = node.store();
    let (source, mode) = match &share.content {
        SeedContent::Path(path, mode) => (ImportSource::Path(path.clone()), *mode),
        SeedContent::Bytes(bytes) => (ImportSource::Bytes(bytes.clone()), ImportMode::Copy),
        SeedContent::Stored(cid) => {
            if let Some(object) = store.object(*cid).await? {
                store.pin(*cid, PIN).await?;
                return Ok((object.header, true));
            }
            let content = store
                .open(*cid)
                .await?
                .ok_or(StoreError::NotFound { cid: *cid })?;
            return Ok((content.header().clone(), false));
        }
        _ => return Err(NodeError::Closed),
    };
    let mut request = ImportRequest::new(source);
    request.mode = mode;
    request.name = share.name.clone();
    request.mime = share.mime.clone();
    request.progress = share.progress.clone();
    #[cfg(feature = "bittorrent")]
    request.sidecars.extend(crate::torrent::sidecar(node));
    // A clock before 1970 gives 0, which is as good a hint.
    request.created_at = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let object = store.import(request).await?;
    store.pin(object.header.cid, PIN).await?;
    Ok((object.header, true))
}

/// Takes a file in where it is; keeps it for being shared, if it is to be.
#[cfg(feature = "bittorrent")]
pub(crate) async fn take_in(
    node: &Node,
    path: &Path,
    keep: bool,
) -> Result<ManifestHeader, NodeError> {
    let mut request = ImportRequest::new(ImportSource::Path(path.to_owned()));
    request.mode = ImportMode::InPlace;
    request.sidecars.extend(crate::torrent::sidecar(node));
    let object = node.store().import(request).await?;
    if keep {
        node.store().pin(object.header.cid, PIN).await?;
    }
    Ok(object.header)
}

pub(crate) async fn seed(
    node: &Node,
    mut header: ManifestHeader,
) -> Result<FileMetadata, NodeError> {
    let mut offers = Vec::new();
    for protocol in node.manager().seeding_protocols() {
        let request = SeedRequest::new(SeedContent::Stored(header.cid));
        let seeded = protocol.start_seeding(request).await?;
        // What it is called over this protocol: one name of each kind, in their order.
        for alias in seeded.header.aliases {
            header.aliases.retain(|other| other.kind() != alias.kind());
            header.aliases.push(alias);
        }
        header.aliases.sort();
        offers.extend(seeded.offers);
    }
    for offer in &mut offers {
        offer.peer = offer.peer.take().or_else(|| node.peer_id().cloned());
        offer.header = Some(header.clone());
    }
    if !offers.is_empty() {
        node.directory()
            .announce(Announcement::new(header.clone(), offers.clone()))
            .await?;
    }
    Ok(FileMetadata::new(header, offers))
}

pub(crate) async fn unshare(node: &Node, cid: Cid) -> Result<bool, NodeError> {
    let target = FileIdentification::from(cid);
    let withdrawn = node.directory().withdraw(&target).await;
    let stopped = node.manager().stop_sharing(&target).await;
    let unpinned = match node.store().unpin(cid, PIN).await {
        Err(StoreError::NotFound { .. }) => Ok(0),
        other => other,
    };
    node.uploads().set_file_limit(cid, None);
    let any = withdrawn? | stopped?;
    unpinned?;
    Ok(any)
}
