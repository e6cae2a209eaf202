//! The extension that binds a certificate to a peer id (libp2p, "TLS Handshake"): the
//! identity key signs the certificate's key.

use chiral_core::{PeerId, PeerSigner};
use rustls::SignatureScheme;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::CertificateDer;
use x509_parser::asn1_rs::{FromDer, OctetString, Sequence};
use x509_parser::prelude::X509Certificate;

/// 1.3.6.1.4.1.53594.1.1, of Protocol Labs.
pub(super) const OID: &[u64] = &[1, 3, 6, 1, 4, 1, 53594, 1, 1];

/// What stands before the key in the bytes that are signed.
const PREFIX: &[u8] = b"libp2p-tls-handshake:";

/// A peer id that is its own key, not a hash of it: the multihash `identity`.
const IDENTITY: u8 = 0;

/// A public key of type Ed25519 (1) with 32 bytes, as a protobuf; before the bytes.
const ED25519: &[u8] = &[0x08, 0x01, 0x12, 0x20];

/// Why a certificate is not bound to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BindingError {
    #[error("the certificate cannot be read")]
    Malformed,
    #[error("the certificate is bound to no peer")]
    Absent,
    #[error("the certificate is bound to another peer")]
    Other,
    #[error("a peer with a kind of key that is not supported")]
    Key,
    #[error("the identity key did not sign the certificate's key")]
    Signature,
}

/// The content of the extension: `SEQUENCE { OCTET STRING, OCTET STRING }`.
pub(super) fn extension(signer: &dyn PeerSigner, spki: &[u8]) -> Result<Vec<u8>, String> {
    let signature = signer
        .sign(&[PREFIX, spki].concat())
        .map_err(|error| error.to_string())?;
    let mut content = Vec::new();
    for part in [&signer.public_key(), &signature] {
        element(&mut content, 0x04, part).ok_or("an identity key of impossible size")?;
    }
    let mut out = Vec::new();
    element(&mut out, 0x30, &content).ok_or("an identity key of impossible size")?;
    Ok(out)
}

/// Appends an element in DER, of at most 65,535 bytes.
fn element(out: &mut Vec<u8>, tag: u8, content: &[u8]) -> Option<()> {
    let length = u16::try_from(content.len()).ok()?;
    let [high, low] = length.to_be_bytes();
    out.push(tag);
    match length {
        0..0x80 => out.push(low),
        0x80..0x100 => out.extend([0x81, low]),
        _ => out.extend([0x82, high, low]),
    }
    out.extend_from_slice(content);
    Some(())
}

/// Checks that `peer`'s key signed this certificate's key. Whether the certificate is valid,
/// and whether the server has its key, is not looked at.
pub(super) fn verify(
    certificate: &CertificateDer<'_>,
    peer: &PeerId,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<(), BindingError> {
    let (rest, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| BindingError::Malformed)?;
    if !rest.is_empty() {
        return Err(BindingError::Malformed);
    }
    let is_ours = |oid: &x509_parser::asn1_rs::Oid<'_>| {
        oid.iter().is_some_and(|arcs| arcs.eq(OID.iter().copied()))
    };
    let mut found = parsed.extensions().iter().filter(|e| is_ours(&e.oid));
    let (Some(extension), None) = (found.next(), found.next()) else {
        return Err(BindingError::Absent);
    };
    let (public_key, signature) = signed_key(extension.value).ok_or(BindingError::Malformed)?;
    let [IDENTITY, length, key @ ..] = peer.as_bytes() else {
        return Err(BindingError::Key);
    };
    if usize::from(*length) != key.len() || key != public_key {
        return Err(BindingError::Other);
    }
    let bytes = key
        .strip_prefix(ED25519)
        .filter(|bytes| bytes.len() == 32)
        .ok_or(BindingError::Key)?;
    let mut known = algorithms.mapping.iter();
    let (_, ed25519) = known
        .find(|(scheme, _)| *scheme == SignatureScheme::ED25519)
        .ok_or(BindingError::Key)?;
    let ed25519 = ed25519.first().ok_or(BindingError::Key)?;
    let message = [PREFIX, parsed.public_key().raw].concat();
    ed25519
        .verify_signature(bytes, &message, &signature)
        .map_err(|_| BindingError::Signature)
}

/// Takes the extension's content apart; nothing may be left over.
fn signed_key(content: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (rest, sequence) = Sequence::from_der(content).ok()?;
    let (tail, public_key) = OctetString::from_der(&sequence.content).ok()?;
    let (end, signature) = OctetString::from_der(tail).ok()?;
    (rest.is_empty() && end.is_empty())
        .then(|| (public_key.as_ref().to_vec(), signature.as_ref().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn elements_are_der() {
        for (length, head) in [
            (0, vec![4, 0]),
            (127, vec![4, 127]),
            (128, vec![4, 0x81, 128]),
            (255, vec![4, 0x81, 255]),
            (256, vec![4, 0x82, 1, 0]),
            (65_535, vec![4, 0x82, 255, 255]),
        ] {
            let mut out = Vec::new();
            element(&mut out, 4, &vec![7; length]).unwrap();
            assert_eq!(out[..head.len()], head[..], "{length}");
            assert_eq!(out.len(), head.len() + length);
        }
        assert_eq!(element(&mut Vec::new(), 4, &[0; 65_536]), None);
    }

    proptest! {
        #[test]
        fn what_is_put_together_comes_apart(key in proptest::collection::vec(any::<u8>(), 0..300),
            signature in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (mut content, mut out) = (Vec::new(), Vec::new());
            element(&mut content, 4, &key).unwrap();
            element(&mut content, 4, &signature).unwrap();
            element(&mut out, 0x30, &content).unwrap();
            prop_assert_eq!(signed_key(&out), Some((key, signature)));
            out.push(0);
            prop_assert_eq!(signed_key(&out), None);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = signed_key(&bytes);
            let peer = PeerId::from_bytes(&[&[0, 36][..], ED25519, &[7; 32]].concat()).unwrap();
            let algorithms = rustls::crypto::ring::default_provider()
                .signature_verification_algorithms;
            let certificate = CertificateDer::from(bytes);
            prop_assert!(verify(&certificate, &peer, &algorithms).is_err());
        }
    }
}
