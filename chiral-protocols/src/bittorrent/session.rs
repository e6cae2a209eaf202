//! One peer, without a socket: [`Session`] takes the bytes that come in and the time, and says
//! what goes out and what happened.
//!
//! The invariant: after every call that changes something, its [outbox](Session::outbox) is to
//! be written and its [events](Session::poll_event) are to be taken. It never holds more than
//! what its limits allow, whatever the peer sends: requests that stand are at most
//! [`MAX_STANDING`], and what wants an answer is not read while the outbox is full, which is
//! for the driver to see to ([`Outbox::is_full`]).

mod config;
mod downloads;
mod extended;
mod fast;
mod hashes;
mod incoming;
mod metadata;
mod meter;
mod nuisance;
mod outbox;
mod pieces;
mod uploads;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use chiral_core::{Bitmap, ByteRange, Coverage};

use super::extension::{
    ChiralMessage, ExtendedHandshake, Extensions, Greeting, Holepunch, Names, PexPeer, PexSender,
    Proof,
};
use super::merkle::NodeHash;
use super::wire::{Block, Decoder, Geometry, Handshake, HashRange, Message};
pub use config::{SessionConfig, Timing};
use downloads::Downloads;
pub use fast::allowed_fast;
use hashes::Hashes;
use metadata::Metadata;
pub use meter::RateMeter;
use nuisance::Nuisance;
pub use outbox::Outbox;
use pieces::Pieces;
use uploads::Uploads;

pub use downloads::MAX_WINDOW;
pub use incoming::SessionError;
pub use uploads::MAX_STANDING;

/// Most pieces that are taken back one by one: each is a message, of which a peer bears so many.
const MAX_TAKEN_BACK: usize = 256;

/// Time since whatever the driver counts from.
pub type Now = Duration;

/// What happened.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A block that was asked for came.
    Block {
        /// Which.
        block: Block,
        /// What [`Session::want`] was given.
        token: u64,
        /// Its bytes.
        data: Bytes,
    },
    /// A block that was asked for does not come: choked or refused.
    Lost {
        /// Which.
        block: Block,
        /// What [`Session::want`] was given.
        token: u64,
    },
    /// What can be had from the peer changed: pieces, or whether it answers.
    Available,
    /// Whether the peer wants something of us changed.
    Interest,
    /// The peer's extended handshake came, or another one.
    Extended,
    /// All of the info dictionary came, and its hash is right.
    Metadata(Bytes),
    /// The peer does not have, or give, the info dictionary.
    NoMetadata,
    /// The peer asks for hashes of a tree (BEP 52); to be answered by
    /// [`Session::answer_hashes`].
    HashRequest(HashRange),
    /// Hashes that were asked for, not checked.
    Hashes {
        /// What was asked.
        range: HashRange,
        /// Those and their proof.
        hashes: Vec<NodeHash>,
    },
    /// The peer does not give hashes.
    NoHashes(HashRange),
    /// Peers that the peer knows.
    Peers(Vec<PexPeer>),
    /// Something about holepunching.
    Holepunch(Holepunch),
    /// The peer's DHT node listens at this UDP port.
    DhtPort(u16),
    /// What the peer showed for being who it says it is; to be checked.
    Proof(Proof),
    /// From the peer's payment agent to our gate.
    Payment {
        /// Number for the answer.
        question: u32,
        /// Unread here.
        body: Bytes,
    },
    /// The peer asks for the manifest's header, or a page of it.
    Manifest {
        /// Number for the answer.
        question: u32,
        /// Which page; the header if none.
        page: Option<u32>,
    },
    /// The peer's agent asks for leave to ask for bytes that have a price.
    Admit {
        /// Number for the answer.
        question: u32,
        /// Bytes of the torrent, unchecked.
        range: ByteRange,
        /// What it shows.
        credential: Option<Bytes>,
    },
    /// The peer will not ask for more of what it had leave to.
    Release(ByteRange),
    /// The peer asks what the content costs.
    Tariff {
        /// Number for the answer.
        question: u32,
    },
    /// The answer to a question of ours.
    Answer {
        /// The question's number.
        question: u32,
        /// What was asked for, if there is such a thing.
        body: Option<Bytes>,
    },
}

/// One connection to one peer, after the handshakes.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    theirs: Handshake,
    extended: ExtendedHandshake,
    decoder: Decoder,
    outbox: Outbox,
    events: VecDeque<Event>,
    pieces: Pieces,
    downloads: Downloads,
    uploads: Uploads,
    metadata: Metadata,
    hashes: Hashes,
    nuisance: Nuisance,
    pex_sender: PexSender,
    pex_sent: Option<Now>,
    pex_received: Option<Now>,
    am_interested: bool,
    peer_interested: bool,
    peer_choking: bool,
    /// A download wants something of this torrent.
    wanting: bool,
    proof_sent: bool,
    heard_extended: bool,
    received_at: Now,
    useful_at: Now,
    sent_at: Now,
    downloaded: RateMeter,
    uploaded: RateMeter,
}

impl Session {
    /// After the handshakes; says at once what this side has and can.
    pub fn new(config: SessionConfig, theirs: Handshake, now: Now) -> Self {
        let mut session = Self {
            decoder: Decoder::new(config.geometry.map(|geometry| geometry.pieces())),
            pieces: Pieces::new(config.geometry),
            downloads: Downloads::new(now),
            uploads: Uploads::default(),
            metadata: Metadata::default(),
            hashes: Hashes::default(),
            nuisance: Nuisance::new(now),
            extended: ExtendedHandshake::default(),
            outbox: Outbox::default(),
            events: VecDeque::new(),
            pex_sender: PexSender::default(),
            pex_sent: None,
            pex_received: None,
            am_interested: false,
            peer_interested: false,
            peer_choking: true,
            wanting: false,
            proof_sent: false,
            heard_extended: false,
            received_at: now,
            useful_at: now,
            sent_at: now,
            downloaded: RateMeter::new(now),
            uploaded: RateMeter::new(now),
            config,
            theirs,
        };
        session.say_what_we_have();
        if session.speaks_extended() {
            session.send_extended_handshake();
        }
        session.send_allowed_fast();
        if let Some(port) = session.config.dht_port.filter(|_| theirs.reserved.dht()) {
            session.outbox.push(&Message::Port(port));
        }
        session
    }

    /// Both sides speak the fast extension (BEP 6).
    pub fn speaks_fast(&self) -> bool {
        self.config.reserved.fast() && self.theirs.reserved.fast()
    }

    /// Both sides speak the extension protocol (BEP 10).
    pub fn speaks_extended(&self) -> bool {
        self.config.reserved.extended() && self.theirs.reserved.extended()
    }

    /// The peer's handshake.
    pub fn handshake(&self) -> &Handshake {
        &self.theirs
    }

    /// All that the peer's extended handshakes said.
    pub fn extended(&self) -> &ExtendedHandshake {
        &self.extended
    }

    /// Whether an extended handshake came.
    pub fn has_heard_extended(&self) -> bool {
        self.heard_extended
    }

    /// How the torrent is cut, if it is known.
    pub fn geometry(&self) -> Option<Geometry> {
        self.config.geometry
    }

    /// Where received bytes are appended; [`Self::handle_input`] then reads them.
    pub fn input(&mut self) -> &mut BytesMut {
        self.decoder.buffer()
    }

    /// Bytes that are missing of the message under way.
    pub fn missing(&self) -> usize {
        self.decoder.missing()
    }

    /// Takes bytes that came in: [`Self::input`] and [`Self::handle_input`] in one, with a copy.
    ///
    /// # Errors
    /// [`SessionError`]; the connection is to be closed.
    pub fn handle_bytes(&mut self, now: Now, bytes: &[u8]) -> Result<(), SessionError> {
        self.decoder.buffer().extend_from_slice(bytes);
        self.handle_input(now)
    }

    /// What is to be written.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// What happened, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether requests may be answered: the peer does not choke us, or allows this piece.
    pub fn is_choked(&self) -> bool {
        self.peer_choking
    }

    /// Whether we choke the peer.
    pub fn is_choking(&self) -> bool {
        self.uploads.is_choking()
    }

    /// So many messages of the peer turned out to be of use, and were no nuisance.
    pub fn forgive(&mut self, messages: u32) {
        self.nuisance.take_back(messages);
    }

    /// Whether the peer wants something of us.
    pub fn is_peer_interested(&self) -> bool {
        self.peer_interested
    }

    /// Whether the peer has stopped answering.
    pub fn is_snubbed(&self, now: Now) -> bool {
        self.downloads.is_snubbed(now, self.config.timing.snub)
    }

    /// Bytes of blocks that came from the peer, and how fast.
    pub fn downloaded(&self) -> &RateMeter {
        &self.downloaded
    }

    /// Bytes of blocks that went to the peer, and how fast.
    pub fn uploaded(&self) -> &RateMeter {
        &self.uploaded
    }

    /// Pieces that the peer has; `None` as long as the number of pieces is not known.
    pub fn peer_pieces(&self) -> Option<&Bitmap> {
        self.pieces.theirs()
    }

    /// What can be had from the peer now, in chunks: nothing while it chokes, but for pieces that
    /// it allows all the same.
    pub fn coverage(&self) -> Coverage {
        let (Some(geometry), Some(theirs)) = (self.config.geometry, self.pieces.theirs()) else {
            return Coverage::Partial(Default::default());
        };
        if !self.peer_choking {
            return geometry.coverage(theirs);
        }
        let mut allowed = Bitmap::new(geometry.pieces());
        for piece in self.pieces.allowed().filter(|piece| theirs.get(*piece)) {
            allowed.set(piece, true);
        }
        geometry.coverage(&allowed)
    }

    /// Whether the peer said by now what it has.
    pub fn has_said_pieces(&self) -> bool {
        self.pieces.has_said()
    }

    /// The torrent's cutting, and what we have of it, became known.
    pub fn set_geometry(
        &mut self,
        geometry: Geometry,
        metadata: Bytes,
    ) -> Result<(), SessionError> {
        if self.config.geometry.is_none() {
            self.config.geometry = Some(geometry);
            self.config.metadata = Some(metadata);
            self.config.have = Bitmap::new(geometry.pieces());
            self.decoder.set_pieces(geometry.pieces());
            self.pieces
                .set_geometry(geometry)
                .map_err(SessionError::from)?;
            self.events.push_back(Event::Available);
            self.update_interest();
        }
        Ok(())
    }

    /// We have another piece: it is said to the peer, unless it has it anyway.
    pub fn have(&mut self, piece: u32) {
        if self.config.have.set(piece, true) {
            return;
        }
        if self.pieces.theirs().is_none_or(|theirs| !theirs.get(piece)) {
            self.outbox.push(&Message::Have(piece));
        }
    }

    /// We have these pieces: new ones are said, and whether we want something is thought over.
    pub fn have_all_of(&mut self, pieces: &Bitmap) {
        let was_complete = self.config.have.is_full();
        let new: Vec<u32> = pieces
            .ones()
            .filter(|piece| !self.config.have.get(*piece))
            .collect();
        for piece in new {
            self.have(piece);
        }
        self.update_interest();
        // That we want nothing any more is said again (BEP 21). All of the handshake is: some take
        // what a later one does not name for gone.
        if !was_complete && self.config.have.is_full() && self.speaks_extended() {
            self.send_extended_handshake();
        }
    }

    /// We have these pieces and no others: new ones are said, those that are gone are taken back
    /// (BEP 54), and whether we want something is thought over. False if the peer goes on
    /// believing in pieces that are gone: it does not speak that, or they are too many to be
    /// named one by one.
    pub fn hold(&mut self, pieces: &Bitmap) -> bool {
        let have = &self.config.have;
        let gone: Vec<u32> = have.ones().filter(|piece| !pieces.get(*piece)).collect();
        let had_all = have.is_full();
        if gone.len() > MAX_TAKEN_BACK {
            return false;
        }
        for piece in &gone {
            if !self.dont_have(*piece) {
                return false;
            }
        }
        if had_all && !gone.is_empty() {
            // It said that it wants nothing (BEP 21).
            self.send_extended_handshake();
        }
        self.have_all_of(pieces);
        true
    }

    /// Whether a download wants something of this torrent.
    pub fn set_wanting(&mut self, wanting: bool) {
        self.wanting = wanting;
        self.update_interest();
    }

    /// Says whether we are interested, if that changed.
    fn update_interest(&mut self) {
        let interesting = self.wanting && self.pieces.has_other_than(&self.config.have);
        if interesting != self.am_interested {
            self.am_interested = interesting;
            let message = if interesting {
                Message::Interested
            } else {
                Message::NotInterested
            };
            self.outbox.push(&message);
        }
    }

    /// Chokes or unchokes the peer.
    pub fn set_choking(&mut self, choking: bool) {
        let fast = self.speaks_fast();
        self.uploads.set_choking(choking, fast, &mut self.outbox);
    }

    /// Wants a block; it is asked for when its turn comes. `token` comes back with it.
    pub fn want(&mut self, now: Now, block: Block, token: u64) {
        self.downloads.want(block, token);
        self.request(now);
    }

    /// Wants blocks; see [`Self::want`].
    pub fn want_all(&mut self, now: Now, blocks: impl Iterator<Item = Block>, token: u64) {
        for block in blocks {
            self.downloads.want(block, token);
        }
        self.request(now);
    }

    /// Wants nothing more under this token.
    pub fn unwant(&mut self, now: Now, token: u64) {
        self.downloads.unwant(token, &mut self.outbox);
        self.request(now);
    }

    /// Most blocks that may have been asked for and not been used: fewer are asked for while
    /// whoever they are for does not take them.
    pub fn set_room(&mut self, now: Now, blocks: usize) {
        self.downloads.set_room(blocks);
        self.request(now);
    }

    /// Asks for as much as the peer's and our limits let.
    fn request(&mut self, now: Now) {
        let reqq = self.extended.reqq.unwrap_or(downloads::UNKNOWN_REQQ);
        let (choked, pieces) = (self.peer_choking, &self.pieces);
        let may =
            |block: &Block| pieces.has(block.piece) && (!choked || pieces.allows(block.piece));
        self.downloads
            .request(now, reqq as usize, may, &mut self.outbox);
    }

    /// The block that the peer is to be given next.
    pub fn next_upload(&self) -> Option<Block> {
        self.uploads.next()
    }

    /// Gives the peer the next block.
    pub fn upload(&mut self, now: Now, data: Bytes) {
        if let Some(block) = self.uploads.pop() {
            self.uploaded.add(now, data.len() as u64);
            self.useful_at = now;
            self.outbox.push_block(block, data);
        }
    }

    /// Does not give the peer the next block.
    pub fn refuse_upload(&mut self) {
        let refused = self.uploads.pop();
        if let Some(block) = refused.filter(|_| self.speaks_fast()) {
            self.outbox.push(&Message::Reject(block));
        }
    }

    /// Fetches the info dictionary, if the peer has it.
    pub fn fetch_metadata(&mut self) {
        self.metadata.want();
        self.ask_metadata();
    }

    /// Tells the peer of those connected now; often called, seldom sent.
    pub fn exchange_peers(&mut self, now: Now, connected: &[PexPeer]) {
        let due = self
            .pex_sent
            .is_none_or(|at| now >= at + self.config.timing.pex);
        let Some(id) = self.extended.extensions.id(Names::Pex).filter(|_| due) else {
            return;
        };
        if self.config.private {
            return;
        }
        if let Some(pex) = self.pex_sender.update(connected) {
            self.pex_sent = Some(now);
            let body = pex.encode().into();
            self.outbox.push(&Message::Extended { id, body });
        }
    }

    /// Sends a holepunch message; false if the peer does not speak it.
    pub fn send_holepunch(&mut self, message: Holepunch) -> bool {
        self.send_extension(Names::Holepunch, || message.encode())
    }

    /// Says that a piece that we had is gone (BEP 54); false if the peer does not speak it, and
    /// will be refused when it asks.
    pub fn dont_have(&mut self, piece: u32) -> bool {
        self.config.have.set(piece, false);
        self.send_extension(Names::DontHave, || piece.to_be_bytes().to_vec())
    }

    /// Sends a message of Chiral's extension; false if the peer is no Chiral node.
    pub fn send_chiral(&mut self, message: &ChiralMessage) -> bool {
        self.send_extension(Names::Chiral, || message.encode())
    }

    fn send_extension(&mut self, name: Names, body: impl FnOnce() -> Vec<u8>) -> bool {
        let Some(id) = self.extended.extensions.id(name) else {
            return false;
        };
        let body = body().into();
        self.outbox.push(&Message::Extended { id, body });
        true
    }

    /// Our greeting and the peer's, once both are known and the proof was not sent yet: it is
    /// to be signed and sent, once.
    pub fn proof_due(&mut self) -> Option<(Greeting, Greeting)> {
        self.extended.extensions.id(Names::Chiral)?;
        let both = self
            .config
            .greeting
            .clone()
            .zip(self.extended.chiral.clone())?;
        (!std::mem::replace(&mut self.proof_sent, true)).then_some(both)
    }

    /// Our greeting and the peer's.
    pub fn greetings(&self) -> Option<(&Greeting, &Greeting)> {
        self.config
            .greeting
            .as_ref()
            .zip(self.extended.chiral.as_ref())
    }

    /// When [`Self::handle_timeout`] is to be called at the latest.
    pub fn poll_timeout(&self) -> Now {
        let timing = &self.config.timing;
        (self.sent_at + timing.keep_alive).min(self.received_at + timing.silence)
    }

    /// Something was written at this time.
    pub fn note_sent(&mut self, now: Now) {
        self.sent_at = now;
    }

    /// The time has come.
    ///
    /// # Errors
    /// [`SessionError`]; the connection is to be closed.
    pub fn handle_timeout(&mut self, now: Now) -> Result<(), SessionError> {
        let timing = self.config.timing;
        if now >= self.received_at + timing.silence {
            return Err(SessionError::Silence);
        }
        let idle = !self.am_interested && !self.peer_interested;
        if idle && now >= self.useful_at + timing.useless {
            return Err(SessionError::Useless);
        }
        if now >= self.sent_at + timing.keep_alive {
            self.outbox.push(&Message::KeepAlive);
            self.sent_at = now;
        }
        self.downloads.tick(now, timing.snub);
        self.request(now);
        Ok(())
    }

    /// Whether an address is that of the peer, as others can reach it: the port it says it
    /// listens on.
    pub fn listens_at(&self, remote: SocketAddr) -> Option<SocketAddr> {
        Some(SocketAddr::new(remote.ip(), self.extended.port?))
    }

    fn our_extensions(&self) -> Extensions {
        let config = &self.config;
        Extensions::ours(|name| match name {
            Names::Pex => !config.private,
            Names::Chiral => config.greeting.is_some(),
            _ => true,
        })
    }
}

#[cfg(test)]
mod tests;
