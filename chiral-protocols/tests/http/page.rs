//! The list of what is shared.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use chiral_core::chunk_store::{ImportRequest, ImportSource};
use chiral_core::content_protocol::SeedContent;
use chiral_core::{ChunkStore, Cid, ContentProtocol, Link, SeedRequest};
use chiral_protocols::http::HttpProtocol;
use chiral_storage::MemoryStore;
use serde_json::Value;

use crate::support::{ask, loopback, node_over};

/// A listing server of so many files, small and different; all named alike.
async fn listing(files: u32, name: &str) -> (HttpProtocol, SocketAddr, Vec<Cid>) {
    let store = Arc::new(MemoryStore::new(1 << 30));
    let node = node_over(loopback().with_page(true), store.clone()).await;
    let mut cids = Vec::new();
    for number in 0..files {
        let bytes = Bytes::from(number.to_be_bytes().to_vec());
        let mut request = ImportRequest::new(ImportSource::Bytes(bytes));
        request.name = Some(name.to_owned());
        let cid = store.import(request).await.unwrap().header.cid;
        node.start_seeding(SeedRequest::new(SeedContent::Stored(cid)))
            .await
            .unwrap();
        cids.push(cid);
    }
    let address = node.local_addr().unwrap();
    (node, address, cids)
}

#[tokio::test]
async fn nothing_is_listed_unless_it_was_said_so() {
    let store = Arc::new(MemoryStore::new(1 << 20));
    let node = node_over(loopback(), store).await;
    let address = node.local_addr().unwrap();
    for path in ["/", "/index.html", "/index.json"] {
        let answer = ask(address, "GET", path, "").await;
        assert_eq!(answer.status, 404, "{path}");
    }
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn people_get_a_page_and_programs_get_json() {
    let name = "\"><script>alert(1)</script>&.mp4";
    let (node, address, cids) = listing(1, name).await;
    let browser = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n";
    for (path, headers) in [("/", browser), ("/", ""), ("/index.html", browser)] {
        let answer = ask(address, "GET", path, headers).await;
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.header("content-type"),
            Some("text/html; charset=utf-8")
        );
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("vary"), Some("accept"));
        // Not for pages of others to read.
        assert_eq!(answer.header("access-control-allow-origin"), None);
        let policy = answer.header("content-security-policy").unwrap();
        assert!(
            policy.starts_with("default-src 'none'; style-src 'sha256-"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
        let html = String::from_utf8(answer.body).unwrap();
        assert!(
            !html.contains("<script") && html.contains("script_"),
            "{html}"
        );
        assert!(
            html.contains(&format!("href=\"file/{}\"", cids[0])),
            "{html}"
        );
    }
    // It is told how fast things go: these bytes went out within the last seconds.
    ask(address, "GET", &format!("/file/{}", cids[0]), "").await;
    for (path, headers) in [
        ("/", "Accept: application/json\r\n"),
        ("/index.json", browser),
    ] {
        let answer = ask(address, "GET", path, headers).await;
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let list: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(list["bytes_sent"], 4);
        let file = &list["files"][0];
        assert_eq!(file["cid"], cids[0].to_string());
        assert_eq!(file["bytes_sent"], 4);
        assert_eq!(file["media_type"], "video/mp4");
        let link: Link = file["link"].as_str().unwrap().parse().unwrap();
        assert_eq!((link.cid, link.size), (cids[0], Some(4)));
    }
    let target = cids[0].into();
    assert!(node.stop_seeding(&target).await.unwrap());
    let answer = ask(address, "GET", "/index.json", "").await;
    let list: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(list["files"], Value::Array(Vec::new()));
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_long_list_has_several_pages() {
    let (node, address, mut cids) = listing(1203, "a").await;
    cids.sort();
    let (mut path, mut seen) = ("/index.json".to_owned(), Vec::new());
    let mut pages = 0;
    loop {
        let answer = ask(address, "GET", &path, "").await;
        assert!(answer.body.len() < 1 << 20);
        let list: Value = serde_json::from_slice(&answer.body).unwrap();
        for file in list["files"].as_array().unwrap() {
            seen.push(file["cid"].as_str().unwrap().parse::<Cid>().unwrap());
        }
        pages += 1;
        match list["next"].as_str() {
            Some(next) => path = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(pages, 3);
    assert_eq!(seen, cids);
    let answer = ask(address, "GET", "/?after=nonsense", "").await;
    let html = String::from_utf8(answer.body).unwrap();
    assert!(html.contains(&format!("<a href=\"?after={}\">", cids[499])));
    node.shutdown().await.unwrap();
}
