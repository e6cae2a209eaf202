//! Sharing and getting.

use chiral::core::link::file_name;
use chiral::{ByteRange, Cid, FileIdentification, Link, NodeError, Share, TransferError};

use crate::support::{data, identity, node, url, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_from_one_node_to_another_by_link_and_by_cid() {
    let dir = tempfile::tempdir().unwrap();
    let seeder = node(&dir.path().join("seeder")).await;
    let getter = node(&dir.path().join("getter")).await;
    for size in [0usize, 1, 262_143, 262_144, 262_145, 3_000_000] {
        let bytes = data(size);
        let original = dir.path().join(format!("ein schöner Name {size}.bin"));
        std::fs::write(&original, &bytes).unwrap();
        let shared = within(seeder.share(original.as_path())).await.unwrap();
        assert_eq!(shared.cid(), identity(&bytes).cid);
        assert_eq!(shared.link.root, Some(identity(&bytes).root));
        let link: Link = shared.link.to_string().parse().unwrap();
        let name = link.name.as_deref().and_then(file_name).unwrap();
        assert_eq!(name, format!("ein schöner Name {size}.bin"));

        for (by, target) in [
            ("link", FileIdentification::from(&link)),
            ("cid", link.cid.into()),
        ] {
            let path = dir.path().join(format!("{by}-{size}"));
            let got = within(
                getter
                    .get(target)
                    .peer(&url(&seeder))
                    .to_file(&path)
                    .into_future(),
            );
            let got = got.await.unwrap();
            assert_eq!(got.path.as_deref(), Some(path.as_path()));
            assert!(std::fs::read(&path).unwrap() == bytes, "{by} {size}");
            assert!(
                std::fs::read(&original).unwrap() == bytes,
                "the original is untouched"
            );
        }
        let got = within(
            getter
                .get(link.cid)
                .peer(&url(&seeder))
                .to_bytes()
                .into_future(),
        )
        .await;
        assert!(got.unwrap().bytes.unwrap() == bytes);
    }
    within(getter.shutdown()).await.unwrap();
    within(seeder.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn three_seeders_one_of_them_partial_fill_one_download() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = data(24 << 20);
    let file = dir.path().join("file");
    std::fs::write(&file, &bytes).unwrap();
    let a = node(&dir.path().join("a")).await;
    let b = node(&dir.path().join("b")).await;
    let partial = node(&dir.path().join("partial")).await;
    let link = within(a.share(file.as_path())).await.unwrap().link;
    within(b.share(Share::copy_of(&file))).await.unwrap();
    let part = ByteRange::new(0, 12 << 20);
    within(partial.get(&link).peer(&url(&a)).only(part).into_future())
        .await
        .unwrap();
    let shared = within(partial.share(Share::stored(link.cid)))
        .await
        .unwrap();
    assert_eq!(shared.link.root, link.root);

    let getter = node(&dir.path().join("getter")).await;
    let path = dir.path().join("out");
    let mut get = getter.get(&link).to_file(&path);
    for seeder in [&a, &b, &partial] {
        get = get.peer(&url(seeder));
    }
    let got = within(get.into_future()).await.unwrap();
    assert!(std::fs::read(&path).unwrap() == bytes);
    assert_eq!(got.sources.len(), 3);
    assert_eq!(
        got.sources.iter().map(|source| source.bytes).sum::<u64>(),
        24 << 20
    );
    assert_eq!(
        got.settled
            .iter()
            .map(|(bill, _)| bill.ranges.len())
            .sum::<u64>(),
        24 << 20
    );
    for node in [a, b, partial, getter] {
        within(node.shutdown()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_a_typed_error() {
    let dir = tempfile::tempdir().unwrap();
    let seeder = node(&dir.path().join("seeder")).await;
    let getter = node(&dir.path().join("getter")).await;
    let shared = within(seeder.share(data(1000))).await.unwrap();
    let taken = dir.path().join("taken");
    std::fs::write(&taken, b"mine").unwrap();
    let result = within(
        getter
            .get(shared.cid())
            .peer(&url(&seeder))
            .to_file(&taken)
            .into_future(),
    );
    let error = result.await.unwrap_err();
    assert!(matches!(
        error,
        NodeError::Transfer(TransferError::Store(
            chiral::core::StoreError::AlreadyExists { .. }
        ))
    ));
    assert_eq!(std::fs::read(&taken).unwrap(), b"mine");
    let get = getter
        .get(shared.cid())
        .peer(&url(&seeder))
        .to_bytes_up_to(999);
    let error = within(get.into_future()).await.unwrap_err();
    assert!(matches!(
        error,
        NodeError::Transfer(TransferError::TooLarge {
            size: 1000,
            limit: 999
        })
    ));
    let unknown = Cid::from_bytes([3; 32]);
    let error = within(getter.get(unknown).peer(&url(&seeder)).into_future())
        .await
        .unwrap_err();
    assert!(
        matches!(error, NodeError::Transfer(TransferError::NoSources { .. })),
        "{error:?}"
    );
    let missing = within(seeder.share(dir.path().join("nothing")))
        .await
        .unwrap_err();
    assert!(matches!(missing, NodeError::Store(_)));
    let error = within(getter.get(unknown).peer("not a url").into_future())
        .await
        .unwrap_err();
    assert!(matches!(error, NodeError::Endpoint { .. }));
    within(getter.shutdown()).await.unwrap();
    within(seeder.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_shared_any_more_is_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let seeder = node(&dir.path().join("seeder")).await;
    let getter = node(&dir.path().join("getter")).await;
    let shared = within(seeder.share(data(300_000))).await.unwrap();
    assert_eq!(
        within(seeder.status()).await.unwrap().shared,
        [shared.link.to_string()]
    );
    assert!(within(seeder.unshare(shared.cid())).await.unwrap());
    assert!(!within(seeder.unshare(shared.cid())).await.unwrap());
    let result = within(
        getter
            .get(shared.cid())
            .peer(&url(&seeder))
            .to_bytes()
            .into_future(),
    )
    .await;
    assert!(result.is_err());
    let status = within(seeder.status()).await.unwrap();
    assert!(status.shared.is_empty() && status.transfers.is_empty());
    within(getter.shutdown()).await.unwrap();
    within(seeder.shutdown()).await.unwrap();
}
