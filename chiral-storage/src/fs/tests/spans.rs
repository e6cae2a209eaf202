//! Downloads that lie in several files: what the disk holds of them, and after a crash.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use chiral_core::chunk_store::PartialRequest;
use chiral_core::{ChunkLayout, FileSpan, FileSpans, ManifestHeader, RangeSet, TransferId};

use super::*;
use crate::fs::vfs::sim::{Random, SimVfs};

/// Bytes, and how they lie in files of a directory: with padding, and with bytes in neither.
struct Album {
    bytes: Vec<u8>,
    layout: ChunkLayout,
    header: ManifestHeader,
    spans: Arc<FileSpans>,
}

impl Album {
    fn new(directory: &Path, files: &[u64], padding: u64) -> Self {
        let (mut bytes, mut spans, mut gaps) = (generated(11), Vec::new(), RangeSet::new());
        for (number, len) in files.iter().enumerate() {
            let start = bytes.len() as u64;
            let salted = generated(*len).into_iter().map(|byte| byte ^ number as u8);
            bytes.extend(salted);
            let path = directory.join(format!("file {number}"));
            let range = ByteRange::new(start, start + len);
            spans.push(FileSpan { range, path });
            bytes.resize(bytes.len() + padding as usize, 0);
            gaps.insert(ByteRange::new(start + len, start + len + padding));
        }
        let size = bytes.len() as u64;
        let identity = chiral_core::ContentIdentity::of(&bytes).unwrap();
        let header = ManifestHeader {
            size,
            cid: identity.cid,
            root: identity.root,
            name: None,
            mime: None,
            created_at: 0,
            aliases: Vec::new(),
        };
        Self {
            layout: ChunkLayout::new(size).unwrap(),
            header,
            spans: Arc::new(FileSpans::new(size, spans, gaps).unwrap()),
            bytes,
        }
    }

    fn request(&self, number: u8) -> PartialRequest {
        let (cid, size) = (self.header.cid, self.header.size);
        let target = FileIdentification::Content {
            cid,
            root: None,
            size: Some(size),
        };
        let transfer = TransferId::from_bytes([number; 16]);
        PartialRequest::new(transfer, target, size).with_spans(self.spans.clone())
    }

    fn chunks(&self) -> Vec<VerifiedChunk> {
        let mut hasher = ChunkHasher::new();
        hasher.update(&self.bytes);
        let (hashes, _) = hasher.finish().unwrap();
        let mut before = chain::INITIAL;
        (0..self.layout.count())
            .map(|index| {
                let range = self.layout.range(index);
                let bytes = &self.bytes[range.start as usize..range.end as usize];
                let after = hashes[index as usize];
                let bytes = Bytes::copy_from_slice(bytes);
                let chunk = VerifiedChunk::check(self.layout, index, before, after, bytes);
                before = after;
                chunk.unwrap()
            })
            .collect()
    }

    fn destination(&self) -> Destination {
        Destination::Files(self.spans.clone())
    }

    /// The bytes of a file.
    fn file(&self, span: &FileSpan) -> &[u8] {
        &self.bytes[span.range.start as usize..span.range.end as usize]
    }
}

/// Bytes of the disk that the files below a directory take.
fn used(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).unwrap();
    let used = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => used(&path),
            false => path.metadata().unwrap().blocks() * 512,
        }
    };
    entries.map(used).sum()
}

#[tokio::test]
async fn what_lies_in_files_takes_the_disk_once_and_padding_takes_none() {
    let dir = tempfile::tempdir().unwrap();
    let (state, out) = (dir.path().join("store"), dir.path().join("out"));
    std::fs::create_dir(&out).unwrap();
    let album = Album::new(&out, &[3_000_000, 5, 2_000_000], 6 * CHUNK_SIZE);
    let store = open(&state).await;
    let before = used(dir.path());
    let partial = store.begin(album.request(1)).await.unwrap();
    let payload = 5_000_005;
    // The hashes of chunks, and blocks that are not full.
    let small = 96 << 10;
    for chunk in album.chunks() {
        partial.write(chunk).await.unwrap();
    }
    partial.flush().await.unwrap();
    let taken = used(dir.path()) - before;
    assert!(taken >= payload && taken < payload + small, "{taken}");
    partial
        .complete(album.destination(), album.header.clone())
        .await
        .unwrap();
    let taken = used(dir.path()) - before;
    assert!(taken < payload + small, "{taken}");
    for span in album.spans.spans() {
        assert!(std::fs::read(&span.path).unwrap() == album.file(span));
    }
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn more_files_than_are_open_at_once_are_written_and_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let (state, out) = (dir.path().join("store"), dir.path().join("out"));
    std::fs::create_dir(&out).unwrap();
    let files: Vec<u64> = (0..300).map(|number| number * 13 % 4001).collect();
    let album = Album::new(&out, &files, 700);
    let store = open(&state).await;
    let partial = store.begin(album.request(1)).await.unwrap();
    let chunks = album.chunks();
    let (now, later) = chunks.split_at(chunks.len() / 2);
    for chunk in now {
        partial.write(chunk.clone()).await.unwrap();
    }
    store.shutdown().await.unwrap();
    drop(partial);
    let store = open(&state).await;
    let partial = store.begin(album.request(2)).await.unwrap();
    assert_eq!(partial.proven().count_ones(), now.len() as u32);
    for chunk in later {
        partial.write(chunk.clone()).await.unwrap();
    }
    partial
        .complete(album.destination(), album.header.clone())
        .await
        .unwrap();
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), files.len());
    for span in album.spans.spans() {
        assert!(std::fs::read(&span.path).unwrap() == album.file(span));
    }
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_file_that_was_replaced_is_not_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let (state, out) = (dir.path().join("store"), dir.path().join("out"));
    std::fs::create_dir(&out).unwrap();
    let elsewhere = dir.path().join("elsewhere");
    let album = Album::new(&out, &[CHUNK_SIZE, CHUNK_SIZE], 0);
    std::fs::write(&elsewhere, vec![7; CHUNK_SIZE as usize]).unwrap();
    let store = open(&state).await;
    let partial = store.begin(album.request(1)).await.unwrap();
    partial.write(album.chunks().remove(0)).await.unwrap();
    store.shutdown().await.unwrap();
    drop(partial);
    let unfinished = std::fs::read_dir(&out)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    std::fs::remove_file(&unfinished).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &unfinished).unwrap();
    let store = open(&state).await;
    let partial = store.begin(album.request(2)).await.unwrap();
    assert_eq!(partial.transfer(), TransferId::from_bytes([2; 16]));
    assert_eq!(partial.present().count_ones(), 0, "it begins again");
    for chunk in album.chunks() {
        partial.write(chunk).await.unwrap();
    }
    partial
        .complete(album.destination(), album.header.clone())
        .await
        .unwrap();
    let kept = std::fs::read(&elsewhere).unwrap();
    assert!(
        kept == vec![7; CHUNK_SIZE as usize],
        "the link was not followed"
    );
    store.shutdown().await.unwrap();
}

/// Checked before it is written, or written and proven later, into one file or into several: every
/// byte goes to the disk once, to where it stays.
#[tokio::test]
async fn every_byte_is_written_once() {
    for (several, checked) in [(true, true), (true, false), (false, true), (false, false)] {
        let disk = SimVfs::new(&[("/user/other".into(), b"mine".to_vec())]);
        let album = Album::new(Path::new("/user"), &[700_000, 0, 5, 400_000], 300);
        let store = open_on(&disk).unwrap();
        let mut request = album.request(1);
        let whole = Path::new("/user/whole");
        let mut destination = Destination::File(whole.into());
        match several {
            true => destination = album.destination(),
            false => request.spans = None,
        }
        let partial = store.begin(request).await.unwrap();
        for chunk in album.chunks() {
            if checked {
                partial.write(chunk).await.unwrap();
            } else {
                let (index, link) = (chunk.index(), chunk.link());
                let bytes = chunk.bytes().clone();
                partial.write_unproven(index, bytes).await.unwrap();
                partial.prove(vec![link]).await.unwrap();
            }
        }
        let done = partial.complete(destination, album.header.clone()).await;
        done.unwrap();
        let files = match several {
            true => album.spans.spans().to_vec(),
            false => vec![FileSpan {
                range: ByteRange::new(0, album.header.size),
                path: whole.into(),
            }],
        };
        for span in files {
            let (found, whose) = (disk.written(&span.path), span.path.display());
            assert_eq!(found, span.range.len(), "{whose} {several} {checked}");
        }
        store.shutdown().await.unwrap();
    }
}

fn config() -> FsStoreConfig {
    FsStoreConfig {
        commit_chunks: 2,
        commit_delay: Duration::from_secs(3600),
        max_undurable_delay: Duration::from_secs(3600),
        background: false,
        ..FsStoreConfig::default()
    }
}

fn open_on(disk: &SimVfs) -> Result<FsStore, StoreError> {
    FsStore::open_on(Arc::new(disk.clone()), "/store".into(), config())
}

/// Whether the download was acknowledged as complete.
async fn download(disk: &SimVfs, album: &Album, flushed: &mut u32) -> Result<(), StoreError> {
    let store = open_on(disk)?;
    let result = async {
        let partial = store.begin(album.request(1)).await?;
        for (index, chunk) in album.chunks().into_iter().enumerate() {
            partial.write(chunk).await?;
            if index == 2 {
                partial.flush().await?;
                *flushed = partial.proven().count_ones();
            }
        }
        let done = partial.complete(album.destination(), album.header.clone());
        done.await.map(drop)
    };
    let result = result.await;
    store
        .shared
        .closed
        .store(true, std::sync::atomic::Ordering::Release);
    result
}

/// The power is cut at every operation in turn.
#[tokio::test]
async fn a_download_in_several_files_survives_a_crash_at_any_moment() {
    let album = Album::new(Path::new("/user"), &[700_000, 0, 5, 400_000], 300);
    let mut step = 0;
    loop {
        step += 1;
        let mut random = Random(step);
        let disk = SimVfs::new(&[("/user/other".into(), b"mine".to_vec())]);
        disk.crash_at(step);
        let mut flushed = 0;
        let done = download(&disk, &album, &mut flushed).await.is_ok();
        let over = !disk.is_off();
        let disk = disk.reboot(&mut random);
        let store = open_on(&disk).unwrap();
        let left = store.partials().await.unwrap();
        if let Some(left) = left.first() {
            assert!(!done, "{step}");
            assert!(left.proven >= flushed, "{step}: {left:?} {flushed}");
        }
        let whole = |disk: &SimVfs| {
            let files = disk.files();
            album.spans.spans().iter().all(|span| {
                let found = files.iter().find(|(path, _)| *path == span.path);
                found.is_some_and(|(_, bytes)| bytes == album.file(span))
            })
        };
        if left.is_empty() && flushed > 0 {
            assert!(whole(&disk), "{step}: it is neither there nor gone on with");
        }
        let partial = store.begin(album.request(2)).await.unwrap();
        for chunk in album.chunks() {
            partial.write(chunk).await.unwrap();
        }
        let again = partial
            .complete(album.destination(), album.header.clone())
            .await;
        again.unwrap();
        assert!(whole(&disk), "{step}");
        let names = disk.files().into_iter().map(|(path, _)| path);
        let user = names.filter(|path| path.starts_with("/user")).count();
        assert_eq!(
            user,
            album.spans.spans().len() + 1,
            "{step}: nothing is left behind"
        );
        store.shutdown().await.unwrap();
        if over {
            break;
        }
    }
    assert!(step > 60, "{step}");
}
