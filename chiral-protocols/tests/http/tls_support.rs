//! Certificates, identities, and servers that speak TLS as they are told.

use std::net::SocketAddr;
use std::sync::Arc;

use chiral_core::{PeerId, PeerSignError, PeerSigner};
use rcgen::{CertificateParams, CustomExtension, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{ServerConfig, SignatureScheme, SupportedProtocolVersion};
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The extension of libp2p's TLS specification.
pub(crate) const BINDING: &[u64] = &[1, 3, 6, 1, 4, 1, 53594, 1, 1];

/// An identity of Ed25519, made without the code that is tested.
#[derive(Debug)]
pub(crate) struct Identity {
    key: Arc<dyn SigningKey>,
    public: Vec<u8>,
}

impl Identity {
    pub(crate) fn new() -> Self {
        let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let public = [&[8, 1, 18, 32], pair.public_key_raw()].concat();
        let key = ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pair.serialize_der()));
        let key = key.unwrap();
        Self { key, public }
    }
}

impl PeerSigner for Identity {
    fn peer_id(&self) -> PeerId {
        PeerId::from_bytes(&[&[0, 36], &self.public[..]].concat()).unwrap()
    }

    fn public_key(&self) -> Vec<u8> {
        self.public.clone()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PeerSignError> {
        let signer = self.key.choose_scheme(&[SignatureScheme::ED25519]).unwrap();
        Ok(signer.sign(message).unwrap())
    }
}

/// Key and certificate of a server.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: KeyPair,
}

impl Shown {
    pub(crate) fn fingerprint(&self) -> String {
        let hash = Sha256::digest(&self.chain[0]);
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn private(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }
}

pub(crate) fn new_key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

/// A self-signed certificate for 127.0.0.1 and localhost, changed as told.
pub(crate) fn certificate(change: impl FnOnce(&mut CertificateParams, &KeyPair)) -> Shown {
    let key = new_key();
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let mut params = CertificateParams::new(names).unwrap();
    change(&mut params, &key);
    let chain = vec![params.self_signed(&key).unwrap().der().clone()];
    Shown { chain, key }
}

/// The content of the extension, put together by hand: lengths are below 128.
pub(crate) fn signed_key(public: &[u8], signature: &[u8]) -> Vec<u8> {
    let mut content = vec![4, public.len() as u8];
    content.extend_from_slice(public);
    content.extend([4, signature.len() as u8]);
    content.extend_from_slice(signature);
    let mut out = vec![0x30, content.len() as u8];
    out.extend(content);
    out
}

/// What `identity` says of a certificate's key.
pub(crate) fn statement(identity: &Identity, key: &KeyPair) -> Vec<u8> {
    let message = [b"libp2p-tls-handshake:", &key.public_key_der()[..]].concat();
    identity.sign(&message).unwrap()
}

/// The extension with any content.
pub(crate) fn extension(content: Vec<u8>) -> CustomExtension {
    CustomExtension::from_oid_content(BINDING, content)
}

/// A certificate that is bound as it should be.
pub(crate) fn bound(identity: &Identity) -> Shown {
    certificate(|params, key| {
        let content = signed_key(&identity.public_key(), &statement(identity, key));
        params.custom_extensions.push(extension(content));
    })
}

pub(crate) static NEW: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
pub(crate) static OLD: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS12];

/// How a server of the test's own speaks TLS.
pub(crate) struct Speaking {
    pub(crate) versions: &'static [&'static SupportedProtocolVersion],
    pub(crate) alpn: &'static [&'static [u8]],
    /// The key that it signs with, if not the certificate's.
    pub(crate) other_key: Option<KeyPair>,
}

impl Default for Speaking {
    fn default() -> Self {
        Self {
            versions: &NEW,
            alpn: &[b"http/1.1"],
            other_key: None,
        }
    }
}

fn acceptor(shown: &Shown, speaking: &Speaking) -> TlsAcceptor {
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(speaking.versions)
        .unwrap()
        .with_no_client_auth();
    let private = match &speaking.other_key {
        Some(key) => PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        None => shown.private(),
    };
    let key = ring::sign::any_supported_type(&private).unwrap();
    // Unlike the usual way, this does not look whether they belong together.
    let certified = CertifiedKey::new(shown.chain.clone(), key);
    let resolver = rustls::sign::SingleCertAndKey::from(certified);
    let mut config = builder.with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = speaking.alpn.iter().map(|name| name.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

/// A server that does whatever it is told with each session.
pub(crate) async fn speaking<F, Work>(shown: &Shown, how: &Speaking, serve: F) -> SocketAddr
where
    F: Fn(TlsStream<TcpStream>) -> Work + Send + Sync + 'static,
    Work: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (acceptor, serve) = (acceptor(shown, how), Arc::new(serve));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, serve) = (acceptor.clone(), serve.clone());
            tokio::spawn(async move {
                if let Ok(session) = acceptor.accept(stream).await {
                    serve(session).await;
                }
            });
        }
    });
    address
}
