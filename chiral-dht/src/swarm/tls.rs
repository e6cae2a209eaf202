//! [`Tls`]: TLS 1.3 as libp2p has it (libp2p's `tls/tls.md`), with the ciphers in the order of
//! what they cost on this processor.
//!
//! `libp2p-tls` prefers ChaCha20-Poly1305 everywhere, which takes three times as long for each
//! byte as AES-GCM where the processor knows AES. Certificates, which say who the peer is, are
//! made and checked by that crate.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use futures_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use libp2p::PeerId;
use libp2p::identity::Keypair;
use libp2p::tls::certificate;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    SupportedCipherSuite,
};

use super::error::Libp2pError;
use super::transport::Socket;

const PROTOCOL: &[u8] = b"libp2p";

/// What certificates may be signed with, as the specification lists it.
const SCHEMES: [SignatureScheme; 9] = [
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PKCS1_SHA512,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA256,
];

/// Whether the processor has instructions for AES.
fn has_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    {
        std::arch::is_x86_feature_detected!("aes")
            && std::arch::is_x86_feature_detected!("pclmulqdq")
    }
    #[cfg(target_arch = "aarch64")]
    {
        std::arch::is_aarch64_feature_detected!("aes")
    }
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    {
        false
    }
}

/// The ciphers, what costs least first.
fn ciphers(has_aes: bool) -> Vec<SupportedCipherSuite> {
    let chacha = cipher_suite::TLS13_CHACHA20_POLY1305_SHA256;
    let aes = [
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
    ];
    match has_aes {
        true => vec![aes[0], aes[1], chacha],
        false => vec![chacha, aes[1], aes[0]],
    }
}

/// Secures sockets for one identity.
#[derive(Clone)]
pub(super) struct Tls {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Tls {
    pub(super) fn new(identity: &Keypair) -> Result<Self, Libp2pError> {
        let (certificate, key) = certificate::generate(identity).map_err(Libp2pError::transport)?;
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites = ciphers(has_aes());
        let provider = Arc::new(provider);
        let key = provider.key_provider.load_private_key(key);
        let key = CertifiedKey::new(vec![certificate], key.map_err(Libp2pError::transport)?);
        let key = Arc::new(SingleCertAndKey::from(key));
        let versions = &[&rustls::version::TLS13];
        let client = ClientConfig::builder_with_provider(provider.clone());
        let client = client.with_protocol_versions(versions);
        let mut client = client
            .map_err(Libp2pError::transport)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Checked))
            .with_client_cert_resolver(key.clone());
        client.alpn_protocols = vec![PROTOCOL.to_vec()];
        // The name is a pretext: it is not to be sent.
        client.enable_sni = false;
        let server = ServerConfig::builder_with_provider(provider);
        let server = server.with_protocol_versions(versions);
        let mut server = server
            .map_err(Libp2pError::transport)?
            .with_client_cert_verifier(Arc::new(Checked))
            .with_cert_resolver(key);
        server.alpn_protocols = vec![PROTOCOL.to_vec()];
        // Others begin with ChaCha20 whatever we both have, and ours with AES where we have not.
        server.ignore_client_order = true;
        Ok(Self {
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }

    /// Secures a socket that came.
    pub(super) async fn accept<S: Socket>(self, socket: S) -> io::Result<(PeerId, TlsStream<S>)> {
        let stream = TlsAcceptor::from(self.server).accept(socket).await?;
        named(stream.into())
    }

    /// Secures a socket that was dialled.
    pub(super) async fn connect<S: Socket>(self, socket: S) -> io::Result<(PeerId, TlsStream<S>)> {
        let name = ServerName::from(std::net::IpAddr::from(Ipv4Addr::UNSPECIFIED));
        let stream = TlsConnector::from(self.client)
            .connect(name, socket)
            .await?;
        named(stream.into())
    }
}

/// Who the other side is.
fn named<S>(stream: TlsStream<S>) -> io::Result<(PeerId, TlsStream<S>)> {
    let peer = match stream.get_ref().1.peer_certificates() {
        Some([one]) => certificate::parse(one).map(|parsed| parsed.peer_id()),
        _ => return Err(io::Error::other("not one certificate")),
    };
    Ok((peer.map_err(io::Error::other)?, stream))
}

/// Has certificates checked: that there is one, and that the key of the peer signed it.
#[derive(Debug)]
struct Checked;

impl Checked {
    fn certificate(
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
    ) -> Result<(), Error> {
        if !others.is_empty() {
            return Err(Error::General("more than one certificate".to_owned()));
        }
        certificate::parse(certificate)?;
        Ok(())
    }

    fn signature(
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        certificate::parse(certificate)?.verify_signature(
            signed.scheme,
            message,
            signed.signature(),
        )?;
        Ok(HandshakeSignatureValid::assertion())
    }
}

/// No version but 1.3 is spoken.
fn too_old() -> Error {
    Error::General("older than TLS 1.3".to_owned())
}

impl ServerCertVerifier for Checked {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Self::certificate(certificate, others)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

impl ClientCertVerifier for Checked {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Self::certificate(certificate, others)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{AsyncReadExt, AsyncWriteExt};
    use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
    use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

    type Socket = Compat<tokio::io::DuplexStream>;

    fn sockets() -> (Socket, Socket) {
        let (a, b) = tokio::io::duplex(1 << 16);
        (a.compat(), b.compat())
    }

    fn identities() -> (Keypair, Keypair) {
        (Keypair::generate_ed25519(), Keypair::generate_ed25519())
    }

    fn cipher<S>(stream: &TlsStream<S>) -> rustls::CipherSuite {
        let negotiated = stream.get_ref().1.negotiated_cipher_suite();
        negotiated.unwrap().suite()
    }

    async fn speak(a: TlsStream<Socket>, b: TlsStream<Socket>) {
        let (mut a, mut b) = (a, b);
        a.write_all(b"ping").await.unwrap();
        a.flush().await.unwrap();
        let mut got = [0; 4];
        b.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"ping");
    }

    #[tokio::test]
    async fn two_of_ours_know_each_other_and_take_the_cheapest_cipher() {
        let (us, them) = identities();
        let (a, b) = sockets();
        let (dialled, came) = tokio::join!(
            Tls::new(&us).unwrap().connect(a),
            Tls::new(&them).unwrap().accept(b),
        );
        let ((their_id, a), (our_id, b)) = (dialled.unwrap(), came.unwrap());
        assert_eq!(our_id, us.public().to_peer_id());
        assert_eq!(their_id, them.public().to_peer_id());
        assert_eq!(cipher(&a), ciphers(has_aes())[0].suite());
        speak(a, b).await;
    }

    #[tokio::test]
    async fn those_who_have_the_libraries_tls_are_spoken_to_in_both_roles() {
        const NAME: &str = "/tls/1.0.0";
        let (us, them) = identities();
        let theirs = libp2p::tls::Config::new(&them).unwrap();
        let (a, b) = sockets();
        let (dialled, came) = tokio::join!(
            Tls::new(&us).unwrap().connect(a),
            theirs.clone().upgrade_inbound(b, NAME),
        );
        let ((their_id, a), (our_id, b)) = (dialled.unwrap(), came.unwrap());
        assert_eq!(our_id, us.public().to_peer_id());
        assert_eq!(their_id, them.public().to_peer_id());
        speak(a, b).await;
        let (a, b) = sockets();
        let (dialled, came) = tokio::join!(
            theirs.upgrade_outbound(a, NAME),
            Tls::new(&us).unwrap().accept(b),
        );
        let ((our_id, a), (their_id, b)) = (dialled.unwrap(), came.unwrap());
        assert_eq!(our_id, us.public().to_peer_id());
        assert_eq!(their_id, them.public().to_peer_id());
        assert_eq!(
            cipher(&b),
            ciphers(has_aes())[0].suite(),
            "not what they prefer"
        );
        speak(b, a).await;
    }

    #[tokio::test]
    async fn who_shows_no_certificate_of_the_network_is_nobody() {
        let (us, _) = identities();
        let versions = &[&rustls::version::TLS13];
        let builder = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into());
        let mut without = builder
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Checked))
            .with_no_client_auth();
        without.alpn_protocols = vec![PROTOCOL.to_vec()];
        let stranger = Tls {
            client: Arc::new(without),
            ..Tls::new(&us).unwrap()
        };
        let (a, b) = sockets();
        let (_, came) = tokio::join!(stranger.connect(a), Tls::new(&us).unwrap().accept(b));
        assert!(came.is_err());

        // One that is signed by another key than the one that it names.
        let (mine, his) = identities();
        let (certificate, _) = certificate::generate(&mine).unwrap();
        let (_, key) = certificate::generate(&his).unwrap();
        let key = aws_lc_rs::default_provider()
            .key_provider
            .load_private_key(key);
        let key = CertifiedKey::new(vec![certificate], key.unwrap());
        let builder = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into());
        let forged = builder
            .with_protocol_versions(versions)
            .unwrap()
            .with_client_cert_verifier(Arc::new(Checked))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        let forger = Tls {
            server: Arc::new(forged),
            ..Tls::new(&us).unwrap()
        };
        let (a, b) = sockets();
        let (dialled, _) = tokio::join!(Tls::new(&us).unwrap().connect(a), forger.accept(b));
        assert!(dialled.is_err());
    }

    #[test]
    fn without_aes_chacha20_is_first() {
        assert_eq!(
            ciphers(false)[0].suite(),
            rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
        );
        assert_eq!(ciphers(true).len(), ciphers(false).len());
    }
}
