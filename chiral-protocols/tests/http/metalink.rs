//! Metalinks and web seeds: other programs find everything from one address.

use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chiral_core::{
    Cid, ContentProtocol, Coverage, Endpoint, FileIdentification, PeerOffer, Price, Protocol,
};
use chiral_protocols::http::{AddressPolicy, HttpProtocol, OtherSeeders};

use crate::support::{RawAnswer, ask, content, loopback, path_of, raw, seeder_with, soon};

#[derive(Debug)]
struct Fixed(Vec<PeerOffer>);

#[async_trait]
impl OtherSeeders for Fixed {
    async fn offers(&self, _: Cid) -> Vec<PeerOffer> {
        self.0.clone()
    }
}

fn offer(endpoint: &str) -> PeerOffer {
    PeerOffer::new(Protocol::Http, Endpoint::new(endpoint).unwrap())
}

async fn seeder(bytes: &Bytes, name: &str) -> (HttpProtocol, FileIdentification) {
    let (node, _, target) = seeder_with(loopback(), bytes, Some(name)).await;
    (node, target)
}

#[tokio::test]
async fn a_metalink_names_this_server_and_others_that_are_free() {
    let bytes = content(300_000);
    let (node, target) = seeder(&bytes, "a <b> & 'c'.txt").await;
    let cid = target.cid().unwrap();
    let mut paid = offer("http://paid.example/");
    paid.price = Price::from_wei_per_mib(chiral_core::U256::from(1));
    let layout = chiral_core::ChunkLayout::new(bytes.len() as u64).unwrap();
    let mut partial = offer("http://partial.example/");
    let runs = chiral_core::ChunkRuns::new(vec![(0, 1)], layout).unwrap();
    partial.coverage = Some(Coverage::Partial(runs));
    let others = Fixed(vec![
        offer("http://other.example:8480/"),
        paid,
        partial,
        offer("http://other.example:8480"),
        offer("http://x/"),
        offer("https://mirror.example/f?a=1&b=2").as_mirror(),
    ]);
    let node = node.with_other_seeders(Arc::new(others));
    let address = node.local_addr().unwrap();
    let path = format!("/file/{cid}.meta4");
    let answer = ask(address, "GET", &path, "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("content-type"),
        Some("application/metalink4+xml")
    );
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    let expected = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <metalink xmlns=\"urn:ietf:params:xml:ns:metalink\">\n\
         \x20 <generator>chiral/{}</generator>\n\
         \x20 <file name=\"a _b_ _ &#39;c&#39;.txt\">\n\
         \x20   <size>300000</size>\n\
         \x20   <hash type=\"sha-256\">{cid}</hash>\n\
         \x20   <url priority=\"1\">http://x/file/{cid}</url>\n\
         \x20   <url priority=\"2\">http://other.example:8480/file/{cid}</url>\n\
         \x20   <url priority=\"3\">https://mirror.example/f?a=1&amp;b=2</url>\n\
         \x20 </file>\n\
         </metalink>\n",
        env!("CARGO_PKG_VERSION"),
    );
    assert_eq!(String::from_utf8(answer.body).unwrap(), expected);
    let head = ask(address, "HEAD", &path, "").await;
    assert_eq!(
        head.header("content-length"),
        Some(&*expected.len().to_string())
    );
    // The file says where it is.
    let file = ask(address, "HEAD", &path_of(&target), "").await;
    let link = format!("<{path}>; rel=\"describedby\"; type=\"application/metalink4+xml\"");
    assert_eq!(file.header("link"), Some(&*link));
    let absent = format!("/file/{}.meta4", "a".repeat(64));
    assert_eq!(ask(address, "GET", &absent, "").await.status, 404);
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn strangers_addresses_are_told_as_far_as_the_policy_goes() {
    let bytes = content(10);
    let config = loopback().with_announced(AddressPolicy::GlobalOnly);
    let (node, _, target) = seeder_with(config, &bytes, None).await;
    let others = Fixed(vec![
        offer("http://127.0.0.1:1/"),
        offer("http://192.168.0.1/"),
        offer("http://seed.example/"),
    ]);
    let node = node.with_other_seeders(Arc::new(others));
    let path = format!("{}.meta4", path_of(&target));
    let answer = ask(node.local_addr().unwrap(), "GET", &path, "").await;
    let text = String::from_utf8(answer.body).unwrap();
    assert!(text.contains("seed.example"), "{text}");
    assert!(
        !text.contains("127.0.0.1") && !text.contains("192.168"),
        "{text}"
    );
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_hostile_host_stays_out_of_the_document() {
    let bytes = content(10);
    let (node, target) = seeder(&bytes, "a").await;
    let address = node.local_addr().unwrap();
    let path = format!("{}.meta4", path_of(&target));
    for host in ["a\"><url>", "user@x", "a b", "x/..", "", "x?y", "x'"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = raw(address, request.as_bytes()).await;
        let answer = RawAnswer::parse(&answer);
        assert_eq!(answer.status, 400, "{host}");
    }
    let request = format!("GET {path} HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close\r\n\r\n");
    let answer = RawAnswer::parse(&raw(address, request.as_bytes()).await);
    let text = String::from_utf8(answer.body).unwrap();
    assert!(text.contains("http://[::1]:80/file/"), "{text}");
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_file_is_found_by_its_name_too() {
    let bytes = content(1000);
    let (node, target) = seeder(&bytes, "ä b.txt").await;
    let (address, path) = (node.local_addr().unwrap(), path_of(&target));
    let named = format!("{path}/%C3%A4%20b.txt");
    let answer = ask(address, "GET", &named, "Range: bytes=10-19\r\n").await;
    assert_eq!((answer.status, &answer.body[..]), (206, &bytes[10..20]));
    for (other, next) in [
        ("x.txt", format!("next: it is at {path}\n")),
        ("chunk", format!("next: the file itself is at {path}\n")),
    ] {
        let answer = ask(address, "GET", &format!("{path}/{other}"), "").await;
        let text = String::from_utf8(answer.body).unwrap();
        assert_eq!(answer.status, 404);
        assert!(text.ends_with(&next), "{text}");
    }
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn refusals_say_what_to_do_next() {
    let bytes = content(1000);
    let (node, target) = seeder(&bytes, "a").await;
    let (address, path) = (node.local_addr().unwrap(), path_of(&target));
    let cid = target.cid().unwrap().to_string();
    let absent = "0".repeat(64);
    for (path, headers, status, next) in [
        ("/x".to_owned(), "", 404, "files are at /file/"),
        ("/".to_owned(), "", 404, "files are at /file/"),
        (
            format!("/file/{absent}"),
            "",
            404,
            &*format!("chiral get {absent}"),
        ),
        (
            format!("/file/{}", cid.to_uppercase()),
            "",
            404,
            &*format!("/file/{cid}"),
        ),
        (format!("/file/0x{cid}"), "", 404, &*format!("/file/{cid}")),
        (format!("{path}/chunk/9"), "", 404, "its chunks are 0 to 0"),
        (path.clone(), "Range: bytes=1000-\r\n", 416, "bytes=0-999"),
        (path.clone(), "If-Match: \"x\"\r\n", 412, "without If-Match"),
    ] {
        let answer = ask(address, "GET", &path, headers).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(
            answer.header("content-type"),
            Some("text/plain; charset=utf-8")
        );
        let text = String::from_utf8(answer.body).unwrap();
        let (_, advice) = text.split_once("\nnext: ").unwrap();
        assert!(advice.contains(next), "{path}: {text}");
    }
    node.shutdown().await.unwrap();
}

/// Without `aria2c` this fails; it is not skipped.
#[tokio::test(flavor = "multi_thread")]
async fn aria2_downloads_by_the_metalink_alone() {
    let bytes = content(3_000_000);
    let (other, _) = seeder(&bytes, "film.bin").await;
    let (node, target) = seeder(&bytes, "film.bin").await;
    let second = format!("http://{}/", other.local_addr().unwrap());
    let node = node.with_other_seeders(Arc::new(Fixed(vec![offer(&second)])));
    let url = format!(
        "http://{}{}.meta4",
        node.local_addr().unwrap(),
        path_of(&target)
    );
    let directory = tempfile::tempdir().unwrap();
    let run = {
        let directory = directory.path().to_owned();
        tokio::task::spawn_blocking(move || {
            Command::new("aria2c")
                .args([
                    "--no-conf",
                    "--quiet",
                    "--check-integrity=true",
                    "-x2",
                    "-k1M",
                    "-d",
                ])
                .arg(directory)
                .arg(url)
                .output()
                .expect("aria2c must be installed")
        })
    };
    let output = soon(run).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(std::fs::read(directory.path().join("film.bin")).unwrap() == bytes);
    node.shutdown().await.unwrap();
    other.shutdown().await.unwrap();
}
