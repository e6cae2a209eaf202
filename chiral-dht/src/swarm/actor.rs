//! The task that owns the swarm: what happens there, and what the node asks of it.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use libp2p::core::ConnectedPoint;
use libp2p::core::transport::ListenerId;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, gossipsub, identify, kad};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::KAD_PROTOCOL;
use super::address_policy::AddressPolicy;
use super::admission;
use super::behaviour::{Behaviour, BehaviourEvent};
use super::data_dir::PeerStore;
use super::error::Libp2pError;
use super::handle::{Command, Handle, Status};
use entrance::Entrance;
use queries::Queries;
use topics::Topics;

mod entrance;
mod queries;
mod refresh;
mod topics;

/// How often time is looked at.
const TICK: Duration = Duration::from_millis(200);

/// How often seen peers are written to disk, if they changed.
const SAVE_EVERY: Duration = Duration::from_secs(30);

/// How long closing the connections may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long binding an address may take.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Limit on the addresses that are taken from one peer.
const MAX_PEER_ADDRESSES: usize = 8;

/// Dials whose outcome somebody waits for.
const MAX_DIALS: usize = 256;

pub(super) struct Actor {
    swarm: Swarm<Behaviour>,
    commands: mpsc::Receiver<Command>,
    status: watch::Sender<Status>,
    handle: Handle,
    policy: AddressPolicy,
    peers: PeerStore,
    entrance: Entrance,
    queries: Queries,
    topics: Topics,
    listeners: Vec<ListenerId>,
    dials: HashMap<ConnectionId, oneshot::Sender<Result<PeerId, String>>>,
    saved: Instant,
}

impl Actor {
    pub(super) fn new(
        swarm: Swarm<Behaviour>,
        policy: AddressPolicy,
        bootstrap: Vec<Multiaddr>,
        directory: Option<&Path>,
        handle: Handle,
        (commands, status): (mpsc::Receiver<Command>, watch::Sender<Status>),
    ) -> Result<Self, Libp2pError> {
        Ok(Self {
            swarm,
            commands,
            status,
            handle,
            policy,
            peers: PeerStore::open(directory)?,
            entrance: Entrance::new(bootstrap),
            queries: Queries::default(),
            topics: Topics::default(),
            listeners: Vec::new(),
            dials: HashMap::new(),
            saved: Instant::now(),
        })
    }

    /// Listens on all of these addresses, and waits until it does.
    pub(super) async fn listen(&mut self, addresses: &[Multiaddr]) -> Result<(), Libp2pError> {
        for address in addresses {
            let failed = |source| Libp2pError::Listen {
                address: address.clone(),
                source,
            };
            let listener = self
                .swarm
                .listen_on(address.clone())
                .map_err(|error| failed(error.into()))?;
            self.listeners.push(listener);
            let bound = async {
                loop {
                    let event = self.swarm.select_next_some().await;
                    match &event {
                        SwarmEvent::NewListenAddr { listener_id, .. }
                            if *listener_id == listener =>
                        {
                            self.on_event(event);
                            return Ok(());
                        }
                        SwarmEvent::ListenerClosed {
                            listener_id,
                            reason: Err(error),
                            ..
                        } if *listener_id == listener => return Err(error.to_string().into()),
                        _ => self.on_event(event),
                    }
                }
            };
            match timeout(LISTEN_TIMEOUT, bound).await {
                Ok(bound) => bound.map_err(failed)?,
                Err(error) => return Err(failed(error.into())),
            }
        }
        Ok(())
    }

    /// Whether peers of an earlier run are known.
    pub(super) fn remembers_peers(&self) -> bool {
        self.peers.iter().next().is_some()
    }

    /// Runs until the node is stopped; then closes everything.
    pub(super) async fn run(mut self) {
        // However this ends, whoever waits for the end is told.
        let _ended = self.handle.ended.clone().drop_guard();
        let stop = self.handle.stop.clone();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.update_status();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => self.tick(),
                event = self.swarm.select_next_some() => self.on_event(event),
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => break,
                },
            }
        }
        self.close().await;
    }

    async fn close(mut self) {
        stop_taking(&self.handle, &mut self.commands);
        self.topics = Topics::default();
        let connected: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in connected {
            // The error says that it is gone already.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        // Their ports are free when this returns.
        for listener in std::mem::take(&mut self.listeners) {
            self.swarm.remove_listener(listener);
        }
        let deadline = tokio::time::sleep(CLOSE_TIMEOUT);
        tokio::pin!(deadline);
        while self.swarm.network_info().num_peers() > 0 || self.swarm.listeners().next().is_some() {
            tokio::select! {
                () = &mut deadline => break,
                _ = self.swarm.select_next_some() => {}
            }
        }
        self.save().await;
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.queries.tick(&mut self.swarm.behaviour_mut().kad, now);
        self.topics.tick(&mut self.swarm.behaviour_mut().gossipsub);
        self.update_status();
        let known = self.status.borrow().known;
        let connected = self.swarm.network_info().num_peers();
        for opts in self.entrance.tick(now, known, connected, &self.peers) {
            self.dial(opts);
        }
        if now.duration_since(self.saved) >= SAVE_EVERY {
            self.saved = now;
            if let Some(unsaved) = self.peers.unsaved() {
                tokio::task::spawn_blocking(move || log_failure(unsaved.save()));
            }
        }
    }

    async fn save(&mut self) {
        if let Some(unsaved) = self.peers.unsaved() {
            let saved = tokio::task::spawn_blocking(move || log_failure(unsaved.save())).await;
            if let Err(error) = saved {
                tracing::warn!(%error, "seen peers were not written");
            }
        }
    }

    fn dial(&mut self, opts: DialOpts) {
        if let Err(error) = self.swarm.dial(opts) {
            tracing::debug!(%error, "not dialled");
        }
    }

    fn update_status(&mut self) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        let known = kad.kbuckets().map(|bucket| bucket.num_entries()).sum();
        let listen: Vec<Multiaddr> = self.swarm.listeners().cloned().collect();
        let announced = self.swarm.external_addresses().cloned().collect();
        let new = Status {
            known,
            listen,
            announced,
        };
        self.status.send_if_modified(|status| {
            let changed = *status != new;
            *status = new;
            changed
        });
    }

    fn on_command(&mut self, command: Command) {
        let behaviour = self.swarm.behaviour_mut();
        match command {
            Command::Connected(reply) => {
                let _ = reply.send(self.swarm.connected_peers().copied().collect());
            }
            Command::Dial(address, reply) => self.dial_for(address, reply),
            Command::Open(peer, request) => behaviour.streams.open(peer, request),
            Command::Find(peer, reply) => {
                let mut known = self.peers.addresses(&peer);
                known.retain(|address| self.policy.allows(address));
                self.queries.find(&mut behaviour.kad, peer, known, reply);
            }
            Command::Publish(topic, message, reply) => {
                topics::publish(&mut behaviour.gossipsub, &topic, message);
                let _ = reply.send(());
            }
            Command::Subscribe(topic, reply) => {
                let receiver = self.topics.subscribe(&mut behaviour.gossipsub, &topic);
                let _ = reply.send(receiver);
            }
            Command::Get(key, reply) => self.queries.get(&mut behaviour.kad, key, reply),
            Command::Put(key, value, reply) => {
                self.queries.put(&mut behaviour.kad, key, value, reply);
            }
            Command::Provide(key, reply) => self.queries.provide(&mut behaviour.kad, key, reply),
            Command::StopProviding(key) => behaviour.kad.stop_providing(&key),
            Command::Providers(key, reply) => {
                self.queries.providers(&mut behaviour.kad, key, reply);
            }
        }
    }

    fn dial_for(&mut self, address: Multiaddr, reply: oneshot::Sender<Result<PeerId, String>>) {
        let opts = DialOpts::from(address);
        if let Some(peer) = opts.get_peer_id()
            && self.swarm.is_connected(&peer)
        {
            let _ = reply.send(Ok(peer));
            return;
        }
        self.dials.retain(|_, reply| !reply.is_closed());
        if self.dials.len() >= MAX_DIALS {
            let _ = reply.send(Err("too many dials at once".into()));
            return;
        }
        let connection = opts.connection_id();
        match self.swarm.dial(opts) {
            Ok(()) => {
                self.dials.insert(connection, reply);
            }
            Err(error) => {
                let _ = reply.send(Err(error.to_string()));
            }
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            SwarmEvent::NewListenAddr { address, .. } => {
                if self.policy.allows(&address) {
                    self.swarm.add_external_address(address);
                }
                self.update_status();
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.swarm.remove_external_address(&address);
                self.update_status();
            }
            SwarmEvent::ListenerClosed {
                addresses, reason, ..
            } => {
                tracing::warn!(?addresses, ?reason, "a listener is closed");
                for address in addresses {
                    self.swarm.remove_external_address(&address);
                }
                self.update_status();
            }
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => {
                tracing::debug!(peer = %peer_id, address = %remote(&endpoint), "connected");
                if let Some(reply) = self.dials.remove(&connection_id) {
                    let _ = reply.send(Ok(peer_id));
                }
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                error,
                ..
            } => {
                tracing::debug!(%error, "no connection");
                if let Some(reply) = self.dials.remove(&connection_id) {
                    let _ = reply.send(Err(error.to_string()));
                }
            }
            _ => {}
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                self.identified(peer_id, &info);
            }
            BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
                id, result, step, ..
            }) => {
                if matches!(result, kad::QueryResult::Bootstrap(_)) {
                    refresh::progressed(&mut self.swarm.behaviour_mut().kad, id);
                } else {
                    self.queries.progressed(id, result, step.last);
                }
            }
            BehaviourEvent::Kad(kad::Event::RoutingUpdated { .. }) => self.update_status(),
            BehaviourEvent::Gossipsub(gossipsub::Event::Message { message, .. }) => {
                self.topics.heard(message);
            }
            _ => {}
        }
    }

    /// A peer said who it is: a node of the directory is admitted to the routing table, at
    /// those of its addresses that may be dialled.
    fn identified(&mut self, peer: PeerId, info: &identify::Info) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        if !info.protocols.iter().any(|name| *name == KAD_PROTOCOL) {
            kad.remove_peer(&peer);
            return;
        }
        let addresses: Vec<Multiaddr> = info
            .listen_addrs
            .iter()
            .filter(|address| self.policy.allows(address))
            .take(MAX_PEER_ADDRESSES)
            .cloned()
            .collect();
        if !admission::has_place(kad, &peer, &addresses) {
            tracing::debug!(%peer, "too many peers of one network in its bucket");
            return;
        }
        for address in &addresses {
            kad.add_address(&peer, address.clone());
        }
        if !addresses.is_empty() {
            admission::forget_others(kad, &peer, &addresses);
            self.peers.seen(peer, addresses);
        }
        self.update_status();
    }
}

/// Ends what depends on the node without the swarm's help.
fn stop_taking(handle: &Handle, commands: &mut mpsc::Receiver<Command>) {
    handle.stop.cancel();
    handle.registry.close();
    commands.close();
}

fn remote(endpoint: &ConnectedPoint) -> &Multiaddr {
    endpoint.get_remote_address()
}

fn log_failure(result: Result<(), Libp2pError>) {
    if let Err(error) = result {
        tracing::warn!(%error, "seen peers were not written");
    }
}

/// A dial of a peer at addresses that we know, unless it is connected or being dialled.
fn dial_at(peer: PeerId, addresses: Vec<Multiaddr>) -> DialOpts {
    DialOpts::peer_id(peer)
        .condition(PeerCondition::DisconnectedAndNotDialing)
        .addresses(addresses)
        .build()
}
