//! JSON-RPC over HTTP: what tools need, and what strangers try.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::Duration;

use alloy_primitives::{Address, Bytes as Hex, U256};
use bytes::Bytes;
use chiral_chain::{
    ChainClient, ChainSpec, DEV_ACCOUNTS, EmbeddedChain, EmbeddedConfig, Fees, JsonRpcServer,
    Sealing, ServerConfig, ServerError, Transaction,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PAYEE: Address = Address::repeat_byte(0xbe);

struct Node {
    chain: EmbeddedChain,
    server: JsonRpcServer,
}

impl Node {
    async fn start(config: ServerConfig) -> Self {
        let chain = EmbeddedConfig::default().with_sealing(Sealing::Manual);
        let chain = EmbeddedChain::open(ChainSpec::devnet(), chain)
            .await
            .unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = JsonRpcServer::bind(address, chain.clone(), config)
            .await
            .unwrap();
        Self { chain, server }
    }

    /// Sends bytes on a connection of their own, and reads all that comes.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.server.address()).await.unwrap();
        // A server that has read enough may close while this is still being sent.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let _ = tokio::time::timeout(Duration::from_secs(20), read)
            .await
            .unwrap();
        String::from_utf8(answer).unwrap()
    }

    async fn post(&self, body: &[u8]) -> (u16, String) {
        let mut request = format!(
            "POST / HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            self.server.address(),
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        let answer = self.raw(&request).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    async fn json(&self, request: &Value) -> Value {
        let (status, body) = self.post(request.to_string().as_bytes()).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    async fn call(&self, method: &str, params: Value) -> Value {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        self.json(&request).await
    }

    async fn result(&self, method: &str, params: Value) -> Value {
        let answer = self.call(method, params).await;
        assert_eq!(answer["error"], Value::Null, "{method}");
        answer["result"].clone()
    }

    async fn error(&self, method: &str, params: Value) -> (i64, String) {
        let answer = self.call(method, params).await;
        let error = &answer["error"];
        assert!(error.is_object(), "{answer}");
        (
            error["code"].as_i64().unwrap(),
            error["message"].as_str().unwrap().to_owned(),
        )
    }

    async fn stop(self) {
        self.server.shutdown().await;
        self.chain.shutdown().await.unwrap();
        // The port is free.
        let again = TcpStream::connect(self.server.address()).await;
        assert!(again.is_err());
    }
}

async fn raw_transfer(nonce: u64, value: u64) -> Hex {
    let transaction = Transaction {
        chain_id: 98_765,
        nonce,
        gas_limit: 21_000,
        fees: Fees::Legacy {
            gas_price: 2_000_000_000,
        },
        to: Some(PAYEE),
        value: U256::from(value),
        input: Bytes::new(),
    };
    let signed = transaction.sign(&DEV_ACCOUNTS[0].signer()).await.unwrap();
    signed.raw.clone().into()
}

#[tokio::test]
async fn a_transfer_through_json_rpc_is_found_everywhere() {
    let node = Node::start(ServerConfig::default()).await;
    assert_eq!(node.result("eth_chainId", json!([])).await, "0x181cd");
    assert_eq!(node.result("net_version", json!([])).await, "98765");
    let filter = node
        .result("eth_newPendingTransactionFilter", json!([]))
        .await;
    let blocks = node.result("eth_newBlockFilter", json!([])).await;
    let raw = raw_transfer(0, 9).await;
    let hash = node.result("eth_sendRawTransaction", json!([raw])).await;
    let changes = node.result("eth_getFilterChanges", json!([filter])).await;
    assert_eq!(changes, json!([hash]));
    assert_eq!(
        node.result("eth_getFilterChanges", json!([filter])).await,
        json!([])
    );
    let (code, message) = node.error("eth_sendRawTransaction", json!([raw])).await;
    assert_eq!((code, message.as_str()), (-32_000, "already known"));
    let waiting = node.result("eth_getTransactionByHash", json!([hash])).await;
    assert_eq!(waiting["blockHash"], Value::Null);
    assert_eq!(
        node.result("eth_getTransactionReceipt", json!([hash]))
            .await,
        Value::Null
    );
    let sender = DEV_ACCOUNTS[0].address;
    let nonce = |tag: &str| node.result("eth_getTransactionCount", json!([sender, tag]));
    assert_eq!(nonce("pending").await, "0x1");
    assert_eq!(nonce("latest").await, "0x0");
    let status = node.result("txpool_status", json!([])).await;
    assert_eq!(status, json!({ "pending": "0x1", "queued": "0x0" }));

    let head = node.chain.seal().await.unwrap();
    assert_eq!(node.result("eth_blockNumber", json!([])).await, "0x1");
    assert_eq!(
        node.result("eth_getFilterChanges", json!([blocks])).await,
        json!([head.hash])
    );
    let receipt = node
        .result("eth_getTransactionReceipt", json!([hash]))
        .await;
    assert_eq!(receipt["status"], "0x1");
    assert_eq!(receipt["gasUsed"], "0x5208");
    assert_eq!(receipt["from"], json!(sender));
    assert_eq!(receipt["type"], "0x0");
    let block = node
        .result("eth_getBlockByNumber", json!(["latest", true]))
        .await;
    assert_eq!(block["hash"], json!(head.hash));
    assert_eq!(block["transactions"][0]["hash"], hash);
    // EIP-155: 2 · 98765 + 35 or 36.
    let v = block["transactions"][0]["v"].as_str().unwrap();
    assert!(["0x303bd", "0x303be"].contains(&v), "{v}");
    let same = node
        .result("eth_getBlockByHash", json!([head.hash, false]))
        .await;
    assert_eq!(same["transactions"], json!([hash]));
    let receipts = node.result("eth_getBlockReceipts", json!(["0x1"])).await;
    assert_eq!(receipts, json!([receipt]));
    assert_eq!(
        node.result("eth_getBalance", json!([PAYEE, "latest"]))
            .await,
        "0x9"
    );
    assert_eq!(
        node.result("eth_getBalance", json!([PAYEE, "0x0"])).await,
        "0x0"
    );
    let (_, message) = node.error("eth_getBalance", json!([PAYEE, "0x2"])).await;
    assert_eq!(message, "header not found");
    assert_eq!(
        node.result("eth_getBlockByNumber", json!(["0x2", false]))
            .await,
        Value::Null
    );
    let (_, message) = node
        .error("eth_sendRawTransaction", json!([raw_transfer(0, 1).await]))
        .await;
    assert_eq!(message, "nonce too low: next nonce 1, tx nonce 0");

    let history = node
        .result("eth_feeHistory", json!(["0x5", "latest", [0, 50, 100]]))
        .await;
    assert_eq!(history["oldestBlock"], "0x0");
    assert_eq!(history["baseFeePerGas"].as_array().unwrap().len(), 3);
    assert_eq!(history["reward"][1][1], "0x430e2340");
    assert_eq!(
        node.result("eth_uninstallFilter", json!([filter])).await,
        true
    );
    assert_eq!(
        node.error("eth_getFilterChanges", json!([filter])).await.1,
        "filter not found"
    );
    node.stop().await;
}

#[tokio::test]
async fn the_raw_block_hashes_to_its_name() {
    let node = Node::start(ServerConfig::default()).await;
    let raw = raw_transfer(0, 9).await;
    node.result("eth_sendRawTransaction", json!([raw])).await;
    let head = node.chain.seal().await.unwrap();
    let header: Hex =
        serde_json::from_value(node.result("debug_getRawHeader", json!(["latest"])).await).unwrap();
    assert_eq!(alloy_primitives::keccak256(&header), head.hash);
    let block: Hex =
        serde_json::from_value(node.result("debug_getRawBlock", json!(["latest"])).await).unwrap();
    let has = |part: &[u8]| block.windows(part.len()).any(|window| window == part);
    assert!(has(&header) && has(&raw));
    node.stop().await;
}

#[tokio::test]
async fn a_revert_is_answered_with_its_data_and_its_reason() {
    let node = Node::start(ServerConfig::default()).await;
    // Returns Error("no") by REVERT: 100 bytes that follow the code.
    let mut code = vec![0x60, 100, 0x60, 12, 0x60, 0, 0x39, 0x60, 100, 0x60, 0, 0xfd];
    code.extend_from_slice(&[0x08, 0xc3, 0x79, 0xa0]);
    code.extend_from_slice(&U256::from(32).to_be_bytes::<32>());
    code.extend_from_slice(&U256::from(2).to_be_bytes::<32>());
    code.extend_from_slice(b"no");
    code.resize(12 + 100, 0);
    for method in ["eth_call", "eth_estimateGas"] {
        let answer = node
            .call(method, json!([{ "data": Hex::from(code.clone()) }]))
            .await;
        assert_eq!(answer["error"]["code"], 3);
        assert_eq!(answer["error"]["message"], "execution reverted: no");
        assert_eq!(
            answer["error"]["data"],
            json!(Hex::copy_from_slice(&code[12..]))
        );
    }
    let estimate = json!([{ "to": PAYEE, "data": Hex::from(vec![7; 65]) }]);
    assert_eq!(node.result("eth_estimateGas", estimate).await, "0x5618");
    let (_, message) = node
        .error("eth_estimateGas", json!([{ "to": PAYEE, "value": "0x1" }]))
        .await;
    assert!(message.starts_with("insufficient funds"), "{message}");
    node.stop().await;
}

#[tokio::test]
async fn batches_are_answered_in_order_and_notifications_not_at_all() {
    let node = Node::start(ServerConfig::default()).await;
    let batch = json!([
        { "jsonrpc": "2.0", "id": "a", "method": "eth_chainId" },
        { "jsonrpc": "2.0", "method": "eth_chainId" },
        7,
        { "jsonrpc": "2.0", "id": 2, "method": "eth_signTransaction", "params": [] },
        { "jsonrpc": "2.0", "id": 3, "method": "eth_getBalance", "params": { "a": 1 } },
    ]);
    let answers = node.json(&batch).await;
    let answers = answers.as_array().unwrap();
    assert_eq!(answers.len(), 4);
    assert_eq!(
        answers[0],
        json!({ "jsonrpc": "2.0", "id": "a", "result": "0x181cd" })
    );
    assert_eq!(answers[1]["error"]["code"], -32_600);
    assert_eq!(answers[2]["error"]["code"], -32_601);
    assert_eq!(answers[3]["error"]["code"], -32_602);
    let (status, body) = node
        .post(br#"{"jsonrpc":"2.0","method":"eth_chainId"}"#)
        .await;
    assert_eq!((status, body.as_str()), (204, ""));
    node.stop().await;
}

#[tokio::test]
async fn hostile_bodies_are_typed_errors() {
    let mut config = ServerConfig::default();
    config.max_body_bytes = 4 * 1024 * 1024;
    let node = Node::start(config).await;
    let code = |body: Vec<u8>| {
        let node = &node;
        async move {
            let (status, body) = node.post(&body).await;
            assert_eq!(status, 200);
            let answer: Value = serde_json::from_str(&body).unwrap();
            answer["error"]["code"].as_i64().unwrap()
        }
    };
    assert_eq!(code(Vec::new()).await, -32_700);
    assert_eq!(code(b"\xff\xfe".to_vec()).await, -32_700);
    assert_eq!(code("[".repeat(1_000_000).into_bytes()).await, -32_700);
    assert_eq!(code(r#"{"a":"#.repeat(500_000).into_bytes()).await, -32_700);
    assert_eq!(code(b"[]".to_vec()).await, -32_600);
    assert_eq!(
        code(format!("[{}0]", "0,".repeat(999_999)).into_bytes()).await,
        -32_600
    );
    let many = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"eth_call","params":[{}0]}}"#,
        "0,".repeat(999_999)
    );
    assert_eq!(code(many.into_bytes()).await, -32_602);
    let wrong = [
        json!(["x"]),
        json!([1]),
        json!([null]),
        json!([[]]),
        json!([{}]),
        json!(["0x"]),
        json!([-1]),
        json!([1e300]),
        json!(["0x".to_owned() + &"f".repeat(65)]),
        json!([true, true]),
    ];
    for method in [
        "eth_getBalance",
        "eth_getBlockByNumber",
        "eth_getBlockByHash",
        "eth_getStorageAt",
        "eth_sendRawTransaction",
        "eth_getTransactionReceipt",
        "eth_getFilterChanges",
        "eth_getTransactionByBlockNumberAndIndex",
        "debug_getRawBlock",
    ] {
        for params in &wrong {
            let answer = node.call(method, params.clone()).await;
            // A number may be written as one.
            if method == "eth_getBlockByNumber" && *params == json!([1]) {
                continue;
            }
            assert!(
                answer["error"]["code"].is_i64(),
                "{method} {params} {answer}"
            );
        }
    }
    let huge = json!(["0xffffffffffffffff", "latest", vec![50.0; 101]]);
    assert_eq!(node.error("eth_feeHistory", huge).await.0, -32_602);
    let falling = json!(["0x1", "latest", [2, 1]]);
    assert_eq!(node.error("eth_feeHistory", falling).await.0, -32_602);
    let topics = json!([{ "topics": [[], [], [], [], []] }]);
    assert_eq!(node.error("eth_getLogs", topics).await.0, -32_602);
    let backwards = json!([{ "fromBlock": "0x5", "toBlock": "0x1" }]);
    assert_eq!(node.error("eth_getLogs", backwards).await.0, -32_602);
    let endless = json!([{ "fromBlock": "0x0", "toBlock": "0xffffffffffffffff" }]);
    assert_eq!(node.result("eth_getLogs", endless).await, json!([]));
    let loops = json!([{ "data": "0x5b600056" }]);
    let (_, message) = node.error("eth_call", loops).await;
    assert!(message.contains("out of gas"), "{message}");
    node.stop().await;
}

#[tokio::test]
async fn a_body_or_head_over_its_limit_is_refused() {
    let mut config = ServerConfig::default();
    config.max_body_bytes = 1_000;
    config.body_timeout = Duration::from_millis(200);
    config.header_timeout = Duration::from_millis(200);
    let node = Node::start(config).await;
    assert_eq!(node.post(&[b' '; 1_001]).await.0, 413);
    let head = |length: &str| {
        format!(
            "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{length}\r\n"
        )
    };
    let slow = node.raw(head("content-length: 10\r\n").as_bytes()).await;
    assert!(slow.starts_with("HTTP/1.1 408"), "{slow}");
    let endless = head("transfer-encoding: chunked\r\n") + &format!("400\r\n{}", "x".repeat(2_000));
    let endless = node.raw(endless.as_bytes()).await;
    assert!(endless.starts_with("HTTP/1.1 413"), "{endless}");
    assert_eq!(node.raw(b"POST / HTTP/1.1\r\nhost: loc").await, "");
    let many = "x: y\r\n".repeat(1_000);
    let many = node
        .raw(format!("POST / HTTP/1.1\r\n{many}\r\n").as_bytes())
        .await;
    assert!(
        many.is_empty() || many.starts_with("HTTP/1.1 431"),
        "{many}"
    );
    let large = format!("POST / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let large = node.raw(large.as_bytes()).await;
    assert!(
        large.is_empty() || large.starts_with("HTTP/1.1 431"),
        "{large}"
    );
    node.stop().await;
}

#[tokio::test]
async fn a_name_that_is_not_its_own_and_a_web_page_are_refused() {
    let node = Node::start(ServerConfig::default()).await;
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}"#;
    let request = |method: &str, target: &str, headers: &str| {
        format!(
            "{method} {target} HTTP/1.1\r\n{headers}connection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let json = "content-type: application/json\r\n";
    let cases = [
        ("POST", "/", format!("host: evil.example\r\n{json}"), 403),
        (
            "POST",
            "/",
            format!("host: localhost\r\nhost: evil.example\r\n{json}"),
            403,
        ),
        (
            "POST",
            "http://evil.example/",
            format!("host: localhost\r\n{json}"),
            403,
        ),
        ("POST", "/", json.to_owned(), 403),
        (
            "POST",
            "/",
            "host: localhost\r\ncontent-type: text/plain\r\n".to_owned(),
            415,
        ),
        ("POST", "/", "host: localhost\r\n".to_owned(), 415),
        ("GET", "/", "host: localhost\r\n".to_owned(), 405),
        (
            "OPTIONS",
            "/",
            "host: localhost\r\norigin: http://evil.example\r\n".to_owned(),
            405,
        ),
        ("POST", "/admin", format!("host: localhost\r\n{json}"), 404),
        (
            "POST",
            "/",
            format!("host: localhost\r\norigin: http://evil.example\r\n{json}"),
            200,
        ),
    ];
    for (method, target, headers, status) in cases {
        let answer = node.raw(request(method, target, &headers).as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{headers}: {answer}"
        );
        assert!(
            !answer.to_lowercase().contains("access-control"),
            "{answer}"
        );
        assert_eq!(answer.contains("0x181cd"), status == 200);
    }
    node.stop().await;
}

#[tokio::test]
async fn it_listens_on_this_machine_alone_unless_told() {
    let config = EmbeddedConfig::default().with_sealing(Sealing::Manual);
    let chain = EmbeddedChain::open(ChainSpec::devnet(), config)
        .await
        .unwrap();
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let refused = JsonRpcServer::bind(everywhere, chain.clone(), ServerConfig::default()).await;
    assert!(matches!(refused, Err(ServerError::NotLoopback { .. })));
    let mut config = ServerConfig::default();
    config.allow_remote = true;
    let server = JsonRpcServer::bind(everywhere, chain.clone(), config)
        .await
        .unwrap();
    server.shutdown().await;
    server.shutdown().await;
    chain.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_its_place() {
    let mut config = ServerConfig::default();
    config.max_connections = 1;
    config.write_timeout = Duration::from_millis(300);
    let node = Node::start(config).await;
    // Asks for more than the buffers of both ends hold, and reads none of it.
    let batch = json!(vec![
        json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_getCode",
                "params": [ChainSpec::predeployed("BatchPay"), "latest"] });
        100
    ])
    .to_string();
    let request = format!(
        "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{batch}",
        batch.len()
    );
    let mut stuck = TcpStream::connect(node.server.address()).await.unwrap();
    let flood = async {
        loop {
            if stuck.write_all(request.as_bytes()).await.is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), flood)
        .await
        .unwrap();
    assert_eq!(node.result("eth_chainId", json!([])).await, "0x181cd");
    node.stop().await;
}
