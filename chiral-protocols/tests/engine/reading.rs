//! Reading a file while it is downloaded.

use std::io::{ErrorKind, SeekFrom};
use std::time::Duration;

use chiral_protocols::{ReadError, Reader};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::time::timeout;

use super::bench::Bench;
use super::fake::{File, Manners, chunks};

const PATIENCE: Duration = Duration::from_secs(30);

/// A source of about 8 MiB a second.
fn slow() -> Manners {
    Manners {
        slow: Some(Duration::from_millis(8)),
        ..Manners::default()
    }
}

async fn read_all(reader: &mut Reader) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = reader.read_to_end(&mut bytes);
    timeout(PATIENCE, read).await.unwrap().unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_follows_the_download_in_order() {
    let file = File::new(chunks(80) + 17);
    let bench = Bench::new();
    let offers = vec![
        bench.network.seeder("a", &file, slow()),
        bench.network.seeder("b", &file, slow()),
    ];
    let download = bench.start(file.link(), offers);
    let mut reader = download.readable().reader().unwrap();
    let mut first = vec![0; 1000];
    let reading = timeout(PATIENCE, reader.read_exact(&mut first)).await;
    reading.unwrap().unwrap();
    assert_eq!(first, file.data[..1000]);
    let proven = download.transfer().progress().proven;
    assert!(proven < chunks(20) as u64, "{proven} proven before");
    assert_eq!(reader.size().await.unwrap(), file.layout.size());
    let rest = read_all(&mut reader).await;
    assert!(rest == file.data[1000..]);
    assert_eq!(reader.position(), file.layout.size());
    bench
        .assert_complete(&file, download.finished().await)
        .await;
    // It can be read again, though the download is over.
    reader.seek(SeekFrom::Start(5)).await.unwrap();
    assert!(read_all(&mut reader).await == file.data[5..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seek_takes_the_download_elsewhere() {
    let file = File::new(chunks(300) + 5);
    let bench = Bench::new();
    let offers = vec![bench.network.seeder("a", &file, slow())];
    let download = bench.start(file.link(), offers);
    let readable = download.readable().clone();
    let mut reader = readable.reader().unwrap().with_read_ahead(1 << 20);
    reader.read_u8().await.unwrap();
    for (from, at) in [
        (SeekFrom::Start(chunks(200) as u64 + 3), chunks(200) + 3),
        (SeekFrom::End(-1000), file.data.len() - 1000),
        (SeekFrom::Current(-(chunks(150) as i64)), 0),
    ] {
        let before = reader.position();
        let position = timeout(PATIENCE, reader.seek(from)).await.unwrap().unwrap();
        let at = match from {
            SeekFrom::Current(by) => (before as i64 + by) as usize,
            _ => at,
        };
        assert_eq!(position, at as u64);
        let mut bytes = vec![0; 500];
        let reading = timeout(PATIENCE, reader.read_exact(&mut bytes)).await;
        reading.unwrap().unwrap();
        assert_eq!(bytes, file.data[at..at + 500]);
    }
    // One source in order would have come by 300 chunks to get to the last of these.
    let proven = download.transfer().progress().proven;
    assert!(proven < chunks(100) as u64, "{proven} proven");
    // Nothing behind the end, and nothing before the beginning.
    reader.seek(SeekFrom::End(10)).await.unwrap();
    assert!(read_all(&mut reader).await.is_empty());
    let error = reader.seek(SeekFrom::End(-(1 << 40))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let error = reader.seek(SeekFrom::Current(i64::MIN)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    // Who is not reading any more holds nothing up.
    drop(reader);
    bench
        .assert_complete(&file, download.finished().await)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_at_several_places_are_served_together() {
    let file = File::new(chunks(120));
    let bench = Bench::new();
    let offers = vec![
        bench.network.seeder("a", &file, slow()),
        bench.network.seeder("b", &file, Manners::default()),
    ];
    let download = bench.start(file.link(), offers);
    let mut reading = Vec::new();
    for n in 0..12 {
        let mut reader = download.readable().reader().unwrap();
        let (from, data) = (chunks(n * 10) + 7, file.data.clone());
        reading.push(tokio::spawn(async move {
            reader.seek(SeekFrom::Start(from as u64)).await.unwrap();
            assert!(read_all(&mut reader).await == data[from..]);
        }));
    }
    for reading in reading {
        reading.await.unwrap();
    }
    let result = download.finished().await;
    bench.assert_complete(&file, result).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_root_a_reader_waits_for_what_is_proven() {
    let file = File::new(chunks(150) + 1);
    for mirrors in [false, true] {
        let bench = Bench::new();
        let manners = |corrupt: bool| Manners {
            mirror: mirrors,
            corrupt: (0..151).filter(|_| corrupt).collect(),
            ..slow()
        };
        let offers = vec![
            bench.network.seeder("a", &file, manners(true)),
            bench.network.seeder("b", &file, manners(false)),
        ];
        let download = bench.start(file.cid(), offers);
        let mut reader = download.readable().reader().unwrap();
        assert!(read_all(&mut reader).await == file.data, "{mirrors}");
        let result = download.finished().await;
        let report = bench.assert_complete(&file, result).await;
        let banned: Vec<_> = report
            .sources
            .iter()
            .filter(|s| s.banned.is_some())
            .collect();
        assert_eq!(banned.len(), 1, "{:?}", report.sources);
        assert_eq!(banned[0].source, "a");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_it_waits_and_cancelled_it_fails() {
    let file = File::new(chunks(100));
    let bench = Bench::new();
    let offers = vec![bench.network.seeder("a", &file, slow())];
    let download = bench.start(file.link(), offers.clone());
    let transfer = download.transfer().clone();
    let mut reader = download.readable().reader().unwrap();
    reader.read_u8().await.unwrap();
    assert!(transfer.pause());
    reader
        .seek(SeekFrom::Start(chunks(90) as u64))
        .await
        .unwrap();
    let mut byte = [0];
    let waited = timeout(Duration::from_millis(500), reader.read_exact(&mut byte)).await;
    assert!(waited.is_err(), "read while paused");
    assert!(transfer.resume());
    let reading = timeout(PATIENCE, reader.read_exact(&mut byte)).await;
    reading.unwrap().unwrap();
    assert_eq!(byte[0], file.data[chunks(90)]);

    reader
        .seek(SeekFrom::Start(chunks(50) as u64))
        .await
        .unwrap();
    assert!(transfer.pause() && transfer.cancel());
    let reading = timeout(PATIENCE, reader.read_exact(&mut byte)).await;
    let error = reading.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    let inner = error.get_ref().unwrap().downcast_ref::<ReadError>();
    assert_eq!(inner, Some(&ReadError::Cancelled));
    // What was proven stays readable.
    reader.rewind().await.unwrap();
    assert_eq!(reader.read_u8().await.unwrap(), file.data[0]);
    assert!(download.finished().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_hears_why_a_download_failed() {
    let file = File::new(chunks(20));
    for (target, offers) in [(file.link(), false), (file.cid().into(), true)] {
        let bench = Bench::new();
        let liar = Manners {
            corrupt: (0..20).collect(),
            ..Manners::default()
        };
        let offers = match offers {
            true => vec![bench.network.seeder("liar", &file, liar)],
            false => Vec::new(),
        };
        let download = bench.start(target, offers);
        let mut reader = download.readable().reader().unwrap();
        let reading = timeout(PATIENCE, reader.read_u8()).await;
        let error = reading.unwrap().unwrap_err();
        let inner = error.get_ref().unwrap().downcast_ref::<ReadError>();
        assert!(matches!(inner, Some(ReadError::Failed { .. })), "{error}");
        assert!(download.finished().await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_part_the_part_can_be_read() {
    let file = File::new(chunks(40));
    let bench = Bench::new();
    let offers = vec![bench.network.seeder("a", &file, slow())];
    let part = chiral_core::ByteRange::new(chunks(10) as u64, chunks(20) as u64);
    let download = bench.start_request(file.link(), offers, |r| r.only = Some(part));
    let mut reader = download.readable().reader().unwrap();
    reader.seek(SeekFrom::Start(part.start)).await.unwrap();
    let mut bytes = vec![0; part.len() as usize];
    let reading = timeout(PATIENCE, reader.read_exact(&mut bytes)).await;
    reading.unwrap().unwrap();
    assert!(bytes == file.data[chunks(10)..chunks(20)]);
    let error = timeout(PATIENCE, reader.read_u8())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    download.finished().await.unwrap();
}
