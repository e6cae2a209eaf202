//! Transfers per second through the JSON-RPC of nodes, with the same signed transactions and
//! the same client for each.
//!
//! ```text
//! rpc_bench ROUNDS TRANSFERS NAME=HOST:PORT [NAME=HOST:PORT]…
//! ```
//!
//! The nodes are new chains of id 98765 with the ten development accounts. In each round and on
//! each node in turn, ten connections, one for each account, send TRANSFERS in all, one request
//! each, and the round is over when the last one is mined. Prints the median of the rounds with
//! the least and the greatest.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::time::{Duration, Instant};

use alloy_primitives::{Address, Bytes, U256};
use chiral_chain::{CHIRAL_CHAIN_ID, DEV_ACCOUNTS, Fees, Transaction};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// A round that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(300);

/// A connection that asks one thing after the other.
struct Client {
    host: String,
    stream: BufStream<TcpStream>,
}

impl Client {
    async fn connect(host: &str) -> Result<Self> {
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            host: host.to_owned(),
            stream: BufStream::new(stream),
        })
    }

    async fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let body = body.to_string();
        let request = format!(
            "POST / HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await?;
        self.stream.flush().await?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).await?;
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).await?;
        let answer: Value = serde_json::from_slice(&answer)?;
        match answer.get("error") {
            Some(error) => Err(format!("{method}: {error}").into()),
            None => Ok(answer["result"].clone()),
        }
    }
}

/// Transactions of one account, from this nonce on.
async fn signed(account: usize, first: u64, count: u64) -> Result<Vec<Bytes>> {
    let signer = DEV_ACCOUNTS[account].signer();
    let mut all = Vec::new();
    for nonce in first..first + count {
        let transaction = Transaction {
            chain_id: CHIRAL_CHAIN_ID,
            nonce,
            gas_limit: 21_000,
            fees: Fees::Legacy {
                gas_price: 1_000_000_000_000,
            },
            to: Some(Address::repeat_byte(0xbe)),
            value: U256::from(1),
            input: Default::default(),
        };
        all.push(transaction.sign(&signer).await?.raw.clone().into());
    }
    Ok(all)
}

/// Sends an account's transactions; when the last was accepted, and when it was mined.
async fn run(host: String, account: usize, raws: Vec<Bytes>, last: u64) -> Result<[Instant; 2]> {
    let mut client = Client::connect(&host).await?;
    for raw in raws {
        client.call("eth_sendRawTransaction", json!([raw])).await?;
    }
    let accepted = Instant::now();
    let wallet = DEV_ACCOUNTS[account].address;
    loop {
        let nonce = client
            .call("eth_getTransactionCount", json!([wallet, "latest"]))
            .await?;
        let nonce: U256 = serde_json::from_value(nonce)?;
        if nonce >= U256::from(last) {
            return Ok([accepted, Instant::now()]);
        }
        if accepted.elapsed() > PATIENCE {
            return Err("the transfers are not mined".into());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Median, least and greatest.
fn spread(mut figures: Vec<f64>) -> String {
    figures.sort_by(f64::total_cmp);
    let at = |index: usize| figures.get(index).copied().unwrap_or_default();
    format!(
        "{:.0} ({:.0}..{:.0})",
        at(figures.len() / 2),
        at(0),
        at(figures.len().saturating_sub(1))
    )
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [rounds, transfers, nodes @ ..] = &arguments[..] else {
        return Err("rpc_bench ROUNDS TRANSFERS NAME=HOST:PORT…".into());
    };
    let rounds: u64 = rounds.parse()?;
    let each = transfers
        .parse::<u64>()?
        .div_ceil(DEV_ACCOUNTS.len() as u64);
    let total = (each * DEV_ACCOUNTS.len() as u64) as f64;
    let mut figures: Vec<[Vec<f64>; 2]> = nodes.iter().map(|_| Default::default()).collect();
    for round in 0..rounds {
        let mut raws = Vec::new();
        for account in 0..DEV_ACCOUNTS.len() {
            raws.push(signed(account, round * each, each).await?);
        }
        for (node, figures) in nodes.iter().zip(&mut figures) {
            let (_, host) = node.split_once('=').ok_or("NAME=HOST:PORT")?;
            let started = Instant::now();
            let mut senders = JoinSet::new();
            for (account, raws) in raws.iter().enumerate() {
                senders.spawn(run(
                    host.to_owned(),
                    account,
                    raws.clone(),
                    (round + 1) * each,
                ));
            }
            let mut ends = [started; 2];
            while let Some(sent) = senders.join_next().await {
                for (end, new) in ends.iter_mut().zip(sent??) {
                    *end = (*end).max(new);
                }
            }
            for (figures, end) in figures.iter_mut().zip(ends) {
                figures.push(total / (end - started).as_secs_f64());
            }
        }
    }
    for (node, [accepted, mined]) in nodes.iter().zip(figures) {
        println!(
            "{}: accepted {} per second, mined {} per second, of {rounds} rounds of {total}",
            node.split('=').next().unwrap_or_default(),
            spread(accepted),
            spread(mined)
        );
    }
    Ok(())
}
