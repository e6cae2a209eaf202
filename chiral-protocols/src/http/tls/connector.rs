//! [`Connector`]: the client's end of TLS.

use std::sync::Arc;
use std::time::Duration;

use chiral_core::{Endpoint, TransferError};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, version};
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::acceptor::{H2, HTTP_11};
use super::verifier::Verifier;
use super::{ClientTls, Trust};
use crate::http::config::HttpError;
use crate::http::connect::{connection, refused, timed_out};

/// Bytes taken from the socket at a time: rustls by itself would take 4 KiB.
const READ_SIZE: usize = 256 << 10;

/// A session with a server.
pub(in crate::http) type Session = TlsStream<BufReader<TcpStream>>;

/// What is needed to speak TLS to any server.
#[derive(Debug)]
pub(in crate::http) struct Connector {
    provider: Arc<CryptoProvider>,
    system_roots: bool,
    given: RootCertStore,
    /// Reads the system's roots once, and only if they are needed.
    hosts: OnceCell<Option<Arc<WebPkiServerVerifier>>>,
}

/// What is needed to speak TLS to one server; keeps its tickets.
#[derive(Clone, Debug)]
pub(in crate::http) struct Towards(Arc<ClientConfig>);

impl Connector {
    pub(in crate::http) fn new(tls: &ClientTls) -> Result<Self, HttpError> {
        let unusable = |error: &dyn ToString| HttpError::Tls {
            reason: format!("the roots: {}", error.to_string()),
        };
        let mut given = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&tls.roots) {
            let certificate = certificate.map_err(|error| unusable(&error))?;
            given.add(certificate).map_err(|error| unusable(&error))?;
        }
        if given.is_empty() && tls.roots.iter().any(|byte| !byte.is_ascii_whitespace()) {
            return Err(unusable(&"no certificate in them"));
        }
        Ok(Self {
            provider: Arc::new(ring::default_provider()),
            system_roots: tls.system_roots,
            given,
            hosts: OnceCell::new(),
        })
    }

    /// Prepares for a server.
    pub(in crate::http) async fn towards(
        &self,
        trust: Trust,
        name: &Endpoint,
    ) -> Result<Towards, TransferError> {
        let hosts = match trust {
            Trust::Peer(_) | Trust::Fingerprint(_) => None,
            Trust::Host | Trust::PeerOrHost(_) => self.hosts().await,
        };
        // Web servers may be of any age, ours are not.
        let versions = match trust {
            Trust::Host => &[&version::TLS13, &version::TLS12][..],
            _ => &[&version::TLS13],
        };
        let algorithms = self.provider.signature_verification_algorithms;
        let verifier = Verifier::new(trust, hosts, algorithms);
        let config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(versions)
            .map_err(|error| connection(name, error))?;
        let mut config = config
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![H2.to_vec(), HTTP_11.to_vec()];
        Ok(Towards(Arc::new(config)))
    }

    async fn hosts(&self) -> Option<Arc<WebPkiServerVerifier>> {
        let read = || async {
            let mut roots = self.given.clone();
            if self.system_roots {
                // A task that was cancelled, as the runtime ends, has read none.
                let system = tokio::task::spawn_blocking(system_roots).await;
                roots.extend(system.unwrap_or_default());
            }
            let provider = self.provider.clone();
            WebPkiServerVerifier::builder_with_provider(roots.into(), provider)
                .build()
                .inspect_err(|error| tracing::debug!(%error, "no host will be believed"))
                .ok()
        };
        self.hosts.get_or_init(read).await.clone()
    }
}

fn system_roots() -> Vec<rustls::pki_types::TrustAnchor<'static>> {
    let found = rustls_native_certs::load_native_certs();
    for error in found.errors {
        tracing::debug!(%error, "some of the system's roots cannot be read");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    roots.roots
}

impl Towards {
    /// Shakes hands over a connection. Also whether HTTP/2 was agreed on.
    pub(in crate::http) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
        wait: Duration,
        name: &Endpoint,
    ) -> Result<(Session, bool), TransferError> {
        let host = ServerName::try_from(host.to_owned())
            .map_err(|_| refused(name, "a host name that TLS does not know", false))?;
        let stream = BufReader::with_capacity(READ_SIZE, stream);
        let shake = TlsConnector::from(self.0.clone()).connect(host, stream);
        let session = timeout(wait, shake).await.map_err(|_| timed_out(name))?;
        let session = session.map_err(|error| failed(name, error))?;
        let h2 = session.get_ref().1.alpn_protocol() == Some(H2);
        Ok((session, h2))
    }
}

/// A certificate that is not believed now will not be believed later.
fn failed(name: &Endpoint, error: std::io::Error) -> TransferError {
    let inner = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(reason)) => {
            refused(name, format!("its certificate: {reason}"), false)
        }
        _ => connection(name, error),
    }
}
