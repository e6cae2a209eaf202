//! Payment as the architecture spells it out: a transaction on the chain, whose hash comes with
//! the request for the chunk.

use std::sync::Arc;

use chiral::core::{ByteRange, PaymentAgent, Purchase, TransferError, TransferRegistry};
use chiral::payment::FreeGate;
use chiral::payment::messages::{Message, Policy};
use chiral::protocols::private::{ChunkRequest, PrivateConfig, PrivateProtocol, Want};
use chiral::{ContentProtocol, Loopback, PeerOffer, Share};

use super::{CHUNK, asking, buyer, price};
use crate::support::{data, within};

struct Customer {
    agent: Arc<dyn PaymentAgent>,
    private: PrivateProtocol,
    purchase: Purchase,
}

impl Customer {
    fn offer(&self) -> &PeerOffer {
        &self.purchase.offer
    }

    /// The first chunks, so many, each in a request of its own; the payment goes with the first.
    async fn ask(
        &self,
        chunks: u64,
        proof: Option<bytes::Bytes>,
    ) -> Vec<Result<(bytes::Bytes, bytes::Bytes), TransferError>> {
        let mut wants = Vec::new();
        for chunk in 0..chunks {
            let range = ByteRange::new(chunk * CHUNK, (chunk + 1) * CHUNK);
            let credential = self.agent.credential(&self.purchase, range);
            wants.push(Want {
                offset: range.start,
                length: CHUNK,
                credential: credential.await.unwrap(),
                sealed: false,
            });
        }
        let request = ChunkRequest {
            wants,
            payment_proof: proof,
        };
        let cid = self.purchase.cid;
        let answers = self.private.request_chunks(self.offer(), cid, request);
        let answers = within(answers).await.unwrap().into_iter();
        answers
            .map(|answer| answer.map(|(said, data)| (said.payment_answer, data)))
            .collect()
    }

    fn terms(answer: &Result<(bytes::Bytes, bytes::Bytes), TransferError>) -> bytes::Bytes {
        match answer {
            Err(TransferError::PaymentRequired { offer, .. }) => offer.clone(),
            other => panic!("{other:?}"),
        }
    }

    async fn respond(&self, message: bytes::Bytes) -> Option<bytes::Bytes> {
        within(self.agent.respond(&self.purchase, message))
            .await
            .unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_proof_of_payment_for_what_it_pays_and_once() {
    let network = Loopback::start().await.unwrap();
    let content = data(6 * CHUNK as usize);
    let mut payments = asking(network.payments(1), Policy::PayFirst);
    payments.gate.prepay_bytes = CHUNK;
    let builder = network.node(1).without_http().payments(payments);
    let builder = builder.private(PrivateConfig::default());
    let seller = within(builder.start()).await.unwrap();
    let shared = within(seller.share(Share::bytes(content.clone()))).await;
    let cid = shared.unwrap().cid();
    let buyer = buyer(&network, 2).await;
    let found = async {
        loop {
            if let Some(offer) = buyer.seeders(cid).await.unwrap().pop() {
                return offer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let offer = within(found).await;
    let private = PrivateProtocol::start(
        PrivateConfig::default().fetch_only(),
        buyer.libp2p().unwrap().network(),
        buyer.store().clone(),
        TransferRegistry::new(),
        Arc::new(FreeGate::default()),
    );
    let customer = Customer {
        agent: buyer.payments().unwrap().agent(),
        private: private.await.unwrap(),
        purchase: Purchase::new(cid, offer).with_root_known(true),
    };

    // The quote, and the agreement.
    let terms = Customer::terms(&customer.ask(1, None).await[0]);
    let accept = customer.respond(terms).await.unwrap();
    let said = customer.private.payment_message(customer.offer(), accept);
    let said = within(said).await.unwrap();
    assert_eq!(customer.respond(said).await, None);
    // Nothing comes before it is paid for.
    let due = Customer::terms(&customer.ask(1, None).await[0]);
    let before = seller.balance().await.unwrap();
    let proof = customer.respond(due).await.unwrap();
    let Ok(Message::Notice(notice)) = Message::decode(&proof) else {
        panic!("not a notice");
    };
    let paid = seller.balance().await.unwrap() - before;
    assert_eq!(paid, notice.body.amount);
    let chunks = notice.body.bytes / CHUNK;
    assert_eq!(price().cost(notice.body.bytes), Some(paid));

    // The transaction's hash goes with the request, and what it pays for comes.
    let answers = customer.ask(2, Some(proof.clone())).await;
    let (receipt, first) = answers[0].as_ref().unwrap();
    let of_receipt = match Message::decode(receipt).unwrap() {
        Message::Receipt(receipt) => receipt.body,
        other => panic!("{other:?}"),
    };
    assert_eq!(of_receipt.transaction, notice.body.transaction);
    assert_eq!(first, &content[..CHUNK as usize]);
    let (none, second) = answers[1].as_ref().unwrap();
    assert!(none.is_empty());
    assert_eq!(second, &content[CHUNK as usize..2 * CHUNK as usize]);
    customer.respond(receipt.clone()).await;

    // It is proof of one payment however often it is shown: no more than was paid for comes.
    let mut had = 2;
    while had < chunks {
        let more = customer.ask(1, Some(proof.clone())).await;
        assert!(more[0].is_ok(), "{had} of {chunks}");
        had += 1;
    }
    Customer::terms(&customer.ask(1, Some(proof)).await[0]);
    // Another transaction is none.
    let mut forged = Message::Notice(notice).encode().to_vec();
    let at = forged.len() / 2;
    forged[at] ^= 1;
    let refused = customer.ask(1, Some(forged.into())).await;
    assert!(refused[0].is_err(), "{refused:?}");
    assert_eq!(seller.balance().await.unwrap() - before, paid);
    customer.private.shutdown().await.unwrap();
    within(buyer.shutdown()).await.unwrap();
    within(seller.shutdown()).await.unwrap();
    network.shutdown().await;
}
