//! How a command fails: exit status, what happened, and what to do next.

use std::error::Error;
use std::path::Path;

use chiral::chain::{ChainError, KeystoreError, RefusalKind};
use chiral::core::{StoreError, TransferError};
use chiral::payment::channel::ChannelsError;
use chiral::payment::{JournalError, PaymentsError};
use chiral::protocols::bittorrent::swarm::BitTorrentError;
use chiral::protocols::bittorrent::unpack::UnpackError;
use chiral::protocols::http::HttpError;
use chiral::{BuildError, NodeError};

/// Exit status; see the table in `main.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Failed = 1,
    Usage = 2,
    NoSource = 3,
    Refused = 4,
    Exists = 5,
    InUse = 6,
    Unpaid = 7,
    Interrupted = 130,
    Terminated = 143,
}

#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
    /// What the user can do about it.
    pub(crate) next: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            next: None,
        }
    }

    #[must_use]
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// Of an operation on a path.
    pub(crate) fn io(operation: &str, path: &Path, error: &std::io::Error) -> Self {
        let path = path.display();
        Self::new(
            Exit::Failed,
            format!("could not {operation} {path}: {error}"),
        )
    }

    pub(crate) fn of(exit: Exit, error: &dyn Error) -> Self {
        Self::new(exit, causes(error))
    }
}

/// An error with its causes, in one line.
pub(crate) fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Standard output cannot be written to: most often whoever read it has gone.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::of(Exit::Failed, &error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Locked { .. } => Self::of(Exit::InUse, &error)
                .next("end the other process, or name another directory with --data-dir DIR"),
            StoreError::AlreadyExists { .. } => Self::of(Exit::Exists, &error)
                .next("name another file with -o, or move that one away"),
            StoreError::NoSpace { .. } => Self::of(Exit::Failed, &error)
                .next("make room, then run the same command again to go on"),
            StoreError::NotFound { .. } => Self::of(Exit::NoSource, &error),
            StoreError::Changed { .. } => {
                Self::of(Exit::Failed, &error).next("run the command again once it is at rest")
            }
            _ => Self::of(Exit::Failed, &error),
        }
    }
}

impl From<TransferError> for Failure {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::Store(error) => error.into(),
            TransferError::NoSources { .. } | TransferError::Unknown { .. } => {
                Self::of(Exit::NoSource, &error)
            }
            TransferError::BadLink { .. } => Self::of(Exit::Refused, &error)
                .next("ask for the link again where you have it from, or try its cid alone"),
            TransferError::Cancelled(_) => Self::of(Exit::Interrupted, &error),
            error => Self::of(Exit::Failed, &error),
        }
    }
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::Store(error) => error.into(),
            NodeError::Transfer(error) => error.into(),
            NodeError::Chain(error) => error.into(),
            NodeError::Payments(error) => error.into(),
            NodeError::Endpoint { .. } => Self::of(Exit::Usage, &error),
            NodeError::Torrent(_) => Self::of(Exit::Refused, &error),
            NodeError::Unpack(UnpackError::Exists { .. }) => Self::of(Exit::Exists, &error)
                .next("move it away, or name another directory with -o"),
            error => Self::of(Exit::Failed, &error),
        }
    }
}

impl From<ChainError> for Failure {
    fn from(error: ChainError) -> Self {
        let failure = Self::of(Exit::Failed, &error);
        match &error {
            ChainError::Unreachable(_) | ChainError::Timeout => {
                failure.next("look whether the chain's node runs, and name it with --chain URL")
            }
            ChainError::Refused { kind, .. } if *kind == RefusalKind::Funds => {
                failure.next("look at the wallet with `chiral wallet balance`")
            }
            _ => failure,
        }
    }
}

impl From<KeystoreError> for Failure {
    fn from(error: KeystoreError) -> Self {
        match &error {
            KeystoreError::Exists { .. } => Self::of(Exit::Exists, &error),
            _ => Self::of(Exit::Failed, &error),
        }
    }
}

impl From<chiral::chain::StoreError> for Failure {
    fn from(error: chiral::chain::StoreError) -> Self {
        Self::of(Exit::Failed, &error)
            .next("name another directory with --data-dir DIR, or none to keep nothing")
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        match &error {
            JournalError::Locked => Self::of(Exit::InUse, &error)
                .next("end the other process, which uses the same wallet or data directory"),
            _ => Self::of(Exit::Failed, &error),
        }
    }
}

impl From<ChannelsError> for Failure {
    fn from(error: ChannelsError) -> Self {
        let failure = Self::of(Exit::Failed, &error);
        match error {
            ChannelsError::NoContract => {
                failure.next("name where the chain has it with --channels-contract ADDRESS")
            }
            ChannelsError::Unknown => failure.next("`chiral channels` shows those that there are"),
            ChannelsError::NotYet => failure.next("look at them with `chiral channels` later"),
            _ => failure,
        }
    }
}

impl From<PaymentsError> for Failure {
    fn from(error: PaymentsError) -> Self {
        match error {
            PaymentsError::Journal(error) => error.into(),
            PaymentsError::Chain(error) => error.into(),
            error => Self::of(Exit::Failed, &error),
        }
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Store(error) => error.into(),
            BuildError::Payments(error) => error.into(),
            BuildError::Http(HttpError::Listen { .. }) => Self::of(Exit::Failed, &error)
                .next("name another address with --http ADDR; port 0 takes any free one"),
            BuildError::BitTorrent(BitTorrentError::Listen { .. }) => {
                Self::of(Exit::Failed, &error)
                    .next("name another address with --bittorrent ADDR; port 0 takes any free one")
            }
            BuildError::Http(HttpError::Proxy) => Self::of(Exit::Usage, &error),
            error => Self::of(Exit::Failed, &error),
        }
    }
}
