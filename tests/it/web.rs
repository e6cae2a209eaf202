//! What a node says to programs that know nothing of Chiral.

use std::sync::Arc;

use chiral::dht::MemoryDirectoryNetwork;
use chiral::{Node, PeerId, Share};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{data, url, within};

async fn get(url: &str) -> String {
    let rest = url.strip_prefix("http://").expect("an http url");
    let (host, path) = rest.split_once('/').expect("a path");
    let mut stream = tokio::net::TcpStream::connect(host)
        .await
        .expect("a server");
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer))
        .await
        .expect("an answer in text");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metalink_names_every_seeder_that_the_directory_knows() {
    let network = MemoryDirectoryNetwork::new();
    let mut nodes = Vec::new();
    for number in 1..=3 {
        let peer = PeerId::from_bytes(&[number; 4]).expect("a peer id");
        let node = Node::builder()
            .http_listen("127.0.0.1:0".parse().expect("an address"))
            .directory(Arc::new(network.join(peer.clone())))
            .peer_id(peer);
        nodes.push(node.start().await.expect("a node on loopback"));
    }
    let bytes = data(300_000);
    let mut cid = None;
    for node in &nodes {
        let share = Share::bytes(bytes.clone()).name("a & b.bin");
        cid = Some(within(node.share(share)).await.expect("shared").cid());
    }
    let cid = cid.expect("three shared it");
    let answer = get(&format!("{}file/{cid}.meta4", url(&nodes[0]))).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("<file name=\"a _ b.bin\">"), "{answer}");
    assert_eq!(answer.matches("<url ").count(), 3, "{answer}");
    for node in &nodes {
        let there = format!(">{}file/{cid}</url>", url(node));
        assert_eq!(answer.matches(&there).count(), 1, "{answer}");
    }
    for node in &nodes {
        within(node.shutdown()).await.expect("an orderly end");
    }
}
