//! Web seeds of torrents (BEP 19): alone and beside a peer, of one file and of several, and
//! those that have something else, or lead elsewhere.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chiral::core::Alias;
use chiral::core::transfer::TransferEventKind;
use chiral::protocols::EngineConfig;
use chiral::protocols::bittorrent::create::{CollectionHasher, TorrentHasher};
use chiral::protocols::bittorrent::magnet::{Magnet, MagnetPeer};
use chiral::protocols::bittorrent::metainfo::{Metainfo, Outer, Version};
use chiral::protocols::bittorrent::swarm::BitTorrentConfig;
use chiral::protocols::http::{AddressPolicy, HttpConfig};
use chiral::{GotTorrent, Node, NodeError, Protocol, TransferError};
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{data, within};

/// What a server has at a path.
#[derive(Clone, Debug)]
enum There {
    File(Vec<u8>),
    /// It gives no parts of it.
    Whole(Vec<u8>),
    Redirect(String),
}

/// A plain web server.
struct Web {
    address: SocketAddr,
    files: Arc<Mutex<BTreeMap<String, There>>>,
    connections: Arc<AtomicUsize>,
}

impl Web {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let web = Self {
            address: listener.local_addr().unwrap(),
            files: Arc::default(),
            connections: Arc::default(),
        };
        let (files, connections) = (web.files.clone(), web.connections.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let files = files.clone();
                tokio::spawn(async move { serve(stream, files).await });
            }
        });
        web
    }

    fn put(&self, path: &str, there: There) {
        self.files.lock().unwrap().insert(path.to_owned(), there);
    }

    fn remove(&self, path: &str) {
        self.files.lock().unwrap().remove(path);
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: TcpStream, files: Arc<Mutex<BTreeMap<String, There>>>) -> Option<()> {
    let mut input = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = input.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            let mut some = [0; 4096];
            let read = stream.read(&mut some).await.ok().filter(|read| *read > 0)?;
            input.extend_from_slice(&some[..read]);
        };
        let head = String::from_utf8(input.drain(..end + 4).take(end).collect()).ok()?;
        let mut lines = head.lines();
        let mut first = lines.next()?.split(' ');
        let (method, path) = (first.next()?, first.next()?);
        let range = lines.find_map(|line| {
            let line = line.to_ascii_lowercase();
            let (start, end) = line.strip_prefix("range: bytes=")?.split_once('-')?;
            Some((start.parse::<usize>().ok()?, end.parse::<usize>().ok()?))
        });
        let there = files.lock().unwrap().get(path).cloned();
        let (head, body) = match (there, range) {
            (None, _) => ("404 Not Found\r\nContent-Length: 0".to_owned(), Vec::new()),
            (Some(There::Redirect(to)), _) => (
                format!("302 Found\r\nLocation: {to}\r\nContent-Length: 0"),
                Vec::new(),
            ),
            (Some(There::File(bytes)), Some((start, end))) if start < bytes.len() => {
                let end = end.min(bytes.len() - 1);
                let part = bytes[start..=end].to_vec();
                let (len, all) = (part.len(), bytes.len());
                let range = format!("Content-Range: bytes {start}-{end}/{all}");
                let length = format!("Content-Length: {len}");
                (format!("206 Partial Content\r\n{range}\r\n{length}"), part)
            }
            (Some(There::File(bytes)), _) => {
                let length = format!("Content-Length: {}", bytes.len());
                (format!("200 OK\r\nAccept-Ranges: bytes\r\n{length}"), bytes)
            }
            (Some(There::Whole(bytes)), _) => {
                (format!("200 OK\r\nContent-Length: {}", bytes.len()), bytes)
            }
        };
        let head = format!("HTTP/1.1 {head}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.ok()?;
        if method != "HEAD" {
            stream.write_all(&body).await.ok()?;
        }
    }
}

/// A node of no swarm but by name, which lets torrents lead to these addresses.
async fn node(dir: &Path, allow: AddressPolicy) -> Node {
    let engine = EngineConfig::default().with_source_patience(Duration::from_secs(3));
    let swarm = BitTorrentConfig::default().with_listen("127.0.0.1:0".parse().unwrap());
    let builder = Node::builder().data_dir(dir).engine(engine);
    let builder = builder.http(HttpConfig::default());
    let started = builder
        .bittorrent(swarm.with_addresses(allow))
        .start()
        .await;
    started.unwrap()
}

/// Names that a URL does not have as they are.
fn album() -> BTreeMap<&'static str, Vec<u8>> {
    BTreeMap::from([
        ("a b/deep/one#1.bin", data(700_001)),
        ("a b/zwei%.bin", data(5)),
        ("empty", Vec::new()),
        ("three.bin", data(1_400_000)),
        ("ünf.bin", data(90_000)),
    ])
}

fn url_of(path: &str) -> &'static str {
    match path {
        "a b/deep/one#1.bin" => "/pub/the%20album/a%20b/deep/one%231.bin",
        "a b/zwei%.bin" => "/pub/the%20album/a%20b/zwei%25.bin",
        "empty" => "/pub/the%20album/empty",
        "three.bin" => "/pub/the%20album/three.bin",
        _ => "/pub/the%20album/%C3%BCnf.bin",
    }
}

fn torrent(version: Version, web_seeds: Vec<String>) -> Metainfo {
    let files = album();
    let paths = files.iter().map(|(path, bytes)| {
        let parts = path.split('/').map(str::to_owned).collect();
        (parts, bytes.len() as u64)
    });
    let hasher = CollectionHasher::new("the album", paths.collect(), 32_768, version);
    let mut hasher = hasher.unwrap();
    for (path, _) in hasher.files().to_vec() {
        hasher.update(&files[path.join("/").as_str()]).unwrap();
    }
    let outer = Outer {
        web_seeds,
        ..Outer::default()
    };
    hasher.finish(outer).unwrap()
}

async fn full() -> Web {
    let web = Web::start().await;
    for (path, bytes) in album() {
        web.put(url_of(path), There::File(bytes));
    }
    web
}

fn is_there(out: &Path, got: &GotTorrent) {
    let files = album();
    assert_eq!(got.files.len(), files.len());
    for (path, bytes) in files {
        let found = std::fs::read(out.join("the album").join(path)).unwrap();
        assert!(found == bytes, "{path}");
    }
}

fn out(dir: &Path, name: &str) -> std::path::PathBuf {
    let out = dir.join(name);
    std::fs::create_dir(&out).unwrap();
    out
}

fn peer_of(node: &Node) -> MagnetPeer {
    let bittorrent = node.manager().implementation(&Protocol::BitTorrent);
    let endpoint = bittorrent.unwrap().endpoints().remove(0);
    endpoint.as_str().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn several_files_come_from_a_web_seed_alone_and_from_one_and_a_peer_together() {
    for version in [Version::V1, Version::Hybrid] {
        let dir = tempfile::tempdir().unwrap();
        let web = full().await;
        let torrent = torrent(version, vec![web.url("/pub/")]);
        let first = node(&dir.path().join("1"), AddressPolicy::Any).await;
        let alone = out(dir.path(), "alone");
        let get = first.download_torrent(torrent.clone()).to_directory(&alone);
        let getting = within(get.seed(true).start()).await.unwrap();
        let got = within(getting.outcome()).await.unwrap();
        is_there(&alone, &got);
        assert!(got.sources.iter().all(|it| it.protocol == Protocol::Http));

        // By magnet: what the torrent is, the peer says, and both give.
        let mut magnet = torrent.magnet();
        assert_eq!(magnet.web_seeds, [web.url("/pub/")]);
        magnet.peers.push(peer_of(&first));
        let second = node(&dir.path().join("2"), AddressPolicy::Any).await;
        let both = out(dir.path(), "both");
        let get = second.download_torrent(magnet).to_directory(&both);
        let limited = get.limit_down("1MiB".parse().unwrap());
        let getting = within(limited.start()).await.unwrap();
        let got = within(getting.outcome()).await.unwrap();
        is_there(&both, &got);
        let from = |protocol: &Protocol| {
            let sources = got.sources.iter().filter(|it| it.protocol == *protocol);
            sources.map(|source| source.bytes).sum::<u64>()
        };
        let (http, bittorrent) = (from(&Protocol::Http), from(&Protocol::BitTorrent));
        assert!(http > 0 && bittorrent > 0, "{http} {bittorrent}");
        within(second.shutdown()).await.unwrap();
        within(first.shutdown()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn some_files_are_had_of_a_web_seed_without_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let web = full().await;
    web.remove(url_of("three.bin"));
    let torrent = torrent(Version::Hybrid, vec![web.url("/pub")]);
    let chosen = torrent.files().iter();
    let chosen: Vec<_> = chosen
        .filter(|it| it.path.file_name() != "three.bin")
        .collect();
    let runs = chosen.iter().map(|it| it.index..=it.index);
    let node = node(&dir.path().join("1"), AddressPolicy::Any).await;
    let some = out(dir.path(), "some");
    let get = node.download_torrent(torrent.clone()).to_directory(&some);
    let getting = within(get.select(runs).start()).await.unwrap();
    let got = within(getting.outcome()).await.unwrap();
    assert_eq!(got.files.len(), chosen.len());
    assert!(!some.join("the album/three.bin").exists());
    within(node.shutdown()).await.unwrap();
}

/// `so` of a link (BEP 53): what the torrent is, a peer says; the rest is not fetched.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_selects_files_gets_these() {
    let dir = tempfile::tempdir().unwrap();
    let web = full().await;
    let torrent = torrent(Version::V1, vec![web.url("/pub/")]);
    let first = node(&dir.path().join("1"), AddressPolicy::Any).await;
    let all = out(dir.path(), "all");
    let get = first.download_torrent(torrent.clone()).to_directory(&all);
    let getting = within(get.seed(true).start()).await.unwrap();
    is_there(&all, &within(getting.outcome()).await.unwrap());

    let index = |name| {
        let file = torrent
            .files()
            .iter()
            .find(|it| it.path.file_name() == name);
        file.unwrap().index
    };
    let (deep, small) = (index("one#1.bin"), index("zwei%.bin"));
    let hash = Alias::InfoHashV1(torrent.hashes().v1.unwrap());
    let peer = peer_of(&first);
    let link = format!("magnet:?xt=urn:{hash}&x.pe={peer}&so={deep},{small}");
    let magnet: Magnet = link.parse().unwrap();
    assert_eq!(magnet.selected, [deep..=deep, small..=small]);
    let second = node(&dir.path().join("2"), AddressPolicy::Any).await;
    let some = out(dir.path(), "some");
    let get = second.download_torrent(magnet).to_directory(&some);
    let getting = within(get.start()).await.unwrap();
    let got = within(getting.outcome()).await.unwrap();
    let names: Vec<_> = got.files.iter().map(|file| file.inside.as_str()).collect();
    assert_eq!(names, ["a b/deep/one#1.bin", "a b/zwei%.bin"]);
    for (path, bytes) in album() {
        let found = std::fs::read(some.join("the album").join(path)).ok();
        let expected = names.contains(&path).then_some(bytes);
        assert!(found == expected, "{path}");
    }
    within(second.shutdown()).await.unwrap();
    within(first.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_file_comes_from_its_url_or_from_beneath_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let content = data(900_001);
    let mut hasher = TorrentHasher::new(Version::V1);
    hasher.update(&content);
    let hashes = hasher.finish();
    let web = Web::start().await;
    web.put("/x/a%20film", There::File(content.clone()));
    // It gives no parts, but is not long.
    web.put("/whole", There::Whole(content.clone()));
    web.put("/moved", There::Redirect(web.url("/x/a%20film")));
    let paths = ["/x/a%20film", "/x/", "/whole", "/moved"];
    for (n, path) in paths.into_iter().enumerate() {
        let outer = Outer {
            web_seeds: vec![web.url(path)],
            ..Outer::default()
        };
        let torrent = hashes.metainfo("a film", outer).unwrap();
        let node = node(&dir.path().join(n.to_string()), AddressPolicy::Any).await;
        let copy = dir.path().join(format!("copy{n}"));
        let get = node.download_torrent(torrent).to_file(&copy);
        let getting = within(get.start()).await.unwrap();
        within(getting.outcome()).await.unwrap();
        assert!(std::fs::read(&copy).unwrap() == content, "{path}");
        within(node.shutdown()).await.unwrap();
    }
}

/// The other seed is right: what a bad one says costs it, not the download.
#[tokio::test(flavor = "multi_thread")]
async fn a_web_seed_that_has_something_else_is_found_out() {
    let (right, dir) = (full().await, tempfile::tempdir().unwrap());
    // Garbage of the right length; a wrong length; not there; and a redirect to nowhere.
    let changes: [fn(&Web); 4] = [
        |web| web.put(url_of("three.bin"), There::File(vec![7; 1_400_000])),
        |web| web.put(url_of("three.bin"), There::File(data(1_400_001))),
        |web| web.remove(url_of("three.bin")),
        |web| web.put(url_of("three.bin"), There::Redirect("/a/b".to_owned())),
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let wrong = full().await;
        change(&wrong);
        let seeds = vec![wrong.url("/pub/"), right.url("/pub/")];
        let torrent = torrent(Version::V1, seeds);
        let node = node(&dir.path().join(n.to_string()), AddressPolicy::Any).await;
        let all = out(dir.path(), &format!("all{n}"));
        let get = node.download_torrent(torrent).to_directory(&all);
        let mut events = node.events();
        let getting = within(get.start()).await.unwrap();
        let got = within(getting.outcome()).await.unwrap();
        is_there(&all, &got);
        let mut banned = Vec::new();
        while let Some(event) = within(events.next()).await {
            match event.kind {
                TransferEventKind::SourceBanned { source, .. } => banned.push(source),
                TransferEventKind::Ended { .. } => break,
                _ => {}
            }
        }
        // Only who gave wrong bytes is out, and for this torrent alone.
        let expected = usize::from(n == 0);
        assert_eq!(banned.len(), expected, "{banned:?}");
        assert!(banned.iter().all(|it| it.starts_with(&wrong.url("/pub/#"))));
        within(node.shutdown()).await.unwrap();
    }
}

/// Whoever writes a torrent, or a link, does not have us dial into our own network.
#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_web_seed_leads_nowhere_near_unless_the_node_allows() {
    let dir = tempfile::tempdir().unwrap();
    let (inside, secret) = (Web::start().await, data(300_000));
    inside.put("/secret", There::File(secret.clone()));
    let mut hasher = TorrentHasher::new(Version::V1);
    hasher.update(&secret);
    let hashes = hasher.finish();
    let torrent = |url: String| {
        let outer = Outer {
            web_seeds: vec![url],
            ..Outer::default()
        };
        hashes.metainfo("secret", outer).unwrap()
    };
    let port = inside.address.port();
    for (n, host) in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"]
        .iter()
        .enumerate()
    {
        let near = torrent(format!("http://{host}:{port}/secret"));
        let node = node(&dir.path().join(n.to_string()), AddressPolicy::GlobalOnly).await;
        for source in [0, 1] {
            let get = match source {
                0 => node.download_torrent(near.clone()),
                // Of a link nothing is known, and nobody says it.
                _ => node.download_torrent(near.magnet()),
            };
            let getting = within(get.to_file(dir.path().join("got")).start()).await;
            let failed = within(getting.unwrap().outcome()).await;
            assert!(
                matches!(
                    failed,
                    Err(NodeError::Transfer(TransferError::NoSources { .. }))
                ),
                "{failed:?}"
            );
        }
        within(node.shutdown()).await.unwrap();
    }
    assert_eq!(inside.connections(), 0);

    // The same, where it is allowed; and a redirect leads no further in than it came from.
    let allow = AddressPolicy::GlobalAnd {
        private: false,
        loopback: true,
    };
    let node = node(&dir.path().join("allowed"), allow).await;
    let near = torrent(inside.url("/secret"));
    let get = node.download_torrent(near).to_file(dir.path().join("got"));
    within(within(get.start()).await.unwrap().outcome())
        .await
        .unwrap();
    assert!(inside.connections() > 0);
    within(node.shutdown()).await.unwrap();
}
