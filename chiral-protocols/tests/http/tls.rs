//! TLS: round trips, and certificates that are not what they should be.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chiral_core::conformance::content_protocol::identification;
use chiral_core::{
    ByteRange, ChunkSource, ContentProtocol, Endpoint, FileIdentification, PeerOffer, PeerSigner,
    Protocol, TransferError, TransferRegistry,
};
use chiral_protocols::http::{ClientTls, HttpConfig, HttpError, HttpProtocol, ServerTls};
use chiral_storage::MemoryStore;
use futures_util::StreamExt;
use rcgen::{CertificateParams, IsCa};
use rustls::version::TLS13;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{
    OpenGate, PATIENCE, RawAnswer, client, client_with, content, loopback, path_of, seeder_with,
    soon,
};
use crate::tls_support::{
    Identity, OLD, Shown, Speaking, bound, certificate, extension, new_key, signed_key, speaking,
    statement,
};

/// A seeder of `bytes` with a certificate bound to an identity.
async fn bound_seeder(
    bytes: &Bytes,
) -> (HttpProtocol, PeerOffer, FileIdentification, Arc<Identity>) {
    let identity = Arc::new(Identity::new());
    let config = loopback()
        .with_tls(ServerTls::SelfSigned)
        .with_signer(identity.clone());
    let (node, offer, target) = seeder_with(config, bytes, None).await;
    (node, offer, target, identity)
}

async fn fetch(source: &dyn ChunkSource, size: usize) -> Result<Vec<u8>, TransferError> {
    let mut all = vec![0; size];
    let mut deliveries = source.fetch(ByteRange::new(0, size as u64));
    while let Some(delivery) = soon(deliveries.next()).await {
        let delivery = delivery?;
        let at = delivery.offset as usize;
        all[at..at + delivery.bytes.len()].copy_from_slice(&delivery.bytes);
    }
    Ok(all)
}

fn pem(label: &str, der: &[u8]) -> Vec<u8> {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n").into_bytes()
}

fn pem_of(shown: &Shown) -> Vec<u8> {
    let parts = shown.chain.iter().map(|der| pem("CERTIFICATE", der));
    parts.collect::<Vec<_>>().concat()
}

/// A seeder that shows a certificate of the test's making; the offer has no pin.
async fn showing(shown: &Shown, bytes: &Bytes) -> (HttpProtocol, PeerOffer, FileIdentification) {
    let (chain, key) = (
        pem_of(shown),
        pem("PRIVATE KEY", &shown.key.serialize_der()),
    );
    let config = loopback().with_tls(ServerTls::Given { chain, key });
    let (node, offer, target) = seeder_with(config, bytes, None).await;
    let pinned = offer.endpoint.as_str();
    assert!(
        pinned.ends_with(&format!("#sha256={}", shown.fingerprint())),
        "{pinned}"
    );
    let plain = at(pinned.split('#').next().unwrap());
    (node, plain, target)
}

fn at(url: &str) -> PeerOffer {
    PeerOffer::new(Protocol::Http, Endpoint::new(url).unwrap())
}

#[track_caller]
fn is_refused<T: std::fmt::Debug>(result: Result<T, TransferError>, why: &str) {
    let refused = matches!(&result, Err(TransferError::Refused { reason, retryable: false, .. })
        if reason.contains("certificate"));
    assert!(refused, "{why}: {result:?}");
}

#[tokio::test]
async fn a_peer_is_reached_over_tls_and_known_by_its_certificate() {
    let bytes = content(3_000_000);
    let (node, offer, target, identity) = bound_seeder(&bytes).await;
    let address = node.local_addr().unwrap();
    let peer = identity.peer_id();
    assert_eq!(
        offer.endpoint.as_str(),
        format!("https://{address}/#peer={peer}")
    );
    let client = client().await;
    let mut announced = at(&format!("https://{address}/"));
    announced.peer = Some(peer.clone());
    for offer in [&offer, &announced] {
        let source = soon(client.connect(offer, &target)).await.unwrap();
        assert_eq!(fetch(&*source, bytes.len()).await.unwrap(), bytes);
        source.close().await;
    }
    // Clear HTTP is served at the same port.
    let clear = at(&format!("http://{address}/"));
    let source = soon(client.connect(&clear, &target)).await.unwrap();
    assert_eq!(fetch(&*source, bytes.len()).await.unwrap(), bytes);
    // Nobody else is taken for it, nor it for somebody else.
    let stranger = Identity::new().peer_id();
    let pinned = at(&format!("https://{address}/#peer={stranger}"));
    is_refused(soon(client.connect(&pinned, &target)).await, "pinned");
    announced.peer = Some(stranger.clone());
    is_refused(soon(client.connect(&announced, &target)).await, "announced");
    let mut contradiction = offer.clone();
    contradiction.peer = Some(stranger);
    let error = soon(client.connect(&contradiction, &target))
        .await
        .unwrap_err();
    assert!(matches!(error, TransferError::Refused { .. }), "{error:?}");
    let unnamed = at(&format!("https://{address}/"));
    is_refused(
        soon(client.connect(&unnamed, &target)).await,
        "by nobody's root",
    );
    soon(client.shutdown()).await.unwrap();
    soon(node.shutdown()).await.unwrap();
}

#[tokio::test]
async fn certificates_that_are_not_quite_bound_are_refused() {
    let bytes = content(10);
    let identity = Identity::new();
    let public = identity.public_key();
    let good = |key: &rcgen::KeyPair| signed_key(&public, &statement(&identity, key));
    let with = |content: Vec<u8>| {
        certificate(|params, _| params.custom_extensions.push(extension(content)))
    };
    let changed = |change: &dyn Fn(&mut CertificateParams)| {
        certificate(|params, key| {
            params.custom_extensions.push(extension(good(key)));
            change(params);
        })
    };
    let stranger = Identity::new();
    let elsewhere = new_key();
    let now = std::time::SystemTime::now();
    let day = Duration::from_secs(86_400);
    let issuer_key = new_key();
    let mut issuer = CertificateParams::new(Vec::new()).unwrap();
    issuer.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = issuer.self_signed(&issuer_key).unwrap();
    let issued = |with_issuer: bool| {
        let key = new_key();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.custom_extensions.push(extension(good(&key)));
        let own = params.signed_by(&key, &issuer, &issuer_key).unwrap();
        let mut chain = vec![own.der().clone()];
        chain.extend(with_issuer.then(|| issuer.der().clone()));
        Shown { chain, key }
    };
    let twice = certificate(|params, key| {
        params.custom_extensions = vec![extension(good(key)), extension(good(key))];
    });
    let flipped = certificate(|params, key| {
        let mut content = good(key);
        *content.last_mut().unwrap() ^= 1;
        params.custom_extensions.push(extension(content));
    });
    let longer = certificate(|params, key| {
        params
            .custom_extensions
            .push(extension([good(key), vec![0]].concat()));
    });
    let mut tampered = bound(&identity);
    let mut der = tampered.chain[0].to_vec();
    *der.last_mut().unwrap() ^= 1;
    tampered.chain[0] = der.into();
    let by_stranger = certificate(|params, key| {
        let content = signed_key(&public, &statement(&stranger, key));
        params.custom_extensions.push(extension(content));
    });
    for (why, shown) in [
        ("no extension", certificate(|_, _| {})),
        ("the extension of another key", with(good(&elsewhere))),
        ("a signature of another identity", by_stranger),
        ("another identity", bound(&stranger)),
        ("a changed signature", flipped),
        ("bytes behind", longer),
        ("two extensions", twice),
        ("nothing in it", with(Vec::new())),
        ("no signature", with(signed_key(&public, &[]))),
        (
            "expired",
            changed(&|params| params.not_after = (now - day).into()),
        ),
        (
            "not valid yet",
            changed(&|params| params.not_before = (now + day).into()),
        ),
        ("somebody else's signature", issued(false)),
        ("a chain", issued(true)),
        ("its own signature changed", tampered),
    ] {
        // Not the code's own server: it might not show all of these.
        let address = speaking(&shown, &Speaking::default(), async |_| {}).await;
        let offer = at(&format!("https://{address}/#peer={}", identity.peer_id()));
        let client = client().await;
        let result = soon(client.connect(&offer, &identification(&bytes))).await;
        is_refused(result, why);
        let mut offer = at(&format!("https://{address}/"));
        offer.peer = Some(identity.peer_id());
        let result = soon(client.connect(&offer, &identification(&bytes))).await;
        is_refused(result, why);
    }
    // And the same with nothing wrong gets as far as HTTP.
    let address = speaking(&bound(&identity), &Speaking::default(), async |_| {}).await;
    let offer = at(&format!("https://{address}/#peer={}", identity.peer_id()));
    let error = soon(client().await.connect(&offer, &identification(&bytes))).await;
    assert!(
        matches!(error, Err(TransferError::Connection { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn who_lacks_the_certificates_key_is_refused() {
    let identity = Identity::new();
    let shown = bound(&identity);
    let how = Speaking {
        other_key: Some(new_key()),
        ..Speaking::default()
    };
    let address = speaking(&shown, &how, async |_| {}).await;
    let target = identification(b"x");
    for pin in [
        format!("peer={}", identity.peer_id()),
        format!("sha256={}", shown.fingerprint()),
    ] {
        let offer = at(&format!("https://{address}/#{pin}"));
        let error = soon(client().await.connect(&offer, &target)).await;
        let error = error.unwrap_err();
        assert!(!matches!(error, TransferError::Timeout { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_given_certificate_is_known_by_its_hash_or_by_a_root() {
    let bytes = content(300_000);
    let shown = certificate(|_, _| {});
    let (node, plain, target) = showing(&shown, &bytes).await;
    let url = plain.endpoint.as_str();
    let good = at(&format!("{url}#sha256={}", shown.fingerprint()));
    let source = soon(client().await.connect(&good, &target)).await.unwrap();
    assert_eq!(fetch(&*source, bytes.len()).await.unwrap(), bytes);
    let bad = at(&format!("{url}#sha256={}", "0".repeat(64)));
    is_refused(
        soon(client().await.connect(&bad, &target)).await,
        "another hash",
    );
    is_refused(
        soon(client().await.connect(&plain, &target)).await,
        "no root",
    );

    let trust = ClientTls::default()
        .with_system_roots(false)
        .with_roots(&pem_of(&shown));
    let believing = client_with(HttpConfig::default().with_trust(trust.clone())).await;
    let source = soon(believing.connect(&plain, &target)).await.unwrap();
    assert_eq!(fetch(&*source, bytes.len()).await.unwrap(), bytes);
    let port = node.local_addr().unwrap().port();
    let named = at(&format!("https://localhost:{port}/"));
    soon(believing.connect(&named, &target)).await.unwrap();
    // A seeder that is announced by a peer may have a certificate for its host instead.
    let mut announced = plain.clone();
    announced.peer = Some(Identity::new().peer_id());
    soon(believing.connect(&announced, &target)).await.unwrap();
    // The certificate is for neither of these names.
    let other = at(&format!("https://127.0.0.2:{port}/"));
    let result = soon(believing.connect(&other, &target)).await;
    assert!(result.is_err(), "{result:?}");
    let none = ClientTls::default().with_system_roots(false);
    let nobody = client_with(HttpConfig::default().with_trust(none)).await;
    is_refused(
        soon(nobody.connect(&plain, &target)).await,
        "no roots at all",
    );
}

#[tokio::test]
async fn old_web_servers_are_spoken_to_and_old_peers_are_not() {
    let identity = Identity::new();
    let shown = bound(&identity);
    let how = Speaking {
        versions: &OLD,
        ..Speaking::default()
    };
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nAccept-Ranges: bytes\r\n\r\n";
    let serve = async |mut session: tokio_rustls::server::TlsStream<TcpStream>| {
        let mut request = [0; 4096];
        while session.read(&mut request).await.unwrap_or(0) > 0 {
            session.write_all(head.as_bytes()).await.unwrap();
        }
    };
    let address = speaking(&shown, &how, serve).await;
    let trust = ClientTls::default().with_roots(&pem_of(&shown));
    let client = client_with(HttpConfig::default().with_trust(trust)).await;
    let target = identification(b"x");
    let mirror = at(&format!("https://{address}/file")).as_mirror();
    let source = soon(client.connect(&mirror, &target)).await.unwrap();
    assert_eq!(source.size(), Some(10));
    let peer = at(&format!("https://{address}/#peer={}", identity.peer_id()));
    let error = soon(client.connect(&peer, &target)).await.unwrap_err();
    assert!(
        matches!(error, TransferError::Connection { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_mirror_does_not_send_us_into_the_open() {
    let shown = certificate(|_, _| {});
    let serve = async |mut session: tokio_rustls::server::TlsStream<TcpStream>| {
        let mut request = vec![0; 4096];
        while let Ok(read @ 1..) = session.read(&mut request).await {
            let asked = String::from_utf8_lossy(&request[..read]).into_owned();
            let location = match asked.split(' ').nth(1).unwrap() {
                "/open" => "http://127.0.0.1:1/file",
                "/inward" => "https://10.0.0.1/file",
                _ => "",
            };
            let answer = match location {
                "" => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nAccept-Ranges: bytes\r\n\r\n"
                    .to_owned(),
                to => format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"),
            };
            session.write_all(answer.as_bytes()).await.unwrap();
        }
    };
    let address = speaking(&shown, &Speaking::default(), serve).await;
    let pin = shown.fingerprint();
    let target = identification(b"x");
    let connect = async |path: &str| {
        let offer = at(&format!("https://{address}{path}#sha256={pin}")).as_mirror();
        soon(client().await.connect(&offer, &target)).await
    };
    assert_eq!(connect("/file").await.unwrap().size(), Some(10));
    for path in ["/open", "/inward"] {
        let error = connect(path).await.unwrap_err();
        assert!(
            matches!(
                error,
                TransferError::Refused {
                    retryable: false,
                    ..
                }
            ),
            "{error:?}"
        );
    }
}

/// A session with a node's server, over HTTP/1.1.
async fn session(
    node: &HttpProtocol,
    alpn: &[&[u8]],
) -> tokio_rustls::client::TlsStream<TcpStream> {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

    /// Believes anybody: what is shown is looked at elsewhere.
    #[derive(Debug)]
    struct Anybody;

    impl ServerCertVerifier for Anybody {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
        }
    }

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let stream = TcpStream::connect(node.local_addr().unwrap())
        .await
        .unwrap();
    let name = "localhost".try_into().unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    soon(connector.connect(name, stream)).await.unwrap()
}

#[tokio::test]
async fn the_server_speaks_what_was_agreed_on() {
    let bytes = content(100_000);
    let (node, _, target, _) = bound_seeder(&bytes).await;
    for (alpn, agreed) in [
        (&[][..], None),
        (&[&b"http/1.1"[..]][..], Some(&b"http/1.1"[..])),
        (&[b"h2", b"http/1.1"], Some(b"h2")),
        (&[b"http/1.1", b"h2"], Some(b"h2")),
    ] {
        let mut session = session(&node, alpn).await;
        assert_eq!(session.get_ref().1.alpn_protocol(), agreed);
        if agreed == Some(b"h2") {
            let mut frame = [0; 9];
            soon(session.read_exact(&mut frame)).await.unwrap();
            assert_eq!(frame[3], 4, "settings come first");
            continue;
        }
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            path_of(&target)
        );
        session.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        soon(session.read_to_end(&mut answer)).await.unwrap();
        let answer = RawAnswer::parse(&answer);
        assert_eq!((answer.status, &answer.body[..]), (200, &bytes[..]));
    }
    soon(node.shutdown()).await.unwrap();
}

#[tokio::test]
async fn handshakes_count_as_connections_and_end() {
    let config = loopback()
        .with_tls(ServerTls::SelfSigned)
        .with_max_connections(2, 2)
        .with_session_limits(8, Duration::from_millis(300));
    let (node, _, target) = seeder_with(config, &content(10), None).await;
    let address = node.local_addr().unwrap();
    // Two that begin a handshake and never end it take all there are.
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&[0x16, 3, 1]).await.unwrap();
        held.push(stream);
    }
    for stream in &mut held {
        let mut rest = Vec::new();
        // Ended by the server, with or without a word.
        let _ = soon(stream.read_to_end(&mut rest)).await;
    }
    let answer = crate::support::ask(address, "GET", &path_of(&target), "").await;
    assert_eq!(answer.status, 200);
    // What is no TLS behind a beginning of it is no reason to panic, either.
    for garbage in [
        &[0x16; 5000][..],
        &[0x16, 3, 1, 0xff, 0xff],
        &[0x16, 3, 3, 0, 0],
    ] {
        crate::support::raw(address, garbage).await;
    }
    let begun = std::time::Instant::now();
    soon(node.shutdown()).await.unwrap();
    assert!(begun.elapsed() < PATIENCE);
}

#[tokio::test]
async fn settings_that_cannot_work_are_errors() {
    let bind = async |config: HttpConfig| {
        let store = Arc::new(MemoryStore::new(1 << 20));
        let bound =
            HttpProtocol::bind(config, store, TransferRegistry::new(), Arc::new(OpenGate)).await;
        bound.map(drop)
    };
    let (good, other) = (certificate(|_, _| {}), certificate(|_, _| {}));
    let (chain, key) = (pem_of(&good), pem("PRIVATE KEY", &good.key.serialize_der()));
    let other_key = pem("PRIVATE KEY", &other.key.serialize_der());
    for (chain, key) in [
        (Vec::new(), key.clone()),
        (chain.clone(), Vec::new()),
        (chain.clone(), other_key),
        (b"-----BEGIN CERTIFICATE-----\n!".to_vec(), key.clone()),
        (
            chain,
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----".to_vec(),
        ),
    ] {
        let config = loopback().with_tls(ServerTls::Given { chain, key });
        assert!(!format!("{config:?}").contains("PRIVATE"));
        let error = bind(config).await.unwrap_err();
        assert!(
            matches!(error, HttpError::Tls { .. }) && !error.is_retryable(),
            "{error:?}"
        );
    }
    for roots in [
        &b"nothing"[..],
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
    ] {
        let trust = ClientTls::default().with_roots(roots);
        let error = bind(HttpConfig::default().with_trust(trust))
            .await
            .unwrap_err();
        assert!(matches!(error, HttpError::Tls { .. }), "{error:?}");
    }
}
