#![doc = include_str!("../README.md")]

pub mod alias;
pub mod bill;
pub mod buffers;
pub mod chain;
pub mod chunk;
pub mod chunk_source;
pub mod chunk_store;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod content_identity;
pub mod content_protocol;
pub mod coverage;
pub mod file_spans;
pub mod identity;
pub mod link;
pub mod manifest;
pub mod merkle;
pub mod metadata;
pub mod money;
pub mod payment_gate;
pub mod payment_settler;
pub mod peer;
pub mod peer_directory;
pub mod peer_network;
pub mod peer_signer;
pub mod piece_hashes;
pub mod priority;
pub mod protocol;
pub mod range;
pub mod rate;
pub mod sidecar;
mod single_source;
pub mod transfer;
pub mod wallet;

pub use alloy_primitives::{Address, B256, U256};

pub use alias::{Alias, FileIdentification};
pub use bill::{Bill, BillId, ChunkPayment, TransferProof};
pub use chain::{ChunkClaim, ChunkHasher, ChunkLink, ForwardChain, ProvenLink, VerifiedChunk};
pub use chunk::{CHUNK_SIZE, ChunkLayout, MAX_CHUNKS, MAX_FILE_SIZE};
pub use chunk_source::{ChunkSource, Delivery, DeliveryStream, TransferError};
pub use chunk_store::{ChunkStore, PartialFile, StoreError, StoredContent};
pub use content_identity::{ContentIdentity, IdentityHasher};
pub use content_protocol::{
    Capabilities, ContentProtocol, DownloadRequest, GetRequest, SeedRequest,
};
pub use coverage::{Bitmap, ChunkRuns, Coverage};
pub use file_spans::{FileSpan, FileSpans, FileSpansError};
pub use identity::{ChunkHash, Cid, MerkleRoot, ParseHashError, TreeHash};
pub use link::Link;
pub use manifest::{ManifestHeader, ManifestPage, PageRoots, VerifiedPage};
pub use merkle::MerkleProof;
pub use metadata::FileMetadata;
pub use money::Price;
pub use payment_gate::{
    Admission, GateError, PayAndLock, PaymentAgent, PaymentGate, Purchase, Sealed, ServeRequest,
    Tariff,
};
pub use payment_settler::{PaymentSettler, SettleError, SettlementStatus};
pub use peer::{Endpoint, PeerId, PeerOffer};
pub use peer_directory::{Announcement, DirectoryError, PeerDirectory, ProviderQuery};
pub use peer_network::{NetworkError, PeerNetwork};
pub use peer_signer::{PeerSignError, PeerSigner};
pub use piece_hashes::{FoundPieces, PieceChecker, PieceHashes, PieceLookup};
pub use priority::Priority;
pub use protocol::Protocol;
pub use range::{ByteRange, RangeSet, RequestGrid};
pub use rate::Rate;
pub use sidecar::{FileHasher, SidecarHasher};
pub use transfer::{Transfer, TransferDriver, TransferId, TransferRegistry};
pub use wallet::{WalletKey, WalletSignature, WalletSigner};
