//! [`Verifier`]: whether a server is who it has to be.

use std::sync::Arc;

use chiral_core::PeerId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use sha2::{Digest, Sha256};

use super::{Trust, binding};

/// Checks a server's certificate by a [`Trust`], and always that it has the certificate's
/// key.
#[derive(Debug)]
pub(super) struct Verifier {
    trust: Trust,
    /// Checks certificates for hosts; `None` if there are no roots.
    hosts: Option<Arc<WebPkiServerVerifier>>,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug, thiserror::Error)]
#[error("another certificate than the one with the given SHA-256")]
struct OtherCertificate;

#[derive(Debug, thiserror::Error)]
#[error("{0}, and none that is valid for the host: {1}")]
struct NeitherPeerNorHost(Error, Error);

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

impl Verifier {
    pub(super) fn new(
        trust: Trust,
        hosts: Option<Arc<WebPkiServerVerifier>>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        Self {
            trust,
            hosts,
            algorithms,
        }
    }

    /// A single certificate, valid now, that signs itself, and whose key the peer's signed.
    fn is_peer(
        &self,
        peer: &PeerId,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        binding::verify(certificate, peer, &self.algorithms).map_err(other)?;
        if !intermediates.is_empty() {
            return Err(CertificateError::UnknownIssuer.into());
        }
        let mut itself = RootCertStore::empty();
        itself.add(certificate.clone().into_owned())?;
        let parsed = ParsedCertificate::try_from(certificate)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &itself, &[], now, algorithms)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let host = || match &self.hosts {
            Some(hosts) => hosts.verify_server_cert(certificate, intermediates, name, ocsp, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        };
        let peer = |peer| self.is_peer(peer, certificate, intermediates, now);
        match &self.trust {
            Trust::Host => host(),
            Trust::Peer(id) => peer(id).map(|()| ServerCertVerified::assertion()),
            Trust::PeerOrHost(id) => match peer(id) {
                Ok(()) => Ok(ServerCertVerified::assertion()),
                Err(no_peer) => host().map_err(|no| other(NeitherPeerNorHost(no_peer, no))),
            },
            Trust::Fingerprint(wanted) => {
                let is: [u8; 32] = Sha256::digest(certificate).into();
                match is == *wanted {
                    true => Ok(ServerCertVerified::assertion()),
                    false => Err(other(OtherCertificate)),
                }
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
