use std::sync::LazyLock;

use chiral_core::conformance::wallet::{FixedKeySigner, high_s_twin};
use chiral_core::{BillId, ByteRange, Price, RangeSet, WalletSigner};
use proptest::prelude::*;

use super::*;

const CHAIN: ChainFacts = ChainFacts {
    chain_id: 98_765,
    genesis: B256::repeat_byte(0x1f),
    batch_pay: Address::repeat_byte(0xba),
};

fn concessions() -> Concessions {
    let discount = |i: u64| Discount {
        from_bytes: i << 30,
        price: Price::from_wei_per_mib(U256::from(100 - i)),
    };
    let discounts = (1..=MAX_DISCOUNTS as u64).map(discount).collect();
    Concessions::new(1 << 20, discounts).unwrap()
}

fn quote() -> Quote {
    Quote {
        id: B256::repeat_byte(1),
        cid: Cid::from_bytes([7; 32]),
        payer: FixedKeySigner::numbered(1).address(),
        payee: FixedKeySigner::numbered(2).address(),
        price: "0.001".parse::<Price>().unwrap(),
        concessions: concessions(),
        answers: B256::repeat_byte(6),
        policy: Policy::PayAfter,
        credit_limit: U256::from(1_000_000),
        prepay_bytes: 1 << 20,
        confirmations: 1,
        chain: CHAIN,
        channel: crate::channel::ChannelTerms::default(),
        valid_until: 1_800_000_000,
    }
}

async fn all() -> Vec<Message> {
    let (buyer, seeder) = (FixedKeySigner::numbered(1), FixedKeySigner::numbered(2));
    let agreement = B256::repeat_byte(3);
    let quote = Signed::sign(quote(), &CHAIN, &seeder).await.unwrap();
    let accept = Accept {
        quote: quote.digest(&CHAIN),
        payer: buyer.address(),
        session_key: FixedKeySigner::numbered(3).address(),
    };
    let accept = Signed::sign(accept, &CHAIN, &buyer).await.unwrap();
    let offer = CounterOffer {
        quote: quote.digest(&CHAIN),
        payer: buyer.address(),
        price: "0.0005".parse::<Price>().unwrap(),
    };
    let offer = Signed::sign(offer, &CHAIN, &buyer).await.unwrap();
    let request = Request {
        agreement,
        counter: 9,
        range: ByteRange::new(5, u64::MAX),
    };
    let ranges: RangeSet = (0..MAX_ACK_RANGES as u64)
        .map(|i| ByteRange::new(i << 40, (i << 40) + (1 << 39)))
        .collect();
    let ack = Ack {
        agreement,
        sequence: 2,
        total: ranges.len() + 1,
        ranges,
    };
    let notice = Notice {
        agreement,
        sequence: 0,
        bytes: 5,
        amount: U256::MAX,
        transaction: B256::repeat_byte(9),
    };
    let receipt = Receipt {
        bill: BillId(B256::repeat_byte(4)),
        payer: buyer.address(),
        payee: seeder.address(),
        cid: Cid::from_bytes([7; 32]),
        bytes: 5,
        amount: U256::MAX,
        transaction: B256::repeat_byte(9),
        time: u64::MAX,
    };
    let channels = about_channels(agreement, &buyer, &seeder).await;
    let mut all = vec![
        Message::QuoteRequest {
            cid: Cid::from_bytes([7; 32]),
            payer: buyer.address(),
        },
        Message::Quote(quote.clone()),
        Message::CounterOffer {
            offer,
            quote: quote.clone(),
        },
        Message::Accept { accept, quote },
        Message::Accepted { agreement },
        Message::Request(Signed::sign(request, &CHAIN, &buyer).await.unwrap()),
        Message::Ack(Signed::sign(ack, &CHAIN, &buyer).await.unwrap()),
        Message::Acked {
            agreement,
            sequence: 7,
        },
        Message::Due {
            agreement,
            amount: U256::from(5),
            prepay_bytes: 0,
        },
        Message::Notice(Signed::sign(notice, &CHAIN, &buyer).await.unwrap()),
        Message::Receipt(Signed::sign(receipt, &CHAIN, &seeder).await.unwrap()),
        Message::NotYet {
            retry_after: Duration::from_millis(1500),
        },
        Message::Ended { agreement },
        Message::Refused {
            reason: "a wei too small".into(),
        },
    ];
    all.extend(channels.into_iter().map(Message::Channel));
    all
}

async fn about_channels(
    agreement: B256,
    buyer: &FixedKeySigner,
    seeder: &FixedKeySigner,
) -> Vec<ChannelMessage> {
    use crate::channel::messages::{Bind, Leave, Pay, PayLocked, Reopen, Seal};
    let channel = B256::repeat_byte(0xcc);
    let cumulative = u128::MAX;
    let domain = crate::channel::ChannelDomain::new(1, CHAIN.batch_pay);
    let signature = buyer.sign(agreement).await.unwrap();
    let mut pay = Pay {
        agreement,
        bytes: u64::MAX,
        channel,
        cumulative,
        signature,
    };
    let mut lock = PayLocked {
        agreement,
        counter: 5,
        bytes: 6,
        channel,
        cumulative,
        key_hash: agreement,
        expiry: u64::MAX,
        signature,
    };
    assert_ne!(
        pay.voucher().digest(&domain),
        lock.voucher().digest(&domain)
    );
    pay.signature = buyer.sign(pay.voucher().digest(&domain)).await.unwrap();
    lock.signature = buyer.sign(lock.voucher().digest(&domain)).await.unwrap();
    let seal = Seal {
        agreement,
        counter: 5,
        range: ByteRange::new(1, 7),
        key_hash: agreement,
        data: channel,
    };
    let (bind, leave) = (Bind { agreement, channel }, Leave { agreement, channel });
    let counter = 5;
    let reopen = Reopen { agreement, counter };
    let close = crate::channel::Close { channel, paid: 9 };
    let left = seeder.sign(close.digest(&domain)).await.unwrap();
    vec![
        ChannelMessage::Bind(Signed::sign(bind, &CHAIN, buyer).await.unwrap()),
        ChannelMessage::Bound {
            agreement,
            channel,
            deposit: cumulative,
        },
        ChannelMessage::Pay(pay),
        ChannelMessage::Paid {
            agreement,
            bytes: 6,
        },
        ChannelMessage::Seal(Signed::sign(seal, &CHAIN, seeder).await.unwrap()),
        ChannelMessage::Lock(lock),
        ChannelMessage::PayAndLock(pay, lock),
        ChannelMessage::Key {
            agreement,
            key: channel,
        },
        ChannelMessage::Reopen(Signed::sign(reopen, &CHAIN, buyer).await.unwrap()),
        ChannelMessage::Leave(Signed::sign(leave, &CHAIN, buyer).await.unwrap()),
        ChannelMessage::Left(close, left),
    ]
}

#[tokio::test]
async fn messages_come_back_within_the_limit() {
    for message in all().await {
        let bytes = message.encode();
        assert!(bytes.len() <= MAX_PAYMENT_MESSAGE, "{message:?}");
        assert_eq!(Message::decode(&bytes), Ok(message));
    }
}

#[tokio::test]
async fn a_message_is_nothing_with_a_byte_more_or_fewer() {
    for message in all().await {
        let mut bytes = message.encode().to_vec();
        bytes.push(0);
        assert!(Message::decode(&bytes).is_err(), "{message:?} and a byte");
        for length in 0..bytes.len() - 1 {
            assert!(
                Message::decode(&bytes[..length]).is_err(),
                "{length} bytes of {message:?}"
            );
        }
    }
}

#[tokio::test]
async fn signatures_are_of_one_form_and_one_chain() {
    let (seeder, stranger) = (FixedKeySigner::numbered(2), FixedKeySigner::numbered(4));
    let signed = Signed::sign(quote(), &CHAIN, &seeder).await.unwrap();
    assert!(signed.is_by(seeder.address(), &CHAIN));
    assert!(!signed.is_by(stranger.address(), &CHAIN));
    assert!(!signed.is_by(Address::ZERO, &CHAIN));
    for other in [
        ChainFacts {
            chain_id: 1,
            ..CHAIN
        },
        ChainFacts {
            batch_pay: Address::ZERO,
            ..CHAIN
        },
    ] {
        assert!(!signed.is_by(seeder.address(), &other), "{other:?}");
    }
    let bytes = Message::Quote(signed.clone()).encode().to_vec();
    let at = bytes.len() - SIGNATURE;
    for signature in [[0; SIGNATURE], high_s_twin(*signed.signature.as_bytes()), {
        let mut v = *signed.signature.as_bytes();
        v[64] += 27;
        v
    }] {
        let mut bytes = bytes.clone();
        bytes[at..].copy_from_slice(&signature);
        assert!(Message::decode(&bytes).is_err(), "{signature:?}");
    }
}

/// Whether every word in a message is by whom it has to be; none in those that nobody signs.
fn is_genuine(message: &Message) -> bool {
    use crate::channel::{ChannelDomain, ChannelMessage};
    let [buyer, seeder] = [1, 2].map(|n| FixedKeySigner::numbered(n).address());
    let domain = ChannelDomain::new(1, CHAIN.batch_pay);
    let verify = |of, digest, signature| chiral_core::wallet::verify(of, digest, signature);
    match message {
        Message::Quote(quote) => quote.is_by(seeder, &CHAIN),
        Message::CounterOffer { offer, quote } => {
            offer.is_by(buyer, &CHAIN) && quote.is_by(seeder, &CHAIN)
        }
        Message::Accept { accept, quote } => {
            accept.is_by(buyer, &CHAIN) && quote.is_by(seeder, &CHAIN)
        }
        Message::Request(request) => request.is_by(buyer, &CHAIN),
        Message::Ack(ack) => ack.is_by(buyer, &CHAIN),
        Message::Notice(notice) => notice.is_by(buyer, &CHAIN),
        Message::Receipt(receipt) => receipt.is_by(seeder, &CHAIN),
        Message::Channel(message) => match message {
            ChannelMessage::Bind(bind) => bind.is_by(buyer, &CHAIN),
            ChannelMessage::Pay(pay) => {
                verify(buyer, pay.voucher().digest(&domain), &pay.signature)
            }
            ChannelMessage::Seal(seal) => seal.is_by(seeder, &CHAIN),
            // Its counter is where to look for the key, whose hash is signed: another leads
            // to a key that does not fit.
            ChannelMessage::Lock(lock) => {
                lock.counter == 5 && verify(buyer, lock.voucher().digest(&domain), &lock.signature)
            }
            ChannelMessage::PayAndLock(pay, lock) => {
                lock.counter == 5
                    && verify(buyer, pay.voucher().digest(&domain), &pay.signature)
                    && verify(buyer, lock.voucher().digest(&domain), &lock.signature)
            }
            ChannelMessage::Reopen(reopen) => reopen.is_by(buyer, &CHAIN),
            ChannelMessage::Leave(leave) => leave.is_by(buyer, &CHAIN),
            ChannelMessage::Left(close, signature) => {
                verify(seeder, close.digest(&domain), signature)
            }
            _ => false,
        },
        _ => false,
    }
}

/// Everything that is signed is under its signature: a bit anywhere, and nobody has said it.
#[tokio::test]
async fn a_change_anywhere_in_a_signed_word_is_nobodys_word() {
    let all = all().await;
    let signed: Vec<&Message> = all.iter().filter(|message| is_genuine(message)).collect();
    assert_eq!(signed.len(), 15, "each kind that is signed");
    for message in signed {
        let bytes = message.encode().to_vec();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                if let Ok(read) = Message::decode(&changed) {
                    assert!(!is_genuine(&read), "bit {bit} of byte {at}: {message:?}");
                }
            }
        }
    }
}

#[test]
fn a_reason_is_short_and_printable() {
    let reason = "a\u{1b}[31m".to_owned() + &"é!".repeat(MAX_REASON);
    let bytes = Message::Refused { reason }.encode();
    let Ok(Message::Refused { reason }) = Message::decode(&bytes) else {
        panic!("refused");
    };
    assert_eq!(reason.len(), MAX_REASON);
    assert!(reason.starts_with("a[31m!!"));
}

#[test]
fn the_domain_is_the_one_that_is_documented() {
    let expected =
        "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)";
    assert_eq!(CHAIN.domain().encode_type(), expected);
}

/// Each kind of message once, as bytes.
static GOOD: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let all = runtime.block_on(all());
    all.iter()
        .map(|message| message.encode().to_vec())
        .collect()
});

proptest! {
    /// A byte changed, cut out or put in: whatever is read then is said in no other way.
    #[test]
    fn what_is_almost_a_message_does_not_panic_and_has_one_encoding(
        which in any::<prop::sample::Index>(),
        changes in proptest::collection::vec(
            (any::<prop::sample::Index>(), any::<u8>(), 0u8..4),
            1..4,
        ),
    ) {
        let mut bytes = GOOD[which.index(GOOD.len())].clone();
        for (at, byte, how) in changes {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match how {
                0 | 1 => bytes[at] = byte,
                2 => bytes.insert(at, byte),
                _ => {
                    bytes.remove(at);
                }
            }
        }
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(message.encode(), bytes);
        }
    }

    #[test]
    fn no_bytes_panic_and_each_message_has_one_encoding(
        tag in 0u8..32,
        bytes in proptest::collection::vec(prop_oneof![Just(0), any::<u8>()], 0..700),
    ) {
        let bytes: Vec<u8> = std::iter::once(tag).chain(bytes).collect();
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(message.encode(), bytes);
        }
    }
}
