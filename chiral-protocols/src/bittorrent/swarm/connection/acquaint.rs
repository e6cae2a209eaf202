//! Who the peer is, and whom else it knows: proofs between Chiral nodes, and holepunching.

use std::sync::Arc;

use super::Connection;
use crate::bittorrent::extension::{ChiralMessage, Holepunch, Proof, Statement};
use crate::bittorrent::swarm::dial::may_dial;
use crate::bittorrent::swarm::greet::Wire;
use crate::bittorrent::swarm::handle::PeerHandle;

impl<S: Wire> Connection<S> {
    /// Proves to a Chiral node who we are, once.
    pub(super) fn introduce(&mut self) {
        let Some(signer) = &self.node.signer else {
            return;
        };
        let Some((ours, theirs)) = self.session.proof_due() else {
            return;
        };
        let statement = Statement {
            signer: &ours,
            signer_id: self.node.peer_id.0,
            verifier: &theirs,
            verifier_id: self.session.handshake().peer_id,
            info_hash: self.session.handshake().info_hash,
        };
        match statement.sign(&**signer) {
            Ok(proof) => {
                self.session.send_chiral(&ChiralMessage::Proof(proof));
            }
            Err(error) => tracing::debug!(%error, "not introduced"),
        }
    }

    /// The peer showed who it is.
    pub(super) fn recognise(&mut self, proof: &Proof) {
        let Some((ours, theirs)) = self.session.greetings() else {
            return;
        };
        let statement = Statement {
            signer: theirs,
            signer_id: self.session.handshake().peer_id,
            verifier: ours,
            verifier_id: self.node.peer_id.0,
            info_hash: self.session.handshake().info_hash,
        };
        match statement.check(proof) {
            Ok(()) => {
                tracing::debug!(peer = %theirs.peer, "recognised");
                self.chiral = Some(theirs.peer.clone());
                self.published_at = None;
                self.torrent.upkeep.notify_one();
            }
            Err(error) => tracing::debug!(%error, peer = %self.handle.address, "not recognised"),
        }
    }

    /// Brings two peers together, or dials one that another brought together with us.
    pub(super) fn punch(&mut self, message: Holepunch) {
        let from = self.handle.place().unwrap_or(self.handle.address);
        match message {
            Holepunch::Rendezvous(to) => {
                let peers = self.torrent.peers();
                let is = |peer: &Arc<PeerHandle>, at| {
                    peer.address == at || peer.published().listens_at == Some(at)
                };
                let known = |at| {
                    let peer = peers.iter().find(|peer| is(peer, at))?;
                    Some(peer.published().holepunch)
                };
                let me = |at| self.node.listens_at(at);
                match Holepunch::relay(from, to, me, known) {
                    Ok((back, on)) => {
                        if let Some(peer) = peers.iter().find(|peer| is(peer, to)) {
                            peer.punch(on);
                        }
                        self.session.send_holepunch(back);
                    }
                    Err(refusal) => {
                        self.session.send_holepunch(refusal);
                    }
                }
            }
            Holepunch::Connect(to) => {
                if may_dial(self.handle.address.ip(), to) {
                    self.torrent.meet(to);
                }
            }
            Holepunch::Error(to, error) => tracing::debug!(%to, ?error, "not brought together"),
        }
    }
}
