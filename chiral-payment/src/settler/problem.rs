//! [`Problem`]: why a payment waits.

use alloy_primitives::B256;

/// Why payments, or one of them, do not go on. All are tried again by themselves; nothing is
/// ever forgotten over them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The chain's node does not answer, or answers an error.
    #[error("the chain is away: {reason}")]
    ChainAway {
        /// What was answered.
        reason: String,
    },
    /// The journal's store does not answer.
    #[error("the journal is away: {reason}")]
    Journal {
        /// What was answered.
        reason: String,
    },
    /// The node is of a chain with another id.
    #[error("the node is of chain {found}")]
    WrongChain {
        /// Chain id of the node.
        found: u64,
    },
    /// The node is of a chain with the same id and another beginning.
    #[error("the node's chain begins with block {found}")]
    WrongGenesis {
        /// Hash of its first block.
        found: B256,
    },
    /// Most other nodes that were heard have another block where they are sure of theirs: this
    /// node's chain is cut off from the rest. Payments are held until that has healed.
    #[error("the chain is split: {against} nodes have another block, {with} the same")]
    Split {
        /// Nodes that have the same.
        with: usize,
        /// Nodes that have another.
        against: usize,
    },
    /// Most other nodes that were heard are ahead, or the newest block is too old. Payments are
    /// held until it has caught up.
    #[error("the chain's node is behind")]
    Stale,
    /// The wallet's balance does not cover the bill and its gas.
    #[error("the wallet's balance does not cover it")]
    Funds,
    /// Gas costs more than the limit that was set.
    #[error("gas costs {wanted} wei, over the limit")]
    FeesOverLimit {
        /// Wei per gas that the chain wants.
        wanted: u128,
    },
    /// The payee is a contract that refuses a transfer, and there is no batch contract that
    /// would keep the amount for it.
    #[error("the payee's contract refuses the transfer")]
    PayeeRefuses,
    /// The node refused the transaction.
    #[error("the node refuses the transaction: {reason}")]
    Refused {
        /// Its words.
        reason: String,
    },
    /// The wallet does not sign.
    #[error("the wallet does not sign: {reason}")]
    Signer {
        /// Why.
        reason: String,
    },
    /// The nonce is used, and the node does not show, or not deep enough yet, by what.
    #[error("the transaction's nonce was used, maybe by another transaction")]
    NonceUsed,
    /// A transaction waits behind one that the chain does not have: it may have been reset.
    #[error("the chain lacks transactions that came before this one")]
    NonceGap,
    /// A batch skipped the bill because its nonce in the contract was used, and not for this
    /// bill: it is paid anew, with another, once that is deep enough.
    #[error("the bill's nonce in the contract was used for something else")]
    LegNonceUsed,
    /// A batch succeeded and its receipt does not show the bill as paid.
    #[error("the receipt does not show the payment")]
    NotShown,
}
