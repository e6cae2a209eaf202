//! `chiral get`: download a file, and go on where an earlier run was.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chiral::core::chunk_store::Location;
use chiral::core::link::file_name;
use chiral::core::money::format_chi;
use chiral::core::transfer::{EventStream, TransferEventKind};
use chiral::core::{Bill, SettlementStatus, U256};
use chiral::payment::statement::{Direction, Status};
use chiral::protocols::EngineConfig;
use chiral::protocols::private::PrivateConfig;
use chiral::storage::identify_file;
use chiral::{Cid, Got, Link, Node, NodeError, Price, Transfer};
use futures_util::StreamExt;
use serde_json::json;

use super::arguments::{Get, Over, Target};
use super::failure::{Exit, Failure};
use super::output::Output;
use super::share::{listening, no_network, swarm};
use super::signals::Signals;
use super::terms::buy;
use super::{stream, torrent};

/// How often the bar, or the JSON, tells how far the download is.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// Longest file name that still has room for what is put around it.
const MAX_NAME_LEN: usize = 240;

pub(crate) async fn run(command: Get, output: &Output) -> Result<(), Failure> {
    let link = match &command.target {
        Target::Link(link) => link.clone(),
        Target::Torrent(source) => {
            let source = source.clone();
            return torrent::run(command, source, output).await;
        }
    };
    let link = &link;
    if command.output == Path::new("-") {
        return stream::run(command, link, output).await;
    }
    let mut signals = Signals::new()?;
    let path = destination(&command.output, link)?;
    let beside = state_beside(&path, link)?;
    let state = command.data_dir.as_ref().unwrap_or(&beside);
    // With state beside it, an earlier run may have been killed after its last step.
    if path.symlink_metadata().is_ok() && command.data_dir.is_none() && !beside.is_dir() {
        return Err(taken(&path));
    }
    let node = start(&command, state).await?;

    let result = if is_complete(&node, &command, link, &path).await {
        Ok(None)
    } else {
        let get = wish(&node, &command, link).to_file(&path);
        let got = download(&node, get, output, &mut signals).await;
        got.map(Some)
    };
    let told = match &result {
        Ok(Some(got)) => tell(output, got, &path),
        Ok(None) => tell_complete(output, link, &path),
        Err(_) => Ok(()),
    };
    let paid = match &result {
        Ok(got) => {
            let bills = got.as_ref().map_or(&[][..], |got| &got.settled);
            pay(&node, &command, bills, output, &mut signals).await
        }
        Err(_) => Ok(()),
    };
    let seeded = match &result {
        Ok(got) if command.seed => {
            // Complete since an earlier run, it was not seeded by this one.
            let shared = match got {
                Some(_) => Ok(()),
                None => node.share(path.as_path()).await.map(drop),
            };
            match shared {
                Ok(()) => seed_on(&node, link.cid, output, &mut signals).await,
                Err(error) => Err(error.into()),
            }
        }
        _ => Ok(()),
    };
    signals.then_at_once();
    let left = node.store().partials().await;
    let ended = node.shutdown().await;
    // Another download may want to go on from there.
    if command.data_dir.is_none() && left.is_ok_and(|partials| partials.is_empty()) {
        std::fs::remove_dir_all(&beside).map_err(|e| Failure::io("remove", &beside, &e))?;
    }
    result.map_err(|failure| advise(failure, &command))?;
    told?;
    ended?;
    seeded?;
    paid
}

/// A node with what the command says.
pub(crate) async fn start(command: &Get, state: &Path) -> Result<Node, Failure> {
    let patience = Duration::from_secs(command.patience);
    let engine = EngineConfig::default().with_source_patience(patience);
    let mut builder = Node::builder().data_dir(state).engine(engine);
    if let Some(limit) = command.limit_rate {
        builder = builder.limit_down(limit);
    }
    let mut web = command.web.settings()?;
    if command.seed {
        let address = command.http.unwrap_or((Ipv4Addr::LOCALHOST, 0).into());
        web = listening(web, address)?;
        builder = builder.auto_seed(true);
    }
    let wanted = |over| command.protocols.is_empty() || command.protocols.contains(&over);
    builder = match wanted(Over::Http) {
        true => builder.http(web),
        false => builder.without_http(),
    };
    let network = command.network.settings()?;
    if command.protocols.contains(&Over::Private) && network.is_none() {
        return Err(no_network());
    }
    if let Some(network) = network {
        builder = builder.libp2p(network);
        if wanted(Over::Private) {
            let fetch = PrivateConfig::default().fetch_only();
            builder = builder.private(fetch);
        }
    }
    let is_torrent = matches!(command.target, Target::Torrent(_));
    let asked_for = command.protocols.contains(&Over::BitTorrent);
    if is_torrent || asked_for || command.bittorrent.is_some() {
        let seed_at = command.seed.then_some((Ipv4Addr::LOCALHOST, 0).into());
        let listen = command.bittorrent.or(seed_at.filter(|_| is_torrent));
        builder = builder.bittorrent(swarm(listen, &command.swarm)?);
    }
    if let Some(payments) = command.account.payments(command.data_dir.as_deref())? {
        let price = command.price.unwrap_or(Price::FREE);
        builder = builder.payments(buy(command, payments.with_price(price))?);
    }
    Ok(builder.start().await?)
}

/// The download as the command has it, without where to.
pub(crate) fn wish(node: &Node, command: &Get, link: &Link) -> chiral::Get {
    let mut get = node.get(link);
    for peer in &command.peers {
        get = get.peer(peer);
    }
    for mirror in &command.mirrors {
        get = get.mirror(mirror);
    }
    get
}

/// Seeds what is complete until a signal comes.
pub(crate) async fn seed_on(
    node: &Node,
    cid: Cid,
    output: &Output,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let endpoints = node.manager().protocol_impl().endpoints();
    let peers: Vec<&str> = endpoints.iter().map(|endpoint| endpoint.as_str()).collect();
    let magnet = node.magnet(cid).map(|magnet| magnet.to_string());
    if let Some(magnet) = &magnet {
        output.text(format!("magnet {magnet}"))?;
    }
    output.text("seeding until Ctrl-C")?;
    output.event(&json!({ "event": "seeding", "cid": cid, "peers": peers, "magnet": magnet }))?;
    signals.next().await;
    output.note("ending: requests under way may finish");
    Ok(())
}

/// Waits for the payment of what was got, and of what earlier runs left.
pub(crate) async fn pay(
    node: &Node,
    command: &Get,
    bills: &[(Bill, SettlementStatus)],
    output: &Output,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let owed: Vec<_> = bills.iter().filter(|(bill, _)| !bill.is_free()).collect();
    let unpaid = |exit| {
        Failure::new(
            exit,
            "the file is complete; its payment waits in the journal",
        )
        .next("run `chiral payments --settle` with the same wallet and chain")
    };
    let patience = Duration::from_secs(command.payment_patience);
    let wait = node.wait_settled(owed.iter().map(|(bill, _)| bill.id));
    let states = tokio::select! {
        waited = tokio::time::timeout(patience, wait) => match waited {
            Ok(states) => states?,
            Err(_) => return Err(unpaid(Exit::Unpaid)),
        },
        exit = signals.next() => return Err(unpaid(exit)),
    };
    paid_before(node, &owed, output).await?;
    for ((bill, _), status) in owed.iter().zip(states) {
        let transaction = match status {
            SettlementStatus::Settled { transaction } => Some(transaction),
            _ => None,
        };
        let payee = bill.payee.map(|wallet| wallet.to_string());
        let hash = transaction.map_or("-".to_owned(), |hash| hash.to_string());
        output.text(format!(
            "paid     {} CHI  to {}  in {hash}",
            format_chi(bill.amount),
            payee.as_deref().unwrap_or("-"),
        ))?;
        output.event(&json!({
            "event": "paid",
            "bill": bill.id.0,
            "cid": bill.cid,
            "payee": payee,
            "bytes": bill.bytes,
            "amount_wei": bill.amount.to_string(),
            "transaction": transaction,
        }))?;
    }
    Ok(())
}

/// Says what was paid for the same files before these bills: while they came, when a seeder lends
/// no more, and by earlier runs.
async fn paid_before(
    node: &Node,
    bills: &[&(Bill, SettlementStatus)],
    output: &Output,
) -> Result<(), Failure> {
    if bills.is_empty() {
        return Ok(());
    }
    let told: BTreeSet<_> = bills.iter().map(|(bill, _)| Some(bill.id)).collect();
    let files: BTreeSet<_> = bills.iter().map(|(bill, _)| bill.cid).collect();
    let statement = node.statement().await?;
    for cid in files {
        let before = statement.entries.iter().filter(|entry| {
            let paid = (entry.direction, entry.status) == (Direction::Spent, Status::Settled);
            paid && entry.cid == cid && entry.bill.is_some() && !told.contains(&entry.bill)
        });
        let amounts: Vec<U256> = before.map(|entry| entry.amount).collect();
        if amounts.is_empty() {
            continue;
        }
        let (count, amount) = (amounts.len(), amounts.iter().sum::<U256>());
        output.text(format!(
            "paid     {} CHI  for {cid} before, in {count} payments",
            format_chi(amount)
        ))?;
        output.event(&json!({
            "event": "paid_before",
            "cid": cid,
            "payments": count,
            "amount_wei": amount.to_string(),
        }))?;
    }
    Ok(())
}

/// The file to write: `wanted`, or a file in it if that is a directory.
fn destination(wanted: &Path, link: &Link) -> Result<PathBuf, Failure> {
    let text = wanted.as_os_str().as_encoded_bytes();
    let path = if wanted.is_dir() || text.ends_with(b"/") {
        // The link's name is a stranger's hint: made harmless before it is used.
        let name = link.name.as_deref().and_then(file_name);
        wanted.join(name.unwrap_or_else(|| link.cid.to_string()))
    } else {
        wanted.to_owned()
    };
    // So that what the node does with it does not depend on where the process is.
    let path = std::path::absolute(&path).map_err(|e| Failure::io("find", &path, &e))?;
    match path.parent() {
        Some(parent) if parent.is_dir() => Ok(path),
        _ => {
            let message = format!("the directory of {} does not exist", path.display());
            Err(Failure::new(Exit::Failed, message).next("make it first"))
        }
    }
}

/// A directory beside the file, hence on its file system, that the same command finds again.
fn state_beside(path: &Path, link: &Link) -> Result<PathBuf, Failure> {
    let Some(name) = path.file_name() else {
        let message = format!("{} is no name of a file", path.display());
        return Err(Failure::new(Exit::Usage, message));
    };
    let mut hidden = std::ffi::OsString::from(".");
    if name.len() <= MAX_NAME_LEN {
        hidden.push(name);
    } else {
        hidden.push(link.cid.to_string());
    }
    hidden.push(".chiral");
    Ok(path.with_file_name(hidden))
}

async fn download(
    node: &Node,
    get: chiral::Get,
    output: &Output,
    signals: &mut Signals,
) -> Result<Got, Failure> {
    // From before the start, so that none is missed; there is no other transfer.
    let events = node.events();
    let getting = get.start().await?;
    let transfer = getting.transfer().clone();
    finish(transfer, events, getting.outcome(), output, signals).await
}

/// Shows a transfer until it ends, or cancels it if the program is told to stop.
pub(crate) async fn finish<T>(
    transfer: Transfer,
    events: EventStream,
    outcome: impl Future<Output = Result<T, NodeError>>,
    output: &Output,
    signals: &mut Signals,
) -> Result<T, Failure> {
    let watching = tokio::spawn(watch(transfer.clone(), events, *output));
    let mut interrupted = None;
    let outcome = async {
        let mut outcome = std::pin::pin!(outcome);
        tokio::select! {
            outcome = &mut outcome => return outcome,
            exit = signals.next() => interrupted = Some(exit),
        }
        transfer.cancel();
        outcome.await
    }
    .await;
    // It ends with the transfer; whether anybody still reads is of no importance here.
    watching.await.unwrap_or_default();
    match (outcome, interrupted) {
        (Err(_), Some(exit)) => Err(Failure::new(exit, "interrupted; what has come is kept")
            .next("run the same command again")),
        (outcome, _) => Ok(outcome?),
    }
}

/// Shows events and progress until the transfer ends.
pub(crate) async fn watch(transfer: Transfer, mut events: EventStream, output: Output) {
    let bar = output.bar("");
    let mut ticks = tokio::time::interval(REPORT_EVERY);
    loop {
        tokio::select! {
            event = events.next() => {
                let Some(event) = event else { break };
                // A reader that has gone does not end the download.
                output.event(&event).unwrap_or_default();
                if matches!(event.kind, TransferEventKind::Ended { .. }) {
                    break;
                }
            }
            _ = ticks.tick() => {
                let progress = transfer.progress();
                bar.set_length(progress.wanted);
                bar.set_position(progress.proven);
                bar.set_message(format!("from {}", progress.sources));
                let event = json!({ "event": "progress", "progress": progress });
                output.event(&event).unwrap_or_default();
            }
        }
    }
    bar.finish_and_clear();
}

/// Whether this very download put the file there, only that nobody was told any more.
async fn is_complete(node: &Node, command: &Get, link: &Link, path: &Path) -> bool {
    if !path.is_file() {
        return false;
    }
    let there = Location::External(path.to_owned());
    let object = node.store().object(link.cid).await;
    if object.is_ok_and(|object| object.is_some_and(|object| object.location == there)) {
        return true;
    }
    // It may have been killed while it removed its state: then the file has to say it.
    if command.data_dir.is_some() {
        return false;
    }
    let found = identify_file(path, None).await;
    found.is_ok_and(|found| found.cid == link.cid)
}

pub(crate) fn taken(path: &Path) -> Failure {
    let message = format!("{} exists", path.display());
    Failure::new(Exit::Exists, message).next("name another file with -o, or move that one away")
}

/// Adds what can be done if nobody delivers.
pub(crate) fn advise(failure: Failure, command: &Get) -> Failure {
    if failure.exit != Exit::NoSource {
        return failure;
    }
    let nobody = command.peers.is_empty()
        && command.mirrors.is_empty()
        && command.bittorrent_peers.is_empty();
    if nobody && command.network.bootstrap.is_empty() {
        return failure
            .next("name who has it, with --peer URL or --mirror URL, or a node of the network, with --bootstrap MULTIADDR");
    }
    if failure.message.contains("the price is over the limit") {
        return failure.next("say what you would pay, with --max-price CHI_PER_MIB; `chiral info` shows what is asked");
    }
    if failure.message.contains("is banned for") {
        return failure.next("name others, or take the ban back with `chiral peers --clear URL`");
    }
    failure.next("look whether they serve it, name others, and run the same command again")
}

fn tell(output: &Output, got: &Got, path: &Path) -> Result<(), Failure> {
    let (header, file) = (&got.header, path.to_string_lossy());
    output.text(format!("{file}: {} bytes, all verified", header.size))?;
    output.text(format!("cid   {}", header.cid))?;
    for source in &got.sources {
        let banned = source
            .banned
            .as_ref()
            .map_or(String::new(), |why| format!("  refused: {why}"));
        let (protocol, name) = (&source.protocol, &source.source);
        output.text(format!(
            "from  {:>14} bytes  {protocol}  {name}{banned}",
            source.bytes
        ))?;
    }
    output.event(&json!({
        "event": "got",
        "path": file,
        "link": header.link().to_string(),
        "cid": header.cid,
        "root": header.root,
        "size": header.size,
        "sources": got.sources,
    }))?;
    Ok(())
}

fn tell_complete(output: &Output, link: &Link, path: &Path) -> Result<(), Failure> {
    let file = path.to_string_lossy();
    output.text(format!("{file}: complete since an earlier run"))?;
    output.text(format!("cid   {}", link.cid))?;
    output.event(&json!({ "event": "complete", "path": file, "cid": link.cid }))?;
    Ok(())
}
