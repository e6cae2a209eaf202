//! The suites of [`PaymentGate`] and [`PaymentAgent`]: what holds whatever they ask for,
//! and what holds for those that ask for nothing.

use bytes::Bytes;
use futures_util::future::join_all;

use crate::payment_gate::MAX_PAYMENT_MESSAGE;
use crate::{
    Admission, ByteRange, Cid, Endpoint, GateError, PaymentAgent, PaymentGate, PeerOffer, Protocol,
    Purchase, ServeRequest,
};

/// What no payment side has ever said.
const NONSENSE: &[&[u8]] = &[b"", b"\0", b"{}", &[0xff; 64], &[0xff; MAX_PAYMENT_MESSAGE]];

/// A request for one chunk of a file.
pub fn request(credential: Option<Bytes>) -> ServeRequest {
    let range = ByteRange::new(0, 262_144);
    let mut request = ServeRequest::new(Cid::from_bytes([7; 32]), range, Protocol::Http);
    request.credential = credential;
    request
}

/// A free offer from nobody in particular.
pub fn free_offer() -> PeerOffer {
    let endpoint = Endpoint::new("http://192.0.2.1/").expect("printable and short");
    PeerOffer::new(Protocol::Http, endpoint)
}

/// Any gate: nonsense does it no harm and buys nothing, and what it sends is within the
/// limit.
pub async fn any_gate(gate: &dyn PaymentGate) {
    let before = admit(gate, &request(None)).await;
    for message in NONSENSE {
        let result = gate.message(Bytes::from_static(message)).await;
        let refused = matches!(result, Err(GateError::Message { .. }));
        assert!(refused, "{} bytes of nonsense: {result:?}", message.len());

        let request = request(Some(Bytes::from_static(message)));
        if let Ok(Admission::Granted) = gate.admit(&request).await {
            assert_eq!(
                before,
                Admission::Granted,
                "a nonsensical credential opened the gate"
            );
        }
    }
    let over = Bytes::from(vec![0; MAX_PAYMENT_MESSAGE + 1]);
    let result = gate.message(over).await;
    let refused = matches!(result, Err(GateError::Message { .. }));
    assert!(refused, "a message over the limit: {result:?}");

    let plain = request(None);
    let together = join_all((0..16).map(|_| admit(gate, &plain))).await;
    assert_eq!(together.len(), 16, "all that asked at once are answered");
}

/// A gate that asks for nothing: everybody is admitted, over every protocol, whatever they
/// show and however often.
pub async fn free_gate(gate: &dyn PaymentGate) {
    let custom: Protocol = "ipfs/1.0".parse().expect("a valid name");
    for protocol in [
        Protocol::Http,
        Protocol::BitTorrent,
        Protocol::Private,
        custom,
    ] {
        for credential in [
            None,
            Some(Bytes::new()),
            Some(Bytes::from_static(b"anything")),
        ] {
            let mut request = request(credential);
            request.protocol = protocol.clone();
            for _ in 0..4 {
                assert_eq!(
                    admit(gate, &request).await,
                    Admission::Granted,
                    "{request:?}"
                );
                gate.served(&request, request.range).await;
            }
        }
    }
}

/// A purchase of free content from nobody in particular.
pub fn free_purchase() -> Purchase {
    Purchase::new(Cid::from_bytes([7; 32]), free_offer())
}

/// Any agent: nonsense is not accepted, and free content is asked for without a credential
/// and never billed.
pub async fn any_agent(agent: &dyn PaymentAgent) {
    let purchase = free_purchase();
    for terms in NONSENSE {
        let result = agent.respond(&purchase, Bytes::from_static(terms)).await;
        assert!(
            result.is_err(),
            "{} bytes of nonsense were accepted: {result:?}",
            terms.len()
        );
    }
    let over = Bytes::from(vec![0; MAX_PAYMENT_MESSAGE + 1]);
    let result = agent.respond(&purchase, over).await;
    let refused = matches!(result, Err(GateError::Message { .. }));
    assert!(refused, "terms over the limit: {result:?}");

    for range in [ByteRange::new(0, 1), ByteRange::new(1, u64::MAX)] {
        agent.verified(&purchase, range).await;
        let credential = agent.credential(&purchase, range).await;
        let none = matches!(credential, Ok(None));
        assert!(none, "free content needs no credential: {credential:?}");
    }
    let due = agent.due(&purchase).await;
    assert!(matches!(due, Ok(None)), "free content: {due:?}");
    let bills = agent.bills(Some(purchase.cid)).await;
    let none = matches!(&bills, Ok(bills) if bills.is_empty());
    assert!(none, "free content was billed: {bills:?}");
}

/// An agent that pays nothing: it walks away from every offer to pay, and shows nothing even
/// where a price is asked.
pub async fn free_agent(agent: &dyn PaymentAgent, terms: impl IntoIterator<Item = Bytes>) {
    let mut purchase = free_purchase();
    for price in ["0", "0.000000000000000001", "1000000"] {
        purchase.offer.price = price.parse().expect("an amount");
        for terms in NONSENSE.iter().map(|terms| Bytes::from_static(terms)) {
            let result = agent.respond(&purchase, terms).await;
            assert!(
                result.is_err(),
                "terms were accepted at {price}: {result:?}"
            );
        }
        let credential = agent.credential(&purchase, ByteRange::new(0, 1)).await;
        let none = matches!(credential, Ok(None));
        assert!(none, "nothing to show at {price}: {credential:?}");
    }
    for terms in terms {
        let result = agent.respond(&purchase, terms).await;
        let walked = matches!(result, Err(GateError::Price));
        assert!(walked, "real terms cost something: {result:?}");
    }
}

async fn admit(gate: &dyn PaymentGate, request: &ServeRequest) -> Admission {
    match gate.admit(request).await {
        Ok(Admission::PaymentRequired(terms)) => {
            assert!(
                terms.len() <= MAX_PAYMENT_MESSAGE,
                "{} bytes of terms",
                terms.len()
            );
            Admission::PaymentRequired(terms)
        }
        Ok(admission) => admission,
        Err(error) => panic!("the gate does not answer: {error}"),
    }
}
