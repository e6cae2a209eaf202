//! Many calls at once.

use super::*;

const CHUNKS: u32 = 6;

fn sample() -> (Bytes, Vec<chiral_core::ChunkHash>, Cid) {
    let bytes = Bytes::from(generated(u64::from(CHUNKS) * CHUNK_SIZE));
    let mut hasher = ChunkHasher::new();
    hasher.update(&bytes);
    let (hashes, cid) = hasher.finish().unwrap();
    (bytes, hashes, cid)
}

/// Writers of right and wrong bytes, forgetters and readers meet at the same chunks.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_writers_never_leave_wrong_bytes_under_a_proof() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()).await);
    let (bytes, hashes, cid) = sample();
    let hashes = Arc::new(hashes);
    let size = bytes.len() as u64;
    let target = FileIdentification::Content {
        cid,
        root: None,
        size: Some(size),
    };
    for round in 0..10u8 {
        let id = TransferId::from_bytes([round; 16]);
        let partial = store
            .begin(PartialRequest::new(id, target, size))
            .await
            .unwrap();
        let layout = partial.layout();
        let mut tasks = Vec::new();
        for task in 0..24u32 {
            let (partial, bytes, hashes) = (partial.clone(), bytes.clone(), hashes.clone());
            tasks.push(tokio::spawn(async move {
                let index = task % CHUNKS;
                let range = layout.range(index);
                let right = bytes.slice(range.start as usize..range.end as usize);
                let wrong = Bytes::from(vec![task as u8; range.len() as usize]);
                let before = index
                    .checked_sub(1)
                    .map_or(chain::INITIAL, |at| hashes[at as usize]);
                let after = hashes[index as usize];
                match task / CHUNKS {
                    0 if index.is_multiple_of(2) => {
                        let checked = VerifiedChunk::check(layout, index, before, after, right);
                        partial.write(checked.unwrap()).await.unwrap();
                    }
                    0 => {
                        let claim = |bytes| ChunkClaim {
                            index,
                            before,
                            after,
                            bytes,
                            checked: None,
                        };
                        let claims = vec![claim(wrong.clone()), claim(right), claim(wrong)];
                        let passed = partial.write_checked(claims).await.unwrap();
                        assert_eq!(passed, [false, true, false]);
                    }
                    1 => partial.write_unproven(index, wrong).await.unwrap(),
                    2 => {
                        partial.forget(index).await.unwrap();
                        partial.flush().await.unwrap();
                    }
                    _ => {
                        let proven = partial.proven().get(index);
                        let read = partial.read(index).await;
                        assert!(!proven || read.unwrap() == right);
                    }
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert!(partial.proven().is_full());
        for index in 0..CHUNKS {
            let range = layout.range(index);
            let read = partial.read(index).await.unwrap();
            assert!(
                read == bytes[range.start as usize..range.end as usize],
                "chunk {index}"
            );
        }
        assert!(store.discard(id).await.unwrap());
    }
    store.shutdown().await.unwrap();
}

/// Whatever is going on when the store closes, the next one finds it in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_shutdown_in_the_middle_of_everything_leaves_the_store_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, hashes, cid) = sample();
    let hashes = Arc::new(hashes);
    let size = bytes.len() as u64;
    let target = FileIdentification::Content {
        cid,
        root: None,
        size: Some(size),
    };
    for round in 0..10u64 {
        let store = Arc::new(open(dir.path()).await);
        let mut tasks = Vec::new();
        for task in 0..4u64 {
            let (store, bytes, hashes) = (store.clone(), bytes.clone(), hashes.clone());
            tasks.push(tokio::spawn(async move {
                let small = bytes.slice(0..100 * (task as usize + 1));
                let import = store.import(ImportRequest::new(ImportSource::Bytes(small)));
                let cid = import.await?.header.cid;
                store.pin(cid, "p").await?;
                let id = TransferId::from_bytes([task as u8 + 1; 16]);
                let partial = store.begin(PartialRequest::new(id, target, size)).await?;
                for index in 0..CHUNKS {
                    let range = partial.layout().range(index);
                    let part = bytes.slice(range.start as usize..range.end as usize);
                    let before = index
                        .checked_sub(1)
                        .map_or(chain::INITIAL, |at| hashes[at as usize]);
                    let after = hashes[index as usize];
                    let chunk =
                        VerifiedChunk::check(partial.layout(), index, before, after, part).unwrap();
                    partial.write(chunk).await?;
                }
                store.unpin(cid, "p").await?;
                Ok::<_, StoreError>(())
            }));
        }
        tokio::time::sleep(Duration::from_millis(round * 4)).await;
        store.shutdown().await.unwrap();
        for task in tasks {
            let ended = task.await.unwrap();
            assert!(
                matches!(ended, Ok(()) | Err(StoreError::Closed)),
                "{ended:?}"
            );
        }
        drop(store);
        let store = open(dir.path()).await;
        assert!(store.shared.meta.intents().unwrap().is_empty());
        for info in store.objects().await.unwrap() {
            let content = store.open(info.header.cid).await.unwrap().unwrap();
            let end = info.header.size;
            let read = content.read(ByteRange::new(0, end)).await.unwrap();
            assert_eq!(read, bytes[..end as usize]);
        }
        let partial = store
            .begin(PartialRequest::new(
                TransferId::from_bytes([99; 16]),
                target,
                size,
            ))
            .await
            .unwrap();
        for index in partial.proven().ones() {
            let range = partial.layout().range(index);
            let read = partial.read(index).await.unwrap();
            assert!(
                read == bytes[range.start as usize..range.end as usize],
                "chunk {index}"
            );
        }
        drop(partial);
        store.shutdown().await.unwrap();
    }
}
