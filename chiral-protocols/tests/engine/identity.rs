//! What a download is checked against: a link, a bare cid, a root.

use std::time::Duration;

use chiral_core::transfer::TransferEventKind;
use chiral_core::{ByteRange, ChunkRuns, Coverage, FileIdentification, PageRoots, TransferError};

use chiral_protocols::EngineConfig;

use super::bench::Bench;
use super::fake::{File, Manners, chunks};
use super::honest;

#[tokio::test(flavor = "multi_thread")]
async fn every_size_comes_by_link_by_cid_and_by_root() {
    for size in [0, 1, 262_143, 262_144, 262_145, chunks(5) - 7] {
        let file = File::new(size);
        let by_root = FileIdentification::Root(file.header.root);
        for target in [file.link(), file.cid().into(), by_root] {
            let bench = Bench::new();
            let a = bench.network.seeder("a", &file, honest());
            let b = bench.network.seeder("b", &file, honest());
            let (result, events) = bench.get(target, vec![a, b]).await;
            let report = bench.assert_complete(&file, result).await;
            let billed: u64 = report.delivered.iter().map(|part| part.ranges.len()).sum();
            assert_eq!(billed, file.layout.size(), "all is attributed");
            assert_eq!(
                events.iter().map(|e| e.sequence).collect::<Vec<_>>(),
                (0..events.len() as u64).collect::<Vec<_>>()
            );
            assert!(matches!(
                events.last().unwrap().kind,
                TransferEventKind::Ended { .. }
            ));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_cid_never_has_more_than_64_chunks_unproven() {
    let file = File::new(chunks(300) - 11);
    let bench = Bench::new();
    let offers = ["a", "b", "c"]
        .map(|name| bench.network.seeder(name, &file, honest()))
        .to_vec();
    let (result, events) = bench.get(file.cid(), offers).await;
    bench.assert_complete(&file, result).await;
    let mut present = 0;
    let mut last_proven = None;
    for event in &events {
        match event.kind {
            TransferEventKind::ChunkPresent { unproven, .. } => {
                present += 1;
                assert!(unproven <= 64, "{unproven} chunks present and not proven");
            }
            TransferEventKind::ChunkProven { index, .. } => {
                assert!(
                    last_proven.is_none_or(|last| index < last),
                    "proven from the end"
                );
                last_proven = Some(index);
            }
            _ => {}
        }
    }
    assert_eq!((present, last_proven), (300, Some(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_whose_root_and_cid_do_not_belong_together_is_refused() {
    let (file, other) = (File::new(chunks(4)), File::new(chunks(5)));
    let target = FileIdentification::Content {
        cid: file.cid(),
        root: Some(other.header.root),
        size: None,
    };
    let bench = Bench::new();
    // Its author serves the tree that the root is of, and calls it by the cid.
    let mut served = other.clone();
    served.header.cid = file.cid();
    let offers = vec![bench.network.seeder("author", &served, honest())];
    let (result, _) = bench.get(target, offers).await;
    assert!(
        matches!(result, Err(TransferError::BadLink { .. })),
        "{result:?}"
    );
    // With honest seeders only, who announce another root.
    let bench = Bench::new();
    let offers = vec![bench.network.seeder("honest", &file, honest())];
    let (result, _) = bench.get(target, offers).await;
    assert!(
        matches!(result, Err(TransferError::BadLink { .. })),
        "{result:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lying_link_proved_is_taken_for_nothing_else() {
    let file = File::new(chunks(20));
    // The author's own bytes up to chunk 9, under hashes that they lead to; the rest is the
    // file's, so that the last leaf is the cid.
    let mut data = file.data.to_vec();
    data[..chunks(10)].fill(9);
    let mut forged = File::of(data);
    forged.hashes[10..].copy_from_slice(&file.hashes[10..]);
    forged.header.root = PageRoots::from_hashes(forged.layout, &forged.hashes)
        .unwrap()
        .root();
    forged.header.cid = file.cid();
    for target in [file.link(), file.cid().into()] {
        let bench = Bench::new();
        let author = bench.network.seeder("author", &forged, honest());
        let (result, _) = bench.get(forged.link(), vec![author]).await;
        assert!(
            matches!(result, Err(TransferError::NoSources { .. })),
            "{result:?}"
        );
        let good = bench.network.seeder("good", &file, honest());
        let (result, _) = bench.get(target, vec![good]).await;
        bench.assert_complete(&file, result).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_hear_of_the_root_where_every_chunk_is_checked_as_it_comes() {
    let file = File::new(chunks(20));
    let mirror = || Manners {
        mirror: true,
        ..honest()
    };
    for (target, manners, known) in [
        (file.link(), honest(), true),
        (file.cid().into(), honest(), false),
        (file.cid().into(), mirror(), false),
    ] {
        let bench = Bench::new();
        let a = bench.network.seeder("a", &file, manners);
        let (result, _) = bench.get(target, vec![a]).await;
        bench.assert_complete(&file, result).await;
        let told = bench.network.told().remove("a").unwrap();
        assert_eq!(told.verified.len(), file.layout.size());
        assert_eq!(told.root_known, known, "{target}");
        assert!(told.closed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_kept_and_served_as_a_part() {
    let file = File::new(chunks(30) + 9);
    let bench = Bench::new();
    let offers = vec![bench.network.seeder("a", &file, honest())];
    let part = ByteRange::new(262_144 * 3 + 5, 262_144 * 9);
    let download = bench.start_request(file.link(), offers.clone(), |r| r.only = Some(part));
    let report = download.finished().await.unwrap();
    assert!(report.object.is_none());
    let content = bench.store.open(file.cid()).await.unwrap().unwrap();
    let runs = ChunkRuns::new(vec![(3, 9)], file.layout).unwrap();
    assert_eq!(content.coverage(), Coverage::Partial(runs));
    let range = ByteRange::new(262_144 * 4, 262_144 * 5);
    assert_eq!(
        content.read(range).await.unwrap(),
        file.data.slice(262_144 * 4..262_144 * 5)
    );
    assert!(content.page(0).await.unwrap().is_some());
    // The rest follows later.
    let (result, _) = bench.get(file.link(), offers).await;
    let report = bench.assert_complete(&file, result).await;
    assert_eq!(
        report.delivered[0].ranges.len(),
        file.layout.size() - 6 * 262_144
    );
}

/// Who was asked for the last chunk, and how often.
fn asked_for_the_end(bench: &Bench, file: &File) -> Vec<(String, usize)> {
    let last = file.layout.range(file.layout.last().unwrap());
    let told = bench.network.told().into_iter();
    told.map(|(name, told)| {
        let asked = told.asked.iter();
        let end = asked.filter(|asked| asked.range.covers(last)).count();
        (name, end)
    })
    .filter(|(_, end)| *end > 0)
    .collect()
}

#[tokio::test(start_paused = true)]
async fn of_those_who_are_paid_one_is_asked_for_the_chunk_that_shows_the_size() {
    let file = File::new(chunks(20) - 3);
    // Several roots that lead to the cid by the same bytes are one question.
    let files = [3, 7, 11].map(|n| file.with_wrong_hash(n));
    let paid = |pays| Manners {
        pays: Some(Duration::from_millis(pays)),
        slow: Some(Duration::from_millis(300)),
        ..honest()
    };
    // It takes long to agree on the price, and bytes come slowly: both are no stall.
    let bench = Bench::with(EngineConfig::default());
    let mut offers = vec![bench.network.seeder("a", &file, paid(700))];
    for (n, forged) in files.iter().enumerate() {
        let name = format!("b{n}");
        offers.push(bench.network.seeder(&name, forged, paid(700)));
    }
    let (result, _) = bench.get(file.cid(), offers).await;
    bench.assert_complete(&file, result).await;
    let asked = asked_for_the_end(&bench, &file);
    assert!(matches!(&asked[..], [(_, 1)]), "{asked:?}");

    // Meanwhile somebody who asks no price is asked; and of those who stall the next one.
    for (stalls, other) in [(None, "free"), (Some(0), "b")] {
        let bench = Bench::with(EngineConfig::default());
        let first = Manners {
            stalls_after: stalls,
            ..paid(if stalls.is_some() { 0 } else { 5_000 })
        };
        let mirror = Manners {
            mirror: true,
            stalls_after: stalls,
            ..honest()
        };
        let mut offers = vec![bench.network.seeder("a", &file, first)];
        offers.push(bench.network.seeder("free", &file, mirror));
        if stalls.is_some() {
            offers.push(bench.network.seeder("b", &file, paid(0)));
        }
        let (result, _) = bench.get(file.cid(), offers).await;
        bench.assert_complete(&file, result).await;
        let asked = asked_for_the_end(&bench, &file);
        assert_eq!(asked, [("a".to_owned(), 1), (other.to_owned(), 1)]);
    }
}
