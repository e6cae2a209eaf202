//! Who takes part in a download, and how they behave.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::fake::Manners;

/// A generator of numbers from a seed (splitmix64).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` to `high`, both included.
    fn int(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }
}

/// What a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Honest,
    /// It flips a bit in some chunks.
    Corrupts,
    /// It sends some bytes and then no more.
    Stalls,
    /// It says that it has what it has not.
    Pretends,
    /// It has, or says that it has, a file of another size.
    WrongSize,
    /// Its answers are shorter or longer than what was asked for.
    WrongLength,
    /// It sends 64 KiB in 20 s.
    Drips,
}

/// One source.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) manners: Manners,
}

/// All sources of one download; half of them are hostile.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) peers: Vec<Peer>,
    /// Chunks that are fetched ahead of the proof, where there is no root; usually all of these
    /// files.
    pub(crate) window: Option<u32>,
}

impl Scenario {
    pub(crate) fn new(seed: u64, chunks: u32) -> Self {
        let mut rng = Rng(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5eed);
        let pairs = rng.int(1, 6);
        let mut peers = Vec::new();
        for number in 0..pairs {
            peers.push(Peer {
                name: format!("honest{number}"),
                kind: Kind::Honest,
                manners: Manners {
                    slow: Some(Duration::from_millis(rng.int(1, 60))),
                    ..Manners::default()
                },
            });
            let (kind, manners) = hostile(&mut rng, chunks);
            peers.push(Peer {
                name: format!("hostile{number}"),
                kind,
                manners,
            });
        }
        // In any order.
        for at in (1..peers.len()).rev() {
            peers.swap(at, rng.int(0, at as u64) as usize);
        }
        let window = rng.int(0, 1) == 0;
        let window = window.then(|| rng.int(6, 16) as u32);
        Self { peers, window }
    }

    /// Bytes per second of the honest sources together, one request at a time each.
    pub(crate) fn honest_rate(&self) -> f64 {
        let honest = self.peers.iter().filter(|peer| peer.kind == Kind::Honest);
        let slow = honest.filter_map(|peer| peer.manners.slow);
        slow.map(|slow| 65_536.0 / slow.as_secs_f64()).sum()
    }
}

fn hostile(rng: &mut Rng, chunks: u32) -> (Kind, Manners) {
    let fast = Some(Duration::from_millis(rng.int(1, 20)));
    let some = |rng: &mut Rng| -> BTreeSet<u32> {
        let one_in = rng.int(1, 4);
        let all = 0..chunks;
        all.filter(|_| rng.int(1, one_in) == 1).collect()
    };
    let plain = Manners {
        slow: fast,
        ..Manners::default()
    };
    match rng.int(0, 5) {
        0 => (
            Kind::Corrupts,
            Manners {
                corrupt: some(rng),
                ..plain
            },
        ),
        1 => (
            Kind::Stalls,
            Manners {
                stalls_after: Some(rng.int(0, 600_000)),
                ..plain
            },
        ),
        2 => (
            Kind::Pretends,
            Manners {
                pretends: some(rng),
                ..plain
            },
        ),
        3 => (
            Kind::WrongSize,
            Manners {
                size: Some(rng.int(0, 1 << 40)),
                mirror: true,
                ..plain
            },
        ),
        4 => {
            let (short, long) = if rng.int(0, 1) == 0 {
                (rng.int(1, 70_000), 0)
            } else {
                (0, rng.int(1, 70_000))
            };
            (
                Kind::WrongLength,
                Manners {
                    short,
                    long,
                    ..plain
                },
            )
        }
        _ => (
            Kind::Drips,
            Manners {
                slow: Some(Duration::from_secs(20)),
                ..plain
            },
        ),
    }
}
