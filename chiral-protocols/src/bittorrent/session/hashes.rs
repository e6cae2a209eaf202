//! Hashes of trees (BEP 52), asked for and given. What they are is not the session's business.

use super::incoming::UNASKED;
use super::{Event, HashRange, Message, NodeHash, Now, Session, SessionError};
use crate::bittorrent::wire::BLOCK_LEN;

/// Most questions of a peer that wait for their answer; others are refused.
const MAX_ASKED: usize = 16;

/// Most questions of ours that wait for theirs.
const MAX_ASKING: usize = 2;

/// Points for a question: a tree is looked through for it; for hashes beneath those of pieces,
/// content is read and hashed.
const QUESTION: u32 = 2;
const BENEATH: u32 = 16;

/// Questions that stand.
#[derive(Debug, Default)]
pub(super) struct Hashes {
    asked: Vec<HashRange>,
    asking: Vec<HashRange>,
}

impl Session {
    /// Whether the peer may be asked for more hashes.
    pub fn may_ask_hashes(&self) -> bool {
        self.hashes.asking.len() < MAX_ASKING
    }

    /// Asks the peer for hashes; [`Event::Hashes`] or [`Event::NoHashes`] answers.
    pub fn ask_hashes(&mut self, now: Now, range: HashRange) {
        self.useful_at = now;
        self.hashes.asking.push(range);
        self.outbox.push(&Message::HashRequest(range));
    }

    /// Gives the peer the hashes that it asked for, or says that there are none.
    pub fn answer_hashes(&mut self, range: HashRange, hashes: Option<Vec<NodeHash>>) {
        let at = self.hashes.asked.iter().position(|asked| *asked == range);
        let Some(at) = at else { return };
        self.hashes.asked.swap_remove(at);
        let message = match hashes {
            Some(hashes) => Message::Hashes {
                range,
                hashes: hashes.concat().into(),
            },
            None => Message::HashReject(range),
        };
        self.outbox.push(&message);
    }

    pub(super) fn hashes_asked(&mut self, now: Now, range: HashRange) -> Result<(), SessionError> {
        if self.hashes.asked.len() < MAX_ASKED && !self.hashes.asked.contains(&range) {
            self.hashes.asked.push(range);
            self.events.push_back(Event::HashRequest(range));
        } else {
            self.outbox.push(&Message::HashReject(range));
        }
        let pieces = self.config.geometry.map_or(0, |geometry| {
            (geometry.piece_len() / BLOCK_LEN)
                .checked_ilog2()
                .unwrap_or(0)
        });
        let beneath = range.base_layer < pieces;
        self.annoy(now, if beneath { BENEATH } else { QUESTION })
    }

    pub(super) fn hashes_came(
        &mut self,
        now: Now,
        range: HashRange,
        hashes: Option<&[u8]>,
    ) -> Result<(), SessionError> {
        let at = self.hashes.asking.iter().position(|asked| *asked == range);
        let Some(at) = at else {
            return self.annoy(now, UNASKED);
        };
        self.hashes.asking.swap_remove(at);
        self.events.push_back(match hashes {
            Some(hashes) => Event::Hashes {
                range,
                hashes: hashes.as_chunks::<32>().0.to_vec(),
            },
            None => Event::NoHashes(range),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bittorrent::session::SessionConfig;
    use crate::bittorrent::wire::{Geometry, Handshake, Reserved};
    use chiral_core::Bitmap;

    fn session(id: u8) -> Session {
        let geometry = Geometry::new(262_144, 10_000_000).unwrap();
        let have = Bitmap::new(geometry.pieces());
        let config = SessionConfig::new([7; 20], [id; 20]).with_torrent(geometry, have);
        let theirs = Handshake {
            reserved: Reserved::OURS,
            info_hash: [7; 20],
            peer_id: [!id; 20],
        };
        let mut session = Session::new(config, theirs, Duration::ZERO);
        session.outbox().take();
        session
    }

    fn range(index: u32, base_layer: u32) -> HashRange {
        HashRange {
            pieces_root: [3; 32],
            base_layer,
            index,
            length: 8,
            proof_layers: 2,
        }
    }

    fn events(session: &mut Session) -> Vec<Event> {
        std::iter::from_fn(|| session.poll_event()).collect()
    }

    #[test]
    fn hashes_are_asked_for_and_given_or_not() {
        let (mut asks, mut gives, now) = (session(1), session(2), Duration::ZERO);
        asks.ask_hashes(now, range(0, 4));
        asks.ask_hashes(now, range(8, 4));
        assert!(!asks.may_ask_hashes());
        gives.handle_bytes(now, &asks.outbox().take()).unwrap();
        let asked = [
            Event::HashRequest(range(0, 4)),
            Event::HashRequest(range(8, 4)),
        ];
        assert_eq!(events(&mut gives), asked);
        gives.answer_hashes(range(8, 4), None);
        gives.answer_hashes(range(0, 4), Some(vec![[9; 32]; 10]));
        // What was not asked is not answered.
        gives.answer_hashes(range(16, 4), Some(vec![[9; 32]; 10]));
        asks.handle_bytes(now, &gives.outbox().take()).unwrap();
        let answers = [
            Event::NoHashes(range(8, 4)),
            Event::Hashes {
                range: range(0, 4),
                hashes: vec![[9; 32]; 10],
            },
        ];
        assert_eq!(events(&mut asks), answers);
        assert!(asks.may_ask_hashes());
    }

    #[test]
    fn nobody_asks_without_end_or_answers_what_was_not_asked() {
        let (mut session, now) = (session(1), Duration::ZERO);
        let mut say = |message: Message| {
            let mut out = bytes::BytesMut::new();
            message.encode(&mut out);
            session
                .handle_bytes(now, &out)
                .map(|()| events(&mut session).len())
        };
        let mut ended = None;
        let mut heard = 0;
        for index in 0..1000 {
            match say(Message::HashRequest(range(index * 8, 0))) {
                Ok(events) => heard += events,
                Err(error) => {
                    ended = Some((index, error));
                    break;
                }
            }
        }
        assert_eq!(heard, MAX_ASKED);
        assert_eq!(ended, Some((25, SessionError::Nuisance)));
        let (mut session, mut said) = (self::session(2), 0);
        while said < 1000 {
            let mut out = bytes::BytesMut::new();
            Message::HashReject(range(0, 4)).encode(&mut out);
            if session.handle_bytes(now, &out).is_err() {
                break;
            }
            said += 1;
        }
        assert_eq!(said, 50);
    }
}
