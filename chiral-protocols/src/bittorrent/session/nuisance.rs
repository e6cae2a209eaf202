//! What no single message is worth a disconnection for, and many are.

use std::time::Duration;

use super::Now;

/// Points at which a peer is put out.
const LIMIT: u32 = 400;

/// Points that are forgotten each second.
const FORGOTTEN: u32 = 2;

/// Points of a peer: for keep-alives, repeated chokes, blocks that nobody asked for, and so on.
#[derive(Debug)]
pub(super) struct Nuisance {
    points: u32,
    at: Now,
}

impl Nuisance {
    pub(super) fn new(now: Now) -> Self {
        Self { points: 0, at: now }
    }

    /// Takes points back: what was a nuisance was of use after all.
    pub(super) fn take_back(&mut self, points: u32) {
        self.points = self.points.saturating_sub(points);
    }

    /// Adds points; false once there are too many.
    #[must_use]
    pub(super) fn add(&mut self, now: Now, points: u32) -> bool {
        let seconds = now.saturating_sub(self.at).as_secs();
        self.at += Duration::from_secs(seconds);
        let forgotten = u32::try_from(seconds)
            .unwrap_or(u32::MAX)
            .saturating_mul(FORGOTTEN);
        self.points = self.points.saturating_sub(forgotten).saturating_add(points);
        self.points <= LIMIT
    }
}
