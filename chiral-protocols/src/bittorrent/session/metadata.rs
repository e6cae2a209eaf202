//! The info dictionary, between peers (BEP 9): given and fetched.

use bytes::{Bytes, BytesMut};
use sha1::{Digest as _, Sha1};
use sha2::Sha256;

use super::{Event, Message, Session, SessionError};
use crate::bittorrent::extension::{METADATA_PIECE, MetadataMessage, Names};

/// Parts asked for at once.
const AT_ONCE: u32 = 4;

/// A peer is given the dictionary at most so many times over.
const MAX_TIMES: u32 = 3;

#[derive(Debug, Default)]
pub(super) struct Metadata {
    wanted: bool,
    /// Parts that came, in order, of a dictionary of this size.
    parts: Vec<Bytes>,
    size: u32,
    asked: u32,
    given: u32,
}

impl Metadata {
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }
}

fn parts_of(size: u32) -> u32 {
    size.div_ceil(METADATA_PIECE)
}

impl Session {
    /// Asks for the next parts, if the peer has said that it has them.
    pub(super) fn ask_metadata(&mut self) {
        if !self.metadata.wanted || self.config.metadata.is_some() {
            return;
        }
        let (Some(size), Some(id)) = (
            self.extended.metadata_size,
            self.extended.extensions.id(Names::Metadata),
        ) else {
            return;
        };
        let metadata = &mut self.metadata;
        if metadata.size == 0 {
            metadata.size = size;
        }
        let came = metadata.parts.len() as u32;
        while metadata.asked < parts_of(metadata.size).min(came + AT_ONCE) {
            let body = MetadataMessage::Request(metadata.asked).encode().into();
            self.outbox.push(&Message::Extended { id, body });
            metadata.asked += 1;
        }
    }

    pub(super) fn metadata_message(&mut self, body: &Bytes) -> Result<(), SessionError> {
        match MetadataMessage::decode(body)? {
            Some(MetadataMessage::Request(piece)) => self.give_metadata(piece),
            Some(MetadataMessage::Data { piece, total, data }) => {
                return self.metadata_part(piece, total, data);
            }
            Some(MetadataMessage::Reject(_)) if self.metadata.wanted => {
                self.metadata = Metadata::default();
                self.events.push_back(Event::NoMetadata);
            }
            Some(MetadataMessage::Reject(_)) | None => {}
        }
        Ok(())
    }

    fn give_metadata(&mut self, piece: u32) {
        let Some(id) = self.extended.extensions.id(Names::Metadata) else {
            return;
        };
        let part = self.config.metadata.as_ref().and_then(|metadata| {
            let total = metadata.len() as u32;
            let most = parts_of(total).saturating_mul(MAX_TIMES);
            if piece >= parts_of(total) || self.metadata.given >= most {
                return None;
            }
            let start = (piece * METADATA_PIECE) as usize;
            let end = metadata.len().min(start + METADATA_PIECE as usize);
            let data = metadata.slice(start..end);
            Some(MetadataMessage::Data { piece, total, data })
        });
        self.metadata.given += u32::from(part.is_some());
        let message = part.unwrap_or(MetadataMessage::Reject(piece));
        let body = message.encode().into();
        self.outbox.push(&Message::Extended { id, body });
    }

    /// A part came; parts come in the order in which they were asked for, or not at all.
    fn metadata_part(&mut self, piece: u32, total: u32, data: Bytes) -> Result<(), SessionError> {
        let metadata = &mut self.metadata;
        if !metadata.wanted || piece >= metadata.asked {
            return Ok(());
        }
        let expected = (metadata.size - piece * METADATA_PIECE).min(METADATA_PIECE);
        let next = piece == metadata.parts.len() as u32;
        if !next || total != metadata.size || data.len() != expected as usize {
            return Err(SessionError::Metadata);
        }
        metadata.parts.push(data);
        if (metadata.parts.len() as u32) < parts_of(metadata.size) {
            self.ask_metadata();
            return Ok(());
        }
        let mut whole = BytesMut::with_capacity(metadata.size as usize);
        for part in &metadata.parts {
            whole.extend_from_slice(part);
        }
        self.metadata = Metadata::default();
        let whole = whole.freeze();
        let wanted = self.config.info_hash;
        let v1 = Sha1::digest(&whole)[..] == wanted;
        // Each hash crate has a trait of its own.
        if !v1 && <Sha256 as sha2::Digest>::digest(&whole)[..20] != wanted {
            return Err(SessionError::Metadata);
        }
        self.events.push_back(Event::Metadata(whole));
        Ok(())
    }
}
