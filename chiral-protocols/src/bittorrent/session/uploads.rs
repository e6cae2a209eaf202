//! What the peer asks of us.

use std::collections::VecDeque;

use super::Outbox;
use crate::bittorrent::wire::{Block, Message};

/// Most requests of a peer that stand; what it is told as `reqq`.
pub const MAX_STANDING: usize = 500;

#[derive(Debug)]
pub(super) struct Uploads {
    standing: VecDeque<Block>,
    choking: bool,
    /// Pieces that the peer may ask for though choked.
    pub(super) allowed: Vec<u32>,
}

impl Default for Uploads {
    fn default() -> Self {
        Self {
            standing: VecDeque::new(),
            choking: true,
            allowed: Vec::new(),
        }
    }
}

impl Uploads {
    pub(super) fn is_choking(&self) -> bool {
        self.choking
    }

    /// Whether a request for this piece is answered.
    pub(super) fn admits(&self, piece: u32) -> bool {
        !self.choking || self.allowed.contains(&piece)
    }

    /// Takes a request; false if too many stand.
    pub(super) fn push(&mut self, block: Block) -> bool {
        let room = self.standing.len() < MAX_STANDING;
        if room {
            self.standing.push_back(block);
        }
        room
    }

    pub(super) fn next(&self) -> Option<Block> {
        self.standing.front().copied()
    }

    pub(super) fn pop(&mut self) -> Option<Block> {
        self.standing.pop_front()
    }

    /// Takes a request back; whether it stood.
    pub(super) fn cancel(&mut self, block: Block) -> bool {
        let at = self.standing.iter().position(|other| *other == block);
        at.is_some_and(|at| self.standing.remove(at).is_some())
    }

    /// Chokes or unchokes: those choked lose what they asked for, and with the fast extension
    /// are told so of each.
    pub(super) fn set_choking(&mut self, choking: bool, fast: bool, outbox: &mut Outbox) {
        if choking == self.choking {
            return;
        }
        self.choking = choking;
        if !choking {
            outbox.push(&Message::Unchoke);
            return;
        }
        outbox.push(&Message::Choke);
        let allowed = std::mem::take(&mut self.allowed);
        self.standing.retain(|block| {
            let keep = fast && allowed.contains(&block.piece);
            if !keep && fast {
                outbox.push(&Message::Reject(*block));
            }
            keep
        });
        self.allowed = allowed;
    }
}
