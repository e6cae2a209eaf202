//! Three seeders with three prices, one downloader, a DHT and a chain, all on this machine.
//!
//! ```text
//! cargo run --release --example quickstart            # a file of 64 MiB that it makes
//! cargo run --release --example quickstart -- FILE    # a file of yours, served in place
//! ```
//!
//! Five nodes are a DHT of their own; one of them only routes. Each seeder has an uplink of its
//! own (`--uplink`), as if it were somewhere else. Two hold the whole file. The third first
//! buys the first half of it from them, and sells that on. The downloader has nothing but the
//! cid: it finds the seeders in the DHT, agrees on a price with each, fetches from all of them
//! over HTTP, verifies every chunk, and pays them in one transaction on a chain that runs here,
//! too. At the end the result is hashed once more by another SHA-256, the transaction is read
//! back over JSON-RPC, and a table says who delivered what, and what each was paid:
//!
//! ```text
//! seeder       protocol          bytes  chunks      MB/s      from        to
//! whole 1      http           26214400     100      41.2     13 ms    649 ms
//! whole 2      http           25952256      99      41.7      8 ms    630 ms
//! first half   http           14942208      57      34.5    216 ms    649 ms
//!
//! 3 at once from 216 ms to 630 ms
//!
//! CHI          per MiB          paid      balance before         and after
//! whole 1        0.001         0.025         10000.01575       10000.04075
//! whole 2       0.0012        0.0297          10000.0195        10000.0492
//! first half    0.0008        0.0114  9999.9645850753125 9999.9759850753125
//!
//! transaction 0x19387b15a2896e6564c10b3f0415c780cb4774f33c8a833627eaf595327cd08c
//! moved 0.0661 CHI, says http://127.0.0.1:41933/
//!
//! on the chain 0.400 s after the last byte
//! ```
//!
//! Everything is in one temporary directory, which is gone at the end. The exit status is 0
//! only if all of that worked.

#![allow(clippy::print_stdout)]

mod ledger;
mod network;
mod report;
mod sample;
mod uplink;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chiral::core::transfer::{EventStream, TransferEvent, TransferEventKind};
use chiral::{Got, Transfer};
use clap::Parser;
use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};

use network::Network;

/// Any error: this program tells it and ends.
type Failure = Box<dyn Error + Send + Sync>;

#[derive(Parser)]
#[command(about = "Shares a file from three seeders and downloads it from all of them at once.")]
struct Arguments {
    /// The file to share; without it, 64 MiB are made up.
    file: Option<PathBuf>,
    /// What each seeder can send, in MB/s; 0 for as much as the machine can do.
    #[arg(long, value_name = "MB/S", default_value_t = 40)]
    uplink: u64,
    /// Print one JSON event a line instead of a table.
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {}", causes(&*error));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes, in one line.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

async fn run(arguments: &Arguments) -> Result<(), Failure> {
    let temporary = tempfile::Builder::new()
        .prefix("chiral-quickstart-")
        .tempdir()?;
    let directory = temporary.path();
    let (file, made) = match &arguments.file {
        Some(file) => (file.clone(), false),
        None => (sample::make(&directory.join("sample.bin"))?, true),
    };
    let network = Network::start(directory, arguments.uplink.saturating_mul(1_000_000)).await?;
    let outcome = download(&network, &file, directory, arguments.json).await;
    // Whatever came of it: ports, files and locks are released before the end.
    let ended = network.shutdown().await;
    let report = outcome?;
    ended?;
    temporary.close()?;
    if arguments.json {
        println!("{}", report.to_json());
    } else {
        println!("{report}");
    }
    report.check(made)
}

async fn download(
    network: &Network,
    file: &Path,
    directory: &Path,
    json: bool,
) -> Result<report::Report, Failure> {
    let shared = network.share(file).await?;
    if json {
        let (cid, link) = (shared.cid(), shared.link.to_string());
        println!(
            "{}",
            serde_json::json!({ "event": "shared", "cid": cid, "link": link })
        );
    }
    // The name is a hint from whoever made the link: made harmless before it is used.
    let hint = shared.link.name.as_deref().unwrap_or_default();
    let name = chiral::core::link::file_name(hint).unwrap_or_else(|| shared.cid().to_string());
    let output = directory.join("downloaded");
    std::fs::create_dir(&output)?;

    let before = network.balances().await?;
    let started = std::time::Instant::now();
    // By the cid alone, as if it came from anybody's list of SHA-256 checksums.
    let get = network
        .downloader
        .get(shared.cid())
        .to_file(output.join(name));
    // From before the start, so that none is missed; this node has no other transfer.
    let events = network.downloader.events();
    let getting = get.start().await?;
    let watching = tokio::spawn(watch(getting.transfer().clone(), events, json));
    let got: Got = getting.outcome().await?;
    let elapsed = started.elapsed();
    watching.await?;

    let path = got.path.clone().ok_or("the download left no file")?;
    let cid = shared.cid();
    let digest = tokio::task::spawn_blocking(move || sample::sha256(&path)).await??;
    if digest != cid.to_string() {
        return Err(format!("SHA-256 of the result is {digest}, its cid {cid}").into());
    }
    let bills = got.settled.iter().map(|(bill, _)| bill.id);
    let states = network.downloader.wait_settled(bills).await?;
    let paying = started.elapsed() - elapsed;
    let ledger = ledger::Ledger::read(network, &got, &states, &before).await?;
    Ok(report::Report::new(
        network,
        shared.link,
        &got,
        elapsed,
        paying,
        ledger,
    ))
}

/// Shows how far the download is until it ends: a bar on a terminal, or its events as JSON.
async fn watch(transfer: Transfer, mut events: EventStream, json: bool) {
    // Draws on standard error, and only if that is a terminal.
    let bar = if json {
        ProgressBar::hidden()
    } else {
        ProgressBar::new(0)
    };
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    while let Some(event) = events.next().await {
        if json {
            println!("{}", line(&event));
        }
        let progress = transfer.progress();
        bar.set_length(progress.wanted);
        bar.set_position(progress.proven);
        if matches!(event.kind, TransferEventKind::Ended { .. }) {
            break;
        }
    }
    bar.finish_and_clear();
}

fn line(event: &TransferEvent) -> String {
    serde_json::to_string(event).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
}
