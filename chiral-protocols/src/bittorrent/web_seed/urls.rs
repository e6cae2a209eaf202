//! Where a web seed has the files of a torrent.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use crate::bittorrent::bencode::{Decoded, Limits};
use crate::bittorrent::metainfo::Metainfo;

/// What is escaped in a component of a path: all but RFC 3986's unreserved characters.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The URLs of a torrent's files at one web seed.
#[derive(Debug)]
pub(super) struct Urls {
    /// Of a single file, its URL; of several, that of their directory, with a slash behind.
    base: String,
    is_single_file: bool,
}

impl Urls {
    /// Of a single file, a URL that ends with a slash is that of the directory it lies in. Of
    /// several it is always that of the directory in which the torrent's own one lies.
    pub(super) fn new(url: &str, torrent: &Metainfo) -> Self {
        let is_single_file = torrent.info().is_single_file();
        let mut base = url.to_owned();
        if !is_single_file && !base.ends_with('/') {
            base.push('/');
        }
        if base.ends_with('/') {
            base.push_str(&escaped(&name(torrent)));
            if !is_single_file {
                base.push('/');
            }
        }
        Self {
            base,
            is_single_file,
        }
    }

    /// Of a single file, its URL; of several, that of their directory.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// Of a file by its number; nothing for one that is not there.
    pub(super) fn of(&self, torrent: &Metainfo, file: u32) -> Option<String> {
        let file = torrent.files().get(file as usize)?;
        if self.is_single_file {
            return Some(self.base.clone());
        }
        // As it is called there, which need not be how it is called on this disk.
        let parts: Vec<String> = match &file.raw_path {
            Some(raw) => raw.iter().map(|part| escaped(part)).collect(),
            None => file
                .path
                .components()
                .map(|it| escaped(it.as_bytes()))
                .collect(),
        };
        // Nothing is asked for that lies elsewhere than beneath the torrent's own directory.
        let leads_away = |part: &String| part.is_empty() || part == "." || part == "..";
        let inside = !parts.iter().any(leads_away);
        inside.then(|| format!("{}{}", self.base, parts.join("/")))
    }
}

/// The name as the torrent has it, where [`Info::name`](crate::bittorrent::metainfo::Info::name)
/// is made safe.
fn name(torrent: &Metainfo) -> Vec<u8> {
    let decoded = Decoded::parse(torrent.info_bytes(), Limits::METAINFO).ok();
    let raw = decoded.as_ref().and_then(|info| {
        let keys = ["name.utf-8", "name"];
        let name = keys.iter().find_map(|key| info.root().get(key)?.bytes())?;
        Some(name.to_vec())
    });
    let leads_away = |name: &Vec<u8>| name == b"." || name == b"..";
    raw.filter(|name| !leads_away(name))
        .unwrap_or_else(|| torrent.info().name().as_bytes().to_vec())
}

fn escaped(part: &[u8]) -> String {
    percent_encode(part, ESCAPED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bittorrent::create::CollectionHasher;
    use crate::bittorrent::create::TorrentHasher;
    use crate::bittorrent::metainfo::{Outer, Version};

    fn several(name: &str, paths: &[&[&str]]) -> Metainfo {
        let paths = paths.iter().map(|path| {
            let path: Vec<String> = path.iter().map(|&part| part.to_owned()).collect();
            (path, 1)
        });
        let hasher = CollectionHasher::new(name, paths.collect(), 16_384, Version::V1);
        let mut hasher = hasher.unwrap();
        for _ in 0..hasher.files().len() {
            hasher.update(b"x").unwrap();
        }
        hasher.finish(Outer::default()).unwrap()
    }

    #[test]
    fn of_several_files_the_name_and_the_path_come_behind_the_url() {
        let torrent = several("an album", &[&["a b", "ü#?.bin"], &["c+d%41"]]);
        for base in ["http://h/pub", "http://h/pub/"] {
            let urls = Urls::new(base, &torrent);
            let all: Vec<_> = (0..3).map(|file| urls.of(&torrent, file)).collect();
            assert_eq!(
                all,
                [
                    Some("http://h/pub/an%20album/a%20b/%C3%BC%23%3F.bin".to_owned()),
                    Some("http://h/pub/an%20album/c%2Bd%2541".to_owned()),
                    None
                ]
            );
        }
    }

    #[test]
    fn of_a_single_file_the_name_comes_behind_a_slash_alone() {
        let mut hasher = TorrentHasher::new(Version::V1);
        hasher.update(b"some");
        let torrent = hasher.finish().metainfo("my file", Outer::default());
        let torrent = torrent.unwrap();
        for (base, url) in [
            ("http://h/x", "http://h/x"),
            ("http://h/x/", "http://h/x/my%20file"),
            ("http://h/x?y=z", "http://h/x?y=z"),
        ] {
            let urls = Urls::new(base, &torrent);
            assert_eq!(urls.of(&torrent, 0).as_deref(), Some(url), "{base}");
        }
    }

    #[test]
    fn a_file_is_asked_for_by_the_name_that_it_has_there() {
        // A dot at the end is not kept on this disk.
        let info =
            b"d5:filesld6:lengthi0e4:pathl2:a.eee4:name2:n.12:piece lengthi16384e6:pieces0:e";
        let torrent = [&b"d4:info"[..], info, b"e"].concat();
        let torrent = Metainfo::parse(&torrent).unwrap();
        assert_ne!(torrent.files()[0].path.to_string(), "a.");
        let urls = Urls::new("http://h", &torrent);
        assert_eq!(urls.of(&torrent, 0).as_deref(), Some("http://h/n./a."));
    }
}
