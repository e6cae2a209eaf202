//! The command line: share files, get them, look at them, hash them.
//!
//! ```text
//! cargo run --release --example chiral -- share photo.jpg      # in one terminal
//! cargo run --release --example chiral -- get LINK -o copy.jpg --peer URL      # in another
//! ```
//!
//! `share` prints the link and the URL to use. Results are on standard output (with
//! `--json` one event a line), everything else on standard error.
//!
//! | exit status | meaning |
//! | --- | --- |
//! | 0 | done |
//! | 1 | failed: the message says why |
//! | 2 | the command was not understood |
//! | 3 | nobody delivers the file |
//! | 4 | refused: link, cid and what was found do not belong together |
//! | 5 | the destination exists |
//! | 6 | another process uses the data directory |
//! | 7 | the file is complete, its payment waits |
//! | 130, 143 | interrupted by SIGINT, SIGTERM |

mod account;
mod arguments;
mod chain;
mod channels;
mod failure;
mod get;
mod hash;
mod info;
mod network;
mod output;
mod payments;
mod peers;
mod receipts;
mod share;
mod signals;
mod stream;
mod terms;
mod torrent;
mod wallet;
mod web;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use arguments::{Arguments, Command};
use output::Output;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // The first node of a network knows nobody, which libp2p finds worth a warning.
    let usual = "warn,libp2p_kad=error";
    let filter = EnvFilter::try_from_env("CHIRAL_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let output = Output::new(arguments.json);
    let result = match arguments.command {
        Command::Share(command) => share::run(*command, &output).await,
        Command::Get(command) => get::run(*command, &output).await,
        Command::Info(command) => info::run(command, &output).await,
        Command::Hash(command) => hash::run(command, &output).await,
        Command::Chain(command) => chain::run(command, &output).await,
        Command::Wallet(command) => wallet::run(command, &output).await,
        Command::Payments(command) => payments::run(command, &output).await,
        Command::Channels(command) => channels::run(command, &output).await,
        Command::Prove(command) => receipts::prove(command, &output).await,
        Command::VerifyReceipt(command) => receipts::verify(command, &output).await,
        Command::Peers(command) => peers::run(command, &output).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => output.fail(&failure),
    }
}
