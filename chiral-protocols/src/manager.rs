//! [`ProtocolManager`]: the protocols of a node behind one door.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use chiral_core::content_protocol::SourceStream;
use chiral_core::{
    ChunkSource, ContentProtocol, DownloadRequest, FileIdentification, FileMetadata, PeerOffer,
    Protocol, SeedRequest, TransferError, TransferId, TransferRegistry,
};
use futures_util::StreamExt;

use crate::engine::{Connector, Download, Engine};
use crate::lane;
use crate::peers::Penalty;
use crate::selection::{self, DownloadContext, Reachability, SeedingContext};

/// A protocol that nobody registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("protocol {protocol} is not registered")]
pub struct NotRegistered {
    /// Which.
    pub protocol: Protocol,
}

#[derive(Debug)]
struct State {
    protocols: BTreeMap<Protocol, Arc<dyn ContentProtocol>>,
    active: Protocol,
    /// The active protocol, if somebody chose it.
    preferred: Option<Protocol>,
    seeding: SeedingContext,
    restricted: bool,
}

/// The registered protocols and the engine that draws from all of them.
///
/// The *active* protocol is a preference: it is used for seeding when nothing else is said,
/// and asked first. It does not blind the others; a download uses all of them.
#[derive(Debug, Clone)]
pub struct ProtocolManager {
    engine: Engine,
    state: Arc<Mutex<State>>,
}

impl ProtocolManager {
    /// A manager with one protocol, which is active.
    pub fn new(engine: Engine, initial: Arc<dyn ContentProtocol>) -> Self {
        let active = initial.name();
        let protocols = BTreeMap::from([(active.clone(), initial)]);
        Self {
            engine,
            state: Arc::new(Mutex::new(State {
                protocols,
                active,
                preferred: None,
                seeding: SeedingContext::new(Reachability::Public),
                restricted: false,
            })),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a protocol, or replaces the one of the same name, which is answered.
    pub fn register(&self, protocol: Arc<dyn ContentProtocol>) -> Option<Arc<dyn ContentProtocol>> {
        self.state().protocols.insert(protocol.name(), protocol)
    }

    /// Makes a registered protocol the active one.
    ///
    /// # Errors
    /// [`NotRegistered`].
    pub fn set_protocol(&self, protocol: Protocol) -> Result<(), NotRegistered> {
        let mut state = self.state();
        if !state.protocols.contains_key(&protocol) {
            return Err(NotRegistered { protocol });
        }
        state.preferred = Some(protocol.clone());
        state.active = protocol;
        Ok(())
    }

    /// The active protocol.
    pub fn protocol(&self) -> Protocol {
        self.state().active.clone()
    }

    /// The implementation of the active protocol.
    pub fn protocol_impl(&self) -> Arc<dyn ContentProtocol> {
        let state = self.state();
        // `active` is only ever set to a registered protocol, and none is taken out.
        state.protocols[&state.active].clone()
    }

    /// The implementation of a protocol.
    ///
    /// # Errors
    /// [`NotRegistered`].
    pub fn implementation(
        &self,
        protocol: &Protocol,
    ) -> Result<Arc<dyn ContentProtocol>, NotRegistered> {
        let found = self.state().protocols.get(protocol).cloned();
        found.ok_or_else(|| NotRegistered {
            protocol: protocol.clone(),
        })
    }

    /// All registered protocols, the active one first.
    pub fn protocols(&self) -> Vec<Arc<dyn ContentProtocol>> {
        let state = self.state();
        let mut all: Vec<_> = state.protocols.values().cloned().collect();
        all.sort_by_key(|protocol| protocol.name() != state.active);
        all
    }

    /// Says what the choice of protocols to seed over depends on. Until then the node counts as
    /// reachable at a public address.
    pub fn set_seeding(&self, context: SeedingContext) {
        self.state().seeding = context;
    }

    /// The registered protocols that can seed, the one to seed over by default first; see
    /// [`selection::seeding`].
    pub fn seeding_protocols(&self) -> Vec<Arc<dyn ContentProtocol>> {
        let state = self.state();
        let seed =
            |(_, protocol): &(&Protocol, &Arc<dyn ContentProtocol>)| protocol.capabilities().seed;
        let able: Vec<_> = state.protocols.iter().filter(seed).collect();
        let names: Vec<Protocol> = able.iter().map(|(name, _)| (*name).clone()).collect();
        let mut context = state.seeding.clone();
        context.preference = context.preference.or_else(|| state.preferred.clone());
        let chosen = selection::seeding(&context, &names);
        chosen
            .iter()
            .filter_map(|name| state.protocols.get(name).cloned())
            .collect()
    }

    /// Says whether the network is restricted, as behind a proxy: only what looks like the web
    /// gets through; see [`selection::downloading`]. Until then it counts as open.
    pub fn set_restricted(&self, restricted: bool) {
        self.state().restricted = restricted;
    }

    /// Puts offers in the order in which they are to be connected: by protocol, as
    /// [`selection::downloading`] chooses; then those who are not demoted; of these, those of
    /// peers who say who they are, but for every fourth place, which is the public's as long as
    /// there are others; and then the faster ones, by what was measured. Offers over protocols that are not registered come last. Answers
    /// how many are meant: in a restricted network those of the protocols that were chosen;
    /// the others are left for when these do not deliver.
    pub fn order(&self, target: &FileIdentification, offers: &mut [PeerOffer]) -> usize {
        let peers = self.engine.peers();
        let mut context = DownloadContext::of(offers);
        context.size = context.size.max(target.size());
        let registered: Vec<Protocol> = {
            let state = self.state();
            context.preference = state.preferred.clone();
            context.restricted = state.restricted;
            state.protocols.keys().cloned().collect()
        };
        for protocol in context.seeders.keys() {
            if let Some(rate) = peers.of_protocol(protocol) {
                context.rates.insert(protocol.clone(), rate);
            }
        }
        let chosen = selection::downloading(&context, &registered);
        let meant = |offer: &&PeerOffer| !context.restricted || chosen.contains(&offer.protocol);
        let meant = offers.iter().filter(meant).count();
        let group = |offer: &PeerOffer| {
            let place = chosen
                .iter()
                .position(|protocol| *protocol == offer.protocol);
            let penalty = peers.penalty(offer, target).map(|penalty| penalty.kind);
            (place.unwrap_or(chosen.len()), penalty)
        };
        let key = |offer: &PeerOffer| (group(offer), Reverse(peers.expected(offer)));
        let mut keyed: Vec<_> = offers
            .iter()
            .map(|offer| (key(offer), offer.clone()))
            .collect();
        keyed.sort_by_key(|(key, _)| *key);
        let mut at = 0;
        for alike in keyed.chunk_by(|((one, _), _), ((other, _), _)| one == other) {
            let alike = alike.iter().map(|(_, offer)| offer.clone()).collect();
            for offer in lane::order(alike, |offer: &PeerOffer| offer.peer.is_some()) {
                offers[at] = offer;
                at += 1;
            }
        }
        meant
    }

    /// Peers that are demoted or banned, with reasons and ends: bans first.
    pub fn penalties(&self) -> Vec<Penalty> {
        self.engine.peers().penalties()
    }

    /// Takes back the penalties on a peer, by its id, or on a place, by its endpoint; answers
    /// how many.
    pub fn clear_penalty(&self, who: &str) -> usize {
        self.engine.peers().clear(who)
    }

    /// Takes all penalties back; answers how many.
    pub fn clear_penalties(&self) -> usize {
        self.engine.peers().clear_all()
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The transfers under way.
    pub fn registry(&self) -> &TransferRegistry {
        self.engine.registry()
    }

    /// Peers that any protocol knows by its own means to serve the content, those of the
    /// active protocol first. A protocol that fails is passed over.
    pub async fn peers_serving(&self, target: &FileIdentification) -> Vec<PeerOffer> {
        let mut offers = Vec::new();
        for protocol in self.protocols() {
            match protocol.peers_serving(target).await {
                Ok(found) => offers.extend(found),
                Err(error) => {
                    tracing::debug!(protocol = %protocol.name(), %error, "cannot list peers");
                }
            }
        }
        offers
    }

    /// Begins a download from the offers of the request and from every peer that the
    /// protocols find, over all of them at once. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// [`TransferError::Registry`] if the same content is being downloaded already.
    pub async fn download_file(
        &self,
        id: TransferId,
        mut request: DownloadRequest,
    ) -> Result<Download, TransferError> {
        let found = self.peers_serving(&request.target).await;
        for offer in found {
            let same = |other: &PeerOffer| {
                other.protocol == offer.protocol && other.endpoint == offer.endpoint
            };
            if !request.offers.iter().any(same) {
                request.offers.push(offer);
            }
        }
        self.engine.download(id, request, Arc::new(self.clone()))
    }

    /// Seeds over the active protocol.
    pub async fn upload_file(&self, request: SeedRequest) -> Result<FileMetadata, TransferError> {
        self.protocol_impl().start_seeding(request).await
    }

    /// Stops seeding over every protocol; true if any did.
    ///
    /// # Errors
    /// That of the first protocol that fails, after all have been asked.
    pub async fn stop_sharing(&self, target: &FileIdentification) -> Result<bool, TransferError> {
        let mut any = false;
        let mut failed = None;
        for protocol in self.protocols() {
            match protocol.stop_seeding(target).await {
                Ok(stopped) => any |= stopped,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(any), Err)
    }

    /// Pauses the download of this content; true if one was running.
    pub fn pause_download(&self, target: &FileIdentification) -> bool {
        self.registry()
            .find(target)
            .is_some_and(|transfer| transfer.pause())
    }

    /// Resumes it; true if one was paused.
    pub fn resume_download(&self, target: &FileIdentification) -> bool {
        self.registry()
            .find(target)
            .is_some_and(|transfer| transfer.resume())
    }

    /// Cancels it; true if one was under way.
    pub fn cancel_download(&self, target: &FileIdentification) -> bool {
        self.registry()
            .find(target)
            .is_some_and(|transfer| transfer.cancel())
    }

    /// Cancels what is under way, waits for it to end, and shuts every protocol down;
    /// idempotent.
    ///
    /// # Errors
    /// That of the first protocol that fails, after all have been shut down.
    pub async fn cleanup(&self) -> Result<(), TransferError> {
        for transfer in self.registry().transfers() {
            transfer.cancel();
            transfer.ended().await;
        }
        let mut failed = None;
        for protocol in self.protocols() {
            if let Err(error) = protocol.shutdown().await {
                failed = failed.or(Some(error));
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

#[async_trait]
impl Connector for ProtocolManager {
    async fn connect(
        &self,
        offer: &PeerOffer,
        target: &FileIdentification,
    ) -> Result<Arc<dyn ChunkSource>, TransferError> {
        let protocol =
            self.implementation(&offer.protocol)
                .map_err(|missing| TransferError::Unsupported {
                    protocol: missing.protocol,
                    operation: "this build: the protocol is not registered",
                })?;
        protocol.connect(offer, target).await
    }

    async fn arrivals(&self, target: &FileIdentification) -> SourceStream {
        let mut streams = Vec::new();
        for protocol in self.protocols() {
            match protocol.sources(target).await {
                Ok(stream) => streams.push(stream),
                Err(error) => {
                    tracing::debug!(protocol = %protocol.name(), %error, "cannot wait for peers");
                }
            }
        }
        Box::pin(futures_util::stream::select_all(
            streams.into_iter().map(StreamExt::fuse),
        ))
    }

    fn order(&self, target: &FileIdentification, offers: &mut [PeerOffer]) -> usize {
        Self::order(self, target, offers)
    }
}
