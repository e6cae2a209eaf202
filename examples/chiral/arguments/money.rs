//! What can be said of money: wallets, terms, payments, channels, receipts.

use std::net::SocketAddr;
use std::path::PathBuf;

use chiral::Price;
use chiral::core::{Address, B256};
use chiral::payment::messages::Discount;
use clap::{Args, Subcommand, ValueEnum};

/// Whose money it is, and on which chain
#[derive(Debug, Args)]
pub(crate) struct Account {
    /// URL of the chain's node (JSON-RPC), as `chiral chain` prints it
    #[arg(long, value_name = "URL")]
    pub(crate) chain: Option<String>,
    /// Key of the wallet in hexadecimal
    ///
    /// Others on this machine may see what is on a command line: for real money use
    /// --keystore, or the variable CHIRAL_PRIVATE_KEY.
    #[arg(
        long,
        value_name = "HEX",
        env = "CHIRAL_PRIVATE_KEY",
        hide_env_values = true,
        conflicts_with = "keystore"
    )]
    pub(crate) private_key: Option<String>,
    /// File of the wallet (Web3 Secret Storage, as geth and MetaMask write it)
    #[arg(long, value_name = "FILE")]
    pub(crate) keystore: Option<PathBuf>,
    /// File with the keystore's password in its first line; without it, it is asked for
    #[arg(long, value_name = "FILE", requires = "keystore")]
    pub(crate) password_file: Option<PathBuf>,
}

/// Where the contracts are, on a chain that has them elsewhere than that of `chiral chain`
#[derive(Debug, Args)]
pub(crate) struct Contracts {
    /// Address of `Channels`
    #[arg(long, value_name = "ADDRESS", requires = "chain")]
    pub(crate) channels_contract: Option<Address>,
    /// Address of `BatchPay`
    #[arg(long, value_name = "ADDRESS", requires = "chain")]
    pub(crate) batch_contract: Option<Address>,
}

/// When is paid
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// When the file has come; the seeder lends a little
    PayAfter,
    /// Before it comes, some MiB at a time
    PayFirst,
    /// Every few chunks, by transactions, or out of a channel if there is one
    Incremental,
    /// Chunk by chunk, out of a channel
    Channel,
    /// Sealed chunks, each for its key, out of a channel; over the private protocol only
    LockedVoucher,
}

/// On what terms files are sold
#[derive(Debug, Args)]
pub(crate) struct Terms {
    /// When to be paid
    #[arg(long, value_enum, default_value = "pay-after", requires = "price")]
    pub(crate) policy: When,
    /// The lowest price that a buyer who asks for another gets; without it, no bargaining
    #[arg(long, value_name = "CHI_PER_MIB", requires = "price")]
    pub(crate) floor: Option<Price>,
    /// A lower price from some MiB of a file on, such as 100:0.0005; may be repeated, rising
    #[arg(long = "discount", value_name = "MIB:CHI_PER_MIB", requires = "price", value_parser = crate::terms::discount)]
    pub(crate) discounts: Vec<Discount>,
    /// MiB that each wallet has for nothing, once
    #[arg(long, value_name = "MIB", requires = "price")]
    pub(crate) free: Option<u32>,
    /// MiB of each file that each wallet has for nothing, instead
    #[arg(long, value_name = "MIB", requires = "price", conflicts_with = "free")]
    pub(crate) free_per_file: Option<u32>,
    /// Most MiB that are given away in a day to all wallets together: they are free to make
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    pub(crate) free_per_day: u32,
    /// Shortest time for which a buyer's channel has to stay open after it begins to end, in
    /// seconds: this node claims within it, so it must not be away for longer
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u32).range(60..=2_592_000))]
    pub(crate) challenge: u32,
}

/// Show channels and what can be claimed from them; open, claim and end them
///
/// A running `share` or `get` has its wallet's channels open, claims before a challenge ends,
/// and takes back what is left; use these commands while it does not run.
#[derive(Debug, Args)]
pub(crate) struct Channels {
    #[command(subcommand)]
    pub(crate) command: Option<ChannelsCommand>,
    #[command(flatten)]
    pub(crate) place: ChannelsPlace,
}

/// Whose channels
#[derive(Debug, Args)]
pub(crate) struct ChannelsPlace {
    #[command(flatten)]
    pub(crate) account: Account,
    #[command(flatten)]
    pub(crate) contracts: Contracts,
    /// The node's directory, where one was named to share or get
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ChannelsCommand {
    /// Show them; no chain is asked
    List(ChannelsPlace),
    /// Put money into a channel to somebody
    Open {
        /// To whom: an address 0x…
        #[arg(value_name = "ADDRESS")]
        to: Address,
        /// How much, in CHI; what is not paid comes back
        #[arg(long, value_name = "CHI", value_parser = chiral::core::money::parse_chi)]
        deposit: chiral::core::U256,
        /// How long the payee has to claim once it is to end, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u32).range(60..=2_592_000))]
        challenge: u32,
        #[command(flatten)]
        place: ChannelsPlace,
    },
    /// Begin to end a channel: what the payee does not claim in time comes back
    ///
    /// What is left is taken back by `channels watch`, or by the node, after the challenge.
    Close {
        /// Which, as `chiral channels` shows it
        #[arg(value_name = "CHANNEL")]
        channel: B256,
        #[command(flatten)]
        place: ChannelsPlace,
    },
    /// Claim what others have paid
    Claim {
        /// Which; all, without it
        #[arg(value_name = "CHANNEL")]
        channel: Option<B256>,
        #[command(flatten)]
        place: ChannelsPlace,
    },
    /// Look after them until Ctrl-C: claim before a challenge ends, take back what is left
    Watch(ChannelsPlace),
}

/// Run a chain on this machine, to try payments on
///
/// It has the id of the real one (98765), ten accounts with money whose keys everybody knows,
/// and blocks that are made as soon as there is a transaction. Never use its keys elsewhere.
#[derive(Debug, Args)]
pub(crate) struct Chain {
    /// Address to serve JSON-RPC at
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8545")]
    pub(crate) rpc: SocketAddr,
    /// Directory to keep the chain in; without it, it is gone when this ends
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// Make a wallet, look at it, and send money from it
#[derive(Debug, Args)]
pub(crate) struct Wallet {
    #[command(subcommand)]
    pub(crate) command: WalletCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WalletCommand {
    /// Make a new key and keep it in a keystore file
    New(NewWallet),
    /// Put a key, read from standard input in hexadecimal, into a keystore file
    Import(NewWallet),
    /// Print the address of a wallet
    Show(Account),
    /// Print the balance of a wallet, or of any address
    Balance(Balance),
    /// Send money
    Send(Send),
}

#[derive(Debug, Args)]
pub(crate) struct NewWallet {
    /// File to write, which must not exist
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// File with the password in its first line; without it, it is asked for
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Balance {
    /// Whose; without it, the wallet's own
    #[arg(value_name = "ADDRESS")]
    pub(crate) address: Option<String>,
    #[command(flatten)]
    pub(crate) account: Account,
}

#[derive(Debug, Args)]
pub(crate) struct Send {
    /// To whom: an address 0x…
    #[arg(value_name = "ADDRESS")]
    pub(crate) to: String,
    /// How much, in CHI
    #[arg(value_name = "CHI", value_parser = chiral::core::money::parse_chi)]
    pub(crate) amount: chiral::core::U256,
    #[command(flatten)]
    pub(crate) account: Account,
}

/// Show what was earned and spent, and what is still owed
#[derive(Debug, Args)]
pub(crate) struct Payments {
    #[command(flatten)]
    pub(crate) account: Account,
    /// Pay what is owed before showing it
    #[arg(long)]
    pub(crate) settle: bool,
    /// Add it up instead of showing each bill
    #[arg(long, value_enum)]
    pub(crate) by: Option<By>,
    /// The node's directory, where one was named to share or get
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// By what payments are added up
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum By {
    File,
    Peer,
    Protocol,
    Day,
}

/// Write down, for a third party, what one bill was for and that it was paid
///
/// The wallet signs which chunks came. The file has to be there, complete; its bytes are not in
/// what is written.
#[derive(Debug, Args)]
pub(crate) struct Prove {
    /// The bill, as `chiral payments` shows it
    #[arg(value_name = "BILL")]
    pub(crate) bill: B256,
    /// The file that was paid for
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Where to write the proof
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) account: Account,
    /// The node's directory, where one was named to get
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// Check what `prove` has written: no wallet, chain or network is needed
#[derive(Debug, Args)]
pub(crate) struct VerifyReceipt {
    /// What `prove` has written
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}
