//! The process ends right before or after each durable step.

use alloy_primitives::B256;
use chiral_chain::Sealing;
use chiral_core::{Bill, PaymentSettler};
use chiral_payment::ChainSettler;
use chiral_payment::journal::{Crash, CrashSide, CrashStep};

use crate::rig::{
    Line, assert_paid_once, bill, config, embedded, end, journal, payee, settled, wallet,
};

/// A batch of two, then one bill alone. False if the process died.
async fn run(settler: &ChainSettler, bills: &[Bill]) -> bool {
    for call in [&bills[..2], &bills[2..]] {
        if settler.settle(call.to_vec()).await.is_err() {
            return false;
        }
        for bill in call {
            let waited =
                tokio::time::timeout(std::time::Duration::from_secs(30), settler.wait(bill.id));
            if waited.await.expect("settled or dead within 30 s").is_err() {
                return false;
            }
        }
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bill_is_paid_once_wherever_the_process_ends() {
    let mut crashes = 0;
    for number in 1.. {
        let mut survived = 0;
        for side in [CrashSide::Before, CrashSide::After] {
            let chain = embedded(Sealing::OnDemand).await;
            let line = Line::to(chain.clone());
            let folder = tempfile::tempdir().unwrap();
            let bills = [bill(1, payee(1)), bill(2, payee(2)), bill(3, payee(1))];
            let first = journal(folder.path());
            let step = CrashStep::Number(number);
            first.crash(Crash { side, step });
            let started =
                ChainSettler::start(first.clone(), line.clone(), wallet(), config()).await;
            if let Ok(settler) = started {
                survived += usize::from(run(&settler, &bills).await);
                settler.shutdown().await.unwrap();
            }
            first.close().await;

            let second = journal(folder.path());
            let settler = ChainSettler::start(second.clone(), line.clone(), wallet(), config());
            let settler = settler.await.unwrap();
            assert!(run(&settler, &bills).await, "nothing crashes any more");
            let transactions: Vec<B256> = settled(&settler, &bills).await;
            let when = format!("after a crash {side:?} step {number}");
            assert_paid_once(&chain, &bills, &when).await;
            // One settlement a bill: nothing but these transactions left the wallet.
            let mut distinct = transactions.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(sent_by_wallet(&line).await, distinct.len(), "{when}");
            end(&settler, &second).await;
            crashes += 1;
        }
        if survived == 2 {
            break;
        }
    }
    println!("{crashes} runs with a crash, or without one at the end");
    assert!(crashes > 20, "the steps were not all reached: {crashes}");
}

async fn sent_by_wallet(line: &Line) -> usize {
    use chiral_chain::{BlockId, ChainClient};
    let wallet = chiral_core::WalletSigner::address(&*wallet());
    let nonce = line.chain().nonce(wallet, BlockId::Latest).await.unwrap();
    nonce as usize
}
