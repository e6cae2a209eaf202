//! Plain mirrors and nothing but the cid.

use std::time::Duration;

use chiral_protocols::EngineConfig;

use super::bench::Bench;
use super::fake::{File, Manners, chunks};
use super::{banned, honest, set};

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
async fn more_lies_than_are_remembered_put_fewer_out_and_pass_no_more() {
    let file = File::new(chunks(120) + 1);
    for most in [0, 1, 30] {
        let mut config = EngineConfig::default();
        config.max_rejected = most;
        config.manifest_patience = Duration::from_millis(300);
        let bench = Bench::with(config);
        let mirror = |corrupt| Manners {
            mirror: true,
            corrupt,
            ..honest()
        };
        let mut offers = Vec::new();
        for n in 0..4 {
            let liar = mirror(set(0..121));
            offers.push(bench.network.seeder(&format!("bad{n}"), &file, liar));
        }
        offers.push(bench.network.seeder("good", &file, mirror(set([]))));
        let (result, _) = bench.get(file.cid(), offers).await;
        let report = bench.assert_complete(&file, result).await;
        let out = banned(&report);
        assert!(!out.contains(&"good"), "{out:?}");
        // Each had its turn once, and nobody had another: with all of them wrong it would fail
        // as soon.
        for (name, told) in bench.network.told() {
            let asked: u64 = told.asked.iter().map(|asked| asked.range.len()).sum();
            assert!(asked <= 3 * file.layout.size(), "{name}: {asked}");
        }
    }
}
