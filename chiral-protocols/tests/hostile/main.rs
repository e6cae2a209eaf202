//! A thousand downloads in which half of the sources are hostile, through the engine itself, in
//! tokio's paused time: the file is always right, who sends wrong bytes is out after the first
//! contradiction, who stalls costs one timeout, and nothing is attributed that was not proven.
//!
//! `CHIRAL_HOSTILE_SEEDS` is the number of downloads (default 1,000); `CHIRAL_SEED` picks one;
//! `--nocapture` tells how they went.
// What is not a test itself helps tests only, and figures are told.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[allow(dead_code, reason = "the tests of the engine use more of it")]
#[path = "../engine/bench.rs"]
mod bench;
#[allow(dead_code, reason = "the tests of the engine use more of it")]
#[path = "../engine/fake.rs"]
mod fake;
mod judge;
mod scenario;

use std::collections::BTreeMap;
use std::time::Duration;

use chiral_core::FileIdentification;
use chiral_core::transfer::TransferEventKind;
use chiral_protocols::{DownloadReport, EngineConfig};
use futures_util::StreamExt;
use tokio::time::Instant;

use bench::Bench;
use fake::{File, Told, chunks};
use judge::judge;
use scenario::{Kind, Scenario};

/// The scheduler's own, by default: of a source that sent something, and of one that did not.
pub(crate) const STALL_TIMEOUT: f64 = 4.0;
pub(crate) const FIRST_BYTE_TIMEOUT: f64 = 8.0;
/// Seconds for whatever is neither bytes nor stalls: gathering roots, asking again.
const BESIDES: f64 = 2.0;

/// What came of one download.
pub(crate) struct Outcome {
    pub(crate) report: DownloadReport,
    pub(crate) told: BTreeMap<String, Told>,
    pub(crate) banned: BTreeMap<String, Instant>,
    pub(crate) stalls: BTreeMap<String, Vec<Instant>>,
    /// When each chunk was proven.
    pub(crate) proven: BTreeMap<u32, Instant>,
    pub(crate) seconds: f64,
}

/// Says which seed it was if a download goes wrong.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("CHIRAL_SEED={}", self.0);
        }
    }
}

fn numbers() -> impl Iterator<Item = u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    match number("CHIRAL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CHIRAL_HOSTILE_SEEDS").unwrap_or(1_000),
    }
}

async fn download(file: &File, scenario: &Scenario, target: FileIdentification) -> Outcome {
    let mut config = EngineConfig::default();
    if let Some(window) = scenario.window {
        config.window_chunks = window;
    }
    let bench = Bench::with(config);
    let peers = scenario.peers.iter();
    let offers = peers.map(|peer| bench.network.seeder(&peer.name, file, peer.manners.clone()));
    let begun = Instant::now();
    let (_, mut events, finished) = bench.start(target, offers.collect()).split();
    let watch = tokio::spawn(async move {
        let mut banned = BTreeMap::new();
        let mut stalls: BTreeMap<String, Vec<Instant>> = BTreeMap::new();
        let mut proven = BTreeMap::new();
        while let Some(event) = events.next().await {
            match event.kind {
                TransferEventKind::SourceBanned { source, .. } => {
                    banned.insert(source, Instant::now());
                }
                TransferEventKind::SourceDemoted { source, reason, .. } if reason == "stalled" => {
                    stalls.entry(source).or_default().push(Instant::now());
                }
                TransferEventKind::ChunkProven { index, .. } => {
                    proven.insert(index, Instant::now());
                }
                TransferEventKind::Ended { .. } => break,
                _ => {}
            }
        }
        (banned, stalls, proven)
    });
    let result = tokio::time::timeout(Duration::from_secs(600), finished.report()).await;
    let seconds = begun.elapsed().as_secs_f64();
    let report = bench.assert_complete(file, result.unwrap()).await;
    let (banned, stalls, proven) = watch.await.unwrap();
    let told = bench.network.told();
    Outcome {
        report,
        told,
        banned,
        stalls,
        proven,
        seconds,
    }
}

impl Scenario {
    /// Seconds that the download may take: what the honest sources that have everything need,
    /// once more for what was lost to the others, and one timeout if somebody stalls.
    pub(crate) fn bound(&self, file: &File) -> f64 {
        let honest = file.layout.size() as f64 / self.honest_rate();
        let stalling = |kind: Kind| self.peers.iter().any(|peer| peer.kind == kind);
        let timeout = if stalling(Kind::Drips) {
            FIRST_BYTE_TIMEOUT
        } else if stalling(Kind::Stalls) {
            STALL_TIMEOUT
        } else {
            0.0
        };
        2.0 * honest + timeout + BESIDES
    }
}

/// Runs a share of the seeds, each in a time of its own.
fn run(name: &str, mine: impl Fn(u64) -> bool, target: impl Fn(&File) -> FileIdentification) {
    let root = name == "link";
    let files: Vec<File> = [1, 3, 9, 20, 40]
        .map(|count| File::new(chunks(count) - 7))
        .into();
    let (mut seeds, mut worst) = (0, (0.0, 0));
    let (mut banned, mut corrupters, mut convicted) = (0, 0, 0);
    for seed in numbers().filter(|seed| mine(*seed)) {
        let file = &files[seed as usize / 2 % files.len()];
        let scenario = Scenario::new(seed, file.layout.count());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let _named = Named(seed);
        let outcome = runtime.block_on(download(file, &scenario, target(file)));
        convicted += judge(file, &scenario, &outcome, root);
        seeds += 1;
        banned += outcome.banned.len();
        let forgers = scenario.peers.iter();
        corrupters += forgers.filter(|it| it.kind == Kind::Corrupts).count();
        let part = outcome.seconds / scenario.bound(file);
        if part > worst.0 {
            worst = (part, seed);
        }
    }
    println!(
        "{name}: {seeds} downloads, {banned} sources put out, {corrupters} forgers of whom {convicted} could be convicted, at most {worst:.2?} of the time granted"
    );
}

#[test]
fn with_a_link_the_file_is_right_whoever_takes_part() {
    run("link", |seed| seed % 2 == 0, File::link);
}

#[test]
fn with_a_bare_cid_the_file_is_right_whoever_takes_part() {
    run("cid", |seed| seed % 2 == 1, |file| file.cid().into());
}
