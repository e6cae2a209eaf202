//! [`Initiator`]: the side that dialled.

use bytes::{Buf, BytesMut};

use super::cipher::{find, hash, torrent_mark};
use super::dh::{DH_LEN, DhSecret};
use super::{Ciphers, Done, MAX_PAD, Methods, MseError, Randomness, Step, VC};

#[derive(Debug)]
enum State {
    /// For the other side's public key.
    Key,
    /// For the end of its padding.
    Sync {
        ciphers: Box<Ciphers>,
        mark: Vec<u8>,
    },
    /// For what it chose.
    Choice {
        ciphers: Box<Ciphers>,
    },
    /// For the end of its second padding.
    Pad {
        ciphers: Box<Ciphers>,
        rc4: bool,
        len: usize,
    },
    Over,
}

/// The side that dialled and knows the torrent.
#[derive(Debug)]
pub struct Initiator {
    secret: DhSecret,
    info_hash: [u8; 20],
    methods: Methods,
    payload: Vec<u8>,
    pending: BytesMut,
    state: State,
}

impl Initiator {
    /// Begins: what is to be sent first comes with it. `payload`, at most [`MAX_PAD`] bytes, goes
    /// along under the cipher: the BitTorrent handshake.
    pub fn new(
        random: &Randomness,
        info_hash: [u8; 20],
        methods: Methods,
        payload: &[u8],
    ) -> (Self, Vec<u8>) {
        let secret = DhSecret::new(random.secret);
        let send = [&secret.public()[..], random.padding()].concat();
        let initiator = Self {
            secret,
            info_hash,
            methods,
            payload: payload[..payload.len().min(MAX_PAD)].to_vec(),
            pending: BytesMut::new(),
            state: State::Key,
        };
        (initiator, send)
    }

    /// Takes bytes that came in.
    ///
    /// # Errors
    /// [`MseError`]; the connection is of no use any more.
    pub fn handle(&mut self, bytes: &[u8]) -> Result<Step, MseError> {
        self.pending.extend_from_slice(bytes);
        let mut send = Vec::new();
        loop {
            match std::mem::replace(&mut self.state, State::Over) {
                State::Key => {
                    let Some(public) = self.pending.first_chunk::<DH_LEN>() else {
                        self.state = State::Key;
                        return Ok(Step::More(send));
                    };
                    let shared = self.secret.shared(public)?;
                    self.pending.advance(DH_LEN);
                    let mut ciphers = Box::new(Ciphers::of_initiator(&shared, &self.info_hash));
                    send.extend(hash(&[b"req1", &shared]));
                    send.extend(torrent_mark(&shared, &self.info_hash));
                    let mut fields = VC.to_vec();
                    fields.extend(self.methods.0.to_be_bytes());
                    fields.extend([0, 0]);
                    fields.extend((self.payload.len() as u16).to_be_bytes());
                    fields.extend_from_slice(&self.payload);
                    ciphers.outgoing.apply(&mut fields);
                    send.extend(fields);
                    // The first bytes that come under the cipher are known.
                    let mut again = Ciphers::of_initiator(&shared, &self.info_hash);
                    let mark = again.incoming.applied(&VC);
                    self.state = State::Sync { ciphers, mark };
                }
                State::Sync { mut ciphers, mark } => {
                    let Some(at) = find(&self.pending, &mark, MAX_PAD)? else {
                        self.state = State::Sync { ciphers, mark };
                        return Ok(Step::More(send));
                    };
                    self.pending.advance(at + mark.len());
                    ciphers.incoming.apply(&mut [0; VC.len()]);
                    self.state = State::Choice { ciphers };
                }
                State::Choice { mut ciphers } => {
                    let Some(fields) = self.pending.first_chunk::<6>() else {
                        self.state = State::Choice { ciphers };
                        return Ok(Step::More(send));
                    };
                    let fields = ciphers.incoming.applied(fields);
                    self.pending.advance(6);
                    let chosen = u32::from_be_bytes([fields[0], fields[1], fields[2], fields[3]]);
                    let rc4 = self.methods.accept(chosen).ok_or(MseError::Method)?;
                    let len = usize::from(u16::from_be_bytes([fields[4], fields[5]]));
                    if len > MAX_PAD {
                        return Err(MseError::Malformed);
                    }
                    self.state = State::Pad { ciphers, rc4, len };
                }
                State::Pad {
                    mut ciphers,
                    rc4,
                    len,
                } => {
                    if self.pending.len() < len {
                        self.state = State::Pad { ciphers, rc4, len };
                        return Ok(Step::More(send));
                    }
                    let mut pad = self.pending.split_to(len);
                    ciphers.incoming.apply(&mut pad);
                    let mut rest = self.pending.split();
                    if rc4 {
                        ciphers.incoming.apply(&mut rest);
                    }
                    return Ok(Step::Done(Box::new(Done {
                        send,
                        ciphers: rc4.then_some(*ciphers),
                        rest,
                        info_hash: self.info_hash,
                    })));
                }
                State::Over => return Err(MseError::Malformed),
            }
        }
    }
}
