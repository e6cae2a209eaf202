//! Downloads that were begun and are not complete, also those of an earlier run of the node.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chiral_core::chunk_store::Location;
use chiral_core::transfer::MAX_TRANSFERS;
use chiral_core::{
    ByteRange, Endpoint, FileIdentification, PeerOffer, Priority, Rate, StoreError, Transfer,
    TransferId,
};
use chiral_protocols::Downloads;
use serde::{Deserialize, Serialize};

use crate::state_file::StateFile;
use crate::{Get, Getting, Node, NodeError};

/// The file in the data directory, its version, and the first one that is still understood.
/// The first had neither whether to seed nor whether it is paused, the second no torrents.
const FILE: (&str, u32, u32) = ("downloads.json", 3, 1);

/// Most sources that are kept of one download: those that the user named, in their order.
const MAX_SOURCES: usize = 64;

/// A download that was begun and is not complete.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Unfinished {
    /// What it gets.
    pub target: FileIdentification,
    /// The file that it is to become; `None` if it is to stay in the store.
    pub destination: Option<PathBuf>,
    /// The part that it is to get, if not all.
    pub only: Option<ByteRange>,
    /// Sources that were named for it.
    pub offers: Vec<PeerOffer>,
    /// Its priority.
    pub priority: Priority,
    /// The limit on what it receives.
    pub limit: Option<Rate>,
    /// Whether to seed it while it is downloaded and afterwards.
    pub seed: bool,
    /// Whether it was paused when it was last under way.
    pub paused: bool,
    /// Of a torrent, its magnet link: it is gone on with by [`Node::resume_torrents`], in a
    /// build with the feature `bittorrent`.
    pub magnet: Option<String>,
    /// The directory that files of a torrent go to.
    pub directory: Option<PathBuf>,
    /// The transfer, if it is under way.
    pub transfer: Option<TransferId>,
}

impl Unfinished {
    /// Prepares to go on with it as it was: if it was paused it stays so until it is resumed,
    /// and it is seeded if the node still serves anything.
    pub fn get(&self, node: &Node) -> Get {
        let mut get = node
            .get(self.target)
            .priority(self.priority)
            .paused(self.paused)
            .seed_if_able(self.seed);
        if let Some(path) = &self.destination {
            get = get.to_file(path);
        }
        if let Some(part) = self.only {
            get = get.only(part);
        }
        if let Some(limit) = self.limit {
            get = get.limit_down(limit);
        }
        self.offers.iter().cloned().fold(get, Get::offer)
    }
}

/// A download as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    target: String,
    destination: Option<OsString>,
    only: Option<(u64, u64)>,
    sources: Vec<Source>,
    priority: Priority,
    limit: Option<Rate>,
    #[serde(default)]
    seed: bool,
    #[serde(default)]
    paused: bool,
    #[serde(default)]
    torrent: Option<TorrentRecord>,
}

/// What is kept of a torrent beside that.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TorrentRecord {
    pub(crate) magnet: String,
    pub(crate) directory: Option<OsString>,
}

/// What can be changed of a download while it is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) priority: Priority,
    pub(crate) limit: Option<Rate>,
    pub(crate) paused: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Source {
    protocol: String,
    endpoint: String,
    mirror: bool,
}

impl Record {
    pub(crate) fn new(
        target: FileIdentification,
        destination: Option<PathBuf>,
        only: Option<ByteRange>,
        offers: &[PeerOffer],
    ) -> Self {
        let source = |offer: &PeerOffer| Source {
            protocol: offer.protocol.to_string(),
            endpoint: offer.endpoint.to_string(),
            mirror: offer.mirror,
        };
        Self {
            target: target.to_string(),
            destination: destination.map(PathBuf::into_os_string),
            only: only.map(|only| (only.start, only.end)),
            sources: offers.iter().take(MAX_SOURCES).map(source).collect(),
            priority: Priority::Normal,
            limit: None,
            seed: false,
            paused: false,
            torrent: None,
        }
    }

    #[cfg(feature = "bittorrent")]
    pub(crate) fn of_torrent(mut self, torrent: TorrentRecord) -> Self {
        self.torrent = Some(torrent);
        self
    }

    pub(crate) fn seeding(mut self, seed: bool) -> Self {
        self.seed = seed;
        self
    }

    pub(crate) fn with(mut self, settings: Settings) -> Self {
        self.set(settings);
        self
    }

    fn set(&mut self, settings: Settings) {
        let Settings {
            priority,
            limit,
            paused,
        } = settings;
        (self.priority, self.limit, self.paused) = (priority, limit, paused);
    }

    /// `None` for what this build does not understand.
    fn read(&self) -> Option<Unfinished> {
        let offer = |source: &Source| {
            let endpoint = Endpoint::new(&source.endpoint).ok()?;
            let mut offer = PeerOffer::new(source.protocol.parse().ok()?, endpoint);
            offer.mirror = source.mirror;
            Some(offer)
        };
        let only = match self.only {
            Some((start, end)) if start < end => Some(ByteRange::new(start, end)),
            Some(_) => return None,
            None => None,
        };
        Some(Unfinished {
            target: self.target.parse().ok()?,
            destination: self.destination.clone().map(PathBuf::from),
            only,
            offers: self
                .sources
                .iter()
                .take(MAX_SOURCES)
                .filter_map(offer)
                .collect(),
            magnet: self.torrent.as_ref().map(|torrent| torrent.magnet.clone()),
            directory: self
                .torrent
                .as_ref()
                .and_then(|torrent| torrent.directory.clone())
                .map(PathBuf::from),
            priority: self.priority,
            limit: self.limit,
            seed: self.seed,
            paused: self.paused,
            transfer: None,
        })
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Records {
    downloads: BTreeMap<String, Record>,
}

/// The records of a node. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    records: Arc<Mutex<Records>>,
    order: Arc<tokio::sync::Mutex<()>>,
    file: Option<StateFile>,
}

impl Memory {
    /// What an earlier run left in the data directory, if there is one.
    pub(crate) fn open(directory: Option<PathBuf>) -> Self {
        let (name, version, oldest) = FILE;
        let file =
            |directory: PathBuf| StateFile::new(directory.join(name), version).reading_from(oldest);
        let file = directory.map(file);
        let mut records: Records = file.as_ref().and_then(StateFile::read).unwrap_or_default();
        while records.downloads.len() > MAX_TRANSFERS {
            records.downloads.pop_last();
        }
        Self {
            records: Arc::new(Mutex::new(records)),
            order: Arc::default(),
            file,
        }
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the records and writes them. The disk is waited for, on a thread for that.
    async fn change(&self, change: impl FnOnce(&mut Records)) {
        // Held until it is written, so that what was changed last is written last.
        let order = self.order.clone().lock_owned().await;
        let records = {
            let mut records = self.records();
            change(&mut records);
            records.clone()
        };
        let Some(file) = self.file.clone() else {
            return;
        };
        let write = tokio::task::spawn_blocking(move || {
            let written = file.write(&records);
            drop(order);
            written
        });
        match write.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "the list of downloads could not be written");
            }
            Err(error) => tracing::error!(%error, "the list of downloads was not written"),
        }
    }

    pub(crate) async fn begun(&self, record: Record) {
        self.change(move |records| {
            if records.downloads.len() < MAX_TRANSFERS {
                records.downloads.insert(record.target.clone(), record);
            }
        })
        .await;
    }

    /// Something of a download was changed.
    async fn changed(&self, target: FileIdentification, settings: Settings) {
        self.change(move |records| {
            if let Some(record) = records.downloads.get_mut(&target.to_string()) {
                record.set(settings);
            }
        })
        .await;
    }

    /// Keeps what is changed of a download, each change as soon as the last is durable, until
    /// the download ends.
    pub(crate) async fn follow(
        &self,
        transfer: Transfer,
        downloads: Downloads,
        mut known: Settings,
    ) {
        loop {
            let set = (known.priority, known.limit);
            tokio::select! {
                changed = downloads.settings_changed(transfer.id(), set) => match changed {
                    Some((priority, limit)) => (known.priority, known.limit) = (priority, limit),
                    None => return,
                },
                changed = transfer.pause_changed(known.paused) => match changed {
                    Some(paused) => known.paused = paused,
                    None => return,
                },
            }
            self.changed(transfer.target(), known).await;
        }
    }

    /// A download is complete, or nobody wants it any more.
    pub(crate) async fn over(&self, target: FileIdentification) {
        self.change(move |records| {
            records.downloads.remove(&target.to_string());
        })
        .await;
    }

    fn list(&self) -> Vec<Unfinished> {
        let records = self.records();
        records
            .downloads
            .values()
            .filter_map(Record::read)
            .collect()
    }
}

impl Node {
    /// Downloads that were begun and neither completed nor cancelled, under way or not, those
    /// of earlier runs included if the node has a data directory. Not those to bytes.
    pub fn unfinished(&self) -> Vec<Unfinished> {
        let mut list = self.inner().unfinished.list();
        for unfinished in &mut list {
            let transfer = self.registry().find(&unfinished.target);
            unfinished.transfer = transfer.map(|transfer| transfer.id());
        }
        list
    }

    /// Goes on with every unfinished download but torrents that is not under way, each as it was begun and
    /// with what was changed of it: its priority, its limit, and whether it is paused.
    pub async fn resume_all(&self) -> Vec<Result<Getting, NodeError>> {
        let mut resumed = Vec::new();
        for unfinished in self.unfinished() {
            // Torrents have a handle of their own.
            if unfinished.transfer.is_some() || unfinished.magnet.is_some() {
                continue;
            }
            if self.is_done(&unfinished).await {
                // An earlier run ended between its last step and the word that it was done.
                self.inner().unfinished.over(unfinished.target).await;
                continue;
            }
            resumed.push(unfinished.get(self).start().await);
        }
        resumed
    }

    /// Whether it is where it was to be.
    async fn is_done(&self, unfinished: &Unfinished) -> bool {
        let Some(cid) = unfinished
            .target
            .cid()
            .filter(|_| unfinished.only.is_none())
        else {
            return false;
        };
        match (self.store().object(cid).await, &unfinished.destination) {
            (Ok(Some(_)), None) => true,
            (Ok(Some(object)), Some(path)) => object.location == Location::External(path.clone()),
            _ => false,
        }
    }

    /// Gives an unfinished download up and deletes what has come of it; one that is under way
    /// is cancelled first. True if there was one.
    ///
    /// # Errors
    /// The store fails.
    pub async fn abandon(&self, target: impl Into<FileIdentification>) -> Result<bool, NodeError> {
        self.check_open()?;
        let target = target.into();
        if let Some(transfer) = self.registry().find(&target) {
            transfer.cancel();
            transfer.ended().await;
        }
        let mut any = false;
        let same = |other: &FileIdentification| {
            *other == target || (target.cid().is_some() && other.cid() == target.cid())
        };
        for unfinished in self.unfinished() {
            if same(&unfinished.target) {
                any = true;
                self.inner().unfinished.over(unfinished.target).await;
            }
        }
        for partial in self.store().partials().await? {
            if same(&partial.target) {
                any |= match self.store().discard(partial.transfer).await {
                    Err(StoreError::NotFound { .. }) => false,
                    discarded => discarded?,
                };
            }
        }
        Ok(any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chiral_core::Protocol;

    #[tokio::test]
    async fn a_record_comes_back_as_it_was_and_a_strange_one_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let cid = chiral_core::Cid::from_bytes([7; 32]);
        let mirror = Endpoint::new("http://example.org/x").unwrap();
        let offers = [PeerOffer::new(Protocol::Http, mirror).as_mirror()];
        let part = ByteRange::new(0, 262_144);
        let path = PathBuf::from("/there/it.bin");
        let record = Record::new(cid.into(), Some(path.clone()), Some(part), &offers);
        let memory = Memory::open(Some(dir.path().into()));
        let limit = "1MiB".parse().ok();
        let settings = Settings {
            priority: Priority::High,
            limit,
            paused: true,
        };
        memory.begun(record.with(settings).seeding(true)).await;
        let strange = Record::new(cid.into(), None, None, &[]);
        let target = "no such thing".to_owned();
        memory.begun(Record { target, ..strange }).await;

        let memory = Memory::open(Some(dir.path().into()));
        let [found] = &memory.list()[..] else {
            panic!("{:?}", memory.list());
        };
        assert_eq!(found.target, cid.into());
        assert_eq!((&found.destination, found.only), (&Some(path), Some(part)));
        assert_eq!((found.priority, found.limit), (Priority::High, limit));
        assert_eq!(found.offers, offers);
        assert!(found.seed && found.paused);
        let settings = Settings {
            priority: Priority::Low,
            limit: None,
            paused: false,
        };
        memory.changed(cid.into(), settings).await;
        let unknown = chiral_core::Cid::from_bytes([8; 32]);
        memory.changed(unknown.into(), settings).await;
        let memory = Memory::open(Some(dir.path().into()));
        let [found] = &memory.list()[..] else {
            panic!("{:?}", memory.list());
        };
        assert_eq!((found.priority, found.limit), (Priority::Low, None));
        assert!(found.seed && !found.paused);
        memory.over(cid.into()).await;
        assert!(Memory::open(Some(dir.path().into())).list().is_empty());
    }

    #[tokio::test]
    async fn what_the_first_version_kept_is_understood_and_what_a_later_one_keeps_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let cid = chiral_core::Cid::from_bytes([7; 32]);
        let text = |version: u32| {
            let record = format!(
                r#"{{"target":"{cid}","destination":null,"only":null,"sources":[{{"protocol":"http","endpoint":"http://example.org/x","mirror":true}}],"priority":"high","limit":1048576}}"#
            );
            format!(r#"{{"version":{version},"downloads":{{"{cid}":{record}}}}}"#)
        };
        let path = dir.path().join(FILE.0);
        std::fs::write(&path, text(1)).unwrap();
        let memory = Memory::open(Some(dir.path().into()));
        let [found] = &memory.list()[..] else {
            panic!("{:?}", memory.list());
        };
        assert_eq!((found.target, found.priority), (cid.into(), Priority::High));
        assert_eq!(found.limit, "1MiB".parse().ok());
        assert_eq!(found.offers.len(), 1);
        assert!(!found.seed && !found.paused);
        assert!(found.magnet.is_none());
        // The second had those two.
        let second = text(2).replace(
            r#""limit":1048576"#,
            r#""limit":1048576,"seed":true,"paused":true"#,
        );
        std::fs::write(&path, second).unwrap();
        let memory = Memory::open(Some(dir.path().into()));
        let [found] = &memory.list()[..] else {
            panic!("{:?}", memory.list());
        };
        assert!(found.seed && found.paused && found.magnet.is_none());
        for version in [0, 4] {
            std::fs::write(&path, text(version)).unwrap();
            assert!(Memory::open(Some(dir.path().into())).list().is_empty());
        }
    }
}
