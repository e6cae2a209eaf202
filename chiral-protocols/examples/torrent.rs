//! Torrents and magnet links from the command line, without a network.
//!
//! ```text
//! torrent make PATH [--out FILE] [--version v1|v2|hybrid] [--piece-length BYTES]
//!              [--tracker URL]... [--web-seed URL]...
//! torrent show FILE.torrent|MAGNET
//! torrent verify FILE.torrent PATH
//! torrent magnet FILE.torrent
//! ```
//!
//! `make` takes a file or a directory and writes `NAME.torrent`; without options it is what a
//! Chiral node makes of a share: version 1, pieces of 256 KiB. `verify` checks every piece of
//! what lies at PATH, and fails unless all are right.
//!
//! ```text
//! $ cargo run --example torrent --features bittorrent -- make report.pdf
//! magnet:?xt=urn:btih:3b0b6c…&dn=report.pdf&xl=1048577
//! ```
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytes::Bytes;
use chiral_protocols::bittorrent::create::{CollectionHasher, PIECE_LENGTH, TorrentHasher};
use chiral_protocols::bittorrent::magnet::Magnet;
use chiral_protocols::bittorrent::metainfo::{Metainfo, Outer, Version};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const USAGE: &str = "usage: torrent make PATH [option]... | show FILE|MAGNET | verify FILE PATH | \
                     magnet FILE";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["make", path, options @ ..] => make(Path::new(path), options),
        ["show", magnet] if magnet.starts_with("magnet:") => show_magnet(magnet),
        ["show", file] => load(file).map(|torrent| show(&torrent)),
        ["verify", file, path] => load(file).and_then(|torrent| verify(&torrent, path.as_ref())),
        ["magnet", file] => load(file).map(|torrent| println!("{}", torrent.magnet())),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut message = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                message += &format!(": {error}");
                cause = error.source();
            }
            eprintln!("torrent: {message}");
            ExitCode::FAILURE
        }
    }
}

fn load(path: &str) -> Result<Metainfo> {
    Ok(Metainfo::parse(&std::fs::read(path)?)?)
}

struct Options {
    out: Option<PathBuf>,
    version: Version,
    piece_length: u32,
    outer: Outer,
}

fn options(words: &[&str]) -> Result<Options> {
    let mut options = Options {
        out: None,
        version: Version::V1,
        piece_length: PIECE_LENGTH,
        outer: Outer::default(),
    };
    for pair in words.chunks(2) {
        match pair {
            ["--out", path] => options.out = Some(path.into()),
            ["--version", "v1"] => options.version = Version::V1,
            ["--version", "v2"] => options.version = Version::V2,
            ["--version", "hybrid"] => options.version = Version::Hybrid,
            ["--piece-length", bytes] => options.piece_length = bytes.parse()?,
            ["--tracker", url] => options.outer.trackers.push(vec![url.to_string()]),
            ["--web-seed", url] => options.outer.web_seeds.push(url.to_string()),
            _ => return Err(USAGE.into()),
        }
    }
    Ok(options)
}

fn make(path: &Path, words: &[&str]) -> Result<()> {
    let options = options(words)?;
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or("a path without a name")?;
    let torrent = match path.is_dir() {
        true => of_directory(path, name, &options)?,
        false => {
            let mut hasher =
                TorrentHasher::with_piece_length(options.version, options.piece_length)?;
            each_part(path, |bytes| {
                hasher.update(bytes);
                Ok(())
            })?;
            hasher.finish().metainfo(name, options.outer.clone())?
        }
    };
    let out = options
        .out
        .unwrap_or_else(|| format!("{name}.torrent").into());
    std::fs::write(out, torrent.encode())?;
    println!("{}", torrent.magnet());
    Ok(())
}

fn of_directory(path: &Path, name: &str, options: &Options) -> Result<Metainfo> {
    let mut files = Vec::new();
    walk(path, &mut Vec::new(), &mut files)?;
    let mut hasher = CollectionHasher::new(name, files, options.piece_length, options.version)?;
    let files = hasher.files().to_vec();
    for (components, _) in files {
        let file: PathBuf = components.iter().collect();
        each_part(&path.join(file), |bytes| Ok(hasher.update(bytes)?))?;
    }
    Ok(hasher.finish(options.outer.clone())?)
}

/// All regular files beneath a directory; links are passed over.
fn walk(
    directory: &Path,
    above: &mut Vec<String>,
    files: &mut Vec<(Vec<String>, u64)>,
) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry
            .file_name()
            .into_string()
            .map_err(|_| "a name that is not UTF-8")?;
        let kind = entry.file_type()?;
        above.push(name);
        if kind.is_dir() {
            walk(&entry.path(), above, files)?;
        } else if kind.is_file() {
            files.push((above.clone(), entry.metadata()?.len()));
        }
        above.pop();
    }
    Ok(())
}

fn each_part(path: &Path, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            read => take(&buffer[..read])?,
        }
    }
}

fn show_magnet(text: &str) -> Result<()> {
    let magnet: Magnet = text.parse()?;
    for alias in magnet.hashes.aliases() {
        println!("{alias}");
    }
    println!("name {}", magnet.name.as_deref().unwrap_or("-"));
    for url in &magnet.trackers {
        println!("tracker {url}");
    }
    for url in &magnet.web_seeds {
        println!("web seed {url}");
    }
    for peer in &magnet.peers {
        println!("peer {peer}");
    }
    Ok(())
}

fn show(torrent: &Metainfo) {
    let (info, layout) = (torrent.info(), torrent.layout());
    for alias in torrent.hashes().aliases() {
        println!("{alias}");
    }
    println!("name {}", info.name());
    println!(
        "version {:?}{}",
        info.version(),
        if info.is_private() { ", private" } else { "" }
    );
    println!(
        "pieces {} of {} bytes",
        layout.piece_count(),
        layout.piece_length()
    );
    for url in torrent.outer.all_trackers() {
        println!("tracker {url}");
    }
    for url in &torrent.outer.web_seeds {
        println!("web seed {url}");
    }
    for file in torrent.files() {
        println!("file {} {} {}", file.index, file.len, file.path);
    }
}

fn verify(torrent: &Metainfo, path: &Path) -> Result<()> {
    let files = torrent.files().iter();
    let mut files: Vec<Option<File>> = files
        .map(|file| {
            let at = match torrent.info().is_single_file() {
                true => path.to_owned(),
                false => path.join(file.path.to_path_buf()),
            };
            File::open(at).ok()
        })
        .collect();
    let layout = torrent.layout();
    let mut right = 0;
    for piece in 0..layout.piece_count() {
        let mut hasher = torrent.hasher(piece).ok_or("a piece layer is missing")?;
        let range = layout.piece_range(piece);
        for part in layout.segments(range) {
            let Some(number) = part.file else { continue };
            let Some(file) = files.get_mut(number as usize).and_then(Option::as_mut) else {
                continue;
            };
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(part.offset))?;
            file.take(part.stream.len()).read_to_end(&mut bytes)?;
            if !bytes.is_empty() {
                hasher.feed((part.stream.start - range.start) as u32, Bytes::from(bytes))?;
            }
        }
        right += u32::from(hasher.finish().is_ok());
    }
    println!("{right} of {} pieces are right", layout.piece_count());
    match right == layout.piece_count() {
        true => Ok(()),
        false => Err("not all pieces are right".into()),
    }
}
