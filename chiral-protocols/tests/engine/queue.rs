//! Whose turn it is and how fast: with downloads that really run.

use std::time::{Duration, Instant};

use chiral_core::transfer::{TransferEventKind, TransferOutcome, TransferState};
use chiral_core::{ByteRange, Priority, Rate, Transfer, TransferError};
use futures_util::StreamExt;
use tokio::time::timeout;

use super::bench::Bench;
use super::fake::{File, Manners, chunks};

const PATIENCE: Duration = Duration::from_secs(30);

fn rate(text: &str) -> Rate {
    text.parse().unwrap()
}

/// A file that no other has a chunk of: its first bytes differ.
fn file(size: usize) -> File {
    File::new(size)
}

async fn state(transfer: &Transfer, wanted: TransferState) {
    let reached = async {
        while transfer.state() != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, reached).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_holds_for_all_sources_together_and_nobody_is_taken_for_a_staller() {
    let file = file(chunks(32));
    for target in [file.link(), file.cid().into()] {
        let bench = Bench::new();
        let names = ["a", "b", "c", "d"];
        let offers = names.map(|name| bench.network.seeder(name, &file, Manners::default()));
        let begun = Instant::now();
        let download = bench.start_request(target, offers.to_vec(), |request| {
            request.limit = Some(rate("4MiB"));
        });
        let (_, events, finished) = download.split();
        let result = timeout(PATIENCE, finished.report()).await.unwrap();
        let took = begun.elapsed();
        bench.assert_complete(&file, result).await;
        // The tail that shows the identity is not under the limit, which is no part of the file
        // but of the talk about it: at most one chunk for each source.
        assert!(took >= Duration::from_millis(1_700), "{took:?}");
        let events: Vec<_> = events.collect().await;
        let demoted = |kind: &TransferEventKind| {
            matches!(
                kind,
                TransferEventKind::SourceDemoted { .. } | TransferEventKind::SourceDown { .. }
            )
        };
        assert!(
            !events.iter().any(|event| demoted(&event.kind)),
            "{events:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_share_a_limit_by_priority_which_changes_while_they_run() {
    let bench = Bench::new();
    let (one, two) = (file(chunks(40)), file(chunks(40) - 1));
    let a = bench.network.seeder("a", &one, Manners::default());
    let b = bench.network.seeder("b", &two, Manners::default());
    bench.engine.downloads().set_limit(Some(rate("8MiB")));
    let high = |request: &mut chiral_core::DownloadRequest| request.priority = Priority::High;
    let first = bench.start_request(one.link(), vec![a], high);
    let second = bench.start(two.link(), vec![b]);
    let (first, second) = (first.transfer().clone(), second.transfer().clone());
    let received =
        |transfer: &Transfer| transfer.sources().iter().map(|s| s.bytes + s.wasted).sum();
    let reached = |transfer: Transfer, bytes: u64| async move {
        while transfer.progress().present < bytes {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let mib = 1 << 20;
    timeout(PATIENCE, reached(first.clone(), 4 * mib))
        .await
        .unwrap();
    // Four to one, give or take what is in flight and what showed the identity.
    let behind: u64 = received(&second);
    assert!(behind <= 2 * mib, "{behind}");
    let downloads = bench.engine.downloads();
    assert!(downloads.set_priority(first.id(), Priority::Low));
    assert!(downloads.set_priority(second.id(), Priority::High));
    timeout(PATIENCE, reached(second.clone(), 9 * mib))
        .await
        .unwrap();
    let ahead: u64 = received(&first);
    assert!(ahead <= 7 * mib, "{ahead}");
    // Without the limit they end at once.
    downloads.set_limit(None);
    for transfer in [first, second] {
        let outcome = timeout(PATIENCE, transfer.ended()).await.unwrap();
        assert!(
            matches!(outcome, TransferOutcome::Completed { .. }),
            "{outcome:?}"
        );
        assert_eq!(downloads.priority(transfer.id()), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_work_as_may_and_the_others_wait_pause_and_are_cancelled() {
    let bench = Bench::new();
    bench.engine.downloads().set_max(Some(1));
    let slow = Manners {
        slow: Some(Duration::from_millis(5)),
        ..Manners::default()
    };
    let files: Vec<File> = (0..4).map(|n| file(chunks(60) - n)).collect();
    let mut downloads = Vec::new();
    for (n, file) in files.iter().enumerate() {
        let offer = bench.network.seeder(&format!("s{n}"), file, slow.clone());
        downloads.push(bench.start(file.link(), vec![offer]));
    }
    let transfers: Vec<_> = downloads.iter().map(|d| d.transfer().clone()).collect();
    state(&transfers[1], TransferState::Queued).await;
    state(&transfers[3], TransferState::Queued).await;
    assert_eq!(transfers[0].state(), TransferState::Running);

    // Cancelled in the queue: it ends at once and nothing was asked of its seeder.
    assert!(transfers[1].cancel());
    let outcome = timeout(PATIENCE, transfers[1].ended()).await.unwrap();
    assert_eq!(outcome, TransferOutcome::Cancelled);
    assert_eq!(bench.network.sent("s1"), 0);

    // Paused in the queue: the next one has the turn.
    assert!(transfers[2].pause());
    state(&transfers[2], TransferState::Paused).await;
    // The one at work is paused: it gives its turn, keeps what it has, and waits to go on.
    while transfers[0].progress().present < 5 << 18 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(transfers[0].pause());
    state(&transfers[3], TransferState::Running).await;
    assert!(transfers[0].resume());
    state(&transfers[0], TransferState::Queued).await;
    let at = bench.network.sent("s0");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(bench.network.sent("s0"), at, "nothing moves in the queue");
    assert_eq!(
        (transfers[2].state(), bench.network.sent("s2")),
        (TransferState::Paused, 0)
    );
    timeout(PATIENCE, transfers[3].ended()).await.unwrap();
    state(&transfers[0], TransferState::Running).await;
    assert!(transfers[2].resume());

    let mut results = Vec::new();
    for download in downloads {
        let (_, events, finished) = download.split();
        let result = timeout(PATIENCE, finished.report()).await.unwrap();
        let kinds: Vec<_> = events.map(|event| event.kind).collect().await;
        results.push((result, kinds));
    }
    for (n, (result, kinds)) in results.into_iter().enumerate() {
        let count = |wanted: &TransferEventKind| kinds.iter().filter(|k| *k == wanted).count();
        let (queued, dequeued) = (TransferEventKind::Queued, TransferEventKind::Dequeued);
        match (n, result) {
            (1, Err(TransferError::Cancelled(_))) => {
                assert_eq!((count(&queued), count(&dequeued)), (1, 0));
            }
            (0 | 2 | 3, Ok(report)) => {
                let all = ByteRange::new(0, files[n].layout.size());
                assert_eq!(report.delivered[0].ranges.iter().collect::<Vec<_>>(), [all]);
                assert_eq!(count(&queued), count(&dequeued), "{n}: {kinds:?}");
                assert!(count(&queued) >= 1);
            }
            (n, result) => panic!("{n}: {result:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_matters_more_takes_a_turn_and_nothing_is_lost_by_it() {
    let bench = Bench::new();
    bench.engine.downloads().set_max(Some(1));
    let slow = Manners {
        slow: Some(Duration::from_millis(5)),
        ..Manners::default()
    };
    for by_cid in [false, true] {
        let (usual, urgent) = (file(chunks(60) - 5), file(chunks(4) - 5));
        let target = |file: &File| match by_cid {
            false => file.link(),
            true => file.cid().into(),
        };
        let a = bench.network.seeder("a", &usual, slow.clone());
        let b = bench.network.seeder("b", &urgent, slow.clone());
        let first = bench.start(target(&usual), vec![a]);
        let at_work = first.transfer().clone();
        while at_work.progress().proven < 8 << 18 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let high = |request: &mut chiral_core::DownloadRequest| request.priority = Priority::High;
        let second = bench.start_request(target(&urgent), vec![b], high);
        state(&at_work, TransferState::Queued).await;
        // What is on its way stops; it is asked for again later.
        let at = bench.network.sent("a");
        let result = timeout(PATIENCE, second.finished()).await.unwrap();
        assert!(result.is_ok(), "{result:?}");
        assert!(bench.network.sent("a") <= at + (1 << 18));
        let (_, events, finished) = first.split();
        let report = timeout(PATIENCE, finished.report()).await.unwrap().unwrap();
        let all = ByteRange::new(0, usual.layout.size());
        assert_eq!(report.delivered[0].ranges.iter().collect::<Vec<_>>(), [all]);
        let kinds: Vec<_> = events.map(|event| event.kind).collect().await;
        let count = |wanted: &TransferEventKind| kinds.iter().filter(|k| *k == wanted).count();
        assert_eq!(count(&TransferEventKind::Queued), 1);
        assert_eq!(count(&TransferEventKind::Dequeued), 1);
        let proven =
            |kind: &&TransferEventKind| matches!(kind, TransferEventKind::ChunkProven { .. });
        assert_eq!(kinds.iter().filter(proven).count(), 60);
        let blamed =
            |kind: &&TransferEventKind| matches!(kind, TransferEventKind::SourceDemoted { .. });
        assert_eq!(kinds.iter().find(blamed), None);
        // A few requests were begun twice, and no more.
        let sent = bench.network.sent("a");
        assert!(sent <= usual.layout.size() + (10 << 18), "{sent}");
    }
}
