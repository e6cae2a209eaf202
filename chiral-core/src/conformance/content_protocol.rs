//! The suite of [`ContentProtocol`]: getting whole files, seeding them, and ending.
//!
//! What needs a peer takes two protocols, or an offer of a file that somebody serves. None
//! of these functions knows time: run them under a limit.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use bytes::Bytes;
use futures_util::future::{self, Either};

use super::chunk_source;
use crate::content_protocol::{Content, ContentProtocol, GetRequest, SeedContent, SeedRequest};
use crate::{
    Cid, ContentIdentity, FileIdentification, MerkleRoot, PeerOffer, StoreError, TransferError,
};

/// Getting a file of these bytes from `offer`, to memory and into the empty `directory`.
/// Files of more than 4 MiB show more than small ones.
pub async fn fetching(
    protocol: &dyn ContentProtocol,
    offer: &PeerOffer,
    bytes: &Bytes,
    directory: &Path,
) {
    let target = identification(bytes);
    let source = protocol.connect(offer, &target).await;
    let source = source.unwrap_or_else(|error| panic!("no connection: {error}"));
    assert_eq!(source.offer().endpoint, offer.endpoint);
    assert_eq!(source.offer().protocol, protocol.name());
    chunk_source::any_source(source, bytes).await;

    let content = protocol
        .get_content_from(GetRequest::new(offer.clone(), target))
        .await;
    match content {
        Ok(Content::Bytes(got)) => assert!(got == bytes, "other bytes came to memory"),
        other => panic!("to memory: {other:?}"),
    }
    a_file_is_written_once(protocol, offer, bytes, directory).await;
    what_is_not_the_target_is_refused(protocol, offer, bytes, directory).await;
    a_dropped_download_leaves_nothing(protocol, offer, bytes, directory).await;
    nothing_is_to_be_paused(protocol, &target).await;
}

async fn a_file_is_written_once(
    protocol: &dyn ContentProtocol,
    offer: &PeerOffer,
    bytes: &Bytes,
    directory: &Path,
) {
    let path = directory.join("got");
    let seen = Arc::new(AtomicU64::new(0));
    let mut request = GetRequest::new(offer.clone(), identification(bytes));
    request.destination = Some(path.clone());
    let (shown, size) = (seen.clone(), bytes.len() as u64);
    request.progress = Some(Arc::new(move |done, all| {
        assert_eq!(all, size, "progress tells another size");
        let before = shown.swap(done, Ordering::Relaxed);
        assert!(
            before <= done && done <= size,
            "progress from {before} to {done}"
        );
    }));
    match protocol.get_content_from(request.clone()).await {
        Ok(Content::File(written)) => assert_eq!(written, path),
        other => panic!("to a file: {other:?}"),
    }
    assert!(read(&path) == *bytes, "other bytes came to the file");
    assert_eq!(
        seen.load(Ordering::Relaxed),
        size,
        "progress ends at the end"
    );

    let again = protocol.get_content_from(request).await;
    let refused = matches!(
        again,
        Err(TransferError::Store(StoreError::AlreadyExists { .. }))
    );
    assert!(refused, "over an existing file: {again:?}");
    assert!(read(&path) == *bytes, "the existing file was touched");
    std::fs::remove_file(&path).expect("the file is there");
    is_empty(directory);
}

async fn what_is_not_the_target_is_refused(
    protocol: &dyn ContentProtocol,
    offer: &PeerOffer,
    bytes: &Bytes,
    directory: &Path,
) {
    let FileIdentification::Content { cid, size, .. } = identification(bytes) else {
        return;
    };
    let mut other = *cid.as_bytes();
    other[31] ^= 1;
    let no_root = Some(MerkleRoot::from_bytes([7; 32]));
    for wrong in [
        FileIdentification::Content {
            cid: Cid::from_bytes(other),
            root: None,
            size,
        },
        FileIdentification::Content {
            cid,
            root: no_root,
            size,
        },
    ] {
        let mut request = GetRequest::new(offer.clone(), wrong);
        request.destination = Some(directory.join("wrong"));
        let result = protocol.get_content_from(request).await;
        assert!(result.is_err(), "{wrong:?} was got from another file");
        is_empty(directory);
    }
}

/// Drops the download before it begins, and at its first progress.
async fn a_dropped_download_leaves_nothing(
    protocol: &dyn ContentProtocol,
    offer: &PeerOffer,
    bytes: &Bytes,
    directory: &Path,
) {
    let path = directory.join("dropped");
    let mut request = GetRequest::new(offer.clone(), identification(bytes));
    request.destination = Some(path.clone());
    let at_once = future::poll_immediate(protocol.get_content_from(request.clone())).await;
    if at_once.is_some() {
        std::fs::remove_file(&path).expect("the whole file came at once");
    }
    is_empty(directory);

    let begun = Arc::new(AtomicU64::new(0));
    let counter = begun.clone();
    request.progress = Some(Arc::new(move |done, _| {
        counter.store(done, Ordering::Relaxed)
    }));
    let some = future::poll_fn(|_| match begun.load(Ordering::Relaxed) {
        0 => Poll::Pending,
        _ => Poll::Ready(()),
    });
    // Whether the end or the first progress is seen first depends on how much comes at once.
    match future::select(protocol.get_content_from(request), some).await {
        Either::Left((result, _)) => {
            assert!(result.is_ok(), "{result:?}");
            std::fs::remove_file(&path).expect("the whole file came at once");
        }
        Either::Right(((), download)) => drop(download),
    }
    is_empty(directory);
}

/// Pause, resume and cancel of content that nothing is done with.
pub async fn nothing_is_to_be_paused(protocol: &dyn ContentProtocol, target: &FileIdentification) {
    for result in [
        protocol.pause(target).await,
        protocol.resume(target).await,
        protocol.cancel(target).await,
    ] {
        assert!(matches!(result, Ok(false)), "nothing runs: {result:?}");
    }
}

/// Pause, resume and cancel reach a transfer of the registry.
pub async fn transfers_are_steered(protocol: &dyn ContentProtocol, target: FileIdentification) {
    let id = crate::TransferId::from_bytes([9; 16]);
    let begun = protocol.registry().begin(id, target);
    let (transfer, driver) = begun.expect("nothing else runs");
    for (result, expected) in [
        (protocol.resume(&target).await, false),
        (protocol.pause(&target).await, true),
        (protocol.pause(&target).await, false),
        (protocol.resume(&target).await, true),
        (protocol.cancel(&target).await, true),
        (protocol.cancel(&target).await, false),
    ] {
        assert!(matches!(result, Ok(done) if done == expected), "{result:?}");
    }
    assert!(driver.is_cancelled());
    drop(driver);
    assert!(transfer.outcome().is_some());
    nothing_is_to_be_paused(protocol, &target).await;
}

/// Seeding bytes by one protocol and getting them by another (or the same) of its kind.
pub async fn seeding(
    seeder: &dyn ContentProtocol,
    fetcher: &dyn ContentProtocol,
    bytes: &Bytes,
    directory: &Path,
) {
    let target = identification(bytes);
    let request = SeedRequest::new(SeedContent::Bytes(bytes.clone()));
    let first = seeder.start_seeding(request.clone()).await;
    let first = first.unwrap_or_else(|error| panic!("not seeded: {error}"));
    let again = seeder
        .start_seeding(request)
        .await
        .expect("seeding twice is seeding");
    assert_eq!(first.offers, again.offers);
    assert_eq!(Some(first.header.cid), target.cid());
    assert_eq!(Some(first.header.root), target.root());
    assert_eq!(Some(first.header.size), target.size());
    let offer = first.offers.first().expect("a seeder says where it serves");
    assert_eq!(offer.protocol, seeder.name());
    assert!(
        seeder.endpoints().contains(&offer.endpoint),
        "the offer is of an endpoint to be announced"
    );
    fetching(fetcher, offer, bytes, directory).await;
    is_empty(directory);

    let stored = SeedRequest::new(SeedContent::Stored(first.header.cid));
    let stored = seeder.start_seeding(stored).await;
    assert!(stored.is_ok(), "what is stored can be seeded: {stored:?}");
    assert!(matches!(seeder.stop_seeding(&target).await, Ok(true)));
    assert!(matches!(seeder.stop_seeding(&target).await, Ok(false)));
    let got = fetcher
        .get_content_from(GetRequest::new(offer.clone(), target))
        .await;
    assert!(got.is_err(), "got after the end of seeding");

    let nothing = SeedRequest::new(SeedContent::Stored(Cid::from_bytes([3; 32])));
    let nothing = seeder.start_seeding(nothing).await;
    assert!(nothing.is_err(), "seeding what is not there: {nothing:?}");
    let path = SeedContent::Path(directory.join("absent"), Default::default());
    let absent = seeder.start_seeding(SeedRequest::new(path)).await;
    assert!(
        absent.is_err(),
        "seeding a file that is not there: {absent:?}"
    );
}

/// Shutting down twice; afterwards nothing is begun. Whether ports and files are free is
/// for the caller to look at.
pub async fn shutdown(protocol: &dyn ContentProtocol, offer: &PeerOffer, bytes: &Bytes) {
    let target = identification(bytes);
    let (first, second) = future::join(protocol.shutdown(), protocol.shutdown()).await;
    assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
    let third = protocol.shutdown().await;
    assert!(third.is_ok(), "{third:?}");
    let source = protocol.connect(offer, &target).await;
    assert!(source.is_err(), "connected after the end");
    let request = SeedRequest::new(SeedContent::Bytes(bytes.clone()));
    assert!(
        protocol.start_seeding(request).await.is_err(),
        "seeded after the end"
    );
}

/// The full identification of these bytes.
pub fn identification(bytes: &[u8]) -> FileIdentification {
    let identity = ContentIdentity::of(bytes).expect("of a possible size");
    FileIdentification::Content {
        cid: identity.cid,
        root: Some(identity.root),
        size: Some(identity.size),
    }
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn is_empty(directory: &Path) {
    let left: Vec<_> = std::fs::read_dir(directory)
        .expect("the directory is there")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}
