//! Power cuts and failing disks at every kind of moment.
//!
//! Each point is a seeded workload on a simulated disk that dies, or fails once, at some
//! operation. What the disk then holds is opened again and compared with what had been
//! acknowledged. `CHIRAL_CRASH_POINTS` sets how many points are tried, and
//! `CHIRAL_CRASH_FIRST` the first seed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chiral_core::StoreError;

use super::vfs::sim::{Fault, Random, SimVfs};
use super::{FsStore, FsStoreConfig};

mod check;
mod model;
mod workload;

use model::{Model, samples};

const DIR: &str = "/store";

fn config() -> FsStoreConfig {
    FsStoreConfig {
        commit_chunks: 3,
        commit_delay: Duration::from_secs(3600),
        max_undurable_delay: Duration::from_secs(3600),
        verify_served_one_in: 1,
        background: false,
        ..FsStoreConfig::default()
    }
}

fn open(disk: &SimVfs) -> Result<FsStore, StoreError> {
    FsStore::open_on(Arc::new(disk.clone()), DIR.into(), config())
}

fn new_disk() -> SimVfs {
    let files = samples().iter().enumerate();
    let files: Vec<_> = files
        .map(|(index, sample)| (model::user_file(index), sample.bytes.to_vec()))
        .collect();
    SimVfs::new(&files)
}

/// One point: work, die, look.
async fn point(seed: u64) {
    let mut random = Random(seed);
    let disk = new_disk();
    let mut model = Model::default();
    let crash = random.below(700) + 1;
    if !random.one_in(8) {
        disk.crash_at(crash);
    }
    if random.one_in(2) {
        let fault = [Fault::NoSpace, Fault::Io, Fault::ShortWrite][random.below(3) as usize];
        disk.fault_at(random.below(crash) + 1, fault);
    }
    // Work goes on over several lives of the process, until the power is cut.
    for _ in 0..2 {
        if let Ok(store) = open(&disk) {
            workload::run(&store, &mut random, &mut model, &disk).await;
            if disk.is_off() || random.one_in(2) {
                // The process dies; what the operating system holds stays with the disk.
                store
                    .shared
                    .closed
                    .store(true, std::sync::atomic::Ordering::Release);
                drop(store);
                break;
            }
            let _ = chiral_core::ChunkStore::shutdown(&store).await;
        }
        model.forget_handles();
    }
    let disk = disk.reboot(&mut random);
    // Recovery may be interrupted, too.
    let disk = match random.below(3) {
        0 => {
            disk.crash_at(random.below(40) + 1);
            drop(open(&disk));
            disk.reboot(&mut random)
        }
        _ => disk,
    };
    check::all(&disk, &model, &mut random).await;
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_unverified_is_served() {
    let (first, count) = (
        number("CHIRAL_CRASH_FIRST", 0),
        number("CHIRAL_CRASH_POINTS", 300),
    );
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                for seed in (first..first + count).filter(|seed| seed % threads == thread) {
                    let task = std::panic::AssertUnwindSafe(|| runtime.block_on(point(seed)));
                    if let Err(panic) = std::panic::catch_unwind(task) {
                        eprintln!("crash point {seed} failed: CHIRAL_CRASH_FIRST={seed} CHIRAL_CRASH_POINTS=1");
                        std::panic::resume_unwind(panic);
                    }
                }
            });
        }
    });
}

/// The number of steps in a whole workload, so that crash points fall all over it.
#[test]
fn crash_points_cover_the_workload() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut steps: Vec<u64> = (0..8)
        .map(|seed| {
            let disk = new_disk();
            let store = open(&disk).unwrap();
            let (mut random, mut model) = (Random(seed), Model::default());
            runtime.block_on(workload::run(&store, &mut random, &mut model, &disk));
            runtime
                .block_on(chiral_core::ChunkStore::shutdown(&store))
                .unwrap();
            disk.steps()
        })
        .collect();
    steps.sort_unstable();
    assert!(
        (300..3000).contains(&steps[4]),
        "steps of a workload: {steps:?}"
    );
}

fn path(text: &str) -> PathBuf {
    text.into()
}
