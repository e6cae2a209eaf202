use super::*;
use proptest::prelude::*;

const HASH: [u8; 20] = [7; 20];

fn random(seed: u8, pad_len: u16) -> Randomness {
    let mut secret = [seed; 20];
    secret[3] = !seed;
    Randomness {
        secret,
        pad_len,
        pad: [seed.wrapping_add(1); MAX_PAD],
    }
}

/// Lets both sides talk, each byte stream cut in parts of this length.
fn meet(
    a: Encryption,
    b: Encryption,
    pads: (u16, u16),
    cut: usize,
    torrents: &[[u8; 20]],
) -> Result<(Done, Done), MseError> {
    let (mut initiator, mut to_b) =
        Initiator::new(&random(1, pads.0), HASH, Methods::of(a), b"the handshake");
    let mut responder = Responder::new(&random(2, pads.1), Methods::of(b));
    let (mut to_a, mut done_a, mut done_b) = (Vec::new(), None, None);
    while done_a.is_none() || done_b.is_none() {
        assert!(
            !to_a.is_empty() || !to_b.is_empty(),
            "they wait for each other"
        );
        for part in std::mem::take(&mut to_b).chunks(cut) {
            match responder.handle(part, torrents)? {
                Step::More(send) => to_a.extend(send),
                Step::Done(done) => {
                    to_a.extend(&done.send);
                    done_b = Some(*done);
                }
            }
        }
        for part in std::mem::take(&mut to_a).chunks(cut) {
            match initiator.handle(part)? {
                Step::More(send) => to_b.extend(send),
                Step::Done(done) => {
                    to_b.extend(&done.send);
                    done_a = Some(*done);
                }
            }
        }
    }
    Ok((done_a.unwrap(), done_b.unwrap()))
}

#[test]
fn the_method_is_the_cheapest_that_both_allow() {
    use Encryption::{Prefer, Require};
    for (a, b, rc4) in [
        (Prefer, Prefer, false),
        (Prefer, Require, true),
        (Require, Prefer, true),
        (Require, Require, true),
    ] {
        let (done_a, done_b) = meet(a, b, (0, 0), 10_000, &[[1; 20], HASH]).unwrap();
        assert_eq!(
            (done_a.ciphers.is_some(), done_b.ciphers.is_some()),
            (rc4, rc4)
        );
        assert_eq!(
            (&done_b.rest[..], done_b.info_hash),
            (&b"the handshake"[..], HASH)
        );
    }
    assert_eq!(
        Methods::of(Encryption::Require).choose(Methods::PLAIN),
        None
    );
    assert_eq!(Methods::of(Encryption::Prefer).accept(3), None);
    assert_eq!(Methods::of(Encryption::Prefer).accept(0), None);
    assert_eq!(Methods::of(Encryption::Require).accept(1), None);
}

#[test]
fn an_unknown_torrent_is_refused() {
    let result = meet(
        Encryption::Prefer,
        Encryption::Prefer,
        (5, 5),
        10_000,
        &[[1; 20]],
    );
    assert_eq!(result.err(), Some(MseError::Torrent));
}

#[test]
fn keys_outside_the_group_are_refused() {
    let secret = DhSecret::new([9; 20]);
    let mut one = [0; DH_LEN];
    one[DH_LEN - 1] = 1;
    let prime = "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A63A36210000000000090563";
    let mut prime: Vec<u8> = (0..DH_LEN)
        .map(|i| u8::from_str_radix(&prime[2 * i..2 * i + 2], 16).unwrap())
        .collect();
    let full = [0xff; DH_LEN];
    for key in [[0; DH_LEN], one, full, prime.clone().try_into().unwrap()] {
        assert_eq!(secret.shared(&key), Err(MseError::Key));
    }
    prime[DH_LEN - 1] -= 1;
    assert_eq!(
        secret.shared(&prime.clone().try_into().unwrap()),
        Err(MseError::Key)
    );
    prime[DH_LEN - 1] -= 1;
    assert!(secret.shared(&prime.try_into().unwrap()).is_ok());
    let other = DhSecret::new([8; 20]);
    assert_eq!(
        secret.shared(&other.public()),
        other.shared(&secret.public())
    );
}

#[test]
fn endless_padding_is_not_waited_through() {
    let mut responder = Responder::new(&random(2, 0), Methods::of(Encryption::Prefer));
    let key = DhSecret::new([3; 20]).public();
    responder.handle(&key, &[HASH]).unwrap();
    let mut came = 0;
    let ended = loop {
        came += 1;
        if let Err(error) = responder.handle(&[0xaa], &[HASH]) {
            break error;
        }
        assert!(came <= MAX_PAD + 20);
    };
    assert_eq!((ended, came), (MseError::Sync, MAX_PAD + 20));
    let (mut initiator, _) = Initiator::new(&random(1, 0), HASH, Methods(3), b"");
    initiator.handle(&key).unwrap();
    assert_eq!(
        initiator.handle(&[0xaa; MAX_PAD + 8]).err(),
        Some(MseError::Sync)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn both_sides_meet_whatever_the_padding_and_the_cuts(
        pad_a in 0u16..=512, pad_b in 0u16..=512, cut in 1usize..900, require: bool,
        text in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let a = if require { Encryption::Require } else { Encryption::Prefer };
        let (a, b) = meet(a, Encryption::Prefer, (pad_a, pad_b), cut, &[HASH]).unwrap();
        prop_assert_eq!(&b.rest[..], &b"the handshake"[..]);
        if let (Some(mut a), Some(mut b)) = (a.ciphers, b.ciphers) {
            let mut bytes = text.clone();
            a.outgoing.apply(&mut bytes);
            b.incoming.apply(&mut bytes);
            prop_assert_eq!(&bytes, &text);
            b.outgoing.apply(&mut bytes);
            a.incoming.apply(&mut bytes);
            prop_assert_eq!(&bytes, &text);
        }
    }

    #[test]
    fn no_bytes_panic_or_pile_up(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..12)) {
        let mut responder = Responder::new(&random(2, 9), Methods(3));
        let (mut initiator, _) = Initiator::new(&random(1, 9), HASH, Methods(3), b"x");
        let mut fed = 0;
        for part in parts {
            fed += part.len();
            let a = initiator.handle(&part);
            let b = responder.handle(&part, &[HASH]);
            prop_assert!(a.is_err() || fed <= MAX_PENDING);
            prop_assert!(b.is_err() || fed <= MAX_PENDING);
        }
    }
}
