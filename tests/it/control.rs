//! Queue, limits, what is unfinished, and what is held against peers: through the facade.

use std::time::Instant;

use chiral::core::transfer::TransferState;
use chiral::{Node, NodeError, Priority, Rate, Share};

use crate::support::{data, node, url, within};

fn rate(text: &str) -> Rate {
    text.parse().unwrap()
}

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_served_is_limited_in_all_and_for_each_file() {
    let dir = tempfile::tempdir().unwrap();
    let seeder = Node::builder()
        .data_dir(dir.path())
        .http_listen(([127, 0, 0, 1], 0).into())
        .limit_up(rate("16MiB"))
        .start()
        .await
        .unwrap();
    let (one, two) = (data(8 * MIB), data(8 * MIB - 1));
    let first = within(seeder.share(one.clone())).await.unwrap();
    let slow = Share::bytes(two.clone()).limit_up(rate("4MiB"));
    let second = within(seeder.share(slow)).await.unwrap();
    let getter = Node::builder().start().await.unwrap();
    let peer = url(&seeder);
    let get = |link: &chiral::Link| {
        let get = getter.get(link).peer(&peer).to_bytes();
        async move {
            let begun = Instant::now();
            let bytes = within(get.into_future()).await.unwrap().bytes.unwrap();
            (bytes, begun.elapsed().as_secs_f64())
        }
    };
    let ((got_one, took_one), (got_two, took_two)) =
        tokio::join!(get(&first.link), get(&second.link));
    assert!(got_one == one && got_two == two);
    // 16 MiB at 16 MiB/s, half of which may come at 4 MiB/s at most.
    assert!(took_two >= 1.9, "{took_two}");
    assert!((0.5..took_two).contains(&took_one), "{took_one} {took_two}");
    assert_eq!(
        seeder.uploads().file_limit(second.cid()),
        Some(rate("4MiB"))
    );
    seeder.uploads().set_limit(None);
    seeder.uploads().set_file_limit(second.cid(), None);
    let (got, took) = get(&second.link).await;
    assert!(got == two && took < took_two, "{took}");
    within(getter.shutdown()).await.unwrap();
    within(seeder.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_goes_on_with_what_it_had_not_finished_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let seeder = node(&dir.path().join("seeder")).await;
    let bytes = data(12 * MIB);
    let link = within(seeder.share(bytes.clone())).await.unwrap().link;
    let other = within(seeder.share(data(5 * MIB))).await.unwrap().link;
    let peer = url(&seeder);
    let (state, path) = (dir.path().join("getter"), dir.path().join("it.bin"));
    let getter = Node::builder()
        .data_dir(&state)
        .max_downloads(1)
        .limit_down(rate("4MiB"))
        .start()
        .await
        .unwrap();
    let get = getter.get(&link).peer(&peer).to_file(&path);
    let getting = within(get.priority(Priority::High).start()).await.unwrap();
    let queued = within(getter.get(&other).peer(&peer).start())
        .await
        .unwrap();
    let unwanted = within(getter.get(chiral::Cid::from_bytes([3; 32])).start()).await;
    let unwanted = unwanted.unwrap();
    let deep = async {
        while getting.progress().proven < 2 * MIB as u64 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    within(deep).await;
    let status = within(getter.status()).await.unwrap();
    let of = |id| status.transfers.iter().find(|t| t.transfer == id).unwrap();
    assert_eq!(of(getting.id()).state, TransferState::Running);
    assert_eq!(of(getting.id()).priority, Priority::High);
    assert_eq!(of(queued.id()).state, TransferState::Queued);
    assert_eq!(
        (status.max_downloads, status.limit_down),
        (Some(1), Some(rate("4MiB")))
    );
    assert!(getting.set_limit(Some(rate("2MiB"))));
    assert_eq!(getter.unfinished().len(), 3);
    // One that is cancelled is over; one that is cut off is not.
    assert!(unwanted.cancel());
    assert!(within(unwanted.outcome()).await.is_err());
    let list = getter.unfinished();
    assert!(list.iter().all(|unfinished| unfinished.transfer.is_some()));
    assert_eq!(list.len(), 2);
    within(getter.shutdown()).await.unwrap();
    assert!(within(getting.outcome()).await.is_err());
    assert!(within(queued.outcome()).await.is_err());
    assert!(!path.exists());

    let getter = node(&state).await;
    let list = getter.unfinished();
    let mine = list
        .iter()
        .find(|u| u.target.cid() == Some(link.cid))
        .unwrap();
    assert_eq!(
        (mine.destination.as_ref(), mine.priority),
        (Some(&path), Priority::High)
    );
    assert!(list.iter().all(|unfinished| unfinished.transfer.is_none()));
    assert!(within(getter.abandon(&other)).await.unwrap());
    assert!(!within(getter.abandon(&other)).await.unwrap());
    let mut resumed = within(getter.resume_all()).await;
    assert_eq!(resumed.len(), 1);
    let got = within(resumed.remove(0).unwrap().outcome()).await.unwrap();
    assert!(std::fs::read(&path).unwrap() == bytes);
    let fetched: u64 = got.sources.iter().map(|source| source.bytes).sum();
    assert!(fetched < 11 * MIB as u64, "{fetched} bytes fetched again");
    assert!(getter.unfinished().is_empty());
    assert!(within(getter.resume_all()).await.is_empty());
    within(getter.shutdown()).await.unwrap();
    within(seeder.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_of_a_download_outlasts_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let seeder = node(&dir.path().join("seeder")).await;
    let bytes = data(8 * MIB);
    let link = within(seeder.share(bytes.clone())).await.unwrap().link;
    let peer = url(&seeder);
    let state = dir.path().join("getter");
    let getter = node(&state).await;
    let get = getter.get(&link).peer(&peer).limit_down(rate("1MiB"));
    let getting = within(get.seed(true).start()).await.unwrap();
    let proven = async {
        while getting.progress().proven == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    within(proven).await;
    assert!(getting.pause());
    assert!(getting.set_priority(Priority::Low));
    assert!(getting.set_limit(Some(rate("64MiB"))));
    // Kept while it is under way, not only at the end: a kill would lose nothing of it.
    let kept = || std::fs::read_to_string(state.join("downloads.json")).unwrap_or_default();
    let written = async {
        while !["\"paused\":true", "\"low\"", "67108864", "\"seed\":true"]
            .iter()
            .all(|word| kept().contains(word))
        {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    within(written).await;
    within(getter.shutdown()).await.unwrap();
    assert!(within(getting.outcome()).await.is_err());

    let getter = node(&state).await;
    let list = getter.unfinished();
    let [unfinished] = &list[..] else {
        panic!("{list:?}");
    };
    assert!(unfinished.paused && unfinished.seed);
    assert_eq!(unfinished.priority, Priority::Low);
    assert_eq!(unfinished.limit, Some(rate("64MiB")));
    let getting = within(getter.resume_all()).await.remove(0).unwrap();
    // It stays paused until somebody resumes it.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(getting.transfer().state(), TransferState::Paused);
    assert_eq!(getting.progress().sources, 0);
    let status = within(getter.status()).await.unwrap();
    let [transfer] = &status.transfers[..] else {
        panic!("{:?}", status.transfers);
    };
    assert_eq!(transfer.priority, Priority::Low);
    assert_eq!(transfer.limit_down, Some(rate("64MiB")));
    assert!(getting.resume());
    within(getting.outcome()).await.unwrap();
    let shared = async {
        while within(getter.status()).await.unwrap().shared.is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    within(shared).await;
    assert!(getter.unfinished().is_empty());
    within(getter.shutdown()).await.unwrap();

    // A node that does not serve any more goes on without seeding.
    let other = dir.path().join("other");
    let getter = node(&other).await;
    let getting = within(getter.get(&link).seed(true).paused(true).start()).await;
    let getting = getting.unwrap();
    within(getter.shutdown()).await.unwrap();
    assert!(within(getting.outcome()).await.is_err());
    let getter = Node::builder().data_dir(&other).start().await.unwrap();
    let getting = within(getter.resume_all()).await.remove(0).unwrap();
    assert!(getting.cancel());
    assert!(within(getting.outcome()).await.is_err());
    within(getter.shutdown()).await.unwrap();
    within(seeder.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lying_mirror_is_banned_over_downloads_and_restarts_until_it_is_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let seeder = node(&dir.path().join("seeder")).await;
    let (right, wrong) = (data(3 * MIB), vec![7; 3 * MIB]);
    let right = within(seeder.share(right)).await.unwrap().cid();
    let wrong = within(seeder.share(wrong)).await.unwrap().cid();
    let lying = format!("{}file/{wrong}", url(&seeder));
    let state = dir.path().join("getter");
    let getter = node(&state).await;
    let get = |getter: &Node, cid| within(getter.get(cid).mirror(&lying).to_bytes().into_future());
    let refused = |result: Result<chiral::Got, NodeError>| result.unwrap_err().to_string();
    let first = refused(get(&getter, right).await);
    assert!(!first.contains("banned"), "{first}");
    let status = within(getter.status()).await.unwrap();
    let [penalty] = &status.penalties[..] else {
        panic!("{:?}", status.penalties);
    };
    assert_eq!(
        (penalty.kind, penalty.endpoint.as_str()),
        ("banned", lying.as_str())
    );
    assert_eq!(penalty.content, Some(right));
    assert!(penalty.until > penalty.since);
    within(getter.shutdown()).await.unwrap();

    let getter = node(&state).await;
    let again = refused(get(&getter, right).await);
    assert!(again.contains("banned"), "{again}");
    // Of what it has a right copy of, it is a mirror like any other.
    assert!(get(&getter, wrong).await.is_ok());
    assert!(
        getter
            .peers()
            .of_protocol(&chiral::Protocol::Http)
            .is_some()
    );
    assert_eq!(getter.manager().clear_penalty(&lying), 1);
    assert!(getter.manager().penalties().is_empty());
    let cleared = refused(get(&getter, right).await);
    assert!(!cleared.contains("banned"), "{cleared}");
    within(getter.shutdown()).await.unwrap();
    within(seeder.shutdown()).await.unwrap();
}
