//! [`Responder`]: the side that was dialled, and is told of the torrent under a mark.

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
        shared: Box<[u8; DH_LEN]>,
    },
    /// For the mark of the torrent.
    Torrent {
        shared: Box<[u8; DH_LEN]>,
    },
    /// For what it offers.
    Offer {
        ciphers: Box<Ciphers>,
        info_hash: [u8; 20],
    },
    /// For the end of its second padding, and the length of its payload.
    Pad {
        ciphers: Box<Ciphers>,
        info_hash: [u8; 20],
        rc4: bool,
        len: usize,
    },
    /// For its payload.
    Payload {
        ciphers: Box<Ciphers>,
        info_hash: [u8; 20],
        rc4: bool,
        len: usize,
    },
    Over,
}

/// The side that was dialled.
#[derive(Debug)]
pub struct Responder {
    secret: DhSecret,
    padding: Vec<u8>,
    methods: Methods,
    pending: BytesMut,
    state: State,
}

impl Responder {
    /// Waits for the other side.
    pub fn new(random: &Randomness, methods: Methods) -> Self {
        Self {
            secret: DhSecret::new(random.secret),
            padding: random.padding().to_vec(),
            methods,
            pending: BytesMut::new(),
            state: State::Key,
        }
    }

    /// Takes bytes that came in. `torrents` are the info-hashes of those that this side has.
    ///
    /// # Errors
    /// [`MseError`]; the connection is of no use any more.
    pub fn handle(&mut self, bytes: &[u8], torrents: &[[u8; 20]]) -> Result<Step, MseError> {
        self.pending.extend_from_slice(bytes);
        let mut send = Vec::new();
        loop {
            match std::mem::replace(&mut self.state, State::Over) {
                State::Key => {
                    let Some(public) = self.pending.first_chunk::<DH_LEN>() else {
                        self.state = State::Key;
                        return Ok(Step::More(send));
                    };
                    let shared = Box::new(self.secret.shared(public)?);
                    self.pending.advance(DH_LEN);
                    send.extend(self.secret.public());
                    send.append(&mut self.padding);
                    self.state = State::Sync { shared };
                }
                State::Sync { shared } => {
                    let mark = hash(&[b"req1", &shared[..]]);
                    let Some(at) = find(&self.pending, &mark, MAX_PAD)? else {
                        self.state = State::Sync { shared };
                        return Ok(Step::More(send));
                    };
                    self.pending.advance(at + mark.len());
                    self.state = State::Torrent { shared };
                }
                State::Torrent { shared } => {
                    let Some(mark) = self.pending.first_chunk::<20>() else {
                        self.state = State::Torrent { shared };
                        return Ok(Step::More(send));
                    };
                    let is_it = |info_hash: &&[u8; 20]| torrent_mark(&shared, info_hash) == *mark;
                    let info_hash = *torrents.iter().find(is_it).ok_or(MseError::Torrent)?;
                    self.pending.advance(20);
                    let ciphers = Box::new(Ciphers::of_responder(&shared, &info_hash));
                    self.state = State::Offer { ciphers, info_hash };
                }
                State::Offer {
                    mut ciphers,
                    info_hash,
                } => {
                    let Some(fields) = self.pending.first_chunk::<14>() else {
                        self.state = State::Offer { ciphers, info_hash };
                        return Ok(Step::More(send));
                    };
                    let fields = ciphers.incoming.applied(fields);
                    self.pending.advance(14);
                    if fields[..8] != VC {
                        return Err(MseError::Malformed);
                    }
                    let offered =
                        u32::from_be_bytes([fields[8], fields[9], fields[10], fields[11]]);
                    let rc4 = self.methods.choose(offered).ok_or(MseError::Method)?;
                    let len = usize::from(u16::from_be_bytes([fields[12], fields[13]]));
                    if len > MAX_PAD {
                        return Err(MseError::Malformed);
                    }
                    self.state = State::Pad {
                        ciphers,
                        info_hash,
                        rc4,
                        len,
                    };
                }
                State::Pad {
                    mut ciphers,
                    info_hash,
                    rc4,
                    len,
                } => {
                    if self.pending.len() < len + 2 {
                        self.state = State::Pad {
                            ciphers,
                            info_hash,
                            rc4,
                            len,
                        };
                        return Ok(Step::More(send));
                    }
                    let mut pad = self.pending.split_to(len + 2);
                    ciphers.incoming.apply(&mut pad);
                    let len = usize::from(u16::from_be_bytes([pad[len], pad[len + 1]]));
                    if len > MAX_PAD {
                        return Err(MseError::Malformed);
                    }
                    self.state = State::Payload {
                        ciphers,
                        info_hash,
                        rc4,
                        len,
                    };
                }
                State::Payload {
                    mut ciphers,
                    info_hash,
                    rc4,
                    len,
                } => {
                    if self.pending.len() < len {
                        self.state = State::Payload {
                            ciphers,
                            info_hash,
                            rc4,
                            len,
                        };
                        return Ok(Step::More(send));
                    }
                    // The payload is under the cipher whatever was chosen; what follows it not.
                    let mut rest = self.pending.split();
                    let under = if rc4 { rest.len() } else { len };
                    ciphers.incoming.apply(&mut rest[..under]);
                    let mut fields = VC.to_vec();
                    let chosen = if rc4 { Methods::RC4 } else { Methods::PLAIN };
                    fields.extend(chosen.to_be_bytes());
                    fields.extend([0, 0]);
                    ciphers.outgoing.apply(&mut fields);
                    send.extend(fields);
                    return Ok(Step::Done(Box::new(Done {
                        send,
                        ciphers: rc4.then_some(*ciphers),
                        rest,
                        info_hash,
                    })));
                }
                State::Over => return Err(MseError::Malformed),
            }
        }
    }
}
