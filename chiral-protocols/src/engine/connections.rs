//! Connecting to those who offer, again if it fails, and to those who arrive.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use chiral_core::content_protocol::SourceStream;
use chiral_core::{
    ChunkSource, DownloadRequest, Endpoint, FileIdentification, PeerOffer, TransferError,
};
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::lookout::Lookout;
use super::places::Places;
use super::source::Connected;
use super::{Connector, EngineConfig};
use crate::peers::PeerBook;
use crate::scheduler::SourceId;

/// First pause before another attempt; doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Attempts at one offer before it is given up.
const MAX_ATTEMPTS: u32 = 12;

/// Attempts that a source which was lost counts as having had: it is not called back at once.
const AFTER_LOSS: u32 = 2;

/// Most offers that are considered for one download.
const MAX_OFFERS: usize = 4096;

type Attempt = (SourceId, PeerOffer, u32, Result<Connected, TransferError>);

/// What came of connecting.
#[derive(Debug)]
pub(super) enum Arrival {
    /// A source is ready.
    Up(SourceId, Box<Connected>),
    /// An attempt failed; another follows unless `given_up`.
    Failed {
        endpoint: Endpoint,
        error: TransferError,
        given_up: bool,
    },
}

/// All connections of one download that are being made.
pub(super) struct Connections {
    connector: Arc<dyn Connector>,
    target: FileIdentification,
    limit: Duration,
    peers: PeerBook,
    attempts: JoinSet<Attempt>,
    /// Offers over what may be connected at once: each has its chance when another is given up.
    reserve: VecDeque<PeerOffer>,
    /// Offers that are not to be used while others deliver.
    last_resort: VecDeque<PeerOffer>,
    /// Who was put out, here or by another download.
    banned: Vec<PeerOffer>,
    /// Changes when penalties are taken back.
    cleared: watch::Receiver<u64>,
    /// Sources that came up and were neither put out nor turned away.
    up: usize,
    arrivals: Option<SourceStream>,
    lookout: Lookout,
    /// How many may be tried or up at once.
    most: usize,
    /// Where it is, or was, connected to. Whoever was put out does not come back by the
    /// directory, unless that is taken back; whoever could not be reached may.
    places: Places,
    next: u32,
    /// Offers whose first attempt is not over.
    fresh: usize,
}

impl Connections {
    pub(super) async fn new(
        connector: Arc<dyn Connector>,
        request: &DownloadRequest,
        config: &EngineConfig,
        peers: PeerBook,
    ) -> Self {
        let target = request.target;
        let (directory, asked) = (request.directory.clone(), request.asked_directory);
        let arrivals = connector.arrivals(&target).await;
        let mut connections = Self {
            connector,
            target,
            limit: config.request_timeout,
            cleared: peers.cleared(),
            peers,
            attempts: JoinSet::new(),
            reserve: VecDeque::new(),
            last_resort: VecDeque::new(),
            banned: Vec::new(),
            up: 0,
            arrivals: Some(arrivals),
            lookout: Lookout::new(directory, target, config.look_again, asked),
            most: config.max_sources,
            places: Places::default(),
            next: 0,
            fresh: 0,
        };
        connections.add(request.offers.clone());
        connections
    }

    /// Connects to those who are not connected to yet, as far as there is room and in the
    /// order that the connector wishes; others wait until somebody is given up.
    fn add(&mut self, offers: Vec<PeerOffer>) {
        let waiting = self.reserve.drain(..).chain(self.last_resort.drain(..));
        let mut waiting: Vec<PeerOffer> = waiting.collect();
        for offer in offers {
            if self.places.len() < MAX_OFFERS && self.places.claim(&offer) {
                waiting.push(offer);
            }
        }
        let meant = self.connector.order(&self.target, &mut waiting);
        self.last_resort = waiting.split_off(meant.min(waiting.len())).into();
        self.reserve = waiting.into();
        self.fill();
    }

    /// Tries as many of those who offer as there is room for.
    fn fill(&mut self) {
        if self.reserve.is_empty() && self.fresh == 0 && self.up == 0 {
            self.reserve.append(&mut self.last_resort);
        }
        while self.attempts.len() + self.up < self.most
            && let Some(offer) = self.reserve.pop_front()
        {
            let id = self.id();
            self.fresh += 1;
            self.attempt(id, offer, 0);
        }
    }

    /// Those who were to be used do not deliver: the others are used as well.
    pub(super) fn use_last_resort(&mut self) {
        self.reserve.append(&mut self.last_resort);
        self.fill();
    }

    /// A source that was up is put out: there is room for another.
    pub(super) fn put_out(&mut self, offer: &PeerOffer) {
        self.up = self.up.saturating_sub(1);
        self.note_banned(offer);
        self.fill();
    }

    /// A source that came up is not wanted: there are enough.
    pub(super) fn turn_away(&mut self) {
        self.up = self.up.saturating_sub(1);
    }

    fn note_banned(&mut self, offer: &PeerOffer) {
        let same = |other: &PeerOffer| {
            (&other.protocol, &other.endpoint, &other.peer)
                == (&offer.protocol, &offer.endpoint, &offer.peer)
        };
        if self.banned.len() < MAX_OFFERS && !self.banned.iter().any(same) {
            self.banned.push(offer.clone());
        }
    }

    /// Bans were taken back: connects again to those whom nothing is held against any more.
    fn pardon(&mut self) {
        let (free, banned): (Vec<_>, Vec<_>) = std::mem::take(&mut self.banned)
            .into_iter()
            .partition(|offer| self.peers.check(offer, &self.target).is_ok());
        self.banned = banned;
        free.iter().for_each(|offer| self.places.release(offer));
        self.add(free);
    }

    /// A source of this offer is gone: it is connected to again, if it ever was by us.
    pub(super) fn again(&mut self, offer: PeerOffer) {
        if self.places.holds(&offer) {
            let id = self.id();
            self.attempt(id, offer, AFTER_LOSS);
        }
        self.up = self.up.saturating_sub(1);
        self.fill();
    }

    fn id(&mut self) -> SourceId {
        self.next += 1;
        SourceId(self.next - 1)
    }

    fn attempt(&mut self, id: SourceId, offer: PeerOffer, tried: u32) {
        let (connector, target, limit) = (self.connector.clone(), self.target, self.limit);
        let peers = self.peers.clone();
        self.attempts.spawn(async move {
            if tried > 0 {
                tokio::time::sleep((FIRST_PAUSE * 2u32.pow(tried.min(8) - 1)).min(MAX_PAUSE)).await;
            }
            let connecting = async {
                peers.check(&offer, &target)?;
                let source = connector.connect(&offer, &target).await?;
                Connected::introduce(source, &target, limit).await
            };
            let result = match tokio::time::timeout(limit * 2, connecting).await {
                Ok(result) => result,
                Err(_) => Err(TransferError::Timeout {
                    source_name: offer.endpoint.as_str().to_owned(),
                }),
            };
            (id, offer, tried, result)
        });
    }

    fn introduce(&mut self, source: Arc<dyn ChunkSource>) {
        let (id, target, limit) = (self.id(), self.target, self.limit);
        let peers = self.peers.clone();
        self.attempts.spawn(async move {
            let offer = source.offer().clone();
            let result = match peers.check(&offer, &target) {
                Ok(()) => Connected::introduce(source, &target, limit).await,
                Err(banned) => Err(banned),
            };
            // One that arrived by itself cannot be called back: its only attempt.
            (id, offer, MAX_ATTEMPTS, result)
        });
    }

    /// Whether every offer has been tried once.
    pub(super) fn all_tried(&self) -> bool {
        self.fresh == 0 && !self.lookout.is_first()
    }

    /// Whether nobody else can come: no attempt is under way and nobody arrives.
    pub(super) fn exhausted(&self) -> bool {
        self.attempts.is_empty()
            && self.reserve.is_empty()
            && self.last_resort.is_empty()
            && self.arrivals.is_none()
            && !self.lookout.is_first()
    }

    /// The next thing that comes of connecting; pending for ever when nothing can.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub(super) async fn next(&mut self) -> Arrival {
        loop {
            tokio::select! {
                Some(joined) = self.attempts.join_next(), if !self.attempts.is_empty() => {
                    // A panic in a protocol costs its source, not the download.
                    let Ok((id, offer, tried, result)) = joined else { continue };
                    if tried == 0 {
                        self.fresh = self.fresh.saturating_sub(1);
                    }
                    match result {
                        Ok(connected) => {
                            self.up += 1;
                            return Arrival::Up(id, Box::new(connected));
                        }
                        Err(error) => {
                            let given_up = tried >= MAX_ATTEMPTS || !error.is_retryable();
                            if matches!(error, TransferError::Banned { .. }) {
                                self.note_banned(&offer);
                            }
                            if given_up {
                                self.places.release(&offer);
                            } else {
                                self.attempt(id, offer.clone(), tried + 1);
                            }
                            self.fill();
                            let endpoint = offer.endpoint;
                            return Arrival::Failed { endpoint, error, given_up };
                        }
                    }
                }
                arrived = next_of(&mut self.arrivals), if self.arrivals.is_some() => match arrived {
                    Some(source) => self.introduce(source),
                    None => self.arrivals = None,
                },
                offers = self.lookout.next() => self.add(offers),
                // The book of peers is held here as well, so that this never ends.
                Ok(()) = self.cleared.changed() => self.pardon(),
            }
        }
    }
}

async fn next_of(stream: &mut Option<SourceStream>) -> Option<Arc<dyn ChunkSource>> {
    match stream {
        Some(stream) => stream.next().await,
        None => None,
    }
}
