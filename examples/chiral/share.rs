//! `chiral share`: serve files until interrupted.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use chiral::protocols::bittorrent::swarm::BitTorrentConfig;
use chiral::protocols::http::{AddressPolicy, HttpConfig};
use chiral::protocols::private::PrivateConfig;
use chiral::{BuildError, Endpoint, Node, Protocol, Shared};
use serde_json::json;

use super::account::default_directory;
use super::arguments::{Over, Share, Swarm, When};
use super::failure::{Exit, Failure};
use super::output::Output;
use super::signals::Signals;

/// Port to serve at unless something else is said.
const PORT: u16 = 8480;

pub(crate) async fn run(command: Share, output: &Output) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let directory = match &command.data_dir {
        Some(directory) => directory.clone(),
        None => default_directory()?,
    };
    let node = start(&directory, &command).await?;
    let serve = async {
        for file in &command.files {
            let shared = share(&node, output, file).await?;
            let torrent = write_torrent(&node, &command, &shared)?;
            tell(&node, output, file, &shared, torrent.as_deref())?;
        }
        if command.page {
            tell_page(&node, output)?;
        }
        output.text("serving until Ctrl-C")?;
        std::future::pending().await
    };
    let result: Result<(), Failure> = tokio::select! {
        failed = serve => failed,
        _ = signals.next() => Ok(()),
    };
    if result.is_ok() {
        output.note("ending: requests under way may finish");
        output
            .event(&json!({ "event": "ending" }))
            .unwrap_or_default();
    }
    signals.then_at_once();
    let ended = node.shutdown().await;
    result?;
    Ok(ended?)
}

async fn start(directory: &Path, command: &Share) -> Result<Node, Failure> {
    let wanted = command.http;
    let mut serve = HttpConfig::default().with_page(command.page);
    if let Some(tls) = command.server_tls()? {
        serve = serve.with_tls(tls);
    }
    let address = wanted.unwrap_or((Ipv4Addr::LOCALHOST, PORT).into());
    let config = listening(serve.clone(), address)?;
    let network = command.network.settings()?;
    let payments = command.account.payments(command.data_dir.as_deref())?;
    let payments = payments.map(|payments| command.contracts.apply(payments));
    let payments = match (payments, command.price) {
        (Some(payments), Some(price)) => Some(command.terms.apply(price, payments)?),
        (payments, _) => payments,
    };
    if command.terms.policy == When::LockedVoucher && command.protocols.contains(&Over::Http) {
        return Err(
            Failure::new(Exit::Usage, "sealed chunks are not sold over HTTP")
                .next("share with --protocols private, or by another --policy"),
        );
    }
    if payments.is_none() && command.price.is_some() {
        return Err(
            Failure::new(Exit::Usage, "a price needs a wallet to be paid to")
                .next("name one with --keystore FILE or --private-key HEX"),
        );
    }
    let private = command.protocols.contains(&Over::Private);
    if private && network.is_none() {
        return Err(no_network());
    }
    let bittorrent = command.protocols.contains(&Over::BitTorrent);
    let listen = command
        .bittorrent
        .unwrap_or((Ipv4Addr::LOCALHOST, 0).into());
    let swarm = bittorrent
        .then(|| swarm(Some(listen), &command.swarm))
        .transpose()?
        .map(|swarm| swarm.with_share_version(command.torrent_version.into()));
    if swarm.is_none() && (command.bittorrent.is_some() || command.torrent_file.is_some()) {
        let message = "--bittorrent and --torrent-file are for sharing over BitTorrent";
        return Err(Failure::new(Exit::Usage, message).next("add --protocols http,bittorrent"));
    }
    let most = command.max_connections as usize;
    let build = |config: HttpConfig| {
        let config = config.with_max_connections(most, most / 4);
        let mut builder = Node::builder().data_dir(directory);
        builder = match command.protocols.contains(&Over::Http) {
            true => builder.http(config),
            false => builder.without_http(),
        };
        if private {
            builder = builder.private(PrivateConfig::default());
        }
        if let Some(swarm) = swarm.clone() {
            builder = builder.bittorrent(swarm);
        }
        if let Some(limit) = command.limit_rate {
            builder = builder.limit_up(limit);
        }
        if let Some(network) = network.clone() {
            builder = builder.libp2p(network);
        }
        if let Some(payments) = payments.clone() {
            builder = builder.payments(payments);
        }
        builder.start()
    };
    match build(config).await {
        // Only our own choice of port is changed, never the user's.
        Err(BuildError::Http(error)) if wanted.is_none() && error.is_retryable() => {
            let any = serve.with_listen((Ipv4Addr::LOCALHOST, 0).into());
            Ok(build(any).await?)
        }
        result => Ok(result?),
    }
}

/// Takes part in swarms, and listens at this address, under one that others can use.
pub(crate) fn swarm(
    listen: Option<SocketAddr>,
    public: &Swarm,
) -> Result<BitTorrentConfig, Failure> {
    let mut config = BitTorrentConfig::default()
        .with_trackers(public.trackers.clone())
        .with_lsd(public.lsd);
    if !public.dht.is_empty() {
        config = config.with_dht(public.dht.clone());
    }
    let Some(address) = listen else {
        return Ok(config);
    };
    // Whoever listens on this machine only has a swarm of his own.
    if address.ip().is_loopback() {
        let (private, loopback) = (false, true);
        config = config.with_addresses(AddressPolicy::GlobalAnd { private, loopback });
    }
    let mut config = config.with_listen(address).with_utp(true);
    if address.ip().is_unspecified() {
        if address.port() == 0 {
            let example = format!("name one, for instance --bittorrent {}:6881", address.ip());
            return Err(Failure::new(Exit::Usage, format!("{address} has no port")).next(example));
        }
        config.public_address = Some(reachable_at(address));
    }
    Ok(config)
}

/// Writes the .torrent of a file, if that is wished; where it is.
fn write_torrent(
    node: &Node,
    command: &Share,
    shared: &Shared,
) -> Result<Option<PathBuf>, Failure> {
    let Some(wanted) = &command.torrent_file else {
        return Ok(None);
    };
    let Some(torrent) = node.torrent(shared.cid()) else {
        return Err(Failure::new(
            Exit::Failed,
            "there is no torrent of an empty file",
        ));
    };
    let path = match wanted.is_dir() {
        true => wanted.join(format!("{}.torrent", torrent.info().name())),
        false if command.files.len() > 1 => {
            let message = format!("{} is no directory", wanted.display());
            return Err(Failure::new(Exit::Usage, message)
                .next("name a directory with --torrent-file, for there are several files"));
        }
        false => wanted.clone(),
    };
    std::fs::write(&path, torrent.encode()).map_err(|e| Failure::io("write", &path, &e))?;
    Ok(Some(path))
}

/// The private protocol was asked for without a network.
pub(crate) fn no_network() -> Failure {
    Failure::new(Exit::Usage, "the private protocol needs a network of peers")
        .next("name an address with --listen, such as /ip4/0.0.0.0/tcp/4001, or --bootstrap")
}

/// Serves at this address, too, under a URL that others can use.
pub(crate) fn listening(config: HttpConfig, address: SocketAddr) -> Result<HttpConfig, Failure> {
    let config = config.with_listen(address);
    if !address.ip().is_unspecified() {
        return Ok(config);
    }
    if address.port() == 0 {
        let example = format!("name one, for instance --http {}:{PORT}", address.ip());
        return Err(Failure::new(Exit::Usage, format!("{address} has no port")).next(example));
    }
    let secure = config.tls.is_some();
    Ok(config.with_public_url(reachable(address, secure)?))
}

/// The URL by which others are likely to reach a server that listens at all addresses.
fn reachable(address: SocketAddr, secure: bool) -> Result<Endpoint, Failure> {
    let reached = reachable_at(address);
    let scheme = if secure { "https" } else { "http" };
    Endpoint::new(format!("{scheme}://{reached}/"))
        .map_err(|error| Failure::new(Exit::Failed, error.to_string()))
}

/// The address at which others are likely to reach who listens at all addresses.
fn reachable_at(address: SocketAddr) -> SocketAddr {
    // Connecting a datagram socket sends nothing: the system only looks up which address it
    // would use towards that place, here one of those that are for documentation.
    let probe = |from: &str, to: &str| -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind(from)?;
        socket.connect(to)?;
        Ok(socket.local_addr()?.ip())
    };
    let found = match address {
        SocketAddr::V4(_) => probe("0.0.0.0:0", "192.0.2.1:9"),
        SocketAddr::V6(_) => probe("[::]:0", "[2001:db8::1]:9"),
    };
    let loopback = match address {
        SocketAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
        SocketAddr::V6(_) => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
    };
    SocketAddr::new(found.unwrap_or(loopback), address.port())
}

async fn share(node: &Node, output: &Output, file: &Path) -> Result<Shared, Failure> {
    let bar = output.bar(&file.to_string_lossy());
    let drawn = bar.clone();
    let share = chiral::Share::path(file).progress(move |done, size| {
        drawn.set_length(size);
        drawn.set_position(done);
    });
    let shared = node.share(share).await;
    bar.finish_and_clear();
    Ok(shared?)
}

/// Says where the list of what is shared can be opened.
fn tell_page(node: &Node, output: &Output) -> Result<(), Failure> {
    let protocols = node.manager().protocols();
    let http = protocols.iter().filter(|it| it.name() == Protocol::Http);
    for endpoint in http.flat_map(|protocol| protocol.endpoints()) {
        // Behind a # is what browsers have no use for.
        let url = endpoint.as_str().split('#').next().unwrap_or_default();
        output.text(format!("all of it is listed at {url}"))?;
        output.event(&json!({ "event": "listed", "page": url }))?;
    }
    Ok(())
}

fn tell(
    node: &Node,
    output: &Output,
    file: &Path,
    shared: &Shared,
    torrent: Option<&Path>,
) -> Result<(), Failure> {
    let (cid, link) = (shared.cid(), shared.link.to_string());
    // Who swarms goes by the magnet link.
    let offers = shared.metadata.offers.iter();
    let offers = offers.filter(|offer| offer.protocol != Protocol::BitTorrent);
    let magnet = node.magnet(cid).map(|magnet| magnet.to_string());
    let peers: Vec<&str> = offers.map(|offer| offer.endpoint.as_str()).collect();
    let bootstrap = node.addresses();
    let price = node.price(cid);
    output.text(format!("{}\n  {link}", file.display()))?;
    if !price.is_free() {
        output.text(format!("  price    {price} CHI per MiB"))?;
    }
    for address in &bootstrap {
        output.text(format!(
            "  get it   chiral get '{link}' --bootstrap {address}"
        ))?;
    }
    for peer in &peers {
        output.text(format!("  get it   chiral get '{link}' --peer {peer}"))?;
        if !price.is_free() {
            continue;
        }
        let url = url(peer);
        // Nobody but us knows what the certificate is bound to.
        let unknown = if url.len() == peer.len() { "" } else { "-k " };
        output.text(format!("  or with  curl {unknown}-OJ {url}file/{cid}"))?;
    }
    if let Some(magnet) = &magnet {
        output.text(format!("  magnet   {magnet}"))?;
    }
    if let Some(torrent) = torrent {
        output.text(format!("  torrent  {}", torrent.display()))?;
    }
    output.event(&json!({
        "event": "shared",
        "magnet": magnet,
        "torrent": torrent.map(|path| path.to_string_lossy()),
        "file": file.to_string_lossy(),
        "link": link,
        "cid": cid,
        "root": shared.link.root,
        "size": shared.link.size,
        "peers": peers,
        "bootstrap": bootstrap,
        "price_wei_per_mib": price.wei_per_mib().to_string(),
        "urls": peers.iter().map(|peer| format!("{}file/{cid}", url(peer))).collect::<Vec<_>>(),
    }))?;
    Ok(())
}

/// A seeder's URL without whom to expect there, which stands behind it.
fn url(peer: &str) -> &str {
    peer.split('#').next().unwrap_or(peer)
}
