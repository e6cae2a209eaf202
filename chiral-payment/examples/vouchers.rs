//! How many vouchers a core signs, verifies and journals in a second: those of one channel, 64
//! on their way at a time, as where each chunk is paid while others are being sent.
//!
//! ```text
//! cargo run --release -p chiral-payment --features chain --example vouchers [COUNT] [FOLDER]
//! ```

use std::error::Error;
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
use futures_util::future::try_join_all;

/// Vouchers on their way at a time.
const AT_ONCE: u64 = 64;

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

    let wallet = DEV_ACCOUNTS[0].signer();
    let voucher = |cumulative: u64| Voucher {
        channel: B256::repeat_byte(1),
        cumulative: cumulative.into(),
        context: B256::repeat_byte(2),
    };
    let clock = Clock::start("signed");
    let mut signatures = Vec::new();
    for n in 0..count {
        signatures.push(wallet.sign(voucher(n).digest(&domain)).await?);
    }
    clock.stop(count)?;
    let key = WalletKey::recover(voucher(0).digest(&domain), &signatures[0]).ok_or("no key")?;
    let clock = Clock::start("verified");
    for (n, signature) in (0..).zip(&signatures) {
        Proven::check(voucher(n), *signature, &key, &domain).ok_or("a signature")?;
    }
    clock.stop(count)?;

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
