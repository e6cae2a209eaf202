//! [`Payments`]: wallet, gate, agent and settler over one journal.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use alloy_primitives::{Address, address};
use chiral_chain::{ChainClient, ChainError};
use chiral_core::{PaymentAgent, PaymentGate, PaymentSettler, Price, WalletSigner};
use redb::{ReadTransaction, TableDefinition, TableError, WriteTransaction};

use crate::agent::{AgentConfig, ChainAgent};
use crate::channel::{ChannelDomain, Channels, ChannelsConfig};
use crate::contracts::channels::CHANNELS;
use crate::gate::{ChainGate, GateConfig};
use crate::journal::{Journal, JournalError};
use crate::messages::{ChainFacts, Policy};
use crate::settler::{ChainSettler, PeerHeads, SettlerConfig, StartError};

/// Where `BatchPay` is on the development chain from its first block.
pub const BATCH_PAY: Address = address!("ba7c4000000000000000000000000000000c41a1");

/// The chain that the journal was begun on: id, hash of its first block, contract.
const CHAIN: TableDefinition<'static, (), (u64, [u8; 32], [u8; 20])> =
    TableDefinition::new("payments-chain");

/// Why payments could not be set up, or looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PaymentsError {
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The chain cannot be asked which one it is.
    #[error("the chain cannot be asked which one it is")]
    Chain(#[from] ChainError),
    /// The settler was not started.
    #[error(transparent)]
    Settler(#[from] StartError),
    /// The settler could not be ended.
    #[error(transparent)]
    Settle(#[from] chiral_core::SettleError),
}

impl PaymentsError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Journal(error) => error.is_retryable(),
            Self::Chain(error) => error.is_retryable(),
            Self::Settler(error) => error.is_retryable(),
            Self::Settle(error) => error.is_retryable(),
        }
    }
}

/// Settings of [`Payments`].
#[derive(Clone)]
#[non_exhaustive]
pub struct PaymentsConfig {
    wallet: Arc<dyn WalletSigner>,
    chain: Arc<dyn ChainClient>,
    journal: Option<PathBuf>,
    facts: Option<ChainFacts>,
    contracts: Contracts,
    /// What is asked for, and how much is lent.
    pub gate: GateConfig,
    /// What is bought.
    pub agent: AgentConfig,
    /// Channels, where a policy uses them.
    pub channels: ChannelsConfig,
    /// How is paid. Chain id, first block and contract are filled in at the start.
    pub settler: Option<SettlerConfig>,
}

impl fmt::Debug for PaymentsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PaymentsConfig")
            .field("wallet", &self.wallet.address())
            .field("journal", &self.journal)
            .finish_non_exhaustive()
    }
}

impl PaymentsConfig {
    /// From this wallet, on this chain. Everything is given away, nothing is bought that
    /// costs anything, and the journal is in memory, unless something else is said.
    pub fn new(wallet: Arc<dyn WalletSigner>, chain: Arc<dyn ChainClient>) -> Self {
        let agent = AgentConfig {
            max_price: Some(Price::FREE),
            ..AgentConfig::default()
        };
        Self {
            wallet,
            chain,
            journal: None,
            facts: None,
            contracts: Contracts::default(),
            gate: GateConfig::default(),
            agent,
            channels: ChannelsConfig::default(),
            settler: None,
        }
    }

    /// Asks this price for files for which no other is set.
    #[must_use]
    pub fn with_price(mut self, price: Price) -> Self {
        self.gate.price = price;
        self
    }

    /// Pays up to this price.
    #[must_use]
    pub fn with_max_price(mut self, price: Price) -> Self {
        self.agent.max_price = Some(price);
        self
    }

    /// Keeps the journal in this file.
    #[must_use]
    pub fn with_journal(mut self, path: impl Into<PathBuf>) -> Self {
        self.journal = Some(path.into());
        self
    }

    /// As [`PaymentsConfig::with_journal`], unless a file was named before.
    #[must_use]
    pub fn or_journal_at(mut self, path: impl Into<PathBuf>) -> Self {
        self.journal.get_or_insert_with(|| path.into());
        self
    }

    /// Which chain it has to be. Without that the chain is asked, or, while it is away, the
    /// journal.
    #[must_use]
    pub fn with_facts(mut self, facts: ChainFacts) -> Self {
        self.facts = Some(facts);
        self
    }

    /// Where the contracts are, on a chain that has them at other addresses than the development
    /// chain. Channels, once there are some, are of one contract: a journal is for one chain.
    #[must_use]
    pub fn with_contracts(mut self, contracts: Contracts) -> Self {
        self.contracts = contracts;
        self
    }

    /// When is paid for what is sold.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.gate.policy = policy;
        self
    }

    /// Under which policies is bought; under any, unless it is said.
    #[must_use]
    pub fn with_policies(mut self, policies: impl IntoIterator<Item = Policy>) -> Self {
        self.agent.policies = policies.into_iter().collect();
        self
    }

    /// The wallet.
    pub fn wallet(&self) -> &Arc<dyn WalletSigner> {
        &self.wallet
    }
}

/// Where the contracts of a chain are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contracts {
    /// `BatchPay`.
    pub batch_pay: Address,
    /// `Channels`; where the deterministic factory has put it, that is
    /// [`deployed_at`](crate::contracts::channels::deployed_at).
    pub channels: Address,
}

impl Default for Contracts {
    /// Where the development chain has them.
    fn default() -> Self {
        Self {
            batch_pay: BATCH_PAY,
            channels: CHANNELS,
        }
    }
}

/// Which chain it is: as it says, or, while it is away, as it said when the journal was begun.
/// Nothing is signed for another one in any case: the settler looks again before it pays.
async fn facts(
    chain: &dyn ChainClient,
    journal: &Journal,
    contracts: Contracts,
) -> Result<ChainFacts, PaymentsError> {
    let known = journal.read(read_facts).await?;
    let asked = async {
        Ok::<_, ChainError>(ChainFacts {
            chain_id: chain.chain_id().await?,
            genesis: chain.genesis_hash().await?,
            batch_pay: contracts.batch_pay,
        })
    };
    match (asked.await, known) {
        // Of another chain than the journal's: refused by the settler, and not written down.
        (Ok(facts), Some(_)) => Ok(facts),
        (Ok(facts), None) => {
            let write = move |step: &WriteTransaction| write_facts(step, facts);
            journal.write("payments-chain", write).await?;
            Ok(facts)
        }
        (Err(error), Some(known)) if error.is_retryable() => {
            tracing::info!(%error, "the chain is away; payments wait for it");
            Ok(known)
        }
        (Err(error), _) => Err(error.into()),
    }
}

fn read_facts(step: &ReadTransaction) -> Result<Option<ChainFacts>, JournalError> {
    let table = match step.open_table(CHAIN) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        other => other?,
    };
    let Some(stored) = table.get(())? else {
        return Ok(None);
    };
    let (chain_id, genesis, batch_pay) = stored.value();
    Ok(Some(ChainFacts {
        chain_id,
        genesis: genesis.into(),
        batch_pay: batch_pay.into(),
    }))
}

fn write_facts(step: &WriteTransaction, facts: ChainFacts) -> Result<(), JournalError> {
    let value = (
        facts.chain_id,
        facts.genesis.0,
        facts.batch_pay.into_array(),
    );
    step.open_table(CHAIN)?.insert((), value)?;
    Ok(())
}

/// Wallet, gate, agent and settler of a node, over one journal.
///
/// Must be [shut down](Payments::shutdown) for the journal to be let go.
#[derive(Clone)]
pub struct Payments {
    wallet: Arc<dyn WalletSigner>,
    chain: Arc<dyn ChainClient>,
    journal: Journal,
    facts: ChainFacts,
    gate: ChainGate,
    agent: ChainAgent,
    channels: Channels,
    settler: Arc<ChainSettler>,
    heads: PeerHeads,
    firm_depth: u64,
}

impl fmt::Debug for Payments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payments")
            .field("wallet", &self.wallet.address())
            .field("chain", &self.facts)
            .finish_non_exhaustive()
    }
}

impl Payments {
    /// Opens the journal and goes on where it ends. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// [`PaymentsError`]; then the journal is let go.
    pub async fn start(config: PaymentsConfig) -> Result<Self, PaymentsError> {
        let journal = match &config.journal {
            Some(path) => Journal::open(path)?,
            None => Journal::in_memory()?,
        };
        let facts = match config.facts {
            Some(facts) => Ok(facts),
            None => facts(&*config.chain, &journal, config.contracts).await,
        };
        let facts = match facts {
            Ok(facts) => facts,
            Err(error) => {
                journal.close().await;
                return Err(error);
            }
        };
        match Self::over(journal.clone(), facts, config).await {
            Ok(payments) => Ok(payments),
            Err(error) => {
                journal.close().await;
                Err(error)
            }
        }
    }

    async fn over(
        journal: Journal,
        facts: ChainFacts,
        config: PaymentsConfig,
    ) -> Result<Self, PaymentsError> {
        let PaymentsConfig {
            wallet,
            chain,
            gate,
            agent,
            channels,
            settler,
            contracts,
            ..
        } = config;
        let mut settings =
            settler.unwrap_or_else(|| SettlerConfig::new(facts.chain_id, facts.genesis));
        (settings.chain_id, settings.genesis) = (facts.chain_id, facts.genesis);
        // The settler looks whether the contract is there, each time.
        settings.batch_contract.get_or_insert(facts.batch_pay);
        let heads = settings.peer_heads.get_or_insert_default().clone();
        let firm_depth = settings.failed_after.max(settings.confirmations);
        let settler =
            ChainSettler::start(journal.clone(), chain.clone(), wallet.clone(), settings).await?;
        let domain = ChannelDomain::new(facts.chain_id, contracts.channels);
        let channels = Channels::start(
            journal.clone(),
            wallet.clone(),
            chain.clone(),
            settler.clone(),
            domain,
            channels,
        )
        .await?;
        let pays: Arc<dyn PaymentSettler> = settler.clone();
        let (log, ours) = (journal.clone(), Some(channels.clone()));
        let agent = ChainAgent::start_with(log, wallet.clone(), pays, facts, ours, agent).await?;
        let (log, ours) = (journal.clone(), Some(channels.clone()));
        let (payee, client) = (wallet.clone(), chain.clone());
        let gate = ChainGate::start_with(log, payee, client, facts, ours, gate).await?;
        Ok(Self {
            wallet,
            chain,
            journal,
            facts,
            gate,
            agent,
            channels,
            settler,
            heads,
            firm_depth,
        })
    }

    /// The chain that a journal is for; `None` if nothing is in it.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn chain_of(journal: &Journal) -> Result<Option<ChainFacts>, JournalError> {
        journal.read(read_facts).await
    }

    /// The wallet.
    pub fn wallet(&self) -> &Arc<dyn WalletSigner> {
        &self.wallet
    }

    /// The chain.
    pub fn chain(&self) -> &Arc<dyn ChainClient> {
        &self.chain
    }

    /// Which chain it is.
    pub fn facts(&self) -> ChainFacts {
        self.facts
    }

    /// What decides who is served.
    pub fn gate(&self) -> Arc<dyn PaymentGate> {
        Arc::new(self.gate.clone())
    }

    /// What buys.
    pub fn agent(&self) -> Arc<dyn PaymentAgent> {
        Arc::new(self.agent.clone())
    }

    /// What pays.
    pub fn settler(&self) -> Arc<dyn PaymentSettler> {
        self.settler.clone()
    }

    /// Where to note what other nodes say of the chain: while most have another one, payments
    /// are held.
    pub fn peer_heads(&self) -> &PeerHeads {
        &self.heads
    }

    /// How deep a block is, its own included, that this node tells others to be firm.
    pub fn firm_depth(&self) -> u64 {
        self.firm_depth
    }

    /// The journal, which all of them share.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The gate by its own type: prices, exposure.
    pub fn chain_gate(&self) -> &ChainGate {
        &self.gate
    }

    /// The agent by its own type.
    pub fn chain_agent(&self) -> &ChainAgent {
        &self.agent
    }

    /// The channels that this node pays out of, and is paid out of.
    pub fn channels(&self) -> &Channels {
        &self.channels
    }

    /// The settler by its own type.
    pub fn chain_settler(&self) -> &Arc<ChainSettler> {
        &self.settler
    }

    /// Writes down what is not durable yet, ends what runs in the background, and lets go of
    /// the journal; idempotent.
    ///
    /// # Errors
    /// The first failure, after everything has been tried.
    pub async fn shutdown(&self) -> Result<(), PaymentsError> {
        let gate = self.gate.shutdown().await;
        let agent = self.agent.shutdown().await;
        let channels = self.channels.shutdown().await;
        let settler = self.settler.shutdown().await;
        self.journal.close().await;
        gate?;
        agent?;
        channels?;
        settler?;
        Ok(())
    }
}
