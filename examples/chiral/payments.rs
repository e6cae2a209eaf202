//! `chiral payments`: what was earned and spent, and what is still owed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chiral::Node;
use chiral::core::money::format_chi;
use chiral::payment::statement::{Direction, Entry, GroupBy, Status};
use chiral::payment::{Journal, JournalError, Statement};
use serde_json::json;

use super::account::{JOURNAL, wallets_directory};
use super::arguments::{Account, By, Payments};
use super::failure::{Exit, Failure};
use super::output::Output;

/// How long to wait for what is owed to be paid.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) async fn run(command: Payments, output: &Output) -> Result<(), Failure> {
    if command.settle {
        settle(&command).await?;
    }
    let journals = journals(&command)?;
    if journals.is_empty() {
        output.text("nothing was earned or spent yet")?;
    }
    let named = command.data_dir.is_some() || command.account.named_wallet()?.is_some();
    for path in journals {
        let journal = match Journal::open(&path) {
            Err(JournalError::Locked) if !named => {
                let wallet = path.file_stem().unwrap_or_default().display();
                output.note(format!(
                    "{wallet} is in use, and left out: end its program first"
                ));
                continue;
            }
            journal => journal?,
        };
        let statement = Statement::of(&journal).await;
        journal.close().await;
        let statement = statement?;
        match command.by {
            None => tell(output, &statement)?,
            Some(by) => tell_groups(output, &statement, by)?,
        }
    }
    Ok(())
}

/// Pays what is owed, and waits for it.
async fn settle(command: &Payments) -> Result<(), Failure> {
    command.account.needed_wallet()?;
    command.account.needed_client()?;
    let Some(payments) = command.account.payments(command.data_dir.as_deref())? else {
        return Ok(());
    };
    let node = Node::builder().payments(payments).start().await?;
    let wait = async {
        let bills = node.settle().await?;
        node.wait_settled(bills.iter().map(|(bill, _)| bill.id))
            .await
    };
    let result = tokio::time::timeout(PATIENCE, wait).await;
    let ended = node.shutdown().await;
    match result {
        Ok(states) => states?,
        Err(_) => {
            return Err(
                Failure::new(Exit::Unpaid, "not everything could be paid in time")
                    .next("look at the wallet with `chiral wallet balance`, then try again"),
            );
        }
    };
    Ok(ended?)
}

/// The journal of the named directory or wallet, or else all that there are.
fn journals(command: &Payments) -> Result<Vec<PathBuf>, Failure> {
    journals_of(&command.account, command.data_dir.as_deref())
}

/// The same, for any command.
pub(super) fn journals_of(
    account: &Account,
    data_dir: Option<&Path>,
) -> Result<Vec<PathBuf>, Failure> {
    if let Some(directory) = data_dir {
        let path = directory.join(JOURNAL);
        if path.is_file() {
            return Ok(vec![path]);
        }
        let message = format!("there is no journal of payments in {}", directory.display());
        return Err(Failure::new(Exit::Failed, message)
            .next("name the directory that was named to share or get"));
    }
    let directory = wallets_directory()?;
    let mut journals = Vec::new();
    match std::fs::read_dir(&directory) {
        Ok(entries) => {
            for entry in entries {
                let path = entry
                    .map_err(|e| Failure::io("read", &directory, &e))?
                    .path();
                if path
                    .extension()
                    .is_some_and(|extension| extension == "redb")
                {
                    journals.push(path);
                }
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Failure::io("read", &directory, &error)),
    }
    journals.sort();
    if let Some(wallet) = account.named_wallet()? {
        let name = format!("{wallet}.redb");
        journals.retain(|path| path.file_name().is_some_and(|file| file == name.as_str()));
    }
    Ok(journals)
}

fn tell_groups(output: &Output, statement: &Statement, by: By) -> Result<(), Failure> {
    let by = match by {
        By::File => GroupBy::File,
        By::Peer => GroupBy::Peer,
        By::Protocol => GroupBy::Protocol,
        By::Day => GroupBy::Day,
    };
    output.text(statement.table(by).trim_end())?;
    for group in statement.by(by) {
        output.event(&json!({ "event": "sum", "by": by, "sum": group }))?;
    }
    Ok(())
}

fn tell(output: &Output, statement: &Statement) -> Result<(), Failure> {
    for entry in &statement.entries {
        output.text(line(entry))?;
        output.event(&json!({
            "event": "payment",
            "direction": entry.direction,
            "bill": entry.bill.map(|bill| bill.0),
            "channel": entry.channel,
            "cid": entry.cid,
            "wallet": entry.wallet.map(|wallet| wallet.to_string()),
            "peer": entry.peer.as_ref().map(|peer| peer.to_string()),
            "protocol": entry.protocol,
            "bytes": entry.bytes,
            "amount_wei": entry.amount.to_string(),
            "status": entry.status,
            "transaction": entry.transaction,
            "time": entry.time,
            "receipt": entry.receipt,
        }))?;
    }
    for (what, wei) in [
        ("earned", statement.earned),
        ("owed to you", statement.receivable),
        ("spent", statement.spent),
        ("owed by you", statement.payable),
    ] {
        output.text(format!("{what:<12} {} CHI", format_chi(wei)))?;
    }
    output.event(&json!({
        "event": "statement",
        "earned_wei": statement.earned.to_string(),
        "receivable_wei": statement.receivable.to_string(),
        "spent_wei": statement.spent.to_string(),
        "payable_wei": statement.payable.to_string(),
    }))?;
    Ok(())
}

fn line(entry: &Entry) -> String {
    let way = match entry.direction {
        Direction::Earned => "from",
        _ => "to",
    };
    let status = match entry.status {
        Status::Outstanding => "owed",
        Status::Pending => "on its way",
        _ => "paid",
    };
    let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let status = match (entry.channel, entry.direction, entry.status) {
        (Some(_), Direction::Earned, Status::Pending) => "to claim",
        (Some(_), _, Status::Pending) => "in vouchers",
        _ => status,
    };
    if let Some(channel) = entry.channel {
        return format!(
            "{status:<11}{:>24} CHI  {way:<4} {}  {} bytes of {} over {}\n{:>10} channel {channel}",
            format_chi(entry.amount),
            text(entry.wallet.map(|wallet| wallet.to_string())),
            entry.bytes,
            entry.cid,
            entry.protocol,
            "",
        );
    }
    format!(
        "{status:<10} {:>24} CHI  {way:<4} {}  {} bytes of {} over {}\n{:>10} bill {}  transaction {}",
        format_chi(entry.amount),
        text(entry.wallet.map(|wallet| wallet.to_string())),
        entry.bytes,
        entry.cid,
        entry.protocol,
        "",
        text(entry.bill.map(|bill| bill.to_string())),
        text(entry.transaction.map(|hash| hash.to_string())),
    )
}
