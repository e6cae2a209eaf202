//! `chiral get` of a torrent, by magnet link or `.torrent` file.

use std::path::{Path, PathBuf};

use chiral::core::Alias;
use chiral::{GotTorrent, Node, TorrentSource};
use serde_json::json;

use super::arguments::Get;
use super::failure::{Exit, Failure};
use super::get::{advise, finish, pay, seed_on, start, taken};
use super::output::Output;
use super::signals::Signals;

pub(crate) async fn run(
    command: Get,
    source: TorrentSource,
    output: &Output,
) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let goal = Goal::new(&command.output)?;
    let beside = goal.state_beside(&source)?;
    let state = command.data_dir.as_ref().unwrap_or(&beside);
    if let Goal::File(path) = &goal
        && path.symlink_metadata().is_ok()
    {
        return Err(taken(path));
    }
    let node = start(&command, state).await?;
    let result = download(&node, &command, source, &goal, output, &mut signals).await;
    let told = match &result {
        Ok(got) => tell(output, got),
        Err(_) => Ok(()),
    };
    let paid = match &result {
        Ok(got) => pay(&node, &command, &got.settled, output, &mut signals).await,
        Err(_) => Ok(()),
    };
    let first = result.as_ref().ok().and_then(|got| got.files.first());
    let seeded = match first {
        Some(file) if command.seed => {
            let cid = file.header.cid;
            seed_on(&node, cid, output, &mut signals).await
        }
        _ => Ok(()),
    };
    signals.then_at_once();
    let left = node.store().partials().await;
    let ended = node.shutdown().await;
    // What was interrupted goes on from there.
    let over = result.is_ok() && left.is_ok_and(|partials| partials.is_empty());
    if command.data_dir.is_none() && over {
        std::fs::remove_dir_all(&beside).map_err(|e| Failure::io("remove", &beside, &e))?;
    }
    result.map_err(|failure| advise(failure, &command))?;
    told?;
    ended?;
    seeded?;
    paid
}

/// Where to.
enum Goal {
    File(PathBuf),
    Directory(PathBuf),
}

impl Goal {
    fn new(wanted: &Path) -> Result<Self, Failure> {
        if wanted == Path::new("-") {
            let message = "a torrent does not go to standard output";
            return Err(Failure::new(Exit::Usage, message).next("name a directory with -o"));
        }
        let text = wanted.as_os_str().as_encoded_bytes();
        let path = std::path::absolute(wanted).map_err(|e| Failure::io("find", wanted, &e))?;
        let is_directory = wanted.is_dir() || text.ends_with(b"/");
        let above = match is_directory {
            true => Some(path.as_path()),
            false => path.parent(),
        };
        if !above.is_some_and(Path::is_dir) {
            let message = format!("the directory of {} does not exist", wanted.display());
            return Err(Failure::new(Exit::Failed, message).next("make it first"));
        }
        Ok(match is_directory {
            true => Self::Directory(path),
            false => Self::File(path),
        })
    }

    /// A directory on the same file system that the same command finds again.
    fn state_beside(&self, source: &TorrentSource) -> Result<PathBuf, Failure> {
        let hashes = match source {
            TorrentSource::Magnet(magnet) => magnet.hashes,
            TorrentSource::Torrent(torrent) => torrent.hashes(),
            _ => return Err(Failure::new(Exit::Usage, "not a torrent")),
        };
        let alias: Option<Alias> = hashes.aliases().next();
        let alias = alias.map(|alias| alias.to_string()).unwrap_or_default();
        let name = format!(".{}.chiral", alias.replace(':', "-"));
        Ok(match self {
            Self::File(path) => path.with_file_name(name),
            Self::Directory(path) => path.join(name),
        })
    }
}

async fn download(
    node: &Node,
    command: &Get,
    source: TorrentSource,
    goal: &Goal,
    output: &Output,
    signals: &mut Signals,
) -> Result<GotTorrent, Failure> {
    let mut get = node.download_torrent(source);
    get = match goal {
        Goal::File(path) => get.to_file(path),
        Goal::Directory(path) => get.to_directory(path),
    };
    for peer in &command.bittorrent_peers {
        get = get.peer(peer.clone());
    }
    if let Some(selected) = &command.select {
        get = get.select(selected.0.clone());
    }
    // From before the start, so that none is missed; there is no other transfer.
    let events = node.events();
    let getting = get.seed(command.seed).start().await?;
    let transfer = getting.transfer().clone();
    finish(transfer, events, getting.outcome(), output, signals).await
}

fn tell(output: &Output, got: &GotTorrent) -> Result<(), Failure> {
    let torrent = &got.torrent;
    let hashes: Vec<String> = torrent
        .hashes()
        .aliases()
        .map(|it| it.to_string())
        .collect();
    output.text(format!("{}: all verified", torrent.info().name()))?;
    for file in &got.files {
        let path = file.path.as_ref().map(|path| path.display().to_string());
        output.text(format!(
            "{:>14} bytes  {}\n      {}",
            file.header.size,
            path.as_deref().unwrap_or(&file.inside),
            file.header.link(),
        ))?;
    }
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
    let files = got.files.iter().map(|file| {
        json!({
            "index": file.index,
            "path": file.path.as_ref().map(|path| path.to_string_lossy()),
            "inside": file.inside,
            "size": file.header.size,
            "cid": file.header.cid,
            "link": file.header.link().to_string(),
        })
    });
    output.event(&json!({
        "event": "got_torrent",
        "torrent": hashes,
        "name": torrent.info().name(),
        "files": files.collect::<Vec<_>>(),
        "sources": got.sources,
    }))?;
    Ok(())
}
