//! Finds the peers of a torrent: in the mainline DHT, from trackers, and says hello to one over
//! uTP. All of it on one UDP port.
//!
//! ```text
//! cargo run -p chiral-protocols --features bittorrent --example find_peers -- \
//!     0123456789abcdef0123456789abcdef01234567 --bootstrap router.example:6881 \
//!     --tracker udp://tracker.example:6969/announce
//! ```
//!
//! It prints what it finds, a line each: `dht PEER`, `tracker URL PEER`, `scrape URL SEEDERS
//! COMPLETED LEECHERS`, `hello PEER ID`. Options:
//!
//! - `--listen ADDRESS`: where to listen, 127.0.0.1:0 by default
//! - `--bootstrap ADDRESS`: a node to begin with; may be repeated
//! - `--tracker URL`: may be repeated
//! - `--announce PORT`: says that there is a peer on this port
//! - `--hello ADDRESS`: shakes hands with a peer over uTP
//! - `--seconds N`: stays so long, answers other nodes, and takes connections over uTP
//! - `--near`: addresses of this machine and of private networks count too
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use chiral_protocols::bittorrent::dht::{Announcement, MainlineDht, NodeConfig};
use chiral_protocols::bittorrent::tracker::{
    AnnounceEvent, AnnounceRequest, TrackerClient, TrackerConfig,
};
use chiral_protocols::bittorrent::udp::UdpPort;
use chiral_protocols::bittorrent::utp::{UtpConfig, UtpSocket, UtpStream};
use chiral_protocols::http::AddressPolicy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::lookup_host;
use tokio::time::{sleep, timeout};

type Failure = Box<dyn Error + Send + Sync>;

/// Bytes of the first message between peers (BEP 3).
const HELLO: usize = 68;
const PEER_ID: [u8; 20] = *b"-CH0001-find_peers00";

#[derive(Default)]
struct Options {
    info_hash: [u8; 20],
    listen: Option<SocketAddr>,
    bootstrap: Vec<SocketAddr>,
    trackers: Vec<String>,
    announce: Option<u16>,
    hello: Option<SocketAddr>,
    seconds: u64,
    near: bool,
}

async fn options() -> Result<Options, Failure> {
    let mut options = Options::default();
    let mut arguments = std::env::args().skip(1);
    let mut hash = None;
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--listen" => options.listen = Some(value()?.parse()?),
            "--bootstrap" => options.bootstrap.extend(lookup_host(value()?).await?),
            "--tracker" => options.trackers.push(value()?),
            "--announce" => options.announce = Some(value()?.parse()?),
            "--hello" => options.hello = Some(value()?.parse()?),
            "--seconds" => options.seconds = value()?.parse()?,
            "--near" => options.near = true,
            text => hash = Some(text.to_owned()),
        }
    }
    let hash = hash.filter(|hash| hash.len() == 40 && hash.is_ascii());
    let hash = hash.ok_or("an info-hash of 40 hexadecimal digits is needed")?;
    for (at, byte) in options.info_hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hash[2 * at..2 * at + 2], 16)?;
    }
    Ok(options)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let options = options().await?;
    let policy = match options.near {
        true => AddressPolicy::Any,
        false => AddressPolicy::GlobalOnly,
    };
    let listen = options.listen.unwrap_or(([127, 0, 0, 1], 0).into());
    let port = UdpPort::bind(&[listen])?;
    println!(
        "listening {}",
        port.local_addr(listen.is_ipv4()).ok_or("no address")?
    );
    let mut config = UtpConfig::default();
    config.addresses = policy;
    let utp = UtpSocket::start(config, &port)?;
    let mut config = NodeConfig::default();
    config.addresses = policy;
    config.bootstrap.clone_from(&options.bootstrap);
    let dht = MainlineDht::start(config, &port)?;
    let mut config = TrackerConfig::default();
    config.addresses = policy;
    let trackers = TrackerClient::new(config, Some(&port))?;

    if let Some(peer) = options.hello {
        let mut stream = utp.connect(peer).await?;
        stream.write_all(&hello(&options.info_hash)).await?;
        report("hello", &mut stream).await?;
    }
    for url in &options.trackers {
        if let Err(error) = ask(&trackers, url, &options).await {
            println!("failed {url} {error}");
        }
    }
    search(&dht, &options).await?;
    let serve = async {
        while let Some(mut stream) = utp.accept().await {
            // Who says nothing that we know is not waited for.
            let shake = async {
                report("incoming", &mut stream).await?;
                stream.write_all(&hello(&options.info_hash)).await?;
                stream.flush().await
            };
            let _ = timeout(Duration::from_secs(5), shake).await;
        }
    };
    tokio::select! {
        () = serve => {}
        () = sleep(Duration::from_secs(options.seconds)) => {}
    }
    utp.shutdown().await;
    dht.shutdown().await;
    trackers.shutdown().await;
    port.shutdown().await;
    Ok(())
}

async fn search(dht: &MainlineDht, options: &Options) -> Result<(), Failure> {
    if options.bootstrap.is_empty() {
        return Ok(());
    }
    let mut peers = match options.announce {
        Some(port) => {
            let implied_port = false;
            let announcement = Announcement { port, implied_port };
            dht.get_peers_and_announce(options.info_hash, announcement)
        }
        None => dht.get_peers(options.info_hash),
    };
    while let Some(peer) = peers.next().await {
        println!("dht {peer}");
    }
    println!("announced {}", peers.finish().await?);
    Ok(())
}

async fn ask(trackers: &TrackerClient, url: &str, options: &Options) -> Result<(), Failure> {
    let request = AnnounceRequest {
        info_hash: options.info_hash,
        peer_id: PEER_ID,
        port: options.announce.unwrap_or(1),
        uploaded: 0,
        downloaded: 0,
        left: 1,
        event: AnnounceEvent::Started,
        num_want: Some(50),
        key: trackers.new_key(),
        tracker_id: None,
    };
    let answer = trackers.announce(url, &request).await?;
    for peer in answer.peers {
        println!("tracker {url} {peer}");
    }
    for entry in trackers.scrape(url, &[options.info_hash]).await? {
        let (seeders, completed, leechers) = (entry.seeders, entry.completed, entry.leechers);
        println!("scrape {url} {seeders} {completed} {leechers}");
    }
    Ok(())
}

fn hello(info_hash: &[u8; 20]) -> Vec<u8> {
    let begin = b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0";
    [&begin[..], info_hash, &PEER_ID].concat()
}

/// Reads the other side's hello and prints it.
async fn report(what: &str, stream: &mut UtpStream) -> std::io::Result<()> {
    let mut theirs = [0; HELLO];
    stream.read_exact(&mut theirs).await?;
    if theirs[..20] != hello(&[0; 20])[..20] {
        return Err(std::io::Error::other("not a peer of BitTorrent"));
    }
    let (hash, id) = (&theirs[28..48], &theirs[48..]);
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let at = stream.peer_addr();
    println!("{what} {at} {hash} {}", id.escape_ascii());
    Ok(())
}
