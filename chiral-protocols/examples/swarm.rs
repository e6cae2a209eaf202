//! A peer in a BitTorrent swarm, on the public API alone: seeds a file, or gets one.
//!
//! ```text
//! cargo run --release -p chiral-protocols --features bittorrent --example swarm -- \
//!     seed FILE [--torrent FILE.torrent] [--write OUT.torrent] [--listen 127.0.0.1:0] [--dial HOST:PORT]...
//! cargo run --release -p chiral-protocols --features bittorrent --example swarm -- \
//!     get TORRENT|btih:HEX|btmh:HEX CID|LINK OUT [--peer HOST:PORT]... [--listen 127.0.0.1:0]
//! ```
//!
//! `seed` prints `READY <port> <info-hash> <cid>` and goes on until it is stopped; `get` ends
//! with `DONE <seconds> <MiB/s>`, and with `--stay yes` goes on seeding. Further options of both:
//! `--encryption prefer|require|off`, `--key SEED` (a Chiral identity made of that number),
//! `--slow MIB` (serves at most so many MiB/s), `--tracker URL`..., `--dht HOST:PORT`... (nodes to
//! begin with), `--lsd on`, `--utp on`, `--pex off` (dials nobody that peers tell of).
#![allow(clippy::print_stdout)]

use std::collections::HashMap;
use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::chunk_store::{Destination, ImportMode};
use chiral_core::content_protocol::{SeedContent, SourceStream};
use chiral_core::payment_gate::{Admission, GateError};
use chiral_core::{
    ByteRange, ChunkSource, ChunkStore, ContentProtocol, DownloadRequest, Endpoint,
    FileIdentification, PaymentGate, PeerId, PeerOffer, PeerSignError, PeerSigner, Protocol,
    SeedRequest, ServeRequest, TransferError, TransferId, TransferRegistry,
};
use chiral_protocols::bittorrent::protocol::BitTorrentProtocol;
use chiral_protocols::bittorrent::swarm::{BitTorrentConfig, TorrentInfo};
use chiral_protocols::http::AddressPolicy;
use chiral_protocols::{Connector, Engine, EngineConfig};
use chiral_storage::{FsStore, FsStoreConfig};
use ed25519_dalek::{Signer, SigningKey};

/// Serves everybody for nothing.
#[derive(Debug)]
struct Free;

#[async_trait]
impl PaymentGate for Free {
    async fn admit(&self, _: &ServeRequest) -> Result<Admission, GateError> {
        Ok(Admission::Granted)
    }

    async fn served(&self, _: &ServeRequest, _: ByteRange) {}

    async fn message(&self, _: Bytes) -> Result<Bytes, GateError> {
        Err(GateError::Closed)
    }
}

/// A key of this process's own.
#[derive(Debug)]
struct Key(SigningKey);

impl PeerSigner for Key {
    fn peer_id(&self) -> PeerId {
        let bytes = [&[0, 36][..], &self.public_key()].concat();
        PeerId::from_bytes(&bytes).expect("38 bytes")
    }

    fn public_key(&self) -> Vec<u8> {
        [&[8, 1, 18, 32][..], self.0.verifying_key().as_bytes()].concat()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PeerSignError> {
        Ok(self.0.sign(message).to_bytes().to_vec())
    }
}

/// The engine's way to the one protocol.
#[derive(Debug)]
struct Only(Arc<BitTorrentProtocol>);

#[async_trait]
impl Connector for Only {
    async fn connect(
        &self,
        offer: &PeerOffer,
        target: &FileIdentification,
    ) -> Result<Arc<dyn ChunkSource>, TransferError> {
        self.0.connect(offer, target).await
    }

    async fn arrivals(&self, target: &FileIdentification) -> SourceStream {
        let none = || -> SourceStream { Box::pin(futures_util::stream::empty()) };
        self.0.sources(target).await.unwrap_or_else(|_| none())
    }
}

/// What was said on the command line.
#[derive(Default)]
struct Arguments {
    places: Vec<String>,
    options: HashMap<String, Vec<String>>,
}

impl Arguments {
    fn read() -> Result<Self, Box<dyn Error>> {
        let mut arguments = Self::default();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.strip_prefix("--") {
                Some(name) => {
                    let value = words.next().ok_or("an option without a value")?;
                    arguments
                        .options
                        .entry(name.to_owned())
                        .or_default()
                        .push(value);
                }
                None => arguments.places.push(word),
            }
        }
        Ok(arguments)
    }

    fn all(&self, name: &str) -> &[String] {
        self.options.get(name).map_or(&[], Vec::as_slice)
    }

    fn one(&self, name: &str) -> Option<&str> {
        self.all(name).last().map(String::as_str)
    }
}

struct Setup {
    protocol: Arc<BitTorrentProtocol>,
    store: Arc<dyn ChunkStore>,
    registry: TransferRegistry,
    // Removed at the end.
    _directory: tempfile::TempDir,
}

async fn set_up(arguments: &Arguments) -> Result<Setup, Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let store = FsStore::open(directory.path().join("store"), FsStoreConfig::default()).await?;
    let store: Arc<dyn ChunkStore> = Arc::new(store);
    let registry = TransferRegistry::new();
    let listen: SocketAddr = arguments.one("listen").unwrap_or("127.0.0.1:0").parse()?;
    let mut config = BitTorrentConfig::default().with_listen(listen);
    config.max_connections_per_ip = 500;
    if let Some(encryption) = arguments.one("encryption") {
        config.encryption = encryption.parse()?;
    }
    // All of it stays on this machine and in its networks.
    config.addresses = AddressPolicy::Any;
    config.trackers = arguments.all("tracker").to_vec();
    config.dht = Some(arguments.all("dht").to_vec()).filter(|nodes| !nodes.is_empty());
    config.lsd = arguments.one("lsd") == Some("on");
    config.utp = arguments.one("utp") == Some("on");
    config.peer_exchange = arguments.one("pex") != Some("off");
    if let Some(mib) = arguments.one("slow") {
        config.uploads.set_limit(Some(format!("{mib}MiB").parse()?));
    }
    let signer = arguments
        .one("key")
        .map(|seed| -> Result<Arc<dyn PeerSigner>, Box<dyn Error>> {
            Ok(Arc::new(Key(SigningKey::from_bytes(&[seed.parse()?; 32]))))
        });
    let signer = signer.transpose()?;
    let gate = Arc::new(Free);
    let protocol =
        BitTorrentProtocol::bind(config, store.clone(), registry.clone(), gate, signer).await?;
    Ok(Setup {
        protocol: Arc::new(protocol),
        store,
        registry,
        _directory: directory,
    })
}

async fn seed(arguments: &Arguments, path: &str) -> Result<(), Box<dyn Error>> {
    let setup = set_up(arguments).await?;
    let protocol = &setup.protocol;
    let content = SeedContent::Path(PathBuf::from(path), ImportMode::InPlace);
    let (info, cid) = match arguments.one("torrent") {
        Some(torrent) => {
            let import = chiral_core::chunk_store::ImportSource::Path(PathBuf::from(path));
            let import = chiral_core::chunk_store::ImportRequest::new(import);
            let cid = setup.store.import(import).await?.header.cid;
            let info = TorrentInfo::of_torrent_file(&std::fs::read(torrent)?)?;
            protocol.seed_torrent(info.clone(), cid)?;
            (info, cid)
        }
        None => {
            let cid = protocol
                .start_seeding(SeedRequest::new(content))
                .await?
                .header
                .cid;
            (protocol.torrent_of(cid).ok_or("not seeded")?, cid)
        }
    };
    if let Some(out) = arguments.one("write") {
        std::fs::write(out, info.to_torrent_file())?;
    }
    let port = protocol.local_addr().map_or(0, |address| address.port());
    let hash: String = info
        .info_hash
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    println!("READY {port} {hash} {cid}");
    if let Some(object) = setup.store.object(cid).await? {
        println!("LINK {}", object.header.link());
    }
    let peers: Vec<SocketAddr> = arguments
        .all("dial")
        .iter()
        .map(|peer| peer.parse())
        .collect::<Result<_, _>>()?;
    loop {
        for peer in &peers {
            if !protocol.is_connected(&info.info_hash, *peer) {
                let _ = protocol.dial(info.info_hash, *peer).await;
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
}

async fn get(
    arguments: &Arguments,
    what: &str,
    link: &str,
    out: &str,
) -> Result<(), Box<dyn Error>> {
    let setup = set_up(arguments).await?;
    let target: FileIdentification = link.parse()?;
    let cid = target.cid().ok_or("a link has a cid")?;
    let alias = if what.starts_with("btih:") || what.starts_with("btmh:") {
        what.to_owned()
    } else {
        let info = TorrentInfo::of_torrent_file(&std::fs::read(what)?)?;
        let alias = info.aliases().next().ok_or("a torrent has a hash")?;
        setup.protocol.add_torrent(info)?;
        alias.to_string()
    };
    setup.protocol.expect(&alias.parse()?, cid)?;
    let mut request = DownloadRequest::new(target);
    for peer in arguments.all("peer") {
        let endpoint = Endpoint::new(format!("{alias}@{peer}"))?;
        request
            .offers
            .push(PeerOffer::new(Protocol::BitTorrent, endpoint));
    }
    request.destination = Destination::File(PathBuf::from(out));
    let engine = Engine::new(
        setup.store.clone(),
        setup.registry.clone(),
        EngineConfig::default(),
    );
    let port = setup
        .protocol
        .local_addr()
        .map_or(0, |address| address.port());
    println!("READY {port} {alias} {cid}");
    let begun = Instant::now();
    let id = TransferId::from_bytes([7; 16]);
    let connector = Arc::new(Only(setup.protocol.clone()));
    let report = engine.download(id, request, connector)?.finished().await?;
    let took = begun.elapsed().as_secs_f64();
    for source in &report.sources {
        println!("FROM {source:?}");
    }
    if let Some(info) = setup.protocol.torrent_of(cid) {
        for peer in setup.protocol.recognised(&info.info_hash) {
            println!("KNOWS {peer}");
        }
    }
    if let Some(meta) = setup.protocol.metainfo(&alias.parse()?) {
        println!("MISSING {} piece layers", meta.missing_trees().count());
    }
    let rate = report.header.size as f64 / took / (1 << 20) as f64;
    println!("DONE {took:.3} {rate:.1}");
    if arguments.one("stay").is_some() {
        if let Some(info) = setup.protocol.torrent_of(cid) {
            setup.protocol.seed_torrent(info, cid)?;
        }
        std::future::pending::<()>().await;
    }
    setup.protocol.shutdown().await?;
    setup.store.shutdown().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::read()?;
    let words: Vec<&str> = arguments.places.iter().map(String::as_str).collect();
    match words[..] {
        ["seed", path] => seed(&arguments, path).await,
        ["get", what, link, out] => get(&arguments, what, link, out).await,
        _ => Err("seed FILE, or get TORRENT CID|LINK OUT".into()),
    }
}
