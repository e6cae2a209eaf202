//! What a node is doing, for people and programs.

use chiral_core::transfer::{Progress, TransferState};
use chiral_core::{Cid, Endpoint, Priority, Protocol, Rate, TransferId};
use chiral_protocols::Penalty;
use serde::Serialize;

use crate::{Node, NodeError};

/// A protocol of a node.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ProtocolStatus {
    /// Which.
    pub protocol: Protocol,
    /// Whether it is the preferred one.
    pub active: bool,
    /// Where it serves; empty if it only fetches.
    pub endpoints: Vec<String>,
}

/// A transfer under way.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct TransferStatus {
    /// Its id.
    pub transfer: TransferId,
    /// What it gets.
    pub target: String,
    /// What it is doing.
    pub state: TransferState,
    /// How much it matters beside others.
    pub priority: Priority,
    /// The limit on what it receives, in bytes per second.
    pub limit_down: Option<Rate>,
    /// How far it is.
    pub progress: Progress,
}

/// A peer that is demoted or banned, or a place where somebody serves.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct PenaltyStatus {
    /// `demoted` or `banned`.
    pub kind: &'static str,
    /// Who, if known.
    pub peer: Option<String>,
    /// Over what.
    pub protocol: Protocol,
    /// Where.
    pub endpoint: String,
    /// Of a mirror, the file that it has a bad copy of.
    pub content: Option<Cid>,
    /// What it did.
    pub reason: String,
    /// Since when, in seconds since 1970 (UTC).
    pub since: u64,
    /// Until when, in seconds since 1970 (UTC).
    pub until: u64,
}

impl From<&Penalty> for PenaltyStatus {
    fn from(penalty: &Penalty) -> Self {
        Self {
            kind: penalty.kind.as_str(),
            peer: penalty.peer.as_ref().map(ToString::to_string),
            protocol: penalty.protocol.clone(),
            endpoint: penalty.endpoint.to_string(),
            content: penalty.content,
            reason: penalty.reason.clone(),
            since: penalty.since.as_secs(),
            until: penalty.until.as_secs(),
        }
    }
}

/// What a node is doing.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct NodeStatus {
    /// Its identity, if it has one.
    pub peer: Option<String>,
    /// Its protocols, the preferred one first.
    pub protocols: Vec<ProtocolStatus>,
    /// Links of the complete objects that are kept for sharing.
    pub shared: Vec<String>,
    /// Transfers under way.
    pub transfers: Vec<TransferStatus>,
    /// How many downloads work at once.
    pub max_downloads: Option<usize>,
    /// The limit on what all downloads receive together, in bytes per second.
    pub limit_down: Option<Rate>,
    /// The limit on what is served, in bytes per second.
    pub limit_up: Option<Rate>,
    /// Peers that are demoted or banned: bans first.
    pub penalties: Vec<PenaltyStatus>,
    /// Downloads that were begun and are not complete, under way or not.
    pub partial: usize,
}

pub(crate) async fn status(node: &Node) -> Result<NodeStatus, NodeError> {
    let active = node.manager().protocol();
    let endpoints = |list: Vec<Endpoint>| list.iter().map(ToString::to_string).collect();
    let protocols = node
        .manager()
        .protocols()
        .iter()
        .map(|protocol| ProtocolStatus {
            protocol: protocol.name(),
            active: protocol.name() == active,
            endpoints: endpoints(protocol.endpoints()),
        })
        .collect();
    let downloads = node.downloads();
    let transfers = node
        .registry()
        .transfers()
        .iter()
        .map(|transfer| TransferStatus {
            transfer: transfer.id(),
            target: transfer.target().to_string(),
            state: transfer.state(),
            priority: downloads.priority(transfer.id()).unwrap_or_default(),
            limit_down: downloads.download_limit(transfer.id()),
            progress: transfer.progress(),
        })
        .collect();
    let objects = node.store().objects().await?;
    let shared = objects.iter().filter(|object| !object.pins.is_empty());
    Ok(NodeStatus {
        peer: node.peer_id().map(ToString::to_string),
        protocols,
        shared: shared
            .map(|object| object.header.link().to_string())
            .collect(),
        transfers,
        max_downloads: downloads.max(),
        limit_down: downloads.limit(),
        limit_up: node.uploads().limit(),
        penalties: node.peers().penalties().iter().map(Into::into).collect(),
        partial: node.store().partials().await?.len(),
    })
}
