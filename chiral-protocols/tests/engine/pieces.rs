//! Downloads of which nothing is known but another network's hashes of pieces.

use std::sync::Arc;
use std::time::Duration;

use chiral_core::chain::ChunkHasher;
use chiral_core::{
    Alias, ChunkRuns, Cid, Coverage, FileIdentification, PieceChecker, PieceHashes, RequestGrid,
    TransferError,
};
use chiral_protocols::DownloadReport;

use super::bench::Bench;
use super::fake::{File, Manners, chunks};
use crate::{banned, honest};

/// Pieces by SHA-256.
#[derive(Debug)]
struct Listed {
    size: u64,
    length: u64,
    hashes: Vec<Cid>,
}

impl Listed {
    fn of(file: &File, length: u64) -> Arc<Self> {
        let hash = |piece: &[u8]| {
            let mut hasher = ChunkHasher::new();
            hasher.update(piece);
            hasher.finish().unwrap().1
        };
        Arc::new(Self {
            size: file.layout.size(),
            length,
            hashes: file.data.chunks(length as usize).map(hash).collect(),
        })
    }
}

impl PieceHashes for Listed {
    fn size(&self) -> u64 {
        self.size
    }

    fn piece_length(&self) -> u64 {
        self.length
    }

    fn checker(&self, piece: u32) -> Box<dyn PieceChecker> {
        let expected = self.hashes[piece as usize];
        Box::new(Checker(ChunkHasher::new(), expected))
    }
}

struct Checker(ChunkHasher, Cid);

impl PieceChecker for Checker {
    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn passes(self: Box<Self>) -> bool {
        self.0.finish().is_ok_and(|(_, cid)| cid == self.1)
    }
}

fn mirror() -> Manners {
    Manners {
        mirror: true,
        ..honest()
    }
}

fn alias() -> FileIdentification {
    Alias::InfoHashV1([7; 20]).into()
}

async fn get(
    bench: &Bench,
    target: FileIdentification,
    pieces: Arc<Listed>,
    sources: &[(&str, &File, Manners)],
) -> Result<DownloadReport, TransferError> {
    let offers = sources
        .iter()
        .map(|(name, file, manners)| bench.network.seeder(name, file, manners.clone()))
        .collect();
    let download = bench.start_request(target, offers, |request| request.pieces = Some(pieces));
    tokio::time::timeout(Duration::from_secs(60), download.finished())
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_length_of_pieces_and_files_ends_with_the_cid() {
    for size in [0, 1, 262_143, 262_144, chunks(3) + 1, chunks(21) - 9] {
        let file = File::new(size);
        for length in [1 << 16, 1 << 18, 1 << 20, 300_000, 700_001] {
            let bench = Bench::new();
            let sources = [("a", &file, mirror()), ("b", &file, mirror())];
            let result = get(&bench, alias(), Listed::of(&file, length), &sources).await;
            let report = bench.assert_complete(&file, result).await;
            let billed: u64 = report.delivered.iter().map(|part| part.ranges.len()).sum();
            assert_eq!(billed, size as u64, "all is attributed, pieces of {length}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupter_is_out_and_nobody_else() {
    let file = File::new(chunks(40) - 3);
    for length in [1 << 16, 1 << 18, 1 << 20] {
        let bench = Bench::patient();
        let bad = Manners {
            corrupt: (0..40).collect(),
            // So that pieces are put together from both.
            grid: Some(RequestGrid::every(16_384)),
            ..mirror()
        };
        // Not over before the other has begun.
        let good = Manners {
            slow: Some(Duration::from_millis(2)),
            ..mirror()
        };
        let sources = [("bad", &file, bad), ("good", &file, good)];
        let result = get(&bench, alias(), Listed::of(&file, length), &sources).await;
        let report = bench.assert_complete(&file, result).await;
        let told = &report.sources;
        assert_eq!(banned(&report), ["bad"], "pieces of {length}: {told:?}");
        let paid = |name| {
            report
                .delivered
                .iter()
                .any(|d| d.offer.endpoint.as_str() == name)
        };
        assert!(paid("good"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hashes_that_nobody_has_bytes_for_never_end_in_a_file() {
    let (file, other) = (File::new(chunks(4)), File::of(vec![1; chunks(4)]));
    let bench = Bench::new();
    let sources = [("a", &other, mirror()), ("b", &other, mirror())];
    let result = get(&bench, alias(), Listed::of(&file, 1 << 18), &sources).await;
    assert!(
        matches!(result, Err(TransferError::NoSources { .. })),
        "{result:?}"
    );
    assert!(bench.store.objects().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cid_that_is_known_too_must_come_out() {
    let (file, other) = (File::new(chunks(4)), File::new(chunks(5)));
    for (cid, right) in [(file.cid(), true), (other.cid(), false)] {
        let bench = Bench::new();
        let sources = [("a", &file, mirror())];
        let result = get(&bench, cid.into(), Listed::of(&file, 1 << 18), &sources).await;
        match right {
            true => drop(bench.assert_complete(&file, result).await),
            false => assert!(matches!(result, Err(TransferError::BadLink { .. }))),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_run_left_is_checked_and_not_fetched_again() {
    let file = File::new(chunks(20));
    let pieces = Listed::of(&file, 1 << 20);
    let bench = Bench::new();
    let half = Manners {
        coverage: Some(Coverage::Partial(
            ChunkRuns::new(vec![(0, 10)], file.layout).unwrap(),
        )),
        ..mirror()
    };
    let first = get(&bench, alias(), pieces.clone(), &[("half", &file, half)]).await;
    assert!(
        matches!(first, Err(TransferError::NoSources { .. })),
        "{first:?}"
    );
    let result = get(&bench, alias(), pieces, &[("whole", &file, mirror())]).await;
    let report = bench.assert_complete(&file, result).await;
    let fetched: u64 = report.delivered.iter().map(|part| part.ranges.len()).sum();
    assert_eq!(fetched, file.layout.size() - chunks(10) as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_get_what_has_passed_while_the_rest_is_missing() {
    use tokio::io::AsyncReadExt;
    let file = File::new(chunks(8));
    let bench = Bench::new();
    let slow = Manners {
        slow: Some(Duration::from_millis(5)),
        ..mirror()
    };
    let offer = bench.network.seeder("slow", &file, slow);
    let pieces = Listed::of(&file, 1 << 19);
    let download = bench.start_request(alias(), vec![offer], |request| {
        request.pieces = Some(pieces);
    });
    let mut reader = download.readable().reader().unwrap();
    let mut bytes = vec![0; 1 << 19];
    reader.read_exact(&mut bytes).await.unwrap();
    assert!(bytes == file.data[..1 << 19]);
    download.finished().await.unwrap();
}
