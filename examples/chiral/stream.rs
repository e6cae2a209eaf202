//! `chiral get -o -`: the file on standard output, in order and as it comes.

use std::io::{ErrorKind, Write, stdout};

use chiral::{Getting, Got, Link, Node, NodeError, Reader, Share, TransferError};
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, oneshot};

use super::arguments::Get;
use super::failure::{Exit, Failure};
use super::get;
use super::output::Output;
use super::signals::Signals;

/// Bytes handed to the writer at once: a chunk.
const PART: usize = 256 << 10;

pub(crate) async fn run(command: Get, link: &Link, output: &Output) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    // Standard output is the file's.
    let output = &output.beside_standard_output();
    let scratch = tempfile::Builder::new().prefix("chiral-get-").tempdir();
    let scratch = scratch.map_err(|e| Failure::io("make a directory in", "/tmp".as_ref(), &e))?;
    let state = command.data_dir.as_deref().unwrap_or(scratch.path());
    let node = get::start(&command, state).await?;
    let result = play(&node, &command, link, output, &mut signals).await;
    let paid = match &result {
        Ok(got) => {
            let bills = got.as_ref().map_or(&[][..], |got| &got.settled);
            get::pay(&node, &command, bills, output, &mut signals).await
        }
        Err(_) => Ok(()),
    };
    if command.seed && result.is_ok() {
        get::seed_on(&node, link.cid, output, &mut signals).await?;
    }
    signals.then_at_once();
    let ended = node.shutdown().await;
    result.map_err(|failure| get::advise(failure, &command))?;
    ended?;
    paid
}

/// Downloads and writes at once. Nothing if it was complete before, or was not wanted any more.
async fn play(
    node: &Node,
    command: &Get,
    link: &Link,
    output: &Output,
    signals: &mut Signals,
) -> Result<Option<Got>, Failure> {
    let cid = link.cid;
    if node.store().object(cid).await.is_ok_and(|o| o.is_some()) {
        let written = tokio::select! {
            written = write(node.reader(cid).await?) => written,
            exit = signals.next() => return Err(Failure::new(exit, "interrupted")),
        };
        if command.seed {
            node.share(Share::stored(cid)).await?;
        }
        return written.map(|_| None);
    }
    let events = node.events();
    let getting = get::wish(node, command, link).start().await?;
    let reader = getting.reader().map_err(std::io::Error::from)?;
    let transfer = getting.transfer().clone();
    let watching = tokio::spawn(get::watch(transfer.clone(), events, *output));
    let mut interrupted = None;
    let written = tokio::select! {
        written = write(reader) => Some(written),
        exit = signals.next() => { interrupted = Some(exit); None }
    };
    if !matches!(written, Some(Ok(true))) {
        transfer.cancel();
    }
    let outcome = Getting::outcome(getting).await;
    watching.await.unwrap_or_default();
    match (written, interrupted) {
        (_, Some(exit)) => Err(Failure::new(exit, "interrupted")),
        (Some(Ok(false)), _) => {
            output.note("nobody reads any more: the rest is not fetched");
            node.settle().await?;
            Ok(None)
        }
        // Why there is nothing to read is what became of the download.
        (Some(Err(failure)), _) => match outcome {
            Ok(_) | Err(NodeError::Transfer(TransferError::Cancelled(_))) => Err(failure),
            Err(error) => Err(error.into()),
        },
        _ => Ok(Some(outcome?)),
    }
}

/// Writes all of it; false if the other end of the pipe went away.
async fn write(mut reader: Reader) -> Result<bool, Failure> {
    let (parts, mut queue) = mpsc::channel::<Vec<u8>>(1);
    let (end, ended) = oneshot::channel();
    // A thread of its own: a player that pauses holds up nothing but this, and not the end
    // of the process either.
    std::thread::spawn(move || {
        let mut out = stdout().lock();
        let written = loop {
            match queue.blocking_recv() {
                None => break out.flush(),
                Some(part) => {
                    if let Err(error) = out.write_all(&part) {
                        break Err(error);
                    }
                }
            }
        };
        // Whoever waited may have been interrupted.
        let _ = end.send(written);
    });
    loop {
        let mut part = Vec::with_capacity(PART);
        if reader.read_buf(&mut part).await? == 0 || parts.send(part).await.is_err() {
            break;
        }
    }
    drop(parts);
    match ended.await {
        Ok(Ok(())) => Ok(true),
        Ok(Err(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Failure::new(
            Exit::Failed,
            "standard output could not be written",
        )),
    }
}
