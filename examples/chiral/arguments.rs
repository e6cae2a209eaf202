//! What can be said on the command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use chiral::Link;
use clap::{Args, Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  chiral share photo.jpg                          serve a file on this machine
  chiral share *.iso --http 0.0.0.0:8480          serve files to other machines, too
  chiral get LINK --peer http://127.0.0.1:8480/   get it, from a seeder
  chiral get SHA256 -o disc.iso --mirror http://example.org/disc.iso
                                                  get it from any web server, and check it
  chiral hash photo.jpg                           print its link without sharing it

Exit status:
  0 done, 1 failed, 2 the command was not understood, 3 nobody delivers the file,
  4 refused: link, cid and what was found do not belong together, 5 the destination exists,
  6 another process uses the data directory, 130 or 143 interrupted.

Set CHIRAL_LOG to see what goes on, for instance CHIRAL_LOG=debug; it goes to standard error.";

#[derive(Debug, Parser)]
#[command(
    name = "chiral",
    about = "Share files, and get them from everybody who has them, every byte verified.",
    after_help = EXAMPLES
)]
pub(crate) struct Arguments {
    /// Print one JSON event a line on standard output.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Share(Share),
    Get(Get),
    Info(Info),
    Hash(Hash),
}

/// Serve files until interrupted; prints the link of each
///
/// The files are served from where they are: do not change them meanwhile. Ctrl-C ends it.
#[derive(Debug, Args)]
pub(crate) struct Share {
    /// Files to serve
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Address to serve HTTP at
    ///
    /// Without it, 127.0.0.1:8480, which only this machine can reach, or another port if that
    /// is taken. 0.0.0.0:8480 is for everybody who can reach this machine.
    #[arg(long, value_name = "ADDR")]
    pub(crate) http: Option<SocketAddr>,
    /// Directory for the node's state [default: the user's data directory, then chiral]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// Download a file and verify every byte of it
///
/// Interrupted in any way, the same command goes on where it was. What has come so far is
/// kept beside the file in a directory .NAME.chiral, which goes when the file is complete.
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// What to get: a link, or a SHA-256 in 64 hexadecimal digits
    #[arg(value_name = "LINK|CID")]
    pub(crate) link: Link,
    /// File to write, which must not exist, or a directory to write it to under its own name
    #[arg(short, long, value_name = "PATH", default_value = ".")]
    pub(crate) output: PathBuf,
    /// A seeder, by the URL that its `share` printed; may be repeated
    #[arg(long = "peer", value_name = "URL", value_parser = url)]
    pub(crate) peers: Vec<String>,
    /// Any web server's copy of the file, by the URL of the file; may be repeated
    #[arg(long = "mirror", value_name = "URL", value_parser = url)]
    pub(crate) mirrors: Vec<String>,
    /// Give up when nobody has delivered anything for so long
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) patience: u64,
    /// Directory for the node's state, kept afterwards [default: .NAME.chiral beside the file]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// Show what is known of a file and who has which part of it
#[derive(Debug, Args)]
pub(crate) struct Info {
    /// What to look at: a link, or a SHA-256 in 64 hexadecimal digits
    #[arg(value_name = "LINK|CID")]
    pub(crate) link: Link,
    /// A seeder to ask; may be repeated
    #[arg(long = "peer", value_name = "URL", value_parser = url)]
    pub(crate) peers: Vec<String>,
    /// Directory of a node to ask, too
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// Print the link of each file, like sha256sum; nothing is shared
#[derive(Debug, Args)]
pub(crate) struct Hash {
    /// Files to hash
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

/// Refuses at once what would only fail at connecting.
fn url(text: &str) -> Result<String, String> {
    if !text.starts_with("http://") {
        return Err("only http:// URLs can be used so far".into());
    }
    chiral::Endpoint::new(text)
        .map(|endpoint| endpoint.to_string())
        .map_err(|error| error.to_string())
}
