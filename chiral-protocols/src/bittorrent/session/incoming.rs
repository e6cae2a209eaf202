//! What the peer says.

use super::downloads::Arrival;
use super::pieces::PieceError;
use super::{Event, Message, Now, Session, allowed_fast};
use crate::bittorrent::extension::{ExtensionError, HolepunchError};
use crate::bittorrent::wire::{Block, BlockError, WireError};
use std::net::IpAddr;

/// Points for a block, a refusal or a request that there is no reason for.
pub(super) const UNASKED: u32 = 8;

/// Points for saying what was said, or for nothing at all.
const REPEATED: u32 = 4;

/// Points for choking; and for unchoking.
const CHOKE: u32 = 2;

/// Pieces that a choked peer is allowed.
const ALLOWED: usize = 10;

/// A peer with as many pieces needs no gifts.
const GIFT_LIMIT: u32 = 10;

/// Why a connection is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The bytes are no messages.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// An extension's message is none.
    #[error(transparent)]
    Extension(#[from] ExtensionError),
    /// A block that the torrent does not have.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// A malformed holepunch message.
    #[error(transparent)]
    Holepunch(#[from] HolepunchError),
    /// A piece that the torrent does not have.
    #[error("a piece past the last")]
    Piece,
    /// A bitfield that does not fit the torrent.
    #[error("a bitfield of another torrent")]
    Bitfield,
    /// No pieces, said after something else was.
    #[error("no pieces after there were some")]
    NoneAfterAll,
    /// A message of an extension that the two sides did not agree on.
    #[error("a message of the {0} extension, which was not agreed on")]
    NotAgreed(&'static str),
    /// A malformed `lt_donthave`.
    #[error("a malformed dont-have")]
    DontHave,
    /// An info dictionary of another hash, or another size than was said.
    #[error("a false info dictionary")]
    Metadata,
    /// Too much that is of no use.
    #[error("too many needless messages")]
    Nuisance,
    /// Nothing came for too long.
    #[error("silence")]
    Silence,
    /// Nobody wants anything of the other.
    #[error("no use")]
    Useless,
}

impl SessionError {
    /// Whether the peer broke the rules; otherwise the connection just ended.
    pub fn is_fault(&self) -> bool {
        !matches!(self, Self::Silence | Self::Useless)
    }
}

impl From<PieceError> for SessionError {
    fn from(error: PieceError) -> Self {
        match error {
            PieceError::Index => Self::Piece,
            PieceError::Bitfield => Self::Bitfield,
            PieceError::NoneAfterAll => Self::NoneAfterAll,
        }
    }
}

impl Session {
    /// Reads what was appended to [`Session::input`].
    ///
    /// # Errors
    /// [`SessionError`]; the connection is to be closed.
    pub fn handle_input(&mut self, now: Now) -> Result<(), SessionError> {
        self.received_at = now;
        while let Some(message) = self.decoder.next_message()? {
            self.message(now, message)?;
        }
        self.request(now);
        Ok(())
    }

    /// Adds points for something needless.
    pub(super) fn annoy(&mut self, now: Now, points: u32) -> Result<(), SessionError> {
        if self.nuisance.add(now, points) {
            Ok(())
        } else {
            Err(SessionError::Nuisance)
        }
    }

    fn fast_only(&self) -> Result<(), SessionError> {
        if self.speaks_fast() {
            Ok(())
        } else {
            Err(SessionError::NotAgreed("fast"))
        }
    }

    fn message(&mut self, now: Now, message: Message) -> Result<(), SessionError> {
        match message {
            Message::Piece { piece, begin, data } => return self.block(now, piece, begin, data),
            Message::Request(block) => return self.asked(now, block),
            Message::KeepAlive => return self.annoy(now, REPEATED),
            Message::Unknown(_) => return self.annoy(now, UNASKED),
            _ => self.useful_at = now,
        }
        match message {
            Message::Choke | Message::Unchoke => {
                self.choke(message == Message::Choke);
                self.annoy(now, CHOKE)
            }
            Message::Interested | Message::NotInterested => {
                let interested = message == Message::Interested;
                if interested == self.peer_interested {
                    return self.annoy(now, REPEATED);
                }
                self.peer_interested = interested;
                self.events.push_back(Event::Interest);
                self.annoy(now, CHOKE)
            }
            Message::Have(piece) => {
                if !self.pieces.have(piece)? {
                    return self.annoy(now, REPEATED);
                }
                self.pieces_changed();
                Ok(())
            }
            Message::Bitfield(bits) => {
                let late = self.pieces.has_said();
                let news = self.pieces.bitfield(bits)?;
                self.many_pieces(now, late, news)
            }
            Message::HaveAll => {
                self.fast_only()?;
                let late = self.pieces.has_said();
                let news = self.pieces.all()?;
                self.many_pieces(now, late, news)
            }
            Message::HaveNone => {
                self.fast_only()?;
                self.pieces.none()?;
                self.pieces_changed();
                Ok(())
            }
            Message::Cancel(block) => {
                // Answered by the block or by a refusal, says BEP 6.
                if self.uploads.cancel(block) && self.speaks_fast() {
                    self.outbox.push(&Message::Reject(block));
                }
                self.annoy(now, 0)
            }
            Message::Port(port) => {
                if port != 0 {
                    self.events.push_back(Event::DhtPort(port));
                }
                self.annoy(now, REPEATED)
            }
            Message::Suggest(piece) => {
                self.fast_only()?;
                // What to ask for is the scheduler's business.
                self.pieces.check(piece)?;
                self.annoy(now, 0)
            }
            Message::AllowedFast(piece) => {
                self.fast_only()?;
                self.pieces.allow(piece)?;
                if self.peer_choking && self.pieces.has(piece) {
                    self.events.push_back(Event::Available);
                }
                self.annoy(now, 1)
            }
            Message::Reject(block) => {
                self.fast_only()?;
                match self.downloads.rejected(block) {
                    Arrival::Asked(token) => {
                        self.events.push_back(Event::Lost { block, token });
                        Ok(())
                    }
                    Arrival::Cancelled => Ok(()),
                    Arrival::Unasked => self.annoy(now, UNASKED),
                }
            }
            Message::Extended { id, body } => self.extended_message(now, id, &body),
            Message::HashRequest(range) => self.hashes_asked(now, range),
            Message::Hashes { range, hashes } => self.hashes_came(now, range, Some(&hashes)),
            Message::HashReject(range) => self.hashes_came(now, range, None),
            Message::KeepAlive
            | Message::Unknown(_)
            | Message::Piece { .. }
            | Message::Request(_) => Ok(()),
        }
    }

    /// Pieces were said in one go; late, that costs little if there are new ones among them.
    fn many_pieces(&mut self, now: Now, late: bool, news: bool) -> Result<(), SessionError> {
        self.pieces_changed();
        match (late, news) {
            (false, _) => Ok(()),
            (true, true) => self.annoy(now, 1),
            (true, false) => self.annoy(now, REPEATED),
        }
    }

    fn pieces_changed(&mut self) {
        if self.events.back() != Some(&Event::Available) {
            self.events.push_back(Event::Available);
        }
        if !self.am_interested {
            self.update_interest();
        }
    }

    fn choke(&mut self, choking: bool) {
        if choking == self.peer_choking {
            return;
        }
        self.peer_choking = choking;
        if choking {
            let (fast, pieces) = (self.speaks_fast(), &self.pieces);
            let allowed = |block: &Block| pieces.allows(block.piece) && pieces.has(block.piece);
            // With the fast extension each request under way is answered one way or the other.
            let lost = if fast {
                self.downloads.give_up_waiting(allowed)
            } else {
                self.downloads.choked(|_| false)
            };
            for (block, token) in lost {
                self.events.push_back(Event::Lost { block, token });
            }
        }
        self.events.push_back(Event::Available);
    }

    fn block(
        &mut self,
        now: Now,
        piece: u32,
        begin: u32,
        data: bytes::Bytes,
    ) -> Result<(), SessionError> {
        let len = data.len() as u32;
        let block = Block { piece, begin, len };
        match self.config.geometry {
            Some(geometry) => geometry.check(block)?,
            None => return Err(BlockError { block }.into()),
        }
        match self.downloads.arrived(now, block) {
            Arrival::Asked(token) => {
                self.useful_at = now;
                self.downloaded.add(now, len.into());
                self.events.push_back(Event::Block { block, token, data });
                Ok(())
            }
            Arrival::Cancelled => Ok(()),
            Arrival::Unasked => self.annoy(now, UNASKED),
        }
    }

    fn asked(&mut self, now: Now, block: Block) -> Result<(), SessionError> {
        match self.config.geometry {
            Some(geometry) => geometry.check_asked(block)?,
            None => return Err(BlockError { block }.into()),
        }
        let admitted = self.uploads.admits(block.piece) && self.config.have.get(block.piece);
        if admitted && self.uploads.push(block) {
            self.useful_at = now;
            return Ok(());
        }
        if self.speaks_fast() {
            self.outbox.push(&Message::Reject(block));
        }
        // Requests cross with a choke on their way, and they are many.
        let crossed = self.uploads.is_choking() && self.config.have.get(block.piece);
        self.annoy(now, if crossed { 0 } else { 1 })
    }

    pub(super) fn say_what_we_have(&mut self) {
        let have = &self.config.have;
        let known = self.config.geometry.is_some();
        let message = if self.speaks_fast() && known && have.is_full() {
            Message::HaveAll
        } else if self.speaks_fast() && have.count_ones() == 0 {
            Message::HaveNone
        } else if known && have.count_ones() > 0 {
            Message::Bitfield(have.as_bytes().to_vec().into())
        } else {
            return;
        };
        self.outbox.push(&message);
    }

    /// A newcomer gets a few pieces to have something to trade with.
    pub(super) fn send_allowed_fast(&mut self) {
        let (Some(geometry), Some(IpAddr::V4(ip))) = (self.config.geometry, self.config.remote)
        else {
            return;
        };
        if !self.speaks_fast() || geometry.pieces() <= GIFT_LIMIT {
            return;
        }
        let set = allowed_fast(ip, self.config.info_hash, geometry.pieces(), ALLOWED);
        for piece in set.into_iter().filter(|piece| self.config.have.get(*piece)) {
            self.outbox.push(&Message::AllowedFast(piece));
            self.uploads.allowed.push(piece);
        }
    }
}
