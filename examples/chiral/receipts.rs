//! `chiral prove` and `chiral verify-receipt`: proofs of delivery, for third parties.

use std::io::Read;
use std::path::{Path, PathBuf};

use chiral::core::money::format_chi;
use chiral::core::{BillId, ChunkHash, ChunkHasher, ChunkLayout};
use chiral::payment::delivery::{DeliveryProof, MAX_FILE, MakeError};
use chiral::payment::{Journal, Payments};
use serde_json::json;

use super::arguments::{Prove, VerifyReceipt};
use super::failure::{Exit, Failure};
use super::output::Output;
use super::payments::journals_of;

pub(crate) async fn prove(command: Prove, output: &Output) -> Result<(), Failure> {
    let wallet = command.account.needed_wallet()?;
    let path = command.file.clone();
    let hashed = tokio::task::spawn_blocking(move || hash(&path)).await;
    let (layout, hashes) = hashed.map_err(|e| Failure::of(Exit::Failed, &e))??;
    let bill = BillId(command.bill);
    for path in journals_of(&command.account, command.data_dir.as_deref())? {
        let journal = Journal::open(&path)?;
        let proof = async {
            let Some(chain) = Payments::chain_of(&journal).await? else {
                return Ok(None);
            };
            let proof = DeliveryProof::of_journal(&journal, chain, &wallet, bill, layout, &hashes);
            match proof.await {
                Ok(proof) => Ok::<_, Failure>(Some(proof)),
                Err(MakeError::UnknownBill) => Ok(None),
                Err(error) => Err(Failure::of(Exit::Failed, &error)),
            }
        };
        let proof = proof.await;
        journal.close().await;
        if let Some(proof) = proof? {
            write(&command.output, &proof.encode())?;
            output.text(format!("wrote {}", command.output.display()))?;
            output.event(&json!({
                "event": "proof",
                "bill": bill.0,
                "file": command.output.to_string_lossy(),
            }))?;
            return Ok(());
        }
    }
    Err(Failure::new(Exit::Failed, "no such bill was made here")
        .next("`chiral payments` shows the bills of a wallet"))
}

pub(crate) async fn verify(command: VerifyReceipt, output: &Output) -> Result<(), Failure> {
    let bytes = read(&command.file)?;
    let checked = DeliveryProof::decode(&bytes).and_then(|proof| Ok((proof.verify()?, proof)));
    let (delivery, proof) = checked.map_err(|error| Failure::of(Exit::Refused, &error))?;
    let chunks = delivery.chunks.map_or(0, |(_, count)| count);
    for (what, value) in [
        ("bill", delivery.bill.to_string()),
        ("file", delivery.cid.to_string()),
        ("payer", delivery.payer.to_string()),
        ("payee", delivery.payee.to_string()),
        ("bytes", delivery.bytes.to_string()),
        ("chunks", format!("{chunks} proven, signed by the payer")),
        ("amount", format!("{} CHI", format_chi(delivery.amount))),
        ("transaction", delivery.transaction.to_string()),
        ("chain", format!("{}", proof.chain.chain_id)),
    ] {
        output.text(format!("{what:<12} {value}"))?;
    }
    output.text("all signatures hold; whether the chain has the transaction is for it to say")?;
    output.event(&json!({
        "event": "delivery",
        "bill": delivery.bill.0,
        "cid": delivery.cid,
        "payer": delivery.payer.to_string(),
        "payee": delivery.payee.to_string(),
        "bytes": delivery.bytes,
        "chunks": chunks,
        "root": delivery.chunks.map(|(root, _)| root.to_string()),
        "amount_wei": delivery.amount.to_string(),
        "transaction": delivery.transaction,
        "time": delivery.time,
        "chain_id": proof.chain.chain_id,
        "genesis": proof.chain.genesis,
    }))?;
    Ok(())
}

/// The hashes of all chunks of a file.
fn hash(path: &Path) -> Result<(ChunkLayout, Vec<ChunkHash>), Failure> {
    let failed = |error: &std::io::Error| Failure::io("read", path, error);
    let mut file = std::fs::File::open(path).map_err(|e| failed(&e))?;
    let (mut hasher, mut size) = (ChunkHasher::new(), 0u64);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).map_err(|e| failed(&e))?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        size += read as u64;
    }
    let layout = ChunkLayout::new(size).map_err(|e| Failure::of(Exit::Failed, &e))?;
    let (hashes, _) = hasher.finish().map_err(|e| Failure::of(Exit::Failed, &e))?;
    Ok((layout, hashes))
}

fn write(path: &PathBuf, bytes: &[u8]) -> Result<(), Failure> {
    use std::io::Write;
    // What is there is not overwritten.
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path);
    let written = file.and_then(|mut file| file.write_all(bytes));
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failure::new(Exit::Exists, format!("{} exists", path.display()))
        }
        _ => Failure::io("write", path, &error),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: &std::io::Error| Failure::io("read", path, error);
    let file = std::fs::File::open(path).map_err(|e| failed(&e))?;
    let mut bytes = Vec::new();
    let limited = file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes);
    limited.map_err(|e| failed(&e))?;
    Ok(bytes)
}
