//! What stands for a file, a part of a torrent, or somebody who has it.

use chiral::protocols::bittorrent::magnet::{Magnet, MagnetPeer};
use chiral::protocols::bittorrent::metainfo::Metainfo;
use chiral::{Link, TorrentSource};

/// What to get
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// A Chiral link, or a cid
    Link(Link),
    /// A magnet link, or a .torrent file
    Torrent(TorrentSource),
}

/// Most bytes that are read of a .torrent file.
const MAX_TORRENT_FILE: u64 = 64 << 20;

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_magnet = text
            .get(..7)
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("magnet:"));
        if is_magnet {
            let magnet: Magnet = text.parse().map_err(chain)?;
            return Ok(Self::Torrent(magnet.into()));
        }
        if text.ends_with(".torrent") {
            let found = std::fs::metadata(text).map_err(chain)?;
            if found.len() > MAX_TORRENT_FILE {
                return Err(format!("{text} is too large for a torrent"));
            }
            let bytes = std::fs::read(text).map_err(chain)?;
            let torrent = Metainfo::parse(&bytes).map_err(chain)?;
            return Ok(Self::Torrent(torrent.into()));
        }
        text.parse().map(Self::Link).map_err(chain)
    }
}

/// An error and its causes.
fn chain(error: impl std::error::Error) -> String {
    crate::failure::causes(&error)
}

/// Files of a torrent, as magnet links select them
#[derive(Clone, Debug)]
pub(crate) struct Selected(pub(crate) Vec<std::ops::RangeInclusive<u32>>);

impl std::str::FromStr for Selected {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let run = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (first <= last).then_some(first..=last)
        };
        let runs: Option<Vec<_>> = text.split(',').map(run).collect();
        let runs = runs.filter(|runs| runs.len() <= 200);
        runs.map(Self).ok_or("numbers of files, such as 0,2-4")
    }
}

pub(super) fn swarm_peer(text: &str) -> Result<MagnetPeer, String> {
    text.parse()
        .map_err(|_| "a peer is HOST:PORT, or [ADDRESS]:PORT for IPv6".to_owned())
}

/// Refuses at once what would only fail at connecting.
pub(super) fn url(text: &str) -> Result<String, String> {
    if !text.starts_with("http://") && !text.starts_with("https://") {
        return Err("only http:// and https:// URLs can be used".into());
    }
    chiral::Endpoint::new(text)
        .map(|endpoint| endpoint.to_string())
        .map_err(|error| error.to_string())
}
