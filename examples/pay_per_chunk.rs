//! A file is bought twice over the private protocol: chunk by chunk, each sealed until its key
//! is paid for, and by the session, in vouchers behind what was delivered.
//!
//! ```text
//! cargo run --release --example pay_per_chunk             # a file of 10 chunks that it makes
//! cargo run --release --example pay_per_chunk -- 40       # as many as you like, to 4000
//! ```
//!
//! Two sellers and two buyers, a DHT and a chain, all on this machine. The first pair agrees on
//! locked vouchers (option A), the second on vouchers in batches (option B). What each seller's
//! gate saw is printed side by side:
//!
//! ```text
//!      A: each chunk for its key           wei       B: chunks, and vouchers behind    wei
//!   31 sealed 0..262144                            28 served 0..262144
//!   34 lock                    250000000000000     30 voucher              250000000000000
//!   34 key told                                    31 served 262144..786432
//! ```
//!
//! At the end each seller claims on the chain what the last voucher says, and the contract's
//! word on it is printed. The exit status is 0 only if both files came whole and both sellers
//! got what the file costs, to the wei.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use chiral::chain::CallRequest;
use chiral::core::{
    Admission, CHUNK_SIZE, GateError, PaymentGate, Sealed, ServeRequest, payment_gate::Tariff,
};
use chiral::payment::channel::ChannelMessage;
use chiral::payment::contracts::ChannelState;
use chiral::payment::contracts::channels::{CHANNELS, look};
use chiral::payment::messages::{Message, Policy};
use chiral::protocols::private::PrivateConfig;
use chiral::{ByteRange, Cid, Loopback, Node, Price, Share};

/// Any error: this program tells it and ends.
type Failure = Box<dyn Error + Send + Sync>;

/// When, what, and for how many wei in all.
type Line = (Duration, String, Option<u128>);

/// A gate that writes down what passes it.
#[derive(Debug)]
struct Ledger {
    gate: Arc<dyn PaymentGate>,
    begun: Instant,
    lines: Arc<Mutex<Vec<Line>>>,
}

impl Ledger {
    fn note(&self, what: impl Into<String>, wei: Option<u128>) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push((self.begun.elapsed(), what.into(), wei));
    }
}

#[async_trait]
impl PaymentGate for Ledger {
    async fn admit(&self, request: &ServeRequest) -> Result<Admission, GateError> {
        self.gate.admit(request).await
    }

    async fn served(&self, request: &ServeRequest, sent: ByteRange) {
        if !request.sealed {
            self.note(format!("served {}..{}", sent.start, sent.end), None);
        }
        self.gate.served(request, sent).await;
    }

    async fn message(&self, message: Bytes) -> Result<Bytes, GateError> {
        match Message::decode(&message) {
            Ok(Message::Accept { .. }) => self.note("terms accepted", None),
            Ok(Message::Channel(ChannelMessage::Bind(_))) => self.note("channel named", None),
            Ok(Message::Channel(ChannelMessage::Pay(pay))) => {
                self.note("voucher", Some(pay.cumulative));
            }
            Ok(Message::Channel(ChannelMessage::Lock(lock))) => {
                self.note("lock", Some(lock.cumulative));
            }
            Ok(Message::Channel(ChannelMessage::PayAndLock(pay, lock))) => {
                self.note("voucher", Some(pay.cumulative));
                self.note("lock", Some(lock.cumulative));
            }
            _ => {}
        }
        let answer = self.gate.message(message).await?;
        if let Ok(Message::Channel(ChannelMessage::Key { .. })) = Message::decode(&answer) {
            self.note("key told", None);
        }
        Ok(answer)
    }

    async fn seal(&self, request: &ServeRequest, data: Bytes) -> Result<Sealed, GateError> {
        let range = request.range;
        self.note(format!("sealed {}..{}", range.start, range.end), None);
        self.gate.seal(request, data).await
    }

    fn tariff(&self, cid: Cid) -> Tariff {
        self.gate.tariff(cid)
    }
}

/// What came of one option.
struct Sale {
    lines: Vec<Line>,
    took: Duration,
    claimed: u128,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pay_per_chunk: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Failure> {
    let chunks = match std::env::args().nth(1) {
        Some(text) => text.parse::<u64>()?.clamp(1, 4000),
        None => 10,
    };
    let content: Vec<u8> = (0..chunks * CHUNK_SIZE)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let content = Bytes::from(content);
    let price: Price = "0.001".parse()?;
    let network = Loopback::start().await?;
    let sales = async {
        let a = sell(&network, 1, Policy::LockedVoucher, price, &content).await?;
        let b = sell(&network, 3, Policy::Channel, price, &content).await?;
        Ok::<_, Failure>((a, b))
    };
    let sales = sales.await;
    network.shutdown().await;
    let (a, b) = sales?;
    print(&a.lines, &b.lines);
    let cost = price.cost(chunks * CHUNK_SIZE).ok_or("too dear")?;
    println!();
    for (option, sale) in [("A", &a), ("B", &b)] {
        let (ms, wei) = (sale.took.as_millis(), sale.claimed);
        println!("option {option}: {chunks} chunks in {ms} ms, {wei} wei claimed on the chain");
        if cost.to_string() != wei.to_string() {
            return Err(format!("option {option}: {wei} wei for a file that costs {cost}").into());
        }
    }
    Ok(())
}

/// A seller and a buyer, who agree under a policy.
async fn sell(
    network: &Loopback,
    account: usize,
    policy: Policy,
    price: Price,
    content: &Bytes,
) -> Result<Sale, Failure> {
    let mut payments = network.payments(account).with_price(price);
    payments.gate.policy = policy;
    payments.gate.channel.window_cap = 8;
    payments.gate.channel.batch = 1;
    let (lines, begun) = (Arc::<Mutex<Vec<Line>>>::default(), Instant::now());
    let kept = lines.clone();
    let seller = network
        .node(account)
        .without_http()
        .payments(payments)
        .private(PrivateConfig::default())
        .wrap_gate(move |gate| {
            Arc::new(Ledger {
                gate,
                begun,
                lines: kept,
            })
        });
    let seller = seller.start().await?;
    let payments = network.payments(account + 1).with_max_price(price);
    let buyer = network
        .node(account + 1)
        .without_http()
        .payments(payments)
        .private(PrivateConfig::default().fetch_only());
    let buyer = buyer.start().await?;
    let sale = async {
        let link = seller.share(Share::bytes(content.clone())).await?.link;
        let begun = Instant::now();
        let got = buyer.get(&link).to_bytes().await?;
        let took = begun.elapsed();
        if got.bytes.as_ref() != Some(content) {
            return Err("the file is another".into());
        }
        let claimed = claim(network, &seller).await?;
        let lines = lines.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok::<_, Failure>(Sale {
            lines,
            took,
            claimed,
        })
    };
    let sale = sale.await;
    buyer.shutdown().await?;
    seller.shutdown().await?;
    sale
}

/// Takes what the channel has paid, and answers how much that is in the contract's words.
async fn claim(network: &Loopback, seller: &Node) -> Result<u128, Failure> {
    let channels = seller.payments().ok_or("no payments")?.channels();
    let view = channels.views().pop().ok_or("no channel")?;
    channels.claim(view.id).await?;
    for _ in 0..500 {
        let call = CallRequest {
            to: Some(CHANNELS),
            input: look(view.id),
            ..Default::default()
        };
        let state = ChannelState::read(&network.chain().call(call).await?);
        if let Some(state) = state.filter(|state| state.claimed >= view.paid) {
            return Ok(state.claimed);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err("the claim is in no block".into())
}

fn print(a: &[Line], b: &[Line]) {
    let column = |line: Option<&Line>| match line {
        None => " ".repeat(48),
        Some((at, what, wei)) => {
            let wei = wei.map_or_else(String::new, |wei| wei.to_string());
            format!("{:>5} {what:<24} {wei:>17}", at.as_millis())
        }
    };
    println!(
        "{:<48}  |  {:<48}",
        "   ms A: each chunk for its key         wei in all",
        "   ms B: chunks, vouchers behind         wei in all"
    );
    for row in 0..a.len().max(b.len()) {
        println!("{}  |  {}", column(a.get(row)), column(b.get(row)));
    }
}
