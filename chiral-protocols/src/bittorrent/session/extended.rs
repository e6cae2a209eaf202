//! Messages of extensions, to and from.

use bytes::Bytes;

use super::{Event, MAX_STANDING, Message, Now, Session, SessionError};
use crate::bittorrent::extension::{ChiralMessage, ExtendedHandshake, Holepunch, Names, Pex};

/// Points for a message of an extension that we never named.
const UNNAMED: u32 = 40;

/// Points for a message of peer exchange before its time.
const HASTY: u32 = 20;

/// Points for peer exchange in a private torrent, where it is forbidden (BEP 27).
const FORBIDDEN: u32 = 40;

impl Session {
    pub(super) fn send_extended_handshake(&mut self) {
        let config = &self.config;
        let complete = config.geometry.is_some() && config.have.is_full();
        let handshake = ExtendedHandshake {
            extensions: self.our_extensions(),
            port: config.port,
            client: Some(config.client.clone()),
            your_ip: config.remote,
            reqq: Some(MAX_STANDING as u32),
            metadata_size: config
                .metadata
                .as_ref()
                .map(|metadata| metadata.len() as u32),
            upload_only: complete,
            chiral: config.greeting.clone(),
        };
        let body = handshake.encode().into();
        self.outbox.push(&Message::Extended { id: 0, body });
    }

    pub(super) fn extended_message(
        &mut self,
        now: Now,
        id: u8,
        body: &Bytes,
    ) -> Result<(), SessionError> {
        if !self.speaks_extended() {
            return Err(SessionError::NotAgreed("extended"));
        }
        if id == 0 {
            self.extended.update(body)?;
            self.heard_extended = true;
            self.events.push_back(Event::Extended);
            self.ask_metadata();
            return self.annoy(now, 1);
        }
        let named = Names::of_id(id).filter(|name| self.our_extensions().id(*name).is_some());
        match named {
            Some(Names::Metadata) => self.metadata_message(body),
            Some(Names::Pex) => self.pex_message(now, body),
            Some(Names::DontHave) => {
                let piece = <[u8; 4]>::try_from(&body[..]).map_err(|_| SessionError::DontHave)?;
                if self.pieces.lost(u32::from_be_bytes(piece))? {
                    self.events.push_back(Event::Available);
                    self.update_interest();
                }
                self.annoy(now, 1)
            }
            Some(Names::Holepunch) => {
                self.events
                    .push_back(Event::Holepunch(Holepunch::decode(body)?));
                self.annoy(now, 2)
            }
            Some(Names::Chiral) => self.chiral_message(now, body),
            None if self.config.private && id == Names::Pex.id() => self.annoy(now, FORBIDDEN),
            None => self.annoy(now, UNNAMED),
        }
    }

    fn pex_message(&mut self, now: Now, body: &[u8]) -> Result<(), SessionError> {
        let pex = Pex::decode(body)?;
        // Clocks differ, and so do networks' delays: half the time is early, less is a fault.
        let hasty = |at: Now| now < at + self.config.timing.pex / 2;
        let hasty = self.pex_received.is_some_and(hasty);
        if hasty {
            return self.annoy(now, HASTY);
        }
        self.pex_received = Some(now);
        if !pex.added.is_empty() {
            self.events.push_back(Event::Peers(pex.added));
        }
        Ok(())
    }

    fn chiral_message(&mut self, now: Now, body: &[u8]) -> Result<(), SessionError> {
        let event = match ChiralMessage::decode(body)? {
            Some(ChiralMessage::Proof(proof)) => Event::Proof(proof),
            Some(ChiralMessage::Payment { question, body }) => Event::Payment { question, body },
            Some(ChiralMessage::AskHeader { question }) => Event::Manifest {
                question,
                page: None,
            },
            Some(ChiralMessage::AskPage { question, index }) => Event::Manifest {
                question,
                page: Some(index),
            },
            Some(ChiralMessage::Admit {
                question,
                range,
                credential,
            }) => Event::Admit {
                question,
                range,
                credential,
            },
            Some(ChiralMessage::Release { range }) => Event::Release(range),
            Some(ChiralMessage::AskTariff { question }) => Event::Tariff { question },
            Some(ChiralMessage::Answer { question, body }) => Event::Answer { question, body },
            None => return self.annoy(now, 1),
        };
        self.events.push_back(event);
        // Each makes somebody check a signature.
        self.annoy(now, 1)
    }
}
