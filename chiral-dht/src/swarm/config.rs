//! [`Libp2pConfig`]: the settings of a node.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chiral_core::WalletSigner;
use libp2p::Multiaddr;
use libp2p::identity::Keypair;

use super::address_policy::AddressPolicy;
use super::error::Libp2pError;

/// Limit on the addresses that a node listens on, starts from, or announces; each.
pub const MAX_ADDRESSES: usize = 64;

/// Limits on connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionLimits {
    /// Connections that others made to us.
    pub incoming: u32,
    /// Connections that we made.
    pub outgoing: u32,
    /// Connections of others that are being negotiated.
    pub pending_incoming: u32,
    /// Connections to one peer.
    pub per_peer: u32,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            incoming: 512,
            outgoing: 512,
            pending_incoming: 128,
            per_peer: 4,
        }
    }
}

/// The settings of a [`Libp2pNode`](super::Libp2pNode).
///
/// By default a node listens nowhere, knows nobody, forgets its identity when it ends,
/// answers the directory's questions of others (server mode), and dials and announces global
/// addresses only.
#[derive(Clone)]
pub struct Libp2pConfig {
    pub(super) listen: Vec<Multiaddr>,
    pub(super) external: Vec<Multiaddr>,
    pub(super) bootstrap: Vec<Multiaddr>,
    pub(super) key: Option<Keypair>,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) wallet: Option<Arc<dyn WalletSigner>>,
    pub(super) policy: AddressPolicy,
    pub(super) server: bool,
    pub(super) lifetime: Duration,
    pub(super) republish: Duration,
    pub(super) idle: Duration,
    pub(super) limits: ConnectionLimits,
}

impl fmt::Debug for Libp2pConfig {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Libp2pConfig")
            .field("listen", &self.listen)
            .field("external", &self.external)
            .field("bootstrap", &self.bootstrap)
            .field("data_dir", &self.data_dir)
            .field("wallet", &self.wallet)
            .field("policy", &self.policy)
            .field("server", &self.server)
            .field("lifetime", &self.lifetime)
            .field("republish", &self.republish)
            .field("idle", &self.idle)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Default for Libp2pConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl Libp2pConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self {
            listen: Vec::new(),
            external: Vec::new(),
            bootstrap: Vec::new(),
            key: None,
            data_dir: None,
            wallet: None,
            policy: AddressPolicy::GLOBAL,
            server: true,
            lifetime: Duration::from_secs(60 * 60),
            republish: Duration::from_secs(25 * 60),
            idle: Duration::from_secs(5 * 60),
            limits: ConnectionLimits::default(),
        }
    }

    /// Listens on one more address: `/ip4/…/tcp/…`, `/ip4/…/tcp/…/ws`, `/ip4/…/udp/…/quic-v1`
    /// or `/memory/…`; port 0 is any free one.
    #[must_use]
    pub fn with_listen(mut self, address: Multiaddr) -> Self {
        self.listen.push(address);
        self
    }

    /// Announces an address besides those listened on, as where a port is forwarded.
    #[must_use]
    pub fn with_external(mut self, address: Multiaddr) -> Self {
        self.external.push(address);
        self
    }

    /// Enters the network at one more address; with or without `/p2p/…` at its end. A
    /// loopback or private address allows these ranges.
    #[must_use]
    pub fn with_bootstrap(mut self, address: Multiaddr) -> Self {
        self.bootstrap.push(address);
        self
    }

    /// Is the node of this Ed25519 key; otherwise of the data directory's, or a new one.
    #[must_use]
    pub fn with_key(mut self, key: Keypair) -> Self {
        self.key = Some(key);
        self
    }

    /// Keeps the identity key (`identity.key`, readable by its owner alone) and the peers
    /// seen (`peers`) in this directory, which is made if it is missing.
    #[must_use]
    pub fn with_data_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(directory.into());
        self
    }

    /// As [`Libp2pConfig::with_data_dir`], unless a directory was named before.
    #[must_use]
    pub fn or_data_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.data_dir.get_or_insert_with(|| directory.into());
        self
    }

    /// Whether addresses of private networks, and those of this machine, are dialled and
    /// announced: what was allowed, and what the bootstrap addresses imply.
    pub fn allows(&self) -> (bool, bool) {
        let policy = self.effective_policy();
        (policy.private, policy.loopback)
    }

    /// Binds announcements to a wallet by its signature.
    #[must_use]
    pub fn with_wallet(mut self, wallet: Arc<dyn WalletSigner>) -> Self {
        self.wallet = Some(wallet);
        self
    }

    /// Dials and announces addresses of this machine too.
    #[must_use]
    pub fn allowing_loopback(mut self) -> Self {
        self.policy.loopback = true;
        self
    }

    /// Dials and announces addresses of private networks too.
    #[must_use]
    pub fn allowing_private(mut self) -> Self {
        self.policy.private = true;
        self
    }

    /// Only asks, and answers nothing: for nodes that nobody can reach.
    #[must_use]
    pub fn as_client(mut self) -> Self {
        self.server = false;
        self
    }

    /// How long an announcement holds unless repeated, at most, and how often it is repeated
    /// on the average. An hour and 25 minutes, unless set.
    #[must_use]
    pub fn with_announcements(mut self, lifetime: Duration, repeat: Duration) -> Self {
        self.lifetime = lifetime;
        self.republish = repeat;
        self
    }

    /// How long a connection that carries nothing is kept; 5 minutes, unless set.
    #[must_use]
    pub fn with_idle_timeout(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    /// Limits on connections.
    #[must_use]
    pub fn with_limits(mut self, limits: ConnectionLimits) -> Self {
        self.limits = limits;
        self
    }

    /// What may be dialled and announced: what was allowed, and what the chosen ways into
    /// the network imply.
    pub(super) fn effective_policy(&self) -> AddressPolicy {
        self.bootstrap
            .iter()
            .fold(self.policy, AddressPolicy::widened_by)
    }

    pub(super) fn check(&self) -> Result<(), Libp2pError> {
        let refuse = |reason| Err(Libp2pError::Setting { reason });
        if [&self.listen, &self.external, &self.bootstrap]
            .iter()
            .any(|addresses| addresses.len() > MAX_ADDRESSES)
        {
            return refuse("too many addresses");
        }
        if self.lifetime < Duration::from_secs(1) {
            return refuse("an announcement holds for a second at least");
        }
        if self.republish.is_zero() || self.republish >= self.lifetime {
            return refuse("announcements are to be repeated before they expire");
        }
        if self
            .key
            .as_ref()
            .is_some_and(|key| key.clone().try_into_ed25519().is_err())
        {
            return refuse("the identity is an Ed25519 key");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let seconds = Duration::from_secs;
        Libp2pConfig::new().check().unwrap();
        for (lifetime, repeat) in [(0, 0), (10, 10), (10, 0)] {
            let config = Libp2pConfig::new().with_announcements(seconds(lifetime), seconds(repeat));
            assert!(
                matches!(config.check(), Err(Libp2pError::Setting { .. })),
                "{lifetime} {repeat}"
            );
        }
        let mut config = Libp2pConfig::new();
        for _ in 0..=MAX_ADDRESSES {
            config = config.with_bootstrap("/ip4/127.0.0.1/tcp/1".parse().unwrap());
        }
        assert!(config.check().is_err());
        assert!(config.effective_policy().loopback);
    }
}
