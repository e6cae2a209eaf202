//! The private protocol beside a raw stream over the same transport, in processes of their own:
//! seconds, MiB/s, processor seconds and peak memory of both sides. `scripts/bench-private` runs
//! it; alone, `cargo bench --bench private --features full -- --mib 1024 --runs 3`. With
//! `--ways raw,session` only those are measured, with `--quic` over QUIC instead of TCP.
//!
//! The raw stream carries the bytes of a file to nobody who looks at them (`raw`), or to somebody
//! who hashes each chunk and writes it to a file, in a thread of its own (`copy`): that is the
//! work which a download has to do, and nothing else. The file that is bought is read from one
//! data directory, checked chunk by chunk, paid for, and written into another.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chiral::chain::rpc::RpcConfig;
use chiral::chain::{DEV_ACCOUNTS, RpcChain};
use chiral::dht::Libp2pConfig;
use chiral::payment::PaymentsConfig;
use chiral::payment::messages::Policy;
use chiral::protocols::private::PrivateConfig;
use chiral::{Loopback, Node, PeerId, Price, Share};
use futures_util::{AsyncReadExt, AsyncWriteExt, StreamExt};
use sha2::Digest;

const RAW: &str = "/bench/raw/1";

/// Bytes read at once from a raw stream: a chunk.
const PIECE: usize = 256 * 1024;

/// Where nodes listen; the processes that are started hear of it.
const LISTEN: &str = "BENCH_LISTEN";

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Raw,
    /// A raw stream, hashed and written.
    Copy,
    /// Without payment.
    Free,
    /// Option B, a voucher for each MiB.
    Session,
    /// Option A, so many sealed chunks ahead.
    Sealed(usize),
}

impl Way {
    fn parse(text: &str) -> Self {
        match text.split_once(':') {
            Some((_, ahead)) => Self::Sealed(ahead.parse().unwrap()),
            None if text == "raw" => Self::Raw,
            None if text == "copy" => Self::Copy,
            None if text == "free" => Self::Free,
            None => Self::Session,
        }
    }

    fn is_raw(self) -> bool {
        matches!(self, Self::Raw | Self::Copy)
    }

    fn name(self) -> String {
        match self {
            Self::Raw => "raw".to_owned(),
            Self::Copy => "copy".to_owned(),
            Self::Free => "free".to_owned(),
            Self::Session => "session".to_owned(),
            Self::Sealed(ahead) => format!("sealed:{ahead}"),
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    watch_own_memory();
    match arguments.first().map(String::as_str) {
        Some("serve") => runtime.block_on(serve(&arguments[1..])),
        Some("fetch") => runtime.block_on(fetch(&arguments[1..])),
        _ => runtime.block_on(compare(&arguments)),
    }
}

fn option(arguments: &[String], name: &str, default: usize) -> usize {
    let at = arguments.iter().position(|argument| argument == name);
    let value = at.and_then(|at| arguments.get(at + 1));
    value.map_or(default, |value| value.parse().unwrap())
}

/// A line of this process's status, in KiB.
fn status(of: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(of));
    let value = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    value.unwrap_or(0)
}

/// Peak of the memory that is this process's own, in KiB: not what it maps of its program, which
/// lies in memory once for all processes that run it.
static OWN: AtomicU64 = AtomicU64::new(0);

fn watch_own_memory() {
    std::thread::spawn(|| {
        loop {
            OWN.fetch_max(status("RssAnon:"), Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}

/// Peak of the memory that this process held, its own and all, in KiB, and its processor seconds.
fn spent() -> (u64, u64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    let ticks = fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok());
    let own = OWN.load(Ordering::Relaxed);
    (own, status("VmHWM:"), ticks.sum::<f64>() / 100.0)
}

fn price() -> Price {
    "0.0001".parse().unwrap()
}

async fn node(way: Way, account: usize, rpc: &str, bootstrap: &str, data: &Path) -> Node {
    let chain = RpcChain::new(rpc, RpcConfig::default()).unwrap();
    let wallet = Arc::new(DEV_ACCOUNTS[account].signer());
    let mut payments = PaymentsConfig::new(wallet, Arc::new(chain)).with_max_price(price());
    payments.agent.channel_deposit = 1_000_000_000_000_000_000;
    payments.gate.policy = match way {
        Way::Sealed(_) => Policy::LockedVoucher,
        _ => Policy::Channel,
    };
    if account == 1 && way != Way::Free {
        payments = payments.with_price(price());
    }
    if std::env::var_os("BENCH_JOURNAL").is_some_and(|at| at == "memory") {
        let at = format!("/dev/shm/chiral-bench-{}", std::process::id());
        payments = payments.with_journal(at);
    }
    let listen = std::env::var(LISTEN).unwrap().parse().unwrap();
    let peers = Libp2pConfig::new().allowing_loopback().with_listen(listen);
    let mut private = PrivateConfig::default();
    if let Way::Sealed(ahead) = way {
        private.sealed_ahead = ahead;
    }
    let builder = Node::builder()
        .without_http()
        .data_dir(data)
        .libp2p(peers.with_bootstrap(bootstrap.parse().unwrap()))
        .payments(payments)
        .private(private);
    builder.start().await.unwrap()
}

/// serve WAY RPC BOOTSTRAP FILE DATA: until its input ends.
async fn serve(arguments: &[String]) {
    let [way, rpc, bootstrap, file, data] = arguments else {
        panic!("serve WAY RPC BOOTSTRAP FILE DATA");
    };
    let way = Way::parse(way);
    let node = node(way, 1, rpc, bootstrap, Path::new(data)).await;
    if way.is_raw() {
        let network = node.libp2p().unwrap().network();
        let mut incoming = network.accept(RAW).await.unwrap();
        let file = PathBuf::from(file);
        tokio::spawn(async move {
            while let Some((_, mut stream)) = incoming.next().await {
                let file = file.clone();
                tokio::spawn(async move {
                    let mut file = std::fs::File::open(file).unwrap();
                    let mut piece = vec![0; PIECE];
                    loop {
                        let read = std::io::Read::read(&mut file, &mut piece).unwrap();
                        if read == 0 || stream.write_all(&piece[..read]).await.is_err() {
                            break;
                        }
                    }
                    let _ = stream.close().await;
                });
            }
        });
        // Found by nobody else: whoever fetches enters the network here.
        println!("{}", node.libp2p().unwrap().listen_addresses()[0]);
    } else {
        let shared = node.share(Share::path(file)).await.unwrap();
        println!("{}", shared.link);
    }
    let end = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
    });
    end.await.unwrap();
    let (own, peak, cpu) = spent();
    println!("{own} {peak} {cpu}");
    node.shutdown().await.unwrap();
}

/// What comes, hashed chunk by chunk and written to a file beside where it is read.
async fn copy(stream: &mut (impl futures_util::AsyncRead + Unpin), data: &Path) {
    let (give, pieces) = std::sync::mpsc::sync_channel::<Vec<u8>>(8);
    let (back, used) = std::sync::mpsc::sync_channel(16);
    let path = data.join("copy");
    let writing = tokio::task::spawn_blocking(move || {
        let mut file = std::fs::File::create(path).unwrap();
        let mut hashes = Vec::new();
        for piece in pieces {
            hashes.push(sha2::Sha256::digest(&piece));
            for block in piece.chunks(16 * 1024) {
                file.write_all(block).unwrap();
            }
            let _ = back.send(piece);
        }
        file.sync_data().unwrap();
        hashes.len()
    });
    loop {
        let mut piece = used.try_recv().unwrap_or_default();
        piece.resize(PIECE, 0);
        let mut filled = 0;
        while filled < PIECE {
            match stream.read(&mut piece[filled..]).await {
                Ok(read @ 1..) => filled += read,
                _ => break,
            }
        }
        piece.truncate(filled);
        let last = filled < PIECE;
        give.send(piece).unwrap();
        if last {
            break;
        }
    }
    drop(give);
    assert!(writing.await.unwrap() > 1);
}

/// fetch WAY RPC BOOTSTRAP WHAT DATA
async fn fetch(arguments: &[String]) {
    let [way, rpc, bootstrap, what, data] = arguments else {
        panic!("fetch WAY RPC BOOTSTRAP WHAT DATA");
    };
    let way = Way::parse(way);
    let entrance = if way.is_raw() { what } else { bootstrap };
    let node = node(way, 2, rpc, entrance, Path::new(data)).await;
    let seconds = if way.is_raw() {
        let (_, peer) = what.rsplit_once("/p2p/").unwrap();
        let peer: PeerId = peer.parse().unwrap();
        let network = node.libp2p().unwrap().network();
        let mut tries = 0;
        let mut stream = loop {
            match network.open(&peer, RAW).await {
                Ok(stream) => break stream,
                Err(error) => assert!(tries < 100, "{error}"),
            }
            tries += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let begun = Instant::now();
        match way {
            Way::Copy => copy(&mut stream, Path::new(data)).await,
            _ => {
                let (mut piece, mut bytes) = (vec![0; PIECE], 0);
                while let Ok(read @ 1..) = stream.read(&mut piece).await {
                    bytes += read;
                }
                assert!(bytes > 0);
            }
        }
        begun.elapsed().as_secs_f64()
    } else {
        let link: chiral::Link = what.parse().unwrap();
        let begun = Instant::now();
        let copy = Path::new(data).join("copy");
        node.get(&link).to_file(copy).await.unwrap();
        begun.elapsed().as_secs_f64()
    };
    let (own, peak, cpu) = spent();
    println!("{seconds} {own} {peak} {cpu}");
    node.shutdown().await.unwrap();
}

struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<std::process::ChildStdout>,
}

impl Peer {
    fn start(role: &str, listen: &str, arguments: [&str; 5]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(role)
            .args(arguments)
            .env(LISTEN, listen)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            input,
            output,
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "it has ended");
        line.trim().to_owned()
    }

    fn numbers(&mut self) -> Vec<f64> {
        let line = self.line();
        line.split(' ')
            .map(|number| number.parse().unwrap())
            .collect()
    }
}

#[derive(Clone, Copy)]
struct Figures {
    mib_per_s: f64,
    /// Of both sides, for a GiB.
    cpu: f64,
    /// Peak of each, its own and all, in MiB.
    seeder: (f64, f64),
    getter: (f64, f64),
}

async fn compare(arguments: &[String]) {
    let (mib, runs) = (
        option(arguments, "--mib", 1024),
        option(arguments, "--runs", 5),
    );
    let folder = std::env::temp_dir().join(format!("chiral-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("file");
    {
        let mut out = std::fs::File::create(&file).unwrap();
        let mut state = 1u64;
        for _ in 0..mib {
            let mut piece = Vec::with_capacity(1 << 20);
            while piece.len() < 1 << 20 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                piece.extend_from_slice(&state.to_be_bytes());
            }
            out.write_all(&piece).unwrap();
        }
    }
    let at = arguments.iter().position(|argument| argument == "--ways");
    let ways = at.and_then(|at| arguments.get(at + 1));
    let ways = ways.map_or("raw,copy,free,session,sealed:8", String::as_str);
    let ways: Vec<Way> = ways.split(',').map(Way::parse).collect();
    let (transport, listen) = match arguments.iter().any(|argument| argument == "--quic") {
        true => ("QUIC", "/ip4/127.0.0.1/udp/0/quic-v1"),
        false => ("TCP", "/ip4/127.0.0.1/tcp/0"),
    };
    let mut all: Vec<Vec<Figures>> = vec![Vec::new(); ways.len()];
    for run in 0..runs {
        for (way, figures) in ways.iter().zip(&mut all) {
            let network = Loopback::start().await.unwrap();
            let (rpc, bootstrap) = (network.rpc_url(), network.bootstrap().to_string());
            let data = folder.join(format!("{run}"));
            let (theirs, ours) = (data.join("seeder"), data.join("getter"));
            let name = way.name();
            let measured = tokio::task::spawn_blocking({
                let (file, data) = (file.clone(), data.clone());
                move || {
                    std::fs::create_dir_all(&data).unwrap();
                    let file = file.to_str().unwrap().to_owned();
                    let theirs = theirs.to_str().unwrap().to_owned();
                    let mut seeder =
                        Peer::start("serve", listen, [&name, &rpc, &bootstrap, &file, &theirs]);
                    let what = seeder.line();
                    let ours = ours.to_str().unwrap().to_owned();
                    let mut getter =
                        Peer::start("fetch", listen, [&name, &rpc, &bootstrap, &what, &ours]);
                    let got = getter.numbers();
                    drop(getter.input);
                    assert!(getter.child.wait().unwrap().success());
                    seeder.input.write_all(b"\n").unwrap();
                    let served = seeder.numbers();
                    assert!(seeder.child.wait().unwrap().success());
                    std::fs::remove_dir_all(&data).unwrap();
                    Figures {
                        mib_per_s: mib as f64 / got[0],
                        cpu: (got[3] + served[2]) * 1024.0 / mib as f64,
                        seeder: (served[0] / 1024.0, served[1] / 1024.0),
                        getter: (got[1] / 1024.0, got[2] / 1024.0),
                    }
                }
            });
            let measured = measured.await.unwrap();
            println!(
                "run {run}: {:<10} {:>7.1} MiB/s",
                way.name(),
                measured.mib_per_s
            );
            figures.push(measured);
            network.shutdown().await;
        }
    }
    let _ = std::fs::remove_dir_all(&folder);
    println!();
    println!("{mib} MiB over libp2p's {transport} on loopback, median of {runs}");
    println!(
        "way          MiB/s (least to most)  of first   cpu s/GiB   seeder MiB (all)   getter MiB (all)"
    );
    let median = |figures: &[Figures], of: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = figures.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let first = median(&all[0], |figures| figures.mib_per_s);
    for (way, figures) in ways.iter().zip(&all) {
        let speed = median(figures, |figures| figures.mib_per_s);
        let speeds = figures.iter().map(|figures| figures.mib_per_s);
        let (least, most) = (
            speeds.clone().fold(f64::MAX, f64::min),
            speeds.fold(0.0, f64::max),
        );
        println!(
            "{:<10} {speed:>7.1} ({least:>5.0} to {most:>5.0}) {:>9.2} {:>11.2} {:>12.1} ({:>4.1}) {:>11.1} ({:>4.1})",
            way.name(),
            speed / first,
            median(figures, |figures| figures.cpu),
            median(figures, |figures| figures.seeder.0),
            median(figures, |figures| figures.seeder.1),
            median(figures, |figures| figures.getter.0),
            median(figures, |figures| figures.getter.1),
        );
    }
}
