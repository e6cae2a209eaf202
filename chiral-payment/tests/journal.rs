//! The journal in a process that ends in the middle: `CHIRAL_JOURNAL_CRASH` aborts it, as a
//! kill would, and what it had answered is there afterwards.
#![cfg(feature = "chain")]
#![allow(clippy::unwrap_used)]

use std::process::Command;

use chiral_payment::Journal;
use chiral_payment::journal::CRASH_VARIABLE;
use redb::{ReadableTableMetadata, TableDefinition};

const STEPS: TableDefinition<'static, u64, ()> = TableDefinition::new("test-steps");
/// Where the process that ends has its journal.
const FOLDER: &str = "CHIRAL_TEST_JOURNAL";

async fn put(journal: &Journal, number: u64) {
    let name = if number == 3 { "third" } else { "another" };
    let put = journal.write(name, move |step| {
        step.open_table(STEPS)?.insert(number, ())?;
        Ok(())
    });
    put.await.unwrap();
}

#[tokio::test]
#[ignore = "runs in a process of its own, which ends in the middle"]
async fn five_steps() {
    let folder = std::path::PathBuf::from(std::env::var(FOLDER).unwrap());
    let journal = Journal::open(folder.join("journal")).unwrap();
    for number in 1..=5 {
        put(&journal, number).await;
    }
    journal.close().await;
}

#[tokio::test]
async fn a_process_that_is_aborted_keeps_what_was_durable() {
    for (crash, kept) in [
        ("before:1", 0),
        ("after:1", 1),
        ("4", 4),
        ("before:third", 2),
        ("after:third", 3),
        ("after:6", 5),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["five_steps", "--exact", "--ignored"])
            .env(CRASH_VARIABLE, crash)
            .env(FOLDER, folder.path())
            .output()
            .unwrap();
        assert_eq!(output.status.success(), kept == 5, "{crash}: {output:?}");
        let journal = Journal::open(folder.path().join("journal")).unwrap();
        let found = journal.write("count", |step| Ok(step.open_table(STEPS)?.len()?));
        assert_eq!(found.await.unwrap(), kept, "{crash}");
        journal.close().await;
    }
}

#[tokio::test]
async fn a_crash_that_is_not_understood_is_said_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["five_steps", "--exact", "--ignored"])
        .env(CRASH_VARIABLE, "during:1")
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("CrashVariable"), "{said}");
}
