//! What can be said on the command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use chiral::protocols::bittorrent::magnet::MagnetPeer;
use chiral::protocols::bittorrent::metainfo::Version;
use chiral::{Link, Price, Rate};
use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use money::*;
pub(crate) use values::{Selected, Target};
use values::{swarm_peer, url};

mod money;
mod values;

const EXAMPLES: &str = "\
Examples:
  chiral chain                                    a chain to try payments on, with rich accounts
  chiral share photo.jpg --listen /ip4/127.0.0.1/tcp/4001 --price 0.001 --chain URL --private-key KEY
                                                  announce a file, and be paid for it
  chiral get LINK --bootstrap MULTIADDR --max-price 0.01 --chain URL --private-key KEY
                                                  find who has it, get it, and pay them
  chiral share *.iso --policy channel --price 0.001 --chain URL --private-key KEY
                                                  be paid chunk by chunk, out of a channel
  chiral payments                                 what was earned and spent
  chiral channels                                 channels, and what can be claimed from them
  chiral share photo.jpg                          serve a file on this machine, free
  chiral share *.iso --http 0.0.0.0:8480          serve files to other machines, too
  chiral share *.iso --http 0.0.0.0:8480 --tls    so that nobody between sees which
  chiral get LINK --peer http://127.0.0.1:8480/   get it, from a seeder
  chiral get SHA256 -o disc.iso --mirror http://example.org/disc.iso
                                                  get it from any web server, and check it
  chiral get LINK --peer URL -o - | mpv -          play it while it comes
  chiral get LINK --bootstrap MULTIADDR --seed    seed it, too, while it comes and afterwards
  chiral share disc.iso --protocols http,bittorrent --bittorrent 0.0.0.0:6881 --http 0.0.0.0:8480
                                                  seed it to BitTorrent clients, too; prints a magnet link
  chiral get 'magnet:?xt=…'                       get a torrent, from its swarm and from Chiral nodes
  chiral get album.torrent -o Music/ --select 0,2-4
                                                  some files of a torrent
  chiral peers --clear-all                        forget who is banned
  chiral hash photo.jpg                           print its link without sharing it

Exit status:
  0 done, 1 failed, 2 the command was not understood, 3 nobody delivers the file,
  4 refused: link, cid and what was found do not belong together, 5 the destination exists,
  6 another process uses the data directory, 7 the file is complete and its payment waits,
  130 or 143 interrupted.

Set CHIRAL_LOG to see what goes on, for instance CHIRAL_LOG=debug; it goes to standard error.";

#[derive(Debug, Parser)]
#[command(
    name = "chiral",
    about = "Share files, and get them from everybody who has them, every byte verified.",
    after_help = EXAMPLES
)]
pub(crate) struct Arguments {
    /// Print one JSON event a line on standard output.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Share(Box<Share>),
    Get(Box<Get>),
    Info(Info),
    Hash(Hash),
    Chain(Chain),
    Wallet(Wallet),
    Payments(Payments),
    Channels(Channels),
    Prove(Prove),
    VerifyReceipt(VerifyReceipt),
    Peers(Peers),
}

/// The network of peers: without these, only what is named by URL is reached
#[derive(Debug, Args)]
pub(crate) struct Network {
    /// Take part in the network at this address, such as /ip4/0.0.0.0/tcp/4001; may be repeated
    ///
    /// /udp/PORT/quic-v1 is QUIC, /tcp/PORT/ws is WebSocket; port 0 takes any free one.
    #[arg(long, value_name = "MULTIADDR")]
    pub(crate) listen: Vec<String>,
    /// Find the network through this node; may be repeated
    ///
    /// An address on this machine or in a private network allows to connect to such addresses.
    #[arg(long, value_name = "MULTIADDR")]
    pub(crate) bootstrap: Vec<String>,
}

/// How peers of a swarm are found, beside those that are named
#[derive(Debug, Args)]
pub(crate) struct Swarm {
    /// Announce to this tracker (http, https or udp URL), too; may be repeated
    ///
    /// Those that a magnet link or a .torrent names are asked in any case.
    #[arg(long = "tracker", value_name = "URL")]
    pub(crate) trackers: Vec<String>,
    /// Join BitTorrent's mainline DHT by this node; may be repeated
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) dht: Vec<String>,
    /// Find peers in the local network, and be found there
    #[arg(long)]
    pub(crate) lsd: bool,
}

/// How web servers, and seeders over HTTP, are reached
#[derive(Debug, Args)]
pub(crate) struct Web {
    /// Go through this proxy: http://HOST:PORT or socks5://HOST:PORT, with USER:PASSWORD@ or not
    ///
    /// Without it, what http_proxy, https_proxy, all_proxy and no_proxy say. The proxy looks
    /// names up.
    #[arg(long, value_name = "URL")]
    pub(crate) proxy: Option<String>,
    /// Believe the certificates in this file (PEM), too, beside those of the system
    #[arg(long, value_name = "FILE")]
    pub(crate) cacert: Option<PathBuf>,
}

/// Show which peers are banned or demoted, why, and for how long; and take that back
///
/// Who sent bytes that contradict what was proven is banned for a day. Downloads to a file
/// without --data-dir keep theirs in .NAME.chiral beside the file.
#[derive(Debug, Args)]
pub(crate) struct Peers {
    /// Take back what is held against this peer, by its id or by its URL; may be repeated
    #[arg(long, value_name = "PEER|URL")]
    pub(crate) clear: Vec<String>,
    /// Take back all that is held against anybody
    #[arg(long)]
    pub(crate) clear_all: bool,
    /// The node's directory, where one was named to share or get
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// A way to deliver a file
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Over {
    /// HTTP, which every tool speaks
    Http,
    /// Chunks and payments in one stream between two peers of the network
    Private,
    /// Pieces, among all who speak BitTorrent
    #[value(name = "bittorrent")]
    BitTorrent,
}

/// A kind of torrent
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TorrentVersion {
    /// Version 1 alone
    V1,
    /// Versions 1 and 2 (BEP 52) in one
    Hybrid,
}

impl From<TorrentVersion> for Version {
    fn from(version: TorrentVersion) -> Self {
        match version {
            TorrentVersion::V1 => Self::V1,
            TorrentVersion::Hybrid => Self::Hybrid,
        }
    }
}

/// Serve files until interrupted; prints the link of each
///
/// The files are served from where they are: do not change them meanwhile. Ctrl-C ends it.
#[derive(Debug, Args)]
pub(crate) struct Share {
    /// Files to serve
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// What to serve them over; private needs --listen
    ///
    /// Over bittorrent any client gets them, by the magnet link that is printed.
    #[arg(
        long,
        value_name = "LIST",
        value_enum,
        value_delimiter = ',',
        default_value = "http"
    )]
    pub(crate) protocols: Vec<Over>,
    /// Most connections served at once; of one address at most a quarter of them
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(4..))]
    pub(crate) max_connections: u32,
    /// Address to serve HTTP at
    ///
    /// Without it, 127.0.0.1:8480, which only this machine can reach, or another port if that
    /// is taken. 0.0.0.0:8480 is for everybody who can reach this machine.
    #[arg(long, value_name = "ADDR")]
    pub(crate) http: Option<SocketAddr>,
    /// Address to serve BitTorrent at [default: a free port of 127.0.0.1]
    ///
    /// 0.0.0.0:6881 is for everybody who can reach this machine.
    #[arg(long, value_name = "ADDR")]
    pub(crate) bittorrent: Option<SocketAddr>,
    /// Write the .torrent here; of several files, those of all into this directory
    #[arg(long, value_name = "PATH")]
    pub(crate) torrent_file: Option<PathBuf>,
    /// What torrents of the files are: for clients of both versions, or of version 1 alone
    ///
    /// Either is another torrent than the other, with a link and peers of its own.
    #[arg(long, value_name = "VERSION", value_enum, default_value = "hybrid")]
    pub(crate) torrent_version: TorrentVersion,
    #[command(flatten)]
    pub(crate) swarm: Swarm,
    /// Show what is shared, at what price and how fast, to whoever opens the URL in a browser
    ///
    /// As JSON it is at /index.json. Without it, a file is found by those who know its link.
    #[arg(long)]
    pub(crate) page: bool,
    /// The most to send in a second, all files and clients together, such as 50MiB or 800kB
    #[arg(long, value_name = "BYTES")]
    pub(crate) limit_rate: Option<Rate>,
    /// Serve https, too, with a certificate made for this; clear HTTP stays, at the same port
    ///
    /// With --listen it is bound to the node's identity, which outlasts it.
    #[arg(long, conflicts_with = "tls_cert")]
    pub(crate) tls: bool,
    /// Serve https, too, with the certificates in this file (PEM), the server's own first
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// File with the private key that goes with --tls-cert (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// What to be paid, in CHI per MiB (2^20 bytes); free without it
    #[arg(long, value_name = "CHI_PER_MIB", requires = "chain")]
    pub(crate) price: Option<Price>,
    #[command(flatten)]
    pub(crate) terms: Terms,
    #[command(flatten)]
    pub(crate) network: Network,
    #[command(flatten)]
    pub(crate) account: Account,
    #[command(flatten)]
    pub(crate) contracts: Contracts,
    /// Directory for the node's state [default: the user's data directory, then chiral]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// Download a file and verify every byte of it
///
/// Interrupted in any way, the same command goes on where it was. What has come so far is
/// kept beside the file in a directory .NAME.chiral, which goes when the file is complete.
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// What to get: a link, a SHA-256 in 64 hexadecimal digits, a magnet link, or a .torrent file
    #[arg(value_name = "LINK|CID|MAGNET|TORRENT")]
    pub(crate) target: Target,
    /// File to write, which must not exist, or a directory to write it to under its own name
    ///
    /// A torrent of several files goes to a directory of its name in this one.
    /// With - it goes to standard output, in order and as it comes: for a player, give the
    /// link and not the cid alone, which is proven from its end.
    #[arg(short, long, value_name = "PATH", default_value = ".")]
    pub(crate) output: PathBuf,
    /// A seeder, by the URL that its `share` printed; may be repeated
    #[arg(long = "peer", value_name = "URL", value_parser = url)]
    pub(crate) peers: Vec<String>,
    /// Any web server's copy of the file, by the URL of the file; may be repeated
    #[arg(long = "mirror", value_name = "URL", value_parser = url)]
    pub(crate) mirrors: Vec<String>,
    /// A peer of the torrent's swarm, beside those that are found; may be repeated
    #[arg(long = "bittorrent-peer", value_name = "HOST:PORT", value_parser = swarm_peer)]
    pub(crate) bittorrent_peers: Vec<MagnetPeer>,
    /// Only these files of the torrent, by their numbers from 0, such as 0,2-4
    #[arg(long, value_name = "LIST")]
    pub(crate) select: Option<Selected>,
    /// Address at which peers of the swarm reach us; without it we only go to them
    #[arg(long, value_name = "ADDR")]
    pub(crate) bittorrent: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) swarm: Swarm,
    /// Use this protocol only; may be repeated [default: all; private with a network only]
    #[arg(long = "protocol", value_name = "NAME", value_enum)]
    pub(crate) protocols: Vec<Over>,
    #[command(flatten)]
    pub(crate) web: Web,
    #[command(flatten)]
    pub(crate) network: Network,
    /// Seed it, too: what has come while it comes, and then all of it until Ctrl-C
    #[arg(long)]
    pub(crate) seed: bool,
    /// Address to seed at over HTTP [default: a free port of 127.0.0.1]
    #[arg(long, value_name = "ADDR", requires = "seed")]
    pub(crate) http: Option<SocketAddr>,
    /// What to be paid for what is seeded, in CHI per MiB; free without it
    #[arg(
        long,
        value_name = "CHI_PER_MIB",
        requires = "seed",
        requires = "chain"
    )]
    pub(crate) price: Option<Price>,
    /// The most to receive in a second, all sources together, such as 50MiB or 800kB
    #[arg(long, value_name = "BYTES")]
    pub(crate) limit_rate: Option<Rate>,
    /// The most to pay, in CHI per MiB; nothing without it
    #[arg(long, value_name = "CHI_PER_MIB", requires = "chain")]
    pub(crate) max_price: Option<Price>,
    /// When to be asked to pay; may be repeated [default: any]
    #[arg(
        long = "policy",
        value_name = "POLICY",
        value_enum,
        value_delimiter = ',',
        requires = "max_price"
    )]
    pub(crate) policies: Vec<When>,
    /// What to put into a channel at once, in CHI [default: 0.05]; the rest comes back
    #[arg(long, value_name = "CHI", requires = "max_price", value_parser = chiral::core::money::parse_chi)]
    pub(crate) deposit: Option<chiral::core::U256>,
    #[command(flatten)]
    pub(crate) account: Account,
    #[command(flatten)]
    pub(crate) contracts: Contracts,
    /// How long to wait for the payment after the file is complete, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) payment_patience: u64,
    /// Give up when nobody has delivered anything for so long
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) patience: u64,
    /// Directory for the node's state, kept afterwards [default: .NAME.chiral beside the file]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// Show what is known of a file and who has which part of it
#[derive(Debug, Args)]
pub(crate) struct Info {
    /// What to look at: a link, or a SHA-256 in 64 hexadecimal digits
    #[arg(value_name = "LINK|CID")]
    pub(crate) link: Link,
    /// A seeder to ask; may be repeated
    #[arg(long = "peer", value_name = "URL", value_parser = url)]
    pub(crate) peers: Vec<String>,
    #[command(flatten)]
    pub(crate) web: Web,
    #[command(flatten)]
    pub(crate) network: Network,
    /// Directory of a node to ask, too
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// Print the link of each file, like sha256sum; nothing is shared
#[derive(Debug, Args)]
pub(crate) struct Hash {
    /// Files to hash
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}
