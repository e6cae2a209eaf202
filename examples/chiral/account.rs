//! The wallet and the chain that a command was told of.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chiral::chain::{CHIRAL_CHAIN_ID, ChainClient, PrivateKey, RpcChain, RpcConfig, keystore};
use chiral::core::Address;
use chiral::payment::PaymentsConfig;

use super::arguments::Account;
use super::failure::{Exit, Failure};

/// Name of the journal in a data directory, as the library has it, too.
pub(crate) const JOURNAL: &str = "payments.redb";

/// Longest password file that is read, in bytes.
const MAX_PASSWORD_FILE: u64 = 4096;

impl Account {
    /// The wallet; `None` if none was named.
    pub(crate) fn wallet(&self) -> Result<Option<PrivateKey>, Failure> {
        if let Some(text) = &self.private_key {
            let key = PrivateKey::from_hex(text).map_err(|error| {
                Failure::new(Exit::Usage, format!("the private key is none: {error}"))
            })?;
            return Ok(Some(key));
        }
        let Some(file) = &self.keystore else {
            return Ok(None);
        };
        let password = password(self.password_file.as_deref(), false)?;
        Ok(Some(keystore::read(file, &password)?))
    }

    /// The address of the wallet that was named, if one was; no password is needed for that.
    pub(crate) fn named_wallet(&self) -> Result<Option<Address>, Failure> {
        match &self.keystore {
            Some(file) => Ok(Some(keystore::address(file)?)),
            None => Ok(self.wallet()?.map(|wallet| wallet.address())),
        }
    }

    /// The wallet, which the command cannot do without.
    pub(crate) fn needed_wallet(&self) -> Result<PrivateKey, Failure> {
        self.wallet()?.ok_or_else(|| {
            Failure::new(Exit::Usage, "no wallet was named").next(
                "name one with --keystore FILE or --private-key HEX; `chiral wallet new` makes one",
            )
        })
    }

    /// A client of the chain's node, which need not be there yet; `None` if none was named.
    pub(crate) fn client(&self) -> Result<Option<Arc<dyn ChainClient>>, Failure> {
        let Some(url) = &self.chain else {
            return Ok(None);
        };
        let config = RpcConfig::default().with_expected_chain_id(CHIRAL_CHAIN_ID);
        let client = RpcChain::new(url, config).map_err(|error| {
            Failure::new(Exit::Usage, error.to_string())
                .next("name the chain's node by its URL, such as http://127.0.0.1:8545/")
        })?;
        Ok(Some(Arc::new(client)))
    }

    /// As [`Account::client`], for commands that cannot do without.
    pub(crate) fn needed_client(&self) -> Result<Arc<dyn ChainClient>, Failure> {
        self.client()?.ok_or_else(|| {
            Failure::new(Exit::Usage, "no chain was named")
                .next("name its node with --chain URL; `chiral chain` runs one to try things on")
        })
    }
}

impl Account {
    /// Settings of payments, which need wallet and chain; `None` if neither was named. The
    /// journal is in the named data directory, or where all commands find that of the wallet.
    pub(crate) fn payments(
        &self,
        data_dir: Option<&Path>,
    ) -> Result<Option<PaymentsConfig>, Failure> {
        let (wallet, chain) = match (self.wallet()?, self.client()?) {
            (None, None) => return Ok(None),
            (Some(wallet), Some(chain)) => (wallet, chain),
            (None, Some(_)) => {
                self.needed_wallet()?;
                return Ok(None);
            }
            (Some(_), None) => {
                self.needed_client()?;
                return Ok(None);
            }
        };
        let journal = match data_dir {
            Some(directory) => directory.join(JOURNAL),
            None => wallets_directory()?.join(format!("{}.redb", wallet.address())),
        };
        if let Some(directory) = journal.parent() {
            std::fs::create_dir_all(directory)
                .map_err(|error| Failure::io("make", directory, &error))?;
        }
        Ok(Some(
            PaymentsConfig::new(Arc::new(wallet), chain).with_journal(journal),
        ))
    }
}

/// Where the journals of wallets are, unless a data directory was named.
pub(crate) fn wallets_directory() -> Result<PathBuf, Failure> {
    Ok(default_directory()?.join("wallets"))
}

/// Where the XDG base directory specification wants a user's data.
pub(crate) fn default_directory() -> Result<PathBuf, Failure> {
    let absolute = |name| {
        let path = std::env::var_os(name).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    };
    let data = absolute("XDG_DATA_HOME");
    data.or_else(|| Some(absolute("HOME")?.join(".local/share")))
        .map(|data| data.join("chiral"))
        .ok_or_else(|| {
            Failure::new(Exit::Failed, "there is no HOME to keep the node's state in")
                .next("name a directory with --data-dir DIR")
        })
}

/// A password: the first line of a file, or what is typed; a new one twice.
pub(crate) fn password(file: Option<&Path>, new: bool) -> Result<String, Failure> {
    if let Some(file) = file {
        let failed = |error| Failure::io("read", file, &error);
        if std::fs::metadata(file).map_err(failed)?.len() > MAX_PASSWORD_FILE {
            let message = format!("{} is too long for a password file", file.display());
            return Err(Failure::new(Exit::Usage, message));
        }
        let text = std::fs::read_to_string(file).map_err(failed)?;
        return Ok(text.lines().next().unwrap_or_default().to_owned());
    }
    if !std::io::stdin().is_terminal() {
        return Err(
            Failure::new(Exit::Usage, "there is nobody to ask for the password")
                .next("put it into the first line of a file and name that with --password-file"),
        );
    }
    let ask = |prompt: &str| {
        rpassword::prompt_password(prompt)
            .map_err(|error| Failure::new(Exit::Failed, format!("no password: {error}")))
    };
    let password = ask("Password of the keystore: ")?;
    if new && ask("The same again: ")? != password {
        return Err(Failure::new(Exit::Usage, "the two passwords differ"));
    }
    Ok(password)
}
