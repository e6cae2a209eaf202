//! What a node is doing, for people and programs.

use chiral_core::transfer::{Progress, TransferState};
use chiral_core::{Endpoint, Protocol, TransferId};
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
    /// How far it is.
    pub progress: Progress,
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
    let transfers = node
        .registry()
        .transfers()
        .iter()
        .map(|transfer| TransferStatus {
            transfer: transfer.id(),
            target: transfer.target().to_string(),
            state: transfer.state(),
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
        partial: node.store().partials().await?.len(),
    })
}
