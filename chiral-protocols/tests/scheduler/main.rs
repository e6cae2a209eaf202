//! The scheduler in a simulated network: how near it comes to the ideal, family by family.
//!
//! The ideal is the earliest time at which the capacities of the sources add up to the file
//! (see `peer::ideal`), without any latency. What is possible is the same with each source
//! beginning after the round trips that it needs to come up to speed (`Peer::seen_from_afar`). The
//! allowance is one round trip to the farthest source, and one stall timeout where some stall.
//! `CHIRAL_SEEDS` sets how many seeds each family runs (default 8); `CHIRAL_REPORT` prints the
//! worst seeds.
// Figures are for whoever reads the output.
#![allow(clippy::print_stdout)]

mod behaviour;
mod gibibyte;
mod net;
mod peer;
mod rng;

use chiral_core::{ByteRange, RangeSet, RequestGrid};

use net::Net;
use peer::{Peer, ideal};
use rng::Rng;

const KIB: f64 = 1024.0;
const MB: f64 = 1e6;
/// Bytes that may be sent twice even of a small file.
const SLACK: f64 = 64.0 * KIB;

/// One download to simulate.
struct Scenario {
    peers: Vec<Peer>,
    size: u64,
    backward: bool,
    /// Seconds that the family may take beyond its share of the ideal.
    allowance: f64,
}

/// What a family must achieve: `time <= bound * possible + allowance`.
struct Bound {
    /// In 95 of 100 runs; in all but one of a few.
    most: f64,
    /// In every run.
    worst: f64,
    /// Bytes sent in excess of the file and of [`SLACK`], as a part of the file, in every run.
    waste: f64,
}

fn seeds() -> u64 {
    std::env::var("CHIRAL_SEEDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(8)
}

fn percentile(sorted: &[f64], part: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * part).round() as usize]
}

fn check(name: &str, bound: &Bound, build: impl Fn(&mut Rng) -> Scenario) {
    let (mut raw, mut net_of, mut waste) = (Vec::new(), Vec::new(), Vec::new());
    let mut worst = Vec::new();
    let only: Option<u64> = std::env::var("CHIRAL_SEED")
        .ok()
        .and_then(|n| n.parse().ok());
    for seed in only.map_or(0..seeds(), |seed| seed..seed + 1) {
        let mut rng = Rng::new(seed);
        let scenario = build(&mut rng);
        let best = ideal(&scenario.peers, scenario.size);
        let net = Net::new(&scenario.peers, scenario.size, 1.0);
        let net = if scenario.backward {
            net.backward()
        } else {
            net
        };
        let outcome = net.run();
        let afar: Vec<Peer> = scenario.peers.iter().map(Peer::seen_from_afar).collect();
        let possible = ideal(&afar, scenario.size);
        let adjusted = (outcome.time - scenario.allowance).max(0.0) / possible;
        raw.push(outcome.time / best);
        net_of.push(adjusted);
        waste.push((outcome.wire - 1.0 - SLACK / scenario.size as f64).max(0.0));
        worst.push((
            adjusted,
            seed,
            best,
            outcome,
            scenario.peers.len(),
            scenario.size,
        ));
    }
    for list in [&mut raw, &mut net_of, &mut waste] {
        list.sort_by(f64::total_cmp);
    }
    if std::env::var("CHIRAL_REPORT").is_ok() {
        let show = |list: &[f64]| [0.5, 0.95, 1.0].map(|part| percentile(list, part));
        let (raw, net_of, waste) = (show(&raw), show(&net_of), show(&waste));
        eprintln!("{name:>10}: time/ideal {raw:.3?} less allowance {net_of:.3?} waste {waste:.4?}");
        worst.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (adjusted, seed, best, outcome, peers, size) in worst.iter().take(4) {
            eprintln!(
                "    seed {seed}: {adjusted:.3}, ideal {best:.2} s, took {:.2} s, {peers} peers, \
                 {:.0} MB, {} requests, waste {:.4}",
                outcome.time,
                *size as f64 / MB,
                outcome.requests,
                outcome.wire - 1.0
            );
        }
    }
    let (slowest, wasted) = (percentile(&net_of, 1.0), percentile(&waste, 1.0));
    let most = percentile(&net_of, 0.95f64.min(1.0 - 1.0 / net_of.len() as f64));
    assert!(
        slowest <= bound.worst,
        "{name}: {slowest} times what is possible at worst"
    );
    assert!(
        most <= bound.most,
        "{name}: {most} times what is possible in 95 of 100 runs"
    );
    assert!(
        wasted <= bound.waste,
        "{name}: {wasted} of the file was sent twice"
    );
}

/// A round trip to cut a request at the end, with the farthest peer.
fn trip(peers: &[Peer]) -> f64 {
    peers.iter().map(|peer| peer.latency).fold(0.0, f64::max)
}

/// A file that keeps the peers busy for a while, within what a test can simulate.
fn size_for(rng: &mut Rng, peers: &[Peer]) -> u64 {
    let rate: f64 = peers.iter().map(|peer| peer.capacity(10.0) / 10.0).sum();
    (rate * rng.between(5.0, 15.0)).max((8u64 << 20) as f64) as u64
}

fn rates(rng: &mut Rng, low: f64, high: f64) -> Vec<Peer> {
    let count = if rng.chance(0.3) {
        rng.int(1, 4)
    } else {
        rng.int(1, 50)
    };
    (0..count)
        .map(|_| {
            let rate = rng.log_between(low, high);
            Peer::steady(rng, rate)
        })
        .collect()
}

#[test]
fn steady_sources_of_unequal_rates() {
    let bound = Bound {
        most: 1.02,
        worst: 1.05,
        waste: 0.01,
    };
    check("steady", &bound, |rng| {
        let high = if rng.chance(0.5) {
            1000.0 * MB
        } else {
            10.0 * MB
        };
        let peers = rates(rng, 10.0 * KIB, high);
        let size = size_for(rng, &peers);
        let allowance = trip(&peers);
        Scenario {
            peers,
            size,
            backward: false,
            allowance,
        }
    });
}

#[test]
fn sources_whose_rates_change() {
    let bound = Bound {
        most: 1.04,
        worst: 1.10,
        waste: 0.01,
    };
    check("changing", &bound, |rng| {
        let mut peers = rates(rng, 10.0 * KIB, 5.0 * MB);
        for peer in &mut peers {
            let (base, mut at) = (peer.profile[0].1, 0.0);
            for _ in 0..200 {
                at += rng.between(2.0, 10.0);
                peer.profile.push((at, base * rng.log_between(0.25, 4.0)));
            }
        }
        let size = size_for(rng, &peers);
        let allowance = trip(&peers);
        Scenario {
            peers,
            size,
            backward: false,
            allowance,
        }
    });
}

#[test]
fn sources_that_stall() {
    let bound = Bound {
        most: 1.02,
        worst: 1.20,
        waste: 0.01,
    };
    check("stalls", &bound, |rng| {
        let mut peers = rates(rng, 10.0 * KIB, 5.0 * MB);
        let last = peers.len() - 1;
        for peer in &mut peers[..last] {
            let (base, mut at) = (peer.profile[0].1, 0.0);
            if rng.chance(0.5) {
                for _ in 0..rng.int(1, 5) {
                    at += rng.between(0.2, 20.0);
                    peer.profile.push((at, 0.0));
                    at += if rng.chance(0.2) {
                        1e6
                    } else {
                        rng.log_between(0.5, 30.0)
                    };
                    peer.profile.push((at, base));
                }
            }
        }
        let size = size_for(rng, &peers);
        let allowance = trip(&peers) + 4.0;
        Scenario {
            peers,
            size,
            backward: false,
            allowance,
        }
    });
}

#[test]
fn sources_that_come_and_go() {
    let bound = Bound {
        most: 1.02,
        worst: 1.05,
        waste: 0.02,
    };
    check("churn", &bound, |rng| {
        let mut peers = rates(rng, 10.0 * KIB, 5.0 * MB);
        let last = peers.len() - 1;
        for peer in &mut peers[..last] {
            if rng.chance(0.4) {
                peer.up_at = rng.between(0.0, 20.0);
            }
            if rng.chance(0.4) {
                peer.down_at = peer.up_at + rng.between(0.1, 20.0);
            }
        }
        let size = size_for(rng, &peers);
        let allowance = trip(&peers);
        Scenario {
            peers,
            size,
            backward: false,
            allowance,
        }
    });
}

#[test]
fn grids_that_do_not_divide_each_other() {
    let bound = Bound {
        most: 1.02,
        worst: 1.05,
        waste: 0.01,
    };
    check("grids", &bound, |rng| {
        let mut peers = rates(rng, 200.0 * KIB, 20.0 * MB);
        let grids = [
            RequestGrid::parts(9_728_000, 184_320),
            RequestGrid::every(1 << 20),
            RequestGrid::every(262_144),
            RequestGrid::ANY,
        ];
        for peer in &mut peers {
            peer.grid = grids[rng.int(0, 3) as usize];
        }
        // Of a small file one cell alone is more than a hundredth.
        let size = size_for(rng, &peers).max(256 << 20);
        let allowance = trip(&peers);
        Scenario {
            peers,
            size,
            backward: false,
            allowance,
        }
    });
}

#[test]
fn partial_seeders() {
    let bound = Bound {
        most: 1.03,
        worst: 1.12,
        waste: 0.01,
    };
    check("partial", &bound, |rng| {
        let count = rng.int(2, 10);
        let mut peers: Vec<Peer> = (0..count)
            .map(|_| {
                let rate = rng.log_between(50.0 * KIB, 10.0 * MB);
                Peer::steady(rng, rate)
            })
            .collect();
        let size = size_for(rng, &peers);
        let chunks = size.div_ceil(262_144);
        for peer in peers.iter_mut().skip(1) {
            let density = rng.between(0.1, 0.9);
            let mut coverage = RangeSet::new();
            if rng.chance(0.5) {
                let start = rng.int(0, chunks - 1);
                let end = start + (chunks as f64 * density) as u64 + 1;
                coverage.insert(ByteRange::new(start * 262_144, (end * 262_144).min(size)));
            } else {
                for chunk in 0..chunks {
                    if rng.chance(density) {
                        let start = chunk * 262_144;
                        coverage.insert(ByteRange::new(start, (start + 262_144).min(size)));
                    }
                }
            }
            peer.coverage = Some(coverage);
            // Requests cannot be longer than a run of chunks: depth has to hide the latency.
            peer.depth = 16;
        }
        let allowance = trip(&peers);
        Scenario {
            peers,
            size,
            backward: false,
            allowance,
        }
    });
}

#[test]
fn backwards_in_a_sliding_window() {
    let bound = Bound {
        most: 1.10,
        worst: 1.30,
        waste: 0.01,
    };
    check("backward", &bound, |rng| {
        let mut peers = rates(rng, 50.0 * KIB, 4.0 * MB);
        for peer in &mut peers {
            peer.latency = peer.latency.min(0.1);
        }
        let size = size_for(rng, &peers);
        let allowance = trip(&peers);
        Scenario {
            peers,
            size,
            backward: true,
            allowance,
        }
    });
}

#[test]
fn far_sources_that_are_idle_take_over_when_near_ones_become_slow() {
    let mut rng = Rng::new(1);
    let mut near = Peer::steady(&mut rng, 60.0 * MB);
    near.latency = 0.005;
    near.profile.push((2.0, 1.0 * MB));
    let mut far = Peer::steady(&mut rng, 60.0 * MB);
    far.latency = 0.3;
    far.depth = 8;
    let peers = [near, far.clone(), far];
    let size = (340.0 * MB) as u64;
    let outcome = Net::new(&peers, size, 1.0).run();
    let best = ideal(&peers.each_ref().map(Peer::seen_from_afar), size);
    assert!(outcome.time < best + 0.5, "{} s, {best} s", outcome.time);
}
