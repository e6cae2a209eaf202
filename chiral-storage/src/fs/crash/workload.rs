//! A random sequence of calls, each noted in the model by its outcome.

use std::sync::Arc;

use chiral_core::chunk_store::{
    Destination, ImportMode, ImportRequest, ImportSource, PartialRequest,
};
use chiral_core::{ChunkClaim, ChunkStore, PartialFile, TransferId};

use super::model::{Model, Sample, Sum, samples, user_file};
use super::path;
use crate::fs::FsStore;
use crate::fs::vfs::sim::{Random, SimVfs};

const CALLS: u64 = 40;

pub(super) async fn run(store: &FsStore, random: &mut Random, model: &mut Model, disk: &SimVfs) {
    for _ in 0..CALLS {
        let index = random.below(samples().len() as u64) as usize;
        let sample = &samples()[index];
        match random.below(12) {
            0 | 1 => import(store, random, model, index).await,
            2 | 3 => pin(store, random, model, sample).await,
            4 => remove(store, model, sample).await,
            5 => discard(store, random, model, index).await,
            6 | 7 => complete(store, random, model, index).await,
            _ => download(store, random, model, index).await,
        }
        if disk.is_off() {
            return;
        }
    }
}

async fn import(store: &FsStore, random: &mut Random, model: &mut Model, index: usize) {
    let sample = &samples()[index];
    let cid = sample.header.cid;
    let source = match random.one_in(2) {
        true => ImportSource::Bytes(sample.bytes.clone()),
        false => ImportSource::Path(user_file(index)),
    };
    let mut request = ImportRequest::new(source);
    request.mode = if random.one_in(2) {
        ImportMode::Copy
    } else {
        ImportMode::InPlace
    };
    let with_sidecar = random.one_in(2);
    if with_sidecar {
        request.sidecars = vec![Arc::new(Sum)];
    }
    match store.import(request).await {
        Ok(info) => {
            assert_eq!(info.header.cid, cid);
            model.added(cid);
            if with_sidecar {
                model.sidecars.insert(cid);
            }
        }
        Err(_) if !model.objects.contains_key(&cid) => {
            model.presence_in_doubt.insert(cid);
        }
        Err(_) => {}
    }
}

async fn pin(store: &FsStore, random: &mut Random, model: &mut Model, sample: &Sample) {
    let cid = sample.header.cid;
    let name = ["a", "b"][random.below(2) as usize].to_owned();
    let key = (cid, name.clone());
    let take = random.one_in(2);
    let result = match take {
        true => store.unpin(cid, &name).await,
        false => store.pin(cid, &name).await,
    };
    let Some(pins) = model.objects.get_mut(&cid) else {
        if result.is_ok() {
            // It was in doubt, and is there after all. What it is pinned by is not known.
            model.presence_in_doubt.insert(cid);
            model.pins_in_doubt.insert(key);
        }
        return;
    };
    match result {
        Ok(left) => {
            let was = pins.contains(&name) || model.pins_in_doubt.contains(&key);
            match take {
                true => pins.remove(&name),
                false => pins.insert(name),
            };
            model.pins_in_doubt.remove(&key);
            if left == 0 && take && was {
                // If the pin itself was in doubt, so is whether the object went with it.
                let gone = store.object(cid).await;
                match gone {
                    Ok(None) => model.removed(cid),
                    Ok(Some(_)) => {}
                    Err(_) => {
                        model.presence_in_doubt.insert(cid);
                    }
                }
            }
        }
        Err(_) => {
            if take {
                model.presence_in_doubt.insert(cid);
            }
            model.pins_in_doubt.insert(key);
        }
    }
}

async fn remove(store: &FsStore, model: &mut Model, sample: &Sample) {
    let cid = sample.header.cid;
    match store.remove(cid).await {
        Ok(true) => model.removed(cid),
        Ok(false) => {}
        Err(_) => {
            model.presence_in_doubt.insert(cid);
        }
    }
}

fn transfer(index: usize, random: &mut Random) -> TransferId {
    let mut id = [index as u8; 16];
    id[1] = random.below(256) as u8;
    TransferId::from_bytes(id)
}

async fn download(store: &FsStore, random: &mut Random, model: &mut Model, index: usize) {
    let sample = &samples()[index];
    let request = PartialRequest::new(transfer(index, random), sample.target(), sample.header.size);
    let held = model
        .downloads
        .get(&index)
        .and_then(|download| download.handle.clone());
    let handle = match held.filter(|_| !random.one_in(4)) {
        Some(handle) => handle,
        None => match store.begin(request).await {
            Ok(handle) => handle,
            Err(_) => return,
        },
    };
    let download = model.downloads.entry(index).or_default();
    download.handle = Some(handle.clone());
    for _ in 0..random.below(6) {
        if change(&*handle, sample, random).await.is_err() {
            download.handle = None;
            return;
        }
    }
    let proven = handle.proven();
    if random.one_in(3) && handle.flush().await.is_ok() {
        download.flushed.extend(proven.ones());
    }
}

async fn change(
    handle: &dyn PartialFile,
    sample: &Sample,
    random: &mut Random,
) -> Result<(), chiral_core::StoreError> {
    if random.one_in(5) {
        handle.set_header(sample.header.clone()).await?;
    }
    if random.one_in(5)
        && let Some(page) = sample.page()
    {
        handle.store_page(&page).await?;
    }
    if sample.layout.count() == 0 {
        return Ok(());
    }
    let index = random.below(sample.layout.count().into()) as u32;
    match random.below(6) {
        0 => handle.write(sample.verified(index)).await,
        1 => {
            let right = sample.verified(index);
            let claim = |bytes| ChunkClaim {
                index,
                before: right.link().before(),
                after: right.link().after(),
                bytes,
                checked: None,
            };
            let claims = vec![claim(sample.wrong(index)), claim(right.bytes().clone())];
            let passed = handle.write_checked(claims).await?;
            assert_eq!(passed, [false, true]);
            Ok(())
        }
        2 => handle.write_unproven(index, sample.wrong(index)).await,
        3 => {
            handle.write_unproven(index, sample.chunk(index)).await?;
            handle.prove(vec![sample.link(index)]).await
        }
        4 => handle.write_unproven(index, sample.chunk(index)).await,
        _ => handle.forget(index).await,
    }
}

async fn complete(store: &FsStore, random: &mut Random, model: &mut Model, index: usize) {
    let sample = &samples()[index];
    let cid = sample.header.cid;
    let request = PartialRequest::new(transfer(index, random), sample.target(), sample.header.size);
    let Ok(handle) = store.begin(request).await else {
        return;
    };
    model.downloads.entry(index).or_default().handle = Some(handle.clone());
    for chunk in 0..sample.layout.count() {
        if handle.write(sample.verified(chunk)).await.is_err() {
            return;
        }
    }
    let number = random.below(1000);
    let destination = match random.below(3) {
        0 => Destination::Store,
        1 => Destination::File(path(&format!("/user/out-{index}-{number}"))),
        _ => Destination::File(path(&format!("/other/out-{index}-{number}"))),
    };
    match handle.complete(destination, sample.header.clone()).await {
        Ok(info) => {
            assert_eq!(info.header.cid, cid);
            model.added(cid);
            model.downloads.remove(&index);
            model.downloads_in_doubt.remove(&index);
        }
        Err(_) => {
            if !model.objects.contains_key(&cid) {
                model.presence_in_doubt.insert(cid);
            }
            model.downloads_in_doubt.insert(index);
            if let Some(download) = model.downloads.get_mut(&index) {
                download.handle = None;
            }
        }
    }
}

async fn discard(store: &FsStore, random: &mut Random, model: &mut Model, index: usize) {
    let Some(download) = model.downloads.get(&index) else {
        return;
    };
    let Some(handle) = download.handle.clone().filter(|_| random.one_in(2)) else {
        return;
    };
    match store.discard(handle.transfer()).await {
        Ok(_) => {
            model.downloads.remove(&index);
            model.downloads_in_doubt.remove(&index);
        }
        Err(_) => {
            model.downloads_in_doubt.insert(index);
        }
    }
}
