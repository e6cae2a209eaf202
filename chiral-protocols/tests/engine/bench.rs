//! What every download of these tests needs, and what must hold of its result.

use std::sync::Arc;
use std::time::Duration;

use chiral_core::chunk_store::MAX_READ;
use chiral_core::transfer::{TransferEvent, TransferEventKind};
use chiral_core::{
    ByteRange, ChunkStore, DownloadRequest, FileIdentification, PeerOffer, TransferError,
    TransferId,
};
use chiral_protocols::{Delivered, Download, DownloadReport, Engine, EngineConfig};
use chiral_storage::MemoryStore;
use futures_util::StreamExt;

use super::fake::{FakeNetwork, File};

/// A store, an engine and a network of fakes.
pub(crate) struct Bench {
    pub(crate) store: Arc<dyn ChunkStore>,
    pub(crate) engine: Engine,
    pub(crate) network: FakeNetwork,
    pub(crate) next: std::cell::Cell<u8>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let mut config = EngineConfig::default().with_source_patience(Duration::from_secs(2));
        config.manifest_patience = Duration::from_millis(300);
        config.scheduler.stall_timeout = Duration::from_millis(300);
        config.scheduler.first_byte_timeout = Duration::from_millis(500);
        config.request_timeout = Duration::from_secs(1);
        Self::with(config)
    }

    /// One that takes nobody for late because the machine is busy.
    pub(crate) fn patient() -> Self {
        let mut config = EngineConfig::default().with_source_patience(Duration::from_secs(20));
        config.scheduler.stall_timeout = Duration::from_secs(10);
        config.scheduler.first_byte_timeout = Duration::from_secs(10);
        config.request_timeout = Duration::from_secs(20);
        Self::with(config)
    }

    pub(crate) fn with(config: EngineConfig) -> Self {
        let network = FakeNetwork::default();
        let store: Arc<dyn ChunkStore> = Arc::new(MemoryStore::new(1 << 30));
        let engine = Engine::new(store.clone(), network.registry.clone(), config);
        Self {
            store,
            engine,
            network,
            next: 0.into(),
        }
    }

    pub(crate) fn start(
        &self,
        target: impl Into<FileIdentification>,
        offers: Vec<PeerOffer>,
    ) -> Download {
        self.start_request(target, offers, |_| {})
    }

    pub(crate) fn start_request(
        &self,
        target: impl Into<FileIdentification>,
        offers: Vec<PeerOffer>,
        change: impl FnOnce(&mut DownloadRequest),
    ) -> Download {
        let mut request = DownloadRequest::new(target.into());
        request.offers = offers;
        self.network.tell_anew();
        change(&mut request);
        self.next.set(self.next.get() + 1);
        let id = TransferId::from_bytes([self.next.get(); 16]);
        self.engine
            .download(id, request, Arc::new(self.network.clone()))
            .unwrap()
    }

    /// Runs a download to its end and gathers its events.
    pub(crate) async fn get(
        &self,
        target: impl Into<FileIdentification>,
        offers: Vec<PeerOffer>,
    ) -> (Result<DownloadReport, TransferError>, Vec<TransferEvent>) {
        let all = self.network.registry.events();
        let download = self.start(target, offers);
        let id = download.transfer().id();
        let events = tokio::spawn(
            all.take_until(tokio::time::sleep(Duration::from_secs(60)))
                .scan(false, move |over, event| {
                    let go_on = !*over;
                    *over = event.transfer == id
                        && matches!(event.kind, TransferEventKind::Ended { .. });
                    std::future::ready(go_on.then_some(event))
                })
                .collect::<Vec<_>>(),
        );
        let result = tokio::time::timeout(Duration::from_secs(60), download.finished())
            .await
            .unwrap();
        // The scan ends with the event after the last; nothing else is on this registry.
        let (_, driver) = self
            .network
            .registry
            .begin(
                TransferId::from_bytes([255; 16]),
                FileIdentification::Root(chiral_core::MerkleRoot::from_bytes([1; 32])),
            )
            .unwrap();
        drop(driver);
        let events: Vec<_> = events.await.unwrap();
        (
            result,
            events
                .into_iter()
                .filter(|event| event.transfer == id)
                .collect(),
        )
    }

    pub(crate) async fn stored(&self, file: &File) -> Vec<u8> {
        let content = self.store.open(file.cid()).await.unwrap().unwrap();
        let size = file.layout.size();
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < size {
            let at = bytes.len() as u64;
            let range = ByteRange::new(at, size.min(at + MAX_READ));
            bytes.extend_from_slice(&content.read(range).await.unwrap());
        }
        bytes
    }

    pub(crate) async fn assert_complete(
        &self,
        file: &File,
        result: Result<DownloadReport, TransferError>,
    ) -> DownloadReport {
        let report = result.unwrap();
        assert_eq!(report.header.cid, file.cid());
        assert_eq!(report.header.root, file.header.root);
        assert!(self.stored(file).await == file.data, "stored bytes differ");
        let billed: u64 = report.delivered.iter().map(|part| part.ranges.len()).sum();
        assert!(billed <= file.layout.size(), "more billed than delivered");
        // Each source was told of what was its own, before the end.
        for (name, told) in self.network.told() {
            let of_it = |part: &&Delivered| part.offer.endpoint.as_str() == name;
            let delivered = report.delivered.iter().find(of_it);
            let expected = delivered.map(|part| part.ranges.clone());
            assert_eq!(told.verified, expected.unwrap_or_default(), "{name}");
        }
        report
    }
}
