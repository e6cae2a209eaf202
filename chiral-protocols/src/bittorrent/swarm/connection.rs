//! The task of one connection: a socket, a [`Session`], and what it has for others.

mod acquaint;
mod bytes;
mod serve;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use ::bytes::{Bytes, BytesMut};
use chiral_core::{ByteRange, PeerId, StoreError, StoredContent};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::bytes::{FIRST_READ, Moved, poll_encipher, poll_read, poll_write};
use super::conversation::{Conversation, Reply};
use super::greet::Wire;
use super::handle::{PeerHandle, Published};
use super::hashes;
use super::known::Origin;
use super::node::Shared;
use super::sales::Sales;
use super::torrent::Torrent;
use crate::bittorrent::dht::MainlineDht;
use crate::bittorrent::extension::{ChiralMessage, Names, write_tariff};
use crate::bittorrent::mse::Ciphers;
use crate::bittorrent::session::{Event, Now, Session, SessionError};
use crate::limits::Flow;

/// What can be had from the peer is told at most so often, while it only grows.
const COVERAGE_PAUSE: Duration = Duration::from_millis(100);

/// How often others may see new figures.
const PUBLISH_PAUSE: Duration = Duration::from_millis(250);

/// Messages of Chiral's extension that go with one range that is sold: the question for it and
/// its end, and what the agent has to say in between.
const MESSAGES_OF_A_SALE: u32 = 4;

/// Longest time for which nothing is read because enough blocks wait to be taken. If they wait longer,
/// something holds the download up, and the peer is heard all the same.
const LONGEST_REST: Duration = Duration::from_millis(300);

/// A connection that nobody has a use for is closed after this time.
const UNUSED: Duration = Duration::from_secs(5);

/// A connection between two that have everything is closed after this time.
const REDUNDANT: Duration = Duration::from_secs(10);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the peer closed the connection")]
    Closed,
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("no info dictionary, or one that cannot be")]
    Info,
    #[error("hashes that are not the torrent's")]
    Hashes,
    #[error("nobody has a use for it")]
    Unused,
    #[error("another connection with the same peer takes its place")]
    Displaced,
    #[error("both sides have everything")]
    Redundant,
    #[error("pieces are gone that the peer counts on")]
    Outdated,
    #[error("what it gave was wrong")]
    Banned,
    #[error("shut down")]
    Shutdown,
}

impl Ended {
    /// Whether there may be a use in another connection with the same peer.
    fn may_come_again(&self) -> bool {
        match self {
            Self::Closed | Self::Io(_) | Self::Outdated => true,
            Self::Session(error) => !error.is_fault(),
            _ => false,
        }
    }
}

type Reading = Pin<Box<dyn Future<Output = (ByteRange, Result<Bytes, StoreError>)> + Send>>;

pub(super) struct Connection<S> {
    pub(super) stream: S,
    pub(super) session: Session,
    pub(super) handle: Arc<PeerHandle>,
    pub(super) torrent: Arc<Torrent>,
    /// What the stream goes under, if anything.
    pub(super) ciphers: Option<Ciphers>,
    /// Enciphered, and not written yet.
    enciphered: BytesMut,
    flow: Option<Flow>,
    pub(super) node: Arc<Shared>,
    pub(super) closed: CancellationToken,
    started: Instant,
    read_size: usize,
    reading: Option<Reading>,
    /// Since when nothing is read, because enough waits to be taken.
    resting_since: Option<Now>,
    /// What was read of the content last: blocks are cut from it.
    held: Option<(ByteRange, Bytes)>,
    published_at: Option<Now>,
    coverage_at: Option<Now>,
    coverage_due: bool,
    was_choked: bool,
    wanting: bool,
    useful_at: Now,
    /// The Chiral node that the peer proved to be.
    chiral: Option<PeerId>,
    conversation: Conversation,
    /// What the peer may have of what has a price.
    sales: Sales,
    /// Sales that the peer was forgiven its questions for.
    forgiven: u64,
    /// Since when both sides have everything.
    redundant_since: Option<Now>,
    /// The node of the DHT that is told of those of peers.
    pub(super) dht: Option<MainlineDht>,
}

impl<S: Wire> Connection<S> {
    pub(super) fn new(
        stream: S,
        session: Session,
        started: Instant,
        handle: Arc<PeerHandle>,
        torrent: Arc<Torrent>,
        node: Arc<Shared>,
    ) -> Self {
        let closed = node.closed.child_token();
        let sales = Sales::new(node.gate.clone(), node.tasks.clone());
        Self {
            stream,
            session,
            handle,
            torrent,
            ciphers: None,
            enciphered: BytesMut::new(),
            flow: None,
            node,
            closed,
            started,
            read_size: FIRST_READ,
            reading: None,
            resting_since: None,
            held: None,
            published_at: None,
            coverage_at: None,
            coverage_due: true,
            was_choked: true,
            wanting: false,
            useful_at: Duration::ZERO,
            chiral: None,
            conversation: Conversation::default(),
            sales,
            forgiven: 0,
            redundant_since: None,
            dht: None,
        }
    }

    fn now(&self) -> Now {
        self.started.elapsed()
    }

    /// Runs until it ends.
    pub(super) async fn run(mut self) -> Ended {
        let ended = self.drive().await.err().unwrap_or(Ended::Closed);
        let session = &self.session;
        self.torrent
            .count(session.downloaded().total(), session.uploaded().total());
        self.torrent.leave(self.handle.key);
        self.handle.close(ended.to_string());
        let now = Instant::now().into_std();
        let of_use = ended.may_come_again() && !self.is_redundant();
        self.torrent.known().ended(self.handle.address, of_use, now);
        ended
    }

    async fn drive(&mut self) -> Result<(), Ended> {
        if self.torrent.info().is_none() {
            self.session.fetch_metadata();
        }
        // What came right behind the handshake is there already.
        let now = self.now();
        self.session.handle_input(now)?;
        loop {
            let now = self.now();
            self.obey(now)?;
            self.hear(now)?;
            self.serve(now);
            self.publish(now);
            let rests = self.rests(now);
            let deadline = self.started + self.deadline();
            let Self {
                stream,
                session,
                handle,
                reading,
                closed,
                read_size,
                ciphers,
                enciphered,
                conversation,
                ..
            } = self;
            let move_bytes = std::future::poll_fn(|cx| {
                let wrote = match ciphers {
                    Some(ciphers) => {
                        poll_encipher(stream, session, &mut ciphers.outgoing, enciphered, cx)?
                    }
                    None => poll_write(stream, session, cx)?,
                };
                if rests {
                    return match wrote {
                        true => Poll::Ready(Ok(Some(Moved::Wrote))),
                        false => Poll::Pending,
                    };
                }
                let waiting = !enciphered.is_empty();
                let deciphered = ciphers.as_mut().map(|ciphers| &mut ciphers.incoming);
                poll_read(stream, session, read_size, deciphered, wrote, waiting, cx)
            });
            tokio::select! {
                moved = move_bytes => match moved? {
                    Some(Moved::Read) => {
                        let now = self.now();
                        self.session.handle_input(now)?;
                    }
                    Some(Moved::Wrote) => {
                        let now = self.now();
                        self.session.note_sent(now);
                    }
                    None => return Err(Ended::Closed),
                },
                () = handle.wake.notified() => {}
                (range, bytes) = serve::next(reading), if reading.is_some() => {
                    self.reading = None;
                    self.read(range, bytes);
                }
                reply = conversation.next() => match reply {
                    Reply::Chiral(answer) => {
                        self.session.send_chiral(&answer);
                    }
                    Reply::Hashes(range, hashes) => self.session.answer_hashes(range, hashes),
                },
                () = closed.cancelled() => return Err(Ended::Shutdown),
                () = tokio::time::sleep_until(deadline) => {
                    let now = self.now();
                    if now >= self.session.poll_timeout() {
                        self.session.handle_timeout(now)?;
                    }
                    self.still_used(now)?;
                }
            }
        }
    }

    /// Asks for hashes that the torrent is without, if the peer may have them.
    fn ask_hashes(&mut self, now: Now) {
        let has_some = self
            .session
            .peer_pieces()
            .is_some_and(|have| have.count_ones() > 0);
        while has_some && self.session.may_ask_hashes() {
            let Some(range) = self.torrent.next_hashes(self.handle.key) else {
                break;
            };
            self.session.ask_hashes(now, range);
        }
    }

    /// Whether nothing is read for a moment: what comes faster than it is taken can wait in the
    /// kernel as well as here.
    fn rests(&mut self, now: Now) -> bool {
        if !self.handle.has_enough() {
            self.resting_since = None;
            return false;
        }
        now < *self.resting_since.get_or_insert(now) + LONGEST_REST
    }

    fn deadline(&self) -> Now {
        let mut at = self.session.poll_timeout();
        let now = self.now();
        if let Some(since) = self.resting_since
            && now < since + LONGEST_REST
        {
            at = at.min(since + LONGEST_REST);
        }
        if self.coverage_due {
            at = at.min(self.coverage_at.map_or(now, |at| at + COVERAGE_PAUSE));
        }
        // Rates are looked at, and whether there is a use for the connection.
        at.min(now + Duration::from_secs(1))
    }

    fn still_used(&mut self, now: Now) -> Result<(), Ended> {
        self.session.handle_timeout(now)?;
        if self.wanting || self.torrent.is_used() {
            self.useful_at = now;
        } else if now >= self.useful_at + UNUSED {
            return Err(Ended::Unused);
        }
        if !self.is_redundant() {
            self.redundant_since = None;
        } else if now >= *self.redundant_since.get_or_insert(now) + REDUNDANT {
            return Err(Ended::Redundant);
        }
        Ok(())
    }

    /// Neither side can have anything of the other; what Chiral nodes say to each other is no
    /// matter of pieces.
    fn is_redundant(&self) -> bool {
        let extended = self.session.extended();
        let peer = self.session.peer_pieces();
        let complete = peer.is_some_and(chiral_core::Bitmap::is_full);
        complete && extended.extensions.id(Names::Chiral).is_none() && self.torrent.has_all()
    }

    /// Does what others left to be done.
    fn obey(&mut self, now: Now) -> Result<(), Ended> {
        let (orders, room) = self.handle.take_orders();
        if orders.displaced {
            return Err(Ended::Displaced);
        }
        if orders.banned {
            return Err(Ended::Banned);
        }
        if let Some(info) = self.torrent.info()
            && self.session.geometry().is_none()
        {
            self.session
                .set_geometry(info.geometry, info.metadata.clone())?;
        }
        if let Some(wanting) = orders.wanting {
            self.wanting = wanting;
            self.session.set_wanting(wanting);
        }
        if orders.outdated {
            return Err(Ended::Outdated);
        }
        if orders.look {
            match self.torrent.have() {
                Some(have) if orders.gone => self.hold(&have)?,
                Some(have) => self.session.have_all_of(&have),
                None if orders.gone => self.hold(&chiral_core::Bitmap::new(0))?,
                // It is not known yet.
                None => {}
            }
        }
        if let Some(choking) = orders.choking {
            self.session.set_choking(choking);
        }
        for token in orders.dropped {
            self.session.unwant(now, token);
        }
        self.session.set_room(now, room);
        if let Some(geometry) = self.session.geometry() {
            for (token, range) in orders.fetch {
                self.session.want_all(now, geometry.blocks(range), token);
            }
        }
        for (ask, answer) in orders.questions {
            if let Some(message) = self.conversation.ask(ask, answer) {
                self.session.send_chiral(&message);
            }
        }
        for range in orders.released {
            self.session.send_chiral(&ChiralMessage::Release { range });
        }
        while self.forgiven < self.sales.made() {
            if self.forgiven == 0 {
                // There is a lane for it now.
                self.published_at = None;
                self.torrent.upkeep.notify_one();
            }
            self.forgiven += 1;
            self.session.forgive(MESSAGES_OF_A_SALE);
        }
        for message in orders.punch {
            self.session.send_holepunch(message);
        }
        self.ask_hashes(now);
        if orders.exchange {
            let peers = self.torrent.pex_peers(self.handle.key);
            self.session.exchange_peers(now, &peers);
        }
        Ok(())
    }

    /// Holds these pieces and no others.
    fn hold(&mut self, pieces: &chiral_core::Bitmap) -> Result<(), Ended> {
        match self.session.hold(pieces) {
            true => Ok(()),
            false => Err(Ended::Outdated),
        }
    }

    /// Takes what the session has heard.
    fn hear(&mut self, now: Now) -> Result<(), Ended> {
        let mut blocks = Vec::new();
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Block { block, token, data } => {
                    if let Some(geometry) = self.session.geometry() {
                        let offset = geometry.range(block).start;
                        blocks.push((token, PeerHandle::delivery(offset, data)));
                    }
                }
                Event::Lost { token, .. } => blocks.push((token, self.handle.lost())),
                Event::Available => self.coverage_due = true,
                Event::Interest => {
                    self.published_at = None;
                    self.publish(now);
                    self.torrent.upkeep.notify_one();
                }
                Event::Extended => self.published_at = None,
                Event::Metadata(metadata) => {
                    if !self.torrent.learn_metadata(metadata) {
                        return Err(Ended::Info);
                    }
                    self.handle.look();
                }
                Event::Peers(peers) => {
                    let from = self.handle.address.ip();
                    let dialable = |to: &std::net::SocketAddr| super::dial::may_dial(from, *to);
                    if self.node.config.peer_exchange {
                        let told: Vec<_> = peers
                            .iter()
                            .map(|peer| peer.address)
                            .filter(dialable)
                            .collect();
                        self.torrent.told_by(self.handle.key, &told);
                        self.torrent.suggest(Origin::Exchange, told.into_iter());
                    }
                }
                Event::Holepunch(message) => self.punch(message),
                Event::Proof(proof) => self.recognise(&proof),
                Event::NoMetadata if self.torrent.info().is_none() => return Err(Ended::Info),
                Event::Manifest { question, page } => {
                    let content = self.torrent.content();
                    self.conversation.manifest(question, page, content);
                }
                Event::Payment { question, body } => {
                    self.conversation
                        .payment(question, body, self.node.gate.clone());
                }
                Event::HashRequest(range) => {
                    let torrent = self.torrent.clone();
                    let work = async move { hashes::answer(&torrent, range).await };
                    self.conversation.hashes(range, work);
                }
                Event::Hashes { range, hashes } => {
                    if let Err(error) = self.torrent.hashes_came(self.handle.key, range, &hashes) {
                        tracing::debug!(peer = %self.handle.address, %error, "false hashes");
                        self.torrent.ban(&self.handle);
                        return Err(Ended::Hashes);
                    }
                }
                Event::NoHashes(_) => self.torrent.no_hashes_of(self.handle.key),
                Event::Admit {
                    question,
                    range,
                    credential,
                } => self.admit(question, range, credential),
                Event::Release(range) => self.sales.release(range),
                Event::Tariff { question } => {
                    let tariff = |content: Arc<dyn StoredContent>| {
                        write_tariff(&self.node.gate.tariff(content.header().cid))
                    };
                    let tariff = self.torrent.content().map(tariff);
                    self.conversation.say(question, tariff);
                }
                Event::Answer { question, body } => {
                    if self.conversation.answered(question, body) {
                        self.session.forgive(1);
                    }
                }
                Event::DhtPort(port) => {
                    if let Some(dht) = &self.dht {
                        dht.meet((self.handle.address.ip().to_canonical(), port).into());
                    }
                }
                Event::NoMetadata => {}
            }
        }
        if !blocks.is_empty() {
            self.handle.deliver(blocks.into_iter());
        }
        self.introduce();
        Ok(())
    }

    /// Lets others see how things are, now and then.
    fn publish(&mut self, now: Now) {
        let choked = self.session.is_choked();
        let due = self.coverage_at.is_none_or(|at| now >= at + COVERAGE_PAUSE);
        if self.coverage_due && (due || choked != self.was_choked) {
            (self.coverage_due, self.was_choked) = (false, choked);
            self.coverage_at = Some(now);
            let said = self.session.has_said_pieces() && self.session.geometry().is_some();
            self.handle.publish_coverage(self.session.coverage(), said);
        }
        if self.published_at.is_some_and(|at| now < at + PUBLISH_PAUSE) {
            return;
        }
        self.published_at = Some(now);
        let session = &self.session;
        let extended = session.extended();
        let has_all = session
            .peer_pieces()
            .is_some_and(chiral_core::Bitmap::is_full);
        let mut down = session.downloaded().clone();
        self.handle.publish(Published {
            interested: session.is_peer_interested(),
            gives: down.rate(now),
            gave: down.total(),
            got: session.uploaded().total(),
            snubs: session.is_snubbed(now),
            seed: has_all || extended.upload_only,
            listens_at: session.listens_at(self.handle.address),
            holepunch: extended.extensions.id(Names::Holepunch).is_some(),
            hears_of_gone: extended.extensions.id(Names::DontHave).is_some(),
            chiral: self.chiral.clone(),
            admitted: self.sales.made() > 0,
            speaks_chiral: if session.speaks_extended() {
                session
                    .has_heard_extended()
                    .then(|| extended.extensions.id(Names::Chiral).is_some())
            } else {
                Some(false)
            },
        });
    }
}
