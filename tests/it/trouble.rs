//! A way to a seeder on which things go wrong when a test says so.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// What happens on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nothing: bytes pass.
    None,
    /// Nobody listens any more, and what was connected is closed.
    Refused,
    /// Connections are reset, also new ones.
    Reset,
    /// Connections stay, and nothing comes.
    Stall,
    /// Every request is answered with this status.
    Status(u16),
}

/// A relay, which ends when it is dropped.
pub(crate) struct Road {
    address: SocketAddr,
    trouble: Arc<watch::Sender<Trouble>>,
    passed: Arc<AtomicU64>,
    _relaying: AbortOnDropHandle<()>,
}

struct Relay {
    seeder: SocketAddr,
    bytes_per_second: u64,
    trouble: watch::Receiver<Trouble>,
    passed: Arc<AtomicU64>,
}

impl Road {
    /// To the seeder at this URL, with a rate for each connection.
    pub(crate) async fn to(seeder: &str, bytes_per_second: u64) -> Self {
        let seeder = seeder.trim_start_matches("http://").trim_end_matches('/');
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (trouble, watched) = watch::channel(Trouble::None);
        let passed = Arc::<AtomicU64>::default();
        let relay = Relay {
            seeder: seeder.parse().unwrap(),
            bytes_per_second,
            trouble: watched,
            passed: passed.clone(),
        };
        let relaying = tokio::spawn(listen(Some(listener), address, Arc::new(relay)));
        Self {
            address,
            trouble: Arc::new(trouble),
            passed,
            _relaying: AbortOnDropHandle::new(relaying),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// From now on this.
    pub(crate) fn set(&self, trouble: Trouble) {
        self.trouble.send_replace(trouble);
    }

    /// Waits until so many bytes have come this way.
    pub(crate) async fn has_passed(&self, bytes: u64) {
        while self.passed.load(Ordering::SeqCst) < bytes {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn listen(mut listener: Option<TcpListener>, address: SocketAddr, relay: Arc<Relay>) {
    let mut trouble = relay.trouble.clone();
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let now = *trouble.borrow_and_update();
        match (now, &listener) {
            (Trouble::Refused, Some(_)) => listener = None,
            (Trouble::Refused, None) | (_, Some(_)) => {}
            (_, None) => listener = Some(TcpListener::bind(address).await.unwrap()),
        }
        tokio::select! {
            changed = trouble.changed() => if changed.is_err() { return },
            accepted = async { listener.as_ref().unwrap().accept().await }, if listener.is_some() => {
                if let Ok((client, _)) = accepted {
                    connections.spawn(relay.clone().serve(client));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

impl Relay {
    /// Whatever goes wrong on either side ends the connection, as on a network.
    async fn serve(self: Arc<Self>, mut client: TcpStream) {
        let mut trouble = self.trouble.clone();
        let now = *trouble.borrow_and_update();
        match now {
            Trouble::None => {}
            Trouble::Status(status) => return answer(&mut client, status).await,
            Trouble::Reset => return client.set_zero_linger().unwrap_or_default(),
            Trouble::Stall => return std::future::pending().await,
            Trouble::Refused => return,
        }
        let Ok(mut seeder) = TcpStream::connect(self.seeder).await else {
            return;
        };
        let (mut up, mut down) = ([0; 16 << 10], [0; 16 << 10]);
        loop {
            tokio::select! {
                biased;
                _ = trouble.changed() => {
                    let now = *trouble.borrow_and_update();
                    match now {
                        Trouble::None => {}
                        Trouble::Stall => return std::future::pending().await,
                        Trouble::Reset => return client.set_zero_linger().unwrap_or_default(),
                        Trouble::Status(_) | Trouble::Refused => return,
                    }
                }
                read = client.read(&mut up) => match read {
                    Ok(read @ 1..) if seeder.write_all(&up[..read]).await.is_ok() => {}
                    _ => return,
                },
                read = seeder.read(&mut down) => match read {
                    Ok(read @ 1..) => {
                        let takes = read as f64 / self.bytes_per_second as f64;
                        tokio::time::sleep(Duration::from_secs_f64(takes)).await;
                        if client.write_all(&down[..read]).await.is_err() {
                            return;
                        }
                        self.passed.fetch_add(read as u64, Ordering::SeqCst);
                    }
                    _ => return,
                },
            }
        }
    }
}

async fn answer(client: &mut TcpStream, status: u16) {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match client.read_buf(&mut head).await {
            Ok(1..) => {}
            _ => return,
        }
    }
    let answer =
        format!("HTTP/1.1 {status} So\r\ncontent-length: 3\r\nconnection: close\r\n\r\nno\n");
    client
        .write_all(answer.as_bytes())
        .await
        .unwrap_or_default();
}
