//! [`Acceptor`]: the server's end of TLS.

use std::io;
use std::sync::Arc;

use chiral_core::PeerId;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificate::self_signed;
use super::{ServerTls, Signer};
use crate::http::config::HttpError;

/// What HTTP/2 and HTTP/1.1 are called in ALPN (RFC 7301).
pub(super) const H2: &[u8] = b"h2";
pub(super) const HTTP_11: &[u8] = b"http/1.1";

/// Makes the server's side of TLS sessions.
#[derive(Clone)]
pub(in crate::http) struct Acceptor {
    tls: TlsAcceptor,
    /// Whose certificate it is, if it is bound to a peer.
    peer: Option<PeerId>,
    fingerprint: [u8; 32],
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl Acceptor {
    /// `names`: what a certificate of its own making is for.
    pub(in crate::http) fn new(
        tls: &ServerTls,
        signer: Option<&Signer>,
        names: Vec<String>,
    ) -> Result<Self, HttpError> {
        let (chain, key, peer) = match tls {
            ServerTls::SelfSigned => {
                let (certificate, key) = self_signed(names, signer).map_err(unusable)?;
                let peer = signer.map(|signer| signer.0.peer_id());
                (vec![certificate], key, peer)
            }
            ServerTls::Given { chain, key } => {
                let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
                let chain = chain.map_err(|error| unusable(format!("the chain: {error}")))?;
                let key = PrivateKeyDer::from_pem_slice(key)
                    .map_err(|error| unusable(format!("the key: {error}")))?;
                (chain, key, None)
            }
        };
        let own = chain.first().ok_or_else(|| unusable("no certificate"))?;
        let fingerprint = Sha256::digest(own).into();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unusable)?;
        let mut config = config
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(unusable)?;
        config.alpn_protocols = vec![H2.to_vec(), HTTP_11.to_vec()];
        Ok(Self {
            tls: Arc::new(config).into(),
            peer,
            fingerprint,
        })
    }

    /// Whom a client shall expect; stands behind the URL.
    pub(in crate::http) fn mark(&self) -> String {
        match &self.peer {
            Some(peer) => format!("#peer={peer}"),
            None => {
                let hex = self.fingerprint.iter().map(|byte| format!("{byte:02x}"));
                format!("#sha256={}", hex.collect::<String>())
            }
        }
    }

    /// Shakes hands. Also whether HTTP/2 was agreed on.
    pub(in crate::http) async fn accept<T>(&self, io: T) -> io::Result<(TlsStream<T>, bool)>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = self.tls.accept(io).await?;
        let h2 = stream.get_ref().1.alpn_protocol() == Some(H2);
        Ok((stream, h2))
    }
}

fn unusable(reason: impl ToString) -> HttpError {
    HttpError::Tls {
        reason: reason.to_string(),
    }
}
