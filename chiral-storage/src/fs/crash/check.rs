//! What must hold of whatever the disk holds after a crash.

use std::collections::BTreeSet;
use std::path::Path;

use chiral_core::chunk_store::{Destination, PartialRequest};
use chiral_core::{ByteRange, ChunkStore, PartialFile, StoredContent, TransferId};

use super::model::{Model, Sample, Sum, sample_of, samples};
use super::{DIR, open};
use crate::fs::FsStore;
use crate::fs::meta::record::{ObjectState, Place};
use crate::fs::vfs::sim::{Random, SimVfs};

const SECTOR: usize = 512;

pub(super) async fn all(disk: &SimVfs, model: &Model, random: &mut Random) {
    let store = open(disk).expect("a store opens after any crash");
    consistency(&store, disk);
    objects(&store, model).await;
    destinations(disk);
    downloads(&store, model).await;
    consistency(&store, disk);
    store.shutdown().await.expect("shutdown");
    drop(store);
    // What is there now survives anything.
    let disk = disk.reboot(random);
    let store = open(&disk).expect("a store opens after a shutdown");
    consistency(&store, &disk);
    for sample in samples() {
        let content = store
            .open(sample.header.cid)
            .await
            .expect("open")
            .expect("completed");
        content_is_right(&*content, sample).await;
    }
    store.shutdown().await.expect("shutdown");
}

/// Tables agree with each other and with the files, and nothing is left half done.
fn consistency(store: &FsStore, disk: &SimVfs) {
    let meta = &store.shared.meta;
    assert!(
        meta.intents().unwrap().is_empty(),
        "everything begun is finished or undone"
    );
    let counted = meta.recount().unwrap();
    let records = meta.objects().unwrap();
    let mut expected = BTreeSet::new();
    let mut external = 0;
    for (record, _) in &records {
        let cid = record.header.cid;
        assert_eq!(record.state, ObjectState::Live, "{cid}");
        let pins = counted.pins.get(&cid).copied().unwrap_or(0);
        assert_eq!(record.pins, pins, "reference count of {cid}");
        match &record.place {
            Place::Owned => {
                expected.insert(store.shared.places.object_data(cid));
            }
            Place::External { path, .. } => {
                external += 1;
                let row = (path.as_os_str().as_encoded_bytes().to_vec(), cid);
                assert!(counted.paths.contains(&row), "path of {cid}");
            }
        }
        if record.header.size > chiral_core::CHUNK_SIZE {
            expected.insert(store.shared.places.object_hashes(cid));
        }
    }
    assert_eq!(
        counted.paths.len(),
        external,
        "paths of objects, and no others"
    );
    let pinned = counted
        .pins
        .keys()
        .all(|cid| records.iter().any(|(r, _)| r.header.cid == *cid));
    assert!(pinned, "pins of objects, and no others");
    for cid in &counted.sidecars {
        let right = records.iter().any(|(r, _)| r.header.cid == *cid);
        assert!(right, "sidecars of objects, and no others");
    }
    let below = |dir: &str| -> BTreeSet<_> {
        let dir = Path::new(DIR).join(dir);
        disk.files()
            .into_iter()
            .map(|(path, _)| path)
            .filter(|path| path.starts_with(&dir))
            .collect()
    };
    assert_eq!(
        below("objects"),
        expected,
        "files of objects, and no others"
    );
    assert!(below("tmp").is_empty(), "no temporary files");
    let partials = meta.partials().unwrap();
    for path in below("partial") {
        let transfer: TransferId = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        assert!(
            partials.iter().any(|(known, _)| *known == transfer),
            "{path:?} has a record"
        );
    }
}

async fn objects(store: &FsStore, model: &Model) {
    let found = store.objects().await.expect("list");
    for info in &found {
        let cid = info.header.cid;
        let sample = sample_of(cid).expect("an object that somebody made");
        assert_eq!(info.header.root, sample.header.root);
        let allowed = model.objects.contains_key(&cid) || model.presence_in_doubt.contains(&cid);
        assert!(
            allowed,
            "object {cid} ({} bytes) came back",
            info.header.size
        );
        let content = store.open(cid).await.expect("open").expect("listed");
        content_is_right(&*content, sample).await;
    }
    for info in &found {
        let cid = info.header.cid;
        let sidecar = store.sidecar(cid, "sum").await.expect("sidecar");
        let must = model.sidecars.contains(&cid) && !model.presence_in_doubt.contains(&cid);
        assert!(sidecar.is_some() || !must, "sidecar of {cid} is lost");
        let sample = sample_of(cid).expect("an object that somebody made");
        let right = sidecar.is_none_or(|sidecar| sidecar == Sum::of(&sample.bytes));
        assert!(right, "sidecar of {cid}");
    }
    for (cid, pins) in &model.objects {
        let Some(info) = found.iter().find(|info| info.header.cid == *cid) else {
            assert!(
                model.presence_in_doubt.contains(cid),
                "object {cid} is lost"
            );
            continue;
        };
        let now: BTreeSet<_> = info.pins.iter().cloned().collect();
        for pin in now.symmetric_difference(pins) {
            let doubt = model.pins_in_doubt.contains(&(*cid, pin.clone()));
            // An object that went and was imported again has no pins.
            let anew = model.presence_in_doubt.contains(cid);
            assert!(
                doubt || anew,
                "pin {pin} of {cid}: is {now:?}, was {pins:?}"
            );
        }
    }
}

async fn content_is_right(content: &dyn StoredContent, sample: &Sample) {
    let size = sample.header.size;
    let read = content.read(ByteRange::new(0, size)).await.expect("read");
    assert!(read == sample.bytes, "bytes of {size}");
    if let Some(page) = sample.page() {
        assert_eq!(
            content.page(0).await.expect("page").as_ref(),
            Some(page.page())
        );
    }
}

/// A file of the user's has all its bytes from the moment that it has its name.
fn destinations(disk: &SimVfs) {
    for (path, bytes) in disk.files() {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(!name.ends_with(".chiral"), "{path:?} was left behind");
        if let Some(rest) = name.strip_prefix("out-") {
            let index: usize = rest.split('-').next().unwrap().parse().unwrap();
            assert!(bytes == samples()[index].bytes, "{path:?} is not whole");
        }
    }
}

/// Every download goes on, and none claims what it has not.
async fn downloads(store: &FsStore, model: &Model) {
    for (index, sample) in samples().iter().enumerate() {
        let cid = sample.header.cid;
        if store.object(cid).await.expect("look up").is_none()
            && let Some(content) = store.open(cid).await.expect("open")
        {
            for run in content.coverage().runs(sample.layout).iter() {
                let range = sample.layout.span(run.start, run.end);
                let read = content.read(range).await.expect("read what is covered");
                let bytes = &sample.bytes[range.start as usize..range.end as usize];
                assert!(read == bytes, "unverified bytes served");
            }
        }
        let known = store.partials().await.expect("list");
        let listed = known.iter().any(|info| info.target.cid() == Some(cid));
        let transfer = TransferId::from_bytes([0x77 + index as u8; 16]);
        let request = PartialRequest::new(transfer, sample.target(), sample.header.size);
        let partial = store.begin(request).await.expect("begin");
        if let Some(download) = model.downloads.get(&index)
            && !model.downloads_in_doubt.contains(&index)
        {
            let proven = partial.proven();
            let kept = download.flushed.iter().all(|chunk| proven.get(*chunk));
            assert!(
                kept,
                "flushed {:?}, kept {:?}",
                download.flushed,
                proven.to_runs()
            );
            assert!(listed || download.flushed.is_empty());
        }
        chunks_are_there(&*partial, sample).await;
        for chunk in 0..sample.layout.count() {
            partial.write(sample.verified(chunk)).await.expect("write");
        }
        let info = partial
            .complete(Destination::Store, sample.header.clone())
            .await;
        assert_eq!(info.expect("complete").header.cid, cid);
    }
}

async fn chunks_are_there(partial: &dyn PartialFile, sample: &Sample) {
    for index in partial.present().ones() {
        let right = sample.chunk(index);
        let read = partial.read(index).await.expect("read");
        if partial.proven().get(index) {
            assert!(read == right, "proven chunk {index} is not on disk");
            let hash = partial.proven_hash(index).await.expect("hash");
            assert_eq!(hash, Some(sample.hashes[index as usize]));
            if let Some(before) = index.checked_sub(1) {
                let hash = partial.proven_hash(before).await.expect("hash");
                assert_eq!(hash, Some(sample.hashes[before as usize]));
            }
            continue;
        }
        // Not proven: what was written last, or pieces of what was written before.
        let wrong = sample.wrong(index);
        let sectors = read
            .chunks(SECTOR)
            .zip(right.chunks(SECTOR))
            .zip(wrong.chunks(SECTOR));
        for ((read, right), wrong) in sectors {
            assert!(
                read == right || read == wrong,
                "present chunk {index} is not on disk"
            );
        }
    }
    assert_eq!(
        partial
            .proven()
            .ones()
            .filter(|one| !partial.present().get(*one))
            .count(),
        0
    );
    if let Some(page) = partial.page(0).await.expect("page") {
        assert_eq!(Some(&page), sample.page().as_ref().map(|page| page.page()));
    }
}
