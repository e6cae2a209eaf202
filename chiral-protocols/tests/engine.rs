//! Whole downloads through the engine, from sources that may do anything.
// What is not a test itself helps tests only.
#![allow(clippy::unwrap_used)]

mod engine {
    pub(crate) mod bench;
    pub(crate) mod fake;
    mod growing;
    mod pieces;
    mod queue;
    mod reading;
}

use std::collections::BTreeSet;
use std::time::Duration;

use chiral_core::transfer::{TransferEvent, TransferEventKind, TransferOutcome};
use chiral_core::{
    ByteRange, ChunkRuns, Coverage, FileIdentification, PageRoots, RequestGrid, TransferError,
};
use chiral_protocols::DownloadReport;
use engine::bench::Bench;
use engine::fake::{File, Manners, chunks, offer};

fn honest() -> Manners {
    Manners::default()
}

fn banned(report: &DownloadReport) -> Vec<&str> {
    report
        .sources
        .iter()
        .filter(|s| s.banned.is_some())
        .map(|s| s.source.as_str())
        .collect()
}

fn refused_roots(events: &[TransferEvent]) -> usize {
    events
        .iter()
        .filter(|e| matches!(e.kind, TransferEventKind::RootRefused { .. }))
        .count()
}

fn set(indices: impl IntoIterator<Item = u32>) -> BTreeSet<u32> {
    indices.into_iter().collect()
}

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
async fn one_wrong_byte_puts_its_sender_out_and_nobody_else() {
    let file = File::new(chunks(150));
    for target in [file.link(), file.cid().into()] {
        let bench = Bench::new();
        let bad = Manners {
            corrupt: (0..149).collect(),
            ..honest()
        };
        let a = bench.network.seeder("bad", &file, bad);
        let b = bench.network.seeder("good", &file, honest());
        let (result, events) = bench.get(target, vec![a, b]).await;
        let report = bench.assert_complete(&file, result).await;
        assert_eq!(banned(&report), ["bad"]);
        // The root that the corrupter announced is the honest one, and survives it.
        assert_eq!(refused_roots(&events), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_right_at_the_tail_and_wrong_in_the_middle_is_refused() {
    let file = File::new(chunks(150));
    let forged = file.with_wrong_hash(70);
    let bench = Bench::new();
    // Two announcers: the forged root leads.
    let offers = vec![
        bench.network.seeder("liar1", &forged, honest()),
        bench.network.seeder("liar2", &forged, honest()),
        bench.network.seeder("honest", &file, honest()),
        bench.network.seeder(
            "mirror",
            &file,
            Manners {
                mirror: true,
                ..honest()
            },
        ),
    ];
    let (result, events) = bench.get(file.cid(), offers).await;
    let report = bench.assert_complete(&file, result).await;
    assert_eq!(refused_roots(&events), 1);
    // Their bytes were right; only their manifest was not. And who announces no root is not
    // blamed for one.
    assert!(banned(&report).is_empty(), "{:?}", banned(&report));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_manifest_alone_does_not_stop_honest_bytes() {
    let file = File::new(chunks(90));
    let forged = file.with_wrong_hash(40);
    let bench = Bench::new();
    let offers = vec![
        bench.network.seeder("liar", &forged, honest()),
        bench.network.seeder(
            "mirror",
            &file,
            Manners {
                mirror: true,
                ..honest()
            },
        ),
    ];
    let (result, _) = bench.get(file.cid(), offers).await;
    bench.assert_complete(&file, result).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_sizes_and_foreign_roots_are_refused_at_the_tail() {
    let file = File::new(chunks(20) + 5);
    let mut longer = file.data.to_vec();
    longer.extend_from_slice(&[1; 1000]);
    let mut other = File::of(longer);
    // Its last leaf is made to be the cid, as a forger would.
    *other.hashes.last_mut().unwrap() = file.cid().into();
    other.header.cid = file.cid();
    let mut foreign = File::new(chunks(3));
    foreign.header.cid = file.cid();
    for bad in [&other, &foreign] {
        let bench = Bench::new();
        let offers = vec![
            bench.network.seeder("bad", bad, honest()),
            bench.network.seeder("good", &file, honest()),
        ];
        let (result, _) = bench.get(file.cid(), offers).await;
        let report = bench.assert_complete(&file, result).await;
        assert!(
            report
                .sources
                .iter()
                .all(|s| s.source != "bad" || s.bytes == 0)
        );
    }
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
async fn a_source_that_lies_about_its_coverage_costs_nothing_but_questions() {
    let file = File::new(chunks(120));
    for target in [file.link(), file.cid().into()] {
        let bench = Bench::new();
        let liar = Manners {
            pretends: set((0..119).filter(|i| i % 3 != 0)),
            ..honest()
        };
        let offers = vec![
            bench.network.seeder("liar", &file, liar),
            bench.network.seeder("good", &file, honest()),
        ];
        let (result, _) = bench.get(target, offers).await;
        bench.assert_complete(&file, result).await;
        let asked = bench.network.told()["liar"].asked.len();
        assert!(asked <= 360, "{asked} questions about 120 chunks");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_say_they_have_everything_each_has_what_the_other_lacks() {
    let file = File::new(chunks(40));
    for target in [file.link(), file.cid().into()] {
        let bench = Bench::new();
        let lacks = |odd: bool| Manners {
            pretends: set((0..40).filter(|i| (i % 2 == 1) == odd)),
            ..honest()
        };
        let offers = vec![
            bench.network.seeder("even", &file, lacks(true)),
            bench.network.seeder("odd", &file, lacks(false)),
        ];
        let (result, _) = bench.get(target, offers).await;
        bench.assert_complete(&file, result).await;
        for (name, told) in bench.network.told() {
            let asked = told.asked.len();
            assert!(asked <= 200, "{name}: {asked} questions about 40 chunks");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lone_source_of_a_bare_cid_is_let_finish_what_it_began() {
    let file = File::new(chunks(40));
    let bench = Bench::new();
    let slow = Manners {
        slow: Some(Duration::from_millis(29)),
        ..honest()
    };
    let offers = vec![bench.network.seeder("alone", &file, slow)];
    let (result, _) = bench
        .get(FileIdentification::from(file.cid()), offers)
        .await;
    bench.assert_complete(&file, result).await;
    let sent = bench.network.sent("alone");
    assert!(sent <= 2 * file.layout.size(), "{sent} bytes were sent");
}

#[tokio::test(start_paused = true)]
async fn whoever_keeps_the_end_of_each_chunk_back_holds_nothing_up() {
    let file = File::new(chunks(9));
    let bench = Bench::new();
    let short = Manners {
        short: 61_293,
        ..honest()
    };
    let offers = vec![
        bench.network.seeder("short", &file, short),
        bench.network.seeder(
            "good",
            &file,
            Manners {
                slow: Some(Duration::from_millis(20)),
                ..honest()
            },
        ),
        bench.network.seeder(
            "forger",
            &file,
            Manners {
                corrupt: set(0..9),
                ..honest()
            },
        ),
    ];
    let (result, _) = bench
        .get(FileIdentification::from(file.cid()), offers)
        .await;
    bench.assert_complete(&file, result).await;
    let asked = bench.network.told()["short"].asked.len();
    assert!(asked <= 60, "{asked} questions about 9 chunks");
}

#[tokio::test(flavor = "multi_thread")]
async fn among_mirrors_alone_the_honest_one_is_found() {
    let file = File::new(chunks(40) + 1);
    for liars in 0..3 {
        let bench = Bench::new();
        let mut offers = Vec::new();
        for n in 0..liars {
            let bad = Manners {
                mirror: true,
                corrupt: set([n * 7 + 1]),
                ..honest()
            };
            offers.push(bench.network.seeder(&format!("bad{n}"), &file, bad));
        }
        offers.push(bench.network.seeder(
            "good",
            &file,
            Manners {
                mirror: true,
                ..honest()
            },
        ));
        let (result, _) = bench.get(file.cid(), offers).await;
        let report = bench.assert_complete(&file, result).await;
        assert!(!banned(&report).contains(&"good"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_that_lied_are_told_from_those_that_did_not() {
    let file = File::new(chunks(200) + 1);
    for liars in 0..5 {
        let bench = Bench::new();
        let mirror = |corrupt| Manners {
            mirror: true,
            corrupt,
            ..honest()
        };
        let seeder = |name: &str, manners| bench.network.seeder(name, &file, manners);
        let bad = |n| seeder(&format!("bad{n}"), mirror(set(0..201)));
        let good = |n| seeder(&format!("good{n}"), mirror(set([])));
        let offers = (0..liars).map(bad).chain((0..3).map(good)).collect();
        let (result, _) = bench.get(file.cid(), offers).await;
        let report = bench.assert_complete(&file, result).await;
        let named: Vec<_> = (0..liars).map(|n| format!("bad{n}")).collect();
        assert_eq!(banned(&report), named);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn if_nobody_has_the_file_the_download_fails_and_says_so() {
    let file = File::new(chunks(10));
    let bad = |n| Manners {
        corrupt: set([n]),
        ..honest()
    };
    for mirror in [true, false] {
        for target in [file.link(), file.cid().into()] {
            let bench = Bench::new();
            let offers = vec![
                bench
                    .network
                    .seeder("a", &file, Manners { mirror, ..bad(3) }),
                bench
                    .network
                    .seeder("b", &file, Manners { mirror, ..bad(3) }),
            ];
            let (result, events) = bench.get(target, offers).await;
            assert!(
                matches!(result, Err(TransferError::NoSources { .. })),
                "{result:?}"
            );
            let last = &events.last().unwrap().kind;
            assert!(matches!(
                last,
                TransferEventKind::Ended {
                    outcome: TransferOutcome::Failed { .. }
                }
            ));
            assert!(
                bench
                    .store
                    .open(file.cid())
                    .await
                    .unwrap()
                    .is_none_or(|content| { !matches!(content.coverage(), Coverage::Complete) })
            );
        }
    }
    let bench = Bench::new();
    let (result, _) = bench.get(file.cid(), vec![offer("nobody")]).await;
    assert!(
        matches!(result, Err(TransferError::NoSources { .. })),
        "{result:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_staller_costs_a_timeout_and_not_the_download() {
    let file = File::new(chunks(60));
    for target in [file.link(), file.cid().into()] {
        let bench = Bench::new();
        let staller = Manners {
            stalls_after: Some(400_000),
            ..honest()
        };
        let offers = vec![
            bench.network.seeder("staller", &file, staller),
            bench.network.seeder("good", &file, honest()),
        ];
        let (result, _) = bench.get(target, offers).await;
        let report = bench.assert_complete(&file, result).await;
        assert!(banned(&report).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grids_that_do_not_divide_and_partial_seeders_combine() {
    let file = File::new(20_000_000);
    let bench = Bench::new();
    let half = ChunkRuns::new(vec![(0, 30)], file.layout).unwrap();
    let rest = ChunkRuns::new(vec![(25, 77)], file.layout).unwrap();
    let slow = Some(Duration::from_millis(2));
    let seeders = [
        (
            "ed2k",
            Manners {
                grid: Some(RequestGrid::parts(9_728_000, 184_320)),
                slow,
                ..honest()
            },
        ),
        (
            "torrent",
            Manners {
                grid: Some(RequestGrid::every(1 << 20)),
                slow,
                ..honest()
            },
        ),
        (
            "low",
            Manners {
                coverage: Some(Coverage::Partial(half)),
                slow,
                ..honest()
            },
        ),
        (
            "high",
            Manners {
                coverage: Some(Coverage::Partial(rest)),
                slow,
                ..honest()
            },
        ),
    ];
    let offers = seeders
        .map(|(name, manners)| bench.network.seeder(name, &file, manners))
        .to_vec();
    let (result, _) = bench.get(file.link(), offers).await;
    let report = bench.assert_complete(&file, result).await;
    assert!(
        report.sources.iter().all(|source| source.bytes > 0),
        "{:?}",
        report.sources
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_pauses_resumes_is_cancelled_and_gone_on_with() {
    let file = File::new(chunks(200));
    for target in [file.link(), file.cid().into()] {
        let bench = Bench::new();
        let slow = Manners {
            slow: Some(Duration::from_millis(8)),
            ..honest()
        };
        let offers = vec![bench.network.seeder("slow", &file, slow)];
        let download = bench.start(target, offers.clone());
        let transfer = download.transfer().clone();
        let reach = |chunks: u32| {
            let transfer = transfer.clone();
            async move {
                while transfer.progress().proven < u64::from(chunks) * 262_144 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), reach(5))
            .await
            .unwrap();
        assert!(transfer.pause());
        tokio::time::sleep(Duration::from_millis(100)).await;
        let paused_at = bench.network.sent("slow");
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!(
            bench.network.sent("slow"),
            paused_at,
            "nothing moves while paused"
        );
        assert!(transfer.resume());
        tokio::time::timeout(Duration::from_secs(10), reach(80))
            .await
            .unwrap();
        assert!(transfer.cancel());
        let result = tokio::time::timeout(Duration::from_secs(5), download.finished())
            .await
            .unwrap();
        assert!(
            matches!(result, Err(TransferError::Cancelled(_))),
            "{result:?}"
        );
        assert_eq!(transfer.outcome(), Some(TransferOutcome::Cancelled));

        let before = bench.network.sent("slow");
        let fast = bench.network.seeder("fast", &file, honest());
        let (result, events) = bench.get(target, vec![offers[0].clone(), fast]).await;
        bench.assert_complete(&file, result).await;
        let resumed = events.iter().find_map(|event| match event.kind {
            TransferEventKind::Started { chunks_resumed } => Some(chunks_resumed),
            _ => None,
        });
        // More than a window of them: what was proven is passed over.
        assert!(resumed >= Some(80), "{resumed:?}");
        let again = bench.network.sent("slow") - before + bench.network.sent("fast");
        assert!(
            again <= 125 * 262_144,
            "{again} bytes fetched after resuming at 80 of 200 chunks"
        );
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

#[tokio::test(flavor = "multi_thread")]
async fn half_of_twenty_sources_may_be_hostile() {
    let file = File::new(chunks(200) + 77);
    let forged = file.with_wrong_hash(120);
    for seed in 0..4u32 {
        for target in [file.link(), file.cid().into()] {
            let bench = Bench::new();
            let mut offers = Vec::new();
            for n in 0..20u32 {
                let kind = (n * 7 + seed * 3) % 10;
                let mine = |i: &u32| (i.wrapping_mul(2_654_435_761) ^ (n * 977)).is_multiple_of(5);
                let slow = Some(Duration::from_millis(u64::from(n % 4)));
                let (of, manners) = match kind {
                    0 | 1 => (
                        &file,
                        Manners {
                            corrupt: set((0..200).filter(mine)),
                            slow,
                            ..honest()
                        },
                    ),
                    2 => (
                        &file,
                        Manners {
                            pretends: set((0..200).filter(mine)),
                            slow,
                            ..honest()
                        },
                    ),
                    3 => (
                        &file,
                        Manners {
                            stalls_after: Some(300_000),
                            ..honest()
                        },
                    ),
                    4 => (&forged, Manners { slow, ..honest() }),
                    _ => (&file, Manners { slow, ..honest() }),
                };
                offers.push(bench.network.seeder(&format!("s{n}-{kind}"), of, manners));
            }
            let (result, _) = bench.get(target, offers).await;
            let report = bench.assert_complete(&file, result).await;
            for source in banned(&report) {
                let corrupter = source.ends_with("-0") || source.ends_with("-1");
                assert!(
                    corrupter,
                    "{source} was put out although it sent nothing wrong"
                );
            }
        }
    }
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
