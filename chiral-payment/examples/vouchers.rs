//! How many vouchers a core signs, verifies and journals in a second: those of one channel, 64
//! on their way at a time, as where each chunk is paid while others are being sent. Beside them
//! what k256 does by itself with hashes that are there already, in the same rounds: what a
//! processor lends out on one day is not what it lends on another.
//!
//! ```text
//! cargo run --release -p chiral-payment --features chain --example vouchers [COUNT] [FOLDER]
//! ```

use std::error::Error;
use std::hint::black_box;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_primitives::B256;
use chiral_chain::{ChainClient, ChainSpec, DEV_ACCOUNTS, EmbeddedChain, EmbeddedConfig};
use chiral_core::{PaymentSettler, WalletKey, WalletSigner};
use chiral_payment::channel::voucher::{ChannelDomain, Proven, Share, Voucher};
use chiral_payment::contracts::channels::CHANNELS;
use chiral_payment::settler::SettlerConfig;
use chiral_payment::{ChainSettler, Channels, ChannelsConfig, Journal};
use futures_util::FutureExt;
use futures_util::future::try_join_all;
use k256::ecdsa::signature::hazmat::{PrehashSigner, PrehashVerifier};
use k256::ecdsa::{Signature, SigningKey};

/// Vouchers on their way at a time.
const AT_ONCE: u64 = 64;

/// Rounds in which signatures are made and checked.
const ROUNDS: u64 = 7;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Seconds that this process has computed, on all cores; 0 where that cannot be asked.
fn computed() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may have spaces in it; in hundredths of a second.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let of = |index| fields.split_whitespace().nth(index)?.parse::<f64>().ok();
    of(11)
        .zip(of(12))
        .map_or(0.0, |(user, system)| (user + system) / 100.0)
}

/// Nanoseconds that this thread has computed; by the clock where that cannot be asked.
fn computed_here(since: Instant) -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = stat.split_whitespace().next();
    let first = first.and_then(|first| first.parse::<f64>().ok());
    first.unwrap_or_else(|| since.elapsed().as_secs_f64() * 1e9)
}

/// How often something was done per second of a core, in each round.
#[derive(Debug)]
struct Rates(&'static str, Vec<f64>);

impl Rates {
    fn of(what: &'static str) -> Self {
        Self(what, Vec::new())
    }

    /// One round: `work` for each of `count`.
    fn round(&mut self, count: u64, mut work: impl FnMut(u64) -> Outcome<()>) -> Outcome<()> {
        let begin = Instant::now();
        let before = computed_here(begin);
        for n in 0..count {
            work(n)?;
        }
        let seconds = (computed_here(begin) - before) / 1e9;
        self.1.push(count as f64 / seconds.max(1e-9));
        Ok(())
    }

    fn say(&self) -> std::io::Result<()> {
        let [least, median, most] = spread(&self.1);
        let what = self.0;
        writeln!(
            std::io::stdout(),
            "{what}: {median:.0} per second of a core [{least:.0} to {most:.0}]"
        )
    }

    /// This over what k256 does, round by round.
    fn beside(&self, raw: &Rates) -> std::io::Result<()> {
        let ratios: Vec<_> = self.1.iter().zip(&raw.1).map(|(a, b)| a / b).collect();
        let [least, median, most] = spread(&ratios);
        let (what, beside) = (self.0, raw.0);
        writeln!(
            std::io::stdout(),
            "{what} / {beside}: {median:.3} [{least:.3} to {most:.3}]"
        )
    }
}

/// Least, median and most.
fn spread(of: &[f64]) -> [f64; 3] {
    let mut sorted = of.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
    [
        at(0),
        at(sorted.len() / 2),
        at(sorted.len().saturating_sub(1)),
    ]
}

/// Signing and checking, ours and k256's in turns.
fn signatures(count: u64, domain: &ChannelDomain) -> Outcome<()> {
    let wallet = DEV_ACCOUNTS[0].signer();
    let raw_key = SigningKey::from_slice(wallet.to_secret_bytes().as_slice())?;
    let raw_check = *raw_key.verifying_key();
    let voucher = |cumulative: u64| Voucher {
        channel: B256::repeat_byte(1),
        cumulative: cumulative.into(),
        context: B256::repeat_byte(2),
    };
    let digests: Vec<B256> = (0..count).map(|n| voucher(n).digest(domain)).collect();
    let mut raw_recoverable = Rates::of("k256 signs, with the bit that recovers the key");
    let mut raw_plain = Rates::of("k256 signs");
    let mut signed = Rates::of("vouchers signed");
    let mut raw_verified = Rates::of("k256 verifies");
    let mut verified = Rates::of("vouchers verified");
    for _ in 0..ROUNDS {
        let mut signatures = Vec::with_capacity(digests.len());
        raw_recoverable.round(count, |n| {
            let digest = &digests[n as usize];
            black_box(raw_key.sign_prehash_recoverable(digest.as_slice())?);
            Ok(())
        })?;
        signed.round(count, |n| {
            let signing = wallet.sign(voucher(n).digest(domain));
            // Of a key in memory it is there at once.
            let signature = signing.now_or_never().ok_or("the wallet waits")?;
            signatures.push(signature?);
            Ok(())
        })?;
        let mut raw_signatures: Vec<Signature> = Vec::with_capacity(digests.len());
        raw_plain.round(count, |n| {
            raw_signatures.push(raw_key.sign_prehash(digests[n as usize].as_slice())?);
            Ok(())
        })?;
        raw_verified.round(count, |n| {
            let at = n as usize;
            Ok(raw_check.verify_prehash(digests[at].as_slice(), &raw_signatures[at])?)
        })?;
        let key = WalletKey::recover(digests[0], &signatures[0]).ok_or("no key")?;
        verified.round(count, |n| {
            let signature = signatures[n as usize];
            Proven::check(voucher(n), signature, &key, domain).ok_or("a signature")?;
            Ok(())
        })?;
    }
    for rates in [
        &raw_plain,
        &raw_recoverable,
        &signed,
        &raw_verified,
        &verified,
    ] {
        rates.say()?;
    }
    signed.beside(&raw_plain)?;
    signed.beside(&raw_recoverable)?;
    verified.beside(&raw_verified)?;
    Ok(())
}

struct Clock(&'static str, Instant, f64);

impl Clock {
    fn start(what: &'static str) -> Self {
        Self(what, Instant::now(), computed())
    }

    fn stop(self, count: u64) -> std::io::Result<()> {
        let (wall, core) = (self.1.elapsed().as_secs_f64(), computed() - self.2);
        let count = count as f64;
        let by_core = count / core.max(0.01);
        let by_wall = count / wall;
        let what = self.0;
        writeln!(
            std::io::stdout(),
            "{what}: {by_core:.0} per second of a core, {by_wall:.0} per second"
        )
    }
}

async fn house(
    account: usize,
    chain: &Arc<dyn ChainClient>,
    journal: &std::path::Path,
    domain: ChannelDomain,
) -> Outcome<(Channels, Arc<ChainSettler>)> {
    let journal = Journal::open(journal)?;
    let wallet: Arc<dyn WalletSigner> = Arc::new(DEV_ACCOUNTS[account].signer());
    let config = SettlerConfig::new(domain.chain_id(), chain.genesis_hash().await?)
        .with_gather(Duration::ZERO);
    let settler = ChainSettler::start(journal.clone(), chain.clone(), wallet.clone(), config);
    let settler = settler.await?;
    let config = ChannelsConfig::default();
    let channels = Channels::start(
        journal,
        wallet,
        chain.clone(),
        settler.clone(),
        domain,
        config,
    );
    Ok((channels.await?, settler))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let count: u64 = arguments.next().map_or(Ok(20_000), |count| count.parse())?;
    let folder = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = folder.join(format!("chiral-vouchers-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let spec = ChainSpec::devnet();
    let domain = ChannelDomain::new(spec.chain_id, CHANNELS);

    signatures(count / ROUNDS, &domain)?;

    let chain = EmbeddedChain::open(spec, EmbeddedConfig::default()).await?;
    let chain: Arc<dyn ChainClient> = Arc::new(chain);
    let (payer, payers) = house(0, &chain, &folder.join("payer"), domain).await?;
    let (payee, payees) = house(1, &chain, &folder.join("payee"), domain).await?;
    let (us, them) = (DEV_ACCOUNTS[0].address, DEV_ACCOUNTS[1].address);
    let id = payer.open(them, 3600, 1 << 60).await?;
    payer.ready(id).await?;
    let agreement = B256::repeat_byte(3);
    payee
        .bind(agreement, us, id, 60)
        .await?
        .ok_or("no channel")?;
    let share = |n: u64| Share {
        agreement,
        bytes: n * 262_144,
        amount: u128::from(n) * 1000,
    };
    let mut pays = Vec::new();
    let clock = Clock::start("promised, journalled and signed");
    for first in (0..count).step_by(AT_ONCE as usize) {
        let group = (first + 1..=count.min(first + AT_ONCE)).map(|n| payer.pay(id, share(n)));
        pays.extend(try_join_all(group).await?);
    }
    clock.stop(count)?;
    let clock = Clock::start("verified, journalled and taken");
    for group in pays.chunks(AT_ONCE as usize) {
        let amount = |bytes: u64| u128::from(bytes / 262_144) * 1000;
        try_join_all(group.iter().map(|pay| payee.take(pay, amount(pay.bytes)))).await?;
    }
    clock.stop(count)?;

    for house in [&payer, &payee] {
        house.shutdown().await?;
    }
    for settler in [payers, payees] {
        settler.shutdown().await?;
    }
    chain.shutdown().await?;
    std::fs::remove_dir_all(folder)?;
    Ok(())
}
