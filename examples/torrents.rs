//! Many torrents at once, in one node:
//!
//! ```text
//! cargo run --release --example torrents -- share DATA FILE...
//! cargo run --release --example torrents -- get DATA DIRECTORY MAGNET...
//! ```
//!
//! `share` prints a magnet link for each file and then READY, and serves them on loopback until it is
//! interrupted. `get` downloads all of the magnets at the same time into the directory, prints a line as
//! each is complete, and at the end DONE with the seconds that it took. DATA is a directory for what the
//! node keeps.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use chiral::Node;
use chiral::protocols::bittorrent::magnet::Magnet;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

async fn node(data: &str) -> Result<Node, Box<dyn Error>> {
    let builder = Node::builder().data_dir(Path::new(data)).without_http();
    let builder = builder.bittorrent_listen("127.0.0.1:0".parse()?);
    Ok(builder.start().await?)
}

async fn share(data: &str, files: &[String]) -> Result<(), Box<dyn Error>> {
    let node = node(data).await?;
    for file in files {
        println!("{}", node.seed_file(file).await?);
    }
    println!("READY");
    tokio::signal::ctrl_c().await?;
    node.shutdown().await?;
    Ok(())
}

async fn get(data: &str, directory: &str, magnets: &[String]) -> Result<(), Box<dyn Error>> {
    let node = node(data).await?;
    std::fs::create_dir_all(directory)?;
    let begun = Instant::now();
    let mut getting = FuturesUnordered::new();
    for magnet in magnets {
        let magnet: Magnet = magnet.parse()?;
        let get = node.download_torrent(magnet).to_directory(directory);
        getting.push(get.start().await?.outcome());
    }
    while let Some(got) = getting.next().await {
        for file in got?.files {
            println!("{} bytes, {}", file.header.size, file.header.cid);
        }
    }
    println!("DONE {:.3}", begun.elapsed().as_secs_f64());
    node.shutdown().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match &words[..] {
        [role, data, files @ ..] if role == "share" && !files.is_empty() => {
            share(data, files).await
        }
        [role, data, directory, magnets @ ..] if role == "get" && !magnets.is_empty() => {
            get(data, directory, magnets).await
        }
        _ => Err("share DATA FILE..., or get DATA DIRECTORY MAGNET...".into()),
    }
}
