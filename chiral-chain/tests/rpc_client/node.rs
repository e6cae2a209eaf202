//! A node that answers what a test wants, over real sockets.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What happens to a request.
#[derive(Clone)]
pub(crate) enum Reply {
    Result(Value),
    Error(i64, &'static str),
    /// This status and this body.
    Raw(u16, String),
    /// A body without an end, in pieces.
    Endless,
    /// Nothing, and the connection stays open.
    Hang,
    /// Nothing, and the connection ends.
    Close,
}

type Script = dyn Fn(&str, &Value) -> Reply + Send + Sync;

pub(crate) struct Node {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Node {
    /// A node of chain 98765 that answers all else by `script(method, params)`.
    pub(crate) async fn new(
        script: impl Fn(&str, &Value) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::plain(move |method, params| match method {
            "eth_chainId" => Reply::Result(json!("0x181cd")),
            _ => script(method, params),
        })
        .await
    }

    pub(crate) async fn plain(
        script: impl Fn(&str, &Value) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (log, script) = (asked.clone(), Arc::new(script) as Arc<Script>);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, script.clone(), log.clone()));
            }
        });
        Self {
            address,
            asked,
            _tasks: tasks,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// How often `method` was asked.
    pub(crate) fn asked(&self, method: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|asked| *asked == method).count()
    }
}

async fn serve(stream: TcpStream, script: Arc<Script>, log: Arc<Mutex<Vec<String>>>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream).await {
        let method = request["method"].as_str().unwrap().to_owned();
        let reply = script(&method, &request["params"]);
        log.lock().unwrap().push(method);
        let id = &request["id"];
        let (status, body) = match reply {
            Reply::Result(result) => (200, json!({"jsonrpc": "2.0", "id": id, "result": result})),
            Reply::Error(code, message) => {
                let error = json!({"code": code, "message": message});
                (200, json!({"jsonrpc": "2.0", "id": id, "error": error}))
            }
            Reply::Raw(status, body) => {
                respond(&mut stream, status, &body).await;
                continue;
            }
            Reply::Endless => return endless(&mut stream).await,
            Reply::Hang => std::future::pending().await,
            Reply::Close => return,
        };
        respond(&mut stream, status, &body.to_string()).await;
    }
}

async fn respond(stream: &mut BufReader<TcpStream>, status: u16, body: &str) {
    let length = body.len();
    let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n\r\n{body}");
    let _ = stream.write_all(answer.as_bytes()).await;
}

async fn endless(stream: &mut BufReader<TcpStream>) {
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let _ = stream.write_all(head).await;
    let piece = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
    while stream.write_all(piece.as_bytes()).await.is_ok() {}
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> Option<Value> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    serde_json::from_slice(&body).ok()
}
