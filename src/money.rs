//! What a node earns, spends and asks for.

use chiral_chain::{BlockId, ChainClient, RpcChain, RpcConfig};
use chiral_core::{Cid, Price, U256, WalletSigner};
use chiral_payment::{Payments, PaymentsConfig, PaymentsError, Statement};
use std::sync::Arc;

use crate::{BuildError, Node, NodeBuilder, NodeError};

impl NodeBuilder {
    /// Pays and is paid from a wallet, on the chain whose node answers JSON-RPC at `url`. The
    /// node has to be reachable at the first start; later ones find in the journal which chain
    /// it is. Free until prices are set: see
    /// [`NodeBuilder::payments`] for all settings.
    ///
    /// # Errors
    /// [`BuildError::Url`] if that is no URL of a node.
    pub fn external_chain(
        self,
        url: &str,
        wallet: Arc<dyn WalletSigner>,
    ) -> Result<Self, BuildError> {
        let config = RpcConfig::default().with_expected_chain_id(chiral_chain::CHIRAL_CHAIN_ID);
        let chain: Arc<dyn ChainClient> = Arc::new(RpcChain::new(url, config)?);
        Ok(self.payments(PaymentsConfig::new(wallet, chain)))
    }
}

/// The price is on disk before anybody hears of it.
pub(crate) async fn keep_price(
    payments: &Payments,
    cid: Cid,
    price: Price,
) -> Result<(), NodeError> {
    let gate = payments.chain_gate();
    gate.set_price(cid, price);
    Ok(gate.keep_terms().await.map_err(PaymentsError::from)?)
}

impl Node {
    /// Wallet, gate, agent and settler, if the node was built with payments.
    pub fn payments(&self) -> Option<&Payments> {
        self.inner().payments.as_ref()
    }

    fn needed_payments(&self) -> Result<&Payments, NodeError> {
        self.check_open()?;
        self.payments().ok_or(NodeError::NoPayments)
    }

    /// What the wallet has, in wei, as of the newest block.
    ///
    /// # Errors
    /// [`NodeError::NoPayments`]; the chain cannot be asked.
    pub async fn balance(&self) -> Result<U256, NodeError> {
        let payments = self.needed_payments()?;
        let wallet = payments.wallet().address();
        Ok(payments.chain().balance(wallet, BlockId::Latest).await?)
    }

    /// What was earned and spent, and what is owed: bill by bill, the newest first.
    ///
    /// # Errors
    /// [`NodeError::NoPayments`]; the journal cannot be read.
    pub async fn statement(&self) -> Result<Statement, NodeError> {
        let statement = self.needed_payments()?.statement().await;
        Ok(statement.map_err(PaymentsError::from)?)
    }

    /// Asks this price for a file from now on, over restarts too if the journal is in a file,
    /// and announces it if the file is shared. What was quoted before holds until it expires.
    ///
    /// # Errors
    /// [`NodeError::NoPayments`]; the journal fails; the file is shared and cannot be announced.
    pub async fn set_price(&self, cid: Cid, price: Price) -> Result<(), NodeError> {
        keep_price(self.needed_payments()?, cid, price).await?;
        crate::share::announce_again(self, cid).await
    }

    /// What is asked for a file.
    pub fn price(&self, cid: Cid) -> Price {
        self.gate().tariff(cid).price
    }
}
