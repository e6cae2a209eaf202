//! Errors of the facade.

use chiral_core::{BillId, DirectoryError, GateError, SettleError, StoreError, TransferError};

/// Why a node could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The store could not be opened.
    #[error("could not open the store")]
    Store(#[from] StoreError),
    /// HTTP could not be set up; most often its port is taken.
    #[cfg(feature = "http")]
    #[error("could not set up HTTP")]
    Http(#[from] chiral_protocols::http::HttpError),
    /// The network could not be set up.
    #[cfg(feature = "libp2p")]
    #[error("could not set up the network of peers")]
    Network(#[from] chiral_dht::Libp2pError),
    /// The private protocol could not be set up.
    #[cfg(feature = "private")]
    #[error("could not set up the private protocol")]
    Private(#[from] chiral_protocols::private::PrivateError),
    /// BitTorrent could not be set up; most often its port is taken.
    #[cfg(feature = "bittorrent")]
    #[error("could not set up BitTorrent")]
    BitTorrent(#[from] chiral_protocols::bittorrent::swarm::BitTorrentError),
    /// The private protocol was asked for, and there is no network to speak it over.
    #[error("the private protocol needs a network of peers")]
    NoNetwork,
    /// Payments could not be set up.
    #[cfg(feature = "chain")]
    #[error("could not set up payments")]
    Payments(#[from] chiral_payment::PaymentsError),
    /// The chain could not be opened or reached.
    #[cfg(feature = "chain")]
    #[error("could not use the chain")]
    Chain(#[from] chiral_chain::ChainError),
    /// What should be the URL of a chain's node is none.
    #[cfg(feature = "chain")]
    #[error("not the URL of a chain's node")]
    Url(#[from] chiral_chain::RpcUrlError),
    /// The embedded chain's store could not be opened.
    #[cfg(feature = "chain")]
    #[error("could not open the chain")]
    ChainStore(#[from] chiral_chain::StoreError),
    /// The chain's JSON-RPC server could not be started.
    #[cfg(feature = "chain")]
    #[error("could not serve the chain")]
    ChainServer(#[from] chiral_chain::ServerError),
    /// A node that is to be an entrance to the network listens nowhere.
    #[error("no address to be found at")]
    NoAddress,
    /// Something was asked for that this build does not have.
    #[error("{what} needs the feature `{feature}` of chiral-network")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
        /// The cargo feature that has it.
        feature: &'static str,
    },
    /// A node without any protocol can do nothing.
    #[error("no protocol is registered")]
    NoProtocol,
}

impl BuildError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            #[cfg(feature = "http")]
            Self::Http(error) => error.is_retryable(),
            #[cfg(feature = "libp2p")]
            Self::Network(error) => error.is_retryable(),
            #[cfg(feature = "chain")]
            Self::Payments(error) => error.is_retryable(),
            #[cfg(feature = "chain")]
            Self::Chain(error) => error.is_retryable(),
            #[cfg(feature = "chain")]
            Self::ChainStore(error) => error.is_retryable(),
            #[cfg(feature = "chain")]
            Self::ChainServer(error) => error.is_retryable(),
            #[cfg(feature = "chain")]
            Self::Url(_) => false,
            #[cfg(feature = "private")]
            Self::Private(_) => false,
            #[cfg(feature = "bittorrent")]
            Self::BitTorrent(_) => false,
            Self::Unsupported { .. } | Self::NoProtocol | Self::NoAddress | Self::NoNetwork => {
                false
            }
        }
    }
}

/// Why a node could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The transfer failed.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The directory failed.
    #[error("directory")]
    Directory(#[from] DirectoryError),
    /// The file is there and verified, but its bills could not be handed over for payment.
    #[error("the file is complete, its bills are not settled")]
    Settle(#[from] SettleError),
    /// The books of what is owed could not be kept or closed.
    #[error("the books of what is owed")]
    Books(#[from] GateError),
    /// A bill that was never handed over for payment.
    #[error("nothing is known of bill {bill}")]
    UnknownBill {
        /// The bill.
        bill: BillId,
    },
    /// The node was built without payments.
    #[error("the node has no wallet and no chain to be paid with")]
    NoPayments,
    /// The chain could not be asked.
    #[cfg(feature = "chain")]
    #[error("chain")]
    Chain(#[from] chiral_chain::ChainError),
    /// Journal or settler failed.
    #[cfg(feature = "chain")]
    #[error("payments")]
    Payments(#[from] chiral_payment::PaymentsError),
    /// A URL or address that is none.
    #[error("{text} is not an endpoint: {reason}")]
    Endpoint {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The node was built without BitTorrent.
    #[error("the node does not take part in BitTorrent")]
    NoBitTorrent,
    /// A torrent that cannot be downloaded.
    #[cfg(feature = "bittorrent")]
    #[error("torrent")]
    Torrent(#[from] chiral_protocols::bittorrent::download::TorrentError),
    /// A torrent is complete, and its files cannot be put in their places.
    #[cfg(feature = "bittorrent")]
    #[error("files of a torrent")]
    Unpack(#[from] chiral_protocols::bittorrent::unpack::UnpackError),
    /// The node has been shut down.
    #[error("the node is shut down")]
    Closed,
}

impl NodeError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Transfer(error) => error.is_retryable(),
            Self::Store(error) => error.is_retryable(),
            Self::Directory(error) => error.is_retryable(),
            Self::Settle(error) => error.is_retryable(),
            Self::Books(error) => error.is_retryable(),
            #[cfg(feature = "chain")]
            Self::Chain(error) => error.is_retryable(),
            #[cfg(feature = "chain")]
            Self::Payments(error) => error.is_retryable(),
            #[cfg(feature = "bittorrent")]
            Self::Torrent(error) => error.is_retryable(),
            #[cfg(feature = "bittorrent")]
            Self::Unpack(error) => error.is_retryable(),
            Self::NoPayments | Self::NoBitTorrent => false,
            Self::UnknownBill { .. } | Self::Endpoint { .. } | Self::Closed => false,
        }
    }
}
