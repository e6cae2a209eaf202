use super::*;

const WORDS: TableDefinition<'static, u32, &str> = TableDefinition::new("words");

async fn put(journal: &Journal, key: u32, word: &'static str) -> Result<(), JournalError> {
    journal
        .write("put-word", move |step| {
            step.open_table(WORDS)?.insert(key, word)?;
            Ok(())
        })
        .await
}

async fn word(journal: &Journal, key: u32) -> Option<String> {
    journal
        .write("look", move |step| {
            let table = step.open_table(WORDS)?;
            let found = table.get(key)?.map(|word| word.value().to_owned());
            Ok(found)
        })
        .await
        .unwrap()
}

#[tokio::test]
async fn what_was_answered_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let journal = Journal::open(&path).unwrap();
    put(&journal, 1, "one").await.unwrap();
    let read = journal
        .read(|step| {
            let table = step.open_table(WORDS)?;
            let found = table.get(1)?.map(|word| word.value().to_owned());
            Ok(found)
        })
        .await
        .unwrap();
    assert_eq!(read.as_deref(), Some("one"));
    assert_eq!(journal.steps(), 1, "reading is no step");
    assert!(matches!(Journal::open(&path), Err(JournalError::Locked)));
    journal.close().await;
    journal.close().await;
    let late = put(&journal.clone(), 2, "two").await;
    assert!(matches!(late, Err(JournalError::Closed)), "{late:?}");

    let journal = Journal::open(&path).unwrap();
    assert_eq!(word(&journal, 1).await.as_deref(), Some("one"));
}

#[tokio::test]
async fn a_step_that_fails_leaves_nothing() {
    let journal = Journal::in_memory().unwrap();
    let failed: Result<(), _> = journal
        .write("put-word", |step| {
            step.open_table(WORDS)?.insert(1, "one")?;
            Err(JournalError::Damaged { what: "a test" })
        })
        .await;
    assert!(matches!(failed, Err(JournalError::Damaged { .. })));
    assert_eq!(journal.steps(), 0);
    assert_eq!(word(&journal, 1).await, None);
}

#[tokio::test]
async fn a_crash_before_a_step_loses_it_and_one_after_it_keeps_it() {
    for (crash, kept) in [
        ("before:2", false),
        ("after:2", true),
        ("2", true),
        ("before:put-word", false),
        ("after:put-word", true),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let journal = Journal::open(&path).unwrap();
        journal.crash(crash.parse().unwrap());
        assert_eq!(word(&journal, 1).await, None);
        let result = put(&journal, 1, "one").await;
        let Err(JournalError::Crashed { point: "put-word" }) = result else {
            panic!("{crash}: {result:?}");
        };
        let dead = put(&journal, 2, "two").await;
        assert!(matches!(dead, Err(JournalError::Crashed { .. })), "{crash}");
        journal.close().await;
        let journal = Journal::open(&path).unwrap();
        assert_eq!(word(&journal, 1).await.is_some(), kept, "{crash}");
        assert_eq!(word(&journal, 2).await, None, "{crash}");
    }
    for bad in ["", "0", "before:", "during:1", "after:0", "-1", "after:A"] {
        let parsed = bad.parse::<Crash>();
        assert!(parsed.is_err(), "{bad}: {parsed:?}");
    }
}

#[tokio::test]
async fn other_formats_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let set = |format| {
        let database = Database::create(&path).unwrap();
        let step = database.begin_write().unwrap();
        step.open_table(META)
            .unwrap()
            .insert(FORMAT_KEY, format)
            .unwrap();
        step.commit().unwrap();
    };
    set(FORMAT + 1);
    let newer = Journal::open(&path);
    assert!(matches!(newer, Err(JournalError::NewerFormat { found }) if found == FORMAT + 1));
    for older in [0, FORMAT - 1] {
        set(older);
        assert!(matches!(
            Journal::open(&path),
            Err(JournalError::Damaged { .. })
        ));
    }
    set(FORMAT);
    Journal::open(&path).unwrap();

    let foreign = folder.path().join("foreign");
    let database = Database::create(&foreign).unwrap();
    let step = database.begin_write().unwrap();
    step.open_table(WORDS).unwrap().insert(1, "one").unwrap();
    step.commit().unwrap();
    drop(database);
    assert!(matches!(
        Journal::open(&foreign),
        Err(JournalError::Damaged { .. })
    ));
    std::fs::write(folder.path().join("text"), "no database at all").unwrap();
    let text = Journal::open(folder.path().join("text"));
    assert!(matches!(text, Err(JournalError::Store(_))), "{text:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_of_many_handles_follow_each_other() {
    const COUNTER: TableDefinition<'static, &str, u64> = TableDefinition::new("counter");
    let journal = Journal::in_memory().unwrap();
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let journal = journal.clone();
            tokio::spawn(async move {
                journal
                    .write("count", |step| {
                        let mut table = step.open_table(COUNTER)?;
                        let next = table.get("n")?.map_or(0, |n| n.value()) + 1;
                        table.insert("n", next)?;
                        Ok(next)
                    })
                    .await
                    .unwrap()
            })
        })
        .collect();
    let mut seen = Vec::new();
    for task in tasks {
        seen.push(task.await.unwrap());
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=16).collect::<Vec<_>>());
}
