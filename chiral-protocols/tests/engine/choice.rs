//! Whom a download connects to first, and whom only if it must.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chiral_core::PeerOffer;
use chiral_core::transfer::TransferEventKind;
use chiral_protocols::EngineConfig;
use futures_util::StreamExt;

use super::bench::Bench;
use super::fake::{File, Manners, chunks, offer};
use super::growing::Unsteady;
use super::{honest, set};

/// The number at the end of a name.
fn number(offer: &PeerOffer) -> Option<usize> {
    offer.endpoint.as_str().strip_prefix("peer")?.parse().ok()
}

#[tokio::test(start_paused = true)]
async fn whom_the_directory_adds_later_is_connected_in_order_and_one_for_each_that_goes() {
    let file = File::new(chunks(60));
    let mut config = EngineConfig::default();
    config.max_sources = 3;
    config.look_again = Duration::from_millis(100);
    let mut bench = Bench::with(config);
    bench.network.rank = Some(number);
    let slow = Manners {
        slow: Some(Duration::from_millis(50)),
        ..honest()
    };
    // Who is named is the first; the directory answers the others in no order, and late.
    let named = bench.network.seeder("peer0", &file, slow.clone());
    let mut offers = Vec::new();
    for n in [7, 3, 9, 1, 5, 2, 8] {
        let manners = match n {
            1 => Manners {
                corrupt: set(0..60),
                ..slow.clone()
            },
            _ => slow.clone(),
        };
        offers.push(bench.network.seeder(&format!("peer{n}"), &file, manners));
    }
    let directory = Arc::new(Unsteady {
        offers,
        fails: 1,
        asked: Mutex::default(),
    });
    let download = bench.start_request(file.link(), vec![named], |request| {
        request.directory = Some(directory.clone());
    });
    let (_, events, finished) = download.split();
    bench.assert_complete(&file, finished.report().await).await;
    let kinds = events.map(|event| event.kind).collect::<Vec<_>>().await;
    let up: Vec<_> = kinds
        .iter()
        .filter_map(|kind| match kind {
            TransferEventKind::SourceUp { source, .. } => Some(source.as_str()),
            _ => None,
        })
        .collect();
    // Three at once; when one of them is put out the next best comes.
    assert_eq!(up, ["peer0", "peer1", "peer2", "peer3"]);
    assert!(*directory.asked.lock().unwrap() > 3, "it is asked on");
}

#[tokio::test(start_paused = true)]
async fn a_last_resort_is_used_when_the_others_do_not_deliver_and_not_before() {
    let file = File::new(chunks(30));
    let slow = Manners {
        slow: Some(Duration::from_millis(20)),
        ..honest()
    };
    let stalls = Manners {
        stalls_after: Some(0),
        ..honest()
    };
    let silent = Manners {
        stalls_after: Some(600_000),
        ..slow.clone()
    };
    let forges = Manners {
        corrupt: set(0..30),
        ..slow.clone()
    };
    for (what, manners, used) in [
        ("delivers", Some(slow), false),
        ("is not there", None, true),
        ("never begins", Some(stalls), true),
        ("falls silent", Some(silent), true),
        ("forges", Some(forges), true),
    ] {
        for target in [file.link(), file.cid().into()] {
            let mut bench = Bench::with(EngineConfig::default());
            bench.network.rank = Some(number);
            let meant = match &manners {
                Some(manners) => bench.network.seeder("peer1", &file, manners.clone()),
                None => offer("peer1"),
            };
            let last = bench.network.seeder("last", &file, honest());
            let download = bench.start(target, vec![last, meant]);
            let result = tokio::time::timeout(Duration::from_secs(60), download.finished());
            let report = bench.assert_complete(&file, result.await.unwrap()).await;
            let sources: BTreeSet<_> = report.sources.iter().map(|s| s.source.as_str()).collect();
            assert_eq!(sources.contains("last"), used, "{what}: {sources:?}");
        }
    }
}
