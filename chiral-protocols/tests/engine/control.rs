//! Pausing, cancelling and going on; and penalties that are taken back meanwhile.

use std::time::Duration;

use chiral_core::TransferError;
use chiral_core::transfer::{TransferEventKind, TransferOutcome};
use chiral_protocols::peers::PenaltyKind;
use chiral_protocols::{EngineConfig, Penalty};
use futures_util::StreamExt;

use super::bench::Bench;
use super::fake::{File, Manners, chunks};
use super::{honest, set};

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

#[tokio::test(start_paused = true)]
async fn who_had_not_begun_when_it_was_paused_is_not_blamed() {
    let file = File::new(chunks(100));
    for target in [file.link(), file.cid().into()] {
        let bench = Bench::new();
        let slow = Manners {
            slow: Some(Duration::from_millis(100)),
            ..honest()
        };
        let offers = ["a", "b", "c"].map(|name| bench.network.seeder(name, &file, slow.clone()));
        let download = bench.start(target, offers.to_vec());
        let (transfer, events, finished) = download.split();
        // Again and again in the middle of what is on its way: of some nothing has come.
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(330)).await;
            assert!(transfer.pause());
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(transfer.resume());
        }
        bench.assert_complete(&file, finished.report().await).await;
        let kinds: Vec<_> = events.map(|event| event.kind).collect().await;
        let paused = |kind: &&TransferEventKind| **kind == TransferEventKind::Paused;
        assert_eq!(kinds.iter().filter(paused).count(), 10);
        let demoted =
            |kind: &&TransferEventKind| matches!(kind, TransferEventKind::SourceDemoted { .. });
        assert_eq!(kinds.iter().find(demoted), None);
        assert!(bench.engine.peers().penalties().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn whose_ban_is_taken_back_is_used_again_by_the_download_that_runs() {
    let file = File::new(chunks(40));
    for target in [file.link(), file.cid().into()] {
        let bench = Bench::new();
        let slow = |millis| Manners {
            slow: Some(Duration::from_millis(millis)),
            ..honest()
        };
        // One was banned earlier; the other sends wrong bytes now.
        let banned = bench.network.seeder("banned", &file, slow(20));
        bench
            .engine
            .peers()
            .ban(&banned, &target, "it lied earlier");
        let liar = Manners {
            corrupt: set(0..39),
            ..slow(20)
        };
        let liar = bench.network.seeder("liar", &file, liar);
        let honest = bench.network.seeder("honest", &file, slow(200));
        let download = bench.start(target, vec![banned, liar, honest]);
        let (transfer, mut events, finished) = download.split();
        let mut up = Vec::new();
        while let Some(event) = events.next().await {
            match event.kind {
                TransferEventKind::SourceUp { source, .. } => up.push(source),
                TransferEventKind::SourceBanned { source, .. } => {
                    assert_eq!(source, "liar");
                    break;
                }
                _ => {}
            }
        }
        up.sort();
        assert_eq!(up, ["honest", "liar"]);
        // It has mended its ways.
        bench.network.amend("liar", slow(20));
        let peers = bench.engine.peers();
        let banned = |penalty: &&Penalty| penalty.kind == PenaltyKind::Banned;
        assert_eq!(peers.penalties().iter().filter(banned).count(), 2);
        assert!(peers.clear_all() >= 2);
        bench.assert_complete(&file, finished.report().await).await;
        for name in ["banned", "liar"] {
            let told = bench.network.told().remove(name).unwrap();
            assert!(told.verified.len() > 4 << 18, "{name}: {told:?}");
        }
        let reports = transfer.sources();
        assert_eq!(reports.len(), 3, "{reports:?}");
        assert!(reports.iter().all(|source| source.banned.is_none()));
    }
}

#[tokio::test(start_paused = true)]
async fn whose_demotion_is_taken_back_rests_no_longer() {
    let file = File::new(chunks(200));
    let mut config = EngineConfig::default();
    config.scheduler.stall_demotion = Duration::from_secs(3_000);
    config.scheduler.max_demotion = Duration::from_secs(3_000);
    let bench = Bench::with(config);
    let target = file.link();
    let staller = Manners {
        stalls_after: Some(400_000),
        ..honest()
    };
    let staller = bench.network.seeder("staller", &file, staller);
    let slow = Manners {
        slow: Some(Duration::from_millis(500)),
        ..honest()
    };
    let slow = bench.network.seeder("slow", &file, slow);
    let (_, mut events, finished) = bench.start(target, vec![staller, slow]).split();
    while let Some(event) = events.next().await {
        if matches!(event.kind, TransferEventKind::SourceDemoted { .. }) {
            break;
        }
    }
    let before = bench.network.told()["staller"].verified.len();
    bench.network.amend("staller", honest());
    assert_eq!(bench.engine.peers().clear("staller"), 1);
    bench.assert_complete(&file, finished.report().await).await;
    let after = bench.network.told()["staller"].verified.len();
    assert!(after > before + (100 << 18), "{before} {after}");
}
