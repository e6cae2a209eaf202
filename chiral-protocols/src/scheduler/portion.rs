//! How long the next request of a source should be.

use std::time::Duration;

use super::assign::{FINE_CUT, MAX_MEMBERS};
use super::source::{Source, Standing};
use super::{Scheduler, SourceId};

/// Bytes per second assumed of a source while nothing at all is known.
pub(super) const ASSUMED_RATE: f64 = 128.0 * 1024.0;
/// A source that takes one request at a time gets requests this many latencies long.
const LONE_REQUEST_LATENCIES: f64 = 20.0;

/// How much a source should be asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portion {
    /// Length to aim at; 0 leaves the bytes to others.
    pub(super) bytes: u64,
    /// Bytes that it should have outstanding.
    pub(super) depth: f64,
    /// Shortest requests that hide the latency: up to here rarity does not end them.
    pub(super) least: u64,
    /// Whether the end is near: cut fine rather than at chunks.
    pub(super) late: bool,
    /// Most bytes that a cell of which some were given away may bring in vain.
    pub(super) waste: u64,
}

impl Scheduler {
    /// The measured pace of a source, or a cautious guess from the others.
    pub(super) fn pace_or_guess(&self, now: Duration, source: &Source) -> f64 {
        source.pace(now).unwrap_or_else(|| {
            let mean = self.index.mean_rate().unwrap_or(ASSUMED_RATE);
            (mean / 4.0).min(ASSUMED_RATE)
        })
    }

    /// How long the next request of a source should be; `None` if nothing is open for it and
    /// nothing is claimed either.
    pub(super) fn portion(&self, now: Duration, id: SourceId) -> Option<Portion> {
        let config = &self.config;
        let source = self.sources.get(&id)?;
        let claimed = self.ledger.first.len();
        let left = (self.ledger.pool.open().len() + claimed) as f64;
        if left == 0.0 {
            return None;
        }
        let minimum = config.min_request_bytes.max(source.grid.cell());
        if source.standing != Standing::Active {
            // The last bytes are not left to a source that may be dead.
            let plenty = self.ledger.pool.open().len() >= 4 * minimum || self.is_needed(id);
            let bytes = if plenty { minimum } else { 0 };
            return Some(Portion {
                bytes,
                depth: 0.0,
                least: minimum,
                late: true,
                waste: 0,
            });
        }
        let Some(pace) = source.pace(now) else {
            let fair = left / (2.0 * self.sources.len() as f64);
            let bytes = (fair as u64).clamp(minimum, config.initial_request_bytes.max(minimum));
            let late = bytes < config.initial_request_bytes;
            return Some(Portion {
                bytes,
                depth: 2.0 * bytes as f64,
                least: bytes,
                late,
                waste: 0,
            });
        };
        let latency = source.latency();
        let in_flight = 2.0 * pace * latency;
        let mut bytes = (pace * config.slice.as_secs_f64()).min(config.max_request_bytes as f64);
        let stretched = if source.max_requests == 1 {
            pace * latency * LONE_REQUEST_LATENCIES
        } else {
            in_flight / (source.max_requests - 1) as f64
        };
        bytes = bytes.max(stretched.min(config.max_stretched_request_bytes as f64));
        let ramp = 3.0 * source.meter.delivered() as f64;
        bytes = bytes
            .min(ramp.max(config.initial_request_bytes as f64))
            .max(minimum as f64);
        if source.denied.is_contradictory() {
            bytes = bytes.min(config.chunk_bytes.max(minimum) as f64);
        }
        let depth = (in_flight + bytes).min(ramp.max(2.0 * config.initial_request_bytes as f64));
        let (share, late) = self.share(now, id, bytes);
        let behind = source.max_requests.saturating_sub(1).max(1) as f64;
        let least = ((0.75 * in_flight / behind) as u64).max(config.chunk_bytes);
        Some(Portion {
            bytes: share.min(bytes) as u64,
            depth,
            least,
            late,
            waste: 0,
        })
    }

    /// How many more bytes the source can deliver until everything outstanding and open in
    /// the window could be done, and whether that is less than it would like.
    fn share(&self, now: Duration, id: SourceId, wish: f64) -> (f64, bool) {
        let Some(source) = self.sources.get(&id) else {
            return (wish, false);
        };
        // All are done together at the time t where the sum of rate * (t - lead) is what is
        // left, an idle source's lead being its latency.
        let lead = |source: &Source, pace: f64| {
            if source.queue.is_empty() {
                source.latency() * pace
            } else {
                0.0
            }
        };
        let (mut rate, leads) = self.index.complete_pace_and_lead();
        let mut left = (self.ledger.pool.open().len() + self.ledger.first.len()) as f64 + leads;
        let pool = &self.ledger.pool;
        let place = pool
            .best_rank(source.list(id))
            .and_then(|r| pool.seek(source.list(id), r, 0));
        let members = place.map_or(&[][..], |(_, run)| pool.members(run.start));
        let looked_at = members.len().min(MAX_MEMBERS);
        let able = members.iter().take(MAX_MEMBERS);
        let able = able.filter_map(|other| self.sources.get(other).filter(|s| !s.is_demoted()));
        let (mut others, mut late) = (0.0, 0.0);
        for peer in able {
            let pace = peer.pace(now).unwrap_or(0.0);
            others += pace;
            late += lead(peer, pace);
        }
        // The others of many are taken to be like these.
        let scale = members.len() as f64 / looked_at.max(1) as f64;
        rate += others * scale;
        left += late * scale;
        let alone = self.index.busy() <= u32::from(!source.queue.is_empty());
        if alone || rate <= 0.0 {
            return (wish, false);
        }
        let pace = self.pace_or_guess(now, source);
        let lead = lead(source, pace);
        let share = left / rate * pace - source.out as f64 - lead;
        if share >= 2.0 * wish {
            return (wish, false);
        }
        let minimum = FINE_CUT.max(source.grid.cell() / 2) as f64;
        (
            if share < minimum {
                0.0
            } else {
                share.max(source.grid.cell() as f64)
            },
            true,
        )
    }
}
