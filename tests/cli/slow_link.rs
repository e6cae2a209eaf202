//! A way to a seeder that is no faster than it is said to be.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Bytes passed on at a time.
const PART: usize = 16 << 10;

/// Relays connections, all together at a rate. Ends when it is dropped.
pub(crate) struct SlowLink {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

struct Shared {
    seeder: SocketAddr,
    bytes_per_second: u64,
    free_at: Mutex<Instant>,
}

impl SlowLink {
    /// To the seeder that serves at this URL.
    pub(crate) fn to(peer: &str, bytes_per_second: u64) -> Self {
        let seeder = peer
            .trim_start_matches("http://")
            .trim_end_matches('/')
            .parse()
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let free_at = Mutex::new(Instant::now());
        let shared = Arc::new(Shared {
            seeder,
            bytes_per_second,
            free_at,
        });
        let stopped = stop.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let shared = shared.clone();
                std::thread::spawn(move || shared.relay(client.unwrap()));
            }
        });
        Self { address, stop }
    }

    /// Its URL, as `get --peer` takes it.
    pub(crate) fn peer(&self) -> String {
        format!("http://{}/", self.address)
    }
}

impl Drop for SlowLink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    /// Whatever goes wrong on either side ends the connection, as on a network.
    fn relay(self: Arc<Self>, client: TcpStream) {
        let Ok(seeder) = TcpStream::connect(self.seeder) else {
            return;
        };
        let (Ok(from), Ok(to)) = (client.try_clone(), seeder.try_clone()) else {
            return;
        };
        let requests = std::thread::spawn(move || pass(from, to, |_| {}));
        pass(seeder, client, |bytes| self.wait_for(bytes));
        let _ = requests.join();
    }

    fn wait_for(&self, bytes: usize) {
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let mut free_at = self.free_at.lock().unwrap();
        let begin = (*free_at).max(Instant::now());
        *free_at = begin + takes;
        drop(free_at);
        std::thread::sleep(begin.saturating_duration_since(Instant::now()));
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, pace: impl Fn(usize)) {
    let mut buffer = vec![0; PART];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        pace(read);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
