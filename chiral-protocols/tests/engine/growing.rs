//! Partial seeders that get more meanwhile, and seeders that are found later.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chiral_core::{
    Announcement, ChunkRuns, Coverage, DirectoryError, FileIdentification, PeerDirectory,
    PeerOffer, ProviderQuery, TransferError,
};
use chiral_protocols::{Engine, EngineConfig};
use tokio::time::timeout;

use super::bench::Bench;
use super::fake::{File, Manners, chunks, offer};

const PATIENCE: Duration = Duration::from_secs(30);

fn bench() -> Bench {
    let mut bench = Bench::new();
    let mut config = EngineConfig::default().with_source_patience(Duration::from_secs(2));
    config.coverage_refresh = Duration::from_millis(500);
    config.look_again = Duration::from_millis(200);
    bench.engine = Engine::new(bench.store.clone(), bench.network.registry.clone(), config);
    bench
}

fn first(count: u32) -> Coverage {
    Coverage::Partial(ChunkRuns::from_sorted(0..count))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seeder_that_grows_is_asked_for_what_it_gets() {
    let file = File::new(chunks(40));
    let bench = bench();
    let held = Arc::new(Mutex::new(first(5)));
    let growing = Manners {
        growing: Some(held.clone()),
        ..Manners::default()
    };
    let offers = vec![bench.network.seeder("grows", &file, growing)];
    let download = bench.start(file.link(), offers);
    let growth = tokio::spawn(async move {
        for count in (6..40).chain([40]) {
            tokio::time::sleep(Duration::from_millis(30)).await;
            *held.lock().unwrap() = first(count);
        }
        *held.lock().unwrap() = Coverage::Complete;
    });
    let result = timeout(PATIENCE, download.finished()).await.unwrap();
    bench.assert_complete(&file, result).await;
    growth.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_grows_no_more_is_not_waited_for_for_ever() {
    let file = File::new(chunks(40));
    let bench = bench();
    let stuck = Manners {
        growing: Some(Arc::new(Mutex::new(first(39)))),
        ..Manners::default()
    };
    let offers = vec![bench.network.seeder("stuck", &file, stuck)];
    let result = timeout(PATIENCE, bench.start(file.link(), offers).finished()).await;
    let result = result.unwrap();
    let missing = matches!(
        result,
        Err(TransferError::NoSources {
            missing: 262_144,
            ..
        })
    );
    assert!(missing, "{result:?}");
}

/// A directory that fails, and answers later.
#[derive(Debug)]
pub(crate) struct Unsteady {
    pub(crate) offers: Vec<PeerOffer>,
    /// Times that it fails.
    pub(crate) fails: u32,
    pub(crate) asked: Mutex<u32>,
}

#[async_trait]
impl PeerDirectory for Unsteady {
    async fn announce(&self, _: Announcement) -> Result<(), DirectoryError> {
        Err(DirectoryError::Closed)
    }

    async fn withdraw(&self, _: &FileIdentification) -> Result<bool, DirectoryError> {
        Ok(false)
    }

    async fn providers(&self, _: ProviderQuery) -> Result<Vec<PeerOffer>, DirectoryError> {
        let mut asked = self.asked.lock().unwrap();
        *asked += 1;
        if *asked <= self.fails {
            Err(DirectoryError::Unreachable)
        } else {
            Ok(self.offers.clone())
        }
    }

    async fn shutdown(&self) -> Result<(), DirectoryError> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_was_lost_is_asked_again() {
    let file = File::new(chunks(60));
    let bench = bench();
    let stalls = Manners {
        stalls_after: Some(chunks(10) as u64),
        ..Manners::default()
    };
    let offers = vec![bench.network.seeder("stalls", &file, stalls)];
    let late = bench.network.seeder("late", &file, Manners::default());
    let directory = Arc::new(Unsteady {
        // The one that is known already is not connected to once more.
        offers: vec![offers[0].clone(), late],
        fails: 3,
        asked: Mutex::default(),
    });
    let download = bench.start_request(file.link(), offers, |request| {
        request.directory = Some(directory.clone());
    });
    let result = timeout(PATIENCE, download.finished()).await.unwrap();
    let report = bench.assert_complete(&file, result).await;
    assert_eq!(report.sources.len(), 2);
    let late = report.sources.iter().find(|s| s.source == "late").unwrap();
    assert!(late.bytes >= chunks(50) as u64, "{late:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_answer_is_waited_for_and_no_later_one() {
    let file = File::new(chunks(5));
    let bench = bench();
    let seeder = bench.network.seeder("a", &file, Manners::default());
    let directory = |offers: Vec<PeerOffer>| {
        Arc::new(Unsteady {
            offers,
            fails: 0,
            asked: Mutex::default(),
        })
    };
    let known = directory(vec![seeder]);
    // Whom the caller named is not there; the directory knows somebody.
    let download = bench.start_request(file.link(), vec![offer("gone")], |request| {
        request.directory = Some(known);
    });
    let result = timeout(PATIENCE, download.finished()).await.unwrap();
    bench.assert_complete(&file, result).await;

    let other = File::new(chunks(6));
    let begun = std::time::Instant::now();
    let nobody = directory(Vec::new());
    let download = bench.start_request(other.link(), vec![offer("gone")], |request| {
        request.directory = Some(nobody.clone());
    });
    let result = timeout(PATIENCE, download.finished()).await.unwrap();
    assert!(matches!(result, Err(TransferError::NoSources { .. })));
    assert!(begun.elapsed() < Duration::from_secs(2), "at once");
    assert!(*nobody.asked.lock().unwrap() >= 1);
}
