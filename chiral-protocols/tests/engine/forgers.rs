//! Bytes and manifests that are not the file's.

use std::time::Duration;

use chiral_core::transfer::{TransferEventKind, TransferOutcome};
use chiral_core::{Coverage, TransferError};

use super::bench::Bench;
use super::fake::{File, Manners, chunks, offer};
use super::{banned, honest, refused_roots, set};

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
