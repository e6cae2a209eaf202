//! Signed envelopes of libp2p (RFC 0002), with one encoding and one kind of key.

use libp2p::PeerId;
use libp2p::core::SignedEnvelope;
use libp2p::identity::{KeyType, Keypair};
use prost::Message;

use crate::records::{RecordError, wire};

/// Signs a message with the node key.
pub(in crate::records) fn seal(
    node: &Keypair,
    domain: &str,
    payload_type: &[u8],
    message: &impl Message,
) -> Result<Vec<u8>, RecordError> {
    let payload = message.encode_to_vec();
    let envelope = SignedEnvelope::new(node, domain.to_owned(), payload_type.to_vec(), payload);
    let envelope = envelope.map_err(|_| RecordError::Refused {
        reason: "the node key did not sign",
    })?;
    Ok(envelope.into_protobuf_encoding())
}

/// Checks an envelope and reads its message. `limit` is in bytes, with what it is for.
pub(in crate::records) fn open<M: Message + Default>(
    bytes: &[u8],
    domain: &str,
    payload_type: &[u8],
    (limit, what): (usize, &'static str),
) -> Result<(PeerId, M), RecordError> {
    wire::check_len(bytes.len(), what, limit)?;
    let envelope =
        SignedEnvelope::from_protobuf_encoding(bytes).map_err(|_| RecordError::Signature)?;
    // A second spelling of one statement would pass for another statement.
    if envelope.clone().into_protobuf_encoding() != bytes {
        return Err(RecordError::Malformed { what: "envelope" });
    }
    let (payload, key) = envelope
        .payload_and_signing_key(domain.to_owned(), payload_type)
        .map_err(|_| RecordError::Signature)?;
    if key.key_type() != KeyType::Ed25519 {
        return Err(RecordError::Signature);
    }
    Ok((key.to_peer_id(), wire::decode(payload, what, limit)?))
}
