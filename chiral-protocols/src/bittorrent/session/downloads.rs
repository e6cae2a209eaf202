//! What we ask of the peer, and how much of it at once.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Now, Outbox, RateMeter};
use crate::bittorrent::wire::{BLOCK_LEN, Block, Message};

/// Most blocks asked for and not received, whatever the rate: 8 MiB.
pub const MAX_WINDOW: usize = 512;

/// Outstanding requests that a peer takes which does not say how many (libtorrent assumes the
/// same).
pub(super) const UNKNOWN_REQQ: u32 = 250;

/// Blocks asked for at first.
const FIRST_WINDOW: usize = 32;

/// Fewest blocks asked for at once.
const MIN_WINDOW: usize = 4;

/// The window lasts this long at the measured rate.
const AHEAD: Duration = Duration::from_secs(3);

/// Cancelled blocks that are remembered, as they may come all the same: those of several windows, as
/// many of which lie in the kernel while nothing is read.
const MAX_CANCELLED: usize = 8 * MAX_WINDOW;

#[derive(Debug)]
struct Flying {
    block: Block,
    token: u64,
}

/// What became of a block that came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It was asked for under this token.
    Asked(u64),
    /// It was asked for, and taken back.
    Cancelled,
    /// Nobody asked for it.
    Unasked,
}

#[derive(Debug)]
pub(super) struct Downloads {
    wanted: VecDeque<Flying>,
    flying: VecDeque<Flying>,
    cancelled: VecDeque<Block>,
    window: usize,
    /// Whether the window still grows by a block for each that comes.
    opening: bool,
    room: usize,
    rate: RateMeter,
    /// When something was asked for or came last.
    moved_at: Now,
    ticked_at: Now,
}

impl Downloads {
    pub(super) fn new(now: Now) -> Self {
        Self {
            wanted: VecDeque::new(),
            flying: VecDeque::new(),
            cancelled: VecDeque::new(),
            window: FIRST_WINDOW,
            opening: true,
            room: MAX_WINDOW,
            rate: RateMeter::new(now),
            moved_at: now,
            ticked_at: now,
        }
    }

    pub(super) fn set_room(&mut self, blocks: usize) {
        self.room = blocks;
    }

    pub(super) fn want(&mut self, block: Block, token: u64) {
        self.wanted.push_back(Flying { block, token });
    }

    pub(super) fn unwant(&mut self, token: u64, outbox: &mut Outbox) {
        self.wanted.retain(|wish| wish.token != token);
        let cancelled = &mut self.cancelled;
        self.flying.retain(|flying| {
            let keep = flying.token != token;
            if !keep {
                outbox.push(&Message::Cancel(flying.block));
                if cancelled.len() == MAX_CANCELLED {
                    cancelled.pop_front();
                }
                cancelled.push_back(flying.block);
            }
            keep
        });
    }

    /// Asks for what may be asked for.
    pub(super) fn request(
        &mut self,
        now: Now,
        reqq: usize,
        may: impl Fn(&Block) -> bool,
        outbox: &mut Outbox,
    ) {
        let most = self.window.min(reqq.max(1)).min(self.room).min(MAX_WINDOW);
        let mut at = 0;
        while self.flying.len() < most && at < self.wanted.len() {
            if !may(&self.wanted[at].block) {
                at += 1;
                continue;
            }
            let Some(next) = self.wanted.remove(at) else {
                return;
            };
            if self.flying.is_empty() {
                self.moved_at = now;
            }
            outbox.push(&Message::Request(next.block));
            self.flying.push_back(next);
        }
    }

    /// A block came.
    pub(super) fn arrived(&mut self, now: Now, block: Block) -> Arrival {
        // Most come in the order in which they were asked for.
        let at = self.flying.iter().position(|flying| flying.block == block);
        if let Some(token) = at.and_then(|at| self.flying.remove(at)).map(|f| f.token) {
            self.moved_at = now;
            self.rate.add(now, block.len.into());
            if self.opening {
                self.window = (self.window + 1).min(MAX_WINDOW);
            }
            if now >= self.ticked_at + Duration::from_secs(1) {
                self.adapt(now);
            }
            return Arrival::Asked(token);
        }
        match self.cancelled.iter().position(|other| *other == block) {
            Some(at) => {
                self.cancelled.remove(at);
                Arrival::Cancelled
            }
            None => Arrival::Unasked,
        }
    }

    /// A block is refused. Answers come in the order of the requests: if it was asked for, taken
    /// back and asked for again, this is about the first time.
    pub(super) fn rejected(&mut self, block: Block) -> Arrival {
        if let Some(at) = self.cancelled.iter().position(|other| *other == block) {
            self.cancelled.remove(at);
            return Arrival::Cancelled;
        }
        let at = self.flying.iter().position(|flying| flying.block == block);
        match at.and_then(|at| self.flying.remove(at)) {
            Some(flying) => Arrival::Asked(flying.token),
            None => Arrival::Unasked,
        }
    }

    /// Nothing is answered any more, but for blocks that `kept` says: what is lost.
    pub(super) fn choked(&mut self, kept: impl Fn(&Block) -> bool) -> Vec<(Block, u64)> {
        let mut lost = Vec::new();
        for list in [&mut self.flying, &mut self.wanted] {
            list.retain(|flying| {
                let keep = kept(&flying.block);
                if !keep {
                    lost.push((flying.block, flying.token));
                }
                keep
            });
        }
        lost
    }

    /// What waits and was not asked for is lost too, but for blocks that `kept` says.
    pub(super) fn give_up_waiting(&mut self, kept: impl Fn(&Block) -> bool) -> Vec<(Block, u64)> {
        let mut lost = Vec::new();
        self.wanted.retain(|wish| {
            let keep = kept(&wish.block);
            if !keep {
                lost.push((wish.block, wish.token));
            }
            keep
        });
        lost
    }

    pub(super) fn is_snubbed(&self, now: Now, after: Duration) -> bool {
        !self.flying.is_empty() && now >= self.moved_at + after
    }

    /// The window follows the rate.
    pub(super) fn tick(&mut self, now: Now, snub: Duration) {
        if self.is_snubbed(now, snub) {
            self.window = 1;
            self.opening = true;
        } else if now >= self.ticked_at + Duration::from_secs(1) {
            self.adapt(now);
        }
    }

    fn adapt(&mut self, now: Now) {
        self.ticked_at = now;
        let ahead = self.rate.rate(now) * AHEAD.as_secs_f64() / f64::from(BLOCK_LEN);
        let target = (ahead as usize).clamp(MIN_WINDOW, MAX_WINDOW);
        if self.opening && self.window > target {
            self.opening = false;
        }
        if !self.opening {
            self.window = target;
        }
    }

    #[cfg(test)]
    pub(super) fn in_flight(&self) -> usize {
        self.flying.len()
    }
}
