//! Sources that lack bytes, are late or cut files in their own way.

use std::time::Duration;

use chiral_core::{ChunkRuns, Coverage, FileIdentification, RequestGrid};

use super::bench::Bench;
use super::fake::{File, Manners, chunks};
use super::{banned, honest, set};

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
