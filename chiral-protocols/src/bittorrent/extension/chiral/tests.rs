use super::*;
use ed25519_dalek::{Signer, SigningKey};
use proptest::prelude::*;

#[derive(Debug)]
struct Key(SigningKey);

impl Key {
    fn new(seed: u8) -> Self {
        Self(SigningKey::from_bytes(&[seed; 32]))
    }
}

impl PeerSigner for Key {
    fn peer_id(&self) -> PeerId {
        PeerId::from_bytes(&[&[0, 36][..], &self.public_key()].concat()).unwrap()
    }

    fn public_key(&self) -> Vec<u8> {
        [ED25519, self.0.verifying_key().as_bytes()].concat()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PeerSignError> {
        Ok(self.0.sign(message).to_bytes().to_vec())
    }
}

fn greeting(key: &Key, nonce: u8) -> Greeting {
    Greeting {
        peer: key.peer_id(),
        wallet: Some(Address::from([nonce; 20])),
        nonce: [nonce; 32],
    }
}

#[test]
fn a_proof_holds_for_its_connection_and_no_other() {
    let (key, other) = (Key::new(1), Key::new(2));
    let (signer, verifier) = (greeting(&key, 1), greeting(&other, 2));
    let statement = Statement {
        signer: &signer,
        signer_id: [1; 20],
        verifier: &verifier,
        verifier_id: [2; 20],
        info_hash: [3; 20],
    };
    let proof = statement.sign(&key).unwrap();
    assert_eq!(statement.check(&proof), Ok(()));

    let bad = Err(HelloError::Signature);
    let nonce = Greeting {
        nonce: [9; 32],
        ..signer.clone()
    };
    assert_eq!(
        Statement {
            signer: &nonce,
            ..statement.clone()
        }
        .check(&proof),
        bad
    );
    let wallet = Greeting {
        wallet: None,
        ..signer.clone()
    };
    assert_eq!(
        Statement {
            signer: &wallet,
            ..statement.clone()
        }
        .check(&proof),
        bad
    );
    let nonce = Greeting {
        nonce: [9; 32],
        ..verifier.clone()
    };
    assert_eq!(
        Statement {
            verifier: &nonce,
            ..statement.clone()
        }
        .check(&proof),
        bad
    );
    assert_eq!(
        Statement {
            signer_id: [9; 20],
            ..statement.clone()
        }
        .check(&proof),
        bad
    );
    assert_eq!(
        Statement {
            verifier_id: [9; 20],
            ..statement.clone()
        }
        .check(&proof),
        bad
    );
    assert_eq!(
        Statement {
            info_hash: [9; 20],
            ..statement.clone()
        }
        .check(&proof),
        bad
    );
    // Sent back to its maker.
    let back = Statement {
        signer: &verifier,
        signer_id: [2; 20],
        verifier: &signer,
        verifier_id: [1; 20],
        info_hash: [3; 20],
    };
    assert_eq!(back.check(&proof), Err(HelloError::Key));
    // Somebody else's peer id.
    let stolen = Greeting {
        peer: other.peer_id(),
        ..signer.clone()
    };
    assert_eq!(
        Statement {
            signer: &stolen,
            ..statement.clone()
        }
        .check(&proof),
        Err(HelloError::Key)
    );
    let rsa = Greeting {
        peer: PeerId::from_bytes(&[0x12; 34]).unwrap(),
        ..signer.clone()
    };
    assert_eq!(
        Statement {
            signer: &rsa,
            ..statement.clone()
        }
        .check(&proof),
        Err(HelloError::Kind)
    );
    let short = Proof {
        signature: Bytes::from_static(&[1; 63]),
        ..proof
    };
    assert_eq!(statement.check(&short), bad);
}

#[test]
fn what_is_too_long_or_malformed_is_refused() {
    let long = |len: usize| {
        let mut body = format!("d1:b{len}:").into_bytes();
        body.extend(vec![0; len]);
        body.extend(b"1:qi1e1:ti1ee");
        ChiralMessage::decode(&body)
    };
    assert!(long(MAX_CHIRAL_BODY).is_ok_and(|message| message.is_some()));
    assert!(long(MAX_CHIRAL_BODY + 1).is_err());
    for bad in [
        &b"d1:ti1e1:b1:xe"[..],
        b"d1:b1:x1:qi-1e1:ti1ee",
        b"d1:b1:x1:qi1e1:ti1eetrailing",
        b"d1:ti0ee",
        b"de",
        b"x",
    ] {
        assert!(
            ChiralMessage::decode(bad).is_err(),
            "{}",
            String::from_utf8_lossy(bad)
        );
    }
    assert_eq!(ChiralMessage::decode(b"d1:ti77ee"), Ok(None));
}

proptest! {
    #[test]
    fn messages_come_back(question: u32, kind in 0..10, start in 0..i64::MAX as u64 - 1, a in proptest::collection::vec(any::<u8>(), 0..64),
        b in proptest::collection::vec(any::<u8>(), 0..64)) {
        let message = match kind {
            0 => ChiralMessage::Proof(Proof { key: a.into(), signature: b.into() }),
            1 => ChiralMessage::Payment { question, body: a.into() },
            2 => ChiralMessage::Answer { question, body: Some(a.into()) },
            3 => ChiralMessage::AskHeader { question },
            4 => ChiralMessage::AskPage { question, index: !question },
            5 => ChiralMessage::Answer { question, body: None },
            6 => ChiralMessage::Admit {
                question,
                range: ByteRange::new(start, start + 1),
                credential: Some(a.into()),
            },
            7 => ChiralMessage::Admit {
                question,
                range: ByteRange::new(start / 2, start + 1),
                credential: None,
            },
            8 => ChiralMessage::Release { range: ByteRange::new(start, start + 1) },
            _ => ChiralMessage::AskTariff { question },
        };
        prop_assert_eq!(ChiralMessage::decode(&message.encode()), Ok(Some(message)));
    }

    #[test]
    fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = ChiralMessage::decode(&body);
        let _ = Admitted::decode(&body.clone().into());
        let _ = read_tariff(&body);
    }

    #[test]
    fn what_is_answered_about_money_comes_back(reason in "\\PC{0,100}", retryable: bool,
        terms in proptest::collection::vec(any::<u8>(), 0..64), price: u128, wallet in any::<Option<[u8; 20]>>()) {
        for answer in [
            Admitted::Granted,
            Admitted::PaymentRequired(terms.into()),
            Admitted::Refused { reason, retryable },
        ] {
            prop_assert_eq!(Admitted::decode(&answer.encode()), Some(answer));
        }
        let price = Price::from_wei_per_mib(U256::from(price));
        let wallet = wallet.map(Address::from).filter(|_| !price.is_free());
        let tariff = Tariff { price, wallet };
        prop_assert_eq!(read_tariff(&write_tariff(&tariff)), Some(tariff));
    }
}

#[test]
fn ranges_of_nothing_and_below_it_are_refused() {
    for bad in [
        &b"d1:ei5e1:qi1e1:si5e1:ti5ee"[..],
        b"d1:ei4e1:qi1e1:si5e1:ti5ee",
        b"d1:ei4e1:qi1e1:si-1e1:ti5ee",
        b"d1:ei4e1:si4e1:ti6ee",
        b"d1:ei4e1:ti6ee",
        b"d1:ti7ee",
    ] {
        assert!(ChiralMessage::decode(bad).is_err());
    }
    assert_eq!(Admitted::decode(&Bytes::from_static(b"\x00x")), None);
    assert_eq!(Admitted::decode(&Bytes::from_static(b"\x04")), None);
    assert_eq!(read_tariff(&[1; 20]), None);
    assert_eq!(read_tariff(&[2, 1]), None);
    assert_eq!(read_tariff(&[&[0][..], &[1; 33]].concat()), None);
}
