//! Reading a file while it comes, over real sockets.

use std::io::SeekFrom;

use chiral::{ByteRange, NodeError};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::support::{data, node, url, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_player_reads_and_seeks_while_the_file_comes() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = data(40 << 20);
    let seeder = node(&dir.path().join("seeder")).await;
    let link = within(seeder.share(bytes.clone())).await.unwrap().link;
    let getter = node(&dir.path().join("getter")).await;
    let path = dir.path().join("out");
    let get = getter.get(&link).peer(&url(&seeder)).to_file(&path);
    let getting = within(get.start()).await.unwrap();
    let mut player = getting.reader().unwrap();
    let mut other = getting.reader().unwrap();
    let end = tokio::spawn(async move {
        other.seek(SeekFrom::End(-100)).await.unwrap();
        let mut tail = Vec::new();
        other.read_to_end(&mut tail).await.unwrap();
        tail
    });
    let mut played = vec![0; 10 << 20];
    within(player.read_exact(&mut played)).await.unwrap();
    assert!(played == bytes[..10 << 20]);
    within(player.seek(SeekFrom::Start(30 << 20)))
        .await
        .unwrap();
    let mut rest = Vec::new();
    within(player.read_to_end(&mut rest)).await.unwrap();
    assert!(rest == bytes[30 << 20..]);
    assert_eq!(within(end).await.unwrap(), bytes[bytes.len() - 100..]);
    within(getting.outcome()).await.unwrap();
    assert!(std::fs::read(&path).unwrap() == bytes);

    // What is complete is read the same way; so is what is there of a part.
    let mut stored = within(getter.reader(link.cid)).await.unwrap();
    stored.seek(SeekFrom::End(-5)).await.unwrap();
    let mut tail = Vec::new();
    within(stored.read_to_end(&mut tail)).await.unwrap();
    assert_eq!(tail, bytes[bytes.len() - 5..]);
    let part = node(&dir.path().join("part")).await;
    let only = ByteRange::new(1 << 20, 2 << 20);
    let get = part.get(&link).peer(&url(&seeder)).only(only);
    within(get.into_future()).await.unwrap();
    let mut stored = within(part.reader(link.cid)).await.unwrap();
    stored.seek(SeekFrom::Start(1 << 20)).await.unwrap();
    let mut held = vec![0; 1 << 20];
    within(stored.read_exact(&mut held)).await.unwrap();
    assert!(held == bytes[1 << 20..2 << 20]);
    assert!(within(stored.read_u8()).await.is_err());
    let unknown = within(part.reader(chiral::Cid::from_bytes([1; 32]))).await;
    assert!(matches!(unknown, Err(NodeError::Store(_))));
    for node in [seeder, getter, part] {
        within(node.shutdown()).await.unwrap();
    }
}
