//! Proxies: small ones of the test's own, which say what they were asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use chiral_core::conformance::content_protocol::identification;
use chiral_core::{
    ByteRange, ChunkSource, ContentProtocol, Endpoint, PeerOffer, Protocol, TransferError,
};
use chiral_protocols::http::{AddressPolicy, HttpConfig, HttpError, HttpProtocol, ProxySettings};
use chiral_storage::MemoryStore;
use futures_util::StreamExt;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::hostile_servers::{Then, rogue};
use crate::support::{OpenGate, client_with, content, seeder, soon};

type Heard = Arc<Mutex<Vec<String>>>;

async fn relay(mut near: BufReader<TcpStream>, to: SocketAddr, first: &[u8]) {
    let mut far = TcpStream::connect(to).await.unwrap();
    far.write_all(first).await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
}

/// A proxy: answers where it is, and what it hears. Whatever it is asked for, it leads `to`.
async fn proxy<Work>(
    serve: impl Fn(BufReader<TcpStream>, Heard) -> Work + Send + Sync + 'static,
) -> (SocketAddr, Heard)
where
    Work: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heard = Heard::default();
    let told = heard.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(BufReader::new(stream), told.clone()));
        }
    });
    (address, heard)
}

/// SOCKS5 (RFC 1928) for one user with a password (RFC 1929), or for everybody.
async fn socks(to: SocketAddr, user: Option<&'static str>) -> (SocketAddr, Heard) {
    proxy(move |mut near, heard| async move {
        let mut hello = [0; 3];
        near.read_exact(&mut hello).await.unwrap();
        assert_eq!(hello, [5, 1, if user.is_some() { 2 } else { 0 }]);
        near.write_all(&[5, hello[2]]).await.unwrap();
        if let Some(user) = user {
            let mut words = Vec::new();
            assert_eq!(near.read_u8().await.unwrap(), 1);
            for _ in 0..2 {
                let mut word = vec![0; near.read_u8().await.unwrap().into()];
                near.read_exact(&mut word).await.unwrap();
                words.push(String::from_utf8(word).unwrap());
            }
            let right = words.join(":") == user;
            near.write_all(&[1, u8::from(!right)]).await.unwrap();
            if !right {
                return;
            }
        }
        let mut head = [0; 4];
        near.read_exact(&mut head).await.unwrap();
        assert_eq!(head[..3], [5, 1, 0]);
        let host = match head[3] {
            1 => std::net::Ipv4Addr::from(near.read_u32().await.unwrap()).to_string(),
            4 => std::net::Ipv6Addr::from(near.read_u128().await.unwrap()).to_string(),
            _ => {
                let mut name = vec![0; near.read_u8().await.unwrap().into()];
                near.read_exact(&mut name).await.unwrap();
                String::from_utf8(name).unwrap()
            }
        };
        let port = near.read_u16().await.unwrap();
        heard.lock().unwrap().push(format!("{host} {port}"));
        near.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])
            .await
            .unwrap();
        relay(near, to, &[]).await;
    })
    .await
}

/// An HTTP proxy, which answers CONNECT with this, or forwards; it hears request lines and
/// authorizations.
async fn http(to: SocketAddr, answer: &'static str) -> (SocketAddr, Heard) {
    proxy(move |mut near, heard| async move {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if near.read_line(&mut head).await.unwrap() == 0 {
                return;
            }
        }
        for line in head.lines() {
            let lower = line.to_ascii_lowercase();
            if lower.ends_with("http/1.1") || lower.starts_with("proxy-authorization") {
                heard.lock().unwrap().push(line.to_owned());
            }
        }
        if !head.starts_with("CONNECT") {
            return relay(near, to, head.as_bytes()).await;
        }
        near.write_all(answer.as_bytes()).await.unwrap();
        if answer.contains(" 200 ") {
            relay(near, to, &[]).await;
        }
    })
    .await
}

const ESTABLISHED: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

fn through(proxy: String) -> HttpConfig {
    HttpConfig::default().with_proxies(ProxySettings::all(proxy))
}

fn at(url: &str) -> PeerOffer {
    PeerOffer::new(Protocol::Http, Endpoint::new(url).unwrap())
}

async fn fetch(source: &dyn ChunkSource, size: usize) -> Vec<u8> {
    let mut got = Vec::new();
    let mut deliveries = source.fetch(ByteRange::new(0, size as u64));
    while let Some(delivery) = soon(deliveries.next()).await {
        got.extend_from_slice(&delivery.unwrap().bytes);
    }
    got
}

/// Fetches by a name that only the proxy knows.
async fn by(config: HttpConfig, url: &str, bytes: &Bytes) -> Result<Vec<u8>, TransferError> {
    let client = client_with(config).await;
    let target = identification(bytes);
    let source = soon(client.connect(&at(url), &target)).await?;
    let got = fetch(&*source, bytes.len()).await;
    soon(client.shutdown()).await.unwrap();
    Ok(got)
}

#[tokio::test]
async fn socks_connects_to_names_that_it_alone_knows() {
    let bytes = content(500_000);
    let (node, _, _) = seeder(&bytes).await;
    let to = node.local_addr().unwrap();
    let (address, heard) = socks(to, None).await;
    let got = by(
        through(format!("socks5://{address}")),
        "http://seeder.invalid/",
        &bytes,
    )
    .await;
    assert_eq!(got.unwrap(), bytes);
    let heard = heard.lock().unwrap().clone();
    assert!(
        !heard.is_empty() && heard.iter().all(|to| to == "seeder.invalid 80"),
        "{heard:?}"
    );

    let (address, heard) = socks(to, Some("user:p@ss")).await;
    let config = through(format!("socks5h://user:p%40ss@{address}"));
    let got = by(config, "http://seeder.invalid:8080/", &bytes).await;
    assert_eq!(got.unwrap(), bytes);
    assert_eq!(heard.lock().unwrap()[0], "seeder.invalid 8080");
    for wrong in ["user:pass@", "user@"] {
        let config = through(format!("socks5://{wrong}{address}"));
        let error = by(config, "http://seeder.invalid/", &bytes)
            .await
            .unwrap_err();
        assert!(
            matches!(error, TransferError::Connection { .. }),
            "{error:?}"
        );
    }
    let (address, heard) = socks(to, None).await;
    for (url, host) in [
        ("http://192.0.2.7/", "192.0.2.7 80"),
        ("http://[2001:db8::7]:1/", "2001:db8::7 1"),
    ] {
        by(through(format!("socks5://{address}")), url, &bytes)
            .await
            .unwrap();
        assert_eq!(heard.lock().unwrap().last().unwrap(), host);
    }
}

#[tokio::test]
async fn an_http_proxy_forwards_clear_requests() {
    let bytes = content(500_000);
    let (node, _, target) = seeder(&bytes).await;
    let (address, heard) = http(node.local_addr().unwrap(), ESTABLISHED).await;
    let config = through(format!("http://user:word@{address}"));
    let got = by(config, "http://seeder.invalid:81/", &bytes).await;
    assert_eq!(got.unwrap(), bytes);
    let heard = heard.lock().unwrap().clone();
    let cid = target.cid().unwrap();
    assert_eq!(
        heard[0],
        format!("GET http://seeder.invalid:81/file/{cid}/manifest HTTP/1.1")
    );
    assert_eq!(
        heard[1].to_ascii_lowercase(),
        "proxy-authorization: basic dxnlcjp3b3jk"
    );
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn an_http_proxy_is_asked_for_a_tunnel_to_tls() {
    use chiral_core::PeerSigner;
    use chiral_protocols::http::ServerTls;

    let bytes = content(500_000);
    let identity = Arc::new(crate::tls_support::Identity::new());
    let peer = identity.peer_id();
    let config = crate::support::loopback()
        .with_tls(ServerTls::SelfSigned)
        .with_signer(identity);
    let (node, _, _) = crate::support::seeder_with(config, &bytes, None).await;
    let to = node.local_addr().unwrap();
    let url = format!("https://seeder.invalid/#peer={peer}");
    let (address, heard) = http(to, ESTABLISHED).await;
    let got = by(through(format!("http://a:b@{address}")), &url, &bytes).await;
    assert_eq!(got.unwrap(), bytes);
    // One connection, over which everything went.
    let expected = [
        "CONNECT seeder.invalid:443 HTTP/1.1",
        "Proxy-Authorization: Basic YTpi",
    ];
    assert_eq!(*heard.lock().unwrap(), expected);
    let (address, _) = socks(to, None).await;
    let got = by(through(format!("socks5://{address}")), &url, &bytes).await;
    assert_eq!(got.unwrap(), bytes);
    for answer in [
        "HTTP/1.1 403 Forbidden\r\n\r\n",
        "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
        "HTTP/1.1 20",
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "",
    ] {
        let (address, _) = http(to, answer).await;
        let error = by(through(format!("http://{address}")), &url, &bytes)
            .await
            .unwrap_err();
        assert!(
            matches!(error, TransferError::Connection { .. }),
            "{answer}: {error:?}"
        );
    }
}

#[tokio::test]
async fn a_proxy_that_says_nothing_or_everything_is_given_up() {
    let short = Duration::from_millis(300);
    let target = identification(b"x");
    let (silent, _) = proxy(|near, _| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(near);
    })
    .await;
    let (endless, _) =
        proxy(|mut near, _| async move { while near.write_all(&[b'x'; 4096]).await.is_ok() {} })
            .await;
    for url in [
        format!("socks5://{silent}"),
        format!("socks5://{endless}"),
        format!("http://{silent}"),
        format!("http://{endless}"),
    ] {
        let config = through(url.clone()).with_timeouts(short, short, short);
        let client = client_with(config).await;
        let error = soon(client.connect(&at("http://a.invalid/"), &target))
            .await
            .unwrap_err();
        let blamed = matches!(
            error,
            TransferError::Connection { .. }
                | TransferError::Timeout { .. }
                | TransferError::Protocol { .. }
        );
        assert!(blamed, "{url}: {error:?}");
    }
}

#[tokio::test]
async fn a_proxy_is_no_way_around_the_policy() {
    let bytes = content(10);
    let (node, _, target) = seeder(&bytes).await;
    let to = node.local_addr().unwrap();
    let (address, heard) = socks(to, None).await;
    let strict = through(format!("socks5://{address}")).with_announced(AddressPolicy::GlobalOnly);
    let client = client_with(strict).await;
    for (url, allowed) in [
        ("http://192.0.2.1/", false),
        ("http://10.0.0.1/", false),
        ("http://127.0.0.1/", false),
        ("http://[::ffff:10.0.0.1]/", false),
        // What it would mean to the proxy nobody can tell.
        ("http://a.invalid/", false),
        ("http://8.8.8.8/", true),
    ] {
        let mut offer = at(url);
        offer.peer = Some(
            "12D3KooWGzh5VFyNoqZk6s7vr1vZbqz9dkUTZ4Pfjq5FEfnSPfym"
                .parse()
                .unwrap(),
        );
        let result = soon(client.connect(&offer, &target)).await;
        assert_eq!(result.is_ok(), allowed, "{url}: {result:?}");
        if let Err(error) = result {
            assert!(
                matches!(error, TransferError::Refused { .. }),
                "{url}: {error:?}"
            );
        }
        // The user may go anywhere.
        soon(client.connect(&at(url), &target)).await.unwrap();
    }
    assert!(heard.lock().unwrap().contains(&"8.8.8.8 80".to_owned()));
}

#[tokio::test]
async fn a_redirect_behind_a_proxy_leads_no_further_in() {
    let to = rogue(|request| {
        let location = request.split(['/', ' ']).nth(2).unwrap_or("");
        let answer = match location {
            "file" => {
                "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nAccept-Ranges: bytes\r\n\r\n".to_owned()
            }
            at => format!("HTTP/1.1 302 Found\r\nLocation: http://{at}/file\r\n\r\n"),
        };
        (answer.into_bytes(), Then::Close)
    })
    .await;
    let (address, _) = socks(to, None).await;
    let client = client_with(through(format!("socks5://{address}"))).await;
    let target = identification(b"x");
    for (from, location, allowed) in [
        ("a.invalid", "b.invalid", true),
        ("a.invalid", "8.8.8.8", true),
        ("10.0.0.1", "10.0.0.2", true),
        ("a.invalid", "127.0.0.1", false),
        ("a.invalid", "10.0.0.1", false),
        ("a.invalid", "localhost", false),
        ("a.invalid", "x.localhost.", false),
        ("a.invalid", "127.1", false),
        ("a.invalid", "0x7f000001", false),
        ("8.8.8.8", "10.0.0.1", false),
    ] {
        let offer = at(&format!("http://{from}/{location}")).as_mirror();
        let result = soon(client.connect(&offer, &target)).await;
        assert_eq!(result.is_ok(), allowed, "{from} -> {location}: {result:?}");
        if let Err(error) = result {
            assert!(
                matches!(error, TransferError::Refused { .. }),
                "{location}: {error:?}"
            );
        }
    }
}

#[tokio::test]
async fn exceptions_go_straight_and_nonsense_is_an_error() {
    let bytes = content(10);
    let (node, offer, target) = seeder(&bytes).await;
    // Nobody is there.
    let settings = ProxySettings::all("http://127.0.0.1:1").with_exceptions("127.0.0.0/8");
    let direct = client_with(HttpConfig::default().with_proxies(settings)).await;
    soon(direct.connect(&offer, &target)).await.unwrap();
    let lost = client_with(through("http://127.0.0.1:1".to_owned())).await;
    let error = soon(lost.connect(&offer, &target)).await.unwrap_err();
    assert!(
        matches!(error, TransferError::Connection { .. }),
        "{error:?}"
    );
    soon(node.shutdown()).await.unwrap();

    for text in ["ftp://a", "https://a:1", "socks4://a:1", "socks5://"] {
        let config = through(text.to_owned());
        let store = Arc::new(MemoryStore::new(1 << 20));
        let registry = chiral_core::TransferRegistry::new();
        let bound = HttpProtocol::bind(config, store, registry, Arc::new(OpenGate)).await;
        assert!(matches!(bound, Err(HttpError::Proxy)), "{text}: {bound:?}");
    }
}
