//! Seeding what is being downloaded.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use chiral_core::transfer::{TransferEventKind, TransferState};
use chiral_core::{
    Announcement, Cid, Coverage, DirectoryError, FileIdentification, PeerDirectory, PeerId,
    PeerOffer, ProviderQuery, Transfer, TransferError,
};
use chiral_protocols::DownloadReport;
use futures_util::StreamExt;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::{Node, NodeError, share};

/// Between two announcements of what a growing file covers. Whoever connects asks for the
/// present state: this one only draws them.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(30);

/// Whether the node can seed at all.
pub(crate) fn check(node: &Node) -> Result<(), NodeError> {
    let protocols = node.manager().protocols();
    if protocols.iter().any(|p| p.capabilities().seed) {
        return Ok(());
    }
    Err(NodeError::Transfer(TransferError::Unsupported {
        protocol: node.manager().protocol(),
        operation: "seeding without an address to listen at",
    }))
}

/// A download that is seeded while it goes on.
#[derive(Debug)]
pub(crate) struct Seeding {
    task: JoinHandle<()>,
    announced: Arc<OnceLock<Cid>>,
}

/// Announces what is proven of a download, as soon as something is and as it grows.
pub(crate) fn begin(node: &Node, transfer: &Transfer) -> Seeding {
    let (node, transfer) = (node.clone(), transfer.clone());
    let announced = Arc::<OnceLock<Cid>>::default();
    let told = announced.clone();
    Seeding {
        task: tokio::spawn(async move { follow(&node, &transfer, &told).await }),
        announced,
    }
}

/// Ends with the transfer.
async fn follow(node: &Node, transfer: &Transfer, announced: &OnceLock<Cid>) {
    let mut events = transfer.events();
    let mut grown = transfer.progress().proven > 0;
    let mut due = Instant::now();
    while transfer.state() != TransferState::Ended {
        tokio::select! {
            event = events.next() => match event {
                None => break,
                Some(event) => match event.kind {
                    TransferEventKind::Ended { .. } => break,
                    TransferEventKind::ChunkProven { .. } => grown = true,
                    _ => {}
                },
            },
            () = sleep_until(due), if grown => {
                grown = false;
                announce(node, &transfer.target(), announced).await;
                due = Instant::now() + ANNOUNCE_EVERY;
            }
        }
    }
}

/// Announces what is there, if anything can be served: not before the root is known.
async fn announce(node: &Node, target: &FileIdentification, announced: &OnceLock<Cid>) {
    let Some(cid) = target.cid() else { return };
    let open = async {
        // Whoever has all of it already shares it or not, as he said.
        match node.store().object(cid).await? {
            Some(_) => Ok(None),
            None => node.store().open(cid).await,
        }
    };
    let content = match open.await {
        Ok(Some(content)) => content,
        Ok(None) => return,
        Err(error) => return tracing::debug!(%cid, %error, "cannot be seeded yet"),
    };
    if matches!(content.coverage(), Coverage::Partial(runs) if runs.is_empty()) {
        return;
    }
    // Before: whatever comes of it may have to be taken back.
    announced.get_or_init(|| cid);
    match share::seed(node, content.header().clone()).await {
        Ok(_) => tracing::debug!(%cid, "seeding what is there"),
        Err(error) => tracing::debug!(%cid, %error, "not announced"),
    }
}

impl Seeding {
    /// What was got is not to be seeded by itself: nothing of it is any more.
    #[cfg(feature = "bittorrent")]
    pub(crate) async fn leave(self, node: &Node) {
        self.task.abort();
        // It was told to end.
        self.task.await.unwrap_or_default();
        if let Some(cid) = self.announced.get() {
            let ended = share::unshare(node, *cid).await;
            tracing::debug!(%cid, ?ended, "not seeded any more");
        }
    }

    /// The download is over: if it is complete all of it is seeded from now on, else nothing.
    /// That is announced in the background: the file is there, whoever hears of it.
    pub(crate) async fn end(self, node: &Node, report: &Result<DownloadReport, TransferError>) {
        self.task.abort();
        match self.task.await {
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // What was announced stays so, whether somebody waits for it or not.
            Ok(()) | Err(_) => {}
        }
        match report {
            Ok(report) => {
                let cid = report.header.cid;
                if let Err(error) = share::keep(node, cid).await {
                    return tracing::warn!(%cid, %error, "complete and not seeded");
                }
                let (node, header) = (node.clone(), report.header.clone());
                let cashier = node.inner().cashier.clone();
                let part = report.object.is_none();
                cashier.spawn(async move {
                    if let Err(error) = share::seed(&node, header).await {
                        tracing::warn!(%cid, %error, "complete and not announced");
                    }
                    // Not shared any more, by somebody who was faster.
                    if !part && matches!(share::is_shared(&node, cid).await, Ok(false)) {
                        let ended = share::unshare(&node, cid).await;
                        tracing::debug!(%cid, ?ended, "not seeded any more");
                    }
                });
            }
            Err(_) => {
                if let Some(cid) = self.announced.get() {
                    // A node that is shutting down withdraws everything anyway.
                    let ended = share::unshare(node, *cid).await;
                    tracing::debug!(%cid, ?ended, "not seeded any more");
                }
            }
        }
    }
}

/// A directory as a downloader sees it: without himself.
#[derive(Clone, Debug)]
pub(crate) struct Others {
    directory: Arc<dyn PeerDirectory>,
    me: Option<PeerId>,
}

impl Others {
    pub(crate) fn of(node: &Node) -> Self {
        Self {
            directory: node.directory().clone(),
            me: node.peer_id().cloned(),
        }
    }
}

#[async_trait]
impl PeerDirectory for Others {
    async fn announce(&self, announcement: Announcement) -> Result<(), DirectoryError> {
        self.directory.announce(announcement).await
    }

    async fn withdraw(&self, target: &FileIdentification) -> Result<bool, DirectoryError> {
        self.directory.withdraw(target).await
    }

    async fn providers(&self, query: ProviderQuery) -> Result<Vec<PeerOffer>, DirectoryError> {
        let mut offers = self.directory.providers(query).await?;
        offers.retain(|offer| offer.peer.is_none() || offer.peer != self.me);
        Ok(offers)
    }

    async fn shutdown(&self) -> Result<(), DirectoryError> {
        self.directory.shutdown().await
    }
}
