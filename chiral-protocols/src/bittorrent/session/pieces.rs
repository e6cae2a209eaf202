//! What the peer has.

use bytes::Bytes;
use chiral_core::Bitmap;

use crate::bittorrent::wire::Geometry;

/// Pieces that are kept in mind before their number is known.
const MAX_EARLY: usize = 65_536;

/// Most pieces that a peer allows though it chokes, as far as is looked at.
const MAX_ALLOWED: usize = 64;

/// What a peer says of its pieces that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceError {
    /// A piece that the torrent does not have.
    Index,
    /// A bitfield of another size.
    Bitfield,
    /// None, after something was said.
    NoneAfterAll,
}

#[derive(Debug)]
enum Early {
    Nothing,
    All,
    Some(Bytes),
}

#[derive(Debug)]
pub(super) struct Pieces {
    theirs: Option<Bitmap>,
    /// What was said before the number of pieces was known.
    early: Early,
    early_haves: Vec<u32>,
    said: bool,
    allowed: Vec<u32>,
}

impl Pieces {
    pub(super) fn new(geometry: Option<Geometry>) -> Self {
        Self {
            theirs: geometry.map(|geometry| Bitmap::new(geometry.pieces())),
            early: Early::Nothing,
            early_haves: Vec::new(),
            said: false,
            allowed: Vec::new(),
        }
    }

    pub(super) fn theirs(&self) -> Option<&Bitmap> {
        self.theirs.as_ref()
    }

    pub(super) fn has(&self, piece: u32) -> bool {
        self.theirs.as_ref().is_some_and(|theirs| theirs.get(piece))
    }

    pub(super) fn has_said(&self) -> bool {
        self.said
    }

    pub(super) fn allowed(&self) -> impl Iterator<Item = u32> + '_ {
        self.allowed.iter().copied()
    }

    pub(super) fn allows(&self, piece: u32) -> bool {
        self.allowed.contains(&piece)
    }

    pub(super) fn allow(&mut self, piece: u32) -> Result<(), PieceError> {
        self.check(piece)?;
        if self.allowed.len() < MAX_ALLOWED && !self.allows(piece) {
            self.allowed.push(piece);
        }
        Ok(())
    }

    pub(super) fn check(&self, piece: u32) -> Result<(), PieceError> {
        let known = self.theirs.as_ref().map(Bitmap::len);
        if known.is_some_and(|len| piece >= len) {
            return Err(PieceError::Index);
        }
        Ok(())
    }

    /// The peer has a piece; false if it said so before.
    pub(super) fn have(&mut self, piece: u32) -> Result<bool, PieceError> {
        self.check(piece)?;
        self.said = true;
        match &mut self.theirs {
            Some(theirs) => Ok(!theirs.set(piece, true)),
            None => {
                let room = self.early_haves.len() < MAX_EARLY;
                if room {
                    self.early_haves.push(piece);
                }
                Ok(room)
            }
        }
    }

    /// The peer lost a piece.
    pub(super) fn lost(&mut self, piece: u32) -> Result<bool, PieceError> {
        self.check(piece)?;
        self.early_haves.retain(|have| *have != piece);
        Ok(self
            .theirs
            .as_mut()
            .is_some_and(|theirs| theirs.set(piece, false)))
    }

    /// The peer has none, as it says before anything else.
    pub(super) fn none(&mut self) -> Result<(), PieceError> {
        match std::mem::replace(&mut self.said, true) {
            true => Err(PieceError::NoneAfterAll),
            false => Ok(()),
        }
    }

    /// The peer has all; whether that is new.
    pub(super) fn all(&mut self) -> Result<bool, PieceError> {
        self.said = true;
        self.early = Early::All;
        self.apply()
    }

    /// The peer has these, beside those that it had: aria2 says so instead of many single ones,
    /// at any time. Whether there are new ones among them.
    pub(super) fn bitfield(&mut self, bits: Bytes) -> Result<bool, PieceError> {
        self.said = true;
        if !matches!(self.early, Early::All) {
            self.early = Early::Some(bits);
        }
        self.apply()
    }

    pub(super) fn set_geometry(&mut self, geometry: Geometry) -> Result<(), PieceError> {
        self.theirs = Some(Bitmap::new(geometry.pieces()));
        self.allowed.retain(|piece| *piece < geometry.pieces());
        self.apply().map(drop)
    }

    /// What was said early holds once the number of pieces is known; whether there is something
    /// new.
    fn apply(&mut self) -> Result<bool, PieceError> {
        let Some(theirs) = &mut self.theirs else {
            // Whether it is cannot be said.
            return Ok(false);
        };
        let (len, before) = (theirs.len(), theirs.count_ones());
        match std::mem::replace(&mut self.early, Early::Nothing) {
            Early::Nothing => {}
            Early::All => {
                for piece in 0..len {
                    theirs.set(piece, true);
                }
            }
            Early::Some(bits) => {
                let bits = Bitmap::from_bytes(bits.to_vec(), len);
                let had = std::mem::replace(theirs, bits.ok_or(PieceError::Bitfield)?);
                for piece in had.ones() {
                    theirs.set(piece, true);
                }
            }
        }
        for piece in std::mem::take(&mut self.early_haves) {
            if piece >= len {
                return Err(PieceError::Index);
            }
            theirs.set(piece, true);
        }
        Ok(theirs.count_ones() > before)
    }

    /// Whether the peer has a piece that is not among these.
    pub(super) fn has_other_than(&self, ours: &Bitmap) -> bool {
        let Some(theirs) = &self.theirs else {
            return false;
        };
        let ours = ours.as_bytes().iter().chain(std::iter::repeat(&0));
        theirs
            .as_bytes()
            .iter()
            .zip(ours)
            .any(|(theirs, ours)| theirs & !ours != 0)
    }
}
