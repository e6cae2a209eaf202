//! [`SignedTransaction`].

use alloy_consensus::transaction::RlpEcdsaEncodableTx;
use alloy_consensus::{SignableTransaction, Signed, TxEip1559, TxEnvelope, TxLegacy};
use alloy_eips::eip2718::{Decodable2718, Encodable2718};
use alloy_primitives::{Address, B256, Signature, TxKind, keccak256};
use bytes::Bytes;
use chiral_core::WalletSignature;

use super::{Fees, MAX_TRANSACTION_BYTES, Transaction, TransactionError};

/// A transaction with its signature, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignedTransaction {
    /// Its EIP-2718 encoding: what is sent.
    pub raw: Bytes,
    /// Its hash, by which nodes know it.
    pub hash: B256,
    /// The wallet that signed it.
    pub from: Address,
    /// What was signed.
    pub transaction: Transaction,
}

impl SignedTransaction {
    /// Decodes what somebody signed for the chain `chain_id`, and recovers who.
    ///
    /// Strict: one encoding only, nothing behind it, a chain id under the signature, the lower
    /// `s`. So two different `raw` are two different transactions, and none of them holds on
    /// another chain. Whether a node takes it (nonce, balance, gas) is not looked at.
    ///
    /// # Errors
    /// Every [`TransactionError`] but those about signing.
    pub fn decode(raw: &[u8], chain_id: u64) -> Result<Self, TransactionError> {
        let (envelope, from) = decode_envelope(raw, chain_id)?;
        let hash = *envelope.tx_hash();
        let transaction = match envelope {
            TxEnvelope::Legacy(signed) => from_legacy(signed.strip_signature(), chain_id),
            TxEnvelope::Eip1559(signed) => from_dynamic(signed.strip_signature())?,
            other => return Err(TransactionError::UnsupportedType(other.tx_type() as u8)),
        };
        Ok(Self {
            raw: Bytes::copy_from_slice(raw),
            hash,
            from,
            transaction,
        })
    }

    pub(super) fn assemble(
        transaction: Transaction,
        from: Address,
        signature: &WalletSignature,
    ) -> Result<Self, TransactionError> {
        let bytes = signature.as_bytes();
        let signature = Signature::from_bytes_and_parity(&bytes[..64], bytes[64] == 1);
        let raw = match transaction.fees {
            Fees::Legacy { gas_price } => encode(transaction.legacy(gas_price), signature),
            Fees::Dynamic {
                max_fee_per_gas: max,
                max_priority_fee_per_gas: tip,
            } => encode(transaction.dynamic(max, tip), signature),
        };
        if raw.len() > MAX_TRANSACTION_BYTES {
            return Err(TransactionError::TooLarge { found: raw.len() });
        }
        Ok(Self {
            hash: keccak256(&raw),
            raw: raw.into(),
            from,
            transaction,
        })
    }
}

fn encode<T>(transaction: T, signature: Signature) -> Vec<u8>
where
    T: SignableTransaction<Signature> + RlpEcdsaEncodableTx,
{
    let mut raw = Vec::new();
    Signed::new_unhashed(transaction, signature).eip2718_encode(&mut raw);
    raw
}

fn from_legacy(tx: TxLegacy, chain_id: u64) -> Transaction {
    Transaction {
        chain_id,
        nonce: tx.nonce,
        gas_limit: tx.gas_limit,
        fees: Fees::Legacy {
            gas_price: tx.gas_price,
        },
        to: recipient(tx.to),
        value: tx.value,
        input: tx.input.0,
    }
}

fn from_dynamic(tx: TxEip1559) -> Result<Transaction, TransactionError> {
    if !tx.access_list.is_empty() {
        return Err(TransactionError::AccessList);
    }
    Ok(Transaction {
        chain_id: tx.chain_id,
        nonce: tx.nonce,
        gas_limit: tx.gas_limit,
        fees: Fees::Dynamic {
            max_fee_per_gas: tx.max_fee_per_gas,
            max_priority_fee_per_gas: tx.max_priority_fee_per_gas,
        },
        to: recipient(tx.to),
        value: tx.value,
        input: tx.input.0,
    })
}

fn recipient(kind: TxKind) -> Option<Address> {
    match kind {
        TxKind::Create => None,
        TxKind::Call(to) => Some(to),
    }
}

/// Decodes a transaction of any type up to dynamic fees (0, 1, 2) as strictly as
/// [`SignedTransaction::decode`], for chains that execute what they do not make themselves.
pub(crate) fn decode_envelope(
    raw: &[u8],
    chain_id: u64,
) -> Result<(TxEnvelope, Address), TransactionError> {
    if raw.len() > MAX_TRANSACTION_BYTES {
        return Err(TransactionError::TooLarge { found: raw.len() });
    }
    match raw.first() {
        Some(1 | 2 | 0xc0..=0xff) => {}
        Some(&ty @ 0..=0x7f) => return Err(TransactionError::UnsupportedType(ty)),
        _ => return Err(TransactionError::Encoding),
    }
    let envelope = TxEnvelope::decode_2718_exact(raw).map_err(|_| TransactionError::Encoding)?;
    // Decoders forgive some spellings; the hash is of one only.
    if envelope.encoded_2718() != raw {
        return Err(TransactionError::Encoding);
    }
    let found = alloy_consensus::Transaction::chain_id(&envelope);
    let found = found.ok_or(TransactionError::NoChainId)?;
    if found != chain_id {
        return Err(TransactionError::WrongChain {
            expected: chain_id,
            found,
        });
    }
    let signature = envelope.signature();
    let mut bytes = signature.as_rsy();
    bytes[64] = signature.v().into();
    let from = WalletSignature::from_bytes(bytes)
        .ok()
        .and_then(|signature| signature.signer(envelope.signature_hash()))
        .ok_or(TransactionError::Signature)?;
    Ok((envelope, from))
}
